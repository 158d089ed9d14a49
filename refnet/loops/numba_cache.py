"""Numba's cache of compiled kernels, for processes that load in a hurry and compile beside one another.

Loading a compiled kernel without importing what only compiling needs:

Before Numba loads its first kernel it imports all that it is able to compile: two hundred modules, and SciPy
where that is installed. That is most of the time that a second process takes to load its kernels, and some
more when the process ends and all of it is taken down. Machine code needs nothing of it but the runtime that
allocates arrays. What must be compiled finds everything: Numba imports it before every compilation, too.

Numba numbers the files of a kernel's machine code, 1 for the first types of arguments that it is compiled
for, and its index says which is which. Two processes that compile the same kernel for different types at the
same time both take number 1, and what the index then says of it may be wrong: code that takes float64 is
called with float32. So here a file is named after the types and the processor, and written before the index
tells of it, and one process at a time writes an index.

Processes that compile at the same time share the work: what one has begun another waits for, and loads
(`claims.py`). Where the system lacks such locks both compile it, and what is lost from an index is compiled
once more.
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
    """Numba's cache, keyed and checked as ever, with files of other names and a lighter `load_overload`."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        of = self._impl
        self._cache_file = Files(self._cache_path, of.filename_base, of.locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As FunctionCache's, with the runtime's part of target_context.refresh() in place of all of it.

        What is not there will be compiled now, so it is claimed until `save_overload`; if it had to wait for
        another process's claim, that one has compiled it.
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
        """As FunctionCache's, and the claim ends."""
        try:
            super().save_overload(sig, data)
        finally:
            claims_in(self._cache_path).release(self._what(sig))

    def _what(self, sig: Any) -> str:
        return f"{self._impl.filename_base} {sig}"


def lighten(kernel: Any) -> None:
    """Let a kernel load so."""
    if type(getattr(kernel, "_cache", None)) is FunctionCache:
        kernel._cache = Cache(kernel.py_func)


def widen(kernel: Any) -> None:
    """Let a kernel that another one calls with a constant be the one that takes any number of that type.

    Numba would compile it for the constant alone, and once more for each other one. LLVM knows the constant
    wherever it puts the kernel's code into the caller's.
    """
    if not hasattr(kernel, "get_call_template"):
        return
    template = kernel.get_call_template

    def of_any(args: Any, kws: Any) -> Any:
        wide = {name: types.unliteral(kind) for name, kind in dict(kws).items()}
        return template(tuple(types.unliteral(kind) for kind in args), wide)

    kernel.get_call_template = of_any
