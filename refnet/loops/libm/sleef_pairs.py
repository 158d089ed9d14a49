"""expm1f, tanhf, logf and log1pf as in SLEEF 3, accuracy 1.0 ulp: PyTorch's vectors compute with them.

They work with pairs h + l of float32, unevaluated. Source: as for sleef.py; xexpm1f, xtanhf,
xlogf_u1, xlog1pf and expk2f in sleefsimdsp.c, the pairs in df.h, in the variants with FMA, which AVX2 and
AVX-512 use alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.loops.bits32 import power_of_two, scaled
from refnet.loops.fma import fma
from refnet.loops.jit import njit
from refnet.loops.libm.sleef import LN2_HIGH, LN2_LOW, LOG2_E

ONE, TWO = np.float32(1), np.float32(2)
LN2, LN2_REST = np.float32(0.69314718246459960938), np.float32(-1.904654323148236017e-09)
E7, E6, E5 = np.float32(0.1980960224e-3), np.float32(0.1394256484e-2), np.float32(0.8333456703e-2)
E4, E3, E2 = np.float32(0.4166637361e-1), np.float32(0.166666659414234244790680580464), np.float32(0.5)
L7, L5, L3 = np.float32(0.3027294874), np.float32(0.3996108174), np.float32(0.6666694880)
FOUR_THIRDS = ONE / np.float32(0.75)


@njit
def add(x: Any, y: Any) -> Any:
    """The pair x + y of two pairs, |x| >= |y|."""
    h = x[0] + y[0]
    return h, ((x[0] - h) + y[0] + x[1]) + y[1]


@njit
def add_number(x: Any, y: Any) -> Any:
    """The pair x + y of a pair and a number of any sizes."""
    h = x[0] + y
    v = h - x[0]
    return h, ((x[0] - (h - v)) + (y - v)) + x[1]


@njit
def multiply(x: Any, y: Any) -> Any:
    """The pair x y of two pairs."""
    h = x[0] * y[0]
    return h, fma(x[0], y[1], fma(x[1], y[0], fma(x[0], y[0], -h)))


@njit
def multiply_number(x: Any, y: Any) -> Any:
    """The pair x y of a pair and a number."""
    h = x[0] * y
    return h, fma(x[1], y, fma(x[0], y, -h))


@njit
def square(x: Any) -> Any:
    """The pair x**2 of a pair."""
    h = x[0] * x[0]
    return h, fma(x[0] + x[0], x[1], fma(x[0], x[0], -h))


@njit
def reciprocal(x: Any) -> Any:
    """The pair 1/x of a pair."""
    h = ONE / x[0]
    return h, h * fma(-x[1], h, fma(-x[0], h, ONE))


@njit
def divide(x: Any, y: Any) -> Any:
    """The pair x / y of two pairs."""
    t = ONE / y[0]
    h = x[0] * t
    u = fma(t, x[0], -h)
    rest = fma(-y[1], t, fma(-y[0], t, ONE))
    return h, fma(h, rest, fma(x[1], t, u))


@njit
def exp_pair(x: Any) -> Any:
    """e ** x as a pair: n = nearest(x / ln 2), s = x - n ln 2 a pair, 1 + (s + s² p(s)), times 2**n."""
    inside = x if x < np.float32(105) else np.float32(105)  # NaN too: 105
    inside = inside if inside > np.float32(-105) else np.float32(-105)
    n = np.rint(inside * LOG2_E)
    s = add_number(add_number((inside, np.float32(0)), n * -LN2_HIGH), n * -LN2_LOW)
    u = fma(fma(fma(E7, s[0], E6), s[0], E5), s[0], E4)
    t = add_number(multiply_number(s, u), E3)
    t = add_number(multiply(s, t), E2)
    p = multiply(square(s), t)
    h = s[0] + p[0]
    v = h - s[0]
    t = h, ((s[0] - (h - v)) + (p[0] - v)) + (s[1] + p[1])
    h = ONE + t[0]
    t = h, ((ONE - h) + t[0]) + t[1]
    if x < np.float32(-104):
        return np.float32(0), np.float32(0)
    return scaled(t[0], np.int32(n)), scaled(t[1], np.int32(n))


@njit
def expm1f(x: Any) -> Any:
    """e ** x - 1: inf above 88.7228, -1 below -16.6355; -0 stays."""
    d = add_number(exp_pair(x), -ONE)
    y = d[0] + d[1]
    y = np.float32(np.inf) if x > np.float32(88.72283172607421875) else y
    y = -ONE if x < np.float32(-16.635532333438687426013570) else y
    y = x if x == 0 and np.signbit(x) else y
    return y if x == x else x  # noqa: PLR0124


@njit
def tanhf(x: Any) -> Any:
    """(d - 1/d) / (d + 1/d) with d = e ** |x|: 1 above 8.6643; the sign of x."""
    size = np.abs(x)
    d = exp_pair(size)
    e = reciprocal(d)
    q = divide(add(d, (-e[0], -e[1])), add(d, e))
    y = q[0] + q[1]
    y = ONE if size > np.float32(8.664339742) or y != y else y  # noqa: PLR0124
    y = np.copysign(y, x)
    return y if x == x else x  # noqa: PLR0124


@njit
def exponent(x: Any) -> Any:
    """The exponent of 4/3 x, for a positive normal x: x / 2**exponent lies between 3/4 and 3/2."""
    bits = np.float32(x * FOUR_THIRDS).view(np.int32)
    return np.int32((bits >> np.int32(23)) & np.int32(0xFF)) - np.int32(127)


@njit
def log_tail(e: Any, x: Any) -> Any:
    """e ln 2 + 2 artanh(x), x a pair: the last steps."""
    square_ = x[0] * x[0]
    t = fma(fma(L7, square_, L5), square_, L3)
    s = add(multiply_number((LN2, LN2_REST), np.float32(e)), (x[0] * TWO, x[1] * TWO))
    more = (square_ * x[0]) * t
    h = s[0] + more
    return h + (((s[0] - h) + more) + s[1])


@njit
def logf(x: Any) -> Any:
    """ln x: x = m 2**e, e ln 2 + 2 artanh((m - 1) / (m + 1)); for normal numbers, infinity and NaN."""
    if not x > np.float32(0):
        return np.float32(-np.inf) if x == 0 else np.float32(np.nan)
    if x == np.float32(np.inf):
        return x
    e = exponent(x)
    m = scaled(x, np.int32(-e))
    low, high = add_number((m, np.float32(0)), -ONE), add_number((m, np.float32(0)), ONE)
    return log_tail(e, divide(low, high))


@njit
def log1pf(x: Any) -> Any:
    """ln(1 + x): 1 + x = (1 + m) 2**e, e ln 2 + 2 artanh(m / (2 + m)).

    -0 stays. Infinite above 1e38, where torch.log1p is not: nothing here asks for that.
    """
    if not x > -ONE:
        return np.float32(-np.inf) if x == -ONE else np.float32(np.nan)
    if x > np.float32(1e38):
        return np.float32(np.inf)
    if x == 0 and np.signbit(x):
        return x
    e = exponent(x + ONE)
    t = power_of_two(np.int32(-e))
    m = fma(x, t, t - ONE)
    h = TWO + m
    return log_tail(e, divide((m, np.float32(0)), (h, (TWO - h) + m)))
