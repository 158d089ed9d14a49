"""Networks that MXNet defines, from the files that MXNet writes: every value of its run judged.

    python -m tests.crosscheck.gluon_zoo                  all of them, a line of a table each
    python -m tests.crosscheck.gluon_zoo vgg11 mobilenet0.25

A network is written by MXNet (mxnet_models.py), loaded by refnet, captured in MXNet with every node
executed as written, and verified: 0 defects, 0 unjudged, nothing unmatched. refnet's own export of it is
captured and verified, too. MXNet computes nodes that are the same (op and inputs) once: of such twins only
one has a value, and what follows is judged over the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import refnet
from refnet.core.graph import Graph
from refnet.models.export import export
from refnet.verification.judgement import DEFECT, EQUAL, REPLAYED, ROUNDING
from tests.crosscheck.conftest import interpreter

SCRIPT = Path(__file__).with_name("mxnet_models.py")
SIZES = {"alexnet": 96, "densenet": 224, "inception": 299, "squeezenet": 224, "octave-resnet-50": 224}
"""Start of a name -> the image's side. densenet, inception and squeezenet end in pools of a fixed size."""
SIZE = 64
"""The side of all others."""
OTHERS = ("octave-resnet-50", "octave-resnet-26", "every-kind")
"""What mxnet_models.py builds itself: the MXNet network of OctConv's README, whole and short; each op."""
OWN = "prob"
"""The softmax on top of logits is a node of refnet only."""


@dataclass(frozen=True)
class Row:
    """What was found: nodes by their verdict. twins: those that MXNet computed as another."""

    name: str
    side: int
    nodes: int
    equal: int
    rounding: int
    twins: int
    defects: int
    unjudged: int
    unmatched: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether every value was judged and none is wrong."""
        return not (self.defects or self.unjudged or self.unmatched)

    def line(self) -> str:
        """A row of the table."""
        bad = "" if self.good else f" **{', '.join(self.unmatched[:3])}**"
        counts = (self.nodes, self.equal, self.rounding, self.twins, self.defects, self.unjudged)
        return f"| {self.name} | {self.side} | {' | '.join(map(str, counts))}{bad} |"


HEAD = "| network | side | nodes | same bits | within the bound | twins | defects | unjudged |"


def ask(*arguments: str | Path) -> str:
    """What mxnet_models.py prints in MXNet's own Python."""
    command = [interpreter("mxnet"), "-W", "ignore", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names() -> list[str]:
    """All networks of mxnet.gluon.model_zoo.vision."""
    found: list[str] = json.loads(ask("names"))
    return found


def side_of(name: str) -> int:
    """The image's side for a network."""
    return next((size for start, size in SIZES.items() if name.startswith(start)), SIZE)


def written(name: str, side: int, folder: Path) -> tuple[Path, Graph]:
    """MXNet's symbol file of a network, and refnet's graph with MXNet's parameters."""
    ask("write", name, str(side), folder)
    symbol = folder / f"{name}-symbol.json"
    return symbol, refnet.load(symbol, weights=folder / f"{name}-0000.params", image=(side, side))


def verified(name: str, symbol: Path, graph: Graph, folder: Path, allow: tuple[str, ...] = ()) -> Row:
    """A run of a symbol file with this graph's weights, captured in MXNet and judged.

    allow: nodes that MXNet need not show.
    """
    side = next(iter(graph.inputs.values())).shape[-1]
    params = symbol.with_name(symbol.name.replace("-symbol.json", "-0000.params"))
    python = str(interpreter("mxnet"))
    place = folder / f"capture-{symbol.stem}"
    refnet.capture("mxnet", symbol, place, weights=params, image=(side, side), inputs="seed:1", python=python)
    found = refnet.verify(place, graph, allow=allow)
    counts = found.counts
    judged = (EQUAL, REPLAYED, ROUNDING, DEFECT)
    left = {one.name for one in found.nodes if one.verdict not in judged} - set(allow)
    same = Counter((node.op, node.inputs) for node in graph.nodes)
    twins = {name for name in left if same[graph.by_name[name].op, graph.by_name[name].inputs] > 1}
    equal, unmatched = counts[EQUAL] + counts[REPLAYED], tuple(one.name for one in found.unmatched)
    return Row(
        name,
        side,
        len(graph.nodes),
        equal,
        counts[ROUNDING],
        len(twins),
        counts[DEFECT],
        len(left - twins),
        unmatched,
    )


def rows(name: str, side: int | None = None, exported: bool = True) -> list[Row]:
    """Of a network: from MXNet's own file, and, if `exported`, from refnet's export of what it read."""
    side = side or side_of(name)
    with tempfile.TemporaryDirectory(prefix="refnet-zoo-") as place:
        folder = Path(place)
        symbol, graph = written(name, side, folder)
        own = () if f'"{OWN}"' in symbol.read_text() else (OWN,)
        first = verified(name, symbol, graph, folder, own)
        if not exported:
            return [first]
        again, params = export(graph, folder / "exported", "mxnet")
        back = refnet.load(again, weights=params, image=(side, side))
        return [first, verified(f"{name}, exported", again, back, folder)]


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a value is wrong or was not judged."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="gluon_zoo"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="default: the whole zoo, and " + ", ".join(OTHERS)
    )
    chosen = parser.parse_args(arguments).names
    print(f"{HEAD}\n|{'---|' * 8}", flush=True)
    good = True
    for name in chosen or [*names(), *OTHERS]:
        for row in rows(name):
            print(row.line(), flush=True)
            good = good and row.good
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.exit(main(sys.argv[1:]))
