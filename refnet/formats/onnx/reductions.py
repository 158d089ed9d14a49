"""The ONNX operators that normalise, reduce and choose: one rule each, in every form of their attributes."""

from __future__ import annotations

import math
from typing import Any

from refnet.formats.assembly import Made
from refnet.formats.onnx.use import Rule, Use, decimal
from refnet.ops import (
    LRN,
    CumSum,
    GroupNorm,
    Identity,
    InstanceNorm,
    LayerNorm,
    LogSoftmax,
    LpNorm,
    Max,
    Min,
    Op,
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSumSquare,
    RMSNorm,
)

Shapes = tuple[tuple[int, ...], ...]


def trailing(u: Use, inputs: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...], Shapes]:
    """The inputs up to the last that is no constant, the constants behind them, and their shapes."""
    if not all(inputs):
        raise u.node.wrong("an empty input")
    count = len(inputs)
    while count > 1 and inputs[count - 1] in u.constants:
        count -= 1
    return inputs[:count], inputs[count:], tuple(tuple(u.constants[name].shape) for name in inputs[count:])


def _float32_inside(u: Use) -> None:
    """stash_type says in which type the statistics are computed."""
    if u["stash_type"] not in (None, 1):
        raise u.node.unsupported(f"stash_type {u['stash_type']}: refnet computes in float32")


def _layer_norm(u: Use) -> list[Made]:
    _float32_inside(u)
    axis = u.axis(u["axis"], u.rank())
    inputs = tuple(name for name in u.node.inputs if name)
    data, weights, constants = trailing(u, inputs)
    made = u.one(LayerNorm(decimal(u["epsilon"]), axis, len(inputs) > 2, constants), *weights, data=data)
    means = u.node.outputs[1:2]
    if means and means[0] in u.wanted:
        made.append(Made(means[0], ReduceMean(tuple(range(axis, u.rank()))), data[:1]))
    return made


def _rms_norm(u: Use) -> list[Made]:
    _float32_inside(u)
    data, weights, constants = trailing(u, u.node.inputs)
    return u.one(RMSNorm(decimal(u["epsilon"]), u.axis(u["axis"], u.rank()), constants), *weights, data=data)


def _group_norm(u: Use) -> list[Made]:
    _float32_inside(u)
    data, weights, constants = trailing(u, u.node.inputs)
    op = GroupNorm(decimal(u["epsilon"]), u["num_groups"], u.opset < 21, constants)
    return u.one(op, *weights, data=data)


def _instance_norm(u: Use) -> list[Made]:
    data, weights, constants = trailing(u, u.node.inputs)
    return u.one(InstanceNorm(decimal(u["epsilon"]), constants), *weights, data=data)


def _lrn(u: Use) -> list[Made]:
    alpha, beta, bias = (decimal(u[name]) for name in ("alpha", "beta", "bias"))
    if not (0 <= alpha < math.inf and 0 < bias < math.inf and 0 <= beta <= 64):
        raise u.node.unsupported(
            f"alpha {alpha}, beta {beta}, bias {bias}; refnet has positive ones, beta to 64"
        )
    return u.one(LRN(u["size"], alpha, beta, bias))


def _lp_norm(u: Use) -> list[Made]:
    return u.one(LpNorm(u.axis(u["axis"], u.rank()), u["p"]))


def _log_softmax(u: Use) -> list[Made]:
    shape = u.type().shape
    axis = u.axis(u["axis"], len(shape))
    return u.one(LogSoftmax(axis, trailing=u.opset < 13 and math.prod(shape[axis + 1 :]) > 1))


def _extreme(make: type[Max | Min]) -> Rule:
    def rule(u: Use) -> list[Made]:
        inputs = u.node.inputs
        values = tuple(name for name in inputs if name not in u.constants)
        ordered = (*values, *(name for name in inputs if name in u.constants))  # the order decides nothing
        data, weights, constants = trailing(u, ordered)
        return u.one(Identity() if len(inputs) == 1 else make(len(inputs), constants), *weights, data=data)

    return rule


def reduced(u: Use) -> tuple[int, ...] | None:
    """The axes of a reduction, all if none is given; None where it then reduces nothing."""
    given = u.numbers("axes", 1, "axes")
    if not given and u["noop_with_empty_axes"]:
        return None
    return tuple(sorted(u.axes(given, u.rank()))) if given else tuple(range(u.rank()))


def summed_along(u: Use) -> int:
    """The axis of a CumSum."""
    axis = u.constant(1, "axis")
    if axis.size != 1 or axis.dtype.kind not in "iu":
        raise u.node.wrong(f"{axis.dtype} {list(axis.shape)} as axis", "one whole number")
    return u.axis(int(axis.reshape(-1)[0]), u.rank())


def _reduce(make: Any, alone: Op | None = None) -> Rule:
    """alone: what the op does to each number where no axis is reduced, if that is the number itself."""

    def rule(u: Use) -> list[Made]:
        axes = reduced(u)
        if axes is not None:
            return u.one(make(axes, bool(u["keepdims"])))
        if alone is None:
            raise u.node.unsupported("no axes with noop_with_empty_axes=1")
        return u.one(alone)

    return rule


def _cum_sum(u: Use) -> list[Made]:
    return u.one(CumSum(summed_along(u), bool(u["exclusive"]), bool(u["reverse"])))


RULES: dict[str, Rule] = {
    "CumSum": _cum_sum,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_norm,
    "Max": _extreme(Max),
    "Min": _extreme(Min),
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduce(ReduceL1),
    "ReduceL2": _reduce(ReduceL2),
    "ReduceLogSum": _reduce(ReduceLogSum),
    "ReduceLogSumExp": _reduce(ReduceLogSumExp, Identity()),
    "ReduceMax": _reduce(ReduceMax, Identity()),
    "ReduceMin": _reduce(ReduceMin, Identity()),
    "ReduceProd": _reduce(ReduceProd, Identity()),
    "ReduceSumSquare": _reduce(ReduceSumSquare),
}
"""Operator -> its rule."""
