"""expf as in SLEEF 3: PyTorch's vectors of float32 compute exp, sigmoid and softmax with it.

Source: N. Shibata and F. Petrogalli, SLEEF: A Portable Vectorized Library of C Standard Mathematical
Functions, IEEE TPDS 31(6), 2020; coefficients and steps of xexpf in its sleefsimdsp.c (accuracy 1.0 ulp),
in the variants with FMA, which AVX2 and AVX-512 use alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.loops.bits32 import scaled
from refnet.loops.fma import fma
from refnet.loops.jit import njit

LOG2_E = np.float32(1.442695040888963407)
LN2_HIGH = np.float32(0.693145751953125)
LN2_LOW = np.float32(1.428606765330187045e-06)
C2, C3, C4 = np.float32(0.5), np.float32(0.166666671633720397949), np.float32(0.0416664853692054748535)
C5, C6 = np.float32(0.00833336077630519866943), np.float32(0.00139304355252534151077)
C7 = np.float32(0.000198527617612853646278)


@njit
def expf(x: Any) -> Any:
    """e ** x: n = nearest(x / ln 2), r = x - n ln 2 in two parts, 1 + (r + r² p(r)), times 2**n.

    0 below -104, inf above 100, NaN for NaN; subnormal results are rounded a second time.
    """
    one = np.float32(1)
    inside = x if x < np.float32(101) else np.float32(101)  # NaN too: 101
    inside = inside if inside > np.float32(-105) else np.float32(-105)
    n = np.rint(inside * LOG2_E)
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, inside))
    p = fma(fma(fma(fma(fma(C7, r, C6), r, C5), r, C4), r, C3), r, C2)
    y = scaled(one + fma(r * r, p, r), np.int32(n))
    y = np.float32(0) if x < np.float32(-104) else y
    y = np.float32(np.inf) if x > np.float32(100) else y
    return y if x == x else x  # noqa: PLR0124
