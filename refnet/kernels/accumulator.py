"""Exact sums of float32 products, and their one correct rounding to float32.

An accumulator is a fixed-point number wide enough for every sum: limbs of 32 bits in int64, limb i in
units of 2**(32 i - 320), so that carries can wait. A product of two float32 has 48 bits and lies
between 2**-298 and 2**256; float64 holds it exactly, and adding a float64 touches three limbs. 2**31
additions cannot overflow a limb. Kulisch, Computer Arithmetic and Validity, 2nd ed., chapter 8.

kernels/decisions.py makes this slow way rare: if a float64 result and a bound of its error leave only one
float32, that is the answer. The others are marked as open, there and in exact_conv.py, winograd.py and
exact_steps.py. The kernels here look for them in flags, one for each element of y: an item is PIECE flags.
A convolution's open sum is first added once more with what each addition loses (`twofold`).

No loop defines these values: the exact result does. tests/exact compares them with rational arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.decisions import round_twofold, twofold
from refnet.loops.jit import njit

Array = npt.NDArray[Any]

LIMBS = 21
"""From 2**-320 to 2**352: every product, and sums of 2**31 of them."""
UNIT = -320
"""Exponent of the accumulator's lowest bit."""
MASK = 0xFFFFFFFF
"""The 32 bits of a limb."""
PIECE = 4096
"""Flags of a work item."""
GLANCE = 128
"""Flags that are looked at at once."""


