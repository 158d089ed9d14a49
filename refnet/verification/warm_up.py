"""What `verify` will compute, computed once on zeros: every kernel that it needs is compiled then.

    for each kind of work (recipes, bounds, plain), for each node from the last one on: its op on zeros

The list of kernels is nobody's: it is what the ops of the graph call. A process that verifies takes the nodes
from the first one on, so another that warms up meanwhile compiles other kernels than it, and both load what
the other one compiled (loops/claims.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from refnet.arithmetic.replay import Replay
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from refnet.verification import compute
from refnet.verification.propagate import known


def warm_up(graph: Graph, replay: Replay | None = None) -> None:
    """Do for every node on zeros what `verify` does for it. Nothing is returned, and no error raised.

    graph: with its weights. replay: a book's recipes.

    >>> import refnet
    >>> warm_up(refnet.load("resnest-digits"))
    """
    for work in _work(graph, replay):
        with suppress(Exception), np.errstate(all="ignore"):  # whoever verifies meets it again, and says so
            work()


def _work(graph: Graph, replay: Replay | None) -> Iterator[Callable[[], Any]]:
    """The pieces of work, those that `verify` comes to last before the others."""
    executed = graph if replay is None else replay.fused_graph(graph)
    if replay is not None:
        for one in (graph, executed):
            for node, arrays in _distinct(one):
                yield partial(replay.evaluate_or_none, node, *arrays)
    for node, arrays in _distinct(graph):
        yield partial(_bound, node, arrays)
    for node, arrays in _distinct(graph):
        yield partial(compute.plain, node.op, arrays)


def _bound(node: Node, arrays: list[F32]) -> None:
    compute.bound(node.op, [known(array).bound for array in arrays])


def _distinct(graph: Graph) -> Iterator[tuple[Node, list[F32]]]:
    """The nodes from the last one on, with zeros and weights as inputs; of equal ones the first."""
    types, seen = graph.types(), set()
    for node in reversed(graph.nodes):
        weights = [graph.weights[name] for name in node.weights]
        shapes = [types[name].shape for name in node.data]
        kind = (repr(node.op), *shapes, *(array.shape for array in weights))
        if kind not in seen:
            seen.add(kind)
            yield node, [*(np.zeros(shape, np.float32) for shape in shapes), *weights]
