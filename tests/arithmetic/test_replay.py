"""Replay: the fast executions equal the literal meaning of a recipe, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refnet.arithmetic.replay import Replay
from refnet.core.errors import InputError
from refnet.core.graph import Node
from refnet.core.orders import (
    Book,
    Chain,
    Leaf,
    Order,
    Part,
    Program,
    Recipe,
    Reference,
    Sum,
    Unconfirmed,
    signature,
)
from refnet.kernels.orders import program_arrays, segments
from refnet.ops import AvgPool, Conv, ConvAdd, Dense, GlobalAvgPool
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.recipes import blocked, elements, everywhere, exprs, kind, lanes, recipe, regions, split

QUIET = settings(deadline=None, database=None, derandomize=True)
REFERENCE = Reference("torch", "2.13.0", "cpu", "avx2", 1, 1, "eager")


def book(op, inputs, made) -> Book:
    return Book(REFERENCE, {signature(op, list(map(kind, inputs))): made})


def replayed(op, inputs, made, threads=1):
    return Replay(book(op, inputs, made), threads).evaluate(Node("it", op, ()), *inputs)


@st.composite
def convolutions(draw):
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3), (1, 4)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1)]))
    pad = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (3, 1)]))
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 9))
        for k, d, p in zip(kernel, dilation, pad, strict=True)
    ]
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per, outputs, batch = draw(st.integers(1, 5)), draw(st.integers(1, 11)), draw(st.integers(1, 2))
    bias, addend = draw(st.booleans()), draw(st.booleans())
    op = Conv(groups * outputs, kernel, stride, pad, dilation, groups, bias)
    shape = (batch, groups * per, *size)
    terms = per * kernel[0] * kernel[1]
    parts = []
    out = op.type(kind(np.empty(shape)), *op.weight_types(kind(np.empty(shape)))).shape
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        program = Program(draw(exprs(terms, bias, addend)), draw(st.sampled_from(["skip", "zero"])))
        parts.append(Part(program, draw(regions(out))))
    last = Program(draw(exprs(terms, bias, addend)), draw(st.sampled_from(["skip", "zero"])))
    return ConvAdd(op) if addend else op, [shape, out] if addend else [shape], Recipe((*parts, Part(last)))


@settings(QUIET, max_examples=250)
@given(convolutions(), st.sampled_from([0.0, 0.0, 0.15, 0.9]), st.sampled_from([0.0, 0.0, 0.15, 0.9]))
def test_any_recipe_of_a_convolution(case, odd_data, odd_weights):
    op, shapes, made = case
    inputs = [awkward(shape, f"x{i}", odd_data) for i, shape in enumerate(shapes)]
    inputs += [awkward(t.shape, i, odd_weights) for i, t in enumerate(op.weight_types(*map(kind, inputs)))]
    expected = everywhere(made, op, inputs)
    assert same_bits(replayed(op, inputs, made), expected)
    assert same_bits(replayed(op, inputs, made, threads=3), expected)


@settings(QUIET, max_examples=100)
@given(st.data(), st.integers(1, 40), st.integers(1, 70), st.integers(1, 3), st.sampled_from([0.0, 0.3]))
def test_any_recipe_of_a_dense_layer(data, terms, units, batch, odd):
    bias = data.draw(st.booleans())
    op = Dense(units, bias)
    inputs = [awkward((batch, terms), "x", odd), awkward((units, terms), "w", odd)]
    inputs += [floats((units,), "b")] if bias else []
    parts = [Part(Program(data.draw(exprs(terms, bias))), data.draw(regions((batch, units))))]
    made = Recipe((*parts[: data.draw(st.integers(0, 1))], Part(Program(data.draw(exprs(terms, bias))))))
    assert same_bits(replayed(op, inputs, made, 2), everywhere(made, op, inputs))


@st.composite
def pools(draw):
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pad = (draw(st.integers(0, kernel[0] - 1)), draw(st.integers(0, kernel[1] - 1)))
    size = [draw(st.integers(k, 9)) for k in kernel]
    if draw(st.booleans()):
        return GlobalAvgPool(), size, size[0] * size[1]
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    op = AvgPool(kernel, stride, pad, draw(st.sampled_from(["valid", "ceil"])), draw(st.booleans()))
    return op, size, kernel[0] * kernel[1]


@settings(QUIET, max_examples=150)
@given(
    st.data(),
    pools(),
    st.sampled_from(["divide", "reciprocal", "divide_w_h", "divide_terms"]),
    st.sampled_from(["skip", "zero"]),
    st.sampled_from([0.0, 0.4]),
)
def test_any_recipe_of_an_average(data, pool, finish, padding, odd):
    op, size, terms = pool
    inputs = [awkward((2, 3, *size), "x", odd)]
    padding = "skip" if isinstance(op, GlobalAvgPool) else padding
    made = recipe(data.draw(exprs(terms, bias=False)), padding, finish)
    assert same_bits(replayed(op, inputs, made), everywhere(made, op, inputs))


@pytest.mark.parametrize("convention", ["ceil", "full"])
@pytest.mark.parametrize("finish", ["divide", "reciprocal", "divide_w_h", "divide_terms"])
@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), (2, 2)), ((3, 2), (2, 2))])
def test_a_last_window_that_overhangs(convention, finish, kernel, stride):
    """Rounded up, the output is larger than that of the convolution that a pool's sum otherwise is."""
    op = AvgPool(kernel, stride, convention=convention)
    inputs = [awkward((2, 3, 6, 5), "x", 0.2)]
    terms = kernel[0] * kernel[1]
    backwards = Order.of(range(terms - 1, -1, -1))
    for expr in (Chain(Leaf.FIRST, Order.of(range(terms))), Chain(Leaf.ZERO, backwards)):
        made = recipe(expr, "skip", finish)
        assert same_bits(replayed(op, inputs, made), everywhere(made, op, inputs))


