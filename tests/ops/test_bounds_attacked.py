"""Every op's bound attacked: cancelling, negative, subnormal and huge numbers, in many orders and formulas.

Whatever a float32 evaluation gives must lie inside: refnet's own order, each formula of the op's menu, sums
in random orders with and without FMA, and for batch norms eps as float32 or float64.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import InputError
from refnet.core.op import Interval, Op, Reduction, TensorType
from refnet.core.orders import FINISHES, Chain, Expr, Leaf, Order, Program, Sum
from refnet.frameworks.reveal.formulas import candidates
from tests.helpers.engines import FAST
from tests.ops.test_ops_rules import EXAMPLES, Example

KINDS = ("near", "cancelling", "mixed", "subnormal", "tiny", "huge", "edge")
F = np.float32


def numbers(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Adversarial float32."""
    x = rng.normal(size=shape)
    size = x.size
    match kind:
        case "cancelling":  # pairs that differ in their last bits, of opposite signs
            flat = x.reshape(-1)
            flat[1::2] = -flat[: size // 2 * 2 : 2][: flat[1::2].size] * (1 + rng.integers(-2, 3) * 2.0**-23)
        case "mixed":
            x *= 2.0 ** rng.integers(-40, 41, shape)
        case "subnormal":
            x *= 2.0 ** rng.integers(-149, -125, shape)
        case "tiny":
            x *= 2.0 ** rng.integers(-80, -60, shape)
        case "huge":
            x *= 2.0 ** rng.integers(55, 64, shape)
        case "edge":
            x = np.sign(x) * rng.choice([0.0, 1e-45, 2.0**-126, 2.0**-63, 1.0, 2.0**24, 2.0**62, 1e18], shape)
    return x.astype(F)


def arguments(example: Example, rng: np.random.Generator, kinds: list[str]) -> list[np.ndarray]:
    """Inputs and weights, each of a kind of its own; variances also below zero, next to -eps."""
    op = example.op
    values = [numbers(rng, shape, rng.choice(kinds)) for shape in example.data]
    types = op.weight_types(*(TensorType(v.shape) for v in values))
    for role, kind in zip(op.weight_roles(), types, strict=True):
        weight = numbers(rng, kind.shape, rng.choice(kinds))
        if role == "var":
            assert isinstance(op, ops.BatchNorm)
            share = 1 - 2.0 ** -rng.integers(1, 24, kind.shape).astype(float)
            near = -op.eps * np.where(rng.random(kind.shape) < 0.2, 1 - 2.0**-24, share)
            weight = np.where(rng.random(kind.shape) < 0.6, near, np.abs(weight)).astype(F)
        values.append(weight)
    return values


def expression(rng: np.random.Generator, terms: int, leaves: list[Leaf]) -> Expr:
    """A random order: chains of random terms, fused or not, joined in a random tree."""
    chunks = np.array_split(rng.permutation(terms), rng.integers(1, min(terms, 6) + 1))
    parts: list[Expr] = [*leaves]
    for chunk in chunks:
        seed = rng.choice([Leaf.ZERO, Leaf.FIRST])
        parts.append(Chain(seed, Order.of([int(k) for k in chunk]), bool(rng.integers(2))))
    rng.shuffle(parts)  # type: ignore[arg-type]
    while len(parts) > 1:
        at, count = int(rng.integers(len(parts) - 1)), int(rng.integers(2, 4))
        parts[at : at + count] = [Sum(tuple(parts[at : at + count]))]
    return parts[0]


def evaluations(
    op: Op, values: list[np.ndarray], rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """The op's value, in every way that refnet can compute it."""
    types = [TensorType(v.shape) for v in values]
    yield "plain", op.run(*values, engine=FAST)
    terms = op.total_terms(*types)
    for _ in range(1 if terms is None else 3):
        total = None if terms is None else expression(rng, terms, [])
        for choice in candidates(op, total):
            with suppress(InputError):  # it is another case's
                yield choice.formula, op.replay(choice.formula, *values, engine=FAST, total=choice.total)
    if isinstance(op, Reduction) and op.ordered:
        leaves = [Leaf.BIAS] * op.biased() + [Leaf.ADDEND] * op.adds
        for k in range(4):
            finish = FINISHES[1 + k % 4] if op.averages else "none"
            program = Program(expression(rng, op.terms(*types), leaves), "skip", finish)
            yield f"{program}", op.in_order(program, *values, engine=FAST)
    if isinstance(op, ops.BatchNorm):
        yield from kept(op, values)


def kept(op: ops.BatchNorm, values: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """A batch norm whose eps stays a float64 until it is added, or until the root is taken."""
    x, g, beta, mean, var = values
    g = np.ones_like(g) if op.fix_gamma else g
    column = (slice(None), *[None] * (x.ndim - 2))
    wide = var.astype(np.float64) + op.eps
    for name, i in (("sum", F(1) / np.sqrt(wide.astype(F))), ("root", (1 / np.sqrt(wide)).astype(F))):
        a = g * i
        yield f"eps in float64, {name}", x * a[column] + (beta - mean * a)[column]
        yield f"eps in float64, {name}, centred", (x - mean[column]) * a[column] + beta[column]


def check(example: Example, rng: np.random.Generator, kinds: list[str]) -> int:
    """How many elements had a finite bound; all evaluations lie in it."""
    values = arguments(example, rng, kinds)
    with np.errstate(all="ignore"):
        found = example.op.bound(*(Interval.exactly(v) for v in values), engine=FAST)
        promised = np.isfinite(found.radius)
        assert not np.isnan(found.radius).any()
        for name, y in evaluations(example.op, values, rng):
            off = np.abs(y.astype(np.float64) - found.center)
            wrong = promised & ~(off <= found.radius)
            if wrong.any():
                at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
                raise AssertionError(
                    f"{name}: {y[at]!r} at {at}, bound {found.center[at]!r} +- {found.radius[at]!r}"
                )
    return int(promised.sum())


ROUNDS = 12


@pytest.mark.parametrize("example", EXAMPLES, ids=[repr(e.op) for e in EXAMPLES])
def test_every_evaluation_lies_inside(example: Example):
    rng = np.random.default_rng(zlib.crc32(repr(example.op).encode()))
    promised = 0
    for k in range(ROUNDS):
        kinds = [KINDS[k % len(KINDS)]] if k < len(KINDS) else list(KINDS)
        promised += check(example, rng, kinds)
    assert promised


def test_batch_norm_next_to_minus_eps():
    """The case that showed it: PyTorch gives 2097152, 320,949 away from the centre."""
    op = ops.BatchNorm(1.001e-5)
    var = np.nextafter(F(-1.001e-5), F(0))
    values = [np.full((1, 1, 1, 1), 2, F), *(np.full(1, v, F) for v in (1, 0, 0, var))]
    found = op.bound(*(Interval.exactly(v) for v in values), engine=FAST)
    assert round(float(found.center[0, 0, 0, 0]), 2) == 1776203.17
    assert 320_949 < found.radius[0, 0, 0, 0] < 700_000
    values[4] = np.full(1, F(-1.001e-5), F)  # float32's eps: an evaluation may find 0 under the root
    assert np.isinf(op.bound(*(Interval.exactly(v) for v in values), engine=FAST).radius).all()
    assert not op.nan_propagates(*values[1:])


def test_softmax_of_an_exp_that_rounds_its_reduction():
    """oneDNN without FMA rounds n ln 2: its exp is off by as much as the rounding of x - m, again."""
    op, worst = ops.Softmax(1), 0.0
    rows = np.stack([np.linspace(-50, -30, 20000), np.linspace(0.3, 0.4, 20000)], 1).astype(F)
    found = op.bound(Interval.exactly(rows), engine=FAST)
    for formula in op.formulas:
        off = np.abs(op.replay(formula, rows, engine=FAST).astype(float) - found.center)
        assert (off <= found.radius).all(), formula
        worst = max(worst, float((off / found.center)[:, 0].max() * 2**24))
    assert worst > 55  # of which 4 were assumed, and at most 32 are the difference's


def test_a_batch_norm_next_to_minus_eps_folded_into_hidden_weights():
    """w a and beta - a mean, a by several formulas; the sum in between is never computed."""
    conv, norm, rng = ops.Conv(8, (1, 1)), ops.BatchNorm(1e-3), np.random.default_rng(5)
    largest = 0.0
    for _ in range(40):
        x, w = numbers(rng, (1, 6, 2, 2), "near"), numbers(rng, (8, 6, 1, 1), "near")
        g, beta, mean = (numbers(rng, (8,), "near") for _ in range(3))
        var = (-1e-3 * (1 - 2.0 ** -rng.integers(4, 22, 8).astype(float))).astype(F)
        between = conv.bound(*(Interval.exactly(v) for v in (x, w)), engine=FAST)
        found = norm.bound(between, *(Interval.exactly(v) for v in (g, beta, mean, var)), engine=FAST)
        single = np.sqrt(var + F(1e-3))
        double = np.sqrt(var.astype(np.float64) + 1e-3)
        with np.errstate(all="ignore"):
            factors = (g / single, g * (F(1) / single), (g / double).astype(F))
        for a in factors:
            folded, shift = w * a[:, None, None, None], beta - a * mean
            y = np.zeros((1, 8, 2, 2), F) + shift[:, None, None]
            for k in range(6):
                y = y + folded[:, k] * x[:, k]
            promised = np.isfinite(found.radius)
            share = np.abs(y - found.center)[promised] / found.radius[promised]
            assert (share <= 1).all()
            largest = max(largest, float(share.max(initial=0)))
    assert largest > 0.2
