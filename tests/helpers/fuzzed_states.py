"""Damages manifests, unfinished captures, books and structure files at random, and reads them.

    python -m tests.helpers.fuzzed_states 20000

Each must be read, or refused with a RefnetError; what an unfinished capture names must never lead outside.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import refnet
from refnet.core.errors import RefnetError
from refnet.formats import book, manifest
from refnet.formats.manifest import Origin
from refnet.formats.mxnet.names import rename_structural
from refnet.frameworks.capture.writer import CapturePlan, write
from refnet.models.weights import shipped_captures
from refnet.ops import Conv
from refnet.verification.capture import PROGRESS

STRANGE = ["", "/etc/passwd", "../outside", "a\0b", "a\ud800", "\u202e", "x" * 5000, "NaN", "-0", "conv1"]
NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, 10**400, True, None]


def changed(value: object, rng: random.Random) -> object:
    """The JSON value with one thing changed, somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        made = dict(value)
        key = rng.choice(list(made))
        match rng.randrange(12):
            case 0:
                del made[key]
            case 1:
                made[rng.choice(STRANGE)] = made.pop(key)
            case _:
                made[key] = changed(made[key], rng)
        return made
    if isinstance(value, list) and value and rng.random() < 0.9:
        made = list(value)
        at = rng.randrange(len(made))
        match rng.randrange(12):
            case 0:
                del made[at]
            case 1:
                made.insert(at, made[at])
            case 2:
                rng.shuffle(made)
            case _:
                made[at] = changed(made[at], rng)
        return made
    return rng.choice([*STRANGE, *NUMBERS, [], {}, [value], {"name": value}, [[[[]]]], "0" * 64])


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some damage, or as JSON with something changed."""
    if rng.random() < 0.6:
        lines = data.split(b"\n") if data.count(b"\n{") else [data]
        at = rng.randrange(len(lines))
        try:
            value = json.loads(lines[at])
            for _ in range(rng.choice((1, 1, 2, 5))):
                value = changed(value, rng)
            lines[at] = json.dumps(value).encode()
        except ValueError:
            pass
        return b"\n".join(lines)
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 10))):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(4):
            case 0:
                del made[at:]
            case 1:
                made[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 2:
                del made[at : at + rng.randrange(1, 40)]
            case _:
                made[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(made)


def plan() -> CapturePlan:
    """A capture of three values."""
    values = [(f"v/{i}", np.full((1, 2), i, np.float32)) for i in range(3)]
    return CapturePlan(
        Origin("by hand"), {"x": np.float32([[1, 2]])}, lambda: iter(values), lambda: {"y": "v/2"}
    )


def unfinished(folder: Path) -> bytes:
    """The progress file of a capture that was stopped at its third value."""
    stopped = plan()
    two = CapturePlan(stopped.reference, stopped.inputs, lambda: _stops(stopped.values()), stopped.outputs)
    try:
        write(folder, two)
    except KeyboardInterrupt:
        return (folder / PROGRESS).read_bytes()
    raise AssertionError("it was not stopped")


def _stops(values):
    yield next(values)
    yield next(values)
    raise KeyboardInterrupt


def targets(folder: Path) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """What is damaged: kind -> a sound file, and what reads it."""
    captured, shipped = shipped_captures()[-1]
    capture = folder / "capture"
    progress = unfinished(capture)

    def go_on(data: bytes) -> object:
        (capture / PROGRESS).write_bytes(data)
        (capture / "manifest.json").unlink(missing_ok=True)
        return write(capture, plan())

    arrays = {
        "features.0.weight": np.ones((2, 1, 3, 3), np.float32),
        "features.0.bias": np.ones(2, np.float32),
    }
    structure = {
        "features.0.weight": {"name": "conv_weight", "shape": [2, 1, 3, 3]},
        "features.0.bias": {"name": "conv_bias", "shape": [2]},
    }
    graph = refnet.Graph(
        "g",
        {"data": refnet.TensorType((1, 1, 8, 8))},
        (refnet.Node("conv", Conv(2, (3, 3), bias=True), ("data", "conv_weight", "conv_bias")),),
        {"out": "conv"},
    )

    def structured(data: bytes) -> object:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return None  # `load` refuses those, test_attacks.py
        return rename_structural(arrays, graph, found) if isinstance(found, dict) else None

    return {
        "manifest": ((captured / "manifest.json").read_bytes(), lambda data: manifest.loads(data, "m")),
        "partial": (shipped.read_bytes(), lambda data: book.loads(data, "b.partial")),
        "progress": (progress, go_on),
        "structure": (json.dumps(structure).encode(), structured),
    }


def attack(count: int, seed: int = 0) -> Counter[str]:
    """So many damaged files, of each kind in turn; how many were read and refused."""
    rng, came, longest = random.Random(seed), Counter(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "outside").write_bytes(b"as it was")
        known = targets(folder)
        kinds = list(known)
        for i in range(count):
            kind = kinds[i % len(kinds)]
            sound, read = known[kind]
            data = damaged(sound, rng)
            try:
                read(data)
                came[f"{kind} read"] += 1
            except RefnetError as error:
                came[f"{kind} refused"] += 1
                longest = max(longest, len(str(error)))
            except Exception:
                print(f"seed {seed}, file {i}, {kind}: {data[:2000]!r}")
                raise
            assert set(os.listdir(folder)) == {"capture", "outside"}
        assert (folder / "outside").read_bytes() == b"as it was"
    assert longest < 5000, "a message quotes a file"
    return came


if __name__ == "__main__":
    print(dict(attack(int(sys.argv[1]))))
