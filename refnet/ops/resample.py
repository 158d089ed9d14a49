"""Nearest neighbours: upsampling (octave convolution's path from low to high frequency) and resizing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Terms
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.ops.layout import copied, copied_or_added
from refnet.ops.places import FORMULAS, ROUNDINGS, Axis, Places, Scale, exact, resized

ALIKE = 40
"""The scale up to which floor(i * float32(1 / scale)) is i // scale. 41 * float32(1 / 41) is below 1."""


@dataclass(frozen=True, repr=False)
class UpsampleNearest(Op):
    """y[n,c,i,j] = x[n, c, i // scale, j // scale]. Only one right result: copies.

    It is a ResizeNearest by whole numbers (asymmetric, floor) and has its formulas, of which PyTorch's takes
    other elements from a scale of 41 on. Up to 40 all are the same, and none is needed.

    The path down, a 2x2 average pool of stride 2, is AvgPool(kernel=(2, 2), stride=(2, 2)).

    Source: MXNet UpSampling sample_type=nearest with one input.
    """

    scale: int = 2

    formulas: ClassVar[Mapping[str, str]] = {name: text for name, (text, _) in FORMULAS.items()}

    @property
    def exactly_specified(self) -> bool:
        return True

    @property
    def needs_recipe(self) -> bool:
        return self.scale > ALIKE

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        self._expect(self.scale >= 1, "scale >= 1")
        n, c, h, w = x.shape
        return TensorType((n, c, h * self.scale, w * self.scale))

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.upsample(inputs[0], self.scale)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        return copied(self, inputs, at, exact.engine)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        return self._resize(inputs[0].shape).replay(formula, *inputs, engine=engine)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        def stretch(a: F64) -> F64:
            return a.repeat(self.scale, 2).repeat(self.scale, 3)

        (x,) = inputs
        if self.needs_recipe:
            return self._resize(x.center.shape).bound(x, engine=engine)
        return Interval(stretch(x.center), stretch(x.radius))

    def _resize(self, shape: tuple[int, ...]) -> ResizeNearest:
        """The same as a ResizeNearest of an x of this shape."""
        sizes = (shape[2] * self.scale, shape[3] * self.scale)
        return ResizeNearest((2, 3), sizes, (float(self.scale),) * 2, "asymmetric", "floor")

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()


@dataclass(frozen=True, repr=False)
class ResizeNearest(Op):
    """y[i] = x[j] along each axis of `axes`: j is the position of i in x, rounded, and clipped to 0 .. h - 1

    With h elements in x, size = sizes[axis] in y, s = scales[axis], the position of i is, by `coordinates`,

    - half_pixel:           (i + 1/2) / s - 1/2
    - half_pixel_symmetric: (i + 1/2) / s - 1/2 + h/2 * (1 - size / (s h))
    - pytorch_half_pixel:   as half_pixel; 0 where size is 1
    - align_corners:        i (h - 1) / (size - 1); 0 where size is 1
    - asymmetric:           i / s
    - tf_half_pixel_for_nn: (i + 1/2) / s
    - tf_crop_and_resize:   a (h - 1) + i (b - a)(h - 1) / (size - 1), where size is 1 (a + b)(h - 1) / 2,
      with (a, b) = roi[axis]; y is `extrapolation` where that lies outside 0 .. h - 1

    `rounding`: to the nearest (halves down or up), down, or up. An axis with scale 1 is unchanged, except in
    tf_crop_and_resize.

    A scale is a float, which counts as exactly what it says, or (numerator, denominator): where sizes were
    given, s = size / h exactly. Plain and golden compute the position as a rational number, so there is only
    one right result: copies. Frameworks compute it in float32 or float64, in several ways; where a position
    is next to a whole number or a half, some take the neighbour. These are the `formulas` (ops/places.py). A
    value is one formula's as a whole, or wrong.

    Bound: a formula takes an element of those that any of them takes: the hull of their intervals.

    Source: ONNX Resize (mode nearest) and Upsample, torch.nn.functional.interpolate (asymmetric, floor).
    """

    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    scales: tuple[Scale, ...]
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    roi: tuple[tuple[float, float], ...] = ()
    extrapolation: float = 0.0

    formulas: ClassVar[Mapping[str, str]] = {name: text for name, (text, _) in FORMULAS.items()}

    @property
    def exactly_specified(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(self.rounding in ROUNDINGS, f"rounding must be one of {ROUNDINGS}")
        return resized(self, inputs[0])

    def places(self, position: int, shape: tuple[int, ...], formula: str = "exact") -> Places:
        """j for every i along the axis axes[position] of an x of this shape, by a formula; -1: outside.

        Raises InputError for a formula that is not in the menu.
        """
        self._expect_formula(formula)
        return FORMULAS[formula][1](self._axis(position, shape))

    def _axis(self, k: int, shape: tuple[int, ...]) -> Axis:
        roi = self.roi[k] if self.roi else (0.0, 1.0)
        length = shape[self.axes[k]]
        copied = self.type(TensorType(shape)).shape == shape
        return Axis(
            length, self.sizes[k], self.scales[k], self.coordinates, self.rounding, roi, copied, len(shape)
        )

    def take(self, x: npt.NDArray[Any], outside: float, formula: str = "exact") -> npt.NDArray[Any]:
        """The elements of an array of any dtype that y has; outside: what stands where there is none."""
        shape = x.shape
        # Axes that shrink come first, so that no array in between is larger than x and y.
        for k in sorted(range(len(self.axes)), key=lambda k: self.sizes[k] / shape[self.axes[k]]):
            axis, j = self.axes[k], self.places(k, shape, formula)
            x = np.take(x, np.maximum(j, 0), axis)
            x[(slice(None),) * axis + (j < 0,)] = outside
        return np.ascontiguousarray(x) if self.axes else x.copy()

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return self.take(inputs[0], self.extrapolation)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        with np.errstate(all="ignore"):
            return self.take(inputs[0], self.extrapolation, formula)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        y = self.run(*inputs, engine=exact.engine)
        return copied_or_added(y, inputs[0], lambda numbers: self.take(numbers, 0.0), at)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        outside = float(np.float32(self.extrapolation))
        center, radius = self.take(x.center, outside), self.take(x.radius, 0.0)
        others = [name for name in self.formulas if self._differs(name, x.center.shape)]
        taken = [(self.take(x.center, outside, name), self.take(x.radius, 0.0, name)) for name in others]
        taken.append((center, radius))
        with np.errstate(all="ignore"):
            low = np.min([c for c, _ in taken], axis=0)
            high = np.max([c for c, _ in taken], axis=0)
            middle = low / 2 + high / 2
            reach = np.max([np.abs(c - middle) + r for c, r in taken], axis=0) * (1 + 2.0**-50)
            hull = np.where(np.isfinite(reach), reach, np.inf)
        one = np.all(
            [((c == center) | (np.isnan(c) & np.isnan(center))) & (r == radius) for c, r in taken], axis=0
        )
        return Interval(np.where(one, center, middle), np.where(one, radius, hull))

    def _differs(self, formula: str, shape: tuple[int, ...]) -> bool:
        """Whether the formula takes other elements than the exact places."""
        with np.errstate(all="ignore"):
            return any(
                not np.array_equal(self.places(k, shape, formula), exact(self._axis(k, shape)))
                for k in range(len(self.axes))
            )

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()
