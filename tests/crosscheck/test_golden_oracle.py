"""Golden values of real layers against an oracle that shares no arithmetic with them: 0 differences.

REFNET_ORACLE_ELEMENTS says how many elements per kind of op (default 1,000); docs/numerics.md has the
result of 100,000. Elements are spread evenly over all nodes of a kind and over several images, and those that
float64 left open come first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.arithmetic.fusion_groups import fused_graph
from refnet.core.graph import Graph, Node
from refnet.core.orders import Joined
from refnet.exact import correct_rounding, engine
from refnet.kernels.engine import Fast
from refnet.models import synthetic
from tests.crosscheck.oracle import ORACLES, dots, expected
from tests.exact.test_correct_rounding import POOL
from tests.helpers.bits import same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import FAST, exact_on
from tests.helpers.exact_functions import FUNCTIONS
from tests.ops.test_ops_rules import EXAMPLES, arguments
from tests.ops.test_ops_rules import dense as dense_by_fractions

pytestmark = pytest.mark.crosscheck

ELEMENTS = int(os.environ.get("REFNET_ORACLE_ELEMENTS", "1000"))
OPENED = 4
"""Of the elements of a node, one in so many may be one that was open."""

JOINED = "octave-se-resnet-50-0.125, its convolutions and additions joined"
NETWORKS = {
    "octave-se-resnet-50-0.125": (
        "Conv",
        "Dense",
        "AvgPool",
        "GlobalAvgPool",
        "BatchNorm",
        "Sigmoid",
        "Softmax",
    ),
    "resnest-50-pytorch": (
        *("Conv", "Dense", "AvgPool", "GlobalAvgPool", "BatchNorm", "Softmax"),
        *("RadixSoftmax", "WeightedSum", "Add"),
    ),
    "resnest-50-fast-4s2x40d-pytorch": ("RadixSum", "RadixSoftmax", "WeightedSum"),
    JOINED: ("ConvAdd",),
    "forms of ONNX": ("ReduceSum", "ReduceMean", "MatMul"),
    "functions of one number": (
        *(
            "Exp",
            "Log",
            "Sqrt",
            "Tanh",
            "Erf",
            "Power",
            "Pow",
            "Softplus",
            "Softsign",
            "Mish",
            "Silu",
            "Gelu",
            "Elu",
            "Sin",
            "Cos",
        ),
        *("Tan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Atan", "Asin", "Acos"),
        *("HardSigmoid", "HardSwish"),
    ),
    "norms": (
        *("LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm", "LRN", "LpNorm", "LogSoftmax", "CumSum"),
        *(
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceProd",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "LpPool",
        ),
    ),
    "transposed and resized": ("ConvTranspose", "ConvNd", "AvgPoolNd", "ResizeLinear", "ResizeCubic"),
}
"""Which kinds of op are judged in which network. No network of the catalog adds more than two values at
once: for Add, three real values of one shape are added, the two inputs of an addition and its result."""


DEFINED = (*NETWORKS["functions of one number"], *NETWORKS["norms"])
"""The oracle of these is their scalar definition in tests/ops/test_ops_rules.py."""
OTHER_LAYOUTS = ("RadixSoftmax", "ConvTranspose", "ConvNd", *DEFINED)
"""Their open elements are counted in another layout than the value's, or part by part."""


def spatial(name: str) -> Graph:
    """A U-Net's steps, and a line and a volume of the same numbers."""
    nodes = (
        Node(
            "up", ops.ConvTranspose(32, (3, 3), (2, 2), (1, 1), (), 2, True, None, (1, 1)), ("data", "w", "b")
        ),
        Node("linear", ops.ResizeLinear((2, 3), (37, 56), ((37, 28), 2.0), "align_corners"), ("data",)),
        Node("cubic", ops.ResizeCubic((2, 3), (20, 56), ((5, 7), 2.0)), ("data",)),
        Node("small", ops.ResizeLinear((2, 3), (9, 14), ((9, 28), 0.5), antialias=True), ("data",)),
        Node("thumb", ops.ResizeCubic((3,), (5,), ((5, 28),), antialias=True), ("data",)),
        Node("row", ops.Reshape((0, 64, -1)), ("data",)),
        Node("line", ops.ConvNd(48, (5,), (2,), (2,), (), 4, True), ("row", "wl", "bl")),
        Node("pooled", ops.AvgPoolNd((3,), (2,), (1,)), ("row",)),
        Node("block", ops.Reshape((0, 4, 16, 28, 28)), ("data",)),
        Node("volume", ops.ConvNd(8, (3, 3, 3), (1, 2, 1), (1, 1, 1)), ("block", "wv")),
        Node("back", ops.ConvTranspose(4, (2, 2, 2), (2, 2, 2)), ("volume", "wb")),
    )
    graph = Graph(name, {"data": ops.TensorType((1, 64, 28, 28))}, nodes, {"up": "up"})
    return graph.with_weights(synthetic.weights(graph, 0))


