"""Sequences of tensors, as the newer exporter of PyTorch writes `chunk`: each element a part of the tensor.

SplitToSequence(x, split) -> s ── nothing, as a sequence is no value
SequenceAt(s, i) -> y ─────────── SequenceAt(x, split, i) -> y, one part of x
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from refnet.formats.assembly import Made
from refnet.formats.onnx.file import OnnxNode
from refnet.formats.onnx.shape import led
from refnet.formats.onnx.use import Use
from refnet.ops import Reshape, Slice


class Sequences:
    """The sequences of a graph that are read one element at a time."""

    def __init__(self, nodes: Sequence[OnnxNode], outputs: Collection[str]) -> None:
        read = (name for node in nodes if node.op != "SequenceAt" for name in node.inputs)
        self._others = {*read, *outputs}
        self._split: dict[str, OnnxNode] = {}

    def taken(self, node: OnnxNode) -> bool:
        """Whether a node makes such a sequence; its elements are made where they are read."""
        if node.op != "SplitToSequence" or node.outputs[0] in self._others:
            return False
        self._split[node.outputs[0]] = node
        return True

    def at(self, node: OnnxNode) -> OnnxNode:
        """The node; that of an element with the inputs and attributes of the sequence's own."""
        split = self._split.get(node.inputs[0]) if node.op == "SequenceAt" and node.inputs else None
        if split is None:
            return node
        data, sizes = (*split.inputs, "")[:2]
        return replace(node, inputs=(data, sizes, node.inputs[1]), attributes=split.attributes)


def sequence_at(u: Use) -> list[Made]:
    """One part: of the given sizes, of one size, the last smaller, or of 1, whose axis `keepdims` keeps."""
    if len(u.node.inputs) != 3:
        raise u.node.unsupported("a sequence that is not split from one value")
    shape = u.type().shape
    axis = u.axis(u["axis"], len(shape))
    size, single = shape[axis], not u.has(1)
    sizes = [1] * size
    if not single:
        given = u.constant(1, "split")
        if given.dtype.kind not in "iu" or given.ndim > 1 or not given.size:
            raise u.node.wrong(f"{given.dtype} {list(given.shape)} as split", "whole numbers")
        sizes = [int(n) for n in given.reshape(-1)]
        if given.ndim == 0:
            if sizes[0] < 1:
                raise u.node.wrong(f"parts of {sizes[0]}", "at least 1")
            sizes = [min(sizes[0], size - k) for k in range(0, size, sizes[0])]
    if sum(sizes) != size or min(sizes) < 1:
        raise u.node.wrong(f"parts {sizes[:8]} of {size}", "at least 1 each, together all")
    position = u.constant(2, "position")
    if position.size != 1 or position.dtype.kind not in "iu":
        raise u.node.wrong(f"{position.dtype} {list(position.shape)} as position", "one whole number")
    k = u.axis(int(position.reshape(-1)[0]), len(sizes), "position")
    name, begin = u.node.outputs[0], sum(sizes[:k])
    op = Slice(begin, begin + sizes[k], axis)
    if not single or u["keepdims"]:
        return [Made(name, op, u.node.inputs[:1])]
    rest = led([n for i, n in enumerate(shape) if i != axis], axis != 0)
    return [
        Made(f"{name}/part", op, u.node.inputs[:1]),
        Made(name, Reshape(rest), (f"{name}/part",)),
    ]
