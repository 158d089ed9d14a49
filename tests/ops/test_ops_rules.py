"""Every op keeps the rules of core/op.py: docstring, type, run, bound, flops. A new op must join EXAMPLES.

`exact` gives an op's true value at one element by rational or 60-digit decimal arithmetic, straight
from the formula in its docstring and independent of its code.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import GraphError
from refnet.core.op import Interval, Op, TensorType
from refnet.core.rounding import MAX, gamma
from refnet.kernels.engine import Fast
from refnet.ops.sigmoid import CUT, P, Q
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.engines import FAST
from tests.helpers.exact_functions import FUNCTIONS
from tests.helpers.spatial_examples import SPATIAL

getcontext().prec = 60
Exact = Callable[..., Fraction]


def fraction(x: object) -> Fraction:
    return Fraction(float(x))  # type: ignore[arg-type]


def decimal(value: Decimal) -> Fraction:
    return Fraction(value)


def to_decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def conv(op: ops.Conv, at: tuple[int, ...], x, w, b=None) -> Fraction:
    n, o, i, j = at
    total = fraction(b[o]) if b is not None else Fraction(0)
    group = o // (op.channels // op.groups)
    for c in range(w.shape[1]):
        for p in range(op.kernel[0]):
            for q in range(op.kernel[1]):
                row = i * op.stride[0] - op.pad[0] + p * op.dilation[0]
                column = j * op.stride[1] - op.pad[1] + q * op.dilation[1]
                if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                    total += fraction(w[o, c, p, q]) * fraction(x[n, group * w.shape[1] + c, row, column])
    return total


def conv_add(op: ops.ConvAdd, at: tuple[int, ...], x, addend, w, b=None) -> Fraction:
    return conv(op.conv, at, x, w, b) + fraction(addend[at])


def dense(op: ops.Dense, at, x, w, b=None) -> Fraction:
    row = x[at[0]].ravel()
    total = sum((fraction(a) * fraction(c) for a, c in zip(row, w[at[1]], strict=True)), Fraction(0))
    return total + (fraction(b[at[1]]) if b is not None else 0)


H = Fraction(1, 2)


def total(values: np.ndarray) -> Fraction:
    return sum(map(fraction, values.ravel()), Fraction(0))


def matmul(op: ops.MatMul, at, a, b, c=None) -> Fraction:
    a, b = a.T if op.transpose_a else a, b.T if op.transpose_b else b
    place = (*at, 0) if b.ndim == 1 else at
    *lead, i, j = (*place[:-1], 0, place[-1]) if a.ndim == 1 else place
    a, b = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    ahead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    row = np.broadcast_to(a, (*ahead, *a.shape[-2:]))[tuple(lead)][i]
    column = np.broadcast_to(b, (*ahead, *b.shape[-2:]))[tuple(lead)][:, j]
    y = sum((fraction(u) * fraction(v) for u, v in zip(row, column, strict=True)), Fraction(0))
    y *= Fraction(op.alpha)
    if c is not None:
        y += Fraction(op.beta) * fraction(np.broadcast_to(c, (a.shape[-2], b.shape[-1]))[i, j])
    return y


def trailing_softmax(op: ops.Softmax, at, x) -> Fraction:
    return softmax([fraction(v) for v in x[at[0]].ravel()], at[1] * x.shape[2] + at[2])


def window(op, at, x) -> list[Fraction]:
    n, c, i, j = at
    top, left = i * op.stride[0] - op.pad[0], j * op.stride[1] - op.pad[1]
    (kh, kw), (dh, dw) = op.kernel, op.dilation
    return [
        fraction(x[n, c, p, q])
        for p in range(top, top + kh * dh, dh)
        for q in range(left, left + kw * dw, dw)
        if 0 <= p < x.shape[2] and 0 <= q < x.shape[3]
    ]


def average(op: ops.AvgPool, at, x) -> Fraction:
    inside = window(op, at, x)
    ends = op.pad_end or op.pad
    places = zip(at[2:], op.stride, op.pad, op.kernel, x.shape[2:], ends, op.dilation, strict=True)
    sides = [sum(i * s - p + t * d < size + e for t in range(k)) for i, s, p, k, size, e, d in places]
    return sum(inside, Fraction(0)) / (sides[0] * sides[1] if op.count_include_pad else len(inside))


def batch_norm(op: ops.BatchNorm, at, x, g, b, mean, var) -> Fraction:
    c = at[1]
    root = (to_decimal(fraction(var[c])) + Decimal(op.eps)).sqrt()
    scale = Fraction(1) if op.fix_gamma else fraction(g[c])
    return scale * (fraction(x[at]) - fraction(mean[c])) / decimal(root) + fraction(b[c])


def power(x: Fraction) -> Fraction:
    """e ** x to 60 digits; beyond e ** -5000 and e ** 5000, which no float comes near, it is cut."""
    return decimal(to_decimal(min(max(x, Fraction(-5000)), Fraction(5000))).exp())


def sigmoid(x: Fraction) -> Fraction:
    return 1 / (1 + power(-x))


def softmax(values: list[Fraction], i: int) -> Fraction:
    powers = [power(v - max(values)) for v in values]
    return powers[i] / sum(powers)


def radix_softmax(op: ops.RadixSoftmax, at, x) -> Fraction:
    n, position = at
    m = x.shape[1] // (op.radix * op.cardinality)
    r, k, i = position // (op.cardinality * m), position // m % op.cardinality, position % m
    parts = [fraction(x[n, (k * op.radix + s) * m + i, 0, 0]) for s in range(op.radix)]
    return sigmoid(parts[0]) if op.radix == 1 else softmax(parts, r)


def parts(radix: int, at, x) -> list[Fraction]:
    c = x.shape[1] // radix
    return [fraction(x[(at[0], r * c + at[1], *at[2:])]) for r in range(radix)]


def leaky(slope: Fraction, x: Fraction) -> Fraction:
    return x if x >= 0 else slope * x


def normalised(op, value: Fraction, row: np.ndarray, g: object, b: object = 0.0) -> Fraction:
    values = [fraction(v) for v in row.ravel()]
    mean = Fraction(0) if isinstance(op, ops.RMSNorm) else sum(values, Fraction(0)) / len(values)
    variance = sum(((v - mean) ** 2 for v in values), Fraction(0)) / len(values)
    root = decimal(to_decimal(variance + Fraction(op.eps)).sqrt())
    return (value - mean) / root * fraction(g) + fraction(b)


def layer_norm(op: ops.LayerNorm | ops.RMSNorm, at, x, *weights) -> Fraction:
    own = [np.broadcast_to(w, x.shape)[at] for w in weights]
    return normalised(op, fraction(x[at]), x[at[: op.axis]], *own)


def group_norm(op: ops.GroupNorm, at, x, g, b) -> Fraction:
    size = x.shape[1] // op.groups
    group = at[1] // size
    w = group if op.per_group else at[1]
    row = x[at[0], group * size : (group + 1) * size]
    return normalised(op, fraction(x[at]), row, g[w], b[w])


def along(op, at, x) -> list[Fraction]:
    """The terms of a reduction with keepdims."""
    index = tuple(slice(None) if i in op.axes else at[i] for i in range(x.ndim))
    return [fraction(v) for v in x[index].ravel()]


def square_root(value: Fraction) -> Fraction:
    return decimal(to_decimal(value).sqrt())


def over(value: Fraction, size: Fraction) -> Fraction:
    return value / size if size else Fraction(0)


def logarithm(value: Fraction) -> Fraction:
    """Of 0 a number beyond every float32; ValueError for a negative one, which has none."""
    if value < 0:
        raise ValueError(value)
    return decimal(to_decimal(value).ln()) if value else Fraction(-(2**200))


def log_sum_exp(values: list[Fraction]) -> Fraction:
    log = logarithm(sum(power(v - max(values)) for v in values))
    return max(values) + (max(log, Fraction(1, 10**90)) if len(values) > 1 else 0)  # it is never 0


def lrn(op: ops.LRN, at, x) -> Fraction:
    low, high = (op.size - 1) // 2, op.size - 1 - (op.size - 1) // 2
    near = x[(at[0], slice(max(at[1] - low, 0), at[1] + high + 1), *at[2:])]
    squares = sum((fraction(v) ** 2 for v in near), Fraction(0))
    b = Fraction(op.bias) + Fraction(op.alpha) / op.size * squares
    return fraction(x[at]) / decimal((Decimal(op.beta) * to_decimal(b).ln()).exp())


def scalar(formula: Callable[[Fraction, Fraction], Fraction]) -> Exact:
    return lambda op, at, x: formula(fraction(x[at]), Fraction(op.scalar))


@dataclass(frozen=True)
class Example:
    op: Op
    data: tuple[tuple[int, ...], ...]
    exact: Exact
    positive: bool = False
    """Whether the formula needs positive data."""
    least: float = 0.0
    """The least that it needs then."""
    most: float = float("inf")
    """The largest number in size that it is defined for."""

    def within(self, values: np.ndarray) -> np.ndarray:
        """The values, those beyond the domain moved to its end."""
        return np.clip(values, np.float32(-self.most), np.float32(self.most))


def running(op: ops.CumSum, at: tuple[int, ...], x: np.ndarray) -> Fraction:
    """The sum up to the element, or from it on."""
    first, end = (at[op.axis] + op.exclusive, None) if op.reverse else (0, at[op.axis] + 1 - op.exclusive)
    part = x[(*at[: op.axis], slice(first, end), *at[op.axis + 1 :])]
    return sum(map(fraction, part), Fraction(0))


def powered(a: np.float32, b: np.float32) -> Fraction:
    """a ** b for a positive a, else 0: exact where it is a float64, as every tie is; else to 200 digits.

    Beyond e^200 and below e^-200, which round to infinity and to zero, it is one of these two.
    """
    if not a > 0:
        return Fraction(0)
    with localcontext() as context:
        context.prec = 200
        logarithm = Decimal(float(b)) * Decimal(float(a)).ln()
        power = max(min(logarithm, Decimal(200)), Decimal(-200)).exp()
    near, (n, d) = Fraction(float(power)), float(b).as_integer_ratio()
    exact = abs(logarithm) < 200 and abs(n) < 200 and d < 200 and near**d == Fraction(float(a)) ** n
    return near if exact else Fraction(power)


EXAMPLES = [
    Example(ops.Conv(5, (3, 2), (2, 1), (1, 1), (1, 2), 1, True), ((2, 3, 7, 6),), conv),
    Example(ops.Conv(6, (3, 3), pad=(1, 1), groups=3), ((1, 6, 5, 5),), conv),
    Example(
        ops.ConvAdd(ops.Conv(4, (3, 2), (2, 1), (1, 1), (1, 2), 2, True)),
        ((2, 6, 7, 6), (2, 4, 4, 6)),
        conv_add,
    ),
    Example(ops.ConvAdd(ops.Conv(5, (1, 1))), ((1, 6, 3, 5), (1, 5, 3, 5)), conv_add),
    Example(ops.Dense(7), ((2, 3, 2, 2),), dense),
    Example(ops.Dense(4, bias=False), ((1, 40),), dense),
    Example(ops.MaxPool((3, 3), (2, 2), (1, 1)), ((2, 2, 7, 7),), lambda op, at, x: max(window(op, at, x))),
    Example(ops.AvgPool((3, 3), (2, 2), (1, 1), "ceil"), ((1, 2, 6, 6),), average),
    Example(ops.AvgPool((3, 2), (2, 2), (1, 0), "full", count_include_pad=False), ((1, 2, 6, 7),), average),
    Example(
        ops.GlobalAvgPool(),
        ((2, 3, 4, 5),),
        lambda op, at, x: sum(map(fraction, x[at[:2]].ravel()), Fraction(0)) / x[at[:2]].size,
    ),
    Example(ops.BatchNorm(1e-4), ((2, 3, 4, 4),), batch_norm),
    Example(ops.BatchNorm(1e-3, fix_gamma=True), ((2, 3),), batch_norm),
    Example(
        ops.Max(3, ((2, 1),)),
        ((2, 3), (3,)),
        lambda op, at, a, b, c: max(fraction(a[at]), fraction(b[at[1]]), fraction(c[at[0], 0])),
    ),
    Example(ops.Min(1), ((2, 3),), lambda op, at, a: fraction(a[at])),
    Example(ops.Min(), ((2, 3), (2, 3)), lambda op, at, a, b: min(fraction(a[at]), fraction(b[at]))),
    Example(ops.ReduceMax((0, 2)), ((2, 3, 4),), lambda op, at, x: max(along(op, at, x))),
    Example(ops.ReduceMin((1,)), ((2, 3, 4),), lambda op, at, x: min(along(op, at, x))),
    Example(ops.ReduceL1((1, 2)), ((2, 3, 4),), lambda op, at, x: sum(map(abs, along(op, at, x)))),
    Example(
        ops.ReduceSumSquare((0, 2)), ((2, 3, 4),), lambda op, at, x: sum(v * v for v in along(op, at, x))
    ),
    Example(
        ops.ReduceL2((2,)),
        ((2, 3, 4),),
        lambda op, at, x: square_root(sum((v * v for v in along(op, at, x)), Fraction(0))),
    ),
    Example(ops.CumSum(1), ((2, 5, 3),), running),
    Example(ops.CumSum(2, True, True), ((2, 2, 4),), running),
    Example(ops.ReduceProd((1,)), ((2, 5, 3),), lambda op, at, x: math.prod(along(op, at, x))),
    Example(
        ops.LpNorm(1, 2),
        ((2, 4, 3),),
        lambda op, at, x: over(
            fraction(x[at]), square_root(sum((fraction(v) ** 2 for v in x[at[0], :, at[2]]), Fraction(0)))
        ),
    ),
    Example(
        ops.LpNorm(2, 1),
        ((2, 3, 4),),
        lambda op, at, x: over(fraction(x[at]), sum((abs(fraction(v)) for v in x[at[:2]]), Fraction(0))),
    ),
    Example(
        ops.LogSoftmax(1),
        ((2, 6, 2),),
        lambda op, at, x: fraction(x[at]) - log_sum_exp([fraction(v) for v in x[at[0], :, at[2]]]),
    ),
    Example(
        ops.LogSoftmax(1, True),
        ((2, 3, 2),),
        lambda op, at, x: fraction(x[at]) - log_sum_exp([fraction(v) for v in x[at[0]].ravel()]),
    ),
    Example(ops.ReduceLogSumExp((0, 2)), ((2, 3, 4),), lambda op, at, x: log_sum_exp(along(op, at, x))),
    Example(
        ops.ReduceLogSum((1,)),
        ((1, 9),),
        lambda op, at, x: logarithm(sum(along(op, at, x), Fraction(0))),
    ),
    Example(ops.LRN(3, 0.5, 0.75, 0.25), ((2, 5, 3),), lrn),
    Example(ops.LRN(4, 2.0, 1.6, 3.0), ((1, 6),), lrn),
    Example(ops.LayerNorm(1e-5, constants=((12,), (12,))), ((3, 12),), layer_norm),
    Example(ops.LayerNorm(1e-3, 1, False, ((3, 1),)), ((2, 3, 4),), layer_norm),
    Example(ops.LayerNorm(1e-2, 2), ((2, 1, 5), (5,), (1, 5)), layer_norm),
    Example(ops.RMSNorm(1e-5, 2, ((6,),)), ((2, 2, 6),), layer_norm),
    Example(ops.GroupNorm(1e-4, 2, constants=((4,), (4,))), ((2, 4, 3, 2),), group_norm),
    Example(ops.GroupNorm(1e-2, 2, True), ((2, 4, 3), (2,), (2,)), group_norm),
    Example(
        ops.InstanceNorm(1e-5, ((3,), (3,))),
        ((2, 3, 4, 2),),
        lambda op, at, x, g, b: normalised(op, fraction(x[at]), x[at[:2]], g[at[1]], b[at[1]]),
    ),
    Example(ops.Relu(), ((2, 3, 4),), lambda op, at, x: max(fraction(x[at]), Fraction(0))),
    Example(ops.Sigmoid(), ((3, 40),), lambda op, at, x: sigmoid(fraction(x[at]))),
    Example(
        ops.Add(2), ((2, 9), (2, 9)), lambda op, at, *xs: sum((fraction(x[at]) for x in xs), Fraction(0))
    ),
    Example(ops.Add(5), ((2, 9),) * 5, lambda op, at, *xs: sum((fraction(x[at]) for x in xs), Fraction(0))),
    Example(
        ops.Mul(),
        ((2, 3, 4, 4), (2, 3, 1, 1)),
        lambda op, at, a, b: fraction(a[at]) * fraction(b[(*at[:2], 0, 0)]),
    ),
    Example(
        ops.Conv(3, (3, 2), (2, 1), (0, 1), (1, 2), pad_end=(2, 0)),
        ((1, 2, 6, 5),),
        conv,
    ),
    Example(ops.Conv(2, (2, 2), (3, 2), (1, 0), bias=True, pad_end=(1, 3)), ((1, 2, 6, 5),), conv),
    Example(
        ops.MaxPool((2, 3), (2, 1), (0, 1), "ceil", dilation=(2, 1), pad_end=(1, 2)),
        ((1, 2, 7, 5),),
        lambda op, at, x: max(window(op, at, x)),
    ),
    Example(ops.AvgPool((2, 3), (2, 1), (1, 0), "ceil", pad_end=(2, 1)), ((1, 2, 6, 6),), average),
    Example(
        ops.AvgPool((3, 2), (2, 3), (1, 1), "full", False, pad_end=(2, 0), dilation=(2, 1)),
        ((1, 2, 8, 7),),
        average,
    ),
    Example(ops.Clip(-0.25, 0.5), ((2, 9),), lambda op, at, x: min(max(fraction(x[at]), -H / 2), H)),
    Example(ops.Clip(0.0, 0.5), ((2, 9),), lambda op, at, x: min(max(fraction(x[at]), Fraction(0)), H)),
    Example(ops.Clip(high=0.0), ((2, 9),), lambda op, at, x: min(fraction(x[at]), Fraction(0))),
    Example(ops.StepFunction("floor"), ((2, 9),), lambda op, at, x: Fraction(math.floor(x[at]))),
    Example(ops.StepFunction("ceil"), ((2, 9),), lambda op, at, x: Fraction(math.ceil(x[at]))),
    Example(ops.StepFunction("round"), ((2, 9),), lambda op, at, x: Fraction(round(fraction(x[at])))),
    Example(ops.StepFunction("sign"), ((2, 9),), lambda op, at, x: Fraction(int(x[at] > 0) - int(x[at] < 0))),
    Example(ops.LeakyRelu(0.125), ((2, 9),), lambda op, at, x: leaky(Fraction(op.slope), fraction(x[at]))),
    Example(ops.LeakyRelu(-3.0), ((2, 9),), lambda op, at, x: leaky(Fraction(op.slope), fraction(x[at]))),
    Example(ops.PRelu((3,)), ((2, 3, 4),), lambda op, at, x, s: leaky(fraction(s[at[1]]), fraction(x[at]))),
    Example(ops.PRelu((1,)), ((2, 3),), lambda op, at, x, s: leaky(fraction(s[0]), fraction(x[at]))),
    Example(
        ops.PRelu((3, 1), channels=False),
        ((2, 3, 4),),
        lambda op, at, x, s: leaky(fraction(s[at[1], 0]), fraction(x[at])),
    ),
    Example(ops.WithScalar("add", -0.75), ((2, 9),), scalar(lambda x, s: x + s)),
    Example(ops.WithScalar("sub", 3.0), ((2, 9),), scalar(lambda x, s: x - s)),
    Example(ops.WithScalar("rsub", 1.0), ((2, 9),), scalar(lambda x, s: s - x)),
    Example(ops.WithScalar("mul", 0.0999755859375), ((2, 9),), scalar(lambda x, s: x * s)),
    Example(ops.WithScalar("div", -3.0), ((2, 9),), scalar(lambda x, s: x / s)),
    Example(ops.WithScalar("rdiv", 5.0), ((2, 9),), scalar(lambda x, s: s / x)),
    Example(
        ops.Add(3, broadcast=True, constants=((3, 1), ())),
        ((2, 1, 4),),
        lambda op, at, a, b, c: fraction(a[at[0], 0, at[2]]) + fraction(b[at[1], 0]) + fraction(c),
    ),
    Example(
        ops.Add(broadcast=True),
        ((3,), (2, 1)),
        lambda op, at, a, b: fraction(a[at[1]]) + fraction(b[at[0], 0]),
    ),
    Example(
        ops.Mul(constants=((3, 1),)),
        ((2, 3, 4),),
        lambda op, at, a, b: fraction(a[at]) * fraction(b[at[1], 0]),
    ),
    Example(
        ops.Sub(), ((2, 3), (2, 1, 1)), lambda op, at, a, b: fraction(a[at[1:]]) - fraction(b[at[0], 0, 0])
    ),
    Example(ops.Sub(((3,),), True), ((2, 3),), lambda op, at, b, a: fraction(a[at[1]]) - fraction(b[at])),
    Example(ops.Div(((3,),)), ((2, 3),), lambda op, at, a, b: fraction(a[at]) / fraction(b[at[1]])),
    Example(
        ops.Pow(((3,),)),
        ((2, 3),),
        lambda op, at, a, b: powered(a[at], np.broadcast_to(b, a.shape)[at]),
        positive=True,
    ),
    Example(ops.Div(swapped=True), ((2, 3), (1,)), lambda op, at, b, a: fraction(a[0]) / fraction(b[at])),
    Example(ops.MatMul(constants=((5, 4),)), ((2, 3, 5),), matmul),
    Example(ops.MatMul(), ((2, 1, 3, 5), (2, 5, 4)), matmul),
    Example(ops.MatMul(), ((5,), (5,)), matmul),
    Example(ops.MatMul(0.75, -3.0, True, True, True, ((4, 5), (3, 1))), ((5, 3),), matmul),
    Example(ops.MatMul(beta=0.5, addend=True), ((2, 30), (30, 2), (2,)), matmul),
    Example(ops.ReduceSum((1, 2), False), ((2, 3, 4, 2),), lambda op, at, x: total(x[at[0], ..., at[1]])),
    Example(ops.ReduceSum((1,), count=2), ((2, 2, 3),), lambda op, at, x: total(x[at[0], :, at[2]])),
    Example(ops.ReduceMean((3, 0)), ((2, 3, 2, 4),), lambda op, at, x: total(x[:, at[1], at[2]]) / 8),
    Example(ops.ReduceMean((0,), False), ((3, 2),), lambda op, at, x: total(x[:, at[0]]) / 3),
    Example(ops.ReduceMean((0, 1), False, vector=True), ((3, 2),), lambda op, at, x: total(x) / 6),
    Example(ops.ReduceSum((0, 1), False, vector=True), ((2, 3),), lambda op, at, x: total(x)),
    Example(ops.Softmax(1, trailing=True), ((2, 3, 2),), trailing_softmax),
    Example(
        ops.ResizeNearest((2, 0), (5, 1), (2.5, 0.5), "asymmetric", "ceil"),
        ((2, 3, 2),),
        lambda op, at, x: fraction(x[0, at[1], (0, 1, 1, 1, 1)[at[2]]]),
    ),
    Example(
        ops.ResizeNearest((1,), (4,), ((4, 3),), "tf_crop_and_resize", roi=((-0.5, 1.0),), extrapolation=7.0),
        ((2, 3),),
        lambda op, at, x: (Fraction(7), fraction(x[at[0], 0]), fraction(x[at[0], 1]), fraction(x[at[0], 2]))[
            at[1]
        ],
    ),
    Example(
        ops.Reshape((0, -1, 3)), ((2, 3, 4),), lambda op, at, x: fraction(x[at[0]].ravel()[at[1] * 3 + at[2]])
    ),
    Example(ops.Transpose((2, 0, 1)), ((2, 3, 4),), lambda op, at, x: fraction(x[at[1], at[2], at[0]])),
    Example(
        ops.Pad((0, 1), (0, -1), value=0.1),
        ((2, 4),),
        lambda op, at, x: fraction(x[at[0], at[1] - 1]) if at[1] else fraction(np.float32(0.1)),
    ),
    Example(
        ops.Pad((0, 2), (1, 1), "reflect"),
        ((2, 3),),
        lambda op, at, x: fraction(x[at[0] % 2, (2, 1, 0, 1, 2, 1)[at[1]]]),
    ),
    Example(ops.Constant((2, 3)), (), lambda op, at, c: fraction(c[at])),
    Example(
        ops.UpsampleNearest(2),
        ((1, 2, 3, 4),),
        lambda op, at, x: fraction(x[at[0], at[1], at[2] // 2, at[3] // 2]),
    ),
    Example(
        ops.Concat(1),
        ((2, 1, 3), (2, 2, 3)),
        lambda op, at, a, b: fraction(a[at] if at[1] < 1 else b[at[0], at[1] - 1, at[2]]),
    ),
    Example(ops.Slice(1, 3), ((2, 4, 3),), lambda op, at, x: fraction(x[at[0], at[1] + 1, at[2]])),
    Example(ops.Flatten(), ((2, 3, 2, 2),), lambda op, at, x: fraction(x[at[0]].ravel()[at[1]])),
    Example(ops.ExpandDims(2), ((2, 3),), lambda op, at, x: fraction(x[at[0], at[1]])),
    Example(ops.Identity(), ((2, 3),), lambda op, at, x: fraction(x[at])),
    Example(ops.Softmax(1), ((2, 10),), lambda op, at, x: softmax([fraction(v) for v in x[at[0]]], at[1])),
    Example(ops.RadixSum(2), ((1, 6, 3, 3),), lambda op, at, x: sum(parts(2, at, x), Fraction(0))),
    Example(ops.RadixSum(4), ((1, 8, 3, 3),), lambda op, at, x: sum(parts(4, at, x), Fraction(0))),
    Example(ops.RadixSoftmax(2, 3), ((2, 24, 1, 1),), radix_softmax),
    Example(ops.RadixSoftmax(1), ((2, 5, 1, 1),), radix_softmax),
    Example(
        ops.WeightedSum(2),
        ((2, 6), (2, 6, 3, 3)),
        lambda op, at, a, x: sum(
            (u * v for u, v in zip(parts(2, at[:2], a), parts(2, at, x), strict=True)), Fraction(0)
        ),
    ),
    Example(
        ops.WeightedSum(1), ((1, 3), (1, 3, 2, 2)), lambda op, at, a, x: fraction(a[at[:2]]) * fraction(x[at])
    ),
    *(Example(*one) for one in SPATIAL),
    *(Example(one.op, ((3, 20),), one.exact, one.positive, one.least, one.most) for one in FUNCTIONS),
]
EVERY = pytest.mark.parametrize("example", EXAMPLES, ids=[repr(e.op) for e in EXAMPLES])
SCALES = (1.0, 30.0, 1e-39, 1e18)
"""Of inputs: ordinary, large for an exponential, subnormal, huge."""


def arguments(example: Example, scale: float = 1.0) -> list[np.ndarray]:
    op = example.op
    values = [floats(s, (repr(op), i)) * np.float32(scale) for i, s in enumerate(example.data)]
    kinds = op.weight_types(*(TensorType(v.shape) for v in values))
    for role, kind in zip(op.weight_roles(), kinds, strict=True):
        weight = floats(kind.shape, (repr(op), role))
        values.append(np.abs(weight) if role == "var" else weight)
    if example.positive:
        values = [np.abs(v) + np.float32(example.least) for v in values]
    return [example.within(v) for v in values]


def intervals(values: list[np.ndarray]) -> list[Interval]:
    return [Interval.exactly(v) for v in values]


def inside(value: Fraction, interval: Interval, at: tuple[int, ...]) -> bool:
    radius = float(interval.radius[at])
    return np.isinf(radius) or abs(value - fraction(interval.center[at])) <= fraction(radius)


def test_every_class_is_listed():
    """ALL holds the ops of every file here: all classes but the bases of others."""
    files = [importlib.import_module(f"refnet.ops.{one.name}") for one in pkgutil.iter_modules(ops.__path__)]
    kinds = {
        kind
        for file in files
        for kind in vars(file).values()
        if isinstance(kind, type) and issubclass(kind, Op) and kind.__module__ == file.__name__
    }
    assert kinds - {base for kind in kinds for base in kind.__bases__} == {*ops.ALL, *ops.TYPED, ops.Opaque}
    assert len(set(ops.ALL)) == len(ops.ALL)


def test_every_op_has_an_example_and_every_rule():
    assert {type(e.op) for e in EXAMPLES} == set(ops.ALL)
    for op in ops.ALL:
        assert op.__doc__, op
        assert "y" in op.__doc__.splitlines()[0], f"{op}: the docstring begins with the formula"
        assert "Source:" in op.__doc__ or "attention" in op.__module__, op
        for rule in ("type", "run", "bound", "flops"):
            assert getattr(op, rule) is not getattr(Op, rule), f"{op} lacks {rule}"
        one = all(e.op.exactly_specified for e in EXAMPLES if type(e.op) is op)
        assert one or op.golden is not Op.golden, f"{op} lacks golden"


@EVERY
def test_type_and_cost(example):
    values = arguments(example)
    kinds = [TensorType(v.shape) for v in values]
    result = example.op.run(*values, engine=Fast(1))
    assert TensorType(result.shape) == example.op.type(*kinds)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    cost = example.op.flops(*kinds)
    assert cost.flops >= 2 * cost.macs >= 0
    with pytest.raises(GraphError, match=type(example.op).__name__):
        example.op.type(*kinds, *kinds, *kinds, *kinds, *kinds, *kinds, TensorType((5, 4, 3, 2, 1)))


@EVERY
def test_bound_holds_the_exact_value_and_the_plain_one(example):
    for scale in SCALES:
        bound_holds(example, scale)


def bound_holds(example: Example, scale: float) -> None:
    values = arguments(example, scale)
    interval = example.op.bound(*intervals(values), engine=FAST)
    plain = example.op.run(*values, engine=Fast(2))
    assert interval.center.dtype == interval.radius.dtype == np.float64
    assert (interval.radius >= 0).all()
    assert not np.isnan(interval.radius).any()
    for at in np.ndindex(plain.shape):
        true = example.exact(example.op, at, *values)
        assert inside(true, interval, at), (scale, at)
        if np.isfinite(plain[at]):
            assert inside(fraction(plain[at]), interval, at), (scale, at)
        else:
            assert np.isinf(interval.radius[at]), (scale, at)
        if example.op.exactly_specified and abs(true) < MAX:
            nearest = np.float32(float(true))  # these results are exact or one rounding of a float64
            assert plain[at] == nearest, (scale, at)


@EVERY
def test_bound_promises_something(example):
    """On ordinary data the radius is finite and small: a few dozen roundings of what went in."""
    values = arguments(example)
    interval = example.op.bound(*intervals(values), engine=FAST)
    size = 1 + sum(float(np.abs(v).max()) ** 2 * v.size for v in values)
    assert (interval.radius < gamma(100) * size * 100).all()


def eighths(shape: tuple[int, ...], key: object) -> np.ndarray:
    """Multiples of 1/8 from -1 to 1, float64."""
    return np.round(floats(shape, key).astype(np.float64) * 8) / 8


@EVERY
def test_bound_composes(example):
    """With inputs anywhere inside given radii, the exact value still lies inside."""
    for positive in (False, True):
        bound_composes(example, positive)


def bound_composes(example: Example, positive: bool) -> None:
    """With positive values and every radius used upwards nothing cancels, so no part of a bound is spare.
    Radii and shares lie on a coarse grid, so that value + radius * share is exact in float64.
    """
    values = [np.abs(v) for v in arguments(example)] if positive else arguments(example)
    moving = len(example.data) if isinstance(example.op, ops.BatchNorm) else len(values)
    radii = [np.abs(eighths(v.shape, (i, "radius"))) / 64 for i, v in enumerate(values)]
    wide = [Interval(v.astype(np.float64), r) for v, r in zip(values[:moving], radii, strict=False)]
    interval = example.op.bound(*wide, *intervals(values[moving:]), engine=FAST)
    for k in range(3):
        share = [eighths(v.shape, (i, k, "share")) for i, v in enumerate(values[:moving])]
        if k == 2:  # the corners
            share = [np.ones_like(s) if positive else np.sign(s) for s in share]
        moved = [v + r * s for v, r, s in zip(values[:moving], radii, share, strict=False)]
        for at in np.ndindex(interval.center.shape):
            assert inside(example.exact(example.op, at, *moved, *values[moving:]), interval, at), (
                positive,
                k,
                at,
            )


@EVERY
def test_awkward_inputs_never_raise(example):
    """NaN, infinities, subnormals: run gives a value, bound promises nothing false and is never NaN."""
    values = [awkward(v.shape, i, 0.3) for i, v in enumerate(arguments(example))]
    with np.errstate(all="ignore"):
        plain = example.op.run(*values, engine=Fast(1))
        interval = example.op.bound(*intervals(values), engine=FAST)
    assert not np.isnan(interval.radius).any()
    known = (plain == interval.center) | (np.isnan(plain) & np.isnan(interval.center))
    assert (np.isfinite(plain) | np.isinf(interval.radius) | known).all()
    finite = np.isfinite(plain) & np.isfinite(interval.center)
    with np.errstate(all="ignore"):
        assert (np.abs(plain - interval.center) <= interval.radius)[finite].all()


def orders(terms: np.ndarray, bias: np.float32 | None) -> list[np.float32]:
    """The sum of float32 terms in several orders, without FMA."""
    values = [*terms] if bias is None else [*terms, bias]
    found = []
    for arrangement in (values, values[::-1], sorted(values), sorted(values, key=abs)):
        total = np.float32(0)
        for v in arrangement:
            total += v
        found.append(total)
        level = list(arrangement)
        while len(level) > 1:
            level = [a + b for a, b in zip(level[::2], level[1::2], strict=False)] + level[
                len(level) // 2 * 2 :
            ]
        found.append(level[0])
    return found


@pytest.mark.parametrize("scale", [1.0, 1e-20])
def test_any_order_lies_inside_and_bugs_do_not(scale):
    """Dense sums in eight orders are inside; a dropped term, a swapped pair, a float16 weight are not."""
    op = ops.Dense(1)
    shapes = {"x": (1, 300), "w": (1, 300), "b": (1,)}
    x, w, b = (floats(shape, name) * np.float32(scale) for name, shape in shapes.items())
    interval = op.bound(*intervals([x, w, b]), engine=FAST)
    for total in orders(x[0] * w[0], b[0]):
        assert inside(fraction(total), interval, (0, 0))
    if scale < 1:
        return  # products are subnormal here, and a bug in one is smaller than a rounding of the bias
    dropped, swapped = x.copy(), x.copy()
    dropped[0, 7] = 0
    swapped[0, [0, 1]] = swapped[0, [1, 0]]
    half = w.astype(np.float16).astype(np.float32)
    for bug in (
        op.run(dropped, w, b, engine=FAST),
        op.run(swapped, w, b, engine=FAST),
        op.run(x, half, b, engine=FAST),
        op.run(x, w, b * 0, engine=FAST),
    ):
        assert not inside(fraction(bug[0, 0]), interval, (0, 0))


def test_batch_norm_variants_lie_inside_and_another_eps_does_not():
    op = ops.BatchNorm(1e-4)
    x, g, b, mean, var = arguments(Example(op, ((4, 8, 6, 6),), batch_norm), 3.0)
    interval = op.bound(*intervals([x, g, b, mean, var]), engine=FAST)
    column = (slice(None), None, None)
    f = np.float32
    for eps in (f(1e-4), 1e-4):
        inverse = (f(1) / np.sqrt((var + eps).astype(f))).astype(f)
        alpha = g * inverse
        shift = b - mean * alpha
        direct = g / np.sqrt((var + eps).astype(f))
        for y in (
            x * alpha[column] + shift[column],
            (x - mean[column]) * direct[column] + b[column],
            g[column] * ((x - mean[column]) * inverse[column]) + b[column],
        ):
            assert y.dtype == np.float32
            assert (np.abs(y - interval.center) <= interval.radius).all()
    other = ops.BatchNorm(1e-5).run(x, g, b, mean, var, engine=FAST)
    assert (np.abs(other - interval.center) > interval.radius).any()


def rational_sigmoid(x: np.ndarray) -> np.ndarray:
    """ONNX Runtime's, in float32 without FMA."""
    x = np.clip(x, -np.float32(CUT), np.float32(CUT))
    t = x * x
    sums = [np.full_like(x, np.float32(c[-1])) for c in (P, Q)]
    for k, coefficients in enumerate((P, Q)):
        for c in coefficients[-2::-1]:
            sums[k] = sums[k] * t + np.float32(c)
    y = np.maximum(x * sums[0] / sums[1] + np.float32(0.5), np.float32(0))
    assert y.dtype == np.float32
    return y


