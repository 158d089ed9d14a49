"""Exported ONNX models under onnx.checker and in ONNX Runtime: every value, on the runtime's own inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.core.errors import FrameworkError
from refnet.core.graph import Graph, Node, TensorType
from refnet.formats.onnx.export import graph_to_onnx
from refnet.frameworks import process
from refnet.frameworks.process import Worker
from refnet.models import synthetic
from refnet.models.export import export
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from refnet.ops import AvgPool, BatchNorm, MaxPool, RadixSoftmax, RadixSum, Sigmoid, WeightedSum
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.judge import Disagreement, Tally, check
from tests.crosscheck.test_mxnet_values import distance
from tests.helpers.bits import floats
from tests.helpers.engines import FAST

pytestmark = pytest.mark.crosscheck

WORKER = Path(process.__file__).with_name("onnx_worker.py")
DIGITS = ("octave-se-resnet-digits", "resnest-digits")


@pytest.fixture(scope="module")
def onnx() -> Iterator[Worker]:
    """onnx and ONNX Runtime on one thread."""
    with Worker(WORKER, interpreter("onnx"), threads=1) as worker:
        yield worker


def everything(onnx: Worker, graph: Graph, data: dict[str, np.ndarray], folder: Path) -> Tally:
    """Judge all values of a model whose every value is an output, nothing optimised away."""
    path = folder / "all.onnx"
    path.write_bytes(graph_to_onnx(graph, [node.name for node in graph.nodes]).SerializeToString())
    onnx.ask("check", {"path": str(path)})
    request = {"path": str(path), "engine": "onnxruntime", "threads": 1, "optimise": False}
    found = dict(onnx.stream("run", request, data))
    assert list(found) == [node.name for node in graph.nodes]
    tally = Tally()
    for node in graph.nodes:
        inputs = [(data | found)[name] for name in node.data]
        check(node, found[node.name], [*inputs, *(graph.weights[name] for name in node.weights)], tally)
    assert tally.compared == len(graph.nodes)
    return tally


def test_its_sigmoid_is_inside_the_bound_and_a_wrong_one_is_not(
    onnx: Worker, tmp_path: Path, report: list[str]
) -> None:
    """Every exponent, both signs, and what lies around the cut: its rational function uses the bound."""
    steps = np.ldexp(np.float32(1) + np.arange(512, dtype=np.float32) / 512, np.arange(-30, 8)[:, None])
    x = np.concatenate([steps, -steps, np.linspace(-20, 20, 38 * 512, dtype=np.float32).reshape(38, 512)])
    node = Node("y", Sigmoid(), ("x",))
    tally = everything(onnx, Graph("s", {"x": TensorType((1, 512))}, (node,), {}), {"x": x}, tmp_path)
    report.extend(tally.lines())
    assert 0.05 < tally.shares["Sigmoid"] <= 1
    y = Sigmoid().run(x, engine=FAST)
    half = y.astype(np.float16).astype(np.float32)
    hard = np.clip(x * np.float32(0.2) + np.float32(0.5), 0, 1)
    with np.errstate(all="ignore"):
        coarse = np.float32(1) / (np.float32(1) + np.exp(-np.round(x * 1024) / 1024))
    for wrong in (half, hard, coarse, y + np.float32(2.0**-19)):
        with pytest.raises(Disagreement, match="outside the bound"):
            check(node, wrong.astype(np.float32), [x], Tally())


@pytest.mark.parametrize("name", DIGITS)
def test_every_value_of_the_digits_networks(
    onnx: Worker, name: str, tmp_path: Path, report: list[str]
) -> None:
    graph = refnet.load(name)
    images = sorted((shipped_folder() / "digits").glob("*.png"))[:2]
    data = {"data": np.concatenate([pipeline("digits").apply(image) for image in images])}
    report.extend(everything(onnx, graph, data, tmp_path).lines())


WINDOWS = [
    (kernel, stride, pad, convention, counted)
    for kernel, stride, pad in (((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (3, 2), (1, 1)))
    for convention in ("valid", "full", "ceil")
    for counted in (True, False)
]


def test_every_convention_of_pools_and_every_form_of_split_attention(onnx: Worker, tmp_path: Path) -> None:
    """What no digits network has: ragged windows, fixed gammas, other radixes and cardinalities."""
    nodes = [Node("norm", BatchNorm(1e-3, fix_gamma=True), ("data", "gamma", "beta", "mean", "var"))]
    for i, (kernel, stride, pad, convention, counted) in enumerate(WINDOWS):
        nodes.append(Node(f"avg{i}", AvgPool(kernel, stride, pad, convention, counted), ("norm",)))
        if counted:
            nodes.append(Node(f"max{i}", MaxPool(kernel, stride, pad, convention), ("norm",)))
    for radix, cardinality in ((1, 1), (1, 2), (2, 3), (3, 1), (3, 2)):
        ending = f"{radix}-{cardinality}"
        nodes += [
            Node(f"sum{ending}", RadixSum(radix), ("data",)),
            Node(f"soft{ending}", RadixSoftmax(radix, cardinality), ("attention",)),
            Node(f"weighted{ending}", WeightedSum(radix), (f"soft{ending}", "data")),
        ]
    types = {"data": TensorType((1, 12, 7, 8)), "attention": TensorType((1, 12, 1, 1))}
    names = ("gamma", "beta", "mean", "var")
    weights = {name: np.abs(floats((12,), name)) + np.float32(0.5) for name in names}
    graph = Graph("forms", types, tuple(nodes), {}).with_weights(weights)
    data = {"data": floats((2, 12, 7, 8), "forms"), "attention": floats((2, 12, 1, 1), "attention")}
    everything(onnx, graph, data, tmp_path)


@pytest.mark.parametrize("name", ["octave-se-resnet-50-0.125", "resnest-50-pytorch"])
def test_whole_networks_agree_in_their_answer(
    onnx: Worker, name: str, tmp_path: Path, report: list[str]
) -> None:
    graph = refnet.load(name, weights="seed:0")
    data = {"data": synthetic.normal(1, "data", graph.inputs["data"].shape)}
    (path,) = export(graph, tmp_path / "net", "onnx")
    onnx.ask("check", {"path": str(path)})
    own = refnet.run(graph, data)
    for optimise in (True, False):
        request = {"path": str(path), "engine": "onnxruntime", "threads": 2, "optimise": optimise}
        theirs = dict(onnx.stream("run", request, data))
        assert list(theirs) == list(dict.fromkeys(graph.outputs.values()))
        for key, value in graph.outputs.items():
            assert np.isfinite(theirs[value]).all()
            assert theirs[value].shape == own[key].shape
            assert (theirs[value].argmax(1) == own[key].argmax(1)).all()
            report.append(
                f"{key}, {'optimised' if optimise else 'as written'}: {distance(theirs[value], own[key])}"
            )


def test_the_reference_evaluator_runs_the_export(onnx: Worker, tmp_path: Path) -> None:
    graph = refnet.load("resnest-digits")
    data = {"data": floats((2, 1, 32, 32), "reference")}
    (path,) = export(graph, tmp_path / "net", "onnx")
    theirs = dict(onnx.stream("run", {"path": str(path), "engine": "reference"}, data))
    assert (theirs["prob"].argmax(1) == refnet.run(graph, data)["prob"].argmax(1)).all()


def test_the_worker_refuses_an_unknown_engine_and_the_checker_a_broken_model(
    onnx: Worker, tmp_path: Path
) -> None:
    with pytest.raises(FrameworkError, match="engine must be onnxruntime or reference, got 'torch'"):
        onnx.ask("run", {"path": "x", "engine": "torch"})
    model = graph_to_onnx(refnet.load("resnest-digits"))
    del model.graph.initializer[0]
    (tmp_path / "broken.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FrameworkError, match="not output of any previous nodes"):
        onnx.ask("check", {"path": str(tmp_path / "broken.onnx")})
