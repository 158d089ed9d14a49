"""What the ops of one float32 variable share: y = f(x), f a function of one real variable.

    plain    f in float64 by the loop of loops/real.py, rounded once, in one pass over memory
    golden   the same value where its proven error leaves one float32; else decimals of growing precision, or,
             where f(x) is rational, the exact fraction
    bound    where f is over the input's interval, and what any float32 evaluation may be off (`inaccuracy`)

A real result of a transcendental f is no midpoint between two float32 except where `rational` says so, so
decimals always decide. An op gives the loop, its error, its decimals and its `inaccuracy`.

**The bound.** f is monotonic, or falls to one minimum and rises from there (`minimum`). So over an interval
it lies between its values at both ends, or the minimum. The loop's own error, for float64 inputs too, is
below SLACK times the value: f's relative change is at most 2**7 times that of x where f does not vanish, and
at a zero of f the ends are moved outward by one float64.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Expr
from refnet.core.rounding import ETA, outward

LIBRARY = 2.0**-21
"""Assumed relative error of a library's float32 function: 8 U, some 4 ulp."""
LOST = 2.0**-125
"""Assumed absolute error besides: results below it may become 0."""
ASSUMED = "the bound assumes library functions of relative error 2^-21, absolute 2^-125"
SLACK = 2.0**-36
HALVED = np.float32(2.0**-60)
"""Below it x/2 + a x**2, 0 < a < 1/2, rounds as x/2 and a little: no midpoint lies between the two."""
HUGE = 10**6
"""Beyond it a function's value is not written down."""
MORE = 140
"""Decimal digits that are computed besides those asked for: near 0 and far below it terms cancel that
much."""


