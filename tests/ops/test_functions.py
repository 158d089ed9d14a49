"""The functions of one number: special values, monotonic pieces, ties of powers, the frameworks' formulas."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import GraphError, InputError
from refnet.core.op import Interval, Op, TensorType
from refnet.ops.function import Function
from tests.helpers.bits import floats, same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import EXACT, FAST
from tests.helpers.exact_functions import FUNCTIONS

NAN, INF = np.nan, np.inf
AT = [NAN, INF, -INF, 0.0, -0.0, 3e38, -3e38]
SPECIAL: list[tuple[Op, list[float]]] = [
    (ops.Exp(), [NAN, INF, 0, 1, 1, INF, 0]),
    (ops.Log(), [NAN, INF, NAN, -INF, -INF, 88.59685, NAN]),
    (ops.Tanh(), [NAN, 1, -1, 0, -0.0, 1, -1]),
    (ops.Erf(), [NAN, 1, -1, 0, -0.0, 1, -1]),
    (ops.Sqrt(), [NAN, INF, NAN, 0, -0.0, 1.7320508e19, NAN]),
    (ops.Abs(), [NAN, INF, INF, 0, 0, 3e38, 3e38]),
    (ops.Sin(), [NAN, NAN, NAN, 0, -0.0, 0.87490487, -0.87490487]),
    (ops.Cos(), [NAN, NAN, NAN, 1, 1, -0.48429477, -0.48429477]),
    (ops.Tan(), [NAN, NAN, NAN, 0, -0.0, -1.8065544, 1.8065544]),
    (ops.Sinh(), [NAN, INF, -INF, 0, -0.0, INF, -INF]),
    (ops.Cosh(), [NAN, INF, INF, 1, 1, INF, INF]),
    (ops.Asinh(), [NAN, INF, -INF, 0, -0.0, 89.28999, -89.28999]),
    (ops.Acosh(), [NAN, INF, NAN, NAN, NAN, 89.28999, NAN]),
    (ops.Atanh(), [NAN, NAN, NAN, 0, -0.0, NAN, NAN]),
    (ops.Atan(), [NAN, 1.5707964, -1.5707964, 0, -0.0, 1.5707964, -1.5707964]),
    (ops.Asin(), [NAN, NAN, NAN, 0, -0.0, NAN, NAN]),
    (ops.Acos(), [NAN, NAN, NAN, 1.5707964, 1.5707964, NAN, NAN]),
    (ops.Softplus(), [NAN, INF, 0, 0.6931472, 0.6931472, 3e38, 0]),
    (ops.Mish(), [NAN, INF, -0.0, 0, -0.0, 3e38, -0.0]),
    (ops.Silu(), [NAN, INF, -0.0, 0, -0.0, 3e38, -0.0]),
    (ops.Gelu(), [NAN, INF, -0.0, 0, -0.0, 3e38, -0.0]),
    (ops.Gelu(tanh=True), [NAN, INF, -0.0, 0, -0.0, 3e38, -0.0]),
    (ops.Elu(0.5), [NAN, INF, -0.5, 0, -0.0, 3e38, -0.5]),
    (ops.Softsign(), [NAN, 1, -1, 0, -0.0, 1, -1]),
    (ops.HardSigmoid(), [NAN, 1, 0, 0.5, 0.5, 1, 0]),
    (ops.HardSwish(), [NAN, INF, NAN, 0, -0.0, 3e38, -0.0]),
    (ops.Power(3.0), [NAN, INF, -INF, 0, -0.0, INF, -INF]),
    (ops.Power(-2.0), [NAN, 0, 0, INF, INF, 0, 0]),
    (ops.Power(0.5), [NAN, INF, INF, 0, 0, 1.7320508e19, NAN]),
]


@pytest.mark.parametrize(("op", "expected"), SPECIAL, ids=lambda one: repr(one)[:40])
def test_special_values(op, expected):
    x = np.float32(AT)
    assert same_bits(op.golden(x, exact=EXACT), np.float32(expected))
    assert same_bits(op.run(x, engine=FAST), np.float32(expected))


MONOTONIC = [ops.Exp(), ops.Log(), ops.Tanh(), ops.Erf(), ops.Softplus(), ops.Elu(), ops.Softsign()]
MONOTONIC += [ops.HardSigmoid(), ops.Sqrt(), ops.Power(3.0), ops.Power(0.75)]
MONOTONIC += [ops.Sinh(), ops.Asinh(), ops.Atan()]


@pytest.mark.parametrize("op", MONOTONIC, ids=repr)
@pytest.mark.parametrize("start", [0x00000000, 0x33000000, 0x3E800000, 0x3F7FF000, 0x40100000, 0x42AF0000])
def test_rounded_values_of_a_monotonic_function_are_monotonic(op, start):
    x = np.arange(start, start + 4000, dtype=np.uint32).view(np.float32)
    y = op.golden(x, exact=EXACT)
    assert (y[1:] >= y[:-1]).all()
    if not isinstance(op, ops.Log | ops.Sqrt | ops.Power):
        y = op.golden(-x, exact=EXACT)
        assert (y[1:] <= y[:-1]).all()


TURNING = [ops.Mish(), ops.Silu(), ops.Gelu(), ops.Gelu(True), ops.HardSwish()]


@pytest.mark.parametrize("op", TURNING, ids=repr)
def test_the_least_value_is_where_the_bound_has_it(op):
    """Values fall up to the first number and rise from the second, and never lie below the third."""
    falls, rises, least = op.minimum
    x = np.linspace(-20, 3, 200001)
    y = op.values(x, FAST).astype(np.float32)
    assert (np.diff(y[x <= falls]) <= 0).all()
    assert (np.diff(y[x >= rises]) >= 0).all()
    assert least <= y.min() < least + 1e-6
    wide = op.bound(Interval(np.array([(falls + rises) / 2]), np.array([2.0])), engine=FAST)
    assert wide.center[0] - wide.radius[0] <= y.min()


@pytest.mark.parametrize("exponent", [0.5, 1.5, -0.5, 0.75, 3.0, -1.0])
def test_ties_of_powers_go_to_the_even_neighbour(exponent):
    """Squares and fourth powers whose power is a float32 or a middle between two, by integers."""
    degree = Fraction(exponent).denominator
    roots = [1, 3, 5, 257, 301, 321, 0.5, 2.0**-20]  # the cubes of 257, 301 and 321 are middles
    roots = [r for r in roots if float(np.float32(r**degree)) == r**degree]
    assert len(roots) >= 5
    x = [r**degree for r in roots]
    exact = [Fraction(r) ** int(exponent * degree) for r in roots]
    expected = np.array([round_float32(y) for y in exact], np.float32)
    op = ops.Power(exponent)
    assert same_bits(op.golden(np.float32(x), exact=EXACT), expected)
    for value, true in zip(x, exact, strict=True):  # not by luck of the float64 either
        guess = float(op.values(np.array([float(value)]), FAST)[0])
        found = op.refined(float(value), guess, EXACT)
        assert same_bits(np.float32(found), round_float32(true))


def test_odd_subnormals_are_halved_upwards():
    """x/2 is a middle, and the rest of SiLU and GELU, far below any precision, is positive."""
    x = np.arange(1, 64, 2, dtype=np.uint32).view(np.float32)
    for op in (ops.Silu(), ops.Gelu(), ops.Gelu(True)):
        up = ((np.arange(1, 64, 2) + 1) // 2).astype(np.uint32).view(np.float32)
        down = (np.arange(1, 64, 2) // 2).astype(np.uint32).view(np.float32)
        assert same_bits(op.golden(x, exact=EXACT), up)
        assert same_bits(op.golden(-x, exact=EXACT), -down)


EXPLAINED = [one for one in FUNCTIONS if isinstance(one.op, Function)]


@pytest.mark.parametrize("one", EXPLAINED, ids=lambda one: repr(one.op))
def test_an_element_is_taken_apart(one):
    x = np.float32([0.75 + one.least])
    found = one.op.explain(x, at=(0,), exact=EXACT)
    assert [step.symbol for step in found.steps] == ["x", "y"]
    assert abs(Fraction(found.steps[1].exact) - one.value(0.75 + one.least)) < Fraction(1, 10**38)
    assert same_bits(np.float32(found.golden), one.op.golden(x, exact=EXACT)[0])
    assert one.op.explain(np.float32([NAN]), at=(0,), exact=EXACT).steps == ()


SAMPLE = np.concatenate(
    [
        np.arange(0, 1 << 32, 1 << 18, dtype=np.uint64).astype(np.uint32).view(np.float32),
        floats((1 << 14,), "ordinary") * np.float32(12),
    ]
)
SIXTH = float(np.float32(1 / 6))
HASHES = {
    ("Tanh()", "mlas"): "0c7ff6140d7a08a2",
    ("Erf()", "mlas"): "20050ddbdad1c7cd",
    ("Silu()", "sleef"): "59a919125ba56e7d",
    ("Silu()", "glibc"): "f5742ba1c296bce6",
    ("Silu()", "mlas"): "6a340023ffa07425",
    ("Gelu()", "mlas"): "3b02481784e217cc",
    ("Gelu(tanh=True)", "mlas"): "3cf461c5b5cacdfa",
    ("Elu(alpha=0.75)", "onednn"): "6d18dc3e98dcf33e",
    ("Elu(alpha=0.75)", "onednn-unfused"): "67b0f9fe8b50cb61",
    ("Tanh()", "glibc"): "892a5085c90ec439",
    ("Erf()", "glibc"): "27d962874417959a",
    ("Gelu()", "onednn"): "a87e867c6105e277",
    ("Gelu()", "onednn-avx2"): "2634694dd14524e2",
    ("Gelu()", "sleef"): "e64f5fa700388fb8",
    ("Gelu()", "glibc"): "e3e493711be9966c",
    ("Gelu(tanh=True)", "sleef"): "d63bff397adc0741",
    ("Gelu(tanh=True)", "glibc"): "d0437a919951d4c2",
    ("Gelu(tanh=True)", "glibc-unfused"): "56fdc7171167898f",
    ("Elu(alpha=0.75)", "sleef"): "f34cbd251323a31a",
    ("Elu(alpha=0.75)", "glibc"): "7d1c054fdb926696",
    ("Elu(alpha=0.75)", "eigen"): "2bf89fd0fa669060",
    ("Elu(alpha=0.75)", "eigen-glibc"): "5ba9cdc501233975",
    ("Elu(alpha=0.75)", "eigen-zero"): "7dd64a23568e4239",
    ("Elu(alpha=0.75)", "eigen-zero-glibc"): "2882985d6b759d2d",
    ("Softsign()", "quotient"): "c5ff6e0197c5a7ed",
    ("Softsign()", "reciprocal"): "e7462ce4db547ee9",
    ("HardSigmoid()", "linear"): "35d3fd625b51785e",
    ("HardSigmoid(alpha=0.1666666716337204)", "linear"): "ac128f2542e897eb",
    ("HardSigmoid(alpha=0.1666666716337204)", "sixth"): "b1b0d04b99e835d1",
    ("HardSwish()", "linear"): "51d1e601adb24d15",
    ("HardSwish()", "sixth"): "690a39c5ecf8fd0d",
}
"""The sha256 of results that were the framework's (tests/crosscheck/test_elementwise_real.py), NaN as one."""
WITH_FORMULAS = [ops.Tanh(), ops.Erf(), ops.Silu(), ops.Gelu(), ops.Gelu(True), ops.Elu(0.75), ops.Softsign()]
WITH_FORMULAS += [ops.HardSigmoid(), ops.HardSigmoid(SIXTH), ops.HardSwish()]


