"""The ops: one class each, complete in its file. `ALL` is every op that refnet computes, for the tests."""

from refnet.core.op import Cost, Interval, Op, TensorType
from refnet.ops.activations import Elu, Gelu, HardSigmoid, HardSwish, Mish, Silu, Softplus, Softsign
from refnet.ops.attention import RadixSoftmax, RadixSum, WeightedSum
from refnet.ops.average import AvgPool, GlobalAvgPool
from refnet.ops.conv import Conv, ConvAdd
from refnet.ops.dense import Dense
from refnet.ops.functions import Abs, Erf, Exp, Log, Power, Sqrt, Tanh
from refnet.ops.layout import Concat, Constant, ExpandDims, Flatten, Identity, Pad, Reshape, Slice, Transpose
from refnet.ops.leaky import LeakyRelu, PRelu
from refnet.ops.matmul import MatMul
from refnet.ops.norm import BatchNorm
from refnet.ops.opaque import Opaque
from refnet.ops.pointwise import Add, Clip, Div, Mul, Relu, Sub
from refnet.ops.pool import MaxPool
from refnet.ops.reduce import ReduceMean, ReduceSum
from refnet.ops.resample import ResizeNearest, UpsampleNearest
from refnet.ops.scalar import WithScalar
from refnet.ops.sigmoid import Sigmoid
from refnet.ops.softmax import Softmax

__all__ = [
    "ALL",
    "Abs",
    "Add",
    "AvgPool",
    "BatchNorm",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvAdd",
    "Cost",
    "Dense",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "ExpandDims",
    "Flatten",
    "Gelu",
    "GlobalAvgPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "Interval",
    "LeakyRelu",
    "Log",
    "MatMul",
    "MaxPool",
    "Mish",
    "Mul",
    "Op",
    "Opaque",
    "PRelu",
    "Pad",
    "Power",
    "RadixSoftmax",
    "RadixSum",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "ResizeNearest",
    "Sigmoid",
    "Silu",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Tanh",
    "TensorType",
    "Transpose",
    "UpsampleNearest",
    "WeightedSum",
    "WithScalar",
]

_PUBLIC = [globals().get(name) for name in __all__]
ALL: tuple[type[Op], ...] = tuple(
    kind for kind in _PUBLIC if isinstance(kind, type) and issubclass(kind, Op) and kind not in (Op, Opaque)
)
