"""Convolution and dense layers in plain order: one chain of fused multiply-adds per output."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import Array, ConvGeometry, Epilogue
from refnet.loops.arrays import readonly
from refnet.loops.fma import fma
from refnet.loops.jit import njit
from refnet.loops.pointwise import apply


def conv(x: Array, w: Array, geometry: ConvGeometry) -> Array:
    """x (n, c, h, w), w (o, c / groups, kh, kw), either dtype -> (n, o, oh, ow).

    Source: the definition of a convolution (torch.nn.Conv2d, MXNet Convolution), in the order of its loops.
    Raises ValueError if the weights do not fit the data.
    """
    outputs, channels, kh, kw = w.shape
    if x.shape[1] != channels * geometry.groups or outputs % geometry.groups:
        raise ValueError(f"weights {w.shape} in {geometry.groups} groups do not fit data {x.shape}")
    y = np.empty((x.shape[0], outputs, *geometry.output(x.shape[2:], (kh, kw))), x.dtype)
    _conv(readonly(x), readonly(w), geometry, y)
    return y


@njit
def _conv(x: Any, w: Any, geometry: Any, y: Any) -> None:
    """The terms outside, the positions inside: no position waits for the one before it.

    Each position goes through the terms in the same order, which is that of summation: channel, kernel row,
    kernel column.
    """
    (sh, sw), (ph, pw), (dh, dw) = geometry.stride, geometry.pad, geometry.dilation
    images, _, height, width = x.shape
    outputs, channels, kh, kw = w.shape
    for n in range(images):
        for o in range(outputs):
            first = o // (outputs // geometry.groups) * channels  # of the channels that this group sees
            sums = y[n, o]  # (oh, ow)
            sums[:] = 0  # every chain starts at +0, so a sum of products that are all -0 is +0
            for c in range(channels):
                for p in range(kh):
                    for q in range(kw):
                        weight = w[o, c, p, q]
                        for i in range(sums.shape[0]):
                            row = i * sh - ph + p * dh
                            if 0 <= row < height:  # padding is left out, not multiplied: 0 * inf is NaN
                                for j in range(sums.shape[1]):
                                    column = j * sw - pw + q * dw
                                    if 0 <= column < width:
                                        sums[i, j] = fma(weight, x[n, first + c, row, column], sums[i, j])


def dense(x: Array, w: Array, bias: Array | None) -> Array:
    """x (n, k), w (o, k), bias (o,) or None, either dtype -> (n, o).

    Raises ValueError if the weights do not fit the data.
    """
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"weights {w.shape} do not fit data {x.shape}")
    y = np.empty((x.shape[0], w.shape[0]), x.dtype)
    _dense(readonly(x), readonly(w), y)
    return y if bias is None else apply(y, Epilogue().bias(bias))


@njit
def _dense(x: Any, w: Any, y: Any) -> None:
    for n in range(y.shape[0]):
        for o in range(y.shape[1]):
            total = x.dtype.type(0)
            for k in range(x.shape[1]):
                total = fma(w[o, k], x[n, k], total)
            y[n, o] = total
