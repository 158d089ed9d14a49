"""Unpack an archive of MXNet's, for people: the reader takes a .tar as it is, and `fetch` leaves it so."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from refnet.core.errors import FetchError, FormatError, InputError
from refnet.formats.write import fresh_file

LARGEST = 1 << 32
"""Bytes: the most that is unpacked."""
MEMBERS = 10_000
CHUNK = 1 << 18


def unpack(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], *, limit: int = LARGEST
) -> list[Path]:
    """Unpack an uncompressed .tar into a folder that must not exist yet (or be empty).

    Everything is written into a temporary folder beside it, which is renamed at the end: the folder
    appears whole or not at all. limit: most bytes in all. Returns the files' paths, in the archive's
    order. Modes, owners and times are not taken over. Raises FormatError, with the byte offset, for
    a member that is no plain file or folder (links, devices, sparse files), that would lie outside
    the folder, or comes twice, and for a damaged or too large archive; InputError for an unusable
    path; FetchError if it cannot be written.
    """
    target = Path(folder)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{os.fspath(path)}: is not a file")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{target}: exists already; give a new folder")
        archive = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None
    with archive:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                inner = temporary / target.name
                inner.mkdir()
                names = list(_members(archive, os.fspath(path), inner, limit))
                os.replace(inner, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise FetchError(f"{target}: cannot be written: {error.strerror or error}") from None
    return [target.joinpath(*name.parts) for name in names]


def _members(archive: IO[bytes], file: str, folder: Path, limit: int) -> Iterator[PurePosixPath]:
    """Write each member below `folder` and yield its name."""
    source = _Bounded(archive)
    try:
        with tarfile.open(fileobj=source, mode="r:") as tar:  # type: ignore[call-overload]
            end = total = count = 0
            for member in tar:
                name = _inside(member, file)
                count, total = count + 1, total + member.size
                if total > limit or count > MEMBERS:
                    raise FormatError(
                        file, member.offset, f"more than {limit} bytes or {MEMBERS} members in all"
                    )
                _write_member(tar, member, folder.joinpath(*name.parts), file)
                end = member.offset_data + -(-member.size // 512) * 512
                if not member.isdir():
                    yield name
            if not end:
                raise FormatError(file, 0, "an archive without members")
            archive.seek(end)
            if archive.read(512) != bytes(512):
                raise FormatError(file, end, "a cut or damaged archive", "a member or the end mark")
    except (FormatError, OSError):
        raise
    except Exception as error:  # tarfile raises many kinds on damaged headers
        raise FormatError(file, archive.tell(), f"a damaged archive ({error})", "a tar archive") from None


def _inside(member: tarfile.TarInfo, file: str) -> PurePosixPath:
    """The member's name, if it is a plain file or folder that stays inside."""
    shown = repr(member.name[:80])
    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) and not member.issparse()
    if not plain or member.size < 0 or (member.isdir() and member.size):
        raise FormatError(
            file, member.offset, f"member {shown} of type {member.type!r}", "a file or a folder"
        )
    name = PurePosixPath(member.name)
    bad = "\\" in member.name or "\0" in member.name or ":" in member.name
    if bad or name.is_absolute() or ".." in name.parts or (not name.parts and not member.isdir()):
        raise FormatError(file, member.offset, f"member {shown}", "a name inside the folder")
    return name


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, file: str) -> None:
    data = tar.extractfile(member)
    try:
        (path.parent if data else path).mkdir(parents=True, exist_ok=True)
        if data is None:
            return
        with fresh_file(path) as out:
            shutil.copyfileobj(data, out, CHUNK)
    except (FileExistsError, NotADirectoryError):
        raise FormatError(file, member.offset, f"member {member.name[:80]!r} twice") from None


class _Bounded:
    """A file whose read never asks for more than is left, whatever a header claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        self.seek, self.tell = file.seek, file.tell

    def read(self, n: int = -1) -> bytes:
        left = max(0, self.size - self.file.tell())
        return self.file.read(left if n < 0 else min(n, left))
