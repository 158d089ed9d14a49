"""expm1f, log1pf, tanhf and erff of Sun's FDLIBM, as glibc 2.36 has them: std::expm1 and the like on Linux.

Source: FDLIBM, 1993, as float32 by I. L. Taylor: s_expm1f.c, s_log1pf.c, s_tanhf.c, s_erff.c (steps,
coefficients). glibc 2.36 has them compiled without FMA on x86-64; newer versions have other code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.loops.bits32 import power_of_two
from refnet.loops.jit import njit
from refnet.loops.libm import glibc

ZERO, HALF, ONE, TWO = map(np.float32, (0, 0.5, 1, 2))
THREE, SIX, TWO_THIRDS = np.float32(3), np.float32(6), np.float32(0.66666666666666666)
LN2_HIGH, LN2_LOW = np.float32(6.9313812256e-01), np.float32(9.0580006145e-06)
INVERSE_LN2 = np.float32(1.4426950216)
Q1, Q2, Q3 = map(np.float32, (-3.3333335072e-02, 1.5873016091e-03, -7.9365076090e-05))
Q4, Q5 = map(np.float32, (4.0082177293e-06, -2.0109921195e-07))
P1, P2, P3, P4 = map(np.float32, (6.6666668653e-01, 4.0000000596e-01, 2.8571429849e-01, 2.2222198546e-01))
P5, P6, P7 = map(np.float32, (1.8183572590e-01, 1.5313838422e-01, 1.4798198640e-01))


def _limit(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


HIGHEST = np.float32(8.8721679688e01)
LN2_27, LN2_HALF, LN2_ONE_AND_HALF = _limit(0x4195B844), _limit(0x3EB17218), _limit(0x3F851592)
ROOT_LESS_ONE, HALF_ROOT_LESS_ONE = _limit(0x3ED413D7), _limit(0xBE95F61F)
"""sqrt(2) - 1 and sqrt(1/2) - 1, about."""
ROOT_MANTISSA = np.int32(0x3504F7)
MANTISSA = np.int32(0x7FFFFF)
WHOLE = np.float32(2.0**54)


@njit
def _bits(x: Any) -> Any:
    return np.float32(x).view(np.int32)


@njit
def _float(bits: Any) -> Any:
    return np.int32(bits).view(np.float32)


@njit
def _times(y: Any, k: Any) -> Any:
    """y * 2**k by adding k to y's exponent."""
    return _float(_bits(y) + np.int32(k << np.int32(23)))


@njit
def expm1f(x: Any) -> Any:
    """e ** x - 1: k = x / ln 2 rounded, r = x - k ln 2 in two parts, a quotient of r², then 2**k."""
    size = np.abs(x)
    if not size < LN2_27:
        if x != x:  # noqa: PLR0124
            return x
        if x > HIGHEST:
            return np.float32(np.inf)
        if x < ZERO:
            return -ONE
    if size < np.float32(2.0**-25):
        return x
    k, r, c = np.int32(0), x, ZERO
    if size > LN2_HALF:
        if size < LN2_ONE_AND_HALF:
            k = np.int32(1) if x > ZERO else np.int32(-1)
        else:
            k = np.int32(INVERSE_LN2 * x + (HALF if x > ZERO else -HALF))
        high, low = x - np.float32(k) * LN2_HIGH, np.float32(k) * LN2_LOW
        r = high - low
        c = (high - r) - low
    half = HALF * r
    square = r * half
    p = ONE + square * (Q1 + square * (Q2 + square * (Q3 + square * (Q4 + square * Q5))))
    t = THREE - p * half
    e = square * ((p - t) / (SIX - r * t))
    if k == 0:
        return r - (r * e - square)
    e = (r * (e - c) - c) - square
    if k == -1:
        return HALF * (r - e) - HALF
    if k == 1:
        return -TWO * (e - (r + HALF)) if r < np.float32(-0.25) else ONE + TWO * (r - e)
    if k <= -2 or k > 56:
        return _times(ONE - (e - r), k) - ONE
    if k < 23:
        return _times((ONE - power_of_two(-k)) - (e - r), k)
    return _times((r - (e + power_of_two(-k))) + ONE, k)


@njit
def log1pf(x: Any) -> Any:
    """ln(1 + x): 1 + x = 2**k (1 + f), with c what 1 + x loses; k ln 2 + a series in f / (2 + f)."""
    if not x > -ONE:
        return np.float32(-np.inf) if x == -ONE else np.float32(np.nan)
    if x == np.float32(np.inf):
        return x
    size = np.abs(x)
    if size < np.float32(2.0**-29):
        return x if size < np.float32(2.0**-54) else x - x * x * HALF
    k, f, c, rest = np.int32(0), x, ZERO, np.int32(1)
    if x >= ROOT_LESS_ONE or x < HALF_ROOT_LESS_ONE:
        large = x >= WHOLE
        u = x if large else ONE + x
        k = np.int32((_bits(u) >> np.int32(23)) - np.int32(127))
        if not large:
            c = (ONE - (u - x) if k > 0 else x - (u - ONE)) / u
        rest = _bits(u) & MANTISSA
        if rest < ROOT_MANTISSA:
            f = _float(rest | np.int32(0x3F800000)) - ONE
        else:
            k += np.int32(1)
            f = _float(rest | np.int32(0x3F000000)) - ONE
            rest = (np.int32(0x800000) - rest) >> np.int32(2)
    n = np.float32(k)
    square = HALF * f * f
    if rest == 0:
        if f == ZERO:
            return n * LN2_HIGH + (c + n * LN2_LOW)
        r = square * (ONE - TWO_THIRDS * f)
        return f - r if k == 0 else n * LN2_HIGH - ((r - (n * LN2_LOW + c)) - f)
    s = f / (TWO + f)
    z = s * s
    r = z * (P1 + z * (P2 + z * (P3 + z * (P4 + z * (P5 + z * (P6 + z * P7))))))
    if k == 0:
        return f - (square - s * (square + r))
    return n * LN2_HIGH - ((square - (s * (square + r) + (n * LN2_LOW + c))) - f)


