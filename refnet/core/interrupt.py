"""Long computations that Ctrl-C stops: in a thread of their own, while the caller waits in Python.

    interruptible(function, ...) ── thread ── function ── kernels in shares, which ask `current().asked`
                          └──────── waits, and raises KeyboardInterrupt at once

Python handles signals in the main thread only, and only between two of its own instructions. A kernel is
one instruction, whether it takes a microsecond or an hour. The thread ends after the shares of work that have
been begun; nobody uses what it has computed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

LONG = 10**9
"""Operations from which a computation is worth a thread, which costs some 0.1 ms: fast kernels need 20 ms for
so many, the reference engine's loops a second."""


LOOK = 0.2
"""Seconds after which the caller looks for a signal that the system has given to another thread."""


class Stopped(BaseException):
    """Ends the thread of a computation that was interrupted; nobody sees it."""


class Stop:
    """Whether a computation has been asked to stop. on_ask: what to do then; who shares out work sets it."""

    def __init__(self) -> None:
        self.asked = False
        self.on_ask: Callable[[], object] = lambda: None

    def ask(self) -> None:
        """Ask for it."""
        self.asked = True
        self.on_ask()

    def check(self) -> None:
        """Raise Stopped if it has been asked for."""
        if self.asked:
            raise Stopped


_current: ContextVar[Stop | None] = ContextVar("stop", default=None)


def current() -> Stop | None:
    """The `Stop` of the computation that runs here; None in one that nobody can interrupt."""
    return _current.get()


def interruptible(function: Callable[..., T], *arguments: Any) -> T:
    """function(*arguments), which a KeyboardInterrupt leaves at once. Errors come back as they are.

    >>> interruptible(divmod, 7, 2)
    (3, 1)
    """
    if threading.current_thread() is not threading.main_thread():
        return function(*arguments)  # no signal arrives here
    stop, context = Stop(), copy_context()
    context.run(_current.set, stop)
    results: list[T] = []
    errors: list[BaseException] = []

    def compute() -> None:
        try:
            results.append(context.run(function, *arguments))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=compute, name="refnet-long", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(LOOK)
    except BaseException:
        stop.ask()
        raise
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # the error's traceback has this frame
    return results[0]
