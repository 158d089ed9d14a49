"""OpenVINO without OpenVINO: what may be asked of it, what is stated, and how its worker names values."""

from __future__ import annotations

import runpy
from dataclasses import dataclass, field

import pytest

from refnet.core.errors import InputError
from refnet.core.op import TensorType
from refnet.frameworks.caller import layouts
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import stated
from refnet.frameworks.launch import worker_file
from refnet.ops import AvgPool, Conv, Dense, GlobalAvgPool
from refnet.verification.verify import narrower

WORKER = runpy.run_path(worker_file("openvino"))


@dataclass(frozen=True)
class Node:
    name: str
    outputs: int = 1

    def get_friendly_name(self) -> str:
        return self.name

    def get_output_size(self) -> int:
        return self.outputs


@dataclass(frozen=True)
class Output:
    node: Node
    names: frozenset[str] = field(default_factory=frozenset)
    index: int = 0

    def get_node(self) -> Node:
        return self.node

    def get_index(self) -> int:
        return self.index

    def get_names(self) -> set[str]:
        return set(self.names)


@pytest.mark.parametrize(
    ("output", "known", "names"),
    [
        (Output(Node("Multiply_7"), frozenset({"b", "a"})), [], ["a"]),
        (Output(Node("Multiply_7"), frozenset({"b", "a"})), ["b"], ["b"]),
        (Output(Node("Multiply_7"), frozenset({"b", "a"})), ["b", "x", "a"], ["b", "a"]),
        (Output(Node("Multiply_7"), frozenset({"a"})), ["Multiply_7"], ["a"]),
        (Output(Node("Multiply_7")), [], ["Multiply_7"]),
        (Output(Node("Split_8", 2), index=1), ["Split_8:1"], ["Split_8:1"]),
        (Output(Node("Split_8", 2), frozenset({"left"})), [], ["left"]),
    ],
)
def test_a_value_has_the_names_that_the_graph_knows(
    output: Output, known: list[str], names: list[str]
) -> None:
    assert WORKER["_known"](output, {name: i for i, name in enumerate(known)}) == names


@pytest.mark.parametrize(
    ("framework", "more", "text"),
    [
        ("mxnet", {"precision": "f32"}, r"a precision \('f32'\) is a thing of openvino's"),
        ("openvino", {"precision": "b16"}, r"f32 or bf16 or f16, got 'b16'; did you mean bf16"),
        ("openvino", {"mode": "output"}, r"mode must be internals or compiled or outputs, got 'output'"),
        ("openvino", {"subgraph": "default"}, "is a thing of mxnet's"),
    ],
)
def test_what_is_not_openvinos_is_refused(framework: str, more: dict[str, str], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Request(framework, "resnest-digits", **more)


@pytest.mark.parametrize(
    ("framework", "model", "own"),
    [
        ("openvino", "net.onnx", True),
        ("openvino", "net.xml", True),
        ("openvino", "resnest-digits", False),
        ("onnxruntime", "net.onnx", True),
        ("onnxruntime", "net.xml", False),
        ("torch", "net.onnx", False),
    ],
)
def test_a_file_that_runs_as_it_is(framework: str, model: str, own: bool) -> None:
    assert Request(framework, model).is_its_own_file == own


def test_the_precision_is_stated_whether_it_was_said_or_not() -> None:
    assert stated(Request("openvino", "net.onnx")) == {"INFERENCE_PRECISION_HINT": "f32"}
    asked = Request("openvino", "net.onnx", precision="bf16", environment={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    said = {"INFERENCE_PRECISION_HINT": "bf16", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert stated(asked) == said
    assert "INFERENCE_PRECISION_HINT" not in stated(Request("mxnet", "resnest-digits"))
    (note,) = narrower(said)
    assert "bounds are of float32" in note


def test_only_openvinos_averages_are_asked_behind_a_convolution() -> None:
    image = [TensorType((1, 8, 7, 7))]
    for pool in (GlobalAvgPool(), AvgPool((2, 2))):
        assert layouts("openvino", pool, image) == (False, True)
        assert layouts("onnxruntime", pool, image) == (False,)
    assert layouts("openvino", Conv(8, (1, 1)), [*image, TensorType((8, 8, 1, 1))]) == (False,)
    assert layouts("openvino", Dense(4), [TensorType((1, 8)), TensorType((4, 8))]) == (False,)
