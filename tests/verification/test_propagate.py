"""Bounds over several nodes are sound: random graphs, random values missing, and against rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import Interval
from refnet.verification.judge import judge
from refnet.verification.propagate import AbstractValue, known, propagate
from refnet.verification.verify import Values, verify_values
from tests.helpers.bits import floats
from tests.helpers.engines import FAST
from tests.helpers.verifying import framework, tree

F = np.float32


def random_graph(seed: int) -> Graph:
    """A dozen nodes of every kind that frameworks fuse, with branches."""
    rng = np.random.default_rng(seed)
    nodes: list[Node] = []
    wide = ["x"]  # values (1, 4, 4, 4)

    def put(op: ops.Op, *data: str) -> str:
        name = f"n{len(nodes)}"
        nodes.append(Node(name, op, (*data, *(f"{name}_{role}" for role in op.weight_roles()))))
        return name

    def pick() -> str:
        return wide[-1] if rng.integers(3) else wide[int(rng.integers(len(wide)))]

    for _ in range(9):
        kind = rng.integers(10)
        if kind == 0:
            wide.append(put(ops.Conv(4, (3, 3), pad=(1, 1), bias=bool(rng.integers(2))), pick()))
        elif kind == 1:
            wide.append(put(ops.BatchNorm(1e-5), put(ops.Conv(4, (1, 1)), pick())))
        elif kind == 2:
            wide.append(put(ops.Relu(), pick()))
        elif kind == 3:
            wide.append(put(ops.Add(2), pick(), pick()))
        elif kind == 4:
            wide.append(put(ops.MaxPool((3, 3), pad=(1, 1)), pick()))
        elif kind == 5:
            wide.append(put(ops.UpsampleNearest(2), put(ops.AvgPool((2, 2), (2, 2)), pick())))
        elif kind == 6:
            pooled = put(ops.GlobalAvgPool(), pick())
            gate = put(ops.Sigmoid(), put(ops.Conv(4, (1, 1), bias=True), pooled))
            wide.append(put(ops.Mul(), pick(), gate))
        elif kind == 7:
            wide.append(put(ops.Add(3), pick(), pick(), pick()))
        elif kind == 8:
            wide.append(put(ops.BatchNorm(1e-3, fix_gamma=True), pick()))
        else:
            both = put(ops.Concat(1), pick(), pick())
            wide.append(put(ops.RadixSum(2), both))
    flat = put(ops.Flatten(), put(ops.GlobalAvgPool(), wide[-1]))
    last = put(ops.Softmax(1), put(ops.Dense(5), flat))
    graph = Graph("random", {"x": TensorType((1, 4, 4, 4))}, tuple(nodes), {"out": last})
    weights = {}
    for node in graph.nodes:
        for name, role in zip(node.weights, node.op.weight_roles(), strict=True):
            weight = floats(graph.weight_types[name].shape, (seed, name))
            weights[name] = np.abs(weight) + F(0.1) if role == "var" else weight
    return graph.with_weights(weights)


@pytest.mark.parametrize("seed", range(25))
def test_no_false_alarm_whatever_is_missing(seed):
    """Values of a framework that rounds differently, any of them missing: none is called a defect."""
    graph = random_graph(seed)
    x = floats((1, 4, 4, 4), (seed, "x"))
    values = framework(graph, {"x": x}, seed)
    rng = np.random.default_rng(seed)
    for share in (0.0, 0.3, 0.6, 0.9):
        kept = {n: v for n, v in values.items() if n == graph.outputs["out"] or rng.random() >= share}
        found = verify_values(graph, Values(kept, {"x": x}))
        assert not found.counts["defect"], [(n.name, n.reason) for n in found.nodes if n.verdict == "defect"]
        assert found.counts["missing"] == len(values) - len(kept)
        if not share:
            assert not found.counts["unjudged"]
            assert found.counts["rounding"]


@pytest.mark.parametrize("seed", range(8))
def test_a_wrong_value_is_found_behind_missing_ones(seed):
    """A hidden convolution that drops its last channel is a defect of the next captured value."""
    conv, norm, relu = ops.Conv(6, (3, 3), pad=(1, 1)), ops.BatchNorm(1e-5), ops.Relu()
    nodes = (Node("c", conv, ("x", "w")), Node("b", norm, ("c", "g", "h", "m", "v")), Node("r", relu, ("b",)))
    graph = Graph("three", {"x": TensorType((1, 5, 6, 6))}, nodes, {"out": "r"})
    weights = {n: np.abs(floats(k.shape, (seed, n))) + F(0.1) for n, k in graph.weight_types.items()}
    graph = graph.with_weights(weights)
    x = floats((1, 5, 6, 6), seed)
    right = framework(graph, {"x": x}, seed)["r"]
    assert verify_values(graph, Values({"r": right}, {"x": x})).exit_code == 0
    cut = {**weights, "w": weights["w"].copy()}
    cut["w"][:, -1] = 0
    wrong = framework(graph.with_weights(cut), {"x": x}, seed)["r"]
    found = verify_values(graph, Values({"r": wrong}, {"x": x}))
    assert found.first_defect == "r"
    assert found.nodes[-1].over == ("c", "b", "r")


def exact_conv(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with padding 1 of arrays of rationals."""
    n, _, h, width = x.shape
    padded = np.full((n, x.shape[1], h + 2, width + 2), Fraction(0), object)
    padded[:, :, 1:-1, 1:-1] = x
    y = np.full((n, w.shape[0], h, width), Fraction(0), object)
    for p in range(3):
        for q in range(3):
            part = padded[:, :, p : p + h, q : q + width]
            y = y + np.einsum("oc,nchw->nohw", w[:, :, p, q], part, optimize=False)
    return y


