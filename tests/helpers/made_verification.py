"""A made verification of a real graph: any verdicts, with pictures, for the tests of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.graph import Graph
from refnet.core.op import F32

REFERENCE = {
    "framework": "pytorch",
    "version": "2.13.0+cpu",
    "build": "oneDNN 3.12.0, MKL 2024.2, OpenMP 201511",
    "isa": "AVX2 with FMA",
    "threads": 2,
    "batch": 1,
    "mode": "eager",
    "flags": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "processor": "a processor",
}


@dataclass(frozen=True)
class Judged:
    name: str
    map: F32 | None = None
    picture: F32 | None = None


@dataclass(frozen=True)
class Made:
    """What `refnet.verification.verify.Verification` offers to the report."""

    content: dict[str, Any]
    nodes: tuple[Judged, ...]

    def record(self) -> dict[str, Any]:
        return self.content


def number(value: float) -> dict[str, Any]:
    bits = int(np.float32(value).view(np.uint32))
    return {"hex": f"0x{bits:08x}", "value": float(value) if np.isfinite(value) else str(value)}


def verification(
    graph: Graph, seed: int = 0, pictures: int = 40, verdicts: dict[str, str] | None = None
) -> Made:
    """Verdicts by name (default: by the kind of op); numbers of the sizes that real ones have."""
    random = np.random.default_rng(seed)
    chosen = verdicts or {}
    nodes, judged = [], []
    types = graph.types()
    for node in graph.nodes:
        shape = types[node.name].shape
        plain = ("Relu", "MaxPool", "Add", "Concat", "RadixSum", "UpsampleNearest", "Multiply", "Reshape")
        usual = "equal" if type(node.op).__name__ in plain else "rounding"
        verdict = chosen.get(node.name, usual)
        one = record(node.name, repr(node.op), node.inputs, shape, verdict, random)
        nodes.append(one)
        picture = share = None
        if (
            one["differ"]
            and len(shape) == 4
            and shape[2] > 1
            and sum(j.map is not None for j in judged) < pictures
        ):
            share, picture = drawn(random, shape[2:], verdict)
        judged.append(Judged(node.name, share, picture))
    return Made(whole(graph.name, nodes), tuple(judged))


def drawn(random: np.random.Generator, sizes: tuple[int, ...], verdict: str) -> tuple[F32, F32]:
    """A smooth image, and noise where it differs; a defect has a wrong border."""
    h, w = sizes
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    picture = np.sin(9 * x + 4 * y) + np.cos(7 * y * x) + 0.2 * random.normal(size=(h, w))
    share = np.where(random.random((h, w)) < 0.7, random.random((h, w)) ** 3 * 0.2, 0)
    if verdict == "defect":
        share[:, -1] = 40
    return share.astype(np.float32), picture.astype(np.float32)


def record(
    name: str,
    op: str,
    inputs: tuple[str, ...],
    shape: tuple[int, ...],
    verdict: str,
    random: np.random.Generator,
) -> dict[str, Any]:
    """One node as the JSON record has it."""
    elements = int(np.prod(shape))
    node = {
        "name": name,
        "op": op,
        "kind": op.partition("(")[0],
        "inputs": list(inputs),
        "shape": list(shape),
    }
    node |= {"verdict": verdict, "reason": None, "over": [], "elements": elements, "differ": 0, "outside": 0}
    node |= {"share": None, "ulps": None, "worst": None, "inherited": None}
    if verdict in ("equal", "missing"):
        return node
    differ = max(1, elements // 7)
    counts = np.floor(elements * 0.6 * np.exp(-1.1 * np.arange(21))).astype(int)
    largest, found = 0.02 + 0.4 * random.random(), np.float32(random.normal())
    radius = abs(float(found)) * 3e-6
    if verdict == "defect":
        counts[20], largest, node["outside"] = 3, 40.25, 3
    if verdict == "unjudged":
        node["reason"] = "the bound promises nothing there: sums may overflow"
        return node | {"differ": differ}
    golden = np.float32(float(found) - largest * radius)
    node["differ"] = differ
    node["share"] = {"max": largest, "median": largest / 20, "histogram": counts.tolist()}
    node["ulps"] = {"max": 37}
    node["worst"] = {
        "at": [n // 2 for n in shape],
        "found": number(float(found)),
        "plain": number(float(np.nextafter(golden, np.float32(9)))),
        "golden": number(float(golden)),
        "bound": {"center": float(golden), "radius": radius},
        "ulps": 37,
        "share": largest,
    }
    node["inherited"] = {"differ": elements // 2, "ulps": 812, "largest": 1.9e-5}
    return node


def whole(name: str, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The record around the nodes."""
    verdicts = ("equal", "replayed", "rounding", "defect", "unjudged", "missing")
    found = [node["verdict"] for node in nodes]
    counts = {verdict: found.count(verdict) for verdict in verdicts}
    line = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)

    def first(key: str) -> str | None:
        return next(
            (n["name"] for n in nodes if (n["verdict"] == "defect" if key == "defect" else n["differ"])), None
        )

    value = nodes[-1]["name"]
    return {
        "format": "refnet verification",
        "version": 1,
        "written_by": "refnet 0.1.0",
        "graph": {"name": name, "hash": "5b" * 32},
        "reference": REFERENCE,
        "book": None,
        "summary": {"values": len(nodes), **counts, "surplus": 1, "line": f"{len(nodes)} values: {line}"},
        "first_defect": first("defect"),
        "first_difference": first("differ"),
        "suggestion": "All differences are rounding. A small bug could hide in them: try the order-free run.",
        "nodes": nodes,
        "outputs": [{"name": "logits", "value": value, "differ": 988, "ulps": 212, "largest": 3.1e-6}],
        "surplus": ["extra.value"],
        "seconds": 21.4,
    }
