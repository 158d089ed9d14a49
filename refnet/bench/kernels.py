"""Where the time of a run goes, kernel by kernel, as the run executes them.

    kernel_times ── refnet's worker ── TimedRun (arithmetic/timed_run.py)
        └────────── KernelTimes ── calls ── kinds

`profile` executes each node alone. A run repeats recorded kernels, each of them on what the one before left
in the caches: here each keeps its place, and the clock is read in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from refnet.bench.machine import Machine
from refnet.frameworks.launch import Prepared
from refnet.frameworks.process import Worker


@dataclass(frozen=True)
class KernelCall:
    """One call of a kernel in a run. See arithmetic/timed_run.py TimedCall; kernel: "" where it is none.

    seconds: the median and the lowest.
    """

    nodes: tuple[str, ...]
    kind: str
    op: str
    kernel: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    threads: int
    macs: int
    nbytes: int
    median: float
    lowest: float

    def floor(self, peak: float, bandwidth: float) -> float:
        """Seconds that it would take at the roofline: its multiply-adds at the peak (GFLOP/s), or its bytes
        at memory's speed (GB/s), whichever is longer; the lowest of its own if that is less, since what lies
        in a cache is not read from memory.

        >>> call = KernelCall(("y",), "dense", "Dense", "", ((1, 2), (1, 2)), 1, 10**9, 10**6, 0.030, 0.025)
        >>> call.floor(100.0, 10.0), call.floor(50.0, 10.0)
        (0.02, 0.025)
        """
        return min(self.lowest, max(2e-9 * self.macs / peak, 1e-9 * self.nbytes / bandwidth))


@dataclass(frozen=True)
class KernelKind:
    """All calls of one kind: how many, the sums of their median and of their lowest seconds, of their
    multiply-adds, of their bytes, and of their floors.
    """

    name: str
    calls: int
    median: float
    lowest: float
    macs: int
    nbytes: int
    floor: float


@dataclass(frozen=True)
class KernelTimes:
    """The kernels of one run, each timed so many times, and the seconds of so many whole runs in turns with
    those: as `refnet.run` repeats it (`whole`), and with a look at the clock between kernels (`timed`).
    rests: of each timed run, what its kernels did not take: the launch, the input's and the output's copy.
    """

    model: str
    threads: int
    batch: int
    calls: tuple[KernelCall, ...]
    whole: tuple[float, ...]
    timed: tuple[float, ...]
    rests: tuple[float, ...]

    @property
    def rest(self) -> float:
        """Median seconds of a run outside its kernels."""
        return median(self.rests)

    def kinds(self, machine: Machine) -> tuple[KernelKind, ...]:
        """The kinds, the longest first. machine: with the bandwidths."""
        peak, bandwidth = machine.peaks[self.threads], machine.bandwidths[self.threads]
        rows: dict[str, list[KernelCall]] = {}
        for call in self.calls:
            rows.setdefault(call.kind, []).append(call)
        kinds = [_kind(name, own, peak, bandwidth) for name, own in rows.items()]
        return tuple(sorted(kinds, key=lambda kind: -kind.lowest))


def _kind(name: str, own: Sequence[KernelCall], peak: float, bandwidth: float) -> KernelKind:
    return KernelKind(
        name,
        len(own),
        sum(call.median for call in own),
        sum(call.lowest for call in own),
        sum(call.macs for call in own),
        sum(call.nbytes for call in own),
        sum(call.floor(peak, bandwidth) for call in own),
    )


def kernel_times(
    prepared: Prepared,
    threads: int,
    batch: int,
    runs: int,
    advance: Callable[[int], object] = lambda done: None,
) -> KernelTimes:
    """Time every kernel of refnet's run so many times, in a process of its own.

    advance: called with the number of runs that are done. Raises FrameworkError where no run is captured, or
    no clock can be read.
    """
    racer = prepared.racers["refnet"]
    with Worker(racer.file, racer.python, threads=threads) as worker:
        request = {**racer.request, "threads": threads, "runs": runs}
        answer = worker.ask("kernels", request, prepared.data(batch))
    advance(runs)
    medians, lowest = np.median(answer.arrays["calls"], 0), answer.arrays["calls"].min(0)
    calls = tuple(
        _call(one, float(middle), float(least))
        for one, middle, least in zip(answer.field("calls", list), medians, lowest, strict=True)
    )
    whole, timed = answer.arrays["whole"], answer.arrays["timed"]
    rests = timed - answer.arrays["calls"].sum(1)
    seconds = (tuple(map(float, each)) for each in (whole, timed, rests))
    return KernelTimes(prepared.graph.name, threads, batch, calls, *seconds)


def _call(said: Any, middle: float, least: float) -> KernelCall:
    first, last = map(tuple, said["shapes"])
    return KernelCall(
        tuple(said["nodes"]),
        said["kind"],
        said["op"],
        said["kernel"],
        (first, last),
        said["threads"],
        said["macs"],
        said["nbytes"],
        middle,
        least,
    )
