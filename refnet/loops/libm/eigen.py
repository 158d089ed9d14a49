"""exp, log and log1p of Eigen's packets: ONNX Runtime computes Elu, Selu, Celu, Softplus and Log with them.

Source: Eigen, src/Core/arch/Default/GenericPacketMathFunctions.h (steps, coefficients): pexp_float,
plog_float and generic_plog1p, which is W. Kahan's formula. ONNX Runtime's packages for x86-64 have them
compiled for SSE, without FMA: four elements at a time; what is left over is glibc's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.loops.bits32 import scaled
from refnet.loops.jit import njit

HALF, ONE = np.float32(0.5), np.float32(1)
HIGHEST, LOWEST = np.float32(88.723), np.float32(-104)
LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH, LN2_LOW = np.float32(-0.693359375), np.float32(2.12194440e-4)
E2, E3 = np.float32(0.49999988079071044921875), np.float32(0.16666518151760101318359375)
E4, E5 = np.float32(4.166965186595916748046875e-2), np.float32(8.36894474923610687255859375e-3)
E6 = np.float32(1.37449637986719608306884765625e-3)
ROOT_HALF, LN2 = np.float32(0.707106781186547524), np.float32(0.693147180559945309)
P1, P2, P3 = map(np.float32, (1.0000000190281136, 1.0000000190281063, 0.18256296349849254))
Q1, Q2, Q3 = map(np.float32, (1.4999999999999927, 0.59923249590823520, 0.049616247954120038))


@njit
def expf(x: Any) -> Any:
    """e ** x: m = floor(x / ln 2 + 1/2), r = x - m ln 2 in two parts, p(r) of degree 6, times 2**m.

    0 below -104; NaN stays.
    """
    inside = x if x < HIGHEST else HIGHEST  # NaN too
    inside = inside if inside > LOWEST else LOWEST
    m = np.floor(inside * LOG2_E + HALF)
    r = (m * LN2_HIGH + inside) + m * LN2_LOW
    square = r * r
    even = square * (square * E6 + E4) + E2
    odd = square * E5 + E3
    y = scaled(square * (r * odd + even) + (r + ONE), np.int32(m))
    y = np.float32(0) if x < LOWEST else y
    y = x if x > y else y  # for infinity
    return y if x == x else x  # noqa: PLR0124


@njit
def _parts(x: Any) -> Any:
    """m from 1/2 to 1 and e with x = m 2**e, for a positive finite x."""
    tiny = x < np.float32(2.0**-126)
    bits = np.float32(x * np.float32(2.0**24) if tiny else x).view(np.int32)
    m = np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)).view(np.float32)
    return m, np.float32((bits >> np.int32(23)) - np.int32(150 if tiny else 126))


@njit
def logf(x: Any) -> Any:
    """ln x = e ln 2 + f P(f) / Q(f), x = (1 + f) 2**e, 1 + f between sqrt(1/2) and sqrt(2)."""
    if not x > np.float32(0):
        return np.float32(-np.inf) if x == 0 else np.float32(np.nan)
    if x == np.float32(np.inf):
        return x
    m, e = _parts(x)
    f = (m - ONE) + m if m < ROOT_HALF else m - ONE
    e = e - ONE if m < ROOT_HALF else e
    p = f * (f * (f * P3 + P2) + P1)
    q = f * (f * (f * Q3 + Q2) + Q1) + ONE
    return e * LN2 + p / q


@njit
def log1pf(x: Any) -> Any:
    """ln(1 + x) = x (ln u / (u - 1)), u = 1 + x rounded; x if u is 1 or infinity."""
    u = x + ONE
    log = logf(u)
    if u == ONE:
        return x
    return x if u == log else x * (log / (u - ONE))
