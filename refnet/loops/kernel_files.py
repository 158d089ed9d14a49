"""The files of compiled kernels: in a folder that nobody else can write into, each checked before it is used.

    kernel_folder ── REFNET_CACHE, XDG_CACHE_HOME, ~/.cache ── distrust ── used, if only read-only
                                                        └───── else a private folder, until the process ends
    load, save ───── one file per kernel: MAGIC, sha256 of key, name and what follows, machine code

What is in these files is run. So the folder must belong to this user or to root, neither group nor world may
write into it, and nobody else can put another one in its place. A file that does not have its hash is as good
as none, and so is one from the folder of another key: damage, a full disk or a process that was killed leaves
nothing that is run. Two processes that save the same kernel each write a file of their own, and the one that
comes last replaces the other: there is no index that could contradict the files.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path

MAGIC = b"refnet kernel 1\n"
HEAD = len(MAGIC) + hashlib.sha256().digest_size
"""Bytes before the machine code."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""How files are opened. O_BINARY: Windows."""
OTHERS = stat.S_IWGRP | stat.S_IWOTH


def root_folder() -> Path | None:
    """The folder of the folders of compiled kernels; None where the environment names none.

    Without a home (no HOME and no entry in the table of users) there is none; a relative XDG_CACHE_HOME does
    not count, as its specification says.
    """
    if named := os.environ.get("REFNET_CACHE"):
        return Path(os.path.abspath(named))
    for place in (os.environ.get("XDG_CACHE_HOME") or "", os.path.expanduser("~/.cache")):
        if os.path.isabs(place):
            return Path(place, "refnet", "kernels")
    return None


def distrust(folder: Path) -> str:
    """Why files of this folder must not be run; "" if nobody but this user and root can change them.

    The folder's owner must be this user or root, and neither group nor world may write into it. The same
    holds for the folders above it, of the real path, because whoever may write there can rename them; a
    sticky one such as /tmp will do, because there only the owner of an entry can. Where users have no numbers
    (Windows), the system's own rules must do.
    """
    if sys.platform == "win32":
        return ""
    real = Path(os.path.realpath(folder))
    for place in (real, *real.parents):
        try:
            found = os.lstat(place)
        except OSError as error:
            return f"{place}: {error.strerror}"
        if found.st_uid not in (0, os.geteuid()):
            return f"{place} belongs to another user ({found.st_uid})"
        if found.st_mode & OTHERS and (place == real or not found.st_mode & stat.S_ISVTX):
            return f"others may write into {place} (mode {stat.S_IMODE(found.st_mode):o}; `chmod go-w` helps)"
    return "" if real.is_dir() else f"{real} is no folder"


def kernel_folder(key: str) -> Path | None:
    """Where the kernels of this key are, a folder that may be used; None where there is no disk for them.

    The private folder is said once on standard error, with the reason.
    """
    root = root_folder()
    return _folder(key, root)


@cache
def _folder(key: str, root: Path | None) -> Path | None:
    folder = None if root is None else root / key
    reason = "there is no home folder, and REFNET_CACHE is not set" if folder is None else _unusable(folder)
    if folder is not None and not reason:
        return folder
    private = _private_folder()
    kept = "nowhere" if private is None else "in a private folder until this process ends"
    say(f"refnet: compiled kernels are kept {kept}: {reason}")
    if private is not None:
        private /= key
        private.mkdir(exist_ok=True)
    return private


def say(text: str) -> None:
    """A line on standard error; nothing fails where it cannot be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def _unusable(folder: Path) -> str:
    """Make the folder if it is not there, and say why it cannot be used, if so."""
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        for place in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another process has made it
                os.mkdir(place, 0o755)
    except (OSError, ValueError) as error:
        return f"{folder} cannot be made ({getattr(error, 'strerror', None) or error})"
    if reason := distrust(folder):
        return reason
    return "" if os.access(folder, os.R_OK | os.X_OK) else f"{folder} cannot be read"


@cache
def _private_folder() -> Path | None:
    try:
        folder = Path(tempfile.mkdtemp(prefix="refnet-kernels-"))
    except OSError:
        return None
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a fork of it
        shutil.rmtree(folder, ignore_errors=True)


def load(folder: Path, name: str) -> bytes | None:
    """The machine code that was saved under this name; None if there is none that can be trusted."""
    try:
        number = os.open(folder / name, os.O_RDONLY | NO_LINK | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(number, "rb") as file:
            found = os.fstat(number)
            if sys.platform != "win32" and (
                found.st_uid not in (0, os.geteuid())
                or found.st_mode & OTHERS
                or not stat.S_ISREG(found.st_mode)
            ):
                return None
            data = file.read()
    except OSError:
        return None
    code = data[HEAD:]
    return code if data[:HEAD] == _head(folder, name, code) else None


def save(folder: Path, name: str, code: bytes) -> None:
    """Keep machine code under this name, if the folder can be written: whole, or not at all."""
    temporary = folder / f".{secrets.token_hex(8)}.part"
    try:
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o644)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(_head(folder, name, code) + code)
            os.replace(temporary, folder / name)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError:  # read-only, full: the next process compiles it again
        pass


def _head(folder: Path, name: str, code: bytes) -> bytes:
    """What a file of the folder of a key begins with."""
    return MAGIC + hashlib.sha256(f"{folder.name}\0{name}\0".encode() + code).digest()
