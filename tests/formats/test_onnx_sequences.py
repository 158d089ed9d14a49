"""Sequences that are split from a value and read one element at a time: as onnx's reference reads them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import refnet
from refnet.core.errors import FormatError
from tests.helpers.bits import floats, same_bits
from tests.helpers.onnx_build import node, read

SHAPE = (2, 6, 4)


def model(split: object, at: int, shape: tuple[int, ...] | None = None, **attributes: int) -> onnx.ModelProto:
    constants = [onnx.numpy_helper.from_array(np.array(at, np.int64), "k")]
    if split is not None:
        constants.append(onnx.numpy_helper.from_array(np.array(split, np.int64), "sizes"))
    nodes = [
        node("SplitToSequence", "x" if split is None else "x sizes", "s", **attributes),
        node("SequenceAt", "s k", "p"),
        node("Neg", "p"),
    ]
    kind = onnx.TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", kind, SHAPE)
    y = helper.make_tensor_value_info("y", kind, shape)
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FORMS = [
    (3, 1, {"axis": 1}),
    (4, -1, {"axis": 1}),
    ([1, 2, 3], 2, {"axis": -2}),
    (None, 3, {"axis": 2}),
    (None, -6, {"axis": 1, "keepdims": 0}),
    (1, 1, {}),
]


@pytest.mark.parametrize(("split", "at", "attributes"), FORMS)
def test_an_element_is_a_part_of_the_value(split, at, attributes, tmp_path):
    proto = model(split, at, **attributes)
    x = floats(SHAPE, "x")
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    graph = read(proto, tmp_path)
    values = {one.name: value for one, value in refnet.steps(graph, {"x": x})}
    assert same_bits(values["y"], expected)
    assert same_bits(values["p"], -expected)
    assert not any(one.op.opaque for one in graph.nodes)


@pytest.mark.parametrize(
    ("split", "at", "said"),
    [(4, 2, "position 2"), ([1, 2], 0, r"parts \[1, 2\] of 6"), (0, 0, "parts of 0"), ([-1, 7], 0, "parts")],
)
def test_parts_that_do_not_fit(split, at, said, tmp_path):
    with pytest.raises(FormatError, match=said):
        read(model(split, at, axis=1), tmp_path)


def test_a_sequence_that_is_read_whole_is_left_out(tmp_path):
    proto = model(3, 1, axis=1)
    proto.graph.node.append(node("SequenceLength", "s", "n"))
    proto.graph.node.append(node("Cast", "n", "z", to=1))
    proto.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ()))
    graph = read(proto, tmp_path)
    assert "p" not in graph.by_name or graph.by_name["p"].op.opaque
