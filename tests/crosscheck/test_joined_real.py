"""MXNet's default executor, which joins nodes: asked, revealed, replayed and verified live."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.arithmetic.fusion_groups import hidden
from refnet.arithmetic.replay import Replay
from refnet.cli import main
from refnet.core.bits import equal_bits
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.orders import Joined
from refnet.formats.book import read, write
from refnet.formats.mxnet.reader import write_params, write_symbol
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import planned
from refnet.frameworks.reveal.network import reveal
from refnet.models.synthetic import weights
from refnet.verification.capture import open_capture
from refnet.verification.verify import verify_values
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.controls import controls, line

pytestmark = pytest.mark.crosscheck

DIGITS = "octave-se-resnet-digits"


def norm(name: str, data: str, fix_gamma: bool = False) -> Node:
    parts = (f"{name}_{part}" for part in ("gamma", "beta", "moving_mean", "moving_var"))
    return Node(name, ops.BatchNorm(1e-3, fix_gamma), (data, *parts))


def many_kinds() -> Graph:
    """Groups of every kind: with a bias, a fixed gamma, grouped, depthwise, of four, with each activation."""
    grouped = ops.Conv(32, (3, 3), pad=(1, 1), groups=4)
    depthwise = ops.Conv(32, (3, 3), pad=(1, 1), groups=32)
    nodes = (
        Node("c1", ops.Conv(32, (3, 3), pad=(1, 1), bias=True), ("data", "c1_weight", "c1_bias")),
        norm("n1", "c1"),
        Node("r1", ops.Relu(), ("n1",)),
        Node("c2", ops.Conv(32, (1, 1)), ("r1", "c2_weight")),
        norm("n2", "c2", fix_gamma=True),
        Node("s2", ops.Add(2), ("n2", "r1")),
        Node("r2", ops.Relu(), ("s2",)),
        Node("c3", grouped, ("r2", "c3_weight")),
        norm("n3", "c3"),
        Node("c4", depthwise, ("n3", "c4_weight")),
        norm("n4", "c4"),
        Node("r4", ops.Relu(), ("n4",)),
        Node("c5", ops.Conv(24, (3, 3), (2, 2), (1, 1), bias=True), ("r4", "c5_weight", "c5_bias")),
        Node("r5", ops.Relu(), ("c5",)),
        Node("c6", ops.Conv(24, (5, 5), pad=(2, 2)), ("r5", "c6_weight")),
        Node("s6", ops.Add(2), ("r5", "c6")),
        Node("p", ops.GlobalAvgPool(), ("s6",)),
        Node("f1", ops.Dense(40), ("p", "f1_weight", "f1_bias")),
        Node("a1", ops.Sigmoid(), ("f1",)),
        Node("f2", ops.Dense(10), ("a1", "f2_weight", "f2_bias")),
        Node("softmax", ops.Softmax(), ("f2",)),
    )
    graph = Graph("kinds", {"data": TensorType((1, 3, 20, 23))}, nodes, {"prob": "softmax"})
    return graph.with_weights(weights(graph, 5))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Graph]:
    """The network as files, and the request that names them."""
    folder, graph = tmp_path_factory.mktemp("kinds"), many_kinds()
    symbol, params = folder / "net-symbol.json", folder / "net-0000.params"
    write_symbol(symbol, graph)
    write_params(params, graph.weights, graph.statistics())
    more = {"weights": str(params), "image": (20, 23), "python": str(interpreter("mxnet"))}
    return Request("mxnet", str(symbol), subgraph="default", **more), graph


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (2, 3)])
def test_every_kind_of_group(kinds: tuple[Request, Graph], threads: int, batch: int, tmp_path: Path) -> None:
    request = replace(kinds[0], threads=threads, batch=batch)
    graph = refnet.load(request.model, weights=request.weights, image=request.image)
    found = reveal(request, tmp_path / "book.json")
    book = found.book
    assert not book.unconfirmed
    assert book.joined is not None
    groups = set(book.joined.groups)
    assert {("c1", "n1", "r1"), ("f1", "a1"), ("c5", "r5")} <= groups
    assert any("s2" in names for names in groups)
    assert any("s6" in names for names in groups)
    with planned(replace(request, input=("seed:9",))) as plan:
        theirs = {name: np.array(value) for name, value in plan.values()}
        inputs = dict(plan.inputs)
    own = {node.name: value for node, value in refnet.steps(graph, inputs, Replay(book))}
    assert set(own) - hidden(book.joined) == set(theirs)
    wrong = [n for n in theirs if not equal_bits(own[n], theirs[n].reshape(own[n].shape)).all()]
    assert wrong == []
    # the control: another fold
    other = replace(book, joined=Joined(book.joined.groups, "single"))
    again = {node.name: value for node, value in refnet.steps(graph, inputs, Replay(other))}
    assert not equal_bits(again["r1"], theirs["r1"].reshape(again["r1"].shape)).all()


@pytest.mark.parametrize(
    ("low", "formula", "subgraph"),
    [(0.0, "drops", "default"), (0.0, "drops", "NONE"), (-1.0, None, "default")],
)
def test_a_clip_of_minus_zero_and_nan(low: float, formula: str | None, subgraph: str, tmp_path: Path) -> None:
    """Joined with a convolution a clip from 0 on is oneDNN's bounded relu; from -1 on it is not joined."""
    nodes = (Node("c", ops.Conv(2, (1, 1)), ("data", "w")), Node("y", ops.Clip(low, 6.0), ("c",)))
    graph = Graph("g", {"data": TensorType((1, 1, 32, 32))}, nodes, {"y": "y"})
    graph = graph.with_weights({"w": np.float32([1e-30, 1]).reshape(2, 1, 1, 1)})
    symbol, params = tmp_path / "net-symbol.json", tmp_path / "net-0000.params"
    write_symbol(symbol, graph)
    write_params(params, graph.weights, graph.statistics())
    x = np.random.default_rng(4).normal(0, 5, (1, 1, 32, 32)).astype(np.float32)
    x[0, 0, 3, :8] = [-1e-30, np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, -1e-40]
    np.save(tmp_path / "x.npy", x)
    more = {"weights": str(params), "image": (32, 32), "python": str(interpreter("mxnet"))}
    request = Request("mxnet", str(symbol), subgraph=subgraph, **more)
    book = reveal(request, tmp_path / "book.json").book
    assert not book.unconfirmed
    chosen = {
        part.do.formula for key, one in book.recipes.items() if key.startswith("Clip") for part in one.parts
    }
    joined = book.joined is not None and bool(book.joined.groups)
    assert joined == (formula is not None and subgraph == "default")
    assert chosen == ({formula if joined else "keeps"} if formula is not None else set())
    with planned(replace(request, input=(str(tmp_path / "x.npy"),))) as plan:
        theirs = {name: np.array(value) for name, value in plan.values()}
    own = {node.name: value for node, value in refnet.steps(graph, {"data": x}, Replay(book))}
    assert equal_bits(own["y"], theirs["y"]).all()
    found = theirs["y"][0, 0, 3, :2]  # of -1e-60, which is -0, and of NaN
    if formula is None:
        assert np.signbit(found[0])
        assert np.isnan(found[1])
    else:
        assert np.signbit(found[0]) == (not joined)
        assert np.isnan(found[1]) == (not joined)


