"""Exact values of chosen elements of an op, by integers, fractions and decimals: no refnet arithmetic.

    expected(op, at, *inputs) -> float32, one per flat index: the formula of the op's docstring, exactly,
    rounded once by tests/helpers/definition.py round_float32

Sums of products go through `dots`: float32 are integers times powers of two, their products have 48 bits,
and int64 adds thousands of them without a rounding once they are cut into halves and sorted by exponent.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import cache
from math import isqrt

import numpy as np

from refnet import ops
from tests.helpers.definition import round_float32

LOWEST = -344
"""No product of two float32 mantissas, as 24-bit integers, has a smaller exponent."""
DIGITS = 200
ENTRIES = 1 << 21
"""Products at a time."""


def dots(a: np.ndarray, b: np.ndarray) -> list[Fraction]:
    """The exact sums over the last axis of a * b; both float32 (m, k), finite, k < 2**20.

    A product p of 48 bits with exponent e is p << (e mod 16), 63 bits, in bucket e // 16. The halves of 32
    bits of each bucket are added apart, so that no sum reaches 2**53.
    """
    (ma, ea), (mb, eb) = (np.frexp(v.astype(np.float64)) for v in (a, b))
    p = (ma * 2.0**24).astype(np.int64) * (mb * 2.0**24).astype(np.int64)
    place = ea.astype(np.int64) + eb - 48 - LOWEST
    place[p == 0] = 0
    p <<= place % 16
    bucket = place // 16
    low, high = p & 0xFFFFFFFF, p >> 32
    totals = [0] * len(a)
    for k in np.unique(bucket):
        here = bucket == k
        lows, highs = np.where(here, low, 0).sum(1), np.where(here, high, 0).sum(1)
        for i, (x, y) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
            totals[i] += ((y << 32) + x) << (16 * int(k))
    return [Fraction(t, 1 << -LOWEST) for t in totals]


def _rounded(values: list[Fraction]) -> np.ndarray:
    return np.array([round_float32(v) for v in values], np.float32)


def _parts(at: np.ndarray, width: int) -> Iterator[np.ndarray]:
    step = max(1, ENTRIES // width)
    for begin in range(0, len(at), step):
        yield at[begin : begin + step]


def conv(
    op: ops.Conv,
    at: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None = None,
    addend: np.ndarray | None = None,
):
    """Elements of a convolution, to which those of another value are added."""
    channels, (kh, kw) = w.shape[1], op.kernel
    padded = np.pad(x, ((0, 0), (0, 0), *zip(op.pad, op.ends, strict=True)))
    oh, ow = op.type(*(ops.TensorType(v.shape) for v in (x, w, *([] if bias is None else [bias])))).shape[2:]
    result = []
    for part in _parts(at, channels * kh * kw):
        n, o, i, j = np.unravel_index(part, (len(x), op.channels, oh, ow))
        c = (o // (op.channels // op.groups) * channels)[:, None] + np.arange(channels)
        rows = (i * op.stride[0])[:, None] + np.arange(kh) * op.dilation[0]
        columns = (j * op.stride[1])[:, None] + np.arange(kw) * op.dilation[1]
        of = padded[
            n[:, None, None, None], c[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]
        totals = dots(of.reshape(len(part), -1), w[o].reshape(len(part), -1))
        totals = totals if bias is None else _with(totals, bias[o])
        result += totals if addend is None else _with(totals, addend.reshape(-1)[part])
    return _rounded(result)


def conv_add(
    op: ops.ConvAdd,
    at: np.ndarray,
    x: np.ndarray,
    addend: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None = None,
):
    """Elements of a convolution that another value joins."""
    return conv(op.conv, at, x, w, bias, addend)


def _with(totals: list[Fraction], more: np.ndarray) -> list[Fraction]:
    return [t + Fraction(float(b)) for t, b in zip(totals, more, strict=True)]


def dense(op: ops.Dense, at: np.ndarray, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None):
    """Elements of a fully connected layer."""
    rows = x.reshape(len(x), -1)
    result = []
    for part in _parts(at, rows.shape[1]):
        n, o = np.unravel_index(part, (len(x), op.units))
        totals = dots(rows[n], w[o])
        result += totals if bias is None else _with(totals, bias[o])
    return _rounded(result)


def average(op: ops.AvgPool, at: np.ndarray, x: np.ndarray):
    """Elements of an average pooling, one window at a time."""
    oh, ow = op.type(ops.TensorType(x.shape)).shape[2:]
    result = []
    for n, c, i, j in zip(*np.unravel_index(at, (*x.shape[:2], oh, ow)), strict=True):
        axes = zip((i, j), op.stride, op.pad, op.kernel, op.dilation, op.ends, x.shape[2:], strict=True)
        places = [[int(o) * s - p + t * d for t in range(k) if int(o) * s - p + t * d < size + e]
                  for o, s, p, k, d, e, size in axes]  # fmt: skip
        rows, columns = (
            [t for t in along if 0 <= t < n] for along, n in zip(places, x.shape[2:], strict=True)
        )
        window = x[n, c][np.ix_(rows, columns)]
        total = sum((Fraction(float(v)) for v in window.ravel()), Fraction(0))
        result.append(total / (len(places[0]) * len(places[1]) if op.count_include_pad else window.size))
    return _rounded(result)


def global_average(op: ops.GlobalAvgPool, at: np.ndarray, x: np.ndarray):
    """Elements of a global average."""
    rows = x.reshape(-1, x.shape[2] * x.shape[3])
    result = []
    for part in _parts(at, rows.shape[1]):
        result += [t / rows.shape[1] for t in dots(rows[part], np.ones_like(rows[part]))]
    return _rounded(result)


def batch_norm(op: ops.BatchNorm, at: np.ndarray, x, g, beta, mean, var):
    """Elements of a batch norm: the root between two rationals, 200 bits apart from 1."""

    @cache
    def channel(c: int) -> tuple[Fraction, ...]:
        square = Fraction(float(var[c])) + Fraction(op.eps)
        root = isqrt(square.numerator * square.denominator << 400)
        exact = root * root == square.numerator * square.denominator << 400
        unit = square.denominator << 200
        scale = Fraction(1) if op.fix_gamma else Fraction(float(g[c]))
        first, last = Fraction(root, unit), Fraction(root if exact else root + 1, unit)
        return scale / first, scale / last, Fraction(float(mean[c])), Fraction(float(beta[c]))

    result = []
    for k, value in zip(at, x.reshape(-1)[at], strict=True):
        first, last, center, shift = channel(int(np.unravel_index(k, x.shape)[1]))
        moved = Fraction(float(value)) - center
        a, b = round_float32(moved * first + shift), round_float32(moved * last + shift)
        assert a == b, "200 bits of the root do not decide"
        result.append(a)
    return np.array(result, np.float32)


def _enclosed(value: Decimal) -> np.float32:
    """The float32 of a number whose decimal is off by less than 10**(8 - DIGITS) of it."""
    exactly = Fraction(value)
    a, b = (round_float32(exactly * (1 + Fraction(s, 10 ** (DIGITS - 8)))) for s in (-1, 1))
    assert a == b, f"{DIGITS} digits do not decide"
    return a


def _sigmoid(x: np.float32) -> np.float32:
    with localcontext(Context(DIGITS)):
        return _enclosed(1 / (1 + (-Decimal(float(x))).exp()))


def _softmax(row: np.ndarray, wanted: np.ndarray) -> list[np.float32]:
    with localcontext(Context(DIGITS)):
        largest = Decimal(float(row.max()))
        powers = [(Decimal(float(v)) - largest).exp() for v in row]
        total = sum(powers)
        return [_enclosed(powers[i] / total) for i in wanted]


def sigmoid(op: ops.Sigmoid, at: np.ndarray, x: np.ndarray):
    """Elements of a sigmoid."""
    return np.array([_sigmoid(v) for v in x.reshape(-1)[at]], np.float32)


def softmax(op: ops.Softmax, at: np.ndarray, x: np.ndarray):
    """Elements of a softmax over the last axis of (n, k), row by row; trailing axes count as the last."""
    x = x.reshape(*x.shape[: op.axis], -1) if op.trailing else x
    assert x.ndim == 2
    result = np.empty(len(at), np.float32)
    for n in np.unique(at // x.shape[1]):
        here = np.flatnonzero(at // x.shape[1] == n)
        result[here] = _softmax(x[n], at[here] % x.shape[1])
    return result


def radix_softmax(op: ops.RadixSoftmax, at: np.ndarray, x: np.ndarray):
    """Elements of a radix softmax: output r*K*m + k*m + i of the inputs k*R*m + s*m + i, all s."""
    m = x.shape[1] // (op.radix * op.cardinality)
    result = []
    for n, position in zip(*np.unravel_index(at, x.shape[:2]), strict=True):
        r, k, i = position // (op.cardinality * m), position // m % op.cardinality, position % m
        parts = x[n, (k * op.radix + np.arange(op.radix)) * m + i, 0, 0]
        result += [_sigmoid(parts[0])] if op.radix == 1 else _softmax(parts, np.array([r]))
    return np.array(result, np.float32)


def add(op: ops.Add, at: np.ndarray, *inputs: np.ndarray):
    """Elements of a sum of values."""
    terms = np.stack([x.reshape(-1)[at] for x in np.broadcast_arrays(*inputs)], 1)
    return _rounded(dots(terms, np.ones_like(terms)))


def radix_sum(op: ops.RadixSum, at: np.ndarray, x: np.ndarray):
    """Elements of a radix sum."""
    return add(ops.Add(op.radix), at, *np.split(x, op.radix, 1))


def weighted_sum(op: ops.WeightedSum, at: np.ndarray, attention: np.ndarray, x: np.ndarray):
    """Elements of a split attention's weighted sum."""
    channels = x.shape[1] // op.radix
    n, c, i, j = np.unravel_index(at, (len(x), channels, *x.shape[2:]))
    c = c[:, None] + np.arange(op.radix) * channels
    return _rounded(dots(attention[n[:, None], c], x[n[:, None], c, i[:, None], j[:, None]]))


