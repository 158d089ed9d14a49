"""The largest and the smallest: of several values, element by element, and over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, given
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType
from refnet.ops.pointwise import Shapes, place_in, stretched
from refnet.ops.reduce import _Reduce


def _said(what: str, y: np.float32) -> Derivation:
    """The one step of a selection; none for a NaN or an infinity, which are no numbers."""
    return Derivation((given("y", what, y),) if np.isfinite(y) else (), y)


@dataclass(frozen=True, repr=False)
class _Extreme(Op):
    """Base of Max and Min: any number of inputs, which broadcast; `constants` has the shapes of the last ones
    that are weights.
    """

    count: int = 2
    constants: Shapes = ()

    choose: ClassVar[Any]
    word: ClassVar[str]

    combines: ClassVar[bool] = True
    zero_sign_unspecified: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    def weight_roles(self) -> tuple[str, ...]:
        return ("constant",) * len(self.constants)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return tuple(map(TensorType, self.constants))

    def type(self, *inputs: TensorType) -> TensorType:
        self._expect(self.count >= 1, "count >= 1")
        self._count(inputs, self.count)
        self._expect(inputs[self.count - len(self.constants) :] == self.weight_types(), f"{list(inputs)}")
        return stretched(self, *inputs)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        y = np.array(inputs[0], np.float32)
        for x in inputs[1:]:
            y = np.asarray(self.choose(y, x))
        return y

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        values = [x[place_in(x.shape, at)].reshape(1) for x in inputs]
        return _said(f"the {self.word} of {', '.join(str(v[0]) for v in values)}", self._one(values, exact))

    def _one(self, values: list[F32], exact: Exact) -> np.float32:
        found: np.float32 = self.run(*values, engine=exact.engine)[0]
        return found

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        center, radius = inputs[0].center, inputs[0].radius
        for x in inputs[1:]:
            center, radius = self.choose(center, x.center), np.maximum(radius, x.radius)
        center, radius = np.asarray(center), np.broadcast_to(radius, np.shape(center))
        return Interval(center, np.where(np.isnan(center), np.inf, radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, (self.count - 1) * self.type(*inputs).size)


@dataclass(frozen=True, repr=False)
class Max(_Extreme):
    """y = the largest of x0, x1, ..., which broadcast to a common shape

    Only one right result, except where frameworks differ: which zero is the larger one, and NaN, which plain
    keeps.

    Bound: the largest radius, since |max(a) - max(b)| <= max |a - b|; nothing is promised for NaN.

    Source: ONNX Max, torch.maximum.
    """

    choose: ClassVar[Any] = np.maximum
    word: ClassVar[str] = "largest"


@dataclass(frozen=True, repr=False)
class Min(_Extreme):
    """y = the smallest of x0, x1, ..., which broadcast to a common shape

    As Max.

    Source: ONNX Min, torch.minimum.
    """

    choose: ClassVar[Any] = np.minimum
    word: ClassVar[str] = "smallest"


@dataclass(frozen=True, repr=False)
class _ReduceExtreme(_Reduce):
    """Base of ReduceMax and ReduceMin."""

    choose: ClassVar[Any]
    word: ClassVar[str]

    zero_sign_unspecified: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    def nan_propagates(self, *weights: F32) -> bool:
        return False

    def run(self, *inputs: F32, engine: Engine) -> F32:
        found: F32 = self.choose.reduce(self.terms_of(inputs[0]), axis=0)
        return found.reshape(self._shape(inputs[0]))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        y = self.run(*inputs, engine=exact.engine)[at]
        return _said(f"the {self.word} of {len(self.terms_of(inputs[0]))} x", y)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        shape = self._shape(x.center)
        center = self.choose.reduce(self.terms_of(x.center), axis=0).reshape(shape)
        radius = self.terms_of(x.radius).max(0).reshape(shape)
        return Interval(center, np.where(np.isnan(center), np.inf, radius))


@dataclass(frozen=True, repr=False)
class ReduceMax(_ReduceExtreme):
    """y = the largest x over `axes`

    Only one right result, except where frameworks differ: which zero is the larger one, and NaN, which plain
    keeps.

    Bound: the largest radius, as for Max.

    Source: ONNX ReduceMax, torch.amax.
    """

    choose: ClassVar[Any] = np.maximum
    word: ClassVar[str] = "largest"


@dataclass(frozen=True, repr=False)
class ReduceMin(_ReduceExtreme):
    """y = the smallest x over `axes`

    As ReduceMax.

    Source: ONNX ReduceMin, torch.amin.
    """

    choose: ClassVar[Any] = np.minimum
    word: ClassVar[str] = "smallest"
