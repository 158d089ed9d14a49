"""A table, and what of it fits a line: headings and texts fold, whole columns go, no digit is cut.

Table ── fitted ── Fit ── heading, rule, body
             1. the gaps shrink, the headings fold between their words, and the columns that may (`fold`)
             2. whole columns go: first those without content, then those of `drop`, in its order
             3. every text folds
             4. a row becomes a block of lines, one per cell: `records`
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

GAP, NARROW_GAP = 3, 2
"""Spaces between columns; where not all has room."""
LEAST = 12
"""A text is folded to no fewer characters than this, unless a heading's word or the text itself has fewer."""
NUMBER = re.compile(r"(?<!\S)[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?[,;:]?(?!\S)")
"""A number in a text, with the mark behind it. It stays whole, too."""


@dataclass(frozen=True)
class Table:
    """Texts in columns. A name that begins with `>` or `<` is that of a column of numbers, which never folds:
    aligned to the right or to the left.

    drop: names of the columns that a narrow line goes without, the first of them first; what is not listed
    always stays. fold: names of columns of text that rather fold than cost another column its place.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    drop: tuple[str, ...] = ()
    fold: tuple[str, ...] = ()

    @property
    def titles(self) -> tuple[str, ...]:
        """The names as they are printed."""
        return tuple(name.lstrip("<>") for name in self.names)

    def without(self, places: set[int]) -> Table:
        """The table without the columns at these places."""

        def kept(cells: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(cell for i, cell in enumerate(cells) if i not in places)

        return replace(self, names=kept(self.names), rows=tuple(kept(row) for row in self.rows))


@dataclass(frozen=True)
class Fit:
    """The columns that fit, how wide each is, and the spaces between them. widths: None if none fit."""

    table: Table
    widths: tuple[int, ...] | None
    gap: int = GAP

    @property
    def total(self) -> int:
        """The width of all."""
        return _total(self.widths or (), self.gap)


def fitted(whole: Table, width: int) -> Fit:
    """What of a table fits into lines of `width`.

    >>> one = Table(("op", ">values", ">equal"), (("Relu", "67", "67"),), drop=("values",))
    >>> fitted(one, 21).widths, fitted(one, 18).table.titles, fitted(one, 10).widths
    ((4, 6, 5), ('op', 'equal'), None)
    """
    table = whole
    if _total(_natural(table), GAP) <= width:
        return Fit(table, tuple(_natural(table)))
    gap = NARROW_GAP
    while _total(_least(table, table.fold), gap) > width:
        place = _next_to_go(table)
        if not place or len(place) == len(table.names):
            break
        table = table.without(place)
    foldable = table.fold
    if _total(_least(table, foldable), gap) > width:
        foldable = table.titles
    least = _least(table, foldable)
    if _total(least, gap) > width:
        return Fit(whole, None)
    widths = _natural(table)
    while (excess := _total(widths, gap) - width) > 0:
        room = [(wide - low, i) for i, (wide, low) in enumerate(zip(widths, least, strict=True))]
        _, at = max(room)
        second = sorted((widths[i] for r, i in room if r > 0), reverse=True)[1:2]
        step = max(1, min(excess, widths[at] - least[at], widths[at] - (second or [least[at]])[0]))
        widths[at] -= step
    return Fit(table, tuple(widths), gap)


def _next_to_go(table: Table) -> set[int]:
    """The places of the columns that go next: one without content, else those that `drop` names first."""
    for i, name in enumerate(table.titles):
        if name and table.rows and not any(row[i] for row in table.rows):
            return {i}
    for name in table.drop:
        if places := {i for i, title in enumerate(table.titles) if title == name}:
            return places
    return set()


def _natural(table: Table) -> list[int]:
    return [max(map(length, cells)) for cells in _columns(table)]


def _least(table: Table, fold: Sequence[str]) -> list[int]:
    """How wide each column must at least be."""
    found = []
    for i, (name, cells) in enumerate(zip(table.titles, _columns(table), strict=True)):
        most = max(map(length, cells[1:]), default=0)
        if name in fold and not table.names[i].startswith((">", "<")):
            numbers = (length(number) for cell in cells[1:] for number in NUMBER.findall(cell))
            most = min(most, max(LEAST, *numbers, 0))
        found.append(max([most, *map(length, name.split())]))
    return found


def _columns(table: Table) -> list[tuple[str, ...]]:
    """Per column its title, then its cells."""
    return list(zip(table.titles, *table.rows, strict=True))


def _total(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * max(len(widths) - 1, 0)


def length(text: str) -> int:
    """How many places of a line a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def folded(text: str, width: int) -> list[str]:
    """A text in lines of at most `width`: broken between words, and a longer word where it must.

    >>> folded("512 of 512 elements lie outside", 12)
    ['512 of 512', 'elements lie', 'outside']
    >>> folded("layer1.0.conv1.0", 10), folded("convolution", 6)
    (['layer1.0.', 'conv1.0'], ['convol', 'ution'])
    >>> folded("se-resnet-50-0.125", 15)
    ['se-resnet-50-', '0.125']
    """
    if length(text) <= width:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        if line and length(line) + 1 + length(word) <= width:
            line += " " + word
            continue
        if line:
            lines.append(line)
        line = word
        while length(line) > width:
            most = next(n for n in range(len(line), 0, -1) if n == 1 or length(line[:n]) <= width)
            cut = next((n for n in range(most, 0, -1) if _breaks(line, n)), most)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line]


def _breaks(text: str, at: int) -> bool:
    """Whether a word is broken well there: behind a mark that is not part of a number."""
    number = text[at - 1] in ".," and text[at - 2 : at - 1].isdigit() and text[at : at + 1].isdigit()
    return text[at - 1] in "./_-,:" and not number


def heading(fit: Fit) -> Iterator[str]:
    """The lines of the titles; none if all are empty."""
    if any(fit.table.titles):
        yield from _row(fit, fit.table.titles)


def rule(fit: Fit, stroke: str = "─") -> Iterator[str]:
    """The line below the titles, if there are any."""
    if any(fit.table.titles):
        yield stroke * fit.total


def body(fit: Fit) -> Iterator[str]:
    """The lines of the rows."""
    for row in fit.table.rows:
        yield from _row(fit, row)


def _row(fit: Fit, cells: Sequence[str]) -> Iterator[str]:
    widths = fit.widths or ()
    parts = [folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for i in range(max(map(len, parts), default=0)):
        shown = []
        for name, part, width in zip(fit.table.names, parts, widths, strict=True):
            text = part[i] if i < len(part) else ""
            blank = " " * (width - length(text))
            shown.append(blank + text if name.startswith(">") else text + blank)
        yield (" " * fit.gap).join(shown).rstrip()


def records(table: Table, width: int) -> Iterator[str]:
    """Every row as a block of lines, a cell each: for a line that is too narrow for columns."""
    for i, row in enumerate(table.rows):
        if i:
            yield ""
        for title, cell in zip(table.titles, row, strict=True):
            if cell:
                yield from folded(f"{title}: {cell}" if title else cell, max(width, 1))
