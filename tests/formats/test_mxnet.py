"""MXNet's files: attributes and defaults of symbol.json, versions of .params, names, .tar, export."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import (
    FormatError,
    GraphError,
    InputError,
    RefnetError,
    UnsupportedError,
    WeightsError,
)
from refnet.core.graph import Graph, Node
from refnet.formats.mxnet import reader as mxnet
from refnet.formats.mxnet.functions import SELU
from refnet.formats.mxnet.ops import RULES
from refnet.formats.mxnet.symbol import parse_symbol
from refnet.formats.write import whole_file
from refnet.models.catalog import build, entry
from refnet.ops import (
    ALL,
    Abs,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv,
    ConvAdd,
    Cos,
    Dense,
    Div,
    Elu,
    Erf,
    Exp,
    ExpandDims,
    Flatten,
    Gelu,
    GlobalAvgPool,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Log,
    MatMul,
    MaxPool,
    Mish,
    Mul,
    Op,
    Pad,
    Power,
    PRelu,
    RadixSoftmax,
    RadixSum,
    ReduceMean,
    ReduceSum,
    Relu,
    Reshape,
    ResizeNearest,
    Sigmoid,
    Silu,
    Sin,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    Sqrt,
    Sub,
    Tanh,
    TensorType,
    Transpose,
    UpsampleNearest,
    WeightedSum,
    WithScalar,
)
from refnet.ops.scalar import KINDS
from tests.helpers import attacks
from tests.helpers.attacks import node, symbol, variable
from tests.helpers.bits import floats, same_bits
from tests.helpers.official import SYMBOLS
from tests.helpers.spatial_examples import UNKNOWN_TO_MXNET


def parse(nodes, heads=None, image=(3, 8, 8), **more) -> Graph:
    return parse_symbol(symbol(nodes, heads, **more), "net-symbol.json", "net", image)


def one(op: str, weights: tuple[str, ...] = (), image=(3, 8, 8), **attributes):
    """refnet's op for one node of MXNet on the data."""
    nodes = [variable("data"), *map(variable, weights)]
    graph = parse([*nodes, node(op, "n", list(range(len(nodes))), **attributes)], image=image)
    return graph.by_name["n"].op


# Attributes and defaults

BN = ("g", "b", "m", "v")

OPS = [
    (one, ("Convolution", ("w", "b")), {"kernel": (3, 3), "num_filter": 4}, Conv(4, (3, 3), bias=True)),
    (
        one,
        ("Convolution", ("w",)),
        {
            "kernel": "[3,2]",
            "num_filter": "+6",
            "no_bias": "TRUE",
            "stride": (2, 1),
            "pad": "(1L, 0L)",
            "dilate": (1, 2),
            "num_group": 3,
            "layout": "NCHW",
            "workspace": 512,
            "cudnn_tune": "off",
        },
        Conv(6, (3, 2), (2, 1), (1, 0), (1, 2), 3, False),
    ),
    (
        one,
        ("Convolution", ("w",)),
        {"kernel": (1, 1), "num_filter": 1, "no_bias": 1, "stride": "()"},
        Conv(1, (1, 1)),
    ),
    (one, ("BatchNorm", BN), {}, BatchNorm(0.0010000000474974513, True)),
    (one, ("BatchNorm", BN), {"eps": "1e-05", "fix_gamma": "False", "axis": -3}, BatchNorm(1e-05, False)),
    (one, ("BatchNorm", BN), {"eps": "2", "use_global_stats": True, "momentum": 0.9}, BatchNorm(2.0, True)),
    (one, ("Activation",), {"act_type": "relu"}, Relu()),
    (one, ("Activation",), {"act_type": "sigmoid"}, Sigmoid()),
    (one, ("relu",), {}, Relu()),
    (one, ("sigmoid",), {}, Sigmoid()),
    (one, ("Pooling",), {"kernel": (2, 2)}, MaxPool((2, 2))),
    (one, ("Pooling",), {"kernel": (3, 3), "pad": (1, 1), "pool_type": "avg"}, AvgPool((3, 3), pad=(1, 1))),
    (
        one,
        ("Pooling",),
        {
            "kernel": (3, 3),
            "stride": (2, 2),
            "pool_type": "avg",
            "pooling_convention": "full",
            "count_include_pad": False,
        },
        AvgPool((3, 3), (2, 2), (0, 0), "full", False),
    ),
    (one, ("Pooling",), {"kernel": (2, 2), "pool_type": "avg", "count_include_pad": "None"}, AvgPool((2, 2))),
    (one, ("Pooling",), {"global_pool": True, "pool_type": "avg"}, GlobalAvgPool()),
    (
        one,
        ("Pooling",),
        {"global_pool": "1", "pool_type": "avg", "kernel": (7, 7), "pad": (3, 3)},
        GlobalAvgPool(),
    ),
    (one, ("_contrib_AdaptiveAvgPooling2D",), {}, GlobalAvgPool()),
    (one, ("_contrib_AdaptiveAvgPooling2D",), {"output_size": "1"}, GlobalAvgPool()),
    (one, ("_contrib_AdaptiveAvgPooling2D",), {"output_size": "(1, 1)"}, GlobalAvgPool()),
    (one, ("FullyConnected", ("w", "b")), {"num_hidden": 5}, Dense(5)),
    (one, ("FullyConnected", ("w",)), {"num_hidden": 5, "no_bias": True}, Dense(5, False)),
    (one, ("UpSampling",), {"scale": 2, "sample_type": "nearest", "num_args": 1}, UpsampleNearest(2)),
    (one, ("Concat",), {"num_args": 1}, Concat(1)),
    (one, ("concat",), {"dim": -1}, Concat(3)),
    (one, ("add_n",), {"num_args": 1}, Add(1)),
    (one, ("Flatten",), {}, Flatten()),
    (one, ("flatten",), {}, Flatten()),
    (one, ("expand_dims",), {"axis": 2}, ExpandDims(2)),
    (one, ("expand_dims",), {"axis": -1}, ExpandDims(4)),
    (one, ("slice_axis",), {"axis": 1, "begin": 1, "end": "None"}, Slice(1, 3, 1)),
    (one, ("slice_axis",), {"axis": -1, "begin": -5, "end": -1}, Slice(3, 7, 3)),
    (one, ("clip",), {"a_min": "0", "a_max": 6}, Clip(0.0, 6.0)),
    (one, ("LeakyReLU",), {}, LeakyRelu(0.25)),
    (one, ("LeakyReLU",), {"act_type": "leaky", "slope": "0.1"}, LeakyRelu(float(np.float32(0.1)))),
    (one, ("LeakyReLU",), {"act_type": "rrelu"}, LeakyRelu(0.22949999570846558)),
    (one, ("LeakyReLU",), {"act_type": "rrelu", "lower_bound": 0.5, "upper_bound": 1}, LeakyRelu(0.75)),
    (one, ("LeakyReLU", ("g",)), {"act_type": "prelu"}, PRelu((3,))),
    (one, ("_plus_scalar",), {"scalar": "0.1"}, WithScalar("add", float(np.float32(0.1)))),
    (one, ("_PlusScalar",), {}, WithScalar("add", 1.0)),
    (one, ("_minus_scalar",), {"scalar": 3, "is_int": True}, WithScalar("sub", 3.0)),
    (one, ("_rminus_scalar",), {"scalar": "-2.5", "is_int": False}, WithScalar("rsub", -2.5)),
    (one, ("_mul_scalar",), {"scalar": "2"}, WithScalar("mul", 2.0)),
    (one, ("_div_scalar",), {"scalar": "2"}, WithScalar("div", 2.0)),
    (one, ("_rdiv_scalar",), {"scalar": "2"}, WithScalar("rdiv", 2.0)),
    (one, ("negative",), {}, WithScalar("mul", -1.0)),
    (one, ("LeakyReLU",), {"act_type": "elu"}, Elu(0.25)),
    (one, ("LeakyReLU",), {"act_type": "selu"}, SELU),
    (one, ("LeakyReLU",), {"act_type": "gelu"}, Gelu()),
    (one, ("Activation",), {"act_type": "tanh"}, Tanh()),
    (one, ("Activation",), {"act_type": "softrelu"}, Softplus()),
    (one, ("Activation",), {"act_type": "softsign"}, Softsign()),
    (one, ("exp",), {}, Exp()),
    (one, ("log",), {}, Log()),
    (one, ("sqrt",), {}, Sqrt()),
    (one, ("rsqrt",), {}, Power(-0.5)),
    (one, ("square",), {}, Power(2.0)),
    (one, ("abs",), {}, Abs()),
    (one, ("tanh",), {}, Tanh()),
    (one, ("erf",), {}, Erf()),
    (one, ("sin",), {}, Sin()),
    (one, ("cos",), {}, Cos()),
    (one, ("softsign",), {}, Softsign()),
    (one, ("reciprocal",), {}, WithScalar("rdiv", 1.0)),
    (one, ("_power_scalar",), {"scalar": "3", "is_int": "True"}, Power(3.0)),
    (one, ("_PowerScalar",), {"scalar": "0.1"}, Power(float(np.float32(0.1)))),
    (one, ("_power_scalar",), {}, Identity()),
    (one, ("hard_sigmoid",), {}, HardSigmoid()),
    (one, ("hard_sigmoid",), {"alpha": "0.25", "beta": "0.75"}, HardSigmoid(0.25, 0.75)),
    (one, ("Pooling",), {"global_pool": "True", "pool_type": "max"}, MaxPool((8, 8))),
    (one, ("_maximum_scalar",), {"scalar": "0.5"}, Clip(low=0.5)),
    (one, ("_minimum_scalar",), {"scalar": "6"}, Clip(high=6.0)),
    (one, ("_MaximumScalar",), {}, Clip(low=1.0)),
    (one, ("_MinimumScalar",), {}, Clip(high=1.0)),
    (one, ("slice",), {"begin": "(None, 1)", "end": "(None, -1)"}, Slice(1, 2)),
    (one, ("slice",), {"begin": (0, 0, 2), "end": "(1, 99, None)", "step": "()"}, Slice(2, 8, 2)),
    (
        one,
        ("crop",),
        {"begin": "(0,0,1,2)", "end": "(None,2,8,-1)", "step": "(1,None)"},
        Pad((0, 0, -1, -2), (0, -1, 0, -1)),
    ),
    (one, ("slice",), {"begin": (0,), "end": "(None,)"}, Identity()),
    (one, ("squeeze", (), (3, 1, 8)), {"axis": 2}, Reshape((0, 3, 8))),
    (one, ("squeeze", (), (3, 1, 1)), {"axis": "(2, -1)"}, Reshape((0, 3))),
    (one, ("transpose",), {"axes": "(0, 2, 3, 1)"}, Transpose((0, 2, 3, 1))),
    (one, ("transpose",), {}, Transpose((3, 2, 1, 0))),
    (one, ("SwapAxis",), {"dim1": 1, "dim2": -1}, Transpose((0, 3, 2, 1))),
    (one, ("swapaxes",), {"dim1": 3}, Transpose((3, 1, 2, 0))),
    (one, ("mean",), {"axis": "(2, 3)", "keepdims": True}, GlobalAvgPool()),
    (one, ("mean",), {"axis": "(2, -1)"}, ReduceMean((2, 3), False)),
    (one, ("mean",), {"axis": 1, "exclude": True}, ReduceMean((0, 2, 3), False)),
    (one, ("mean",), {"keepdims": True}, ReduceMean((0, 1, 2, 3))),
    (one, ("mean",), {}, ReduceMean((0, 1, 2, 3), False, vector=True)),
    (one, ("sum",), {"axis": "(3, 1, -2, 0)"}, ReduceSum((0, 1, 2, 3), False, vector=True)),
    (one, ("sum",), {"axis": "1"}, ReduceSum((1,), False, 3)),
    (one, ("sum_axis",), {"axis": "[0,1]", "keepdims": 1}, ReduceSum((0, 1), True)),
    (one, ("Cast",), {"dtype": "float32"}, Identity()),
    (one, ("cast",), {"dtype": "float32"}, Identity()),
    *(
        (one, (name, (), (6, 4, 2)), {"shape": codes}, Reshape(target))
        for name, codes, target in (
            ("Reshape", "(0, -1)", (0, -1)),
            ("reshape", (0, 4, 6, 2), (0, 4, 6, 2)),
            ("Reshape", "(-1, 8)", (-1, 8)),
            ("Reshape", "(-2,)", (0, 0, 0, 0)),
            ("Reshape", "(-2, 1)", (0, 0, 0, 0, 1)),
            ("Reshape", "(0, -3, -1)", (0, 24, -1)),
            ("Reshape", "(-3, -2)", (-1, 4, 2)),
            ("Reshape", "(-3, -1)", (-1, 8)),
            ("Reshape", "(0, -4, 3, -1, -2)", (0, 3, 2, 4, 2)),
            ("Reshape", "(0, -4, -1, 3, 0, 0)", (0, 2, 3, 4, 2)),
            ("Reshape", "(-4, 1, -1, -2)", (1, -1, 6, 4, 2)),
        )
    ),
    (one, ("Reshape", (), (6, 4, 2)), {"shape": "(-1, 0)", "reverse": True}, Reshape((-1, 2))),
    (one, ("Dropout",), {"p": 0.3}, Identity()),
    (one, ("identity",), {}, Identity()),
    (one, ("_copy",), {}, Identity()),
    (one, ("BlockGrad",), {}, Identity()),
    (one, ("softmax",), {}, Softmax(3)),
    (one, ("softmax",), {"axis": 1, "temperature": "1.0", "dtype": "None"}, Softmax(1)),
    (one, ("SoftmaxActivation",), {"mode": "channel"}, Softmax(1)),
    (one, ("SoftmaxOutput", ("label",)), {"multi_output": True}, Softmax(1)),
    (one, ("SoftmaxOutput", ("label",)), {"preserve_shape": True}, Softmax(3)),
    (one, ("SoftmaxOutput", ("label",)), {"preserve_shape": True, "multi_output": True}, Softmax(1)),
    (one, ("Dropout",), {"mode": "training"}, Identity()),
]


