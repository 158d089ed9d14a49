"""Convolution with few outputs per group, such as depthwise: lanes across positions, planes in the cache.

Such a convolution multiplies each number that it reads only a few times, so it lives on the speed of reading.
A work item is a band: some rows of one group's outputs. It copies the rows of the image that they see into a
buffer of the thread's own, small enough for the first-level cache, with zeros where the padding is:

    image rows ── copied ──> one plane per (channel, row modulo stride, column modulo stride)

In these planes a step of one position is a step of one element, whatever the stride. So each term is one
address for the whole band, a row of outputs continues in the next one (the elements between the rows are
computed and left out), and the vectors are full on small maps too. A block of simd.py's kind then goes
through the terms with its sums in registers. The order of summation is data, as in segments.py; the bits are
those of loops/conv.py with the same order.

Padding: a zero is multiplied there, as in tiles.py. Where terms in the padding are to be left out, and that
may change the result, narrow_padding.py computes the output again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.epilogue import EpilogueTables, Rows, follow
from refnet.kernels.geometry import PlaneGeometry
from refnet.kernels.memory import scratch
from refnet.kernels.narrow_block import (
    BROAD,
    LONG,
    SHORT,
    SOME,
    broad_block,
    close_up,
    lay_even,
    lay_odd,
    lay_rows,
    long_block,
    rounded_block,
    rounded_broad_block,
    short_block,
)
from refnet.kernels.narrow_padding import again
from refnet.kernels.seeds import ADDEND, BIAS, NEGATIVE_ZERO, ZERO
from refnet.kernels.tiles import (
    ADD_TO,
    ADDED,
    BEGIN,
    COUNT,
    FROM_ZERO,
    FUSED,
    GO_ON,
    ON,
    SEED,
    Padding,
    Summation,
)
from refnet.kernels.writer import VECTOR
from refnet.loops.jit import njit

Array = npt.NDArray[Any]

SHALLOW = 8
"""Channels of a group that bands are good for: laying more planes takes longer than is won."""
LEAST = 1 << 18
"""Multiply-adds from which on a kernel of its own is worth what it takes to compile or load. The shipped
networks have less, whose kernels the first command compiles."""
SHARES = 8
"""Work items per thread and image, if there are enough groups."""
BUFFER = 24 << 10
"""Bytes of a band's planes, if one row of outputs needs no more: most of a first-level cache
(measured: 16 to 40 KiB are alike, 6 KiB are slower)."""


class BandPlan(NamedTuple):
    """How the planes of a band lie in the buffer.

    bands: of an image's output rows. rows: of outputs in a band, but the last. sets: of groups that a work
    item computes, one after another. depth, per: channels and outputs per group. pitch: elements from row to
    row of a plane. plane: elements of a plane; channel: of all planes of a channel. block: outputs per block.
    """

    bands: int
    rows: int
    sets: int
    depth: int
    per: int
    pitch: int
    plane: int
    channel: int
    block: int


def narrow(outputs: int, depth: int, work: int) -> bool:
    """Whether bands are worth it for groups of so many outputs and channels, and `work` multiply-adds in all.

    Up to half a vector of outputs, measured with vectors of 512 bits: with more, lanes across channels are
    fuller.
    """
    return depth <= SHALLOW and outputs <= VECTOR // 8 and work >= LEAST


@lru_cache(maxsize=4096)
def band_plan(
    geometry: PlaneGeometry, groups: int, depth: int, per: int, itemsize: int, threads: int
) -> BandPlan:
    """The plan of a convolution in so many groups, each with `depth` channels and `per` outputs."""
    g = geometry
    tall, wide = (g.kernel_h - 1) * g.dilation_h + 1, (g.kernel_w - 1) * g.dilation_w + 1
    pitch = -(-((g.output_w - 1) * g.stride_w + wide) // g.stride_w)
    row = depth * g.stride_w * pitch * itemsize  # bytes of a row of the image, of all channels
    seen = max(1, BUFFER // row)
    rows = min(max(1, (seen - tall) // g.stride_h + 1), max(1, g.output_h))
    rows = -(-g.output_h // -(-g.output_h // rows))  # as many in each band as can be
    bands = -(-g.output_h // rows)
    plane = -(-((rows - 1) * g.stride_h + tall) // g.stride_h) * pitch
    channel = max(1, g.stride_h * g.stride_w * plane)
    together = min(max(1, BUFFER // (depth * channel * itemsize)), -(-groups // (SHARES * threads)))
    sets = -(-groups // max(1, together))
    return BandPlan(bands, rows, sets, depth, per, pitch, plane, channel, 1 if per < SOME - 1 else SOME)


def band_offsets(geometry: PlaneGeometry, plan: BandPlan, terms: Array) -> Array:
    """Where each of the terms (terms, 3: channel, kernel row, kernel column) begins in the buffer."""
    g = geometry
    c, p, q = terms.T
    p, q = p * g.dilation_h, q * g.dilation_w
    number = p % g.stride_h * g.stride_w + q % g.stride_w
    at = c * plan.channel + number * plan.plane + p // g.stride_h * plan.pitch + q // g.stride_w
    return np.ascontiguousarray(at, np.int64)


def pack_narrow(w: Array, groups: int, block: int) -> Array:
    """w (outputs, terms), in order, as (groups * blocks, terms, outputs of a block), zeros at the end."""
    outputs, terms = w.shape
    per = outputs // groups
    blocks = -(-per // block)
    packed = np.zeros((groups, blocks * block, terms), w.dtype)
    packed[:, :per] = w.reshape(groups, per, terms)
    return np.ascontiguousarray(packed.reshape(groups * blocks, block, terms).swapaxes(1, 2))


class Place(NamedTuple):
    """The outputs of one work item: of `groups` groups from `group` on x `rows` rows from `row` on, of one
    image.

    outputs: of the whole convolution. pitch: elements from output to output of the sums; held: from group to
    group.
    """

    image: int
    outputs: int
    group: int
    groups: int
    row: int
    rows: int
    pitch: int
    held: int


@njit
def narrow_bands(
    work: Any, source: Any, summation: Any, y: Any, geometry: Any, plan: Any, padding: Any, epilogue: Any
) -> None:
    """y (n, outputs, oh, ow). Items: (image, set of groups, band), band fastest.

    source: x (n, c, h, w), weights (outputs, terms) in order, terms (terms, 3), offsets (terms,) in the
    buffer, `least_exact` of the weights (outputs,). summation: Summation, its weights those of `pack_narrow`.
    What one step of an item writes, the next step reads, for all groups of the item: a processor waits where
    it reads what it has just written.
    """
    x, ordered, terms, offsets, least = source
    summation, geometry, plan = Summation(*summation), PlaneGeometry(*geometry), BandPlan(*plan)
    padding, epilogue = Padding(*padding), EpilogueTables(*epilogue)
    groups, lanes = y.shape[1] // plan.per, VECTOR // x.itemsize
    flat, pixels, weights = y.reshape(-1), x.reshape(-1), summation.weights.reshape(-1)
    blocks = -(-plan.per // plan.block)
    positions = (plan.rows - 1) * plan.pitch + geometry.output_w
    pitch = -(-positions // (LONG * lanes)) * LONG * lanes
    most, held = -(-groups // plan.sets), blocks * plan.block * pitch
    planes = scratch(most * plan.depth * plan.channel + pitch + lanes, x)
    planes[:] = 0
    sums, closed = scratch(most * held + lanes, x), scratch(most * held + lanes, x)
    chain = scratch(held, x) if summation.steps.shape[0] > 1 else sums
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            band, image = item % plan.bands, item // plan.bands // plan.sets
            number, row = item // plan.bands % plan.sets, band * plan.rows
            low, high = groups * number // plan.sets, groups * (number + 1) // plan.sets
            rows = min(plan.rows, geometry.output_h - row)
            place = Place(image, y.shape[1], low, high - low, row, rows, pitch, held)
            _fill(planes, pixels, x.shape[1], place, geometry, plan)
            _sums(planes, offsets, weights, summation, sums, chain, place, geometry, plan)
            if padding.left_out:
                again(x, ordered, terms, least, planes, summation, sums, place, geometry, plan, padding)
            _store(sums, closed, flat, place, geometry, plan, epilogue)
        begin, end = next_chunk(work)


@njit
def _fill(planes: Any, x: Any, channels: int, place: Any, geometry: Any, plan: Any) -> None:
    """The planes of the item's channels: what its outputs see of them. x (n * channels * h * w,).

    Planes are written in the order in which they lie, because whole vectors are: what is written behind a
    plane are zeros.
    """
    g = geometry
    tall = (place.rows - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1
    top = place.row * g.stride_h - g.pad_h  # the row of the image that the planes begin with
    first = place.image * channels + place.group * plan.depth
    for c in range(place.groups * plan.depth):
        for a in range(g.stride_h):
            count = max(0, (tall - a + g.stride_h - 1) // g.stride_h)
            low = min(count, 0 if top + a >= 0 else (-top - a + g.stride_h - 1) // g.stride_h)
            high = max(low, min(count, (g.height - top - a + g.stride_h - 1) // g.stride_h))
            source = ((first + c) * g.height + top + a + low * g.stride_h) * g.width
            for b in range(g.stride_w):
                at = c * plan.channel + (a * g.stride_w + b) * plan.plane
                for t in range(at, at + low * plan.pitch):
                    planes[t] = 0
                _lay(planes, at + low * plan.pitch, x, source, high - low, b, geometry, plan)
                for t in range(at + high * plan.pitch, at + count * plan.pitch):
                    planes[t] = 0


@njit
def _lay(planes: Any, at: int, x: Any, source: int, rows: int, b: int, geometry: Any, plan: Any) -> None:
    """Rows of the plane whose columns, counted from the padding's first, are b modulo the stride."""
    g = geometry
    first = (b - g.pad_w) % g.stride_w  # of the image's columns
    left = (first + g.pad_w) // g.stride_w  # elements before it
    step, lanes = g.stride_h * g.width, VECTOR // x.itemsize
    count = max(0, min(plan.pitch - left, (g.width - first + g.stride_w - 1) // g.stride_w))
    if g.stride_w <= 2 and left <= lanes and plan.pitch - left - count <= lanes:
        if g.stride_w == 1:
            lay_rows(planes, at, plan.pitch, x, source, step, rows, count, left)
        elif first == 0:
            lay_even(planes, at, plan.pitch, x, source, step, rows, min(g.width, 2 * count), left)
        else:
            lay_odd(planes, at, plan.pitch, x, source, step, rows, min(g.width, 2 * count), left)
        return
    for r in range(rows):
        for t in range(plan.pitch):
            planes[at + r * plan.pitch + t] = 0
        for t in range(count):
            planes[at + r * plan.pitch + left + t] = x[source + r * step + first + t * g.stride_w]


@njit
def _sums(
    planes: Any,
    offsets: Any,
    weights: Any,
    summation: Any,
    sums: Any,
    chain: Any,
    place: Any,
    geometry: Any,
    plan: Any,
) -> None:
    """The sums (groups, outputs, pitch), all steps. weights: the packed ones, flat. chain (outputs, pitch):
    for what is to be added to the sums.
    """
    steps = summation.steps
    blocks = -(-plan.per // plan.block)
    positions = (place.rows - 1) * plan.pitch + geometry.output_w
    for group in range(place.groups):
        for s in range(steps.shape[0]):
            seed, first, count = steps[s, SEED], steps[s, BEGIN], steps[s, COUNT]
            fused, added = steps[s, FUSED] != 0, steps[s, ADDED] != 0
            quick = seed == ZERO and count > 0  # one block is the whole chain
            target, start, to = sums, GO_ON, group * place.held
            if quick:
                start = ADD_TO if added else FROM_ZERO
            else:
                if added:
                    target, to = chain, 0
                if seed != ON:
                    _seed(seed, target, to, place.group + group, place, summation, geometry, plan)
            for b in range(blocks if count > 0 else 0):
                w = ((place.group + group) * blocks + b) * offsets.size + first
                base, at = group * plan.depth * plan.channel, to + b * plan.block * place.pitch
                _multiply(
                    weights, w * plan.block, planes, base, offsets, target, at, place.pitch, first, count,
                    start, positions, plan.block, fused,
                )  # fmt: skip
            if added and not quick:
                at = group * place.held
                for o in range(0, plan.per * place.pitch, place.pitch):
                    total, more = sums[at + o : at + o + positions], chain[o : o + positions]
                    for t in range(total.size):
                        total[t] += more[t]


@njit
def _multiply(
    weights: Any,
    w: int,
    planes: Any,
    base: int,
    offsets: Any,
    sums: Any,
    to: int,
    pitch: int,
    first: int,
    terms: int,
    start: int,
    positions: int,
    block: int,
    fused: bool,
) -> None:
    """One step's chain of all positions. block: outputs of a block."""
    lanes = VECTOR // sums.itemsize
    short, long, broad = SHORT * lanes, LONG * lanes, BROAD * lanes
    begin, end = base, base + positions
    if block == 1 and fused:
        while end - begin > short:
            long_block(weights, w, planes, offsets, begin, sums, to, pitch, first, terms, start)
            begin, to = begin + long, to + long
        if begin < end:
            short_block(weights, w, planes, offsets, begin, sums, to, pitch, first, terms, start)
    elif block == 1:
        while begin < end:
            rounded_block(weights, w, planes, offsets, begin, sums, to, pitch, first, terms, start)
            begin, to = begin + short, to + short
    elif fused:
        while begin < end:
            broad_block(weights, w, planes, offsets, begin, sums, to, pitch, first, terms, start)
            begin, to = begin + broad, to + broad
    else:
        while begin < end:
            rounded_broad_block(weights, w, planes, offsets, begin, sums, to, pitch, first, terms, start)
            begin, to = begin + broad, to + broad


@njit
def _seed(
    seed: int, sums: Any, at: int, group: int, place: Any, summation: Any, geometry: Any, plan: Any
) -> None:
    """The sums of one group (outputs, pitch), from sums[at] on, = the seed."""
    g = geometry
    for o in range(plan.per):
        begin, output = at + o * place.pitch, group * plan.per + o
        if seed == ADDEND:
            line = ((place.image * place.outputs + output) * g.output_h + place.row) * g.output_w
            for i in range(place.rows):
                for j in range(g.output_w):
                    sums[begin + i * plan.pitch + j] = summation.addend[line + i * g.output_w + j]
            continue
        value = sums.dtype.type(0)
        if seed == BIAS:
            value = summation.bias[output]
        if seed == NEGATIVE_ZERO:
            value = -value
        line = sums[begin : begin + (place.rows - 1) * plan.pitch + g.output_w]
        for t in range(line.size):
            line[t] = value


@njit
def _store(sums: Any, closed: Any, y: Any, place: Any, geometry: Any, plan: Any, epilogue: Any) -> None:
    """The sums (groups, outputs, pitch) go to y (n * outputs * oh * ow,) through the epilogue.

    closed: for rows without what lies between them.
    """
    flags, scales, shifts, others, factors = epilogue
    g, rows, pitch, data = geometry, place.groups * plan.per, place.pitch, sums
    size, image = place.rows * g.output_w, g.output_h * g.output_w
    if plan.pitch != g.output_w or plan.per % plan.block:
        for o in range(rows):
            at = o // plan.per * place.held + o % plan.per * place.pitch
            close_up(closed, o * size, sums, at, place.rows, g.output_w, plan.pitch)
        data, pitch = closed, size
    output = place.group * plan.per
    row, at = place.image * place.outputs + output, place.row * g.output_w
    piece, to = Rows(rows, size, output, row, at), (row * image + at, image)
    follow(y, to, data, (0, pitch), piece, flags, scales, shifts, others, factors)
