"""The one loop that runs a graph.

    run, steps ── _execute ── arithmetic.evaluate(node, values) ── op.run ── kernels

`steps` yields every value. `run` wants only some, so nodes may be joined first (arithmetic.fuse).

Everything that looks at values (capture, verify, cost, reports) is a loop over `steps`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from refnet.arithmetic.plain import Plain
from refnet.core.errors import InputError, WeightsError
from refnet.core.graph import Graph, Node, Schedule
from refnet.core.op import F32


class Arithmetic(Protocol):
    """How a run rounds: what makes a node's value out of its inputs."""

    name: str

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value."""
        ...

    def executed(self, graph: Graph) -> Graph:
        """The graph that is run: this one, or what an executor that joins nodes makes of it."""
        ...

    def fuse(self, nodes: Sequence[Node], keep: Collection[str]) -> tuple[Node, ...]:
        """The nodes, some joined to share a pass over memory; values in `keep` exist, and no bit changes."""
        ...


def steps(
    graph: Graph,
    inputs: Mapping[str, F32],
    arithmetic: Arithmetic | None = None,
    until: Collection[str] | None = None,
) -> Iterator[tuple[Node, F32]]:
    """Yield (node, value) for every node in execution order; each value is freed after its last use.

    Values are read-only while later nodes may need them: copy one to change it.

    inputs: name -> float32 array (batch, ...). arithmetic: default `Plain()`.
    until: only the nodes that these values need (default: all nodes).
    Raises InputError or WeightsError before the first node if something does not fit.

    >>> import refnet
    >>> graph = refnet.load("octave-se-resnet-digits")
    >>> x = np.zeros((1, *graph.inputs["data"].shape[1:]), np.float32)
    >>> next(iter(refnet.steps(graph, {"data": x})))[0].name
    'conv1_conv'
    """
    arithmetic = Plain() if arithmetic is None else arithmetic
    graph = _executed(graph, arithmetic, until or ())
    nodes = graph.nodes if until is None else _needed(graph, until)
    yield from _execute(graph, inputs, arithmetic, schedule(nodes))


def run(
    graph: Graph,
    inputs: Mapping[str, F32],
    arithmetic: Arithmetic | None = None,
    values: Collection[str] | None = None,
) -> dict[str, F32]:
    """Run a graph: {output name: array}, or {value name: array} for the values asked for.

    inputs: name -> float32 array (batch, ...). values: value names to return instead of the outputs.

    >>> import refnet
    >>> graph = refnet.load("octave-se-resnet-digits")
    >>> x = np.zeros((2, *graph.inputs["data"].shape[1:]), np.float32)
    >>> refnet.run(graph, {"data": x})["prob"].shape
    (2, 10)
    """
    wanted = dict(graph.outputs) if values is None else {name: name for name in values}
    needed = set(wanted.values())
    arithmetic = Plain() if arithmetic is None else arithmetic
    graph = _executed(graph, arithmetic, needed)
    key = (arithmetic.name, frozenset(needed))
    if key not in graph.kept:
        graph.kept[key] = schedule(arithmetic.fuse(_needed(graph, needed), needed))
    plan: Schedule = graph.kept[key]
    found = _recorded(graph, inputs, arithmetic, plan, needed)
    if found is not None:
        return {key: found[name] for key, name in wanted.items()}
    found = {n.name: v for n, v in _execute(graph, inputs, arithmetic, plan) if n.name in needed}
    for value in found.values():
        value.flags.writeable = True
    return {key: found[name] for key, name in wanted.items()}


def _recorded(
    graph: Graph, inputs: Mapping[str, F32], arithmetic: Arithmetic, plan: Schedule, wanted: Collection[str]
) -> dict[str, F32] | None:
    """The wanted values from a recording, if this run is one or repeats one."""
    if type(arithmetic) is not Plain or not graph.fixed:  # what is derived from it may do anything
        return None
    recordings = graph.kept.get("recordings")
    if recordings is None:
        from refnet.arithmetic.captured_run import Recordings  # loads the compiler

        recordings = graph.kept.setdefault("recordings", Recordings())
    found: dict[str, F32] | None = recordings.run(graph, inputs, arithmetic, plan, wanted)
    return found


def _executed(graph: Graph, arithmetic: Arithmetic, wanted: Collection[str]) -> Graph:
    """The graph that is run, after checking that it has the wanted values that the graph has."""
    executed = arithmetic.executed(graph)
    gone = [name for name in wanted if name in graph.by_name and name not in executed.by_name]
    if gone:
        raise InputError(
            f"{graph.name}: {gone[0]} has no value here: the book's executor joins it with others"
        )
    return executed


def _execute(
    graph: Graph, inputs: Mapping[str, F32], arithmetic: Arithmetic, plan: Schedule
) -> Iterator[tuple[Node, F32]]:
    graph.types(graph.check_inputs(inputs))
    _check_weights(graph)
    values: dict[str, F32] = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    weights, evaluate = graph.weights, arithmetic.evaluate
    for node, data, learned, done in plan:
        arguments = [values[name] for name in data]
        arguments += [weights[name] for name in learned]
        value = evaluate(node, *arguments)
        del arguments
        value.flags.writeable = False  # later nodes read it
        values[node.name] = value
        yield node, value
        del value
        for name in done:
            del values[name]


def schedule(nodes: Sequence[Node]) -> Schedule:
    """The nodes in order, each with its data's and its weights' names, and the values that end with it.

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


def _check_weights(graph: Graph) -> None:
    """Kernels trust shapes: whoever made the graph's weights, they are what the nodes need."""
    if missing := [name for name in graph.weight_types if name not in graph.weights]:
        raise WeightsError(f"{graph.name} has no weights yet: {len(missing)} missing, first {missing[0]}")
    for name, kind in graph.weight_types.items():
        array = graph.weights[name]
        if array.shape != kind.shape or array.dtype != np.float32:
            raise WeightsError(
                f"{graph.name}: weight {name} is {array.dtype}{list(array.shape)}, needed is {kind!r}"
            )


def _needed(graph: Graph, names: Collection[str]) -> tuple[Node, ...]:
    wanted = set(names)
    for name in names:
        if name not in graph.by_name:
            raise InputError(f"{graph.name} has no value {name!r}")
    kept = []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(node.data)
    return tuple(reversed(kept))
