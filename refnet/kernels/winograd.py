"""Golden's 3x3 convolutions of stride 1 with 4 products per output and channel instead of 9.

Winograd's F(2x2, 3x3) (S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray, Fast
Algorithms for Convolutional Neural Networks, 2015): the 2x2 outputs of a tile are

    A' [ sum over channels of (G g G') * (B' d B) ] A       d: the 4x4 inputs that they see, g: the kernel

with an elementwise product. In float32 this loses bits, and no order of the sum explains the result. Here it
is only an estimate in float64 with a proven error; what the error leaves open is computed exactly, as always.

    input (rows even and odd, columns even and odd) ── transform_input ── 16 matrix products (add_chain)
    ── transform_output ── transposed ── bias, addend, decision (exact_conv.decide_rows)

The error. Every number is computed from inputs and weights by additions and products alone, no more than

    K = 2 (B' d B) + 4 (G g G') + additions of the channels + 4 (A' [ ] A)

roundings in a row, so it is off by gamma(K) times what the same expression gives for absolute values (Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., lemma 3.1): the sum over channels and the elements of
the tile of (|G| |g| |G'|) (|B'| |d| |B|). By Cauchy-Schwarz that is at most

    norm(|G| |g| |G'|) * norm(|B'| |d| |B|) <= norm(|G| |g| |G'|) * 5.237 * norm(d)

where 5.237 is above the square of the largest singular value of |B'| (INPUT; a test computes it). Inputs and
weights must be finite, because a tile adds and subtracts inputs that an output does not see. Nothing
underflows: every number that is not zero is above 2**-320.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.core.engine import ConvGeometry
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.decisions import squares
from refnet.kernels.exact_block import WIDE, transform_input, transform_output
from refnet.kernels.exact_conv import (
    CHAIN,
    LANES,
    LEAST,
    Bounds,
    add_chain,
    decide_rows,
    pack_chains,
    square_sums,
    turn,
)
from refnet.kernels.exact_steps import Tables
from refnet.kernels.lanes import GROUP
from refnet.kernels.memory import doubt, empty, scratch
from refnet.kernels.resources import cached, readonly
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float64)
"""B', the transform of the input."""
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float64)
"""G, the transform of the kernel."""
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float64)
"""A', the transform of the products."""
INPUT = 5.237
"""Above the square of the largest singular value of |B'|."""
ROUNDINGS = 10
"""Roundings of the three transforms, in a row."""
SHALLOW = 16
"""Fewer channels than this are not worth the transforms."""
ROOM = 704 << 10
"""Bytes of a band's transformed inputs and products: they stay in the second-level cache."""


class Tiling(NamedTuple):
    """How an item's outputs are cut. groups, depth: and channels of each. rows: of tiles in a band, at most.
    bands: of an image. columns: of tiles in a row. pitch: elements of a transformed channel, an odd number of
    cache lines so that channels do not compete for the same ones.
    """

    groups: int
    depth: int
    rows: int
    bands: int
    columns: int
    pitch: int
    pad_h: int
    pad_w: int


