"""Functions of one float32 as in loops/elementary.py, which has the functions themselves; here in threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import F32
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.elementary import NAMES, evaluated
from refnet.loops.jit import njit

GRAIN = 4096
"""Elements per work item."""
COST = 40
"""Operations that one function counts for."""


def function_by(x: F32, name: str, threads: int, *parameters: float) -> F32:
    """The named function of each element; any shape."""
    y = np.empty(x.shape, np.float32)
    a, b = (*parameters, 0.0, 0.0)[:2]
    flat = np.ascontiguousarray(x).reshape(-1)
    which, items = NAMES.index(name), -(-x.size // GRAIN)
    parallel_for(_function_by, items, threads_for(threads, COST * x.size), which, flat, a, b, y.reshape(-1))
    return y


@njit
def _function_by(work: Any, which: int, x: Any, a: float, b: float, y: Any) -> None:
    begin, end = chunk(work)
    while begin < end:
        for i in range(begin * GRAIN, min(end * GRAIN, x.size)):
            y[i] = evaluated(which, x[i], a, b)
        begin, end = next_chunk(work)
