"""Maximum and average over windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import Array, PoolGeometry
from refnet.loops.arrays import readonly
from refnet.loops.bits32 import largest
from refnet.loops.jit import njit

RULES = ("running", "columns")
"""How frameworks find the largest element; see max_pool_by."""
LOWEST = np.float32(np.finfo(np.float32).min)


def max_pool(x: Array, geometry: PoolGeometry) -> Array:
    """x (n, c, h, w), either dtype -> (n, c, *output): the largest element of each window."""
    y = np.empty((*x.shape[:2], *geometry.output), x.dtype)
    _max_pool(readonly(x), geometry, y)
    return y


@njit
def _max_pool(x: Any, geometry: Any, y: Any) -> None:
    (kh, kw), (sh, sw), (ph, pw) = geometry.kernel, geometry.stride, geometry.pad
    height, width = x.shape[2:]
    for n, c, i, j in np.ndindex(y.shape):
        top, left = i * sh - ph, j * sw - pw
        best = x.dtype.type(-np.inf)
        for row in range(max(top, 0), min(top + kh, height)):
            for column in range(max(left, 0), min(left + kw, width)):
                v = x[n, c, row, column]
                if v > best or v != v:  # noqa: PLR0124 - the first of equals (+0 and -0 are); NaN wins
                    best = v
        y[n, c, i, j] = best


def avg_pool(x: Array, geometry: PoolGeometry, include_pad: bool) -> Array:
    """x (n, c, h, w), either dtype -> (n, c, *output): the sum of each window, divided by its size.

    include_pad: the size counts the padding, up to `pad` behind the image; otherwise the image's elements.
    """
    y = np.empty((*x.shape[:2], *geometry.output), x.dtype)
    _avg_pool(readonly(x), geometry, include_pad, y)
    return y


@njit
def _avg_pool(x: Any, geometry: Any, include_pad: bool, y: Any) -> None:
    (kh, kw), (sh, sw), (ph, pw) = geometry.kernel, geometry.stride, geometry.pad
    height, width = x.shape[2:]
    for n, c, i, j in np.ndindex(y.shape):
        top, left = i * sh - ph, j * sw - pw
        first_row, last_row = max(top, 0), min(top + kh, height)
        first_column, last_column = max(left, 0), min(left + kw, width)
        total = x.dtype.type(0)  # +0, so the average of nothing but -0 is +0
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                total += x[n, c, row, column]
        if include_pad:  # a window may reach beyond the padding; what lies there counts for nothing
            size = (min(top + kh, height + ph) - top) * (min(left + kw, width + pw) - left)
        else:
            size = (last_row - first_row) * (last_column - first_column)
        # In float64, since a size beyond 2**24 need not be a float32. Below that it is float32's quotient:
        # float64 has more than twice the digits, so rounding once more changes nothing.
        y[n, c, i, j] = np.float64(total) / size


def max_pool_by(x: Array, geometry: PoolGeometry, rule: str) -> Array:
    """The largest of each window of x (n, c, h, w), float32; of equals and of NaN as the rule has it.

    running (MXNet): start from the lowest finite number; row by row, v replaces the largest so far if it is
    greater. So NaN never wins, and of equal elements the first does.
    columns (ONNX Runtime): the largest of each column from its first row on, then of the columns, by MAXPS
    (of equals the later, and NaN only if it is the later). In the last w % 4 columns of the image the
    earlier wins. Columns in the padding count as the lowest finite number.
    """
    y = np.empty((*x.shape[:2], *geometry.output), np.float32)
    _max_pool_by(readonly(x), geometry, RULES.index(rule) == 0, y)
    return y


@njit
def _max_pool_by(x: Any, geometry: Any, running: bool, y: Any) -> None:
    (kh, kw), (sh, sw), (ph, pw) = geometry.kernel, geometry.stride, geometry.pad
    height, width = x.shape[2:]
    for n, c, i, j in np.ndindex(y.shape):
        left = j * sw - pw
        top, bottom = max(i * sh - ph, 0), min(i * sh - ph + kh, height)
        if running:
            best = LOWEST
            for row in range(top, bottom):
                for column in range(max(left, 0), min(left + kw, width)):
                    best = largest(x[n, c, row, column], best)
        else:
            best = _column(x[n, c], top, bottom, left)
            for column in range(left + 1, left + kw):
                best = largest(best, _column(x[n, c], top, bottom, column))
        y[n, c, i, j] = best


@njit
def _column(x: Any, top: int, bottom: int, column: int) -> Any:
    """The largest of one column of a window of x (h, w), by the rule "columns"."""
    width = x.shape[1]
    if column < 0 or column >= width:
        return LOWEST
    best = x[top, column]
    for row in range(top + 1, bottom):
        v = x[row, column]
        best = largest(v, best) if column >= width - width % 4 else largest(best, v)
    return best
