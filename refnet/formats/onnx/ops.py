"""One rule per ONNX operator: the refnet node that it is, in every form of its attributes from opset 7 on.

A rule takes a `Use`, the node with what is known of its inputs, and gives the nodes of its outputs. Operators
with windows are in window.py, those that only move values in shape.py, those that normalise, and most that
reduce, in reductions.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from refnet.formats.assembly import Made
from refnet.formats.onnx import functions, integers, reductions, select, sequences, shape, whole, window
from refnet.formats.onnx.einsum import einsum
from refnet.formats.onnx.use import Rule, Use, decimal
from refnet.ops import (
    Add,
    BatchNorm,
    Clip,
    Concat,
    Dense,
    Div,
    GlobalAvgPool,
    Identity,
    LeakyRelu,
    MatMul,
    Mul,
    Op,
    PRelu,
    ReduceMean,
    ReduceSum,
    Relu,
    Sigmoid,
    Softmax,
    Sub,
    WithScalar,
)
from refnet.ops.integers import ArgExtreme, Cast, Compare


def _batch_norm(u: Use) -> list[Made]:
    if u["training_mode"] or u["spatial"] == 0:
        raise u.node.unsupported("training_mode=1 of a value, or spatial=0")
    weights = [u.weight(i, role)[0] for i, role in enumerate(BatchNorm.roles) if i]
    return u.one(BatchNorm(decimal(u["epsilon"])), *weights)


def _clip(u: Use) -> list[Made]:
    limits = []
    for i, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        value = u[name]
        if u.has(i):
            array = u.constant(i, name)
            if array.size != 1:
                raise u.node.wrong(f"{list(array.shape)} as {name}", "one number")
            value = array.reshape(-1)[0]
        limits.append(default if value is None else float(value))
    if any(np.isnan(limit) for limit in limits):
        raise u.node.unsupported("a NaN as limit")
    return u.one(Clip(*limits))


def _leaky(u: Use) -> list[Made]:
    return u.one(LeakyRelu(float(np.float32(u["alpha"]))))


def _prelu(u: Use) -> list[Made]:
    slope, kind = u.weight(1, "slope")
    return u.one(PRelu(tuple(kind.shape), channels=False), slope)


def _softmax(u: Use) -> list[Made]:
    shape = u.type().shape
    axis = u.axis(u["axis"], len(shape))
    return u.one(Softmax(axis, trailing=u.opset < 13 and math.prod(shape[axis + 1 :]) > 1))


def _add(u: Use) -> list[Made]:
    """Add of two and Sum of any number."""
    data, weights = _sides(u)
    count = len(u.node.inputs)
    if count == 1:
        return u.one(Identity())
    if not weights and len({u.type(i).shape for i in range(count)}) == 1:
        return u.one(Add(count), data=data)
    constants = tuple(tuple(u.constants[name].shape) for name in weights)
    return u.one(Add(count, True, constants), *weights, data=data)


def _sides(u: Use) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The inputs that are values, and those that are constants."""
    inputs = u.node.inputs
    if not all(inputs):
        raise u.node.wrong("an empty input")
    constant = [u.is_constant(i) for i in range(len(inputs))]
    return (
        tuple(name for name, c in zip(inputs, constant, strict=True) if not c),
        tuple(name for name, c in zip(inputs, constant, strict=True) if c),
    )


def _two(make: type[Mul | Sub | Div]) -> Rule:
    def rule(u: Use) -> list[Made]:
        data, weights = _sides(u)
        constants = tuple(tuple(u.constants[name].shape) for name in weights)
        swapped = u.is_constant(0)
        op = make(constants) if make is Mul or not swapped else make(constants, True)  # type: ignore[call-arg]
        return u.one(op, *weights, data=data)

    return rule


def _gemm(u: Use) -> list[Made]:
    a, b = u.type(0), u.type(1)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise u.node.wrong(f"{a!r} and {b!r}", "matrices")
    inputs = [name for name in u.node.inputs if name]
    beta = float(u["beta"])
    addend = u.has(2) and beta != 0
    inputs = inputs[: 2 + addend]
    op = MatMul(float(u["alpha"]), beta if addend else 1.0, bool(u["transA"]), bool(u["transB"]), addend)
    count = len(inputs)
    while count > 1 and u.is_constant(count - 1):
        count -= 1
    constants = tuple(tuple(u.constants[name].shape) for name in inputs[count:])
    units = b.shape[0]
    plain = op == MatMul(transpose_b=True, addend=addend)
    if plain and count == 1 and (not addend or constants[1] == (units,)):
        return u.one(Dense(units, bias=addend), *inputs[1:])
    op = MatMul(op.alpha, op.beta, op.transpose_a, op.transpose_b, addend, constants)
    return u.one(op, *inputs[count:], data=tuple(inputs[:count]))


def _matmul(u: Use) -> list[Made]:
    if u.is_constant(1):
        return u.one(MatMul(constants=(tuple(u.type(1).shape),)), u.node.inputs[1])
    return u.one(MatMul(), data=u.node.inputs)


