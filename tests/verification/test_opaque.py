"""Nodes that refnet cannot compute: they cost their own verdict, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.errors import UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.formats.golden_file import Sources
from refnet.ops import Conv, Opaque, Relu, TensorType
from tests.helpers.bits import floats
from tests.helpers.onnx_build import model, node, read, tensor
from tests.helpers.verifying import save

W = floats((3, 2, 1, 1), "w")
V = floats((4, 3, 1, 1), "v")
NODES = [
    node("Conv", "x w", "a"),
    node("Bernoulli", "a", "b"),  # it stands in for whatever refnet lacks
    node("Conv", "b v", "c"),
    node("Relu", "c"),
    node("ArgMax", "y", "best", axis=1),
]


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return read(model(NODES, [tensor("w", W), tensor("v", V)], outputs=["y", "best"]), tmp_path)


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    """What a framework computes, three images."""
    x = floats((3, 2, 4, 4), "x")
    a = refnet.run(one_conv("x", W, 3), {"x": x})["y"]
    b = np.tan(a)
    c = refnet.run(one_conv("x", V, 4), {"x": b})["y"]
    y = np.maximum(c, 0)
    return {"x": x, "a": a, "b": b, "c": c, "y": y, "best": y.argmax(1)[:, None]}


def one_conv(name: str, w: np.ndarray, channels: int) -> Graph:
    nodes = (Node("y", Conv(channels, (1, 1)), (name, "w")),)
    return Graph("one", {name: TensorType((1, w.shape[1], 4, 4))}, nodes, {"y": "y"}).with_weights({"w": w})


def verdicts(found: refnet.Verification) -> dict[str, str]:
    return {one.name: one.verdict for one in found.nodes}


def test_the_graph_names_what_is_opaque_and_keeps_the_rest(graph, caplog):
    assert graph.by_name["b"].op == Opaque("Bernoulli", "refnet has no such operator", (0, 3, 4, 4))
    assert graph.by_name["b"].op.type(TensorType((7, 3, 4, 4))) == TensorType((7, 3, 4, 4))
    assert graph.outputs == {"y": "y", "best": "best"}
    assert graph.types()["best"] == TensorType((1, 1, 4, 4), "int64")


def test_verify_judges_everything_else(graph, values, tmp_path):
    found = refnet.verify(
        save(tmp_path / "c", {n: values[n] for n in [*"abcy", "best"]}, graph, {"x": values["x"]}), graph
    )
    own = {"a": "replayed", "b": "unjudged", "c": "replayed", "y": "equal", "best": "equal"}
    assert verdicts(found) == own
    (said,) = [one.reason for one in found.nodes if one.name == "b"]
    assert said == "Bernoulli: refnet has no such operator; its captured value is passed on"
    assert found.exit_code == 2


def test_a_defect_behind_an_opaque_node_is_found(graph, values, tmp_path):
    values["c"] = values["c"] + np.float32(1)
    values["y"] = np.maximum(values["c"], 0)
    found = refnet.verify(
        save(tmp_path / "c", {n: values[n] for n in "abcy"}, graph, {"x": values["x"]}), graph
    )
    own = {"a": "replayed", "b": "unjudged", "c": "defect", "y": "equal", "best": "missing"}
    assert verdicts(found) == own
    assert found.first_defect == "c"


def test_an_opaque_value_that_is_not_captured_leaves_its_readers_open(graph, values, tmp_path):
    found = refnet.verify(
        save(tmp_path / "c", {n: values[n] for n in "acy"}, graph, {"x": values["x"]}), graph
    )
    own = {"a": "replayed", "b": "missing", "c": "unjudged", "y": "equal", "best": "missing"}
    assert verdicts(found) == own


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((3, 3, 4, 5), np.float32), "its shape is [3, 3, 4, 5], not [3, 3, 4, 4]"),
        (np.zeros((3, 3, 4, 4), np.int64), "must be float32 ('<f4'), found '<i8'"),
    ],
)
def test_an_opaque_value_of_another_type_is_not_passed_on(graph, values, tmp_path, wrong, said):
    folder = tmp_path / "c"
    folder.mkdir()
    for name in "xacy":
        np.save(folder / f"{name}.npy", values[name])
    np.save(folder / "b.npy", wrong)
    found = refnet.verify(folder, graph)
    assert verdicts(found)["c"] == "unjudged"
    (reason,) = [one.reason for one in found.nodes if one.name == "b"]
    assert reason is not None
    assert reason.endswith(said)


def test_a_run_stops_before_the_first_node_and_names_all(graph, values):
    message = (
        r"net: what is asked for needs .* refnet cannot compute:\n  Bernoulli: refnet has no such operator: b"
    )
    for arithmetic in (refnet.Plain(), refnet.Golden()):
        with pytest.raises(UnsupportedError, match=message):
            refnet.run(graph, {"x": values["x"]}, arithmetic)
        with pytest.raises(UnsupportedError, match=message):
            next(refnet.steps(graph, {"x": values["x"]}, arithmetic))
    before = refnet.run(graph, {"x": values["x"]}, values=["a"])
    assert before["a"].tobytes() == values["a"].tobytes()


def test_the_command_allows_a_named_opaque_node(graph, values, tmp_path, capsys):
    folder = save(tmp_path / "c", {n: values[n] for n in "abcy"}, graph, {"x": values["x"]})
    file = str(tmp_path / "net.onnx")
    assert main(["verify", str(folder), file]) == 2
    assert main(["verify", str(folder), file, "--allow", "b"]) == 0
    assert "1 unjudged" in capsys.readouterr().out
    assert main(["golden", file, "--input", "seed:0", "-o", str(tmp_path / "golden.json")]) == 2
    assert "Bernoulli: refnet has no such operator: b" in capsys.readouterr().err


def test_a_capture_reads_its_own_network_wherever_the_command_runs(graph, values, tmp_path, monkeypatch):
    folder = tmp_path / "c"
    folder.mkdir()
    (tmp_path / "net.onnx").rename(folder / "network.onnx")
    own = refnet.load(folder / "network.onnx")
    said = Sources("network.onnx", None, "", None, None, None)
    save(folder, {n: values[n] for n in "abcy"}, own, {"x": values["x"]}, said)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = read(model([node("Relu", "x")]), elsewhere)
    (elsewhere / "net.onnx").rename(elsewhere / "network.onnx")
    assert other.structure_hash() != graph.structure_hash()
    monkeypatch.chdir(elsewhere)
    assert verdicts(refnet.verify(folder))["c"] == "replayed"


def test_an_operator_that_reads_integers_is_opaque_with_what_they_are_made_of(tmp_path):
    nodes = [
        node("Relu", "x", "a"),
        node("TopK", "a k", "v i", axis=1),
        node("Cast", "i", "f", to=1),
        node("Relu", "f"),
    ]
    graph = read(model(nodes, [tensor("k", np.array([1]))]), tmp_path)
    assert graph.by_name["f"].data == ("a",)
    assert graph.by_name["f"].op.opaque == "Cast: it reads 'i', which is left out"
    assert graph.by_name["y"].op == Relu()


def test_what_is_opaque_is_named_wherever_a_node_is_asked_for(graph, values, tmp_path, capsys):
    folder = save(tmp_path / "c", {n: values[n] for n in "abcy"}, graph, {"x": values["x"]})
    file = str(tmp_path / "net.onnx")
    assert main(["explain", file, "b", "--at", "0,0,0,0", "--capture", str(folder)]) == 2
    assert main(["export", file, "--to", "onnx", "-o", str(tmp_path / "out.onnx")]) == 2
    assert capsys.readouterr().err.count("Bernoulli: refnet has no such operator") == 2
    assert main(["summary", file]) == 0
    said = capsys.readouterr().out
    assert "Without the operations of what refnet cannot compute: b." in said
    assert "card" not in said
