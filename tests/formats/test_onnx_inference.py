"""onnx's shape inference in a process of its own: what it says, and files that end or stop that process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import pytest

from refnet.core.errors import UnsupportedError
from refnet.core.op import TensorType
from refnet.formats.onnx import fold_worker, inference
from refnet.formats.onnx.evaluator import Evaluator
from refnet.formats.onnx.file import parse_model
from tests.helpers.onnx_build import model, node, read, tensor

UNKNOWN = model([node("Bernoulli", "x", "a"), node("Relu", "a")])


def test_the_shape_of_an_operator_that_refnet_lacks(tmp_path: Path) -> None:
    graph = read(UNKNOWN, tmp_path)
    assert graph.by_name["a"].op.opaque == "Bernoulli: refnet has no such operator"
    assert graph.types()["a"].shape == (1, 2, 4, 4)


def test_refnet_s_own_process_never_infers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx is told to end the process that asks it."""

    def ends(*arguments: object, **more: object) -> None:
        raise SystemExit("it was asked here")

    monkeypatch.setattr(onnx.shape_inference, "infer_node_outputs", ends)
    assert read(UNKNOWN, tmp_path).by_name["a"].op.opaque


@pytest.mark.parametrize(
    "body",
    ["import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "import time; time.sleep(60)", "1 / 0"],
)
def test_a_process_that_ends_or_hangs_is_an_error_that_names_the_node(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "fold_worker.py"
    text = Path(fold_worker.__file__).read_text()
    head = "    import onnx.helper\n    import onnx.numpy_helper\n    import onnx.shape_inference\n"
    assert text.count(head) == 1
    worker.write_text(text.replace(head, f"    {body}\n{head}"))
    monkeypatch.setenv("REFNET_FOLD_SECONDS", "2")
    start = subprocess.Popen

    def other(command: list[str], **more: object) -> object:
        words = [str(worker) if one.endswith("fold_worker.py") else one for one in command]
        return start(words, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", other)
    said = r"Bernoulli 'n_a' \(node 0, opset 18\): onnx's shape inference of it ends its process"
    with pytest.raises(UnsupportedError, match=said):
        read(UNKNOWN, tmp_path)


HOSTILE = {
    "GatherND": model([node("GatherND", "x i", batch_dims=-7)], [tensor("i", np.array([[0], [1]]))]),
    "Split": model([node("Bernoulli", "x", "a"), node("Split", "a", "y z", axis=1, num_outputs=1 << 20)]),
    "axis": model(
        [node("LayerNormalization", "x v", axis=-(1 << 40))], [tensor("v", np.ones(4, np.float32))]
    ),
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_hostile_attributes_do_not_end_refnet(what: str, tmp_path: Path) -> None:
    """In a process of its own, whose end can be seen."""
    file = tmp_path / "net.onnx"
    file.write_bytes(HOSTILE[what].SerializeToString())
    words = [sys.executable, "-m", "refnet", "summary", str(file)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 2), ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_answer_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model([node("Bernoulli", "x", "a"), node("Relu", "a")])
    monkeypatch.setattr(Evaluator, "_asked", lambda *arguments: ({"inferred": [1]}, []))
    (atan, _) = parse_model(made.SerializeToString(), "net.onnx", onnx).nodes
    with pytest.raises(UnsupportedError, match="onnx's shape inference"):
        inference.Inference(Evaluator()).said(atan, {"x": TensorType((1, 2))}, {})
