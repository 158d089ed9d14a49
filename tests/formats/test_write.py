"""Files are written whole or not at all: killed, on a full disk, through a link, by two processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refnet.core.errors import InputError
from refnet.formats.npy import writing
from refnet.formats.write import appended_file, fresh_file, whole_file

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="no links, no pipes, no signals")
KEPT = b"as it was"


def write(path, data=b"new"):
    with whole_file(path) as stream:
        stream.write(data)


def test_a_file_that_breaks_off_leaves_the_old_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(KEPT)

    def breaks_off():
        with whole_file(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaks_off()
    assert path.read_bytes() == KEPT
    assert os.listdir(tmp_path) == ["a"]
    write(path)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_the_error_of_another_file_is_not_taken_for_this_ones(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a"):
        (tmp_path / "b").read_bytes()
    assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match=r"cannot write .*no/a: No such file"):
        write(tmp_path / "no" / "a")
    with pytest.raises(InputError, match="embedded null"):
        write("a\0b")


@POSIX
def test_a_link_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(KEPT)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, target in (("link", outside), ("dangling", tmp_path / "none"), ("loop", folder / "loop")):
        (folder / name).symlink_to(target)
        write(folder / name)
        assert not (folder / name).is_symlink()
        assert (folder / name).read_bytes() == b"new"
    assert outside.read_bytes() == KEPT
    assert not (tmp_path / "none").exists()


@POSIX
def test_what_is_no_file_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to(os.devnull)
    for name in ("pipe", "folder", "device"):
        with pytest.raises(InputError, match="it is there already, and no file that could be replaced"):
            write(tmp_path / name)
    assert Path(os.devnull).is_char_device()


@POSIX
def test_no_temporary_name_can_be_prepared(tmp_path, monkeypatch):
    """Even if somebody knew it: what is there is neither followed nor overwritten."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    outside = tmp_path / "outside"
    outside.write_bytes(KEPT)
    (tmp_path / ".refnet-known.part").symlink_to(outside)
    with pytest.raises(InputError, match="File exists"):
        write(tmp_path / "a")
    assert outside.read_bytes() == KEPT


def test_two_processes_of_one_number_write_into_one_folder(tmp_path, monkeypatch):
    """Two containers: their processes have the same number. Each file has the rows of its own writer."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with writing(tmp_path / "a.npy", (2, 1)) as first, writing(tmp_path / "b.npy", (2, 1)) as second:
        for row in (0, 1):
            first(np.float32([[row]]))
            second(np.float32([[10 + row]]))
    assert np.load(tmp_path / "a.npy").ravel().tolist() == [0, 1]
    assert np.load(tmp_path / "b.npy").ravel().tolist() == [10, 11]


@POSIX
def test_what_is_appended_to_is_a_file_of_this_name_alone(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(KEPT)
    (tmp_path / "link").symlink_to(outside)
    os.link(outside, tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "hard", "pipe"):
        with pytest.raises(OSError, match=r"levels of symbolic|other names|not a regular file"):
            appended_file(tmp_path / name)
        with pytest.raises(FileExistsError):
            fresh_file(tmp_path / name)
    assert outside.read_bytes() == KEPT
    for text in (b"a", b"b"):
        with appended_file(tmp_path / "log") as file:
            file.write(text)
    assert (tmp_path / "log").read_bytes() == b"ab"


WRITERS = {
    "book": "import refnet; from refnet.formats import book;"
    "from refnet.models.weights import shipped_captures;"
    "b = refnet.read_book(shipped_captures()[0][1]); write = lambda: book.write(path, b)",
    "golden": "from refnet.formats import golden_file; from refnet.models.weights import shipped_folder;"
    "g = golden_file.read(shipped_folder() / 'golden' / 'resnest-digits.json');"
    "write = lambda: golden_file.write(path, g)",
    "npy": "from refnet.formats.npy import writing; import numpy as np\n"
    "def write():\n"
    "    with writing(path, (200, 1000)) as append:\n"
    "        for _ in range(200): append(np.ones((1, 1000), np.float32))",
    "params": "from refnet.formats.mxnet.reader import write_params as w; import numpy as np;"
    "write = lambda: w(path, {'a': np.ones(100000, np.float32)}, set())",
    "html": "import refnet; from refnet.report.html import write as w;"
    "from tests.helpers.made_verification import verification;"
    "v = verification(refnet.load('resnest-digits')); write = lambda: w(path, v)",
    "prove": "from refnet.prove.prove import _State; from pathlib import Path;"
    "s = _State('exp', Path(path)); write = lambda: s.save()",
}
"""What writes files: code that defines `write`, which writes `path` once."""

KILLED = """
import os, signal, sys
path, at = sys.argv[1], int(sys.argv[2])
{writer}
def trace(event, arguments, seen=[0]):
    if armed and event in ("os.rename", "open") and str(arguments[0]).startswith(os.path.dirname(path)):
        seen[0] += 1
        if seen[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
armed = False
sys.addaudithook(trace)
armed = True
write()
armed = False
print("done")
"""


@POSIX
@pytest.mark.parametrize("name", ["npy", "params"])
def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path, name):
    """Before a file is opened, and before it is renamed. A slice of `python -m tests.formats.test_write`."""
    killed(tmp_path, name)


def killed(folder: Path, name: str) -> int:
    """Kill a writer at each file that it opens or renames; how often it was killed."""
    path = folder / "target"
    for at in range(1, 50):
        path.write_bytes(KEPT)
        command = [sys.executable, "-c", KILLED.format(writer=WRITERS[name]), str(path), str(at)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            assert path.read_bytes() != KEPT
            assert at > 1, "it neither opens nor renames"
            return at - 1
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert path.read_bytes() == KEPT
        left = [one for one in os.listdir(folder) if one != "target"]
        assert all(one.startswith(".refnet-") and one.endswith(".part") for one in left)
    raise AssertionError("it opens ever more files")


FULL = """
import resource, signal, sys
path = sys.argv[1]
{writer}
from refnet.core.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    write()
except InputError as error:
    print(error)
"""


def full(folder: Path, name: str) -> None:
    """A writer on a full disk: the old file stays, and nothing else."""
    path = folder / "target"
    path.write_bytes(KEPT)
    command = [sys.executable, "-c", FULL.format(writer=WRITERS[name]), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert path.read_bytes() == KEPT
    assert os.listdir(folder) == ["target"]


@POSIX
@pytest.mark.parametrize("name", ["npy", "params"])
def test_a_full_disk_leaves_the_old_file(tmp_path, name):
    full(tmp_path, name)


if __name__ == "__main__":
    import tempfile

    for one in WRITERS:
        with tempfile.TemporaryDirectory() as place:
            times = killed(Path(place), one)
        with tempfile.TemporaryDirectory() as place:
            full(Path(place), one)
        print(f"{one}: killed {times} times, and on a full disk")
