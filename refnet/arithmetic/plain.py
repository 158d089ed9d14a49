"""Plain arithmetic: float32, one stated order of operations, the same bits on every machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refnet.core.errors import InputError
from refnet.core.op import F32

if TYPE_CHECKING:
    from refnet.core.graph import Graph, Node


MOST_THREADS = 256
"""More threads than that are a mistake."""


def check_threads(threads: int | None) -> None:
    """Raise InputError unless threads is None or a number from 1 to MOST_THREADS."""
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads must be a whole number from 1 to {MOST_THREADS}, got {threads!r}")


@dataclass(frozen=True)
class Plain:
    """Each op's own `run`: one FMA chain per reduction, channel, kernel row, kernel column; bias last.

    threads: how many threads share the outputs of a node; None takes all processors.
    The bits do not depend on it, nor on the batch or the position in it. Every NaN counts as the same
    NaN: which sign and payload one carries is the processor's affair.

    >>> Plain(threads=1).name
    'plain'
    """

    threads: int | None = None
    name = "plain"

    def __post_init__(self) -> None:
        check_threads(self.threads)

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value: `node.op.run(*inputs)`."""
        return node.op.run(*inputs, threads=self.count())

    def count(self) -> int:
        """How many threads that is here and now."""
        if self.threads is not None:
            return self.threads
        from refnet.kernels.resources import processors

        return processors()

    def executed(self, graph: Graph) -> Graph:
        """The graph as it is."""
        return graph

    def fuse(self, nodes: Sequence[Node], keep: Collection[str]) -> tuple[Node, ...]:
        """The nodes with those joined that can share a pass over memory; the bits are the same."""
        from refnet.arithmetic.fused import fuse

        return fuse(nodes, keep)
