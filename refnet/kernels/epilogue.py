"""Pointwise steps applied to rows that are still in the cache: bias, scale and shift, addition, relu.

An epilogue (core/engine.py) is a list of steps in the order in which the graph's nodes follow one another.
Each step rounds exactly as its node alone would; only the stores and loads between them are saved. Steps that
follow one another as batch norm, addition, relu are one pass over the vectors of a row (`finish.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from refnet.core.engine import ADD, BIAS, RELU, SCALE_SHIFT, Array, Epilogue
from refnet.kernels.finish import BY_ZERO, FACTOR, OTHER, SCALE, finish
from refnet.kernels.memory import empty
from refnet.kernels.resources import reading
from refnet.kernels.team import enough, next_share, share, split
from refnet.loops.jit import njit

FLAGS = {BIAS: SCALE, SCALE_SHIFT: SCALE, ADD: OTHER, RELU: BY_ZERO}
"""The step as `finish` does it. v + shift is fma(v, 1, shift): a product with 1 is exact, signs included."""


def tables(epilogue: Epilogue, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array, Array, Array]:
    """(flags, scales and shifts (passes, channels), others (adds, n * channels, rest)) for the kernels.

    shape: of the output, (n, channels, ...). A pass is one of `finish`, which the flags tell what to do.
    """
    passes = _passes(epilogue.kinds)
    size = (len(passes), shape[1])
    scales, shifts = np.ones(size, dtype), np.zeros(size, dtype)
    for row, steps in enumerate(passes):
        for s in steps:
            if (scale := epilogue.scales[s]) is not None:
                scales[row] = scale
            if (shift := epilogue.shifts[s]) is not None:
                shifts[row] = shift
    flags = [sum(FLAGS[epilogue.kinds[s]] for s in steps) for steps in passes]
    return np.array(flags, np.int64), scales, shifts, added(epilogue.others, shape, dtype)


def _passes(kinds: Sequence[str]) -> list[list[int]]:
    """The steps, cut into the passes that `finish` can do: scale and shift, addition, relu."""
    passes: list[list[int]] = []
    for s, kind in enumerate(kinds):
        if not passes or FLAGS[kinds[passes[-1][-1]]] >= FLAGS[kind]:
            passes.append([])
        passes[-1].append(s)
    return passes


def added(others: Sequence[Array], shape: tuple[int, ...], dtype: Any) -> Array:
    """The arrays to add, each of this shape (n, c, ...), as (adds, n * c, rest), read-only.

    Raises ValueError if one has another size: the kernels trust it.
    """
    if not others:
        return reading(np.zeros((0, 0, 0), dtype))
    rows, rest = shape[0] * shape[1], prod(shape[2:])
    if len(others) == 1:
        return reading(np.ascontiguousarray(others[0]).reshape(1, rows, rest))
    return reading(np.stack([np.ascontiguousarray(other).reshape(rows, rest) for other in others]))


def apply(x: Array, epilogue: Epilogue, threads: int, factors: Array | None = None) -> Array:
    """The epilogue applied to x (n, c, ...), as a new array; factors (n, c): x times these first."""
    shape, x = x.shape, np.ascontiguousarray(x)  # which makes a vector of rank 0
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y
    n, c = x.shape[:2] if x.ndim > 1 else (1, x.shape[0])
    factor = np.zeros(0, x.dtype) if factors is None else np.ascontiguousarray(factors).reshape(-1)
    steps = tables(epilogue, (n, c, *x.shape[2:]), x.dtype)
    threads = enough(threads, x.size * max(1, len(epilogue.kinds)))
    rows, target = x.reshape(n * c, -1), y.reshape(n * c, -1)
    split(_rows, n * c, threads, reading(rows), reading(factor), target, *steps)
    return y.reshape(shape)


@njit
def _rows(work: Any, x: Any, factors: Any, y: Any, flags: Any, scales: Any, shifts: Any, others: Any) -> None:
    """Items: rows of x (n * channels, elements)."""
    begin, end = share(work)
    size, channels = x.shape[1], scales.shape[1]
    while begin < end:
        while begin < end:
            channel = begin % channels
            rows, at = min(end - begin, channels - channel), begin * size
            place = (rows, size, channel, begin, 0)
            _follow(y, at, size, x, at, size, place, factors, flags, scales, shifts, others)
            begin += rows
        begin, end = next_share(work)


@njit
def follow(
    y: Any,
    to: int,
    pitch: int,
    x: Any,
    at: int,
    step: int,
    place: Any,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """Rows of y = rows of x after all steps; flat, rows `pitch` and `step` elements apart.

    place: (rows, elements of each, the first one's channel, its number in the output: image, channel; which
    element of the output's row the first is).
    """
    _follow(y, to, pitch, x, at, step, place, scales[0, :0], flags, scales, shifts, others)


@njit
def _follow(
    y: Any,
    to: int,
    pitch: int,
    x: Any,
    at: int,
    step: int,
    place: Any,
    factors: Any,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """As `follow`, after a product of each row with factors[number of the row], if there are any."""
    rows, count, channel, row, start = place
    size, target, where = (rows, count), (to, pitch), (row * others.shape[2] + start, others.shape[2])
    before = FACTOR if factors.size else 0
    if flags.size == 0:
        finish(y, target, x, (at, step), size, before, factors, scales, shifts, (row, 0), others, where)
        return
    for s in range(flags.size):
        first = (row, s * scales.shape[1] + channel)
        if s == 0:
            now = before + flags[s]
            finish(y, target, x, (at, step), size, now, factors, scales, shifts, first, others, where)
        else:
            finish(y, target, y, target, size, flags[s], factors, scales, shifts, first, others, where)
        if flags[s] & OTHER:
            where = (where[0] + others.shape[1] * others.shape[2], where[1])


@njit
def store(
    sums: Any,
    pitch: int,
    y: Any,
    spot: Any,
    low: int,
    rows: int,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """Rows `low` on of a tile go to y (n, outputs, oh, ow) through the steps, the ends of rows squeezed out.

    sums: rows `pitch` elements apart. spot: the tile's image, first output, first position, positions, and
    how many positions lie between the rows of the output.
    """
    image, first, start, count, span = spot
    outputs, oh, ow = y.shape[1:]
    size, channel = oh * ow, first + low
    row = image * outputs + channel
    at, lane, j = start // span * ow + min(start % span, ow), 0, start % span
    while lane < count:
        run = count if span == ow else max(0, min(ow - j, count - lane))
        place, to, of = (rows, run, channel, row, at), row * size + at, low * pitch + lane
        follow(y, to, size, sums, of, pitch, place, flags, scales, shifts, others)
        at += run
        lane += count if span == ow else span - j
        j = 0
