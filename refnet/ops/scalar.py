"""Arithmetic with a number that belongs to the op: x + s, x - s, s - x, x * s, x / s, s / x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Step, given
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.ops.pointwise import Add, Div, Mul, Sub

_NUMBER: tuple[tuple[int, ...], ...] = ((),)
KINDS: dict[str, tuple[str, Add | Sub | Mul | Div]] = {
    "add": ("x + s", Add(2, True, _NUMBER)),
    "sub": ("x - s", Sub(_NUMBER)),
    "rsub": ("s - x", Sub(_NUMBER, swapped=True)),
    "mul": ("x * s", Mul(_NUMBER)),
    "div": ("x / s", Div(_NUMBER)),
    "rdiv": ("s / x", Div(_NUMBER, swapped=True)),
}
"""Kind -> its formula, and the op of two whose constant is s."""


@dataclass(frozen=True, repr=False)
class WithScalar(Op):
    """y = x + s, x - s, s - x, x * s, x / s or s / x, as `kind` says, for the float32 s = `scalar`

    One IEEE operation: only one right result. Value, bound and the quotients' formulas are those of the op of
    two (`KINDS`) with s as its exact constant.

    Source: MXNet _plus_scalar, _minus_scalar, _rminus_scalar, _mul_scalar, _div_scalar, _rdiv_scalar.
    """

    formulas: ClassVar[Mapping[str, str]] = Div.formulas

    kind: str
    scalar: float

    @property
    def menu(self) -> tuple[str, ...]:
        return self.two.menu if isinstance(self.two, Div) else ()

    @property
    def needs_recipe(self) -> bool:
        return bool(self.menu)

    @property
    def exactly_specified(self) -> bool:
        return True

    @property
    def two(self) -> Add | Sub | Mul | Div:
        """The op of x and a constant number."""
        self._expect(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}")
        return KINDS[self.kind][1]

    @property
    def _number(self) -> F32:
        return np.array(self.scalar, np.float32)

    def agrees(self, found: F32, expected: F32, zeros_unknown: bool = False) -> npt.NDArray[np.bool_]:
        return self.two.agrees(found, expected, zeros_unknown)

    def nan_propagates(self, *weights: F32) -> bool:
        return self.two.nan_propagates(self._number)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(float(np.float32(self.scalar)) == self.scalar, "scalar must be a float32")
        return self.two.type(inputs[0], TensorType(()))

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return self.two.run(inputs[0], self._number, engine=engine)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        return self.two.replay(formula, inputs[0], self._number, engine=engine)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x, s = inputs[0][at], np.float32(self.scalar)
        y = self.run(np.full((1,), x), engine=exact.engine)[0]
        divisor = {"div": s, "rdiv": x}.get(self.kind, s)
        if not np.isfinite(x) or (self.kind in ("div", "rdiv") and divisor == 0):
            return Derivation((), y)  # no number is the exact value
        a, b = Fraction(float(x)), Fraction(float(s))
        a, b = (b, a) if self.kind.startswith("r") else (a, b)
        formula = KINDS[self.kind][0]
        true = {"+": a + b, "-": a - b, "*": a * b}[formula[2]] if formula[2] != "/" else a / b
        return Derivation(
            (given("x", "the input element", x), given("s", "the number", s), Step("y", formula, true, y)), y
        )

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        return self.two.bound(inputs[0], Interval.exactly(self._number), engine=engine)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)
