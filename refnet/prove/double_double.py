"""The functions of ops/functions.py and ops/activations.py a second time, in double-double, to prove the
first.

Sine and cosine rest on quarters.py, the others on kernels.py's e ** x, whose proof needs |n| < 2**15 only,
so |x| < 177. Against loops/real.py: another e ** x, logarithms as Newton steps on it (only the first guess
is real.py's, and a wrong one gives NaN), erf as the alternating series, and twice the digits. tanh, mish and
SiLU are the same quotients of it, and GELU beyond 4 the same continued fraction.

A number is h + l, unevaluated; operations on it are off by the relative
2**-100 of the sizes that go in (Joldes, Muller, Popescu, Tight and rigorous error bounds for basic building
blocks of double-word arithmetic, 2017). Every result is claimed to be off by at most the relative ERROR;
where terms cancel, a docstring says how much.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.loops import real
from refnet.loops.fma import fma
from refnet.loops.jit import njit
from refnet.prove.kernels import _exp, _rounded
from refnet.prove.quarters import LEAST, quarters

ERROR = 2.0**-62
"""Relative error of every function here."""
NAMES = ("log", "tanh", "erf", "softplus", "mish", "silu", "gelu", "gelu-tanh", "elu", "sin", "cos")
LOG, TANH, ERF, SOFTPLUS, MISH, SILU, GELU, GELU_TANH, ELU, SIN, COS = range(len(NAMES))
HALVED = 2.0**-70
"""Below it x/2 + a x**2, a > 0, has no midpoint near it but x/2, and a x**2 needs no more than its sign."""
SMALL = 2.0**-35
"""Below it two terms of a Taylor series are enough: the third is below 2**-69 of the first."""
TINY, HUGE = 2.0**-200, 2.0**200
"""Round to a zero and to infinity."""
FRACTIONS = 100


def _pairs(values: list[Decimal]) -> npt.NDArray[np.float64]:
    """(n, 2): each number as h and l."""
    highs = [float(v) for v in values]
    return np.array([(h, float(v - Decimal(h))) for h, v in zip(highs, values, strict=True)])


with localcontext() as _context:
    _context.prec = 80
    PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
    INNER = _pairs([2 * (2 / PI).sqrt(), 2 * (2 / PI).sqrt() * Decimal("0.044715")])
    ROOTS = _pairs([2 / PI.sqrt(), 1 / (2 * PI).sqrt(), Decimal(2).ln()])
    EXPM1 = _pairs([Decimal(1) / math.factorial(n + 1) for n in range(16)])
    LOG1P = _pairs([Decimal((-1) ** n) / (n + 1) for n in range(20)])
    SINES = _pairs([Decimal((-1) ** n) / math.factorial(2 * n + 1) for n in range(3)])
    COSINES = _pairs([Decimal((-1) ** n) / math.factorial(2 * n) for n in range(4)])
    ERFS = _pairs([Decimal((-1) ** n) / (math.factorial(n) * (2 * n + 1)) for n in range(94)])
LATER_SINES = np.array([(-1.0) ** n / math.factorial(2 * n + 1) for n in range(3, 12)])
LATER_COSINES = np.array([(-1.0) ** n / math.factorial(2 * n) for n in range(4, 13)])
"""Of powers that are small enough for float64."""
FIFTHS = _pairs([Decimal(3) / 5, Decimal(8) / 25])
THIRD = float(Fraction(1, 3))


@njit
def _sum(a: float, b: float) -> Any:
    """a + b as h + l, exactly."""
    h = a + b
    back = h - a
    return h, (a - (h - back)) + (b - back)


@njit
def _add(a: Any, b: Any) -> Any:
    h, low = _sum(a[0], b[0])
    return _sum(h, low + (a[1] + b[1]))


@njit
def _times(a: Any, b: Any) -> Any:
    h = a[0] * b[0]
    low = fma(a[0], b[0], -h) + fma(a[0], b[1], a[1] * b[0])
    return _sum(h, low)


@njit
def _by(a: Any, b: Any) -> Any:
    h = a[0] / b[0]
    rest = fma(-h, b[0], a[0]) + fma(-h, b[1], a[1])
    return _sum(h, rest / b[0])


@njit
def _series(table: Any, terms: int, z: Any) -> Any:
    """table[0] + table[1] z + table[2] z**2 ... in double-double."""
    y = (table[terms - 1, 0], table[terms - 1, 1])
    for n in range(terms - 2, -1, -1):
        y = _add(_times(y, z), (table[n, 0], table[n, 1]))
    return y


@njit
def _power(x: Any) -> Any:
    """e ** x for |x| <= 120: of the nearest float32, times 1 + r + r**2/2 + r**3/6 + r**4/24, |r| <
    2**-17."""
    first = np.float64(np.float32(x[0]))
    r = _sum(x[0] - first, x[1])
    square = 0.5 * r[0] * r[0]
    more = _sum(r[0], r[1] + square * (1.0 + r[0] * (THIRD + r[0] / 12.0)))
    e = _exp(first)
    return _add(e, _times(e, more))


@njit
def _expm1(x: float) -> Any:
    """e ** x - 1 for |x| <= 120. From 2**-4 on the difference loses 5 bits; below that the Taylor series."""
    if abs(x) >= 0.0625:
        return _add(_exp(x), (-1.0, 0.0))
    return _times((x, 0.0), _series(EXPM1, 6 if abs(x) < 2.0**-12 else 15, (x, 0.0)))


@njit
def _newton(u: Any, guess: float) -> Any:
    """ln u = y + ln(1 + r), r = u e ** -y - 1, with y the float32 of a guess; NaN unless |r| < 2**-16.

    ln(1 + r) to r**5 leaves 2**-98. r is off by 2**-84, so |ln u| must not be far below 1.
    """
    y = np.float64(np.float32(guess))
    r = _add(_times(u, _exp(-y)), (-1.0, 0.0))
    if not abs(r[0]) < 2.0**-16:
        return np.nan, np.nan
    c = r[0]
    return _add((y, 0.0), _sum(c, r[1] + c * c * (-0.5 + c * (THIRD + c * (-0.25 + 0.2 * c)))))


@njit
def _log1p(t: Any, guess: float) -> Any:
    """ln(1 + t) for -1 < t: a series for |t| < 1/32, beyond which |ln(1 + t)| > 2**-6; else `_newton`."""
    if abs(t[0]) < 0.03125:
        return _times(t, _series(LOG1P, 8 if abs(t[0]) < 2.0**-12 else 19, t))
    return _newton(_add((1.0, 0.0), t), guess)


@njit
def _log(x: float) -> Any:
    """ln x for a positive float32: near 1 a series, else `_newton`; guess from the first evaluation."""
    guess = real.log(x)
    if abs(x - 1.0) < 0.03125:
        return _log1p((x - 1.0, 0.0), guess)
    return _newton((x, 0.0), guess)


@njit
def _erf_series(z: float) -> Any:
    """1 - z/3 + z**2/(2! 5) - ... for z up to 16: absolute error 2**-100 e**z, at most 2**-76."""
    terms = 5 if z < 2.0**-20 else 12 if z < 2.0**-6 else 27 if z < 1.0 else 93
    return _series(ERFS, terms, (z, 0.0))


@njit
def _upper(a: float) -> Any:
    """The normal distribution above a >= 4: its density over a + 1/(a + 2/(a + 3/(a + ...)))."""
    f = (a, 0.0)
    for n in range(FRACTIONS, 0, -1):
        f = _add(_by((float(n), 0.0), f), (a, 0.0))
    density = _times((ROOTS[1, 0], ROOTS[1, 1]), _power((-0.5 * a * a, 0.0)))
    return _by(density, f)


@njit
def _gelu(x: float) -> Any:
    """x Phi(x): the series up to |x| = 4, where Phi(-4) is 2**-15 and the terms' sum 2**13; else _upper."""
    if abs(x) <= 4.0:
        part = _times((ROOTS[1, 0], ROOTS[1, 1]), _times((x, 0.0), _erf_series(0.5 * x * x)))
        factor = _add((0.5, 0.0), part)
    elif x > 12.0:
        return x, 0.0
    else:
        factor = _upper(abs(x))
        if x > 0.0:
            factor = _add((1.0, 0.0), (-factor[0], -factor[1]))
    return _times((x, 0.0), factor)


