"""The account of docs/performance.md, kernel by kernel, from docs/bench-kernels.csv.

`refnet bench --kernels --csv FILE` writes a row per call. `python -m tests.figures FILE` makes
docs/bench-kernels.csv of it, in which calls of one network that do the same are one row, and the tables.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from refnet.report.bench import BUSY
from refnet.report.bench_svg import Row
from refnet.report.bench_table import read_rows
from tests.figures import bench, races

FILE = bench.DOCS / "bench-kernels.csv"
BEGIN = "<!-- from bench-kernels.csv, by python -m tests.figures -->\n"
END = "<!-- end of the kernels -->\n"
SAME = ("network", "kind", "op", "kernel", "data", "value")
"""Columns that are equal in calls that do the same."""
SUMS = ("macs", "bytes", "median_us", "lowest_us", "floor_us")
RUN = (
    *("threads", "batch", "runs", "run_median_ms", "run_lowest_ms", "run_rest_ms"),
    *("peak_gflop_per_s", "memory_gb_per_s", "load_average", "date", "processor"),
)
"""Columns of the network's run."""
TERMS = (1, 64, 128, 256, 512)
"""Where classes of sums begin, by the number of their terms."""
LAYERS = 10
"""Rows of the table of layers."""


@cache
def rows() -> list[Row]:
    """The CSV's rows."""
    return [*read_rows(FILE.read_text(encoding="utf-8"))]


def condensed(text: str) -> str:
    """The CSV of all calls, where those that do the same are one row: how many, the first's nodes, sums."""
    made: dict[tuple[str, ...], list[Row]] = {}
    for row in read_rows(text):
        made.setdefault(tuple(row[name] for name in SAME), []).append(row)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*SAME, "calls", "first_nodes", *SUMS, *RUN))
    for key, own in made.items():
        sums = [sum(float(row[name]) for row in own) for name in SUMS]
        counts = [f"{one:.0f}" for one in sums[:2]] + [f"{one:.2f}" for one in sums[2:]]
        writer.writerow([*key, len(own), own[0]["nodes"], *counts, *(own[0][name] for name in RUN)])
    return stream.getvalue()


def _is(*beginnings: str) -> Callable[[str], bool]:
    return lambda kind: kind.startswith(beginnings)


COLUMNS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("depthwise", lambda kind: kind.endswith("depthwise")),
    ("1 × 1", _is("Conv 1x1")),
    ("3 × 3", _is("Conv")),
    ("stem", _is("stem")),
    ("dense", _is("dense", "Dense")),
    ("batch norm, sum, relu", _is("batch norm")),
    ("pools", _is("pools")),
    ("upsampling", _is("upsampling")),
    ("padding", _is("padding")),
    ("others", lambda kind: True),
)
"""The kinds as the page's table has them: a row belongs to the first that wants its kind."""
PASSES = ("batch norm, sum, relu", "pools", "upsampling", "padding", "dense")
CONVOLUTIONS = ("1 × 1", "3 × 3", "stem", "depthwise")
SHOWN = ("1 × 1", "3 × 3", "stem", "depthwise", *(name for name, _ in COLUMNS[4:]))


@dataclass(frozen=True)
class Part:
    """Some calls of a network. ms, floor: milliseconds, the sums of the lowest of each call and of floors."""

    rows: Sequence[Row]

    def total(self, name: str) -> float:
        """The sum of a column."""
        return sum(float(row[name]) for row in self.rows)

    @property
    def ms(self) -> float:
        return 1e-3 * self.total("lowest_us")

    @property
    def floor(self) -> float:
        return 1e-3 * self.total("floor_us")

    @property
    def gflop(self) -> float:
        return 2e-9 * self.total("macs")

    @property
    def speed(self) -> float:
        """GFLOP/s."""
        return 1e3 * self.gflop / self.ms

    @property
    def cell(self) -> str:
        """Milliseconds, and GFLOP/s, or GB/s where nothing is multiplied, or by dense layers."""
        if not self.rows:
            return ""
        memory = not self.gflop or part_of(self.rows[0]["kind"]) == "dense"
        speed = 1e-6 * self.total("bytes") / self.ms if memory else self.speed
        return f"{self.ms:.2f} ({speed:.0f})"


def part_of(kind: str) -> str:
    """The column of a kind.

    >>> part_of("Conv 3x3 /2 depthwise"), part_of("Conv 3x3 /2 groups") == SHOWN[1], part_of("Softmax")
    ('depthwise', True, 'others')
    """
    return next(name for name, wants in COLUMNS if wants(kind))


