"""Graph -> symbol.json that MXNet 1.9.1 loads.

A node of refnet becomes one node of MXNet with the same name; split attention's three ops, which MXNet
does not have, become several, of which the last makes the value and keeps the name:

    RadixSum      slice_axis per part, elemwise_add in a chain
    RadixSoftmax  slice_axis per (group, part), Concat per part, expand_dims, Concat, softmax over the
                  parts, slice_axis, Flatten, Concat (radix 1: sigmoid, Flatten)
    WeightedSum   expand_dims twice, broadcast_mul, then as RadixSum

and a ConvAdd becomes the Convolution and the elemwise_add that it was joined of. A PRelu's slope says its
shape (`__shape__`), which may be (1,) or (c,).

All of them are ops that `read_symbol` knows, so the file reads back as a graph of simpler nodes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from refnet.core.errors import GraphError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.formats.mxnet import functions
from refnet.formats.write import whole_file
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    ConvAdd,
    Dense,
    Div,
    ExpandDims,
    Flatten,
    GlobalAvgPool,
    Identity,
    LeakyRelu,
    MaxPool,
    Mul,
    Op,
    Pad,
    PRelu,
    RadixSoftmax,
    RadixSum,
    ReduceMean,
    ReduceSum,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Sub,
    TensorType,
    Transpose,
    UpsampleNearest,
    WeightedSum,
    WithScalar,
)

MXNET_VERSION = 10901

Attributes = dict[str, object]

SCALARS = {
    "add": "_plus_scalar",
    "sub": "_minus_scalar",
    "rsub": "_rminus_scalar",
    "mul": "_mul_scalar",
    "div": "_div_scalar",
    "rdiv": "_rdiv_scalar",
}
"""WithScalar's kind -> MXNet's op."""


@dataclass
class _Writer:
    """The nodes written so far, and where each value stands."""

    taken: set[str]
    nodes: list[dict[str, Any]] = field(default_factory=list)
    place: dict[str, int] = field(default_factory=dict)

    def variable(self, name: str) -> None:
        """A variable (op null), unless it is there."""
        if name not in self.place:
            self.place[name] = len(self.nodes)
            self.nodes.append({"op": "null", "name": name, "inputs": []})

    def node(self, op: str, name: str, inputs: Sequence[str], attributes: Attributes) -> str:
        """An op's node; its name is returned."""
        entry: dict[str, Any] = {"op": op, "name": name}
        if attributes:
            entry["attrs"] = {key: str(value) for key, value in sorted(attributes.items())}
        entry["inputs"] = [[self.place[source], 0, 0] for source in inputs]
        self.place[name] = len(self.nodes)
        self.nodes.append(entry)
        return name

    def helper(self, op: str, name: str, inputs: Sequence[str], attributes: Attributes) -> str:
        """The same for a node that makes no value of refnet's: its name gives way to others."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return self.node(op, name, inputs, attributes)


def graph_to_symbol(graph: Graph) -> str:
    """The text of a symbol.json with this graph's nodes, names and outputs (as heads, in order).

    The parameters belong into a .params file: `write_params(path, graph.weights, graph.statistics())`.
    Raises UnsupportedError for a pool in PyTorch's ceil convention that has no equal in MXNet's.

    >>> from refnet.ops import Relu, TensorType
    >>> graph = Graph("g", {"data": TensorType((1, 2))}, (Node("r", Relu(), ("data",)),), {"out": "r"})
    >>> json.loads(graph_to_symbol(graph))["nodes"][1]["attrs"]
    {'act_type': 'relu'}
    """
    types = graph.types()
    writer = _Writer(set(types))
    for name in graph.inputs:
        writer.variable(name)
    for node in graph.nodes:
        for name in node.weights:
            writer.variable(name)
        _write(writer, node, types)
    heads = [[writer.place[name], 0, 0] for name in dict.fromkeys(graph.outputs.values())]
    pointers = [0]
    for entry in writer.nodes:  # a node's first output among all outputs; batch norm has three
        pointers.append(pointers[-1] + (3 if entry["op"] == "BatchNorm" else 1))
    document = {
        "nodes": writer.nodes,
        "arg_nodes": [i for i, entry in enumerate(writer.nodes) if entry["op"] == "null"],
        "node_row_ptr": pointers,
        "heads": heads,
        "attrs": {"mxnet_version": ["int", MXNET_VERSION]},
    }
    return json.dumps(document, indent=2)


def write_symbol(path: str | os.PathLike[str], graph: Graph) -> None:
    """Write `graph_to_symbol`'s text, first under a temporary name in the same folder.

    Raises InputError where the file cannot be written.

    >>> write_symbol("/no/such/folder/a-symbol.json", Graph("g", {}, (), {}))
    Traceback (most recent call last):
    refnet.core.errors.InputError: cannot write /no/such/folder/a-symbol.json: No such file or directory
    """
    text = graph_to_symbol(graph)
    with whole_file(path) as stream:
        stream.write(text.encode())


def _write(writer: _Writer, node: Node, types: Mapping[str, TensorType]) -> None:
    match node.op:
        case RadixSum(radix=radix):
            _sum_of_parts(writer, node.name, node.inputs[0], radix, types[node.name].shape[1])
        case RadixSoftmax():
            _radix_softmax(writer, node, node.op, types)
        case WeightedSum(radix=radix):
            name, (attention, data) = node.name, node.inputs
            for axis in (2, 3):
                attention = writer.helper("expand_dims", f"{name}_expand{axis}", (attention,), {"axis": axis})
            product = writer.helper("broadcast_mul", f"{name}_product", (data, attention), {})
            _sum_of_parts(writer, name, product, radix, types[name].shape[1])
        case PRelu(shape=shape, channels=True):
            slope = writer.nodes[writer.place[node.weights[0]]]
            slope.setdefault("attrs", {})["__shape__"] = str(shape)
            writer.node("LeakyReLU", node.name, node.inputs, {"act_type": "prelu"})
        case Sub(constants=(), swapped=True) | Div(constants=(), swapped=True):
            op, _ = _simple(node, types)
            writer.node(op, node.name, node.inputs[::-1], {})
        case ConvAdd(conv):
            name, (data, addend) = node.name, node.data
            op, attributes = _simple(Node(name, conv, (data, *node.weights)), types)
            total = writer.helper(op, f"{name}_conv", (data, *node.weights), attributes)
            writer.node("elemwise_add", name, (total, addend), {})
        case _:
            op, attributes = _simple(node, types)
            writer.node(op, node.name, node.inputs, attributes)


def _simple(node: Node, types: Mapping[str, TensorType]) -> tuple[str, Attributes]:
    """MXNet's op and attributes for an op that it has."""
    refusal = UnsupportedError(f"{node.name}: {node.op!r} has no counterpart in MXNet")
    if isinstance(node.op, Conv | MaxPool | AvgPool) and not node.op.symmetric:
        raise refusal
    match node.op:
        case Conv() as op:
            return "Convolution", {
                "kernel": op.kernel,
                "stride": op.stride,
                "pad": op.pad,
                "dilate": op.dilation,
                "num_filter": op.channels,
                "num_group": op.groups,
                "no_bias": not op.bias,
            }
        case Dense() as op:
            return "FullyConnected", {"num_hidden": op.units, "no_bias": not op.bias}
        case BatchNorm() as op:
            return "BatchNorm", {"eps": repr(float(op.eps)), "fix_gamma": op.fix_gamma}
        case MaxPool() as op:
            return "Pooling", {"pool_type": "max", **_window(node, op, types)}
        case AvgPool() as op:
            counted = {"count_include_pad": op.count_include_pad}
            return "Pooling", {"pool_type": "avg", **counted, **_window(node, op, types)}
        case GlobalAvgPool():
            return "Pooling", {"pool_type": "avg", "global_pool": True, "kernel": (1, 1)}
        case Add(count=count, broadcast=False):
            return ("elemwise_add", {}) if count == 2 else ("add_n", {"num_args": count})
        case Concat(axis=axis):
            return "Concat", {"dim": axis, "num_args": len(node.inputs)}
        case Slice(begin=begin, end=end, axis=axis):
            return "slice_axis", {"axis": axis, "begin": begin, "end": end}
        case UpsampleNearest(scale=scale):
            return "UpSampling", {"scale": scale, "sample_type": "nearest", "num_args": 1}
        case ExpandDims(axis=axis):
            return "expand_dims", {"axis": axis}
        case Softmax(axis=axis, trailing=False):
            return "softmax", {"axis": axis}
        case Clip(low=low, high=high) if isfinite(low) and isfinite(high):
            return "clip", {"a_min": low, "a_max": high}
        case Clip(low=low) if isfinite(low):
            return "_maximum_scalar", {"scalar": repr(low)}
        case Clip(high=high) if isfinite(high):
            return "_minimum_scalar", {"scalar": repr(high)}
        case WithScalar(kind=kind, scalar=scalar):
            return SCALARS[kind], {"scalar": repr(scalar)}
        case LeakyRelu(slope=slope):
            return "LeakyReLU", {"act_type": "leaky", "slope": repr(slope)}
        case Add(count=2, broadcast=True, constants=()):
            return "broadcast_add", {}
        case Reshape(shape=shape) if shape:
            return "Reshape", {"shape": shape}
        case Transpose(order=order):
            return "transpose", {"axes": order}
        case Pad(mode="constant") as op if max(*op.before, *op.behind) <= 0:
            sizes = types[node.inputs[0]].shape[1:]
            begins, ends = op.before[1:], (n + b for n, b in zip(sizes, op.behind[1:], strict=True))
            if not any((op.before[0], op.behind[0])):  # the batch has any size
                whole = ("None", *(-b for b in begins)), ("None", *ends)
                return "slice", {k: _listed(v) for k, v in zip(("begin", "end"), whole, strict=True)}
        case ReduceMean() | ReduceSum() as op if len(types[node.name].shape) > 0:
            kind = "mean" if isinstance(op, ReduceMean) else "sum"
            return kind, {"axis": tuple(sorted(op.axes)), "keepdims": op.keepdims}
        case Relu():
            return "Activation", {"act_type": "relu"}
        case Sigmoid():
            return "Activation", {"act_type": "sigmoid"}
    if (found := functions.written(node.op)) is not None:
        return found
    plain: dict[type[Op], str] = {
        Mul: "broadcast_mul",
        Sub: "broadcast_sub",
        Div: "broadcast_div",
        Flatten: "Flatten",
        Identity: "identity",
    }
    if type(node.op) not in plain or (isinstance(node.op, Mul | Sub | Div) and node.op.constants):
        raise refusal
    return plain[type(node.op)], {}


