"""`refnet bench` with the real frameworks: each runs the same network. Times are shown, not judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from refnet.bench.race import compare
from refnet.bench.startup import startup
from refnet.frameworks.launch import FRAMEWORKS, prepare
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


def test_the_first_process_compiles_and_the_second_does_not(tmp_path: Path, report: list[str]) -> None:
    start = startup(prepare("resnest-digits", tmp_path), 1, 1)
    assert start.first.whole > start.first.first > start.first.run > 0
    for process in (start.first, start.second):
        assert process.ends > 0
        assert process.loading > process.importing + process.reading
    assert start.second.loading < start.first.loading
    assert start.empty > 0
    report.append(f"nothing compiled: {start.first.whole:.1f} s; second process: {start.second.whole:.2f} s")
