"""PyTorch's function for each op: one row per op, as formats/mxnet/export.py and formats/onnx/export.py have.

torch_function(op, *types) -> the name of one of torch_worker.py's FUNCTIONS, its keywords
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from refnet.core.errors import GraphError, UnsupportedError
from refnet.core.op import Op, TensorType
from refnet.formats.mxnet.functions import SELU
from refnet.ops import (
    AvgPool,
    BatchNorm,
    Conv,
    ConvNd,
    ConvTranspose,
    Dense,
    Elu,
    Erf,
    Exp,
    Gelu,
    GlobalAvgPool,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    LayerNorm,
    Log,
    LogSoftmax,
    MatMul,
    MaxPool,
    Mish,
    Power,
    RadixSoftmax,
    RadixSum,
    ReduceL1,
    ReduceL2,
    ReduceLogSumExp,
    ReduceMean,
    ReduceSum,
    Relu,
    RMSNorm,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Softsign,
    Sqrt,
    Tanh,
    WeightedSum,
)
from refnet.ops.activations import SIXTH

Function = tuple[str, dict[str, Any]]


def torch_function(op: Op, *types: TensorType) -> Function:
    """The function and its keywords. types: of the inputs.

    Raises UnsupportedError where PyTorch has no such op.

    >>> torch_function(AvgPool((2, 2), (2, 2), convention="full"), TensorType((1, 1, 8, 8)))[1]["ceil_mode"]
    False
    """
    refusal = UnsupportedError(f"{op!r} has no counterpart in PyTorch")
    if isinstance(op, Conv | AvgPool | MaxPool) and op.ends != op.pad:
        raise refusal
    match op:
        case Conv():
            place = {"stride": op.stride, "padding": op.pad, "dilation": op.dilation, "groups": op.groups}
            return "conv2d", place
        case ConvNd() | ConvTranspose():
            return _beyond_two_axes(op, refusal)
        case ReduceMean() | ReduceSum():
            name = "mean" if isinstance(op, ReduceMean) else "sum"
            return name, {"dim": op.axes, "keepdim": op.keepdims}
        case Dense():
            return "linear", {}
        case MatMul(addend=False, constants=(), transpose_a=False, transpose_b=False) if op.ordered:
            return "matmul", {}
        case MatMul(constants=((_, columns), *rest), transpose_a=False) if (
            op.ordered and len(rest) == op.addend and all(shape == (columns,) for shape in rest)
        ):
            return "product", {"transposed": op.transpose_b}
        case AvgPool(dilation=(1, 1)):
            counted = {"count_include_pad": op.count_include_pad}
            return "avg_pool2d", {**_window(op, types[0]), **counted}
        case GlobalAvgPool():
            return "adaptive_avg_pool2d", {"output_size": 1}
        case BatchNorm():
            return "batch_norm", {"eps": op.eps}
        case MaxPool():
            return "max_pool2d", {**_window(op, types[0]), "dilation": op.dilation}
        case Softmax(trailing=False):
            return "softmax", {"dim": op.axis}
        case LayerNorm() | RMSNorm() if _own_weights(op, types):
            return "rms_norm" if isinstance(op, RMSNorm) else "layer_norm", {"eps": op.eps}
        case GroupNorm(per_group=False) if _own_weights(op, types):
            return "group_norm", {"num_groups": op.groups, "eps": op.eps}
        case InstanceNorm() if _own_weights(op, types):
            return "instance_norm", {"eps": op.eps}
        case LogSoftmax(trailing=False):
            return "log_softmax", {"dim": op.axis}
        case ReduceLogSumExp():
            return "logsumexp", {"dim": op.axes, "keepdim": op.keepdims}
        case ReduceL1() | ReduceL2():
            order = 1 if isinstance(op, ReduceL1) else 2
            return "vector_norm", {"ord": order, "dim": op.axes, "keepdim": op.keepdims}
        case Relu():
            return "relu", {}
        case Sigmoid():
            return "sigmoid", {}
        case Exp() | Log() | Tanh() | Erf() | Sqrt() | Softplus() | Mish() | Silu() | Softsign():
            return type(op).__name__.lower(), {}
        case Gelu():
            return "gelu", {"approximate": "tanh" if op.tanh else "none"}
        case Elu() if op == SELU:
            return "selu", {}
        case Elu(scale=1.0) if op.width in (1.0, op.alpha):
            return "elu" if op.width == 1 else "celu", {"alpha": op.alpha}
        case HardSigmoid() if op == HardSigmoid(SIXTH):
            return "hardsigmoid", {}
        case HardSwish():
            return "hardswish", {}
        case Power():
            return "pow", {"exponent": op.exponent}
        case RadixSum():
            return "radix_sum", {"radix": op.radix}
        case WeightedSum():
            return "weighted_sum", {"radix": op.radix}
        case RadixSoftmax():
            return "radix_softmax", {"radix": op.radix, "cardinality": op.cardinality}
    raise refusal


def _beyond_two_axes(op: ConvNd | ConvTranspose, refusal: UnsupportedError) -> Function:
    """Convolutions over one and three axes, and transposed ones."""
    rank = len(op.kernel)
    stride, pad, end, dilation, *more = op.window
    if rank > 3 or pad != end:
        raise refusal
    place = {"stride": stride, "padding": pad, "dilation": dilation, "groups": op.groups}
    if isinstance(op, ConvNd):
        return f"conv{rank}d", place
    return f"conv_transpose{rank}d", {**place, "output_padding": more[0]}


def _own_weights(op: LayerNorm | RMSNorm | GroupNorm | InstanceNorm, types: Sequence[TensorType]) -> bool:
    """Whether scale and shift are weights of the shape that PyTorch's function takes."""
    x = types[0].shape
    wanted = x[op.axis :] if isinstance(op, LayerNorm | RMSNorm) else x[1:2]
    return len(op.constants) == len(types) - 1 and all(shape == wanted for shape in op.constants)


def _window(op: AvgPool | MaxPool, data: TensorType) -> dict[str, Any]:
    """Kernel, stride, padding, ceil_mode.

    One of PyTorch's two conventions has the op's size: full and ceil differ only in a last window that lies
    wholly in the padding. full with such a window is refused by the op; ceil leaves it out, and has then the
    size of valid.
    """
    convention = op.convention
    if convention == "full":
        sizes = {name: _size(replace(op, convention=name), data) for name in ("valid", "ceil")}
        convention = next(name for name, size in sizes.items() if size == _size(op, data))
    place = {"kernel_size": op.kernel, "stride": op.stride, "padding": op.pad}
    return {**place, "ceil_mode": convention == "ceil"}


def _size(op: Op, data: TensorType) -> TensorType | None:
    try:
        return op.type(data)
    except GraphError:  # a window without an element
        return None
