"""Linear and cubic resizing: each axis a weighted sum of two or four neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Step
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.core.rounding import ETA, U64, error_factor, gamma, outward
from refnet.ops.bilinear import POSITIONS, bilinear
from refnet.ops.places import CROP, Axis, Scale, resized
from refnet.ops.taps import Kernel, Taps, coordinate_error, taps

Array = npt.NDArray[Any]


@dataclass(frozen=True, repr=False)
class Interpolated(Op):
    """Base of both: axes, sizes, scales, coordinates, roi and extrapolation as in ResizeNearest.

    antialias: along an axis that shrinks by s = scale < 1, y[i] = sum of w((j - p) s) x[j] over all j,
    divided by the sum of these weights, with w the tent 1 - |d| or the cubic. exclude_outside: neighbours
    outside of x have weight 0, and the other weights are divided by their sum; else each is the one at the
    edge.
    """

    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    scales: tuple[Scale, ...]
    coordinates: str = "half_pixel"
    roi: tuple[tuple[float, float], ...] = ()
    extrapolation: float = 0.0
    exclude_outside: bool = False
    antialias: bool = False

    assumption: ClassVar[str] = (
        "the bound assumes positions that are computed in float32 or better, by ONNX's formula or PyTorch's, "
        "with at most 6 roundings (2 for the scale), and antialiasing one axis after the other"
    )

    @property
    def kernel(self) -> Kernel:
        """The weights of the neighbours where nothing is antialiased."""
        raise NotImplementedError

    def _kernel(self, axis: Axis) -> Kernel:
        shrinks = self.antialias and axis.ratio < 1
        return replace(self.kernel, shrink=axis.ratio) if shrinks else self.kernel

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return resized(self, inputs[0])

    def axis(self, k: int, shape: tuple[int, ...]) -> Axis:
        """The axis axes[k] of an x of this shape."""
        roi = self.roi[k] if self.roi else (0.0, 1.0)
        return Axis(shape[self.axes[k]], self.sizes[k], self.scales[k], self.coordinates, "floor", roi)

    def _taps(self, shape: tuple[int, ...]) -> list[tuple[int, Taps]]:
        """(axis, its taps), in plain's order: the last axis of x first."""
        axes = [(axis, self.axis(k, shape)) for k, axis in enumerate(self.axes)]
        return sorted(((k, taps(axis, self._kernel(axis))) for k, axis in axes), key=lambda one: -one[0])

    def _outside(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Where y is the extrapolation: broadcast to its shape."""
        made = self.type(TensorType(shape)).shape
        found = np.zeros((1,) * len(shape), np.bool_)
        for axis, one in self._taps(shape):
            found = found | ~_along(one.inside, axis, len(shape))
        return np.broadcast_to(found, made)

    def _sum(self, x: Array, absolute: bool = False) -> Array:
        """The weighted sums in x's dtype, axis by axis, from +0; absolute: of |w| and x."""
        for axis, one in self._taps(x.shape):
            weights = (np.abs(one.weight) if absolute else one.weight).astype(x.dtype)
            total: Array | None = None
            for t in range(one.count):
                w = _along(weights[:, t], axis, x.ndim)
                with np.errstate(all="ignore"):
                    part = np.where(w == 0, x.dtype.type(0), w * np.take(x, one.index[:, t], axis))
                    total = part + x.dtype.type(0) if total is None else total + part
            assert total is not None
            x = total
        return np.array(x, order="C")

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        y: F32 = self._sum(x)
        y[self._outside(x.shape)] = self.extrapolation
        return y

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        (x,) = inputs
        wide, outside = x.astype(np.float64), self._outside(x.shape)
        center, size = self._sum(wide), self._sum(np.abs(wide), absolute=True)
        center[outside], size[outside] = float(np.float32(self.extrapolation)), 0.0
        roundings = sum(one.count + 1 for _, one in self._taps(x.shape))

        def refine(at: Places, y: F32) -> None:
            for k in at:
                place = tuple(int(i) for i in np.unravel_index(k, y.shape))
                true = sum((w * Fraction(float(v)) for w, v, _ in self._terms(x, place)), Fraction(0))
                y.reshape(-1)[k] = exact.rounded(true)

        with np.errstate(all="ignore"):
            error = error_factor(roundings) * size
        y = exact.round_or_refine(type(self).__name__, center, error, refine)
        y[outside] = self.extrapolation
        return y

    def _terms(self, x: F32, at: Index) -> list[tuple[Fraction, np.float32, Index]]:
        """(exact weight, element, its place) of each neighbour whose weight is not 0."""
        found = self._taps(x.shape)
        terms = []
        for choice in itertools.product(*(range(one.count) for _, one in found)):
            weight, place = Fraction(1), list(at)
            for t, (axis, one) in zip(choice, found, strict=True):
                weight *= one.exact(at[axis])[t]
                place[axis] = int(one.index[at[axis], t])
            if weight:
                terms.append((weight, x[tuple(place)], tuple(place)))
        return terms

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        (x,) = inputs
        y = self.golden(*inputs, exact=exact)[at]
        plain = self.run(*inputs, engine=exact.engine)[at]
        terms = self._terms(x, at)
        if self._outside(x.shape)[at]:
            return Derivation((Step("y", "what stands outside of the input", Fraction(float(y)), y),), y)
        if not np.isfinite([v for _, v, _ in terms]).all():
            return Derivation((), y)
        steps = [
            Step(f"t{k}", f"{w} * the input element at {list(place)}", w * Fraction(float(v)))
            for k, (w, v, place) in enumerate(terms)
        ]
        total = sum((step.exact for step in steps if isinstance(step.exact, Fraction)), Fraction(0))
        return Derivation((*steps, Step("y", "the sum of all t", total, plain)), y)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        center, radius, size = x.center, x.radius, x.magnitude
        unsure = np.zeros((1,) * center.ndim, np.bool_)  # whether a framework takes it for outside, or not
        outside = self._outside(center.shape)
        shape, count = center.shape, 1
        with np.errstate(all="ignore"):
            for axis, one in self._taps(shape):
                error = coordinate_error(one.axis)
                span = one.neighbours(error)  # the neighbours at any place that may be computed
                low, high, reach, largest = (
                    _extreme(a, span, axis, largest_of)
                    for a, largest_of in ((center, False), (center, True), (radius, True), (size, True))
                )
                weights, slope, off = (_along(a, axis, center.ndim) for a in one.sensitivity(error))
                moved = _along(error, axis, center.ndim) * slope * (high - low) / 2
                radius = (weights + off) * reach + moved + off * largest
                size = (weights + off) * largest
                center = _sum64(center, one, axis)
                unsure = unsure | _along(one.unsure(error), axis, center.ndim)
                count *= one.count
            axes = len(self.axes)
            per = sum(one.count for _, one in self._taps(shape))
            roundings = per + 12 * axes + (axes if self.antialias else count)
            radius = radius + (gamma(roundings) + (roundings + 2) * U64) * size
            radius = radius + 4 * count * ETA * (1 + size)
            far = float(np.float32(self.extrapolation))
            unsure = np.broadcast_to(unsure, radius.shape)
            center_in, radius_in = center, radius
            center = np.where(outside, far, center_in)
            radius = np.where(outside, 0.0, radius_in)
            radius = np.where(unsure, np.abs(center_in - far) + radius_in, radius)
            largest = np.where(outside & ~unsure, 0.0, 3 * size + radius)
        return outward(center, radius, largest, roundings)

    def flops(self, *inputs: TensorType) -> Cost:
        """Two operations for each neighbour, axis by axis, the last of x first."""
        shape, total = list(inputs[0].shape), 0
        for k in sorted(range(len(self.axes)), key=lambda k: -self.axes[k]):
            shape[self.axes[k]] = self.sizes[k]
            count = self._kernel(self.axis(k, inputs[0].shape)).count
            total += 2 * count * TensorType(tuple(shape)).size
        return Cost(0, total)


@dataclass(frozen=True, repr=False)
class ResizeLinear(Interpolated):
    """y[i] = (1 - f) x[j] + f x[j + 1] along each axis of `axes`, one after the other: bilinear with two

    With p the position of i in x, by `coordinates` as in ResizeNearest, j = floor(p) and f = p - j.
    Neighbours outside of x are those at its edge. In tf_crop_and_resize y is `extrapolation` where a position
    lies outside 0 .. h - 1.

    A scale is a float, which counts as exactly what it says, or (numerator, denominator). Positions and
    weights are rational numbers, and the formula is exact.

    Plain: axis by axis, the last first; acc = +0; acc = acc + w x, product and sum rounded, neighbour by
    neighbour; the weights are the exact ones, rounded to float64 and then to float32. A weight of 0 is no
    term: an infinity or NaN under it does not enter.

    Bound: frameworks compute positions in float32. Let E bound |p' - p| of a computed position p'
    (ops/taps.py `coordinate_error`): gamma(6) times the sizes of the formula's terms, and 0 where every step
    is exact (a power of two as scale). The interpolated function is continuous in p with slope at most the
    range of the neighbours that any p' within E can have. So an axis adds E * range; radii of the inputs pass
    by their largest; what is off after one axis is averaged by the next, not enlarged. Then all roundings: in
    any form, with FMA or without, as x0 + f (x1 - x0) or with products of weights, at most
    gamma(12 a + sum of counts + 2^a) times the largest neighbour for a axes, and products that underflow.
    Antialiased, the sums of many neighbours are taken to be one axis after the other: a in place of 2^a.

    Formulas: of bilinear only, found by bits in PyTorch 2.13 (AVX-512) and ONNX Runtime 1.31; their weights
    are rounded products of two.

    Golden: the exact value of the formula, rounded once; an exact 0 is +0; NaN, infinities of both signs make
    NaN.

    Source: ONNX Resize (mode linear) and Upsample, torch.nn.functional.interpolate (linear, bilinear,
    trilinear).
    """

    formulas: ClassVar[Mapping[str, str]] = {name: text for name, (text, _, _) in POSITIONS.items()}

    @property
    def kernel(self) -> Kernel:
        return Kernel(exclude_outside=self.exclude_outside)

    @property
    def menu(self) -> tuple[str, ...]:
        """Bilinear only: what frameworks compute otherwise is not known."""
        known = len(self.axes) == 2 and self.coordinates != CROP and not self.antialias
        return tuple(self.formulas) if known else ()

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        (x,) = inputs
        first, second = sorted((axis, self.axis(k, x.shape)) for k, axis in enumerate(self.axes))
        return bilinear(formula, x, first, second, engine)


@dataclass(frozen=True, repr=False)
class ResizeCubic(Interpolated):
    """y[i] = sum over t = -1 .. 2 of w(f - t) x[j + t] along each axis of `axes`, one after the other

    j and f as in ResizeLinear, w the cubic of Keys: for |d| <= 1 (a + 2)|d|^3 - (a + 3)|d|^2 + 1, for
    1 < |d| < 2 a|d|^3 - 5a|d|^2 + 8a|d| - 4a. Neighbours outside of x are those at its edge, or have no
    weight (exclude_outside).

    coefficient: a. Everything else as in ResizeLinear, with four neighbours.

    Bound: as there, with the cubic's slope (ops/taps.py `sensitivity`), and its weights, which float32 makes
    of terms that cancel: off by gamma(8) times the sizes of the terms of both polynomials.

    Source: ONNX Resize (mode cubic), torch.nn.functional.interpolate (bicubic, a = -0.75); R. Keys, "Cubic
    convolution interpolation for digital image processing", IEEE TASSP 29, 1981.
    """

    coefficient: float = -0.75

    @property
    def kernel(self) -> Kernel:
        return Kernel(True, self.coefficient, self.exclude_outside)


def _along(values: Array, axis: int, rank: int) -> Array:
    """(size,) -> (1, ..., size, ..., 1)."""
    return values.reshape(*(1,) * axis, -1, *(1,) * (rank - axis - 1))


def _sum64(x: F64, one: Taps, axis: int) -> F64:
    """One axis in float64."""
    total = np.zeros(1)
    for t in range(one.count):
        w = _along(one.weight[:, t], axis, x.ndim)
        total = total + np.where(w == 0, 0.0, w * np.take(x, one.index[:, t], axis))
    return total


def _extreme(x: F64, span: list[Places], axis: int, largest: bool) -> F64:
    """The largest or the smallest of the neighbours along the axis."""
    found = np.take(x, span[0], axis)
    for index in span[1:]:
        other = np.take(x, index, axis)
        found = np.maximum(found, other) if largest else np.minimum(found, other)
    return found
