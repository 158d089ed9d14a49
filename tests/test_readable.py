"""The readable part (core, ops, loops) stands alone: it runs without the kernels, and without a compiler."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.models.weights import shipped_folder
from refnet.verification.capture import open_capture

NETWORKS = ("octave-se-resnet-digits", "resnest-digits")
ROOT = Path(refnet.__file__).parents[1]

WITHOUT_KERNELS = '''
import sys

class Absent:
    """What makes two packages unimportable."""

    def find_spec(self, name, path=None, target=None):
        if name.startswith(("refnet.kernels", "refnet.exact")):
            raise ImportError(f"{name} is left out here")

sys.meta_path.insert(0, Absent())
'''

EVERY_VALUE = """
import hashlib, sys
import numpy as np
import refnet
from refnet.formats.book import read_book

network, data, book = sys.argv[1:]
graph, x = refnet.load(network), np.load(data)
arithmetics = [refnet.Plain(kernels="reference"), refnet.Replay(read_book(book), kernels="reference")]
for arithmetic in arithmetics:
    for node, value in refnet.steps(graph, {"data": x}, arithmetic):
        print(arithmetic.name, node.name, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest())
assert not [name for name in sys.modules if name.startswith(("refnet.kernels.", "refnet.exact."))]
"""


def run(script: str, *arguments: str, **environment: str) -> list[tuple[str, str, str]]:
    """(arithmetic, value, sha256) of every value, as a process of its own prints them."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == 0, done.stderr
    return [tuple(line.split()) for line in done.stdout.splitlines()]


def expected(network: str, data: np.ndarray) -> list[tuple[str, str, str]]:
    """The same of the fast engine, in this process."""
    book = refnet.read_book(shipped_folder() / "books" / f"{network}.json")
    graph = refnet.load(network)
    return [
        (arithmetic.name, node.name, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest())
        for arithmetic in (refnet.Plain(kernels="fast"), refnet.Replay(book, kernels="fast"))
        for node, value in refnet.steps(graph, {"data": data}, arithmetic)
    ]


@pytest.fixture(params=NETWORKS)
def case(request, tmp_path):
    """A network, its shipped capture's input as a file, and its book."""
    capture = open_capture(shipped_folder() / "captures" / request.param)
    data = capture.input("data")
    np.save(tmp_path / "data.npy", data)
    book = shipped_folder() / "books" / f"{request.param}.json"
    return request.param, data, (str(tmp_path / "data.npy"), str(book))


def test_every_value_without_kernels_and_exact(case):
    network, data, files = case
    assert run(WITHOUT_KERNELS + EVERY_VALUE, network, *files) == expected(network, data)


def test_every_value_without_a_compiler(case):
    """In pure Python and NumPy, where a debugger can step into every loop."""
    network, data, files = case
    found = run(WITHOUT_KERNELS + EVERY_VALUE, network, *files, NUMBA_DISABLE_JIT="1")
    assert found == expected(network, data)