def test_sigmoid_variants_lie_inside():
    x = (floats((1, 4000), "sigmoid") * np.float32(100)).astype(np.float32)
    interval = ops.Sigmoid().bound(Interval.exactly(x), engine=FAST)
    f = np.float32
    with np.errstate(all="ignore"):
        e = np.exp(x.astype(np.float64)).astype(f)
        back = np.exp(-x.astype(np.float64)).astype(f)
        mirrored = np.exp(-np.abs(x).astype(np.float64)).astype(f)
        q = mirrored / (f(1) + mirrored)
        variants = [
            f(1) / (f(1) + back),
            np.where(x > 80, f(1), e / (f(1) + e)),
            np.where(x > 0, f(1) - q, q),
            rational_sigmoid(x),
        ]
    for y in variants:
        assert (np.abs(y - interval.center) <= interval.radius).all()
    assert (np.abs(variants[0] + f(2.0**-18) - interval.center) > interval.radius).any()


def test_specials_are_defined():
    nan, inf = np.float32(np.nan), np.float32(np.inf)
    x = np.array([[-0.0, 0.0, nan, -inf, inf, 1e-45, -1e-45]], np.float32)
    relu = ops.Relu().run(x, engine=FAST)
    assert same_bits(relu, np.array([[0, 0, nan, 0, inf, 1e-45, 0]], np.float32))
    sigmoid_ = ops.Sigmoid().run(x, engine=FAST)
    assert same_bits(sigmoid_, np.array([[0.5, 0.5, nan, 0, 1, 0.5, 0.5]], np.float32))
    pooled = ops.MaxPool((1, 2)).run(np.array([[[[-0.0, 0.0, nan, 1.0]]]], np.float32), engine=FAST)
    assert same_bits(pooled, np.array([[[[-0.0, nan, nan]]]], np.float32))


