"""Which element a nearest resize takes: the exact place, and the formulas by which frameworks compute it.

Axis ── exact ─────── rational arithmetic: the one right result
   └─── FORMULAS ──── float32 or float64, rounded at each step, as frameworks do
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from refnet.core.errors import GraphError
from refnet.core.op import TensorType

Places = npt.NDArray[np.int64]
Reals = npt.NDArray[Any]
Scale = float | tuple[int, int]

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
CROP = "tf_crop_and_resize"
BLOCK = 1 << 16
"""Elements whose places are computed at a time."""
TOLERANCE = np.float32(1e-6)
"""How near to a half ONNX Runtime takes a position for a half."""


@dataclass(frozen=True)
class Axis:
    """One axis of a resize. length, size: elements in x and y. scale: a float, or (numerator, denominator).

    roi: the part of x that y covers, (0, 1) is all of it. copied: x has y's shape. rank: of x.
    """

    length: int
    size: int
    scale: Scale
    coordinates: str
    rounding: str
    roi: tuple[float, float] = (0.0, 1.0)
    copied: bool = False
    rank: int = 4

    @property
    def ratio(self) -> Fraction:
        """The scale, exactly."""
        return Fraction(*self.scale) if isinstance(self.scale, tuple) else Fraction(self.scale)

    @property
    def unchanged(self) -> bool:
        """Whether nothing is resized: every element stays where it is."""
        return self.coordinates != CROP and self.size == self.length and self.ratio == 1

    def clipped(self, place: Reals, inside: npt.NDArray[np.bool_]) -> Places:
        """The places in 0 .. length - 1; -1 for what a crop finds outside."""
        j = np.maximum(np.minimum(place, self.length - 1), 0).astype(np.int64)
        return np.where(inside, j, -1) if self.coordinates == CROP else j


class Resize(Protocol):
    """What every op that resizes has."""

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that are resized."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The elements of y along each."""

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The scale of each."""

    @property
    def coordinates(self) -> str:
        """One of COORDINATES."""

    @property
    def roi(self) -> tuple[tuple[float, float], ...]:
        """Of a crop: the part of each axis that y covers."""


def resized(op: Resize, x: TensorType) -> TensorType:
    """The type of the resized x. Raises GraphError for attributes that contradict one another or x."""
    shape, axes = list(x.shape), len(op.axes)
    counts = {len(op.sizes), len(op.scales), len(op.roi) if op.coordinates == CROP else axes}
    wrong = "" if op.coordinates in COORDINATES else f"coordinates must be one of {COORDINATES}"
    wrong = wrong or ("" if len(set(op.axes)) == axes else "each axis once")
    wrong = wrong or ("" if counts == {axes} else "a size, a scale (and a roi) for each axis")
    for axis, size, scale in zip(op.axes, op.sizes, op.scales, strict=False):
        valid = min(scale) >= 1 if isinstance(scale, tuple) else 0 < scale < np.inf
        if not 0 <= axis < len(shape):
            wrong = wrong or f"axes outside of {x!r}"
        elif size < 1 or not valid:
            wrong = wrong or f"size >= 1 and scale > 0, got {size} and {scale}"
        else:
            shape[axis] = size
    if wrong:
        raise GraphError(f"{op!r}: {wrong}")
    return TensorType(tuple(shape))


def exact(axis: Axis) -> Places:
    """The places by rational arithmetic. A position is (a + i b) / d with whole a, b, d."""
    if axis.unchanged:
        return np.arange(axis.size)
    first, step = line(axis)
    d = lcm(first.denominator, step.denominator)
    a, b = int(first * d), int(step * d)
    largest = 2 * (abs(a) + axis.size * abs(b)) + 2 * d * axis.length
    kind = np.int64 if largest < 1 << 62 else object  # Python's integers, some of them at a time
    ranges = (range(i, min(i + BLOCK, axis.size)) for i in range(0, axis.size, BLOCK))
    return np.concatenate(
        [_rational(axis, a + np.arange(r.start, r.stop).astype(kind) * b, d) for r in ranges]
    )


def _rational(axis: Axis, n: Reals, d: int) -> Places:
    """The places of the positions n / d."""
    match axis.rounding:
        case "floor":
            place = n // d
        case "ceil":
            place = -(-n // d)
        case "round_prefer_floor":
            place = -((d - 2 * n) // (2 * d))
        case _:
            place = (2 * n + d) // (2 * d)
    inside = (n >= 0) & (n <= (axis.length - 1) * d)
    return axis.clipped(place, inside.astype(np.bool_))


def line(axis: Axis) -> tuple[Fraction, Fraction]:
    """The position of element 0, and the step from one to the next."""
    h, size, half = axis.length, axis.size, Fraction(1, 2)
    step = 1 / axis.ratio
    match axis.coordinates:
        case "asymmetric":
            return Fraction(0), step
        case "tf_half_pixel_for_nn":
            return step / 2, step
        case "align_corners":
            return Fraction(0), Fraction(h - 1, size - 1) if size > 1 else Fraction(0)
        case "half_pixel_symmetric":
            return half * h - half * size * step + step / 2 - half, step
        case "tf_crop_and_resize":
            a, b = map(Fraction, axis.roi)
            if size == 1:
                return (a + b) * (h - 1) / 2, Fraction(0)
            return a * (h - 1), (b - a) * (h - 1) / (size - 1)
        case _:
            if axis.coordinates == "pytorch_half_pixel" and size == 1:
                return Fraction(0), Fraction(0)
            return step / 2 - half, step


# What frameworks compute. Their halves: (i + 1/2) is exact in float32 up to 2 ** 23 elements.

f = np.float32


def divided(axis: Axis) -> Places:
    """float32, each step rounded, from left to right; the position is divided by the scale."""
    return _rounded(axis, divided_positions(axis)) if not axis.unchanged else np.arange(axis.size)


def tolerant(axis: Axis) -> Places:
    """As divided; what is within TOLERANCE of a half counts as a half; x of y's shape is copied."""
    if axis.unchanged or (axis.copied and axis.coordinates != CROP):
        return np.arange(axis.size)
    x = divided_positions(axis)
    if axis.rounding in ("floor", "ceil"):
        return _rounded(axis, x)
    low = np.floor(x)
    tie = np.abs(x - low - f(0.5)) < TOLERANCE
    return _rounded(axis, x, np.where(tie, low + f(axis.rounding == "round_prefer_ceil"), np.nan))


