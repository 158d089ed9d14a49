"""Nearest-neighbour upsampling."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import Array
from refnet.loops.arrays import readonly
from refnet.loops.jit import njit


def upsample(x: Array, scale: int) -> Array:
    """x (n, c, h, w), either dtype -> (n, c, h * scale, w * scale), every element scale x scale times."""
    n, c, h, w = x.shape
    y = np.empty((n, c, h * scale, w * scale), x.dtype)
    _upsample(readonly(x), scale, y)
    return y


@njit
def _upsample(x: Any, scale: int, y: Any) -> None:
    for n, c, i, j in np.ndindex(y.shape):
        y[n, c, i, j] = x[n, c, i // scale, j // scale]
