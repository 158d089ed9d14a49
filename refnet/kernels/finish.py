"""The end of a sum: scale and shift, addition and relu of vectors on their way from rows to rows.

A loop over elements would leave short rows (7 or 49 outputs) to their scalar rest, and one loop per step
reads and writes the row as often as there are steps. Here a row is one loop over whole vectors, with every
step in registers; its rest is a vector of which some lanes are left out, or, where processors have no
such thing, vectors of half the width, a quarter, and so on. Which steps there are is looked up once for
all rows.
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
MASKS = VECTOR == 64
"""Whether vectors can leave lanes out."""


class _Row:
    """Writes the code for one row: vectors of `target` = those of `source` after the steps."""

    def __init__(self, builder: Any, scalar: Any, bits: int, steps: int, places: Any, factors: Any) -> None:
        self.builder, self.scalar, self.bits, self.steps = builder, scalar, bits, steps
        self.target, self.source, self.other = places
        self.factors = factors

    def vectors(self, lanes: int, i: Any, rest: Any = None) -> None:
        """The vector from element i on. rest: how many of its lanes count, if not all."""
        builder, word, align = self.builder, ir.IntType(32), self.bits // 8
        vector, flags = ir.VectorType(self.scalar, lanes), ir.VectorType(ir.IntType(1), lanes)
        numbers, empty = ir.VectorType(word, lanes), ir.Constant(vector, ir.Undefined)
        suffix = f"v{lanes}f{self.bits}"

        def call(name: str, result: Any, *arguments: Any) -> Any:
            kind = ir.FunctionType(result, [a.type for a in arguments])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

        def wide(value: Any, empty: Any = empty) -> Any:
            first = builder.insert_element(empty, value, word(0))
            return builder.shuffle_vector(first, empty, ir.Constant(numbers, [0] * lanes))

        def place(base: Any) -> Any:
            return builder.bitcast(builder.gep(base, [i]), vector.as_pointer())

        mask = None
        if rest is not None:
            limit = wide(builder.trunc(rest, word), ir.Constant(numbers, ir.Undefined))
            mask = builder.icmp_unsigned("<", ir.Constant(numbers, list(range(lanes))), limit)
            assert mask.type == flags

        def load(base: Any) -> Any:
            if mask is None:
                return builder.load(place(base), align=align)
            zeros = ir.Constant(vector, [0.0] * lanes)
            return call(f"llvm.masked.load.{suffix}.p0", vector, place(base), word(align), mask, zeros)

        v = load(self.source)
        factor, scale, shift = self.factors
        if self.steps & FACTOR:
            v = builder.fmul(v, wide(factor))
        if self.steps & SCALE:
            v = call(f"llvm.fma.{suffix}", vector, v, wide(scale), wide(shift))
        if self.steps & OTHER:
            v = builder.fadd(v, load(self.other))
        if self.steps & BY_ZERO:
            zero = ir.Constant(vector, [0.0] * lanes)
            v = builder.select(builder.fcmp_ordered("<=", v, zero), zero, v)
        if mask is None:
            builder.store(v, place(self.target), align=align)
        else:
            call(f"llvm.masked.store.{suffix}.p0", ir.VoidType(), v, place(self.target), word(align), mask)

    def write(self, count: Any) -> None:
        """The whole row of `count` elements."""
        builder, size = self.builder, ir.IntType(64)
        lanes = VECTOR // (self.bits // 8)
        whole, rest = builder.and_(count, size(-lanes)), builder.and_(count, size(lanes - 1))
        with cgutils.for_range_slice(builder, size(0), whole, size(lanes), size) as (i, _):
            self.vectors(lanes, i)
        if MASKS:
            with builder.if_then(builder.icmp_signed("!=", rest, size(0))):
                self.vectors(lanes, whole, rest)
            return
        while lanes > 1:
            lanes //= 2
            with builder.if_then(builder.icmp_signed("!=", builder.and_(count, size(lanes)), size(0))):
                self.vectors(lanes, builder.and_(count, size(-2 * lanes)))


def _finish(
    typingctx: Any,
    y: Any,
    to: Any,
    x: Any,
    at: Any,
    size: Any,
    flags: Any,
    factors: Any,
    scales: Any,
    shifts: Any,
    first: Any,
    others: Any,
    where: Any,
) -> Any:
    """The typing and code of `finish`: one loop per combination of flags."""
    element = y.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar, word = context.get_value_type(element), ir.IntType(64)

        def data(array: int) -> Any:
            return context.make_array(signature.args[array])(context, builder, args[array]).data

        def pair(index: int) -> tuple[Any, Any]:
            return builder.extract_value(args[index], 0), builder.extract_value(args[index], 1)

        (rows, count), (factor, channel) = pair(4), pair(9)
        ways = [(data(array), *pair(array + 1)) for array in (0, 2, 10)]
        done = builder.append_basic_block("done")
        cases = builder.switch(args[5], done)
        for steps in range(16):
            block = builder.append_basic_block(f"steps{steps}")
            cases.add_case(word(steps), block)
            builder.position_at_end(block)
            with cgutils.for_range(builder, rows) as loop:
                places = [
                    builder.gep(base, [builder.add(start, builder.mul(loop.index, pitch))])
                    for base, start, pitch in ways
                ]
                found = []
                for array, begin, wanted in ((6, factor, FACTOR), (7, channel, SCALE), (8, channel, SCALE)):
                    spot = builder.gep(data(array), [builder.add(begin, loop.index)])
                    found.append(builder.load(spot) if steps & wanted else None)
                _Row(builder, scalar, element.bitwidth, steps, places, found).write(count)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    two = types.UniTuple(types.int64, 2)
    return types.void(y, two, x, two, two, types.int64, factors, scales, shifts, two, others, two), codegen


finish: Any = intrinsic(_finish)
"""finish(y, to, x, at, size, flags, factors, scales, shifts, first, others, where): rows of y = rows of x
after the steps that the flags name. Flat contiguous arrays of one dtype, nothing is checked.

size: (rows, elements of each). to, at, where: (first element, elements from row to row) in y, x, others.
first: where in factors, and where in scales and shifts, the first row's lies; a row has one of each.
y and x may be the same rows, not rows that overlap otherwise."""