def _concat(u: Use) -> list[Made]:
    data = tuple(name for name in u.node.inputs if not u.is_empty(name))
    if not data:
        raise u.node.unsupported("an empty value")
    op = Identity() if len(data) == 1 else Concat(u.axis(u["axis"], u.rank()))
    return u.one(op, data=data)


def _reduce(make: type[ReduceMean | ReduceSum]) -> Rule:
    def rule(u: Use) -> list[Made]:
        shape = u.type().shape
        given = u.numbers("axes", 1, "axes")
        if not given and u["noop_with_empty_axes"]:
            return u.one(Identity())
        axes = tuple(sorted(u.axes(given, len(shape)))) if given else tuple(range(len(shape)))
        keepdims = bool(u["keepdims"])
        if make is ReduceMean:
            same = len(shape) == 4 and axes == (2, 3) and keepdims
            return u.one(GlobalAvgPool() if same else ReduceMean(axes, keepdims))
        terms = None if 0 in axes else math.prod(shape[i] for i in axes)
        return u.one(ReduceSum(axes, keepdims, terms))

    return rule


def _dropout(u: Use) -> list[Made]:
    if u["training_mode"] or (u.has(2) and bool(u.constant(2, "training_mode").any())):
        raise u.node.unsupported("training_mode: it drops at random")
    return u.one(Identity())


def _mean(u: Use) -> list[Made]:
    """Mean of any number: their sum, divided."""
    name, count = u.node.outputs[0], len(u.node.inputs)
    (total,) = _add(u)
    if count == 1:
        return [total]
    whole = f"{name}/sum"
    return [replace(total, name=whole), Made(name, WithScalar("div", float(count)), (whole,))]


def _hard_max(u: Use) -> list[Made]:
    """Hardmax: 1 at the first largest along an axis, 0 elsewhere."""
    shape, name = u.type().shape, u.node.outputs[0]
    axis = u.axis(u["axis"], len(shape))
    if u.opset < 13 and math.prod(shape[axis + 1 :]) > 1:
        raise u.node.unsupported("before opset 13, over several axes")
    along = np.arange(shape[axis]).reshape(-1, *(1,) * (len(shape) - axis - 1))
    places = u.store(f"{name}/places", along)
    return [
        Made(f"{name}/largest", ArgExtreme(axis), u.node.inputs[:1]),
        Made(
            f"{name}/there", Compare("Equal", (along.shape,), dtype="int64"), (f"{name}/largest",), (places,)
        ),
        Made(name, Cast("float32", "bool"), (f"{name}/there",)),
    ]


def _simple(op: Op) -> Rule:
    return lambda u: u.one(op)


RULES: dict[str, Rule] = {
    **functions.RULES,
    **integers.RULES,
    "Add": _add,
    "AveragePool": window.average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": window.conv,
    "ConvTranspose": window.transposed,
    "DepthToSpace": select.depth_to_space,
    "Div": _two(Div),
    "Dropout": _dropout,
    "Einsum": einsum,
    "Expand": select.expand,
    "Flatten": shape.flatten,
    "Gather": select.gather,
    "GatherElements": select.gather_elements,
    "GatherND": select.gather_nd,
    "Gemm": _gemm,
    "GlobalAveragePool": window.global_average,
    "GlobalLpPool": window.global_lp,
    "GlobalMaxPool": window.global_max,
    "Hardmax": _hard_max,
    "Identity": _simple(Identity()),
    "LeakyRelu": _leaky,
    "LpPool": window.lp_pool,
    "MatMul": _matmul,
    "MaxPool": window.max_pool,
    "Mean": _mean,
    "Mul": _two(Mul),
    "PRelu": _prelu,
    "Pad": shape.pad,
    "ReduceMean": _reduce(ReduceMean),
    "ReduceSum": _reduce(ReduceSum),
    "Relu": _simple(Relu()),
    "Reshape": shape.reshape,
    "Resize": window.resize,
    "ScatterND": select.scatter_nd,
    "SequenceAt": sequences.sequence_at,
    "Sigmoid": _simple(Sigmoid()),
    "Slice": shape.slice_,
    "Softmax": _softmax,
    "SpaceToDepth": select.space_to_depth,
    "Split": shape.split,
    "Squeeze": shape.squeeze,
    "Sub": _two(Sub),
    "Sum": _add,
    "Tile": select.tile,
    "Transpose": shape.transpose,
    "Unsqueeze": shape.unsqueeze,
    "Upsample": window.resize,
    **reductions.RULES,
    **whole.NEW,
}
"""Operator -> its rule."""


KNOWN = {*RULES, *whole.RULES}
"""The operators that have a rule."""


def made_of(u: Use) -> list[Made]:
    """The nodes of a node whose operator is KNOWN, by the rule for what its first input holds.

    Raises UnsupportedError for an operator that refnet has for integers only.
    """
    if u.node.op in whole.RULES and u.type().dtype in whole.WHOLE:
        return whole.RULES[u.node.op](u)
    if u.node.op not in RULES:
        raise u.node.unsupported(f"of {u.type().dtype}: refnet has it for integers only")
    return RULES[u.node.op](u)
