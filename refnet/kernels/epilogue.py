"""Pointwise steps applied to rows that are still in the cache: bias, scale and shift, addition, relu.

A chain is a list of steps in the order in which the graph's nodes follow one another. Each step
rounds exactly as its node alone would; only the stores and loads between them are saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.jit import njit
from refnet.kernels.simd import copy, fma
from refnet.kernels.team import enough, next_share, share, split

Array = npt.NDArray[Any]

BIAS, SCALE_SHIFT, ADD, RELU = range(4)


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
        return replace(self, others=tuple(others)) if others else self

    def _then(self, kind: int, scale: Array | None, shift: Array | None) -> Chain:
        return Chain((*self.kinds, kind), (*self.scales, scale), (*self.shifts, shift), self.others)

    def tables(self, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array, Array, Array]:
        """(kinds, scales and shifts (steps, channels), others (adds, n * channels, rest)) for the kernels.

        shape: of the output, (n, channels, ...).
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
        steps = len(self.kinds)
        scales, shifts = np.zeros((steps, channels), dtype), np.zeros((steps, channels), dtype)
        for s in range(steps):
            if (scale := self.scales[s]) is not None:
                scales[s] = scale
            if (shift := self.shifts[s]) is not None:
                shifts[s] = shift
        return np.array(self.kinds, np.int64), scales, shifts


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
def _rows(work: Any, x: Any, factors: Any, y: Any, kinds: Any, scales: Any, shifts: Any, others: Any) -> None:
    begin, end = share(work)
    while begin < end:
        for row in range(begin, end):
            target, source = y[row], x[row]
            if factors.size:
                factor = factors[row]
                for t in range(target.size):
                    target[t] = source[t] * factor
            else:
                copy(y, row * y.shape[1], x, row * y.shape[1], y.shape[1])
            follow(target, row % scales.shape[1], row, 0, kinds, scales, shifts, others)
        begin, end = next_share(work)


@njit
def follow(
    v: Any, channel: int, row: int, start: int, kinds: Any, scales: Any, shifts: Any, others: Any
) -> None:
    """Apply all steps to v, which is [start : start + v.size] of output row `row` = image, channel."""
    zero = v.dtype.type(0)
    added = 0
    for s in range(kinds.size):
        if kinds[s] == BIAS:
            shift = shifts[s, channel]
            for t in range(v.size):
                v[t] += shift
        elif kinds[s] == SCALE_SHIFT:
            scale, shift = scales[s, channel], shifts[s, channel]
            for t in range(v.size):
                v[t] = fma(v[t], scale, shift)
        elif kinds[s] == ADD:
            other = others[added, row, start : start + v.size]
            added += 1
            for t in range(v.size):
                v[t] += other[t]
        else:
            for t in range(v.size):
                v[t] = zero if v[t] <= zero else v[t]