def pieces(unsure: Array) -> int:
    """The work items of so many flags."""
    return -(-unsure.size // PIECE)


@njit
def next_open(unsure: Any, at: int, end: int) -> int:
    """The first place from `at` on whose flag is set; `end` if none before it is."""
    while at < end:
        some = unsure[at : min(at + GLANCE, end)]
        found = False
        for i in range(some.size):
            found |= some[i]
        if found:
            for i in range(some.size):
                if some[i]:
                    return at + i
        at += GLANCE
    return end


@njit
def add(acc: Any, value: float) -> None:
    """acc += value, exactly, for a finite float64 that is a product of two float32, or a float32."""
    if value == 0.0:
        return
    fraction, exponent = math.frexp(value)  # value = fraction * 2**exponent, 1/2 <= |fraction| < 1
    mantissa = np.int64(fraction * 9007199254740992.0)  # 53 bits
    shift = exponent - 53 - UNIT
    negative = mantissa < 0
    size = np.uint64(-mantissa if negative else mantissa)
    if shift < 0:  # the lowest bits of so small a float64 are zeros
        size = size >> np.uint64(-shift)
        shift = 0
    limb, offset = shift // 32, np.uint64(shift % 32)
    low = np.int64((size << offset) & np.uint64(MASK))
    rest = size >> (np.uint64(32) - offset)
    middle, high = np.int64(rest & np.uint64(MASK)), np.int64(rest >> np.uint64(32))
    if negative:
        low, middle, high = -low, -middle, -high
    acc[limb] += low
    acc[limb + 1] += middle
    acc[limb + 2] += high


@njit
def rounded(acc: Any, divisor: int) -> Any:
    """The float32 nearest to acc / divisor, ties to even; +0 for zero. It overwrites acc. divisor < 2**46."""
    carry = np.int64(0)
    for i in range(LIMBS - 1):
        total = acc[i] + carry
        acc[i] = total & MASK
        carry = total >> 32
    acc[LIMBS - 1] += carry
    negative = acc[LIMBS - 1] < 0
    if negative:  # two's complement over all limbs
        borrow = np.int64(0)
        for i in range(LIMBS):
            total = -acc[i] + borrow
            acc[i] = total & MASK if i < LIMBS - 1 else total
            borrow = total >> 32
    rest = np.int64(0)
    for i in range(LIMBS - 1, -1, -1):
        upper = (rest << 16) | (acc[i] >> 16)  # in two steps, so that no divisor overflows
        lower = ((upper % divisor) << 16) | (acc[i] & 0xFFFF)
        acc[i] = (upper // divisor << 16) + lower // divisor
        rest = lower % divisor
    top = -1
    for i in range(LIMBS - 1, -1, -1):
        if acc[i] != 0:
            bits = 0
            while acc[i] >> bits:
                bits += 1
            top = 32 * i + bits - 1
            break
    if top < 0:
        return np.float32(-0.0) if negative and rest != 0 else np.float32(0.0)
    # the result's last bit: 24 bits below the first, but not below 2**-149
    last = max(top - 23, -149 - UNIT)
    mantissa = np.int64(0)
    for bit in range(top, last - 1, -1):
        mantissa = 2 * mantissa + ((acc[bit // 32] >> (bit % 32)) & 1)
    half = last > 0 and (acc[(last - 1) // 32] >> ((last - 1) % 32)) & 1 == 1
    sticky = rest != 0
    for bit in range(last - 1):
        if bit % 32 == 0 and bit + 32 <= last - 1:
            sticky = sticky or acc[bit // 32] != 0
        elif bit // 32 == (last - 1) // 32:
            sticky = sticky or (acc[bit // 32] >> (bit % 32)) & 1 == 1
    if half and (sticky or mantissa % 2 == 1):
        mantissa += 1
    value = math.ldexp(np.float64(mantissa), last + UNIT)  # at most 2**24 steps: exact in float64
    return np.float32(-value if negative else value)


@njit
def conv_exactly(
    work: Any, unsure: Any, x: Any, w: Any, bias: Any, addend: Any, geometry: Any, y: Any
) -> None:
    """y = the correctly rounded convolution where it is open. A sum with an infinity or NaN is IEEE's.

    bias (o,) and addend (as y, flat), or (0,). geometry: a ConvGeometry.
    """
    (sh, sw), (ph, pw), (dh, dw) = geometry.stride, geometry.pad, geometry.dilation
    outputs, channels, kh, kw = w.shape
    oh, ow = y.shape[2:]
    flat = y.reshape(-1)
    acc = np.zeros(LIMBS, np.int64)
    begin, end = chunk(work)
    while begin < end:
        last = min(end * PIECE, unsure.size)
        k = next_open(unsure, begin * PIECE, last)
        while k < last:
            j, i = k % ow, k // ow % oh
            o, n = k // (ow * oh) % outputs, k // (ow * oh * outputs)
            base = o // (outputs // geometry.groups) * channels
            top, left = i * sh - ph, j * sw - pw
            total, rest, size = 0.0, 0.0, 0.0
            if bias.size:
                total, rest, size = twofold(total, rest, size, np.float64(bias[o]))
            if addend.size:
                total, rest, size = twofold(total, rest, size, np.float64(addend[k]))
            for p in range(kh):
                row = top + p * dh
                for q in range(kw):
                    column = left + q * dw
                    if not (0 <= row < x.shape[2] and 0 <= column < x.shape[3]):
                        continue
                    values, weights = x[n, base:, row, column], w[o, :, p, q]
                    for c in range(weights.size):
                        product = np.float64(weights[c]) * np.float64(values[c])
                        total, rest, size = twofold(total, rest, size, product)
            value, sure = round_twofold(total, rest, size, channels * kh * kw + 2)
            if not np.abs(total) < np.inf:  # no sum of finite products overflows
                value, sure = np.float32(total), True
            if sure:
                flat[k] = value
                k = next_open(unsure, k + 1, last)
                continue
            acc[:] = 0
            if bias.size:
                add(acc, np.float64(bias[o]))
            if addend.size:
                add(acc, np.float64(addend[k]))
            for p in range(kh):
                row = i * sh - ph + p * dh
                if row < 0 or row >= x.shape[2]:
                    continue
                for q in range(kw):
                    column = j * sw - pw + q * dw
                    if column < 0 or column >= x.shape[3]:
                        continue
                    for c in range(channels):
                        add(acc, np.float64(w[o, c, p, q]) * np.float64(x[n, base + c, row, column]))
            flat[k] = rounded(acc, 1)
            k = next_open(unsure, k + 1, last)
        begin, end = next_chunk(work)


@njit
def average_exactly(work: Any, unsure: Any, x: Any, geometry: Any, include_pad: bool, y: Any) -> None:
    """y = the correctly rounded average of the window where it is open. geometry: a PoolGeometry."""
    (kh, kw), (sh, sw), (ph, pw) = geometry.kernel, geometry.stride, geometry.pad
    channels, height, width = x.shape[1:]
    oh, ow = y.shape[2:]
    flat = y.reshape(-1)
    acc = np.zeros(LIMBS, np.int64)
    begin, end = chunk(work)
    while begin < end:
        last = min(end * PIECE, unsure.size)
        k = next_open(unsure, begin * PIECE, last)
        while k < last:
            j, i = k % ow, k // ow % oh
            plane = x[k // (ow * oh * channels), k // (ow * oh) % channels]
            top, left = i * sh - ph, j * sw - pw
            bottom, right = min(top + kh, height + ph), min(left + kw, width + pw)
            count = (bottom - top) * (right - left)
            top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
            if not include_pad:
                count = (bottom - top) * (right - left)
            acc[:] = 0
            for row in range(top, bottom):
                for column in range(left, right):
                    add(acc, np.float64(plane[row, column]))
            flat[k] = rounded(acc, count)
            k = next_open(unsure, k + 1, last)
        begin, end = next_chunk(work)


@njit
def sums_exactly(work: Any, unsure: Any, terms: Any, y: Any) -> None:
    """y (size,) = the correctly rounded sum over the first axis of terms (count, size) where it is open."""
    acc = np.zeros(LIMBS, np.int64)
    begin, end = chunk(work)
    while begin < end:
        last = min(end * PIECE, unsure.size)
        k = next_open(unsure, begin * PIECE, last)
        while k < last:
            acc[:] = 0
            for r in range(terms.shape[0]):
                add(acc, np.float64(terms[r, k]))
            y[k] = rounded(acc, 1)
            k = next_open(unsure, k + 1, last)
        begin, end = next_chunk(work)


@njit
def weighted_exactly(work: Any, unsure: Any, a: Any, x: Any, y: Any) -> None:
    """y (n, channels, size) = the correctly rounded sum over r of a (n, r, channels) * x (n, r, channels,
    size) where it is open.
    """
    channels, size = y.shape[1:]
    flat = y.reshape(-1)
    acc = np.zeros(LIMBS, np.int64)
    begin, end = chunk(work)
    while begin < end:
        last = min(end * PIECE, unsure.size)
        k = next_open(unsure, begin * PIECE, last)
        while k < last:
            image, c, at = k // (channels * size), k // size % channels, k % size
            acc[:] = 0
            for r in range(x.shape[1]):
                add(acc, np.float64(a[image, r, c]) * np.float64(x[image, r, c, at]))
            flat[k] = rounded(acc, 1)
            k = next_open(unsure, k + 1, last)
        begin, end = next_chunk(work)
