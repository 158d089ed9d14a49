"""Running the readable part (core, ops, loops) alone: without kernels and exact, and without a compiler."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import refnet
from refnet.arithmetic.plain import Plain
from refnet.arithmetic.replay import Replay
from refnet.formats.book import read
from refnet.models.synthetic import normal

ROOT = Path(refnet.__file__).parents[1]
BOOKS = ROOT / "weights" / "books"
NETWORKS = ("resnest-digits", "octave-se-resnet-digits")

WITHOUT_KERNELS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[:2] in (["refnet", "kernels"], ["refnet", "exact"]):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Absent())
"""
"""Makes refnet.kernels and refnet.exact unimportable."""

EVERY_VALUE = """
import hashlib
import numpy as np
import refnet
from refnet.arithmetic.replay import Replay
from refnet.formats.book import read

name, book, data, *words = sys.argv[1:]
graph, x = refnet.load(name), {"data": np.load(data)}
for word in words:
    plain = refnet.Plain(kernels="reference")
    arithmetic = plain if word == "plain" else Replay(read(book), kernels="reference")
    for node, value in refnet.steps(graph, x, arithmetic):
        print(word, node.name, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest())
"""


def python(script: str, *arguments: str, **environment: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def data_of(name: str) -> np.ndarray:
    """An input of the batch that the network's book is of."""
    batch = read(BOOKS / f"{name}.json").reference.batch
    return normal(1, "data", (batch, *refnet.load(name).inputs["data"].shape[1:]))


def values_by_loops(name: str, folder: Path, words: Sequence[str], **environment: str) -> list[list[str]]:
    """(arithmetic, value, sha256) of every value; words: plain, replay."""
    np.save(folder / "data.npy", data_of(name))
    files = str(BOOKS / f"{name}.json"), str(folder / "data.npy")
    printed = python(WITHOUT_KERNELS + EVERY_VALUE, name, *files, *words, **environment)
    return [line.split() for line in printed.splitlines()]


def values_by_kernels(name: str, words: Sequence[str]) -> list[list[str]]:
    """The same by the fast engine, in this process."""
    graph, x = refnet.load(name), {"data": data_of(name)}
    found = []
    for word in words:
        arithmetic = Plain() if word == "plain" else Replay(read(BOOKS / f"{name}.json"))
        for node, value in refnet.steps(graph, x, arithmetic):
            found.append([word, node.name, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()])
    return found
