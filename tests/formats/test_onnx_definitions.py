"""Operators that ONNX defines by others, read as the nodes of the definition: names, verdicts, hostile nodes.

The values of every form: tests/helpers/onnx_models.py `defined`, against onnx.reference and ONNX Runtime.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.core.errors import FormatError, RefnetError, UnsupportedError
from refnet.core.op import Interval
from refnet.formats.onnx.bodies import DEFINED
from refnet.formats.onnx.export import graph_to_onnx
from refnet.formats.onnx.ops import RULES
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import FAST
from tests.helpers.onnx_build import model, node, read, tensor, value
from tests.helpers.verifying import save

F = np.float32
QKV = [value("x", ["batch", 2, 3, 4]), value("k", ["batch", 2, 5, 4]), value("v", ["batch", 2, 5, 6])]


def attention(**more: object) -> object:
    return model([node("Attention", "x k v", **more)], opset=23, inputs=QKV)


def test_the_value_keeps_its_name_and_those_inside_stand_behind_it(tmp_path: Path) -> None:
    graph = read(attention(), tmp_path)
    names = [one.name for one in graph.nodes]
    assert names[-1] == graph.outputs["y"] == "y"
    assert all(name.startswith("y/") for name in names[:-1])
    assert "y/AttnWeightSoftmax" in names
    assert not any(one.op.opaque for one in graph.nodes)


def test_attention_takes_any_batch(tmp_path: Path) -> None:
    graph = read(attention(), tmp_path)
    data = {n: floats((3, *shape), n) for n, shape in (("x", (2, 3, 4)), ("k", (2, 5, 4)), ("v", (2, 5, 6)))}
    whole = refnet.run(graph, data, values=["y"])["y"]
    for i in range(3):
        one = refnet.run(graph, {name: x[i : i + 1] for name, x in data.items()}, values=["y"])["y"]
        assert same_bits(whole[i : i + 1], one)


def test_names_inside_give_way_to_the_files(tmp_path: Path) -> None:
    nodes = [node("Shrink", "x", "a", bias=0.5), node("Relu", "a", "a/SubBias"), node("Neg", "a/SubBias")]
    graph = read(model(nodes), tmp_path)
    names = [one.name for one in graph.nodes]
    assert len(names) == len(set(names))
    assert isinstance(graph.by_name["a/SubBias"].op, ops.Relu)


def test_only_what_is_wanted_of_a_definition_is_built(tmp_path: Path) -> None:
    nodes = [node("Attention", "x k v", "y kept"), node("Relu", "kept", "z")]
    graph = read(model(nodes, opset=23, inputs=QKV, outputs=["z"]), tmp_path)
    assert not any("Softmax" in one.name for one in graph.nodes)


def test_what_a_definition_lacks_makes_the_one_node_opaque(tmp_path: Path) -> None:
    """Here, a softmax in float16; the node's shape is known."""
    graph = read(attention(softmax_precision=10), tmp_path)
    (only,) = graph.nodes
    assert only.name == "y"
    assert only.op.opaque.startswith("Attention: its definition has Cast: ")


def judged(graph: refnet.Graph, inputs: dict[str, np.ndarray], y: np.ndarray, folder: Path) -> str:
    """The verdict on a capture that has the operator's value alone."""
    found = refnet.verify(save(folder, {"y": y}, graph, inputs), graph)
    return {one.name: one.verdict for one in found.nodes}["y"]


def test_exact_nodes_of_a_definition_leave_one_result(tmp_path: Path) -> None:
    graph = read(model([node("ThresholdedRelu", "x", alpha=0.25)], opset=10, shape=[2, 8]), tmp_path)
    x = floats((2, 8), "x")
    y = np.where(x > F(0.25), x, F(0))
    assert same_bits(refnet.run(graph, {"x": x}, values=["y"])["y"], y)
    assert judged(graph, {"x": x}, y, tmp_path / "right") == "equal"
    y[np.unravel_index(y.argmax(), y.shape)] *= F(1 + 2.0**-23)
    assert judged(graph, {"x": x}, y, tmp_path / "wrong") == "defect"


