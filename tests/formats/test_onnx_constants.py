"""ONNX outputs that no data decides, and weights that are inputs of the graph."""

from __future__ import annotations

import numpy as np
import pytest

import refnet
from refnet.core.errors import UnsupportedError
from tests.helpers.bits import floats
from tests.helpers.onnx_build import model, node, read, tensor, value

W = floats((3, 2, 3, 3), "w")


def test_an_integer_output_that_no_data_decides_is_named_and_ends_nothing(tmp_path, caplog):
    nodes = [node("Conv", "x w"), node("Shape", "y", "z")]
    graph = read(model(nodes, [tensor("w", W)], outputs=["y", "z"], shape=[1, 2, 4, 4]), tmp_path)
    assert graph.outputs == {"y": "y"}
    assert refnet.run(graph, {"x": floats((1, 2, 4, 4), 0)})["y"].shape == (1, 3, 2, 2)
    (record,) = caplog.records
    said = "left out the outputs that no data decides and that are no float32 values: 'z' (int64[4])"
    assert record.getMessage() == f"{tmp_path / 'net.onnx'}: {said}"


def test_a_constant_float_output_stays(tmp_path, caplog):
    nodes = [node("Conv", "x w"), node("Identity", "c", "z")]
    constants = [tensor("w", W), tensor("c", np.float32([1, 2]))]
    graph = read(model(nodes, constants, outputs=["y", "z"], shape=[1, 2, 4, 4]), tmp_path)
    assert set(graph.outputs) == {"y", "z"}
    assert not caplog.records


def test_nothing_but_such_outputs_is_refused(tmp_path):
    proto = model([node("Conv", "x w", "c"), node("Shape", "c", "z")], [tensor("w", W)], outputs=["z"])
    with pytest.raises(
        UnsupportedError, match=r"(constants that are no float32 values: 'z' \(int64|depends on the batch)"
    ):
        read(proto, tmp_path)


def test_a_weight_that_is_an_input_is_named_so(tmp_path):
    inputs = [value("x", [1, 2, 4, 4]), value("w", [3, 2, 3, 3])]
    x = {"x": floats((1, 2, 4, 4), 0), "w": W}
    with pytest.raises(
        UnsupportedError, match="its weight 'w' is an input of the graph, not a constant: make it an"
    ):
        refnet.run(read(model([node("Conv", "x w")], inputs=inputs), tmp_path), x)
    computed = [node("Relu", "w", "v"), node("Conv", "x v")]
    with pytest.raises(UnsupportedError, match="its weight 'v' is computed from the input"):
        refnet.run(read(model(computed, inputs=inputs), tmp_path), x)
