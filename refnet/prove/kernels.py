"""exp and the sigmoid a second time, to prove the first: double-double, from a table and a polynomial.

Nothing is shared with functions.py but the FMA: other constants, another argument reduction, twice the
digits. A double-double is an unevaluated sum h + l of two float64. The error-free transformations are
those of Dekker and Knuth (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapter 4;
Muller et al., Handbook of Floating-Point Arithmetic, 2nd ed., chapter 4): `fast two sum` for |a| >= |b|,
and a product's error by fma(a, b, -a*b).
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refnet.loops.fma import fma
from refnet.loops.jit import njit

STEPS = 128
"""Entries of the table: 2 ** (j / STEPS)."""
ERROR = 2.0**-80
"""Relative error of both evaluations, see `_exp` and `_sigmoid`."""
LOWEST, HIGHEST = -104.5, 104.5
"""Beyond them both functions round as they do there: to 0, to 1, to infinity."""
SHIFT = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to the nearest integer


def _constants() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(table, logarithm): 2 ** (j / STEPS) as h, l per row; ln 2 / STEPS as three float64 and its inverse.

    The first two parts of the logarithm have 38 bits each, so that n times a part is exact for |n| < 2**15.
    """
    with localcontext() as context:
        context.prec = 80
        step = Decimal(2).ln() / STEPS
        table = np.empty((STEPS, 2))
        for j in range(STEPS):
            value = (step * j).exp()
            table[j, 0] = float(value)
            table[j, 1] = float(value - Decimal(table[j, 0]))
        parts, rest = [], step
        for last in (45, 83):
            parts.append(float(int(rest * 2**last)) / 2.0**last)
            rest -= Decimal(parts[-1])
        return table, np.array([*parts, float(rest), float(1 / step)])


TABLE, (LOG_1, LOG_2, LOG_3, PER) = _constants()
SIXTH = 1.0 / 6.0
SIXTH_LOW = float(Decimal(1) / 6 - Decimal(SIXTH))
C4, C5, C6, C7, C8 = 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320


def _bits(typingctx: Any, x: Any) -> Any:
    """The typing and code of `bits`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


def _number(typingctx: Any, x: Any) -> Any:
    """The typing and code of `number`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


bits: Any = intrinsic(_bits)
"""bits(x): the 64 bits of a float64 as an integer."""
number: Any = intrinsic(_number)
"""number(i): the float64 of these 64 bits."""


@njit
def _exp(x: float) -> Any:
    """(h, l) with e ** x = (h + l)(1 + d), |d| < 2**-85, for a float64 |x| <= 104.5 that is a float32.

    Write L = ln 2 / 128, n = x / L rounded to an integer, |n| < 2**15, r = x - n L. Then
    e ** x = 2 ** (n / 128) e ** r, and |r| < L / 2 + 2**-40 < 2**-8.5.

    1. r. LOG_1 is a multiple of 2**-45, and x is one too unless n = 0 (n is not 0 only if |x| > 2**-9,
       and then x is a multiple of 2**-32). So x - n LOG_1 is a multiple of 2**-45 below 2**-8, or x itself,
       and the FMA is exact. n LOG_2 has 15 + 38 bits: exact. Two sum is exact. n LOG_3 is below 2**-68; its
       rounding and that of the sum rl stay below 2**-112, and what three parts leave of L, below 2**-136,
       counts n times: rh + rl = r + 2**-111, |rl| < 2**-61.
    2. e ** r = 1 + r (1 + r (1/2 + r (1/6 + r q))), q = 1/24 + r/120 + ... + r**4/40320. The next term,
       r**9/9! < 2**-94, and those after it are left out: 2**-93.
       q in float64 from rh: rounded coefficients, four FMAs, rl left out: below 2**-50 q, |q| < 2**-4.5.
       t = rh q, |t| < 2**-13, is off by 2**-50 |t| and by rl q: below 2**-62. It enters e ** r times
       r**3 < 2**-25.5: 2**-87.5.
       Each level c + r u is double-double. Fast two sum is exact, as c > |r u|. The product drops ul rl,
       below 2**-52 * 2**-61, and rounds three numbers below 2**-59; the addition of the low parts,
       below 2**-52, rounds by 2**-105. All four levels together stay below 2**-102.
    3. Times the table: th is 2 ** (j / 128) rounded, tl the rest, rounded: 2**-106. The product drops
       ul tl, below 2**-105, and rounds three numbers below 2**-50 h, 2**-103 each: below 2**-101.
    Sum: 2**-87.5 + 2**-93 and some below 2**-100, divided by e ** r > 1 - 2**-8: below 2**-87, and 2**-85
    is claimed. Multiplying by a power of two is exact: all results lie between 2**-151 and 2**151, their low
    parts far from float64's subnormals.
    """
    n = (x * PER + SHIFT) - SHIFT
    a = fma(-n, LOG_1, x)
    p = -n * LOG_2
    rh = a + p
    back = rh - a
    rl = ((a - (rh - back)) + (p - back)) - n * LOG_3  # two sum, for any a and p
    q = fma(fma(fma(fma(C8, rh, C7), rh, C6), rh, C5), rh, C4)
    t = rh * q
    uh = SIXTH + t
    ul = (t - (uh - SIXTH)) + SIXTH_LOW
    h = uh * rh
    low = fma(uh, rh, -h) + fma(uh, rl, ul * rh)
    uh = 0.5 + h
    ul = (h - (uh - 0.5)) + low
    h = uh * rh
    low = fma(uh, rh, -h) + fma(uh, rl, ul * rh)
    uh = 1.0 + h
    ul = (h - (uh - 1.0)) + low
    h = uh * rh
    low = fma(uh, rh, -h) + fma(uh, rl, ul * rh)
    uh = 1.0 + h
    ul = (h - (uh - 1.0)) + low
    i = int(n)
    th, tl = TABLE[i & (STEPS - 1), 0], TABLE[i & (STEPS - 1), 1]
    h = uh * th
    low = fma(uh, th, -h) + fma(uh, tl, ul * th)
    power = number(((i >> 7) + 1023) << 52)
    return h * power, low * power


