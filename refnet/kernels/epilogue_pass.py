"""The end of a sum: scale and shift, addition and relu of vectors on their way from rows to rows.

With one loop per step, the row would be read and written once per step. Here each row is one loop with all
steps in registers, and the kind of loop is chosen once for all rows. Each step is one of
loops/pointwise.py.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from refnet.kernels.writer import SIZE, Writer

FACTOR, SCALE, OTHER, BY_ZERO, LIMITS = 1, 2, 4, 8, 16
"""v * factor; then fma(v, scale, shift); then v + other; then v if v > 0, else +0, NaN for NaN; or low where
v <= low and then high where that is >= high."""
KEEPS, DROPS = 32, 64
"""Beside BY_ZERO or LIMITS, whose low must be 0 then: a -0 stays -0; a NaN becomes +0."""
LOOPS = [*range(16), LIMITS, LIMITS | FACTOR, LIMITS | SCALE, LIMITS | SCALE | FACTOR]
"""The combinations that there are loops for."""


def _epilogue_pass(
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
    limits: Any,
    others: Any,
    where: Any,
) -> Any:
    """The typing and code of `epilogue_pass`: one loop per combination of flags."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)

        def pair(index: int) -> tuple[Any, Any]:
            return builder.extract_value(args[index], 0), builder.extract_value(args[index], 1)

        (rows, count), (factor, channel) = pair(4), pair(9)
        keeps, drops = (
            builder.icmp_signed("!=", builder.and_(args[5], SIZE(flag)), SIZE(0)) for flag in (KEEPS, DROPS)
        )
        below = of.constant(-of.least)  # v <= below is v < 0
        dropped = of.wide(drops, of.lanes)
        ways = [(array, *pair(array + 1)) for array in (0, 2, 11)]

        def row(steps: int, r: Any) -> None:
            """Row r with these steps."""
            target, source, other = (
                of.pointer(array, builder.add(begin, builder.mul(r, pitch))) for array, begin, pitch in ways
            )
            own = {
                array: of.wide(builder.load(of.pointer(array, builder.add(begin, r))), of.lanes)
                for array, begin, wanted in ((6, factor, FACTOR), (7, channel, SCALE), (8, channel, SCALE))
                if steps & wanted
            }
            if steps & LIMITS:
                low, high = (of.wide(builder.load(of.pointer(array, args[10])), of.lanes) for array in (7, 8))
            else:
                low = of.zero
            lowest = builder.select(keeps, below, low)

            def body(at: Any, some: Any) -> None:
                v = of.load(source, at, some, of.zero)
                if steps & FACTOR:
                    v = builder.fmul(v, own[6])
                if steps & SCALE:
                    v = of.fma(v, own[7], own[8])
                if steps & OTHER:
                    v = builder.fadd(v, of.load(other, at, some, of.zero))
                if steps & (BY_ZERO | LIMITS):
                    lost = builder.and_(builder.fcmp_unordered("uno", v, v), dropped)
                    v = builder.select(builder.or_(builder.fcmp_ordered("<=", v, lowest), lost), low, v)
                if steps & LIMITS:
                    v = builder.select(builder.fcmp_ordered(">=", v, high), high, v)
                of.store(v, target, at, some)

            of.row(count, of.lanes, body)

        done = builder.append_basic_block("done")
        cases = builder.switch(builder.and_(args[5], SIZE(KEEPS - 1)), done)
        for steps in LOOPS:
            block = builder.append_basic_block(f"steps{steps}")
            cases.add_case(SIZE(steps), block)
            builder.position_at_end(block)
            with of.loop(rows) as r:
                row(steps, r)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    two = types.UniTuple(types.int64, 2)
    i8 = types.int64
    return types.void(y, two, x, two, two, i8, factors, scales, shifts, two, i8, others, two), codegen


epilogue_pass: Any = intrinsic(_epilogue_pass)
"""epilogue_pass(y, to, x, at, size, flags, factors, scales, shifts, first, limits, others, where): rows of y
= rows of x after the steps that the flags (one of LOOPS, and perhaps KEEPS or DROPS) name. Flat contiguous
arrays of one dtype; nothing is checked.

size: (rows, elements of each). to, at, where: (first element, elements from row to row) in y, x, others.
first: where in factors, and where in scales and shifts, the first row's lies; a row has one of each. limits:
where in scales low lies, and in shifts high.
y and x may be the same rows, not rows that overlap otherwise."""
