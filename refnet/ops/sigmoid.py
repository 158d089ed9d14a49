"""Sigmoid, and where any float32 evaluation may lie: the forms with an exp, ONNX Runtime's rational one.

**With an exp**: 1/(1 + exp(-x)), e/(1 + e) with e = exp(x), and 1 minus the latter at -x for the other
sign. With exp's assumed error (relative E = exp_relative(|x|), absolute EXP_ABSOLUTE, see rounding.py)
d log(y) = (1 - y) d log(e), so |error| <= y (1 - y) E + EXP_ABSOLUTE + gamma(3) y, the 3 being
sum, division and, in the mirrored form, the difference (there y >= 1/2, so an error relative to 1 - y is
smaller than one relative to y); the first two multiplied by 1 + 2**-20 for second-order terms. An input's
radius R counts R/4, the largest slope; y, and y (1 - y), are then taken at their largest, y + R/4 and
y (1 - y) + R/4 (the slope of y (1 - y) is below 1/4 too). exp(-x) may overflow to inf for x < -88:
1/(1 + inf) = 0 is within EXP_ABSOLUTE of y.

**The rational function**: max(1/2 + r, 0), r = x P(x^2) / Q(x^2) with |x| cut at 18. Its error is absolute,
some 10^-7 with its roundings, which for small y is more than any form with an exp is off. All terms of P
and Q are positive. Term k of either carries its coefficient's rounding, k of x^2, and at most 2 k + 1 of
Horner's products and sums; P's another one of the product by x; and r the quotient's. So r is off by the
relative gamma(1) + (sum over k of gamma(3 k + 3) p_k x^2k) / P + (sum over k of gamma(3 k + 2) q_k x^2k) / Q,
times 1 + 2**-16 for second-order terms; FMA only takes roundings away. The last sum rounds once more. The
error of the function itself is known for an exact x: the difference of both in float64. For x in a radius it
is at most RATIONAL, and the roundings, which grow with |x|, are taken at |x| + R.

Limits: x = -inf gives 0, +inf gives 1, NaN gives NaN; the radius there is that of the formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, Step, decimal, forty_digits, given
from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Choice, Expr, Program
from refnet.core.rounding import EXP_ABSOLUTE, EXP_ASSUMED, U64, U, exp_relative, gamma, outward


@dataclass(frozen=True, repr=False)
class Sigmoid(Op):
    """y = 1 / (1 + exp(-x))

    Plain: e = exp(-x) rounded once to float32; then 1 + e and the division, each rounded.

    Bound: the forms with an exp, and ONNX Runtime's rational function: see this file's first lines.

    Golden: correctly rounded. exp in float64 is off by 2**-50, so y by the relative 2**-48; for x != 0 the
    value is transcendental and no midpoint, so decimals of growing precision decide what is open.

    Formulas, each identical to the framework's on all 2**32 inputs (docs/numerics.md): see `formulas` and
    loops/libm: sleef.py, glibc.py, onednn.py, mlas.py. PyTorch computes a thread's share in pairs of vectors,
    and the remaining elements one by one with glibc.

    Source: MXNet Activation act_type=sigmoid, torch.sigmoid.
    """

    assumption: ClassVar[str] = EXP_ASSUMED
    formulas: ClassVar[Mapping[str, str]] = {
        "sleef": "1 / (1 + e), e = SLEEF's expf(0 - x) (PyTorch with AVX2 or AVX-512)",
        "glibc": "1 / (1 + e), e = glibc's expf(-x) with FMA (PyTorch one by one, MXNet's nd.sigmoid)",
        "glibc-unfused": "as glibc, its code for processors without FMA",
        "onednn": "e = oneDNN's exp(-|x|), q = e / (e + 1), 1 - q for x > 0 (MXNet's Activation)",
        "onednn-unfused": "as onednn, without FMA (SSE4.1, AVX)",
        "mlas": "1/2 + x a(x²) / b(x²), a quotient of polynomials (ONNX Runtime)",
    }

    activation: ClassVar[bool] = True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.sigmoid(inputs[0])

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        return engine.sigmoid_by(inputs[0], "mlas-avx512" if formula == "mlas" else formula)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        return exact_sigmoid(type(self).__name__, inputs[0], exact)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        return explained_sigmoid(inputs[0][at], exact)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        return sigmoid_bound(x)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, 3 * inputs[0].size)


P = (
    2.48287947061529e-01,
    8.51377133304701e-03,
    6.08574864600143e-05,
    1.15627324459942e-07,
    4.37031012579801e-11,
)
Q = (
    9.93151921023180e-01,
    1.16817656904453e-01,
    1.70198817374094e-03,
    6.29106785017040e-06,
    5.76102136993427e-09,
    6.10247389755681e-13,
)
"""Coefficients of x^0, x^2, x^4 ... : onnxruntime/core/mlas/lib/logistic.cpp, which are Eigen's."""
CUT = 18.0
RATIONAL = 2.0**-25
"""Upper bound of the rational function's own error, without roundings: it is at most 1.6e-08, at the cut,
computed for every float32 from 2**-12 to the cut by tests/crosscheck/test_onnx_reader_real.py."""


