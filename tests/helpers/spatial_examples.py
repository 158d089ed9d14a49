"""Examples of the ops that select, rearrange, transpose-convolve and interpolate, for rules and exporters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np

from refnet import ops
from refnet.core.op import Op

Shape = tuple[int, ...]


def copy(places: Callable[[Any, tuple[int, ...]], tuple[int, ...]]) -> Callable[..., Fraction]:
    """y[at] = x[places(op, at)]."""
    return lambda op, at, x: Fraction(float(x[places(op, at)]))


def shuffled(op: ops.DepthToSpace, at: tuple[int, ...]) -> tuple[int, ...]:
    n, c, i, j = at
    b = op.block
    channels = 2
    p, q = i % b, j % b
    return (n, (p * b + q) * channels + c if op.depth_first else (c * b + p) * b + q, i // b, j // b)


def unshuffled(op: ops.SpaceToDepth, at: tuple[int, ...]) -> tuple[int, ...]:
    n, k, i, j = at
    b = op.block
    (p, q), c = (k // 2 // b, k // 2 % b) if op.depth_first else (k // b % b, k % b), 0
    c = k % 2 if op.depth_first else k // (b * b)
    return (n, c, i * b + p, j * b + q)


def fraction(value: Any) -> Fraction:
    return Fraction(float(value))


def conv(op: ops.ConvNd, at: Shape, x: Any, w: Any, b: Any = None) -> Fraction:
    """From the formula: every place of the kernel, in the image or not."""
    stride, pad, _, dilation = op.window
    total = Fraction(0) if b is None else fraction(b[at[1]])
    first = at[1] // (op.channels // op.groups) * w.shape[1]
    for c, *tap in np.ndindex(*w.shape[1:]):
        axes = zip(at[2:], stride, pad, tap, dilation, strict=True)
        place = tuple(i * s - p + t * d for i, s, p, t, d in axes)
        if all(0 <= a < n for a, n in zip(place, x.shape[2:], strict=True)):
            total += fraction(w[(at[1], c, *tap)]) * fraction(x[(at[0], first + c, *place)])
    return total


def transposed(op: ops.ConvTranspose, at: Shape, x: Any, w: Any, b: Any = None) -> Fraction:
    """From the formula: every pair of a place in x and one in the kernel that meets the output."""
    stride, pad, _, dilation, _ = op.window
    total = Fraction(0) if b is None else fraction(b[at[1]])
    per = x.shape[1] // op.groups
    group, local = divmod(at[1], op.channels // op.groups)
    for place in np.ndindex(*x.shape[2:]):
        for tap in np.ndindex(*op.kernel):
            axes = zip(place, stride, tap, dilation, at[2:], pad, strict=True)
            if all(a * s + t * d == i + p for a, s, t, d, i, p in axes):
                for c in range(group * per, (group + 1) * per):
                    total += fraction(w[(c, local, *tap)]) * fraction(x[(at[0], c, *place)])
    return total


def window(op: Any, at: Shape, x: Any) -> list[Fraction]:
    stride, pad, _, dilation = op.window
    axes = zip(at[2:], stride, pad, op.kernel, dilation, strict=True)
    places = itertools.product(*([i * s - p + t * d for t in range(k)] for i, s, p, k, d in axes))
    inside = [p for p in places if all(0 <= a < n for a, n in zip(p, x.shape[2:], strict=True))]
    return [fraction(x[(*at[:2], *place)]) for place in inside]


def average(op: ops.AvgPoolNd, at: Shape, x: Any) -> Fraction:
    inside, sides = window(op, at, x), 1
    stride, pad, end, dilation = op.window
    for i, s, p, k, n, e, d in zip(at[2:], stride, pad, op.kernel, x.shape[2:], end, dilation, strict=True):
        sides *= sum(i * s - p + t * d < n + e for t in range(k))
    return sum(inside, Fraction(0)) / (sides if op.count_include_pad else len(inside))


def power_mean(op: ops.LpPool, at: Shape, x: Any) -> Fraction:
    """The p-th root: exact where it is a float64, as every tie is; else to 80 digits."""
    total = sum((abs(v) ** op.p for v in window(op, at, x)), Fraction(0))
    root = nth_root(total, op.p)
    near = Fraction(float(root))
    return near if near**op.p == total else Fraction(root)


def nth_root(value: Fraction, p: int) -> Decimal:
    with localcontext() as context:
        context.prec = 80
        number = Decimal(value.numerator) / Decimal(value.denominator)
        return (number.ln() / p).exp() if number else number


def position(op: Any, k: int, i: int, h: int) -> Fraction:
    """ONNX's formulas for the coordinate."""
    scale, size, half = op.scales[k], op.sizes[k], Fraction(1, 2)
    s = Fraction(*scale) if isinstance(scale, tuple) else Fraction(scale)
    match op.coordinates:
        case "half_pixel" | "pytorch_half_pixel":
            return (i + half) / s - half if size > 1 or op.coordinates == "half_pixel" else Fraction(0)
        case "align_corners":
            return Fraction(i * (h - 1), size - 1) if size > 1 else Fraction(0)
        case "asymmetric":
            return i / s
        case "half_pixel_symmetric":
            return Fraction(h, 2) * (1 - size / (s * h)) + (i + half) / s - half
    a, b = map(Fraction, op.roi[k])
    return a * (h - 1) + i * (b - a) * (h - 1) / (size - 1) if size > 1 else (a + b) * (h - 1) / 2


