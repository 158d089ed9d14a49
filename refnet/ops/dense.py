"""Fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refnet.core.element import Index, Terms, Windows
from refnet.core.engine import Array, Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Reduction, TensorType
from refnet.core.orders import Choice, Program
from refnet.core.rounding import product_grid, product_integers, sum_of_products


@dataclass(frozen=True, repr=False)
class Dense(Reduction):
    """y[n,o] = bias[o] + sum over k of weight[o,k] * x[n,k]

    All dimensions of x after the first are flattened first (MXNet's flatten=True; PyTorch's inputs
    here are flat already). Shapes: x (n, ...) with K elements per row, weight (units, K), bias
    (units,), y (n, units).

    Plain: acc = +0; acc = fma(weight, x, acc) for k in turn; then one addition of the bias.

    Bound: as for Conv: gamma(K + 1) * (sum |weight||x| + |bias|) + K * ETA/2; gamma(K) without a bias.

    Golden: the exact sum with its bias, rounded once, as for Conv.

    Source: MXNet FullyConnected, torch.nn.Linear.
    """

    units: int
    bias: bool = True

    roles: ClassVar[tuple[str, ...]] = ("data", "weight", "bias")

    def weight_roles(self) -> tuple[str, ...]:
        return ("weight", "bias") if self.bias else ("weight",)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        self._count(data, 1)
        (x,) = data
        self._expect(self.units >= 1, "units >= 1")
        self._expect(len(x.shape) >= 2, f"data must have a batch and features, got {x!r}")
        weight = TensorType((self.units, TensorType(x.shape[1:]).size))
        return (weight, TensorType((self.units,))) if self.bias else (weight,)

    def nan_propagates(self, *weights: F32) -> bool:
        return all(bool(np.isfinite(w).all()) for w in weights)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 3 if self.bias else 2)
        expected = self.weight_types(inputs[0])
        self._expect(inputs[1:] == expected, f"weights are {list(inputs[1:])}, expected {list(expected)}")
        return TensorType((inputs[0].shape[0], self.units))

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.dense(rows_of(inputs[0]), inputs[1], inputs[2] if self.bias else None)

    def terms(self, *inputs: TensorType) -> int:
        return inputs[1].shape[1]

    def biased(self) -> bool:
        return self.bias

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        return True

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        bias = inputs[2] if self.bias else None
        return engine.dense_in_order(rows_of(inputs[0]), inputs[1], bias, program.expr, places=places)

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        bias = inputs[2] if self.bias else None
        return exact.dense(type(self).__name__, rows_of(inputs[0]), inputs[1], bias)

    def windows(self, *inputs: TensorType) -> Windows:
        return Windows((1, 1))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        x, w = inputs[:2]
        k = np.arange(w.shape[1])
        inner = np.stack(np.unravel_index(k, x.shape[1:]), 1)
        data = np.concatenate([np.full((k.size, 1), at[0]), inner], 1)
        weight = np.stack([np.full_like(k, at[1]), k], 1)
        bias = inputs[2][at[1]] if self.bias else None
        return Terms("fma", "data", x[at[0]].reshape(-1), data, "weight", w[at[1]], weight, bias, at[1])

    def term_grid(self, units: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
        return product_grid(units, sizes)

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int]:
        return product_integers(self.terms(*inputs), largest, len(inputs))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        def product(x: F64, w: F64, b: F64 | None) -> F64:
            return engine.dense(rows_of(x), w, b)

        x, w = inputs[:2]
        b = inputs[2] if self.bias else None
        center = product(x.center, w.center, b.center if b else None)
        total = product(x.magnitude, w.magnitude, b.magnitude if b else None)
        spread = product(x.radius, w.magnitude, b.radius if b else None)
        spread += product(np.abs(x.center), w.radius, None)
        terms = w.center.shape[1]
        input_abs_sum = terms * float(x.magnitude.max(initial=0.0))
        return sum_of_products(
            center, spread, total, terms + self.bias, terms, terms + self.bias, input_abs_sum
        )

    def flops(self, *inputs: TensorType) -> Cost:
        size = self.type(*inputs).size
        macs = size * inputs[1].shape[1]
        return Cost(macs, 2 * macs + size * self.bias)


def rows_of(x: Array) -> Array:
    """x (n, ...) as (n, k)."""
    return np.ascontiguousarray(x.reshape(x.shape[0], -1))
