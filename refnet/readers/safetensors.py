"""safetensors files. STUB: signatures only for now."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt


def read(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Names and arrays: float tensors as float32, integer ones (num_batches_tracked) as int64."""
    raise NotImplementedError
