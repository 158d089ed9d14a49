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

import gc
from collections.abc import Callable
from functools import cache
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

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
        collects = gc.isenabled()
        gc.disable()
        try:
            return super()._compile_core()
        finally:
            if collects:
                gc.enable()


def call_as_part(kernel: Any, make: Callable[[], Any]) -> None:
    """Let compiled functions that call the kernel call its part instead, which make() returns.

    make: called when the first of them is compiled. A process that loads all its kernels needs no parts.
    """

    @cache
    def part() -> Any:
        made = make()

        def add(result: Any) -> None:  # nothing that Python could call
            made.overloads[tuple(result.signature.args)] = result

        made.add_overload = add
        widen(made)
        return made

    kernel.get_call_template = lambda args, kws: part().get_call_template(args, kws)
    kernel.get_overload = lambda signature: part().get_overload(signature)
