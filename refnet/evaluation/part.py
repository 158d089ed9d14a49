"""What a worker does: a part of the images through the pipeline and the network, one row each.

evaluate_part ── pipeline.apply ── a batch of those that can be read ── run ── top ── Row
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refnet.arithmetic.golden import Golden
from refnet.arithmetic.plain import Plain
from refnet.arithmetic.replay import Replay
from refnet.arithmetic.run import run
from refnet.core.errors import RefnetError
from refnet.core.graph import Graph
from refnet.core.interpreter import Arithmetic
from refnet.core.limits import Limits, limits
from refnet.core.op import F32
from refnet.core.orders import Book
from refnet.evaluation.images import LabelledImage
from refnet.models.predict import top
from refnet.models.preprocess import pipeline

BEST = 5
"""Classes of a row."""

_ONE = threading.Lock()
"""One part at a time in a process: kernels have threads of their own, and a worker's memory is bounded."""


@dataclass(frozen=True)
class Row:
    """One image. classes: its five most probable, the first first; bits: those of their probabilities.

    error: why it could not be read; then there are no classes.
    """

    id: str
    label: int
    classes: tuple[int, ...] = ()
    bits: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Part:
    """Images that one job evaluates. index: its place among the parts."""

    index: int
    images: tuple[LabelledImage, ...]

    def __repr__(self) -> str:
        """Short, for messages."""
        return f"part {self.index} ({self.images[0].id} to {self.images[-1].id})"


@dataclass(frozen=True)
class Method:
    """An arithmetic as data, for a worker. book: for replay. threads: None is all processors."""

    arithmetic: str
    kernels: str = "fast"
    threads: int | None = None
    book: Book | None = None

    def made(self) -> Arithmetic:
        """A new arithmetic."""
        if self.book is not None:
            return Replay(self.book, self.threads, self.kernels)
        return Golden(self.threads) if self.arithmetic == "golden" else Plain(self.threads, self.kernels)


@dataclass(frozen=True)
class Evaluator:
    """All that a part needs, whole in a worker. output: the probabilities' name. batch: images of a run.

    A pickle of it holds the graph and its weights; what an arithmetic derives from them is made anew.
    """

    graph: Graph
    output: str
    pipeline: str
    method: Method
    batch: int
    limits: Limits
    arithmetic: Arithmetic

    def __reduce__(self) -> tuple[Callable[..., Evaluator], tuple[Any, ...]]:
        bare = replace(self.graph, weights={})
        rest = (self.output, self.pipeline, self.method, self.batch, self.limits)
        return _unpacked, (bare, dict(self.graph.weights), *rest)


def evaluator(graph: Graph, output: str, name: str, method: Method, batch: int, most: Limits) -> Evaluator:
    """The evaluator, with its arithmetic."""
    return Evaluator(graph, output, name, method, batch, most, method.made())


def _unpacked(graph: Graph, weights: dict[str, F32], *rest: Any) -> Evaluator:
    return evaluator(graph.with_weights(weights, own=True), *rest)


def evaluate_part(made: Evaluator, part: Part) -> tuple[Row, ...]:
    """A row per image, in order. An image that cannot be read has a row with the reason.

    Runs have always `batch` images: the last one is filled up with copies of its last image.
    """
    with _ONE, limits(made.limits.operations, made.limits.memory):
        found: dict[str, Row] = {}
        waiting: list[tuple[LabelledImage, F32]] = []
        for image in part.images:
            try:
                waiting.append((image, _tensor(made, image)))
            except RefnetError as error:
                found[image.id] = Row(image.id, image.label, error=str(error))
            if len(waiting) == made.batch:
                found |= {row.id: row for row in _rows(made, waiting)}
                waiting = []
        if waiting:
            found |= {row.id: row for row in _rows(made, waiting)}
    return tuple(found[image.id] for image in part.images)


def _tensor(made: Evaluator, image: LabelledImage) -> F32:
    if isinstance(image.source, str):
        return pipeline(made.pipeline).apply(image.source)
    from PIL import Image  # the shipped digits only

    return pipeline(made.pipeline).apply(Image.frombytes("L", (8, 8), image.source))


def _rows(made: Evaluator, waiting: list[tuple[LabelledImage, F32]]) -> Iterator[Row]:
    (data,) = made.graph.inputs
    tensors = [x for _, x in waiting]
    tensors += tensors[-1:] * (made.batch - len(tensors))
    values = run(made.graph, {data: np.concatenate(tensors)}, made.arithmetic)[made.output]
    for (image, _), value in zip(waiting, values, strict=False):
        best = top(value, BEST)
        yield Row(image.id, image.label, tuple(p.index for p in best), tuple(p.bits for p in best))
