"""The inner loops of golden's sums: blocks that continue a sum, and the transforms of winograd.py.

A block is that of lanes.py, a few positions x two vectors of output channels, but a chain of its own, which
becomes the sum or is added to it: so a sum is cut into chains, and its error bound grows with their length.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refnet.kernels.lanes import GROUP, HALF, NEVER, ODD, chain_block
from refnet.kernels.writer import SIZE, WORD, Writer

WIDE = 2
"""Vectors of output channels of a block."""


exact_group_block: Any = intrinsic(chain_block(GROUP, WIDE, NEVER))
"""exact_group_block(weights, at, x, at, offsets, places, at, sums, at, terms, start, first): as lanes.py's
chain_group_block. Its weights were widened just before, so they are in the cache."""
exact_odd_block: Any = intrinsic(chain_block(ODD, WIDE, NEVER))
"""As exact_group_block, with ODD positions."""
exact_half_block: Any = intrinsic(chain_block(HALF, WIDE, NEVER))
"""As exact_group_block, with HALF positions."""
far_group_block: Any = intrinsic(chain_block(GROUP, WIDE))
"""As exact_group_block, for weights that come from memory."""
far_odd_block: Any = intrinsic(chain_block(ODD, WIDE))
"""As far_group_block, with ODD positions."""
far_half_block: Any = intrinsic(chain_block(HALF, WIDE))
"""As far_group_block, with HALF positions."""


def _transform_input(
    typingctx: Any, x: Any, plane: Any, across: Any, y: Any, to: Any, step: Any, count: Any
) -> Any:
    """The typing and code of `transform_input`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)
        planes = [of.pointer(0, builder.mul(args[1], SIZE(number))) for number in range(4)]
        target = of.pointer(3, args[4])
        with of.loop(args[6], of.lanes) as at:
            lines = []  # the four rows of a tile, each the four columns
            for row in range(4):
                begin = builder.add(at, args[2]) if row > 1 else at
                after = builder.add(begin, SIZE(1))
                even, odd = planes[2 * (row % 2)], planes[2 * (row % 2) + 1]
                d = [of.load(even, begin), of.load(odd, begin), of.load(even, after), of.load(odd, after)]
                lines.append(_by_b(builder, d))
            for column in range(4):
                made = _by_b(builder, [lines[row][column] for row in range(4)])
                for row, value in enumerate(made):
                    place = builder.add(at, builder.mul(args[5], SIZE(4 * row + column)))
                    of.store(value, target, place)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(x, i8, i8, y, i8, i8, i8), codegen


def _by_b(builder: Any, d: list[Any]) -> list[Any]:
    """B' d: d0 - d2, d1 + d2, d2 - d1, d1 - d3."""
    return [
        builder.fsub(d[0], d[2]),
        builder.fadd(d[1], d[2]),
        builder.fsub(d[2], d[1]),
        builder.fsub(d[1], d[3]),
    ]


transform_input: Any = intrinsic(_transform_input)
"""transform_input(planes, plane, across, y, to, step, count): B' d B of `count` tiles side by side
(winograd.py).

planes (2, 2, plane): the elements of even and odd rows and columns; the tile t has its first at t, and
`across` more is a row of tiles further. y[to + (4 k + l) * step + t] is element (k, l) of tile t. Whole
vectors are read and written. Flat arrays, nothing is checked."""


def _transform_output(
    typingctx: Any, x: Any, at: Any, step: Any, y: Any, a: Any, b: Any, c: Any, d: Any
) -> Any:
    """The typing and code of `transform_output`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)
        source = of.pointer(0, args[1])
        targets = [of.pointer(3, args[4 + number]) for number in range(4)]
        for vector in range(WIDE):
            here = SIZE(vector * of.lanes)
            halves = []
            for column in range(4):
                places = [builder.mul(args[2], SIZE(4 * row + column)) for row in range(4)]
                halves.append(_by_a(builder, [of.load(source, builder.add(place, here)) for place in places]))
            for row in range(2):
                for column, value in enumerate(_by_a(builder, [half[row] for half in halves])):
                    of.store(value, targets[2 * row + column], here)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(x, i8, i8, y, i8, i8, i8, i8), codegen


def _by_a(builder: Any, m: list[Any]) -> list[Any]:
    """A' m: m0 + m1 + m2, m1 - m2 - m3."""
    first = builder.fadd(builder.fadd(m[0], m[1]), m[2])
    return [first, builder.fsub(builder.fsub(m[1], m[2]), m[3])]


