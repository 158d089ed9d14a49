"""Sums over the rows of a matrix: in plain order, in float64 with a small depth, and exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from refnet.core.engine import Engine, PoolGeometry
from refnet.core.op import F32, F64

BLOCK = 256
"""Terms that are added first: of n terms none then passes more than BLOCK + n / BLOCK additions."""
CHUNK = 1 << 14
"""Squares of 24-bit integers that an int64 adds without overflow."""


def row_means(x: F32, engine: Engine) -> F32:
    """x (rows, n) -> (rows, 1): +0 + x0 + x1 + ..., then one division by n."""
    rows, n = x.shape
    whole = PoolGeometry((1, n), (1, 1), (0, 0), (1, 1))
    return engine.avg_pool(x.reshape(1, rows, 1, n), whole, True).reshape(rows, 1)


def depth(n: int) -> int:
    """The additions that a term of `blocked_sums` passes at most."""
    return min(n, BLOCK + -(-n // BLOCK))


def blocked_sums(x: F64) -> F64:
    """x (rows, n) -> (rows, 1), in blocks, which are then added: off by depth(n) U64 * (sum |x|) at most."""
    blocks = np.add.reduceat(x, np.arange(0, x.shape[1], BLOCK), axis=1)
    total: F64 = blocks.sum(1, keepdims=True)
    return total


def exact_sums(row: F32) -> tuple[Fraction, Fraction]:
    """The sum of the finite float32 of a row, and that of their squares.

    >>> exact_sums(np.float32([0.5, 3, 2.0**-20]))
    (Fraction(3670017, 1048576), Fraction(10170482556929, 1099511627776))
    """
    mantissas, exponents = np.frexp(row.astype(np.float64))
    integers = (mantissas * 2.0**24).astype(np.int64)
    total, squares = Fraction(0), Fraction(0)
    for exponent in np.unique(exponents):
        own, unit = integers[exponents == exponent], Fraction(2) ** (int(exponent) - 24)
        total += int(own.sum()) * unit
        square = sum(int(np.square(own[i : i + CHUNK]).sum()) for i in range(0, own.size, CHUNK))
        squares += square * unit * unit
    return total, squares
