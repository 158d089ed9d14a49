"""A second process that compiles kernels while the first one does: one process compiles one at a time.

    refnet verify ── the second kernel that must be compiled ── python -P -m refnet.cli.second_process verify
                                                                     └── verify.warm_up(arguments)

It is started only if kernels must be compiled and there is a second processor. Each process loads what the
other one has compiled (loops/claims.py). It ends with the first process: it reads a pipe to which nothing is
written, and ends when the system closes it. Its errors are ignored: the first process then compiles
everything itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

FROM = 2
"""The second process starts with this kernel: for a single one it would come too late."""


@contextmanager
def second_compiler(argv: Sequence[str]) -> Iterator[None]:
    """Within it, a second process warms up the same command once several kernels must be compiled.

    argv: the command's name, of a module with `warm_up`, and its arguments.
    """
    from importlib.metadata import version  # not at the top: this, too, would slow every command's start

    from refnet.kernels.resources import processors  # the command line is imported without the compiler
    from refnet.loops.jit import known, watching

    started: list[subprocess.Popen[bytes]] = []

    def start(begun: int, done: int) -> None:
        if begun == FROM and not started:
            with suppress(OSError):
                started.append(_start(argv))

    claims = sys.platform != "win32" and known(version("numba"))  # else both would compile everything
    if not claims or processors() < 2:
        yield
        return
    try:
        with watching(start):
            yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    import subprocess  # not at the top: 8 ms of every command's start

    from refnet.loops.jit import cache_folder

    quiet = {**os.environ, "REFNET_QUIET": "1"}
    if (folder := cache_folder()) is not None:
        quiet["REFNET_CACHE"] = str(folder.parent)  # which may be this process's private one
    # -P: the refnet and the packages of this process, not what lies in the current folder
    command = [sys.executable, "-P", "-m", "refnet.cli.second_process", *argv]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, env=quiet)
