"""One tile of a convolution, step by step: what kernels/segments.py does with each of its work items.

Two bundles go through all functions:

    source = x (n, c, h, w), padded planes, offsets of the terms in them (or none), terms (T, 3) in order as
             channel, row, column in the kernel, place (strides, pads, dilations), shape (h, w, kh, kw,
             positions from row to row, whether x or the planes can be read in whole pieces)
    spot   = image, first channel of the group, where the tile begins in the planes, first position, positions

and sums (rows of outputs, PITCH), one lane per position. What each function computes is in the order of the
terms; nothing else decides a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.kernels.panel import TERMS, _zeros
from refnet.kernels.simd import (
    PITCH,
    ROWS,
    TILE,
    VECTOR,
    copy,
    join_block,
    join_direct,
    masked_block,
    rounded_block,
    rounded_direct,
    rounded_masked,
)
from refnet.loops.jit import njit

ZERO, FIRST, BIAS, ADDEND, ON = range(5)
"""Seeds of a step: +0, -0, the bias, another value's element, the sum so far."""


@njit
def follow_steps(
    source: Any, spot: Any, packed: Any, bias: Any, steps: Any, room: Any, rows: int, masked: bool
) -> None:
    """All steps for one tile. room = sums, where the result lies, fresh (as sums), panel, mask, and what a
    step may start from: the addend of each lane, as sums.

    packed (blocks, terms in order, ROWS); bias (rows,); steps as in Segments. masked: terms outside the image
    are left out, otherwise they are multiplied as zeros.
    """
    planes, offsets = source[1], source[2]
    sums, fresh, panel, mask, addend = room
    count = spot[4]
    step = 2 * VECTOR // sums.itemsize
    lanes = -(-count // step) * step
    direct = offsets.size > 0 and not masked
    for s in range(steps.shape[0]):
        seed, at, length, fused, adds = steps[s, 0], steps[s, 1], steps[s, 2], steps[s, 3], steps[s, 4]
        quick = adds and seed == ZERO and 0 < length <= TERMS and not masked
        target = fresh if adds and not quick else sums
        on = 2 if quick else 1
        if seed == ZERO and length > 0 and not quick:
            on = 0
        elif seed != ON and not quick:
            _seed(seed, target, rows, lanes, bias, addend)
        for first in range(at, at + length, TERMS):
            some = min(TERMS, at + length - first)
            if direct:
                _directly(packed, planes, offsets, spot[2], first, some, target, count, on, fused)
            else:
                fetch(source, spot, panel, first, some)
                if masked:
                    _inside(source, spot, mask, first, some)
                _multiply(packed, panel, mask, first, some, target, count, on, fused, masked)
            on = 1
        if adds and not quick:
            for o in range(rows):
                total, more = sums[o], fresh[o]
                for t in range(lanes):
                    total[t] += more[t]


@njit
def _seed(seed: int, sums: Any, rows: int, lanes: int, bias: Any, addend: Any) -> None:
    """sums = the seed."""
    for o in range(rows):
        if seed == ADDEND:
            for t in range(lanes):
                sums[o, t] = addend[o, t]
            continue
        value = sums.dtype.type(0)
        if seed == BIAS:
            value = bias[o]
        sums[o, :lanes] = -value if seed == FIRST else value


@njit
def fetch(source: Any, spot: Any, panel: Any, first: int, count: int) -> None:
    """Fill the panel with `count` terms from `first`, at the tile's positions.

    The panel holds columns of two vectors, one after another: (columns, TERMS, 2 vectors). What lies
    in the padding is zero; positions behind the last may hold anything.
    """
    x, planes, _, terms, place, shape = source
    image, plane, _, begin, positions = spot
    ph, dh, dw = place[2], place[4], place[5]
    span = shape[4]
    step = 2 * VECTOR // panel.itemsize
    size = (shape[0] + 2 * ph) * span
    line = np.zeros(TILE, x.dtype)
    for k in range(count):
        c, p, q = terms[first + k, 0], terms[first + k, 1], terms[first + k, 2]
        if shape[5]:
            at = image * planes[0].size + (plane + c) * size + p * dh * span + q * dw + begin
            for lane in range(0, positions, step):
                copy(panel, lane * TERMS + k * step, planes, at + lane, min(step, planes.size - at - lane))
            continue
        lane, i, j = 0, begin // span, begin % span
        while lane < positions:
            run = min(span - j, positions - lane)  # lanes in this row of the output
            _row(x[image, plane + c], line[lane : lane + run], i, j, p, q, place)
            lane += run
            i += 1
            j = 0
        for lane in range(0, positions, step):
            copy(panel, lane * TERMS + k * step, line, lane, step)


@njit
def _row(x: Any, line: Any, i: int, j: int, p: int, q: int, place: Any) -> None:
    """line = term (p, q) at the outputs of row i from column j on; zero outside of the plane x (h, w)."""
    sh, sw, ph, pw, dh, dw = place[0], place[1], place[2], place[3], place[4], place[5]
    height, width = x.shape
    row, left = i * sh - ph + p * dh, j * sw - pw + q * dw
    lo = hi = line.size  # outputs lo to hi lie inside the image
    if row >= 0 and row < height:
        lo = min(line.size, 0 if left >= 0 else (-left + sw - 1) // sw)
        hi = max(lo, min(line.size, (width - left + sw - 1) // sw))
    line[:lo] = 0
    line[hi:] = 0
    if lo < hi:
        source, target = x[row, left + lo * sw :], line[lo:hi]
        if sw == 2:  # a constant stride is read by vectors
            for t in range(target.size):
                target[t] = source[2 * t]
        else:
            for t in range(target.size):
                target[t] = source[sw * t]


@njit
def _inside(source: Any, spot: Any, mask: Any, first: int, count: int) -> None:
    """1 where the panel's term lies inside the image, else 0."""
    _, _, _, terms, place, shape = source
    height, width, span = shape[0], shape[1], shape[4]
    step = 2 * VECTOR // mask.itemsize
    for lane in range(spot[4]):
        column = lane // step * step * TERMS + lane % step
        top = (spot[3] + lane) // span * place[0] - place[2]
        left = (spot[3] + lane) % span * place[1] - place[3]
        for k in range(count):
            i, j = top + terms[first + k, 1] * place[4], left + terms[first + k, 2] * place[5]
            mask[column + k * step] = 1 if 0 <= i < height and 0 <= j < width else 0


@njit
def _multiply(
    packed: Any,
    panel: Any,
    mask: Any,
    first: int,
    terms: int,
    sums: Any,
    count: int,
    on: int,
    fused: bool,
    masked: bool,
) -> None:
    """sums = (sums if on == 1 else 0) + terms of the panel, one by one; on == 2: sums + (0 + terms ...)."""
    step = 2 * VECTOR // panel.itemsize
    for b in range(packed.shape[0]):
        weights, w = packed[b].reshape(-1), first * ROWS
        for lane in range(0, count, step):
            at = b * ROWS * PITCH + lane
            if masked and fused:
                masked_block(weights, w, panel, mask, lane * TERMS, sums, at, terms, on, 0)
            elif masked:
                rounded_masked(weights, w, panel, mask, lane * TERMS, sums, at, terms, on, 0)
            elif fused:
                join_block(weights, w, panel, mask, lane * TERMS, sums, at, terms, on, 0)
            else:
                rounded_block(weights, w, panel, mask, lane * TERMS, sums, at, terms, on, 0)


@njit
def _directly(
    packed: Any,
    planes: Any,
    offsets: Any,
    base: int,
    first: int,
    terms: int,
    sums: Any,
    count: int,
    on: int,
    fused: bool,
) -> None:
    """As _multiply, with the terms read where they lie in the padded planes (base + offsets[k])."""
    step = 2 * VECTOR // planes.itemsize
    for b in range(packed.shape[0]):
        weights, w = packed[b].reshape(-1), first * ROWS
        for lane in range(0, count, step):
            at = b * ROWS * PITCH + lane
            if fused:
                join_direct(weights, w, planes, offsets, base + lane, sums, at, terms, on, first)
            else:
                rounded_direct(weights, w, planes, offsets, base + lane, sums, at, terms, on, first)


@njit
def must_mask(source: Any, spot: Any, sums: Any, panel: Any, rows: int, from_zero: bool) -> bool:
    """Whether a sum is zero that terms in the padding may have given its sign."""
    count = spot[4]
    if _zeros(sums, 0, rows, count) == 0:
        return False
    if not from_zero:
        return True
    # a lane that saw only zeros is +0 either way; look for zero sums of other lanes
    step = 2 * VECTOR // panel.itemsize
    live = np.zeros(TILE, np.bool_)
    terms = source[3].shape[0]
    for first in range(0, terms, TERMS):
        some = min(TERMS, terms - first)
        fetch(source, spot, panel, first, some)
        for t in range(count):
            column = t // step * step * TERMS + t % step
            for k in range(some):
                live[t] |= panel[column + k * step] != 0
    for t in range(count):
        if live[t]:
            for o in range(rows):
                if sums[o, t] == 0:
                    return True
    return False
