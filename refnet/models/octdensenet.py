"""Octave DenseNet-121 of the OctConv table and its baseline, with the official names.

Source: utils/symbol/ of github.com/facebookresearch/OctConv; compared with symbol files that MXNet 1.9.1
wrote from it. octave.py shows an octave convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.models.octave import HALVE, Net, Parts, classified, norm_relu_conv, octave_net, split, stem
from refnet.ops import Concat, Conv


def octave_densenet(
    ratio: float = 0.125,
    *,
    layers: Sequence[int] = (6, 12, 24, 16),
    growth: int = 32,
    stem_channels: int = 64,
    image: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    numbers: Mapping[str, int] | None = None,
    name: str = "",
) -> Graph:
    """The graph, without weights, of an octave DenseNet; nodes in the order of the symbol file.

    ratio: alpha, the share of low-frequency channels, 0 <= ratio < 1. 0 is the plain baseline network, which
        has no `-h` in its names. The last stage has one frequency whatever the ratio.
    layers: blocks per stage; each adds `growth` channels, by a 1x1 convolution of 4 * growth and a 3x3 one.
        Between stages a 1x1 convolution halves the channels, an average pool the size.
    stem_channels: of the first convolution.
    image, numbers: as for `octave_resnet`.

    Output `prob`: value `softmax`, (n, classes). Raises InputError for an option out of range,
    GraphError for an image that does not fit. Source: see the head of this file.

    >>> graph = octave_densenet(0.125)
    >>> graph.by_name["L3_Trans_conv_conv-h2l"].op, graph.by_name["L2_B01_concat-h"].data
    (Conv(channels=16, kernel=(1, 1)), ('pool1', 'L2_B01_conv2_conv-h'))
    """
    if not layers or min(layers) < 1:
        raise InputError(f"layers must give 1 or more blocks for each stage, got {tuple(layers)}")
    net = octave_net(ratio, numbers)
    parts: Parts = (stem(net, stem_channels), None)
    channels = stem_channels
    for stage, count in enumerate(layers):
        alpha = 0.0 if stage == len(layers) - 1 else ratio
        if stage:
            channels //= 2
            parts = _transition(net, parts, f"L{stage + 2}_Trans", split(channels, alpha))
        for block in range(count):
            parts = _block(net, parts, f"L{stage + 2}_B{block + 1:02d}", growth, alpha)
        channels += count * growth
    title = name or ("octave-" if ratio else "") + "densenet" + (f"-{ratio:g}" if ratio else "")
    return classified(net, parts[0], title, image, classes)


def _transition(net: Net, data: Parts, name: str, channels: tuple[int, int]) -> Parts:
    """1x1 convolution, then the average pool of each part."""
    out = norm_relu_conv(net, data, f"{name}_conv", Conv(sum(channels), (1, 1)), channels)
    return net.each(f"{name}_pool", HALVE, out)


def _block(net: Net, data: Parts, name: str, growth: int, alpha: float) -> Parts:
    """The input with `growth` new channels behind it; the first low part is the new channels alone."""
    middle, new = split(4 * growth, alpha), split(growth, alpha)
    out = norm_relu_conv(net, data, f"{name}_conv1", Conv(sum(middle), (1, 1)), middle)
    out = norm_relu_conv(net, out, f"{name}_conv2", Conv(sum(new), (3, 3), pad=(1, 1)), new)
    if data[1] is None and out[1] is not None:
        return net.build(f"{name}_concat-h", Concat(), data[0], out[0]), out[1]
    return net.pair(Concat(), "concat", f"{name}_concat", data, out)
