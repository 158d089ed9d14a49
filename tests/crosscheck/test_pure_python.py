"""Both digits networks in pure Python and NumPy: every value, in plain and by their books."""

from __future__ import annotations

import time

import pytest

from tests.helpers.readable import NETWORKS, values_by_kernels, values_by_loops

pytestmark = pytest.mark.crosscheck


@pytest.mark.parametrize("name", NETWORKS)
def test_every_value_without_a_compiler(name, tmp_path):
    begin = time.monotonic()
    found = values_by_loops(name, tmp_path, ("plain", "replay"), NUMBA_DISABLE_JIT="1")
    print(f"{name}: {time.monotonic() - begin:.0f} s")
    assert found == values_by_kernels(name, ("plain", "replay"))
