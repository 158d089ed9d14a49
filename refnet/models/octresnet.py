"""Octave ResNet v2, ResNeXt and SE-ResNet of the OctConv table, with the official names.

Source: Y. Chen et al., Drop an Octave, arXiv 1904.05049, and the definitions in utils/symbol/ of
github.com/facebookresearch/OctConv; compared with symbol files that MXNet 1.9.1 wrote from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.models.octave import Net, Parts, classified, norm_relu_conv, octave_net, split, stem
from refnet.ops import Add, Conv, Dense, ExpandDims, GlobalAvgPool, Mul, Relu, Sigmoid

LAYERS: Mapping[int, tuple[int, ...]] = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Depth -> blocks per stage (resenet_spec in symbol_resnetv2.py)."""


def octave_resnet(
    depth: int = 50,
    ratio: float = 0.125,
    *,
    se: bool = False,
    groups: int = 1,
    width: int = 1,
    layers: Sequence[int] | None = None,
    channels: Sequence[int] = (256, 512, 1024, 2048),
    stem_channels: int = 64,
    stem_kernel: int = 7,
    stem_stride: int = 2,
    stem_pool: bool = True,
    image: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    numbers: Mapping[str, int] | None = None,
    name: str = "",
) -> Graph:
    """The graph, without weights, of an octave ResNet v2; nodes in the order of the symbol file.

    depth: one of LAYERS; layers, blocks per stage, replaces it.
    ratio: alpha, the share of low-frequency channels, 0 <= ratio < 1. 0 is the plain baseline network,
        which has no `-h` in its names and strides in its convolutions. The last stage has one
        frequency whatever the ratio.
    se: squeeze-and-excitation block after each conv3.
    groups, width: groups of the 3x3 convolutions, and the factor on their channels: 32 and 2 make
        ResNeXt 32x4d.
    channels: output channels of the stages; a block's middle has channels // 4 * width.
    stem_channels, stem_kernel, stem_stride, stem_pool: the first convolution, and whether the 3x3
        max pool of stride 2 follows.
    image: (c, h, w) of the input `data`; h and w must halve evenly down to the last low part.
    numbers: where the running numbers of unnamed nodes (NUMBERED) start. They count all symbols that a
        process has made, so official files start anywhere; default 0.

    Output `prob`: value `softmax`, (n, classes). Raises InputError for an option out of range,
    GraphError for an image that does not fit. Source: see the head of this file.

    >>> graph = octave_resnet(50, 0.125, se=True)
    >>> graph.by_name["L2_B01_conv1_conv-h2h"].op
    Conv(channels=56, kernel=(1, 1))
    >>> graph.types()["L3_B01_sum-l"]
    float32[1, 64, 14, 14]
    """
    blocks = _blocks(depth, layers, channels)
    net = octave_net(ratio, numbers)
    parts: Parts = (stem(net, stem_channels, stem_kernel, stem_stride, stem_pool), None)
    for stage, (count, total) in enumerate(zip(blocks, channels, strict=True)):
        alpha = 0.0 if stage == len(blocks) - 1 else ratio
        middle = split(total // 4 * width, alpha)
        for block in range(count):
            at = f"L{stage + 2}_B{block + 1:02d}"
            stride = 2 if stage > 0 and block == 0 else 1
            options = _Block(middle, split(total, alpha), stride, groups, se, block == 0)
            parts = _block(net, parts, at, options)
    kind = "se-resnet" if se else "resnext" if groups > 1 else "resnet"
    title = name or ("octave-" if ratio else "") + f"{kind}-{depth}" + (f"-{ratio:g}" if ratio else "")
    return classified(net, parts[0], title, image, classes)


def _blocks(depth: int, layers: Sequence[int] | None, channels: Sequence[int]) -> tuple[int, ...]:
    """Blocks per stage, checked."""
    if layers is None and depth not in LAYERS:
        raise InputError(f"depth must be one of {', '.join(map(str, LAYERS))}, got {depth}")
    blocks = LAYERS[depth] if layers is None else tuple(layers)
    if len(blocks) != len(channels) or min(blocks, default=0) < 1:
        raise InputError(
            f"layers must give 1 or more blocks for each of {len(channels)} stages, got {blocks}"
        )
    return blocks


@dataclass(frozen=True)
class _Block:
    """What distinguishes one block: channels as (high, low)."""

    middle: tuple[int, int]
    channels: tuple[int, int]
    stride: int
    groups: int
    se: bool
    first: bool


def _block(net: Net, data: Parts, name: str, block: _Block) -> Parts:
    """Pre-activation bottleneck: conv1 1x1, conv2 3x3, conv3 1x1, SE, plus the input (through conv4)."""
    stride = (block.stride, block.stride)
    three = Conv(sum(block.middle), (3, 3), stride, (1, 1), groups=block.groups)
    out = norm_relu_conv(net, data, f"{name}_conv1", Conv(sum(block.middle), (1, 1)), block.middle)
    out = norm_relu_conv(net, out, f"{name}_conv2", three, block.middle)
    out = norm_relu_conv(net, out, f"{name}_conv3", Conv(sum(block.channels), (1, 1)), block.channels)
    if block.se:
        out = _squeeze_excite(net, out, f"{name}_se", block.channels)
    if block.first:
        short = Conv(sum(block.channels), (1, 1), stride)
        data = norm_relu_conv(net, data, f"{name}_conv4", short, block.channels)
    return net.pair(Add(), "elementwisesum", f"{name}_sum", data, out)


def _squeeze_excite(net: Net, data: Parts, name: str, channels: tuple[int, int]) -> Parts:
    """data * sigmoid(fc2(relu(fc1(global average)))), the average's and fc2's parts as the data's."""
    out = net.each(f"{name}_pool", GlobalAvgPool(), data)
    out = _dense(net, out, f"{name}_fc1", (sum(channels) // 16, 0))
    out = net.each(f"{name}_relu", Relu(), out)
    out = _dense(net, out, f"{name}_fc2", channels)
    out = net.each(f"{name}_sigmoid", Sigmoid(), out)
    out = net.each(f"{name}_expend1", ExpandDims(2), out)
    out = net.each(f"{name}_expend2", ExpandDims(3), out)
    return net.pair(Mul(), "broadcast_mul", f"{name}_mul", data, out)


def _dense(net: Net, data: Parts, name: str, units: tuple[int, int]) -> Parts:
    """Fully connected from each part to each part; only what reads the high part has a bias."""
    high, low = data
    many, few = units
    if not net.octave:
        return net.build(name, Dense(many), high), None
    h2l = l2l = l2h = None
    h2h = net.build(f"{name}-h2h", Dense(many), high)
    if few:
        h2l = net.build(f"{name}-h2l", Dense(few), high)
    if low is not None:
        l2h = net.build(f"{name}-l2h", Dense(many, bias=False), low)
        if few:
            l2l = net.build(f"{name}-l2l", Dense(few, bias=False), low)
    return net.join(f"{name}-h", (h2h, l2h)) or h2h, net.join(f"{name}-l", (h2l, l2l))
