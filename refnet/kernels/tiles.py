"""One tile of a convolution: a matrix product of weights and a panel of terms, in any order of terms.

    sums (outputs, positions) = steps over  weights (outputs, terms)  x  panel (terms, positions)

The terms of the packed weights, of the panel and of the offsets stand in the order of summation. A step
starts a chain from a seed, adds terms of the order to it one by one, and is the sum so far or is added to
it. Lanes run across positions, so each output is one such sum, whatever the vector width: the bits are those
of loops/conv.py run with the same order.

Where the geometry is in place, the blocks read the terms where they lie in the planes. Otherwise, and where
reading whole vectors would pass the end of the data, `fetch` gathers them into the panel first.

Padding: the fast blocks multiply zeros there. Multiplying a padding zero can only change the sign of a zero
result, unless a weight is NaN or infinite (adding +0 or -0 changes nothing but the sign of a zero). Where
terms in the padding are to be left out, such tiles are recomputed with masks: when a weight is not finite,
or when a sum is zero although one of its terms in the image is not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refnet.kernels.epilogue import store
from refnet.kernels.geometry import TERMS, touches_padding
from refnet.kernels.seeds import ADDEND, BIAS, NEGATIVE_ZERO, ZERO
from refnet.kernels.simd import (
    PITCH,
    TILE,
    block,
    copy,
    direct_block,
    masked_block,
    rounded_block,
    rounded_direct_block,
    rounded_masked_block,
)
from refnet.kernels.writer import ROWS, VECTOR
from refnet.loops.jit import njit

ON = 4
"""A step that starts from the sum so far, instead of from one of seeds.py."""

SEED, BEGIN, COUNT, FUSED, ADDED = range(5)
"""Columns of a table of steps: the seed, the first term of the order, how many, FMAs or rounded products,
whether the chain is added to the sum so far (or is it)."""

GO_ON, FROM_ZERO, ADD_TO = 1, 0, 2
"""What a block does with the existing sums: continue from them, overwrite them with a chain from +0, or add
a chain from +0 to them."""


class Summation(NamedTuple):
    """What is summed, besides the data: weights (groups, blocks, terms, ROWS) and steps (steps, 5) in order;
    bias (outputs,) and addend (n * outputs * positions,) are empty if no step starts from them.
    """

    weights: Any
    bias: Any
    addend: Any
    steps: Any


class Padding(NamedTuple):
    """left_out: terms in the padding contribute nothing (else they add w * 0). finite: all weights are.
    from_zero: every chain starts at +0, so lanes that see only zeros end at +0 or the bias either way.
    """

    left_out: bool
    finite: bool
    from_zero: bool


class Buffers(NamedTuple):
    """A thread's own memory. sums (rows, PITCH); chain, as sums, for what is to be added to them; panel
    (TILE / 2 vectors, TERMS, 2 vectors): columns of two vectors, one after another; mask, as the panel, or
    (0,) where there is none; line (TILE,): one term.
    """

    sums: Any
    chain: Any
    panel: Any
    mask: Any
    line: Any


@njit
def compute_tile(
    tile: Any, source: Any, geometry: Any, summation: Any, padding: Any, buffers: Any, y: Any, epilogue: Any
) -> None:
    """Write one tile's outputs to y (n * outputs * oh * ow,) through the epilogue. source: TileInput."""
    touches = padding.left_out and touches_padding(tile, geometry)
    masked = touches and not padding.finite
    while True:
        if masked:
            mask = np.zeros(buffers.panel.size, buffers.panel.dtype)
            buffers = Buffers(buffers.sums, buffers.chain, buffers.panel, mask, buffers.line)
        zeros = _follow_steps(
            tile, source, geometry, summation, buffers, y, epilogue, masked, touches and not masked
        )
        if zeros == 0 or (padding.from_zero and not _nonzero_sees_zero(tile, source, geometry, buffers)):
            break
        masked = True


