"""Books of the real frameworks: what they reveal gives their bits, on inputs that no recipe was chosen by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.arithmetic.replay import Replay
from refnet.arithmetic.run import run
from refnet.cli import main
from refnet.core.bits import equal_bits
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, TensorType
from refnet.core.orders import Book, Part, Recipe
from refnet.formats.book import read
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import planned
from refnet.frameworks.reveal.network import signatures
from refnet.models.loading import load
from refnet.ops import Conv, Dense
from tests.crosscheck.conftest import ROOT, interpreter

pytestmark = pytest.mark.crosscheck

TORCH_DIGITS = ("torch", "resnest-digits", 1, 1, {})
DIGITS = [
    TORCH_DIGITS,
    ("torch", "resnest-digits", 2, 4, {}),
    ("mxnet", "octave-se-resnet-digits", 1, 1, {}),
    ("mxnet", "octave-se-resnet-digits", 1, 4, {"DNNL_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}),
    ("onnxruntime", "resnest-digits", 1, 1, {}),
    ("torch", "resnest-digits", 1, 1, {"ONEDNN_MAX_CPU_ISA": "AVX", "MKL_CBWR": "COMPATIBLE"}),
]
WHOLE = [
    ("torch", "resnest-50-pytorch", 1, 1, {}),
    ("mxnet", "octave-se-resnet-50-0.125", 1, 1, {}),
    ("onnxruntime", "resnest-50-pytorch", 1, 1, {}),
]
"""Framework, network, threads, batch, environment."""


def request_of(case) -> Request:
    framework, model, threads, batch, environment = case
    python = str(interpreter("onnx" if framework == "onnxruntime" else framework))
    known = {"threads": threads, "batch": batch, "python": python, "environment": environment}
    if (framework, model) == ("torch", "resnest-digits"):
        known |= {"network": model, "state": str(ROOT / "weights/resnest-digits.pth")}
        return Request(
            framework, "digits_torch:network", paths=(str(ROOT / "weights" / "training"),), **known
        )
    weights = None if "digits" in model else "seed:0"
    return Request(framework, model, weights=weights, **known)


def command(case, book: Path) -> list[str]:
    request = request_of(case)
    words = ["reveal", request.framework, request.model, "-o", str(book), "--python", request.python or ""]
    words += ["--threads", str(request.threads), "--batch", str(request.batch)]
    words += [w for name, value in request.environment.items() for w in ("--environment", f"{name}={value}")]
    words += ["--weights", request.weights] if request.weights else []
    words += ["--state", request.state or "", "--model", request.network or ""] if request.state else []
    return words + [w for path in request.paths for w in ("--path", path)]


def graph_of(case) -> Graph:
    return load(case[1], weights=None if "digits" in case[1] else "seed:0")


def values_of(case, source: str) -> tuple[dict[str, F32], dict[str, F32]]:
    """(inputs, every value) of the framework."""
    with planned(replace(request_of(case), input=(source,))) as plan:
        return dict(plan.inputs), {name: np.asarray(value) for name, value in plan.values()}


def differing(graph: Graph, book: Book, inputs, theirs) -> list[str]:
    """The nodes whose own values, in replay, are not the framework's."""
    wrong = []
    for node, value in refnet.steps(graph, inputs, Replay(book)):
        if node.name in theirs and not equal_bits(value, theirs[node.name].reshape(value.shape)).all():
            wrong.append(node.name)
    return wrong


@pytest.fixture(scope="module")
def revealed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """The book of a case, which is revealed once."""
    folder, known = tmp_path_factory.mktemp("books"), {}

    def book(case: Any) -> Path:
        if repr(case) not in known:
            path = folder / f"{len(known)}.json"
            assert main(command(case, path)) == 0
            known[repr(case)] = path
        return known[repr(case)]

    return book


@pytest.mark.parametrize("case", [*DIGITS, *WHOLE], ids=lambda case: "-".join(map(str, case[:4])))
def test_a_revealed_network_has_the_frameworks_bits(case, revealed, report: list[str]) -> None:
    path = revealed(case)
    book, graph = read(path), graph_of(case)
    assert not book.unconfirmed
    assert not Path(f"{path}.partial").exists()
    inputs, theirs = values_of(case, "seed:77")
    assert differing(graph, book, inputs, theirs) == []
    shown = sum(node.name in theirs for node in graph.nodes)
    report.append(f"{shown} of {len(graph.nodes)} values are the framework's; {path.stat().st_size} bytes")
    assert shown >= len(graph.nodes) - 1
    assert path.stat().st_size < 300_000


def test_each_recipe_matters(revealed, report: list[str]) -> None:
    """Each sum's recipe in turn is replaced by refnet's own order: values differ, so the check can fail."""
    from refnet.core.orders import Chain, Leaf, Order, Program, Sum

    book, graph = read(revealed(TORCH_DIGITS)), graph_of(TORCH_DIGITS)
    inputs, theirs = values_of(TORCH_DIGITS, "seed:77")
    same = []
    tried = 0
    for key, asked in signatures(graph, 1).items():
        if not isinstance(asked.op, Conv | Dense):
            continue
        terms = TensorType(asked.types[1].shape[1:]).size
        backwards = Chain(Leaf.ZERO, Order.of(range(terms - 1, -1, -1)))
        other = Program(Sum((backwards, Leaf.BIAS)) if asked.op.bias else backwards)
        changed = replace(book, recipes={**book.recipes, key: Recipe((Part(other),))})
        tried += 1
        if not differing(graph, changed, inputs, theirs):
            same.append(key)
    report.append(f"{tried} recipes turned round, {len(same)} without effect: {same}")
    assert not same


def test_an_interrupted_reveal_goes_on(revealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from refnet.frameworks.reveal import network

    path = tmp_path / "book.json"
    calls = []
    ask = network._ask

    def stopping(op, types, call, threads):
        calls.append((op, types))
        if len(calls) == 12:
            raise KeyboardInterrupt
        return ask(op, types, call, threads)

    monkeypatch.setattr(network, "_ask", stopping)
    assert main(command(TORCH_DIGITS, path)) == 130
    assert not path.exists()
    assert len(read(f"{path}.partial").recipes) == 11
    assert main(command(TORCH_DIGITS, path)) == 0
    asked = [(repr(op), tuple(types)) for op, types in calls]
    assert asked[11] == asked[12]  # the one that was cut is asked twice, and no other
    assert len(set(asked)) == len(asked) - 1 > 40
    assert path.read_bytes() == revealed(TORCH_DIGITS).read_bytes()  # deterministic, interrupted or not


def test_a_book_replays_the_whole_network_alone(revealed) -> None:
    case = DIGITS[2]
    path = revealed(case)
    inputs, theirs = values_of(case, "seed:5")
    graph = graph_of(case)
    own = run(graph, inputs, Replay(read(path)))
    (name, node) = next(iter(graph.outputs.items()))
    assert equal_bits(own[name], theirs[node].reshape(own[name].shape)).all()
    other = Node(graph.nodes[0].name, graph.nodes[0].op, graph.nodes[0].inputs)
    wrong = np.zeros((2, *graph.inputs["data"].shape[1:]), np.float32)
    with pytest.raises(refnet.core.errors.InputError, match="batch"):
        Replay(read(path)).evaluate(other, wrong, graph.weights[other.weights[0]])