@EVERY
def test_prints_as_python(example):
    assert eval(repr(example.op), vars(ops)) == example.op


def test_nothing_is_promised_where_some_order_overflows():
    """Partial sums grow by gamma on the way: sums just below the largest float32 may still overflow."""
    terms = np.array([MAX - 50 * 2.0**104] + [2.0**103 * (1 + 2**-20)] * 60, np.float32)
    x, ones = terms.reshape(1, -1, 1, 1), np.ones((4, 61, 1, 1), np.float32)
    conv_ = ops.Conv(4, (1, 1))
    assert np.isinf(conv_.run(x, ones, engine=FAST)).any()
    cases = [
        (conv_, [x, ones]),
        (ops.Dense(4, bias=False), [terms[None], ones[:, :, 0, 0]]),
        (ops.GlobalAvgPool(), [terms.reshape(1, 1, 1, -1)]),
        (ops.AvgPool((1, 61)), [terms.reshape(1, 1, 1, -1)]),
        (ops.Add(61), [t.reshape(1, 1) for t in terms]),
        (ops.RadixSum(61), [x]),
        (ops.WeightedSum(61), [np.ones((1, 61), np.float32), x]),
    ]
    for op, values in cases:
        assert np.isinf(op.bound(*intervals(values), engine=FAST).radius).all(), op


