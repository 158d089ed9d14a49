"""Figures of single numbers: what each verdict says, and one sum in two orders.

All of them are about one element that PyTorch computed: an average of 16 numbers in the shipped capture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import accumulate

import numpy as np

import refnet
from refnet.core.op import F32, Interval
from refnet.core.orders import Book, Chain, Program, Sum
from refnet.models.weights import shipped_captures
from refnet.report.drawing import Drawing
from refnet.verification.judgement import Judgement

NETWORK, NODE, CHANNEL = "resnest-digits", "layer3.0.conv2.adaptive_avg_pool2d", 22
"""An average whose bits in PyTorch's order, in plain's and correctly rounded are three different ones."""
AT = (0, CHANNEL, 0, 0)
RECIPE = "GlobalAvgPool()(float32[1, 32, 4, 4])"
RELU = "layer3.0.conv2.relu"
HIDDEN = "layer2.1.conv2.adaptive_avg_pool2d"
"""The last value that is kept, for a bound over everything after it."""


def bits(x: np.float32) -> str:
    return f"0x{int(x.view(np.uint32)):08x}"


@dataclass(frozen=True)
class Element:
    """The average, by whom it was computed, and its bound. terms: the 16 numbers, (16,)."""

    terms: F32
    captured: np.float32
    plain: np.float32
    golden: np.float32
    center: float
    radius: float

    def place(self, value: np.float32) -> float:
        """The distance from the middle of the bound, in radii."""
        return (float(value) - self.center) / self.radius


@cache
def capture() -> tuple[refnet.Capture, Book]:
    (found,) = [one for one in shipped_captures() if one[0].name == NETWORK]
    return refnet.open_capture(found[0]), refnet.read_book(found[1])


@cache
def element() -> Element:
    graph, kept = refnet.load(NETWORK), capture()[0]
    node = graph.by_name[NODE]
    x = kept.value(node.data[0])
    arithmetic = refnet.Plain()
    bound = node.op.bound(Interval.exactly(x), engine=arithmetic.engine)
    return Element(
        x[0, CHANNEL].ravel(),
        kept.value(NODE)[AT],
        arithmetic.evaluate(node, x)[AT],
        refnet.Golden().evaluate(node, x)[AT],
        float(bound.center[AT]),
        float(bound.radius[AT]),
    )


def judged(changes: dict[str, F32], name: str, without: str = "", book: bool = False) -> Judgement:
    """What refnet says of a value of the capture, some of whose values are changed.

    without: of what comes after that value, keep `name` only.
    """
    kept, recipes = capture()
    graph = refnet.load(NETWORK)
    names = [node.name for node in graph.nodes if kept.has(node.name)]
    if without:
        names = [*names[: names.index(without) + 1], name]
    values = {one: kept.value(one) for one in names} | changes
    found = refnet.verify(values, graph, inputs={"data": kept.input("data")}, book=recipes if book else None)
    (one,) = [node for node in found.nodes if node.name == name]
    return one


def verdicts() -> str:
    """Five rows: the verdict, what it says, and the numbers it rests on."""
    one, kept = element(), capture()[0]
    wrong = kept.value(NODE).copy()
    wrong[AT] = math.fsum(one.terms[:-1]) / 16  # in no order that a NumPy might choose
    graph, plain = refnet.load(NETWORK), refnet.Plain()
    relu = kept.value(RELU)
    spot = np.unravel_index(int(relu.argmax()), relu.shape)
    right = plain.evaluate(graph.by_name[RELU], kept.value(graph.by_name[RELU].data[0]))[spot]
    node = graph.by_name[NODE]
    again = refnet.Replay(capture()[1]).evaluate(node, kept.value(node.data[0]))[AT]
    found = {
        "equal": judged({}, RELU),
        "replayed": judged({}, NODE, book=True),
        "rounding": judged({}, NODE),
        "defect": judged({NODE: wrong}, NODE),
        "unjudged": judged({}, "fc", without=HIDDEN),
    }
    assert {name: one.verdict for name, one in found.items()} == {name: name for name in found}
    share, off = abs(one.place(one.captured)), abs(one.place(wrong[AT]))
    worst = found["unjudged"].worst
    assert worst is not None
    assert worst.bound is not None
    center, radius = worst.bound
    drawing = Drawing(
        560,
        "The verdicts",
        "Equal: a relu has one right result, and PyTorch has its bits. Replayed: PyTorch's order of "
        "additions gives PyTorch's bits. Rounding: PyTorch's average lies inside the bound and uses "
        f"{100 * share:.1f} percent of it. Defect: with one of 16 numbers forgotten it lies "
        f"{off:,.0f} bounds away. Unjudged: over {len(found['unjudged'].over)} nodes the bound is "
        f"{radius:.3g} wide on each side, so that 0 lies in it.",
    )
    left = 300

    def x(place: float) -> float:
        return left + 160 + 128 * place

    def row(y: float, verdict: str, *said: str) -> None:
        drawing.rect(12, y, 616, 96, "sheet", 8)
        drawing.rect(12, y, 6, 96, verdict)
        drawing.text(32, y + 26, verdict, f"bold {verdict}")
        for i, line in enumerate(said):
            drawing.text(32, y + 47 + 19 * i, line, "soft")

    def line(y: float, reach: float = 1.0) -> None:
        drawing.rect(x(-reach), y, x(reach) - x(-reach), 14, "band")
        drawing.path(f"M{x(-reach):g} {y - 5}v24M{x(reach):g} {y - 5}v24", "way")

    def mark(place: float, y: float, kind: str) -> None:
        drawing.path(f"M{x(place):.1f} {y}l-6 -12h12z", kind)

    row(12, "equal", "One right result in float32,", "and these are its bits.")
    drawing.text(left, 46, "PyTorch, a relu", "soft")
    drawing.text(left + 160, 46, bits(relu[spot]), "mono")
    drawing.text(left, 70, "the right result", "soft")
    drawing.text(left + 160, 70, bits(right), "mono")
    row(120, "replayed", "A known order of operations", "gives exactly these bits.")
    drawing.text(left, 148, "PyTorch, an average", "soft")
    drawing.text(left + 160, 148, bits(one.captured), "mono")
    drawing.text(left, 172, "in PyTorch's order", "soft")
    drawing.text(left + 160, 172, bits(again), "mono")
    drawing.text(left, 196, "in refnet's order", "soft")
    drawing.text(left + 160, 196, bits(one.plain), "mono")
    row(228, "rounding", "Inside the bound of every order:", "rounding can explain it.")
    line(276)
    mark(one.place(one.captured), 274, "rounding")
    drawing.text(x(0), 254, f"PyTorch's average: {100 * share:.1f} % of the bound", "", "middle")
    drawing.text(x(-1), 312, f"−{one.radius:.2g}", "soft", "middle")
    drawing.text(x(0), 312, "exact", "soft", "middle")
    drawing.text(x(1), 312, f"+{one.radius:.2g}", "soft", "middle")
    row(336, "defect", "Outside of the bound:", "proved not to be rounding.")
    drawing.path(f"M{x(1):g} 379v24", "way")
    drawing.rect(x(1) - 2, 384, 4, 14, "band")
    drawing.arrow((x(1) - 8, 391), (left + 6, 391))
    mark(-1.08, 384, "defect")
    drawing.text(x(0), 364, f"{off:,.0f} bounds away", "", "middle")
    drawing.text(x(0), 422, "one of its 16 numbers was forgotten", "soft", "middle")
    row(444, "unjudged", "Nothing can be proved: here", "the nodes before are missing.")
    line(492)
    zero = -center / radius
    mark((float(worst.found) - center) / radius, 490, "unjudged")
    drawing.path(f"M{x(zero):.1f} 488v22", "way")
    drawing.text(
        x(0), 470, f"{float(worst.found):.3g}, and 0 lies in the bound too".replace("-", "−"), "", "middle"
    )
    drawing.text(x(-1), 528, f"{center - radius:.3g}".replace("-", "−"), "soft", "middle")
    drawing.text(x(1), 528, f"+{center + radius:.3g}", "soft", "middle")
    return drawing.svg()


def rounded(order: list[list[int]], terms: F32) -> tuple[list[list[bool]], list[bool], np.float32]:
    """The chains of an order, then their sum: whether each addition rounded, and the result.

    >>> rounded([[0, 1], [2]], np.float32([1, 2**-30, 3]))
    ([[True], []], [False], np.float32(4.0))
    """

    def add(numbers: list[np.float32]) -> tuple[list[bool], np.float32]:
        sums = list(accumulate(numbers, lambda a, b: a + b))
        whole = [
            Fraction(float(sums[i])) + Fraction(float(numbers[i + 1])) != Fraction(float(sums[i + 1]))
            for i in range(len(numbers) - 1)
        ]
        return whole, sums[-1]

    chains = [add([terms[i] for i in chain]) for chain in order]
    last, total = add([result for _, result in chains])
    return [flags for flags, _ in chains], last, total


def recipe() -> list[list[int]]:
    """PyTorch's order of the average, as the shipped book has it: chains, added from left to right."""
    (found,) = [one for key, one in capture()[1].recipes.items() if key == RECIPE]
    (part,) = found.parts
    assert isinstance(part.do, Program)
    assert isinstance(part.do.expr, Sum)
    assert part.do.finish == "divide"
    chains = [chain for chain in part.do.expr.parts if isinstance(chain, Chain)]
    assert len(chains) == len(part.do.expr.parts)
    return [chain.terms.indices() for chain in chains]


