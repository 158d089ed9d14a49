"""Linear and cubic resizing: positions, weights, formulas of frameworks, bugs that the bound must find."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest

from refnet.arithmetic.golden import Golden
from refnet.core.op import Interval
from refnet.ops import AvgPoolNd, ResizeCubic, ResizeLinear
from refnet.ops.bilinear import POSITIONS
from refnet.ops.places import Axis, line
from refnet.ops.taps import Kernel, coordinate_error, taps
from tests.helpers.bits import floats
from tests.helpers.engines import FAST

F = np.float32
AXES = [
    Axis(length, size, scale, coordinates, "floor")
    for length, size in ((7, 20), (224, 56), (13, 90), (1, 9), (31, 1))
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for scale in ((size, length), float(F(size / length)), float(F(size / length * 1.01)))
]


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_float32_positions_lie_within_the_error(axis):
    """Of every formula that frameworks use, half_pixel and 1.7 as a decimal among them."""
    first, step = line(axis)
    error = coordinate_error(axis)
    for name, (_, positions, _) in POSITIONS.items():
        if name.startswith("ratio") and axis.ratio != Fraction(axis.size, axis.length):
            continue  # PyTorch takes this where sizes are given
        for i, found in enumerate(positions(axis)):
            away = abs(Fraction(float(found)) - (first + i * step))
            assert away <= Fraction(float(error[i])), (name, i)


def test_positions_of_powers_of_two_are_exact():
    assert not coordinate_error(Axis(112, 224, 2.0, "half_pixel", "floor")).any()
    assert not coordinate_error(Axis(112, 28, 0.25, "half_pixel_symmetric", "floor")).any()
    assert coordinate_error(Axis(112, 28, 0.25, "align_corners", "floor")).any()
    assert coordinate_error(Axis(112, 224, 2.0001, "half_pixel", "floor")).all()


@pytest.mark.parametrize("a", [-0.75, -0.5, -1.0, -2.0, 0.5])
def test_slope_and_rounding_of_the_cubic(a):
    """The weights' derivatives by differences of rationals, and the weights in float32 step by step."""
    kernel = Kernel(True, a)
    steps = [Fraction(k, 512) for k in range(513)]
    weights = [kernel.weights(s) for s in steps]
    assert all(sum(w) == 1 for w in weights)
    for one, other in itertools.pairwise(weights):
        assert sum(abs(v - u) for u, v in zip(one, other, strict=True)) * 512 <= Fraction(kernel.slope)

    def outer(d):
        return ((F(a) * d - F(5 * a)) * d + F(8 * a)) * d - F(4 * a)

    def inner(d):
        return ((F(a) + F(2)) * d - (F(a) + F(3))) * d * d + F(1)

    for k in range(400):
        share = F(abs(floats((1,), (a, k))[0]) % 1)
        made = (outer(share + F(1)), inner(share), inner(F(1) - share), outer(F(2) - share))
        true = kernel.weights(Fraction(float(share)))
        off = sum(abs(Fraction(float(m)) - t) for m, t in zip(made, true, strict=True))
        assert off <= Fraction(kernel.rounding)


CASES = [
    ResizeLinear((2, 3), sizes, scales, coordinates)
    for sizes, scales in (
        ((14, 12), (2.0, 2.0)),
        ((23, 5), ((23, 7), (5, 6))),
        ((11, 10), (float(F(1.7)), float(F(1.7)))),
    )
    for coordinates in ("half_pixel", "align_corners", "asymmetric")
]


@pytest.mark.parametrize("op", CASES, ids=repr)
def test_every_formula_lies_inside_the_bound(op):
    x = floats((2, 3, 7, 6), repr(op))
    interval = op.bound(Interval.exactly(x), engine=FAST)
    assert np.isfinite(interval.radius).all()
    different = 0
    for formula in op.menu:
        if formula.startswith("ratio") and op.scales == (float(F(1.7)),) * 2:
            continue
        y = op.replay(formula, x, engine=FAST)
        assert (np.abs(y - interval.center) <= interval.radius).all(), formula
        different += not np.array_equal(y, op.run(x, engine=FAST))
    assert different


