"""Order-free runs in the real frameworks: every reduction of both networks has the exact bits in all."""

from __future__ import annotations

from pathlib import Path

import pytest

from refnet.cli import main
from refnet.frameworks.capture.orderfree import reductions
from refnet.models.loading import structure
from refnet.verification.capture import open_capture
from tests.crosscheck.conftest import interpreter
from tests.frameworks.test_order_free_run import old_model

pytestmark = pytest.mark.crosscheck

COUNTS = {"resnest-50-pytorch": 112, "octave-se-resnet-50-0.125": 318}


@pytest.mark.parametrize("framework", ["torch", "mxnet", "onnxruntime"])
@pytest.mark.parametrize("network", COUNTS)
def test_every_reduction_has_the_exact_bits(
    network: str, framework: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = str(interpreter({"onnxruntime": "onnx"}.get(framework, framework)))
    command = ["capture", framework, network, "--order-free", "--hash-only", "--python", python]
    assert main([*command, "-o", str(tmp_path / "c")]) == 0, capsys.readouterr().out
    assert "left out" not in capsys.readouterr().err
    assert open_capture(tmp_path / "c").names == tuple(reductions(structure(network)))
    assert len(open_capture(tmp_path / "c").names) == COUNTS[network]


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_the_nodes_of_a_users_file(opset: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They run at the operator versions of the file."""
    python = str(interpreter("onnx"))
    path = tmp_path / "old.onnx"
    old_model(path, opset)
    command = ["capture", "onnxruntime", str(path), "--order-free", "--python", python, "-o"]
    assert main([*command, str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert "3 nodes of old.onnx, each alone, at the file's operator versions, with refnet's arrays" in said
    assert "not run, as no inputs make it order-free: BatchNorm (1)" in said
    mode = open_capture(tmp_path / "c").manifest.reference.mode
    assert mode == f"single nodes of the file, opset {opset}, disabled"
