"""A KeyboardInterrupt at any moment: what was taken is given back, and no thread stays behind."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.arithmetic.captured_run import CapturedRun, CapturedRuns
from refnet.arithmetic.plain import Plain
from refnet.kernels import thread_pool
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.thread_pool import Call, LaunchList, launch, parallel_for
from refnet.loops.jit import njit
from refnet.ops import Relu
from tests.arithmetic.test_captured_run import kept, one_node
from tests.helpers.bits import floats, same_bits
from tests.helpers.threads import TIMERS, interrupted_after
from tests.kernels.test_native_calls import steps

PACKAGE = str(Path(refnet.__file__).parent)


def interrupted(function, moment: int) -> bool:
    """Whether function() is interrupted at that moment; after the last moment it is not.

    Python looks for signals where one of its functions begins and behind each call of C, and nowhere else in
    code without loops: these are the events of a profiler.
    """
    left = [moment]

    def look(frame, event, argument):
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(PACKAGE):
            left[0] -= 1
            if left[0] < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    try:
        sys.setprofile(look)
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def helpers(kernels: int) -> int:
    """How many threads do the work of so many kernels, for which two are given."""
    seen = set()

    def kernel(work):
        begin, end = chunk(work)
        while begin < end:
            seen.add(threading.get_ident())
            time.sleep(0.002)
            begin, end = next_chunk(work)

    for _ in range(kernels):
        parallel_for(kernel, 8, 2)
        launch(LaunchList([Call(kernel, 8, 2, ())], 2))
    return len(seen)


@njit
def once_more(work, seen):
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            seen[item] += 1
        begin, end = next_chunk(work)


@pytest.mark.parametrize("way", ["launch", "launch by Python", "parallel_for"])
def test_the_threads_are_there_for_the_next(way):
    launches, values, _ = steps(4, 6, 2)
    if way == "launch by Python":
        launches.native = launches.native_shared = None
    seen = np.zeros(6, np.int64)

    def run():
        if way == "parallel_for":
            parallel_for(once_more, 6, 2, seen)
        else:
            launch(launches)

    run()
    for moment in itertools.count():
        time.sleep(0.001 * (moment % 2))
        more = interrupted(run, moment)
        assert helpers(2) == 2, moment
        values[:], seen[:] = moment, 0
        run()
        assert (values == moment + np.arange(5)[:, None]).all() or way == "parallel_for"
        assert (seen == (way == "parallel_for")).all()
        if not more:
            break
    assert moment > 5, "there are moments"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_captured_run_is_repeated_after_an_interrupt(threads):
    graph, plain = refnet.load("octave-se-resnet-digits"), Plain(threads)
    x = {"data": floats((1, *graph.inputs["data"].shape[1:]), "x")}
    name = graph.outputs["prob"]
    expected = refnet.run(graph, x, plain)["prob"]
    refnet.run(graph, x, plain)
    (known,) = plain._captured.of(graph, CapturedRuns)._seen.values()
    assert isinstance(known, CapturedRun)
    for moment in itertools.count():
        more = interrupted(lambda: known.repeat(x), moment)
        found = known.repeat(x)
        assert found is not None, moment
        assert same_bits(found[name], expected)
        if not more:
            break
    assert moment > 5


def test_a_second_interrupt_leaves_nobody_who_writes_into_the_next_run(monkeypatch):
    """The first ends the kernels; the second comes while the caller waits for a helper that is at one."""
    graph, plain = one_node(Relu(), [(1, 64)]), Plain(2)
    x = {"x0": floats((1, 64), "x")}
    refnet.run(graph, x, plain)
    refnet.run(graph, x, plain)
    (known,) = kept(graph, plain)
    caller, here, go_on = threading.get_ident(), threading.Event(), threading.Event()
    place, seen, interrupts = known._inputs["x0"], [], []

    def kernel(work):
        begin, end = chunk(work)
        if not interrupts and threading.get_ident() == caller:
            assert here.wait(20)
            interrupts.append("at the kernel")
            raise KeyboardInterrupt
        if not interrupts:
            here.set()
            assert go_on.wait(20)
            place[:] = np.nan  # a value whose memory this is later
        else:
            seen.append(place.copy())
        while begin < end:
            begin, end = next_chunk(work)

    def sleep(seconds, sleep=time.sleep):
        if interrupts == ["at the kernel"] and threading.get_ident() == caller:
            interrupts.append("while it waits")
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(thread_pool.time, "sleep", sleep)
    known._steps = [LaunchList([Call(kernel, 2, 2, ())], 2)]
    with pytest.raises(KeyboardInterrupt):
        known.repeat(x)
    assert len(interrupts) == 2
    threading.Timer(0.2, go_on.set).start()
    known.repeat(x)
    assert all(same_bits(one, x["x0"]) for one in seen)
    assert seen


@TIMERS
@pytest.mark.parametrize("threads", [1, 2])
def test_a_few_long_kernels_are_not_all_done_first(threads):
    launch(steps(2, 8, threads)[0])
    launches, _, seen = steps(10, 8, threads, 8_000_000)
    with interrupted_after(0.01):
        launch(launches)
    assert seen[0].all()
    assert not seen[5:].any()
