"""Whole networks on the real frameworks, on awkward inputs: no value may be called a defect.

    python -m tests.crosscheck.campaign results.jsonl          goes on where it was stopped
    python -m tests.crosscheck.campaign results.jsonl --summary

PAIRS x threads x batch x INPUTS: each run streams every value of a framework through `refnet verify`, in
memory. One line of JSON per run; a line that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import refnet
from refnet.cli.common import counting, numbers, size
from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.formats.manifest import Origin
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import planned
from refnet.frameworks.capture.writer import CapturePlan as Capture
from refnet.models.preprocess import pipeline
from refnet.models.synthetic import normal
from refnet.models.weights import shipped_folder
from refnet.verification.verify import Verification, verify_values
from tests.crosscheck.conftest import interpreter

F = np.float32
OCTAVE, RESNEST = "octave-se-resnet-50-0.125", "resnest-50-pytorch"
PAIRS = {
    "torch": (RESNEST, "torch", frozenset({"prob"})),
    "mxnet": (OCTAVE, "mxnet", frozenset()),
    "onnx-resnest": (RESNEST, "onnxruntime", frozenset()),
    "onnx-octave": (OCTAVE, "onnxruntime", frozenset()),
    "openvino-resnest": (RESNEST, "openvino", frozenset()),
    "openvino-octave": (OCTAVE, "openvino", frozenset()),
}
"""name -> network, framework, and the values that the framework does not show (PyTorch's module ends with
logits)."""

Shape = tuple[int, ...]
Run = Callable[[dict[str, np.ndarray]], Iterator[tuple[str, np.ndarray]]]


def digit(index: int) -> Callable[[Shape], np.ndarray]:
    """Shipped images from this one on, through the network's own pipeline, one per image of the batch."""

    def make(shape: Shape) -> np.ndarray:
        files = sorted((shipped_folder() / "digits").glob("*.png"))
        images = [pipeline("resnest").apply(files[(index + k) % len(files)]) for k in range(shape[0])]
        step = 224 // shape[2]
        return np.concatenate(images)[:, :, ::step, ::step][:, :, : shape[2], : shape[3]]

    return make


def drawn(seed: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Shape], np.ndarray]:
    """Nearly normal numbers, changed."""
    return lambda shape: change(normal(seed, "campaign", shape))


