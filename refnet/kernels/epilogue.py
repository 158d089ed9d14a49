"""Pointwise steps applied to rows that are still in the cache: bias, scale and shift, addition, relu.

A chain is a list of steps in the order in which the graph's nodes follow one another. Each step
rounds exactly as its node alone would; only the stores and loads between them are saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.jit import njit
from refnet.kernels.simd import fma
from refnet.kernels.team import enough, next_share, share, split

Array = npt.NDArray[Any]

BIAS, SCALE_SHIFT, ADD, RELU = range(4)


@dataclass(frozen=True)
class Chain:
    """The steps, and per step one row of `scale` and `shift` (channels,) and one of `others`.

    kinds: BIAS adds shift[channel]; SCALE_SHIFT is fma(v, scale[channel], shift[channel]); ADD adds the
    array `other` of the output's shape; RELU is x if x > 0, else +0, NaN for NaN.
    """

    kinds: tuple[int, ...] = ()
    scales: tuple[Array | None, ...] = ()
    shifts: tuple[Array | None, ...] = ()
    others: tuple[Array | None, ...] = ()

    def bias(self, shift: Array) -> Chain:
        """The chain with one more step: an addition per channel."""
        return self._then(BIAS, None, shift, None)

    def scale_shift(self, scale: Array, shift: Array) -> Chain:
        """The chain with one more step: an FMA with a scale and a shift per channel."""
        return self._then(SCALE_SHIFT, scale, shift, None)

    def add(self, other: Array) -> Chain:
        """The chain with one more step: the addition of another array of the output's shape."""
        return self._then(ADD, None, None, other)

    def relu(self) -> Chain:
        """The chain with one more step: relu."""
        return self._then(RELU, None, None, None)

    def _then(self, kind: int, scale: Array | None, shift: Array | None, other: Array | None) -> Chain:
        return Chain((*self.kinds, kind), (*self.scales, scale), (*self.shifts, shift), (*self.others, other))

    def tables(self, n: int, channels: int, size: int, dtype: Any) -> tuple[Array, Array, Array, Array]:
        """(kinds, scales and shifts (steps, channels), others (adds, n * channels, size)) for the kernels."""
        steps = len(self.kinds)
        scales, shifts = np.zeros((steps, channels), dtype), np.zeros((steps, channels), dtype)
        for s in range(steps):
            if (scale := self.scales[s]) is not None:
                scales[s] = scale
            if (shift := self.shifts[s]) is not None:
                shifts[s] = shift
        added = [np.ascontiguousarray(o).reshape(n * channels, size) for o in self.others if o is not None]
        if len(added) == 1:
            others = added[0][None]
        else:
            others = np.stack(added) if added else np.zeros((0, 0, 0), dtype)
        return np.array(self.kinds, np.int64), scales, shifts, others


def apply(x: Array, chain: Chain, threads: int) -> Array:
    """The chain applied to x (n, c, ...), as a new array."""
    y = np.empty(x.shape, x.dtype)
    if x.size == 0:
        return y
    n, c = x.shape[:2] if x.ndim > 1 else (1, x.shape[0])
    rows = np.ascontiguousarray(x).reshape(n * c, -1)
    tables = chain.tables(n, c, rows.shape[1], x.dtype)
    threads = enough(threads, x.size * len(chain.kinds))
    split(_rows, n * c, threads, rows, y.reshape(rows.shape), *tables)
    return y


@njit
def _rows(work: Any, x: Any, y: Any, kinds: Any, scales: Any, shifts: Any, others: Any) -> None:
    begin, end = share(work)
    while begin < end:
        for row in range(begin, end):
            target = y[row]
            target[:] = x[row]
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
