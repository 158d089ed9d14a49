"""refnet's docstrings are plain text, which is read in a terminal. This makes reStructuredText of them.

a paragraph                 a paragraph; `code` is set as code, and docs/page.md is a link
name: what it is            an item of its own, the name in bold
1. or - before a line       an item of its own
four blanks before a line   as it stands: formulas, drawings
>>> example                 as it stands
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import refnet

NAMED = re.compile(r"(?P<names>[a-z]\w*(?:, [a-z]\w*)*): ")
LISTED = re.compile(r" *(\d+\.|-) ")
PIECES = re.compile(r"(?P<code>`[^`]+`)|\bdocs/(?P<page>[\w-]+)\.md|(?P<special>[*_|\\<>])")


def processed(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """For Sphinx's event: the lines are replaced where they are. An op begins with its formula."""
    if name.startswith("refnet.ops.") and lines:
        end = lines.index("")
        lines[:end] = [f"`{' '.join(lines[:end]).replace('`', '')}`"]
    lines[:] = list(restructured(lines))


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, arguments: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """For Sphinx's event: a default that each object makes anew is written as dots, which can be parsed."""
    return arguments and arguments.replace("<factory>", "..."), result


def restructured(lines: Sequence[str]) -> Iterator[str]:
    r"""The lines as reStructuredText.

    >>> list(restructured(["Sum of `x`, see docs/tour.md.", "axis: which *one*"]))
    ['Sum of ``x``, see :doc:`docs/tour.md </docs/tour>`.', '', '**axis**: which \\*one\\*', '']
    >>> list(restructured(["    y = x * 2", "", ">>> f(1)", "2"]))
    ['::', '', '    y = x * 2', '', '>>> f(1)', '2', '']
    """
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line.rstrip())
        elif block:
            yield from _block(block)
            block = []


def _block(block: Sequence[str]) -> Iterator[str]:
    if block[0].startswith(">>>"):
        yield from (*block, "")
    elif all(line.startswith("    ") for line in block):
        yield from ("::", "", *block, "")
    else:
        item: list[str] = []
        for line in block:
            if item and (NAMED.match(line) or LISTED.match(line)):
                yield from (_marked(item), "")
                item = []
            item.append(line)
        yield from (_marked(item), "")


def _marked(item: Sequence[str]) -> str:
    text = " ".join(line.strip() for line in item)
    named = NAMED.match(text)
    start = f"**{_escaped(named['names'])}**: " if named else ""
    return start + _escaped(text[named.end() :] if named else text)


def _escaped(text: str) -> str:
    def piece(found: re.Match[str]) -> str:
        if code := found["code"]:
            public = code.strip("`").removeprefix("refnet.")
            if public in refnet.__all__ and public != "__version__":
                return f":py:obj:`refnet.{public}`" if code.startswith("`refnet.") else f"`{code}`"
            return f"`{code}`"
        return f":doc:`{found[0]} </docs/{found['page']}>`" if found["page"] else "\\" + found["special"]

    return PIECES.sub(piece, text)
