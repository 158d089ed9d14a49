"""MXNet's ops -> refnet's: attributes with the defaults of MXNet 1.9.1, and what is refused by name.

One rule per op (`RULES`): its argument names, which of its attributes mean anything to a run, and a
function from the node and its data types to refnet's op. Defaults were read from MXNet 1.9.1's own
documentation of each op (`mx.sym.Convolution.__doc__` and so on); attribute values are strings,
read as dmlc's parameter parser reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from struct import pack, unpack

from refnet.core.errors import FormatError, UnsupportedError
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    Dense,
    ExpandDims,
    Flatten,
    GlobalAvgPool,
    Identity,
    MaxPool,
    Mul,
    Op,
    Relu,
    Sigmoid,
    Slice,
    Softmax,
    TensorType,
    UpsampleNearest,
)

Pair = tuple[int, int]
LARGEST = 2**31 - 1
"""Attributes are 32-bit integers in MXNet."""
LARGEST_FLOAT32 = float.fromhex("0x1.fffffep127")

ANNOTATION = re.compile(
    r"__.*__|(.*_)?(lr_mult|wd_mult|ctx_group|force_mirroring|mirror_stage)|"
    r"num_args|workspace|cudnn_(tune|off)|momentum|name"
)
"""Attributes that say nothing about an inference run on the CPU."""


@dataclass(frozen=True)
class SymbolNode:
    """One node of a symbol.json: index, op ('null' is a variable), name, attributes, inputs.

    inputs: (node index, output index) pairs. file and offset serve the error messages.
    """

    file: str
    offset: int | None
    index: int
    op: str
    name: str
    attributes: dict[str, str]
    inputs: tuple[tuple[int, int], ...]

    @property
    def title(self) -> str:
        """How messages name this node."""
        return f"node {self.index} {self.name!r} ({self.op})"

    def wrong(self, key: str, expected: str) -> FormatError:
        """The error of an attribute that cannot be read."""
        found = "no" if key not in self.attributes else f"{self.attributes[key][:60]!r} as"
        return FormatError(self.file, self.offset, f"{found} {key!r} of {self.title}", expected)

    def refused(self, key: str, can: str) -> UnsupportedError:
        """The error of an attribute whose value refnet does not implement."""
        value = self.attributes.get(key, "absent")
        return UnsupportedError(f"{self.file}: {self.title} has {key}={value[:60]!r}, refnet has {can}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string attribute; required where there is no default."""
        value = self.attributes.get(key, default)
        if value is None:
            raise self.wrong(key, "a value (required)")
        return value

    def integer(self, key: str, default: int | None = None, least: int = 0) -> int:
        """A whole number from least to 2**31 - 1."""
        value = self.text(key, None if default is None else str(default)).strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,10}", value, re.ASCII) or not least <= int(value) <= LARGEST:
            raise self.wrong(key, f"a whole number from {least} to {LARGEST}")
        return int(value)

    def optional_integer(self, key: str) -> int | None:
        """A whole number, or None where the attribute is absent or says None."""
        return None if self.text(key, "None") == "None" else self.integer(key, least=-LARGEST)

    def number(self, key: str, default: float | None) -> float:
        """A finite decimal number; required where there is no default."""
        value = self.text(key, None if default is None else repr(default)).strip()
        pattern = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?f?"
        if len(value) > 400 or not re.fullmatch(pattern, value, re.ASCII):
            raise self.wrong(key, "a decimal number")
        number = float(value.rstrip("f"))
        if number in (float("inf"), float("-inf")):
            raise self.wrong(key, "a finite number")
        return number

    def boolean(self, key: str, default: bool) -> bool:
        """True, true or 1; False, false or 0."""
        value = self.text(key, str(default)).strip().lower()
        if value not in ("true", "1", "false", "0"):
            raise self.wrong(key, "True, False, 1 or 0")
        return value in ("true", "1")

    def shape(self, key: str) -> tuple[int, ...]:
        """A tuple of whole numbers, () where absent: (3, 3), [3,3] or 3."""
        value = self.text(key, "()").strip()
        inside = value[1:-1] if (value[:1], value[-1:]) in (("(", ")"), ("[", "]")) else value
        parts = inside.split(",") if inside.strip() else []
        if len(parts) > 1 and not parts[-1].strip():
            parts.pop()
        numbers = []
        for part in parts[:9]:
            if not re.fullmatch(r"[0-9]{1,10}L?", part.strip(), re.ASCII):
                raise self.wrong(key, "a tuple of whole numbers")
            numbers.append(int(part.strip().rstrip("L")))
        if len(parts) > 8 or any(n > LARGEST for n in numbers):
            raise self.wrong(key, f"at most 8 numbers up to {LARGEST}")
        return tuple(numbers)

    def pair(self, key: str, default: Pair | None, least: int) -> Pair:
        """(height, width); the default where absent or empty."""
        shape = self.shape(key)
        if not shape and default is not None:
            return default
        if len(shape) in (1, 3):
            raise self.refused(key, "two-dimensional images only")
        if len(shape) != 2 or min(shape) < least:
            raise self.wrong(key, f"two numbers >= {least}")
        return (shape[0], shape[1])

    def axis(self, key: str, rank: int, default: int | None = None) -> int:
        """An axis of a value of this rank; negative ones count from the end."""
        axis = self.integer(key, default, -LARGEST)
        if not -rank <= axis < rank:
            raise self.wrong(key, f"an axis from {-rank} to {rank - 1}")
        return axis % rank


