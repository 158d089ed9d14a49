"""Damages the files of compiled kernels at random, and sees what comes of it: right bits, or compiled again.

python -m tests.helpers.damaged_kernels 200
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numba
import numpy as np
from numba.core import event

from refnet.loops.numba_cache import keep


def mixed(x, scale):
    """A tiny kernel: a few operations of each kind."""
    y = np.empty_like(x)
    for i in range(x.size):
        y[i] = np.sqrt(x[i]) * scale + x[x.size - 1 - i]
    return y


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The file's bytes after one damage, and its name."""
    at, size = rng.randrange(len(data)), rng.randrange(1, 64)
    how = rng.choice(("bit", "cut", "emptied", "zeroed", "longer", "swapped", "inserted", "noise"))
    if how == "bit":
        return how, data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    changed = {
        "cut": data[:at],
        "emptied": b"",
        "zeroed": data[:at] + bytes(len(data) - at),
        "longer": data + rng.randbytes(size),
        "swapped": data[at:] + data[:at] if at else data[1:],
        "inserted": data[:at] + rng.randbytes(size) + data[at:],
        "noise": rng.randbytes(len(data)),
    }
    return how, changed[how]


class Counting(event.Listener):
    """How many kernels were compiled."""

    def __init__(self) -> None:
        self.count = 0

    def on_start(self, event) -> None:
        self.count += 1

    def on_end(self, event) -> None:
        pass


def attack(count: int, seed: int = 0) -> Counter[str]:
    """So many damaged caches, and what each came to: "compiled" again, or "loaded" because it was sound.

    Raises AssertionError for other bits, or where a damaged file was run.
    """
    rng, came = random.Random(seed), Counter()
    x = np.linspace(0, 3, 40, dtype=np.float32)
    expected = mixed(x, np.float32(0.1)).tobytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def call() -> bool:
            kernel, counting = numba.njit(nogil=True, error_model="numpy")(mixed), Counting()
            keep(kernel, lambda: folder, light=True)
            with event.install_listener("numba:compile", counting):
                assert kernel(x, np.float32(0.1)).tobytes() == expected
            return counting.count > 0

        assert call()
        (file,) = folder.glob("*.kernel")
        whole = file.read_bytes()
        for _ in range(count):
            how, data = damaged(whole, rng)
            file.write_bytes(data)
            compiled = call()
            assert compiled == (data != whole), how
            assert not call(), f"{how}: what was compiled again was not kept"
            came["compiled" if compiled else "loaded"] += 1
            came[how] += 1
    return came


if __name__ == "__main__":
    print(dict(attack(int(sys.argv[1]))))
