"""Runs that are kept as their kernel calls: the bits of a run that is not, for any data, threads and user."""

from __future__ import annotations

import copy
import pickle
import queue
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refnet
from refnet.arithmetic import captured_run as recording
from refnet.arithmetic.captured_run import KEPT, Recording, Recordings
from refnet.arithmetic.plain import Plain
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.kernels.memory import LINE, PIECE, Room, empty, within
from refnet.kernels.team import Tape
from refnet.ops import Clip, Conv, Identity, Mul, Relu
from tests.core.test_interpreter import residual
from tests.helpers.bits import awkward, floats, same_bits
from tests.ops.test_ops_rules import EXAMPLES


def kept(graph: Graph) -> list[Recording]:
    recordings = graph.kept.get("recordings", Recordings())
    return [known for known in recordings._seen.values() if isinstance(known, Recording)]


def spoil(graph: Graph) -> None:
    """Fill the memory of a graph's recordings with NaN: what no kernel computes anew shows."""
    for known in kept(graph):
        for piece in known._room.pieces:
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
@pytest.mark.parametrize("threads", [1, 2])
def test_every_op_can_be_repeated(example, threads):
    """Whether an op says that it is recordable or not, other data gives what a run of its own gives."""
    graph = one_node(example.op, example.data)
    for again in range(5):
        inputs = {name: awkward(kind.shape, (name, again), 0.1) for name, kind in graph.inputs.items()}
        spoil(graph)
        found = refnet.run(graph, inputs, Plain(threads))["y"]
        assert same_bits(found, values_of(graph, inputs)["y"]), again
    assert len(kept(graph)) == 1


def test_what_says_that_it_is_recordable_is():
    """All that the ops of these networks do is in kernels: a repetition is one row of calls."""
    for name in ("octave-se-resnet-digits", "resnest-digits"):
        graph = refnet.load(name)
        for again in range(3):
            refnet.run(graph, {"data": floats((1, *graph.inputs["data"].shape[1:]), again)})
        (known,) = kept(graph)
        assert [type(step) for step in known._steps] == [Tape]


@pytest.mark.parametrize("name", ["octave-se-resnet-digits", "resnest-digits"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 5])
def test_networks_are_repeated_to_the_last_bit(name, threads, batch):
    graph = refnet.load(name)
    shape = (batch, *graph.inputs["data"].shape[1:])
    wanted = [graph.nodes[7].name, *graph.outputs.values()]
    for again in range(5):
        x = {"data": awkward(shape, again, 0.002 * (again == 3))}
        spoil(graph)
        found = refnet.run(graph, x, Plain(threads), wanted)
        expected = values_of(graph, x)
        assert all(same_bits(found[value], expected[value]) for value in wanted), again
    assert len(kept(graph)) == 1


def test_the_first_run_is_not_recorded_and_few_recordings_are_kept():
    graph = residual()
    for batch in range(1, KEPT + 4):
        refnet.run(graph, {"data": floats((batch, 2, 4, 4), "x")})
        assert kept(graph) == []
    for batch in range(1, KEPT + 4):
        for _ in range(2):
            refnet.run(graph, {"data": floats((batch, 2, 4, 4), "x")})
    assert len(kept(graph)) == KEPT
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


def test_weights_that_may_change_are_not_recorded():
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


def test_other_weights_have_recordings_of_their_own():
    op = Conv(3, (1, 1))
    bare = Graph("g", {"x": TensorType((1, 2, 3, 3))}, (Node("y", op, ("x", "w")),), {"y": "y"})
    x = {"x": floats((1, 2, 3, 3), "x")}
    graphs = [bare.with_weights({"w": floats((3, 2, 1, 1), key)}) for key in "ab"]
    for _ in range(4):
        for graph in graphs:
            assert same_bits(refnet.run(graph, x)["y"], values_of(graph, x)["y"])
    renamed = replace(graphs[0], name="other")
    assert kept(renamed) == []


def test_copies_of_a_graph_begin_anew():
    graph = residual()
    x = {"data": floats((1, 2, 4, 4), "x")}
    for _ in range(3):
        expected = refnet.run(graph, x)["out"]
    twin = copy.deepcopy(graph.kept)
    assert len(kept(graph)) == 1
    assert twin["recordings"]._seen == {}
    assert pickle.loads(pickle.dumps(graph.kept["recordings"]))._seen == {}
    assert same_bits(refnet.run(graph, x)["out"], expected)


