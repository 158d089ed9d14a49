"""The figures and the tables of docs/performance.md that come from the CSVs which `refnet bench --table` has
written: the model table, the ResNeSt networks, and golden against onnx.reference.

A CSV that is not there yet is said to be missing, with the command that writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from refnet.bench.table import geometric_mean, networks, planned
from refnet.report.bench import BUSY
from refnet.report.bench_svg import Row, draw
from refnet.report.bench_table import read_rows

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "performance.md"
END = "<!-- end -->\n"
THREADS = (1, 2)


@dataclass(frozen=True)
class Aim:
    """The highest ratio that is aimed at, of which rows; each: by every row, or else by their mean.

    others: the rows of the model table count, too. inverse: ratios are written as 1/x.
    """

    said: str
    wants: Callable[[Row], bool]
    most: float
    each: bool
    others: bool = False
    inverse: bool = False

    def number(self, value: float, places: int = 2) -> str:
        """A ratio in words."""
        return f"1/{1 / value:.3g}" if self.inverse else f"{value:.{places}f}"


@dataclass(frozen=True)
class Source:
    """A CSV of docs, and the command that writes it. figure: what docs/figures has of it."""

    file: str
    state: str
    chosen: str
    against: tuple[str, ...]
    aims: tuple[Aim, ...]
    arithmetic: str = "plain"
    runs: int | None = 7
    figure: str | None = None

    @property
    def command(self) -> str:
        """Measures all rows, or goes on where it was stopped."""
        words = ["refnet bench --table", self.chosen]
        words += ["--arithmetic", self.arithmetic] if self.arithmetic != "plain" else []
        words += ["--against", ",".join(self.against), "--threads", ",".join(map(str, THREADS))]
        words += [f"--runs {self.runs}"] if self.runs is not None else []
        return " ".join([*words, "--state", self.state, "--csv", f"docs/{self.file}"])

    @property
    def begin(self) -> str:
        """The mark before its block of the page."""
        return f"<!-- from {self.file}, by python -m tests.figures -->\n"

    @property
    def measured(self) -> bool:
        """Whether the CSV is there."""
        return (DOCS / self.file).exists()

    @property
    def count(self) -> int:
        """How many rows the whole CSV has."""
        return len(planned(networks(self.chosen), THREADS, [1], self.against))


@cache
def rows(source: Source | None = None) -> list[Row]:
    """The CSV's rows, of the model table if none is named."""
    source = source or MODELS
    found = [*read_rows((DOCS / source.file).read_text(encoding="utf-8"))]
    assert {row["arithmetic"] for row in found} == {source.arithmetic}, source.file
    return found


def figure(source: Source | None = None) -> str:
    """The figure of docs/figures."""
    return draw(rows(source))


def written(page: str) -> str:
    """The page with the blocks of today."""
    for source in SOURCES:
        before, begin, rest = page.partition(source.begin)
        _, end, after = rest.partition(END)
        assert begin, source.begin
        assert end, source.begin
        text = block(rows(source), source) if source.measured else _missing(source)
        page = before + begin + text + end + after
    return page


def _missing(source: Source) -> str:
    return (
        f"Not measured yet: the command writes {source.file}, and `python -m tests.figures` this paragraph.\n"
    )


def block(found: Sequence[Row], source: Source | None = None) -> str:
    """When and where it was measured, what was found, and which aims are reached."""
    source = source or MODELS
    lines = [*_measured(found, source), ""]
    lines += _each(found) if source is GOLDEN else _means(found)
    lines += ["", *_aims(found, source)]
    if source is MODELS:
        lines += ["", *_needed(found)]
    if source.figure and source is not MODELS:
        words = "refnet's time beside the frameworks', network by network, and its speed below the roofline"
        lines += ["", f"![{words}](figures/{source.figure})"]
    return "\n".join(lines) + "\n"


