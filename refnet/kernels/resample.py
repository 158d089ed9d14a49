"""Nearest-neighbour upsampling, as in loops/resample.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.memory import empty
from refnet.kernels.simd import copy
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.jit import njit

Array = npt.NDArray[Any]


def upsample(x: Array, scale: int, threads: int) -> Array:
    """x (n, c, h, w) -> (n, c, h * scale, w * scale), every element scale x scale times."""
    n, c, h, w = x.shape
    y = empty((n, c, h * scale, w * scale), x.dtype)
    threads = threads_for(threads, y.size)
    planes = np.ascontiguousarray(x).reshape(n * c, h, w)
    parallel_for(_upsample, n * c, threads, planes, y.reshape(n * c, h * scale, w * scale), scale)
    return y


@njit
def _upsample(work: Any, x: Any, y: Any, scale: int) -> None:
    """One row is spread, then copied. Items: planes of x (planes, h, w)."""
    width = y.shape[2]
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            plane = y[item]
            for i in range(x.shape[1]):
                source, row = x[item, i], plane[i * scale]
                if scale == 2:  # a constant stride is written by vectors
                    for j in range(source.size):
                        row[2 * j] = source[j]
                        row[2 * j + 1] = source[j]
                else:
                    for j in range(source.size):
                        for t in range(scale):
                            row[j * scale + t] = source[j]
                for t in range(1, scale):
                    copy(plane, (i * scale + t) * width, row, 0, width)
        begin, end = next_chunk(work)
