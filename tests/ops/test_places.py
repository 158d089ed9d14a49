"""Nearest resize: the exact place against rational arithmetic, and the formulas of frameworks against it."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest

from refnet.core.errors import InputError
from refnet.core.graph import Node
from refnet.core.op import Interval
from refnet.formats.onnx.window import shortest
from refnet.ops import ResizeNearest, UpsampleNearest
from refnet.ops.places import COORDINATES, ROUNDINGS
from refnet.ops.resample import ALIKE
from refnet.verification.judge import judge
from tests.helpers.engines import FAST

H = Fraction(1, 2)
ROUND = {
    "floor": floor,
    "ceil": ceil,
    "round_prefer_floor": lambda x: ceil(x - H),
    "round_prefer_ceil": lambda x: floor(x + H),
}


def position(coordinates: str, i: int, h: int, size: int, s: Fraction, roi: tuple[float, float]) -> Fraction:
    """Straight from the op's docstring."""
    a, b = map(Fraction, roi)
    match coordinates:
        case "asymmetric":
            return i / s
        case "tf_half_pixel_for_nn":
            return (i + H) / s
        case "align_corners":
            return Fraction(i * (h - 1), size - 1) if size > 1 else Fraction(0)
        case "half_pixel_symmetric":
            return (i + H) / s - H + h * H * (1 - size / (s * h))
        case "tf_crop_and_resize":
            return a * (h - 1) + i * (b - a) * (h - 1) / (size - 1) if size > 1 else (a + b) * (h - 1) * H
        case "pytorch_half_pixel" if size == 1:
            return Fraction(0)
    return (i + H) / s - H


def pairs(count: int) -> list[tuple[int, int]]:
    """Sizes of which many meet on wholes and halves, and those of the known ties."""
    rng = np.random.default_rng(14)
    found = [(int(a), int(b)) for a, b in rng.integers(1, 25, (count, 2))]
    return [(14, 8), (14, 9), (20, 6), (26, 64), (1, 7), (7, 1), *found]


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_places_are_exact(coordinates):
    """1,000 pairs of sizes, by sizes or by a float32 scale, in each of the four roundings."""
    rng = np.random.default_rng(3)
    for k, (h, size) in enumerate(pairs(1000)):
        roi = (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.5, 1.5)))
        scale = shortest(Fraction(size, h)) if k % 2 else float(np.float32(size / h * rng.choice([1, 1.01])))
        s = Fraction(*scale) if isinstance(scale, tuple) else Fraction(scale)
        x = [position(coordinates, i, h, size, s, roi) for i in range(size)]
        same = coordinates != "tf_crop_and_resize" and s == 1 and size == h
        for rounding in ROUNDINGS:
            expected = [i if same else min(max(ROUND[rounding](v), 0), h - 1) for i, v in enumerate(x)]
            if coordinates == "tf_crop_and_resize":
                expected = [j if 0 <= v <= h - 1 else -1 for j, v in zip(expected, x, strict=True)]
            op = ResizeNearest((1,), (size,), (scale,), coordinates, rounding, (roi,))
            assert op.places(0, (2, h)).tolist() == expected, (op, h)


def test_scales_beyond_int64_are_exact():
    """A scale of float32's far ends has a denominator that no integer of 64 bits holds."""
    for scale, h, size in ((2.0**-20 * (1 + 2.0**-23), 1 << 20, 1), (3e38, 1, 5), (1e-38, 9, 4)):
        op = ResizeNearest((0,), (size,), (float(np.float32(scale)),), "asymmetric", "floor")
        s = Fraction(float(np.float32(scale)))
        assert op.places(0, (h,)).tolist() == [min(floor(i / s), h - 1) for i in range(size)]


def test_a_tiny_region_and_more_than_one_block():
    roi = (float(np.float32(1e-40)), float(np.float32(2e-38)))
    op = ResizeNearest((0,), (70000,), (1.0,), "tf_crop_and_resize", "ceil", (roi,))
    assert op.places(0, (9,)).tolist() == [1] * 70000
    flat = ResizeNearest((0,), (70001,), ((70001, 3),), "align_corners", "round_prefer_floor")
    expected = np.ceil(np.arange(70001) * 2 / 70000 - 0.5).astype(int)
    assert (flat.places(0, (3,)) == expected).all()