@pytest.mark.parametrize(("make", "arguments", "attributes", "expected"), OPS)
def test_attributes_become_the_op(make, arguments, attributes, expected):
    assert make(*arguments, **attributes) == expected


ROWS = [("SoftmaxOutput", ("label",)), ("Softmax", ("label",)), ("SoftmaxActivation", ())]


@pytest.mark.parametrize(("op", "labels"), ROWS)
def test_softmax_of_rows_and_of_nothing_else(op, labels):
    """On (n, c, 1, 1) MXNet 1.9.1 gives ones, or with MXNET_MKLDNN_ENABLED=0 the softmax of the rows."""
    nodes = [variable("data"), node("Flatten", "f", [0]), *map(variable, labels)]
    graph = parse([*nodes, node(op, "s", [1, *range(2, len(nodes))])])
    assert graph.by_name["s"].op == Softmax(1)
    for image in ((10, 1, 1), (3, 8, 8)):
        with pytest.raises(UnsupportedError, match=r"refnet has it for \(n, classes\) only"):
            one(op, labels, image)


def test_softmax_by_channel_needs_more_than_rows():
    nodes = [variable("data"), node("Flatten", "f", [0])]
    with pytest.raises(FormatError, match="'channel' as 'mode'"):
        parse([*nodes, node("SoftmaxActivation", "s", [1], mode="channel")])


def test_trivial_global_maximum():
    assert one("Pooling", (), (10, 1, 1), global_pool=True) == Identity()


@pytest.mark.parametrize("op", ["add_n", "ElementWiseSum", "elemwise_add", "_plus", "_Plus", "broadcast_add"])
def test_every_name_of_the_sum(op):
    graph = parse([variable("data"), node("relu", "r", [0]), node(op, "s", [0, 1])])
    assert graph.by_name["s"] == Node("s", Add(2), ("data", "r"))


def test_every_name_of_arithmetic_with_a_number():
    names = ("_MinusScalar", "_RMinusScalar", "_MulScalar", "_DivScalar", "_RDivScalar")
    for name, kind in zip(names, ("sub", "rsub", "mul", "div", "rdiv"), strict=True):
        assert one(name, scalar=3) == WithScalar(kind, 3.0)


@pytest.mark.parametrize("op", ["elemwise_sub", "_minus", "_Minus", "_sub", "elemwise_div", "_div", "_Div"])
def test_every_name_of_difference_and_quotient(op):
    graph = parse([variable("data"), node("relu", "r", [0]), node(op, "s", [0, 1])])
    assert graph.by_name["s"] == Node("s", Div() if "div" in op.lower() else Sub(), ("data", "r"))


def test_a_slope_has_the_shape_that_the_file_states():
    """Gluon's PReLU shares one slope; where nothing is stated MXNet takes one per channel."""
    for stated, shape in (("(1,)", (1,)), ("(3,)", (3,)), ("()", (3,)), (None, (3,))):
        slope = {**variable("s"), "attrs": {"__shape__": stated} if stated else {}}
        graph = parse([variable("data"), slope, node("LeakyReLU", "p", [0, 1], act_type="prelu")])
        assert graph.weight_types == {"s": TensorType(shape)}
    slope = {**variable("s"), "attrs": {"__shape__": "(2,)"}}
    with pytest.raises(GraphError, match="one per channel"):
        parse([variable("data"), slope, node("LeakyReLU", "p", [0, 1], act_type="prelu")])


@pytest.mark.parametrize("op", ["elemwise_mul", "_mul", "broadcast_mul"])
def test_every_name_of_the_product(op):
    graph = parse([variable("data"), node("relu", "r", [0]), node(op, "s", [0, 1])])
    assert graph.by_name["s"] == Node("s", Mul(), ("data", "r"))


