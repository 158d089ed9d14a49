"""exp and logistic as in oneDNN's generated code: MXNet's Activation and softmax compute with them.

Source: oneDNN, src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp, exp_compute_vector_fwd and
logistic_compute_vector_fwd (steps), and its table of constants. Where the instruction set has no FMA (SSE4.1,
AVX), each multiply-add is a product and a sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.loops.bits32 import largest, least, multiply_add, power_of_two
from refnet.loops.jit import njit

LOG2_E = np.uint32(0x3FB8AA3B).view(np.float32)
LN2 = np.uint32(0x3F317218).view(np.float32)
LOG_MAX = np.uint32(0x42B17218).view(np.float32)  # ln of the largest float32
LOG_MIN = np.uint32(0xC2AEAC50).view(np.float32)  # ln of the smallest normal one
P1, P2, P3, P4, P5 = np.array([0x3F7FFFFB, 0x3EFFFEE3, 0x3E2AAD40, 0x3D2B9D0D, 0x3C07CFCE], np.uint32).view(
    np.float32
)


@njit
def expf(x: Any, fused: bool) -> Any:
    """e ** x: n = floor(x log2 e + 1/2), r = x - n ln 2, p(r) of degree 5, times 2**(n - 1), times 2.

    +0 below ln of the smallest normal number, and where n = -126, since 2**(n - 1) has no exponent left;
    x is cut to ln of the largest number, and the comparison makes that of NaN too: exp(NaN) is 3.4e38.
    """
    one, zero = np.float32(1), np.float32(0)
    inside = largest(least(x, LOG_MAX), LOG_MIN)
    n = np.floor(inside * LOG2_E + np.float32(0.5))
    r = multiply_add(-n, LN2, inside, fused)
    p = multiply_add(P5, r, P4, fused)
    p = multiply_add(p, r, P3, fused)
    p = multiply_add(p, r, P2, fused)
    p = multiply_add(p, r, P1, fused)
    p = multiply_add(p, r, one, fused)
    power = power_of_two(np.int32(n - one))
    power = zero if x < LOG_MIN else power
    return (p * power) * np.float32(2)


@njit
def logistic(x: Any, fused: bool) -> Any:
    """1 / (1 + e ** -x): e = exp(-|x|), q = e / (e + 1); q for x with a minus sign (-0 too), else 1 - q."""
    one = np.float32(1)
    negative = np.float32(x).view(np.int32) < np.int32(0)
    e = expf(-abs(x), fused)
    q = e / (e + one)
    return q if negative else one - q
