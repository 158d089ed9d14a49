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

A kernel's first argument is its `work`, int64: chunks taken, chunks, items, chunks done, turns to wait;
a worker sees the next kernel's behind it. A kernel's frame is

    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end): ...
        begin, end = next_chunk(work)

Each item must write only outputs of its own, so that the bits cannot depend on the number of threads.

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
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refnet.core.interrupt import Stop, current
from refnet.kernels.native_calls import ARGUMENTS, CODE, WORK_ROW, NativeCalls, call_native, native
from refnet.kernels.resources import processors
from refnet.loops.jit import njit

Work = npt.NDArray[np.int64]

WORTH = 50_000
"""Operations (about 15 microseconds of one thread) from which a second thread pays off."""
WORTH_REPEATED = 15_000
"""The same for a kernel of a captured run, which costs less to hand over."""
CHUNKS = 16
"""Chunks per thread: more than one, so that a slow thread does not hold up the others."""
SHARES = 1024
"""Chunks of a long computation in one thread, after each of which it can be interrupted."""
SPIN = 400_000
"""Turns, of one or two nanoseconds each, that an idle thread looks for work before it sleeps."""
PAUSE = 2e-5
"""Seconds of sleep for a thread that has waited SPIN turns for another one."""
TAKEN, PARTS, ITEMS, DONE, TURNS = range(5)
ROW = 8
"""Numbers per kernel: a cache line."""
KERNELS = 1024
"""Kernels that one array of them serves."""
STRETCH = 16
"""Kernels after which a caller in compiled code returns to Python, which may have been asked to stop."""
QUICK = 0.1
"""Seconds of a launch list that is worth no look at Python between fewer kernels than STRETCH."""
OVER, WAITS, FAILED = range(3)
"""Why a thread returns from compiled code: everything is called; others are still at a kernel, or have not
begun it; a kernel failed."""


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
def chunk(work: Any) -> tuple[int, int]:
    """The items begin to end of the next chunk. begin == end if none is left: then a worker has waited for
    the next kernel to begin, and the caller for all chunks of this one to be done, for a while.
    """
    part = advance(work, 0)
    if part >= work[1]:
        if work.size > 8:
            _reached(work, 8, 1, work[4])
        elif work.size == 8:
            _reached(work, 3, work[1], work[4])
        return 0, 0
    return work[2] * part // work[1], work[2] * (part + 1) // work[1]


@njit
def next_chunk(work: Any) -> tuple[int, int]:
    """As `chunk`, after one is done."""
    advance(work, 3)
    return chunk(work)


@njit
def _reached(work: Any, index: int, value: int, turns: int) -> bool:
    """Wait until work[index] >= value, at most so many turns. Returns whether it is."""
    for _ in range(turns):
        if look(work, index) >= value:
            return True
    return bool(look(work, index) >= value)


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
        if not _reached(rows, at + DONE, rows[at + PARTS], turns):
            return k + 1, WAITS
    return end, OVER


@njit
def _help_each(table: Any, rows: Any, begin: int, turns: int) -> tuple[int, int]:
    """A worker's part of the kernels from `begin` on: chunks of each that its caller has begun.

    Returns where it stopped (see OVER): for WAITS and FAILED at the kernel.
    """
    data = rows.ctypes.data
    for k in range(begin, table.shape[0]):
        at = table[k, WORK_ROW]
        if not _reached(rows, at + TAKEN, 1, turns):
            return k, WAITS
        left = look(rows, at + TAKEN) < rows[at + PARTS]
        if left and call_native(table[k, CODE], table[k, ARGUMENTS], data + rows.itemsize * at) != 0:
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

    def work_along(self) -> None:
        """A worker's part."""
        if (arguments := self.arguments) is not None:
            self.kernel(self.work, *arguments)