REFUSED = [
    ("clip", (), {"a_min": 0}, FormatError, "a_max"),
    ("clip", (), {"a_min": 0, "a_max": "1e300"}, FormatError, "a_max"),
    ("Convolution", ("w",), {"kernel": 3, "num_filter": 4, "no_bias": True}, UnsupportedError, "kernel"),
    (
        "Convolution",
        ("w",),
        {"kernel": (3, 3), "num_filter": 4, "no_bias": True, "layout": "NHWC"},
        UnsupportedError,
        "layout='NHWC'",
    ),
    (
        "Convolution",
        ("w",),
        {"kernel": (3, 3), "num_filter": 4, "no_bias": True, "colour": "red"},
        UnsupportedError,
        "colour='red'",
    ),
    ("Convolution", ("w",), {"kernel": (3, 3), "no_bias": True}, FormatError, "num_filter"),
    ("Convolution", ("w",), {"num_filter": 4, "no_bias": True}, FormatError, "kernel"),
    (
        "Convolution",
        ("w",),
        {"kernel": (3, 3), "num_filter": 10**12, "no_bias": True},
        FormatError,
        "num_filter",
    ),
    (
        "Convolution",
        ("w",),
        {"kernel": (3, 3), "num_filter": 2**31 - 1, "no_bias": True},
        FormatError,
        "elements",
    ),
    (
        "Convolution",
        ("w",),
        {"kernel": (3, 3), "num_filter": "4.0", "no_bias": True},
        FormatError,
        "num_filter",
    ),
    ("Convolution", ("w",), {"kernel": (3, 3), "num_filter": 0, "no_bias": True}, FormatError, "num_filter"),
    ("Convolution", ("w",), {"kernel": (0, 3), "num_filter": 4, "no_bias": True}, FormatError, "kernel"),
    ("Convolution", ("w",), {"kernel": (3, 3), "num_filter": 4, "no_bias": "yes"}, FormatError, "no_bias"),
    ("Convolution", ("w",), {"kernel": "(3, x)", "num_filter": 4, "no_bias": True}, FormatError, "kernel"),
    (
        "Convolution",
        ("w",),
        {"kernel": (99, 99), "num_filter": 4, "no_bias": True},
        GraphError,
        "does not fit",
    ),
    ("Convolution", ("w",), {"kernel": (3, 3), "num_filter": 4}, FormatError, "2 inputs"),
    (
        "Convolution",
        ("w", "b"),
        {"kernel": (3, 3), "num_filter": 4, "no_bias": True},
        FormatError,
        "3 inputs",
    ),
    ("BatchNorm", BN, {"axis": 3}, UnsupportedError, "axis"),
    ("BatchNorm", BN, {"axis": 9}, FormatError, "axis"),
    ("BatchNorm", BN, {"output_mean_var": True}, UnsupportedError, "output_mean_var"),
    ("BatchNorm", BN, {"eps": "-1e-3"}, FormatError, "eps"),
    ("BatchNorm", BN, {"eps": "1e999"}, FormatError, "eps"),
    ("BatchNorm", BN, {"eps": "nan"}, FormatError, "eps"),
    ("BatchNorm", BN, {"eps": "0." + "0" * 400 + "x"}, FormatError, "eps"),
    ("BatchNorm", BN, {"min_calib_range": "0.5"}, UnsupportedError, "min_calib_range"),
    ("BatchNorm", BN[:2], {}, FormatError, "3 inputs"),
    ("Activation", (), {"act_type": "swish"}, UnsupportedError, "act_type='swish'"),
    ("Activation", (), {}, FormatError, "act_type"),
    ("Pooling", (), {}, FormatError, "kernel"),
    ("Pooling", (), {"kernel": (2, 2), "pool_type": "lp"}, UnsupportedError, "pool_type='lp'"),
    ("Pooling", (), {"kernel": (2, 2), "pooling_convention": "same"}, UnsupportedError, "same"),
    ("FullyConnected", ("w", "b"), {"num_hidden": 5, "flatten": False}, UnsupportedError, "flatten"),
    ("UpSampling", (), {"scale": 2, "sample_type": "bilinear"}, UnsupportedError, "bilinear"),
    ("Concat", (), {"dim": 4}, FormatError, "dim"),
    ("add_n", (), {"num_args": 2}, FormatError, "num_args"),
    ("slice_axis", (), {"axis": 1, "begin": 2, "end": 2}, FormatError, "begin"),
    ("slice_axis", (), {"axis": 1, "begin": 0, "end": 4}, FormatError, "range"),
    ("_contrib_AdaptiveAvgPooling2D", (), {"output_size": 2}, UnsupportedError, "output_size"),
    ("softmax", (), {"temperature": 2.0}, UnsupportedError, "temperature"),
    ("softmax", (), {"use_length": True}, UnsupportedError, "use_length"),
    ("softmax", (), {"dtype": "float16"}, UnsupportedError, "dtype"),
    ("SoftmaxOutput", ("label",), {}, UnsupportedError, r"\(n, classes\)"),
    ("SoftmaxActivation", (), {"mode": "both"}, FormatError, "mode"),
    ("Dropout", (), {"mode": "always"}, UnsupportedError, "mode='always'"),
    ("Dropout", (), {"mode": "never"}, FormatError, "mode"),
    ("LeakyReLU", (), {"act_type": "swish"}, UnsupportedError, "leaky, prelu, rrelu, elu, selu and gelu"),
    ("LeakyReLU", (), {"act_type": "elu", "slope": -0.5}, UnsupportedError, "slope='-0.5'"),
    ("_power_scalar", (), {"scalar": 0}, UnsupportedError, "exponents that are not 0"),
    ("LeakyReLU", ("g",), {}, FormatError, "2 inputs"),
    ("LeakyReLU", (), {"act_type": "prelu"}, FormatError, "1 inputs"),
    ("LeakyReLU", (), {"slope": "1e39"}, FormatError, "slope"),
    ("_plus_scalar", (), {"scalar": "inf"}, FormatError, "scalar"),
    ("_mul_scalar", (), {"is_int": "perhaps"}, FormatError, "is_int"),
    ("slice", (), {"begin": (0, 0), "end": (1, 2), "step": (1, 2)}, UnsupportedError, "step"),
    ("slice", (), {"begin": (0, 2), "end": (1, 2)}, FormatError, "begin"),
    ("slice", (), {"begin": (0,), "end": (1, 2)}, FormatError, "end"),
    ("slice", (), {"begin": "(0, x)", "end": (1, 2)}, FormatError, "begin"),
    ("squeeze", (), {"axis": 1}, FormatError, "axis"),
    ("squeeze", (), {"axis": 0}, UnsupportedError, "axis"),
    ("squeeze", (), {"axis": 4}, FormatError, "axis"),
    ("transpose", (), {"axes": (0, 1, 2)}, FormatError, "axes"),
    ("transpose", (), {"axes": (0, 1, 2, 2)}, FormatError, "axes"),
    ("SwapAxis", (), {"dim2": 4}, FormatError, "dim2"),
    ("sum", (), {"axis": (1, 1)}, FormatError, "axis"),
    ("Cast", (), {"dtype": "float16"}, UnsupportedError, "dtype='float16'"),
    ("Reshape", (), {}, FormatError, "shape"),
    ("Reshape", (), {"shape": (0, -1, -1)}, FormatError, "at most one -1"),
    ("Reshape", (), {"shape": (-5,)}, FormatError, "shape"),
    ("Reshape", (), {"shape": (0, 0, 0, 0, 0)}, FormatError, "shape"),
    ("Reshape", (), {"shape": (0, -4, 2, 2, -1)}, FormatError, "factors of 3"),
    ("Reshape", (), {"shape": (0, -4, -1)}, FormatError, "factors of 3"),
    ("Reshape", (), {"shape": (-4, 1, 1, -1), "reverse": True}, UnsupportedError, "reverse"),
    ("Reshape", (), {"shape": (0, 7)}, FormatError, "a shape of 192 elements"),
    ("Reshape", (), {"shape": (0, 5, -1)}, FormatError, "a shape of 192 elements"),
    ("Reshape", (), {"shape": (-3,)}, FormatError, "a shape of 192 elements"),
    ("Reshape", (), {"shape": (-2, -1)}, UnsupportedError, "MXNet infers another dimension"),
    ("Reshape", (), {"shape": (0, -4, 1, 3, -1)}, UnsupportedError, "MXNet infers another dimension"),
    ("Reshape", (), {"target_shape": (0, 7)}, UnsupportedError, "target_shape"),
]


@pytest.mark.parametrize(("op", "weights", "attributes", "error", "message"), REFUSED)
def test_what_is_refused_is_named(op, weights, attributes, error, message):
    with pytest.raises(error, match=message) as caught:
        one(op, weights, **attributes)
    assert "net-symbol.json" in str(caught.value)
    assert op in str(caught.value)


def test_products_of_unequal_shapes():
    nodes = [variable("data"), node("Pooling", "p", [0], pool_type="avg", global_pool=True)]
    assert parse([*nodes, node("broadcast_mul", "s", [0, 1])]).types()["s"].shape == (1, 3, 8, 8)
    with pytest.raises(FormatError, match="equal shapes"):
        parse([*nodes, node("elemwise_mul", "s", [0, 1])])
    for op, expected in (
        ("broadcast_add", Add(2, True)),
        ("broadcast_plus", Add(2, True)),
        ("broadcast_sub", Sub()),
        ("broadcast_minus", Sub()),
        ("broadcast_div", Div()),
    ):
        graph = parse([*nodes, node(op, "s", [1, 0])])
        assert (graph.by_name["s"].op, graph.by_name["s"].inputs) == (expected, ("p", "data"))
        assert graph.types()["s"].shape == (1, 3, 8, 8)
    for op in ("elemwise_add", "_plus", "add_n", "elemwise_sub", "_minus", "elemwise_div", "_div"):
        with pytest.raises(FormatError, match="equal shapes"):
            parse([*nodes, node(op, "s", [0, 1])])