@dataclass(frozen=True)
class Network:
    """One network's kernels. ratio: of a run's time to that of `against`, paired; most: what is aimed at."""

    name: str
    rows: Sequence[Row]
    ratio: float
    most: float
    against: str

    def part(self, *names: str) -> Part:
        """The calls of these columns."""
        return Part([row for row in self.rows if part_of(row["kind"]) in names])

    @property
    def all(self) -> Part:
        return Part(self.rows)

    @property
    def peak(self) -> float:
        """GFLOP/s."""
        return float(self.rows[0]["peak_gflop_per_s"])

    @property
    def outside(self) -> float:
        """Milliseconds of a run outside its kernels."""
        return float(self.rows[0]["run_rest_ms"])

    @property
    def others(self) -> float:
        """Milliseconds of a run that are no convolutions: other kernels, and what is outside kernels."""
        return self.all.ms - self.part(*CONVOLUTIONS).ms + self.outside

    @property
    def aim(self) -> float:
        """Milliseconds of a run at which the ratio would be the one aimed at."""
        return (self.all.ms + self.outside) * self.most / self.ratio

    def share(self, others: float) -> float:
        """The share of the peak at which convolutions would reach the aim, if all else took so many ms."""
        return 1e3 * self.part(*CONVOLUTIONS).gflop / (self.aim - others) / self.peak

    @property
    def now(self) -> float:
        """The share of the peak at which convolutions run."""
        return self.part(*CONVOLUTIONS).speed / self.peak


def found(page: str, measured: Iterable[Row], table: Iterable[Row]) -> list[Network]:
    """The networks of docs/bench-kernels.csv (`measured`) with their aims, from docs/bench-table.csv
    (`table`) or the outputs that the page shows.
    """
    own: dict[str, list[Row]] = {}
    for row in measured:
        own.setdefault(row["network"], []).append(row)
    raced = [row for row in table if row["threads"] == "1"]
    return [Network(name, calls, *_aim(page, raced, name)) for name, calls in own.items()]


def _aim(page: str, raced: Sequence[Row], name: str) -> tuple[float, float, str]:
    """The ratio on one thread that is farthest from its aim, the aim, and against whom."""
    large = name in races.LARGE.split("|")
    most = {"mxnet": 0.70, **({"onnxruntime": 1.00, "openvino": 1.00} if large else {})}
    found = [
        (float(row["median_of_ratios"]), most[row["against"]], row["against"])
        for row in raced
        if row["network"] == name and row["against"] in most
    ]
    for race in races.races(page):
        cells, who = race.cells, race.cells["against"].split()[0]
        own = (cells["network"], cells["threads"], cells["batch"]) == (name, "1", "1")
        if own and race.arithmetic == "plain" and who in most and all(one[2] != who for one in found):
            found.append((float(cells["paired"]), most[who], who))
    return max(found, key=lambda one: one[0] / one[1])


def block(page: str, measured: Sequence[Row], table: Sequence[Row]) -> str:
    """What was measured, the two tables, which kinds are how far from the roofline, and the layers."""
    networks = found(page, measured, table)
    lines = [*_measured(measured), "", *_kinds(networks), "", *_needed(networks), "", *_said(networks), ""]
    return "\n".join([*lines, *_layers(networks)]) + "\n"


def _measured(measured: Sequence[Row]) -> list[str]:
    one = measured[0]
    dates = sorted({row["date"] for row in measured})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    peak, memory = (float(one[name]) for name in ("peak_gflop_per_s", "memory_gb_per_s"))
    said = [
        f"{len({row['network'] for row in measured})} networks, one thread, the lowest of {one['runs']} runs "
        f"of each call, {when}, {one['processor']}, load average {one['load_average']} before the first.",
        f"Peak {peak:.0f} GFLOP/s, memory {memory:.1f} GB/s. In brackets: GFLOP/s of convolutions, or GB/s.",
    ]
    if max(float(row["load_average"] or 0) for row in measured) > 1 + BUSY:
        said.append(
            "**Other programs used the same processors meanwhile, so these figures are not worth keeping.**"
        )
    return said


def _kinds(networks: Sequence[Network]) -> list[str]:
    lines = [
        f"| network, ms | {' | '.join(SHOWN)} | all kernels |",
        "|---|" + "---:|" * (len(SHOWN) + 1),
    ]
    for one in networks:
        cells = " | ".join(one.part(name).cell for name in SHOWN)
        lines.append(f"| {one.name} | {cells} | {one.all.ms:.1f} |")
    return lines


