"""What a kernel calls is compiled into it, and not once more for itself."""

from __future__ import annotations

import gc
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from numba.core import event
from numba.core.codegen import JITCodeLibrary

from refnet.loops import garbage, jit
from refnet.loops.parts import Kernel, PartCode

pytestmark = pytest.mark.skipif(not jit.known(numba.__version__), reason="Numba's own way")


@jit.njit
def _innermost(x):
    return x * x + 1


@jit.njit
def _middle(x):
    return _innermost(x) + _innermost(x + 1)


@jit.njit
def _outer(x):
    return _middle(x) - _innermost(x)


@jit.njit
def _refused(x):
    return x.no_such_attribute


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """Kernels of this file that no other run has compiled."""
    for kernel in (_innermost, _middle, _outer, _refused):
        monkeypatch.setattr(kernel.dispatcher, "_cache", numba.core.caching.NullCache())


def test_only_the_outermost_becomes_machine_code(monkeypatch):
    """One optimisation of one module; the functions below are known to their callers only."""
    optimised = []
    original = JITCodeLibrary._optimize_final_module

    def noted(library):
        optimised.append(library.name)
        original(library)

    monkeypatch.setattr(JITCodeLibrary, "_optimize_final_module", noted)
    assert _outer(np.int32(3)) == 9 + 1 + 16 + 1 - 9 - 1
    assert [name for name in optimised if "_" in name] == ["_outer"]
    for function in (_innermost, _middle):
        assert not function.signatures
        assert all(isinstance(one.library, PartCode) for one in function.part.overloads.values())
        assert len(function.part.overloads) in (1, 2)  # x is an int32, x + 1 an int64


def test_a_part_can_be_called_from_python_too():
    """Then it is a kernel, before and after others call it."""
    assert _innermost(2.0) == 5.0
    assert _outer(2.0) == 5.0 + 10.0 - 5.0
    assert _middle(2.0) == 15.0
    assert _innermost(2.0) == 5.0


class _Collects(event.Listener):
    """Whether Python searches for cycles while something is compiled."""

    def __init__(self) -> None:
        self.during: list[bool] = []

    def on_start(self, event):
        self.during.append(gc.isenabled())

    def on_end(self, event):
        pass


@pytest.mark.parametrize(("before", "kind"), [(True, np.float32), (False, np.int16)])
def test_python_collects_again_after_a_kernel(before, kind):
    """Also where compiling fails; whoever had switched it off finds it so."""
    passes = _Collects()
    try:
        (gc.enable if before else gc.disable)()
        with event.install_listener("numba:run_pass", passes):
            _middle(kind(1))
            assert gc.isenabled() == before
            with pytest.raises(numba.TypingError):
                _refused(kind(1))
        assert gc.isenabled() == before
        assert passes.during
        assert not any(passes.during)
    finally:
        gc.enable()


def test_the_search_for_cycles_is_on_again_when_the_last_one_leaves(monkeypatch):
    """Whoever enters while another thread leaves must not find it off, and leave it off."""
    first, real, left = garbage.paused(), gc.isenabled, []
    first.__enter__()

    def late() -> bool:
        found = real()
        if not left:
            left.append(first.__exit__(None, None, None))  # the other leaves at this very moment
        return found

    monkeypatch.setattr(garbage.gc, "isenabled", late)
    with garbage.paused():
        assert not real()
    if not left:
        first.__exit__(None, None, None)
    assert real()
    gc.disable()
    try:
        with garbage.paused(), garbage.paused():
            pass
        assert not real()  # as it was
    finally:
        gc.enable()


def test_a_kernel_has_one_dispatcher_though_many_ask_at_once():
    made = []

    def make(function):
        time.sleep(0.05)
        made.append(types.SimpleNamespace())
        return made[-1]

    kernel = Kernel(abs, make, make)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: kernel.dispatcher, range(4)))
    assert len(made) == 1
    assert all(one is made[0] for one in found)
