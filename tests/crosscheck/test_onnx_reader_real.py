"""ONNX files read, against ONNX Runtime: every form of every operator, and whole networks value by value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx as package
import pytest

import refnet
from refnet import ops
from refnet.core.graph import Graph
from refnet.core.op import Interval
from refnet.formats.onnx.export import write_onnx
from refnet.formats.onnx.reader import read_onnx
from refnet.frameworks import process
from refnet.frameworks.process import Worker
from refnet.kernels.engine import Fast
from refnet.models import synthetic
from refnet.ops.sigmoid import CUT, RATIONAL, rational
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.judge import Disagreement, Tally, check, within_bound
from tests.helpers.engines import FAST
from tests.helpers.onnx_models import CASES, data_of, judge, versions, write

pytestmark = pytest.mark.crosscheck

WORKER = Path(process.__file__).with_name("onnx_worker.py")
RUNTIME_NEWEST = 26
"""The newest opset of ONNX Runtime 1.31."""


@pytest.fixture(scope="module")
def onnx() -> Iterator[Worker]:
    """onnx and ONNX Runtime on one thread."""
    with Worker(WORKER, interpreter("onnx"), threads=1) as worker:
        yield worker


@pytest.fixture(scope="module")
def exporter() -> Iterator[Worker]:
    """PyTorch with its exporters."""
    path = Path(__file__).with_name("onnx_export_worker.py")
    with Worker(path, interpreter("torch"), threads=2) as worker:
        yield worker


def runtime(path: Path, threads: int = 1) -> dict[str, object]:
    return {"path": str(path), "engine": "onnxruntime", "threads": threads, "optimise": False}


@pytest.mark.parametrize("op", sorted({case.op for case in CASES if "onnxruntime" in case.engines}))
def test_every_form_means_what_onnx_runtime_does(
    onnx: Worker, op: str, tmp_path: Path, report: list[str]
) -> None:
    """For every version of the operator that ONNX Runtime has."""
    compared = 0
    for case in CASES:
        if case.op != op or "onnxruntime" not in case.engines:
            continue
        for opset in versions(case, RUNTIME_NEWEST):
            path, data = write(case, opset, tmp_path), data_of(case)
            found = dict(onnx.stream("run", runtime(path), data))
            tally = judge(read_onnx(path), data, found)
            assert tally.compared == case.outputs, case
            compared += 1
    assert compared
    report.append(f"{op}: {compared} models")


def everything(onnx: Worker, path: Path, data: dict[str, np.ndarray], folder: Path) -> tuple[Graph, Tally]:
    """Judge every value of a file that the graph has, on ONNX Runtime's own inputs to the node."""
    graph = read_onnx(path)
    proto = package.load(path)
    made = [name for node in proto.graph.node for name in node.output if name in graph.by_name]
    listed = {output.name for output in proto.graph.output}
    proto.graph.output.extend(package.ValueInfoProto(name=name) for name in made if name not in listed)
    whole = folder / "all.onnx"
    package.save(proto, whole)
    found = dict(onnx.stream("run", runtime(whole), data))
    assert set(made) <= set(found)
    tally = Tally()
    own = [node.name for node in graph.nodes if node.name not in made]
    assert own in ([], ["prob"]), own  # refnet's own softmax on the file's logits
    for node in graph.nodes:
        if node.name in own:
            continue
        arguments = [(data | found)[name] for name in node.data]
        check(node, found[node.name], arguments + [graph.weights[name] for name in node.weights], tally)
    assert tally.compared == len(graph.nodes) - len(own)
    return graph, tally


@pytest.mark.parametrize("name", ["octave-se-resnet-50-0.125", "resnest-50-pytorch"])
def test_refnets_own_export_of_whole_networks(
    onnx: Worker, name: str, tmp_path: Path, report: list[str]
) -> None:
    """Read back, each node has the original's bits on the same inputs. ONNX Runtime's values are judged."""
    graph = refnet.load(name, weights="seed:0")
    path = tmp_path / "net.onnx"
    write_onnx(path, graph)
    data = {"data": synthetic.normal(1, "data", graph.inputs["data"].shape)}
    back, tally = everything(onnx, path, data, tmp_path)
    report.extend(tally.lines())
    values = data | {node.name: value for node, value in refnet.steps(back, data)}
    differ = 0
    for node in graph.nodes:
        arguments = [values[n] for n in node.data] + [graph.weights[n] for n in node.weights]
        if isinstance(node.op, ops.WeightedSum):  # one FMA chain there, products and a sum here
            within_bound(values[node.name], node.op.bound(*map(Interval.exactly, arguments), engine=FAST))
            differ += 1
        else:
            own = node.op.run(*arguments, engine=Fast(2))
            assert values[node.name].tobytes() == own.tobytes(), node
    report.append(f"{len(graph.nodes) - differ} of {len(graph.nodes)} nodes with the original's bits")
    if not differ:
        own = refnet.run(graph, data)
        assert all(value.tobytes() == own[key].tobytes() for key, value in refnet.run(back, data).items())


