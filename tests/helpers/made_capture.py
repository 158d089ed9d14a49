"""A capture of four values, made by hand; imports no kernels, so that processes that write it are light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from refnet.formats.manifest import Origin
from refnet.frameworks.capture.writer import CapturePlan
from tests.helpers.bits import AWKWARD

F = np.float32
INPUT = F([[1, -2], [0.1, np.nan]])
VALUES = {
    "conv1": np.arange(24, dtype=F).reshape(2, 3, 4),
    "layer1.0/a b": AWKWARD.astype(F).reshape(1, -1),
    "ä": F([-0.0]),
    "prob": F([[0.25, 0.75]]),
}
WHO = Origin("by hand", "1.2", "none", "AVX2", 2, 2, "eager", {"A": "1"}, "a processor")


def plan(values=VALUES, outputs=None, **changes) -> CapturePlan:
    """A plan that yields these values, or what a function yields."""
    each = values if callable(values) else lambda: iter(values.items())
    made = CapturePlan(WHO, {"data": INPUT}, each, lambda: outputs or {"y": "prob"})
    return replace(made, **changes)
