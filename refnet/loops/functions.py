"""exp, from additions and multiplications only, so that its bits are the same on every machine.

The C library's exp differs between systems in its last bit; this one is made of IEEE float64
operations in a fixed order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnet.loops.fma import fma
from refnet.loops.jit import njit

LOG2_E = 1.4426950408889634  # 1 / ln 2 rounded to float64
LN2_HIGH = float.fromhex("0x1.62e42fefa0000p-1")  # the leading 36 bits of ln 2: n * LN2_HIGH is exact
LN2_LOW = float.fromhex("0x1.cf79abc9e3b3ap-40")  # ln 2 - LN2_HIGH, rounded
INVERSE_FACTORIALS = np.array([1.0 / math.factorial(i) for i in range(14)])
SHIFT = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to the nearest integer


@njit
def power_of_two(shifted: Any) -> Any:
    """2**n for shifted = n + SHIFT, whose last bits hold n: they become the exponent. |n| < 1023."""
    return np.int64((np.float64(shifted).view(np.int64) + 1023) << 52).view(np.float64)


@njit
def exp(x: Any) -> Any:
    """e ** x in float64 for a float64 x; relative error below 2**-50 where the result is normal.

    x = n ln 2 + r with |r| <= 0.35, exp(r) by its Taylor series to r**13 (the next term is below
    0.35**14 / 14! < 2**-57), times 2**n. Results beyond float32's range become 0 and inf, which is
    what a caller that rounds to float32 gets anyway. NaN gives NaN.
    """
    inside = x if x < 128.0 else 128.0  # NaN too; e**128 > 2**184: inf in float32
    inside = inside if inside > -128.0 else -128.0
    shifted = inside * LOG2_E + SHIFT
    n = shifted - SHIFT
    r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, inside))
    y = INVERSE_FACTORIALS[13]
    for i in range(12, -1, -1):
        y = fma(y, r, INVERSE_FACTORIALS[i])
    y = y * power_of_two(shifted)
    y = np.inf if x > 128.0 else y
    y = 0.0 if x < -128.0 else y
    return y if x == x else x  # noqa: PLR0124
