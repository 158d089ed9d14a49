"""This machine, the most that its FMA units can do, and the most that its memory can deliver."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Machine:
    """Where it was measured. peaks: threads -> GFLOP/s of `measured_peak`. bandwidths: threads -> GB/s of
    `measured_bandwidth`; empty where it was not asked for.
    """

    processor: str
    processors: int
    vector_bits: int
    load: float | None
    date: str
    versions: Mapping[str, str]
    peaks: Mapping[int, float] = field(default_factory=dict)
    bandwidths: Mapping[int, float] = field(default_factory=dict)


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


def measured_bandwidth(threads: int, seconds: float = 0.5, size: int | None = None) -> float:
    """GB/s (10^9 bytes) that this many threads read from memory in order: the most that weights and maps
    could arrive at.

    size: bytes of the array, default 256 MiB, or four times the largest cache where that is more, so that
    little of it is still in a cache when it is read again. The best of as many passes as fit in the time, at
    least three.
    """
    from refnet.kernels.stream import BLOCK, sums
    from refnet.kernels.thread_pool import parallel_for

    items = max(1, (size or max(256 << 20, 4 * _largest_cache())) // (8 * BLOCK))
    data = np.ones((items, BLOCK), np.int64)  # written, or every page would be the same one of zeros
    out = np.empty(items, np.int64)
    best, passes, end = 0.0, 0, time.perf_counter() + seconds
    while passes < 4 or time.perf_counter() < end:
        begin = time.perf_counter()
        parallel_for(sums, items, threads, data, out)
        taken = time.perf_counter() - begin
        if passes:  # the first one compiles the kernel and wakes the threads
            best = max(best, 1e-9 * data.nbytes / taken)
        passes += 1
    return best


def _largest_cache() -> int:
    """Bytes of the first processor's largest cache, as Linux says; 0 where nothing says it."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KMG]?)", path.read_text().strip())
        if found:
            sizes.append(int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]])
    return max(sizes)


def with_speeds(machine: Machine, threads: Sequence[int], memory: bool = False) -> Machine:
    """The machine with its peaks for these numbers of threads, measured now: up to a second for each.

    memory: measure the bandwidths, too.
    """
    peaks = {t: measured_peak(t) for t in dict.fromkeys(threads)}
    bandwidths = {t: measured_bandwidth(t) for t in peaks} if memory else {}
    return replace(machine, peaks=peaks, bandwidths=bandwidths)


def machine() -> Machine:
    """This machine, its load before anything is measured, and the versions that matter; no speeds yet."""
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
    return Machine(name, processors(), 8 * VECTOR, load, time.strftime("%Y-%m-%d"), versions)
