"""The one loop: order, lifetimes, what run and steps promise."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

import refnet
from refnet.arithmetic.fused import Fused, fuse
from refnet.arithmetic.plain import Plain
from refnet.core.caches import Latest
from refnet.core.errors import GraphError, InputError, WeightsError
from refnet.core.graph import Graph, Node, TensorType
from refnet.ops import Add, BatchNorm, Clip, Conv, Mul, Relu, UpsampleNearest
from tests.helpers.bits import awkward, floats, same_bits

X = TensorType((1, 2, 4, 4))


def residual() -> Graph:
    """Two convolutions, batch norms, an addition, relus; `shared` is read twice."""
    nodes = (
        Node("stem", Conv(4, (3, 3), pad=(1, 1), bias=True), ("data", "stem_w", "stem_b")),
        Node("stem_bn", BatchNorm(1e-4), ("stem", "g0", "b0", "m0", "v0")),
        Node("shared", Relu(), ("stem_bn",)),
        Node("conv", Conv(4, (1, 1)), ("shared", "conv_w")),
        Node("bn", BatchNorm(1e-4), ("conv", "g1", "b1", "m1", "v1")),
        Node("sum", Add(2), ("shared", "bn")),
        Node("twice", Add(2), ("sum", "sum")),
        Node("relu", Relu(), ("twice",)),
        Node("up", UpsampleNearest(2), ("relu",)),
        Node("tail_bn", BatchNorm(1e-3), ("up", "g2", "b2", "m2", "v2")),
        Node("tail", Relu(), ("tail_bn",)),
        Node("unused", Relu(), ("tail_bn",)),
    )
    graph = Graph("residual", {"data": X}, nodes, {"out": "tail"})
    weights = {n: floats(t.shape, n) for n, t in graph.weight_types.items()}
    return graph.with_weights({n: np.abs(w) if n[0] == "v" else w for n, w in weights.items()})


def every_value(graph, inputs, threads=1):
    return {node.name: value.copy() for node, value in refnet.steps(graph, inputs, Plain(threads))}


def test_a_cache_keeps_what_was_made_last():
    kept, made = Latest(3), []
    for key in (1, 2, 3, 1, 4, 1, 4):
        assert kept.of(key, lambda key=key: made.append(key) or -key) == -key
    assert made == [1, 2, 3, 4, 1]


def test_a_plan_is_kept_for_each_batch_size():
    own = Plain(1)
    graph = residual()
    plan = own.plan(graph, frozenset({"tail"}))
    asked = []
    plan.fitting.of = lambda key, make, of=plan.fitting.of: of(key, lambda: asked.append(key) or make())
    for batch in (1, 2, 1, 2, 3):
        refnet.run(graph, {"data": floats((batch, 2, 4, 4), "x")}, own)
    assert own.plan(graph, frozenset({"tail"})) is plan
    assert [key[0][1].shape[0] for key in asked] == [1, 2, 3]


@pytest.mark.parametrize("odd", [0.0, 0.2])
def test_fused_nodes_change_no_bit(odd):
    graph = residual()
    x = awkward((3, 2, 4, 4), "x", odd)
    values = every_value(graph, {"data": x})
    assert list(values) == [node.name for node in graph.nodes]
    assert same_bits(refnet.run(graph, {"data": x})["out"], values["tail"])
    for name, value in values.items():
        assert same_bits(refnet.run(graph, {"data": x}, values=[name])[name], value)
    everything = refnet.run(graph, {"data": x}, values=list(values))
    assert all(same_bits(everything[name], value) for name, value in values.items())


def test_what_is_fused():
    graph = residual()
    joined = fuse(graph.nodes[:-1], {"tail"})
    assert [n.name for n in joined] == ["shared", "sum", "relu", "up", "tail"]
    assert [len(n.op.ops) for n in joined if isinstance(n.op, Fused)] == [3, 3, 2, 2]
    assert [n.name for n in fuse(graph.nodes, {"bn", "stem"})] == [
        "stem",
        "shared",
        "bn",
        "sum",
        "relu",
        "up",
        "tail_bn",
        "tail",
        "unused",
    ]


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize(
    ("limits", "cut"),
    [
        ((0.0, 6.0), [0.0, 0.0, 0.0, 2.0, 6.0, np.nan]),
        ((-0.0, 6.0), [-0.0, -0.0, -0.0, 2.0, 6.0, np.nan]),
        ((-6.0, 0.0), [-3.0, 0.0, 0.0, 0.0, 0.0, np.nan]),
        ((-6.0, -0.0), [-3.0, -0.0, -0.0, -0.0, -0.0, np.nan]),
        ((2.0, -2.0), [-2.0, -2.0, -2.0, -2.0, -2.0, np.nan]),
    ],
)
def test_the_zeros_of_a_clip(limits, cut, kernels):
    x = np.array([-3, -0.0, 0, 2, 9, np.nan] * 9, np.float32)  # more than any vector
    nodes = (Node("cut", Clip(*limits), ("x",)),)
    graph = Graph("g", {"x": TensorType((1, 1, 54))}, nodes, {"cut": "cut"}).with_weights({})
    found = refnet.run(graph, {"x": x.reshape(1, 1, 54)}, Plain(1, kernels))["cut"]
    assert same_bits(found.reshape(-1), np.array(cut * 9, np.float32))


@pytest.mark.parametrize("limits", [(0.0, 6.0), (-0.5, 0.25), (-0.0, 0.0), (1.0, -1.0)])
def test_a_clip_is_one_pass_with_what_it_follows(limits):
    """Its bits: low where x <= low, then high where that is >= high, so -0 becomes a low of +0; NaN stays."""
    nodes = (
        Node("conv", Conv(4, (3, 3), pad=(1, 1)), ("data", "w")),
        Node("bn", BatchNorm(eps=1e-3), ("conv", "gamma", "beta", "mean", "var")),
        Node("cut", Clip(*limits), ("bn",)),
        Node("relu", Relu(), ("cut",)),
        Node("again", Clip(*limits), ("relu",)),
    )
    graph = Graph("g", {"data": TensorType((2, 4, 5, 5))}, nodes, {"out": "again"})
    weights = {name: np.abs(floats(type_.shape, name)) for name, type_ in graph.weight_types.items()}
    graph = graph.with_weights(weights)
    (joined,) = fuse(graph.nodes, {"again"})
    assert [type(op) for op in joined.op.ops] == [Conv, BatchNorm, Clip, Relu, Clip]
    x = awkward((2, 4, 5, 5), "x", 0.3)
    values = every_value(graph, {"data": x})
    assert same_bits(refnet.run(graph, {"data": x})["out"], values["again"])
    low, high = map(np.float32, limits)
    y = np.where(values["bn"] <= low, low, values["bn"])
    assert same_bits(np.where(y >= high, high, y), values["cut"])


@pytest.mark.parametrize("a", [(4, 4, 4), (4, 1, 1), (1, 4, 4)])
@pytest.mark.parametrize("b", [(4, 4, 4), (4, 1, 1), (4, 1, 4)])
@pytest.mark.parametrize("odd", [0.0, 0.3])
def test_a_product_joins_in_every_shape(a, b, odd):
    """Squeeze and excitation: x * s, then the shortcut, then relu, in one pass where s is one per channel."""
    types = {"a": TensorType((1, *a)), "b": TensorType((1, *b)), "shortcut": TensorType((1, 4, 4, 4))}
    nodes = (
        Node("product", Mul(), ("a", "b")),
        Node("grown", Mul(), ("product", "ones")),
        Node("sum", Add(2), ("shortcut", "grown")),
        Node("relu", Relu(), ("sum",)),
    )
    graph = Graph("product", {**types, "ones": types["shortcut"]}, nodes, {"out": "relu"})
    inputs = {name: awkward((2, *kind.shape[1:]), name, odd) for name, kind in graph.inputs.items()}
    for threads in (1, 2):
        last = every_value(graph, inputs)["relu"]
        assert same_bits(refnet.run(graph, inputs, Plain(threads))["out"], last)
    if {a, b} == {(4, 4, 4), (4, 1, 1)} or a == b == (4, 4, 4):  # the product's shape is the shortcut's
        short = Graph(
            "short",
            types,
            (nodes[0], replace(nodes[2], inputs=("shortcut", "product")), nodes[3]),
            {"out": "relu"},
        )
        given = {name: inputs[name] for name in types}
        assert [n.name for n in fuse(short.nodes, {"relu"})] == ["relu"]
        assert same_bits(refnet.run(short, given)["out"], every_value(short, given)["relu"])


def test_the_same_bits_for_threads_batch_and_position():
    graph = residual()
    x = floats((4, 2, 4, 4), "x")
    values = every_value(graph, {"data": x})
    two = every_value(graph, {"data": x}, threads=2)
    assert all(same_bits(two[name], value) for name, value in values.items())
    for i in range(4):
        alone = every_value(graph, {"data": x[i : i + 1]})
        assert all(same_bits(alone[name][0], value[i]) for name, value in values.items())


def test_values_are_freed_after_their_last_use():
    import weakref

    graph = residual()
    alive: dict[str, weakref.ref] = {}
    for node, value in refnet.steps(graph, {"data": floats((1, 2, 4, 4), "x")}):
        alive[node.name] = weakref.ref(value)
        del value
        if node.name == "up":
            assert not [
                n for n in ("stem", "stem_bn", "conv", "bn", "shared", "sum") if alive[n]() is not None
            ]


def test_steps_can_be_changed_by_nobody():
    """Weights are read-only, and the caller's own arrays stay as they are."""
    graph = residual()
    with pytest.raises(ValueError, match="read-only"):
        graph.weights["stem_w"][0] = 1
    mine = {n: w.copy() for n, w in graph.weights.items()}
    other = graph.with_weights(mine)
    before = refnet.run(other, {"data": floats((1, 2, 4, 4), "x")})["out"]
    mine["stem_w"][:] = 0
    assert same_bits(refnet.run(other, {"data": floats((1, 2, 4, 4), "x")})["out"], before)


