"""The menus of formulas against the running frameworks: bits of slices of all inputs and of special data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import F32, Op
from refnet.core.orders import Chain, Expr, Leaf, Order, Sum
from refnet.frameworks import live
from refnet.frameworks.process import Worker
from refnet.models.export import export
from refnet.ops import (
    Add,
    BatchNorm,
    Conv,
    MaxPool,
    RadixSoftmax,
    RadixSum,
    Relu,
    Sigmoid,
    Softmax,
    WeightedSum,
)
from tests.crosscheck.conftest import Frameworks
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.engines import FAST

pytestmark = pytest.mark.crosscheck

SLICE = (0x3F, 0x42, 0x7F, 0xC2)
"""1/2 to 2; 32 to 128, where exp overflows; infinity and NaN; -32 to -128, where it underflows."""

VECTOR = next(
    (lanes for word, lanes in (("avx512f", 16), ("avx2", 8)) if word in Path("/proc/cpuinfo").read_text()), 4
)
"""float32 that this processor's vectors hold."""


AVX, SSE = "DNNL_MAX_CPU_ISA=AVX", "DNNL_MAX_CPU_ISA=SSE41"
AVX2, BASE = "ATEN_CPU_CAPABILITY=avx2", "ATEN_CPU_CAPABILITY=default"
ONEDNN_AVX2, NO_FMA = "DNNL_MAX_CPU_ISA=AVX2", "GLIBC_TUNABLES=glibc.cpu.hwcaps=-FMA,-AVX2,-FMA4"
WIDE = VECTOR == 16


@pytest.mark.parametrize(
    ("framework", "function", "formula", "environment"),
    [
        ("torch", "sigmoid", "sleef", ()),
        ("torch", "sigmoid", "sleef", (AVX2,)),
        ("torch", "sigmoid", "glibc", (BASE,)),
        ("torch", "softmax", "sleef-reciprocal", ()),
        ("torch", "softmax-first", "sleef-divide", ()),
        ("torch", "softmax", "glibc-reciprocal", (BASE,)),
        ("torch", "softmax-first", "glibc-divide", (BASE,)),
        ("mxnet", "sigmoid", "onednn", ()),
        ("mxnet", "sigmoid", "onednn-unfused", (AVX,)),
        ("mxnet", "sigmoid", "onednn-unfused", (SSE,)),
        ("mxnet", "nd-sigmoid", "glibc", ()),
        ("mxnet", "exp", "glibc", ()),
        ("mxnet", "exp", "glibc-unfused", (NO_FMA,)),
        ("mxnet", "softmax", "onednn-avx512" if WIDE else "onednn-avx2", ()),
        ("mxnet", "softmax", "onednn-avx2", (ONEDNN_AVX2,)),
        ("mxnet", "softmax", "onednn-sse41", (SSE,)),
        ("mxnet", "softmax-first", "glibc-divide", ()),
        ("onnx", "sigmoid", "mlas", ()),
        ("onnx", "exp", "mlas", ()),
        ("onnx", "softmax", "mlas-avx512" if WIDE else "mlas-avx2", ()),
    ],
)
def test_a_slice_of_all_inputs(
    frameworks: Frameworks,
    framework: str,
    function: str,
    formula: str,
    environment: tuple[str, ...],
    report: list[str],
) -> None:
    report.append(frameworks.compare(framework, function, formula, SLICE, environment))


def test_a_slice_tells_wrong_formulas(frameworks: Frameworks) -> None:
    """Each formula but the right one differs somewhere on the sample; glibc without FMA on one chunk."""
    sample = live.sweep(frameworks("torch"), "torch", "sigmoid", [0x42])
    assert sample.identical == ("sleef",)
    for other in Sigmoid.formulas:
        wrong = live.sweep(frameworks("torch"), "torch", "sigmoid", [0x3F], other).found[0]
        assert (wrong.different > 0) == (other != "sleef"), other
    (unfused,) = live.sweep(frameworks("mxnet"), "mxnet", "exp", [0x42], "glibc-unfused").found
    assert (unfused.different, unfused.first) == (1, 0x4202422F)


# Where one formula ends and another begins, and orders of sums.


