"""A book on the command line: run and bench take it, its recipes are shown."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

import refnet
from refnet.arithmetic.replay import Replay
from refnet.cli import main
from refnet.cli.recipes import show_recipes
from refnet.core.errors import InputError
from refnet.core.orders import (
    Book,
    Choice,
    Evidence,
    Leaf,
    Part,
    Recipe,
    Reference,
    Sum,
    Unconfirmed,
    signature,
)
from refnet.formats.book import write
from refnet.models.weights import shipped_folder
from refnet.ops import AvgPool, Conv, Dense, GlobalAvgPool
from tests.helpers.bits import same_bits
from tests.helpers.recipes import recipe, split

NAME = "resnest-digits"
DIGITS = sorted((shipped_folder() / "digits").glob("*.png"))[:2]


def book_of(graph, batch: int = 1, chains: int = 7) -> Book:
    """Plain's formulas and chains of so many terms: a book that no framework wrote."""
    types = graph.types({n: type(t)((batch, *t.shape[1:])) for n, t in graph.inputs.items()})
    recipes = {}
    for node in graph.nodes:
        inputs = [types[name] for name in node.inputs]
        key, op = signature(node.op, inputs), node.op
        if isinstance(op, Conv | Dense):
            terms = inputs[1].size // inputs[1].shape[0]
            tree = split(terms, chains)
            recipes[key] = recipe(Sum((tree, Leaf.BIAS)) if op.bias else tree)
        elif isinstance(op, GlobalAvgPool):
            recipes[key] = recipe(split(inputs[0].shape[2] * inputs[0].shape[3], chains), finish="reciprocal")
        elif isinstance(op, AvgPool):
            recipes[key] = recipe(split(op.kernel[0] * op.kernel[1], chains), finish="divide")
        elif op.needs_recipe:
            formula = "sleef-divide" if "sleef-divide" in op.formulas else next(iter(op.formulas))
            recipes[key] = Recipe((Part(Choice(formula)),))
    reference = Reference("torch", "2.13.0", "cpu", "avx2", 1, batch, "eager")
    evidence = {key: Evidence(2, 1000) for key in recipes}
    return Book(reference, recipes, evidence, (Unconfirmed("Gone()(x)", ("gone",), "no order was found"),))


@pytest.fixture(scope="module")
def graph():
    return refnet.load(NAME)


@pytest.fixture
def path(tmp_path, graph):
    write(tmp_path / "a.book.json", book_of(graph))
    return tmp_path / "a.book.json"


def test_run_replays_a_book(path, graph, capsys):
    images = [str(p) for p in DIGITS]
    output = path.parent / "y.npy"
    argv = ["run", NAME, *images, "--arithmetic", f"replay:{path}", "--output", str(output), "--json"]
    assert main(argv) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["arithmetic"] == "replay of torch 2.13.0"
    assert said["reference"]["batch"] == 1
    replayed = np.load(output)
    main(["run", NAME, *images, "--output", str(output), "--json"])
    capsys.readouterr()
    plain = np.load(output)
    assert not same_bits(replayed, plain)
    assert np.allclose(replayed, plain, atol=1e-5)


def test_a_book_is_true_of_one_batch(path, capsys):
    images = [str(p) for p in DIGITS]
    assert main(["run", NAME, *images, "--arithmetic", f"replay:{path}", "--batch", "2"]) == 2
    assert "it is true of batch 1, this is batch 2" in capsys.readouterr().err
    assert main(["run", NAME, *images, "--arithmetic", "replay:absent.json"]) == 2
    assert "absent.json: cannot be read" in capsys.readouterr().err
    assert main(["run", NAME, *images, "--arithmetic", "exact"]) == 2
    assert "plain, golden or replay:BOOK, got 'exact'" in capsys.readouterr().err
    assert main(["bench", NAME, "--against", "none", "--profile", "--arithmetic", "replay:absent.json"]) == 2
    assert "absent.json: cannot be read" in capsys.readouterr().err


def test_threads_and_values_change_no_bit(graph):
    x = np.linspace(-1, 1, 1024, dtype=np.float32).reshape(1, 1, 32, 32)
    book = book_of(graph)
    one = {n.name: v.copy() for n, v in refnet.steps(graph, {"data": x}, Replay(book, 1))}
    three = {n.name: v.copy() for n, v in refnet.steps(graph, {"data": x}, Replay(book, 3))}
    assert all(same_bits(one[name], three[name]) for name in one)
    whole = refnet.run(graph, {"data": x}, Replay(book, 2))
    assert same_bits(whole["prob"], one[graph.outputs["prob"]])


def test_each_recipe_counts(graph):
    """Any one convolution of the book replaced by plain's order: the values of its nodes differ."""
    x = np.random.default_rng(0).standard_normal((1, 1, 32, 32), np.float32)
    book, plain = book_of(graph), book_of(graph, chains=1 << 20)
    convolutions = [key for key in book.recipes if key.startswith("Conv(")]
    changed = [key for key in convolutions if book.recipes[key] != plain.recipes[key]]
    types = graph.types()
    keys = {n.name: signature(n.op, [types[i] for i in n.inputs]) for n in graph.nodes}
    right = {node.name: value.copy() for node, value in refnet.steps(graph, {"data": x}, Replay(book))}
    assert changed
    for key in changed:
        other = Replay(Book(book.reference, {**book.recipes, key: plain.recipes[key]}))
        parted = [
            n.name for n, v in refnet.steps(graph, {"data": x}, other) if not same_bits(v, right[n.name])
        ]
        assert keys[parted[0]] == key


