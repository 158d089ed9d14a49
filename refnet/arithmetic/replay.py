"""Replay arithmetic: float32 in the very order in which a named framework build adds and multiplies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from refnet.arithmetic.engines import default_kernels, engine
from refnet.arithmetic.followed import followed_plan
from refnet.arithmetic.fusion_groups import fused_graph
from refnet.arithmetic.recipes import NodeRecipe, follow, missing, node_recipe
from refnet.core.caches import Latest, PerGraph
from refnet.core.engine import Engine
from refnet.core.errors import InputError
from refnet.core.interpreter import Plan, make_plan
from refnet.core.op import F32, TensorType
from refnet.core.orders import Book
from refnet.formats.arguments import BOOK, check_arguments

if TYPE_CHECKING:
    from refnet.core.graph import Graph, Node

MOST_RECIPES = 4096
"""For so many nodes, each with its shapes, a Replay keeps what their recipes mean."""


@dataclass(frozen=True)
class Replay:
    """Every value by its recipe in a book: the framework's bits, on any machine, without the framework.

    book: the recipes of one reference. `book.reference.threads` is the framework's number of threads;
    `threads` only says how many compute here (None: all processors). kernels: "fast", or "reference", the
    loops. Neither changes a bit. Ops with only one right result need no recipe. If the book lacks anything
    else, for example another batch size or shape, that is an InputError: nothing falls back to another
    arithmetic.

    >>> import numpy as np
    >>> import refnet
    >>> from refnet.models.weights import shipped_captures
    >>> capture, path = next(one for one in shipped_captures() if "resnest" in one[0].name)
    >>> x = {"data": refnet.open_capture(capture).input("data")}
    >>> arithmetic = Replay(refnet.read_book(path))
    >>> found = refnet.run(refnet.load("resnest-digits"), x, arithmetic, ["fc"])["fc"]
    >>> np.array_equal(found, refnet.open_capture(capture).value("fc"))
    True
    """

    book: Book
    threads: int | None = None
    kernels: str = field(default_factory=default_kernels)
    engine: Engine = field(init=False, compare=False, repr=False)
    _recipes: Latest[tuple[NodeRecipe | None]] = field(
        init=False, default_factory=lambda: Latest(MOST_RECIPES), compare=False, repr=False
    )
    _fused: PerGraph[Graph] = field(init=False, default_factory=PerGraph, compare=False, repr=False)
    _plans: PerGraph[Latest[Plan]] = field(init=False, default_factory=PerGraph, compare=False, repr=False)
    _captured: PerGraph[Any] = field(init=False, default_factory=PerGraph, compare=False, repr=False)
    name = "replay"

    def __post_init__(self) -> None:
        check_arguments({"book": self.book}, {"book": BOOK})
        object.__setattr__(self, "engine", engine(self.kernels, self.threads))

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value. Raises InputError if the book has no recipe for it, saying why."""
        value = self.evaluate_or_none(node, *inputs)
        if value is None:
            raise InputError(missing(self.book, node, _types(inputs)))
        return value

    def evaluate_or_none(self, node: Node, *inputs: F32) -> F32 | None:
        """The node's value, or None if it needs a recipe and the book has none."""
        key = node, _types(inputs)
        (known,) = self._recipes.of(key, lambda: (node_recipe(self.book, node, _types(inputs)),))
        if known is not None:
            return follow(known, node.op, inputs, self.engine)
        return None if node.op.needs_recipe else node.op.run(*inputs, engine=self.engine)

    def fused_graph(self, graph: Graph) -> Graph:
        """The graph as the book's executor computes it; it has fewer nodes where the executor joins some.

        Raises InputError if the book joins nodes that this graph does not have.
        """
        by = self.book.joined
        return graph if by is None else self._fused.of(graph, lambda: fused_graph(graph, by, self.engine))

    def plan(self, graph: Graph, wanted: frozenset[str]) -> Plan:
        """The plan for these values, with the book's fused graph. Kept as long as the graph lives."""
        made = self._plans.of(graph, Latest)
        return made.of(wanted, lambda: make_plan(graph, wanted, fused_graph=self.fused_graph(graph)))

    def captured(self, graph: Graph, inputs: Mapping[str, F32], plan: Plan) -> dict[str, F32] | None:
        """The wanted values from a captured run (captured_run.py), if there is one or this becomes one."""
        if type(self) is not Replay or self.engine.name != "fast":  # what is derived may do anything
            return None
        from refnet.arithmetic.captured_run import CapturedRuns, unchanging  # the fast kernels' alone

        executed = plan.fused or graph
        if not unchanging(graph) or not unchanging(executed):
            return None
        runs: CapturedRuns = self._captured.of(graph, CapturedRuns)
        return runs.run(executed, inputs, self.engine, plan, partial(followed_plan, self.book))


def _types(inputs: Sequence[F32]) -> tuple[TensorType, ...]:
    return tuple(TensorType(x.shape, x.dtype.name) for x in inputs)
