"""Identical bits: each row of the table in docs/replay.md, against the frameworks running live.

    python -m tests.crosscheck.identical results.jsonl          goes on where it was stopped
    python -m tests.crosscheck.identical results.jsonl --rows torch-1x1 mxnet-1x1
    python -m tests.crosscheck.identical results.jsonl --summary

A row is a network in a framework with its threads, batch and mode. Its book is revealed first (into the
folder results.jsonl.books; a book that is there is used). Then refnet replays the network alone, from the
input to the output, and every value must have the bits that the framework's own run gave: one line of JSON
per input. Every NaN counts as the same NaN.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import refnet
from refnet.arithmetic.fusion_groups import hidden
from refnet.arithmetic.replay import Replay
from refnet.cli.common import counting, size
from refnet.core.bits import equal_bits
from refnet.core.graph import Graph
from refnet.core.orders import Book
from refnet.formats.book import read
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import planned
from refnet.frameworks.reveal.network import reveal
from refnet.frameworks.reveal.values import twins
from refnet.ops import Softmax
from tests.crosscheck.campaign import INPUTS, Run, Shape, Streamed, drawn, lines
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.converted import converted
from tests.helpers.official import SYMBOLS

F = np.float32
OCTAVE, RESNEST = "octave-se-resnet-50-0.125", "resnest-50-pytorch"


BUILT = {
    "densenet-121_alpha-0.125-symbol.json": "octave-densenet-121-0.125",
    "mobilenet_v1_075_alpha-0.375-symbol.json": "octave-mobilenet-v1-0.75-0.375",
    "resnext-50_32x4d_alpha-0.25-symbol.json": "octave-resnext-50-0.25",
}


@dataclass(frozen=True)
class Row:
    """framework, network (a name or a file of SYMBOLS), threads, batch. mode: MXNet's, of the runs.

    asked: its mode while the book is revealed, where that is another (mode outputs shows no value inside).
    subgraph: MXNet's subgraph backend; "default" joins nodes. ir: OpenVINO's, of a network that its converter
    has written: how the weights are stored, "f32" or "f16".
    """

    framework: str
    network: str
    threads: int = 1
    batch: int = 1
    mode: str | None = None
    asked: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    subgraph: str = "NONE"
    ir: str = ""

    def model(self, folder: Path, image: tuple[int, int]) -> str:
        """The network as refnet's commands take it. folder: where a converted one is written.

        Of a symbol file that is not here it is the builder's graph, which has the same nodes
        (tests/models/official_structures.json).
        """
        if self.ir:
            half = self.ir == "f16"
            path = converted(self.network, folder, weights="seed:0", half=half, image=image, batch=self.batch)
            return str(path)
        symbol = SYMBOLS / self.network
        return str(symbol) if symbol.is_file() else BUILT.get(self.network, self.network)


def _settings(framework: str, network: str, batches: tuple[int, ...], **more: Any) -> dict[str, Row]:
    short = {"onnxruntime": "onnx"}.get(framework, framework)
    return {f"{short}-{t}x{b}": Row(framework, network, t, b, **more) for t in (1, 2) for b in batches}


ROWS: Mapping[str, Row] = {
    **_settings("torch", RESNEST, (1, 2, 4)),
    **_settings("mxnet", OCTAVE, (1, 2, 4), mode="internals"),
    **_settings("onnxruntime", RESNEST, (1,)),
    **_settings("openvino", RESNEST, (1,)),
    **{f"{name}-octave": row for name, row in _settings("openvino", OCTAVE, (1,)).items()},
    "openvino-f32": Row("openvino", RESNEST, ir="f32"),
    "openvino-f16": Row("openvino", RESNEST, ir="f16"),
    "openvino-f32-octave": Row("openvino", OCTAVE, ir="f32"),
    "openvino-f16-octave": Row("openvino", OCTAVE, ir="f16"),
    "resnest-101": Row("torch", "resnest-101-pytorch"),
    "fast-2s2x40d": Row("torch", "resnest-50-fast-2s2x40d-pytorch"),
    "fast-4s2x40d": Row("torch", "resnest-50-fast-4s2x40d-pytorch"),
    "densenet": Row("mxnet", "densenet-121_alpha-0.125-symbol.json", mode="internals"),
    "resnext": Row("mxnet", "resnext-50_32x4d_alpha-0.25-symbol.json", mode="internals"),
    "mxnet-plain": Row("mxnet", OCTAVE, mode="outputs", asked="monitor"),
    "mxnet-default": Row("mxnet", OCTAVE, mode="outputs", asked="monitor", subgraph="default"),
    "mxnet-default-2x1": Row("mxnet", OCTAVE, 2, mode="outputs", asked="monitor", subgraph="default"),
    "mxnet-default-1x4": Row("mxnet", OCTAVE, 1, 4, mode="outputs", asked="monitor", subgraph="default"),
    "mxnet-default-shown": Row("mxnet", OCTAVE, mode="monitor", subgraph="default"),
    "mobilenet": Row("mxnet", "mobilenet_v1_075_alpha-0.375-symbol.json", mode="internals"),
    "torch-avx": Row(
        "torch",
        RESNEST,
        environment={"ONEDNN_MAX_CPU_ISA": "AVX", "MKL_CBWR": "COMPATIBLE"},
    ),
}

MEMBERS = {
    "mobilenet-v1": "octave-mobilenet-v1-0.75-0.375",
    "mobilenet-v2": "octave-mobilenet-v2-1.0-0.375",
    "densenet-121": "octave-densenet-121-0.125",
    "resnext-101": "octave-resnext-101-0.25",
    "resnet-152": "octave-resnet-152-v1f-0.125",
    "se-resnet-152": "octave-se-resnet-152-v1e-0.125",
    "resnet-200": "octave-resnet-200-0.125",
}
"""Family of OctConv's two tables -> the member that is replayed."""

