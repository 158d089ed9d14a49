"""Graph -> ONNX model, opset 17. Needs the package onnx.

A node of refnet becomes one node of ONNX whose output has the value's name; where ONNX has no equal op, it
becomes several, of which the last makes the value. Helpers are named after it (`NAME/part0`):

    Dense on maps  Flatten, Gemm
    AvgPool        Pad before it, where a window reaches beyond the counted padding
    RadixSum       Split, Add (more than two parts: Sum)
    RadixSoftmax   Reshape, (Transpose), Softmax over the parts, Flatten     (radix 1: Sigmoid, Flatten)
    MatMul         Gemm for scaled and transposed ones
    Softmax        Flatten, Softmax, Reshape for all axes from one on
    ResizeNearest  a Gather per axis
    WithScalar     Add, Sub, Mul or Div with a constant
    SpaceToDepth   Reshape, Transpose, Reshape (ONNX's SpaceToDepth for depth_first)
    PRelu          Reshape of the slopes, one per channel, then PRelu
    Functions      as functions.py says
    WeightedSum    Reshape and Split of the attention, Split of the data, Mul per part, Add or Sum

What ONNX says a little differently: epsilon is a float32 there; where refnet leaves padding out, a
convolution may multiply zeros; the sign of a zero that comes out of Relu or of a sum is not specified.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from refnet.core.errors import InputError, UnsupportedError, WeightsError
from refnet.core.graph import Graph, Node
from refnet.core.words import did_you_mean
from refnet.formats.onnx import export_reductions, functions
from refnet.formats.onnx.export_spatial import write_spatial
from refnet.formats.write import whole_file
from refnet.ops import (
    Abs,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv,
    ConvAdd,
    Dense,
    Div,
    ExpandDims,
    Flatten,
    GlobalAvgPool,
    Identity,
    LeakyRelu,
    MatMul,
    MaxPool,
    Mul,
    Op,
    Pad,
    Pow,
    PRelu,
    RadixSoftmax,
    RadixSum,
    ReduceMean,
    ReduceSum,
    Relu,
    Reshape,
    ResizeNearest,
    Sigmoid,
    Slice,
    Softmax,
    Sqrt,
    StepFunction,
    Sub,
    TensorType,
    Transpose,
    UpsampleNearest,
    WeightedSum,
    WithScalar,
)
from refnet.ops.function import Function

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
"""2022: ONNX Runtime 1.12 and later; LayerNormalization aside, its ops are those of opset 13."""
IR_VERSION = 8
"""The file format that belongs to opset 17."""
LARGEST = (1 << 31) - (1 << 20)
"""Bytes of weights: a protobuf message ends at 2 GiB."""


@dataclass
class _Writer:
    """The nodes and constants written so far."""

    helper: Any
    taken: set[str]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    parts: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)

    def name(self, name: str) -> str:
        """A name that nothing has: helpers give way to refnet's values."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def node(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """An op's node whose only output has this name, which is returned."""
        self.nodes.append(self.helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def step(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The same for a helper."""
        return self.node(op, self.name(name), inputs, **attributes)

    def constant(self, name: str, values: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """An initializer: integers are int64."""
        from onnx import numpy_helper

        array = values if isinstance(values, np.ndarray) else np.array(values, np.int64)
        name = self.name(name)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def split(self, source: str, radix: int) -> tuple[str, ...]:
        """The parts of a value along the channels; made once for all that read them."""
        if (source, radix) not in self.parts:
            names = tuple(self.name(f"{source}/part{r}") for r in range(radix))
            self.nodes.append(self.helper.make_node("Split", [source], names, name=names[0], axis=1))
            self.parts[source, radix] = names
        return self.parts[source, radix]

    def sum(self, name: str, parts: Sequence[str]) -> str:
        """name = the parts, added."""
        return self.node({1: "Identity", 2: "Add"}.get(len(parts), "Sum"), name, parts)


def graph_to_onnx(graph: Graph, outputs: Collection[str] | None = None) -> ModelProto:
    """The ONNX model of a graph with its weights: any batch, values and weights under refnet's names.

    outputs: names of the values that the model gives out, in this order; default: the graph's outputs.
    Raises InputError if the package onnx is missing or a name is unknown, WeightsError for a graph without
    weights, UnsupportedError beyond 2 GiB.

    Source: the operator schemas of ONNX (https://onnx.ai/onnx/operators/), opset 17.

    >>> from refnet.ops import Relu, TensorType
    >>> graph = Graph("g", {"data": TensorType((1, 2))}, (Node("r", Relu(), ("data",)),), {"out": "r"})
    >>> graph_to_onnx(graph).graph.node[0].output
    ['r']
    """
    try:
        from onnx import helper, numpy_helper
    except ImportError:
        raise InputError('to onnx needs the package onnx: pip install "refnet[onnx]"') from None
    if missing := [name for name in graph.weight_types if name not in graph.weights]:
        raise WeightsError(f"{graph.name} has no weights: {len(missing)} missing, first {missing[0]}")
    if (size := sum(array.nbytes for array in graph.weights.values())) > LARGEST:
        raise UnsupportedError(f"{graph.name}: {size} bytes of weights; a file of ONNX ends at {1 << 31}")
    wanted = tuple(dict.fromkeys(graph.outputs.values() if outputs is None else outputs))
    if unknown := [name for name in wanted if name not in graph.by_name]:
        raise InputError(f"{graph.name} has no value {unknown[0]!r}{did_you_mean(unknown[0], graph.by_name)}")
    types = graph.types()
    writer = _Writer(helper, {*types})
    used: set[str] = set()
    for node in graph.nodes:
        used.update(_write(writer, node, types))

    def information(names: Sequence[str]) -> list[Any]:
        shapes: dict[str, list[str | int | None]] = {
            n: ["batch", *types[n].shape[1:]] if types[n].shape else [] for n in names
        }
        kinds = {n: helper.np_dtype_to_tensor_dtype(np.dtype(types[n].dtype)) for n in shapes}
        return [helper.make_tensor_value_info(n, kinds[n], shape) for n, shape in shapes.items()]

    weights = [numpy_helper.from_array(array, name) for name, array in graph.weights.items() if name in used]
    body = helper.make_graph(
        writer.nodes,
        graph.name or "graph",
        information(tuple(graph.inputs)),
        information(wanted),
        [*weights, *writer.constants],
        value_info=information([node.name for node in graph.nodes if node.name not in wanted]),
    )
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="refnet"
    )
    return model


