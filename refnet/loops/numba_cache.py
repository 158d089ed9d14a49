"""Numba's cache of compiled kernels, changed to load quickly and to be safe when processes compile together.

Loading without importing what only compiling needs. Before Numba loads its first kernel it imports everything
that it can compile: two hundred modules, and SciPy if installed. That is most of the time in which a later
process loads its kernels, and some more when it ends. Machine code needs only the runtime that allocates
arrays. Compiling still works, because Numba repeats these imports before every compilation.

Naming files by their types. Numba numbers the files of a kernel's machine code, 1 for the first types of
arguments, and its index says which is which. If two processes compile the same kernel for different types at
the same time, both take number 1, and the index may then be wrong: code for float64 is called with float32.
So here a file is named after the types and the processor, and is written before the index mentions it; only
one process at a time writes an index.

Sharing the work. If another process is already compiling a kernel, this one waits and loads it (`claims.py`).
Where the system lacks such locks, both compile it, and a lost index entry is compiled again.
"""

from __future__ import annotations

import hashlib
from typing import Any

from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.runtime import rtsys

from refnet.loops.claims import claims_in


class Files(IndexDataCacheFile):  # type: ignore[misc]  # numba is not typed
    """A kernel's index and its files of machine code."""

    def save(self, key: Any, data: Any) -> None:
        """Keep data under key: types of the arguments, processor, hash of the function's own bytecode."""
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        name = f"{self._index_name.removesuffix('.nbi')}.{name}.nbc"
        self._save_data(name, data)
        claims = claims_in(self._cache_path)
        claims.take(self._index_name)
        try:
            self._save_index({**self._load_index(), key: name})
        finally:
            claims.release(self._index_name)


class Cache(FunctionCache):  # type: ignore[misc]  # numba is not typed
    """Numba's cache with the same keys and checks, but other file names and a lighter `load_overload`."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        of = self._impl
        self._cache_file = Files(self._cache_path, of.filename_base, of.locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As FunctionCache's, but with only the runtime's part of target_context.refresh().

        A kernel that is missing will be compiled now, so it is claimed until `save_overload`. If we had to
        wait for another process's claim, that process has compiled it.
        """
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
            if found is None and claims_in(self._cache_path).take(self._what(sig)):
                found = self._load_overload(sig, target_context)
                if found is not None:
                    claims_in(self._cache_path).release(self._what(sig))
            return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """As FunctionCache's; then the claim ends."""
        try:
            super().save_overload(sig, data)
        finally:
            claims_in(self._cache_path).release(self._what(sig))

    def _what(self, sig: Any) -> str:
        return f"{self._impl.filename_base} {sig}"


def lighten(kernel: Any) -> None:
    """Give a kernel this cache."""
    if type(getattr(kernel, "_cache", None)) is FunctionCache:
        kernel._cache = Cache(kernel.py_func)


def widen(kernel: Any) -> None:
    """Compile a kernel that is called with a constant for its type, not for the constant.

    Otherwise Numba would compile it again for each constant. Where LLVM inlines the kernel, it uses the
    constant anyway.
    """
    if not hasattr(kernel, "get_call_template"):
        return
    template = kernel.get_call_template

    def of_any(args: Any, kws: Any) -> Any:
        wide = {name: types.unliteral(kind) for name, kind in dict(kws).items()}
        return template(tuple(types.unliteral(kind) for kind in args), wide)

    kernel.get_call_template = of_any
