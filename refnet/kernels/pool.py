"""Maximum and average over windows, with the bits of loops/pool.py.

Rows of the image are first copied to `lines`, separated by their column modulo the stride: elements that
neighbouring outputs read at the same place of their windows become neighbours, with the padding next to
them. So an output row is one loop over whole vectors (windows.py), without special cases at its ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.engine import NOTHING, PoolGeometry
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.epilogue import apply
from refnet.kernels.memory import empty
from refnet.kernels.resources import readonly
from refnet.kernels.simd import copy
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.kernels.windows import average, average_2x2, deinterleave, largest, mean
from refnet.kernels.writer import VECTOR
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

BAND = 16384
"""About how many bytes of rows are separated at once, so that they stay in the cache."""
EXACT = 2**24
"""Up to here every whole number is a float32."""


def max_pool(x: Array, geometry: PoolGeometry, threads: int) -> Array:
    """Maximum of ops/pool.py for x (n, c, h, w). First of equals; NaN wins."""
    return _pool(x, geometry, True, False, threads)


def avg_pool(x: Array, geometry: PoolGeometry, include_pad: bool, threads: int) -> Array:
    """Average of ops/average.py: a chain over kernel row and column from +0, then one division."""
    kernel, stride, pad, output = geometry
    if pad == (0, 0) and kernel == x.shape[2:] and output == (1, 1):
        return _each(_mean, x, output, threads, VECTOR // x.itemsize)
    if pad == (0, 0) and kernel == stride == (1, 1) and output == x.shape[2:]:
        return apply(x, NOTHING.bias(np.zeros(x.shape[1], x.dtype)), threads)  # from +0, divided by 1
    if pad == (0, 0) and kernel == stride == (2, 2) and x.shape[2:] == (2 * output[0], 2 * output[1]):
        return _each(_average_2x2, x, output, threads, output[1])
    return _pool(x, geometry, False, include_pad, threads)


def _each(kernel: Any, x: Array, output: Pair, threads: int, size: int) -> Array:
    """The averages by a kernel that makes `size` of them per item and leaves no element of x out."""
    y = empty((*x.shape[:2], *output), x.dtype)
    parallel_for(
        kernel, -(-y.size // size), threads_for(threads, x.size), readonly(np.ascontiguousarray(x)), y
    )
    return y


def _pool(x: Array, geometry: PoolGeometry, maximum: bool, include_pad: bool, threads: int) -> Array:
    y = empty((*x.shape[:2], *geometry.output), x.dtype)
    threads = threads_for(threads, y.size * prod(geometry.kernel))
    planes = x.shape[0] * x.shape[1]
    how = _plan(x.shape[2:], geometry, include_pad, VECTOR // x.itemsize, x.itemsize)
    numbers = (how.sizes, readonly(how.rows), readonly(how.columns), readonly(how.taps), how.exact)
    parallel_for(_windows, planes, threads, readonly(np.ascontiguousarray(x)), y, *numbers, maximum)
    return y


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """How windows of one shape are read; it is the same for every plane.

    sizes: kernel rows, row stride, rows of padding, column stride; columns of the window that are looked at;
    elements of `lines` from row to row, from phase to phase, before the first column; rows at once; elements
    of `lines`. rows, columns: how many elements the divisor counts along each axis, per output. taps: where
    in `lines` the window's elements lie, row by row. exact: whether each divisor is a float32.
    """

    sizes: tuple[int, ...]
    rows: Array
    columns: Array
    taps: Array
    exact: bool


@lru_cache(maxsize=256)
def _plan(
    image: tuple[int, ...], geometry: PoolGeometry, include_pad: bool, vector: int, item: int
) -> WindowLayout:
    (height, width), ((kh, kw), (sh, sw), (ph, pw), (oh, ow)) = image, geometry
    exact = kh * kw <= EXACT
    rows = _counts(oh, kh, sh, ph, height, include_pad)
    columns = _counts(ow, kw, sw, pw, width, include_pad)
    unseen = max(pw - (ow - 1) * sw, 0)  # columns of the window that lie before the image everywhere
    pw -= unseen
    kw = max(min(kw - unseen, pw + width), 0)
    q = np.array([q - pw for q in range(kw) if (q - pw) % sw < width], np.int64)
    lead, phases = -(-pw // sw), min(sw, max(width, 2))
    reach = max(ow + (kw - pw) // sw, width // sw)
    pitch = lead + reach + 1 + 2 * vector  # whole vectors are read and written
    slot = phases * pitch
    band = min(oh, max(BAND // (slot * item) - kh, 0) // sh + 1)
    size = min((band - 1) * sh + kh, height) * slot
    taps = np.arange(min(kh, height))[:, None] * slot + q % sw * pitch + q // sw + lead
    sizes = (kh, sh, ph, sw, q.size, slot, pitch, lead, band, size)
    return WindowLayout(sizes, rows, columns, taps.reshape(-1), exact)


def _counts(count: int, kernel: int, stride: int, pad: int, size: int, include_pad: bool) -> Array:
    """How many elements along one axis each window's divisor counts."""
    first = np.arange(count) * stride - pad
    if include_pad:
        return np.minimum(first + kernel, size + pad) - first
    return np.minimum(first + kernel, size) - np.maximum(first, 0)


