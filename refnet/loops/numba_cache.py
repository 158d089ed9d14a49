"""The cache of compiled kernels: Numba's way of keeping machine code, with other files that load quickly.

Checked files. Numba unpickles whatever its cache holds. Here every file has its own hash, and lies in a
folder that only this user or root can change (`kernel_files.py`); anything else is compiled again. A file is
named after the kernel, its source, the types of its arguments and the processor, so there is no index:
processes that compile at the same time cannot contradict each other.

Loading without what only compiling needs. Before Numba loads its first kernel it imports everything
that it can compile: two hundred modules, and SciPy if installed. That is most of the time in which a later
process loads its kernels, and some more when it ends. Machine code needs only the runtime that allocates
arrays. Compiling still works, because Numba repeats these imports before every compilation. A file has no
code of LLVM's either, whose reading would take a third of the time (`_Form.reduce`).

Sharing the work. If another process is already compiling a kernel, this one waits and loads it (`claims.py`).
Where the system lacks such locks, or the folder is read-only, both compile it.
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import ir
from llvmlite.binding import parse_assembly
from numba import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.environment import Environment
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from refnet.loops import kernel_files
from refnet.loops.claims import claims_in


class _Form(CompileResultCacheImpl):  # type: ignore[misc]  # numba is not typed
    """How Numba turns a compiled function into data and back, without Numba's choice of a folder.

    `_locator` and its `_py_file` are for Numba's warnings. light: only what a call from Python needs.
    """

    def __init__(self, function: Any, source: str, light: bool) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator, self._py_file = self, source
        self._light = light

    def reduce(self, result: Any) -> Any:
        """As CompileResultCacheImpl's; if light, with less of what is not machine code.

        Numba keeps LLVM's code, with which other kernels could be linked; these take the part (`parts.py`).
        An environment has a function's Python objects and the module that it was defined in, which loading
        would import. Of one without objects only the name is kept.
        """
        (name, kind, (code, llvm)), described, *others, environments = super().reduce(result)
        names: list[str] = []
        if self._light:
            llvm = _defining(described.llvm_func_name, described.llvm_cpython_wrapper_name)
            names = [one.env_name for one in environments if not one.consts]
            environments = tuple(one for one in environments if one.consts)
        return (((name, kind, (code, llvm)), described, *others, environments), names)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """The compiled function again; machine code only looks whether there is an environment."""
        whole, names = payload
        result = super().rebuild(target_context, whole)
        for name in names:
            result.library.codegen.set_env(name, _environment())
        return result


def _defining(*names: str) -> bytes:
    """LLVM's code of a module that has these names: Numba asks it which functions the machine code has."""
    module = ir.Module()
    for name in names:
        ir.GlobalVariable(module, ir.IntType(8), name).initializer = ir.IntType(8)(0)
    return bytes(parse_assembly(str(module)).as_bitcode())


@cache
def _environment() -> Environment:
    """The environment of all functions without Python objects; it lives as long as the process."""
    return Environment({"__name__": __name__})


class Cache(FunctionCache):  # type: ignore[misc]  # numba is not typed
    """Numba's cache with its key (types, processor, bytecode), in files of our own.

    folder: called when the first kernel is looked for. light: load without what only compiling needs.
    """

    def __init__(self, function: Any, folder: Callable[[], Path | None], light: bool) -> None:
        self._name, self._py_func = repr(function), function
        self._source = inspect.getfile(function)
        self._impl = _Form(function, self._source, light)
        self._folder, self._light = folder, light
        self.enable()

    @property
    def cache_path(self) -> str:
        """The folder, for Numba's statistics."""
        return str(self._folder())

    def flush(self) -> None:
        """Nothing: files are replaced one by one."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As FunctionCache's, but with only the runtime's part of target_context.refresh().

        A kernel that is missing will be compiled now, so it is claimed until `save_overload`. If we had to
        wait for another process's claim, that process has compiled it.
        """
        if self._light:
            rtsys.initialize(target_context)
        else:
            target_context.refresh()
        folder = self._folder()
        if folder is None or not self._enabled:
            return None
        name = self._file(sig, target_context.codegen())
        found = self._loaded(folder, name, target_context)
        if found is None and claims_in(str(folder)).take(name):
            found = self._loaded(folder, name, target_context)
            if found is not None:
                claims_in(str(folder)).release(name)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """As FunctionCache's; then the claim ends."""
        folder = self._folder()
        if folder is None or not self._enabled:
            return
        name = self._file(sig, data.codegen)
        try:
            if self._impl.check_cachable(data):
                kernel_files.save(folder, name, dumps(self._impl.reduce(data)))
        finally:
            claims_in(str(folder)).release(name)

    def _loaded(self, folder: Path, name: str, target_context: Any) -> Any:
        code = kernel_files.load(folder, name)
        if code is None:
            return None
        try:
            return self._impl.rebuild(target_context, pickle.loads(code))
        except Exception:  # machine code of this name that this Numba cannot use: compile it again
            return None

    def _file(self, sig: Any, codegen: Any) -> str:
        """The name of the file of one version of the kernel."""
        function = self._py_func
        place = (self._source, _stamp(self._source), function.__qualname__, function.__code__.co_firstlineno)
        key = repr((place, self._index_key(sig, codegen)))
        return f"{function.__name__[:60]}.{hashlib.sha256(key.encode()).hexdigest()[:32]}.kernel"


@cache
def _stamp(source: str) -> str:
    """What names a kernel's own file. The folder's name covers refnet's files; tests have kernels, too."""
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def keep(kernel: Any, folder: Callable[[], Path | None], light: bool) -> None:
    """Give a kernel this cache, if its source is a file."""
    function = kernel.py_func
    if Path(inspect.getfile(function)).is_file():
        kernel._cache = Cache(function, folder, light)


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
