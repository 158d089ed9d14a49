"""The inner loops of pools: vectors of outputs, each lane one window's loop of loops/pool.py, in registers.

    row of the image ── deinterleave ──> its even and its odd columns ── largest, average ──> row of outputs
    two rows of the image ── average_2x2 ──> averages of 2 x 2
    planes of the image ── mean ──> averages of whole planes

Each intrinsic works on contiguous arrays of one dtype as if they were flat, and checks nothing.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.writer import SIZE, Writer

PIECE = 16
"""Bytes of a plane that `mean` takes at once."""
i8 = types.int64


def _deinterleave(
    typingctx: Any, lines: Any, even: Any, odd: Any, x: Any, begin: Any, count: Any, fill: Any
) -> Any:
    """The typing and code of `deinterleave`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Writer(context, builder, signature, args)
        targets, source = (to.pointer(0, args[1]), to.pointer(0, args[2])), to.pointer(3, args[4])
        other = to.wide(args[6], to.lanes)

        def body(at: Any, some: Any) -> None:
            for target, half in zip(targets, to.pairs(source, at, some, other), strict=True):
                to.store(half, target, builder.lshr(at, SIZE(1)))

        to.row(args[5], 2 * to.lanes, body)
        return context.get_dummy_value()

    return types.void(lines, i8, i8, x, i8, i8, lines.dtype), codegen


deinterleave: Any = intrinsic(_deinterleave)
"""deinterleave(lines, even, odd, x, begin, count, fill): lines[even + t] = x[begin + 2 * t] and
lines[odd + t] = x[begin + 2 * t + 1] where those lie in x[begin : begin + count]; then `fill` to the last
vector's end."""


def _largest(typingctx: Any, y: Any, to: Any, count: Any, lines: Any, at: Any, taps: Any, terms: Any) -> Any:
    """The typing and code of `largest`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)
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
        of = Writer(context, builder, signature, args)
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


def _average_2x2(typingctx: Any, y: Any, to: Any, count: Any, x: Any, above: Any, below: Any) -> Any:
    """The typing and code of `average_2x2`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)
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


average_2x2: Any = intrinsic(_average_2x2)
"""average_2x2(y, to, count, x, above, below): y[to + j] = ((((+0 + x[above + 2 * j]) +
x[above + 2 * j + 1]) + x[below + 2 * j]) + x[below + 2 * j + 1]) / 4 for j in range(count). The product with
1/4 is that quotient: both are the same number, rounded once."""


def _mean(typingctx: Any, y: Any, to: Any, x: Any, at: Any, some: Any, size: Any, divisor: Any) -> Any:
    """The typing and code of `mean`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)
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
            value = builder.load(total)
            for vector in of.transpose(wide):
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