@lru_cache(maxsize=4096)
def suits_tiles(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, pad: Pair, dilation: Pair, groups: int
) -> bool:
    """Whether tiles compute clearly fewer products; for what exact_conv `suits`."""
    if w[2:] != (3, 3) or stride != (1, 1) or dilation != (1, 1) or w[1] < SHALLOW:
        return False
    oh, ow = ConvGeometry(stride, pad, dilation, groups).output((x[2], x[3]), (3, 3))
    return 16 * -(-oh // 2) * -(-ow // 2) <= 6 * oh * ow


def decided_by_tiles(
    x: Array,
    w: Array,
    pad: Pair,
    groups: int,
    bias: Array,
    addend: Array,
    factor: float,
    threads: int,
    steps: Tables = (),
) -> tuple[Array, Array] | None:
    """As exact_conv.decided, where it `suits_tiles`; None if an input is not finite.

    factor: the error factor for `additions` of the channels, ROUNDINGS, bias, addend and 2 more
    (decide_pass).
    """
    (n, _, height, width), (outputs, depth) = x.shape, w.shape[:2]
    oh, ow = height + 2 * pad[0] - 2, width + 2 * pad[1] - 2
    odd = doubt()
    norms = tile_norms(x, (oh, ow), pad, groups, threads, odd)
    if odd[0]:
        return None
    packed, scale = cached((w,), ("tiles", groups), lambda: pack_tiles(w, groups))
    per_tile = 16 * 8 * (depth + WIDE * LANES)
    tall, columns = -(-oh // 2), -(-ow // 2)
    bands = -(-tall // max(1, ROOM // (per_tile * (columns + 1))))
    rows = -(-tall // bands)
    bands = -(-tall // rows)
    lines = -(-rows * (columns + 1) // LANES) | 1
    tiling = Tiling(groups, depth, rows, bands, columns, lines * LANES, *pad)
    y, unsure = empty((n, outputs, oh, ow), np.float32), empty((n * outputs * oh * ow,), np.bool_)
    threads = threads_for(threads, y.size * depth // 2)
    blocks, items = packed.shape[1], n * groups * bands
    parts = min(blocks, -(-LEAST * threads // items)) if threads > 1 else 1
    bounds = (norms.reshape(-1), scale * (INPUT * factor), bias, addend.reshape(-1), factor, steps)
    parallel_for(_tiles, items * parts, threads, readonly(x), packed, y, unsure, tuple(tiling), parts, bounds)
    return y, unsure


def pack_tiles(w: Array, groups: int) -> tuple[Array, Array]:
    """G g G' of each output and channel, (groups, blocks, 16 * channels, two vectors), elements of the tile
    before channels; and the norm of |G| |g| |G'| for each output, (o,).
    """
    wide = w.astype(np.float64)
    outputs, depth = w.shape[:2]
    made = np.einsum("kp,ocpq,lq->oklc", G, wide, G, optimize=True)  # each a chain of 2 + 2 additions
    sizes = np.einsum("kp,ocpq,lq->ockl", np.abs(G), np.abs(wide), np.abs(G), optimize=True)
    norms = np.sqrt(np.square(sizes).sum((1, 2, 3)))
    return readonly(pack_chains(made.reshape(outputs, 16 * depth, 1, 1), groups)), norms


def tile_norms(x: Array, output: Pair, pad: Pair, groups: int, threads: int, odd: Array) -> Array:
    """(n, groups, oh, ow): the norm of the 4x4 inputs of each output's tile, of each group's channels; odd[0]
    becomes 1 if one is not finite.
    """
    n, tiles = x.shape[0], (-(-output[0] // 2), -(-output[1] // 2))
    norms = square_sums(squares(x, groups, threads), (4, 4), (2, 2), pad, (1, 1), tiles, threads)
    y = empty((n, groups, *output), np.float64)
    rows, planes = y.reshape(n * groups, *output), norms.reshape(n * groups, *tiles)
    parallel_for(_spread, n * groups, threads_for(threads, y.size), planes, rows, odd)
    return y


@njit
def _spread(work: Any, norms: Any, y: Any, odd: Any) -> None:
    """y (planes, oh, ow): the norm of each output's tile, of norms (planes, tiles, tiles). Items: planes."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            for i in range(y.shape[1]):
                line, tiles = y[item, i], norms[item, i // 2]
                total = 0.0
                for j in range(line.size):
                    line[j] = tiles[j // 2]
                    total += tiles[j // 2]
                if not total < np.inf:
                    odd[0] = 1
        begin, end = next_chunk(work)


@njit
def _tiles(work: Any, x: Any, packed: Any, y: Any, unsure: Any, tiling: Any, parts: int, bounds: Any) -> None:
    """y (n, outputs, oh, ow). Items: (image, group, band of rows of tiles, part of the group's blocks of
    channels), part fastest.
    """
    tiling, bounds = Tiling(*tiling), Bounds(*bounds)
    groups, blocks, _, wide = packed.shape
    depth, pitch, across = tiling.depth, tiling.pitch, tiling.columns + 1
    oh, ow, tall = y.shape[2], y.shape[3], (y.shape[2] + 1) // 2
    per, flat, lanes, size = y.shape[1] // groups, y.reshape(-1), wide // 2, oh * ow
    most = tiling.rows * tiling.columns
    plane = (tiling.rows + 1) * across
    planes = scratch(4 * plane + pitch + across + 2, bounds.norms)  # whole vectors are read
    planes[:] = 0
    data = scratch(16 * depth * pitch, bounds.norms)
    products = scratch(16 * (most + GROUP) * wide, bounds.norms)
    step = (most + GROUP) * wide
    places = -(-(2 * tiling.rows * ow) // lanes) * lanes
    sums = scratch((places + lanes) * wide, bounds.norms)
    rows = scratch(wide * places, bounds.norms).reshape(wide, places)
    offsets, windows = np.arange(depth) * pitch, np.zeros(most + GROUP, np.int64)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            part, band = item % parts, item // parts % tiling.bands
            group, image = item // parts // tiling.bands % groups, item // parts // tiling.bands // groups
            first = tall * band // tiling.bands
            many = tall * (band + 1) // tiling.bands - first
            count, positions = many * tiling.columns, min(2 * many, oh - 2 * first) * ow
            for t in range(windows.size):
                windows[t] = min(t, count - 1) // tiling.columns * across + min(t, count - 1) % tiling.columns
            for c in range(depth):
                _lay(planes, x[image, group * depth + c], first, many, plane, across, tiling)
                transform_input(planes, plane, across, data, c * pitch, depth * pitch, many * across)
            for b in range(blocks * part // parts, blocks * (part + 1) // parts):
                weights = packed[group, b].reshape(-1)
                for k in range(16):
                    for c in range(0, depth, CHAIN):
                        some, start = min(CHAIN, depth - c), 2 if c else 0
                        add_chain(
                            weights, (k * depth + c) * wide, data, k * depth * pitch, offsets, c, windows,
                            products, k * step, count, some, start, tiling.bands == 1,
                        )  # fmt: skip
                for t in range(count):
                    i, j = t // tiling.columns, t % tiling.columns
                    at = (2 * i * ow + 2 * j) * wide
                    right = at + wide if 2 * j + 1 < ow else places * wide  # outside: to where nobody looks
                    below = at + ow * wide if (2 * i + 1) * ow < positions else places * wide
                    last = below + wide if 2 * j + 1 < ow and below < places * wide else places * wide
                    transform_output(products, t * wide, step, sums, at, right, below, last)
                turn(sums, rows, positions)
                at = 2 * first * ow
                place = (image * groups + group) * size + at, group * per + b * wide, image, at, size
                some = min(wide, per - b * wide)
                decide_rows(rows, 0, positions, some, flat, unsure, place, y.shape[1], bounds)
        begin, end = next_chunk(work)


@njit
def _lay(planes: Any, x: Any, first: int, many: int, plane: int, across: int, tiling: Any) -> None:
    """What the tiles of rows first to first + many see of x (h, w), in float64, zeros in the padding: planes
    (2, 2, many + 1, across), by whether row and column of the padded image are even or odd.
    """
    height, width = x.shape
    for i in range(many + 1):
        for odd in range(2):
            row = 2 * (first + i) + odd - tiling.pad_h
            for right in range(2):
                at = (2 * odd + right) * plane + i * across
                line = planes[at : at + across]
                begin = right - tiling.pad_w  # of column t: 2 t + begin
                low = min(across, max(0, (1 - begin) // 2))
                high = max(low, min(across, (width - begin + 1) // 2))
                if row < 0 or row >= height:
                    low = high = across
                for t in range(low):
                    line[t] = 0
                for t in range(high, across):
                    line[t] = 0
                if low < high:
                    values = x[row, 2 * low + begin :]
                    inside = line[low:high]
                    for t in range(inside.size):
                        inside[t] = values[2 * t]
