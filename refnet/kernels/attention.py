"""Split attention's two sums over the radix, with the bits of loops/attention.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.memory import empty
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.fma import fma
from refnet.loops.jit import njit

Array = npt.NDArray[Any]


def radix_sum(x: Array, radix: int, threads: int) -> Array:
    """x (n, radix * c, h, w) -> (n, c, h, w): +0 + part 0 + part 1 + ..."""
    n, channels, h, w = x.shape
    y = empty((n, channels // radix, h, w), x.dtype)
    threads = threads_for(threads, x.size)
    parts = np.ascontiguousarray(x).reshape(n, radix, channels // radix, h * w)
    parallel_for(_radix_sum, n * (channels // radix), threads, parts, y.reshape(n, channels // radix, h * w))
    return y


def weighted_sum(attention: Array, x: Array, radix: int, threads: int) -> Array:
    """attention (n, radix * c), x (n, radix * c, h, w) -> (n, c, h, w): one FMA chain over the radix."""
    n, channels, h, w = x.shape
    y = empty((n, channels // radix, h, w), x.dtype)
    threads = threads_for(threads, x.size)
    parts = np.ascontiguousarray(x).reshape(n, radix, channels // radix, h * w)
    weights = np.ascontiguousarray(attention).reshape(n, radix, channels // radix)
    flat = y.reshape(n, channels // radix, h * w)
    parallel_for(_weighted_sum, n * (channels // radix), threads, weights, parts, flat)
    return y


@njit
def _radix_sum(work: Any, x: Any, y: Any) -> None:
    radix, channels, size = x.shape[1:]
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            n, c = item // channels, item % channels
            sums = y[n, c]
            for i in range(size):
                sums[i] = x[n, 0, c, i] + y.dtype.type(0)
            for r in range(1, radix):
                for i in range(size):
                    sums[i] += x[n, r, c, i]
        begin, end = next_chunk(work)


@njit
def _weighted_sum(work: Any, attention: Any, x: Any, y: Any) -> None:
    radix, channels, size = x.shape[1:]
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            n, c = item // channels, item % channels
            sums = y[n, c]
            sums[:] = 0
            for r in range(radix):
                weight = attention[n, r, c]
                for i in range(size):
                    sums[i] = fma(weight, x[n, r, c, i], sums[i])
        begin, end = next_chunk(work)
