"""Ops that work element by element: relu, clip, sigmoid, addition, subtraction, multiplication, division.

Sums and products of two broadcast as in NumPy. Their trailing inputs may be weights; `constants` has their
shapes. Sigmoid's bound is in sigmoid.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import numpy as np

from refnet.core.engine import Engine, Places
from refnet.core.errors import GraphError
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, FoldableSum, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.core.rounding import ETA, EXP_ASSUMED, U64, gamma, joined, outward
from refnet.ops.sigmoid import sigmoid_bound

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, repr=False)
class Relu(Op):
    """y = x if x > 0, +0 if x <= 0, NaN if x is NaN

    Only one right result, except where frameworks differ: the sign of a zero (PyTorch and ONNX Runtime keep
    a -0) and NaN (MXNet's Activation turns it into +0, its nd.relu keeps it).

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

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.relu(inputs[0])

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._one_of(formula, self.formulas)
        if formula == "plain":
            return self.run(*inputs, engine=engine)
        return engine.relu_by(inputs[0], formula)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        return Interval(np.maximum(x.center, 0.0), np.where(np.isnan(x.center), np.inf, x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


@dataclass(frozen=True, repr=False)
class Clip(Op):
    """y = min(max(x, low), high)

    Only one right result, except where frameworks differ: the sign of a zero, and NaN. If low > high, y is
    high.

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

    def run(self, *inputs: F32, engine: Engine) -> F32:
        y: F32 = np.minimum(np.maximum(inputs[0], np.float32(self.low)), np.float32(self.high))
        return y

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
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
    value is transcendental and no midpoint, so decimals of growing precision decide what is open.

    Formulas, each identical to the framework's on all 2**32 inputs (docs/numerics.md): see `formulas` and
    loops/libm: sleef.py, glibc.py, onednn.py, mlas.py. PyTorch computes a thread's share in pairs of vectors,
    and the remaining elements one by one with glibc.

    Source: MXNet Activation act_type=sigmoid, torch.sigmoid.
    """

    assumption: ClassVar[str] = EXP_ASSUMED
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

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.sigmoid(inputs[0])

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._one_of(formula, self.formulas)
        return engine.sigmoid_by(inputs[0], "mlas-avx512" if formula == "mlas" else formula)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        return exact_sigmoid(type(self).__name__, inputs[0], exact)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        return sigmoid_bound(x)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 3 * inputs[0].size)


@dataclass(frozen=True, repr=False)
class Add(Op):
    """y = x0 + x1 + ... + x(n-1), all of one shape; with `broadcast` they broadcast to a common one

    Plain: left to right. With two inputs there is only one right result.

    Bound, any order: gamma(n - 1) * sum |xi|; additions do not underflow. Inputs that are sums may be joined
    into one (`rounding.joined`): an accelerator adds into the convolution's accumulator.

    Golden: of two, IEEE's addition. Of more, the exact sum, rounded once: an exact 0 is +0, a NaN or
    infinities of both signs make NaN. The float64 sum is off by at most (n + 2) U64 * (sum |x|): sum_error.

    Formulas: see `formulas`; for two inputs they are the same.

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

    def run(self, *inputs: F32, engine: Engine) -> F32:
        terms: Sequence[F32] = np.broadcast_arrays(*inputs) if self.broadcast else inputs
        with np.errstate(all="ignore"):  # inf - inf is NaN here as in the frameworks
            total = np.asarray(terms[0] + terms[1]) if self.count > 1 else terms[0].copy()
            for x in terms[2:]:
                total += x
        return total

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._one_of(formula, self.formulas)
        return self.run(*(inputs if formula == "left" else inputs[::-1]), engine=engine)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        if self.exactly_specified:
            return self.run(*inputs, engine=exact.engine)
        return exact.sum(type(self).__name__, np.stack(np.broadcast_arrays(*inputs)))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        return sum_bound(inputs)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, (self.count - 1) * self.type(*inputs).size)


@dataclass(frozen=True, repr=False)
class _Two(Op):
    """Base of the ops with two broadcast operands: y = a op b, one IEEE operation, only one right result.

    constants: the shape of b, if it is a weight. swapped: the first input is b; the second, which is the
    weight if there is one, is a.
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

    One multiplication: only one right result.

    Bound: |a| rb + ra |b| + ra rb + U |a b| + ETA/2 for radii ra and rb.

    Source: MXNet broadcast_mul and elemwise_mul, torch.mul, ONNX Mul.
    """

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            y = np.asarray(np.multiply(*inputs))  # NumPy makes a scalar of rank 0
        return y

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        a, b = inputs
        center = a.center * b.center
        spread = np.abs(a.center) * b.radius + a.radius * b.magnitude
        total = a.magnitude * b.magnitude
        radius = spread + (gamma(1) + 2 * U64) * total + ETA / 2
        return outward(center, radius, total)


@dataclass(frozen=True, repr=False)
class Sub(_Two):
    """y = a - b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    swapped: b is the first input and a the second. One subtraction: only one right result.

    Bound: ra + rb + U (|a| + |b|) for radii ra and rb; differences do not underflow.

    Source: torch.sub, ONNX Sub.
    """

    swapped: bool = False

    def run(self, *inputs: F32, engine: Engine) -> F32:
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            y = np.asarray(np.subtract(a, b))
        return y

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        a, b = inputs[::-1] if self.swapped else inputs
        return sum_bound((a, Interval(-b.center, b.radius, b.sum)))


@dataclass(frozen=True, repr=False)
class Div(_Two):
    """y = a / b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    swapped: b is the first input and a the second. One division: only one right result.

    Bound: with |b| > rb, inputs in the radii ra and rb give quotients within
    (ra + |a / b| rb) / (|b| - rb) of a / b; then U of the largest and ETA/2. Elsewhere there is no bound.

    Source: torch.div, ONNX Div.
    """

    swapped: bool = False

    def run(self, *inputs: F32, engine: Engine) -> F32:
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            y = np.asarray(np.divide(a, b))
        return y

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
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
    """Bound of a float32 sum of the inputs in any order; inputs that are sums may be joined into one."""
    center, total, spread = inputs[0].center + 0.0, inputs[0].magnitude, inputs[0].radius
    for x in inputs[1:]:
        center = center + x.center
        total = total + x.magnitude
        spread = spread + x.radius
    n = len(inputs)
    radius = spread + gamma(n - 1) * total
    if all(x.sum is None for x in inputs):
        as_sum = FoldableSum(total, n - 1, n, float(total.max(initial=0.0)))
        return outward(center, radius + n * U64 * total, total, n, as_sum)
    radius_joined, as_sum = joined(inputs)
    radius = np.maximum(radius, radius_joined) + n * U64 * total
    return outward(center, radius, np.maximum(total, as_sum.size), as_sum.roundings, as_sum)


def exact_sigmoid(op: str, x: F32, exact: Exact) -> F32:
    """The correctly rounded sigmoid; see Sigmoid."""
    with np.errstate(all="ignore"):
        center: F64 = 1.0 / (1.0 + exact.engine.exp(-x.astype(np.float64)))

    def refine(at: Places, y: F32) -> None:
        flat = y.reshape(-1)
        for k in at:
            value = Decimal(float(x.flat[k]))

            def evaluate(value: Decimal = value) -> tuple[Decimal, Decimal]:
                return 1 / (1 + (-value).exp()), Decimal(0)

            flat[k] = exact.by_decimals(evaluate, float(center.flat[k]))

    return exact.round_or_refine(op, center, center * 2.0**-48, refine)
