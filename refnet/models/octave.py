"""What the octave networks of MXNet's symbols share: two frequencies, and the octave convolution.

A value of an octave network has two parts, a high frequency (h) and a low one (l) at half the size:

    h ──┬── h2h ─────────────────┬─ add_n ── h      low channels  = int(ratio * channels)
        └── pool 2x2 ── h2l ──┐  │                  high channels = the rest
    l ──┬── l2h ── upsample ──┼──┘
        └── l2l ──────────────┴──── add_n ── l

Source: Y. Chen et al., Drop an Octave, arXiv 1904.05049, and the definitions in utils/symbol/ of
github.com/facebookresearch/OctConv; compared with symbol files that MXNet 1.9.1 wrote from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.models.build import MXNET, Builder, depth_first
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Op,
    Relu,
    Softmax,
    TensorType,
    UpsampleNearest,
)

Parts = tuple[str, str | None]
"""Names of a value's high and low part; low None: one frequency only."""

NUMBERED = ("pooling", "upsampling", "elementwisesum", "broadcast_mul", "concat")
"""Nodes that the official definitions leave to MXNet to name: the kind, then a running number."""

HALVE = AvgPool(kernel=(2, 2), stride=(2, 2))
NORM = BatchNorm(eps=1e-4)


@dataclass(frozen=True)
class Net:
    """The nodes so far; whether values have two parts; the next running number of each kind."""

    build: Builder
    octave: bool
    numbers: dict[str, int]

    def unnamed(self, kind: str) -> str:
        """The name that MXNet gives to the next unnamed node of a kind."""
        self.numbers[kind] += 1
        return f"{kind}{self.numbers[kind] - 1}"

    def halve(self, value: str) -> str:
        """2x2 average pool of stride 2."""
        return self.build(self.unnamed("pooling"), HALVE, value)

    def each(self, name: str, op: Op, parts: Parts) -> Parts:
        """One op on each part, named `-h` and `-l`."""
        high, low = parts
        if not self.octave:
            return self.build(name, op, high), None
        return self.build(f"{name}-h", op, high), self.build(f"{name}-l", op, low) if low else None

    def join(self, name: str, values: Sequence[str | None]) -> str | None:
        """The sum of the values that are there: add_n of two, the value itself of one, None of none."""
        there = [value for value in values if value is not None]
        if len(there) < 2:
            return there[0] if there else None
        return self.build(name, Add(len(there)), *there)

    def pair(self, op: Op, kind: str, name: str, a: Parts, b: Parts) -> Parts:
        """One op on two values, part by part; on one frequency the official nodes have no name."""
        if not self.octave:
            return self.build(name, op, a[0], b[0]), None
        if a[1] is None or b[1] is None:
            return self.build(self.unnamed(kind), op, a[0], b[0]), None
        return self.build(f"{name}-h", op, a[0], b[0]), self.build(f"{name}-l", op, a[1], b[1])


def octave_net(ratio: float, numbers: Mapping[str, int] | None) -> Net:
    """An empty network. Raises InputError if the ratio or a kind of number is out of range."""
    if not 0 <= ratio < 1:
        raise InputError(f"ratio must be at least 0 and below 1, got {ratio}")
    if unknown := set(numbers or {}) - set(NUMBERED):
        raise InputError(f"numbers has the unknown kinds {sorted(unknown)}, the kinds are {NUMBERED}")
    return Net(Builder(MXNET), ratio > 0, dict.fromkeys(NUMBERED, 0) | dict(numbers or {}))


def stem(net: Net, channels: int, kernel: int = 7, stride: int = 2, pool: bool = True) -> str:
    """The first convolution on `data`, batch norm, relu, and the 3x3 max pool of stride 2; its name."""
    build = net.build
    conv = build("conv1_conv", Conv(channels, (kernel,) * 2, (stride,) * 2, (kernel // 2,) * 2), "data")
    out = build("conv1_relu", Relu(), build("conv1_bn", NORM, conv))
    return build("pool1", MaxPool((3, 3), (2, 2), (1, 1)), out) if pool else out


def classified(net: Net, out: str, title: str, image: tuple[int, int, int], classes: int) -> Graph:
    """The graph with its end: batch norm, relu, global average, dense layer and softmax.

    Raises GraphError if the image, (c, h, w), does not fit.
    """
    build = net.build
    out = build("tail_relu", Relu(), build("tail_bn", NORM, out))
    out = build("flatten", Flatten(), build("global-pool", GlobalAvgPool(), out))
    build("softmax", Softmax(), build("classifier", Dense(classes), out))
    data = {"data": TensorType((1, *image))}
    graph = Graph(title, data, depth_first(build.nodes, "softmax"), {"prob": "softmax"})
    graph.types()
    return graph


def split(channels: int, ratio: float) -> tuple[int, int]:
    """Channels of the high and of the low part."""
    low = int(ratio * channels)
    return channels - low, low


def norm_relu_conv(net: Net, data: Parts, name: str, op: Conv, channels: tuple[int, int]) -> Parts:
    """Batch norm and relu of each part, then the convolution: `op` itself, or its octave form."""
    data = net.each(f"{name}_relu", Relu(), net.each(f"{name}_bn", NORM, data))
    if net.octave:
        return _octave_convolution(net, data, f"{name}_conv", op, channels)
    return net.build(f"{name}_conv", op, data[0]), None


def _octave_convolution(net: Net, data: Parts, name: str, op: Conv, channels: tuple[int, int]) -> Parts:
    """The octave form of `op`; stride 2 is a 2x2 average pool before, and no upsampling behind l2h."""
    high, low = data
    many, few = channels
    stride = op.stride[0]

    def conv(path: str, value: str, count: int) -> str:
        part = replace(op, channels=count, stride=(1, 1), groups=min(count, op.groups))
        return net.build(f"{name}-{path}", part, value)

    h2l = l2l = l2h = None
    high = net.halve(high) if stride == 2 else high
    h2h = conv("h2h", high, many)
    if few:
        h2l = conv("h2l", net.halve(high), few)
    if low is not None:
        if few:
            l2l = conv("l2l", net.halve(low) if stride == 2 else low, few)
        l2h = conv("l2h", low, many)
        if stride == 1:
            l2h = net.build(net.unnamed("upsampling"), UpsampleNearest(), l2h)
    return net.join(f"{name}-h", (h2h, l2h)) or h2h, net.join(f"{name}-l", (h2l, l2l))