TORCH = """3f24fa4f 3eff55c6 3e87f139 3e463646 3e179471 3e011e03 3de627fc 3de38e39 3dd4c77b 3dbd2319 3dabdc32
3d9c09c1 3d900901 3d888889"""
"""The second and third row of interpolate(x, size=(5, 7), mode="bilinear") in PyTorch 2.13, one thread, x as
below."""


def test_pytorchs_bits():
    x = (F(1) / np.arange(1, 24, 2, dtype=F)).reshape(1, 1, 3, 4)
    op = ResizeLinear((2, 3), (5, 7), ((5, 3), (7, 4)))
    wanted = [int(one, 16) for one in TORCH.split()]
    for formula, equal in (("ratio-fused", True), ("ratio", False), ("products", False)):
        found = op.replay(formula, x, engine=FAST)
        assert (found.view(np.uint32)[0, 0, 1:3].ravel().tolist() == wanted) == equal


BUGS = {
    "corners aligned": ResizeLinear((2, 3), (14, 12), (2.0, 2.0), "align_corners"),
    "corners to corners": ResizeLinear((2, 3), (14, 12), (2.0, 2.0), "asymmetric"),
    "cubic": ResizeCubic((2, 3), (14, 12), (2.0, 2.0)),
}


@pytest.mark.parametrize("bug", BUGS)
def test_another_meaning_is_outside(bug):
    x = floats((1, 2, 7, 6), "x")
    right = ResizeLinear((2, 3), (14, 12), (2.0, 2.0)).bound(Interval.exactly(x), engine=FAST)
    wrong = BUGS[bug].run(x, engine=FAST)
    assert (np.abs(wrong - right.center) > right.radius).mean() > 0.5


def test_cubics_that_differ_are_outside():
    x = floats((1, 2, 7, 6), "x")
    right = ResizeCubic((2, 3), (11, 9), (1.625, 1.5)).bound(Interval.exactly(x), engine=FAST)
    for other in (
        ResizeCubic((2, 3), (11, 9), (1.625, 1.5), coefficient=-0.5),
        ResizeCubic((2, 3), (11, 9), (1.625, 1.5), exclude_outside=True),
    ):
        wrong = other.run(x, engine=FAST)
        assert (np.abs(wrong - right.center) > right.radius).any()


def test_a_weight_of_zero_is_no_term():
    x = np.array([[1.0, np.inf, 3.0]], F)
    y = ResizeLinear((1,), (5,), ((5, 3),), "align_corners").run(x, engine=FAST)
    assert y[0, 0] == 1
    assert y[0, 4] == 3
    assert np.isinf(y[0, 1:4]).all()


def test_crops_say_what_is_outside():
    found = taps(Axis(4, 3, (3, 4), "tf_crop_and_resize", "floor", (-0.5, 1.5)), Kernel())
    assert found.inside.tolist() == [False, True, False]


def test_positions_far_from_the_origin_are_held():
    """There the positions are off by more than all roundings of the sum."""
    op = ResizeLinear((2, 3), (5, 911), ((5, 3), (911, 300)), "align_corners")
    x = floats((1, 1, 3, 300), "far")
    interval = op.bound(Interval.exactly(x), engine=FAST)
    y = op.replay("ratio", x, engine=FAST)
    away = np.abs(y - interval.center)
    assert (away <= interval.radius).all()
    assert (away > 1e-6 * np.abs(x).max()).any()  # seen: up to 2e-5


def test_golden_next_to_a_middle():
    """The exact value is a middle between two float32 and 2**-84 more, which float64 does not see."""
    unit = 2.0**-20
    x = np.array([[1.0, 2.0], [349527 * unit, 2.0**-80]], F).reshape(1, 1, 2, 2)
    golden = ResizeLinear((2, 3), (4, 4), (2.0, 2.0)).golden(x, exact=Golden().exact)
    assert golden[0, 0, 1, 1] == F(1 + 6 * 2.0**-24)
    x[0, 0, 1, 1] = 0
    golden = ResizeLinear((2, 3), (4, 4), (2.0, 2.0)).golden(x, exact=Golden().exact)
    assert golden[0, 0, 1, 1] == F(1 + 4 * 2.0**-24)