def matmul(op: ops.MatMul, at: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None):
    """Elements of a matrix product."""
    a, b = a.T if op.transpose_a else a, b.T if op.transpose_b else b
    shape = np.matmul(np.zeros_like(a), np.zeros_like(b)).shape
    a, b = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    full = (*lead, a.shape[-2], b.shape[-1])
    a, b = np.broadcast_to(a, (*lead, *a.shape[-2:])), np.broadcast_to(b, (*lead, *b.shape[-2:]))
    result = []
    for part in _parts(at, a.shape[-1]):
        *where, i, j = np.unravel_index(part, full)
        totals = [t * Fraction(op.alpha) for t in dots(a[(*where, i)], np.swapaxes(b, -1, -2)[(*where, j)])]
        if c is not None:
            more = np.broadcast_to(c, shape).reshape(-1)[part]
            totals = [t + Fraction(op.beta) * Fraction(float(v)) for t, v in zip(totals, more, strict=True)]
        result += totals
    return _rounded(result)


def _terms(op: ops.ReduceSum | ops.ReduceMean, at: np.ndarray, x: np.ndarray) -> list[Fraction]:
    """The sums over the axes."""
    kept = [i for i in range(x.ndim) if i not in op.axes]
    rows = x.transpose(*kept, *op.axes).reshape(int(np.prod([x.shape[i] for i in kept])), -1)
    return [t for part in _parts(at, rows.shape[1]) for t in dots(rows[part], np.ones_like(rows[part]))]