def test_a_missing_recipe_is_an_error_also_where_only_zeros_and_nan_differ(graph, tmp_path):
    """Frameworks' relus differ in what they make of NaN: plain's own would be somebody else's bits."""
    x = {"data": np.full((1, 1, 32, 32), np.nan, np.float32)}
    book = book_of(graph)
    for op in ("Relu", "MaxPool"):
        kept = {key: one for key, one in book.recipes.items() if not key.startswith(op)}
        if len(kept) == len(book.recipes):
            continue
        less = Book(book.reference, kept)
        with pytest.raises(InputError, match=rf"no recipe for .* = {op}"):
            refnet.run(graph, x, Replay(less))
        write(tmp_path / "less.json", less)
        node = next(n.name for n in graph.nodes if type(n.op).__name__ == op)
        with pytest.raises(InputError, match="no recipe for"):
            show_recipes(tmp_path / "less.json", node, graph=graph)


@pytest.mark.parametrize(("op", "terms"), [("Softmax", 7), ("Relu", 10), ("Sigmoid", 3)])
def test_a_sum_that_the_op_does_not_have(graph, op, terms):
    from refnet.core.orders import Chain, Order

    book = book_of(graph)
    total = Chain(Leaf.ZERO, Order.of(range(terms)))
    x = np.zeros((1, 1, 32, 32), np.float32)
    nodes = [n for n in graph.nodes if type(n.op).__name__ == op]
    keys = [key for key in book.recipes if key.startswith(f"{op}(")]
    assert bool(nodes) == bool(keys)
    for key in keys:
        formula = book.recipes[key].parts[0].do.formula
        wrong = {**book.recipes, key: Recipe((Part(Choice(formula, total)),))}
        with pytest.raises(InputError, match="does not fit"):
            refnet.run(graph, {"data": x}, Replay(Book(book.reference, wrong)))


def test_one_replay_serves_several_graphs(graph):
    """Nodes of one name, but of two graphs, do not take each other's plans."""
    x = np.linspace(-1, 1, 1024, dtype=np.float32).reshape(1, 1, 32, 32)
    other = refnet.load(NAME)
    arithmetic = Replay(book_of(graph))
    first = refnet.run(graph, {"data": x}, arithmetic)["prob"]
    assert same_bits(refnet.run(other, {"data": x}, arithmetic)["prob"], first)
    assert same_bits(refnet.run(graph, {"data": x}, arithmetic)["prob"], first)


def test_a_recipe_is_shown_and_drawn(path, graph, capsys):
    node = next(n for n in graph.nodes if isinstance(n.op, Conv) and n.op.kernel == (3, 3))
    picture = path.parent / "a.svg"
    show_recipes(path, node.name, picture, graph=graph)
    out = capsys.readouterr().out
    assert "torch 2.13.0, eager, avx2" in out
    assert "chains of 7 terms" in out
    assert "confirmed on 1000 elements of 2 captures" in out
    root = ElementTree.fromstring(picture.read_text())
    terms = 9 * graph.types()[node.inputs[0]].shape[1] // node.op.groups
    rects = [e for e in root.iter() if e.tag.endswith("rect")]
    assert len(rects) == -(-terms // 7)
    show_recipes(path, node.name, as_json=True, graph=graph)
    said = json.loads(capsys.readouterr().out)
    assert said["recipes"][0]["recipe"][0]["sum"][0] == "add"


def test_what_cannot_be_shown_is_said(path, graph):
    flat = next(n.name for n in graph.nodes if not n.op.needs_recipe)
    for node, model, said in [
        (flat, graph, "one right result"),
        ("nothing", graph, "no recipe whose name or key contains"),
        ("gone", None, "no order was found"),
    ]:
        with pytest.raises(InputError, match=said):
            show_recipes(path, node, graph=model)
    with pytest.raises(InputError, match=r"matches .* recipes of"):
        show_recipes(path, "Conv", path.parent / "b.svg")
    assert not (path.parent / "b.svg").exists()


def test_reveal_shows_a_recipe(path, graph, capsys):
    node = next(n for n in graph.nodes if isinstance(n.op, Conv))
    picture = path.parent / "c.svg"
    assert main(["reveal", "--show", node.name, NAME, "--book", str(path), "-o", str(picture)]) == 0
    assert "chains of 7 terms" in capsys.readouterr().out
    assert picture.read_text().startswith("<svg")
    assert main(["reveal", "--show", "Dense", "--book", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"][0]["key"].startswith("Dense(")
    for argv, said in [
        (["--show", "x"], "needs --book"),
        (["--book", str(path)], "is only for --show"),
        ([], "needs FRAMEWORK"),
        (["keras", NAME, "-o", "b.json"], "needs FRAMEWORK"),
        (["torch", NAME], "needs FRAMEWORK"),
    ]:
        assert main(["reveal", *argv]) == 2
        assert said in capsys.readouterr().err
