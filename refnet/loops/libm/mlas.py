"""exp and logistic as in MLAS, the kernels of ONNX Runtime: Softmax and Sigmoid compute with them.

Source: ONNX Runtime, onnxruntime/core/mlas/lib: compute.cpp, logistic.cpp (constants, steps),
x86_64/TransKernelAvx512F.S, TransKernelFma3.S and LogisticKernelFma3.S. The logistic is Eigen's quotient of
polynomials. Without FMA (SSE2) each multiply-add is a product and a sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.loops.bits32 import largest, least, power_of_two, scaled
from refnet.loops.fma import fma
from refnet.loops.jit import njit

LOWEST_512 = np.float32(-103.9720840454)
LOWEST = np.float32(-88.3762626647949)
HIGHEST = np.float32(90)  # e ** 90 overflows
BIAS = np.float32(12582912.0)  # 1.5 * 2**23: adding it rounds to the nearest integer
LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH = np.float32(6.93145752e-1)
LN2_LOW = np.float32(1.42860677e-6)
E6, E5, E4 = (np.float32(float.fromhex(c)) for c in ("0x1.694p-10", "0x1.125edcp-7", "0x1.555b5ap-5"))
E3, E2 = (np.float32(float.fromhex(c)) for c in ("0x1.55545p-3", "0x1.fffff6p-2"))

LIMIT = np.float32(18)
A9, A7, A5 = map(np.float32, (4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05))
A3, A1 = map(np.float32, (8.51377133304701e-03, 2.48287947061529e-01))
B10, B8, B6 = map(np.float32, (6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06))
B4, B2, B0 = map(np.float32, (1.70198817374094e-03, 1.16817656904453e-01, 9.93151921023180e-01))


@njit
def expf(x: Any, avx512: bool) -> Any:
    """e ** x: m = nearest(x / ln 2), r = x - m ln 2 in two parts, p(r) of degree 6, times 2**m.

    x is cut below, and here above, where the result is infinite. With AVX-512 a scaling instruction
    multiplies by 2**m, so results may be subnormal; without, 2**m is made of its exponent's bits, which are 0
    for m = -127, and so is the result. NaN stays.
    """
    one = np.float32(1)
    cut = largest(LOWEST_512 if avx512 else LOWEST, x)
    cut = HIGHEST if cut > HIGHEST else cut
    usual = cut if cut == cut else np.float32(0)  # noqa: PLR0124
    m = fma(usual, LOG2_E, BIAS) - BIAS
    r = fma(m, -LN2_LOW, fma(m, -LN2_HIGH, usual))
    p = fma(E6, r, E5)
    p = fma(p, r, E4)
    p = fma(p, r, E3)
    p = fma(p, r, E2)
    p = fma(p, r, one)
    p = fma(p, r, one)
    y = scaled(p, np.int32(m)) if avx512 else p * power_of_two(np.int32(m))
    return y if cut == cut else cut  # noqa: PLR0124


@njit
def logistic(x: Any) -> Any:
    """1/2 + x a(x²) / b(x²) for x cut to -18 and 18, not below 0; NaN stays."""
    v = least(LIMIT, largest(-LIMIT, x))
    s = v * v
    a = fma(s, A9, A7)
    a = fma(a, s, A5)
    a = fma(a, s, A3)
    a = fma(a, s, A1) * v
    b = fma(s, B10, B8)
    b = fma(b, s, B6)
    b = fma(b, s, B4)
    b = fma(b, s, B2)
    b = fma(b, s, B0)
    return largest(np.float32(0), a / b + np.float32(0.5))
