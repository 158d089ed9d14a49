"""Tables and lines on standard output: coloured on a terminal, plain and complete in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from refnet.core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

ENDLESS = 100_000
"""Columns of a line that goes to a file or a pipe: nothing is cut or wrapped."""


def clean(text: object) -> str:
    """The text with its unprintable characters escaped: in names from files they could control a terminal.

    >>> clean("a\\x1b[31m\\n")
    'a\\\\x1b[31m\\\\n'
    """
    said = str(text)
    return said if said.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table; a column whose name begins with `>` is aligned to the right. No names: no head."""
    from rich import box
    from rich.table import Table

    head = any(name.removeprefix(">") for name in columns)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False, show_header=head)
    for name in columns:
        if name.startswith(">"):
            shown.add_column(name[1:], justify="right", no_wrap=True, overflow="fold")
        else:
            shown.add_column(name, overflow="fold")
    for row in rows:
        shown.add_row(*(clean(cell) for cell in row))
    return shown


def show(*parts: RenderableType) -> None:
    """Print tables and lines; a string is taken literally, and a long one is left to the terminal to wrap."""
    console = _console()
    with _stdout(), console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def fits(part: RenderableType) -> bool:
    """Whether the terminal is wide enough to show this without wrapping; a pipe always is."""
    console = _console()
    width = console.width
    console.width = ENDLESS  # a measure is never wider than its console
    return console.measure(part).maximum <= width


def _console() -> Console:
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = ENDLESS
    return console


def write(text: str) -> None:
    """Text on standard output, now. Raises BrokenPipeError if nobody reads it, InputError on a full disk."""
    with _stdout():
        print(text, end="", flush=True)


@contextmanager
def _stdout() -> Iterator[None]:
    """If standard output fails, drop what is buffered; otherwise Python would fail again when it exits."""
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            raise
        raise InputError(f"standard output cannot be written: {error.strerror}") from None
