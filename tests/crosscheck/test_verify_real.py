"""`refnet verify` on real frameworks: whole networks without a false alarm, fast; fused layers; real bugs.

    .venv/bin/python -m pytest -m crosscheck tests/crosscheck/test_verify_real.py -q

The tables that this prints, each op's largest and median share of its bound, are those of docs/numerics.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.core.graph import Graph
from refnet.formats.manifest import file_name
from refnet.formats.onnx.export import graph_to_onnx
from refnet.frameworks import process
from refnet.frameworks.process import Worker
from refnet.models import synthetic
from refnet.models.export import export
from refnet.models.loading import structure
from refnet.verification.capture import Capture, open_capture
from refnet.verification.verify import Verification, verify_values
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.test_torch_values import NETWORKS, SURPLUS, written

pytestmark = pytest.mark.crosscheck

OCTAVE, RESNEST = "octave-se-resnet-50-0.125", "resnest-50-pytorch"
LIMIT = 60.0
"""Seconds of CPU that a whole network may take, with 2 threads, kernels compiled."""


@pytest.fixture(scope="module")
def onnx() -> Iterator[Worker]:
    """onnx and ONNX Runtime on one thread."""
    worker = Path(process.__file__).with_name("onnx_worker.py")
    with Worker(worker, interpreter("onnx"), threads=1) as started:
        yield started


def stored(folder: Path, values: Iterable[tuple[str, np.ndarray]], data: dict[str, np.ndarray]) -> Path:
    """A framework's values as a folder of arrays, the input with them."""
    folder.mkdir()
    for name, value in (*data.items(), *values):
        np.save(folder / file_name(name), value)
    return folder


def image(graph: Graph, seed: int = 1) -> dict[str, np.ndarray]:
    return {"data": synthetic.normal(seed, "data", graph.inputs["data"].shape)}


def timed(graph: Graph, capture: Capture, allow: Collection[str]) -> tuple[Verification, float]:
    """A verification with 2 threads, and its seconds of CPU: other work on the machine does not count."""
    begin = time.process_time()
    found = verify_values(graph, capture, threads=2, allow=allow)
    return found, time.process_time() - begin


def judged(
    graph: Graph, folder: Path, missing: Collection[str], report: list[str], surplus: Collection[str] = ()
) -> Verification:
    """No defect, nothing left open, and in time; if not, then the second time, with everything compiled.

    surplus: patterns of the names that may match nothing.
    """
    capture = open_capture(folder)
    allow = [name for name in capture.names if any(re.fullmatch(pattern, name) for pattern in surplus)]
    found, seconds = timed(graph, capture, allow)
    if seconds >= LIMIT:
        found, seconds = timed(graph, capture, allow)
    assert not found.counts["defect"], (found.first_defect, found.line)
    assert not found.counts["unjudged"], [n.name for n in found.nodes if n.verdict == "unjudged"]
    assert {node.name for node in found.nodes if node.verdict == "missing"} == set(missing)
    assert found.exit_code == 0
    assert seconds < LIMIT
    report.extend([found.line, f"{found.seconds:.1f} s with 2 threads", *table(found)])
    return found


def table(found: Verification) -> list[str]:
    """Per kind of op with a bound: values, elements, those not plain's, largest and median share."""
    lines = [
        "| op | values | elements | not plain's bits | largest share | median share |",
        "|---|" + "---:|" * 5,
    ]
    for kind in sorted({node.kind for node in found.nodes if node.share is not None}):
        some = [node for node in found.nodes if node.kind == kind and node.share is not None]
        total = sum(node.elements for node in some)
        differ = sum(node.differ for node in some)
        largest = max(node.share.largest for node in some)
        median = float(np.median([node.share.median for node in some]))
        lines.append(
            f"| {kind} | {len(some)} | {total:,} | {100 * differ / total:.1f} % "
            f"| {100 * largest:.2f} % | {100 * median:.2f} % |"
        )
    return lines


def test_octave_in_mxnet(mxnet: Worker, tmp_path: Path, report: list[str]) -> None:
    graph = refnet.load(OCTAVE, weights="seed:0")
    symbol, params = export(graph, tmp_path / "net")
    data = image(graph)
    request = {"symbol": str(symbol), "params": str(params), "mode": "monitor"}
    folder = stored(tmp_path / "values", mxnet.stream("run", request, data), data)
    found = judged(graph, folder, (), report)
    assert found.counts["equal"] > 300
    assert found.counts["rounding"] > 200


def test_resnest_in_pytorch(torch: Worker, tmp_path: Path, report: list[str]) -> None:
    graph, path = written(torch, structure(RESNEST), tmp_path)
    data = image(graph)
    request = {"model": f"resnest.torch:{NETWORKS[RESNEST]}", "weights": str(path), "threads": 1}
    folder = stored(tmp_path / "values", torch.stream("run", request, data), data)
    found = judged(graph, folder, ("prob",), report, SURPLUS)
    assert found.counts["rounding"] > 150
    assert found.allowed
    # the same capture against another network: a wrong epsilon, found at the first batch norm
    norm = next(node for node in graph.nodes if isinstance(node.op, ops.BatchNorm))
    nodes = tuple(
        type(n)(n.name, ops.BatchNorm(1e-3), n.inputs) if isinstance(n.op, ops.BatchNorm) else n
        for n in graph.nodes
    )
    other = type(graph)(graph.name, graph.inputs, nodes, graph.outputs, graph.weights)
    assert verify_values(other, open_capture(folder), only=[norm.name]).first_defect == norm.name


def runtime(
    onnx: Worker, graph: Graph, keep: Collection[str], folder: Path, optimise: bool
) -> tuple[Path, dict]:
    """ONNX Runtime's values of these names, on one image."""
    path = folder / "all.onnx"
    path.write_bytes(graph_to_onnx(graph, list(keep)).SerializeToString())
    data = image(graph)
    request = {"path": str(path), "engine": "onnxruntime", "threads": 1, "optimise": optimise}
    return stored(folder / f"values-{optimise}", onnx.stream("run", request, data), data), data


def test_resnest_in_onnx_runtime(onnx: Worker, tmp_path: Path, report: list[str]) -> None:
    graph = refnet.load(RESNEST, weights="seed:0")
    folder, _ = runtime(onnx, graph, [node.name for node in graph.nodes], tmp_path, optimise=False)
    found = judged(graph, folder, (), report)
    assert found.counts["rounding"] > 150


@pytest.mark.parametrize("name", [RESNEST, "octave-resnet-50-0.25"])
def test_fused_layers_of_onnx_runtime(onnx: Worker, name: str, tmp_path: Path, report: list[str]) -> None:
    """Only what follows a convolution and its batch norm is shown, and the runtime folds and fuses them."""
    graph = refnet.load(name, weights="seed:0")
    hidden = {n.name for n in graph.nodes if isinstance(n.op, ops.Conv | ops.BatchNorm)}
    hidden |= {n.name for n in graph.nodes if isinstance(n.op, ops.Add)}
    keep = [node.name for node in graph.nodes if node.name not in hidden]
    folder, _ = runtime(onnx, graph, keep, tmp_path, optimise=True)
    found = judged(graph, folder, hidden, report)
    over = [node for node in found.nodes if len(node.over) > 2]
    assert len(over) > 40
    assert max(node.share.largest for node in over if node.share) > 0.001