def write_onnx(path: str | os.PathLike[str], graph: Graph) -> None:
    """Write `graph_to_onnx`'s model, first under a temporary name in the same folder.

    Raises as `graph_to_onnx` does, and InputError where the file cannot be written.

    >>> write_onnx("/no/such/folder/a.onnx", Graph("g", {}, (), {}))
    Traceback (most recent call last):
    refnet.core.errors.InputError: cannot write /no/such/folder/a.onnx: No such file or directory
    """
    model = graph_to_onnx(graph).SerializeToString()
    with whole_file(path) as stream:
        stream.write(model)


def _write(writer: _Writer, node: Node, types: Mapping[str, TensorType]) -> tuple[str, ...]:
    """Write one node; the weights that it reads are returned (a fixed gamma is not)."""
    name, inputs = node.name, node.inputs
    match node.op:
        case Conv() as op:
            window = {"kernel_shape": op.kernel, "strides": op.stride, "pads": (*op.pad, *op.ends)}
            writer.node("Conv", name, inputs, **window, dilations=op.dilation, group=op.groups)
        case ConvAdd() as op:
            data, addend = node.data
            window = {"kernel_shape": op.conv.kernel, "strides": op.conv.stride, "pads": op.conv.pad * 2}
            more = {"dilations": op.conv.dilation, "group": op.conv.groups}
            total = writer.step("Conv", f"{name}/conv", (data, *node.weights), **window, **more)
            writer.node("Add", name, (total, addend))
        case Dense():
            data = inputs[0]
            if len(types[data].shape) > 2:
                data = writer.step("Flatten", f"{name}/flat", (data,), axis=1)
            writer.node("Gemm", name, (data, *node.weights), transB=1)
        case BatchNorm() as op:
            data, gamma, *others = inputs
            if op.fix_gamma:
                gamma = writer.constant(f"{name}/ones", np.ones(types[gamma].shape, np.float32))
            writer.node("BatchNormalization", name, (data, gamma, *others), epsilon=op.eps)
            return (*others,) if op.fix_gamma else node.weights
        case MaxPool() as op:
            window = {
                "kernel_shape": op.kernel,
                "strides": op.stride,
                "pads": (*op.pad, *_behind(node, op, types)),
            }
            writer.node("MaxPool", name, inputs, **window, dilations=op.dilation)
        case AvgPool() as op:
            _average(writer, node, op, types)
        case Add():
            writer.sum(name, inputs)
        case Slice(begin=begin, end=end, axis=axis):
            bounds = (("begin", [begin]), ("end", [end]), ("axis", [axis]))
            writer.node("Slice", name, (*inputs, *(writer.constant(f"{name}/{k}", v) for k, v in bounds)))
        case UpsampleNearest(scale=scale):
            scales = writer.constant(f"{name}/scales", np.array([1, 1, scale, scale], np.float32))
            how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            writer.node("Resize", name, (inputs[0], "", scales), mode="nearest", **how)
        case Clip(low=low, high=high):
            limits = [
                writer.constant(f"{name}/{key}", np.array(value, np.float32)) if abs(value) < np.inf else ""
                for key, value in (("min", low), ("max", high))
            ]
            writer.node("Clip", name, (*inputs, *limits))
        case WithScalar(scalar=scalar) as op:
            number = writer.constant(f"{name}/scalar", np.array(scalar, np.float32))
            sides = (number, *inputs) if op.kind.startswith("r") else (*inputs, number)
            writer.node(type(op.two).__name__, name, sides)
        case PRelu(shape=slopes, channels=channels):
            data, slope = inputs
            if channels and len(types[data].shape) > 2:
                column = writer.constant(f"{name}/column", [*slopes, *(1,) * (len(types[data].shape) - 2)])
                slope = writer.step("Reshape", f"{name}/slope", (slope, column))
            writer.node("PRelu", name, (data, slope))
        case Sub() | Div() | Pow() as op:
            writer.node(type(op).__name__, name, inputs[::-1] if op.swapped else inputs)
        case MatMul() as op:
            _matmul(writer, node, op, types)
        case ReduceMean(vector=True) | ReduceSum(vector=True) as op:
            whole = writer.step(type(op).__name__, f"{name}/whole", inputs, keepdims=0)
            writer.node("Reshape", name, (whole, writer.constant(f"{name}/shape", (1,))))
        case ReduceSum(axes=axes, keepdims=keepdims):
            where = writer.constant(f"{name}/axes", axes)
            writer.node("ReduceSum", name, (*inputs, where), keepdims=int(keepdims))
        case Softmax(axis=axis, trailing=True):
            flat = writer.step("Flatten", f"{name}/flat", inputs, axis=axis)
            soft = writer.step("Softmax", f"{name}/rows", (flat,), axis=1)
            writer.node(
                "Reshape", name, (soft, writer.constant(f"{name}/shape", [-1, *types[name].shape[1:]]))
            )
        case ResizeNearest() as op:
            _resize(writer, node, op, types)
        case Reshape(shape=sizes):
            writer.node("Reshape", name, (*inputs, writer.constant(f"{name}/shape", sizes)))
        case Pad() as op:
            pads = writer.constant(f"{name}/pads", (*op.before, *op.behind))
            value = writer.constant(f"{name}/value", np.array(op.value, np.float32))
            writer.node("Pad", name, (*inputs, pads, value), mode=op.mode)
        case ExpandDims(axis=axis):
            writer.node("Unsqueeze", name, (inputs[0], writer.constant(f"{name}/axes", [axis])))
        case RadixSum(radix=radix):
            writer.sum(name, writer.split(inputs[0], radix))
        case RadixSoftmax() as op:
            _radix_softmax(writer, node, op, types)
        case WeightedSum(radix=radix):
            shape = writer.constant(f"{name}/shape", [0, types[inputs[0]].shape[1], 1, 1])
            column = writer.step("Reshape", f"{name}/column", (inputs[0], shape))
            pairs = zip(writer.split(column, radix), writer.split(inputs[1], radix), strict=True)
            writer.sum(name, [writer.step("Mul", f"{name}/term{r}", pair) for r, pair in enumerate(pairs)])
        case _ if export_reductions.write(writer, node, types) or write_spatial(writer, node, types):
            pass
        case Function() | Abs() | Sqrt() | StepFunction():
            functions.write(writer, node)
        case _:
            op_type, attributes = _simple(node)
            writer.node(op_type, name, inputs, **attributes)
    return node.weights


