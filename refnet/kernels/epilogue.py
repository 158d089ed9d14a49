"""Pointwise steps applied to rows that are still in the cache: bias, scale and shift, addition, relu.

An epilogue (core/engine.py) is a list of steps in the order in which the graph's nodes follow one another.
Each step rounds exactly as its own node would; only the stores and loads between them are saved. A batch
norm, an addition and a relu in this order are one pass over the vectors of a row (`epilogue_pass.py`), and so
are a batch norm and a clip. The bits are those of `apply` in loops/pointwise.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from refnet.core.by_recipe import CLIP_DROPS, CLIP_KEEPS, RELU_DROPS, RELU_KEEPS
from refnet.core.engine import ADD, BIAS, CLIP, RELU, SCALE_SHIFT, Array, Epilogue
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.epilogue_pass import (
    BY_ZERO,
    DROPS,
    FACTOR,
    KEEPS,
    LIMITS,
    OTHER,
    SCALE,
    epilogue_pass,
)
from refnet.kernels.memory import empty
from refnet.kernels.resources import readonly
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.jit import njit

FLAGS = {
    BIAS: SCALE,
    SCALE_SHIFT: SCALE,
    ADD: OTHER,
    RELU: BY_ZERO,
    RELU_KEEPS: BY_ZERO | KEEPS,
    RELU_DROPS: BY_ZERO | DROPS,
    CLIP: LIMITS,
    CLIP_KEEPS: LIMITS | KEEPS,
    CLIP_DROPS: LIMITS | DROPS,
}
"""The step as `epilogue_pass` does it. v + shift is fma(v, 1, shift): a product with 1 is exact."""


class EpilogueTables(NamedTuple):
    """An epilogue as kernels take it. Each pass is a call of `epilogue_pass`; its flags say what to do.

    flags (passes,); scales and shifts (passes, channels + 1), the last ones a clip's low and high; others
    (adds, n * channels, rest), the arrays to add; factors (n * channels,): rows are multiplied by these
    first, or (0,).
    """

    flags: Any
    scales: Any
    shifts: Any
    others: Any
    factors: Any


class Rows(NamedTuple):
    """Pieces of several rows of the output, `length` elements of each.

    channel: the first row's; row: its number, image * channels + channel; element: where in it the piece
    begins.
    """

    rows: int
    length: int
    channel: int
    row: int
    element: int


def tables(
    epilogue: Epilogue, shape: tuple[int, ...], dtype: Any, factors: Array | None = None
) -> tuple[Array, Array, Array, Array, Array]:
    """The fields of EpilogueTables for an output of this shape, (n, channels, ...)."""
    passes = _passes(epilogue.kinds)
    channels = shape[1]
    scales, shifts = np.ones((len(passes), channels + 1), dtype), np.zeros((len(passes), channels + 1), dtype)
    for row, steps in enumerate(passes):
        for s in steps:
            place = slice(channels, None) if FLAGS[epilogue.kinds[s]] & LIMITS else slice(channels)
            if (scale := epilogue.scales[s]) is not None:
                scales[row, place] = scale
            if (shift := epilogue.shifts[s]) is not None:
                shifts[row, place] = shift
    flags = np.array([sum(FLAGS[epilogue.kinds[s]] for s in steps) for steps in passes], np.int64)
    factors = np.zeros(0, dtype) if factors is None else np.ascontiguousarray(factors).reshape(-1)
    return flags, scales, shifts, added(epilogue.others, shape, dtype), readonly(factors)


def _passes(kinds: Sequence[str]) -> list[list[int]]:
    """The steps, cut into the passes that `epilogue_pass` can do: scale and shift, then addition and relu, or
    a clip.
    """
    passes: list[list[int]] = []
    for s, kind in enumerate(kinds):
        step = FLAGS[kind] % KEEPS
        last = FLAGS[kinds[passes[-1][-1]]] % KEEPS if passes else LIMITS
        if last >= step or (step == LIMITS and last > SCALE):
            passes.append([])
        passes[-1].append(s)
    return passes


def added(others: Sequence[Array], shape: tuple[int, ...], dtype: Any) -> Array:
    """The arrays to add, each of this shape (n, c, ...), as (adds, n * c, rest), read-only.

    Raises ValueError if one has another size, because the kernels do not check.
    """
    if not others:
        return readonly(np.zeros((0, 0, 0), dtype))
    rows, rest = shape[0] * shape[1], prod(shape[2:])
    if len(others) == 1:
        return readonly(np.ascontiguousarray(others[0]).reshape(1, rows, rest))
    return readonly(np.stack([np.ascontiguousarray(other).reshape(rows, rest) for other in others]))


def apply(x: Array, epilogue: Epilogue, threads: int, factors: Array | None = None) -> Array:
    """The epilogue applied to x (n, c, ...), as a new array; factors (n, c): x times these first."""
    shape, x = x.shape, np.ascontiguousarray(x)  # which makes a vector of rank 0
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y
    n, c = x.shape[:2] if x.ndim > 1 else (1, x.shape[0])
    steps = tables(epilogue, (n, c, *x.shape[2:]), x.dtype, factors)
    threads = threads_for(threads, x.size * max(1, len(epilogue.kinds)))
    parallel_for(_rows, n * c, threads, readonly(x.reshape(-1)), y.reshape(-1), x.size // (n * c), steps)
    return y.reshape(shape)


@njit
def _rows(work: Any, x: Any, y: Any, size: int, epilogue: Any) -> None:
    """Items: rows of x (n * channels * size,), each `size` elements."""
    flags, scales, shifts, others, factors = epilogue
    channels = scales.shape[1] - 1
    begin, end = chunk(work)
    while begin < end:
        while begin < end:
            channel = begin % channels
            piece = Rows(min(end - begin, channels - channel), size, channel, begin, 0)
            rows = begin * size, size
            follow(y, rows, x, rows, piece, flags, scales, shifts, others, factors)
            begin += piece.rows
        begin, end = next_chunk(work)


@njit
def follow(
    y: Any,
    to: Any,
    x: Any,
    at: Any,
    piece: Any,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
    factors: Any,
) -> None:
    """Rows of y = rows of x after the factors and all passes; both contiguous. The fields of EpilogueTables
    one by one: taking them out of a tuple costs more than a short row.

    to, at: (first element, elements from row to row) in y and x. piece: Rows.
    """
    size, channels = (piece.rows, piece.length), scales.shape[1] - 1
    where = (piece.row * others.shape[2] + piece.element, others.shape[2])
    steps, first = FACTOR if factors.size else 0, (piece.row, piece.channel)
    if flags.size:
        steps += flags[0]
    epilogue_pass(y, to, x, at, size, steps, factors, scales, shifts, first, channels, others, where)
    for s in range(1, flags.size):
        begin = s * (channels + 1)
        first = (piece.row, begin + piece.channel)
        if flags[s - 1] & OTHER:
            where = (where[0] + others.shape[1] * others.shape[2], where[1])
        limits = begin + channels
        epilogue_pass(y, to, y, to, size, flags[s], factors, scales, shifts, first, limits, others, where)


@njit
def store(sums: Any, y: Any, tile: Any, geometry: Any, low: int, rows: int, epilogue: Any) -> None:
    """Rows `low` on of a tile's sums (rows, pitch) go to y (n * outputs * oh * ow,) through the epilogue.

    Positions between the rows of the output are left out.
    """
    flags, scales, shifts, others, factors = epilogue
    width, pitch = geometry.output_w, geometry.pitch
    size, row = geometry.output_h * width, tile.row + low
    lane, j = 0, tile.position % pitch
    at = tile.position // pitch * width + min(j, width)
    while lane < tile.positions:
        run = tile.positions if pitch == width else max(0, min(width - j, tile.positions - lane))
        piece = Rows(rows, run, tile.output + low, row, at)
        of = (low * sums.shape[1] + lane, sums.shape[1])
        to = row * size + at, size
        follow(y, to, sums, of, piece, flags, scales, shifts, others, factors)
        at += run
        lane += tile.positions if pitch == width else pitch - j
        j = 0
