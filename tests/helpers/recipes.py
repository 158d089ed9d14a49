"""What a recipe means, literally: one output element at a time, and recipes to try it on."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
from hypothesis import strategies as st

from refnet.core.op import Op
from refnet.core.orders import Box, Chain, Expr, Leaf, Order, Part, Program, Recipe, Sum
from refnet.loops.fma import fma
from refnet.ops import AvgPool, Conv, ConvAdd, Dense, GlobalAvgPool


@numba.njit(error_model="numpy")
def _chain(acc, w, x, inside, order, fused, zero):
    for k in order:
        if inside[k]:
            acc = fma(w[k], x[k], acc) if fused else acc + w[k] * x[k]
        elif zero:
            acc = fma(w[k], np.float32(0), acc) if fused else acc + w[k] * np.float32(0)
    return acc


def value(expr: Expr, w, x, inside, alone, zero: bool) -> np.float32:
    """The sum of w * x in the order of the expression; alone: what bias and addend are."""
    if expr is Leaf.ZERO:
        return np.float32(0)
    if expr is Leaf.FIRST:
        return np.float32(-0.0)
    if isinstance(expr, Leaf):
        return np.float32(alone[expr])
    if isinstance(expr, Chain):
        seed = value(expr.seed, w, x, inside, alone, zero)
        order = np.array(expr.terms.indices(), np.int64)
        return np.float32(_chain(seed, w, x, inside, order, expr.fused, zero))
    total = value(expr.parts[0], w, x, inside, alone, zero)
    for part in expr.parts[1:]:
        total = np.float32(total + value(part, w, x, inside, alone, zero))
    return total


def window(op: Op, inputs, n: int, o: int, i: int, j: int):
    """(weights, x, inside) of one element's terms in plain order; x is 0 outside the image."""
    if isinstance(op, Dense):
        x, w = inputs[0].reshape(len(inputs[0]), -1)[n], inputs[1][o]
        return w, x, np.ones(w.size, bool)
    x = inputs[0]
    height, width = x.shape[2:]
    kernel = (height, width) if isinstance(op, GlobalAvgPool) else op.kernel
    stride, pad = (getattr(op, name, default) for name, default in (("stride", (1, 1)), ("pad", (0, 0))))
    dilation = getattr(op, "dilation", (1, 1))
    channels = [o]
    weights = np.ones((1, *kernel), np.float32)
    if isinstance(op, Conv):
        weights = inputs[1][o]
        base = o // (op.channels // op.groups) * weights.shape[0]
        channels = range(base, base + weights.shape[0])
    values, inside = [], []
    for c in channels:
        for p in range(kernel[0]):
            for q in range(kernel[1]):
                row, column = (
                    i * stride[0] - pad[0] + p * dilation[0],
                    j * stride[1] - pad[1] + q * dilation[1],
                )
                held = 0 <= row < height and 0 <= column < width
                inside.append(held)
                values.append(x[n, c, row, column] if held else np.float32(0))
    return weights.reshape(-1), np.array(values, np.float32), np.array(inside)


def in_box(box: Box, at, shape) -> bool:
    n, c, y, x = (*at, 0, 0)[:4]
    _, channels, height, width = (*shape, 1, 1)[:4]
    p = y * width + x
    e = (n * channels + c) * height * width + p
    where = {"n": n, "c": c, "y": y, "x": x, "p": p, "m": n * height * width + p, "e": e}
    return all(a <= where[axis] < b and (where[axis] - a) % step == 0 for axis, (a, b, step) in box.ranges)


def element(recipe: Recipe, op: Op, inputs, at: tuple[int, ...]) -> np.float32:
    """One output element, by the first part that holds it."""
    shape = op.type(*map(kind, inputs)).shape
    alone: dict[Leaf, float] = {}
    if isinstance(op, ConvAdd):
        alone[Leaf.ADDEND] = inputs[1][at]
        op, inputs = op.conv, [inputs[0], *inputs[2:]]
    holding = (p for p in recipe.parts if p.where is None or any(in_box(b, at, shape) for b in p.where))
    do = next(holding).do
    assert isinstance(do, Program)
    w, x, inside = window(op, inputs, *(*at, 0, 0)[:4])
    if getattr(op, "bias", False):
        alone[Leaf.BIAS] = inputs[2][at[1]]
    if not isinstance(op, AvgPool | GlobalAvgPool):
        return value(do.expr, w, x, inside, alone, do.padding == "zero")
    rows, columns = _counts(op, inputs[0].shape, at)
    d = np.float32(rows * columns)
    if do.finish == "divide_terms":
        return value(do.expr, w, x / d, inside, alone, do.padding == "zero")
    total = value(do.expr, w, x, inside, alone, do.padding == "zero")
    if do.finish == "divide_w_h":
        return np.float32(np.float32(total / np.float32(columns)) / np.float32(rows))
    return np.float32(total / d if do.finish == "divide" else total * (np.float32(1) / d))


def kind(array):
    from refnet.core.op import TensorType

    return TensorType(array.shape)


def _counts(op: Op, shape, at) -> tuple[int, int]:
    """How many rows and columns of the window count, found by looking at each."""
    if isinstance(op, GlobalAvgPool):
        return shape[2], shape[3]
    found = []
    for axis in (0, 1):
        pad, length = op.pad[axis], shape[2 + axis]
        rows = [at[2 + axis] * op.stride[axis] - pad + p for p in range(op.kernel[axis])]
        if op.count_include_pad:
            found.append(sum(-pad <= row < length + pad for row in rows))
        else:
            found.append(sum(0 <= row < length for row in rows))
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
