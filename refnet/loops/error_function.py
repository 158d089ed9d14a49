"""erf and the normal distribution function in float64, with a proven error: one polynomial and a fraction.

With q(z) = 2 / sqrt(pi) * the integral of e ** -(z s**2) over s from 0 to 1, erf x = x q(x**2). For z from 0
to 16 q is SERIES, a polynomial in t = z/8 - 1: the Taylor series there to t**60, shortened to 28 terms by
Chebyshev's polynomials, which deviate least. What follows t**60 is below 2**-110; of what is taken off 2**-56
is left at most. |t| <= 1 is off by U / 2, and |q'| < 3.1; a fused multiply-add is off by U times its result,
at most the sum of |coefficients| from there on, over all steps 4.2 U; the coefficients' own roundings are 1.2
U together. q > 0.2499, so its error is below 30 U < 2**-48. Near z = 0, where q > 1, it is a quarter of that.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from refnet.core.engine import F64
from refnet.loops.fma import fma
from refnet.loops.functions import exp
from refnet.loops.jit import njit

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
HALF = 8
"""z = HALF (1 + t)."""
NEAR, NEAR_GELU = 4.0, 5.625
"""SERIES has erf up to here, and x Phi(x), which is x/2 (1 + erf(x / sqrt 2)): x**2 / 2 is below 16."""
TAYLOR, TERMS = 60, 28
FRACTIONS = 100
"""Levels of Laplace's continued fraction."""
ROOT_TWO = math.sqrt(2.0)
TINY = 2.0**-160
"""Rounds to a zero of float32."""


def _series() -> list[Decimal]:
    """The coefficients of q in t: 2 / sqrt(pi) (-HALF)**n / n! times the integral of s**2n e ** -(HALF s**2).

    Integrals by their recurrence downward, which divides what was wrong at its start by 2 n - 1 each time.
    """
    power, integral = Decimal(-HALF).exp(), Decimal(0)
    made = []
    for n in range(2 * TAYLOR, -1, -1):
        integral = (2 * HALF * integral + power) / (2 * n + 1)
        made.append(2 / PI.sqrt() * integral * Decimal(-HALF) ** n / math.factorial(n))
    return made[::-1][: TAYLOR + 1]


def _shortened(series: list[Decimal], terms: int) -> list[Decimal]:
    """From the highest power of t down, Chebyshev's polynomial of that degree is taken off, times what makes
    the power vanish; for |t| <= 1 it is at most that factor."""
    chebyshev = [[1], [0, 1]]
    while len(chebyshev) < len(series):
        before, last = chebyshev[-2:]
        twice = [0, *(2 * a for a in last)]
        chebyshev.append([a - b for a, b in zip(twice, [*before, 0, 0], strict=True)])
    left = list(series)
    for n in range(len(series) - 1, terms - 1, -1):
        factor = left[n] / chebyshev[n][n]
        left = [a - factor * b for a, b in zip(left[:n], chebyshev[n], strict=False)]
    return left


with localcontext() as _context:
    _context.prec = 60
    SERIES: F64 = np.array([float(c) for c in _shortened(_series(), TERMS)])
    BY_ROOT_TWO_PI = float(1 / (2 * PI).sqrt())
    BY_ROOT_EIGHT = float(1 / Decimal(8).sqrt())
del _context


@njit
def quotient(z: Any) -> Any:
    """q(z), that is erf(sqrt z) / sqrt z, for z from 0 to 16; error below 2**-48."""
    t = fma(z, 1.0 / HALF, -1.0)
    y = SERIES[TERMS - 1]
    for n in range(TERMS - 2, -1, -1):
        y = fma(y, t, SERIES[n])
    return y


@njit
def near_erf(x: Any) -> Any:
    """erf x for |x| <= NEAR; elsewhere any number. x**2 is exact, and erf below 2**-900 is not needed."""
    return x * quotient(x * x)


@njit
def near_gelu(x: Any) -> Any:
    """x Phi(x) for x from -2 to NEAR_GELU; elsewhere any number.

    Phi(x) = 1/2 + x q(x**2 / 2) / sqrt 8. At -2 the product is 21 times as large as the sum, and off by 14 U.
    """
    return x * fma(x * BY_ROOT_EIGHT, quotient(0.5 * x * x), 0.5)


@njit
def upper(a: Any, levels: int) -> Any:
    """Phi(-a), the normal distribution above a >= 2, error below 2**-47 with FRACTIONS levels.

    Laplace's continued fraction: phi(a) / (a + 1/(a + 2/(a + 3/(a + ...)))), whose convergents lie on both
    sides of it, at a = 2 the 100th within 2**-51. The density phi has an exact exponent.
    """
    f = a
    for n in range(levels, 0, -1):
        f = float(n) / f + a
    return BY_ROOT_TWO_PI * exp(-0.5 * a * a) / f


@njit
def erf(x: Any) -> Any:
    """erf x, error below 2**-47: `near_erf`, 1 - 2 Phi(-|x| sqrt 2) beyond 4, and 1 beyond 6.

    Beyond 4 the difference from 1 is below 2**-25, and 20 levels have it to 2**-40. 1 - erf(6) < 2**-55.
    """
    if x != x:  # noqa: PLR0124
        return x
    size = abs(x)
    if size <= NEAR:
        return near_erf(x)
    return math.copysign(1.0 if size > 6.0 else 1.0 - 2.0 * upper(size * ROOT_TWO, 20), x)


@njit
def gelu(x: Any) -> Any:
    """x Phi(x), error below 2**-44: `near_gelu` from -2 on, with 1 - Phi(-x) beyond NEAR_GELU, x beyond 9."""
    if x < -16.0:
        return -TINY
    if x > 9.0 or x != x:  # noqa: PLR0124
        return x
    if -2.0 <= x <= NEAR_GELU:
        return near_gelu(x)
    part = upper(abs(x), FRACTIONS)
    return x * (part if x < 0.0 else 1.0 - part)
