"""The inner loop of tiles.py: a block of a matrix product, and copying.

A block is ROWS outputs x 2 vectors of positions, with all sums in registers. Its terms are added one after
another: each takes two vectors of the panel and ROWS weights, each broadcast to all lanes. A lane is one
sequential chain, the loop over terms of loops/conv.py, so no bit depends on the width of a vector.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.writer import ROWS, SIZE, Writer

TILE = 256
"""Positions per panel: a multiple of two vectors of float32 and of float64 on every processor."""
AHEAD = 64
"""How many terms ahead of their use the weights are prefetched."""
PITCH = TILE + 16
"""Elements from one row of sums to the next; not a power of two, so rows do not compete for cache sets."""


def _copy(typingctx: Any, target: Any, at: Any, source: Any, begin: Any, count: Any) -> Any:
    """The typing and code of `copy`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2)]
        to, of = builder.gep(arrays[0].data, [args[1]]), builder.gep(arrays[1].data, [args[3]])
        cgutils.raw_memcpy(builder, to, of, args[4], target.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), codegen


copy: Any = intrinsic(_copy)
"""copy(target, at, source, begin, count): target[at : at + count] = source[begin : begin + count] in flat
contiguous arrays of one dtype, which do not overlap; nothing is checked."""


def _block(kind: str, fused: bool = True) -> Any:
    """The typing and code of a block. kind: "plain", "masked" or "direct"; fused: FMAs."""
    masked, direct = kind == "masked", kind == "direct"

    def typing(
        typingctx: Any, a: Any, ao: Any, b: Any, m: Any, bo: Any, c: Any, co: Any, k: Any, go: Any, mo: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = Writer(context, builder, signature, args)
            weights, panel, sums = of.pointer(0, args[1]), of.pointer(2, args[4]), of.pointer(5, args[6])
            present = of.pointer(3, args[4]) if masked else None
            offsets = of.pointer(3, args[9]) if direct else None
            places = [SIZE(r * PITCH + v * of.lanes) for r in range(ROWS) for v in range(2)]

            def term(i: Any, chains: list[Any]) -> list[Any]:
                """Every chain with the term i added: fma(weights[i, row], panel[i, vector], chain)."""
                row = (
                    builder.load(builder.gep(offsets, [i])) if direct else builder.mul(i, SIZE(2 * of.lanes))
                )
                column = builder.mul(i, SIZE(ROWS))
                at = [builder.add(row, SIZE(v * of.lanes)) for v in range(2)]
                x = [of.load(panel, place) for place in at]
                there = [
                    builder.fcmp_ordered("!=", of.load(present, place), of.zero) for place in at if masked
                ]
                of.prefetch(builder.gep(weights, [builder.add(column, SIZE(ROWS * AHEAD))]), 3)
                results = []
                for r in range(ROWS):
                    w = builder.load(builder.gep(weights, [builder.add(column, SIZE(r))]), align=of.align)
                    w = of.wide(w, of.lanes)
                    for v in range(2):
                        old = chains[2 * r + v]
                        new = of.fma(w, x[v], old) if fused else builder.fadd(old, builder.fmul(w, x[v]))
                        results.append(builder.select(there[v], new, old) if masked else new)
                return results

            of.chains(sums, places, args[7], args[8], term)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, b, m, i8, c, i8, i8, i8, i8), codegen

    return typing


block: Any = intrinsic(_block("plain"))
"""block(weights, at, panel, mask, at, sums, at, terms, start, 0): for ROWS x 2 vectors of lanes a chain,
chain = fma(weights[k], panel[k], chain) for k in range(terms). start: as Writer.chains has it.
Flat arrays; what is read and written lies at the element offsets `at`: weights (terms, ROWS), panel
(terms, 2 vectors), sums (ROWS, 2 vectors) with PITCH elements from row to row. terms >= 1; mask is not
read."""

masked_block: Any = intrinsic(_block("masked"))
"""As block, and a lane skips the terms whose mask (terms, 2 vectors) is 0: they contribute nothing."""

direct_block: Any = intrinsic(_block("direct"))
"""direct_block(weights, at, planes, offsets, at, sums, at, terms, start, first): as block, but term k's
two vectors are read at planes[at + offsets[first + k]], offsets int64."""

# chain = chain + round(weights * x) instead of one FMA:
rounded_block: Any = intrinsic(_block("plain", fused=False))
"""As block, each product rounded before it is added."""
rounded_direct_block: Any = intrinsic(_block("direct", fused=False))
"""As direct_block, each product rounded before it is added."""
rounded_masked_block: Any = intrinsic(_block("masked", fused=False))
"""As masked_block, each product rounded before it is added."""
