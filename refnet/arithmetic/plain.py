"""Plain arithmetic: float32, one stated order of operations, the same bits on every machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from refnet.arithmetic.engines import default_kernels, engine
from refnet.arithmetic.fused import fuse
from refnet.core.caches import Latest, PerGraph
from refnet.core.engine import Engine
from refnet.core.interpreter import Plan, make_plan
from refnet.core.op import F32

if TYPE_CHECKING:
    from refnet.core.graph import Graph, Node


@dataclass(frozen=True)
class Plain:
    """Each op's own `run`: one FMA chain per reduction, channel, kernel row, kernel column; bias last.

    threads: how many threads share the outputs of a node; None takes all processors. kernels: "fast" or
    "reference", the loops that define each bit (the default with NUMBA_DISABLE_JIT=1).
    The bits depend on neither, nor on the batch size or the position in the batch. All NaN count as equal:
    their sign and payload depend on the processor.

    For each graph it caches how to run it, as long as the graph lives: reuse one Plain to run faster.

    >>> Plain(threads=1).name
    'plain'
    """

    threads: int | None = None
    kernels: str = field(default_factory=default_kernels)
    engine: Engine = field(init=False, compare=False, repr=False)
    _plans: PerGraph[Latest[Plan]] = field(init=False, compare=False, repr=False, default_factory=PerGraph)
    _captured: PerGraph[Any] = field(init=False, compare=False, repr=False, default_factory=PerGraph)
    name = "plain"

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", engine(self.kernels, self.threads))

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value: `node.op.run(*inputs, engine=self.engine)`."""
        return node.op.run(*inputs, engine=self.engine)

    def fused_graph(self, graph: Graph) -> Graph:
        """The graph as it is."""
        return graph

    def fuse(self, nodes: Sequence[Node], keep: Collection[str]) -> tuple[Node, ...]:
        """The nodes, some fused where the fast engine computes them in one pass; no bit changes."""
        return fuse(nodes, keep) if self.engine.name == "fast" else tuple(nodes)

    def plan(self, graph: Graph, wanted: frozenset[str]) -> Plan:
        """The plan for these values, kept as long as the graph lives."""
        return self._plans.of(graph, Latest).of(wanted, lambda: make_plan(graph, wanted, self.fuse))

    def captured(self, graph: Graph, inputs: Mapping[str, F32], plan: Plan) -> dict[str, F32] | None:
        """The wanted values from a captured run (captured_run.py), if there is one or this becomes one."""
        if type(self) is not Plain or self.engine.name != "fast":  # what is derived may do anything
            return None
        from refnet.arithmetic.captured_run import CapturedRuns, unchanging  # the fast kernels' alone

        if not unchanging(graph):
            return None
        runs: CapturedRuns = self._captured.of(graph, CapturedRuns)
        return runs.run(graph, inputs, self.engine, plan)
