"""Split attention (ResNeSt): radix sum, radix softmax, weighted sum.

A tensor of radix * c channels is `radix` parts of c channels, part r first to last:

    parts ── RadixSum ── GlobalAvgPool ── fc1 ── norm, relu ── fc2 ── RadixSoftmax ─┐
      └──────────────────────────────────────────────────────────────── WeightedSum

Source: H. Zhang et al., ResNeSt: Split-Attention Networks, arXiv 2004.08955, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Terms
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Choice, Expr, Program
from refnet.core.rounding import EXP_ASSUMED, product_grid, sum_of_products
from refnet.ops.pointwise import sum_bound
from refnet.ops.sigmoid import Sigmoid, exact_sigmoid, explained_sigmoid, sigmoid_bound
from refnet.ops.softmax import SOFTMAX_FORMULAS, exact_softmax, explained_softmax, softmax_bound, softmax_by

T = TypeVar("T", np.float32, np.float64)


@dataclass(frozen=True, repr=False)
class RadixSum(Op):
    """y[n,c,h,w] = sum over r of x[n, r*C + c, h, w], C = channels / radix

    Plain: +0 + part 0 + part 1 + ..., left to right. Only one right result for radix 1 and 2.

    Golden: the exact sum of the parts, rounded once; zeros, NaN, infinities and the error as for Add of more.

    Formulas: see `formulas`; they differ in the sign of a zero only.

    Bound: as for Add: gamma(radix - 1) * sum |x|.
    """

    radix: int

    zero_sign_unspecified: ClassVar[bool] = True  # a sum from +0 makes +0 of -0, a copy or product does not
    formulas: ClassVar[Mapping[str, str]] = {
        "zero": "+0 + part 0 + part 1 + ... (the official code: Python's sum of PyTorch's tensors)",
        "first": "part 0 + part 1 + ... (the exported ONNX model in ONNX Runtime)",
    }

    @property
    def exactly_specified(self) -> bool:
        return self.radix <= 2

    def nan_propagates(self, *weights: F32) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        self._expect(self.radix >= 1 and x.shape[1] % self.radix == 0, f"radix must divide {x.shape[1]}")
        return TensorType((x.shape[0], x.shape[1] // self.radix, *x.shape[2:]))

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        return True

    def runs_formula(self, formula: str) -> bool:
        return formula == "zero"

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.radix_sum(inputs[0], self.radix)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        n, channels, h, w = inputs[0].shape
        c = channels // self.radix
        parts = np.ascontiguousarray(inputs[0]).reshape(n, self.radix, c, h * w)
        return engine.parts_sum(parts, None, formula == "zero").reshape(n, c, h, w)

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        return self.exactly_specified

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        if self.exactly_specified:
            return self.run(*inputs, engine=exact.engine)
        return exact.sum(type(self).__name__, np.stack(np.split(inputs[0], self.radix, 1)))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        data = part_places(self.radix, inputs[0].shape, at)
        return Terms("add", "data", inputs[0][tuple(data.T)], data)

    def term_grid(self, units: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
        return units[0], sizes[0]

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        parts = zip(np.split(x.center, self.radix, 1), np.split(x.radius, self.radix, 1), strict=True)
        return sum_bound(tuple(Interval(c, r) for c, r in parts))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size * (self.radix - 1) // self.radix)


@dataclass(frozen=True, repr=False)
class RadixSoftmax(Op):
    """y[n, r*K*m + k*m + i] = softmax over r of x[n, k*R*m + r*m + i, 0, 0]

    with R = radix, K = cardinality, m = channels / (R*K): the input holds cardinal groups of radix
    parts, the output radix parts of cardinal groups, as (n, channels). For radix 1 it is the sigmoid.

    Plain, golden, bound, formulas: those of Softmax over the radix axis, of Sigmoid for radix 1.

    Source: rSoftMax of the official ResNeSt (view, transpose 1 and 2, softmax, reshape).
    """

    radix: int
    cardinality: int = 1

    assumption: ClassVar[str] = EXP_ASSUMED
    formulas: ClassVar[Mapping[str, str]] = {**Sigmoid.formulas, **SOFTMAX_FORMULAS}

    @property
    def menu(self) -> tuple[str, ...]:
        return tuple(Sigmoid.formulas if self.radix == 1 else SOFTMAX_FORMULAS)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        self._expect(x.shape[2:] == (1, 1), f"data must be (n, channels, 1, 1), got {x!r}")
        parts = self.radix * self.cardinality
        self._expect(parts >= 1 and x.shape[1] % parts == 0, f"radix * cardinality must divide {x.shape[1]}")
        return TensorType(x.shape[:2])

    def _split(self, x: npt.NDArray[T]) -> npt.NDArray[T]:
        """(n, K*R*m, 1, 1) -> (n, R, K, m)"""
        return x.reshape(x.shape[0], self.cardinality, self.radix, -1).swapaxes(1, 2)

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        n = x.shape[0]
        if self.radix == 1:
            return engine.sigmoid(np.ascontiguousarray(x.reshape(n, -1)))
        return engine.softmax_parts(x.reshape(n, self.cardinality, self.radix, -1)).reshape(n, -1)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        (x,) = inputs
        n = x.shape[0]
        if self.radix == 1:
            return Sigmoid().replay(formula, np.ascontiguousarray(x.reshape(n, -1)), engine=engine)
        self._expect_formula(formula)
        rows = np.ascontiguousarray(np.moveaxis(self._split(x), 1, -1))  # (n, K, m, R)
        y = softmax_by(formula, rows, engine, total)
        return np.ascontiguousarray(np.moveaxis(y, -1, 1).reshape(n, -1))

    def total_terms(self, *inputs: TensorType) -> int | None:
        return self.radix if self.radix > 1 else None

    def total_places(self, *inputs: TensorType) -> tuple[Places, Places] | None:
        if self.radix == 1:
            return None
        size = inputs[0].shape[1] // (self.radix * self.cardinality)
        parts = np.arange(self.radix, dtype=np.int64) * size
        return parts, parts * self.cardinality

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        (x,) = inputs
        name, n = type(self).__name__, x.shape[0]
        if self.radix == 1:
            return exact_sigmoid(name, np.ascontiguousarray(x.reshape(n, -1)), exact)
        rows = np.ascontiguousarray(np.moveaxis(self._split(x), 1, -1))  # (n, K, m, R)
        y = exact_softmax(name, rows, exact)
        return np.ascontiguousarray(np.moveaxis(y, -1, 1).reshape(n, -1))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        (x,) = inputs
        if self.radix == 1:
            return explained_sigmoid(x.reshape(x.shape[0], -1)[at], exact)
        m = x.shape[1] // (self.radix * self.cardinality)
        r, k, i = at[1] // (self.cardinality * m), at[1] // m % self.cardinality, at[1] % m
        return explained_softmax(np.ascontiguousarray(self._split(x)[at[0], :, k, i]), r, exact)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        n = x.center.shape[0]
        if self.radix == 1:
            y = sigmoid_bound(x)
        else:
            y = softmax_bound(Interval(self._split(x.center), self._split(x.radius)), 1)
        return Interval(y.center.reshape(n, -1), y.radius.reshape(n, -1))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, (3 if self.radix == 1 else 5) * inputs[0].size)


@dataclass(frozen=True, repr=False)
class WeightedSum(Op):
    """y[n,c,h,w] = sum over r of attention[n, r*C + c] * x[n, r*C + c, h, w], C = channels / radix

    Shapes: attention (n, radix*C), x (n, radix*C, h, w), y (n, C, h, w).

    Plain: acc = +0; acc = fma(attention, x, acc) for r in turn. Only one right result for radix 1.

    Golden: the exact sum of the products, rounded once. In float64 the products are exact and their sum is
    off by at most (radix + 2) U64 * (sum |attention x|). An exact 0 is +0; a NaN, an infinity times 0 or
    infinities of both signs make NaN.

    Formulas: see `formulas`; each product is rounded before it is added.

    Bound: as for Conv: gamma(radix) * sum |attention||x| + radix * ETA/2.
    """

    radix: int

    roles: ClassVar[tuple[str, ...]] = ("attention", "data")

    zero_sign_unspecified: ClassVar[bool] = True  # a sum from +0 makes +0 of -0, a copy or product does not
    formulas: ClassVar[Mapping[str, str]] = {
        "zero": "+0 + product 0 + product 1 + ... (the official code: Python's sum of PyTorch's tensors)",
        "first": "product 0 + product 1 + ... (the exported ONNX model in ONNX Runtime)",
    }

    @property
    def exactly_specified(self) -> bool:
        return self.radix == 1

    def nan_propagates(self, *weights: F32) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2)
        attention, x = inputs
        self._rank(x, 4)
        self._expect(attention.shape == x.shape[:2], f"attention is {attention!r} for data {x!r}")
        self._expect(self.radix >= 1 and x.shape[1] % self.radix == 0, f"radix must divide {x.shape[1]}")
        return TensorType((x.shape[0], x.shape[1] // self.radix, *x.shape[2:]))

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.weighted_sum(inputs[0], inputs[1], self.radix)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        attention, x = inputs
        n, channels, h, w = x.shape
        c = channels // self.radix
        parts = np.ascontiguousarray(x).reshape(n, self.radix, c, h * w)
        weights = np.ascontiguousarray(attention).reshape(n, self.radix, c)
        return engine.parts_sum(parts, weights, formula == "zero").reshape(n, c, h, w)

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        if self.exactly_specified:
            return self.run(*inputs, engine=exact.engine)
        n, channels, h, w = inputs[1].shape
        c = channels // self.radix
        a = np.ascontiguousarray(inputs[0]).reshape(n, self.radix, c)
        x = np.ascontiguousarray(inputs[1]).reshape(n, self.radix, c, h * w)
        return exact.weighted_sum(type(self).__name__, a, x).reshape(n, c, h, w)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        attention, x = inputs
        data, weight = (part_places(self.radix, a.shape, at) for a in (x, attention))
        values, factors = x[tuple(data.T)], attention[tuple(weight.T)]
        return Terms("fma", "data", values, data, "attention", factors, weight)

    def term_grid(self, units: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
        return product_grid(units, sizes)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        def product(a: F64, b: F64) -> F64:
            return engine.weighted_sum(a, b, self.radix)

        a, x = inputs
        center = product(a.center, x.center)
        spread = product(a.radius, x.magnitude) + product(np.abs(a.center), x.radius)
        total = product(a.magnitude, x.magnitude)
        input_abs_sum = float(product(np.ones_like(a.center), x.magnitude).max(initial=0.0))
        return sum_of_products(center, spread, total, self.radix, self.radix, self.radix, input_abs_sum)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 2 * inputs[1].size)


def part_places(radix: int, shape: tuple[int, ...], at: Index) -> Places:
    """The places of the parts of one element in an input of this shape, (radix, rank)."""
    c = shape[1] // radix
    return np.array([(at[0], r * c + at[1], *at[2 : len(shape)]) for r in range(radix)], np.int64)
