"""Graph -> ONNX, continued: the ops that select, rearrange, transpose-convolve and interpolate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from refnet.core.graph import Node
from refnet.ops import DepthToSpace, Expand, Gather, SpaceToDepth, StridedSlice, TensorType, Tile


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
        case _:
            return False
    return True
