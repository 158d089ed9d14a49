"""Jobs on workers: one mechanism for `refnet evaluate` and `refnet prove`.

    results ── session ── processes: a pool, made anew when a worker dies ─┐
       │          ├────── dask: a cluster, which gives a dead worker's jobs to others
       │          └────── an executor of the caller's                      │
       └── submits every job, yields (job, result) as they end ◄───────────┘

A job is small, and depends on nothing but itself and the parcel. So it can be run again anywhere, in any
order, with the same result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

from refnet.core.errors import InputError
from refnet.workers.dask_cluster import dask_session
from refnet.workers.held import Parcel, begin, forget, work

J = TypeVar("J", bound=Hashable)

MOST_PROCESSES = 256
LOST = 3
"""A pool that breaks so often with no result in between will break again: a job is what kills its worker."""

Submit = Callable[[Any], "Future[Any]"]


@dataclass(frozen=True)
class Workers:
    """Who computes; at most one of the three. By default this process does, one job after the other.

    processes: how many worker processes on this machine. dask: a scheduler's address such as
    tcp://10.0.0.1:8786, or local:N for a cluster of N processes on this machine. executor: any
    concurrent.futures.Executor, which stays open.

    >>> Workers(processes=2).local, Workers(dask="tcp://10.0.0.1:8786").local
    (2, None)
    """

    processes: int | None = None
    dask: str | None = None
    executor: Executor | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("processes", "dask", "executor") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"{given[0]} and {given[1]}: give one or the other")
        if self.processes is not None:
            _check_count("processes", self.processes)
        if self.dask is not None and self.dask.startswith("local:"):
            count = self.dask.removeprefix("local:")
            _check_count("dask=local:N", int(count) if count.isascii() and count.isdecimal() else count)
        elif self.dask is not None and "://" not in self.dask:
            raise InputError(f"dask must be local:N or an address such as tcp://HOST:8786, got {self.dask!r}")
        if self.executor is not None and not isinstance(self.executor, Executor):
            raise InputError(f"executor must be a concurrent.futures.Executor, got {self.executor!r:.100}")

    @property
    def local(self) -> int | None:
        """How many processes share this machine's processors; None if that is not known here."""
        if self.dask is not None:
            return int(self.dask[6:]) if self.dask.startswith("local:") else None
        return None if self.executor is not None else self.processes or 1


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_PROCESSES:
        raise InputError(f"{name} must be a whole number from 1 to {MOST_PROCESSES}, got {count!r}")


def results(workers: Workers, sent: Parcel, jobs: Sequence[J]) -> Iterator[tuple[J, Any]]:
    """(job, its result) of every job, each once, in the order in which they end.

    A worker that dies changes nothing: its jobs are run again. Raises what a job raises; InputError if
    workers die again and again, or if a cluster cannot be reached.
    """
    if workers == Workers() or workers.processes == 1:
        try:
            for job in jobs:
                yield job, work(sent, sent.function, job)
        finally:
            forget(sent.key)
        return
    left, lost = dict.fromkeys(jobs), 0
    while left:
        broken = False
        with _session(workers, sent) as submit:
            futures: dict[Future[Any], J] = {}
            try:
                for job in left:
                    futures[submit(job)] = job
            except BrokenExecutor:
                broken = True
            for done in as_completed(futures):
                try:
                    result = done.result()
                except BrokenExecutor:
                    broken = True
                    continue
                lost = 0
                del left[futures[done]]
                yield futures[done], result
        lost += broken
        if workers.executor is not None and broken:
            raise InputError("the executor is broken (a worker died): what was done is kept; run it again")
        if lost >= LOST:
            raise InputError(
                f"worker processes died {lost} times without a result: is there enough memory? "
                f"{len(left)} jobs are left, the first is {next(iter(left))!r:.200}"
            )


@contextmanager
def _session(workers: Workers, sent: Parcel) -> Iterator[Submit]:
    """What submits one job. Jobs that have not begun are cancelled at its end."""
    if workers.executor is not None:
        executor = workers.executor
        made: list[Future[Any]] = []

        def submit(job: Any) -> Future[Any]:
            made.append(executor.submit(work, sent, sent.function, job))
            return made[-1]

        try:
            yield submit
        finally:
            for one in made:
                one.cancel()
    elif workers.dask is not None:
        with dask_session(workers.dask, sent) as submit_dask:
            yield submit_dask
    else:
        pool = ProcessPoolExecutor(workers.processes, get_context("spawn"), begin, (sent,))
        try:
            yield lambda job: pool.submit(work, sent.key, sent.function, job)
        finally:
            pool.shutdown(wait=sys.exc_info()[0] is None, cancel_futures=True)