def test_long_chains_and_segments_of_every_length():
    """More terms than a panel holds, in segments shorter and longer than a panel."""
    op = Conv(19, (1, 1), bias=True)
    inputs = [floats((1, 1200, 5, 7), "x"), floats((19, 1200, 1, 1), "w"), floats((19,), "b")]
    for size in (1, 100, 256, 257, 600, 1200):
        made = recipe(split(1200, size, Leaf.BIAS))
        y = replayed(op, inputs, made, 2)
        places = [(0, 0, 0, 0), (0, 18, 4, 6), (0, 7, 2, 3), (0, 8, 4, 5)]
        assert same_bits(np.array([y[at] for at in places]), elements(made, op, inputs, places)), size


def test_another_order_gives_other_bits():
    """The comparison can fail: each of these neighbours of a recipe differs from it."""
    op = Conv(32, (3, 3), pad=(1, 1))
    inputs = [floats((1, 64, 9, 9), "x"), floats((32, 64, 3, 3), "w")]
    right = blocked(64, 9)
    y = replayed(op, inputs, recipe(right))
    terms = right.terms.indices()
    first, second = terms[:300], terms[300:]
    # the first two would commute, being a product and an FMA
    swapped = [terms[1], terms[2], terms[0], *terms[3:]]
    for wrong in (
        blocked(64, 9, 16),
        Chain(Leaf.ZERO, Order.of(range(576))),
        Chain(Leaf.ZERO, right.terms, fused=False),
        Sum((Chain(Leaf.ZERO, Order.of(first)), Chain(Leaf.ZERO, Order.of(second)))),
        Chain(Leaf.ZERO, Order.of(swapped)),
    ):
        assert not same_bits(replayed(op, inputs, recipe(wrong)), y), wrong


def test_seeds_and_padding_show_in_the_sign_of_zero():
    op = Conv(4, (1, 2), pad=(0, 1))
    inputs = [np.full((1, 1, 1, 2), -0.0, np.float32), np.ones((4, 1, 1, 2), np.float32)]
    terms = Order.of(range(2))
    signs = {
        (seed, padding): np.signbit(
            replayed(op, inputs, recipe(Chain(seed, terms), padding))[0, 0, 0]
        ).tolist()
        for seed in (Leaf.ZERO, Leaf.FIRST)
        for padding in ("skip", "zero")
    }
    assert signs[Leaf.ZERO, "skip"] == signs[Leaf.ZERO, "zero"] == [False] * 3
    assert signs[Leaf.FIRST, "skip"] == [True] * 3
    assert signs[Leaf.FIRST, "zero"] == [False, True, False]


def test_a_partial_sum_that_underflowed_keeps_its_sign_before_padding():
    """fma(1e-30, -1e-30, +0) is -0; adding weight * 0 behind it would make +0 of it, leaving out does not."""
    op = Conv(4, (1, 2), pad=(0, 1))
    inputs = [np.full((1, 1, 1, 2), -1e-30, np.float32), np.full((4, 1, 1, 2), 1e-30, np.float32)]
    for order in (range(2), (1, 0)):
        chain = Chain(Leaf.ZERO, Order.of(order))
        left_out, zeros = (replayed(op, inputs, recipe(chain, padding)) for padding in ("skip", "zero"))
        assert np.signbit(left_out).all()
        assert np.signbit(zeros[0, 0, 0]).tolist() == [order == range(2), True, order != range(2)]


