"""IR files read, against OpenVINO: every form of every layer type, and whole networks value by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.core.graph import Graph
from refnet.core.op import F32
from refnet.formats.openvino.ops import RULES
from refnet.formats.openvino.reader import read_ir
from refnet.frameworks.launch import FRAMEWORKS, start
from refnet.frameworks.process import Worker
from refnet.models.converted import usual_pipeline
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.converted import PIXELS, converted
from tests.helpers.ir_models import CASES, data_of, write
from tests.helpers.ir_write import write_ir
from tests.helpers.onnx_models import judge

pytestmark = pytest.mark.crosscheck


@pytest.fixture(scope="module")
def openvino() -> Iterator[Worker]:
    """OpenVINO in float32 on one thread."""
    with start(FRAMEWORKS["openvino"], interpreter("openvino"), threads=1) as worker:
        yield worker


def values(openvino: Worker, path: Path, graph: Graph, data: Mapping[str, F32]) -> dict[str, F32]:
    """What OpenVINO makes of the data, under the names of the graph's values."""
    known = [node.name for node in graph.nodes]
    request = {"path": str(path), "threads": 1, "precision": "f32", "known": known, "exposed": True}
    return dict(openvino.stream("capture", request, data))


@pytest.mark.parametrize("kind", sorted({case.kind for case in CASES}))
def test_every_form_means_what_openvino_does(
    openvino: Worker, kind: str, tmp_path: Path, report: list[str]
) -> None:
    """For every version of the type that is read."""
    compared, versions = 0, set()
    for case in CASES:
        if case.kind != kind:
            continue
        for opset in case.opsets:
            path, data = write(case, opset, tmp_path), data_of(case)
            graph = read_ir(path)
            tally = judge(graph, data, values(openvino, path, graph, data))
            assert tally.compared == (1 if kind == "MaxPool" else case.outputs), case
            compared += 1
            versions.add(opset)
    assert versions == RULES[kind][1]
    report.append(f"{kind}: {compared} models")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", PIXELS)
def test_converted_networks_from_raw_pixels(
    openvino: Worker, name: str, half: bool, tmp_path: Path, report: list[str]
) -> None:
    """Today's converter on refnet's export, BGR bytes in, mean and scale inside: every value judged."""
    path = converted(name, tmp_path, weights="seed:0", half=half, image=(96, 96), pixels=True)
    verified(openvino, path, report)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", PIXELS)
def test_version_10_with_the_oldest_opsets(
    openvino: Worker, name: str, half: bool, tmp_path: Path, report: list[str]
) -> None:
    """Hand-made, accepted by today's OpenVINO."""
    means, _ = PIXELS[name]
    graph = refnet.load(name, weights="seed:0", image=(64, 64))
    verified(openvino, write_ir(graph, tmp_path, half=half, means=means[::-1]), report)


def verified(openvino: Worker, path: Path, report: list[str]) -> None:
    """All of a file's values, from pixels, through `refnet.verify`: no defect, nothing unjudged."""
    assert usual_pipeline(path, None) in ("octave-raw-bgr", "resnest-raw-bgr")
    graph = read_ir(path)
    ((entry, kind),) = graph.inputs.items()
    pixels = np.random.default_rng(0).integers(0, 256, kind.shape).astype(np.float32)
    found = values(openvino, path, graph, {entry: pixels})
    result = refnet.verify(found, graph, inputs={entry: pixels})
    report.append(f"{path.name}: {result.counts}")
    assert result.exit_code == 0
    assert result.counts["defect"] == result.counts["unjudged"] == result.counts["missing"] == 0
