"""Norms, sums of squares and products over axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.rounding import ETA, U64, U, gamma, outward
from refnet.ops.reduce import _Reduce
from refnet.ops.row_sums import blocked_sums, depth, exact_sums


@dataclass(frozen=True, repr=False)
class ReduceL1(_Reduce):
    """y = the sum of |x| over `axes`

    Plain: +0 + |x0| + |x1| + ... in row order.

    Bound, any order: gamma(n - 1) * sum |x|; additions do not underflow.

    Golden: the exact sum, rounded once, as for ReduceSum.

    Source: ONNX ReduceL1, torch.linalg.vector_norm(x, 1).
    """

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return self._chain(np.abs(inputs[0]))[0].reshape(self._shape(inputs[0]))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        terms = self.terms_of(np.abs(inputs[0]))
        return exact.sum(type(self).__name__, terms).reshape(self._shape(inputs[0]))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        return _explained(self, inputs[0], at, exact, "|x|", abs)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        shape, n = self._shape(x.center), len(self.terms_of(x.center))
        with np.errstate(all="ignore"):
            arrays = (np.abs(x.center), x.radius, x.magnitude)
            center, spread, total = (self.terms_of(a).sum(0).reshape(shape) for a in arrays)
            return outward(center, spread + (gamma(n - 1) + n * U64) * total, total, n)


@dataclass(frozen=True, repr=False)
class ReduceSumSquare(_Reduce):
    """y = the sum of x * x over `axes`

    Plain: +0 + x0 * x0 + x1 * x1 + ... in row order, each operation rounded.

    Bound, any order, with or without FMA: gamma(n) * sum x**2 + n * ETA/2 for products that underflow.

    Golden: the exact sum, rounded once; a product of two float32 is exact in float64.

    Source: ONNX ReduceSumSquare.
    """

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            squares = np.square(inputs[0])
        return self._chain(squares)[0].reshape(self._shape(inputs[0]))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        terms = self.terms_of(inputs[0])[None]  # (1, terms, sums)
        return exact.weighted_sum(type(self).__name__, terms, terms[..., None]).reshape(
            self._shape(inputs[0])
        )

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        return _explained(self, inputs[0], at, exact, "x * x", lambda v: v * v)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        shape = self._shape(inputs[0].center)
        center, spread, total, n = _squares(self, inputs[0])
        radius = spread + (gamma(n) + (n + 2) * U64) * total + n * ETA / 2 * (1 + gamma(n))
        return outward(center.reshape(shape), radius.reshape(shape), total.reshape(shape), n)


@dataclass(frozen=True, repr=False)
class ReduceL2(_Reduce):
    """y = sqrt(sum of x * x over `axes`)

    Plain: the sum of ReduceSumSquare's plain order, then its root.

    Bound: the sum s is off by e = gamma(n) s + n ETA/2, its root by e / sqrt(s) and by sqrt(e), and the root
    rounds once. With inputs in the radii r the norm moves by the norm of r. Forms that scale x first are not
    covered.

    Golden: the exact root, rounded once. In float64 the sum is off by (N + 1) U64 of itself, N the additions
    that a term passes, and the root by (N / 2 + 2) U64; what is open is decided by s > m**2.

    Source: ONNX ReduceL2, torch.linalg.vector_norm.
    """

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            squares = np.square(inputs[0])
            return np.asarray(np.sqrt(self._chain(squares)[0])).reshape(self._shape(inputs[0]))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        rows = np.ascontiguousarray(self.terms_of(inputs[0]).T)  # (sums, terms)
        with np.errstate(all="ignore"):
            center = np.sqrt(blocked_sums(np.square(rows.astype(np.float64))))[:, 0]
            error = center * ((depth(rows.shape[1]) / 2 + 4) * U64)

        def refine(at: Places, y: F32) -> None:
            for i in at:
                y[i] = exact.nearest(_root_comparison(exact_sums(rows[i])[1]), float(center[i]))

        y = exact.round_or_refine(type(self).__name__, center, error, refine)
        return y.reshape(self._shape(inputs[0]))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        squares = ReduceSumSquare(self.axes, self.keepdims).explain(*inputs, at=at, exact=exact)
        golden = self.golden(*inputs, exact=exact)[at]
        if not squares.steps:
            return Derivation((), golden)
        last = squares.steps[-1]
        with forty_digits():
            true = decimal(Fraction(last.exact)).sqrt()
        plain = self.run(*inputs, engine=exact.engine)[at]
        s = Step("s", last.formula, last.exact, last.plain)
        return Derivation((s, Step("y", "sqrt(s)", true, plain)), golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        shape = self._shape(x.center)
        center, _, total, n = _squares(self, x)
        with np.errstate(all="ignore"):
            moved = np.sqrt(np.square(self.terms_of(x.radius)).sum(0))
            root, most = np.sqrt(center), np.sqrt(total)
            off = (gamma(n) + (n + 2) * U64) * total + n * ETA
            low = np.maximum(root - moved, 0.0)
            error = np.fmin(off / low, np.sqrt(off))
            radius = (moved + error) * (1 + 2 * U) + (U + 8 * U64) * most + ETA
        return outward(root.reshape(shape), radius.reshape(shape), total.reshape(shape), n + 1)


@dataclass(frozen=True, repr=False)
class ReduceProd(_Reduce):
    """y = the product of x over `axes`

    Plain: 1 * x0 * x1 * ... in row order, each product rounded.

    Bound, any order: gamma(n - 1) * product |x|, and (n - 1) ETA/2 times the product of what is above 1, for
    partial products that underflow. Where that product overflows some order may, and nothing is promised.

    Golden: the exact product, rounded once. In float64 the mantissas are multiplied and the exponents added:
    off by n U64 of the product; what is open is multiplied exactly.

    Source: ONNX ReduceProd, torch.prod.
    """

    def run(self, *inputs: F32, engine: Engine) -> F32:
        terms = self.terms_of(inputs[0])
        total = np.ones(terms.shape[1], np.float32)
        with np.errstate(all="ignore"):
            for term in terms:
                total *= term
        return total.reshape(self._shape(inputs[0]))

    def nan_propagates(self, *weights: F32) -> bool:
        return False

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        terms = self.terms_of(inputs[0])
        mantissa, exponent = np.ones(terms.shape[1]), np.zeros(terms.shape[1], np.int64)
        with np.errstate(all="ignore"):
            for term in terms:
                mantissa, more = np.frexp(mantissa * term)
                exponent += more
            center = np.ldexp(mantissa, np.clip(exponent, -2000, 2000).astype(np.int32))
            beyond = np.isinf(center) & np.isfinite(terms).all(0)
            center = np.where(beyond, np.copysign(2.0**1000, center), center)
        error = np.abs(center) * (len(terms) + 2) * U64 + np.where(mantissa == 0, 0.0, 2.0**-1070)

        def refine(at: Places, y: F32) -> None:
            for i in at:
                y[i] = exact.rounded(prod(map(Fraction, terms[:, i].tolist()), start=Fraction(1)))

        y = exact.round_or_refine(type(self).__name__, center, error, refine)
        return y.reshape(self._shape(inputs[0]))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        values, y = self.values_at(inputs[0], at), self.run(*inputs, engine=exact.engine)[at]
        golden = self.golden(*inputs, exact=exact)[at]
        if not np.isfinite(values).all():
            return Derivation((), golden)
        true = prod(map(Fraction, values.tolist()), start=Fraction(1))
        return Derivation((Step("y", f"the product of {values.size} x", true, y),), golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        shape = self._shape(x.center)
        with np.errstate(all="ignore"):
            center, own, size = (self.terms_of(a).prod(0) for a in (x.center, np.abs(x.center), x.magnitude))
            above = np.maximum(self.terms_of(x.magnitude), 1.0).prod(0)
            n = len(self.terms_of(x.center))
            radius = (size - own) + (gamma(n - 1) + 4 * n * U64) * size + n * ETA * above
            radius = np.where(above < np.inf, radius, np.nan)
        return outward(center.reshape(shape), radius.reshape(shape), above.reshape(shape), n)


@dataclass(frozen=True, repr=False)
class LpNorm(Op):
    """y = x / s along `axis`, s = sqrt(sum of x * x) for p = 2, the sum of |x| for p = 1; 0 where s = 0

    Plain: s as ReduceL1 and ReduceL2 have it, then one division.

    Bound: that of the norm s, then of the quotient: with |s| > rs for its radius rs, which holds its
    rounding, (r + |y| rs) / (s - rs), and U of the largest and ETA/2; a rounded 1/s is covered by one U more.

    Golden: the exact quotient, rounded once. In float64 s is off by
    (N + 3) U64 of itself. What is open is decided in rational arithmetic, for p = 2 by squares.

    Source: ONNX LpNormalization, torch.nn.functional.normalize without its eps.
    """

    axis: int = 1
    p: int = 2

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0

    @property
    def _norm(self) -> ReduceL1 | ReduceL2:
        return ReduceL1((self.axis,)) if self.p == 1 else ReduceL2((self.axis,))

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(self.p in (1, 2), "p must be 1 or 2")
        self._expect(0 <= self.axis < len(inputs[0].shape), f"axis outside of {inputs[0]!r}")
        return inputs[0]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            s = self._norm.run(*inputs, engine=engine)
            return np.where(s == 0, np.float32(0), inputs[0] / s)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        moved = np.moveaxis(inputs[0], self.axis, -1)
        x = np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            total = blocked_sums(np.abs(wide) if self.p == 1 else np.square(wide))
            center = wide / (total if self.p == 1 else np.sqrt(total))
            error = np.abs(center) * ((depth(x.shape[1]) + 6) * U64)
            center[(total == 0)[:, 0]] = 0.0
            error[~np.isfinite(center) | ~np.isfinite(total) | (total == 0)] = 0.0

        def refine(at: Places, y: F32) -> None:
            for i in at:
                row, value = x[i // x.shape[1]], Fraction(float(x.flat[i]))
                if self.p == 1:
                    y.flat[i] = exact.rounded(value / exact_sums(np.abs(row))[0])
                    continue
                squares = exact_sums(row)[1]

                def compare(m: Fraction, v: Fraction = value, s: Fraction = squares) -> int:
                    a, b = v * abs(v), m * abs(m) * s
                    return (a > b) - (a < b)

                y.flat[i] = exact.nearest(compare, float(center.flat[i]))

        y = exact.round_or_refine(type(self).__name__, center, error, refine)
        return np.ascontiguousarray(np.moveaxis(y.reshape(moved.shape), -1, self.axis))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        golden = self.golden(*inputs, exact=exact)[at]
        place = (*at[: self.axis], 0, *at[self.axis + 1 :])
        norm = self._norm.explain(*inputs, at=place, exact=exact)
        if not norm.steps or norm.steps[-1].exact == 0:
            return Derivation((), golden)
        last, x = norm.steps[-1], inputs[0][at]
        with forty_digits():
            size = decimal(last.exact) if isinstance(last.exact, Fraction) else last.exact
            true = decimal(x) / size
        steps = (
            given("x", "the input element", x),
            Step("r", last.formula, last.exact, last.plain),
            Step("y", "x / r", true, self.run(*inputs, engine=exact.engine)[at]),
        )
        return Derivation(steps, golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        s = self._norm.bound(x, engine=engine)
        with np.errstate(all="ignore"):
            center = x.center / s.center
            least = s.center - s.radius
            spread = np.where(least > 0, (x.radius + np.abs(center) * s.radius) / least, np.nan)
            total = np.abs(center) + spread
            radius = spread + (gamma(2) + 8 * U64) * total + (x.magnitude + 1) * ETA
            zero = x.magnitude.max(self.axis, keepdims=True) == 0
        found = outward(center, radius, np.maximum(total, 1 / least))
        return Interval(np.where(zero, 0.0, found.center), np.where(zero, 0.0, found.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 3 * inputs[0].size)


def _squares(op: _Reduce, x: Interval) -> tuple[F64, F64, F64, int]:
    """Sums of squares (sums,): of the center, how far the radii move it, of the magnitude; their terms."""
    center, radius = op.terms_of(x.center), op.terms_of(x.radius)
    with np.errstate(all="ignore"):
        spread = ((2 * np.abs(center) + radius) * radius).sum(0)
        total = np.square(np.abs(center) + radius).sum(0)
        return np.square(center).sum(0), spread, total, len(center)


def _root_comparison(s: Fraction) -> Callable[[Fraction], int]:
    """The sign of sqrt(s) - m, by m."""
    return lambda m: 1 if m < 0 else (s > m * m) - (s < m * m)


def _explained(
    op: _Reduce, x: F32, at: Index, exact: Exact, what: str, term: Callable[[Fraction], Fraction]
) -> Derivation:
    """A sum of `what` in one step."""
    values, golden = op.values_at(x, at), op.golden(x, exact=exact)[at]
    if not np.isfinite(values).all():
        return Derivation((), golden)
    true = sum((term(Fraction(v)) for v in values.tolist()), Fraction(0))
    y = op.run(x, engine=exact.engine)[at]
    return Derivation((Step("y", f"the sum of {values.size} {what}", true, y),), golden)
