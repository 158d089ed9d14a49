"""Sums that no order rounds: claimed only where it is true, and then one bit is a defect."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.core.graph import Node
from refnet.core.op import Op
from refnet.verification.judge import judge
from refnet.verification.order_free import exact_sums, grid
from tests.helpers.bits import floats
from tests.helpers.engines import EXACT, FAST
from tests.helpers.verifying import summed

F = np.float32


def integers(shape: tuple[int, ...], most: int, key: object) -> np.ndarray:
    """Whole numbers from -most to most."""
    return np.rint(floats(shape, key) * F(most)).astype(F)


def case(op: Op, most: int, scale: float = 1.0) -> tuple[Op, list[np.ndarray]]:
    """An op with inputs of integers up to `most`; data and bias times a power of two."""
    if isinstance(op, ops.Conv):
        shapes = [(2, 4, 5, 5), (op.channels, 4 // op.groups, *op.kernel), (op.channels,)][: 2 + op.bias]
    elif isinstance(op, ops.Dense):
        shapes = [(2, 9), (op.units, 9), (op.units,)][: 2 + op.bias]
    elif isinstance(op, ops.WeightedSum):
        shapes = [(2, 6), (2, 6, 3, 3)]
    elif isinstance(op, ops.RadixSum):
        shapes = [(2, 6, 3, 3)]
    else:
        return op, [integers((2, 6), most, k) * F(scale) for k in range(op.count)]
    return op, [integers(s, most, (repr(op), k)) * F(1 if k == 1 else scale) for k, s in enumerate(shapes)]


OPS = [
    ops.Conv(6, (3, 3), (1, 1), (1, 1), groups=2, bias=True),
    ops.Conv(3, (2, 2), (2, 2)),
    ops.Dense(4),
    ops.Dense(4, bias=False),
    ops.WeightedSum(3),
    ops.RadixSum(3),
    ops.Add(3),
]


@pytest.mark.parametrize("op", OPS, ids=repr)
@pytest.mark.parametrize("scale", [1.0, 2.0**-20, 2.0**-149])
def test_where_it_is_claimed_every_order_gives_the_exact_sum(op, scale):
    op, inputs = case(op, 100, scale)
    exact = exact_sums(op, inputs)
    assert exact.all()
    value = op.run(*inputs, engine=FAST)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for at in np.ndindex(*value.shape):
            assert summed(op, inputs, at, rng) == value[at]
    made = op.explain(*inputs, at=(0,) * value.ndim, exact=EXACT)
    bias = Fraction(0) if made.bias is None else Fraction(float(made.bias))
    assert sum(map(Fraction, made.products.tolist()), bias) == Fraction(float(value[(0,) * value.ndim]))


@pytest.mark.parametrize("bias", [False, True])
def test_the_addend_of_a_convolution_is_a_term_and_no_factor(bias):
    op = ops.ConvAdd(ops.Conv(3, (2, 2), bias=bias))
    x, w = integers((1, 2, 4, 4), 100, "x") * F(2.0**-10), integers((3, 2, 2, 2), 100, "w") * F(2.0**10)
    addend, own = integers((1, 3, 3, 3), 100, "addend"), [integers((3,), 100, "bias")] if bias else []
    size = op.run(*(np.abs(v) for v in (x, addend, w, *own)), engine=FAST)
    assert 2**14 < size.max() < 2**24  # exact by the products' grid, 1; not by that of x times the addend
    assert exact_sums(op, [x, addend, w, *own]).all()
    fine = addend * F(2.0**-10)  # a grid on which the largest sums have too many bits
    assert (exact_sums(op, [x, fine, w, *own]) == (size - np.abs(addend) + np.abs(fine) < 2**14)).all()


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_one_bit_is_a_defect_there(op):
    op, inputs = case(op, 100)
    node = Node("y", op, tuple(f"i{k}" for k in range(len(inputs))))
    value = op.run(*inputs, engine=FAST)
    at = np.unravel_index(int(np.argmax(np.abs(value))), value.shape)
    found = value.copy()
    found[at] = np.nextafter(found[at], F(np.inf))
    judged = judge(node, found, inputs)
    assert (judged.verdict, judged.outside, judged.worst.at) == ("defect", 1, at)
    assert judged.worst.share == np.inf
    assert "no order rounds" in judged.reason
    inputs[-1] = inputs[-1] * F(0.7)  # no grid: one bit is rounding
    found = op.run(*inputs, engine=FAST)
    found[at] = np.nextafter(found[at], F(np.inf))
    assert exact_sums(op, inputs) is None
    assert judge(node, found, inputs).verdict == "rounding"


def test_the_sign_of_a_zero_is_no_defect():
    node = Node("y", ops.Dense(1, bias=False), ("x", "w"))
    inputs = [F([[1, -1]]), F([[1, 1]])]
    assert exact_sums(node.op, inputs).all()
    assert judge(node, F([[-0.0]]), inputs).verdict != "defect"


def test_the_limit_is_2_to_the_24th_units():
    op = ops.Dense(1, bias=False)
    ones = np.ones((1, 2), F)
    assert exact_sums(op, [F([[2**23, 2**23 - 1]]), ones]).all()
    assert exact_sums(op, [F([[2**23, -(2**23) + 1]]), ones]).all()
    assert exact_sums(op, [F([[2**23 + 1, 2**23 - 1]]), ones]) is None  # exact, but it is not claimed
    # 2**24 and then ones: each is lost, in this order
    three = F([[2**24 - 1, 1, 1, 1]])
    assert exact_sums(op, [three, np.ones((1, 4), F)]) is None
    # below the smallest float32 a product is rounded
    assert exact_sums(op, [F([[2.0**-100, 2.0**-100]]), F([[2.0**-50, 1]])]) is None
    assert exact_sums(op, [F([[2.0**-100, 2.0**-99]]), F([[2.0**-49, 2.0**-48]])]).all()


def test_each_element_by_itself():
    op = ops.Dense(2, bias=False)
    found = exact_sums(op, [np.full((1, 5), 2**22 - 1, np.float32), F([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])])
    assert found.tolist() == [[True, False]]


def test_numbers_that_are_none_and_zeros():
    op = ops.Dense(1, bias=False)
    for bad in (np.nan, np.inf):
        assert exact_sums(op, [F([[bad, 1]]), F([[1, 1]])]) is None
        assert exact_sums(op, [F([[0, 0]]), F([[bad, 1]])]) is None
    assert exact_sums(op, [F([[0, 0]]), F([[0.1, 0.3]])]).all()
    late = np.concatenate([np.zeros((1, 5000), F), floats((1, 9), "x")], 1)  # the first look sees zeros only
    assert exact_sums(op, [late, np.ones_like(late)]) is None


def test_ops_that_divide_or_have_other_formulas_claim_nothing():
    x = np.ones((1, 4, 4, 4), F)
    for op in (ops.AvgPool((2, 2)), ops.GlobalAvgPool(), ops.Sigmoid(), ops.Softmax(), ops.Relu()):
        assert exact_sums(op, [x]) is None


@pytest.mark.parametrize(
    ("array", "expected"),
    [([1, 3], 1.0), ([6, 4], 2.0), ([0.75], 0.25), ([2.0**-149], 2.0**-149), ([3 * 2.0**-140, 0], 2.0**-140)],
)
def test_grids(array, expected):
    assert grid(F(array)) == expected
    assert grid(-F(array)) == expected