def rational(array: np.ndarray) -> np.ndarray:
    return np.array([Fraction(float(v)) for v in array.ravel()], object).reshape(array.shape)


@pytest.mark.parametrize("seed", range(4))
def test_composed_bounds_hold_the_exact_value(seed):
    """conv, batch norm, relu, an addition, a pool and a conv again, all hidden, against rationals."""
    x, w = floats((1, 3, 4, 4), (seed, "x")), floats((3, 3, 3, 3), (seed, "w"))
    g, h, m = (floats((3,), (seed, name)) for name in "ghm")
    var = np.full(3, 4, F)  # its root is rational
    one = propagate(Node("c", ops.Conv(3, (3, 3), pad=(1, 1)), ("x", "w")), [known(x), known(w)])
    norm = ops.BatchNorm(0.0)
    two = propagate(Node("b", norm, ("c", "g", "h", "m", "v")), [one, *map(known, (g, h, m, var))])
    three = propagate(Node("a", ops.Add(2), ("b", "x")), [two, known(x)])
    four = propagate(Node("r", ops.Relu(), ("a",)), [three])
    five = propagate(Node("p", ops.AvgPool((2, 2)), ("r",)), [four])
    column = (None, slice(None), None, None)
    y = exact_conv(rational(x), rational(w))
    parts = [("c", one, y)]
    y = (y - rational(m)[column]) * rational(g)[column] / 2 + rational(h)[column]
    parts.append(("b", two, y))
    y = y + rational(x)
    parts.append(("a", three, y))
    y = np.where(y > 0, y, Fraction(0))
    parts.append(("r", four, y))
    y = (y[:, :, :-1, :-1] + y[:, :, 1:, :-1] + y[:, :, :-1, 1:] + y[:, :, 1:, 1:]) / 4
    parts.append(("p", five, y))
    for name, operand, exact in parts:
        assert operand.over[-1] == name
        bound = operand.bound
        assert np.isfinite(bound.radius).all()
        for at in np.ndindex(*exact.shape):
            distance = abs(exact[at] - Fraction(float(bound.center[at])))
            assert distance <= Fraction(float(bound.radius[at])), (name, at)


def folding() -> tuple[list[AbstractValue], np.ndarray, np.ndarray]:
    """64 terms of 2**-25 and a term of 1: added into the 1 one after another, they are lost."""
    x = np.full((1, 64, 1, 1), 2.0**-25, F)
    w = np.ones((1, 64, 1, 1), F)
    conv = propagate(Node("c", ops.Conv(1, (1, 1)), ("x", "w")), [known(x), known(w)])
    lost = F(1)
    for _ in range(64):
        lost = F(lost + F(2.0**-25))
    assert lost == 1
    return [conv], np.full((1, 1, 1, 1), lost, F), x


def test_an_addition_may_be_folded_into_the_sum_before_it():
    operands, lost, _ = folding()
    add = Node("a", ops.Add(2), ("c", "r"))
    one = np.ones((1, 1, 1, 1), F)
    assert judge(add, lost, [*operands, known(one)]).verdict == "rounding"
    shown = [known(operands[0].value), known(one)]  # the convolution's value was shown: nothing was folded
    assert judge(add, lost, shown).verdict == "defect"
    assert judge(Node("a", ops.Add(3), ("c", "r", "z")), lost, [*shown, known(0 * one)]).verdict == "defect"
    assert judge(add, lost - F(2.0**-17), [*operands, known(one)]).verdict == "defect"


