"""Functions of one value against the running frameworks: inside the bound everywhere, and the formulas by
bits.

2**17 inputs each, every 32768th float32, and as many of ordinary size; two orders of magnitude more by hand
(docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx as package
import pytest

from refnet import ops
from refnet.core.bits import equal_bits
from refnet.core.errors import FormatError, UnsupportedError
from refnet.core.op import F32, Interval, Op
from refnet.formats.mxnet.functions import SELU
from refnet.formats.onnx.functions import RULES
from refnet.formats.onnx.reader import read_onnx
from refnet.frameworks import live
from refnet.frameworks.process import Worker
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.judge import Tally, check
from tests.crosscheck.test_functions_real import WIDE
from tests.helpers.bits import floats
from tests.helpers.engines import FAST
from tests.helpers.onnx_cases import NodeCase, node_cases

pytestmark = pytest.mark.crosscheck

SIXTH = float(np.float32(1 / 6))
ALL = np.arange(0, 1 << 32, 1 << 15, dtype=np.uint64).astype(np.uint32).view(np.float32)
INPUTS = np.concatenate([ALL, floats((1 << 17,), "ordinary") * np.float32(12)])
INPUTS[np.isnan(INPUTS)] = np.nan  # not the signalling ones

CASES: list[tuple[str, str, dict[str, object], Op, str]] = [
    ("torch", "exp", {}, ops.Exp(), ""),
    ("torch", "log", {}, ops.Log(), ""),
    ("torch", "tanh", {}, ops.Tanh(), ""),
    ("torch", "erf", {}, ops.Erf(), ""),
    ("torch", "sqrt", {}, ops.Sqrt(), ""),
    ("torch", "sin", {}, ops.Sin(), ""),
    ("torch", "cos", {}, ops.Cos(), ""),
    ("torch", "softplus", {}, ops.Softplus(), "sleef"),
    ("torch", "mish", {}, ops.Mish(), "sleef"),
    ("torch", "silu", {}, ops.Silu(), "sleef"),
    ("torch", "gelu", {}, ops.Gelu(), "onednn" if WIDE else "onednn-avx2"),
    ("torch", "gelu", {"approximate": "tanh"}, ops.Gelu(True), "sleef"),
    ("torch", "elu", {}, ops.Elu(), "sleef"),
    ("torch", "elu", {"alpha": 0.75}, ops.Elu(0.75), "sleef"),
    ("torch", "selu", {}, SELU, "sleef"),
    ("torch", "celu", {"alpha": 0.75}, ops.Elu(0.75, 1.0, 0.75), "sleef"),
    ("torch", "softsign", {}, ops.Softsign(), "quotient"),
    ("torch", "hardsigmoid", {}, ops.HardSigmoid(SIXTH), "sixth"),
    ("torch", "hardswish", {}, ops.HardSwish(), "sixth"),
    ("onnx", "Exp", {}, ops.Exp(), "mlas"),
    ("onnx", "Log", {}, ops.Log(), "eigen"),
    ("onnx", "Tanh", {}, ops.Tanh(), "mlas"),
    ("onnx", "Erf", {}, ops.Erf(), "mlas"),
    ("onnx", "Sqrt", {}, ops.Sqrt(), "ieee"),
    ("onnx", "Sin", {}, ops.Sin(), ""),
    ("onnx", "Cos", {}, ops.Cos(), ""),
    ("onnx", "Abs", {}, ops.Abs(), ""),
    ("onnx", "Softplus", {}, ops.Softplus(), "eigen"),
    ("onnx", "Elu", {"alpha": 0.75}, ops.Elu(0.75), "eigen"),
    ("onnx", "Selu", {}, SELU, "eigen"),
    ("onnx", "Celu", {"alpha": 0.75}, ops.Elu(0.75, 1.0, 0.75), "eigen"),
    ("onnx", "Softsign", {}, ops.Softsign(), "reciprocal"),
    ("onnx", "HardSigmoid", {}, ops.HardSigmoid(), "linear"),
    ("onnx", "HardSwish", {}, ops.HardSwish(), "linear"),
    ("mxnet", "exp", {}, ops.Exp(), "glibc"),
    ("mxnet", "log", {}, ops.Log(), "glibc"),
    ("mxnet", "tanh", {}, ops.Tanh(), "glibc"),
    ("mxnet", "erf", {}, ops.Erf(), "glibc"),
    ("mxnet", "sqrt", {}, ops.Sqrt(), "ieee"),
    ("mxnet", "sin", {}, ops.Sin(), ""),
    ("mxnet", "cos", {}, ops.Cos(), ""),
    ("mxnet", "abs", {}, ops.Abs(), ""),
    ("mxnet", "square", {}, ops.Power(2.0), ""),
    ("mxnet", "rsqrt", {}, ops.Power(-0.5), "products"),
    ("mxnet", "reciprocal", {}, ops.WithScalar("rdiv", 1.0), ""),
    ("mxnet", "negative", {}, ops.WithScalar("mul", -1.0), ""),
    ("mxnet", "_power_scalar", {"scalar": 3.0}, ops.Power(3.0), "glibc"),
    ("mxnet", "_power_scalar", {"scalar": 0.75}, ops.Power(0.75), "glibc"),
    ("mxnet", "hard_sigmoid", {}, ops.HardSigmoid(), "linear"),
    ("mxnet", "Activation", {"act_type": "tanh"}, ops.Tanh(), ""),
    ("mxnet", "Activation", {"act_type": "softrelu"}, ops.Softplus(), ""),
    ("mxnet", "Activation", {"act_type": "softsign"}, ops.Softsign(), "quotient"),
    ("mxnet", "LeakyReLU", {"act_type": "elu", "slope": 0.75}, ops.Elu(0.75), "onednn"),
    ("mxnet", "LeakyReLU", {"act_type": "elu", "slope": 1.0}, ops.Elu(), "onednn"),
    ("mxnet", "LeakyReLU", {"act_type": "selu"}, SELU, ""),
    ("mxnet", "LeakyReLU", {"act_type": "gelu"}, ops.Gelu(), ""),
]
"""Framework, its function and arguments, the op, and the formula that has the framework's bits, if one is
known."""


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Worker]]:
    started = {name: live.worker(name, str(interpreter(name)), {}) for name in ("torch", "onnx", "mxnet")}
    yield started
    for worker in started.values():
        worker.close()


def outside(op: Op, x: F32, y: F32) -> F32:
    """The inputs whose result is outside the bound, or another than the only right one."""
    if op.exactly_specified:
        return x[~op.agrees(y, op.run(x, engine=FAST))]
    interval = op.bound(Interval.exactly(x), engine=FAST)
    with np.errstate(all="ignore"):
        inside = np.abs(y - interval.center) <= interval.radius
    return x[~inside & np.isfinite(interval.radius)]


@pytest.mark.parametrize(
    ("framework", "function", "arguments", "op", "formula"),
    CASES,
    ids=[f"{c[0]} {c[1]} {c[2]}" for c in CASES],
)
def test_inside_the_bound_and_by_bits(
    workers: dict[str, Worker],
    framework: str,
    function: str,
    arguments: dict[str, object],
    op: Op,
    formula: str,
) -> None:
    request = {"function": function, "arguments": arguments, "threads": 1}
    y = workers[framework].ask("op", request, {"x": INPUTS}).arrays["y"]
    assert outside(op, INPUTS, y).size == 0
    if not op.exactly_specified:
        with np.errstate(all="ignore"):
            wrong = y + np.where(np.isfinite(y), np.abs(y) / 64 + np.float32(2**-16), 0).astype(np.float32)
        assert outside(op, INPUTS, wrong).size > 1000  # what is wrong by 1/64 is outside
    if formula:
        same = {name: equal_bits(op.replay(name, INPUTS, engine=FAST), y).all() for name in op.menu}
        assert same[formula], same
        assert sum(same.values()) == 1 or {n for n in same if same[n]} == {"glibc", "glibc-unfused"}


def test_global_max_pooling_of_mxnet(workers: dict[str, Worker]) -> None:
    """refnet reads it as a max pool whose window is the plane."""
    x = floats((2, 5, 6, 7), "plane")
    request = {"function": "Pooling", "arguments": {"global_pool": True, "pool_type": "max"}, "threads": 1}
    y = workers["mxnet"].ask("op", request, {"x": x}).arrays["y"]
    assert equal_bits(ops.MaxPool((6, 7)).run(x, engine=FAST), y).all()


@pytest.fixture(scope="module")
def nodes() -> list[NodeCase]:
    """onnx's node tests of these operators, without those of their expanded functions."""
    return [case for case in node_cases() if case.op in RULES]


