"""What ONNX's shape inference says of the outputs of a node that refnet cannot compute.

ONNX types integers too where it can, so that a float32 value which is computed from them (a Gather with the
indices of a TopK) is a node again. A file may have attributes that end the inference's process: it is not
refnet's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.formats.onnx.evaluator import Evaluator
from refnet.formats.onnx.file import OnnxNode
from refnet.formats.opaque import Said, fitting
from refnet.ops import TensorType

Array = npt.NDArray[Any]

MOST_GIVEN = 1 << 10
"""Elements of a constant that is shown to the shape inference: shapes, axes and counts are smaller."""


@dataclass
class Inference:
    """The ONNX types found so far: value -> type. evaluator: has the process that infers them."""

    evaluator: Evaluator
    kinds: dict[str, Any] = field(default_factory=dict)

    def said(
        self, node: OnnxNode, types: Mapping[str, TensorType], constants: Mapping[str, Array]
    ) -> dict[str, Said]:
        """What shape inference says of each output. Raises UnsupportedError where it ends its process."""
        inferred = self._inferred(node, types, constants)
        found = {}
        for name in filter(None, node.outputs):
            if name not in inferred:
                continue
            kind = self.kinds[name] = inferred[name]
            float32 = kind.WhichOneof("value") == "tensor_type" and kind.tensor_type.elem_type == 1
            found[name] = Said(_shape(kind), float32, _empty(kind))
        return found

    def _inferred(
        self, node: OnnxNode, types: Mapping[str, TensorType], constants: Mapping[str, Array]
    ) -> dict[str, Any]:
        """The ONNX types of the node's outputs, as far as onnx can tell."""
        import onnx.helper  # no other file than .onnx needs it

        if not node.since:
            return {}
        given: dict[str, Any] = {}
        shown: dict[str, Array] = {}
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
                    shown[name] = np.ascontiguousarray(array)
        if len(given) < len({*filter(None, node.inputs)}):
            return {}
        kinds = {name: kind.SerializeToString() for name, kind in given.items()}
        found = self.evaluator.inferred(node, kinds, shown)
        return {name: onnx.TypeProto.FromString(kind) for name, kind in found.items()}


def _shape(kind: Any) -> tuple[int, ...] | None:
    """The shape in an ONNX type, if all of it is known and it fits a value of refnet's."""
    tensor = kind.tensor_type
    if kind.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        return None
    return fitting([d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim])


def _empty(kind: Any) -> bool:
    """Whether the type says that there are no elements."""
    dims = kind.tensor_type.shape.dim
    return any(d.HasField("dim_value") and d.dim_value == 0 for d in dims)
