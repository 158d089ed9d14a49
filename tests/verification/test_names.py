"""Captured values under other names: an error with the likely matches, until they are named or allowed."""

from __future__ import annotations

import html
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.errors import FormatError, InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.formats.manifest import file_name
from refnet.models.export import export
from refnet.ops import BatchNorm, Conv, Dense, Flatten, GlobalAvgPool, Relu
from refnet.verification.capture import Values, open_capture
from refnet.verification.names import Likely, Unmatched, propose, read_names, renamed
from tests.helpers.bits import floats, same_bits

F = np.float32


def network() -> Graph:
    """Names as PyTorch's exporter writes them."""
    nodes = (
        Node("/conv/Conv_output_0", Conv(4, (3, 3), pad=(1, 1), bias=True), ("x", "w", "b")),
        Node("/bn/BatchNormalization_output_0", BatchNorm(1e-5), ("/conv/Conv_output_0", "g", "h", "m", "v")),
        Node("/relu/Relu_output_0", Relu(), ("/bn/BatchNormalization_output_0",)),
        Node("/gap/GlobalAveragePool_output_0", GlobalAvgPool(), ("/relu/Relu_output_0",)),
        Node("/Flatten_output_0", Flatten(), ("/gap/GlobalAveragePool_output_0",)),
        Node("logits", Dense(5), ("/Flatten_output_0", "fc.weight", "fc.bias")),
    )
    graph = Graph("net", {"x": TensorType((1, 2, 6, 6))}, nodes, {"logits": "logits"})
    made = {name: floats(kind.shape, name) for name, kind in graph.weight_types.items()}
    return graph.with_weights(made | {"v": np.abs(made["v"]) + F(0.5)})


GRAPH = network()
DATA = {"x": floats((1, 2, 6, 6), "x")}
VALUES = {node.name: value for node, value in refnet.steps(GRAPH, DATA)}


def dump(folder: Path, wrong: float = 0.0) -> tuple[Path, Path]:
    """A folder whose files have `_` for `/`; all but logits are wrong by so much. The model's file beside."""
    (folder / "values").mkdir()
    for name, value in VALUES.items():
        array = value if name == "logits" else value + F(wrong)
        np.save(folder / "values" / f"{name.replace('/', '_')}.npy", array)
    np.save(folder / "x.npy", DATA["x"])
    (model,) = export(GRAPH, folder / "net", "onnx")
    return folder / "values", model


