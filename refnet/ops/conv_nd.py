"""Convolutions over one, three or more dimensions, by those over two."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.element import Index, Terms
from refnet.core.engine import window_count
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Op, TensorType
from refnet.ops.conv import Conv
from refnet.ops.pieces import Array, InPieces, Piece, Sizes


@dataclass(frozen=True, repr=False)
class ConvNd(InPieces):
    """y[n,o,i] = bias[o] + sum over c, p of weight[o,c,p] * x[n, g*C + c, i*stride - pad + p*dilation]

    with i and p of as many axes as the kernel has; otherwise as Conv, which has two. Terms outside the image
    are left out. Nothing where a field is () means 1 along each axis, for pads 0; pad_end None: as pad.

    Shapes: x (n, groups*C, d1, d2, ...), weight (channels, C, k1, k2, ...), bias (channels,), y (n, channels,
    o1, o2, ...) with o = (d + pad + pad_end - dilation*(k - 1) - 1) // stride + 1.

    Plain: acc = +0; acc = fma(weight, x, acc) for c, then p, axis by axis; then one addition of the bias.

    One axis is two of which the first has length 1. Of three, those terms along the first axis that lie in
    the image are so many more channels of a Conv over the other two: the same terms in the same order.

    Bound and golden: Conv's, of the Conv that computes the element.

    Source: ONNX Conv, torch.nn.Conv1d and Conv3d.
    """

    channels: int
    kernel: Sizes
    stride: Sizes = ()
    pad: Sizes = ()
    dilation: Sizes = ()
    groups: int = 1
    bias: bool = False
    pad_end: Sizes | None = None

    @property
    def window(self) -> tuple[Sizes, Sizes, Sizes, Sizes]:
        """Stride, padding before and behind, dilation: a number for each axis."""
        ones, zeros = (1,) * len(self.kernel), (0,) * len(self.kernel)
        pad = self.pad or zeros
        return self.stride or ones, pad, pad if self.pad_end is None else self.pad_end, self.dilation or ones

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        self._count(data, 1)
        (x,) = data
        self._rank(x, 2 + len(self.kernel))
        self._expect(self.channels >= 1, "channels >= 1")
        self._expect(
            self.groups > 0 and x.shape[1] % self.groups == 0 and self.channels % self.groups == 0,
            f"groups must divide {x.shape[1]} input and {self.channels} output channels",
        )
        weight = TensorType((self.channels, x.shape[1] // self.groups, *self.kernel))
        return (weight, TensorType((self.channels,))) if self.bias else (weight,)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 3 if self.bias else 2)
        x, rank = inputs[0], len(self.kernel)
        self._expect(rank >= 1, "a kernel of one axis or more")
        self._expect({len(values) for values in self.window} == {rank}, "as many numbers as axes")
        stride, pad, end, dilation = self.window
        self._expect(min(*self.kernel, *stride, *dilation) >= 1, "kernel, stride, dilation >= 1")
        self._expect(min(*pad, *end) >= 0, "pad and pad_end >= 0")
        self._expect(inputs[1:] == self.weight_types(x), f"weights are {list(inputs[1:])} for {x!r}")
        windows = zip(x.shape[2:], self.kernel, stride, pad, end, dilation, strict=True)
        sizes = [window_count(size, k, s, p + e, d) for size, k, s, p, e, d in windows]
        self._expect(min(sizes) >= 1, f"kernel does not fit into {x!r}")
        return TensorType((x.shape[0], self.channels, *sizes))

    def pieces(self, shape: Sizes) -> list[Piece]:
        stride, pad, end, dilation = self.window
        if len(self.kernel) == 1:
            line = ConvNd(
                self.channels,
                (1, *self.kernel),
                (1, *stride),
                (0, *pad),
                (1, *dilation),
                self.groups,
                self.bias,
                (0, *end),
            )
            whole = as_conv(line)
            return [Piece(whole, _flat, _flat, lambda y, part: np.copyto(y, part[:, :, 0]))]
        rest = ConvNd(
            self.channels,
            self.kernel[1:],
            stride[1:],
            pad[1:],
            dilation[1:],
            self.groups,
            self.bias,
            end[1:],
        )
        op: Op = as_conv(rest) if len(rest.kernel) == 2 else rest
        count = window_count(shape[2], self.kernel[0], stride[0], pad[0] + end[0], dilation[0])
        first = np.arange(count) * stride[0] - pad[0]
        taps = [
            tuple(p for p in range(self.kernel[0]) if 0 <= at + p * dilation[0] < shape[2])
            for at in first.tolist()
        ]
        found = []
        for inside in dict.fromkeys(taps):
            if inside:
                outputs = np.array([i for i, those in enumerate(taps) if those == inside])
                places = first[outputs][:, None] + np.array(inside) * dilation[0]
                found.append(Piece(op, _gathering(places), _tapping(inside), _putting(outputs)))
        return found

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        x, w = inputs[:2]
        stride, pad, _, dilation = self.window
        window = zip(at[2:], stride, pad, dilation, self.kernel, strict=True)
        axes = [[(i * s - p + t * d, t) for t in range(k)] for i, s, p, d, k in window]
        taps = list(itertools.product(*axes))
        inside = [all(0 <= a < n for (a, _), n in zip(tap, x.shape[2:], strict=True)) for tap in taps]
        absent = tuple(tuple(a for a, _ in tap) for tap, there in zip(taps, inside, strict=True) if not there)
        kept = [tap for tap, there in zip(taps, inside, strict=True) if there]
        groups = (w.shape[1], self.channels // self.groups)
        return products(x, w, inputs[2] if self.bias else None, at, groups, kept, absent)

    def flops(self, *inputs: TensorType) -> Cost:
        size = self.type(*inputs).size
        return self._cost(size * TensorType(inputs[1].shape[1:]).size, size)

    def label(self, *inputs: TensorType) -> str:
        return f"Conv {'x'.join(map(str, self.kernel))}"


def as_conv(op: ConvNd) -> Conv:
    """The Conv that a ConvNd of two axes is."""
    stride, pad, end, dilation = op.window
    two: Any = (op.kernel, stride, pad, dilation, op.groups, op.bias, None if end == pad else end)
    return Conv(op.channels, *two)


def _flat(x: Array) -> Array:
    return x[:, :, None]


def _gathering(places: Array) -> Callable[[Array], Array]:
    """(n, c, d, ...) -> (n * outputs, c * taps, ...): the places (outputs, taps) along d."""

    def take(x: Array) -> Array:
        found = np.moveaxis(x[:, :, places], 2, 1)  # (n, outputs, c, taps, ...)
        n, outputs, c, taps = found.shape[:4]
        return found.reshape(n * outputs, c * taps, *found.shape[4:])

    return take


def _tapping(taps: Sizes) -> Callable[[Array], Array]:
    """(o, c, k, ...) -> (o, c * taps, ...)."""

    def take(w: Array) -> Array:
        found = w[:, :, list(taps)]
        return found.reshape(w.shape[0], -1, *w.shape[3:])

    return take


def _putting(outputs: Array) -> Callable[[Array, Array], None]:
    """Back into (n, o, d, ...)."""

    def put(y: Array, part: Array) -> None:
        y[:, :, outputs] = np.moveaxis(part.reshape(-1, outputs.size, *part.shape[1:]), 1, 2)

    return put


def products(
    x: F32,
    w: F32,
    bias: F32 | None,
    at: Index,
    groups: Sizes,
    taps: list[tuple[tuple[int, int], ...]],
    absent: tuple[Index, ...],
    transposed: bool = False,
) -> Terms:
    """The terms of one element: channel by channel, those taps, per axis (place in x, place in the kernel).

    groups: the channels of a group, of the data and of the result. transposed: the weights are (c, o, ...),
    else (o, c, ...).
    """
    channels, outputs = groups
    group, local = divmod(at[1], outputs)
    data, weight = [], []
    for c in range(channels):
        for tap in taps:
            data.append((at[0], group * channels + c, *(a for a, _ in tap)))
            first = (group * channels + c, local) if transposed else (at[1], c)
            weight.append((*first, *(t for _, t in tap)))
    places = np.array(data, np.int64).reshape(-1, x.ndim)
    factors = np.array(weight, np.int64).reshape(-1, w.ndim)
    values, factor = x[tuple(places.T)], w[tuple(factors.T)]
    one = None if bias is None else bias[at[1]]
    return Terms("fma", "data", values, places, "weight", factor, factors, one, at[1], absent)
