"""How far two arrays are apart: bits, ulps, share of a bound. Numbers; describe.py puts them into words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refnet.core.bits import Mask, bit_patterns, equal_bits
from refnet.core.op import F32, Interval
from refnet.core.words import counted

__all__ = ["Mask", "apart", "differs", "shares", "ulps"]

NAN, OPPOSITE = -1, -2
"""What stands for a distance of something from NaN, and across zero."""


def differs(found: F32, golden: F32) -> Mask:
    """Per element, whether the bits differ; every NaN counts as the same NaN.

    >>> differs(np.float32([0, np.nan, 1]), np.float32([-0.0, -np.nan, 1]))
    array([ True, False, False])
    """
    return ~equal_bits(found, golden)


def shares(found: F32, bound: Interval) -> npt.NDArray[np.float64]:
    """|found - center| / radius per element: at most 1 inside of the bound, NaN where nothing is promised."""
    with np.errstate(all="ignore"):
        distance = np.where(found == bound.center, 0.0, np.abs(found.astype(np.float64) - bound.center))
        share = np.where(distance == 0, 0.0, distance / bound.radius)
    return np.where(np.isfinite(bound.radius), share, np.nan)


def ulps(found: F32, golden: F32) -> npt.NDArray[np.int64]:
    """How many float32 lie between, per element, counting one end; -1 where one of the two is NaN.

    -2 where one is above zero and the other below: there nobody counts. The negative numbers are smaller than
    any distance, so that a maximum is one of them only if nothing can be counted.

    >>> ulps(np.float32([1, -1e-45, np.nan, -0.0]), np.float32([1 + 2**-23, 1e-45, 1, 1e-45]))
    array([ 1, -2, -1,  1])
    """
    a, b = _place(found), _place(golden)
    apart: npt.NDArray[np.int64] = np.where(np.sign(a) * np.sign(b) < 0, OPPOSITE, np.abs(a - b))
    return np.where(np.isnan(found) | np.isnan(golden), NAN, apart)


def apart(ulps: int) -> str:
    """A distance of `ulps` in words.

    >>> apart(37), apart(1), apart(-1), apart(-2)
    ('37 ulps', '1 ulp', 'one is NaN', 'opposite signs')
    """
    return {NAN: "one is NaN", OPPOSITE: "opposite signs"}.get(ulps) or counted(ulps, "ulp")


def _place(array: F32) -> npt.NDArray[np.int64]:
    """The number of each float32 on the line of all of them; both zeros are number 0."""
    bits = bit_patterns(array).astype(np.int64)
    return np.where(bits >> 31, -(bits & 0x7FFFFFFF), bits)
