"""Runs that are kept as their kernel calls: the bits of a run that is not, for any data, threads and user."""

from __future__ import annotations

import copy
import gc
import pickle
import queue
import sys
import threading
import weakref
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refnet
from refnet.arithmetic import captured_run, run
from refnet.arithmetic.captured_run import RUN_LIMIT, CapturedRun, CapturedRuns
from refnet.arithmetic.plain import Plain
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.kernels.memory import LINE, PIECE, Arena, allocating_in, empty
from refnet.kernels.thread_pool import LaunchList
from refnet.ops import Abs, Clip, Conv, Identity, Mul, Relu
from tests.core.test_interpreter import residual
from tests.helpers.bits import awkward, floats, same_bits
from tests.ops.test_ops_rules import EXAMPLES


def runs_of(graph: Graph, plain: Plain | None = None) -> CapturedRuns:
    """The captured runs that an arithmetic has of the graph; None: that of those who give none."""
    return (plain or run._plain())._captured.of(graph, CapturedRuns)


def kept(graph: Graph, plain: Plain | None = None) -> list[CapturedRun]:
    return [known for known in runs_of(graph, plain)._seen.values() if isinstance(known, CapturedRun)]


def spoil(graph: Graph, plain: Plain) -> None:
    """Fill the memory of a graph's captured runs with NaN: what no kernel computes anew shows."""
    for known in kept(graph, plain):
        for piece in known._arena.pieces:
            piece[:] = 255


def values_of(graph, inputs, threads=1):
    return {node.name: value.copy() for node, value in refnet.steps(graph, inputs, Plain(threads))}


def one_node(op, shapes):
    """A graph of one op on data of these shapes, and what makes its inputs."""
    names = [f"x{i}" for i in range(len(shapes))]
    types = {name: TensorType(shape) for name, shape in zip(names, shapes, strict=True)}
    kinds = op.weight_types(*types.values())
    weights = {}
    for at, (role, kind) in enumerate(zip(op.weight_roles(), kinds, strict=True)):
        weight = floats(kind.shape, (repr(op), at))
        weights[f"w{at}"] = np.abs(weight) if role == "var" else weight
    graph = Graph("one", types, (Node("y", op, (*names, *weights)),), {"y": "y"})
    return graph.with_weights(weights)


@pytest.mark.parametrize("example", EXAMPLES, ids=[repr(e.op) for e in EXAMPLES])
def test_every_op_can_be_repeated(example):
    """Whether an op says that it is capturable or not, other data gives what a run of its own gives."""
    for threads in (1, 2):
        graph, plain = one_node(example.op, example.data), Plain(threads)
        for again in range(5):
            inputs = {name: awkward(kind.shape, (name, again), 0.1) for name, kind in graph.inputs.items()}
            spoil(graph, plain)
            found = refnet.run(graph, inputs, plain)["y"]
            assert same_bits(found, values_of(graph, inputs)["y"]), (threads, again)
        assert len(kept(graph, plain)) == 1, threads


def test_what_says_that_it_is_capturable_is():
    """All that the ops of these networks do is in kernels: a repetition is one row of calls."""
    for name in ("octave-se-resnet-digits", "resnest-digits"):
        graph = refnet.load(name)
        for again in range(3):
            refnet.run(graph, {"data": floats((1, *graph.inputs["data"].shape[1:]), again)})
        (known,) = kept(graph)
        assert [type(step) for step in known._steps] == [LaunchList]


@pytest.mark.parametrize("name", ["octave-se-resnet-digits", "resnest-digits"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 5])
def test_networks_are_repeated_to_the_last_bit(name, threads, batch):
    graph = refnet.load(name)
    shape = (batch, *graph.inputs["data"].shape[1:])
    wanted, plain = [graph.nodes[7].name, *graph.outputs.values()], Plain(threads)
    for again in range(5):
        x = {"data": awkward(shape, again, 0.002 * (again == 3))}
        spoil(graph, plain)
        found = refnet.run(graph, x, plain, wanted)
        expected = values_of(graph, x)
        assert all(same_bits(found[value], expected[value]) for value in wanted), again
    assert len(kept(graph, plain)) == 1


