"""Transposed convolutions, other ranks than two, interpolation and rearrangement, in PyTorch live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.cli import main
from refnet.core.graph import Graph, Node
from refnet.formats.onnx.export import graph_to_onnx
from refnet.frameworks import process
from refnet.frameworks.process import Worker
from refnet.models import synthetic
from refnet.verification.capture import open_capture
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import FAST

pytestmark = pytest.mark.crosscheck

WORKER = Path(process.__file__).with_name("onnx_worker.py")
ROOT = Path(__file__).parents[2]
SHAPES = {"Line": (1, 3, 37), "Volume": (1, 2, 6, 8, 7)}
KINDS = {
    "Unet": {"ConvTranspose", "Conv"},
    "Bilinear": {"ResizeLinear", "ConvTranspose"},
    "Aligned": {"ResizeLinear"},
    "Bicubic": {"ResizeCubic"},
    "Odd": {"ResizeLinear", "ResizeCubic"},
    "Shuffled": {"DepthToSpace"},
    "Line": {"ConvNd", "ConvTranspose", "MaxPoolNd", "AvgPoolNd", "Gather"},
    "Volume": {"ConvNd", "ConvTranspose", "MaxPoolNd", "AvgPoolNd", "ResizeLinear"},
    "Places": {"StridedSlice", "Gather", "Expand", "Tile", "Pad"},
}
"""Module -> ops that its graph must have."""


def capture(folder: Path, name: str, tmp_path: Path) -> None:
    data = floats(SHAPES.get(name, (1, 3, 16, 12)), name)
    np.save(tmp_path / "x.npy", data)
    words = ["capture", "torch", f"tests.crosscheck.spatial_modules:{name}", "--path", str(ROOT)]
    words += ["--input", f"x={tmp_path / 'x.npy'}", "--python", str(interpreter("torch"))]
    assert main([*words, "-o", str(folder)]) == 0


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_module_of_torch_is_judged_at_every_value(name, tmp_path, capsys, report):
    capture(tmp_path / "c", name, tmp_path)
    found = refnet.verify(tmp_path / "c")
    assert (found.counts["defect"], found.counts["unjudged"], found.unmatched) == (0, 0, ())
    assert KINDS[name] <= {one.kind for one in found.nodes}
    report.append(f"{name}: {dict(found.counts)}")
    report.extend(bilinear_by_bits(tmp_path / "c"))
    capsys.readouterr()


def bilinear_by_bits(folder: Path) -> list[str]:
    """Every bilinear value of a capture is one formula's of the menu, to the bit."""
    made = open_capture(folder)
    graph, found = refnet.load(folder / "network.onnx"), []
    for node in graph.nodes:
        if isinstance(node.op, ops.ResizeLinear) and node.op.menu and node.name in made.names:
            x, y = made.value(node.data[0]), made.value(node.name)
            equal = [name for name in node.op.menu if same_bits(node.op.replay(name, x, engine=FAST), y)]
            assert equal, node
            found.append(f"  {node.name}: {', '.join(equal)}")
    return found


def network(up: ops.Op, deep: ops.Op) -> Graph:
    """A level down, something dilated, and up again."""
    nodes = (
        Node("down", ops.Conv(8, (3, 3), (2, 2), (1, 1), bias=True), ("data", "w0", "b0")),
        Node("deep", deep, ("down", "w1")),
        Node("up", up, ("deep", "w2") if isinstance(up, ops.ConvTranspose) else ("deep",)),
        Node("last", ops.Conv(2, (1, 1)), ("up", "w3")),
    )
    graph = Graph("net", {"data": ops.TensorType((1, 3, 20, 18))}, nodes, {"last": "last"})
    return graph.with_weights(synthetic.weights(graph, 0))


DEEP = ops.Conv(8, (3, 3), pad=(2, 2), dilation=(2, 2))
TRANSPOSED = ops.ConvTranspose(8, (3, 3), (2, 2), (1, 1), (), 2, False, None, (1, 1))
LINEAR = ops.ResizeLinear((2, 3), (20, 18), (2.0, 2.0))
BUGS = {
    "up": [
        (TRANSPOSED, replace(TRANSPOSED, pad=(0, 0), pad_end=(1, 1), output_padding=())),
        (TRANSPOSED, replace(TRANSPOSED, pad=(2, 1), pad_end=(0, 1), output_padding=(1, 1))),
        (LINEAR, replace(LINEAR, coordinates="align_corners")),
        (LINEAR, replace(LINEAR, coordinates="asymmetric")),
        (LINEAR, ops.ResizeCubic((2, 3), (20, 18), (2.0, 2.0))),
        (ops.DepthToSpace(2), ops.DepthToSpace(2, True)),
    ],
    "deep": [(DEEP, replace(DEEP, pad=(1, 1), dilation=(1, 1)))],
}
"""Node -> (what it is, what a port made of it): the shape stays."""


@pytest.fixture(scope="module")
def onnx() -> Iterator[Worker]:
    """onnx and ONNX Runtime on one thread."""
    with Worker(WORKER, interpreter("onnx"), threads=1) as worker:
        yield worker


def runtime(onnx: Worker, graph: Graph, data: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Every value of the graph in ONNX Runtime, optimisations disabled."""
    proto = graph_to_onnx(graph, [node.name for node in graph.nodes])
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    asked = {"path": str(path), "engine": "onnxruntime", "threads": 1, "optimise": False}
    return dict(onnx.stream("run", asked, data))


@pytest.mark.parametrize("up", [TRANSPOSED, LINEAR, ops.DepthToSpace(2)], ids=repr)
def test_onnx_runtime_is_judged_at_every_value(onnx, up, tmp_path, report):
    graph = network(up, DEEP)
    data = {"data": floats((1, 3, 20, 18), repr(up))}
    found = refnet.verify(runtime(onnx, graph, data, tmp_path), graph, inputs=data)
    assert (found.counts["defect"], found.counts["unjudged"], found.unmatched) == (0, 0, ())
    assert len(found.nodes) == len(graph.nodes)
    report.append(f"{type(up).__name__}: {dict(found.counts)}")


@pytest.mark.parametrize(
    ("node", "k"), [(node, k) for node, cases in BUGS.items() for k in range(len(cases))]
)
def test_a_wrong_port_is_a_defect_at_its_node(onnx, node, k, tmp_path):
    """ONNX Runtime computes the wrong one; verify knows the right one, and judges all behind it as right."""
    right, wrong = BUGS[node][k]
    ported = network(wrong, DEEP) if node == "up" else network(LINEAR, wrong)
    data = {"data": floats((1, 3, 20, 18), (node, k))}
    graph = network(right, DEEP) if node == "up" else network(LINEAR, right)
    values = runtime(onnx, ported.with_weights(dict(graph.weights)), data, tmp_path)
    found = refnet.verify(values, graph, inputs=data)
    assert (found.first_defect, found.counts["defect"]) == (node, 1)


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
def test_onnx_runtimes_bilinear_is_the_products_formula(onnx, coordinates, tmp_path):
    """To the bit, with scales that are no powers of two."""
    op = ops.ResizeLinear((2, 3), (23, 5), ((23, 7), (5, 6)), coordinates)
    graph = Graph("one", {"x": ops.TensorType((1, 3, 7, 6))}, (Node("y", op, ("x",)),), {"y": "y"})
    data = {"x": floats((1, 3, 7, 6), coordinates)}
    y = runtime(onnx, graph, data, tmp_path)["y"]
    assert op.replay("products", data["x"], engine=FAST).tobytes() == y.tobytes()
    assert op.run(data["x"], engine=FAST).tobytes() != y.tobytes()