def test_inputs_that_do_not_fit():
    graph = residual()
    good = floats((1, 2, 4, 4), "x")
    for inputs, message in (
        ({}, "'data' float32\\[1, 2, 4, 4\\] is missing"),
        ({"data": good, "date": good}, "no input 'date'"),
        ({"data": good.astype(np.float64)}, "must be float32, got float64"),
        ({"data": good[:, :1]}, r"must be \[batch, 2, 4, 4\], got \[1, 1, 4, 4\]"),
        ({"data": good[:0]}, r"must be \[batch, 2, 4, 4\], got \[0, 2, 4, 4\]"),
    ):
        with pytest.raises(InputError, match=message):
            refnet.run(graph, inputs)
    with pytest.raises(InputError, match="no value 'nowhere'"):
        refnet.run(graph, {"data": good}, values=["nowhere"])


def test_weights_that_do_not_fit():
    graph = residual()
    weights = dict(graph.weights)
    del weights["g0"]
    weights["more"] = np.zeros(1, np.float32)
    weights["b0"] = np.zeros(5, np.float32)
    weights["m0"] = np.zeros(4, np.float64)
    with pytest.raises(WeightsError) as caught:
        graph.with_weights(weights)
    for part in ("missing: g0 float32[4]", "surplus: more", "b0 is float32[5]", "m0 is float64[4]"):
        assert part in str(caught.value)
    bare = Graph("bare", graph.inputs, graph.nodes, graph.outputs)
    with pytest.raises(WeightsError, match="no weights yet"):
        refnet.run(bare, {"data": floats((1, 2, 4, 4), "x")})