def functions(name: str) -> Graph:
    """Every function of tests/helpers/exact_functions.py, on numbers of any sign or on positive ones."""
    nodes = [
        Node("size", ops.Abs(), ("data",)),
        Node("above", ops.WithScalar("add", 1.0), ("size",)),
        Node("cut", ops.Clip(-0.984375, 0.984375), ("data",)),
    ]
    for i, one in enumerate(FUNCTIONS):
        x = "above" if one.least else "size" if one.positive else "cut" if np.isfinite(one.most) else "data"
        nodes.append(Node(f"f{i}", one.op, (x,)))
    nodes.append(Node("powers", ops.Pow(((6,),)), ("size", "exponents")))
    graph = Graph(name, {"data": ops.TensorType((1, 64, 6, 6))}, tuple(nodes), {"out": nodes[-1].name})
    return graph.with_weights(synthetic.weights(graph, 0))


def norms(name: str) -> Graph:
    """Normalisations and reductions, of channels, of groups, of images and of rows."""
    of_channels = ((64,), (64,))
    nodes = (
        Node("size", ops.Abs(), ("data",)),
        Node("tokens", ops.Transpose((0, 2, 1)), ("data",)),
        Node("layer", ops.LayerNorm(1e-5, 2, True, of_channels), ("tokens", "g1", "b1")),
        Node("rms", ops.RMSNorm(1e-6, 2, ((64,),)), ("tokens", "g2")),
        Node("group", ops.GroupNorm(1e-5, 8, False, of_channels), ("data", "g3", "b3")),
        Node("image", ops.InstanceNorm(1e-5, of_channels), ("data", "g4", "b4")),
        Node("response", ops.LRN(5), ("data",)),
        Node("unit", ops.LpNorm(1, 2), ("data",)),
        Node("shares", ops.LpNorm(2, 1), ("data",)),
        Node("scores", ops.LogSoftmax(1), ("data",)),
        Node("l1", ops.ReduceL1((2,)), ("data",)),
        Node("running", ops.CumSum(2), ("data",)),
        Node("l2", ops.ReduceL2((2,)), ("data",)),
        Node("squares", ops.ReduceSumSquare((2,)), ("data",)),
        Node("product", ops.ReduceProd((2,)), ("data",)),
        Node("log", ops.ReduceLogSum((2,)), ("size",)),
        Node("roots", ops.LpPool((3,), (2,), (1,), p=3), ("data",)),
        Node("exps", ops.ReduceLogSumExp((2,)), ("data",)),
    )
    graph = Graph(name, {"data": ops.TensorType((1, 64, 36))}, nodes, {"out": "exps"})
    return graph.with_weights(synthetic.weights(graph, 0))


def network(name: str) -> Graph:
    """A network of the catalog, or one of the ops that only ONNX files have, at the sizes of real layers."""
    if name in MADE:
        return MADE[name](name)
    if name not in (JOINED, "forms of ONNX"):
        return refnet.load(name, weights="seed:0")
    if name == JOINED:
        graph = refnet.load("octave-se-resnet-50-0.125", weights="seed:0")
        reads = Counter(one for node in graph.nodes for one in node.data)
        groups = [
            (one, node.name)
            for node in graph.nodes
            if node.op == ops.Add(2)
            for one in node.data[:1]
            if reads[one] == 1 and isinstance(graph.by_name[one].op, ops.Conv)
        ]
        return fused_graph(graph, Joined(tuple(groups)), FAST)
    nodes = (
        Node("rows", ops.Reshape((0, 256, -1)), ("data",)),
        Node("turned", ops.Transpose((0, 2, 1)), ("rows",)),
        Node("sum", ops.ReduceSum((1,), False), ("turned",)),
        Node("mean", ops.ReduceMean((2, 1)), ("turned",)),
        Node("product", ops.MatMul(constants=((256, 512),)), ("turned", "weight")),
        Node("scores", ops.MatMul(0.75, 3.0, False, True, True, ((1000, 256), (1000,))), ("sum", "w", "b")),
        Node("pooled", ops.ReduceMean((2,), False), ("rows",)),
    )
    graph = Graph(name, {"data": ops.TensorType((1, 256, 28, 28))}, nodes, {"scores": "scores"})
    return graph.with_weights(synthetic.weights(graph, 0))


MADE = {"transposed and resized": spatial, "functions of one number": functions, "norms": norms}


def _noting(opened: list[np.ndarray], refine: Callable[..., np.ndarray], flags: int):
    """`refine`, with a note of what float64 left open; flags: which of its arguments marks that."""

    def noting(*given):
        opened.append(np.flatnonzero(given[flags]))
        return refine(*given)

    return noting


def by_definition(op: ops.Op, at: np.ndarray, shape: tuple[int, ...], *inputs: np.ndarray) -> np.ndarray:
    """The correctly rounded elements `at` (flat) of a value of one of the kinds in DEFINED."""
    of = [one.exact for one in EXAMPLES if one.op == op] or [
        e.exact for e in EXAMPLES if type(e.op) is type(op)
    ]
    places = zip(*np.unravel_index(at, shape), strict=True)
    return np.array([round_float32(of[0](op, place, *inputs)) for place in places], np.float32)


