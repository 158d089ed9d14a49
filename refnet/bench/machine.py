"""This machine, and the most that its FMA units can do."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Machine:
    """Where it was measured. peaks: threads -> GFLOP/s of `measured_peak`."""

    processor: str
    processors: int
    vector_bits: int
    load: float | None
    date: str
    versions: Mapping[str, str]
    peaks: Mapping[int, float] = field(default_factory=dict)


def measured_peak(threads: int, seconds: float = 0.3) -> float:
    """GFLOP/s of float32 FMAs in registers on this many threads: the most that a network could reach.

    The best of many short measurements; nothing is loaded or stored.
    """
    from refnet.kernels.peak import chains, operations
    from refnet.kernels.thread_pool import parallel_for

    items, rounds = 4 * threads, 100
    out = np.empty(items, np.float32)
    out.fill(0.5)
    parallel_for(chains, items, threads, 1, out)  # compiled, and the threads are there
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        out.fill(0.5)
        begin = time.perf_counter()
        parallel_for(chains, items, threads, rounds, out)
        taken = time.perf_counter() - begin
        best = max(best, 1e-9 * operations(rounds) * items / taken)
        if taken < 0.01:
            rounds *= 2
    return best


def machine(threads: Sequence[int]) -> Machine:
    """This machine, its peaks for these numbers of threads, and the versions that matter."""
    from importlib.metadata import version

    import refnet
    from refnet.kernels.resources import processors
    from refnet.kernels.writer import VECTOR

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)):
        name = found[1]
    versions = {
        "refnet": refnet.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": version("numba"),
        "llvmlite": version("llvmlite"),
    }
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    peaks = {t: measured_peak(t) for t in dict.fromkeys(threads)}
    date = time.strftime("%Y-%m-%d")
    return Machine(name, processors(), 8 * VECTOR, load, date, versions, peaks)
