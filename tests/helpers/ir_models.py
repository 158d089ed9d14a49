"""One-layer IR models: every form of every layer type that the reader knows, in every version of the type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.bits import floats
from tests.helpers.ir_build import Ir

Array = np.ndarray[Any, Any]


def whole(shape: tuple[int, ...], key: object) -> Array:
    """Whole numbers from -8 to 8 as float32, no -0 among them."""
    return np.round(floats(shape, key) * 8).astype(np.float32) + np.float32(0)


@dataclass(frozen=True)
class Case:
    """A layer with inputs: a shape is a value of the network, an array a constant."""

    kind: str
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opsets: tuple[int, ...] = (1,)
    outputs: int = 1

    def __str__(self) -> str:
        shown = [str(list(i) if isinstance(i, tuple) else i.tolist())[:24] for i in self.inputs]
        return f"{self.kind}({', '.join(shown)}){dict(self.attributes)}"[:170]


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def reals(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


MAPS = (2, 4, 7, 6)
PADDED = {"pads_begin": (1, 0), "pads_end": (0, 1)}


def convolutions() -> list[Case]:
    found = []
    weight = whole((6, 4, 3, 2), "weight")
    grouped = whole((2, 3, 2, 3, 2), "grouped")
    plain = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
    forms = (
        plain,
        plain | {"strides": (2, 1), "auto_pad": "explicit"} | PADDED,
        plain | {"dilations": (2, 2), "pads_begin": (2, 2), "pads_end": (2, 2), "auto_pad": "explicit"},
        plain | {"strides": (2, 2), "auto_pad": "same_upper"},
        plain | {"strides": (2, 3), "auto_pad": "same_lower"},
        plain | PADDED | {"auto_pad": "valid"},
    )
    for attributes in forms:
        found.append(Case("Convolution", (MAPS, weight), attributes))
        found.append(Case("GroupConvolution", (MAPS, grouped), attributes))
    found.append(Case("GroupConvolution", (MAPS, whole((4, 1, 1, 3, 3), "depth")), plain))
    return found


def pools() -> list[Case]:
    """Rounding both ways, with padding that a window may begin in, and none."""
    found = []
    for strides, begin, end, rounding, maps in product(
        ((2, 2), (3, 2)),
        ((0, 0), (1, 1)),
        ((0, 0), (1, 1)),
        ("floor", "ceil", "ceil_torch"),
        (MAPS, (1, 2, 6, 8)),
    ):
        form: dict[str, Any] = {
            "kernel": (3, 2), "strides": strides, "pads_begin": begin, "pads_end": end,
            "rounding_type": rounding, "auto_pad": "explicit",
        }  # fmt: skip
        cut = [
            (n + b + e - k) % s for n, b, e, k, s in zip(maps[2:], begin, end, (3, 2), strides, strict=True)
        ]
        if rounding == "ceil" and begin < end and any(cut):
            continue  # the last window would lie in the padding: no op of refnet
        old = rounding != "ceil_torch"
        places = form | {"dilations": (1, 1), "index_element_type": "i64", "axis": 0}
        if old:
            found.append(Case("MaxPool", (maps,), form))
        found.append(Case("MaxPool", (maps,), places, (8, 14) if old else (14,), 2))
        for excluded in (True, False):
            if not excluded and rounding != "floor" and any((*begin, *end)) and any(cut):
                continue  # refused
            more = form | {"exclude__pad": excluded}
            found.append(Case("AvgPool", (maps,), more, (1, 14) if old else (14,)))
            found.append(Case("AvgPool", (maps,), more | {"dilations": (1, 1)}, (16,)))
    same = {"kernel": (3, 2), "strides": (2, 2), "pads_begin": (0, 0), "pads_end": (0, 0)}
    for how in ("same_upper", "same_lower", "valid"):
        form = same | {"auto_pad": how, "rounding_type": "floor"}
        found.append(Case("MaxPool", (MAPS,), form))
        found.append(Case("AvgPool", (MAPS,), form | {"exclude__pad": True}))
    dilated = same | {"dilations": (2, 2), "rounding_type": "floor", "auto_pad": "explicit"}
    found.append(Case("MaxPool", (MAPS,), dilated, (8, 14), 2))
    return found


def pointwise() -> list[Case]:
    found = [
        Case("ReLU", (MAPS,)),
        Case("Sigmoid", (MAPS,)),
        Case("Clamp", (MAPS,), {"min": 0, "max": 6.0}),
        Case("Clamp", (MAPS,), {"min": -1.5, "max": 2.25}),
        Case("Convert", (MAPS,), {"destination_type": "f32"}),
    ]
    channels = np.exp2(whole((1, 4, 1, 1), "channels"))
    for kind in ("Add", "Multiply", "Subtract", "Divide"):
        forms = ((MAPS, channels), (channels, MAPS), (MAPS, (2, 4, 1, 1)), (MAPS, reals(4)))
        found.extend(Case(kind, inputs, {"auto_broadcast": "numpy"}) for inputs in forms)
        found.append(Case(kind, (MAPS, MAPS), {"auto_broadcast": "none"}))
    four = np.abs(whole((4,), "four")) + 1
    found.append(Case("BatchNormInference", (four, four, MAPS, four, four), {"epsilon": 1e-5}))
    found.append(Case("BatchNormInference", (MAPS, four, four, four, four), {"epsilon": 0.001}, (5,)))
    found.extend(Case("SoftMax", (MAPS,), {"axis": axis}, (1, 8)) for axis in (1, 3))
    found.append(Case("SoftMax", (MAPS,), {"axis": -2}, (8,)))
    return found


def products() -> list[Case]:
    found = []
    for a, b in product((False, True), repeat=2):
        form = {"transpose_a": a, "transpose_b": b}
        left, right = ((5, 3) if a else (3, 5)), ((4, 5) if b else (5, 4))
        found.append(Case("MatMul", (left, whole(right, "right")), form))
        if not a and not b:
            found.append(Case("MatMul", ((2, *left), (2, *right)), form))
    found.extend(
        Case(kind, (MAPS, axes), {"keep_dims": keep})
        for kind in ("ReduceMean", "ReduceSum")
        for axes, keep in product((ints(2, 3), ints(-1), ints(1), ints(3, 2, 1)), (True, False))
    )
    return found


def moves() -> list[Case]:
    return [
        Case("Reshape", (MAPS, ints(0, -1)), {"special_zero": True}),
        Case("Reshape", (MAPS, ints(2, 4, -1)), {"special_zero": False}),
        Case("Reshape", (MAPS, ints(0, 2, 2, 0, -1)), {"special_zero": True}),
        Case("Unsqueeze", (MAPS, ints(1))),
        Case("Unsqueeze", ((2, 4), ints(2, -1))),
        Case("Squeeze", ((2, 4, 1, 1), ints(2, 3)), {}, (1, 15)),
        Case("Squeeze", ((2, 4, 1, 1), ints(-1))),
        Case("Squeeze", ((2, 4, 1, 1),), {}, (1, 15)),
        Case("Transpose", (MAPS, ints(0, 2, 3, 1))),
        Case("Concat", (MAPS, (2, 3, 7, 6)), {"axis": 1}),
        Case("Concat", (MAPS, MAPS, MAPS), {"axis": -1}),
        Case("Split", (MAPS, np.array(1, np.int64)), {"num_splits": 2}, (1,), 2),
        Case("Split", (MAPS, np.array(-1, np.int64)), {"num_splits": 3}, (1,), 3),
        Case("VariadicSplit", (MAPS, np.array(1, np.int64), ints(1, 3)), {}, (1,), 2),
        Case("VariadicSplit", (MAPS, np.array(2, np.int64), ints(2, -1, 1)), {}, (1,), 3),
        Case(
            "Pad",
            (MAPS, ints(0, 0, 1, 2), ints(0, 0, 2, 1), reals(0.5)[0]),
            {"pad_mode": "constant"},
            (1, 12),
        ),
        Case("Pad", (MAPS, ints(0, 1, 1, 2), ints(0, 0, 2, 1)), {"pad_mode": "edge"}, (1, 12)),
        Case("Pad", (MAPS, ints(0, 0, 1, 2), ints(0, 0, 2, 1)), {"pad_mode": "reflect"}, (1, 12)),
        Case(
            "Pad",
            (MAPS, ints(0, 0, -1, 2), ints(0, 0, 2, -1), reals(0.5)[0]),
            {"pad_mode": "constant"},
            (12,),
        ),
        Case("Slice", (MAPS, ints(1), ints(3), ints(1), ints(1)), {}, (8,)),
        Case("Slice", (MAPS, ints(1, -3), ints(3, 1000), ints(1, 1), ints(1, -1)), {}, (8,)),
        Case(
            "StridedSlice",
            (MAPS, ints(0, 1), ints(0, 3), ints(1, 1)),
            {
                "begin_mask": "1,0",
                "end_mask": "1,0",
                "new_axis_mask": "",
                "shrink_axis_mask": "",
                "ellipsis_mask": "",
            },
        ),
        Case(
            "StridedSlice",
            (MAPS, ints(0, 0, 2, -2), ints(0, 0, 9, 0), ints(1, 1, 1, 1)),
            {"begin_mask": "1,1,0,0", "end_mask": "1,1,0,1"},
        ),
    ]


def resizes() -> list[Case]:
    found = []
    base = {"mode": "nearest", "antialias": False, "pads_begin": (0, 0, 0, 0), "pads_end": (0, 0, 0, 0),
            "cube_coeff": -0.75}  # fmt: skip
    by_scales, by_sizes = {"shape_calculation_mode": "scales"}, {"shape_calculation_mode": "sizes"}
    for coordinates, rounding in product(
        ("half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "align_corners"),
        ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple"),
    ):
        form = base | {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
        for sizes in ((14, 12), (10, 9), (3, 4)):
            axes, size = ints(2, 3), ints(*sizes)
            found.append(Case("Interpolate", (MAPS, size, axes), form | by_sizes, (11,)))
            found.append(Case("Interpolate", (MAPS, size, reals(1, 1), axes), form | by_sizes, (4,)))
        for scales in ((2.0, 2.0), (1.5, 3.0)):
            scale, axes = reals(*scales), ints(2, 3)
            found.append(Case("Interpolate", (MAPS, scale, axes), form | by_scales, (11,)))
            found.append(Case("Interpolate", (MAPS, ints(1, 1), scale, axes), form | by_scales, (4,)))
    form = base | {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    found.append(Case("Interpolate", (MAPS, reals(1, 1, 2, 2)), form | by_scales, (11,)))
    found.append(Case("Interpolate", (MAPS, ints(1, 1, 1, 1), reals(1, 1, 2, 2)), form | by_scales, (4,)))
    return found


CASES = [*convolutions(), *pools(), *pointwise(), *products(), *moves(), *resizes()]


def write(case: Case, opset: int, folder: Path, version: int = 11) -> Path:
    """The model: inputs x0, x1 ...; values y0, y1 ..., each float32 one an output."""
    net, inputs = Ir(version), []
    for i, what in enumerate(case.inputs):
        inputs.append(net.parameter(what, f"x{i}") if isinstance(what, tuple) else net.const(what))
    names = [f"y{k}" for k in range(case.outputs)]
    layer, first = net.layer(case.kind, inputs, opset=opset, name="node", names=names, **case.attributes)
    for k in range(1 if case.kind == "MaxPool" else case.outputs):
        net.result((layer, first + k))
    return net.save(folder)


def data_of(case: Case) -> dict[str, Array]:
    """Arrays for the inputs; powers of two where something is divided.

    OpenVINO divides by multiplying with a reciprocal, which is not always IEEE's quotient: only by powers of
    two is there one right result.
    """
    data = {f"x{i}": whole(s, (str(case), i)) for i, s in enumerate(case.inputs) if isinstance(s, tuple)}
    return {name: np.exp2(x) for name, x in data.items()} if case.kind == "Divide" else data
