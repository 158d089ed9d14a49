"""Relu, sigmoid, scale and shift, as in loops/pointwise.py; softmax, as in loops/softmax.py. All float32."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.memory import empty
from refnet.kernels.resources import readonly
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.fma import fma
from refnet.loops.functions import exp
from refnet.loops.jit import njit

F32 = npt.NDArray[np.float32]

GRAIN = 16384
"""Elements per work item of the flat loops."""
LANES = 16
"""Parts of a row whose largest elements are found side by side."""


def relu(x: F32, threads: int) -> F32:
    """x if x > 0, +0 if x <= 0, NaN if NaN; any shape."""
    y = empty(x.shape, np.float32)
    parallel_for(_relu, -(-x.size // GRAIN), threads, np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y


def sigmoid(x: F32, threads: int) -> F32:
    """1 / (1 + e), e = exp(-x), each of the three results rounded to float32; any shape."""
    y = empty(x.shape, np.float32)
    parallel_for(_sigmoid, -(-x.size // GRAIN), threads, np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y


def exponential(x: npt.NDArray[np.float64], threads: int) -> npt.NDArray[np.float64]:
    """exp of functions.py for float64 of any shape: relative error below 2**-50, 0 and inf beyond +-128."""
    y = np.empty(x.shape, np.float64)
    parallel_for(
        _exponential, -(-x.size // GRAIN), threads, np.ascontiguousarray(x).reshape(-1), y.reshape(-1)
    )
    return y


def scale_shift(x: F32, scale: F32, shift: F32, threads: int) -> F32:
    """fma(x, scale, shift) with one scale and shift per channel; x (n, c, ...)."""
    y = empty(x.shape, np.float32)
    n, c = x.shape[:2]
    size = prod(x.shape[2:])
    rows = np.ascontiguousarray(x).reshape(n * c, size)
    threads = threads_for(threads, x.size)
    parallel_for(_scale_shift, n * c, threads, rows, scale, shift, y.reshape(n * c, size))
    return y


def softmax_parts(x: F32, threads: int) -> F32:
    """Softmax over the third axis, x (n, groups, parts, m) -> (n, parts, groups, m).

    m = max, e = exp(x - m), s = chain of e from +0, e / s, in float32.
    """
    n, groups, parts, m = x.shape
    y = empty((n, parts, groups, m), np.float32)
    threads = threads_for(threads, 20 * x.size)
    flat = readonly(np.ascontiguousarray(x).reshape(-1))
    if groups == m == 1:
        parallel_for(_softmax_rows, n, threads, flat.reshape(n, parts), y.reshape(n, parts))
    else:
        parallel_for(_softmax, n * groups * m, threads, flat, y.reshape(-1), groups, parts, m)
    return y


@njit
def _relu(work: Any, x: Any, y: Any) -> None:
    zero = np.float32(0)
    begin, end = chunk(work)
    while begin < end:
        source, target = x[begin * GRAIN : end * GRAIN], y[begin * GRAIN : end * GRAIN]
        for i in range(source.size):
            target[i] = zero if source[i] <= zero else source[i]
        begin, end = next_chunk(work)


@njit
def _sigmoid(work: Any, x: Any, y: Any) -> None:
    one = np.float32(1)
    begin, end = chunk(work)
    while begin < end:
        source, target = x[begin * GRAIN : end * GRAIN], y[begin * GRAIN : end * GRAIN]
        for i in range(source.size):
            e = np.float32(exp(-np.float64(source[i])))
            target[i] = one / (one + e)
        begin, end = next_chunk(work)


@njit
def _exponential(work: Any, x: Any, y: Any) -> None:
    begin, end = chunk(work)
    while begin < end:
        source, target = x[begin * GRAIN : end * GRAIN], y[begin * GRAIN : end * GRAIN]
        for i in range(source.size):
            target[i] = exp(source[i])
        begin, end = next_chunk(work)


@njit
def _scale_shift(work: Any, x: Any, scale: Any, shift: Any, y: Any) -> None:
    begin, end = chunk(work)
    while begin < end:
        for row in range(begin, end):
            s, t = scale[row % scale.size], shift[row % scale.size]
            for i in range(x.shape[1]):
                y[row, i] = fma(x[row, i], s, t)
        begin, end = next_chunk(work)


@njit
def _softmax(work: Any, x: Any, y: Any, groups: int, parts: int, m: int) -> None:
    """Items: (image, group, element)."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            image, group, i = item // m // groups, item // m % groups, item % m
            source, target = (
                (image * groups + group) * parts * m + i,
                (image * parts * groups + group) * m + i,
            )
            step = groups * m
            largest = x[source]
            for p in range(parts):
                value = x[source + p * m]
                if value > largest or value != value:  # noqa: PLR0124 - NaN
                    largest = value
            total = np.float32(0)
            for p in range(parts):
                power = np.float32(exp(np.float64(np.float32(x[source + p * m] - largest))))
                y[target + p * step] = power
                total = np.float32(total + power)
            for p in range(parts):
                y[target + p * step] /= total
        begin, end = next_chunk(work)


@njit
def _softmax_rows(work: Any, x: Any, y: Any) -> None:
    """Items: rows. As `_softmax`; the largest element is found in LANES parts, which is the same number."""
    begin, end = chunk(work)
    tops = np.empty(LANES, np.float32)
    while begin < end:
        for row in range(begin, end):
            source, target = x[row], y[row]
            whole = source.size - source.size % LANES
            tops[:] = source[0]
            for first in range(0, whole, LANES):
                for k in range(LANES):
                    value = source[first + k]
                    tops[k] = value if value > tops[k] or value != value else tops[k]  # noqa: PLR0124 - NaN
            largest = source[0]
            for k in range(LANES + source.size - whole):
                value = tops[k] if k < LANES else source[whole + k - LANES]
                if value > largest or value != value:  # noqa: PLR0124
                    largest = value
            for p in range(source.size):
                target[p] = np.float32(exp(np.float64(np.float32(source[p] - largest))))
            total = np.float32(0)
            for p in range(source.size):
                total = np.float32(total + target[p])
            for p in range(source.size):
                target[p] /= total
        begin, end = next_chunk(work)
