"""Normalisations, attention and reductions: onnx's own tests, PyTorch's modules and ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import refnet
from refnet.cli import main
from refnet.core.op import Interval, TensorType
from refnet.core.orders import Choice
from refnet.formats.onnx.reader import read_onnx
from refnet.formats.onnx.reductions import RULES
from refnet.frameworks.caller import caller
from refnet.frameworks.process import Worker
from refnet.frameworks.reveal.formulas import reveal_formula
from refnet.ops import LayerNorm
from refnet.verification.capture import open_capture
from refnet.verification.judge import judge
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.judge import within_bound
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import FAST
from tests.helpers.onnx_cases import node_cases

pytestmark = pytest.mark.crosscheck

ROOT = Path(__file__).parents[2]
F = np.float32
OPERATORS = {*RULES, "Gemm", "MatMul", "ReduceMean", "ReduceSum", "Softmax"}
MODULES = {
    "Transformer": {"tokens": (2, 9, 24)},
    "Attention": {"tokens": (2, 7, 16)},
    "Groups": {"x": (2, 3, 10, 12)},
}


def node_tests() -> Iterator[tuple[str, Any, dict[str, Any], dict[str, Any]]]:
    """Of these operators and float32: name, model, inputs, outputs. Integers become constants."""
    for case in node_cases():
        if case.op not in OPERATORS:
            continue
        proto = case.model.graph
        data = {value.name: np.asarray(x) for value, x in zip(proto.input, case.inputs, strict=True)}
        outputs = {value.name: np.asarray(x) for value, x in zip(proto.output, case.outputs, strict=True)}
        for value in list(proto.input):
            array = data[value.name]
            if array.dtype == np.int64 or array.ndim == 0:
                proto.initializer.append(onnx.numpy_helper.from_array(data.pop(value.name), value.name))
                proto.input.remove(value)
        arrays = (*data.values(), *outputs.values())
        if data and all(a.dtype == F and a.size for a in arrays):
            yield case.name, case.model, data, outputs


def test_onnx_own_tests_lie_inside_and_so_does_refnet(tmp_path, report):
    """InvStdDev of a layer norm is no value of refnet's, and is named as such."""
    verdicts: Counter[str] = Counter()
    for name, model, data, outputs in node_tests():
        path = tmp_path / "one.onnx"
        path.write_bytes(model.SerializeToString())
        graph = read_onnx(path)
        for node in (graph.by_name[one] for one in outputs):
            if node.op.opaque:
                assert node.op.opaque == "LayerNormalization: refnet does not make this output"
                assert node.name == "InvStdDev"
                verdicts["further outputs"] += 1
                continue
            arguments = [data[one] for one in node.data] + [graph.weights[one] for one in node.weights]
            judged = judge(node, outputs[node.name], arguments)
            assert judged.verdict in ("equal", "replayed", "rounding"), (name, judged.reason)
            plain = node.op.run(*arguments, engine=FAST)
            within_bound(plain, node.op.bound(*map(Interval.exactly, arguments), engine=FAST))
            verdicts[judged.verdict] += 1
    report.append(f"{dict(verdicts)}")
    assert sum(verdicts.values()) - verdicts["further outputs"] >= 120
    assert verdicts["further outputs"] == 19


