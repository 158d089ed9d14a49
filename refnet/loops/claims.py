"""Which process compiles what: a claim that other processes see, and that ends with its process.

    claim ── check again whether another process has finished it ── compile ── save ── release

A claim is a locked byte in a file next to the compiled kernels; the hash of the claimed kernel selects the
byte. The system releases the locks of a process however it ends. Calls between kernels form no cycle, and a
process claims a kernel before those that it calls, so two processes never wait for each other.
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
"""Seconds after which a process goes on without the claim: the other one may have stopped or failed."""
PAUSE = 0.005
"""Seconds between two checks whether a claim is free."""
NAME = "claims"
"""The file's name in the folder."""


class Claims:
    """The claims of this process in one folder. Where the system has no such locks, claims mean nothing."""

    def __init__(self, folder: str) -> None:
        self._file = -1
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.open(Path(folder) / NAME, flags, 0o644)
        except OSError:  # a folder that cannot be written
            pass

    def take(self, what: str) -> bool:
        """Claim it, waiting while another process holds it. Returns whether we hold it now."""
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