@pytest.mark.parametrize("environment", [(), (AVX2,)])
def test_what_pytorch_computes_one_by_one(frameworks: Frameworks, environment: tuple[str, ...]) -> None:
    """PyTorch's sigmoid: pairs of vectors by SLEEF, the rest by glibc; x where the two differ."""
    worker = frameworks("torch", *environment)
    x = floats((1 << 20,), "differ") * np.float32(8)
    x = x[Sigmoid().replay("sleef", x, engine=FAST) != Sigmoid().replay("glibc", x, engine=FAST)]
    pair = 2 * (8 if environment else VECTOR)
    assert x.size > 4 * pair
    for size in range(1, 4 * pair):
        y = worker.ask("op", {"function": "sigmoid", "threads": 1}, {"x": x[:size]}).arrays["y"]
        whole = size // pair * pair
        assert same_bits(y[:whole], Sigmoid().replay("sleef", x[:whole], engine=FAST)), size
        assert same_bits(y[whole:], Sigmoid().replay("glibc", x[whole:size], engine=FAST)), size


def lanes(terms: int, width: int, steps: tuple[int, ...]) -> Expr:
    """Chains of every width-th term; then for each step: lane k + lane (k xor step). Lane 0 of that."""
    each: list[Expr] = [
        Chain(Leaf.ZERO, Order.of(range(k, terms, width))) if k < terms else Leaf.ZERO for k in range(width)
    ]
    for step in steps:
        each = [Sum((each[k], each[k ^ step])) for k in range(width)]
    return each[0]


TORCH, ONEDNN, MLAS = (8, 4, 2, 1), (8, 4, 2, 1), (8, 1, 2, 4)

SOFTMAX = [
    ("torch", "sleef-reciprocal", VECTOR, TORCH, ()),
    ("torch", "sleef-reciprocal", 8, TORCH, (AVX2,)),
    ("mxnet", "onednn-avx512" if WIDE else "onednn-avx2", VECTOR, ONEDNN, ()),
    ("mxnet", "onednn-avx2", 8, ONEDNN, (ONEDNN_AVX2,)),
    ("mxnet", "onednn-sse41", 4, ONEDNN, (AVX,)),
    ("onnx", "mlas-avx512" if WIDE else "mlas-avx2", VECTOR, MLAS, ()),
]


def softmax_of(worker: Worker, framework: str, x: F32) -> F32:
    """The framework's softmax along the rows of x (n, classes)."""
    if framework == "mxnet":
        return worker.ask(
            "op", {"function": "SoftmaxOutput"}, {"x": x, "label": np.zeros(len(x), np.float32)}
        ).arrays["y"]
    return live.ask(worker, live.Question("softmax", {"dim": 1}) if framework == "torch" else ONNX_ROWS, x)


ONNX_ROWS = live.Question("Softmax", {"axis": 1})


@pytest.mark.parametrize(("framework", "formula", "width", "steps", "environment"), SOFTMAX)
def test_softmax_of_a_thousand_classes(
    frameworks: Frameworks,
    framework: str,
    formula: str,
    width: int,
    steps: tuple[int, ...],
    environment: tuple[str, ...],
) -> None:
    """The formula with its sum in lanes; in another order, some rows differ."""
    worker = frameworks(framework, *environment)
    for classes in (width, 100, 1000):
        x = floats((64, classes), ("softmax", classes)) * np.float32(20)
        theirs = softmax_of(worker, framework, x)
        order = lanes(classes, width, tuple(step for step in steps if step < width))
        own = Softmax(1).replay(formula, x, total=order, engine=FAST)
        assert same_bits(own, theirs), classes
        assert not same_bits(Softmax(1).replay(formula, x, engine=FAST), theirs), classes


@pytest.mark.parametrize(("framework", "formula", "width", "steps", "environment"), SOFTMAX)
def test_softmax_of_special_rows(
    frameworks: Frameworks,
    framework: str,
    formula: str,
    width: int,
    steps: tuple[int, ...],
    environment: tuple[str, ...],
) -> None:
    """Rows of 0, -inf, very small and very negative numbers, NaN and inf: any order of the sum is exact."""
    values = np.array([0, -0.0, 1e-45, -1e-45, -np.inf, -200, -3e38, np.nan, np.inf], np.float32)
    worker = frameworks(framework, *environment)
    for classes in (2, width - 1, width + 1, 100):
        which = np.abs(floats((400, classes), ("which", classes)))
        few = (which * 6).astype(int)  # without -3e38, NaN, inf
        some = np.where(which[:, :1] < 0.5, few, (which**4 * 9).astype(int))
        x = np.ascontiguousarray(values[np.minimum(some, 8)])
        x[:8] = -np.inf
        theirs = softmax_of(worker, framework, x)
        assert same_bits(Softmax(1).replay(formula, x, engine=FAST), theirs), classes
        assert np.isnan(theirs).any() or framework == "onnx"


