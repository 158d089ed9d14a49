"""The float32 nearest to a rational, and two FMAs that check each other.

`fma` is LLVM's scalar one, `exact_fma` is rational arithmetic rounded once by integer operations, without any
floating point.
"""

from __future__ import annotations

from fractions import Fraction

import numba
import numpy as np

from refnet.loops.fma import fma


def round_float32(value: Fraction, zero: float = 0.0) -> np.float32:
    """The float32 nearest to a rational, ties to even; `zero` carries the sign of an exact zero."""
    if value == 0:
        return np.float32(zero)
    sign, magnitude = (-1, -value) if value < 0 else (1, value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    step = Fraction(2) ** (max(exponent, -126) - 23)
    count, rest = divmod(magnitude, step)
    if 2 * rest > step or (2 * rest == step and count % 2):
        count += 1
    if count * step >= Fraction(2) ** 128:
        return np.float32(sign * np.inf)
    return np.float32(sign * np.ldexp(float(count), max(exponent, -126) - 23))


def exact_fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """a * b + c for finite float32, rounded once."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    with np.errstate(all="ignore"):
        zero = float(np.float64(a) * np.float64(b) + np.float64(c)) if exact == 0 else 0.0
    return round_float32(exact, zero)


@numba.njit(error_model="numpy")
def _fma_into(a, b, c, result):
    for i in range(a.size):
        result[i] = fma(a[i], b[i], c[i])


def llvm_fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """LLVM's scalar FMA of three float32."""
    result = np.empty(1, np.float32)
    _fma_into(np.array([a]), np.array([b]), np.array([c]), result)
    return result[0]
