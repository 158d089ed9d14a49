"""Softmax over the parts of a group: over classes, and over the radix of split attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import F32
from refnet.loops.arrays import readonly
from refnet.loops.functions import exp
from refnet.loops.jit import njit


def softmax_parts(x: F32) -> F32:
    """Softmax over the third axis, x (n, groups, parts, m) -> (n, parts, groups, m).

    m = max, e = exp(x - m), s = +0 + e + e + ..., e / s, each rounded to float32; exp itself is computed in
    float64. Parts and groups are swapped, as in rSoftMax of ResNeSt's official code; other softmaxes have one
    group.
    """
    n, groups, parts, m = x.shape
    y = np.empty((n, parts, groups, m), np.float32)
    _softmax_parts(readonly(x), y)
    return y


@njit
def _softmax_parts(x: Any, y: Any) -> None:
    images, groups, parts, size = x.shape
    for n, g, i in np.ndindex((images, groups, size)):
        largest = x[n, g, 0, i]
        for p in range(parts):
            v = x[n, g, p, i]
            if v > largest or v != v:  # noqa: PLR0124 - one NaN makes all of them NaN
                largest = v
        total = np.float32(0)
        for p in range(parts):
            e = np.float32(exp(np.float64(x[n, g, p, i] - largest)))
            y[n, p, g, i] = e
            total += e
        for p in range(parts):
            y[n, p, g, i] /= total
