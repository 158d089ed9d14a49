"""Graph -> ONNX, continued: the ops that select, rearrange, transpose-convolve and interpolate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from refnet.core.errors import UnsupportedError
from refnet.core.graph import Node
from refnet.ops import (
    AvgPoolNd,
    ConvNd,
    ConvTranspose,
    DepthToSpace,
    Expand,
    Gather,
    LpPool,
    MaxPoolNd,
    ResizeCubic,
    ResizeLinear,
    SpaceToDepth,
    StridedSlice,
    TensorType,
    Tile,
)
from refnet.ops.pool_nd import PoolNd


class Writer(Protocol):
    """What export.py writes with."""

    def node(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node whose only output has this name."""

    def step(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The same for a helper."""

    def constant(self, name: str, values: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """An initializer."""


BEYOND = -(1 << 31)
"""An end before every element: ONNX counts -1 from the end."""


def write_spatial(writer: Writer, node: Node, types: Mapping[str, TensorType]) -> bool:
    """Write a node of one of these ops; False: it is none of them. Raises UnsupportedError."""
    name, inputs = node.name, node.inputs
    match node.op:
        case StridedSlice(axes=axes, begins=begins, steps=steps, counts=counts):
            ends = [b + s * n for b, s, n in zip(begins, steps, counts, strict=True)]
            bounds = {
                "begin": begins,
                "end": [BEYOND if e < 0 else e for e in ends],
                "axis": axes,
                "step": steps,
            }
            named = (writer.constant(f"{name}/{k}", tuple(v)) for k, v in bounds.items())
            writer.node("Slice", name, (*inputs, *named))
        case Gather(axis=axis, indices=indices, shape=shape):
            where = np.array(indices, np.int64).reshape(-1 if shape is None else shape)
            writer.node("Gather", name, (*inputs, writer.constant(f"{name}/indices", where)), axis=axis)
        case Expand(shape=shape):
            writer.node("Expand", name, (*inputs, writer.constant(f"{name}/shape", shape)))
        case Tile(repeats=repeats):
            writer.node("Tile", name, (*inputs, writer.constant(f"{name}/repeats", repeats)))
        case DepthToSpace(block=block, depth_first=depth_first):
            mode = "DCR" if depth_first else "CRD"
            writer.node("DepthToSpace", name, inputs, blocksize=block, mode=mode)
        case SpaceToDepth(block=block, depth_first=True):
            writer.node("SpaceToDepth", name, inputs, blocksize=block)
        case SpaceToDepth(block=b):  # which SpaceToDepth has from opset 28 on
            _, c, h, w = types[inputs[0]].shape
            parts = writer.constant(f"{name}/parts", (0, c, h // b, b, w // b, b))
            split = writer.step("Reshape", f"{name}/split", (inputs[0], parts))
            moved = writer.step("Transpose", f"{name}/moved", (split,), perm=(0, 1, 3, 5, 2, 4))
            made = writer.constant(f"{name}/shape", (0, *types[name].shape[1:]))
            writer.node("Reshape", name, (moved, made))
        case ConvNd() as op:
            stride, pad, end, dilation = op.window
            window = {"kernel_shape": op.kernel, "strides": stride, "pads": (*pad, *end)}
            writer.node("Conv", name, inputs, **window, dilations=dilation, group=op.groups)
        case ConvTranspose() as op:
            stride, pad, end, dilation, more = op.window
            window = {"kernel_shape": op.kernel, "strides": stride, "pads": (*pad, *end)}
            window |= {"dilations": dilation, "output_padding": more}
            writer.node("ConvTranspose", name, inputs, **window, group=op.groups)
        case MaxPoolNd() as op:
            window = {"kernel_shape": op.kernel, "strides": op.window[0], "dilations": op.window[3]}
            pads = (*op.window[1], *_behind(op, types[inputs[0]], types[name]))
            writer.node("MaxPool", name, inputs, **window, pads=pads)
        case LpPool() as op:
            if set(op.window[3]) != {1}:
                raise UnsupportedError(f"{name}: {op!r} has no counterpart in ONNX before opset 18")
            pads = (*op.window[1], *_behind(op, types[inputs[0]], types[name]))
            window = {"kernel_shape": op.kernel, "strides": op.window[0]}
            writer.node("LpPool", name, inputs, **window, pads=pads, p=op.p)
        case AvgPoolNd() as op:
            _average(writer, node, op, types)
        case ResizeLinear() | ResizeCubic() as op:
            _resize(writer, node, op, types[inputs[0]].shape)
        case _:
            return False
    return True


def _resize(writer: Writer, node: Node, op: ResizeLinear | ResizeCubic, shape: tuple[int, ...]) -> None:
    """By scales where these are float32 that make the sizes; else by sizes, the first one taken from x."""
    name, data = node.name, node.inputs[0]
    if op.coordinates in ("half_pixel_symmetric", "tf_half_pixel_for_nn"):
        raise UnsupportedError(f"{name}: {op!r} has no counterpart in ONNX's opset 17")
    if op.antialias:
        raise UnsupportedError(
            f"{name}: {op!r} has no counterpart in ONNX's opset 17, which has no antialias"
        )
    how: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": op.coordinates}
    if isinstance(op, ResizeCubic):
        how |= {"mode": "cubic", "cubic_coeff_a": op.coefficient, "exclude_outside": int(op.exclude_outside)}
    region = ""
    if op.roi:
        ends = [(0.0, 1.0)] * len(shape)
        for axis, roi in zip(op.axes, op.roi, strict=True):
            ends[axis] = roi
        region = writer.constant(f"{name}/roi", np.array([a for a, _ in ends] + [b for _, b in ends], "f4"))
        how["extrapolation_value"] = op.extrapolation
    by_axis = dict(zip(op.axes, zip(op.scales, op.sizes, strict=True), strict=True))
    exact = {axis: op.axis(k, shape).ratio for k, axis in enumerate(op.axes)}
    scales = [np.float32(float(exact.get(i, 1))) for i in range(len(shape))]
    if all(
        Fraction(float(scales[i])) == exact[i] and int(np.floor(np.float32(shape[i]) * scales[i])) == size
        for i, (_, size) in by_axis.items()
    ):
        given = writer.constant(f"{name}/scales", np.array(scales, np.float32))
        writer.node("Resize", name, (data, region, given), **how)
        return
    if 0 in by_axis or any(exact[i] != Fraction(size, shape[i]) for i, (_, size) in by_axis.items()):
        raise UnsupportedError(f"{name}: {op!r} has no counterpart in ONNX's opset 17 that takes any batch")
    batch = writer.step("Shape", f"{name}/batch", (data,), start=0, end=1)
    rest = [by_axis[i][1] if i in by_axis else shape[i] for i in range(1, len(shape))]
    sizes = writer.step("Concat", f"{name}/sizes", (batch, writer.constant(f"{name}/rest", rest)), axis=0)
    writer.node("Resize", name, (data, region, "", sizes), **how)


def _behind(op: PoolNd, x: TensorType, y: TensorType) -> tuple[int, ...]:
    """The padding behind the image with which exactly refnet's windows fit, whatever the convention."""
    stride, pad, _, dilation = op.window
    axes = zip(x.shape[2:], y.shape[2:], op.kernel, stride, pad, dilation, strict=True)
    return tuple(max((m - 1) * s + d * (k - 1) + 1 - n - p, 0) for n, m, k, s, p, d in axes)


def _average(writer: Writer, node: Node, op: AvgPoolNd, types: Mapping[str, TensorType]) -> None:
    """As export.py writes AvgPool: padding that windows reach beyond is made part of the image."""
    stride, pad, end, dilation = op.window
    if set(dilation) != {1}:
        raise UnsupportedError(f"{node.name}: {op!r} has no counterpart in ONNX before opset 19")
    data, rank = node.inputs[0], len(op.kernel)
    behind = _behind(op, types[data], types[node.name])
    pads, counted = (*pad, *behind), op.count_include_pad
    beyond = [max(b - e, 0) for b, e in zip(behind, end, strict=True)]
    if counted and any(beyond):
        counted = False
        if any((*pad, *end)):
            around = writer.constant(f"{node.name}/pads", [0, 0, *pad, 0, 0, *end])
            data = writer.step("Pad", f"{node.name}/padded", (data, around))
            pads = (*(0,) * rank, *beyond)
    window = {"kernel_shape": op.kernel, "strides": stride, "pads": pads}
    writer.node("AveragePool", node.name, (data,), **window, count_include_pad=int(counted))
