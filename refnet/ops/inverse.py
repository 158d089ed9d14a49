"""Tangent, the hyperbolic functions and the inverses of both as ops of one number.

Each is a short formula of sums, products, quotients and square roots in float64 around functions of
loops/real.py, in a stated order: the bits are the same on every machine. U is 2**-53. Every error below is
relative, and none is enlarged by what follows, because the functions outside have a condition of at most 1
there:

    log1p     u ln(w) / (w - 1) with w = 1 + u rounded: w - 1 is exact, and ln(w) / (w - 1) hardly changes
              between w and 1 + u. ln is off by 2**-48, so log1p by less than 2**-47
    arctan    of |x| <= 1 (else pi/2 less that of 1 / |x|): twice h = x / (1 + sqrt(1 + x**2)), whose arctan
              is half as large, 4 U each; then h (1 - h**2/3 + ... - h**26/27), |h| < 0.2, whose next term is
              below 2**-70; less than 2**-48 with pi/2, which is at least twice what is taken off
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.engine import Engine
from refnet.core.op import F32, F64, Interval
from refnet.ops.function import LIBRARY, LOST, Function, decimal_pi
from refnet.ops.trigonometry import WIDE, decimal_sine

HALF_PI = 1.5707963267948966
FAR = 2.0**40
"""Beyond it sqrt(x**2 + 1) is |x|, and x**2 may overflow."""
COEFFICIENTS = [(-1) ** k / (2 * k + 1) for k in range(14)]
HALVINGS = 12
"""In decimals: an arctan is taken of a number below 2**-11."""


def log1p(u: F64, engine: Engine) -> F64:
    """ln(1 + u) for u >= -1."""
    w = 1.0 + u
    near = u * (engine.real("log", w) / (w - 1.0))
    found: F64 = np.where(w == 1.0, u, np.where(w > FAR, engine.real("log", w), near))
    return found


def arctan(x: F64) -> F64:
    """arctan x."""
    size = np.abs(x)
    h = np.where(size > 1.0, 1.0 / size, size)
    for _ in range(2):
        h = h / (1.0 + np.sqrt(1.0 + h * h))
    z = h * h
    y = np.full_like(z, COEFFICIENTS[-1])
    for c in COEFFICIENTS[-2::-1]:
        y = y * z + c
    y = 4.0 * (h * y)
    found: F64 = np.copysign(np.where(size > 1.0, HALF_PI - y, y), x)
    return found


def decimal_arctan(x: Decimal) -> Decimal:
    """arctan x in the current decimal context."""
    with localcontext() as context:
        context.prec += 10
        h = x
        for _ in range(HALVINGS):
            h = h / (1 + (1 + h * h).sqrt())
        term = total = h
        n = 1
        while term and abs(term) > abs(total) * Decimal(10) ** -context.prec:
            n += 2
            term *= -h * h
            total += term / n
        found = total * Decimal(1 << HALVINGS)
    return +found


class _Inverse(Function):
    """What they share: the formula stands in `values`; f(0), the only rational value, is exact there.

    Bound: LIBRARY |y| + LOST, for a function of a library.
    """

    error: ClassVar[float] = 2.0**-45
    work: ClassVar[int] = 20

    @abstractmethod
    def values(self, x: F64, engine: Engine) -> F64:
        """f in float64."""

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            return self.values(inputs[0].astype(np.float64), engine).astype(np.float32)

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return False

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        return LIBRARY * size + LOST

    def rational(self, x: Fraction) -> Fraction | None:
        """f(0) or f(1), where it is whole."""
        value = self.real(Decimal(int(x))) if x in (0, 1) and self.known(int(x)) else None
        return None if value is None else Fraction(value)

    def known(self, x: int) -> bool:
        """Whether f(0), f(1) is a whole number."""
        return x == 0


@dataclass(frozen=True, repr=False)
class Tan(_Inverse):
    """y = tan x, x in radians; NaN for an infinity

    Plain: sin x / cos x in float64 (Sin, Cos), rounded once. Error: 2 * 2**-49 + U.

    Bound: as for all here. For x within R of c between two poles, y lies between the values at the ends; an
    interval with a pole has no bound. A float64 that is no float32 has a sine and cosine off by 2**-51 each,
    which moves the quotient by at most (1 + y**2) times that.

    Source: ONNX Tan, torch.tan, MXNet tan.
    """

    formula: ClassVar[str] = "tan x"

    def values(self, x: F64, engine: Engine) -> F64:
        return engine.real("sin", x) / engine.real("cos", x)

    def real(self, x: Decimal) -> Decimal:
        return decimal_sine(x, 0) / decimal_sine(x, 1)

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        between = (x.center != x.center.astype(np.float32)) | (x.radius != 0)
        return super().inaccuracy(x, size) + np.where(between, 4 * WIDE * (1 + size * size), 0.0)

    def _move(self, x: Interval, y: F64, engine: Engine) -> F64:
        low = np.nextafter(x.center - x.radius, -np.inf)
        high = np.nextafter(x.center + x.radius, np.inf)
        ends = [engine.real("cos", one) for one in (low, high)]
        whole = (x.radius < 1) & (ends[0] * ends[1] > 0) & (np.minimum(*map(np.abs, ends)) > 4 * WIDE)
        moved = super()._move(x, y, engine)
        return np.where((x.radius == 0) | whole, moved, np.inf)


@dataclass(frozen=True, repr=False)
class Sinh(_Inverse):
    """y = sinh x = (e**x - e**-x) / 2

    Plain: with e = e**-|x| and t = 1 - e in float64, t (1 + e) / (2 e), rounded once; the sign of x. Error:
    2**-47 for t, 2 * 2**-48 for both e, 4 U.

    Source: ONNX Sinh, torch.sinh, MXNet sinh.
    """

    formula: ClassVar[str] = "sinh x"
    limits: ClassVar[bool] = True

    def values(self, x: F64, engine: Engine) -> F64:
        size = -np.abs(x)
        e, t = engine.real("exp", size), -engine.real("elu", size, 1.0, 1.0, 1.0)
        return np.copysign(t * (1.0 + e) / (2.0 * e), x)

    def real(self, x: Decimal) -> Decimal:
        power = x.exp()
        return (power - 1 / power) / 2


@dataclass(frozen=True, repr=False)
class Cosh(_Inverse):
    """y = cosh x = (e**x + e**-x) / 2

    Plain: with e = e**-|x| in float64, (e + 1 / e) / 2, rounded once.

    Source: ONNX Cosh, torch.cosh, MXNet cosh.
    """

    formula: ClassVar[str] = "cosh x"
    limits: ClassVar[bool] = True
    minimum: ClassVar[tuple[float, float, float] | None] = (0.0, 0.0, 1.0)

    def values(self, x: F64, engine: Engine) -> F64:
        e = engine.real("exp", -np.abs(x))
        return (e + 1.0 / e) / 2.0

    def real(self, x: Decimal) -> Decimal:
        power = x.exp()
        return (power + 1 / power) / 2


@dataclass(frozen=True, repr=False)
class Asinh(_Inverse):
    """y = asinh x = ln(x + sqrt(x**2 + 1))

    Plain: log1p(|x| + x**2 / (1 + sqrt(1 + x**2))) in float64, rounded once, beyond FAR ln |x| + ln 2; the
    sign of x.

    Source: ONNX Asinh, torch.asinh, MXNet arcsinh.
    """

    formula: ClassVar[str] = "ln(x + sqrt(x ** 2 + 1))"
    limits: ClassVar[bool] = True

    def values(self, x: F64, engine: Engine) -> F64:
        size = np.abs(x)
        square = np.minimum(size, FAR) ** 2
        near = log1p(size + square / (1.0 + np.sqrt(1.0 + square)), engine)
        return np.copysign(np.where(size > FAR, engine.real("log", size) + np.log(2.0), near), x)

    def real(self, x: Decimal) -> Decimal:
        y = (abs(x) + (x * x + 1).sqrt()).ln()
        return y if x > 0 else -y


@dataclass(frozen=True, repr=False)
class Acosh(_Inverse):
    """y = acosh x = ln(x + sqrt(x**2 - 1)) for x >= 1, NaN below

    Plain: log1p(d + sqrt(d (d + 2))) in float64 with d = x - 1, which is exact, rounded once; beyond FAR
    ln x + ln 2.

    Source: ONNX Acosh, torch.acosh, MXNet arccosh.
    """

    formula: ClassVar[str] = "ln(x + sqrt(x ** 2 - 1))"
    limits: ClassVar[bool] = True

    def known(self, x: int) -> bool:
        return x == 1

    def values(self, x: F64, engine: Engine) -> F64:
        d = np.minimum(x, FAR) - 1.0
        near = log1p(d + np.sqrt(d * (d + 2.0)), engine)
        far = engine.real("log", x) + np.log(2.0)
        return np.where(x > FAR, far, np.where(x < 1.0, np.nan, near))

    def real(self, x: Decimal) -> Decimal:
        return (x + (x * x - 1).sqrt()).ln()


@dataclass(frozen=True, repr=False)
class Atanh(_Inverse):
    """y = atanh x = ln((1 + x) / (1 - x)) / 2 for |x| <= 1, NaN beyond

    Plain: log1p(2 |x| / (1 - |x|)) / 2 in float64, rounded once; the sign of x.

    Source: ONNX Atanh, torch.atanh, MXNet arctanh.
    """

    formula: ClassVar[str] = "ln((1 + x) / (1 - x)) / 2"

    def values(self, x: F64, engine: Engine) -> F64:
        size = np.abs(x)
        u = np.where(size > 1.0, np.nan, 2.0 * size / (1.0 - size))
        return np.copysign(log1p(u, engine) / 2.0, x)

    def real(self, x: Decimal) -> Decimal:
        return ((1 + x) / (1 - x)).ln() / 2

    def largest(self, x: Interval, size: F64) -> F64:
        return np.where(x.magnitude < 1, size, np.nan)


@dataclass(frozen=True, repr=False)
class Atan(_Inverse):
    """y = arctan x, in radians

    Plain: `arctan` in float64, rounded once.

    Source: ONNX Atan, torch.atan, MXNet arctan.
    """

    formula: ClassVar[str] = "arctan x"
    limits: ClassVar[bool] = True

    def values(self, x: F64, engine: Engine) -> F64:
        return arctan(x)

    def real(self, x: Decimal) -> Decimal:
        return decimal_arctan(x)


@dataclass(frozen=True, repr=False)
class Asin(_Inverse):
    """y = arcsin x = arctan(x / sqrt((1 - x) (1 + x))) for |x| <= 1, NaN beyond

    Plain: that in float64, rounded once.

    Source: ONNX Asin, torch.asin, MXNet arcsin.
    """

    formula: ClassVar[str] = "arcsin x"

    def values(self, x: F64, engine: Engine) -> F64:
        return arctan(x / np.sqrt((1.0 - x) * (1.0 + x)))

    def real(self, x: Decimal) -> Decimal:
        if abs(x) == 1:
            return x * decimal_pi() / 2
        return decimal_arctan(x / ((1 - x) * (1 + x)).sqrt())


@dataclass(frozen=True, repr=False)
class Acos(_Inverse):
    """y = arccos x = 2 arctan(sqrt((1 - x) / (1 + x))) for |x| <= 1, NaN beyond

    Plain: that in float64, rounded once.

    Source: ONNX Acos, torch.acos, MXNet arccos.
    """

    formula: ClassVar[str] = "arccos x"

    def known(self, x: int) -> bool:
        return x == 1

    def values(self, x: F64, engine: Engine) -> F64:
        return 2.0 * arctan(np.sqrt((1.0 - x) / (1.0 + x)))

    def real(self, x: Decimal) -> Decimal:
        return decimal_pi() if x == -1 else 2 * decimal_arctan(((1 - x) / (1 + x)).sqrt())
