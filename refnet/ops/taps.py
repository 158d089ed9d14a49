"""Where a linear or cubic resize reads, with which weights, and how far float32 may move them.

Axis ── taps ──── Taps: per output the neighbours, their weights as float64 and as rational numbers
   └─── coordinate_error: how far a framework's float32 position may lie from the exact one
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import floor

import numpy as np
import numpy.typing as npt

from refnet.core.op import F64
from refnet.core.rounding import gamma
from refnet.ops.places import CROP, Axis, Places, line


@dataclass(frozen=True)
class Kernel:
    """Linear, or cubic with its coefficient a; exclude_outside: neighbours outside of x have no weight.

    shrink: what distances are multiplied by, at most 1; below 1 the filter is antialiased: it reaches over
    1 / shrink times as many neighbours, and its weights are divided by their sum.
    """

    cubic: bool = False
    coefficient: float = -0.75
    exclude_outside: bool = False
    shrink: Fraction = Fraction(1)

    @property
    def count(self) -> int:
        """How many neighbours."""
        return 2 - 2 * self.first

    @property
    def first(self) -> int:
        """The first neighbour's place from floor(position) on: nearer than the filter reaches, 1 or 2."""
        return floor(-(2 if self.cubic else 1) / self.shrink) + 1

    @property
    def divided(self) -> bool:
        """Whether the weights are divided by their sum: it is 1 for the others."""
        return self.shrink < 1 or (self.exclude_outside and self.cubic)

    def weights(self, share: Fraction) -> tuple[Fraction, ...]:
        """The exact weights at position floor + share, before they are divided by their sum."""
        if self.shrink < 1:
            places = range(self.first, self.first + self.count)
            return tuple(self._at(abs(t - share) * self.shrink) for t in places)
        if not self.cubic:
            return 1 - share, share
        a = Fraction(self.coefficient)

        def outer(d: Fraction) -> Fraction:
            return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

        def inner(d: Fraction) -> Fraction:
            return ((a + 2) * d - (a + 3)) * d * d + 1

        return outer(1 + share), inner(share), inner(1 - share), outer(2 - share)

    def _at(self, d: Fraction) -> Fraction:
        """The filter at a distance."""
        if not self.cubic:
            return max(1 - d, Fraction(0))
        a = Fraction(self.coefficient)
        if d <= 1:
            return ((a + 2) * d - (a + 3)) * d * d + 1
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else Fraction(0)

    @property
    def slope(self) -> float:
        """An upper bound of the sum of |w'| over the neighbours, w' the weights' derivatives.

        Linear: 1 + 1. Cubic, with 0 <= d <= 1 the distance of an inner neighbour: w' = 3(a+2)d^2 - 2(a+3)d is
        0 at 0, a at 1, and -(a+3)^2 / (3(a+2)) between, if its zero lies there. An outer one, at 1 + d, has
        a(3e^2 - 10e + 8) with e = 1 + d: a at e = 1, 0 at e = 2, and -a/3 between.

        Of a filter that is s times as steep: s |w'|, where an interval of length 1 has at most 1/s + 1
        neighbours.
        """
        s = float(self.shrink) * (1 + 2.0**-52)
        if not self.cubic:
            return 2.0 if self.shrink == 1 else 2.0 + 2 * s
        more = 0.0 if self.shrink == 1 else s
        return (2 * self._steepest + 2 * abs(self.coefficient)) * (1 + more) * (1 + 2.0**-50)

    @property
    def _steepest(self) -> float:
        """The largest |w'| of an inner neighbour of the cubic, where it is at least that of an outer one."""
        a = self.coefficient
        if a != -2 and 0 <= (a + 3) / (3 * (a + 2)) <= 1:
            return max(abs(a), (a + 3) ** 2 / (3 * abs(a + 2)))
        return abs(a)

    @property
    def rounding(self) -> float:
        """How far the sum of |w| may be moved by computing the weights in float32.

        Linear: 1 - f is rounded once. Cubic: each step of ((a d - 5a) d + 8a) d - 4a and of the inner
        polynomial is rounded, d = 1 + f too, at most 8 roundings on a term; the sizes of the terms are at
        most |a| (8 + 20 + 16 + 4) for d up to 2, and |a + 2| + |a + 3| + 1 for d up to 1.

        Antialiased, each distance is a difference, a half and a product with a computed scale: 4 roundings
        more, where it is at most 2 (linear, with s for its neighbour beyond) or 3, times the largest |w'|. An
        interval of length 1 has at most 1/s + 1 neighbours.
        """
        a = self.coefficient
        if self.shrink < 1:
            if not self.cubic:
                return self.count * gamma(6) * 3
            each = (2 + 2 * float(self.shrink)) / float(self.shrink) * (1 + 2.0**-40)
            terms = 48 * abs(a) + abs(a + 2) + abs(a + 3) + 1
            return each * gamma(8) * terms + self.count * gamma(4) * 3 * self._steepest
        if not self.cubic:
            return gamma(2)
        return gamma(8) * 2 * (48 * abs(a) + abs(a + 2) + abs(a + 3) + 1)


