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

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.epilogue import Chain, follow_to
from refnet.kernels.jit import njit, prepared
from refnet.kernels.simd import ROWS, VECTOR, fma
from refnet.kernels.team import enough, next_share, share, split

Array = npt.NDArray[Any]
Pair = tuple[int, int]

GROUP = 14 if VECTOR == 64 else 6
"""Positions per block: with two vectors of sums each, and of weights, they fill the registers."""
HALF = GROUP // 2
STRETCH = 56 * GROUP
"""Positions per work item, whose outputs are written together: long pieces of each channel's plane."""
EARLY = 16
"""How many terms ahead of their use the weights are called into the cache."""
GATHERED = 24
"""What gathering a panel costs, as output channels that are multiplied with it (measured: 20 to 35)."""
SHARES = 16
"""Work items per thread, if there are so many blocks of channels: the last ones are small."""


@dataclass(frozen=True, eq=False)
class Form:
    """Where the terms lie, and the work items.

    output: the shape. padded: whether the planes are a padded copy. sizes: stride (vertical, horizontal), pad,
    dilation, elements from row to row of the planes, from plane to plane, outputs of a piece whose inputs lie
    in one row, outputs of a stretch. offsets: of the terms. items: (image, group, stretch).
    """

    output: tuple[int, int, int, int]
    work: int
    padded: bool
    sizes: Array
    offsets: Array
    items: int


