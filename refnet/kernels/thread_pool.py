"""Threads that share a kernel's work, and wait for the next kernel without sleeping.

    parallel_for(kernel, count, threads, ...) ── ThreadPool.run ── kernel(work, ...)     in the caller
                                                            └───── kernel(work, ...)     in each worker

A network is a few hundred kernels of some tens of microseconds to some milliseconds. Waking a sleeping
thread takes about as long as a short kernel, and so does waiting for Python's lock (GIL). So a worker that
finds no chunk left stays in the kernel and checks, for about SPIN turns, whether the next one has begun; only
then does it sleep. A kernel has begun when its caller takes its first chunk: the lock is free then.

A captured run (arithmetic/captured_run.py) is repeated by `launch`: all its kernels one after another,
each thread for itself, so that no kernel has to be handed over. If all are machine code, each thread stays in
compiled code from kernel to kernel (native_calls.py).

How they share a kernel's items: chunks.py.

A long computation may be interrupted (core/interrupt.py): then no thread takes another chunk, and the caller
raises Stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from refnet.core.interrupt import Stop, current
from refnet.kernels import chunks
from refnet.kernels.chunks import (
    DONE,
    ITEMS,
    NO_WAIT,
    PARTS,
    ROW,
    TAKEN,
    THREADS,
    TURNS,
    Work,
    all_done,
    any_left,
    copied,
    reached,
    rows_of,
)
from refnet.kernels.native_calls import ARGUMENTS, CODE, WORK_ROW, NativeCalls, call_native, native
from refnet.kernels.resources import processors
from refnet.loops.jit import njit

WORTH = 50_000
"""Operations (about 15 microseconds of one thread) from which a second thread pays off."""
WORTH_REPEATED = 4_000
"""The same for a kernel of a captured run, which a worker begins within a microsecond of its caller."""
CHUNKS = 16
"""Chunks per thread: more than one, so that a slow thread does not hold up the others."""
SHARES = 1024
"""Chunks of a long computation in one thread, after each of which it can be interrupted."""
SPIN = 400_000
"""Turns, of one or two nanoseconds each, that an idle thread looks for work before it sleeps."""
PAUSE = 2e-5
"""Seconds of sleep for a thread that has waited SPIN turns for another one."""
KERNELS = 1024
"""Kernels that one array of them serves."""
STRETCH = 16
"""Kernels after which a caller in compiled code returns to Python, which may have been asked to stop."""
QUICK = 0.1
"""Seconds of a launch list that is worth no look at Python between fewer kernels than STRETCH."""
OVER, WAITS, FAILED = range(3)
"""Why a thread returns from compiled code: everything is called; others are still at a kernel, or have not
begun it; a kernel failed."""


@njit
def _call_each(table: Any, rows: Any, begin: int, end: int, turns: int) -> tuple[int, int]:
    """Begin the kernels begin to end of a table of calls, each when all of the one before is done.

    Returns where it stopped (see OVER): for WAITS behind the kernel that others are at, for FAILED at the
    kernel. rows: all kernels' `work`, flat. Others are waited for no longer than so many turns.
    """
    data = rows.ctypes.data
    for k in range(begin, end):
        at = table[k, WORK_ROW]
        if call_native(table[k, CODE], table[k, ARGUMENTS], data + rows.itemsize * at) != 0:
            return k, FAILED
        if not all_done(rows, at, turns):
            return k + 1, WAITS
    return end, OVER


@njit
def _help_each(table: Any, rows: Any, mine: int, begin: int, turns: int) -> tuple[int, int]:
    """The part of worker `mine` of the kernels from `begin` on: chunks of each that its caller has begun.

    Returns where it stopped (see OVER): for WAITS and FAILED at the kernel.
    """
    data = rows.ctypes.data
    for k in range(begin, table.shape[0]):
        at = table[k, WORK_ROW]
        if not reached(rows, at + TAKEN, 1, turns):
            return k, WAITS
        own = data + rows.itemsize * (at + ROW * mine)
        if any_left(rows, at) and call_native(table[k, CODE], table[k, ARGUMENTS], own) != 0:
            return k, FAILED
    return table.shape[0], OVER


Kernel = Callable[..., None]


@dataclass(frozen=True)
class Call:
    """One kernel on range(count), shared by so many threads."""

    kernel: Kernel
    count: int
    threads: int
    arguments: tuple[Any, ...]


class _Job:
    """What workers do with the caller: a kernel with its arguments, which are released when it is done."""

    def __init__(self, kernel: Kernel, work: Work, arguments: tuple[Any, ...] | None) -> None:
        self.kernel, self.work, self.arguments = kernel, work, arguments
        self.fault: BaseException | None = None

    def work_along(self, mine: int) -> None:
        """A worker's part."""
        if (arguments := self.arguments) is not None:
            self.kernel(self.work[mine * ROW :], *arguments)


