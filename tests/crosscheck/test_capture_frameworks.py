"""Captures of the real frameworks: every value they make, what they say of themselves, and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.errors import InputError
from refnet.frameworks.process import Worker
from refnet.models.export import export
from refnet.models.loading import structure
from refnet.models.synthetic import normal
from refnet.ops import MaxPool, Relu
from refnet.verification.capture import PROGRESS, Capture, open_capture
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.test_torch_values import SURPLUS
from tests.helpers.bits import same_bits
from tests.helpers.engines import FAST

pytestmark = pytest.mark.crosscheck

ENVIRONMENTS = {"torch": "torch", "mxnet": "mxnet", "onnxruntime": "onnx"}
RESNEST = ("resnest-50-pytorch", "--weights", "seed:0", "--image", "64,64")
OCTAVE = ("octave-se-resnet-50-0.125", "--weights", "seed:0", "--image", "64,64")


def command(framework: str, *arguments: object) -> list[str]:
    python = str(interpreter(ENVIRONMENTS[framework]))
    return ["capture", framework, *map(str, arguments), "--python", python]


def captured(folder: Path, framework: str, *arguments: object) -> Capture:
    assert main([*command(framework, *arguments), "-o", str(folder)]) == 0
    return open_capture(folder)


def expected_surplus(name: str) -> bool:
    """Whether PyTorch has such a value and refnet has no such node."""
    return any(re.fullmatch(pattern, name) for pattern in SURPLUS)


def hashes(capture: Capture) -> dict[str, str]:
    return {name: capture.digest(name).sha256 for name in capture.names}


def test_torch_every_value_of_the_official_network(torch: Worker, tmp_path: Path) -> None:
    graph = refnet.load("resnest-50-pytorch", weights="seed:0", image=(64, 64))
    capture = captured(tmp_path / "c", "torch", *RESNEST, "--input", "seed:1")
    own = {node.name for node in graph.nodes}
    assert own - set(capture.names) == {"prob"}
    assert [name for name in capture.names if name not in own and not expected_surplus(name)] == []
    assert capture.manifest is not None
    assert capture.manifest.outputs == {"logits": "fc"}
    assert capture.manifest.graph == graph.structure_hash()
    assert capture.manifest.weights == graph.weights_hash()
    data = {"data": normal(1, "data", (1, 3, 64, 64))}
    assert same_bits(capture.input("data"), data["data"])
    path = tmp_path / "net.pth"
    torch.ask("save", {"path": str(path)}, graph.weights)
    request = {"model": "resnest.torch:resnest50", "weights": str(path), "threads": 1}
    names = []
    for name, value in torch.stream("run", request, data):
        assert same_bits(capture.value(name), value), name
        names.append(name)
    assert tuple(names) == capture.names
    mine = captured(
        tmp_path / "mine", "torch", "resnest.torch:resnest50", "--state", path,
        "--model", *RESNEST[:1], "--image", "64,64", "--input", "seed:1", "--option", '{"pretrained": false}',
    )  # fmt: skip
    assert hashes(mine) == hashes(capture)
    assert mine.manifest is not None
    assert mine.manifest.weights == graph.weights_hash()
    assert mine.manifest.reference.flags["state"].startswith("sha256 ")


@pytest.mark.parametrize("framework", ["torch", "mxnet", "onnxruntime"])
def test_threads_batch_and_instruction_set_are_those_that_are_said(framework: str, tmp_path: Path) -> None:
    model = OCTAVE if framework == "mxnet" else RESNEST
    limit = {"torch": "ONEDNN_MAX_CPU_ISA", "mxnet": "DNNL_MAX_CPU_ISA"}.get(framework, "NOTHING")
    more = ["--threads", 2, "--batch", 2, "--environment", f"{limit}=AVX2"]
    capture = captured(tmp_path / "c", framework, *model, *more, "--hash-only")
    assert capture.hash_only
    assert capture.manifest is not None
    said = capture.manifest.reference
    assert (said.framework, said.threads, said.batch) == (framework, 2, 2)
    assert said.flags[limit] == "AVX2"
    assert framework == "onnxruntime" or said.isa.endswith("oneDNN Intel AVX2")
    assert {one.digest.shape[0] for one in capture.manifest.values.values()} == {2}
    assert capture.input("data").shape == (2, 3, 64, 64)
    other = captured(tmp_path / "d", framework, *model, *more)
    assert hashes(other) == hashes(capture), "not the same bits twice"


def test_mxnet_modes(tmp_path: Path) -> None:
    nodes = tuple(node.name for node in structure("octave-se-resnet-50-0.125").nodes)
    found = {
        mode: captured(tmp_path / mode, "mxnet", *OCTAVE, "--mode", mode)
        for mode in ("monitor", "internals", "outputs")
    }
    assert found["monitor"].names == found["internals"].names == nodes
    assert found["outputs"].names == ("softmax",)
    assert found["outputs"].manifest.outputs == {"prob": "softmax"}
    assert same_bits(found["outputs"].value("softmax"), found["monitor"].value("softmax"))
    fused = captured(tmp_path / "fused", "mxnet", *OCTAVE, "--mode", "outputs", "--subgraph", "default")
    assert fused.manifest is not None
    assert fused.manifest.reference.mode == "outputs, subgraph backend default"
    assert "MXNET_SUBGRAPH_BACKEND" not in fused.manifest.reference.flags
    assert main([*command("mxnet", *OCTAVE[:1]), "--mode", "internals", "--subgraph", "default",
                 "-o", str(tmp_path / "no")]) == 2  # fmt: skip
    assert not (tmp_path / "no").exists()


def test_mxnet_a_symbol_file_with_its_parameters(tmp_path: Path) -> None:
    graph = refnet.load(OCTAVE[0], weights="seed:0", image=(64, 64))
    export(graph, tmp_path / "net")
    own = captured(tmp_path / "c", "mxnet", *OCTAVE)
    files = captured(
        tmp_path / "d", "mxnet", tmp_path / "net-symbol.json", "--model", OCTAVE[0], "--image", "64,64"
    )
    assert hashes(files) == hashes(own)


def test_onnxruntime_every_value_and_every_level(tmp_path: Path) -> None:
    graph = refnet.load(RESNEST[0], weights="seed:0", image=(64, 64))
    (path,) = export(graph, tmp_path / "net", "onnx")
    own = captured(tmp_path / "own", "onnxruntime", *RESNEST, "--input", "seed:1")
    assert {node.name for node in graph.nodes} <= set(own.names)
    assert own.manifest is not None
    assert own.manifest.outputs == {"logits": "fc", "prob": "prob"}
    for level in ("disabled", "basic", "extended", "all", "outputs"):
        capture = captured(tmp_path / level, "onnxruntime", path, "--mode", level, "--input", "seed:1")
        assert (set(capture.names) == {"fc", "prob"}) == (level == "outputs")
        if level == "disabled":
            assert hashes(capture) == hashes(own)
            for node in graph.nodes:  # the values are what their names say
                if isinstance(node.op, Relu | MaxPool):
                    given = [capture.value(name) for name in node.inputs]
                    assert (capture.value(node.name) == node.op.run(*given, engine=FAST)).all(), node.name


def test_onnxruntime_keeps_integers_and_names_other_types(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import TensorProto, helper, save

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Relu", ["x"], ["relu"]),
        helper.make_node("Shape", ["relu"], ["shape"]),
        helper.make_node("Cast", ["relu"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Reshape", ["relu", "shape"], ["again"]),
        helper.make_node("Split", ["again"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Add", ["left", "right"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    save(model, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.float32([[1, -2], [3, 4], [5, np.nan]]))
    capture = captured(tmp_path / "c", "onnxruntime", tmp_path / "m.onnx", "--input", tmp_path / "x.npy")
    assert capture.names == ("relu", "shape", "again", "left", "right", "y")
    assert capture.value("shape").tolist() == [3, 2]
    assert capture.manifest is not None
    assert capture.manifest.outputs == {"logits": "y"}  # as refnet reads the file: a matrix of classes
    assert capture.value("y")[:2].tolist() == [[1], [7]]
    assert "wide is left out: its elements are float64" in capsys.readouterr().err


MODULE = """
import torch
from torch import nn
from torch.nn import functional as F