@pytest.mark.parametrize("outputs", [("r", "n"), ("n", "r")])
def test_outputs_that_the_executor_gets_wrong_are_not_confirmed(outputs, tmp_path: Path) -> None:
    """With a batch norm as an output before its relu, MXNet 1.9.1 returns one's value for the other."""
    nodes = (Node("c", ops.Conv(8, (3, 3), pad=(1, 1)), ("data", "w")), norm("n", "c"))
    nodes = (*nodes, Node("r", ops.Relu(), ("n",)))
    graph = Graph("g", {"data": TensorType((1, 4, 9, 9))}, nodes, {name: name for name in outputs})
    graph = graph.with_weights(weights(graph, 3))
    symbol, params = tmp_path / "net-symbol.json", tmp_path / "net-0000.params"
    write_symbol(symbol, graph)
    write_params(params, graph.weights, graph.statistics())
    more = {"weights": str(params), "image": (9, 9), "python": str(interpreter("mxnet"))}
    request = Request("mxnet", str(symbol), subgraph="default", **more)
    if outputs[0] == "r":  # all three are joined
        with pytest.raises(InputError, match="is n, which is joined with what follows"):
            reveal(request, tmp_path / "book.json")
        return
    found = reveal(request, tmp_path / "book.json").book
    assert [(one.nodes, one.reason) for one in found.unconfirmed] == [
        (("r",), "the framework did not show the value or its inputs")
    ]


