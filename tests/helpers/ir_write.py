"""A refnet graph as an IR of version 10 with the oldest opsets, as the 2021 model optimizer wrote them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from refnet import ops
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from tests.helpers.ir_build import Ir, Value

OLDEST = {"Interpolate": 4}
"""Layer type -> the opset of it that is written, where that is not 1."""
ROUNDING = {"valid": "floor", "full": "ceil", "ceil": "ceil"}


def write_ir(graph: Graph, folder: Path, *, half: bool = False, means: Sequence[float] = ()) -> Path:
    """The .xml; the graph's weights must be loaded. half: weights as float16. means: subtracted first.

    Values keep their names as those of their layers; version 10 has no names of values.
    """
    net = Ir(10, half)
    made: dict[str, Value] = {}
    for name, kind in graph.inputs.items():
        made[name] = net.parameter(kind.shape, name)
        if means:
            constant = net.weight(np.array(means, np.float32).reshape(1, -1, 1, 1))
            made[name] = net.layer(
                "Subtract", [made[name], constant], name=f"{name}/mean", auto_broadcast="numpy"
            )
    types = graph.types()
    for node in graph.nodes:
        data = [made[name] for name in node.data]
        weights = [graph.weights[name] for name in node.weights]
        shape = types[node.data[0]].shape if node.data else ()
        made[node.name] = WRITERS[type(node.op)](net, node, data, weights, shape)
    for name in graph.outputs.values():
        net.result(made[name])
    return net.save(folder)


def _two(net: Ir, kind: str, a: Value, b: Value, name: str = "") -> Value:
    return net.layer(kind, [a, b], name=name, auto_broadcast="numpy")


def _channels(net: Ir, array: F32) -> Value:
    return net.weight(array.reshape(1, -1, 1, 1))


def _conv(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    op = node.op
    assert isinstance(op, ops.Conv)
    window = {"strides": op.stride, "dilations": op.dilation, "pads_begin": op.pad,
              "pads_end": op.pad if op.pad_end is None else op.pad_end, "auto_pad": "explicit"}  # fmt: skip
    array, kind = weights[0], "Convolution"
    if op.groups > 1:
        kind = "GroupConvolution"
        array = array.reshape(op.groups, op.channels // op.groups, *array.shape[1:])
    name = f"{node.name}/product" if op.bias else node.name
    made = net.layer(kind, [data[0], net.weight(array)], name=name, **window)
    return _two(net, "Add", made, _channels(net, weights[1]), node.name) if op.bias else made


def _pool(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    op = node.op
    assert isinstance(op, ops.MaxPool | ops.AvgPool)
    window = {"kernel": op.kernel, "strides": op.stride, "pads_begin": op.pad, "pads_end": op.ends,
              "rounding_type": ROUNDING[op.convention], "auto_pad": "explicit"}  # fmt: skip
    if isinstance(op, ops.MaxPool):
        return net.layer("MaxPool", data, name=node.name, **window)
    return net.layer("AvgPool", data, name=node.name, **window, exclude__pad=not op.count_include_pad)


def _norm(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    """As a layer of its own, or as Multiply and Add in a graph of many: both were written."""
    op = node.op
    assert isinstance(op, ops.BatchNorm)
    gamma, beta, mean, variance = weights
    if op.fix_gamma:
        gamma = np.ones_like(gamma)
    inputs = [net.weight(gamma), net.weight(beta), data[0], net.weight(mean), net.weight(variance)]
    return net.layer("BatchNormInference", inputs, name=node.name, epsilon=op.eps)


def _dense(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    op = node.op
    assert isinstance(op, ops.Dense)
    flat = data[0]
    if len(shape) > 2:
        flat = net.layer("Reshape", [flat, net.whole(0, -1)], name=f"{node.name}/flat", special_zero=True)
    name = f"{node.name}/product" if op.bias else node.name
    made = net.layer("MatMul", [flat, net.weight(weights[0])], name=name, transpose_a=False, transpose_b=True)
    return _two(net, "Add", made, net.weight(weights[1].reshape(1, -1)), node.name) if op.bias else made


def _add(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    total = data[0]
    for k, other in enumerate(data[1:], 2):
        total = _two(net, "Add", total, other, node.name if k == len(data) else f"{node.name}/{k}")
    return total


def _upsample(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    op = node.op
    assert isinstance(op, ops.UpsampleNearest)
    sizes = net.whole(shape[2] * op.scale, shape[3] * op.scale)
    scales = net.const(np.array([op.scale] * 2, np.float32))
    return net.layer(
        "Interpolate", [data[0], sizes, scales, net.whole(2, 3)], opset=OLDEST["Interpolate"], name=node.name,
        mode="nearest", shape_calculation_mode="scales", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor", antialias=False, pads_begin=(0,), pads_end=(0,), cube_coeff=-0.75,
    )  # fmt: skip


def _slice(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    """One part of a VariadicSplit whose other parts nobody reads."""
    op = node.op
    assert isinstance(op, ops.Slice)
    lengths = [op.begin, op.end - op.begin, shape[op.axis] - op.end]
    kept = [k for k, n in enumerate(lengths) if n]
    own = net.whole(*(lengths[k] for k in kept))
    axis = net.const(np.array(op.axis, np.int64))
    names = [node.name if k == 1 else None for k in kept]
    layer, first = net.layer("VariadicSplit", [data[0], axis, own], name=f"{node.name}/split", names=names)
    return layer, first + kept.index(1)


def _plain(kind: str, opset: int = 1) -> Callable[..., Value]:
    def write(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
        return net.layer(kind, data, name=node.name, opset=opset)

    return write


def _reshaped(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    op = node.op
    if isinstance(op, ops.ExpandDims):
        return net.layer("Unsqueeze", [data[0], net.whole(op.axis)], name=node.name)
    target = op.shape if isinstance(op, ops.Reshape) else (0, -1)
    return net.layer("Reshape", [data[0], net.whole(*target)], name=node.name, special_zero=True)


def _mean(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    return net.layer("ReduceMean", [data[0], net.whole(2, 3)], name=node.name, keep_dims=True)


def _mul(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    return _two(net, "Multiply", data[0], data[1], node.name)


def _softmax(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    assert isinstance(node.op, ops.Softmax)
    return net.layer("SoftMax", data, name=node.name, axis=node.op.axis)


def _radix_softmax(
    net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]
) -> Value:
    """Parts (n, groups, radix, c) -> (n, radix, groups, c), the softmax over the radix, one row again."""
    op = node.op
    assert isinstance(op, ops.RadixSoftmax)
    inner = shape[1] // (op.cardinality * op.radix)
    parts = net.layer("Reshape", [data[0], net.whole(0, op.cardinality, op.radix, inner)], special_zero=True)
    moved = net.layer("Transpose", [parts, net.whole(0, 2, 1, 3)])
    shares = net.layer("SoftMax", [moved], axis=1)
    return net.layer("Reshape", [shares, net.whole(0, -1, 1, 1)], name=node.name, special_zero=True)


def _radix_parts(net: Ir, value: Value, radix: int) -> list[Value]:
    axis = net.const(np.array(1, np.int64))
    layer, first = net.layer("Split", [value, axis], names=[None] * radix, num_splits=radix)
    return [(layer, first + k) for k in range(radix)]


def _radix_sum(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    assert isinstance(node.op, ops.RadixSum)
    return _add(net, node, _radix_parts(net, data[0], node.op.radix), [], shape)


def _weighted(net: Ir, node: Node, data: list[Value], weights: list[F32], shape: tuple[int, ...]) -> Value:
    op = node.op
    assert isinstance(op, ops.WeightedSum)
    pairs = zip(_radix_parts(net, data[0], op.radix), _radix_parts(net, data[1], op.radix), strict=True)
    return _add(net, node, [_two(net, "Multiply", a, b) for a, b in pairs], [], shape)


WRITERS: dict[type[ops.Op], Callable[..., Value]] = {
    ops.Add: _add,
    ops.AvgPool: _pool,
    ops.BatchNorm: _norm,
    ops.Conv: _conv,
    ops.Dense: _dense,
    ops.ExpandDims: _reshaped,
    ops.Flatten: _reshaped,
    ops.GlobalAvgPool: _mean,
    ops.MaxPool: _pool,
    ops.Mul: _mul,
    ops.RadixSoftmax: _radix_softmax,
    ops.RadixSum: _radix_sum,
    ops.Relu: _plain("ReLU"),
    ops.Reshape: _reshaped,
    ops.Sigmoid: _plain("Sigmoid"),
    ops.Slice: _slice,
    ops.Softmax: _softmax,
    ops.UpsampleNearest: _upsample,
    ops.WeightedSum: _weighted,
}
"""Op -> what writes it."""
