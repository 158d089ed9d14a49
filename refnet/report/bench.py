"""What `refnet bench` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from refnet.bench.machine import Machine
from refnet.bench.profile import Profile
from refnet.bench.race import SETTLE, WARMUP, Pair, Side
from refnet.bench.scaling import CHANNELS, Scale
from refnet.bench.startup import Start
from refnet.report.table import Table
from refnet.report.terminal import show, table

DROPPED = (
    *("refnet MiB", "other MiB", "of peak", "GFLOP/s", "lowest", "highest", "paired"),
    *("other ms", "refnet ms"),
)
"""What the table of races goes without on a narrow terminal, the first first."""

BUSY = 0.3
"""Load average from which on the report warns."""


def show_machine(machine: Machine) -> None:
    """The machine, its peak, its versions; a warning if it was busy."""
    peaks = ", ".join(f"{peak:.0f} GFLOP/s on {t} thread{'s' * (t > 1)}" for t, peak in machine.peaks.items())
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    show(
        f"{machine.processor}, {machine.processors} processors, vectors of {machine.vector_bits} bits",
        f"measured peak of float32 FMA in registers: {peaks}",
        f"{machine.date}, {versions}",
    )
    if machine.load is not None and machine.load > BUSY:
        show(f"the machine was busy: load average {machine.load:.2f} before the first run")
    show("")


def pairs_table(pairs: Sequence[Pair], machine: Machine) -> Table:
    """Races: milliseconds per image, ratios, speed, memory."""
    columns = ["network", "threads", "batch", "against", ">refnet ms", ">other ms", ">ratio"]
    columns += [
        ">paired",
        ">lowest",
        ">highest",
        ">GFLOP/s",
        ">of peak",
        ">refnet MiB",
        ">other MiB",
        "classes",
    ]
    rows = (_pair(pair, machine) for pair in pairs)
    return table(columns, rows, drop=DROPPED, fold=("network", "against"))


def _pair(pair: Pair, machine: Machine) -> list[str]:
    ours, theirs = pair.ours, pair.theirs
    other = f"{theirs.name} {theirs.version}"
    if theirs.name == "refnet":
        other = f"refnet, batch {theirs.batch}"
    return [
        pair.model,
        str(pair.threads),
        str(ours.batch),
        other,
        _milliseconds(ours.per_image),
        _milliseconds(theirs.per_image),
        f"{pair.ratio:.3f}",
        f"{pair.paired:.3f}",
        f"{min(pair.ratios):.3f}",
        f"{max(pair.ratios):.3f}",
        f"{pair.gflops:.1f}",
        f"{pair.gflops / machine.peaks[pair.threads]:.1%}",
        _mebibytes(ours),
        _mebibytes(theirs),
        "same" if pair.agree else "DIFFERENT",
    ]


def show_pairs(pairs: Sequence[Pair], machine: Machine) -> None:
    """All races, and how they were run."""
    runs = " or ".join(map(str, sorted({len(pair.ours.seconds) for pair in pairs})))
    show(
        pairs_table(pairs, machine),
        f"\nMedians of {runs} runs in turns (refnet, the other, refnet ...), each in its own process with "
        f"its threads fixed, and each after {SETTLE * 1000:.0f} ms of runs that do not count.",
        "ms: per image. ratio: of the medians; paired: median of the ratios of neighbouring runs, with the "
        "lowest and the highest. GFLOP/s: 2 x the multiply-adds of convolution and dense.",
        "MiB: largest resident memory of the process, interpreter and libraries included.",
    )


def show_profile(profile: Profile, machine: Machine) -> None:
    """Kinds of nodes by time."""
    total = sum(kind.seconds for kind in profile.kinds)
    rows = [
        [
            kind.name,
            str(kind.nodes),
            _milliseconds(kind.seconds),
            f"{kind.seconds / total:.1%}",
            f"{2e-9 * kind.macs / kind.seconds:.1f}" if kind.macs else "",
            f"{2e-9 * kind.macs / kind.seconds / machine.peaks[profile.threads]:.1%}" if kind.macs else "",
        ]
        for kind in profile.kinds
    ]
    threads = f"{profile.threads} thread{'s' * (profile.threads > 1)}"
    show(
        f"\n{profile.model}, {threads}, batch {profile.batch}: every node executed alone",
        table(
            ["kind", ">nodes", ">ms", ">share", ">GFLOP/s", ">of peak"],
            rows,
            drop=("of peak", "GFLOP/s"),
            fold=("kind",),
        ),
        f"sum {_milliseconds(total)} ms; the whole run, with nodes fused: {_milliseconds(profile.whole)} ms",
    )


def show_scaling(scales: Sequence[Scale], threads: int) -> None:
    """Nanoseconds per multiply-add: a row per network or layer, a column per size."""
    sizes = sorted({scale.size for scale in scales})
    rows = []
    for what in dict.fromkeys(scale.what for scale in scales):
        own = {scale.size: scale.nanoseconds for scale in scales if scale.what == what}
        cells = [f"{own[size]:.5f}" if size in own else "" for size in sizes]
        rows.append([what, *cells, f"{max(own.values()) / min(own.values()):.2f}"])
    every = [scale.nanoseconds for scale in scales]
    show(
        f"nanoseconds per multiply-add, batch 1, {threads} thread{'s' * (threads > 1)}",
        table(["", *(f">{size}x{size}" for size in sizes), ">factor"], rows, fold=("",)),
        f"\nfactor: largest / smallest; of the whole table {max(every) / min(every):.2f}. "
        f"A layer is a convolution of {CHANNELS} to {CHANNELS} channels whose input has the size.",
    )


def show_startup(start: Start) -> None:
    """From nothing to the first result."""
    processes = (("first process, nothing compiled", start.first), ("second process", start.second))
    rows = [
        ["python -c pass", f"{start.empty:.3f}"],
        ["python -c 'import refnet'", f"{start.import_:.3f}"],
        ["refnet --help", f"{start.help:.3f}"],
        *(
            [f"{which}: {what}", f"{seconds:.3f}"]
            for which, process in processes
            for what, seconds in (
                ("whole process", process.whole),
                ("the interpreter's start and end", process.ends),
                ("importing", process.importing),
                ("reading the model", process.reading),
                ("first run", process.first),
                ("a later run", process.run),
                ("loading", process.loading),
                ("all but running", process.rest),
            )
        ),
    ]
    show(
        f"{start.model}, {start.threads} thread{'s' * (start.threads > 1)}",
        table(["", ">seconds"], rows, fold=("",)),
    )


def record(
    machine: Machine,
    pairs: Sequence[Pair] = (),
    profiles: Sequence[Profile] = (),
    scales: Sequence[Scale] = (),
    start: Start | None = None,
) -> dict[str, Any]:
    """Everything as JSON can say it: every single run's seconds, and what is computed from them."""
    return {
        "machine": asdict(machine),
        "method": {"warmup": WARMUP, "settle_seconds": SETTLE},
        "pairs": [
            {
                **asdict(pair),
                "ratio": pair.ratio,
                "paired_ratio": pair.paired,
                "ratios": list(pair.ratios),
                "gflops": pair.gflops,
                "share_of_peak": pair.gflops / machine.peaks[pair.threads],
                "median_seconds": {side.name: median(side.seconds) for side in (pair.theirs, pair.ours)},
            }
            for pair in pairs
        ],
        "profiles": [asdict(profile) for profile in profiles],
        "scaling": [{**asdict(scale), "nanoseconds_per_multiply_add": scale.nanoseconds} for scale in scales],
        "startup": None if start is None else asdict(start),
    }


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def _mebibytes(side: Side) -> str:
    return "" if side.memory is None else f"{side.memory / 2**20:.0f}"
