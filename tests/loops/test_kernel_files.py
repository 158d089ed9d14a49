"""The folder of compiled kernels: whose it may be, what becomes of damage, where it is without a home."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from refnet.loops import kernel_files
from refnet.loops.kernel_files import distrust, load, save
from tests.helpers.damaged_kernels import attack

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="users have no numbers")
pytestmark = POSIX
NOBODY = 65534


@pytest.fixture
def folder():
    """A folder of this user that others may read, in the sticky /tmp."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def as_another():
    """As another user than the owner of what this process has made, where it can be: as root."""
    if os.geteuid():
        pytest.skip("only root can be another user")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_is_saved_is_loaded(folder):
    save(folder, "a.kernel", b"code")
    assert load(folder, "a.kernel") == b"code"
    assert load(folder, "b.kernel") is None
    assert os.listdir(folder) == ["a.kernel"]
    assert stat.S_IMODE((folder / "a.kernel").stat().st_mode) & 0o022 == 0
    save(folder, "a.kernel", b"other code")
    assert load(folder, "a.kernel") == b"other code"
    save(folder, "c.kernel", b"")
    assert load(folder, "c.kernel") == b""


def test_no_damaged_byte_is_loaded(folder):
    save(folder, "a.kernel", b"some code")
    whole = (folder / "a.kernel").read_bytes()
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :]):
            (folder / "a.kernel").write_bytes(data)
            assert load(folder, "a.kernel") is None
    (folder / "b.kernel").write_bytes(whole)  # a sound file of another kernel
    assert load(folder, "b.kernel") is None


def test_a_file_from_the_folder_of_another_key_is_not_loaded(folder):
    """What it calls may be other code, though its own name is the same."""
    own, other = folder / "key", folder / "another"
    for place in (own, other):
        place.mkdir(mode=0o755)
    save(own, "k", b"code")
    (other / "k").write_bytes((own / "k").read_bytes())
    assert load(own, "k") == b"code"
    assert load(other, "k") is None


def test_files_of_others_and_no_files_are_not_loaded(folder):
    save(folder, "a.kernel", b"code")
    (folder / "link.kernel").symlink_to("a.kernel")
    os.mkfifo(folder / "pipe.kernel")
    (folder / "folder.kernel").mkdir()
    for name in ("link", "pipe", "folder"):
        assert load(folder, f"{name}.kernel") is None
    (folder / "a.kernel").chmod(0o664)
    assert load(folder, "a.kernel") is None
    (folder / "a.kernel").chmod(0o644)
    assert load(folder, "a.kernel") == b"code"
    if os.geteuid() == 0:
        os.chown(folder / "a.kernel", NOBODY, NOBODY)
        assert load(folder, "a.kernel") is None


def test_two_saves_of_one_kernel_at_once(folder, monkeypatch):
    """However far the other one is: a whole file is there, and no other."""
    replace = os.replace

    def during(source, target):
        monkeypatch.setattr(os, "replace", replace)
        save(folder, "a.kernel", b"second")
        assert load(folder, "a.kernel") == b"second"
        replace(source, target)

    monkeypatch.setattr(os, "replace", during)
    save(folder, "a.kernel", b"first")
    assert load(folder, "a.kernel") == b"first"
    assert os.listdir(folder) == ["a.kernel"]


def test_a_folder_that_cannot_be_written_is_read_only(folder):
    save(folder, "a.kernel", b"code")
    with as_another():  # a cache that root has filled
        assert distrust(folder) == ""
        assert load(folder, "a.kernel") == b"code"
        save(folder, "b.kernel", b"code")
        save(folder, "a.kernel", b"other")
        assert load(folder, "a.kernel") == b"code"
    assert os.listdir(folder) == ["a.kernel"]


def test_a_full_disk_leaves_nothing(folder):
    script = (
        "import resource, signal, sys; from pathlib import Path; from refnet.loops.kernel_files import save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "save(Path(sys.argv[1]), 'a.kernel', bytes(5000))"
    )
    subprocess.run([sys.executable, "-c", script, folder], check=True)
    assert os.listdir(folder) == []


