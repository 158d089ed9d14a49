"""Every fast kernel and its reference loop: the same bits, whatever the shape, order, thread, batch or data.

The calls are data: by hand and from a seed (engine_cases.py, ragged_cases.py), and every op and shape of the
model tables (model_cases.py), of which the default suite takes a sample. All of them:

    python -m pytest -m whole tests/kernels/test_pairs.py
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from refnet.kernels.engine import Fast
from refnet.kernels.geometry import TERMS
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
    """On 1 and 3 threads, each image also alone; convolutions also without lanes across channels."""
    if form:
        monkeypatch.setattr("refnet.kernels.panel.channel_layout", lambda *_: None)
    with np.errstate(all="ignore"):
        assert different(case for case in [*CASES, *RAGGED] if case.method == method) == []


@pytest.mark.parametrize("form", ["", "tiles only"])
def test_the_segments_of_golden(form, monkeypatch):
    """Golden's estimate is a float64 sum of chains; here in float32, in which the loops know every order."""
    if form:
        monkeypatch.setattr("refnet.kernels.panel.channel_layout", lambda *_: None)
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
        found += [
            f"{case.name}, {engine.threads} threads"
            for engine in ENGINES
            if not same_bits(expected, getattr(engine, case.method)(first, *others))
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
