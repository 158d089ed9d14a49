"""MXNet's ops -> refnet's: attributes with the defaults of MXNet 1.9.1, and what is refused by name.

One rule per op (`RULES`): its argument names, which of its attributes mean anything to a run, and a
function from the node and its data types to refnet's op. Defaults were read from MXNet 1.9.1's own
documentation of each op (`mx.sym.Convolution.__doc__` and so on); attribute values are strings,
read as dmlc's parameter parser reads them.
"""

from __future__ import annotations

from math import prod

from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.mxnet import functions, layout
from refnet.formats.mxnet.node import ANNOTATION, Maker, Rule, SymbolNode, float32
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    Dense,
    Div,
    Flatten,
    GlobalAvgPool,
    Identity,
    LeakyRelu,
    MaxPool,
    Mul,
    Op,
    PRelu,
    ReduceMean,
    ReduceSum,
    Relu,
    Sigmoid,
    Softmax,
    Sub,
    TensorType,
    UpsampleNearest,
    WithScalar,
)


def check_attributes(node: SymbolNode, rule: Rule) -> None:
    """Refuse an attribute that refnet does not know: it might change the result."""
    for key in node.attributes:
        if key not in rule.known and not ANNOTATION.fullmatch(key):
            raise node.refused(key, f"for {node.op} only {', '.join(rule.known) or 'no attributes'}")


def arguments(node: SymbolNode, rule: Rule) -> tuple[str, ...]:
    """Names of the inputs that this node must have; a bias or a slope only where the node has one."""
    if not rule.arguments:
        return ("data",) * len(node.inputs)
    default = False
    if rule.arguments[-1] == "bias" and node.boolean("no_bias", default):
        return rule.arguments[:-1]
    if rule.arguments[-1] == "gamma" and node.text("act_type", "leaky") != "prelu":
        return rule.arguments[:-1]
    return rule.arguments


def _layout(node: SymbolNode) -> None:
    if node.text("layout", "None") not in ("None", "NCHW"):
        raise node.refused("layout", "NCHW")


def _convolution(node: SymbolNode, data: list[TensorType]) -> Op:
    _layout(node)
    return Conv(
        channels=node.integer("num_filter", least=1),
        kernel=node.pair("kernel", None, 1),
        stride=node.pair("stride", (1, 1), 1),
        pad=node.pair("pad", (0, 0), 0),
        dilation=node.pair("dilate", (1, 1), 1),
        groups=node.integer("num_group", 1, 1),
        bias=not node.boolean("no_bias", False),
    )


def _fully_connected(node: SymbolNode, data: list[TensorType]) -> Op:
    if not node.boolean("flatten", True) and len(data[0].shape) != 2:
        raise node.refused("flatten", f"flatten=True for data {data[0]!r}")
    return Dense(node.integer("num_hidden", least=1), bias=not node.boolean("no_bias", False))


def _batch_norm(node: SymbolNode, data: list[TensorType]) -> Op:
    if node.axis("axis", len(data[0].shape), 1) != 1:
        raise node.refused("axis", "axis 1 (the channels)")
    if node.boolean("output_mean_var", False):
        raise node.refused("output_mean_var", "one output per node")
    for key in ("min_calib_range", "max_calib_range"):
        if node.text(key, "None") != "None":
            raise node.refused(key, "float32 only")
    node.boolean("use_global_stats", False)  # at inference the running statistics are used either way
    eps = node.number("eps", 0.0010000000474974513)  # MXNet's own default: float32(1e-3) as a double
    if eps < 0:
        raise node.wrong("eps", "a number >= 0")
    return BatchNorm(eps=eps, fix_gamma=node.boolean("fix_gamma", True))


def _clip(node: SymbolNode, data: list[TensorType]) -> Op:
    return Clip(node.float32("a_min", None), node.float32("a_max", None))


def _activation(node: SymbolNode, data: list[TensorType]) -> Op:
    kinds: dict[str, Op] = {"relu": Relu(), "sigmoid": Sigmoid(), **functions.ACTIVATIONS}
    kind = node.text("act_type")
    if kind not in kinds:
        raise node.refused("act_type", ", ".join(kinds))
    return kinds[kind]


