"""Fetching from a local server that breaks off, lies, dawdles and redirects; unpacking hostile archives."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import refnet
from refnet.core.errors import FetchError, FormatError, InputError, RefnetError
from refnet.formats.write import appended_file
from refnet.models import weights
from refnet.models.catalog import Entry, OfficialFile, entry
from refnet.models.fetch import check, fetch
from refnet.models.unpack import unpack
from refnet.models.weights import located, shipped_folder, weights_folder

CONTENT = bytes(i * i * 7 % 251 for i in range(700_000))
SHA256, SHA384 = hashlib.sha256(CONTENT).hexdigest(), hashlib.sha384(CONTENT).hexdigest()


@dataclass
class Server:
    """Answers each path with a function of the handler; keeps what was asked for."""

    url: str
    paths: dict[str, Callable[[BaseHTTPRequestHandler], None]]
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range")))
            with contextlib.suppress(ConnectionError):
                state.paths[self.path](self)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}", {"/good": ranges, "/plain": plain})
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.stop.set()
    http.shutdown()
    thread.join()
    http.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: object) -> None:
    """Answer; header names have _ for -. Content-Length is the body's unless given (None: absent)."""
    handler.send_response(status)
    for name, value in ({"Content_Length": len(body)} | headers).items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(body)


def plain(handler: BaseHTTPRequestHandler) -> None:
    send(handler, CONTENT)


def ranges(handler: BaseHTTPRequestHandler) -> None:
    asked = handler.headers.get("Range")
    if asked is None:
        return send(handler, CONTENT)
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(CONTENT):
        return send(handler, b"", 416, Content_Range=f"bytes */{len(CONTENT)}")
    return send(
        handler, CONTENT[start:], 206, Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    )


def network(*files: OfficialFile) -> Entry:
    return replace(entry("resnest-50-pytorch"), name="net", files=files)


def one(server: Server, path: str = "/good", **facts: Any) -> Entry:
    """An entry with one file: size and sha256 known unless said otherwise."""
    known: dict[str, Any] = {"bytes": len(CONTENT), "sha256": SHA256} | facts
    return network(OfficialFile("net.pth", server.url + path, **known))


def whole(folder: Path) -> bool:
    """The file is there, right, and alone with its lock."""
    names = sorted(path.name for path in folder.iterdir())
    return names == [".net.pth.lock", "net.pth"] and (folder / "net.pth").read_bytes() == CONTENT


# What goes well


def test_download(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    told: list[tuple[str, int, int | None]] = []
    assert located(one(server), folder) is None
    path = fetch(one(server), folder, lambda *t: told.append(t))
    assert path == folder / "net.pth"
    assert whole(folder)
    assert located(one(server), folder) == path
    assert told[-1] == ("net.pth", len(CONTENT), len(CONTENT))
    assert [t[1] for t in told] == sorted(t[1] for t in told)
    assert server.asked == [("/good", None)]


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(one(server), tmp_path)
    fetch(one(server), tmp_path)
    assert len(server.asked) == 1
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1] + b"?")
    fetch(one(server), tmp_path)
    assert len(server.asked) == 2
    assert whole(tmp_path)


def test_several_files(server: Server, tmp_path: Path) -> None:
    files = [OfficialFile(n, server.url + "/good", len(CONTENT), SHA256) for n in ("a", "b")]
    assert fetch(network(*files), tmp_path) == tmp_path / "a"
    assert located(network(*files), tmp_path) == tmp_path / "a"
    (tmp_path / "b").unlink()
    assert located(network(*files), tmp_path) is None


def test_size_need_not_be_known(server: Server, tmp_path: Path) -> None:
    server.paths["/endless"] = lambda h: send(h, CONTENT, Content_Length=None)
    fetch(one(server, bytes=None), tmp_path)
    (tmp_path / "net.pth").unlink()
    fetch(one(server, "/endless", bytes=None), tmp_path)
    assert whole(tmp_path)


def test_chunked_transfer(server: Server, tmp_path: Path) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (CONTENT[:1000], CONTENT[1000:]))
        send(handler, body + b"0\r\n\r\n", Content_Length=None, Transfer_Encoding="chunked")

    server.paths["/chunked"] = chunked
    fetch(one(server, "/chunked"), tmp_path)
    assert whole(tmp_path)