def keys(d: Fraction, a: Fraction) -> Fraction:
    d = abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else Fraction(0)


def interpolated(op: Any, at: Shape, x: Any) -> Fraction:
    """Neighbour by neighbour, over all axes at once."""
    axes = []
    for k, axis in enumerate(op.axes):
        h = x.shape[axis]
        p = position(op, k, at[axis], h)
        if op.coordinates == "tf_crop_and_resize" and not 0 <= p <= h - 1:
            return fraction(np.float32(op.extrapolation))
        j = p.numerator // p.denominator
        scale = op.scales[k]
        s = Fraction(*scale) if isinstance(scale, tuple) else Fraction(scale)
        s = s if op.antialias and s < 1 else Fraction(1)
        reach = range(j - math.ceil(2 / s) - 1, j + math.ceil(2 / s) + 2)
        if isinstance(op, ops.ResizeCubic):
            taps = [(m, keys((p - m) * s, Fraction(op.coefficient))) for m in reach]
        else:
            taps = [(m, max(1 - abs(p - m) * s, Fraction(0))) for m in reach]
        if op.exclude_outside:
            taps = [(m, w) for m, w in taps if 0 <= m < h]
        whole = sum(w for _, w in taps)
        taps = [(m, w / whole) for m, w in taps]
        axes.append([(axis, min(max(m, 0), h - 1), w) for m, w in taps])
    total = Fraction(0)
    for choice in itertools.product(*axes):
        place, weight = list(at), Fraction(1)
        for axis, m, w in choice:
            place[axis], weight = m, weight * w
        total += weight * fraction(x[tuple(place)])
    return total


