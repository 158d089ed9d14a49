"""Rows of `refnet evaluate`, bit for bit, whoever computes them: the whole comparison, as a command.

    python -m tests.crosscheck.evaluate [--count 2000] [--network NAME] [--folder DIR]

Makes an ImageNet-shaped folder (folders called like synsets, one image damaged) and evaluates a network with
synthetic weights on it with 1 process, 2 processes, dask local:2, and the latter two with a worker killed.
Every rows.csv must have the same bytes, and every image one row. CI runs a slice. With --folder a stopped
comparison goes on: ways that are finished are compared only, an unfinished one begins anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import refnet
from refnet.models.labels import labels
from tests.helpers.image_folder import by_class

NETWORK = "octave-mobilenet-v1-0.75-0.375"
"""The network of the tables with 1000 classes that takes least time."""
WAYS: dict[str, dict[str, object]] = {
    "1 process": {},
    "2 processes": {"processes": 2},
    "2 processes, one killed": {"processes": 2},
    "dask local:2": {"dask": "local:2"},
    "dask local:2, a worker killed": {"dask": "local:2"},
}


def descendants(parent: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have."""
    for entry in Path("/proc").iterdir():
        try:
            found = entry.name.isdecimal() and int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if found == parent:
            yield int(entry.name)
            yield from descendants(int(entry.name))


def busy(processes: list[int]) -> int:
    """The one that has computed most: a worker, not a helper of multiprocessing or a nanny."""

    def ticks(number: int) -> int:
        try:
            return sum(map(int, Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[11:13]))
        except OSError:
            return -1

    return max(processes, key=ticks)


class Killer:
    """Progress that kills a worker of this run once, after the first part. killed: its number.

    Processes that this one had before (a framework that other checks share) are left alone.
    """

    def __init__(self) -> None:
        self.killed: int | None = None
        self.others = set(descendants(os.getpid()))

    def __call__(self, done: int, total: int | None) -> None:
        if done and self.killed is None:
            self.killed = busy([one for one in descendants(os.getpid()) if one not in self.others])
            os.kill(self.killed, signal.SIGKILL)


def compare(folder: Path, count: int, network: str, say: Callable[[str], object]) -> None:
    """Raise AssertionError if a way gives other rows."""
    step = max(1, 1000 // count)
    synsets = [label.synset for label in labels("imagenet")][::step]
    made = folder / "images-are-made"
    if not made.exists():
        by_class(folder / "val", synsets, count, damaged=[7])
        made.touch()
    graph = refnet.load(network, weights="seed:0")
    expected = None
    for way, how in WAYS.items():
        killer = Killer() if "killed" in way else None
        begin = time.perf_counter()
        output = folder / way.replace(" ", "-")
        if (output / "rows.csv").exists():
            rows = (output / "rows.csv").read_bytes()
            expected = rows if expected is None else expected
            assert rows == expected, way
            say(f"{way}: {count} rows equal, finished before")
            continue
        shutil.rmtree(output, ignore_errors=True)
        found = refnet.evaluate(graph, folder / "val", output=output, progress=killer, **how)
        seconds = time.perf_counter() - begin
        rows = (output / "rows.csv").read_bytes()
        expected = rows if expected is None else expected
        assert rows == expected, way
        assert len({row.id for row in found.rows}) == len(found.rows) == count, way
        assert (found.counted, [row.label for row in found.unread]) == (
            count - 1,
            [7 * step],
        )
        assert killer is None or killer.killed is not None, way
        say(f"{way}: {count} rows equal, {count / seconds:.1f} images/s")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--folder", type=Path, help="keep everything there; default: a temporary folder")
    a = parser.parse_args()
    with ExitStack() as stack:
        folder = a.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        compare(folder, a.count, a.network, lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
