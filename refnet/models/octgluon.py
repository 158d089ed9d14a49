"""What the octave networks of Gluon share: Gluon's names, and the octave convolution in Gluon's form.

A value has a high and a low part, as in octave.py. In a convolution of stride 2, here, each path has its own
average pool: 2x2 from high to high and low to low, 4x4 from high to low.

Source: utils/gluon/ of github.com/facebookresearch/OctConv; compared with symbol files that MXNet 1.9.1
wrote from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from refnet.core.graph import Graph, Node
from refnet.models.build import depth_first
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Conv,
    Flatten,
    Op,
    Relu,
    Softmax,
    TensorType,
    UpsampleNearest,
)

Parts = tuple[str | None, str | None]
"""Names of a value's high and low part; None where there is none."""

Channels = tuple[int, int]
"""Channels of the high and of the low part; 0 where there is none."""

ENDINGS = {
    "weight": "_weight",
    "bias": "_bias",
    "gamma": "_gamma",
    "beta": "_beta",
    "mean": "_running_mean",
    "var": "_running_var",
}
"""Role of a weight -> what Gluon appends to the layer's name."""

NORM = BatchNorm(eps=1e-5)
POINT = Conv(1, (1, 1))
THREE = Conv(1, (3, 3), pad=(1, 1))


@dataclass(frozen=True)
class Gluon:
    """Nodes in the order of their making, with Gluon's names; each call returns the value's name.

    prefix: of the network, which begins every name.
    """

    prefix: str
    nodes: list[Node] = field(default_factory=list)

    def plain(self, name: str, op: Op, *inputs: str) -> str:
        """A node without weights that a function of Gluon made."""
        self.nodes.append(Node(self.prefix + name, op, inputs))
        return self.prefix + name

    def layer(self, name: str, op: Op, *inputs: str) -> str:
        """A layer: its value has `_fwd` behind the name, its weights have their roles."""
        weights = (f"{self.prefix}{name}{ENDINGS[role]}" for role in op.weight_roles())
        self.nodes.append(Node(f"{self.prefix}{name}_fwd", op, (*inputs, *weights)))
        return f"{self.prefix}{name}_fwd"

    def norm(self, name: str, data: Parts, op: BatchNorm = NORM) -> Parts:
        """A batch norm of each part."""
        high, low = data
        return (
            None if high is None else self.layer(f"{name}-h", op, high),
            None if low is None else self.layer(f"{name}-l", op, low),
        )

    def activation(self, name: str, data: Parts, op: Relu | Clip) -> Parts:
        """Relu or relu6 of each part."""
        kind = "relu" if isinstance(op, Relu) else "clip"
        high, low = data
        return (
            None if high is None else self.plain(f"{name}_{kind}0", op, high),
            None if low is None else self.plain(f"{name}_{kind}1", op, low),
        )

    def sum(self, name: str, a: Parts, b: Parts) -> Parts:
        """The sum of two values, part by part; a part that one of them has alone is the sum itself."""

        def part(place: int, x: str | None, y: str | None) -> str | None:
            if x is None or y is None:
                return x or y
            return self.plain(f"{name}_plus{place}", Add(), x, y)

        return part(0, a[0], b[0]), part(1, a[1], b[1])


def convolve(
    net: Gluon, name: str, data: Parts, op: Conv, channels: Channels, stride: int = 1, depthwise: bool = False
) -> Parts:
    """The octave convolution `name` of stride 1 or 2: `op` on each path, of stride 1 itself.

    depthwise: each channel for itself, so that no path leads from one part to the other.
    """
    (high, low), (many, few) = data, channels
    pools = 0

    def pooled(value: str, factor: int) -> str:
        nonlocal pools
        if factor == 1:
            return value
        pools += 1
        pool = AvgPool((factor, factor), (factor, factor), convention="full", count_include_pad=False)
        return net.layer(f"{name}pool{pools - 1}", pool, value)

    def path(kind: str, value: str, count: int) -> str:
        return net.layer(
            f"{name}-{kind}", replace(op, channels=count, groups=count if depthwise else 1), value
        )

    l2l = l2h = h2h = h2l = None
    if low is not None and few:
        l2l = path("l2l", pooled(low, stride), few)
    if low is not None and many and not depthwise:
        l2h = path("l2h", low, many)
        if stride == 1:
            l2h = net.plain(f"{name}_upsampling0_upsampling0", UpsampleNearest(), l2h)
    if high is not None and many:
        h2h = path("h2h", pooled(high, stride), many)
    if high is not None and few and not depthwise:
        h2l = path("h2l", pooled(high, 2 * stride), few)
    return net.sum(name, (l2h, l2l), (h2h, h2l))


def classified(net: Gluon, pooled: str, title: str, image: tuple[int, int, int], classes: int) -> Graph:
    """The graph with its end: the classifier, a 1x1 convolution, and the softmax that refnet adds.

    Outputs `logits` and `prob`. Raises GraphError if the image, (c, h, w), does not fit.
    """
    dense = net.layer("classifier", Conv(classes, (1, 1), bias=True), pooled)
    logits = net.plain("flatten0_flatten0", Flatten(), dense)
    nodes = (*depth_first(net.nodes, logits), Node("prob", Softmax(), (logits,)))
    graph = Graph(title, {"data": TensorType((1, *image))}, nodes, {"prob": "prob", "logits": logits})
    graph.types()
    return graph