FAMILIES: Mapping[str, Row] = {
    **{family: Row("mxnet", name, mode="internals") for family, name in MEMBERS.items()},
    **{
        f"{family}-default": Row("mxnet", name, mode="monitor", subgraph="default")
        for family, name in MEMBERS.items()
    },
}
"""Rows of a table of their own, made with images of 96 x 96; they run when they are named."""
ALL = {**ROWS, **FAMILIES}


IR = {"f32": "converted, FP32", "f16": "converted, FP16"}
"""What the table says of a converted network."""


def some(value: float, every: int) -> Callable[[np.ndarray], np.ndarray]:
    """Every so many elements are the value, or its negative in turn."""

    def change(x: np.ndarray) -> np.ndarray:
        flat = x.copy().reshape(-1)
        flat[::every] = value
        flat[every :: 2 * every] = -value
        return flat.reshape(x.shape)

    return change


MORE: Mapping[str, Callable[[Shape], np.ndarray]] = {
    **INPUTS,
    "infinities": drawn(12, some(np.inf, 9973)),
    "NaN": drawn(13, some(np.nan, 19997)),
}


def request_of(row: Row, model: str, image: tuple[int, int]) -> Request:
    """Who is asked for what."""
    python = str(interpreter("onnx" if row.framework == "onnxruntime" else row.framework))
    known = {"threads": row.threads, "batch": row.batch, "mode": row.mode, "environment": row.environment}
    known["subgraph"] = row.subgraph
    if not row.ir:  # which has weights, and a size, of its own
        known |= {"weights": "seed:0", "image": image}
    return Request(row.framework, model, python=python, **known)


def graph_of(row: Row, model: str, image: tuple[int, int]) -> Graph:
    """The network with its weights. model: what `Row.model` gave."""
    return refnet.load(model) if row.ir else refnet.load(model, weights="seed:0", image=image)


def book_of(row: Row, model: str, path: Path, image: tuple[int, int]) -> float:
    """Reveal the row's book; the seconds it took. Nodes without a recipe end the run, and leave no book."""
    begin = time.perf_counter()
    asked = path.with_suffix(".asked")
    found = reveal(replace(request_of(row, model, image), mode=row.asked or row.mode), asked)
    if found.book.unconfirmed:
        raise SystemExit(f"{asked}: not confirmed: {[vars(one) for one in found.book.unconfirmed]}")
    asked.replace(path)
    return time.perf_counter() - begin


def compared(graph: Graph, book: Book, inputs: Mapping[str, np.ndarray], run: Run) -> dict[str, Any]:
    """refnet's own replay beside the framework's run, value by value, to the end.

    A node that the framework computes once with another that is the same, and so does not show, must have
    the bits of that one: it is eliminated.
    """
    replay = Replay(book)
    executed = replay.fused_graph(graph)
    order = [node.name for node in executed.nodes]
    inner = frozenset() if book.joined is None else hidden(book.joined)
    theirs = Streamed(inputs, order, run(inputs))
    differ: dict[str, int] = {}
    missing: list[str] = []
    same_as = twins(executed)
    kept: dict[str, np.ndarray] = {}
    shown = elements = odd = 0
    seconds = 0.0
    walk = refnet.steps(graph, inputs, replay)
    for name in order:
        begin = time.perf_counter()
        _, mine = next(walk)
        seconds += time.perf_counter() - begin
        if name in same_as:
            kept[name] = mine
        try:
            value = np.asarray(theirs.value(name)).reshape(mine.shape)
        except ValueError as error:
            if "made no value" not in str(error):
                raise
            last = isinstance(executed.by_name[name].op, Softmax) and name in graph.outputs.values()
            if not last and name not in inner:
                missing.append(name)  # else: the framework's network ends with what the softmax reads
            continue
        same = equal_bits(mine, value.reshape(mine.shape))
        shown, elements = shown + 1, elements + mine.size
        odd += int((~np.isfinite(value)).sum())
        if not same.all():
            differ[name] = int((~same).sum())
    eliminated = [name for name in missing if set(same_as.get(name, ())) - set(missing)]
    for name in eliminated:
        (other, *_) = set(same_as[name]) - set(missing)
        if not (same := equal_bits(kept[name], kept[other])).all():
            differ[name] = int((~same).sum())
    missing = [name for name in missing if name not in eliminated]
    return {
        "values": shown,
        "nodes": len(order),
        "elements": elements,
        "not finite": odd,
        "differ": differ,
        "not shown": missing,
        "eliminated": len(eliminated),
        "replay seconds": round(seconds, 3),
    }


