"""What tests of threads share: an interrupt after a while, and waiting for an object to be let go."""

from __future__ import annotations

import signal
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

TIMERS = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """A KeyboardInterrupt so many seconds from now, which the block must end with."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def let_go(gone: weakref.ref[Any], seconds: float = 5) -> bool:
    """Whether nobody holds the object any more, within so many seconds."""
    end = time.monotonic() + seconds
    while gone() is not None and time.monotonic() < end:
        time.sleep(0.01)
    return gone() is None
