"""Golden values: each the exact real result of an op's formula on its float32 inputs, rounded once.

Every op goes the same way: a float64 evaluation with a proven error decides almost all elements
(kernels/exact.py, `decide`); the few that it leaves open are computed exactly. Sums of products go
through the fixed-point accumulator; formulas with a root or an exponential through rational comparison
or decimals of growing precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from refnet.ops.base import F32, F64
from refnet.ops.rounding import U64


@dataclass
class Tally:
    """Per op: how many elements were computed, and how many of them a float64 evaluation left open.

    >>> tally = Tally()
    >>> tally.count("Conv", 1000, 2)
    >>> tally.by_op
    {'Conv': (1000, 2)}
    """

    by_op: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count(self, op: str, elements: int, opened: int) -> None:
        """Add one node's figures."""
        before = self.by_op.get(op, (0, 0))
        self.by_op[op] = (before[0] + elements, before[1] + opened)


Refine = Callable[[npt.NDArray[np.int64], F32], None]


def settle(
    op: str, center: F64, error: F64, refine: Refine, threads: int = 1, tally: Tally | None = None
) -> F32:
    """Round `center` where `error` decides; refine(at, y) must write the flat indices `at` of y."""
    from refnet.kernels.exact import decide

    return finish(op, *decide(center, error, threads), refine, tally)


def finish(op: str, y: F32, at: npt.NDArray[np.int64], refine: Refine, tally: Tally | None = None) -> F32:
    """y with its open elements, at the flat indices `at`, refined; both are counted."""
    if tally is not None:
        tally.count(op, y.size, at.size)
    if at.size:
        refine(at, y)
    return y


def nearest(compare: Callable[[Fraction], int], guess: float) -> np.float32:
    """The float32 nearest to a real number y, ties to even, from comparisons alone.

    compare(m) is the sign of y - m for a rational m. guess is a float64 near y. The candidates are the
    float32 around the guess; the midpoints between neighbours are rational, so `compare` settles them.
    """
    with np.errstate(all="ignore"):
        candidate = np.float32(guess)
        if not np.isfinite(candidate):
            candidate = np.float32(np.copysign(np.finfo(np.float32).max, guess))
        for direction in (np.float32(np.inf), np.float32(-np.inf)):
            while np.isfinite(candidate):
                side = compare(_midpoint(candidate, direction)) * int(np.sign(direction))
                if side < 0 or (side == 0 and not _odd(candidate)):
                    break
                candidate = np.nextafter(candidate, direction)
    if candidate == 0:
        return np.float32(-0.0) if compare(Fraction(0)) < 0 else np.float32(0.0)
    return candidate


def _odd(value: np.float32) -> bool:
    return bool(int(value.view(np.uint32)) & 1)


def _midpoint(value: np.float32, towards: np.float32) -> Fraction:
    """Halfway to the neighbour; beyond the largest finite float32 the neighbour is 2**128."""
    other = np.nextafter(value, towards)
    limit = Fraction(2) ** 128
    end = Fraction(float(other)) if np.isfinite(other) else (limit if other > 0 else -limit)
    return (Fraction(float(value)) + end) / 2


def by_decimals(evaluate: Callable[[], tuple[Decimal, Decimal]], guess: float) -> np.float32:
    """The nearest float32 of a number that is no midpoint, by decimals of growing precision.

    evaluate() returns (value, bound of its error) in the precision of the current decimal context. It
    must be known that the number is rational only if the first precisions settle it; otherwise this
    would not end.
    """

    def compare(m: Fraction) -> int:
        digits = 40
        while True:
            with localcontext() as context:
                context.prec = digits
                context.Emin, context.Emax = -999999, 999999
                value, error = evaluate()
                gap = value - Decimal(m.numerator) / Decimal(m.denominator)
                slack = error + abs(value) * Decimal(10) ** (2 - digits)
                slack += abs(gap - value) * Decimal(10) ** (2 - digits)
                if abs(gap) > slack:
                    return 1 if gap > 0 else -1
            digits *= 2

    return nearest(compare, guess)


def sum_error(terms: int, total: F64) -> F64:
    """Error of a float64 sum of exact terms in any order: (terms + 2) U64 times the sum of their sizes."""
    return error_factor(terms) * total


def error_factor(terms: int) -> float:
    """(terms + 2) U64 and a little, what `sum_error` multiplies the sum of sizes with."""
    return (terms + 2) * U64 * (1 + 2.0**-20)
