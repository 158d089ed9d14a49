"""The folder of a torch module's capture as a MODEL: golden files of it, and which node a name means."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.formats.golden_file import read
from refnet.formats.npy import writing
from refnet.ops import Add, Conv, Relu
from refnet.verification.capture import open_capture
from refnet.verification.counterparts import counterparts
from refnet.verification.modules import members
from tests.helpers.bits import floats
from tests.verification.test_counterparts import captured

F = np.float32


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the capture `caps` of a small module."""
    weights = {"w1": floats((4, 3, 3, 3), "w1"), "w2": floats((4, 4, 1, 1), "w2")}
    nodes = (
        Node("conv2d", Conv(4, (3, 3), pad=(1, 1)), ("x", "w1")),
        Node("conv2d_1", Conv(4, (1, 1)), ("conv2d", "w2")),
        Node("conv2d_2", Conv(4, (1, 1)), ("conv2d_1", "w2")),
        Node("add", Add(), ("conv2d_2", "conv2d")),
        Node("head.relu", Relu(), ("add",)),
    )
    module = Graph("network", {"x": TensorType((1, 3, 6, 6))}, nodes, {"y": "head.relu"}, weights)
    captured(module, tmp_path)
    (tmp_path / "network.onnx").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("output", ["g.json", "caps/g.json"])
@pytest.mark.parametrize("given", [[], ["--input", "caps/x.npy"], ["--input", "caps"], ["--input", "seed:3"]])
def test_a_golden_file_of_a_capture_is_checked(output, given, here, monkeypatch, capsys):
    assert main(["golden", "caps", *given, "-o", output]) == 0
    assert main(["golden", "--check", output]) == 0
    assert main(["golden", "--check", output, "caps"]) == 0
    said = read(output).sources
    assert said is not None
    assert said.model == "caps/network.onnx"
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["golden", "--check", str(here / output)]) == 0
    capsys.readouterr()


def test_a_folder_that_is_gone_and_one_that_moved(here, capsys):
    assert main(["golden", "caps", "-o", "g.json"]) == 0
    (here / "caps").rename(here / "old")
    assert main(["golden", "--check", "g.json"]) == 2
    assert "made of the capture in the folder 'caps', which is not beside it" in capsys.readouterr().err
    assert main(["golden", "--check", "g.json", "old"]) == 0
    shutil.rmtree(here / "old")
    assert main(["golden", "--check", "g.json", "old"]) == 2
    capsys.readouterr()


def test_a_folder_that_changed_says_what(here, capsys):
    assert main(["golden", "caps", "-o", "g.json"]) == 0
    with writing(here / "caps" / "x.npy", (2, 3, 6, 6)) as append:
        append(floats((2, 3, 6, 6), "other"))
    capsys.readouterr()
    assert main(["golden", "--check", "g.json", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "input" in json.dumps(found)
    (here / "b").mkdir()
    other = Graph(
        "network",
        {"x": TensorType((1, 3, 6, 6))},
        (Node("conv2d", Conv(2, (3, 3)), ("x", "w")),),
        {"y": "conv2d"},
        {"w": floats((2, 3, 3, 3), "w")},
    )
    captured(other, here / "b")
    shutil.copy(here / "b" / "network.onnx", here / "caps" / "network.onnx")
    assert main(["golden", "--check", "g.json"]) == 1
    assert "graph" in capsys.readouterr().out


def test_no_other_folder_is_looked_into(here, capsys):
    assert main(["golden", "caps", "-o", "g.json"]) == 0
    text = (here / "g.json").read_text()
    for other in ("../caps/network.onnx", "/etc/network.onnx", "caps/sub/network.onnx", "caps/x.npy"):
        (here / "g.json").write_text(text.replace("caps/network.onnx", other))
        assert main(["golden", "--check", "g.json"]) == 2
        assert f"the golden file's model, {other!r}, is not beside it" in capsys.readouterr().err


def test_a_name_with_running_numbers_behind_it_means_its_node(here, capsys):
    assert main(["explain", "caps", "conv2d"]) == 2
    assert "which element of conv2d, [1, 4, 6, 6]? such as --at 0,2,3,3" in capsys.readouterr().err
    assert main(["explain", "caps", "conv2d", "--at", "0,2,3,3"]) == 0
    assert main(["explain", "caps", "head"]) == 0
    assert "head.relu" in capsys.readouterr().out
    graph = refnet.load(here / "caps")
    assert [one.name for one in members(graph, "conv2d")] == ["conv2d"]
    assert [one.name for one in members(graph, "head")] == ["head.relu"]


def test_outputs_in_another_order_are_judged_by_name_else_by_place(here):
    own = refnet.load(here / "caps")
    own = replace(own, outputs={"logits": "head.relu", "features": "conv2d"})
    to = {node.name: f"/{node.name}/out" for node in own.nodes} | {"x": "input.1"}
    nodes = tuple(Node(to[n.name], n.op, tuple(to.get(name, name) for name in n.inputs)) for n in own.nodes)
    sides = (("features", "/conv2d/out"), ("logits", "/head.relu/out"))
    other = replace(own, inputs={"input.1": own.inputs["x"]}, nodes=nodes, outputs=dict(sides))
    found = counterparts(open_capture(here / "caps"), own, other, {})
    assert dict(found.faults) == {}
    assert [*found.graph.outputs] == ["features", "logits"]
    numbered = {f"o{k}": value for k, (_, value) in enumerate(sides)}
    found = counterparts(open_capture(here / "caps"), own, replace(other, outputs=numbered), {})
    assert dict(found.faults) == {
        "/conv2d/out": "it is the module's output conv2d, where the module returns head.relu",
        "/head.relu/out": "it is the module's output head.relu, where the module returns conv2d",
    }
