"""Pointwise steps applied to rows that are still in the cache: bias, scale and shift, addition, relu.

A chain is a list of steps in the order in which the graph's nodes follow one another. Each step
rounds exactly as its node alone would; only the stores and loads between them are saved. Steps that follow
one another as batch norm, addition, relu are one pass over the vectors of a row (`finish.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.finish import BY_ZERO, FACTOR, OTHER, SCALE, finish
from refnet.kernels.jit import njit
from refnet.kernels.team import enough, next_share, share, split

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
    _kept: dict[Any, tuple[Array, Array, Array]] = field(default_factory=dict, compare=False)

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
        return Chain(self.kinds, self.scales, self.shifts, tuple(others), self._kept) if others else self

    def _then(self, kind: int, scale: Array | None, shift: Array | None) -> Chain:
        return Chain((*self.kinds, kind), (*self.scales, scale), (*self.shifts, shift), self.others)

    def tables(self, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array, Array, Array]:
        """(flags, scales and shifts (passes, channels), others (adds, n * channels, rest)) for the kernels.

        shape: of the output, (n, channels, ...). A pass is one of `finish`, which the flags tell what to do.
        """
        n, channels = shape[:2]
        key = (channels, dtype)
        if key not in self._kept:
            self._kept[key] = self._constants(channels, dtype)
        rows = [np.ascontiguousarray(other).reshape(n * channels, -1) for other in self.others]
        if not rows:
            rows = [np.zeros((0, 0), dtype)]
        others = rows[0][None] if len(rows) == 1 else np.stack(rows)
        return *self._kept[key], others

    def _constants(self, channels: int, dtype: Any) -> tuple[Array, Array, Array]:
        passes = self._passes()
        scales, shifts = np.ones((len(passes), channels), dtype), np.zeros((len(passes), channels), dtype)
        for row, steps in enumerate(passes):
            for s in steps:
                if (scale := self.scales[s]) is not None:
                    scales[row] = scale
                if (shift := self.shifts[s]) is not None:
                    shifts[row] = shift
        flags = [sum(FLAGS[self.kinds[s]] for s in steps) for steps in passes]
        return np.array(flags, np.int64), scales, shifts

    def _passes(self) -> list[list[int]]:
        """The steps, cut into the passes that `finish` can do: scale and shift, addition, relu."""
        passes: list[list[int]] = []
        for s, kind in enumerate(self.kinds):
            if not passes or FLAGS[self.kinds[passes[-1][-1]]] >= FLAGS[kind]:
                passes.append([])
            passes[-1].append(s)
        return passes


def apply(x: Array, chain: Chain, threads: int, factors: Array | None = None) -> Array:
    """The chain applied to x (n, c, ...), as a new array; factors (n, c): x times these first."""
    y = np.empty(x.shape, x.dtype)
    if x.size == 0:
        return y
    shape = x.shape if x.ndim > 1 else (1, x.shape[0])
    rows = np.ascontiguousarray(x).reshape(shape[0] * shape[1], -1)
    tables = chain.tables(shape, x.dtype)
    threads = enough(threads, x.size * len(chain.kinds))
    factor = np.zeros(0, x.dtype) if factors is None else np.ascontiguousarray(factors).reshape(-1)
    split(_rows, rows.shape[0], threads, rows, factor, y.reshape(rows.shape), *tables)
    return y


@njit
def _rows(work: Any, x: Any, factors: Any, y: Any, flags: Any, scales: Any, shifts: Any, others: Any) -> None:
    begin, end = share(work)
    size = x.shape[1]
    while begin < end:
        for row in range(begin, end):
            channel, at = row % scales.shape[1], row * size
            if factors.size:
                finish(y, at, x, at, size, FACTOR, factors[row], factors[row], factors[row], others, 0)
                follow(y[row], channel, row, 0, flags, scales, shifts, others)
            else:
                follow_to(y, at, x, at, size, channel, row, 0, flags, scales, shifts, others)
        begin, end = next_share(work)


@njit
def follow(
    v: Any, channel: int, row: int, start: int, flags: Any, scales: Any, shifts: Any, others: Any
) -> None:
    """Apply all steps to v, which is [start : start + v.size] of output row `row` = image, channel."""
    if flags.size:
        follow_to(v, 0, v, 0, v.size, channel, row, start, flags, scales, shifts, others)


@njit
def follow_to(
    y: Any,
    to: int,
    x: Any,
    at: int,
    count: int,
    channel: int,
    row: int,
    start: int,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """y[to : to + count] = x[at : at + count] after all steps, flat; `start` says where in the output row."""
    one = y.dtype.type(1)
    if flags.size == 0:
        finish(y, to, x, at, count, 0, one, one, one, others, 0)
        return
    where = row * others.shape[2] + start
    for s in range(flags.size):
        scale, shift = scales[s, channel], shifts[s, channel]
        if s == 0:
            finish(y, to, x, at, count, flags[s], one, scale, shift, others, where)
        else:
            finish(y, to, y, to, count, flags[s], one, scale, shift, others, where)
        if flags[s] & OTHER:
            where += others.shape[1] * others.shape[2]
