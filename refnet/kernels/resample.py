"""Nearest-neighbour upsampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.jit import enough, njit, split

Array = npt.NDArray[Any]


def upsample(x: Array, scale: int, threads: int) -> Array:
    """x (n, c, h, w) -> (n, c, h * scale, w * scale), every element scale x scale times."""
    n, c, h, w = x.shape
    y = np.empty((n, c, h * scale, w * scale), x.dtype)
    threads = enough(threads, y.size)
    planes = np.ascontiguousarray(x).reshape(n * c, h, w)
    split(_upsample, n * c, threads, planes, y.reshape(n * c, h * scale, w * scale), scale)
    return y


@njit
def _upsample(begin: int, end: int, x: Any, y: Any, scale: int) -> None:
    for item in range(begin, end):
        for i in range(y.shape[1]):
            for j in range(x.shape[2]):
                for t in range(scale):
                    y[item, i, j * scale + t] = x[item, i // scale, j]
