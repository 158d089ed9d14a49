"""Convolution with lanes across output channels, as in channels.py, in any order that segments.py takes.

The order is that of the packed weights and of the offsets. A block's sums stay in registers for one chain; a
chain that starts from a seed, or is added to the sum so far, finds the sums in the first-level cache. The
bits are those of loops/orders.py.

Not every list of steps is computed here (`across`): products that are rounded before they are added, and
chains with a seed of their own that are added to others, are left to tiles.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from refnet.core.engine import Epilogue
from refnet.kernels.channels import (
    ChannelLayout,
    Stretch,
    _store,
    channel_layout,
    locate,
    pack_channels,
    piece,
    shares,
    workspace,
)
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.epilogue import EpilogueTables, tables
from refnet.kernels.geometry import PlaneGeometry, padded_planes
from refnet.kernels.lanes import (
    GROUP,
    HALF,
    ODD,
    chain_group_block,
    chain_half_block,
    chain_odd_block,
    thin_chain_group_block,
    thin_chain_half_block,
    thin_chain_odd_block,
    transpose,
)
from refnet.kernels.memory import empty
from refnet.kernels.narrow import narrow
from refnet.kernels.program import Window
from refnet.kernels.resources import cached, readonly
from refnet.kernels.seeds import ADDEND, BIAS, NEGATIVE_ZERO, ZERO
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.kernels.tiles import ADD_TO, ADDED, BEGIN, COUNT, FROM_ZERO, FUSED, GO_ON, ON, SEED
from refnet.loops.fma import fma
from refnet.loops.jit import njit

if TYPE_CHECKING:
    from refnet.kernels.segments import Segments

Array = npt.NDArray[Any]

LEAST = 1 << 22
"""Multiply-adds from which on a kernel of its own is worth what it takes to compile or load. The shipped
small networks have less, whose kernels the first command compiles."""


def across(segments: Segments) -> bool:
    """Whether this file computes these steps."""
    steps = segments.steps
    chains = steps[steps[:, COUNT] > 0]
    joined = chains[chains[:, ADDED] != 0]
    return bool(chains[:, FUSED].all() and (joined[:, SEED] == ZERO).all())


def ordered_layout(
    x: tuple[int, ...], w: tuple[int, ...], window: Window, segments: Segments
) -> ChannelLayout | None:
    """The layout of a convolution of these shapes, float32; None if another kernel is to compute it."""
    how = channel_layout(x, w, window.stride, window.pad, window.dilation, window.groups)
    if how is None or how.work < LEAST or narrow(w[0] // window.groups, w[1], how.work):
        return None
    return how if across(segments) else None


def conv_across_channels_in_order(
    x: Array,
    w: Array,
    bias: Array | None,
    addend: Array | None,
    how: ChannelLayout,
    groups: int,
    zero: bool,
    segments: Segments,
    threads: int,
    epilogue: Epilogue,
) -> Array:
    """Convolution in this layout; arguments as of `segments.convolve_in_order`, checked."""

    def prepared() -> tuple[Array, Array, Array, Array, bool]:
        ordered = np.ascontiguousarray(w.reshape(w.shape[0], -1)[:, segments.order])
        places = np.indices(w.shape[1:]).reshape(3, -1).T[segments.order]
        return (
            readonly(ordered),
            pack_channels(ordered, groups),
            readonly(how.offsets[segments.order]),
            readonly(np.ascontiguousarray(places, np.int64)),
            bool(np.isfinite(w).all()),
        )

    ordered, packed, offsets, places, finite = cached((w,), ("ordered channels", how, segments), prepared)
    g = how.geometry
    planes = padded_planes(x, (g.pad_h, g.pad_w), 0, threads) if how.padded else x.reshape(x.shape[0], -1)
    y = empty(how.output, x.dtype)
    threads = threads_for(threads, how.work // 16)
    stretches, parts = shares(how, groups, packed.shape[1], threads)
    source = (readonly(x), readonly(planes), ordered, packed, offsets, places)
    shift = np.zeros(w.shape[0], x.dtype) if bias is None else np.ascontiguousarray(bias)
    more = np.zeros(0, x.dtype) if addend is None else np.ascontiguousarray(addend).reshape(-1)
    seeds, padding = (readonly(shift), readonly(more)), (not zero, finite, segments.from_zero)
    items, steps = groups * stretches * parts, tables(epilogue, y.shape, y.dtype)
    order = readonly(segments.steps)
    parallel_for(
        _ordered_channels, items, threads, source, seeds, order, y, tuple(g), padding, stretches, parts, steps
    )
    return y


@njit
def _ordered_channels(
    work: Any,
    source: Any,
    seeds: Any,
    steps: Any,
    y: Any,
    geometry: Any,
    padding: Any,
    stretches: int,
    parts: int,
    epilogue: Any,
) -> None:
    """y (n, outputs, oh, ow). Items: (group, stretch of positions, part of the group's blocks of channels),
    part fastest. source: x, planes; in order: weights (outputs, terms), packed weights, offsets, and each
    term's channel, kernel row and column. seeds: bias, addend. padding: Padding of tiles.py.
    """
    x, planes, w, packed, offsets, places = source
    left_out, finite, from_zero = padding
    geometry, epilogue = PlaneGeometry(*geometry), EpilogueTables(*epilogue)
    groups, blocks, wide = packed.shape[0], packed.shape[1], packed.shape[3]
    per, depth, flat = y.shape[1] // groups, x.shape[1] // groups, y.reshape(-1)
    positions = y.shape[0] * y.shape[2] * y.shape[3]
    plane = (geometry.height + 2 * geometry.pad_h) * (geometry.width + 2 * geometry.pad_w)
    most, sums, rows = workspace(positions, stretches, wide, x)
    windows = np.empty(most + GROUP, np.int64)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            part, group, start, count = piece(item, positions, stretches, parts)
            locate(windows, start, count, planes.shape[1], geometry)
            for b in range(blocks * part // parts, blocks * (part + 1) // parts):
                some = min(wide, per - b * wide)
                stretch = Stretch(group * depth, group * per + b * wide, some, start, count)
                base = group * depth * plane
                _sums(packed[group, b], planes, base, offsets, windows, sums, rows, stretch, seeds, steps, y)
                if geometry.padded and left_out:
                    _again(x, w, places, rows, stretch, geometry, finite, from_zero, seeds, steps)
                _store(rows, flat, y.shape[1], stretch, geometry, epilogue)
        begin, end = next_chunk(work)


@njit
def _sums(
    weights: Any,
    planes: Any,
    base: int,
    offsets: Any,
    windows: Any,
    sums: Any,
    rows: Any,
    stretch: Any,
    seeds: Any,
    steps: Any,
    y: Any,
) -> None:
    """rows[:, :positions]: the sums of the stretch's positions, whose windows begin at planes[base +
    windows[t]].

    sums: for the same with channels side by side. Columns behind the last may hold anything.
    """
    wide, count = weights.shape[1], stretch.positions
    lanes, pitch = wide // 2, rows.shape[1]
    thin, packed = stretch.rows <= lanes, weights.reshape(-1)
    t = done = 0
    while done < count:
        if t < min(done + lanes, count):
            at, left = t * wide, count - t
            size = HALF if left <= HALF else (ODD if left % HALF else GROUP)
            for s in range(steps.shape[0]):
                seed, first, terms = steps[s, SEED], steps[s, BEGIN], steps[s, COUNT]
                added = steps[s, ADDED] != 0
                start = GO_ON
                if terms and seed == ZERO:
                    start = ADD_TO if added else FROM_ZERO
                elif seed != ON:
                    _seed(seed, added, sums, at, wide, t, size, stretch, seeds, y)
                if terms == 0:
                    continue
                to = first * wide
                if size == HALF:
                    if thin:
                        thin_chain_half_block(
                            packed, to, planes, base, offsets, windows, t, sums, at, terms, start, first
                        )
                    else:
                        chain_half_block(
                            packed, to, planes, base, offsets, windows, t, sums, at, terms, start, first
                        )
                elif size == ODD:
                    if thin:
                        thin_chain_odd_block(
                            packed, to, planes, base, offsets, windows, t, sums, at, terms, start, first
                        )
                    else:
                        chain_odd_block(
                            packed, to, planes, base, offsets, windows, t, sums, at, terms, start, first
                        )
                elif thin:
                    thin_chain_group_block(
                        packed, to, planes, base, offsets, windows, t, sums, at, terms, start, first
                    )
                else:
                    chain_group_block(
                        packed, to, planes, base, offsets, windows, t, sums, at, terms, start, first
                    )
            t += size
        else:
            transpose(sums, done * wide, rows, done, pitch)
            if not thin:
                transpose(sums, done * wide + lanes, rows, lanes * pitch + done, pitch)
            done += lanes


@njit
def _seed(
    seed: int, added: bool, sums: Any, at: int, wide: int, t: int, size: int, stretch: Any, seeds: Any, y: Any
) -> None:
    """The sums of `size` positions from t on, which begin at sums[at], = the seed, or += it if added."""
    bias, addend = seeds
    space = y.shape[2] * y.shape[3]
    for p in range(size):
        position = stretch.position + min(t + p, stretch.positions - 1)
        row, place = position // space * y.shape[1] + stretch.output, position % space
        line = sums[at + p * wide : at + p * wide + stretch.rows]
        for o in range(line.size):
            value = sums.dtype.type(0)
            if seed == NEGATIVE_ZERO:
                value = -value
            elif seed == BIAS:
                value = bias[stretch.output + o]
            elif seed == ADDEND:
                value = addend[(row + o) * space + place]
            line[o] = line[o] + value if added else value


@njit
def _again(
    x: Any,
    w: Any,
    places: Any,
    rows: Any,
    stretch: Any,
    geometry: Any,
    finite: bool,
    from_zero: bool,
    seeds: Any,
    steps: Any,
) -> None:
    """Compute anew, one by one, the outputs that may show a product with the padding's zero.

    rows (channels, positions). Where every chain starts at +0, positions that see only zeros are left as
    they are: their sums are +0, or the bias, either way.
    """
    g = geometry
    zeros = 0
    for o in range(stretch.rows):
        row = rows[o, : stretch.positions]
        for t in range(stretch.positions):
            zeros += row[t] == 0
    if finite and zeros == 0:
        return
    space, outputs = g.output_h * g.output_w, w.shape[0]
    for t in range(stretch.positions):
        position = stretch.position + t
        image, place = position // space, position % space
        top = place // g.output_w * g.stride_h - g.pad_h
        left = place % g.output_w * g.stride_w - g.pad_w
        bottom, right = top + (g.kernel_h - 1) * g.dilation_h, left + (g.kernel_w - 1) * g.dilation_w
        if top >= 0 and left >= 0 and bottom < g.height and right < g.width:
            continue
        known = False
        for o in range(stretch.rows):
            if finite and (known or rows[o, t] != 0):
                continue
            output = stretch.output + o
            at = (image * outputs + output) * space + place
            total, live = _defined(
                x[image], w[output], places, stretch.channel, (top, left), geometry, output, at, seeds, steps
            )
            rows[o, t] = total
            known = from_zero and not live


@njit
def _defined(
    x: Any,
    w: Any,
    places: Any,
    base: int,
    corner: Any,
    geometry: Any,
    output: int,
    at: int,
    seeds: Any,
    steps: Any,
) -> tuple[Any, bool]:
    """One output by the definition, and whether it saw a term that is not zero.

    Its window in x (c, h, w) begins at the corner, in the channel base; it is the element `at` of the addend.
    """
    bias, addend = seeds
    zero = x.dtype.type(0)
    total, live = zero, False
    for s in range(steps.shape[0]):
        seed, first, count = steps[s, SEED], steps[s, BEGIN], steps[s, COUNT]
        chain = zero
        if seed == ON:
            chain = total
        elif seed == NEGATIVE_ZERO:
            chain = -zero
        elif seed == BIAS:
            chain = bias[output]
        elif seed == ADDEND:
            chain = addend[at]
        for k in range(first, first + count):
            i = corner[0] + places[k, 1] * geometry.dilation_h
            j = corner[1] + places[k, 2] * geometry.dilation_w
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                value = x[base + places[k, 0], i, j]
                live |= value != 0
                chain = fma(w[k], value, chain)
        total = total + chain if steps[s, ADDED] else chain
    return total, live
