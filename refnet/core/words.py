"""Words of messages."""

from __future__ import annotations


def counted(count: int, one: str, more: str | None = None) -> str:
    """A number with its noun. more: the plural, if it is not one with an s.

    >>> counted(1, "value"), counted(0, "value"), counted(2, "element differs", "elements differ")
    ('1 value', '0 values', '2 elements differ')
    """
    return f"{count} {one if count == 1 else more or one + 's'}"
