"""Element by element: relu, sigmoid, exp, scale and shift, and the steps that follow a sum."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.by_recipe import CLIP_DROPS, CLIP_KEEPS, RELU_DROPS, RELU_KEEPS
from refnet.core.engine import ADD, BIAS, CLIP, F32, F64, SCALE_SHIFT, Array, Epilogue
from refnet.loops.arrays import readonly
from refnet.loops.fma import fma
from refnet.loops.functions import exp
from refnet.loops.jit import njit


def relu(x: Array) -> Array:
    """x if x > 0, +0 if x <= 0 (so for -0), NaN if NaN; any shape, either dtype."""
    y = np.empty(x.shape, x.dtype)
    _relu(readonly(x).reshape(-1), y.reshape(-1))
    return y


@njit
def _relu(x: Any, y: Any) -> None:
    for i in range(x.size):
        y[i] = 0 if x[i] <= 0 else x[i]  # NaN <= 0 is false


def sigmoid(x: F32) -> F32:
    """1 / (1 + e), e = exp(-x) computed in float64, each of the three results rounded to float32."""
    y = np.empty(x.shape, np.float32)
    _sigmoid(readonly(x).reshape(-1), y.reshape(-1))
    return y


@njit
def _sigmoid(x: Any, y: Any) -> None:
    one = np.float32(1)
    for i in range(x.size):
        e = np.float32(exp(-np.float64(x[i])))
        y[i] = one / (one + e)


def exponential(x: F64) -> F64:
    """exp of functions.py, any shape."""
    y = np.empty(x.shape, np.float64)
    _exponential(readonly(x).reshape(-1), y.reshape(-1))
    return y


@njit
def _exponential(x: Any, y: Any) -> None:
    for i in range(x.size):
        y[i] = exp(x[i])


def scale_shift(x: Array, scale: Array, shift: Array) -> Array:
    """fma(x, scale, shift) with one scale and shift per channel; x (n, c, ...), either dtype.

    This is plain's batch norm; ops/norm.py derives scale and shift from its weights.
    """
    rows = _rows(x)
    y = np.empty_like(rows)
    _scale_shift(rows, _column(scale, rows), _column(shift, rows), y)
    return y.reshape(x.shape)


@njit
def _scale_shift(x: Any, scale: Any, shift: Any, y: Any) -> None:
    """x, y (n, c, rest), scale, shift (c,)."""
    for n, c, i in np.ndindex(y.shape):
        y[n, c, i] = fma(x[n, c, i], scale[c], shift[c])


@np.errstate(all="ignore")  # infinities and NaN are computed with, as in the loops
def apply(x: Array, epilogue: Epilogue, factors: Array | None = None) -> Array:
    """The steps one after another, each rounding as its own node would; x (n, c, ...), either dtype.

    factors (n, c): x is multiplied by these first. A vector is one image of as many channels.
    Raises ValueError if the size of an array to add or of a scale does not fit x.
    """
    rows, others = _rows(x), iter(epilogue.others)
    y = np.array(rows)  # a new array, also where nothing is done
    if factors is not None:
        y = y * np.asarray(factors, x.dtype).reshape(*rows.shape[:2], 1)
    for kind, scale, shift in zip(epilogue.kinds, epilogue.scales, epilogue.shifts, strict=True):
        if kind == BIAS:
            y = y + _column(shift, rows)[:, None]
        elif kind == SCALE_SHIFT:
            y = scale_shift(y, _column(scale, rows), _column(shift, rows))
        elif kind == ADD:
            y = y + np.ascontiguousarray(next(others)).reshape(rows.shape)
        elif kind in (CLIP, CLIP_KEEPS, CLIP_DROPS):
            low, high = np.asarray(scale, x.dtype), np.asarray(shift, x.dtype)
            y = np.where(y < low if kind == CLIP_KEEPS else y <= low, low, y)  # NaN <= low is false
            y = np.where(np.isnan(y), low, y) if kind == CLIP_DROPS else y
            y = np.where(y >= high, high, y)
        elif kind == RELU_KEEPS:
            y = np.where(y < 0, np.zeros((), x.dtype), y)
        elif kind == RELU_DROPS:
            y = np.where(y > 0, y, np.zeros((), x.dtype))
        else:
            y = relu(y)
    return y.reshape(x.shape)


def _rows(x: Array) -> Array:
    """x (n, c, ...) as (n, c, rest), read-only."""
    n, c = x.shape[:2] if x.ndim > 1 else (1, x.size)
    return readonly(x).reshape(n, c, x.size // max(n * c, 1))


def _column(values: Array | None, rows: Array) -> Array:
    """One value per channel of rows (n, c, rest), in its dtype."""
    return readonly(np.asarray(values, rows.dtype).reshape(rows.shape[1]))