class Function(Op):
    """y = f(x), element by element. A subclass gives f; see this file's first lines.

    loop: its name in loops/real.py. error: the relative error of that loop. formula: f in words. minimum:
    (a, b, m): f falls up to a, rises from b on, and is at least m. halves: f(x) = x/2 + a x**2 + ..., with a
    positive, near 0. limits: whether every framework gives f's limit at both infinities. work: operations per
    element, about.
    """

    loop: ClassVar[str]
    error: ClassVar[float]
    formula: ClassVar[str]
    minimum: ClassVar[tuple[float, float, float] | None] = None
    halves: ClassVar[bool] = False
    limits: ClassVar[bool] = False
    work: ClassVar[int] = 4
    assumption: ClassVar[str] = ASSUMED

    @property
    def parameters(self) -> tuple[float, ...]:
        """What the loop takes besides x."""
        return ()

    def by(self, formula: str, x: F32, engine: Engine) -> F32:
        """The value by a formula of the menu; any shape."""
        raise NotImplementedError

    @abstractmethod
    def real(self, x: Decimal) -> Decimal:
        """f(x) for a finite x, in the current decimal context with MORE digits than are needed."""

    def rational(self, x: Fraction) -> Fraction | None:
        """f(x) if it is rational and may be a midpoint between two float32."""
        return None

    @abstractmethod
    def inaccuracy(self, x: Interval, size: F64) -> F64:
        """How far a float32 evaluation may be from f, at inputs in x, where |f| <= size; ETA apart."""

    def largest(self, x: Interval, size: F64) -> F64:
        """The largest intermediate result of any evaluation."""
        return size

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        for one in fields(self):  # type: ignore[arg-type]
            value = getattr(self, one.name)
            if isinstance(value, float):
                fits = np.isfinite(value) and float(np.float32(value)) == value
                self._expect(bool(fits), f"{one.name} must be a float32")
        return inputs[0]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.real(self.loop, inputs[0], *self.parameters)

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        with np.errstate(all="ignore"):
            return self.by(formula, np.ascontiguousarray(inputs[0]), engine)

    def values(self, x: F64, engine: Engine) -> F64:
        """f in float64."""
        return engine.real(self.loop, x, *self.parameters)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        (x,) = inputs
        with np.errstate(all="ignore"):
            center = self.values(x.astype(np.float64), exact.engine)
            error = np.abs(center) * self.error
            if self.halves:
                small = (np.abs(x) < HALVED) & (x != 0)
                center = np.where(small, np.nextafter(x.astype(np.float64) / 2, np.inf), center)
                error[small] = 0.0

        def refine(at: Places, y: F32) -> None:
            flat = y.reshape(-1)
            for k in at:
                flat[k] = self.refined(float(x.flat[k]), float(center.flat[k]), exact)

        y = exact.round_or_refine(type(self).__name__, center, error, refine)
        return np.where(center == 0, center, y).astype(np.float32)  # the sign of an exact zero

    def refined(self, x: float, guess: float, exact: Exact) -> np.float32:
        """The correctly rounded f(x) of a finite float32."""
        rational = self.rational(Fraction(x))
        if rational is not None:
            return exact.rounded(rational)

        def evaluate() -> tuple[Decimal, Decimal]:
            with more_digits():
                value = self.real(Decimal(x))
            return +value, Decimal(0)

        return exact.by_decimals(evaluate, guess)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        x = inputs[0][at]
        one = np.full((1,), x)
        golden = self.golden(one, exact=exact)[0]
        if not -HUGE < x < HUGE or not np.isfinite(golden):
            return Derivation((), golden)
        rational = self.rational(Fraction(float(x)))
        with forty_digits():
            with more_digits():
                value = self.real(decimal(x)) if rational is None else decimal(rational)
            true = +value if rational is None else rational
            y = Step("y", self.formula, true, self.run(one, engine=exact.engine)[0])
        return Derivation((given("x", "the input element", x), y), golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        with np.errstate(all="ignore"):
            y = self.values(x.center, engine)
            move = self._move(x, y, engine) if x.radius.any() else np.zeros_like(y)
            size = np.abs(y) + move
            radius = move + self.inaccuracy(x, size) + SLACK * size + ETA
            known = ~np.isnan(y) & (self.limits | np.isfinite(x.magnitude))
            return outward(y, radius, np.where(known, self.largest(x, size), np.nan))

    def _move(self, x: Interval, y: F64, engine: Engine) -> F64:
        """How far f moves when x moves within its radius."""
        low = np.nextafter(x.center - x.radius, -np.inf)
        high = np.nextafter(x.center + x.radius, np.inf)
        a, b = self.values(low, engine), self.values(high, engine)
        least, most = np.minimum(a, b), np.maximum(a, b)
        if self.minimum is not None:
            falls, rises, value = self.minimum
            least = np.where((low < rises) & (high > falls), value, least)
        return np.where(x.radius == 0, 0.0, np.maximum(most - y, y - least))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.work * inputs[0].size)


@contextmanager
def more_digits() -> Iterator[None]:
    """The decimal context with MORE digits, and exponents that no float32's function leaves."""
    with localcontext() as context:
        context.prec += MORE
        context.Emin, context.Emax = -999999999, 999999999
        yield


def decimal_pi() -> Decimal:
    """pi in the current decimal context, by the arithmetic-geometric mean."""
    with localcontext() as context:
        context.prec += 10
        a, b, t, p = Decimal(1), 1 / Decimal(2).sqrt(), Decimal(1) / 4, 1
        while abs(a - b) > Decimal(10) ** (5 - context.prec):
            a, b, before = (a + b) / 2, (a * b).sqrt(), a
            t, p = t - p * (before - a) ** 2, 2 * p
        found = (a + b) ** 2 / (4 * t)
    return +found


def decimal_erf(x: Decimal) -> Decimal:
    """erf for |x| <= 12: 2 / sqrt(pi) (x - x**3/3 + x**5/(2! 5) - ...), whose terms are below e**(x**2)."""
    if not x:
        return x
    square, term, total, n = x * x, x, x, 0
    with localcontext() as context:
        least = abs(x) * Decimal(10) ** -context.prec
    while abs(term) > least or n < square:
        n += 1
        term = -term * square / n
        total += term / (2 * n + 1)
    return 2 * total / decimal_pi().sqrt()
