"""Functions that kernels call, compiled as parts of these kernels and not once more for themselves.

    kernel, called from Python ── a function ── a function ...
    optimised, made machine code,  LLVM code only, linked into whatever calls it
    kept in the cache

Numba optimises every function together with all that it calls, and makes machine code of it, before it links
it into the function that calls it, which is then optimised and made machine code together with it again. A
function below two others was so compiled three times, each time with a wrapper for calls from Python. Here
each function has two dispatchers, the kernel and its part. What another function calls is the part; LLVM sees
it for the first time in the kernel.

The objects of a compilation refer to each other, but few become garbage before its end, so Python's search
for cycles, a fifth of the time, pauses until then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from threading import RLock
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from refnet.loops.garbage import paused
from refnet.loops.numba_cache import widen


class PartCode(JITCodeLibrary):  # type: ignore[misc]  # numba is not typed
    """The code of a part: what it calls is linked in; nothing is optimised or made machine code."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class PartCompiler(Compiler):  # type: ignore[misc]
    """Compiles a part."""

    def define_pipelines(self) -> Any:
        """Numba's own passes, which put the code here."""
        state = self.state
        state.flags.no_compile = True  # there is no address to call
        state.library = PartCode(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().define_pipelines()

    def _compile_core(self) -> Any:
        """Register the result for calls, as Numba does for what has an address, under a key of its own."""
        result = super()._compile_core()._replace(entry_point=object())
        self.state.targetctx.insert_user_function(result.entry_point, result.fndesc, [result.library])
        return result


class KernelCompiler(Compiler):  # type: ignore[misc]
    """Compiles a kernel."""

    def _compile_core(self) -> Any:
        with paused():
            return super()._compile_core()


_making = RLock()


class Kernel:
    """A function and its two dispatchers. Each is made when it is first used: a network needs few of them.

    It can do what the kernel's dispatcher can. Functions that Numba compiles call the part.
    """

    def __init__(self, function: Any, kernel: Callable[[Any], Any], part: Callable[[Any], Any]) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self._kernel, self._part = kernel, part

    @cached_property
    def dispatcher(self) -> Any:
        """Compiles, loads and calls the kernel. One, though all threads of a pool ask for it at once."""
        with _making:
            if (known := self.__dict__.get("dispatcher")) is not None:
                return known
            made = self._kernel(self.py_func)
            made.get_call_template, made.get_overload = self._template, self._overload
            self.__dict__["dispatcher"] = made
            return made

    @cached_property
    def part(self) -> Any:
        """Compiles the part, by PartCompiler."""
        made = self._part(self.py_func)

        def add(result: Any) -> None:  # nothing that Python could call
            made.overloads[tuple(result.signature.args)] = result

        made.add_overload = add
        widen(made)
        return made

    def _template(self, args: Any, kws: Any) -> Any:
        return self.part.get_call_template(args, kws)

    def _overload(self, signature: Any) -> Any:
        return self.part.get_overload(signature)

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copies and pickles ask for
            raise AttributeError(name)
        return getattr(self.dispatcher, name)  # also _numba_type_, by which Numba knows it
