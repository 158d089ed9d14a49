"""One rule per layer type of an IR: the refnet node that it is, in every version of the type that is read.

A rule takes a `Use`, the layer with what is known of its inputs, and gives the nodes of its outputs. Layers
with windows are in window.py, those that only move values in shape.py.
"""

from __future__ import annotations

import math

import numpy as np

from refnet.formats.assembly import Made
from refnet.formats.openvino import shape, window
from refnet.formats.openvino.use import Rule, Use
from refnet.ops import (
    Add,
    BatchNorm,
    Clip,
    Dense,
    Div,
    GlobalAvgPool,
    Identity,
    MatMul,
    Mul,
    Op,
    ReduceMean,
    ReduceSum,
    Relu,
    Sigmoid,
    Softmax,
    Sub,
)


def _two(make: type[Add | Mul | Sub | Div]) -> Rule:
    """Add, Multiply, Subtract, Divide of two, either of which may be a constant."""

    def rule(u: Use) -> list[Made]:
        how = u.text("auto_broadcast", "numpy", ("numpy", "none", "pdpd"))
        if how == "pdpd":
            raise u.layer.unsupported("auto_broadcast 'pdpd'; refnet has numpy")
        if len(u.inputs) != 2:
            raise u.layer.wrong(f"{len(u.inputs)} inputs", "2")
        if how == "none" and u.type(0) != u.type(1):
            raise u.layer.wrong(f"{u.type(0)!r} and {u.type(1)!r}", "one shape with auto_broadcast none")
        weights = tuple(name for i, name in enumerate(u.inputs) if u.is_constant(i))
        data = tuple(name for i, name in enumerate(u.inputs) if not u.is_constant(i))
        constants = tuple(tuple(u.constants[name].shape) for name in weights)
        op: Op
        if make is Add:
            op = Add() if not weights and u.type(0) == u.type(1) else Add(2, True, constants)
        elif make is Mul or not u.is_constant(0):
            op = make(constants)  # type: ignore[arg-type]
        else:
            op = make(constants, True)  # type: ignore[arg-type, call-arg]
        return u.one(op, *weights, data=data)

    return rule


def _matmul(u: Use) -> list[Made]:
    a, b = u.flag("transpose_a", False), u.flag("transpose_b", False)
    if min(u.rank(0), u.rank(1)) < 2:
        a, b = a and u.rank(0) > 1, b and u.rank(1) > 1  # a vector is not transposed
    if len(u.inputs) != 2:
        raise u.layer.wrong(f"{len(u.inputs)} inputs", "2")
    for i, moved in enumerate((a, b)):
        if moved and u.rank(i) > 2:
            raise u.layer.unsupported(f"a batch of matrices {u.type(i)!r} transposed; refnet has matrices")
    if u.is_constant(1) and (a, b) == (False, True) and u.rank(0) == u.rank(1) == 2:
        return u.one(Dense(u.type(1).shape[0], bias=False), u.weight(1, "weight"))
    if u.is_constant(1):
        constants = (tuple(u.type(1).shape),)
        return u.one(MatMul(transpose_a=a, transpose_b=b, constants=constants), u.weight(1, "weight"))
    return u.one(MatMul(transpose_a=a, transpose_b=b), data=u.inputs)


def _softmax(u: Use) -> list[Made]:
    if u.layer.opset < 8 and "axis" not in u.layer.attributes:
        raise u.layer.unsupported("no axis: the opset says 1, OpenVINO takes 0 (measured in 2026.4)")
    return u.one(Softmax(u.axis(u.whole("axis", 1), u.rank())))


def _batch_norm(u: Use) -> list[Made]:
    """BatchNormInference: opset 1 has gamma, beta, data, mean, variance; opset 5 has the data first."""
    order = (2, 0, 1, 3, 4) if u.layer.opset < 5 else (0, 1, 2, 3, 4)
    weights = [u.weight(i, role) for i, role in zip(order[1:], BatchNorm.roles[1:], strict=True)]
    return u.one(BatchNorm(u.real("epsilon")), *weights, data=(u.name(order[0], "data"),))


def _clamp(u: Use) -> list[Made]:
    low, high = u.real("min"), u.real("max")
    if not low < high:
        raise u.layer.wrong(f"min {low} and max {high}", "min below max")
    return u.one(Clip(float(np.float32(low)), float(np.float32(high))))


def _reduce(make: type[ReduceMean | ReduceSum]) -> Rule:
    def rule(u: Use) -> list[Made]:
        lengths = u.type().shape
        axes = tuple(sorted(u.axes(u.whole_numbers(1, "axes"), len(lengths))))
        keepdims = u.flag("keep_dims", False)
        if not axes:
            return u.one(Identity())
        if make is ReduceMean:
            same = len(lengths) == 4 and axes == (2, 3) and keepdims
            return u.one(GlobalAvgPool() if same else ReduceMean(axes, keepdims))
        terms = None if 0 in axes else math.prod(lengths[i] for i in axes)
        return u.one(ReduceSum(axes, keepdims, terms))

    return rule


def _convert(u: Use) -> list[Made]:
    to = u.text("destination_type", None)
    if to != "f32":
        raise u.layer.unsupported(f"destination_type {to[:60]!r}: refnet's values are float32")
    return u.one(Identity())


def _simple(op: Op) -> Rule:
    return lambda u: u.one(op)


RULES: dict[str, tuple[Rule, frozenset[int]]] = {
    "Add": (_two(Add), frozenset({1})),
    "AvgPool": (window.average_pool, frozenset({1, 14, 16})),
    "BatchNormInference": (_batch_norm, frozenset({1, 5})),
    "Clamp": (_clamp, frozenset({1})),
    "Concat": (shape.concat, frozenset({1})),
    "Convert": (_convert, frozenset({1})),
    "Convolution": (window.conv, frozenset({1})),
    "Divide": (_two(Div), frozenset({1})),
    "GroupConvolution": (window.group_conv, frozenset({1})),
    "Interpolate": (window.interpolate, frozenset({4, 11})),
    "MatMul": (_matmul, frozenset({1})),
    "MaxPool": (window.max_pool, frozenset({1, 8, 14})),
    "Multiply": (_two(Mul), frozenset({1})),
    "Pad": (shape.pad, frozenset({1, 12})),
    "ReLU": (_simple(Relu()), frozenset({1})),
    "ReduceMean": (_reduce(ReduceMean), frozenset({1})),
    "ReduceSum": (_reduce(ReduceSum), frozenset({1})),
    "Reshape": (shape.reshape, frozenset({1})),
    "Sigmoid": (_simple(Sigmoid()), frozenset({1})),
    "Slice": (shape.cut, frozenset({8})),
    "SoftMax": (_softmax, frozenset({1, 8})),
    "Softmax": (_softmax, frozenset({1, 8})),
    "Split": (shape.split, frozenset({1})),
    "Squeeze": (shape.squeeze, frozenset({1, 15})),
    "StridedSlice": (shape.strided_slice, frozenset({1})),
    "Subtract": (_two(Sub), frozenset({1})),
    "Transpose": (shape.transpose, frozenset({1})),
    "Unsqueeze": (shape.unsqueeze, frozenset({1})),
    "VariadicSplit": (shape.variadic_split, frozenset({1})),
}
"""Layer type -> its rule, and the opsets of which a layer of this type has this meaning."""