def test_located_compares_sizes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"short")
    assert located(one(server), tmp_path) is None
    assert located(one(server, bytes=None), tmp_path) == tmp_path / "net.pth"
    assert located(network(), tmp_path) is None


def test_weights_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server) -> None:
    monkeypatch.setenv("REFNET_WEIGHTS", str(tmp_path / "mine"))
    assert weights_folder() == tmp_path / "mine"
    assert fetch(one(server)) == tmp_path / "mine" / "net.pth" == located(one(server))
    monkeypatch.delenv("REFNET_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert weights_folder().name == "weights"
    assert weights_folder().parent.name == "refnet"
    if sys.platform == "linux":
        assert weights_folder() == tmp_path / "cache" / "refnet" / "weights"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert weights_folder() == tmp_path / "home" / ".cache" / "refnet" / "weights"
        assert not (tmp_path / "home").exists(), "the question where files are kept makes no folder"


def test_shipped_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = Path(refnet.__file__).parent
    assert shipped_folder() in (package / "_weights", package.parent / "weights")
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "refnet" / "models" / "weights.py"))
    with pytest.raises(InputError, match=r"missing: looked in .*_weights, .*weights"):
        shipped_folder()
    (tmp_path / "weights").mkdir()
    assert shipped_folder() == tmp_path / "weights"
    (tmp_path / "refnet" / "_weights").mkdir(parents=True)
    assert shipped_folder() == tmp_path / "refnet" / "_weights"


# Interruptions


def cut(at: int) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, CONTENT[:at], Content_Length=len(CONTENT))


@pytest.mark.parametrize("at", [0, 1, 300_000, len(CONTENT) - 1])
@pytest.mark.parametrize("then", ["/good", "/plain"])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_cut_and_resumed(server: Server, tmp_path: Path, at: int, then: str, size: int | None) -> None:
    server.paths["/cut"] = cut(at)
    with pytest.raises(
        FetchError, match=rf"broke off after {at} of 700000 bytes; run the same command again"
    ):
        fetch(one(server, "/cut", bytes=size), tmp_path)
    assert not (tmp_path / "net.pth").exists()
    assert (tmp_path / "net.pth.part").stat().st_size == at
    told: list[int] = []
    fetch(one(server, then, bytes=size), tmp_path, lambda _name, done, _total: told.append(done))
    assert whole(tmp_path)
    assert server.asked[1:] == [(then, f"bytes={at}-" if at else None)]
    assert told[-1] == len(CONTENT)


def test_cut_chunked_transfer(server: Server, tmp_path: Path) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        send(
            handler,
            b"400\r\n" + CONTENT[:1024] + b"\r\n400\r\nxy",
            Content_Length=None,
            Transfer_Encoding="chunked",
        )

    server.paths["/chunked"] = chunked
    with pytest.raises(FetchError, match=r"broke off after 10\d\d"):
        fetch(one(server, "/chunked"), tmp_path)


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_part_is_whole_already(server: Server, tmp_path: Path, size: int | None) -> None:
    (tmp_path / "net.pth.part").write_bytes(CONTENT)
    fetch(one(server, bytes=size), tmp_path)
    assert whole(tmp_path)
    assert server.asked == ([] if size else [("/good", "bytes=700000-"), ("/good", None)])


def test_part_is_too_long(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.pth.part").write_bytes(CONTENT + b"more")
    fetch(one(server), tmp_path)
    assert whole(tmp_path)
    assert server.asked == [("/good", None)]


def test_part_of_something_else(server: Server, tmp_path: Path) -> None:
    for stale in (b"?" * 1000, b"?" * len(CONTENT)):
        (tmp_path / "net.pth.part").write_bytes(stale)
        with pytest.raises(FetchError, match="wrong sha256"):
            fetch(one(server), tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == [".net.pth.lock"]
    fetch(one(server), tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize("place", ["bytes 5-9/700000", "bytes x-9/10", "items 100-1/2", None])
def test_server_resumes_elsewhere(server: Server, tmp_path: Path, place: str | None) -> None:
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Range"):
            send(handler, CONTENT[5:], 206, Content_Range=place)
        else:
            send(handler, CONTENT)

    server.paths["/elsewhere"] = elsewhere
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:100])
    fetch(one(server, "/elsewhere"), tmp_path)
    assert whole(tmp_path)


def test_interrupted_by_the_user(server: Server, tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(one(server), tmp_path, stop)
    assert 0 < (tmp_path / "net.pth.part").stat().st_size < len(CONTENT)
    fetch(one(server), tmp_path)
    assert whole(tmp_path)
    assert server.asked[1][1] is not None


def test_two_processes_at_once(server: Server, tmp_path: Path) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)
        ranges(handler)

    server.paths["/slow"] = slow
    program = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from refnet.models.fetch import fetch; from refnet.models.catalog import OfficialFile, entry\n"
        "file = OfficialFile('net.pth', sys.argv[2], int(sys.argv[3]), sys.argv[4])\n"
        "print(fetch(replace(entry('resnest-50-pytorch'), files=(file,)), sys.argv[1]))"
    )
    arguments = [str(tmp_path), server.url + "/slow", str(len(CONTENT)), SHA256]
    command = [sys.executable, "-c", program, *arguments]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.decode().strip()) == (0, str(tmp_path / "net.pth")), err
    assert whole(tmp_path)
    assert len(server.asked) == 1


