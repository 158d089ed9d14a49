"""The inner loops of golden's sums: blocks that continue a sum, and the transforms of winograd.py.

A block is that of lanes.py, a few positions x two vectors of output channels, but a chain of its own, which
becomes the sum or is added to it: so a sum is cut into chains, and its error bound grows with their length.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from refnet.kernels.lanes import FAR, GROUP, HALF, ODD
from refnet.kernels.writer import SIZE, Writer

WIDE = 2
"""Vectors of output channels of a block."""


def _chain_block(positions: int) -> Any:
    """The typing and code of a block of so many positions x two vectors of channels."""

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
            of = Writer(context, builder, signature, args)
            weights, source = of.pointer(0, args[1]), of.pointer(2, args[3])
            steps, windows, sums = of.pointer(4, args[5]), of.pointer(6, args[7]), of.pointer(8, args[9])
            bases = [
                builder.gep(source, [builder.load(builder.gep(windows, [SIZE(p)]))]) for p in range(positions)
            ]

            def term(i: Any, chains: list[Any]) -> list[Any]:
                """Every chain with the term i added: fma(weights[i, vector], x of the position, chain)."""
                row = builder.gep(weights, [builder.mul(i, SIZE(WIDE * of.lanes))])
                w = [of.load(row, SIZE(v * of.lanes)) for v in range(WIDE)]
                for v in range(WIDE):
                    of.prefetch(builder.gep(row, [SIZE((v + WIDE * FAR) * of.lanes)]), 2)
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
from the element `at` on: weights (terms, 2 vectors), x, offsets (terms,), places (GROUP,), sums (GROUP, 2
vectors). offsets and places are int64; terms >= 1."""
odd_chain_block: Any = intrinsic(_chain_block(ODD))
"""As chain_block, with ODD positions."""
half_chain_block: Any = intrinsic(_chain_block(HALF))
"""As chain_block, with HALF positions."""