class Pair(nn.Module):
    def forward(self, x):
        return x + 1, {"twice": x * 2, "half": (x / 2,)}

class Net(nn.Module):
    def __init__(self, channels, kernel=3):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, kernel, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.seq = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.shared = self.relu
        self.pair = Pair()

    def forward(self, image, scale):
        x = self.conv(image)
        x = self.relu(x)
        x = self.seq(x)
        x = self.relu(F.relu(x - 0.5))
        one, more = self.pair(x)
        x = torch.cat([one, more["twice"], more["half"][0]], 1)
        x += 1
        top, where = x.flatten(1).max(1)
        low = x.to(torch.bfloat16)
        low = low * low
        self.shared(x)
        y = x.view(x.shape[0], -1).mean(1, keepdim=True) * scale
        return y, top, where
"""


def test_torch_any_module(tmp_path: Path, capsys: pytest.CaptureFixture[str], torch: Worker) -> None:
    """Functions, containers, modules used again, several inputs and outputs, other dtypes."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "mynet.py").write_text(MODULE)
    generator = np.random.default_rng(0)
    weights = {
        "conv.weight": generator.standard_normal((4, 3, 3, 3), np.float32),
        "conv.bias": generator.standard_normal(4, np.float32),
        **{
            f"seq.0.{name}": np.ones(4, np.float32)
            for name in ("weight", "bias", "running_mean", "running_var")
        },
    }
    state = tmp_path / "net.pth"
    torch.ask("save", {"path": str(state), "counters": ["seq.0.num_batches_tracked"]}, weights)
    files = {"image": (2, 3, 5, 5), "scale": (2, 1)}
    for name, shape in files.items():
        np.save(tmp_path / f"{name}.npy", generator.standard_normal(shape, np.float32))
    capture = captured(
        tmp_path / "c", "torch", "mynet:Net", "--path", source, "--argument", "4", "--mode", "eager",
        "--option", '{"kernel": 3}',
        "--state", state, *(part for name in files for part in ("--input", f"{name}={tmp_path / name}.npy")),
    )  # fmt: skip
    expected = [
        "conv", "relu", "seq.0", "seq.1", "seq", "sub", "relu_1", "relu_2", "pair.add", "pair.mul",
        "pair.div", "pair[0]", "pair[1][twice]", "pair[1][half][0]", "cat",
        "iadd", "flatten", "max[0]", "relu_3",
        "mean", "mul_1",
    ]  # fmt: skip
    assert list(capture.names) == expected
    assert capture.manifest is not None
    assert capture.manifest.outputs == {"output[0]": "mul_1", "output[1]": "max[0]"}
    assert capture.manifest.graph is None
    assert capture.manifest.inputs.keys() == files.keys()
    err = capsys.readouterr().err
    assert "max[1] is left out: its elements are int64" in err
    assert "mul is left out" in err
    assert "BFloat16" in err
    v = {name: capture.value(name) for name in capture.names}
    assert (v["conv"] < 0).any(), "kept before relu worked in its place"
    assert same_bits(v["relu"], np.maximum(v["conv"], 0))
    assert same_bits(v["seq"], v["seq.1"])
    assert same_bits(v["sub"], v["seq"] - np.float32(0.5))
    assert same_bits(v["cat"], np.concatenate([v["pair[0]"], v["pair[1][twice]"], v["pair[1][half][0]"]], 1))
    assert same_bits(v["iadd"], v["cat"] + np.float32(1))
    assert same_bits(v["max[0]"], v["iadd"].reshape(2, -1).max(1))
    assert same_bits(v["mul_1"], v["mean"] * capture.input("scale"))