def test_attention_at_once_is_inside_and_bugs_are_outside(tmp_path: Path) -> None:
    """In float64, rounded once; and without the scale, with a causal mask, with the other axis."""
    read(attention(), tmp_path)
    graph = refnet.load(tmp_path / "net.onnx")  # with what says how far a scale that was computed may be off
    data = {n: floats((1, *shape), n) for n, shape in (("x", (2, 3, 4)), ("k", (2, 5, 4)), ("v", (2, 5, 6)))}
    q, k, v = (x.astype(np.float64) for x in data.values())

    def at_once(scale: float = 0.5, masked: bool = False) -> np.ndarray:
        scores = q @ k.swapaxes(2, 3) * scale
        scores = np.where(np.tri(3, 5, dtype=bool) | (not masked), scores, -np.inf)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        return (share / share.sum(-1, keepdims=True) @ v).astype(F)

    assert judged(graph, data, at_once(), tmp_path / "right") == "rounding"
    assert judged(graph, data, at_once(1.0), tmp_path / "unscaled") == "defect"
    assert judged(graph, data, at_once(masked=True), tmp_path / "masked") == "defect"


def test_the_interval_of_a_number_is_one_of_a_number() -> None:
    """A loss that is a quotient of two numbers was a vector of one element otherwise."""
    one = Interval.exactly(np.float32(3))
    assert one.center.shape == one.radius.shape == ()
    assert ops.Div(((),)).bound(one, one, engine=FAST).center.shape == ()


def test_the_export_writes_the_nodes(tmp_path: Path) -> None:
    proto = model([node("MeanVarianceNormalization", "x", axes=[2, 3])], opset=13)
    graph = read(proto, tmp_path)
    back = read(graph_to_onnx(graph), tmp_path)
    x = {"x": floats((2, 2, 4, 4), "x")}
    assert same_bits(refnet.run(graph, x, values=["y"])["y"], refnet.run(back, x, values=["y"])["y"])


def test_no_operator_has_both_a_rule_and_a_definition() -> None:
    assert not DEFINED & RULES.keys()


def test_antialiasing_that_is_too_wide_is_refused(tmp_path: Path) -> None:
    scales = tensor("s", np.array([1, 1, 1, 2.0**-18], F))
    resize = node("Resize", "x r s", mode="cubic", antialias=1)
    proto = model([resize], [tensor("r", np.zeros(0, F)), scales], shape=[1, 1, 1, 1 << 20])
    graph = read(proto, tmp_path)
    assert "antialiasing" in graph.by_name["y"].op.opaque


def test_antialiasing_is_not_written_in_opset_17(tmp_path: Path) -> None:
    scales = tensor("s", np.array([1, 1, 0.5, 0.5], F))
    resize = node("Resize", "x r s", mode="linear", antialias=1)
    graph = read(model([resize], [tensor("r", np.zeros(0, F)), scales]), tmp_path)
    with pytest.raises(UnsupportedError, match="antialias"):
        graph_to_onnx(graph)


def test_hostile_nodes_end_in_errors(tmp_path: Path) -> None:
    """Attributes and types of any kind, in a process of its own: onnx's C++ must not end it."""
    command = [sys.executable, "-m", "tests.helpers.onnx_attack", "1", "150", str(tmp_path / "one.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    built, refused = map(int, done.stdout.split())
    assert built + refused == 150
    assert refused > 20


def test_numbers_too_large_are_not_shown_to_onnx(tmp_path: Path) -> None:
    proto = model([node("Attention", "x k v", q_num_heads=1 << 40)], opset=23, inputs=QKV)
    assert "q_num_heads 1099511627776" in read(proto, tmp_path).by_name["y"].op.opaque


def test_inputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    inputs = [QKV[0], value("k", ["batch", 2, 5, 7]), QKV[2]]
    proto = model([node("Attention", "x k v")], opset=23, inputs=inputs)
    with pytest.raises((FormatError, RefnetError), match="y/"):
        read(proto, tmp_path)
