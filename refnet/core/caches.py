"""What an arithmetic remembers to make the next run faster: per graph, and of the last few kinds of run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from refnet.core.graph import Graph

T = TypeVar("T")


class PerGraph(Generic[T]):
    """A cache: an entry per graph, kept as long as the graph lives. Copies and pickles of it are empty."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Graph, T] = WeakKeyDictionary()

    def of(self, graph: Graph, make: Callable[[], T]) -> T:
        """The entry of the graph, made if there is none yet. It must not refer to the graph."""
        known = self._kept.get(graph)
        return self._kept.setdefault(graph, make()) if known is None else known

    def __reduce__(self) -> tuple[type[PerGraph[Any]], tuple[()]]:
        return PerGraph, ()


class Latest(Generic[T]):
    """A cache of the entries that were made last, at most so many of them."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._kept: dict[object, T] = {}

    def of(self, key: object, make: Callable[[], T]) -> T:
        """The entry of the key, made if there is none."""
        known = self._kept.get(key)
        if known is None:
            known = make()
            for old in list(self._kept)[: 1 - self._most]:
                self._kept.pop(old, None)
            self._kept[key] = known
        return known
