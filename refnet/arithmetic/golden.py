"""Golden arithmetic: each value the exact real result of its node's formula, rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from refnet.arithmetic.engines import engine
from refnet.arithmetic.golden_fused import fuse_golden
from refnet.core.caches import Latest, PerGraph
from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.interpreter import Plan, make_plan
from refnet.core.op import F32
from refnet.exact.correct_rounding import RefineCount

if TYPE_CHECKING:
    from refnet.core.graph import Graph, Node


@dataclass(frozen=True)
class Golden:
    """Each op's own `golden`: only one right answer for every value, the same bits everywhere.

    threads: how many threads share the outputs of a node; None takes all processors. refine_count: counts,
    per kind of op, how many elements were computed and how many needed exact arithmetic.
    Golden always uses the fast kernels.

    >>> import numpy as np
    >>> import refnet
    >>> graph = refnet.load("resnest-digits")
    >>> x = np.zeros((1, 1, 32, 32), np.float32)
    >>> float(refnet.run(graph, {"data": x}, Golden())["prob"].sum()) > 0.99
    True
    """

    threads: int | None = None
    refine_count: RefineCount | None = None
    engine: Engine = field(init=False, compare=False, repr=False)
    exact: Exact = field(init=False, compare=False, repr=False)
    _plans: PerGraph[Latest[Plan]] = field(init=False, compare=False, repr=False, default_factory=PerGraph)
    _captured: PerGraph[Any] = field(init=False, compare=False, repr=False, default_factory=PerGraph)
    name = "golden"

    def __post_init__(self) -> None:
        from refnet.exact.engine import DecideOrRefine  # loads the compiler

        object.__setattr__(self, "engine", engine("fast", self.threads))
        object.__setattr__(self, "exact", DecideOrRefine(self.engine, self.refine_count))

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value: `node.op.golden(*inputs, exact=self.exact)`."""
        return node.op.golden(*inputs, exact=self.exact)

    def fused_graph(self, graph: Graph) -> Graph:
        """The graph as it is."""
        return graph

    def plan(self, graph: Graph, wanted: frozenset[str]) -> Plan:
        """The plan for these values: each node rounds once, by itself. Kept as long as the graph lives.

        Nodes in a row are computed in one pass, unless their refinements are to be counted.
        """
        counts = self.refine_count is not None or type(self) is not Golden  # what is derived may do anything
        return self._plans.of(graph, Latest).of(
            wanted, lambda: make_plan(graph, wanted, None if counts else fuse_golden)
        )

    def captured(self, graph: Graph, inputs: Mapping[str, F32], plan: Plan) -> dict[str, F32] | None:
        """The wanted values from a captured run (captured_run.py), if there is one or this becomes one.

        No run is captured that counts refinements.
        """
        if type(self) is not Golden or self.refine_count is not None:
            return None
        from refnet.arithmetic.captured_run import CapturedRuns, unchanging

        if not unchanging(graph):
            return None
        runs: CapturedRuns = self._captured.of(graph, CapturedRuns)
        return runs.run(graph, inputs, self.engine, plan, exact=self.exact)
