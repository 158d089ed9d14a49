"""The ops of reductions.py as nodes of ONNX, opset 17.

GroupNorm  Reshape by groups, InstanceNormalization, Reshape, Mul, Add (per group: the first three)
RMSNorm    Mul, ReduceMean, Add, Sqrt, Div, Mul
LogSoftmax Flatten, LogSoftmax, Reshape for all axes from one on
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refnet.core.graph import Node
from refnet.ops import (
    LRN,
    CumSum,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LogSoftmax,
    LpNorm,
    Max,
    Min,
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMax,
    ReduceMin,
    ReduceProd,
    ReduceSumSquare,
    RMSNorm,
    TensorType,
)


def write(writer: Any, node: Node, types: Mapping[str, TensorType]) -> bool:
    """Write a node, if it is one of these; writer: as in export.py."""
    name, inputs = node.name, node.inputs
    match node.op:
        case LayerNorm(eps=eps, axis=axis):
            writer.node("LayerNormalization", name, inputs, axis=axis, epsilon=eps)
        case RMSNorm() as rms:
            _rms_norm(writer, node, rms, types)
        case GroupNorm() as group:
            _group_norm(writer, node, group, types)
        case InstanceNorm(eps=eps):
            writer.node("InstanceNormalization", name, inputs, epsilon=eps)
        case LRN() as lrn:
            sizes = {"size": lrn.size, "alpha": lrn.alpha, "beta": lrn.beta, "bias": lrn.bias}
            writer.node("LRN", name, inputs, **sizes)
        case CumSum(axis=axis, exclusive=exclusive, reverse=reverse):
            place = writer.constant(f"{name}/axis", np.array(axis, np.int64))
            writer.node("CumSum", name, (*inputs, place), exclusive=int(exclusive), reverse=int(reverse))
        case LpNorm(axis=axis, p=p):
            writer.node("LpNormalization", name, inputs, axis=axis, p=p)
        case LogSoftmax(axis=axis, trailing=True):
            flat = writer.step("Flatten", f"{name}/flat", inputs, axis=axis)
            rows = writer.step("LogSoftmax", f"{name}/rows", (flat,), axis=1)
            writer.node("Reshape", name, (rows, _shape(writer, name, types[name])))
        case LogSoftmax(axis=axis):
            writer.node("LogSoftmax", name, inputs, axis=axis)
        case Max() | Min() as extreme:
            writer.node(type(extreme).__name__, name, inputs)
        case (
            ReduceL1()
            | ReduceL2()
            | ReduceLogSum()
            | ReduceLogSumExp()
            | ReduceMax()
            | ReduceMin()
            | ReduceProd()
            | ReduceSumSquare() as op
        ):
            writer.node(type(op).__name__, name, inputs, axes=op.axes, keepdims=int(op.keepdims))
        case _:
            return False
    return True


def _shape(writer: Any, name: str, kind: TensorType) -> str:
    """A constant with the value's shape, of any batch."""
    made: str = writer.constant(f"{name}/shape", [-1, *kind.shape[1:]])
    return made


def _rms_norm(writer: Any, node: Node, op: RMSNorm, types: Mapping[str, TensorType]) -> None:
    name, (x, scale) = node.name, node.inputs
    axes = list(range(op.axis, len(types[x].shape)))
    square = writer.step("Mul", f"{name}/square", (x, x))
    mean = writer.step("ReduceMean", f"{name}/mean", (square,), axes=axes, keepdims=1)
    eps = writer.constant(f"{name}/eps", np.array(op.eps, np.float32))
    root = writer.step("Sqrt", f"{name}/root", (writer.step("Add", f"{name}/under", (mean, eps)),))
    writer.node("Mul", name, (writer.step("Div", f"{name}/unit", (x, root)), scale))


def _group_norm(writer: Any, node: Node, op: GroupNorm, types: Mapping[str, TensorType]) -> None:
    name, (x, gamma, beta) = node.name, node.inputs
    shape = types[x].shape
    grouped = writer.step(
        "Reshape", f"{name}/groups", (x, writer.constant(f"{name}/split", [0, op.groups, -1]))
    )
    if op.per_group:
        unit = writer.step("InstanceNormalization", f"{name}/norm", (grouped, gamma, beta), epsilon=op.eps)
        writer.node("Reshape", name, (unit, _shape(writer, name, types[name])))
        return
    ones = writer.constant(f"{name}/ones", np.ones(op.groups, np.float32))
    zeros = writer.constant(f"{name}/zeros", np.zeros(op.groups, np.float32))
    unit = writer.step("InstanceNormalization", f"{name}/norm", (grouped, ones, zeros), epsilon=op.eps)
    back = writer.step("Reshape", f"{name}/unit", (unit, _shape(writer, name, types[name])))
    column = writer.constant(f"{name}/column", [shape[1], *[1] * (len(shape) - 2)])
    columns = [
        writer.step("Reshape", f"{name}/{role}", (w, column))
        for role, w in (("gamma", gamma), ("beta", beta))
    ]
    writer.node("Add", name, (writer.step("Mul", f"{name}/scaled", (back, columns[0])), columns[1]))
