"""How threads share the items of a kernel: chunks, of which each thread first takes those of its own share.

A kernel's first argument is its `work`, int64. It points at the thread's own row of ROW numbers; the other
threads' rows lie before and behind it in memory. What a row says:

    taken     chunks that somebody has taken of this thread's share
    parts     chunks of the kernel
    items     items of the kernel
    done      chunks that this thread has done
    turns     how long to wait
    mine      the number of the thread, from 0 (the caller) on
    threads   how many there are

A kernel's frame is

    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end): ...
        begin, end = next_chunk(work)

Each item must write only outputs of its own, so that the bits cannot depend on the number of threads.

Shares are neighbouring chunks: thread i's share begins at the fraction i / threads of the items. A thread
takes chunks of the others' shares once its own are taken. Each thread counts in a cache line of its own,
since a line that two processors write in turn goes back and forth between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refnet.kernels.memory import LINE, aligned
from refnet.loops.jit import njit

Work = npt.NDArray[np.int64]

TAKEN, PARTS, ITEMS, DONE, TURNS, MINE, THREADS = range(7)
ROW = LINE // 8
"""Numbers per thread: a cache line. Rows begin where cache lines do."""
NO_WAIT = 7
"""The numbers of a row that are used. Given a `work` of this length, `chunk` waits for nobody."""


def _advance(typingctx: Any, array: Any, index: Any) -> Any:
    """The typing and code of `advance`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), ir.IntType(64)(1), "seq_cst")

    return types.int64(array, types.int64), codegen


advance: Any = intrinsic(_advance)
"""advance(array, index): the int64 at array[0]'s address + 8 * index, which may be negative, grows by 1 as
one step for all threads; its value before.
"""


def _look(typingctx: Any, array: Any, index: Any) -> Any:
    """The typing and code of `look`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.int64), codegen


look: Any = intrinsic(_look)
"""look(array, index): the same number as other threads have left it, read anew each time."""


def rows_of(kernels: int, threads: int) -> Work:
    """The work of so many kernels, (kernels, threads, ROW), with nothing to do."""
    made = aligned((kernels, threads, ROW), np.int64)
    made[:, :, MINE], made[:, :, THREADS] = np.arange(threads), threads
    return made


def copied(rows: Work) -> Work:
    """The same rows once more, each a cache line."""
    raw = np.empty(rows.size + ROW, np.int64)
    first = -raw.__array_interface__["data"][0] // rows.itemsize % ROW
    made = raw[first : first + rows.size].reshape(rows.shape)
    made[:] = rows
    return made


def alone(items: int, parts: int = 1) -> Work:
    """The work (NO_WAIT,) of a kernel that one thread does."""
    work = np.zeros(NO_WAIT, np.int64)
    work[PARTS], work[ITEMS], work[THREADS] = parts, items, 1
    return work


@njit
def chunk(work: Any) -> tuple[int, int]:
    """The items begin to end of the next chunk. begin == end if none is left: then a worker has waited for
    the next kernel to begin, and the caller for all chunks of this one to be done, for a while.
    """
    parts, mine, threads = work[PARTS], work[MINE], work[THREADS]
    for i in range(threads):
        whose = (mine + i) % threads
        at = ROW * (whose - mine)
        first, last = begin_of_share(parts, whose, threads), begin_of_share(parts, whose + 1, threads)
        if look(work, at + TAKEN) < last - first:
            part = first + advance(work, at + TAKEN)
            if part < last:
                return work[ITEMS] * part // parts, work[ITEMS] * (part + 1) // parts
    if work.size > ROW:
        reached(work, ROW * (threads - mine) + TAKEN, 1, work[TURNS])
    elif work.size == ROW:
        all_done(work, 0, work[TURNS])
    return 0, 0


@njit
def next_chunk(work: Any) -> tuple[int, int]:
    """As `chunk`, after one is done."""
    advance(work, DONE)
    return chunk(work)


@njit
def begin_of_share(parts: int, thread: int, threads: int) -> int:
    """The first chunk of a thread's share. The caller's share is empty only if there are no chunks."""
    return (parts * thread + threads - 1) // threads


@njit
def any_left(work: Any, at: int) -> bool:
    """Whether a chunk is left of the kernel whose caller's row begins at `at`."""
    parts, threads = work[at + PARTS], work[at + THREADS]
    for whose in range(threads):
        share = begin_of_share(parts, whose + 1, threads) - begin_of_share(parts, whose, threads)
        if look(work, at + ROW * whose + TAKEN) < share:
            return True
    return False


@njit
def reached(work: Any, index: int, value: int, turns: int) -> bool:
    """Wait until the number at `index` >= value, at most so many turns. Returns whether it is."""
    for _ in range(turns):
        if look(work, index) >= value:
            return True
    return bool(look(work, index) >= value)


@njit
def all_done(work: Any, at: int, turns: int) -> bool:
    """Wait until all chunks of the kernel whose caller's row begins at `at` are done, at most so many turns.
    Returns whether they are.
    """
    for _ in range(turns + 1):
        done = 0
        for thread in range(work[at + THREADS]):
            done += look(work, at + ROW * thread + DONE)
        if done >= work[at + PARTS]:
            return True
    return False