def _listed(numbers: Iterable[object]) -> str:
    """A tuple as MXNet reads it, None without quotes."""
    return "(" + ", ".join(map(str, numbers)) + ")"


def _window(node: Node, op: MaxPool | AvgPool, types: Mapping[str, TensorType]) -> Attributes:
    """Kernel, stride, pad, convention. `ceil` is one of MXNet's where the sizes agree."""
    convention = op.convention
    if convention == "ceil":
        data = types[node.data[0]]
        for name in ("full", "valid"):
            with contextlib.suppress(GraphError):  # full may have a window beyond the image
                if replace(op, convention=name).type(data) == types[node.name]:
                    convention = name
                    break
        else:
            raise UnsupportedError(
                f"{node.name}: {op!r} on {data!r}: MXNet has no convention with this output"
            )
    return {"kernel": op.kernel, "stride": op.stride, "pad": op.pad, "pooling_convention": convention}


def _slice(writer: _Writer, name: str, source: str, begin: int, end: int) -> str:
    return writer.helper("slice_axis", name, (source,), {"axis": 1, "begin": begin, "end": end})


def _sum_of_parts(writer: _Writer, name: str, source: str, radix: int, channels: int) -> None:
    """name = part 0 + part 1 + ..., parts of `channels` channels each."""
    parts = [
        _slice(writer, f"{name}_part{r}", source, r * channels, (r + 1) * channels) for r in range(radix)
    ]
    total = parts[0]
    for r in range(1, radix - 1):
        total = writer.helper("elemwise_add", f"{name}_sum{r}", (total, parts[r]), {})
    if radix == 1:
        writer.node("identity", name, (total,), {})
    else:
        writer.node("elemwise_add", name, (total, parts[-1]), {})


