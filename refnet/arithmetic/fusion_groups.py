"""The graph that an executor makes by joining nodes: nodes that it computes as one become one node.

    fused_graph(graph, Joined) ── _folded     convolution, batch norm -> a convolution with other weights
                             └─── _added      convolution, addition   -> ConvAdd
                                  the rest of a group (relu, sigmoid) stays a node: its bits are its own

Values keep their names: the folded convolution has the batch norm's name, the sum the addition's. Values
inside a group no longer exist, or the framework does not show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from refnet.core.engine import Engine
from refnet.core.errors import GraphError, InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from refnet.core.orders import FOLDS, Joined
from refnet.ops import Add, BatchNorm, Clip, Conv, ConvAdd, Dense, Relu, Sigmoid


def fused_graph(graph: Graph, by: Joined, engine: Engine) -> Graph:
    """The graph as the executor computes it, with weights if the graph has them.

    Raises InputError if the groups are not in this graph, or are of a kind that refnet does not know.

    >>> from refnet.core.graph import TensorType
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
        if not isinstance(members[0].op, Conv | Dense) or gone & set(names):
            raise _unknown(graph, members)
        last = members[0]
        for node in members[1:]:
            if last.name not in node.data:
                raise _unknown(graph, members)
            if isinstance(node.op, BatchNorm) and isinstance(last.op, Conv):
                now = _folded(last, node, by.fold, weights, taken, engine)
            elif node.op == Add(2) and isinstance(last.op, Conv) and node.data.count(last.name) == 1:
                now = _added(last, node)
            elif isinstance(node.op, Relu | Sigmoid | Clip):
                last = node
                continue
            else:
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


def _added(conv: Node, addition: Node) -> Node:
    """The convolution and the addition after it as one node, the addition's."""
    assert isinstance(conv.op, Conv)
    (other,) = (name for name in addition.data if name != conv.name)
    return Node(addition.name, ConvAdd(conv.op), (*conv.data, other, *conv.weights))


def _folded(
    conv: Node, norm: Node, fold: str, weights: dict[str, F32], taken: set[str], engine: Engine
) -> Node:
    """The convolution with the batch norm in its weights, added to `weights` under names not yet taken."""
    assert isinstance(conv.op, Conv)
    names = tuple(_free(f"{norm.name}_folded_{role}", taken) for role in ("weight", "bias"))
    if weights:
        own = [weights[name] for name in (*conv.weights, *norm.weights)]
        weights[names[0]], weights[names[1]] = folded(norm.op, own, fold, engine)
    return Node(norm.name, replace(conv.op, bias=True), (*conv.data, *names))


def folded(norm: BatchNorm | object, weights: Sequence[F32], fold: str, engine: Engine) -> tuple[F32, F32]:
    """Weight and bias of the convolution and batch norm as one, by a formula of FOLDS.

    weights: weight (o, ...), perhaps bias (o,), then gamma, beta, mean and var (o,).
    Raises InputError for a formula that is not in the menu.

    >>> from refnet.arithmetic.engines import engine
    >>> weight, half, one = np.ones((1, 1, 1, 1), np.float32), np.float32([0.5]), np.float32([1])
    >>> own = [weight, half, one, one, one]
    >>> [float(a.item()) for a in folded(BatchNorm(eps=0.0), own, "double", engine("fast"))]
    [0.5, 0.5]
    """
    assert isinstance(norm, BatchNorm)
    if fold not in FOLDS:
        raise InputError(f"a batch norm can be folded by {', '.join(FOLDS)}, not by {fold!r}")
    w, *bias, gamma, beta, mean, var = weights
    one = np.float32(1)
    with np.errstate(all="ignore"):
        scale = np.ones_like(gamma) if norm.fix_gamma else gamma
        if fold.startswith("double"):
            root = np.sqrt(var.astype(np.float64) + norm.eps)
            a = (scale.astype(np.float64) / root).astype(np.float32)
        else:
            single = np.sqrt(var + np.float32(norm.eps))
            a = scale / single if fold == "single" else scale * (one / single)
        apart = bias[0] - mean if bias else -mean
        shift = engine.fused_multiply_add(a, apart, beta) if fold == "double-fused" else beta + a * apart
        return w * a.reshape(-1, *[1] * (w.ndim - 1)), shift


def _read_only(array: F32) -> F32:
    array.flags.writeable = False
    return array
