"""Where two arrays differ, as text: the first element in hexadecimal, ulps, share of the bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.op import F32, Interval
from refnet.verification.difference import NAN, Mask, shares, ulps
from refnet.verification.difference import apart as in_words


def describe(found: F32, golden: F32, bound: Interval | None, wrong: Mask, word: str = "differ") -> str:
    """Lines about the elements in `wrong`, of which there is at least one: how many, the first, the worst."""
    at = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), wrong.shape)))
    apart = ulps(found, golden)
    lines = [
        f"{int(wrong.sum())} of {wrong.size} elements {word}, first at {list(at)}:",
        f"  found   {_number(found[at])}",
        f"  golden  {_number(golden[at])}",
        f"  {_apart(int(apart[at]))}",
    ]
    farthest = int(apart[wrong].max())
    summary = f"largest difference: {_apart(farthest)}"
    if bound is not None:
        share = shares(found, bound)
        lines[-1] += f", {_share(share[at])} of the bound, {bound.radius[at]:.3g}"
        known = share[wrong & ~np.isnan(share)]
        if known.size:
            summary += f"; largest share of the bound: {_share(known.max())}"
    return "\n".join([*lines, summary])


def _number(value: Any) -> str:
    """Bits and the shortest decimal that reads back as the same float32."""
    return f"0x{int(np.float32(value).view(np.uint32)):08x}  {np.float32(value)!s}"


def _apart(count: int) -> str:
    if count == NAN:
        return "one of the two is NaN"
    return "zeros of different sign" if count == 0 else in_words(count)


def _share(share: float) -> str:
    return "no share (no finite bound there)" if np.isnan(share) else f"{share:.3g}"
