"""Every reduction of the networks, in orders found in frameworks: elements all over the outputs are right."""

from __future__ import annotations

import numpy as np
import pytest

from refnet.core.op import Op
from refnet.core.orders import Box, Chain, Expr, Leaf, Order, Part, Program, Recipe, Sum, signature
from refnet.models.loading import structure
from refnet.ops import AvgPool, Conv, Dense, GlobalAvgPool
from tests.arithmetic.test_replay import replayed
from tests.helpers.bits import AWKWARD, same_bits
from tests.helpers.recipes import blocked, elements, kind, lanes, recipe, split

NETWORKS = ("resnest-50-pytorch", "octave-se-resnet-50-0.125", "octave-resnext-50-0.25")
SAMPLES = 60


def shapes(name: str) -> list[tuple[Op, tuple[tuple[int, ...], ...]]]:
    graph = structure(name)
    types = graph.types()
    reductions = [n for n in graph.nodes if isinstance(n.op, Conv | Dense | AvgPool | GlobalAvgPool)]
    found = {(n.op, tuple(types[i].shape for i in n.inputs)): None for n in reductions}
    return list(found)


def eight_lanes(terms: int) -> Expr:
    """The tail's sum first, then lanes 0 to 7 in turn, as PyTorch's mean of a small plane."""
    whole = terms // 8 * 8
    tail: Expr = Chain(Leaf.ZERO, Order.of(range(whole, terms)), fused=False) if whole < terms else Leaf.ZERO
    each = [Chain(Leaf.ZERO, Order.of(range(i, whole, 8)), fused=False) for i in range(8 if whole else 0)]
    return Sum((tail, *each)) if each else tail


def even_odd(terms: int, size: int = 256) -> Expr:
    """Blocks of an even and an odd chain, multiplied then added (FullyConnected of MXNet at batch 2)."""
    blocks = []
    for at in range(0, terms, size):
        end = min(at + size, terms)
        halves = [Chain(Leaf.ZERO, Order.of(range(at + i, end, 2)), fused=False) for i in range(2)]
        blocks.append(Sum(tuple(halves)) if end - at > 1 else halves[0])
    return Sum((*blocks, Leaf.BIAS))


def made(op: Op, inputs) -> Recipe:
    """The order that was found in a framework for such an op."""
    if isinstance(op, GlobalAvgPool):
        return recipe(eight_lanes(inputs[0].shape[2] * inputs[0].shape[3]), finish="divide")
    if isinstance(op, AvgPool):
        order = Order.of(range(op.kernel[0] * op.kernel[1]))
        return recipe(Chain(Leaf.ZERO, order, fused=False), finish="divide")
    seed = Leaf.BIAS if op.bias else Leaf.ZERO
    if isinstance(op, Dense):
        terms = inputs[1].shape[1]
        tree = lanes(terms) if op.bias else lanes(terms).parts[0]
        edge = even_odd(terms) if op.bias else split(terms, 256)
        start = op.units // 8 * 8 - 8
        return Recipe((Part(Program(edge), (Box((("c", (start, op.units, 1)),)),)), Part(Program(tree))))
    channels, area = inputs[1].shape[1], op.kernel[0] * op.kernel[1]
    if area > 1:
        return recipe(blocked(channels, area, 8 if channels > 3 else channels, seed))
    if inputs[0].shape[2] == 1:
        tree = lanes(channels)
        return recipe(tree if op.bias else tree.parts[0])
    if op.stride != (1, 1):
        return recipe(split(channels, 128, seed))
    size = channels if channels <= 192 else channels // 2 if channels <= 384 else 192
    return recipe(split(channels, size, seed))


def data(shape: tuple[int, ...], dice: np.random.Generator, odd: float) -> np.ndarray:
    array = dice.standard_normal(shape).astype(np.float32)
    if odd:
        where = dice.random(shape) < odd
        array[where] = dice.choice(AWKWARD, int(where.sum()))
    return array


@pytest.mark.parametrize("odd", [0.0, 2e-4])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_shape(name, odd):
    dice = np.random.default_rng(5)
    for op, inputs in shapes(name):
        arrays = [data(shape, dice, odd) for shape in inputs]
        rule = made(op, arrays)
        y = replayed(op, arrays, rule, 2)
        corners = [tuple(0 for _ in y.shape), tuple(n - 1 for n in y.shape)]
        picks = [*corners, *(tuple(int(dice.integers(n)) for n in y.shape) for _ in range(SAMPLES))]
        with np.errstate(all="ignore"):
            expected = elements(rule, op, arrays, picks)
        found = np.array([y[at] for at in picks])
        assert same_bits(found, expected), signature(op, list(map(kind, arrays)))


def test_the_shapes_are_many():
    assert sum(len(shapes(name)) for name in NETWORKS) > 150
