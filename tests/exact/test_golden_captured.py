"""Golden's captured runs: the bits of the nodes one by one, whatever the data leave open."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

import refnet
from refnet.arithmetic.captured_run import CapturedRun, CapturedRuns
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.golden_fused import Decided
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.exact.correct_rounding import RefineCount
from refnet.exact.engine import FEW
from refnet.kernels.exact_conv import suits
from refnet.kernels.exact_steps import QUOTIENT, _scaled, root_quotients
from refnet.kernels.thread_pool import LaunchList
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    GlobalAvgPool,
    RadixSoftmax,
    RadixSum,
    Relu,
    Sigmoid,
    Softmax,
    WeightedSum,
)
from tests.crosscheck.oracle import expected
from tests.exact.test_golden_sums import near_middles
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import EXACT

F = np.float32


def kept(graph: Graph, golden: Golden) -> list[CapturedRun]:
    seen = golden._captured.of(graph, CapturedRuns)._seen.values()
    return [known for known in seen if isinstance(known, CapturedRun)]


def uncaptured(run: CapturedRun) -> list[str]:
    return [type(step.node.op).__name__ for step in run._steps if not isinstance(step, LaunchList)]


def one_by_one(graph: Graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    values = {node.name: value for node, value in refnet.steps(graph, inputs, Golden(1))}
    return {key: values[name] for key, name in graph.outputs.items()}


def check(graph: Graph, several: list[dict[str, np.ndarray]], threads: int = 2) -> CapturedRun:
    """Each of these inputs has the bits of the nodes one by one, in every run; the run that repeats them."""
    golden = Golden(threads)
    for inputs in (*several[:1] * 2, *several, *several):
        found = refnet.run(graph, inputs, golden)
        assert all(same_bits(found[key], value) for key, value in one_by_one(graph, inputs).items())
    (run,) = kept(graph, golden)
    return run


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["resnest-digits", "octave-se-resnet-digits"])
def test_a_network_repeats_its_kernels(name, threads):
    graph = refnet.load(name)
    shape = (2, *next(iter(graph.inputs.values())).shape[1:])
    run = check(graph, [{"data": floats(shape, k)} for k in range(3)], threads)
    for step in run._steps:
        if isinstance(step, LaunchList):
            continue
        op = step.node.op.ops[0] if isinstance(step.node.op, Decided) else step.node.op
        if isinstance(op, Conv):  # lanes across positions, which Python puts together
            assert not suits(step.data[0].shape, step.weights[0].shape, *op.geometry)
        else:
            assert isinstance(op, Sigmoid | Softmax | RadixSoftmax) or (
                isinstance(op, Dense) and op.units < 12
            )
    assert sum(len(step.steps) for step in run._steps if isinstance(step, LaunchList)) > 50


def network(*nodes: Node, shape: tuple[int, ...], **weights: np.ndarray) -> Graph:
    graph = Graph("net", {"x": TensorType(shape)}, nodes, {"y": nodes[-1].name})
    return graph.with_weights(weights)


@pytest.mark.parametrize("name", ["planes", "panels", "tiles"])
def test_sums_that_are_open_in_one_run_and_not_in_another(name):
    """The first run leaves nothing open; kernels find what the others do."""
    op, x, w = near_middles(name)
    graph = network(Node("conv", op, ("x", "w")), shape=x.shape, w=w)
    whole = np.round(floats(x.shape, name)).astype(F)
    run = check(graph, [{"x": whole}, {"x": x}, {"x": floats(x.shape, 1)}])
    assert uncaptured(run) == []


def test_averages_and_weighted_sums_that_are_open():
    """Windows of 2**24, 1 and tiny numbers, whose exact averages and sums lie beside a middle or on it."""
    values = F([2.0**24, 1, 2.0**-40, -(2.0**-40), 2.0**24, 1, 0, 0])
    x = np.resize(values, (1, 6, 4, 8)).astype(F)
    attention = floats((1, 6), "attention")
    for op in (AvgPool((3, 3), (1, 1), (1, 1)), GlobalAvgPool()):
        graph = network(Node("y", op, ("x",)), shape=x.shape)
        run = check(graph, [{"x": floats(x.shape, 2)}, {"x": x}])
        assert uncaptured(run) == []
    kinds = {"a": TensorType((1, 6)), "x": TensorType(x.shape)}
    graph = Graph("net", kinds, (Node("y", WeightedSum(3), ("a", "x")),), {"y": "y"}).with_weights({})
    ones = {"a": np.ones((1, 6), F), "x": x}
    run = check(graph, [{"a": attention, "x": floats(x.shape, 3)}, ones])
    assert uncaptured(run) == []
    graph = network(Node("y", RadixSum(3), ("x",)), shape=x.shape)
    assert uncaptured(check(graph, [{"x": floats(x.shape, 3)}, {"x": x}])) == ["RadixSum"]


@pytest.mark.parametrize("bias", [False, True])
def test_a_few_rows_of_a_dense_layer_are_a_convolution(bias):
    """With the bits of each row alone and of many rows, sums beside a middle included."""
    x, w = floats((FEW + 1, 40), "x"), floats((32, 40), "w")
    x[::2, 1], w[:, 1] = 2.0**40, 1
    x[::2, 2], w[:, 2] = -(2.0**40), 1
    x[::3, 3:], w[:, 3] = 0, 2.0**-60
    own = {"w": w, "b": floats((32,), "b")} if bias else {"w": w}
    graph = network(Node("y", Dense(32, bias=bias), ("x", *own)), shape=(1, 40), **own)
    many = Dense(32, bias=bias).golden(x, *own.values(), exact=EXACT)
    for rows in (1, FEW, FEW + 1):
        some = network(graph.nodes[0], shape=(rows, 40), **own)
        run = check(some, [{"x": x[:rows]}, {"x": x[-rows:]}])
        assert uncaptured(run) == ([] if rows <= FEW else ["Dense"])
        assert same_bits(refnet.run(some, {"x": x[:rows]}, Golden(1))["y"], many[:rows])
    right = expected(Dense(32, bias=bias), np.arange(many.size), x, *own.values())
    assert same_bits(many.reshape(-1), right)


@pytest.mark.parametrize("first", [False, True])
def test_inputs_that_are_not_finite_have_no_tiles(first):
    """The captured run computes tiles, or, if it met such inputs itself, computes the node anew each time."""
    shape = (1, 32, 6, 6)
    w, odd = floats((16, 32, 3, 3), "w"), floats(shape, "odd")
    odd[0, 3, 2, 2], odd[0, 5, 0, 0] = np.inf, np.nan
    graph = network(Node("y", Conv(16, (3, 3), pad=(1, 1)), ("x", "w")), shape=shape, w=w)
    several = [{"x": floats(shape, "even")}, {"x": odd}]
    run = check(graph, several[::-1] if first else several)
    assert uncaptured(run) == (["Conv"] if first else [])


def test_what_counts_or_is_derived_is_not_captured():
    class Mine(Golden):
        pass

    graph = refnet.load("resnest-digits")
    x = {"data": floats((1, *next(iter(graph.inputs.values())).shape[1:]), "x")}
    for golden in (Golden(1, RefineCount()), Mine(1)):
        for _ in range(3):
            refnet.run(graph, x, golden)
        assert kept(graph, golden) == []


def test_an_op_with_another_golden_is_not_captured():
    """Its own method may do anything."""

    class Other(Relu):
        def golden(self, *inputs, exact):
            return inputs[0] + F(1)

    graph = network(Node("y", Other(), ("x",)), shape=(1, 3, 4, 4))
    assert uncaptured(check(graph, [{"x": floats((1, 3, 4, 4), k)} for k in range(2)])) == ["Other"]
    graph = network(Node("y", Sigmoid(), ("x",)), shape=(1, 3, 4, 4))
    assert uncaptured(check(graph, [{"x": floats((1, 3, 4, 4), k)} for k in range(2)])) == ["Sigmoid"]


def test_a_value_whose_elements_are_not_in_order_is_not_captured():
    """The next op would copy it, once, while the run is captured."""

    class Turned(Relu):
        def run(self, *inputs, engine):
            return super().run(*inputs, engine=engine).transpose(0, 1, 3, 2)

        def capturable(self, *inputs):
            return True

        def golden_capturable(self, *inputs):
            return True

        def golden(self, *inputs, exact):
            return self.run(*inputs, engine=exact.engine)

    w = floats((16, 16, 1, 1), "w")
    nodes = (
        Node("turned", Turned(), ("x",)),
        Node("conv", Conv(16, (1, 1)), ("x", "w")),
        Node("sum", Add(2), ("conv", "turned")),
    )
    run = check(
        network(*nodes, shape=(1, 16, 6, 6), w=w), [{"x": floats((1, 16, 6, 6), k)} for k in range(3)]
    )
    assert uncaptured(run) == ["Turned"]


def scales(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all sizes, and positive ones."""
    g = floats((count,), "g") * np.exp2(floats((count,), "g size") * 30)
    var = np.abs(floats((count,), "var") * np.exp2(floats((count,), "var size") * 30))
    return g.astype(F), var.astype(F)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 2e-5, 2.0**-140, 1e-300])
