"""Lanes across channels in any order: the literal meaning of a recipe, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refnet.core.orders import Chain, Leaf, Order, Sum
from refnet.kernels import ordered_channels, segments
from refnet.kernels.channels import channel_layout, plane_layout
from refnet.kernels.orders import plain_order
from refnet.kernels.orders import segments as segments_of
from refnet.kernels.program import Window
from tests.arithmetic.test_replay import convolutions, replayed
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.recipes import blocked, everywhere, kind, recipe, split

QUIET = settings(deadline=None, database=None, derandomize=True)


def wherever(x, w, window, steps):
    """The layout for everything that the file can compute, however small."""
    if not ordered_channels.across(steps):
        return None
    return plane_layout(x, w, window.stride, window.pad, window.dilation, window.groups)


def test_any_recipe_of_a_convolution(monkeypatch):
    taken = []
    real = segments.conv_across_channels_in_order

    def noted(*arguments):
        taken.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(segments, "ordered_layout", wherever)
    monkeypatch.setattr(segments, "conv_across_channels_in_order", noted)

    @settings(QUIET, max_examples=120)
    @given(convolutions(), st.sampled_from([0.0, 0.0, 0.15, 0.9]), st.sampled_from([0.0, 0.0, 0.15, 0.9]))
    def check(case, odd_data, odd_weights):
        op, shapes, made = case
        inputs = [awkward(shape, f"x{i}", odd_data) for i, shape in enumerate(shapes)]
        inputs += [
            awkward(t.shape, i, odd_weights) for i, t in enumerate(op.weight_types(*map(kind, inputs)))
        ]
        expected = everywhere(made, op, inputs)
        assert same_bits(replayed(op, inputs, made), expected)
        assert same_bits(replayed(op, inputs, made, threads=3), expected)

    check()
    assert len(taken) > 40


SHAPES = [((1, 40, 14, 14), (72, 40, 3, 3), 1, 1), ((2, 64, 9, 7), (20, 16, 3, 3), 4, 2)]


@pytest.mark.parametrize(("x", "w", "groups", "stride"), SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_large_ones_are_those_of_tiles(x, w, groups, stride, threads, monkeypatch):
    """Several blocks of channels, parts and stretches; orders as frameworks have them."""
    terms = w[1] * 9
    halves = Sum((blocked(w[1], 9, 8, Leaf.BIAS), Leaf.ADDEND))
    for expr in (blocked(w[1], 9), split(terms, 100), split(terms, 64, Leaf.BIAS), halves):
        steps = segments_of(expr)
        data, weights = awkward(x, "x", 0.01), floats(w, "w")
        data[:, :, :4] = 0  # sums of nothing but zeros
        window = Window((3, 3), (stride, stride), (1, 1), (1, 1), groups, None)
        how = channel_layout(x, w, window.stride, (1, 1), (1, 1), groups)
        how = how or plane_layout(x, w, window.stride, (1, 1), (1, 1), groups)
        bias = floats((w[0],), "bias")
        addend = floats(how.output, "addend") if expr is halves else None
        place = Window((3, 3), window.stride, (1, 1), (1, 1), groups, how.output[2:])
        for zero in (False, True):
            monkeypatch.setattr(segments, "ordered_layout", lambda *_: None)
            expected = segments.convolve_in_order(data, weights, bias, place, zero, steps, 1, addend=addend)
            monkeypatch.setattr(segments, "ordered_layout", lambda *_, how=how: how)
            found = segments.convolve_in_order(
                data, weights, bias, place, zero, steps, threads, addend=addend
            )
            assert same_bits(found, expected)


def test_which_steps_are_computed_across_channels():
    order = [Order.of(range(3)), Order.of(range(3, 6))]
    chains = [Chain(Leaf.ZERO, one) for one in order]
    for expr, expected in (
        (chains[0], True),
        (Sum((*chains, Leaf.BIAS)), True),
        (Chain(Chain(Leaf.BIAS, order[0]), order[1]), True),
        (Sum((Leaf.ADDEND, chains[0])), True),
        (Chain(Leaf.ZERO, order[0], fused=False), False),
        (Sum((chains[0], Chain(Leaf.BIAS, order[1]))), False),
        (Sum((chains[0], Chain(Leaf.FIRST, order[1]))), False),
    ):
        assert ordered_channels.across(segments_of(expr)) == expected, expr


def test_small_ones_are_left_to_the_kernels_that_are_there_anyway():
    steps = segments_of(split(64, 32))
    window = Window((1, 1), (1, 1), (0, 0), (1, 1), 1, (7, 7))
    assert ordered_channels.ordered_layout((1, 64, 7, 7), (64, 64, 1, 1), window, steps) is None
    steps = segments_of(split(512, 128))
    assert ordered_channels.ordered_layout((1, 512, 7, 7), (512, 512, 1, 1), window, steps) is not None


@pytest.mark.parametrize("bias", [False, True])
def test_plain_order_is_computed_as_plain_is(bias):
    from refnet.arithmetic.plain import Plain
    from refnet.core.graph import Node
    from refnet.ops import Conv

    op = Conv(5, (3, 3), pad=(1, 1), bias=bias)
    chain = Chain(Leaf.ZERO, Order.of(range(27)))
    expr = Sum((chain, Leaf.BIAS)) if bias else chain
    assert plain_order(expr, 27) == (True, bias)
    assert plain_order(blocked(4, 9, 2), 36) == (False, False)
    inputs = [awkward((2, 3, 6, 5), "x", 0.1), floats((5, 3, 3, 3), "w"), floats((5,), "b")][: 2 + bias]
    assert same_bits(replayed(op, inputs, recipe(expr)), everywhere(recipe(expr), op, inputs))
    assert same_bits(replayed(op, inputs, recipe(expr)), Plain(1).evaluate(Node("it", op, ()), *inputs))
    padded = recipe(expr, "zero")
    weights = np.where(np.arange(inputs[1].size).reshape(inputs[1].shape) % 7 == 0, np.inf, inputs[1])
    inputs[1] = weights.astype(np.float32)
    assert same_bits(replayed(op, inputs, padded), everywhere(padded, op, inputs))
