"""Computes refnet/learn/settings.json: chapter 7's three settings of MXNet, by their books.

python -m tests.learn.settings writes the file. tests/learn/test_learn.py computes it again and compares.
The books of one thread ship with refnet. The others, and the hashes of MXNet's own values in these settings,
stand in tests/learn/frameworks, whose README says how they were made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import refnet
from refnet.arithmetic.fusion_groups import hidden
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Interval
from refnet.core.orders import Book, signature
from refnet.formats import book as book_file
from refnet.formats.golden_file import digest
from refnet.learn.networks import SHIPPED, recipe_fact, weight
from refnet.models import synthetic
from refnet.models.loading import structure
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from refnet.verification.difference import ulps
from refnet.verification.propagate import AbstractValue, known, propagate
from tests.helpers.engines import FAST
from tests.learn.facts import DIGIT, computed, float_fact

FILE = Path(__file__).parents[2] / "refnet" / "learn" / "settings.json"
MADE = Path(__file__).parent / "frameworks"
NETWORK = SHIPPED[0].name
SAMPLE = "1700-label-5.png"
"""The image of all captures."""
CAPTURES = shipped_folder() / "captures"


class Setting(NamedTuple):
    """How MXNet was run: its book, and a capture of it, which may be hashes only."""

    key: str
    title: str
    book: Path
    capture: Path


SETTINGS = (
    Setting("one", "1 thread", shipped_folder() / "books" / f"{NETWORK}.json", CAPTURES / NETWORK),
    Setting("two", "2 threads", MADE / "mxnet-threads-2.json", MADE / "mxnet-threads-2"),
    Setting("joined", "1 thread, operations joined", MADE / "mxnet-joined.json", MADE / "mxnet-joined"),
)


class Shown(NamedTuple):
    """A value of the chapter: the convolution `conv` alone, or with what follows it ("add", "norm")."""

    node: str
    conv: str
    kind: str
    setting: str


SHOWN = (
    Shown("L3_B01_conv2_conv-h", "L3_B01_conv2_conv-h2h", "add", "joined"),
    Shown("L4_B01_conv2_conv-h", "L4_B01_conv2_conv-h2h", "add", "joined"),
    Shown("L2_B01_conv2_bn-h", "L2_B01_conv1_conv-h2h", "norm", "joined"),
)
"""Each in the setting "one", and in another one in which it has other bits."""
LABELS = {
    "add": ("convolution and addition", "1 thread, both in one operation"),
    "norm": ("convolution and batch norm", "1 thread, the batch norm folded"),
    "alone": ("a convolution of ResNeSt-50", "2 threads"),
}
"""What a value is, and what the other setting is called."""

LARGE = "resnest-50-pytorch"
THREADS = "layer2.1.conv1"
"""Of LARGE: a node that PyTorch adds otherwise with two threads."""
THREAD_BOOKS = {
    1: shipped_folder() / "books" / f"{LARGE}.json",
    2: MADE / "resnest-50-threads-2.json",
}


def settings() -> dict[str, Any]:
    """All of it."""
    graph = refnet.load(NETWORK)
    books = {one.key: book_file.read(one.book) for one in SETTINGS}
    values = computed(graph, pipeline("digits").apply(shipped_folder() / "digits" / DIGIT))
    return {
        "sample": SAMPLE,
        "settings": [setting_fact(one, graph, books) for one in SETTINGS],
        "shown": [threads_fact(), *(shown_fact(one, graph, books, values) for one in SHOWN)],
        "torch": torch_fact(),
    }


def replayed(graph: Graph, one: Setting, book: Book) -> dict[str, F32]:
    """Every value that the framework shows of SAMPLE, in its order.

    A node that the book names as unconfirmed cannot be replayed: the capture has what is shown of it, from
    which it goes on.
    """
    arithmetic = refnet.Replay(book)
    fused = arithmetic.fused_graph(graph)
    table = {"data": pipeline("digits").apply(shipped_folder() / "digits" / SAMPLE)}
    given = unconfirmed(book)
    inner = hidden(book.joined) if book.joined else frozenset()
    for node in fused.nodes:
        if node.name in given.values():
            table[node.name] = np.load(one.capture / f"{node.name}.npy")
        elif node.name not in given:
            inputs = [table[name] for name in node.data] + [fused.weights[name] for name in node.weights]
            table[node.name] = arithmetic.evaluate(node, *inputs)
    return {name: value for name, value in table.items() if name != "data" and name not in inner}


def unconfirmed(book: Book) -> dict[str, str]:
    """The nodes whose order reveal did not confirm, and the value that the framework shows of each."""
    groups = {name: names[-1] for names in (book.joined.groups if book.joined else ()) for name in names}
    return {name: groups.get(name, name) for one in book.unconfirmed for name in one.nodes}


def setting_fact(one: Setting, graph: Graph, books: dict[str, Book]) -> dict[str, Any]:
    """What differs from one thread, and what of MXNet's own values the replay does not reproduce."""
    book, joined = books[one.key], books[one.key].joined
    first, values = (replayed(graph, setting, books[setting.key]) for setting in (SETTINGS[0], one))
    apart = {name: values[name].view("u4") != first[name].view("u4") for name in values}
    manifest = json.loads((one.capture / "manifest.json").read_text())
    assert manifest["sources"]["input"] == f"sample:{SAMPLE}"
    theirs = {name: value["sha256"] for name, value in manifest["values"].items()}
    assert set(values) == set(theirs)
    given = set(unconfirmed(book).values())
    assert all(digest(values[name]).sha256 == theirs[name] for name in given)
    mine = {name: value for name, value in values.items() if name not in given}
    return {
        "key": one.key,
        "title": one.title,
        "groups": len(joined.groups) if joined else 0,
        "hidden": len(graph.nodes) - len(values),
        "values": len(values),
        "differ": sum(bool(mask.any()) for mask in apart.values()),
        "first": next((name for name, mask in apart.items() if mask.any()), None),
        "elements": sum(int(mask.sum()) for mask in apart.values()),
        "of": sum(mask.size for mask in apart.values()),
        "unconfirmed": sorted(given),
        "replayed": len(mine),
        "replayed_elements": sum(value.size for value in mine.values()),
        "not_replayed": sum(digest(value).sha256 != theirs[name] for name, value in mine.items()),
        "changed": None if joined else recipes_changed(graph, books["one"], book),
    }


