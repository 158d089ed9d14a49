"""What kernels need besides data: cached packed weights, and a number of threads."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import numpy.typing as npt

T = TypeVar("T")


def readonly(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as a read-only view.

    Numba compiles a kernel, and loads it, once for arrays that may be written and once more for others; one
    that is given both must say which it wants.
    """
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


_prepared: dict[tuple[object, ...], tuple[tuple[weakref.ref[Any], ...], Any]] = {}


def cached(arrays: Sequence[npt.NDArray[Any]], how: object, make: Callable[[], T]) -> T:
    """make(), cached as long as the arrays live if all are read-only (a graph's weights are).

    arrays: what it is made from. how: the cache's key, together with the arrays; two calls with the same
    arrays and `how` must make the same.
    """
    for array in arrays:  # loops: this is called for every node of a run
        if array.flags.writeable:
            return make()
    key = (how, *map(id, arrays))
    known = _prepared.get(key)
    if known is not None:
        for reference, array in zip(known[0], arrays, strict=True):
            if reference() is not array:
                break
        else:
            return cast(T, known[1])

    def forget(_: object, kept: dict[Any, Any] = _prepared) -> None:  # also when the interpreter ends
        kept.pop(key, None)

    references = tuple(weakref.ref(a, forget) for a in arrays)
    known = _prepared[key] = (references, make())
    return known[1]


_most: ContextVar[int | None] = ContextVar("most", default=None)


@contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """Within it, `processors` returns at most this number."""
    token = _most.set(threads)
    try:
        yield
    finally:
        _most.reset(token)


def processors() -> int:
    """How many processors this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, _most.get() or count)
