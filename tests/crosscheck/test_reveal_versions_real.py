"""Reveal at a file's own opset, and behind the twins that MXNet computes only once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx as package
import pytest
from onnx import helper

from refnet.core.graph import Graph, Node, TensorType
from refnet.core.orders import Choice
from refnet.formats import book as book_file
from refnet.formats.mxnet.reader import write_symbol
from refnet.frameworks.capture.request import Request
from refnet.frameworks.process import Worker
from refnet.frameworks.reveal.network import reveal
from refnet.ops import Add, AvgPool, Conv, Relu
from tests.crosscheck.conftest import interpreter

pytestmark = pytest.mark.crosscheck


def pools(folder: Path, opset: int) -> Path:
    """Average pools whose windows overhang: from opset 19 on ONNX Runtime adds them in another order."""
    names = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("AveragePool", ["x"], ["pool"], **names),
        helper.make_node("AveragePool", ["pool"], ["counted"], count_include_pad=1, **names),
        helper.make_node("Relu", ["counted"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", package.TensorProto.FLOAT, [1, 6, 15, 13])]
    outputs = [helper.make_tensor_value_info("y", package.TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "pools", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = folder / f"pools{opset}.onnx"
    package.save(made, path)
    return path


@pytest.mark.parametrize("opset", [11, 17, 19, 20, 22])
def test_onnx_runtime_is_asked_at_the_files_own_opset(opset: int, tmp_path: Path) -> None:
    path, output = pools(tmp_path, opset), tmp_path / "pools.book"
    request = Request("onnxruntime", str(path), python=str(interpreter("onnx")))
    found = reveal(request, output, threads=1)
    assert not found.book.unconfirmed
    assert (found.nodes, found.replayed + found.settled) == (4, 4)
    assert book_file.read(output).reference.flags["opset"] == str(opset)


def test_the_order_changed_with_opset_19(tmp_path: Path) -> None:
    """So that the test above cannot pass by asking at another one."""
    books = []
    for opset in (17, 20):
        request = Request("onnxruntime", str(pools(tmp_path, opset)), python=str(interpreter("onnx")))
        books.append(reveal(request, tmp_path / f"{opset}.book", threads=1).book)
    assert books[0].recipes != books[1].recipes


def test_mxnet_shows_one_of_two_twins(mxnet: Worker, tmp_path: Path, report: list[str]) -> None:
    pool = AvgPool((2, 2), (2, 2))
    nodes = (
        Node("pool_a", pool, ("data",)),
        Node("pool_b", pool, ("data",)),
        Node("conv_a", Conv(4, (3, 3), pad=(1, 1)), ("pool_a", "conv_a_weight")),
        Node("conv_b", Conv(4, (1, 1)), ("pool_b", "conv_b_weight")),
        Node("relu", Relu(), ("conv_b",)),
        Node("sum", Add(2), ("conv_a", "relu")),
    )
    graph = Graph("twins", {"data": TensorType((1, 3, 12, 12))}, nodes, {"sum": "sum"})
    symbol = tmp_path / "twins-symbol.json"
    write_symbol(symbol, graph)
    request = Request(
        "mxnet", str(symbol), weights="seed:1", image=(12, 12), python=str(interpreter("mxnet"))
    )
    found = reveal(request, tmp_path / "twins.book", threads=1)
    report.append(f"{found.replayed} replayed, {found.settled} settled, {found.book.unconfirmed}")
    assert not found.book.unconfirmed
    assert found.replayed + found.settled == found.nodes == 6


def test_onnx_runtimes_place_of_a_resize_is_found(tmp_path: Path) -> None:
    """Asked alone refnet's exporter writes a Gather: the network decides."""
    sizes = package.numpy_helper.from_array(np.array([1, 2, 3, 64], np.int64), "sizes")
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest", **how)
    inputs = [helper.make_tensor_value_info("x", package.TensorProto.FLOAT, [1, 2, 3, 26])]
    outputs = [helper.make_tensor_value_info("y", package.TensorProto.FLOAT, [1, 2, 3, 64])]
    graph = helper.make_graph([node], "resize", inputs, outputs, [sizes])
    path = tmp_path / "resize.onnx"
    package.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8), path)
    request = Request("onnxruntime", str(path), python=str(interpreter("onnx")))
    found = reveal(request, tmp_path / "resize.book", threads=1)
    assert not found.book.unconfirmed
    (recipe,) = found.book.recipes.values()
    (part,) = recipe.parts
    assert isinstance(part.do, Choice)
    assert part.do.formula in ("divided", "divided-tolerant")
