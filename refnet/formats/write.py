"""The one place where files are written: whole or not at all, under names that nobody can guess or prepare.

    whole_file      a file that replaces another one at the end       results, reports, captures, states
    fresh_file      a file that must not be there yet                 members of a folder that is private
    appended_file   a file that grows and may be continued            progress.jsonl, downloads, lock files

None of them follows a link at the file's own name, so none writes anywhere but in the folder it was given.
What is written below this package (the cache of compiled kernels), and in another interpreter (a worker's
arrays, in a folder that only this user can open), cannot use it; `tests/test_project.py` knows no others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

from refnet.core.errors import InputError

NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""How files are opened. O_BINARY: Windows."""
WAIT = getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe must not wait for somebody at its other end."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file under a temporary name in path's folder, renamed to path when all is written.

    Whatever interrupts the writing, `path` is then as it was before. A link at `path` is replaced, not
    followed. Raises InputError if the file cannot be written, or if `path` is there and is no file (a
    folder, a device, a pipe), or a link to such a thing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(folder + "/a") as stream:
    ...         before = os.path.exists(folder + "/a")
    ...     before, os.listdir(folder)
    (False, ['a'])
    """
    file = os.fspath(path)
    if "\0" in file:
        raise InputError(f"cannot write {file!r}: embedded null byte")
    if os.path.exists(file) and not os.path.isfile(file):
        raise InputError(f"cannot write {file}: it is there already, and no file that could be replaced")
    temporary = os.path.join(os.path.dirname(file), f".refnet-{secrets.token_hex(8)}.part")
    try:
        with fresh_file(temporary) as stream:
            yield stream
        os.replace(temporary, file)
    except OSError as error:
        if error.filename not in (None, temporary):  # the caller's, of another file
            raise
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def fresh_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A new binary file, opened for writing. FileExistsError if anything has that name, be it a link."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666), "wb")


def appended_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A binary file, made if it is not there, opened for reading and for writing at its end.

    Raises OSError for a link, for what is not a regular file, and for a file that has another name, too: what
    is appended would appear there. One that was unlinked meanwhile has no name, and is returned.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_LINK | WAIT, 0o666)
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(number)
        raise OSError(None, "it is not a regular file" if found.st_nlink < 2 else "it has other names, too")
    return os.fdopen(number, "a+b")
