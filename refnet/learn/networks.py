"""Graphs, weights and books as data for the learners' page, made from refnet's own.

The page has an interpreter of its own (js/engine.js). What it executes is the graph that refnet executes: the
same nodes, names and attributes, and the bits of the shipped weights.
"""

from __future__ import annotations

import base64
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refnet.arithmetic.recipes import holds
from refnet.core.graph import Graph, Node
from refnet.core.op import Op, Reduction, TensorType
from refnet.core.orders import Book, Program, Recipe, signature
from refnet.formats import book as book_file
from refnet.models.loading import load
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder


class Shipped(NamedTuple):
    """A network of the page, and whose names and orders it has."""

    name: str
    title: str
    framework: str


SHIPPED = (
    Shipped("octave-se-resnet-digits", "octave SE-ResNet", "MXNet 1.9.1"),
    Shipped("resnest-digits", "ResNeSt", "PyTorch 2.13.0"),
)


def network(one: Shipped) -> dict[str, Any]:
    """All that the page needs of one network; see `Network` in js/engine.js."""
    graph = load(one.name)
    book = book_file.read(shipped_folder() / "books" / f"{one.name}.json")
    types = graph.types()
    return {
        "name": one.name,
        "title": one.title,
        "framework": one.framework,
        "output": graph.outputs["prob"],
        "nodes": [
            {
                "name": node.name,
                "op": type(node.op).__name__,
                "attributes": attributes(node.op),
                "data": list(node.data),
                "weights": list(node.weights),
                "shape": list(types[node.name].shape),
            }
            for node in graph.nodes
        ],
        "weights": {name: weight(graph.weights[name]) for node in graph.nodes for name in node.weights},
        "book": orders(graph, book, types),
    }


def attributes(op: Op) -> dict[str, Any]:
    """The op's fields by name, as JSON has them."""
    return {field.name: getattr(op, field.name) for field in fields(op)}  # type: ignore[arg-type]


def weight(array: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
    """Shape, and the float32 in base64, lowest byte first."""
    raw = np.ascontiguousarray(array, "<f4").tobytes()
    return {"shape": list(array.shape), "data": base64.b64encode(raw).decode("ascii")}


def orders(graph: Graph, book: Book, types: dict[str, TensorType]) -> dict[str, Any]:
    """Node -> how the framework adds there, by the book; see recipe_fact."""
    found = {}
    for node in graph.nodes:
        if isinstance(node.op, Reduction):
            found[node.name] = recipe_fact(book.recipes[_key(book, node, types)], types[node.name])
    return found


def _key(book: Book, node: Node, types: dict[str, TensorType]) -> str:
    key = book.key(node.name, signature(node.op, [types[name] for name in node.inputs]))
    assert key is not None, node.name
    return key


def recipe_fact(recipe: Recipe, kind: TensorType) -> dict[str, Any]:
    """A recipe of a sum, and where its parts hold.

    {"parts": [{"sum": expression, "padding": ..., "finish": ...}, ...], "part": [0, 1, ...]}; `part` says
    for each element which part computes it, and is left out where there is one part only.
    """
    return {"parts": [_part(part) for part in book_file.recipe_json(recipe)]} | _places(recipe, kind)


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """A part without its region, with what the book's file leaves out."""
    return {"padding": "skip", "finish": "none"} | {k: v for k, v in part.items() if k != "where"}


def _places(recipe: Recipe, kind: TensorType) -> dict[str, Any]:
    if len(recipe.parts) == 1:
        return {}
    which = np.full(kind.size, len(recipe.parts) - 1)
    for i, part in reversed(list(enumerate(recipe.parts[:-1]))):
        assert part.where is not None
        assert isinstance(part.do, Program)
        which[holds(part.where, kind.shape)] = i
    return {"part": which.tolist()}


def digits() -> list[dict[str, Any]]:
    """The shipped images: label, and (8, 8) levels from 0 to 16."""
    found = []
    for path in sorted((shipped_folder() / "digits").glob("*.png"), key=_label):
        pixels = pipeline("digits").pixels(path)[::4, ::4, 0]
        found.append({"label": _label(path), "file": path.name, "levels": (pixels // 15).tolist()})
    return found


def _label(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