@njit
def _turned(kind: int, x: float) -> Any:
    """sin or cos of x = n pi/2 + r: the sine's or the cosine's series in r**2, with a sign.

    Terms from r**6 in the sine's and r**8 in the cosine's sum on are below 2**-14 and 2**-17; their float64
    is off by some 2**-66. What follows r**22 and r**24 is below 2**-90.
    """
    n, r = (0, (x, 0.0)) if abs(x) < LEAST else quarters(x)
    n += 1 if kind == COS else 0
    z = _times(r, r)
    first, later = (COSINES, LATER_COSINES) if n & 1 else (SINES, LATER_SINES)
    tail = later[8]
    for k in range(7, -1, -1):
        tail = tail * z[0] + later[k]
    y = (tail, 0.0)
    for k in range(len(first) - 1, -1, -1):
        y = _add(_times(y, z), (first[k, 0], first[k, 1]))
    if not n & 1:
        y = _times(y, r)
    return (-y[0], -y[1]) if n & 2 else y


@njit
def _small(kind: int, x: float, above: float, below: float) -> Any:
    """The first terms of the Taylor series at 0; above and below are ELU's."""
    if kind == TANH:
        return x, -x * x * x * THIRD
    if kind == ERF:
        return _times((x, 0.0), (ROOTS[0, 0], ROOTS[0, 1]))
    if kind == SIN:
        return x, -x * x * x / 6.0
    if kind == COS:
        return 1.0, -0.5 * x * x
    if kind == SOFTPLUS:
        return _add((ROOTS[2, 0], ROOTS[2, 1]), (0.5 * x, 0.125 * x * x))
    if kind == MISH:
        return _times((x, 0.0), _add((FIFTHS[0, 0], FIFTHS[0, 1]), (FIFTHS[1, 0] * x, 0.0)))
    if kind == SILU:
        return 0.5 * x, 0.25 * x * x
    if kind in (GELU, GELU_TANH):
        return 0.5 * x, ROOTS[1, 0] * x * x
    return _times((below, 0.0), (x, 0.5 * x * x))


