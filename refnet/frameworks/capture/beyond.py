"""Which values of refnet's own capture are more than its graph has, and why that is no mistake.

A manifest names them, and verification counts them apart. Any other value that matches no node may be a
node's under another name: it is left unmarked, and verification refuses it until it is allowed by name.

    values that match no node ── of a file that refnet reads itself ── all: the nodes' names are the file's
            └────────────────── of a callable ── a copy of a node's value; or of a size that no node lacks
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from refnet.arithmetic.types import types_of
from refnet.core.graph import Graph
from refnet.core.op import F32
from refnet.formats.manifest import Stored


def beyond_its_own(graph: Graph, values: Mapping[str, Stored]) -> dict[str, str]:
    """The values that match no node, where the graph was made of what ran."""
    why = "refnet's graph of what ran has no such node"
    return {name: why for name in values if name not in graph.by_name}


def beyond_a_callable(
    graph: Graph, inputs: Mapping[str, F32], values: Mapping[str, Stored]
) -> dict[str, str]:
    """The values of a callable that cannot be a node's under another name.

    graph: what --model names; whether the callable is that network is for verification to say.
    """
    twins: dict[str, str] = {}
    for name, one in values.items():
        if name in graph.by_name:
            twins.setdefault(one.digest.sha256, name)
    types = graph.types(types_of(inputs))
    lacking = {types[node.name].size for node in graph.nodes if node.name not in values}
    found = {}
    for name, one in values.items():
        if name in graph.by_name:
            continue
        if (twin := twins.get(one.digest.sha256)) is not None:
            found[name] = f"the bits of {twin}"
        elif prod(one.digest.shape) not in lacking:
            found[name] = "no node that the capture lacks has so many elements"
    return found
