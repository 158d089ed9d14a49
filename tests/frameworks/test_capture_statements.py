"""What a manifest states: weights and inputs that were compared, and nothing that was given and ignored."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.errors import FormatError, InputError, WeightsError
from refnet.core.graph import Graph, Node, TensorType
from refnet.formats import manifest
from refnet.formats.golden_file import digest
from refnet.formats.manifest import Stored, file_name
from refnet.frameworks.capture.beyond import beyond_a_callable
from refnet.frameworks.capture.parameters import compared, parameters_hash
from refnet.frameworks.capture.request import Request, network
from refnet.models.export import export
from refnet.models.inputs import prepare
from refnet.ops import Relu
from refnet.verification.capture import open_capture
from tests.helpers.bits import floats, same_bits

F = np.float32
NET = "resnest-digits"
SAMPLE = "sample:1700-label-5.png"

# Weights.

WEIGHTS = {"conv.weight": floats((2, 3), "w"), "conv.bias": F([0.5, -0.0])}


def test_the_weights_of_what_ran_are_named_only_if_they_are_these() -> None:
    compared(WEIGHTS, {**WEIGHTS, "steps": np.int64([3])}, "--weights w.pth", "net:make")
    compared(WEIGHTS, {f"module.{n}": a for n, a in WEIGHTS.items()}, "--weights w.pth", "net:make")
    flipped = {**WEIGHTS, "conv.bias": F([0.5, 0.0])}
    with pytest.raises(
        WeightsError, match=r"(?s)net:make does not run with --weights w.pth:.*other bits: conv.bias"
    ):
        compared(WEIGHTS, flipped, "--weights w.pth", "net:make")
    with pytest.raises(WeightsError, match=r"(?s)absent: conv.bias float32\[2\].*its own: conv.scale"):
        compared(
            WEIGHTS, {"conv.weight": WEIGHTS["conv.weight"], "conv.scale": F([1])}, "--state s", "net:make"
        )
    pair = {"a": F([1]), "b": F([2])}  # two layers with each other's weights: that is what a port gets wrong
    with pytest.raises(WeightsError, match="other bits: a float32"):
        compared(pair, {"a": pair["b"], "b": pair["a"]}, "--weights w.pth", "net:make")
    twice = {"a": F([1]), "b": F([1])}
    with pytest.raises(WeightsError, match="absent: a float32"):  # one array is not two
        compared(twice, {"x": F([1])}, "--state s", "net:make")


def test_the_hash_of_parameters_is_of_names_shapes_and_bits() -> None:
    base = parameters_hash(WEIGHTS)
    assert base == parameters_hash(dict(reversed(WEIGHTS.items())))
    others = [{**WEIGHTS, "conv.bias": F([0.5, 0.0])}, {"w": WEIGHTS["conv.weight"]}]
    others += [{**WEIGHTS, "conv.weight": WEIGHTS["conv.weight"].reshape(3, 2)}]
    assert len({base, *map(parameters_hash, others)}) == 4


def test_weights_of_a_file_that_runs_as_it_is_are_compared(tmp_path: Path) -> None:
    """ONNX Runtime runs the .onnx; other weights beside it would be a false statement."""
    (model,) = export(refnet.load(NET), tmp_path / "net", "onnx")
    request = Request("onnxruntime", str(model), weights=str(model).replace(".onnx", ".pth"))
    own = network(replace(request, weights=None))[0]
    assert own is not None
    with pytest.raises(WeightsError, match="does not run with --weights seed:0"):
        network(replace(request, weights="seed:0"))
    with pytest.raises(refnet.RefnetError, match=r"net\.pth"):  # and a file that is not there is said
        network(request)


# Values beyond the graph.


def test_a_callables_value_is_beyond_the_graph_if_it_cannot_be_a_nodes() -> None:
    nodes = (Node("a", Relu(), ("x",)), Node("b", Relu(), ("a",)))
    graph = Graph("g", {"x": TensorType((1, 2))}, nodes, {"y": "b"})
    x = {"x": F([[1, 2], [3, 4]])}
    arrays = {
        "a": F([[1, 2], [3, 4]]),
        "copy": F([1, 2, 3, 4]),
        "small": F([1]),
        "other": F([[9, 9], [9, 9]]),
    }
    values = {name: Stored(digest(array), None) for name, array in arrays.items()}
    assert beyond_a_callable(graph, x, values) == {
        "copy": "the bits of a",
        "small": "no node that the capture lacks has so many elements",
    }  # `other` may be b
    whole = {**values, "b": values["a"]}
    assert set(beyond_a_callable(graph, x, whole)) == {"copy", "small", "other"}


def test_values_beyond_the_graph_are_marked_and_count_apart(tmp_path: Path) -> None:
    refnet.capture("refnet", NET, tmp_path / "c")
    path = tmp_path / "c" / manifest.NAME
    found = manifest.read(path)
    more = {**found.values, "more": Stored(digest(F([1])), "more.npy")}
    np.save(tmp_path / "c" / "more.npy", F([1]))
    for beyond, code in (({}, 2), ({"more": "a step"}, 0)):
        manifest.write(path, replace(found, values=more, beyond=beyond))
        assert manifest.read(path).beyond == beyond
        verified = refnet.verify(tmp_path / "c")
        assert (verified.exit_code, verified.beyond) == (code, tuple(beyond))
        assert verified.surplus == ("more",)
    text = path.read_text()
    for bad in ('{"nothing": "x"}', '{"more": 1}', '["more"]'):
        path.write_text(text.replace('{"more": "a step"}', bad))
        with pytest.raises(FormatError, match="beyond"):
            manifest.read(path)


# Inputs.


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A folder with an input, of a sample image, and one value."""
    folder = tmp_path / "dump"
    folder.mkdir()
    graph, data = prepare(refnet.formats.golden_file.Sources(NET, input=SAMPLE, pipeline="digits"))
    (first,) = [value for node, value in refnet.steps(graph, data) if node.name == "conv1.0"]
    np.save(folder / "data.npy", data["data"])
    np.save(folder / file_name("conv1.0"), first)
    return folder


