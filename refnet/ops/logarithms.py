"""Logarithms of sums: log-softmax, and log-sum-exp and log-sum over axes.

The logarithm trusts no library, so its bits are the same everywhere: with s = f * 2**e, f near 1, l is
e log(2) and the series of log(f) in z = (f - 1) / (f + 1); r = s * exp(-l) - 1; and log(s) is l + log(1 + r).
The engine's exp is off by 2**-50 at most, so r by 2**-49 + 2 U64; log(1 + r) differs from r by r**2 at most.
Where r is not small, l was no logarithm, and everything is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction
from functools import partial
from math import log2
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.core.rounding import ETA, EXP_ABSOLUTE, EXP_ASSUMED, U64, U, exp_relative, gamma, outward
from refnet.ops.log_softmax import LOG_SOFTMAX_FORMULAS, log_softmax_by
from refnet.ops.reduce import _Reduce
from refnet.ops.row_sums import blocked_sums, depth, exact_sums

LOG_RELATIVE = 2.0**-22
"""Assumed accuracy of a framework's float32 log: relative error at most 4 U, besides LOG_ABSOLUTE."""
LOG_ABSOLUTE = 2.0**-24
LN2 = 0.6931471805599453
"""log(2), rounded to float64."""
LOG_ASSUMED = "a log of relative error 2^-22, absolute 2^-24"