def test_flatten_false_on_rows_is_the_same():
    nodes = [variable("data"), node("Flatten", "f", [0]), variable("w"), variable("b")]
    graph = parse([*nodes, node("FullyConnected", "fc", [1, 2, 3], num_hidden=5, flatten=False)])
    assert graph.by_name["fc"].op == Dense(5)


# The file's structure


def test_all_unknown_ops_are_listed_with_their_nodes():
    nodes = [
        variable("data"),
        node("LRN", "l1", [0]),
        node("Deconvolution", "d1", [1]),
        node("LRN", "l2", [2]),
    ]
    with pytest.raises(UnsupportedError) as caught:
        parse(nodes)
    assert "LRN: l1, l2" in str(caught.value)
    assert "Deconvolution: d1" in str(caught.value)


def test_unknown_ops_that_no_head_needs_do_not_matter():
    graph = parse([variable("data"), node("Deconvolution", "d1", [0]), node("relu", "r", [0])])
    assert [n.name for n in graph.nodes] == ["r"]


def test_labels_are_dropped_even_if_they_are_computed():
    nodes = [variable("data"), node("Flatten", "f", [0]), variable("label"), node("argmax", "label2", [2])]
    graph = parse([*nodes, node("SoftmaxOutput", "softmax", [1, 3])])
    assert str(graph.by_name["softmax"]) == "softmax = Softmax()(f)"
    assert graph.outputs == {"prob": "softmax"}


def test_the_data_variable_may_have_any_name():
    graph = parse(
        [
            variable("w"),
            variable("image"),
            node("Convolution", "c", [1, 0], kernel=(3, 3), num_filter=2, no_bias=1),
        ]
    )
    assert dict(graph.inputs) == {"image": TensorType((1, 3, 8, 8))}
    assert graph.weight_types == {"w": TensorType((2, 3, 3, 3))}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([variable("a"), variable("b"), node("elemwise_add", "s", [0, 1])], "data inputs are a, b"),
        (
            [
                variable("a"),
                node("Flatten", "f", [0]),
                node("FullyConnected", "d", [1, 0], num_hidden=3, no_bias=1),
            ],
            "both as data and as a weight",
        ),
        (
            [variable("a"), variable("w"), node("relu", "r", [1]),
             node("FullyConnected", "d", [0, 2], num_hidden=3, no_bias=1)],
            "data inputs are",
        ),
        ([variable("a"), node("relu", "r", [0])], None),
    ],
)  # fmt: skip
def test_roles_of_variables(nodes, message):
    if message is None:
        assert parse(nodes).inputs
        return
    with pytest.raises(UnsupportedError, match=message):
        parse(nodes)


def test_a_computed_weight_is_refused():
    nodes = [variable("data"), node("Flatten", "f", [0]), node("relu", "r", [1])]
    with pytest.raises(UnsupportedError, match="weight is computed by node 2 'r'"):
        parse([*nodes, node("FullyConnected", "d", [1, 2], num_hidden=1, no_bias=1)])


def test_shared_weights():
    nodes = [variable("data"), variable("w")]
    for k in range(2):
        attributes = {"kernel": (3, 3), "pad": (1, 1), "num_filter": 3, "no_bias": True}
        nodes.append(node("Convolution", f"c{k}", [0 if k == 0 else 2, 1], **attributes))
    graph = parse(nodes)
    assert [n.weights for n in graph.nodes] == [("w",), ("w",)]
    assert list(graph.weight_types) == ["w"]


def test_shared_weights_of_two_shapes_are_refused():
    nodes = [variable("data"), variable("w")]
    nodes += [node("Convolution", f"c{k}", [0, 1], kernel=(k, k), num_filter=3, no_bias=1) for k in (1, 3)]
    with pytest.raises(GraphError, match=r"net-symbol\.json.*weight w"):
        parse(nodes, heads=[2, 3])


def test_heads():
    nodes = [variable("data"), node("relu", "r", [0]), node("Flatten", "f", [1]), node("softmax", "s", [2])]
    assert parse(nodes, [1]).outputs == {"r": "r"}
    assert [n.name for n in parse(nodes, [1]).nodes] == ["r"]
    assert parse(nodes, [3, 1]).outputs == {"prob": "s", "r": "r"}
    assert parse(nodes, [3, 2]).outputs == {"prob": "s", "logits": "f"}
    logits = parse(nodes, [2])
    assert logits.outputs == {"prob": "prob", "logits": "f"}
    assert logits.nodes[-1] == Node("prob", Softmax(1), ("f",))
    two = [*nodes, node("softmax", "t", [2], axis=1)]
    assert parse(two, [3, 4]).outputs == {"s": "s", "t": "t"}


def test_a_node_of_the_network_may_be_called_prob():
    graph = parse([variable("data"), node("relu", "prob", [0]), node("Flatten", "f", [1])])
    assert graph.outputs == {"prob": "refnet_prob", "logits": "f"}
    nodes = [
        variable("data"),
        node("relu", "prob", [0]),
        node("relu", "refnet_prob", [1]),
        node("Flatten", "f", [2]),
    ]
    assert parse(nodes).outputs == {"prob": "refnet_refnet_prob", "logits": "f"}
    both = parse([*nodes, node("softmax", "s", [3])], heads=[1, 4])
    assert both.outputs == {"prob": "prob", "s": "s"}
    named = parse([variable("data"), node("Flatten", "prob", [0])])
    assert named.outputs == {"prob": "refnet_prob", "logits": "prob"}


def broken(**changes) -> bytes:
    """A sound symbol with one field of its last node changed, or of the document."""
    document = json.loads(symbol([variable("data"), node("relu", "r", [0]), node("Flatten", "f", [1])]))
    for key, value in changes.items():
        place = document["nodes"][-1] if key in ("op", "name", "inputs", "attr", "param") else document
        place[key] = value
    return json.dumps(document).encode()


