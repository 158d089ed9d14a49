"""Operations on the bits of float32 and SSE's minimum and maximum: the frameworks' own functions use them."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.loops.fma import fma
from refnet.loops.jit import njit


@njit
def multiply_add(a: Any, b: Any, c: Any, fused: bool) -> Any:
    """a * b + c in float32 or float64: one rounding if fused, else the product is rounded first."""
    return fma(a, b, c) if fused else a * b + c


@njit
def power_of_two(n: Any) -> Any:
    """2**n in float32 for an int32 n between -126 and 127, made of its exponent's bits; n = -127 gives +0."""
    return np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@njit
def scaled(y: Any, n: Any) -> Any:
    """y * 2**n for an int32 n between -252 and 254, by two powers of two.

    If y is between 1/2 and 2, a subnormal result is rounded only once.
    """
    half = np.int32(n >> np.int32(1))
    return (y * power_of_two(half)) * power_of_two(np.int32(n - half))


@njit
def least(a: Any, b: Any) -> Any:
    """What the instruction MINPS gives: a if a < b, else b; so b where either is NaN."""
    return a if a < b else b


@njit
def largest(a: Any, b: Any) -> Any:
    """What the instruction MAXPS gives: a if a > b, else b; so b where either is NaN."""
    return a if a > b else b