EXPORTS = [
    {"dynamo": True, "opset": 18, "free": True},
    {"dynamo": True, "opset": 20, "free": False},
    {"dynamo": False, "opset": 11, "free": True, "fold": False},
    {"dynamo": False, "opset": 17, "free": True, "fold": True},
    {"dynamo": False, "opset": 13, "free": False, "fold": True},
]


@pytest.mark.parametrize("how", EXPORTS, ids=lambda how: "-".join(f"{k}{v}" for k, v in how.items()))
def test_pytorchs_exports_of_the_official_resnest(
    onnx: Worker, exporter: Worker, how: dict[str, object], tmp_path: Path, report: list[str]
) -> None:
    path = tmp_path / "net.onnx"
    exporter.ask("export", {"path": str(path), "seed": 0, **how})
    batch = 2 if how["free"] else 1
    data = {"data": synthetic.normal(1, "data", (batch, 3, 224, 224))}
    graph, tally = everything(onnx, path, data, tmp_path)
    assert graph.types()[graph.outputs["logits"]].shape == (1, 1000)
    assert sum(isinstance(node.op, ops.Conv) for node in graph.nodes) == 3 + 16 * 5 + 4
    report.extend(tally.lines())
    own = refnet.run(graph, data)
    assert np.isfinite(own["logits"]).all()
    other = next(iter(dict(onnx.stream("run", runtime(path), data)).values()))
    assert (own["logits"].argmax(1) == other.argmax(1)).all()


def test_a_value_that_is_wrong_is_seen(onnx: Worker, tmp_path: Path) -> None:
    """The same walk on a file in which one epsilon was changed after it had been read: at that node only."""
    path = tmp_path / "net.onnx"
    write_onnx(path, refnet.load("resnest-digits"))
    graph = read_onnx(path)
    proto = package.load(path)
    data = {"data": synthetic.normal(1, "data", (1, 1, 32, 32))}
    norm = next(node for node in proto.graph.node if node.op_type == "BatchNormalization")
    norm.attribute[0].f = 1e-3
    changed = tmp_path / "changed.onnx"
    package.save(proto, changed)
    found = dict(onnx.stream("run", runtime(_all(changed, graph)), data))
    wrong = []
    for node in graph.nodes:
        arguments = [(data | found)[name] for name in node.data]
        try:
            check(node, found[node.name], arguments + [graph.weights[name] for name in node.weights], Tally())
        except Disagreement as error:
            wrong.append((node.name, str(error)))
    ((name, what),) = wrong
    assert name == norm.output[0]
    assert "outside the bound" in what


def _all(path: Path, graph: Graph) -> Path:
    proto = package.load(path)
    listed = {output.name for output in proto.graph.output}
    proto.graph.output.extend(package.ValueInfoProto(name=n) for n in graph.by_name if n not in listed)
    package.save(proto, path)
    return path


def test_how_far_the_rational_sigmoid_is_off() -> None:
    """RATIONAL holds for every float32 up to the cut; beyond, the function is constant and sigmoid monotone.

    Its error at -x is that at x, or less where it is cut at 0. Below 2**-12 both are 1/2 + x/4 up to x**3,
    with a slope that P[0] / Q[0] gives.
    """
    worst = 0.0
    first, last = np.float32([2.0**-12, CUT]).view(np.uint32)
    for begin in range(int(first), int(last) + 1, 1 << 22):
        x = np.arange(begin, min(begin + (1 << 22), int(last) + 1), dtype=np.uint32).view(np.float32)
        wide = x.astype(np.float64)
        worst = max(worst, float(np.abs(0.5 + rational(wide) - 1 / (1 + np.exp(-wide))).max()))
    end = float(np.float64(0.5) + rational(np.array([CUT]))[0])
    assert 2.0**-27 < worst < RATIONAL
    assert abs(1 - end) < RATIONAL
    tiny = np.array([2.0**-12])
    assert abs(float(rational(tiny)[0]) - 2.0**-14) < 2.0**-36
