"""Functions of one number with a loop of their own: the bits of loops/real.py, whatever lies beside them."""

from __future__ import annotations

import numpy as np
import pytest

from refnet.kernels import real as fast
from refnet.loops import real as loops
from tests.helpers.bits import floats, same_bits

EDGES = (0.0, -0.0, 4.0, -4.0, 5.625, 6.0, -6.0, 9.0, -2.0, -3.0, 3.0, -16.0, 1e-45, -3.4e38)
OF_THEIR_OWN = sorted(loops.NAMES[kind] for kind in (*fast.WHERE, *fast.STRAIGHT))


def numbers(count: int) -> np.ndarray:
    """Every size of number, where formulas begin and end, and neighbours of each side by side."""
    drawn = floats((count,), f"numbers {count}")
    sizes = np.float32(10.0) ** np.float32(np.arange(count) % 7 - 5)
    around = [np.nextafter(np.float32(v), np.float32(to)) for v in EDGES for to in (-np.inf, np.inf)]
    special = np.float32([np.inf, -np.inf, np.nan])
    x = np.concatenate([drawn * sizes, np.float32(EDGES), np.float32(around), special])
    return np.concatenate([x, np.linspace(-9, 9, 700)]).astype(np.float32)


@pytest.mark.parametrize("name", [*OF_THEIR_OWN, "mish"])
@pytest.mark.parametrize("count", [1, 31, 2 * fast.GRAIN + 1])
def test_both_engines_have_the_same_bits(name: str, count: int) -> None:
    x = numbers(count)
    wide = x.astype(np.float64)
    expected = loops.real(name, wide, 0.2, 0.5)
    found = fast.real(name, wide, 2, 0.2, 0.5)
    assert np.array_equal(found.view(np.uint64), expected.view(np.uint64))
    assert same_bits(fast.real(name, x, 2, 0.2, 0.5), loops.real(name, x, 0.2, 0.5))


@pytest.mark.parametrize("name", loops.NAMES)
def test_of_float32_it_is_the_float64_rounded_once(name: str) -> None:
    x = numbers(100)
    with np.errstate(all="ignore"):
        expected = fast.real(name, x.astype(np.float64), 1, 0.75, 1.0, 2.0).astype(np.float32)
    found = fast.real(name, x, 1, 0.75, 1.0, 2.0)
    assert found.dtype == np.float32
    assert same_bits(found, expected)


@pytest.mark.parametrize("name", ["erf", "gelu"])
def test_a_polynomial_where_it_is_not_meant_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the numbers beyond are not computed again."""
    monkeypatch.setitem(fast.WHERE, loops.NAMES.index(name), (-np.inf, np.inf))
    x = numbers(100)
    assert not same_bits(fast.real(name, x, 1), loops.real(name, x))
