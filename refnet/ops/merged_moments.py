"""Mean and variance of rows by parts that are merged, as PyTorch's kernels compute them.

A row is read in vectors of 8 elements; what remains is its tail. Up to 16 vectors make a chunk, in which each
lane has a mean m and a sum of squares q by Welford's formula. Chunks are merged like the carries of a binary
counter, then the counter's digits into the lowest, then the 8 lanes, one by one, into the tail.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refnet.core.engine import Engine
from refnet.core.op import F32

Number = F32 | np.float32
LANES = 8
"""Elements of an AVX2 vector; PyTorch 2.13 has no wider kernel for it, with AVX-512 either."""
CHUNK = 16


class Moments(NamedTuple):
    """Of n elements each: their mean, and the sum of (x - mean)**2."""

    n: int
    mean: F32
    squares: F32


def merged_moments(x: F32, engine: Engine) -> tuple[F32, F32]:
    """x (rows, n) -> mean and variance, (rows, 1) each, in the steps above, with FMA.

    Source: PyTorch's aten/src/ATen/native/cpu/moments_utils.h, `RowwiseMoments`, read as facts; which
    products are fused was found by bits.
    """
    rows, n = x.shape
    whole = n - n % LANES
    tail = welford(x[:, whole:])
    if whole:
        vectors = np.ascontiguousarray(x[:, :whole]).reshape(rows, -1, LANES)
        begins = range(0, vectors.shape[1], CHUNK)
        lanes = _counted([_chunk(vectors[:, i : i + CHUNK], engine) for i in begins], engine)
        for k in range(LANES):
            lane = Moments(lanes.n, lanes.mean[:, k], lanes.squares[:, k])
            tail = _merged_lane(tail, lane, engine)
    return tail.mean[:, None], (tail.squares / np.float32(n))[:, None]


def fused(a: Number, b: Number, c: Number, engine: Engine) -> F32:
    """a * b + c with one rounding, element by element; they broadcast."""
    wide = [np.ascontiguousarray(v, np.float32) for v in np.broadcast_arrays(a, b, c)]
    return engine.fused_multiply_add(*(v.reshape(-1) for v in wide)).reshape(wide[0].shape)


def _chunk(vectors: F32, engine: Engine) -> Moments:
    """(rows, count, lanes): m += (x - m) / k and q += (x - m) (x - m'), both fused, 1 / k rounded."""
    mean, squares = np.zeros_like(vectors[:, 0]), np.zeros_like(vectors[:, 0])
    for k in range(vectors.shape[1]):
        apart = vectors[:, k] - mean
        mean = fused(apart, np.float32(1) / np.float32(k + 1), mean, engine)
        squares = fused(apart, vectors[:, k] - mean, squares, engine)
    return Moments(vectors.shape[1], mean, squares)


def welford(x: F32) -> Moments:
    """(rows, count): the same with a division, and nothing fused."""
    mean, squares = np.zeros(len(x), np.float32), np.zeros(len(x), np.float32)
    for k in range(x.shape[1]):
        apart = x[:, k] - mean
        mean = mean + apart / np.float32(k + 1)
        squares = squares + apart * (x[:, k] - mean)
    return Moments(x.shape[1], mean, squares)


def _counted(chunks: list[Moments], engine: Engine) -> Moments:
    """All chunks merged: chunk i into digit 0, which is carried on for each trailing 0 of i + 1."""
    nothing = np.zeros_like(chunks[0].mean)
    digits = [Moments(0, nothing, nothing)] * max(1, (len(chunks) - 1).bit_length())
    for i, chunk in enumerate(chunks):
        digits[0] = _merged(digits[0], chunk, engine)
        for j in range(1, len(digits)):
            if (i + 1) >> (j - 1) & 1:
                break
            digits[j] = _merged(digits[j], digits[j - 1], engine)
            digits[j - 1] = Moments(0, nothing, nothing)
    for digit in digits[1:]:
        digits[0] = _merged(digits[0], digit, engine)
    return digits[0]


def _merged(own: Moments, more: Moments, engine: Engine) -> Moments:
    """Both parts as one: with d the difference of the means and c = n2 / (n1 + n2), m + c d, rounded twice,
    and (d n1) (c d) fused to q1 + q2.
    """
    count = own.n + more.n
    part = np.float32(more.n) / np.float32(count) if count else np.float32(0)
    apart = more.mean - own.mean
    step = part * apart
    squares = fused(apart * np.float32(own.n), step, own.squares + more.squares, engine)
    return Moments(count, own.mean + step, squares)


def _merged_lane(own: Moments, more: Moments, engine: Engine) -> Moments:
    """The same for two numbers: c d fused to m, and d d c n1 fused to q2, which is added to q1."""
    count = own.n + more.n
    part = np.float32(more.n) / np.float32(count)
    apart = more.mean - own.mean
    added = fused(apart * apart * part, np.float32(own.n), more.squares, engine)
    return Moments(count, fused(part, apart, own.mean, engine), own.squares + added)
