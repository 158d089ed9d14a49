"""How arrays are passed to the loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def readonly(array: Array) -> Array:
    """The array as a C-contiguous read-only view: one kind of array, for which a loop is compiled once."""
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array
