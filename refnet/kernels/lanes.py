"""The inner loops of channels.py: blocks of positions x vectors of output channels, and their transposition.

As `block` of simd.py, with the roles exchanged: a vector holds weights of neighbouring channels, and the
number that is spread over all lanes is the input. Each lane is one sequential chain of FMAs.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.simd import VECTOR

GROUP = 14 if VECTOR == 64 else 6
"""Positions per block: with two vectors of sums each, and of weights, they fill the registers."""
HALF = GROUP // 2
EARLY = 16
"""How many terms ahead of their use the weights are called into the cache."""


def _channel_block(positions: int, vectors: int, pitch: int) -> Any:
    """The typing and code of a block of so many positions x vectors of channels, of `pitch` in the arrays."""

    def typing(
        typingctx: Any, a: Any, ao: Any, x: Any, xo: Any, offsets: Any, c: Any, k: Any, step: Any
    ) -> Any:
        element = a.dtype
        lanes = VECTOR // (element.bitwidth // 8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            scalar, size, word = context.get_value_type(element), ir.IntType(64), ir.IntType(32)
            vector, align = ir.VectorType(scalar, lanes), element.bitwidth // 8
            empty = ir.Constant(vector, ir.Undefined)
            spread = ir.Constant(ir.VectorType(word, lanes), [0] * lanes)

            def pointer(index: int, offset: Any) -> Any:
                array = context.make_array(signature.args[index])(context, builder, args[index])
                return builder.gep(array.data, [offset])

            byte = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
            name = f"llvm.fma.v{lanes}f{element.bitwidth}"
            fused = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), name
            )
            weights, source = pointer(0, args[1]), pointer(2, args[3])
            places, sums = pointer(4, size(0)), pointer(5, size(0))

            def chains_of(distance: int) -> None:
                before = builder.block
                loop, after = builder.append_basic_block("terms"), builder.append_basic_block("done")
                builder.branch(loop)
                builder.position_at_end(loop)
                i = builder.phi(size)
                i.add_incoming(size(0), before)
                chains = []
                for _ in range(vectors * positions):
                    chain = builder.phi(vector)
                    chain.add_incoming(ir.Constant(vector, [0.0] * lanes), before)
                    chains.append(chain)
                row = builder.gep(weights, [builder.mul(i, size(pitch * lanes))])
                w = []
                for v in range(vectors):
                    where = builder.gep(row, [size(v * lanes)])
                    w.append(builder.load(builder.bitcast(where, vector.as_pointer()), align=align))
                    ahead = builder.gep(where, [size(pitch * lanes * EARLY)])
                    builder.call(call, [builder.bitcast(ahead, byte), word(0), word(3), word(1)])
                term = builder.gep(source, [builder.load(builder.gep(places, [i]))])
                results = []
                for p in range(positions):
                    value = builder.load(builder.gep(term, [size(p * distance)]), align=align)
                    value = builder.insert_element(empty, value, word(0))
                    value = builder.shuffle_vector(value, empty, spread)
                    results += [
                        builder.call(fused, [w[v], value, chains[vectors * p + v]]) for v in range(vectors)
                    ]
                following = builder.add(i, size(1))
                i.add_incoming(following, loop)
                for chain, result in zip(chains, results, strict=True):
                    chain.add_incoming(result, loop)
                builder.cbranch(builder.icmp_signed("<", following, args[6]), loop, after)
                builder.position_at_end(after)
                for at, result in enumerate(results):
                    p, v = divmod(at, vectors)
                    where = builder.gep(sums, [size((p * pitch + v) * lanes)])
                    builder.store(result, builder.bitcast(where, vector.as_pointer()), align=align)

            near = builder.icmp_signed("==", args[7], size(1))
            with builder.if_else(near) as (one, two):
                with one:
                    chains_of(1)
                with two:
                    chains_of(2)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, x, i8, offsets, c, i8, i8), codegen

    return typing


group_block: Any = intrinsic(_channel_block(GROUP, 2, 2))
"""group_block(weights, at, x, at, offsets, sums, terms, step): sums (GROUP, 2 vectors) = +0, then for k in
range(terms): sums[p] = fma(weights[k], x[offsets[k] + p * step], sums[p]). Flat arrays; weights (terms, 2
vectors) and x from the element `at` on, offsets int64. The step is 1 or 2; terms >= 1."""
half_block: Any = intrinsic(_channel_block(HALF, 2, 2))
"""As group_block, with HALF positions."""
thin_group_block: Any = intrinsic(_channel_block(GROUP, 1, 2))
"""As group_block, only the first vector of channels."""
thin_half_block: Any = intrinsic(_channel_block(HALF, 1, 2))
"""As half_block, only the first vector of channels."""
column_block: Any = intrinsic(_channel_block(1, 4, 4))
"""As group_block, with 1 position and 4 vectors of channels."""


def _transpose(typingctx: Any, a: Any, ao: Any, b: Any, bo: Any, pitch: Any) -> Any:
    """The typing and code of `transpose`."""
    element = a.dtype
    lanes = VECTOR // (element.bitwidth // 8)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar, size = context.get_value_type(element), ir.IntType(64)
        vector, align = ir.VectorType(scalar, lanes), element.bitwidth // 8
        arrays = [context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2)]
        source, target = builder.gep(arrays[0].data, [args[1]]), builder.gep(arrays[1].data, [args[3]])
        rows = []
        for r in range(lanes):
            where = builder.gep(source, [size(r * 2 * lanes)])
            rows.append(builder.load(builder.bitcast(where, vector.as_pointer()), align=align))
        step = 1
        while step < lanes:  # exchange the off-diagonal squares of step x step
            low = [j if not j & step else lanes + j - step for j in range(lanes)]
            high = [j + step if not j & step else lanes + j for j in range(lanes)]
            for r in range(lanes):
                if not r & step:
                    a, b = rows[r], rows[r + step]
                    for to, order in ((r, low), (r + step, high)):
                        mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), order)
                        rows[to] = builder.shuffle_vector(a, b, mask)
            step *= 2
        for r in range(lanes):
            where = builder.gep(target, [builder.mul(args[4], size(r))])
            builder.store(rows[r], builder.bitcast(where, vector.as_pointer()), align=align)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(a, i8, b, i8, i8), codegen


transpose: Any = intrinsic(_transpose)
"""transpose(sums, at, rows, at, pitch): one vector of each of as many positions as a vector has lanes, two
vectors apart, becomes a column of `rows`, pitch elements apart."""
