"""Pointwise steps applied to rows that are still in the cache: bias, scale and shift, addition, relu.

A chain is a list of steps in the order in which the graph's nodes follow one another. Each step
rounds exactly as its node alone would; only the stores and loads between them are saved. Steps that follow
one another as batch norm, addition, relu are one pass over the vectors of a row (`finish.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.finish import BY_ZERO, FACTOR, OTHER, SCALE, finish
from refnet.kernels.jit import njit, reading
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
        return *self.constants(shape[1], dtype), added(self.others, shape, dtype)

    def constants(self, channels: int, dtype: Any) -> tuple[Array, Array, Array]:
        """The tables without the arrays to add."""
        key = (channels, dtype)
        if key not in self._kept:
            self._kept[key] = self._constants(channels, dtype)
        return self._kept[key]

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
    return bind_rows(x.shape, x.dtype, chain, threads)(np.ascontiguousarray(x), chain.others, factors)


def bind_rows(
    shape: tuple[int, ...], dtype: Any, chain: Chain, threads: int
) -> Callable[[Array, Sequence[Array], Array | None], Array]:
    """What `apply` does with x of this shape, called with x, the arrays to add and perhaps the factors."""
    n, c = shape[:2] if len(shape) > 1 else (1, shape[0])
    tables, none = chain.constants(c, dtype), np.zeros(0, dtype)
    size = int(np.prod(shape))
    threads = enough(threads, size * len(chain.kinds))

    def run(x: Array, others: Sequence[Array], factors: Array | None) -> Array:
        y = np.empty(shape, dtype)
        if size == 0:
            return y
        factor = none if factors is None else np.ascontiguousarray(factors).reshape(-1)
        more = added(others, (n, c, *shape[2:]), dtype)
        rows, target = x.reshape(n * c, -1), y.reshape(n * c, -1)
        split(_rows, n * c, threads, reading(rows), reading(factor), target, *tables, more)
        return y

    return run


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