def _pooling(node: SymbolNode, data: list[TensorType]) -> Op:
    _layout(node)
    kind = node.text("pool_type", "max")
    if kind not in ("max", "avg"):
        raise node.refused("pool_type", "max and avg")
    if node.boolean("global_pool", False):  # kernel, stride and pad are ignored, as in MXNet
        if kind == "avg":
            return GlobalAvgPool()
        if data[0].shape[2:] == (1, 1):
            return Identity()
        height, width = data[0].shape[2:]
        return MaxPool((height, width))
    convention = node.text("pooling_convention", "valid")
    if convention not in ("valid", "full"):
        raise node.refused("pooling_convention", "valid and full")
    kernel, stride = node.pair("kernel", None, 1), node.pair("stride", (1, 1), 1)
    pad = node.pair("pad", (0, 0), 0)
    if kind == "max":
        return MaxPool(kernel, stride, pad, convention)
    counted = node.text("count_include_pad", "None") == "None" or node.boolean("count_include_pad", True)
    return AvgPool(kernel, stride, pad, convention, counted)


def _adaptive_pooling(node: SymbolNode, data: list[TensorType]) -> Op:
    size = () if node.text("output_size", "None") == "None" else node.shape("output_size")
    if size not in ((), (1,), (1, 1)):
        raise node.refused("output_size", "output_size 1")
    return GlobalAvgPool()


def _upsampling(node: SymbolNode, data: list[TensorType]) -> Op:
    if node.text("sample_type") != "nearest":
        raise node.refused("sample_type", "nearest")
    if len(data) != 1:
        raise UnsupportedError(f"{node.file}: {node.title} has {len(data)} inputs, refnet upsamples one")
    return UpsampleNearest(node.integer("scale", least=1))


def _concat(node: SymbolNode, data: list[TensorType]) -> Op:
    return Concat(node.axis("dim", len(data[0].shape), 1))


def _add(node: SymbolNode, data: list[TensorType]) -> Op:
    equal = len({x.shape for x in data}) == 1
    if not equal and not node.op.startswith("broadcast"):
        raise FormatError(node.file, node.offset, f"{data} as inputs of {node.title}", "equal shapes")
    return Add(len(data), broadcast=not equal)


def _two(op: Op) -> Maker:
    """A rule of two operands; only the ops called broadcast_ stretch them."""

    def make(node: SymbolNode, data: list[TensorType]) -> Op:
        if not node.op.startswith("broadcast") and data[0] != data[1]:
            raise FormatError(node.file, node.offset, f"{data} as inputs of {node.title}", "equal shapes")
        return op

    return make


def _scalar(kind: str) -> Rule:
    """Arithmetic with a number, a double in the file; MXNet rounds it to the data's float32."""

    def make(node: SymbolNode, data: list[TensorType]) -> Op:
        node.boolean("is_int", True)  # says how the number was written
        return WithScalar(kind, node.float32("scalar", 1.0))

    return Rule(make, known=("scalar", "is_int"))


def _limit(node: SymbolNode, data: list[TensorType]) -> Op:
    limit = node.float32("scalar", 1.0)
    node.boolean("is_int", True)
    return Clip(low=limit) if node.op.lower().startswith("_max") else Clip(high=limit)


def _leaky(node: SymbolNode, data: list[TensorType]) -> Op:
    kind = node.text("act_type", "leaky")
    slope = node.float32("slope", 0.25)
    low, high = node.float32("lower_bound", 0.125), node.float32("upper_bound", 0.333999991)
    if kind == "leaky":
        return LeakyRelu(slope)
    if kind == "rrelu":  # random only in training
        return LeakyRelu(float32((low + high) / 2))
    if kind == "prelu":
        return PRelu(node.hints[1] or data[0].shape[1:2])
    if (op := functions.leaky(node, kind, slope)) is not None:
        return op
    raise node.refused("act_type", "leaky, prelu, rrelu, elu, selu and gelu")


def _cast(node: SymbolNode, data: list[TensorType]) -> Op:
    if node.text("dtype") not in ("float32", "0"):
        raise node.refused("dtype", "float32")
    return Identity()


