"""A true fused multiply-add; neither Numba nor NumPy has one.

Compiled, `fma` is llvm.fma: one rounding, on any processor (where there is no such instruction, LLVM calls
the C library's fma, which computes the same bits, slowly). With NUMBA_DISABLE_JIT it is `exact_fma` below.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numba
import numpy as np
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


def exact_fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding, in Python: of three float32 a float32, of three float64 a float64.

    >>> a = np.float32(1 + 2**-12)  # a * a is 1 + 2**-11 + 2**-24: a float32 has no place for the last
    >>> print(exact_fma(a, a, np.float32(-1 - 2**-11)) == 2**-24, a * a - np.float32(1 + 2**-11))
    True 0.0
    """
    if type(a) is type(b) is type(c) is np.float32:
        s = _odd_sum(float(a) * float(b), float(c))
        if s == 0 or ORDINARY[0] <= abs(s) <= ORDINARY[1]:
            return np.float32(s)
        with np.errstate(all="ignore"):  # which takes longer than all the rest
            return np.float32(s)
    if np.float32 in {type(a), type(b), type(c)}:
        raise TypeError(f"three float32 or three float64, got {a!r}, {b!r}, {c!r}")
    return np.float64(_rational(float(a), float(b), float(c)))


ORDINARY = (2.0**-126, 2.0**127)
"""Sizes that a conversion to float32 neither overflows nor makes subnormal."""


def _odd_sum(p: float, c: float) -> float:
    """p + c in float64, rounded to odd: rounding that to float32 is rounding the exact sum to float32.

    p is the exact product of two float32. Rounding to odd means: an inexact sum becomes the one of its two
    neighbours whose last bit is 1. So a sum near the midpoint of two float32 never becomes that midpoint.
    """
    s = p + c
    if not math.isfinite(s):
        return s
    t = s - p
    error = (p - (s - t)) + (c - t)  # Knuth's TwoSum: exactly what the addition lost
    if error and struct.unpack("<q", struct.pack("<d", s))[0] % 2 == 0:
        s = math.nextafter(s, math.copysign(math.inf, error))
    return s


def _rational(a: float, b: float, c: float) -> float:
    """a * b + c in exact integers; their quotient is rounded once, as Python's division of integers is."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c  # though a * b may overflow
    (an, ad), (bn, bd), (cn, cd) = a.as_integer_ratio(), b.as_integer_ratio(), c.as_integer_ratio()
    numerator = an * bn * cd + cn * ad * bd
    if numerator == 0:
        return a * b + c  # which is exact here, and has the sign of zero that IEEE 754 gives it
    try:
        return numerator / (ad * bd * cd)
    except OverflowError:
        return -math.inf if numerator < 0 else math.inf


fma: Any = exact_fma if numba.config.DISABLE_JIT else intrinsic(_fma)
"""fma(a, b, c): a * b + c with one rounding, for three float32 or three float64."""
