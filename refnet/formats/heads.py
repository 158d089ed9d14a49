"""What a network's outputs are called: prob, logits, or as the file calls them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from refnet.core.graph import Node
from refnet.ops import Softmax, TensorType


def with_outputs(
    nodes: Sequence[Node],
    heads: Sequence[str],
    types: Mapping[str, TensorType],
    taken: Collection[str],
    returned: Mapping[str, str] | None = None,
) -> tuple[list[Node], dict[str, str]]:
    """The nodes, and output name -> value.

    returned: what a module calls its outputs, in its order: they are called so, and nothing is added. Else
    "prob" is the only softmax among the heads, "logits" its input if that is the other head; other heads
    keep their names. A single head of (n, classes) that is no softmax becomes "logits", and a softmax node,
    named "prob" unless that is taken, is put on top.

    >>> from refnet.ops import Flatten
    >>> nodes = [Node("f", Flatten(), ("data",))]
    >>> with_outputs(nodes, ["f"], {"f": TensorType((1, 10))}, {"data", "f"})[1]
    {'prob': 'prob', 'logits': 'f'}
    """
    if own := {name: value for name, value in (returned or {}).items() if value in heads}:
        return list(nodes), {**own, **{one: one for one in heads if one not in own.values()}}
    by_name = {node.name: node for node in nodes}
    first = types[heads[0]]
    classes = len(first.shape) == 2 and first.dtype == "float32"
    if len(heads) == 1 and not isinstance(by_name[heads[0]].op, Softmax) and classes:
        extra = "prob"
        while extra in taken:
            extra = f"refnet_{extra}"
        return [*nodes, Node(extra, Softmax(axis=1), (heads[0],))], {"prob": extra, "logits": heads[0]}
    softmaxes = [name for name in heads if isinstance(by_name[name].op, Softmax)]
    others = [name for name in heads if name not in softmaxes]
    outputs = {name: name for name in heads}
    if len(softmaxes) == 1 and "prob" not in others:
        outputs = {"prob" if name in softmaxes else name: name for name in heads}
        if others == list(by_name[softmaxes[0]].inputs):
            outputs = {"prob": softmaxes[0], "logits": others[0]}
    return list(nodes), outputs
