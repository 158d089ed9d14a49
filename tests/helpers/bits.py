"""Comparing bits as bits, and arrays full of awkward numbers."""

from __future__ import annotations

import hashlib

import numpy as np


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal shapes, dtypes and bits; every NaN counts as the same NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    kind = {4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    equal = (a.view(kind) == b.view(kind)) | (np.isnan(a) & np.isnan(b))
    return bool(equal.all())


def floats(shape: tuple[int, ...], key: object) -> np.ndarray:
    """float32 between -1 and 1, from sha256 in counter mode: the same on every machine."""
    count = int(np.prod(shape))
    words = np.frombuffer(_stream(str(key), -(-count // 8)), np.int32, count)
    return (words.astype(np.float64) / 2**31).astype(np.float32).reshape(shape)


MOST = 64 << 20
"""Bytes of all streams that are kept."""
_streams: dict[str, bytes] = {}
"""Key -> what of its stream was needed so far: most tests ask for the same few again, longer or shorter."""


def _stream(key: str, blocks: int) -> bytes:
    """At least so many blocks of 32 bytes. What was not asked for longest is forgotten first."""
    known = _streams.pop(key, b"")
    if len(known) < 32 * blocks:
        new = range(len(known) // 32, blocks)
        known += b"".join(hashlib.sha256(f"{key}/{i}".encode()).digest() for i in new)
        kept = sum(map(len, _streams.values()))
        while _streams and kept + len(known) > MOST:
            kept -= len(_streams.pop(next(iter(_streams))))
    _streams[key] = known
    return known


AWKWARD = np.array(
    [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 1e-38, -1e-38, 3e38, -3e38, 1.0], np.float32
)


def awkward(shape: tuple[int, ...], key: object, share: float) -> np.ndarray:
    """`floats`, a share of them replaced by NaN, infinities, signed zeros, subnormals, huge numbers."""
    array = floats(shape, key)
    chosen = np.abs(floats(shape, (key, "where"))) < share
    which = (np.abs(floats(shape, (key, "which"))) * len(AWKWARD)).astype(int) % len(AWKWARD)
    return np.where(chosen, AWKWARD[which], array).astype(np.float32)
