"""erf and gelu, whose series run side by side: the bits of loops/real.py, whatever their neighbours need."""

from __future__ import annotations

import numpy as np
import pytest

from refnet.kernels import real as fast
from refnet.loops import real as loops
from tests.helpers.bits import floats

EDGES = (0.0, -0.0, 6.0, -6.0, 9.0, -2.0, -16.0, 1e-45, -3.4e38, np.inf, -np.inf, np.nan)


@pytest.mark.parametrize("name", ["erf", "gelu"])
@pytest.mark.parametrize("count", [1, fast.LANES - 1, fast.LANES, 2 * fast.GRAIN + 1])
def test_the_series_gives_the_bits_of_the_loop(name: str, count: int) -> None:
    """Every size of number, where the series begins and ends, and neighbours of each side by side."""
    drawn = floats((count,), f"{name} {count}")
    sizes = np.float32(10.0) ** np.float32(np.arange(count) % 7 - 5)
    around = [np.nextafter(np.float32(v), np.float32(to)) for v in EDGES for to in (-np.inf, np.inf)]
    x = np.concatenate([drawn * sizes, np.float32(EDGES), np.float32(around), np.linspace(-9, 9, 700)])
    x = x.astype(np.float32).astype(np.float64)
    expected = loops.real(name, x)
    found = fast.real(name, x, 2)
    assert np.array_equal(found.view(np.uint64), expected.view(np.uint64))


def test_a_series_that_ends_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: one term of 1 / (2 i + 1) is wrong, late in the series."""
    odd = loops.ODD.copy()
    odd[20] *= 2
    monkeypatch.setattr(fast, "ODD", odd)
    x = np.float64([2.0] * fast.LANES)
    assert not np.array_equal(fast.real("erf", x, 1), loops.real("erf", x))
