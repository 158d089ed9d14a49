"""The ops' menus of formulas: step by step, inside the bounds, and told apart."""

from __future__ import annotations

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import InputError
from refnet.core.op import Interval, Op
from refnet.core.orders import Chain, Leaf, Order, Sum
from refnet.kernels import formulas as kernels
from refnet.kernels.engine import Fast
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.definition import exact_fma
from tests.helpers.engines import FAST

C = (1, 8, 6, 5)
MENUS: list[tuple[Op, tuple[tuple[int, ...], ...]]] = [
    (ops.Relu(), (C,)),
    (ops.Sigmoid(), (C,)),
    (ops.Add(4), (C,) * 4),
    (ops.Softmax(1), (C,)),
    (ops.LogSoftmax(1), (C,)),
    (ops.BatchNorm(1e-5), (C, (8,), (8,), (8,), (8,))),
    (ops.BatchNorm(1e-5, fix_gamma=True), (C, (8,), (8,), (8,), (8,))),
    (ops.MaxPool((3, 3), (2, 2), (1, 1)), (C,)),
    (ops.RadixSum(4), (C,)),
    (ops.RadixSoftmax(2, 2), ((3, 8, 1, 1),)),
    (ops.RadixSoftmax(1, 1), ((3, 8, 1, 1),)),
    (ops.WeightedSum(4), ((1, 8), C)),
    (ops.Clip(0.0, 6.0), (C,)),
    (ops.Div(), (C, C)),
    (ops.WithScalar("div", 3.0), (C,)),
]


def menu(op: Op) -> list[str]:
    """The formulas that an op can evaluate: of RadixSoftmax, a sigmoid's for radix 1, else a softmax's."""
    if isinstance(op, ops.RadixSoftmax):
        return list((ops.Sigmoid if op.radix == 1 else ops.Softmax).formulas)
    return list(op.formulas)


EACH = [pytest.param(op, shapes, name, id=f"{op!r} {name}") for op, shapes in MENUS for name in menu(op)]


def arrays(op: Op, shapes: tuple[tuple[int, ...], ...], share: float) -> list[np.ndarray]:
    found = [awkward(shape, (repr(op), i), share) for i, shape in enumerate(shapes)]
    if isinstance(op, ops.BatchNorm):
        found[1:] = [floats(shape, ("weights", i)) for i, shape in enumerate(shapes[1:])]
        found[4] = np.abs(found[4]) + np.float32(0.1)
    return found


@pytest.mark.parametrize(("op", "shapes", "formula"), EACH)
def test_a_formula_lies_in_the_bound_of_its_op(op, shapes, formula):
    """Whatever a framework does is rounding; but ONNX Runtime's sigmoid approximates, see its crosscheck."""
    inputs = arrays(op, shapes, 0.0)
    y = op.replay(formula, *inputs, engine=FAST)
    bound = op.bound(*map(Interval.exactly, inputs), engine=FAST)
    inside = np.abs(y - bound.center) <= bound.radius
    assert inside.all() or formula == "mlas"
    assert y.shape == op.run(*inputs, engine=FAST).shape
    assert y.dtype == np.float32


@pytest.mark.parametrize(("op", "shapes", "formula"), EACH)
def test_threads_change_no_bit_and_specials_raise_nothing(op, shapes, formula):
    inputs = arrays(op, shapes, 0.3)
    assert same_bits(op.replay(formula, *inputs, engine=Fast(1)), op.replay(formula, *inputs, engine=Fast(3)))


ALIKE = {("glibc", "glibc-unfused"), ("onednn-avx512", "onednn-avx2")}
"""Two inputs in 2**32 tell the first two apart, NaN in a row that is no whole vector the others."""
WITHOUT_GAMMA = {("centred", "normalised"), ("centred", "normalised-fused"), ("scaled", "folded")}
"""With a gamma of 1, each of the first three is (x - mean) * i, rounded, + beta; and a is i."""


@pytest.mark.parametrize(("op", "shapes"), MENUS, ids=[repr(op) for op, _ in MENUS])
def test_no_two_formulas_are_the_same(op, shapes):
    """On data full of special values, or on a million sigmoids."""
    more = [(64, *shape[1:]) if len(shape) == 4 else shape for shape in shapes]
    data = arrays(op, tuple(more), 0.2)
    if isinstance(op, ops.Sigmoid) or op == ops.RadixSoftmax(1, 1):
        data = [np.linspace(-20, 20, 1 << 20).astype(np.float32).reshape(1, -1, 1, 1)]
    elif isinstance(op, ops.Softmax | ops.RadixSoftmax):
        data[0][np.abs(data[0]) <= 1] *= 99
    elif isinstance(op, ops.RadixSum | ops.WeightedSum):
        data[-1][:, :, 0] = -0.0
    if isinstance(op, ops.WeightedSum):
        data[0] = np.abs(floats((64, 8), "attention"))
    seen: dict[bytes, str] = {}
    for name in menu(op):
        y = op.replay(name, *data, engine=FAST)
        y[np.isnan(y)] = np.nan
        y.view(np.uint32)[np.isnan(y)] = 0x7FC00000
        same = seen.setdefault(y.tobytes(), name)
        unscaled = isinstance(op, ops.BatchNorm) and op.fix_gamma and (same, name) in WITHOUT_GAMMA
        assert same == name or (same, name) in ALIKE or unscaled