def _reduce(make: type[ReduceMean | ReduceSum]) -> Maker:
    def rule(node: SymbolNode, data: list[TensorType]) -> Op:
        shape = data[0].shape
        given, every = layout.axes(node, len(shape)), tuple(range(len(shape)))
        keepdims = node.boolean("keepdims", False)
        others = tuple(i for i in every if i not in given)
        axes = (others if node.boolean("exclude", False) else given) if given else every
        if not axes:
            return Identity()
        vector = axes == every and not keepdims  # MXNet knows no shape ()
        if make is ReduceMean:
            same = len(shape) == 4 and axes == (2, 3) and keepdims
            return GlobalAvgPool() if same else ReduceMean(axes, keepdims, vector=vector)
        terms = None if 0 in axes else prod(shape[i] for i in axes)
        return ReduceSum(axes, keepdims, terms, vector=vector)

    return rule


def _rows_softmax(node: SymbolNode, data: list[TensorType]) -> Op:
    """Softmax of the rows of (n, classes).

    Beyond rank 2, MXNet 1.9.1 does not keep to its own words: SoftmaxActivation works on the last axis,
    SoftmaxOutput on the last axis or on the rows of (n, rest), depending on rank and MXNET_MKLDNN_ENABLED.
    """
    if len(data[0].shape) != 2:
        raise UnsupportedError(
            f"{node.file}: {node.title} of {data[0]!r}: refnet has it for (n, classes) only"
        )
    return Softmax(axis=1)


def _softmax_output(node: SymbolNode, data: list[TensorType]) -> Op:
    multi_output, preserve_shape = (node.boolean(key, False) for key in ("multi_output", "preserve_shape"))
    if multi_output:  # comes first in MXNet, too
        return Softmax(axis=1)
    if preserve_shape:
        return Softmax(axis=len(data[0].shape) - 1)
    return _rows_softmax(node, data)


def _softmax(node: SymbolNode, data: list[TensorType]) -> Op:
    if node.text("temperature", "None") != "None" and node.number("temperature", 1.0) != 1.0:
        raise node.refused("temperature", "temperature 1")
    if node.text("dtype", "None") not in ("None", "float32"):
        raise node.refused("dtype", "float32")
    if node.text("use_length", "None") != "None" and node.boolean("use_length", False):
        raise node.refused("use_length", "whole rows only")
    return Softmax(node.axis("axis", len(data[0].shape), -1))


def _softmax_activation(node: SymbolNode, data: list[TensorType]) -> Op:
    mode = node.text("mode", "instance")
    if mode not in ("instance", "channel"):
        raise node.wrong("mode", "instance or channel")
    if mode == "instance":
        return _rows_softmax(node, data)
    if len(data[0].shape) < 3:  # MXNet refuses it
        raise node.wrong("mode", f"instance for data {data[0]!r}")
    return Softmax(axis=1)


def _dropout(node: SymbolNode, data: list[TensorType]) -> Op:
    mode = node.text("mode", "training")
    if mode not in ("training", "always"):
        raise node.wrong("mode", "training or always")
    if mode == "always":  # drops at inference, too, at random
        raise node.refused("mode", "mode 'training'")
    return Identity()


_TRAINING = ("grad_scale", "ignore_label", "use_ignore", "normalization", "out_grad", "smooth_alpha")
_CONVOLUTION = ("kernel", "stride", "dilate", "pad", "num_filter", "num_group", "no_bias", "layout")
_BATCH_NORM = ("eps", "fix_gamma", "use_global_stats", "output_mean_var", "axis")
_CALIBRATION = ("min_calib_range", "max_calib_range")
_POOLING = ("kernel", "stride", "pad", "pool_type", "global_pool", "pooling_convention", "count_include_pad")
_OUTPUT = Rule(_softmax_output, ("data", "label"), 1, ("multi_output", "preserve_shape", *_TRAINING))
_SUM = Rule(_add, ())
_PLUS, _MINUS, _TIMES, _BY = (
    Rule(make, ("lhs", "rhs"), 2) for make in (_add, _two(Sub()), _two(Mul()), _two(Div()))
)
_CLIP_ONE = Rule(_limit, known=("scalar", "is_int"))
_SWAP = Rule(layout.swap, known=("dim1", "dim2"))
_RESHAPE = Rule(layout.reshape, known=("shape", "reverse", "target_shape", "keep_highest"))
_SLICE = Rule(layout.slice_, known=("begin", "end", "step"))
_REDUCED = ("axis", "keepdims", "exclude")
_FLATTEN = Rule(lambda node, data: Flatten())
_IDENTITY = Rule(lambda node, data: Identity())
_CONCAT = Rule(_concat, (), 1, ("dim",))

