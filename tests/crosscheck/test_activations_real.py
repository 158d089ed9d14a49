"""The activations' menus against PyTorch and ONNX Runtime: slices of all inputs, ends of arrays, reveal."""

from __future__ import annotations

import numpy as np
import pytest

from refnet import ops
from refnet.core.op import F32, Op, TensorType
from refnet.core.orders import Choice
from refnet.formats.mxnet.functions import SELU
from refnet.frameworks import live
from refnet.frameworks.caller import caller
from refnet.frameworks.process import Worker
from refnet.frameworks.reveal.formulas import reveal_formula
from tests.crosscheck.conftest import Frameworks
from tests.crosscheck.test_functions_real import AVX2, BASE, VECTOR, WIDE
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import FAST

pytestmark = pytest.mark.crosscheck

SLICE = (0x40, 0xBF)
"""2 to 8, and -2 to -1/2: all branches but the far ones, which test_elementwise_real.py has."""
ONEDNN_AVX2 = "ONEDNN_MAX_CPU_ISA=AVX2"


@pytest.mark.parametrize(
    ("framework", "function", "formula", "environment"),
    [
        ("torch", "gelu", "onednn" if WIDE else "onednn-avx2", ()),
        ("torch", "gelu", "onednn-avx2", (ONEDNN_AVX2,)),
        ("torch", "gelu-tanh", "sleef", ()),
        ("torch", "gelu-tanh", "sleef", (AVX2,)),
        ("torch", "gelu-tanh", "glibc-unfused", (BASE,)),
        ("torch", "softplus", "sleef", ()),
        ("torch", "mish", "sleef", (AVX2,)),
        ("torch", "mish", "glibc", (BASE,)),
        ("torch", "elu", "sleef", ()),
        ("torch", "elu", "glibc", (BASE,)),
        ("torch", "selu", "sleef", ()),
        ("onnx", "log", "eigen", ()),
        ("onnx", "softplus", "eigen", ()),
        ("onnx", "mish", "eigen", ()),
        ("onnx", "elu", "eigen", ()),
        ("onnx", "selu", "eigen", ()),
        ("onnx", "gelu", "mlas", ()),
        ("onnx", "sqrt", "ieee", ()),
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


@pytest.mark.parametrize("function", ["exp", "log", "tanh", "erf", "sqrt"])
def test_what_no_formula_has(frameworks: Frameworks, function: str) -> None:
    """Intel's vector mathematics, whose algorithms are not published: each formula is near, none is it."""
    found = live.sweep(frameworks("torch"), "torch", function, [0x3F])
    assert found.identical == ()
    assert all(0 < one.different < one.compared for one in found.found)


def parts(op: Op, whole: str, rest: str, step: int, x: F32) -> F32:
    """The first elements, as many as fill whole steps, by one formula, the others by another."""
    y = op.replay(whole, x, engine=FAST)
    end = x.size // step * step
    y[end:] = op.replay(rest, x[end:], engine=FAST)
    return y


PIECES: list[tuple[str, str, dict[str, object], Op, str, str, int]] = [
    ("torch", "gelu", {"approximate": "tanh"}, ops.Gelu(True), "sleef", "glibc", 2 * VECTOR),
    ("torch", "softplus", {}, ops.Softplus(), "sleef", "glibc", 2 * VECTOR),
    ("torch", "mish", {}, ops.Mish(), "sleef", "glibc", 2 * VECTOR),
    ("torch", "silu", {}, ops.Silu(), "sleef", "glibc", 2 * VECTOR),
    ("torch", "elu", {}, ops.Elu(), "sleef", "glibc", 2 * VECTOR),
    ("torch", "selu", {}, SELU, "sleef", "glibc", 2 * VECTOR),
    ("torch", "celu", {"alpha": 0.75}, ops.Elu(0.75, 1.0, 0.75), "sleef", "glibc", 2 * VECTOR),
    ("onnx", "Elu", {}, ops.Elu(), "eigen", "eigen-glibc", 4),
    ("onnx", "Selu", {}, SELU, "eigen", "eigen-glibc", 4),
    ("onnx", "Celu", {"alpha": 0.75}, ops.Elu(0.75, 1.0, 0.75), "eigen", "eigen-glibc", 4),
    ("onnx", "Softplus", {}, ops.Softplus(), "eigen", "eigen-glibc", 4),
    ("onnx", "Log", {}, ops.Log(), "eigen", "glibc", 4),
]


@pytest.mark.parametrize(
    ("framework", "function", "arguments", "op", "whole", "rest", "step"),
    PIECES,
    ids=[f"{p[0]} {p[1]}" for p in PIECES],
)
def test_what_fills_no_vector(
    frameworks: Frameworks,
    framework: str,
    function: str,
    arguments: dict[str, object],
    op: Op,
    whole: str,
    rest: str,
    step: int,
) -> None:
    """PyTorch: pairs of vectors, then one by one by glibc. ONNX Runtime: fours, then one by one."""
    worker = frameworks(framework)
    x = floats((1 << 18,), "differ") * np.float32(6)
    x = np.abs(x) if isinstance(op, ops.Log) else x
    x = x[~(op.replay(whole, x, engine=FAST) == op.replay(rest, x, engine=FAST))]
    assert x.size > 4 * step
    for size in (1, step - 1, step, step + 1, 2 * step - 1, 3 * step + 2):
        request = {"function": function, "arguments": arguments, "threads": 1}
        y = worker.ask("op", request, {"x": x[:size]}).arrays["y"]
        assert same_bits(parts(op, whole, rest, step, x[:size]), y), size


ZEROS: list[tuple[str, dict[str, object], Op, str]] = [
    ("Elu", {}, ops.Elu(), "eigen"),
    ("Celu", {"alpha": 1.0}, ops.Elu(), "eigen-zero"),
    ("Celu", {"alpha": 0.75}, ops.Elu(0.75, 1.0, 0.75), "eigen"),
    ("Selu", {"alpha": 0.75, "gamma": 1.0}, ops.Elu(0.75), "eigen-zero"),
    ("Selu", {}, SELU, "eigen"),
]


@pytest.mark.parametrize(("function", "arguments", "op", "formula"), ZEROS, ids=str)
def test_the_zero_that_a_zero_gives(
    frameworks: Frameworks, function: str, arguments: dict[str, object], op: Op, formula: str
) -> None:
    """ONNX Runtime's Celu and Selu add two halves, so that -0 becomes +0, also where they are ELU itself."""
    x = np.float32([-0.0, 0.0, -1.5, 2.5, -0.0])
    request = {"function": function, "arguments": arguments, "threads": 1}
    y = frameworks("onnx").ask("op", request, {"x": x}).arrays["y"]
    assert same_bits(parts(op, formula, f"{formula}-glibc", 4, x), y)
    other = {"eigen": "eigen-zero", "eigen-zero": "eigen"}[formula]
    if other in op.menu:
        assert not same_bits(parts(op, other, f"{other}-glibc", 4, x), y)


def test_gelu_of_one_element(frameworks: Frameworks) -> None:
    """PyTorch hands a single element to no other library: glibc's erf."""
    x = floats((200,), "single") * np.float32(4)
    request = {"function": "gelu", "threads": 1}
    worker = frameworks("torch")
    y = np.concatenate([worker.ask("op", request, {"x": x[k : k + 1]}).arrays["y"] for k in range(x.size)])
    assert same_bits(ops.Gelu().replay("glibc", x, engine=FAST), y)
    assert not same_bits(ops.Gelu().replay("onednn", x, engine=FAST), y)


@pytest.mark.parametrize("exponent", [3.0, -2.0, -1.0, -0.5])
def test_powers_of_pytorch(frameworks: Frameworks, exponent: float) -> None:
    x = floats((4096,), exponent) * np.float32(3)
    request = {"function": "pow", "arguments": {"exponent": exponent}, "threads": 1}
    y = frameworks("torch").ask("op", request, {"x": x}).arrays["y"]
    assert same_bits(ops.Power(exponent).replay("products", x, engine=FAST), y)
    assert not same_bits(ops.Power(exponent).replay("glibc", x, engine=FAST), y)


@pytest.mark.parametrize(
    ("framework", "environment", "formula"),
    [
        ("torch", (), "sleef"),
        ("torch", (AVX2,), "sleef"),
        ("torch", (BASE,), "glibc"),
        ("onnx", (), "mlas"),
    ],
)
def test_log_softmax(
    frameworks: Frameworks, framework: str, environment: tuple[str, ...], formula: str
) -> None:
    """Pairs, whose sum has one order; longer rows, whose order is revealed and gives other data's bits."""
    worker, op = frameworks(framework, *environment), ops.LogSoftmax(1)
    x = floats((4000, 2), "pairs") * np.float32(6)
    name, arguments = ("LogSoftmax", {"axis": 1}) if framework == "onnx" else ("log_softmax", {"dim": 1})
    request = {"function": name, "arguments": arguments, "threads": 1}
    y = worker.ask("op", request, {"x": x}).arrays["y"]
    assert [one for one in op.menu if same_bits(op.replay(one, x, engine=FAST), y)] == [formula]
    who = "onnxruntime" if framework == "onnx" else framework
    for shape in ((64, 100), (2, 10, 4, 4)):
        types = [TensorType(shape)]
        recipe = reveal_formula(op, types, caller(who, worker, op, types, 1))
        (part,) = recipe.parts
        assert isinstance(part.do, Choice)
        assert part.do.total is not None
        other = floats(shape, "other") * np.float32(5)
        y = worker.ask("op", request, {"x": other}).arrays["y"]
        assert same_bits(op.replay(formula, other, engine=FAST, total=part.do.total), y)
        assert not same_bits(op.replay(formula, other, engine=FAST), y) or len(shape) == 4


REVEALED: list[tuple[str, Op, tuple[int, ...], int | None, tuple[str, ...]]] = [
    ("torch", ops.Gelu(), (2, 12, 6, 6), None, ("onednn" if WIDE else "onednn-avx2",)),
    ("torch", ops.Gelu(True), (1, 8, 5, 5), None, ("glibc", "sleef")),
    ("torch", ops.Gelu(True), (1, 8, 8, 8), None, ("sleef",)),
    ("torch", ops.Mish(), (1, 8, 8, 8), None, ("sleef",)),
    ("torch", ops.Power(3.0), (1, 8, 8, 8), None, ("products",)),
    ("onnxruntime", ops.Gelu(), (1, 8, 6, 6), 20, ("mlas",)),
    ("onnxruntime", ops.Gelu(True), (1, 8, 6, 6), 20, ("mlas",)),
    ("onnxruntime", ops.Mish(), (1, 8, 6, 6), 18, ("eigen",)),
    ("onnxruntime", ops.Mish(), (1, 8, 6, 6), None, ("eigen",)),
    ("onnxruntime", ops.Elu(0.5), (1, 8, 6, 6), 22, ("eigen",)),
    ("onnxruntime", ops.Softplus(), (1, 5, 3, 3), None, ("eigen", "eigen-glibc")),
    ("onnxruntime", ops.Sqrt(), (1, 8, 6, 6), None, ("ieee",)),
    ("onnxruntime", ops.Power(0.75), (1, 8, 6, 6), None, ("glibc",)),
]


@pytest.mark.parametrize(("framework", "op", "shape", "opset", "formulas"), REVEALED, ids=str)
def test_reveal_finds_it_by_bits(
    frameworks: Frameworks,
    framework: str,
    op: Op,
    shape: tuple[int, ...],
    opset: int | None,
    formulas: tuple[str, ...],
) -> None:
    """Asked alone, of ONNX Runtime at the opset of a file: a recipe of one or two parts."""
    worker: Worker = frameworks("onnx" if framework == "onnxruntime" else framework)
    types = [TensorType(shape)]
    recipe = reveal_formula(op, types, caller(framework, worker, op, types, 1, opset))
    found = {part.do.formula for part in recipe.parts if isinstance(part.do, Choice)}
    assert found == set(formulas)
