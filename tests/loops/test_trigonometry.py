"""The remainder of an argument modulo pi/2: how small it can be, its error, and float64 arguments."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

from refnet.loops import trigonometry
from refnet.prove import quarters
from tests.helpers.exact_functions import DIGITS, PI, sin

TWO_BY_PI = 2 / Fraction(PI)


def nearest_multiples():
    """For each exponent, the m < 2**24 whose m 2**(e - 24) is closest to a multiple of pi/2, and how close.

    It is the denominator of a convergent: none below the next denominator comes closer (Lagrange).
    """
    for e in range(129):
        number = TWO_BY_PI * Fraction(2) ** (e - 24) % 1
        before, now, rest, best = 0, 1, number, (number, 1)
        while now < 1 << 24:
            best = min(best, (abs(now * number - round(now * number)), now))
            rest = 1 / rest
            before, now = now, int(rest) * now + before
            rest -= int(rest)
        yield e, best[1], best[0]


def test_no_float32_is_closer_to_a_multiple_than_2_to_the_minus_30():
    found = [*nearest_multiples()]
    assert min(distance for _, _, distance in found) > Fraction(1, 2**30)
    worst = min(found, key=lambda one: one[2])
    assert worst[:2] == (96, 16367173)  # the one that Kahan and McDonald found: 16367173 * 2**72


def test_the_remainder_keeps_its_proven_error():
    """At the closest argument of each exponent, and at others of all sizes."""
    few = np.random.default_rng(1).integers(0x3F490000, 0x7F800000, 400, dtype=np.uint32).view(np.float32)
    closest = [m * 2.0 ** (e - 24) for e, m, _ in nearest_multiples() if 0.8 < m * 2.0 ** (e - 24) < 2.0**127]
    for x in [*closest, *map(float, few)]:
        for sign in (1.0, -1.0):
            n, r = trigonometry.quarter(sign * x)
            turns = round(Fraction(sign * x) * TWO_BY_PI)
            exact = Fraction(sign * x) - turns * Fraction(PI) / 2
            assert (turns - n) % 4 == 0
            assert abs(Fraction(r) - exact) <= abs(exact) * Fraction(4, 2**53)
            again, (h, low) = quarters.quarters(sign * x)
            assert (turns - again) % 4 == 0
            assert abs(Fraction(h) + Fraction(low) - exact) <= abs(exact) * Fraction(1, 2**71)


def test_the_two_tables_have_the_same_numbers():
    for e in range(129):
        first = sum(map(Fraction, trigonometry.TABLE[e].tolist()))
        second = Fraction(sum(int(w) << 32 * k for k, w in enumerate(quarters.WORDS[e])), 1 << quarters.BITS)
        assert 0 <= first - second < Fraction(1, 2**quarters.BITS) + Fraction(1, 2**137)


def test_float64_arguments_have_an_absolute_error():
    random = np.random.default_rng(2)
    x = np.concatenate([random.uniform(-10, 10, 100), random.uniform(-(2.0**24), 2.0**24, 100)])
    with localcontext() as context:
        context.prec = DIGITS
        for value in x.tolist():
            assert abs(Fraction(trigonometry.sin(value)) - Fraction(sin(Decimal(value)))) < Fraction(1, 2**51)
    assert np.isnan(trigonometry.sin(2.0**24 + 0.1))
    assert np.isnan(trigonometry.cos(1e300))
    assert trigonometry.sin(2.0**25) == np.sin(2.0**25)