@njit
def _sigmoid(x: float) -> Any:
    """(h, l) with 1 / (1 + e ** -x) = (h + l)(1 + d), |d| < 2**-84.

    With q = e ** -x off by the relative 2**-85, 1 + q is off by less. Its sum in double-double: two sum
    is exact, adding q's low part rounds below 2**-103 (1 + q). The reciprocal: y = 1 / dh rounded, so the
    remainder 1 - y dh is exact in an FMA, and v = 1 - y (dh + dl) is below 2**-50, its rounding below
    2**-102; 1 / (dh + dl) = y / (1 - v) = y + y v + y v**2 + ..., of which y v**2 < 2**-100 y is left out.
    """
    qh, ql = _exp(-x)
    dh = 1.0 + qh
    back = dh - 1.0
    dl = ((1.0 - (dh - back)) + (qh - back)) + ql
    y = 1.0 / dh
    v = fma(-y, dl, fma(-y, dh, 1.0))
    return y, y * v


@njit
def _rounded(h: float, low: float) -> Any:
    """The float32 nearest to h + low > 0, |low| < h / 2, ties to even, with no error at all.

    h + low is rounded to odd first: s = h + low rounded to nearest with its exact error t; where t is not 0
    and s is even, the exact sum lies strictly between s and its odd neighbour on t's side. An odd
    float64 is no float32 and no midpoint of two, and lies on the same side of each of them as the
    exact sum. (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008.)
    """
    s = h + low
    t = low - (s - h)
    b = bits(s)
    side = (1 if t > 0.0 else 0) - (1 if t < 0.0 else 0)
    return np.float32(number(b + side * (1 - (b & 1))))


@njit
def exp_between(begin: int, end: int, x: Any, wide: float, low: Any, high: Any) -> None:
    """low and high: the float32 nearest to the ends of an interval that holds e ** x; items: elements.

    wide: the relative half width, at least ERROR. x, low, high: flat float32. NaN gives NaN. The ends are
    l - wide h and l + wide h, rounded: off by 2**-100 h, for which ERROR has room (2**-85 is proved).
    """
    x, low, high = x[begin:end], low[begin:end], high[begin:end]
    for i in range(x.size):
        nan = x[i] != x[i]
        h, rest = _exp(min(max(0.0 if nan else np.float64(x[i]), LOWEST), HIGHEST))
        a, b = _rounded(h, rest - wide * h), _rounded(h, rest + wide * h)
        low[i] = np.float32(np.nan) if nan else a
        high[i] = np.float32(np.nan) if nan else b


@njit
def sigmoid_between(begin: int, end: int, x: Any, wide: float, low: Any, high: Any) -> None:
    """As exp_between, for 1 / (1 + e ** -x)."""
    x, low, high = x[begin:end], low[begin:end], high[begin:end]
    for i in range(x.size):
        nan = x[i] != x[i]
        h, rest = _sigmoid(min(max(0.0 if nan else np.float64(x[i]), LOWEST), HIGHEST))
        a, b = _rounded(h, rest - wide * h), _rounded(h, rest + wide * h)
        low[i] = np.float32(np.nan) if nan else a
        high[i] = np.float32(np.nan) if nan else b
