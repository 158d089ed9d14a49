"""Golden's fast sums: every form of them gives what rational arithmetic gives, and their errors are proved.

exact_conv.py (from planes, from panels) and winograd.py only decide; what they leave open the accumulator
computes. So the tests ask for right bits, and that a smaller error would give wrong ones.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.core import rounding
from refnet.core.engine import ConvGeometry
from refnet.exact import engine
from refnet.exact.correct_rounding import RefineCount
from refnet.kernels import decisions, winograd
from refnet.kernels.exact_conv import CHAIN, LANES, suits
from refnet.kernels.winograd import suits_tiles
from tests.crosscheck.oracle import expected
from tests.helpers.bits import floats, same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import exact_on
from tests.helpers.ragged_cases import RAGGED

OUTPUTS = 2 * LANES
ONE = ((1, 1), (0, 0), (1, 1), 1)
SHAPES = {
    "planes": ((2, 40, 9, 11), (2 * OUTPUTS, 20, 3, 3), (2, 1), (1, 1), (1, 1), 2),
    "planes, long chains": ((1, CHAIN + 7, 6, 5), (OUTPUTS, CHAIN + 7, 2, 1), (1, 1), (0, 0), (1, 2), 1),
    "planes, 5 x 5": ((1, 6, 13, 9), (OUTPUTS + OUTPUTS - 1, 6, 5, 5), (1, 1), (2, 2), (1, 1), 1),
    "panels": ((2, 24, 7, 9), (2 * OUTPUTS, 12, 1, 1), (1, 1), (0, 0), (1, 1), 2),
    "panels, long chains": ((1, 3 * CHAIN + 1, 7, 7), (OUTPUTS, 3 * CHAIN + 1, 1, 1), *ONE),
    "panels, one position": ((3, 50, 1, 1), (3 * OUTPUTS, 50, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "panels of many images": ((5, 17, 5, 5), (2 * OUTPUTS - 3, 17, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "tiles": ((2, 40, 10, 12), (2 * OUTPUTS, 20, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    "tiles, odd": ((1, 16, 9, 13), (2 * OUTPUTS - 1, 16, 3, 3), (1, 1), (1, 0), (1, 1), 1),
    "tiles, wide padding": ((1, 17, 3, 4), (OUTPUTS, 17, 3, 3), (1, 1), (3, 2), (1, 1), 1),
    "tiles, long chains": ((1, CHAIN + 9, 6, 6), (OUTPUTS, CHAIN + 9, 3, 3), (1, 1), (0, 0), (1, 1), 1),
    "tiles, many bands": ((1, 60, 19, 110), (OUTPUTS, 60, 3, 3), (1, 1), (1, 1), (1, 1), 1),
}
"""x, w, stride, pad, dilation, groups."""


def numbers(shape: tuple[int, ...], key: object, kind: str) -> np.ndarray:
    """float32: "normal", "relu" (half are 0), "sparse" (most are 0), "scales" (2**-100 to 2**30)."""
    x = floats(shape, key)
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "sparse":
        return np.where(np.abs(floats(shape, (key, 1))) < 2, np.float32(0), x)
    if kind == "scales":
        return (x * np.exp2(np.round(30 * floats(shape, (key, 2)) - 30).clip(-100, 30))).astype(np.float32)
    return x


@pytest.mark.parametrize("kind", ["normal", "relu", "sparse", "scales"])
@pytest.mark.parametrize("name", SHAPES)
def test_right_bits(name, kind):
    """On 1 and 3 threads, with and without bias and addend, at places all over the output."""
    x, w, *place = SHAPES[name]
    assert suits(x, w, *place)
    assert suits_tiles(x, w, *place) == name.startswith("tiles")
    op = ops.Conv(w[0], w[2:], *place, bias=True)
    x, w = numbers(x, name, kind), numbers(w, "w", "normal")
    b = floats((w.shape[0],), "b")
    y = op.golden(x, w, b, exact=exact_on(1))
    addend = floats(y.shape, "addend")
    joined = ops.ConvAdd(op).golden(x, addend, w, b, exact=exact_on(3))
    assert same_bits(y, op.golden(x, w, b, exact=exact_on(3)))
    at = np.unique(np.linspace(0, y.size - 1, 30).astype(np.int64))
    assert same_bits(y.reshape(-1)[at], expected(op, at, x, w, b))
    assert same_bits(joined.reshape(-1)[at], expected(ops.ConvAdd(op), at, x, addend, w, b))


def test_every_form_has_the_bits_of_the_others(monkeypatch):
    """All elements of ragged convolutions, some not finite, as lanes across positions have them."""
    fast = 0
    cases = [case for case in RAGGED if case.method == "conv"]
    for i, case in enumerate(cases):
        x, w, geometry, _ = case.arguments()
        x, w = x.astype(np.float32), w.astype(np.float32)
        place = (x.shape, w.shape, *geometry)
        if not suits(*place) or i % 4:
            continue
        bias = floats((w.shape[0],), i) if i % 2 else None
        found, wanted = both(x, w, bias, geometry, monkeypatch)
        assert same_bits(found, wanted), case.name
        fast += 1
    assert fast > 30


def both(x, w, bias, geometry, monkeypatch) -> list[np.ndarray]:
    """The convolution by the fast form and by lanes across positions."""
    found = []
    for form in (suits, lambda *_: False):
        with monkeypatch.context() as patch, np.errstate(all="ignore"):
            patch.setattr(engine, "suits", form)
            found.append(exact_on(2).conv("Conv", x, w, bias, None, geometry))
    return found


@pytest.mark.parametrize("name", ["planes", "panels", "tiles"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite(name, value, monkeypatch):
    """In the input, in a weight, in the bias and in the addend."""
    x, w, *place = SHAPES[name]
    x, w, b = floats(x, "x"), floats(w, "w"), floats((w[0],), "b")
    for array, at in ((x, (0, 3, 2, 4)), (w, (5, 1, 0, 0)), (b, (3,))):
        before = array[at]
        array[at] = value
        found, wanted = both(x, w, b, ConvGeometry(*place), monkeypatch)
        assert same_bits(found, wanted)
        assert not np.isfinite(found).all()
        array[at] = before
    addend = floats(found.shape, "addend")
    addend[0, 0, 1, 1] = value
    y = exact_on(1).conv("Conv", x, w, b, addend, ConvGeometry(*place))
    assert np.isfinite(y).sum() == y.size - 1
    assert same_bits(y[0, 0, 1, 1], np.float32(value))


@pytest.mark.parametrize("name", ["planes", "panels", "tiles"])
def test_exact_zeros_are_positive_and_small_results_keep_their_sign(name):
    x, w, *place = SHAPES[name]
    op = ops.Conv(w[0], w[2:], *place, bias=False)
    x, w = np.abs(floats(x, "x")), -np.abs(floats(w, "w"))
    x[:, 1::2], w[:, 1::2] = x[:, ::2], -w[:, ::2]
    y = op.golden(x, w, exact=exact_on(1))
    assert same_bits(y, np.zeros_like(y))
    tiny = op.golden(np.float32(2.0**-100) * x, np.float32(2.0**-60) * -np.abs(w), exact=exact_on(1))
    assert same_bits(tiny, np.full_like(tiny, -0.0))
    assert same_bits(op.golden(0 * x, w, exact=exact_on(1)), np.zeros_like(y))


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**-78, 2.0**80])
@pytest.mark.parametrize("name", ["planes", "panels", "tiles"])
def test_inputs_whose_squares_are_no_float32(name, scale):
    """All sums are 0, in an order in which float64 leaves a rest; squares in float32 would make the error of
    that rest 0 (of small inputs).
    """
    x, w, *place = SHAPES[name]
    op = ops.Conv(w[0], w[2:], *place, bias=False)
    x, w = floats(x, "x") * np.float32(scale), numbers(w, "w", "scales")
    depth = w.shape[1] // 2
    for first in range(0, x.shape[1], 2 * depth):
        x[:, first + depth : first + 2 * depth] = x[:, first : first + depth]
    w[:, depth:] = -w[:, :depth]
    y = op.golden(x, w, exact=exact_on(1))
    assert same_bits(y, np.zeros_like(y))


FACTOR = rounding.error_factor


def near_middles(name: str) -> tuple[ops.Conv, np.ndarray, np.ndarray]:
    """Sums just above the middle between two float32: float64 sees it only if it adds the small terms
    first.
    """
    x, w, *place = SHAPES[name]
    x, w = np.zeros(x, np.float32), np.zeros(w, np.float32)
    x[:] = 1
    w[:, :, -1, -1] = 2.0**-30  # too small beside 2**24 for a float64 chain that has it already
    w[:, :3, -1, -1] = 2.0**24, 1, 2.0**-29 - 2.0**-20
    w[:, 3, -1, -1] = 2.0**-20 - (w.shape[1] - 6) * 2.0**-30
    return ops.Conv(w.shape[0], w.shape[2:], *place, bias=False), x, w


@pytest.mark.parametrize("name", ["planes", "panels", "tiles"])
def test_a_smaller_error_would_be_wrong(name, monkeypatch):
    """With the proven error the bits are right, and some elements are left to the accumulator."""
    op, x, w = near_middles(name)
    count = RefineCount()
    y = engine.DecideOrRefine(exact_on(1).engine, count).conv("Conv", x, w, None, None, geometry_of(op))
    at = np.arange(y.size)[:: max(1, y.size // 40)]
    right = expected(op, at, x, w)
    assert same_bits(y.reshape(-1)[at], right)
    assert count.by_op["Conv"][1] > 0
    monkeypatch.setattr(engine, "error_factor", lambda terms: FACTOR(terms) * 2.0**-60)
    y = exact_on(1).conv("Conv", x, w, None, None, geometry_of(op))
    assert not same_bits(y.reshape(-1)[at], right)


def geometry_of(op: ops.Conv) -> ConvGeometry:
    return ConvGeometry(op.stride, op.pad, op.dilation, op.groups)


def test_the_constants_of_the_transforms():
    """INPUT is above the square of |B'|'s largest singular value; the three transforms make a convolution."""
    largest = np.linalg.svd(np.abs(winograd.B), compute_uv=False)[0] ** 2
    assert largest < winograd.INPUT < 1.01 * largest
    rng = np.random.default_rng(0)
    d, g = rng.integers(-50, 50, (4, 4)), 4 * rng.integers(-50, 50, (3, 3))
    b, k, a = winograd.B, winograd.G, winograd.A
    wanted = [[(d[i : i + 3, j : j + 3] * g).sum() for j in range(2)] for i in range(2)]
    assert np.array_equal(a @ ((k @ g @ k.T) * (b @ d @ b.T)) @ a.T, wanted)
    additions = [int(max(np.abs(row).astype(bool).sum() for row in matrix) - 1) for matrix in (b, k, a)]
    assert 2 * sum(additions) == winograd.ROUNDINGS


def test_a_compensated_sum_decides_only_what_is_sure():
    """Random sums of all sizes, exact ties and what lies next to them; what is decided is right."""
    rng = np.random.default_rng(1)
    decided = 0
    for i in range(400):
        size = 2.0 ** rng.integers(-10, 30)
        terms = [float(t) for t in rng.standard_normal(int(rng.integers(1, 40))) * size]
        terms = [math.ldexp(round(math.ldexp(t, 20)), -20) for t in terms]
        if i % 2:  # on a middle, and 2**-80 beside it
            terms += [2.0**24, 1.0, *[(-t) for t in terms], float(rng.integers(-1, 2)) * 2.0**-80]
        true = sum(map(Fraction, terms))
        state = (0.0, 0.0, 0.0)
        for term in terms:
            state = decisions.twofold(*state, term)
        value, sure = decisions.round_twofold(*state, len(terms))
        decided += sure
        assert not sure or same_bits(np.float32(value), np.float32(round_float32(true)))
        off = (len(terms) + 2) * Fraction(2) ** -53 * Fraction(state[2]) * (1 + Fraction(2) ** -20)
        assert abs(Fraction(state[0]) + Fraction(state[1]) - true) <= off
    assert decided == 400
    middle = 2.0**24 + 1
    assert decisions.round_twofold(middle, 0.0, 0.0, 10) == (2.0**24, True)
    assert decisions.round_twofold(middle, 2.0**-90, 0.0, 10) == (2.0**24 + 2, True)
    assert not decisions.round_twofold(middle, 2.0**-90, 2.0**-30, 10)[1]
    assert not decisions.round_twofold(0.0, 0.0, 2.0**-300, 10)[1]
