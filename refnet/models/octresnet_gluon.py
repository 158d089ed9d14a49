"""Octave ResNet-152 v1f and SE-ResNet-152 v1e of OctConv's second table, with the names of the Gluon symbols.

Both are ResNet v1, post-activation, whose blocks of stride 2 stride in their last 1x1 convolution. v1f begins
with one more bottleneck instead of the max pool; v1e has a batch norm without gamma before each block's first
and shortcut convolution, and a squeeze-and-excitation block. octgluon.py shows an octave convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.models.octave import split
from refnet.models.octgluon import NORM, POINT, THREE, Channels, Gluon, Parts, classified, convolve
from refnet.ops import Add, BatchNorm, Concat, Conv, GlobalAvgPool, MaxPool, Mul, Relu, Sigmoid

PLAIN_NORM = BatchNorm(eps=1e-5, fix_gamma=True)


def octave_resnet_v1(
    ratio: float = 0.125,
    *,
    se: bool = False,
    layers: Sequence[int] = (3, 8, 36, 3),
    image: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    name: str = "",
) -> Graph:
    """The graph, without weights, of an octave ResNet v1f, or with se of an octave SE-ResNet v1e.

    ratio: alpha, the share of low-frequency channels, 0 < ratio < 1; the last stage has one frequency.
    layers: blocks per stage, of four stages. image: (c, h, w) of the input `data`.
    Nodes in the order of the symbol file. Outputs `prob` (n, classes), a softmax that refnet adds, and
    `logits`. Raises InputError for an option out of range, GraphError for an image that does not fit.

    >>> graph = octave_resnet_v1(0.125, layers=(1, 1, 1, 1))
    >>> graph.types()["R152_L2_B0_conv3-h2l_fwd"]
    float32[1, 64, 14, 14]
    """
    if not 0 < ratio < 1:
        raise InputError(f"ratio must be above 0 and below 1, got {ratio}")
    if len(layers) != 4 or min(layers) < 1:
        raise InputError(f"layers must give 1 or more blocks for each of 4 stages, got {tuple(layers)}")
    net = Gluon("R152_")
    out = _stem(net, (32, 32, 64) if se else (8, 32, 64), 1 if se else 2)
    out = net.layer("pool0", MaxPool((3, 3), (2, 2), (1, 1)), out) if se else _second_stem(net, out)
    data: Parts = (out, None)
    for stage, count in enumerate(layers):
        alpha = 0.0 if stage == len(layers) - 1 else ratio
        middle, channels = split(64 << stage, alpha), split(256 << stage, alpha)
        for block in range(count):
            first = block == 0
            stride = 2 if first and stage else 1
            data = _block(net, f"L{stage + 1}_B{block}", data, (middle, channels), stride, first, se)
    assert data[0] is not None
    out = net.layer("pool1" if se else "pool0", GlobalAvgPool(), data[0])
    return classified(net, out, name or f"octave-{'se-' if se else ''}resnet-v1-{ratio:g}", image, classes)


def _stem(net: Gluon, channels: Sequence[int], strided: int) -> str:
    """Three 3x3 convolutions with batch norm and relu; the one of number `strided` has stride 2."""
    out = "data"
    for i, count in enumerate(channels, 1):
        stride = (2, 2) if i == strided else (1, 1)
        conv = net.layer(f"stem_conv{i}", Conv(count, (3, 3), stride, (1, 1)), out)
        out = net.layer(f"relu{i - 1}", Relu(), net.layer(f"stem_bn{i}", NORM, conv))
    return out


def _second_stem(net: Gluon, data: str) -> str:
    """A bottleneck of one frequency and stride 2, here in its 3x3 convolution."""

    def normed(i: int, op: Conv, value: str) -> str:
        return net.layer(f"stem2_bn{i}", NORM, net.layer(f"stem2_conv{i}", op, value))

    out = net.layer("stem2_relu0", Relu(), normed(1, Conv(32, (1, 1)), data))
    out = net.layer("stem2_relu1", Relu(), normed(2, Conv(32, (3, 3), (2, 2), (1, 1)), out))
    out = normed(3, Conv(64, (1, 1)), out)
    out = net.plain("stem2__plus0", Add(), out, normed(4, Conv(64, (1, 1), (2, 2)), data))
    return net.layer("stem2_relu2", Relu(), out)


def _block(
    net: Gluon,
    name: str,
    data: Parts,
    channels: tuple[Channels, Channels],
    stride: int,
    first: bool,
    se: bool,
) -> Parts:
    """Bottleneck: conv1 1x1, conv2 3x3, conv3 1x1, SE, plus the input (the first block's through conv4).

    channels: of the middle, and of the value.
    """
    middle, total = channels
    out = net.norm(f"{name}_bn1a", data, PLAIN_NORM) if se else data
    out = net.norm(f"{name}_bn1", convolve(net, f"{name}_conv1", out, POINT, middle))
    out = net.activation(f"{name}_activation0", out, Relu())
    out = net.norm(f"{name}_bn2", convolve(net, f"{name}_conv2", out, THREE, middle))
    out = net.activation(f"{name}_activation1", out, Relu())
    out = net.norm(f"{name}_bn3", convolve(net, f"{name}_conv3", out, POINT, total, stride))
    if se:
        out = _squeeze_excite(net, f"{name}_se", out, total)
    if first:
        short = net.norm(f"{name}_bn4a", data, PLAIN_NORM) if se else data
        data = net.norm(f"{name}_bn4", convolve(net, f"{name}_conv4", short, POINT, total, stride))
    return net.activation(f"{name}_activation2", net.sum(f"{name}_", out, data), Relu())


def _squeeze_excite(net: Gluon, name: str, data: Parts, channels: Channels) -> Parts:
    """Each part times a sigmoid per channel, computed from the averages of both parts together."""
    parts = [(i, value, count) for i, (value, count) in enumerate(zip(data, channels, strict=True)) if value]
    means = [net.plain(f"{name}adaptiveavgpooling2d{i}", GlobalAvgPool(), value) for i, value, _ in parts]
    mean = net.plain(f"{name}concat0", Concat(), *means) if len(means) > 1 else means[0]
    squeezed = net.layer(f"{name}-conv1", Conv(sum(channels) // 16, (1, 1), bias=True), mean)
    squeezed = net.layer(f"{name}relu0", Relu(), squeezed)
    scaled: list[str | None] = [None, None]
    for i, value, count in parts:
        excited = net.layer(f"{name}-conv2-{'hl'[i]}", Conv(count, (1, 1), bias=True), squeezed)
        gate = net.layer(f"{name}sigmoid{i}", Sigmoid(), excited)
        scaled[i] = net.plain(f"{name}broadcast_mul{i}", Mul(), value, gate)
    return scaled[0], scaled[1]