@pytest.mark.parametrize(("op", "shapes"), MENUS, ids=[repr(op) for op, _ in MENUS])
def test_an_unknown_formula_is_refused(op, shapes):
    with pytest.raises(InputError, match=r"formula must be one of .*, got 'no such'"):
        op.replay("no such", *arrays(op, shapes, 0.0), engine=FAST)


def test_softmax_adds_in_the_order_that_it_is_told():
    x = floats((40, 9), "order") * np.float32(9)
    backwards = Chain(Leaf.ZERO, Order.of(range(8, -1, -1)))
    pairs = Sum((Chain(Leaf.ZERO, Order.of((0, 2, 4, 6, 8))), Chain(Leaf.ZERO, Order.of((1, 3, 5, 7)))))
    e = kernels.exponentials(x, kernels.SLEEF, 0, 1)
    for total, s in (
        (backwards, np.add.accumulate(e[:, ::-1], axis=1)[:, -1:]),
        (pairs, np.add.accumulate(e[:, ::2], 1)[:, -1:] + np.add.accumulate(e[:, 1::2], 1)[:, -1:]),
    ):
        y = ops.Softmax(1).replay("sleef-divide", x, total=total, engine=FAST)
        assert same_bits(y, e / s)
        assert not same_bits(y, ops.Softmax(1).replay("sleef-divide", x, engine=FAST))


def test_relus_and_max_pools_differ_in_zeros_and_nan():
    x = np.float32([[[[-0.0, 0.0], [np.nan, -1.0]]]])
    assert np.signbit(ops.Relu().replay("keeps", x, engine=FAST)).flat[0]
    assert not np.signbit(ops.Relu().replay("plain", x, engine=FAST)).flat[0]
    assert ops.Relu().replay("drops", x, engine=FAST).flat[2] == 0
    scaled = ops.Relu().replay("scales", np.float32([-0.0, 0.0, -1.0, 2.0, np.nan, -np.inf]), engine=FAST)
    assert same_bits(scaled, np.float32([-0.0, 0.0, -0.0, 2.0, np.nan, np.nan]))
    pool = ops.MaxPool((2, 2))
    assert np.isnan(pool.replay("plain", x, engine=FAST)).all()
    assert pool.replay("running", x, engine=FAST).item() == 0
    assert np.signbit(pool.replay("running", x, engine=FAST)).all()  # the first zero
    assert pool.replay("running", np.full_like(x, -np.inf), engine=FAST).item() == np.finfo(np.float32).min


def test_clips_from_zero_on_differ_in_zeros_and_nan():
    x = np.float32([-0.0, 0.0, np.nan, -np.inf, np.inf, 1e-40, -1e-40, 7, 3])
    expected = {
        "plain": [0.0, 0.0, np.nan, 0.0, 6, 1e-40, 0.0, 6, 3],
        "keeps": [-0.0, 0.0, np.nan, 0.0, 6, 1e-40, 0.0, 6, 3],
        "drops": [0.0, 0.0, 0.0, 0.0, 6, 1e-40, 0.0, 6, 3],
    }
    op = ops.Clip(0.0, 6.0)
    assert op.menu == tuple(expected)
    assert op.needs_recipe
    for formula, y in expected.items():
        assert same_bits(op.replay(formula, x, engine=FAST), np.float32(y)), formula
    assert not ops.Clip(-1.0, 6.0).needs_recipe
    with pytest.raises(InputError, match="formula must be one of none"):
        ops.Clip(-1.0, 6.0).replay("drops", x, engine=FAST)


def test_quotients_by_a_reciprocal():
    x = np.float32([1, 2, 3, 5, 7, np.inf, 1e-30])
    third = np.float32(1) / np.float32(3)
    assert same_bits(ops.WithScalar("div", 3.0).replay("reciprocal", x, engine=FAST), x * third)
    assert same_bits(ops.WithScalar("div", 3.0).replay("plain", x, engine=FAST), x / np.float32(3))
    assert not same_bits(x / np.float32(3), x * third)
    assert ops.WithScalar("mul", 3.0).menu == ()
    swapped = ops.Div(swapped=True)
    assert same_bits(
        swapped.replay("reciprocal", x, x[::-1].copy(), engine=FAST), x[::-1] * (np.float32(1) / x)
    )


