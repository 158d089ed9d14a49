"""Tables and lines on standard output: coloured on a terminal, plain and complete in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from refnet.core.errors import InputError
from refnet.report.table import Table, body, fitted, heading, records, rule

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

ENDLESS = 100_000
"""Columns of a line that goes to a file or a pipe: nothing is cut or wrapped."""


def clean(text: object) -> str:
    """The text with its unprintable characters escaped: in names from files they could control a terminal.

    >>> clean("a\\x1b[31m\\n")
    'a\\\\x1b[31m\\\\n'
    """
    said = str(text)
    return said if said.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    drop: Sequence[str] = (),
    fold: Sequence[str] = (),
) -> Table:
    """A table of whatever can be printed. A name that begins with `>` or `<` is that of numbers.

    drop: which columns a narrow terminal goes without, the first first. fold: which rather fold. table.py
    has the rules.
    """
    made = tuple(tuple(clean(cell) for cell in row) for row in rows)
    return Table(tuple(columns), made, tuple(drop), tuple(fold))


def show(*parts: Table | RenderableType) -> None:
    """Print tables and lines; a string is taken literally, and a long one is left to the terminal to wrap."""
    console = _console()
    with _stdout(), console.capture() as captured:
        for part in parts:
            if isinstance(part, Table):
                _print_table(console, part)
            else:
                console.print(part, soft_wrap=isinstance(part, str))
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _print_table(console: Console, whole: Table) -> None:
    """A table as wide as the terminal, and a line that names the columns that have no room."""
    fit = fitted(whole, console.width)

    def say(texts: Iterable[str], style: str | None = None) -> None:
        for text in texts:
            console.print(text, style=style, soft_wrap=True)

    if fit.widths is None:
        return say(records(whole, console.width))
    say(heading(fit), "bold")
    say(rule(fit, "-" if console.options.ascii_only else "─"))
    say(body(fit))
    missing = [name for i, name in enumerate(whole.titles) if any(row[i] for row in whole.rows)]
    gone = [name for name in dict.fromkeys(missing) if name not in fit.table.titles]
    if gone:
        console.print(f"(columns left out: {', '.join(gone)}; a wider terminal, a pipe and --json have all)")
    return None


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
