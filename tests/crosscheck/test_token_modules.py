"""Torch modules and .onnx files whose inputs are integers: captured, judged, bugs found where they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.verification.capture import open_capture
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import floats

pytestmark = pytest.mark.crosscheck

ROOT = Path(__file__).parents[2]
IDS = np.array([[7, 3, 49, 1, 1, 20, 0, 0], [5, 2, 2, 48, 9, 30, 31, 4]])
INPUTS = {
    "Gpt": {"ids": IDS.clip(0, 48)},
    "Bert": {
        "input_ids": IDS,
        "attention_mask": (IDS != 0).astype(np.int64),
        "token_type_ids": (np.arange(8)[None] > 3).astype(np.int64).repeat(2, 0),
    },
    "Clip": {"ids": IDS},
    "Returns": {"x": floats((2, 8), "x")},
    "Waits": {"x": floats((2, 8), "x")},
    "Pixels": {"image": (np.arange(2 * 3 * 8 * 8) * 37 % 256).astype(np.uint8).reshape(2, 3, 8, 8)},
}


def given(folder: Path, name: str) -> list[str]:
    """--input for each array."""
    words = []
    for key, array in INPUTS[name].items():
        np.save(folder / f"{key}.npy", array)
        words += ["--input", f"{key}={folder / key}.npy"]
    return words


def capture(folder: Path, name: str, *more: str) -> refnet.Verification:
    words = ["capture", "torch", f"tests.crosscheck.token_modules:{name}", "--path", str(ROOT)]
    words += ["--python", str(interpreter("torch")), *given(folder.parent, name), *more, "-o", str(folder)]
    assert main(words) == 0
    return refnet.verify(folder)


def clean(found: refnet.Verification) -> bool:
    """Everything was judged, and nothing is wrong."""
    counts = (found.counts["defect"], found.counts["unjudged"])
    return (counts, found.unmatched, found.exit_code) == ((0, 0), (), 0)


@pytest.mark.parametrize("name", ["Bert", "Clip", "Gpt", "Pixels"])
def test_a_module_of_integers_is_judged_whole(name, tmp_path, capsys):
    found = capture(tmp_path / "c", name)
    assert clean(found)
    made = open_capture(tmp_path / "c")
    for key, array in INPUTS[name].items():
        assert made.input(key).dtype == array.dtype
    assert main(["verify", str(tmp_path / "c")]) == 0
    assert main(["golden", str(tmp_path / "c"), "-o", str(tmp_path / "g.json")]) == 0
    assert main(["golden", "--check", str(tmp_path / "g.json")]) == 0
    capsys.readouterr()


def test_outputs_keep_the_module_s_names_and_order(tmp_path, capsys):
    capture(tmp_path / "b", "Bert")
    made = open_capture(tmp_path / "b")
    assert made.manifest is not None
    assert [*made.manifest.outputs] == ["hidden", "pooled", "mean", "counts"]
    graph = refnet.load(tmp_path / "b")
    assert [*graph.outputs] == ["hidden", "pooled", "mean", "counts"]
    assert [one.name for one in refnet.verify(tmp_path / "b").outputs] == [*graph.outputs]
    arrays = {name: made.input(name) for name in graph.inputs}
    assert [*refnet.run(graph, arrays)] == [*graph.outputs]
    assert graph.types()[graph.outputs["counts"]].dtype == "int64"
    capsys.readouterr()
    words = ["run", str(tmp_path / "b"), *given(tmp_path, "Bert")]
    assert main([*words, "--value", "hidden", "--output", str(tmp_path / "h.npy")]) == 0
    assert np.load(tmp_path / "h.npy").shape == (2, 8, 16)
    words = ["capture", "torch", "tests.crosscheck.token_modules:Bert", "--path", str(ROOT)]
    words += ["--python", str(interpreter("torch")), *given(tmp_path, "Bert"), "--mode", "eager"]
    assert main([*words, "-o", str(tmp_path / "e")]) == 0
    eager = open_capture(tmp_path / "e").manifest
    assert eager is not None
    assert [*eager.outputs] == ["hidden", "pooled", "mean"]  # integers are not kept without a graph
    capsys.readouterr()


@pytest.mark.parametrize(("bug", "reads"), [("shift", "ids"), ("off", "unsqueeze_1")])
def test_a_planted_bug_is_found_at_its_node(bug, reads, tmp_path, capsys):
    """The sound module's graph judges the values of one whose ids are shifted, or whose mask is one off."""
    capture(tmp_path / "sound", "Gpt")
    graph = refnet.load(tmp_path / "sound")
    capture(tmp_path / "bug", "Gpt", "--option", json.dumps({bug: 1}))
    made = open_capture(tmp_path / "bug")
    values = {name: made.value(name) for name in made.names}
    found = refnet.verify(values, graph, inputs={"ids": made.input("ids")})
    (defect,) = [one for one in found.nodes if one.verdict == "defect"]
    assert (defect.kind, defect.inputs[0], found.exit_code) == ("Whole", reads, 1)
    capsys.readouterr()


@pytest.mark.parametrize("name", ["Gpt", "Bert", "Pixels"])
def test_onnx_runtime_on_the_same_file(name, tmp_path, capsys):
    capture(tmp_path / "c", name)
    words = ["capture", "onnxruntime", str(tmp_path / "c" / "network.onnx")]
    words += ["--python", str(interpreter("onnxruntime")), *given(tmp_path, name), "-o", str(tmp_path / "o")]
    assert main(words) == 0
    found = refnet.verify(tmp_path / "o")
    assert clean(found)
    made = open_capture(tmp_path / "o").manifest
    assert made is not None
    kinds = {one.digest.dtype for one in made.values.values()}
    assert name == "Pixels" or {"int64", "bool"} <= kinds
    capsys.readouterr()


def test_what_a_module_returns_twice_or_was_given(tmp_path, capsys):
    assert clean(capture(tmp_path / "c", "Returns"))
    made = open_capture(tmp_path / "c").manifest
    assert made is not None
    assert [*made.outputs] == ["b", "pair[first]", "pair[second]"]
    assert made.outputs["b"] == made.outputs["pair[second]"]
    assert made.reference.flags["exported by"] == "torch.export"
    assert made.reference.flags["other bits than eager"] == "0"
    assert "network.onnx: the output 'x' is an input" in capsys.readouterr().err


def test_a_module_without_a_graph_says_why_and_what_to_do(tmp_path, capsys):
    words = ["capture", "torch", "tests.crosscheck.token_modules:Waits", "--path", str(ROOT)]
    words += ["--python", str(interpreter("torch")), *given(tmp_path, "Waits"), "-o", str(tmp_path / "c")]
    assert main(words) == 0
    assert main(["verify", str(tmp_path / "c")]) == 2
    said = capsys.readouterr().err
    assert "is of a module that torch cannot export (torch.export: Guard" in said
    assert "`refnet diff` compares it with another capture of the module" in said
