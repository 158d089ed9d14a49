"""Threads that share a kernel: every item once, whoever does it; faults come back; nobody waits for ever."""

from __future__ import annotations

import os
import threading
import time
from contextvars import copy_context

import numpy as np
import pytest

from refnet.core import interrupt
from refnet.core.interrupt import Stop, Stopped
from refnet.kernels import thread_pool
from refnet.kernels.chunks import MINE, ROW, begin_of_share, chunk, next_chunk, rows_of
from refnet.kernels.memory import LINE
from refnet.kernels.pointwise import GRAIN, relu
from refnet.kernels.thread_pool import (
    CHUNKS,
    KERNELS,
    Call,
    LaunchList,
    ThreadPool,
    launch,
    noting,
    parallel_for,
)
from tests.helpers.threads import let_go


def count(work, seen, seconds=0.0):
    """A kernel in Python: each item leaves a mark."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            time.sleep(seconds)
            seen[item] += 1
        begin, end = next_chunk(work)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("items", [0, 1, 2, 7, 100])
def test_every_item_is_done_once(threads, items):
    seen = np.zeros(items, np.int64)
    parallel_for(count, items, threads, seen)
    assert (seen == 1).all()


def test_workers_do_their_part():
    workers = set()

    def kernel(work):
        begin, end = chunk(work)
        while begin < end:
            workers.add(threading.get_ident())
            time.sleep(0.02)
            begin, end = next_chunk(work)

    parallel_for(kernel, 8, 2)
    assert len(workers) == 2


@pytest.mark.parametrize("way", ["run", "launch"])
@pytest.mark.parametrize(("threads", "quick"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_each_thread_begins_with_its_own_share_and_then_takes_from_the_others(threads, quick, way):
    """All others are at their first chunk until one of them, or the caller, has done everything else."""
    order: dict[int, list[int]] = {i: [] for i in range(threads)}
    all_here, over, items = threading.Barrier(threads), threading.Event(), CHUNKS * threads

    def kernel(work):
        begin, end = chunk(work)
        mine = order[int(work[MINE])]
        while begin < end:
            mine.append(begin)
            if len(mine) == 1:
                all_here.wait(20)
            if len(mine) == items - threads + 1:
                over.set()
            if work[MINE] != quick:
                assert over.wait(20)
            begin, end = next_chunk(work)

    if way == "run":
        parallel_for(kernel, items, threads)
    else:
        launch(LaunchList([Call(kernel, items, threads, ())], threads))
    others = [(quick + i) % threads for i in range(1, threads)]
    assert order[quick][:CHUNKS] == [*range(quick * CHUNKS, (quick + 1) * CHUNKS)]
    assert order[quick][CHUNKS:] == [i * CHUNKS + k for i in others for k in range(1, CHUNKS)]
    assert [order[i] for i in others] == [[i * CHUNKS] for i in others]


@pytest.mark.parametrize("kernels", [1, 2, 3, 5, 8, 13])
def test_each_thread_counts_in_a_cache_line_of_its_own(kernels):
    begins = set()

    def kernel(work, _):
        begin, end = chunk(work)
        while begin < end:
            begins.add(work.ctypes.data % LINE)
            time.sleep(0.001)
            begin, end = next_chunk(work)

    held = [np.zeros(kernels + i) for i in range(5)]  # not always the same memory
    for one in held:
        parallel_for(kernel, 4, 3, one)
        launch(LaunchList([Call(kernel, 4, 3, (one,)) for _ in range(kernels)], 3))
    assert begins == {0}
    assert ROW * rows_of(1, 3).itemsize >= LINE


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 5, 31, 32, 33])
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_shares_are_neighbours_and_the_caller_has_the_first(parts, threads):
    begins = [begin_of_share(parts, i, threads) for i in range(threads + 1)]
    assert (begins[0], begins[-1]) == (0, parts)
    sizes = np.diff(begins)
    assert sizes.max() - sizes.min() <= 1
    assert sizes[0] == -(-parts // threads)


def test_a_pool_outlives_its_array_of_kernels():
    crew = ThreadPool(2)
    for _ in range(KERNELS + 10):
        seen = np.zeros(3, np.int64)
        crew.run(count, 3, (seen,))
        assert (seen == 1).all()


def test_kernels_with_pauses_between_them():
    """A worker that went to sleep is woken."""
    for pause in (0.0, 0.001, 0.01, 0.05):
        time.sleep(pause)
        seen = np.zeros(5, np.int64)
        parallel_for(count, 5, 2, seen, 0.001)
        assert (seen == 1).all()


@pytest.mark.parametrize("where", ["worker", "caller"])
def test_a_fault_comes_back_and_the_pool_lives_on(where):
    caller = threading.get_ident()

    def kernel(work):
        begin, end = chunk(work)
        while begin < end:
            if (threading.get_ident() == caller) == (where == "caller"):
                raise MemoryError("no room")
            time.sleep(0.01)
            begin, end = next_chunk(work)

    with pytest.raises(MemoryError, match="no room"):
        parallel_for(kernel, 8, 2)
    seen = np.zeros(8, np.int64)
    parallel_for(count, 8, 2, seen)
    assert (seen == 1).all()


@pytest.mark.parametrize("way", ["run", "launch"])
def test_after_a_fault_nobody_begins_another_chunk(way, monkeypatch):
    """Of no share: the worker has most of its own before it."""
    caller, begun = threading.get_ident(), []
    here, failed, over = threading.Event(), threading.Event(), threading.Event()

    def kernel(work):
        begin, end = chunk(work)
        if threading.get_ident() == caller:
            assert here.wait(20)
            raise MemoryError("no room")
        while begin < end:
            begun.append(begin)
            here.set()
            assert failed.wait(20)
            begin, end = next_chunk(work)
        over.set()

    def sleep(seconds, sleep=time.sleep):
        if threading.get_ident() == caller:
            failed.set()  # a launch list's caller waits for the worker
        sleep(seconds)

    def go():
        if way == "run":
            parallel_for(kernel, 2 * CHUNKS, 2)
        else:
            launch(LaunchList([Call(kernel, 2 * CHUNKS, 2, ())], 2))

    monkeypatch.setattr(thread_pool.time, "sleep", sleep)
    with pytest.raises(MemoryError, match="no room"):
        go()
    failed.set()
    assert over.wait(20)
    assert begun == [CHUNKS]


def test_who_is_asked_to_stop_begins_no_chunk_of_any_share():
    """Also while the caller is at one, and does not know yet."""
    caller, begun, stop = threading.get_ident(), [], Stop()
    here, over = threading.Event(), threading.Event()

    def kernel(work):
        begin, end = chunk(work)
        while begin < end:
            begun.append(begin)
            if threading.get_ident() == caller:
                here.set()
                assert over.wait(20)
            else:
                assert here.wait(20)
                stop.ask()
            begin, end = next_chunk(work)
        over.set()

    def go():
        interrupt._current.set(stop)
        parallel_for(kernel, 2 * CHUNKS, 2)

    with pytest.raises(Stopped):
        copy_context().run(go)
    assert sorted(begun) == [0, CHUNKS]


def test_a_busy_pool_leaves_the_second_caller_alone_with_its_work():
    first, second = np.zeros(8, np.int64), np.zeros(8, np.int64)
    other = threading.Thread(target=parallel_for, args=(count, 8, 2, first, 0.02))
    other.start()
    parallel_for(count, 8, 2, second)
    other.join(10)
    assert (first == 1).all()
    assert (second == 1).all()


def test_two_threads_run_kernels_side_by_side():
    x = np.linspace(-1, 1, 8 * GRAIN, dtype=np.float32)
    wrong = []

    def go():
        expected = np.maximum(x, np.float32(0)).tobytes()
        wrong.extend(i for i in range(50) if relu(x, 2).tobytes() != expected)

    others = [threading.Thread(target=go) for _ in range(3)]
    for one in others:
        one.start()
    for one in others:
        one.join(60)
    assert not wrong


def test_arguments_are_let_go():
    import weakref

    seen = np.zeros(4, np.int64)
    gone = weakref.ref(seen)
    parallel_for(count, 4, 2, seen)
    del seen
    assert let_go(gone)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_makes_its_own_pool():
    parallel_for(count, 4, 2, np.zeros(4, np.int64))
    child = os.fork()
    if child == 0:
        seen = np.zeros(4, np.int64)
        parallel_for(count, 4, 2, seen)
        os._exit(0 if (seen == 1).all() and thread_pool._pools else 1)
    assert os.waitpid(child, 0)[1] == 0


# Kernels that are repeated one after another.


def follow(work, seen, before, after, seconds=0.0):
    """A kernel that sees whether the one before was done: after = before + 1."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            time.sleep(seconds)
            seen[item] += 1
            after[item] = before.min() + 1
        begin, end = next_chunk(work)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("seconds", [0.0, 0.0005])