SPATIAL: list[tuple[Op, tuple[Shape, ...], Callable[..., Fraction]]] = [
    (
        ops.StridedSlice((2, 0), (4, 0), (-2, 1), (3, 1)),
        ((2, 3, 5),),
        copy(lambda op, at: (at[0], at[1], 4 - 2 * at[2])),
    ),
    (ops.StridedSlice((1,), (1,), (3,), (2,)), ((2, 5),), copy(lambda op, at: (at[0], 1 + 3 * at[1]))),
    (ops.Pad((0, -1), (0, 2), "reflect"), ((2, 4),), copy(lambda op, at: (at[0], (1, 2, 3, 2, 1)[at[1]]))),
    (ops.Gather(1, (2, 0, 2)), ((2, 3, 2),), copy(lambda op, at: (at[0], (2, 0, 2)[at[1]], at[2]))),
    (ops.Gather(0, (1,), ()), ((2, 3),), copy(lambda op, at: (1, at[0]))),
    (ops.Gather(1, (0, 1, 1, 0), (2, 2)), ((2, 2),), copy(lambda op, at: (at[0], (at[1] + at[2]) % 2))),
    (ops.Expand((4, 1)), ((2, 1, 3),), copy(lambda op, at: (at[0], 0, at[2]))),
    (ops.Expand((2, 3, 1)), ((3, 4),), copy(lambda op, at: at[1:])),
    (ops.Tile((1, 3)), ((2, 2),), copy(lambda op, at: (at[0], at[1] % 2))),
    (ops.DepthToSpace(2), ((1, 8, 2, 3),), copy(shuffled)),
    (ops.DepthToSpace(3, True), ((2, 18, 1, 2),), copy(shuffled)),
    (ops.SpaceToDepth(2), ((1, 2, 4, 6),), copy(unshuffled)),
    (ops.SpaceToDepth(3, True), ((2, 2, 3, 6),), copy(unshuffled)),
    (ops.ConvNd(4, (3,), (2,), (1,), (2,), 2, True, (0,)), ((2, 4, 9),), conv),
    (ops.ConvNd(3, (3, 2, 2), (2, 1, 2), (1, 0, 1), (1, 2, 1), bias=True), ((1, 2, 4, 4, 3),), conv),
    (ops.ConvNd(2, (2, 3, 1), (), (1, 1, 0), (), 2, pad_end=(0, 1, 0)), ((2, 4, 2, 3, 2),), conv),
    (
        ops.ConvTranspose(4, (3, 4), (2, 3), (1, 0), (1, 2), 2, True, (0, 2), (1, 0)),
        ((2, 4, 3, 2),),
        transposed,
    ),
    (ops.ConvTranspose(2, (2, 2), (2, 2)), ((1, 3, 2, 3),), transposed),
    (ops.ConvTranspose(3, (2,), (3,), (), (), 1, True, None, (2,)), ((2, 2, 3),), transposed),
    (ops.ConvTranspose(2, (2, 3, 2), (2, 1, 2), (1, 1, 0)), ((1, 2, 2, 3, 2),), transposed),
    (ops.MaxPoolNd((3,), (2,), (1,), "ceil"), ((2, 2, 6),), lambda op, at, x: max(window(op, at, x))),
    (
        ops.MaxPoolNd((2, 3, 2), (2, 1, 2), (0, 1, 1), dilation=(1, 2, 1), pad_end=(1, 1, 1)),
        ((1, 2, 3, 5, 4),),
        lambda op, at, x: max(window(op, at, x)),
    ),
    (ops.AvgPoolNd((3,), (2,), (1,), "ceil"), ((2, 2, 6),), average),
    (ops.LpPool((3,), (2,), (1,), "ceil", p=3), ((2, 2, 6),), power_mean),
    (ops.LpPool((2, 2), (2, 1), (0, 1)), ((1, 2, 4, 5),), power_mean),
    (ops.LpPool((2, 2), p=1), ((1, 2, 3, 3),), power_mean),
    (
        ops.AvgPoolNd((2, 2, 3), (2, 1, 1), (1, 0, 1), "full", (0, 1, 1), (1, 2, 1), False),
        ((1, 2, 3, 4, 4),),
        average,
    ),
    (ops.ResizeLinear((2, 3), (6, 8), (2.0, 2.0)), ((1, 2, 3, 4),), interpolated),
    (ops.ResizeLinear((1, 2), (5, 3), ((5, 4), (3, 7)), "align_corners"), ((2, 4, 7),), interpolated),
    (ops.ResizeLinear((2,), (7,), (1.7999999523162842,), "asymmetric"), ((2, 2, 4),), interpolated),
    (ops.ResizeLinear((1, 0), (3, 3), ((3, 5), 1.5), "half_pixel_symmetric"), ((2, 5),), interpolated),
    (
        ops.ResizeLinear((1,), (4,), ((4, 3),), "tf_crop_and_resize", ((-0.4, 0.9),), 7.0),
        ((2, 3),),
        interpolated,
    ),
    (ops.ResizeCubic((2, 3), (6, 3), (2.0, (3, 4))), ((1, 2, 3, 4),), interpolated),
    (
        ops.ResizeCubic((1,), (9,), (1.7999999523162842,), "pytorch_half_pixel", coefficient=-0.5),
        ((2, 5),),
        interpolated,
    ),
    (ops.ResizeCubic((1, 2), (7, 2), (1.75, 0.5), exclude_outside=True), ((2, 4, 5),), interpolated),
    (ops.ResizeLinear((2, 3), (3, 5), (0.375, 1.25), antialias=True), ((1, 2, 8, 4),), interpolated),
    (
        ops.ResizeLinear((1,), (2,), ((2, 7),), exclude_outside=True, antialias=True),
        ((2, 7),),
        interpolated,
    ),
    (
        ops.ResizeCubic((1, 2), (3, 2), ((3, 7), 0.5), "asymmetric", antialias=True),
        ((1, 7, 5),),
        interpolated,
    ),
    (
        ops.ResizeCubic((1,), (4,), ((4, 9),), "align_corners", exclude_outside=True, antialias=True),
        ((2, 9),),
        interpolated,
    ),
]
"""(op, shapes of the data, the exact value at one element)."""

