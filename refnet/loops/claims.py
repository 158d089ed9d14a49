"""Which process compiles what: a claim that others see, and that ends with the process at the latest.

    with a claim ── look again whether another process has finished it ── compile ── keep ── release

A claim is a locked byte of a file beside the compiled kernels, the byte named by the hash of what is claimed.
The system forgets the locks of a process that ends, however it ends. Kernels that call one another form no
circle, and a process claims a kernel before those that it calls, so two processes never wait for each other.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from functools import cache
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PATIENCE = 60.0
"""Seconds after which one goes on without a claim: the other may be stopped, or have failed."""
PAUSE = 0.005
"""Seconds between two looks whether a claim is free."""
NAME = "claims"
"""The file's name in the folder."""


class Claims:
    """The claims of this process in one folder. Where the system has no such locks, claims mean nothing."""

    def __init__(self, folder: str) -> None:
        self._file = -1
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = os.open(Path(folder) / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:  # a folder that cannot be written
            pass

    def take(self, what: str) -> bool:
        """Claim it, after whoever else has it. Whether it is ours now."""
        if sys.platform == "win32" or self._file < 0:
            return False
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(what))
                return True
            except (BlockingIOError, PermissionError):  # another process has it
                time.sleep(PAUSE)
            except OSError:  # a file system without locks
                return False
        return False

    def release(self, what: str) -> None:
        """End a claim."""
        if sys.platform != "win32" and self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(what))


def _byte(what: str) -> int:
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:7])


@cache
def claims_in(folder: str) -> Claims:
    """The claims of this process in a folder. Its file stays open: closing it would end all of them."""
    return Claims(folder)
