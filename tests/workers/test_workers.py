"""Jobs on workers: each result once, whoever computes, and whatever dies."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from refnet.core.errors import FormatError, InputError, UnsupportedError
from refnet.workers.held import hold, parcel
from refnet.workers.workers import Workers, results


def times(factor: int, job: int) -> int:
    if job < 0:
        raise FormatError("x.bin", 3, "a bad job", "a good one")
    return factor * job


def dies_once(folder: str, job: int) -> int:
    """Job 3 kills its worker unless it has done so."""
    mark = Path(folder, "dead")
    if job == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def dies(folder: str, job: int) -> int:
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_this_process_and_an_executor_of_the_callers():
    with ThreadPoolExecutor(2) as pool:
        for workers in (Workers(), Workers(processes=1), Workers(executor=pool)):
            assert dict(results(workers, parcel("times", times, 3), range(5))) == {i: 3 * i for i in range(5)}
        assert pool.submit(int, "4").result() == 4  # still open


def test_an_executor_has_its_waiting_jobs_cancelled():
    with ThreadPoolExecutor(1) as pool:
        for _ in results(Workers(executor=pool), parcel("nap", nap, 0.05), range(100)):
            break
        begin = time.perf_counter()
    assert time.perf_counter() - begin < 2


def nap(seconds: float, job: int) -> int:
    time.sleep(seconds)
    return job


def test_a_worker_that_dies_changes_nothing(tmp_path):
    sent = parcel("once", dies_once, str(tmp_path))
    assert sorted(results(Workers(processes=2), sent, range(8))) == [(i, i) for i in range(8)]
    assert (tmp_path / "dead").exists()


def test_a_job_that_always_kills_its_worker_is_an_error(tmp_path):
    with pytest.raises(InputError, match="worker processes died 3 times without a result"):
        list(results(Workers(processes=2), parcel("dies", dies, ""), [1]))


def test_an_error_of_a_job_is_raised_whole():
    with pytest.raises(
        FormatError, match=r"x.bin: at byte 3: found a bad job, expected a good one"
    ) as raised:
        list(results(Workers(processes=2), parcel("times", times, 3), [-1]))
    assert raised.value.offset == 3


def test_a_worker_with_another_refnet_is_refused(monkeypatch):
    sent = parcel("times", times, 3)
    monkeypatch.setattr("refnet.workers.held.__version__", "9.9")
    with pytest.raises(InputError, match=r"this worker has refnet 9.9, not"):
        hold(sent)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"processes": 0}, "processes must be a whole number from 1 to 256, got 0"),
        ({"processes": 2, "dask": "local:2"}, "processes and dask: give one or the other"),
        ({"dask": "local:x"}, "dask=local:N must be a whole number from 1 to 256, got 'x'"),
        ({"dask": "here"}, "dask must be local:N or an address"),
        ({"executor": 5}, "executor must be a concurrent.futures.Executor, got 5"),
    ],
)
def test_wrong_workers_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        Workers(**wrong)


def test_without_dask_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UnsupportedError, match=r'pip install "refnet\[dask\]"'):
        list(results(Workers(dask="local:2"), parcel("times", times, 3), [1]))
