"""Which inputs an element of a sum, a maximum or a copy is made of: values, their places, their factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refnet import ops
from refnet.core.op import F32, Interval, Op
from refnet.kernels.engine import Fast
from refnet.ops.layout import Move

Index = tuple[int, ...]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Terms:
    """What an element is made of: K values of one input, in plain order, each times a value of another.

    how: "fma" (a chain of fused multiply-adds from +0, the bias added last), "add" (additions), "multiply",
    "max" or "copy". values: (K,) and where they stand, (K, rank), in the input called `role`. factors: (K,)
    or None, with their place and role. bias: the value and its place. absent: places in the padding, which
    are no terms. divisor: what the sum is divided by.
    """

    how: str
    role: str
    values: F32
    places: Places
    factor_role: str = ""
    factors: F32 | None = None
    factor_places: Places | None = None
    bias: np.float32 | None = None
    bias_place: int = 0
    absent: tuple[Index, ...] = ()
    divisor: int = 1

    @property
    def products(self) -> npt.NDArray[np.float64]:
        """(K,) the exact products: two float32 make no more than 48 bits."""
        wide = self.values.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity times 0 is NaN
            return wide if self.factors is None else wide * self.factors


def terms_of(op: Op, inputs: Sequence[F32], at: Index) -> Terms | None:
    """The terms of one element; None for an op that has no such breakdown."""
    if isinstance(op, Move | ops.UpsampleNearest):
        return _copied(op, inputs, at)
    make = TERMS.get(type(op))
    return None if make is None else make(op, inputs, at)


def _copied(op: Op, inputs: Sequence[F32], at: Index) -> Terms:
    """The one element that is copied here: found by moving element numbers instead of values."""
    numbers = [
        Interval(np.arange(a.size, dtype=np.float64).reshape(a.shape), np.full(a.shape, float(i)))
        for i, a in enumerate(inputs)
    ]
    moved = op.bound(*numbers, engine=Fast())
    which, number = int(moved.radius[at]), int(moved.center[at])
    place = np.array([np.unravel_index(number, inputs[which].shape)], np.int64)
    role = op.roles[min(which, len(op.roles) - 1)] + (f" {which}" if len(inputs) > 1 else "")
    return Terms("copy", role, inputs[which].reshape(-1)[number : number + 1], place)


def _window(
    shape: Index, at: Index, kernel: Index, stride: Index, pad: Index, dilation: Index = (1, 1)
) -> tuple[Places, tuple[Index, ...]]:
    """The window's places (row, column, kernel row, kernel column) in the image, and those outside."""
    inside, outside = [], []
    for p in range(kernel[0]):
        for q in range(kernel[1]):
            i = at[2] * stride[0] - pad[0] + p * dilation[0]
            j = at[3] * stride[1] - pad[1] + q * dilation[1]
            if 0 <= i < shape[2] and 0 <= j < shape[3]:
                inside.append((i, j, p, q))
            else:
                outside.append((i, j))
    return np.array(inside, np.int64).reshape(-1, 4), tuple(outside)


def _conv(op: ops.Conv, inputs: Sequence[F32], at: Index) -> Terms:
    x, w = inputs[:2]
    places, absent = _window(x.shape, at, op.kernel, op.stride, op.pad, op.dilation)
    per = w.shape[1]
    base = at[1] // (op.channels // op.groups) * per
    channel = np.repeat(np.arange(per), len(places))
    i, j, p, q = np.tile(places, (per, 1)).T
    image = np.full_like(i, at[0])
    data = np.stack([image, base + channel, i, j], 1)
    weight = np.stack([np.full_like(i, at[1]), channel, p, q], 1)
    bias = inputs[2][at[1]] if op.bias else None
    return Terms(
        "fma", "data", x[tuple(data.T)], data, "weight", w[tuple(weight.T)], weight, bias, at[1], absent
    )


def _dense(op: ops.Dense, inputs: Sequence[F32], at: Index) -> Terms:
    x, w = inputs[:2]
    k = np.arange(w.shape[1])
    inner = np.stack(np.unravel_index(k, x.shape[1:]), 1)
    data = np.concatenate([np.full((k.size, 1), at[0]), inner], 1)
    weight = np.stack([np.full_like(k, at[1]), k], 1)
    bias = inputs[2][at[1]] if op.bias else None
    return Terms("fma", "data", x[at[0]].reshape(-1), data, "weight", w[at[1]], weight, bias, at[1])


def _pooled(op: ops.MaxPool | ops.AvgPool, inputs: Sequence[F32], at: Index) -> Terms:
    (x,) = inputs
    places, absent = _window(x.shape, at, op.kernel, op.stride, op.pad, op.dilation)
    data = np.concatenate([np.full((len(places), 1), at[0]), np.full((len(places), 1), at[1])], 1)
    data = np.concatenate([data, places[:, :2]], 1)
    values = x[tuple(data.T)]
    if isinstance(op, ops.MaxPool):
        return Terms("max", "data", values, data, absent=absent)
    divisor = len(places)
    if op.count_include_pad:
        rows, columns = op.counts(x.shape)
        divisor = int(rows[at[2]] * columns[at[3]])
    return Terms("add", "data", values, data, absent=absent, divisor=divisor)


