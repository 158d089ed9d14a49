"""The reduction kernel: weights (outputs x terms) times a panel (terms x positions).

The panel is gathered from the image on the fly, stride and padding included. The order of its
terms is the order of summation; here channel, kernel row, kernel column. Lanes run across
positions, so every output is one chain, whatever the threads, the batch and the position. Where
lanes across output channels waste less, `convolve` takes those: channels.py.

With stride 1 nothing is gathered: the terms are read where they lie in planes with zeros around them, or
in the data itself where there is no padding. Positions then run over the padded rows, and those between
the rows of the output are left out when a tile is stored. Only the last positions of the data itself,
fewer than two vectors, are gathered: nothing behind them may be read.

Padding contributes nothing. The fast block multiplies a zero there instead, which changes no chain
unless the weight is not finite or a partial sum is -0 (then +0 results, and only the sign of a
result that is zero can differ: adding zeros never changes another number). So where a tile touches
the padding, and a weight is not finite or a sum of nonzero inputs came out zero, the tile is
computed again by `masked_block`, which skips the missing terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.channels import across, cropped, form
from refnet.kernels.epilogue import Chain, apply, store
from refnet.kernels.lanes import column_block
from refnet.kernels.memory import aligned, empty, scratch
from refnet.kernels.resources import prepared, reading
from refnet.kernels.simd import PITCH, ROWS, TILE, VECTOR, block, copy, direct_block, masked_block
from refnet.kernels.team import enough, next_share, share, split
from refnet.loops.fma import fma
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

PER_THREAD = 4
"""Work items per thread below which a tile's outputs are divided among the threads."""

TERMS = 256
"""Terms per panel: 256 KiB of float32 with TILE positions, which stays in the second-level cache, as the
32 KiB that one column of blocks reads stay in the first."""