def rational(x: F64) -> F64:
    """x P(x^2) / Q(x^2) with |x| cut at 18, in float64: about sigmoid(x) - 1/2."""
    x = np.clip(x, -CUT, CUT)
    t = x * x
    quotient: F64 = x * np.polyval(P[::-1], t) / np.polyval(Q[::-1], t)
    return quotient


def sigmoid_bound(x: Interval) -> Interval:
    """Bound of any float32 sigmoid. Shared with RadixSoftmax, whose radix 1 is a sigmoid."""
    with np.errstate(all="ignore"):
        y: F64 = 1.0 / (1.0 + np.exp(-x.center))
        second = 1 + 2.0**-20
        move = np.minimum(x.radius / 4, 1.0)
        reach = exp_relative(np.minimum(x.magnitude, 128.0))  # beyond, exp is 0 or infinity
        error = ((y * (1 - y) + move) * reach + EXP_ABSOLUTE) * second
        error += (gamma(3) + 8 * U64) * (y + move)
        form = np.abs(np.maximum(0.5 + rational(x.center), 0.0) - y)
        form = (np.where(x.radius > 0, RATIONAL, form) + _roundings(x.magnitude)) * second
        form += (gamma(1) + 8 * U64) * (y + move)
    promised = ~np.isnan(y) & np.isfinite(x.radius)  # an input that may be anything may be NaN
    return outward(y, move + np.maximum(error, form), np.where(promised, U, np.nan))


def _roundings(size: F64) -> F64:
    """Bound of the rounding error of r at |x| = size; it grows with size."""
    x = np.minimum(size, CUT)
    t = x * x
    terms, below = np.polyval(P[::-1], t), np.polyval(Q[::-1], t)
    above = np.polyval([gamma(3 * k + 3) * c for k, c in enumerate(P)][::-1], t)
    under = np.polyval([gamma(3 * k + 2) * c for k, c in enumerate(Q)][::-1], t)
    found: F64 = x * (above + terms * (under / below + gamma(1))) / below * (1 + 2.0**-16)
    return found


def exact_sigmoid(op: str, x: F32, exact: Exact) -> F32:
    """The correctly rounded sigmoid; see Sigmoid."""
    with np.errstate(all="ignore"):
        center: F64 = 1.0 / (1.0 + exact.engine.exp(-x.astype(np.float64)))

    def refine(at: Places, y: F32) -> None:
        flat = y.reshape(-1)
        for k in at:
            value = Decimal(float(x.flat[k]))

            def evaluate(value: Decimal = value) -> tuple[Decimal, Decimal]:
                return 1 / (1 + (-value).exp()), Decimal(0)

            flat[k] = exact.by_decimals(evaluate, float(center.flat[k]))

    return exact.round_or_refine(op, center, center * 2.0**-48, refine)


HUGE = 10**6
"""Beyond it e to that power is written down nowhere."""


def explained_sigmoid(x: np.float32, exact: Exact) -> Derivation:
    """The steps of one element. Shared with RadixSoftmax."""
    one, engine = np.full((1,), x), exact.engine
    golden = Sigmoid().golden(one, exact=exact)[0]
    if not -HUGE < x < HUGE:
        return Derivation((), golden)
    with np.errstate(all="ignore"):
        e = np.float32(engine.exp(np.array([-float(x)]))[0])
        total = np.float32(1) + e
    with forty_digits():
        power = (-decimal(x)).exp()
        steps = (
            given("x", "the input element", x),
            Step("e", "exp(-x)", power, e),
            Step("s", "1 + e", 1 + power, total),
            Step("y", "1 / s", 1 / (1 + power), Sigmoid().run(one, engine=engine)[0]),
        )
    return Derivation(steps, golden)