def test_golden_mean_next_to_a_middle():
    x = np.array([2.0**26, 4, 2.0**-40, 0], F).reshape(1, 1, 4)
    assert AvgPoolNd((4,)).golden(x, exact=Golden().exact) == 2.0**24 + 2


def antialiased(x, size, op):
    """One axis in float32 as PyTorch and Pillow do it: weights of what lies inside, divided by their sum."""
    n = x.shape[1]
    scale, reach = F(n) / F(size), F(2 if isinstance(op, ResizeCubic) else 1)
    y = np.empty((x.shape[0], size), F)
    for i in range(size):
        center, support = scale * (F(i) + F(0.5)), reach * max(scale, F(1))
        first, last = max(int(center - support + F(0.5)), 0), min(int(center + support + F(0.5)), n)
        d = np.abs((np.arange(first, last).astype(F) - center + F(0.5)) * (F(1) / max(scale, F(1))))
        if isinstance(op, ResizeCubic):
            a = F(op.coefficient)
            near = ((a + F(2)) * d - (a + F(3))) * d * d + F(1)
            far = ((a * d - F(5) * a) * d + F(8) * a) * d - F(4) * a
            w = np.where(d <= 1, near, np.where(d < 2, far, F(0)))
        else:
            w = np.maximum(F(1) - d, F(0))
        w = w / w.sum(dtype=F)
        y[:, i] = 0
        for t in range(first, last):
            y[:, i] += w[t - first] * x[:, t]
    return y


SHRUNK = [
    kind((1,), (size,), ((size, n),), exclude_outside=True, antialias=True)
    for kind in (ResizeLinear, ResizeCubic)
    for n, size in ((9, 4), (64, 63), (300, 7), (31, 1))
]


@pytest.mark.parametrize("op", SHRUNK, ids=repr)
def test_antialiasing_in_float32_lies_inside_and_other_filters_outside(op):
    n = op.scales[0][1]
    x = floats((3, n), repr(op))
    interval = op.bound(Interval.exactly(x), engine=FAST)
    assert np.isfinite(interval.radius).all()
    for y in (antialiased(x, op.sizes[0], op), op.run(x, engine=FAST), op.golden(x, exact=Golden().exact)):
        assert (np.abs(y - interval.center) <= interval.radius).all()
    plain = dataclasses.replace(op, antialias=False)
    padded = dataclasses.replace(op, exclude_outside=False)
    for other in (plain, padded) if n > 2 * op.sizes[0] else (plain,):  # else its edge differs by little
        wrong = other.run(x, engine=FAST)
        assert (np.abs(wrong - interval.center) > interval.radius).any(), other


@pytest.mark.parametrize(("cubic", "a"), [(False, -0.75), (True, -0.75), (True, 0.5)])
def test_slope_of_an_antialiased_filter(cubic, a):
    """By differences of rationals, over positions and scales."""
    for shrink in (Fraction(1, 3), Fraction(5, 7), Fraction(63, 64)):
        kernel = Kernel(cubic, a, shrink=shrink)
        weights = [kernel.weights(Fraction(k, 256)) for k in range(257)]
        assert min(map(sum, weights)) > 0
        for one, other in itertools.pairwise(weights):
            moved = sum(abs(v - u) for u, v in zip(one, other, strict=True))
            assert moved * 256 <= Fraction(kernel.slope)
        ends = kernel.weights(Fraction(0)), kernel.weights(Fraction(1))
        assert ends[0][:-1] == ends[1][1:]  # the next neighbour's place: the filter reaches no further
        assert ends[0][-1] == ends[1][0] == 0


def test_an_antialiased_axis_that_grows_is_the_usual_one():
    x = floats((1, 5), "grows")
    for kind in (ResizeLinear, ResizeCubic):
        one = kind((1,), (8,), ((8, 5),))
        assert (
            one.run(x, engine=FAST).tobytes()
            == dataclasses.replace(one, antialias=True).run(x, engine=FAST).tobytes()
        )
