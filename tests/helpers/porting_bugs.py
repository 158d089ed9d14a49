"""What a catalogued bug is, and how it gets into a network's values.

CATALOGUE (porting_catalogue.py) ── Bug ── run ── values of a network with a wrong node ── verify
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

import refnet
from refnet import ops
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import Op
from refnet.models import synthetic
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from tests.helpers.bits import floats
from tests.helpers.engines import FAST
from tests.helpers.porting_changes import Array, Change, Seen

F = np.float32
PROVED, HIDDEN, HARMLESS = "proved", "hidden", "harmless"

Probe = Callable[[Op, tuple[Array, ...]], tuple[Array, ...]]


@dataclass(frozen=True)
class Bug:
    """One bug. network: a key of NETWORKS. changes: node -> what is computed there instead, in their order.

    kind: PROVED (each changed node is a defect), HIDDEN (inside the bound: `probe` makes inputs of the first
    node on which it is a defect) or HARMLESS (not one bit differs). batch: images. scale: of the input.
    """

    name: str
    practice: str
    network: str
    changes: Mapping[str, Change]
    kind: str = PROVED
    probe: Probe | None = None
    batch: int = 1
    scale: float = 1.0
    found: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Where it must be found."""
        return self.found or tuple(self.changes)


# Networks.


def pieces() -> Graph:
    """What the networks lack: dilation, concatenation, ragged windows, a fixed gamma, a square layer."""
    nodes = (
        Node("left", ops.Conv(8, (3, 3), pad=(2, 2), dilation=(2, 2)), ("data", "left_w")),
        Node("right", ops.Conv(8, (1, 1), bias=True), ("data", "right_w", "right_b")),
        Node("fixed", ops.BatchNorm(1e-5, fix_gamma=True), ("right", *(f"fixed_{k}" for k in "gbmv"))),
        Node("narrow", ops.BatchNorm(1e-4), ("left", *(f"narrow_{k}" for k in "gbmv"))),
        Node("wide", ops.BatchNorm(1e-4), ("fixed", *(f"wide_{k}" for k in "gbmv"))),
        Node("joined", ops.Concat(1), ("narrow", "wide")),
        Node("deep", ops.Conv(16, (3, 3), pad=(1, 1), groups=16), ("joined", "deep_w")),
        Node("pool", ops.MaxPool((3, 3), (2, 2), (1, 1)), ("deep",)),  # (1, 16, 5, 5), of both signs
        Node("mean", ops.AvgPool((2, 2), (2, 2), (0, 0), "ceil", count_include_pad=False), ("pool",)),
        Node("ragged", ops.AvgPool((2, 2), (2, 2), (0, 0), "ceil"), ("pool",)),
        Node("whole", ops.GlobalAvgPool(), ("ragged",)),
        Node("flat", ops.Flatten(), ("mean",)),
        Node("square", ops.Dense(144), ("flat", "square_w", "square_b")),
        Node("prob", ops.Softmax(), ("square",)),
    )
    graph = Graph("pieces", {"data": TensorType((1, 3, 9, 9))}, nodes, {"prob": "prob", "whole": "whole"})
    made = synthetic.weights(graph, 0)
    made["fixed_g"] = floats((8,), "gamma") + F(2)
    made["narrow_v"] = np.abs(floats((8,), "narrow")) * F(1e-3)
    made["wide_v"] = F(1e4) + floats((8,), "wide")
    made["deep_w"][5] *= F(2.0**-130)  # a dead channel: what weight decay leaves
    made["deep_w"][3] = -np.abs(made["deep_w"][3])
    return graph.with_weights(made)


def seeded_network(name: str) -> Callable[[], Graph]:
    """A network of the catalog with seed:0 weights and an image of 64 x 64."""
    return lambda: refnet.load(name, weights="seed:0", image=(64, 64))


