"""Networks that no catalog has, replayed: books of PyTorch and ONNX Runtime, and what these do not hold.

    python -m tests.crosscheck.foreign_replay results.jsonl                  goes on where it was stopped
    python -m tests.crosscheck.foreign_replay results.jsonl --rows unet deit_tiny_patch16_224
    python -m tests.crosscheck.foreign_replay results.jsonl --summary

The networks are those of foreign_networks.py. A book is revealed for each (into the folder
results.jsonl.books; one that is there is used): of ONNX Runtime without optimisations for the .onnx that
PyTorch's older exporter writes, at its opset; of PyTorch for the module, node by node as torch.export sees
it, attention product by product (`flash` in zoo_modules.py is False).

Then refnet replays the network from its input to its output, and compares every value that the framework
shows with the framework's own run on that input: one line of JSON per input. A node without a recipe takes
the framework's value, and is named with the reason. Every NaN counts as the same NaN. It needs `.venv-zoo`,
or, for networks of foreign_modules.py only, `.venv-torch`; and `.venv-onnx`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import refnet
from refnet.arithmetic.fusion_groups import hidden
from refnet.arithmetic.replay import Replay
from refnet.core.bits import equal_bits
from refnet.core.graph import Graph
from refnet.core.orders import Book
from refnet.formats.book import read
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import exported_module, inputs_of_module, planned
from refnet.frameworks.process import Worker
from refnet.frameworks.reveal.network import reveal
from tests.crosscheck.campaign import Run, carried_on, lines
from tests.crosscheck.conftest import ROOT, interpreter
from tests.crosscheck.foreign_networks import SIDES, SOURCES
from tests.crosscheck.identical import MORE

F = np.float32
NETWORKS = (
    *("unet", "unet_bilinear", "style_transfer", "small_transformer", "espcn", "resnet18"),
    *("mobilenet_v3_small", "deit_tiny_patch16_224", "ghostnet_100", "convnext_tiny"),
)
FRAMEWORKS = ("onnxruntime", "torch")
DATA = ("digit 0", "normal 2", "uniform, -1 to 1", "many sizes", "NaN")
"""Inputs, by the names that identical.py has for them."""


@dataclass(frozen=True)
class Setting:
    """A network in a framework. side: of the input."""

    network: str
    framework: str
    side: int

    @property
    def name(self) -> str:
        return f"{self.network}-{self.framework}-{self.side}"

    def key(self, data: str) -> str:
        return json.dumps([self.network, self.framework, self.side, data])


def settings(networks: Sequence[str], frameworks: Sequence[str]) -> list[Setting]:
    return [Setting(name, one, SIDES.get(name, 64)) for name in networks for one in frameworks]


def torch_python(network: str) -> str:
    """The Python that has the network: torch's own for those that need nothing else."""
    return str(interpreter("torch" if SOURCES[network] == "own" else "zoo"))


def exported(setting: Setting, folder: Path) -> Path:
    """The network's .onnx, written by PyTorch's older exporter."""
    path = folder / f"{setting.network}-{setting.side}.onnx"
    if not path.exists():
        request = {"source": SOURCES[setting.network], "name": setting.network, "size": setting.side}
        request |= {"root": str(ROOT), "module": "zoo_modules", "path": str(path), "dynamo": False}
        worker = Path(__file__).with_name("zoo_export_worker.py")
        with Worker(worker, torch_python(setting.network), threads=1) as running:
            running.ask("export", request)
    return path


def request_of(setting: Setting, folder: Path) -> Request:
    """Who is asked for what."""
    if setting.framework == "onnxruntime":
        return Request("onnxruntime", str(exported(setting, folder)), python=str(interpreter("onnx")))
    arguments = (SOURCES[setting.network], setting.network, setting.side, False)
    return Request(
        "torch",
        "tests.crosscheck.zoo_modules:network",
        arguments=arguments,
        paths=(str(ROOT),),
        image=(setting.side, setting.side),
        mode="exported",
        python=torch_python(setting.network),
    )


def running(request: Request, stack: ExitStack) -> tuple[Graph, Run, str]:
    """The network's graph, what runs it in the framework, and which version that is."""
    if request.framework == "torch":
        module = stack.enter_context(exported_module(request))
        plan = module.read_back(module.plan(inputs_of_module(request, module, "seed:1")))
        graph = module.graph
    else:
        plan = stack.enter_context(planned(request))
        graph = refnet.load(request.model)
    assert plan.again is not None
    return graph, plan.again, f"{plan.reference.version}, {plan.reference.isa}"


