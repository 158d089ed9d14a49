"""Numba's cache as refnet uses it: processes that compile the same kernel at the same time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numba
import pytest

from refnet.kernels.pointwise import _sigmoid
from refnet.loops import jit
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