def capture(folder: Path, name: str, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A module of normalising_modules.py run in PyTorch on inputs that are kept beside the capture."""
    words = ["capture", "torch", f"tests.crosscheck.normalising_modules:{name}", "--path", str(ROOT)]
    for key, shape in shapes.items():
        np.save(folder / f"{key}.npy", floats(shape, (key, shape)) * F(2))
        words += ["--input", f"{key}={folder / key}.npy"]
    assert main([*words, "--python", str(interpreter("torch")), "-o", str(folder / "c")]) == 0
    return folder / "c"


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The captures of all modules that are right."""
    return {name: capture(tmp_path_factory.mktemp(name), name, MODULES[name]) for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_modules_in_pytorch_and_their_files_in_onnx_runtime(name, captured, tmp_path, capsys, report):
    words = ["capture", "onnxruntime", str(captured[name] / "network.onnx")]
    for key in MODULES[name]:
        words += ["--input", f"{key}={captured[name].parent / key}.npy"]
    assert main([*words, "--python", str(interpreter("onnx")), "-o", str(tmp_path / "ort")]) == 0
    capsys.readouterr()
    found = refnet.verify(captured[name])
    for one in (found, refnet.verify(tmp_path / "ort")):
        assert (one.counts["defect"], one.counts["unjudged"], one.unmatched) == (0, 0, ())
        judged = [n for n in one.nodes if n.verdict == "rounding"]
        shares = {n.name: n.share.largest for n in judged if n.share is not None}
        report.append(f"{name}: {dict(one.counts)}, largest {max(shares.items(), key=lambda s: s[1])}")
        assert max(shares.values()) > 1e-3
    kinds = {node.kind for node in found.nodes if node.verdict in ("equal", "replayed", "rounding")}
    wanted = {
        "Transformer": {"LayerNorm", "MatMul", "Add"},
        "Attention": {"LayerNorm", "MatMul", "Softmax", "LogSoftmax"},
        "Groups": {"InstanceNorm", "ReduceMax", "ReduceMin", "Max", "Min", "ReduceLogSumExp", "ReduceSum"},
    }
    assert kinds >= wanted[name]


def judged(folder: Path, right: Path, **changed: np.ndarray) -> refnet.Verification:
    """A capture, some of its values changed, by the graph of another one."""
    made = open_capture(folder)
    values = {one: changed.get(one, made.value(one)) for one in made.names}
    graph = refnet.load(right / "network.onnx")
    return refnet.verify(values, graph, inputs={name: made.input(name) for name in graph.inputs})


@pytest.mark.parametrize(
    ("name", "right", "at"),
    [
        ("OtherEps", "Transformer", "layer_norm_1"),
        ("Unscaled", "Transformer", "scaled_dot_product_attention"),
        ("OtherAxis", "Attention", "softmax"),
    ],
)
def test_a_planted_bug_is_found_at_its_node(name, right, at, captured, tmp_path, capsys):
    found = judged(capture(tmp_path, name, MODULES[right]), captured[right])
    assert (found.first_defect, found.exit_code) == (at, 1)
    capsys.readouterr()


def test_another_variance_and_another_mean_are_found(captured):
    """Instance norm with n - 1 in place of n; layer norm over the last axis of two."""
    made, graph = open_capture(captured["Groups"]), refnet.load(captured["Groups"] / "network.onnx")
    node = graph.by_name["instance_norm"]
    x, g, b = made.value(node.data[0]), *(graph.weights[one] for one in node.weights)
    column = (slice(None), None, None)
    d = x - x.mean((2, 3), keepdims=True)
    unbiased = d / np.sqrt(x.var((2, 3), keepdims=True, ddof=1) + F(1e-5)) * g[column] + b[column]
    found = judged(captured["Groups"], captured["Groups"], instance_norm=unbiased.astype(F))
    assert found.first_defect == "instance_norm"
    made, graph = open_capture(captured["Attention"]), refnet.load(captured["Attention"] / "network.onnx")
    node = graph.by_name["layer_norm"]
    x, (g, b) = made.input("tokens"), (graph.weights[one] for one in node.weights)
    d = x - x.mean(-1, keepdims=True)
    wrong = d / np.sqrt(x.var(-1, keepdims=True) + F(1e-5)) * g + b
    found = judged(captured["Attention"], captured["Attention"], layer_norm=wrong.astype(F))
    assert found.first_defect == "layer_norm"


@pytest.mark.parametrize("environment", [{}, {"ATEN_CPU_CAPABILITY": "avx2"}], ids=["default", "avx2"])
def test_pytorch_s_layer_norm_to_the_bit(environment):
    """PyTorch 2.13 on one thread, rows of 1 to 5,000 elements; and no other formula gives these bits."""
    with Worker("torch", interpreter("torch"), threads=1, environment=environment) as worker:
        for n in (1, 5, 8, 24, 100, 128, 136, 300, 768, 1000, 1001, 3072, 5000):
            data = {
                "x": floats((6, n), n) * F(2) + F(0.5),
                "gamma": floats((n,), "g"),
                "beta": floats((n,), "b"),
            }
            request = {"function": "layer_norm", "arguments": {"eps": 1e-5}, "threads": 1}
            theirs = worker.ask("op", request, data).arrays["y"]
            op = LayerNorm(1e-5)
            assert same_bits(op.replay("merged-fused", *data.values(), engine=FAST), theirs), n
            assert n < 100 or not same_bits(op.run(*data.values(), engine=FAST), theirs)
        op = LayerNorm(1e-5, 2, True, ((300,), (300,)))
        types = [TensorType(shape) for shape in ((1, 5, 300), (300,), (300,))]
        recipe = reveal_formula(op, types, caller("torch", worker, op, types, 1))
        assert [part.do for part in recipe.parts] == [Choice("merged-fused")]


def test_captured_layer_norms_to_the_bit(captured):
    """Every layer norm of the transformer and the attention, on PyTorch's own inputs to it."""
    count = 0
    for name in ("Transformer", "Attention"):
        made, graph = open_capture(captured[name]), refnet.load(captured[name] / "network.onnx")
        for node in graph.nodes:
            if isinstance(node.op, LayerNorm):
                x = made.input("tokens") if node.data[0] in graph.inputs else made.value(node.data[0])
                weights = [graph.weights[one] for one in node.weights]
                found = node.op.replay("merged-fused", x, *weights, engine=FAST)
                assert same_bits(found, made.value(node.name)), (name, node.name)
                count += 1
    assert count == 4
