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


ORACLES = {
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