MAPS = (6, 5, 4)
EXPORTED: list[Any] = [
    (ops.StridedSlice((2, 3), (4, 0), (-2, 3), (3, 2)), MAPS),
    (ops.Gather(2, (4, 0, 0)), MAPS),
    (ops.Gather(1, (5,), ()), MAPS),
    (ops.Gather(3, (3, 0, 1, 1), (2, 2)), MAPS),
    (ops.Expand((5, 1)), (6, 1, 4)),
    (ops.Tile((1, 2, 1, 3)), MAPS),
    (ops.DepthToSpace(2), (8, 3, 2)),
    (ops.DepthToSpace(2, True), (8, 3, 2)),
    (ops.SpaceToDepth(2), (3, 4, 6)),
    (ops.SpaceToDepth(2, True), (3, 4, 6)),
    (ops.ConvNd(4, (3,), (2,), (1,), (2,), 2, True, (0,)), (4, 9)),
    (ops.ConvNd(3, (3, 2, 2), (2, 1, 2), (1, 0, 1), (1, 2, 1)), (2, 4, 4, 3)),
    (ops.ConvTranspose(4, (3, 4), (2, 3), (1, 0), (1, 2), 1, True, (0, 2), (1, 0)), (4, 3, 2)),
    (ops.ConvTranspose(4, (3, 2), (2, 3), groups=4), (4, 3, 2)),
    (ops.ConvTranspose(3, (2,), (3,), (), (), 1, True, None, (2,)), (2, 3)),
    (ops.MaxPoolNd((3,), (2,), (1,), "ceil"), (2, 6)),
    (ops.MaxPoolNd((2, 3, 2), (2, 1, 2), (0, 1, 1)), (2, 3, 5, 4)),
    *(
        (ops.AvgPoolNd((3,), (2,), (1,), convention, (0,), (), counted), (2, 6))
        for convention in ("valid", "full", "ceil")
        for counted in (True, False)
    ),
    (ops.AvgPoolNd((2, 2, 3), (2, 1, 1)), (2, 3, 4, 4)),
    (ops.LpPool((2, 3), (2, 1), (1, 1)), MAPS),
    (ops.LpPool((3,), (2,), p=3), (2, 7)),
    (ops.ResizeLinear((2, 3), (10, 8), (2.0, 2.0)), MAPS),
    (ops.ResizeLinear((2, 3), (7, 3), ((7, 5), (3, 4)), "align_corners"), MAPS),
    (ops.ResizeLinear((2, 3), (3, 8), ((3, 5), 2.0), "asymmetric"), MAPS),
    (ops.ResizeLinear((3,), (8,), (2.0,), "tf_crop_and_resize", ((-0.4, 0.9),), 7.0), MAPS),
    (ops.ResizeCubic((2, 3), (10, 8), (2.0, 2.0)), MAPS),
    (ops.ResizeCubic((2, 3), (7, 8), ((7, 5), 2.0), coefficient=-0.5, exclude_outside=True), MAPS),
]
"""(op, shapes of the data of one image) for the ONNX export."""

UNKNOWN_TO_MXNET: list[tuple[Op, Shape]] = [
    (ops.StridedSlice((1,), (2,), (-1,), (3,)), (1, 4)),
    (ops.Gather(1, (0,)), (1, 4)),
    (ops.Expand((3,)), (1, 1)),
    (ops.Tile((1, 2)), (1, 4)),
    (ops.DepthToSpace(2), (1, 4, 1, 1)),
    (ops.SpaceToDepth(2), (1, 1, 2, 2)),
    (ops.ConvNd(2, (1,)), (1, 2, 3)),
    (ops.ConvTranspose(2, (1, 1)), (1, 2, 3, 3)),
    (ops.MaxPoolNd((2,)), (1, 2, 3)),
    (ops.AvgPoolNd((2,)), (1, 2, 3)),
    (ops.LpPool((2,)), (1, 2, 3)),
    (ops.ResizeLinear((2,), (6,), (2.0,)), (1, 2, 3)),
    (ops.ResizeCubic((2,), (6,), (2.0,)), (1, 2, 3)),
]
"""Ops that the export to MXNet refuses."""
