"""Bounds behind a mask of minus infinity: the sum is that infinity, and it adds nothing to a softmax."""

from __future__ import annotations

import numpy as np

import refnet
from refnet import ops
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import Interval
from tests.helpers.bits import floats
from tests.helpers.engines import FAST

F = np.float32
MASK = np.where(np.tri(4, dtype=bool), F(0), F(-np.inf))


def scores(spread: float) -> Interval:
    x = floats((3, 4, 4), "scores").astype(np.float64)
    return Interval(x, np.full(x.shape, spread))


def test_the_sum_is_the_masks_infinity():
    found = ops.Add(2, True, ((4, 4),)).bound(scores(0.5), Interval.exactly(MASK), engine=FAST)
    hidden = np.broadcast_to(-np.inf == MASK, found.center.shape)
    assert (found.center[hidden] == -np.inf).all()
    assert (found.radius[hidden] == 0).all()
    assert np.isfinite(found.radius).all()
    signs = (Interval.exactly(MASK), Interval.exactly(-MASK))
    with np.errstate(invalid="ignore"):
        both = ops.Add(3, True).bound(scores(0.5), *signs, engine=FAST)
    assert np.isinf(both.radius[hidden]).all()  # infinities of both signs
    large = Interval(np.full(MASK.shape, 3e38), np.full(MASK.shape, 1e38))
    over = ops.Add(2).bound(large, Interval.exactly(MASK), engine=FAST)
    assert np.isinf(over.radius).all()  # an overflow may come first
    unknown = Interval(np.full(MASK.shape, -np.inf), np.ones(MASK.shape))
    assert np.isinf(
        ops.Add(2).bound(unknown, Interval.exactly(np.zeros_like(MASK)), engine=FAST).radius
    ).all()


def test_every_softmax_of_what_is_in_the_interval_lies_in_the_bound():
    masked = ops.Add(2, True, ((4, 4),)).bound(scores(1e-3), Interval.exactly(MASK), engine=FAST)
    bound = ops.Softmax(2).bound(masked, engine=FAST)
    assert (bound.radius < 0.01).all()
    random = np.random.default_rng(3)
    for _ in range(200):
        x = scores(0).center + random.uniform(-1e-3, 1e-3, (3, 4, 4))
        with np.errstate(all="ignore"):
            e = np.exp((x.astype(F) + MASK).astype(F))
        y = e / e.sum(2, keepdims=True)
        assert y.dtype == F
        assert (np.abs(y - bound.center) <= bound.radius).all()


def test_attention_behind_a_mask_is_judged():
    nodes = (
        Node("masked", ops.Add(2, True, ((4, 4),)), ("x", "mask")),
        Node("shares", ops.Softmax(2), ("masked",)),
    )
    graph = Graph("mask", {"x": TensorType((1, 4, 4))}, nodes, {"y": "shares"}).with_weights({"mask": MASK})
    x = floats((1, 4, 4), "x")
    with np.errstate(all="ignore"):
        e = np.exp(x + MASK) * (1 + F(2.0**-22) * np.sign(floats((1, 4, 4), "off")))
    y = e / e.sum(2, keepdims=True)
    assert y.dtype == F

    def verdicts(**values: np.ndarray) -> list[str]:
        return [one.verdict for one in refnet.verify(values, graph, inputs={"x": x}).nodes]

    assert verdicts(masked=x + MASK, shares=y) == ["equal", "rounding"]
    assert verdicts(shares=y) == ["missing", "rounding"]
    unmasked = np.exp(x) / np.exp(x).sum(2, keepdims=True)
    assert verdicts(shares=unmasked) == ["missing", "defect"]
    assert verdicts(masked=x, shares=unmasked)[0] == "defect"
