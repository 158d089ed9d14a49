"""Whether there are numbers of a kind in rows, a vector at a time: so kernels decide what they compute again.

A loop of Numba that counts them adds integers of 64 bits, half as many per vector. What is computed again are
the sums of loops/conv.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.writer import Writer


def _scan(other: float, test: Callable[[Writer, Any, Any], Any]) -> Any:
    """The typing and code of a scan for lanes that pass the test(of, vector, bound).

    other: a number that does not pass it.
    """

    def typing(typingctx: Any, x: Any, at: Any, rows: Any, length: Any, pitch: Any, bound: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = Writer(context, builder, signature, args)
            none = ir.Constant(ir.VectorType(ir.IntType(1), of.lanes), [0] * of.lanes)
            found, bound = cgutils.alloca_once_value(builder, none), of.wide(args[5], of.lanes)
            with of.loop(args[2]) as row:
                source = of.pointer(0, builder.add(args[1], builder.mul(row, args[4])))

                def body(begin: Any, some: Any, source: Any = source) -> None:
                    passes = test(of, of.load(source, begin, some, of.constant(other)), bound)
                    builder.store(builder.or_(builder.load(found), passes), found)

                of.row(args[3], of.lanes, body)
            bits = builder.bitcast(builder.load(found), ir.IntType(of.lanes))
            return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

        i8 = types.int64
        return types.boolean(x, i8, i8, i8, i8, x.dtype), codegen

    return typing


def _zero(of: Writer, value: Any, bound: Any) -> Any:
    return of.builder.fcmp_ordered("==", value, of.zero)


def _nearer(of: Writer, value: Any, bound: Any) -> Any:
    small = of.builder.fcmp_ordered("<", of.absolute(value), bound)
    return of.builder.and_(small, of.builder.fcmp_unordered("!=", value, of.zero))


any_zero: Any = intrinsic(_scan(1.0, _zero))
"""any_zero(x, at, rows, length, pitch, bound): whether a number among rows of x is 0, of either sign.
Row r is x[at + r * pitch : at + r * pitch + length], x contiguous and counted flat."""
any_nearer: Any = intrinsic(_scan(0.0, _nearer))
"""any_nearer(x, at, rows, length, pitch, bound): whether there is one with 0 < |v| < bound."""
