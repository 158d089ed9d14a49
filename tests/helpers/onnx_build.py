"""Building ONNX models by hand, for the reader's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import refnet
from refnet.formats.onnx.evaluator import Evaluator
from refnet.formats.onnx.reader import read_onnx


def tensor(name: str, array: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array), name)


def value(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list[Any], constants: list[Any] | None = None, opset: int = 18, **more: Any) -> Any:
    """A model with the input x and the output y."""
    inputs = more.get("inputs", [value("x", more.get("shape", ["batch", 2, 4, 4]))])
    outputs = [value(name, None) for name in more.get("outputs", ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def read(proto: Any, folder: Path, **more: Any) -> refnet.Graph:
    path = folder / "net.onnx"
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return read_onnx(path, **more)


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    outputs = output.split()
    return helper.make_node(op, inputs.split(), outputs, name=f"n_{outputs[0]}", **attributes)


@contextmanager
def one_process() -> Iterator[None]:
    """The constants of all files are computed in one process, since starting hundreds takes minutes."""
    leave, start = Evaluator.__exit__, Evaluator._started
    with mock.patch.dict(os.environ, {"REFNET_FOLD_SECONDS": "3600"}):
        shared = Evaluator()
        with (
            mock.patch.object(Evaluator, "__exit__", return_value=None),
            mock.patch.object(Evaluator, "_started", side_effect=lambda: start(shared)),
        ):
            yield
        leave(shared, None, None, None)
