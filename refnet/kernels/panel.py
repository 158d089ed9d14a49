"""Convolution and dense layers in plain order: which kernel computes them, and the one for dense layers.

    convolve ── lanes across output channels (channels.py), where that computes fewer products
             ├─ dense, for maps of one position
             └─ tiles of positions (segments.py), with one chain over all terms

All of them compute the same sums: acc = +0, acc = fma(w, x, acc) for channel, kernel row, kernel column
(loops/conv.py). Each output is one chain of its own, so no bit depends on the kernel, the threads, the batch
or the position.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.engine import NOTHING, Epilogue
from refnet.kernels.channels import channel_layout, conv_across_channels, cropped
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.epilogue import apply
from refnet.kernels.geometry import layout, padded_planes
from refnet.kernels.lanes import (
    GROUP,
    HALF,
    ODD,
    column_block,
    row_group_block,
    row_half_block,
    row_odd_block,
)
from refnet.kernels.memory import aligned, empty, scratch
from refnet.kernels.narrow import narrow
from refnet.kernels.resources import cached, readonly
from refnet.kernels.segments import chains_of, checked, tiled
from refnet.kernels.simd import copy
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.kernels.writer import VECTOR
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

SHARES = 4
"""Work items per thread of a dense layer, if it has enough rows and outputs."""


def convolve(
    x: Array,
    w: Array,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    threads: int,
    epilogue: Epilogue = NOTHING,
) -> Array:
    """Convolution of ops/conv.py for x (n, c, h, w), w (o, c / groups, kh, kw), then the epilogue's steps.

    All of one dtype, float32 or float64, in which it computes: acc = +0, acc = fma(w, x, acc) for
    channel, kernel row, kernel column; then bias, batch norm, addition, relu as the epilogue says.
    """
    x, w = checked(x, w, groups)
    w, pad = cropped(x.shape, w, stride, pad, dilation)
    how = None
    per, wide = w.shape[0] // groups, x.dtype == np.float64  # float64 is for bounds: one kernel will do
    if not wide:
        how = channel_layout(x.shape, w.shape, stride, pad, dilation, groups)
    if how is not None and not narrow(per, w.shape[1], how.work):
        planes = padded_planes(x, pad, 0, threads) if how.padded else x.reshape(x.shape[0], -1)
        return conv_across_channels(x, planes, w, groups, how, threads, epilogue)
    if groups == 1 and pad == (0, 0) and x.shape[2:] == w.shape[2:] == (1, 1):
        y = empty((x.shape[0], w.shape[0], 1, 1), x.dtype)
        _multiply_columns(x, w, None, y, threads)
        return apply(y, epilogue, threads) if epilogue.kinds else y
    plan = layout(x.shape, w.shape, stride, pad, dilation, groups)
    order = chains_of(w[0].size, max(1, w[0].size))
    return tiled(x, w, None, plan, groups, False, order, threads, epilogue)


def dense(x: Array, w: Array, bias: Array | None, threads: int) -> Array:
    """Matrix product of ops/dense.py for x (n, k), w (o, k), bias (o,) or None, of one dtype.

    acc = +0, acc = fma(w, x, acc) for k in turn, then one addition of the bias.
    """
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"weights {w.shape} do not fit data {x.shape}")
    y = empty((x.shape[0], w.shape[0]), x.dtype)
    _multiply_columns(x, w, bias, y, threads)
    return y


def _multiply_columns(x: Array, w: Array, bias: Array | None, y: Array, threads: int) -> None:
    """y (n, o) = x (n, k) times w (o, k), plus the bias (o,); dimensions of 1 may follow."""
    columns = cached((w,), "columns", lambda: _columns(w.reshape(w.shape[:2])))
    threads, rows, tiles = threads_for(threads, x.size * w.shape[0] // 4), x.shape[0], columns.shape[0]
    stretches = row_stretches(rows, tiles, threads)
    data = np.ascontiguousarray(x).reshape(x.shape[:2])
    arrays = (readonly(data), columns, _ramp(x.shape[1]), y.reshape(y.shape[:2]))
    shift = np.zeros(0, x.dtype) if bias is None else np.ascontiguousarray(bias)
    parallel_for(_dense, tiles * stretches, threads, *arrays, readonly(shift), stretches)


def row_stretches(rows: int, tiles: int, threads: int) -> int:
    """Into how many stretches the rows of a dense layer are divided, so that no thread waits long."""
    if threads == 1 or tiles == 0:
        return 1
    return max(1, min(-(-rows // GROUP), -(-SHARES * threads // tiles)))


@lru_cache(maxsize=256)
def _ramp(terms: int) -> Array:
    """0, 1, 2, ...: where the terms of a dense layer lie."""
    return np.arange(terms)


def _columns(w: Array) -> Array:
    """w (outputs, terms) as (tiles, terms, four vectors of outputs), zeros behind the last."""
    outputs, terms = w.shape
    wide = 4 * VECTOR // w.itemsize
    tiles = -(-outputs // wide)
    columns, whole = aligned((tiles, terms, wide), w.dtype), outputs // wide
    columns[:whole] = w[: whole * wide].reshape(whole, wide, terms).swapaxes(1, 2)
    if whole < tiles:
        columns[whole, :, : outputs - whole * wide] = w[whole * wide :].T
    return columns


@njit
def _dense(work: Any, x: Any, columns: Any, ramp: Any, y: Any, bias: Any, stretches: int) -> None:
    """Lanes across outputs. Items: (tile of four vectors of outputs, stretch of rows), stretch fastest.

    A block is up to GROUP rows x two vectors of outputs, as in channels.py: its chains hide each other's
    latency, and a weight is read once for all of its rows. A single row takes all four vectors.
    """
    n, terms = x.shape
    wide = columns.shape[2]
    half, units = wide // 2, -(-n // GROUP)
    sums = scratch(GROUP * wide, x)
    sums[:] = 0  # and so they stay without a term
    places = np.zeros(GROUP, np.int64)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            tile, number = item // stretches, item % stretches
            weights, some = columns[tile].reshape(-1), min(wide, y.shape[1] - tile * wide)
            i = units * number // stretches * GROUP
            stop = min(n, units * (number + 1) // stretches * GROUP)
            while i < stop:
                left = stop - i
                rows = min(left, HALF if left <= HALF else (ODD if left % HALF else GROUP))
                for p in range(GROUP):  # rows that a block has more are the last one again
                    places[p] = min(i + p, stop - 1) * terms
                if terms and left == 1:
                    column_block(weights, 0, x, 0, ramp, places, 0, sums, 0, terms)
                elif terms:
                    for at in range(0, some, half):
                        if left <= HALF:
                            row_half_block(weights, at, x, 0, ramp, places, 0, sums, at, terms)
                        elif left % HALF:
                            row_odd_block(weights, at, x, 0, ramp, places, 0, sums, at, terms)
                        else:
                            row_group_block(weights, at, x, 0, ramp, places, 0, sums, at, terms)
                for p in range(rows):
                    row = sums[p * wide : p * wide + some]
                    if bias.size:
                        shift, to = bias[tile * wide : tile * wide + some], y[i + p, tile * wide :]
                        for o in range(shift.size):
                            to[o] = row[o] + shift[o]
                    else:
                        copy(y, (i + p) * y.shape[1] + tile * wide, sums, p * wide, some)
                i += rows
        begin, end = next_chunk(work)