def order() -> str:
    """The 16 numbers in plain's order and in PyTorch's; each addition that rounded is filled."""
    one = element()
    step, left = 36, 32
    drawing = Drawing(
        388,
        "One average in two orders",
        "Plain adds the 16 numbers from left to right. PyTorch adds number i and number i + 8 first, "
        f"and then the eight sums from left to right. The results are {bits(one.plain)} and "
        f"{bits(one.captured)}; the correctly rounded average is {bits(one.golden)}.",
    )

    def dot(x: float, y: float, filled: bool) -> None:
        drawing.parts.append(
            f'<circle class="{"plus" if filled else "hollow"}" cx="{x:g}" cy="{y:g}" r="6"/>'
        )

    def number(i: int, x: float, y: float) -> None:
        drawing.rect(x - 13, y - 12, 26, 24, "rail", 4)
        drawing.text(x, y + 5, f"{i}", "", "middle")

    def end(y: float, words: str, value: np.float32) -> None:
        drawing.text(left - 14, y, words)
        drawing.text(left + 300, y, bits(value), "mono bold")
        drawing.text(left + 400, y, f"{value!s}")

    _, flags, total = rounded([[i] for i in range(16)], one.terms)
    assert total / np.float32(16) == one.plain
    drawing.text(left - 14, 28, "plain: one number after the other", "bold")
    for i in range(16):
        number(i, left + step * i, 54)
    drawing.path(f"M{left} 66V92H{left + step * 15 + 12}", "way")
    for i, flag in enumerate(flags, 1):
        drawing.path(f"M{left + step * i} 66v20", "way")
        dot(left + step * i, 92, flag)
    end(130, f"divided by 16 · {sum(flags)} of 15 additions rounded", one.plain)
    chains, last, total = rounded(recipe(), one.terms)
    assert total / np.float32(16) == one.captured
    drawing.text(left - 14, 176, "PyTorch: eight pairs, then their sums", "bold")
    for k, (chain, inner) in enumerate(zip(recipe(), chains, strict=True)):
        x, (above, below) = left + 2 * step * k, chain
        number(above, x, 202)
        number(below, x + step, 202)
        drawing.path(f"M{x} 214L{x + step / 2:g} 232M{x + step} 214L{x + step / 2:g} 232", "way")
        drawing.path(f"M{x + step / 2:g} 238V264", "way")
        dot(x + step / 2, 238, inner[0])
    drawing.path(f"M{left + step / 2:g} 264H{left + 14.5 * step + 12:g}", "way")
    for k, flag in enumerate(last, 1):
        dot(left + (2 * k + 0.5) * step, 264, flag)
    count = sum(last) + sum(flag for inner in chains for flag in inner)
    end(302, f"divided by 16 · {count} of 15 additions rounded", one.captured)
    end(336, "the exact average, rounded once", one.golden)
    dot(left - 8, 364, True)
    drawing.text(left + 6, 369, "an addition that rounded", "soft")
    dot(left + 200, 364, False)
    drawing.text(left + 214, 369, "one that was exact", "soft")
    return drawing.svg()
