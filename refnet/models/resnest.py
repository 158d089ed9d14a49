"""ResNeSt (ResNet-D with split attention), with the official module paths as names.

A block, for radix 2 (values named as the modules and functions that make them):

    x ── conv1 ── bn1 ── relu ── conv2.conv ── conv2.bn0 ── conv2.relu ──┬── conv2.add_3 ── avd_layer ──┐
    │                                                            attention┘                              │
    └── downsample.0 (pool) ── .1 (1x1) ── .2 (norm) ── iadd ── relu_1        iadd ── bn3 ── conv3 ──────┘

Source: H. Zhang et al., ResNeSt: Split-Attention Networks, arXiv 2004.08955, and the package
resnest 0.0.5 (github.com/zhanghang1989/ResNeSt), with whose state dicts the names are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.models.build import PYTORCH, Builder
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Mul,
    RadixSoftmax,
    RadixSum,
    Relu,
    Sigmoid,
    Softmax,
    TensorType,
    WeightedSum,
)

NORM = BatchNorm(eps=1e-5)
EXPANSION = 4
"""Output channels of a block / its planes."""


@dataclass(frozen=True)
class _Block:
    """What distinguishes one block. stride > 1 makes the average pool (avd_layer)."""

    channels: int
    planes: int
    stride: int
    radix: int
    cardinality: int
    bottleneck_width: int
    avd_first: bool

    @property
    def width(self) -> int:
        """Channels of the split attention."""
        return int(self.planes * (self.bottleneck_width / 64)) * self.cardinality


def resnest(
    layers: Sequence[int] = (3, 4, 6, 3),
    *,
    radix: int = 2,
    cardinality: int = 1,
    bottleneck_width: int = 64,
    stem_width: int = 32,
    avd_first: bool = False,
    planes: Sequence[int] = (64, 128, 256, 512),
    image: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    name: str = "resnest",
) -> Graph:
    """The graph, without weights, of a ResNeSt.

    layers, planes: blocks per stage and their planes; a stage has 4 * planes output channels.
    radix, cardinality, bottleneck_width: splits, cardinal groups, and width per 64 planes: "2s1x64d".
    stem_width: channels of the first two 3x3 convolutions; the third has twice as many.
    avd_first: the average pool of a strided block stands before its split attention (the fast
        variants), not after.
    image: (c, h, w) of the input `data`.

    Outputs: `prob` (n, classes), a softmax that refnet adds on top, and `logits`, the value `fc`.
    Raises InputError for an option out of range, GraphError for an image that does not fit.
    Source: see the head of this file.

    >>> graph = resnest()
    >>> print(graph.by_name["layer1.0.conv2.add_3"])
    layer1.0.conv2.add_3 = WeightedSum(radix=2)(layer1.0.conv2.rsoftmax, layer1.0.conv2.relu)
    >>> graph.types()["layer4.2.relu_1"]
    float32[1, 2048, 7, 7]
    """
    if len(layers) != len(planes) or min(layers, default=0) < 1:
        raise InputError(
            f"layers must give 1 or more blocks for each of {len(planes)} stages, got {tuple(layers)}"
        )
    if min(radix, cardinality) < 1:
        raise InputError(f"radix and cardinality must be at least 1, got {radix} and {cardinality}")
    build = Builder(PYTORCH)
    out = _stem(build, stem_width)
    channels = 2 * stem_width
    for stage, (count, size) in enumerate(zip(layers, planes, strict=True)):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            block = _Block(channels, size, stride, radix, cardinality, bottleneck_width, avd_first)
            out = _bottleneck(build, out, f"layer{stage + 1}.{index}", block)
            channels = size * EXPANSION
    out = build("avgpool.adaptive_avg_pool2d", GlobalAvgPool(), out)
    out = build("fc", Dense(classes), build("avgpool", Flatten(), out))
    build("prob", Softmax(), out)
    data = {"data": TensorType((1, *image))}
    graph = Graph(name, data, tuple(build.nodes), {"prob": "prob", "logits": "fc"})
    graph.types()
    return graph


def _stem(build: Builder, width: int) -> str:
    """Three 3x3 convolutions, the first of stride 2, then max pool 3x3 of stride 2."""
    out = build("conv1.0", Conv(width, (3, 3), (2, 2), (1, 1)), "data")
    out = build("conv1.2", Relu(), build("conv1.1", NORM, out))
    out = build("conv1.3", Conv(width, (3, 3), pad=(1, 1)), out)
    out = build("conv1.5", Relu(), build("conv1.4", NORM, out))
    out = build("conv1.6", Conv(2 * width, (3, 3), pad=(1, 1)), out)
    out = build("relu", Relu(), build("bn1", NORM, out))
    return build("maxpool", MaxPool((3, 3), (2, 2), (1, 1)), out)


def _bottleneck(build: Builder, data: str, at: str, block: _Block) -> str:
    """1x1, split attention, 1x1, plus the input, through pool and 1x1 where stride or channels change."""
    stride = (block.stride, block.stride)
    pool = AvgPool((3, 3), stride, (1, 1)) if block.stride > 1 else None
    out = build(f"{at}.bn1", NORM, build(f"{at}.conv1", Conv(block.width, (1, 1)), data))
    out = build(f"{at}.relu", Relu(), out)
    if pool and block.avd_first:
        out = build(f"{at}.avd_layer", pool, out)
    out = _split_attention(build, out, f"{at}.conv2", block)
    if pool and not block.avd_first:
        out = build(f"{at}.avd_layer", pool, out)
    wide = Conv(block.planes * EXPANSION, (1, 1))
    out = build(f"{at}.bn3", NORM, build(f"{at}.conv3", wide, out))
    if block.stride > 1 or block.channels != wide.channels:
        half = AvgPool(stride, stride, convention="ceil", count_include_pad=False)
        data = build(f"{at}.downsample.0", half, data)
        data = build(f"{at}.downsample.2", NORM, build(f"{at}.downsample.1", wide, data))
    return build(f"{at}.relu_1", Relu(), build(f"{at}.iadd", Add(), out, data))


def _split_attention(build: Builder, data: str, at: str, block: _Block) -> str:
    """Grouped 3x3 to radix parts; attention from the parts' sum; the parts' weighted sum.

    Named after Python's sum(): 0 + part, + part, ... once for the radix sum, once for the weighted.
    Radix 1 has a sigmoid in place of the softmax, and one product: two ops, with PyTorch's shapes.
    """
    radix, groups, width = block.radix, block.cardinality, block.width
    parts = Conv(width * radix, (3, 3), pad=(1, 1), groups=groups * radix)
    out = build(f"{at}.bn0", NORM, build(f"{at}.conv", parts, data))
    out = build(f"{at}.relu", Relu(), out)
    gap = build(f"{at}.add_{radix - 1}", RadixSum(radix), out) if radix > 1 else out
    gap = build(f"{at}.adaptive_avg_pool2d", GlobalAvgPool(), gap)
    inner = Conv(max(width * radix // 4, 32), (1, 1), groups=groups, bias=True)
    gap = build(f"{at}.bn1", NORM, build(f"{at}.fc1", inner, gap))
    gap = build(f"{at}.relu_1", Relu(), gap)
    gap = build(f"{at}.fc2", Conv(width * radix, (1, 1), groups=groups, bias=True), gap)
    if radix == 1:
        attention = build(f"{at}.rsoftmax", Sigmoid(), gap)
        return build(f"{at}.mul", Mul(), attention, out)
    attention = build(f"{at}.rsoftmax", RadixSoftmax(radix, groups), gap)
    return build(f"{at}.add_{2 * radix - 1}", WeightedSum(radix), attention, out)
