"""Convolution in tiles, in any order that is a sum of chains from left to right: one kernel, order is data.

A sum is a list of steps. Each starts a chain from a seed (+0; -0, which keeps the first product unchanged,
its sign included; the bias; the addend, an array of the output's shape; or the sum so far), adds `count`
terms of the order to it, and then is the sum so far or is added to it:

    (((0 + terms 0..127) + (0 + terms 128..255)) + bias)    two chains and the bias, which has no terms

`plain` is one such chain over channel, kernel row, kernel column; `golden` takes one per TERMS terms, and
bounds the error of each; a recipe of a book has any order. The order costs nothing: it is that of the packed
weights and of the panel, or of the offsets into the planes. Lanes run across positions, threads split
outputs only, so the bits are those of loops/conv.py, whatever the threads, the batch and the position.
tiles.py computes one tile, and says what becomes of the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.engine import NOTHING, Epilogue
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.epilogue import EpilogueTables, tables
from refnet.kernels.geometry import (
    TERMS,
    Layout,
    PlaneGeometry,
    Tile,
    TileInput,
    layout,
    padded_planes,
)
from refnet.kernels.memory import empty, scratch
from refnet.kernels.narrow import band_offsets, band_plan, narrow, narrow_bands, pack_narrow
from refnet.kernels.narrow_padding import least_exact
from refnet.kernels.ordered_channels import conv_across_channels_in_order, ordered_layout
from refnet.kernels.program import Window
from refnet.kernels.resources import cached, readonly
from refnet.kernels.seeds import ADDEND, ZERO
from refnet.kernels.simd import PITCH, TILE
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.kernels.tiles import (
    COUNT,
    SEED,
    Buffers,
    Padding,
    Summation,
    compute_tile,
)
from refnet.kernels.writer import ROWS
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

FEW = 3
"""With fewer outputs per group bands (narrow.py) compute them: a block would be mostly empty."""


@dataclass(frozen=True, eq=False)
class Segments:
    """order (terms,); steps (steps, 5): seed, first place in the order, count, fused, added.

    Where `added` is 0 the chain is the sum so far, as in the first step; else it is added to it.
    """

    order: Array
    steps: Array

    @property
    def from_zero(self) -> bool:
        """True if every chain starts at +0: then a lane that sees only zeros ends at +0, or at the bias."""
        return bool(((self.steps[:, COUNT] == 0) | (self.steps[:, SEED] == ZERO)).all())


@lru_cache(maxsize=4096)
def chains_of(terms: int, length: int) -> Segments:
    """Terms in plain order, each `length` of them a chain of FMAs from +0, and these added in turn."""
    begins = range(0, max(terms, 1), length)
    steps = [(ZERO, begin, min(length, terms - begin), True, begin > 0) for begin in begins]
    return Segments(np.arange(terms), np.array(steps, np.int64))


def depth(w: Array, groups: int) -> int:
    """The most additions (an FMA counts as one) that a term of `convolve_in_segments` passes."""
    terms = int(w[0].size)
    length = _length(w, groups)
    return min(terms, length) + max(0, -(-terms // length) - 1)


def _length(w: Array, groups: int) -> int:
    """The number of terms per segment of `convolve_in_segments`; all of them if few outputs are computed."""
    return TERMS if w.shape[0] // groups >= FEW else max(1, int(w[0].size))


def convolve_in_segments(
    x: Array,
    w: Array,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    threads: int,
    epilogue: Epilogue = NOTHING,
) -> Array:
    """As `panel.convolve`, but each TERMS terms are a chain of their own, and these are added in turn.

    So the error bound grows with TERMS and not with all terms (`depth`). Few outputs per group are one chain.
    """
    x, w = checked(x, w, groups)
    plan = layout(x.shape, w.shape, stride, pad, dilation, groups)
    order = chains_of(w[0].size, _length(w, groups))
    return tiled(x, w, None, plan, groups, False, order, threads, epilogue)


def convolve_in_order(
    x: Array,
    w: Array,
    bias: Array | None,
    window: Window,
    zero: bool,
    segments: Segments,
    threads: int,
    epilogue: Epilogue = NOTHING,
    addend: Array | None = None,
) -> Array:
    """Convolution of ops/conv.py for x (n, c, h, w), w (o, c / groups, kh, kw), summed in this order.

    bias (o,), addend (n, o, oh, ow): where the steps say. zero: terms outside the image add w * (+0);
    otherwise they are left out. epilogue: pointwise steps that follow.
    """
    x, w = checked(x, w, window.groups)
    if w[0].size != segments.order.size:
        raise ValueError(f"an order of {segments.order.size} terms does not fit weights {w.shape}")
    plan = layout(x.shape, w.shape, window.stride, window.pad, window.dilation, window.groups)
    if plan.output[2:] != window.size:
        raise ValueError(f"an output of {window.size}, computed is {plan.output[2:]}")
    _check_addend(addend, segments, plan)
    how = ordered_layout(x.shape, w.shape, window, segments) if x.dtype == np.float32 else None
    if how is not None:
        return conv_across_channels_in_order(
            x, w, bias, addend, how, window.groups, zero, segments, threads, epilogue
        )
    return tiled(x, w, bias, plan, window.groups, zero, segments, threads, epilogue, addend)


def checked(x: Array, w: Array, groups: int) -> tuple[Array, Array]:
    """x (n, c, h, w) and w (o, c / groups, kh, kw), contiguous. The kernels do not check shapes."""
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(f"weights {w.shape} in {groups} groups do not fit data {x.shape}")
    return np.ascontiguousarray(x), np.ascontiguousarray(w)


def _check_addend(addend: Array | None, segments: Segments, plan: Layout) -> None:
    """Raise ValueError unless there is an addend of the output's size exactly if a step adds one."""
    wanted = bool((segments.steps[:, SEED] == ADDEND).any())
    size, needed = 0 if addend is None else addend.size, prod(plan.output) if wanted else 0
    if wanted != (addend is not None) or size != needed:
        raise ValueError(
            f"an addend of {size} elements does not fit the steps and {prod(plan.output)} outputs"
        )