# Batch norm, relu, max pool, additions.


def batch_norm_data(shape: tuple[int, ...]) -> dict[str, F32]:
    """x with special values, and weights with zeros among them."""
    c = shape[1]
    weights = {name: floats((c,), (name, shape)) for name in ("gamma", "beta", "mean")}
    variance = np.abs(floats((c,), ("var", shape))) + np.float32(0.01)
    for step, array in zip((5, 7, 3, 11), (*weights.values(), variance), strict=True):
        array[::step] = 0
    return {"x": awkward(shape, ("x", shape), 0.1), **weights, "var": variance}


SHAPES = ((1, 64, 14, 14), (2, 70, 7, 7), (1, 33, 1, 1), (3, 40, 5, 3))


@pytest.mark.parametrize(
    ("framework", "formula", "environment"),
    [
        ("torch", "scaled-fused", ()),
        ("torch", "scaled-fused", (AVX2,)),
        ("torch", "scaled", (BASE,)),
        ("onnx", "scaled", ()),
        ("mxnet", "centred", ()),
        ("mxnet", "centred", (SSE,)),
    ],
)
def test_batch_norm(
    frameworks: Frameworks, framework: str, formula: str, environment: tuple[str, ...]
) -> None:
    worker = frameworks(framework, *environment)
    request = {
        "torch": {"function": "batch_norm", "arguments": {"eps": 1e-4}},
        "onnx": {"function": "BatchNormalization", "arguments": {"epsilon": 1e-4}},
        "mxnet": {
            "function": "BatchNorm",
            "arguments": {"eps": 1e-4, "fix_gamma": False, "use_global_stats": True},
        },
    }[framework]
    for shape in SHAPES:
        data = batch_norm_data(shape)
        theirs = worker.ask("op", {**request, "threads": 1}, data).arrays["y"]
        for other in BatchNorm.formulas:
            own = BatchNorm(1e-4).replay(other, *data.values(), engine=FAST)
            assert same_bits(own, theirs) == (other == formula), (shape, other)


@pytest.mark.parametrize(("environment", "formula"), [((), "centred-fused"), ((AVX,), "centred")])
def test_batch_norm_after_a_convolution(
    frameworks: Frameworks, environment: tuple[str, ...], formula: str, tmp_path: Path
) -> None:
    """MXNet's convolution hands on blocks of channels, which oneDNN's own batch norm takes."""
    shape = (1, 64, 14, 14)
    data = batch_norm_data(shape)
    nodes = (
        Node("conv", Conv(64, (1, 1)), ("data", "conv_weight")),
        Node("bn", BatchNorm(1e-4), ("conv", *(f"bn_{name}" for name in list(data)[1:]))),
    )
    graph = Graph("g", {"data": TensorType(shape)}, nodes, {"out": "bn"})
    weights = {f"bn_{name}": array for name, array in data.items() if name != "x"}
    graph = graph.with_weights({"conv_weight": floats((64, 64, 1, 1), "w"), **weights})
    symbol, params = export(graph, tmp_path / "net")
    worker = frameworks("mxnet", "MXNET_SUBGRAPH_BACKEND=NONE", *environment)
    request = {"symbol": str(symbol), "params": str(params), "mode": "internals"}
    found = dict(worker.stream("run", request, {"data": floats(shape, "x")}))
    for other in BatchNorm.formulas:
        own = BatchNorm(1e-4).replay(other, found["conv"], *list(data.values())[1:], engine=FAST)
        assert same_bits(own, found["bn"]) == (other == formula), other