SOFTMAX_OUTPUTS = ("SoftmaxOutput", "Softmax")
"""Ops whose second input is a label: dropped."""

RULES: dict[str, Rule] = {
    **functions.RULES,
    "Convolution": Rule(_convolution, ("data", "weight", "bias"), 1, _CONVOLUTION),
    "FullyConnected": Rule(
        _fully_connected, ("data", "weight", "bias"), 1, ("num_hidden", "no_bias", "flatten")
    ),
    "BatchNorm": Rule(
        _batch_norm,
        ("data", "gamma", "beta", "moving_mean", "moving_var"),
        1,
        (*_BATCH_NORM, *_CALIBRATION),
    ),
    "Activation": Rule(_activation, known=("act_type",)),
    "LeakyReLU": Rule(_leaky, ("data", "gamma"), 1, ("act_type", "slope", "lower_bound", "upper_bound")),
    "relu": Rule(lambda node, data: Relu()),
    "clip": Rule(_clip, known=("a_min", "a_max")),
    "sigmoid": Rule(lambda node, data: Sigmoid()),
    "Pooling": Rule(_pooling, known=(*_POOLING, "layout", "p_value")),
    "_contrib_AdaptiveAvgPooling2D": Rule(_adaptive_pooling, known=("output_size",)),
    "UpSampling": Rule(_upsampling, (), 1, ("scale", "sample_type", "num_filter", "multi_input_mode")),
    "Concat": _CONCAT,
    "concat": _CONCAT,
    **dict.fromkeys(("add_n", "ElementWiseSum"), _SUM),
    **dict.fromkeys(("elemwise_add", "_plus", "_Plus", "_add", "broadcast_add", "broadcast_plus"), _PLUS),
    **dict.fromkeys(("elemwise_sub", "_minus", "_Minus", "_sub", "broadcast_sub", "broadcast_minus"), _MINUS),
    **dict.fromkeys(("elemwise_mul", "_mul", "_Mul", "broadcast_mul"), _TIMES),
    **dict.fromkeys(("elemwise_div", "_div", "_Div", "broadcast_div"), _BY),
    **dict.fromkeys(("_plus_scalar", "_PlusScalar"), _scalar("add")),
    **dict.fromkeys(("_minus_scalar", "_MinusScalar"), _scalar("sub")),
    **dict.fromkeys(("_rminus_scalar", "_RMinusScalar"), _scalar("rsub")),
    **dict.fromkeys(("_mul_scalar", "_MulScalar"), _scalar("mul")),
    **dict.fromkeys(("_div_scalar", "_DivScalar"), _scalar("div")),
    **dict.fromkeys(("_rdiv_scalar", "_RDivScalar"), _scalar("rdiv")),
    **dict.fromkeys(("_maximum_scalar", "_MaximumScalar", "_minimum_scalar", "_MinimumScalar"), _CLIP_ONE),
    "negative": Rule(lambda node, data: WithScalar("mul", -1.0)),
    "Flatten": _FLATTEN,
    "flatten": _FLATTEN,
    "expand_dims": Rule(layout.expand_dims, known=("axis",)),
    "squeeze": Rule(layout.squeeze, known=("axis",)),
    **dict.fromkeys(("Reshape", "reshape"), _RESHAPE),
    "transpose": Rule(layout.transpose, known=("axes",)),
    **dict.fromkeys(("SwapAxis", "swapaxes"), _SWAP),
    "slice_axis": Rule(layout.slice_axis, known=("axis", "begin", "end")),
    **dict.fromkeys(("slice", "crop"), _SLICE),
    "mean": Rule(_reduce(ReduceMean), known=_REDUCED),
    **dict.fromkeys(("sum", "sum_axis"), Rule(_reduce(ReduceSum), known=_REDUCED)),
    **dict.fromkeys(("Cast", "cast"), Rule(_cast, known=("dtype",))),
    "Dropout": Rule(_dropout, known=("p", "mode", "axes")),
    **dict.fromkeys(("identity", "_copy", "BlockGrad", "stop_gradient"), _IDENTITY),
    "SoftmaxOutput": _OUTPUT,
    "Softmax": _OUTPUT,
    "softmax": Rule(_softmax, known=("axis", "temperature", "dtype", "use_length")),
    "SoftmaxActivation": Rule(_softmax_activation, known=("mode",)),
}
"""MXNet's op name -> how it is read."""