class LaunchList:
    """Kernels one after another, ready to be repeated by so many threads.

    rows: per kernel its `work` as it begins; first those that are shared, in order, then one row with no
    work. steps: kernel, arguments and row, in order.
    """

    def __init__(self, calls: Sequence[Call], threads: int) -> None:
        self.threads = threads
        shared = [call.threads > 1 and threads > 1 for call in calls]
        places = [iter(range(sum(shared) + 1, len(calls) + 1)), iter(range(sum(shared)))]
        self.steps = [
            (call.kernel, call.arguments, next(places[both]))
            for call, both in zip(calls, shared, strict=True)
        ]
        self.shared = [step for step, both in zip(self.steps, shared, strict=True) if both]
        self.rows = rows_of(len(calls) + 1, threads)
        for (_, _, at), call, both in zip(self.steps, calls, shared, strict=True):
            self.rows[at, :, PARTS] = min(call.count, CHUNKS * threads) if both else 1
            self.rows[at, :, ITEMS] = call.count
            self.rows[at, :, THREADS] = threads if both else 1
        width = threads * ROW
        self.native = native([(kernel, arguments, at * width) for kernel, arguments, at in self.steps])
        self.native_shared = None if self.native is None else self.native.of(shared)
        self.running: _Launch | None = None
        self._stretch = 1

    def settle(self) -> None:
        """Return when no worker is at it any longer: an interrupt may have ended the last wait for that.

        Nobody may be repeating it.
        """
        if self.running is not None:
            self.running.leave()
            self.running = None

    def alone(self) -> None:
        """All of it in this thread."""
        rows = self.rows.copy()
        rows[:, :, PARTS] = rows[:, :, THREADS] = 1
        if self.native is not None:
            self.call_each(rows.reshape(-1), 0, lambda _: None)
            return
        works = list(rows[:, 0, :NO_WAIT])
        for kernel, arguments, at in self.steps:
            kernel(works[at], *arguments)

    def call_each(self, rows: Work, turns: int, wait: Callable[[Work], None]) -> None:
        """Begin all kernels in compiled code. wait(work): returns when all chunks of it are done."""
        assert self.native is not None
        table, at, begun = self.native.table, 0, time.perf_counter()
        while at < len(table):
            at, why = _call_each(table, rows, at, min(at + self._stretch, len(table)), turns)
            if why == FAILED:
                raise failed(self.steps[at][0])
            if why == WAITS:
                row = self.steps[at - 1][2] * self.threads * ROW
                wait(rows[row : row + ROW])
        self._stretch = STRETCH if time.perf_counter() - begun < QUICK else 1


def failed(kernel: Any) -> MemoryError:
    """What to raise for a kernel that failed in compiled code.

    Kernels raise nothing themselves, and the same arguments were right when the run was captured. One reason
    is left.
    """
    return MemoryError(f"no memory for what {kernel.__name__} needs while it computes")


