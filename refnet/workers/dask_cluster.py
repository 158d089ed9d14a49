"""Workers of dask.distributed: a cluster at an address, or one that is made on this machine.

    dask_session ── Client ── _Send (a plugin): the parcel goes to every worker once, to later ones too
                      └────── get_executor ── one task per job; a dead worker's tasks go to others

A cluster made here listens on 127.0.0.1 only, and serves no pages. dask is an extra:
pip install "refnet[dask]".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import Any

from refnet.core.errors import InputError, UnsupportedError
from refnet.workers.held import Parcel, forget, hold, work

WAIT = 30
"""Seconds to wait for a scheduler, and for its first worker."""

LOCAL = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.nanny.http.routes": [],
    "distributed.admin.system-monitor.gil.enabled": False,
}
"""dask's settings for a cluster made here: pages and figures are served to nobody."""


@contextmanager
def dask_session(where: str, sent: Parcel) -> Iterator[Callable[[Any], Future[Any]]]:
    """What submits one job to the cluster. where: an address, or local:N.

    Raises UnsupportedError without dask, InputError if nothing answers at the address or no worker is there,
    or if the workers cannot hold the parcel (another refnet, or none).
    """
    try:
        dask, distributed = import_module("dask"), import_module("distributed")  # an extra: only here
    except ImportError as error:
        raise UnsupportedError(f'--dask needs dask: pip install "refnet[dask]" ({error})') from None
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if where.startswith("local:"):
            stack.enter_context(dask.config.set(LOCAL))
            cluster = distributed.LocalCluster(
                n_workers=int(where.removeprefix("local:")),
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                worker_dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
            where = stack.enter_context(cluster).scheduler_address
        try:
            client = stack.enter_context(distributed.Client(where, timeout=WAIT, set_as_default=False))
        except (OSError, ValueError) as error:
            raise InputError(f"--dask {where}: no scheduler answers: {error}") from None
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError:
            raise InputError(f"--dask {where}: the scheduler has had no worker for {WAIT} s") from None
        try:
            client.register_plugin(sender(sent), name=sent.key)
        except Exception as error:  # whatever the workers answer, as their own exceptions
            raise InputError(f"--dask {where}: a worker cannot be used: {error}") from None
        stack.callback(_unregister, client, sent.key)
        executor = client.get_executor(pure=False)
        yield lambda job: executor.submit(work, sent.key, sent.function, job)


def sender(sent: Parcel) -> Any:
    """The plugin that gives the parcel to every worker, and takes it away at the end.

    dask asks for a WorkerPlugin. The class is made here because dask is an extra.
    """
    plugin: Any = import_module("distributed").WorkerPlugin

    class Send(plugin):  # type: ignore[misc]
        def __init__(self, sent: Parcel) -> None:
            self.sent = sent

        def setup(self, worker: object) -> None:
            hold(self.sent)

        def teardown(self, worker: object) -> None:
            forget(self.sent.key)

    return Send(sent)


def _unregister(client: Any, key: str) -> None:
    with suppress(Exception):  # the run is over; a cluster that is gone holds nothing
        client.unregister_worker_plugin(key)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of dask, which reports workers that die, although their jobs are run again."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
