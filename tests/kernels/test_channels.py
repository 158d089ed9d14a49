"""Convolution with lanes across channels, and `epilogue_pass`, equal the scalar definition bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refnet.core.engine import NOTHING
from refnet.kernels.channels import LEAST, STRETCH, cropped, form, shares
from refnet.kernels.epilogue_pass import BY_ZERO, FACTOR, OTHER, SCALE, epilogue_pass
from refnet.kernels.lanes import GROUP, HALF, ODD
from refnet.kernels.panel import convolve
from refnet.kernels.thread_pool import WORTH
from refnet.loops.fma import fma
from refnet.loops.jit import njit
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.definition import conv_everywhere, llvm_fma

QUIET = settings(deadline=None, database=None, derandomize=True)


def equals_definition(x, w, stride, pad, dilation, groups):
    """The convolution is computed across channels, for any threads and batch, as the definition says."""
    shapes = (x.shape, w.shape, stride, pad, dilation, groups)
    assert form(*shapes) is not None
    y = convolve(x, w, stride, pad, dilation, groups, 1)
    place = np.array([*stride, *pad, *dilation])
    assert same_bits(y, conv_everywhere(x, w, place, groups, y.shape))
    assert same_bits(y, convolve(x, w, stride, pad, dilation, groups, 3))
    for i in range(x.shape[0]):
        assert same_bits(y[i : i + 1], convolve(x[i : i + 1], w, stride, pad, dilation, groups, 1))


@st.composite
def cases(draw):
    """Shapes of maps with few positions, and of some with many; most have this form."""
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (3, 2), (1, 4)]))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pad = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    few, many = st.integers(1, 6), st.integers(HALF, 3 * GROUP + 1)
    output = draw(st.tuples(few, st.one_of(few, many)))
    size = tuple(
        max(1, (o - 1) * s + d * (k - 1) + 1 - 2 * p + draw(st.integers(0, s - 1)))
        for o, s, d, k, p in zip(output, stride, dilation, kernel, pad, strict=True)
    )
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per = draw(st.integers(1, 5)), draw(st.integers(3, 70))
    return draw(st.integers(1, 3)), groups, per, kernel, stride, pad, dilation, size


@settings(QUIET, max_examples=400)
@given(cases(), st.sampled_from([0.0, 0.0, 0.1, 0.9]), st.sampled_from([0.0, 0.2]), st.sampled_from("ffd"))
def test_convolution_across_channels(case, odd_data, odd_weights, kind):
    batch, groups, (channels, outputs), kernel, stride, pad, dilation, size = case
    x = awkward((batch, groups * channels, *size), case, odd_data).astype(kind)
    w = awkward((groups * outputs, channels, *kernel), (case, "w"), odd_weights).astype(kind)
    if form(x.shape, w.shape, stride, pad, dilation, groups) is not None:
        equals_definition(x, w, stride, pad, dilation, groups)


@pytest.mark.parametrize(
    ("shape", "weights", "stride", "pad"),
    [
        ((1, 3, 1, STRETCH + 1), (32, 3, 1, 1), (1, 1), (0, 0)),  # one row, of two stretches
        ((1, 3, 1, 2 * STRETCH + 7), (32, 3, 1, 3), (1, 2), (0, 1)),  # the same, steps of two
        ((2, 2, 29, 31), (32, 2, 1, 1), (1, 1), (0, 0)),  # planes of two stretches, without rows
        ((2, 2, 61, GROUP), (48, 2, 3, 3), (1, 1), (1, 1)),  # stretches of whole rows
        ((1, 2, 40, 2 * GROUP), (16, 2, 3, 1), (1, 1), (1, 0)),  # padding above and below only
        ((1, 2, 9, 2 * GROUP + 1), (32, 2, 3, 3), (1, 1), (0, 0)),  # no padding: the input is read itself
        ((5, 2, 29, 31), (32, 2, 3, 3), (1, 1), (1, 1)),  # stretches of parts of two images
        ((40, 2, 5, 5), (30, 2, 3, 3), (1, 1), (1, 1)),  # stretches of many images
        ((1, 160, 7, 7), (32, 160, 3, 3), (1, 1), (1, 1)),  # stretches for every thread
    ],
)
@pytest.mark.parametrize("odd", [0.0, 0.2])
def test_stretches(shape, weights, stride, pad, odd):
    equals_definition(awkward(shape, "x", odd), awkward(weights, "w", odd), stride, pad, (1, 1), 1)


def test_few_channels_and_positions_are_shared_too():
    how = form((1, 160, 7, 7), (32, 160, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    assert how.work // 16 >= WORTH
    assert shares(how, 1, 1, 1) == (1, 1)
    assert shares(how, 1, 1, 2) == (min(2 * LEAST, -(-49 // GROUP)), 1)
    assert shares(how, 1, 1, 64) == (-(-49 // GROUP), 1)
    assert shares(how, 2, 3, 2) == (2, 3)
    assert shares(how, 4, 3, 2) == (1, 3)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_zero_of_the_padding_never_shows(kind):
    """Partial sums that underflow to -0, weights that are not finite, windows of zeros only."""
    tiny = np.sqrt(np.finfo(kind).smallest_subnormal) / 2
    x, w = np.full((1, 1, 2, GROUP), -tiny, kind), np.full((48, 1, 3, 3), tiny, kind)
    equals_definition(x, w, (1, 1), (1, 1), (1, 1), 1)
    assert np.signbit(convolve(x, w, (1, 1), (1, 1), (1, 1), 1, 1)).all()
    x[..., :HALF] = 0
    equals_definition(x, w, (1, 1), (1, 1), (1, 1), 1)
    w[3, 0, 0] = np.inf
    w[35, 0, :, 2] = np.nan
    equals_definition(x, w, (1, 1), (1, 1), (1, 1), 1)


def test_the_sum_is_one_chain_of_fmas_in_order():
    """Terms of such sizes that every other order, and every product rounded by itself, gives other bits."""
    x = (floats((1, 40, 9, GROUP), "x") * np.float32(2.0) ** np.arange(40).reshape(1, -1, 1, 1)).astype("f")
    equals_definition(x, floats((48, 40, 3, 3), "w"), (1, 1), (1, 1), (1, 1), 1)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [16, 48])
def test_every_number_of_positions(outputs, kind):
    """Blocks of GROUP, ODD and HALF positions, the last ones repeated, of one image and of several."""
    assert (ODD, HALF) == (GROUP - 1, GROUP // 2)
    w, seen = awkward((outputs, 3, 1, 2), "w", 0.02).astype(kind), 0
    for positions in range(1, 4 * GROUP + 2):
        for shape, stride, pad in (
            ((1, 3, 1, positions + 1), (1, 1), (0, 0)),
            ((positions, 3, 1, 2), (1, 1), (0, 0)),
            ((positions, 3, 1, 2), (2, 1), (0, 1)),
        ):
            if form(shape, w.shape, stride, pad, (1, 1), 1) is not None:
                equals_definition(awkward(shape, "x", 0.05).astype(kind), w, stride, pad, (1, 1), 1)
                seen += 1
    assert seen > 10 * GROUP


@pytest.mark.parametrize("odd", [0.0, 0.05])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [(1, 3, 1), (2, 3, 1), (2, 1, 2), (3, 3, 1), (3, 3, 2), (4, 3, 2), (4, 3, 1), (5, 5, 1), (8, 3, 2)],
)
def test_the_last_maps_of_small_images(size, kernel, stride, batch, odd):
    x, w = awkward((batch, 9, size, size), "x", odd), awkward((70, 9, kernel, kernel), "w", odd / 10)
    pad = (kernel // 2, kernel // 2)
    equals_definition(x, w, (stride, stride), pad, (1, 1), 1)
    equals_definition(np.maximum(x, 0), np.abs(w), (stride, stride), pad, (1, 1), 1)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "dilation", "left"),
    [
        ((1, 1), (3, 3), (1, 1), (1, 1), (1, 1), ((1, 1), (0, 0))),  # a dense layer is left
        ((1, 1), (3, 3), (2, 2), (1, 1), (1, 1), ((1, 1), (0, 0))),
        ((2, 1), (5, 5), (1, 1), (2, 2), (1, 1), ((3, 1), (1, 0))),
        ((2, 2), (3, 3), (1, 1), (2, 2), (2, 2), ((1, 1), (0, 0))),
        ((4, 1), (3, 3), (1, 1), (1, 1), (1, 1), ((3, 1), (1, 0))),
        ((2, 2), (3, 3), (1, 1), (1, 1), (1, 1), ((3, 3), (1, 1))),
        ((1, 1), (1, 1), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),  # nothing is seen
        ((3, 3), (3, 3), (2, 2), (2, 2), (1, 1), ((3, 3), (2, 2))),
        ((2, 2), (4, 4), (2, 2), (1, 1), (1, 1), ((2, 2), (0, 0))),
        ((2, 2), (2, 2), (2, 2), (1, 1), (2, 2), ((2, 2), (1, 1))),  # less would need padding below zero
    ],
)
@pytest.mark.parametrize("odd", [0.0, 0.2])
def test_kernels_larger_than_the_map(size, kernel, stride, pad, dilation, left, odd):
    """What every position sees in the padding only is left out; not finite, it contributes nothing either."""
    x, w = awkward((2, 5, *size), "x", odd), awkward((40, 5, *kernel), "w", odd)
    kept, padding = cropped(x.shape, w, stride, pad, dilation)
    y = convolve(x, w, stride, pad, dilation, 1, 1)
    assert same_bits(y, conv_everywhere(x, w, np.array([*stride, *pad, *dilation]), 1, y.shape))
    assert (kept.shape[2:], padding) == left


def test_small_maps_have_this_form_and_others_do_not():
    place = ((1, 1), (1, 1), (1, 1), 1)
    assert form((1, 64, GROUP, GROUP), (64, 64, 3, 3), *place) is not None
    assert form((1, 64, 2, 2), (64, 64, 3, 3), *place) is not None
    assert form((1, 64, 14, 14), (64, 64, 3, 3), (3, 3), (1, 1), (1, 1), 1) is not None
    assert form((1, 64, 224, 224), (5, 64, 3, 3), *place) is None  # lanes without an output
    assert form((1, 64, 1, 1), (64, 64, 1, 1), (1, 1), (0, 0), (1, 1), 1) is None  # a dense layer
    assert form((1, 64, 14, 14), (8, 64, 3, 3), (1, 1), (999, 999), (1, 1), 1) is None


@njit
def _finished(y, to, x, at, size, flags, factors, scales, shifts, first, others, where):
    epilogue_pass(y, to, x, at, size, flags, factors, scales, shifts, first, others, where)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("count", [*range(36), 100])
def test_finish(count, kind):
    """Every combination of steps on three rows of every length; nothing beside the rows is touched."""
    rows, pitches = 3, (count + 2, count + 3, count + 5)
    x, others = (awkward((2 + rows * n,), n, 0.3).astype(kind) for n in pitches[1:])
    factors, scales, shifts = (np.arange(1, 7).astype(kind) * kind(n) for n in (1.1, -0.7, 0.3))
    per_row = (factors, scales, shifts, (2, 1))
    take = np.arange(rows)[:, None] * np.array(pitches)[:, None, None] + np.arange(count)
    for flags in range(16):
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
                v = np.where(v <= 0, kind(0), v)
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


@pytest.mark.parametrize("steps", ["bra", "sr", "sar", "aar", "rs", "rbsa", "ab", "ss"])
def test_steps_in_any_order_and_number(steps):
    """Chains that need more than one pass over a row; each step rounds as its node alone would."""
    x, w = awkward((2, 3, 5, GROUP), "x", 0.05), floats((48, 3, 3, 3), "w")
    y = convolve(x, w, (1, 1), (1, 1), (1, 1), 1, 1)
    chain, expected = NOTHING, y
    for at, step in enumerate(steps):
        scale, shift = floats((48,), (at, "s")), floats((48,), (at, "t"))
        other = awkward(y.shape, at, 0.05)
        with np.errstate(all="ignore"):
            if step == "b":
                chain, expected = chain.bias(shift), expected + shift[:, None, None]
            elif step == "s":
                fused = np.empty_like(expected)
                for n, c, i, j in np.ndindex(y.shape):
                    fused[n, c, i, j] = llvm_fma(expected[n, c, i, j], scale[c], shift[c])
                chain, expected = chain.scale_shift(scale, shift), fused
            elif step == "a":
                chain, expected = chain.add(other), expected + other
            else:
                chain, expected = chain.relu(), np.where(expected <= 0, np.float32(0), expected)
    for threads in (1, 2):
        assert same_bits(convolve(x, w, (1, 1), (1, 1), (1, 1), 1, threads, chain), expected)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_maps_of_one_position_are_dense_layers(kind):
    x, w = awkward((3, 70, 1, 1), "x", 0.05).astype(kind), awkward((130, 70, 1, 1), "w", 0.01).astype(kind)
    place = np.array([1, 1, 0, 0, 1, 1])
    y = convolve(x, w, (1, 1), (0, 0), (1, 1), 1, 1)
    assert same_bits(y, conv_everywhere(x, w, place, 1, y.shape))
    assert same_bits(y, convolve(x, w, (1, 1), (0, 0), (1, 1), 1, 2))
    assert same_bits(convolve(x, w, (1, 1), (0, 0), (1, 1), 1, 1, NOTHING.relu()), np.where(y <= 0, 0, y))
