"""How kernels are compiled and cached.

Numba's disk cache does not notice when a function that a kernel calls changes in another file, and
would go on returning the old numbers. So the cache lives in a folder named after the sha256 of all
kernel sources and of the versions of numba, llvmlite and NumPy, set here before any kernel is
defined. Every compiled function stands in refnet/kernels/, and every kernel module imports `njit`
from here (a test checks both).

Environment: REFNET_CACHE names another folder for the compiled kernels (default: the user's cache
folder, XDG_CACHE_HOME or ~/.cache, in refnet/kernels).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba
import numpy as np
import numpy.typing as npt
from numba.core import event

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

SOURCES = Path(__file__).parents[1]
COMPILED = ("kernels", "loops", "prove")
"""The packages of refnet that hold compiled code."""


def cache_key() -> str:
    """Names the cache folder: changes with any kernel source and with the compiler's versions."""
    digest = hashlib.sha256()
    for path in sorted(path for name in COMPILED for path in (SOURCES / name).rglob("*.py")):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    digest.update(f"{numba.__version__} {llvmlite.__version__} {np.__version__}".encode())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    root = os.environ.get("REFNET_CACHE")
    if not root:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        root = os.path.join(home, "refnet", "kernels")
    return Path(root) / cache_key()


numba.config.CACHE_DIR = str(cache_folder())


class _Announce(event.Listener):  # type: ignore[misc]  # numba is not typed
    """Says once that kernels are being compiled: the first run on a machine takes a while."""

    def __init__(self) -> None:
        self.said = False

    def on_start(self, event: Any) -> None:
        if not self.said and not os.environ.get("REFNET_QUIET"):
            self.said = True
            print("refnet: compiling kernels for this machine (once; later runs load them)", file=sys.stderr)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announce())


KNOWN = (0, 61), (0, 68)
"""The oldest and the newest Numba that `cached.py`, which uses what is no public part of Numba, was tested
with. Any other loads kernels in its own way, more slowly."""


def known(version: str) -> bool:
    """Whether this version of Numba is one of KNOWN.

    >>> [known(version) for version in ("0.61.0", "0.68.1", "0.69.0", "1.0.0rc1", "a")]
    [True, True, False, False, False]
    """
    numbers = re.match(r"(\d+)\.(\d+)\.", version)
    return numbers is not None and KNOWN[0] <= (int(numbers[1]), int(numbers[2])) <= KNOWN[1]


def njit(function: F) -> F:
    """The one way to compile a kernel: no fastmath (nothing is contracted or reassociated), no GIL, and
    IEEE division (x / 0 is inf or NaN, not an exception).
    """
    kernel = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    if known(numba.__version__):
        from refnet.kernels.cached import lighten

        lighten(kernel)
    return cast(F, kernel)


def reading(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as a read-only view.

    Numba compiles a kernel, and loads it, once for arrays that may be written and once more for others; one
    that is given both must say which it wants.
    """
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


_prepared: dict[tuple[object, ...], tuple[tuple[weakref.ref[Any], ...], Any]] = {}


def prepared(arrays: Sequence[npt.NDArray[Any]], how: object, make: Callable[[], T]) -> T:
    """make(), kept as long as the arrays live if all are read-only (a graph's weights are).

    arrays: what it is made of. how: says, together with them, what is kept; two calls with equal arrays
    and `how` must make the same.
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
    """Within it, `processors` says no more than that: for what takes as many threads as there are."""
    token = _most.set(threads)
    try:
        yield
    finally:
        _most.reset(token)


def processors() -> int:
    """How many processors this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, _most.get() or count)