@dataclass(frozen=True)
class Taps:
    """Of every output along an axis: index (size, count) its neighbours in x, weight (size, count), inside.

    base: floor of each position; share: what is above it. inside: False where a crop lies outside of x.
    """

    axis: Axis
    kernel: Kernel
    base: Places
    share: tuple[Fraction, ...] = field(repr=False)
    index: Places
    weight: F64
    inside: npt.NDArray[np.bool_]

    @property
    def count(self) -> int:
        """How many neighbours each output has."""
        return self.kernel.count

    def exact(self, i: int) -> tuple[Fraction, ...]:
        """The weights of output i as rational numbers."""
        return _weights(self.axis, self.kernel, int(self.base[i]), self.share[i])

    def neighbours(self, error: F64) -> list[Places]:
        """Places in x (size,) each: all neighbours of any position within the error, which is below 1."""
        at = np.array([float(s) for s in self.share])
        low = np.where(at - error < 0, -1, 0)  # a share is off by 2**-53 of itself: `error` has room for it
        high = np.where(at + error >= 1, 1, 0)
        first, last = self.kernel.first, self.kernel.first + self.count - 1
        places = [self.base + low + first, *(self.base + t for t in range(first, last + 1))]
        return [np.clip(p, 0, self.axis.length - 1) for p in (*places, self.base + high + last)]

    def sensitivity(self, error: F64) -> tuple[F64, F64, F64]:
        """(size,) each: the sum of |w| at any position within the error, the sum of |w'|, and how far float32
        may move the weights. Infinite where the error reaches 1, or excluded weights leave a sum next to 0.

        Where they are divided the weights are w / s, s the sum of those kept: (w / s)' = w'/s - w s'/s^2,
        where |s'| is at most the sum of |w'|, and s may be off as much as the weights.
        """
        kernel = self.kernel
        sizes, slope = np.abs(self.weight).sum(1), np.full(error.shape, kernel.slope)
        off = np.full(error.shape, kernel.rounding)
        if kernel.divided:
            kept = self._kept()
            raw = sizes * np.abs(kept) + error * slope  # of the weights before they are divided
            least = np.abs(kept) - error * slope - off
            slope = np.where(least > 0, slope / least + raw * slope / least**2, np.inf)
            off = np.where(
                least > 0, off / least + raw * off / least**2 + gamma(self.count) * raw / least, np.inf
            )
        sure = error < 1
        return (
            np.where(sure, sizes + np.where(error > 0, error * slope, 0.0), np.inf),
            np.where(sure, slope, np.inf),
            np.where(sure, off, np.inf),
        )

    def _kept(self) -> F64:
        """The sum of the weights that are not excluded, before they are divided by it."""
        places = self.base[:, None] + np.arange(self.count) + self.kernel.first
        inside = ((places >= 0) & (places < self.axis.length)) | (not self.kernel.exclude_outside)
        whole = [[float(w) for w in self.kernel.weights(s)] for s in self.share]
        kept: F64 = np.where(inside, np.array(whole), 0.0).sum(1)
        return kept

    def unsure(self, error: F64) -> npt.NDArray[np.bool_]:
        """Where a crop may be inside or outside of x, as positions are computed."""
        if self.axis.coordinates != CROP:
            return np.zeros(self.base.size, np.bool_)
        at = self.base + np.array([float(s) for s in self.share])
        border = np.minimum(np.abs(at), np.abs(at - (self.axis.length - 1)))
        found: npt.NDArray[np.bool_] = (border <= 2 * error) & (error > 0)
        return found


