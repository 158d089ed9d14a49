"""A node of an .onnx file as a model of its own: the file's node and operator versions, other arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from refnet.core.errors import UnsupportedError
from refnet.core.op import F32
from refnet.formats.onnx.file import package

LEAST_FORMAT = 4
"""In older versions of the file format a constant had to be an input, too. Operators do not depend on it."""


class NodesAlone:
    """The nodes of a file that refnet has read already, by the names of their values."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._onnx = package("reading")
        self._proto: Any = self._onnx.load(os.fspath(path), load_external_data=False)
        self._nodes = {name: node for node in self._proto.graph.node for name in node.output if name}

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators in the file."""
        return max(
            (one.version for one in self._proto.opset_import if one.domain in ("", "ai.onnx")), default=1
        )

    def model(self, name: str, arrays: Sequence[F32]) -> bytes:
        """A model with the node that makes this value: input `x`, output `y`.

        The node's type and attributes are the file's, and so are the operator versions. arrays: data, then
        weights, which become constants of the model. Raises UnsupportedError if the file's node takes other
        arrays.
        """
        node = self._nodes.get(name)
        if node is None:
            raise UnsupportedError(f"{name}: no node of the file makes this value alone")
        taken = sum(bool(one) for one in node.input)
        if taken != len(arrays) or [one for one in node.output if one] != [name]:
            raise UnsupportedError(
                f"{name}: {node.op_type} of {taken} arrays, refnet reads it as of {len(arrays)}"
            )
        helper, names = self._onnx.helper, iter(["x", *(f"w{k}" for k in range(1, taken))])
        copy = self._onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [next(names) if one else "" for one in node.input]
        copy.output[:] = ["y"]
        kind = self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [copy],
            "node",
            [helper.make_tensor_value_info("x", kind, arrays[0].shape)],
            [helper.make_tensor_value_info("y", kind, None)],
            [self._onnx.numpy_helper.from_array(array, f"w{k}") for k, array in enumerate(arrays[1:], 1)],
        )
        imports = [helper.make_opsetid(one.domain, one.version) for one in self._proto.opset_import]
        version = max(self._proto.ir_version, LEAST_FORMAT)
        made = helper.make_model(graph, opset_imports=imports, ir_version=version)
        data: bytes = made.SerializeToString()
        return data
