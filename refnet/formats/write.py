"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from refnet.core.errors import InputError


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file under a temporary name in path's folder, renamed to path when all is written.

    Whatever interrupts the writing, `path` is then as it was before. Raises InputError if the file cannot be
    written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(folder + "/a") as stream:
    ...         before = os.path.exists(folder + "/a")
    ...     before, os.listdir(folder)
    (False, ['a'])
    """
    file = os.fspath(path)
    temporary = os.path.join(os.path.dirname(file), f".refnet-{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb") as stream:
            yield stream
        os.replace(temporary, file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
