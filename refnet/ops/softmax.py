"""Softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, getcontext
from fractions import Fraction
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.core.rounding import ETA, EXP_ABSOLUTE, EXP_ASSUMED, U64, U, exp_relative, gamma, outward

SOFTMAX_FORMULAS = {
    "sleef-divide": "SLEEF's expf, e / s (PyTorch with AVX2 or AVX-512, along an axis that is not the last)",
    "sleef-reciprocal": "SLEEF's expf, e * (1/s) (PyTorch with AVX2 or AVX-512, along the last axis)",
    "glibc-divide": "glibc's expf with FMA, e / s (MXNet's own softmax; PyTorch without AVX2, or one by one)",
    "glibc-reciprocal": "glibc's expf with FMA, e * (1/s) (PyTorch without AVX2, along the last axis)",
    "onednn-avx512": "oneDNN's exp, e * (1/s), 16 elements at a time (MXNet along the last axis)",
    "onednn-avx2": "oneDNN's exp, e * (1/s), 8 elements at a time",
    "onednn-sse41": "oneDNN's exp without FMA, e * (1/s), 4 elements at a time (AVX too)",
    "mlas-avx512": "MLAS's exp, e * (1/s) (ONNX Runtime with AVX-512)",
    "mlas-avx2": "MLAS's exp, 0 below about e**-87.68, e * (1/s) (ONNX Runtime with AVX2)",
}


@dataclass(frozen=True, repr=False)
class Softmax(Op):
    """y[i] = exp(x[i]) / sum over j of exp(x[j]), along `axis`; with `trailing` over it and all after it

    Plain: m = the largest x; e[j] = exp(x[j] - m), the difference and the exp each rounded to float32;
    s = +0 + e[0] + e[1] + ... in float32; y = e / s.

    Bound, with the shift by m, division or multiplication by a rounded 1/s, any order of the sum over n:
    with R the largest radius of the row, a shifted argument is at most |x - m| + 2 R and off by U times
    that, so e[j] is off by the relative r[j] = (U a + exp_relative(a))(1 + 2**-20) with a = |x[j] - m| + 2 R,
    and the absolute EXP_ABSOLUTE (see rounding.py). With y' = y exp(2 R), which no input in the radii
    exceeds, y[i] is off by y'[i] (r[i] + sum of y'[j] r[j] + gamma(n - 1) + gamma(2)) and (n + 1)
    EXP_ABSOLUTE; the relative part is doubled where it exceeds 2**-10, which covers every second-order
    term; from 1/4 on there is no bound. The exact values for inputs in the radii lie within y expm1(2 R).
    Without the shift the arguments are |x| instead of |x - m| in r, and exp must stay in range: the bound
    takes the larger of both where all |x| + R <= 60, and covers only the shifted form elsewhere.

    Golden: correctly rounded. In float64, with d = x - m rounded (off by 2**-46 where |d| <= 128; smaller
    exps are below every float32), exp off by 2**-50 and a sum of n: the relative 2**-44 + n 2**-51. If
    all x are equal the value is 1/n, which this decides for n < 2**18; otherwise it is transcendental
    (Lindemann-Weierstrass) and decimals of growing precision decide what is open. A NaN or +inf in a row
    makes the whole row NaN; exp(-inf) is 0.

    Formulas: see `formulas`; e = exp(x - m) by the named code, s their sum in the recipe's order (left to
    right without one). oneDNN compares as many elements at a time as its vectors hold, and that decides the
    effect of a NaN.

    Source: MXNet SoftmaxOutput (whose label is unused at inference) and softmax, torch.softmax, ONNX Softmax
    (trailing: before opset 13).
    """

    axis: int = 1
    trailing: bool = False

    formulas: ClassVar[Mapping[str, str]] = SOFTMAX_FORMULAS
    assumption: ClassVar[str] = EXP_ASSUMED

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(0 <= self.axis < len(inputs[0].shape), f"axis outside of {inputs[0]!r}")
        return inputs[0]

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        end = x.ndim if self.trailing else self.axis + 1
        before, terms, behind = (
            prod(x.shape[a:b]) for a, b in ((0, self.axis), (self.axis, end), (end, None))
        )
        return engine.softmax_parts(x.reshape(before, 1, terms, behind)).reshape(x.shape)

    def _rows(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """x with all axes from `axis` on as the last one."""
        return np.ascontiguousarray(x).reshape(*x.shape[: self.axis], -1)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        if self.trailing:
            return softmax_by(formula, self._rows(inputs[0]), engine, total).reshape(inputs[0].shape)
        rows = np.ascontiguousarray(np.moveaxis(inputs[0], self.axis, -1))
        return np.ascontiguousarray(np.moveaxis(softmax_by(formula, rows, engine, total), -1, self.axis))

    def total_terms(self, *inputs: TensorType) -> int:
        shape = inputs[0].shape
        return TensorType(shape[self.axis :]).size if self.trailing else shape[self.axis]

    def total_places(self, *inputs: TensorType) -> tuple[Places, Places]:
        numbers = np.arange(inputs[0].size).reshape(inputs[0].shape)
        rows = self._rows(numbers) if self.trailing else np.moveaxis(numbers, self.axis, -1)
        first = rows.reshape(-1, rows.shape[-1])[0]
        return first, first

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        name = type(self).__name__
        if self.trailing:
            return exact_softmax(name, self._rows(inputs[0]), exact).reshape(inputs[0].shape)
        rows = np.moveaxis(inputs[0], self.axis, -1)
        y = exact_softmax(name, np.ascontiguousarray(rows), exact)
        return np.ascontiguousarray(np.moveaxis(y, -1, self.axis))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = inputs[0]
        if self.trailing:
            place = np.ravel_multi_index(at[self.axis :], x.shape[self.axis :])
            return explained_softmax(self._rows(x)[at[: self.axis]], int(place), exact)
        row = np.moveaxis(x, self.axis, -1)[(*at[: self.axis], *at[self.axis + 1 :])]
        return explained_softmax(np.ascontiguousarray(row), at[self.axis], exact)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        if self.trailing:
            y = softmax_bound(Interval(self._rows(x.center), self._rows(x.radius)), self.axis)
            return Interval(y.center.reshape(x.center.shape), y.radius.reshape(x.center.shape))
        return softmax_bound(x, self.axis)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 5 * inputs[0].size)


def softmax_bound(x: Interval, axis: int) -> Interval:
    """Bound of any float32 softmax along an axis, see Softmax. Shared with RadixSoftmax.

    An element that is -inf for all (a mask's) adds nothing; its own exp is 0 or at most EXP_ABSOLUTE.
    """
    n = x.center.shape[axis]
    with np.errstate(all="ignore"):
        masked = (x.center == -np.inf) & (x.radius == 0)
        shifted = x.center - x.center.max(axis, keepdims=True)
        e = np.exp(shifted)
        y = e / e.sum(axis, keepdims=True)
        widest = x.radius.max(axis, keepdims=True)
        argument = np.where(masked, 0.0, np.abs(shifted) + 2 * widest)
        plain = np.where(masked, 0.0, np.abs(x.center) + widest)  # without the shift, where it stays in range
        argument = np.where(plain.max(axis, keepdims=True) <= 60, np.maximum(argument, plain), argument)
        most = y * np.exp(2 * widest)
        r = (U * argument + exp_relative(argument)) * (1 + 2.0**-20)
        r = r + (most * r).sum(axis, keepdims=True) + gamma(max(n - 1, 1)) + gamma(2) + (n + 4) * U64
        r = np.where(r > 2.0**-10, 2 * r, r * (1 + 2.0**-8))
        radius = most * r + y * np.expm1(2 * widest) + (n + 1) * EXP_ABSOLUTE + ETA
    return outward(y, radius, np.where(r < 0.25, y, np.nan))


def exact_softmax(op: str, x: F32, exact: Exact) -> F32:
    """The correctly rounded softmax over the last axis; see Softmax."""
    n = x.shape[-1]
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        powers = exact.engine.exp(wide - wide.max(-1, keepdims=True))
        center = powers / powers.sum(-1, keepdims=True)

    def refine(at: Places, y: F32) -> None:
        flat, rows = y.reshape(-1), x.reshape(-1, n)
        for r in np.unique(at // n):
            values, counts = np.unique(rows[r][rows[r] > -np.inf], return_counts=True)
            open_ = at[at // n == r]
            if values.size == 1:  # 1/n, which may be a midpoint: no decimals would tell
                flat[open_] = exact.rounded(Fraction(1, int(counts[0])))
                continue
            row = [(Decimal(float(v)), int(count)) for v, count in zip(values, counts, strict=True)]
            totals: dict[int, Decimal] = {}
            for value in np.unique(rows[r][open_ % n]):
                same = open_[rows[r][open_ % n] == value]
                one = _part(Decimal(float(value)), row, totals)
                flat[same] = exact.by_decimals(one, float(center.flat[same[0]]))

    return exact.round_or_refine(op, center, center * (2.0**-44 + n * 2.0**-51), refine)


def _part(
    own: Decimal, row: list[tuple[Decimal, int]], totals: dict[int, Decimal]
) -> Callable[[], tuple[Decimal, Decimal]]:
    """exp(own) / sum of exp over the row's (value, count), in the decimal context's precision; its error.

    totals: the sums, by precision; they are the same for all of a row.
    """
    largest, n = row[-1][0], sum(count for _, count in row)

    def evaluate() -> tuple[Decimal, Decimal]:
        digits = getcontext().prec
        if digits not in totals:
            totals[digits] = sum(((v - largest).exp() * count for v, count in row), Decimal(0))
        value = (own - largest).exp() / totals[digits]
        return value, value * n * Decimal(10) ** (4 - digits)

    return evaluate


def explained_softmax(row: F32, i: int, exact: Exact) -> Derivation:
    """The steps of element i of the softmax of a row. Shared with RadixSoftmax."""
    engine = exact.engine
    golden = Softmax(1).golden(row[None], exact=exact)[0, i]
    if not np.isfinite(row).all():
        return Derivation((), golden)
    largest, total = row.max(), np.float32(0)
    with np.errstate(all="ignore"):
        powers = engine.exp((row - largest).astype(np.float64)).astype(np.float32)
    for power in powers:
        total = np.float32(total + power)
    plain = Softmax(1).run(row[None], engine=engine)[0, i]
    with forty_digits():
        true = [(decimal(x) - decimal(largest)).exp() for x in row]
        each = [
            Step(f"e[{j}]", f"exp(x[{j}] - m), x[{j}] = {x!s}", e, p)
            for j, (x, e, p) in enumerate(zip(row, true, powers, strict=True))
        ]
        steps = (
            given("m", f"the largest of {row.size} x", largest),
            *each,
            Step("s", "the sum of all e", sum(true, Decimal(0)), total),
            Step("y", f"e[{i}] / s", true[i] / sum(true), plain),
        )
    return Derivation(steps, golden)


def softmax_by(formula: str, x: F32, engine: Engine, total: Expr | None) -> F32:
    """The softmax over the last axis by one of SOFTMAX_FORMULAS; total: the order of the sum."""
    library, lanes = {
        "sleef-divide": ("sleef", 0),
        "sleef-reciprocal": ("sleef", 0),
        "glibc-divide": ("glibc", 0),
        "glibc-reciprocal": ("glibc", 0),
        "onednn-avx512": ("onednn", 16),
        "onednn-avx2": ("onednn", 8),
        "onednn-sse41": ("onednn-unfused", 4),
        "mlas-avx512": ("mlas-avx512", 0),
        "mlas-avx2": ("mlas-avx2", 0),
    }[formula]
    e = engine.exponentials(x, library, lanes)
    s = None if total is None else engine.row_sums(e.reshape(-1, e.shape[-1]), total)
    return engine.quotients(e, s, formula.endswith("-divide"))
