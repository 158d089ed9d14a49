"""The types of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from refnet.core.op import TensorType


def types_of(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, TensorType]:
    """The types of arrays, by name."""
    return {name: TensorType(array.shape, array.dtype.name) for name, array in arrays.items()}
