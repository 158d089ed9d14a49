"""Anybody's torch module: captured with its own graph, and judged without another file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.verification.capture import open_capture
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import floats, same_bits

pytestmark = pytest.mark.crosscheck

ROOT = Path(__file__).parents[2]
F = np.float32


def capture(folder: Path, name: str, *arguments: str) -> int:
    words = ["capture", "torch", f"tests.crosscheck.foreign_modules:{name}", "--path", str(ROOT)]
    return main([*words, "--python", str(interpreter("torch")), *arguments, "-o", str(folder)])


def opaque(found: refnet.Verification) -> set[str]:
    return {one.kind for one in found.nodes if one.verdict == "unjudged"}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_module_is_captured_and_judged_in_two_commands(batch, tmp_path, capsys, monkeypatch):
    assert capture(tmp_path / "c", "Residual", "--image", "16,16", "--batch", str(batch)) == 0
    assert (tmp_path / "c" / "network.onnx").is_file()
    monkeypatch.chdir(tmp_path)
    assert main(["verify", str(tmp_path / "c")]) == 0
    found = refnet.verify(tmp_path / "c")
    assert (found.counts["defect"], found.counts["unjudged"], found.unmatched) == (0, 0, ())
    kinds = {one.kind for one in found.nodes if one.verdict in ("equal", "replayed", "rounding")}
    assert kinds == {"Conv", "BatchNorm", "Clip", "Relu", "Add", "MaxPool", "ReduceMean", "Dense"}
    made = open_capture(tmp_path / "c")
    assert made.manifest is not None
    assert made.manifest.reference.mode == "exported"
    assert made.manifest.reference.flags["other bits than eager"] == "0"
    graph = refnet.load(tmp_path / "c" / "network.onnx")
    assert made.manifest.weights == graph.weights_hash()
    assert made.value("linear").shape == (batch, 10)
    assert graph.weights["stem.0.weight"].shape == (8, 3, 3, 3)  # torch's own names
    capsys.readouterr()


def test_a_bug_is_found_at_its_node(tmp_path, capsys):
    """A depthwise convolution whose first row is 1 % too large."""
    assert capture(tmp_path / "c", "Residual", "--image", "16,16") == 0
    made = open_capture(tmp_path / "c")
    values = {name: made.value(name) for name in made.names}
    name = next(
        n.name for n in refnet.load(tmp_path / "c" / "network.onnx").nodes if "groups=8" in repr(n.op)
    )
    values[name] = values[name].copy()
    values[name][:, :, 0] *= F(1.01)
    graph = refnet.load(tmp_path / "c" / "network.onnx")
    found = refnet.verify(values, graph, inputs={"x": made.input("x")})
    assert (found.first_defect, found.exit_code) == (name, 1)
    capsys.readouterr()


def test_what_refnet_does_not_have_costs_its_own_verdict(tmp_path, capsys):
    arrays = {"tokens": floats((2, 5, 8), "tokens"), "others": floats((2, 6, 8), "others")}
    words: list[str] = []
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        words += ["--input", f"{name}={tmp_path / name}.npy"]
    assert capture(tmp_path / "c", "Attention", *words) == 0
    found = refnet.verify(tmp_path / "c")
    assert (found.counts["defect"], found.unmatched, found.exit_code) == (0, (), 2)
    assert opaque(found) == {"Mod"}
    allowed = refnet.verify(tmp_path / "c", allow=["fmod"])
    assert allowed.exit_code == 0
    assert same_bits(open_capture(tmp_path / "c").input("others"), arrays["others"])
    capsys.readouterr()


def test_where_torch_cannot_export_hooks_are_left(tmp_path, capsys):
    assert capture(tmp_path / "c", "Branches", "--image", "16,16") == 0
    said = capsys.readouterr().err
    assert "Branches is captured by the names of its modules, without a graph: torch cannot export it" in said
    made = open_capture(tmp_path / "c")
    assert made.manifest is not None
    assert (made.manifest.reference.mode, made.manifest.graph) == ("eager", None)
    assert "stem.0" in made.names
    assert capture(tmp_path / "d", "Branches", "--image", "16,16", "--mode", "exported") == 2
    assert "torch cannot export tests.crosscheck.foreign_modules:Branches" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_a_module_that_ends_its_process_is_an_error(tmp_path, capsys):
    words = ["capture", "torch", "tests.crosscheck.modules:Dies", "--path", str(ROOT), "--image", "4,4"]
    assert main([*words, "--python", str(interpreter("torch")), "-o", str(tmp_path / "c")]) == 2
    assert "the worker ended with exit status -9" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("batch", [1, 2])
def test_what_cannot_be_read_for_any_batch_is_read_for_one(batch, tmp_path, capsys):
    assert capture(tmp_path / "c", "Token", "--image", "8,8", "--batch", str(batch)) == 0
    found = refnet.verify(tmp_path / "c")
    assert (found.counts["defect"], found.counts["unjudged"], found.unmatched) == (0, 0, ())
    assert open_capture(tmp_path / "c").value("linear").shape == (batch, 4)
    capsys.readouterr()
