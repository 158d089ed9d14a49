"""The table of `refnet bench --table` as a drawing: every row's ratio, and refnet's speed below the roofline.

It is drawn from the text of the CSV alone, so one CSV gives one drawing, whichever machine draws it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from refnet.bench.table import geometric_mean, roof
from refnet.core.errors import InputError
from refnet.report.drawing import WIDTH, Drawing

Row = Mapping[str, str]
STEP, LETTER, EDGE = 18, 7.6, 16
"""Height of a row, the widest average letter, what stays free at the sides; in the drawing's units."""

MARKS = {
    "mxnet": (
        "minus",
        "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
        "M-2.7 0a2.7 2.7 0 1 0 5.4 0a2.7 2.7 0 1 0 -5.4 0z",
    ),
    "torch": ("replayed", "M0 -6l6 6l-6 6l-6 -6z", "M0 -3.2l3.2 3.2l-3.2 3.2l-3.2 -3.2z"),
    "onnxruntime": ("plus", "M-4 -4h8v8h-8z", "M-2.2 -2.2h4.4v4.4h-4.4z"),
    "openvino": ("equal", "M0 -5.5l5.5 9.5h-11z", "M0 -1.9l2.5 4.3h-5z"),
    "onnx-reference": ("unjudged", "M0 5.5l5.5 -9.5h-11z", "M0 1.9l2.5 -4.3h-5z"),
}
"""Framework -> its colour, its mark around (0, 0), and what is left open in it for more than one thread."""
POINT = MARKS["mxnet"][1:]


class Axis(NamedTuple):
    """A logarithmic axis: its ends, where they lie in the drawing, and what is written along it."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return self.start + share * (self.end - self.start)


def draw(rows: Sequence[Row]) -> str:
    """The SVG of a CSV's rows (`bench_table.read_rows`). Raises InputError if there is none."""
    if not rows:
        raise InputError("a table without a row cannot be drawn")
    named = dict.fromkeys((row["network"], row["batch"]) for row in rows)
    several = len({row["batch"] for row in rows}) > 1
    labels = {key: key[0] + f", batch {key[1]}" * several for key in named}
    speeds_top = 120 + STEP * (len(labels) + 2)
    threads = sorted({int(row["threads"]) for row in rows})
    height = speeds_top + 400 + 64 * len(threads)
    drawing = Drawing(int(height), "refnet's time beside the frameworks', network by network", _said(rows))
    _ratios(drawing, rows, labels)
    _roofline(drawing, rows, speeds_top, threads)
    return drawing.svg()


def _said(rows: Sequence[Row]) -> str:
    columns = dict.fromkeys((row["against"], row["threads"]) for row in rows)
    means = [
        f"{against} on {threads} thread{'s' * (threads != '1')}: {_mean(rows, against, threads):.3f}"
        for against, threads in columns
    ]
    return f"Geometric means of the ratios of {len(rows)} rows. " + "; ".join(means)


def _mean(rows: Iterable[Row], against: str, threads: str) -> float:
    own = (row for row in rows if (row["against"], row["threads"]) == (against, threads))
    return geometric_mean(float(row["median_of_ratios"]) for row in own)


def axis(values: Sequence[float], start: float, end: float, room: float) -> Axis:
    """A logarithmic axis over all values. room: what a tick's label needs.

    >>> axis([0.5, 1.3], 0, 300, 30).ticks
    (0.5, 0.7, 1.0, 1.5)
    """
    exponents = range(math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values))) + 2)
    steps = [float(f"{step}e{exponent}") for exponent in exponents for step in (1, 1.5, 2, 3, 5, 7)]
    low = max(step for step in steps if step <= min(values))
    high = min(step for step in steps if step >= max(values) and step > low)
    made = Axis(low, high, start, end, ())
    ticks: list[float] = []
    for step in sorted((s for s in steps if low <= s <= high), key=lambda s: (s != 1, s)):
        if all(abs(made(step) - made(tick)) >= room for tick in ticks):
            ticks.append(step)
    return made._replace(ticks=tuple(sorted(ticks)))


def _mark(drawing: Drawing, x: float, y: float, kind: str, shape: tuple[str, str], open_: bool) -> None:
    outer, inner = shape
    drawing.parts.append(
        f'<path class="{kind}" fill-rule="evenodd" transform="translate({x:.1f} {y:g})" '
        f'd="{outer + inner if open_ else outer}"/>'
    )