def compared(graph: Graph, book: Book, data: Mapping[str, np.ndarray], run: Run) -> dict[str, Any]:
    """refnet's own replay beside the framework's run, value by value, to the end."""
    replay = Replay(book)
    executed = replay.fused_graph(graph)
    theirs = dict(run(dict(data)))
    types = graph.types({name: refnet.TensorType(array.shape) for name, array in data.items()})
    known: dict[str, np.ndarray] = dict(data)
    differ: dict[str, int] = {}
    without: list[str] = []
    lost: list[str] = []
    shown = elements = odd = 0
    begin = time.perf_counter()
    for node in executed.nodes:
        found = theirs.get(node.name)
        if found is not None:
            kind = types[node.name]
            found = np.ascontiguousarray(found, kind.dtype).reshape(kind.shape)
        mine = None
        if all(name in known for name in node.data):
            inputs = [known[name] for name in node.data] + [executed.weights[name] for name in node.weights]
            mine = replay.evaluate_or_none(node, *inputs)
        if mine is None:
            without.append(node.name)
            if found is None:
                lost.append(node.name)
                continue
        elif found is not None:
            same = equal_bits(mine, found)
            shown, elements = shown + 1, elements + mine.size
            odd += int((~np.isfinite(found)).sum())
            if not same.all():
                differ[node.name] = int((~same).sum())
        known[node.name] = found if mine is None else mine  # type: ignore[assignment]
    inner = frozenset() if book.joined is None else hidden(book.joined)
    return {
        "nodes": len(graph.nodes),
        "values": shown,
        "hidden": len(executed.nodes) - shown - len(without) + len(inner),
        "elements": elements,
        "not finite": odd,
        "differ": differ,
        "without": without,
        "lost": lost,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def replayed(setting: Setting, folder: Path, data: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A line for each of these inputs; the book is revealed first."""
    folder.mkdir(exist_ok=True)
    path, seconds = folder / f"{setting.name}.json", None
    request = request_of(setting, folder)
    if not path.exists():
        begin = time.perf_counter()
        asked = path.with_suffix(".asked")
        reveal(request, asked)
        asked.replace(path)
        seconds = round(time.perf_counter() - begin, 1)
    book = read(path)
    reasons = {name: one.reason for one in book.unconfirmed for name in one.nodes}
    with ExitStack() as stack:
        graph, run, version = running(request, stack)
        ((name, kind),) = graph.inputs.items()
        for one in data:
            x = np.ascontiguousarray(MORE[one]((1, *kind.shape[1:])), F)
            found = compared(graph, book, {name: x}, run)
            kinds = {
                node: [repr(graph.by_name[node].op), reasons.get(node, "not in the book")]
                for node in found["without"]
            }
            yield {
                "key": setting.key(one),
                "setting": asdict(setting),
                "input": one,
                "version": version,
                "recipes": len(book.recipes),
                "reveal seconds": seconds,
                **found,
                "without": kinds,
            }
            seconds = None


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """A table, a line per network and framework; then the nodes without a recipe, with the reasons."""
    heads = ("network", "framework", "side", "nodes", "inputs", "values", "elements", "not finite")
    heads += ("values that differ", "nodes without a recipe", "recipes", "reveal, s")
    text = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    reasons: dict[str, dict[str, list[str]]] = {}
    for place in dict.fromkeys(json.dumps(one["setting"]) for one in found):
        of = [one for one in found if json.dumps(one["setting"]) == place]
        s = of[0]["setting"]
        asked = [one["reveal seconds"] for one in of if one["reveal seconds"]]
        cells = [s["network"], s["framework"], s["side"], of[0]["nodes"], len(of)]
        cells += [sum(one[key] for one in of) for key in ("values", "elements", "not finite")]
        cells += [sum(len(one["differ"]) for one in of), max(len(one["without"]) for one in of)]
        cells += [of[0]["recipes"], round(asked[0]) if asked else ""]
        text.append(f"| {' | '.join(f'{c:,}' if isinstance(c, int) else str(c) for c in cells)} |")
        for name, (op, reason) in of[0]["without"].items():
            kinds = reasons.setdefault(f"{s['network']} in {s['framework']}", {})
            kinds.setdefault(f"{op}: {reason[:160]}", []).append(name)
    for where, kinds in reasons.items():
        text += ["", f"{where}:"]
        text += [f"- {len(names)} x {kind} ({', '.join(names[:3])})" for kind, names in kinds.items()]
    return "\n".join(text)


def main(arguments: list[str]) -> int:
    """Run the settings; 1 if any value differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="foreign_replay"
    )
    parser.add_argument("results", type=Path, help="a file of JSON lines; it is added to")
    known = f"default: {', '.join(NETWORKS)}"
    parser.add_argument(
        "--rows", nargs="+", choices=SOURCES, default=list(NETWORKS), metavar="NAME", help=known
    )
    parser.add_argument(
        "--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS), help="default: both"
    )
    parser.add_argument("--summary", action="store_true", help="run nothing, print what is there")
    a = parser.parse_args(arguments)
    plan = settings(a.rows, a.frameworks)
    if a.summary:
        found = lines(a.results)
    else:
        books = a.results.with_name(a.results.name + ".books")

        def run(done: set[str]) -> Iterator[dict[str, Any]]:
            for one in plan:
                todo = [name for name in DATA if one.key(name) not in done]
                if todo:
                    yield from replayed(one, books, todo)

        found = carried_on(a.results, [one.key(name) for one in plan for name in DATA], run)
    print(summary(found))
    wrong = [one for one in found if one["differ"]]
    for one in wrong:
        first = next(iter(one["differ"]))
        print(f"{one['key']}: {len(one['differ'])} values differ, first {first}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