def reduce_sum(op: ops.ReduceSum, at: np.ndarray, x: np.ndarray):
    """Elements of a sum over axes."""
    return _rounded(_terms(op, at, x))


def reduce_mean(op: ops.ReduceMean, at: np.ndarray, x: np.ndarray):
    """Elements of a mean over axes."""
    count = int(np.prod([x.shape[i] for i in op.axes]))
    return _rounded([t / count for t in _terms(op, at, x)])


def conv_nd(
    op: ops.ConvNd, at: np.ndarray, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """Elements of a convolution over any number of axes, the padding as zeros."""
    stride, pad, end, dilation = op.window
    padded = np.pad(x, ((0, 0), (0, 0), *zip(pad, end, strict=True)))
    steps = [np.arange(k) * d for k, d in zip(op.kernel, dilation, strict=True)]
    return _gathered(op, at, x, w, bias, padded, stride, steps, w)


def conv_transpose(
    op: ops.ConvTranspose, at: np.ndarray, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """Elements of a transposed convolution: over x with zeros between its elements, the kernel backwards."""
    stride, pad, _, dilation, more = op.window
    margin = [d * (k - 1) for k, d in zip(op.kernel, dilation, strict=True)]
    sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    room = [2 * m + n + e for m, n, e in zip(margin, sizes, more, strict=True)]
    spread = np.zeros((*x.shape[:2], *room), np.float32)
    axes = zip(margin, sizes, stride, strict=True)
    spread[(slice(None), slice(None), *(slice(m, m + n, s) for m, n, s in axes))] = x
    first = zip(margin, pad, op.kernel, dilation, strict=True)
    steps = [m + p - np.arange(k) * d for m, p, k, d in first]
    grouped = w.reshape(op.groups, -1, *w.shape[1:]).swapaxes(1, 2)
    turned = grouped.reshape(-1, *grouped.shape[2:])
    return _gathered(op, at, x, w, bias, spread, (1,) * len(stride), steps, turned)


def _gathered(op, at, x, w, bias, whole, stride, steps, weights) -> np.ndarray:
    """Elements whose terms stand in `whole` at output * stride + steps, times weights (o, c, k...)."""
    kinds = [ops.TensorType(v.shape) for v in (x, w, *([] if bias is None else [bias]))]
    made = op.type(*kinds).shape
    channels, rank = weights.shape[1], len(steps)
    result = []
    for part in _parts(at, int(np.prod(weights.shape[1:]))):
        n, o, *place = np.unravel_index(part, made)
        c = (o // (op.channels // op.groups) * channels)[:, None] + np.arange(channels)
        index = [n.reshape(-1, *(1,) * (rank + 1)), c.reshape(-1, channels, *(1,) * rank)]
        for k, (i, s, step) in enumerate(zip(place, stride, steps, strict=True)):
            along = (i * s)[:, None] + step
            index.append(along.reshape(len(part), 1, *(-1 if a == k else 1 for a in range(rank))))
        totals = dots(whole[tuple(index)].reshape(len(part), -1), weights[o].reshape(len(part), -1))
        result += totals if bias is None else _with(totals, bias[o])
    return _rounded(result)


def average_nd(op: ops.AvgPoolNd, at: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Elements of an average pooling over any number of axes, one window at a time."""
    stride, pad, end, dilation = op.window
    result = []
    for k in at:
        n, c, *place = np.unravel_index(k, op.type(ops.TensorType(x.shape)).shape)
        inside, counted = [], 1
        for i, s, p, size, d, e, h in zip(
            place, stride, pad, op.kernel, dilation, end, x.shape[2:], strict=True
        ):
            along = [int(i) * s - p + t * d for t in range(size)]
            inside.append([a for a in along if 0 <= a < h])
            counted *= sum(a < h + e for a in along)
        values = x[n, c][np.ix_(*inside)].ravel()
        total = sum((Fraction(float(v)) for v in values), Fraction(0))
        result.append(total / (counted if op.count_include_pad else values.size))
    return _rounded(result)


def resize(op: ops.ResizeLinear | ops.ResizeCubic, at: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Elements of a linear or cubic resize: one row of each axis' matrix of weights, and their products."""
    made = op.type(ops.TensorType(x.shape)).shape
    rows = [[_row(op, k, i, x.shape[axis]) for i in range(made[axis])] for k, axis in enumerate(op.axes)]
    result = []
    for one in at:
        place = [int(i) for i in np.unravel_index(one, made)]
        parts = {tuple(place): Fraction(1)}
        outside = False
        for along, axis in zip(rows, op.axes, strict=True):
            row = along[place[axis]]
            outside |= row is None
            parts = {
                (*at[:axis], j, *at[axis + 1 :]): w * v
                for at, w in parts.items()
                for j, v in (row or {0: Fraction(1)}).items()
            }
        total = sum((w * Fraction(float(x[at])) for at, w in parts.items()), Fraction(0))
        result.append(Fraction(float(np.float32(op.extrapolation))) if outside else total)
    return _rounded(result)


def _row(op: ops.ResizeLinear | ops.ResizeCubic, k: int, i: int, h: int) -> dict[int, Fraction] | None:
    """The weights of an output along an axis by the elements of x, which add up to 1; None: outside."""
    scale, size = op.scales[k], op.sizes[k]
    step = 1 / (Fraction(*scale) if isinstance(scale, tuple) else Fraction(scale))
    middle = Fraction(2 * i + 1, 2) * step - Fraction(1, 2)
    ends = max(size - 1, 1)
    if op.coordinates == "tf_crop_and_resize":
        a, b = (Fraction(v) * (h - 1) for v in op.roi[k])
        p = a + (b - a) * Fraction(i, ends) if size > 1 else (a + b) / 2
        if p < 0 or p > h - 1:
            return None
    else:
        p = {
            "half_pixel": middle,
            "pytorch_half_pixel": middle if size > 1 else Fraction(0),
            "half_pixel_symmetric": middle + Fraction(h, 2) - size * step / 2,
            "align_corners": Fraction(i * (h - 1), ends),
            "asymmetric": i * step,
        }[op.coordinates]
    row: dict[int, Fraction] = {}
    cubic = isinstance(op, ops.ResizeCubic)
    base, shrink = p.numerator // p.denominator, min(1 / step, Fraction(1)) if op.antialias else Fraction(1)
    reach = -(-2 // shrink)  # whole, at least 2 / shrink
    for j in range(base - reach, base + reach + 2):
        distance = abs(p - j) * shrink
        weight = _keys(distance, Fraction(op.coefficient)) if cubic else max(1 - distance, Fraction(0))
        if op.exclude_outside and not 0 <= j < h:
            continue
        near = min(max(j, 0), h - 1)
        row[near] = row.get(near, Fraction(0)) + weight
    whole = sum(row.values())
    return {j: w / whole for j, w in row.items()}


def _keys(d: Fraction, a: Fraction) -> Fraction:
    """Keys' cubic at a distance, as a sum of powers."""
    powers = (1, 0, -(a + 3), a + 2) if d <= 1 else (-4 * a, 8 * a, -5 * a, a) if d < 2 else (0,)
    return sum((c * d**n for n, c in enumerate(powers)), Fraction(0))


ORACLES = {
    ops.ConvNd: conv_nd,
    ops.ConvTranspose: conv_transpose,
    ops.AvgPoolNd: average_nd,
    ops.ResizeLinear: resize,
    ops.ResizeCubic: resize,
    ops.Conv: conv,
    ops.ConvAdd: conv_add,
    ops.Dense: dense,
    ops.AvgPool: average,
    ops.GlobalAvgPool: global_average,
    ops.BatchNorm: batch_norm,
    ops.Sigmoid: sigmoid,
    ops.Softmax: softmax,
    ops.RadixSoftmax: radix_softmax,
    ops.Add: add,
    ops.RadixSum: radix_sum,
    ops.WeightedSum: weighted_sum,
    ops.MatMul: matmul,
    ops.ReduceSum: reduce_sum,
    ops.ReduceMean: reduce_mean,
}


def expected(op: ops.Op, at: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    """The correctly rounded elements `at` (flat indices of the output, in order) of op(*inputs)."""
    return ORACLES[type(op)](op, at, *inputs)
