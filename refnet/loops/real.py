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

from refnet.core.engine import Array
from refnet.loops.arrays import readonly
from refnet.loops.error_function import PI, TINY, erf, gelu
from refnet.loops.fma import fma
from refnet.loops.functions import LN2_HIGH, LN2_LOW, LOG2_E, SHIFT, exp, power_of_two
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

with localcontext() as _context:
    _context.prec = 60
    INNER_1 = float(2 * (2 / PI).sqrt())
    INNER_3 = float(2 * (2 / PI).sqrt() * Decimal("0.044715"))
EXPM1 = np.array([float(Fraction(1, math.factorial(i + 1))) for i in range(14)])
ODD = np.array([1.0 / (2 * i + 1) for i in range(18)])
"""1 / 1, 1 / 3, 1 / 5 ..."""
FEW, MANY = 12, 18
"""Terms of the logarithm's series on its two domains."""


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
    shifted = x * LOG2_E + SHIFT
    n = shifted - SHIFT
    r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, x))
    s = EXPM1[13]
    for i in range(12, -1, -1):
        s = fma(s, r, EXPM1[i])
    p = r * s
    if n == 0.0 or x != x:  # noqa: PLR0124
        return p
    power = power_of_two(shifted)
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
def hard_sigmoid(x: Any, alpha: Any, beta: Any) -> Any:
    """min(max(alpha x + beta, 0), 1): the product of two float32 is exact, so one rounding."""
    y = alpha * x + beta
    return 0.0 if y <= 0.0 else 1.0 if y > 1.0 else y


@njit
def hard_swish(x: Any) -> Any:
    """x min(max(x + 3, 0), 6) / 6, three roundings."""
    return x * (0.0 if x < -3.0 else x + 3.0) / 6.0 if x < 3.0 else x


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
    if kind == HARD_SIGMOID:
        return hard_sigmoid(x, a, b)
    if kind == HARD_SWISH:
        return hard_swish(x)
    if kind == SIN:
        return sin(x)
    if kind == COS:
        return cos(x)
    return power(x, a, b)


def real(name: str, x: Array, *parameters: float) -> Array:
    """A function of each element; any shape. Of float32 the value in float64 is rounded once more.

    >>> real("gelu", np.array([-1.0, 0.0, 1.0]))
    array([-0.15865525,  0.        ,  0.84134475])
    """
    y = np.empty(x.shape, x.dtype)
    a, b, c = (*parameters, 0.0, 0.0, 0.0)[:3]
    _real(NAMES.index(name), readonly(x).reshape(-1), a, b, c, y.reshape(-1))
    return y


@njit
def _real(kind: int, x: Any, a: float, b: float, c: float, y: Any) -> None:
    for i in range(x.size):
        y[i] = function(kind, np.float64(x[i]), a, b, c)
