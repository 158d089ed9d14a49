"""Ops that work element by element: relu, clip, sigmoid, addition, subtraction, multiplication, division.

Sums and products of two stretch as NumPy's do. Their trailing inputs may be weights: `constants` has the
shapes of these. Sigmoid's bound is in sigmoid.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.errors import GraphError
from refnet.core.op import F32, F64, Cost, Interval, Op, Sum, TensorType
from refnet.exact.correct_rounding import RefineCount, by_decimals, error_factor, finish, round_or_refine
from refnet.exact.rounding import ETA, U64, gamma, joined, outward
from refnet.ops.sigmoid import sigmoid_bound

if TYPE_CHECKING:
    from refnet.kernels.program import Registers

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, repr=False)
class Relu(Op):
    """y = x if x > 0, +0 if x <= 0, NaN if x is NaN

    One right result, up to what frameworks choose differently: the sign of a zero (PyTorch and ONNX Runtime
    keep a -0) and NaN (MXNet's Activation makes +0 of it, its nd.relu keeps it).

    Bound: the radius stays, since |relu(a) - relu(b)| <= |a - b|; nothing is promised for NaN.

    Formulas: see `formulas`; they differ in -0 and NaN only.

    Source: MXNet Activation act_type=relu and relu, torch.nn.ReLU.
    """

    zero_sign_unspecified: ClassVar[bool] = True
    formulas: ClassVar[Mapping[str, str]] = {
        "plain": "x if x > 0, +0 if x <= 0, NaN if NaN (MXNet's nd.relu)",
        "keeps": "x if x >= 0, so -0 stays, +0 if x < 0, NaN if NaN (PyTorch, ONNX Runtime)",
        "drops": "x if x > 0, else +0, for NaN too (MXNet's Activation: oneDNN's relu)",
        "scales": "x if x > 0, else x * 0: -0 below zero, NaN for NaN and -inf (oneDNN's relu joined with a "
        "convolution that is a matrix product)",
    }

    @property
    def exactly_specified(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def recordable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.pointwise import relu

        return relu(inputs[0], threads)

    def replay(self, formula: str, *inputs: F32, threads: int = 1, total: Registers | None = None) -> F32:
        from refnet.kernels import formulas as kernels

        self._one_of(formula, self.formulas)
        if formula == "plain":
            return self.run(*inputs, threads=threads)
        rules = {"keeps": kernels.KEEPS, "drops": kernels.DROPS, "scales": kernels.SCALES}
        return kernels.relu(inputs[0], rules[formula], threads)

    def bound(self, *inputs: Interval) -> Interval:
        (x,) = inputs
        return Interval(np.maximum(x.center, 0.0), np.where(np.isnan(x.center), np.inf, x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


@dataclass(frozen=True, repr=False)
class Clip(Op):
    """y = min(max(x, low), high)

    One right result, up to what frameworks choose differently, the sign of a zero and NaN. Where low > high,
    y is high.

    Bound: the radius stays, since |clip(a) - clip(b)| <= |a - b|; nothing is promised for NaN.

    Source: ONNX Clip, torch.clamp, torch.nn.ReLU6.
    """

    low: float = -np.inf
    high: float = np.inf

    zero_sign_unspecified: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        for name, limit in (("low", self.low), ("high", self.high)):
            self._expect(float(np.float32(limit)) == limit, f"{name} must be a float32, got {limit!r}")
        return inputs[0]

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        y: F32 = np.minimum(np.maximum(inputs[0], np.float32(self.low)), np.float32(self.high))
        return y

    def bound(self, *inputs: Interval) -> Interval:
        (x,) = inputs
        center = np.minimum(np.maximum(x.center, self.low), self.high)
        return Interval(center, np.where(np.isnan(center), np.inf, x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 2 * inputs[0].size)


@dataclass(frozen=True, repr=False)
class Sigmoid(Op):
    """y = 1 / (1 + exp(-x))

    Plain: e = exp(-x) rounded once to float32; then 1 + e and the division, each rounded.

    Bound: the forms with an exp, and ONNX Runtime's rational function: see sigmoid.py.

    Golden: correctly rounded. exp in float64 is off by 2**-50, so y by the relative 2**-48; for x != 0 the
    value is transcendental and no midpoint, so decimals of growing precision settle what is open.

    Formulas, each identical to the framework's on all 2**32 inputs (docs/numerics.md): see `formulas` and
    loops/libm: sleef.py, glibc.py, onednn.py, mlas.py. PyTorch evaluates what is left of a thread's share
    after its pairs of vectors one by one, with glibc.

    Source: MXNet Activation act_type=sigmoid, torch.sigmoid.
    """

    formulas: ClassVar[Mapping[str, str]] = {
        "sleef": "1 / (1 + e), e = SLEEF's expf(0 - x) (PyTorch with AVX2 or AVX-512)",
        "glibc": "1 / (1 + e), e = glibc's expf(-x) with FMA (PyTorch one by one, MXNet's nd.sigmoid)",
        "glibc-unfused": "as glibc, its code for processors without FMA",
        "onednn": "e = oneDNN's exp(-|x|), q = e / (e + 1), 1 - q for x > 0 (MXNet's Activation)",
        "onednn-unfused": "as onednn, without FMA (SSE4.1, AVX)",
        "mlas": "1/2 + x a(x²) / b(x²), a quotient of polynomials (ONNX Runtime)",
    }

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def recordable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.pointwise import sigmoid

        return sigmoid(inputs[0], threads)

    def replay(self, formula: str, *inputs: F32, threads: int = 1, total: Registers | None = None) -> F32:
        from refnet.kernels import formulas as kernels

        self._one_of(formula, self.formulas)
        whose = {
            "sleef": kernels.SLEEF,
            "glibc": kernels.GLIBC,
            "glibc-unfused": kernels.GLIBC_UNFUSED,
            "onednn": kernels.ONEDNN,
            "onednn-unfused": kernels.ONEDNN_UNFUSED,
            "mlas": kernels.MLAS_512,
        }
        return kernels.sigmoid(inputs[0], whose[formula], threads)

    def golden(self, *inputs: F32, threads: int = 1, refine_count: RefineCount | None = None) -> F32:
        return exact_sigmoid(type(self).__name__, inputs[0], threads, refine_count)

    def bound(self, *inputs: Interval) -> Interval:
        (x,) = inputs
        return sigmoid_bound(x)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 3 * inputs[0].size)


@dataclass(frozen=True, repr=False)
class Add(Op):
    """y = x0 + x1 + ... + x(n-1), all of one shape; with `broadcast` they stretch to a common one

    Plain: left to right. With two inputs there is one right result.

    Bound, any order: gamma(n - 1) * sum |xi|; additions do not underflow. Inputs that are sums may be joined
    in one (`rounding.joined`): an accelerator adds into the convolution's accumulator.

    Golden: of two, IEEE's addition. Of more, the exact sum, rounded once: an exact 0 is +0, a NaN or
    infinities of both signs make NaN. The float64 sum is off by at most (n + 2) U64 * (sum |x|): sum_error.

    Formulas: see `formulas`; for two inputs they are one.

    Source: MXNet add_n and elemwise_add, torch.add, ONNX Add and Sum.
    """

    roles: ClassVar[tuple[str, ...]] = ("data",)
    formulas: ClassVar[Mapping[str, str]] = {
        "left": "((x0 + x1) + x2) + ... (ONNX Runtime's Sum; MXNet's add_n of five and more, or by oneDNN)",
        "right": "x0 + (x1 + (x2 + ...)) (MXNet's add_n of three and four)",
    }

    count: int = 2
    broadcast: bool = False
    constants: Shapes = ()

    @property
    def exactly_specified(self) -> bool:
        return self.count <= 2

    def weight_roles(self) -> tuple[str, ...]:
        return ("constant",) * len(self.constants)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return tuple(map(TensorType, self.constants))

    def nan_propagates(self, *weights: F32) -> bool:
        return all(bool(np.isfinite(w).all()) for w in weights)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, self.count)
        self._expect(self.count >= 1, "count >= 1")
        self._expect(inputs[self.count - len(self.constants) :] == self.weight_types(), f"{list(inputs)}")
        if self.broadcast:
            return stretched(self, *inputs)
        self._expect(len({x.shape for x in inputs}) == 1, f"shapes differ: {list(inputs)}")
        return inputs[0]

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        terms: Sequence[F32] = np.broadcast_arrays(*inputs) if self.broadcast else inputs
        with np.errstate(all="ignore"):  # inf - inf is NaN here as in the frameworks
            total = np.asarray(terms[0] + terms[1]) if self.count > 1 else terms[0].copy()
            for x in terms[2:]:
                total += x
        return total

    def replay(self, formula: str, *inputs: F32, threads: int = 1, total: Registers | None = None) -> F32:
        self._one_of(formula, self.formulas)
        return self.run(*(inputs if formula == "left" else inputs[::-1]), threads=threads)

    def golden(self, *inputs: F32, threads: int = 1, refine_count: RefineCount | None = None) -> F32:
        if self.exactly_specified:
            return self.run(*inputs, threads=threads)
        return exact_sum(type(self).__name__, np.stack(np.broadcast_arrays(*inputs)), threads, refine_count)

    def bound(self, *inputs: Interval) -> Interval:
        return sum_bound(inputs)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, (self.count - 1) * self.type(*inputs).size)


@dataclass(frozen=True, repr=False)
class _Two(Op):
    """What the ops of two stretching operands share: y = a op b, one IEEE operation, one right result.

    constants: the shape of b, if it is a weight. swapped: the first input is b and the second, the weight
    where there is one, is a.
    """

    roles: ClassVar[tuple[str, ...]] = ("data", "data")
    constants: Shapes = ()

    @property
    def exactly_specified(self) -> bool:
        return True

    def weight_roles(self) -> tuple[str, ...]:
        return ("constant",) * len(self.constants)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return tuple(map(TensorType, self.constants))

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2)
        self._expect(inputs[2 - len(self.constants) :] == self.weight_types(), f"weights are {inputs[1]!r}")
        return stretched(self, *inputs)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size)


@dataclass(frozen=True, repr=False)
class Mul(_Two):
    """y = a * b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    One multiplication: one right result.

    Bound: |a| rb + ra |b| + ra rb + U |a b| + ETA/2 for radii ra and rb.

    Source: MXNet broadcast_mul and elemwise_mul, torch.mul, ONNX Mul.
    """

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        with np.errstate(all="ignore"):
            y = np.asarray(np.multiply(*inputs))  # NumPy makes a scalar of rank 0
        return y

    def bound(self, *inputs: Interval) -> Interval:
        a, b = inputs
        center = a.center * b.center
        spread = np.abs(a.center) * b.radius + a.radius * b.magnitude
        total = a.magnitude * b.magnitude
        radius = spread + (gamma(1) + 2 * U64) * total + ETA / 2
        return outward(center, radius, total)


@dataclass(frozen=True, repr=False)
class Sub(_Two):
    """y = a - b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    swapped: b is the first input and a the second. One subtraction: one right result.

    Bound: ra + rb + U (|a| + |b|) for radii ra and rb; differences do not underflow.

    Source: torch.sub, ONNX Sub.
    """

    swapped: bool = False

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            y = np.asarray(np.subtract(a, b))
        return y

    def bound(self, *inputs: Interval) -> Interval:
        a, b = inputs[::-1] if self.swapped else inputs
        return sum_bound((a, Interval(-b.center, b.radius, b.sum)))


@dataclass(frozen=True, repr=False)
class Div(_Two):
    """y = a / b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    swapped: b is the first input and a the second. One division: one right result.

    Bound: with |b| > rb, inputs in the radii ra and rb give quotients within
    (ra + |a / b| rb) / (|b| - rb) of a / b; then U of the largest and ETA/2. Nothing is promised elsewhere.

    Source: torch.div, ONNX Div.
    """

    swapped: bool = False

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            y = np.asarray(np.divide(a, b))
        return y

    def bound(self, *inputs: Interval) -> Interval:
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            center = a.center / b.center
            least = np.abs(b.center) - b.radius
            spread = np.where(least > 0, (a.radius + np.abs(center) * b.radius) / least, np.nan)
            total = np.abs(center) + spread
            radius = spread + (gamma(1) + 4 * U64) * total + ETA / 2
        return outward(center, radius, total)


def stretched(op: Op, *inputs: TensorType) -> TensorType:
    """The type that NumPy's broadcasting gives inputs of these types; GraphError where they do not fit."""
    try:
        return TensorType(tuple(np.broadcast_shapes(*(x.shape for x in inputs))))
    except ValueError:
        raise GraphError(f"{op!r}: shapes do not broadcast: {list(inputs)}") from None


def sum_bound(inputs: tuple[Interval, ...]) -> Interval:
    """Bound of a float32 sum of the inputs in any order; of those that are sums, joined in one as well."""
    center, total, spread = inputs[0].center + 0.0, inputs[0].magnitude, inputs[0].radius
    for x in inputs[1:]:
        center = center + x.center
        total = total + x.magnitude
        spread = spread + x.radius
    n = len(inputs)
    radius = spread + gamma(n - 1) * total
    if all(x.sum is None for x in inputs):
        return outward(
            center, radius + n * U64 * total, total, n, Sum(total, n - 1, n, float(total.max(initial=0.0)))
        )
    radius_joined, as_sum = joined(inputs)
    radius = np.maximum(radius, radius_joined) + n * U64 * total
    return outward(center, radius, np.maximum(total, as_sum.size), as_sum.roundings, as_sum)


def exact_sum(op: str, terms: F32, threads: int, refine_count: RefineCount | None) -> F32:
    """The correctly rounded sum over the first axis of terms."""
    from refnet.kernels.accumulator import decide_sums, sum_exactly
    from refnet.kernels.team import parallel_for

    count = terms.shape[0]
    flat = np.ascontiguousarray(terms).reshape(count, -1)
    y, at = decide_sums(flat, error_factor(count), threads)

    def refine(at: npt.NDArray[np.int64], y: F32) -> None:
        settled = np.empty(at.size, np.float32)
        parallel_for(sum_exactly, at.size, threads, flat[:, at].astype(np.float64), settled)
        y.reshape(-1)[at] = settled

    return finish(op, y, at, refine, refine_count).reshape(terms.shape[1:])


def exact_sigmoid(op: str, x: F32, threads: int, refine_count: RefineCount | None) -> F32:
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

    return round_or_refine(op, center, center * 2.0**-48, refine, threads, refine_count)