class _Launch:
    """A launch list that is running: as soon as the caller has begun a kernel, a worker may."""

    def __init__(self, launches: LaunchList, rows: Work, turns: int) -> None:
        self.shared, self.rows = launches.shared, rows  # the kernels are let go when all are done
        self.native, self.turns = launches.native_shared, turns
        self.fault: BaseException | None = None
        self.over = False
        self._came: list[None] = []
        self._left: list[None] = []
        self._process = os.getpid()

    def work_along(self, mine: int) -> None:
        """A worker's part. It may come late: then all chunks are taken."""
        self._came.append(None)
        try:
            if (calls := self.native) is not None:
                self._help_each(calls, self.shared, mine)
            else:
                self._repeat(mine)
        finally:
            self._left.append(None)

    def leave(self) -> None:
        """End it: no worker begins another chunk. Returns when none is at one."""
        self.over, self.shared, self.native = True, [], None
        rows = self.rows
        rows[:, :, TAKEN] = np.maximum(rows[:, :, PARTS], 1)
        while len(self._left) < len(self._came) and (rows[:, :, DONE].sum(1) < rows[:, 0, PARTS]).any():
            if os.getpid() != self._process:
                return  # the workers stayed in the parent
            time.sleep(PAUSE)

    def _repeat(self, mine: int) -> None:
        flat, width = self.rows.reshape(-1), self.rows[0].size
        for kernel, arguments, row in self.shared:
            while not self.rows[row, 0, TAKEN]:
                if self.over:
                    return
                time.sleep(PAUSE)
            kernel(flat[row * width + mine * ROW : (row + 1) * width + ROW], *arguments)

    def _help_each(
        self, calls: NativeCalls, steps: Sequence[tuple[Kernel, tuple[Any, ...], int]], mine: int
    ) -> None:
        at, why = 0, WAITS
        while why != OVER and not self.over:
            at, why = _help_each(calls.table, self.rows.reshape(-1), mine, at, self.turns)
            if why == FAILED:
                raise failed(steps[at][0])
            if why == WAITS and not self.over:
                time.sleep(PAUSE)