def test_the_first_run_is_not_captured_and_few_captured_runs_are_kept():
    graph = residual()
    for batch in range(1, RUN_LIMIT + 4):
        refnet.run(graph, {"data": floats((batch, 2, 4, 4), "x")})
        assert kept(graph) == []
    for batch in range(1, RUN_LIMIT + 4):
        for _ in range(2):
            refnet.run(graph, {"data": floats((batch, 2, 4, 4), "x")})
    assert len(kept(graph)) == RUN_LIMIT
    first = kept(graph)[0]
    assert first.repeat({"data": floats((4, 2, 4, 4), "x")}) is not None
    refnet.run(graph, {"data": floats((4, 2, 4, 4), "x")})
    assert kept(graph)[-1] is first  # used last


def test_results_are_the_caller_s_own():
    graph = residual()
    x = floats((1, 2, 4, 4), "x")
    expected = values_of(graph, {"data": x})["tail"]
    for _ in range(4):
        found = refnet.run(graph, {"data": x})["out"]
        assert same_bits(found, expected)
        found[:] = 7
        assert same_bits(x, floats((1, 2, 4, 4), "x"))


def test_weights_that_may_change_are_not_captured():
    op = Conv(3, (1, 1))
    types = {"x": TensorType((1, 2, 3, 3))}
    w = floats((3, 2, 1, 1), "w")
    loose = Graph("loose", types, (Node("y", op, ("x", "w")),), {"y": "y"}, {"w": w})
    x = {"x": floats((1, 2, 3, 3), "x")}
    for _ in range(4):
        before = refnet.run(loose, x)["y"]
        w *= np.float32(2)
        assert same_bits(refnet.run(loose, x)["y"], before * np.float32(2))
    assert kept(loose) == []
    graph = loose.with_weights({"w": w})
    for _ in range(4):
        before = refnet.run(graph, x)["y"]
    graph.weights["w"].flags.writeable = True  # against all promises
    graph.weights["w"][:] *= np.float32(2)
    assert same_bits(refnet.run(graph, x)["y"], before * np.float32(2))


def test_other_weights_have_captured_runs_of_their_own():
    op = Conv(3, (1, 1))
    bare = Graph("g", {"x": TensorType((1, 2, 3, 3))}, (Node("y", op, ("x", "w")),), {"y": "y"})
    x = {"x": floats((1, 2, 3, 3), "x")}
    graphs = [bare.with_weights({"w": floats((3, 2, 1, 1), key)}) for key in "ab"]
    for _ in range(4):
        for graph in graphs:
            assert same_bits(refnet.run(graph, x)["y"], values_of(graph, x)["y"])
    renamed = replace(graphs[0], name="other")
    assert kept(renamed) == []


def test_copies_of_a_graph_and_of_an_arithmetic_begin_anew():
    graph, plain = residual(), Plain(2)
    x = {"data": floats((1, 2, 4, 4), "x")}
    for _ in range(3):
        expected = refnet.run(graph, x, plain)["out"]
    assert len(kept(graph, plain)) == 1
    assert kept(replace(graph), plain) == []
    for twin in (copy.copy(plain), copy.deepcopy(plain), pickle.loads(pickle.dumps(plain)), replace(plain)):
        assert twin == plain
        assert kept(graph, twin) == [] or twin._captured is plain._captured
    assert kept(graph, Plain(2)) == []
    assert same_bits(refnet.run(graph, x, plain)["out"], expected)


def test_what_is_kept_ends_with_its_graph():
    """Neither plans nor captured runs keep a graph alive, nor outlive it."""
    graph, plain = residual(), Plain(1)
    for _ in range(3):
        refnet.run(graph, {"data": floats((1, 2, 4, 4), "x")}, plain)
    (captured,), gone = kept(graph, plain), weakref.ref(graph)
    ended = weakref.ref(captured)
    del captured, graph
    gc.collect()
    assert gone() is None
    assert ended() is None


