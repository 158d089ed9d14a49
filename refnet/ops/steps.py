"""Step functions: floor, ceiling, the nearest whole number, the sign. Each has one right result."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, Step, given
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType

KINDS: dict[str, tuple[str, Any]] = {
    "floor": ("the largest whole number up to x", np.floor),
    "ceil": ("the smallest whole number from x on", np.ceil),
    "round": ("the whole number next to x, of two the even one", np.rint),
    "sign": ("-1, 0 or 1, as x is below, at or above 0", np.sign),
}
"""Kind -> its formula in words, and NumPy's function, which has no rounding."""


@dataclass(frozen=True, repr=False)
class StepFunction(Op):
    """y = floor x, ceil x, the even nearest whole number, or the sign of x, as `kind` says

    A whole number next to a float32 is a float32: only one right result, except for the sign of a zero, which
    ONNX does not specify. NaN stays; an infinity too, but for its sign's.

    Bound: each rises with x. So for x within R of c, y lies between its values at c - R and c + R.

    Source: ONNX Floor, Ceil, Round, Sign; torch.floor, ceil, round, sign.

    >>> from refnet.loops.engine import REFERENCE
    >>> StepFunction("round").run(np.float32([0.5, 1.5, -1.75]), engine=REFERENCE)
    array([ 0.,  2., -2.], dtype=float32)
    """

    kind: str

    zero_sign_unspecified: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True  # so golden is inherited: it is what run gives

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}")
        return inputs[0]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            y: F32 = KINDS[self.kind][1](inputs[0])
        return y

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = inputs[0][at]
        y = self.run(np.full((1,), x), engine=exact.engine)[0]
        if not np.isfinite(x):
            return Derivation((), y)
        step = Step("y", KINDS[self.kind][0], Fraction(float(y)), y)
        return Derivation((given("x", "the input element", x), step), y)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        f = KINDS[self.kind][1]
        with np.errstate(all="ignore"):
            y = f(x.center)
            low, high = (np.nextafter(x.center + s * x.radius, s * np.inf) for s in (-1, 1))
            radius = np.where(x.radius == 0, 0.0, np.maximum(f(high) - y, y - f(low)))
        return Interval(y, np.where(np.isnan(y) | np.isnan(radius), np.inf, radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)