@dataclass(frozen=True, repr=False)
class LogSoftmax(Op):
    """y[i] = x[i] - log(sum over j of exp(x[j])), along `axis`; with `trailing` over it and all after it

    Plain: m = the largest x; s = +0 + exp(x[0] - m) + exp(x[1] - m) + ...; y = (x - m) - log(s); the
    difference, each exp, each sum and the log rounded to float32.

    Bound, of that form and of x - (m + log(s)), any order: see `log_sum_bound`; the result passes three
    roundings of |x| + |m| + |log s|. Without the shift: as for Softmax, where all |x| + R <= 60. A log of a
    softmax is not covered: it loses what the softmax rounds off.

    Golden: correctly rounded. With d = x - m, in float64: d off by U64 |d|; s as for Softmax by a part of
    2**-44 + n 2**-51, log s by twice that and the error of the logarithm. A row of one finite element gives
    0. Otherwise y is transcendental (Lindemann-Weierstrass), and decimals decide what is open; where all
    but the largest exps sum to less than 2**-160, y is just below d. A NaN or +inf makes the row NaN; of
    -inf y is -inf.

    Source: ONNX LogSoftmax (trailing: before opset 13), torch.log_softmax.
    """

    axis: int = 1
    trailing: bool = False

    assumption: ClassVar[str] = f"{EXP_ASSUMED}, {LOG_ASSUMED}"
    formulas: ClassVar[Mapping[str, str]] = LOG_SOFTMAX_FORMULAS

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        with np.errstate(all="ignore"):
            y = log_softmax_by(formula, self._rows(inputs[0]), engine, total)
        return self._back(y, inputs[0].shape)

    def total_terms(self, *inputs: TensorType) -> int:
        shape = inputs[0].shape
        return TensorType(shape[self.axis :]).size if self.trailing else shape[self.axis]

    def total_places(self, *inputs: TensorType) -> tuple[Places, Places]:
        first = self._rows(np.arange(inputs[0].size).reshape(inputs[0].shape))[0]
        return first, first

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(0 <= self.axis < len(inputs[0].shape), f"axis outside of {inputs[0]!r}")
        return inputs[0]

    def _rows(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(rows, terms)."""
        moved = x if self.trailing else np.moveaxis(x, self.axis, -1)
        count = TensorType(x.shape[self.axis :]).size if self.trailing else x.shape[self.axis]
        return np.ascontiguousarray(moved).reshape(-1, count)

    def _back(self, y: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """What `_rows` made of a value of this shape, as the value."""
        if self.trailing:
            return y.reshape(shape)
        moved = (*shape[: self.axis], *shape[self.axis + 1 :], shape[self.axis])
        return np.ascontiguousarray(np.moveaxis(y.reshape(moved), -1, self.axis))

    def run(self, *inputs: F32, engine: Engine) -> F32:
        x = self._rows(inputs[0])
        with np.errstate(all="ignore"):
            d = x - x.max(1, keepdims=True)
            return self._back(d - _plain_log(_plain_sums(d, engine), engine)[:, None], inputs[0].shape)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        x = self._rows(inputs[0])
        wide = x.astype(np.float64)
        log_s, off, largest = _log_sum_exp(wide, exact.engine)
        with np.errstate(all="ignore"):
            d = wide - largest
            center = d - log_s
            error = off + 2 * U64 * (np.abs(d) + np.abs(center))
            center = np.where((wide == -np.inf) & np.isfinite(largest), -np.inf, center)

        def refine(at: Places, y: F32) -> None:
            for row in np.unique(at // x.shape[1]):
                sums = _Sums(x[row])
                for i in at[at // x.shape[1] == row]:
                    own = Fraction(float(x.flat[i])) - sums.largest
                    y.flat[i] = exact.nearest(sums.comparison(own, -1), float(center.flat[i]))

        y = exact.round_or_refine(
            type(self).__name__, center, np.where(np.isnan(error), np.inf, error), refine
        )
        return self._back(y, inputs[0].shape)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        numbers = self._rows(np.arange(inputs[0].size).reshape(inputs[0].shape))
        row, i = (int(k[0]) for k in np.nonzero(numbers == np.ravel_multi_index(at, inputs[0].shape)))
        x, golden = self._rows(inputs[0])[row], self.golden(*inputs, exact=exact)[at]
        steps = _steps(x, exact)
        if not steps:
            return Derivation((), golden)
        plain = self.run(*inputs, engine=exact.engine)[at]
        with forty_digits():
            true = decimal(x[i]) - _in_decimals(steps[0]) - _in_decimals(steps[-1])
        return Derivation((*steps, Step("y", f"(x - m) - l, x = {x[i]!s}", true, plain)), golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        x = Interval(self._rows(inputs[0].center), self._rows(inputs[0].radius))
        total, largest = log_sum_bound(x)
        with np.errstate(all="ignore"):
            log_s = total.center - largest
            center = x.center - largest - log_s
            sizes = x.magnitude + np.abs(largest) + np.abs(log_s)
            radius = x.radius + total.radius + (gamma(3) + 8 * U64) * sizes
        found = outward(center, radius, np.where(np.isfinite(center), sizes, np.nan))
        shape = inputs[0].center.shape
        return Interval(self._back(found.center, shape), self._back(found.radius, shape))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 5 * inputs[0].size)


@dataclass(frozen=True, repr=False)
class ReduceLogSumExp(_Reduce):
    """y = log(sum of exp(x) over `axes`)

    Plain: m = the largest x; s as for LogSoftmax; y = m + log(s), each rounded; m where it is infinite.

    Bound, with and without the shift by m, any order: see `log_sum_bound`, and one rounding of |m| + |log s|.

    Golden: correctly rounded, as LogSoftmax's logarithm; y = x for one finite element. -inf for -inf only,
    +inf for a +inf, NaN for a NaN.

    Source: ONNX ReduceLogSumExp, torch.logsumexp.
    """

    assumption: ClassVar[str] = f"{EXP_ASSUMED}, {LOG_ASSUMED}"

    def nan_propagates(self, *weights: F32) -> bool:
        return False

    def run(self, *inputs: F32, engine: Engine) -> F32:
        x = np.ascontiguousarray(self.terms_of(inputs[0]).T)
        m = x.max(1)
        with np.errstate(all="ignore"):
            y = m + _plain_log(_plain_sums(x - m[:, None], engine), engine)
        found: F32 = np.where(np.isinf(m), m, y)
        return found.reshape(self._shape(inputs[0]))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        x = np.ascontiguousarray(self.terms_of(inputs[0]).T)
        log_s, off, largest = _log_sum_exp(x.astype(np.float64), exact.engine)
        with np.errstate(all="ignore"):
            center = np.where(np.isinf(largest), largest, largest + log_s)[:, 0]
            error = off[:, 0] + 2 * U64 * np.abs(center)

        def refine(at: Places, y: F32) -> None:
            for i in at:
                sums = _Sums(x[i])
                y[i] = exact.nearest(sums.comparison(sums.largest, 1), float(center[i]))

        y = exact.round_or_refine(
            type(self).__name__, center, np.where(np.isnan(error), np.inf, error), refine
        )
        return y.reshape(self._shape(inputs[0]))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = self.values_at(inputs[0], at)
        golden, plain = self.golden(*inputs, exact=exact)[at], self.run(*inputs, engine=exact.engine)[at]
        steps = _steps(x, exact)
        if not steps:
            return Derivation((), golden)
        with forty_digits():
            true = _in_decimals(steps[0]) + _in_decimals(steps[-1])
        return Derivation((*steps, Step("y", "m + l", true, plain)), golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        shape = self._shape(x.center)
        total, largest = log_sum_bound(Interval(self.terms_of(x.center).T, self.terms_of(x.radius).T))
        with np.errstate(all="ignore"):
            sizes = np.abs(largest) + np.abs(total.center - largest)
            radius = total.radius + (gamma(1) + 8 * U64) * sizes
        found = outward(total.center, radius, np.where(np.isfinite(total.center), sizes, np.nan))
        return Interval(found.center.reshape(shape), found.radius.reshape(shape))


@dataclass(frozen=True, repr=False)
class ReduceLogSum(_Reduce):
    """y = log(sum of x over `axes`)

    Plain: the sum +0 + x0 + x1 + ..., then its log, rounded from the float64 one.

    Bound, any order: the sum s is off by e = gamma(n - 1) sum |x|, its log by -log(1 - e / |s|) and the
    accuracy assumed of log; nothing is promised from e = |s| on.

    Golden: the logarithm of the exact sum, correctly rounded: 0 for 1, otherwise it is transcendental.
    -inf for a sum of 0, NaN for a negative one.

    Source: ONNX ReduceLogSum.
    """

    assumption: ClassVar[str] = f"the bound assumes {LOG_ASSUMED}"

    def nan_propagates(self, *weights: F32) -> bool:
        return False

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return _plain_log(self._chain(inputs[0])[0], engine).reshape(self._shape(inputs[0]))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        x = np.ascontiguousarray(self.terms_of(inputs[0]).T)
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            s = blocked_sums(wide)[:, 0]
            relative = (depth(x.shape[1]) + 2) * U64 * blocked_sums(np.abs(wide))[:, 0] / np.abs(s)
            center, off = _log(s, exact.engine)
            error = np.where(relative < 2.0**-10, off + 2 * relative, np.inf)
            unsure = np.isfinite(wide).all(1) & ~(relative < 2.0**-10)  # the sign of the sum is open
            center = np.where(unsure, 0.0, center)

        def refine(at: Places, y: F32) -> None:
            for i in at:
                total = exact_sums(x[i])[0]
                if total <= 0:
                    y[i] = np.float32(-np.inf if total == 0 else np.nan)
                elif total == 1:
                    y[i] = np.float32(0)
                else:
                    y[i] = exact.by_decimals(partial(_decimal_log, total), float(center[i]))

        y = exact.round_or_refine(
            type(self).__name__, center, np.where(np.isnan(error), np.inf, error), refine
        )
        return y.reshape(self._shape(inputs[0]))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = self.values_at(inputs[0], at)
        golden, plain = self.golden(*inputs, exact=exact)[at], self.run(*inputs, engine=exact.engine)[at]
        total = exact_sums(x)[0] if np.isfinite(x).all() else Fraction(0)
        if total <= 0:
            return Derivation((), golden)
        sums = self._chain(inputs[0])[0].reshape(self._shape(inputs[0]))
        with forty_digits():
            true = decimal(total).ln()
        return Derivation(
            (Step("s", f"the sum of {x.size} x", total, sums[at]), Step("y", "log(s)", true, plain)), golden
        )

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        shape, n = self._shape(x.center), len(self.terms_of(x.center))
        with np.errstate(all="ignore"):
            s, spread, total = (
                self.terms_of(a).sum(0).reshape(shape) for a in (x.center, x.radius, x.magnitude)
            )
            moved = (spread + (gamma(n - 1) + (n + 2) * U64) * total) / s
            center = np.log(s)
            radius = (
                -np.log1p(-moved) + _log_error(np.abs(center) - np.log1p(-moved)) + 8 * U64 * np.abs(center)
            )
            known = (moved < 1) & (s > 0) & np.isfinite(center)
        return outward(center, np.where(known, radius, np.nan), np.where(known, total, np.nan), n)


def log_sum_bound(x: Interval) -> tuple[Interval, F64]:
    """Bound of log(sum of exp(x)) by rows, before the last addition of m; and m, (rows, 1).

    As for Softmax, with R the largest radius of the row: exp(x[j] - m) is off by a part r[j], absolute
    EXP_ABSOLUTE; the sum by a part q, the sum of y'[j] r[j] and gamma(n - 1) and n EXP_ABSOLUTE, doubled
    where it exceeds 2**-10, without a bound from 1/4 on. So log s is off by 2 q and by the accuracy assumed
    of log at |log s| (at |m| + |log s| for the form without the shift, where all |x| + R <= 60). Inputs in
    the radii move the result by R at most.
    """
    n = x.center.shape[1]
    with np.errstate(all="ignore"):
        largest = x.center.max(1, keepdims=True)
        shifted = x.center - largest
        e = np.exp(shifted)
        s = e.sum(1, keepdims=True)
        widest = x.radius.max(1, keepdims=True)
        argument = np.abs(shifted) + 2 * widest
        plain = np.abs(x.center) + widest
        unshifted = plain.max(1, keepdims=True) <= 60
        argument = np.where(unshifted, np.maximum(argument, plain), argument)
        most = e / s * np.exp(2 * widest)
        r = np.where(most > 0, most * (U * argument + exp_relative(argument)) * (1 + 2.0**-20), 0.0)
        q = r.sum(1, keepdims=True) + gamma(max(n - 1, 1)) + (n + 8) * U64 + n * EXP_ABSOLUTE
        q = np.where(q > 2.0**-10, 2 * q, q * (1 + 2.0**-8))
        log_s = np.log(s)
        size = np.abs(log_s) + widest + np.where(unshifted, np.abs(largest), 0.0)
        radius = 2 * q + _log_error(size) + widest + ETA
        radius = np.where((q < 0.25) & np.isfinite(largest), radius, np.nan)
    return Interval(largest + log_s, radius), largest


def _log_error(size: F64) -> F64:
    """The error assumed of a framework's log whose result is at most `size`, and one rounding."""
    found: F64 = (LOG_RELATIVE + U) * size + LOG_ABSOLUTE
    return found


def _plain_sums(d: F32, engine: Engine) -> F32:
    """(rows, n) -> (rows,): +0 + exp(d0) + exp(d1) + ..., each rounded."""
    powers = engine.exp(d.astype(np.float64)).astype(np.float32)
    total = np.zeros(len(d), np.float32)
    for column in powers.T:
        total += column
    return total


def _plain_log(s: F32, engine: Engine) -> F32:
    """The log of each, rounded from the float64 one."""
    found: F32 = _log(s.astype(np.float64), engine)[0].astype(np.float32)
    return found


def _series(s: F64) -> F64:
    """log(s) to about 2**-50, by additions, multiplications and divisions in one order."""
    f, e = np.frexp(s)
    small = f < np.sqrt(0.5)
    f, e = np.where(small, 2 * f, f), e - small
    z = (f - 1) / (f + 1)
    square, total = z * z, np.zeros_like(z)
    for k in range(19, -1, -2):
        total = total * square + 1 / k
    found: F64 = e * LN2 + 2 * z * total
    special = np.where(s > 0, s, np.where(s == 0, -np.inf, np.nan))
    return np.where((s > 0) & (s < np.inf), found, special)


def _log(s: F64, engine: Engine) -> tuple[F64, F64]:
    """log(s) and its error, as the head of this file says; exact exponents up to 128 only."""
    with np.errstate(all="ignore"):
        guess = _series(s)
        r = s * engine.exp(-guess) - 1
        error = 2.0**-48 + r * r + 2 * U64 * np.abs(guess)
        sure = np.abs(r) < 2.0**-10
        return guess + np.where(sure, r, 0.0), np.where(sure, error, np.inf)


def _log_sum_exp(x: F64, engine: Engine) -> tuple[F64, F64, F64]:
    """log(sum of exp(x - m)) by rows, its error, and m, (rows, 1) each."""
    with np.errstate(all="ignore"):
        largest = x.max(1, keepdims=True)
        s = engine.exp(x - largest).sum(1, keepdims=True)
        found, error = _log(s, engine)
        return found, error + 2 * (2.0**-44 + x.shape[1] * 2.0**-51), largest


class _Sums:
    """log(sum of exp(x - m)) of a row of finite numbers and -inf, to any number of digits."""

    def __init__(self, row: F32) -> None:
        values, counts = np.unique(row[row > -np.inf], return_counts=True)
        self.largest = Fraction(float(values[-1]))
        self.row = [(Decimal(float(v)), int(count)) for v, count in zip(values, counts, strict=True)]
        self.count = int(counts.sum())
        gap = float(values[-1]) - float(values[-2]) if values.size > 1 else np.inf
        self.alone = int(counts[-1]) == 1 and gap > 111 + log2(self.count)
        self._logs: dict[int, Decimal] = {}

    def comparison(self, own: Fraction, sign: int) -> Callable[[Fraction], int]:
        """The sign of own + sign * log(...) - m, by m, for own a multiple of 2**-149."""

        def compare(m: Fraction) -> int:
            gap = own - m
            if self.count == 1:
                return (gap > 0) - (gap < 0)
            if self.alone:  # the log lies between 0 and 2**-160, and gap is a multiple of 2**-150
                return (1 if gap > 0 else -1) if gap else sign
            digits = 40
            while True:
                total, error = self._log(digits)
                found = gap + sign * total
                if abs(found) > error:
                    return 1 if found > 0 else -1
                digits *= 2

        return compare

    def _log(self, digits: int) -> tuple[Fraction, Fraction]:
        """The log, and an upper bound of its error."""
        if digits not in self._logs:
            with localcontext() as context:
                context.prec, context.Emin, context.Emax = digits, -999999, 999999
                top = self.row[-1][0]
                total = sum(((v - top).exp() * count for v, count in self.row), Decimal(0))
                self._logs[digits] = total.ln()
        return Fraction(self._logs[digits]), Fraction(self.count, 10 ** (digits - 4))


def _decimal_log(s: Fraction) -> tuple[Decimal, Decimal]:
    """log(s) in the decimal context's precision, and a bound of its error."""
    value = decimal(s).ln()
    return value, (abs(value) + 1) * Decimal(10) ** (4 - getcontext().prec)


def _in_decimals(step: Step) -> Decimal:
    """A step's exact value."""
    return step.exact if isinstance(step.exact, Decimal) else decimal(step.exact)


def _steps(x: F32, exact: Exact) -> tuple[Step, ...]:
    """m, s and l = log(s) of a row; none where an element is no number."""
    if not np.isfinite(x).all():
        return ()
    largest = x.max()
    with np.errstate(all="ignore"):
        plain = _plain_sums((x - largest)[None], exact.engine)
    with forty_digits():
        s = sum(((decimal(v) - decimal(largest)).exp() for v in x), Decimal(0))
        return (
            given("m", f"the largest of {x.size} x", largest),
            Step("s", "the sum of all exp(x - m)", s, plain[0]),
            Step("l", "log(s)", s.ln(), _plain_log(plain, exact.engine)[0]),
        )
