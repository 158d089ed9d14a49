"""Sums over the parts of split attention (ResNeSt): x (n, radix * c, h, w) holds part 0, part 1, ..."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import F32, Array
from refnet.loops.arrays import readonly
from refnet.loops.fma import fma
from refnet.loops.jit import njit


def radix_sum(x: Array, radix: int) -> Array:
    """x (n, radix * c, h, w), either dtype -> (n, c, h, w): +0 + part 0 + part 1 + ..."""
    n, channels, h, w = x.shape
    parts = readonly(x).reshape(n, radix, channels // radix, h * w)
    y = np.empty((n, channels // radix, h * w), x.dtype)
    _radix_sum(parts, y)
    return y.reshape(n, channels // radix, h, w)


@njit
def _radix_sum(parts: Any, y: Any) -> None:
    for n, c, i in np.ndindex(y.shape):
        total = y.dtype.type(0)  # +0: a sum of nothing but -0 is +0
        for r in range(parts.shape[1]):
            total += parts[n, r, c, i]
        y[n, c, i] = total


def weighted_sum(attention: Array, x: Array, radix: int) -> Array:
    """attention (n, radix * c), x (n, radix * c, h, w), either dtype -> (n, c, h, w): a chain of FMAs."""
    n, channels, h, w = x.shape
    weights = readonly(attention).reshape(n, radix, channels // radix)
    parts = readonly(x).reshape(n, radix, channels // radix, h * w)
    y = np.empty((n, channels // radix, h * w), x.dtype)
    _weighted_sum(weights, parts, y)
    return y.reshape(n, channels // radix, h, w)


@njit
def _weighted_sum(weights: Any, parts: Any, y: Any) -> None:
    for n, c, i in np.ndindex(y.shape):
        total = y.dtype.type(0)
        for r in range(parts.shape[1]):
            total = fma(weights[n, r, c], parts[n, r, c, i], total)
        y[n, c, i] = total


def parts_sum(parts: F32, weights: F32 | None, from_zero: bool) -> F32:
    """parts (n, radix, c, size), weights (n, radix, c) or None -> (n, c, size): rounded products, added.

    This is what frameworks compute, since they use no FMA across operators. from_zero: the sum starts at +0,
    as Python's sum(); otherwise at the first product, which keeps the sign of a zero.
    """
    n, radix, c, size = parts.shape
    y = np.empty((n, c, size), np.float32)
    if weights is None:
        weights = np.ones((n, radix, c), np.float32)  # x * 1 is x
    _parts_sum(readonly(parts), readonly(weights), from_zero, y)
    return y


@njit
def _parts_sum(parts: Any, weights: Any, from_zero: bool, y: Any) -> None:
    for n, c, i in np.ndindex(y.shape):
        total = np.float32(0) if from_zero else np.float32(-0.0)  # -0 + v is v, whatever v is
        for r in range(parts.shape[1]):
            total += weights[n, r, c] * parts[n, r, c, i]
        y[n, c, i] = total