@pytest.mark.parametrize("fix_gamma", [False, True])
def test_batch_norm_step_by_step(fix_gamma):
    """The formulas' own words, in NumPy's float32 and with an exact FMA."""
    op = ops.BatchNorm(1e-3, fix_gamma)
    x, g, beta, mean, var = arrays(op, ((1, 64, 3, 2), (64,), (64,), (64,), (64,)), 0.0)
    used = np.ones_like(g) if fix_gamma else g
    root = np.sqrt(var + np.float32(1e-3))
    i = np.float32(1) / root
    a, s = used * i, used / root
    shift = [exact_fma(-m, k, b) for m, k, b in zip(mean, a, beta, strict=True)]
    for formula in op.formulas:
        y = op.replay(formula, x, g, beta, mean, var, engine=FAST)
        for at in np.ndindex(x.shape):
            c, v = at[1], x[at]
            expected = {
                "scaled": v * a[c] + (beta[c] - mean[c] * a[c]),
                "scaled-fused": exact_fma(v, a[c], shift[c]),
                "folded": v * s[c] + (beta[c] - mean[c] * s[c]),
                "folded-fused": exact_fma(v, s[c], beta[c] - mean[c] * s[c]),
                "centred": (v - mean[c]) * s[c] + beta[c],
                "centred-fused": exact_fma(v - mean[c], s[c], beta[c]),
                "normalised": used[c] * ((v - mean[c]) * i[c]) + beta[c],
                "normalised-fused": exact_fma(used[c], (v - mean[c]) * i[c], beta[c]),
            }[formula]
            assert y[at] == expected, (formula, at)


def test_sums_step_by_step():
    x, w = awkward((2, 12, 3, 3), "x", 0.2), floats((2, 12), "w")
    x[:, :, 0] = -0.0
    parts, weights = x.reshape(2, 3, 4, 3, 3), np.abs(w).reshape(2, 3, 4, 1, 1)
    with np.errstate(all="ignore"):
        for op, first, inputs in (
            (ops.RadixSum(3), [parts[:, r] for r in range(3)], (x,)),
            (ops.WeightedSum(3), [weights[:, r] * parts[:, r] for r in range(3)], (np.abs(w), x)),
        ):
            total = first[0] + first[1] + first[2]
            assert same_bits(op.replay("first", *inputs, engine=FAST), total)
            assert same_bits(op.replay("zero", *inputs, engine=FAST), np.float32(0) + total)
            assert np.signbit(total[:, :, 0]).all()
        a, b, c = parts[:, 0], parts[:, 1], parts[:, 2]
        assert same_bits(ops.Add(3).replay("left", a, b, c, engine=FAST), (a + b) + c)
        assert same_bits(ops.Add(3).replay("right", a, b, c, engine=FAST), a + (b + c))


@pytest.mark.parametrize("pad", [(0, 0), (1, 1)])
def test_max_pools_step_by_step(pad):
    values = np.array([0, -0.0, -1, np.nan, -np.inf, np.finfo(np.float32).min], np.float32)
    x = values[(np.abs(floats((1, 4, 9, 11), "pool")) * 5.999).astype(int)]
    op = ops.MaxPool((3, 3), (2, 2), pad)
    found = {rule: op.replay(rule, x, engine=FAST) for rule in ("running", "columns")}

    def later(a: np.float32, b: np.float32) -> np.float32:
        return a if a > b else b

    for _, c, i, j in np.ndindex(found["running"].shape):
        rows = [p for p in range(i * 2 - pad[0], i * 2 - pad[0] + 3) if 0 <= p < 9]
        running, tops = values[5], []
        for p in rows:
            for q in range(max(j * 2 - pad[1], 0), min(j * 2 - pad[1] + 3, 11)):
                running = x[0, c, p, q] if x[0, c, p, q] > running else running
        for q in range(j * 2 - pad[1], j * 2 - pad[1] + 3):
            top = x[0, c, rows[0], q] if 0 <= q < 11 else values[5]
            for p in rows[1:] if 0 <= q < 11 else ():
                v = x[0, c, p, q]
                top = (top if not v > top else v) if q >= 8 else later(top, v)  # 9 to 11: no whole vector
            tops.append(top)
        columns = later(later(tops[0], tops[1]), tops[2])
        assert same_bits(np.array(running), np.array(found["running"][0, c, i, j]))
        assert same_bits(np.array(columns), np.array(found["columns"][0, c, i, j]))


def test_weights_of_a_batch_norm_are_folded_once():
    op = ops.BatchNorm(1e-5)
    weights = [floats((8,), i) + np.float32(2) for i in range(4)]
    for array in weights:
        array.flags.writeable = False
    assert op.factors(FAST, "scaled", *weights)[2] is op.factors(FAST, "scaled", *weights)[2]
    assert op.factors(FAST, "scaled", *weights)[2] is not op.factors(FAST, "centred", *weights)[2]
