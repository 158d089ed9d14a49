"""Sums and means over axes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Terms, Windows
from refnet.core.engine import Engine, Places, PoolGeometry
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, Reduction, TensorType
from refnet.core.orders import Program
from refnet.core.rounding import EXACT_INTEGER, U64, gamma, outward
from refnet.ops.average import average_bound


@dataclass(frozen=True, repr=False)
class _Reduce(Op):
    """Base: the axes that are reduced; with `keepdims` they stay with size 1.

    vector: the sum of all elements has the shape (1,), as in MXNet, and not ().
    """

    axes: tuple[int, ...]
    keepdims: bool = True
    vector: bool = field(default=False, kw_only=True)

    averages: ClassVar[bool] = False

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = inputs[0].shape
        self._expect(len(set(self.axes)) == len(self.axes) > 0, "axes must be given, each once")
        self._expect(min(self.axes) >= 0 and max(self.axes) < len(shape), f"axes outside of {inputs[0]!r}")
        whole = len(self.axes) == len(shape) and not self.keepdims
        self._expect(whole or not self.vector, "vector is for all axes without keepdims")
        if self.vector:
            return TensorType((1,))
        kept = tuple(1 if i in self.axes else n for i, n in enumerate(shape))
        if not self.keepdims:
            kept = tuple(n for i, n in enumerate(shape) if i not in self.axes)
        return TensorType(kept)

    @property
    def mixes_images(self) -> bool:
        return 0 in self.axes

    def nan_propagates(self, *weights: F32) -> bool:
        return True

    def terms_of(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(terms, sums): the terms of each sum, in row order."""
        axes = tuple(sorted(self.axes))
        count = math.prod(x.shape[i] for i in axes)
        return np.ascontiguousarray(np.moveaxis(x, axes, range(len(axes))).reshape(count, -1))

    def _shape(self, x: npt.NDArray[Any]) -> tuple[int, ...]:
        return self.type(TensorType(x.shape)).shape

    def _chain(self, x: F32) -> tuple[F32, int]:
        """+0 + term 0 + term 1 + ..., and how many terms."""
        terms = self.terms_of(x)
        total = np.zeros(terms.shape[1], np.float32)
        with np.errstate(all="ignore"):
            for term in terms:
                total += term
        return total, len(terms)

    def numbers_at(self, x: F32, at: Index) -> npt.NDArray[np.int64]:
        """The flat places of the terms of the element `at`, in row order."""
        i = int(np.ravel_multi_index(at, self._shape(x))) if at else 0
        return self.terms_of(np.arange(x.size).reshape(x.shape))[:, i]

    def values_at(self, x: F32, at: Index) -> F32:
        """The terms of the element `at`, in row order."""
        return np.ascontiguousarray(x).reshape(-1)[self.numbers_at(x, at)]

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms | Derivation:
        (x,) = inputs
        places = np.stack(np.unravel_index(self.numbers_at(x, at), x.shape), 1)
        divisor = len(places) if self.averages else 1
        return Terms("add", "data", x[tuple(places.T)], places, divisor=divisor)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


