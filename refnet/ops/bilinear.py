"""Bilinear resizing as frameworks compute it: positions in float32, the four products in their order.

Axis ── POSITIONS ──── float32 positions along an axis, each step rounded
Both axes ── bilinear ── four weights, each a rounded product of two, and the order of the sum
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.engine import Engine
from refnet.core.op import F32
from refnet.ops.places import Axis, decimal_inverse, divided_positions, inverse, lengths_ratio

Reals = npt.NDArray[Any]
f = np.float32


def divided(axis: Axis) -> Reals:
    """Each position is divided by the scale."""
    return divided_positions(axis)


def multiplied(factor: Callable[[Axis], np.float32], fused: bool = False) -> Callable[[Axis], Reals]:
    """Each position is multiplied by a factor; fused: half an element is subtracted without rounding."""

    def positions(axis: Axis) -> Reals:
        i, half = np.arange(axis.size).astype(f), f(0.5)
        if axis.coordinates == "align_corners":
            return i * (f(axis.length - 1) / f(axis.size - 1)) if axis.size > 1 else i * f(0)
        if axis.coordinates not in ("half_pixel", "pytorch_half_pixel"):
            return divided_positions(axis)
        if axis.coordinates == "pytorch_half_pixel" and axis.size == 1:
            return i * f(0)
        if fused:  # a product of two float32 is exact in float64, and so is the difference
            return ((i + half).astype(np.float64) * float(factor(axis)) - 0.5).astype(f)
        return (i + half) * factor(axis) - half

    return positions


PLACES: Mapping[str, tuple[str, Callable[[Axis], Reals]]] = {
    "ratio": ("position * (in / out), sizes given", multiplied(lengths_ratio)),
    "ratio-fused": ("fma(i + 1/2, in / out, -1/2), sizes given", multiplied(lengths_ratio, True)),
    "inverse": ("position * (1 / scale)", multiplied(inverse)),
    "inverse-fused": ("fma(i + 1/2, 1 / scale, -1/2)", multiplied(inverse, True)),
    "decimal": ("position * (1 / scale), scale as its decimal: 1.7", multiplied(decimal_inverse)),
    "decimal-fused": (
        "fma(i + 1/2, 1 / scale, -1/2), scale as its decimal: 1.7",
        multiplied(decimal_inverse, True),
    ),
}
"""PyTorch's positions: name -> (what is computed, how)."""
ORDERS = {"": ((1, 0, 2, 3), "under 4 channels"), "-wide": ((2, 3, 1, 0), "from 4 channels on")}
"""PyTorch's sums: the first of the products x00, x01, x10, x11 is rounded, the others are added by FMA."""
POSITIONS: Mapping[str, tuple[str, Callable[[Axis], Reals], tuple[int, ...]]] = {
    "products": (
        "float32, position / scale; four products of rounded weights, added row by row (ONNX Runtime)",
        divided,
        (),
    ),
    **{
        name + suffix: (
            f"float32, {text}; products {', '.join(map(str, order))} by FMA (PyTorch, {channels})",
            positions,
            order,
        )
        for suffix, (order, channels) in ORDERS.items()
        for name, (text, positions) in PLACES.items()
    },
}
"""name -> (what is computed, and who does; the positions; in which order products are added by FMA)."""


def bilinear(name: str, x: F32, first: tuple[int, Axis], second: tuple[int, Axis], engine: Engine) -> F32:
    """The value by a formula; first, second: the axes of x, the first before the second."""
    _, positions, order = POSITIONS[name]
    rows, columns = (_neighbours(axis, positions(axis), bool(order)) for _, axis in (first, second))
    terms = []
    for (i, h), (j, w) in ((row, column) for row in rows for column in columns):
        value = np.take(np.take(x, i, first[0]), j, second[0])
        weight = _along(h, first[0], x.ndim) * _along(w, second[0], x.ndim)
        terms.append((value, np.broadcast_to(weight, value.shape)))
    with np.errstate(all="ignore"):
        if not order:
            products = [value * weight for value, weight in terms]
            y: F32 = products[0] + products[1] + products[2] + products[3]
            return y
        total = terms[order[0]][0] * terms[order[0]][1]
    for k in order[1:]:
        value, weight = terms[k]
        flat = (np.ascontiguousarray(a).reshape(-1) for a in (value, weight, total))
        total = engine.fused_multiply_add(*flat).reshape(value.shape)
    return np.ascontiguousarray(total)


def _neighbours(axis: Axis, at: Reals, beyond: bool) -> tuple[tuple[Reals, Reals], tuple[Reals, Reals]]:
    """(index, weight) of the lower and of the upper neighbour.

    beyond: at the end both neighbours are the last element, with the weights of the position behind it
    (PyTorch); else the position is moved there, and each has half (ONNX Runtime).
    """
    last = axis.length - 1
    at = np.maximum(at, f(0))
    if not beyond:
        at = np.minimum(at, f(last))
    low = np.minimum(at.astype(np.int64), last)
    high = np.minimum(low + 1, last)
    share = np.minimum(at - low.astype(f), f(1))
    rest = f(1) - share
    if not beyond:
        share, rest = (np.where(low == high, f(0.5), a) for a in (share, rest))
    return (low, rest), (high, share)


def _along(values: Reals, axis: int, rank: int) -> Reals:
    return values.reshape(*(1,) * axis, -1, *(1,) * (rank - axis - 1))
