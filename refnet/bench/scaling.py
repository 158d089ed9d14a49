"""Time per multiply-add against the size of the problem."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from refnet.arithmetic.plain import Plain
from refnet.bench.race import WARMUP, Advance
from refnet.core.graph import Graph, Node
from refnet.core.interpreter import run
from refnet.core.op import TensorType
from refnet.frameworks.launch import multiply_adds
from refnet.models.loading import load, structure
from refnet.models.synthetic import normal
from refnet.ops import Conv

SCALED = ("resnet-26-baseline", "resnet-50-baseline", "resnet-101-baseline", "resnet-200-baseline")
SIZES = (64, 96, 128, 160, 224, 320, 448)
LAYERS = (7, 14, 28, 56, 112, 224, 448)
CHANNELS = 128


@dataclass(frozen=True)
class Scale:
    """One size of a network (images size x size) or of one layer (its input). seconds: median of one run."""

    what: str
    size: int
    macs: int
    seconds: float

    @property
    def nanoseconds(self) -> float:
        """Per multiply-add."""
        return 1e9 * self.seconds / self.macs


def scaling(
    threads: int,
    runs: int,
    networks: Sequence[str] = SCALED,
    sizes: Sequence[int] = SIZES,
    layers: Sequence[int] = LAYERS,
    advance: Advance = lambda done: None,
) -> list[Scale]:
    """Time per multiply-add of whole networks (seed:0, batch 1) over image sizes, and of single layers.

    The layers are convolutions of CHANNELS to CHANNELS channels, 3x3 with padding 1 and 1x1.
    """
    found = []
    for name in networks:
        weights = load(name, weights="seed:0").weights
        for size in sizes:
            graph = structure(name, image=(size, size)).with_weights(weights)
            found.append(_scale(name, size, graph, threads, runs))
            advance(1)
    for kernel in (3, 1):
        for size in layers:
            shape = (CHANNELS, CHANNELS, kernel, kernel)
            op = Conv(CHANNELS, (kernel, kernel), pad=(kernel // 2, kernel // 2))
            types = {"data": TensorType((1, CHANNELS, size, size))}
            graph = Graph("layer", types, (Node("y", op, ("data", "w")),), {"y": "y"})
            graph = graph.with_weights({"w": normal(0, "w", shape)})
            found.append(_scale(f"one {kernel}x{kernel} layer", size, graph, threads, runs))
            advance(1)
    return found


def _scale(what: str, size: int, graph: Graph, threads: int, runs: int) -> Scale:
    data = {name: normal(1, name, kind.shape) for name, kind in graph.inputs.items()}
    arithmetic, macs = Plain(threads), multiply_adds(graph)
    repeat = max(1, int(2e7 // macs))  # what is too short for the clock's and Python's grain is repeated
    taken = []
    for _ in range(WARMUP + runs):
        begin = time.perf_counter()
        for _ in range(repeat):
            run(graph, data, arithmetic)
        taken.append((time.perf_counter() - begin) / repeat)
    return Scale(what, size, macs, median(taken[WARMUP:]))
