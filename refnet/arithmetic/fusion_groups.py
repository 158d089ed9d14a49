"""The graph that an executor makes by joining nodes: nodes that it computes as one become one node.

    fused_graph(graph, Joined) ── _folded     convolution, batch norm -> a convolution with other weights
                             ├─── _added      convolution, addition   -> ConvAdd
                             ├─── _biased     product, its bias       -> a product with a bias
                                  the rest of a group (relu, sigmoid) stays a node: its bits are its own

Values keep their names: the folded convolution has the batch norm's name, the sum the addition's. Values
inside a group no longer exist, or the framework does not show them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from types import MappingProxyType

from refnet.core.engine import ADD, Engine
from refnet.core.errors import GraphError, InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Fusable, Op, Reduction
from refnet.core.orders import Joined


def fused_graph(graph: Graph, by: Joined, engine: Engine) -> Graph:
    """The graph as the executor computes it, with weights if the graph has them.

    Raises InputError if the groups are not in this graph, or are of a kind that refnet does not know.

    >>> from refnet.core.graph import TensorType
    >>> from refnet.ops import Add, Conv
    >>> nodes = (
    ...     Node("c", Conv(4, (1, 1)), ("x", "w")),
    ...     Node("y", Add(2), ("c", "x")),
    ... )
    >>> graph = Graph("g", {"x": TensorType((1, 4, 7, 7))}, nodes, {"out": "y"})
    >>> from refnet.arithmetic.engines import engine
    >>> print(fused_graph(graph, Joined((("c", "y"),)), engine("fast")))
    g (nodes joined)(x: float32[1, 4, 7, 7]):
        y = ConvAdd(conv=Conv(channels=4, kernel=(1, 1)))(x, x, w)
        return out=y
    """
    made: dict[str, Node] = {}
    gone: set[str] = set()
    weights = dict(graph.weights)
    taken = {*graph.weight_types, *graph.by_name, *graph.inputs}
    for names in by.groups:
        members = _members(graph, names)
        if not _begins(members[0].op) or gone & set(names):
            raise _unknown(graph, members)
        last = members[0]
        for node in members[1:]:
            if last.name not in node.data:
                raise _unknown(graph, members)
            now = _folded(last, node, by.fold, weights, taken, engine)
            now = now or _biased(last, node) or _added(last, node)
            if now is None and node.op.activation:
                last = node
                continue
            if now is None:
                raise _unknown(graph, members)
            gone.add(last.name)
            made[node.name] = last = now
    inner = hidden(by)
    for output, name in graph.outputs.items():
        if name in inner:
            raise InputError(
                f"{graph.name}: output {output!r} is {name}, which is joined with what follows it: an "
                "executor that does so returns another value for it"
            )
    nodes = tuple(made.get(node.name, node) for node in graph.nodes if node.name not in gone)
    try:
        new = Graph(f"{graph.name} (nodes joined)", graph.inputs, nodes, graph.outputs)
    except GraphError as error:
        raise InputError(f"the nodes that are joined are not those of this graph: {error}") from None
    if not graph.weights:
        return new
    kept = {name: _read_only(weights[name]) for node in nodes for name in node.weights}
    return replace(new, weights=MappingProxyType(kept))


def hidden(by: Joined) -> frozenset[str]:
    """The nodes whose values a framework that joins these does not show: all of a group but the last."""
    return frozenset(name for names in by.groups for name in names[:-1])


def _members(graph: Graph, names: Sequence[str]) -> list[Node]:
    if absent := [name for name in names if name not in graph.by_name]:
        raise InputError(f"{graph.name} has no value {absent[0]!r}, which is said to be joined with others")
    return [graph.by_name[name] for name in names]


def _unknown(graph: Graph, members: Sequence[Node]) -> InputError:
    shown = ", ".join(f"{node.name} = {type(node.op).__name__}" for node in members)
    return InputError(f"{graph.name}: refnet does not know nodes that are joined like this: {shown}")


def _free(name: str, taken: set[str]) -> str:
    """The name, or a longer one that is not taken yet."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _begins(op: Op) -> bool:
    """Whether executors join other ops with this one: a sum of products."""
    return isinstance(op, Reduction) and not op.averages and not op.adds


def _added(last: Node, addition: Node) -> Node | None:
    """The sum and the addition of two after it as one node, the addition's; None if they are no such ops."""
    adds = isinstance(addition.op, Fusable) and addition.op.step == ADD
    if not adds or not isinstance(last.op, Reduction) or addition.data.count(last.name) != 1:
        return None
    op = last.op.with_addend()
    if op is None:
        return None
    (other,) = (name for name in addition.data if name != last.name)
    return Node(addition.name, op, (*last.data, other, *last.weights))


def _folded(
    last: Node, norm: Node, fold: str, weights: dict[str, F32], taken: set[str], engine: Engine
) -> Node | None:
    """The convolution with the batch norm in its weights; None if they are no such ops.

    The new weights are added to `weights` under names not yet taken.
    """
    op = last.op.with_bias() if isinstance(last.op, Reduction) else None
    if op is None or not norm.op.folds:
        return None
    names = tuple(_free(f"{norm.name}_folded_{role}", taken) for role in ("weight", "bias"))
    if weights:
        own = [weights[name] for name in (*last.weights, *norm.weights)]
        weights[names[0]], weights[names[1]] = norm.op.fold(fold, own, engine)
    return Node(norm.name, op, (*last.data, *names))


def _biased(last: Node, addition: Node) -> Node | None:
    """A sum without a bias and the addition of a weight that has a number per output as one node."""
    adds = isinstance(addition.op, Fusable) and addition.op.step == ADD
    op = last.op.with_bias() if isinstance(last.op, Reduction) else None
    if not adds or op is None or addition.data != (last.name,) or len(addition.weights) != 1:
        return None
    return Node(addition.name, op, (*last.inputs, *addition.weights))


def biased_sums(graph: Graph, unshown: Collection[str]) -> tuple[tuple[str, str], ...]:
    """The sums whose value a framework does not show, each with the addition of its bias, which it shows."""
    found = []
    for node in graph.nodes:
        last = graph.by_name.get(node.data[0]) if len(node.data) == 1 else None
        if last is not None and last.name in unshown and _biased(last, node) is not None:
            found.append((last.name, node.name))
    readers = Counter(name for node in graph.nodes for name in set(node.data))
    return tuple(pair for pair in found if readers[pair[0]] == 1 and pair[0] not in graph.outputs.values())


def foldable(graph: Graph, groups: Sequence[Sequence[str]]) -> bool:
    """Whether these groups of names hold an op that is folded into weights."""
    return any(graph.by_name[name].op.folds for names in groups for name in names)


def _read_only(array: F32) -> F32:
    array.flags.writeable = False
    return array
