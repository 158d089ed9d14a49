"""The one loop: order, lifetimes, what run and steps promise."""

from __future__ import annotations

import numpy as np
import pytest

import refnet
from refnet.arithmetic.plain import Plain
from refnet.errors import GraphError, InputError, WeightsError
from refnet.graph import Graph, Node, TensorType
from refnet.ops import Add, BatchNorm, Conv, Relu, UpsampleNearest
from refnet.ops.fused import Fused, fuse
from tests.bits import awkward, floats, same_bits

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
        ((Node("a", Relu(), ("b",)),), {}, "reads 'b', which nothing makes"),
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
