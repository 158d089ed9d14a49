"""Every op's bound attacked by the real frameworks: cancelling, negative, subnormal and huge numbers."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import RefnetError
from refnet.core.op import Interval, TensorType
from refnet.frameworks import process
from refnet.frameworks.caller import caller
from refnet.frameworks.process import Worker
from tests.crosscheck.conftest import interpreter
from tests.helpers.engines import FAST
from tests.ops.test_bounds_attacked import KINDS, arguments
from tests.ops.test_ops_rules import EXAMPLES

pytestmark = pytest.mark.crosscheck

ONNX = Path(process.__file__).with_name("onnx_worker.py")
PLACES: dict[str, tuple[str | Path, str]] = {
    "torch": ("torch", "torch"),
    "mxnet": ("mxnet", "mxnet"),
    "onnxruntime": (ONNX, "onnx"),
}
ROUNDS = 10


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Worker]]:
    """The frameworks on one thread."""
    joined = {"MXNET_SUBGRAPH_BACKEND": "NONE"}
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Worker(worker, interpreter(place), threads=1, environment=joined))
            for name, (worker, place) in PLACES.items()
        }


@pytest.mark.parametrize("framework", PLACES)
def test_every_value_lies_inside(workers: dict[str, Worker], framework: str, report: list[str]) -> None:
    """Each op that the framework has, as reveal asks for it. An op with one right result must have it."""
    asked: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for example in EXAMPLES:
        op, name = example.op, type(example.op).__name__
        if framework == "torch" and (getattr(op, "pad_end", None) or getattr(op, "trailing", False)):
            continue  # it pads both sides alike and has one axis
        rng = np.random.default_rng(zlib.crc32(repr(op).encode()))
        for k in range(ROUNDS):
            values = arguments(example, rng, [KINDS[k]] if k < len(KINDS) else list(KINDS))
            if isinstance(op, ops.BatchNorm) and op.fix_gamma:  # only MXNet has this: there gamma is not read
                values[1] = np.ones_like(values[1])
            types = [TensorType(v.shape) for v in values]
            try:
                y = caller(framework, workers[framework], op, types, 1).whole(values)
            except RefnetError as error:
                refused[f"{name}: {str(error)[-60:]}"] += 1
                break
            with np.errstate(all="ignore"):
                found = op.bound(*(Interval.exactly(v) for v in values), engine=FAST)
                promised = np.isfinite(found.radius)
                off = np.abs(y.reshape(found.center.shape).astype(np.float64) - found.center)
            wrong = promised & ~(off <= found.radius)
            assert not wrong.any(), (op, y[wrong][:3], found.center[wrong][:3], found.radius[wrong][:3])
            asked[name] += int(promised.sum())
    report.append(f"{framework}: {sum(asked.values())} elements of {len(asked)} ops: {dict(asked)}")
    least = {"torch": 10, "mxnet": 15, "onnxruntime": 25}[framework]
    assert len(asked) >= least, refused


def test_the_variance_next_to_minus_eps(workers: dict[str, Worker], report: list[str]) -> None:
    op = ops.BatchNorm(1.001e-5)
    x = np.linspace(-2, 2, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    steps = [np.nextafter(np.float32(-1.001e-5), np.float32(0))]
    for _ in range(40):
        steps.append(np.nextafter(steps[-1], np.float32(0)))
    largest = 0.0
    for var in steps:
        values = [x, *(np.full(1, v, np.float32) for v in (1, 0, 0, var))]
        found = op.bound(*(Interval.exactly(v) for v in values), engine=FAST)
        for framework, worker in workers.items():
            y = caller(framework, worker, op, [TensorType(v.shape) for v in values], 1).whole(values)
            share = np.abs(y - found.center) / found.radius
            assert (share <= 1).all(), (framework, var)
            largest = max(largest, float(share.max()))
    assert largest > 0.4
    report.append(f"largest share of the bound: {largest:.3f}")