def test_batch_norm_after_a_depthwise_convolution(frameworks: Frameworks, tmp_path: Path) -> None:
    """MXNet: behind a depthwise convolution of 24 channels, batch norm has a formula of its own."""
    shape = (1, 24, 14, 14)
    data = batch_norm_data(shape)
    nodes = (
        Node("conv", Conv(24, (3, 3), pad=(1, 1), groups=24), ("data", "conv_weight")),
        Node("bn", BatchNorm(1e-4), ("conv", *(f"bn_{name}" for name in list(data)[1:]))),
    )
    graph = Graph("g", {"data": TensorType(shape)}, nodes, {"out": "bn"})
    weights = {f"bn_{name}": array for name, array in data.items() if name != "x"}
    graph = graph.with_weights({"conv_weight": floats((24, 1, 3, 3), "w"), **weights})
    symbol, params = export(graph, tmp_path / "net")
    worker = frameworks("mxnet", "MXNET_SUBGRAPH_BACKEND=NONE")
    request = {"symbol": str(symbol), "params": str(params), "mode": "internals"}
    found = dict(worker.stream("run", request, {"data": floats(shape, "x")}))
    for other in BatchNorm.formulas:
        own = BatchNorm(1e-4).replay(other, found["conv"], *list(data.values())[1:], engine=FAST)
        assert same_bits(own, found["bn"]) == (other == "normalised-fused"), other


def told_apart(op: Op, theirs: F32, *inputs: F32) -> list[str]:
    """The formulas that give these bits."""
    return [name for name in op.formulas if same_bits(op.replay(name, *inputs, engine=FAST), theirs)]


@pytest.mark.parametrize(
    ("framework", "function", "arguments", "formula"),
    [
        ("torch", "relu", {}, "keeps"),
        ("onnx", "Relu", {}, "keeps"),
        ("mxnet", "relu", {}, "plain"),
        ("mxnet", "Activation", {"act_type": "relu"}, "drops"),
    ],
)
def test_relu(
    frameworks: Frameworks, framework: str, function: str, arguments: dict[str, str], formula: str
) -> None:
    x = awkward((1, 64, 9, 9), "relu", 0.5)
    request = {"function": function, "arguments": arguments, "threads": 1}
    theirs = frameworks(framework).ask("op", request, {"x": x}).arrays["y"]
    assert told_apart(Relu(), theirs, x) == [formula]


POOLS = (
    ((3, 3), (2, 2), (1, 1), (25, 27)),
    ((2, 2), (2, 2), (0, 0), (30, 30)),
    ((3, 3), (1, 1), (1, 1), (9, 41)),
)


def pool_request(framework: str, op: MaxPool) -> dict[str, object]:
    place = op.kernel, op.stride, op.pad
    if framework == "torch":
        names = ("kernel_size", "stride", "padding")
        return {"function": "max_pool2d", "arguments": dict(zip(names, place, strict=True))}
    if framework == "mxnet":
        names = ("kernel", "stride", "pad")
        return {
            "function": "Pooling",
            "arguments": {"pool_type": "max", **dict(zip(names, place, strict=True))},
        }
    shape = {"kernel_shape": op.kernel, "strides": op.stride, "pads": (*op.pad, *op.pad)}
    return {"function": "MaxPool", "arguments": shape}


@pytest.mark.parametrize(
    ("framework", "formula", "environment"),
    [
        ("torch", "plain", ()),
        ("torch", "plain", (BASE,)),
        ("mxnet", "running", ()),
        ("mxnet", "running", (SSE,)),
        ("onnx", "columns", ()),
    ],
)
def test_max_pool(frameworks: Frameworks, framework: str, formula: str, environment: tuple[str, ...]) -> None:
    """Mostly zeros of both signs, -1, NaN, infinities: where the formulas part."""
    values = np.array(
        [0, -0.0, 0, -0.0, -1, -1, np.nan, -np.inf, np.finfo(np.float32).min, np.inf], np.float32
    )
    for kernel, stride, pad, size in POOLS:
        op = MaxPool(kernel, stride, pad)
        x = values[(np.abs(floats((2, 16, *size), size)) * 9.999).astype(int)]
        request = {**pool_request(framework, op), "threads": 1}
        theirs = frameworks(framework, *environment).ask("op", request, {"x": x}).arrays["y"]
        assert told_apart(op, theirs, x) == [formula], op


