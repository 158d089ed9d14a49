"""Captures of the real frameworks: every value, under its name, with its bits, and who computed it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.formats.golden_file import digest
from refnet.frameworks.process import Worker
from refnet.models.export import export
from refnet.models.synthetic import normal
from refnet.verification.capture import PROGRESS, Capture, open_capture
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import same_bits

pytestmark = pytest.mark.crosscheck

ROOT = Path(__file__).parents[2]
PYTHONS = {"torch": "torch", "mxnet": "mxnet", "onnxruntime": "onnx"}
F = np.float32


def captured(framework: str, folder: Path, *arguments: str) -> Capture:
    """A capture that the command makes."""
    assert main(command(framework, folder, *arguments)) == 0
    return open_capture(folder)


def command(framework: str, folder: Path, *arguments: str) -> list[str]:
    python = str(interpreter(PYTHONS[framework]))
    return ["capture", framework, *arguments, "--python", python, "-o", str(folder)]


def hashes(capture: Capture) -> dict[str, object]:
    assert capture.manifest is not None
    return {name: stored.digest for name, stored in capture.manifest.values.items()}


@pytest.mark.parametrize(
    ("framework", "model", "absent"),
    [
        ("torch", "resnest-50-pytorch", {"prob"}),
        ("mxnet", "octave-se-resnet-50-0.125", set()),
        ("onnxruntime", "resnest-50-pytorch", set()),
        ("onnxruntime", "octave-se-resnet-50-0.125", set()),
    ],
)
def test_every_node_has_its_value(
    framework: str, model: str, absent: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest is of this graph, weights and input; and again, with hashes only, it is the same."""
    arguments = (model, "--weights", "seed:0", "--input", "seed:3")
    capture = captured(framework, tmp_path / "a", *arguments)
    graph, data = refnet.load(model, weights="seed:0"), normal(3, "data", (1, 3, 224, 224))
    assert capture.manifest is not None
    assert {node.name for node in graph.nodes} - set(capture.names) == absent
    assert capture.manifest.graph == graph.structure_hash()
    assert capture.manifest.weights == graph.weights_hash()
    assert same_bits(capture.input("data"), data)
    assert capture.manifest.outputs == {k: v for k, v in graph.outputs.items() if v not in absent}
    types = graph.types()
    for name in capture.names:
        value = capture.value(name)
        if name in types:
            assert value.size == np.prod(types[name].shape), name
    again = captured(framework, tmp_path / "b", *arguments, "--hash-only")
    assert again.hash_only
    assert hashes(again) == hashes(capture)
    assert sorted(os.listdir(tmp_path / "b")) == ["manifest.json"]
    capsys.readouterr()


def test_the_reference_says_what_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Versions, threads, batch; and without an instruction set the bits are others."""
    made = {}
    for isa in ("AVX2", "SSE41"):
        more = ("--environment", f"ONEDNN_MAX_CPU_ISA={isa}", "--threads", "2", "--batch", "3")
        arguments = ("resnest-50-pytorch", "--weights", "seed:0", "--image", "64,64", *more)
        made[isa] = captured("torch", tmp_path / isa, *arguments)
        assert made[isa].manifest is not None
        who = made[isa].manifest.reference
        assert (who.framework, who.version.split("+")[0]) == ("torch", "2.13.0")
        assert (who.threads, who.batch, who.mode) == (2, 3, "eager")
        assert who.flags == {"ONEDNN_MAX_CPU_ISA": isa}
        assert "oneDNN" in who.build or "MKL-DNN" in who.build
        assert made[isa].input("data").shape == (3, 3, 64, 64)
    assert "AVX2" in made["AVX2"].manifest.reference.isa
    assert "SSE4.1" in made["SSE41"].manifest.reference.isa
    assert hashes(made["AVX2"]) != hashes(made["SSE41"])
    capsys.readouterr()


def test_modes_of_mxnet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The user's own symbol and parameters, looked at in each way; exported ones, by name."""
    graph = refnet.load("octave-se-resnet-digits")
    symbol, params = export(graph, tmp_path / "net")
    arguments = (str(symbol), "--weights", str(params), "--image", "32,32", "--batch", "4")
    names = tuple(node.name for node in graph.nodes)
    for mode in ("monitor", "internals", "outputs"):
        capture = captured(
            "mxnet", tmp_path / mode, *arguments, "--mode", mode, "--model", "octave-se-resnet-digits"
        )
        assert capture.manifest is not None
        assert capture.names == (names if mode != "outputs" else ("softmax",))
        assert capture.manifest.reference.mode == f"{mode}, subgraph backend NONE"
        assert capture.manifest.outputs == {"prob": "softmax"}
    named = captured("mxnet", tmp_path / "named", "octave-se-resnet-digits", "--batch", "4")
    assert hashes(named) == hashes(open_capture(tmp_path / "monitor"))
    fused = captured(
        "mxnet",
        tmp_path / "f",
        *arguments,
        "--mode",
        "outputs",
        "--subgraph",
        "default",
        "--model",
        "octave-se-resnet-digits",
    )
    assert fused.manifest.reference.mode == "outputs, subgraph backend default"
    assert fused.manifest.reference.flags == {}
    capsys.readouterr()


