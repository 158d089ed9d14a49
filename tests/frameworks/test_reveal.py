"""Reveal: from what a framework answers to the order in which it adds, against simulated frameworks."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refnet.arithmetic.recipes import holds
from refnet.core.bits import equal_bits
from refnet.core.op import TensorType
from refnet.core.orders import Box, Chain, Leaf, Order, Part, Program, Recipe, Sum, check
from refnet.frameworks.caller import Caller, input_names
from refnet.frameworks.reveal.compress import expression, joints
from refnet.frameworks.reveal.formulas import reveal_formula
from refnet.frameworks.reveal.positive import Positive, positive_tree
from refnet.frameworks.reveal.probe import AskedReduction, odd_inputs, random_inputs
from refnet.frameworks.reveal.regions import region, runs
from refnet.frameworks.reveal.sums import reveal_sum
from refnet.frameworks.reveal.tree import Path, Unexplained, leaves_of, summation_tree
from refnet.ops import AvgPool, Conv, ConvAdd, Dense, GlobalAvgPool, Relu, Sin, Softmax
from tests.arithmetic.test_replay import exprs
from tests.helpers.bits import floats
from tests.helpers.engines import FAST
from tests.helpers.recipes import blocked, elements, kind, lanes, recipe, split, value

QUIET = settings(deadline=None, database=None, derandomize=True)


@st.composite
def trees(draw, most=24):
    """A random tree of additions over 0 .. n - 1, as nested pairs."""
    parts: list = draw(st.permutations(range(draw(st.integers(1, most)))))
    style = draw(st.sampled_from(["any", "chain", "backwards"]))
    while len(parts) > 1:
        at = {"any": draw(st.integers(0, len(parts) - 2)), "chain": 0, "backwards": len(parts) - 2}[style]
        parts[at : at + 2] = [(parts[at], parts[at + 1])]
    return parts[0]


def size_under(path: Path, pairs: np.ndarray) -> np.ndarray:
    """What `ask` would answer if this were the tree."""
    parents: dict[int, list[tuple[int, int]]] = {}  # leaf -> (node, its size), outwards
    serial = 0

    def visit(one: Path) -> list[int]:
        nonlocal serial
        inside = [one.leaf]
        parents[one.leaf] = []
        for other in one.others:
            inside = inside + visit(other)
            for leaf in inside:
                parents[leaf].append((serial, len(inside)))
            serial += 1
        return inside

    visit(path)
    answers = []
    for i, j in pairs:
        around = dict(parents[int(i)])
        answers.append(next(size for node, size in parents[int(j)] if node in around))
    return np.array(answers, np.int64)


def size_of(tree) -> int:
    return size_of(tree[0]) + size_of(tree[1]) if isinstance(tree, tuple) else 1


def inside(tree) -> set[int]:
    return inside(tree[0]) | inside(tree[1]) if isinstance(tree, tuple) else {tree}


def asker(tree):
    def smallest(one, i, j):
        for side in one:
            if {i, j} <= inside(side):
                return smallest(side, i, j)
        return size_of(one)

    return lambda pairs: np.array([smallest(tree, int(i), int(j)) for i, j in pairs], np.int64)


def added(tree, x):
    return np.float32(added(tree[0], x) + added(tree[1], x)) if isinstance(tree, tuple) else x[tree]


@settings(QUIET, max_examples=200)
@given(trees())
def test_any_tree_is_found_from_its_sizes(tree):
    ask = asker(tree)
    path = summation_tree(sorted(inside(tree)), ask)
    assert sorted(leaves_of(path)) == sorted(inside(tree))
    pairs = np.array(list(combinations(sorted(inside(tree)), 2)), np.int64).reshape(-1, 2)
    assert (size_under(path, pairs) == ask(pairs)).all()


@settings(QUIET, max_examples=200)
@given(trees())
def test_the_expression_adds_as_the_tree_does(tree):
    path = summation_tree(sorted(inside(tree)), asker(tree))
    found = expression(path, ())
    n = size_of(tree)
    assert check(found, n, bias=False) == n
    for seed in range(4):
        x = floats((n,), seed)
        ones = np.ones(n, np.float32)
        own = value(found, ones, x)
        assert own.view(np.uint32) == added(tree, x).view(np.uint32)


def test_a_chain_takes_one_question_per_summand():
    asked = []

    def ask(pairs):
        asked.append(len(pairs))
        return pairs.max(1) + 1

    path = summation_tree(range(2000), ask)
    assert asked == [1999]
    assert expression(path, range(1, 2000)) == Chain(Leaf.ZERO, Order.of(range(2000)))


@pytest.mark.parametrize("sizes", [[2, 2], [3, 3], [2, 4], [1, 3]])
def test_sizes_of_no_tree(sizes):
    with pytest.raises(Unexplained):
        summation_tree([0, 1, 2], lambda pairs: np.array(sizes[: len(pairs)]))


def test_joints_name_each_term_that_can_be_fused():
    tree = Path(0, (Path(1), Path(2), Path(3, (Path(4),)), Path(5)))
    assert sorted((j.leaf, j.partner, j.pair) for j in joints(tree)) == [
        *((1, 0, True), (2, 0, False), (4, 3, True), (5, 0, False))
    ]


# Simulated frameworks: an op whose every element is what its recipe literally says.


def simulated(op, made: Recipe) -> Caller:
    def some(inputs, cut):
        shape = op.type(*map(kind, inputs)).shape
        at = np.asarray(np.arange(np.prod(shape)).reshape(shape)[cut])
        places = np.stack(np.unravel_index(at.ravel(), shape), axis=-1)
        return elements(made, op, inputs, places).reshape(at.shape)

    return answering(op, some)


def serving(op, whole) -> Caller:
    return answering(op, lambda inputs, cut: whole(inputs)[cut])


def answering(op, some) -> Caller:
    """some: what an op makes of inputs, at a cut of its output."""
    names = input_names(op, 1 + isinstance(op, ConvAdd) + len(op.weight_roles()))

    def request(fixed, each, take):
        cut = tuple(slice(None) if k is None else k for k in take)
        calls = len(next(iter(each.values())))
        found = []
        for i in range(calls):
            inputs = [each[n][i] if n in each else fixed[n] for n in names]
            with np.errstate(all="ignore"):
                found.append(some(inputs, cut))
        return np.stack(found)

    return Caller(names, request)


def types_of(op, shape):
    x = TensorType(shape)
    if isinstance(op, ConvAdd):
        weights = op.conv.weight_types(x)
        return (x, op.conv.type(x, *weights), *weights)
    return (x, *op.weight_types(x))


def assert_found(op, shape, made: Recipe) -> Recipe:
    types = types_of(op, shape)
    framework = simulated(op, made)
    found = reveal_sum(AskedReduction(op, types, framework))
    for seed in (101, 102, 103):
        inputs = random_inputs(types, seed)
        theirs = framework({}, {n: a[None] for n, a in zip(framework.names, inputs, strict=True)})[0]
        own = simulated(op, found)({}, {n: a[None] for n, a in zip(framework.names, inputs, strict=True)})[0]
        assert equal_bits(own, theirs.reshape(own.shape)).all()
    return found


@settings(QUIET, max_examples=60)
@given(st.data(), st.integers(1, 24), st.booleans())
def test_any_order_of_a_dense_layer_is_found(data, terms, bias):
    assert_found(Dense(5, bias), (1, terms), recipe(data.draw(exprs(terms, bias))))


@settings(QUIET, max_examples=25)
@given(st.data(), st.booleans())
def test_any_order_of_a_convolution_is_found(data, bias):
    op = Conv(4, (2, 2), groups=2, bias=bias)
    assert_found(op, (1, 6, 3, 4), recipe(data.draw(exprs(12, bias))))


@settings(QUIET, max_examples=25)
@given(st.data(), st.booleans())
def test_any_order_of_a_convolution_that_another_value_joins_is_found(data, bias):
    op = ConvAdd(Conv(4, (2, 2), groups=2, bias=bias))
    assert_found(op, (1, 6, 3, 4), recipe(data.draw(exprs(12, bias, addend=True))))


def test_a_chain_that_starts_from_the_addend():
    made = recipe(blocked(16, 9, seed=Leaf.ADDEND))
    assert assert_found(ConvAdd(Conv(3, (3, 3), pad=(1, 1))), (2, 16, 4, 4), made) == made


@pytest.mark.parametrize(
    ("op", "shape", "made"),
    [
        (Conv(3, (3, 3), pad=(1, 1)), (1, 16, 4, 4), recipe(blocked(16, 9))),
        (Conv(3, (3, 3), pad=(1, 1)), (1, 4, 5, 5), recipe(split(36, 16), padding="zero")),
        (Conv(3, (1, 1), bias=True), (2, 70, 2, 2), recipe(split(70, 32, seed=Leaf.BIAS))),
        (Conv(3, (1, 1), bias=True), (1, 37, 1, 1), recipe(lanes(37))),
        (Dense(4), (2, 37), recipe(Sum((Leaf.BIAS, *split(37, 16).parts)))),
    ],
)
def test_orders_that_frameworks_have(op, shape, made):
    found = assert_found(op, shape, made)
    assert len(found.parts) == 1
    assert found.parts[0].do.padding == made.parts[0].do.padding


@pytest.mark.parametrize("start", [Leaf.ZERO, Leaf.FIRST])
@pytest.mark.parametrize("finish", ["divide", "reciprocal", "divide_w_h", "divide_terms"])
def test_pools(start, finish):
    op = AvgPool((3, 3), (2, 2), (1, 1))
    order = Chain(start, Order(((0, 3, 1, 3, 3),)), fused=False)
    found = assert_found(op, (1, 3, 7, 7), recipe(order, finish=finish))
    assert found.parts[-1].do == Program(order, "skip", finish)
    rows = Sum(
        (Chain(start, Order.of(range(0, 20, 2)), False), Chain(start, Order.of(range(1, 20, 2)), False))
    )
    found = assert_found(GlobalAvgPool(), (1, 3, 4, 5), recipe(rows, finish=finish))
    assert found.parts[-1].do.expr == rows


def test_a_dilated_pool():
    op = AvgPool((2, 3), (1, 2), (1, 0), dilation=(2, 1))
    order = Sum(
        (Chain(Leaf.FIRST, Order.of((0, 2, 4)), False), Chain(Leaf.FIRST, Order.of((1, 3, 5)), False))
    )
    assert assert_found(op, (1, 4, 6, 7), recipe(order, finish="divide")).parts[-1].do.expr == order


def test_no_element_sees_all_terms():
    """3 x 3 on 2 x 2 pixels: each position has four of the nine taps, and an order of its own to find."""
    assert_found(Conv(6, (3, 3), pad=(1, 1)), (1, 3, 2, 2), recipe(blocked(3, 9)))
    assert_found(Conv(6, (3, 3), pad=(1, 1)), (1, 3, 2, 2), recipe(split(27, 8), padding="zero"))


def test_a_small_depthwise_image_has_one_order():
    """Wherever it is asked, some taps lie in the padding: they are put where the others' order has room."""
    op = Conv(32, (3, 3), pad=(1, 1), groups=32)
    found = assert_found(op, (1, 32, 2, 2), recipe(Chain(Leaf.ZERO, Order.of(range(9)))))
    assert len(found.parts) == 1
    assert found.parts[0].do.expr == Chain(Leaf.ZERO, Order.of(range(9)))


