"""The one loop that runs a graph.

    run ──── arithmetic.plan ── make_plan ── arithmetic's fusion of nodes, schedule
      ├───── arithmetic.captured         a run captured as kernel calls, if there is one
      └───── _execute ── evaluated ── arithmetic.evaluate ── op.run(..., engine=...) ── engine
    steps ── _execute

`steps` yields every value. `run` returns only some, so nodes may be fused first: computed in one pass over
memory, with the same bits (`Fuse`). Not to be taken for that: the fused graph of a book has other nodes and
other values, those that a framework's executor makes. Everything that looks at values (capture, verify,
cost, reports) is a loop over `steps`. An arithmetic is any object with the methods
of `Arithmetic`; the public `refnet.run` and `refnet.steps` use Plain() by default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from refnet.core.caches import Latest
from refnet.core.errors import InputError, UnsupportedError, WeightsError
from refnet.core.graph import Graph, Node
from refnet.core.interrupt import interruptible
from refnet.core.limits import RunCost, long_ones, run_cost
from refnet.core.op import F32, TensorType
from refnet.core.words import did_you_mean, opaque_nodes

Names = tuple[str, ...]
Schedule = tuple[tuple[Node, Names, Names, Names], ...]
"""The nodes to execute, each with the names of its data and its weights, and the values to free after it."""
Fuse = Callable[[Sequence[Node], Collection[str]], tuple[Node, ...]]
"""fuse(nodes, keep): the nodes, some of them fused into one pass over memory; values in `keep` exist."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Plan:
    """How values of a graph are computed. Arithmetics keep it for later runs (`PerGraph`).

    wanted: names of the values. fused: the fused graph that the nodes come from, if not the graph itself.
    fitting: for the types of inputs that fit, the run's cost and the names of the nodes that take long,
    because inferring all types of a network takes milliseconds.
    """

    wanted: frozenset[str]
    schedule: Schedule
    fused: Graph | None = None
    fitting: Latest[tuple[RunCost, frozenset[str]]] = field(default_factory=Latest)


class Arithmetic(Protocol):
    """How a run rounds: it computes a node's value from its inputs."""

    name: str

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value."""

    def fused_graph(self, graph: Graph) -> Graph:
        """The graph to run: this one, or the one that a framework's executor makes of it by fusing nodes."""

    def plan(self, graph: Graph, wanted: frozenset[str]) -> Plan:
        """The plan for these values, made by `make_plan`; it may be kept as long as the graph lives."""

    def captured(self, graph: Graph, inputs: Mapping[str, F32], plan: Plan) -> dict[str, F32] | None:
        """The wanted values from a captured run, or None, in which case the plan is executed."""


def steps(
    graph: Graph,
    inputs: Mapping[str, F32],
    arithmetic: Arithmetic,
    until: Collection[str] | None = None,
) -> Iterator[tuple[Node, F32]]:
    """Yield (node, value) for every node in execution order; each value is freed after its last use.

    Values are read-only while later nodes may need them. Copy a value to change it.

    inputs: name -> float32 array (batch, ...). until: only the nodes that these values need (default: all).
    Raises InputError or WeightsError before the first node if something does not fit.
    """
    graph = _fused(graph, arithmetic.fused_graph(graph), until or ())
    nodes = graph.nodes if until is None else _needed(graph, until)
    _refuse_opaque(graph, nodes)
    yield from _execute(graph, inputs, arithmetic, Plan(frozenset(until or ()), schedule(nodes)))


def run(
    graph: Graph,
    inputs: Mapping[str, F32],
    arithmetic: Arithmetic,
    values: Collection[str] | None = None,
) -> dict[str, F32]:
    """Run a graph: {output name: array}, or {value name: array} for the values asked for.

    inputs: name -> float32 array (batch, ...). values: value names to return instead of the outputs.
    """
    wanted = dict(graph.outputs) if values is None else {name: name for name in values}
    plan = arithmetic.plan(graph, frozenset(wanted.values()))
    found = arithmetic.captured(graph, inputs, plan)
    if found is None:
        executed = _execute(plan.fused or graph, inputs, arithmetic, plan)
        found = {node.name: value for node, value in executed if node.name in plan.wanted}
        for value in found.values():
            value.flags.writeable = True
    return {key: found[name] for key, name in wanted.items()}


