"""How ops compute golden values: the exact real result of a formula, rounded once to float32.

    Golden ── op.golden(x, w, exact=exact) ── exact.conv(...)              sums: decided or added exactly
                                          └── exact.round_or_refine(...)   any formula, from a bound

Every method decides almost all elements from a float64 evaluation with a proven error, and refines the few
that remain open. `op`, the first argument of most methods, is the kind of op whose counter they increase.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

import numpy as np

from refnet.core.engine import F32, F64, ConvGeometry, Engine, Places, PoolGeometry

Refine = Callable[[Places, F32], None]
"""refine(at, y): write the elements of y at the flat places `at`, each correctly rounded."""


class Exact(Protocol):
    """Correct rounding: exact results of the common formulas, and tools for all others."""

    @property
    def engine(self) -> Engine:
        """The engine that computes in float64, and in float32 where an op has only one right result."""

    # Sums. An exact 0 is +0; a NaN, an infinity times 0, or infinities of both signs make NaN.

    def conv(
        self, op: str, x: F32, w: F32, bias: F32 | None, addend: F32 | None, geometry: ConvGeometry
    ) -> F32:
        """The exact sums of a convolution as `Engine.conv` has it, its bias and addend (n, o, oh, ow)."""

    def dense(self, op: str, x: F32, w: F32, bias: F32 | None) -> F32:
        """x (n, k), w (o, k), bias (o,) -> (n, o): the exact sums."""

    def sum(self, op: str, terms: F32) -> F32:
        """The exact sum over the first axis."""

    def weighted_sum(self, op: str, attention: F32, x: F32) -> F32:
        """attention (n, radix, c), x (n, radix, c, size) -> (n, c, size): sums of products over radix."""

    def average(self, op: str, x: F32, geometry: PoolGeometry, include_pad: bool) -> F32:
        """The exact averages of the windows of x (n, c, h, w), as `Engine.avg_pool` has them."""

    # Formulas.

    def affine(
        self, op: str, x: F32, mean: F64, scale: F64, shift: F64, factor: float, refine: Refine
    ) -> F32:
        """(x - mean) * scale + shift for x (n, c, ...), one of each per channel, rounded once.

        The float64 result must be off by at most factor * (|result| + 2 |shift|); refine computes the rest.
        """

    def round_or_refine(self, op: str, center: F64, error: F64, refine: Refine) -> F32:
        """Round `center` where its error, at most `error`, leaves one float32; refine computes the rest."""

    # One number.

    def nearest(self, compare: Callable[[Fraction], int], guess: float) -> np.float32:
        """The float32 nearest to a real y, ties to even; compare(m) is the sign of y - m."""

    def rounded(self, true: Fraction) -> np.float32:
        """The float32 nearest to a rational, ties to even; an exact 0 is +0."""

    def by_decimals(self, evaluate: Callable[[], tuple[Decimal, Decimal]], guess: float) -> np.float32:
        """The float32 nearest to a real number, by decimals of growing precision.

        evaluate() returns (value, bound of its error) in the current decimal context's precision. Never
        terminates on an exact midpoint between two float32: callers must rule midpoints out.
        """
