"""The help's texts laid out for a terminal: paragraphs filled, commands broken as a shell would read them."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterator

WIDEST, NARROWEST = 80, 60
"""Help is no wider than the first, however wide the terminal, and no narrower than the second."""
MEANING = re.compile(r"( +\S.*? {2,})\S")
"""An indented word, the spaces behind it, and what it means."""


def width() -> int:
    """How wide help is to be."""
    return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)


def laid_out(text: str, wide: int) -> str:
    """The text with no line longer than `wide`, if its words allow that.

    Lines that begin at the margin are paragraphs. Indented lines are commands with a comment behind two
    spaces, or a word and what it means, or text. A line that begins where the meaning above it does is the
    rest of that meaning.

    >>> text = "examples:\\n  refnet run net.pth cat.jpg --model resnest-digits   one image"
    >>> print(laid_out(text, 40), end="")
    examples:
      refnet run net.pth cat.jpg \\
          --model resnest-digits   one image
    """
    whole = re.sub(r" *\\\n +", " ", text)
    return "\n".join(line for part in _parts(whole) for line in _laid_out(part, wide)) + "\n"


def _parts(text: str) -> Iterator[str]:
    """Paragraphs and meanings, each joined to one line; other indented and empty lines as they are."""
    paragraph: list[str] = []
    margin = 0
    for line in text.rstrip("\n").split("\n"):
        blank = len(line) - len(line.lstrip(" "))
        if paragraph and line and blank == margin:
            paragraph.append(line.strip())
            continue
        if paragraph:
            yield " ".join(paragraph)
        meaning = None if line.startswith("  refnet ") else MEANING.match(line)
        margin = len(meaning[1]) if meaning else 0
        paragraph = [line] if line and (meaning or not blank) else []
        if not paragraph:
            yield line
    if paragraph:
        yield " ".join(paragraph)


class WholeWords(argparse.RawDescriptionHelpFormatter):
    """argparse's layout; but the help of an option is not broken at hyphens, which names have."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _filled(" ".join(text.split()), width, "", "")


def _laid_out(line: str, wide: int) -> list[str]:
    if len(line) <= wide:
        return [line]
    if line.startswith("  refnet "):
        return _command(line.strip(), wide)
    blank = " " * (len(line) - len(line.lstrip()))
    if blank and (found := MEANING.match(line)):
        start = found[1]
        return _filled(line[len(start) :], wide, start, " " * len(start))
    return _filled(line.strip(), wide, blank, blank)


def _filled(text: str, wide: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text,
        wide,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _command(line: str, wide: int) -> list[str]:
    """A command broken between its arguments; its comment behind it if there is room, else below."""
    command, _, comment = line.partition("  ")
    lines, at = [], "  "
    for part in re.split(r" (?=-)", command):  # an option stays with its value
        if at.strip() and len(at) + 1 + len(part) > wide - 2:
            lines.append(f"{at} \\")
            at = "      "
        at += part if not at.strip() else f" {part}"
    comment = comment.strip()
    if comment and len(at) + 3 + len(comment) <= wide:
        return [*lines, f"{at}   {comment}"]
    return [*lines, at, *(_filled(comment, wide, "      ", "      ") if comment else [])]
