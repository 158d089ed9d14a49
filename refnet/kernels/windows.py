"""The inner loops of pools: vectors of outputs, each lane one chain over its window, in registers.

    row of the image ── deal ──> its even and its odd columns ── largest, average ──> row of outputs
    two rows of the image ── halve ──> averages of 2 x 2
    planes of the image ── mean ──> averages of whole planes

Numba's own loops do not suit pools: where less than four vectors are left of a row they go on with scalars,
and rows have 7 to 56 outputs. Here the last lanes of a row's last vector are switched off instead.

Each intrinsic works on contiguous arrays of one dtype as if they were flat, and checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.simd import VECTOR

PIECE = 16
"""Bytes of a plane that `mean` takes at once."""
SIZE, WORD = ir.IntType(64), ir.IntType(32)
i8 = types.int64


class _Writer:
    """Writes the code of an intrinsic, over vectors of one dtype."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        element = signature.args[0].dtype
        self.context, self.builder, self.types, self.args = context, builder, signature.args, args
        self.align, self.scalar = element.bitwidth // 8, context.get_value_type(element)
        self.lanes = VECTOR // self.align
        self.zero = self.constant(0.0)

    def constant(self, value: float) -> Any:
        """A vector of one number."""
        return ir.Constant(ir.VectorType(self.scalar, self.lanes), [value] * self.lanes)

    def pointer(self, array: int, offset: Any) -> Any:
        """The place at that offset in the array that is the argument of that number."""
        made = self.context.make_array(self.types[array])(self.context, self.builder, self.args[array])
        return self.builder.gep(made.data, [offset])

    def wide(self, value: Any, count: int) -> Any:
        """The value in every lane."""
        empty = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
        return self.pick(self.builder.insert_element(empty, value, WORD(0)), empty, [0] * count)

    def pick(self, a: Any, b: Any, order: list[int]) -> Any:
        """The lanes of those numbers out of a and, behind them, b."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(WORD, len(order)), order))

    def load(self, base: Any, at: Any, some: Any = None, other: Any = None, count: int = 0) -> Any:
        """The vector at base[at]; if `some` is given only so many lanes of it, the others are other's."""
        kind = ir.VectorType(self.scalar, count or self.lanes)
        where = self.builder.bitcast(self.builder.gep(base, [at]), kind.as_pointer())
        if some is None:
            return self.builder.load(where, align=self.align)
        return self._masked(
            "load", kind, kind, [where, WORD(self.align), self._below(some, kind.count), other]
        )

    def store(self, value: Any, base: Any, at: Any, some: Any = None) -> None:
        """Write the vector to base[at]; if `some` is given only so many lanes."""
        where = self.builder.bitcast(self.builder.gep(base, [at]), value.type.as_pointer())
        if some is None:
            self.builder.store(value, where, align=self.align)
        else:
            there = self._below(some, value.type.count)
            self._masked("store", ir.VoidType(), value.type, [value, where, WORD(self.align), there])

    def _below(self, some: Any, count: int) -> Any:
        numbers = ir.Constant(ir.VectorType(WORD, count), list(range(count)))
        return self.builder.icmp_signed("<", numbers, self.wide(self.builder.trunc(some, WORD), count))

    def _masked(self, name: str, result: Any, kind: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{name}.v{kind.count}f{8 * self.align}.p0"
        typed = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, typed, name), arguments)

    @contextmanager
    def loop(self, count: Any, step: int = 1) -> Iterator[Any]:
        """For 0, step, 2 step ... below count."""
        with cgutils.for_range_slice(self.builder, SIZE(0), count, SIZE(step), SIZE) as (at, _):
            yield at

    def row(self, count: Any, step: int, body: Callable[[Any, Any], None]) -> None:
        """body(at, None) for each `step` elements of a row, then body(at, how many) if some are left."""
        whole = self.builder.and_(count, SIZE(-step))
        with self.loop(whole, step) as at:
            body(at, None)
        rest = self.builder.sub(count, whole)
        with self.builder.if_then(self.builder.icmp_signed("!=", rest, SIZE(0))):
            body(whole, rest)

    def pairs(self, base: Any, at: Any, some: Any, other: Any) -> tuple[Any, Any]:
        """The even and the odd ones of two vectors at base[at]; `some`: as for load."""
        after = None if some is None else self.builder.sub(some, SIZE(self.lanes))
        a = self.load(base, at, some, other)
        b = self.load(base, self.builder.add(at, SIZE(self.lanes)), after, other)
        even = list(range(0, 2 * self.lanes, 2))
        return self.pick(a, b, even), self.pick(a, b, [k + 1 for k in even])


