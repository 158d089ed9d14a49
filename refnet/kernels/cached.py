"""Loading a compiled kernel without importing what only compiling needs.

Before Numba loads its first kernel it imports all that it is able to compile: two hundred modules, and SciPy
where that is installed. That is most of the time that a second process takes to load its kernels, and some
more when the process ends and all of it is taken down. Machine code needs nothing of it but the runtime that
allocates arrays. What must be compiled finds everything: Numba imports it before every compilation, too.
"""

from __future__ import annotations

from typing import Any

from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys


class Cache(FunctionCache):  # type: ignore[misc]  # numba is not typed
    """Numba's cache, keyed and checked as ever; only `load_overload` leaves something out."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As FunctionCache's, with the runtime's part of target_context.refresh() in place of all of it."""
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


def lighten(kernel: Any) -> None:
    """Let a kernel load so. (With NUMBA_DISABLE_JIT there is none: a plain function stays as it is.)"""
    if type(getattr(kernel, "_cache", None)) is FunctionCache:
        kernel._cache = Cache(kernel.py_func)
