"""How kernels are compiled and cached.

Numba's disk cache does not notice when a function that a kernel calls changes in another file, and
would go on returning the old numbers. So the cache lives in a folder named after the sha256 of all
kernel sources and of the versions of Python, numba, llvmlite and NumPy. Every compiled function is in
a package named in `COMPILED`, and imports `njit` from here. What they use from elsewhere is in the
files `SHARED` (`tests/kernels/test_cache_key.py` checks all of it).

Environment: REFNET_CACHE names another folder for the compiled kernels (default: the user's cache
folder, XDG_CACHE_HOME or ~/.cache, in refnet/kernels). `kernel_files.py` says which folders are used.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
import numba
import numpy as np
from numba.core import event

from refnet.loops.kernel_files import kernel_folder, say

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

SOURCES = Path(__file__).parents[1]
COMPILED = ("kernels", "loops", "prove")
"""The packages of refnet that hold compiled code."""
SHARED = ("core/engine.py", "core/orders.py")
"""Files that compiled code takes constants and the fields of tuples from."""


def cache_key() -> str:
    """The name of the cache folder: it changes with any kernel source, the compiler's versions, and with the
    processor that vectors are chosen for (kernels/writer.py).
    """
    digest = hashlib.sha256()
    files = [path for name in COMPILED for path in (SOURCES / name).rglob("*.py")]
    for path in sorted(files + [SOURCES / name for name in SHARED]):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    versions = (sys.implementation.cache_tag, numba.__version__, llvmlite.__version__, np.__version__)
    digest.update(" ".join(map(str, versions)).encode())
    host = llvmlite.binding.get_host_cpu_features().flatten()
    digest.update(repr((numba.config.CPU_NAME, numba.config.CPU_FEATURES, host)).encode())
    return digest.hexdigest()[:16]


@cache
def _key() -> str:
    """The key of the sources that this process imports: made when its first kernel is defined."""
    return cache_key()


def cache_folder() -> Path | None:
    """Where this process keeps compiled kernels; None: nowhere."""
    return kernel_folder(_key())


class _Announce(event.Listener):  # type: ignore[misc]  # numba is not typed
    """Says once that kernels are being compiled, because the first run on a machine takes a while."""

    def __init__(self) -> None:
        self.said = False

    def on_start(self, event: Any) -> None:
        if not self.said and not os.environ.get("REFNET_QUIET"):
            self.said = True
            folder = cache_folder()
            kept = folder is not None and os.access(folder, os.W_OK)
            when = "once; later runs load them" if kept else f"{folder or 'no folder'} cannot be written"
            say(f"refnet: compiling kernels for this machine ({when})")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announce())


class _Watch(event.Listener):  # type: ignore[misc]
    """Counts compilations, but not those within others."""

    def __init__(self, called: Callable[[int, int], object]) -> None:
        self.called, self.begun, self.done, self.nested = called, 0, 0, 0

    def on_start(self, event: Any) -> None:
        self.nested += 1
        if self.nested == 1:
            self.begun += 1
            self.called(self.begun, self.done)

    def on_end(self, event: Any) -> None:
        self.nested -= 1
        if self.nested == 0:
            self.done += 1
            self.called(self.begun, self.done)


@contextmanager
def watching(called: Callable[[int, int], object]) -> Iterator[None]:
    """Within it, called(begun, done) when the compilation of a kernel starts and ends.

    begun, done: how many kernels this process has started and finished compiling since then.
    """
    with event.install_listener("numba:compile", _Watch(called)):
        yield


KNOWN = (0, 61), (0, 68)
"""The oldest and the newest Numba that `numba_cache.py` was tested with; it uses private parts of Numba.
Other versions import all that compiling needs before they load a kernel, as Numba's own cache does."""


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

    With NUMBA_DISABLE_JIT the function stays Python, which computes the same bits slowly. NumPy's warnings
    are then off, as machine code has none: infinities, NaN and integers that wrap are expected.
    """
    if numba.config.DISABLE_JIT:
        return np.errstate(all="ignore")(function)
    from refnet.loops.numba_cache import keep  # after DISABLE_JIT: it needs the compiler's parts

    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    light = known(numba.__version__)
    _key()

    def kernel(function: Any, **pipeline: Any) -> Any:
        made = numba.njit(**options, **pipeline)(function)
        keep(made, cache_folder, light)
        return made

    if not light:
        return cast(F, kernel(function))
    from refnet.loops.parts import Kernel, KernelCompiler, PartCompiler

    part = numba.njit(pipeline_class=PartCompiler, no_cpython_wrapper=True, **options)
    return cast(F, Kernel(function, partial(kernel, pipeline_class=KernelCompiler), part))
