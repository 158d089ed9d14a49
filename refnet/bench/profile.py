"""Where the time of one run goes, by kind of node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refnet.core.graph import Node
from refnet.core.op import TensorType
from refnet.frameworks.launch import Prepared
from refnet.frameworks.process import Worker


@dataclass(frozen=True)
class OpTime:
    """All nodes of one kind: how many, their median seconds in total, their multiply-adds."""

    name: str
    nodes: int
    seconds: float
    macs: int


@dataclass(frozen=True)
class Profile:
    """Seconds per kind of node, each executed on its own; and of the whole run, where nodes share passes."""

    model: str
    threads: int
    batch: int
    kinds: tuple[OpTime, ...]
    whole: float


def profile(prepared: Prepared, threads: int, batch: int, runs: int) -> Profile:
    """Time every node of refnet's run, in a process of its own.

    Each node is executed alone (`refnet.steps`), so that it has a time of its own; `refnet.run` joins nodes
    to share passes over memory, and its time is given beside the sum.
    """
    racer = prepared.racers["refnet"]
    with Worker(racer.file, racer.python, threads=threads) as worker:
        request = {**racer.request, "threads": threads, "runs": runs}
        arrays = worker.ask("profile", request, prepared.data(batch)).arrays
    types = prepared.graph.types()
    rows: dict[str, list[tuple[float, int]]] = {}
    for node, seconds in zip(prepared.graph.nodes, np.median(arrays["nodes"], 0), strict=True):
        macs = node.op.flops(*(types[name] for name in node.inputs)).macs * batch
        rows.setdefault(kind_of(node, types), []).append((float(seconds), macs))
    kinds = [OpTime(name, len(r), sum(s for s, _ in r), sum(m for _, m in r)) for name, r in rows.items()]
    kinds.sort(key=lambda kind: -kind.seconds)
    whole = float(np.median(arrays["whole"]))
    return Profile(prepared.graph.name, threads, batch, tuple(kinds), whole)


def kind_of(node: Node, types: Mapping[str, TensorType]) -> str:
    """The op's `label`.

    >>> from refnet.ops import Conv
    >>> x = {"x": TensorType((1, 8, 4, 4))}
    >>> kind_of(Node("c", Conv(8, (3, 3), (2, 2), groups=2), ("x", "w")), x)
    'Conv 3x3 /2 groups'
    """
    return node.op.label(*(types[name] for name in node.data))
