"""Batch normalisation with running statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import SCALE_SHIFT, Engine, Epilogue, Places
from refnet.core.errors import InputError
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, FoldableSum, Fusable, Interval, TensorType
from refnet.core.orders import FOLDS, Choice, Expr, Program
from refnet.core.rounding import ETA, U64, U, error_factor, gamma, outward

Factors = tuple[F32, F32, F32, F32]


@dataclass(frozen=True, repr=False)
class BatchNorm(Fusable):
    """y[n,c,...] = gamma[c] * (x[n,c,...] - mean[c]) / sqrt(var[c] + eps) + beta[c]

    with gamma = 1 where fix_gamma is set (MXNet's default, which then ignores the stored gamma).
    Inference only: mean and var are the running statistics. eps is a float64 attribute; a framework
    that rounds it to float32 first is covered by the bound.

    Plain: s = gamma / sqrt(var + eps) and t = beta - mean * s in float64, each rounded once to float32
    (s64 before its rounding goes into t); then y = fma(x, s, t).

    Bound, over the float32 forms that frameworks use, with s exact and T = (|x| + |mean|) * |s| + |beta|:

    1. i = 1/sqrt(var + eps); a = gamma*i; b = beta - mean*a; y = x*a + b   (PyTorch; OpenVINO without i)
    2. a = gamma/sqrt(var + eps); y = (x - mean)*a + beta                    (MXNet)
    3. y = gamma*((x - mean)*i) + beta                                        (references)
       each with or without FMA, with i by division or (in float64) by any more accurate way.

    What is under the root, q = var + eps, carries eps's rounding (U eps, or ETA/2 if it is subnormal; none
    where eps is kept as a float64) and the sum's. It is q (1 + d), and |d| is at most
    R = (1 + U) max(U eps, ETA/2) / q + U. Where var >= 0, eps <= q and R is 2 U, which the root halves: 1.
    Then i carries the root's and the division's besides: 3; a one more: 4. Form 1: the term x*s passes
    4 + product + sum = 6, mean*s passes 4 + product + difference + sum = 7, beta 2. Forms 2 and 3:
    (x - mean)*s passes 1 + 4 + product + sum = 7, beta 1. So |error| <= gamma(7) * T.

    Where var < 0, it cancels eps, and R has no limit. 1/sqrt(q (1 + d)) is (1 + t)/sqrt(q) with
    |t| <= K = 1/sqrt(1 - R) - 1, so each term with s may be larger by the factor 1 + K before it is rounded:
    |error| <= gamma(7) (1 + K) * T + K (1 + gamma(7)) (|x| + |mean|) * |s|. Where R >= 1 an evaluation may
    find 0 or less under the root, and nothing is promised; nor where q (1 - R) is subnormal.

    Underflow: a product loses ETA/2 before it is multiplied by at most |x|, |mean| or |gamma|:
    (|x| + |mean| + |gamma| + 4) * ETA.

    Formulas, eps rounded to float32 and each step too: see `formulas`.

    If x is a sum of products (size S, R roundings; see FoldableSum) that was not captured, its weights w may
    have been multiplied by a, and b - a*mean may have become its bias. The weights then carry 5 more
    roundings, the bias 7, and it is one more term. So every term passes D = R + 8 at most. With x's radius,
    which includes gamma(R) S, y's radius is |s| * (radius + (gamma(D) - gamma(R)) S) + gamma(D) (|mean s| +
    |beta|), and with K, as above, |s| (S + |x|) + |mean s| are larger by 1 + K. Folded weights that underflow
    lose ETA/2 |x| each. Weights that overflow are not covered. The larger of both radii is taken.

    Golden: the formula as one, with eps as the exact value of its float64 attribute, rounded once. In
    float64 it passes the difference, the sum under the root, the root, the division, the product and
    the sum, 8 U64 * (|(x - mean) s| + |beta|), of which |y| + 2 |beta| is an upper bound (the 9 U64 used
    cover that y is the computed one). What remains open is decided by comparing with the
    midpoint between two float32 in rational arithmetic. var + eps <= 0 gives what IEEE division and root
    give.

    Source: MXNet BatchNorm with use_global_stats or is_train=False, torch.nn.BatchNorm2d.eval().
    """

    eps: float
    fix_gamma: bool = False

    roles: ClassVar[tuple[str, ...]] = ("data", "gamma", "beta", "mean", "var")
    statistics: ClassVar[tuple[str, ...]] = ("mean", "var")
    positive: ClassVar[tuple[str, ...]] = ("var",)
    folds: ClassVar[bool] = True
    formulas: ClassVar[Mapping[str, str]] = {
        "scaled": "i = 1/sqrt(var + eps), a = gamma*i, b = beta - mean*a, y = x*a + b "
        "(ONNX Runtime; PyTorch without AVX2)",
        "scaled-fused": "as scaled, with b = fma(-mean, a, beta) and y = fma(x, a, b) (PyTorch)",
        "folded": "a = gamma/sqrt(var + eps), b = beta - mean*a, y = x*a + b (OpenVINO)",
        "folded-fused": "as folded, with y = fma(x, a, b) (OpenVINO)",
        "centred": "s = gamma/sqrt(var + eps), y = (x - mean)*s + beta (oneDNN, so MXNet, on arrays in plain "
        "layout, and without FMA)",
        "centred-fused": "as centred, with y = fma(x - mean, s, beta) (oneDNN on arrays in blocks)",
        "normalised": "i = 1/sqrt(var + eps), y = gamma*((x - mean)*i) + beta (as the formula is written)",
        "normalised-fused": "as normalised, with y = fma(gamma, (x - mean)*i, beta) (oneDNN behind some "
        "depthwise convolutions)",
    }

    @property
    def unused_roles(self) -> tuple[str, ...]:
        return ("gamma",) if self.fix_gamma else ()

    def weight_roles(self) -> tuple[str, ...]:
        return self.roles[1:]

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        self._count(data, 1)
        (x,) = data
        self._expect(len(x.shape) >= 2, f"data must have a batch and channels, got {x!r}")
        return (TensorType((x.shape[1],)),) * 4

    def nan_propagates(self, *weights: F32) -> bool:
        finite = all(bool(np.isfinite(w).all()) for w in weights)
        return finite and bool(np.isfinite(self._cancelled(weights[3].astype(np.float64))).all())

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 5)
        self._expect(inputs[1:] == self.weight_types(inputs[0]), f"weights are {list(inputs[1:])}")
        self._expect(self.eps >= 0, "eps >= 0")
        return inputs[0]

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.scale_shift(inputs[0], *self.folded(engine, *inputs[1:]))

    @property
    def step(self) -> str:
        return SCALE_SHIFT

    def add_step(self, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        return before.scale_shift(*self.folded(engine, *weights))

    def fold(self, how: str, weights: Sequence[F32], engine: Engine) -> tuple[F32, F32]:
        """See `Op.fold`.

        >>> from refnet.loops.engine import REFERENCE
        >>> weight, half, one = np.ones((1, 1, 1, 1), np.float32), np.float32([0.5]), np.float32([1])
        >>> own = [weight, half, one, one, one]
        >>> [float(a.item()) for a in BatchNorm(eps=0.0).fold("double", own, REFERENCE)]
        [0.5, 0.5]
        """
        if how not in FOLDS:
            raise InputError(f"a batch norm can be folded by {', '.join(FOLDS)}, not by {how!r}")
        w, *bias, gamma_, beta, mean, var = weights
        one = np.float32(1)
        with np.errstate(all="ignore"):
            scale = np.ones_like(gamma_) if self.fix_gamma else gamma_
            if how.startswith("double"):
                root = np.sqrt(var.astype(np.float64) + self.eps)
                a = (scale.astype(np.float64) / root).astype(np.float32)
            else:
                single = np.sqrt(var + np.float32(self.eps))
                a = scale / single if how == "single" else scale * (one / single)
            apart = bias[0] - mean if bias else -mean
            shift = engine.fused_multiply_add(a, apart, beta) if how == "double-fused" else beta + a * apart
            return w * a.reshape(-1, *[1] * (w.ndim - 1)), shift

    def folded(self, engine: Engine, gamma_: F32, beta: F32, mean: F32, var: F32) -> tuple[F32, F32]:
        """Plain's s and t of y = fma(x, s, t), one per channel; cached as long as the weights live."""
        arrays = (gamma_, beta, mean, var)
        return engine.cached(arrays, self, lambda: self._fold(*arrays))

    def _fold(self, gamma_: F32, beta: F32, mean: F32, var: F32) -> tuple[F32, F32]:
        g = np.ones_like(gamma_, np.float64) if self.fix_gamma else gamma_.astype(np.float64)
        with np.errstate(all="ignore"):  # a negative variance gives NaN, as in the frameworks
            s = g / np.sqrt(var.astype(np.float64) + self.eps)
            t = beta - mean * s
            return s.astype(np.float32), t.astype(np.float32)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        factors = self.factors(engine, formula, *inputs[1:])
        return engine.normalised(inputs[0], *factors, formula.endswith("-fused"))

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        return True

    def steps_by(self, formula: str) -> bool:
        return True

    def add_step_by(self, formula: str, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        """v - m is v + (-m), and v * i is fma(v, i, -0): adding -0 changes nothing."""
        m, i, s, t = self.factors(engine, formula, *weights)
        if formula.startswith(("centred", "normalised")):
            before = before.bias(-m)
        if formula.startswith("normalised"):
            before = before.scale_shift(i, np.full_like(i, -0.0))
        if formula.endswith("-fused"):
            return before.scale_shift(s, t)
        return before.scale_shift(s, np.full_like(s, -0.0)).bias(t)

    def factors(self, engine: Engine, formula: str, gamma_: F32, beta: F32, mean: F32, var: F32) -> Factors:
        """What a formula derives from the weights: m, i, s, t of y = ((x - m) * i) * s + t, per channel.

        m is +0 in the scaled and folded forms, and i is 1 in all but the normalised ones; neither changes
        a result.
        Cached as long as the weights live.
        """
        self._expect_formula(formula)
        arrays = (gamma_, beta, mean, var)
        return engine.cached(arrays, (self, formula), lambda: self._factors(engine, formula, *arrays))

    def _factors(self, engine: Engine, formula: str, gamma_: F32, beta: F32, mean: F32, var: F32) -> Factors:
        g = np.ones_like(gamma_) if self.fix_gamma else gamma_
        with np.errstate(all="ignore"):
            root = np.sqrt(var + np.float32(self.eps))
            one = np.ones_like(root)
            if formula.startswith("centred"):
                return mean, one, g / root, beta
            i = one / root
            if formula.startswith("normalised"):
                return mean, i, g, beta
            a = g / root if formula.startswith("folded") else g * i
            b = engine.fused_multiply_add(-mean, a, beta) if formula == "scaled-fused" else beta - mean * a
            return np.zeros_like(mean), one, a, b

    def exact_factors(self, engine: Engine, *weights: F32) -> tuple[F64, F64, F64, float]:
        """Golden's mean, scale and shift, one per channel, and error factor, as `Exact.affine` has them."""
        return engine.cached(weights, (self, "exact"), lambda: self._exact_factors(*weights))

    def _exact_factors(self, *weights: F32) -> tuple[F64, F64, F64, float]:
        g, beta, mean, var = (w.astype(np.float64) for w in weights)
        with np.errstate(all="ignore"):
            s = (np.ones_like(g) if self.fix_gamma else g) / np.sqrt(var + self.eps)
        return mean, s, beta, error_factor(7)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        x, gamma_, _, _, var = inputs
        n, c = x.shape[:2]
        mean, s, beta, factor = self.exact_factors(exact.engine, *inputs[1:])
        g = np.ones_like(gamma_) if self.fix_gamma else gamma_

        def refine(at: Places, y: F32) -> None:
            flat, values = y.reshape(-1), x.reshape(-1)
            size = x.size // (n * c)
            for k in at:
                i = int(k) // size % c
                weights = tuple(float(w[i]) for w in (g, beta, mean, var))
                guess = (float(values[k]) - mean[i]) * s[i] + beta[i]
                compare = self._comparison(float(values[k]), *weights)
                flat[k] = exact.nearest(compare, float(guess))

        return exact.affine(type(self).__name__, x, mean, s, beta, factor, refine)

    def _comparison(
        self, x: float, g: float, beta: float, mean: float, var: float
    ) -> Callable[[Fraction], int]:
        """The sign of y - m of one element, by m.

        y > m means g (x - mean) > (m - beta) sqrt(var + eps); both sides squared, no root.
        """
        square = Fraction(float(var)) + Fraction(self.eps)
        left = Fraction(float(g)) * (Fraction(float(x)) - Fraction(float(mean)))
        shift = Fraction(float(beta))

        def compare(m: Fraction) -> int:
            right = m - shift
            a, b = left * abs(left), right * abs(right) * square
            return (a > b) - (a < b)

        return compare

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x, weights = np.full((1, 1), inputs[0][at]), [w[at[1] : at[1] + 1] for w in inputs[1:]]
        golden = self.golden(x, *weights, exact=exact)[0, 0]
        g, beta, mean, var = (float(w[0]) for w in weights)
        g = 1.0 if self.fix_gamma else g
        under = Fraction(var) + Fraction(self.eps) if np.isfinite(var) else Fraction(0)
        if not np.isfinite([float(x[0, 0]), g, beta, mean, var]).all() or under <= 0:
            return Derivation((), golden)
        s, t = (v[0] for v in self.folded(exact.engine, *weights))
        plain = self.run(x, *weights, engine=exact.engine)[0, 0]
        with forty_digits():
            root = decimal(under).sqrt()
            scale = decimal(g) / root
            apart = Fraction(float(x[0, 0])) - Fraction(mean)
            product = scale * decimal(apart)
            steps = (
                given("x", "the input element", x[0, 0]),
                Step("v", f"var + eps = {var!r} + {self.eps!r}", under),
                Step("r", "sqrt(v)", root),
                Step("s", f"gamma / r, gamma = {g!r}" + (" (fix_gamma)" if self.fix_gamma else ""), scale, s),
                Step("t", f"beta - mean * s, beta = {beta!r}", decimal(beta) - decimal(mean) * scale, t),
                Step("d", f"x - mean, mean = {mean!r}", apart),
                Step("p", "s * d", product),
                Step("y", "p + beta; plain: fma(x, s, t)", product + decimal(beta), plain),
            )
        return Derivation(steps, golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        if any(w.radius.any() for w in inputs[1:]):
            raise InputError(f"{self!r}: bound takes exact weights (radius 0)")
        x = inputs[0]
        column = (slice(None), *([None] * (x.center.ndim - 2)))
        g, beta, mean, var = (w.center[column] for w in inputs[1:])
        g = np.ones_like(g) if self.fix_gamma else g
        with np.errstate(all="ignore"):
            s = g / np.sqrt(var + self.eps)
            center = (x.center - mean) * s + beta
            cancelled = self._cancelled(var)
            grown = 1 + cancelled
            size = x.magnitude + np.abs(mean)
            moving = size * np.abs(s)
            total = (moving + np.abs(beta)) * grown
            spread = x.radius * np.abs(s)
            radius = spread + (gamma(7) + 8 * U64) * total + (size + np.abs(g) + 4) * ETA
            lost = cancelled * (1 + gamma(7)) * moving
            # every form's intermediates: (x - mean) i and gamma i; i is below 2**64 where var + eps is normal
            middle = (size / np.sqrt(var + self.eps) + np.abs(s)) * grown
            usual = np.isfinite(cancelled) & (var + self.eps < 2.0**126)
            largest = np.where(usual, total + size + np.abs(g) + middle, np.nan)
            if x.sum is None:
                shown = FoldableSum(total, 7, 3, float(x.magnitude.max(initial=0.0)))
                return outward(center, radius + lost, largest, 8, shown)
            folded = self._folded(x, x.sum, s, mean, beta, cancelled) + 8 * U64 * total
            constants = np.abs(mean * s) + np.abs(beta)
            deepest = x.sum.roundings + 8
            terms = x.sum.terms + 1
            sizes = (x.sum.size * np.abs(s) + constants) * grown
            as_sum = FoldableSum(sizes, deepest, terms, x.sum.input_abs_sum)
        largest = np.maximum(largest, as_sum.size)
        return outward(center, np.maximum(radius + lost, folded), largest, deepest, as_sum)

    def _cancelled(self, var: F64) -> F64:
        """K of the bound's derivation, per channel: 0 where var >= 0; NaN where nothing is promised."""
        under = var + self.eps
        relative = ((1 + U) * max(U * self.eps, ETA / 2) / under + U) * (1 + 2.0**-50)
        with np.errstate(all="ignore"):
            k = (1 / np.sqrt(1 - relative) - 1) * (1 + 2.0**-50) + 2.0**-50
            found: F64 = np.where(under * (1 - relative) >= 2.0**-126, np.where(var >= 0, 0.0, k), np.nan)
        return found

    def _folded(self, x: Interval, terms: FoldableSum, s: F64, mean: F64, beta: F64, cancelled: F64) -> F64:
        """The radius of a sum of products whose weights the batch norm was folded into."""
        g, before = gamma(terms.roundings + 8), gamma(terms.roundings)
        shift = np.abs(mean * s)
        radius = np.abs(s) * (x.radius + (g - before) * terms.size) + g * (shift + np.abs(beta))
        radius += cancelled * (1 + g) * (np.abs(s) * (terms.size + x.magnitude) + shift)
        lost: F64 = radius + ETA * (terms.input_abs_sum + terms.size + np.abs(mean) + terms.terms + 8)
        return lost

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 2 * inputs[0].size)