def test_the_executor_is_asked_what_it_joins(kinds: tuple[Request, Graph]) -> None:
    with planned(kinds[0]) as plan:
        assert plan.joined is not None
        groups = plan.joined()
        values = [name for name, _ in plan.values()]
    inner = {name for names in groups for name in names[:-1]}
    assert len(groups) >= 6
    assert set(values) == set(kinds[1].by_name) - inner  # each under its own name, the last of a group too
    with planned(replace(kinds[0], subgraph="NONE")) as plan:
        assert plan.joined is None


def test_a_capture_of_joined_nodes_is_verified_to_the_bit(tmp_path: Path, report: list[str]) -> None:
    """By the command line: reveal, capture other inputs, verify; one value spoiled is seen."""
    book, folder = tmp_path / "book.json", tmp_path / "capture"
    python = ["--python", str(interpreter("mxnet")), "--subgraph", "default"]
    assert main(["reveal", "mxnet", DIGITS, *python, "-o", str(book)]) == 0
    capture = ["capture", "mxnet", DIGITS, *python, "--input", "seed:31", "-o", str(folder)]
    assert main(capture) == 0
    assert main(["verify", str(folder), "--model", DIGITS, "--book", str(book)]) == 0
    graph, known = refnet.load(DIGITS), read(book)
    found = verify_values(graph, open_capture(folder), replay=Replay(known))
    assert known.joined is not None
    missing = {one.name for one in found.nodes if one.verdict == "missing"}
    assert missing == hidden(known.joined)
    assert found.counts["rounding"] == found.counts["unjudged"] == found.counts["defect"] == 0
    without = verify_values(graph, open_capture(folder))
    assert without.counts["rounding"] > 30
    assert without.counts["defect"] == without.counts["unjudged"] == 0
    report.append(f"{found.counts} with the book, {without.counts} without")
    hashes = tmp_path / "hashes"
    assert main([*capture[:-1], str(hashes), "--hash-only"]) == 0
    assert verify_values(graph, open_capture(hashes), replay=Replay(known)).counts == found.counts
    # the control: a book without the joined convolutions
    sums = {k: r for k, r in known.recipes.items() if not k.startswith("ConvAdd")}
    write(tmp_path / "less.json", replace(known, recipes=sums, evidence={}, nodes={}))
    less = verify_values(graph, open_capture(folder), replay=Replay(read(tmp_path / "less.json")))
    assert less.counts["rounding"] > 0
    # every recipe that rounds, replaced, changes the output, but of dense layers behind a relu that passes
    # one number on or none: these have one order
    said = controls(graph, known, ("normal 1", "normal 2", "8-bit pixels", "checkerboard", "NaN"))
    report.append(line("digits", said))
    assert sum(one.rounds for one in said) > 100
    assert {one.key.partition("(")[0] for one in said if one.rounds and not one.by} <= {"Dense"}
