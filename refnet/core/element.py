"""One output element of a node, taken apart: what `Op.explain` returns.

Terms        a sum, a maximum, a copy: input elements, their places, their factors
Derivation   a root, an exponential: named steps, each exact and as plain computes it
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.core.engine import F32, F64, Pair, Places

Index = tuple[int, ...]
Number = Fraction | Decimal

DIGITS = 40
"""Decimal digits of a step that is no rational number."""


@dataclass(frozen=True)
class Terms:
    """What an element is made of: K values of one input, in plain order, each times a value of another.

    how: "fma" (a chain of fused multiply-adds from +0, the bias added last), "add" (additions), "multiply",
    "max" or "copy". values: (K,) and where they stand, (K, rank), in the input called `role`. factors: (K,)
    or None, with their place and role. bias: the value and its place. absent: places in the padding, which
    are no terms. divisor: what the sum is divided by.
    """

    how: str
    role: str
    values: F32
    places: Places
    factor_role: str = ""
    factors: F32 | None = None
    factor_places: Places | None = None
    bias: np.float32 | None = None
    bias_place: int = 0
    absent: tuple[Index, ...] = ()
    divisor: int = 1

    @property
    def products(self) -> F64:
        """(K,) the exact products: two float32 make no more than 48 bits."""
        wide = self.values.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity times 0 is NaN
            return wide if self.factors is None else wide * self.factors


@dataclass(frozen=True)
class Step:
    """A named step: its formula in words, its exact value, and what plain makes of it in float32."""

    symbol: str
    formula: str
    exact: Number
    plain: np.float32 | None = None


@dataclass(frozen=True)
class Derivation:
    """An element in steps, the last of which is the element. golden: its correctly rounded value.

    No steps where an input is no number.
    """

    steps: tuple[Step, ...]
    golden: np.float32


def given(symbol: str, formula: str, value: np.float32) -> Step:
    """The step of a float32 that is no rounded result: its exact value is itself."""
    return Step(symbol, formula, Fraction(float(value)), value)


def decimal(value: Fraction | float | np.float32) -> Decimal:
    """A number in the current decimal context."""
    if isinstance(value, Fraction):
        return Decimal(value.numerator) / Decimal(value.denominator)
    return Decimal(float(value))


@contextmanager
def forty_digits() -> Iterator[None]:
    """Decimal arithmetic in DIGITS digits."""
    with localcontext() as context:
        context.prec = DIGITS
        yield


class Windows(NamedTuple):
    """Where the windows of a sum lie in an image; pairs are (rows, columns).

    Window (i, j) reads the image from i * stride - pad on, every dilation-th element of `kernel`.
    """

    image: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def positions(self, axis: int, count: int) -> npt.NDArray[np.int64]:
        """(count, kernel[axis]): the image rows (axis 0) or columns (1) of the first windows, padding too."""
        first = np.arange(count, dtype=np.int64)[:, None] * self.stride[axis] - self.pad[axis]
        return first + np.arange(self.kernel[axis]) * self.dilation[axis]

    def inside(self, axis: int, count: int) -> npt.NDArray[np.bool_]:
        """(count, kernel[axis]): which of them lie in the image."""
        at = self.positions(axis, count)
        return (at >= 0) & (at < self.image[axis])

    def places(self, i: int, j: int) -> tuple[Places, tuple[Index, ...]]:
        """Window (i, j): (row, column, kernel row, kernel column) in the image, and (row, column) outside."""
        rows, columns = self.positions(0, i + 1)[i].tolist(), self.positions(1, j + 1)[j].tolist()
        inside, outside = [], []
        for p, row in enumerate(rows):
            for q, column in enumerate(columns):
                if 0 <= row < self.image[0] and 0 <= column < self.image[1]:
                    inside.append((row, column, p, q))
                else:
                    outside.append((row, column))
        return np.array(inside, np.int64).reshape(-1, 4), tuple(outside)
