"""Golden arithmetic broken on purpose: the oracle sees each break, on cases that are right without it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.core import rounding
from refnet.exact import correct_rounding as exactly
from refnet.exact import engine
from refnet.kernels import accumulator, decisions
from refnet.kernels.accumulator import PIECE
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.pool import avg_pool
from refnet.prove.prove import by_enclosure, second
from tests.crosscheck.oracle import expected
from tests.helpers.bits import floats, same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import EXACT, FAST, exact_on

F = np.float32
TIE = np.array([2.0**24, 1, 2.0**-40, 0], np.float32)
"""Their sum lies just above the middle between two float32, 2**-40 beyond what float64 can hold."""
DRIFT = np.concatenate([[2.0**24, 1, -(2.0**-20)], np.full(2000, 2.0**-30)]).astype(np.float32)
"""A float64 chain loses each of the small terms and ends clearly below the middle; the sum is above it."""
NEAR = (np.arange(1, 400, 2) * 2.0**-23).astype(np.float32)
"""Where the sigmoid is the middle between two float32, less x**3 / 48."""


def column(values: np.ndarray) -> np.ndarray:
    return values.reshape(1, -1, 1, 1)


def on_the_middle() -> dict[str, tuple[ops.Op, list[np.ndarray]]]:
    """For every kind of op inputs whose exact value lies next to, or on, the middle between two float32."""
    ones, one, zero = np.ones(4, np.float32), np.ones(1, np.float32), np.zeros(1, np.float32)
    pairs = np.stack([NEAR, np.zeros_like(NEAR)], 1)
    return {
        "Conv": (ops.Conv(1, (1, 1)), [column(TIE), column(ones)]),
        "Dense": (ops.Dense(1, bias=False), [TIE[None], ones[None]]),
        "Add": (ops.Add(4), [TIE[i : i + 1, None] for i in range(4)]),
        "RadixSum": (ops.RadixSum(4), [column(TIE)]),
        "WeightedSum": (ops.WeightedSum(4), [ones[None], column(TIE)]),
        "AvgPool": (ops.AvgPool((1, 4)), [4 * TIE.reshape(1, 1, 1, 4)]),
        "GlobalAvgPool": (ops.GlobalAvgPool(), [4 * TIE.reshape(1, 1, 2, 2)]),
        "BatchNorm": (ops.BatchNorm(0.0), [column(TIE[:1]), one, F([2.0**-40]), -one, one]),
        "Sigmoid": (ops.Sigmoid(), [NEAR[None]]),
        "Softmax": (ops.Softmax(1), [pairs]),
        "RadixSoftmax": (ops.RadixSoftmax(2), [np.moveaxis(pairs, 0, 1).reshape(1, -1, 1, 1)]),
        "ConvAdd": (ops.ConvAdd(ops.Conv(1, (1, 1))), [column(TIE[1:]), column(TIE[:1]), column(ones[1:])]),
        "addend": (ops.ConvAdd(ops.Conv(1, (1, 1))), [column(TIE[:2]), column(TIE[2:3]), column(ones[:2])]),
        "bias": (ops.Dense(1), [TIE[None, :2], ones[None, :2], F([2.0**-40])]),
        "drift": (ops.Dense(1, bias=False), [DRIFT[None], np.ones_like(DRIFT)[None]]),
        "drift, Conv": (ops.Conv(1, (1, 1)), [column(DRIFT), column(np.ones_like(DRIFT))]),
        "a tie": (ops.Dense(2, bias=False), [F([[2.0**24, 1, 2]]), F([[1, 1, 0], [1, 1, 1]])]),
        "an average on a tie": (
            ops.AvgPool((1, 4)),  # float64 loses the 2 and the 6 beside 2**60
            [F([[[[2.0**60, 2.0**25, 2, -(2.0**60)], [2.0**60, 2.0**25, 6, -(2.0**60)]]]])],
        ),
        "batch norm on a tie": (
            ops.BatchNorm(0.0),
            [column(F([2.0**24 + 2, 2.0**24 + 4])).reshape(2, 1, 1, 1), one / 2, one / 2, zero, one],
        ),
        "subnormal": (ops.Add(3), [F([[2.0**-140]]), F([[2.0**-149]]), F([[-(2.0**-145)]])]),
        "zero": (ops.BatchNorm(0.0), [zero[None], -one, -zero, zero, one]),
        "overflow": (ops.Add(3), [F([[3.4028234e38]]), F([[2.0**103]]), F([[-(2.0**79)]])]),
        "ordinary": (ops.Dense(50), [floats((20, 200), "x"), floats((50, 200), "w"), floats((50,), "b")]),
    }


CASES = on_the_middle()


def right(name: str) -> bool:
    """Whether golden gives what the oracle says."""
    op, inputs = CASES[name]
    golden = op.golden(*inputs, exact=exact_on(1))
    return same_bits(golden.reshape(-1), expected(op, np.arange(golden.size), *inputs))


@pytest.mark.parametrize("name", CASES)
def test_unbroken_it_is_right(name):
    assert right(name)


def cast(center, error, threads):
    """Decides nothing: the float64 value, cast."""
    return center.astype(np.float32), np.zeros(0, np.int64)


def shrunk(center, error, threads):
    """Believes that float64 is right to its last bit."""
    return DECIDE(center, error * 2.0**-60, threads)


def keeping_minus_zero(center, error, threads):
    """An exact zero keeps float64's sign."""
    y, left = DECIDE(center, error, threads)
    return np.where(center == 0, center.astype(np.float32), y), left