def _measured(found: Sequence[Row], source: Source) -> list[str]:
    dates = sorted({row["date"] for row in found})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    pairs = " or ".join(sorted({row["pairs"] for row in found}, key=int))
    loads = [float(row["load_average"]) for row in found if row["load_average"]]
    speeds = {row["threads"]: (row["peak_gflop_per_s"], row["memory_gb_per_s"]) for row in found}
    roofs = "; ".join(
        f"on {_threads(t)} {float(peak):.0f} GFLOP/s and {float(memory):.1f} GB/s"
        for t, (peak, memory) in sorted(speeds.items())
    )
    wrong = sum(row["same_classes"] != "yes" for row in found)
    count = len({row["network"] for row in found})
    of = "" if source is MODELS else f" of [{source.file}]({source.file})"
    said = [
        f"{len(found)} rows{of} of {count} networks, {pairs} pairs each, {when}, "
        f"{found[0]['processor']}, load average {min(loads):.2f} to {max(loads):.2f} before a row.",
        f"Measured speeds of FMA in registers, and of memory: {roofs}.",
        f"Rows in which the two programs gave an image different classes: {wrong}.",
    ]
    if len(found) < source.count:
        said.append(f"{source.count - len(found)} rows are missing: they failed, or that run was stopped.")
    if _busy(found, found):
        said.append(
            "**Other programs used the same processors meanwhile, so these figures are not worth keeping, "
            "least of all those of several threads: threads that spin wait for others that do not run.**"
        )
    return said


def _busy(found: Sequence[Row], run: Sequence[Row]) -> bool:
    """Whether others ran: the table's own runs, of which one of more threads may have been the row before,
    account for a load of at most their threads."""
    own = max(int(row["threads"]) for row in run)
    return max(float(row["load_average"] or 0) for row in found) > own + BUSY


def _threads(number: str) -> str:
    return f"{number} thread{'s' * (number != '1')}"


def _means(found: Sequence[Row]) -> list[str]:
    lines = [
        "| against | threads | rows | geometric mean | lowest | highest |",
        "|---|---:|---:|---:|---|---|",
    ]
    for (against, version, threads), own in _columns(found, "against", "version", "threads").items():
        low, *_, high = [*sorted(own, key=_ratio), max(own, key=_ratio)]
        ends = " | ".join(f"{_ratio(row):.2f} ({row['network']})" for row in (low, high))
        lines.append(f"| {against} {version} | {threads} | {len(own)} | {_mean(own):.3f} | {ends} |")
    return lines


def _each(found: Sequence[Row]) -> list[str]:
    """A line per network: refnet's milliseconds, and the ratio with the lowest and the highest pair."""
    threads = sorted({row["threads"] for row in found}, key=int)
    lines = [
        "| network | against |"
        + "".join(f" {_threads(t)}: ms, paired (lowest to highest) |" for t in threads),
        "|---|---|" + "---|" * len(threads),
    ]
    number = GOLDEN.aims[0].number
    for (network, against, version), own in _columns(found, "network", "against", "version").items():
        cells = {
            row["threads"]: f"{float(row['refnet_ms_per_image']):.0f}, {number(_ratio(row))} "
            f"({number(float(row['lowest_ratio']))} to {number(float(row['highest_ratio']))})"
            for row in own
        }
        line = " | ".join(cells.get(t, "") for t in threads)
        lines.append(f"| {network} | {against} {version} | {line} |")
    return lines