def test_large_values_are_not_kept(monkeypatch):
    graph = residual()
    x = {"data": floats((2, 2, 4, 4), "x")}
    monkeypatch.setattr(recording, "MOST", 1000)
    everything = [node.name for node in graph.nodes]
    for _ in range(3):
        found = refnet.run(graph, x, values=everything)
    assert kept(graph) == []
    assert all(same_bits(found[name], value) for name, value in values_of(graph, x).items())


def test_runs_that_need_much_memory_are_not_kept(monkeypatch):
    graph = residual()
    monkeypatch.setattr(recording, "ROOM", 1000)
    for again in range(5):
        x = {"data": floats((2, 2, 4, 4), again)}
        assert same_bits(refnet.run(graph, x)["out"], values_of(graph, x)["tail"])
    assert kept(graph) == []
    assert list(graph.kept["recordings"]._seen.values()) == [recording.Seen.LARGE]


def test_many_users_at_once():
    """Who finds a recording busy runs without it."""
    graph = refnet.load("resnest-digits")
    shape = (1, *graph.inputs["data"].shape[1:])
    data = [floats(shape, key) for key in range(4)]
    expected = [refnet.run(graph, {"data": x})["prob"] for x in data]
    wrong: list[int] = []

    def use(which: int) -> None:
        for _ in range(40):
            found = refnet.run(graph, {"data": data[which]}, Plain(2))["prob"]
            if not same_bits(found, expected[which]):
                wrong.append(which)

    users = [threading.Thread(target=use, args=(which,)) for which in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    assert wrong == []


def test_an_op_that_says_so_wrongly_is_found(monkeypatch):
    """Its value does not lie in the room."""
    monkeypatch.setattr(Relu, "run", lambda self, x, threads=1: np.maximum(x, np.float32(0)))
    types = {"x": TensorType((1, 3))}
    graph = Graph("g", types, (Node("y", Relu(), ("x",)),), {"y": "y"}).with_weights({})
    monkeypatch.setattr(Plain, "fuse", lambda self, nodes, keep: tuple(nodes))
    x = {"x": floats((1, 3), "x")}
    refnet.run(graph, x)
    with pytest.raises(RuntimeError, match="says that it is recordable"):
        refnet.run(graph, x)


class Doubled(Plain):
    """What Plain does with twice the data, computed by NumPy."""

    def evaluate(self, node, *inputs):
        return super().evaluate(node, inputs[0] * np.float32(2), *inputs[1:])


class DoubledConv(Conv):
    def run(self, *inputs, threads=1):
        return super().run(inputs[0] * np.float32(2), *inputs[1:], threads=threads)


class Upside(Identity):
    def run(self, *inputs, threads=1):
        return -inputs[0]


def test_what_is_derived_from_the_known_is_never_recorded():
    """It may do with the data what no kernel does."""
    w = floats((3, 2, 1, 1), "w")
    types = {"x": TensorType((1, 2, 3, 3))}
    graph = Graph("g", types, (Node("y", Conv(3, (1, 1)), ("x", "w")),), {"y": "y"}).with_weights({"w": w})
    derived = replace(graph, nodes=(Node("y", DoubledConv(3, (1, 1)), ("x", "w")),))
    upside = Graph("g", types, (Node("y", Upside(), ("x",)),), {"y": "y"}).with_weights({})
    for again in range(5):
        x = {"x": floats((1, 2, 3, 3), again)}
        once = refnet.run(graph, x)["y"]
        assert same_bits(refnet.run(graph, x, Doubled(1))["y"], once * np.float32(2))
        assert same_bits(refnet.run(derived, x)["y"], once * np.float32(2))
        assert same_bits(refnet.run(upside, x)["y"], -x["x"])


@pytest.mark.parametrize("shape", [(1, 4, 0), (2, 0, 3, 3)])
@pytest.mark.parametrize("op", [Relu(), Clip(0.0, 1.0), Identity()])
def test_nothing_can_be_repeated(shape, op):
    graph = Graph("g", {"x": TensorType(shape)}, (Node("y", op, ("x",)),), {"y": "y"}).with_weights({})
    for _ in range(5):
        assert refnet.run(graph, {"x": np.zeros(shape, np.float32)})["y"].shape == shape


def test_a_product_that_is_numpys_is_not_recorded():
    """Of two arrays of one shape, within a run of nodes; what is recorded knows nothing of other data."""
    types = {name: TensorType((1, 2, 3, 3)) for name in "ab"}
    nodes = (Node("m", Mul(), ("a", "b")), Node("y", Relu(), ("m",)))
    graph = Graph("g", types, nodes, {"y": "y"}).with_weights({})
    for again in range(5):
        inputs = {name: floats((1, 2, 3, 3), (name, again)) for name in "ab"}
        assert same_bits(refnet.run(graph, inputs)["y"], values_of(graph, inputs)["y"])


def test_each_number_of_threads_has_its_recording():
    graph = residual()
    for threads in (1, 2, 3) * 3:
        refnet.run(graph, {"data": floats((1, 2, 4, 4), "x")}, Plain(threads))
    assert sorted(tape.threads for known in kept(graph) for tape in known._steps) == [1, 2, 3]


def test_recordings_share_what_memory_they_may_keep(monkeypatch):
    graph = residual()
    monkeypatch.setattr(recording, "ROOM", 2 * PIECE)
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
    room = Room()
    alive: dict[int, np.ndarray] = {}
    for size, slot in requests:
        made = room.empty((size,), np.float32)
        assert made.shape == (size,)
        alive[slot] = made[: size // 2] if size % 2 and size > 1 else made
        del made
        if size:
            assert extent(alive[slot])[0] % LINE == 0
        taken = sorted(extent(array) for array in alive.values() if array.size)
        assert all(a[1] <= b[0] for a, b in pairwise(taken))
    alive.clear()
    pieces = len(room.pieces)
    whole = [room.empty((piece.size,), np.uint8) for piece in list(room.pieces)]
    assert len(room.pieces) == len(whole) == pieces


def test_who_lets_go_of_an_array_does_no_more_than_say_so():
    """Any thread may be the last to have an array; the room is changed by the one that asks it only."""
    room = Room()
    kept = [room.empty((10,), np.float32)]
    begin, gaps = extent(kept[0])[0], copy.deepcopy(room._free)
    other = threading.Thread(target=kept.clear)
    other.start()
    other.join()
    assert room._free == gaps
    assert extent(room.empty((10,), np.float32))[0] == begin


def test_arrays_that_end_in_other_threads():
    room, wrong = Room(), []
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
            array = room.empty((key * 37 % 200 + 1,), np.float32)
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
    room = Room()
    large = room.empty((PIECE // 4 + 1,), np.float32)
    small = room.empty((3, 5), np.float64)
    assert [piece.size >= PIECE for piece in room.pieces] == [True, True]
    assert room.lasting(np.zeros(3)) is None
    nothing = room.lasting(large[:0])
    assert nothing is not None
    assert nothing.shape == (0,)
    twin = room.lasting(small[1:, ::2])
    assert twin is not None
    small[:] = np.arange(15).reshape(3, 5)
    assert twin.tolist() == [[5.0, 7.0, 9.0], [10.0, 12.0, 14.0]]
    del small
    assert extent(room.empty((1,), np.float32))[0] == twin.__array_interface__["data"][0] - 40


def test_within_a_room():
    room = Room()
    with within(room):
        assert room.lasting(empty((2,), np.float32)) is not None
    assert room.lasting(empty((2,), np.float32)) is None


class Odd(np.ndarray):
    """An array that may be anything."""


def test_what_only_looks_like_the_run_before_is_not_it():
    """Two inputs, recorded; then others, each of which differs from the recorded run in one way."""
    graph = Graph(
        "two",
        {"a": TensorType((1, 3, 4, 4)), "b": TensorType((1, 3, 4, 4))},
        (Node("p", Mul(), ("a", "b")), Node("y", Relu(), ("p",))),
        {"y": "y"},
    ).with_weights({})
    inputs = {name: floats((1, 3, 4, 4), name) for name in "ab"}

    def runs(inputs, threads=1, values=None):
        return refnet.run(graph, inputs, Plain(threads), values)

    for _ in range(3):
        runs(inputs)
    before, recorded = runs(inputs)["y"], graph.kept["recordings"]._latest
    assert isinstance(recorded, Recording)
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
        with pytest.raises(InputError, match="two"):
            runs(wrong)
    two = {name: np.concatenate([array, array[:, ::-1]]) for name, array in inputs.items()}
    assert same_bits(runs(two)["y"][:1], before)
    for again in range(4):  # each kind comes behind another
        assert same_bits(runs(inputs)["y"], before)
        assert set(runs(inputs, values=["p", "y"])) == {"p", "y"}
        assert same_bits(runs(MappingProxyType(inputs))["y"], before)
        assert same_bits(runs({name: inputs[name].view(Odd) for name in "ba"})["y"], before)
        assert same_bits(runs(inputs, threads=2)["y"], before), again
    assert {kind._threads for kind in kept(graph)} == {1, 2}
