"""The bounds of float64 sums that golden decides by."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from refnet.core.rounding import sum_error


@pytest.mark.parametrize("lost", [1, 7, 1000, 100_000])
def test_the_error_of_a_sum_that_loses_every_small_term_lies_inside_the_bound(lost):
    """1 + 2**-53 + 2**-53 + ...: each addition is a tie to even, so nothing of the small terms is left."""
    terms = np.full(lost + 1, 2.0**-53)
    terms[0] = 1.0
    found = np.add.accumulate(terms)[-1]
    error = 1 + lost * Fraction(1, 2**53) - Fraction(float(found))
    assert error == lost * Fraction(1, 2**53)
    assert error <= Fraction(float(sum_error(lost + 1, np.float64(terms.sum()))))
