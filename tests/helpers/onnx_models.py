"""Tiny ONNX models, one operator each: every attribute form of every operator that refnet reads.

Data and weights are small whole numbers, so that every sum is exact whatever its order: an evaluator that
means the same has the same bits (`ORDER_FREE`), but where something is divided or exponentiated, where the
op's bound decides. Used against onnx.reference (tests/formats/test_onnx.py) and ONNX Runtime
(tests/crosscheck/test_onnx_reader_real.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from refnet.core.graph import Graph
from refnet.core.op import Interval
from refnet.ops import Conv, ConvNd, ConvTranspose, Dense, MatMul, ReduceSum
from tests.crosscheck.judge import Tally, check, same_bits, within_bound
from tests.helpers.bits import floats
from tests.helpers.engines import FAST
from tests.helpers.onnx_spatial import SPATIAL

NEWEST = onnx.defs.onnx_opset_version()
ORDER_FREE = (Conv, ConvNd, ConvTranspose, Dense, MatMul, ReduceSum)
Array = np.ndarray[Any, Any]


def whole(shape: tuple[int, ...], key: object) -> Array:
    """Whole numbers from -8 to 8 as float32, no -0 among them: an interpolation by 0 and 1 loses its sign."""
    return np.round(floats(shape, key) * 8).astype(np.float32) + np.float32(0)


@dataclass(frozen=True)
class Case:
    """An operator with inputs: a shape is a value of the network, an array a constant, "" an absent one."""

    op: str
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    first: int = 7
    last: int = NEWEST
    outputs: int = 1
    engines: tuple[str, ...] = ("reference", "onnxruntime")
    """Which evaluators do what ONNX's text says; why not both stands where a case is made."""

    def __str__(self) -> str:
        shown = [
            str(list(i) if isinstance(i, tuple) else i if isinstance(i, str) else i.tolist())[:24]
            for i in self.inputs
        ]
        return f"{self.op}({', '.join(shown)}){dict(self.attributes)}"[:150]


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def reals(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


MAPS = (2, 4, 7, 6)
WEIGHT = whole((6, 4, 3, 2), "weight")
B4, B6 = whole((4,), "four"), whole((6,), "six")
POSITIVE = np.abs(B4) + 1


RUNTIME, REFERENCE = ("onnxruntime",), ("reference",)


def windows() -> list[Case]:
    found = []
    conv: list[dict[str, Any]] = [
        {},
        {"kernel_shape": [3, 2]},
        {"strides": [2, 3]},
        {"pads": [1, 0, 2, 1]},
        {"pads": [1, 1, 1, 1], "strides": [2, 1], "dilations": [2, 1]},
        {"pads": [0, 0, 3, 2], "strides": [3, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID", "dilations": [1, 2]},
    ]
    found += [Case("Conv", (MAPS, WEIGHT), a) for a in conv]
    found.append(Case("Conv", (MAPS, WEIGHT, B6)))
    found.append(Case("Conv", (MAPS, whole((6, 2, 1, 1), "g"), B6), {"group": 2}))
    found.append(Case("Conv", (MAPS, whole((4, 1, 3, 3), "d")), {"group": 4, "pads": [1, 1, 1, 1]}))
    for op in ("MaxPool", "AveragePool"):
        forms: list[dict[str, Any]] = [
            {},
            {"strides": [2, 3]},
            {"strides": [2, 2], "pads": [1, 0, 0, 1]},
            {"strides": [2, 2], "pads": [1, 1, 1, 1]},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
            {"auto_pad": "VALID", "strides": [2, 1]},
        ]
        for a in forms:  # the reference's MaxPool cuts SAME_LOWER short
            wrong = op == "MaxPool" and a.get("auto_pad") == "SAME_LOWER"
            engines = {"engines": RUNTIME} if wrong else {}
            found.append(Case(op, (MAPS,), {"kernel_shape": [3, 2], **a}, **engines))
        # what a ceil window may reach was made clear in opset 22's text; ONNX Runtime has one way for all
        for a in (
            {"strides": [2, 2]},
            {"strides": [2, 3], "pads": [1, 1, 1, 1]},
            {"strides": [3, 4], "pads": [0, 1, 1, 0]},
        ):
            found.append(Case(op, (MAPS,), {"kernel_shape": [3, 2], "ceil_mode": 1, **a}, first=10))
        dilated = {"kernel_shape": [2, 3], "dilations": [2, 1], "strides": [2, 1]}
        found.append(Case(op, (MAPS,), dilated, first=10 if op == "MaxPool" else 19))
        found.append(
            Case(op, (MAPS,), {**dilated, "pads": [1, 1, 0, 2]}, first=10 if op == "MaxPool" else 19)
        )
    counted = {"kernel_shape": [3, 2], "count_include_pad": 1}
    found += [Case("AveragePool", (MAPS,), {**counted, "pads": [1, 1, 1, 1], "strides": [2, 2]})]
    found += [Case("AveragePool", (MAPS,), {**counted, "pads": [1, 0, 2, 1]})]
    found += [Case("AveragePool", (MAPS,), {**counted, "auto_pad": "SAME_LOWER", "strides": [2, 2]})]
    found += [
        Case(
            "AveragePool",
            (MAPS,),
            {**counted, "ceil_mode": 1, "pads": [1, 1, 1, 1], "strides": [3, 2]},
            first=10,
        )
    ]
    found += [
        Case("GlobalAveragePool", (MAPS,)),
        Case("GlobalMaxPool", (MAPS,)),
        Case("GlobalAveragePool", ((2, 3, 5),)),
    ]
    return found


def functions() -> list[Case]:
    """Functions of one value; the runtime has no Swish, and no cubes or roots of its own with integer
    exponents."""
    plain = ("Abs", "Cos", "Erf", "Exp", "Neg", "Sin", "Softplus", "Softsign", "Tanh")
    only = ("reference",)
    return [
        *(Case(op, ((2, 40),), first=9 if op == "Erf" else 7) for op in plain),
        *(Case(op, ((2, 40),)) for op in ("Log", "Sqrt", "Reciprocal")),
        Case("Elu", ((2, 40),)),
        Case("Elu", ((2, 40),), {"alpha": 0.75}),
        Case("Selu", ((2, 40),)),
        Case("Selu", ((2, 40),), {"alpha": 0.5, "gamma": 3.0}),
        Case("Celu", ((2, 40),), {"alpha": 0.75}, first=12),
        Case("HardSigmoid", ((2, 40),)),
        Case("HardSigmoid", ((2, 40),), {"alpha": 1 / 6, "beta": 0.5}),
        Case("HardSwish", ((2, 40),), first=14),
        Case("Mish", ((2, 40),), first=18),
        Case("Gelu", ((2, 40),), first=20),
        Case("Gelu", ((2, 40),), {"approximate": "tanh"}, first=20),
        Case("Swish", ((2, 40),), first=24, engines=only),
        Case("Swish", ((2, 40),), {"alpha": 0.75}, first=24, engines=only),
        *(Case(op, ((2, 40),)) for op in ("Tan", "Atan", "Asin", "Acos")),
        *(Case(op, ((2, 40),), first=9) for op in ("Sinh", "Cosh", "Asinh", "Acosh", "Atanh")),
        Case("Floor", ((2, 40),)),
        Case("Ceil", ((2, 40),)),
        Case("Round", ((2, 40),), first=11),
        Case("Sign", ((2, 40),), first=9),
        *(Case("Pow", ((2, 40), reals(n).reshape(()))) for n in (2, 3, 0.5, -2, 1)),
        Case("Pow", ((2, 40), reals(2))),
        Case("Pow", ((2, 4), reals(2, 0.5, 0, 1))),
        Case("Pow", (reals(1, 2, 3, 10), (2, 4))),
        Case("Pow", ((2, 1), (2, 3))),
        Case("Pow", ((2, 40), ints(3)), first=12),
    ]


def pointwise() -> list[Case]:
    statistics = (B4, whole((4,), "b"), whole((4,), "m"), POSITIVE)
    norms = [
        ((MAPS, *statistics), {}),
        ((MAPS, *statistics), {"epsilon": 1e-3, "momentum": 0.5}),
        (((2, 4), *statistics), {}),
    ]
    found = [  # the reference cannot evaluate the versions before 14
        *(Case("BatchNormalization", i, a, last=13, engines=RUNTIME) for i, a in norms),
        *(Case("BatchNormalization", i, a, first=14) for i, a in norms),
        Case("BatchNormalization", (MAPS, *statistics), {"training_mode": 0}, first=14),
        *(Case(op, (shape,)) for op in ("Relu", "Sigmoid", "Identity") for shape in (MAPS, (2, 5))),
        Case("Dropout", (MAPS,), {"ratio": 0.25}, last=11),
        Case("Dropout", (MAPS,), {}),
        Case("Dropout", (MAPS, reals(0.5).reshape(())), {}, first=12),
        Case("Dropout", (MAPS, "", np.array(False)), {"seed": 3}, first=12),
        Case("LeakyRelu", (MAPS,), {}),
        Case("LeakyRelu", (MAPS,), {"alpha": 0.25}),
        *functions(),
        Case("PRelu", (MAPS, whole((4, 1, 1), "slopes"))),
        Case("PRelu", (MAPS, whole((6,), "last axis"))),
        Case("PRelu", (MAPS, reals(0.5))),
        Case("Clip", (MAPS,), {"min": -2.0, "max": 6.0}, last=10),
        Case("Clip", (MAPS,), {"max": 6.0}, last=10),
        Case("Clip", (MAPS,), {}),
        Case("Clip", (MAPS, reals(0).reshape(()), reals(6).reshape(())), first=11),
        Case("Clip", (MAPS, reals(-1).reshape(())), first=11),
        Case("Clip", (MAPS, "", reals(3).reshape(())), first=11),
        Case("Clip", (MAPS, reals(3).reshape(()), reals(-3).reshape(())), first=11),
        # before opset 13 the reference takes one axis where ONNX's text takes all from it on
        *(Case("Softmax", (MAPS,), {"axis": axis}, last=12, engines=RUNTIME) for axis in (1, 2)),
        Case("Softmax", (MAPS,), {"axis": -3}, first=11, last=12, engines=RUNTIME),
        Case("Softmax", (MAPS,), last=12, engines=RUNTIME),
        *(Case("Softmax", (MAPS,), {"axis": axis}, first=13) for axis in (1, 2, -3)),
        *(Case("Softmax", (shape,), {"axis": axis}) for shape, axis in [((2, 5), 1), (MAPS, 3)]),
        Case("Softmax", ((2, 5),), {"axis": -1}, first=11),
        Case("Softmax", (MAPS,), first=13),
        Case("Softmax", ((2, 6, 1, 1),), {"axis": 1}),
        Case("Cast", (MAPS,), {"to": TensorProto.FLOAT}),
        Case("CastLike", (MAPS, MAPS), first=15),
    ]
    for op in ("Add", "Sub", "Mul", "Div"):
        small = whole((4, 1, 1), op) * 2 + 1
        found += [
            Case(op, (MAPS, MAPS)),
            Case(op, (MAPS, (2, 4, 1, 1))),
            Case(op, ((2, 1, 7, 1), (2, 4, 1, 6))),
            Case(op, (MAPS, small)),
            Case(op, (small, MAPS)),
            Case(op, (MAPS, reals(3).reshape(()))),
            Case(op, (reals(3).reshape(()), MAPS)),
        ]
    found += [
        Case("Sum", (MAPS,)),
        Case("Sum", (MAPS, MAPS, MAPS)),
        Case("Sum", (MAPS, (2, 4, 1, 1), whole((6,), "sum")), first=8),
        Case("Sum", (whole((4, 1, 1), "sum"), MAPS), first=8),
    ]
    return found


def defined() -> list[Case]:
    """Operators that ONNX defines by others, and what is read as several nodes. The runtime's Attention of
    opset 23 and 24 and its definition are one formula, in other orders."""
    grid = np.cos(np.arange(40, dtype=np.float32)).reshape(10, 4)
    attention = ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6))
    causal = ((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4))
    flat = ((2, 5, 12), (2, 7, 4), (2, 7, 4))
    labels = ints(1, 0, 3).astype(np.int64)
    return [
        Case("ThresholdedRelu", ((2, 40),), {"alpha": 2.0}, first=10),
        Case("Shrink", ((2, 40),), {"bias": 1.5, "lambd": 2.0}, first=9),
        Case("MeanVarianceNormalization", (MAPS,), first=13),
        Case("MeanVarianceNormalization", (MAPS,), {"axes": [2, 3]}, first=13),
        Case("CenterCropPad", (MAPS, ints(2, 6, 5, 6)), first=18),
        Case("CenterCropPad", (MAPS, ints(9, 3)), {"axes": [2, 3]}, first=18),
        Case("RotaryEmbedding", ((2, 3, 5, 8), grid, grid, np.arange(10).reshape(2, 5)), first=23),
        Case("RotaryEmbedding", ((2, 3, 5, 8), (2, 5, 4), (2, 5, 4)), {"interleaved": 1}, first=23),
        Case(
            "RotaryEmbedding",
            ((2, 5, 24), (2, 5, 2), (2, 5, 2)),
            {"num_heads": 3, "rotary_embedding_dim": 4},
            first=23,
        ),
        Case("Attention", attention, first=23),
        Case("Attention", causal, {"is_causal": 1, "scale": 0.25}, first=23),
        Case("Attention", flat, {"q_num_heads": 3, "kv_num_heads": 1, "softcap": 2.0}, first=23),
        Case("Attention", (*attention, whole((5, 7), "bias")), first=23),
        Case("Attention", (*attention, whole((2, 1, 5, 7), "mask") > -3), first=23),
        Case(  # the runtime wants the present key of a past one as an output
            "Attention", (*causal, "", *causal[1:]), {"is_causal": 1}, first=23, engines=REFERENCE
        ),
        Case("CausalConvWithState", ((2, 4, 8), whole((4, 1, 3), "taps"), B4), first=27, engines=REFERENCE),
        Case(
            "CausalConvWithState",
            ((2, 4, 8), whole((4, 1, 4), "taps"), "", (2, 4, 3)),
            {"activation": "silu"},
            first=27,
            engines=REFERENCE,
        ),
        Case("NegativeLogLikelihoodLoss", ((3, 4), labels), {"reduction": "sum"}, first=13),
        Case("SoftmaxCrossEntropyLoss", ((3, 4), labels), first=13),
        Case("SoftmaxCrossEntropyLoss", ((3, 4), labels), {"reduction": "none"}, first=13),
        Case("AffineGrid", ((2, 2, 3), ints(2, 3, 4, 5)), first=20),
        Case("AffineGrid", ((2, 3, 4), ints(2, 3, 2, 4, 5)), {"align_corners": 1}, first=20),
        Case("SwiGLU", ((2, 8), (2, 8)), first=28, engines=REFERENCE),
        Case("Mean", (MAPS, (4, 1, 1), whole((6,), "mean")), first=8),
        Case("Mean", (MAPS,), first=8),
        Case("Hardmax", (MAPS,), {"axis": 1}, first=13),
        Case("Hardmax", ((2, 5),), {"axis": 1}),
        Case("GlobalLpPool", (MAPS,), last=21, engines=RUNTIME),  # the reference does not have it
        Case("GlobalLpPool", ((2, 3, 5),), {"p": 1}, last=21, engines=RUNTIME),
        *(
            Case("Einsum", (MAPS,), {"equation": text}, first=12)
            for text in ("abcd->adcb", "ab...->...", "abcd")
        ),
        Case("Einsum", ((2, 3, 3),), {"equation": "bii->bi"}, first=12),
        Case("Einsum", ((3, 3, 2),), {"equation": "iij"}, first=12),
        Case("Einsum", ((2, 3, 5), (2, 5, 4)), {"equation": "bij, bjk -> bik"}, first=12),
        Case("Einsum", ((2, 3, 5, 4), whole((6, 4, 5), "e")), {"equation": "...ij,kji->...k"}, first=12),
        Case("Einsum", ((2, 3), (2, 4)), {"equation": "bi,bj->bji"}, first=12),
        Case("Einsum", ((3, 4), (3, 4)), {"equation": "ij,ij"}, first=12),
    ]


def products() -> list[Case]:
    b = whole((5, 3), "b")
    return [
        Case("Gemm", ((2, 5), whole((3, 5), "w"), whole((3,), "c")), {"transB": 1}),
        Case("Gemm", ((2, 5), b, whole((3,), "c"))),
        Case("Gemm", ((2, 5), b, whole((1, 3), "c")), {"alpha": 0.5, "beta": 2.0}),
        Case("Gemm", ((2, 5), b, reals(2).reshape(()))),
        Case("Gemm", ((5, 2), b, whole((2, 3), "c")), {"transA": 1, "beta": 0.25}),
        Case("Gemm", ((5, 2), whole((3, 5), "w"), whole((2, 1), "c")), {"transA": 1, "transB": 1}),
        Case("Gemm", ((2, 5), whole((3, 5), "w")), {"transB": 1}, first=11),
        Case("Gemm", ((2, 5), whole((3, 5), "w")), {"transB": 1, "alpha": -2.0}, first=11),
        Case("Gemm", ((2, 5), b, (2, 3)), {"alpha": 0.5}),
        Case("Gemm", ((2, 5), b, whole((3,), "c")), {"beta": 0.0}),
        Case("MatMul", ((2, 5), b)),
        Case("MatMul", ((2, 4, 5), b)),
        Case("MatMul", ((2, 5), (5, 3))),
        Case("MatMul", ((2, 4, 5), (2, 5, 3))),
        Case("MatMul", ((2, 1, 4, 5), whole((3, 5, 2), "batched"))),
        Case("MatMul", ((2, 5), whole((5,), "column"))),
        Case("MatMul", (whole((3, 2), "left"), (2, 5))),
    ]


def moves() -> list[Case]:
    found = [
        *(Case("Concat", (MAPS, MAPS), {"axis": axis}) for axis in (1, 3)),
        Case("Concat", (MAPS, MAPS, MAPS), {"axis": -3}, first=11),
        Case("Concat", (MAPS, whole((2, 1, 7, 6), "constant")), {"axis": 1}),
        Case("Split", (MAPS,), {"axis": 1}, outputs=2, last=17),
        Case("Split", (MAPS,), {"axis": 1, "split": [1, 3]}, outputs=2, last=12),
        Case("Split", (MAPS,), {"axis": -1, "split": [1, 2, 3]}, outputs=3, first=11, last=12),
        Case("Split", (MAPS, ints(1, 3)), {"axis": 1}, outputs=2, first=13),
        Case("Split", (MAPS,), {"axis": 2, "num_outputs": 2}, outputs=2, first=18),
        Case("Split", (MAPS,), {"axis": -3, "num_outputs": 4}, outputs=4, first=18),
        *(
            Case("Reshape", (MAPS, ints(*s)))
            for s in ((0, -1), (2, 4, 42), (-1, 6), (0, 0, 1, -1), (7, 0, 6, 2))
        ),
        Case("Reshape", (MAPS, ints(2, -1)), {"allowzero": 1}, first=14),
        *(Case("Flatten", (MAPS,), {"axis": axis}) for axis in (0, 1, 2, 3, 4)),
        Case("Flatten", (MAPS,)),
        Case("Flatten", (MAPS,), {"axis": -2}, first=11),
        *(Case("Transpose", (MAPS,), a) for a in ({}, {"perm": [0, 2, 3, 1]}, {"perm": [1, 0, 3, 2]})),
        Case("Squeeze", ((2, 3, 1, 1),), {"axes": [2, 3]}, last=12),
        Case("Squeeze", ((2, 3, 1, 1),), {"axes": [-1]}, first=11, last=12),
        Case("Squeeze", ((2, 3, 1, 1), ints(3, -2)), first=13),
        Case("Squeeze", ((2, 1, 3, 1),)),
        Case("Unsqueeze", ((2, 3),), {"axes": [2, 3]}, last=12),
        Case("Unsqueeze", ((2, 3),), {"axes": [1]}, last=12),
        Case("Unsqueeze", ((2, 3),), {"axes": [-1]}, first=11, last=12),
        Case("Unsqueeze", ((2, 3), ints(0, -1)), first=13),
        Case("Unsqueeze", ((2, 3), ints(1)), first=13),
        Case("Slice", (MAPS,), {"starts": [1], "ends": [3], "axes": [1]}, last=9),
        Case("Slice", (MAPS,), {"starts": [0, 1], "ends": [9, -1]}, last=9),
        Case("Slice", (MAPS, ints(1), ints(3), ints(1)), first=10),
        Case("Slice", (MAPS, ints(-3, 1), ints(1000, -1), ints(-2, 3), ints(1, 1)), first=10),
        Case("Slice", (MAPS, ints(0), ints(1 << 62)), first=10),
        Case("Pad", (MAPS,), {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 1.5}, last=10),
        Case("Pad", (MAPS, ints(0, 0, 1, 2, 0, 0, 0, 1)), first=11),
        # the reference cuts nothing
        Case("Pad", (MAPS, ints(0, 0, 1, 2, 0, 1, 0, -1), reals(-2).reshape(())), first=11, engines=RUNTIME),
        *(
            Case("Pad", (MAPS, ints(0, 0, 1, 2, 0, 0, 0, 1)), {"mode": m}, first=11)
            for m in ("edge", "reflect")
        ),
        Case("Pad", (MAPS, ints(1, 2, 0, 3), "", ints(2, -1)), first=18),
        Case("Pad", (MAPS, ints(0, 0, 1, 2, 0, 0, 0, 1)), {"mode": "wrap"}, first=19),
    ]
    for op, border in (("ReduceMean", 18), ("ReduceSum", 13)):
        for axes, keep in (([2, 3], 1), ([1], 0), ([-1, 1], 1), ([0, 2], 1)):
            old = 11 if min(axes) < 0 else 7
            found.append(Case(op, (MAPS,), {"axes": axes, "keepdims": keep}, first=old, last=border - 1))
            found.append(Case(op, (MAPS, ints(*axes)), {"keepdims": keep}, first=border))
        found.append(Case(op, (MAPS,)))
        found.append(Case(op, (MAPS,), {"noop_with_empty_axes": 1}, first=border))
        found.append(Case(op, (MAPS, ints()), {"noop_with_empty_axes": 1}, first=border))
        found.append(Case(op, ((2, 2, 3), ints(1)), {"keepdims": 0}, first=border))
    return found


MODES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resizes() -> list[Case]:
    """Nearest neighbours. With scales of 1.2, 2.7 and 0.6 the runtime, which computes places in float32, has
    others than the reference. The reference lacks old versions, axes and a mode."""
    found = []
    for scales in ((1.0, 1.0, 2.0, 2.0), (1.0, 1.0, 3.0, 1.5), (1.0, 1.0, 0.6, 0.5), (1.0, 1.0, 1.2, 2.7)):
        if min(scales) >= 1:  # Upsample takes no less, and version 10 of Resize does not say which neighbour
            old = {"mode": "nearest", "scales": list(scales)}
            found.append(Case("Upsample", (MAPS,), old, first=7, last=8, engines=RUNTIME))
            found.append(Case("Upsample", (MAPS, reals(*scales)), {}, first=9, last=9, engines=RUNTIME))
            found.append(Case("Resize", (MAPS, reals(*scales)), {}, first=10, last=10, engines=RUNTIME))
        exact = {} if scales[2] in (2.0, 3.0) else {"engines": RUNTIME}
        for mode in MODES:
            for rounding in ROUNDINGS:
                a = {"coordinate_transformation_mode": mode, "nearest_mode": rounding}
                found.append(Case("Resize", (MAPS, reals(), reals(*scales)), a, first=11, **exact))
    inputs = (MAPS, "", reals(1, 1, 1.6, 0.7))
    for r in ROUNDINGS:
        a = {"coordinate_transformation_mode": "half_pixel_symmetric", "nearest_mode": r}
        found.append(Case("Resize", inputs, a, first=19, engines=RUNTIME))
        a = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": r}
        inputs_ = (MAPS, reals(), reals(1, 1, 2, 1.5))
        found.append(Case("Resize", inputs_, a, first=11, last=12, engines=RUNTIME))
    sizes = ints(2, 4, 10, 3)
    for mode in MODES:
        a = {"coordinate_transformation_mode": mode}
        found.append(Case("Resize", (MAPS, reals(), reals(), sizes), a, first=11))
        found.append(Case("Resize", (MAPS, "", "", ints(2, 4, 1, 1)), a, first=13))
        found.append(Case("Resize", (MAPS, "", reals(2, 3)), {**a, "axes": [2, 3]}, first=18))
        found.append(Case("Resize", (MAPS, "", "", ints(9)), {**a, "axes": [-1]}, first=18, engines=RUNTIME))
    for policy in ("not_larger", "not_smaller", "stretch"):
        a = {"axes": [2, 3], "keep_aspect_ratio_policy": policy}
        found.append(Case("Resize", (MAPS, "", "", ints(10, 10)), a, first=18))
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0}
    region = reals(0, 0, 0.25, -0.5, 1, 1, 0.75, 1.0)
    found.append(Case("Resize", (MAPS, region, "", ints(2, 4, 5, 8)), crop, first=13))
    found.append(
        Case("Resize", (MAPS, region, reals(1, 1, 2, 2)), {**crop, "nearest_mode": "floor"}, first=11)
    )
    # the runtime copies an axis of scale 1 whatever its region
    only = ("reference",)
    found.append(Case("Resize", (MAPS, region, reals(1, 1, 1, 2)), crop, first=11, engines=only))
    return found


