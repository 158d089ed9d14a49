"""Maximum and average over windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.jit import enough, njit, split

Array = npt.NDArray[Any]
Pair = tuple[int, int]

PLANES = 4
"""Planes that `_mean` sums side by side."""


def max_pool(x: Array, kernel: Pair, stride: Pair, pad: Pair, output: Pair, threads: int) -> Array:
    """Maximum of ops/pool.py for x (n, c, h, w); output is (oh, ow). First of equals; NaN wins."""
    y = np.empty((*x.shape[:2], *output), x.dtype)
    threads = enough(threads, y.size * kernel[0] * kernel[1])
    split(_max, x.shape[0] * x.shape[1], threads, np.ascontiguousarray(x), y, *kernel, *stride, *pad)
    return y


def avg_pool(
    x: Array, kernel: Pair, stride: Pair, pad: Pair, output: Pair, include_pad: bool, threads: int
) -> Array:
    """Average of ops/pool.py: a chain over kernel row and column from +0, then one division."""
    y = np.empty((*x.shape[:2], *output), x.dtype)
    threads = enough(threads, y.size * kernel[0] * kernel[1])
    if kernel == x.shape[2:] and pad == (0, 0):
        planes = np.ascontiguousarray(x).reshape(-1, kernel[0] * kernel[1])
        split(_mean, -(-planes.shape[0] // PLANES), threads, planes, y.reshape(-1))
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
def _max(begin: int, end: int, x: Any, y: Any, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int) -> None:
    channels, height, width = x.shape[1:]
    for item in range(begin, end):
        image, result = x[item // channels, item % channels], y[item // channels, item % channels]
        for i in range(result.shape[0]):
            best = result[i]
            best[:] = -np.inf
            for row in range(max(i * sh - ph, 0), min(i * sh - ph + kh, height)):
                for q in range(kw):
                    lo, hi = _span(q - pw, sw, width, best.size)
                    values, bests = image[row, lo * sw + q - pw :: sw], best[lo:hi]
                    for j in range(bests.size):
                        value = values[j]
                        # NaN is the one that differs from itself
                        bests[j] = value if value > bests[j] or value != value else bests[j]  # noqa: PLR0124


@njit
def _avg(
    begin: int,
    end: int,
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
    for item in range(begin, end):
        image, result = x[item // channels, item % channels], y[item // channels, item % channels]
        for i in range(result.shape[0]):
            sums = result[i]
            sums[:] = 0
            top, bottom = max(i * sh - ph, 0), min(i * sh - ph + kh, height)
            for row in range(top, bottom):
                for q in range(kw):
                    lo, hi = _span(q - pw, sw, width, sums.size)
                    first, some = lo * sw + q - pw, sums[lo:hi]
                    if sw == 2:  # a constant stride is read by vectors
                        pairs = image[row, first:]
                        for j in range(some.size):
                            some[j] += pairs[2 * j]
                    else:
                        values = image[row, first::sw]
                        for j in range(some.size):
                            some[j] += values[j]
            rows = bottom - top
            if include_pad:
                rows = min(i * sh - ph + kh, height + ph) - (i * sh - ph)
            for j in range(sums.size):
                left = j * sw - pw
                columns = min(left + kw, width + pw) - left
                if not include_pad:
                    columns = min(left + kw, width) - max(left, 0)
                sums[j] = sums[j] / (one * (rows * columns))


@njit
def _mean(begin: int, end: int, x: Any, y: Any) -> None:
    """Means of whole planes, PLANES chains side by side: one alone would wait for each of its additions."""
    planes, size = x.shape
    divisor = x.dtype.type(size)
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


@njit
def _span(shift: int, stride: int, width: int, count: int) -> tuple[int, int]:
    """The outputs lo to hi of `count` whose element j * stride + shift lies inside the row."""
    lo = 0 if shift >= 0 else (-shift + stride - 1) // stride
    hi = min(count, (width - shift + stride - 1) // stride)
    return min(lo, count), max(min(lo, count), hi)