transform_output: Any = intrinsic(_transform_output)
"""transform_output(x, at, step, y, a, b, c, d): A' m A of two vectors of channels of a tile (winograd.py).

m[k, l] is the two vectors at x[at + (4 k + l) * step]; the outputs go to y[a] and y[b] (the upper row), y[c]
and y[d]. Flat arrays, nothing is checked."""


APART = 1 << 19
"""In units of a float64's last place: a float64 that is further from the middle between two float32 rounds to
the same float32 as all that differ from it by less than 2**-34 of its size."""
FAR = 2.0**34 * 1.0625
"""Times an error: a float64 that is larger than that is off by less than 2**-34 of its size."""
NORMAL = 2.0**-120
"""Float64 above it have a float32 of 24 bits."""


def clear(builder: Any, of: Writer, c: Any, e: Any) -> Any:
    """Whether each float64 c rounds to float32 as all numbers that are off from it by less than e / FAR do,
    by the cheap test: it may say no where the answer is yes. e is at least NORMAL, or NaN.

    Let 2**E <= |c| < 2**(E + 1). |c| > e, so what is off by less than e / FAR < 2**-34 |c| is off by less
    than 2**(E - 33), and has c's sign. c is at least APART = 2**19 units of 2**(E - 52), so 2**(E - 33), away
    from the middles of its binade, whose last 29 bits are 2**28; those below 2**E are 2**(E - 25) away.
    """
    size = of.like(SIZE)
    moved = builder.add(builder.bitcast(c, size), ir.Constant(size, [(1 << 28) + APART] * of.lanes))
    moved = builder.and_(moved, ir.Constant(size, [(1 << 29) - 1] * of.lanes))
    apart = builder.icmp_unsigned(">=", moved, ir.Constant(size, [2 * APART] * of.lanes))
    return builder.and_(apart, builder.fcmp_ordered(">", of.absolute(c), e))


def _decide_pass(
    typingctx: Any, y: Any, to: Any, unsure: Any, x: Any, at: Any, norms: Any, no: Any, scale: Any,
    shift: Any, more: Any, others: Any, oo: Any, factor: Any, count: Any,
) -> Any:  # fmt: skip
    """The typing and code of `decide_pass`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args, signature.args[3].dtype)
        own = Writer(context, builder, signature, args)
        kind = of.like(own.scalar)
        target, open_ = of.pointer(0, args[1]), of.pointer(2, args[1])
        source, sizes = of.pointer(3, args[4]), of.pointer(5, args[6])
        scale, shift, more = (of.wide(args[i], of.lanes) for i in (7, 8, 9))
        factor = of.wide(args[12], of.lanes)
        adds = builder.icmp_signed(">=", args[11], SIZE(0))
        far, least = of.constant(FAR), of.constant(NORMAL)
        far_scale, far_factor = builder.fmul(scale, far), builder.fmul(factor, far)
        far_more = of.fma(more, far, least)
        none = ir.Constant(ir.VectorType(ir.IntType(1), of.lanes), [0] * of.lanes)

        def row(with_others: bool) -> None:
            others = of.pointer(10, args[11]) if with_others else None

            def body(place: Any, some: Any) -> None:
                c = builder.fadd(of.load(source, place, some, of.zero), shift)
                norm = of.load(sizes, place, some, of.zero)
                limit = of.fma(norm, far_scale, far_more)
                if with_others:
                    empty = builder.fptrunc(of.zero, kind)
                    other = builder.fpext(own.load(others, place, some, empty, of.lanes), of.zero.type)
                    c = builder.fadd(c, other)
                    limit = of.fma(of.absolute(other), far_factor, limit)
                own.store(builder.fptrunc(c, kind), target, place, some)
                of.store_bytes(none, open_, place, some)
                unclear = builder.not_(clear(builder, of, c, limit))
                with builder.if_then(of.any(unclear, some), likely=False):
                    e = of.fma(norm, scale, more)
                    if with_others:
                        e = of.fma(of.absolute(other), factor, e)
                    above, differ = rounds_apart(builder, of, c, e, kind)
                    own.store(above, target, place, some)
                    of.store_bytes(differ, open_, place, some)

            of.row(args[13], of.lanes, body)

        with builder.if_else(adds) as (with_, without):
            with with_:
                row(True)
            with without:
                row(False)
        return context.get_dummy_value()

    i8, f8 = types.int64, types.float64
    return types.void(y, i8, unsure, x, i8, norms, i8, f8, f8, f8, others, i8, f8, i8), codegen


def rounds_apart(builder: Any, of: Writer, c: Any, e: Any, kind: Any) -> tuple[Any, Any]:
    """(the float32 nearest to c + e, whether that nearest to c - e has other bits); e counts as 0 where c is
    not finite. kind: the type of the float32.
    """
    finite = builder.fcmp_ordered("<", of.absolute(c), of.constant(float("inf")))
    e = builder.select(finite, e, of.zero)
    above, below = builder.fptrunc(builder.fadd(c, e), kind), builder.fptrunc(builder.fsub(c, e), kind)
    bits = of.like(WORD)
    return above, builder.icmp_signed("!=", builder.bitcast(above, bits), builder.bitcast(below, bits))


decide_pass: Any = intrinsic(_decide_pass)
"""decide_pass(y, to, unsure, x, at, norms, at, scale, shift, more, others, at, factor, count): for count sums
c = x + shift + others, off by at most e = norms * scale + more + factor * |others|, y = the float32 nearest
to c + e, and unsure = whether that nearest to c - e has other bits: then not every number between them
rounds to y.