def test_each_kernel_begins_when_the_one_before_is_done(threads, seconds):
    length, items = 30, 12
    values = np.zeros((length + 1, items))
    seen = np.zeros((length, items), np.int64)
    calls: list[Call] = []
    with noting(calls):
        for k in range(length):
            width = threads if k % 3 else 1  # some are for one thread only
            parallel_for(follow, items, width, seen[k], values[k], values[k + 1], seconds)
    assert (values[-1] == length).all()
    launches = LaunchList(calls, threads)
    for again in range(1, 6):
        values[0] = 100 * again
        time.sleep(0.003 * (again % 2))
        launch(launches)
        assert (values == 100 * again + np.arange(length + 1)[:, None]).all()
        assert (seen == again + 1).all()


def test_workers_do_their_part_of_what_is_repeated():
    workers: dict[int, set[int]] = {0: set(), 1: set()}

    def kernel(work, which):
        begin, end = chunk(work)
        while begin < end:
            workers[which].add(threading.get_ident())
            time.sleep(0.02)
            begin, end = next_chunk(work)

    launch(LaunchList([Call(kernel, 8, 2, (0,)), Call(kernel, 8, 2, (1,))], 2))
    assert [len(who) for who in workers.values()] == [2, 2]


@pytest.mark.parametrize("where", ["worker", "caller"])
def test_a_fault_among_many_kernels_comes_back_and_ends_them(where):
    caller = threading.get_ident()
    after = np.zeros(8, np.int64)

    def kernel(work):
        begin, end = chunk(work)
        while begin < end:
            if (threading.get_ident() == caller) == (where == "caller"):
                raise MemoryError("no room")
            time.sleep(0.01)
            begin, end = next_chunk(work)

    calls = [Call(kernel, 8, 2, ()), Call(count, 8, 2, (after,))]
    with pytest.raises(MemoryError, match="no room"):
        launch(LaunchList(calls, 2))
    assert (after == 0).all()
    launch(LaunchList(calls[1:], 2))
    assert (after == 1).all()


def test_after_a_fault_no_worker_goes_on_writing():
    """The arrays of a tape are used again by the next play."""
    caller, here = threading.get_ident(), threading.Event()
    seen = np.zeros(2)

    def kernel(work):
        begin, end = chunk(work)
        if threading.get_ident() == caller:
            assert here.wait(10)
            raise KeyboardInterrupt
        here.set()
        time.sleep(0.1)
        seen[begin:end] = 1
        next_chunk(work)

    with pytest.raises(KeyboardInterrupt):
        launch(LaunchList([Call(kernel, 2, 2, ())], 2))
    assert seen.sum() == 1
    seen[:] = 0
    time.sleep(0.2)
    assert seen.sum() == 0


def test_what_was_repeated_is_let_go():
    import weakref

    seen = np.zeros(4, np.int64)
    gone = weakref.ref(seen)
    launch(LaunchList([Call(count, 4, 2, (seen,))], 2))
    del seen
    assert let_go(gone)