@njit
def _usual(kind: int, x: float, below: float) -> Any:
    """Where x is neither small nor beyond what changes the result."""
    one, given = (1.0, 0.0), (x, 0.0)
    if kind == TANH:
        t = _expm1(2.0 * abs(x))
        y = _by(t, _add(t, (2.0, 0.0)))
        return (y[0], y[1]) if x > 0.0 else (-y[0], -y[1])
    if kind == ERF:
        return _times(_times(given, (ROOTS[0, 0], ROOTS[0, 1])), _erf_series(x * x))
    if kind == SOFTPLUS:
        q = _exp(-abs(x))
        y = _log1p(q, real.log1p(q[0]))
        return _add(given, y) if x > 0.0 else y
    if kind == MISH:
        q = _exp(x)
        w = _times(q, _add(q, (2.0, 0.0)))
        return _times(given, _by(w, _add(w, (2.0, 0.0))))
    if kind == SILU:
        return _by(given, _add(one, _exp(-x)))
    if kind == GELU:
        return _gelu(x)
    if kind == GELU_TANH:
        s = _add((INNER[0, 0], INNER[0, 1]), _times((INNER[1, 0], INNER[1, 1]), (x * x, 0.0)))
        v = _times(s, given)
        if v[0] > 110.0:
            return given
        if v[0] < -110.0:
            return -TINY, 0.0
        return _by(given, _add(one, _power((-v[0], -v[1]))))
    return _times((below, 0.0), _expm1(x))


@njit
def _value(kind: int, x: float, above: float, below: float) -> Any:
    """(h, l) of any float32 that is no NaN.

    Far out: tanh above 40 is 1 - 2**-114; erf above 4 is between 1 - 2**-25.9 and 1, which rounds to 1; ln(1
    + e**x) above 105 is x; x Phi(x) below -14.4 is less than e**-103.68 / 2.5, x e**x below -110 less than
    2**-151.
    """
    if kind == LOG:
        if x <= 0.0:
            return (-np.inf if x == 0.0 else np.nan), 0.0
        return _log(x) if x < np.inf else (np.inf, 0.0)
    if kind == ELU and x > 0.0:
        return above * x, 0.0
    if abs(x) < SMALL:
        return _small(kind, x, above, below)
    if kind in (SIN, COS):
        return _turned(kind, x) if abs(x) < np.inf else (np.nan, 0.0)
    if kind == TANH and abs(x) > 40.0:
        return math.copysign(1.0, x), 0.0
    if kind == ERF and abs(x) > 4.0:
        return math.copysign(1.0 - 2.0**-27, x), 0.0
    if kind == SOFTPLUS and abs(x) > 105.0:
        return (x if x > 0.0 else TINY), 0.0
    if kind == MISH and x > 50.0:
        return x, 0.0
    if x > 105.0 and kind not in (TANH, ERF):
        return x, 0.0
    if x < (-14.4 if kind == GELU else -110.0) and kind in (MISH, SILU, GELU, GELU_TANH):
        return -TINY, 0.0
    if kind == ELU and x < -100.0:
        return -below, 0.0
    return _usual(kind, x, below)


@njit
def _nearest(h: float, low: float) -> Any:
    """The float32 nearest to h + low of either sign."""
    if h < 0.0:
        return np.float32(-_rounded(-h, -low))
    return np.float32(_rounded(h, low))


@njit
def between(
    begin: int, end: int, kind: int, x: Any, above: float, below: float, wide: float, low: Any, high: Any
) -> None:
    """low and high: the float32 nearest to the ends of an interval that holds the value; items: elements.

    kind: its number in NAMES. above, below: ELU's factors for positive and negative x. wide: the relative
    half width, at least ERROR; products of two float32 are exact and have none. x, low, high: flat float32.
    NaN gives NaN, and so does the logarithm of a negative number.
    """
    x, low, high = x[begin:end], low[begin:end], high[begin:end]
    for i in range(x.size):
        wanted = np.float64(x[i])
        if x[i] != x[i]:
            low[i] = high[i] = np.float32(np.nan)
            continue
        h, rest = _value(kind, wanted, above, below)
        if h == 0.0 or h != h or abs(h) > HUGE:  # noqa: PLR0124
            low[i] = high[i] = np.float32(math.copysign(h, wanted) if h == 0.0 else h)
            continue
        exact = kind == ELU and wanted > 0.0
        halved = abs(wanted) < HALVED and kind in (SILU, GELU, GELU_TANH)
        off = 0.0 if exact or halved else wide * h
        low[i], high[i] = _nearest(h, rest - off), _nearest(h, rest + off)