def test_onnx_has_tests_of_every_function(nodes: list[NodeCase]) -> None:
    assert {case.op for case in nodes} == set(RULES)


REFUSED = {f"test_pow_types_float32_{kind}{bits}" for kind in ("int", "uint") for bits in (32, 64)}
"""Their exponents are integers. Others are of another type than float32."""


@pytest.mark.parametrize("op", sorted(RULES))
def test_onnxs_own_tests(op: str, nodes: list[NodeCase], tmp_path: Path) -> None:
    """The stored results, on the stored inputs: equal or inside the bound. A second input becomes a
    constant."""
    for number, case in enumerate(case for case in nodes if case.op == op):
        model, arrays, (expected,) = case.model, case.inputs, case.outputs
        for array in arrays[1:]:
            name = model.graph.input[1].name
            model.graph.initializer.append(package.numpy_helper.from_array(array, name))
            del model.graph.input[1]
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(model.SerializeToString())
        if arrays[0].dtype != np.float32 or expected.dtype != np.float32:
            with pytest.raises((UnsupportedError, FormatError)):
                read_onnx(path)
            continue
        graph = read_onnx(path)
        made = graph.by_name[model.graph.output[0].name]
        assert bool(made.op.opaque) == (case.name in REFUSED), case.name
        if not made.op.opaque:
            weights = [graph.weights[name] for name in made.weights]
            check(made, expected, [arrays[0], *weights], Tally())