def _global(op: ops.GlobalAvgPool, inputs: Sequence[F32], at: Index) -> Terms:
    (x,) = inputs
    return _pooled(ops.AvgPool((x.shape[2], x.shape[3])), inputs, (*at[:2], 0, 0))


def _relu(op: ops.Relu, inputs: Sequence[F32], at: Index) -> Terms:
    values = np.array([0, inputs[0][at]], np.float32)
    return Terms("max", "data (and 0)", values, np.array([at, at], np.int64))


def _add(op: ops.Add, inputs: Sequence[F32], at: Index) -> Terms:
    shapes = np.broadcast_shapes(*(x.shape for x in inputs))
    values = np.array([np.broadcast_to(x, shapes)[at] for x in inputs], np.float32)
    rank = len(at)
    places = [
        tuple(0 if n == 1 else i for i, n in zip(at, (1,) * (rank - x.ndim) + x.shape, strict=True))
        for x in inputs
    ]
    return Terms("add", "data, one of each input", values, np.array(places, np.int64))


def _mul(op: ops.Mul, inputs: Sequence[F32], at: Index) -> Terms:
    places = [
        tuple(0 if n == 1 else i for i, n in zip(at[len(at) - x.ndim :], x.shape, strict=True))
        for x in inputs
    ]
    a, b = (x[place].reshape(1) for x, place in zip(inputs, places, strict=True))
    return Terms("multiply", "data 0", a, np.array(places[:1]), "data 1", b, np.array(places[1:]))


def _sub(op: ops.Sub, inputs: Sequence[F32], at: Index) -> Terms:
    a, b = (np.broadcast_to(x, np.broadcast_shapes(*(x.shape for x in inputs)))[at] for x in inputs)
    a, b = (b, a) if op.swapped else (a, b)
    return Terms(
        "add", "data, the second negated", np.array([a, -b], np.float32), np.array([at, at], np.int64)
    )


def _matmul(op: ops.MatMul, inputs: Sequence[F32], at: Index) -> Terms | None:
    """Of a product alone: what is scaled or added to has lines."""
    if (op.alpha, op.addend) != (1.0, False):
        return None
    a, b = inputs
    i = int(np.ravel_multi_index(at, op.type(*(ops.TensorType(x.shape) for x in inputs)).shape)) if at else 0
    left, right = op.factors(*(np.arange(x.size).reshape(x.shape) for x in inputs))(i)
    data, weight = (np.stack(np.unravel_index(k, x.shape), 1) for k, x in ((left, a), (right, b)))
    return Terms("fma", "data", a[tuple(data.T)], data, "weight", b[tuple(weight.T)], weight)


def _reduced(op: ops.ReduceSum | ops.ReduceMean, inputs: Sequence[F32], at: Index) -> Terms:
    (x,) = inputs
    i = int(np.ravel_multi_index(at, op.type(ops.TensorType(x.shape)).shape))
    places = np.stack(np.unravel_index(op.terms_of(np.arange(x.size).reshape(x.shape))[:, i], x.shape), 1)
    divisor = len(places) if isinstance(op, ops.ReduceMean) else 1
    return Terms("add", "data", x[tuple(places.T)], places, divisor=divisor)


def _parts(radix: int, x: F32, at: Index) -> Places:
    """The places of the parts of one element, (radix, rank)."""
    c = x.shape[1] // radix
    return np.array([(at[0], r * c + at[1], *at[2 : x.ndim]) for r in range(radix)], np.int64)


def _radix_sum(op: ops.RadixSum, inputs: Sequence[F32], at: Index) -> Terms:
    data = _parts(op.radix, inputs[0], at)
    return Terms("add", "data", inputs[0][tuple(data.T)], data)


def _weighted_sum(op: ops.WeightedSum, inputs: Sequence[F32], at: Index) -> Terms:
    attention, x = inputs
    data, weight = _parts(op.radix, x, at), _parts(op.radix, attention, at)
    return Terms("fma", "data", x[tuple(data.T)], data, "attention", attention[tuple(weight.T)], weight)


TERMS: dict[type[Op], Callable[..., Terms | None]] = {
    ops.Conv: _conv,
    ops.Dense: _dense,
    ops.MaxPool: _pooled,
    ops.AvgPool: _pooled,
    ops.GlobalAvgPool: _global,
    ops.Relu: _relu,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.Sub: _sub,
    ops.MatMul: _matmul,
    ops.ReduceSum: _reduced,
    ops.ReduceMean: _reduced,
    ops.RadixSum: _radix_sum,
    ops.WeightedSum: _weighted_sum,
}
