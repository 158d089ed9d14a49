"""Arrays put one after another; the bits are those of `concatenate` in loops/engine.py."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.memory import empty
from refnet.kernels.resources import readonly
from refnet.kernels.simd import copy
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.jit import njit

Array = npt.NDArray[Any]

GRAIN = 8192
"""Elements of a row per work item."""


def concatenate(arrays: Sequence[Array], axis: int, threads: int) -> Array:
    """The arrays, of one dtype, one after another along the axis; their other dimensions are the same."""
    first = arrays[0]
    y = empty(
        (*first.shape[:axis], sum(x.shape[axis] for x in arrays), *first.shape[axis + 1 :]), first.dtype
    )
    rows, at = prod(first.shape[:axis]), 0
    target = y.reshape(rows, prod(y.shape[axis:]))
    for x in arrays:
        source = np.ascontiguousarray(x).reshape(rows, prod(x.shape[axis:]))
        parts = max(1, -(-source.shape[1] // GRAIN))
        count = threads_for(threads, x.size)
        parallel_for(_place, rows * parts, count, readonly(source), target, at, parts)
        at += source.shape[1]
    return y


@njit
def _place(work: Any, x: Any, y: Any, at: int, parts: int) -> None:
    """Columns `at` on of y = x. Items: parts of the rows of x (rows, elements), part fastest."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            row, part, size = item // parts, item % parts, x.shape[1]
            first, last = size * part // parts, size * (part + 1) // parts
            copy(y, row * y.shape[1] + at + first, x, row * size + first, last - first)
        begin, end = next_chunk(work)
