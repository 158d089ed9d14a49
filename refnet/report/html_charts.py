"""The drawings of the HTML report: histograms, bars and a line of numbers, as SVG without any style in it.

Colours come from the page's classes, so that the drawings follow light and dark; positions and sizes are
attributes of SVG, which the page's policy allows where it forbids style attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from refnet.report.html_parts import count, figure, real, text

BINS = 21
"""Of a histogram of shares: 20 of width 0.05 from 0 to 1, and one for all above 1."""

WIDTH, HEIGHT, LEFT, TOP = 252, 48, 1, 4  # of a histogram's bars, in the drawing's own units
STEP = WIDTH // BINS


def histogram(counts: Sequence[int]) -> str:
    """How many elements use which share of the bound. Heights are logarithmic: one element stays visible.

    counts: 21, of the bins [0, 0.05), [0.05, 0.1) ... [0.95, 1] and above 1.

    >>> histogram([9] + [0] * 19 + [1]).count("h10v")  # bars
    2
    """
    top = math.log1p(max(counts, default=0)) or 1.0
    bars = []
    for i, n in enumerate(counts):
        tall = max(math.log1p(n) / top * HEIGHT, 2.0) if n else 0.0
        x = LEFT + i * STEP
        bars.append(f"M{x} {TOP + HEIGHT}v{-tall:.1f}h{STEP - 2}v{tall:.1f}z" if n else "")
    said = "; ".join(f"{_bin(i)}: {count(n)}" for i, n in enumerate(counts) if n)
    base = TOP + HEIGHT
    labels = "".join(
        f'<text x="{LEFT + at * STEP}" y="{base + 13}" text-anchor="{anchor}">{word}</text>'
        for at, anchor, word in (
            (0, "start", "0"),
            (10, "middle", "0.5"),
            (19, "middle", "1"),
            (21, "end", ">1"),
        )
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH + 2} {base + 17}" role="img">'
        f"<title>Elements by share of the bound: {said or 'none'}</title>"
        f'<path class="bars" d="{"".join(bars[:20])}"/><path class="over" d="{bars[20]}"/>'
        f'<path class="axis" d="M{LEFT} {base + 0.5}h{20 * STEP - 2}m2 0h{STEP - 2}"/>{labels}</svg>'
    )


def _bin(i: int) -> str:
    return "above 1" if i == BINS - 1 else f"{i / 20:.2f} to {(i + 1) / 20:.2f}"


def share_bar(share: float) -> str:
    """A share as a bar that is full at 1. Not drawn for what is no number."""
    if math.isnan(share):
        return ""
    full = "over" if share > 1 else "bars"
    wide = 100 * min(max(share, 0.0), 1.0)
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" width="100" height="6"/>'
        f'<rect class="{full}" width="{wide:.1f}" height="6"/></svg>'
    )


def proportions(counts: Mapping[str, int]) -> str:
    """All values as one bar of 1000 units, a part per verdict; the smallest is still seen."""
    least = 6.0
    found = {verdict: n for verdict, n in counts.items() if n}
    scale = (1000 - least * len(found)) / (sum(found.values()) or 1)
    parts, x = [], 0.0
    for verdict, n in found.items():
        wide = least + scale * n
        parts.append(f'<rect class="{verdict}" x="{x:.2f}" width="{wide:.2f}" height="10"/>')
        x += wide
    said = ", ".join(f"{count(n)} {verdict}" for verdict, n in found.items())
    return (
        '<svg class="proportions" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img">'
        f"<title>{text(said)}</title>{''.join(parts)}</svg>"
    )


def number_line(worst: Mapping[str, Any], verdict: str) -> str:
    """Where the framework's value, refnet's and the exact one lie in the bound; empty without a bound.

    The unit is the bound's radius, 0 its centre. What lies beyond the drawing's ends stands at the end,
    with the distance in words.
    """
    bound = worst.get("bound")
    if not bound:
        return ""
    center, radius = real(bound["center"]), real(bound["radius"])
    if not (math.isfinite(center) and math.isfinite(radius) and radius > 0):
        return ""
    places = {}
    for who in ("found", "plain", "golden"):
        one = worst.get(who)
        place = (real(one["value"]) - center) / radius if one else math.nan
        if not math.isnan(place):
            places[who] = place
    if "found" not in places:
        return ""
    reach = min(max(1.3, 1.15 * max(abs(place) for place in places.values())), 6.0)

    def x(place: float) -> float:
        return 160 + 150 * min(max(place / reach, -1.0), 1.0)

    found = places["found"]
    marks = {"found": "m0 -2l-6 -10h12z", "plain": "m0 2l-4 9h8z", "golden": "m0 -5l5 5l-5 5l-5 -5z"}
    shapes = "".join(
        f'<path class="{verdict if who == "found" else who}" d="M{x(place):.1f} 30{marks[who]}"/>'
        for who, place in sorted(places.items(), key=lambda one: one[0] == "found")
    )
    anchor = "start" if x(found) < 110 else "end" if x(found) > 210 else "middle"
    shift = {"start": -6, "end": 6, "middle": 0}[anchor]
    said = "; ".join(f"{who} at {figure(place)} of the bound's radius" for who, place in places.items())
    ends = "".join(
        f'<text x="{x(place):.1f}" y="58" text-anchor="middle">{word}</text>'
        for place, word in ((-1.0, "&minus;1"), (0.0, "0"), (1.0, "+1"))
        if place == 0 or reach < 4
    )
    return (
        f'<svg class="line" viewBox="0 0 320 62" role="img"><title>{said}</title>'
        f'<rect class="band" x="{x(-1):.1f}" y="22" width="{x(1) - x(-1):.1f}" height="16"/>'
        f'<path class="axis" d="M6 30.5h308M{x(0):.1f} 19v22"/>{shapes}{ends}'
        f'<text x="{x(found) + shift:.1f}" y="12" text-anchor="{anchor}">found {figure(found)}</text></svg>'
    )
