"""Nodes that refnet cannot compute: their outputs as opaque nodes, where ONNX's shape inference types them.

    Opaques.take(node, why) ── onnx.shape_inference ── float32 of a known shape: an Opaque node
                                                 └──── anything else: left out, with what needs it

A value that is left out is an integer, or of a shape that the data decide. ONNX types it where it can, so
that a float32 value which is computed from it (a Gather with the indices of a TopK) is a node again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.formats.assembly import LARGEST_VALUE, Made
from refnet.formats.onnx.file import OnnxNode
from refnet.ops import TensorType
from refnet.ops.opaque import Opaque

Array = npt.NDArray[Any]

UNKNOWN = "refnet has no such operator"
MOST_GIVEN = 1 << 10
"""Elements of a constant that is shown to the shape inference: shapes, axes and counts are smaller."""


@dataclass
class Opaques:
    """What is known of the values that refnet cannot make, while a graph is built.

    left_out: value -> why it is no node. kinds: the ONNX types of those that have one. borders: a value that
    is left out -> the values of the graph that it was computed from.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, Any] = field(default_factory=dict)
    borders: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def needed(self, node: OnnxNode) -> str:
        """The first input of the node that was left out; "" if none was."""
        return next((name for name in node.inputs if name in self.left_out), "")

    def take(
        self,
        node: OnnxNode,
        names: Sequence[str],
        why: str,
        types: Mapping[str, TensorType],
        constants: Mapping[str, Array],
    ) -> list[Made]:
        """These outputs of the node as opaque nodes; what cannot be one is noted as left out."""
        read = [(name,) if name in types else self.borders.get(name, ()) for name in node.inputs]
        data = tuple(dict.fromkeys(one for values in read for one in values))
        inferred = self._inferred(node, types, constants)
        made = []
        for name in filter(None, names):
            kind = inferred.get(name)
            shape = None if kind is None else _shape(kind)
            if kind is not None:
                self.kinds[name] = kind
            float32 = kind is not None and kind.tensor_type.elem_type == 1
            if shape is None or not float32:
                what = "its shape is not known" if shape is None else "it is not float32"
                what = "it is empty" if kind is not None and _empty(kind) else what
                self.left_out[name] = f"{node.op}: {what}" if why == UNKNOWN else f"{node.op}: {why}; {what}"
                self.borders[name] = data
            else:
                made.append(Made(name, Opaque(node.op, why, shape), data))
        return made

    def _inferred(
        self, node: OnnxNode, types: Mapping[str, TensorType], constants: Mapping[str, Array]
    ) -> dict[str, Any]:
        """The ONNX types of the node's outputs, as far as onnx can tell."""
        import onnx.helper  # no other file than .onnx needs it
        import onnx.numpy_helper
        import onnx.shape_inference

        given: dict[str, Any] = {}
        shown: dict[str, Any] = {}
        for name in filter(None, node.inputs):
            if name in types:
                number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(types[name].dtype))
                given[name] = onnx.helper.make_tensor_type_proto(number, types[name].shape)
            elif name in self.kinds:
                given[name] = self.kinds[name]
            elif name in constants:
                array = constants[name]
                number = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                given[name] = onnx.helper.make_tensor_type_proto(number, array.shape)
                if array.size <= MOST_GIVEN:
                    shown[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        if len(given) < len({*filter(None, node.inputs)}):
            return {}
        try:
            schema = onnx.defs.get_schema(node.op, node.opset, "")
            opset = [onnx.helper.make_opsetid("", node.opset)]
            return dict(
                onnx.shape_inference.infer_node_outputs(
                    schema, node.proto, given, shown, opset_imports=opset, ir_version=10
                )
            )
        except Exception:  # of C++, without a class of its own: the node's operands do not fit, or no schema
            return {}


def _shape(kind: Any) -> tuple[int, ...] | None:
    """The shape in an ONNX type, if all of it is known and it fits a value of refnet's."""
    tensor = kind.tensor_type
    if kind.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        return None
    shape = tuple(d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim)
    fits = 1 <= len(shape) <= 32 and all(n >= 1 for n in shape)
    return shape if fits and TensorType(shape).size <= LARGEST_VALUE else None


def _empty(kind: Any) -> bool:
    """Whether the type says that there are no elements."""
    dims = kind.tensor_type.shape.dim
    return any(d.HasField("dim_value") and d.dim_value == 0 for d in dims)


def heads(outputs: Sequence[str], opaques: Opaques, inputs: Collection[str]) -> list[str]:
    """The outputs that are values, and in the place of those left out the values that they are made of."""
    found = []
    for name in outputs:
        found += [one for one in opaques.borders.get(name, (name,)) if one == name or one not in inputs]
    return list(dict.fromkeys(found))
