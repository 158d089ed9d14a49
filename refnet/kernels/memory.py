"""Where kernels' results lie: anywhere, or, while a run is recorded (captured_run.py), in one arena.

While a run is recorded, the arena reuses the memory of arrays that are freed. A repetition then finds every
value at the same place.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.loops.jit import njit

Array = npt.NDArray[Any]

LINE = 64
"""Bytes of a cache line, and of the widest vector: an array that begins at a multiple is read faster."""
PIECE = 1 << 23
"""Bytes that an arena takes from the system at a time, or more for a larger array. From 4 MiB on NumPy asks
for huge pages, which spare the processor most of its look-ups of addresses."""


class Arena:
    """Memory for arrays, each beginning at a multiple of LINE. Only one thread may ask for them.

    An array's memory is free again when the array and all views of it are gone, whoever held the last one.
    doubts: see `doubt`.
    """

    def __init__(self) -> None:
        self.pieces: list[Array] = []
        self._free: list[list[tuple[int, int]]] = []
        self._lent: dict[int, tuple[weakref.ref[Array], int, int, int]] = {}
        self._gone: list[weakref.ref[Array]] = []
        self.doubts: list[Array] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of this shape; what is in it is not determined."""
        kind = np.dtype(dtype)
        count = prod(shape)
        if count == 0:
            return np.empty(shape, kind)
        while self._gone:
            _, *place = self._lent.pop(id(self._gone.pop()))
            self._give(*place)
        size = -(-count * kind.itemsize // LINE) * LINE
        piece, begin = self._take(size)
        flat = np.frombuffer(self.pieces[piece].data, kind, count, begin)  # views of it refer to it
        # an array may end in any thread, at any moment: all that is done then is one append
        reference = weakref.ref(flat, self._gone.append)
        self._lent[id(reference)] = reference, piece, begin, size
        return flat.reshape(shape)

    def lasting(self, array: Array) -> Array | None:
        """The same memory as an array that has no claim to a place in the arena; None if it is not here."""
        if array.size == 0:
            view = np.empty(array.shape, array.dtype)
            view.flags.writeable = array.flags.writeable
            return view
        begin = array.__array_interface__["data"][0]
        for piece in self.pieces:
            at = begin - piece.__array_interface__["data"][0]
            if 0 <= at < piece.size:
                view = np.ndarray(array.shape, array.dtype, piece.data, at, array.strides)
                view.flags.writeable = array.flags.writeable
                return view
        return None

    def _take(self, size: int) -> tuple[int, int]:
        """The piece and the first byte of the smallest gap that is large enough."""
        gaps = [(end - begin, i, begin) for i, gaps in enumerate(self._free) for begin, end in gaps]
        fitting = [gap for gap in gaps if gap[0] >= size]
        if not fitting:
            raw = np.empty(max(size, PIECE) + LINE, np.uint8)
            first = -raw.__array_interface__["data"][0] % LINE
            self.pieces.append(raw[first : first + max(size, PIECE)])
            self._free.append([(0, max(size, PIECE))])
            fitting = [(max(size, PIECE), len(self.pieces) - 1, 0)]
        _, piece, begin = min(fitting)
        gaps_here = self._free[piece]
        at = next(i for i, gap in enumerate(gaps_here) if gap[0] == begin)
        end = gaps_here[at][1]
        gaps_here[at : at + 1] = [(begin + size, end)] if begin + size < end else []
        return piece, begin

    def _give(self, piece: int, begin: int, size: int) -> None:
        """Make these bytes a gap, joined with the gaps beside it."""
        gaps = sorted([*self._free[piece], (begin, begin + size)])
        joined = gaps[:1]
        for first, end in gaps[1:]:
            if first == joined[-1][1]:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((first, end))
        self._free[piece] = joined


_arena: ContextVar[Arena | None] = ContextVar("arena", default=None)


@contextmanager
def allocating_in(arena: Arena) -> Iterator[None]:
    """In it, `empty` takes from the arena."""
    token = _arena.set(arena)
    try:
        yield
    finally:
        _arena.reset(token)


@njit
def scratch(count: int, like: Any) -> Any:
    """For kernels: `count` elements of like's dtype, the first at a multiple of LINE."""
    flat = np.empty(count + LINE // like.itemsize, like.dtype)
    first = (LINE - flat.ctypes.data % LINE) % LINE // like.itemsize
    return flat[first : first + count]


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of zeros of its own that begins at a multiple of LINE."""
    kind = np.dtype(dtype)
    raw = np.zeros(prod(shape) * kind.itemsize + LINE, np.uint8)
    first = -raw.__array_interface__["data"][0] % LINE
    return np.frombuffer(raw.data, kind, prod(shape), first).reshape(shape)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A new array of this shape, in the arena if there is one; what is in it is not determined."""
    arena = _arena.get()
    return np.empty(shape, dtype) if arena is None else arena.empty(shape, dtype)


def doubt() -> Array:
    """A new array (1,) int64 of 0. A kernel sets it to 1 where the kernels after it would not be the right
    ones for the data; the caller then does something else. A captured run gives no values for such data.
    """
    arena, made = _arena.get(), np.zeros(1, np.int64)
    if arena is not None:
        arena.doubts.append(made)
    return made
