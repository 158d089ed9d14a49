"""Threads that share a kernel's work, and wait for the next one without going to sleep.

    split(kernel, count, threads, ...) ── Team.run ── kernel(work, ...)     in the caller
                                               └───── kernel(work, ...)     in each helper

A network is a few hundred kernels of some tens of microseconds to some milliseconds. Waking a sleeping
thread takes about as long as the short ones, and so does waiting for Python's lock (GIL). So a helper that
finds no share left stays in the kernel and looks whether the next one has begun, for about SPIN turns; only
then does it go to sleep. A kernel has begun when its caller takes its first share: the lock is free then.

A kernel's first argument is its `work`, int64: shares taken, shares, items, shares done, turns to wait;
a helper sees the next kernel's behind it. A kernel's frame is

    begin, end = share(work)
    while begin < end:
        for item in range(begin, end): ...
        begin, end = next_share(work)

Each item must write only outputs of its own, so that the bits cannot depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refnet.kernels.jit import njit, processors

Work = npt.NDArray[np.int64]

WORTH = 50_000
"""Operations (about 15 microseconds of one thread) from which on a second thread pays."""
SHARES = 8
"""Shares per thread: more than one, so that a slow thread holds up nobody."""
SPIN = 400_000
"""Turns, of one or two nanoseconds each, that an idle thread looks for work before it sleeps."""
TAKEN, PARTS, ITEMS, DONE, TURNS = range(5)
ROW = 8
"""Numbers per kernel: a cache line."""
KERNELS = 1024
"""Kernels that one array of them serves."""


def _advance(typingctx: Any, array: Any, index: Any) -> Any:
    """The typing and code of `advance`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), ir.IntType(64)(1), "seq_cst")

    return types.int64(array, types.int64), codegen


advance: Any = intrinsic(_advance)
"""advance(array, index): array[index] += 1 as one step for all threads; the value before. int64."""


def _look(typingctx: Any, array: Any, index: Any) -> Any:
    """The typing and code of `look`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.int64), codegen


look: Any = intrinsic(_look)
"""look(array, index): array[index] as other threads have left it, read anew each time. int64."""


@njit
def share(work: Any) -> tuple[int, int]:
    """The items begin to end of the next share; begin == end if none is left (a helper waits, then)."""
    part = advance(work, 0)
    if part >= work[1]:
        if work.size > 8:
            _reached(work, 8, 1, work[4])
        return 0, 0
    return work[2] * part // work[1], work[2] * (part + 1) // work[1]


@njit
def next_share(work: Any) -> tuple[int, int]:
    """As `share`, after one is done."""
    advance(work, 3)
    return share(work)


@njit
def _reached(work: Any, index: int, value: int, turns: int) -> bool:
    """Look until work[index] >= value, at most so many turns: whether it is."""
    for _ in range(turns):
        if look(work, index) >= value:
            return True
    return bool(look(work, index) >= value)


class _Job:
    """A kernel with its arguments; they are let go when it is done."""

    def __init__(self, kernel: Callable[..., None], work: Work, arguments: tuple[Any, ...] | None) -> None:
        self.kernel, self.work, self.arguments = kernel, work, arguments
        self.fault: BaseException | None = None


class Team:
    """The caller and `threads` - 1 helpers. One kernel at a time."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.busy = threading.Lock()
        self._turns = SPIN if threads <= processors() else 0
        self._rows = np.zeros(0, np.int64)
        self._at = 0
        self._job: _Job | None = None
        self._sleeping = 0
        self._awake = threading.Condition()
        for i in range(threads - 1):
            threading.Thread(target=self._help, name=f"refnet-{threads}-{i}", daemon=True).start()

    def run(self, kernel: Callable[..., None], count: int, arguments: tuple[Any, ...]) -> None:
        """Run the kernel on range(count) in all threads; returns when every item is done."""
        if self._at + ROW >= self._rows.size:
            self._rows, self._at = np.zeros(KERNELS * ROW, np.int64), 0
        both = self._rows[self._at : self._at + 2 * ROW]
        self._at += ROW
        work = both[:ROW]
        parts = min(count, SHARES * self.threads)
        work[PARTS], work[ITEMS], work[TURNS] = parts, count, self._turns
        job = self._job = _Job(kernel, both, arguments)
        if self._sleeping:
            with self._awake:
                self._awake.notify_all()
        try:
            kernel(work, *arguments)
            while not _reached(work, DONE, parts, SPIN):
                if job.fault is not None:
                    raise job.fault
                time.sleep(2e-5)
        finally:
            work[TAKEN] = parts  # if the kernel failed here, nobody begins another share
            job.arguments = None

    def _help(self) -> None:
        last = None
        while True:
            job = self._job
            if job is last or job is None:
                with self._awake:
                    self._sleeping += 1
                    while self._job is last:
                        self._awake.wait()
                    self._sleeping -= 1
                continue
            last = job
            if (arguments := job.arguments) is not None:
                try:
                    job.kernel(job.work, *arguments)
                except BaseException as fault:  # the caller raises it
                    job.fault = fault
                del arguments


_teams: dict[int, Team] = {}
if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_teams.clear)


def split(kernel: Callable[..., None], count: int, threads: int, *arguments: Any) -> None:
    """Call kernel(work, *arguments) in so many threads, which share the items of range(count).

    A team that is busy (another thread of the process is running a network) leaves the caller alone with it.
    """
    threads = max(1, min(threads, count))
    if threads > 1:
        team = _teams.get(threads) or _teams.setdefault(threads, Team(threads))
        if team.busy.acquire(blocking=False):
            try:
                team.run(kernel, count, arguments)
            finally:
                team.busy.release()
            return
    if count:
        kernel(np.array([0, 1, count, 0]), *arguments)


def enough(threads: int, operations: int) -> int:
    """The threads to use for so many operations: 1 where handing out work would cost more than it saves."""
    return threads if operations >= WORTH else 1
