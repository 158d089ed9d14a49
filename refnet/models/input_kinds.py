"""What each input of a network must be: its shape and dtype, and which integers mean something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refnet.core.graph import Graph


@dataclass(frozen=True)
class InputKind:
    """What an input must be. shape: of one image, with its leading 1.

    below: integers of a seed are from 0 on and below it: as many as the table has that they are indices of;
    where there is none, two, which a mask and a kind of tokens may be.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    below: int = 2


Kinds = Mapping[str, InputKind]


def kinds_of(graph: Graph) -> dict[str, InputKind]:
    """What the graph's inputs must be, by name."""
    types = graph.types()
    source = {name: name for name in graph.inputs}  # a value -> the input whose elements it has
    limits: dict[str, int] = {}
    for node in graph.nodes:
        inputs = [types[name] for name in node.inputs]
        for place, name in enumerate(node.data):
            limit = node.op.index_limit(place, *inputs)
            if limit is not None and name in source:
                limits[source[name]] = min(limit, limits.get(source[name], limit))
        if node.op.reshapes and node.data[0] in source:
            source[node.name] = source[node.data[0]]
    return {
        name: InputKind(kind.shape, kind.dtype, limits.get(name, 2)) for name, kind in graph.inputs.items()
    }
