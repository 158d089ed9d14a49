"""What tests hand to ops: the fast engine and correct rounding, on all processors or on so many threads."""

from __future__ import annotations

from refnet.exact.engine import DecideOrRefine
from refnet.kernels.engine import Fast

FAST = Fast()
EXACT = DecideOrRefine(FAST)


def exact_on(threads: int) -> DecideOrRefine:
    """Correct rounding on so many threads."""
    return DecideOrRefine(Fast(threads))