@lru_cache(maxsize=32)
def taps(axis: Axis, kernel: Kernel) -> Taps:
    """The neighbours and weights of every output along an axis, by rational arithmetic."""
    first, step = line(axis)
    base, share, weight = [], [], []
    for i in range(axis.size):
        position = first + i * step
        j = floor(position)
        base.append(min(max(j, -kernel.count), axis.length + kernel.count))  # beyond, all are at the edge
        share.append(position - j)
        weight.append([float(w) for w in _weights(axis, kernel, base[-1], share[-1])])
    at = np.array(base, np.int64)
    index = at[:, None] + np.arange(kernel.count) + kernel.first
    inside = np.ones(axis.size, np.bool_)
    if axis.coordinates == CROP:
        exact = [0 <= first + i * step <= axis.length - 1 for i in range(axis.size)]
        inside = np.array(exact, np.bool_)
    return Taps(
        axis,
        kernel,
        at,
        tuple(share),
        np.clip(index, 0, axis.length - 1),
        np.array(weight, np.float64),
        inside,
    )


def _weights(axis: Axis, kernel: Kernel, base: int, share: Fraction) -> tuple[Fraction, ...]:
    """The weights of the neighbours; those outside have none if they are excluded."""
    found = _of_share(kernel, share)
    if not kernel.exclude_outside and not kernel.divided:
        return found
    places = range(base + kernel.first, base + kernel.first + kernel.count)
    inside = [not kernel.exclude_outside or 0 <= place < axis.length for place in places]
    kept = [w if there else Fraction(0) for w, there in zip(found, inside, strict=True)]
    total = sum(kept)
    return tuple(w / total for w in kept) if total else tuple(kept)


@lru_cache(maxsize=1 << 14)
def _of_share(kernel: Kernel, share: Fraction) -> tuple[Fraction, ...]:
    return kernel.weights(share)


def coordinate_error(axis: Axis) -> F64:
    """(size,): how far a position computed in float32 may lie from the exact one, line(axis).

    ONNX's formula and PyTorch's take at most 6 roundings on a term: the scale (as 1 / s, in / out, or the
    decimal that its float32 stands for: 2 at most), a product or a quotient, and two additions. Each term is
    moved by gamma(6) of its size, and an excess of 2^-40 is there for the float64 of all this.

    half_pixel and its kin: the terms are (i + 1/2) / s and 1/2, symmetric h/2 and h/2 * size / (s h) besides.
    asymmetric: i / s. align_corners: i (h - 1) / (size - 1). crop: |a| (h - 1), and i times
    (|a| + |b|) (h - 1) / (size - 1).

    It is 0 where all is exact: with a power of two as scale the results are multiples of a power of two
    with fewer than 24 bits.
    """
    i, ratio, h = np.arange(axis.size, dtype=np.float64), float(1 / axis.ratio), axis.length
    across = (h - 1) / max(axis.size - 1, 1)
    symmetric = axis.coordinates == "half_pixel_symmetric"
    match axis.coordinates:
        case "asymmetric":
            terms = i * ratio
        case "align_corners":
            terms = i * across
        case "tf_crop_and_resize":
            a, b = abs(axis.roi[0]), abs(axis.roi[1])
            terms = 2 * a * (h - 1) + i * (a + b) * across + (a + b) * (h - 1)
        case _:
            terms = (i + 0.5) * ratio + 0.5
            if symmetric:
                terms = terms + h / 2 * (1 + axis.size * ratio / h)
    if _power_of_two(axis) and not (symmetric and axis.size != h * axis.ratio):
        return np.zeros(axis.size)
    if axis.coordinates == "align_corners" and (axis.size == 1 or h == 1):
        return np.zeros(axis.size)
    return terms * (gamma(6) * (1 + 2.0**-40)) + 2.0**-60


def _power_of_two(axis: Axis) -> bool:
    """Whether every step of the position is exact: the scale is a power of two, and nothing is too long."""
    if axis.coordinates in ("align_corners", CROP):
        return False
    n, d = axis.ratio.numerator, axis.ratio.denominator
    small = n & (n - 1) == 0 and d & (d - 1) == 0 and max(n, d) * max(axis.size, axis.length) < 1 << 22
    return small
