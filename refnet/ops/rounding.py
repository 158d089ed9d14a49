"""The error constants that every bound is built from, and the two ways to widen a bound soundly.

Model of float32 (IEEE 754, round to nearest even): fl(a op b) = (a op b)(1 + d) + e with |d| <= U and
|e| <= ETA / 2, where e = 0 for additions (a subnormal sum is exact) and d = 0 where e != 0. Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., chapter 2; k roundings in a row multiply a
term by (1 + t) with |t| <= gamma(k), lemma 3.1.
"""

from __future__ import annotations

import math

import numpy as np

from refnet.ops.base import F64, Interval

U = 2.0**-24
"""Unit roundoff of float32."""
ETA = 2.0**-149
"""Smallest positive float32."""
U64 = 2.0**-53
"""Unit roundoff of float64."""
MAX = float(np.finfo(np.float32).max)
"""Largest finite float32."""
EXP_RELATIVE = 2.0**-22
"""Assumed accuracy of a framework's float32 exp: relative error at most 4 U (about 2 ulp)."""
EXP_ABSOLUTE = 2.0**-125
"""Assumed of a framework's exp besides: results below it may become 0. oneDNN makes 2^n as 2 * 2^(n-1), the
latter by its exponent bits, which are 0 for n = -126: so it loses everything below 2^-125.5 (measured in
MXNet 1.9.1; jit_uni_eltwise_injector.cpp)."""


def gamma(k: float) -> float:
    """k U / (1 - k U), an upper bound on what k roundings do to a term; inf where k U reaches 1/2.

    >>> gamma(1) > U
    True
    """
    return k * U / (1 - k * U) * (1 + 2.0**-50) if k * U < 0.5 else math.inf


def outward(center: F64, radius: F64, largest: F64, roundings: int = 8) -> Interval:
    """The interval, widened for the float64 in which the radius itself was computed.

    The radius is a sum of products of nonnegative float64 terms; with fewer than 2**22 of them its own
    relative error is below 2**-30, and gamma is infinite from 2**23 roundings on. largest bounds every
    intermediate result before its roundings, of which there are at most `roundings`: where it reaches
    float32's range, an evaluation may overflow in one order and not in another, and nothing is promised
    (radius inf). NaN anywhere gives inf too.
    """
    radius = radius * (1 + 2.0**-29)
    with np.errstate(all="ignore"):
        safe = largest * (1 + gamma(roundings + 1)) * (1 + 2.0**-28) < MAX
    radius[~safe] = np.inf
    return Interval(center, radius)


def sum_of_products(
    center: F64, spread: F64, total: F64, roundings: int, products: int, terms: int
) -> Interval:
    """The bound of a float32 sum of products, any order, with or without FMA.

    center: the sum in float64. spread: how far the inputs' radii can move it. total: sum of |a||b|.
    roundings: how many a term passes at most (its multiplication, and every addition above it in any
    tree of n terms: n - 1). products: how many multiplications may underflow by ETA / 2 each. terms:
    additions in float64, for the center's own error (terms + 2) U64 total.

    radius = spread + gamma(roundings) total + products ETA / 2 (1 + gamma) + (terms + 2) U64 total
    """
    g = gamma(roundings)
    radius = spread + (g + (terms + 2) * U64) * total + products * (ETA / 2) * (1 + g)
    return outward(center, radius, total + spread, roundings)
