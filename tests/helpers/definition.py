"""The ops' formulas as simple scalar loops: what the kernels must equal to the last bit.

Two independent FMAs check each other: `fma` is LLVM's scalar one, `exact_fma` is rational arithmetic
rounded once by integer operations, without any floating point.
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


@numba.njit(error_model="numpy")
def conv_at(x, w, place, groups, n, o, i, j):
    """One output of a convolution, without bias."""
    sh, sw, ph, pw, dh, dw = place
    height, width = x.shape[2:]
    outputs, channels, kh, kw = w.shape
    base = o // (outputs // groups) * channels
    acc = x.dtype.type(0)
    for c in range(channels):
        for p in range(kh):
            for q in range(kw):
                row = i * sh - ph + p * dh
                column = j * sw - pw + q * dw
                if 0 <= row < height and 0 <= column < width:
                    acc = fma(w[o, c, p, q], x[n, base + c, row, column], acc)
    return acc


@numba.njit(error_model="numpy")
def dense_at(x, w, n, o):
    """One output of a dense layer, without bias."""
    acc = x.dtype.type(0)
    for k in range(x.shape[1]):
        acc = fma(w[o, k], x[n, k], acc)
    return acc


@numba.njit(error_model="numpy", nogil=True)
def conv_plane(x, w, place, groups, n, o, y):
    """One plane (oh, ow) of a convolution's output: conv_at's loops, the terms outside, the positions inside.

    Each position goes through the same terms in the same order; none waits for the one before it.
    """
    sh, sw, ph, pw, dh, dw = place
    height, width = x.shape[2:]
    outputs, channels, kh, kw = w.shape
    base = o // (outputs // groups) * channels
    y[:] = 0
    for c in range(channels):
        for p in range(kh):
            for q in range(kw):
                for i in range(y.shape[0]):
                    row = i * sh - ph + p * dh
                    if 0 <= row < height:
                        for j in range(y.shape[1]):
                            column = j * sw - pw + q * dw
                            if 0 <= column < width:
                                y[i, j] = fma(w[o, c, p, q], x[n, base + c, row, column], y[i, j])


@numba.njit(error_model="numpy", nogil=True)
def pool_plane(x, place, include_pad, largest, y):
    """One plane of a pooling: the maximum or the average of each window."""
    kh, kw, sh, sw, ph, pw = place
    height, width = x.shape
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            total, count = x.dtype.type(0), 0
            best = x.dtype.type(-np.inf)
            for row in range(i * sh - ph, i * sh - ph + kh):
                for column in range(j * sw - pw, j * sw - pw + kw):
                    if 0 <= row < height and 0 <= column < width:
                        total += x[row, column]
                        best = max(best, x[row, column])
                        count += 1
                    elif include_pad and row < height + ph and column < width + pw:
                        count += 1
            y[i, j] = best if largest else total / x.dtype.type(count)


def conv_everywhere(x, w, place, groups, shape):
    y = np.empty(shape, x.dtype)
    for at in np.ndindex(shape):
        y[at] = conv_at(x, w, place, groups, *at)
    return y
