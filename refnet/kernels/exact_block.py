"""The inner loops of golden's sums: blocks that continue a sum, and the transforms of winograd.py.

A block is that of lanes.py, a few positions x two vectors of output channels, but a chain of its own, which
becomes the sum or is added to it: so a sum is cut into chains, and its error bound grows with their length.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from refnet.kernels.lanes import FAR, GROUP, HALF, ODD
from refnet.kernels.memory import LINE
from refnet.kernels.writer import SIZE, WORD, Writer

WIDE = 2
"""Vectors of output channels of a block."""


def _chain_block(positions: int) -> Any:
    """The typing and code of a block of so many positions x two vectors of channels; weights of either dtype."""

    def typing(
        typingctx: Any,
        a: Any,
        ao: Any,
        x: Any,
        xo: Any,
        offsets: Any,
        oo: Any,
        places: Any,
        po: Any,
        c: Any,
        co: Any,
        k: Any,
        start: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = Writer(context, builder, signature, args, signature.args[2].dtype)
            own = Writer(context, builder, signature, args)  # the weights' dtype
            weights, source = of.pointer(0, args[1]), of.pointer(2, args[3])
            steps, windows, sums = of.pointer(4, args[5]), of.pointer(6, args[7]), of.pointer(8, args[9])
            bases = [
                builder.gep(source, [builder.load(builder.gep(windows, [SIZE(p)]))]) for p in range(positions)
            ]

            def term(i: Any, chains: list[Any]) -> list[Any]:
                """Every chain with the term i added: fma(weights[i, vector], x of the position, chain)."""
                row = builder.gep(weights, [builder.mul(i, SIZE(WIDE * of.lanes))])
                w = [own.load(row, SIZE(v * of.lanes), count=of.lanes) for v in range(WIDE)]
                if own.scalar != of.scalar:
                    w = [builder.fpext(vector, of.zero.type) for vector in w]
                for line in range(0, WIDE * of.lanes * own.align, LINE):
                    at = (line + WIDE * FAR * of.lanes * own.align) // own.align
                    of.prefetch(builder.gep(row, [SIZE(at)]), 2)
                step = builder.load(builder.gep(steps, [i]))
                results = []
                for p in range(positions):
                    value = builder.load(builder.gep(bases[p], [step]), align=of.align)
                    value = of.wide(value, of.lanes)
                    results += [of.fma(w[v], value, chains[WIDE * p + v]) for v in range(WIDE)]
                return results

            places = [SIZE(at * of.lanes) for at in range(WIDE * positions)]
            of.chains(sums, places, args[10], args[11], term)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, x, i8, offsets, i8, places, i8, c, i8, i8, i8), codegen

    return typing


chain_block: Any = intrinsic(_chain_block(GROUP))
"""chain_block(weights, at, x, at, offsets, at, places, at, sums, at, terms, start): for GROUP positions p x two
vectors of channels a chain from +0, chain = fma(weights[k], x[places[p] + offsets[k]], chain) for k in
range(terms). start: 0, the chain becomes sums[p]; 2, it is added to it. Flat arrays; each is read or written
from the element `at` on: weights (terms, 2 vectors) float32 or as x, x, offsets (terms,), places (GROUP,), sums (GROUP, 2
vectors). offsets and places are int64; terms >= 1."""
odd_chain_block: Any = intrinsic(_chain_block(ODD))
"""As chain_block, with ODD positions."""
half_chain_block: Any = intrinsic(_chain_block(HALF))
"""As chain_block, with HALF positions."""


def _decide_pass(
    typingctx: Any, y: Any, to: Any, unsure: Any, x: Any, at: Any, norms: Any, no: Any, scale: Any, shift: Any,
    more: Any, others: Any, oo: Any, factor: Any, count: Any,
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

        def row(with_others: bool) -> None:
            others = of.pointer(10, args[11]) if with_others else None

            def body(place: Any, some: Any) -> None:
                c = builder.fadd(of.load(source, place, some, of.zero), shift)
                e = of.fma(of.load(sizes, place, some, of.zero), scale, more)
                if with_others:
                    empty = builder.fptrunc(of.zero, kind)
                    other = builder.fpext(own.load(others, place, some, empty, of.lanes), of.zero.type)
                    c = builder.fadd(c, other)
                    e = of.fma(of.absolute(other), factor, e)
                finite = builder.fcmp_ordered("<", of.absolute(c), of.constant(float("inf")))
                e = builder.select(finite, e, of.zero)
                above = builder.fptrunc(builder.fadd(c, e), kind)
                below = builder.fptrunc(builder.fsub(c, e), kind)
                own.store(above, target, place, some)
                bits = of.like(WORD)
                differ = builder.icmp_signed("!=", builder.bitcast(above, bits), builder.bitcast(below, bits))
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


decide_pass: Any = intrinsic(_decide_pass)
"""decide_pass(y, to, unsure, x, at, norms, at, scale, shift, more, others, at, factor, count): for count sums
c = x + shift + others, off by at most e = norms * scale + more + factor * |others|, y = the float32 nearest to
c + e, and unsure = whether that nearest to c - e has other bits: then not every number between them rounds to y.

A sum that is not finite is y, and sure. y float32 and unsure bool, both written from `to` on; x and norms float64; others float32, not read if its `at`
is negative. Flat arrays, nothing is checked. e must hold the roundings of c + e and c - e, too, and be
finite where c is.
"""
