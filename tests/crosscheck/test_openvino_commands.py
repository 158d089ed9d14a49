"""A converted octave network by the command line, float32 and float16 weights; and MXNet with the latter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from refnet.formats.mxnet.reader import write_params, write_symbol
from refnet.formats.openvino.reader import read_ir
from refnet.models.loading import load
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from refnet.ops import Add, BatchNorm, MaxPool, Mul, Sub
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.converted import converted

pytestmark = pytest.mark.crosscheck

OCTAVE = "octave-se-resnet-50-0.125"
SIZE = (64, 64)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """half -> the .xml, which takes raw pixels in the order BGR."""
    folder = tmp_path_factory.mktemp("converted")
    return {
        half: converted(OCTAVE, folder, weights="seed:0", half=half, image=SIZE, pixels=True)
        for half in (False, True)
    }


@pytest.mark.parametrize("half", [False, True])
def test_every_command_takes_the_file(
    files: dict[bool, Path], half: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], report: list[str]
) -> None:
    model, folder = str(files[half]), tmp_path / "c"
    graph = read_ir(model)
    picture = str(next((shipped_folder() / "digits").glob("*.png")))

    assert main(["capture", "openvino", model, "--input", "seed:1", "-o", str(folder)]) == 0
    capsys.readouterr()
    assert main(["verify", str(folder), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["summary"]
    assert counts["defect"] == counts["unjudged"] == counts["missing"] == 0
    assert counts["equal"] + counts["replayed"] + counts["rounding"] == len(graph.nodes) > 900
    report.append(f"{Path(model).name}: {counts['line']}")

    golden = tmp_path / "golden.json"
    assert main(["golden", model, "--input", "seed:1", "-o", str(golden)]) == 0
    assert main(["golden", model, "--check", str(golden)]) == 0

    node = next(n.name for n in graph.nodes if type(n.op).__name__ == "Conv")
    capsys.readouterr()
    assert main(["explain", model, node, "--at", "0,1,2,3", "--capture", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "147" in said  # terms: 7 * 7 * 3
    value = refnet.open_capture(folder).value(node)[0, 1, 2, 3]
    assert f"0x{int(value.view(np.uint32)):08x}" in said

    assert main(["summary", model, "--totals"]) == 0
    assert "multiply-adds" in capsys.readouterr().out
    assert main(["run", model, picture, "--image", "224,224", "--json"]) == 0
    ran = json.loads(capsys.readouterr().out)
    raw = pipeline("octave-raw-bgr").apply(picture)
    wanted = refnet.run(load(model, image=(224, 224)), {"data": raw})["prob"]
    assert ran["results"][0]["top"][0]["class"] == int(wanted.argmax())

    assert main(["export", model, "--to", "onnx", "-o", str(tmp_path / "again")]) == 0
    again = refnet.load(tmp_path / "again.onnx")
    data = {"data": np.random.default_rng(2).integers(0, 256, (1, 3, *SIZE)).astype(np.float32)}
    before, after = refnet.run(graph, data)["prob"], refnet.run(again, data)["prob"]
    assert before.tobytes() == after.tobytes()


EPS = 2.0**-10


def for_mxnet(graph: Graph) -> Graph:
    """The same values by the same names: a constant of each channel is a batch norm's gamma or beta.

    Its mean is 0 and its variance such that var + eps is 1, so it multiplies and adds and does nothing else.
    A pool with a padding that no window reaches has one on both sides.
    """
    nodes, weights, types = [], dict(graph.weights), graph.types()
    for node in graph.nodes:
        if isinstance(node.op, MaxPool) and not node.op.symmetric:
            pool = replace(node.op, pad_end=None)
            assert pool.type(types[node.data[0]]) == types[node.name]
            nodes.append(replace(node, op=pool))
            continue
        if not (isinstance(node.op, Add | Mul | Sub) and node.op.constants):
            nodes.append(node)
            continue
        constant = weights.pop(node.weights[0]).reshape(-1)
        one, zero = np.ones_like(constant), np.zeros_like(constant)
        gamma = constant if isinstance(node.op, Mul) else one
        beta = {Add: constant, Sub: -constant, Mul: zero}[type(node.op)]
        arrays = (gamma, beta, zero, one - np.float32(EPS))
        names = tuple(f"{node.name}/{role}" for role in BatchNorm.roles[1:])
        weights.update(zip(names, arrays, strict=True))
        nodes.append(Node(node.name, BatchNorm(EPS), (node.data[0], *names)))
    return replace(graph, nodes=tuple(nodes), weights={}).with_weights(weights)


def test_float16_weights_in_mxnet(files: dict[bool, Path], tmp_path: Path, report: list[str]) -> None:
    """OpenVINO runs the float16 file, MXNet the float32 network with the very numbers that the file holds.

    What is between them is then rounding: both captures are judged by the graph that was read, and their
    outputs are nearer to one another than to those with the weights before they were rounded to float16.
    """
    graph = read_ir(files[True])
    own = for_mxnet(graph)
    symbol, params, entry = tmp_path / "net-symbol.json", tmp_path / "net-0000.params", tmp_path / "x.npy"
    write_symbol(symbol, own)
    write_params(params, own.weights, own.statistics())
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, *SIZE)).astype(np.float32)
    np.save(entry, pixels)
    python = str(interpreter("mxnet"))
    common = {"inputs": entry, "image": SIZE}
    refnet.capture("mxnet", symbol, tmp_path / "mxnet", weights=params, python=python, **common)
    for half, name in ((True, "half"), (False, "single")):
        refnet.capture("openvino", files[half], tmp_path / name, inputs=entry)
    assert refnet.verify(tmp_path / "mxnet").exit_code == 0
    assert refnet.verify(tmp_path / "half").exit_code == 0

    last = graph.by_name[graph.outputs["prob"]].data[0]
    mxnet, half, single = (logits(tmp_path / name, last) for name in ("mxnet", "half", "single"))
    same, other = np.abs(half - mxnet).max(), np.abs(half - single).max()
    report.append(f"logits up to {np.abs(mxnet).max():g}: {same:g} apart; float32 weights: {other:g} apart")
    assert 0 < same < other / 2
    assert half.argmax() == mxnet.argmax()


def logits(folder: Path, name: str) -> F32:
    """A captured value."""
    found: F32 = refnet.open_capture(folder).value(name)
    return found