class LaunchList:
    """Kernels one after another, ready to be repeated by so many threads.

    rows: per kernel its `work` as it begins; first those that are shared, in order, and one more, at which
    nothing is to be had. steps: kernel, arguments and row, in order.
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
        self.rows = np.zeros((len(calls) + 1, ROW), np.int64)
        for (_, _, at), call, both in zip(self.steps, calls, shared, strict=True):
            self.rows[at, PARTS] = min(call.count, CHUNKS * threads) if both else 1
            self.rows[at, ITEMS] = call.count
        self.native = native([(kernel, arguments, at * ROW) for kernel, arguments, at in self.steps])
        self.native_shared = None if self.native is None else self.native.of(shared)
        self._stretch = 1

    def alone(self) -> None:
        """All of it in this thread."""
        rows = self.rows.copy()
        rows[:, PARTS] = 1
        if self.native is not None:
            self.call_each(rows.reshape(-1), 0, lambda _: None)
            return
        works = list(rows[:, :TURNS])
        for kernel, arguments, at in self.steps:
            kernel(works[at], *arguments)

    def call_each(self, rows: Work, turns: int, wait: Callable[[Work], None]) -> None:
        """Begin all kernels in compiled code. wait(work): returns when all chunks of it are done."""
        assert self.native is not None
        table, at, begun = self.native.table, 0, time.perf_counter()
        while at < len(table):
            at, why = _call_each(table, rows, at, min(at + self._stretch, len(table)), turns)
            if why == FAILED:
                raise _failed(self.steps[at][0])
            if why == WAITS:
                row = self.steps[at - 1][2] * ROW
                wait(rows[row : row + ROW])
        self._stretch = STRETCH if time.perf_counter() - begun < QUICK else 1


def _failed(kernel: Any) -> MemoryError:
    """What to raise for a kernel that failed in compiled code.

    Kernels raise nothing themselves, and the same arguments were right when the run was captured. One reason
    is left.
    """
    return MemoryError(f"no memory for what {kernel.__name__} needs while it computes")


class _Launch:
    """A launch list that is running: as soon as the caller has begun a kernel, a worker may."""

    def __init__(self, launches: LaunchList, rows: Work, turns: int) -> None:
        self.shared, self.rows = launches.shared, rows.reshape(-1)  # the kernels are let go when all are done
        self.native, self.turns = launches.native_shared, turns
        self.fault: BaseException | None = None
        self.over = False
        self._came: list[None] = []
        self._left: list[None] = []

    def work_along(self) -> None:
        """A worker's part. It may come late: then all chunks are taken."""
        self._came.append(None)
        try:
            if (calls := self.native) is not None:
                self._help_each(calls, self.shared)
            else:
                self._repeat()
        finally:
            self._left.append(None)

    def leave(self) -> None:
        """End it: no worker begins another chunk. Returns when none is at one."""
        self.over, self.shared, self.native = True, [], None
        rows = self.rows.reshape(-1, ROW)
        rows[:, TAKEN] = np.maximum(rows[:, PARTS], 1)
        while len(self._left) < len(self._came) and (rows[:, DONE] < rows[:, PARTS]).any():
            time.sleep(PAUSE)

    def _repeat(self) -> None:
        for kernel, arguments, row in self.shared:
            at = row * ROW
            while not self.rows[at + TAKEN]:
                if self.over:
                    return
                time.sleep(PAUSE)
            kernel(self.rows[at : at + 2 * ROW], *arguments)

    def _help_each(self, calls: NativeCalls, steps: Sequence[tuple[Kernel, tuple[Any, ...], int]]) -> None:
        at, why = 0, WAITS
        while why != OVER and not self.over:
            at, why = _help_each(calls.table, self.rows, at, self.turns)
            if why == FAILED:
                raise _failed(steps[at][0])
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
        self._rows = np.zeros(0, np.int64)
        self._at = 0
        self._job: _Job | _Launch | None = None
        self._bell = np.zeros(ROW, np.int64)
        self._asleep: list[SimpleQueue[None]] = []
        self._unfinished: _Launch | None = None
        for i in range(threads - 1):
            threading.Thread(target=self._work, name=f"refnet-{threads}-{i}", daemon=True).start()

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
        if self._at + ROW >= self._rows.size:
            self._rows, self._at = np.zeros(KERNELS * ROW, np.int64), 0
        both = self._rows[self._at : self._at + 2 * ROW]
        self._at += ROW
        work = both[:ROW]
        parts = min(count, CHUNKS * self.threads)
        work[PARTS], work[ITEMS], work[TURNS] = parts, count, self._turns
        job = _Job(kernel, both, arguments)
        stop = _stopping(work)
        try:
            self._begin(job)
            kernel(work, *arguments)
            self._end(job, work, stop)
        finally:
            work[TAKEN] = parts  # if the kernel failed here, nobody begins another chunk
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
        rows = launches.rows.copy()
        rows[: len(launches.shared), TURNS] = self._turns
        works = list(rows)
        job = _Launch(launches, rows, self._turns)
        try:
            self._unfinished = job
            self._begin(job)
            if launches.native is not None:
                wait = partial(self._end, job, stop=None)
                launches.call_each(rows.reshape(-1), self._turns, wait)
                return
            for kernel, arguments, at in launches.steps:
                work = works[at]
                kernel(work, *arguments)
                if work[DONE] < work[PARTS]:
                    self._end(job, work, None)
        finally:
            job.over = True
            self._finish()

    def _finish(self) -> None:
        """See to it that no worker is at a launch list any longer, also if that was interrupted before."""
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
        while not _reached(work, DONE, work[PARTS], SPIN):
            if stop is not None:
                stop.check()
            if job.fault is not None:
                raise job.fault
            time.sleep(PAUSE)

    def _work(self) -> None:
        last = None
        bed: SimpleQueue[None] = SimpleQueue()
        while True:
            rung, job = self._bell[0], self._job
            if job is last or job is None:
                if isinstance(job, _Launch) and _reached(self._bell, 0, rung + 1, self._turns):
                    continue
                self._asleep.append(bed)
                while self._job is last:
                    bed.get()
                self._asleep.remove(bed)
                continue
            last = job
            try:
                job.work_along()
            except BaseException as fault:  # the caller raises it
                job.fault = fault


_recorded: ContextVar[list[Call] | None] = ContextVar("recorded", default=None)
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


def alone(call: Call) -> None:
    """The whole of a kernel in this thread."""
    if current() is None:
        call.kernel(np.array([0, 1, call.count, 0]), *call.arguments)
        return
    work = np.array([0, min(call.count, SHARES), call.count, 0])
    stop = _stopping(work)
    call.kernel(work, *call.arguments)
    if stop is not None:
        stop.check()


def _stopping(work: Work) -> Stop | None:
    """See to it that no chunk of this work begins once the computation is to stop; None if it cannot be."""
    stop = current()
    if stop is not None:
        stop.on_ask = lambda: work.__setitem__(TAKEN, work[PARTS])
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
def noting(calls: list[Call]) -> Iterator[None]:
    """Within it, `parallel_for` records every call."""
    token = _recorded.set(calls)
    try:
        yield
    finally:
        _recorded.reset(token)


def threads_for(threads: int, operations: int) -> int:
    """The threads to use for so many operations: 1 if sharing the work would cost more than it saves."""
    worth = WORTH if _recorded.get() is None else WORTH_REPEATED
    return threads if operations >= worth else 1
