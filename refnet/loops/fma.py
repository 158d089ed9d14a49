"""A true fused multiply-add, which Numba does not offer.

`fma` is llvm.fma: one rounding, on any processor (where there is no such instruction, LLVM calls the
C library's fma, which computes the same bits, slowly).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """The typing and code of `fma`."""
    if not (a == b == c and a in (types.float32, types.float64)):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        name = "llvm.fma.f32" if signature.return_type == types.float32 else "llvm.fma.f64"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, args)

    return a(a, a, a), codegen


fma: Any = intrinsic(_fma)
"""fma(a, b, c): a * b + c with one rounding, for three float32 or three float64."""