@pytest.mark.parametrize(
    ("framework", "function", "count", "formula"),
    [
        ("mxnet", "add_n", 3, "right"),
        ("mxnet", "add_n", 4, "right"),
        ("mxnet", "add_n", 5, "left"),
        ("mxnet", "add_n", 9, "left"),
        ("onnx", "Sum", 3, "left"),
        ("onnx", "Sum", 5, "left"),
    ],
)
def test_add_of_several(
    frameworks: Frameworks, framework: str, function: str, count: int, formula: str
) -> None:
    x = {f"x{i}": awkward((4, 1000), (i, count), 0.05) for i in range(count)}
    theirs = frameworks(framework).ask("op", {"function": function, "threads": 1}, x).arrays["y"]
    assert told_apart(Add(count), theirs, *x.values()) == [formula]


# Split attention: the official code's own expressions in PyTorch, the exported model in ONNX Runtime.

OFFICIAL = """
import torch

class Sum(torch.nn.Module):
    def __init__(self, radix):
        super().__init__()
        self.radix = radix

    def forward(self, x):
        return sum(torch.split(x, x.shape[1] // self.radix, dim=1))

class Weighted(Sum):
    def __init__(self, radix, channels):
        super().__init__(radix)
        self.attention = torch.nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        parts = torch.split(x, x.shape[1] // self.radix, dim=1)
        attention = torch.split(self.attention, x.shape[1] // self.radix, dim=1)
        return sum([att * split for (att, split) in zip(attention, parts)])
"""


@pytest.mark.parametrize("radix", [2, 4])
def test_sums_over_the_radix(frameworks: Frameworks, radix: int, tmp_path: Path) -> None:
    x, attention = awkward((1, 64, 7, 7), "parts", 0.1), floats((1, 64), "attention")
    x[:, :, 0] = np.copysign(np.float32(0), -attention[:, :, None])  # sums and products are -0
    x[:, :, 1] = -0.0
    (tmp_path / "splat_expressions.py").write_text(OFFICIAL)
    torch, state = frameworks("torch"), str(tmp_path / "state.pth")
    torch.ask("save", {"path": state}, {"attention": attention.reshape(1, 64, 1, 1)})
    request = {"paths": [str(tmp_path)], "threads": 1}
    summed = torch.ask(
        "run", {**request, "model": "splat_expressions:Sum", "arguments": [radix]}, {"data": x}
    )
    assert told_apart(RadixSum(radix), summed.arrays["output"], x) == ["zero"]
    request |= {"model": "splat_expressions:Weighted", "arguments": [radix, 64], "weights": state}
    weighted = torch.ask("run", request, {"data": x}).arrays["output"]
    assert told_apart(WeightedSum(radix), weighted, attention, x) == ["zero"]

    nodes = (Node("s", RadixSum(radix), ("x",)), Node("w", WeightedSum(radix), ("a", "x")))
    inputs = {"x": TensorType(x.shape), "a": TensorType(attention.shape)}
    graph = Graph("g", inputs, nodes, {"s": "s", "w": "w"})
    (path,) = export(graph, tmp_path / "net", "onnx")
    request = {"path": str(path), "engine": "onnxruntime", "threads": 1, "optimise": False}
    found = dict(frameworks("onnx").stream("run", request, {"x": x, "a": attention}))
    assert told_apart(RadixSum(radix), found["s"], x) == ["first"]
    assert told_apart(WeightedSum(radix), found["w"], attention, x) == ["first"]


@pytest.mark.parametrize(("radix", "cardinality"), [(2, 1), (4, 2), (1, 1)])
def test_radix_softmax_of_the_official_package(frameworks: Frameworks, radix: int, cardinality: int) -> None:
    """Whole vectors of PyTorch by SLEEF, what they leave over by glibc."""
    inner = 48  # channels of one part: whole vectors, and pairs of vectors of the sigmoid for 96
    op = RadixSoftmax(radix, cardinality)
    each: Callable[[int], F32] = lambda c: floats((1, c, 1, 1), ("radix", c)) * np.float32(20)  # noqa: E731
    request = {"model": "resnest.torch.splat:rSoftMax", "arguments": [radix, cardinality], "threads": 1}
    for part, formulas in ((2 * inner, ("sleef-divide", "sleef")), (7, ("glibc-divide", "glibc"))):
        x = each(radix * cardinality * part)
        theirs = frameworks("torch").ask("run", request, {"data": x}).arrays["output"]
        own = op.replay(formulas[radix == 1], x, engine=FAST)
        assert same_bits(own, theirs.reshape(own.shape)), part
