"""Normalisations whose mean and variance come from the data: of layers, groups, instances, and by the RMS.

_Normalised   rows of x, a scale and a shift ── plain, golden, bound, explain
  ├── LayerNorm, GroupNorm, InstanceNorm     which elements make a row; mean and variance
  └── RMSNorm                                the mean square only
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.core.rounding import U64
from refnet.ops.normalised_bound import normalised_bound
from refnet.ops.normalised_formulas import (
    GROUP_FORMULAS,
    INSTANCE_FORMULAS,
    LAYER_FORMULAS,
    layer_by,
    scaled_by,
)
from refnet.ops.row_sums import blocked_sums, depth, exact_sums, row_means

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, repr=False)
class _Normalised(Op):
    """Base: y = (x - m) / sqrt(v + eps) * gamma + beta by rows of n elements, of mean m and variance v.

    A row's elements are adjacent in memory. The last inputs may be weights; `constants` has their shapes.

    Plain: m = (+0 + x0 + x1 + ...) / n; d = x - m; v = the same mean of d * d; y = d / sqrt(v + eps) * gamma
    + beta; each operation rounded, eps too.

    Golden, with S = sum x and Q = sum x**2: y = gamma (n x - S) / sqrt(n Q - S**2 + n**2 eps) + beta, rounded
    once; eps is the exact float64. A root of 0 (eps = 0, equal elements) gives NaN, and so does a row that
    holds a NaN or an infinity.
    In float64: m1, the rounded mean; x - m1 = d1 + l1 without error (TwoSum); c, the mean of d1 + l1;
    d = d1 + (l1 - c), off by U64 |d| + k with k = (N + 4) U64 mean|d1| + 2 U64 (U64 max|d1| + |c|), N the
    additions that a term passes. So a mean far from 0 costs nothing. The root is a norm of d divided by
    sqrt(n): it is off by k + U64 of itself, and relative (N / 2 + 4) U64 for its own roundings. y by
    (|y - beta| ((N / 2 + 10) U64 + k / s) + k |gamma| / s + U64 |y|) (1 + 2**-20). What that leaves open is
    compared with midpoints in rational arithmetic, both sides squared.
    """

    eps: float

    centred: ClassVar[bool] = True

    roles: ClassVar[tuple[str, ...]] = ("data", "gamma", "beta")

    @property
    def stored(self) -> Shapes:
        """The shapes of those trailing inputs that are weights."""
        raise NotImplementedError

    @property
    def shifted(self) -> bool:
        """Whether there is a beta."""
        return True

    def row_length(self, shape: tuple[int, ...]) -> int:
        """The number of elements of a row of x."""
        raise NotImplementedError

    def stretched(self, w: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """gamma or beta, one number per element of x."""
        return np.broadcast_to(w, shape)

    def weight_roles(self) -> tuple[str, ...]:
        names = self.roles[: 2 + self.shifted]
        return names[len(names) - len(self.stored) :]

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        self._expect(len(self.stored) < 2 + self.shifted, "x is no weight")
        return tuple(map(TensorType, self.stored))

    def nan_propagates(self, *weights: F32) -> bool:
        known = len(weights) == 1 + self.shifted and all(bool(np.isfinite(w).all()) for w in weights)
        return known and self.eps > 0

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2 + self.shifted)
        count = len(inputs) - len(self.stored)
        self._expect(inputs[count:] == self.weight_types(), f"weights are {list(inputs[count:])}")
        self._expect(0 <= self.eps < np.inf, "eps must be a number from 0 on")
        x = inputs[0]
        self._check(x.shape)
        for role, w in zip(self.roles[1:], inputs[1:], strict=False):
            self._expect(self._fits(w.shape, x.shape), f"{role} is {w!r}, data {x!r}")
        return x

    def _check(self, shape: tuple[int, ...]) -> None:
        """GraphError unless x may have this shape."""

    def _fits(self, w: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether gamma or beta may have the shape w."""
        try:
            return np.broadcast_shapes(w, shape) == shape
        except ValueError:
            return False

    def _by_rows(self, *inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """All inputs as (rows, n)."""
        x = np.ascontiguousarray(inputs[0])
        wide = [x, *(self.stretched(w, x.shape) for w in inputs[1:])]
        return [a.reshape(-1, self.row_length(x.shape)) for a in wide]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        x, scale, *shift = self._by_rows(*inputs)
        with np.errstate(all="ignore"):
            d = x - row_means(x, engine) if self.centred else x
            y: F32 = d / np.sqrt(row_means(d * d, engine) + np.float32(self.eps)) * scale
            if shift:
                y += shift[0]
        return y.reshape(inputs[0].shape)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        x, scale, *shift = self._by_rows(*inputs)
        n = x.shape[1]
        center, error = self._center(*(a.astype(np.float64) for a in (x, scale, *shift)))

        def refine(at: Places, y: F32) -> None:
            flat, shifts = y.reshape(-1), shift[0].reshape(-1) if shift else None
            for row in np.unique(at // n):
                total, squares = exact_sums(x[row])
                total = total if self.centred else Fraction(0)
                under = n * squares - total * total + n * n * Fraction(self.eps)
                for i in at[at // n == row]:
                    apart = n * Fraction(float(x.flat[i])) - total
                    own = float(scale.flat[i]), 0.0 if shifts is None else float(shifts[i])
                    flat[i] = _rounded(exact, apart, under, *own, float(center.flat[i]))

        return exact.round_or_refine(type(self).__name__, center, error, refine).reshape(inputs[0].shape)

    def _center(self, x: F64, scale: F64, *shift: F64) -> tuple[F64, F64]:
        """y in float64, and its error."""
        n = x.shape[1]
        additions = depth(n)
        with np.errstate(all="ignore"):
            d, k = x, np.zeros((len(x), 1))
            if self.centred:
                first = blocked_sums(x) / n
                d1 = x - first
                back = d1 - x
                l1 = (x - (d1 - back)) - (first + back)
                c = (blocked_sums(d1) + blocked_sums(l1)) / n
                d = d1 + (l1 - c)
                sizes = np.abs(d1)
                k = (additions + 4) * U64 * sizes.mean(1, keepdims=True)
                k += 2 * U64 * (U64 * sizes.max(1, keepdims=True) + np.abs(c))
            s = np.sqrt(blocked_sums(np.square(d)) / n + self.eps)
            moving = d / s * scale
            relative = (additions / 2 + 10) * U64 + np.where(k > 0, k / s, 0.0)
            y = moving + shift[0] if shift else moving
            error = (np.abs(moving) * relative + k * np.abs(scale) / s + U64 * np.abs(y)) * (1 + 2.0**-20)
            error = np.where(relative < 2.0**-20, error, np.inf)
            error[d == 0] = np.where(k > 0, error, 0.0)[d == 0]
            unsigned = np.isinf(scale) & np.isfinite(d) & np.isfinite(s)  # only the exact sign of x - m tells
        return np.where(unsigned, 0.0, y), np.where(unsigned, np.inf, error)

    def _scaled_by(self, formula: str, *inputs: F32, engine: Engine) -> F32:
        """The value by a formula of normalised_formulas.scaled_by."""
        self._expect_formula(formula)
        x, scale, shift = self._by_rows(*inputs)
        with np.errstate(all="ignore"):
            y = scaled_by(formula, x, scale, shift, self.eps, engine)
        return y.reshape(inputs[0].shape)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x, scale, *shift = self._by_rows(*inputs)
        row, i = divmod(int(np.ravel_multi_index(at, inputs[0].shape)), x.shape[1])
        n, engine, values = x.shape[1], exact.engine, x[row]
        golden = self.golden(*inputs, exact=exact)[at]
        own = [a[row, i] for a in (scale, *shift)]
        if not np.isfinite([*values, *own]).all():
            return Derivation((), golden)
        total, squares = exact_sums(values)
        total = total if self.centred else Fraction(0)
        m, v = total / n, squares / n - (total / n) ** 2
        m_plain = row_means(values[None], engine)[0, 0] if self.centred else np.float32(0)
        with np.errstate(all="ignore"):
            d = values - m_plain
            v_plain = row_means((d * d)[None], engine)[0, 0]
            r_plain = np.sqrt(v_plain + np.float32(self.eps))
            plain = [d[i] / r_plain, d[i] / r_plain * own[0]]
        if v + Fraction(self.eps) == 0:
            return Derivation((), golden)
        what = "(x - m)^2" if self.centred else "x^2"
        with forty_digits():
            root = decimal(v + Fraction(self.eps)).sqrt()
            t = decimal(Fraction(float(values[i])) - m) / root
            steps = [given("x", "the input element", values[i])]
            if self.centred:
                steps.append(Step("m", f"the mean of {n} x", m, m_plain))
            steps += [
                Step("v", f"the mean of {n} {what}", v, v_plain),
                Step("r", f"sqrt(v + eps), eps = {self.eps!r}", root, r_plain),
                Step("t", "(x - m) / r" if self.centred else "x / r", t, plain[0]),
            ]
            product, scaled = t * decimal(own[0]), f"t * gamma, gamma = {own[0]!s}"
            steps.append(Step("p" if shift else "y", scaled, product, plain[1]))
            if shift:
                y = product + decimal(own[1])
                steps.append(Step("y", f"p + beta, beta = {own[1]!s}", y, np.float32(plain[1] + own[1])))
        return Derivation(tuple(steps), golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        centers = self._by_rows(*(a.center for a in inputs))
        radii = self._by_rows(*(a.radius for a in inputs))
        x, scale, *shift = (Interval(c, r) for c, r in zip(centers, radii, strict=True))
        found = normalised_bound(x, scale, shift[0] if shift else None, self.eps, self.centred)
        shape = inputs[0].center.shape
        return Interval(found.center.reshape(shape), found.radius.reshape(shape))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, (5 + 2 * self.centred + self.shifted) * inputs[0].size)


def _rounded(
    exact: Exact, apart: Fraction, under: Fraction, scale: float, shift: float, guess: float
) -> np.float32:
    """scale * apart / sqrt(under) + shift, correctly rounded; scale may be infinite, shift is finite."""
    if under == 0 or (np.isinf(scale) and apart == 0):
        return np.float32(np.nan)
    if np.isinf(scale):
        return np.float32(scale * ((apart > 0) - (apart < 0)) + shift)
    left, constant = Fraction(scale) * apart, Fraction(shift)
    return exact.nearest(_comparison(left, under, constant), guess if np.isfinite(guess) else 0.0)


def _comparison(left: Fraction, under: Fraction, shift: Fraction) -> Callable[[Fraction], int]:
    """The sign of left / sqrt(under) + shift - m, by m: left > (m - shift) sqrt(under), both squared."""

    def compare(m: Fraction) -> int:
        right = m - shift
        a, b = left * abs(left), right * abs(right) * under
        return (a > b) - (a < b)

    return compare


@dataclass(frozen=True, repr=False)
class LayerNorm(_Normalised):
    """y = (x - m) / sqrt(v + eps) * gamma + beta, mean m and variance v over `axis` and all axes after it

    v is the mean of (x - m)**2: divided by n, not n - 1. gamma and beta broadcast to x; bias: whether there
    is a beta.

    Plain, golden: see `_Normalised`. Bound: see `normalised_bound`; it covers two passes, E[x**2] - m**2,
    Welford's formula and merged parts, in any order.

    Formulas: see `formulas`.

    Source: ONNX LayerNormalization, torch.nn.LayerNorm.
    """

    axis: int = 1
    bias: bool = True
    constants: Shapes = ()

    formulas: ClassVar[Mapping[str, str]] = LAYER_FORMULAS

    @property
    def stored(self) -> Shapes:
        return self.constants

    @property
    def shifted(self) -> bool:
        return self.bias

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0

    def _check(self, shape: tuple[int, ...]) -> None:
        self._expect(0 <= self.axis < len(shape), f"axis outside of {list(shape)}")

    def row_length(self, shape: tuple[int, ...]) -> int:
        return prod(shape[self.axis :])

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        x, scale, *shift = self._by_rows(*inputs)
        with np.errstate(all="ignore"):
            y = layer_by(formula, x, scale, shift[0] if shift else None, self.eps, engine)
        return y.reshape(inputs[0].shape)


@dataclass(frozen=True, repr=False)
class RMSNorm(_Normalised):
    """y = x / sqrt(q + eps) * gamma, q the mean of x**2 over `axis` and all axes after it

    gamma broadcasts to x.

    Plain: q = (+0 + x0 * x0 + x1 * x1 + ...) / n; y = x / sqrt(q + eps) * gamma, each operation rounded.

    Golden: as for LayerNorm with a mean of 0; an infinity in a row gives NaN there and 0 for the other
    elements. Bound: see `normalised_bound`.

    Source: ONNX RMSNormalization, torch.nn.RMSNorm.
    """

    axis: int = 1
    constants: Shapes = ()

    centred: ClassVar[bool] = False

    @property
    def stored(self) -> Shapes:
        return self.constants

    @property
    def shifted(self) -> bool:
        return False

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0

    def _check(self, shape: tuple[int, ...]) -> None:
        self._expect(0 <= self.axis < len(shape), f"axis outside of {list(shape)}")

    def row_length(self, shape: tuple[int, ...]) -> int:
        return prod(shape[self.axis :])


@dataclass(frozen=True, repr=False)
class GroupNorm(_Normalised):
    """y[n,c,...] = (x - m) / sqrt(v + eps) * gamma[c] + beta[c], m and v of image n and the group of c

    The channels are split into `groups` of adjacent ones. per_group: gamma and beta have one number per group
    (ONNX opset 18), otherwise one per channel (opset 21, PyTorch).

    Plain, golden: see `_Normalised`. Bound: see `normalised_bound`.

    Formulas: see `formulas`.

    Source: ONNX GroupNormalization, torch.nn.GroupNorm.
    """

    groups: int = 1
    per_group: bool = False
    constants: Shapes = ()

    formulas: ClassVar[Mapping[str, str]] = GROUP_FORMULAS

    @property
    def stored(self) -> Shapes:
        return self.constants

    def _check(self, shape: tuple[int, ...]) -> None:
        fits = self.groups >= 1 and len(shape) >= 2 and shape[1] % self.groups == 0
        self._expect(fits, f"cannot make {self.groups} groups of the channels of {list(shape)}")

    def row_length(self, shape: tuple[int, ...]) -> int:
        return prod(shape[1:]) // self.groups

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        return self._scaled_by(formula, *inputs, engine=engine)

    def _fits(self, w: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        return w == ((self.groups if self.per_group else shape[1]),)

    def stretched(self, w: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        per_channel = np.repeat(w, shape[1] // self.groups) if self.per_group else w
        return np.broadcast_to(per_channel.reshape(-1, *[1] * (len(shape) - 2)), shape)


@dataclass(frozen=True, repr=False)
class InstanceNorm(_Normalised):
    """y[n,c,...] = (x - m) / sqrt(v + eps) * gamma[c] + beta[c], mean m and variance v of x[n,c]

    Plain, golden: see `_Normalised`. Bound: see `normalised_bound`.

    Formulas: see `formulas`.

    Source: ONNX InstanceNormalization, torch.nn.InstanceNorm2d without running statistics.
    """

    constants: Shapes = ()

    formulas: ClassVar[Mapping[str, str]] = INSTANCE_FORMULAS

    @property
    def stored(self) -> Shapes:
        return self.constants

    def _check(self, shape: tuple[int, ...]) -> None:
        self._expect(len(shape) >= 3, f"data must have a batch, channels and positions, got {list(shape)}")

    def row_length(self, shape: tuple[int, ...]) -> int:
        return prod(shape[2:])

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        return self._scaled_by(formula, *inputs, engine=engine)

    def _fits(self, w: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        return w == (shape[1],)

    def stretched(self, w: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        return np.broadcast_to(w.reshape(-1, *[1] * (len(shape) - 2)), shape)
