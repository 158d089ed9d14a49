"""Functions of one real number, as in loops/real.py, which has the functions themselves; here in threads.

Of erf and gelu the series runs for LANES elements at once, as long as any of them needs another term. A term
that an element no longer needs changes no bit of its sum: it is below 2**-58 of it, each later one is at most
half as large, and an addition rounds to nearest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import F64
from refnet.kernels.thread_pool import chunk, next_chunk, parallel_for
from refnet.loops.fma import fma
from refnet.loops.functions import INVERSE_FACTORIALS, LN2_HIGH, LN2_LOW, LOG2_E, SHIFT
from refnet.loops.jit import njit
from refnet.loops.real import BY_ROOT_TWO_PI, ERF, GELU, NAMES, ODD, TWO_BY_ROOT_PI, function

GRAIN = 4096
"""Elements per work item."""
LANES = 32
"""Elements whose series run together: four vectors of 512 bits hide the latency of a product."""
TERMS = 4
"""Terms between two looks at whether the sums are done."""
HALVES = np.array([2.0**-i for i in range(64)])
"""Powers of two: an exponent of the normal density is above -63 ln 2."""


def real(name: str, x: F64, threads: int, *parameters: float) -> F64:
    """A function of each element; any shape."""
    y = np.empty(x.shape, np.float64)
    a, b, c = (*parameters, 0.0, 0.0, 0.0)[:3]
    flat = np.ascontiguousarray(x).reshape(-1)
    kind, items = NAMES.index(name), -(-x.size // GRAIN)
    if kind in (ERF, GELU):
        parallel_for(_series, items, threads, kind, flat, ODD, HALVES, y.reshape(-1))
    else:
        parallel_for(_real, items, threads, kind, flat, a, b, c, y.reshape(-1))
    return y


@njit
def _real(work: Any, kind: int, x: Any, a: float, b: float, c: float, y: Any) -> None:
    begin, end = chunk(work)
    while begin < end:
        for i in range(begin * GRAIN, min(end * GRAIN, x.size)):
            y[i] = function(kind, x[i], a, b, c)
        begin, end = next_chunk(work)


@njit
def _series(work: Any, kind: int, x: Any, odd: Any, halves: Any, y: Any) -> None:
    """erf and gelu: `function`, with the sums of LANES elements side by side."""
    low, high = (-6.0, 6.0) if kind == ERF else (-2.0, 9.0)  # where the series is used
    twice, part = (2.0, -1.0) if kind == ERF else (1.0, -0.5)
    term, total, z, density = np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES)
    begin, end = chunk(work)
    while begin < end:
        for first in range(begin * GRAIN, min(end * GRAIN, x.size), LANES):
            count = min(LANES, x.size - first)
            for k in range(LANES):
                v = x[first + k] if k < count else 0.0
                v = v if low <= v <= high else 0.0
                term[k] = total[k] = v
                z[k] = twice * v * v
            for k in range(LANES):  # functions.exp, with an exact power of two for ldexp
                v = part * total[k] * total[k]
                n = (v * LOG2_E + SHIFT) - SHIFT
                r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, v))
                e = INVERSE_FACTORIALS[13]
                for i in range(12, -1, -1):
                    e = fma(e, r, INVERSE_FACTORIALS[i])
                density[k] = e * halves[int(-n)]
            terms, more = 1, True
            while more:
                for _ in range(TERMS):
                    factor = odd[terms]
                    for k in range(LANES):
                        term[k] = term[k] * (z[k] * factor)
                        total[k] = total[k] + term[k]
                    terms += 1
                needed, factor = 0, odd[terms]
                for k in range(LANES):
                    needed += int(abs(term[k]) > 3.0e-18 * abs(total[k])) | int(2.0 * z[k] * factor > 1.0)
                more = needed > 0
            for k in range(count):
                v = x[first + k]
                if not low <= v <= high:
                    y[first + k] = function(kind, v, 0.0, 0.0, 0.0)
                elif kind == ERF:
                    y[first + k] = TWO_BY_ROOT_PI * density[k] * total[k]
                else:
                    y[first + k] = v * (0.5 + BY_ROOT_TWO_PI * density[k] * total[k])
        begin, end = next_chunk(work)