BROKEN = [
    ({"inputs": [[2, 0, 0]]}, "node 2 as input of node 2 'f'"),
    ({"inputs": [[3, 0, 0]]}, "node 3 as input"),
    ({"inputs": [[-1, 0, 0]]}, "node -1"),
    ({"inputs": [[1]]}, "an input of 'f'"),
    ({"inputs": [1]}, "an input of 'f'"),
    ({"inputs": [[True, 0]]}, "an input of 'f'"),
    ({"inputs": [["1", 0]]}, "an input of 'f'"),
    ({"inputs": {}}, "inputs of 'f'"),
    ({"inputs": []}, "0 inputs"),
    ({"inputs": [[1, 0], [0, 0]]}, "2 inputs"),
    ({"name": 5}, "'5' as name of node 2"),
    ({"name": None}, "name of node 2"),
    ({"name": ""}, "name of node 2"),
    ({"op": 7}, "'7' as op"),
    ({"attr": []}, "list as 'attr'"),
    ({"attr": {"a": 5}}, "5 as 'attr' 'a'"),
    ({"nodes": 5}, "int as 'nodes'"),
    ({"nodes": [5]}, "int as node 0"),
    ({"nodes": []}, "node 2 as head"),
    ({"heads": []}, "no heads"),
    ({"heads": [[9, 0, 0]]}, "node 9 as head"),
    ({"heads": [[2, 0, 0], [2, 0, 0]]}, "each once"),
    ({"heads": "x"}, "str as 'heads'"),
    ({"arg_nodes": [1]}, "1 in arg_nodes"),
    ({"arg_nodes": [99]}, "99 in arg_nodes"),
    ({"arg_nodes": 5}, "'arg_nodes'"),
    ({"attrs": {"mxnet_version": 5}}, "mxnet_version"),
    ({"attrs": []}, "mxnet_version"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_broken_structures_are_refused(changes, message):
    with pytest.raises(FormatError) as caught:
        parse_symbol(broken(**changes), "net-symbol.json", "net", (3, 8, 8))
    assert message in str(caught.value)
    assert "net-symbol.json" in str(caught.value)


def test_ops_of_one_name_are_told_apart_by_their_place(tmp_path):
    """MXNet runs such files, and shows all values under the one name. A variable always keeps its name."""
    nodes = [
        variable("data"),
        node("relu", "None__relu", [0]),
        node("_plus_scalar", "None__relu", [1], scalar=2),
        node("relu", "None__relu@4", [2]),
        node("relu", "None__relu", [3]),
        node("relu", "data", [4]),
    ]
    graph = parse(nodes)
    assert [n.name for n in graph.nodes] == [
        "None__relu",
        "None__relu@2",
        "None__relu@4",
        "None__relu@4_",
        "data@5",
    ]
    assert [n.inputs for n in graph.nodes][:2] == [("data",), ("None__relu",)]
    unique = mxnet.distinct_symbol(symbol(nodes), "net-symbol.json")
    assert str(parse_symbol(unique, "net-symbol.json", "net", (3, 8, 8))) == str(graph)
    assert mxnet.distinct_symbol(unique, "net-symbol.json") is unique
    assert [n["name"] for n in json.loads(unique)["nodes"]] == ["data", *(n.name for n in graph.nodes)]
    text = mxnet.graph_to_symbol(graph)
    assert str(parse_symbol(text.encode(), "net-symbol.json", "net", (3, 8, 8))) == str(graph)


def test_a_name_is_only_taken_by_what_a_head_needs():
    graph = parse([variable("data"), node("relu", "r", [0]), node("sigmoid", "r", [0])])
    assert [n.name for n in graph.nodes] == ["r"]


def test_two_variables_of_one_name_are_refused():
    """MXNet does not run them either: weights are found by name."""
    nodes = [variable("data"), variable("w"), variable("w")]
    dense = [
        node("FullyConnected", name, [0, i], num_hidden=3, no_bias=1) for i, name in ((1, "a"), (2, "b"))
    ]
    with pytest.raises(FormatError, match="2 variables 'w', expected one of a name"):
        parse([*nodes, *dense, node("elemwise_add", "s", [3, 4])])


def test_the_error_tells_the_node_s_byte():
    data = broken(inputs=[[7, 0, 0]])
    with pytest.raises(FormatError) as caught:
        parse_symbol(data, "net-symbol.json", "net")
    assert caught.value.offset is not None
    assert data[caught.value.offset :].startswith(b'"f"')


UNFIT = ["\ud800w", "w\udfff", "\0", "a\nb", "\x1b[31m", "\x7f", "\x85", "\u2028"]


@pytest.mark.parametrize("name", UNFIT)
def test_names_that_are_no_text_are_refused(name, tmp_path):
    """A graph's names are printed line by line, hashed, and written in UTF-8."""
    data = symbol([variable("data"), variable(name), node("Flatten", "f", [0]),
                   node("FullyConnected", "d", [2, 1], num_hidden=3, no_bias=1)])  # fmt: skip
    with pytest.raises(FormatError, match="as name of node 1, expected no control character") as caught:
        parse_symbol(data, "net-symbol.json", "net")
    assert caught.value.offset == data.index(json.dumps(name).encode())
    if "\ud800" not in name and "\udfff" not in name:  # else there are no bytes for it
        raw = attacks.params_file({name: floats((2,), 0)})
        (tmp_path / "a.params").write_bytes(raw)
        with pytest.raises(FormatError, match="as name 0, expected no control character") as caught:
            mxnet.read_params(tmp_path / "a.params")
        assert raw[caught.value.offset :] == name.encode()


def test_names_of_other_languages_stay():
    graph = parse([variable("data"), node("relu", "größe 大", [0])])
    assert graph.structure_hash() != parse([variable("data"), node("relu", "r", [0])]).structure_hash()


@pytest.mark.parametrize("escape", ["q1", "\\u0071\\u0031"])
def test_the_byte_is_right_for_escaped_names_too(escape):
    nodes = [variable("data"), {**node("relu", "q1", [0]), "attr": {"name": "f"}}, node("relu", "q2", [1])]
    data = symbol([*nodes, node("Flatten", "f", [9])]).replace(
        b'"name": "q1"', f'"name": "{escape}"'.encode()
    )
    with pytest.raises(FormatError, match="node 9 as input of node 3") as caught:
        parse_symbol(data, "net-symbol.json", "net")
    assert caught.value.offset == data.rindex(b'"f"')


def test_names_with_escapes_cost_no_more_than_others():
    """Each name was once looked for up to the file's end: 40,000 of them took half a minute."""
    nodes = [variable("data")] + [node("relu", f"q{i}", [i]) for i in range(40_000)]
    data = symbol(nodes).replace(b'"q', b'"\\u0071')
    begin = time.process_time()
    assert len(parse_symbol(data, "net-symbol.json", "net", (3, 2, 2)).nodes) == 40_000
    assert time.process_time() - begin < 12


def test_a_file_name_that_is_no_text_becomes_one(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"net\xff-symbol.json")
    try:
        with open(path, "wb") as stream:
            stream.write(symbol([variable("data"), node("relu", "r", [0])]))
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    graph = mxnet.read_symbol(os.fsdecode(path))
    assert graph.name == "net\\udcff"
    assert graph.structure_hash()


def test_other_outputs_than_the_first_are_refused():
    with pytest.raises(UnsupportedError, match="output 1"):
        parse_symbol(broken(inputs=[[1, 1, 0]]), "net-symbol.json", "net")
    with pytest.raises(UnsupportedError, match="output 2"):
        parse_symbol(broken(heads=[[2, 2, 0]]), "net-symbol.json", "net")
    with pytest.raises(UnsupportedError, match="a head is a variable"):
        parse_symbol(broken(heads=[[0, 0, 0], [2, 0, 0]]), "net-symbol.json", "net")


def test_attributes_under_attr_and_param():
    relu = node("Activation", "n", [0])
    for key in ("attrs", "attr", "param"):
        assert parse([variable("data"), relu | {key: {"act_type": "relu"}}]).by_name["n"].op == Relu()
    both = relu | {"param": {"act_type": "relu"}, "attr": {"ctx_group": "stage1"}}
    assert parse([variable("data"), both]).by_name["n"].op == Relu()
    same = relu | {"attrs": {"act_type": "relu", "__x__": "1"}, "attr": {"act_type": "relu", "lr_mult": "2"}}
    assert parse([variable("data"), same]).by_name["n"].op == Relu()
    with pytest.raises(FormatError, match="two values of 'act_type'"):
        parse([variable("data"), relu | {"attrs": {"act_type": "relu"}, "attr": {"act_type": "tanh"}}])
    with pytest.raises(FormatError, match="'act_type' in attr next to attrs"):
        parse([variable("data"), relu | {"attrs": {"__x__": "1"}, "attr": {"act_type": "relu"}}])


def test_inputs_of_two_numbers_and_of_three():
    for inputs in ([[1, 0]], [[1, 0, 0]], [[1, 0, 5]]):
        assert parse_symbol(broken(inputs=inputs), "n", "n").nodes


def old_network() -> bytes:
    """As MXNet 0.8 wrote it: param, pairs, no version, auxiliary states not listed as inputs."""
    nodes = [
        {"op": "null", "param": {}, "name": "data", "inputs": [], "backward_source_id": -1},
        {"op": "null", "param": {}, "name": "bn_gamma", "inputs": [], "backward_source_id": -1},
        {"op": "null", "param": {}, "name": "bn_beta", "inputs": [], "backward_source_id": -1},
        {
            "op": "BatchNorm", "param": {"eps": "0.002", "fix_gamma": "False"}, "name": "bn",
            "inputs": [[0, 0], [1, 0], [2, 0]], "backward_source_id": -1,
        },
        {"op": "Flatten", "param": {}, "name": "flat", "inputs": [[3, 0]], "backward_source_id": -1},
        {
            "op": "FullyConnected", "param": {"num_hidden": "4", "no_bias": "False"}, "name": "fc",
            "inputs": [[4, 0]], "backward_source_id": -1,
        },
        {"op": "SoftmaxOutput", "param": {}, "name": "softmax", "inputs": [[5, 0]], "backward_source_id": -1},
    ]  # fmt: skip
    return json.dumps({"nodes": nodes, "arg_nodes": [0, 1, 2], "heads": [[6, 0]]}).encode()


def test_files_of_mxnet_0_8_list_fewer_inputs():
    graph = parse_symbol(old_network(), "old-symbol.json", "old", (3, 2, 2))
    assert graph.by_name["bn"].weights == ("bn_gamma", "bn_beta", "bn_moving_mean", "bn_moving_var")
    assert graph.by_name["fc"].weights == ("fc_weight", "fc_bias")
    assert graph.statistics() == {"bn_moving_mean", "bn_moving_var"}
    assert graph.outputs == {"prob": "softmax"}


def test_published_counts(tmp_path):
    """Counts of the official definitions on the se-resnet-50: in the official file, or refnet's export."""
    path = SYMBOLS / "se-resnet-50_alpha-0.125-symbol.json"
    if not path.exists():
        path = tmp_path / path.name
        mxnet.write_symbol(path, build(entry("octave-se-resnet-50-0.125")))
    graph = mxnet.read_symbol(path)
    assert graph.types()[graph.outputs["prob"]] == TensorType((1, 1000))
    learned = {n: t.size for n, t in graph.weight_types.items() if n not in graph.statistics()}
    types = graph.types()
    macs = sum(n.op.flops(*(types[i] for i in n.inputs)).macs for n in graph.nodes)
    assert (sum(learned.values()), macs) == (28_084_184, 3_567_711_232)


# .params


@pytest.mark.parametrize("version", [attacks.V1, attacks.V2, attacks.V3, attacks.LEGACY])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_every_version_and_float_dtype(version, dtype, tmp_path):
    path = tmp_path / "a.params"
    arrays = {"arg:a": floats((2, 3), 1).astype(dtype), "aux:b": floats((5,), 2).astype(dtype)}
    path.write_bytes(attacks.params_file(arrays, version))
    found = mxnet.read_params(path)
    assert list(found) == ["a", "b"]
    assert all(same_bits(found[n[4:]], a.astype(np.float32)) for n, a in arrays.items())


def test_every_float16_is_widened_exactly(tmp_path):
    path = tmp_path / "a.params"
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    path.write_bytes(attacks.params_file({"a": halves}))
    assert same_bits(mxnet.read_params(path)["a"], halves.astype(np.float32))


def test_float64_is_rounded_once(tmp_path):
    """Halfway cases go to even; what is too large becomes infinite, without a warning."""
    path = tmp_path / "a.params"
    wide = np.array(
        [1 + 2.0**-24, 1 + 3 * 2.0**-24, 1 + 2.0**-24 + 2.0**-50, 1e300, -1e-300, 2.0**-150 * 1.5]
    )
    path.write_bytes(attacks.params_file({"a": wide}))
    expected = np.array([1, 1 + 2.0**-22, 1 + 2.0**-23, np.inf, -0.0, 2.0**-149], np.float32)
    assert same_bits(mxnet.read_params(path)["a"], expected)


def test_scalars_and_empty_arrays(tmp_path):
    path = tmp_path / "a.params"
    path.write_bytes(
        attacks.params_file({"s": np.array(2.5, np.float32), "e": np.zeros((0, 3), np.float32)}, attacks.V3)
    )
    found = mxnet.read_params(path)
    assert found["s"].shape == ()
    assert found["s"] == 2.5
    assert found["e"].shape == (0, 3)
    path.write_bytes(attacks.params_parts([attacks.params_array(np.zeros((), np.float32))[:12]], ["none"]))
    with pytest.raises(UnsupportedError, match="'none' at byte 24 is empty"):
        mxnet.read_params(path)


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8"])
def test_integers_are_refused_by_name(dtype, tmp_path):
    path = tmp_path / "a.params"
    path.write_bytes(attacks.params_file({"ok": floats((2,), 0), "ids": np.ones(3, dtype)}))
    with pytest.raises(UnsupportedError, match=rf"a\.params: array 'ids' at byte \d+ is {dtype}"):
        mxnet.read_params(path)


@pytest.mark.parametrize(("storage", "name"), [(1, "row_sparse"), (2, "csr")])
def test_sparse_arrays_are_refused_by_name(storage, name, tmp_path):
    import struct

    shape = struct.pack("<iqq", 2, 2, 3)
    indices = struct.pack("<iiq", 6, 1, 2) * storage
    sparse = struct.pack("<Ii", attacks.V2, storage) + shape + shape + struct.pack("<iii", 1, 0, 0) + indices
    sparse += bytes(4 * 6) + bytes(8 * 2) * storage
    path = tmp_path / "a.params"
    path.write_bytes(attacks.params_parts([sparse, attacks.params_array(floats((2,), 0))], ["s", "ok"]))
    with pytest.raises(UnsupportedError, match=f"array 's' at byte 24 is {name}"):
        mxnet.read_params(path)


def test_write_params_and_back(tmp_path):
    path = tmp_path / "a.params"
    arrays = {"w": floats((2, 3, 1, 1), 0), "mean": floats((4,), 1), "e": np.zeros((0, 2), np.float32)}
    mxnet.write_params(path, arrays, {"mean"})
    data = path.read_bytes()
    assert data == attacks.params_file(
        {"arg:w": arrays["w"], "aux:mean": arrays["mean"], "arg:e": arrays["e"]}
    )
    found = mxnet.read_params(path)
    assert list(found) == list(arrays)
    assert all(same_bits(found[n], arrays[n]) for n in ("w", "mean"))
    assert os.listdir(tmp_path) == ["a.params"]
    mxnet.write_params(path, {"w": arrays["w"].T})
    assert same_bits(mxnet.read_params(path)["w"], np.ascontiguousarray(arrays["w"].T))


def write_half(path: Path) -> None:
    """What a full disk does."""
    with whole_file(path) as stream:
        stream.write(b"half")
        raise OSError(28, "No space left on device")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.params"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="'w' must be float32"):
        mxnet.write_params(path, {"w": np.zeros(3)})
    with pytest.raises(InputError, match="must be float32 with dimensions"):
        mxnet.write_params(path, {"w": np.zeros((), np.float32)})
    with pytest.raises(InputError, match="No space left"):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.params"]


# Structural names


def octave_block(structural_order: bool = False) -> tuple[Graph, dict[str, np.ndarray], dict[str, str]]:
    """Two frequencies of one shape, whose orders in the file and in the symbol differ."""
    attributes = {"kernel": (1, 1), "num_filter": 3, "no_bias": True}
    nodes = [variable("data")]
    for name, source in (("N_stem_conv1", 0), ("N_B1_conv1-l2l", 2), ("N_B1_conv1-h2h", 4)):
        nodes.append(variable(f"{name}_weight"))
        nodes.append(node("Convolution", f"{name}_fwd", [source, len(nodes) - 1], **attributes))
    graph = parse(nodes)
    names = {
        "features.0.weight": "N_stem_conv1_weight",
        "B1.conv1.conv_h2h.weight": "N_B1_conv1-h2h_weight",
        "B1.conv1.conv_l2l.weight": "N_B1_conv1-l2l_weight",
    }
    return graph, {name: floats((3, 3, 1, 1), name) for name in names}, names


def test_names_decide_where_shapes_and_order_cannot():
    graph, arrays, names = octave_block()
    renamed = mxnet.rename_structural(arrays, graph)
    assert {n: renamed[names[n]] is a for n, a in arrays.items()} == dict.fromkeys(arrays, True)
    assert (
        mxnet.rename_structural(arrays, graph, {n: {"name": new} for n, new in names.items()}).keys()
        == renamed.keys()
    )


def test_doubtful_names_are_refused():
    graph, arrays, _ = octave_block()
    twice = {n.replace("l2l", "h2h2"): a for n, a in arrays.items()} | {
        "B1.conv1.x.h2h.weight": floats((3, 3, 1, 1), 0)
    }
    with pytest.raises(WeightsError, match=r"4 arrays.*3 weights"):
        mxnet.rename_structural(twice, graph)
    rivals = {"features.0.weight": 0, "B1.conv1.conv_h2h.weight": 0, "B1.conv1.again_h2h.weight": 0}
    with pytest.raises(WeightsError, match="may both be 'N_B1_conv1-h2h_weight'"):
        mxnet.structural_names(dict.fromkeys(rivals, (3, 3, 1, 1)), graph)
    both = {"features.0.weight": 0, "B1.conv1.l2l.h2h.weight": 0, "B1.conv1.conv_l2l.weight": 0}
    with pytest.raises(WeightsError, match="may be"):
        mxnet.structural_names(dict.fromkeys(both, (3, 3, 1, 1)), graph)
    shape = {n: a.shape for n, a in arrays.items()} | {"features.0.weight": (3, 3, 3, 3)}
    with pytest.raises(WeightsError, match=r"'features.0.weight' is weight \[3, 3, 3, 3\]"):
        mxnet.structural_names(shape, graph)
    role = {n.replace("features.0.weight", "features.0.gamma"): a.shape for n, a in arrays.items()}
    with pytest.raises(WeightsError, match="gamma"):
        mxnet.structural_names(role, graph)


def chain(*weights: str) -> Graph:
    """Convolutions of equal shape, in the order in which they run."""
    nodes = [variable("data")]
    for name in weights:
        nodes.append(variable(f"{name}_weight"))
        attributes = {"kernel": (1, 1), "num_filter": 3, "no_bias": True}
        nodes.append(node("Convolution", f"{name}_fwd", [len(nodes) - 2, len(nodes) - 1], **attributes))
    return parse(nodes)


def derived(blocks: list[str], *weights: str) -> list[str]:
    """The symbol's names, without their role, of blocks whose arrays all have one shape."""
    shapes = {f"{block}.weight": (3, 3, 1, 1) for block in blocks}
    return [name.removesuffix("_weight") for name in mxnet.structural_names(shapes, chain(*weights)).values()]


def test_equal_arrays_of_a_sequential_follow_its_numbers():
    """Children of a Sequential run in the order of their numbers, and the symbol counts them so."""
    blocks = [f"features.{i}" for i in (0, 2, 10)]
    assert derived(blocks, "net0_conv0", "net0_conv1", "net0_conv2") == [
        "net0_conv0",
        "net0_conv1",
        "net0_conv2",
    ]
    assert derived(["conv1", "conv2"], "n0_conv1", "n0_conv2") == ["n0_conv1", "n0_conv2"]


@pytest.mark.parametrize(
    ("blocks", "weights"),
    [
        (["last", "first"], ("net0_conv1", "net0_conv0")),  # registered in another order than run
        (["last", "first"], ("net0_conv0", "net0_conv1")),  # made in the order of run, registered in another
        (["conv1", "conv2"], ("net0_conv0", "net0_conv1")),  # conv1's own name is conv0
        (["conv2", "conv1"], ("net0_conv0", "net0_conv1")),
        (["conv1", "conv0"], ("net0_conv0", "net0_conv1")),
        (["features.0", "features.1"], ("net0_conv1", "net0_conv0")),  # counted in another order than run
        (["features.1", "features.0"], ("net0_conv0", "net0_conv1")),
        (["features.0", "output"], ("net0_conv0", "net0_conv1")),
        (["features.0", "features.1"], ("net0_stem", "net0_top")),
    ],
)
def test_equal_arrays_that_nothing_tells_apart_are_refused(blocks, weights):
    with pytest.raises(WeightsError, match=r"may be .* or .*structure file .*\(--structure FILE\)"):
        derived(blocks, *weights)


def test_arrays_of_one_block_stay_together():
    nodes = [variable("data")]
    for name, shape in (("n_conv0", 3), ("n_conv1", 3)):
        nodes += [variable(f"{name}_weight"), variable(f"{name}_bias")]
        attributes = {"kernel": (1, 1), "num_filter": shape}
        nodes.append(
            node("Convolution", f"{name}_fwd", [len(nodes) - 3, len(nodes) - 2, len(nodes) - 1], **attributes)
        )
    graph = parse(nodes)
    shapes = {
        f"f.{i}.{role}": (3, 3, 1, 1) if role == "weight" else (3,)
        for i in (0, 1)
        for role in ("weight", "bias")
    }
    assert mxnet.structural_names(shapes, graph)["f.1.bias"] == "n_conv1_bias"
    torn = {"f.0.weight": (3, 3, 1, 1), "f.1.weight": (3, 3, 1, 1), "g.0.bias": (3,), "f.1.bias": (3,)}
    with pytest.raises(WeightsError, match=r"structure FILE"):
        mxnet.structural_names(torn, graph)


def test_a_structure_that_does_not_fit_is_refused():
    graph, arrays, names = octave_block()
    structure = {n: {"name": new, "shape": [3, 3, 1, 1]} for n, new in names.items()}
    first, second, _ = names
    for change, message in (
        ({first: {"name": structure[second]["name"]}}, "twice"),
        ({first: {}}, "has no 'name'"),
        ({first: 5}, "has no 'name'"),
        ({first: {"name": "elsewhere"}}, "no weight of the graph"),
    ):
        with pytest.raises(WeightsError, match=message):
            mxnet.rename_structural(arrays, graph, structure | change)
    with pytest.raises(WeightsError, match="not in the structure"):
        mxnet.rename_structural(arrays, graph, {n: structure[n] for n in list(structure)[1:]})
    with pytest.raises(WeightsError, match="must be weight"):
        mxnet.rename_structural(arrays | {first: floats((3, 3), 0)}, graph, structure)


# .tar


def test_an_archive_becomes_a_graph_with_weights(tmp_path):
    path = tmp_path / "a05_small.tar"
    path.write_bytes(attacks.SAMPLES["tar"][1])
    graph = mxnet.read_tar(path, (3, 8, 8))
    assert graph.name == "a05_small"
    assert graph.inputs["data"].shape == (1, 3, 8, 8)
    assert all(same_bits(graph.weights[n[4:]], a) for n, a in attacks.small_weights().items())


def test_weights_that_do_not_fit_name_the_member(tmp_path):
    path = tmp_path / "bad.tar"
    weights = attacks.small_weights()
    weights.pop("arg:fc_bias")
    network = attacks.symbol(attacks.small_network())
    path.write_bytes(
        attacks.tar_file({"x-symbol.json": network, "x-0000.params": attacks.params_file(weights)})
    )
    with pytest.raises(WeightsError, match=r"bad\.tar:x-0000\.params: .*(\n.*)*missing: fc_bias"):
        mxnet.read_tar(path)


def test_an_archive_with_structural_names(tmp_path):
    graph, arrays, names = octave_block()
    path = tmp_path / "gluon.tar"
    members = {
        "g-symbol.json": mxnet.graph_to_symbol(graph).encode(),
        "g-0000.params": attacks.params_file(arrays),
    }
    path.write_bytes(attacks.tar_file(members))
    weights = mxnet.read_tar(path, (3, 8, 8)).weights
    assert all(same_bits(weights[new], arrays[n]) for n, new in names.items())


# Export


MXNET_FUNCTIONS: tuple[Op, ...] = (
    *(Tanh(), Abs(), Sqrt(), Erf(), Exp(), Log(), Softplus(), Softsign(), Elu(0.25), SELU, Gelu()),
    *(HardSigmoid(), Power(2.0), Power(0.75), Sin(), Cos()),
)
"""The functions of one value that MXNet has."""


def every_op() -> Graph:
    """A graph with every op of refnet."""
    bn = tuple(f"bn_{role}" for role in ("gamma", "beta", "mean", "var"))
    nodes = [
        Node("conv", Conv(8, (3, 2), (1, 1), (1, 0), (1, 2), 2, True), ("data", "conv_weight", "conv_bias")),
        Node("bn", BatchNorm(1e-5), ("conv", *bn)),
        Node("fixed", BatchNorm(0.0010000000474974513, True), ("bn", *(f"f{n}" for n in bn))),
        Node("relu", Relu(), ("fixed",)),
        Node("joined", ConvAdd(Conv(8, (1, 1), groups=2)), ("relu", "fixed", "joined_weight")),
        Node("clip", Clip(0.0, 6.0), ("joined",)),
        Node("max", MaxPool((3, 3), (2, 2), (1, 1), "full"), ("clip",)),
        Node("up", UpsampleNearest(2), ("max",)),
        Node("mean", AvgPool((2, 2), (2, 2), (0, 0), "ceil", False), ("up",)),
        Node("mean2", AvgPool((3, 3), (1, 1), (1, 1)), ("mean",)),
        Node("ident", Identity(), ("mean2",)),
        Node("sum1", Add(1), ("ident",)),
        Node("sum2", Add(2), ("sum1", "ident")),
        Node("sum3", Add(3), ("sum1", "sum2", "ident")),
        Node("part", Slice(0, 8), ("sum3",)),
        Node("parts", Concat(1), ("part", "sum3", "part")),
        Node("radix", RadixSum(3), ("parts",)),
        Node("one", RadixSum(1), ("radix",)),
        Node("pool", GlobalAvgPool(), ("one",)),
        Node("fc2", Conv(24, (1, 1), bias=True), ("pool", "fc2_weight", "fc2_bias")),
        Node("attention", RadixSoftmax(3, 4), ("fc2",)),
        Node("weighted", WeightedSum(3), ("attention", "parts")),
        Node("sig", RadixSoftmax(1), ("pool",)),
        Node("weighted1", WeightedSum(1), ("sig", "weighted")),
        Node("sigm", Sigmoid(), ("pool",)),
        Node("mul", Mul(), ("weighted1", "sigm")),
        Node("leaky", LeakyRelu(0.25), ("mul",)),
        Node("slopes", PRelu((8,)), ("leaky", "slopes_gamma")),
        Node("slope", PRelu((1,)), ("slopes", "slope_gamma")),
        *(
            Node(f"by_{kind}", WithScalar(kind, 0.1015625), (before,))
            for kind, before in zip(KINDS, ("slope", *(f"by_{kind}" for kind in KINDS)), strict=False)
        ),
        Node("low", Clip(low=-3.0), ("by_rdiv",)),
        Node("high", Clip(high=7.5), ("low",)),
        Node("minus", Sub(), ("high", "sigm")),
        Node("over", Div(), ("pool", "minus")),
        Node("stretched", Add(2, True), ("over", "pool")),
        Node("lines", Reshape((0, 8, -1)), ("stretched",)),
        Node("turned", Transpose((0, 2, 1)), ("lines",)),
        *(Node(f"f{i}", op, (f"f{i - 1}" if i else "turned",)) for i, op in enumerate(MXNET_FUNCTIONS)),
        Node("cut", Pad((0, -1, 0), (0, -1, -2)), (f"f{len(MXNET_FUNCTIONS) - 1}",)),
        Node("summed", ReduceSum((1,), True, 23), ("cut",)),
        Node("averaged", ReduceMean((1,), False), ("cut",)),
        Node("sums", Flatten(), ("summed",)),
        Node("flat", Flatten(), ("mul",)),
        Node("joint", Concat(1), ("flat", "sums", "averaged")),
        Node("fc", Dense(5), ("joint", "fc_weight", "fc_bias")),
        Node("wide", ExpandDims(1), ("fc",)),
        Node("narrow", Flatten(), ("wide",)),
        Node("dense", Dense(4, False), ("narrow", "dense_weight")),
        Node("prob", Softmax(1), ("dense",)),
    ]
    graph = Graph(
        "every", {"data": TensorType((1, 4, 9, 11))}, tuple(nodes), {"prob": "prob", "logits": "dense"}
    )
    assert {type(n.op) for n in graph.nodes} == set(ALL) - {type(op) for op, _ in ONNX_ONLY}
    return graph


REDUCTIONS = (
    *(ops.ReduceMax, ops.ReduceMin, ops.ReduceL1, ops.ReduceL2, ops.ReduceSumSquare, ops.ReduceProd),
    *(ops.ReduceLogSum, ops.ReduceLogSumExp),
)
ONNX_ONLY: list[tuple[Op, tuple[int, ...]]] = [
    (Silu(), (1, 4)),
    (Mish(), (1, 4)),
    (HardSwish(), (1, 4)),
    (MatMul(constants=((4, 3),)), (1, 4)),
    (ResizeNearest((2,), (6,), (1.5,)), (1, 2, 4, 4)),
    (Constant((1, 4)), ()),
    *UNKNOWN_TO_MXNET,
    (ops.CumSum(1), (1, 4)),
    (ops.StepFunction("floor"), (1, 4)),
    *((op, (1, 4)) for op in (ops.Tan(), ops.Sinh(), ops.Cosh(), ops.Asinh(), ops.Acosh(), ops.Atanh())),
    *((op, (1, 4)) for op in (ops.Atan(), ops.Asin(), ops.Acos())),
    (ops.Pow(((4,),)), (1, 4)),
    (ops.LayerNorm(1e-5, 1, True, ((4,), (4,))), (1, 4)),
    (ops.RMSNorm(1e-5, 1, ((4,),)), (1, 4)),
    (ops.GroupNorm(1e-5, 2, False, ((4,), (4,))), (1, 4)),
    (ops.InstanceNorm(1e-5, ((2,), (2,))), (1, 2, 4)),
    (ops.LRN(3), (1, 4)),
    (ops.LpNorm(), (1, 4)),
    (ops.LogSoftmax(), (1, 4)),
    (ops.Max(1), (1, 4)),
    (ops.Min(1), (1, 4)),
    *((kind((1,)), (1, 4)) for kind in REDUCTIONS),
]
"""Ops that the export to MXNet refuses."""
FORMS: list[tuple[Op, tuple[int, ...]]] = [
    (Gelu(tanh=True), (1, 4)),
    (Elu(0.5, 1.0, 0.5), (1, 4)),
    (Conv(2, (2, 2), pad_end=(1, 1)), (1, 2, 4, 4)),
    (MaxPool((2, 2), pad_end=(1, 1)), (1, 2, 4, 4)),
    (AvgPool((2, 2), dilation=(2, 1)), (1, 2, 4, 4)),
    (Add(2, True, ((2, 1, 1),)), (1, 2, 4, 4)),
    (Mul(((4,),)), (1, 2, 4, 4)),
    (Sub(((2, 1, 1),)), (1, 2, 4, 4)),
    (Div(((2, 1, 1),), swapped=True), (1, 2, 4, 4)),
    (Clip(), (1, 2, 4, 4)),
    (PRelu((2, 1, 1), channels=False), (1, 2, 4, 4)),
    (ReduceSum((0, 1), False), (1, 2)),
    (Reshape(()), (1, 1)),
    (Pad((0, 1), (0, 1)), (1, 4)),
    (Pad((0, -1), (0, 1)), (1, 4)),
    (Pad((0, 0), (-1, -1)), (2, 4)),
    (Pad((0, 0), (0, 0), "edge"), (1, 4)),
    (Softmax(1, trailing=True), (1, 2, 4, 4)),
]
"""Forms of other ops that it refuses."""


@pytest.mark.parametrize(("op", "shape"), [*ONNX_ONLY, *FORMS], ids=repr)
def test_export_refuses_what_mxnet_does_not_have(op: Op, shape: tuple[int, ...]) -> None:
    data = ("data",) if shape else ()
    kinds = op.weight_types(*(TensorType(shape) for _ in data))
    node = Node("y", op, (*data, *(f"w{i}" for i in range(len(kinds)))))
    graph = Graph("one", {"data": TensorType(shape or (1,))}, (node,), {"y": "y"})
    with pytest.raises(UnsupportedError, match=r"y: .* has no counterpart in MXNet"):
        mxnet.graph_to_symbol(graph)


def test_swapped_operands_are_written_in_mxnet_s_order():
    nodes = (
        Node("pool", GlobalAvgPool(), ("data",)),
        Node("less", Sub(swapped=True), ("data", "pool")),
        Node("over", Div(swapped=True), ("data", "less")),
    )
    graph = Graph("g", {"data": TensorType((1, 3, 8, 8))}, nodes, {"over": "over"})
    back = parse_symbol(mxnet.graph_to_symbol(graph).encode(), "g-symbol.json", "g", (3, 8, 8))
    assert [str(n) for n in back.nodes[1:]] == ["less = Sub()(pool, data)", "over = Div()(less, data)"]


SPLIT = (RadixSum, RadixSoftmax, WeightedSum)


def test_export_reads_back():
    """The same nodes under the same names; split attention and PyTorch's ceil become MXNet's."""
    graph = every_op()
    text = mxnet.graph_to_symbol(graph)
    back = parse_symbol(text.encode(), "every-symbol.json", "every", (4, 9, 11))
    assert back.outputs == graph.outputs
    assert back.weight_types == graph.weight_types
    assert back.statistics() == graph.statistics()
    types, others = graph.types(), back.types()
    for n in graph.nodes:
        assert others[n.name] == types[n.name]
        if not isinstance(n.op, SPLIT) and n.name not in ("mean", "joined"):
            assert back.by_name[n.name] == n
    conv, addition = back.by_name["joined_conv"], back.by_name["joined"]
    assert (conv.op, conv.inputs) == (Conv(8, (1, 1), groups=2), ("relu", "joined_weight"))
    assert (addition.op, addition.inputs) == (Add(2), ("joined_conv", "fixed"))
    assert back.by_name["mean"].op == AvgPool((2, 2), (2, 2), (0, 0), "full", False)
    document = json.loads(text)
    assert all(isinstance(v, str) for n in document["nodes"] for v in n.get("attrs", {}).values())
    assert len(document["node_row_ptr"]) == len(document["nodes"]) + 1


def test_exported_split_attention_computes_the_same():
    """Inputs of small whole numbers: every sum and product is exact, so only the softmax could round."""
    pytest.importorskip("refnet.kernels.attention")
    from refnet.arithmetic.run import run

    radix, cardinality, channels = 3, 2, 4
    nodes = (
        Node("att", RadixSoftmax(radix, cardinality), ("data",)),
        Node("flat", Identity(), ("data",)),
        Node("sum", RadixSum(radix), ("flat",)),
        Node("out", WeightedSum(radix), ("att", "data")),
    )
    graph = Graph(
        "split", {"data": TensorType((2, radix * channels, 1, 1))}, nodes, {"out": "out", "sum": "sum"}
    )
    back = parse_symbol(mxnet.graph_to_symbol(graph).encode(), "s", "s", (radix * channels, 1, 1))
    x = np.round(floats((2, radix * channels, 1, 1), "x") * 8)
    mine, theirs = (
        run(graph, {"data": x}, values=["att", "sum"]),
        run(back, {"data": x}, values=["att", "sum"]),
    )
    assert same_bits(mine["att"], theirs["att"])
    assert same_bits(mine["sum"], theirs["sum"])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "expected"),
    [
        ((8, 8), 2, 2, 0, "full"),
        ((7, 7), 2, 2, 0, "full"),
        ((5, 5), 3, 3, 1, "valid"),
        ((5, 6), 3, 3, 1, None),
    ],
)
def test_pytorch_s_ceil_where_mxnet_has_it(size, kernel, stride, pad, expected):
    op = AvgPool((kernel, kernel), (stride, stride), (pad, pad), "ceil")
    graph = Graph("p", {"data": TensorType((1, 1, *size))}, (Node("p", op, ("data",)),), {"p": "p"})
    if expected is None:
        with pytest.raises(UnsupportedError, match="no convention"):
            mxnet.graph_to_symbol(graph)
    else:
        assert (
            json.loads(mxnet.graph_to_symbol(graph))["nodes"][-1]["attrs"]["pooling_convention"] == expected
        )