def test_torch_an_output_that_no_function_made(tmp_path: Path) -> None:
    (tmp_path / "viewnet.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return torch.relu(x).view(-1)\n"
    )
    capture = captured(
        tmp_path / "c", "torch", "viewnet:Net", "--path", tmp_path, "--image", "4,4", "--mode", "eager"
    )
    assert capture.names == ("relu", "output")
    assert capture.manifest is not None
    assert capture.manifest.outputs == {"output": "output"}
    assert same_bits(capture.value("output"), capture.value("relu").reshape(-1))
    assert capture.input("data").shape == (1, 3, 4, 4)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("victim", ["refnet", "worker"])
@pytest.mark.parametrize("framework", ["torch", "mxnet"])
def test_killed_in_the_middle_it_goes_on_to_the_same_capture(
    framework: str, victim: str, tmp_path: Path
) -> None:
    """SIGKILL to refnet, or to the framework's process, while values are being written."""
    model = RESNEST if framework == "torch" else OCTAVE
    arguments = command(framework, *model)
    folder = tmp_path / "c"
    running = subprocess.Popen(
        [sys.executable, "-m", "refnet", *arguments, "-o", folder],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(refnet.__file__).parents[1])},
    )
    try:
        while running.poll() is None and lines(folder / PROGRESS) < 20:
            time.sleep(0.005)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert running.poll() is None, "it was done before it could be killed"
        os.kill(running.pid if victim == "refnet" else int(children[0]), signal.SIGKILL)
        error = running.communicate()[1].decode()
    finally:
        running.kill()
        running.wait()
    if victim == "worker":
        assert running.returncode == 2
        assert "ended with exit status -9" in error
    before = lines(folder / PROGRESS)
    assert before >= 20
    with pytest.raises(InputError, match="not finished"):
        open_capture(folder)
    went_on = captured(folder, framework, *model)
    assert hashes(went_on) == hashes(captured(tmp_path / "whole", framework, *model))
    for name in went_on.names:
        went_on.value(name)


def test_json_says_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captured(tmp_path / "c", "mxnet", "octave-se-resnet-digits", "--json")
    record = json.loads(capsys.readouterr().out)
    assert record["values"] == len(structure("octave-se-resnet-digits").nodes)
    assert record["reference"]["version"] == "1.9.1"
    assert record["left_out"] == {}


def test_a_python_without_the_framework(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["capture", "torch", *RESNEST, "--python", sys.executable, "-o", str(tmp_path / "c")]
    assert main(arguments) == 2
    assert "No module named 'torch'" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
