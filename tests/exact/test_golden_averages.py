"""Golden's averages: the forms for whole maps and for 2 x 2 windows have the bits of the general one."""

from __future__ import annotations

import numpy as np
import pytest

from refnet import ops
from refnet.kernels import decisions
from refnet.kernels.decisions import WIDTH
from tests.crosscheck.oracle import expected
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.engines import exact_on

F = np.float32


def data(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers, numbers of all sizes, subnormal ones, ties, most of them 0, and what is not finite."""
    x, other = floats(shape, kind), np.abs(floats(shape, (kind, 1)))
    if kind == "scales":
        return (x * np.exp2(np.round(240 * other - 130))).astype(F)
    if kind == "subnormal":
        return np.round(8 * x).astype(F) * F(2.0**-149)
    if kind == "ties":
        values = F([2.0**24, 1, -1, 2.0**-40, 0, -0.0, 2, -(2.0**24), 2.0**60, -(2.0**60)])
        return values[(other * values.size).astype(int) % values.size]
    if kind == "sparse":
        return np.where(other < 0.7, F(0), x)
    return awkward(shape, kind, 0.3) if kind == "odd" else x


@pytest.mark.parametrize("kind", ["normal", "scales", "subnormal", "ties", "sparse", "odd"])
@pytest.mark.parametrize("size", [(2, 2), (6, 14), (14, 6), (4, WIDTH), (10, 34)])
@pytest.mark.parametrize("whole", [True, False])
def test_every_form_has_the_right_bits(size, kind, whole, monkeypatch):
    x = data(kind, (2, 3, *size))
    op = ops.GlobalAvgPool() if whole else ops.AvgPool((2, 2), (2, 2))
    used = []
    for name in ("_decide_whole", "_decide_quads", "_decide_average"):
        kernel = getattr(decisions, name)
        note = lambda *given, kernel=kernel, name=name: used.append(name) or kernel(*given)  # noqa: E731
        monkeypatch.setattr(decisions, name, note)
    y = op.golden(x, exact=exact_on(1))
    one = whole or size == (2, 2)  # window for each map
    form = "_decide_whole" if one and size[1] < WIDTH else "_decide_average" if one else "_decide_quads"
    assert used == [form]
    assert same_bits(y, op.golden(x, exact=exact_on(3)))
    windows = (
        x.reshape(2, 3, -1) if whole else x.reshape(2, 3, size[0] // 2, 2, size[1] // 2, 2).swapaxes(3, 4)
    )
    with np.errstate(all="ignore"):
        sums = windows.reshape(y.size, -1).astype(np.float64).sum(1)
    finite, found = np.isfinite(sums), y.reshape(-1)
    assert same_bits(found[~finite], sums[~finite].astype(F))
    clean = np.where(np.isfinite(x), x, F(0))
    assert same_bits(found[finite], expected(op, np.flatnonzero(finite), clean))
