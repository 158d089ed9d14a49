"""Static drawings of the learners' page: SVG without any style in it, the same text each time.

They say without JavaScript what the live figures say with it. Colours come from the page's classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from refnet.core.orders import Order
from refnet.learn.words import brief

CELL = 4
"""Side of an element's square, in the drawing's own units."""


def levels(rows: Sequence[Sequence[int]], largest: int, said: str) -> Markup:
    """Numbers as squares, 0 being the ground. One path per step, whose class gives the colour."""
    height, width = len(rows), len(rows[0])
    return Markup('<svg class="cells" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width * CELL, height * CELL, said, _cells(rows, largest)
    )


def _cells(rows: Sequence[Sequence[int]], largest: int) -> Markup:
    paths: dict[int, list[str]] = {}
    for i, row in enumerate(rows):
        for j, step in enumerate(row):
            if step:
                paths.setdefault(step, []).append(f"M{j * CELL} {i * CELL}h{CELL}v{CELL}h-{CELL}z")
    path = Markup('<path class="{}" opacity="{:.2f}" d="{}"/>')
    return Markup("").join(
        path.format("plus" if step > 0 else "minus", (abs(step) / largest) ** 0.5, "".join(squares))
        for step, squares in sorted(paths.items())
    )


def maps(picture: Mapping[str, Any]) -> Markup:
    """The first maps of a value, as facts.json has them."""
    return Markup("").join(
        levels(rows, 8, f"{picture['name']}, channel {c}") for c, rows in enumerate(picture["steps"])
    )


def bars(probabilities: Sequence[float]) -> Markup:
    """Ten probabilities as bars."""
    bar = Markup(
        '<text x="8" y="{}">{}</text><rect class="rail" x="20" y="{}" width="200" height="9"/>'
        '<rect class="plus" x="20" y="{}" width="{:.1f}" height="9"/><text x="226" y="{}">{:.4f}</text>'
    )
    rows = Markup("").join(
        bar.format(14 * k + 11, k, 14 * k + 3, 14 * k + 3, 200 * p, 14 * k + 11, p)
        for k, p in enumerate(probabilities)
    )
    return Markup('<svg class="chart" viewBox="0 0 280 145" role="img" aria-label="{}">{}</svg>').format(
        "; ".join(f"{k}: {p:.4f}" for k, p in enumerate(probabilities)), rows
    )


def shares(of: Sequence[float]) -> Markup:
    """Numbers from 0 to 1 as bars side by side, with a line at one half."""
    wide = 560 / len(of)
    bar = Markup('<rect class="plus" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>')
    bars = Markup("").join(
        bar.format(20 + i * wide, 110 - 100 * a, wide - 4, 100 * a) for i, a in enumerate(of)
    )
    return Markup(
        '<svg class="chart" viewBox="0 0 600 130" role="img" aria-label="{}">{}'
        '<line class="axis" x1="20" x2="580" y1="60" y2="60"/><text x="20" y="126">channel 0</text>'
        '<text x="580" y="126" text-anchor="end">channel {}</text></svg>'
    ).format("; ".join(f"channel {i}: {a:.3f}" for i, a in enumerate(of)), bars, len(of) - 1)


def histogram(counts: Sequence[int]) -> Markup:
    """Counts around a middle, which is 0 ulp."""
    most, wide = len(counts) // 2, 560 / len(counts)
    bar = Markup('<rect class="minus" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>')
    bars = Markup("").join(
        bar.format(20 + i * wide, 120 - tall, max(wide - 1, 0.5), tall)
        for i, n in enumerate(counts)
        if (tall := 110 * n / max(counts))
    )
    return Markup(
        '<svg class="chart" viewBox="0 0 600 146" role="img" aria-label="Results by their distance from'
        ' the exact sum, up to {most} ulp">{bars}<line class="axis" x1="20" x2="580" y1="120"'
        ' y2="120"/><path class="centre" d="M300 116v12"/><text x="20" y="142">&#8722;{most} ulp</text>'
        '<text x="580" y="142" text-anchor="end">+{most} ulp</text></svg>'
    ).format(most=most, bars=bars)


def interval(half: float, marks: Mapping[str, float], ends: bool) -> Markup:
    """A line from -half to +half with marks on it, all in ulps from the exact value."""
    drawn = Markup("").join(
        Markup('<circle class="{}" cx="{:.2f}" cy="{}" r="5"/>').format(
            name, 300 + v / half * 280, 22 + 18 * i
        )
        for i, (name, v) in enumerate(marks.items())
    )
    closed = Markup('<path class="end" d="M20 28v24M580 28v24"/>') if ends else Markup("")
    return Markup(
        '<svg class="chart" viewBox="0 0 600 80" role="img" aria-label="{}">'
        '<line class="axis" x1="20" x2="580" y1="40" y2="40"/>{}<path class="centre" d="M300 30v20"/>{}'
        '<text x="20" y="74">&#8722;{} ulp</text>'
        '<text x="580" y="74" text-anchor="end">+{} ulp</text></svg>'
    ).format(
        "; ".join(f"{name}: {v:+.3g} ulp from the exact value" for name, v in marks.items()),
        *(closed, drawn, brief(half), brief(half)),
    )


DECADES = (-3, 8)
"""Of the share of a bound, as powers of ten."""


def share_lines(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """One line per node: its largest share of the bound, ten times as much per step, and a line at 1.

    A name stands above its line, so that the chart fits a narrow window, where its text is larger.
    """
    low, high = DECADES
    left, right, tall = 28, 590, 48
    height = tall * len(rows) + 34

    def x(share: float) -> float:
        power = math.log10(share) if share > 0 else low
        return left + (min(max(power, low), high) - low) / (high - low) * (right - left)

    drawn, said = [], []
    for i, row in enumerate(rows):
        y = tall * i + 36
        drawn.append(Markup('<text x="0" y="{}">{}</text>').format(y - 16, row["name"]))
        share = row["share"]
        if share is None:
            wrong = row["differ"] > 0 and row["verdict"] == "defect"
            words = "one result, and other bits" if wrong else "one result, and its bits"
            drawn.append(
                Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
                    "wrong" if wrong else "", left, y + 9, words
                )
            )
        else:
            words = f"share {share:.3g}"
            drawn.append(
                Markup(
                    '<path class="centre" d="M{:.1f} {}v24"/><line class="axis" x1="{}" x2="{:.1f}" y1="{}"'
                    ' y2="{}"/><circle class="{}" cx="{:.1f}" cy="{}" r="5"/>'
                ).format(x(1.0), y - 12, left, x(share), y, y, "wrong" if share > 1 else "exact", x(share), y)
            )
        said.append(f"{row['name']}: {words}")
    ticks = Markup("").join(
        Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x(10.0**power), height - 6, words
        )
        for power, words in ((-3, "0.001"), (0, "1"), (3, "1000"), (6, "10\u2076"))
    )
    return Markup(
        '<svg class="chart shares" viewBox="0 0 600 {}" role="img" aria-label="{}">{}{}</svg>'
    ).format(height, "; ".join(said), Markup("").join(drawn), ticks)


def order(recipe: Mapping[str, Any], index: int) -> Markup:
    """When each term of a sum is added: steps to the right, terms downwards, a colour per chain.

    recipe: as networks.recipe_fact makes it; index: of the element. An upright line adds no product.
    """
    part = recipe["parts"][recipe["part"][index] if "part" in recipe else 0]
    found = steps_of(part["sum"])
    terms = 1 + max(term for _, term in found if term is not None)
    left, right, top, tall = 44.0, 590.0, 8.0, 90.0
    size = min(max(450 / len(found), 1.6), 5)
    paths: dict[str, list[str]] = {}
    for i, (chain, term) in enumerate(found):
        x = left + (right - left) * (i + 0.5) / len(found)
        if term is None:
            paths.setdefault("join", []).append(f"M{x:.1f} {top}v{tall}")
        else:
            y = top + tall * (term + 0.5) / terms
            colour = ("plain", "book", "exact")[chain % 3]
            paths.setdefault(colour, []).append(f"M{x:.1f} {y:.1f}h{size:.1f}v{size:.1f}h-{size:.1f}z")
    drawn = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(name, "".join(squares)) for name, squares in paths.items()
    )
    chains = len({chain for chain, term in found if term is not None})
    return Markup(
        '<svg class="chart order" viewBox="0 0 600 116" role="img" aria-label="{} terms in {}">{}'
        '<text x="0" y="16">1</text><text x="0" y="98">{}</text><text x="44" y="112">first step</text>'
        '<text x="590" y="112" text-anchor="end">last step</text></svg>'
    ).format(terms, "one chain" if chains == 1 else f"{chains} chains", drawn, terms)


def steps_of(expression: Any) -> list[tuple[int, int | None]]:
    """The steps of a book's sum in the order of execution: chain and term; None adds no product.

    >>> steps_of(["add", ["fma", "zero", [[0, 2, 1]]], ["fma", "zero", [[2, 2, 1]]], "bias"])
    [(0, 0), (0, 1), (1, 2), (1, 3), (-1, None), (-1, None)]
    """
    steps: list[tuple[int, int | None]] = []
    chains = 0

    def walk(one: Any) -> None:
        nonlocal chains
        if isinstance(one, str):
            return
        if one[0] == "add":
            walk(one[1])
            for following in one[2:]:
                walk(following)
                steps.append((-1, None))
            return
        walk(one[1])
        pieces = tuple(tuple(piece) for piece in one[2])
        steps.extend((chains, term) for term in Order(pieces).indices())
        chains += 1

    walk(expression)
    return steps