def test_a_batch_norm_may_be_folded_into_the_convolution_before_it():
    operands, lost, _ = folding()
    norm = Node("b", ops.BatchNorm(0.0), ("c", "g", "h", "m", "v"))
    one, zero = np.ones(1, F), np.zeros(1, F)
    weights = [known(v) for v in (one, one, zero, one)]
    assert judge(norm, lost, [*operands, *weights]).verdict == "rounding"
    assert judge(norm, lost, [known(operands[0].value), *weights]).verdict == "defect"
    added = propagate(Node("b", norm.op, norm.inputs), [*operands, *weights])
    twice = np.full((1, 1, 1, 1), 2, F)
    add = Node("a", ops.Add(2), ("b", "r"))
    assert judge(add, twice, [added, known(twice - 1)]).verdict == "rounding"


@pytest.mark.parametrize("seed", range(6))
def test_folded_layers_lie_inside(seed):
    """conv, batch norm and addition in one sum, weights folded in float32, any order."""
    rng = np.random.default_rng(seed)
    x, w, r = (
        floats((1, 40, 3, 3), (seed, "x")),
        floats((8, 40, 1, 1), (seed, "w")),
        floats((1, 8, 3, 3), seed),
    )
    g, h, m, v = (floats((8,), (seed, name)) * F(3) for name in "ghmv")
    v = np.abs(v) + F(0.01)
    conv = propagate(Node("c", ops.Conv(8, (1, 1)), ("x", "w")), [known(x), known(w)])
    norm = propagate(Node("b", ops.BatchNorm(1e-5), ("c", *"ghmv")), [conv, *map(known, (g, h, m, v))])
    a = g / np.sqrt((v + F(1e-5)).astype(F))
    folded, shift = w * a[:, None, None, None], h - m * a
    found = np.empty((1, 8, 3, 3), F)
    for at in np.ndindex(1, 8, 3, 3):
        products = x[0, :, at[2], at[3]] * folded[at[1], :, 0, 0]
        found[at] = tree(rng.permutation(np.append(products, [shift[at[1]], r[at]])), rng)
    assert judge(Node("a", ops.Add(2), ("b", "r")), found, [norm, known(r)]).verdict == "rounding"


def test_hidden_operations_may_be_contracted():
    """A product and a sum as one fused multiply-add; two sums in another order. Not if they were shown."""
    x, y, z = (floats((1, 60), name) for name in "xyz")
    fused = (x.astype(np.float64) * y + z).astype(F)
    product = Node("m", ops.Mul(), ("x", "y"))
    add = Node("a", ops.Add(2), ("m", "z"))
    assert (fused != x * y + z).any()
    hidden = propagate(product, [known(x), known(y)])
    assert judge(add, fused, [hidden, known(z)]).verdict == "rounding"
    assert judge(add, x * y + z, [hidden, known(z)]).verdict == "replayed"
    assert judge(add, fused, [known(x * y), known(z)]).verdict == "defect"
    assert judge(add, fused + F(2.0**-20), [hidden, known(z)]).verdict == "defect"
    other = x + (y + z)
    assert (other != (x + y) + z).any()
    hidden = propagate(Node("s", ops.Add(2), ("x", "y")), [known(x), known(y)])
    assert judge(Node("a", ops.Add(2), ("s", "z")), other, [hidden, known(z)]).verdict == "rounding"
    assert judge(Node("a", ops.Add(2), ("s", "z")), other, [known(x + y), known(z)]).verdict == "defect"


def test_a_hidden_value_without_bound_promises_nothing_behind_it():
    everything = AbstractValue(
        np.zeros((1, 2), F), Interval(np.zeros((1, 2)), np.full((1, 2), np.inf)), ("h",)
    )
    for op in (ops.Sigmoid(), ops.Softmax(1), ops.Relu(), ops.Flatten()):
        behind = propagate(Node("y", op, ("h",)), [everything])
        assert np.isinf(behind.bound.radius).all(), op
        assert judge(Node("y", op, ("h",)), np.full((1, 2), np.nan, F), [everything]).verdict == "unjudged"


def test_ops_with_one_result_pass_known_bits_on():
    x = np.array([[-1, 2, -0.0]], F)
    relu = propagate(Node("r", ops.Relu(), ("x",)), [known(x)])
    assert relu.interval is None
    assert relu.zero_sign_unknown
    flat = propagate(Node("f", ops.Flatten(), ("r",)), [relu])
    assert (flat.interval, flat.zero_sign_unknown, flat.over) == (None, True, ("r", "f"))
    add = Node("a", ops.Add(2), ("f", "z"))
    minus = np.array([[-0.0, 2, -0.0]], F)  # a relu that keeps -0, added to -0
    judged = judge(add, minus, [flat, known(np.full((1, 3), -0.0, F))])
    assert (judged.verdict, judged.over) == ("equal", ("r", "f", "a"))
    assert judge(add, minus, [known(relu.value), known(np.full((1, 3), -0.0, F))]).verdict == "defect"
    hole = propagate(Node("r", ops.Relu(), ("x",)), [known(np.array([[np.nan, 1, 1]], F))])
    assert hole.interval is not None
    assert np.isinf(hole.interval.radius[0, 0])
    assert not np.isinf(hole.interval.radius[0, 1])


