"""Octave MobileNet v1 and v2 of OctConv's second table, with the names of the Gluon definitions.

The prefixes of width 0.75 and 1.125 (`M075_`, `M1125_`) are those of the symbol files compared with; that of
width 1 is made by the same rule. octgluon.py shows an octave convolution.
"""

from __future__ import annotations

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.models.octave import split
from refnet.models.octgluon import NORM, POINT, THREE, Gluon, Parts, classified, convolve
from refnet.ops import Add, Clip, Conv, GlobalAvgPool, Relu

V1 = (
    *(("L1_B1", 64, 1), ("L2_B0", 128, 2), ("L2_B1", 128, 1), ("L3_B0", 256, 2), ("L3_B1", 256, 1)),
    *(("L4_B0", 512, 2), *((f"L4_B{i}", 512, 1) for i in range(1, 6))),
    *(("L5_B0", 1024, 2), ("L5_B1", 1024, 1)),
)
"""Name, output channels at width 1 and stride of the blocks of v1."""

ONE_FREQUENCY = ("L4_B5", "L5_B0", "L5_B1")
"""Blocks of v1 whose value has no low part."""


V2 = (
    ("L1_B1", 1, 16, 1),
    *(("L2_B0", 6, 24, 2), ("L2_B1", 6, 24, 1)),
    *(("L3_B0", 6, 32, 2), ("L3_B1", 6, 32, 1), ("L3_B2", 6, 32, 1)),
    *(("L4_B0", 6, 64, 2), *((f"L4_B{i}", 6, 64, 1) for i in (1, 2, 3))),
    *((f"L4_B{i}", 6, 96, 1) for i in (4, 5, 6)),
    *(("L5_B0", 6, 160, 2), ("L5_B1", 6, 160, 1), ("L5_B2", 6, 160, 1), ("L5_B3", 6, 320, 1)),
)
"""Name, expansion, output channels at width 1 and stride of the blocks of v2. L5 has one frequency."""

RELU6 = Clip(0.0, 6.0)


def octave_mobilenet_v1(
    ratio: float = 0.375,
    *,
    multiplier: float = 0.75,
    image: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    name: str = "",
) -> Graph:
    """The graph, without weights, of an octave MobileNet v1; nodes in the order of the symbol file.

    ratio: alpha, the share of low-frequency channels, 0 < ratio < 1. multiplier: of all channels, above 0.
    image: (c, h, w) of the input `data`.
    Outputs `prob` (n, classes), a softmax that refnet adds, and `logits`. Raises InputError for an option
    out of range, GraphError for an image that does not fit. Source: see octgluon.py.

    >>> graph = octave_mobilenet_v1(0.375, multiplier=0.75)
    >>> graph.by_name["M075_L2_B0_conv1-l2l_fwd"].op
    Conv(channels=18, kernel=(3, 3), pad=(1, 1), groups=18)
    """
    net = Gluon(_prefix(ratio, multiplier))
    first = _width(32, multiplier)
    stem = net.layer("conv1", Conv(first, (3, 3), (2, 2), (1, 1)), "data")
    data: Parts = (net.layer("relu0", Relu(), net.layer("bn1", NORM, stem)), None)
    before = (first, 0)
    for block, channels, stride in V1:
        after = split(_width(channels, multiplier), 0.0 if block in ONE_FREQUENCY else ratio)
        data = convolve(net, f"{block}_conv1", data, THREE, before, stride, depthwise=True)
        data = net.activation(f"{block}_activation0", net.norm(f"{block}_bn1", data), Relu())
        data = convolve(net, f"{block}_conv2", data, POINT, after)
        data = net.activation(f"{block}_activation1", net.norm(f"{block}_bn2", data), Relu())
        before = after
    assert data[0] is not None
    out = net.plain("adaptiveavgpooling2d0", GlobalAvgPool(), data[0])
    return classified(net, out, name or f"octave-mobilenet-v1-{multiplier}-{ratio:g}", image, classes)


def octave_mobilenet_v2(
    ratio: float = 0.375,
    *,
    multiplier: float = 1.0,
    image: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    name: str = "",
) -> Graph:
    """The graph, without weights, of an octave MobileNet v2; nodes in the order of the symbol file.

    Values between its blocks have one frequency; inside, the expanded channels have two.
    Arguments, outputs and errors as for `octave_mobilenet_v1`.

    >>> graph = octave_mobilenet_v2(0.5, multiplier=1.125)
    >>> graph.by_name["M1125_L2_B0_conv1-h2l_fwd"].op
    Conv(channels=54, kernel=(1, 1))
    """
    net = Gluon(_prefix(ratio, multiplier))
    before = _width(32, multiplier)
    stem = net.layer("conv1", Conv(before, (3, 3), (2, 2), (1, 1)), "data")
    data = net.plain("relu60_relu6", RELU6, net.layer("bn1", NORM, stem))
    for block, expansion, channels, stride in V2:
        after = _width(channels, multiplier)
        middle = split(expansion * before, 0.0 if block.startswith("L5") else ratio)
        out = convolve(net, f"{block}_conv1", (data, None), POINT, middle)
        out = net.activation(f"{block}_activation0", net.norm(f"{block}_bn1", out), RELU6)
        out = convolve(net, f"{block}_conv2", out, THREE, middle, stride, depthwise=True)
        out = net.activation(f"{block}_activation1", net.norm(f"{block}_bn2", out), RELU6)
        high, _ = net.norm(f"{block}_bn3", convolve(net, f"{block}_conv3", out, POINT, (after, 0)))
        assert high is not None
        data = net.plain(f"{block}__plus0", Add(), high, data) if (stride, after) == (1, before) else high
        before = after
    tail = net.layer("tail-conv", Conv(_width(1280, multiplier), (1, 1)), data)
    tail = net.plain("relu61_relu6", RELU6, net.layer("tail-bn", NORM, tail))
    out_name = net.layer("pool0", GlobalAvgPool(), tail)
    return classified(net, out_name, name or f"octave-mobilenet-v2-{multiplier}-{ratio:g}", image, classes)


def _prefix(ratio: float, multiplier: float) -> str:
    """The prefix of a width: M075_, M100_, M1125_. Raises InputError for an option out of range."""
    if not 0 < ratio < 1:
        raise InputError(f"ratio must be above 0 and below 1, got {ratio}")
    if not 0 < multiplier < 1000:
        raise InputError(f"multiplier must be above 0 and below 1000, got {multiplier}")
    digits = f"{multiplier:.2f}" if round(multiplier, 2) == multiplier else f"{multiplier:g}"
    return f"M{digits.replace('.', '')}_"


def _width(channels: int, multiplier: float) -> int:
    return int(channels * multiplier)
