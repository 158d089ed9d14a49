"""The drawings of the HTML report: histograms, bars and a line of numbers, as SVG without any style in it.

Colours come from the page's classes, so that the drawings follow light and dark; positions and sizes are
attributes of SVG, which the page's policy allows where it forbids style attributes. What is put into markup
goes through `Markup.format`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from refnet.report.html_text import figure, real, thousands

BINS = 21
"""Of a histogram of shares: 20 of width 0.05 from 0 to 1, and one for all above 1."""

WIDTH, HEIGHT, LEFT, TOP = 252, 48, 1, 4  # of a histogram's bars, in the drawing's own units
STEP = WIDTH // BINS


def histogram(counts: Sequence[int]) -> Markup:
    """How many elements use which share of the bound. Heights are logarithmic: one element stays visible.

    counts: 21, of the bins [0, 0.05), [0.05, 0.1) ... [0.95, 1] and above 1.

    >>> histogram([9] + [0] * 19 + [1]).count("h10v")  # bars
    2
    """
    top = math.log1p(max(counts, default=0)) or 1.0
    base = TOP + HEIGHT
    bars = []
    for i, n in enumerate(counts):
        tall = max(math.log1p(n) / top * HEIGHT, 2.0) if n else 0.0
        bars.append(f"M{LEFT + i * STEP} {base}v{-tall:.1f}h{STEP - 2}v{tall:.1f}z" if n else "")
    said = "; ".join(f"{_bin(i)}: {thousands(n)}" for i, n in enumerate(counts) if n)
    labels = _labels(
        (LEFT + at * STEP, base + 13, anchor, word)
        for at, anchor, word in (
            (0, "start", "0"),
            (10, "middle", "0.5"),
            (19, "middle", "1"),
            (21, "end", ">1"),
        )
    )
    return Markup(
        '<svg class="histogram" viewBox="0 0 {} {}" role="img">'
        "<title>Elements by share of the bound: {}</title>"
        '<path class="bars" d="{}"/><path class="over" d="{}"/>'
        '<path class="axis" d="M{} {}h{}m2 0h{}"/>{}</svg>'
    ).format(
        *(WIDTH + 2, base + 17, said or "none", "".join(bars[:20]), bars[20]),
        *(LEFT, base + 0.5, 20 * STEP - 2, STEP - 2, labels),
    )


def _bin(i: int) -> str:
    return "above 1" if i == BINS - 1 else f"{i / 20:.2f} to {(i + 1) / 20:.2f}"


def _labels(labels: Iterable[tuple[float | str, int, str, str]]) -> Markup:
    """Words at places: (x, y, anchor, word)."""
    text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
    return Markup("").join(text.format(*label) for label in labels)


def share_bar(share: float) -> Markup:
    """A share as a bar that is full at 1. Not drawn for NaN."""
    if math.isnan(share):
        return Markup("")
    return Markup(
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" width="100" height="6"/><rect class="{}" width="{:.1f}" height="6"/></svg>'
    ).format("over" if share > 1 else "bars", 100 * min(max(share, 0.0), 1.0))


def proportions(counts: Mapping[str, int]) -> Markup:
    """All values as one bar of 1000 units, a part per verdict; the smallest is still seen."""
    least = 6.0
    found = {verdict: n for verdict, n in counts.items() if n}
    scale = (1000 - least * len(found)) / (sum(found.values()) or 1)
    part = Markup('<rect class="{}" x="{:.2f}" width="{:.2f}" height="10"/>')
    parts, x = [], 0.0
    for verdict, n in found.items():
        parts.append(part.format(verdict, x, least + scale * n))
        x += least + scale * n
    said = ", ".join(f"{thousands(n)} {verdict}" for verdict, n in found.items())
    return Markup(
        '<svg class="proportions" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img">'
        "<title>{}</title>{}</svg>"
    ).format(said, Markup("").join(parts))


def number_line(worst: Mapping[str, Any], verdict: str) -> Markup:
    """Where the framework's value, refnet's and the exact one lie in the bound; empty without a bound.

    The unit is the bound's radius, 0 its centre. What lies beyond the drawing's ends stands at the end,
    with the distance in words.
    """
    places = _places(worst)
    if "found" not in places:
        return Markup("")
    reach = min(max(1.3, 1.15 * max(abs(place) for place in places.values())), 6.0)

    def x(place: float) -> float:
        return 160 + 150 * min(max(place / reach, -1.0), 1.0)

    found = places["found"]
    marks = {"found": "m0 -2l-6 -10h12z", "plain": "m0 2l-4 9h8z", "golden": "m0 -5l5 5l-5 5l-5 -5z"}
    mark = Markup('<path class="{}" d="M{:.1f} 30{}"/>')
    shapes = Markup("").join(
        mark.format(verdict if who == "found" else who, x(places[who]), marks[who])
        for who in ("plain", "golden", "found")
        if who in places
    )
    anchor = "start" if x(found) < 110 else "end" if x(found) > 210 else "middle"
    shift = {"start": -6, "end": 6, "middle": 0}[anchor]
    said = "; ".join(f"{who} at {figure(place)} of the bound's radius" for who, place in places.items())
    ends = _labels(
        (f"{x(place):.1f}", 58, "middle", word)
        for place, word in ((-1.0, Markup("&minus;1")), (0.0, "0"), (1.0, "+1"))
        if place == 0 or reach < 4
    )
    label = _labels([(f"{x(found) + shift:.1f}", 12, anchor, f"found {figure(found)}")])
    return Markup(
        '<svg class="line" viewBox="0 0 320 62" role="img"><title>{}</title>'
        '<rect class="band" x="{:.1f}" y="22" width="{:.1f}" height="16"/>'
        '<path class="axis" d="M6 30.5h308M{:.1f} 19v22"/>{}{}{}</svg>'
    ).format(said, x(-1), x(1) - x(-1), x(0), shapes, ends, label)


def _places(worst: Mapping[str, Any]) -> dict[str, float]:
    """Per value its distance to the bound's center in radii; empty without a bound that can be drawn."""
    bound = worst.get("bound") or {"center": None, "radius": None}
    center, radius = real(bound["center"]), real(bound["radius"])
    if not (math.isfinite(center) and math.isfinite(radius) and radius > 0):
        return {}
    values = {who: worst[who]["value"] for who in ("found", "plain", "golden") if worst.get(who)}
    places = {who: (real(value) - center) / radius for who, value in values.items()}
    return {who: place for who, place in places.items() if not math.isnan(place)}


