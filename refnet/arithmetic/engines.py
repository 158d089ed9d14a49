"""Which kernels compute: the fast engine, or the reference loops that define every bit.

Only the chosen engine is imported; neither needs the other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from refnet.core.errors import InputError
from refnet.core.words import did_you_mean
from refnet.loops.garbage import paused

if TYPE_CHECKING:
    from refnet.core.engine import Engine

KERNELS = ("fast", "reference")

MOST_THREADS = 256
"""More threads than this are taken for a mistake."""


def default_kernels() -> str:
    """The default kernels: fast, unless Numba's compiler is switched off.

    With NUMBA_DISABLE_JIT=1 everything runs as Python and NumPy, which the fast kernels do not support.
    """
    return "reference" if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") else "fast"


def check_threads(threads: int | None) -> None:
    """Raise InputError unless threads is None or a number from 1 to MOST_THREADS."""
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads must be a whole number from 1 to {MOST_THREADS}, got {threads!r}")


def thread_count(threads: int | None) -> int:
    """How many threads an argument `threads` means: None is one per processor that this process may use.

    >>> thread_count(3)
    3
    """
    from refnet.kernels.resources import processors  # the reference loops do without the kernels

    return processors() if threads is None else threads


def check_compiler() -> None:
    """Raise InputError if Numba's compiler, which the fast kernels need, is switched off."""
    if default_kernels() != "fast":
        raise InputError("with NUMBA_DISABLE_JIT=1 there are no fast kernels, and this needs the fast ones")


def engine(kernels: str, threads: int | None = None) -> Engine:
    """A new engine. kernels: "fast" or "reference", the loops, which give the same bits slowly.

    threads: how many share the outputs of a node; None: all processors. No bit depends on it.
    Raises InputError for other kernels, an invalid number of threads, or fast kernels without a compiler.
    """
    check_threads(threads)
    if kernels == "fast":
        check_compiler()
        with paused():
            from refnet.kernels.engine import Fast  # the compiled kernels, which the reference does without

        return Fast(threads)
    if kernels == "reference":
        from refnet.loops.engine import Loops  # the loops, which the fast kernels do without

        return Loops()
    hint = did_you_mean(kernels, KERNELS)
    raise InputError(f"kernels must be one of {', '.join(KERNELS)}, got {kernels!r}{hint}")
