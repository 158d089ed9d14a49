"""Functions of one real number, as in loops/real.py, which has the functions themselves; here in threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import F64
from refnet.kernels.thread_pool import chunk, next_chunk, parallel_for
from refnet.loops.jit import njit
from refnet.loops.real import NAMES, function

GRAIN = 4096
"""Elements per work item."""


def real(name: str, x: F64, threads: int, *parameters: float) -> F64:
    """A function of each element; any shape."""
    y = np.empty(x.shape, np.float64)
    a, b, c = (*parameters, 0.0, 0.0, 0.0)[:3]
    flat = np.ascontiguousarray(x).reshape(-1)
    kind, items = NAMES.index(name), -(-x.size // GRAIN)
    parallel_for(_real, items, threads, kind, flat, a, b, c, y.reshape(-1))
    return y


@njit
def _real(work: Any, kind: int, x: Any, a: float, b: float, c: float, y: Any) -> None:
    begin, end = chunk(work)
    while begin < end:
        for i in range(begin * GRAIN, min(end * GRAIN, x.size)):
            y[i] = function(kind, x[i], a, b, c)
        begin, end = next_chunk(work)