def test_waiting_for_another_process_ends(server: Server, tmp_path: Path) -> None:
    import fcntl

    with open(tmp_path / ".net.pth.lock", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match=r"another process is fetching net\.pth"):
            fetch(one(server), tmp_path, wait=0.1)
    assert server.asked == []


# Wrong content


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"sha256": SHA256[:-1] + "x"}, "sha256"),
        ({"sha256": None, "sha256_prefix": "0123abcd"}, "sha256"),
        ({"sha256": None, "sha384": "0" * 96}, "sha384"),
        ({"sha384": "0" * 96}, "sha384"),
    ],
)
def test_wrong_checksum(server: Server, tmp_path: Path, facts: dict[str, str], kind: str) -> None:
    expected = facts.get("sha384") or facts.get("sha256") or facts["sha256_prefix"]
    found = SHA384 if kind == "sha384" else SHA256
    with pytest.raises(FetchError, match=rf"wrong {kind}: expected {expected}, found {found}; the download"):
        fetch(one(server, **facts), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".net.pth.lock"]


@pytest.mark.parametrize(
    "facts",
    [{"sha384": SHA384}, {"sha256": None, "sha384": SHA384}, {"sha256": None, "sha256_prefix": SHA256[:8]}],
)
def test_right_checksums(server: Server, tmp_path: Path, facts: dict[str, str]) -> None:
    fetch(one(server, **facts), tmp_path)
    assert whole(tmp_path)


def test_check_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    check(path, OfficialFile("a", bytes=3, sha256=hashlib.sha256(b"abc").hexdigest().upper()))
    with pytest.raises(FetchError, match="wrong size: expected 4 bytes, found 3"):
        check(path, OfficialFile("a", bytes=4))
    with pytest.raises(FetchError, match="cannot be read: No such file"):
        check(tmp_path / "b", OfficialFile("b", sha256="00"))


def test_another_size_on_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="has 700000 bytes on the server, expected 699999"):
        fetch(one(server, bytes=len(CONTENT) - 1), tmp_path)
    assert not (tmp_path / "net.pth").exists()


def test_longer_than_known_stops(server: Server, tmp_path: Path) -> None:
    sent = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        send(handler, CONTENT, Content_Length=None)
        for _ in range(100):  # 70 MB and no more: a fetch that does not stop must not fill the disk
            handler.wfile.write(CONTENT)
            sent.append(1)

    server.paths["/endless"] = endless
    with pytest.raises(FetchError, match="longer than the 700000 bytes expected"):
        fetch(one(server, "/endless"), tmp_path)
    assert (tmp_path / "net.pth.part").stat().st_size == 0
    assert len(sent) < 100


def test_longer_than_the_largest(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refnet.models.fetch.LARGEST", 1000)
    with pytest.raises(FetchError, match="has 700000 bytes, more than 1000"):
        fetch(one(server, bytes=None), tmp_path)


def test_encoded_content_is_refused(server: Server, tmp_path: Path) -> None:
    server.paths["/gzip"] = lambda h: send(h, CONTENT, Content_Encoding="gzip")
    with pytest.raises(FetchError, match="encodes the content"):
        fetch(one(server, "/gzip"), tmp_path)


# Servers


@pytest.mark.parametrize("status", [404, 403, 500, 503, 204, 418])
def test_error_status(server: Server, tmp_path: Path, status: int) -> None:
    server.paths["/bad"] = lambda h: send(h, b"" if status == 204 else b"no", status)
    with pytest.raises(FetchError, match=rf"/bad: the server answered {status} "):
        fetch(one(server, "/bad"), tmp_path)
    assert not (tmp_path / "net.pth").exists()


def test_error_status_keeps_the_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:5])
    server.paths["/bad"] = lambda h: send(h, b"no", 503)
    with pytest.raises(FetchError, match="503"):
        fetch(one(server, "/bad"), tmp_path)
    assert (tmp_path / "net.pth.part").read_bytes() == CONTENT[:5]


