"""Fetch official files over the network: progress, resume, checksum.

fetch ── lock ── _complete ── _download ── _request    NAME.part grows, and resumes where it ended
                     └── check ── os.replace           NAME appears only whole and checked
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

from refnet.core.errors import FetchError, InputError
from refnet.formats.write import appended_file
from refnet.models.weights import weights_folder

if TYPE_CHECKING:
    from refnet.models.catalog import Entry, OfficialFile

LARGEST = 1 << 32
"""Bytes: the longest file that is downloaded where its size is not known."""
REDIRECTS = 5
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
