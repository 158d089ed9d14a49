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

from refnet.kernels.epilogue import Chain, follow
from refnet.kernels.jit import njit, prepared, reading
from refnet.kernels.lanes import (
    GROUP,
    HALF,
    group_block,
    half_block,
    thin_group_block,
    thin_half_block,
    transpose,
)
from refnet.kernels.memory import empty
from refnet.kernels.simd import ROWS, VECTOR, fma
from refnet.kernels.team import enough, next_share, share, split

Array = npt.NDArray[Any]
Pair = tuple[int, int]

STRETCH = 56 * GROUP
"""Positions per work item at most: the outputs of each channel are written in pieces as long as that."""
GATHERED = 24
"""What gathering a panel costs, as output channels that are multiplied with it (measured: 20 to 35)."""
SHARES = 16
"""Work items per thread, if there are so many blocks of channels: the last ones are small."""


@dataclass(frozen=True, eq=False)
class Form:
    """Where the terms lie, and the work items.

    output: its shape. work: multiply-adds. padded: whether the planes are a copy with padding. sizes: stride,
    pad and dilation (two each), elements from row to row and from plane to plane of the planes, positions of
    a piece, whose inputs lie in one row, pieces of a plane, and stretches into which a plane's pieces (if it
    is one piece, its positions) are divided. offsets: of the terms. items: (image, group, stretch).
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

    None where there is none (few positions in a row, steps of more than 2, far more padding than image), or
    where lanes across positions compute fewer products, those of empty lanes included.
    """
    n, channels, height, width = x
    outputs, depth, kh, kw = w
    tall, span = height + 2 * pad[0], width + 2 * pad[1]
    oh = (tall - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (span - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    pieces, length = (1, oh * ow) if stride == (1, 1) and span == ow else (oh, ow)
    image, plane, made = n * channels * height * width, tall * span, n * outputs * oh * ow
    if length < HALF or (pieces > 1 and ow > STRETCH) or stride[1] > 2 or made * depth * kh * kw == 0:
        return None
    if n * channels * plane > 4 * (image + made):
        return None
    in_place = stride == (1, 1) and (kh, kw) != (1, 1)
    if _products(outputs // groups, pieces, length) > _panels(outputs // groups, oh, ow, span, in_place):
        return None
    c, p, q = np.ogrid[:depth, :kh, :kw]
    offsets = (c * plane + p * dilation[0] * span + q * dilation[1]).astype(np.int64).reshape(-1)
    stretches = -(-length // STRETCH) if pieces == 1 else -(-pieces // (STRETCH // ow))
    sizes = np.array([*stride, *pad, *dilation, span, plane, length, pieces, stretches], np.int64)
    output = (n, outputs, oh, ow)
    return Form(output, made * depth * kh * kw, pad != (0, 0), sizes, offsets, n * groups * stretches)


def _products(outputs: int, pieces: int, length: int) -> int:
    """How many products per term are computed with lanes across channels; the last block may overlap."""
    lanes = VECTOR // 4
    whole, rest = divmod(length, GROUP)
    positions = whole * GROUP + (GROUP if rest > HALF else HALF if rest else 0)
    return -(-outputs // lanes) * lanes * pieces * positions


def _panels(outputs: int, oh: int, ow: int, span: int, in_place: bool) -> int:
    """The same with lanes across positions, plus what gathering costs."""
    step = 2 * VECTOR // 4
    positions = (oh - 1) * span + ow if in_place else oh * ow
    return (-(-outputs // ROWS) * ROWS + (0 if in_place else GATHERED)) * -(-positions // step) * step


def across(x: Array, planes: Array, w: Array, groups: int, how: Form, threads: int, chain: Chain) -> Array:
    """Convolution in this form. planes (n, elements): x, padded if the form says so."""
    packed, finite = prepared((w,), ("channels", groups), lambda: _packed(w, groups))
    y = empty(how.output, x.dtype)
    threads = enough(threads, how.work // 16)
    parts = min(packed.shape[1], -(-SHARES * threads // how.items)) if threads > 1 else 1
    arrays = (reading(x), reading(planes), reading(w), packed, y)
    flags = (how.sizes, how.offsets, how.padded, finite, parts)
    split(_channels, how.items * parts, threads, *arrays, *flags, *chain.tables(y.shape, y.dtype))
    return y


def _packed(w: Array, groups: int) -> tuple[Array, bool]:
    """The packed weights, and whether all of them are finite."""
    return pack_channels(w, groups), bool(np.isfinite(w).all())


def pack_channels(w: Array, groups: int) -> Array:
    """w (o, c / groups, kh, kw) as (groups, blocks, terms, two vectors of channels), zeros at the end."""
    per, wide = w.shape[0] // groups, 2 * VECTOR // w.itemsize
    blocks = -(-per // wide)
    packed = np.zeros((groups, blocks * wide, w[0].size), w.dtype)
    packed[:, :per] = w.reshape(groups, per, -1)
    return np.ascontiguousarray(packed.reshape(groups, blocks, wide, -1).swapaxes(2, 3))


@njit
def _channels(
    work: Any,
    x: Any,
    planes: Any,
    w: Any,
    packed: Any,
    y: Any,
    sizes: Any,
    offsets: Any,
    padded: bool,
    finite: bool,
    parts: int,
    flags: Any,
    scales: Any,
    shifts: Any,
    others: Any,
) -> None:
    """Items: (image, group, stretch of positions, part of the group's blocks of channels), part fastest."""
    outputs, oh, ow = y.shape[1:]
    groups, blocks, wide = packed.shape[0], packed.shape[1], packed.shape[3]
    per, depth, size = outputs // groups, x.shape[1] // groups, oh * ow
    down, step, span, plane = sizes[0], sizes[1], sizes[6], sizes[7]
    length, pieces, stretches = sizes[8], sizes[9], sizes[10]
    unit, units = (1, size) if pieces == 1 else (length, pieces)
    sums = np.empty((GROUP + wide // 2) * wide, x.dtype)
    rows = np.empty((wide, -(-units // stretches) * unit + wide // 2), x.dtype)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            part, stretch = item % parts, item // parts % stretches
            group, image = item // parts // stretches % groups, item // parts // stretches // groups
            start = units * stretch // stretches * unit
            count = units * (stretch + 1) // stretches * unit - start
            base = image * planes[0].size + group * depth * plane
            for b in range(blocks * part // parts, blocks * (part + 1) // parts):
                weights = packed[group, b].reshape(-1)
                first, some = group * per + b * wide, min(wide, per - b * wide)
                for at in range(0, count, length):
                    where = base + (start * step if pieces == 1 else (start + at) // ow * down * span)
                    piece = (at, min(length, count - at))
                    _piece(weights, planes, where, offsets, step, sums, rows, piece, some <= wide // 2)
                if padded:
                    spot = (image, group * depth, first, some, start, count)
                    _again(x, w, rows, spot, ow, sizes, finite)
                row = image * outputs + first
                to, place = row * size + start, (some, count, first, row, start)
                follow(y, to, size, rows, 0, rows.shape[1], place, flags, scales, shifts, others)
        begin, end = next_share(work)


@njit
def _piece(
    weights: Any,
    planes: Any,
    where: int,
    offsets: Any,
    step: int,
    sums: Any,
    rows: Any,
    piece: Any,
    thin: bool,
) -> None:
    """rows[:, at : at + size] for piece (at, size): sums of positions that lie `step` apart from `where` on.

    thin: only the first vector of channels. Where positions are left over, the last block overlaps the one
    before. Columns behind the piece's may be overwritten: the next piece comes later. size >= HALF.
    """
    to, size = piece
    terms, pitch, wide = offsets.size, rows.shape[1], rows.shape[0]
    lanes = wide // 2
    j = 0
    while j < size:
        whole = size - j > HALF and size >= GROUP
        j = min(j, size - (GROUP if whole else HALF))
        at = where + j * step
        if whole and thin:
            thin_group_block(weights, 0, planes, at, offsets, sums, terms, step)
        elif whole:
            group_block(weights, 0, planes, at, offsets, sums, terms, step)
        elif thin:
            thin_half_block(weights, 0, planes, at, offsets, sums, terms, step)
        else:
            half_block(weights, 0, planes, at, offsets, sums, terms, step)
        done = GROUP if whole else HALF
        for p in range(0, done, lanes):
            transpose(sums, p * wide, rows, to + j + p, pitch)
            if not thin:
                transpose(sums, p * wide + lanes, rows, lanes * pitch + to + j + p, pitch)
        j += done


@njit
def _again(x: Any, w: Any, rows: Any, spot: Any, ow: int, sizes: Any, finite: bool) -> None:
    """Compute anew the outputs that may show a product with the padding's zero, one by one.

    spot: image, first input channel, first output, outputs, first position, positions of rows (outputs,
    positions). Positions that see only zeros are left as they are: their sums are +0 either way.
    """
    image, base, first, some, start, count = spot
    zeros = 0
    for o in range(some):
        row = rows[o, :count]
        for t in range(count):
            zeros += row[t] == 0
    if finite and zeros == 0:
        return
    kh, kw = w.shape[2:]
    height, width = x.shape[2:]
    for t in range(count):
        top = (start + t) // ow * sizes[0] - sizes[2]
        left = (start + t) % ow * sizes[1] - sizes[3]
        bottom, right = top + (kh - 1) * sizes[4], left + (kw - 1) * sizes[5]
        if top >= 0 and left >= 0 and bottom < height and right < width:
            continue
        known = False
        for o in range(some):
            if finite and (known or rows[o, t] != 0):
                continue
            total, live = _defined(x, w, image, base, first + o, top, left, sizes)
            rows[o, t] = total
            known = not live


@njit
def _defined(
    x: Any, w: Any, image: int, base: int, o: int, top: int, left: int, sizes: Any
) -> tuple[Any, bool]:
    """One output by the definition, its window beginning at (top, left), and whether it saw a nonzero."""
    total, live = x.dtype.type(0), False
    for c in range(w.shape[1]):
        for p in range(w.shape[2]):
            for q in range(w.shape[3]):
                i, j = top + p * sizes[4], left + q * sizes[5]
                if 0 <= i < x.shape[2] and 0 <= j < x.shape[3]:
                    value = x[image, base + c, i, j]
                    live |= value != 0
                    total = fma(w[o, c, p, q], value, total)
    return total, live
