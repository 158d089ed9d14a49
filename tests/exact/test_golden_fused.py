"""Golden's rows of nodes in one pass: the bits of the nodes one by one, which tests/exact proves."""

from __future__ import annotations

import numpy as np
import pytest

import refnet
from refnet.arithmetic.fused import Fused
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.golden_fused import Decided, fuse_golden
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.exact.correct_rounding import RefineCount
from refnet.exact.engine import DecideOrRefine
from refnet.kernels import exact_steps
from refnet.ops import Add, BatchNorm, Conv, Mul, Relu
from tests.exact.test_golden_sums import SHAPES, near_middles, numbers
from tests.helpers.bits import awkward, floats, same_bits

ROWS = {
    "norm": ("bn",),
    "norm and relu": ("bn", "relu"),
    "norm, shortcut and relu": ("bn", "add", "relu"),
    "sum, norm and relu": ("add", "bn", "relu"),
    "two norms": ("relu", "bn", "add", "bn2", "relu2"),
}
F = np.float32


def graph_of(conv: Conv | None, shape: tuple[int, ...], row: tuple[str, ...], eps: float = 1e-5) -> Graph:
    """The convolution, if there is one, and these nodes; weights to be given."""
    data = TensorType(shape)
    nodes = [] if conv is None else [Node("conv", conv, ("x", "w", *(["b"] if conv.bias else [])))]
    made = shape if conv is None else conv.type(data, *conv.weight_types(data)).shape
    last, inputs = "x" if conv is None else "conv", {"x": data}
    for name in row:
        if name == "add":
            inputs["other"] = TensorType(made)
            nodes.append(Node(name, Add(2), ("other", last)))
        elif name.startswith("bn"):
            own = (f"{name}_{role}" for role in ("gamma", "beta", "mean", "var"))
            nodes.append(Node(name, BatchNorm(eps), (last, *own)))
        else:
            nodes.append(Node(name, Relu(), (last,)))
        last = name
    return Graph("row", inputs, tuple(nodes), {"y": last})


def weighted(graph: Graph, kind: str = "normal") -> Graph:
    made = {name: numbers(kind_.shape, name, kind) for name, kind_ in graph.weight_types.items()}
    return graph.with_weights({n: np.abs(v) if n.endswith("var") else v for n, v in made.items()})