def _columns(found: Sequence[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    columns: dict[tuple[str, ...], list[Row]] = {}
    for row in found:
        columns.setdefault(tuple(row[name] for name in names), []).append(row)
    return columns


def _ratio(row: Row) -> float:
    return float(row["median_of_ratios"])


def _mean(own: Sequence[Row]) -> float:
    return geometric_mean(map(_ratio, own))


def _is_octave(row: Row) -> bool:
    return row["network"].startswith("octave-") and row["against"] == "mxnet"


def _is_thin(row: Row) -> bool:
    kinds = ("mobilenet", "resnext", "densenet")
    return any(kind in row["network"] for kind in kinds) and row["against"] == "onnxruntime"


def _is_onnx(row: Row) -> bool:
    return row["against"] == "onnxruntime"


def _is_reference(row: Row) -> bool:
    return row["against"] == "onnx-reference"


ONNX = Aim("all rows, ONNX Runtime, geometric mean", _is_onnx, 1.00, False)
MODELS = Source(
    "bench-table.csv",
    "table.json",
    "mxnet",
    ("mxnet", "onnxruntime", "openvino"),
    (
        Aim("every octave network, MXNet", _is_octave, 0.70, True),
        Aim("octave networks, MXNet, geometric mean", _is_octave, 0.55, False),
        Aim("every MobileNet, ResNeXt and DenseNet, ONNX Runtime", _is_thin, 1.15, True),
        ONNX,
    ),
    figure="table.svg",
)
RESNEST = Source(
    "bench-resnest.csv",
    "resnest.json",
    "resnest",
    ("torch", "onnxruntime", "openvino"),
    (ONNX, Aim("the same with the rows of bench-table.csv", _is_onnx, 1.00, False, others=True)),
    figure="resnest.svg",
)
GOLDEN = Source(
    "bench-golden.csv",
    "golden.json",
    "resnet-26-baseline,octave-resnet-26-0.125,resnet-50-baseline,se-resnet-50-baseline,"
    "octave-se-resnet-50-0.125,resnext-50-baseline,densenet-121-baseline,octave-mobilenet-v1-0.75-0.375,"
    "octave-mobilenet-v2-1.0-0.375,resnest-50-fast-1s1x64d-pytorch",
    ("onnx-reference",),
    (Aim("golden, every row, onnx.reference", _is_reference, 1 / 50, True, inverse=True),),
    arithmetic="golden",
    runs=None,
)
SOURCES = (MODELS, RESNEST, GOLDEN)


def _aims(found: Sequence[Row], source: Source) -> list[str]:
    threads = sorted({row["threads"] for row in found}, key=int)
    lines = [
        "| aim | at most |" + "".join(f" {_threads(t)} |" for t in threads),
        "|---|---:|" + "---|" * len(threads),
    ]
    for aim in source.aims:
        run = [*found, *(rows(MODELS) if aim.others else ())]
        cells = []
        for t in threads:
            own = [row for row in run if aim.wants(row) and row["threads"] == t]
            cells.append(_reached(own, run, aim))
        lines.append(f"| {aim.said} | {aim.number(aim.most)} | {' | '.join(cells)} |")
    return lines


def _needed(found: Sequence[Row]) -> list[str]:
    """How fast the octave networks would have to run that are above their aim on one thread."""
    most = MODELS.aims[0].most
    above = [r for r in found if _is_octave(r) and r["threads"] == "1" and _ratio(r) > most]
    if not above:
        return ["No octave network is above its aim on one thread."]
    needed = [float(r["refnet_gflop_per_s"]) * _ratio(r) / most for r in above]
    now = [float(r["refnet_gflop_per_s"]) for r in above]
    return [
        f"The {len(above)} octave networks above {most:.2f} of MXNet's time on one thread run at "
        f"{min(now):.0f} to {max(now):.0f} GFLOP/s, and would have to run at "
        f"{min(needed):.0f} to {max(needed):.0f}."
    ]


def _reached(own: Sequence[Row], run: Sequence[Row], aim: Aim) -> str:
    if not own:
        return "not measured"
    above = [row for row in own if _ratio(row) > aim.most]
    reached = not above if aim.each else _mean(own) <= aim.most
    said = aim.number(_mean(own), 3)
    if aim.each:
        highest = aim.number(max(map(_ratio, own)))
        said = f"{len(own) - len(above)} of {len(own)}, highest {highest}"
    busy = _busy(own, run)
    if busy and own[0]["threads"] != "1":
        return f"{said}: not judged"
    return f"{said}: {'reached' if reached else 'not reached'}{', while busy' * busy}"