def _simple(node: Node) -> tuple[str, dict[str, Any]]:
    """ONNX's op and attributes for an op that takes its inputs as they are."""
    match node.op:
        case Concat(axis=axis) | Softmax(axis=axis):
            return type(node.op).__name__, {"axis": axis}
        case ReduceMean(axes=axes, keepdims=keepdims):
            return "ReduceMean", {"axes": axes, "keepdims": int(keepdims)}
        case Transpose(order=order):
            return "Transpose", {"perm": order}
        case LeakyRelu(slope=slope):
            return "LeakyRelu", {"alpha": slope}
    plain: dict[type[Op], str] = {
        GlobalAvgPool: "GlobalAveragePool",
        Relu: "Relu",
        Sigmoid: "Sigmoid",
        Mul: "Mul",
        Flatten: "Flatten",
        Identity: "Identity",
        Constant: "Identity",
    }
    if node.op.opaque:
        raise UnsupportedError(f"{node.name}: refnet cannot write {node.op.opaque}")
    if type(node.op) not in plain:
        raise UnsupportedError(f"{node.name}: {node.op!r} has no counterpart in ONNX")
    return plain[type(node.op)], {}


def _behind(node: Node, op: MaxPool | AvgPool, types: Mapping[str, TensorType]) -> tuple[int, int]:
    """The padding behind the image with which exactly refnet's windows fit, whatever the convention."""
    sizes = zip(types[node.data[0]].shape[2:], types[node.name].shape[2:], strict=True)
    room = [
        max((count - 1) * stride + dilation * (kernel - 1) + 1 - size - pad, 0)
        for (size, count), kernel, stride, pad, dilation in zip(
            sizes, op.kernel, op.stride, op.pad, op.dilation, strict=True
        )
    ]
    return room[0], room[1]