def one_by_one(graph: Graph, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return {node.name: value for node, value in refnet.steps(graph, inputs, Golden(1))}[graph.outputs["y"]]


def check(graph: Graph, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The bits of the row on one and three threads are those of its nodes."""
    assert len(Golden().plan(graph, frozenset(graph.outputs.values())).schedule) == 1
    right = one_by_one(graph, inputs)
    for threads in (1, 3):
        assert same_bits(refnet.run(graph, inputs, Golden(threads))["y"], right)
    return right


@pytest.mark.parametrize("kind", ["normal", "relu", "scales"])
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", ["planes", "panels", "tiles", "panels of many images", "tiles, odd"])
def test_a_row_has_the_bits_of_its_nodes(name, row, kind):
    x, w, *place = SHAPES[name]
    graph = weighted(graph_of(Conv(w[0], w[2:], *place, bias=row == "norm"), x, ROWS[row]))
    inputs = {n: numbers(t.shape, n, kind) for n, t in graph.inputs.items()}
    check(graph, inputs)


@pytest.mark.parametrize("row", ["norm and relu", "norm, shortcut and relu", "two norms"])
def test_a_row_without_a_convolution(row):
    for shape in ((2, 5, 7, 9), (3, 4), (1, 3, 41), (2, 3, 0, 4), (2, 0, 3, 4)):
        graph = weighted(graph_of(None, shape, ROWS[row] if row != "two norms" else ROWS[row][1:]))
        check(graph, {n: numbers(t.shape, n, "scales") for n, t in graph.inputs.items()})
        odd = {n: awkward(t.shape, n, 0.3) for n, t in graph.inputs.items()}
        check(graph, odd)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", ["planes", "panels", "tiles"])
def test_what_is_not_finite(name, row):
    """In the input, the shortcut and all weights, beside zeros of both signs, subnormal and huge numbers."""
    x, w, *place = SHAPES[name]
    graph = graph_of(Conv(w[0], w[2:], *place), x, ROWS[row])
    for share in (0.0, 0.02):
        weights = {n: awkward(t.shape, n, share) for n, t in graph.weight_types.items()}
        ready = graph.with_weights(weights)  # variances may be negative, too
        check(ready, {n: awkward(t.shape, n, 0.02 if share == 0 else 0) for n, t in graph.inputs.items()})


@pytest.mark.parametrize("name", ["planes", "panels", "tiles"])
def test_a_sum_that_is_open(name):
    """The convolution's float64 sums end on the wrong side of a middle; the nodes after it take the right
    float32.
    """
    op, x, w = near_middles(name)
    graph = graph_of(op, x.shape, ("bn", "add", "relu"))
    other = floats(graph.types()["conv"].shape, "other")
    per = w.shape[0]
    norm = {"gamma": 1, "beta": 0.5, "mean": 2.0**24, "var": 1}
    weights = {f"bn_{role}": np.full(per, value, np.float32) for role, value in norm.items()}
    right = check(graph.with_weights({"w": w, **weights}), {"x": x, "other": other})
    assert len(np.unique(right - np.maximum(other, 0))) > 0


def on_ties(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Weights of a batch norm that moves 2**24 to 2**-40 beside a middle, above it, below it, and on it."""
    side = np.resize(F([2.0**-40, -(2.0**-40), 0]), shape[1])
    one = np.ones(shape[1], np.float32)
    return {"bn_gamma": one, "bn_beta": side, "bn_mean": -one, "bn_var": one}


@pytest.mark.parametrize(("eps", "left"), [(0.0, []), (2.0**-140, [2 * 8 * 9])])
@pytest.mark.parametrize("conv", [True, False])
def test_a_norm_that_float64_does_not_decide(conv, eps, left, monkeypatch):
    """Pairs of float64 decide it: above a middle, below, and on it if the scale is exact. If they do not, the
    nodes' own golden decides, for these elements alone.
    """
    asked = []
    golden = BatchNorm.golden

    def noted(self, *inputs, exact):
        asked.append(inputs[0].size)
        return golden(self, *inputs, exact=exact)

    shape = (2, 48, 3, 3)
    op = Conv(48, (1, 1)) if conv else None
    graph = graph_of(op, shape, ("bn", "relu"))
    nodes = tuple(
        Node(n.name, BatchNorm(eps), n.inputs) if isinstance(n.op, BatchNorm) else n for n in graph.nodes
    )
    graph = Graph("ties", graph.inputs, nodes, graph.outputs)
    eye = {"w": np.eye(48, dtype=np.float32)[:, :, None, None]} if conv else {}
    graph = graph.with_weights({**eye, **on_ties(shape)})
    x = np.full(shape, 3, np.float32)
    x[:, ::2] = 2.0**24
    right = check(graph, {"x": x})
    assert np.unique(right[:, ::2]).size == 2
    monkeypatch.setattr(BatchNorm, "golden", noted)
    golden_once = Golden(1)
    for _ in range(4):  # the third run repeats what the second one did, and finds out that it may not
        asked.clear()
        assert same_bits(refnet.run(graph, {"x": x}, golden_once)["y"], right)
        assert asked == left


@pytest.mark.parametrize("name", ["planes", "panels", "tiles"])
def test_an_infinite_sum_whose_norm_is_open(name):
    """The relu makes -infinity 0, which the norm moves to a middle: the sum is computed again."""
    x, w, *place = SHAPES[name]
    op = Conv(w[0], w[2:], *place)
    graph = graph_of(op, x, ("relu", "bn"), eps=0.0)
    middle = {"gamma": 1, "beta": 2.0**-24, "mean": -1, "var": 1}
    weights = {f"bn_{role}": np.full(w[0], value, F) for role, value in middle.items()}
    graph = graph.with_weights({"w": np.ones(w, F), **weights})
    data = np.full(x, 2.0**20, F)
    data[0, 0, 1, 1] = -np.inf
    right = check(graph, {"x": data})
    conv = next(iter(refnet.steps(graph, {"x": data}, Golden(1))))[1]
    assert np.isneginf(conv).any()
    assert (right[np.isneginf(conv)] == 1).all()


def test_a_smaller_error_would_be_wrong(monkeypatch):
    """The bits of a norm next to a middle need the error that is claimed."""
    shape = (1, 6, 4, 4)
    graph = graph_of(None, shape, ("bn", "relu")).with_weights(on_ties(shape))
    nodes = (Node("bn", BatchNorm(0.0), graph.nodes[0].inputs), graph.nodes[1])
    graph = Graph("ties", graph.inputs, nodes, graph.outputs).with_weights(graph.weights)
    x = np.full(shape, 2.0**24, np.float32)
    right = check(graph, {"x": x})
    made = exact_steps.tables

    def smaller(*arguments):
        flags, means, scales, shifts, factors, *others = made(*arguments)
        return flags, means, scales, shifts, 0 * factors - exact_steps.ROUNDED, *others

    monkeypatch.setattr("refnet.exact.engine.tables", smaller)
    assert not same_bits(refnet.run(graph, {"x": x}, Golden(1))["y"], right)


def test_which_nodes_are_a_row():
    """A value that is asked for, or read twice, exists; products and sums of two have plain's pass."""
    kind = TensorType((1, 4, 5, 5))
    norm = ("gamma", "beta", "mean", "var")
    nodes = (
        Node("conv", Conv(4, (1, 1)), ("x", "w")),
        Node("bn", BatchNorm(1e-5), ("conv", *norm)),
        Node("twice", Relu(), ("bn",)),
        Node("product", Mul(), ("twice", "other")),
        Node("sum", Add(2), ("product", "twice")),
        Node("last", Relu(), ("sum",)),
        Node("late", BatchNorm(1e-5), ("last", *norm)),
    )
    graph = Graph("g", {"x": kind, "other": kind}, nodes, {"y": "late"})
    rows = fuse_golden(nodes, {"late"})
    assert [(n.name, type(n.op)) for n in rows] == [("twice", Decided), ("last", Fused), ("late", BatchNorm)]
    assert [n.name for n in fuse_golden(nodes, {"late", "bn", "sum"})] == [
        "bn",
        "twice",
        "sum",
        "last",
        "late",
    ]
    graph = weighted(graph)
    inputs = {n: floats(t.shape, n) for n, t in graph.inputs.items()}
    values = {node.name: value.copy() for node, value in refnet.steps(graph, inputs, Golden(1))}
    found = refnet.run(graph, inputs, Golden(1), values=list(values))
    assert all(same_bits(found[name], values[name]) for name in values)
    assert same_bits(refnet.run(graph, inputs, Golden(1))["y"], values["late"])


def test_an_op_of_ones_own_is_in_no_row():
    """What is derived from an op or from Golden may round in its own way."""

    class Own(BatchNorm):
        def golden(self, *inputs, exact):
            return super().golden(*inputs, exact=exact) + F(1)

    class Counting(Golden):
        pass

    graph = weighted(graph_of(Conv(48, (1, 1)), (1, 48, 3, 3), ("bn", "relu")))
    own = Node("bn", Own(1e-5), graph.nodes[1].inputs)
    assert len(fuse_golden((graph.nodes[0], own, graph.nodes[2]), {"relu"})) == 3
    for arithmetic in (Counting(1), Golden(1, RefineCount())):
        assert len(arithmetic.plan(graph, frozenset({"relu"})).schedule) == 3


def test_weights_that_lanes_across_channels_do_not_suit():
    """One output channel; and a weight that is not finite."""
    for outputs, value in ((1, 1.0), (48, np.inf)):
        graph = graph_of(Conv(outputs, (3, 3), pad=(1, 1)), (1, 5, 6, 6), ("bn", "add", "relu"))
        graph = weighted(graph)
        weights = {name: array.copy() for name, array in graph.weights.items()}
        weights["w"][0, 0, 0, 0] = value
        check(graph.with_weights(weights), {n: floats(t.shape, n) for n, t in graph.inputs.items()})
        assert isinstance(Golden(1).exact, DecideOrRefine)
