"""From nothing to the first result: importing, compiling, loading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from refnet.bench.race import Advance
from refnet.core.errors import FrameworkError
from refnet.frameworks.launch import PACKAGE, Prepared

FIRST = """
import json, sys, time
times = [time.perf_counter()]
sys.path[:0] = json.loads(sys.argv[1])["paths"]
def passed(): times.append(time.perf_counter())
from refnet.arithmetic.plain import Plain
from refnet.core.interpreter import run
from refnet.models.loading import load
import numpy as np
passed()
request = json.loads(sys.argv[1])
image = tuple(request["image"]) if request["image"] else None
graph = load(request["model"], weights=request["weights"], network=request["network"], image=image)
passed()
data = {name: np.zeros(kind.shape, np.float32) for name, kind in graph.inputs.items()}
for _ in range(4):
    run(graph, data, Plain(request["threads"]))
    passed()
print(json.dumps(times))
"""


@dataclass(frozen=True)
class Process:
    """Seconds of one process, its runs one by one.

    whole: from asking for the process to its end. importing, reading: refnet, the model with its weights.
    first: the first run, which loads or compiles kernels and packs weights. later: the runs after it.
    """

    whole: float
    importing: float
    reading: float
    first: float
    later: tuple[float, ...]

    @property
    def run(self) -> float:
        """A run when everything is loaded."""
        return median(self.later)

    @property
    def ends(self) -> float:
        """The interpreter's start and end: what is left of the whole."""
        return self.whole - self.importing - self.reading - self.first - sum(self.later)

    @property
    def loading(self) -> float:
        """Importing, reading, and what the first run takes more than a later one: kernels, packed weights."""
        return self.importing + self.reading + self.first - self.run

    @property
    def rest(self) -> float:
        """Everything but running: loading, and the interpreter's start and end."""
        return self.loading + self.ends


@dataclass(frozen=True)
class Start:
    """Seconds from nothing. import_, help: of whole processes, and of an empty one, medians.

    first: of a process that has to compile every kernel. second: of those after it, the one whose loading is
    the median.
    """

    model: str
    threads: int
    empty: float
    import_: float
    help: float
    first: Process
    second: Process


def startup(prepared: Prepared, threads: int, runs: int, advance: Advance = lambda done: None) -> Start:
    """Time what a new user waits for: import, help, compiling, and loading what has been compiled.

    runs: how many processes of each kind are timed, but for the one that compiles. Python may keep the
    bytecode of refnet's files, as where it is installed, even if PYTHONDONTWRITEBYTECODE says no.
    """

    def process(arguments: Sequence[str], **environment: str) -> tuple[float, str]:
        variables = {**os.environ, "REFNET_QUIET": "1", "PYTHONPATH": PACKAGE, **environment}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-P", *arguments], env=variables, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise FrameworkError(f"refnet's own process failed: {done.stderr[-2000:]}")
        advance(1)
        return seconds, done.stdout

    def typical(*arguments: str) -> float:
        return median(process(arguments)[0] for _ in range(runs))

    def call(folder: str) -> Process:
        request = {**prepared.racers["refnet"].request, "threads": threads}
        whole, text = process(["-c", FIRST, json.dumps(request)], REFNET_CACHE=folder)
        importing, reading, first, *later = (b - a for a, b in pairwise(json.loads(text)))
        return Process(whole, importing, reading, first, tuple(later))

    empty, imported, shown = (
        typical("-c", "pass"),
        typical("-c", "import refnet"),
        typical("-m", "refnet", "--help"),
    )
    with tempfile.TemporaryDirectory() as folder:
        first = call(folder)
        second = sorted((call(folder) for _ in range(runs)), key=lambda process: process.loading)[runs // 2]
    return Start(prepared.graph.name, threads, empty, imported, shown, first, second)