def recipes_changed(graph: Graph, first: Book, second: Book) -> list[str]:
    """The nodes that the second book computes in another way."""
    types = graph.types() | dict(graph.weight_types)
    found = []
    for node in graph.nodes:
        keys = [
            b.key(node.name, signature(node.op, [types[i] for i in node.inputs])) for b in (first, second)
        ]
        recipes = [b.recipes[key] if key else None for b, key in zip((first, second), keys, strict=True)]
        if recipes[0] != recipes[1]:
            found.append(node.name)
    return found


def torch_fact() -> dict[str, Any]:
    """Which nodes PyTorch computes in another way with two threads."""
    name = SHIPPED[1].name
    paths = (shipped_folder() / "books" / f"{name}.json", MADE / "torch-threads-2.json")
    first, second = (book_file.read(path) for path in paths)
    graph = refnet.load(name)
    (changed,) = recipes_changed(graph, first, second)
    node = graph.by_name[changed]
    formulas = [book.recipes[key_of(book, node, graph)].parts[0].do.formula for book in (first, second)]
    return {
        "values": len(graph.nodes),
        "changed": changed,
        "elements": graph.types()[changed].size,
        "exp": [node.op.formulas[formula].partition("'")[0] for formula in formulas],
    }


def shown_fact(one: Shown, graph: Graph, books: dict[str, Book], plain: dict[str, F32]) -> dict[str, Any]:
    """One value in two settings, each on plain's values of its inputs: the orders, and an element of it."""
    node, conv = graph.by_name[one.node], graph.by_name[one.conv]
    first, second = books["one"], books[one.setting]
    found = {
        "one": in_nodes(one, graph, first, plain),
        one.setting: joined_value(one.node, graph, second, plain),
    }
    at, apart = apart_fact(found, interval(node, conv, graph, plain))
    return {
        **apart,
        **{"node": one.node, "conv": one.conv, "kind": one.kind, "setting": one.setting},
        **dict(zip(("label", "title"), LABELS[one.kind], strict=True)),
        "other": next((name for name in node.data if name != one.conv), None) if one.kind == "add" else None,
        "norm": first.recipes[key_of(first, node, graph)].parts[0].do.formula if one.kind == "norm" else None,
        "orders": {
            "one": orders_of(first, conv, graph),
            one.setting: orders_of(second, *node_in(one, graph, second)),
        },
        "folded": folded_fact(one, graph, second, at[1]) if one.kind == "norm" else None,
    }


