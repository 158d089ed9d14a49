"""Forms of ONNX's operators that choose, rearrange, transpose-convolve and interpolate, for onnx_models.py.

Each is (operator, inputs, attributes, other fields of `Case`); a shape is a value, an array a constant.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tests.helpers.bits import floats

Form = tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]
MAPS = (2, 4, 7, 6)
RUNTIME = {"engines": ("onnxruntime",)}


def ints(*numbers: int) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.int64)


def whole(shape: tuple[int, ...], key: object) -> np.ndarray[Any, Any]:
    """Whole numbers from -8 to 8."""
    return np.round(floats(shape, key) * 8).astype(np.float32) + np.float32(0)


def selecting() -> list[Form]:
    last = 1 << 62
    found: list[Form] = [
        ("Slice", (MAPS, ints(5), ints(-last), ints(2), ints(-2)), {}, {"first": 10}),
        ("Slice", (MAPS, ints(1, -1), ints(last, 0), ints(1, 3), ints(2, -3)), {}, {"first": 10}),
        ("Slice", (MAPS, ints(100), ints(-100), ints(-1), ints(-1)), {}, {"first": 10}),
        ("Slice", (MAPS, ints(-6), ints(6), ints(3), ints(4)), {}, {"first": 10}),
        # the reference cuts nothing
        *(
            ("Pad", (MAPS, ints(0, 0, -1, 2, 0, -2, 3, -1)), {"mode": mode}, {"first": first, **RUNTIME})
            for mode, first in (("edge", 11), ("reflect", 11), ("wrap", 19))
        ),
        ("Gather", (MAPS, np.array(2)), {"axis": 1}, {}),
        ("Gather", (MAPS, np.array(-1, np.int32)), {"axis": -2}, {"first": 11}),
        ("Gather", (MAPS, ints(3, 0, 3, 1)), {"axis": 3}, {}),
        ("Gather", (MAPS, ints(0, 3, 1, 2, 1, 0).reshape(2, 3)), {"axis": 1}, {}),
        ("Gather", (MAPS, ints(1)), {}, {}),
        ("GatherND", ((4, 3, 2), ints(3, 0, -1).reshape(3, 1)), {}, {"first": 11}),
        ("GatherND", ((4, 3), ints(2, 0, 1, 3).reshape(2, 2, 1)), {"batch_dims": 0}, {"first": 12}),
        # the reference wants all indices beside the axis
        (
            "GatherElements",
            ((2, 3, 2), ints(2, 0, 1, -1).reshape(2, 2, 1)),
            {"axis": 1},
            {"first": 11, **RUNTIME},
        ),
        ("GatherElements", ((2, 3), np.tile(ints(2, 0), (2, 1))), {"axis": 1}, {"first": 11}),
        ("GatherElements", ((3, 2), ints(0, 2).reshape(1, 2)), {}, {"first": 11}),
        ("ScatterND", ((3, 2), ints(0, 1, 2).reshape(3, 1), (3, 2)), {}, {"first": 11}),
        ("ScatterND", ((3, 2), ints(-1, 0, 1).reshape(3, 1), (3, 2)), {"reduction": "none"}, {"first": 16}),
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


LINE, CUBE = (2, 4, 9), (2, 4, 5, 4, 3)


def windows() -> list[Form]:
    found: list[Form] = []
    lines: list[dict[str, Any]] = [
        {},
        {"strides": [2], "pads": [2, 1]},
        {"dilations": [2], "pads": [1, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2]},
        {"auto_pad": "SAME_LOWER", "strides": [2]},
    ]
    found += [("Conv", (LINE, whole((6, 4, 3), "line")), a, {}) for a in lines]
    grouped = {"group": 2, "pads": [1, 0]}
    found.append(("Conv", (LINE, whole((6, 2, 2), "g"), whole((6,), "b")), grouped, {}))
    cube = whole((6, 2, 3, 2, 2), "cube")
    cubes = {"group": 2, "strides": [2, 1, 1], "pads": [1, 1, 0, 2, 0, 1], "dilations": [1, 2, 1]}
    found.append(("Conv", (CUBE, cube, whole((6,), "b")), cubes, {}))
    for op in ("MaxPool", "AveragePool"):
        pools = [
            (LINE, {"kernel_shape": [3]}, 7),
            (LINE, {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, 7),
            (LINE, {"kernel_shape": [2], "strides": [3], "ceil_mode": 1}, 10),
            (LINE, {"kernel_shape": [3], "strides": [2], "auto_pad": "SAME_UPPER"}, 7),
            (LINE, {"kernel_shape": [2], "dilations": [3], "pads": [1, 0]}, 10 if op == "MaxPool" else 19),
            (CUBE, {"kernel_shape": [2, 3, 1], "strides": [1, 2, 1], "pads": [1, 1, 0, 0, 1, 0]}, 7),
        ]
        for data, a, first in pools:
            found.append((op, (data,), a, {"first": first}))
    for p in (1, 2, 3):
        found.append(("LpPool", (LINE,), {"kernel_shape": [3], "strides": [2], "p": p}, {"first": 18}))
    counted = {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "count_include_pad": 1}
    found.append(("AveragePool", (LINE,), counted, {}))
    # the reference takes the maximum over the wrong axes, but for images
    found += [("GlobalMaxPool", (shape,), {}, RUNTIME) for shape in (LINE, CUBE)]
    found.append(("GlobalAveragePool", (CUBE,), {}, {}))
    return found


def transposed() -> list[Form]:
    two = whole((4, 3, 3, 2), "two")
    forms: list[dict[str, Any]] = [
        {},
        {"strides": [2, 3]},
        {"strides": [2, 2], "pads": [1, 0, 2, 1]},
        {"strides": [3, 2], "output_padding": [2, 1]},
        {"strides": [2, 2], "dilations": [2, 3]},
        {"strides": [3, 2], "dilations": [2, 2], "pads": [1, 1, 0, 2], "output_padding": [1, 0]},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
        {"output_shape": [15, 12], "strides": [2, 2]},
        {"output_shape": [13, 11], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 2]},
    ]
    found: list[Form] = [("ConvTranspose", (MAPS, two), a, {}) for a in forms]
    bias = whole((6,), "bias")  # the reference takes other weights for the second group
    found += [
        ("ConvTranspose", (MAPS, two, whole((3,), "b")), {"strides": [2, 1]}, {}),
        ("ConvTranspose", (MAPS, whole((4, 3, 2, 2), "g"), bias), {"group": 2, "strides": [2, 2]}, RUNTIME),
        ("ConvTranspose", (MAPS, whole((4, 1, 3, 3), "d")), {"group": 4, "pads": [1, 1, 1, 1]}, {}),
        ("ConvTranspose", (LINE, whole((4, 3, 4), "line")), {"strides": [2], "pads": [1, 1]}, {}),
        ("ConvTranspose", (CUBE, whole((4, 3, 2, 3, 2), "cube")), {"strides": [2, 1, 3]}, {}),
    ]
    return found


MODES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def reals(*numbers: float) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.float32)


def resizes() -> list[Form]:
    """Linear and cubic. The reference has no old versions, and means other things with a few attributes."""
    found: list[Form] = []
    doubled = [1.0, 1.0, 2.0, 2.0]
    old = {"mode": "linear", "scales": doubled}
    found.append(("Upsample", (MAPS,), old, {"first": 7, "last": 8, **RUNTIME}))
    found.append(
        ("Upsample", (MAPS, reals(*doubled)), {"mode": "linear"}, {"first": 9, "last": 9, **RUNTIME})
    )
    for scales in (doubled, [1.0, 1.0, 0.5, 1.5]):
        more = {"first": 10, "last": 10, **RUNTIME}
        found.append(("Resize", (MAPS, reals(*scales)), {"mode": "linear"}, more))
    for mode, kind in itertools.product(MODES, ("linear", "cubic")):
        a = {"mode": kind, "coordinate_transformation_mode": mode}
        scales = ([1, 1, 2, 2], [1, 1, 3, 1.5])
        found += [("Resize", (MAPS, reals(), reals(*one)), a, {"first": 11}) for one in scales]
        one = RUNTIME if mode == "align_corners" else {}  # where the reference counts half an element
        found.append(("Resize", (MAPS, reals(), reals(1, 1, 0.5, 0.5)), a, {"first": 11, **one}))
        found.append(("Resize", (MAPS, "", "", ints(2, 4, 10, 3)), a, {"first": 13}))
        one = RUNTIME if mode == "pytorch_half_pixel" else {}  # where the reference takes the place -1/2
        found.append(("Resize", (MAPS, "", "", ints(2, 4, 1, 9)), a, {"first": 13, **one}))
        found.append(("Resize", (MAPS, "", reals(1.7, 0.6)), {**a, "axes": [2, 3]}, {"first": 18, **RUNTIME}))
    symmetric = {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}
    found.append(("Resize", (MAPS, "", reals(1, 1, 1.6, 0.7)), symmetric, {"first": 19, **RUNTIME}))
    cubic = {"mode": "cubic", "cubic_coeff_a": -0.5}
    found.append(("Resize", (MAPS, "", reals(1, 1, 2, 0.75)), cubic, {"first": 13}))
    found.append(("Resize", (MAPS, "", reals(1, 1, 2, 0.75)), {**cubic, "exclude_outside": 1}, {"first": 13}))
    region = reals(0, 0, 0.25, -0.45, 1, 1, 0.75, 0.9)
    crop = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
    crop |= {"extrapolation_value": 9.0}
    found.append(("Resize", (MAPS, region, "", ints(2, 4, 5, 8)), crop, {"first": 13}))
    for mode in ("linear", "cubic"):
        a = {"mode": mode, "antialias": 1}
        found.append(("Resize", (MAPS, "", reals(1, 1, 0.5, 0.75)), a, {"first": 18}))
        found.append(("Resize", (MAPS, "", "", ints(2, 4, 3, 9)), a, {"first": 18}))
        found.append(("Resize", (MAPS, "", "", ints(2, 4, 2, 4)), {**a, "exclude_outside": 1}, {"first": 18}))
    policy = {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    found.append(("Resize", (MAPS, "", "", ints(10, 10)), policy, {"first": 18}))
    return found


SPATIAL: list[Form] = [*selecting(), *windows(), *transposed(), *resizes()]