def _deal(typingctx: Any, lines: Any, even: Any, odd: Any, x: Any, begin: Any, count: Any, fill: Any) -> Any:
    """The typing and code of `deal`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = _Writer(context, builder, signature, args)
        targets, source = (to.pointer(0, args[1]), to.pointer(0, args[2])), to.pointer(3, args[4])
        other = to.wide(args[6], to.lanes)

        def body(at: Any, some: Any) -> None:
            for target, half in zip(targets, to.pairs(source, at, some, other), strict=True):
                to.store(half, target, builder.lshr(at, SIZE(1)))

        to.row(args[5], 2 * to.lanes, body)
        return context.get_dummy_value()

    return types.void(lines, i8, i8, x, i8, i8, lines.dtype), codegen


deal: Any = intrinsic(_deal)
"""deal(lines, even, odd, x, begin, count, fill): lines[even + t] = x[begin + 2 * t] and lines[odd + t] =
x[begin + 2 * t + 1] where those lie in x[begin : begin + count]; then `fill` to the last vector's end."""


def _largest(typingctx: Any, y: Any, to: Any, count: Any, lines: Any, at: Any, taps: Any, terms: Any) -> Any:
    """The typing and code of `largest`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = _Writer(context, builder, signature, args)
        result, source, offsets = of.pointer(0, args[1]), of.pointer(3, args[4]), of.pointer(5, SIZE(0))

        def body(at: Any, some: Any) -> None:
            best = cgutils.alloca_once_value(builder, of.constant(float("-inf")))
            nan = cgutils.alloca_once_value(builder, of.zero)  # the last NaN, beside the chain: it may wait

            def take(kept: Any, there: Any, value: Any) -> None:
                builder.store(builder.select(there, value, builder.load(kept)), kept)

            with of.loop(args[6]) as k:
                value = of.load(source, builder.add(builder.load(builder.gep(offsets, [k])), at))
                take(best, builder.fcmp_ordered(">", value, builder.load(best)), value)
                take(nan, builder.fcmp_unordered("uno", value, value), value)
            last = builder.load(nan)
            take(best, builder.fcmp_unordered("uno", last, last), last)
            of.store(builder.load(best), result, at, some)

        of.row(args[2], of.lanes, body)
        return context.get_dummy_value()

    return types.void(y, i8, i8, lines, i8, taps, i8), codegen


largest: Any = intrinsic(_largest)
"""largest(y, to, count, lines, at, taps, terms): y[to + j] = the largest lines[at + taps[k] + j], k in
range(terms), for j in range(count): the first of equals, NaN if there is one, -inf if there are no terms.
Reads whole vectors of lines."""


def _average(
    typingctx: Any,
    y: Any,
    to: Any,
    count: Any,
    lines: Any,
    at: Any,
    taps: Any,
    terms: Any,
    columns: Any,
    rows: Any,
) -> Any:
    """The typing and code of `average`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = _Writer(context, builder, signature, args)
        result, source, offsets = of.pointer(0, args[1]), of.pointer(3, args[4]), of.pointer(5, SIZE(0))
        counts, rows = of.pointer(7, SIZE(0)), of.wide(args[8], of.lanes)

        def body(at: Any, some: Any) -> None:
            total = cgutils.alloca_once_value(builder, of.zero)
            with of.loop(args[6]) as k:
                value = of.load(source, builder.add(builder.load(builder.gep(offsets, [k])), at))
                builder.store(builder.fadd(builder.load(total), value), total)
            divisor = builder.fmul(rows, of.load(counts, at))
            of.store(builder.fdiv(builder.load(total), divisor), result, at, some)

        of.row(args[2], of.lanes, body)
        return context.get_dummy_value()

    return types.void(y, i8, i8, lines, i8, taps, i8, columns, y.dtype), codegen