def test_chains_from_left_to_right_run_in_the_panels_and_trees_in_registers():
    terms = Order.of(range(8))
    assert segments(Sum((split(8, 4, Leaf.BIAS), Leaf.BIAS))) is not None
    assert segments(Chain(Sum((Leaf.BIAS, Chain(Leaf.ZERO, Order.of(range(4))))), terms)) is not None
    assert segments(lanes(16)) is None
    assert program_arrays(lanes(16)).depth == 3


def test_another_book_takes_no_recipe_of_the_one_before():
    """What an arithmetic keeps is of its own book, also if it was made by `dataclasses.replace`."""
    op, x, w = Dense(1, bias=False), np.float32([[1e8, 1, -1e8]]), np.ones((1, 3), np.float32)
    node = Node("it", op, ())
    orders = [recipe(Chain(Leaf.ZERO, Order.of(terms))) for terms in ((0, 1, 2), (0, 2, 1))]
    first = Replay(book(op, [x, w], orders[0]), 1)
    assert first.evaluate(node, x, w) == 0
    assert replace(first, book=book(op, [x, w], orders[1])).evaluate(node, x, w) == 1
    assert first.evaluate(node, x, w) == 0


def test_what_a_book_does_not_know_is_an_error():
    op = Conv(4, (1, 1))
    inputs = [floats((1, 3, 5, 5), "x"), floats((4, 3, 1, 1), "w")]
    node = Node("conv1", op, ())
    known = book(op, inputs, recipe(split(3, 3)))
    Replay(known).evaluate(node, *inputs)
    two = np.concatenate([inputs[0]] * 2)
    with pytest.raises(InputError, match=r"no recipe for conv1 = Conv.*batch 1, this is batch 2"):
        Replay(known).evaluate(node, two, inputs[1])
    assert Replay(known).evaluate_or_none(node, two, inputs[1]) is None
    smaller = [inputs[0][:, :, :4], inputs[1]]
    with pytest.raises(InputError, match="no recipe for conv1"):
        Replay(known).evaluate(node, *smaller)
    tried = Unconfirmed(signature(op, list(map(kind, smaller))), ("conv1",), "element 3 differs")
    with pytest.raises(InputError, match="as unconfirmed: element 3 differs"):
        Replay(Book(REFERENCE, known.recipes, unconfirmed=(tried,))).evaluate(node, *smaller)
    with pytest.raises(InputError, match="does not fit: 4 terms are added, there are 3"):
        Replay(book(op, inputs, recipe(split(4, 4)))).evaluate(node, *inputs)
    with pytest.raises(InputError, match="cannot finish with 'divide'"):
        Replay(book(op, inputs, recipe(split(3, 3), finish="divide"))).evaluate(node, *inputs)


SCRIPT = """
import hashlib
import numpy as np
from refnet.kernels import writer
from refnet.ops import Conv, Dense, GlobalAvgPool
from refnet.core.orders import Chain, Leaf, Order, Sum
from tests.helpers.bits import floats
from tests.helpers.recipes import blocked, lanes, recipe, split
from tests.arithmetic.test_replay import replayed
digest = hashlib.sha256()
x, w, b = floats((2, 6, 9, 11), "x"), floats((20, 3, 3, 3), "w"), floats((20,), "b")
op = Conv(20, (3, 3), (2, 1), (1, 2), groups=2, bias=True)
unfused = Sum((Chain(Leaf.ZERO, Order.of(range(27)), fused=False), Leaf.BIAS))
for rule in (split(27, 10, Leaf.BIAS), blocked(3, 9, 2, Leaf.BIAS), lanes(27), unfused):
    digest.update(replayed(op, [x, w, b], recipe(rule), 2))
inputs = [floats((3, 70), "p"), floats((90, 70), "q"), floats((90,), "r")]
digest.update(replayed(Dense(90), inputs, recipe(lanes(70))))
digest.update(replayed(GlobalAvgPool(), [x], recipe(split(99, 16), finish="divide")))
print(writer.VECTOR, digest.hexdigest())
"""


@pytest.mark.other_processor
def test_the_same_bits_without_fma_and_avx():
    """A generic x86-64 processor has neither: FMA then comes from the C library."""
    root = Path(__file__).parents[2]

    def said(**environment: str) -> list[str]:
        found = {**os.environ, "PYTHONPATH": str(root), **environment}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=found)
        return done.stdout.split()

    native = said()
    generic = said(NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+sse2")
    assert generic[0] == "16"
    assert generic[1] == native[1]
