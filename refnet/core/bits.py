"""When two float32 count as the same bits: the one rule of every comparison in refnet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]


def bit_patterns(array: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """The bit pattern of each float32, in the array's shape.

    >>> [hex(one) for one in bit_patterns(np.float32([1, -0.0]))]
    ['0x3f800000', '0x80000000']
    """
    values = np.asarray(array, np.float32)
    patterns: npt.NDArray[np.uint32] = np.ascontiguousarray(values).reshape(values.shape).view(np.uint32)
    return patterns


def equal_bits(a: F32, b: F32) -> Mask:
    """For each element of two arrays of the same shape, whether the bits are equal.

    All NaN count as equal; +0 and -0 differ. Raises ValueError if the shapes differ.

    >>> equal_bits(np.float32([0, np.nan, 1]), np.float32([-0.0, -np.nan, 1]))
    array([False,  True,  True])
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"arrays of one shape, got {list(np.shape(a))} and {list(np.shape(b))}")
    same: Mask = bit_patterns(a) == bit_patterns(b)
    return same | (np.isnan(a) & np.isnan(b))