def test_416_for_ever(server: Server, tmp_path: Path) -> None:
    server.paths["/416"] = lambda h: send(h, b"", 416)
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:5])
    with pytest.raises(FetchError, match="416"):
        fetch(one(server, "/416"), tmp_path)
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_keep_the_range(server: Server, tmp_path: Path, status: int) -> None:
    server.paths["/old"] = lambda h: send(h, b"", status, Location="/older")
    server.paths["/older"] = lambda h: send(h, b"", status, Location=server.url + "/good")
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:9])
    fetch(one(server, "/old"), tmp_path)
    assert whole(tmp_path)
    assert server.asked == [(path, "bytes=9-") for path in ("/old", "/older", "/good")]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,abc", "https:///a"])
def test_redirects_elsewhere_are_refused(server: Server, tmp_path: Path, place: str) -> None:
    server.paths["/old"] = lambda h: send(h, b"", 302, Location=place)
    with pytest.raises(FetchError, match="only http and https are allowed"):
        fetch(one(server, "/old"), tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "net.pth", "", "http://"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(FetchError, match="only http and https are allowed"):
        fetch(network(OfficialFile("a", url, sha256="00")), tmp_path)


def test_redirect_loop_and_redirect_to_nowhere(server: Server, tmp_path: Path) -> None:
    server.paths["/loop"] = lambda h: send(h, b"", 302, Location="/loop")
    server.paths["/nowhere"] = lambda h: send(h, b"", 302)
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetch(one(server, "/loop"), tmp_path)
    assert len(server.asked) == 6
    with pytest.raises(FetchError, match="redirects to nowhere"):
        fetch(one(server, "/nowhere"), tmp_path)


def test_https_is_not_left(tmp_path: Path) -> None:
    class Redirect:
        status, headers = 302, {"Location": "http://example.org/a"}

        def read1(self, n: int = -1, /) -> bytes:
            raise AssertionError(n)

        def close(self) -> None:
            pass

    asked: list[str] = []

    def opener(request: urllib.request.Request, timeout: float) -> Redirect:
        asked.append(request.full_url)
        assert timeout == 3
        return Redirect()

    with pytest.raises(FetchError, match="leads from https to 'http://example"):
        fetch(
            network(OfficialFile("a", "https://example.org/a", sha256="00")),
            tmp_path,
            timeout=3,
            opener=opener,
        )
    assert asked == ["https://example.org/a"]


def test_silent_server_times_out(server: Server, tmp_path: Path) -> None:
    server.paths["/silent"] = lambda _h: server.stop.wait(20) and None

    def stalls(handler: BaseHTTPRequestHandler) -> None:
        send(handler, CONTENT[:100], Content_Length=len(CONTENT))
        handler.wfile.flush()
        server.stop.wait(20)

    server.paths["/stalls"] = stalls
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"/silent: cannot be reached: timed out"):
        fetch(one(server, "/silent"), tmp_path, timeout=0.2)
    with pytest.raises(FetchError, match=r"broke off after 100 bytes \(timed out\); run"):
        fetch(one(server, "/stalls"), tmp_path, timeout=0.2)
    assert time.monotonic() - start < 5
    assert (tmp_path / "net.pth.part").read_bytes() == CONTENT[:100]


def test_slow_server_ends_at_the_limit(server: Server, tmp_path: Path) -> None:
    def drips(handler: BaseHTTPRequestHandler) -> None:
        send(handler, b"", Content_Length=len(CONTENT))
        for i in range(len(CONTENT)):
            handler.wfile.write(CONTENT[i : i + 1])
            if server.stop.wait(0.01):
                break

    server.paths["/drips"] = drips
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"the time limit was over after \d+ bytes; run"):
        fetch(one(server, "/drips"), tmp_path, limit=0.3)
    assert time.monotonic() - start < 5
    assert CONTENT.startswith((tmp_path / "net.pth.part").read_bytes())
    fetch(one(server, "/good"), tmp_path)
    assert whole(tmp_path)


