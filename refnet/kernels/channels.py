"""Convolution with lanes across output channels: small maps leave no lane empty, and nothing is gathered.

A block is GROUP positions of one row x two vectors of output channels. Per term it reads two vectors of
weights (packed as blocks of channels, channels fastest) and one number per position, which is read where it
lies in the input or its padded planes and goes to all lanes. Rows of 7 and 14 outputs are whole blocks.
The order of an output's terms is that of panel.py: one chain of FMAs from +0 over channel, kernel row and
kernel column; only the neighbours it is computed with are others.

A block's sums have channels side by side, the output has positions side by side, so they are transposed.

Padding: as in panel.py, a zero is multiplied there. Where that can show (a weight is not finite, or a sum
of nonzero inputs came out zero) the output is computed again, alone, by the definition (`_again`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.epilogue import follow_to
from refnet.kernels.jit import njit
from refnet.kernels.simd import VECTOR, fetch, fma
from refnet.kernels.team import next_share, share

Array = npt.NDArray[Any]

GROUP = 14 if VECTOR == 64 else 6
"""Positions per block: with two vectors of sums each, and of weights, they fill the registers."""
HALF = GROUP // 2
STRETCH = 14 * GROUP
"""Positions per work item."""
EARLY = 16
"""How many terms ahead of their use the weights are called into the cache."""


def width(dtype: Any) -> int:
    """Output channels per block."""
    return 2 * VECTOR // np.dtype(dtype).itemsize


def pack_channels(w: Array, groups: int) -> Array:
    """w (o, c / groups, kh, kw) as (groups, blocks, terms, channels of a block), zeros behind the last."""
    per, wide = w.shape[0] // groups, width(w.dtype)
    blocks = -(-per // wide)
    packed = np.zeros((groups, blocks * wide, w[0].size), w.dtype)
    packed[:, :per] = w.reshape(groups, per, -1)
    return np.ascontiguousarray(packed.reshape(groups, blocks, wide, -1).swapaxes(2, 3))


def computed(length: int) -> int:
    """How many positions are computed for a row of so many, at least HALF: the last block may overlap."""
    whole, rest = divmod(length, GROUP)
    if rest == 0:
        return length
    return whole * GROUP + (HALF if rest <= HALF else GROUP)


def _channel_block(positions: int, vectors: int, pitch: int) -> Any:
    """The typing and code of a block of so many positions x vectors of channels, of `pitch` in the arrays."""

    def typing(
        typingctx: Any, a: Any, ao: Any, x: Any, xo: Any, offsets: Any, c: Any, k: Any
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
            fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
            weights, source = pointer(0, args[1]), pointer(2, args[3])
            places, sums = pointer(4, size(0)), pointer(5, size(0))
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
                value = builder.load(builder.gep(term, [size(p)]), align=align)
                value = builder.insert_element(empty, value, word(0))
                value = builder.shuffle_vector(value, empty, spread)
                results += [builder.call(fused, [w[v], value, chains[vectors * p + v]]) for v in range(vectors)]
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
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(a, i8, x, i8, offsets, c, i8), codegen

    return typing


group_block: Any = intrinsic(_channel_block(GROUP, 2, 2))
"""group_block(weights, at, x, at, offsets, sums, terms): sums (GROUP, 2 vectors) = +0, then for each term k,
sums[p] = fma(weights[k], x[offsets[k] + p], sums[p]); weights (terms, 2 vectors), offsets int64. terms >= 1."""
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


@njit
def channels(
    work: Any,
    x: Any,
    planes: Any,
    w: Any,
    packed: Any,
    y: Any,
    place: Any,
    shape: Any,
    stretch: int,
    finite: bool,
    parts: int,
    offsets: Any,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """Items: (image, group, stretch of positions, part of the group's blocks of channels), part fastest.

    planes: x with its padding, rows of shape[4], or x itself; offsets: of the terms there.
    """
    outputs, oh, ow = y.shape[1:]
    groups, blocks, terms, wide = packed.shape
    per, depth, span = outputs // groups, x.shape[1] // groups, shape[4]
    length = oh * ow if span == ow else ow  # of the pieces that lie side by side
    stretches = -(-(oh * ow) // stretch)
    lanes = wide // 2
    sums = np.empty(max(GROUP, lanes) * wide, x.dtype)
    rows = np.empty((wide, stretch + lanes), x.dtype)
    flat, source = y.reshape(-1), planes.reshape(-1)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            part, tile = item % parts, item // parts % stretches
            group, image = item // parts // stretches % groups, item // parts // stretches // groups
            start = tile * stretch
            count = min(stretch, oh * ow - start)
            base = image * planes[0].size + group * depth * (shape[0] + 2 * place[2]) * span
            for b in range(blocks * part // parts, blocks * (part + 1) // parts):
                weights = packed[group, b].reshape(-1)
                first, some = group * per + b * wide, min(wide, per - b * wide)
                thin = some <= lanes
                for o in range(some):
                    row = (image * outputs + first + o) * oh * ow + start
                    for at in range(0, count, 64 // y.itemsize):
                        fetch(y, row + at)
                        for other in range(others.shape[0] if others.size else 0):
                            fetch(others, other * others.shape[1] * others.shape[2] + row + at)
                for piece in range(0, count, length):
                    i, j = (start + piece) // ow, 0
                    size = min(length, count - piece)
                    where = base + (start + piece if span == ow else i * span)
                    while j < size:
                        rest = size - j
                        whole = rest > HALF and size >= GROUP
                        if whole:
                            j = min(j, size - GROUP)
                            if thin:
                                thin_group_block(weights, 0, source, where + j, offsets, sums, terms)
                            else:
                                group_block(weights, 0, source, where + j, offsets, sums, terms)
                        else:
                            j = j if rest > HALF else size - HALF
                            if thin:
                                thin_half_block(weights, 0, source, where + j, offsets, sums, terms)
                            else:
                                half_block(weights, 0, source, where + j, offsets, sums, terms)
                        for v in range(0, GROUP if whole else HALF, lanes):
                            to = piece + j + v
                            transpose(sums, v * wide, rows, to, rows.shape[1])
                            if not thin:
                                transpose(sums, v * wide + lanes, rows, lanes * rows.shape[1] + to, rows.shape[1])
                        j += GROUP if whole else HALF
                if span != ow:
                    spot = (image, group * depth, first, some, start, count)
                    _again(x, w, rows, spot, ow, place, finite)
                for o in range(some):
                    to = (image * outputs + first + o) * oh * ow + start
                    at, row = o * rows.shape[1], image * outputs + first + o
                    follow_to(y, to, rows, at, count, first + o, row, start, flags, scales, shifts, others)
        begin, end = next_share(work)


@njit
def _again(x: Any, w: Any, rows: Any, spot: Any, ow: int, place: Any, finite: bool) -> None:
    """Compute anew the outputs that may show a product with the padding's zero."""
    image, base, first, some, start, count = spot
    zeros = 0
    for o in range(some):
        row = rows[o, :count]
        for t in range(count):
            zeros += row[t] == 0
    if finite and zeros == 0:
        return
    sh, sw, ph, pw, dh, dw = place[0], place[1], place[2], place[3], place[4], place[5]
    height, width = x.shape[2:]
    depth, kh, kw = w.shape[1:]
    for t in range(count):
        top, left = (start + t) // ow * sh - ph, (start + t) % ow * sw - pw
        inside = top >= 0 and left >= 0
        if inside and top + (kh - 1) * dh < height and left + (kw - 1) * dw < width:
            continue
        for o in range(some):
            if finite and rows[o, t] != 0:
                continue
            total = x.dtype.type(0)
            for c in range(depth):
                for p in range(kh):
                    for q in range(kw):
                        i, j = top + p * dh, left + q * dw
                        if 0 <= i < height and 0 <= j < width:
                            total = fma(w[first + o, c, p, q], x[image, base + c, i, j], total)
            rows[o, t] = total
