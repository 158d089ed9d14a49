"""OpenCV's cubic and bilinear resizes of 8-bit pixels, to the bit, in NumPy.

cubic, linear ── _place ── where each result lies in the image
      └── _rows ── the image's rows, resized across
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


def cubic(
    pixels: U8,
    size: tuple[int, int],
    box: tuple[int, int, int, int] | None = None,
    order: Literal["forward", "backward"] = "backward",
) -> U8:
    """OpenCV's cubic resize of 8-bit pixels on x86, without IPP: no antialiasing, a = -0.75.

    pixels: uint8 (h, w, c). size: (width, height) of the result. box: (x, y, width, height) of the
    part of the result that is wanted. order: in which order the four rows are added (below).

    Pixel centres lie at half-integers, borders repeat, the kernel's four weights are computed in
    float32 and rounded to 11 fractional bits. Rows: exact integers. Columns: the integers become
    float32, the weights b are scaled by 2**-22 in float32, and every product and sum is rounded:
    - forward, OpenCV 3.4 (the one in MXNet's packages): ((s0*b0 + s1*b1) + s2*b2) + s3*b3
    - backward, OpenCV 4 and 5: s0*b0 + (s1*b1 + (s2*b2 + s3*b3))
    Then half-to-even to an integer, clipped to 0..255. (In the last w*c % 8 values of a full row
    OpenCV uses integers instead; a centre crop never shows them.) Compared bit by bit with both in
    tests/crosscheck/test_preprocess_opencv.py.

    >>> cubic(np.array([[[0], [100]]], np.uint8), (4, 1)).ravel()
    array([  0,  23,  77, 111], dtype=uint8)
    """
    x, y, width, height = box or (0, 0, *size)
    columns, wx = _cubic_taps(pixels.shape[1], size[0], x, width)
    rows, wy = _cubic_taps(pixels.shape[0], size[1], y, height)
    across, place = _rows(pixels, rows, columns, wx)
    lines = across.astype(np.float32)
    b = wy.astype(np.float32) * np.float32(2**-22)
    total = np.zeros((height, width, pixels.shape[2]), np.float32)
    for k in (0, 1, 2, 3) if order == "forward" else (3, 2, 1, 0):
        total = lines[place[:, k]] * b[:, k, np.newaxis, np.newaxis] + total
    return np.clip(np.rint(total), 0, 255).astype(np.uint8)


def linear(pixels: U8, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> U8:
    """OpenCV's bilinear resize of 8-bit pixels: no antialiasing. Arguments as for `cubic`.

    Two weights per direction, 1 - t and t, in float32 and rounded to 11 fractional bits; integers from
    there on. Rows: s = p0*a0 + p1*a1. Columns: (((s0 >> 4) * b0 >> 16) + ((s1 >> 4) * b1 >> 16) + 2) >> 2,
    so two more bits are dropped in each product. Beside the image's left and right edge t is 0; above and
    below, the edge's row counts twice, with both weights. (OpenCV averages an image of exactly twice the
    size in another way, (p00 + p01 + p10 + p11 + 2) >> 2, which gives the same bits.) The same in OpenCV
    3.4, 4 and 5, with and without IPP: compared bit by bit in tests/crosscheck/test_preprocess_opencv.py.

    >>> linear(np.array([[[0], [100]]], np.uint8), (4, 1)).ravel()
    array([  0,  25,  75, 100], dtype=uint8)
    """
    x, y, width, height = box or (0, 0, *size)
    columns, wx = _linear_taps(pixels.shape[1], size[0], x, width, outside=False)
    rows, wy = _linear_taps(pixels.shape[0], size[1], y, height, outside=True)
    across, place = _rows(pixels, rows, columns, wx)
    lines = across >> 4
    total = np.full((height, width, pixels.shape[2]), 2, np.int32)
    for k in (0, 1):
        total += lines[place[:, k]] * wy[:, k, np.newaxis, np.newaxis] >> 16
    return (total >> 2).astype(np.uint8)


def _rows(pixels: U8, rows: I64, columns: I64, weights: I32) -> tuple[I32, I64]:
    """The rows that are read, resized across: int32 (n, w, c); and where each of `rows` is among them."""
    needed, place = np.unique(rows, return_inverse=True)
    source = pixels[needed]
    across = np.zeros((len(needed), len(columns), pixels.shape[2]), np.int32)
    for k in range(columns.shape[1]):
        across += source[:, columns[:, k]].astype(np.int32) * weights[:, k, np.newaxis]
    return across, place.reshape(rows.shape)


def _place(source: int, resized: int, first: int, count: int) -> tuple[I64, F32]:
    """Of `count` outputs from `first`: the pixel at or before each, and how far behind it, 0 <= t < 1."""
    step = 1.0 / (resized / source)
    position = ((np.arange(first, first + count) + 0.5) * step - 0.5).astype(np.float32)
    left = np.floor(position)
    return left.astype(np.int64), position - left


def _cubic_taps(source: int, resized: int, first: int, count: int) -> tuple[I64, I32]:
    """Of `count` outputs from `first`: the four positions each reads, and its weights times 2048."""
    f = np.float32
    a, one = f(-0.75), f(1)
    left, t = _place(source, resized, first, count)
    u = one - t
    w0 = ((a * (t + one) - f(5) * a) * (t + one) + f(8) * a) * (t + one) - f(4) * a
    w1 = ((a + f(2)) * t - (a + f(3))) * t * t + one
    w2 = ((a + f(2)) * u - (a + f(3))) * u * u + one
    w3 = one - w0 - w1 - w2
    weights = np.rint(np.stack([w0, w1, w2, w3], axis=1) * f(2048)).astype(np.int32)
    return np.clip(left[:, np.newaxis] + np.arange(-1, 3), 0, source - 1), weights


def _linear_taps(source: int, resized: int, first: int, count: int, *, outside: bool) -> tuple[I64, I32]:
    """The same of two positions. outside: whether t counts beside the first and the last pixel."""
    left, t = _place(source, resized, first, count)
    if not outside:
        t = np.where((left < 0) | (left >= source - 1), np.float32(0), t)
    weights = np.rint(np.stack([np.float32(1) - t, t], axis=1) * np.float32(2048)).astype(np.int32)
    return np.clip(left[:, np.newaxis] + np.arange(2), 0, source - 1), weights