def test_files_under_other_names_are_an_error_and_then_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The case foreign-names: 5 of 6 files were wrong by 1000, "surplus", and the exit code was 0."""
    values, model = dump(tmp_path, 1000.0)
    line = ["verify", str(values), str(model), "--input", str(tmp_path / "x.npy")]
    assert main(line) == 2
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "5 captured values match no value of the graph" in out
    for name in list(VALUES)[:-1]:
        assert f"{name.replace('/', '_')} -> {name} (by its name)" in out
    accepted = tmp_path / "map.json"
    assert main([*line, "--propose", str(accepted), "--json"]) == 2
    record = json.loads(capsys.readouterr().out)
    assert record["summary"]["unmatched"] == 5
    assert record["unmatched"][0]["likely"]["why"] == "by its name"
    assert json.loads(accepted.read_text()) == {n.replace("/", "_"): n for n in VALUES if n != "logits"}
    assert main([*line, "--names", str(accepted), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["unmatched"] == record["surplus"] == []
    assert record["summary"]["defect"] >= 4
    assert record["first_defect"] == "/conv/Conv_output_0"
    at = ["--at", "0,0,0,0", "--capture", str(values), "--input", str(tmp_path / "x.npy")]
    assert main(["explain", str(model), "/relu/Relu_output_0", *at, "--names", str(accepted)]) == 0


def test_right_values_under_other_names_are_clean_once_they_are_named_or_allowed(tmp_path: Path) -> None:
    values, model = dump(tmp_path)
    given = {"inputs": str(tmp_path / "x.npy")}
    found = refnet.verify(values, model, **given)
    assert (found.exit_code, len(found.unmatched), found.judged) == (2, 5, 1)
    assert refnet.verify(values, model, allow=["_*"], **given).exit_code == 0
    assert refnet.verify(values, model, allow=["_*"], **given).allowed == found.surplus
    assert refnet.verify(values, model, allow=["_conv*"], **given).exit_code == 2
    names = {one.name: one.likely.name for one in found.unmatched if one.likely}
    named = refnet.verify(values, model, names=names, **given)
    assert (named.exit_code, named.judged, named.surplus) == (0, 6, ())
    assert len(refnet.verify(values, model, only=["logits"], **given).unmatched) == 0


def test_a_capture_of_a_folder_takes_the_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, model = dump(tmp_path)
    line = ["capture", "folder", str(values), "--model", str(model), "--input", str(tmp_path / "x.npy")]
    assert main([*line, "-o", str(tmp_path / "c")]) == 2
    err = capsys.readouterr().err
    assert "5 of 6 files in" in err
    assert "_Flatten_output_0 -> /Flatten_output_0 (by its name)" in err
    names = {name.replace("/", "_"): name for name in VALUES if name != "logits"}
    (tmp_path / "map.json").write_text(json.dumps(names))
    assert main([*line, "--names", str(tmp_path / "map.json"), "-o", str(tmp_path / "c")]) == 0
    capture = open_capture(tmp_path / "c")
    assert capture.names == tuple(VALUES)
    assert all(same_bits(capture.value(name), value) for name, value in VALUES.items())
    assert main(["verify", str(tmp_path / "c")]) == 0


def test_allowed_covers_what_is_unjudged() -> None:
    """Overflow: nothing is promised, so the value is unjudged; by name it may be."""
    node = Node("fc", Dense(1, bias=False), ("x", "w"))
    graph = Graph("g", {"x": TensorType((1, 2))}, (node,), {"y": "fc"}).with_weights({"w": F([[3e38, 3e38]])})
    values = Values({"fc": F([[1]]), "more": F([1])}, {"x": F([[1, 1]])})
    relu = Graph("g", graph.inputs, (*graph.nodes, Node("r", Relu(), ("x",))), {"y": "r"}, graph.weights)
    values = replace(values, values={**values.values, "r": F([[1, 1]])})
    found = [refnet.verify(values, relu, allow=allow) for allow in ([], ["fc"], ["more"], ["fc", "m?re"])]
    assert [one.counts["unjudged"] for one in found] == [1] * 4
    assert [one.exit_code for one in found] == [2, 2, 2, 0]


PROPOSALS = [
    ({"layer1_0_conv1": 4}, {"layer1.0.conv1": 4, "layer1.0.conv2": 4}, {"layer1_0_conv1": "layer1.0.conv1"}),
    ({"a%2Fb": 4}, {"a/b": 4, "ab": 4}, {"a%2Fb": "a/b"}),
    ({"007-r1": 4, "008-r2": 4}, {"r1": 4, "r2": 4}, {"007-r1": "r1", "008-r2": "r2"}),
    ({"conv1_output": 4}, {"conv1": 4, "conv2": 4}, {"conv1_output": "conv1"}),
    ({"model.fc1.relu": 4}, {"fc1.relu": 4, "fc2.relu": 4}, {"model.fc1.relu": "fc1.relu"}),
    ({"Conv1": 4}, {"conv1": 4, "CONV1": 4}, {}),  # two fit equally well
    ({"a": 4, "b": 4}, {"x": 4}, {}),  # so here
    ({"a": 4, "b": 8}, {"x": 4, "y": 4, "z": 8}, {"b": "z"}),
    ({"v2": 4, "v10": 8, "v1": 4}, {"x": 4, "y": 4, "z": 8}, {"v1": "x", "v2": "y", "v10": "z"}),
    ({"v2": 8, "v10": 4, "v1": 4}, {"x": 4, "y": 4, "z": 8}, {"v2": "z"}),
    ({"broken": None}, {"x": 4}, {}),
    ({"relu": None}, {"Relu": 4}, {"relu": "Relu"}),  # the name alone
    ({"3": 4}, {"x": 4}, {"3": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("strays", "lacking", "expected"), PROPOSALS)
def test_likely_matches(strays: dict, lacking: dict, expected: dict) -> None:
    found = propose(strays, lacking)
    assert {name: one.name for name, one in found.items()} == expected


def test_the_bits_of_refnets_own_run_are_a_likely_match() -> None:
    names = list(VALUES)
    odd = {"p": VALUES[names[1]], "q": VALUES[names[0]], "logits": VALUES["logits"]}
    found = refnet.verify(Values(odd, DATA), GRAPH)
    assert found.unmatched == (
        Unmatched("p", Likely(names[1], "by its bits")),
        Unmatched("q", Likely(names[0], "by its bits")),
    )


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("[]", FormatError, "an object"),
        ('{"a": 1}', FormatError, "a text"),
        ('{"a": "x", "a": "y"}', FormatError, "a"),
        ('{"_Flatten_output_0": "logits"}', InputError, "has a value of that name"),
        ('{"_Flatten_output_0": "nothing"}', InputError, "has no such value"),
        ('{"nothing": "/Flatten_output_0"}', InputError, "the capture has no value 'nothing'"),
        ('{"_Flatten_output_0": "a", "logits": "a"}', InputError, "both named"),
    ],
)  # fmt: skip
def test_maps_that_are_refused(tmp_path: Path, names: str, error: type, message: str) -> None:
    values, model = dump(tmp_path)
    (tmp_path / "map.json").write_text(names)
    with pytest.raises(error, match=message):
        refnet.verify(values, model, inputs=str(tmp_path / "x.npy"), names=tmp_path / "map.json")


def test_a_capture_with_a_manifest_is_renamed_too(tmp_path: Path) -> None:
    (model,) = export(GRAPH, tmp_path / "net", "onnx")
    np.save(tmp_path / "x.npy", DATA["x"])
    refnet.capture("refnet", model, tmp_path / "c", inputs=tmp_path / "x.npy")
    capture = open_capture(tmp_path / "c")
    swapped = renamed(capture, {"logits": "/Flatten_output_0", "/Flatten_output_0": "logits", "x": "image"})
    assert same_bits(swapped.value("logits"), VALUES["/Flatten_output_0"])
    assert same_bits(swapped.input("image"), DATA["x"])
    assert swapped.manifest.outputs["logits"] == "/Flatten_output_0"
    assert capture.files["logits"].name == file_name("logits")
    assert read_names({"a": "b"}) == {"a": "b"}


def test_brackets_of_an_allowed_name_are_no_pattern():
    """`block[0]` is how a part of a tuple is named: it allows that one and no `block0`."""
    graph = network()
    data = {"x": floats((1, 2, 6, 6), "x")}
    values = {node.name: value for node, value in refnet.steps(graph, data)}
    for name, code in (("block[0]", 0), ("block0", 2)):
        found = refnet.verify({**values, name: data["x"]}, graph, inputs=data, allow=["block[0]"])
        assert (found.exit_code, [one.name for one in found.unmatched]) == (code, [name] if code else [])


def test_the_command_that_explains_reads_the_capture_in_the_same_way(tmp_path, capsys):
    """With the names and the input of this verification: without, it lacks the value, or fails."""
    graph = network()
    (model,) = export(graph, tmp_path / "my net", "onnx")
    x = floats((1, 2, 6, 6), "x")
    np.save(tmp_path / "x.npy", x)
    folder = tmp_path / "dump"
    folder.mkdir()
    for node, value in refnet.steps(graph, {"x": x}):
        np.save(folder / file_name(node.name.replace("/", "_")), value + F(node.name == "logits"))
    names = {name.replace("/", "_"): name for name in graph.by_name if "/" in name}
    (tmp_path / "map.json").write_text(json.dumps(names))
    command = ["verify", str(folder), str(model), "--input", str(tmp_path / "x.npy")]
    command += ["--names", str(tmp_path / "map.json"), "--html", str(tmp_path / "r.html")]
    assert main(command) == 1
    (said,) = re.findall("see its arithmetic: (.*)", capsys.readouterr().out)
    here = {"MODEL": str(model), "DIR": str(folder)}
    shown = re.findall(
        '<pre class="command"><code>(.*?)</code>', (tmp_path / "r.html").read_text(), re.DOTALL
    )
    for text in (said, *(html.unescape(re.sub("<[^>]+>", "", one)) for one in shown)):
        words = [here.get(word, word) for word in shlex.split(text)]
        assert words[:4] == ["refnet", "explain", str(model), "logits"]
        assert main(words[1:]) == 0
        assert "in the capture" in capsys.readouterr().out
    assert len(shown) == 2


def test_the_report_names_the_model_that_the_capture_names(tmp_path):
    graph = network()
    (model,) = export(graph, tmp_path / "net", "onnx")
    np.save(tmp_path / "x.npy", floats((1, 2, 6, 6), "x"))
    run = tmp_path / "run"
    refnet.capture("refnet", model, run, inputs=tmp_path / "x.npy", mode="golden")
    assert main(["verify", str(run), "--html", str(tmp_path / "r.html")]) == 0
    assert f"<span>{model}</span>" in (tmp_path / "r.html").read_text()


def test_only_looks_at_no_unmatched_values_and_says_so(tmp_path, capsys):
    """They were counted as "allowed", which nobody had said."""
    values, model = dump(tmp_path)
    line = ["verify", str(values), str(model), "--input", str(tmp_path / "x.npy"), "--only", "logits"]
    assert main([*line, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["surplus"], record["allowed"], record["summary"]["allowed"]) == ([], [], 0)
    assert main([*line, "--propose", str(tmp_path / "map.json")]) == 2
    assert "with --only, values that match nothing are not looked at" in capsys.readouterr().err
    assert not (tmp_path / "map.json").exists()


def test_the_suggestion_speaks_of_judged_differences_only_where_others_are_left():
    values = {**VALUES, "logits": VALUES["logits"] * F(1 + 2**-23)}
    for more, said in (({}, "every difference"), ({"debug": DATA["x"]}, "every judged difference")):
        found = refnet.verify({**values, **more}, GRAPH, inputs=DATA)
        assert found.counts["rounding"] == 1
        assert (found.suggestion or "").startswith(f"{said} is inside its bound")
