"""The pieces of LLVM that Numba does not offer: the inner loop of a matrix product.

`block` is the inner loop of every reduction: ROWS outputs x (2 vectors of) LANES positions, all
accumulators in registers, one term of the sum after the other. How wide the host's vectors are
changes the speed and never a bit: each lane is one sequential chain of FMAs.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _vector_bytes() -> tuple[int, int]:
    """(bytes of a vector, rows of a block) that suit the processor that code is compiled for."""
    if numba.config.CPU_NAME:
        return 16, 6
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8  # 16 of 32 registers accumulate
    return (32, 6) if features.get("avx") else (16, 6)  # 12 of 16 registers accumulate


VECTOR, ROWS = _vector_bytes()
TILE = 256
"""Positions per panel: a multiple of two vectors of float32 and of float64 on every processor."""
AHEAD = 64
"""How many terms ahead of their use the weights are called into the cache."""
PITCH = TILE + 16
"""Elements from one row of sums to the next; not a power of two, so that rows do not fight for cache sets."""


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
    """The typing and code of the blocks."""
    masked, direct = kind == "masked", kind == "direct"

    def typing(
        typingctx: Any, a: Any, ao: Any, b: Any, m: Any, bo: Any, c: Any, co: Any, k: Any, go: Any, mo: Any
    ) -> Any:
        element = a.dtype
        lanes = VECTOR // (element.bitwidth // 8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            scalar = context.get_value_type(element)
            vector = ir.VectorType(scalar, lanes)
            mask = ir.VectorType(ir.IntType(element.bitwidth), lanes)
            size = ir.IntType(64)
            align = element.bitwidth // 8

            def pointer(index: int, offset: Any) -> Any:
                array = context.make_array(signature.args[index])(context, builder, args[index])
                return builder.gep(array.data, [offset])

            def load(base: Any, offset: Any, kind: Any) -> Any:
                where = builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())
                return builder.load(where, align=align)

            name = f"llvm.fma.v{lanes}f{element.bitwidth}"
            multiply_add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), name
            )
            word, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            fetch = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0i8"
            )
            weights, panel, sums = pointer(0, args[1]), pointer(2, args[4]), pointer(5, args[6])
            present = pointer(3, args[4]) if masked else None
            offsets = pointer(3, args[9]) if direct else None
            terms = args[7]
            going_on = builder.icmp_signed("==", args[8], args[8].type(1))
            zero = ir.Constant(vector, [0.0] * lanes)
            start = []
            for r in range(ROWS):
                for v in range(2):
                    old = load(sums, size(r * PITCH + v * lanes), vector)
                    start.append(builder.select(going_on, old, zero))

            before = builder.block
            loop = builder.append_basic_block("terms")
            after = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            i = builder.phi(size)
            i.add_incoming(size(0), before)
            accumulators = []
            for value in start:
                phi = builder.phi(vector)
                phi.add_incoming(value, before)
                accumulators.append(phi)
            row = builder.load(builder.gep(offsets, [i])) if direct else builder.mul(i, size(2 * lanes))
            column = builder.mul(i, size(ROWS))
            x = [load(panel, builder.add(row, size(v * lanes)), vector) for v in range(2)]
            there = []
            if masked:
                for v in range(2):
                    bits = load(present, builder.add(row, size(v * lanes)), mask)
                    there.append(builder.icmp_unsigned("!=", bits, ir.Constant(mask, [0] * lanes)))
            ahead = builder.gep(weights, [builder.add(column, size(ROWS * AHEAD))])
            builder.call(fetch, [builder.bitcast(ahead, byte), word(0), word(3), word(1)])
            results = []
            for r in range(ROWS):
                w = builder.load(builder.gep(weights, [builder.add(column, size(r))]), align=align)
                wide = builder.insert_element(ir.Constant(vector, ir.Undefined), w, ir.IntType(32)(0))
                shuffle = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                wide = builder.shuffle_vector(wide, ir.Constant(vector, ir.Undefined), shuffle)
                for v in range(2):
                    old = accumulators[2 * r + v]
                    if fused:
                        new = builder.call(multiply_add, [wide, x[v], old])
                    else:
                        new = builder.fadd(old, builder.fmul(wide, x[v]))
                    results.append(builder.select(there[v], new, old) if masked else new)
            following = builder.add(i, size(1))
            i.add_incoming(following, loop)
            for phi, value in zip(accumulators, results, strict=True):
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, terms), loop, after)
            builder.position_at_end(after)
            where = [builder.gep(sums, [size(r * PITCH + v * lanes)]) for r in range(ROWS) for v in range(2)]
            where = [builder.bitcast(place, vector.as_pointer()) for place in where]
            with builder.if_else(builder.icmp_signed("==", args[8], args[8].type(2))) as (adds, overwrites):
                with adds:
                    for place, result in zip(where, results, strict=True):
                        old = builder.load(place, align=align)
                        builder.store(builder.fadd(old, result), place, align=align)
                with overwrites:
                    for place, result in zip(where, results, strict=True):
                        builder.store(result, place, align=align)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, b, m, i8, c, i8, i8, i8, i8), codegen

    return typing


block: Any = intrinsic(_block("plain"))
"""block(weights, at, panel, mask, at, sums, at, terms, start, 0): for ROWS x 2 vectors of lanes a chain,
chain = fma(weights[k], panel[k], chain) for k in range(terms). start: 0, it begins at +0 and is written to
the sums; 1, it begins at the sums and is written there; 2, it begins at +0 and is added to the sums.
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