def test_the_quotient_by_a_root_is_as_exact_as_claimed(eps):
    g, var = (a.astype(np.float64) for a in scales(2000))
    g[:8], var[:8] = [1, 2, 3, 0.5, -7, 0, 6, 1], [1, 4, 9, 0.25, 1, 4, 4, 0]
    high, low, share = root_quotients(g, var, eps)
    with localcontext() as context:
        context.prec = 100
        for i in range(g.size):
            if np.isinf(share[i]):
                assert var[i] + eps < 2.0**-700
                continue
            exact = Decimal(g[i]) / (Decimal(var[i]) + Decimal(eps)).sqrt()
            found = Decimal(high[i]) + Decimal(low[i])
            assert (
                abs(found - exact) <= abs(exact) * Decimal(float(share[i])) + abs(exact) * Decimal(10) ** -90
            )
    assert (share[:7] == (0 if eps == 0 else QUOTIENT)).all() or eps == 1e-300
    assert (share[8:] != 0).all()


def nearest(op: BatchNorm, v: float, g: float, beta: float, mean: float, var: float) -> np.float32:
    compare = op._comparison(v, g, beta, mean, var)
    guess = (v - mean) * g / np.sqrt(var + op.eps) + beta
    return EXACT.nearest(compare, guess)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 2.0**-60, 2.0**-140])
