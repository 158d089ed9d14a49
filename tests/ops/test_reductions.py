"""Logarithms, norms, products and responses where float64 decides nothing, or an input is no number."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.core.op import Interval
from refnet.loops.engine import REFERENCE
from refnet.ops.logarithms import _log, _series
from tests.helpers.bits import floats, same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import FAST

F = np.float32
EXACT = Golden().exact
INF, NAN = np.inf, np.nan


def test_the_logarithm_holds_its_bound_and_needs_no_library():
    s = np.concatenate([2.0 ** np.arange(-149, 151), 1 + np.arange(1, 300) * 2.0**-20, np.arange(1.0, 300)])
    found, error = _log(s, FAST)
    assert (error < 2.0**-45).all()
    with localcontext() as context:
        context.prec = 50
        for value, y, e in zip(s, found, error, strict=True):
            assert abs(Decimal(float(y)) - Decimal(float(value)).ln()) <= Decimal(float(e)), value
    assert np.array_equal(found, _log(s, REFERENCE)[0])
    assert np.abs(_series(s) - np.log(s)).max() < 1e-13
    special = _log(np.array([0.0, -1.0, np.nan, np.inf]), FAST)[0]
    assert np.array_equal(special, [-np.inf, np.nan, np.nan, np.inf], equal_nan=True)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([7.0], [0.0]),
        ([7.0, -INF], [0.0, -INF]),
        ([0.0, -1e30], [-0.0, -1e30]),
        ([1.0, -(2.0**-24)], None),
        ([2.0**-24, -200.0], [-0.0, -200.0]),  # -200 - 2**-24 - tiny
        ([3e38, -3e38], [-0.0, -INF]),
        ([INF, 1.0], [NAN, NAN]),
        ([NAN, 1.0], [NAN, NAN]),
        ([-INF, -INF], [NAN, NAN]),
        ([0.0, -20.0, -30.0], None),
        ([5.0] * 8, None),
        ([88.0, -100.0, 12.0], None),
    ],
)
def test_log_softmax(row, expected):
    x = F([row])
    found = ops.LogSoftmax(1).golden(x, exact=EXACT)[0]
    if expected is None:
        with localcontext() as context:
            context.prec = 120
            total = sum((Decimal(float(v)) - Decimal(max(row))).exp() for v in x[0]).ln()
            true = [Fraction(Decimal(float(v)) - Decimal(max(row)) - total) for v in x[0]]
        expected = [round_float32(t) for t in true]
    assert same_bits(found, F(expected))
    with np.errstate(all="ignore"):
        plain = ops.LogSoftmax(1).run(x, engine=FAST)[0]
    assert same_bits(np.isnan(plain).astype(F), np.isnan(found).astype(F))


def test_a_log_just_beside_a_midpoint():
    """x - m is a midpoint, and the logarithm moves it by less than any float64 shows."""
    m = F(1)
    x = F([[m, F(-(2.0**-24))]])  # -1 - 2**-24: a midpoint, and log(1 + e**-1...) is no small number
    assert not same_bits(ops.LogSoftmax(1).golden(x, exact=EXACT)[0, 1], F(-1))
    x = F([[2.0**-24, -200.0]])
    lower = np.nextafter(F(-200), F(-201))
    assert ops.LogSoftmax(1).golden(x, exact=EXACT)[0, 1] in (F(-200), lower)
    x = F([[2.0**-17, -150.0]])  # -150 - 2**-17 is a midpoint of floats 2**-16 apart
    assert (float(x[0, 1]) - float(x[0, 0])) * 2**17 % 2 == 1
    assert same_bits(ops.LogSoftmax(1).golden(x, exact=EXACT)[0, 1], np.nextafter(F(-150), F(-151)))
    assert same_bits(ops.ReduceLogSumExp((1,), False).golden(x, exact=EXACT)[0], F(2.0**-17))


def test_log_sum_exp_and_log_sum():
    lse = ops.ReduceLogSumExp((1,), False)
    x = F([[-INF, -INF], [INF, 1], [NAN, 1], [-INF, 3], [2, -1e30], [3e38, 3e38]])
    expected = F([-INF, INF, NAN, 3, 2, 3e38])
    assert same_bits(lse.golden(x, exact=EXACT), expected)
    assert same_bits(lse.run(x, engine=FAST), expected)
    log_sum = ops.ReduceLogSum((1,), False)
    x = F([[2.0**-149, 0], [1, 0], [1, -1], [1, -2], [2.0**100, -(2.0**100)], [1e8, 1], [NAN, 1], [INF, 1]])
    found = log_sum.golden(x, exact=EXACT)
    assert same_bits(found, F([-103.27893, 0, -INF, NAN, -INF, np.log(1e8 + 1), NAN, INF]))
    cancelled = F([[2.0**60, 1, -(2.0**60)]])
    assert same_bits(log_sum.golden(cancelled, exact=EXACT), F([0]))


def test_products_need_no_range():
    op = ops.ReduceProd((1,), False)
    x = F([[1e-30, 1e30, 1e-30, 1e30], [1e30, 1e30, -1e-30, 1e-38], [1e-30, 1e-30, -1, 1], [0, -3, 2, 1]])
    true = [math.prod(map(Fraction, row.tolist())) for row in x]
    expected = F([round_float32(t, 0.0) for t in true])
    expected[2] = -0.0  # below every float32, and negative
    assert same_bits(op.golden(x, exact=EXACT), expected)
    wide = F([[1e30] * 40 + [1e-30] * 40])
    assert same_bits(
        op.golden(wide, exact=EXACT), F([round_float32(math.prod(map(Fraction, wide[0].tolist())))])
    )
    assert np.isinf(op.bound(Interval.exactly(wide), engine=FAST).radius).all()
    odd = F([[2**12 + 1, 2**12 + 1, 1, 1]])
    assert same_bits(op.golden(odd, exact=EXACT), F([2**24 + 2**13]))  # 2**24 + 2**13 + 1, a midpoint


def test_norms():
    l2, x = ops.ReduceL2((1,), False), F([[3, 4], [1e30, 1e30], [1e-30, 0], [0, 0], [INF, 1], [NAN, 1]])
    found = l2.golden(x, exact=EXACT)
    assert same_bits(found, F([5, np.hypot(1e30, 1e30), 1e-30, 0, INF, NAN]))
    exactly = F([[2**12, 0, 0, 0], [2**24, 2.0**-30, 0, 0]])
    assert same_bits(l2.golden(exactly, exact=EXACT), F([2**12, 2**24]))
    unit = ops.LpNorm(1, 2).golden(F([[3, 4], [0, 0], [-INF, 1]]), exact=EXACT)
    assert same_bits(unit, F([[0.6, 0.8], [0, 0], [NAN, 0]]))
    zeros = np.zeros((1, 3), F)
    assert same_bits(ops.LpNorm().run(zeros, engine=FAST), zeros)
    assert ops.LpNorm().bound(Interval.exactly(zeros), engine=FAST).radius.max() == 0
    assert same_bits(ops.LpNorm(1, 1).golden(F([[1, -2, 0]]), exact=EXACT), F([[1 / 3, -2 / 3, 0]]))


def test_responses_of_rational_powers_are_decided_exactly():
    """b = 16: b**0.75 is 8, so y is x / 8; and b = 1, where beta does not matter."""
    op = ops.LRN(1, 1.0, 0.75, 7.0)
    x = F([[3.0, -3.0]])
    assert same_bits(op.golden(x, exact=EXACT), F([[0.375, -0.375]]))
    tie = ops.LRN(1, 0.0, 0.3, 1.0)
    assert same_bits(tie.golden(x, exact=EXACT), x)
    high = ops.LRN(3, 1.0, 64.0, 1e30)
    assert same_bits(high.golden(x, exact=EXACT), F([[0, -0.0]]))
    assert same_bits(ops.LRN(3).golden(F([[INF, 1, 1]]), exact=EXACT), F([[NAN, 0, op_one()]]))


def op_one() -> np.float32:
    """1 / (1 + 1e-4 * 2 / 3)**0.75 rounded."""
    with localcontext() as context:
        context.prec = 60
        b = 1 + Decimal("1e-4") * 2 / 3
        return round_float32(Fraction((Decimal("-0.75") * b.ln()).exp()))


def test_responses_lie_inside_and_bugs_do_not():
    x = floats((1, 7, 3, 3), "lrn") * F(30)
    op = ops.LRN(5, 1e-2, 0.75, 1.0)
    interval = op.bound(Interval.exactly(x), engine=FAST)

    def outside(y: np.ndarray) -> bool:
        return bool((np.abs(y - interval.center) > interval.radius).any())

    squares = np.stack([np.square(x[:, max(c - 2, 0) : c + 3]).sum(1) for c in range(7)], 1)
    b = F(1) + F(F(1e-2) / F(5)) * squares
    for y in (x / np.power(b, F(0.75)), x * np.power(b, F(-0.75)), x * np.exp(F(-0.75) * np.log(b))):
        assert y.dtype == F
        assert not outside(y)
    assert outside(x / np.power(F(1) + F(1e-2) * squares, F(0.75)))  # alpha not divided by size
    assert outside(ops.LRN(4, 1e-2, 0.75, 1.0).run(x, engine=FAST))
    assert outside(ops.LRN(5, 1e-2, 0.75, 2.0).run(x, engine=FAST))


def test_log_softmax_forms_lie_inside_and_bugs_do_not():
    x = floats((4, 50), "logs") * F(4)
    interval = ops.LogSoftmax(1).bound(Interval.exactly(x), engine=FAST)

    def outside(y: np.ndarray) -> bool:
        return bool((np.abs(y - interval.center) > interval.radius).any())

    m = x.max(1, keepdims=True)
    with np.errstate(all="ignore"):
        s = np.exp(x - m).sum(1, keepdims=True)
        forms = [(x - m) - np.log(s), x - (m + np.log(s)), x - np.log(np.exp(x).sum(1, keepdims=True))]
    assert not any(outside(y) for y in forms)
    assert outside(forms[0] + F(1e-5))
    assert outside(ops.LogSoftmax(0).run(x, engine=FAST))
    assert outside((x - m) - np.log(s) / np.log(F(2)))