def _average(writer: _Writer, node: Node, op: AvgPool, types: Mapping[str, TensorType]) -> None:
    """Where a window that counts padding reaches beyond it, the padding is made part of the image."""
    if op.dilation != (1, 1):
        raise UnsupportedError(f"{node.name}: {op!r} has no counterpart in ONNX before opset 19")
    data, behind = node.inputs[0], _behind(node, op, types)
    pads, counted = (*op.pad, *behind), op.count_include_pad
    beyond = [max(b - e, 0) for b, e in zip(behind, op.ends, strict=True)]
    if counted and any(beyond):
        counted = False
        if any((*op.pad, *op.ends)):
            around = writer.constant(f"{node.name}/pads", [0, 0, *op.pad, 0, 0, *op.ends])
            data = writer.step("Pad", f"{node.name}/padded", (data, around))
            pads = (0, 0, beyond[0], beyond[1])
    window = {"kernel_shape": op.kernel, "strides": op.stride, "pads": pads}
    writer.node("AveragePool", node.name, (data,), **window, count_include_pad=int(counted))


def _matmul(writer: _Writer, node: Node, op: MatMul, types: Mapping[str, TensorType]) -> None:
    """Gemm for what only it has."""
    if op == MatMul(constants=op.constants):
        writer.node("MatMul", node.name, node.inputs)
        return
    if any(len(types[name].shape) != 2 for name in node.inputs[:2]):
        raise UnsupportedError(f"{node.name}: {op!r} has no counterpart in ONNX: Gemm takes matrices")
    scales = {"alpha": op.alpha, "beta": op.beta}
    writer.node(
        "Gemm", node.name, node.inputs, **scales, transA=int(op.transpose_a), transB=int(op.transpose_b)
    )


def _resize(writer: _Writer, node: Node, op: ResizeNearest, types: Mapping[str, TensorType]) -> None:
    """A Gather per axis: opset 17 lacks some coordinates, and sizes would fix the batch."""
    name, source = node.name, node.inputs[0]
    shape = types[source].shape
    if not op.axes:
        writer.node("Identity", name, (source,))
    for k, axis in enumerate(op.axes):
        places = op.places(k, shape)
        if axis == 0 or (places < 0).any():
            raise UnsupportedError(f"{name}: {op!r} has no counterpart in ONNX that takes any batch")
        where = writer.constant(f"{name}/places{k}", places)
        last = k == len(op.axes) - 1
        step = writer.node if last else writer.step
        source = step("Gather", name if last else f"{name}/axis{k}", (source, where), axis=axis)


def _radix_softmax(writer: _Writer, node: Node, op: RadixSoftmax, types: Mapping[str, TensorType]) -> None:
    """(n, K*R*m, 1, 1) -> (n, K, R, m) -> (n, R, K, m), softmax over R -> (n, R*K*m)."""
    name, source = node.name, node.inputs[0]
    if op.radix == 1:
        writer.node("Flatten", name, (writer.step("Sigmoid", f"{name}/sigmoid", (source,)),), axis=1)
        return
    size = types[source].shape[1] // (op.cardinality * op.radix)
    shape = [0, op.radix, size] if op.cardinality == 1 else [0, op.cardinality, op.radix, size]
    source = writer.step("Reshape", f"{name}/parts", (source, writer.constant(f"{name}/shape", shape)))
    if op.cardinality > 1:
        source = writer.step("Transpose", f"{name}/transposed", (source,), perm=(0, 2, 1, 3))
    soft = writer.step("Softmax", f"{name}/softmax", (source,), axis=1)
    writer.node("Flatten", name, (soft,), axis=1)
