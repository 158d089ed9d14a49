"""The pool that takes the p-norm of its windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, TensorType
from refnet.core.rounding import ETA, U64, U, gamma, outward
from refnet.ops.function import ASSUMED, LIBRARY
from refnet.ops.pool_nd import PoolNd

ROOT = 2.0**-41
"""Relative error of the float64 root, of a number from 2**-LARGEST to 2**62."""
LARGEST = 64
"""The largest p."""


@dataclass(frozen=True, repr=False)
class LpPool(PoolNd):
    """y[n,c,i] = (the sum of |x| ** p in window i) ** (1 / p), padding being 0

    p: a whole number from 1 to 64.

    Plain: acc = +0; acc = acc + |x| * ... * |x| for each place of the kernel, axis by axis, each operation
    rounded; then the root: none for 1, IEEE's for 2, else acc ** (1 / p) in float64, rounded once.

    Bound, any order: the sum s of K terms is off by e = (gamma(K + p) + LIBRARY) s + K p ETA, powers being
    products or a library's; its root by e / (p r**(p - 1)), r the least s ** (1 / p), and by e ** (1 / p).
    The root itself is off by LIBRARY and, for p > 2, by U |ln s| / p, what rounding 1 / p costs, of itself;
    for p = 1 there is none. Inputs in radii move a norm by the norm of the radii. No bound where s may
    overflow.

    Golden: the exact root, rounded once. In float64, with each window scaled by a power of two so that its
    largest |x| lies between 1/2 and 1, s is off by (K + p) U64 and the root by ROOT; what that leaves open is
    decided by s > m ** p. An infinity in a window gives an infinity, a NaN NaN.

    Source: ONNX LpPool, torch.nn.LPPool2d.
    """

    p: int = 2

    assumption: ClassVar[str] = ASSUMED

    def type(self, *inputs: TensorType) -> TensorType:
        self._expect(1 <= self.p <= LARGEST, f"p must be from 1 to {LARGEST}")
        return super().type(*inputs)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        total = np.zeros(self.type(TensorType(inputs[0].shape)).shape, np.float32)
        with np.errstate(all="ignore"):
            for values in self._by_kernel(np.abs(inputs[0]), 0.0):
                power = values.copy()
                for _ in range(self.p - 1):
                    power *= values
                total += power
            if self.p < 3:
                return total if self.p == 1 else np.asarray(np.sqrt(total))
            return self._root(total.astype(np.float64), engine).astype(np.float32)

    def _root(self, s: F64, engine: Engine) -> F64:
        return engine.real("power", s, 1 / self.p, -1.0)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        size = np.abs(inputs[0])
        windows = [np.array(values, np.float64) for values in self._by_kernel(size, 0.0)]
        largest = np.maximum.reduce(windows)
        with np.errstate(all="ignore"):
            exponent = np.frexp(np.where(np.isfinite(largest), largest, 0.0))[1]
            total = sum((np.ldexp(values, -exponent) ** self.p for values in windows), np.zeros(()))
            root = total if self.p == 1 else self._root(total, exact.engine)
            center = np.where((largest == 0) | ~np.isfinite(largest), largest, np.ldexp(root, exponent))
            error = center * (ROOT + (len(windows) + self.p) * U64)
            error = np.where(np.isfinite(largest), error, 0.0)

        def refine(at: Places, y: F32) -> None:
            for place in at:
                s = sum((Fraction(float(v.flat[place])) ** self.p for v in windows), Fraction(0))
                y.reshape(-1)[place] = exact.nearest(self._comparison(s), float(center.flat[place]))

        return exact.round_or_refine(type(self).__name__, center, error, refine)

    def _comparison(self, s: Fraction) -> Callable[[Fraction], int]:
        """The sign of s ** (1 / p) - m, by m."""
        return lambda m: 1 if m < 0 else (s > m**self.p) - (s < m**self.p)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        values, golden = self._window_terms(inputs[0], at)[0], self.golden(*inputs, exact=exact)[at]
        if not np.isfinite(values).all():
            return Derivation((), golden)
        s = sum((abs(Fraction(float(v))) ** self.p for v in values), Fraction(0))
        plain = self.run(*inputs, engine=exact.engine)[at]
        total = Step("s", f"the sum of {values.size} |x|^{self.p}", s)
        with forty_digits():
            true = (decimal(s).ln() / self.p).exp() if s else decimal(s)
        return Derivation((total, Step("y", f"s^(1/{self.p})", true, plain)), golden)

    def _sum(self, x: F64) -> F64:
        total: F64 = sum((values**self.p for values in self._by_kernel(x, 0.0)), np.zeros(()))
        return total

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        terms, p = math.prod(self.kernel), self.p
        with np.errstate(all="ignore"):
            s, most = self._sum(np.abs(x.center)), self._sum(x.magnitude)
            root, moved = s ** (1 / p), self._sum(x.radius) ** (1 / p)
            off = (gamma(terms + p) + (LIBRARY if p > 1 else 0.0) + 2.0**-40) * most + terms * p * ETA
            low = np.maximum(root - moved, 0.0)
            error = off if p == 1 else np.fmin(off / (p * low ** (p - 1)), off ** (1 / p))
            size = root + moved + error
            own = 0.0 if p == 1 else LIBRARY + (U * np.abs(np.log(np.maximum(most, ETA))) if p > 2 else 0.0)
            radius = (moved + error) * (1 + 2.0**-30) + (own + 2.0**-40) * size + ETA
        return outward(root, radius, most, terms + p)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size * math.prod(self.kernel) * self.p)
