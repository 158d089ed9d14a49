"""Chapter 7 of the learners' page against the frameworks: what it says of them is what they compute now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import refnet
from refnet.cli import main
from refnet.core.op import TensorType
from refnet.formats import book as book_file
from refnet.frameworks.caller import caller
from refnet.frameworks.process import Worker
from refnet.models import synthetic
from refnet.models.loading import structure
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import same_bits
from tests.learn import settings

pytestmark = pytest.mark.crosscheck

MXNET = {"OPENBLAS_CORETYPE": "Haswell", "DNNL_MAX_CPU_ISA": "AVX2"}
TORCH = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
OPTIONS = {"one": ["--threads", "1"], "two": ["--threads", "2"], "joined": ["--subgraph", "default"]}


@pytest.mark.parametrize("setting", settings.SETTINGS, ids=lambda one: one.key)
def test_mxnet_computes_the_checksums_of_the_chapter(setting: settings.Setting, tmp_path: Path) -> None:
    environment = [part for item in MXNET.items() for part in ("--environment", "=".join(item))]
    asked = ["capture", "mxnet", settings.NETWORK, "--python", str(interpreter("mxnet")), *environment]
    asked += [*OPTIONS[setting.key], "--input", f"sample:{settings.SAMPLE}", "--hash-only"]
    assert main([*asked, "-o", str(tmp_path / "capture")]) == 0
    found, kept = (
        {
            name: value["sha256"]
            for name, value in json.loads((folder / "manifest.json").read_text())["values"].items()
        }
        for folder in (tmp_path / "capture", setting.capture)
    )
    assert found == kept


def test_pytorch_adds_the_layer_by_both_books(report: list[str]) -> None:
    """With one thread and with two, on the chapter's inputs, every element."""
    graph = structure(settings.LARGE)
    node, types = graph.by_name[settings.THREADS], graph.types() | dict(graph.weight_types)
    inputs = [synthetic.normal(0, name, types[name].shape) for name in node.inputs]
    found = {}
    for threads, path in settings.THREAD_BOOKS.items():
        with Worker("torch", interpreter("torch"), threads=threads, environment=TORCH) as worker:
            asked = caller("torch", worker, node.op, [TensorType(x.shape) for x in inputs], threads)
            found[threads] = asked.whole(inputs)
        assert same_bits(found[threads], refnet.Replay(book_file.read(path)).evaluate(node, *inputs))
    differ = int((found[1].view("u4") != found[2].view("u4")).sum())
    known = json.loads(settings.FILE.read_text())["shown"][0]
    assert (differ, found[1].size) == (known["differ"], known["elements"])
    report.append(
        f"{settings.THREADS}: {differ} of {found[1].size} elements differ between one thread and two"
    )
