"""Convolution in the order of a recipe: panel.py's kernel with a permutation of the terms, and segments.

A sum is a list of steps. Each starts a chain from a seed (+0; -0, which is the first term alone; the bias;
the addend, an array of the output's shape; or the sum so far), adds `count` terms of the order to it, and
then is the sum so far or is added to it:

    (((0 + terms 0..127) + (0 + terms 128..255)) + bias)    two chains and the bias, which has no terms

The order of the terms is that of the packed weights and of the panel (or of the offsets into the padded
planes), so any permutation costs nothing. Lanes run across positions, threads split outputs only.

Padding as in panel.py: the fast blocks multiply a zero. Where terms outside are to be left out (not
`zero`), a tile that touches the padding is computed again with masks when a weight is not finite or a sum
came out zero: only then can it show, since adding +0 or -0 changes nothing but the sign of a zero, and a
partial sum of either sign of zero only matters if the whole sum is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.epilogue import Chain, apply, store
from refnet.kernels.panel import TERMS, Layout, _padded, _touches, layout, pack
from refnet.kernels.program import Window
from refnet.kernels.resources import prepared
from refnet.kernels.simd import PITCH, ROWS, TILE
from refnet.kernels.team import enough, next_share, share, split
from refnet.kernels.tiles import ADDEND, BIAS, FIRST, ON, ZERO, follow_steps, must_mask
from refnet.loops.fma import fma
from refnet.loops.jit import njit

Array = npt.NDArray[Any]


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
        return bool(((self.steps[:, 2] == 0) | (self.steps[:, 0] == ZERO)).all())


def convolve_in_order(
    x: Array,
    w: Array,
    bias: Array | None,
    window: Window,
    zero: bool,
    segments: Segments,
    threads: int,
    chain: Chain = Chain(),  # noqa: B008 - frozen
    addend: Array | None = None,
) -> Array:
    """Convolution of ops/conv.py for x (n, c, h, w), w (o, c / groups, kh, kw), summed in this order.

    bias (o,), addend (n, o, oh, ow): where the steps say. zero: terms outside the image add w * (+0);
    otherwise they are left out. chain: pointwise steps that follow.
    """
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    groups, pad, dilation = window.groups, window.pad, window.dilation
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups or w[0].size != segments.order.size:
        raise ValueError(f"weights {w.shape}, {groups} groups, {segments.order.size} terms, data {x.shape}")
    outputs, _, kh, kw = w.shape
    plan = layout(x.shape, w.shape, window.stride, pad, dilation, groups)
    if plan.output[2:] != window.size:
        raise ValueError(f"an output of {window.size}, computed is {plan.output[2:]}")
    y = np.empty(plan.output, x.dtype)
    more = np.zeros(0, x.dtype) if addend is None else np.ascontiguousarray(addend).reshape(-1)
    if (segments.steps[:, 0] == ADDEND).any() != bool(more.size) or more.size not in (0, y.size):
        raise ValueError(f"an addend of {more.size} elements does not fit the steps and {y.size} outputs")
    threads = enough(threads, plan.work // 16)
    shift = np.zeros(outputs, x.dtype) if bias is None else bias
    terms, offsets = prepared((w,), ("places", segments, plan), lambda: _places(plan, segments, kh, kw))
    if outputs // groups < 3:
        ordered = prepared((w,), ("ordered", segments), lambda: _ordered(w, segments))
        thin = (x, ordered, shift, more, y, plan.place, terms, segments.steps)
        split(_thin, y.shape[0] * outputs, threads, *thin, groups, zero)
        return apply(y, chain, threads) if chain.kinds else y
    packed, finite = prepared((w,), ("segments", groups, segments), lambda: _packed(w, groups, segments))
    tables = chain.tables(plan.output, x.dtype)
    planes = _padded(x, pad, plan.slack, threads) if plan.padded else x.reshape(x.shape[0], -1)
    parts = plan.parts(packed.shape[1], threads)
    masks = np.array([not zero, not finite, segments.from_zero])
    source = (x, planes, offsets, terms, plan.place, plan.shape)
    seeds = (shift, more)
    split(
        _panels, plan.items * parts, threads, source, packed, seeds, y, segments.steps, masks, parts, tables
    )
    return y


def _places(plan: Layout, segments: Segments, kh: int, kw: int) -> tuple[Array, Array]:
    """In order: each term's (channel, kernel row, column), and where it begins in the padded planes."""
    c, at = np.divmod(segments.order, kh * kw)
    terms = np.stack([c, *np.divmod(at, kw)], 1).astype(np.int64)
    return terms, plan.offsets[segments.order] if plan.padded else np.zeros(0, np.int64)


def _ordered(w: Array, segments: Segments) -> Array:
    """w (o, terms), the terms in order."""
    return np.ascontiguousarray(w.reshape(w.shape[0], -1)[:, segments.order])