@pytest.mark.parametrize(
    ("nodes", "outputs", "message"),
    [
        ((Node("a", Relu(), ("b",)),), {}, "reads 'b', made by nothing before it"),
        ((Node("a", Relu(), ("data",)), Node("a", Relu(), ("data",))), {}, "two values are named 'a'"),
        ((Node("a", Relu(), ("data",)),), {"out": "z"}, "'out' names 'z'"),
        (
            (Node("a", Relu(), ("data",)), Node("c", Conv(1, (1, 1)), ("data", "a"))),
            {},
            "takes the value 'a' for a weight",
        ),
    ],
)
def test_graphs_that_contradict_themselves(nodes, outputs, message):
    with pytest.raises(GraphError, match=message):
        Graph("bad", {"data": X}, nodes, outputs)


def test_shapes_that_contradict_themselves_name_the_node():
    nodes = (Node("c", Conv(4, (9, 9)), ("data", "w")),)
    with pytest.raises(GraphError, match=r"bad: c: .*kernel does not fit"):
        Graph("bad", {"data": X}, nodes, {}).types()


def test_a_graph_prints_like_python():
    text = str(residual())
    assert "stem = Conv(channels=4, kernel=(3, 3), pad=(1, 1), bias=True)(data, stem_w, stem_b)" in text
    assert text.endswith("return out=tail")
    assert residual().structure_hash() == residual().structure_hash()
    assert residual().weights_hash() == residual().weights_hash()


