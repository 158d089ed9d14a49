"""Orders of matrix products, of convolutions in pieces, and of sums over axes: what they mean, and found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from refnet.arithmetic.recipes import NodeRecipe, _exceptions, follow
from refnet.core.bits import equal_bits
from refnet.core.errors import InputError, UnsupportedError
from refnet.core.op import TensorType
from refnet.core.orders import Box, Chain, Leaf, Order, Part, Program, Recipe, Sum
from refnet.frameworks.caller import Caller, input_names
from refnet.frameworks.reveal.probe import random_inputs
from refnet.frameworks.reveal.products import asked_sum
from refnet.frameworks.reveal.sums import arrange, reveal_sum
from refnet.ops import ConvNd, ConvTranspose, MatMul, ReduceMean, ReduceSum
from tests.helpers.bits import floats
from tests.helpers.engines import FAST
from tests.helpers.recipes import blocked, split, value

F = np.float32
BIASED = MatMul(addend=True, constants=((12, 5), (5,)))
PRODUCTS = {
    "matrices": (MatMul(), ((2, 3, 4, 12), (2, 3, 12, 5))),
    "broadcast": (MatMul(), ((3, 1, 2, 12), (2, 12, 5))),
    "weights": (MatMul(constants=((12, 5),)), ((2, 4, 12), (12, 5))),
    "bias": (BIASED, ((2, 4, 12), (12, 5), (5,))),
    "turned": (MatMul(transpose_a=True, transpose_b=True), ((12, 3), (5, 12))),
    "vector": (MatMul(), ((12,), (2, 12, 5))),
}
PIECES = {
    "transposed": (ConvTranspose(4, (3, 2), (2, 1), (1, 0), groups=2, bias=True), (1, 4, 3, 4)),
    "dilated": (ConvTranspose(4, (3,), (2,), (0,), (2,)), (1, 3, 4)),
    "line": (ConvNd(4, (3,), (1,), (1,), bias=True), (1, 4, 6)),
    "space": (ConvNd(4, (2, 2, 2), pad=(1, 0, 1)), (1, 2, 2, 3, 3)),
}


def inputs_of(op, shape):
    kinds = (TensorType(shape), *op.weight_types(TensorType(shape)))
    return [floats(kind.shape, (repr(op), i)) for i, kind in enumerate(kinds)]


def lanes(terms):
    """Four lanes, (0 + 2) + (1 + 3), each rounding its products."""
    four = [Chain(Leaf.ZERO, Order.of(range(i, terms, 4)), False) for i in range(4)]
    return Sum((Sum((four[0], four[2])), Sum((four[1], four[3]))))


def orders(terms, bias):
    """Chains over blocks with the bias first, lanes with the bias last, one chain backwards."""
    backwards = Chain(Leaf.ZERO, Order.of(range(terms)[::-1]))
    made = [split(terms, 3, Leaf.BIAS if bias else Leaf.ZERO), lanes(terms), backwards]
    return [made[0], *(Sum((one, Leaf.BIAS)) if bias else one for one in made[1:])]


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_matrix_product_in_an_order_is_what_the_order_says(name):
    op, shapes = PRODUCTS[name]
    inputs = [floats(shape, (name, i)) for i, shape in enumerate(shapes)]
    pair = op.factors(*inputs[:2])
    for order in orders(12, op.addend):
        found = op.in_order(Program(order), *inputs, engine=FAST)
        added = np.broadcast_to(inputs[2], found.shape).reshape(-1) if op.addend else np.zeros(found.size)
        for i in range(found.size):
            row, column = pair(i)
            own = value(order, column, row, alone={Leaf.BIAS: added[i]})
            assert own.view(np.uint32) == found.reshape(-1)[i].view(np.uint32)
        some = np.array([0, found.size - 1])
        assert equal_bits(
            op.in_order(Program(order), *inputs, engine=FAST, places=some), found.flat[some]
        ).all()


@pytest.mark.parametrize("name", PIECES)
def test_a_convolution_in_pieces_in_an_order_is_what_the_order_says(name):
    op, shape = PIECES[name]
    inputs = inputs_of(op, shape)
    x, w, *bias = inputs
    kernel = op.kernel
    terms = op.terms(*(TensorType(a.shape) for a in inputs))
    transposed = isinstance(op, ConvTranspose)
    stride, pad = op.window[:2]
    dilation = op.window[3]
    for order in orders(terms, op.bias):
        found = op.in_order(Program(order), *inputs, engine=FAST)
        for at in np.ndindex(found.shape):
            outputs, inside = op.channels // op.groups, x.shape[1] // op.groups
            group, local = divmod(at[1], outputs)
            factors, data, there = np.zeros(terms, F), np.zeros(terms, F), np.zeros(terms, bool)
            places = itertools.product(range(inside), *map(range, kernel))
            for k, (c, *taps) in enumerate(places):
                axes = zip(at[2:], stride, pad, taps, dilation, strict=True)
                if transposed:
                    apart = [(i + p - t * d, s) for i, s, p, t, d in axes]
                    from_ = [a // s if a % s == 0 else -1 for a, s in apart]
                else:
                    from_ = [i * s - p + t * d for i, s, p, t, d in axes]
                there[k] = all(0 <= a < n for a, n in zip(from_, x.shape[2:], strict=True))
                channel = group * inside + c
                factors[k] = w[(channel, local, *taps)] if transposed else w[(at[1], c, *taps)]
                data[k] = x[(at[0], channel, *from_)] if there[k] else 0
            alone = {Leaf.BIAS: bias[0][at[1]] if bias else 0}
            assert value(order, factors, data, there, alone) == found[at]


@pytest.mark.parametrize("op", [ReduceSum((1, 3)), ReduceMean((0, 2), False), ReduceMean((1,))])
def test_a_sum_over_axes_in_an_order_is_what_the_order_says(op):
    x = floats((2, 3, 4, 5), repr(op))
    each = op.terms_of(x).T
    terms = each.shape[1]
    order = lanes(terms)
    for finish in ("divide", "reciprocal", "divide_terms") if op.averages else ("none",):
        found = op.in_order(Program(order, finish=finish), x, engine=FAST).reshape(-1)
        rows = each / F(terms) if finish == "divide_terms" else each
        for row, y in zip(rows, found, strict=True):
            own = value(order, np.ones(terms, F), row)
            ends = {"divide": own / F(terms), "reciprocal": own * (F(1) / F(terms))}
            assert ends.get(finish, own) == y


def simulated(op, count, made: Recipe, shape) -> Caller:
    """A framework that computes the op by this recipe."""
    known = NodeRecipe(made.parts[-1].do, _exceptions(made, shape))
    names = input_names(op, count)

    def request(fixed, each, take):
        cut = tuple(slice(None) if k is None else k for k in take)
        calls = len(next(iter(each.values())))
        return np.stack(
            [
                follow(known, op, [each[n][i] if n in each else fixed[n] for n in names], FAST)[cut]
                for i in range(calls)
            ]
        )

    return Caller(names, request)


def found(op, types, made: Recipe) -> Recipe:
    """What is revealed of it; it must give the same bits."""
    shape = op.type(*types).shape
    framework = simulated(op, len(types), made, shape)
    recipe = reveal_sum(asked_sum(op, types, framework))
    again = simulated(op, len(types), recipe, shape)
    for seed in (101, 102):
        inputs = random_inputs(types, seed)
        assert equal_bits(framework.whole(inputs), again.whole(inputs)).all()
    return recipe


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_order_of_a_matrix_product_is_found(name):
    op, shapes = PRODUCTS[name]
    for order in orders(12, op.addend):
        found(op, tuple(map(TensorType, shapes)), Recipe((Part(Program(order)),)))


def test_the_columns_at_a_tiles_edge_are_found():
    """y has three axes, so that its columns are the rows of a box."""
    op, shapes = PRODUCTS["weights"]
    edge = (Box((("y", (4, 5, 1)),)),)
    made = Recipe((Part(Program(lanes(12)), edge), Part(Program(blocked(12, 1)))))
    first, last = found(op, tuple(map(TensorType, shapes)), made).parts
    assert (first.where, last) == (edge, made.parts[1])


@pytest.mark.parametrize("name", PIECES)
def test_the_order_of_a_convolution_in_pieces_is_found(name):
    op, shape = PIECES[name]
    types = tuple(TensorType(a.shape) for a in inputs_of(op, shape))
    for order in orders(op.terms(*types), op.bias):
        found(op, types, Recipe((Part(Program(order)),)))


@pytest.mark.parametrize("op", [ReduceSum((1, 3)), ReduceMean((0, 2), False), ReduceMean((1,))])
def test_the_order_of_a_sum_over_axes_is_found(op):
    types = (TensorType((2, 3, 4, 5)),)
    for finish in ("divide", "reciprocal", "divide_terms") if op.averages else ("none",):
        found(op, types, Recipe((Part(Program(lanes(op.terms(*types)), finish=finish)),)))


def test_what_a_recipe_cannot_say_is_refused():
    scaled, shapes = MatMul(alpha=0.5), (TensorType((4, 12)), TensorType((12, 5)))
    nobody = Caller(("x0", "x1"), lambda *asked: np.zeros(0, F))
    with pytest.raises(UnsupportedError, match="alpha"):
        asked_sum(scaled, shapes, nobody)
    with pytest.raises(InputError, match="alpha"):
        scaled.in_order(Program(lanes(12)), *(floats(kind.shape, 1) for kind in shapes), engine=FAST)
    single = MatMul(addend=True)
    types = (*shapes, TensorType((1,)))
    asked = asked_sum(single, types, Caller(("x0", "x1", "x2"), lambda *asked: np.zeros(0, F)))
    with pytest.raises(UnsupportedError, match="no number for each column"):
        reveal_sum(asked)


def test_an_element_that_agrees_by_chance_stays_with_its_position():
    """Row 0 is in another order; there channel 2 has the other's bits too, and so has channel 1 in row 1."""
    first, second = Program(lanes(12)), Program(blocked(12, 1))
    top = np.zeros((1, 4, 2, 2), bool)
    top[:, :, 0] = True
    rest = ~top
    rest[0, 2, 0], top[0, 1, 1] = True, True
    found = arrange([(first, top), (second, rest)], top.shape)
    assert len(found.parts) == 2
    box = Box((("y", (0, 1, 1)),)) if found.parts[0].do == first else Box((("y", (1, 2, 1)),))
    assert found.parts[0].where == (box,)
