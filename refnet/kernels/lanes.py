"""The inner loops of channels.py: blocks of positions x vectors of output channels, and their transposition.

As `block` of simd.py, with the roles exchanged: a vector holds weights of neighbouring channels, and the
number that is spread over all lanes is the input. Each lane is one sequential chain of FMAs, the loop over
terms of loops/conv.py. Every position of a block has an address of its own, so a block takes positions of
different rows, planes and images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic

from refnet.kernels.writer import SIZE, VECTOR, Writer

GROUP = 8 if VECTOR == 64 else 6
"""Positions per block: each needs two vectors of sums and one register for its address, and more than 10
addresses leave too few registers. Eight compute as fast as ten (measured)."""
ODD = GROUP - 1
"""Positions of a block with which a count of positions comes to a multiple of HALF without empty ones."""
HALF = GROUP // 2
TWO = VECTOR == 64
"""Whether a block of HALF positions takes four vectors of channels: of 32 registers, 16 accumulate."""


class Ahead(NamedTuple):
    """How weights are prefetched: so many terms ahead of their use, into the cache of that level (3 is the
    first, 2 the second), one cache line of `every`.
    """

    terms: int
    level: int
    every: int


NEVER = Ahead(0, 0, 0)
"""They are in a cache."""
FAR = Ahead(128, 2, 1)
"""One thread reads memory 1.6 times as fast as with NEAR."""
NEAR = Ahead(16, 3, 1)
"""Where each weight is used only once."""
SPARSE = Ahead(16, 2, 2)
"""Where two blocks of weights are read at once: a core waits for some twenty lines that instructions ask for,
at most, and the processor prefetches more by itself."""


def _channel_code(positions: int, vectors: int, pitch: int, early: Ahead, args: Any, of: Writer) -> Any:
    """What adds a term to every chain of a block, for Writer.accumulate and Writer.chains."""
    builder, first = of.builder, args[11] if len(args) > 10 else SIZE(0)
    weights, source = of.pointer(0, args[1]), of.pointer(2, args[3])
    steps, windows = of.pointer(4, first), of.pointer(5, args[6])
    bases = [builder.gep(source, [builder.load(builder.gep(windows, [SIZE(p)]))]) for p in range(positions)]

    def term(i: Any, chains: list[Any]) -> list[Any]:
        """Every chain with the term i added: fma(weights[i, vector], x of the position, chain)."""
        row = builder.gep(weights, [builder.mul(i, SIZE(pitch * of.lanes))])
        w = []
        for v in range(vectors):
            w.append(of.load(row, SIZE(v * of.lanes)))
            if early.every and v % early.every == 0:
                ahead = builder.gep(row, [SIZE((v + pitch * early.terms) * of.lanes)])
                of.prefetch(ahead, early.level)
        step = builder.load(builder.gep(steps, [i]))
        results = []
        for p in range(positions):
            value = builder.load(builder.gep(bases[p], [step]), align=of.align)
            value = of.wide(value, of.lanes)
            results += [of.fma(w[v], value, chains[vectors * p + v]) for v in range(vectors)]
        return results

    return term


def _channel_block(positions: int, vectors: int, pitch: int, early: Ahead) -> Any:
    """The typing and code of a block of so many positions x vectors of channels, of `pitch` in the arrays.

    early: how the weights are prefetched.
    """

    def typing(
        typingctx: Any,
        a: Any,
        ao: Any,
        x: Any,
        xo: Any,
        offsets: Any,
        places: Any,
        po: Any,
        c: Any,
        co: Any,
        k: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = Writer(context, builder, signature, args)
            sums = of.pointer(7, args[8])
            term = _channel_code(positions, vectors, pitch, early, args, of)
            results = of.accumulate(args[9], [of.zero] * (vectors * positions), term)
            for at, result in enumerate(results):
                p, v = divmod(at, vectors)
                of.store(result, sums, SIZE((p * pitch + v) * of.lanes))
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, x, i8, offsets, places, i8, c, i8, i8), codegen

    return typing


def _two_blocks(positions: int) -> Any:
    """The typing and code of a block of so many positions x two vectors of each of two blocks of channels."""

    def typing(
        typingctx: Any,
        a: Any,
        ao: Any,
        x: Any,
        xo: Any,
        offsets: Any,
        places: Any,
        po: Any,
        c: Any,
        co: Any,
        k: Any,
        apart: Any,
        beside: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = Writer(context, builder, signature, args)
            second = list(args)
            second[1] = builder.add(args[1], args[10])
            pair = [_channel_code(positions, 2, 2, SPARSE, each, of) for each in (args[:10], second[:10])]
            some = 2 * positions

            def term(i: Any, chains: list[Any]) -> list[Any]:
                return [*pair[0](i, chains[:some]), *pair[1](i, chains[some:])]

            results = of.accumulate(args[9], [of.zero] * (2 * some), term)
            for number, at in enumerate((args[8], builder.add(args[8], args[11]))):
                sums = of.pointer(7, at)
                for place, result in enumerate(results[number * some : (number + 1) * some]):
                    of.store(result, sums, SIZE(place * of.lanes))
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, x, i8, offsets, places, i8, c, i8, i8, i8, i8), codegen

    return typing


def chain_block(positions: int, vectors: int, early: Ahead = FAR) -> Any:
    """As _channel_block, for one chain of several: it may begin at the sums, or be added to them."""

    def typing(
        typingctx: Any,
        a: Any,
        ao: Any,
        x: Any,
        xo: Any,
        offsets: Any,
        places: Any,
        po: Any,
        c: Any,
        co: Any,
        k: Any,
        go: Any,
        fo: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = Writer(context, builder, signature, args)
            term = _channel_code(positions, vectors, 2, early, args, of)
            at = [SIZE((p * 2 + v) * of.lanes) for p in range(positions) for v in range(vectors)]
            of.chains(of.pointer(7, args[8]), at, args[9], args[10], term)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, x, i8, offsets, places, i8, c, i8, i8, i8, i8), codegen

    return typing


group_block: Any = intrinsic(_channel_block(GROUP, 2, 2, FAR))
"""group_block(weights, at, x, at, offsets, places, at, sums, at, terms): sums (GROUP, 2 vectors) = +0, then
for k in range(terms): sums[p] = fma(weights[k], x[places[p] + offsets[k]], sums[p]). Flat arrays; each is
read or written from the element `at` on: weights (terms, 2 vectors), x, places (GROUP,), sums. offsets and
places are int64; terms >= 1."""
odd_block: Any = intrinsic(_channel_block(ODD, 2, 2, FAR))
"""As group_block, with ODD positions."""
half_block: Any = intrinsic(_channel_block(HALF, 2, 2, FAR))
"""As group_block, with HALF positions."""
two_half_blocks: Any = intrinsic(_two_blocks(HALF))
"""two_half_blocks(..., terms, apart, beside): half_block of the weights at `at` and of those `apart` elements
behind, whose sums are written `beside` elements behind the others. Two rows of weights are read at once,
which is faster from memory."""
thin_group_block: Any = intrinsic(_channel_block(GROUP, 1, 2, FAR))
"""As group_block, only the first vector of channels."""
thin_odd_block: Any = intrinsic(_channel_block(ODD, 1, 2, FAR))
"""As odd_block, only the first vector of channels."""
thin_half_block: Any = intrinsic(_channel_block(HALF, 1, 2, FAR))
"""As half_block, only the first vector of channels."""
chain_group_block: Any = intrinsic(chain_block(GROUP, 2))
"""chain_group_block(..., terms, start, first): as group_block, with the offsets from the `first` on. start:
as Writer.chains has it."""
chain_odd_block: Any = intrinsic(chain_block(ODD, 2))
"""As chain_group_block, with ODD positions."""
chain_half_block: Any = intrinsic(chain_block(HALF, 2))
"""As chain_group_block, with HALF positions."""
thin_chain_group_block: Any = intrinsic(chain_block(GROUP, 1))
"""As chain_group_block, only the first vector of channels."""
thin_chain_odd_block: Any = intrinsic(chain_block(ODD, 1))
"""As chain_odd_block, only the first vector of channels."""
thin_chain_half_block: Any = intrinsic(chain_block(HALF, 1))
"""As chain_half_block, only the first vector of channels."""
column_block: Any = intrinsic(_channel_block(1, 4, 4, NEAR))
"""As group_block, with 1 position and 4 vectors of channels."""
row_group_block: Any = intrinsic(_channel_block(GROUP, 2, 4, FAR))
"""As group_block, of weights (terms, 4 vectors) and sums (GROUP, 4 vectors): the two vectors from `at` on."""
row_odd_block: Any = intrinsic(_channel_block(ODD, 2, 4, FAR))
"""As row_group_block, with ODD positions."""
row_half_block: Any = intrinsic(_channel_block(HALF, 2, 4, FAR))
"""As row_group_block, with HALF positions."""


def _transpose(typingctx: Any, a: Any, ao: Any, b: Any, bo: Any, pitch: Any) -> Any:
    """The typing and code of `transpose`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args)
        source, target = of.pointer(0, args[1]), of.pointer(2, args[3])
        rows = [of.load(source, SIZE(r * 2 * of.lanes)) for r in range(of.lanes)]
        for r, row in enumerate(of.transpose(rows)):
            of.store(row, target, builder.mul(args[4], SIZE(r)))
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(a, i8, b, i8, i8), codegen


transpose: Any = intrinsic(_transpose)
"""transpose(sums, at, rows, at, pitch): one vector of each of as many positions as a vector has lanes, two
vectors apart, becomes a column of `rows`, pitch elements apart."""
