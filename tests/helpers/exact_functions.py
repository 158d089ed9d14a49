"""The functions of one number as fractions, to 60 digits: straight from the formulas, independent of the ops.

erf is a series of fractions' kin (decimals of 200 digits) other than refnet's own: e ** -x**2 times one of
positive terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

from refnet import ops
from refnet.core.op import Op

PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214"
    "8086513282306647093844609550582231725359408128481117450284102701938521105559644622948954930381964428810975"
)
DIGITS = 200
LARGEST = 3000
"""Beyond e ** LARGEST no float32 lies."""


def exponential(x: Decimal) -> Decimal:
    return min(max(x, Decimal(-LARGEST)), Decimal(LARGEST)).exp()


def erf(x: Decimal) -> Decimal:
    if abs(x) > 25:
        return Decimal(1 if x > 0 else -1) * (1 - exponential(-x * x))
    term = total = x
    n = 0
    while abs(term) > abs(total) * Decimal(10) ** (-DIGITS):
        n += 1
        term *= 2 * x * x / (2 * n + 1)
        total += term
    return 2 / PI.sqrt() * exponential(-x * x) * total


def tanh(x: Decimal) -> Decimal:
    a, b = exponential(x), exponential(-x)
    return (a - b) / (a + b)


def gelu(x: Decimal) -> Decimal:
    return x * (1 + erf(x / Decimal(2).sqrt())) / 2


def gelu_tanh(x: Decimal) -> Decimal:
    return x * (1 + tanh((2 / PI).sqrt() * (x + Decimal("0.044715") * x**3))) / 2


def softplus(x: Decimal) -> Decimal:
    return (1 + exponential(x)).ln() if x < LARGEST else x


def elu(alpha: float, scale: float, width: float) -> Callable[[Decimal], Decimal]:
    def formula(x: Decimal) -> Decimal:
        y = x if x > 0 else Decimal(alpha) * (exponential(x / Decimal(width)) - 1)
        return Decimal(scale) * y

    return formula


def hard_sigmoid(alpha: float, beta: float) -> Callable[[Decimal], Decimal]:
    return lambda x: min(max(Decimal(alpha) * x + Decimal(beta), Decimal(0)), Decimal(1))


def power(exponent: float) -> Callable[[Decimal], Decimal]:
    def formula(x: Decimal) -> Decimal:
        y = exponential(Decimal(exponent) * abs(x).ln()) if x else Decimal(0)
        return -y if x < 0 and exponent % 2 == 1 else y

    return formula


def sin(x: Decimal) -> Decimal:
    """The Taylor series at 0 of what is left of whole turns."""
    r = x % (2 * PI)
    term = total = r
    n = 1
    while abs(term) > Decimal(10) ** (-DIGITS):
        n += 2
        term *= -r * r / (n * (n - 1))
        total += term
    return total


def cos(x: Decimal) -> Decimal:
    return 1 - 2 * sin(x / 2) ** 2 if abs(x) < 1 else sin(PI / 2 - x)


def arctan(x: Decimal) -> Decimal:
    """Euler's series, of a ratio of at most 1/2: sums of positive terms."""
    if abs(x) > 1:
        return (PI / 2 if x > 0 else -PI / 2) - arctan(1 / x)
    ratio = x * x / (1 + x * x)
    term = total = x / (1 + x * x)
    n = 0
    while abs(term) > abs(total) * Decimal(10) ** (-DIGITS):
        n += 1
        term *= ratio * 2 * n / (2 * n + 1)
        total += term
    return total


def sinh(x: Decimal) -> Decimal:
    return (exponential(x) - exponential(-x)) / 2


def asinh(x: Decimal) -> Decimal:
    y = (abs(x) + (x * x + 1).sqrt()).ln()
    return y if x > 0 else -y


def arcsin(x: Decimal) -> Decimal:
    return 2 * arctan(x / (1 + (1 - x * x).sqrt()))


@dataclass(frozen=True)
class Exactly:
    """An op and its formula in decimals; positive: whether it needs positive data, from `least` on. most: the
    largest number in size."""

    op: Op
    formula: Callable[[Decimal], Decimal]
    positive: bool = False
    least: float = 0.0
    most: float = float("inf")

    def value(self, x: float | Fraction) -> Fraction:
        """To DIGITS digits."""
        x = Fraction(x)
        with localcontext() as context:
            context.prec, context.Emin, context.Emax = DIGITS, -999999999, 999999999
            return Fraction(self.formula(Decimal(x.numerator) / Decimal(x.denominator)))

    def exact(self, op: Op, at: tuple[int, ...], x: np.ndarray) -> Fraction:
        """As the rules of the ops want it; 0 where there is no value."""
        there = (not self.positive or x[at] > 0) and (not self.least or x[at] >= self.least)
        return self.value(float(x[at])) if there and abs(x[at]) <= self.most else Fraction(0)


ALPHA, SCALE = float(np.float32(1.6732632)), float(np.float32(1.050701))
SIXTH = float(np.float32(1 / 6))

FUNCTIONS = [
    Exactly(ops.Exp(), exponential),
    Exactly(ops.Log(), lambda x: x.ln(), positive=True),
    Exactly(ops.Tanh(), tanh),
    Exactly(ops.Erf(), erf),
    Exactly(ops.Sqrt(), lambda x: x.sqrt(), positive=True),
    Exactly(ops.Abs(), abs),
    Exactly(ops.Power(2.0), lambda x: x * x),
    Exactly(ops.Power(3.0), power(3.0)),
    Exactly(ops.Power(-2.0), power(-2.0), positive=True),
    Exactly(ops.Power(0.75), power(0.75), positive=True),
    Exactly(ops.Softplus(), softplus),
    Exactly(ops.Mish(), lambda x: x * tanh(softplus(x))),
    Exactly(ops.Silu(), lambda x: x / (1 + exponential(-x))),
    Exactly(ops.Gelu(), gelu),
    Exactly(ops.Gelu(tanh=True), gelu_tanh),
    Exactly(ops.Elu(), elu(1, 1, 1)),
    Exactly(ops.Elu(ALPHA, SCALE), elu(ALPHA, SCALE, 1)),
    Exactly(ops.Elu(0.75, 1.0, 0.75), elu(0.75, 1, 0.75)),
    Exactly(ops.Softsign(), lambda x: x / (1 + abs(x))),
    Exactly(ops.HardSigmoid(), hard_sigmoid(float(np.float32(0.2)), 0.5)),
    Exactly(ops.HardSigmoid(SIXTH, 0.5), hard_sigmoid(SIXTH, 0.5)),
    Exactly(ops.Sin(), sin),
    Exactly(ops.Cos(), cos),
    Exactly(ops.Tan(), lambda x: sin(x) / cos(x)),
    Exactly(ops.Sinh(), sinh),
    Exactly(ops.Cosh(), lambda x: (exponential(x) + exponential(-x)) / 2),
    Exactly(ops.Asinh(), asinh),
    Exactly(ops.Acosh(), lambda x: (x + (x * x - 1).sqrt()).ln(), positive=True, least=1.0),
    Exactly(ops.Atanh(), lambda x: ((1 + x) / (1 - x)).ln() / 2, most=1 - 2.0**-24),
    Exactly(ops.Atan(), arctan),
    Exactly(ops.Asin(), arcsin, most=1.0),
    Exactly(ops.Acos(), lambda x: PI / 2 - arcsin(x), most=1.0),
    Exactly(ops.HardSwish(), lambda x: x * min(max(x + 3, Decimal(0)), Decimal(6)) / 6),
]
