"""Steps after a golden value while it is in the cache: batch norm, addition of two, relu, each rounded once.

Each step takes the float32 of the one before. A batch norm is evaluated in float64 and its rounding decided
from an error, as decisions.decide_affine does; an addition of two float32 and a relu have one right result.
If nothing was open before, the last value is the right one. Where anything is open, an element is marked,
and computed again from its exact first value (`follow_exactly`).

As for the sums themselves, no loop defines these values.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.accumulator import PIECE, next_open
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.decisions import lost_by, round_pair
from refnet.kernels.exact_block import FAR, NORMAL, clear, rounds_apart
from refnet.kernels.memory import empty
from refnet.kernels.resources import readonly
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.kernels.writer import SIZE, Writer
from refnet.loops.fma import fma
from refnet.loops.jit import njit

Array = npt.NDArray[Any]


class Affine(NamedTuple):
    """A batch norm: mean, scale, shift and factor as decisions.decide_affine has them; low, share: see
    `root_quotients`.
    """

    mean: Array
    scale: Array
    shift: Array
    factor: float
    low: Array
    share: Array


Step = Affine | Array | None
"""A batch norm; or what is added; or None, a relu."""
Tables = tuple[Any, ...]
"""flags (passes,); means, scales, shifts (passes, channels) and factors (passes,) float64; others, flat, or
(0,); lows, shares as means. () where nothing follows."""

AFFINE, OTHER, BY_ZERO = 1, 2, 4
"""v = (v - mean) scale + shift; then v + other; then v if v > 0, else +0, NaN for NaN."""
ROUNDED = 2.0**-51
"""More than c + e and c - e are rounded by, as a share of |c|."""
QUOTIENT = 2.0**-101
"""More than a scale of `root_quotients` is off by, as a share of it."""
PRODUCT = 2.0**-98
"""More than a batch norm in pairs of float64 is off by, beside its scale, as a share of product and shift."""


@njit
def root_quotients(g: Any, var: Any, eps: float) -> Any:
    """(high, low, share), (c,) each: g / sqrt(var + eps) is high + low, off by at most share * |high|.

    share is 0 for an exact quotient, and infinite if numbers may have underflowed on the way.

    g, var float64 that are float32. The root r + s comes from one step of Newton's method on the rounded root
    r: var + eps - r r is exact in two float64, and is divided by 2 r. The quotient likewise, from
    g - high (r + s). Either leaves out a square of 2**-53 and rounds some numbers of 2**-53 once or twice, by
    2**-105 each.
    """
    high, low, share = np.empty(g.size), np.empty(g.size), np.empty(g.size)
    for i in range(g.size):
        a = var[i] + eps
        lost = lost_by(var[i], eps)
        r = np.sqrt(a)
        square = r * r
        s = ((a - square) - fma(r, r, -square) + lost) / (2 * r)
        q = g[i] / r
        whole = q * r
        left = (g[i] - whole) - fma(q, r, -whole)
        high[i], low[i] = q, (left - q * s) / r
        if 2.0**-700 < a < 2.0**700:
            share[i] = 0.0 if lost == 0 and s == 0 and left == 0 else QUOTIENT
        else:
            share[i] = np.inf
    return high, low, share


def tables(steps: Sequence[Step], shape: tuple[int, ...]) -> Tables:
    """The steps for values of this shape, (n, channels, ...); at most one addition, of an array like them."""
    passes: list[list[Step]] = []
    for step in steps:
        if not passes or flag(passes[-1][-1]) >= flag(step):
            passes.append([])
        passes[-1].append(step)
    size = len(passes), shape[1]
    means, scales, shifts, factors = np.zeros(size), np.ones(size), np.zeros(size), np.zeros(size[0])
    lows, shares = np.zeros(size), np.zeros(size)
    others = np.zeros(0, np.float32)
    for row, several in enumerate(passes):
        for step in several:
            if isinstance(step, Affine):
                means[row], scales[row], shifts[row], factors[row] = step[:4]
                lows[row], shares[row] = step.low, step.share
            elif step is not None:
                assert step.shape == shape, "kernels do not check"
                others = np.ascontiguousarray(step).reshape(-1)
    flags = np.array([sum(map(flag, several)) for several in passes], np.int64)
    return flags, means, scales, shifts, factors, readonly(others), lows, shares


def flag(step: Step) -> int:
    """What `follow` calls the step."""
    return BY_ZERO if step is None else AFFINE if isinstance(step, Affine) else OTHER


def follow_rows(x: Array, steps: Tables, threads: int) -> tuple[Array, Array]:
    """(y, open): the steps after each float32 of x (n, c, ...), and whether one of them is open."""
    rows = np.ascontiguousarray(x).reshape(x.shape[0] * x.shape[1], prod(x.shape[2:]))
    y, unsure = empty(rows.shape, np.float32), empty((x.size,), np.bool_)
    threads = threads_for(threads, 4 * x.size)
    parallel_for(
        _rows, rows.shape[0], threads, readonly(rows.reshape(-1)), y.reshape(-1), unsure, rows.shape[1], steps
    )
    return y.reshape(x.shape), unsure


@njit
def _rows(work: Any, x: Any, y: Any, unsure: Any, size: int, steps: Any) -> None:
    """Items: rows of x, each of `size` elements and one channel."""
    channels = steps[1].shape[1]
    begin, end = chunk(work)
    while begin < end:
        for row in range(begin, end):
            flags = unsure[row * size : (row + 1) * size]
            for i in range(size):
                flags[i] = False
            follow(y, row * size, x, row * size, unsure, row % channels, size, steps)
        begin, end = next_chunk(work)


@njit
def follow_exactly(
    work: Any, unsure: Any, x: Any, y: Any, size: int, steps: Any, channels: int, left: Any
) -> None:
    """Where it is open, y is what the steps make of x, the right float32 before them. If pairs of float64 do
    not decide a step, y is x, its flag stays, and left[0] becomes 1; all other flags are cleared.
    x, y flat, perhaps the same, rows of `size` elements.
    """
    flags, means, scales, shifts, _, others, lows, shares = steps
    begin, end = chunk(work)
    while begin < end:
        last = min(end * PIECE, unsure.size)
        k = next_open(unsure, begin * PIECE, last)
        while k < last:
            value, channel, sure = x[k], k // size % channels, True
            for p in range(flags.size):
                if flags[p] & AFFINE:
                    scale = scales[p, channel], lows[p, channel], shares[p, channel]
                    value, known = _scaled(np.float64(value), means[p, channel], scale, shifts[p, channel])
                    sure = sure and known
                if flags[p] & OTHER:
                    value = value + others[k]
                if flags[p] & BY_ZERO and value <= 0:
                    value = np.float32(0)
            y[k], unsure[k] = value if sure else x[k], not sure
            if not sure:
                left[0] = 1
            k = next_open(unsure, k + 1, last)
        begin, end = next_chunk(work)


@njit
def _scaled(v: float, mean: float, scale: Any, shift: float) -> tuple[Any, bool]:
    """The float32 nearest to (v - mean) * scale + shift; whether that is sure. scale: high, low, share."""
    high, low, share = scale
    d, lost = v - mean, lost_by(v, -mean)
    p = d * high
    if not np.abs(p + shift) < np.inf:  # no sum or product of finite ones overflows
        return np.float32(p + shift), True
    rest = fma(d, high, -p)
    exact = share == 0 and lost == 0
    if not exact:
        rest += d * low + lost * high
    total, more = p + shift, lost_by(p, shift)
    exact = exact and lost_by(more, rest) == 0
    rest += more
    if exact and total + rest == 0:
        return np.float32(0), True
    return round_pair(total, rest, 0.0 if exact else (PRODUCT + share) * (np.abs(p) + np.abs(shift)))


def _follow(
    typingctx: Any, y: Any, to: Any, x: Any, at: Any, unsure: Any, channel: Any, count: Any, steps: Any
) -> Any:
    """The typing and code of `follow`: nothing where no steps are given, else one loop per combination."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not len(steps):
            return context.get_dummy_value()
        kinds = SimpleNamespace(args=[*signature.args, *steps.types])
        given = [*args, *cgutils.unpack_tuple(builder, args[7])]
        flags, tables, others = 8, (9, 10, 11), 13
        of = Writer(context, builder, kinds, given, kinds.args[9].dtype)
        own = Writer(context, builder, kinds, given)
        narrow = of.like(own.scalar)
        empty = builder.fptrunc(of.zero, narrow)
        made = context.make_array(kinds.args[9])(context, builder, given[9])
        channels = cgutils.unpack_tuple(builder, made.shape)[1]
        many = cgutils.unpack_tuple(
            builder, context.make_array(kinds.args[8])(context, builder, given[8]).shape
        )[0]
        target, open_ = of.pointer(0, args[1]), of.pointer(4, args[1])

        def rows(number: Any, wanted: int) -> None:
            source = builder.select(
                builder.icmp_signed("==", number, SIZE(0)), of.pointer(2, args[3]), target
            )
            if wanted & AFFINE:
                place = builder.add(builder.mul(number, channels), args[5])
                m, s, t = (of.wide(builder.load(of.pointer(array, place)), of.lanes) for array in tables)
                factor = of.wide(builder.load(of.pointer(12, number)), of.lanes)
                factor = builder.fadd(factor, of.constant(ROUNDED))
                more = builder.fmul(factor, builder.fmul(of.absolute(t), of.constant(2.0)))
                share = builder.fmul(factor, of.constant(FAR))  # of |c|
                limit = of.fma(more, of.constant(2 * FAR), of.constant(2 * NORMAL))
                small = builder.fcmp_ordered("<=", share, of.constant(0.25))
                limit = builder.select(small, limit, of.constant(float("inf")))
            other = of.pointer(others, args[1]) if wanted & OTHER else None

            def body(place: Any, some: Any) -> None:
                v = own.load(source, place, some, empty, of.lanes)
                if wanted & OTHER:
                    added = own.load(other, place, some, empty, of.lanes)

                def end(v: Any) -> None:
                    if wanted & OTHER:
                        v = builder.fadd(v, added)
                    if wanted & BY_ZERO:
                        v = builder.select(builder.fcmp_ordered("<=", v, empty), empty, v)
                    own.store(v, target, place, some)

                if not wanted & AFFINE:
                    end(v)
                    return
                c = of.fma(builder.fsub(builder.fpext(v, of.zero.type), m), s, t)
                end(builder.fptrunc(c, narrow))
                unclear = builder.not_(clear(builder, of, c, limit))
                with builder.if_then(of.any(unclear, some), likely=False):
                    c = builder.fadd(c, of.zero)  # an exact 0 is +0
                    v, differ = rounds_apart(builder, of, c, of.fma(of.absolute(c), factor, more), narrow)
                    end(v)
                    of.mark(differ, open_, place, some)

            of.row(args[6], of.lanes, body)

        with of.loop(many) as number:
            done = builder.append_basic_block("done")
            cases = builder.switch(builder.load(of.pointer(flags, number)), done)
            for wanted in range(1, 8):
                block = builder.append_basic_block(f"steps{wanted}")
                cases.add_case(SIZE(wanted), block)
                builder.position_at_end(block)
                rows(number, wanted)
                builder.branch(done)
            builder.position_at_end(done)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(y, i8, x, i8, unsure, i8, i8, steps), codegen


follow: Any = intrinsic(_follow)
"""follow(y, to, x, at, unsure, channel, count, steps): y[to : to + count] = x[at : at + count], elements of
one channel, after the steps (see Tables); unsure[to + k] = True where a rounding is open, else it is left as
it is. Nothing is done if the steps are (). y and x float32, perhaps the same array and place; unsure bool;
what is added lies at `to` as well. Flat arrays, nothing is checked."""
