"""What the kernels must equal to the last bit: the loops of refnet.loops, asked with plain numbers.

Two independent FMAs check each other: `fma` is LLVM's scalar one, `exact_fma` is rational arithmetic
rounded once by integer operations, without any floating point.
"""

from __future__ import annotations

from fractions import Fraction

import numba
import numpy as np

from refnet.core.engine import ConvGeometry, PoolGeometry
from refnet.core.orders import Chain, Leaf, Order
from refnet.loops.engine import REFERENCE
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


# What kernels must equal, asked of the loops with plain numbers; place: stride, pad, dilation.


def conv_everywhere(x, w, place, groups, shape):
    """A convolution without bias, one element after another: the terms inside, the positions outside."""
    order = Chain(Leaf.ZERO, Order.of(range(w[0].size)))
    kernel, output = (w.shape[2], w.shape[3]), (shape[2], shape[3])
    return REFERENCE.conv_in_order(x, w, None, _geometry(place, groups), kernel, output, order, False)


def conv_plane(x, w, place, groups, n, o, y):
    """One plane (oh, ow) of a convolution's output, without bias: the positions inside, the terms outside."""
    y[...] = _plane(x, w, place, groups, n, o)


def conv_at(x, w, place, groups, n, o, i, j):
    """One output of a convolution, without bias."""
    return _plane(x, w, place, groups, n, o)[i, j]


def dense_at(x, w, n, o):
    """One output of a dense layer, without bias."""
    return REFERENCE.dense(x[n : n + 1], w[o : o + 1], None)[0, 0]


def pool_plane(x, place, include_pad, largest, y):
    """One plane of a pooling: the maximum or the average of each window; place: kernel, stride, pad."""
    kh, kw, sh, sw, ph, pw = map(int, place)
    geometry = PoolGeometry((kh, kw), (sh, sw), (ph, pw), y.shape)
    data = x[None, None]
    y[...] = (
        REFERENCE.max_pool(data, geometry) if largest else REFERENCE.avg_pool(data, geometry, include_pad)
    )


def _plane(x, w, place, groups, n, o):
    channels = w.shape[1]
    first = o // (w.shape[0] // groups) * channels
    return REFERENCE.conv(x[n : n + 1, first : first + channels], w[o : o + 1], _geometry(place, 1))[0, 0]


def _geometry(place, groups):
    sh, sw, ph, pw, dh, dw = map(int, place)
    return ConvGeometry((sh, sw), (ph, pw), (dh, dw), groups)