def reductions() -> list[Case]:
    """Normalisations, reductions and choices. What has 1 as size or all axes is there for the edges."""
    tokens, scale, shift = (2, 5, 6), whole((6,), "scale"), whole((6,), "shift")
    found = [
        Case("LayerNormalization", (tokens, scale, shift), first=17),
        Case("LayerNormalization", (tokens, scale), {"axis": 2, "epsilon": 0.5}, first=17),
        Case("LayerNormalization", (MAPS, whole((7, 6), "planes")), {"axis": -2}, first=17),
        Case("LayerNormalization", (MAPS, reals(2), whole((4, 1, 6), "b")), {"axis": 1}, first=17),
        Case("LayerNormalization", (tokens, (6,), (6,)), first=17),
        Case("LayerNormalization", (tokens, (6,), shift), {"epsilon": 1e-3}, first=17),
        Case("RMSNormalization", (tokens, scale), first=23),
        Case("RMSNormalization", (MAPS, whole((7, 6), "planes")), {"axis": 2, "epsilon": 0.5}, first=23),
        Case("RMSNormalization", (tokens, (6,)), first=23),
        Case("InstanceNormalization", (MAPS, POSITIVE, B4)),
        Case("InstanceNormalization", ((2, 4, 9), POSITIVE, B4), {"epsilon": 0.25}),
        Case("InstanceNormalization", (MAPS, (4,), (4,))),
        *(
            Case("GroupNormalization", (MAPS, *weights), {"num_groups": g}, **versions)
            for g, weights, versions in (
                (2, (reals(2, -3), reals(1, 5)), {"first": 18, "last": 20}),
                (2, (POSITIVE, B4), {"first": 21}),
                (4, ((4,), (4,)), {"first": 21}),
                (1, (POSITIVE, B4), {"first": 21}),
            )
        ),
        # the reference goes over as many channels as there are images; the runtime has odd sizes only
        Case("LRN", (MAPS,), {"size": 3}, engines=RUNTIME),
        Case("LRN", ((4, 4, 3, 2),), {"size": 3, "alpha": 0.5}),
        Case("LRN", ((4, 4, 3, 2),), {"size": 4, "alpha": 0.5, "beta": 0.5, "bias": 2.0}, engines=REFERENCE),
        Case("LRN", ((4, 4, 3, 2),), {"size": 5, "alpha": 0.01, "beta": 0.6, "bias": 1.5}),
        # the reference never flattens
        Case("LogSoftmax", (MAPS,), last=12, engines=RUNTIME),
        Case("LogSoftmax", (MAPS,), first=13),
        *(Case("LogSoftmax", (MAPS,), {"axis": axis}, last=12, engines=RUNTIME) for axis in (1, 2)),
        *(Case("LogSoftmax", (MAPS,), {"axis": axis}, first=13) for axis in (1, 2, -3)),
        Case("LogSoftmax", (MAPS,), {"axis": 3}),
        Case("LogSoftmax", (MAPS,), {"axis": -3}, first=11, last=12, engines=RUNTIME),
        Case("LpNormalization", (MAPS,), {"axis": 1}),
        Case("LpNormalization", (MAPS,), {"axis": 2, "p": 1}, engines=RUNTIME),  # the reference adds no |x|
        Case("LpNormalization", (MAPS,)),
    ]
    for op in ("Max", "Min"):
        found += [
            Case(op, (MAPS,), first=8),
            Case(op, (MAPS, MAPS)),
            Case(op, (MAPS, (4, 1, 1), (6,)), first=8),
            Case(op, (whole((4, 1, 1), "first"), MAPS, reals(0.5)), first=8),
        ]
    for axis, attributes in ((2, {}), (-1, {"exclusive": 1}), (1, {"reverse": 1, "exclusive": 1})):
        found.append(Case("CumSum", (MAPS, ints(axis).reshape(())), attributes, first=11))
    borders = {"ReduceMax": 18, "ReduceMin": 18, "ReduceProd": 18, "ReduceL1": 18, "ReduceL2": 18}
    borders |= {"ReduceSumSquare": 18, "ReduceLogSum": 18, "ReduceLogSumExp": 18}
    for op, border in borders.items():
        for axes, keep in (([2, 3], 1), ([1], 0), ([-1, 1], 1), ([0, 2], 1)):
            old = 11 if min(axes) < 0 else 7
            found.append(Case(op, (MAPS,), {"axes": axes, "keepdims": keep}, first=old, last=border - 1))
            found.append(Case(op, (MAPS, ints(*axes)), {"keepdims": keep}, first=border))
        if op != "ReduceProd":  # of 336 numbers overflows
            found.append(Case(op, (MAPS,)))
    return found