class ThreadPool:
    """The caller and `threads` - 1 workers. One kernel at a time.

    A KeyboardInterrupt may come behind every call that Python makes, also behind that of a lock. So what is
    taken is taken within the `try` that gives it back, by one call of C.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._users: list[object] = []
        self._turns = SPIN if threads <= processors() else 0
        self._rows = rows_of(0, threads)
        self._at = 0
        self._job: _Job | _Launch | None = None
        self._bell = np.zeros(ROW, np.int64)
        self._asleep: list[SimpleQueue[None]] = []
        self._unfinished: _Launch | None = None
        for i in range(1, threads):
            name = f"refnet-{threads}-{i}"
            threading.Thread(target=self._work, args=(i,), name=name, daemon=True).start()

    def run(self, kernel: Callable[..., None], count: int, arguments: tuple[Any, ...]) -> bool:
        """Run the kernel on range(count) in all threads; returns when every item is done.

        False: nothing is done, as another caller has the pool. The same is true of `launch`.
        """
        user = object()
        try:
            self._users.append(user)
            if self._users[0] is not user:
                return False
            self._run(kernel, count, arguments)
            return True
        finally:
            self._users.remove(user)

    def _run(self, kernel: Callable[..., None], count: int, arguments: tuple[Any, ...]) -> None:
        self._finish()
        if self._at + 1 >= len(self._rows):
            self._rows, self._at = rows_of(KERNELS, self.threads), 0
        rows = self._rows[self._at]
        both = self._rows.reshape(-1)[self._at * rows.size : (self._at + 1) * rows.size + ROW]
        self._at += 1
        work = rows[0]
        parts = min(count, CHUNKS * self.threads)
        rows[:, PARTS], rows[:, ITEMS], rows[:, TURNS] = parts, count, self._turns
        job = _Job(kernel, both, arguments)
        stop = _stopping(rows)
        try:
            self._begin(job)
            kernel(work, *arguments)
            self._end(job, work, stop)
        finally:
            rows[:, TAKEN] = parts  # if the kernel failed here, nobody begins another chunk
            job.arguments = None

    def launch(self, launches: LaunchList) -> bool:
        """Run these kernels one after another, each when all of the one before is done."""
        user = object()
        try:
            self._users.append(user)
            if self._users[0] is not user:
                return False
            self._launch(launches)
            return True
        finally:
            self._users.remove(user)

    def _launch(self, launches: LaunchList) -> None:
        self._finish()
        rows = copied(launches.rows)
        rows[: len(launches.shared), :, TURNS] = self._turns
        job = _Launch(launches, rows, self._turns)
        try:
            self._unfinished = launches.running = job
            self._begin(job)
            if launches.native is not None:
                wait = partial(self._end, job, stop=None)
                launches.call_each(rows.reshape(-1), self._turns, wait)
                return
            for kernel, arguments, at in launches.steps:
                kernel(rows[at, 0], *arguments)
                self._end(job, rows[at, 0], None)
        finally:
            job.over = True
            self._finish()
            launches.running = None

    def _finish(self) -> None:
        """Wait until no worker is at a launch list, even after an interrupt."""
        if self._unfinished is not None:
            self._unfinished.leave()
            self._unfinished = None

    def _begin(self, job: _Job | _Launch) -> None:
        self._job = job
        self._bell[0] += 1
        for bed in tuple(self._asleep):
            bed.put(None)

    def _end(self, job: _Job | _Launch, work: Work, stop: Stop | None) -> None:
        """Wait until all chunks are done, or the computation is to stop."""
        while not all_done(work, 0, SPIN):
            if stop is not None:
                stop.check()
            if job.fault is not None:
                raise job.fault
            time.sleep(PAUSE)

    def _work(self, mine: int) -> None:
        last = None
        bed: SimpleQueue[None] = SimpleQueue()
        while True:
            rung, job = self._bell[0], self._job
            if job is last or job is None:
                if isinstance(job, _Launch) and reached(self._bell, 0, rung + 1, self._turns):
                    continue
                self._asleep.append(bed)
                while self._job is last:
                    bed.get()
                self._asleep.remove(bed)
                continue
            last = job
            try:
                job.work_along(mine)
            except BaseException as fault:  # the caller raises it
                job.fault = fault


_recorded: ContextVar[list[Call | None] | None] = ContextVar("recorded", default=None)
_pools: dict[int, ThreadPool] = {}
if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pools.clear)


def parallel_for(kernel: Callable[..., None], count: int, threads: int, *arguments: Any) -> None:
    """Call kernel(work, *arguments) in so many threads, which share the items of range(count).

    If the pool is busy (another thread of the process runs a network), the caller does all the work alone.
    """
    if not count:
        return
    call = Call(kernel, count, max(1, min(threads, count)), arguments)
    if (calls := _recorded.get()) is not None:
        calls.append(call)
    if call.threads == 1 or not _pool(call.threads).run(kernel, count, arguments):
        alone(call)


def by_python() -> None:
    """Say that Python computes something itself: what is recorded would not be all of it."""
    if (calls := _recorded.get()) is not None:
        calls.append(None)


def alone(call: Call) -> None:
    """The whole of a kernel in this thread."""
    if current() is None:
        call.kernel(chunks.alone(call.count), *call.arguments)
        return
    work = chunks.alone(call.count, min(call.count, SHARES))
    stop = _stopping(work[np.newaxis])
    call.kernel(work, *call.arguments)
    if stop is not None:
        stop.check()


def _stopping(rows: Work) -> Stop | None:
    """See to it that no chunk of this work (threads, ...) begins once the computation is to stop.

    None if it cannot be stopped.
    """
    stop = current()
    if stop is not None:
        stop.on_ask = lambda: rows.__setitem__((slice(None), TAKEN), rows[0, PARTS])
        stop.check()
    return stop


def launch(launches: LaunchList) -> None:
    """Repeat the kernels of a launch list."""
    if launches.threads == 1 or not _pool(launches.threads).launch(launches):
        launches.alone()


def _pool(threads: int) -> ThreadPool:
    """The pool of so many threads."""
    return _pools.get(threads) or _pools.setdefault(threads, ThreadPool(threads))


@contextmanager
def noting(calls: list[Call | None]) -> Iterator[None]:
    """Within it, `parallel_for` records every call, and `by_python` None."""
    token = _recorded.set(calls)
    try:
        yield
    finally:
        _recorded.reset(token)


def threads_for(threads: int, operations: int) -> int:
    """The threads to use for so many operations: 1 if sharing the work would cost more than it saves."""
    worth = WORTH if _recorded.get() is None else WORTH_REPEATED
    return threads if operations >= worth else 1
