"""Activations made of the elementary functions: softplus, SiLU, mish, GELU, ELU and its kin, hard ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.engine import Engine
from refnet.core.op import F32, F64, Interval, TensorType
from refnet.core.rounding import ETA, U64, U, exp_relative, gamma, outward
from refnet.ops import activation_formulas, libraries
from refnet.ops.function import LIBRARY, LOST, Function, decimal_erf, decimal_pi
from refnet.ops.sigmoid import sigmoid_bound


@dataclass(frozen=True, repr=False)
class Softplus(Function):
    """y = ln(1 + e ** x)

    Plain: max(x, 0) + ln(1 + e ** -|x|) in float64, rounded once.

    Bound: forms with ln(1 + e) of a rounded sum are off by 2 U whatever y is. oneDNN computes n ln 2 +
    ln(2**-n + e ** r), x = n ln 2 + r, where numbers of the size |x| cancel: gamma(2) |x|, up to 128.
    Besides, an exp's relative error and a logarithm's LIBRARY, twice: (2 LIBRARY + exp_relative(|x|)) |y| +
    LOST, and gamma(2) |y| for sums. PyTorch's y = x above 20 is off by less than U.

    Source: ONNX Softplus, torch.nn.Softplus with beta 1, MXNet Activation act_type=softrelu.
    """

    loop: ClassVar[str] = "softplus"
    error: ClassVar[float] = 2.0**-47
    formula: ClassVar[str] = "ln(1 + e ** x)"
    formulas: ClassVar[Mapping[str, str]] = activation_formulas.SOFTPLUS

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return activation_formulas.softplus(engine, formula, x)

    def real(self, x: Decimal) -> Decimal:
        return max(x, Decimal(0)) + (1 + (-abs(x)).exp()).ln()

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        relative = 2 * LIBRARY + exp_relative(np.minimum(x.magnitude, 128.0))
        sums = gamma(2) * (size + np.minimum(x.magnitude, 128.0))
        return relative * np.minimum(size, 128.0) + sums + 2 * U + LOST


@dataclass(frozen=True, repr=False)
class Mish(Function):
    """y = x tanh(ln(1 + e ** x))

    Plain: x w / (w + 2) with w = e ** x (e ** x + 2) in float64, rounded once.

    Bound: |x| times softplus's 2 U, an exp's relative error, and LIBRARY for a logarithm and a tanh, twice.

    Source: ONNX Mish, torch.nn.Mish.
    """

    loop: ClassVar[str] = "mish"
    error: ClassVar[float] = 2.0**-46
    formula: ClassVar[str] = "x tanh(ln(1 + e ** x))"
    minimum: ClassVar[tuple[float, float, float] | None] = (-1.193, -1.192, -0.308844)
    work: ClassVar[int] = 8
    formulas: ClassVar[Mapping[str, str]] = activation_formulas.MISH

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return activation_formulas.mish(engine, formula, x)

    def real(self, x: Decimal) -> Decimal:
        power = x.exp()
        part = power * (power + 2)
        return x * part / (part + 2)

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        relative = 4 * LIBRARY + exp_relative(np.minimum(x.magnitude, 128.0))
        return relative * size + (2 * U + LOST) * x.magnitude


@dataclass(frozen=True, repr=False)
class Silu(Function):
    """y = x / (1 + e ** -x) = x sigmoid(x), also called Swish

    Plain: the quotient in float64, rounded once.

    Bound: the product of x and a sigmoid, whose error is that of ops/sigmoid.py: |x| times it, and gamma(2)
    |y|. Where e ** -x overflows, y is 0 instead of x e ** x: LOST |x|.

    Source: torch.nn.SiLU, ONNX Swish with alpha 1; exported files have Sigmoid and Mul.
    """

    loop: ClassVar[str] = "silu"
    error: ClassVar[float] = 2.0**-48
    formula: ClassVar[str] = "x / (1 + e ** -x)"
    formulas: ClassVar[Mapping[str, str]] = {
        "sleef": "x / (1 + e), e = SLEEF's expf(-x) (PyTorch with AVX2 or AVX-512)",
        "glibc": "x / (1 + e), e = glibc's expf(-x) with FMA",
        "mlas": "x * sigmoid(x), MLAS's quotient of polynomials",
    }
    minimum: ClassVar[tuple[float, float, float] | None] = (-1.279, -1.278, -0.278465)
    halves: ClassVar[bool] = True

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        if formula == "mlas":
            return x * engine.sigmoid_by(x, "mlas-avx512")
        return x / (np.float32(1) + engine.exponential_by(-x, formula))

    def real(self, x: Decimal) -> Decimal:
        return x / (1 + (-x).exp())

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        factor = sigmoid_bound(x).radius - np.minimum(x.radius / 4, 1.0)  # without the input's radius
        return np.maximum(factor, 0.0) * x.magnitude * (1 + 2.0**-20) + gamma(2) * size + LOST * x.magnitude


GELU = 2.0**-20
"""Assumed absolute error of the erf or the tanh in a framework's GELU, its argument's roundings included.
oneDNN's polynomials, which PyTorch uses with AVX-512, are off by up to 2**-20.7."""