def _radix_softmax(writer: _Writer, node: Node, op: RadixSoftmax, types: Mapping[str, TensorType]) -> None:
    """(n, K*R*m, 1, 1) -> per r: (n, 1, K*m, 1, 1) -> (n, R, K*m, 1, 1), softmax over R -> (n, R*K*m)."""
    name, source = node.name, node.inputs[0]
    if op.radix == 1:
        source = writer.helper("Activation", f"{name}_sigmoid", (source,), {"act_type": "sigmoid"})
        writer.node("Flatten", name, (source,), {})
        return
    size = types[source].shape[1] // (op.cardinality * op.radix)  # m
    parts = []
    for r in range(op.radix):
        groups = []
        for k in range(op.cardinality):
            begin = (k * op.radix + r) * size
            groups.append(_slice(writer, f"{name}_group{k}_part{r}", source, begin, begin + size))
        part = groups[0]
        if len(groups) > 1:
            part = writer.helper("Concat", f"{name}_part{r}", groups, {"dim": 1, "num_args": len(groups)})
        parts.append(writer.helper("expand_dims", f"{name}_expand{r}", (part,), {"axis": 1}))
    stacked = writer.helper("Concat", f"{name}_stack", parts, {"dim": 1, "num_args": op.radix})
    soft = writer.helper("softmax", f"{name}_softmax", (stacked,), {"axis": 1})
    rows = []
    for r in range(op.radix):
        row = _slice(writer, f"{name}_soft{r}", soft, r, r + 1)
        rows.append(writer.helper("Flatten", f"{name}_row{r}", (row,), {}))
    writer.node("Concat", name, rows, {"dim": 1, "num_args": op.radix})
