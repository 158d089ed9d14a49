"""The bits that a formula of a framework's function has on a sample of all float32, as one hash."""

from __future__ import annotations

import hashlib

import numpy as np

from refnet.frameworks import live


def digest(function: str, formula: str) -> str:
    x = np.arange(0, 1 << 32, live.SAMPLE, dtype=np.uint64).astype(np.uint32).view(np.float32)
    y = live.evaluate(function, formula, x, 2)
    y[np.isnan(y)] = np.nan
    y.view(np.uint32)[np.isnan(y)] = 0x7FC00000
    return hashlib.sha256(y.astype("<f4").tobytes()).hexdigest()[:16]
