"""Sine and cosine as ops: functions of one number that are not monotonic, of arguments of any size."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.engine import Engine
from refnet.core.op import F64, Interval
from refnet.core.rounding import MAX
from refnet.ops.function import LIBRARY, LOST, Function, decimal_pi

WIDE = 2.0**-50
"""Absolute error of the loops where the middle of an interval is no float32."""


class _Periodic(Function):
    """What both share.

    Bound: LIBRARY |y| + LOST: a library takes multiples of pi/2 off with enough digits, so its error is
    relative near the zeros, too. For x within R of c the value moves by at most |f'(c)| R + R**2 / 2, since
    |f''| <= 1, and at most by R. An infinity, and an interval that reaches beyond float32, has no bound.
    """

    error: ClassVar[float] = 2.0**-48
    work: ClassVar[int] = 20
    slope: ClassVar[str]

    def inaccuracy(self, x: Interval, size: F64) -> F64:
        between = x.center != x.center.astype(np.float32)
        return LIBRARY * size + LOST + np.where(between, WIDE, 0.0)

    def largest(self, x: Interval, size: F64) -> F64:
        return np.where(x.magnitude <= MAX, np.minimum(size, 2.0), np.nan)

    def _move(self, x: Interval, y: F64, engine: Engine) -> F64:
        steep = np.abs(engine.real(self.slope, x.center)) * (1 + 2.0**-40) + 2 * WIDE
        moved: F64 = np.minimum(x.radius, steep * x.radius + 0.5 * x.radius**2) * (1 + 2.0**-40)
        return np.minimum(moved, 2.0)

    def rational(self, x: Fraction) -> Fraction | None:
        """f(0); any other is transcendental (Lindemann)."""
        return Fraction(self.real(Decimal(0))) if x == 0 else None


@dataclass(frozen=True, repr=False)
class Sin(_Periodic):
    """y = sin x, x in radians; NaN for an infinity

    Plain: loops/trigonometry.py's in float64, rounded once: multiples of pi/2 are taken off with 2/pi to
    2**-138, so the result has all its digits for arguments of any size.

    Bound: LIBRARY |y| + LOST for a function of a library, as for Tanh; see `_Periodic`.

    Source: ONNX Sin, torch.sin, MXNet sin.
    """

    loop: ClassVar[str] = "sin"
    slope: ClassVar[str] = "cos"
    formula: ClassVar[str] = "sin x"

    def real(self, x: Decimal) -> Decimal:
        return decimal_sine(x, 0)


@dataclass(frozen=True, repr=False)
class Cos(_Periodic):
    """y = cos x, x in radians; NaN for an infinity

    Plain and bound: as for Sin.

    Source: ONNX Cos, torch.cos, MXNet cos.
    """

    loop: ClassVar[str] = "cos"
    slope: ClassVar[str] = "sin"
    formula: ClassVar[str] = "cos x"

    def real(self, x: Decimal) -> Decimal:
        return decimal_sine(x, 1)


def decimal_sine(x: Decimal, quarters: int) -> Decimal:
    """sin(x + quarters pi/2) in the current decimal context; x below 10**39 takes as many digits of it."""
    half_pi = decimal_pi() / 2
    whole = (x / half_pi).to_integral_value()
    quarters += int(whole)
    r = x - whole * half_pi
    term = total = Decimal(1) if quarters % 2 else r
    with localcontext() as context:
        least = Decimal(10) ** -context.prec
    n = 1 if quarters % 2 else 2
    while abs(term) > abs(total) * least:
        term = -term * r * r / (n * (n + 1))
        total += term
        n += 2
    return -total if quarters & 2 else total