def run(
    names: tuple[str, ...], inputs: tuple[str, ...], image: tuple[int, int], books: Path, done: set[str]
) -> Iterator[dict[str, Any]]:
    """A line for each row and input that is not done yet."""
    books.mkdir(exist_ok=True)
    for name in names:
        row = ALL[name]
        todo = {json.dumps([name, one, list(image)]): one for one in inputs}
        todo = {key: one for key, one in todo.items() if key not in done}
        if not todo:
            continue
        path = books / f"{name}-{image[0]}x{image[1]}.json"
        model = row.model(books, image)
        seconds = None if path.exists() else book_of(row, model, path, image)
        graph, book = graph_of(row, model, image), read(path)
        with planned(request_of(row, model, image)) as capture:
            assert capture.again is not None
            for key, one in todo.items():
                shape = (row.batch, *graph.inputs["data"].shape[1:])
                data = {"data": np.ascontiguousarray(MORE[one](shape), F)}
                yield {
                    "key": key,
                    "row": name,
                    "input": one,
                    "image": list(image),
                    "setting": asdict(row) | {"environment": dict(row.environment)},
                    "reference": {"version": capture.reference.version, "isa": capture.reference.isa},
                    "reveal seconds": None if seconds is None else round(seconds, 1),
                    "book bytes": path.stat().st_size,
                    **compared(graph, book, data, capture.again),
                }
                seconds = None


def summary(found: list[dict[str, Any]]) -> str:
    """A table: a line per row."""
    heads = ("framework", "network", "mode", "threads", "batch", "inputs", "values", "elements")
    heads += ("not finite", "values that differ", "reveal, s", "book, KB")
    text = [f"| {' | '.join(heads)} |", "|---|---|---|" + "---:|" * 9]
    for name in dict.fromkeys(one["row"] for one in found):
        of = [one for one in found if one["row"] == name]
        s = of[0]["setting"]
        extra = ", ".join(f"{k}={v}" for k, v in s["environment"].items())
        cells = [f"{s['framework']} {of[0]['reference']['version']}", s["network"]]
        default = "default executor" if s.get("subgraph") == "default" else ""
        cells += [
            ", ".join(word for word in (s["mode"], default, extra, IR.get(s.get("ir", ""), "")) if word),
            s["threads"],
            s["batch"],
            len(of),
        ]
        cells += [sum(one[key] for one in of) for key in ("values", "elements", "not finite")]
        cells += [sum(len(one["differ"]) for one in of)]
        asked = [one["reveal seconds"] for one in of if one["reveal seconds"]]
        cells += [round(asked[0]) if asked else "", -(-of[0]["book bytes"] // 1000)]
        text.append(f"| {' | '.join(f'{c:,}' if isinstance(c, int) else str(c) for c in cells)} |")
    return "\n".join(text)


def _outputs_only(one: Mapping[str, Any]) -> bool:
    return bool(one["setting"]["mode"] == "outputs")


def main(arguments: list[str]) -> int:
    """Run the rows; 1 if any value differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="identical"
    )
    parser.add_argument("results", type=Path, help="a file of JSON lines; it is added to")
    known = f"{', '.join(ROWS)} (the default: all of these), {', '.join(FAMILIES)}"
    parser.add_argument("--rows", nargs="+", choices=ALL, default=list(ROWS), metavar="ROW", help=known)
    parser.add_argument("--inputs", type=int, default=len(MORE), metavar="N", help="the last N inputs only")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every K-th of these, and the last")
    parser.add_argument("--image", type=size, default=(224, 224), metavar="H,W", help="default: 224,224")
    parser.add_argument(
        "--summary", action="store_true", help="run nothing, print the table of what is there"
    )
    a = parser.parse_args(arguments)
    found = lines(a.results)
    if not a.summary:
        inputs = tuple(MORE)[-a.inputs :][:: -a.every][::-1]
        done = {one["key"] for one in found}
        books = a.results.with_name(a.results.name + ".books")
        with a.results.open("a", encoding="utf-8") as file, counting("runs", len(a.rows) * len(inputs)) as on:
            on(sum(json.dumps([r, i, list(a.image)]) in done for r in a.rows for i in inputs))
            for one in run(tuple(a.rows), inputs, a.image, books, done):
                file.write(json.dumps(one) + "\n")
                file.flush()
                found.append(one)
                on(1)
    print(summary(found))
    wrong = [one for one in found if one["differ"]]
    hidden = [one for one in found if not one["values"] or (one["not shown"] and not _outputs_only(one))]
    for one in hidden:
        print(f"{one['key']}: the framework showed {one['values']} of {one['nodes']} values")
    for one in wrong:
        first = next(iter(one["differ"]))
        count = one["differ"][first]
        print(f"{one['key']}: {len(one['differ'])} values differ, first {first} ({count} elements)")
    return 1 if wrong or hidden else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