def _ratios(drawing: Drawing, rows: Sequence[Row], labels: Mapping[tuple[str, str], str]) -> None:
    threads = sorted({int(row["threads"]) for row in rows})
    left = EDGE + LETTER * max(map(len, (*labels.values(), "geometric mean"))) + 12
    x = axis([1.0, *(float(row["median_of_ratios"]) for row in rows)], left, WIDTH - 24, 36)
    how = "" if rows[0]["arithmetic"] == "plain" else f" in {rows[0]['arithmetic']}"
    said = f"refnet's time{how} / the framework's time, medians of the pairs' ratios"
    drawing.text(EDGE, 28, said, "bold")
    at, y = float(EDGE), 52
    for against in dict.fromkeys(row["against"] for row in rows):
        kind, *shape = MARKS[against]
        _mark(drawing, at + 6, y - 5, kind, (shape[0], shape[1]), False)
        drawing.text(at + 18, y, against, "soft")
        at += 34 + LETTER * len(against)
    if len(threads) > 1:
        said = (
            f"filled: {threads[0]} thread{'s' * (threads[0] > 1)}; open: {', '.join(map(str, threads[1:]))}"
        )
        drawing.text(EDGE, y + 20, said, "soft")
    top = 96
    bottom = top + STEP * (len(labels) + 1) + 2
    for tick in x.ticks:
        place = round(x(tick), 1)
        if tick == 1:
            drawing.path(f"M{place:g} {top - 4}V{bottom}", "way")
        else:
            drawing.rect(place, top - 4, 1, bottom - top + 4, "rail")
        drawing.text(round(x(tick), 1), top - 10, f"{tick:g}", "soft", "middle")
    for i, (key, label) in enumerate(labels.items()):
        middle = top + STEP * i + STEP / 2
        drawing.text(EDGE, middle + 5, label)
        for row in rows:
            if (row["network"], row["batch"]) == key:
                ratio = float(row["median_of_ratios"])
                _ratio(drawing, x, middle, row["against"], int(row["threads"]) != threads[0], ratio)
    middle = top + STEP * len(labels) + STEP / 2
    drawing.text(EDGE, middle + 5, "geometric mean", "bold")
    for against, number in dict.fromkeys((row["against"], row["threads"]) for row in rows):
        _ratio(drawing, x, middle, against, int(number) != threads[0], _mean(rows, against, number))


def _ratio(drawing: Drawing, x: Axis, y: float, against: str, open_: bool, ratio: float) -> None:
    kind, *shape = MARKS[against]
    _mark(drawing, x(ratio), y, kind, (shape[0], shape[1]), open_)


class _Point(NamedTuple):
    """A network's speed in GFLOP/s, its operations per byte, and the speed that the roofline allows."""

    label: str
    intensity: float
    speed: float
    roof: float


def _points(rows: Sequence[Row], threads: int) -> list[_Point]:
    own = [row for row in rows if int(row["threads"]) == threads]
    found = []
    for key in dict.fromkeys((row["network"], row["batch"]) for row in own):
        same = [row for row in own if (row["network"], row["batch"]) == key]
        speed = median(float(row["refnet_gflop_per_s"]) for row in same)
        peak, bandwidth = _speeds(same)
        intensity = float(same[0]["flop_per_byte"])
        found.append(_Point(key[0], intensity, speed, roof(peak, bandwidth, intensity)))
    return found


def _speeds(rows: Sequence[Row]) -> tuple[float, float]:
    """The peak in GFLOP/s and the memory's GB/s."""
    return tuple(max(float(row[name]) for row in rows) for name in ("peak_gflop_per_s", "memory_gb_per_s"))  # type: ignore[return-value]


def _roofline(drawing: Drawing, rows: Sequence[Row], top: float, threads: Sequence[int]) -> None:
    points = {number: _points(rows, number) for number in threads}
    speeds = {number: _speeds([row for row in rows if int(row["threads"]) == number]) for number in threads}
    every = [point for own in points.values() for point in own]
    ridges = [peak / bandwidth for peak, bandwidth in speeds.values()]
    wide = [*(point.intensity for point in every), *ridges, min(ridges) / 1.5, max(ridges) * 1.5]
    x = axis(wide, 64, WIDTH - 24, 40)
    tall = [*(point.speed for point in every), *(peak for peak, _ in speeds.values())]
    base = top + 330
    y = axis(tall, base, top + 46, 18)
    drawing.text(EDGE, top + 20, "refnet's GFLOP/s below the roofline, by operations per byte", "bold")
    for tick in x.ticks:
        drawing.rect(round(x(tick), 1), y.end, 1, base - y.end, "rail")
        drawing.text(round(x(tick), 1), base + 20, f"{tick:g}", "soft", "middle")
    for tick in y.ticks:
        drawing.rect(x.start, round(y(tick), 1), x.end - x.start, 1, "rail")
        drawing.text(x.start - 8, round(y(tick) + 5, 1), f"{tick:g}", "soft", "end")
    for i, number in enumerate(threads):
        peak, bandwidth = speeds[number]
        begin = max(x.low, y.low / bandwidth)
        drawing.path(
            f"M{x(begin):.1f} {y(roof(peak, bandwidth, begin)):.1f}"
            f"L{x(peak / bandwidth):.1f} {y(peak):.1f}H{x.end:g}",
            "way",
        )
        for point in points[number]:
            kind = "minus" if i == 0 else "plus"
            _mark(drawing, x(point.intensity), round(y(point.speed), 1), kind, POINT, i > 0)
    drawing.text(
        EDGE, base + 42, "operations of convolution and dense per byte of weights, inputs and values", "soft"
    )
    for i, number in enumerate(threads):
        line = base + 66 + 64 * i
        peak, bandwidth = speeds[number]
        shares = sorted(points[number], key=lambda point: point.speed / point.roof)
        worst, best = shares[0], shares[-1]
        _mark(drawing, EDGE + 6, line - 5, "minus" if i == 0 else "plus", POINT, i > 0)
        drawing.text(
            EDGE + 18,
            line,
            f"{number} thread{'s' * (number > 1)}: the roof is {peak:.0f} GFLOP/s and {bandwidth:.1f} GB/s",
        )
        for below, (word, point) in enumerate((("at least", worst), ("at most", best)), 1):
            said = f"{word} {100 * point.speed / point.roof:.0f} % of it, by {point.label}"
            drawing.text(EDGE + 18, line + 19 * below, said, "soft")