@dataclass(frozen=True, repr=False)
class Gelu(Function):
    """y = x Phi(x) = x/2 (1 + erf(x / sqrt 2)), or with `tanh` x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3)))

    sqrt(2/pi) and 0.044715 are these numbers, not their float32.

    Plain: gelu of loops/error_function.py or gelu_tanh of loops/real.py in float64, rounded once.

    Bound: 1 + erf cancels for negative x, so its error is absolute: |x|/2 GELU + gamma(4) |y| + LOST |x|. x
    times 2 or x**2 may overflow before the result does.

    Source: ONNX Gelu, torch.nn.GELU, MXNet LeakyReLU act_type=gelu.
    """

    tanh: bool = False

    halves: ClassVar[bool] = True
    work: ClassVar[int] = 20
    assumption: ClassVar[str] = "the bound assumes an erf or tanh of absolute error 2^-20"
    formulas: ClassVar[Mapping[str, str]] = activation_formulas.GELU

    @property
    def menu(self) -> tuple[str, ...]:
        others = activation_formulas.ERF_ONLY if self.tanh else activation_formulas.TANH_ONLY
        return tuple(name for name in self.formulas if name not in others)

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return activation_formulas.gelu(engine, formula, x, self.tanh)

    @property
    def minimum(self) -> tuple[float, float, float]:  # type: ignore[override]
        """The two differ a little."""
        return (-0.753, -0.752, -0.170041) if self.tanh else (-0.752, -0.751, -0.169972)

    @property
    def loop(self) -> str:  # type: ignore[override]
        """Which of the two."""
        return "gelu-tanh" if self.tanh else "gelu"

    @property
    def error(self) -> float:  # type: ignore[override]
        """Of that loop."""
        return 2.0**-41 if self.tanh else 2.0**-44

    @property
    def formula(self) -> str:  # type: ignore[override]
        """In words."""
        inner = "tanh(sqrt(2/pi) (x + 0.044715 x**3))" if self.tanh else "erf(x / sqrt 2)"
        return f"x/2 (1 + {inner})"

    def real(self, x: Decimal) -> Decimal:
        if self.tanh:
            inner = (2 / decimal_pi()).sqrt() * (x + Decimal("0.044715") * x**3)
            return x / (1 + (-2 * inner).exp())
        if abs(x) > 16:
            return x if x > 0 else x * Decimal(10) ** -60  # beyond, y is no other float32 than x and -0
        return x * (1 + decimal_erf(x / Decimal(2).sqrt())) / 2

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        return (GELU / 2 + LOST) * x.magnitude + gamma(4) * size

    def largest(self, x: Interval, size: F64) -> F64:
        return 2 * x.magnitude


