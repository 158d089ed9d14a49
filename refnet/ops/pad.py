"""Padding as an op of its own: what is added and cut at the ends of each axis. Exactly specified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from refnet.core.element import Derivation, Index
from refnet.core.engine import Array, Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType
from refnet.ops.integers import EXACT
from refnet.ops.layout import copied_or_added


@dataclass(frozen=True, repr=False)
class Pad(Op):
    """y = x with before[i] elements added before it and behind[i] behind it along axis i; negative counts cut

    mode: the values of the added elements. constant: all `value`; edge: the nearest element; reflect:
    mirrored at the nearest element, which is not repeated; wrap: x continued periodically. What is cut is cut
    first: it does not come back by mirrors. value: of integers an int that their type has.

    Source: torch.nn.functional.pad, ONNX Pad.
    """

    before: tuple[int, ...]
    behind: tuple[int, ...]
    mode: Literal["constant", "edge", "reflect", "wrap"] = "constant"
    value: float = 0.0

    any_dtype: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = inputs[0].shape
        self._expect(
            len(self.before) == len(self.behind) == len(shape), f"needs one number per axis of {shape}"
        )
        self._expect(self.mode in ("constant", "edge", "reflect", "wrap"), "mode is unknown")
        cut = zip(shape, self.before, self.behind, strict=True)
        left = [n + min(b, 0) + min(e, 0) for n, b, e in cut]
        self._expect(min(left) > 0, f"leaves nothing of {inputs[0]!r}")
        if self.mode in ("reflect", "wrap"):
            room = [n - (self.mode == "reflect") for n in left]
            fits = all(max(b, e) <= n for b, e, n in zip(self.before, self.behind, room, strict=True))
            self._expect(fits, f"reaches beyond {inputs[0]!r}")
        self._expect(self._has_value(np.dtype(inputs[0].dtype)), f"{inputs[0].dtype} has no {self.value}")
        sizes = tuple(n + b + e for n, b, e in zip(shape, self.before, self.behind, strict=True))
        return TensorType(sizes, inputs[0].dtype)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return np.array(self._around(inputs[0], self.value), order="C")

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        y = self.run(*inputs, engine=exact.engine)
        return copied_or_added(y, inputs[0], lambda numbers: self._around(numbers, 0.0), at)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        whole = isinstance(self.value, int)
        value = float(self.value if whole else np.float32(self.value))
        unknown = whole and abs(self.value) > EXACT
        return Interval(self._around(x.center, value), self._around(x.radius, np.inf if unknown else 0.0))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()

    def _has_value(self, kind: np.dtype[Any]) -> bool:
        if kind.kind == "f":
            return True
        low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
        return self.value == 0 or (isinstance(self.value, int) and low <= self.value <= high)

    def _around(self, x: Array, value: float) -> Array:
        ends = [(max(b, 0), max(e, 0)) for b, e in zip(self.before, self.behind, strict=True)]
        cuts = zip(self.before, self.behind, x.shape, strict=True)
        kept = tuple(slice(max(-b, 0), n - max(-e, 0)) for b, e, n in cuts)
        if self.mode != "constant":
            return np.pad(x[kept], ends, mode=self.mode)
        return np.pad(x[kept], ends, constant_values=x.dtype.type(value or 0))