def one_hot(shape: Shape) -> np.ndarray:
    """One pixel of one channel, another place in each image."""
    x = np.zeros(shape, F)
    for k in range(shape[0]):
        x[k, k % shape[1], shape[2] // 2 + k, shape[3] // 3] = 2
    return x


def checkerboard(shape: Shape) -> np.ndarray:
    """1 and -1 in turn."""
    rows, columns = np.indices(shape[2:])
    return np.broadcast_to(F(1) - F(2) * ((rows + columns) % 2).astype(F), shape).copy()


def gradient(shape: Shape) -> np.ndarray:
    """From -2 to 2, from corner to corner."""
    rows, columns = np.indices(shape[2:])
    plane = (rows + columns) / F(sum(shape[2:]) - 2) * F(4) - F(2)
    return np.broadcast_to(plane.astype(F), shape).copy()


INPUTS: Mapping[str, Callable[[Shape], np.ndarray]] = {
    "digit 0": digit(0),
    "digit 4": digit(4),
    "digit 8": digit(8),
    "normal 1": drawn(1, lambda x: x),
    "normal 2": drawn(2, lambda x: x),
    "normal 3": drawn(3, lambda x: x),
    "normal, far from 0": drawn(4, lambda x: x + F(100)),
    "uniform, 0 to 1": drawn(5, lambda x: (x % F(1)).astype(F)),
    "uniform, -1 to 1": drawn(6, lambda x: (x % F(2) - F(1)).astype(F)),
    "8-bit pixels": drawn(7, lambda x: np.floor(np.abs(x) * 80).clip(0, 255).astype(F)),
    "zeros": lambda shape: np.zeros(shape, F),
    "negative zeros": lambda shape: np.full(shape, -0.0, F),
    "constant": lambda shape: np.full(shape, 0.7, F),
    "one hot": one_hot,
    "checkerboard": checkerboard,
    "gradient": gradient,
    "many sizes": drawn(8, lambda x: np.ldexp(x, (np.abs(x) * 16).astype(int) - 30).astype(F)),
    "huge": drawn(9, lambda x: x * F(1e30)),
    "tiny": drawn(10, lambda x: x * F(1e-30)),
    "subnormal": drawn(11, lambda x: x * F(1e-40)),
}


class Streamed:
    """A running framework as a capture: each value is there when its turn comes, and then forgotten."""

    manifest = None

    def __init__(
        self, inputs: Mapping[str, np.ndarray], names: Iterable[str], values: Iterable[tuple[str, np.ndarray]]
    ) -> None:
        self.inputs, self.names = inputs, tuple(names)
        self.wanted, self.values = set(self.names), iter(values)
        self.early: dict[str, np.ndarray] = {}
        self.surplus = 0

    def has(self, name: str) -> bool:
        return name in self.wanted

    def input(self, name: str) -> np.ndarray:
        return self.inputs[name]

    def value(self, name: str, kind: str = "float32") -> np.ndarray:
        while name not in self.early:
            came = next(self.values, None)
            if came is None:
                raise ValueError(f"the framework made no value {name!r}")
            if came[0] in self.wanted:
                self.early[came[0]] = came[1]
            else:
                self.surplus += 1
        return self.early.pop(name)

    def rest(self) -> None:
        """Take what nobody asked for; nothing that a node has may be left."""
        for name, value in self.values:
            if name in self.wanted:
                self.early[name] = value
            else:
                self.surplus += 1
        if self.early:
            raise ValueError(f"values that were never judged: {sorted(self.early)[:5]}")


@dataclass(frozen=True)
class Setting:
    """One run. image: (h, w)."""

    pair: str
    threads: int
    batch: int
    input: str
    image: tuple[int, int] = (224, 224)

    @property
    def key(self) -> str:
        return json.dumps([self.pair, self.threads, self.batch, self.input, list(self.image)])


@dataclass(frozen=True)
class Plan:
    """What to run, in order: whatever shares a framework's process stands together."""

    pairs: tuple[str, ...] = tuple(PAIRS)
    threads: tuple[int, ...] = (1, 2)
    batches: tuple[int, ...] = (1, 4)
    inputs: tuple[str, ...] = tuple(INPUTS)
    image: tuple[int, int] = (224, 224)
    settings: tuple[Setting, ...] = field(init=False)

    def __post_init__(self) -> None:
        made = [
            Setting(p, t, b, i, self.image)
            for b in self.batches
            for t in self.threads
            for p in self.pairs
            for i in self.inputs
        ]
        object.__setattr__(self, "settings", tuple(made))


@cache
def network(name: str, image: tuple[int, int]) -> Graph:
    """A network with seed:0 weights."""
    return refnet.load(name, weights="seed:0", image=image)


def source(setting: Setting) -> AbstractContextManager[Capture]:
    """The setting's framework with its network; `again` runs it."""
    name, framework, _ = PAIRS[setting.pair]
    known = {"threads": setting.threads, "batch": setting.batch, "image": setting.image}
    python = interpreter("onnx" if framework == "onnxruntime" else framework)
    return planned(Request(framework, name, weights="seed:0", python=str(python), **known))


def data(setting: Setting, graph: Graph) -> dict[str, np.ndarray]:
    """The input of a run."""
    shape = (setting.batch, *graph.inputs["data"].shape[1:])
    return {"data": np.ascontiguousarray(INPUTS[setting.input](shape), F)}


def judged(setting: Setting, graph: Graph, values: Run) -> Verification:
    """Every value of one run, judged as it comes."""
    inputs = data(setting, graph)
    absent = PAIRS[setting.pair][2]
    capture = Streamed(inputs, (n.name for n in graph.nodes if n.name not in absent), values(inputs))
    found = verify_values(graph, capture, threads=2)
    capture.rest()
    return found


def line(setting: Setting, reference: Origin, found: Verification, seconds: float) -> dict[str, Any]:
    """What a run's line says."""
    shares: dict[str, float] = {}
    for node in found.nodes:
        if node.share is not None and np.isfinite(node.share.largest):
            shares[node.kind] = max(shares.get(node.kind, 0.0), node.share.largest)
    return {
        "key": setting.key,
        "setting": vars(setting) | {"image": list(setting.image)},
        "reference": {key: getattr(reference, key) for key in ("framework", "version", "isa", "mode")},
        "counts": dict(found.counts),
        "differ": sum(node.differ for node in found.nodes),
        "elements": sum(node.elements for node in found.nodes),
        "defects": [node.name for node in found.nodes if node.verdict == "defect"],
        "unjudged": sorted(
            {node.reason.split("elements ")[-1] for node in found.nodes if node.verdict == "unjudged"}
        ),
        "shares": shares,
        "seconds": round(seconds, 1),
    }


def run(plan: Plan, done: set[str]) -> Iterator[dict[str, Any]]:
    """A line for each setting that is not done yet; one framework's process for all that share it."""
    todo = [setting for setting in plan.settings if setting.key not in done]
    while todo:
        first = todo[0]
        same = [s for s in todo if (s.pair, s.threads, s.batch) == (first.pair, first.threads, first.batch)]
        todo = [s for s in todo if s not in same]
        graph = network(PAIRS[first.pair][0], first.image)
        with source(first) as capture:
            assert capture.again is not None
            for setting in same:
                begin = time.perf_counter()
                found = judged(setting, graph, capture.again)
                yield line(setting, capture.reference, found, time.perf_counter() - begin)


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results. A last one that was cut off is taken out of the file."""
    if not path.exists():
        return []
    *whole, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:
        path.write_text("".join(f"{one}\n" for one in whole), encoding="utf-8")
    try:
        return [json.loads(one) for one in whole]
    except ValueError as error:
        raise InputError(f"{path}: a line that is no JSON ({error})") from None


def carried_on(
    path: Path, keys: Sequence[str], run: Callable[[set[str]], Iterable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The lines of a file of results, after the runs that it lacks were made and added to it one by one.

    keys: of all runs. run(done): the lines of the runs whose keys are not among these.
    """
    found = lines(path)
    done = {one["key"] for one in found}
    with path.open("a", encoding="utf-8") as file, counting("runs", len(keys)) as advance:
        advance(sum(key in done for key in keys))
        for one in run(done):
            file.write(json.dumps(one) + "\n")
            file.flush()
            found.append(one)
            advance(1)
    return found


def summary(found: list[dict[str, Any]]) -> str:
    """A table: a row per pair, threads and batch."""
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in found:
        s, who = one["setting"], one["reference"]
        framework = f"{who['framework']} {who['version']}"
        key = (framework, PAIRS[s["pair"]][0], "x".join(map(str, s["image"])), s["threads"], s["batch"])
        rows.setdefault(key, []).append(one)
    heads = ("framework", "network", "image", "threads", "batch", "inputs", "values")
    heads += ("equal", "replayed", "rounding", "unjudged", "defects")
    text = [f"| {' | '.join(heads)} |", "|---|---|---|" + "---:|" * 9]
    for key, some in rows.items():
        counts: Counter[str] = Counter()
        for one in some:
            counts.update(one["counts"])
        kinds = ("equal", "replayed", "rounding", "unjudged", "defect")
        total = sum(counts[kind] for kind in kinds)
        cells = [*key, len(some), total, *(counts[kind] for kind in kinds)]
        text.append(f"| {' | '.join(f'{c:,}' if isinstance(c, int) else c for c in cells)} |")
    return "\n".join(text)


def main(arguments: list[str]) -> int:
    """Run the campaign; 1 if anything was called a defect."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="campaign"
    )
    parser.add_argument("results", type=Path, help="a file of JSON lines; it is added to")
    known = ", ".join(PAIRS)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="PAIR", help=known)
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="T,T", help="of the framework")
    parser.add_argument("--batch", type=numbers, default=[1, 4], metavar="B,B", help="images per run")
    parser.add_argument(
        "--inputs", type=int, default=len(INPUTS), metavar="N", help="the first N inputs only"
    )
    parser.add_argument("--image", type=size, default=(224, 224), metavar="H,W", help="default: 224,224")
    parser.add_argument(
        "--summary", action="store_true", help="run nothing, print the table of what is there"
    )
    a = parser.parse_args(arguments)
    if a.summary:
        found = lines(a.results)
    else:
        plan = Plan(tuple(a.pairs), tuple(a.threads), tuple(a.batch), tuple(INPUTS)[: a.inputs], a.image)
        found = carried_on(a.results, [one.key for one in plan.settings], lambda done: run(plan, done))
    print(summary(found))
    defects = [one for one in found if one["defects"]]
    for one in defects:
        print(f"defects in {one['key']}: {', '.join(one['defects'][:5])}")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