@dataclass
class Campaign:
    """An arithmetic that runs golden where elements are still wanted, and judges them on the way."""

    graph: Graph
    wanted: int
    kinds: tuple[str, ...]
    judged: Counter[str] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)
    exactly: Counter[str] = field(default_factory=Counter)
    nodes: Counter[str] = field(default_factory=Counter)
    name = "campaign"

    def __post_init__(self) -> None:
        for node in self.graph.nodes:
            self.nodes[type(node.op).__name__] += 1

    def fused_graph(self, graph):
        return graph

    def done(self) -> bool:
        return all(self.judged[kind] >= self.wanted for kind in self.kinds)

    def evaluate(self, node: Node, *inputs: np.ndarray) -> np.ndarray:
        value = node.op.run(*inputs, engine=Fast(2))
        kind = type(node.op).__name__
        if kind == "Add" and "Add" in self.kinds:
            self.judge(node, ops.Add(3), *inputs, value)
        elif kind in self.kinds:
            self.judge(node, node.op, *inputs)
        return value

    def judge(self, node: Node, op: ops.Op, *inputs: np.ndarray) -> None:
        kind = type(op).__name__
        if self.judged[kind] >= self.wanted:
            return
        opened: list[np.ndarray] = []
        with pytest.MonkeyPatch.context() as patch:
            noting = _noting(opened, correct_rounding.refined, 2)
            for module in (engine, correct_rounding):
                patch.setattr(module, "refined", noting)
            kernels = _noting(opened, engine.DecideOrRefine._refined, 3)
            patch.setattr(engine.DecideOrRefine, "_refined", kernels)
            golden = op.golden(*inputs, exact=exact_on(2))
        left = np.concatenate(opened) if opened else np.zeros(0, np.int64)
        assert len(opened) == 1 or kind in OTHER_LAYOUTS
        self.exactly[kind] += left.size
        size = min(golden.size, -(-self.wanted // self.nodes[kind]))
        spread = np.arange(size) * golden.size // size
        if kind in OTHER_LAYOUTS:
            left = left[:0]
        first = left[
            np.arange(min(left.size, size // OPENED)) * left.size // max(1, min(left.size, size // OPENED))
        ]
        at = np.unique(np.concatenate([first, spread]))
        true = (
            expected(op, at, *inputs) if type(op) in ORACLES else by_definition(op, at, golden.shape, *inputs)
        )
        found = golden.reshape(-1)[at]
        unequal = found.view(np.uint32) != true.view(np.uint32)
        assert not unequal.any(), (
            f"{node}: {unequal.sum()} of {at.size} differ, first at {at[unequal][0]}: "
            f"golden {found[unequal][0]!r}, exact {true[unequal][0]!r}"
        )
        self.judged[kind] += at.size
        self.opened[kind] += np.isin(at, left).sum()


@pytest.mark.parametrize("name", NETWORKS)
def test_real_layers(name: str, report: list[str]) -> None:
    graph = network(name)
    kinds = NETWORKS[name]
    campaign = Campaign(graph, ELEMENTS, kinds)
    images = 0
    while not campaign.done():
        images += 1
        assert images <= 500, f"not enough elements: {campaign.judged}"
        data = {"data": synthetic.normal(images, "data", graph.inputs["data"].shape)}
        for _ in refnet.steps(graph, data, campaign):
            pass
    report.append(f"{images} images; elements compared, all equal (of them, open for float64):")
    for kind in kinds:
        shown = "not counted" if kind in OTHER_LAYOUTS else f"{campaign.opened[kind]}"
        report.append(f"  {kind:14}{campaign.judged[kind]:8} ({shown})")


def test_every_kind_with_a_golden_method_has_an_oracle_and_a_network() -> None:
    own = {op for op in ops.ALL if op.golden is not ops.Op.golden}
    assert {op.__name__ for op in own - set(ORACLES)} == {*DEFINED}
    assert {op.__name__ for op in own} == {kind for kinds in NETWORKS.values() for kind in kinds}


@pytest.mark.parametrize("example", [e for e in EXAMPLES if type(e.op) in ORACLES], ids=lambda e: repr(e.op))
def test_the_oracle_is_the_formula(example) -> None:
    """On small examples it equals the scalar definitions of test_ops_rules.py; the two share nothing."""
    values = arguments(example)
    shape = example.op.type(*(ops.TensorType(v.shape) for v in values)).shape
    found = expected(example.op, np.arange(int(np.prod(shape))), *values)
    true = [round_float32(example.exact(example.op, at, *values)) for at in np.ndindex(shape)]
    assert same_bits(found, np.array(true, np.float32))


def test_dots_of_extreme_numbers() -> None:
    """Huge beside tiny, cancellation, subnormals: the integer sums are those of fractions."""
    few = np.array(POOL, np.float32)
    a = np.stack([np.roll(few, k) for k in range(40)])
    b = np.stack([np.roll(few[::-1], 3 * k) for k in range(40)])
    op = ops.Dense(40, bias=False)
    assert dots(a, b) == [dense_by_fractions(op, (0, i), a[i : i + 1], b) for i in range(40)]
