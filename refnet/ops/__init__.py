"""The ops: one class each, complete in its file. `ALL` lists them for the tests and the docs."""

from refnet.ops.attention import RadixSoftmax, RadixSum, WeightedSum
from refnet.ops.base import Cost, Interval, Op, TensorType
from refnet.ops.conv import Conv
from refnet.ops.dense import Dense
from refnet.ops.layout import Concat, ExpandDims, Flatten, Identity, Slice
from refnet.ops.norm import BatchNorm
from refnet.ops.pointwise import Add, Mul, Relu, Sigmoid
from refnet.ops.pool import AvgPool, GlobalAvgPool, MaxPool
from refnet.ops.resample import UpsampleNearest
from refnet.ops.softmax import Softmax

ALL: tuple[type[Op], ...] = (
    Conv,
    Dense,
    MaxPool,
    AvgPool,
    GlobalAvgPool,
    BatchNorm,
    Relu,
    Sigmoid,
    Add,
    Mul,
    UpsampleNearest,
    Concat,
    Slice,
    Flatten,
    ExpandDims,
    Identity,
    Softmax,
    RadixSum,
    RadixSoftmax,
    WeightedSum,
)

__all__ = [
    "ALL",
    "Add",
    "AvgPool",
    "BatchNorm",
    "Concat",
    "Conv",
    "Cost",
    "Dense",
    "ExpandDims",
    "Flatten",
    "GlobalAvgPool",
    "Identity",
    "Interval",
    "MaxPool",
    "Mul",
    "Op",
    "RadixSoftmax",
    "RadixSum",
    "Relu",
    "Sigmoid",
    "Slice",
    "Softmax",
    "TensorType",
    "UpsampleNearest",
    "WeightedSum",
]
