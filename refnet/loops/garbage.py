"""Python's search for cycles, paused where many objects are made and few become garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

_lock = RLock()
_inside: list[object] = []
"""One object for each `paused` that is entered and not left."""
_before: list[bool] = []
"""Whether Python searched when the first of them was entered."""


@contextmanager
def paused() -> Iterator[None]:
    """Within it, Python does not search for cycles, in no thread. The last to leave it switches the search on
    again, if it was on.
    """
    user = object()
    try:
        with _lock:
            if not _inside:
                _before[:] = [gc.isenabled()]
            _inside.append(user)
            gc.disable()
        yield
    finally:
        with _lock:
            if user in _inside:
                _inside.remove(user)
                if not _inside and _before[0]:
                    gc.enable()