def test_batch_norm_promises_nothing_where_a_form_overflows():
    def one(v: float) -> np.ndarray:
        return np.full(1, v, np.float32)

    op = ops.BatchNorm(1e-5)
    for x, g in ((0.0, 1e37), (3e36, 1e-3)):
        values = [np.full((1, 1, 1, 1), x, np.float32), one(g), one(0), one(0), one(0)]
        assert np.isinf(op.bound(*intervals(values), engine=FAST).radius).all()


def test_bounds_of_more_terms_than_float32_can_count():
    assert gamma(2**24) == np.inf
    wide = ops.AvgPool((5000, 5000), (5000, 5000), (4999, 4999))
    interval = wide.bound(Interval.exactly(np.ones((1, 1, 8, 8), np.float32)), engine=FAST)
    assert (interval.radius >= 0).all()


@pytest.mark.parametrize("row", [[-80.0, -87.2], [-87.2, -87.2], [200.0, 200.0], [3.0, -59.0], [0.5, 0.25]])
def test_softmax_with_and_without_the_shift(row):
    """Where exp of the plain arguments may leave float32's range, only the shifted form is covered."""
    x = np.array([row], np.float32)
    interval = ops.Softmax(1).bound(Interval.exactly(x), engine=FAST)
    with np.errstate(all="ignore"):
        shifted = np.exp((x - x.max()).astype(np.float64)).astype(np.float32)
        plain = np.exp(x.astype(np.float64)).astype(np.float32)
        forms = [shifted / shifted.sum(dtype=np.float32)]
        if np.abs(x).max() <= 60:
            forms.append(plain / plain.sum(dtype=np.float32))
    for y in forms:
        assert (np.abs(y - interval.center) <= interval.radius).all()