def test_no_server(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        port = http.server_port
    with pytest.raises(FetchError, match=r"cannot be reached: .*refused"):
        fetch(network(OfficialFile("a", f"http://127.0.0.1:{port}/a", sha256="00")), tmp_path)


def test_nonsense_instead_of_http(server: Server, tmp_path: Path) -> None:
    def nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\0\1\2 nonsense\r\n\r\n")
        handler.close_connection = True

    server.paths["/nonsense"] = nonsense
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch(one(server, "/nonsense"), tmp_path)


# Disks


@pytest.mark.parametrize("folder", ["file/folder", "/proc/refnet-weights"])
def test_unusable_folder(server: Server, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FetchError, match=r"net\.pth: cannot be written"):
        fetch(one(server), tmp_path / folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(server: Server, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FetchError, match="cannot be written: Permission denied"):
        fetch(one(server), tmp_path)


def test_folder_under_the_final_name(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.pth").mkdir()
    with pytest.raises(FetchError, match="cannot be written"):
        fetch(one(server), tmp_path)


def test_too_little_space_is_seen_before(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(FetchError, match="700000 more bytes are needed, 1000 are free"):
        fetch(one(server), tmp_path)


def test_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 500_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def opened(path: Path) -> Any:
        return Full(path, "ab") if path.suffix == ".part" else appended_file(path)

    with monkeypatch.context() as patch:
        patch.setattr("refnet.models.fetch.appended_file", opened)
        with pytest.raises(FetchError, match=r"net\.pth: cannot be written: No space left on device"):
            fetch(one(server), tmp_path)
    assert not (tmp_path / "net.pth").exists()
    assert 0 < (tmp_path / "net.pth.part").stat().st_size <= 500_000
    fetch(one(server), tmp_path)
    assert whole(tmp_path)


def test_full_disk_by_the_kernel(server: Server, tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from dataclasses import replace\n"
        "from refnet.core.errors import FetchError; from refnet.models.fetch import fetch\n"
        "from refnet.models.catalog import OfficialFile, entry\n"
        "file = OfficialFile('net.pth', sys.argv[2], sha256='00')\n"
        "net = replace(entry('resnest-50-pytorch'), files=(file,))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000))\n"
        "try: fetch(net, sys.argv[1])\n"
        "except FetchError as error: print(error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path), server.url + "/good"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "net.pth: cannot be written: File too large" in done.stdout
    assert not (tmp_path / "net.pth").exists()


# Arguments


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "..", "", "a\\b", "."])
def test_names_with_folders_are_refused(server: Server, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a plain file name"):
        fetch(network(OfficialFile(name, server.url + "/good", sha256=SHA256)), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_fetch_or_to_check(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"net has no official file$"):
        fetch(network(), tmp_path)
    with pytest.raises(InputError, match="has no official file: it comes with refnet"):
        fetch(entry("resnest-digits"), tmp_path)
    with pytest.raises(InputError, match=r"net\.pth: no checksum is known"):
        fetch(one(server, sha256=None), tmp_path)
    with pytest.raises(FetchError, match=r"a: no address is known; put the file into .* by hand"):
        fetch(network(OfficialFile("a", sha256="00")), tmp_path)


# Unpacking


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def archive(*members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


GOOD = (
    (member("net", kind=tarfile.DIRTYPE), b""),
    (member("net/a.json", b"{}"), b"{}"),
    (member("./net/deep/er/b.params", CONTENT[:3000]), CONTENT[:3000]),
    (member("net/empty"), b""),
)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_unpack(tmp_path: Path, kind: int) -> None:
    path, folder = tmp_path / "a.tar", tmp_path / "to" / "here"
    path.write_bytes(archive(*GOOD, kind=kind))
    expected = [folder / "net/a.json", folder / "net/deep/er/b.params", folder / "net/empty"]
    assert unpack(path, folder) == expected
    assert [p.read_bytes() for p in expected] == [b"{}", CONTENT[:3000], b""]
    assert [p.name for p in folder.parent.iterdir()] == ["here"]
    with pytest.raises(InputError, match="exists already"):
        unpack(path, folder)


def test_unpack_into_an_empty_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(archive(*GOOD))
    (tmp_path / "to").mkdir()
    assert len(unpack(path, tmp_path / "to")) == 3


HOSTILE = {
    "absolute": member("/tmp/refnet-evil"),
    "parent": member("../evil"),
    "parent inside": member("net/../../evil"),
    "parent folder": member("..", kind=tarfile.DIRTYPE),
    "drive": member("C:evil"),
    "backslash": member("..\\evil"),
    "empty name": member("."),
    "symbolic link": member("net/link", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member("net/link", kind=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "character device": member("net/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": member("net/disk", kind=tarfile.BLKTYPE),
    "pipe": member("net/pipe", kind=tarfile.FIFOTYPE),
    "sparse": member("net/sparse", kind=tarfile.GNUTYPE_SPARSE),
    "twice": member("net/a.json"),
    "file under a file": member("net/a.json/b"),
    "folder over a file": member("net/a.json", kind=tarfile.DIRTYPE),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_members(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(archive(*GOOD, (HOSTILE[kind], b"")))
    with pytest.raises(FormatError, match="at byte 5632: found member"):
        unpack(path, tmp_path / "inside" / "to")
    assert list((tmp_path / "inside").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "inside"]


def test_too_much_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(archive(*GOOD))
    assert len(unpack(path, tmp_path / "a", limit=3002)) == 3
    with pytest.raises(FormatError, match="more than 3001 bytes"):
        unpack(path, tmp_path / "b", limit=3001)
    monkeypatch.setattr("refnet.models.unpack.MEMBERS", 3)
    with pytest.raises(FormatError, match="or 3 members"):
        unpack(path, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "size", [b"77777777777\0", b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, b"\xff" * 10 + b"\xfc\0"]
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_headers_that_claim_much(tmp_path: Path, size: bytes, kind: bytes) -> None:
    header = bytearray(member("a", b"", kind).tobuf())
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + b"x" * 512 + bytes(1024))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=r"a\.tar: at byte "):
            unpack(path, tmp_path / "to")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"hello", bytes(10240), b"\x1f\x8b" + bytes(600), b"PK\3\4" * 500])
def test_not_an_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.tar: at byte "):
        unpack(path, tmp_path / "to")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"]


def test_unpack_truncated(tmp_path: Path) -> None:
    content = archive(*GOOD)
    end = 5632  # where the last member ends: the rest is the end mark
    for cut in sorted({*range(0, end + 512, 97), *range(0, end + 1, 512)}):
        (tmp_path / "a.tar").write_bytes(content[:cut])
        with pytest.raises(FormatError):
            unpack(tmp_path / "a.tar", tmp_path / "to")
        assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_unpack_corrupted(tmp_path: Path, kind: int) -> None:
    long = (member("net/" + "long" * 40, b"xy"), b"xy")
    content = archive(*GOOD, long, kind=kind)[:8192]
    chance = random.Random(3)
    refused = 0
    for i in range(250):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            start = 512 * chance.randrange(len(content) // 512)
            damaged[start + chance.randrange(512)] = chance.randrange(256)
        (tmp_path / "a.tar").write_bytes(damaged)
        try:
            files = unpack(tmp_path / "a.tar", tmp_path / f"to-{i}")
            assert all(p.resolve().is_relative_to(tmp_path / f"to-{i}") for p in files)
        except RefnetError:
            refused += 1
    assert refused > 50
    assert all(p.name.startswith("to-") or p.name == "a.tar" for p in tmp_path.iterdir())


def test_unpack_unusable_paths(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive(*GOOD))
    (tmp_path / "file").write_bytes(b"")
    for path, words in ((tmp_path / "none.tar", "No such file"), (tmp_path, "is not a file")):
        with pytest.raises(InputError, match=words):
            unpack(path, tmp_path / "to")
    with pytest.raises(InputError, match="exists already"):
        unpack(tmp_path / "a.tar", tmp_path / "file")
    with pytest.raises(RefnetError, match="file"):
        unpack(tmp_path / "a.tar", tmp_path / "file" / "to")


def test_without_a_home_nothing_is_put_into_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REFNET_WEIGHTS", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("~", ".cache", name))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no home folder for fetched files"):
        weights.weights_folder()
    assert list(tmp_path.iterdir()) == []
