"""Controls: each recipe of a book replaced in turn, and the network's outputs differ: it can fail.

    python -m tests.crosscheck.controls results.jsonl.books/torch-1x1-224x224.json ...

The books are those of `python -m tests.crosscheck.identical`. A recipe is first replaced by plain; where
plain gives the recipe's own bits (it is the order or the formula itself, or differs in -0 and NaN only), by
another: a sum in reverse, with FMA or without, another formula of the menu. Inputs are tried in turn, the
last of them with NaN, until the outputs have other bits. No framework is asked: the book's replay was found
equal to it before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import refnet
from refnet.arithmetic.replay import Replay
from refnet.cli.common import counting
from refnet.core.bits import equal_bits
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Reduction, TensorType
from refnet.core.orders import Book, Chain, Choice, Leaf, Order, Part, Program, Recipe, Sum, signature
from refnet.formats.book import read
from refnet.kernels.engine import Fast
from refnet.ops import RadixSum
from tests.crosscheck.identical import MORE, ROWS, graph_of

IMAGES = ("digit 0", "normal 1", "NaN")
"""Inputs of the table of identical bits."""


@dataclass(frozen=True)
class Swapped(Replay):
    """A book's replay, in which the nodes of one key are computed by plain."""

    key: str = field(default="", kw_only=True)

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        types = [TensorType(x.shape) for x in inputs]
        if self.book.key(node.name, signature(node.op, types)) == self.key:
            return node.op.run(*inputs, engine=Fast(self.threads or 1))
        return super().evaluate(node, *inputs)


@dataclass
class Control:
    """What became of a recipe: "plain" or "another" in its place changed the outputs; "" is neither.

    rounds: whether its op rounds in more than one way. Relu, max pool, an addition of two, a pool of one
    element do not: their formulas differ in the sign of a zero and in what becomes of NaN.
    """

    key: str
    rounds: bool = True
    by: str = ""
    image: str = ""


def others(node: Node, types: list[TensorType], recipe: Recipe) -> Iterator[Recipe]:
    """Recipes in place of this one: a sum in reverse, with FMA and without; the menu's other formulas."""
    do = recipe.parts[-1].do
    if isinstance(do, Choice):
        for name in node.op.formulas:
            if name != do.formula:
                yield Recipe((Part(replace(do, formula=name)),))
        return
    terms = node.op.terms(*types) if isinstance(node.op, Reduction) else 0
    leaves = []
    if isinstance(node.op, Reduction):
        leaves = [Leaf.BIAS] * node.op.biased() + [Leaf.ADDEND] * node.op.adds
    for fused in (True, False):
        backwards = Chain(Leaf.ZERO, Order.of(range(terms - 1, -1, -1)), fused)
        expr = Sum((*leaves, backwards)) if leaves else backwards
        yield Recipe((Part(Program(expr, do.padding, do.finish)),))
    for finish in ("divide", "reciprocal"):
        if do.finish not in ("none", finish):
            yield Recipe((Part(replace(do, finish=finish)),))


def controls(graph: Graph, book: Book, images: tuple[str, ...] = IMAGES) -> list[Control]:
    """What becomes of each recipe of the book."""
    replay = Replay(book, 1)
    executed = replay.fused_graph(graph)
    batch = {n: TensorType((book.reference.batch, *t.shape[1:])) for n, t in graph.inputs.items()}
    types = executed.types(batch)
    nodes: dict[str, list[Node]] = {}
    for node in executed.nodes:
        key = book.key(node.name, signature(node.op, [types[n] for n in node.inputs]))
        nodes.setdefault(key or "", []).append(node)
    found = {key: Control(key, _rounds(nodes[key][0], types)) for key in book.recipes}
    with counting("recipes", len(found)) as advance:
        for image in images:
            data = {n: np.ascontiguousarray(MORE[image](t.shape), np.float32) for n, t in batch.items()}
            values = {**data, **{node.name: value for node, value in refnet.steps(graph, data, replay)}}
            for control in found.values():
                if not control.by:
                    _control(control, nodes[control.key], types, values, graph, data, replay)
                    control.image = image if control.by else ""
                    advance(bool(control.by) or image == images[-1])
    return list(found.values())


def _share(base: Replay, replay: Replay, names: set[str]) -> None:
    """Gives the replay what base prepared for other nodes than these: to prepare takes longest."""
    prepared = base._recipes._kept.items()  # (node, shapes of its inputs) -> recipe
    replay._recipes._kept.update({key: known for key, known in prepared if key[0].name not in names})
    object.__setattr__(replay, "_fused", base._fused)


def _rounds(node: Node, types: dict[str, TensorType]) -> bool:
    kinds = [types[n] for n in node.inputs]
    alone = isinstance(node.op, RadixSum) and node.op.radix == 2
    single = isinstance(node.op, Reduction) and node.op.terms(*kinds) == 1 and len(kinds) == 1
    return not (node.op.exactly_specified or alone or single)


def _control(
    control: Control,
    nodes: list[Node],
    types: dict[str, TensorType],
    values: dict[str, F32],
    graph: Graph,
    data: dict[str, F32],
    base: Replay,
) -> None:
    key, book, executed = control.key, base.book, base.fused_graph(graph)
    names = {node.name for node in nodes}
    replays: list[tuple[str, Replay]] = [("plain", Swapped(book, 1, key=key))]
    for other in others(nodes[0], [types[n] for n in nodes[0].inputs], book.recipes[key]):
        changed = replace(book, recipes={**book.recipes, key: other})
        replays.append(("another", Replay(changed, 1)))
    for by, replay in replays:
        _share(base, replay, names)
        try:
            differs = any(not _same(replay, node, values, executed) for node in nodes)
        except InputError:  # a formula that this op of the menu does not have
            continue
        if differs:
            made = refnet.run(graph, data, replay)
            if any(
                not equal_bits(made[o], values[v].reshape(made[o].shape)).all()
                for o, v in graph.outputs.items()
            ):
                control.by = by
                return


def _same(replay: Replay, node: Node, values: dict[str, F32], executed: Graph) -> bool:
    arguments = [values[n] for n in node.data] + [executed.weights[n] for n in node.weights]
    made = replay.evaluate(node, *arguments)
    return bool(equal_bits(made, values[node.name].reshape(made.shape)).all())


def line(name: str, found: list[Control]) -> str:
    """A row of the table."""
    plain, another = (sum(one.by == by for one in found) for by in ("plain", "another"))
    left = [one for one in found if not one.by]
    rounds = sum(one.rounds for one in left)
    return f"| {name} | {len(found)} | {plain} | {another} | {rounds} | {len(left) - rounds} |"


HEAD = (
    "| book | recipes | outputs differ by plain | by another | do not, though it rounds | one result |\n"
    "|---|---:|---:|---:|---:|---:|"
)


def main(arguments: list[str]) -> int:
    """Print the table; 1 if the outputs do not depend on a recipe that rounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="controls"
    )
    parser.add_argument("books", nargs="+", type=Path)
    a = parser.parse_args(arguments)
    print(HEAD, flush=True)
    without: list[str] = []
    for path in a.books:
        name, size = path.stem.rsplit("-", 1)
        height, width = map(int, size.split("x"))
        row, book = ROWS[name], read(path)
        graph = graph_of(row, row.model(path.parent, (height, width)), (height, width))
        found = controls(graph, book)
        print(line(name, found), flush=True)
        without += [f"{name}: {one.key}" for one in found if one.rounds and not one.by]
    for one in without:
        print(f"the outputs do not differ: {one}")
    return 1 if without else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
