"""Arguments of sine and cosine modulo pi/2 a second time, by whole numbers, to prove the first.

Nothing is shared with loops/trigonometry.py: pi comes from Machin's formula, the table holds whole numbers,
and the products are added in 128 bits.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.loops.fma import fma
from refnet.loops.jit import njit

LEAST = 0.5
"""Smaller arguments are their own remainder."""
BITS = 126
"""After the point of a fixed-point number; two before it."""
DIGITS = 600
"""Bits of pi."""


def _pi() -> Fraction:
    """16 arctan(1/5) - 4 arctan(1/239), off by less than 2**(8 - DIGITS)."""

    def arctan(by: int) -> int:
        term, total, k = (1 << DIGITS) // by, 0, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term, k = term // (by * by), k + 2
        return total

    return Fraction(16 * arctan(5) - 4 * arctan(239), 1 << DIGITS)


def _words() -> npt.NDArray[np.uint64]:
    """(129, 4): 2**(e - 24) * 2/pi modulo 4 in units of 2**-BITS, in words of 32 bits, the lowest first."""
    table = np.empty((129, 4), np.uint64)
    for e in range(129):
        number = int(2 / _PI * Fraction(2) ** (e - 24) * 2**BITS) % 2 ** (BITS + 2)
        table[e] = [number >> 32 * k & 0xFFFFFFFF for k in range(4)]
    return table


_PI = _pi()
WORDS = _words()
HALF_HIGH = float(_PI / 2)
HALF_LOW = float(_PI / 2 - Fraction(HALF_HIGH))
MASK, HALF_WORD = np.uint64(0xFFFFFFFF), np.uint64(32)
TOP = np.uint64(62)
ONE, FRACTION = np.uint64(1), np.uint64((1 << 62) - 1)


@njit
def quarters(x: float) -> Any:
    """(n, (h, l)): x = n pi/2 + h + l for a float32 |x| >= LEAST, n modulo 4, the remainder within pi/4.

    x is m 2**(e - 24), m below 2**24. m times a word is below 2**56, so the sums of a word's product and the
    carry are exact: together x 2/pi modulo 4 with BITS bits, off by m 2**-BITS, below 2**-102. Where the
    remainder is at least 2**-30, that is a part of 2**-72. A fraction of a half or more belongs to the next
    n, and what is left is negative. Its four words become float64 exactly, and are added.
    """
    fraction, e = math.frexp(abs(x))
    m = np.uint64(fraction * 16777216.0)
    carry = np.uint64(0)
    p0 = m * WORDS[e, 0]
    p1 = m * WORDS[e, 1] + (p0 >> HALF_WORD)
    p2 = m * WORDS[e, 2] + (p1 >> HALF_WORD)
    p3 = m * WORDS[e, 3] + (p2 >> HALF_WORD)
    low = (p1 & MASK) << HALF_WORD | (p0 & MASK)
    high = (p3 & MASK) << HALF_WORD | (p2 & MASK)
    n = np.int64(high >> TOP)
    high = high & FRACTION
    negative = high >> np.uint64(61) == ONE
    if negative:
        n += 1
        low = ~low + ONE
        carry = ONE if low == np.uint64(0) else np.uint64(0)
        high = (~high + carry) & FRACTION
    # (h, l) of high 2**-62 + low 2**-126
    a = np.float64(high >> HALF_WORD) * 2.0**-30
    b = np.float64(high & MASK) * 2.0**-62
    c = np.float64(low >> HALF_WORD) * 2.0**-94 + np.float64(low & MASK) * 2.0**-126
    s = a + b
    rest = (b - (s - a)) + c
    h = s + rest
    low_part = rest - (h - s)
    y = h * HALF_HIGH
    z = fma(h, HALF_HIGH, -y) + fma(h, HALF_LOW, low_part * HALF_HIGH)
    if negative != (x < 0.0):
        y, z = -y, -z
    return (-n if x < 0.0 else n) & 3, (y, z)
