"""A recipe for humans: in words, and as a picture (SVG) of what is added to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import prod

from refnet.core.orders import (
    Book,
    Chain,
    Choice,
    Expr,
    Leaf,
    Order,
    Part,
    Program,
    Recipe,
    Sum,
    walk,
)

LEAVES = {
    Leaf.ZERO: "+0",
    Leaf.FIRST: "its first term",
    Leaf.BIAS: "the bias",
    Leaf.ADDEND: "the addend",
}
SYMBOLS = {Leaf.ZERO: "+0", Leaf.FIRST: "-0", Leaf.BIAS: "bias", Leaf.ADDEND: "addend"}
FINISH = {
    "divide": "then divided by the number of elements",
    "reciprocal": "then multiplied by the rounded reciprocal of the number of elements",
    "divide_w_h": "then divided by the columns, then by the rows",
    "divide_terms": "each term divided by the number of elements before it is added",
}
AXES = {
    "n": "image",
    "c": "channel",
    "y": "row",
    "x": "column",
    "p": "position",
    "m": "row of the product",
    "e": "element",
}


def words(
    recipe: Recipe, kernel: tuple[int, int] = (1, 1), formulas: Mapping[str, str] | None = None
) -> list[str]:
    """The recipe in words, a line each.

    kernel: rows and columns of a convolution's kernel, so that terms can be named channel, row, column.
    formulas: the op's menu, so that a choice's formula can be said.

    >>> parts = [Chain(Leaf.ZERO, Order.of(range(at, at + 128))) for at in (0, 128, 256)]
    >>> for line in words(Recipe((Part(Program(Sum((*parts, Leaf.BIAS)))),))):
    ...     print(line)
    chains of 128 terms, added from left to right, fused; then the bias
      = c0 + c1 + c2 + bias
      c0: terms 0 to 127, fused, from +0
      c1: terms 128 to 255, fused, from +0
      c2: terms 256 to 383, fused, from +0
    """
    lines = []
    for part in recipe.parts:
        indent = ""
        if part.where is not None or len(recipe.parts) > 1:
            lines.append(f"{region(part)}:")
            indent = "  "
        lines += [indent + line for line in _part(part.do, kernel, formulas or {})]
    return lines


def _part(do: Program | Choice, kernel: tuple[int, int], formulas: Mapping[str, str]) -> list[str]:
    if isinstance(do, Choice):
        said = f": {formulas[do.formula]}" if do.formula in formulas else ""
        lines = [f"formula {do.formula}{said}"]
        return lines if do.total is None else [*lines, "its sum along the axis:", *_sum(do.total, (1, 1))]
    lines = _sum(do.expr, kernel)
    if do.padding == "zero":
        lines.append("terms in the padding are added as weight * 0")
    return [*lines, FINISH[do.finish]] if do.finish in FINISH else lines


def region(part: Part) -> str:
    """The output elements that a part of a recipe is for, in words.

    >>> from refnet.core.orders import Box
    >>> region(Part(Choice("f"), (Box((("c", (992, 1000, 1)), ("p", (48, 4096, 2)))),)))
    'channels 992 to 999 of positions 48 to 4095, every 2nd'
    """
    if part.where is None:
        return "all other elements"
    return "; and ".join(" of ".join(_range(axis, *r) for axis, r in box.ranges) for box in part.where)


def _range(axis: str, start: int, stop: int, step: int) -> str:
    name = AXES[axis]
    if stop - start == 1:
        return f"{name} {start}"
    plural = name.replace("row of", "rows of") if " " in name else f"{name}s"
    return f"{plural} {start} to {stop - 1}" + ("" if step == 1 else f", every {_ordinal(step)}")


def _ordinal(n: int) -> str:
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def _sum(expr: Expr, kernel: tuple[int, int]) -> list[str]:
    """A headline, the sum as a formula of chains c0, c1 ..., and each chain."""
    if isinstance(expr, Chain) and isinstance(expr.seed, Leaf):
        said = f"one chain of {_count(expr.terms.size, 'term')}, {_fused(expr)}, from {LEAVES[expr.seed]}"
        return [said, f"  {_rule(expr.terms, kernel)}"]
    named = _places(expr)
    lines = [headline(expr), f"  = {_formula(expr, named)}"]
    for chain, number in named.items():
        seed = LEAVES[chain.seed] if isinstance(chain.seed, Leaf) else "the sum in brackets before it"
        lines.append(f"  c{number}: {_rule(chain.terms, kernel)}, {_fused(chain)}, from {seed}")
    return lines


def _fused(chain: Chain) -> str:
    return "fused" if chain.fused else "each product rounded before it is added"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def headline(expr: Expr) -> str:
    """A sum in one line.

    >>> lanes = [Chain(Leaf.ZERO, Order.of(range(i, 64, 4)), fused=False) for i in range(4)]
    >>> headline(Sum((Sum((lanes[0], lanes[2])), Sum((lanes[1], lanes[3])))))
    '4 lanes (every 4th term), added in a tree, each product rounded before it is added'
    """
    chains = [one for one in walk(expr) if isinstance(one, Chain)]
    fused = {_fused(chain) for chain in chains}
    how = fused.pop() if len(fused) == 1 else "some fused and some not"
    sizes = [chain.terms.size for chain in chains]
    strided = [p for chain in chains for p in chain.terms.pieces if len(p) == 3 and p[2] > 1]
    steps = {piece[2] for piece in strided}
    flat = isinstance(expr, Sum) and not any(isinstance(part, Sum) for part in expr.parts)
    flat = flat and all(isinstance(chain.seed, Leaf) for chain in chains)
    if flat and len(set(sizes[:-1])) == 1 and sizes[-1] <= sizes[0]:
        what = f"chains of {_count(sizes[0], 'term')}"
        what += "" if sizes[-1] == sizes[0] else f" and one of {sizes[-1]}"
    elif len(steps) == 1:
        what = f"{len(strided)} lanes (every {_ordinal(steps.pop())} term)"
        if rest := len(chains) - len(strided):
            what += f" and {_count(rest, 'shorter chain')}"
    else:
        what = _count(len(chains), "chain")
    said = f"{what}, added {'from left to right' if flat else 'in a tree'}, {how}"
    return said + "".join(_lone(leaf, expr, chains) for leaf in (Leaf.BIAS, Leaf.ADDEND))


def _lone(leaf: Leaf, expr: Expr, chains: Sequence[Chain]) -> str:
    """Where the bias or the addend joins the sum."""
    if any(chain.seed is leaf for chain in chains):
        return f"; {LEAVES[leaf]} seeds a chain"
    if isinstance(expr, Sum) and expr.parts[-1] is leaf:
        return f"; then {LEAVES[leaf]}"
    return f"; with {LEAVES[leaf]}" if any(one is leaf for one in walk(expr)) else ""


def _places(expr: Expr) -> dict[Chain, int]:
    """The number of each chain, in the order in which the sum is computed."""
    found: dict[Chain, int] = {}

    def visit(one: Expr) -> None:
        if isinstance(one, Sum):
            for part in one.parts:
                visit(part)
        elif isinstance(one, Chain):
            visit(one.seed)
            found[one] = len(found)

    visit(expr)
    return found


def _formula(expr: Expr, named: dict[Chain, int]) -> str:
    if isinstance(expr, Leaf):
        return SYMBOLS[expr]
    if isinstance(expr, Sum):
        return " + ".join(
            f"({_formula(part, named)})" if isinstance(part, Sum) else _formula(part, named)
            for part in expr.parts
        )
    inner = "" if isinstance(expr.seed, Leaf) else f"[{_formula(expr.seed, named)}] -> "
    return f"{inner}c{named[expr]}"


def _rule(order: Order, kernel: tuple[int, int]) -> str:
    """The terms of a chain in the order in which they are added."""
    pieces = [_piece(piece, kernel) for piece in order.pieces[:6]]
    more = len(order.pieces) - len(pieces)
    return ", then ".join(pieces) + (f", then {more} more pieces" if more else "")


def _piece(piece: tuple[int, ...], kernel: tuple[int, int]) -> str:
    """One piece of an order.

    >>> _piece((0, 8, 72, 9, 1, 8, 9), (3, 3))
    'from term 0: 8 blocks of 8 channels, in each the 9 places of the kernel, in each 8 channels'
    """
    start, area = piece[0], kernel[0] * kernel[1]
    loops = list(zip(piece[1::2], piece[2::2], strict=True))
    if not loops:
        return f"term {start}"
    if len(loops) == 1 and loops[0][1] == 1:
        return f"terms {start} to {start + loops[0][0] - 1}"
    said = [_loop(count, step, area, kernel[1], loops[i + 1 :]) for i, (count, step) in enumerate(loops)]
    return f"from term {start}: " + ", in each ".join(said)


def _loop(count: int, step: int, area: int, columns: int, inner: Sequence[tuple[int, int]]) -> str:
    if area == 1:
        if step > 1 and inner and prod(n for n, _ in inner) == step:
            return f"{count} blocks of {step} terms"
        if step > 1:
            return f"{count} terms, every {_ordinal(step)}"
        return f"{count} terms" + ("" if step == 1 else f" by {step}")
    if step % area == 0:
        channels = step // area
        if channels > 1 and prod(n for n, s in inner if s % area == 0) == channels:
            return f"{count} blocks of {channels} channels"
        return f"{count} channels" + ("" if channels == 1 else f" by {channels}")
    if step == 1 and count == area:
        return f"the {area} places of the kernel"
    if step % columns == 0:
        return f"{count} rows of the kernel" + ("" if step == columns else f" by {step // columns}")
    return f"{count} columns of the kernel" if step == 1 else f"{count} terms by {step}"


def find(book: Book, text: str) -> list[str]:
    """The keys of the recipes that a text means: it is a node's name, a key, or part of one or more keys.

    >>> from refnet.core.orders import Reference
    >>> reference = Reference("mxnet", "1.9.1", "", "avx2", 1, 1, "symbol")
    >>> book = Book(reference, {"Dense(units=8)(x)": Recipe(())})
    >>> find(book, "Dense"), find(book, "Conv")
    (['Dense(units=8)(x)'], [])
    """
    if text in book.nodes:
        return [book.nodes[text]]
    return [text] if text in book.recipes else sorted(key for key in book.recipes if text in key)


# The picture.

ROW, STEP, LEFT = 26, 40, 16
WIDEST = 420
STYLE = (
    "text{font:12px sans-serif;fill:#222}.t{font-weight:bold}.f{fill:#cfe3f7;stroke:#27639e}"
    ".r{fill:#fbe5cf;stroke:#a3611a}.b{fill:#e3f2d9;stroke:#4d7d2c}.l{fill:none;stroke:#666}.a{fill:#fff;stroke:#444}"
)


@dataclass
class _Canvas:
    """What is drawn so far; row: the next free row; wide: the rightmost point. scale: pixels per term."""

    scale: float
    drawn: list[str]
    row: int = 0
    wide: float = 0

    def line(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self.drawn.append(f'<path class="l" d="M{x0:.0f} {y0:.0f}H{(x0 + x1) / 2:.0f}V{y1:.0f}H{x1:.0f}"/>')

    def box(self, x: float, width: float, kind: str, label: str) -> tuple[float, float]:
        """A box in the next row; where a line may leave it."""
        y = self.row * ROW + ROW / 2
        self.row += 1
        self.drawn.append(
            f'<rect class="{kind}" x="{x:.0f}" y="{y - 10:.0f}" width="{width:.0f}" height="20" rx="3"/>'
            f'<text x="{x + 6:.0f}" y="{y + 4:.0f}">{escape(label)}</text>'
        )
        self.wide = max(self.wide, x + width)
        return x + width, y

    def plus(self, x: float, y: float) -> tuple[float, float]:
        self.drawn.append(
            f'<circle class="a" cx="{x:.0f}" cy="{y:.0f}" r="9"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">+</text>'
        )
        self.wide = max(self.wide, x + 9)
        return x + 9, y


def svg(recipe: Recipe, title: str, kernel: tuple[int, int] = (1, 1)) -> str:
    """The recipe as an SVG picture, one row per chain; width: pixels of the longest chain.

    Blue chains are fused, orange ones round each product first; where lines meet, two sums are added.

    >>> picture = svg(Recipe((Part(Program(Chain(Leaf.BIAS, Order.of(range(9)))),),)), "a < b")
    >>> picture.startswith("<svg"), "a &lt; b" in picture, "9 terms" in picture
    (True, True, True)
    """
    exprs = [(part, part.do.expr if isinstance(part.do, Program) else part.do.total) for part in recipe.parts]
    sizes = [e.terms.size for _, expr in exprs if expr for e in walk(expr) if isinstance(e, Chain)]
    canvas = _Canvas(WIDEST / max([*sizes, 1]), [])
    _text(canvas, title, "t")
    for part, expr in exprs:
        if part.where is not None or len(exprs) > 1:
            _text(canvas, f"{region(part)}:", "t")
        if isinstance(part.do, Choice):
            _text(canvas, f"formula {part.do.formula}")
        if expr is None:
            continue
        _text(canvas, headline(expr) if not isinstance(expr, Chain) else _sum(expr, kernel)[0])
        x, y = _draw(expr, canvas, kernel)
        canvas.line(x, y, x + STEP, y)
        canvas.wide = max(canvas.wide, x + STEP)
        if isinstance(part.do, Program) and part.do.finish in FINISH:
            _text(canvas, FINISH[part.do.finish])
    width, height = canvas.wide + LEFT, canvas.row * ROW + 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *canvas.drawn, "</svg>\n"])


def _text(canvas: _Canvas, text: str, kind: str = "") -> None:
    y = canvas.row * ROW + ROW / 2 + 4
    canvas.row += 1
    canvas.drawn.append(f'<text class="{kind}" x="{LEFT}" y="{y:.0f}">{escape(text)}</text>')
    canvas.wide = max(canvas.wide, LEFT + 6.5 * len(text))


def _draw(expr: Expr, canvas: _Canvas, kernel: tuple[int, int]) -> tuple[float, float]:
    """Draw an expression; where its line leaves it."""
    if isinstance(expr, Leaf):
        return canvas.box(LEFT, 90, "b", SYMBOLS[expr])
    if isinstance(expr, Sum):
        x, y = _draw(expr.parts[0], canvas, kernel)
        for part in expr.parts[1:]:
            x1, y1 = _draw(part, canvas, kernel)
            at = max(x, x1) + STEP
            canvas.line(x, y, at - 9, y1)
            canvas.line(x1, y1, at - 9, y1)
            x, y = canvas.plus(at, y1)
        return x, y
    start: float = LEFT
    before = None if isinstance(expr.seed, Leaf) else _draw(expr.seed, canvas, kernel)
    if before is not None:
        start = before[0] + STEP
    seed = f", from {LEAVES[expr.seed]}" if isinstance(expr.seed, Leaf) and expr.seed is not Leaf.ZERO else ""
    label = f"{_count(expr.terms.size, 'term')}{seed}: {_rule(expr.terms, kernel)}"
    width = max(expr.terms.size * canvas.scale, 6.5 * len(label) + 12)
    x, y = canvas.box(start, width, "f" if expr.fused else "r", label)
    if before is not None:
        canvas.line(before[0], before[1], start, y)
    return x, y
