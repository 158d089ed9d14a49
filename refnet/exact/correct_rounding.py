"""Golden values: each the exact real result of an op's formula on its float32 inputs, rounded once.

Every op works the same way: a float64 evaluation with a proven error decides almost all elements
(kernels/decisions.py); the few that remain open are computed exactly. Sums of products go
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

from refnet.core.op import F32, F64


@dataclass
class RefineCount:
    """Counts, per op, the elements computed and those of them that float64 left open.

    >>> refine_count = RefineCount()
    >>> refine_count.count("Conv", 1000, 2)
    >>> refine_count.by_op
    {'Conv': (1000, 2)}
    """

    by_op: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count(self, op: str, elements: int, opened: int) -> None:
        """Add one node's counts."""
        before = self.by_op.get(op, (0, 0))
        self.by_op[op] = (before[0] + elements, before[1] + opened)


Refine = Callable[[npt.NDArray[np.int64], F32], None]


def round_or_refine(
    op: str,
    center: F64,
    error: F64,
    refine: Refine,
    threads: int = 1,
    refine_count: RefineCount | None = None,
) -> F32:
    """Round `center` where `error` decides; refine(at, y) must write the flat indices `at` of y."""
    from refnet.kernels.decisions import decide

    return refined(op, *decide(center, error, threads), refine, refine_count)


def refined(
    op: str,
    y: F32,
    unsure: npt.NDArray[np.bool_],
    refine: Refine,
    refine_count: RefineCount | None = None,
) -> F32:
    """y with its open elements refined; unsure: a flag for each. Counts all elements and the open ones."""
    at = np.flatnonzero(unsure) if unsure.any() else np.zeros(0, np.int64)
    if refine_count is not None:
        refine_count.count(op, y.size, at.size)
    if at.size:
        refine(at, y)
    return y


def nearest(compare: Callable[[Fraction], int], guess: float) -> np.float32:
    """The float32 nearest to a real number y, ties to even, from comparisons alone.

    compare(m) is the sign of y - m for a rational m. The finite float32 are numbered in order, zero being 0.
    y rounds to the first one whose midpoint with the next lies above y (a midpoint itself rounds to the even
    one). The search takes growing steps from the guess, then bisects: a bad guess, for example after
    cancellation, costs at most 64 comparisons.
    """
    with np.errstate(all="ignore"):
        near = np.float32(guess)
    start = 0 if np.isnan(near) else int(near.view(np.int32)) if near >= 0 else -int((-near).view(np.int32))

    def below(k: int) -> bool:
        """Whether y rounds to the k-th float32 or to an earlier one."""
        side = compare((_numbered(k) + _numbered(k + 1)) / 2)
        return side < 0 or (side == 0 and _even(k))

    k = min(max(start, -LAST), LAST)
    low, high, step = k - 1, k, 1
    while high <= LAST and not below(high):
        low, high, step = high, high + step, 2 * step
    while low >= -LAST - 1 and below(low):
        low, high, step = low - step, low, 2 * step
    low, high = max(low, -LAST - 2), min(high, LAST + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if below(middle) else (middle, high)
    if high == 0:
        return np.float32(-0.0) if compare(Fraction(0)) < 0 else np.float32(0.0)
    return np.float32(np.inf * high) if abs(high) > LAST else np.float32(float(_numbered(high)))


def rounded(true: Fraction) -> np.float32:
    """The float32 nearest to a rational, ties to even; an exact 0 is +0.

    >>> rounded(Fraction(1, 10))
    np.float32(0.1)
    """
    try:
        guess = float(true)
    except OverflowError:
        guess = float("inf") if true > 0 else float("-inf")
    return nearest(lambda m: (true > m) - (true < m), guess)


def _even(k: int) -> bool:
    """Whether the last bit of the k-th float32 is 0, so that ties go to it."""
    return k % 2 == 0


LAST = 0x7F7FFFFF
"""The index of the largest finite float32: its bits."""


def _numbered(k: int) -> Fraction:
    """The k-th float32 in order; after the last finite one comes 2**128."""
    size = Fraction(2) ** 128 if abs(k) > LAST else Fraction(float(np.uint32(abs(k)).view(np.float32)))
    return size if k >= 0 else -size


def by_decimals(evaluate: Callable[[], tuple[Decimal, Decimal]], guess: float) -> np.float32:
    """The float32 nearest to a number that is not a midpoint, by decimals of growing precision.

    evaluate() returns (value, bound of its error) in the precision of the current decimal context. Never
    terminates on an exact midpoint; callers must rule midpoints out.
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
