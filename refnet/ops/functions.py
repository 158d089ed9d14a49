"""The elementary functions as ops: exp, ln, tanh, erf, square root, power, absolute value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.core.rounding import EXP_ABSOLUTE, EXP_ASSUMED, exp_relative, gamma, outward
from refnet.ops import activation_formulas, libraries
from refnet.ops.function import LIBRARY, LOST, Function, decimal_erf


@dataclass(frozen=True, repr=False)
class Exp(Function):
    """y = e ** x

    Plain: loops/functions.py's exp, rounded once.

    Bound: exp_relative(|x|) |y| + EXP_ABSOLUTE, what is assumed of a framework's exp.

    Source: ONNX Exp, torch.exp, MXNet exp.
    """

    loop: ClassVar[str] = "exp"
    error: ClassVar[float] = 2.0**-48
    formula: ClassVar[str] = "e ** x"
    limits: ClassVar[bool] = True
    assumption: ClassVar[str] = EXP_ASSUMED
    formulas: ClassVar[Mapping[str, str]] = {
        "sleef": "SLEEF's expf",
        "glibc": "glibc's expf with FMA (MXNet's exp)",
        "glibc-unfused": "glibc's expf without FMA",
        "mlas": "MLAS's exp (ONNX Runtime)",
    }

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return engine.exponential_by(x, "mlas-avx512" if formula == "mlas" else formula)

    def real(self, x: Decimal) -> Decimal:
        return x.exp()

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        return size * exp_relative(np.minimum(x.magnitude, 128.0)) + EXP_ABSOLUTE


@dataclass(frozen=True, repr=False)
class Log(Function):
    """y = ln x

    -inf for zeros, NaN for negative numbers. ln x is irrational but for x = 1.

    Plain: the series of loops/real.py in float64, rounded once.

    Bound: LIBRARY |y|: a library's logarithm has no other error near x = 1 than elsewhere.

    Source: ONNX Log, torch.log, MXNet log.
    """

    loop: ClassVar[str] = "log"
    error: ClassVar[float] = 2.0**-48
    formula: ClassVar[str] = "ln x"
    formulas: ClassVar[Mapping[str, str]] = {
        "eigen": "e ln 2 + f P(f) / Q(f), Eigen's log (ONNX Runtime)",
        "glibc": "glibc's logf with FMA (ONNX Runtime one by one)",
    }

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return engine.function_by(x, f"{formula}-log")

    def real(self, x: Decimal) -> Decimal:
        return x.ln()

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        return LIBRARY * size + LOST


@dataclass(frozen=True, repr=False)
class Tanh(Function):
    """y = tanh x = (e ** 2x - 1) / (e ** 2x + 1)

    Plain: with t = e ** 2|x| - 1 in float64, t / (t + 2), rounded once; the sign of x.

    Bound: LIBRARY |y| + LOST: a library's function, or MLAS's quotient of polynomials.

    Source: ONNX Tanh, torch.tanh, MXNet tanh and Activation act_type=tanh.
    """

    loop: ClassVar[str] = "tanh"
    error: ClassVar[float] = 2.0**-47
    formula: ClassVar[str] = "tanh x"
    limits: ClassVar[bool] = True
    activation: ClassVar[bool] = True
    formulas: ClassVar[Mapping[str, str]] = {
        "mlas": "x P(x²) / Q(x²), x cut at 9 (ONNX Runtime with FMA)",
        "glibc": "glibc 2.36's tanhf (MXNet's tanh)",
    }

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return libraries.mlas_tanh(engine, x) if formula == "mlas" else engine.function_by(x, "glibc-tanh")

    def real(self, x: Decimal) -> Decimal:
        power = (2 * x).exp()
        return (power - 1) / (power + 1)

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        return LIBRARY * size + LOST


@dataclass(frozen=True, repr=False)
class Erf(Function):
    """y = erf x = 2 / sqrt(pi) * integral of e ** -t**2 from 0 to x

    Plain: the polynomial of loops/error_function.py in float64, rounded once.

    Bound: LIBRARY |y| + LOST.

    Source: ONNX Erf, torch.erf, MXNet erf.
    """

    loop: ClassVar[str] = "erf"
    error: ClassVar[float] = 2.0**-47
    formula: ClassVar[str] = "erf x"
    limits: ClassVar[bool] = True
    work: ClassVar[int] = 20
    formulas: ClassVar[Mapping[str, str]] = {
        "mlas": "|x| + |x| P(x²), beyond 0.92 1 - e^-(|x| + |x| P(|x|)) (ONNX Runtime with FMA)",
        "glibc": "glibc 2.36's erff (MXNet's erf)",
    }

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return libraries.mlas_erf(engine, x) if formula == "mlas" else engine.function_by(x, "glibc-erf")

    def real(self, x: Decimal) -> Decimal:
        if abs(x) > 12:
            return Decimal(1 if x > 0 else -1)  # up to 10**-63
        return decimal_erf(x)

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        return LIBRARY * size + LOST


@dataclass(frozen=True, repr=False)
class Sqrt(Op):
    """y = sqrt x, NaN below 0; sqrt(-0) is -0

    Plain: IEEE's square root, which is correctly rounded, so golden has the same bits.

    Bound: PyTorch's is a library's function and not correctly rounded: LIBRARY |y| + LOST. For x within R of
    c, sqrt is off by at most sqrt(c) - sqrt(c - R).

    Source: ONNX Sqrt, torch.sqrt, MXNet sqrt.
    """

    assumption: ClassVar[str] = Function.assumption
    formulas: ClassVar[Mapping[str, str]] = {"ieee": "IEEE's square root (ONNX Runtime, MXNet)"}

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        return self.run(*inputs, engine=engine)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            y: F32 = np.sqrt(inputs[0])
        return y

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        return self.run(*inputs, engine=exact.engine)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = inputs[0][at]
        y = self.run(np.full((1,), x), engine=exact.engine)[0]
        if not 0 <= x < np.inf:
            return Derivation((), y)
        with forty_digits():
            return Derivation(
                (given("x", "the input element", x), Step("y", "sqrt x", decimal(x).sqrt(), y)), y
            )

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        with np.errstate(all="ignore"):
            y = np.sqrt(x.center)
            move = np.where(x.radius == 0, 0.0, y - np.sqrt(x.center - x.radius))
            size = y + move
            return outward(y, move + (LIBRARY + 2.0**-48) * size + LOST, size)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


@dataclass(frozen=True, repr=False)
class Abs(Op):
    """y = |x|

    Only the sign's bit changes: one right result.

    Bound: ||a| - |b|| <= |a - b|.

    Source: ONNX Abs, torch.abs, MXNet abs.
    """

    @property
    def exactly_specified(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        y: F32 = np.abs(inputs[0])
        return y

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = inputs[0][at]
        if not np.isfinite(x):
            return Derivation((), np.abs(x))
        y = Step("y", "|x|", abs(Fraction(float(x))), np.abs(x))
        return Derivation((given("x", "the input element", x), y), np.abs(x))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        return outward(np.abs(x.center), x.radius, np.zeros_like(x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


@dataclass(frozen=True, repr=False)
class Power(Function):
    """y = x ** exponent, for one constant float32 exponent that is not 0

    NaN for negative x, unless the exponent is whole; then an odd one keeps the sign. The square is one
    multiplication: only one right result.

    Plain: e ** (exponent ln |x|) in float64, rounded once; the square x * x.

    Golden: for an odd |n| in exponent = n / 2**j, x ** exponent is rational only if the odd part a of x = a
    2**e is a 2**j-th power, and no midpoint unless n > 0 or a = 1, and the power's odd part is below 2**26.

    Bound: |y| (LIBRARY + gamma(|exponent|)) + LOST: a library's pow, or as many products, perhaps their
    reciprocal; a reciprocal of a product below float32's normal numbers has no bound.

    Source: ONNX Pow, torch.pow, MXNet _power_scalar, square.
    """

    exponent: float

    loop: ClassVar[str] = "power"
    error: ClassVar[float] = 2.0**-42
    work: ClassVar[int] = 10
    formulas: ClassVar[Mapping[str, str]] = activation_formulas.POWER

    @property
    def menu(self) -> tuple[str, ...]:
        if self.exponent == 2:
            return ()
        return ("products", "glibc") if self.exponent in activation_formulas.PRODUCTS else ("glibc",)

    @property
    def needs_recipe(self) -> bool:
        return not self.exactly_specified

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        return activation_formulas.power(engine, formula, x, *self.parameters)

    @property
    def formula(self) -> str:  # type: ignore[override]
        """In words."""
        return f"x ** {self.exponent!r}"

    @property
    def minimum(self) -> tuple[float, float, float] | None:  # type: ignore[override]
        """An even power's is at 0."""
        return (0.0, 0.0, 0.0) if self._whole % 2 == 0 else None

    @property
    def exactly_specified(self) -> bool:
        return self.exponent == 2

    @property
    def _whole(self) -> float:
        """The exponent if it is whole, else 1/2."""
        return self.exponent if self.exponent.is_integer() else 0.5

    @property
    def parameters(self) -> tuple[float, ...]:
        odd = {0.0: 0.0, 1.0: 1.0}.get(self._whole % 2, -1.0)
        return self.exponent, odd

    def type(self, *inputs: TensorType) -> TensorType:
        self._expect(self.exponent != 0, "exponent must not be 0")
        return super().type(*inputs)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        if self.exponent == 2:
            with np.errstate(all="ignore"):
                return inputs[0] * inputs[0]
        return super().run(*inputs, engine=engine)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        if self.exponent == 2:
            return self.run(*inputs, engine=exact.engine)
        return super().golden(*inputs, exact=exact)

    def real(self, x: Decimal) -> Decimal:
        value = (Decimal(self.exponent) * abs(x).ln()).exp()
        return -value if x < 0 and self._whole % 2 == 1 else value

    def rational(self, x: Fraction) -> Fraction | None:
        n, degree = self.exponent.as_integer_ratio()
        size, sign = abs(x), -1 if x < 0 and n % 2 else 1
        if x == 0 or (x < 0 and degree > 1):
            return None
        odd = size.numerator
        two = (odd & -odd).bit_length() - 1
        odd >>= two
        two -= size.denominator.bit_length() - 1
        while degree > 1:
            root = math.isqrt(odd)
            if root * root != odd or two % 2:
                return None
            odd, two, degree = root, two // 2, degree // 2
        if odd > 1 and not 0 < n * math.log2(odd) < 26:
            return None
        if abs(two * n) > 400:
            return None  # far beyond float32
        return Fraction(sign * odd ** max(n, 0)) * Fraction(2) ** (two * n)

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        if self.exponent == 2:
            return gamma(1) * size + LOST
        return (LIBRARY + gamma(min(abs(self.exponent), 2.0**20))) * size + LOST

    def largest(self, x: Interval, size: F64) -> F64:
        if self.exponent > 0:
            return size
        inside = np.abs(x.center) <= x.radius  # 0 may be there, the pole
        return np.where(inside, np.inf, 8 * size)