def test_modes_of_onnxruntime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A .onnx of the user's, whose batch is free; every level of optimisation."""
    graph = refnet.load("resnest-digits")
    (model,) = export(graph, tmp_path / "net", "onnx")
    np.save(tmp_path / "x.npy", normal(5, "data", (2, 1, 32, 32)))
    for mode in ("disabled", "basic", "extended", "all", "outputs"):
        capture = captured(
            "onnxruntime", tmp_path / mode, str(model), "--input", str(tmp_path / "x.npy"), "--mode", mode
        )
        assert capture.manifest is not None
        assert capture.manifest.reference.mode == mode
        assert capture.manifest.reference.batch == 2
        assert set(capture.names) >= ({n.name for n in graph.nodes} if mode != "outputs" else {"prob", "fc"})
        for output in ("prob", "fc"):
            assert capture.value(output).shape == (2, 10)
    own = refnet.run(graph, {"data": np.load(tmp_path / "x.npy")})["prob"]
    assert (own.argmax(1) == open_capture(tmp_path / "all").value("prob").argmax(1)).all()
    capsys.readouterr()


def test_a_module_of_anybodys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several inputs, tuples, dicts, functions, modules used twice: each value, computed here again."""
    left = np.arange(-8, 24, dtype=F).reshape(1, 2, 4, 4)
    right = normal(1, "right", (1, 2, 4, 4))
    np.save(tmp_path / "left.npy", left)
    np.save(tmp_path / "right.npy", right)
    arguments = ["tests.crosscheck.modules:Two", "--path", str(ROOT), "--argument", "2", "--mode", "eager"]
    arguments += ["--option", '{"scale": 0.5}']
    arguments += ["--input", f"left={tmp_path / 'left.npy'}", "--input", f"right={tmp_path / 'right.npy'}"]
    capture = captured("torch", tmp_path / "c", *arguments)
    conv = (left.sum(1, keepdims=True) * F(0.5) + F(0.5)).repeat(2, 1)
    relu = np.maximum(conv, 0)
    high = relu + 3
    joined = np.concatenate([high, right], 1)
    first = joined[:, :2].max(1)
    expected = {
        "block.conv": conv,
        "block.relu": relu,
        "block.add": relu + 1,
        "block.iadd": high,
        "block.relu_1": high,
        "block.relu_2": high,
        "block.amax": high.max((2, 3)),
        "block[0]": high,
        "block[1]": high.max((2, 3)),
        "cat": joined,
        "max[0]": first,
        "mul": first * F(0.5),
        "output[parts][2]": left[0],
    }
    for name, value in expected.items():
        assert same_bits(capture.value(name), value), name
    assert set(capture.names) == {*expected, "tail.0", "tail.1", "tail"}
    tail = (joined.astype(np.float64).sum(1, keepdims=True) * 0.5 + 0.5).repeat(2, 1)
    assert np.abs(capture.value("tail.0") - tail).max() < 1e-5 * np.abs(tail).max()
    pooled = capture.value("tail.0").reshape(1, 2, 2, 2, 2, 2).max((3, 5))
    assert same_bits(capture.value("tail"), pooled)
    assert capture.manifest is not None
    assert capture.manifest.graph is None
    outputs = {"tail": "tail", "peak": "block[1]", "parts[2]": "output[parts][2]"}
    assert capture.manifest.outputs == outputs
    assert same_bits(capture.input("left"), left)
    err = capsys.readouterr().err
    assert "max[1] is left out: its elements are int64" in err
    assert "half is left out: its elements are float16" in err


def test_a_state_dict_and_a_graph_of_a_callable(
    torch: Worker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The official callable by hand is the same capture as the name."""
    graph = refnet.load("resnest-50-pytorch", weights="seed:0", image=(64, 64))
    torch.ask("save", {"path": str(tmp_path / "net.pth")}, graph.weights)
    small = ("--image", "64,64")
    by_hand = captured(
        "torch",
        tmp_path / "a",
        "resnest.torch:resnest50",
        "--state",
        str(tmp_path / "net.pth"),
        "--model",
        "resnest-50-pytorch",
        *small,
    )
    named = captured("torch", tmp_path / "b", "resnest-50-pytorch", "--weights", "seed:0", *small)
    assert hashes(by_hand) == hashes(named)
    assert by_hand.manifest is not None
    assert named.manifest is not None
    assert by_hand.manifest.graph == named.manifest.graph
    assert by_hand.manifest.weights == named.manifest.weights
    assert by_hand.manifest.reference.flags["state"].startswith("sha256 ")
    capsys.readouterr()