@pytest.mark.parametrize(
    ("op", "shape", "box"),
    [
        (Dense(11), (3, 9), (("c", (8, 11, 1)),)),
        (Dense(11), (3, 9), (("n", (2, 3, 1)),)),
        (Conv(5, (1, 1), bias=True), (1, 9, 3, 4), (("p", (10, 12, 1)),)),
        (Conv(5, (1, 1), bias=True), (2, 9, 3, 4), (("m", (20, 24, 1)), ("c", (0, 4, 1)))),
        (Conv(4, (3, 3), pad=(1, 1), bias=True), (1, 1, 5, 6), (("y", (0, 1, 1)),)),
    ],
)
def test_parts_of_the_output_in_another_order(op, shape, box):
    types = types_of(op, shape)
    terms = TensorType(types[1].shape[1:]).size
    special = Program(lanes(terms, head=1, fused=True))
    made = Recipe((Part(special, (Box(box),)), Part(Program(split(terms, 4, Leaf.BIAS)))))
    found = assert_found(op, shape, made)
    assert len(found.parts) > 1
    y = op.type(*types).shape
    held = holds((Box(box),), y)
    assert (holds(found.parts[0].where, y) <= held).all() or (holds(found.parts[0].where, y) >= held).all()


def test_what_is_no_sum_is_named():
    op = Dense(4, bias=False)

    def sorted_sum(inputs):
        x, w = inputs
        return np.sort(w * x[0], axis=1).sum(1, dtype=np.float32)[None]

    with pytest.raises(Unexplained):
        reveal_sum(AskedReduction(op, types_of(op, (1, 12)), serving(op, sorted_sum)))

    def threes(inputs):
        x, w = inputs
        products = (w * x[0]).astype(np.float64).reshape(4, -1, 3).sum(2).astype(np.float32)
        return np.cumsum(products, 1, np.float32)[:, -1][None]

    with pytest.raises(Unexplained):
        reveal_sum(AskedReduction(op, types_of(op, (1, 12)), serving(op, threes)))


