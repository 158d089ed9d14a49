"""Operators that ONNX itself defines by others: the nodes of the definition in the place of the node.

    Bodies.of ── onnx's schema, with the types of the inputs ── onnx's inliner ── nodes, checked as a file's

The node's values keep their names; those inside are called VALUE/NAME, VALUE the node's first output. A file
cannot make a definition longer: it is onnx's own, and its length is the operator's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from refnet.core.errors import RefnetError
from refnet.formats.assembly import Building
from refnet.formats.onnx.file import Model, OnnxNode, checked_nodes, package
from refnet.formats.opaque import Opaques

DEFINED = frozenset({
    "AffineGrid", "Attention", "CausalConvWithState", "CenterCropPad", "MeanVarianceNormalization",
    "NegativeLogLikelihoodLoss", "RotaryEmbedding", "Shrink", "SoftmaxCrossEntropyLoss", "SwiGLU",
    "ThresholdedRelu",
})  # fmt: skip
"""The operators without a rule of refnet's own whose definitions are asked for. onnx writes some of them in
C++, by the node's attributes and types: those listed were attacked (tests/helpers/onnx_attack.py)."""
DOMAIN = "refnet.definition"
"""Of a definition while it is written out."""
LARGEST = 1 << 31
"""Of a number in an attribute that onnx's code is shown."""


class Bodies:
    """The definitions of a file's nodes. Values inside get no name that the file has."""

    def __init__(self, model: Model) -> None:
        self._file = model.file
        self._names = {*model.inputs, *model.constants.tensors}
        self._names.update(name for node in model.nodes for name in (*node.inputs, *node.outputs))

    def of(self, node: OnnxNode, building: Building, wanted: set[str]) -> Iterator[OnnxNode]:
        """The nodes that make the wanted outputs of a node of `DEFINED`, each when those before it are built:
        which branch an If takes is a constant then. What they read is added to `wanted`.

        Raises UnsupportedError where onnx has no definition for the node's types and attributes.
        """
        onnx = package("reading")
        opset = _opset(node, onnx)
        proto = self._inlined(node, opset, building, onnx)
        names = self._renamed(proto, node)
        for one in proto.graph.node:
            _rename(one, names)
        made: set[str] = set()
        nodes = _needed(proto.graph.node, wanted)
        wanted.update(*map(_read, nodes))
        for one in self._chosen(nodes, node, building):
            try:
                (found,) = checked_nodes([one], {*one.input}, self._file, opset, onnx)
            except RefnetError as error:
                text = str(error).removeprefix(f"{self._file}: ")
                raise node.unsupported(f"its definition: {text}") from None
            if made.intersection(found.outputs):
                raise node.unsupported("its definition makes two values of a name")
            made.update(filter(None, found.outputs))
            yield replace(found, index=node.index)

    def _chosen(self, nodes: Iterable[Any], node: OnnxNode, building: Building) -> Iterator[Any]:
        """The nodes, those of the branch that is taken in the place of an If."""
        for one in nodes:
            if one.op_type != "If":
                yield one
                continue
            if one.input[0] not in building.constants:
                raise node.unsupported("its definition asks what only the data says")
            which = "then_branch" if building.constants[one.input[0]].all() else "else_branch"
            (branch,) = (attribute.g for attribute in one.attribute if attribute.name == which)
            yield from self._chosen(branch.node, node, building)
            for value, name in zip(branch.output, one.output, strict=True):
                yield type(one)(op_type="Identity", input=[value.name], output=[name])

    def _inlined(self, node: OnnxNode, opset: int, building: Building, onnx: Any) -> Any:
        """onnx's model of the node alone, its definition in its place."""
        import onnx.inliner  # no other file than .onnx needs it

        for name, value in node.attributes.items():
            numbers = value if isinstance(value, list) else [value]
            if any(isinstance(one, int) and not -LARGEST <= one < LARGEST for one in numbers):
                raise node.unsupported(f"{name} {value!r:.60}")
        schema = onnx.defs.get_schema(node.op, node.opset, "")
        call = type(node.proto)()
        call.CopyFrom(node.proto)
        there = {attribute.name for attribute in call.attribute}
        for name, rule in schema.attributes.items():
            if name not in there and rule.default_value.name:  # definitions refer to it as if it were there
                call.attribute.append(rule.default_value)
        kinds = {name: _kind(building, name, onnx) for name in node.inputs}
        function = onnx.FunctionProto()
        try:
            if schema.has_function:
                data = schema.get_function_with_opset_version(opset)
            else:
                types = [kinds[name].SerializeToString() for name in node.inputs]
                given = call.SerializeToString()
                data = schema.get_context_dependent_function_with_opset_version(opset, given, types)
            function.ParseFromString(data)
            function.domain = call.domain = DOMAIN
            inputs = [onnx.ValueInfoProto(name=name, type=kind) for name, kind in kinds.items() if name]
            outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
            graph = onnx.helper.make_graph([call], "one", inputs, outputs)
            opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(DOMAIN, 1)]
            del function.opset_import[:]
            function.opset_import.append(opsets[0])
            model = onnx.helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
            return onnx.inliner.inline_local_functions(model)
        except Exception:  # of C++, without a class of its own
            raise node.unsupported("onnx has no definition of it for these inputs and attributes") from None

    def _renamed(self, proto: Any, node: OnnxNode) -> dict[str, str]:
        """Name inside of the definition -> its name in the graph."""
        kept = {*node.inputs, *node.outputs}
        first = next(filter(None, node.outputs))
        names: dict[str, str] = {}
        for one in _within(proto.graph.node):
            for name in one.output:
                if name and name not in kept and name not in names:
                    new = f"{first}/{name.removesuffix('__1')}"
                    while new in self._names or new in names.values():
                        new += "_"
                    names[name] = new
        return names


