"""Pools over one, three or more dimensions, and over all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Index, Terms
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType
from refnet.ops.average import average_bound, exact_average
from refnet.ops.pool import CONVENTIONS, members, windows_along

Array = npt.NDArray[Any]
Sizes = tuple[int, ...]


@dataclass(frozen=True, repr=False)
class PoolNd(Op):
    """Base of both: where windows lie, as in WindowedPool, along as many axes as the kernel has.

    Nothing where a field is () means 1 along each axis, for pads 0; pad_end None: as pad.
    """

    kernel: Sizes
    stride: Sizes = ()
    pad: Sizes = ()
    convention: str = "valid"
    pad_end: Sizes | None = None
    dilation: Sizes = ()

    @property
    def window(self) -> tuple[Sizes, Sizes, Sizes, Sizes]:
        """Stride, padding before and behind, dilation: a number for each axis."""
        ones, zeros = (1,) * len(self.kernel), (0,) * len(self.kernel)
        pad = self.pad or zeros
        return self.stride or ones, pad, pad if self.pad_end is None else self.pad_end, self.dilation or ones

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,), rank = inputs, len(self.kernel)
        self._rank(x, 2 + rank)
        self._expect(rank >= 1, "a kernel of one axis or more")
        self._expect({len(values) for values in self.window} == {rank}, "as many numbers as axes")
        self._expect(self.convention in CONVENTIONS, f"convention must be one of {CONVENTIONS}")
        stride, pad, end, dilation = self.window
        self._expect(min(*self.kernel, *stride, *dilation) >= 1, "kernel, stride, dilation >= 1")
        self._expect(min(*pad, *end) >= 0, "pad and pad_end >= 0")
        self._expect(math.prod(self.kernel) < 2**46, "fewer than 2**46 elements in a window")
        axes = zip(x.shape[2:], self.kernel, stride, pad, end, dilation, strict=True)
        sizes = [windows_along(self, self.convention, x, axis) for axis in axes]
        return TensorType((*x.shape[:2], *sizes))

    def _by_kernel(self, x: Array, fill: float) -> Iterator[Array]:
        """For each place of the kernel, row by row: that element of every window, (n, c, ...)."""
        stride, pad, _, dilation = self.window
        made = self.type(TensorType(x.shape)).shape[2:]
        axes = list(zip(x.shape[2:], made, self.kernel, stride, pad, dilation, strict=True))
        sides = [max((m - 1) * s + d * (k - 1) + 1, p + h) for h, m, k, s, p, d in axes]
        padded = np.full((*x.shape[:2], *sides), fill, x.dtype)
        whole = slice(None)
        padded[(whole, whole, *(slice(p, p + h) for h, _, _, _, p, _ in axes))] = x
        for place in itertools.product(*(range(0, k * d, d) for _, _, k, _, _, d in axes)):
            steps = zip(place, axes, strict=True)
            cuts = (slice(a, a + (m - 1) * s + 1, s) for a, (_, m, _, s, _, _) in steps)
            yield padded[(whole, whole, *cuts)]

    def _window_terms(self, x: F32, at: Index) -> tuple[F32, Places, tuple[Index, ...]]:
        """The elements of one window, in its order; where they stand; places outside the image."""
        stride, pad, _, dilation = self.window
        axes = zip(at[2:], stride, pad, dilation, self.kernel, strict=True)
        taps = list(itertools.product(*([i * s - p + t * d for t in range(k)] for i, s, p, d, k in axes)))
        inside = [all(0 <= a < n for a, n in zip(tap, x.shape[2:], strict=True)) for tap in taps]
        kept = [(*at[:2], *tap) for tap, there in zip(taps, inside, strict=True) if there]
        places = np.array(kept, np.int64).reshape(-1, x.ndim)
        absent = tuple(tap for tap, there in zip(taps, inside, strict=True) if not there)
        return x[tuple(places.T)], places, absent


@dataclass(frozen=True, repr=False)
class MaxPoolNd(PoolNd):
    """y[n,c,i] = the largest x in window i, of as many axes as the kernel has; otherwise as MaxPool

    With the image's sizes as kernel it is the maximum of the whole image.

    Bound: |max a - max b| <= max |a - b|, as for MaxPool.

    Source: ONNX MaxPool and GlobalMaxPool, torch.nn.MaxPool1d and MaxPool3d.
    """

    zero_sign_unspecified: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return self._largest(inputs[0])

    def _largest(self, x: Array) -> Array:
        best: Array | None = None
        for values in self._by_kernel(x, -np.inf):
            if best is None:
                best = values.copy()
            else:
                np.copyto(best, values, where=(values > best) | np.isnan(values))
        assert best is not None
        return best

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        values, places, absent = self._window_terms(inputs[0], at)
        return Terms("max", "data", values, places, absent=absent)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        center, radius = self._largest(x.center), self._largest(x.radius)
        return Interval(center, np.where(np.isnan(center), np.inf, radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size * (math.prod(self.kernel) - 1))


@dataclass(frozen=True, repr=False)
class AvgPoolNd(PoolNd):
    """y[n,c,i] = (sum of x in window i) / d, of as many axes as the kernel has; otherwise as AvgPool

    d is the number of elements that count, as there: with count_include_pad those in image and padding.

    Plain: acc = +0; acc = acc + x for each place of the kernel, axis by axis; then one division by d.

    Bound, any order: gamma(K + 1) * sum |x| / d + (K + 1) * ETA/2 for K places in the kernel, as AvgPool's.

    Golden: the exact sum, divided by d, rounded once; zeros, NaN and infinities as for AvgPool.

    Source: ONNX AveragePool, torch.nn.AvgPool1d and AvgPool3d.
    """

    count_include_pad: bool = True

    def nan_propagates(self, *weights: F32) -> bool:
        return True

    def divisors(self, shape: Sizes) -> npt.NDArray[np.int64]:
        """d of every window."""
        stride, pad, end, dilation = self.window
        counted = self.count_include_pad
        made = self.type(TensorType(shape)).shape[2:]
        axes = zip(self.kernel, stride, pad, dilation, made, shape[2:], end, strict=True)
        found = np.ones((), np.int64)
        for k, s, p, d, count, length, e in axes:
            along = members(k, s, p, d, count, length + e if counted else length, counted)
            found = np.multiply.outer(found, along)
        return found

    def _total(self, x: Array) -> Array:
        total = np.zeros(self.type(TensorType(x.shape)).shape, x.dtype)
        for values in self._by_kernel(x, 0.0):
            total += values
        return total

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        with np.errstate(all="ignore"):
            y: F32 = np.divide(self._total(x), self.divisors(x.shape).astype(np.float32))
        return y

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        (x,) = inputs
        windows = partial(self._by_kernel, x, 0.0)
        return exact_average(type(self).__name__, self._total, windows, x, self.divisors(x.shape), exact)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        values, places, absent = self._window_terms(inputs[0], at)
        divisor = int(self.divisors(inputs[0].shape)[at[2:]])
        return Terms("add", "data", values, places, absent=absent, divisor=divisor)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        terms = math.prod(self.kernel)
        with np.errstate(all="ignore"):
            counts = self.divisors(x.center.shape)
            center, spread, total = (self._total(a) / counts for a in (x.center, x.radius, x.magnitude))
        return average_bound(center, spread, total, terms, terms)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size * math.prod(self.kernel))
