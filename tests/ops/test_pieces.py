"""Transposed convolutions and those of other ranks: sums without terms, both engines, infinite weights."""

from __future__ import annotations

import numpy as np
import pytest

from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.core.op import Interval, TensorType
from refnet.loops.engine import REFERENCE
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import FAST

F = np.float32
EXACT = Golden().exact
CASES = [
    (ops.ConvTranspose(4, (3, 4), (2, 3), (1, 0), (1, 2), 2, True, (0, 2), (1, 0)), (2, 4, 3, 2)),
    (ops.ConvTranspose(2, (2, 3, 2), (2, 1, 2), (1, 1, 0)), (1, 2, 2, 3, 2)),
    (ops.ConvTranspose(3, (5,), (4,), (3,), (2,)), (1, 2, 6)),
    (ops.ConvNd(4, (3,), (2,), (1,), (2,), 2, True, (0,)), (2, 4, 9)),
    (ops.ConvNd(3, (3, 2, 2), (2, 1, 2), (1, 0, 1), (1, 2, 1), bias=True), (1, 2, 4, 4, 3)),
]


def arguments(op, shape):
    return [
        floats(shape, "x"),
        *(floats(k.shape, i) for i, k in enumerate(op.weight_types(TensorType(shape)))),
    ]


@pytest.mark.parametrize(("op", "shape"), CASES, ids=repr)
def test_both_engines_give_the_same_bits(op, shape):
    values = arguments(op, shape)
    assert same_bits(op.run(*values, engine=FAST), op.run(*values, engine=REFERENCE))


@pytest.mark.parametrize(("op", "shape"), CASES, ids=repr)
def test_weights_in_the_padding_or_between_elements_have_no_effect(op, shape):
    """An infinite weight enters exactly those outputs that have it among their terms."""
    x, *weights = arguments(op, shape)
    x = np.abs(x) + F(0.5)
    w = np.abs(weights[0]) + F(0.5)
    plain = op.run(x, w, *weights[1:], engine=FAST)
    odd = w.copy()
    odd.reshape(-1)[0] = np.inf
    touched = np.isinf(op.run(x, odd, *weights[1:], engine=FAST))
    zeroed = w.copy()
    zeroed.reshape(-1)[0] = 0
    assert touched.any()
    assert not touched.all()
    assert (op.run(x, zeroed, *weights[1:], engine=FAST)[~touched] == plain[~touched]).all()
    assert (op.golden(x, odd, *weights[1:], exact=EXACT)[touched] == np.inf).all()


def test_sums_without_terms_are_the_bias():
    """Between the places of a kernel smaller than the stride, beyond its reach, and wholly in the padding."""
    x, w, b = F([[[2, 3]]]), F([[[5]]]), F([7])
    up = ops.ConvTranspose(1, (1,), (3,), bias=True, output_padding=(2,))
    assert up.run(x, w, b, engine=FAST).tolist() == [[[17, 7, 7, 22, 7, 7]]]
    assert up.golden(x, w, b, exact=EXACT).tolist() == [[[17, 7, 7, 22, 7, 7]]]
    found = up.bound(*map(Interval.exactly, (x, w, b)), engine=FAST)
    assert found.center.tolist() == [[[17, 7, 7, 22, 7, 7]]]
    assert (found.radius == 0).tolist() == [[[False, True, True, False, True, True]]]
    cube = np.ones((1, 1, 2, 1, 1), F)
    around = ops.ConvNd(1, (1, 1, 1), (), (1, 0, 0))
    assert around.run(cube, np.ones((1, 1, 1, 1, 1), F), engine=FAST).ravel().tolist() == [0, 1, 1, 0]


def test_the_plain_order_is_that_of_the_zero_dilated_convolution():
    """The formula's own equivalence: zeros between the elements, the kernel backwards, stride 1."""
    op, shape = ops.ConvTranspose(4, (3, 4), (2, 3), (1, 2), (), 2, True), (2, 4, 5, 3)
    x, w, b = arguments(op, shape)
    spread = np.zeros((2, 4, 9, 7), F)
    spread[:, :, ::2, ::3] = x
    turned = w.reshape(2, 2, 2, 3, 4).swapaxes(1, 2).reshape(4, 2, 3, 4)[:, :, ::-1, ::-1]
    conv = ops.Conv(4, (3, 4), pad=(1, 1), groups=2, bias=True)
    wanted = conv.run(spread, np.ascontiguousarray(turned), b, engine=FAST)
    assert same_bits(op.run(x, w, b, engine=FAST), wanted)
