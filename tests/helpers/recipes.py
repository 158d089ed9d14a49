"""What a recipe means, literally: each output element term by term; and recipes to try it on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numba
import numpy as np
from hypothesis import strategies as st

from refnet.core.op import Op
from refnet.core.orders import Box, Chain, Expr, Leaf, Order, Part, Program, Recipe, Sum
from refnet.loops.fma import fma
from refnet.ops import AvgPool, Conv, ConvAdd, Dense, GlobalAvgPool


@numba.njit(error_model="numpy")
def _chains(seeds, w, x, inside, order, fused, zero):
    """Per row of (elements, terms): its chain, one term after the other."""
    found = np.empty_like(seeds)
    for e in range(seeds.size):
        acc = seeds[e]
        for k in order:
            if inside[e, k]:
                acc = fma(w[e, k], x[e, k], acc) if fused else acc + w[e, k] * x[e, k]
            elif zero:
                acc = fma(w[e, k], np.float32(0), acc) if fused else acc + w[e, k] * np.float32(0)
        found[e] = acc
    return found


@cache
def _indices(order: Order) -> np.ndarray:
    return np.array(order.indices(), np.int64)


def values(expr: Expr, w, x, inside, alone, zero: bool) -> np.ndarray:
    """The sum of w * x in the order of the expression, per row of (elements, terms).

    alone: what bias and addend are, per element.
    """
    if expr in (Leaf.ZERO, Leaf.FIRST):
        return np.full(len(x), 0.0 if expr is Leaf.ZERO else -0.0, np.float32)
    if isinstance(expr, Leaf):
        return alone[expr]
    if isinstance(expr, Chain):
        seeds = values(expr.seed, w, x, inside, alone, zero)
        return _chains(seeds, w, x, inside, _indices(expr.terms), expr.fused, zero)
    total = values(expr.parts[0], w, x, inside, alone, zero)
    for part in expr.parts[1:]:
        total = total + values(part, w, x, inside, alone, zero)
    return total


def value(expr: Expr, w, x, inside=None, alone=None, zero: bool = False) -> np.float32:
    """The same of one element; without `inside` all its terms are."""
    inside = np.ones(len(x), bool) if inside is None else inside
    rows = (np.ascontiguousarray(row)[None] for row in (w, x, inside))
    return values(expr, *rows, {leaf: np.float32([one]) for leaf, one in (alone or {}).items()}, zero)[0]


def windows(op: Op, inputs, n, o, i, j):
    """(weights, x, inside), each (elements, terms), terms in plain order; x is 0 outside the image."""
    if isinstance(op, Dense):
        w = inputs[1][o]
        return w, inputs[0].reshape(len(inputs[0]), -1)[n], np.ones(w.shape, bool)
    x = inputs[0]
    height, width = x.shape[2:]
    kernel = (height, width) if isinstance(op, GlobalAvgPool) else op.kernel
    stride, pad = (getattr(op, name, default) for name, default in (("stride", (1, 1)), ("pad", (0, 0))))
    dilation = getattr(op, "dilation", (1, 1))
    weights, first = np.ones((len(o), 1, *kernel), np.float32), o
    if isinstance(op, Conv):
        weights = inputs[1][o]
        first = o // (op.channels // op.groups) * weights.shape[1]  # its group's first channel
    c, p, q = (axis.ravel() for axis in np.indices(weights.shape[1:]))
    row = i[:, None] * stride[0] - pad[0] + p * dilation[0]
    column = j[:, None] * stride[1] - pad[1] + q * dilation[1]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    seen = x[n[:, None], first[:, None] + c, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return weights.reshape(len(o), -1), np.where(inside, seen, np.float32(0)), inside


def in_box(box: Box, at, shape) -> np.ndarray:
    """Which elements a box holds. at: their batch, channel, row and column."""
    n, c, y, x = at
    _, channels, height, width = (*shape, 1, 1)[:4]
    p = y * width + x
    e = (n * channels + c) * height * width + p
    where = {"n": n, "c": c, "y": y, "x": x, "p": p, "m": n * height * width + p, "e": e}
    held = np.ones(len(n), bool)
    for axis, (start, stop, step) in box.ranges:
        held &= (where[axis] >= start) & (where[axis] < stop) & ((where[axis] - start) % step == 0)
    return held


def elements(recipe: Recipe, op: Op, inputs, places) -> np.ndarray:
    """Output elements, each by the first part that holds it. places: (elements, axes of the output)."""
    shape = op.type(*map(kind, inputs)).shape
    own = tuple(np.array(places, np.int64).reshape(-1, len(shape)).T)
    at = n, o, i, j = (*own, *[np.zeros_like(own[0])] * (4 - len(shape)))
    alone: dict[Leaf, np.ndarray] = {}
    if isinstance(op, ConvAdd):
        alone[Leaf.ADDEND] = inputs[1][own]
        op, inputs = op.conv, [inputs[0], *inputs[2:]]
    if getattr(op, "bias", False):
        alone[Leaf.BIAS] = inputs[2][o]
    w, x, inside = windows(op, inputs, n, o, i, j)
    found, left = np.empty(len(n), np.float32), np.ones(len(n), bool)
    for part in recipe.parts:
        mine, do = left.copy(), part.do
        if part.where is not None:
            mine &= np.any([in_box(box, at, shape) for box in part.where], axis=0)
        left &= ~mine
        assert isinstance(do, Program)
        known = {leaf: one[mine] for leaf, one in alone.items()}
        terms = w[mine], x[mine], inside[mine], known, do.padding == "zero"
        if isinstance(op, AvgPool | GlobalAvgPool):
            found[mine] = averages(do, terms, *_counts(op, inputs[0].shape, i[mine], j[mine]))
        else:
            found[mine] = values(do.expr, *terms)
    assert not left.any()
    return found


def averages(do: Program, terms, rows, columns) -> np.ndarray:
    """The sums of windows with so many rows and columns, divided as the program says."""
    w, x, *others = terms
    d = (rows * columns).astype(np.float32)
    if do.finish == "divide_terms":
        return values(do.expr, w, x / d[:, None], *others)
    total = values(do.expr, *terms)
    if do.finish == "divide_w_h":
        return total / columns.astype(np.float32) / rows.astype(np.float32)
    return total / d if do.finish == "divide" else total * (np.float32(1) / d)


def everywhere(recipe: Recipe, op: Op, inputs) -> np.ndarray:
    """The whole output, element by element."""
    shape = op.type(*map(kind, inputs)).shape
    with np.errstate(all="ignore"):
        return elements(recipe, op, inputs, list(np.ndindex(shape))).reshape(shape)


def kind(array):
    from refnet.core.op import TensorType

    return TensorType(array.shape)


def _counts(op: Op, shape, i, j) -> tuple[np.ndarray, np.ndarray]:
    """How many rows and columns of each window count, found by looking at each."""
    if isinstance(op, GlobalAvgPool):
        return np.full(len(i), shape[2]), np.full(len(j), shape[3])
    found = []
    for axis, at in enumerate((i, j)):
        pad, length = op.pad[axis], shape[2 + axis]
        rows = at[:, None] * op.stride[axis] - pad + np.arange(op.kernel[axis]) * op.dilation[axis]
        around = pad if op.count_include_pad else 0
        found.append(((rows >= -around) & (rows < length + around)).sum(1))
    return found[0], found[1]


# The orders of facts: what was found in PyTorch, MXNet and ONNX Runtime on one machine.


def blocked(channels: int, kernel: int, block: int = 8, seed: Expr = Leaf.ZERO) -> Expr:
    """One FMA chain: block of channels, kernel place, channel in the block."""
    terms = [
        c * kernel + k
        for first in range(0, channels, block)
        for k in range(kernel)
        for c in range(first, min(first + block, channels))
    ]
    return Chain(seed, Order.of(terms))


def split(terms: int, size: int, seed: Expr = Leaf.ZERO, fused: bool = True) -> Expr:
    """Chains of `size` terms, added from left to right; the first starts from `seed`."""
    starts = range(0, terms, size)
    chains = [
        Chain(Leaf.ZERO if at else seed, Order.of(range(at, min(at + size, terms))), fused) for at in starts
    ]
    return chains[0] if len(chains) == 1 else Sum(tuple(chains))


def lanes(terms: int, head: int = 4, fused: bool = False) -> Expr:
    """sgemv: a scalar head seeds lane 0 of 4, (l0 + l2) + (l1 + l3), a scalar tail, then the bias."""
    head = min(head, terms)
    whole = (terms - head) // 4 * 4
    seed: Expr = Chain(Leaf.ZERO, Order.of(range(head)), fused) if head else Leaf.ZERO
    if whole:
        strided = [Order.of(range(head + i, head + whole, 4)) for i in range(4)]
        four = [Chain(seed if i == 0 else Leaf.ZERO, order, fused) for i, order in enumerate(strided)]
        seed = Sum((Sum((four[0], four[2])), Sum((four[1], four[3]))))
    if head + whole < terms:
        seed = Chain(seed, Order.of(range(head + whole, terms)), fused)
    return Sum((seed, Leaf.BIAS))


def recipe(expr: Expr, padding: str = "skip", finish: str = "none") -> Recipe:
    """A recipe of one part."""
    return Recipe((Part(Program(expr, padding, finish)),))


# Random recipes.


@st.composite
def exprs(draw, terms, bias, addend=False):
    """An expression over a permutation of the terms: often chains from left to right, sometimes any tree."""
    order = list(range(terms))
    if draw(st.booleans()):
        order = draw(st.permutations(order))
    cuts = sorted(draw(st.sets(st.integers(1, max(1, terms - 1)), max_size=5))) if terms > 1 else []
    pieces = [order[a:b] for a, b in zip([0, *cuts], [*cuts, terms], strict=True)]
    seeds = [Leaf.ZERO, Leaf.ZERO, Leaf.FIRST]
    left_to_right = draw(st.booleans())
    found = []
    for piece in pieces:
        seed = draw(st.sampled_from(seeds))
        if not left_to_right and found and draw(st.booleans()):
            seed = found.pop(draw(st.integers(0, len(found) - 1)))
        found.append(Chain(seed, Order.of(piece), draw(st.sampled_from([True, True, False]))))
    for leaf in [Leaf.BIAS] * bias + [Leaf.ADDEND] * addend:
        place = draw(st.sampled_from(["first", "last", "seed", "between"]))
        free = [i for i, one in enumerate(found) if isinstance(one, Chain) and one.seed in seeds]
        if place == "seed" and free:
            at = draw(st.sampled_from(free))
            found[at] = replace(found[at], seed=leaf)
        else:
            found.insert({"first": 0, "last": len(found)}.get(place, len(found) // 2), leaf)
    while len(found) > 1:
        if left_to_right:
            return Sum(tuple(found))
        at = draw(st.integers(0, len(found) - 2))
        found[at : at + 2] = [Sum(tuple(found[at : at + 2]))]
    return found[0]


@st.composite
def regions(draw, shape):
    axes = dict(zip("ncyx", (*shape, 1, 1), strict=False))
    axes |= {"e": int(np.prod(shape)), "p": int(np.prod(shape[2:])), "m": shape[0] * int(np.prod(shape[2:]))}
    boxes = []
    for _ in range(draw(st.integers(1, 2))):
        chosen = draw(st.lists(st.sampled_from(sorted(axes)), min_size=1, max_size=2, unique=True))
        ranges = []
        for axis in chosen:
            start = draw(st.integers(0, axes[axis]))
            ranges.append((axis, (start, draw(st.integers(start, axes[axis])), draw(st.integers(1, 3)))))
        boxes.append(Box(tuple(ranges)))
    return tuple(boxes)