# Positive sums and formulas.


@settings(QUIET, max_examples=100)
@given(trees(most=20))
def test_any_tree_of_positive_summands_is_found(tree):
    n = size_of(tree)

    def shows(rows):
        return np.array([added(tree, row.astype(np.float32)) != 1 for row in rows])

    path = positive_tree(Positive(n, shows))
    pairs = np.array(list(combinations(range(n), 2)), np.int64).reshape(-1, 2)
    assert (size_under(path, pairs) == asker(tree)(pairs)).all()


def test_a_softmax_with_lanes():
    op = Softmax(axis=1)
    chains = [Chain(Leaf.ZERO, Order.of(range(lane, 21, 4)), False) for lane in range(4)]
    order = Sum((Sum((chains[0], chains[2])), Sum((chains[1], chains[3]))))

    def whole(inputs):
        return op.replay("sleef-reciprocal", *inputs, total=order, engine=FAST)

    found = reveal_formula(op, [TensorType((2, 21))], serving(op, whole))
    choice = found.parts[-1].do
    assert choice.formula == "sleef-reciprocal"
    x = floats((2, 21), "softmax") * np.float32(4)
    own = op.replay(choice.formula, x, total=choice.total, engine=FAST)
    assert equal_bits(own, whole([x])).all()


@pytest.mark.parametrize("rule", Relu.formulas)
def test_relu_by_what_it_does_with_zeros_and_nan(rule):
    op = Relu()
    framework = serving(op, lambda inputs: op.replay(rule, *inputs, engine=FAST))
    assert reveal_formula(op, [TensorType((1, 3, 8, 8))], framework).parts[-1].do.formula == rule


