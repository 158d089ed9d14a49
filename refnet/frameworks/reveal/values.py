"""What a framework computed, node by node with its inputs: shown, asked for alone, or shown as a twin.

framework_values ── values          the stream of a capture, in the framework's order
          ├──────── call            what it does not show is asked for alone
          └──────── twins           what it computes only once, because two nodes are the same
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from refnet.arithmetic.types import types_of
from refnet.core.errors import UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Op
from refnet.frameworks.caller import Caller
from refnet.kernels.engine import Fast

Computed = tuple[Node, list[F32], F32]
"""A node, its inputs and weights, its value."""


def twins(graph: Graph) -> dict[str, tuple[str, ...]]:
    """The nodes that compute the same as another: op, attributes, inputs and weights. name -> the others.

    Inputs that are twins count as the same, so what follows twins may be twins, too.

    >>> from refnet.ops import Identity, Relu, TensorType
    >>> nodes = [Node("a", Relu(), ("x",)), Node("b", Relu(), ("x",)), Node("c", Identity(), ("b",))]
    >>> twins(Graph("g", {"x": TensorType((1, 2))}, tuple(nodes), {"c": "c"}))
    {'a': ('b',), 'b': ('a',)}
    """
    first: dict[str, str] = {}
    alike: dict[tuple[Op, tuple[str, ...], tuple[str, ...]], list[str]] = defaultdict(list)
    for node in graph.nodes:
        same = alike[node.op, tuple(first.get(name, name) for name in node.data), node.weights]
        same.append(node.name)
        first[node.name] = same[0]
    return {
        name: tuple(other for other in names if other != name)
        for names in alike.values()
        for name in names
        if len(names) > 1
    }


def framework_values(
    graph: Graph,
    data: Mapping[str, F32],
    values: Iterator[tuple[str, F32]],
    keys: Mapping[str, str],
    call: Callable[[str], Caller],
    inner: Collection[str] = (),
    outputs: Callable[[], Collection[str]] = tuple,
) -> Iterator[Computed]:
    """Each node with its inputs, weights and value, all the framework's; freed after their last use.

    Two kinds of values that the framework does not show it computes alone: outputs that its network does not
    have (a softmax on top of a module that returns logits), and what lies inside of nodes that it joins
    (inner; not where it has no such op). Whether these are computed so in the network, too, the value of the
    last of them says.

    A node that is not shown because it has a twin (MXNet eliminates common subexpressions) has its twin's
    value: those that read it have it at once, and itself comes after all others.
    """
    same = twins(graph)
    types = graph.types(types_of(data))
    eliminated: dict[str, tuple[list[F32], F32]] = {}
    uses = Counter(name for node in graph.nodes for name in set(node.data))
    known: dict[str, F32] = dict(data)
    seen: set[str] = set()

    def arguments(node: Node) -> list[F32]:
        return [known[n] for n in node.data] + [graph.weights[n] for n in node.weights]

    def used(node: Node) -> None:
        for name in (*set(node.data), node.name):
            uses[name] -= name != node.name
            if uses[name] <= 0:
                known.pop(name, None)

    def unseen(node: Node) -> list[Node]:
        """The inner nodes between this one and what is known, in order."""
        found: list[Node] = []
        for name in node.data:
            if name in inner and name not in known and name not in seen:
                found += [*unseen(graph.by_name[name]), graph.by_name[name]]
        return found

    def shaped(node: Node, found: F32) -> F32:
        """A value that was shown, in the shape that the graph has for it."""
        kind = types[node.name]
        return np.ascontiguousarray(found, kind.dtype).reshape(kind.shape)

    def alone(node: Node) -> Computed | None:
        """The node's value as the framework computes it when it is asked for it alone; None if it cannot."""
        inputs = arguments(node)
        seen.add(node.name)
        try:
            if node.op.needs_recipe:
                known[node.name] = call(keys[node.name]).whole(inputs)
            else:  # there is only one right result
                known[node.name] = node.op.run(*inputs, engine=Fast())
        except UnsupportedError:
            return None
        return node, inputs, known[node.name]

    for name, found in values:
        node = graph.by_name.get(name)
        if node is None or name in seen:
            continue
        for before in unseen(node):
            if all(n in known for n in before.data) and (computed := alone(before)) is not None:
                yield computed
                used(before)
        if any(n not in known for n in node.data):
            if uses[name] > 0:  # nothing can be said of it; its readers have it all the same
                known[name] = shaped(node, found)
            seen.add(name)
            continue
        seen.add(name)
        eliminated.pop(name, None)
        inputs = arguments(node)
        known[name] = shaped(node, found)
        for twin in same.get(name, ()):
            if twin not in seen:
                eliminated[twin] = inputs, known[name]
                if uses[twin] > 0:
                    known[twin] = known[name]
        yield node, inputs, known[name]
        used(node)
    for name, (inputs, value) in eliminated.items():
        seen.add(name)
        yield graph.by_name[name], inputs, value
    absent = outputs()
    for node in graph.nodes:
        unshown = node.name in inner or node.name in absent
        if unshown and node.name not in seen and all(n in known for n in node.data):
            computed = alone(node)
            if computed is not None:
                yield computed
                used(node)
