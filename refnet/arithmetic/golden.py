"""Golden arithmetic: each value the exact real result of its node's formula, rounded once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refnet.arithmetic.plain import check_threads
from refnet.core.op import F32
from refnet.exact.correct_rounding import RefineCount

if TYPE_CHECKING:
    from refnet.core.graph import Graph, Node


@dataclass(frozen=True)
class Golden:
    """Each op's own `golden`: one right answer for every value, the same bits everywhere.

    threads: how many threads share the outputs of a node; None takes all processors. refine_count: counts,
    per kind of op, how many elements were settled at once and how many needed exact arithmetic.

    >>> import numpy as np
    >>> import refnet
    >>> graph = refnet.load("resnest-digits")
    >>> x = np.zeros((1, 1, 32, 32), np.float32)
    >>> float(refnet.run(graph, {"data": x}, Golden())["prob"].sum()) > 0.99
    True
    """

    threads: int | None = None
    refine_count: RefineCount | None = None
    name = "golden"

    def __post_init__(self) -> None:
        check_threads(self.threads)

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value: `node.op.golden(*inputs)`."""
        from refnet.kernels.resources import processors

        return node.op.golden(*inputs, threads=self.threads or processors(), refine_count=self.refine_count)

    def executed(self, graph: Graph) -> Graph:
        """The graph as it is."""
        return graph

    def fuse(self, nodes: Sequence[Node], keep: Collection[str]) -> tuple[Node, ...]:
        """The nodes as they are: each rounds once, by itself."""
        return tuple(nodes)
