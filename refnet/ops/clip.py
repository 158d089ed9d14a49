"""Numbers cut at two limits, as in ReLU6, with the formulas of frameworks for zeros and NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refnet.core.by_recipe import CLIP_DROPS, CLIP_KEEPS
from refnet.core.element import Derivation, Index, given
from refnet.core.engine import CLIP, NOTHING, Engine, Epilogue
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Fusable, Interval, TensorType
from refnet.core.orders import Choice, Expr, Program


@dataclass(frozen=True, repr=False)
class Clip(Fusable):
    """y = min(max(x, low), high)

    Only one right result, except where frameworks differ: the sign of a zero, and NaN. If low > high, y is
    high.

    Bound: the radius stays, since |clip(a) - clip(b)| <= |a - b|; nothing is promised for NaN.

    Formulas: see `formulas`; they differ in -0 and NaN only, and only where low is 0.

    Source: ONNX Clip, torch.clamp, torch.nn.ReLU6.
    """

    formulas: ClassVar[Mapping[str, str]] = {
        "plain": "min(max(x, low), high), NaN if NaN, -0 becomes +0",
        "keeps": "low if x < low, high if x > high, else x, so -0 and NaN stay (MXNet's clip, torch.clamp)",
        "drops": "min(x, high) if x > 0, else +0, for NaN too (oneDNN's bounded relu, which MXNet joins "
        "with a convolution)",
    }
    joined_only: ClassVar[frozenset[str]] = frozenset({"drops"})

    low: float = -np.inf
    high: float = np.inf

    activation: ClassVar[bool] = True
    zero_sign_unspecified: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    @property
    def menu(self) -> tuple[str, ...]:
        return tuple(self.formulas) if self.low == 0 else ()

    @property
    def needs_recipe(self) -> bool:
        return bool(self.menu)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        for name, limit in (("low", self.low), ("high", self.high)):
            self._expect(float(np.float32(limit)) == limit, f"{name} must be a float32, got {limit!r}")
        return inputs[0]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.apply(inputs[0], self.add_step(NOTHING, engine=engine))

    @property
    def step(self) -> str:
        return CLIP

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def add_step(self, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        return before.then(CLIP, np.array([self.low], np.float32), np.array([self.high], np.float32))

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        return isinstance(do, Choice) and self.steps_by(do.formula)

    def runs_formula(self, formula: str) -> bool:
        return formula == "plain"

    def steps_by(self, formula: str) -> bool:
        """The step's low is +0, and it cuts at high last: with another the formula is not its own."""
        return formula in ("keeps", "drops") and self.high > 0 and not np.signbit(self.low)

    def add_step_by(self, formula: str, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        kind = CLIP_KEEPS if formula == "keeps" else CLIP_DROPS
        return before.then(kind, np.array([self.low], np.float32), np.array([self.high], np.float32))

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        (x,) = inputs
        low, high = np.float32(self.low), np.float32(self.high)
        if formula == "plain":
            return self.run(x, engine=engine)
        if self.steps_by(formula):
            return engine.apply(x, self.add_step_by(formula, NOTHING, engine=engine))
        if formula == "keeps":
            return np.where(x > high, high, np.where(x < low, low, x))
        return np.where(x > 0, np.minimum(x, high), np.float32(0))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = inputs[0][at]
        y = self.run(np.full((1,), x), engine=exact.engine)[0]
        if not np.isfinite([x, y]).all():
            return Derivation((), y)
        what = f"min(max(x, {self.low!r}), {self.high!r})"
        return Derivation((given("x", "the input element", x), given("y", what, y)), y)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        center = np.minimum(np.maximum(x.center, self.low), self.high)
        return Interval(center, np.where(np.isnan(center), np.inf, x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 2 * inputs[0].size)
