"""Leaky rectifiers: what is negative is multiplied by a slope, a number or a weight."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Step, given
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType
from refnet.core.rounding import ETA, U64, gamma, outward
from refnet.ops.pointwise import place_in, stretched


@dataclass(frozen=True, repr=False)
class LeakyRelu(Op):
    """y = x if x >= 0, slope * x otherwise

    slope: a float32. At most one multiplication: only one right result, except where frameworks differ: the
    sign of a zero (PyTorch and MXNet multiply it too), and NaN (with slope 0 MXNet turns it into 0).

    Bound: |f(a) - f(b)| <= max(1, |slope|) |a - b|. What may be negative is multiplied: U |slope x| + ETA/2.

    Source: ONNX LeakyRelu, torch.nn.LeakyReLU, MXNet LeakyReLU act_type=leaky, and rrelu at inference.
    """

    slope: float

    zero_sign_unspecified: ClassVar[bool] = True
    activation: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True  # so golden is inherited: it is what run gives

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(float(np.float32(self.slope)) == self.slope, "slope must be a float32")
        return inputs[0]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        with np.errstate(all="ignore"):
            y: F32 = np.where(x >= 0, x, np.float32(self.slope) * x)
        return y

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = inputs[0][at]
        y = self.run(np.full((1,), x), engine=exact.engine)[0]
        if not np.isfinite([x, y]).all():
            return Derivation((), y)
        factor = 1.0 if x >= 0 else self.slope
        product = Step("y", f"{factor!r} * x", Fraction(factor) * Fraction(float(x)), y)
        return Derivation((given("x", "the input element", x), product), y)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        below = ~(x.center >= x.radius)  # part of the interval is negative, or NaN
        with np.errstate(all="ignore"):
            center = np.where(x.center >= 0, x.center, self.slope * x.center)
            total = abs(self.slope) * x.magnitude
            product = (gamma(1) + 2 * U64) * total + ETA / 2
            radius = max(1.0, abs(self.slope)) * x.radius + np.where(below, product, 0.0)
        return outward(center, radius, np.where(below, np.maximum(total, x.magnitude), 0.0))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 2 * inputs[0].size)


@dataclass(frozen=True, repr=False)
class PRelu(Op):
    """y = x if x >= 0, slope * x otherwise, where slope is a weight of dimensions `shape`

    channels: the slope is (c,), one per channel (axis 1), or (1,), one for all. Otherwise it broadcasts to x
    as in NumPy.

    Only one right result, and where frameworks differ, as LeakyRelu.

    Bound: f(a, s) - f(b, t), for a slope within rs of t, is max(1, |t|) |a - b| + rs |min(a, 0)|, because
    the negative part of a and its rest move in one direction. A product rounds as LeakyRelu's.

    Source: ONNX PRelu, torch.nn.PReLU, MXNet LeakyReLU act_type=prelu.
    """

    shape: tuple[int, ...]
    channels: bool = True

    zero_sign_unspecified: ClassVar[bool] = True
    activation: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = ("data", "slope")

    @property
    def exactly_specified(self) -> bool:
        return True

    def weight_roles(self) -> tuple[str, ...]:
        return ("slope",)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.shape),)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2)
        x, slope = inputs
        self._expect(slope.shape == self.shape, f"slope is {slope!r}")
        if self.channels:
            fitting = {(1,), x.shape[1:2]}
            self._expect(self.shape in fitting, f"slope must be (1,) or one per channel of {x!r}")
        else:
            self._expect(stretched(self, x, slope) == x, f"slope must broadcast to {x!r}")
        return x

    def run(self, *inputs: F32, engine: Engine) -> F32:
        x, slope = inputs
        with np.errstate(all="ignore"):
            y: F32 = np.where(x >= 0, x, self._placed(slope, x.ndim) * x)
        return y

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = inputs[0][at]
        placed = self._placed(inputs[1], inputs[0].ndim)
        slope = placed[place_in(placed.shape, at)]
        y = self.run(np.full((1, 1), x), np.full((1,), slope), engine=exact.engine)[0, 0]
        if not np.isfinite([x, slope, y]).all():
            return Derivation((), y)
        known = given("x", "the input element", x), given("s", "the slope", slope)
        what, true = "s * x", Fraction(float(slope)) * Fraction(float(x))
        if x >= 0:
            what, true = "x", Fraction(float(x))
        return Derivation((*known, Step("y", what, true, y)), y)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        x, (s, s_radius) = inputs[0], (self._placed(a, inputs[0].center.ndim) for a in _parts(inputs[1]))
        with np.errstate(all="ignore"):
            center = np.where(x.center >= 0, x.center, s * x.center)
            negative = np.maximum(x.radius - x.center, 0.0)  # NaN stays NaN
            total = (np.abs(s) + s_radius) * negative
            product = np.where(negative == 0, 0.0, (gamma(1) + 2 * U64) * total + ETA / 2)
            moved = np.where(s_radius == 0, 0.0, s_radius * negative)
            spread = np.where(x.radius == 0, 0.0, np.maximum(1.0, np.abs(s)) * x.radius)
            radius = spread + moved + product
        return outward(center, radius, np.where(negative == 0, 0.0, np.maximum(total, x.magnitude)))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 2 * inputs[0].size)

    def _placed(self, slope: npt.NDArray[np.floating], rank: int) -> npt.NDArray[np.floating]:
        """The slope with its one dimension on the channels of a value of this rank."""
        return slope.reshape(-1, *(1,) * max(rank - 2, 0)) if self.channels else slope


def _parts(x: Interval) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return x.center, x.radius
