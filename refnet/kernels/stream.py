"""How fast this processor reads memory: numbers in order, each added to a sum and nothing else done.

`refnet bench --table` draws its roofline from it; no network is computed with it.
"""

from __future__ import annotations

from typing import Any

from refnet.kernels.chunks import chunk, next_chunk
from refnet.loops.jit import njit

BLOCK = 1 << 15
"""Numbers of an item: 256 KiB."""


@njit
def sums(work: Any, data: Any, out: Any) -> None:
    """out[i] = the sum of data[i]. Both are int64, whose sums the compiler may take in vectors."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            row, total = data[item], 0
            for i in range(row.size):  # from 0, or an index could be negative, and no vector is taken
                total += row[i]
            out[item] = total
        begin, end = next_chunk(work)
