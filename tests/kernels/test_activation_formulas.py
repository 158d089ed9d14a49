"""The menus of activations and elementary functions: in the bounds, told apart, the same in threads."""

from __future__ import annotations

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import InputError
from refnet.core.op import F32, Interval, Op
from refnet.formats.mxnet.functions import SELU
from refnet.kernels.engine import Fast
from tests.helpers.bits import AWKWARD, floats, same_bits
from tests.helpers.engines import FAST

OPS: tuple[Op, ...] = (
    *(ops.Exp(), ops.Log(), ops.Tanh(), ops.Erf(), ops.Sqrt(), ops.Softplus(), ops.Mish(), ops.Silu()),
    *(ops.Gelu(), ops.Gelu(True), ops.Elu(), ops.Elu(0.75), SELU, ops.Elu(0.75, 1.0, 0.75)),
    *(ops.Power(3.0), ops.Power(-2.0), ops.Power(-1.0), ops.Power(-0.5), ops.Power(0.75)),
)
ZERO = np.float32(-0.0)
EACH = [pytest.param(op, name, id=f"{op!r} {name}") for op in OPS for name in op.menu]
ALIKE = {("glibc", "glibc-unfused")}
"""expf with and without FMA: two inputs in 2**32 tell them apart."""


def numbers(op: Op) -> F32:
    """Of ordinary and of all sizes; no negative ones where the op has NaN for them."""
    sizes = floats((2000,), "sizes").astype(np.float64) * 2.0 ** np.linspace(-60, 60, 2000)
    x = np.concatenate([floats((20000,), repr(op)) * np.float32(9), sizes.astype(np.float32), [ZERO]])
    positive = isinstance(op, ops.Log | ops.Sqrt) or (isinstance(op, ops.Power) and op.exponent % 1)
    return np.abs(x) if positive else x


@pytest.mark.parametrize(("op", "formula"), EACH)
def test_a_formula_lies_in_the_bound_of_its_op(op: Op, formula: str) -> None:
    x = numbers(op)
    y = op.replay(formula, x, engine=FAST)
    bound = op.bound(Interval.exactly(x), engine=FAST)
    with np.errstate(all="ignore"):
        inside = np.abs(y - bound.center) <= bound.radius
    assert (inside | ~np.isfinite(bound.radius)).all()
    assert np.isfinite(bound.radius).sum() > 15000
    assert y.dtype == np.float32


@pytest.mark.parametrize(("op", "formula"), EACH)
def test_threads_shapes_and_specials(op: Op, formula: str) -> None:
    x = np.concatenate([numbers(op), AWKWARD])
    y = op.replay(formula, x, engine=Fast(1))
    assert same_bits(op.replay(formula, x, engine=Fast(3)), y)
    assert same_bits(op.replay(formula, x[:60].reshape(3, 4, 5), engine=FAST).reshape(-1), y[:60])
    assert np.isnan(op.replay(formula, np.float32([np.nan]), engine=FAST)).all()


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_no_two_formulas_are_the_same(op: Op) -> None:
    """So a choice by bits says something."""
    x = numbers(op)
    found = {name: op.replay(name, x, engine=FAST) for name in op.menu}
    for i, a in enumerate(op.menu):
        for b in op.menu[i + 1 :]:
            assert not same_bits(found[a], found[b]) or ((a, b) in ALIKE and op != ops.Gelu(True)), (a, b)


def test_zeros_and_infinities() -> None:
    """What the frameworks were seen to give."""
    x = np.float32([-0.0, 0.0, -np.inf, np.inf])
    for formula in ops.Elu().menu:
        zero = 0.0 if formula.startswith(("onednn", "eigen-zero")) else -0.0
        assert same_bits(ops.Elu().replay(formula, x, engine=FAST), np.float32([zero, 0, -1, np.inf]))
    for op in (SELU, ops.Elu(0.75, 1.0, 0.75)):
        assert same_bits(op.replay("eigen", x[:2], engine=FAST), np.float32([0, 0]))
        assert same_bits(op.replay("sleef", x[:2], engine=FAST), x[:2])
    for formula in ops.Softplus().menu:
        assert same_bits(ops.Softplus().replay(formula, x[2:], engine=FAST), np.float32([0, np.inf]))
    for formula in ops.Gelu().menu:
        y = ops.Gelu().replay(formula, x, engine=FAST)
        zero, most = 0.0 if formula == "onednn-avx2" else -0.0, np.nan if formula == "onednn" else np.inf
        assert same_bits(y, np.float32([zero, 0, np.nan, most])), formula
    assert same_bits(ops.Log().replay("eigen", x, engine=FAST), ops.Log().run(x, engine=FAST))
    assert same_bits(ops.Log().replay("glibc", x, engine=FAST), ops.Log().run(x, engine=FAST))


def test_powers_of_special_numbers_are_what_pow_gives() -> None:
    """As C99 annex F has them: signs of odd powers, NaN of others below 0, poles."""
    x = np.float32([-np.inf, -2, -0.0, 0.0, 1, 2, np.inf])
    for exponent in (3.0, -1.0, -2.0, 0.75, -0.5, 17.0):
        y = ops.Power(exponent).replay("glibc", x, engine=FAST)
        with np.errstate(all="ignore"):
            assert same_bits(y, np.power(x.astype(np.float64), exponent).astype(np.float32)), exponent


def test_what_applies_to_which_attributes() -> None:
    assert ops.Power(2.0).menu == ()
    assert not ops.Power(2.0).needs_recipe
    assert ops.Power(2.5).menu == ("glibc",)
    assert "onednn" not in ops.Gelu(True).menu
    for formula in ("onednn", "eigen-zero"):
        assert formula in ops.Elu(0.75).menu
        assert formula not in SELU.menu
    with pytest.raises(InputError, match="formula must be one of sleef, glibc, eigen, eigen-glibc"):
        SELU.replay("onednn", np.zeros(3, np.float32), engine=FAST)
