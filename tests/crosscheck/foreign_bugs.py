"""Bugs planted into networks of torchvision, timm and papers: each must be found at its node only.

    python -m tests.crosscheck.foreign_bugs results.jsonl                goes on where it was stopped
    python -m tests.crosscheck.foreign_bugs results.jsonl --networks unet small_transformer
    python -m tests.crosscheck.foreign_bugs results.jsonl --summary

The bug is in the framework: in the .onnx file that ONNX Runtime executes, or in the module that PyTorch
does. refnet judges every value by the right network. And each network is captured and judged without a bug:
no defect may be there. One line of JSON per run. It needs `.venv-onnx`, `.venv-torch` and `.venv-zoo`
(`.ci/environments.sh`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import refnet
from refnet.core.errors import RefnetError
from refnet.core.graph import Graph
from refnet.core.op import F32
from refnet.frameworks.process import Worker
from refnet.models.synthetic import normal
from tests.crosscheck.campaign import carried_on, lines
from tests.crosscheck.conftest import ROOT, interpreter
from tests.crosscheck.foreign_bug_edits import Edit
from tests.crosscheck.foreign_bug_table import BUGS, NETWORKS, Bug

PIXELS = ("mobilenet_v2",)
"""Networks that see pixels of 0 to 255 for nearly normal numbers: a relu6 must reach its limit."""


def pixels(side: int) -> F32:
    """An image of whole numbers, (1, 3, side, side)."""
    return np.floor(normal(0, "pixels", (1, 3, side, side)) * 50 + 128).clip(0, 255).astype(np.float32)


def key(network: str, route: str, bug: str) -> str:
    """Of a run's line; bug "": the network as it is."""
    return json.dumps([network, route, bug])


def python(network: str) -> str:
    """The interpreter that has PyTorch and the network's package."""
    return str(interpreter("torch" if NETWORKS[network][0] == "own" else "zoo"))


class Network:
    """A network by one route, in a folder: its right graph, and captures of it with and without a bug."""

    def __init__(self, name: str, route: str, folder: Path) -> None:
        self.name, self.route, self.folder = name, route, folder
        self.source, self.side = NETWORKS[name]
        self.path = folder / "right.onnx"
        if route == "onnxruntime":
            asked: dict[str, Any] = {
                "root": str(ROOT),
                "module": "foreign_bug_modules",
                "source": self.source,
                "name": name,
            }
            asked |= {"size": self.side, "dynamo": False, "path": str(self.path)}
            worker = Path(__file__).with_name("zoo_export_worker.py")
            with Worker(worker, python(name), threads=1) as started:
                started.ask("export", asked)
        else:
            self.path = self.capture(None) / "network.onnx"
        self.graph: Graph = refnet.load(self.path)

    def capture(self, bug: Bug | None) -> Path:
        """The folder of a capture with a bug, or without one."""
        folder = self.folder / ("capture" if bug is None else "planted")
        if bug is None and folder.exists():
            return folder
        if self.route == "torch":
            refnet.capture(
                "torch",
                "tests.crosscheck.foreign_bug_modules:network",
                folder,
                arguments=[self.source, self.name, self.side, "" if bug is None else str(bug.plant)],
                paths=[str(ROOT)],
                image=(self.side, self.side),
                mode="exported",
                python=python(self.name),
            )
            return folder
        path = self.path
        given: tuple[Path, ...] = ()
        if self.name in PIXELS:
            given = (self.folder / "pixels.npy",)
            np.save(given[0], pixels(self.side))
        if bug is not None:
            assert not isinstance(bug.plant, str)
            path = self.folder / "planted.onnx"
            model = onnx.load(self.path)
            bug.plant(Edit(model, self.node(bug)))
            onnx.save(model, path)
        refnet.capture("onnxruntime", path, folder, inputs=given, python=str(interpreter("onnx")))
        return folder

    def node(self, bug: Bug) -> str:
        """The name of the bug's node; OUTPUT: what the network returns, which exporters number."""
        return next(iter(self.graph.outputs.values())) if bug.node == "OUTPUT" else bug.node

    def judged(self, bug: Bug | None) -> dict[str, Any]:
        """What a run's line says. failed: the message of what stopped it."""
        begin = time.perf_counter()
        line: dict[str, Any] = {
            "key": key(self.name, self.route, bug.name if bug else ""),
            "network": self.name,
            "route": self.route,
            "bug": bug.name if bug else "",
            "node": self.node(bug) if bug else "",
        }
        try:
            found = refnet.verify(self.capture(bug), self.graph, other_sources=True, allow=["*"])
        except RefnetError as error:
            return {**line, "failed": f"{type(error).__name__}: {error}"[:400].replace(str(ROOT), "ROOT")}
        defects = [one for one in found.nodes if one.verdict == "defect"]
        return {
            **line,
            "failed": "",
            "nodes": len(found.nodes),
            "counts": dict(found.counts),
            "kind": next((one.kind for one in found.nodes if one.name == line["node"]), ""),
            "verdict": next((one.verdict for one in found.nodes if one.name == line["node"]), ""),
            "defects": [[one.name, one.kind, (one.reason or "")[:160], one.outside] for one in defects],
            "seconds": round(time.perf_counter() - begin, 1),
        }