def test_values_share_no_memory_with_inputs_or_one_another():
    from refnet.ops import ExpandDims, Flatten, Identity, Slice

    nodes = (
        Node("flat", Flatten(), ("data",)),
        Node("part", Slice(0, 1), ("data",)),
        Node("same", Identity(), ("data",)),
        Node("more", ExpandDims(1), ("flat",)),
    )
    graph = Graph("moves", {"data": X}, nodes, {"out": "flat"})
    x = floats((1, 2, 4, 4), "x")
    for _, value in refnet.steps(graph, {"data": x}):
        assert not np.shares_memory(value, x)
        with pytest.raises(ValueError, match="read-only"):
            value[:] = 0
    out = refnet.run(graph, {"data": x})["out"]
    out[:] = 0  # the caller's own
    assert x.any()


def test_weights_are_checked_however_the_graph_got_them():
    graph = residual()
    wrong = {**graph.weights, "conv_w": np.ones((4, 100000, 1, 1), np.float32)}
    bad = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, wrong)
    with pytest.raises(WeightsError, match=r"conv_w is float32\[4, 100000, 1, 1\]"):
        refnet.run(bad, {"data": floats((1, 2, 4, 4), "x")})
    with pytest.raises(TypeError):
        graph.weights["conv_w"] = wrong["conv_w"]


def test_a_view_made_before_freezing_cannot_change_a_graph():
    graph = residual()
    mine = {n: w.copy() for n, w in graph.weights.items()}
    view = mine["stem_w"][:]
    mine["stem_w"].flags.writeable = False
    other = graph.with_weights(mine)
    view[:] = 7
    assert same_bits(other.weights["stem_w"], graph.weights["stem_w"])


def test_a_graph_takes_arrays_that_are_its_own_without_a_copy():
    """What a reader has just made: read-only from then on, copied only where kernels could not read it."""
    graph = residual()
    mine = {n: w.copy() for n, w in graph.weights.items()}
    mine["stem_w"] = np.asfortranarray(mine["stem_w"])
    crooked = np.empty(mine["b0"].nbytes + 1, np.uint8)[1:].view(np.float32)
    crooked[:] = mine["b0"]
    mine["b0"] = crooked
    other = graph.with_weights(mine, own=True)
    taken = [name for name, weight in other.weights.items() if weight is mine[name]]
    assert set(mine) - set(taken) == {"stem_w", "b0"}
    for name, weight in other.weights.items():
        assert same_bits(weight, graph.weights[name])
        assert not weight.flags.writeable
        assert weight.flags.c_contiguous
        assert weight.flags.aligned
    x = {"data": floats((1, 2, 4, 4), "x")}
    assert same_bits(refnet.run(other, x)["out"], refnet.run(graph, x)["out"])


@pytest.mark.parametrize("threads", [0, -1, 257, 1.5, "x", True])
def test_threads_that_make_no_sense(threads):
    with pytest.raises(InputError, match="threads must be a whole number from 1 to 256"):
        Plain(threads)


