"""Exported ONNX models under onnx.checker and in ONNX Runtime: every value, on the runtime's own inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.errors import FrameworkError
from refnet.export import export
from refnet.frameworks import process
from refnet.frameworks.process import Worker
from refnet.graph import Graph, Node, TensorType
from refnet.ops import AvgPool, BatchNorm, MaxPool, RadixSoftmax, RadixSum, Sigmoid, WeightedSum
from refnet.ops.base import Interval
from refnet.ops.rounding import gamma
from refnet.preprocess import pipeline
from refnet.readers.onnx_export import graph_to_onnx
from refnet.weights import shipped_folder
from refnet.zoo import synthetic
from tests.bits import floats
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.judge import Tally, check, within_bound
from tests.crosscheck.test_mxnet_values import distance

pytestmark = pytest.mark.crosscheck

WORKER = Path(process.__file__).with_name("onnx_worker.py")
DIGITS = ("octave-se-resnet-digits", "resnest-digits")


@pytest.fixture(scope="module")
def onnx() -> Iterator[Worker]:
    """onnx and ONNX Runtime on one thread."""
    with Worker(WORKER, interpreter("onnx"), threads=1) as worker:
        yield worker


P = (
    4.37031012579801e-11,
    1.15627324459942e-07,
    6.08574864600143e-05,
    8.51377133304701e-03,
    2.48287947061529e-01,
)
Q = (
    6.10247389755681e-13,
    5.76102136993427e-09,
    6.29106785017040e-06,
    1.70198817374094e-03,
    1.16817656904453e-01,
)
Q0 = 9.93151921023180e-01
"""Coefficients of ONNX Runtime's sigmoid: onnxruntime/core/mlas/lib/logistic.cpp, which are Eigen's."""


def rational_sigmoid(x: np.ndarray) -> Interval:
    """ONNX Runtime's sigmoid is none of the forms that `Sigmoid.bound` covers: max(1/2 + x P(x^2)/Q(x^2), 0)
    with |x| cut at 18, a rational function that is right to about 1e-7, not to some ulps of small results.

    Bound: all terms of P and Q are positive. A term of P carries its coefficient's rounding, at most 4 of
    x^2, and at most 8 of four Horner steps; with the product by x 14. Of Q: 1 + 5 + 10 = 16. The quotient:
    31. Then one addition. (gamma(40) and gamma(2) leave room for the float64 of this computation.)
    """
    x = np.clip(x.astype(np.float64), -18, 18)
    r = x * np.polyval(P, x * x) / np.polyval((*Q, Q0), x * x)
    y = np.maximum(0.5 + r, 0)
    return Interval(y, gamma(40) * np.abs(r) + gamma(2) * y)


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
        if isinstance(node.op, Sigmoid) or node.op == RadixSoftmax(1, getattr(node.op, "cardinality", 1)):
            share = within_bound(
                found[node.name], rational_sigmoid(inputs[0].reshape(found[node.name].shape))
            )
            tally.shares["Sigmoid, rational"] = max(tally.shares["Sigmoid, rational"], share)
            tally.bounds["Sigmoid, rational"] += 1
        else:
            check(node, found[node.name], [*inputs, *(graph.weights[name] for name in node.weights)], tally)
    assert tally.compared == len(graph.nodes)
    return tally


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
