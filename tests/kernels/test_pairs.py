"""Every fast kernel and its reference loop: the same bits, whatever the shape, order, thread, batch or data.

The calls are data: by hand and from a seed (engine_cases.py, ragged_cases.py), and every op and shape of the
model tables (model_cases.py), of which the default suite takes a sample. All of them:

    python -m pytest -m whole tests/kernels/test_pairs.py
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest

from refnet.core.engine import ConvGeometry
from refnet.kernels.engine import Fast
from refnet.kernels.geometry import TERMS
from refnet.kernels.narrow_padding import least_exact
from refnet.kernels.segments import convolve_in_segments, depth
from refnet.loops.engine import REFERENCE
from tests.helpers.bits import same_bits
from tests.helpers.engine_cases import CASES, METHODS, Case
from tests.helpers.model_cases import PLACES, SOME, OpCase, built, cases, networks, official, sample
from tests.helpers.ragged_cases import RAGGED
from tests.helpers.recipes import split

ENGINES = (Fast(1), Fast(3))
MOST = 1 << 27
"""Multiply-adds of an op that is compared whole."""
BATCHED = {"conv": 0, "dense": 0, "max_pool": 0, "avg_pool": 0}
"""Methods whose first argument is a batch, if no epilogue adds one of its own."""


PAIRS = [(method, "") for method in METHODS] + [
    (method, "tiles only") for method in ("conv", "conv_in_order", "dense", "dense_in_order")
]


@pytest.mark.parametrize(("method", "form"), PAIRS)
def test_pair(method, form, monkeypatch):
    """On 1 and 3 threads, each image also alone; convolutions also without lanes across channels, where bands
    take what suits them, however little it is."""
    if form:
        monkeypatch.setattr("refnet.kernels.panel.channel_layout", lambda *_: None)
        monkeypatch.setattr("refnet.kernels.narrow.LEAST", 0)
    with np.errstate(all="ignore"):
        assert different(case for case in [*CASES, *RAGGED] if case.method == method) == []


@pytest.mark.parametrize("form", ["", "tiles only"])
def test_the_segments_of_golden(form, monkeypatch):
    """Golden's estimate is a float64 sum of chains; here in float32, in which the loops know every order."""
    if form:
        monkeypatch.setattr("refnet.kernels.panel.channel_layout", lambda *_: None)
        monkeypatch.setattr("refnet.kernels.narrow.LEAST", 0)
    long = 0
    for case in RAGGED:
        if case.method == "conv":
            x, w, geometry, _ = case.arguments()
            terms, groups = w[0].size, geometry.groups
            x, w = x.astype(np.float32), w.astype(np.float32)
            size = TERMS if depth(w, groups) < terms else terms
            with np.errstate(all="ignore"):
                found = convolve_in_segments(x, w, *geometry, 2)
                place = (geometry, w.shape[2:], found.shape[2:])
                expected = REFERENCE.conv_in_order(x, w, None, *place, split(terms, size), False)
            assert same_bits(expected, found), case.name
            long += size < terms
    assert long > 3


def different(made: Iterable[Case]) -> list[str]:
    """The names of the cases whose bits differ, and how they were asked."""
    found = []
    for case in made:
        first, *others = case.arguments()
        expected = getattr(REFERENCE, case.method)(first, *others)
        # all values at once: an output that one engine leaves out is not there already, from the other
        values = [getattr(engine, case.method)(first, *others) for engine in ENGINES]
        found += [
            f"{case.name}, {engine.threads} threads"
            for engine, value in zip(ENGINES, values, strict=True)
            if not same_bits(expected, value)
        ]
        if case.method in BATCHED and len(first) > 1 and not (case.method == "conv" and others[-1].kinds):
            for i in range(len(first)):
                alone = getattr(ENGINES[0], case.method)(first[i : i + 1], *others)
                if not same_bits(expected[i : i + 1], alone):
                    found.append(f"{case.name}, image {i} alone")
    return found


def test_a_sample_of_the_model_tables():
    made = cases(networks(SOME))
    assert len(made) > 300
    with np.errstate(all="ignore"):
        assert not_equal(sample(made, 80, 1 << 22)) == []


@pytest.mark.whole
def test_the_model_tables_whole():
    """Every op and shape of every network that refnet builds and of the official symbol files."""
    made = cases([*networks(built()), *official()])
    assert len(made) > 1000
    with np.errstate(all="ignore"):
        assert not_equal(made) == []


def not_equal(made: Iterable[OpCase]) -> list[str]:
    """The names of the ops whose bits differ; large ones in an order are compared at some places."""
    found = []
    for case in made:
        places = None
        if case.order and case.cost > MOST >> 3:
            size = int(np.prod(case.output))
            places = np.unique(np.linspace(0, size - 1, PLACES).astype(np.int64))
        expected = case.on(REFERENCE, places)
        for engine in ENGINES:
            value = case.on(engine)
            if not same_bits(expected, value if places is None else value.reshape(-1)[places]):
                found.append(f"{case.name}, {engine.threads} threads")
    return found


NARROW = [
    ((2, 12, 9, 11), (12, 1, 3, 3), (1, 1), (1, 1), (1, 1), 12),
    ((1, 12, 15, 15), (12, 1, 3, 3), (2, 2), (1, 1), (1, 1), 12),
    ((1, 6, 13, 9), (12, 1, 5, 5), (1, 1), (2, 2), (1, 1), 6),
    ((1, 24, 10, 10), (24, 4, 3, 3), (1, 1), (1, 1), (1, 1), 6),
    ((1, 12, 12, 12), (12, 3, 3, 3), (1, 1), (2, 2), (2, 2), 4),
]
"""Convolutions with few outputs per group."""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", NARROW)
def test_sums_of_zeros_and_of_products_that_underflow(case, dtype):
    """Of data like a relu's, in which a product may round to -0: a term w * (+0) would show in these sums."""
    shape, kernel, *windows = case
    geometry = ConvGeometry(*windows)
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    half = (info.minexp - info.nmant) // 2  # 2^(2 half) is about the smallest number above 0
    x = -np.exp2(rng.uniform(half - 6, half + 2, shape)).astype(dtype)
    x[rng.random(shape) < 0.8] = 0
    w = np.exp2(rng.uniform(half - 6, half + 2, kernel)).astype(dtype)
    w[::3] = np.ldexp(w[::3], 70 + info.nmant)  # such outputs cannot underflow
    w[1::6] = np.ldexp(w[1::6], 2 * info.nmant)  # and these hardly
    w[2::6, 0, 0] = 0
    expected = REFERENCE.conv(x, w, geometry)
    for engine in ENGINES:
        assert same_bits(expected, engine.conv(x, w, geometry))
    assert (np.signbit(expected) & (expected == 0)).any()


def test_the_least_numbers_that_are_exact():
    """One bit below them a product may round to -0; at them, none does."""
    for exponent in (-149, -126, -90, 0, 60):
        w = np.ldexp(np.float32(1 + 2**-23 if exponent > -126 else 1), exponent)
        (least,) = least_exact(np.array([[w, 2 * w, 0]], np.float32))
        finer = Fraction(float(w)) * Fraction(float(least)) * (1 + Fraction(1, 2**23))
        assert (finer / Fraction(1, 2**149)).denominator == 1
        if exponent > -126 and least > 0:
            assert (finer / 2 / Fraction(1, 2**149)).denominator > 1
