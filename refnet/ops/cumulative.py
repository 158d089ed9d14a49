"""Running sums along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Step, Terms
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType
from refnet.core.rounding import U64, gamma, outward, sum_error
from refnet.ops.row_sums import exact_sums


@dataclass(frozen=True, repr=False)
class CumSum(Op):
    """y[k] = x[0] + ... + x[k] along `axis`

    exclusive: without x[k] itself, so that the first is +0. reverse: from the last element on.

    Plain: y[0] = +0 + x[0]; y[k] = y[k - 1] + x[k], each rounded.

    Bound, any order: gamma(k) * sum |x|; additions do not underflow.

    Golden: each exact sum, rounded once. In float64 it is off by `sum_error`; what that leaves open is added
    as fractions. Sums that hold a NaN, or infinities of both signs, are NaN; an exact 0 is +0.

    Source: ONNX CumSum, torch.cumsum.
    """

    axis: int = 0
    exclusive: bool = False
    reverse: bool = False

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0

    def nan_propagates(self, *weights: F32) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(0 <= self.axis < len(inputs[0].shape), f"axis outside of {inputs[0]!r}")
        return inputs[0]

    def _first(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """x with the axis in front, in the order of the sums; a 0 in front where the own term is left out."""
        moved = np.moveaxis(x, self.axis, 0)
        moved = moved[::-1] if self.reverse else moved
        return np.concatenate([np.zeros_like(moved[:1]), moved[:-1]]) if self.exclusive else moved

    def _back(self, y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.ascontiguousarray(np.moveaxis(y[::-1] if self.reverse else y, 0, self.axis))

    def run(self, *inputs: F32, engine: Engine) -> F32:
        terms = self._first(inputs[0])
        y, total = np.empty_like(terms), np.zeros_like(terms[0])
        with np.errstate(all="ignore"):
            for k, term in enumerate(terms):
                total = total + term
                y[k] = total
        return self._back(y)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        terms = np.ascontiguousarray(self._first(inputs[0]))
        rows = terms.reshape(len(terms), -1)
        with np.errstate(all="ignore"):
            center = np.cumsum(rows.astype(np.float64), 0) + 0.0
            error = sum_error(len(rows), np.cumsum(np.abs(rows).astype(np.float64), 0))
            error = np.where(np.isfinite(center), error, 0.0)

        def refine(at: Places, y: F32) -> None:
            for place in at:
                k, i = divmod(int(place), rows.shape[1])
                y.reshape(-1)[place] = exact.rounded(exact_sums(rows[: k + 1, i])[0])

        y = exact.round_or_refine(type(self).__name__, center, error, refine)
        return self._back(y.reshape(terms.shape))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms | Derivation:
        (x,) = inputs
        count, own = x.shape[self.axis], at[self.axis]
        taken = range(count - 1, own - 1, -1) if self.reverse else range(own + 1)
        taken = taken[:-1] if self.exclusive else taken
        places = np.array([[*at[: self.axis], k, *at[self.axis + 1 :]] for k in taken], np.int64)
        places = places.reshape(-1, x.ndim)
        if not taken:
            zero = np.float32(0)
            return Derivation((Step("y", "the sum of no x", Fraction(0), zero),), zero)
        return Terms("add", "data", x[tuple(places.T)], places)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        with np.errstate(all="ignore"):
            center, spread, total = (np.cumsum(self._first(a), 0) for a in (x.center, x.radius, x.magnitude))
            n = len(total)
            passed = np.array([gamma(k) for k in range(n)]).reshape(-1, *(1,) * (total.ndim - 1))
            found = outward(center, spread + (passed + (n + 2) * U64) * total, total, n)
        return Interval(self._back(found.center), self._back(found.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)
