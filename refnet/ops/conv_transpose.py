"""Transposed convolution: a convolution with another stride for each class of outputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.element import Index, Terms
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Op, TensorType
from refnet.ops.conv_nd import ConvNd, as_conv, products
from refnet.ops.pieces import Array, InPieces, Piece, Sizes


@dataclass(frozen=True, repr=False)
class ConvTranspose(InPieces):
    """y[n,o,i] = bias[o] + sum over c, a, p with a*stride + p*dilation = i + pad of
                  weight[g*C + c, o - g*M, p] * x[n, g*C + c, a]

    with g = o // M, M = channels / groups outputs and C inputs per group; i, a and p have as many axes as the
    kernel. Each x is spread over the outputs that a convolution of the same attributes would read there.

    Shapes: x (n, groups*C, d1, ...), weight (groups*C, M, k1, ...), bias (channels,), y (n, channels,
    o1, ...) with o = (d - 1)*stride + dilation*(k - 1) + 1 - pad - pad_end + output_padding. Nothing where a
    field is () means 1 along each axis, for pads 0; pad_end None: as pad. output_padding adds outputs
    behind: they are sums like all others, not zeros. (Trap: it is no padding of the input.)

    It equals the convolution of stride 1 with the kernel reversed along each axis, over x with stride - 1
    zeros between its elements. Those zeros are no terms here: an infinite weight does not meet them.

    Plain: acc = +0; acc = fma(weight, x, acc) for c, then a, axis by axis (p falls as a rises); then one
    addition of the bias. That is the plain order of the convolution just named.

    How: with f = (i + pad) mod stride, the outputs of one f along each axis use every stride'-th place of the
    kernel only, stride' = stride / gcd(stride, dilation), and are an ordinary convolution with stride 1 and
    dilation dilation / gcd. So all of Conv's kernels, its golden and its bound serve.

    Bound, any order, with or without FMA: Conv's, for the terms that the element has. Frameworks that add
    zeros (a matrix product, then col2im; a zero-dilated input) add them without rounding.

    Source: ONNX ConvTranspose, torch.nn.ConvTranspose1d, 2d, 3d, MXNet Deconvolution; V. Dumoulin, F. Visin,
    "A guide to convolution arithmetic for deep learning", chapter 4.
    """

    channels: int
    kernel: Sizes
    stride: Sizes = ()
    pad: Sizes = ()
    dilation: Sizes = ()
    groups: int = 1
    bias: bool = False
    pad_end: Sizes | None = None
    output_padding: Sizes = ()

    @property
    def window(self) -> tuple[Sizes, Sizes, Sizes, Sizes, Sizes]:
        """Stride, padding before and behind, dilation, output padding: a number for each axis."""
        ones, zeros = (1,) * len(self.kernel), (0,) * len(self.kernel)
        pad = self.pad or zeros
        end = pad if self.pad_end is None else self.pad_end
        return self.stride or ones, pad, end, self.dilation or ones, self.output_padding or zeros

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        self._count(data, 1)
        (x,) = data
        self._rank(x, 2 + len(self.kernel))
        self._expect(self.channels >= 1, "channels >= 1")
        self._expect(
            self.groups > 0 and x.shape[1] % self.groups == 0 and self.channels % self.groups == 0,
            f"groups must divide {x.shape[1]} input and {self.channels} output channels",
        )
        weight = TensorType((x.shape[1], self.channels // self.groups, *self.kernel))
        return (weight, TensorType((self.channels,))) if self.bias else (weight,)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 3 if self.bias else 2)
        x, rank = inputs[0], len(self.kernel)
        self._expect(rank >= 1, "a kernel of one axis or more")
        self._expect({len(values) for values in self.window} == {rank}, "as many numbers as axes")
        stride, pad, end, dilation, more = self.window
        self._expect(min(*self.kernel, *stride, *dilation) >= 1, "kernel, stride, dilation >= 1")
        self._expect(min(*pad, *end, *more) >= 0, "pad, pad_end and output_padding >= 0")
        self._expect(inputs[1:] == self.weight_types(x), f"weights are {list(inputs[1:])} for {x!r}")
        axes = zip(x.shape[2:], self.kernel, stride, pad, end, dilation, more, strict=True)
        sizes = [(n - 1) * s + d * (k - 1) + 1 - p - e + m for n, k, s, p, e, d, m in axes]
        self._expect(min(sizes) >= 1, f"the padding leaves nothing of {x!r}")
        return TensorType((x.shape[0], self.channels, *sizes))

    def by_output(self, w: Array) -> Array:
        inside, outputs = w.shape[0] // self.groups, w.shape[1]
        grouped = w.reshape(self.groups, inside, outputs, -1).swapaxes(1, 2)
        return grouped.reshape(self.groups * outputs, -1)

    def pieces(self, shape: Sizes) -> list[Piece]:
        stride, pad, _, dilation, _ = self.window
        made = self._made(shape)
        axes = [
            _classes(*axis) for axis in zip(shape[2:], made, self.kernel, stride, pad, dilation, strict=True)
        ]
        found = []
        for classes in itertools.product(*axes):
            conv = ConvNd(
                self.channels,
                tuple(len(c.taps) for c in classes),
                (),
                tuple(c.before for c in classes),
                tuple(c.dilation for c in classes),
                self.groups,
                self.bias,
                tuple(c.behind for c in classes),
            )
            op: Op = as_conv(conv) if len(classes) == 2 else conv
            whole = (slice(None), slice(None))
            cut, outputs = (*whole, *(c.cut for c in classes)), (*whole, *(c.outputs for c in classes))
            taps = np.ix_(*(c.taps for c in classes))
            found.append(Piece(op, _cutting(cut), _turning(taps, self.groups), _putting(outputs)))
        return found

    def _made(self, shape: Sizes) -> Sizes:
        """The sizes of the result."""
        kinds = (TensorType(shape), *self.weight_types(TensorType(shape)))
        return self.type(*kinds).shape[2:]

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        x, w = inputs[:2]
        stride, pad, _, dilation, _ = self.window
        axes = []
        for i, s, p, d, k, n in zip(at[2:], stride, pad, dilation, self.kernel, x.shape[2:], strict=True):
            pairs = [((i + p - t * d) // s, t) for t in range(k) if (i + p - t * d) % s == 0]
            axes.append([(a, t) for a, t in reversed(pairs) if 0 <= a < n])
        bias = inputs[2] if self.bias else None
        groups = (x.shape[1] // self.groups, self.channels // self.groups)
        return products(x, w, bias, at, groups, list(itertools.product(*axes)), (), True)

    def flops(self, *inputs: TensorType) -> Cost:
        """Each element of x meets each of its weights, also those whose output the padding cuts off."""
        size = self.type(*inputs).size
        return self._cost(inputs[0].size * TensorType(inputs[1].shape[1:]).size, size)

    def label(self, *inputs: TensorType) -> str:
        stride = "x".join(map(str, self.window[0]))
        return f"ConvTranspose {'x'.join(map(str, self.kernel))} /{stride}"


@dataclass(frozen=True)
class _Class:
    """The outputs along one axis that use the same places of the kernel, as an ordinary convolution.

    outputs: where they are. cut: the part of x that it reads, with `before` and `behind` places of padding.
    taps: the places of the kernel, falling.
    """

    outputs: slice
    cut: slice
    before: int
    behind: int
    taps: list[int]
    dilation: int


def _classes(length: int, made: int, kernel: int, stride: int, pad: int, dilation: int) -> list[_Class]:
    """Along one axis. Output i uses tap p if stride divides i + pad - p*dilation; that is then x's place.

    Of the outputs first, first + stride, ... output m reads x at m + reach - t * (dilation / common) for the
    tap p0 + t * (stride / common): with the taps reversed a convolution whose padding is what lies outside.
    """
    common = math.gcd(stride, dilation)
    found = []
    for first in range(min(stride, made)):
        starts = [
            p for p in range(min(stride // common, kernel)) if (first + pad - p * dilation) % stride == 0
        ]
        if not starts:
            continue  # no tap: sums without terms
        taps = list(range(starts[0], kernel, stride // common))[::-1]
        step, count = dilation // common, len(range(first, made, stride))
        reach = (first + pad - starts[0] * dilation) // stride
        low, high = (
            reach - (len(taps) - 1) * step,
            reach + count - 1,
        )  # the places that the first and last read
        begin, end = max(low, 0), min(high + 1, length)
        if begin < end:
            outputs, cut = slice(first, made, stride), slice(begin, end)
            found.append(_Class(outputs, cut, begin - low, high + 1 - end, taps, step))
    return found


def _cutting(cut: tuple[slice, ...]) -> Callable[[Array], Array]:
    return lambda x: x[cut]


def _putting(outputs: tuple[slice, ...]) -> Callable[[Array, Array], None]:
    def put(y: Array, part: Array) -> None:
        y[outputs] = part

    return put


def _turning(taps: tuple[Array, ...], groups: int) -> Callable[[Array], Array]:
    """(groups*C, M, k...) -> (groups*M, C, taps...): the weights of the ordinary convolution."""

    def take(w: Array) -> Array:
        whole: Any = slice(None)
        kept: Array = w[(whole, whole, *taps)]
        parts = kept.reshape(groups, -1, *kept.shape[1:]).swapaxes(1, 2)
        turned: Array = parts.reshape(-1, *parts.shape[2:])
        return turned

    return take