def flushing(center, error, threads):
    """Subnormal results become zero, as on hardware that flushes them."""
    y, left = DECIDE(center, error, threads)
    return np.where(np.abs(y) < 2.0**-126, np.float32(0), y), left


def saturating(center, error, threads):
    """What might overflow is cut to the largest float32 too early."""
    limit = float(np.finfo(np.float32).max)
    y, _ = DECIDE(np.clip(center, -limit, limit), error, threads)
    return np.where(np.abs(center) > limit, np.float32(np.inf), y), np.zeros(y.size, np.bool_)


DECIDE, CONV, AVERAGE = decisions.decide, accumulator.conv_exactly, accumulator.average_exactly


def open_places(work, unsure):
    """The places of a kernel's work that are open, chunk by chunk."""
    begin, end = chunk(work)
    while begin < end:
        yield from begin * PIECE + np.flatnonzero(unsure[begin * PIECE : end * PIECE])
        begin, end = next_chunk(work)


def rounding_twice(work, unsure, x, w, bias, addend, geometry, y):
    """The exact sum is rounded to float64, then to float32."""
    for k in open_places(work, unsure):
        n, o = divmod(int(k), w.shape[0])
        terms = zip(x[n].ravel(), w[o].ravel(), strict=True)
        y.reshape(-1)[k] = np.float32(float(sum(Fraction(float(a)) * Fraction(float(b)) for a, b in terms)))


def dropping_a_term(work, unsure, x, w, bias, addend, geometry, y):
    """The last channel is left out of the exact sum."""
    CONV(work, unsure, x[:, :-1], np.ascontiguousarray(w[:, :-1]), bias, addend, geometry, y)


def forgetting_the_bias(work, unsure, x, w, bias, addend, geometry, y):
    """The exact sum has no bias."""
    CONV(work, unsure, x, w, bias[:0], addend, geometry, y)


def forgetting_the_addend(work, unsure, x, w, bias, addend, geometry, y):
    """The exact sum has no addend."""
    CONV(work, unsure, x, w, bias, addend[:0], geometry, y)


def halves_up(work, unsure, x, geometry, include_pad, y):
    """A tie goes away from zero instead of to even."""
    for k in open_places(work, unsure):
        row = x.reshape(-1, x.shape[3])[k]
        value = sum((Fraction(float(v)) for v in row), Fraction(0)) / row.size
        y.reshape(-1)[k] = round_float32(value * (1 + Fraction(1, 2**60)))


def never_even(k):
    """A tie moves on although it stands on the even neighbour already."""
    return False


def no_decimals(evaluate, guess):
    """What float64 left open is taken from float64 all the same."""
    return np.float32(guess)


def too_small(terms, total):
    """The proven error, divided by 2**10."""
    return rounding_error(terms, total) * 2.0**-10


def without_norms(terms, total):
    """Roundings counted, but not the sizes of what is added."""
    return (terms + 2) * rounding.U64 * np.ones_like(total)


def too_small_a_factor(terms):
    """The proven error's factor, divided by 2**10."""
    return FACTOR(terms) * 2.0**-10


def no_norms(w):
    """The sizes of the weights do not count."""
    return np.zeros(w.shape[0])


