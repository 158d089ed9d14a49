"""Pointwise steps applied to rows that are still in the cache: bias, scale and shift, addition, relu.

A chain is a list of steps in the order in which the graph's nodes follow one another. Each step
rounds exactly as its node alone would; only the stores and loads between them are saved. Steps that follow
one another as batch norm, addition, relu are one pass over the vectors of a row (`finish.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.finish import BY_ZERO, FACTOR, OTHER, SCALE, finish
from refnet.kernels.flat import flat, flat_reading
from refnet.kernels.memory import empty
from refnet.kernels.resources import reading
from refnet.kernels.team import enough, next_share, share, split
from refnet.loops.jit import njit

Array = npt.NDArray[Any]

BIAS, SCALE_SHIFT, ADD, RELU = range(4)
FLAGS = {BIAS: SCALE, SCALE_SHIFT: SCALE, ADD: OTHER, RELU: BY_ZERO}
"""The step as `finish` does it. v + shift is fma(v, 1, shift): a product with 1 is exact, signs included."""


@dataclass(frozen=True)
class Chain:
    """The steps, per step one row of `scale` and `shift` (channels,), and per ADD one of `others`.

    kinds: BIAS adds shift[channel]; SCALE_SHIFT is fma(v, scale[channel], shift[channel]); ADD adds the
    array `other` of the output's shape; RELU is x if x > 0, else +0, NaN for NaN.
    """

    kinds: tuple[int, ...] = ()
    scales: tuple[Array | None, ...] = ()
    shifts: tuple[Array | None, ...] = ()
    others: tuple[Array, ...] = ()

    def bias(self, shift: Array) -> Chain:
        """The chain with one more step: an addition per channel."""
        return self._then(BIAS, None, shift)

    def scale_shift(self, scale: Array, shift: Array) -> Chain:
        """The chain with one more step: an FMA with a scale and a shift per channel."""
        return self._then(SCALE_SHIFT, scale, shift)

    def add(self, other: Array) -> Chain:
        """The chain with one more step: the addition of another array of the output's shape."""
        return self.adding().over((*self.others, other))

    def relu(self) -> Chain:
        """The chain with one more step: relu."""
        return self._then(RELU, None, None)

    def adding(self) -> Chain:
        """The chain with one more step: the addition of an array that `over` will give."""
        return self._then(ADD, None, None)

    def over(self, others: Sequence[Array]) -> Chain:
        """The chain with these arrays to add, one per addition; all else is shared."""
        return Chain(self.kinds, self.scales, self.shifts, tuple(others)) if others else self

    def _then(self, kind: int, scale: Array | None, shift: Array | None) -> Chain:
        return Chain((*self.kinds, kind), (*self.scales, scale), (*self.shifts, shift), self.others)

    def tables(self, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array, Array, Array]:
        """(flags, scales and shifts (passes, channels), others (adds, n * channels, rest)) for the kernels.

        shape: of the output, (n, channels, ...). A pass is one of `finish`, which the flags tell what to do.
        """
        passes, size = self._passes(), (len(self._passes()), shape[1])
        scales, shifts = np.ones(size, dtype), np.zeros(size, dtype)
        for row, steps in enumerate(passes):
            for s in steps:
                if (scale := self.scales[s]) is not None:
                    scales[row] = scale
                if (shift := self.shifts[s]) is not None:
                    shifts[row] = shift
        flags = [sum(FLAGS[self.kinds[s]] for s in steps) for steps in passes]
        return np.array(flags, np.int64), scales, shifts, added(self.others, shape, dtype)

    def _passes(self) -> list[list[int]]:
        """The steps, cut into the passes that `finish` can do: scale and shift, addition, relu."""
        passes: list[list[int]] = []
        for s, kind in enumerate(self.kinds):
            if not passes or FLAGS[self.kinds[passes[-1][-1]]] >= FLAGS[kind]:
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


def apply(x: Array, chain: Chain, threads: int, factors: Array | None = None) -> Array:
    """The chain applied to x (n, c, ...), as a new array; factors (n, c): x times these first."""
    shape, x = x.shape, np.ascontiguousarray(x)  # which makes a vector of rank 0
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y
    n, c = x.shape[:2] if x.ndim > 1 else (1, x.shape[0])
    factor = np.zeros(0, x.dtype) if factors is None else np.ascontiguousarray(factors).reshape(-1)
    tables = chain.tables((n, c, *x.shape[2:]), x.dtype)
    threads = enough(threads, x.size * max(1, len(chain.kinds)))
    rows, target = x.reshape(n * c, -1), y.reshape(n * c, -1)
    split(_rows, n * c, threads, reading(rows), factor, target, *tables)
    return y.reshape(shape)


@njit
def _rows(work: Any, x: Any, factors: Any, y: Any, flags: Any, scales: Any, shifts: Any, others: Any) -> None:
    """Items: rows of x (n * channels, elements)."""
    begin, end = share(work)
    size, channels = x.shape[1], scales.shape[1]
    before, first = FACTOR if factors.size else 0, flat_reading(factors)
    while begin < end:
        while begin < end:
            channel = begin % channels
            rows, at = min(end - begin, channels - channel), begin * size
            place = (rows, size, channel, begin, 0)
            here, there = flat(y), flat_reading(x)
            _follow(here, at, size, there, at, size, place, before, first, flags, scales, shifts, others)
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
    here, there = flat(y), flat_reading(x)
    _follow(here, to, pitch, there, at, step, place, 0, flat_reading(shifts), flags, scales, shifts, others)


@njit
def _follow(
    y: Any,
    to: int,
    pitch: int,
    x: Any,
    at: int,
    step: int,
    place: Any,
    before: int,
    factors: Any,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """As `follow` for flat arrays, so that there is one version of it per dtype.

    before: FACTOR for a product of each row with factors[number of the row], else 0.
    """
    rows, count, channel, row, start = place
    size, target, where = (rows, count), (to, pitch), (row * others.shape[2] + start, others.shape[2])
    for s in range(max(1, flags.size)):  # the steps' code is long, so it stands here once
        now, first = before, (row, channel)
        if flags.size:
            now, first = before + flags[s], (row, s * scales.shape[1] + channel)
        finish(y, target, x, (at, step), size, now, factors, scales, shifts, first, others, where)
        if now & OTHER:
            where = (where[0] + others.shape[1] * others.shape[2], where[1])
        x, at, step, before = flat_reading(y), to, pitch, 0


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
    row, here, there, nothing = image * outputs + channel, flat(y), flat_reading(sums), flat_reading(shifts)
    at, lane, j = start // span * ow + min(start % span, ow), 0, start % span
    while lane < count:
        run = count if span == ow else max(0, min(ow - j, count - lane))
        place, to, of = (rows, run, channel, row, at), row * size + at, low * pitch + lane
        _follow(here, to, size, there, of, pitch, place, 0, nothing, flags, scales, shifts, others)
        at += run
        lane += count if span == ow else span - j
        j = 0
