"""Every row of OctConv's two tables, run by MXNet live and verified.

    python -m tests.crosscheck.families results.jsonl          goes on where it was stopped
    python -m tests.crosscheck.families results.jsonl --rows octave-resnet-200-0.5
    python -m tests.crosscheck.families results.jsonl --summary

Each of the 39 networks is built, exported for MXNet, captured whole (`refnet.capture`, seed:0 weights and
input) and verified (`refnet.verify`). One network of each family also runs in MXNet's default executor, which
joins nodes and shows fewer values. One line of JSON per run. The replay of these families:
`tests.crosscheck.identical`, rows FAMILIES.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import refnet
from refnet.cli.common import size
from refnet.models.catalog import entries
from tests.crosscheck.campaign import carried_on, lines
from tests.crosscheck.conftest import interpreter
from tests.crosscheck.identical import MEMBERS

NETWORKS = tuple(one.name for one in entries().values() if one.source.endswith("/OctConv"))


@dataclass(frozen=True)
class Setting:
    """One run. subgraph: "NONE", every value an output; or "default", watched as it runs. image: (h, w)."""

    network: str
    subgraph: str = "NONE"
    image: tuple[int, int] = (96, 96)

    @property
    def key(self) -> str:
        return json.dumps([*vars(self).values()])

    @property
    def mode(self) -> str:
        return "internals" if self.subgraph == "NONE" else "monitor"


def settings(networks: Collection[str], image: tuple[int, int]) -> list[Setting]:
    """Every network with each node executed as written; each family's member in the default executor."""
    plain = [Setting(name, image=image) for name in networks]
    joined = [Setting(name, "default", image=image) for name in MEMBERS.values() if name in networks]
    return plain + joined


def judged(setting: Setting) -> dict[str, Any]:
    """What a run's line says. deviation: of the output, which a network without life in it would not have."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="refnet-families-") as place:
        folder = Path(place, "capture")
        refnet.capture(
            "mxnet",
            setting.network,
            folder,
            weights="seed:0",
            image=setting.image,
            mode=setting.mode,
            subgraph=setting.subgraph,
            python=str(interpreter("mxnet")),
        )
        captured = time.perf_counter()
        found = refnet.verify(folder)
        ended = time.perf_counter()
        output = next(one.value for one in found.outputs if one.differ is not None)
        deviation = float(np.std(refnet.open_capture(folder).value(output)))
    shares = [one.share.largest for one in found.nodes if one.share is not None]
    return {
        "key": setting.key,
        "setting": asdict(setting),
        "counts": dict(found.counts),
        "elements": sum(one.elements for one in found.nodes),
        "defects": [one.name for one in found.nodes if one.verdict == "defect"],
        "unmatched": [one.name for one in found.unmatched],
        "largest share": max(shares, default=0.0),
        "deviation": deviation,
        "seconds": [round(captured - begin, 1), round(ended - captured, 1)],
    }


def summary(found: list[dict[str, Any]]) -> str:
    """A table: a line per run."""
    kinds = ("equal", "replayed", "rounding", "unjudged", "defect")
    heads = ("network", "executor", "values", *kinds, "elements", "largest share")
    text = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * 8]
    for one in found:
        counts, s = one["counts"], one["setting"]
        executor = "every node" if s["subgraph"] == "NONE" else "default"
        cells = [sum(counts[kind] for kind in kinds), *(counts[kind] for kind in kinds), one["elements"]]
        figures = " | ".join(f"{cell:,}" for cell in cells)
        text.append(f"| {s['network']} | {executor} | {figures} | {100 * one['largest share']:.1f} % |")
    return "\n".join(text)


def wrong(one: dict[str, Any]) -> str | None:
    """What must not be in a run; None if all is right."""
    counts = one["counts"]
    if one["defects"] or counts["unjudged"] or one["unmatched"]:
        return (
            f"defects {one['defects'][:5]}, {counts['unjudged']} unjudged, unmatched {one['unmatched'][:5]}"
        )
    if counts["missing"] and one["setting"]["subgraph"] == "NONE":
        return f"{counts['missing']} values are missing"
    return None if one["deviation"] > 0 else "the output is constant"


def run(plan: list[Setting], done: set[str]) -> Iterator[dict[str, Any]]:
    """A line for each setting that is not done yet."""
    for setting in plan:
        if setting.key not in done:
            yield judged(setting)


def main(arguments: list[str]) -> int:
    """Run the settings; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="families"
    )
    parser.add_argument("results", type=Path, help="a file of JSON lines; it is added to")
    parser.add_argument(
        "--rows", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME", help="default: all"
    )
    parser.add_argument("--image", type=size, default=(96, 96), metavar="H,W", help="default: 96,96")
    parser.add_argument(
        "--summary", action="store_true", help="run nothing, print the table of what is there"
    )
    a = parser.parse_args(arguments)
    if a.summary:
        found = lines(a.results)
    else:
        plan = settings(a.rows, a.image)
        found = carried_on(a.results, [one.key for one in plan], lambda done: run(plan, done))
    print(summary(found))
    faults = [(one["key"], said) for one in found if (said := wrong(one))]
    for key, said in faults:
        print(f"{key}: {said}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
