"""Tensors of an .onnx that name the same file: no more is read than it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from refnet.core.errors import FormatError
from refnet.models.loading import load


def model(folder: Path, parts: list[tuple[int, int]]) -> str:
    """1 x 1 convolutions of one pixel, whose weights (n, 1, 1, 1) lie at these (offset, n) of `data`."""
    nodes, tensors, values = [], [], []
    for i, (offset, count) in enumerate(parts):
        tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=(count, 1, 1, 1))
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in (("location", "data"), ("offset", str(offset)), ("length", str(4 * count))):
            tensor.external_data.add(key=key, value=text)
        tensors.append(tensor)
        nodes.append(helper.make_node("Conv", ["x", f"w{i}"], [f"y{i}"], name=f"c{i}"))
        values.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 1])
    made = helper.make_model(helper.make_graph(nodes, "g", [image], values, tensors))
    made.opset_import[0].version, made.ir_version = 17, 8
    onnx.save(made, folder / "a.onnx")
    (folder / "data").write_bytes(np.arange(8, dtype="<f4").tobytes())
    return str(folder / "a.onnx")


def test_the_same_bytes_are_one_array(tmp_path):
    weights = list(load(model(tmp_path, [(0, 8)] * 16)).weights.values())
    assert len(weights) == 16
    assert all(one is weights[0] for one in weights)
    assert weights[0].ravel().tolist() == list(range(8))


def test_parts_that_do_not_overlap_are_read(tmp_path):
    weights = load(model(tmp_path, [(0, 4), (16, 4), (0, 4)])).weights
    assert weights["w1"].ravel().tolist() == [4, 5, 6, 7]
    assert weights["w2"] is weights["w0"]


def test_more_than_the_file_holds_is_refused(tmp_path):
    with pytest.raises(
        FormatError, match=r"tensors of 36 bytes, the last initializer 'w1', expected at most the file's 32"
    ):
        load(model(tmp_path, [(0, 4), (4, 5)]))
