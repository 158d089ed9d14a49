"""What `refnet bench --kernels` prints and writes: a table per network, JSON, a CSV of all calls."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from refnet.bench.kernels import KernelCall, KernelTimes
from refnet.bench.machine import Machine
from refnet.report.table import Table
from refnet.report.terminal import show, table

COLUMNS = (
    *(
        "network",
        "threads",
        "batch",
        "call",
        "kind",
        "op",
        "kernel",
        "nodes",
        "data",
        "value",
        "call_threads",
    ),
    *("macs", "bytes", "median_us", "lowest_us", "floor_us", "runs"),
    *(
        "run_median_ms",
        "run_lowest_ms",
        "run_rest_ms",
        "peak_gflop_per_s",
        "memory_gb_per_s",
        "load_average",
        "date",
    ),
    "processor",
)
"""Of the CSV. call: its place in the run, from 1 on. nodes: their names, a blank between two. data, value:
the shapes of the first node's data and of the last one's value. bytes: of the arrays that the kernel is
given. run_rest_ms: median time of a run outside its kernels."""
DROPPED = ("median ms", "GB/s", "of peak", "calls", "floor ms", "GFLOP/s")
"""What the table goes without on a narrow terminal, the first first."""


def show_kernels(found: KernelTimes, machine: Machine) -> None:
    """Kinds of kernels by time, their sum, the whole run and what would be left at the roofline."""
    threads = f"{found.threads} thread{'s' * (found.threads > 1)}"
    show(
        f"\n{found.model}, {threads}, batch {found.batch}: each kernel in its place in the run, lowest of "
        f"{len(found.whole)}",
        kernels_table(found, machine),
        f"whole run: lowest {_ms(min(found.whole))} ms, median {_ms(median(found.whole))}; "
        f"{_ms(found.rest)} ms of it outside its kernels",
    )


def show_legend(machine: Machine) -> None:
    """What the columns mean."""
    speeds = ", ".join(
        f"{speed:.1f} GB/s on {t} thread{'s' * (t > 1)}" for t, speed in machine.bandwidths.items()
    )
    show(
        "\nms: the lowest of each call's times, added up. GFLOP/s: 2 x the multiply-adds of convolution and "
        "dense. GB/s: the arrays that the kernels are given, read or written, from a cache or from memory.",
        "floor: at the peak, or with those bytes at memory's speed, whichever is longer; a call that was "
        f"faster counts as it was. Measured speed of reading memory in order: {speeds}.",
    )


def kernels_table(found: KernelTimes, machine: Machine) -> Table:
    """A row per kind, the longest first, and one of all."""
    columns = ["kind", ">calls", ">ms", ">share", ">GFLOP/s", ">of peak", ">GB/s", ">floor ms", ">median ms"]
    kinds, peak = found.kinds(machine), machine.peaks[found.threads]
    total = sum(kind.lowest for kind in kinds)
    rows = []
    for name, calls, lowest, middle, macs, nbytes, floor in (
        *((k.name, k.calls, k.lowest, k.median, k.macs, k.nbytes, k.floor) for k in kinds),
        (
            "all",
            len(found.calls),
            total,
            sum(kind.median for kind in kinds),
            sum(kind.macs for kind in kinds),
            sum(kind.nbytes for kind in kinds),
            sum(kind.floor for kind in kinds),
        ),
    ):
        speed = 2e-9 * macs / lowest
        rows.append(
            [
                *(name, str(calls), _ms(lowest), f"{lowest / total:.1%}"),
                *((f"{speed:.1f}", f"{speed / peak:.1%}") if macs else ("", "")),
                *(f"{1e-9 * nbytes / lowest:.1f}", _ms(floor), _ms(middle)),
            ]
        )
    return table(columns, rows, drop=DROPPED, fold=("kind",))


def kernels_record(machine: Machine, found: Sequence[KernelTimes]) -> dict[str, Any]:
    """Everything as JSON can say it: every call, every whole run's seconds, and the kinds."""
    return {
        "machine": asdict(machine),
        "kernels": [
            {
                **asdict(one),
                "calls": [{**asdict(call), "floor": _floor(call, one, machine)} for call in one.calls],
                "kinds": [asdict(kind) for kind in one.kinds(machine)],
                "rest": one.rest,
            }
            for one in found
        ],
    }


def kernels_csv(machine: Machine, found: Iterable[KernelTimes]) -> str:
    """All calls as CSV (RFC 4180, lines end with a line feed)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found:
        for place, call in enumerate(one.calls, 1):
            writer.writerow(_cells(place, call, one, machine))
    return text.getvalue()


def _cells(place: int, call: KernelCall, one: KernelTimes, machine: Machine) -> list[object]:
    return [
        *(one.model, one.threads, one.batch, place, call.kind, call.op, call.kernel, " ".join(call.nodes)),
        *("x".join(map(str, shape)) for shape in call.shapes),
        *(call.threads, call.macs, call.nbytes),
        *(f"{1e6 * s:.2f}" for s in (call.median, call.lowest, _floor(call, one, machine))),
        len(one.whole),
        *(f"{1000 * seconds:.3f}" for seconds in (median(one.whole), min(one.whole), one.rest)),
        *(f"{speed[one.threads]:.2f}" for speed in (machine.peaks, machine.bandwidths)),
        *("" if machine.load is None else f"{machine.load:.2f}", machine.date, machine.processor),
    ]


def _floor(call: KernelCall, one: KernelTimes, machine: Machine) -> float:
    return call.floor(machine.peaks[one.threads], machine.bandwidths[one.threads])


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"