COLUMNS = 300
"""Bars of a drawing of signed numbers, at most; of those that share a bar the largest is drawn."""


def signed_bars(products: Sequence[float], sums: Sequence[float]) -> Markup:
    """The terms of a sum as bars from 0, and plain's running sum as a line, each on its own scale.

    Empty where nothing can be drawn: fewer than two terms, or one that is no finite number.

    >>> signed_bars([1.0, -2.0, 0.5], [1.0, -1.0, -0.5]).count("<path")
    3
    """
    lengths = (len(products), len(sums))
    if lengths[0] < 2 or lengths[1] < lengths[0] or not all(map(math.isfinite, [*products, *sums])):
        return Markup("")
    together = -(-len(products) // COLUMNS)
    bars = [max(products[i : i + together], key=abs) for i in range(0, len(products), together)]
    line = [sums[min(i + together, len(products)) - 1] for i in range(0, len(products), together)]
    wide = 300 / len(bars)
    tall, high = (max(map(abs, values)) or 1.0 for values in (bars, line))
    shape = "".join(
        f"M{2 + i * wide:.1f} 40v{-36 * value / tall:.1f}h{max(wide - 0.4, 0.4):.1f}V40z"
        for i, value in enumerate(bars)
    )
    path = "".join(
        f"{'L' if i else 'M'}{2 + (i + 0.5) * wide:.1f} {40 - 36 * value / high:.1f}"
        for i, value in enumerate(line)
    )
    said = f"{thousands(len(products))} terms up to {figure(tall)}; the running sum up to {figure(high)}"
    if together > 1:
        said += f"; a bar is the largest of {together} terms"
    return Markup(
        '<svg class="terms" viewBox="0 0 304 80" role="img"><title>{}</title>'
        '<path class="axis" d="M2 40h300"/><path class="bars" d="{}"/><path class="sum" d="{}"/></svg>'
    ).format(said, shape, path)
