"""Nearest neighbours: upsampling (octave convolution's path from low to high frequency) and resizing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Terms
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.ops.layout import copied, copied_or_added


@dataclass(frozen=True, repr=False)
class UpsampleNearest(Op):
    """y[n,c,i,j] = x[n, c, i // scale, j // scale]. Only one right result: copies.

    The path down, a 2x2 average pool of stride 2, is AvgPool(kernel=(2, 2), stride=(2, 2)).

    Source: MXNet UpSampling sample_type=nearest with one input.
    """

    scale: int = 2

    @property
    def exactly_specified(self) -> bool:
        return True

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

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        def stretch(a: F64) -> F64:
            return a.repeat(self.scale, 2).repeat(self.scale, 3)

        (x,) = inputs
        return Interval(stretch(x.center), stretch(x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()


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

    computed in float32, from left to right, as frameworks do: with a scale such as 1.2 another precision may
    give another neighbour. `rounding`: to the nearest (halves down or up), down, or up. An axis with scale 1
    is unchanged, except in tf_crop_and_resize.

    Only one right result: copies.

    Source: ONNX Resize (mode nearest) and Upsample, torch.nn.functional.interpolate (asymmetric, floor).
    """

    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    scales: tuple[float, ...]
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    roi: tuple[tuple[float, float], ...] = ()
    extrapolation: float = 0.0

    @property
    def exactly_specified(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = list(inputs[0].shape)
        self._expect(self.coordinates in COORDINATES, f"coordinates must be one of {COORDINATES}")
        self._expect(self.rounding in ROUNDINGS, f"rounding must be one of {ROUNDINGS}")
        self._expect(len(set(self.axes)) == len(self.axes), "each axis once")
        regions = self.coordinates == "tf_crop_and_resize"
        counts = (len(self.sizes), len(self.scales), len(self.roi) if regions else len(self.axes))
        self._expect(set(counts) == {len(self.axes)}, "a size, a scale (and a roi) for each axis")
        for axis, size, scale in zip(self.axes, self.sizes, self.scales, strict=True):
            self._expect(0 <= axis < len(shape), f"axes outside of {inputs[0]!r}")
            self._expect(size >= 1 and 0 < scale < np.inf, f"size >= 1 and scale > 0, got {size} and {scale}")
            shape[axis] = size
        return TensorType(tuple(shape))

    def places(self, axis: int, length: int) -> npt.NDArray[np.int64]:
        """j for every i along axis axes[position], which has `length` elements; -1: outside."""
        f = np.float32
        size, s, h, half = self.sizes[axis], f(self.scales[axis]), f(length), f(0.5)
        i = np.arange(size).astype(np.float32)
        if s == 1 and size == length and self.coordinates != "tf_crop_and_resize":
            return np.arange(size)
        with np.errstate(all="ignore"):
            match self.coordinates:
                case "asymmetric":
                    x = i / s
                case "tf_half_pixel_for_nn":
                    x = (i + half) / s
                case "align_corners":
                    x = i * (h - f(1)) / f(size - 1) if size > 1 else i * f(0)
                case "half_pixel_symmetric":
                    x = h / f(2) * (f(1) - f(size) / (s * h)) + ((i + half) / s - half)
                case "tf_crop_and_resize":
                    a, b = map(f, self.roi[axis])
                    slope = (b - a) * (h - f(1))
                    start = a * (h - f(1)) if size > 1 else half * (a + b) * (h - f(1))
                    x = start + (i * slope / f(size - 1) if size > 1 else i * f(0))
                case _:
                    x = (i + half) / s - half
                    x = x * f(0) if self.coordinates == "pytorch_half_pixel" and size == 1 else x
            inside = (x >= 0) & (x <= h - f(1))
            match self.rounding:
                case "floor":
                    x = np.floor(x)
                case "ceil":
                    x = np.ceil(x)
                case "round_prefer_floor":
                    x = np.ceil(x - half)
                case _:
                    x = np.floor(x + half)
        j = np.nan_to_num(np.clip(x, 0, h - f(1))).astype(np.int64)
        return np.where(inside, j, -1) if self.coordinates == "tf_crop_and_resize" else j

    def _take(self, x: npt.NDArray[Any], outside: float) -> npt.NDArray[Any]:
        for position, axis in enumerate(self.axes):
            j = self.places(position, x.shape[axis])
            x = np.take(x, np.maximum(j, 0), axis)
            x[(slice(None),) * axis + (j < 0,)] = outside
        return np.array(x, order="C")

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return self._take(inputs[0], self.extrapolation)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        return copied_or_added(self, inputs[0], at, exact.engine)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        return Interval(
            self._take(x.center, float(np.float32(self.extrapolation))), self._take(x.radius, 0.0)
        )

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()
