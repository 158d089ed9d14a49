"""Official files: fetch them (progress, resume, checksum), find them, unpack an archive.

    fetch ── lock ── _complete ── _download ── _request    NAME.part grows, and resumes where it ended
                         └── check ── os.replace           NAME appears only whole and checked

The reader of MXNet's archives reads a .tar as it is, so `fetch` leaves it packed; `unpack` is for people.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

from refnet.core.errors import FetchError, FormatError, InputError
from refnet.formats.write import appended_file, fresh_file

if TYPE_CHECKING:
    from refnet.models.catalog import Entry, OfficialFile

__all__ = [
    "LARGEST",
    "check",
    "fetch",
    "located",
    "shipped_captures",
    "shipped_folder",
    "unpack",
    "weights_folder",
]

SMALL = ("octave-se-resnet-digits", "resnest-digits")
"""Networks whose shipped captures have every value; of the others there are hashes."""

LARGEST = 1 << 32
"""Bytes: the longest file that is downloaded where its size is not known, and the most that is unpacked."""

REDIRECTS = 5
MEMBERS = 10_000
CHUNK = 1 << 18

Progress = Callable[[str, int, int | None], object]
"""Called with (file name, bytes that are there, bytes in all or None), about four times a second."""


class Reply(Protocol):
    """What an opener gives: the part of http.client.HTTPResponse that is used."""

    status: int
    headers: Any

    def read1(self, n: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


Opener = Callable[[urllib.request.Request, float], Reply]
"""Sends a request, following no redirects; the second argument is the timeout in seconds."""


@dataclass(frozen=True)
class _Job:
    """One file to download, and how: see `fetch`. end: the monotonic time at which to give up."""

    file: OfficialFile
    progress: Progress
    timeout: float
    end: float | None
    opener: Opener

    @property
    def most(self) -> int:
        """Bytes after which nothing more is read."""
        return LARGEST if self.file.bytes is None else self.file.bytes


def weights_folder() -> Path:
    """Where fetched files are kept: REFNET_WEIGHTS, or `refnet/weights` in the user's cache folder.

    Raises InputError where there is no home folder, and REFNET_WEIGHTS names none or begins with ~.
    """
    if chosen := os.environ.get("REFNET_WEIGHTS"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise InputError(f"REFNET_WEIGHTS is {chosen!r}: {error}") from None
    import platformdirs

    folder = platformdirs.user_cache_path("refnet") / "weights"
    if not folder.is_absolute():  # ./~/.cache
        raise InputError("there is no home folder for fetched files: name one with REFNET_WEIGHTS")
    return folder


def shipped_folder() -> Path:
    """The folder of the weights that come with refnet: in the installed package, else in the repository.

    Raises InputError if neither is there.
    """
    package = Path(__file__).parents[1]
    candidates = (package / "_weights", package.parent / "weights")
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InputError(
        f"the weights that come with refnet are missing: looked in {', '.join(map(str, candidates))}"
    )


def shipped_captures(full: bool = False) -> list[tuple[Path, Path]]:
    """(capture's folder, its book) of each capture that comes with refnet; full: of the large networks, too.

    Raises InputError if they are missing.
    """
    folder = shipped_folder()
    found = sorted((folder / "captures").glob("*/manifest.json"))
    chosen = [path.parent for path in found if full or path.parent.name in SMALL]
    if not chosen:
        raise InputError(f"the captures that come with refnet are missing: looked in {folder / 'captures'}")
    return [(path, folder / "books" / f"{path.name}.json") for path in chosen]


def located(entry: Entry, folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Path of the entry's (first) official file if all its files are there with their sizes, else None.

    folder: where to look, default `weights_folder()`. Checksums are compared by `fetch`, not here.
    """
    target = weights_folder() if folder is None else Path(folder)
    paths = [target / file.name for file in entry.files]
    for path, file in zip(paths, entry.files, strict=True):
        if not os.path.isfile(path) or (file.bytes is not None and os.path.getsize(path) != file.bytes):
            return None
    return paths[0] if paths else None


def fetch(
    entry: Entry,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    *,
    timeout: float = 30.0,
    limit: float | None = None,
    wait: float = 600.0,
    opener: Opener | None = None,
) -> Path:
    """Download the entry's official files; return the path of the first.

    A file that is there already with the right checksum is not downloaded again; one with a wrong
    checksum is replaced. An interrupted download leaves NAME.part and is resumed by the next call.
    folder: default `weights_folder()`; it is made. timeout: seconds without a byte. limit: seconds
    that each file may take in all, None for any. wait: seconds to wait while another process
    fetches the same file. opener: sends the requests (default: urllib, http and https only).
    Raises InputError (nothing to fetch, no checksum known), FetchError (everything that goes wrong).
    """
    if not entry.files:
        raise InputError(
            f"{entry.name} has no official file" + (": it comes with refnet" if entry.shipped else "")
        )
    target = weights_folder() if folder is None else Path(folder)
    for file in entry.files:
        end = None if limit is None else time.monotonic() + limit
        _one(_Job(file, progress or (lambda *_: None), timeout, end, opener or open_url), target, wait)
    return target / entry.files[0].name


def check(path: str | os.PathLike[str], file: OfficialFile) -> None:
    """Compare a file with what is known of it: size, sha256 (or how it begins), sha384.

    Raises FetchError saying what was expected and what was found, or why it cannot be read.
    """
    try:
        size = os.stat(path).st_size
        if file.bytes is not None and size != file.bytes:
            raise FetchError(f"{os.fspath(path)}: wrong size: expected {file.bytes} bytes, found {size}")
        for kind, expected in (("sha256", file.sha256 or file.sha256_prefix), ("sha384", file.sha384)):
            if expected is None:
                continue
            with open(path, "rb") as stream:
                found = hashlib.file_digest(stream, kind).hexdigest()
            if not found.startswith(expected.lower()):
                raise FetchError(f"{os.fspath(path)}: wrong {kind}: expected {expected}, found {found}")
    except OSError as error:
        raise FetchError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None


def open_url(request: urllib.request.Request, timeout: float) -> Reply:
    """Send a request over http or https; a redirect or an error status is returned like any other.

    Raises OSError or http.client.HTTPException if there is no answer.
    """
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_certificates()),
    ):
        director.add_handler(handler)
    reply: Reply = director.open(request, timeout=timeout)
    return reply


