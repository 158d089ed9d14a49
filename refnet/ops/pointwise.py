"""Ops that work element by element: relu, sigmoid, addition, multiplication."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from refnet.ops.base import F32, F64, Cost, Interval, Op, TensorType
from refnet.ops.exactly import Tally, by_decimals, error_factor, finish, settle
from refnet.ops.rounding import ETA, EXP_ABSOLUTE, EXP_RELATIVE, U64, U, gamma, outward


@dataclass(frozen=True, repr=False)
class Relu(Op):
    """y = x if x > 0, +0 if x <= 0, NaN if x is NaN

    One right result, up to what frameworks choose differently: the sign of a zero (PyTorch and ONNX Runtime
    keep a -0) and NaN (MXNet's Activation makes +0 of it, its nd.relu keeps it).

    Bound: the radius stays, since |relu(a) - relu(b)| <= |a - b|; nothing is promised for NaN.

    Source: MXNet Activation act_type=relu and relu, torch.nn.ReLU.
    """

    frameworks_vary: ClassVar[bool] = True

    @property
    def one_result(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.pointwise import relu

        return relu(inputs[0], threads)

    def bound(self, *inputs: Interval) -> Interval:
        (x,) = inputs
        return Interval(np.maximum(x.center, 0.0), np.where(np.isnan(x.center), np.inf, x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


@dataclass(frozen=True, repr=False)
class Sigmoid(Op):
    """y = 1 / (1 + exp(-x))

    Plain: e = exp(-x) rounded once to float32; then 1 + e and the division, each rounded.

    Bound: the forms 1/(1 + exp(-x)), e/(1 + e) with e = exp(x), and 1 minus the latter at -x for the
    other sign. With exp's assumed error (relative EXP_RELATIVE, absolute EXP_ABSOLUTE, see rounding.py)
    d log(y) = (1 - y) d log(e), so |error| <= y (1 - y) EXP_RELATIVE + EXP_ABSOLUTE + gamma(3) y,
    the 3 being sum, division and, in the mirrored form, the difference (there y >= 1/2, so an error
    relative to 1 - y is smaller than one relative to y); the first two multiplied by 1 + 2**-20 for
    second-order terms. An input's radius R counts R/4, the largest slope; y, and y (1 - y), are then
    taken at their largest, y + R/4 and y (1 - y) + R/4 (the slope of y (1 - y) is below 1/4 too).

    Limits: x = -inf gives 0, +inf gives 1, NaN gives NaN; the radius there is that of the formula.
    exp(-x) may overflow to inf for x < -88: 1/(1 + inf) = 0 is within EXP_ABSOLUTE of y.

    Golden: correctly rounded. exp in float64 is off by 2**-50, so y by the relative 2**-48; for x != 0 the
    value is transcendental and no midpoint, so decimals of growing precision settle what is open.

    Source: MXNet Activation act_type=sigmoid, torch.sigmoid.
    """

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.pointwise import sigmoid

        return sigmoid(inputs[0], threads)

    def golden(self, *inputs: F32, threads: int = 1, tally: Tally | None = None) -> F32:
        return exact_sigmoid(type(self).__name__, inputs[0], threads, tally)

    def bound(self, *inputs: Interval) -> Interval:
        (x,) = inputs
        return sigmoid_bound(x)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 3 * inputs[0].size)


@dataclass(frozen=True, repr=False)
class Add(Op):
    """y = x0 + x1 + ... + x(n-1), all of one shape

    Plain: left to right. With two inputs there is one right result.

    Bound, any order: gamma(n - 1) * sum |xi|; additions do not underflow.

    Golden: the exact sum of all n, rounded once.

    Source: MXNet add_n and elemwise_add, torch.add.
    """

    roles: ClassVar[tuple[str, ...]] = ("data",)
    count: int = 2

    @property
    def one_result(self) -> bool:
        return self.count <= 2

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, self.count)
        self._expect(self.count >= 1, "count >= 1")
        self._expect(len({x.shape for x in inputs}) == 1, f"shapes differ: {list(inputs)}")
        return inputs[0]

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        with np.errstate(all="ignore"):  # inf - inf is NaN here as in the frameworks
            total = inputs[0] + inputs[1] if self.count > 1 else inputs[0].copy()
            for x in inputs[2:]:
                total += x
        return total

    def golden(self, *inputs: F32, threads: int = 1, tally: Tally | None = None) -> F32:
        if self.one_result:
            return self.run(*inputs, threads=threads)
        return exact_sum(type(self).__name__, np.stack(inputs), threads, tally)

    def bound(self, *inputs: Interval) -> Interval:
        return sum_bound(inputs)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, (self.count - 1) * inputs[0].size)


@dataclass(frozen=True, repr=False)
class Mul(Op):
    """y = a * b, where a dimension of size 1 stretches to the other's (NumPy broadcasting, equal ranks)

    One multiplication: one right result.

    Bound: |a| rb + ra |b| + ra rb + U |a b| + ETA/2 for radii ra and rb.

    Source: MXNet broadcast_mul and elemwise_mul, torch.mul.
    """

    roles: ClassVar[tuple[str, ...]] = ("data", "data")

    @property
    def one_result(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2)
        a, b = inputs
        self._expect(len(a.shape) == len(b.shape), f"ranks differ: {a!r} and {b!r}")
        fits = all(m == n or 1 in (m, n) for m, n in zip(a.shape, b.shape, strict=True))
        self._expect(fits, f"shapes do not broadcast: {a!r} and {b!r}")
        return TensorType(tuple(np.broadcast_shapes(a.shape, b.shape)))

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        with np.errstate(all="ignore"):
            return np.multiply(*inputs)

    def bound(self, *inputs: Interval) -> Interval:
        a, b = inputs
        center = a.center * b.center
        spread = np.abs(a.center) * b.radius + a.radius * b.magnitude
        total = a.magnitude * b.magnitude
        radius = spread + (gamma(1) + 2 * U64) * total + ETA / 2
        return outward(center, radius, total)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size)


def sum_bound(inputs: tuple[Interval, ...]) -> Interval:
    """Bound of a float32 sum of the inputs in any order."""
    center = inputs[0].center.copy()
    total = inputs[0].magnitude
    spread = inputs[0].radius.copy()
    for x in inputs[1:]:
        center += x.center
        total += x.magnitude
        spread += x.radius
    n = len(inputs)
    return outward(center, spread + (gamma(n - 1) + n * U64) * total, total, n)


def sigmoid_bound(x: Interval) -> Interval:
    """Bound of any float32 sigmoid, see Sigmoid. Shared with RadixSoftmax, whose radix 1 is a sigmoid."""
    with np.errstate(over="ignore"):
        y: F64 = 1.0 / (1.0 + np.exp(-x.center))
    second = 1 + 2.0**-20
    move = np.minimum(x.radius / 4, 1.0)
    error = ((y * (1 - y) + move) * EXP_RELATIVE + EXP_ABSOLUTE) * second + (gamma(3) + 8 * U64) * (y + move)
    return outward(y, move + error, np.where(np.isnan(y), np.nan, U))


def exact_sum(op: str, terms: F32, threads: int, tally: Tally | None) -> F32:
    """The correctly rounded sum over the first axis of terms."""
    from refnet.kernels.exact import decide_sums, sum_exactly
    from refnet.kernels.jit import split

    count = terms.shape[0]
    a = np.ascontiguousarray(terms).reshape(count, -1)
    b = np.ones_like(a)
    y, at = decide_sums(a, b, error_factor(count), threads)

    def refine(at: npt.NDArray[np.int64], y: F32) -> None:
        split(sum_exactly, at.size, threads, at, a, b, y)

    return finish(op, y, at, refine, tally).reshape(terms.shape[1:])


def exact_sigmoid(op: str, x: F32, threads: int, tally: Tally | None) -> F32:
    """The correctly rounded sigmoid; see Sigmoid."""
    from refnet.kernels.pointwise import exponential

    with np.errstate(all="ignore"):
        center: F64 = 1.0 / (1.0 + exponential(-x.astype(np.float64), threads))

    def refine(at: npt.NDArray[np.int64], y: F32) -> None:
        flat = y.reshape(-1)
        for k in at:
            value = Decimal(float(x.flat[k]))

            def evaluate(value: Decimal = value) -> tuple[Decimal, Decimal]:
                return 1 / (1 + (-value).exp()), Decimal(0)

            flat[k] = by_decimals(evaluate, float(center.flat[k]))

    return settle(op, center, center * 2.0**-48, refine, threads, tally)
