"""Sums that no order of addition can round: there, float32 has one right result after all.

    exact_sums(op, inputs) -> mask        elements on which every framework must agree to the last bit

Two order-free arrays: factors on coarse power-of-two grids, as `refnet capture --order-free` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refnet.core.op import F32
from refnet.core.rounding import ETA
from refnet.kernels.engine import Fast
from refnet.ops import Add, Conv, ConvAdd, Dense, Op, RadixSum, WeightedSum

Mask = npt.NDArray[np.bool_]

EXACT = 2.0**24
"""Integers up to here are exact in float32."""
SAMPLE = 1024
"""Elements of each input that are looked at first: on ordinary data they show that nothing is exact."""


def exact_sums(op: Op, inputs: Sequence[F32], threads: int = 1) -> Mask | None:
    """Per element, whether every partial sum in every order, with or without FMA, is exact; None if none is.

    Where it is, all evaluations give the same bits (but for the sign of a zero), those of `op.run`. It is
    proved for sums of products (convolution, dense, weighted sums) and sums; other ops give None.

    Let every x be a multiple of a power of two q, every weight one of r, every bias one of u = qr, which is
    ETA or more. Then each product, and each sum of any of them, is an integer times u. Its size is at most
    S = sum of |weight||x| (+ |bias|); if S < 2**24 u it is a float32, so no step rounds. S is taken from the
    op's own run on absolute values: its partial sums never fall, and are exact as long as they are below
    2**24 u; from the first that is not, every rounded one is 2**24 u or more. So a result below 2**24 u is S
    itself, and elsewhere nothing is claimed. Winograd's and FFT's sums are of other products: they may round.

    >>> half = np.full((1, 2), 0.5, np.float32)
    >>> exact_sums(Dense(1, bias=False), [half, half])
    array([[ True]])
    >>> exact_sums(Dense(1, bias=False), [half, np.float32([[0.1, 0.3]])]) is None
    True
    """
    if not isinstance(op, Conv | ConvAdd | Dense | WeightedSum | Add | RadixSum):
        return None
    if _unit(op, [array.reshape(-1)[:SAMPLE] for array in inputs]) == 0 or not (unit := _unit(op, inputs)):
        return None
    with np.errstate(all="ignore"):
        size = op.run(*(np.abs(array) for array in inputs), engine=Fast(threads))
    exact: Mask = size < np.float32(min(EXACT * unit, float(np.finfo(np.float32).max)))
    return exact if exact.any() else None


def _unit(op: Op, inputs: Sequence[F32]) -> float:
    """What every term is a multiple of; 0 if the largest term alone has too many bits for that to help.

    A part of the inputs has coarser grids and smaller terms: what gives 0 for it gives 0 for all.
    """
    units = [grid(array) for array in inputs]
    sizes = [float(np.abs(array).max(initial=0.0)) for array in inputs]
    if isinstance(op, ConvAdd):  # the addend is one of the terms, as a bias is
        order = [0, 2, 1, *range(3, len(units))]
        units, sizes = [units[k] for k in order], [sizes[k] for k in order]
    if isinstance(op, Add | RadixSum):
        unit, largest = min(units), max(sizes)
    else:
        unit, largest = min(units[0] * units[1], *units[2:], math.inf), sizes[0] * sizes[1]
    return unit if unit >= ETA and largest < EXACT * unit else 0.0


def grid(array: F32) -> float:
    """The largest power of two of which every element is a multiple: inf for zeros, 0 for NaN and infinities.

    >>> grid(np.float32([0.75, -2, 0])), grid(np.float32([0.1])) == 2.0**-27
    (0.25, True)
    """
    bits = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint32)
    bits = bits[(bits << np.uint32(1)) != 0]
    if not bits.size:
        return math.inf
    exponent = ((bits >> np.uint32(23)) & np.uint32(255)).astype(np.int32)
    if int(exponent.max()) == 255:
        return 0.0
    digits = ((bits & np.uint32(0x7FFFFF)) | ((exponent > 0).astype(np.uint32) << np.uint32(23))).astype(
        np.int64
    )
    lowest = np.frexp((digits & -digits).astype(np.float64))[1] - 1
    return 2.0 ** int((np.maximum(exponent, 1) - 150 + lowest).min())