Maker = Callable[[SymbolNode, list[TensorType]], Op]


@dataclass(frozen=True)
class Rule:
    """How one MXNet op is read.

    arguments: names of the inputs in order, data first; () for any number of data inputs.
    data: how many of them are data (values); the rest are weights.
    known: attributes that `make` looks at.
    """

    make: Maker
    arguments: tuple[str, ...] = ("data",)
    data: int = 1
    known: tuple[str, ...] = ()


def check_attributes(node: SymbolNode, rule: Rule) -> None:
    """Refuse an attribute that refnet does not know: it might change the result."""
    for key in node.attributes:
        if key not in rule.known and not ANNOTATION.fullmatch(key):
            raise node.refused(key, f"for {node.op} only {', '.join(rule.known) or 'no attributes'}")


def arguments(node: SymbolNode, rule: Rule) -> tuple[str, ...]:
    """Names of the inputs that this node must have; a bias only where the node has one."""
    if not rule.arguments:
        return ("data",) * len(node.inputs)
    default = False
    if rule.arguments[-1] == "bias" and node.boolean("no_bias", default):
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
    low, high = (node.number(key, None) for key in ("a_min", "a_max"))
    for key, bound in (("a_min", low), ("a_max", high)):
        if abs(bound) > LARGEST_FLOAT32:
            raise node.wrong(key, "a float32")
    return Clip(*(unpack("<f", pack("<f", bound))[0] for bound in (low, high)))


def _activation(node: SymbolNode, data: list[TensorType]) -> Op:
    kinds: dict[str, Op] = {"relu": Relu(), "sigmoid": Sigmoid()}
    kind = node.text("act_type")
    if kind not in kinds:
        raise node.refused("act_type", "relu and sigmoid")
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
        raise node.refused("pool_type", "avg only where global_pool is set")
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
    if len({x.shape for x in data}) > 1:
        raise UnsupportedError(f"{node.file}: {node.title} adds {data}, refnet adds equal shapes")
    return Add(len(data))


def _multiply(node: SymbolNode, data: list[TensorType]) -> Op:
    if not node.op.startswith("broadcast") and data[0] != data[1]:
        raise FormatError(node.file, node.offset, f"{data} as inputs of {node.title}", "equal shapes")
    return Mul()


def _expand_dims(node: SymbolNode, data: list[TensorType]) -> Op:
    return ExpandDims(node.axis("axis", len(data[0].shape) + 1))


def _slice_axis(node: SymbolNode, data: list[TensorType]) -> Op:
    axis = node.axis("axis", len(data[0].shape))
    size = data[0].shape[axis]
    begin, end = node.optional_integer("begin"), node.optional_integer("end")
    begin = 0 if begin is None else begin + size if begin < 0 else begin
    end = size if end is None else end + size if end < 0 else end
    if not 0 <= begin < end <= size:
        raise node.wrong("begin", f"a range inside of 0 to {size}, got {begin} to {end}")
    return Slice(begin, end, axis)


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
_PLUS = Rule(_add, ("lhs", "rhs"), 2)
_TIMES = Rule(_multiply, ("lhs", "rhs"), 2)
_FLATTEN = Rule(lambda node, data: Flatten())
_IDENTITY = Rule(lambda node, data: Identity())
_CONCAT = Rule(_concat, (), 1, ("dim",))

SOFTMAX_OUTPUTS = ("SoftmaxOutput", "Softmax")
"""Ops whose second input is a label: dropped."""

RULES: dict[str, Rule] = {
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
    **dict.fromkeys(("elemwise_mul", "_mul", "_Mul", "broadcast_mul"), _TIMES),
    "Flatten": _FLATTEN,
    "flatten": _FLATTEN,
    "expand_dims": Rule(_expand_dims, known=("axis",)),
    "slice_axis": Rule(_slice_axis, known=("axis", "begin", "end")),
    "Dropout": Rule(_dropout, known=("p", "mode", "axes")),
    **dict.fromkeys(("identity", "_copy", "BlockGrad", "stop_gradient"), _IDENTITY),
    "SoftmaxOutput": _OUTPUT,
    "Softmax": _OUTPUT,
    "softmax": Rule(_softmax, known=("axis", "temperature", "dtype", "use_length")),
    "SoftmaxActivation": Rule(_softmax_activation, known=("mode",)),
}
"""MXNet's op name -> how it is read."""