def test_a_norm_in_pairs_has_the_right_bits_where_it_is_sure(eps):
    """Ordinary numbers, and shifts that leave the middle of two float32, or nearly. With 2**-60 the scale's
    low half, -2**-61, moves 2**24 + 1 by 2**-37, to the other side of the middle that 2**-38 leads it over.
    """
    g, var = scales(1500)
    v, mean = floats((1500,), "v"), floats((1500,), "mean")
    beta = floats((1500,), "beta")
    g[500:], var[500:] = np.resize(F([1, 2, -1, 0.5]), 1000), np.resize(F([1, 4, 0.25]), 1000)
    v[500:], mean[500:] = 2.0**24, -1
    beta[500:] = np.resize(F([0, 2.0**-40, -(2.0**-40), 2.0**-149, 1, -1, 2.0**-38]), 1000)
    # what 1 + 2**-60 loses in float64 leads over the middle, too
    v[-1], mean[-1], g[-1], var[-1], beta[-1] = 1, -(2.0**-60), 1, 1, 2.0**-24
    # a product that is 2**-46 above the middle 2**24 + 1
    v[-2], mean[-2], g[-2], var[-2], beta[-2] = 2.0**24, 1 - 2.0**-23, 1 + 2.0**-23, 1, 0
    high, low, share = root_quotients(g.astype(np.float64), var.astype(np.float64), eps)
    sure = 0
    for i in range(v.size):
        numbers = float(v[i]), float(mean[i]), (high[i], low[i], share[i]), float(beta[i])
        value, known = _scaled(*numbers)
        sure += known
        right = nearest(
            BatchNorm(eps), float(v[i]), float(g[i]), float(beta[i]), float(mean[i]), float(var[i])
        )
        assert not known or same_bits(F(value), right)
    assert sure >= (1500 if eps == 0 else 500)


def test_a_result_that_is_exactly_zero_is_positive():
    value, known = _scaled(-0.0, 0.0, (1.0, 0.0, 0.0), -0.0)
    assert known
    assert not np.signbit(value)
    assert Fraction(float(value)) == 0
