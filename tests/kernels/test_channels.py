"""Convolution with lanes across channels, and `epilogue_pass`, equal the scalar definition bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

from refnet.core.engine import ConvGeometry, Epilogue
from refnet.kernels.channels import LEAST, channel_layout, conv_across_channels, plane_layout, shares
from refnet.kernels.epilogue_pass import (
    BY_ZERO,
    DROPS,
    FACTOR,
    KEEPS,
    LIMITS,
    LOOPS,
    OTHER,
    SCALE,
    epilogue_pass,
)
from refnet.kernels.lanes import GROUP
from refnet.kernels.thread_pool import WORTH
from refnet.loops.engine import REFERENCE
from refnet.loops.fma import fma
from refnet.loops.jit import njit
from tests.helpers.bits import awkward, same_bits
from tests.helpers.definition import llvm_fma

QUIET = settings(deadline=None, database=None, derandomize=True)


def test_few_channels_and_positions_are_shared_too():
    how = channel_layout((1, 160, 7, 7), (32, 160, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    assert how.work // 16 >= WORTH
    assert shares(how, 1, 1, 1) == (1, 1)
    assert shares(how, 1, 1, 2) == (min(2 * LEAST, -(-49 // GROUP)), 1)
    assert shares(how, 1, 1, 64) == (-(-49 // GROUP), 1)
    assert shares(how, 2, 3, 2) == (2, 3)
    assert shares(how, 4, 3, 2) == (1, 3)


def test_small_maps_have_this_layout_and_others_do_not():
    place = ((1, 1), (1, 1), (1, 1), 1)
    assert channel_layout((1, 64, GROUP, GROUP), (64, 64, 3, 3), *place) is not None
    assert channel_layout((1, 64, 2, 2), (64, 64, 3, 3), *place) is not None
    assert channel_layout((1, 64, 14, 14), (64, 64, 3, 3), (3, 3), (1, 1), (1, 1), 1) is not None
    assert channel_layout((1, 64, 224, 224), (5, 64, 3, 3), *place) is None  # lanes without an output
    assert channel_layout((1, 64, 1, 1), (64, 64, 1, 1), (1, 1), (0, 0), (1, 1), 1) is None  # a dense layer
    assert channel_layout((1, 64, 14, 14), (8, 64, 3, 3), (1, 1), (999, 999), (1, 1), 1) is None


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [31, 64, 80, 96, 97, 160, 200])
def test_maps_of_few_positions(outputs, kind):
    """Two blocks of channels at once, and the last one alone: up to HALF positions, in one map or several."""
    random = np.random.default_rng(outputs)
    for images, size, kernel, groups in (
        (1, 1, 3, 1),
        (2, 1, 3, 1),
        (1, 2, 1, 1),
        (1, 2, 3, 1),
        (1, 2, 3, 2),
        (3, 1, 3, 1),
    ):
        x = random.normal(size=(images, 6 * groups, size, size)).astype(kind)
        w = random.normal(size=(outputs * groups, 6, kernel, kernel)).astype(kind)
        x[..., 0], w[0, 0, 0, 0], w[-1, -1] = 0, np.inf, -0.0
        place = ((1, 1), (kernel // 2, kernel // 2), (1, 1), groups)
        how = plane_layout(x.shape, w.shape, *place)
        planes = np.pad(x, ((0, 0), (0, 0), place[1], place[1])).reshape(images, -1)
        expected = REFERENCE.conv(x, w, ConvGeometry(*place), Epilogue())
        for threads in (1, 3):
            found = conv_across_channels(x, planes, w, groups, how, threads, Epilogue())
            assert same_bits(expected, found), (images, size, kernel, groups, threads)


@njit
def _finished(y, to, x, at, size, flags, factors, scales, shifts, first, limits, others, where):
    epilogue_pass(y, to, x, at, size, flags, factors, scales, shifts, first, limits, others, where)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("count", [*range(36), 100])
def test_finish(count, kind):
    """Every combination of steps on three rows of every length; nothing beside the rows is touched."""
    rows, pitches = 3, (count + 2, count + 3, count + 5)
    x, others = (awkward((2 + rows * n,), n, 0.3).astype(kind) for n in pitches[1:])
    factors, scales, shifts = (np.arange(1, 7).astype(kind) * kind(n) for n in (1.1, -0.7, 0.3))
    per_row, low, high = (factors, scales, shifts, (2, 1), 5), scales[5], shifts[5]
    take = np.arange(rows)[:, None] * np.array(pitches)[:, None, None] + np.arange(count)
    by_rules = [flags | rule for flags in LOOPS if flags & BY_ZERO for rule in (KEEPS, DROPS)]
    for flags in (*LOOPS, *by_rules):
        y = np.full(1 + rows * pitches[0], 7, kind)
        places = (y, (1, pitches[0]), x, (2, pitches[1]), (rows, count))
        _finished(*places, flags, *per_row, others, (1, pitches[2]))
        v = x[2 + take[1]]
        factor, scale, shift = factors[2:5, None], scales[1:4], shifts[1:4]
        with np.errstate(all="ignore"):
            if flags & FACTOR:
                v = v * factor
            if flags & SCALE:
                v = np.array([_fused(row, s, t) for row, s, t in zip(v, scale, shift, strict=True)], kind)
            if flags & OTHER:
                v = v + others[1 + take[2]]
            if flags & BY_ZERO:
                v = np.where(v < 0 if flags & KEEPS else v <= 0, kind(0), v)
            if flags & DROPS:
                v = np.where(np.isnan(v), kind(0), v)
            if flags & LIMITS:
                v = np.where(v <= low, low, v)
                v = np.where(v >= high, high, v)
        assert same_bits(y[1 + take[0]], v), flags
        beside = np.delete(y, 1 + take[0])
        assert (beside == 7).all()
        again = x.copy()
        places = (again, (2, pitches[1]), again, (2, pitches[1]), (rows, count))
        _finished(*places, flags, *per_row, others, (1, pitches[2]))
        assert same_bits(again[2 + take[1]], v), flags


def _fused(row, scale, shift):
    """fma(v, scale, shift) for each v of a row."""
    if row.dtype == np.float32:
        return [llvm_fma(v, scale, shift) for v in row]
    return _fma64(row, scale, shift)


@njit
def _fma64(v, scale, shift):
    from_simd = np.empty_like(v)
    for i in range(v.size):
        from_simd[i] = fma(v[i], scale, shift)
    return from_simd
