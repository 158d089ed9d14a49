"""Numba's cache as refnet uses it: processes that compile the same kernel at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numba
import pytest

from refnet.kernels.pointwise import _sigmoid
from refnet.loops import claims, jit
from refnet.loops import numba_cache as cached


def test_kernels_are_kept_so():
    assert isinstance(_sigmoid._cache, cached.Cache)
    assert _sigmoid._cache.cache_path == str(jit.cache_folder())


def test_a_kernel_without_a_file_is_not_kept():
    """Of what was typed in, nobody can tell whether it is the same another time."""
    kernel = jit.njit(eval("lambda a: a + 1"))
    assert not isinstance(kernel._cache, cached.Cache)
    assert kernel(1) == 2


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


LOADED = """
import sys
import numpy as np
from refnet.kernels import chunks, stream
from refnet.loops.parts import Kernel
from refnet.ops import Relu
total = np.zeros(1, np.int64)
stream.sums(chunks.alone(1), np.full((1, 4), 3), total)
found = [one for module in list(sys.modules.values()) for one in vars(module).values()]
kernels = {id(one): vars(one) for one in found if type(one) is Kernel}.values()
print(total[0], sum("part" in one for one in kernels), sum("dispatcher" in one for one in kernels))
print("numba.np.arrayobj" in sys.modules, "refnet.ops.trigonometry" in sys.modules)
"""


@pytest.mark.skipif(not jit.known(numba.__version__), reason="this Numba's files are its own")
def test_a_kernel_that_is_loaded_needs_nothing_else(tmp_path):
    environment = {**os.environ, "REFNET_CACHE": str(tmp_path), "REFNET_QUIET": "1"}
    call = [sys.executable, "-c", LOADED]
    for _ in range(2):
        said = subprocess.run(call, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["12 0 1", "False False"]
