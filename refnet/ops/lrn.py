"""Local response normalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, getcontext
from fractions import Fraction
from math import isqrt
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.rounding import ETA, U64, U, gamma, outward
from refnet.ops.row_sums import exact_sums

POW_ASSUMED = "the bound assumes a pow of relative error 2^-22 (1 + |beta log b|)"
LARGEST_BETA = 64.0


@dataclass(frozen=True, repr=False)
class LRN(Op):
    """y[n,c,...] = x[n,c,...] / b**beta, b = bias + alpha / size * (sum of x**2 over the channels near c)

    near: from c - (size - 1) // 2 to c + size // 2, those that exist; alpha is divided by size all the same.
    alpha >= 0, bias > 0, 0 <= beta <= 64, all three float64.

    Plain: +0 + x**2 + ... by channel; b = bias + alpha / size * that, each operation rounded, alpha / size
    too; y = x / p with p = b**beta in float64, by the roots of golden, rounded.

    Bound: b's terms pass size + 4 roundings, alpha's and bias's own among them, and a product that underflows
    loses ETA/2: b is off by a part q = gamma(size + 4) and size * ETA / b. b**-beta is off by
    (1 - q)**-beta - 1, by beta's rounding, U |beta log b|, and by the accuracy assumed of pow, relative
    2**-22 (1 + |beta log b|), which holds for exp(beta log b) too; y by gamma(3) more. Inputs in their radii
    r move b by alpha / size * sum (2 |x| + r) r. From q = 1/2 on there is no bound.

    Golden: correctly rounded. beta = p / 2**k is a binary fraction: b**beta is a product of roots of roots,
    each correctly rounded in float64: b is off by (size + 5) U64 of itself, b**beta by that times beta and
    4 U64 for each of its factors. If b is a rational to the power of 2**k, y is rational; otherwise it is
    irrational, and decimals decide what is open. An infinity among the x gives 0 or NaN.

    Source: ONNX LRN, torch.nn.LocalResponseNorm.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    assumption: ClassVar[str] = POW_ASSUMED

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(self.size >= 1, "size >= 1")
        self._expect(0 <= self.alpha < np.inf and 0 < self.bias < np.inf, "alpha >= 0 and bias > 0")
        self._expect(0 <= self.beta <= LARGEST_BETA, f"beta from 0 to {LARGEST_BETA}")
        self._expect(len(inputs[0].shape) >= 2, f"data must have a batch and channels, got {inputs[0]!r}")
        return inputs[0]

    def _near(self, c: int, channels: int) -> slice:
        """The channels near c."""
        return slice(max(c - (self.size - 1) // 2, 0), min(c + self.size // 2 + 1, channels))

    def _sums(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """+0 and x of each channel nearby, in turn; x's dtype."""
        total = np.zeros_like(x)
        for c in range(x.shape[1]):
            near = self._near(c, x.shape[1])
            for k in range(near.start, near.stop):
                total[:, c] += x[:, k]
        return total

    def _nearby(self, x: F32, at: Index) -> F32:
        """The x that make the sum at an element."""
        near: F32 = np.moveaxis(x, 1, -1)[(at[0], *at[2:])][self._near(at[1], x.shape[1])]
        return near

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        with np.errstate(all="ignore"):
            b = np.float32(self.bias) + np.float32(self.alpha / self.size) * self._sums(x * x)
            power = _power(b.astype(np.float64), Fraction(self.beta))[0].astype(np.float32)
            y: F32 = x / power
        return y

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        (x,) = inputs
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            b = self.bias + self.alpha * self._sums(wide * wide) / self.size
            power, factors = _power(b, Fraction(self.beta))
            center = wide / power
            error = np.abs(center) * (((self.size + 6) * (self.beta + 1) + 4 * factors + 4) * U64)
            error = np.where((center == 0) & (x != 0), np.inf, error)  # it underflowed
            error = np.where(np.isinf(b), 0.0, error)

        def refine(at: Places, y: F32) -> None:
            for i in at:
                near = self._nearby(x, tuple(map(int, np.unravel_index(i, x.shape))))
                under = Fraction(self.bias) + Fraction(self.alpha) / self.size * exact_sums(near)[1]
                y.flat[i] = self._rounded(exact, Fraction(float(x.flat[i])), under, float(center.flat[i]))

        return exact.round_or_refine(type(self).__name__, center, error, refine)

    def _rounded(self, exact: Exact, x: Fraction, b: Fraction, guess: float) -> np.float32:
        """x / b**beta, correctly rounded."""
        beta = Fraction(self.beta)
        found: Fraction | None = b
        for _ in range(beta.denominator.bit_length() - 1):
            found = None if found is None else _root(found)
        if found is not None:
            return exact.rounded(x / found**beta.numerator)
        return exact.by_decimals(_quotient(x, b, beta), guess)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x, golden = inputs[0], self.golden(*inputs, exact=exact)[at]
        near = self._nearby(x, at)
        if not np.isfinite(near).all():
            return Derivation((), golden)
        squares = exact_sums(near)[1]
        b = Fraction(self.bias) + Fraction(self.alpha) / self.size * squares
        with np.errstate(all="ignore"):
            plain, y = self._sums(x * x)[at], self.run(x, engine=exact.engine)[at]
            b_plain = np.float32(self.bias) + np.float32(self.alpha / self.size) * plain
        with forty_digits():
            power = (Decimal(self.beta) * decimal(b).ln()).exp()
            steps = (
                given("x", "the input element", x[at]),
                Step("s", f"the sum of {near.size} x * x", squares, plain),
                Step("b", f"bias + alpha / size * s, alpha = {self.alpha!r}, size = {self.size}", b, b_plain),
                Step("y", f"x / b**{self.beta!r}", decimal(x[at]) / power, y),
            )
        return Derivation(steps, golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        scale = self.alpha / self.size
        with np.errstate(all="ignore"):
            b = self.bias + scale * self._sums(np.square(x.center))
            moved = scale * self._sums((2 * np.abs(x.center) + x.radius) * x.radius)
            squares = self._sums(np.square(x.magnitude))
            g = gamma(self.size + 4)
            q = (moved + (g + (self.size + 8) * U64) * (b + moved) + (self.size + 2) * ETA) / b
            grown = np.power(1 - q, -self.beta) - 1
            log_b = self.beta * (np.abs(np.log(b)) + q * 2)
            off = grown + (1 + grown) * ((2.0**-22 + 2 * U) * (1 + log_b) + gamma(3)) * (1 + 2.0**-10)
            center = x.center * np.power(b, -self.beta)
            part = np.power(b, -self.beta)
            radius = np.abs(center) * off + x.radius * part * (1 + off) + (x.magnitude + 2) * ETA
            radius = np.where(q < 0.5, radius, np.nan)
            middle = part * (1 + off) + np.power(b, self.beta) * (1 + off)
        largest = squares + b + moved + middle + np.abs(center) + radius
        return outward(center, radius, largest, self.size + 8)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, (self.size + 6) * inputs[0].size)


def _power(b: F64, beta: Fraction) -> tuple[F64, int]:
    """b**beta for beta = p / 2**k, and the number of its factors: squares of b and roots of roots."""
    whole, part = divmod(beta, 1)
    found, factors, square = np.ones_like(b), 0, b
    for bit in bin(int(whole))[:1:-1]:
        if bit == "1":
            found, factors = found * square, factors + 8
        square = square * square
    root = b
    while part:
        root, part = np.sqrt(root), part * 2
        if part >= 1:
            found, factors, part = found * root, factors + 1, part - 1
    return found, factors + int(whole)


def _root(value: Fraction) -> Fraction | None:
    """The root of a rational, if it is rational."""
    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    return Fraction(top, bottom) if Fraction(top, bottom) ** 2 == value else None


def _quotient(x: Fraction, b: Fraction, beta: Fraction) -> Callable[[], tuple[Decimal, Decimal]]:
    """x / b**beta in the decimal context's precision, and a bound of its error."""

    def evaluate() -> tuple[Decimal, Decimal]:
        exponent = decimal(beta) * decimal(b).ln()
        value = decimal(x) / exponent.exp()
        return value, abs(value) * (1 + abs(exponent)) * Decimal(10) ** (4 - getcontext().prec)

    return evaluate
