"""Forms of ONNX's operators that choose, rearrange, transpose-convolve and interpolate, for onnx_models.py.

Each is (operator, inputs, attributes, other fields of `Case`); a shape is a value, an array a constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Form = tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]
MAPS = (2, 4, 7, 6)


def ints(*numbers: int) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.int64)


def selecting() -> list[Form]:
    last = 1 << 62
    found: list[Form] = [
        ("Slice", (MAPS, ints(5), ints(-last), ints(2), ints(-2)), {}, {"first": 10}),
        ("Slice", (MAPS, ints(1, -1), ints(last, 0), ints(1, 3), ints(2, -3)), {}, {"first": 10}),
        ("Slice", (MAPS, ints(100), ints(-100), ints(-1), ints(-1)), {}, {"first": 10}),
        ("Slice", (MAPS, ints(-6), ints(6), ints(3), ints(4)), {}, {"first": 10}),
        ("Gather", (MAPS, np.array(2)), {"axis": 1}, {}),
        ("Gather", (MAPS, np.array(-1, np.int32)), {"axis": -2}, {"first": 11}),
        ("Gather", (MAPS, ints(3, 0, 3, 1)), {"axis": 3}, {}),
        ("Gather", (MAPS, ints(0, 3, 1, 2, 1, 0).reshape(2, 3)), {"axis": 1}, {}),
        ("Gather", (MAPS, ints(1)), {}, {}),
        ("Expand", ((2, 4, 1, 6), ints(2, 1, 7, 1)), {}, {"first": 8}),
        ("Expand", ((4, 1), ints(3, 1, 5)), {}, {"first": 8}),
        ("Expand", ((2, 3), ints(1)), {}, {"first": 8}),
        ("Tile", (MAPS, ints(1, 2, 1, 3)), {}, {}),
        ("DepthToSpace", ((2, 8, 3, 2),), {"blocksize": 2}, {}),
        ("DepthToSpace", ((2, 8, 3, 2),), {"blocksize": 2, "mode": "CRD"}, {"first": 11}),
        ("DepthToSpace", ((2, 18, 1, 2),), {"blocksize": 3, "mode": "DCR"}, {"first": 11}),
        ("SpaceToDepth", ((2, 3, 4, 6),), {"blocksize": 2}, {}),
        ("SpaceToDepth", ((2, 3, 4, 6),), {"blocksize": 2, "mode": "CRD"}, {"first": 28}),
    ]
    return found


SPATIAL: list[Form] = selecting()