CASES = [*windows(), *pointwise(), *defined(), *products(), *moves(), *resizes(), *reductions()]
CASES += [Case(op, inputs, a, **more) for op, inputs, a, more in SPATIAL]


def model_of(case: Case, opset: int, *, everything: bool = True) -> onnx.ModelProto:
    """The model: inputs x0, x1 ...; constants c0, c1 ...; outputs y0, y1 ..."""
    names, values, constants = [], [], []
    for i, what in enumerate(case.inputs):
        if isinstance(what, str):
            names.append("")
        elif isinstance(what, tuple):
            names.append(f"x{i}")
            values.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, what))
        else:
            names.append(f"c{i}")
            constants.append(numpy_helper.from_array(what, f"c{i}"))
    outputs = [f"y{k}" for k in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="node", **case.attributes)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph([node], "one", values, infos, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def data_of(case: Case) -> dict[str, Array]:
    """Arrays for the inputs; odd ones, so no zeros, where something is divided; positive where a function
    asks."""
    data = {f"x{i}": whole(s, (str(case), i)) for i, s in enumerate(case.inputs) if isinstance(s, tuple)}
    if case.op == "ReduceLogSum":
        return {name: np.abs(x) + 1 for name, x in data.items()}
    if case.op in ("Log", "Pow", "Reciprocal", "Sqrt"):
        return {name: np.abs(x) / 4 + np.float32(0.25) for name, x in data.items()}
    if case.op in ("Asin", "Acos", "Atanh"):
        return {name: x / 8 - x / 128 for name, x in data.items()}
    if case.op == "Acosh":
        return {name: np.abs(x) / 4 + np.float32(1.25) for name, x in data.items()}
    return {name: x * 2 + 1 for name, x in data.items()} if case.op == "Div" else data


@cache
def changes() -> Mapping[str, set[int]]:
    """Operator -> the opsets in which it changed. (onnx makes the whole list anew at each question.)"""
    found: dict[str, set[int]] = defaultdict(set)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found[schema.name].add(schema.since_version)
    return found


def versions(case: Case, newest: int = NEWEST) -> list[int]:
    """The opsets in which the operator changed, and the first and last of the case's."""
    changed = changes()[case.op]
    last = min(case.last, newest)
    return sorted(
        {v for v in changed if case.first <= v <= last} | {case.first, last} if case.first <= last else set()
    )


def write(case: Case, opset: int, folder: Path) -> Path:
    path = folder / "one.onnx"
    path.write_bytes(model_of(case, opset).SerializeToString())
    return path


def judge(graph: Graph, data: Mapping[str, Array], found: Mapping[str, Array]) -> Tally:
    """Every value that was found, on the evaluator's own inputs: same bits, or inside the bound."""
    tally = Tally()
    known = {**data, **found}
    ranges = _ranges(graph, known) if {node.name for node in graph.nodes if node.data} - {*found} else {}
    for node in graph.nodes:
        if not node.data:
            known[node.name] = node.op.run(*(graph.weights[name] for name in node.weights), engine=FAST)
        if node.name not in found:
            continue
        if any(name not in known for name in node.data):  # inside of a node of the file
            within_bound(found[node.name], ranges[node.name])
            tally.bounds[type(node.op).__name__] += 1
            continue
        arguments = [known[name] for name in node.data] + [graph.weights[name] for name in node.weights]
        check(node, found[node.name], arguments, tally)
        if isinstance(node.op, ORDER_FREE):
            assert (found[node.name] + 0.0).tobytes() == (
                node.op.run(*arguments, engine=FAST) + 0.0
            ).tobytes(), node
    return tally


def _ranges(graph: Graph, known: Mapping[str, Array]) -> dict[str, Interval]:
    """Where each value lies that is made of what is known; exactly where nothing rounds it."""
    exact, ranges = dict(known), {name: Interval.exactly(array) for name, array in known.items()}
    for node in graph.nodes:
        weights = [graph.weights[name] for name in node.weights]
        given = [ranges[name] for name in node.data]
        made = node.op.bound(*given, *map(Interval.exactly, weights), engine=FAST)
        if node.op.exactly_specified and not made.radius.any() and all(name in exact for name in node.data):
            own = node.op.run(*(exact[name] for name in node.data), *weights, engine=FAST)
            made, exact[node.name] = Interval.exactly(own), own
        ranges[node.name] = made
    return ranges


__all__ = ["CASES", "Case", "data_of", "judge", "model_of", "same_bits", "versions", "whole", "write"]
