"""GELU with erf as in oneDNN 3: PyTorch hands whole arrays of float32 to it.

Source: oneDNN, src/cpu/x64/injectors/jit_uni_eltwise_injector.cpp (steps, coefficients): with AVX-512
gelu_erf_minimax_approx, with AVX2 M. Abramowitz and I. Stegun's formula 7.1.26 (Handbook of Mathematical
Functions).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.loops.fma import fma
from refnet.loops.jit import njit
from refnet.loops.libm import onednn, sleef

HALF, ONE = np.float32(0.5), np.float32(1)
ROOT_HALF = np.float32(0.70710678118654752440)
POLYNOMIALS = """
a6f2cb94 32827792 3381cc0c 34523d4a 351ac44d 35f36d88 36ee8229 37b8a3bb 3867a213
3940033b 3a2a5a1d 3ae35863 3b7828f2 3c08b14b 3c515ed3 bb503236 bd8d8e5e be8abcd9
bf0c19a2 beccb328 3e176ced 3f470d99 3f7abb28 3f800000 00000000
3f4c422a 3f4c421f 3f4c4207 3f4c41cb 3f4c413b 3f4c3fad 3f4c3a2f 3f4c2d40 3f4c146a
3f4bc341 3f4ad08c 3f48f8cf 3f45fac7 3f404e07 3f3b980f 3f48dff3 3f78b21b 3fbb0704
40019c32 3fe536d6 3f81331e 3e6c8684 3c98f936 00000000 3f800000
b62173f4 3735e4cf 37f2ff89 388c23be 3917535c 39ab2ab0 3a60fadb 3af9b960 3b6e5491
3c0a4ec5 3ca5aa8c 3d2138d9 3d8737d4 3ddfb660 3e0f27ab 3d94004b be0efdeb bf1d96c3
bf89db58 bf6d9897 bef69fb8 bdc4f8a8 bbde6422 00000000 00000000
be081a19 be084570 be08639b be089837 be08f409 be09ab95 be0b66d0 be0e400a be124df8
be1bde02 be2f19c9 be4931bf be685fbc be89c95f be96cbca be8044aa be0550f2 3dcfd6a1
3e94c826 3e79345f 3decec91 3ca46568 3aa1e00a 00000000 00000000
ba3d61db 39f097a3 3a5845dc 3ab1fa35 3b0cefb8 3b653ab6 3bcae527 3c221712 3c6c5840
3cc0a703 3d1dcc19 3d63656d 3d955907 3dbf9910 3dd53f69 3db7dcef 3d639ebe ba6ede48
bd22be69 bd041cf1 bc64f5ab bb097a32 b8ebf380 00000000 00000000
3cb7d80c 3c9b6050 3c978d11 3c92e850 3c8d058b 3c848454 3c6cd623 3c4c824b 3c2a7935
3be0b390 3b0651ac bb232f53 bbd42fa0 bc2c5366 bc492c9e bc2a7aa6 bbd55d04 ba823a76
3b102aa8 3ae25a7e 3a31f792 38b84375 3689bb5a 00000000 00000000
"""
"""The bits of the coefficients, in base 16: of degree 0 in 25 intervals of |x|, then of degree 1 ... 5."""
TABLE = np.array([int(word, 16) for word in POLYNOMIALS.split()], np.uint32).view(np.float32).reshape(6, 25)
BEFORE = np.int64(0xC21FFFFF) - np.int64(1 << 32)
"""Added to the bits of |x|: the rest's upper bits, two of the mantissa among them, count the intervals."""
FIRST, ONES, LAST = np.int64(1), np.int64(23), np.int64(24)
LIMIT = np.uint32(0x40B15CEE).view(np.float32)
"""Above it, some 5.54, erf is 1: the polynomial ONES. Only NaN has the LAST."""
T = np.float32(0.3275911)
R1, R2, R3 = np.float32(0.254829592), np.float32(-0.284496736), np.float32(1.421413741)
R4, R5 = np.float32(-1.453152027), np.float32(1.061405429)


@njit
def gelu(x: Any) -> Any:
    """With AVX-512: (x (1 + p)) / 2, p a polynomial in |x| of degree 5 with the sign of x."""
    size = np.abs(x)
    i = (np.int64(np.float32(size).view(np.int32)) + BEFORE) >> np.int64(21)
    i = ONES if size > LIMIT else min(max(i, FIRST), LAST)
    p = TABLE[5, i]
    for degree in range(4, -1, -1):
        p = fma(p, size, TABLE[degree, i])
    p = -p if np.signbit(x) else p
    return (x * (p + ONE)) * HALF


@njit
def quotient_and_tail(size: Any, power: Any) -> Any:
    """1 - e t r(t), t = 1 / (1 + T |x|), of |x| and e = e ** -x²: |erf x|."""
    t = ONE / fma(T, size, ONE)
    r = fma(fma(fma(fma(R5, t, R4), t, R3), t, R2), t, R1)
    return fma(-power * t, r, ONE)


@njit
def gelu_avx2(x: Any) -> Any:
    """With AVX2: s + s erf(x sqrt(1/2)), s = x/2, e by oneDNN's exp."""
    v = x * ROOT_HALF
    y = quotient_and_tail(np.abs(v), onednn.expf(-(v * v), True))
    half = x * HALF
    return fma(-y if np.signbit(x) else y, half, half)


@njit
def erf(x: Any) -> Any:
    """PyTorch's own vectors, where it does not ask oneDNN: the same with SLEEF's exp."""
    y = quotient_and_tail(np.abs(x), sleef.expf(-(x * x)))
    return -y if np.signbit(x) else y