def test_an_op_without_a_menu():
    framework = serving(Sin(), lambda inputs: np.sin(inputs[0]))
    with pytest.raises(Unexplained, match=r"^no framework's formula is known for this op$"):
        reveal_formula(Sin(), [TensorType((1, 3, 8, 8))], framework)


def test_a_formula_that_the_menu_lacks():
    op = Softmax(axis=1)

    def whole(inputs):
        x = inputs[0].astype(np.float64)
        e = np.exp(x - x.max(1, keepdims=True))
        return (e / e.sum(1, keepdims=True)).astype(np.float32)

    with pytest.raises(Unexplained):
        reveal_formula(op, [TensorType((1, 40))], serving(op, whole))


# Regions and inputs.


@settings(QUIET, max_examples=100)
@given(st.sets(st.integers(0, 60)))
def test_runs_hold_their_indices(indices):
    found = runs(np.array(sorted(indices), np.int64))
    assert sorted(i for start, stop, step in found for i in range(start, stop, step)) == sorted(indices)


@settings(QUIET, max_examples=60)
@given(st.data())
def test_a_region_holds_what_is_wanted_and_only_what_is_allowed(data):
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    wanted = rng.random(shape) < data.draw(st.sampled_from([0.1, 0.5]))
    allowed = wanted | (rng.random(shape) < 0.5)
    if wanted.any() and (found := region(wanted, allowed)) is not None:
        held = holds(found, shape).reshape(shape)
        assert (held | ~wanted).all()
        assert (allowed | ~held).all()


def test_odd_inputs_are_odd_but_not_hopeless():
    types = [TensorType((1, 500)), TensorType((8, 500))]
    sums = [x @ w.T for x, w in (odd_inputs(types, seed, 500) for seed in range(6))]
    assert any(np.isnan(y).any() for y in sums)
    assert all(not np.isnan(y).all() for y in sums)
    assert any((y == 0).any() for y in sums)
