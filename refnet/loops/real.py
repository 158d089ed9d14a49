"""Functions of one real number in float64, with a proven error: what golden's functions are decided from.

Additions, multiplications, divisions and fused multiply-adds in a stated order, so that the bits are the same
on every machine; no function of a C library. `NAMES` has them; ops/function.py says what each is for.

Every error below is relative and holds for a float32 x; U is 2**-53. A result below float32's range is a
number of the right sign that rounds to zero there, and beyond float32's range any number that rounds to
infinity. Constants are rounded from 60 digits.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np

from refnet.core.engine import F64
from refnet.loops.arrays import readonly
from refnet.loops.fma import fma
from refnet.loops.functions import LN2_HIGH, LN2_LOW, LOG2_E, SHIFT, exp
from refnet.loops.jit import njit
from refnet.loops.trigonometry import cos, sin

NAMES = (
    "exp", "log", "tanh", "erf", "softplus", "mish", "silu", "gelu", "gelu-tanh", "elu",
    "softsign", "hard-sigmoid", "hard-swish", "power", "sin", "cos",
)  # fmt: skip
(
    EXP, LOG, TANH, ERF, SOFTPLUS, MISH, SILU, GELU, GELU_TANH, ELU,
    SOFTSIGN, HARD_SIGMOID, HARD_SWISH, POWER, SIN, COS,
) = range(len(NAMES))  # fmt: skip

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
with localcontext() as _context:
    _context.prec = 60
    TWO_BY_ROOT_PI = float(2 / PI.sqrt())
    BY_ROOT_TWO_PI = float(1 / (2 * PI).sqrt())
    INNER_1 = float(2 * (2 / PI).sqrt())
    INNER_3 = float(2 * (2 / PI).sqrt() * Decimal("0.044715"))
EXPM1 = np.array([float(Fraction(1, math.factorial(i + 1))) for i in range(14)])
ODD = np.array([1.0 / (2 * i + 1) for i in range(256)])
"""1 / 1, 1 / 3, 1 / 5 ..."""
TINY = 2.0**-160
"""Rounds to a zero of float32."""
FEW, MANY, FRACTIONS = 12, 18, 100
"""Terms of the logarithm's series on its two domains; levels of Laplace's continued fraction."""


@njit
def expm1(x: Any) -> Any:
    """e ** x - 1, error below 2**-48.

    x = n ln 2 + r, |r| <= 0.35, r off by less than 2**-55; p = r (1 + r/2 + r**2/6 ...) to r**14 is e ** r -
    1, off by 2**-50 (the next term is below 2**-60). e ** x - 1 = 2**n p + (2**n - 1). For n = 0 r is x, and
    p the result; otherwise |e ** x - 1| > 0.29, and 2**n |p| is at most 1.5 times as large.
    """
    if x > 128.0:
        return np.inf
    if x < -128.0:
        return -1.0
    n = (x * LOG2_E + SHIFT) - SHIFT
    r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, x))
    s = EXPM1[13]
    for i in range(12, -1, -1):
        s = fma(s, r, EXPM1[i])
    p = r * s
    if n == 0.0 or x != x:  # noqa: PLR0124
        return p
    power = math.ldexp(1.0, int(n))
    return fma(power, p, power - 1.0)


@njit
def _atanh(s: Any, terms: int) -> Any:
    """2 (s + s**3/3 + s**5/5 ...): ln((1 + s) / (1 - s)), error below 2**-50 besides that of s."""
    z = s * s
    y = ODD[terms - 1]
    for i in range(terms - 2, 0, -1):
        y = fma(y, z, ODD[i])
    return fma(2.0 * s * z, y, 2.0 * s)


@njit
def log(x: Any) -> Any:
    """ln x, error below 2**-48; -inf for zeros, NaN for negative numbers.

    x = 2**k m with 0.7 < m < 1.42, ln m = 2 atanh(s) with s = (m - 1) / (m + 1), whose numerator is exact;
    |s| < 0.172, and what follows 12 terms is below 2**-65. k times the leading part of ln 2 is exact; where k
    is not 0, |ln x| > 0.34, which is the most that ln m can be.
    """
    if not x > 0.0:
        return -np.inf if x == 0.0 else np.nan
    if x == np.inf:
        return x
    m, k = math.frexp(x)
    if m < 0.7071067811865476:
        m, k = m + m, k - 1
    y = _atanh((m - 1.0) / (m + 1.0), FEW)
    if k == 0:
        return y
    return fma(float(k), LN2_HIGH, fma(float(k), LN2_LOW, y))


@njit
def log1p(t: Any) -> Any:
    """ln(1 + t) for t from 0 to 1, error below 2**-49: 2 atanh(s), s = t / (2 + t) at most 1/3."""
    return _atanh(t / (2.0 + t), MANY)


@njit
def tanh(x: Any) -> Any:
    """t / (t + 2) with t = e ** 2|x| - 1, error below 2**-47. Beyond 32 it is 1."""
    t = expm1(2.0 * min(abs(x), 32.0))
    y = t / (t + 2.0)
    return x if x != x else math.copysign(y, x)  # noqa: PLR0124


@njit
def _odd_series(x: Any, z: Any) -> Any:
    """x (1 + z/3 + z**2/(3 5) + z**3/(3 5 7) ...), error below 3 terms U.

    A term is off by 3 U per factor, the sum by U per addition; all terms have one sign, so the errors do not
    grow. It ends where a term is below 2**-58 of the sum and z is at most (2 i + 1) / 2: the rest is below
    that.
    """
    term = total = x
    i = 1
    while abs(term) > 3.0e-18 * abs(total) or 2.0 * z * ODD[i] > 1.0:
        term = term * (z * ODD[i])
        total = total + term
        i += 1
    return total


@njit
def erf(x: Any) -> Any:
    """2 / sqrt(pi) e ** -x**2 (x + 2 x**3/3 + 4 x**5/(3 5) ...), error below 2**-43. Beyond 6 it is 1.

    x**2 is exact; at 6 the series has 170 terms. 1 - erf(6) < 2**-55.
    """
    if x != x:  # noqa: PLR0124
        return x
    if abs(x) > 6.0:
        return math.copysign(1.0, x)
    return TWO_BY_ROOT_PI * exp(-x * x) * _odd_series(x, 2.0 * x * x)


@njit
def gelu(x: Any) -> Any:
    """x Phi(x), Phi the normal distribution function, error below 2**-41.

    phi is its density, whose exponent is exact. From -2 on: 1/2 + phi(x) (x + x**3/3 + x**5/(3 5) ...). Below
    -2 Laplace's continued fraction: Phi(x) = phi(x) / (a + 1/(a + 2/(a + 3/(a + ...)))), a = -x, whose
    convergents lie on both sides of it, at a = 2 the 100th within 2**-51. In the sum at -2 the series (30
    terms) is 21 times as large as the result.
    """
    if x < -16.0:
        return -TINY
    if x > 9.0 or x != x:  # noqa: PLR0124
        return x
    density = BY_ROOT_TWO_PI * exp(-0.5 * x * x)
    if x >= -2.0:
        return x * (0.5 + density * _odd_series(x, x * x))
    f = -x
    for n in range(FRACTIONS, 0, -1):
        f = float(n) / f - x
    return x * (density / f)


@njit
def gelu_tanh(x: Any) -> Any:
    """x / (1 + e ** -v), v = 2 sqrt(2 / pi) (x + 0.044715 x**3), error below 2**-42.

    v is off by 4 U, so e ** -v by |v| 2**-51, and |v| is at most 128 where the result is not zero.
    """
    v = x * fma(INNER_3, x * x, INNER_1)
    if v < -128.0:
        return -TINY
    return x / (1.0 + exp(-v))


@njit
def silu(x: Any) -> Any:
    """x / (1 + e ** -x), error below 2**-48."""
    return -TINY if x < -128.0 else x / (1.0 + exp(-x))


@njit
def softplus(x: Any) -> Any:
    """ln(1 + e ** x) = max(x, 0) + ln(1 + e ** -|x|), error below 2**-48."""
    more = log1p(exp(-abs(x)))
    return x + more if x > 0.0 else more


@njit
def mish(x: Any) -> Any:
    """x tanh(ln(1 + e ** x)) = x w / (w + 2) with w = e ** x (e ** x + 2), error below 2**-47."""
    if x < -128.0:
        return -TINY
    if x > 64.0:
        return x
    e = exp(x)
    w = e * (e + 2.0)
    return x * (w / (w + 2.0))


@njit
def elu(x: Any, above: Any, below: Any, by: Any) -> Any:
    """above x where x > 0, else below (e ** (x / by) - 1), error below 2**-47; above and below have 48
    bits."""
    return above * x if x > 0.0 else below * expm1(x / by)


@njit
def power(x: Any, exponent: Any, odd: Any) -> Any:
    """x ** exponent, error below 2**-42, as e ** (exponent ln |x|), whose exponent is at most 128 in size.

    odd: 1 for an odd whole exponent, 0 for an even one, else -1 (then a negative x has no power).
    """
    if x != x:  # noqa: PLR0124
        return x
    negative = math.copysign(1.0, x) < 0.0
    extreme = x == 0.0 or abs(x) == np.inf
    if negative and odd < 0.0 and not extreme:
        return np.nan
    y = max(exp(exponent * log(abs(x))), TINY)
    if extreme:
        y = np.inf if (x == 0.0) == (exponent < 0.0) else 0.0
    return -y if negative and odd > 0.0 else y


@njit
def function(kind: int, x: Any, a: Any, b: Any, c: Any) -> Any:
    """The function of this number in NAMES; a, b, c: its parameters, if it has any."""
    if kind == EXP:
        return exp(x)
    if kind == LOG:
        return log(x)
    if kind == TANH:
        return tanh(x)
    if kind == ERF:
        return erf(x)
    if kind == SOFTPLUS:
        return softplus(x)
    if kind == MISH:
        return mish(x)
    if kind == SILU:
        return silu(x)
    if kind == GELU:
        return gelu(x)
    if kind == GELU_TANH:
        return gelu_tanh(x)
    if kind == ELU:
        return elu(x, a, b, c)
    if kind == SOFTSIGN:  # two roundings
        return math.copysign(1.0, x) if abs(x) == np.inf else x / (1.0 + abs(x))
    if kind == HARD_SIGMOID:  # the product of two float32 is exact: one rounding
        y = a * x + b
        return 0.0 if y <= 0.0 else 1.0 if y > 1.0 else y
    if kind == HARD_SWISH:  # three roundings
        return x * (0.0 if x < -3.0 else x + 3.0) / 6.0 if x < 3.0 else x
    if kind == SIN:
        return sin(x)
    if kind == COS:
        return cos(x)
    return power(x, a, b)


def real(name: str, x: F64, *parameters: float) -> F64:
    """A function of each element; any shape.

    >>> real("gelu", np.array([-1.0, 0.0, 1.0]))
    array([-0.15865525,  0.        ,  0.84134475])
    """
    y = np.empty(x.shape, np.float64)
    a, b, c = (*parameters, 0.0, 0.0, 0.0)[:3]
    _real(NAMES.index(name), readonly(x).reshape(-1), a, b, c, y.reshape(-1))
    return y


@njit
def _real(kind: int, x: Any, a: float, b: float, c: float, y: Any) -> None:
    for i in range(x.size):
        y[i] = function(kind, x[i], a, b, c)