def test_formulas_take_the_neighbours_that_frameworks_take():
    """Seen in the frameworks; the cross-checks ask them."""

    def at(h: int, size: int, coordinates: str, rounding: str, scale: object = None) -> dict[str, list[int]]:
        known = shortest(Fraction(size, h)) if scale is None else scale
        op = ResizeNearest((3,), (size,), (known,), coordinates, rounding)  # type: ignore[arg-type]
        return {name: op.places(0, (1, 1, 1, h), name).tolist() for name in op.formulas}

    tie = at(20, 6, "half_pixel", "round_prefer_ceil")  # 14.5
    assert [tie[n][4] for n in ("exact", "divided", "divided-tolerant", "reference")] == [15, 14, 15, 15]
    whole = at(14, 8, "asymmetric", "floor")  # 7
    assert [whole[n][4] for n in ("exact", "divided", "ratio", "reference")] == [7, 6, 7, 7]
    below = at(26, 64, "asymmetric", "floor")  # 13 / 32 in float32 is exact, 32 / 13 is not
    assert below["exact"] == below["ratio"] != below["divided"]
    long = at(2, 82, "asymmetric", "floor")  # 41 / 41 in float32 as a product is below 1
    assert (long["exact"][41], long["ratio"][41], long["divided"][41]) == (1, 0, 1)
    decimal = at(100, 170, "asymmetric", "floor", float(np.float32(1.7)))  # a little above 1.7
    assert (decimal["exact"][17], decimal["decimal"][17]) == (9, 10)
    copied = at(29, 29, "asymmetric", "floor", float(np.float32(30 / 29)))
    assert copied["divided-tolerant"] == list(range(29)) != copied["exact"]
    with pytest.raises(InputError, match="formula must be one of exact"):
        ResizeNearest((0,), (2,), (2.0,)).places(0, (1,), "cubic")


def ramp(op: ResizeNearest, h: int) -> tuple[Node, np.ndarray]:
    return Node("y", op, ("x",)), np.arange(h, dtype=np.float32).reshape(1, h)


def test_the_judge_names_the_formula_and_takes_no_mixture():
    op = ResizeNearest((1,), (48,), ((8, 7),), "asymmetric", "floor")
    node, x = ramp(op, 42)
    exact, other = op.take(x, 0.0), op.take(x, 0.0, "divided")
    apart = np.flatnonzero(exact != other)
    assert len(apart) > 1
    assert judge(node, exact, [x]).verdict == "equal"
    judged = judge(node, other, [x])
    assert (judged.verdict, judged.differ, judged.outside) == ("replayed", len(apart), 0)
    assert "the formula 'divided' gives these bits: float32, position / scale" in (judged.reason or "")
    mixed = exact.copy()
    mixed[0, apart[0]] = other[0, apart[0]]
    shifted = exact.copy()
    shifted[0, 5] += 1
    for wrong in (mixed, shifted, np.roll(exact, 1)):
        judged = judge(node, wrong, [x])
        assert (judged.verdict, judged.outside) == ("defect", int((wrong != exact).sum()))


def test_the_bound_holds_every_formula():
    op = ResizeNearest((1,), (64,), ((32, 13),), "asymmetric", "floor")
    rng = np.random.default_rng(1)
    x = (rng.integers(-4096, 4096, (2, 26)) / 1024).astype(np.float32)  # so that float64 rounds nothing here
    radius = rng.integers(0, 400, x.shape) / 4096
    found = op.bound(Interval(x.astype(np.float64), radius), engine=FAST)
    for name in op.formulas:
        for sign in (-1, 0, 1):
            moved = op.take(x + sign * radius, 0.0, name)
            assert (np.abs(moved - found.center) <= found.radius).all(), name
    narrow = op.bound(Interval.exactly(x), engine=FAST).radius
    moves = np.any([op.take(x, 0.0, n) != op.take(x, 0.0) for n in op.formulas], axis=0)
    assert ((narrow > 0) == moves).all()


def test_upsampling_by_whole_numbers_is_the_same_in_all_formulas_up_to_40():
    for scale in range(1, ALIKE + 1):
        length = (1 << 15) // scale
        i = np.arange(length * scale)
        op = ResizeNearest((2,), (i.size,), (float(scale),), "asymmetric", "floor")
        for name in op.formulas:
            assert (op.places(0, (1, 1, length, 1), name) == i // scale).all(), (scale, name)
    assert not UpsampleNearest(ALIKE).needs_recipe


def test_pytorchs_upsampling_by_41_is_replayed():
    op = UpsampleNearest(41)
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 3, 2)
    factor = np.float32(1) / np.float32(41)
    rows, columns = (np.floor(np.arange(n * 41).astype(np.float32) * factor).astype(int) for n in (3, 2))
    y = x[:, :, rows][..., columns]
    judged = judge(Node("y", op, ("x",)), y, [x])
    assert op.needs_recipe
    assert judged.verdict == "replayed"
    assert judged.differ > 0
    assert "the formula 'ratio' gives these bits" in (judged.reason or "")
    found = op.bound(Interval.exactly(x), engine=FAST)
    assert (np.abs(y - found.center) <= found.radius).all()


@pytest.mark.parametrize(("shape", "sizes"), [((1, 1, 1, 4000), (4000, 1)), ((1, 1, 100, 100), (2000, 2000))])
def test_a_resize_needs_no_more_than_its_result(shape, sizes):
    """4,000 x 1 from 1 x 4,000 by way of 4,000 x 4,000 took 64 MB; a large result was there twice."""
    op = ResizeNearest((2, 3), sizes, ((sizes[0], shape[2]), (sizes[1], shape[3])), "asymmetric", "floor")
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    tracemalloc.start()
    try:
        y = op.run(x, engine=FAST)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    rows, columns = (np.arange(size) * n // size for size, n in zip(sizes, shape[2:], strict=True))
    assert np.array_equal(y, x[:, :, rows[:, None], columns])
    assert peak < y.nbytes * 1.2 + 2_000_000