@dataclass(frozen=True, repr=False)
class Elu(Function):
    """y = scale x for x > 0, scale alpha (e ** (x / width) - 1) otherwise

    alpha, scale, width: float32. Scale 1 and width 1 is ELU, width 1 SELU, scale 1 and width alpha CELU.

    Plain: in float64, e ** r - 1 without cancellation, rounded once.

    Bound: for x > 0 one product, gamma(1) |y| + ETA/2. Otherwise |scale alpha| times the error of e ** r, at
    most 1, and of its difference from 1, which frameworks without expm1 round: exp_relative(|x / width|) + 2
    U + LOST; and LIBRARY |y|, gamma(4) |y| for the products and x / width.

    Source: ONNX Elu, Selu, Celu; torch.nn.ELU, SELU, CELU; MXNet LeakyReLU act_type=elu, selu.
    """

    alpha: float = 1.0
    scale: float = 1.0
    width: float = 1.0

    loop: ClassVar[str] = "elu"
    error: ClassVar[float] = 2.0**-46
    formula: ClassVar[str] = "scale x, or scale alpha (e ** (x / width) - 1)"
    formulas: ClassVar[Mapping[str, str]] = activation_formulas.ELU

    @property
    def menu(self) -> tuple[str, ...]:
        simple = self.scale == self.width == 1
        return tuple(n for n in self.formulas if simple or n not in activation_formulas.OF_SIMPLE_ELU)

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return activation_formulas.elu(engine, formula, x, self)

    @property
    def parameters(self) -> tuple[float, ...]:
        return self.scale, self.scale * self.alpha, self.width

    def type(self, *inputs: TensorType) -> TensorType:
        self._expect(self.width > 0, "width must be positive")
        self._expect(self.alpha >= 0 and self.scale >= 0, "alpha and scale must not be negative")
        return super().type(*inputs)

    def real(self, x: Decimal) -> Decimal:
        if x > 0:
            return Decimal(self.scale) * x
        return Decimal(self.scale) * Decimal(self.alpha) * ((x / Decimal(self.width)).exp() - 1)

    def rational(self, x: Fraction) -> Fraction | None:
        return Fraction(self.scale) * x if x > 0 else None

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        power = np.minimum(np.abs(x.center) + x.radius, 128.0 * self.width) / self.width
        below = abs(self.scale * self.alpha) * (exp_relative(power) + 2 * U + LOST) + LIBRARY * size
        return gamma(4) * size + np.where(x.center - x.radius > 0, 0.0, below)


@dataclass(frozen=True, repr=False)
class Softsign(Function):
    """y = x / (1 + |x|)

    Plain: the sum and the quotient in float64, rounded once; the value is rational.

    Bound: a sum and a quotient, or a reciprocal and a product: gamma(4) |y| + ETA.

    Source: ONNX Softsign, torch.nn.Softsign, MXNet softsign and Activation act_type=softsign.
    """

    loop: ClassVar[str] = "softsign"
    error: ClassVar[float] = 3 * U64
    formula: ClassVar[str] = "x / (1 + |x|)"
    assumption: ClassVar[str] = ""
    formulas: ClassVar[Mapping[str, str]] = {
        "quotient": "x / (1 + |x|) (PyTorch, MXNet)",
        "reciprocal": "x * (1 / (1 + |x|)) (ONNX Runtime)",
    }

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        one = np.float32(1)
        total: F32 = one + np.abs(x)
        return x / total if formula == "quotient" else x * (one / total)

    def real(self, x: Decimal) -> Decimal:
        return x / (1 + abs(x))

    def rational(self, x: Fraction) -> Fraction | None:
        return x / (1 + abs(x))

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        return gamma(4) * size + LOST


SIXTH = float(np.float32(1 / 6))