@pytest.mark.parametrize("op", WITH_FORMULAS, ids=repr)
def test_the_formulas_keep_their_bits(op):
    for name in op.menu:
        y = op.replay(name, SAMPLE, engine=FAST)
        y[np.isnan(y)] = np.nan
        bits = np.where(np.isnan(y), np.uint32(0x7FC00000), y.view(np.uint32))
        assert hashlib.sha256(bits.astype("<u4").tobytes()).hexdigest()[:16] == HASHES[repr(op), name]
    with pytest.raises(InputError, match="formula must be one of"):
        op.replay("no such", SAMPLE, engine=FAST)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (ops.Power(0.0), "exponent must not be 0"),
        (ops.Power(0.1), "exponent must be a float32"),
        (ops.Elu(-1.0), "alpha and scale must not be negative"),
        (ops.Elu(1.0, 1.0, 0.0), "width must be positive"),
        (ops.HardSigmoid(0.1), "alpha must be a float32"),
        (ops.HardSigmoid(float("inf")), "alpha must be a float32"),
    ],
    ids=lambda one: repr(one)[:40],
)
def test_parameters_that_do_not_fit(op, message):
    with pytest.raises(GraphError, match=message):
        op.type(TensorType((1, 2)))


HARD = [2.0**-149, 2.0**-126, 2.0**-40, 2.0**-12, 0.19891, 1 / 3, 0.5, 1 - 2.0**-24, 1 - 2.0**-12, 1.0]
HARD += [1 + 2.0**-23, 1 + 2.0**-12, 1.25, 1.5707963, 3.1415927, 11.0, 88.0, 2.0**20, 1.0995116e12]
HARD += [2.1990233e12, 1e30, 3e38]
INVERSE = [one for one in FUNCTIONS if type(one.op).__module__.endswith(".inverse")]


@pytest.mark.parametrize("one", INVERSE, ids=lambda one: repr(one.op))
def test_the_float64_formula_is_as_near_as_it_claims(one):
    """At the edges of its cases and on numbers of all sizes; and its golden value is the rounded one."""
    sizes = [*HARD, *(abs(floats((60,), "sizes").astype(np.float64)) * 2.0 ** np.arange(-30, 30))]
    x = np.float32([s * sign for s in sizes for sign in (1, -1)])
    x = x[(np.abs(x) <= one.most) & (x >= (one.least or -np.inf))]
    with np.errstate(all="ignore"):
        center = one.op.values(x.astype(np.float64), FAST)
        plain = one.op.golden(x, exact=EXACT)
    worst = 0.0
    for v, c, y in zip(x, center, plain, strict=True):
        true = one.value(float(v))
        if abs(true) < Fraction(2) ** 128:
            assert same_bits(y, round_float32(true, float(y))), v
        if np.isfinite(c) and true:
            worst = max(worst, float(abs(Fraction(float(c)) - true) / abs(true)))
    assert 0 < worst < one.op.error