def divided_positions(axis: Axis) -> Reals:
    """The positions in float32, by division."""
    size, s, h, half = axis.size, _float32(axis.scale), f(axis.length), f(0.5)
    i = np.arange(size).astype(f)
    match axis.coordinates:
        case "asymmetric":
            return i / s
        case "tf_half_pixel_for_nn":
            return (i + half) / s
        case "align_corners":
            return i * (h - f(1)) / f(size - 1) if size > 1 else i * f(0)
        case "half_pixel_symmetric":  # ONNX Runtime adds in float64 here
            offset = h / f(2) * (f(1) - f(size) / (s * h))
            return (float(offset) + (np.arange(size) + 0.5) / float(s) - 0.5).astype(f)
        case "tf_crop_and_resize":
            a, b = map(f, axis.roi)
            if size == 1:
                return i * f(0) + half * (a + b) * (h - f(1))
            return a * (h - f(1)) + i * (b - a) * (h - f(1)) / f(size - 1)
        case _:
            x = (i + half) / s - half
            return x * f(0) if axis.coordinates == "pytorch_half_pixel" and size == 1 else x


def _float32(scale: Scale) -> np.float32:
    return f(scale[0]) / f(scale[1]) if isinstance(scale, tuple) else f(scale)


def _rounded(axis: Axis, x: Reals, known: Reals | None = None) -> Places:
    """The places of positions in float32, rounded without error. known: places, NaN where they are not."""
    wide = x.astype(np.float64)  # so x + 1/2 is exact
    match axis.rounding:
        case "floor":
            place = np.floor(wide)
        case "ceil":
            place = np.ceil(wide)
        case "round_prefer_floor":
            place = np.ceil(wide - 0.5)
        case _:
            place = np.floor(wide + 0.5)
    if known is not None:
        place = np.where(np.isnan(known), place, known)
    inside = (x >= 0) & (x <= axis.length - 1)
    return axis.clipped(np.nan_to_num(place, nan=0.0, posinf=axis.length, neginf=0.0), inside)


