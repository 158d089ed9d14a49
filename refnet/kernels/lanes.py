"""The inner loops of channels.py: blocks of positions x vectors of output channels, and their transposition.

As `block` of simd.py, with the roles exchanged: a vector holds weights of neighbouring channels, and the
number that is spread over all lanes is the input. Each lane is one sequential chain of FMAs. Every position
of a block has an address of its own, so a block takes positions of different rows, planes and images.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.simd import VECTOR

GROUP = 8 if VECTOR == 64 else 6
"""Positions per block: each needs two vectors of sums and one register for its address, and more than 10
addresses leave too few registers. Eight compute as fast as ten (measured)."""
ODD = GROUP - 1
"""Positions of a block with which a count of positions comes to a multiple of HALF without empty ones."""
HALF = GROUP // 2
FAR, NEAR = 128, 16
"""How many terms ahead of their use the weights are called into the second-level cache (FAR) and, where each
is used only once, into the first (NEAR). One thread reads memory 1.6 times as fast with FAR as with NEAR."""


def _channel_block(positions: int, vectors: int, pitch: int, early: int) -> Any:
    """The typing and code of a block of so many positions x vectors of channels, of `pitch` in the arrays.

    early: FAR or NEAR.
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
            level = word(2 if early == FAR else 3)
            name = f"llvm.fma.v{lanes}f{element.bitwidth}"
            fused = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), name
            )
            weights, source = pointer(0, args[1]), pointer(2, args[3])
            steps, where, sums = pointer(4, size(0)), pointer(5, args[6]), pointer(7, args[8])
            bases = [
                builder.gep(source, [builder.load(builder.gep(where, [size(p)]))]) for p in range(positions)
            ]

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
                at = builder.gep(row, [size(v * lanes)])
                w.append(builder.load(builder.bitcast(at, vector.as_pointer()), align=align))
                ahead = builder.gep(at, [size(pitch * lanes * early)])
                builder.call(call, [builder.bitcast(ahead, byte), word(0), level, word(1)])
            step = builder.load(builder.gep(steps, [i]))
            results = []
            for p in range(positions):
                value = builder.load(builder.gep(bases[p], [step]), align=align)
                value = builder.insert_element(empty, value, word(0))
                value = builder.shuffle_vector(value, empty, spread)
                results += [
                    builder.call(fused, [w[v], value, chains[vectors * p + v]]) for v in range(vectors)
                ]
            following = builder.add(i, size(1))
            i.add_incoming(following, loop)
            for chain, result in zip(chains, results, strict=True):
                chain.add_incoming(result, loop)
            builder.cbranch(builder.icmp_signed("<", following, args[9]), loop, after)
            builder.position_at_end(after)
            for at, result in enumerate(results):
                p, v = divmod(at, vectors)
                to = builder.gep(sums, [size((p * pitch + v) * lanes)])
                builder.store(result, builder.bitcast(to, vector.as_pointer()), align=align)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, x, i8, offsets, places, i8, c, i8, i8), codegen

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
thin_group_block: Any = intrinsic(_channel_block(GROUP, 1, 2, FAR))
"""As group_block, only the first vector of channels."""
thin_odd_block: Any = intrinsic(_channel_block(ODD, 1, 2, FAR))
"""As odd_block, only the first vector of channels."""
thin_half_block: Any = intrinsic(_channel_block(HALF, 1, 2, FAR))
"""As half_block, only the first vector of channels."""
column_block: Any = intrinsic(_channel_block(1, 4, 4, NEAR))
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
