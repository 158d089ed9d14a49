"""Show the recipes of a book: what `refnet reveal --show NODE --book BOOK` prints and draws."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refnet.cli.common import print_json
from refnet.core.errors import InputError
from refnet.core.words import counted
from refnet.formats.write import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from refnet.core.graph import Graph
    from refnet.core.orders import Book


def show_recipes(
    book: Path, node: str, picture: Path | None = None, as_json: bool = False, graph: Graph | None = None
) -> None:
    """Print the recipes of `node` in words; picture: the SVG file to draw one into.

    node: the name of a node of the graph. Without a graph: a node that the book names, a signature or a part
    of one. Raises InputError if the book has no such recipe, or several for one picture.
    """
    from refnet.arithmetic.replay import Replay
    from refnet.formats.book import read, recipe_json
    from refnet.report import recipe as report
    from refnet.report.terminal import clean, show

    known = read(book)
    if graph is not None:
        groups = () if known.joined is None else known.joined.groups
        graph, given = Replay(known).fused_graph(graph), graph
        if node in given.by_name and node not in graph.by_name:
            last = next(names[-1] for names in groups if node in names)
            raise InputError(f"{book}: {node} is joined with others, has no own recipe: ask for {last}")
    keys = _keys(known, book, node, graph)
    if picture is not None:
        if len(keys) > 1:
            raise InputError(
                f"{node!r} matches {len(keys)} recipes of {book}, but {picture} can hold one: {keys[0]}, ..."
            )
        with whole_file(picture) as stream:
            stream.write(report.svg(known.recipes[keys[0]], keys[0], _kernel(keys[0])).encode())
    if as_json:
        found = [{"key": key, "recipe": recipe_json(known.recipes[key])} | _said(known, key) for key in keys]
        print_json({"book": str(book), "reference": vars(known.reference), "recipes": found})
        return
    reference = known.reference
    show(clean(f"{book}: {reference.framework} {reference.version}, {reference.mode}, {reference.isa},"))
    show(clean(f"threads {reference.threads}, batch {reference.batch}"))
    for key in keys:
        show("", clean(key), *(clean(f"  {line}") for line in _said(known, key)["words"]))
    if picture is not None:
        show("", clean(f"the picture is in {picture}"))


def _said(book: Book, key: str) -> dict[str, Any]:
    """The recipe in words, and the captures that confirm it."""
    from refnet.report.recipe import words

    lines = words(book.recipes[key], _kernel(key), _formulas(key))
    evidence = book.evidence.get(key)
    if evidence is None:
        return {"words": lines, "evidence": None}
    elements, captures = counted(evidence.elements, "element"), counted(evidence.captures, "capture")
    confirmed = f"confirmed on {elements} of {captures}"
    return {"words": [*lines, confirmed], "evidence": vars(evidence)}


def _keys(book: Book, path: Path, node: str, graph: Graph | None) -> list[str]:
    from refnet.arithmetic.recipes import missing
    from refnet.core.orders import signature
    from refnet.report.recipe import find

    if graph is not None and node in graph.by_name:
        inputs = {
            name: replace(kind, shape=(book.reference.batch, *kind.shape[1:]))
            for name, kind in graph.inputs.items()
        }
        types = graph.types(inputs)
        one = graph.by_name[node]
        read = [types[name] for name in one.inputs]
        key = book.key(node, signature(one.op, read))
        if key is None and not one.op.needs_recipe:
            raise InputError(f"{node} = {one.op!r} has only one right result in float32: no recipe is needed")
        if key is None:
            raise InputError(missing(book, one, read))
        return [key]
    if keys := find(book, node):
        return keys
    named = sorted(name for one in book.unconfirmed for name in one.nodes)
    if node in named:
        reason = next(one.reason for one in book.unconfirmed if node in one.nodes)
        raise InputError(f"{path} has no recipe for {node}: {reason}")
    raise InputError(
        f"{path} has no recipe whose name or key contains {node!r}; "
        "name the MODEL too to find a node by its name"
    )


def _kernel(key: str) -> tuple[int, int]:
    """The kernel's rows and columns, from a signature; (1, 1) where there is none."""
    found = re.search(r"kernel=\((\d{1,9}), (\d{1,9})\)", key)
    return (max(int(found[1]), 1), max(int(found[2]), 1)) if found else (1, 1)


def _formulas(key: str) -> Mapping[str, str]:
    """The formulas of the op that a key begins with; empty if the word is not an op."""
    import refnet.ops
    from refnet.core.op import Op

    op = getattr(refnet.ops, key.partition("(")[0], None)
    return op.formulas if isinstance(op, type) and issubclass(op, Op) else {}