def _packed(w: Array, groups: int, segments: Segments) -> tuple[Array, bool]:
    """The weights packed in order, and whether all of them are finite."""
    ordered = _ordered(w, segments)
    return pack(ordered.reshape(groups, w.shape[0] // groups, -1)), bool(np.isfinite(w).all())


@njit
def _panels(
    work: Any, source: Any, packed: Any, seeds: Any, y: Any, steps: Any, masks: Any, parts: int, tables: Any
) -> None:
    """Items: (image, group, tile of positions, part of the group's blocks of outputs), part fastest.

    seeds: bias (outputs,) and addend (as y, flat, or nothing). Positions run over rows of shape[4], of which
    the first ow belong to the output. masks: whether terms
    outside are left out, whether a weight is not finite, whether every chain starts at +0.
    """
    x, planes, _, _, place, shape = source
    bias, addend = seeds
    outputs, oh, ow = y.shape[1:]
    groups, blocks = packed.shape[:2]
    channels, per, span = x.shape[1] // groups, outputs // groups, shape[4]
    positions = (oh - 1) * span + ow
    tiles = -(-positions // TILE)
    panel, mask = np.empty(TILE * TERMS, x.dtype), np.empty(1, x.dtype)
    sums = np.empty((-(-blocks // parts) * ROWS, PITCH), x.dtype)
    fresh = np.empty(sums.shape if steps.shape[0] > 1 else (1, 1), x.dtype)
    extra = np.zeros(sums.shape if addend.size else (1, 1), x.dtype)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            part, tile = item % parts, item // parts % tiles
            group, image = item // parts // tiles % groups, item // parts // tiles // groups
            low, high = blocks * part // parts, blocks * (part + 1) // parts
            weights = packed[group, low:high]
            rows, first = min(high * ROWS, per) - low * ROWS, group * per + low * ROWS
            start = tile * TILE
            count = min(TILE, positions - start)
            base = image * planes[0].size + group * channels * (shape[0] + 2 * place[2]) * span + start
            spot = (image, group * channels, base, start, count)
            shift = bias[first : first + rows]
            if addend.size:
                _load(addend, extra, y.shape, image, first, rows, start, count, span)
            room = (sums, fresh, panel, mask, extra)
            follow_steps(source, spot, weights, shift, steps, room, rows, False)
            touches = masks[0] and _touches(start, count, ow, place, shape)
            if touches and (masks[1] or must_mask(source, spot, sums, panel, rows, masks[2])):
                if mask.size == 1:
                    mask = np.zeros(TILE * TERMS, x.dtype)
                room = (sums, fresh, panel, mask, extra)
                follow_steps(source, spot, weights, shift, steps, room, rows, True)
            store(sums, PITCH, y, (image, first, start, count, span), 0, rows, *tables)
        begin, end = next_share(work)


@njit
def _load(
    addend: Any, extra: Any, shape: Any, image: int, first: int, rows: int, start: int, count: int, span: int
) -> None:
    """Fetch the addends of a tile's lanes; those of lanes that `_store` leaves out stay what they are."""
    outputs, oh, ow = shape[1:]
    for o in range(rows):
        row = (image * outputs + first + o) * oh * ow
        lane, i, j = 0, start // span, start % span
        while lane < count:
            run = max(0, min(ow - j, count - lane))
            at = row + i * ow + j
            for t in range(run):  # a slice would compile the text of an error, two seconds long
                extra[o, lane + t] = addend[at + t]
            lane += span - j
            i += 1
            j = 0


@njit
def _thin(
    work: Any,
    x: Any,
    w: Any,
    bias: Any,
    addend: Any,
    y: Any,
    place: Any,
    terms: Any,
    steps: Any,
    groups: int,
    zero: bool,
) -> None:
    """For few outputs per group (depthwise): row by row, lanes along the row. Items: (image, output)."""
    outputs = y.shape[1]
    fresh = np.empty(y.shape[3], x.dtype)
    nothing = x.dtype.type(0)
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            image, o = item // outputs, item % outputs
            base = o // (outputs // groups) * (x.shape[1] // groups)
            for i in range(y.shape[2]):
                for s in range(steps.shape[0]):
                    seed, at, length = steps[s, 0], steps[s, 1], steps[s, 2]
                    sums = fresh if steps[s, 4] else y[image, o, i]
                    if seed == ADDEND:
                        row = (item * y.shape[2] + i) * y.shape[3]
                        sums[:] = addend[row : row + y.shape[3]]
                    elif seed != ON:
                        sums[:] = bias[o] if seed == BIAS else (-nothing if seed == FIRST else nothing)
                    for k in range(at, at + length):
                        plane = x[image, base + terms[k, 0]]
                        _add_row(sums, w[o, k], plane, i, terms[k, 1], terms[k, 2], place, steps[s, 3], zero)
                    if steps[s, 4]:
                        total = y[image, o, i]
                        for j in range(total.size):
                            total[j] += fresh[j]
        begin, end = next_share(work)


@njit
def _add_row(
    sums: Any, weight: Any, x: Any, i: int, p: int, q: int, place: Any, fused: bool, zero: bool
) -> None:
    """Add the term (p, q) of the plane x (h, w) to the outputs of row i."""
    height, width = x.shape
    sw, count = place[1], sums.size
    row, left = i * place[0] - place[2] + p * place[4], q * place[5] - place[3]
    lo = 0 if left >= 0 else min(count, (-left + sw - 1) // sw)
    hi = max(lo, min(count, (width - left + sw - 1) // sw))
    if row < 0 or row >= height:
        lo = hi = count
    if zero:
        product = weight * x.dtype.type(0)
        for j in range(lo):
            sums[j] += product
        for j in range(hi, count):
            sums[j] += product
    if lo >= hi:
        return
    values, some = x[row, left + lo * sw :], sums[lo:hi]
    if not fused:
        for j in range(some.size):
            some[j] += weight * values[sw * j]
    elif sw == 1:
        for j in range(some.size):
            some[j] = fma(weight, values[j], some[j])
    elif sw == 2:  # a constant stride is read by vectors
        for j in range(some.size):
            some[j] = fma(weight, values[2 * j], some[j])
    else:
        for j in range(some.size):
            some[j] = fma(weight, values[sw * j], some[j])
