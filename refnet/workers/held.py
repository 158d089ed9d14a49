"""In a worker: what it was sent once, and the jobs that use it.

    hold(Parcel) ── once per worker, before its first job
    work(job)    ── the function of the parcel, called with what it was made of and the job

Needs the standard library only, so that a worker starts quickly.
"""

from __future__ import annotations

import copyreg
import os
import pickle
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any

from refnet import __version__
from refnet.core.errors import FormatError, InputError

copyreg.pickle(FormatError, lambda e: (FormatError, (e.file, e.offset, e.found, e.expected)))
"""Pickled as it is by default, it would lack what its message is made of, and a pool would break."""


@dataclass(frozen=True)
class Parcel:
    """What every worker is sent once.

    key: names the parcel; equal keys, equal contents. function: called with `value` and a job; of a module,
    so that it can be pickled. data: the pickled value, as bytes, which are copied as they are.
    """

    key: str
    function: Callable[[Any, Any], Any]
    data: bytes
    version: str = __version__


def parcel(key: str, function: Callable[[Any, Any], Any], value: object) -> Parcel:
    """The parcel of a function and of the value that it needs for every job."""
    return Parcel(key, function, pickle.dumps(value, protocol=5))


_HELD: dict[str, Any] = {}
"""Key of a parcel -> its value. A worker process has no other place where one job can find what another job
has unpacked. At most one parcel: the next one replaces it."""
_UNPACKING = threading.Lock()


def hold(sent: Parcel) -> None:
    """Keep the parcel's value for the jobs to come. Raises InputError if this is another refnet."""
    if sent.version != __version__:
        raise InputError(f"this worker has refnet {__version__}, not {sent.version}: its bits may differ")
    with _UNPACKING:
        if sent.key not in _HELD:
            _HELD.clear()
            _HELD[sent.key] = pickle.loads(sent.data)


def begin(sent: Parcel) -> None:
    """Begin as a process of a pool: hold the parcel; end with the parent, and at once at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    hold(sent)


def _end_with_parent() -> None:
    """A pool's process would wait for work for ever if its parent were killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def work(sent: Parcel | str, function: Callable[[Any, Any], Any], job: Any) -> Any:
    """The result of one job. sent: the parcel, or the key of one that this worker was sent before."""
    if isinstance(sent, Parcel):
        hold(sent)
    return function(_HELD[sent.key if isinstance(sent, Parcel) else sent], job)


def forget(key: str) -> None:
    """Drop the parcel's value."""
    _HELD.pop(key, None)
