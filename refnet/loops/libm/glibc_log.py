"""logf and powf as in glibc since 2.28: what std::log and std::pow of float32 are on Linux.

Source: as for glibc.py: math/logf.c, powf.c and their data: tables and polynomials, all in float64, compiled
with and without FMA.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from refnet.loops.bits32 import multiply_add
from refnet.loops.jit import njit
from refnet.loops.libm.glibc import BITS, C1, C2, C3, SHIFT, STEPS, TABLE

INVERSES = np.array(
    [float.fromhex(f"0x1.{digits}p+0") for digits in ("661ec79f8f3be", "571ed4aaf883d", "49539f0f010b0")]
    + [float.fromhex(f"0x1.{digits}p+0") for digits in ("3c995b0b80385", "30d190c8864a5", "25e227b0b8ea0")]
    + [float.fromhex(f"0x1.{digits}p+0") for digits in ("1bb4a4a1a343f", "12358f08ae5ba", "0953f419900a7")]
    + [1.0]
    + [float.fromhex(f"0x1.{digits}p-1") for digits in ("e608cfd9a47ac", "ca4b31f026aa0", "b2036576afce6")]
    + [float.fromhex(f"0x1.{digits}p-1") for digits in ("9c2d163a1aa2d", "886e6037841ed", "767dcf5534862")]
)
"""1/c for 16 numbers c, one in each sixteenth of an octave."""
_LOGS = [-Decimal(float(v)).ln() for v in INVERSES]
LOGS = np.array([float(v) for v in _LOGS])
LOGS2 = np.array([float(v / Decimal(2).ln()) for v in _LOGS])
"""ln c, and log2 c, correctly rounded."""
LN2 = float.fromhex("0x1.62e42fefa39efp-1")
A0, A1 = float.fromhex("-0x1.00ea348b88334p-2"), float.fromhex("0x1.5575b0be00b6ap-2")
A2 = float.fromhex("-0x1.ffffef20a4123p-2")
B0, B1 = float.fromhex("0x1.27616c9496e0bp-2"), float.fromhex("-0x1.71969a075c67ap-2")
B2, B3 = float.fromhex("0x1.ec70a6ca7baddp-2"), float.fromhex("-0x1.7154748bef6c8p-1")
B4 = float.fromhex("0x1.71547652ab82bp0")
FIRST = np.int32(0x3F330000)
"""The bits of 0.699..., where the octave begins."""
OVERFLOWS = float.fromhex("0x1.fffffffd1d571p+6")
"""2**y rounds to infinity for greater y."""


@njit
def _taken_apart(x: Any, fused: bool) -> Any:
    """x = 2**k z, z in the octave, i its sixteenth: z / c - 1, k, i; for a positive finite x."""
    tiny = x < np.float32(2.0**-126)
    bits = np.float32(x * np.float32(2.0**23) if tiny else x).view(np.int32)
    bits = np.int32(bits - np.int32(23 << 23)) if tiny else bits
    above = np.int32(bits - FIRST)
    i = (above >> np.int32(19)) & np.int32(15)
    z = np.int32(bits - (above & np.int32(-(1 << 23)))).view(np.float32)
    return multiply_add(np.float64(z), INVERSES[i], -1.0, fused), np.float64(above >> np.int32(23)), i


@njit
def logf(x: Any, fused: bool) -> Any:
    """ln x = k ln 2 + ln c + ln(z / c). fused: the code compiled for FMA."""
    if not x > np.float32(0):
        return np.float32(-np.inf) if x == np.float32(0) else np.float32(np.nan)
    if x == np.float32(np.inf) or x == np.float32(1):
        return x - np.float32(1)
    r, k, i = _taken_apart(x, fused)
    y = multiply_add(A0, r * r, multiply_add(A1, r, A2, fused), fused)
    return np.float32(multiply_add(y, r * r, multiply_add(k, LN2, LOGS[i], fused) + r, fused))


@njit
def powf(x: Any, y: Any, odd: float, fused: bool) -> Any:
    """x ** y = 2 ** (y log2 x), y not 0. odd: 1 and 0 for an odd and an even y, -1 for others."""
    if x != x:  # noqa: PLR0124
        return x
    sign = np.float32(-1) if odd == 1.0 and np.signbit(x) else np.float32(1)
    size = np.abs(x)
    if size == np.float32(0) or size == np.float32(np.inf):
        return sign * (
            np.float32(0) if (size == np.float32(0)) == (y > np.float32(0)) else np.float32(np.inf)
        )
    if x < np.float32(0) and odd == -1.0:
        return np.float32(np.nan)
    r, k, i = _taken_apart(size, fused)
    square = r * r
    p = multiply_add(B0, r, B1, fused)
    q = multiply_add(B4, r, LOGS2[i] + k, fused)
    q = multiply_add(multiply_add(B2, r, B3, fused), square, q, fused)
    log = np.float64(y) * multiply_add(p, square * square, q, fused)
    if log > OVERFLOWS:
        return sign * np.float32(np.inf)
    if log <= -150.0:
        return sign * np.float32(0)
    z = log + SHIFT / STEPS
    k2 = np.float64(z).view(np.int64)
    r = log - (z - SHIFT / STEPS)
    scale = np.int64(TABLE[k2 & (STEPS - 1)] + (((k2 - (k2 & (STEPS - 1))) >> BITS) << 52)).view(np.float64)
    p = multiply_add(C3 * STEPS**3, r, C2 * STEPS**2, fused)
    e = multiply_add(p, r * r, multiply_add(C1 * STEPS, r, 1.0, fused), fused)
    return sign * np.float32(e * scale)
