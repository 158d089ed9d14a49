"""The polynomial of erf and gelu: its proven error, proved here, and where the fraction takes over."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from refnet.loops import error_function
from refnet.loops.error_function import HALF, NEAR, NEAR_GELU, SERIES, erf, gelu, quotient, upper
from tests.helpers.bits import floats
from tests.helpers.exact_functions import PI
from tests.helpers.exact_functions import erf as exact_erf

U = 2.0**-53
DIGITS = 90


def exact_series(terms: int = 160) -> list[Decimal]:
    """q in powers of t = z/8 - 1, from its series at z = 0, 2 / sqrt(pi) (1 - z/3 + z**2/(2! 5) - ...)."""
    found = [Decimal(0)] * terms
    for n in range(terms):
        factor = 2 / PI.sqrt() * Decimal(-HALF) ** n / (math.factorial(n) * (2 * n + 1))
        for k in range(n + 1):  # (1 + t)**n
            found[k] += factor * math.comb(n, k)
    return found


def largest(series: list[Decimal]) -> Decimal:
    """At least |the polynomial| for |t| <= 1: the sum of |its coefficients| by Chebyshev's polynomials.

    t T(n) = (T(n + 1) + T(n - 1)) / 2: Horner's scheme with the polynomials for powers.
    """
    total: list[Decimal] = [Decimal(0)]
    for c in reversed(series):
        after = [Decimal(0)] * (len(total) + 1)
        for n, a in enumerate(total):
            after[n + 1] += a if n == 0 else a / 2
            if n:
                after[n - 1] += a / 2
        after[0] += c
        total = after
    return sum((abs(a) for a in total), Decimal(0))


def error_bound(series: np.ndarray) -> float:
    """Relative error of `quotient` for a float32's square: what is left out and coefficients' roundings, from
    the exact difference; the roundings of t and of each fused multiply-add."""
    with localcontext() as context:
        context.prec = DIGITS
        exact = exact_series()
        given = [Decimal(float(c)) for c in series] + [Decimal(0)] * (len(exact) - len(series))
        off = float(largest([a - b for a, b in zip(exact, given, strict=True)]))
    sizes = np.abs(series)
    counts = np.arange(len(series))
    steps = float(((counts + 1) * sizes).sum()) * U * (1 + 64 * U)
    moved = float((counts * sizes).sum()) * U / 2 * (1 + 64 * U)
    return (off + steps + moved) / (math.erf(NEAR) / NEAR * (1 - 2.0**-40))


def test_the_error_is_what_the_first_lines_say() -> None:
    assert error_bound(SERIES) < 30 * U < 2.0**-48


def test_a_wrong_coefficient_is_seen() -> None:
    for n in (0, 5, len(SERIES) - 1):
        wrong = SERIES.copy()
        wrong[n] += 2.0**-45
        assert error_bound(wrong) > 2.0**-48
    assert error_bound(SERIES[:-2]) > 2.0**-48  # fewer terms are too few


def measured(function, exact, x: np.ndarray) -> float:
    """The largest relative error on these float32."""
    worst = 0.0
    with localcontext() as context:
        context.prec = DIGITS
        for v in map(float, x):
            true = exact(Decimal(v))
            worst = max(worst, abs(float((Decimal(float(function(v))) - true) / true)))
    return worst


def between(low: float, high: float, count: int = 60) -> np.ndarray:
    drawn = np.abs(floats((count,), f"{low} {high}")).astype(np.float64)
    return np.float32([low, high, *(low + (high - low) * drawn / drawn.max())])


def exact_gelu(x: Decimal) -> Decimal:
    return x * (1 + exact_erf(x / Decimal(2).sqrt())) / 2


@pytest.mark.parametrize(
    ("function", "exact", "low", "high", "limit"),
    [
        (quotient, lambda z: exact_erf(z.sqrt()) / z.sqrt(), 1e-6, 16.0, 2.0**-48),
        (erf, exact_erf, 1e-6, NEAR, 2.0**-47),
        (erf, exact_erf, np.nextafter(np.float32(NEAR), np.float32(9)), 6.0, 2.0**-47),
        (erf, exact_erf, -7.0, -6.0, 2.0**-47),
        (gelu, exact_gelu, -2.0, -1e-6, 2.0**-44),
        (gelu, exact_gelu, 1e-6, NEAR_GELU, 2.0**-44),
        (gelu, exact_gelu, np.nextafter(np.float32(NEAR_GELU), np.float32(9)), 10.0, 2.0**-44),
        (gelu, exact_gelu, -13.0, np.nextafter(np.float32(-2), np.float32(-9)), 2.0**-44),
    ],
)  # fmt: skip
def test_the_functions_keep_their_errors(function, exact, low, high, limit) -> None:
    found = measured(function, exact, between(low, high))
    assert found < limit
    assert found > 2.0**-60  # it is not the oracle itself


def test_the_fraction_has_enough_levels() -> None:
    """Convergents lie on both sides of the value: two in a row are further apart than either is from it."""
    for a, levels, wanted in ((2.0, error_function.FRACTIONS, 2.0**-51), (4.0 * math.sqrt(2), 20, 2.0**-40)):
        with localcontext() as context:
            context.prec = DIGITS
            last, before = (fraction(Decimal(a), n) for n in (levels, levels - 1))
            assert abs(last - before) / last < Decimal(wanted)
        assert abs(upper(a, levels) - float((1 - exact_erf(Decimal(a) / Decimal(2).sqrt())) / 2)) < 2.0**-40


def fraction(a: Decimal, levels: int) -> Decimal:
    """a + 1/(a + 2/(a + ... levels/a))."""
    f = a
    for n in range(levels, 0, -1):
        f = n / f + a
    return f
