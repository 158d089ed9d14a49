"""How a value shows itself in a notebook: the view stands floors above, so the root of the package brings it.

Graph._repr_html_ ─┐
Verification, ... ─┴── shown ── the function that refnet/__init__.py gives ── report/views.py
"""

from __future__ import annotations

from collections.abc import Callable

Viewer = Callable[[object], str]

_viewers: list[Viewer] = []
"""One function, or none where this package is used without its root."""


def view_with(viewer: Viewer) -> None:
    """Say what makes HTML of a graph, a verification or an explanation."""
    _viewers[:] = [viewer]


def shown(value: object) -> str | None:
    """The value as HTML of bounded length; None, if nobody makes any: a notebook then shows the text."""
    return _viewers[0](value) if _viewers else None
