"""The ops: one class each, complete in its file. `ALL` and `TYPED` are all that refnet computes.

A file is imported when one of its ops is first used: a network needs few of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from refnet.core.op import Cost, Interval, Op, TensorType

if TYPE_CHECKING:
    from refnet.ops.activations import Elu, Gelu, HardSigmoid, HardSwish, Mish, Silu, Softplus, Softsign
    from refnet.ops.attention import RadixSoftmax, RadixSum, WeightedSum
    from refnet.ops.average import AvgPool, GlobalAvgPool
    from refnet.ops.clip import Clip
    from refnet.ops.conv import Conv, ConvAdd
    from refnet.ops.conv_nd import ConvNd
    from refnet.ops.conv_transpose import ConvTranspose
    from refnet.ops.cumulative import CumSum
    from refnet.ops.dense import Dense
    from refnet.ops.extremes import Max, Min, ReduceMax, ReduceMin
    from refnet.ops.functions import Abs, Erf, Exp, Log, Power, Sqrt, Tanh
    from refnet.ops.interpolate import ResizeCubic, ResizeLinear
    from refnet.ops.inverse import Acos, Acosh, Asin, Asinh, Atan, Atanh, Cosh, Sinh, Tan
    from refnet.ops.layout import Concat, Constant, ExpandDims, Flatten, Identity, Reshape, Slice, Transpose
    from refnet.ops.leaky import LeakyRelu, PRelu
    from refnet.ops.logarithms import LogSoftmax, ReduceLogSum, ReduceLogSumExp
    from refnet.ops.lrn import LRN
    from refnet.ops.matmul import MatMul
    from refnet.ops.norm import BatchNorm
    from refnet.ops.normalised import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
    from refnet.ops.opaque import Opaque
    from refnet.ops.pad import Pad
    from refnet.ops.pointwise import Add, Div, Mul, Relu, Sub
    from refnet.ops.pool import MaxPool
    from refnet.ops.pool_nd import AvgPoolNd, MaxPoolNd
    from refnet.ops.pool_power import LpPool
    from refnet.ops.powers import Pow
    from refnet.ops.reduce import ReduceMean, ReduceSum
    from refnet.ops.reduce_powers import LpNorm, ReduceL1, ReduceL2, ReduceProd, ReduceSumSquare
    from refnet.ops.resample import ResizeNearest, UpsampleNearest
    from refnet.ops.scalar import WithScalar
    from refnet.ops.select import DepthToSpace, Expand, Gather, SpaceToDepth, StridedSlice, Tile
    from refnet.ops.sigmoid import Sigmoid
    from refnet.ops.softmax import Softmax
    from refnet.ops.steps import StepFunction
    from refnet.ops.trigonometry import Cos, Sin

    ALL: tuple[type[Op], ...]
    TYPED: tuple[type[Op], ...]

__all__ = [
    "ALL",
    "LRN",
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AvgPool",
    "AvgPoolNd",
    "BatchNorm",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvAdd",
    "ConvNd",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "Cost",
    "CumSum",
    "Dense",
    "DepthToSpace",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "ExpandDims",
    "Flatten",
    "Gather",
    "Gelu",
    "GlobalAvgPool",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNorm",
    "Interval",
    "LayerNorm",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNorm",
    "LpPool",
    "MatMul",
    "Max",
    "MaxPool",
    "MaxPoolNd",
    "Min",
    "Mish",
    "Mul",
    "Op",
    "Opaque",
    "PRelu",
    "Pad",
    "Pow",
    "Power",
    "RMSNorm",
    "RadixSoftmax",
    "RadixSum",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "ResizeCubic",
    "ResizeLinear",
    "ResizeNearest",
    "Sigmoid",
    "Silu",
    "Sin",
    "Sinh",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Sqrt",
    "StepFunction",
    "StridedSlice",
    "Sub",
    "Tan",
    "Tanh",
    "TensorType",
    "Tile",
    "Transpose",
    "UpsampleNearest",
    "WeightedSum",
    "WithScalar",
]

_FILES = {
    "activations": "Elu Gelu HardSigmoid HardSwish Mish Silu Softplus Softsign",
    "attention": "RadixSoftmax RadixSum WeightedSum",
    "average": "AvgPool GlobalAvgPool",
    "clip": "Clip",
    "conv": "Conv ConvAdd",
    "conv_nd": "ConvNd",
    "conv_transpose": "ConvTranspose",
    "cumulative": "CumSum",
    "dense": "Dense",
    "extremes": "Max Min ReduceMax ReduceMin",
    "functions": "Abs Erf Exp Log Power Sqrt Tanh",
    "interpolate": "ResizeCubic ResizeLinear",
    "inverse": "Acos Acosh Asin Asinh Atan Atanh Cosh Sinh Tan",
    "layout": "Concat Constant ExpandDims Flatten Identity Reshape Slice Transpose",
    "leaky": "LeakyRelu PRelu",
    "logarithms": "LogSoftmax ReduceLogSum ReduceLogSumExp",
    "lrn": "LRN",
    "matmul": "MatMul",
    "norm": "BatchNorm",
    "normalised": "GroupNorm InstanceNorm LayerNorm RMSNorm",
    "opaque": "Opaque",
    "pad": "Pad",
    "pointwise": "Add Div Mul Relu Sub",
    "pool": "MaxPool",
    "pool_nd": "AvgPoolNd MaxPoolNd",
    "pool_power": "LpPool",
    "powers": "Pow",
    "reduce": "ReduceMean ReduceSum",
    "reduce_powers": "LpNorm ReduceL1 ReduceL2 ReduceProd ReduceSumSquare",
    "resample": "ResizeNearest UpsampleNearest",
    "scalar": "WithScalar",
    "select": "DepthToSpace Expand Gather SpaceToDepth StridedSlice Tile",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "steps": "StepFunction",
    "trigonometry": "Cos Sin",
}
"""The ops of each file."""
_TYPED = {
    "integers": "ArgExtreme Cast Compare Logical Where",
    "take": "Take TakeAlong TakeAt",
    "whole_numbers": "Whole WholeCumSum WholeReduce",
}
"""Ops that give or take integers; they have rules of their own (tests/ops/test_integers.py)."""
_HOME = {name: file for file, names in (*_FILES.items(), *_TYPED.items()) for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"refnet.ops.{_HOME[name]}"), name)
    elif name == "ALL":
        value = tuple(__getattr__(one) for one in __all__ if one in _HOME and one != "Opaque")
    elif name == "TYPED":
        value = tuple(__getattr__(one) for names in _TYPED.values() for one in names.split())
    else:
        raise AttributeError(f"module 'refnet.ops' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "ALL", "TYPED"})