A sum that is not finite is y, and sure. y float32 and unsure bool, both written from `to` on; x and norms
float64; others float32, not read if its `at` is negative. Flat arrays, nothing is checked. e must hold the
roundings of c + e and c - e, too, and be finite where c is.
"""


def _twofold_row(typingctx: Any, x: Any, at: Any, sums: Any, sizes: Any, losses: Any, count: Any) -> Any:
    """The typing and code of `twofold_row`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args, signature.args[2].dtype)
        own = Writer(context, builder, signature, args)
        source, places = of.pointer(0, args[1]), [of.pointer(number, SIZE(0)) for number in (2, 3, 4)]
        empty = builder.fptrunc(of.zero, of.like(own.scalar))

        def body(at: Any, some: Any) -> None:
            value = builder.fpext(own.load(source, at, some, empty, of.lanes), of.zero.type)
            total, size, lost = (of.load(place, at, some, of.zero) for place in places)
            following = builder.fadd(total, value)
            part = builder.fsub(following, total)
            first = builder.fsub(total, builder.fsub(following, part))
            error = builder.fadd(first, builder.fsub(value, part))
            size = builder.fadd(size, of.absolute(value))
            lost = builder.fadd(lost, of.absolute(error))
            for result, place in zip((following, size, lost), places, strict=True):
                of.store(result, place, at, some)

        of.row(args[5], of.lanes, body)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(x, i8, sums, sizes, losses, i8), codegen


twofold_row: Any = intrinsic(_twofold_row)
"""twofold_row(x, at, sums, sizes, losses, count): sums += x, and sizes and losses += how large x and the
exact errors of these additions are (Knuth's TwoSum), element by element. x float32, from the element `at` on,
the others float64. Flat arrays, nothing is checked."""


def _widen_groups(typingctx: Any, y: Any, to: Any, column: Any, x: Any, at: Any, count: Any) -> Any:
    """The typing and code of `widen_groups`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)
        own = Writer(context, builder, signature, args, signature.args[3].dtype)
        target, source = of.pointer(0, args[1]), of.pointer(3, args[4])
        kind = ir.VectorType(of.scalar, GROUP)
        with of.loop(args[5]) as group:
            values = own.load(source, builder.mul(group, SIZE(GROUP)), count=GROUP)
            of.store(builder.fpext(values, kind), target, builder.mul(group, args[2]))
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(y, i8, i8, x, i8, i8), codegen


widen_groups: Any = intrinsic(_widen_groups)
"""widen_groups(y, to, column, x, at, count): y[to + g * column + i] = x[at + g * GROUP + i] for the GROUP
elements of each of `count` groups. x float32, y float64. Flat arrays, nothing is checked."""
