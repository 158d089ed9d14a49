"""What every resize refuses, whatever it takes of its neighbours."""

from __future__ import annotations

from typing import Any

import pytest

from refnet import ops
from refnet.core.errors import GraphError

X = ops.TensorType((1, 2, 4, 6))
SOUND: dict[str, Any] = {"axes": (2, 3), "sizes": (8, 9), "scales": (2.0, 1.5)}
CROP: dict[str, Any] = {"coordinates": "tf_crop_and_resize"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an axis twice": ({"axes": (2, 2)}, "each axis once"),
    "too few sizes": ({"sizes": (8,)}, "a size, a scale"),
    "too many scales": ({"scales": (2.0, 1.5, 1.0)}, "a size, a scale"),
    "a crop without its part": (CROP, "a size, a scale"),
    "an axis that is none": ({"axes": (2, 4)}, "axes outside of"),
    "a negative axis": ({"axes": (2, -1)}, "axes outside of"),
    "no elements": ({"sizes": (8, 0)}, "got 0 and"),
    "a scale of 0": ({"scales": (0.0, 1.5)}, "got 8 and 0.0"),
    "an infinite scale": ({"scales": (float("inf"), 1.5)}, "got 8 and inf"),
    "no scale": ({"scales": (float("nan"), 1.5)}, "got 8 and nan"),
    "a ratio to nothing": ({"scales": ((8, 0), 1.5)}, "got 8 and"),
    "unknown coordinates": ({"coordinates": "middle"}, "coordinates must be one of"),
}


@pytest.mark.parametrize("kind", [ops.ResizeNearest, ops.ResizeLinear, ops.ResizeCubic])
@pytest.mark.parametrize("what", WRONG)
def test_contradictory_attributes_are_refused(kind: type[ops.Op], what: str) -> None:
    assert kind(**SOUND).type(X) == ops.TensorType((1, 2, 8, 9))
    assert kind(**SOUND, **CROP, roi=((0.0, 1.0), (0.0, 1.0))).type(X) == ops.TensorType((1, 2, 8, 9))
    changed, message = WRONG[what]
    with pytest.raises(GraphError, match=message):
        kind(**{**SOUND, **changed}).type(X)