@dataclass(frozen=True, repr=False)
class HardSigmoid(Function):
    """y = min(max(alpha x + beta, 0), 1), for float32 alpha and beta

    Plain and golden: alpha x is exact in float64, so there the sum is rounded once; then to float32.

    Bound: where alpha x + beta may lie, clipped: product, sum, and that alpha stands for 1/6, which
    frameworks may divide by instead, gamma(4) (|alpha x| + |beta|). The clip only brings numbers closer.

    Source: ONNX HardSigmoid, torch.nn.Hardsigmoid (alpha 1/6, beta 1/2), MXNet hard_sigmoid.
    """

    alpha: float = float(np.float32(0.2))
    beta: float = 0.5

    loop: ClassVar[str] = "hard-sigmoid"
    error: ClassVar[float] = 2 * U64
    formula: ClassVar[str] = "min(max(alpha x + beta, 0), 1)"
    limits: ClassVar[bool] = True
    assumption: ClassVar[str] = ""
    activation: ClassVar[bool] = True
    formulas: ClassVar[Mapping[str, str]] = {
        "linear": "alpha x + beta, product and sum rounded, clipped (ONNX Runtime, MXNet)",
        "sixth": "min(max(x + 3, 0), 6) / 6 (PyTorch), for alpha 1/6 and beta 1/2",
    }

    @property
    def menu(self) -> tuple[str, ...]:
        sixth = self.alpha == SIXTH and self.beta == 0.5
        return ("linear", "sixth") if sixth else ("linear",)

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        if formula == "sixth":
            return libraries.clipped(x + np.float32(3), 0, 6) / np.float32(6)
        return libraries.clipped(np.float32(self.alpha) * x + np.float32(self.beta), 0, 1)

    @property
    def parameters(self) -> tuple[float, ...]:
        return self.alpha, self.beta

    def real(self, x: Decimal) -> Decimal:
        return min(max(Decimal(self.alpha) * x + Decimal(self.beta), Decimal(0)), Decimal(1))

    def rational(self, x: Fraction) -> Fraction | None:
        return min(max(Fraction(self.alpha) * x + Fraction(self.beta), Fraction(0)), Fraction(1))

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        """Before the clip."""
        return (gamma(4) + 4 * U64) * (abs(self.alpha) * x.magnitude + abs(self.beta)) + ETA

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        with np.errstate(all="ignore"):
            inner = self.alpha * x.center + self.beta
            off = abs(self.alpha) * x.radius + self.inaccuracy(x, inner)
            y, low, high = (np.clip(v, 0.0, 1.0) for v in (inner, inner - off, inner + off))
            y = np.where(np.isinf(x.center), self.values(x.center, engine), y)
            radius = np.where(np.isinf(x.center), 0.0, np.maximum(high - y, y - low))
            return outward(y, radius, np.where(np.isnan(radius), np.nan, 1.0))


@dataclass(frozen=True, repr=False)
class HardSwish(Function):
    """y = x min(max(x + 3, 0), 6) / 6

    Plain: x (x + 3) / 6 between -3 and 3, in float64, three roundings, then one; the value is rational.

    Bound: with h = x/6 + 1/2 clipped, computed by a sum and a quotient or a product with 1/6: between -3 and
    3 h is off by gamma(4), elsewhere exact: |x| gamma(4) there, and gamma(3) |y|. 6 x may overflow.

    Source: ONNX HardSwish, torch.nn.Hardswish.
    """

    loop: ClassVar[str] = "hard-swish"
    error: ClassVar[float] = 4 * U64
    formula: ClassVar[str] = "x min(max(x + 3, 0), 6) / 6"
    minimum: ClassVar[tuple[float, float, float] | None] = (-1.5, -1.5, -0.375)
    assumption: ClassVar[str] = ""
    formulas: ClassVar[Mapping[str, str]] = {
        "linear": "x * h, h = (1/6) x + 1/2, product and sum rounded, clipped (ONNX Runtime)",
        "sixth": "x * min(max(x + 3, 0), 6) / 6, from the left (PyTorch)",
    }

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        if formula == "sixth":
            return x * libraries.clipped(x + np.float32(3), 0, 6) / np.float32(6)
        return x * libraries.clipped(np.float32(SIXTH) * x + np.float32(0.5), 0, 1)

    def real(self, x: Decimal) -> Decimal:
        return x * min(max(x + 3, Decimal(0)), Decimal(6)) / 6

    def rational(self, x: Fraction) -> Fraction | None:
        return x * min(max(x + 3, Fraction(0)), Fraction(6)) / 6

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        near = (x.center - x.radius < 3.01) & (x.center + x.radius > -3.01)
        return gamma(3) * size + np.where(near, gamma(4) * x.magnitude, 0.0) + ETA

    def largest(self, x: Interval, size: F64) -> F64:
        return 6 * x.magnitude
