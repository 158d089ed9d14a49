"""Scans: each number alone, at every place of a row, in every length, and of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from refnet.kernels.scans import any_nearer, any_zero
from refnet.loops.jit import njit


@njit
def zeros(x, at, rows, length, pitch, bound):
    return any_zero(x, at, rows, length, pitch, bound)


@njit
def nearer(x, at, rows, length, pitch, bound):
    return any_nearer(x, at, rows, length, pitch, bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_number_anywhere(dtype):
    kinds = np.array([0.0, -0.0, 5e-324, -1e-40, 1e-30, -1e-30, 1, np.nan, np.inf, -np.inf], dtype)
    for length in (1, 2, 15, 16, 17, 40):
        pitch = length + 3
        for number in kinds:
            for bound in (dtype(0), dtype(1e-35), dtype(1)):
                for place in {0, length // 2, length - 1}:
                    x = np.zeros(2 + 3 * pitch, dtype)  # around the rows: 0, and numbers below the bound
                    x[::2] = bound / 2
                    rows = x[2:].reshape(3, pitch)
                    rows[:, :length] = 2
                    rows[1, place] = number
                    given = x, 2, 3, length, pitch, bound
                    assert zeros(*given) == (number == 0), given
                    assert nearer(*given) == (0 < abs(number) < bound), given


def test_no_rows_and_no_elements():
    x = np.zeros(20, np.float32)
    assert not zeros(x, 0, 0, 16, 16, np.float32(1))
    assert not zeros(x, 0, 3, 0, 4, np.float32(1))
    assert not nearer(x + np.float32(0.5), 0, 0, 16, 16, np.float32(1))