@njit
def tanhf(x: Any) -> Any:
    """t = e ** ±2|x| - 1: -t / (t + 2) below 1, 1 - 2 / (t + 2) up to 22, beyond it 1; the sign of x."""
    size = np.abs(x)
    if size < np.float32(2.0**-55):
        return x * (ONE + x)
    if size < ONE:
        t = expm1f(-TWO * size)
        y = -t / (t + TWO)
    elif size < np.float32(22):
        t = expm1f(TWO * size)
        y = ONE - TWO / (t + TWO)
    else:
        y = ONE
    y = np.copysign(y, x)
    return y if x == x else x  # noqa: PLR0124


def _coefficients(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(v) for v in values)


ERX = np.float32(8.4506291151e-01)
NEAR_P = _coefficients(
    *(1.2837916613e-01, -3.2504209876e-01, -2.8481749818e-02, -5.7702702470e-03, -2.3763017452e-05)
)
NEAR_Q = _coefficients(
    *(1.0, 3.9791721106e-01, 6.5022252500e-02, 5.0813062117e-03, 1.3249473704e-04, -3.9602282413e-06)
)
MIDDLE_P = _coefficients(
    *(-2.3621185683e-03, 4.1485610604e-01, -3.7220788002e-01, 3.1834661961e-01, -1.1089469492e-01),
    *(3.5478305072e-02, -2.1663755178e-03),
)
MIDDLE_Q = _coefficients(
    *(1.0, 1.0642088205e-01, 5.4039794207e-01, 7.1828655899e-02, 1.2617121637e-01, 1.3637083583e-02),
    1.1984500103e-02,
)
FAR_R = _coefficients(
    *(-9.8649440333e-03, -6.9385856390e-01, -1.0558626175e01, -6.2375331879e01, -1.6239666748e02),
    *(-1.8460508728e02, -8.1287437439e01, -9.8143291473e00),
)
FAR_S = _coefficients(
    *(1.0, 1.9651271820e01, 1.3765776062e02, 4.3456588745e02, 6.4538726807e02, 4.2900814819e02),
    *(1.0863500214e02, 6.5702495575e00, -6.0424413532e-02),
)
FARTHER_R = _coefficients(
    *(-9.8649431020e-03, -7.9928326607e-01, -1.7757955551e01, -1.6063638306e02, -6.3756646729e02),
    *(-1.0250950928e03, -4.8351919556e02),
)
FARTHER_S = _coefficients(
    *(1.0, 3.0338060379e01, 3.2579251099e02, 1.5367296143e03, 3.1998581543e03, 2.5530502930e03),
    *(4.7452853394e02, -2.2440952301e01),
)
"""Of 1, z, z**2, ...; FDLIBM's pp and qq, pa and qa, ra and sa, rb and sb."""
NEAR, MIDDLE, FAR = np.float32(0.84375), np.float32(1.25), _limit(0x4036DB6E)
"""FAR is 1 / 0.35, about."""
UPPER = np.int32(-4096)  # the bits of a float32 but the last twelve


@njit
def _polynomial(z: Any, coefficients: Any) -> Any:
    y = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        y = coefficients[k] + z * y
    return y


@njit
def erff(x: Any, fused: bool) -> Any:
    """erf x: x + x P(x²) / Q(x²); ERX + P / Q of |x| - 1; 1 - e ** (-x² - 0.5625 + R / S of 1 / x²) / x.

    fused: whether its two expf are glibc's with FMA.
    """
    size = np.abs(x)
    if size < NEAR:
        if size < np.float32(2.0**-28):
            if size < np.float32(2.0**-119):
                sixteen = np.float32(16)
                return np.float32(0.0625) * (sixteen * x + (sixteen * NEAR_P[0]) * x)
            return x + NEAR_P[0] * x
        z = x * x
        return x + x * (_polynomial(z, NEAR_P) / _polynomial(z, NEAR_Q))
    if size < MIDDLE:
        s = size - ONE
        y = ERX + _polynomial(s, MIDDLE_P) / _polynomial(s, MIDDLE_Q)
    elif size < SIX:
        s = ONE / (size * size)
        if size < FAR:
            r = _polynomial(s, FAR_R) / _polynomial(s, FAR_S)
        else:
            r = _polynomial(s, FARTHER_R) / _polynomial(s, FARTHER_S)
        z = _float(_bits(size) & UPPER)
        e = glibc.expf(-z * z - np.float32(0.5625), fused)
        e = e * glibc.expf((z - size) * (z + size) + r, fused)
        y = ONE - e / size
    else:
        y = ONE
    y = np.copysign(y, x)
    return y if x == x else x  # noqa: PLR0124