def wrong(line: dict[str, Any]) -> str | None:
    """What must not be in a run's line; None if the bug, and nothing else, was found at its node."""
    if line["failed"]:
        return str(line["failed"])
    places = [one[0] for one in line["defects"]]
    if places == ([line["node"]] if line["bug"] else []):
        return None
    return f"defects {places[:3]}, expected {line['node'] or 'none'} ({line['verdict']})"


def run(bugs: Collection[Bug], done: Collection[str]) -> Iterator[dict[str, Any]]:
    """A line for each bug, and for each network and route without one, that is not done yet."""
    for name, route in dict.fromkeys((bug.network, bug.route) for bug in bugs):
        own = [bug for bug in bugs if (bug.network, bug.route) == (name, route)]
        todo = [bug for bug in (None, *own) if key(name, route, bug.name if bug else "") not in done]
        if not todo:
            continue
        with tempfile.TemporaryDirectory(prefix="refnet-bugs-") as place:
            network = Network(name, route, Path(place))
            for bug in todo:
                yield network.judged(bug)
                for made in ("planted", "planted.onnx"):
                    _remove(Path(place, made))


def _remove(path: Path) -> None:
    for one in path.iterdir() if path.is_dir() else ():
        one.unlink()
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def keys(bugs: Collection[Bug]) -> list[str]:
    """Of all runs."""
    clean = dict.fromkeys((bug.network, bug.route) for bug in bugs)
    return [key(*one, "") for one in clean] + [key(bug.network, bug.route, bug.name) for bug in bugs]


def summary(found: Collection[dict[str, Any]]) -> str:
    """Two tables: the bugs in the order of the table, and the networks without one."""
    by_key = {one["key"]: one for one in found}
    text = ["| bug | in practice | network | run by | node | found |", "|---|---|---|---|---|---|"]
    for bug in BUGS:
        one = by_key.get(key(bug.network, bug.route, bug.name))
        if one is None:
            continue
        verdict = "defect there, and nowhere else" if wrong(one) is None else f"**no**: {wrong(one)}"
        runner = "PyTorch" if bug.route == "torch" else "ONNX Runtime"
        cells = (bug.name, bug.practice, bug.network, runner, f"`{one['node']}`", verdict)
        text.append(f"| {' | '.join(cells)} |")
    text += ["", "| network | run by | nodes | defects |", "|---|---|---:|---:|"]
    for one in sorted((one for one in found if not one["bug"]), key=lambda one: one["network"]):
        runner = "PyTorch" if one["route"] == "torch" else "ONNX Runtime"
        ran = one["failed"] or f"{one['nodes']:,} | {len(one['defects'])}"
        text.append(f"| {one['network']} | {runner} | {ran} |")
    return "\n".join(text)


def main(arguments: list[str]) -> int:
    """Run the bugs; 1 if any was not found where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="foreign_bugs"
    )
    parser.add_argument("results", type=Path, help="a file of JSON lines; it is added to")
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME", help="default: all"
    )
    parser.add_argument("--summary", action="store_true", help="run nothing, print what is there")
    a = parser.parse_args(arguments)
    chosen = [bug for bug in BUGS if bug.network in a.networks]
    if a.summary:
        found = lines(a.results)
    else:
        found = carried_on(a.results, keys(chosen), lambda done: run(chosen, done))
    print(summary(found))
    faults = [(one["key"], said) for one in found if (said := wrong(one))]
    for name, said in faults:
        print(f"{name}: {said}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