def _kind(building: Building, name: str, onnx: Any) -> Any:
    """The ONNX type of an input; an empty one where there is none."""
    if not name:
        return onnx.TypeProto()
    kind = building.type(name)
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype))
    return onnx.helper.make_tensor_type_proto(number, kind.shape)


def _opset(node: OnnxNode, onnx: Any) -> int:
    """The opset in whose operators this version of the operator is defined: the newest up to the file's, else
    the first."""
    schema = onnx.defs.get_schema(node.op, node.opset, "")
    known = [*schema.function_opset_versions, *schema.context_dependent_function_opset_versions]
    if not known:
        raise node.unsupported("onnx has no definition of it in this opset")
    return int(max((one for one in known if one <= node.opset), default=min(known)))


def _within(nodes: Any) -> Iterator[Any]:
    """The nodes, and those of their branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _within(attribute.g.node)


def _rename(node: Any, names: dict[str, str]) -> None:
    for one in _within([node]):
        for values in (one.input, one.output):
            values[:] = [names.get(name, name) for name in values]
        for attribute in one.attribute:
            for value in attribute.g.output:
                value.name = names.get(value.name, value.name)


def _needed(nodes: Any, wanted: Collection[str]) -> list[Any]:
    """The nodes that the wanted values need, in order."""
    asked, kept = {*wanted}, []
    for node in reversed(nodes):
        if asked.intersection(filter(None, node.output)):
            kept.append(node)
            asked.update(_read(node))
    return kept[::-1]


def _read(node: Any) -> set[str]:
    """What a node and its branches read, and what the branches give."""
    found: set[str] = set()
    for one in _within([node]):
        found.update(one.input)
        found.update(value.name for part in one.attribute for value in part.g.output)
    return found


@dataclass
class Attempt:
    """What a graph had before a definition was put into it, which stays if refnet can compute all of it."""

    building: Building
    constants: dict[str, Any]
    opaques: Opaques

    def __post_init__(self) -> None:
        self._count = len(self.building.made)
        self._known = [len(one) for one in self._tables()]

    def _tables(self) -> tuple[dict[str, Any], ...]:
        return self.building.types, self.constants, self.opaques.left_out, self.opaques.borders

    def failed(self) -> str:
        """Why refnet cannot compute the definition; "" if it can."""
        opaque = (made.op.opaque for made in self.building.made[self._count :])
        left = (self.opaques.left_out[name] for name in self._new(self.opaques.left_out, self._known[2]))
        return next(filter(None, (*opaque, *left)), "")

    def undo(self) -> None:
        """Take the definition out again."""
        del self.building.made[self._count :]
        for table, known in zip(self._tables(), self._known, strict=True):
            for name in self._new(table, known):
                del table[name]

    @staticmethod
    def _new(table: dict[str, Any], known: int) -> list[str]:
        """The keys that came after the first ones: dictionaries keep the order."""
        return [*islice(reversed(table), len(table) - known)]
