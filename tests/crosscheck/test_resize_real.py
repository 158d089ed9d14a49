"""Nearest resize on ties: ONNX Runtime, onnx.reference and PyTorch take the exact place or one formula's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx as package
import pytest
from onnx import helper

from refnet.core.graph import Node
from refnet.formats.onnx.reader import read_onnx
from refnet.formats.onnx.window import shortest
from refnet.frameworks import process
from refnet.frameworks.process import Worker
from refnet.ops import ResizeNearest
from refnet.ops.places import COORDINATES, ROUNDINGS
from refnet.verification.judge import judge
from tests.crosscheck.conftest import interpreter

pytestmark = pytest.mark.crosscheck

WORKER = Path(process.__file__).with_name("onnx_worker.py")
TIES = [
    (14, 8),
    (14, 9),
    (20, 6),
    (26, 64),
    (42, 48),
    (56, 32),
    (40, 12),
    (88, 52),
    (29, 29),
    (45, 27),
    (2, 82),
]


@pytest.fixture(scope="module")
def onnx() -> Iterator[Worker]:
    """onnx and ONNX Runtime on one thread."""
    with Worker(WORKER, interpreter("onnx"), threads=1) as worker:
        yield worker


def ties(folder: Path, coordinates: str, by: str) -> Path:
    """A file with a Resize for each tie and rounding; value h_size_rounding is of input x_h."""
    nodes, inputs, outputs, held = [], {}, [], []
    for h, size in TIES:
        inputs[f"x{h}"] = helper.make_tensor_value_info(f"x{h}", package.TensorProto.FLOAT, [1, 1, 1, h])
        made: np.ndarray = np.array([1, 1, 1, size], np.int64)
        if by == "scales":
            scale = size / h if size != h else 1.03
            made = np.array([1, 1, 1, scale], np.float32)
        held.append(package.numpy_helper.from_array(made, f"c{h}_{size}"))
        held.append(
            package.numpy_helper.from_array(np.array([0, 0, 0, -0.1, 1, 1, 1, 1], np.float32), f"r{h}")
        )
        for rounding in ROUNDINGS:
            name = f"y{h}_{size}_{rounding}"
            roi = f"r{h}" if coordinates == "tf_crop_and_resize" else ""
            given = [f"x{h}", roi, *(["", f"c{h}_{size}"] if by == "sizes" else [f"c{h}_{size}"])]
            how = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
            nodes.append(helper.make_node("Resize", given, [name], mode="nearest", **how))
            outputs.append(helper.make_tensor_value_info(name, package.TensorProto.FLOAT, None))
    unique = {one.name: one for one in held}
    graph = helper.make_graph(nodes, "ties", [*inputs.values()], outputs, [*unique.values()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    path = folder / "ties.onnx"
    package.save(model, path)
    return path


@pytest.mark.parametrize("by", ["sizes", "scales"])
@pytest.mark.parametrize("engine", ["onnxruntime", "reference"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_onnx_takes_the_exact_place_or_one_formulas(
    onnx: Worker, coordinates: str, engine: str, by: str, tmp_path: Path, report: list[str]
) -> None:
    if (engine, coordinates) == ("reference", "tf_half_pixel_for_nn"):
        return  # it refuses this mode
    path = ties(tmp_path, coordinates, by)
    data = {f"x{h}": np.arange(h, dtype=np.float32).reshape(1, 1, 1, h) for h, _ in TIES}
    found = dict(
        onnx.stream("run", {"path": str(path), "engine": engine, "threads": 1, "optimise": False}, data)
    )
    graph = read_onnx(path)
    verdicts: Counter[str] = Counter()
    mine = "divided-tolerant" if engine == "onnxruntime" else "reference"
    for node in graph.nodes:
        value = found[node.name]
        shape = node.op.type(graph.inputs[node.data[0]]).shape
        if value.shape != shape:  # the reference rounds a new length in float64
            assert (engine, by) == ("reference", "scales"), node.name
            continue
        judged = judge(node, value, [data[node.data[0]]])
        verdicts[judged.verdict] += 1
        if (engine, coordinates, shape[3]) == ("onnxruntime", "tf_crop_and_resize", 29):
            assert judged.verdict == "defect"  # it copies what has the shape of the value, not the region
            continue
        assert judged.verdict in ("equal", "replayed"), (node.name, judged.reason)
        if isinstance(node.op, ResizeNearest):
            assert (node.op.take(data[node.data[0]], 0.0, mine) == value).all(), node.name
    report.append(f"{engine} {coordinates} {by}: {dict(verdicts)}")


@pytest.mark.parametrize("rank", [3, 4])
def test_pytorch_takes_the_exact_place_or_one_formulas(torch: Worker, rank: int, report: list[str]) -> None:
    verdicts: Counter[str] = Counter()
    for h, size in TIES:
        x = np.arange(h, dtype=np.float32).reshape(1, 1, h, *[1] * (rank - 3))
        for by, scale in (("sizes", None), ("scales", size / h), ("scales", 1.7)):
            to = (
                {"size": [size, *[1] * (rank - 3)]}
                if scale is None
                else {"scale_factor": [scale, *[1.0] * (rank - 3)]}
            )
            request = {"function": "upsample_nearest", "arguments": to, "threads": 1}
            y = np.ascontiguousarray(torch.ask("op", request, {"x": x}).arrays["y"])
            length = y.shape[2]
            known = shortest(Fraction(length, h)) if scale is None else float(np.float32(scale))
            op = ResizeNearest((2,), (length,), (known,), "asymmetric", "floor")
            judged = judge(Node("y", op, ("x",)), y, [x])
            verdicts[judged.verdict] += 1
            assert judged.verdict in ("equal", "replayed"), (h, size, by, scale, judged.reason)
    assert verdicts["replayed"]
    report.append(f"rank {rank}: {dict(verdicts)}")
