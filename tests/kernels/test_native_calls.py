"""Kernels called without Python in between: what they are given, in which order, and how they end."""

from __future__ import annotations

import os
import threading
import time
import weakref

import numpy as np
import pytest

from refnet.kernels import thread_pool
from refnet.kernels.chunks import MINE, advance, alone, chunk, next_chunk, reached
from refnet.kernels.native_calls import native
from refnet.kernels.thread_pool import Call, LaunchList, launch
from refnet.loops.jit import njit
from tests.helpers.threads import TIMERS, interrupted_after, let_go


@njit
def gather(work, source, seen, flags, y, single, double):
    """What arrives: numbers, and arrays by their elements, at places of their own in y (items, 16)."""
    vector, table, cube = source
    (on, off), (number, more) = flags
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            seen[item] += 1
            y[item, 0], y[item, 1], y[item, 2] = vector[item % vector.size], table[1, 2], cube[1, 0, 1]
            y[item, 3], y[item, 4], y[item, 5] = on, off, number
            y[item, 6], y[item, 7], y[item, 8] = more, single, double
            y[item, 9], y[item, 10], y[item, 11] = vector.size, table.shape[0], cube.shape[2]
            y[item, 12], y[item, 13] = table.strides[0], cube.strides[0]
        begin, end = next_chunk(work)


