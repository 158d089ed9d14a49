"""Fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.exact.correct_rounding import RefineCount, round_or_refine, sum_error
from refnet.exact.rounding import sum_of_products
from refnet.ops.conv import widened


@dataclass(frozen=True, repr=False)
class Dense(Op):
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

    def recordable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.panel import dense

        rows = np.ascontiguousarray(inputs[0].reshape(inputs[0].shape[0], -1))
        return dense(rows, inputs[1], inputs[2] if self.bias else None, threads)

    def golden(self, *inputs: F32, threads: int = 1, refine_count: RefineCount | None = None) -> F32:
        from refnet.kernels.accumulator import conv_exactly
        from refnet.kernels.panel import dense
        from refnet.kernels.resources import prepared
        from refnet.kernels.team import parallel_for

        rows = np.ascontiguousarray(inputs[0].reshape(inputs[0].shape[0], -1))
        x, w = rows.astype(np.float64), prepared((inputs[1],), "float64", lambda: widened(inputs[1]))
        b = inputs[2].astype(np.float64) if self.bias else np.zeros(0)
        with np.errstate(all="ignore"):
            center = dense(x, w, b if self.bias else None, threads)
            norms = np.sqrt(np.square(x).sum(1, keepdims=True)) * np.sqrt(np.square(w).sum(1))
            total = norms + np.abs(b) if self.bias else norms
            error = sum_error(w.shape[1] + self.bias, total)

        def refine(at: npt.NDArray[np.int64], y: F32) -> None:
            where = np.array([1, 1, 0, 0, 1, 1])
            points, weights = rows[:, :, None, None], inputs[1][:, :, None, None]
            arrays = (at, points, weights, b, np.zeros(0, np.float32))
            parallel_for(conv_exactly, at.size, threads, *arrays, where, 1, y[:, :, None, None])

        return round_or_refine(type(self).__name__, center, error, refine, threads, refine_count)

    def bound(self, *inputs: Interval) -> Interval:
        from refnet.kernels.panel import dense
        from refnet.kernels.resources import processors

        def product(x: F64, w: F64, b: F64 | None) -> F64:
            return dense(np.ascontiguousarray(x.reshape(x.shape[0], -1)), w, b, processors())

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