def make_plan(
    graph: Graph, wanted: frozenset[str], fuse: Fuse | None = None, fused_graph: Graph | None = None
) -> Plan:
    """The plan for these values of the graph.

    fuse: fuses nodes into one pass over memory. fused_graph: a graph to run instead of this one.
    Raises InputError for a value that does not exist.
    """
    fused = None if fused_graph is graph else fused_graph
    nodes = _needed(graph if fused is None else _fused(graph, fused, wanted), wanted)
    _refuse_opaque(graph, nodes)
    return Plan(wanted, schedule(nodes if fuse is None else fuse(nodes, wanted)), fused)


def evaluated(node: Node, evaluate: Callable[..., T], *arguments: Any) -> T:
    """evaluate(*arguments); if it raises, the error names the node."""
    try:
        return evaluate(*arguments)
    except Exception as error:
        error.add_note(f"while executing {node}")
        raise


def schedule(nodes: Sequence[Node]) -> Schedule:
    """The nodes in order, each with the names of its data and weights, and the values to free after it.

    >>> import refnet
    >>> refnet.core.interpreter.schedule(refnet.load("resnest-digits").nodes)[0][1:]
    (('data',), ('conv1.0.weight',), ('data',))
    """
    last = {name: i for i, node in enumerate(nodes) for name in node.data}
    return tuple(
        (
            node,
            node.data,
            node.weights,
            tuple(n for n in dict.fromkeys((*node.data, node.name)) if last.get(n, i) <= i),
        )
        for i, node in enumerate(nodes)
    )


def _execute(
    graph: Graph, inputs: Mapping[str, F32], arithmetic: Arithmetic, plan: Plan
) -> Iterator[tuple[Node, F32]]:
    given = graph.check_inputs(inputs)
    cost, slow = _cost(graph, given, plan)
    cost.check()
    check_weights(graph)
    values: dict[str, F32] = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    weights, evaluate = graph.weights, arithmetic.evaluate
    for node, data, learned, done in plan.schedule:
        arguments = [values[name] for name in data]
        arguments += [weights[name] for name in learned]
        if node.name in slow:
            value = evaluated(node, interruptible, evaluate, node, *arguments)
        else:
            value = evaluated(node, evaluate, node, *arguments)
        del arguments
        value.flags.writeable = False  # later nodes read it
        values[node.name] = value
        yield node, value
        del value
        for name in done:
            del values[name]


def _cost(graph: Graph, given: Mapping[str, TensorType], plan: Plan) -> tuple[RunCost, frozenset[str]]:
    """The run's cost and the names of its long nodes, for inputs of these types."""

    def make() -> tuple[RunCost, frozenset[str]]:
        cost = cost_of(graph, graph.types(given), plan.wanted)
        return cost, long_ones(cost.operations, [node.name for node, *_ in plan.schedule])

    return plan.fitting.of(tuple(given.items()), make)


def cost_of(graph: Graph, types: Mapping[str, TensorType], wanted: Collection[str] = ()) -> RunCost:
    """The cost of a run for the wanted values (default: all). types: of all inputs, weights and values."""
    nodes = _needed(graph, wanted) if wanted else graph.nodes
    return run_cost(graph.name, nodes, types, [freed for *_, freed in schedule(nodes)])


def _fused(graph: Graph, fused: Graph, wanted: Collection[str]) -> Graph:
    """The fused graph, after checking that it still has the wanted values."""
    gone = [name for name in wanted if name in graph.by_name and name not in fused.by_name]
    if gone:
        raise InputError(
            f"{graph.name}: {gone[0]} has no value here: the book's executor joins it with others"
        )
    return fused


def check_weights(graph: Graph) -> None:
    """Raise WeightsError unless the weights have the shapes that the nodes need: kernels do not check."""
    if missing := [name for name in graph.weight_types if name not in graph.weights]:
        raise WeightsError(f"{graph.name} has no weights yet: {len(missing)} missing, first {missing[0]}")
    for name, kind in graph.weight_types.items():
        array = graph.weights[name]
        if array.shape != kind.shape or array.dtype != kind.dtype:
            raise WeightsError(
                f"{graph.name}: weight {name} is {array.dtype}{list(array.shape)}, needed is {kind!r}"
            )


def _needed(graph: Graph, names: Collection[str]) -> tuple[Node, ...]:
    wanted = set(names)
    for name in names:
        if name not in graph.by_name:
            raise InputError(f"{graph.name} has no value {name!r}{did_you_mean(name, graph.by_name)}")
    kept = []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(node.data)
    return tuple(reversed(kept))


def _refuse_opaque(graph: Graph, nodes: Sequence[Node]) -> None:
    """Raise UnsupportedError if refnet cannot compute some of the nodes; it names them all, by the reason."""
    if why := opaque_nodes(nodes):
        raise UnsupportedError(
            f"{graph.name}: what is asked for needs values that refnet cannot compute:{why}"
        )