NETWORKS: dict[str, Callable[[], Graph]] = {
    "octave digits": lambda: refnet.load("octave-se-resnet-digits"),
    "resnest digits": lambda: refnet.load("resnest-digits"),
    "pieces": pieces,
    "octave-se-resnet-50-0.125": seeded_network("octave-se-resnet-50-0.125"),
    "octave-resnet-26-0.5": seeded_network("octave-resnet-26-0.5"),
    "resnet-26-baseline": seeded_network("resnet-26-baseline"),
    "resnest-50-pytorch": seeded_network("resnest-50-pytorch"),
    "resnest-50-fast-2s2x40d": seeded_network("resnest-50-fast-2s2x40d-pytorch"),
}


@cache
def network(name: str) -> Graph:
    return NETWORKS[name]()


@cache
def image(network_name: str, batch: int, scale: float) -> Array:
    """Sample digits through their pipeline, or `normal` numbers for what reads no digits; times scale."""
    shape = network(network_name).inputs["data"].shape
    if shape == (1, 1, 32, 32):
        files = sorted((shipped_folder() / "digits").glob("*.png"))[:batch]
        x = np.concatenate([pipeline("digits").apply(file) for file in files])
    else:
        x = synthetic.normal(1, "data", (batch, *shape[1:]))
    return (x * F(scale)).astype(F)


def run(
    graph: Graph, data: Array, changes: Mapping[str, Change], known: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Every value of a run: nodes with a change are computed by it, the others rightly on what they get.

    known: the values of a run without a change; what no change reaches is taken from there.
    """
    table = {"data": data}
    reached: set[str] = set()
    for node in graph.nodes:
        change = changes.get(node.name)
        if known is not None and change is None and reached.isdisjoint(node.data):
            table[node.name] = known[node.name]
            continue
        reached.add(node.name)
        inputs = tuple([table[n] for n in node.data] + [graph.weights[n] for n in node.weights])
        made = (
            node.op.run(*inputs, engine=FAST)
            if change is None
            else change(Seen(node.op, inputs, table, graph.weights))
        )
        table[node.name] = np.ascontiguousarray(made)
    del table["data"]
    return table


@cache
def unchanged(network_name: str, batch: int, scale: float) -> Mapping[str, Array]:
    """Every value of a run without a bug."""
    return run(network(network_name), image(network_name, batch, scale), {})


# Probes: inputs on which a bug that hides under the bound of ordinary ones cannot.


def whole_numbers(shape: tuple[int, ...], most: int, key: str) -> Array:
    """Odd integers of both signs, at most `most`."""
    drawn = np.abs(floats(shape, key).astype(np.float64)) * (most // 2)
    return ((np.floor(drawn) * 2 + 1) * np.where(floats(shape, (key, "sign")) < 0, -1, 1)).astype(F)


def order_free(wide: str) -> Probe:
    """Integers of which every partial sum is exact; `wide`: which of "weight" and "data" has all the bits."""

    def probe(op: Op, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        x, w = inputs[:2]
        most = 2 ** int(np.log2((2**24 - 1) / w[0].size)) - 1  # so that all terms together stay below 2**24
        data, weight = (most, 1) if wide == "data" else (1, most)
        return whole_numbers(x.shape, data, "x"), whole_numbers(w.shape, weight, "w"), *inputs[2:]

    return probe


def one_hot(op: Op, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """Order-free weights, and of each channel one pixel, far from the others': every output is one weight."""
    x, w = order_free("weight")(op, inputs)[:2]
    x = np.zeros_like(x)
    rows, columns = np.divmod(np.arange(x.shape[1]), x.shape[3] // 3)
    x[:, np.arange(x.shape[1]), 3 * rows + 1, 3 * columns + 1] = 1
    return x, w


def growing(op: Op, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """One, and then terms of almost an ulp of it: rounding loses none of them, cutting loses all."""
    x, w = (np.ones_like(a) for a in inputs[:2])
    w *= F(2.0**-23 * (1 - 2.0**-10))
    w[:, 0, 0, 0] = 1
    return x, w


def no_variance(op: Op, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """A batch norm whose variance is 0: all that is divided by is the root of eps."""
    x, g, b, m, v = inputs
    return x, g, b, m, np.zeros_like(v)