@lru_cache(maxsize=4096)
def form(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, pad: Pair, dilation: Pair, groups: int
) -> Form | None:
    """The form of a convolution of shapes x (n, c, h, w) and w (o, c / groups, kh, kw).

    None where it has no such form (few positions in a row, steps of more than 2, padding beyond all measure),
    or where lanes across positions compute fewer products, those of empty lanes included.
    """
    n, channels, height, wide = x
    outputs, depth, kh, kw = w
    tall, span = height + 2 * pad[0], wide + 2 * pad[1]
    oh = (tall - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (span - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    one_row = stride == (1, 1) and span == ow and pad[0] == 0
    length = oh * ow if one_row else ow
    size, made, planes = n * channels * height * wide, n * outputs * oh * ow, n * channels * tall * span
    if length < HALF or stride[1] > 2 or not (one_row or ow <= STRETCH) or w[0] * depth * kh * kw == 0:
        return None
    if planes > 4 * (size + made):
        return None
    per, lanes = outputs // groups, VECTOR // 4
    in_place = stride == (1, 1) and (kh, kw) != (1, 1)
    positions = (oh - 1) * span + ow if in_place else oh * ow
    panel = (
        (-(-per // ROWS) * ROWS + (0 if in_place else GATHERED)) * -(-positions // (2 * lanes)) * 2 * lanes
    )
    if -(-per // lanes) * lanes * computed(length) * (oh * ow // length) > panel:
        return None
    c, p, q = np.ogrid[:depth, :kh, :kw]
    offsets = ((c * tall + p * dilation[0]) * span + q * dilation[1]).astype(np.int64).reshape(-1)
    stretch = STRETCH if one_row else STRETCH // ow * ow
    sizes = np.array([*stride, *pad, *dilation, span, tall * span, length, stretch], np.int64)
    items = n * groups * -(-(oh * ow) // stretch)
    return Form((n, outputs, oh, ow), made * depth * kh * kw, pad != (0, 0), sizes, offsets, items)


def convolve_across(
    x: Array, planes: Array, w: Array, groups: int, how: Form, threads: int, chain: Chain
) -> Array:
    """Convolution of panel.py's `convolve` in this form; planes: x, padded if the form says so."""
    y = np.empty(how.output, x.dtype)
    packed, finite = prepared((w,), ("channels", groups), lambda: _packed(w, groups))
    tables = chain.tables(how.output, x.dtype)
    threads = enough(threads, how.work // 16)
    parts = min(packed.shape[1], -(-SHARES * threads // how.items)) if threads > 1 else 1
    again = how.padded, finite
    split(
        _channels,
        how.items * parts,
        threads,
        x,
        planes,
        w,
        packed,
        y,
        *again,
        parts,
        how.sizes,
        how.offsets,
        *tables,
    )
    return y


def _packed(w: Array, groups: int) -> tuple[Array, bool]:
    """The packed weights, and whether all of them are finite."""
    return pack_channels(w, groups), bool(np.isfinite(w).all())


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
"""group_block(weights, at, x, at, offsets, sums, terms, step): sums (GROUP, 2 vectors) = +0, then for each term
k, sums[p] = fma(weights[k], x[offsets[k] + p * step], sums[p]); weights (terms, 2 vectors), offsets int64. The
step is 1 or 2; terms >= 1."""
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
def _channels(
    work: Any,
    x: Any,
    planes: Any,
    w: Any,
    packed: Any,
    y: Any,
    padded: bool,
    finite: bool,
    parts: int,
    sizes: Any,
    offsets: Any,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """Items: (image, group, stretch of positions, part of the group's blocks of channels), part fastest."""
    outputs, oh, ow = y.shape[1:]
    groups, blocks, terms, wide = packed.shape
    per, depth, size = outputs // groups, x.shape[1] // groups, oh * ow
    down, step, span, plane, length, stretch = sizes[0], sizes[1], sizes[6], sizes[7], sizes[8], sizes[9]
    stretches = -(-size // stretch)
    sums = np.empty(max(GROUP, wide // 2) * wide, x.dtype)
    rows = np.empty((wide, min(stretch, size) + wide // 2), x.dtype)
    source = planes.reshape(-1)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            part, tile = item % parts, item // parts % stretches
            group, image = item // parts // stretches % groups, item // parts // stretches // groups
            start = tile * stretch
            count = min(stretch, size - start)
            base = image * planes[0].size + group * depth * plane
            for b in range(blocks * part // parts, blocks * (part + 1) // parts):
                weights = packed[group, b].reshape(-1)
                first, some = group * per + b * wide, min(wide, per - b * wide)
                for piece in range(0, count, length):
                    here = start + piece
                    where = base + (here if length > ow else here // ow * down * span)
                    _piece(
                        weights,
                        source,
                        where,
                        offsets,
                        sums,
                        rows,
                        piece,
                        min(length, count - piece),
                        some,
                        step,
                    )
                if padded:
                    spot = (image, group * depth, first, some, start, count)
                    _again(x, w, rows, spot, ow, sizes, finite)
                for o in range(some):
                    row = image * outputs + first + o
                    to, at = row * size + start, o * rows.shape[1]
                    follow_to(y, to, rows, at, count, first + o, row, start, flags, scales, shifts, others)
        begin, end = next_share(work)


@njit
def _piece(
    weights: Any,
    source: Any,
    where: int,
    offsets: Any,
    sums: Any,
    rows: Any,
    to: int,
    size: int,
    some: int,
    step: int,
) -> None:
    """rows[:, to : to + size]: the sums of positions whose first terms lie `step` apart from `where` on.

    The last block may overlap the one before, and writes behind `size`: the next piece comes later.
    """
    terms, pitch = offsets.size, rows.shape[1]
    wide = rows.shape[0]
    lanes = wide // 2
    thin = some <= lanes
    j = 0
    while j < size:
        whole = size - j > HALF and size >= GROUP
        if whole:
            j = min(j, size - GROUP)
            at = where + j * step
            if thin:
                thin_group_block(weights, 0, source, at, offsets, sums, terms, step)
            else:
                group_block(weights, 0, source, at, offsets, sums, terms, step)
        else:
            j = min(j, size - HALF)
            at = where + j * step
            if thin:
                thin_half_block(weights, 0, source, at, offsets, sums, terms, step)
            else:
                half_block(weights, 0, source, at, offsets, sums, terms, step)
        for v in range(0, GROUP if whole else HALF, lanes):
            transpose(sums, v * wide, rows, to + j + v, pitch)
            if not thin:
                transpose(sums, v * wide + lanes, rows, lanes * pitch + to + j + v, pitch)
        j += GROUP if whole else HALF


@njit
def _again(x: Any, w: Any, rows: Any, spot: Any, ow: int, sizes: Any, finite: bool) -> None:
    """Compute anew the outputs that may show a product with the padding's zero."""
    image, base, first, some, start, count = spot
    zeros = 0
    for o in range(some):
        row = rows[o, :count]
        for t in range(count):
            zeros += row[t] == 0
    if finite and zeros == 0:
        return
    sh, sw, ph, pw, dh, dw = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
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
