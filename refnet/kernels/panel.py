"""The reduction kernel: weights (outputs x terms) times a panel (terms x TILE positions).

The panel is gathered from the image on the fly, stride and padding included. The order of its
terms is the order of summation; here channel, kernel row, kernel column. Lanes run across
positions, so every output is one chain, whatever the threads, the batch and the position.

Padding contributes nothing. The fast block multiplies a zero there instead, which changes no chain
unless the weight is not finite or a partial sum is -0 (then +0 results, and only the sign of a
result that is zero can differ: adding zeros never changes another number). So where a tile touches
the padding, and a weight is not finite or a sum of nonzero inputs came out zero, the tile is
computed again by `masked_block`, which skips the missing terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.epilogue import Chain, apply, follow
from refnet.kernels.jit import njit, prepared, split
from refnet.kernels.simd import ROWS, TILE, VECTOR, block, copy, fma, masked_block

Array = npt.NDArray[Any]
Pair = tuple[int, int]

PER_THREAD = 4
"""Work items per thread below which a tile's outputs are divided among the threads."""

TERMS = 512
"""Terms per panel: 128 KiB of float32, which stays in the second-level cache."""


def convolve(
    x: Array,
    w: Array,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    threads: int,
    chain: Chain = Chain(),  # noqa: B008 - frozen
) -> Array:
    """Convolution of ops/conv.py for x (n, c, h, w), w (o, c / groups, kh, kw), then the chain's steps.

    All of one dtype, float32 or float64, in which it computes: acc = +0, acc = fma(w, x, acc) for
    channel, kernel row, kernel column; then bias, batch norm, addition, relu as the chain says.
    """
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    n, _, height, width = x.shape
    outputs, _, kh, kw = w.shape
    oh = (height + 2 * pad[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + 2 * pad[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.empty((n, outputs, oh, ow), x.dtype)
    place = np.array([*stride, *pad, *dilation], np.int64)
    if outputs // groups < 3 or w[0].size == 0:
        split(_direct, n * outputs, threads, x, w, y, place, groups)
        return apply(y, chain, threads) if chain.kinds else y
    packed, finite = prepared(w, ("panel", groups), lambda w: _packed(w, groups))
    tables = chain.tables(n, outputs, oh * ow, x.dtype)
    tiles = n * groups * -(-oh * ow // TILE)
    parts = min(packed.shape[1], max(1, -(-PER_THREAD * threads // tiles))) if threads > 1 else 1
    split(_panels, tiles * parts, threads, x, packed, y, place, groups, kh, kw, finite, parts, *tables)
    return y


def dense(x: Array, w: Array, bias: Array | None, threads: int) -> Array:
    """Matrix product of ops/dense.py for x (n, k), w (o, k), bias (o,) or None, of one dtype.

    acc = +0, acc = fma(w, x, acc) for k in turn, then one addition of the bias.
    """
    y = np.empty((x.shape[0], w.shape[0]), x.dtype)
    columns = prepared(w, "columns", _columns)
    split(_dense, columns.shape[0], threads, np.ascontiguousarray(x), columns, y)
    if bias is not None:
        y += bias
    return y


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
def _gather(
    image: Any,
    panel: Any,
    first: int,
    terms: int,
    begin: int,
    count: int,
    ow: int,
    kh: int,
    kw: int,
    place: Any,
    channel: int,
) -> bool:
    """Fill panel[k, lane] for `terms` terms from `first` and `count` positions from `begin`.

    What lies in the padding, and lanes from `count` on, are zeros. True if some term is missing.
    """
    sh, sw, ph, pw, dh, dw = place[0], place[1], place[2], place[3], place[4], place[5]
    height, width = image.shape[1], image.shape[2]
    missing = False
    c, p, q = first // (kh * kw), first // kw % kh, first % kw
    top, start = begin // ow, begin % ow
    whole = kh * kw == 1 and sh * sw == 1 and ph + pw == 0  # the panel's rows are the image's own
    for k in range(terms):
        if whole:
            copy(panel, k * TILE, image, (channel + c) * height * width + begin, count)
        else:
            lane, i, j = 0, top, start
            while lane < count:
                run = min(ow - j, count - lane)  # lanes in this row of the output
                row = i * sh - ph + p * dh
                left = j * sw - pw + q * dw
                # lanes lo to hi of the run lie inside the image
                lo, hi = run, run
                if row >= 0 and row < height:
                    if sw == 1:
                        lo = min(run, max(0, -left))
                        hi = max(lo, min(run, width - left))
                    else:
                        lo = min(run, 0 if left >= 0 else (-left + sw - 1) // sw)
                        hi = max(lo, min(run, (width - left + sw - 1) // sw))
                if lo > 0 or hi < run:
                    missing = True
                    for t in range(lo):
                        panel[k, lane + t] = 0
                    for t in range(hi, run):
                        panel[k, lane + t] = 0
                if lo < hi:
                    if sw == 1:
                        source = ((channel + c) * height + row) * width + left
                        copy(panel, k * TILE + lane + lo, image, source + lo, hi - lo)
                    else:
                        line = image[channel + c, row]
                        for t in range(lo, hi):
                            panel[k, lane + t] = line[left + t * sw]
                lane += run
                i += 1
                j = 0
        for t in range(count, TILE):
            panel[k, t] = 0
        q += 1
        if q == kw:
            q, p = 0, p + 1
            if p == kh:
                p, c = 0, c + 1
    return missing


@njit
def _multiply(
    packed: Any, panel: Any, mask: Any, masked: bool, first: int, terms: int, sums: Any, tile: int
) -> None:
    """sums (blocks * ROWS, TILE) += packed[:, first : first + terms] x panel, for lanes below `tile`."""
    step = 2 * VECTOR // panel.itemsize
    for b in range(packed.shape[0]):
        weights = packed[b].reshape(-1)
        for lane in range(0, tile, step):
            at = b * ROWS * TILE + lane
            if masked:
                masked_block(
                    weights,
                    first * ROWS,
                    panel.reshape(-1),
                    mask.reshape(-1),
                    lane,
                    sums.reshape(-1),
                    at,
                    terms,
                    first,
                )
            else:
                block(
                    weights,
                    first * ROWS,
                    panel.reshape(-1),
                    mask.reshape(-1),
                    lane,
                    sums.reshape(-1),
                    at,
                    terms,
                    first,
                )


@njit
def _panels(
    begin: int,
    end: int,
    x: Any,
    packed: Any,
    y: Any,
    place: Any,
    groups: int,
    kh: int,
    kw: int,
    finite: bool,
    parts: int,
    kinds: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """Items: (image, group, tile of positions, part of the group's blocks of outputs), part fastest."""
    outputs, oh, ow = y.shape[1:]
    blocks, terms = packed.shape[1:3]
    channels = x.shape[1] // groups
    per = outputs // groups
    tiles = -(-oh * ow // TILE)
    panel = np.empty((min(terms, TERMS), TILE), x.dtype)
    mask = np.zeros((min(terms, TERMS), TILE), x.dtype)
    sums = np.empty((-(-blocks // parts) * ROWS, TILE), x.dtype)
    live = np.empty(TILE, np.bool_)
    for item in range(begin, end):
        part, tile = item % parts, item // parts % tiles
        group, image = item // parts // tiles % groups, item // parts // tiles // groups
        low, high = blocks * part // parts, blocks * (part + 1) // parts
        weights = packed[group, low:high]
        rows = min(high * ROWS, per) - low * ROWS
        start = tile * TILE
        count = min(TILE, oh * ow - start)
        plane = group * channels
        missing = False
        for first in range(0, terms, TERMS):
            some = min(TERMS, terms - first)
            if _gather(x[image], panel, first, some, start, count, ow, kh, kw, place, plane):
                missing = True
            _multiply(weights, panel, mask, False, first, some, sums, count)
        again = missing and not finite
        if missing and finite and _zeros(sums, rows, count) > 0:
            # a lane that saw only zeros is +0 either way; look for zero sums of other lanes
            live[:] = False
            for first in range(0, terms, TERMS):
                some = min(TERMS, terms - first)
                _gather(x[image], panel, first, some, start, count, ow, kh, kw, place, plane)
                for k in range(some):
                    for t in range(count):
                        live[t] |= panel[k, t] != 0
            for t in range(count):
                if live[t]:
                    for o in range(rows):
                        again = again or sums[o, t] == 0
        if again:
            for first in range(0, terms, TERMS):
                some = min(TERMS, terms - first)
                _gather(x[image], panel, first, some, start, count, ow, kh, kw, place, plane)
                _present(x.shape[2], x.shape[3], mask, first, some, start, count, ow, kh, kw, place)
                _multiply(weights, panel, mask, True, first, some, sums, count)
        for o in range(rows):
            channel = group * per + low * ROWS + o
            row = image * outputs + channel
            follow(sums[o, :count], channel, row, start, kinds, scales, shifts, others)
            copy(y, row * oh * ow + start, sums, o * TILE, count)


@njit
def _zeros(sums: Any, rows: int, lanes: int) -> int:
    """How many of the sums are zero."""
    zeros = 0
    for o in range(rows):
        row = sums[o]
        for t in range(lanes):
            zeros += row[t] == 0
    return zeros


@njit
def _present(
    height: int,
    width: int,
    mask: Any,
    first: int,
    terms: int,
    begin: int,
    count: int,
    ow: int,
    kh: int,
    kw: int,
    place: Any,
) -> None:
    """mask[k, lane] = 1 where the term lies inside the image, else 0."""
    for k in range(terms):
        p = (first + k) // kw % kh
        q = (first + k) % kw
        for lane in range(TILE):
            i = (begin + lane) // ow * place[0] - place[2] + p * place[4]
            j = (begin + lane) % ow * place[1] - place[3] + q * place[5]
            inside = lane < count and 0 <= i < height and 0 <= j < width
            mask[k, lane] = 1 if inside else 0


@njit
def _direct(begin: int, end: int, x: Any, w: Any, y: Any, place: Any, groups: int) -> None:
    """For few outputs per group (depthwise): row by row, lanes along the row. Items: (image, output)."""
    outputs, channels, kh, kw = w.shape
    oh, ow = y.shape[2], y.shape[3]
    height, width = x.shape[2], x.shape[3]
    sh, sw, ph, pw, dh, dw = place[0], place[1], place[2], place[3], place[4], place[5]
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
                        weight = w[o, c, p, q]
                        if sw == 1:
                            for j in range(lo, hi):
                                sums[j] = fma(weight, source[left + j], sums[j])
                        else:
                            for j in range(lo, hi):
                                sums[j] = fma(weight, source[left + j * sw], sums[j])


def _columns(w: Array) -> Array:
    """w (outputs, terms) as (tiles, terms, TILE): TILE outputs side by side, zeros behind the last."""
    outputs, terms = w.shape
    tiles = -(-outputs // TILE)
    columns = np.zeros((tiles * TILE, terms), w.dtype)
    columns[:outputs] = w
    return np.ascontiguousarray(columns.reshape(tiles, TILE, terms).swapaxes(1, 2))


@njit
def _dense(begin: int, end: int, x: Any, columns: Any, y: Any) -> None:
    """Lanes across outputs. Items: tiles of TILE outputs."""
    n, terms = x.shape
    sums = np.empty(TILE, x.dtype)
    for item in range(begin, end):
        start = item * TILE
        for i in range(n):
            sums[:] = 0
            for k in range(terms):
                value = x[i, k]
                weights = columns[item, k]
                for t in range(TILE):
                    sums[t] = fma(weights[t], value, sums[t])
            for t in range(min(TILE, y.shape[1] - start)):
                y[i, start + t] = sums[t]
