"""`refnet bench` with the real frameworks: each runs the same network. Times are shown, not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import refnet
from refnet.bench.race import compare
from refnet.bench.startup import startup
from refnet.cli import main
from refnet.frameworks.launch import FRAMEWORKS, Module, prepare
from refnet.report.bench_table import read_rows
from tests.crosscheck.conftest import interpreter

pytestmark = pytest.mark.crosscheck

CASES = (
    ("resnest-50-pytorch", ("torch", "onnxruntime")),
    ("octave-se-resnet-50-0.125", ("mxnet", "onnxruntime")),
    ("octave-se-resnet-digits", ("mxnet", "onnxruntime", "onnx-reference")),
)


@pytest.mark.parametrize(("model", "against"), CASES)
def test_every_framework_answers_as_refnet_does(
    model: str, against: tuple[str, ...], tmp_path: Path, report: list[str]
) -> None:
    pythons = {name: str(interpreter(FRAMEWORKS[name])) for name in against}
    prepared = prepare(model, tmp_path, against=against, pythons=pythons)
    pairs = compare(prepared, [1], [2], 1)
    assert [pair.theirs.name for pair in pairs] == [*against]
    for pair in pairs:
        assert pair.agree
        assert min(*pair.ours.seconds, *pair.theirs.seconds) > 0
        report.append(f"{model}, {pair.theirs.name}: {pair.ratio:.2f} of its time, batch 2, one run")


def test_a_module_is_timed_against_its_export(tmp_path: Path, report: list[str]) -> None:
    """PyTorch runs the module itself, ONNX Runtime and refnet the file that it was exported to."""
    root, name = str(Path(__file__).parents[2]), "tests.crosscheck.foreign_modules:Residual"
    pythons = {one: str(interpreter(FRAMEWORKS[one])) for one in ("torch", "onnxruntime")}
    refnet.capture(
        "torch",
        name,
        tmp_path / "c",
        arguments=[7],
        paths=[root],
        image=(32, 32),
        mode="exported",
        python=pythons["torch"],
    )
    path = tmp_path / "c" / "network.onnx"
    module = Module(name, [7], [root])
    prepared = prepare(path, tmp_path, against=list(pythons), pythons=pythons, image=(32, 32), module=module)
    assert prepared.racers["onnxruntime"].request["path"] == str(path)
    for pair in compare(prepared, [1], [1], 3):
        assert pair.agree
        report.append(f"{pair.theirs.name}: {pair.ratio:.2f} of its time, three runs")
    other = prepare(path, tmp_path, against=["torch"], pythons=pythons, module=Module(name, [5], [root]))
    assert other.racers["torch"].request["arguments"] == [5]


def test_the_first_process_compiles_and_the_second_does_not(tmp_path: Path, report: list[str]) -> None:
    start = startup(prepare("resnest-digits", tmp_path), 1, 1)
    assert start.first.whole > start.first.first > start.first.run > 0
    for process in (start.first, start.second):
        assert process.ends > 0
        assert process.loading > process.importing + process.reading
    assert start.second.loading < start.first.loading
    assert start.empty > 0
    report.append(f"nothing compiled: {start.first.whole:.1f} s; second process: {start.second.whole:.2f} s")


def test_a_row_of_the_table_is_raced_against_every_framework_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], report: list[str]
) -> None:
    frameworks = ("mxnet", "torch", "onnxruntime", "openvino")
    pythons = [f"--python={name}={interpreter(FRAMEWORKS[name])}" for name in frameworks]
    argv = ["bench", "--table", "mobilenet-v1-0.75,resnest-50-fast-1s1x", *pythons, "--image", "64,64"]
    argv += ["--threads", "1", "--runs", "2", "--state", str(tmp_path / "state.json"), "--json"]
    assert main(argv) == 0
    first = json.loads(capsys.readouterr().out)
    assert [(row["network"][:6], row["against"]) for row in first["rows"]] == [
        *(("resnes", name) for name in ("torch", "onnxruntime", "openvino")),
        *(("octave", name) for name in ("mxnet", "onnxruntime", "openvino")),
    ]
    assert all(pair["agree"] for pair in first["pairs"])
    assert first["machine"]["bandwidths"]["1"] > 0
    assert main(argv) == 0
    again = json.loads(capsys.readouterr().out)
    sides = [[(pair["ours"], pair["theirs"]) for pair in found["pairs"]] for found in (first, again)]
    assert sides[0] == sides[1]  # kept, to the last digit
    report.append(f"6 rows of the table, geometric mean {first['means'][-1]['ratio']:.2f}, two runs")


def test_golden_is_raced_against_onnx_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], report: list[str]
) -> None:
    """Two pairs a row, because onnx.reference takes seconds for a run."""
    file = tmp_path / "golden.csv"
    argv = [
        "bench",
        "--table",
        "mobilenet-v1-0.75,resnet-26-baseline",
        "--image",
        "64,64",
        "--csv",
        str(file),
    ]
    argv += ["--arithmetic", "golden", "--against", "onnx-reference", "--threads", "1", "--json"]
    assert main([*argv, f"--python={interpreter('onnx')}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(pair["agree"] for pair in found["pairs"])
    assert [len(pair["ratios"]) for pair in found["pairs"]] == [2, 2]
    rows = read_rows(file.read_text())
    assert {(row["arithmetic"], row["against"]) for row in rows} == {("golden", "onnx-reference")}
    report.append(f"golden, 2 rows: geometric mean 1/{1 / found['means'][-1]['ratio']:.0f}, two runs")
