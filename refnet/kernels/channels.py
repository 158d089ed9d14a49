"""Convolution with lanes across output channels: no lane is empty on small maps, and nothing is gathered.

A block is up to GROUP positions x two vectors of output channels. Per term it reads two vectors of weights
(packed as blocks of channels, channels fastest) and one number per position, which is read directly from the
input or its padded planes and broadcast to all lanes. Each position has an address of its own, so a block's
positions may lie in different rows and images, and any map is divided into blocks that are nearly full.
The order of an output's terms is that of loops/conv.py: one chain of FMAs from +0 over channel, kernel row
and kernel column; it is only computed next to other outputs.

A block's sums have channels side by side, the output has positions side by side, so they are transposed.

On maps with few positions each weight is used only a few times after it was read from memory, and reading
takes most of the time. So the weights of all channels are stored in the order in which they are read, and
are prefetched far ahead of their use, beyond the end of a block. Where all positions fit half a block, two
blocks of channels are computed at once: one row of weights alone is read at two thirds of memory's speed.

Padding: a zero is multiplied there, as in tiles.py. Where that may change the result (a weight is not finite,
or a sum of nonzero inputs is zero) the output is computed again, alone, by the definition (`_again`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.core.engine import ConvGeometry, Epilogue, window_count
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.epilogue import EpilogueTables, Rows, follow, tables
from refnet.kernels.geometry import PlaneGeometry
from refnet.kernels.lanes import (
    GROUP,
    HALF,
    ODD,
    TWO,
    group_block,
    half_block,
    odd_block,
    thin_group_block,
    thin_half_block,
    thin_odd_block,
    transpose,
    two_half_blocks,
)
from refnet.kernels.memory import aligned, empty, scratch
from refnet.kernels.resources import cached, readonly
from refnet.kernels.scans import any_zero
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.kernels.writer import ROWS, VECTOR
from refnet.loops.fma import fma
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

STRETCH = 98 * GROUP
"""Most positions per work item: the outputs of each channel are written in pieces of this length."""
GATHERED = 24
"""Cost of gathering a panel, in output channels multiplied with it (measured: 20 to 35)."""
SHARES = 16
"""Work items per thread, if there are enough blocks of channels: the last ones are small."""
LEAST = 4
"""Fewest work items per thread, if there are enough positions."""


def cropped(shape: tuple[int, ...], w: Array, stride: Pair, pad: Pair, dilation: Pair) -> tuple[Array, Pair]:
    """The weights without the kernel's outer rows and columns that lie in the padding at every position, and
    the padding that remains. If that cannot be expressed, weights and padding are returned unchanged.

    Terms in the padding contribute nothing, so the sums are the same. Of a 3x3 kernel with padding 1 on a map
    of one position only the middle remains.
    """
    rows, columns = (_seen(*axis) for axis in zip(shape[2:], w.shape[2:], stride, pad, dilation, strict=True))
    if (rows[1] - rows[0], columns[1] - columns[0]) == w.shape[2:]:
        return w, pad

    def crop() -> Array:
        return readonly(np.ascontiguousarray(w[:, :, rows[0] : rows[1], columns[0] : columns[1]]))

    return cached((w,), ("cropped", rows, columns), crop), (rows[2], columns[2])


@lru_cache(maxsize=4096)
def _seen(size: int, kernel: int, stride: int, pad: int, dilation: int) -> tuple[int, int, int]:
    """begin, end of the kernel's elements along one axis that ever meet the image; the remaining padding."""
    outputs = window_count(size, kernel, stride, 2 * pad, dilation)
    seen = [
        p for p in range(kernel) if any(0 <= i * stride - pad + p * dilation < size for i in range(outputs))
    ]
    if seen:
        begin, end = seen[0], seen[-1] + 1
        left = pad - begin * dilation
        if left >= 0 and window_count(size, end - begin, stride, 2 * left, dilation) == outputs:
            return begin, end, left
    return 0, kernel, pad


@dataclass(frozen=True, eq=False)
class ChannelLayout:
    """Where the terms lie.

    output: its shape. work: multiply-adds. padded: whether the planes are a copy with padding. offsets
    (terms,): where each term begins in the planes of its group, seen from the window's first element.
    """

    output: tuple[int, int, int, int]
    work: int
    padded: bool
    geometry: PlaneGeometry
    offsets: Array


class Stretch(NamedTuple):
    """The outputs of one block: `rows` channels from `output` on x `positions` from number `position` on.

    Positions run over the output's rows and columns, and then over the images. channel: the group's first
    input channel.
    """

    channel: int
    output: int
    rows: int
    position: int
    positions: int