@dataclass(frozen=True, repr=False)
class SumOverAxes(_Reduce, Reduction):
    """Base of sum and mean. The terms that a recipe orders are numbered in row order.

    A mean may be divided in two steps: by the size of the last axis that is summed, then by the others'
    (`divide_w_h`).
    """

    pads: ClassVar[bool] = False

    def terms(self, *inputs: TensorType) -> int:
        return math.prod(inputs[0].shape[i] for i in self.axes)

    def windows(self, *inputs: TensorType) -> Windows:
        return Windows((1, 1))

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        (x,) = inputs
        y = self._summed(program, np.ascontiguousarray(self.terms_of(x).T), x.shape[max(self.axes)], engine)
        return y.reshape(self._shape(x)) if places is None else y[places]

    def _summed(self, program: Program, rows: F32, last: int, engine: Engine) -> F32:
        """(sums, terms) -> (sums,), divided as the program says; last: the size of the last axis summed."""
        count = np.float32(rows.shape[1])
        if program.finish == "divide_terms":
            return engine.row_sums(rows / count, program.expr)
        sums = engine.row_sums(rows, program.expr)
        if program.finish == "divide":
            sums /= count
        elif program.finish == "reciprocal":
            sums *= np.float32(1) / count
        elif program.finish == "divide_w_h":
            sums /= np.float32(last)
            sums /= np.float32(rows.shape[1] // last)
        return sums


@dataclass(frozen=True, repr=False)
class ReduceSum(SumOverAxes):
    """y = the sum of x over `axes`

    count: the number of elements of each sum, if known; with 1 or 2 there is only one right result.

    Plain: +0 + x0 + x1 + ... in row order.

    Bound, any order: gamma(n - 1) * sum |x|; additions do not underflow.

    Golden: the exact sum, rounded once; zeros, NaN, infinities and the error as for Add of more than two.

    Source: ONNX ReduceSum, torch.sum, MXNet sum (with `vector`, for all axes without keepdims).
    """

    count: int | None = None

    zero_sign_unspecified: ClassVar[bool] = True  # a sum from +0 makes +0 of -0, a copy does not

    @property
    def exactly_specified(self) -> bool:
        return self.count in (1, 2)

    def type(self, *inputs: TensorType) -> TensorType:
        kind = super().type(*inputs)
        count = self.terms(*inputs)
        self._expect(self.count in (None, count), f"a sum of {inputs[0]!r} has {count} terms")
        return kind

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int]:
        return (min(largest, (EXACT_INTEGER - 1) // self.terms(*inputs)),), 1

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return self._chain(inputs[0])[0].reshape(self._shape(inputs[0]))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        if self.exactly_specified:
            return self.run(*inputs, engine=exact.engine)
        return exact.sum(type(self).__name__, self.terms_of(inputs[0])).reshape(self._shape(inputs[0]))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        shape, n = self._shape(x.center), len(self.terms_of(x.center))
        with np.errstate(all="ignore"):
            center, spread, total = (
                self.terms_of(a).sum(0).reshape(shape) for a in (x.center, x.radius, x.magnitude)
            )
            return outward(center, spread + (gamma(n - 1) + n * U64) * total, total, n)


@dataclass(frozen=True, repr=False)
class ReduceMean(SumOverAxes):
    """y = the mean of x over `axes`

    Plain: +0 + x0 + x1 + ... in row order, then one division by their number n.

    Bound, any order: gamma(n + 1) * sum |x| / n + (n + 1) * ETA/2, as for AvgPool.

    Golden: the exact sum, divided by n, rounded once; zeros, NaN and infinities as for AvgPool.

    Source: ONNX ReduceMean, torch.mean, MXNet mean (with `vector`, for all axes without keepdims).
    """

    averages: ClassVar[bool] = True

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int]:
        """Each element is a multiple of the divisor, so that quotients are integers too."""
        n = self.terms(*inputs)
        return (min(largest, (EXACT_INTEGER - 1) // (n * n)),), n

    def run(self, *inputs: F32, engine: Engine) -> F32:
        total, count = self._chain(inputs[0])
        with np.errstate(all="ignore"):
            return (total / np.float32(count)).reshape(self._shape(inputs[0]))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        rows = np.ascontiguousarray(self.terms_of(inputs[0]).T)[:, None, None, :]  # (sums, 1, 1, terms)
        geometry = PoolGeometry((1, rows.shape[3]), (1, 1), (0, 0), (1, 1))
        return exact.average(type(self).__name__, rows, geometry, True).reshape(self._shape(inputs[0]))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        shape = self._shape(x.center)

        def mean(a: F64) -> F64:
            means: F64 = self.terms_of(a).mean(0).reshape(shape)
            return means

        with np.errstate(all="ignore"):
            n = len(self.terms_of(x.center))
            return average_bound(mean(x.center), mean(x.radius), mean(x.magnitude), n, n)
