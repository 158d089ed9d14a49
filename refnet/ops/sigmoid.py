"""Where any float32 sigmoid may lie: the forms with an exp, and ONNX Runtime's rational function.

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

import numpy as np

from refnet.core.op import F64, Interval
from refnet.core.rounding import EXP_ABSOLUTE, U64, U, exp_relative, gamma, outward

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
