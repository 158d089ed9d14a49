"""Steps after a golden value while it is in the cache: batch norm, addition of two, relu, each rounded once.

Each step takes the float32 of the one before. A batch norm is evaluated in float64 and its rounding decided
from an error, as accumulator.decide_affine does; an addition of two float32 and a relu have one right result.
If nothing was open before, the last value is the right one. Where anything is open, an element is marked,
and computed again from its exact first value (`follow_exactly`).

As for the sums themselves, no loop defines these values.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.decisions import is_open, marked
from refnet.kernels.exact_block import FAR, NORMAL, clear, rounds_apart
from refnet.kernels.resources import readonly
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.kernels.writer import SIZE, Writer
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Affine = tuple[Array, Array, Array, float]
Step = Affine | Array | None
"""(mean, scale, shift, factor) as accumulator.decide_affine has them; or what is added; or None, a relu."""
Tables = tuple[Any, ...]
"""flags (passes,); means, scales, shifts (passes, channels) and factors (passes,) float64; others, flat, or
(0,). () where nothing follows."""

AFFINE, OTHER, BY_ZERO = 1, 2, 4
"""v = (v - mean) scale + shift; then v + other; then v if v > 0, else +0, NaN for NaN."""
ROUNDED = 2.0**-51
"""More than c + e and c - e are rounded by, as a share of |c|."""


def tables(steps: Sequence[Step], shape: tuple[int, ...]) -> Tables:
    """The steps for values of this shape, (n, channels, ...); at most one addition, of an array like them."""
    passes: list[list[Step]] = []
    for step in steps:
        if not passes or flag(passes[-1][-1]) >= flag(step):
            passes.append([])
        passes[-1].append(step)
    size = len(passes), shape[1]
    means, scales, shifts, factors = np.zeros(size), np.ones(size), np.zeros(size), np.zeros(size[0])
    others = np.zeros(0, np.float32)
    for row, several in enumerate(passes):
        for step in several:
            if isinstance(step, tuple):
                means[row], scales[row], shifts[row], factors[row] = step
            elif step is not None:
                assert step.shape == shape, "kernels do not check"
                others = np.ascontiguousarray(step).reshape(-1)
    flags = np.array([sum(map(flag, several)) for several in passes], np.int64)
    return flags, means, scales, shifts, factors, readonly(others)


def flag(step: Step) -> int:
    """What `follow` calls the step."""
    return BY_ZERO if step is None else AFFINE if isinstance(step, tuple) else OTHER


def follow_rows(x: Array, steps: Tables, threads: int) -> tuple[Array, Array]:
    """(y, open): the steps after each float32 of x (n, c, ...), and the flat indices of what is open."""
    rows = np.ascontiguousarray(x).reshape(x.shape[0] * x.shape[1], prod(x.shape[2:]))
    y, unsure = np.empty(rows.shape, np.float32), np.empty(x.size, np.bool_)
    unsure[:] = False
    threads = threads_for(threads, 4 * x.size)
    parallel_for(
        _rows, rows.shape[0], threads, readonly(rows.reshape(-1)), y.reshape(-1), unsure, rows.shape[1], steps
    )
    return y.reshape(x.shape), marked(unsure)


@njit
def _rows(work: Any, x: Any, y: Any, unsure: Any, size: int, steps: Any) -> None:
    """Items: rows of x, each of `size` elements and one channel."""
    channels = steps[1].shape[1]
    begin, end = chunk(work)
    while begin < end:
        for row in range(begin, end):
            follow(y, row * size, x, row * size, unsure, row % channels, size, steps)
        begin, end = next_chunk(work)


@njit
def follow_exactly(
    work: Any, at: Any, y: Any, size: int, steps: Any, first: Any, left: Any, channels: int
) -> None:
    """y[at[k]], the right float32 before the steps, becomes that after them. first[k]: what it was; left[k]:
    a step's float64 does not decide. y flat, rows of `size` elements. Items: k.
    """
    flags, means, scales, shifts, factors, others = steps
    begin, end = chunk(work)
    while begin < end:
        for k in range(begin, end):
            value, channel, sure = y[at[k]], at[k] // size % channels, True
            first[k] = value
            for p in range(flags.size):
                if flags[p] & AFFINE:
                    t = shifts[p, channel]
                    c = (np.float64(value) - means[p, channel]) * scales[p, channel] + t
                    sure = sure and not is_open(c, factors[p] * (np.abs(c) + 2 * np.abs(t)))
                    value = np.float32(c) if c != 0 else np.float32(0)
                if flags[p] & OTHER:
                    value = value + others[at[k]]
                if flags[p] & BY_ZERO and value <= 0:
                    value = np.float32(0)
            y[at[k]], left[k] = value, not sure
        begin, end = next_chunk(work)


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