def _needed(networks: Sequence[Network]) -> list[str]:
    lines = [
        "| network | run / other's run, aim | kernels, ms | outside | floor | aim "
        "| convolutions, of the peak | needed, the rest as now | needed, the rest for nothing |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in networks:
        times = f"{one.all.ms:.1f} | {one.outside:.2f} | {one.all.floor:.1f} | {one.aim:.1f}"
        lines.append(
            f"| {one.name} | {one.ratio:.2f} {one.against}, {one.most:.2f} | {times} | {one.now:.1%} "
            f"| {one.share(one.others):.1%} | {one.share(0):.1%} |"
        )
    return lines


def _span(values: Iterable[float]) -> str:
    own = [f"{100 * value:.0f}" for value in sorted(values)]
    return f"{own[0]} to {own[-1]} %" if own[0] != own[-1] else f"{own[0]} %"


def _said(networks: Sequence[Network]) -> list[str]:
    """Of the octave networks above their aim: shares of time and of the peak, and what the aims need."""
    above = [one for one in networks if one.against == "mxnet" and one.ratio > one.most]
    each = {
        name: [one.part(name) for one in above if one.part(name).rows] for name in (*CONVOLUTIONS, *PASSES)
    }
    peak = above[0].peak
    speeds = ", ".join(
        f"{name} at {_span(part.speed / peak for part in each[name])}" for name in CONVOLUTIONS if each[name]
    )
    shares = ", ".join(
        f"{name} {_span(one.part(name).ms / one.all.ms for one in above if one.part(name).rows)}"
        for name in each
        if each[name]
    )
    best = max(part.speed / peak for part in each["3 × 3"])
    beyond = [one for one in above if one.share(one.others) > best]
    free = [one for one in above if one.share(0) > one.now]
    floors = [one for one in above if one.all.floor > one.aim]
    floor = _span(one.all.floor / one.all.ms for one in above)
    return [
        f"**The {len(above)} octave networks above 0.70 of MXNet's time.** Shares of the kernels' time: "
        f"{shares}. Convolutions run at {_span(one.now for one in above)} of the peak: {speeds}.",
        f"At the floor the kernels would take {floor} of their time; in {len(floors)} networks that is more "
        "than the aim.",
        f"If the rest took what it takes, all convolutions of {len(beyond)} networks would have to be faster "
        f"than the 3 × 3 layers of any of them are ({best:.1%} of the peak).",
        f"{len(free)} networks would miss the aim even if everything but convolutions took no time.",
        f"1 × 1 layers by the number of terms of their sums: {_by_terms(above)}.",
    ]


def _by_terms(networks: Sequence[Network]) -> str:
    """The speed of 1 x 1 layers by the length of their sums, and their share of all kernels' time."""
    made: dict[int, list[Row]] = {}
    for row in (row for one in networks for row in one.part("1 × 1").rows):
        terms = int(row["data"].split("x")[1])
        made.setdefault(max(least for least in TERMS if least <= terms), []).append(row)
    peak, whole = networks[0].peak, sum(one.all.ms for one in networks)
    said = []
    for least, own in sorted(made.items()):
        more = [one for one in TERMS if one > least]
        name = f"{least} to {more[0] - 1}" if more else f"{least} and more"
        part = Part(own)
        said.append(f"{name}: {part.speed / peak:.0%} of the peak ({part.ms / whole:.0%} of the time)")
    return "; ".join(said)


def _layers(networks: Sequence[Network]) -> list[str]:
    """The layers that lose most, over all networks: each network's loss as a share of its own time."""
    kinds: dict[tuple[str, ...], list[tuple[Network, Row]]] = {}
    for one in networks:
        for row in one.rows:
            kinds.setdefault((row["kind"], row["data"], row["value"], row["kernel"]), []).append((one, row))

    def lost(own: Sequence[tuple[Network, Row]]) -> float:
        parts = [(Part([row]), one) for one, row in own]
        return sum((part.ms - part.floor) / one.all.ms for part, one in parts) / len(networks)

    lines = [
        "| layer (channels × rows × columns) | kernel | networks | µs | GFLOP/s or GB/s "
        "| above the floor, share of all networks' time |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for key, own in sorted(kinds.items(), key=lambda item: -lost(item[1]))[:LAYERS]:
        kind, data, value, kernel = key
        part, calls = Part([row for _, row in own]), sum(int(row["calls"]) for _, row in own)
        speed = f"{part.speed:.0f}" if part.gflop else f"{1e-6 * part.total('bytes') / part.ms:.0f} GB/s"
        shapes = " to ".join(shape.partition("x")[2].replace("x", " × ") for shape in (data, value))
        lines.append(
            f"| {kind}: {shapes} | `{kernel}` | {len(own)} | {1e3 * part.ms / calls:.0f} | {speed} | "
            f"{lost(own):.2%} |"
        )
    return lines


def written(page: str) -> str:
    """The page with the block of today."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + block(page, rows(), bench.rows()) + END + after


def keep(calls: Path) -> None:
    """Write docs/bench-kernels.csv from the CSV of all calls."""
    FILE.write_text(condensed(calls.read_text(encoding="utf-8")), encoding="utf-8")
