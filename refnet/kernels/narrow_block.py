"""The inner loops of narrow.py: blocks of one or a few outputs x vectors of positions, and closing up rows.

As `direct_block` of simd.py, with other shapes: a block of ONE output keeps enough vectors of positions in
registers to hide the time that an FMA takes, a block of SOME outputs reads each vector once for all of them.
Each lane is one sequential chain, the loop over terms of loops/conv.py.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from refnet.kernels.writer import SIZE, VECTOR, Writer

SOME = 4
"""Outputs of a block that has several."""
LONG, SHORT = 8, 4
"""Vectors of positions of a block of one output."""
BROAD = 4 if VECTOR == 64 else 2
"""Vectors of positions of a block of SOME outputs: with these its sums fill half of the registers."""


def _block(rows: int, vectors: int, fused: bool) -> Any:
    """The typing and code of a block of so many outputs x vectors of positions."""

    def typing(
        typingctx: Any,
        a: Any,
        ao: Any,
        x: Any,
        offsets: Any,
        xo: Any,
        c: Any,
        co: Any,
        pitch: Any,
        first: Any,
        k: Any,
        start: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = Writer(context, builder, signature, args)
            weights, planes, sums = of.pointer(0, args[1]), of.pointer(2, args[4]), of.pointer(5, args[6])
            offsets = of.pointer(3, args[8])
            places = [
                builder.add(builder.mul(args[7], SIZE(r)), SIZE(v * of.lanes))
                for r in range(rows)
                for v in range(vectors)
            ]

            def term(i: Any, chains: list[Any]) -> list[Any]:
                """Every chain with the term i added: fma(weights[i, output], x[vector], chain)."""
                base = builder.gep(planes, [builder.load(builder.gep(offsets, [i]))])
                x = [of.load(base, SIZE(v * of.lanes)) for v in range(vectors)]
                results = []
                for r in range(rows):
                    at = builder.add(builder.mul(i, SIZE(rows)), SIZE(r))
                    w = of.wide(builder.load(builder.gep(weights, [at]), align=of.align), of.lanes)
                    for v in range(vectors):
                        old = chains[vectors * r + v]
                        results.append(
                            of.fma(w, x[v], old) if fused else builder.fadd(old, builder.fmul(w, x[v]))
                        )
                return results

            of.chains(sums, places, args[9], args[10], term)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, x, offsets, i8, c, i8, i8, i8, i8, i8), codegen

    return typing


long_block: Any = intrinsic(_block(1, LONG, True))
"""long_block(weights, at, planes, offsets, at, sums, at, pitch, first, terms, start): one output x LONG
vectors of positions, chain = fma(weights[k], planes[at + offsets[first + k]], chain) for k in range(terms).
Flat arrays, each read or written from the element `at` on: weights (terms, outputs of the block), planes,
sums with `pitch` elements from output to output. offsets int64; terms >= 1; start: see
Writer.chains."""
short_block: Any = intrinsic(_block(1, SHORT, True))
"""As long_block, SHORT vectors."""
broad_block: Any = intrinsic(_block(SOME, BROAD, True))
"""As long_block, SOME outputs x BROAD vectors."""
rounded_block: Any = intrinsic(_block(1, SHORT, False))
"""As short_block, each product rounded before it is added."""
rounded_broad_block: Any = intrinsic(_block(SOME, BROAD, False))
"""As broad_block, each product rounded before it is added."""


def _close_up(typingctx: Any, y: Any, yo: Any, x: Any, xo: Any, rows: Any, length: Any, pitch: Any) -> Any:
    """The typing and code of `close_up`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)
        target, source = of.pointer(0, args[1]), of.pointer(2, args[3])
        with of.loop(args[4]) as row:
            to = builder.gep(target, [builder.mul(row, args[5])])
            at = builder.gep(source, [builder.mul(row, args[6])])
            with of.loop(args[5], of.lanes) as lane:
                of.store(of.load(at, lane), to, lane)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(y, i8, x, i8, i8, i8, i8), codegen


close_up: Any = intrinsic(_close_up)
"""close_up(y, at, x, at, rows, length, pitch): y[at + r * length + t] = x[at + r * pitch + t] for t below
length, in whole vectors: up to a vector behind the last row is read and written too. Flat arrays that do not
overlap."""


def _lay_rows(residue: int, stride: int) -> Any:
    """The typing and code of `lay_rows` and its kind: every `stride`-th column from number `residue` on."""

    def typing(
        typingctx: Any,
        y: Any,
        yo: Any,
        to: Any,
        x: Any,
        xo: Any,
        of_pitch: Any,
        rows: Any,
        width: Any,
        left: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = Writer(context, builder, signature, args)
            target, source = of.pointer(0, args[1]), of.pointer(3, args[4])
            with of.loop(args[6]) as row:
                line = builder.gep(target, [builder.mul(row, args[2])])
                at = builder.gep(source, [builder.mul(row, args[5])])
                of.store(of.zero, line, SIZE(0))
                inside = builder.gep(line, [args[8]])

                def body(begin: Any, some: Any, at: Any = at, inside: Any = inside) -> None:
                    if stride == 1:
                        of.store(of.load(at, begin, some, of.zero), inside, begin)
                    else:
                        pair = of.pairs(at, begin, some, of.zero)
                        of.store(pair[residue], inside, builder.lshr(begin, SIZE(1)))

                of.row(args[7], stride * of.lanes, body)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(y, i8, i8, x, i8, i8, i8, i8, i8), codegen

    return typing


lay_rows: Any = intrinsic(_lay_rows(0, 1))
"""lay_rows(y, at, pitch, x, at, pitch, rows, width, left): rows of x, `width` elements of each, with `left`
zeros before them and zeros behind, up to a vector. Flat arrays that do not overlap; both begin at the element
`at` and have `pitch` elements from row to row. Whole vectors are written, the next row after them; left is at
most a vector."""
lay_even: Any = intrinsic(_lay_rows(0, 2))
"""As lay_rows, of each row only the elements 0, 2, 4 ..."""
lay_odd: Any = intrinsic(_lay_rows(1, 2))
"""As lay_rows, of each row only the elements 1, 3, 5 ..."""