MOVES = [
    None,
    ops.Identity(),
    ops.Flatten(),
    ops.Reshape((0, -1)),
    ops.Transpose((0, 1)),
    ops.Slice(0, 1, axis=1),
]


@pytest.mark.parametrize("move", MOVES, ids=[str(move) for move in MOVES])
@pytest.mark.parametrize("kind", ["matmul", "gemm", "dense", "weighted"])
def test_a_hidden_sum_that_is_moved_may_start_with_what_is_added_to_it(kind, move):
    """An accumulator that starts with 1 loses small products; a sum that nobody saw would have kept them."""
    k, small = (4 if kind == "weighted" else 64), F(2.0**-24)
    row, column = np.ones((1, k), F), np.full((k, 1), small)
    if kind == "weighted":
        node = Node("sum", ops.WeightedSum(k), ("a", "x"))
        hidden = propagate(node, [known(row), known(column.reshape(1, k, 1, 1))])
        move = move if move is None or not isinstance(move, ops.Transpose) else ops.Transpose((0, 1, 2, 3))
    elif kind == "dense":
        hidden = propagate(
            Node("sum", ops.Dense(1, bias=False), ("a", "w")), [known(row), known(column.T.copy())]
        )
    elif kind == "matmul":
        hidden = propagate(Node("sum", ops.MatMul(), ("a", "b")), [known(row), known(column)])
    else:
        op = ops.MatMul(addend=True)
        node = Node("sum", op, ("a", "b", "c"))
        hidden = propagate(node, [known(row), known(column), known(np.zeros((1, 1), F))])
    if move is not None:
        hidden = propagate(Node("moved", move, ("sum",)), [hidden])
    start = np.ones(hidden.value.shape, F)
    accumulated = start.copy()
    for _ in range(k):
        accumulated += small  # rounds to 1 each time
    assert (accumulated == 1).all()
    last = Node("y", ops.Add(2), ("moved", "start"))
    assert judge(last, accumulated, [hidden, known(start)]).verdict != "defect"
    assert judge(last, accumulated - F(2.0**-16), [hidden, known(start)]).verdict == "defect"


def test_concat_of_different_sums_promises_no_joined_order():
    a = known(np.ones((1, 2), F))
    short = propagate(Node("s", ops.Dense(1, bias=False), ("a", "w")), [a, known(np.ones((1, 2), F))])
    wide = known(np.ones((1, 9), F))
    long = propagate(Node("l", ops.Dense(1, bias=False), ("b", "v")), [wide, known(np.ones((1, 9), F))])
    same = propagate(Node("c", ops.Concat(1), ("s", "s")), [short, short])
    mixed = propagate(Node("c", ops.Concat(1), ("s", "l")), [short, long])
    assert same.interval.sum is not None
    assert mixed.interval.sum is None


def test_an_average_that_overflows_in_one_order_promises_nothing():
    """The divisor counts the padding, so sums are larger than terms times the average."""
    op = ops.AvgPool((5, 5), (1, 1), (2, 2), "valid", True)
    x = np.array([[[[3e38, -3e38], [3e38, -3e38]]]], F)
    with np.errstate(all="ignore"):
        by_columns = x[..., 0].sum(-1, dtype=F) + x[..., 1].sum(-1, dtype=F)
    assert np.isnan(by_columns).all()
    assert np.isinf(op.bound(Interval.exactly(x), engine=FAST).radius).all()


def test_a_zero_whose_sign_is_free_makes_an_infinity_whose_sign_is():
    x, one = np.full((1, 2), -0.0, F), np.ones((1, 2), F)
    hidden = propagate(Node("r", ops.Relu(), ("x",)), [known(x)])
    node = Node("y", ops.Div(), ("one", "r"))
    for sign in (1, -1):
        assert judge(node, np.full((1, 2), sign * np.inf, F), [known(one), hidden]).verdict == "equal"
    assert judge(node, np.full((1, 2), 3.0, F), [known(one), hidden]).verdict == "defect"
    shown = [known(one), known(np.zeros((1, 2), F))]
    assert judge(node, np.full((1, 2), -np.inf, F), shown).verdict == "defect"
