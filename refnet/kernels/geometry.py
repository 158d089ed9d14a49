"""Where the terms of a convolution lie: named numbers for kernels, and how an output is cut into tiles.

Numba takes a NamedTuple as its fields, so kernels read `geometry.pad_h` at no cost. It takes a plain tuple
from Python faster than a named one, so callers pass `tuple(...)` and kernels name it first:

    geometry = PlaneGeometry(*geometry)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.core.engine import ConvGeometry
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.memory import empty
from refnet.kernels.simd import TILE, copy
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

PER_THREAD = 4
"""With fewer work items per thread than this, a tile's outputs are divided among the threads, too."""

TERMS = 256
"""Terms per panel: 256 KiB of float32 with TILE positions, which stay in the second-level cache; the 32 KiB
that one column of blocks reads stay in the first."""


class PlaneGeometry(NamedTuple):
    """Where windows lie in one plane (height, width) of the input, and outputs in theirs.

    Output (i, j) reads term (p, q) of the kernel at row i * stride_h - pad_h + p * dilation_h, and the
    column alike. Positions number the outputs of a plane row by row, `pitch` of them from row to row.
    in_place: 1 if a term's positions lie side by side in the planes that the kernel is given; then a
    position is an element of a plane with its padding, pitch is the width of that plane, and the positions
    between the rows of the output are computed and left out. Otherwise pitch is the output's width.
    padded: 1 if these planes are a copy with zeros around them and at least TILE elements behind them;
    otherwise they are the data itself, behind which nothing may be read.
    """

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    height: int
    width: int
    kernel_h: int
    kernel_w: int
    output_h: int
    output_w: int
    pitch: int
    in_place: int
    padded: int


class Tile(NamedTuple):
    """The outputs of one work item: `rows` channels from `output` on x `positions` from number `position` on.

    image: its number. channel: the group's first input channel. row: image * outputs + output. block: the
    number of its first block of ROWS outputs, all groups counted. begin: the element of the planes that the
    first position is, for geometries in place.
    """

    image: int
    channel: int
    output: int
    row: int
    rows: int
    block: int
    position: int
    positions: int
    begin: int


class TileInput(NamedTuple):
    """What a tile reads: x (n, c, h, w); planes (n, elements), x or x with padding.

    Both of the following are in the order of summation: terms (terms, 3), each one's channel within the
    group, kernel row and kernel column; offsets (terms,), where each begins in the planes, or (0,) if the
    geometry is not in place.
    """

    x: Any
    planes: Any
    terms: Any
    offsets: Any


@dataclass(frozen=True, eq=False)
class Layout:
    """How a convolution is computed in tiles.

    output: its shape. work: multiply-adds. slack: elements behind the padded planes. terms, offsets: as in
    TileInput, in plain order (channel, kernel row, kernel column). items: (image, group, tile of positions).
    """

    output: tuple[int, int, int, int]
    work: int
    geometry: PlaneGeometry
    slack: int
    terms: Array
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
    oh, ow = ConvGeometry(stride, pad, dilation, groups).output((height, width), (kh, kw))
    tall, wide = height + 2 * pad[0], width + 2 * pad[1]
    size, made = n * channels * height * width, n * outputs * oh * ow
    # far more padding than image would be far more work in place
    in_place = stride == (1, 1) and n * channels * tall * wide <= 4 * (size + made) + TILE * TERMS
    pitch = wide if in_place else ow
    padded = in_place and ((kh, kw) != (1, 1) or pad != (0, 0))
    axes = np.indices((depth, kh, kw)).reshape(3, -1)  # channel, kernel row, kernel column of each term
    c, p, q = axes
    offsets = (c * tall + p * dilation[0]) * wide + q * dilation[1] if in_place else np.zeros(0)
    return Layout(
        output=(n, outputs, oh, ow),
        work=made * depth * kh * kw,
        geometry=PlaneGeometry(
            *(*stride, *pad, *dilation, height, width, kh, kw, oh, ow, pitch, int(in_place), int(padded))
        ),
        slack=(kw - 1) * dilation[1] + TILE,
        terms=np.ascontiguousarray(axes.T, np.int64),
        offsets=offsets.astype(np.int64),
        items=n * groups * -(-((oh - 1) * pitch + ow) // TILE),
    )


def padded_planes(x: Array, pad: Pair, slack: int, threads: int) -> Array:
    """x (n, c, h, w) as (n, c * (h + 2 ph) * (w + 2 pw) + slack): zeros around each plane."""
    n, c, h, w = x.shape
    tall, wide = h + 2 * pad[0], w + 2 * pad[1]
    planes = empty((n, c * tall * wide + slack), x.dtype)
    parallel_for(
        _pad, n * c, threads_for(threads, planes.size), x.reshape(n * c, h, w), planes, c, tall, wide, *pad
    )
    return planes


@njit
def _pad(work: Any, x: Any, planes: Any, c: int, tall: int, wide: int, ph: int, pw: int) -> None:
    """Items: planes of x (n * c, h, w)."""
    h, w = x.shape[1:]
    begin, end = chunk(work)
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
        begin, end = next_chunk(work)


@njit
def touches_padding(tile: Any, geometry: Any) -> bool:
    """Whether some term of the tile's positions lies in the padding."""
    g = geometry
    last = tile.position + tile.positions - 1
    top, bottom = tile.position // g.pitch, last // g.pitch
    if top * g.stride_h < g.pad_h:
        return True
    if bottom * g.stride_h - g.pad_h + (g.kernel_h - 1) * g.dilation_h >= g.height:
        return True
    left, right = (tile.position % g.pitch, last % g.pitch) if top == bottom else (0, g.output_w - 1)
    right = min(right, g.output_w - 1) * g.stride_w - g.pad_w + (g.kernel_w - 1) * g.dilation_w
    return bool(left * g.stride_w < g.pad_w or right >= g.width)
