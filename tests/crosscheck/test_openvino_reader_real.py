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
from refnet.models.loading import structure
from refnet.models.preprocess import pipeline
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.converted import PIXELS, converted
from tests.helpers.ir_models import CASES, Case, data_of, whole, write
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
    request = {"path": str(path), "threads": 1, "precision": "f32", "known": known, "mode": "internals"}
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


DIVISORS = np.float32([3, 7, 10, 49]).reshape(1, 4, 1, 1)


@pytest.mark.parametrize("divisor", [DIVISORS, (1, 4, 1, 1), (1, 4, 7, 6)])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_quotient_is_a_product_with_a_reciprocal(
    openvino: Worker, divisor: F32 | tuple[int, ...], swapped: bool, tmp_path: Path
) -> None:
    """Divide, by other numbers than powers of two: not IEEE's quotient, but a formula's bits."""
    inputs = ((1, 4, 7, 6), divisor)
    case = Case("Divide", inputs[::-1] if swapped else inputs, {})
    path = write(case, 1, tmp_path)
    graph = read_ir(path)
    data = {
        name: np.abs(whole(kind.shape, name)) + np.float32(1.3) + np.float32(k)
        for k, (name, kind) in enumerate(graph.inputs.items())
    }
    found = values(openvino, path, graph, data)
    divided = refnet.run(graph, data, values=["y0"])["y0"]
    assert (found["y0"] != divided).any()
    judged = refnet.verify(found, graph, inputs=data)
    assert judged.counts["replayed"] == 1, judged
    assert "'reciprocal'" in str(judged.nodes[-1].reason)
    found["y0"].reshape(-1)[5] = np.nextafter(found["y0"].reshape(-1)[5], np.float32(np.inf))
    assert refnet.verify(found, graph, inputs=data).counts["defect"] == 1


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


def test_the_converted_octave_network_is_mxnets(openvino: Worker, tmp_path: Path, report: list[str]) -> None:
    """One image: bytes into the converted file, the network's own floats into MXNet. Both are judged.

    refnet's ONNX export stands between them, whose errors no judgement of one of them alone would show. Of
    two images OpenVINO's logits are nearer to MXNet's of the same, and the top-1 is the same.
    """
    name = "octave-se-resnet-50-0.125"
    path = converted(name, tmp_path, weights="seed:0", half=False, image=(96, 96), pixels=True)
    graph = read_ir(path)
    images = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    theirs = []
    for k, pixels in enumerate(images):
        file, folder = tmp_path / f"{k}.npy", tmp_path / f"mxnet-{k}"
        np.save(file, pipeline("octave-accuracy-checker").normalise(pixels))
        python = str(interpreter("mxnet"))
        refnet.capture("mxnet", name, folder, inputs=file, weights="seed:0", image=(96, 96), python=python)
        theirs.append(folder)
    assert refnet.verify(theirs[0]).exit_code == 0

    data = {"data": pipeline("octave-raw-bgr").normalise(images[0])}
    found = values(openvino, path, graph, data)
    assert refnet.verify(found, graph, inputs=data).exit_code == 0
    captures = [refnet.open_capture(folder) for folder in theirs]
    own = structure(name)
    logits = [capture.value(before_softmax(own)) for capture in captures]
    apart = [float(np.abs(found[before_softmax(graph)] - one).max()) for one in logits]
    prob = captures[0].value(own.outputs["prob"])
    distance = np.abs(found[graph.outputs["prob"]] - prob).max()
    assert apart[0] < apart[1]
    assert found[graph.outputs["prob"]].argmax() == prob.argmax()
    report.append(
        f"logits up to {np.abs(logits[0]).max():g}: {apart[0]:g} apart, of the other image {apart[1]:g}"
    )
    report.append(f"prob: {distance:g} apart")


def before_softmax(graph: Graph) -> str:
    """The logits' name."""
    return graph.by_name[graph.outputs["prob"]].data[0]


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