@njit
def _follow_steps(
    tile: Any,
    source: Any,
    geometry: Any,
    summation: Any,
    buffers: Any,
    y: Any,
    epilogue: Any,
    masked: bool,
    counting: bool,
) -> int:
    """All steps, then the epilogue. masked: terms in the padding are left out. counting: returns how many
    sums are zero, otherwise 0.
    """
    sums, steps, zeros = buffers.sums, summation.steps, 0
    planes, offsets, total = source.planes, source.offsets, source.terms.shape[0]
    weights, panel, mask = summation.weights, buffers.panel, buffers.mask
    wide = 2 * VECTOR // sums.itemsize
    lanes = -(-tile.positions // wide) * wide
    direct = 0  # positions whose terms are read where they lie; the others are gathered
    if geometry.in_place and not masked:
        direct = tile.positions if geometry.padded else tile.positions // wide * wide
    for s in range(steps.shape[0]):
        seed, begin, count = steps[s, SEED], steps[s, BEGIN], steps[s, COUNT]
        fused, added = steps[s, FUSED] != 0, steps[s, ADDED] != 0
        quick = seed == ZERO and 0 < count <= TERMS  # one block is the whole chain
        target = buffers.chain if added and not quick else sums
        pieces = max(1, -(-count // TERMS))
        for piece in range(pieces):
            first = begin + piece * TERMS
            terms = min(TERMS, begin + count - first)
            if direct < tile.positions and terms > 0:
                fetch(tile, source, geometry, buffers, first, terms, direct)
                if masked:
                    _inside(tile, source, geometry, mask, first, terms)
            start = GO_ON
            if piece == 0 and seed == ZERO and count > 0:
                start = ADD_TO if added and quick else FROM_ZERO
            for b in range(-(-tile.rows // ROWS)):
                low = b * ROWS
                rows = min(ROWS, tile.rows - low)
                if piece == 0 and start == GO_ON and seed != ON:
                    _seed(seed, target, low, rows, lanes, tile, geometry, summation)
                if terms > 0:
                    _multiply(
                        tile, planes, offsets, weights, total, panel, mask, target, low, first, terms,
                        direct, start, fused, masked,
                    )  # fmt: skip
                if piece < pieces - 1:
                    continue
                if added and not quick:
                    _add(sums, target, low, rows, lanes)
                if s == steps.shape[0] - 1:
                    if counting:
                        zeros += _zeros(sums, low, rows, tile.positions)
                    store(sums, y, tile, geometry, low, rows, epilogue)
    return zeros


@njit
def _seed(
    seed: int, sums: Any, low: int, rows: int, lanes: int, tile: Any, geometry: Any, summation: Any
) -> None:
    """sums[low : low + rows] = the seed."""
    for o in range(low, low + rows):
        value = sums.dtype.type(0)
        if seed == BIAS:
            value = summation.bias[tile.output + o]
        if seed == NEGATIVE_ZERO:
            value = -value
        row = sums[o]
        for t in range(lanes):
            row[t] = value
        if seed == ADDEND:
            _load(sums, summation.addend, tile, o, geometry)


@njit
def _load(sums: Any, addend: Any, tile: Any, o: int, geometry: Any) -> None:
    """sums[o] = the addends of the tile's row o; lanes between the rows of the output stay what they are."""
    begin = (tile.row + o) * geometry.output_h * geometry.output_w
    lane, i, j = 0, tile.position // geometry.pitch, tile.position % geometry.pitch
    while lane < tile.positions:
        run = max(0, min(geometry.output_w - j, tile.positions - lane))
        at = begin + i * geometry.output_w + j
        copy(sums, o * sums.shape[1] + lane, addend, at, run)
        lane += geometry.pitch - j
        i += 1
        j = 0


@njit
def fetch(tile: Any, source: Any, geometry: Any, buffers: Any, first: int, terms: int, begin: int) -> None:
    """Fill the panel with `terms` terms from `first`, at the tile's positions from `begin` on.

    Position begin + t is lane t of the panel. What lies in the padding is zero; lanes behind the last
    position may hold anything.
    """
    g, x, planes, panel, line = geometry, source.x, source.planes, buffers.panel, buffers.line
    wide = 2 * VECTOR // panel.itemsize
    count = tile.positions - begin
    row0, column0 = (tile.position + begin) // g.pitch, (tile.position + begin) % g.pitch
    for k in range(terms):
        if g.in_place:
            at = tile.begin + begin + source.offsets[first + k]
            for lane in range(0, count, wide):
                if at + lane + wide <= planes.size:
                    copy(panel, lane * TERMS + k * wide, planes, at + lane, wide)
                else:
                    copy(panel, lane * TERMS + k * wide, planes, at + lane, planes.size - at - lane)
            continue
        c, p, q = source.terms[first + k, 0], source.terms[first + k, 1], source.terms[first + k, 2]
        sw = g.stride_w
        lane, i, j = 0, row0, column0
        while lane < count:
            run = min(g.pitch - j, count - lane)  # lanes in this row of the output
            row = i * g.stride_h - g.pad_h + p * g.dilation_h
            left = j * sw - g.pad_w + q * g.dilation_w
            lo = hi = run  # lanes lo to hi of the run lie inside the image
            if row >= 0 and row < g.height:
                lo = min(run, 0 if left >= 0 else (-left + sw - 1) // sw)
                hi = max(lo, min(run, (g.width - left + sw - 1) // sw))
            for t in range(lo):
                line[lane + t] = 0
            for t in range(hi, run):
                line[lane + t] = 0
            if lo < hi:
                values = x[tile.image, tile.channel + c, row, left + lo * sw :]
                target = line[lane + lo : lane + hi]
                if sw == 2:  # a constant stride is read by vectors
                    for t in range(target.size):
                        target[t] = values[2 * t]
                else:
                    for t in range(target.size):
                        target[t] = values[sw * t]
            lane += run
            i += 1
            j = 0
        for lane in range(0, count, wide):
            copy(panel, lane * TERMS + k * wide, line, lane, wide)


@njit
def _inside(tile: Any, source: Any, geometry: Any, mask: Any, first: int, terms: int) -> None:
    """mask = 1 where the panel's term lies inside the image, else 0, for all of the tile's positions."""
    g = geometry
    wide = 2 * VECTOR // mask.itemsize
    for lane in range(tile.positions):
        column = lane // wide * wide * TERMS + lane % wide
        top = (tile.position + lane) // g.pitch * g.stride_h - g.pad_h
        left = (tile.position + lane) % g.pitch * g.stride_w - g.pad_w
        for k in range(terms):
            i = top + source.terms[first + k, 1] * g.dilation_h
            j = left + source.terms[first + k, 2] * g.dilation_w
            mask[column + k * wide] = 1 if 0 <= i < g.height and 0 <= j < g.width else 0


@njit
def _multiply(
    tile: Any,
    planes: Any,
    offsets: Any,
    weights: Any,
    total: int,
    panel: Any,
    mask: Any,
    sums: Any,
    low: int,
    first: int,
    terms: int,
    direct: int,
    start: int,
    fused: bool,
    masked: bool,
) -> None:
    """Rows low to low + ROWS of sums: `terms` terms from `first` on of one block of weights, times data.

    total: terms of a block. The first `direct` positions are read from the planes, the others from the
    panel. (Arrays come one by one: taking them out of a tuple for each block costs some percent of a run.)
    """
    wide = 2 * VECTOR // sums.itemsize
    w = ((tile.block + low // ROWS) * total + first) * ROWS
    for lane in range(0, direct, wide):
        at, begin = low * PITCH + lane, tile.begin + lane
        if fused:
            direct_block(weights, w, planes, offsets, begin, sums, at, terms, start, first)
        else:
            rounded_direct_block(weights, w, planes, offsets, begin, sums, at, terms, start, first)
    for lane in range(0, tile.positions - direct, wide):
        at, column = low * PITCH + direct + lane, lane * TERMS
        if masked and fused:
            masked_block(weights, w, panel, mask, column, sums, at, terms, start, 0)
        elif masked:
            rounded_masked_block(weights, w, panel, mask, column, sums, at, terms, start, 0)
        elif fused:
            block(weights, w, panel, mask, column, sums, at, terms, start, 0)
        else:
            rounded_block(weights, w, panel, mask, column, sums, at, terms, start, 0)


@njit
def _add(sums: Any, chain: Any, low: int, rows: int, lanes: int) -> None:
    """sums[low : low + rows] += chain[low : low + rows], the first lanes."""
    for o in range(low, low + rows):
        total, more = sums[o, :lanes], chain[o, :lanes]
        for t in range(total.size):
            total[t] += more[t]


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
def _nonzero_sees_zero(tile: Any, source: Any, geometry: Any, buffers: Any) -> bool:
    """Whether a position with a term that is not zero has a sum that is zero.

    A position that sees only zeros needs no masks: its sums are +0 either way.
    """
    panel, sums = buffers.panel, buffers.sums
    wide = 2 * VECTOR // panel.itemsize
    live = np.zeros(TILE, np.bool_)
    for first in range(0, source.terms.shape[0], TERMS):
        terms = min(TERMS, source.terms.shape[0] - first)
        fetch(tile, source, geometry, buffers, first, terms, 0)
        for t in range(tile.positions):
            column = t // wide * wide * TERMS + t % wide
            for k in range(terms):
                live[t] |= panel[column + k * wide] != 0
    for t in range(tile.positions):
        if live[t]:
            for o in range(tile.rows):
                if sums[o, t] == 0:
                    return True
    return False
