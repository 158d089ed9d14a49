"""A network with other outputs, and only what these need."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.words import did_you_mean, quoted


def with_only(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with these outputs, and without the nodes, inputs and weights that none of them needs.

    names: of outputs or of values. Raises InputError for all names that there are not, and for inputs.

    >>> import refnet
    >>> from refnet.models.loading import structure
    >>> one = with_only(structure("resnest-digits"), ["conv1.2"])
    >>> [node.name for node in one.nodes], one.outputs
    (['conv1.0', 'conv1.1', 'conv1.2'], {'conv1.2': 'conv1.2'})
    """
    outputs = {name: graph.outputs.get(name, name) for name in names}
    unknown = [name for name, value in outputs.items() if value not in graph.by_name]
    if unknown:
        known = {*graph.by_name, *graph.outputs}
        hints = [
            " is an input" if name in graph.inputs else did_you_mean(name, known) for name in unknown[:8]
        ]
        said = [f"{quoted(name)}{hint}" for name, hint in zip(unknown, hints, strict=False)]
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise InputError(f"{graph.name} has no values of these names: {'; '.join(said)}{more}")
    nodes = needed(graph, outputs.values())
    read = {name for node in nodes for name in node.data}
    learned = {name for node in nodes for name in node.weights}
    return replace(
        graph,
        inputs={name: kind for name, kind in graph.inputs.items() if name in read},
        nodes=nodes,
        outputs=outputs,
        weights={name: array for name, array in graph.weights.items() if name in learned},
    )


def needed(graph: Graph, values: Collection[str]) -> tuple[Node, ...]:
    """The nodes that values need, in order."""
    wanted, kept = set(values), []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(node.data)
    return tuple(reversed(kept))
