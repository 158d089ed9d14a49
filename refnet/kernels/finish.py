"""The end of a sum: scale and shift, addition and relu of vectors on their way from one row to another.

A loop over elements would leave short rows (7 or 49 outputs) to their scalar rest, and one loop per step
reads and writes the row as often as there are steps. Here a row is one loop over whole vectors, with every
step in registers, and its rest is vectors of half the width, a quarter, and so on.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.simd import VECTOR

FACTOR, SCALE, OTHER, BY_ZERO = 1, 2, 4, 8
"""v * factor; then fma(v, scale, shift); then v + other; then x if x > 0, else +0, NaN for NaN."""


def _finish(
    typingctx: Any,
    y: Any,
    to: Any,
    x: Any,
    at: Any,
    count: Any,
    flags: Any,
    factor: Any,
    scale: Any,
    shift: Any,
    others: Any,
    where: Any,
) -> Any:
    """The typing and code of `finish`: one loop per combination of flags."""
    element = y.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar, size = context.get_value_type(element), ir.IntType(64)
        align = element.bitwidth // 8

        def pointer(array: int, offset: int) -> Any:
            made = context.make_array(signature.args[array])(context, builder, args[array])
            return builder.gep(made.data, [args[offset]])

        target, source, other = pointer(0, 1), pointer(2, 3), pointer(9, 10)
        done = builder.append_basic_block("done")
        cases = builder.switch(args[5], done)

        def vectors(steps: int, lanes: int, i: Any) -> None:
            vector = ir.VectorType(scalar, lanes)
            numbers = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            empty = ir.Constant(vector, ir.Undefined)
            fused = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f{element.bitwidth}"
            )

            def wide(value: Any) -> Any:
                first = builder.insert_element(empty, value, ir.IntType(32)(0))
                return builder.shuffle_vector(first, empty, numbers)

            def place(base: Any) -> Any:
                return builder.bitcast(builder.gep(base, [i]), vector.as_pointer())

            v = builder.load(place(source), align=align)
            if steps & FACTOR:
                v = builder.fmul(v, wide(args[6]))
            if steps & SCALE:
                v = builder.call(fused, [v, wide(args[7]), wide(args[8])])
            if steps & OTHER:
                v = builder.fadd(v, builder.load(place(other), align=align))
            if steps & BY_ZERO:
                zero = ir.Constant(vector, [0.0] * lanes)
                v = builder.select(builder.fcmp_ordered("<=", v, zero), zero, v)
            builder.store(v, place(target), align=align)

        for steps in range(16):
            block = builder.append_basic_block(f"steps{steps}")
            cases.add_case(flags_type(steps), block)
            builder.position_at_end(block)
            lanes = VECTOR // align
            whole = builder.and_(args[4], size(-lanes))
            with cgutils.for_range_slice(builder, size(0), whole, size(lanes), size) as (i, _):
                vectors(steps, lanes, i)
            while lanes > 1:
                lanes //= 2
                with builder.if_then(builder.icmp_signed("!=", builder.and_(args[4], size(lanes)), size(0))):
                    vectors(steps, lanes, builder.and_(args[4], size(-2 * lanes)))
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    flags_type = ir.IntType(64)
    i8 = types.int64
    return types.void(y, i8, x, i8, i8, i8, element, element, element, others, i8), codegen


finish: Any = intrinsic(_finish)
"""finish(y, to, x, at, count, flags, factor, scale, shift, others, where): y[to : to + count] = x[at : at +
count] after the steps that the flags name, with others[where : where + count]. Flat contiguous arrays of one
dtype, nothing is checked; y and x may be the same row, not rows that overlap otherwise."""