def convolve(
    x: Array,
    w: Array,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    threads: int,
    chain: Chain = Chain(),  # noqa: B008 - frozen
    segments: bool = False,
) -> Array:
    """Convolution of ops/conv.py for x (n, c, h, w), w (o, c / groups, kh, kw), then the chain's steps.

    All of one dtype, float32 or float64, in which it computes: acc = +0, acc = fma(w, x, acc) for
    channel, kernel row, kernel column; then bias, batch norm, addition, relu as the chain says.
    segments: each TERMS terms are a chain of their own, and these are added in turn; see `depth`.

    Of four ways to compute it, with the same bits: `_direct` for fewer than three outputs per group; lanes
    across channels where these compute fewer products, empty lanes included (`channels.form`); `dense` for
    maps of one position; else panels.
    """
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:  # the kernels trust shapes
        raise ValueError(f"weights {w.shape} in {groups} groups do not fit data {x.shape}")
    if not segments:
        w, pad = cropped(x.shape, w, stride, pad, dilation)
    few, n = _few(w, groups), x.shape[0]
    other = segments or few or x.dtype != np.float32  # float64 is for bounds: one form less to compile
    how = None if other else form(x.shape, w.shape, stride, pad, dilation, groups)
    if how is not None:
        planes = _padded(x, pad, 0, threads) if how.padded else x.reshape(n, -1)
        return across(x, planes, w, groups, how, threads, chain)
    plan = layout(x.shape, w.shape, stride, pad, dilation, groups)
    y = empty(plan.output, x.dtype)
    threads = enough(threads, plan.work // 16)
    alone = pad == (0, 0) and x.shape[2:] == y.shape[2:] == (1, 1) == w.shape[2:]
    if alone and groups == 1 and not segments:
        _multiply_columns(x, w, None, y, threads)
    elif few:
        split(_direct, n * w.shape[0], threads, reading(x), w, y, plan.place, groups)
    else:
        packed, finite = prepared((w,), ("panel", groups), lambda: _packed(w, groups))
        planes = _padded(x, pad, plan.slack, threads) if plan.padded else x.reshape(n, -1)
        parts = plan.parts(packed.shape[1], threads)
        arrays = (reading(x), reading(planes), packed, y, plan.place, plan.shape)
        flags = (groups, finite, segments, parts)
        tables = chain.tables(y.shape, y.dtype)
        split(_panels, plan.items * parts, threads, *arrays, *flags, plan.offsets, *tables)
        return y
    return apply(y, chain, threads) if chain.kinds else y


@dataclass(frozen=True, eq=False)
class Layout:
    """Where a convolution's terms lie, and how its output is cut into work items.

    output: its shape. work: multiply-adds. place: stride, pad, dilation. shape: height, width, kh, kw, span,
    and whether positions run over rows of a plane with its padding. padded: whether the planes must be made,
    with `slack` elements behind the last. offsets: where in the planes each term begins, or none.
    items: (image, group, tile of positions).
    """

    output: tuple[int, int, int, int]
    work: int
    place: Array
    shape: Array
    padded: bool
    slack: int
    offsets: Array
    items: int

    def parts(self, blocks: int, threads: int) -> int:
        """Into how many parts an item's blocks of outputs are divided among the threads."""
        return min(blocks, max(1, -(-PER_THREAD * threads // self.items))) if threads > 1 else 1


@lru_cache(maxsize=4096)
def layout(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, pad: Pair, dilation: Pair, groups: int
) -> Layout:
    """The layout of a convolution of shapes x (n, c, h, w) and w (o, c / groups, kh, kw), for reading."""
    n, channels, height, width = x
    outputs, depth, kh, kw = w
    oh = (height + 2 * pad[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + 2 * pad[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    output = (n, outputs, oh, ow)
    tall, broad = height + 2 * pad[0], width + 2 * pad[1]
    size, made = n * channels * height * width, n * outputs * oh * ow
    wide = stride == (1, 1) and n * channels * tall * broad <= 4 * (size + made) + TILE * TERMS
    span = broad if wide else ow  # wide: a term's positions are one piece of a plane, ends of rows included
    padded = wide and ((kh, kw) != (1, 1) or pad != (0, 0))
    c, p, q = np.ogrid[:depth, :kh, :kw]
    offsets = (c * tall + p * dilation[0]) * span + q * dilation[1] if wide else np.zeros(0)
    place = np.array([*stride, *pad, *dilation], np.int64)
    shape = np.array([height, width, kh, kw, span, wide], np.int64)
    items = n * groups * -(-((oh - 1) * span + ow) // TILE)
    slack = (kw - 1) * dilation[1] + TILE
    places = offsets.astype(np.int64).reshape(-1)
    return Layout(output, made * depth * kh * kw, place, shape, padded, slack, places, items)


def depth(w: Array, groups: int) -> int:
    """How many additions (FMAs count as one) a term of `convolve` with segments passes at most."""
    terms = int(w[0].size)
    return terms if _few(w, groups) else min(terms, TERMS) + max(0, -(-terms // TERMS) - 1)


def _few(w: Array, groups: int) -> bool:
    """Whether there are so few outputs per group that `_direct` computes them."""
    return bool(w.shape[0] // groups < 3 or w[0].size == 0)


def _padded(x: Array, pad: Pair, slack: int, threads: int) -> Array:
    """x (n, c, h, w) as (n, c * (h + 2 ph) * (w + 2 pw) + slack): zeros around each plane."""
    n, c, h, w = x.shape
    tall, wide = h + 2 * pad[0], w + 2 * pad[1]
    planes = empty((n, c * tall * wide + slack), x.dtype)
    split(_pad, n * c, enough(threads, planes.size), x.reshape(n * c, h, w), planes, c, tall, wide, *pad)
    return planes


def dense(x: Array, w: Array, bias: Array | None, threads: int) -> Array:
    """Matrix product of ops/dense.py for x (n, k), w (o, k), bias (o,) or None, of one dtype.

    acc = +0, acc = fma(w, x, acc) for k in turn, then one addition of the bias.
    """
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"weights {w.shape} do not fit data {x.shape}")
    y = empty((x.shape[0], w.shape[0]), x.dtype)
    _multiply_columns(x, w, bias, y, threads)
    return y


def _multiply_columns(x: Array, w: Array, bias: Array | None, y: Array, threads: int) -> None:
    """y (n, o) = x (n, k) times w (o, k), plus the bias (o,); dimensions of 1 may follow."""
    columns = prepared((w,), "columns", lambda: _columns(w.reshape(w.shape[:2])))
    threads = enough(threads, x.size * w.shape[0] // 4)
    data = np.ascontiguousarray(x).reshape(x.shape[:2])
    arrays = (reading(data), columns, _ramp(x.shape[1]), y.reshape(y.shape[:2]))
    shift = np.zeros(0, x.dtype) if bias is None else np.ascontiguousarray(bias)
    split(_dense, columns.shape[0], threads, *arrays, reading(shift))


def _packed(w: Array, groups: int) -> tuple[Array, bool]:
    """The packed weights, and whether all of them are finite."""
    return pack(w.reshape(groups, w.shape[0] // groups, -1)), bool(np.isfinite(w).all())


def pack(w: Array) -> Array:
    """w (groups, outputs, terms) as (groups, blocks, terms, ROWS): what a block reads, in its order."""
    groups, outputs, terms = w.shape
    blocks = -(-outputs // ROWS)
    packed = np.zeros((groups, blocks, terms, ROWS), w.dtype)
    _pack(w, packed)
    return packed


@njit
def _pack(w: Any, packed: Any) -> None:
    groups, outputs, terms = w.shape
    for g in range(groups):
        for o in range(outputs):
            for k in range(terms):
                packed[g, o // ROWS, k, o % ROWS] = w[g, o, k]


@njit
def _pad(work: Any, x: Any, planes: Any, c: int, tall: int, wide: int, ph: int, pw: int) -> None:
    h, w = x.shape[1:]
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            at = item // c * planes.shape[1] + item % c * tall * wide
            plane = planes.reshape(-1)[at : at + tall * wide]
            plane[: ph * wide] = 0
            plane[(ph + h) * wide :] = 0
            if item % c == c - 1:
                planes[item // c, c * tall * wide :] = 0
            for i in range(h):
                row = (ph + i) * wide
                for j in range(pw):
                    plane[row + j] = 0
                    plane[row + pw + w + j] = 0
                copy(plane, row + pw, x, (item * h + i) * w, w)
        begin, end = next_share(work)


@njit
def _gather(
    x: Any,
    planes: Any,
    image: int,
    panel: Any,
    first: int,
    terms: int,
    begin: int,
    count: int,
    channel: int,
    place: Any,
    shape: Any,
) -> None:
    """Fill the panel with `terms` terms from `first` and `count` positions from `begin`.

    The panel holds columns of two vectors, one after another: (columns, TERMS, 2 vectors). What lies
    in the padding is zero; positions beyond `count` may hold anything.
    """
    sh, sw, ph, pw, dh, dw = place[0], place[1], place[2], place[3], place[4], place[5]
    height, width, kh, kw, span = shape[0], shape[1], shape[2], shape[3], shape[4]
    step = 2 * VECTOR // panel.itemsize
    c, p, q = first // (kh * kw), first // kw % kh, first % kw
    top, start = begin // span, begin % span
    size = (height + 2 * ph) * span
    line = np.zeros(TILE, x.dtype)
    for k in range(terms):
        if shape[5]:
            at = image * planes[0].size + (channel + c) * size + p * dh * span + q * dw + begin
            for lane in range(0, count, step):
                if at + lane + step <= planes.size:
                    copy(panel, lane * TERMS + k * step, planes, at + lane, step)
                else:
                    copy(panel, lane * TERMS + k * step, planes, at + lane, planes.size - at - lane)
        else:
            lane, i, j = 0, top, start
            while lane < count:
                run = min(span - j, count - lane)  # lanes in this row of the output
                row = i * sh - ph + p * dh
                left = j * sw - pw + q * dw
                # lanes lo to hi of the run lie inside the image
                lo, hi = run, run
                if row >= 0 and row < height:
                    lo = min(run, 0 if left >= 0 else (-left + sw - 1) // sw)
                    hi = max(lo, min(run, (width - left + sw - 1) // sw))
                for t in range(lo):
                    line[lane + t] = 0
                for t in range(hi, run):
                    line[lane + t] = 0
                if lo < hi:
                    source, target = x[image, channel + c, row, left + lo * sw :], line[lane + lo : lane + hi]
                    if sw == 2:  # a constant stride is read by vectors
                        for t in range(target.size):
                            target[t] = source[2 * t]
                    elif sw == 1:
                        for t in range(target.size):
                            target[t] = source[t]
                    else:
                        for t in range(target.size):
                            target[t] = source[sw * t]
                lane += run
                i += 1
                j = 0
            for lane in range(0, count, step):
                copy(panel, lane * TERMS + k * step, line, lane, step)
        q += 1
        if q == kw:
            q, p = 0, p + 1
            if p == kh:
                p, c = 0, c + 1


@njit
def _touches(begin: int, count: int, ow: int, place: Any, shape: Any) -> bool:
    """Whether some term of the positions begin to begin + count lies in the padding."""
    sh, sw, ph, pw, dh, dw = place[0], place[1], place[2], place[3], place[4], place[5]
    height, width, kh, kw, span = shape[0], shape[1], shape[2], shape[3], shape[4]
    top, bottom = begin // span, (begin + count - 1) // span
    if top * sh < ph or bottom * sh - ph + (kh - 1) * dh >= height:
        return True
    left, right = (begin % span, (begin + count - 1) % span) if top == bottom else (0, ow - 1)
    right = min(right, ow - 1) * sw - pw + (kw - 1) * dw
    return bool(left * sw < pw or right >= width)


@njit
def _multiply(
    weights: Any,
    w: int,
    panel: Any,
    mask: Any,
    masked: bool,
    terms: int,
    on: int,
    sums: Any,
    at: int,
    count: int,
) -> None:
    """sums[at:] (ROWS, PITCH) = (sums[at:] if on else 0) + weights[w:] (terms, ROWS) x panel; flat arrays."""
    step = 2 * VECTOR // panel.itemsize
    for lane in range(0, count, step):
        if masked:
            masked_block(weights, w, panel, mask, lane * TERMS, sums, at + lane, terms, on, 0)
        else:
            block(weights, w, panel, mask, lane * TERMS, sums, at + lane, terms, on, 0)


@njit
def _multiply_directly(
    weights: Any, w: int, source: Any, terms: int, on: int, sums: Any, at: int, count: int
) -> None:
    """As _multiply, with the panel's columns read where they lie in the planes: base + offsets[first + k]."""
    planes, base, offsets, first = source
    step = 2 * VECTOR // planes.itemsize
    for lane in range(0, count, step):
        direct_block(weights, w, planes, offsets, base + lane, sums, at + lane, terms, on, first)


@njit
def _panels(
    work: Any,
    x: Any,
    planes: Any,
    packed: Any,
    y: Any,
    place: Any,
    shape: Any,
    groups: int,
    finite: bool,
    segments: bool,
    parts: int,
    offsets: Any,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """Items: (image, group, tile of positions, part of the group's blocks of outputs), part fastest.

    Positions run over rows of `span`, of which the first ow belong to the output.
    """
    outputs, oh, ow = y.shape[1:]
    blocks, terms = packed.shape[1:3]
    channels = x.shape[1] // groups
    per = outputs // groups
    span = shape[4]
    positions = (oh - 1) * span + ow
    tiles = -(-positions // TILE)
    step = 2 * VECTOR // x.itemsize
    more = planes[0].size > x[0].size  # a column may be read beyond the end of a plane
    panel = scratch(TILE * TERMS, x)
    mask = np.empty(1, x.dtype)
    sums = scratch(-(-blocks // parts) * ROWS * PITCH, x).reshape(-1, PITCH)
    segment = np.empty_like(sums) if segments and terms > TERMS else sums
    weights = packed.reshape(-1)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            part, tile = item % parts, item // parts % tiles
            group, image = item // parts // tiles % groups, item // parts // tiles // groups
            low, high = blocks * part // parts, blocks * (part + 1) // parts
            own = (group * blocks + low) * terms * ROWS
            rows = min(high * ROWS, per) - low * ROWS
            start = tile * TILE
            count = min(TILE, positions - start)
            plane = group * channels
            base = image * planes[0].size + plane * (shape[0] + 2 * place[2]) * span + start
            spot = (image, group * per + low * ROWS, start, count, span)
            direct = 0 if offsets.size == 0 else count if more else count // step * step
            gathered = count - direct
            touches, zeros = _touches(start, count, ow, place, shape), 0
            for first in range(0, terms, TERMS):
                some, last = min(TERMS, terms - first), first + TERMS >= terms
                target, on = (segment, 0) if segments and first else (sums, first)
                if gathered:
                    at = start + direct
                    _gather(x, planes, image, panel, first, some, at, gathered, plane, place, shape)
                for b in range(high - low):
                    block_rows = min(ROWS, rows - b * ROWS)
                    w, to = own + (b * terms + first) * ROWS, b * ROWS * PITCH
                    source = (planes, base, offsets, first)
                    _multiply_directly(weights, w, source, some, on, target, to, direct)
                    if gathered:
                        _multiply(weights, w, panel, mask, False, some, on, target, to + direct, gathered)
                    if segments and first:
                        _add(sums, segment, b * ROWS, block_rows, count)
                    if last:
                        if touches and finite:
                            zeros += _zeros(sums, b * ROWS, block_rows, count)
                        store(sums, PITCH, y, spot, b * ROWS, block_rows, flags, scales, shifts, others)
            if touches:
                again = not finite
                if zeros > 0:
                    # a lane that saw only zeros is +0 either way; look for zero sums of other lanes
                    live = np.zeros(TILE, np.bool_)
                    for first in range(0, terms, TERMS):
                        some = min(TERMS, terms - first)
                        _gather(x, planes, image, panel, first, some, start, count, plane, place, shape)
                        for t in range(count):
                            column = t // step * step * TERMS + t % step
                            for k in range(some):
                                live[t] |= panel[column + k * step] != 0
                    for t in range(count):
                        if live[t]:
                            for o in range(rows):
                                again = again or sums[o, t] == 0
                if again:
                    mask = np.zeros(TILE * TERMS, x.dtype)
                    for first in range(0, terms, TERMS):
                        some = min(TERMS, terms - first)
                        _gather(x, planes, image, panel, first, some, start, count, plane, place, shape)
                        _present(mask, first, some, start, count, place, shape)
                        target, on = (segment, 0) if segments and first else (sums, first)
                        for b in range(high - low):
                            w, to = own + (b * terms + first) * ROWS, b * ROWS * PITCH
                            _multiply(weights, w, panel, mask, True, some, on, target, to, count)
                        if segments and first:
                            _add(sums, segment, 0, rows, count)
                    store(sums, PITCH, y, spot, 0, rows, flags, scales, shifts, others)
        begin, end = next_share(work)


@njit
def _add(sums: Any, more: Any, low: int, rows: int, lanes: int) -> None:
    """sums[low : low + rows] += more[low : low + rows], the first lanes."""
    for o in range(low, low + rows):
        row, addends = sums[o, :lanes], more[o, :lanes]
        for t in range(row.size):
            row[t] += addends[t]


@njit
def _zeros(sums: Any, low: int, rows: int, lanes: int) -> int:
    """How many of sums[low : low + rows], of the first lanes, are zero."""
    zeros = 0
    for o in range(low, low + rows):
        row = sums[o]
        for t in range(lanes):
            zeros += row[t] == 0
    return zeros


@njit
def _present(mask: Any, first: int, terms: int, begin: int, count: int, place: Any, shape: Any) -> None:
    """1 where the panel's term lies inside the image, else 0."""
    height, width, kh, kw, span = shape[0], shape[1], shape[2], shape[3], shape[4]
    step = 2 * VECTOR // mask.itemsize
    for lane in range(count):
        column = lane // step * step * TERMS + lane % step
        for k in range(terms):
            p = (first + k) // kw % kh
            q = (first + k) % kw
            i = (begin + lane) // span * place[0] - place[2] + p * place[4]
            j = (begin + lane) % span * place[1] - place[3] + q * place[5]
            mask[column + k * step] = 1 if 0 <= i < height and 0 <= j < width else 0


@njit
def _direct(work: Any, x: Any, w: Any, y: Any, place: Any, groups: int) -> None:
    """For few outputs per group (depthwise): row by row, lanes along the row. Items: (image, output)."""
    outputs, channels, kh, kw = w.shape
    oh, ow = y.shape[2], y.shape[3]
    height, width = x.shape[2], x.shape[3]
    sh, sw, ph, pw, dh, dw = place[0], place[1], place[2], place[3], place[4], place[5]
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            image, o = item // outputs, item % outputs
            base = o // (outputs // groups) * channels
            for i in range(oh):
                sums = y[image, o, i]
                sums[:] = 0
                for c in range(channels):
                    for p in range(kh):
                        row = i * sh - ph + p * dh
                        if row < 0 or row >= height:
                            continue
                        source = x[image, base + c, row]
                        for q in range(kw):
                            left = q * dw - pw
                            lo = 0 if left >= 0 else (-left + sw - 1) // sw
                            hi = min(ow, (width - left + sw - 1) // sw)
                            if lo >= hi:
                                continue
                            weight = w[o, c, p, q]
                            values, some = source[left + lo * sw :], sums[lo:hi]
                            if sw == 1:
                                for j in range(some.size):
                                    some[j] = fma(weight, values[j], some[j])
                            elif sw == 2:  # a constant stride is read by vectors
                                for j in range(some.size):
                                    some[j] = fma(weight, values[2 * j], some[j])
                            else:
                                for j in range(some.size):
                                    some[j] = fma(weight, values[sw * j], some[j])
        begin, end = next_share(work)


@lru_cache(maxsize=256)
def _ramp(terms: int) -> Array:
    """0, 1, 2, ...: where the terms of a dense layer lie."""
    return np.arange(terms)


def _columns(w: Array) -> Array:
    """w (outputs, terms) as (tiles, terms, four vectors of outputs), zeros behind the last."""
    outputs, terms = w.shape
    wide = 4 * VECTOR // w.itemsize
    tiles = -(-outputs // wide)
    columns, whole = aligned((tiles, terms, wide), w.dtype), outputs // wide
    columns[:whole] = w[: whole * wide].reshape(whole, wide, terms).swapaxes(1, 2)
    if whole < tiles:
        columns[whole, :, : outputs - whole * wide] = w[whole * wide :].T
    return columns


@njit
def _dense(work: Any, x: Any, columns: Any, ramp: Any, y: Any, bias: Any) -> None:
    """Lanes across outputs. Items: tiles of four vectors of outputs."""
    n, terms = x.shape
    wide = columns.shape[2]
    sums = np.zeros(wide, x.dtype)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            weights = columns[item].reshape(-1)
            for i in range(n):
                if terms:
                    column_block(weights, 0, x, i * terms, ramp, ramp, 0, sums, 0, terms)
                some = min(wide, y.shape[1] - item * wide)
                if bias.size:
                    shift = bias[item * wide : item * wide + some]
                    for o in range(shift.size):
                        sums[o] += shift[o]
                copy(y, i * y.shape[1] + item * wide, sums, 0, some)
        begin, end = next_share(work)
