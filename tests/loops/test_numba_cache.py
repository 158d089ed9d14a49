"""Numba's cache as refnet uses it: processes that compile the same kernel at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numba
import pytest

from refnet.kernels.pointwise import _sigmoid
from refnet.loops import claims, jit
from refnet.loops import numba_cache as cached

STEPS = ("_load_index", "_save_index", "_save_data")


def files(folder):
    return cached.Files(str(folder), "kernel-1", "stamp")


class Paced:
    """Two caches whose saves take turns in a given order: each step waits until it is its turn."""

    def __init__(self, folder, order):
        self.order, self.at = list(order), 0
        self.both = [files(folder), files(folder)]
        for who, file in enumerate(self.both):
            for step in STEPS:
                setattr(file, step, self._paced(who, getattr(file, step)))

    def _paced(self, who, step):
        def call(*arguments):
            until = time.monotonic() + 10
            while self.at < len(self.order) and self.order[self.at] != who:
                assert time.monotonic() < until, "a save has fewer steps than it was given turns"
                time.sleep(0)
            try:
                return step(*arguments)
            finally:
                self.at += 1

        return call


@pytest.mark.parametrize("order", sorted(set(permutations([0, 0, 0, 1, 1, 1]))))
def test_two_processes_save_what_each_compiled(tmp_path, order):
    """However their steps fall: what is found under a key is what was saved under it."""
    paced = Paced(tmp_path, order)
    with ThreadPoolExecutor(2) as pool:
        saves = [pool.submit(file.save, f"types {i}", f"code {i}") for i, file in enumerate(paced.both)]
        for save in saves:
            save.result(10)
    found = [files(tmp_path).load(f"types {i}") for i in range(2)]
    assert all(code in (None, f"code {i}") for i, code in enumerate(found))
    assert any(found)


def test_kernels_are_kept_so():
    known = jit.known(numba.__version__)  # another Numba keeps its own cache
    assert isinstance(_sigmoid._cache, cached.Cache) == known
    assert isinstance(_sigmoid._cache._cache_file, cached.Files) == known


CLAIM = """
import sys
from refnet.loops.claims import Claims
claims = Claims(sys.argv[1])
assert claims.take("kernel")
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """A process that has claimed "kernel" in tmp_path, until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path)], **pipes) as process:
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no claims")
def test_a_claim_is_waited_for_and_ends_with_its_process(tmp_path, other):
    own = claims.Claims(str(tmp_path))
    assert own.take("another kernel")
    begin = time.monotonic()
    threading.Timer(0.3, other.kill).start()
    assert own.take("kernel")
    assert time.monotonic() - begin > 0.2
    own.release("kernel")
    own.release("another kernel")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no claims")
def test_a_claim_is_not_waited_for_without_end(tmp_path, other, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE", 0.2)
    assert not claims.Claims(str(tmp_path)).take("kernel")


def test_a_folder_that_cannot_be_written_has_no_claims(tmp_path):
    (tmp_path / "file").write_text("")
    none = claims.Claims(str(tmp_path / "file"))
    assert not none.take("kernel")
    none.release("kernel")


def test_a_constant_makes_no_version_of_its_own():
    """A kernel that another one calls with 1 and with 2 is compiled once."""
    outer = numba.njit(_called_with_constants)
    assert outer(5) == 5 + 1 + 5 + 2
    if jit.known(numba.__version__):
        assert [str(kinds) for kinds in _plus.part.overloads] == ["(int64, int64)"]


@jit.njit
def _plus(a, b):
    return a + b


def _called_with_constants(a):
    return _plus(a, 1) + _plus(a, 2)