@njit
def _windows(
    work: Any, x: Any, y: Any, sizes: Any, rows: Any, columns: Any, taps: Any, exact: bool, maximum: bool
) -> None:
    """Pools with any window. sizes, rows, columns, taps: of a WindowLayout. Items: planes.

    The padding holds what changes no result: -inf, at which a maximum starts, or +0. A chain that starts at
    +0 is never -0, and adding +0 changes no other number and no NaN.
    """
    (height, width), (oh, ow), flat = x.shape[2:], y.shape[2:], x.reshape(-1)
    kh, sh, ph, sw, places, slot, pitch, lead, band, size = sizes
    number, outside = x.dtype.type, x.dtype.type(-np.inf if maximum else 0)
    divisors = np.ones(ow + VECTOR // x.itemsize, x.dtype)
    if exact:
        for j in range(ow):
            divisors[j] = columns[j]
    lines = np.empty(size, x.dtype)
    lines[:] = outside
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            for start in range(0, oh, band):
                stop = min(start + band, oh)
                first = max(start * sh - ph, 0)
                last = min((stop - 1) * sh - ph + kh, height)
                where = ((item * height + first) * width, last - first, width, sw)
                _divide(lines, (slot, pitch, lead), flat, where, outside)
                for i in range(start, stop):
                    top, bottom = max(i * sh - ph, 0), min(i * sh - ph + kh, height)
                    to, at, terms = (item * oh + i) * ow, (top - first) * slot, (bottom - top) * places
                    if maximum:
                        largest(y, to, ow, lines, at, taps, terms)
                    else:
                        average(y, to, ow, lines, at, taps, terms, divisors, number(rows[i] if exact else 1))
                        if not exact:  # a divisor that no float32 need be
                            sums = y[item // x.shape[1], item % x.shape[1], i]
                            for j in range(ow):
                                sums[j] = sums[j] / np.float64(rows[i] * columns[j])
        begin, end = next_chunk(work)


@njit
def _divide(lines: Any, steps: Any, x: Any, where: Any, outside: Any) -> None:
    """Rows of x into `lines`: column t * sw + p into place lead + t of phase p.

    steps: elements from one row to the next, from one phase to the next, lead. where: the first row's begin,
    how many rows, their width, sw.
    """
    (slot, pitch, lead), (begin, rows, width, sw) = steps, where
    for at in range(lead, lead + rows * slot, slot):
        if sw == 1:
            copy(lines, at, x, begin, width)
        elif sw == 2:
            deinterleave(lines, at, at + pitch, x, begin, width, outside)
        else:
            for p in range(min(sw, width)):
                row, columns = lines[at + p * pitch :], x[begin + p : begin + width]
                for t in range((width - p + sw - 1) // sw):
                    row[t] = columns[t * sw]
        begin += width


@njit
def _average_2x2(work: Any, x: Any, y: Any) -> None:
    """Averages of 2 x 2 elements, one behind the other. Items: rows of y."""
    width = y.shape[3]
    begin, end = chunk(work)
    while begin < end:
        for row in range(begin, end):
            above = 4 * row * width
            average_2x2(y, row * width, width, x, above, above + 2 * width)
        begin, end = next_chunk(work)


@njit
def _mean(work: Any, x: Any, y: Any) -> None:
    """Means of whole planes. Items: as many planes as a vector has lanes."""
    size, vector = x.shape[2] * x.shape[3], VECTOR // x.itemsize
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            first = item * vector
            mean(y, first, x, first * size, min(vector, y.size - first), size, x.dtype.type(size))
        begin, end = next_chunk(work)