@njit
def step(work, seen, before, after, turns):
    """after = before + 1, if all of the kernel before is done; some work."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            total = 0.0  # a sum of floats, whose sign no compiler knows
            for _ in range(turns):
                total += before[item]
            seen[item] += 1 + (total < 0)
            after[item] = before.min() + 1
        begin, end = next_chunk(work)


@njit
def meet(work, marks, sizes, seen, turns):
    """Two items for two threads: each is done when the other has been begun. Each takes so much memory.

    seen: that, and 100 times the number of the thread.
    """
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            advance(marks, 1 + item)
            if not reached(marks, 2 - item, 1, turns):
                advance(marks, 0)
            seen[item] = np.empty(sizes[item], np.int64).size + 100 * work[MINE]
        begin, end = next_chunk(work)


def readonly(array):
    array.flags.writeable = False
    return array


def steps(length, items, threads, turns=0):
    """A launch list of `step`, its values (length + 1, items), and what was seen."""
    values, seen = np.zeros((length + 1, items), np.int64), np.zeros((length, items), np.int64)
    calls = [
        Call(step, items, threads if k % 3 else 1, (seen[k], values[k], values[k + 1], turns))
        for k in range(length)
    ]
    return LaunchList(calls, threads), values, seen


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_a_kernel_is_given(threads):
    table = np.arange(12.0).reshape(3, 4)
    cube = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    tables = [
        (readonly(np.float32([5, 6, 7])), table[:, 1:], cube),
        (np.arange(9.0)[::4], np.asfortranarray(table), readonly(cube.copy())[:, ::2, ::-1]),
    ]
    expected, found = np.zeros((2, len(tables), 20, 16))
    seen = np.zeros((len(tables), 20), np.int64)
    calls = []
    for k, source in enumerate(tables):
        flags = (k % 2 == 0, k % 2 == 1), (-(2**40) - k, 7 * k)
        rest = flags, np.float32(0.1), float("nan") if k == 1 else -1e300
        gather(alone(20), source, seen[k], rest[0], expected[k], *rest[1:])
        calls.append(Call(gather, 20, threads, (source, seen[k], rest[0], found[k], *rest[1:])))
    launches = LaunchList(calls, threads)
    assert launches.native is not None
    for again in range(3):
        found[:] = 0
        launch(launches)
        assert found.tobytes() == expected.tobytes()
        assert (seen == again + 2).all()


@pytest.mark.parametrize("value", [np.complex128(1), None, "a", np.int8(1), (1, None)])
def test_what_is_not_known_is_python_s_to_call(value):
    seen = []

    @njit
    def kernel(work, value):
        begin, end = chunk(work)
        while begin < end:
            begin, end = next_chunk(work)

    def python(work, value):
        seen.append(value)
        kernel(work, value)

    assert native([(kernel, (1,), 0)]) is not None
    assert native([(kernel, (value,), 0)]) is None
    assert native([(kernel, (1,), 0), (python, (1,), 8)]) is None
    launch(LaunchList([Call(kernel, 1, 1, (value,)), Call(python, 1, 1, (value,))], 1))
    assert seen == [value]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("spin", [0, 3, 400_000])
@pytest.mark.parametrize("turns", [0, 20_000])
def test_each_kernel_begins_when_the_one_before_is_done(threads, spin, turns, monkeypatch):
    """Also where nobody waits in compiled code, and Python has to."""
    monkeypatch.setattr(thread_pool, "SPIN", spin)
    monkeypatch.setattr(thread_pool, "_pools", {})
    launches, values, seen = steps(50, 12, threads, turns)
    assert launches.native is not None
    for again in range(1, 8):
        values[0] = 100 * again
        time.sleep(0.002 * (again % 2))
        launch(launches)
        assert (values == 100 * again + np.arange(51)[:, None]).all()
        assert (seen == again).all()


PATIENT = 1 << 32
"""Turns, some seconds, after which a thread that waits in `meet` is alone."""
HUGE = 1 << 46
"""Elements, more than any address names."""


def test_helpers_do_their_part():
    marks, seen = np.zeros((2, 3), np.int64), np.zeros((2, 2), np.int64)
    sizes = np.array([3, 4])
    launch(LaunchList([Call(meet, 2, 2, (marks[k], sizes, seen[k], PATIENT)) for k in range(2)], 2))
    assert (marks == [0, 1, 1]).all()
    assert (seen == [[3, 104], [3, 104]]).all()  # each has taken its own share


@pytest.mark.parametrize("where", [0, 1], ids=["caller", "helper"])
def test_a_kernel_that_fails_ends_those_behind_it(where):
    marks, sizes = np.zeros(3, np.int64), np.array([1, 1])
    seen, after = np.zeros(2, np.int64), np.zeros(2, np.int64)
    calls = [
        Call(meet, 2, 2, (marks, sizes, seen, PATIENT)),
        Call(step, 2, 2, (after, seen, np.zeros(2, np.int64), 0)),
    ]
    launches = LaunchList(calls, 2)
    assert launches.native is not None
    sizes[where] = HUGE
    with pytest.raises(MemoryError, match="what meet needs"):
        launch(launches)
    assert (after == 0).all()
    sizes[where], marks[:] = 1, 0
    launch(launches)
    assert (after == 1).all()


def test_a_kernel_that_fails_alone():
    seen = np.zeros(2, np.int64)
    launches = LaunchList([Call(meet, 2, 1, (np.zeros(3, np.int64), np.array([1, HUGE]), seen, 0))], 1)
    with pytest.raises(MemoryError, match="what meet needs"):
        launch(launches)
    assert list(seen) == [1, 0]


@TIMERS
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_ends_it_between_kernels(threads):
    """And nothing goes on writing: the arrays of a captured run are used again."""
    launches, _, seen = steps(2000, 8, threads, 200_000)
    launch(steps(2, 8, threads)[0])  # compiled, and the threads are there
    with interrupted_after(0.1):
        launch(launches)
    done = seen.copy()
    assert done.sum() < seen.size
    time.sleep(0.1)
    assert (seen == done).all()


def test_several_threads_repeat_at_once():
    """One has the pool, the others are alone with their work."""
    wrong = []

    def go(number):
        launches, values, _ = steps(20, 6, 2, 500)
        for again in range(30):
            values[0] = 1000 * number + again
            launch(launches)
            wrong.extend([number] * (not (values[-1] == values[0] + 20).all()))

    others = [threading.Thread(target=go, args=(number,)) for number in range(4)]
    for one in others:
        one.start()
    for one in others:
        one.join(60)
    assert wrong == []


def test_what_was_repeated_is_let_go():
    launches, values, _ = steps(5, 4, 2)
    gone = weakref.ref(values)
    launch(launches)
    del launches, values
    assert let_go(gone)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_repeats_with_threads_of_its_own():
    launches, values, _ = steps(5, 4, 2)
    launch(launches)
    child = os.fork()
    if child == 0:
        values[:] = 0
        launch(launches)
        os._exit(0 if (values[-1] == 5).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_is_compiled_waits_for_no_compiler():
    """A child process of one that compiles in another thread would wait for ever."""
    from numba.core.compiler_lock import global_compiler_lock

    steps(3, 4, 2)
    made: list[bool] = []
    with global_compiler_lock:
        other = threading.Thread(
            target=lambda: made.append(steps(5, 4, 2)[0].native is not None), daemon=True
        )
        other.start()
        other.join(10)
        assert made == [True]
