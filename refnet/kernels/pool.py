"""Maximum and average over windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.jit import njit
from refnet.kernels.memory import empty
from refnet.kernels.team import enough, next_share, share, split

Array = npt.NDArray[Any]
Pair = tuple[int, int]

PLANES = 4
"""Planes that `_mean` sums side by side."""


def max_pool(x: Array, kernel: Pair, stride: Pair, pad: Pair, output: Pair, threads: int) -> Array:
    """Maximum of ops/pool.py for x (n, c, h, w); output is (oh, ow). First of equals; NaN wins."""
    y = empty((*x.shape[:2], *output), x.dtype)
    threads = enough(threads, y.size * kernel[0] * kernel[1])
    split(_max, x.shape[0] * x.shape[1], threads, np.ascontiguousarray(x), y, *kernel, *stride, *pad)
    return y


def avg_pool(
    x: Array, kernel: Pair, stride: Pair, pad: Pair, output: Pair, include_pad: bool, threads: int
) -> Array:
    """Average of ops/pool.py: a chain over kernel row and column from +0, then one division."""
    y = empty((*x.shape[:2], *output), x.dtype)
    threads = enough(threads, y.size * kernel[0] * kernel[1])
    if kernel == x.shape[2:] and pad == (0, 0):
        planes = np.ascontiguousarray(x).reshape(-1, kernel[0] * kernel[1])
        split(_mean, -(-planes.shape[0] // PLANES), threads, planes, y.reshape(-1))
        return y
    if kernel == stride == (2, 2) and pad == (0, 0) and x.shape[2:] == (2 * output[0], 2 * output[1]):
        rows = y.size // output[1]
        squares = np.ascontiguousarray(x).reshape(rows, 2, output[1], 2)
        split(_halve, rows, threads, squares, y.reshape(rows, output[1]))
        return y
    split(
        _avg,
        x.shape[0] * x.shape[1],
        threads,
        np.ascontiguousarray(x),
        y,
        *kernel,
        *stride,
        *pad,
        include_pad,
    )
    return y


@njit
def _max(work: Any, x: Any, y: Any, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int) -> None:
    channels, height, width = x.shape[1:]
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            image, result = x[item // channels, item % channels], y[item // channels, item % channels]
            lo, hi = _whole(kw, sw, pw, width, result.shape[1])
            rest = _rest(lo, hi, result.shape[1])
            for i in range(result.shape[0]):
                best = result[i]
                best[:] = -np.inf
                for row in range(max(i * sh - ph, 0), min(i * sh - ph + kh, height)):
                    line = image[row]
                    for j in rest:
                        for column in range(max(j * sw - pw, 0), min(j * sw - pw + kw, width)):
                            best[j] = _larger(line[column], best[j])
                    bests = best[lo:hi]
                    for q in range(kw):
                        values = line[lo * sw - pw + q :]
                        if sw == 2:  # a constant stride is read by vectors
                            for j in range(bests.size):
                                bests[j] = _larger(values[2 * j], bests[j])
                        else:
                            for j in range(bests.size):
                                bests[j] = _larger(values[sw * j], bests[j])
        begin, end = next_share(work)


@njit
def _larger(value: Any, best: Any) -> Any:
    """The larger one; `best` if they are equal; NaN, which is the one that differs from itself, wins."""
    return value if (value > best) | (value != value) else best  # noqa: PLR0124


@njit
def _avg(
    work: Any,
    x: Any,
    y: Any,
    kh: int,
    kw: int,
    sh: int,
    sw: int,
    ph: int,
    pw: int,
    include_pad: bool,
) -> None:
    channels, height, width = x.shape[1:]
    one = x.dtype.type(1)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            image, result = x[item // channels, item % channels], y[item // channels, item % channels]
            lo, hi = _whole(kw, sw, pw, width, result.shape[1])
            rest = _rest(lo, hi, result.shape[1])
            for i in range(result.shape[0]):
                sums = result[i]
                sums[:] = 0
                top, bottom = max(i * sh - ph, 0), min(i * sh - ph + kh, height)
                rows = bottom - top
                if include_pad:
                    rows = min(i * sh - ph + kh, height + ph) - (i * sh - ph)
                for row in range(top, bottom):
                    _add_row(sums[lo:hi], image[row, lo * sw - pw :], kw, sw)
                divisor, some = one * (rows * kw), sums[lo:hi]
                for j in range(some.size):
                    some[j] /= divisor
                for j in rest:
                    left, right = max(j * sw - pw, 0), min(j * sw - pw + kw, width)
                    for row in range(top, bottom):
                        for column in range(left, right):
                            sums[j] += image[row, column]
                    columns = min(j * sw - pw + kw, width + pw) - (j * sw - pw)
                    sums[j] /= one * (rows * (columns if include_pad else right - left))
        begin, end = next_share(work)


@njit
def _add_row(sums: Any, values: Any, kw: int, sw: int) -> None:
    """sums[j] += values[j * sw + q] for q = 0, 1 ... kw - 1. A constant stride is read by vectors."""
    for q in range(kw):
        column = values[q:]
        if sw == 2:
            for j in range(sums.size):
                sums[j] += column[2 * j]
        else:
            for j in range(sums.size):
                sums[j] += column[sw * j]


@njit
def _halve(work: Any, x: Any, y: Any) -> None:
    """Averages of 2 x 2 elements, one behind the other: x (rows, 2, columns, 2), y (rows, columns)."""
    zero, divisor = x.dtype.type(0), x.dtype.type(x.shape[1] * x.shape[3])
    begin, end = share(work)
    while begin < end:
        for row in range(begin, end):
            above, below, result = x[row, 0], x[row, 1], y[row]
            for j in range(result.size):
                total = (((zero + above[j, 0]) + above[j, 1]) + below[j, 0]) + below[j, 1]
                result[j] = total / divisor
        begin, end = next_share(work)


@njit
def _mean(work: Any, x: Any, y: Any) -> None:
    """Means of whole planes, PLANES chains side by side: one alone would wait for each of its additions."""
    planes, size = x.shape
    divisor = x.dtype.type(size)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            at = item * PLANES
            if at + PLANES <= planes:
                a, b, c, d = x[at], x[at + 1], x[at + 2], x[at + 3]
                s = t = u = v = x.dtype.type(0)
                for i in range(size):
                    s += a[i]
                    t += b[i]
                    u += c[i]
                    v += d[i]
                y[at], y[at + 1], y[at + 2], y[at + 3] = s / divisor, t / divisor, u / divisor, v / divisor
            else:
                for k in range(at, planes):
                    s = x.dtype.type(0)
                    for i in range(size):
                        s += x[k, i]
                    y[k] = s / divisor
        begin, end = next_share(work)


@njit
def _whole(kw: int, sw: int, pw: int, width: int, count: int) -> tuple[int, int]:
    """The outputs lo to hi of `count` in a row whose windows lie inside of the row."""
    lo = min((pw + sw - 1) // sw, count)
    hi = (width + pw - kw) // sw + 1 if width + pw >= kw else 0
    return lo, max(lo, min(hi, count))


@njit
def _rest(lo: int, hi: int, count: int) -> Any:
    """The outputs of a row that are not lo to hi."""
    return np.concatenate((np.arange(lo), np.arange(hi, count)))
