"""Two programs, measured in turns: refnet once, the framework once, refnet once ...

    compare ── race ── Pair ── Side (seconds, memory)

Each runs in a process of its own that has loaded everything, after a warm-up of both. Whatever disturbs the
machine disturbs both, so the ratios of single pairs are worth more than that of two figures measured apart.

Before each run that counts, its program runs for SETTLE seconds that do not: a framework's idle threads go
on spinning for 7 ms (libgomp) to 33 ms (ONNX Runtime) after a run, which is their fastest setting and stays
as it is, but must not slow the other down; and both find their caches as they are in a series of runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from refnet.core.errors import FrameworkError
from refnet.frameworks.launch import Prepared, Racer
from refnet.frameworks.process import Worker

WARMUP = 1
"""Turns of each before any is counted."""
SETTLE = 0.05
"""Seconds of runs that do not count, before each that does."""
SLOW = 2
"""Runs against onnx.reference, which takes many seconds for each and does not settle."""


Advance = Callable[[int], object]


@dataclass(frozen=True)
class Side:
    """One of the two of a race: seconds of each run, the largest memory of its process in bytes."""

    name: str
    version: str
    batch: int
    seconds: tuple[float, ...]
    memory: int | None

    @property
    def per_image(self) -> float:
        """Median seconds of a run, divided by the images in it."""
        return median(self.seconds) / self.batch


@dataclass(frozen=True)
class Pair:
    """A race's result. macs: multiply-adds per image. agree: both gave every image the same class.

    >>> left = Side("refnet", "0.1.0", 1, (1.0, 2.0, 9.0), None)
    >>> pair = Pair("net", 1, 10**9, True, left, Side("torch", "2.13.0", 1, (2.0, 4.0, 6.0), None))
    >>> pair.ratio, pair.ratios
    (0.5, (0.5, 0.5, 1.5))
    >>> pair.paired, pair.gflops
    (0.5, 1.0)
    """

    model: str
    threads: int
    macs: int
    agree: bool
    ours: Side
    theirs: Side

    @property
    def ratio(self) -> float:
        """Ratio of the medians per image: below 1 refnet is faster."""
        return self.ours.per_image / self.theirs.per_image

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ratio per image of each run to the run that followed it."""
        images = self.theirs.batch / self.ours.batch
        return tuple(a / b * images for a, b in zip(self.ours.seconds, self.theirs.seconds, strict=True))

    @property
    def paired(self) -> float:
        """Median of the ratios of the single pairs."""
        return median(self.ratios)

    @property
    def gflops(self) -> float:
        """refnet's 10^9 operations per second, a multiply-add of convolution and dense as two."""
        return 2e-9 * self.macs / self.ours.per_image


def compare(
    prepared: Prepared,
    threads: Sequence[int],
    batches: Sequence[int],
    runs: int,
    advance: Advance = lambda done: None,
) -> list[Pair]:
    """Race refnet against every other racer, for all threads and batches; and, if there are several
    batches, refnet's larger ones against its own smallest. `advance` is called after every pair of runs.

    Raises FrameworkError if a framework fails.
    """
    own, *others = prepared.racers.values()
    pairs = []
    for t in threads:
        for batch in batches:
            pairs += [race(prepared, (own, batch), (other, batch), t, runs, advance) for other in others]
        least, *more = sorted(batches)
        pairs += [race(prepared, (own, batch), (own, least), t, runs, advance) for batch in more]
    return pairs


def count_runs(prepared: Prepared, threads: Sequence[int], batches: Sequence[int], runs: int) -> int:
    """How often `compare` will call `advance`."""
    _, *others = prepared.racers.values()
    each = [counts(other.slow, runs) for other in others]
    own = counts(False, runs)
    return len(threads) * (sum(map(sum, each)) * len(batches) + sum(own) * (len(batches) - 1))


def race(
    prepared: Prepared,
    ours: tuple[Racer, int],
    theirs: tuple[Racer, int],
    threads: int,
    runs: int,
    advance: Advance = lambda done: None,
) -> Pair:
    """Run two racers in turns; each is a racer and its batch. Raises FrameworkError."""
    warmup, runs = counts(ours[0].slow or theirs[0].slow, runs)
    with ExitStack() as stack:
        streams, pids = [], []
        for racer, batch in (ours, theirs):
            worker = stack.enter_context(Worker(racer.file, racer.python, threads=threads))
            settle = 0.0 if racer.slow else SETTLE
            request = {**racer.request, "threads": threads, "runs": warmup + runs, "settle": settle}
            streams.append(worker.stream("time", request, prepared.data(batch)))
            pids.append(int(_next(streams[-1], "pid")))
        seconds: tuple[list[float], list[float]] = ([], [])
        for i in range(warmup + runs):
            for stream, taken in zip(streams, seconds, strict=True):
                taken.append(float(_next(stream, "seconds")))
                if i < warmup:
                    taken.clear()
            advance(1)
        outputs = [_next(stream, "output") for stream in streams]
        memory = [_memory(pid) for pid in pids]
    sides = [
        Side(racer.name, racer.version, batch, tuple(taken), peak)
        for (racer, batch), taken, peak in zip((ours, theirs), seconds, memory, strict=True)
    ]
    count = min(len(output) for output in outputs)
    classes = [output[:count].reshape(count, -1).argmax(1) for output in outputs]
    agree = bool((classes[0] == classes[1]).all())
    return Pair(prepared.graph.name, threads, prepared.macs, agree, sides[0], sides[1])


def counts(slow: bool, runs: int) -> tuple[int, int]:
    """(runs of warm-up, runs that count). slow: whether one of the two is."""
    return WARMUP, min(runs, SLOW) if slow else runs


def _next(stream: Iterator[tuple[str, Any]], expected: str) -> Any:
    """The next value of a worker, which must have this name."""
    name, value = next(stream, ("nothing", None))
    if name != expected:
        raise FrameworkError(f"a worker sent {name!r} where {expected!r} must come")
    return value


def _memory(pid: int) -> int | None:
    """The largest resident memory that a process has had, in bytes; None where the system does not say.

    VmHWM of Linux, not getrusage's ru_maxrss: that one is handed down from the process that started it.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