def test_large_values_are_not_kept(monkeypatch):
    graph = residual()
    x = {"data": floats((2, 2, 4, 4), "x")}
    monkeypatch.setattr(captured_run, "VALUE_LIMIT", 1000)
    everything = [node.name for node in graph.nodes]
    for _ in range(3):
        found = refnet.run(graph, x, values=everything)
    assert kept(graph) == []
    assert all(same_bits(found[name], value) for name, value in values_of(graph, x).items())


def test_runs_that_need_much_memory_are_not_kept(monkeypatch):
    graph = residual()
    monkeypatch.setattr(captured_run, "MEMORY_LIMIT", 1000)
    for again in range(5):
        x = {"data": floats((2, 2, 4, 4), again)}
        assert same_bits(refnet.run(graph, x)["out"], values_of(graph, x)["tail"])
    assert kept(graph) == []
    assert list(runs_of(graph)._seen.values()) == [captured_run.Seen.LARGE]


def test_many_users_at_once():
    """Who finds a captured run busy runs without it."""
    graph = refnet.load("resnest-digits")
    shape = (1, *graph.inputs["data"].shape[1:])
    data = [floats(shape, key) for key in range(4)]
    expected = [refnet.run(graph, {"data": x})["prob"] for x in data]
    wrong: list[int] = []
    plain = Plain(2)

    def use(which: int) -> None:
        for _ in range(40):
            found = refnet.run(graph, {"data": data[which]}, plain)["prob"]
            if not same_bits(found, expected[which]):
                wrong.append(which)

    users = [threading.Thread(target=use, args=(which,)) for which in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    assert wrong == []


def test_an_op_that_says_so_wrongly_is_found(monkeypatch):
    """Its value does not lie in the arena."""
    monkeypatch.setattr(Relu, "run", lambda self, x, engine: np.maximum(x, np.float32(0)))
    types = {"x": TensorType((1, 3))}
    graph = Graph("g", types, (Node("y", Relu(), ("x",)),), {"y": "y"}).with_weights({})
    monkeypatch.setattr(Plain, "fuse", lambda self, nodes, keep: tuple(nodes))
    x, plain = {"x": floats((1, 3), "x")}, Plain()
    refnet.run(graph, x, plain)
    with pytest.raises(RuntimeError, match="says that it is capturable") as error:
        refnet.run(graph, x, plain)
    assert error.value.__notes__ == ["while executing y = Relu()(x)"]


class Doubled(Plain):
    """What Plain does with twice the data, computed by NumPy."""

    def evaluate(self, node, *inputs):
        return super().evaluate(node, inputs[0] * np.float32(2), *inputs[1:])


class DoubledConv(Conv):
    def run(self, *inputs, engine):
        return super().run(inputs[0] * np.float32(2), *inputs[1:], engine=engine)


class Upside(Identity):
    def run(self, *inputs, engine):
        return -inputs[0]


def test_what_is_derived_from_the_known_is_never_captured():
    """It may do with the data what no kernel does."""
    w = floats((3, 2, 1, 1), "w")
    types = {"x": TensorType((1, 2, 3, 3))}
    graph = Graph("g", types, (Node("y", Conv(3, (1, 1)), ("x", "w")),), {"y": "y"}).with_weights({"w": w})
    derived = replace(graph, nodes=(Node("y", DoubledConv(3, (1, 1)), ("x", "w")),))
    upside = Graph("g", types, (Node("y", Upside(), ("x",)),), {"y": "y"}).with_weights({})
    doubled = Doubled(1)
    for again in range(5):
        x = {"x": floats((1, 2, 3, 3), again)}
        once = refnet.run(graph, x)["y"]
        assert same_bits(refnet.run(graph, x, doubled)["y"], once * np.float32(2))
        assert same_bits(refnet.run(derived, x)["y"], once * np.float32(2))
        assert same_bits(refnet.run(upside, x)["y"], -x["x"])


@pytest.mark.parametrize("shape", [(1, 4, 0), (2, 0, 3, 3)])
@pytest.mark.parametrize("op", [Relu(), Clip(0.0, 1.0), Identity()])
def test_nothing_can_be_repeated(shape, op):
    graph = Graph("g", {"x": TensorType(shape)}, (Node("y", op, ("x",)),), {"y": "y"}).with_weights({})
    for _ in range(5):
        assert refnet.run(graph, {"x": np.zeros(shape, np.float32)})["y"].shape == shape


def test_a_product_that_is_numpys_is_not_captured():
    """Of two arrays of one shape, within a run of nodes; what is captured knows nothing of other data."""
    types = {name: TensorType((1, 2, 3, 3)) for name in "ab"}
    nodes = (Node("m", Mul(), ("a", "b")), Node("y", Relu(), ("m",)))
    graph = Graph("g", types, nodes, {"y": "y"}).with_weights({})
    for again in range(5):
        inputs = {name: floats((1, 2, 3, 3), (name, again)) for name in "ab"}
        assert same_bits(refnet.run(graph, inputs)["y"], values_of(graph, inputs)["y"])


def test_each_number_of_threads_has_its_captured_run(monkeypatch):
    """An arithmetic takes as many threads as there are processors at the time."""
    graph, plain = residual(), Plain()
    for threads in (1, 2, 3) * 3:
        monkeypatch.setattr("refnet.kernels.resources.processors", lambda threads=threads: threads)
        refnet.run(graph, {"data": floats((1, 2, 4, 4), "x")}, plain)
    assert sorted(launches.threads for known in kept(graph, plain) for launches in known._steps) == [1, 2, 3]


def test_captured_runs_share_what_memory_they_may_keep(monkeypatch):
    graph = residual()
    monkeypatch.setattr(captured_run, "MEMORY_LIMIT", 2 * PIECE)
    for batch in (1, 2, 3, 3, 3, 2):
        for _ in range(3):
            refnet.run(graph, {"data": floats((batch, 2, 4, 4), "x")})
    assert [known._inputs["data"].shape[0] for known in kept(graph)] == [3, 2]


# Memory.


def extent(array):
    begin = array.__array_interface__["data"][0]
    return begin, begin + array.nbytes


@settings(deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 12)), max_size=60))
def test_a_room_lends_no_byte_twice(requests):
    """Arrays, and views that outlive them, have their memory for themselves; it is used again afterwards."""
    arena = Arena()
    alive: dict[int, np.ndarray] = {}
    for size, slot in requests:
        made = arena.empty((size,), np.float32)
        assert made.shape == (size,)
        alive[slot] = made[: size // 2] if size % 2 and size > 1 else made
        del made
        if size:
            assert extent(alive[slot])[0] % LINE == 0
        taken = sorted(extent(array) for array in alive.values() if array.size)
        assert all(a[1] <= b[0] for a, b in pairwise(taken))
    alive.clear()
    pieces = len(arena.pieces)
    whole = [arena.empty((piece.size,), np.uint8) for piece in list(arena.pieces)]
    assert len(arena.pieces) == len(whole) == pieces


def test_who_lets_go_of_an_array_does_no_more_than_say_so():
    """Any thread may be the last to have an array; the arena is changed by the one that asks it only."""
    arena = Arena()
    kept = [arena.empty((10,), np.float32)]
    begin, gaps = extent(kept[0])[0], copy.deepcopy(arena._free)
    other = threading.Thread(target=kept.clear)
    other.start()
    other.join()
    assert arena._free == gaps
    assert extent(arena.empty((10,), np.float32))[0] == begin


def test_arrays_that_end_in_other_threads():
    arena, wrong = Arena(), []
    waiting: queue.Queue[tuple[int, np.ndarray] | None] = queue.Queue(20)

    def drop() -> None:
        while (got := waiting.get()) is not None:
            if not (got[1] == got[0]).all():
                wrong.append(got[0])
            del got

    others = [threading.Thread(target=drop) for _ in range(3)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for other in others:
            other.start()
        for key in range(6000):
            array = arena.empty((key * 37 % 200 + 1,), np.float32)
            array[:] = key
            waiting.put((key, array))
            del array
    finally:
        sys.setswitchinterval(before)
        for _ in others:
            waiting.put(None)
        for other in others:
            other.join(60)
    assert wrong == []


def test_a_room_grows_as_it_must():
    arena = Arena()
    large = arena.empty((PIECE // 4 + 1,), np.float32)
    small = arena.empty((3, 5), np.float64)
    assert [piece.size >= PIECE for piece in arena.pieces] == [True, True]
    assert arena.lasting(np.zeros(3)) is None
    nothing = arena.lasting(large[:0])
    assert nothing is not None
    assert nothing.shape == (0,)
    twin = arena.lasting(small[1:, ::2])
    assert twin is not None
    small[:] = np.arange(15).reshape(3, 5)
    assert twin.tolist() == [[5.0, 7.0, 9.0], [10.0, 12.0, 14.0]]
    del small
    assert extent(arena.empty((1,), np.float32))[0] == twin.__array_interface__["data"][0] - 40


def test_allocating_in_an_arena():
    arena = Arena()
    with allocating_in(arena):
        assert arena.lasting(empty((2,), np.float32)) is not None
    assert arena.lasting(empty((2,), np.float32)) is None


class Odd(np.ndarray):
    """An array that may be anything."""


def test_what_only_looks_like_the_run_before_is_not_it():
    """Two inputs, captured; then others, each of which differs from the captured run in one way."""
    graph = Graph(
        "two",
        {"a": TensorType((1, 3, 4, 4)), "b": TensorType((1, 3, 4, 4))},
        (Node("p", Mul(), ("a", "b")), Node("y", Relu(), ("p",))),
        {"y": "y"},
    ).with_weights({})
    inputs = {name: floats((1, 3, 4, 4), name) for name in "ab"}

    plains = {threads: Plain(threads) for threads in (1, 2)}

    def runs(inputs, threads=1, values=None):
        return refnet.run(graph, inputs, plains[threads], values)

    for _ in range(3):
        runs(inputs)
    before, latest = runs(inputs)["y"], runs_of(graph, plains[1])._latest
    assert isinstance(latest, CapturedRun)
    for wrong in (
        {"a": inputs["a"]},
        {**inputs, "c": inputs["a"]},
        {"a": inputs["a"], "c": inputs["b"]},
        {**inputs, "b": inputs["b"].astype(np.float64)},
        {**inputs, "b": inputs["b"].astype(">f4")},
        {**inputs, "b": inputs["b"].tolist()},
        {**inputs, "b": inputs["b"][0]},
        {**inputs, "b": inputs["b"][:, :, :2]},
        {**inputs, "b": inputs["b"][:0]},
        [inputs["a"], inputs["b"]],
    ):
        with pytest.raises(InputError, match=r"two|must be a mapping of arrays"):
            runs(wrong)
    two = {name: np.concatenate([array, array[:, ::-1]]) for name, array in inputs.items()}
    assert same_bits(runs(two)["y"][:1], before)
    for again in range(4):  # each kind comes behind another
        assert same_bits(runs(inputs)["y"], before)
        assert set(runs(inputs, values=["p", "y"])) == {"p", "y"}
        assert same_bits(runs(MappingProxyType(inputs))["y"], before)
        assert same_bits(runs({name: inputs[name].view(Odd) for name in "ba"})["y"], before)
        assert same_bits(runs(inputs, threads=2)["y"], before), again
    assert {kind._threads for plain in plains.values() for kind in kept(graph, plain)} == {1, 2}


def test_an_op_that_is_not_captured_names_its_node_too(monkeypatch):
    """In each run: the interpreter's, the captured one and its repetitions."""
    graph = Graph("g", {"x": TensorType((1, 3))}, (Node("y", Abs(), ("x",)),), {"y": "y"})
    graph, plain, x = graph.with_weights({}), Plain(1), {"x": floats((1, 3), "x")}
    run_ = Abs.run

    def failing(self, *inputs, engine):
        raise FloatingPointError("in NumPy")

    for again in range(4):
        monkeypatch.setattr(Abs, "run", failing)
        with pytest.raises(FloatingPointError, match="in NumPy") as error:
            refnet.run(graph, x, plain)
        assert error.value.__notes__ == ["while executing y = Abs()(x)"], again
        monkeypatch.setattr(Abs, "run", run_)
        refnet.run(graph, x, plain)