average: Any = intrinsic(_average)
"""average(y, to, count, lines, at, taps, terms, columns, rows): y[to + j] = (+0 + lines[at + taps[0] + j] +
lines[at + taps[1] + j] ...) / (rows * columns[j]) for j in range(count). Reads whole vectors of lines and
columns."""


def _halve(typingctx: Any, y: Any, to: Any, count: Any, x: Any, above: Any, below: Any) -> Any:
    """The typing and code of `halve`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = _Writer(context, builder, signature, args)
        result, sources = of.pointer(0, args[1]), [of.pointer(3, args[k]) for k in (4, 5)]

        def body(at: Any, some: Any) -> None:
            total, where = of.zero, builder.shl(at, SIZE(1))
            twice = None if some is None else builder.shl(some, SIZE(1))
            for source in sources:
                for half in of.pairs(source, where, twice, of.zero):
                    total = builder.fadd(total, half)
            of.store(builder.fmul(total, of.constant(0.25)), result, at, some)

        of.row(args[2], of.lanes, body)
        return context.get_dummy_value()

    return types.void(y, i8, i8, x, i8, i8), codegen


halve: Any = intrinsic(_halve)
"""halve(y, to, count, x, above, below): y[to + j] = ((((+0 + x[above + 2 * j]) + x[above + 2 * j + 1]) +
x[below + 2 * j]) + x[below + 2 * j + 1]) / 4 for j in range(count). The product with 1/4 is that quotient:
both are the same number, rounded once."""


def _mean(typingctx: Any, y: Any, to: Any, x: Any, at: Any, some: Any, size: Any, divisor: Any) -> Any:
    """The typing and code of `mean`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = _Writer(context, builder, signature, args)
        piece, last = PIECE // of.align, builder.sub(args[4], SIZE(1))
        planes = []
        for r in range(of.lanes):
            number = builder.select(builder.icmp_signed("<", SIZE(r), last), SIZE(r), last)
            planes.append(of.pointer(2, builder.add(args[3], builder.mul(number, args[5]))))
        total = cgutils.alloca_once_value(builder, of.zero)

        def body(at: Any, rest: Any) -> None:
            zero = ir.Constant(ir.VectorType(of.scalar, piece), [0.0] * piece)
            loaded = [of.load(plane, at, rest, zero, piece) for plane in planes]
            wide = []
            for c in range(piece):
                parts = loaded[c::piece]
                while len(parts) > 1:
                    both = list(range(2 * parts[0].type.count))
                    parts = [of.pick(a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
                wide.append(parts[0])
            step = 1
            while step < piece:  # exchange the off-diagonal squares of step x step in each piece
                low = [j if not j & step else of.lanes + j - step for j in range(of.lanes)]
                high = [j + step if not j & step else of.lanes + j for j in range(of.lanes)]
                for r in range(piece):
                    if not r & step:
                        a, b = wide[r], wide[r + step]
                        wide[r], wide[r + step] = of.pick(a, b, low), of.pick(a, b, high)
                step *= 2
            value = builder.load(total)
            for vector in wide:
                value = builder.fadd(value, vector)
            builder.store(value, total)

        of.row(args[5], piece, body)
        result = builder.fdiv(builder.load(total), of.wide(args[6], of.lanes))
        of.store(result, of.pointer(0, args[1]), SIZE(0), args[4])
        return context.get_dummy_value()

    return types.void(y, i8, x, i8, i8, i8, y.dtype), codegen


mean: Any = intrinsic(_mean)
"""mean(y, to, x, at, some, size, divisor): y[to + r] = (the sum of plane r of x, from +0) / divisor for r in
range(some), at most a vector of them; plane r is the `size` elements from x[at + r * size] on. Pieces of the
planes are transposed, so that each lane sums a plane of its own. (Where a plane ends within a piece, +0 is
added to its sum, which changes nothing: a chain that begins at +0 is never -0.)"""