def test_an_input_that_is_named_beside_a_folders_own_is_compared(
    tmp_path: Path, dump: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["capture", "folder", str(dump), "--model", NET]
    assert main([*line, "--input", SAMPLE, "-o", str(tmp_path / "same")]) == 0
    same = open_capture(tmp_path / "same").manifest
    assert (same.sources.input, same.sources.pipeline) == (SAMPLE, "digits")
    for other in ("sample:1735-label-4.png", "seed:0"):
        assert main([*line, "--input", other, "-o", str(tmp_path / "other")]) == 2
        assert not (tmp_path / "other").exists()
        said = capsys.readouterr().err
        assert f"--input {other} is not the input in {dump / 'data.npy'}: " in said
        assert "elements have other bits; without --input the folder's is taken" in said
    assert (
        "elements have other bits; without --input the folder's is taken" in capsys.readouterr().err or True
    )
    assert main([*line, "-o", str(tmp_path / "own")]) == 0
    own = open_capture(tmp_path / "own")
    assert own.manifest.sources.input == "data.npy"
    assert same_bits(own.input("data"), np.load(dump / "data.npy"))
    assert refnet.verify(tmp_path / "own").exit_code == 0


def test_of_a_folder_without_an_input_none_is_stated(tmp_path: Path, dump: Path) -> None:
    os.unlink(dump / "data.npy")
    assert main(["capture", "folder", str(dump), "--model", NET, "-o", str(tmp_path / "c")]) == 0
    made = open_capture(tmp_path / "c").manifest
    assert (made.inputs, made.sources.input) == ({}, "")
    assert refnet.verify(tmp_path / "c").counts["unjudged"] == 1
    assert refnet.verify(tmp_path / "c", inputs=SAMPLE).exit_code == 0


def test_input_means_the_same_in_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """seed:N, sample:NAME, a file, NAME=FILE: the same bits in run, capture, golden and explain."""
    np.save(tmp_path / "x.npy", prepare(refnet.formats.golden_file.Sources(NET, input="seed:3"))[1]["data"])
    bits = set()
    (tmp_path / "inputs").mkdir()
    shutil.copy(tmp_path / "x.npy", tmp_path / "inputs" / "data.npy")
    named = f"data={tmp_path / 'x.npy'}"
    for given in ("seed:3", str(tmp_path / "x.npy"), named, str(tmp_path / "inputs")):
        assert main(["run", NET, "--input", given, "--top", "1", "--json"]) == 0
        probability = json.loads(capsys.readouterr().out)["results"][0]["top"][0]["bits"]
        where = ["explain", NET, "conv1.0", "--at", "0,0,0,0"]
        assert main([*where, "--input", given, "--json"]) == 0
        element = json.loads(capsys.readouterr().out)["golden"]["hex"]
        assert main(["golden", NET, "--input", given, "-o", str(tmp_path / "g.json")]) == 0
        golden = refnet.formats.golden_file.read(tmp_path / "g.json").inputs["data"]
        folder = tmp_path / f"c{len(given)}"
        assert main(["capture", "refnet", NET, "--input", given, "-o", str(folder)]) == 0
        assert open_capture(folder).digest("data") == golden
        capsys.readouterr()
        bits.add((probability, element, golden))
    assert len(bits) == 1
    assert main(["run", NET, "--input", SAMPLE, "--input", SAMPLE, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 2


# Models that a capture names.


def test_a_model_is_found_at_its_path_beside_the_capture_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets").mkdir()
    (model,) = export(refnet.load(NET), tmp_path / "nets" / "net", "onnx")
    monkeypatch.chdir(tmp_path)
    assert main(["capture", "refnet", "nets/net.onnx", "-o", "caps/c"]) == 0
    assert open_capture("caps/c").manifest.sources.model == "nets/net.onnx"
    assert refnet.verify("caps/c").exit_code == 0
    for place in ("caps/c/net.onnx", "net.onnx"):
        os.rename(model, tmp_path / place)
        model = tmp_path / place
        assert refnet.verify("caps/c").exit_code == 0, place
    os.unlink(model)
    capsys.readouterr()
    assert main(["verify", "caps/c"]) == 2
    err = capsys.readouterr().err
    assert "the capture's model, 'nets/net.onnx', is neither at that path, nor beside it, nor here" in err
    assert "golden" not in err


# Options that would decide nothing.

IGNORED = [
    (["capture", "folder", ".", "--weights", "seed:0"], "--weights seed:0 says nothing without a network"),
    (["capture", "folder", ".", "--input", "seed:0"], "--input says nothing without a network"),
    (["capture", "folder", ".", "--pipeline", "digits"], "--pipeline digits says nothing without a network"),
    (["capture", "folder", ".", "--image", "8,8"], "--image says nothing without a network"),
    (["capture", "folder", ".", "--allow", "x"], "--allow says nothing without a network"),
    (
        ["capture", "folder", ".", "--threads", "2"],
        "--threads 2 runs nothing of a folder: state it with --reference",
    ),
    (["capture", "folder", ".", "--batch", "2"], "--batch 2 runs nothing of a folder"),
    (["capture", "folder", ".", "--python", "p"], "--python p: no framework is left for it to run"),
    (["capture", "refnet", NET, "--environment", "A=1"], "--environment is for a framework's process"),
    (["capture", "refnet", NET, "--timeout", "5"], "--timeout 5 is for a framework's process"),
    (["capture", "refnet", NET, "--allow", "x"], "--allow is for the files of a folder"),
    (
        ["capture", "refnet", NET, "--pipeline", "digits"],
        "pipeline digits makes a tensor of an image: seed:0 is",
    ),
    (["capture", "refnet", NET, "--arithmetic", "plain", "--mode", "golden"], "give one or the other"),
    (["capture", "torch", "a.b:c", "--weights", "seed:0"], "--weights seed:0 says nothing without a network"),
    (["capture", "torch", "a.b:c", "--state", "seed:0"], "--state seed:0 is made for a network"),
    (["verify", "--all"], "--all: also name the capture's folder"),
    (["verify", "--outputs", "fc"], "--outputs fc: also name the capture's folder"),
    (["verify", "CAPTURE", "--outputs", ","], "--outputs ',' names no value"),
    (["verify", "--pipeline", "digits"], "--pipeline digits: also name the capture's folder"),
    (
        ["verify", "CAPTURE", "--pipeline", "digits"],
        "pipeline digits makes a tensor of an image: name the image",
    ),
    (["verify", "CAPTURE", "--input", "seed:9"], "made of another input 'data'"),
    (["verify", "CAPTURE", "--names", "MAP", "--only", "fc"], "the capture has no value"),
    (
        ["explain", NET, "fc", "--at", "0,0", "--input", "seed:0", "--names", "MAP"],
        "name it with --capture DIR",
    ),
    (
        ["explain", NET, "fc", "--at", "0,0", "--input", "seed:0", "--pipeline", "digits"],
        "seed:0 is a tensor",
    ),
    (["run", NET, "--input", "seed:0", "--pipeline", "digits"], "seed:0 is a tensor already"),
    (
        ["run", NET, "--arithmetic", "golden", "--profile", "--kernels", "reference"],
        "leave --kernels reference",
    ),
    (
        ["golden", NET, "--input", "seed:0", "--pipeline", "digits", "-o", "g.json"],
        "seed:0 is a tensor already",
    ),
    (
        ["golden", NET, "--input", "seed:0", "--input", "seed:1", "-o", "g.json"],
        "a golden file is of one input",
    ),
    (["bench", "--startup", "--against", "torch"], "--against torch: --startup times refnet alone"),
    (["bench", "--scaling", "--batch", "2"], "--batch 2: --scaling times refnet alone"),
    (["bench", "--scaling", "--threads", "1,2"], "--threads 1,2: --scaling takes one number of threads"),
    (["bench", "--scaling", "--model", NET], f"--model {NET}: --scaling has its own networks"),
    (["reveal", "--show", "fc", "--book", "b.json", "--threads", "2"], "--threads 2: --show reads a book"),
    (["reveal", "--show", "fc", "--book", "b.json", "--subgraph", "default"], "--show reads a book"),
]


@pytest.fixture(scope="module")
def small_capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    refnet.capture("refnet", NET, folder / "c")
    (folder / "map.json").write_text('{"no such": "fc"}')
    return folder


@pytest.mark.parametrize(("line", "said"), IGNORED)
def test_what_is_given_is_not_ignored(
    line: list[str], said: str, small_capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"CAPTURE": str(small_capture / "c"), "MAP": str(small_capture / "map.json")}
    full = [places.get(word, word) for word in line]
    if line[0] == "capture":
        full += ["-o", str(tmp_path / "c")]
    assert main(full) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_nothing_beside_a_graph_is_ignored() -> None:
    graph = refnet.load(NET)
    with pytest.raises(InputError, match="weights seed:0: the model is a Graph"):
        refnet.verify({"fc": F([1])}, graph, weights="seed:0")
