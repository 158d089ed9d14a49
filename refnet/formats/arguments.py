"""The arguments of the public functions: what each must be. The same name means the same everywhere.

A public function begins with `check_arguments(locals())`. So an argument of a wrong kind is an InputError
that names it, and not an AttributeError from somewhere inside.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.core.orders import Book


@dataclass(frozen=True)
class Requirement:
    """What an argument must be. words: after "must be". needed: None will not do."""

    words: str
    fits: Callable[[object], bool]
    needed: bool = False


def _is_path(value: object) -> bool:
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return isinstance(text, str) and "\0" not in text


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value > 0)


def _listed(value: object, fits: Callable[[object], bool]) -> bool:
    """Whether it is a list or the like, but no text, of what fits."""
    return isinstance(value, Collection) and not isinstance(value, str | bytes) and all(map(fits, value))


def _is_list(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, Sequence) and _listed(value, fits)


def _is_capture(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) for name in value)
    return _is_path(value) or hasattr(value, "manifest")


def _is_size(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and _listed(value, _is_count)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(t, str) for pair in value.items() for t in pair)


PATH = Requirement("a path", _is_path, needed=True)
INPUTS = Requirement(
    "a path, seed:N, a list of these, or arrays by name",
    lambda v: _is_path(v) or isinstance(v, Mapping) or _is_list(v, _is_path),
)
ARRAYS = Requirement("a mapping of arrays by name", lambda v: isinstance(v, Mapping), needed=True)
SOURCES = Requirement(
    "seed:N, sample:NAME, or paths", lambda v: _is_path(v) or _is_list(v, _is_path), needed=True
)
MODEL = Requirement("a name or a path", _is_path, needed=True)
NETWORK = Requirement("a name, a path or a Graph", lambda v: _is_path(v) or isinstance(v, Graph))
CAPTURE = Requirement("a folder, an open capture, or arrays by name", _is_capture, needed=True)
BOOK = Requirement("a Book, as refnet.read_book reads it", lambda v: isinstance(v, Book), needed=True)
OPTIONAL, OPTIONAL_CAPTURE = replace(PATH, needed=False), replace(CAPTURE, needed=False)
TEXT = Requirement("a str", lambda v: isinstance(v, str))
NAMES = Requirement("a list of names", lambda v: _listed(v, lambda name: isinstance(name, str)))
SWITCH = Requirement("True or False", lambda v: isinstance(v, bool), needed=True)
COUNT = Requirement("1 or more", _is_count, needed=True)
MAPPING = Requirement("a mapping", lambda v: isinstance(v, Mapping))

THREADS = range(1, 257)

KINDS = {
    "graph": Requirement("a Graph, as refnet.load makes it", lambda v: isinstance(v, Graph), needed=True),
    "arithmetic": Requirement(
        "an arithmetic such as refnet.Plain(), refnet.Golden() or refnet.Replay(book)",
        lambda v: hasattr(v, "evaluate") and hasattr(v, "fused_graph") and not isinstance(v, type),
    ),
    "model": NETWORK,
    "weights": Requirement("a path, or seed:N", _is_path),
    "network": TEXT,
    "image": Requirement("a size (h, w)", _is_size),
    "inputs": INPUTS,
    "pipeline": TEXT,
    "book": Requirement("a path or a Book", lambda v: _is_path(v) or isinstance(v, Book)),
    "capture": CAPTURE,
    "a": CAPTURE,
    "b": CAPTURE,
    "folder": PATH,
    "path": PATH,
    "node": Requirement("the name of a node", lambda v: isinstance(v, str), needed=True),
    "at": Requirement(
        "the indices of an element, such as (0, 5)", lambda v: _listed(v, _is_whole), needed=True
    ),
    "only": replace(NAMES, needed=True),
    "outputs": replace(NAMES, needed=True),
    "values": NAMES,
    "until": NAMES,
    "names": Requirement("a path, or a mapping of texts", lambda v: _is_path(v) or _is_texts(v)),
    "allow": replace(NAMES, needed=True),
    "progress": Requirement("a function of (done, total)", callable),
    "framework": Requirement("a str", lambda v: isinstance(v, str), needed=True),
    "threads": Requirement("a whole number from 1 to 256", lambda v: _is_count(v) and v in THREADS),
    "batch": replace(COUNT, needed=False),
    "hash_only": SWITCH,
    "order_free": SWITCH,
    "other_sources": SWITCH,
    "mode": TEXT,
    "subgraph": Requirement(
        "NONE or default", lambda v: isinstance(v, str) and v in ("NONE", "default"), needed=True
    ),
    "python": Requirement("a path", _is_path),
    "environment": Requirement("a mapping of texts", _is_texts),
    "timeout": Requirement("a number of seconds", _is_time, needed=True),
    "state": Requirement("a path", _is_path),
    "arguments": Requirement("a list", lambda v: _listed(v, lambda _: True), needed=True),
    "options": MAPPING,
    "paths": Requirement("a list of paths", lambda v: _listed(v, _is_path), needed=True),
    "reference": MAPPING,
}
"""Argument -> what it must be, or None where it is not needed."""


def check_arguments(arguments: Mapping[str, object], others: Mapping[str, Requirement] | None = None) -> None:
    """Raises InputError, with the argument's name and value, for one that is not what it must be.

    arguments: by name. others: where a function asks for something else than KINDS.

    >>> check_arguments({"graph": 5})
    Traceback (most recent call last):
    refnet.core.errors.InputError: graph must be a Graph, as refnet.load makes it, got 5
    """
    kinds = KINDS if others is None else {**KINDS, **others}
    for name, value in arguments.items():
        kind = kinds.get(name)
        if kind is None or (value is None and not kind.needed):
            continue
        if value is None or not kind.fits(value):
            said = f"{value!r:.100}"
            raise InputError(f"{name} must be {kind.words}, got {said}")
