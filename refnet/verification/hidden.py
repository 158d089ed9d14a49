"""Values that a capture lacks, computed by a book's recipes from the values that it has.

    captured values ── HiddenReplay.value(name) ── bits by the book's recipe ── HiddenReplay.known ── ...

A framework that fuses nodes shows only the last one's value. The book says which nodes are fused, and has
recipes for the fused ones; so a value's bits can be known although its inputs were never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from refnet.core.graph import Graph
from refnet.core.op import F32

if TYPE_CHECKING:
    from refnet.arithmetic.replay import Replay


class HiddenReplay:
    """Bits of the executed graph's values, known or replayed; each is forgotten after its last use."""

    def __init__(self, graph: Graph, replay: Replay, data: Mapping[str, F32 | None]) -> None:
        self.replay = replay
        self.graph = replay.fused_graph(graph)
        self.bits: dict[str, F32] = {name: value for name, value in data.items() if value is not None}
        self.last = {name: node.name for node in self.graph.nodes for name in node.data}

    def value(self, name: str) -> F32 | None:
        """The bits of a value by the book, from what is known of its inputs; None if too little is known."""
        node = self.graph.by_name.get(name)
        if node is None or any(one not in self.bits for one in node.data):
            return None
        weights = [self.graph.weights[one] for one in node.weights]
        return self.replay.evaluate_or_none(node, *(self.bits[one] for one in node.data), *weights)

    def known(self, name: str, value: F32 | None) -> None:
        """Keep a value's bits, captured or replayed, as long as later nodes read it."""
        node = self.graph.by_name.get(name)
        if node is None:
            return
        if value is not None and name in self.last:
            self.bits[name] = value
        for one in node.data:
            if self.last[one] == name:
                self.bits.pop(one, None)