def tiled(
    x: Array,
    w: Array,
    bias: Array | None,
    plan: Layout,
    groups: int,
    zero: bool,
    segments: Segments,
    threads: int,
    epilogue: Epilogue,
    addend: Array | None = None,
) -> Array:
    """The convolution of this layout; arguments as of `convolve_in_order`, checked."""
    y, outputs = empty(plan.output, x.dtype), w.shape[0]
    more = np.zeros(0, x.dtype) if addend is None else np.ascontiguousarray(addend).reshape(-1)
    _check_addend(addend, segments, plan)
    few = outputs // groups < FEW or narrow(outputs // groups, w.shape[1], plan.work)
    threads = threads_for(threads, plan.work // (4 if few else 16))
    shift = np.zeros(outputs, x.dtype) if bias is None else bias
    terms, offsets = cached((w,), ("terms", segments, plan), lambda: _terms(plan, segments))
    planes = x.reshape(x.shape[0], prod(x.shape[1:]))
    if few:
        return _narrow(x, w, shift, more, plan, groups, zero, segments, threads, epilogue, y)
    packed, finite = cached((w,), ("packed", groups, segments), lambda: _packed(w, groups, segments))
    if plan.geometry.padded:
        pad = plan.geometry.pad_h, plan.geometry.pad_w
        planes = padded_planes(x, pad, plan.slack, threads)
    parts = plan.parts(packed.shape[1], threads)
    source = (readonly(x), readonly(planes), terms, offsets)
    summation = (packed, readonly(shift), readonly(more), segments.steps)
    padding = (not zero, finite, segments.from_zero)
    steps = tables(epilogue, y.shape, y.dtype)
    parallel_for(
        _tiles,
        plan.items * parts,
        threads,
        source,
        summation,
        y,
        tuple(plan.geometry),
        padding,
        parts,
        steps,
    )
    return y


def _narrow(
    x: Array,
    w: Array,
    shift: Array,
    addend: Array,
    plan: Layout,
    groups: int,
    zero: bool,
    segments: Segments,
    threads: int,
    epilogue: Epilogue,
    y: Array,
) -> Array:
    """`tiled` for few outputs per group, into y; shift (outputs,), addend: arrays, perhaps of no elements."""
    if y.size == 0:
        return y
    sizes = groups, w.shape[1], w.shape[0] // groups, x.itemsize
    bands = band_plan(plan.geometry, *sizes, threads)

    def prepared() -> tuple[Array, Array, Array, Array, Array, bool]:
        ordered, terms = _ordered(w, segments), plan.terms[segments.order]
        packed = pack_narrow(ordered, groups, bands.block)
        offsets = band_offsets(plan.geometry, bands, terms)
        return (
            readonly(ordered),
            readonly(packed),
            readonly(terms),
            readonly(offsets),
            readonly(least_exact(ordered)),
            bool(np.isfinite(w).all()),
        )

    ordered, packed, terms, offsets, least, finite = cached((w,), ("narrow", segments, plan, bands), prepared)
    source = (readonly(x), ordered, terms, offsets, least)
    summation = (packed, readonly(shift), readonly(addend), segments.steps)
    padding = (not zero, finite, segments.from_zero)
    steps = tables(epilogue, y.shape, y.dtype)
    items, geometry = x.shape[0] * bands.sets * bands.bands, tuple(plan.geometry)
    parallel_for(narrow_bands, items, threads, source, summation, y, geometry, tuple(bands), padding, steps)
    return y


def _terms(plan: Layout, segments: Segments) -> tuple[Array, Array]:
    """The terms and offsets of a TileInput, in this order."""
    in_place = plan.geometry.in_place
    return plan.terms[segments.order], plan.offsets[segments.order] if in_place else plan.offsets


def _ordered(w: Array, segments: Segments) -> Array:
    """w (o, terms), the terms in order."""
    return np.ascontiguousarray(w.reshape(w.shape[0], -1)[:, segments.order])


def _packed(w: Array, groups: int, segments: Segments) -> tuple[Array, bool]:
    """The weights packed in order, and whether all of them are finite."""
    ordered = _ordered(w, segments)
    return pack(ordered.reshape(groups, w.shape[0] // groups, -1)), bool(np.isfinite(w).all())


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
def _tiles(
    work: Any, source: Any, summation: Any, y: Any, geometry: Any, padding: Any, parts: int, epilogue: Any
) -> None:
    """y (n, outputs, oh, ow). Items: (image, group, tile of positions, part of the group's blocks of
    outputs), part fastest.
    """
    source, summation, padding = TileInput(*source), Summation(*summation), Padding(*padding)
    geometry, epilogue = PlaneGeometry(*geometry), EpilogueTables(*epilogue)
    x, planes = source.x, source.planes
    groups, blocks = summation.weights.shape[:2]
    outputs, flat = y.shape[1], y.reshape(-1)
    channels, per = x.shape[1] // groups, outputs // groups
    positions = (geometry.output_h - 1) * geometry.pitch + geometry.output_w
    tiles = -(-positions // TILE)
    plane = (geometry.height + 2 * geometry.pad_h) * geometry.pitch  # elements of one, if in place
    rows = -(-blocks // parts) * ROWS
    sums = scratch(rows * PITCH, x).reshape(-1, PITCH)
    chain = scratch(rows * PITCH, x).reshape(-1, PITCH) if summation.steps.shape[0] > 1 else sums
    panel, line = scratch(TILE * TERMS, x), np.zeros(TILE, x.dtype)
    buffers = Buffers(sums, chain, panel, np.zeros(0, x.dtype), line)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            part, number = item % parts, item // parts % tiles
            group, image = item // parts // tiles % groups, item // parts // tiles // groups
            low, high = blocks * part // parts, blocks * (part + 1) // parts
            output, position = group * per + low * ROWS, number * TILE
            tile = Tile(
                image,
                group * channels,
                output,
                image * outputs + output,
                min(high * ROWS, per) - low * ROWS,
                group * blocks + low,
                position,
                min(TILE, positions - position),
                image * planes.shape[1] + group * channels * plane + position,
            )
            compute_tile(tile, source, geometry, summation, padding, buffers, flat, epilogue)
        begin, end = next_chunk(work)
