"""The forms that operators had in opset 6, said as opset 7 says them.

Opset 6 stretches the second operand only where the attribute `broadcast` asks for it, along the axes from
`axis` on; a slope of PRelu belongs to the channels; what behaves otherwise in training says `is_test`. As in
onnx's own version converter, an Unsqueeze before the operator gives the operand its axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from refnet.formats.onnx.file import OnnxNode

STRETCHED = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
"""The operators of opset 6 with the attributes `broadcast` and `axis`."""
LONGER = "broadcast"
"""After a node's first output and a slash: the name of its second operand with more axes."""

Shape = tuple[int, ...]


def modern(node: OnnxNode, shape: Callable[[str], Shape | None]) -> list[OnnxNode]:
    """The nodes of opset 7 that mean the same as one of opset 6. shape: of a value; None where it is unknown.

    Raises FormatError for operands that opset 6 does not stretch.
    """
    if node.opset > 6 or not node.since:
        return [node]
    if node.op in STRETCHED:
        return _stretched(node, shape)
    said = dict(node.attributes)
    if node.op == "PRelu":
        return _slope_of_channels(node, shape)
    if node.op in ("BatchNormalization", "Dropout"):
        said["training_mode"] = int(not said.pop("is_test"))
    elif node.op == "Upsample":
        said["scales"] = [1.0, 1.0, said.pop("height_scale"), said.pop("width_scale")]
    else:
        said.pop("broadcast", None)  # Gemm, which stretches its addend from opset 7 on without being asked
    return [_changed(node, said)]


def _stretched(node: OnnxNode, shape: Callable[[str], Shape | None]) -> list[OnnxNode]:
    said = dict(node.attributes)
    asked, axis = said.pop("broadcast"), said.pop("axis")
    plain = _changed(node, said)
    first, second = (shape(name) for name in node.inputs)
    if first is None or second is None or first == second:
        return [plain]
    if not asked:
        raise node.wrong(f"{list(first)} and {list(second)} without broadcast=1", "equal shapes in opset 6")
    begin = len(first) - len(second) if axis is None else axis + len(first) * (axis < 0)
    behind = len(first) - len(second) - begin
    same = all(b in (1, a) for a, b in zip(first[begin:], second, strict=False))
    if begin < 0 or behind < 0 or not same:
        raise node.wrong(f"{list(second)} at axis {axis} of {list(first)}", "a part of its shape")
    if not behind or len(second) == 0:
        return [plain]
    return _with_axes(plain, [len(second) + k for k in range(behind)])


def _slope_of_channels(node: OnnxNode, shape: Callable[[str], Shape | None]) -> list[OnnxNode]:
    first, slope = (shape(name) for name in node.inputs)
    plain = _changed(node, dict(node.attributes))
    if first is None or slope is None or len(slope) != 1 or slope == (1,) or len(first) < 3:
        return [plain]
    return _with_axes(plain, [1 + k for k in range(len(first) - 2)])


def _with_axes(node: OnnxNode, axes: Sequence[int]) -> list[OnnxNode]:
    """The node behind an Unsqueeze of its second input."""
    name = f"{next(filter(None, node.outputs))}/{LONGER}"
    inserted = replace(
        node, op="Unsqueeze", name="", inputs=node.inputs[1:2], outputs=(name,), attributes={"axes": [*axes]}
    )
    turned = replace(node, inputs=(node.inputs[0], name))
    return [_proto(inserted), _proto(turned)]


def _changed(node: OnnxNode, attributes: dict[str, Any]) -> OnnxNode:
    return _proto(replace(node, attributes=attributes))


def _proto(node: OnnxNode) -> OnnxNode:
    """The node with a protobuf message that says the same, in opset 7."""
    import onnx.helper  # no other file than .onnx needs it

    proto = type(node.proto)(op_type=node.op, name=node.name, input=node.inputs, output=node.outputs)
    said = {name: value for name, value in node.attributes.items() if value is not None}
    said.pop("training_mode", None)  # which opset 7 does not know
    proto.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in said.items())
    return replace(node, opset=7, proto=proto)
