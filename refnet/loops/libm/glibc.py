"""expf as in glibc since 2.28: what std::exp of a float32 is on Linux.

Source: S. Nagy's expf of ARM's optimized routines (math/expf.c, exp2f_data.c: steps and coefficients), which
glibc took over: e ** x = 2**(k / 32) 2**(r / 32), a table and a polynomial of degree 3, all in float64.
glibc has it compiled with and without FMA and takes what the processor has. Of all inputs, two tell them
apart: 32.564632 and -63.09946.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from refnet.loops.bits32 import multiply_add
from refnet.loops.jit import njit

BITS = 5
STEPS = 1 << BITS
TABLE = np.array([float(Decimal(2) ** (Decimal(i) / STEPS)) for i in range(STEPS)]).view(np.int64)
"""The bits of 2**(i / 32), correctly rounded."""
INVERSE_LN2 = float.fromhex("0x1.71547652b82fep+0") * STEPS
SHIFT = float.fromhex("0x1.8p+52")  # adding it rounds to the nearest integer, which the last bits then hold
C3 = float.fromhex("0x1.c6af84b912394p-5") / STEPS**3
C2 = float.fromhex("0x1.ebfce50fac4f3p-3") / STEPS**2
C1 = float.fromhex("0x1.62e42ff0c52d6p-1") / STEPS
HIGHEST = np.float32(float.fromhex("0x1.62e42ep6"))  # above it, e ** x overflows
LOWEST = np.float32(float.fromhex("-0x1.9fe368p6"))  # below it, e ** x is less than half the smallest float32


@njit
def expf(x: Any, fused: bool) -> Any:
    """e ** x, inf above HIGHEST, 0 below LOWEST, NaN for NaN. fused: the code compiled for FMA, where the
    compiler contracts every multiplication and addition of a product.
    """
    inside = x if x < HIGHEST else HIGHEST  # NaN too
    wide = np.float64(inside if inside > LOWEST else LOWEST)
    z = multiply_add(INVERSE_LN2, wide, SHIFT, fused)
    k = np.float64(z).view(np.int64)
    r = multiply_add(INVERSE_LN2, wide, SHIFT - z, fused)
    scale = np.int64(TABLE[k & (STEPS - 1)] + (((k - (k & (STEPS - 1))) >> BITS) << 52)).view(np.float64)
    p = multiply_add(C3, r, C2, fused)
    y = multiply_add(p, r * r, multiply_add(C1, r, 1.0, fused), fused)
    e = np.float32(y * scale)
    e = np.float32(np.inf) if x > HIGHEST else e
    e = np.float32(0) if x < LOWEST else e
    return e if x == x else x  # noqa: PLR0124