def by_products(change):
    """The same break of `decide_products`, which convolutions use."""

    def decide(center, norms, weights, bias, factor, threads):
        wide = norms.repeat(center.shape[1] // norms.shape[1], 1)
        error = factor * (wide * weights[:, None] + np.abs(bias)[:, None])
        return change(center, error, threads)

    return decide


def by_affine(change):
    """The same break of `decide_affine`, which batch norm uses."""

    def decide(x, mean, scale, shift, factor, threads):
        center = (x - mean[:, None]) * scale[:, None] + shift[:, None]
        return change(center, factor * (np.abs(center) + 2 * np.abs(shift)[:, None]), threads)

    return decide


def by_average(change):
    """The same break of `decide_average`, which pooling uses."""

    def decide(x, geometry, include_pad, factor, threads):
        place = (geometry, include_pad, threads)
        wide = x.astype(np.float64)
        return change(avg_pool(wide, *place), factor * avg_pool(np.abs(wide), *place), threads)

    return decide


def by_sums(change):
    """The same break of `decide_sums`, which additions of many and the radix sums use."""

    def decide(terms, factor, threads):
        wide = terms.astype(np.float64)
        return change(wide.sum(0), factor * np.abs(wide).sum(0), threads)

    return decide


def by_weighted(change):
    """The same break of `decide_weighted`, which the weighted sum uses."""

    def decide(a, x, factor, threads):
        products = a.astype(np.float64)[..., None] * x
        return change(products.sum(1), factor * np.abs(products).sum(1), threads)

    return decide


rounding_error = rounding.sum_error
FACTOR = rounding.error_factor

SUMS = ("Conv", "ConvAdd", "Dense", "Add", "RadixSum", "WeightedSum", "AvgPool", "GlobalAvgPool", "BatchNorm")
EXPONENTIALS = ("Sigmoid", "Softmax", "RadixSoftmax")

BREAKS = [
    (cast, decisions, "decide", (*SUMS, *EXPONENTIALS, "bias", "addend", "drift")),
    (shrunk, decisions, "decide", ("drift", "drift, Conv")),
    (keeping_minus_zero, decisions, "decide", ("zero",)),
    (flushing, decisions, "decide", ("subnormal",)),
    (saturating, decisions, "decide", ("Dense", "Add")),
    (rounding_twice, accumulator, "conv_exactly", ("Conv", "Dense")),
    (dropping_a_term, accumulator, "conv_exactly", ("a tie",)),
    (forgetting_the_bias, accumulator, "conv_exactly", ("bias",)),
    (forgetting_the_addend, accumulator, "conv_exactly", ("addend",)),
    (halves_up, accumulator, "average_exactly", ("an average on a tie",)),
    (never_even, exactly, "_even", ("batch norm on a tie",)),
    (no_decimals, engine, "by_decimals", ("Sigmoid",)),
    (too_small, engine, "sum_error", ("drift",)),
    (too_small_a_factor, engine, "error_factor", ("drift, Conv",)),
    (without_norms, engine, "sum_error", ("drift",)),
    (no_norms, engine, "norms_of", ("drift, Conv",)),
]
IDS = [f"{name} = {change.__name__}" for change, _, name, _ in BREAKS]


@pytest.mark.parametrize(("change", "module", "name", "seen_by"), BREAKS, ids=IDS)
def test_a_break_is_seen(change, module, name, seen_by, monkeypatch):
    monkeypatch.setattr(module, name, change)
    if name == "decide":
        monkeypatch.setattr(decisions, "decide_products", by_products(change))
        monkeypatch.setattr(decisions, "decide_affine", by_affine(change))
        monkeypatch.setattr(decisions, "decide_average", by_average(change))
        monkeypatch.setattr(decisions, "decide_sums", by_sums(change))
        monkeypatch.setattr(decisions, "decide_weighted", by_weighted(change))
    assert [case for case in seen_by if right(case)] == []


def test_a_cast_is_wrong_on_ordinary_data_too():
    """Not only on built cases: of 4,000 sums of products some differ when they are summed in float32."""
    op, (x, w, b) = CASES["ordinary"]
    plain = op.run(x, w, b, engine=FAST)
    assert not same_bits(plain.reshape(-1), expected(op, np.arange(plain.size), x, w, b))


def test_plain_formulas_are_not_golden():
    """Batch norm with its scale rounded first, sigmoid with exp rounded first: one rounding too many."""
    x = floats((1, 3, 20, 20), "batch norm")
    g, beta, mean, var = (np.abs(floats((3,), name)) + F(0.1) for name in ("g", "b", "m", "v"))
    for op, inputs in (
        (ops.BatchNorm(1e-4), [x, g, beta, mean, var]),
        (ops.Sigmoid(), [x]),
        (ops.Softmax(1), [x[0, 0]]),
    ):
        at = np.arange(inputs[0].size)
        assert not same_bits(op.run(*inputs, engine=FAST).reshape(-1), expected(op, at, *inputs))
        assert same_bits(op.golden(*inputs, exact=EXACT).reshape(-1), expected(op, at, *inputs))


def test_the_second_evaluation_sees_a_cast_of_exp():
    """The proof by exhaustion compares with this: where a cast is wrong, it is right, by decimals as well."""
    y, _ = second("sigmoid", NEAR)
    with np.errstate(all="ignore"):
        casts = (1 / (1 + np.exp(-NEAR.astype(np.float64)))).astype(np.float32)
    assert (casts != y).sum() > 10
    assert same_bits(y, np.array([by_enclosure("sigmoid", float(x)) for x in NEAR]))
    assert same_bits(y, expected(ops.Sigmoid(), np.arange(NEAR.size), NEAR[None]))
