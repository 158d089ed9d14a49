"""A launch list that reads the clock before each kernel and after the last, in compiled code.

    TimedLaunch ── call_each ── _call_each_timed ── the system's clock, a kernel, the clock, a kernel ...

`refnet bench --kernels` repeats a captured run with it: the same kernels in the same order on the same arrays
as without it, and a look at the clock, some 25 ns, in between. No value depends on it.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import InputError
from refnet.kernels.chunks import ITEMS, ROW, THREADS, Work, all_done
from refnet.kernels.native_calls import ARGUMENTS, CODE, WORK_ROW, call_native
from refnet.kernels.thread_pool import FAILED, OVER, WAITS, Call, LaunchList, failed
from refnet.loops.jit import njit


@njit
def _call_each_timed(
    table: Any, rows: Any, begin: int, turns: int, clock: int, which: int, now: Any, times: Any
) -> tuple[int, int]:
    """As `_call_each` in thread_pool.py, to the end of the table. times[k]: when kernel k begins, in
    nanoseconds; behind the last, when that is done. now (2,): where the clock writes its seconds and
    nanoseconds.
    """
    data, at_now = rows.ctypes.data, now.ctypes.data
    for k in range(begin, table.shape[0]):
        call_native(clock, which, at_now)
        times[k] = 1_000_000_000 * now[0] + now[1]
        at = table[k, WORK_ROW]
        if call_native(table[k, CODE], table[k, ARGUMENTS], data + rows.itemsize * at) != 0:
            return k, FAILED
        if not all_done(rows, at, turns):
            return k + 1, WAITS
    call_native(clock, which, at_now)
    times[table.shape[0]] = 1_000_000_000 * now[0] + now[1]
    return table.shape[0], OVER


class TimedLaunch(LaunchList):
    """The same kernels as a launch list's, and its calls.

    times (kernels + 1,), int64: nanoseconds at which each began in the last repetition, and at which all was
    done. A kernel on several threads lasts until all are done.

    Raises InputError where kernels are Python's to call, or the system has no clock that compiled code can
    read.
    """

    def __init__(self, launches: LaunchList) -> None:
        self.calls = calls_of(launches)
        super().__init__(self.calls, launches.threads)
        if self.native is None:
            raise InputError("these kernels are not called from compiled code, so they have no times")
        self._clock = _clock()
        self._now = np.zeros(2, np.int64)
        self.times: npt.NDArray[np.int64] = np.zeros(len(self.steps) + 1, np.int64)

    def call_each(self, rows: Work, turns: int, wait: Callable[[Work], None]) -> None:
        """See LaunchList.call_each. An interrupt comes when all kernels are done."""
        assert self.native is not None
        at, why = 0, WAITS
        while why == WAITS:
            at, why = _call_each_timed(
                self.native.table, rows, at, turns, *self._clock, self._now, self.times
            )
            if why == FAILED:
                raise failed(self.steps[at][0])
            if why == WAITS:
                row = self.steps[at - 1][2] * self.threads * ROW
                wait(rows[row : row + ROW])


def calls_of(launches: LaunchList) -> list[Call]:
    """The calls that a launch list is made of."""
    return [
        Call(kernel, int(launches.rows[at, 0, ITEMS]), int(launches.rows[at, 0, THREADS]), arguments)
        for kernel, arguments, at in launches.steps
    ]


@cache
def _clock() -> tuple[int, int]:
    """The address of the system's clock_gettime, and which of its clocks only goes forward.

    It takes a number and an address and returns a number, which is what `call_native` passes.
    """
    try:
        clock, which = ctypes.CDLL(None).clock_gettime, time.CLOCK_MONOTONIC
    except (AttributeError, OSError, TypeError):
        raise InputError("kernels are timed by clock_gettime, which this system does not have") from None
    address = ctypes.cast(clock, ctypes.c_void_p).value
    assert address is not None
    return address, int(which)