def test_whose_folder_is_trusted(folder):
    inner = folder / "inner"
    inner.mkdir(mode=0o755)
    assert distrust(inner) == ""
    assert "others may write" in distrust(Path(tempfile.gettempdir()))  # sticky will do above, not here
    for place in (inner, folder):
        for mode in (0o775, 0o757):
            place.chmod(mode)
            assert f"others may write into {place}" in distrust(inner)
            place.chmod(0o755)
    link = folder / "link"
    link.symlink_to(inner)
    assert distrust(link) == ""  # its real path counts
    assert "no folder" in distrust(Path(__file__))
    assert "No such file" in distrust(folder / "none")
    if os.geteuid() == 0:
        for place in (inner, folder):
            os.chown(place, NOBODY, NOBODY)
            assert distrust(inner) == f"{place} belongs to another user ({NOBODY})"
            with as_another():
                assert distrust(inner) == ""
            os.chown(place, 0, 0)


WHERE = """
import os, sys
from refnet.loops.kernel_files import kernel_folder
for _ in range(2):
    found = kernel_folder("key")
print(found)
print(found is not None and os.stat(found.parent).st_mode & 0o777)
"""


def where(**environment: str) -> tuple[str, int, str]:
    """The folder of a process in such an environment, its parent's mode, and what was said."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "PYTHONPATH") if name in os.environ}
    command = [sys.executable, "-c", WHERE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept | environment)
    place, mode = done.stdout.split()
    return place, int(mode), done.stderr


def test_where_the_folder_is(folder):
    assert where(HOME=str(folder))[::2] == (f"{folder}/.cache/refnet/kernels/key", "")
    assert where(HOME=str(folder), XDG_CACHE_HOME=f"{folder}/x")[::2] == (
        f"{folder}/x/refnet/kernels/key",
        "",
    )
    assert where(HOME=str(folder), XDG_CACHE_HOME="x")[::2] == (f"{folder}/.cache/refnet/kernels/key", "")
    assert where(HOME="/none", REFNET_CACHE=f"{folder}/c")[::2] == (f"{folder}/c/key", "")


def refused(folder: Path) -> dict[str, tuple[dict[str, str], str]]:
    """Environments in which the folder cannot be used, each with what is said of it."""
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    (folder / "file").write_text("")
    (folder / "loop").symlink_to("loop")
    return {
        "no home": ({"HOME": "~nobody-at-all"}, "there is no home folder"),
        "written by all": ({"REFNET_CACHE": f"{folder}/open"}, "others may write"),
        "a file": ({"REFNET_CACHE": f"{folder}/file"}, "cannot be made"),
        "a loop": ({"REFNET_CACHE": f"{folder}/loop"}, "cannot be made"),
        "no such system": ({"REFNET_CACHE": "/proc/nope"}, "/proc/nope/key cannot be made"),
        "too long": ({"REFNET_CACHE": f"{folder}/{'x' * 300}"}, "File name too long"),
    }


@pytest.mark.parametrize(
    "which", ["no home", "written by all", "a file", "a loop", "no such system", "too long"]
)
def test_otherwise_it_is_a_private_one_and_said_once(folder, which):
    environment, words = refused(folder)[which]
    place, mode, said = where(**environment)
    assert place.startswith(f"{tempfile.gettempdir()}/refnet-kernels-")
    assert mode == 0o700
    assert said.startswith("refnet: compiled kernels are kept in a private folder until this process ends: ")
    assert words in said
    assert said.count("\n") == 1
    assert not Path(place).exists()  # it ends with the process


def test_nowhere_if_there_is_no_disk(folder):
    """No temporary folder either: kernels are compiled, and forgotten."""
    script = (
        "import tempfile\n"
        "def fails(**_): raise OSError('read-only')\n"
        "tempfile.mkdtemp = fails\n"
        "import numpy as np; from refnet.kernels.pointwise import relu\n"
        "print(relu(np.float32([-1, 2]), 1))"
    )
    environment = {**os.environ, "REFNET_CACHE": "/proc/nope", "REFNET_QUIET": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    assert done.stdout == "[0. 2.]\n"
    assert done.stderr.startswith("refnet: compiled kernels are kept nowhere: /proc/nope")
    assert os.listdir(folder) == []


def test_a_user_without_a_home_has_no_folder_named_after_it(monkeypatch):
    monkeypatch.delenv("REFNET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(
        os.path, "expanduser", lambda path: path
    )  # what it does without HOME and passwd entry
    assert kernel_files.root_folder() is None


def test_damaged_caches_are_compiled_again():
    """A quick slice of `python -m tests.helpers.damaged_kernels 200`."""
    came = attack(12, seed=1)
    assert came["compiled"] + came["loaded"] == 12
