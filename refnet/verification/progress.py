"""How long functions report progress: progress(done, total) after each step."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None], object]
"""Called with how many steps are done, and of how many; None if nobody knows."""

Advance = Callable[[int], object]
"""Called with how many more steps are done."""


def advancing(progress: Progress | None, total: int | None) -> Advance | None:
    """What adds up steps and reports them; None if nobody wants to know.

    >>> advance = advancing(lambda done, total: print(done, "of", total), 5)
    0 of 5
    >>> advance(1), advance(2)
    1 of 5
    3 of 5
    (None, None)
    """
    if progress is None:
        return None
    done = 0
    progress(0, total)

    def advance(more: int) -> object:
        nonlocal done
        done += more
        return progress(done, total)

    return advance