def test_weights_are_named_only_if_the_module_has_them(
    torch: Worker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A callable initialises itself: seed:0 would be false. --state and --weights are compared, too."""
    official = ("resnest.torch:resnest50", "--model", "resnest-50-pytorch", "--image", "64,64")
    for more in (("--weights", "seed:0"), ("--state", "seed:0", "--weights", "seed:1")):
        assert main(command("torch", tmp_path / "false", *official, *more)) == 2
        err = capsys.readouterr().err
        assert f"resnest.torch:resnest50 does not run with --weights {more[-1]}:" in err
        assert "other bits: conv1.0.weight float32[32, 3, 3, 3]" in err
        assert not (tmp_path / "false").exists()
    made = captured("torch", tmp_path / "a", *official, "--state", "seed:0", "--weights", "seed:0")
    assert made.manifest is not None
    assert made.manifest.sources is not None
    assert made.manifest.sources.weights == "seed:0"
    assert made.manifest.weights == refnet.load("resnest-50-pytorch", weights="seed:0").weights_hash()
    eager = ("--image", "64,64", "--mode", "eager")
    again = captured("torch", tmp_path / "b", "resnest.torch:resnest50", *eager)
    assert again.manifest is not None
    assert (again.manifest.weights, again.manifest.sources) == (None, None)
    flags = [one.manifest.reference.flags["parameters"] for one in (made, again) if one.manifest]
    assert flags[0] != flags[1]
    found = refnet.verify(tmp_path / "a")
    assert (found.exit_code, found.unmatched, found.counts["defect"]) == (0, (), 0)
    assert len(found.beyond) > 100
    capsys.readouterr()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("tests.crosscheck.modules:fails", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("tests.crosscheck.modules:Dies", "the worker ended with exit status -9"),
        ("tests.crosscheck.modules:nothing", "AttributeError"),
        ("no_such_package:Net", "ModuleNotFoundError"),
    ],
)
def test_modules_that_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, message: str
) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 2, 4, 4), F))
    inputs = [f"left={tmp_path / 'x.npy'}", f"right={tmp_path / 'x.npy'}"]
    given = ["--input", inputs[0], "--input", inputs[1], "--argument", "2"]
    if model.endswith("Dies"):
        given = ["--input", str(tmp_path / "x.npy")]
    assert main(command("torch", tmp_path / "c", model, "--path", str(ROOT), *given, "--mode", "eager")) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "c" / PROGRESS).exists() == model.endswith(("fails", "Dies"))
    assert not (tmp_path / "c" / "manifest.json").exists()


def test_a_module_that_is_not_deterministic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 1000), F))
    line = command("torch", tmp_path / "c", "tests.crosscheck.modules:Random", "--path", str(ROOT))
    line += ["--input", str(tmp_path / "x.npy"), "--mode", "eager"]
    assert main(line) == 0
    manifest = json.loads((tmp_path / "c/manifest.json").read_text())
    head = {key: manifest[key] for key in manifest if key not in ("values", "outputs")}
    lines = [{"name": name, **found} for name, found in manifest["values"].items()]
    assert [one["name"] for one in lines] == ["relu", "dropout"]
    (tmp_path / "c/manifest.json").unlink()
    # what was left if it had been stopped just before its end
    begun = {"refnet capture unfinished": {**head, "outputs": {}, "values": {}}, "hash_only": False}
    order = (
        "format",
        "version",
        "written_by",
        "reference",
        "sources",
        "graph",
        "weights",
        "outputs",
        "inputs",
        "values",
    )
    begun["refnet capture unfinished"] = {key: begun["refnet capture unfinished"][key] for key in order}
    text = "".join(json.dumps(one) + "\n" for one in (begun, *lines))
    (tmp_path / "c" / PROGRESS).write_text(text)
    assert main(line) == 2
    assert "the framework is not deterministic" in capsys.readouterr().err


RESNEST = ("resnest-50-pytorch", "--weights", "seed:0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a capture that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "capture"
    captured("torch", folder, *RESNEST)
    return folder


@pytest.mark.parametrize("victim", ["refnet", "worker"])
def test_killed_in_the_middle(
    victim: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of refnet, or of the framework's process, while values come; then it goes on."""
    line = command("torch", tmp_path / "c", *RESNEST)
    process = subprocess.Popen(
        [sys.executable, "-m", "refnet", *line], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    progress = tmp_path / "c" / PROGRESS
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (progress.exists() and progress.read_text().count("\n") > 50):
        time.sleep(0.01)
    if victim == "refnet":
        process.kill()
    else:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (worker,) = children
        os.kill(int(worker), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if victim == "refnet" else 2), err
    if victim == "worker":
        assert "the worker ended with exit status -9" in err
    with pytest.raises(refnet.RefnetError, match="not finished"):
        open_capture(tmp_path / "c")
    capture = captured("torch", tmp_path / "c", *RESNEST)
    assert "from before an interruption" in capsys.readouterr().out
    expected = open_capture(whole)
    assert hashes(capture) == hashes(expected)
    for name in expected.names:
        assert digest(capture.value(name)) == expected.digest(name)
    assert sorted(os.listdir(tmp_path / "c")) == sorted(os.listdir(whole))
