"""Sums that no order of addition can round: there, float32 has one right result after all.

    arrays(op, types, name) -> inputs     made so that no sum of them rounds: `refnet capture --order-free`
    exact_sums(op, inputs) -> mask        proved of any inputs: where every framework must agree to the bit

Both rest on one fact: integers up to 2**24, and their multiples of a power of two, are exact in float32.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from refnet.core.bits import Mask, bit_patterns
from refnet.core.errors import UnsupportedError
from refnet.core.op import F32, Op, Reduction, TensorType
from refnet.core.rounding import ETA, EXACT_INTEGER
from refnet.verification import compute

LARGEST = 255
"""No factor that `arrays` makes is larger, so that one fits the eight bits that any unit should keep."""
SAMPLE = 1024
"""Elements of each input that are looked at first: on ordinary data they show that nothing is exact."""


def exact_sums(op: Op, inputs: Sequence[F32], threads: int | None = None) -> Mask | None:
    """Per element, whether every partial sum in every order, with or without FMA, is exact; None if none is.

    Where it is, all evaluations give the same bits (but for the sign of a zero), those of `op.run`. It is
    proved for sums of products (convolution, dense, weighted sums) and sums; other ops give None.

    Let every x be a multiple of a power of two q, every weight one of r, every bias one of u = qr, which is
    ETA or more. Then each product, and each sum of any of them, is an integer times u. Its size is at most
    S = sum of |weight||x| (+ |bias|); if S < 2**24 u it is a float32, so no step rounds. S is taken from the
    op's own run on absolute values: its partial sums never fall, and are exact as long as they are below
    2**24 u; from the first that is not, every rounded one is 2**24 u or more. So a result below 2**24 u is S
    itself, and elsewhere nothing is claimed. Winograd's and FFT's sums are of other products: they may round.

    >>> from refnet.ops import Dense
    >>> half = np.full((1, 2), 0.5, np.float32)
    >>> exact_sums(Dense(1, bias=False), [half, half])
    array([[ True]])
    >>> exact_sums(Dense(1, bias=False), [half, np.float32([[0.1, 0.3]])]) is None
    True
    """
    if _unit(op, [array.reshape(-1)[:SAMPLE] for array in inputs]) == 0 or not (unit := _unit(op, inputs)):
        return None
    with np.errstate(all="ignore"):
        size = compute.plain(op, [np.abs(array) for array in inputs], threads)
    exact: Mask = size < np.float32(min(EXACT_INTEGER * unit, float(np.finfo(np.float32).max)))
    return exact if exact.any() else None


def _unit(op: Op, inputs: Sequence[F32]) -> float:
    """What every term is a multiple of; 0 if the largest term alone has too many bits for that to help, or if
    the op's values are no sums.

    A part of the inputs has coarser grids and smaller terms: what gives 0 for it gives 0 for all.
    """
    units = [grid(array) for array in inputs]
    sizes = [float(np.abs(array).max(initial=0.0)) for array in inputs]
    found = op.term_grid(units, sizes)
    if found is None:
        return 0.0
    unit, largest = found
    return unit if unit >= ETA and largest < EXACT_INTEGER * unit else 0.0


def grid(array: F32) -> float:
    """The largest power of two of which every element is a multiple: inf for zeros, 0 for NaN and infinities.

    >>> grid(np.float32([0.75, -2, 0])), grid(np.float32([0.1])) == 2.0**-27
    (0.25, True)
    """
    bits = bit_patterns(array).reshape(-1)
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


def arrays(op: Op, types: tuple[TensorType, ...], name: str) -> tuple[F32, ...]:
    """Inputs for a reduction, on which every partial sum in any order is exact, with or without FMA.

    types: of data and weights. name: chooses the numbers, the same on every machine.

    A sum of products: with n terms, factors are nonzero integers of at most m = isqrt((2^23 - 1) / n), so any
    partial sum of products is an integer below 2^23; a bias is one below 2^23; together they stay below 2^24.
    An average over at most a by b elements: each element is a multiple of every divisor that can occur,
    f = lcm(1..a) lcm(1..b) (of a global average: a b), and a b elements of at most m f stay below
    2^24, so that sums, quotients, and sums of quotients are integers below 2^24 too. Data is nonzero,
    because the sign of a sum of nothing but zeros does depend on the order.

    Raises UnsupportedError for an op that is no reduction, or has too many terms (m < 1).

    >>> from refnet.ops import Conv
    >>> x, w = arrays(Conv(2, (3, 3)), (TensorType((1, 4, 5, 5)), TensorType((2, 4, 3, 3))), "conv1")
    >>> int(abs(x).max()) * int(abs(w).max()) * 36 < 2**23, bool((x == 0).any())
    (True, False)
    """
    if not isinstance(op, Reduction) or (made := op.exact_integers(LARGEST, *types)) is None:
        raise UnsupportedError(f"{op!r} is no reduction: it has no order")
    limits, factor = made
    if min(limits) < 1:
        raise UnsupportedError(
            f"{name}: {op.terms(*types)} terms are too many for sums that are exact in float32"
        )
    return tuple(
        _integers(f"0\0{name}\0{i}", kind.shape, most) * np.float32(factor)
        for i, (kind, most) in enumerate(zip(types, limits, strict=True))
    )


def _integers(key: str, shape: tuple[int, ...], most: int) -> F32:
    """Nonzero integers from -most to most. Philox's raw words are fixed by NumPy's promise (NEP 19)."""
    number = int.from_bytes(hashlib.sha256(f"refnet order-free 1\0{key}".encode()).digest()[:16], "little")
    words = np.random.Philox(key=number).random_raw(math.prod(shape))
    size = (words >> np.uint64(1)) % np.uint64(most) + np.uint64(1)
    sign = 1 - 2 * (words & np.uint64(1)).astype(np.int64)
    return (size.astype(np.int64) * sign).astype(np.float32).reshape(shape)
