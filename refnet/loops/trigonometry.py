"""Sine and cosine in float64, of every float32, with a proven error.

    sin, cos ── quarter: x = (n + f) pi/2, |f| <= 1/2 ── sin_series or cos_series of f pi/2 ── sign by n

U is 2**-53. pi has 80 decimals here, which is 2**-262: more than any float32 needs.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.loops.jit import njit

PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
HALF_PI = float(PI / 2)
TWO_BY_PI = float(2 / PI)
QUARTER_PI = 0.785
"""Below it no multiple of pi/2 is taken off."""
WIDEST = 2.0**24
"""A float64 beyond it that is no float32 has no result."""
SHIFT = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to the nearest integer
PIECE = 29
"""Bits of a piece of the table: 24 bits times 29 are exact in float64."""


def _table() -> npt.NDArray[np.float64]:
    """(129, 4): 2**(e - 24) * 2/pi modulo 4 for the exponents e = 0 to 128, as the sum of four pieces.

    The first three are multiples of 2**-27, 2**-56 and 2**-85, each below the last place of the one before;
    the fourth is the rest, rounded.
    """
    table = np.empty((129, 4))
    for e in range(129):
        rest = 2 / PI * Fraction(2) ** (e - 24) % 4
        for k in range(3):
            unit = Fraction(1, 2 ** (PIECE * (k + 1) - 2))
            piece = rest // unit * unit
            table[e, k] = float(piece)
            rest -= piece
        table[e, 3] = float(rest)
    return table


TABLE = _table()
SIN = np.array([float(Fraction((-1) ** n, math.factorial(2 * n + 1))) for n in range(10)])
COS = np.array([float(Fraction((-1) ** n, math.factorial(2 * n))) for n in range(11)])


@njit
def _two_sum(a: Any, b: Any) -> Any:
    """a + b rounded, and what the rounding lost, exactly."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


@njit
def quarter(x: Any) -> Any:
    """(n, r): x = n pi/2 + r, n modulo 4, |r| below 0.8; r off by the relative 4 U for a float32 x.

    A float32 is m 2**(e - 24), m whole and below 2**24. So x 2/pi modulo 4 is m times the table's pieces: the
    first three products are exact, the fourth is off by 2**-114. The first two, less the nearest integer, and
    the third are added with what their roundings lose. No float32 but 0 is closer to a multiple of pi/2 than
    2**-30 pi/2 (tests/loops/test_trigonometry.py has all exponents, by continued fractions), so the sum, off
    by 2**-106, has a relative error below 2**-70; rounding it and pi/2 and their product are less than 4 U.

    The part of a float64 that no float32 has, at most 2**-25 of it, is multiplied by 2/pi: off by 2**-53.
    """
    y = np.float64(np.float32(x))
    if abs(y) == np.inf or (y != x and not abs(x) <= WIDEST):
        return 0, np.nan
    fraction, e = math.frexp(y)
    m = fraction * 16777216.0
    whole = m * TABLE[e, 0]
    n = (whole + SHIFT) - SHIFT
    f, lost = _two_sum(whole - n, m * TABLE[e, 1])
    f, more = _two_sum(f, m * TABLE[e, 2])
    f = f + ((lost + more) + (m * TABLE[e, 3] + (x - y) * TWO_BY_PI))
    step = (f + SHIFT) - SHIFT
    return int(n + step) & 3, (f - step) * HALF_PI


@njit
def sin_series(r: Any) -> Any:
    """sin r for |r| <= 0.8: r (1 - r**2/3! + ... - r**18/19!), off by 3 U; the next term is below 2**-67."""
    z = r * r
    y = SIN[9]
    for n in range(8, 0, -1):
        y = y * z + SIN[n]
    return r * (1.0 + z * y)


@njit
def cos_series(r: Any) -> Any:
    """cos r for |r| <= 0.8: 1 - r**2/2! + ... + r**20/20!, off by 4 U; the next term is below 2**-75."""
    z = r * r
    y = COS[10]
    for n in range(9, 0, -1):
        y = y * z + COS[n]
    return 1.0 + z * y


@njit
def sin(x: Any) -> Any:
    """sin x, error below 2**-49 for a float32, absolute 2**-51 for other float64 up to WIDEST."""
    n, r = (0, x) if abs(x) < QUARTER_PI else quarter(x)
    y = cos_series(r) if n & 1 else sin_series(r)
    return -y if n & 2 else y


@njit
def cos(x: Any) -> Any:
    """cos x = sin(x + pi/2), error as for sin."""
    n, r = (0, x) if abs(x) < QUARTER_PI else quarter(x)
    y = sin_series(r) if n & 1 else cos_series(r)
    return -y if (n + 1) & 2 else y
