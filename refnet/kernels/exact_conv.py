"""Golden's convolution: sums in float64 whose rounding is decided while they are in the cache.

    decided ── planes in float64, norms of the windows
            └─ work items: chains (exact_block.py) ── transposed ── bias, addend, decision (decide_rows)

The float64 sums, their norms and their errors never lie in memory as whole arrays: an item computes the sums
of some positions x two vectors of output channels, as channels.py does, and writes float32 and what is
undecided. The order of the terms is that of channel, kernel row and kernel column, in chains of CHAIN terms
that are added in turn. No loop defines these sums: any order would do, as their error is bounded. What is
written is the one correct float32, or is marked as undecided.

Padding: zeros are multiplied there, which adds nothing to a sum if all weights are finite; others are left to
segments.py.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.core.engine import window_count
from refnet.kernels.channels import STRETCH, ChannelLayout, cropped, locate, piece, plane_layout, workspace
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.decisions import squares
from refnet.kernels.exact_block import (
    WIDE,
    decide_pass,
    exact_group_block,
    exact_half_block,
    exact_odd_block,
    far_group_block,
    far_half_block,
    far_odd_block,
    widen_groups,
)
from refnet.kernels.exact_steps import Tables, follow
from refnet.kernels.geometry import PlaneGeometry
from refnet.kernels.lanes import GROUP, HALF, ODD, transpose
from refnet.kernels.memory import aligned, empty, scratch
from refnet.kernels.resources import cached, readonly
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.kernels.writer import VECTOR
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

LANES = VECTOR // 8
"""Lanes of a vector of float64."""
CHAIN = 128
"""Terms of a chain: the weights of a block, 16 KiB with vectors of 512 bits, stay in the first-level
cache."""
ROOM = 768 << 10
"""Bytes of float64 data that a work item reads again for each block of channels: they stay in the
second-level cache."""
SHARES, LEAST = 4, 2
"""As in channels.py: work items per thread."""


class Bounds(NamedTuple):
    """What decides: norms (n * groups * positions,) of the windows, scale (outputs,), the norms of the
    weights times the error factor; bias (outputs,) float64 and addend (as y, flat) float32, or (0,); factor,
    the error factor for these. steps: what follows the rounded sums (exact_steps.Tables).
    """

    norms: Any
    scale: Any
    bias: Any
    addend: Any
    factor: float
    steps: Any


@lru_cache(maxsize=4096)
def suits(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, pad: Pair, dilation: Pair, groups: int
) -> bool:
    """Whether lanes across channels are mostly full, there is an output, and not far more padding than
    image.
    """
    per = w[0] // groups
    if w[0] == 0 or w[1] == 0 or x[0] == 0 or 4 * per < 3 * (-(-per // (2 * LANES)) * 2 * LANES):
        return False
    spans = [(k - 1) * d + 1 for k, d in zip(w[2:], dilation, strict=True)]
    padded = [size + 2 * p for size, p in zip(x[2:], pad, strict=True)]
    if any(size < span for size, span in zip(padded, spans, strict=True)):
        return False
    how = plane_layout(x, w, stride, pad, dilation, groups)
    made = how.output[0] * how.output[1] * how.output[2] * how.output[3]
    image = x[0] * x[1] * x[2] * x[3]
    return x[0] * x[1] * padded[0] * padded[1] <= 4 * (image + made)


def additions(w: tuple[int, ...]) -> int:
    """The most additions (an FMA counts as one) that a term passes, for weights of this shape (cropped or
    not).
    """
    terms = w[1] * w[2] * w[3]
    return min(terms, CHAIN) + max(0, -(-terms // CHAIN) - 1)


def decided(
    x: Array,
    w: Array,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    weight_norms: Array,
    bias: Array,
    addend: Array,
    factor: float,
    threads: int,
    steps: Tables = (),
) -> tuple[Array, Array]:
    """(y, open): as decisions.decide, of a convolution of float32 x (n, c, h, w), w (o, c / groups, kh,
    kw).

    Only where it `suits`, for finite weights. weight_norms (o,); bias (o,) float64 and addend (as y) float32,
    or (0,). factor: the error factor for `additions(w.shape)`, those of bias and addend, and
    2 more (decide_pass). steps: what follows the rounded sums.
    """
    norms = window_norms(x, w.shape[2:], stride, pad, dilation, groups, threads)
    w, pad = cropped(x.shape, w, stride, pad, dilation)
    how = plane_layout(x.shape, w.shape, stride, pad, dilation, groups)
    packed = cached((w,), ("chains", groups), lambda: readonly(pack_chains(w, groups)))
    panel = w.shape[2:] == (1, 1) and stride == (1, 1) and pad == (0, 0)
    planes = readonly(x) if panel else wide_planes(x, pad, threads)
    y, unsure = empty(how.output, np.float32), empty((prod(how.output),), np.bool_)
    threads = threads_for(threads, how.work // 8)
    stretches, parts = shares(how, groups, packed.shape[1], threads)
    bounds = (norms.reshape(-1), weight_norms * factor, bias, addend.reshape(-1), factor, steps)
    source = (planes.reshape(x.shape[0], -1), packed, how.offsets)
    items, geometry = groups * stretches * parts, tuple(how.geometry)
    kernel = _from_panels if panel else _from_planes
    parallel_for(kernel, items, threads, source, y, unsure, geometry, stretches, parts, bounds)
    return y, unsure


def pack_chains(w: Array, groups: int) -> Array:
    """w (o, c / groups, kh, kw) as (groups, blocks, terms, as many channels as two vectors of float64 have),
    with zeros at the end."""
    per, wide, terms = w.shape[0] // groups, WIDE * LANES, w[0].size
    blocks = -(-per // wide)
    padded = np.zeros((groups, blocks * wide, terms), w.dtype)
    padded[:, :per] = w.reshape(groups, per, terms)
    packed = aligned((groups, blocks, terms, wide), w.dtype)
    packed[...] = padded.reshape(groups, blocks, wide, terms).swapaxes(2, 3)
    return packed


def shares(how: ChannelLayout, groups: int, blocks: int, threads: int) -> tuple[int, int]:
    """The number of stretches of positions, and the number of parts of a group's blocks of channels."""
    positions = how.output[0] * how.output[2] * how.output[3]
    area = how.geometry.stride_h * how.geometry.stride_w
    depth = max(1, how.offsets.size // (how.geometry.kernel_h * how.geometry.kernel_w))
    room = ROOM // (8 * depth * area) // GROUP * GROUP
    stretches = -(-positions // max(6 * GROUP, min(STRETCH, room)))
    if threads == 1:
        return stretches, 1
    parts = min(blocks, -(-SHARES * threads // (groups * stretches)))
    least = -(-LEAST * threads // (groups * parts))
    return max(stretches, min(least, -(-positions // GROUP))), parts


def wide_planes(x: Array, pad: Pair, threads: int) -> Array:
    """x (n, c, h, w) as float64 (n, c * (h + 2 ph) * (w + 2 pw)): zeros around each plane."""
    n, c, h, w = x.shape
    planes = empty((n * c, h + 2 * pad[0], w + 2 * pad[1]), np.float64)
    parallel_for(_wide, n * c, threads_for(threads, x.size), readonly(x.reshape(n * c, h, w)), planes, *pad)
    return planes.reshape(n, -1)


@njit
def _wide(work: Any, x: Any, planes: Any, ph: int, pw: int) -> None:
    """Items: planes of x (n * c, h, w)."""
    h, w = x.shape[1:]
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            plane = planes[item]
            for i in range(ph):
                for row in (plane[i], plane[ph + h + i]):
                    for j in range(row.size):
                        row[j] = 0
            if pw == 0:  # one loop over all rows
                source, target = x[item].reshape(-1), plane[ph : ph + h].reshape(-1)
                for j in range(source.size):
                    target[j] = source[j]
                continue
            for i in range(h):
                row = plane[ph + i]
                for j in range(pw):
                    row[j] = 0
                    row[pw + w + j] = 0
                source, target = x[item, i], row[pw : pw + w]
                for j in range(source.size):
                    target[j] = source[j]
        begin, end = next_chunk(work)


def window_norms(
    x: Array, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, groups: int, threads: int
) -> Array:
    """(n, groups, oh, ow): the Euclidean norms of the windows of each group's channels of x (n, c, h, w)."""
    sums = squares(x, groups, threads)
    axes = zip(x.shape[2:], kernel, stride, pad, dilation, strict=True)
    oh, ow = (window_count(size, k, s, 2 * p, d) for size, k, s, p, d in axes)
    return square_sums(sums, kernel, stride, pad, dilation, (oh, ow), threads)


def square_sums(
    sums: Array, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, output: Pair, threads: int
) -> Array:
    """(n, groups, *output): roots of the sums over windows of sums (n, groups, h, w)."""
    n, g, h, w = sums.shape
    y = empty((n, g, *output), np.float64)
    rows, planes = y.reshape(n * g, *output), sums.reshape(n * g, h, w)
    threads = threads_for(threads, y.size * kernel[0] * kernel[1])
    parallel_for(_norms, n * g, threads, planes, rows, kernel, stride, pad, dilation)
    return y


@njit
def _norms(work: Any, x: Any, y: Any, kernel: Any, stride: Any, pad: Any, dilation: Any) -> None:
    """y (planes, oh, ow) = roots of the sums over windows of x (planes, h, w). Items: planes."""
    height, width = x.shape[1:]
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            plane = y[item]
            for i in range(plane.shape[0]):
                line = plane[i]
                line[:] = 0
                for p in range(kernel[0]):
                    row = i * stride[0] - pad[0] + p * dilation[0]
                    if row < 0 or row >= height:
                        continue
                    values = x[item, row]
                    for q in range(kernel[1]):
                        first = q * dilation[1] - pad[1]
                        low = max(0, -(first // stride[1]))
                        high = max(low, min(line.size, (width - first + stride[1] - 1) // stride[1]))
                        for j in range(low, high):
                            line[j] += values[first + j * stride[1]]
                for j in range(line.size):
                    line[j] = np.sqrt(line[j])
        begin, end = next_chunk(work)


@njit
def _from_planes(
    work: Any, source: Any, y: Any, unsure: Any, geometry: Any, stretches: int, parts: int, bounds: Any
) -> None:
    """y (n, outputs, oh, ow). Items: (group, stretch of positions, part of the group's blocks of channels),
    part fastest. source: planes, packed weights, offsets.
    """
    planes, packed, offsets = source
    geometry, bounds = PlaneGeometry(*geometry), Bounds(*bounds)
    groups, blocks, wide = packed.shape[0], packed.shape[1], packed.shape[3]
    size = y.shape[2] * y.shape[3]
    per, positions = y.shape[1] // groups, y.shape[0] * size
    group_size = planes.shape[1] // groups
    most, sums, rows = workspace(positions, stretches, wide, planes)
    windows = np.empty(most + GROUP, np.int64)
    own = scratch(CHAIN * wide, planes)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            part, group, start, count = piece(item, positions, stretches, parts)
            locate(windows, start, count, planes.shape[1], geometry)
            for b in range(blocks * part // parts, blocks * (part + 1) // parts):
                add_chains(packed[group, b], own, planes, group * group_size, offsets, windows, sums, count)
                turn(sums, rows, count)
                _decide_block(rows, start, count, group, group * per + b * wide, per, y, unsure, bounds)
        begin, end = next_chunk(work)


@njit
def _from_panels(
    work: Any, source: Any, y: Any, unsure: Any, geometry: Any, stretches: int, parts: int, bounds: Any
) -> None:
    """As _from_planes, for kernels of one element: x is widened into a panel, in the order of reading."""
    x, packed, _ = source
    geometry, bounds = PlaneGeometry(*geometry), Bounds(*bounds)
    groups, blocks, terms, wide = packed.shape
    size = y.shape[2] * y.shape[3]
    per, positions = y.shape[1] // groups, y.shape[0] * size
    most, sums, rows = workspace(positions, stretches, wide, bounds.norms)
    own = scratch(CHAIN * wide, bounds.norms)
    column = terms * GROUP + GROUP  # elements from one group of positions to the next
    panel = scratch((-(-most // GROUP) + 1) * column, bounds.norms)
    offsets, windows = np.arange(terms) * GROUP, np.arange(most + GROUP)
    for t in range(windows.size):
        windows[t] = t // GROUP * column + t % GROUP
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            part, group, start, count = piece(item, positions, stretches, parts)
            t = 0
            while t < count:
                image, at = (start + t) // size, (start + t) % size
                run = min(count - t, size - at)
                _fill(panel, t, x[image], group * terms * size + at, run, terms, size, column)
                t += run
            for b in range(blocks * part // parts, blocks * (part + 1) // parts):
                add_chains(packed[group, b], own, panel, 0, offsets, windows, sums, count)
                turn(sums, rows, count)
                _decide_block(rows, start, count, group, group * per + b * wide, per, y, unsure, bounds)
        begin, end = next_chunk(work)


@njit
def _fill(panel: Any, first: int, x: Any, begin: int, run: int, terms: int, size: int, column: int) -> None:
    """Positions `first` on of the panel (groups of GROUP positions, terms, GROUP) = x[begin + k * size
    ...].
    """
    head = min(run, -first % GROUP)  # then come whole groups
    many = (run - head) // GROUP
    start, middle = first // GROUP * column + first % GROUP, (first + head) // GROUP * column
    for k in range(terms):
        at = begin + k * size
        for i in range(head):
            panel[start + k * GROUP + i] = x[at + i]
        at += head
        widen_groups(panel, middle + k * GROUP, column, x, at, many)
        for i in range(run - head - many * GROUP):
            panel[middle + many * column + k * GROUP + i] = x[at + many * GROUP + i]


@njit
def add_chains(
    weights: Any, own: Any, data: Any, base: int, offsets: Any, windows: Any, sums: Any, count: int
) -> None:
    """sums (positions, two vectors): of the positions whose windows begin at data[base + windows[t]].

    weights (terms, two vectors) float32; own (CHAIN, two vectors), flat, for those of a chain, in float64. Up
    to a block of sums behind the last may hold anything.
    """
    terms, wide = weights.shape
    packed, flat = weights.reshape(-1), data.reshape(-1)
    for first in range(0, terms, CHAIN):
        some, start = min(CHAIN, terms - first), 2 if first else 0
        source, target = packed[first * wide : (first + some) * wide], own[: some * wide]
        for i in range(target.size):
            target[i] = source[i]
        add_chain(own, 0, flat, base, offsets, first, windows, sums, 0, count, some, start, False)


@njit
def add_chain(
    weights: Any, w: int, data: Any, base: int, offsets: Any, first: int, windows: Any, sums: Any, to: int,
    count: int, terms: int, start: int, far: bool,
) -> None:  # fmt: skip
    """One chain of `count` positions; weights from the element w, offsets from `first`, sums from `to` on.
    far: whether the weights come from memory. The rest is as for exact_group_block.
    """
    wide, t = WIDE * LANES, 0
    while t < count:
        at, left = to + t * wide, count - t
        if left <= HALF:
            if far:
                far_half_block(weights, w, data, base, offsets, windows, t, sums, at, terms, start, first)
            else:
                exact_half_block(weights, w, data, base, offsets, windows, t, sums, at, terms, start, first)
            t += HALF
        elif left % HALF:
            if far:
                far_odd_block(weights, w, data, base, offsets, windows, t, sums, at, terms, start, first)
            else:
                exact_odd_block(weights, w, data, base, offsets, windows, t, sums, at, terms, start, first)
            t += ODD
        else:
            if far:
                far_group_block(weights, w, data, base, offsets, windows, t, sums, at, terms, start, first)
            else:
                exact_group_block(weights, w, data, base, offsets, windows, t, sums, at, terms, start, first)
            t += GROUP


@njit
def turn(sums: Any, rows: Any, count: int) -> None:
    """rows (two vectors of channels, pitch) = sums (positions, two vectors), so many positions and a rest."""
    wide, pitch = rows.shape
    lanes = wide // 2
    for t in range(0, count, lanes):
        transpose(sums, t * wide, rows, t, pitch)
        transpose(sums, t * wide + lanes, rows, lanes * pitch + t, pitch)


@njit
def _decide_block(
    rows: Any, start: int, count: int, group: int, channel: int, per: int, y: Any, unsure: Any, bounds: Any
) -> None:
    """decide_rows for `count` positions, from `start` on, of the group's channels from `channel` on.

    per: channels of a group. The positions may be of several images.
    """
    outputs, size = y.shape[1], y.shape[2] * y.shape[3]
    groups, some = outputs // per, min(rows.shape[0], (group + 1) * per - channel)
    t = 0
    while t < count:
        image, at = (start + t) // size, (start + t) % size
        run = min(count - t, size - at)
        place = (image * groups + group) * size + at, channel, image, at, size
        decide_rows(rows, t, run, some, y.reshape(-1), unsure, place, outputs, bounds)
        t += run


@njit
def decide_rows(
    rows: Any,
    begin: int,
    run: int,
    some: int,
    y: Any,
    unsure: Any,
    place: Any,
    outputs: int,
    bounds: Any,
) -> None:
    """rows[:some, begin : begin + run], sums of neighbouring positions of one image, go to y with the bias
    and the addend, then the steps, and what is undecided is marked.

    place: where their norms begin, the first row's channel, image, first position, positions of an image.
    """
    norm, channel, image, at, size = place
    pitch = rows.shape[1]
    for o in range(channel, channel + some):
        to = (image * outputs + o) * size + at
        shift = bounds.bias[o] if bounds.bias.size else 0.0
        other = to if bounds.addend.size else -1
        decide_pass(
            y, to, unsure, rows, (o - channel) * pitch + begin, bounds.norms, norm, bounds.scale[o], shift,
            bounds.factor * np.abs(shift), bounds.addend, other, bounds.factor, run,
        )  # fmt: skip
        follow(y, to, y, to, unsure, o, run, bounds.steps)
