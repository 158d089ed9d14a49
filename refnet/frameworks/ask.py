"""One op of a framework as a black box: arrays in, the framework's result out.

    asker(worker, framework, threads) ── Ask(op, x, w, bias) -> y

Only what the op means is translated here, not how it adds: reductions, and the pointwise ops whose
formulas differ in ways that ordinary numbers do not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from refnet.core.errors import InputError
from refnet.core.op import F32, Op
from refnet.ops.conv import Conv
from refnet.ops.dense import Dense
from refnet.ops.pointwise import Relu, Sigmoid
from refnet.ops.pool import AvgPool, GlobalAvgPool, MaxPool
from refnet.ops.softmax import Softmax

if TYPE_CHECKING:
    from refnet.frameworks.process import Worker


class Ask(Protocol):
    """Computes an op in a framework. x (n, c, h, w) or (n, k), w and bias as the op's weights."""

    def __call__(self, op: Op, x: F32, w: F32 | None = None, bias: F32 | None = None) -> F32:
        """The framework's result. Raises FrameworkError if it refuses."""
        ...


def asker(worker: Worker, framework: str, threads: int) -> Ask:
    """How a framework ("torch", "mxnet", "onnxruntime") is asked. Raises InputError for another."""
    calls = {"torch": _torch, "mxnet": _mxnet, "onnxruntime": _onnx}
    if framework not in calls:
        raise InputError(f"framework must be among {', '.join(calls)}, got {framework!r}")

    def ask(op: Op, x: F32, w: F32 | None = None, bias: F32 | None = None) -> F32:
        function, arguments, names = calls[framework](op, x)
        given = [array for array in (x, w, bias) if array is not None]
        if function == "SoftmaxOutput":  # whose label is not looked at
            given.append(np.zeros(x.shape[:1], np.float32))
        arrays = dict(zip(names, given, strict=False))
        request = {"function": function, "arguments": arguments, "threads": threads}
        if framework == "onnxruntime":
            request["weights"] = list(arrays)[1:]  # constants, as in a model: they are packed beforehand
        return np.ascontiguousarray(worker.ask("op", request, arrays).array("y"))

    return ask


Call = tuple[str, Mapping[str, Any], tuple[str, ...]]
"""The framework's function, its keywords, and its names of x, weight and bias."""


def _torch(op: Op, x: F32) -> Call:
    if isinstance(op, Conv | AvgPool | MaxPool) and not op.symmetric:
        raise InputError(f"{op!r}: torch pads both sides alike")
    names = ("x", "weight", "bias")
    match op:
        case Conv():
            place = {"stride": op.stride, "padding": op.pad, "dilation": op.dilation, "groups": op.groups}
            return "conv2d", place, names
        case Dense():
            return "linear", {}, names
        case AvgPool():
            arguments = {
                "kernel_size": op.kernel,
                "stride": op.stride,
                "padding": op.pad,
                "ceil_mode": op.convention == "ceil",
                "count_include_pad": op.count_include_pad,
            }
            return "avg_pool2d", arguments, names
        case GlobalAvgPool():
            return "adaptive_avg_pool2d", {"output_size": [1, 1]}, names
        case MaxPool():
            ceil = op.convention == "ceil"
            place = {"kernel_size": op.kernel, "stride": op.stride, "padding": op.pad, "ceil_mode": ceil}
            return "max_pool2d", place, names
        case Relu():
            return "relu", {}, names
        case Sigmoid():
            return "sigmoid", {}, names
        case Softmax():
            return "softmax", {"dim": op.axis}, names
    raise InputError(f"{op!r}: torch is not asked for its order here")


def _mxnet(op: Op, x: F32) -> Call:
    if isinstance(op, Conv | AvgPool | MaxPool) and not op.symmetric:
        raise InputError(f"{op!r}: mxnet pads both sides alike")
    names = ("data", "weight", "bias")
    match op:
        case Conv():
            return (
                "Convolution",
                {
                    "num_filter": op.channels,
                    "kernel": op.kernel,
                    "stride": op.stride,
                    "pad": op.pad,
                    "dilate": op.dilation,
                    "num_group": op.groups,
                    "no_bias": not op.bias,
                },
                names,
            )
        case Dense():
            return "FullyConnected", {"num_hidden": op.units, "no_bias": not op.bias}, names
        case AvgPool():
            return (
                "Pooling",
                {
                    "kernel": op.kernel,
                    "stride": op.stride,
                    "pad": op.pad,
                    "pool_type": "avg",
                    "pooling_convention": op.convention,
                    "count_include_pad": op.count_include_pad,
                },
                names,
            )
        case GlobalAvgPool():
            return "Pooling", {"kernel": (1, 1), "pool_type": "avg", "global_pool": True}, names
        case MaxPool():
            place = {"kernel": op.kernel, "stride": op.stride, "pad": op.pad, "pool_type": "max"}
            return "Pooling", place | {"pooling_convention": op.convention}, names
        case Relu() | Sigmoid():
            return "Activation", {"act_type": type(op).__name__.lower()}, names
        case Softmax() if len(x.shape) == 2:
            return "SoftmaxOutput", {}, ("data", "label")
    raise InputError(f"{op!r}: mxnet is not asked for its order here")


def _onnx(op: Op, x: F32) -> Call:
    names = ("x", "weight", "bias")
    match op:
        case Conv():
            place = {
                "strides": op.stride,
                "pads": (*op.pad, *op.ends),
                "dilations": op.dilation,
                "group": op.groups,
            }
            return "Conv", place, names
        case Dense():
            return "Gemm", {"transB": 1}, names
        case AvgPool(dilation=(1, 1)):  # dilated ones came with opset 19
            arguments = {
                "kernel_shape": op.kernel,
                "strides": op.stride,
                "pads": (*op.pad, *op.ends),
                "ceil_mode": int(op.convention == "ceil"),
                "count_include_pad": int(op.count_include_pad),
            }
            return "AveragePool", arguments, names
        case GlobalAvgPool():
            return "GlobalAveragePool", {}, names
        case MaxPool():
            place = {
                "kernel_shape": op.kernel,
                "strides": op.stride,
                "pads": (*op.pad, *op.ends),
                "dilations": op.dilation,
            }
            return "MaxPool", place | {"ceil_mode": int(op.convention == "ceil")}, names
        case Relu() | Sigmoid():
            return type(op).__name__, {}, names
        case Softmax():
            return "Softmax", {"axis": op.axis}, names
    raise InputError(f"{op!r}: onnxruntime is not asked for its order here")