def multiplied(factor: Callable[[Axis], np.float32], fused: bool = False) -> Callable[[Axis], Places]:
    """float32; what is scaled is multiplied by the factor. fused: a half is subtracted without rounding."""

    def places(axis: Axis) -> Places:
        size, half, v = axis.size, f(0.5), factor(axis)
        if axis.unchanged:
            return np.arange(size)
        i = np.arange(size).astype(f)
        match axis.coordinates:
            case "asymmetric":
                if axis.rank >= 4 and axis.rounding == "floor" and size in (axis.length, 2 * axis.length):
                    return np.arange(size) * axis.length // size  # PyTorch takes these apart for images
                return _rounded(axis, i * v)
            case "tf_half_pixel_for_nn":
                return _rounded(axis, (i + half) * v)
            case "align_corners":
                return _rounded(axis, i * (f(axis.length - 1) / f(size - 1) if size > 1 else f(0)))
            case "half_pixel" | "pytorch_half_pixel":
                if axis.coordinates == "pytorch_half_pixel" and size == 1:
                    return _rounded(axis, i * f(0))
                if fused:  # a product of two float32 is exact in float64, and so is the difference
                    return _rounded(axis, ((i + half).astype(np.float64) * float(v) - 0.5).astype(f))
                return _rounded(axis, (i + half) * v - half)
        return divided(axis)

    return places


def lengths_ratio(axis: Axis) -> np.float32:
    """in / out."""
    return f(axis.length) / f(axis.size)


def inverse(axis: Axis) -> np.float32:
    """1 / scale."""
    return f(1) / _float32(axis.scale)


def decimal_inverse(axis: Axis) -> np.float32:
    """1 / scale, where the scale is the shortest decimal that the file's float32 can stand for."""
    return f(1 / float(str(_float32(axis.scale))))


def reference(axis: Axis) -> Places:
    """float64, as onnx.reference: a window of two elements, of which the second for a whole position."""
    h, size = axis.length, axis.size
    s = axis.scale[0] / axis.scale[1] if isinstance(axis.scale, tuple) else float(axis.scale)
    if axis.unchanged:
        return np.arange(size)
    i, width = np.arange(size).astype(np.float64), s * h  # it does not round the new length
    match axis.coordinates:
        case "align_corners":
            x = i * (h - 1) / (width - 1) if width != 1 else i * 0
        case "asymmetric":
            x = i / s
        case "tf_crop_and_resize":
            a, b = map(f, axis.roi)  # these it takes as float32
            wide = float(b - a)
            x = i * wide * (h - 1) / (width - 1) if width != 1 else i * 0 + float((b - a) * f(h - 1) / f(2))
            x = x + float(a * f(h - 1))
        case "half_pixel_symmetric":
            x = h / 2 * (1 - size / width) + (i + 0.5) / s - 0.5
        case "tf_half_pixel_for_nn":
            return divided(axis)  # it does not have this one
        case _:
            x = (i + 0.5) / s - 0.5
            x = i * 0 - 0.5 if axis.coordinates == "pytorch_half_pixel" and width == 1 else x
    left = np.floor(x)
    share = x - left
    second = {
        "round_prefer_floor": share > 0.5,
        "round_prefer_ceil": share >= 0.5,
        "floor": np.zeros(size, np.bool_),
        "ceil": np.ones(size, np.bool_),
    }[axis.rounding] | (share == 0)
    padded = x + 1
    begin = np.floor(padded) - 1 - (padded == np.floor(padded))
    return axis.clipped(begin + second, (x >= 0) & (x <= h - 1))


FORMULAS: Mapping[str, tuple[str, Callable[[Axis], Places]]] = {
    "exact": ("the place as a rational number", exact),
    "divided": ("float32, position / scale (older ONNX Runtime)", divided),
    "divided-tolerant": (
        "float32, position / scale, within 1e-6 of a half is a half (ONNX Runtime 1.31, 1.32)",
        tolerant,
    ),
    "ratio": ("float32, position * (in / out) (PyTorch, sizes given)", multiplied(lengths_ratio)),
    "ratio-fused": (
        "as ratio, with fma(i + 1/2, in / out, -1/2) (PyTorch's vectors)",
        multiplied(lengths_ratio, True),
    ),
    "inverse": ("float32, position * (1 / scale) (PyTorch, scales given)", multiplied(inverse)),
    "inverse-fused": ("as inverse, with one FMA", multiplied(inverse, True)),
    "decimal": (
        "float32, position * (1 / scale), scale as its decimal: 1.7 (PyTorch)",
        multiplied(decimal_inverse),
    ),
    "decimal-fused": ("as decimal, with one FMA", multiplied(decimal_inverse, True)),
    "reference": ("float64, position / scale (onnx.reference)", reference),
}
"""name -> (what is computed, and who does; how)."""
