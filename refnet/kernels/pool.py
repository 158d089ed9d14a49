"""Maximum and average over windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.jit import njit, split

Array = npt.NDArray[Any]
Pair = tuple[int, int]


def max_pool(x: Array, kernel: Pair, stride: Pair, pad: Pair, output: Pair, threads: int) -> Array:
    """Maximum of ops/pool.py for x (n, c, h, w); output is (oh, ow). First of equals; NaN wins."""
    y = np.empty((*x.shape[:2], *output), x.dtype)
    split(_max, x.shape[0] * x.shape[1], threads, np.ascontiguousarray(x), y, *kernel, *stride, *pad)
    return y


def avg_pool(
    x: Array, kernel: Pair, stride: Pair, pad: Pair, output: Pair, include_pad: bool, threads: int
) -> Array:
    """Average of ops/pool.py: a chain over kernel row and column from +0, then one division."""
    y = np.empty((*x.shape[:2], *output), x.dtype)
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
            for j in range(result.shape[1]):
                top, left = i * sh - ph, j * sw - pw
                bottom, right = min(top + kh, height), min(left + kw, width)
                top, left = max(top, 0), max(left, 0)
                best = image[top, left]
                for p in range(top, bottom):
                    for q in range(left, right):
                        value = image[p, q]
                        if value > best or value != value:  # noqa: PLR0124 - NaN is the one that differs from itself
                            best = value
                result[i, j] = best


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
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for item in range(begin, end):
        image, result = x[item // channels, item % channels], y[item // channels, item % channels]
        for i in range(result.shape[0]):
            for j in range(result.shape[1]):
                top, left = i * sh - ph, j * sw - pw
                bottom, right = min(top + kh, height + ph), min(left + kw, width + pw)
                count = (bottom - top) * (right - left)
                top, left = max(top, 0), max(left, 0)
                bottom, right = min(bottom, height), min(right, width)
                if not include_pad:
                    count = (bottom - top) * (right - left)
                total = zero
                for p in range(top, bottom):
                    for q in range(left, right):
                        total += image[p, q]
                result[i, j] = total / (one * count)
