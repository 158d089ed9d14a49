"""The .onnx of both of torch's exporters, matched with the capture of the module that they export."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from tests.crosscheck.conftest import interpreter

pytestmark = pytest.mark.crosscheck

ROOT = Path(__file__).parents[2]
MODULES = "tests.crosscheck.foreign_modules"
SIZES = {"Trained": 16, "Transformer": 32}
KINDS = ("legacy", "legacy-unfolded", "dynamo", "dynamo-unfolded")
SCRIPT = """
import json, sys
import torch
from tests.crosscheck import foreign_modules as modules

options = {
    "legacy": dict(dynamo=False),
    "legacy-unfolded": dict(
        dynamo=False, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE
    ),
    "dynamo": dict(dynamo=True),
    "dynamo-unfolded": dict(dynamo=True, optimize=False),
}
for name, size in json.loads(sys.argv[2]).items():
    module, x = getattr(modules, name)().eval(), torch.rand(1, 3, size, size)
    for kind, how in options.items():
        torch.onnx.export(module, (x,), f"{sys.argv[1]}/{name}-{kind}.onnx", **how)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """NAME-KIND.onnx of every exporter, and a capture of each module."""
    place = tmp_path_factory.mktemp("exporters")
    python = str(interpreter("torch"))
    words = [python, "-c", SCRIPT, str(place), json.dumps(SIZES)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    for name, size in SIZES.items():
        words = ["capture", "torch", f"{MODULES}:{name}", "--path", str(ROOT), "--python", python]
        assert main([*words, "--image", f"{size},{size}", "-o", str(place / name)]) == 0
    return place


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SIZES)
def test_every_value_of_the_file_is_one_of_the_capture(folder, name, kind):
    file = folder / f"{name}-{kind}.onnx"
    found = refnet.verify(folder / name, file)
    assert (found.counts["defect"], found.counts["unjudged"], found.unmatched) == (0, 0, ())
    assert found.exit_code == 0
    nodes = len(refnet.load(file).nodes)
    assert f": {nodes} of its {nodes} values are the module's (" in found.notes[0]
    own = refnet.verify(folder / name)
    assert found.judged + len(found.beyond) == own.judged
    norms = [node for node in refnet.load(folder / name).nodes if type(node.op).__name__ == "BatchNorm"]
    if norms and "unfolded" not in kind:
        assert f"({len(norms)} folded, " in found.notes[0]


@pytest.mark.parametrize("kind", ["legacy", "dynamo"])
def test_a_file_of_other_weights_is_found_where_they_are(folder, kind, capsys):
    """The file's classifier is another one's: the module's value cannot be the file's."""
    file = folder / f"Trained-{kind}.onnx"
    graph = refnet.load(file)
    last = graph.by_name[graph.outputs["logits"]]
    name = last.weights[0]
    other = graph.with_weights({**graph.weights, name: graph.weights[name] * np.float32(1.01)})
    found = refnet.verify(folder / "Trained", other)
    assert [one.name for one in found.nodes if one.verdict == "defect"] == [last.name]
    assert main(["verify", str(folder / "Trained"), str(file)]) == 0
    assert "is another file than the capture's own graph" in capsys.readouterr().out