@pytest.mark.parametrize("op", [ops.Softmax(1), ops.Sigmoid()], ids=repr)
@pytest.mark.parametrize("radius", [1e-3, 0.3, 2.0])
def test_composed_bounds_hold_float32_evaluations(op, radius):
    x = (floats((8, 10), "compose") * np.float32(6)).astype(np.float64)
    interval = op.bound(Interval(x, np.full_like(x, radius)), engine=FAST)
    for k in range(50):
        moved = (x + radius * np.sign(floats(x.shape, ("corner", k)))).astype(np.float32)
        moved = np.clip(moved, np.nextafter(x - radius, np.inf), np.nextafter(x + radius, -np.inf)).astype(
            np.float32
        )
        keep = np.abs(moved.astype(np.float64) - x) <= radius
        y = op.run(np.where(keep, moved, x.astype(np.float32)).astype(np.float32), engine=FAST)
        sure = keep | (x.astype(np.float32) == x)
        rows = sure.all(1)
        assert (np.abs(y - interval.center) <= interval.radius)[rows].all()


def test_signs_of_zero_and_nan_are_left_open_where_frameworks_vary():
    zeros = np.array([0.0, -0.0, np.nan, 1.0], np.float32)
    other = np.array([-0.0, -0.0, 0.0, 1.0], np.float32)
    assert ops.Relu().agrees(other, np.array([0.0, 0.0, np.nan, 1.0], np.float32)).all()
    assert list(ops.Mul().agrees(other, zeros)) == [False, True, False, True]
    assert not ops.Relu().agrees(np.float32([1e-45]), np.float32([0])).any()