def test_a_forked_child_makes_its_own_threads():
    import multiprocessing

    graph = residual()
    x = floats((3, 2, 4, 4), "x")
    expected = refnet.run(graph, {"data": x}, Plain(2))["out"]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(_in_child, (x,)).get(timeout=60)
    assert same_bits(found, expected)


def _in_child(x: np.ndarray) -> np.ndarray:
    big = Graph("big", {"data": TensorType((1, 64, 64, 64))}, (Node("r", Relu(), ("data",)),), {"out": "r"})
    refnet.run(big, {"data": np.ones((2, 64, 64, 64), np.float32)}, Plain(2))  # enough work for two
    return refnet.run(residual(), {"data": x}, Plain(2))["out"]


def test_unknown_values_and_odd_graphs():
    graph = residual()
    x = floats((1, 2, 4, 4), "x")
    with pytest.raises(InputError, match="no value 'nope'"):
        next(refnet.steps(graph, {"data": x}, until=["nope"]))
    for inputs in (None, [x]):
        with pytest.raises(InputError, match="inputs must be a mapping"):
            refnet.run(graph, inputs)
    with pytest.raises(InputError, match="must be an array, got list"):
        refnet.run(graph, {"data": [1.0]})
    nodes = (Node("a", Relu(), ("data",)), Node("b", Relu(), ("a",)))
    flat = Graph("flat", {"data": TensorType((3,))}, nodes, {"out": "b"})
    assert refnet.run(flat, {"data": np.float32([-1, 0, 2])})["out"].tolist() == [0, 0, 2]
    with pytest.raises(GraphError, match="takes 1 inputs, got 2"):
        Graph("two", {"data": X}, (Node("c", Conv(1, (1, 1)), ("data", "data", "w")),), {}).types()


def test_a_graph_that_is_gone_keeps_no_weights():
    graph = refnet.load("resnest-digits")
    refnet.run(graph, {"data": np.zeros((1, 1, 32, 32), np.float32)})
    kept = [weakref.ref(w) for w in graph.weights.values()]
    del graph
    gc.collect()
    assert not any(reference() is not None for reference in kept)


class Unfused(Plain):
    """Plain that evaluates every node alone, and counts them."""

    def __init__(self) -> None:
        super().__init__(1)
        object.__setattr__(self, "names", [])

    def fuse(self, nodes, keep):
        return tuple(nodes)

    def evaluate(self, node, *inputs):
        self.names.append(node.name)
        return super().evaluate(node, *inputs)


def test_each_arithmetic_has_its_own_plans():
    """Not those of another of the same name: what does not fuse evaluates every node, whoever ran before."""
    graph, plain, unfused = refnet.load("resnest-digits"), Plain(1), Unfused()
    x = {"data": floats((1, *graph.inputs["data"].shape[1:]), "x")}
    wanted = frozenset(graph.outputs.values())
    expected = refnet.run(graph, x, plain)["prob"]
    assert len(plain.plan(graph, wanted).schedule) == 52
    assert unfused.name == plain.name
    assert same_bits(refnet.run(graph, x, unfused)["prob"], expected)
    assert unfused.names == [node.name for node in graph.nodes]
    assert len(unfused.names) == 97
    assert plain.plan(graph, wanted) is plain.plan(graph, wanted)  # kept as long as the graph lives


class Failing(Relu):
    """An op whose kernel fails."""

    def run(self, *inputs, engine):
        raise ZeroDivisionError("in a kernel")


@pytest.mark.parametrize("each", [True, False])
def test_an_exception_names_the_node_at_which_it_happened(each):
    types = {"x": TensorType((1, 3))}
    nodes = (Node("fine", Relu(), ("x",)), Node("bad", Failing(), ("fine",)))
    graph = Graph("g", types, nodes, {"y": "bad"}).with_weights({})
    x = {"x": floats((1, 3), "x")}
    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="in a kernel") as error:
            list(refnet.steps(graph, x)) if each else refnet.run(graph, x)
        assert error.value.__notes__ == ["while executing bad = Failing()(fine)"]
