"""Golden values against rational arithmetic: 0 differences, on ordinary, real and adversarial data."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refnet
from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.core.graph import Node
from refnet.exact.correct_rounding import RefineCount, nearest
from refnet.kernels import accumulator as exact
from tests.helpers.bits import AWKWARD, floats, same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import EXACT, FAST, exact_on
from tests.ops.test_ops_rules import EXAMPLES, SCALES, Example, arguments

EVERY = pytest.mark.parametrize("example", EXAMPLES, ids=[repr(e.op) for e in EXAMPLES])
QUIET = settings(deadline=None, database=None, derandomize=True)


def oracle(example: Example, values: list[np.ndarray], golden: np.ndarray, case: object = None) -> None:
    """Every element equals its exact value, rounded once by integer arithmetic; NaN where there is none."""
    for at in np.ndindex(golden.shape):
        try:
            true = example.exact(example.op, at, *values)
        except ValueError:
            assert np.isnan(golden[at]), (case, at, golden[at])
            continue
        expected = round_float32(true)
        assert same_bits(golden[at], expected) or true == golden[at] == 0, (
            case,
            at,
            golden[at],
            expected,
            float(true),
        )


@EVERY
def test_every_op(example):
    for scale in SCALES:
        values = arguments(example, scale)
        oracle(example, values, example.op.golden(*values, exact=exact_on(2)), scale)


POOL = [
    0.0,
    1.0,
    -1.0,
    1 + 2.0**-23,
    2.0**-24,
    -(2.0**-24),
    2.0**24,
    2.0**24 + 2,
    -(2.0**24),
    3e38,
    -3e38,
    1e-45,
]
POOL += [1e-38, -1e-38, 2.0**-126, 0.1, -0.1, 3.0, 1 / 3, 88.0, -87.5, -103.9, 2.0**-75, -(2.0**-75), 65504.0]
adversarial = st.one_of(st.sampled_from(POOL), st.floats(width=32, allow_nan=False, allow_infinity=False))


@EVERY
@settings(QUIET, max_examples=12)
@given(data=st.data())
def test_adversarial_numbers(example, data):
    """Ties, near-ties, massive cancellation, huge beside tiny, subnormal results, the overflow boundary."""
    values = arguments(example)
    roles = (*["data"] * len(example.data), *example.op.weight_roles())
    chosen = []
    for value, role in zip(values, roles, strict=True):
        few = data.draw(st.lists(adversarial, min_size=4, max_size=24))
        array = np.array(few, np.float32)
        pick = (np.abs(floats(value.shape, (role, len(few)))) * len(few)).astype(int) % len(few)
        made = array[pick].astype(np.float32)
        if isinstance(example.op, ops.Div | ops.WithScalar):  # nothing is divided by 0
            made[made == 0] = 3
        if example.positive:  # what is made of others: tests/ops/test_functions.py
            made = np.maximum(np.abs(made), np.float32(example.least or 1e-45))
        made = example.within(made)
        chosen.append(np.maximum(np.abs(made), np.float32(1e-30)) if role == "var" else made)
    with np.errstate(all="ignore"):
        oracle(example, chosen, example.op.golden(*chosen, exact=exact_on(1)))


def test_ties_and_cancellation_in_sums():
    """Sums built to end on, just above and just below the middle between two float32."""
    big = np.float32(2.0**24)
    rows = [
        ([big, 1.0, 0.0], big),  # a tie goes to the even neighbour
        ([big, 1.0, 2.0**-100], big + 2),  # just above
        ([big, 1.0, -(2.0**-100)], big),
        ([big + 2, 1.0, 0.0], big + 4),
        ([1e38, 1.0, -1e38], 1.0),
        ([3e38, 3e38, -3e38], 3e38),
        ([2.0**-149, -(2.0**-149), 0.0], 0.0),
        ([-0.0, -0.0, -0.0], 0.0),
    ]
    op = ops.Add(3)
    for terms, expected in rows:
        y = op.golden(*(np.array([[t]], np.float32) for t in terms), exact=EXACT)
        assert same_bits(y, np.array([[expected]], np.float32)), terms
    limit = float(np.finfo(np.float32).max)
    for last, expected in ((2.0**102, limit), (2.0**103, np.inf), (2.0**103 - 2.0**79, limit)):
        y = op.golden(*(np.array([[t]], np.float32) for t in (limit, last, 0.0)), exact=EXACT)
        assert y[0, 0] == np.float32(expected)


def test_batch_norm_on_the_middle():
    """With var + eps a perfect square the exact value can be a tie; the comparison in rationals sees it."""
    op = ops.BatchNorm(0.0)
    one = np.ones(1, np.float32)
    x = np.array([[2.0**24 + 2, 2.0**24 + 4, 3.0]], np.float32).T
    y = op.golden(x, one * 0.5, one * 0.5, one * 0, one, exact=EXACT)
    assert same_bits(y, np.array([[2.0**23 + 2], [2.0**23 + 2], [2.0]], np.float32))


def test_what_is_not_finite():
    nan, inf = np.nan, np.inf
    dense = ops.Dense(1, bias=False)
    for x, w, expected in (
        ([inf, 1], [1, 1], inf),
        ([inf, 1], [0, 1], nan),
        ([inf, -inf], [1, 1], nan),
        ([nan, 0], [0, 0], nan),
        ([3e38, 3e38], [10, -10], 0.0),
        ([3e38, 3e38], [10, 10], inf),
    ):
        y = dense.golden(np.array([x], np.float32), np.array([w], np.float32), exact=EXACT)
        assert same_bits(y, np.array([[expected]], np.float32)), (x, w)
    row = ops.Softmax(1).golden(np.array([[0, -inf, 0], [nan, 0, 0], [inf, 0, 0]], np.float32), exact=EXACT)
    assert same_bits(row, np.array([[0.5, 0, 0.5], [nan] * 3, [nan] * 3], np.float32))
    y = ops.Sigmoid().golden(
        np.array([[-inf, inf, nan, -104.0, -103.0, -200, 17.4]], np.float32), exact=EXACT
    )
    assert same_bits(y[0, :3], np.array([0, 1, nan], np.float32))
    for op in (ops.Conv(2, (2, 2), pad=(1, 1)), ops.AvgPool((2, 2), pad=(1, 1)), ops.BatchNorm(1e-4)):
        x = np.resize(AWKWARD, (1, 3, 4, 4)).astype(np.float32)
        weights = [np.ones(t.shape, np.float32) for t in op.weight_types(ops.TensorType(x.shape))]
        assert op.golden(x, *weights, exact=EXACT).shape == op.run(x, *weights, engine=FAST).shape


def test_an_infinite_weight_on_the_padding_has_no_effect():
    x, w = np.ones((1, 1, 1, 1), np.float32), np.full((4, 1, 3, 3), np.inf, np.float32)
    w[:, :, 1, 1] = 2
    y = ops.Conv(4, (3, 3), pad=(1, 1)).golden(x, w, exact=EXACT)
    assert same_bits(y, np.full((1, 4, 1, 1), 2, np.float32))


@settings(QUIET, max_examples=500)
@given(st.lists(st.tuples(adversarial, adversarial), min_size=1, max_size=24), st.integers(1, 50))
def test_the_accumulator(pairs, divisor):
    """After each product."""
    acc = np.zeros(exact.LIMBS, np.int64)
    total = Fraction(0)
    for first, second in pairs:
        a, b = float(np.float32(first)), float(np.float32(second))
        exact.add(acc, a * b)
        total += Fraction(a) * Fraction(b)
        found = np.array([exact.rounded(acc.copy(), divisor)], np.float32)
        expected = round_float32(total / divisor)
        assert same_bits(found, np.array([expected])) or total == found[0] == 0


@settings(QUIET, max_examples=600)
@given(st.fractions(min_value=-(Fraction(10) ** 39), max_value=Fraction(10) ** 39), st.integers(-3, 3))
def test_nearest_by_comparison(value, off):
    """From any guess nearby, `nearest` ends at the same float32."""
    with np.errstate(all="ignore"):
        guess = np.float32(float(value))
        for _ in range(abs(off)):
            guess = np.nextafter(guess, np.float32(np.inf * np.sign(off)))
    found = nearest(lambda m: (value > m) - (value < m), float(guess))
    assert same_bits(found, round_float32(value, 0.0))


@settings(QUIET, max_examples=300)
@given(
    st.fractions(min_value=-(Fraction(10) ** 39), max_value=Fraction(10) ** 39),
    st.floats(width=64) | st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-46, -3e38]),
)
def test_nearest_from_any_guess(value, guess):
    """After cancellation a guess says nothing: it may cost comparisons, but few, and no bit."""
    asked = []

    def compare(m):
        asked.append(m)
        return (value > m) - (value < m)

    assert same_bits(nearest(compare, guess), round_float32(value, 0.0))
    assert len(asked) <= 70


@pytest.mark.parametrize("limit", [2**128 - 2**103, 2**128, Fraction(1, 2**150), Fraction(3, 2**150)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("guess", [0.0, np.inf, -1.0])
def test_nearest_at_the_ends(limit, sign, guess):
    for off in (Fraction(-1, 2**400), 0, Fraction(1, 2**400)):
        value = sign * (limit + off)
        found = nearest(lambda m, v=value: (v > m) - (v < m), guess)
        assert same_bits(found, round_float32(value, 0.0))


def test_cancellation_leaves_no_guess():
    """What float64 loses all of: the true values are 1, 0 and 2.2e-16."""
    large = np.array([[1e30, 1, -1e30]], np.float32)
    assert ops.MatMul().golden(large, np.ones((3, 1), np.float32), exact=EXACT) == 1
    a, w = floats((8, 64), "a"), floats((64, 8), "w")
    assert (ops.MatMul().golden(np.hstack([a, -a]), np.vstack([w, w]), exact=EXACT) == 0).all()
    one = [np.array([v], np.float32) for v in (1, -1, 1.086917e-06, 1994)]
    x = np.array([[44.65423]], np.float32)
    found = ops.BatchNorm(0.0).golden(x, *one, exact=EXACT)
    assert 2.2e-16 < found < 2.3e-16


@pytest.mark.parametrize("size", [3, 23171, 65537, 92681, 4000037])
def test_averages_over_huge_windows(size):
    """Counting the padding, the divisor passes 2**27 and 2**31; sums lie next to a midpoint's multiple."""
    rng = np.random.default_rng(size)
    divisor = size * size
    op = ops.AvgPool((size, size), (1, 1), (size // 2, size // 2), "valid", True)
    for _ in range(20):
        total = divisor * (int(rng.integers(2**24, 2**25)) | 1) + int(rng.integers(-1, 2))
        parts, rest = [], total
        for _ in range(3):
            kept = max(rest.bit_length() - 24, 0)
            parts.append(rest >> kept << kept)
            rest -= parts[-1]
        x = np.array(parts, np.float32).reshape(1, 1, 1, 3)
        true = Fraction(sum(map(Fraction, x.reshape(-1).tolist()))) / divisor
        assert same_bits(op.golden(x, exact=EXACT)[0, 0, 0, 1], round_float32(true, 0.0))


@pytest.mark.parametrize("divisor", [1, 3, 2**27 + 1, 2**31 - 1, 2**31 + 11, 2**40 + 15, 2**46 - 1])
def test_rounding_a_quotient(divisor):
    rng = np.random.default_rng(divisor)
    for _ in range(50):
        values = np.ldexp(rng.integers(-(2**24), 2**24, 6), rng.integers(-149, 100, 6)).astype(np.float32)
        acc = np.zeros(exact.LIMBS, np.int64)
        for value in values.astype(np.float64):
            exact.add(acc, value)
        true = Fraction(sum(map(Fraction, values.tolist()))) / divisor
        found = np.array(exact.rounded(acc, divisor), np.float32)
        assert same_bits(found, np.array(round_float32(true, 0.0))) or true == found == 0


def test_softmax_of_many_equal_elements():
    """1/n, from 2**18 elements on left open by float64: it is rational, and all are one question."""
    x = np.zeros((2, 300_000), np.float32)
    x[1, ::3] = -np.inf
    y = ops.Softmax(1).golden(x, exact=EXACT)
    assert (y[0] == np.float32(1 / 300_000)).all()
    assert (y[1, 1::3] == np.float32(1 / 200_000)).all()
    assert (y[1, ::3] == 0).all()
    x[0, :150_000] = 1.0
    y = ops.Softmax(1).golden(x, exact=EXACT)
    assert len(np.unique(y[0])) == 2


@pytest.mark.parametrize("op", [ops.Mul(), ops.Sub(), ops.Div(), ops.Add(2), ops.Add(2, broadcast=True)])
def test_values_of_rank_0(op):
    """NumPy makes numbers of them; a value is an array."""
    nodes = (Node("sum", ops.ReduceSum((0, 1), False), ("data",)), Node("y", op, ("sum", "sum")))
    graph = refnet.Graph("rank0", {"data": ops.TensorType((1, 4))}, nodes, {"y": "y"})
    x = floats((1, 4), "x")
    for arithmetic in (None, None, None, Golden()):  # the second run is recorded, the third repeats it
        assert refnet.run(graph, {"data": x}, arithmetic)["y"].shape == ()


@pytest.mark.parametrize("name", ["octave-se-resnet-digits", "resnest-digits"])
def test_the_same_bits_for_threads_and_batch(name):
    graph = refnet.load(name)
    x = floats((4, 1, 32, 32), name)
    batch = {n.name: v.copy() for n, v in refnet.steps(graph, {"data": x}, Golden(threads=1))}
    for node, value in refnet.steps(graph, {"data": x}, Golden(threads=2)):
        assert same_bits(value, batch[node.name]), node.name
    for node, value in refnet.steps(graph, {"data": x[2:3]}, Golden(threads=2)):
        assert same_bits(value, batch[node.name][2:3]), node.name


def test_the_tally_counts_what_was_open():
    refine_count = RefineCount()
    x, w = np.ones((5, 3), np.float32), np.ones((2, 3), np.float32)
    x[3] = (2.0**24, 1, 2.0**-40)  # next to a tie: open for float64
    node = Node("d", ops.Dense(2, bias=False), ("x", "w"))
    y = Golden(threads=1, refine_count=refine_count).evaluate(node, x, w)
    assert same_bits(y[3], np.full(2, 2.0**24 + 2, np.float32))
    assert refine_count.by_op == {"Dense": (10, 2)}