@lru_cache(maxsize=4096)
def channel_layout(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, pad: Pair, dilation: Pair, groups: int
) -> ChannelLayout | None:
    """The layout of a convolution of shapes x (n, c, h, w) and w (o, c / groups, kh, kw).

    None if there is nothing to compute, if there were far more padding than image, for dense layers (maps of
    one position), and if lanes across positions compute fewer products, counting those of empty lanes.
    """
    n, channels, height, width = x
    outputs, depth, kh, kw = w
    tall, span = height + 2 * pad[0], width + 2 * pad[1]
    oh, ow = ConvGeometry(stride, pad, dilation, groups).output((height, width), (kh, kw))
    image, plane, made = n * channels * height * width, tall * span, n * outputs * oh * ow
    if made * depth * kh * kw == 0 or n * channels * plane > 4 * (image + made):
        return None
    if (tall, span, kh, kw, groups) == (1, 1, 1, 1, 1):
        return None
    in_place = stride == (1, 1)
    if _products(outputs // groups, n * oh * ow) > n * _panels(outputs // groups, oh, ow, span, in_place):
        return None
    return plane_layout(x, w, stride, pad, dilation, groups)


@lru_cache(maxsize=4096)
def plane_layout(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, pad: Pair, dilation: Pair, groups: int
) -> ChannelLayout:
    """The layout of any convolution of these shapes that has an output."""
    n, _, height, width = x
    outputs, depth, kh, kw = w
    plane, span = (height + 2 * pad[0]) * (width + 2 * pad[1]), width + 2 * pad[1]
    oh, ow = ConvGeometry(stride, pad, dilation, groups).output((height, width), (kh, kw))
    in_place, made = stride == (1, 1), n * outputs * oh * ow
    c, p, q = np.ogrid[:depth, :kh, :kw]
    offsets = (c * plane + p * dilation[0] * span + q * dilation[1]).astype(np.int64).reshape(-1)
    padded = pad != (0, 0)
    geometry = PlaneGeometry(
        *(*stride, *pad, *dilation, height, width, kh, kw, oh, ow, ow, int(in_place), int(padded))
    )
    return ChannelLayout((n, outputs, oh, ow), made * depth * kh * kw, padded, geometry, offsets)


def _products(outputs: int, positions: int) -> int:
    """How many products per term are computed with lanes across channels."""
    lanes = VECTOR // 4
    return -(-outputs // lanes) * lanes * -(-positions // HALF) * HALF


def _panels(outputs: int, oh: int, ow: int, span: int, in_place: bool) -> int:
    """The same with lanes across the positions of one image, plus what gathering costs."""
    step = 2 * VECTOR // 4
    positions = (oh - 1) * span + ow if in_place else oh * ow
    return (-(-outputs // ROWS) * ROWS + (0 if in_place else GATHERED)) * -(-positions // step) * step


def conv_across_channels(
    x: Array, planes: Array, w: Array, groups: int, how: ChannelLayout, threads: int, epilogue: Epilogue
) -> Array:
    """Convolution in this layout. planes (n, elements): x, padded if the layout says so."""
    packed, finite = cached((w,), ("channels", groups), lambda: _packed(w, groups))
    y = empty(how.output, x.dtype)
    threads = threads_for(threads, how.work // 16)
    stretches, parts = shares(how, groups, packed.shape[1], threads)
    source = (readonly(x), readonly(planes), readonly(w), packed, how.offsets)
    items, geometry = groups * stretches * parts, tuple(how.geometry)
    steps = tables(epilogue, y.shape, y.dtype)
    parallel_for(_channels, items, threads, source, y, geometry, finite, stretches, parts, steps)
    return y


def shares(how: ChannelLayout, groups: int, blocks: int, threads: int) -> tuple[int, int]:
    """The number of stretches that the positions of all images are divided into, and the number of parts of a
    group's blocks of channels.
    """
    positions = how.output[0] * how.output[2] * how.output[3]
    stretches = -(-positions // STRETCH)
    if threads == 1:
        return stretches, 1
    parts = min(blocks, -(-SHARES * threads // (groups * stretches)))
    least = -(-LEAST * threads // (groups * parts))
    return max(stretches, min(least, -(-positions // GROUP))), parts


def _packed(w: Array, groups: int) -> tuple[Array, bool]:
    """The packed weights, and whether all of them are finite."""
    return pack_channels(w, groups), bool(np.isfinite(w).all())


def pack_channels(w: Array, groups: int) -> Array:
    """w (o, c / groups, kh, kw) as (groups, blocks, terms, two vectors of channels), zeros at the end."""
    per, wide = w.shape[0] // groups, 2 * VECTOR // w.itemsize
    blocks = -(-per // wide)
    terms = w[0].size
    packed = aligned((groups, blocks, terms, wide), w.dtype)
    channels = w.reshape(groups, per, terms)
    whole = per // wide
    packed[:, :whole] = channels[:, : whole * wide].reshape(groups, whole, wide, terms).swapaxes(2, 3)
    if whole < blocks:
        packed[:, whole, :, : per - whole * wide] = channels[:, whole * wide :].swapaxes(1, 2)
    return packed


@njit
def _channels(
    work: Any, source: Any, y: Any, geometry: Any, finite: bool, stretches: int, parts: int, epilogue: Any
) -> None:
    """y (n, outputs, oh, ow). Items: (group, stretch of positions, part of the group's blocks of channels),
    part fastest. source: x, planes, weights, packed weights, offsets.
    """
    x, planes, w, packed, offsets = source
    geometry, epilogue = PlaneGeometry(*geometry), EpilogueTables(*epilogue)
    groups, blocks, wide = packed.shape[0], packed.shape[1], packed.shape[3]
    per, depth, flat = y.shape[1] // groups, x.shape[1] // groups, y.reshape(-1)
    positions, lanes = y.shape[0] * y.shape[2] * y.shape[3], wide // 2
    plane = (geometry.height + 2 * geometry.pad_h) * (geometry.width + 2 * geometry.pad_w)
    most, sums, rows = workspace(positions, stretches, wide, x)
    windows = np.empty(most + GROUP, np.int64)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            part, group, start, count = piece(item, positions, stretches, parts)
            locate(windows, start, count, planes.shape[1], geometry)
            first, last = blocks * part // parts, blocks * (part + 1) // parts
            for b in range(first, last):
                some = min(wide, per - b * wide)
                stretch = Stretch(group * depth, group * per + b * wide, some, start, count)
                base = group * depth * plane
                odd = (b - first) % 2
                if TWO and count <= HALF and (odd or b + 1 < last):
                    if not odd:
                        two_sums(packed[group, b : b + 2], planes, base, offsets, windows, sums)
                    turned(sums, odd * GROUP * wide, rows, 0, lanes, False)
                else:
                    _sums(packed[group, b], planes, base, offsets, windows, sums, rows, count, some <= lanes)
                if geometry.padded:
                    _again(x, w, rows, stretch, geometry, finite)
                _store(rows, flat, y.shape[1], stretch, geometry, epilogue)
        begin, end = next_chunk(work)


@njit
def workspace(positions: int, stretches: int, wide: int, like: Any) -> tuple[int, Any, Any]:
    """What a thread needs for a stretch: the most positions that it has, sums (positions, wide) in one row,
    and rows (wide, positions); both have room for the positions that a block has more.
    """
    units, lanes = -(-positions // GROUP), wide // 2
    most = min(positions, -(-units // stretches) * GROUP)
    pitch = -(-most // lanes) * lanes
    return most, scratch((pitch + GROUP) * wide, like), scratch(wide * pitch, like).reshape(wide, pitch)


@njit
def piece(item: int, positions: int, stretches: int, parts: int) -> tuple[int, int, int, int]:
    """The part, the group, the first position and the number of positions of an item, part fastest."""
    part, number, group = item % parts, item // parts % stretches, item // parts // stretches
    units = -(-positions // GROUP)
    start = units * number // stretches * GROUP
    return part, group, start, min(positions, units * (number + 1) // stretches * GROUP) - start


@njit
def locate(windows: Any, start: int, count: int, image_size: int, geometry: Any) -> None:
    """windows[t]: where the window of position start + t begins in the planes, image_size elements an image.

    The last one is repeated for positions that a block has more.
    """
    g = geometry
    image, i, j = start // (g.output_h * g.output_w), start // g.output_w % g.output_h, start % g.output_w
    at, row = 0, g.stride_h * (g.width + 2 * g.pad_w)
    for t in range(count):
        at = image * image_size + i * row + j * g.stride_w
        windows[t] = at
        j += 1
        if j == g.output_w:
            i, j = i + 1, 0
        if i == g.output_h:
            image, i = image + 1, 0
    windows[count : count + GROUP] = at


@njit
def _sums(
    weights: Any,
    planes: Any,
    base: int,
    offsets: Any,
    windows: Any,
    sums: Any,
    rows: Any,
    count: int,
    thin: bool,
) -> None:
    """rows[:, :count]: the sums of the positions whose windows begin at planes[base + windows[t]].

    sums: for the same with channels side by side. thin: only the first vector of channels. Columns behind
    the last may hold anything.
    """
    terms, wide = weights.shape
    lanes = wide // 2
    packed = weights.reshape(-1)
    t = done = 0
    while done < count:
        if t < min(done + lanes, count):
            at, left = t * wide, count - t
            if left <= HALF:
                if thin:
                    thin_half_block(packed, 0, planes, base, offsets, windows, t, sums, at, terms)
                else:
                    half_block(packed, 0, planes, base, offsets, windows, t, sums, at, terms)
                t += HALF
            elif left % HALF:
                if thin:
                    thin_odd_block(packed, 0, planes, base, offsets, windows, t, sums, at, terms)
                else:
                    odd_block(packed, 0, planes, base, offsets, windows, t, sums, at, terms)
                t += ODD
            else:
                if thin:
                    thin_group_block(packed, 0, planes, base, offsets, windows, t, sums, at, terms)
                else:
                    group_block(packed, 0, planes, base, offsets, windows, t, sums, at, terms)
                t += GROUP
        else:
            turned(sums, done * wide, rows, done, lanes, thin)
            done += lanes


@njit
def two_sums(weights: Any, planes: Any, base: int, offsets: Any, windows: Any, sums: Any) -> None:
    """The sums of up to HALF positions with two blocks of channels, the second ones GROUP * wide behind."""
    _, terms, wide = weights.shape
    packed, beside = weights.reshape(-1), GROUP * wide
    two_half_blocks(packed, 0, planes, base, offsets, windows, 0, sums, 0, terms, terms * wide, beside)


@njit
def turned(sums: Any, at: int, rows: Any, to: int, lanes: int, thin: bool) -> None:
    """Two vectors, or thin one, of as many positions as a vector has lanes go to columns of rows."""
    pitch = rows.shape[1]
    transpose(sums, at, rows, to, pitch)
    if not thin:
        transpose(sums, at + lanes, rows, lanes * pitch + to, pitch)


@njit
def _store(rows: Any, y: Any, outputs: int, stretch: Any, geometry: Any, epilogue: Any) -> None:
    """Rows (channels, positions) go to y (n * outputs * oh * ow,) through the epilogue."""
    flags, scales, shifts, others, factors = epilogue
    size = geometry.output_h * geometry.output_w
    t = 0
    while t < stretch.positions:
        image, at = (stretch.position + t) // size, (stretch.position + t) % size
        run, row = min(stretch.positions - t, size - at), image * outputs + stretch.output
        piece = Rows(stretch.rows, run, stretch.output, row, at)
        to, of = (row * size + at, size), (t, rows.shape[1])
        follow(y, to, rows, of, piece, flags, scales, shifts, others, factors)
        t += run


@njit
def _again(x: Any, w: Any, rows: Any, stretch: Any, geometry: Any, finite: bool) -> None:
    """Compute anew, one by one, the outputs that may show a product with the padding's zero.

    rows (channels, positions). Positions that see only zeros are left as they are: their sums are +0 either
    way.
    """
    g = geometry
    if finite and not any_zero(rows, 0, stretch.rows, stretch.positions, rows.shape[1], rows.dtype.type(0)):
        return
    for t in range(stretch.positions):
        position = stretch.position + t
        image, i, j = (
            position // (g.output_h * g.output_w),
            position // g.output_w % g.output_h,
            position % g.output_w,
        )
        top, left = i * g.stride_h - g.pad_h, j * g.stride_w - g.pad_w
        bottom, right = top + (g.kernel_h - 1) * g.dilation_h, left + (g.kernel_w - 1) * g.dilation_w
        if top >= 0 and left >= 0 and bottom < g.height and right < g.width:
            continue
        known = False
        for o in range(stretch.rows):
            if finite and (known or rows[o, t] != 0):
                continue
            weights = w[stretch.output + o]
            total, live = _defined(x[image], weights, stretch.channel, top, left, g.dilation_h, g.dilation_w)
            rows[o, t] = total
            known = not live


@njit
def _defined(
    x: Any, w: Any, base: int, top: int, left: int, dilation_h: int, dilation_w: int
) -> tuple[Any, bool]:
    """One output by the definition, its window in x (c, h, w) beginning at (top, left), and whether it saw a
    term that is not zero. w (channels, kh, kw); base: the first channel.
    """
    total, live = x.dtype.type(0), False
    for c in range(w.shape[0]):
        for p in range(w.shape[1]):
            for q in range(w.shape[2]):
                i, j = top + p * dilation_h, left + q * dilation_w
                if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                    value = x[base + c, i, j]
                    live |= value != 0
                    total = fma(w[c, p, q], value, total)
    return total, live
