"""What the two builders share: a list of nodes that grows, with the framework's names for weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from refnet.core.graph import Node
from refnet.ops import Op

MXNET = {
    "weight": "_weight",
    "bias": "_bias",
    "gamma": "_gamma",
    "beta": "_beta",
    "mean": "_moving_mean",
    "var": "_moving_var",
}
"""Role of a weight -> what MXNet's symbols append to the node's name."""

PYTORCH = {
    "weight": ".weight",
    "bias": ".bias",
    "gamma": ".weight",
    "beta": ".bias",
    "mean": ".running_mean",
    "var": ".running_var",
}
"""Role of a weight -> what PyTorch's state dicts append to the module's path."""


@dataclass(frozen=True)
class Builder:
    """Nodes in the order of their making; each call appends one and returns its name.

    suffixes: role -> ending of a weight's name, MXNET or PYTORCH.

    >>> from refnet.ops import Dense
    >>> build = Builder(PYTORCH)
    >>> build("fc", Dense(10), "x")
    'fc'
    >>> print(build.nodes[0])
    fc = Dense(units=10)(x, fc.weight, fc.bias)
    """

    suffixes: Mapping[str, str]
    nodes: list[Node] = field(default_factory=list)

    def __call__(self, name: str, op: Op, *inputs: str) -> str:
        weights = (name + self.suffixes[role] for role in op.weight_roles())
        self.nodes.append(Node(name, op, (*inputs, *weights)))
        return name


def depth_first(nodes: Iterable[Node], head: str) -> tuple[Node, ...]:
    """The nodes that `head` needs, each after its inputs, inputs visited first to last.

    It is the order in which MXNet writes the nodes of a symbol file (NNVM's depth-first visit).

    >>> from refnet.ops import Add, Relu
    >>> made = [Node("a", Relu(), ("x",)), Node("b", Relu(), ("x",)), Node("s", Add(), ("b", "a"))]
    >>> [node.name for node in depth_first(made, "s")]
    ['b', 'a', 's']
    """
    by_name = {node.name: node for node in nodes}
    ordered: list[Node] = []
    done: set[str] = set()
    waiting = [(head, False)]
    while waiting:
        name, inputs_done = waiting.pop()
        if name in done or name not in by_name:
            continue
        if inputs_done:
            done.add(name)
            ordered.append(by_name[name])
        else:
            waiting.append((name, True))
            waiting += [(data, False) for data in reversed(by_name[name].data)]
    return tuple(ordered)