def apart_fact(found: dict[str, F32], bound: Interval) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Two results of one value: how they differ, and the largest element that does, in its bound."""
    mine, other = found.values()
    mask = mine.view("u4") != other.view("u4")
    assert mask.any()
    at = tuple(map(int, np.unravel_index(int(np.argmax(np.where(mask, np.abs(mine), -1))), mine.shape)))
    centre, radius = float(bound.center[at]), float(bound.radius[at])
    ulp = float(np.spacing(np.abs(np.float32(centre))))
    return at, {
        "at": list(at),
        "index": int(np.ravel_multi_index(at, mine.shape)),
        "differ": int(mask.sum()),
        "elements": mask.size,
        "ulps": int(ulps(mine, other).max()),
        "centre": centre,
        "radius": radius,
        "radius_ulps": radius / ulp,
        "offsets": {key: (float(value[at]) - centre) / ulp for key, value in found.items()},
        "found": {key: float_fact(value[at]) for key, value in found.items()},
    }


def threads_fact() -> dict[str, Any]:
    """A layer of the large network by PyTorch's books of one thread and of two; all numbers of seed 0."""
    first, second = (book_file.read(path) for path in THREAD_BOOKS.values())
    graph = structure(LARGE)
    node, types = graph.by_name[THREADS], graph.types() | dict(graph.weight_types)
    x, w = (synthetic.normal(0, name, types[name].shape) for name in node.inputs)
    found = {key: refnet.Replay(book).evaluate(node, x, w) for key, book in (("one", first), ("two", second))}
    at, apart = apart_fact(found, node.op.bound(*map(Interval.exactly, (x, w)), engine=FAST))
    assert w.shape[2:] == (1, 1)
    stride = node.op.stride[0]
    window = x[0, :, at[2] * stride, at[3] * stride]
    return {
        **apart,
        **{"node": THREADS, "kind": "alone", "setting": "two"},
        **dict(zip(("label", "title"), LABELS["alone"], strict=True)),
        "nodes": len(graph.nodes),
        "changed": len(recipes_changed(graph, first, second)),
        "terms": len(window),
        "blocks": {"one": blocks(first, node, graph), "two": blocks(second, node, graph)},
        "orders": {"one": orders_of(first, node, graph), "two": orders_of(second, node, graph)},
        "stored": {"w": weight(w[at[1]]), "x": weight(window)},
    }


def blocks(book: Book, node: Node, graph: Graph) -> list[int]:
    """How many terms each chain of a sum of chains has."""
    program = book.recipes[key_of(book, node, graph)].parts[0].do
    return [chain.terms.size for chain in program.expr.parts]


def in_nodes(one: Shown, graph: Graph, book: Book, plain: dict[str, F32]) -> F32:
    """The convolution, then what follows it, each as a node of its own."""
    arithmetic, table = refnet.Replay(book), dict(plain)
    for name in dict.fromkeys((one.conv, one.node)):
        node = graph.by_name[name]
        inputs = [table[i] for i in node.data] + [graph.weights[i] for i in node.weights]
        table[name] = arithmetic.evaluate(node, *inputs)
    return table[one.node]


def joined_value(name: str, graph: Graph, book: Book, plain: dict[str, F32]) -> F32:
    """The same as one operation."""
    arithmetic = refnet.Replay(book)
    fused = arithmetic.fused_graph(graph)
    node = fused.by_name[name]
    inputs = [plain[i] for i in node.data] + [fused.weights[i] for i in node.weights]
    return arithmetic.evaluate(node, *inputs)


def node_in(one: Shown, graph: Graph, book: Book) -> tuple[Node, Graph]:
    """The node that adds the products in this book's graph, and that graph."""
    fused = refnet.Replay(book).fused_graph(graph)
    return fused.by_name[one.node], fused


def key_of(book: Book, node: Node, graph: Graph) -> str:
    types = graph.types() | dict(graph.weight_types)
    key = book.key(node.name, signature(node.op, [types[name] for name in node.inputs]))
    assert key is not None, node.name
    return key


def orders_of(book: Book, node: Node, graph: Graph) -> dict[str, Any]:
    """A node's recipe as the page reads it; see networks.orders."""
    return recipe_fact(book.recipes[key_of(book, node, graph)], graph.types()[node.name])


def interval(node: Node, conv: Node, graph: Graph, plain: dict[str, F32]) -> Interval:
    """Where any float32 evaluation lies, the convolution hidden: node by node, joined or folded."""

    def operands(of: Node, table: dict[str, AbstractValue]) -> list[AbstractValue]:
        values = [table[i] if i in table else known(plain[i]) for i in of.data]
        return values + [known(graph.weights[i]) for i in of.weights]

    inner = propagate(conv, operands(conv, {}))
    return (inner if node is conv else propagate(node, operands(node, {conv.name: inner}))).bound


def folded_fact(one: Shown, graph: Graph, book: Book, channel: int) -> dict[str, Any]:
    """A weight of the channel before and after, and the bias that it gets."""
    node, fused = node_in(one, graph, book)
    names = (graph.by_name[one.conv].weights[0], *node.weights)
    before, after, bias = ((fused if i else graph).weights[name] for i, name in enumerate(names))
    return {
        "before": float_fact(before[channel].ravel()[0]),
        "after": float_fact(after[channel].ravel()[0]),
        "bias": float_fact(bias[channel]),
    }


def text() -> str:
    """The file's content: a setting or a value a line."""
    lines = []
    for key, found in settings().items():
        entries = found if isinstance(found, list) else [found]
        written = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
        lines.append(
            f"{json.dumps(key)}: [\n{written}\n]"
            if isinstance(found, list)
            else f"{json.dumps(key)}: {written}"
        )
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text())
