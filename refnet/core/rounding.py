"""The error constants that every bound is built from, and the two ways to widen a bound soundly.

Model of float32 (IEEE 754, round to nearest even): fl(a op b) = (a op b)(1 + d) + e with |d| <= U and
|e| <= ETA / 2, where e = 0 for additions (a subnormal sum is exact) and d = 0 where e != 0. Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., chapter 2; k roundings in a row multiply a
term by (1 + t) with |t| <= gamma(k), lemma 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from refnet.core.op import F64, FoldableSum, Interval

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
EXACT_INTEGER = 1 << 24
"""Integers up to here, and their multiples of a power of two, are exact in float32."""


def exp_relative(size: F64) -> F64:
    """Relative error of a framework's float32 exp at arguments of at most this size.

    EXP_RELATIVE, and what reducing the argument by n ln 2 costs: without FMA the product is rounded, off by
    U (|x| + 1) at most, and a float32 ln 2 alone is off by U / 16 for each unit of the argument (oneDNN).
    """
    found: F64 = EXP_RELATIVE + 1.125 * U * (size + 1)
    return found


EXP_ASSUMED = "the bound assumes an exp of relative error 2^-22 + 9 * 2^-27 (|x| + 1), absolute 2^-125"
"""What a verdict says that rests on `exp_relative` and EXP_ABSOLUTE."""


def gamma(k: float) -> float:
    """k U / (1 - k U), an upper bound on what k roundings do to a term; inf where k U reaches 1/2.

    >>> gamma(1) > U
    True
    """
    return k * U / (1 - k * U) * (1 + 2.0**-50) if k * U < 0.5 else math.inf


def outward(
    center: F64, radius: F64, largest: F64, roundings: int = 8, as_sum: FoldableSum | None = None
) -> Interval:
    """The interval, widened for the float64 in which the radius itself was computed.

    The radius is a sum of products of nonnegative float64 terms; with fewer than 2**22 of them its own
    relative error is below 2**-30, and gamma is infinite from 2**23 roundings on. largest bounds every
    intermediate result before its roundings, of which there are at most `roundings`: where it reaches
    float32's range, an evaluation may overflow in one order and not in another, and nothing is promised
    (radius inf). NaN anywhere gives inf too. as_sum: what becomes the interval's `sum`.
    """
    with np.errstate(all="ignore"):
        safe = largest * (1 + gamma(roundings + 1)) * (1 + 2.0**-28) < MAX
        return Interval(np.asarray(center), np.where(safe, radius * (1 + 2.0**-29), np.inf), as_sum)


def sum_of_products(
    center: F64,
    spread: F64,
    total: F64,
    roundings: int,
    products: int,
    terms: int,
    input_abs_sum: float | None = None,
) -> Interval:
    """The bound of a float32 sum of products, any order, with or without FMA.

    center: the sum in float64. spread: how far the inputs' radii can move it. total: sum of |a||b|.
    roundings: how many a term passes at most (its multiplication, and every addition above it in any
    tree of n terms: n - 1). products: how many multiplications may underflow by ETA / 2 each. terms:
    additions in float64, for the center's own error (terms + 2) U64 total. input_abs_sum: that of the
    `FoldableSum` which the interval then has.

    radius = spread + gamma(roundings) total + products ETA / 2 (1 + gamma) + (terms + 2) U64 total
    """
    g = gamma(roundings)
    radius = spread + (g + (terms + 2) * U64) * total + products * (ETA / 2) * (1 + g)
    known = None if input_abs_sum is None else FoldableSum(total, roundings, terms, input_abs_sum)
    return outward(center, radius, total + spread, roundings, known)


def one_sum(parts: Sequence[Interval]) -> tuple[F64, FoldableSum]:
    """The radius of a sum of values that are sums themselves, all terms added in any one order; and that sum.

    A term of part j passes roundings[j] within it, and one addition for each term of the other parts:
    D = max over j of roundings[j] + sum over i != j of terms[i] at most. The part's radius has
    gamma(roundings[j]) size[j] in it already: radius = sum of radius[j] + (gamma(D) - gamma(roundings[j]))
    size[j]. A part without a `sum` is one term, as large as its magnitude.
    """
    sums = [p.sum or FoldableSum(p.magnitude, 0, 1, float(p.magnitude.max(initial=0.0))) for p in parts]
    terms = sum(s.terms for s in sums)
    deepest = max(s.roundings + terms - s.terms for s in sums)
    with np.errstate(all="ignore"):
        radius: F64 = sum(  # type: ignore[assignment]
            p.radius + (gamma(deepest) - gamma(s.roundings)) * s.size
            for p, s in zip(parts, sums, strict=True)
        )
        size: F64 = sum(s.size for s in sums)  # type: ignore[assignment]
    return radius, FoldableSum(size, deepest, terms, sum(s.input_abs_sum for s in sums))


def sum_error(terms: int, total: F64) -> F64:
    """Error of a float64 sum of exact terms in any order: (terms + 2) U64 times the sum of their sizes."""
    return error_factor(terms) * total


def error_factor(terms: int) -> float:
    """(terms + 2) U64 and a little, what `sum_error` multiplies the sum of sizes with.

    The little, a part of 2**-20, holds the products of such errors and the rounding of the sum of sizes, or
    of the norms that bound it, itself: at most (K + 2) U64 of it for sums of K terms, K below 2**32.
    """
    return (terms + 2) * U64 * (1 + 2.0**-20)


def product_grid(units: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
    """`Op.term_grid` of sums of products of the first two inputs, and of the other inputs themselves."""
    return min(units[0] * units[1], *units[2:], math.inf), sizes[0] * sizes[1]


def product_integers(terms: int, largest: int, count: int) -> tuple[tuple[int, ...], int]:
    """`Reduction.exact_integers` of a sum of so many products, perhaps a bias: data, weight and bias.

    Any partial sum of the products is below 2^23, a bias too, and together they stay below 2^24.
    """
    half = EXACT_INTEGER // 2 - 1
    most = min(largest, math.isqrt(half // terms))
    return (most, most, half)[:count], 1
