"""The figure and the tables of docs/performance.md that come from docs/bench-table.csv, which
`refnet bench --table` has written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from refnet.bench.table import geometric_mean, networks
from refnet.report.bench import BUSY
from refnet.report.bench_svg import Row, draw
from refnet.report.bench_table import read_rows

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "performance.md"
BEGIN, END = "<!-- from bench-table.csv, by python -m tests.figures -->\n", "<!-- end -->\n"


@cache
def rows() -> list[Row]:
    """The CSV's rows."""
    return [*read_rows((DOCS / "bench-table.csv").read_text(encoding="utf-8"))]


def figure() -> str:
    """docs/figures/table.svg."""
    return draw(rows())


def written(page: str) -> str:
    """The page with the block of today."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + block(rows()) + END + after


def block(found: Sequence[Row]) -> str:
    """When and where it was measured, the geometric means, and which aims are reached."""
    return "\n".join([*_measured(found), "", *_means(found), "", *_aims(found), "", *_needed(found)]) + "\n"


def _measured(found: Sequence[Row]) -> list[str]:
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
    said = [
        f"{len(found)} rows of {count} networks, {pairs} pairs each, {when}, "
        f"{found[0]['processor']}, load average {min(loads):.2f} to {max(loads):.2f} before a row.",
        f"Measured speeds of FMA in registers, and of memory: {roofs}.",
        f"Rows in which the two programs gave an image different classes: {wrong}.",
    ]
    missing = len(networks("mxnet")) * len(_columns(found, "against", "threads")) - len(found)
    if missing > 0:
        said.append(f"{missing} rows of the 39 networks are missing: that run was stopped before its end.")
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


AIMS: tuple[tuple[str, Callable[[Row], bool], float, bool], ...] = (
    ("every octave network, MXNet", _is_octave, 0.70, True),
    ("octave networks, MXNet, geometric mean", _is_octave, 0.55, False),
    ("every MobileNet, ResNeXt and DenseNet, ONNX Runtime", _is_thin, 1.15, True),
    ("all rows, ONNX Runtime, geometric mean", _is_onnx, 1.00, False),
)
"""What is aimed at, of which rows, the highest ratio, and whether each row must keep it or their mean."""


def _aims(found: Sequence[Row]) -> list[str]:
    threads = sorted({row["threads"] for row in found}, key=int)
    lines = [
        "| aim | at most |" + "".join(f" {_threads(t)} |" for t in threads),
        "|---|---:|" + "---|" * len(threads),
    ]
    for said, wanted, most, each in AIMS:
        cells = []
        for t in threads:
            own = [row for row in found if wanted(row) and row["threads"] == t]
            cells.append(_reached(own, found, most, each))
        lines.append(f"| {said} | {most:.2f} | {' | '.join(cells)} |")
    return lines


def _needed(found: Sequence[Row]) -> list[str]:
    """How fast the octave networks would have to run that are above their aim on one thread."""
    most = AIMS[0][2]
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


def _reached(own: Sequence[Row], run: Sequence[Row], most: float, each: bool) -> str:
    if not own:
        return "not measured"
    above = [row for row in own if _ratio(row) > most]
    reached = not above if each else _mean(own) <= most
    said = f"{_mean(own):.3f}"
    if each:
        said = f"{len(own) - len(above)} of {len(own)}, highest {max(map(_ratio, own)):.2f}"
    busy = _busy(own, run)
    if busy and own[0]["threads"] != "1":
        return f"{said}: not judged"
    return f"{said}: {'reached' if reached else 'not reached'}{', while busy' * busy}"