def _certificates() -> Any:
    """The system's certificate authorities; certifi's where the system has none and certifi is installed."""
    import ssl

    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not context.get_ca_certs() and not (paths.capath and any(os.scandir(paths.capath))):
        try:
            import certifi
        except ImportError:
            return context
        context.load_verify_locations(certifi.where())
    return context


def _one(job: _Job, folder: Path, wait: float) -> None:
    """Make folder/NAME exist and be right."""
    file, final = job.file, folder / job.file.name
    if not file.name or PurePosixPath(file.name).name != file.name or "\\" in file.name or file.name == "..":
        raise InputError(f"{file.name!r} is not a plain file name")
    if not (file.sha256 or file.sha384 or file.sha256_prefix):
        hint = f": download {file.url} into {folder} yourself" if file.url else ""
        raise InputError(f"{file.name}: no checksum is known, so it cannot be fetched safely{hint}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f".{file.name}.lock", wait):
            if final.exists() and _right(final, file):
                job.progress(file.name, final.stat().st_size, final.stat().st_size)
                return
            part = folder / f"{file.name}.part"
            _complete(job, part)
            os.replace(part, final)
    except OSError as error:  # network errors do not come this far: the disk's are left
        raise FetchError(f"{final}: cannot be written: {error.strerror or error}") from None


def _right(path: Path, file: OfficialFile) -> bool:
    try:
        check(path, file)
    except FetchError:
        return False
    return True


def _complete(job: _Job, part: Path) -> None:
    """Make the .part file whole and check it; a wrong one is removed."""
    if job.file.url is None:
        raise FetchError(f"{job.file.name}: no address is known; put the file into {part.parent} by hand")
    if not part.exists() or part.stat().st_size != job.file.bytes:
        _download(job, job.file.url, part)
    try:
        check(part, job.file)
    except FetchError as error:
        part.unlink()
        raise FetchError(f"{job.file.url}: {error}; the download was removed") from None


def _download(job: _Job, url: str, part: Path) -> None:
    """Append to the .part file what it lacks, or write it anew where the server cannot resume."""
    with appended_file(part) as out:
        have = out.tell() if out.tell() <= job.most else 0
        reply = _request(url, have, job)
        if reply.status == 416 or (reply.status == 206 and _start(reply) != have):
            reply.close()
            have = 0
            reply = _request(url, 0, job)
        try:
            if reply.status == 200:
                have = 0
            elif reply.status != 206:
                reason = http.client.responses.get(reply.status, "")
                raise FetchError(f"{url}: the server answered {reply.status} {reason}")
            total = _total(url, reply, have, job.file.bytes)
            if total is not None and total > job.most:
                raise FetchError(f"{url}: has {total} bytes, more than {job.most}")
            if total is not None and (free := shutil.disk_usage(part.parent).free) < total - have:
                raise FetchError(f"{part.parent}: {total - have} more bytes are needed, {free} are free")
            out.truncate(have)
            _receive(job, url, reply, out, have, total)
        finally:
            reply.close()
        out.flush()
        os.fsync(out.fileno())


def _receive(job: _Job, url: str, reply: Reply, out: IO[bytes], have: int, total: int | None) -> None:
    """Write the reply's bytes, never more than `job.most` in all."""
    again = "run the same command again to resume"
    told = 0.0
    while True:
        try:
            block = reply.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(f"{url}: broke off after {have} bytes ({_why(error)}); {again}") from None
        if not block:
            break
        have += len(block)
        if have > job.most:
            out.truncate(0)
            raise FetchError(f"{url}: is longer than the {job.most} bytes expected; the download was removed")
        out.write(block)
        now = time.monotonic()
        if now - told > 0.25:
            job.progress(job.file.name, have, total)
            told = now
        if job.end is not None and now > job.end:
            raise FetchError(f"{url}: the time limit was over after {have} bytes; {again}")
    if total is not None and have < total:
        raise FetchError(f"{url}: broke off after {have} of {total} bytes; {again}")
    job.progress(job.file.name, have, total)


def _request(url: str, start: int, job: _Job) -> Reply:
    """The reply to a GET from byte `start`; redirects are followed, over http and https only."""
    seen = url
    for _ in range(REDIRECTS + 1):
        if urlsplit(seen).scheme not in ("http", "https") or not urlsplit(seen).netloc:
            raise FetchError(f"{url}: leads to {seen!r}; only http and https are allowed")
        if urlsplit(url).scheme == "https" and urlsplit(seen).scheme != "https":
            raise FetchError(f"{url}: leads from https to {seen!r}")
        headers = {"User-Agent": "refnet", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            reply = job.opener(urllib.request.Request(seen, headers=headers), job.timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchError(f"{seen}: cannot be reached: {_why(error)}") from None
        if reply.status not in (301, 302, 303, 307, 308):
            return reply
        place = reply.headers.get("Location")
        reply.close()
        if not place:
            raise FetchError(f"{seen}: redirects to nowhere")
        seen = urljoin(seen, place)
    raise FetchError(f"{url}: more than {REDIRECTS} redirects")


def _start(reply: Reply) -> int | None:
    """First byte of a 206's Content-Range (`bytes 100-199/200`), None if it is not understood."""
    unit, _, rest = (reply.headers.get("Content-Range") or "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() and len(first) < 20 else None


def _total(url: str, reply: Reply, have: int, known: int | None) -> int | None:
    """The whole file's size: what is known, compared with what the server says."""
    if (reply.headers.get("Content-Encoding") or "identity") != "identity":
        raise FetchError(f"{url}: the server encodes the content, which was not asked for")
    length = reply.headers.get("Content-Length") or ""
    said = have + int(length) if length.isdecimal() and len(length) < 20 else None
    if known is not None and said is not None and said != known:
        raise FetchError(f"{url}: has {said} bytes on the server, expected {known}")
    return said if known is None else known


def _why(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__


@contextmanager
def _locked(path: Path, wait: float) -> Iterator[None]:
    """Hold a lock between processes; the empty lock file stays. Without fcntl there is none."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    end = time.monotonic() + wait
    with appended_file(path) as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise FetchError(
                        f"{path.parent}: another process is fetching {path.name[1:-5]}"
                    ) from None
                time.sleep(0.05)
        yield


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
