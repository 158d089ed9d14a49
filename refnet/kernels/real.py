"""Functions of one real number, as in loops/real.py, which has the functions themselves; here in threads.

Some have a loop of their own, which LLVM makes vectors of: functions without branches, and erf and gelu,
which are one polynomial (loops/error_function.py) where nearly all numbers of a network lie. What lies
elsewhere is computed again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import Array
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.memory import empty
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.error_function import (
    BY_ROOT_TWO_PI,
    FRACTIONS,
    NEAR,
    NEAR_GELU,
    erf,
    gelu,
    near_erf,
    near_gelu,
)
from refnet.loops.functions import exp
from refnet.loops.jit import njit
from refnet.loops.real import (
    ERF,
    EXP,
    GELU,
    HARD_SIGMOID,
    HARD_SWISH,
    NAMES,
    SILU,
    TANH,
    function,
    hard_sigmoid,
    hard_swish,
    silu,
    tanh,
)

WHERE = {ERF: (-NEAR, NEAR), GELU: (-2.0, NEAR_GELU)}
"""Where the polynomial is meant."""
STRAIGHT = (EXP, TANH, SILU, HARD_SIGMOID, HARD_SWISH)
"""Functions without a branch that LLVM could not turn into a choice."""
GRAIN = 4096
"""Elements per work item."""
LANES = 32
"""Elements whose fractions run together: four vectors of 512 bits hide the latency of a division."""
COST = 40
"""Operations that one function counts for."""


def real(name: str, x: Array, threads: int, *parameters: float) -> Array:
    """A function of each element; any shape, either dtype."""
    y = empty(x.shape, x.dtype)
    a, b, c = (*parameters, 0.0, 0.0, 0.0)[:3]
    flat, kind = np.ascontiguousarray(x).reshape(-1), NAMES.index(name)
    items, threads = -(-x.size // GRAIN), threads_for(threads, COST * x.size)
    if kind in WHERE:
        parallel_for(_near, items, threads, kind, flat, *WHERE[kind], y.reshape(-1))
    elif kind in STRAIGHT:
        parallel_for(_straight, items, threads, kind, flat, a, b, y.reshape(-1))
    else:
        parallel_for(_real, items, threads, kind, flat, a, b, c, y.reshape(-1))
    return y


@njit
def _real(work: Any, kind: int, x: Any, a: float, b: float, c: float, y: Any) -> None:
    begin, end = chunk(work)
    while begin < end:
        for i in range(begin * GRAIN, min(end * GRAIN, x.size)):
            y[i] = function(kind, np.float64(x[i]), a, b, c)
        begin, end = next_chunk(work)


@njit
def _near(work: Any, kind: int, x: Any, low: float, high: float, y: Any) -> None:
    """erf and gelu: the polynomial of all, then anew those that are not between low and high."""
    begin, end = chunk(work)
    while begin < end:
        for first in range(begin * GRAIN, min(end * GRAIN, x.size), GRAIN):
            source, target = x[first : first + GRAIN], y[first : first + GRAIN]
            if kind == ERF:
                for i in range(source.size):
                    target[i] = near_erf(np.float64(source[i]))
            else:
                for i in range(source.size):
                    target[i] = near_gelu(np.float64(source[i]))
            far = 0
            for i in range(source.size):
                far += int(not low <= source[i] <= high)
            if far and kind == ERF:
                for i in range(source.size):
                    if not low <= source[i] <= high:
                        target[i] = erf(np.float64(source[i]))
            elif far:
                _tails(source, low, high, target)
        begin, end = next_chunk(work)


@njit
def _tails(x: Any, low: float, high: float, y: Any) -> None:
    """gelu of what is not between low and high: the continued fractions of LANES elements side by side."""
    at, a, f = np.empty(LANES, np.int64), np.ones(LANES), np.empty(LANES)
    held = 0
    for i in range(x.size):
        v = np.float64(x[i])
        if -16.0 <= v < low or high < v <= 9.0:
            at[held], a[held] = i, abs(v)
            held += 1
        elif not low <= v <= high:
            y[i] = gelu(v)
        if held == LANES or (held and i == x.size - 1):
            for k in range(LANES):
                f[k] = a[k]
            for n in range(FRACTIONS, 0, -1):
                for k in range(LANES):
                    f[k] = float(n) / f[k] + a[k]
            for k in range(held):
                part, v = BY_ROOT_TWO_PI * exp(-0.5 * a[k] * a[k]) / f[k], np.float64(x[at[k]])
                y[at[k]] = v * (part if v < 0.0 else 1.0 - part)
            held = 0


@njit
def _straight(work: Any, kind: int, x: Any, a: float, b: float, y: Any) -> None:
    """The functions of STRAIGHT."""
    begin, end = chunk(work)
    while begin < end:
        source, target = x[begin * GRAIN : end * GRAIN], y[begin * GRAIN : end * GRAIN]
        if kind == EXP:
            for i in range(source.size):
                target[i] = exp(np.float64(source[i]))
        elif kind == TANH:
            for i in range(source.size):
                target[i] = tanh(np.float64(source[i]))
        elif kind == SILU:
            for i in range(source.size):
                target[i] = silu(np.float64(source[i]))
        elif kind == HARD_SWISH:
            for i in range(source.size):
                target[i] = hard_swish(np.float64(source[i]))
        else:
            for i in range(source.size):
                target[i] = hard_sigmoid(np.float64(source[i]), a, b)
        begin, end = next_chunk(work)