def test_helper_nodes_give_way_to_the_graph_s_names():
    nodes = (
        Node("s_part0", Identity(), ("data",)),
        Node("s", RadixSum(2), ("s_part0",)),
        Node("s_part1", Relu(), ("s",)),
    )
    graph = Graph("g", {"data": TensorType((1, 4, 2, 2))}, nodes, {"out": "s_part1"})
    names = [n["name"] for n in json.loads(mxnet.graph_to_symbol(graph))["nodes"]]
    assert len(set(names)) == len(names)
    assert names == ["data", "s_part0", "s_part0_", "s_part1_", "s", "s_part1"]


def test_write_symbol(tmp_path):
    graph = every_op()
    mxnet.write_symbol(tmp_path / "e-symbol.json", graph)
    assert mxnet.read_symbol(tmp_path / "e-symbol.json", (4, 9, 11)).name == "e"
    assert os.listdir(tmp_path) == ["e-symbol.json"]


def test_every_rule_is_tested():
    """No op of the reader without a test above."""
    source = Path(__file__).read_text()
    assert [
        op
        for op in RULES
        if f'"{op}"' not in source and op not in ("_Mul", "_add", "broadcast_plus", "stop_gradient")
    ] == []
    for op in ("_Mul", "_add", "broadcast_plus"):
        graph = parse([variable("data"), node("relu", "r", [0]), node(op, "s", [0, 1])])
        assert isinstance(graph.by_name["s"].op, (Add, Mul))
    assert one("stop_gradient") == Identity()


def test_errors_are_refnet_s():
    assert issubclass(FormatError, RefnetError)
