"""Normalisations: golden against rational arithmetic, and every float32 form inside the bound."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.core.op import Interval, Op
from refnet.exact.correct_rounding import RefineCount
from refnet.exact.engine import DecideOrRefine
from refnet.loops.engine import REFERENCE
from refnet.ops.merged_moments import merged_moments
from refnet.ops.row_sums import exact_sums
from tests.helpers.bits import floats, same_bits
from tests.helpers.definition import exact_fma, round_float32
from tests.helpers.engines import FAST

F = np.float32
EXACT = Golden().exact


def root(value: Fraction, bits: int = 300) -> Fraction:
    """The square root, off by a part of 2**-bits at most."""
    shift = max(0, bits - value.numerator.bit_length() + value.denominator.bit_length()) + 2
    scaled = value * 4**shift
    return Fraction(math.isqrt(scaled.numerator // scaled.denominator), 2**shift)


def by_fractions(
    row: np.ndarray, g: np.ndarray, b: np.ndarray, eps: float, centred: bool = True
) -> np.ndarray:
    values = [Fraction(float(v)) for v in row]
    m = sum(values, Fraction(0)) / len(values) if centred else Fraction(0)
    v = sum(((x - m) ** 2 for x in values), Fraction(0)) / len(values)
    s = root(v + Fraction(eps))
    return np.array(
        [
            round_float32((x - m) / s * Fraction(float(a)) + Fraction(float(c)))
            for x, a, c in zip(values, g, b, strict=True)
        ]
    )


ROWS = {
    "one": floats((6, 24), "one"),
    "a mean far away": floats((6, 24), "far") * F(1e-3) + F(1000),
    "one outlier": np.where(np.arange(24) == 7, F(1e6), floats((6, 24), "out")),
    "subnormal": floats((6, 24), "sub") * F(1e-40),
    "huge": floats((6, 24), "huge") * F(1e30),
    "all the same": np.full((6, 24), 0.1, F),
    "two values": np.where(floats((6, 24), "two") > 0, F(3), F(-1)),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("eps", [1e-5, 0.0, 1.0])
def test_golden_is_the_rational_value_rounded_once(name, eps):
    x = ROWS[name]
    g, b = floats((24,), "g"), floats((24,), "b")
    found = ops.LayerNorm(eps).golden(x, g, b, exact=EXACT)
    rms = ops.RMSNorm(eps).golden(x, g, exact=EXACT)
    if name == "all the same" and eps == 0:
        assert np.isnan(found).all()
    else:
        assert same_bits(found, np.stack([by_fractions(row, g, b, eps) for row in x]))
    assert same_bits(rms, np.stack([by_fractions(row, g, 0 * b, eps, False) for row in x]))


def test_open_elements_are_settled_exactly():
    """Two values of equal count: without eps (x - m) / s is exactly 1 or -1, and y a midpoint."""
    x = F([[5, 3] * 4])
    half = F([2.0**-24, -(2.0**-24)] * 4)
    g, b = np.ones(8, F), half
    count = RefineCount()
    found = ops.LayerNorm(0.0).golden(x, g, b, exact=DecideOrRefine(FAST, count))
    assert same_bits(found, F([[1, -1] * 4]))  # 1 + 2**-24 and -1 - 2**-24 are midpoints: to even
    assert count.by_op["LayerNorm"] == (8, 8)
    above = ops.LayerNorm(0.0).golden(x, g + F(2.0**-23), b, exact=EXACT)
    assert same_bits(above, F([[1 + 2.0**-22, -1 - 2.0**-22] * 4]))


def test_a_mean_far_away_leaves_next_to_nothing_open():
    count = RefineCount()
    x = floats((64, 768), "tokens") * F(1e-3) + F(100)
    ops.LayerNorm(1e-5).golden(x, np.ones(768, F), np.zeros(768, F), exact=DecideOrRefine(FAST, count))
    elements, opened = count.by_op["LayerNorm"]
    assert (elements, opened < 20) == (64 * 768, True)


def test_specials_are_defined():
    one, zero = np.ones(4, F), np.zeros(4, F)
    layer = ops.LayerNorm(1e-5)
    for special in (np.nan, np.inf, -np.inf):
        x = F([[special, 1, 2, 3], [0, 1, 2, 3]])
        for y in (layer.golden(x, one, zero, exact=EXACT), layer.run(x, one, zero, engine=FAST)):
            assert np.isnan(y[0]).all()
            assert np.isfinite(y[1]).all()
        assert layer.nan_propagates(one, zero)
    g = F([np.inf, np.inf, np.nan, -np.inf])
    y = layer.golden(F([[1, 2, 2, 3]]), g, zero, exact=EXACT)
    assert same_bits(y, F([[-np.inf, np.nan, np.nan, -np.inf]]))
    assert same_bits(ops.RMSNorm(0.0).golden(np.zeros((1, 4), F), one, exact=EXACT), F([[np.nan] * 4]))
    assert not ops.LayerNorm(0.0).nan_propagates(one, zero)
    rms, x = ops.RMSNorm(1e-5), F([[np.inf, -1, 0, 2]])
    for y in (rms.golden(x, one, exact=EXACT), rms.run(x, one, engine=FAST)):
        assert np.isnan(y[0, 0])
        assert (y[0, 1:] == 0).all()
    assert np.isnan(rms.golden(x, g, exact=EXACT)).all()


def test_exact_sums_are_exact():
    row = np.concatenate(
        [floats((40000,), "a") * F(1e20), floats((40000,), "b") * F(1e-30), F([2.0**-149] * 3)]
    )
    total, squares = exact_sums(row)
    values = [Fraction(float(v)) for v in row]
    assert total == sum(values)
    assert squares == sum(v * v for v in values)


def welford(x: np.ndarray) -> tuple[np.float32, np.float32]:
    m, total = F(0), F(0)
    for k, v in enumerate(x, 1):
        apart = F(v - m)
        m = F(m + F(apart / F(k)))
        total = F(total + F(apart * F(v - m)))
    return m, F(total / F(x.size))


def merged(x: np.ndarray, chunk: int) -> tuple[np.float32, np.float32]:
    """Welford's by chunks, which are merged into growing parts."""
    n, m, total = F(0), F(0), F(0)
    for begin in range(0, x.size, chunk):
        part = x[begin : begin + chunk]
        m2, v2 = welford(part)
        n2 = F(part.size)
        c = F(n2 / F(n + n2))
        apart = F(m2 - m)
        total = F(F(total + F(v2 * n2)) + F(F(F(apart * apart) * c) * n))
        m, n = F(m + F(c * apart)), F(n + n2)
    return m, F(total / F(x.size))


def moments(x: np.ndarray) -> dict[str, tuple[np.float32, np.float32]]:
    n = F(x.size)
    m = F(np.cumsum(x, dtype=F)[-1] / n)
    back = F(np.cumsum(x[::-1], dtype=F)[-1] * F(F(1) / n))
    return {
        "two passes": (m, F(np.cumsum((x - m) ** 2, dtype=F)[-1] / n)),
        "two passes, pairs": (F(x.sum() / n), F(np.square(x - F(x.sum() / n)).sum() / n)),
        "one pass": (back, F(F(np.cumsum(x * x, dtype=F)[-1] / n) - F(back * back))),
        "welford": welford(x),
        "merged": merged(x, 5),
        "merged pairs": merged(x, 2),
    }


def forms(x: np.ndarray, g: np.ndarray, b: np.ndarray, eps: float) -> list[np.ndarray]:
    """Every combination of a formula of mean and variance with one of the result."""
    found = []
    with np.errstate(all="ignore"):
        for m, v in moments(x).values():
            s = np.sqrt(F(v + F(eps)))
            i = F(F(1) / s)
            a = i * g
            found += [(x - m) / s * g + b, (x - m) * i * g + b, (x - m) * (g / s) + b, x * a + (b - m * a)]
    assert all(y.dtype == F for y in found)
    return found


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 500])
@pytest.mark.parametrize("offset", [0.0, 3.0, 300.0])
def test_every_form_lies_inside_the_bound(n, offset):
    op, largest = ops.LayerNorm(1e-5), 0.0
    for k in range(8):
        x = (floats((n,), (n, k)) + F(offset)).astype(F)
        g, b = floats((n,), (n, k, "g")), floats((n,), (n, k, "b"))
        x = np.sort(x) if k % 2 else x
        interval = op.bound(*(Interval.exactly(a) for a in (x[None], g, b)), engine=FAST)
        for y in forms(x, g, b, op.eps):
            with np.errstate(all="ignore"):
                share = np.abs(y - interval.center[0]) / interval.radius[0]
            assert (np.isinf(interval.radius[0]) | (share <= 1)).all()
            largest = max(largest, float(share[np.isfinite(interval.radius[0])].max(initial=0)))
    assert n == 1 or offset == 300 or largest > 2e-3, "a bound that nothing comes near"


def outside(op: Op, x: np.ndarray, weights: list[np.ndarray], found: np.ndarray) -> bool:
    interval = op.bound(*(Interval.exactly(a) for a in (x, *weights)), engine=FAST)
    assert np.isfinite(interval.radius).all()
    return bool((np.abs(found - interval.center) > interval.radius).any())


def test_bugs_lie_outside():
    """Another eps, the unbiased variance, another axis, a group too many, weights by position."""
    x = floats((2, 32, 6, 6), "bug")
    g, b = floats((32,), "gb"), floats((32,), "bb")
    group = ops.GroupNorm(1e-5, 8)
    n = 4 * 36
    unbiased = group.run(x, g * F(np.sqrt((n - 1) / n)), b, engine=FAST)
    assert outside(group, x, [g, b], unbiased)
    assert outside(group, x, [g, b], ops.GroupNorm(1e-3, 8).run(x, g, b, engine=FAST))
    assert outside(group, x, [g, b], ops.GroupNorm(1e-5, 4).run(x, g, b, engine=FAST))
    assert outside(group, x, [g, b], ops.InstanceNorm(1e-5).run(x, g, b, engine=FAST))
    assert not outside(group, x, [g, b], group.run(x, g, b, engine=FAST))
    tokens, w = floats((4, 32), "tokens") * F(0.01), [g, b]
    layer = ops.LayerNorm(1e-5)
    assert outside(layer, tokens, w, ops.LayerNorm(1e-6).run(tokens, *w, engine=FAST))
    across = (
        ops.LayerNorm(1e-5).run(np.ascontiguousarray(tokens.T), np.ones(4, F), np.zeros(4, F), engine=FAST).T
    )
    assert outside(layer, tokens, w, across * g + b)
    assert outside(layer, tokens, w, ops.RMSNorm(1e-5).run(tokens, g, engine=FAST) + b)
    assert outside(layer, tokens, w, layer.run(tokens, *w[::-1], engine=FAST))


def test_the_growth_of_errors_in_chains_and_merges():
    """W**2 of the bound's derivation holds the sums that it stands for."""

    def f(k: int) -> float:
        return 0.0 if k == 1 else k + 6 + 3 * math.log(k)

    def w2(n: int) -> float:
        levels = math.log2(n)
        return 0.65 * n * n + 61 * n + 2 * levels * (10 + 4 * levels) ** 2

    chain = np.cumsum([f(k) ** 2 / k for k in range(1, 1 << 14)])
    assert all(chain[n - 1] <= w2(n) for n in range(1, 1 << 14))
    for levels in range(1, 14):
        for leaf in range(levels):
            size, merges = 1 << leaf, levels - leaf
            assert chain[size - 1] + 2 * merges * (f(size) + 4 * merges) ** 2 <= w2(1 << levels)
    assert all(f(n) <= 2 * n + 8 for n in range(1, 100))


def test_weights_that_do_not_fit_are_refused():
    from refnet.core.errors import GraphError
    from refnet.core.op import TensorType as T

    x = T((2, 6, 4))
    for op, weights in (
        (ops.GroupNorm(1e-5, 4), [T((6,)), T((6,))]),
        (ops.GroupNorm(1e-5, 3), [T((3,)), T((3,))]),
        (ops.GroupNorm(1e-5, 3, True), [T((6,)), T((6,))]),
        (ops.InstanceNorm(1e-5), [T((4,)), T((4,))]),
        (ops.LayerNorm(1e-5, 3), [T((4,)), T((4,))]),
        (ops.LayerNorm(1e-5, 2), [T((3,)), T((4,))]),
        (ops.LayerNorm(-1.0, 2), [T((4,)), T((4,))]),
    ):
        with pytest.raises(GraphError, match=type(op).__name__):
            op.type(x, *weights)


def merged_by_steps(row: np.ndarray) -> tuple[np.float32, np.float32]:
    """The steps of ops/merged_moments.py for one row, number by number, with an exact FMA."""
    fma, zero, one = exact_fma, F(0), F(1)
    whole = row.size // 8
    tail = [0, zero, zero]
    for k, x in enumerate(row[8 * whole :], 1):
        d = x - tail[1]
        m = F(tail[1] + F(d / F(k)))
        tail = [k, m, F(tail[2] + F(d * F(x - m)))]
    for lane in range(8 if whole else 0):
        column = row[lane : 8 * whole : 8]
        chunks = [column[i : i + 16] for i in range(0, whole, 16)]
        digits = [(0, zero, zero)] * max(1, math.ceil(math.log2(len(chunks))))

        def merge(a: tuple, b: tuple) -> tuple:
            n = a[0] + b[0]
            d = F(b[1] - a[1])
            step = F(F(F(b[0]) / F(n)) * d) if n else F(zero * d)
            return n, F(a[1] + step), fma(F(d * F(a[0])), step, F(a[2] + b[2]))

        for i, chunk in enumerate(chunks, 1):
            m, q = zero, zero
            for k, x in enumerate(chunk, 1):
                d = F(x - m)
                m = fma(d, F(one / F(k)), m)
                q = fma(d, F(x - m), q)
            digits[0] = merge(digits[0], (len(chunk), m, q))
            for j in range(1, len(digits)):
                if i % 2**j:
                    break
                digits[j], digits[j - 1] = merge(digits[j], digits[j - 1]), (0, zero, zero)
        for digit in digits[1:]:
            digits[0] = merge(digits[0], digit)
        n, m, q = digits[0]
        c, d = F(F(n) / F(n + tail[0])), F(m - tail[1])
        added = fma(F(F(d * d) * c), F(tail[0]), q)
        tail = [n + tail[0], fma(c, d, tail[1]), F(tail[2] + added)]
    return tail[1], F(tail[2] / F(row.size))


@pytest.mark.parametrize("n", [1, 7, 8, 13, 128, 5 * 128 + 8 + 3])
def test_merged_moments_step_by_step(n):
    x, g, b = floats((2, n), (n, "merged")) + F(0.5), floats((n,), (n, "g")), floats((n,), (n, "b"))
    m, v = merged_moments(x, FAST)
    expected = [merged_by_steps(row) for row in x]
    assert same_bits(m[:, 0], F([e[0] for e in expected]))
    assert same_bits(v[:, 0], F([e[1] for e in expected]))
    op = ops.LayerNorm(1e-5)
    y = op.replay("merged-fused", x, g, b, engine=FAST)
    assert same_bits(y, op.replay("merged-fused", x, g, b, engine=REFERENCE))
    i = F(1) / np.sqrt(v + F(1e-5))
    for at in np.ndindex(x.shape):
        assert y[at] == exact_fma(F(F(x[at] - m[at[0], 0]) * i[at[0], 0]), g[at[1]], b[at[1]])
    interval = op.bound(*(Interval.exactly(a) for a in (x, g, b)), engine=FAST)
    assert (np.abs(y - interval.center) <= interval.radius).all()
    assert np.isnan(
        op.replay("merged-fused", np.where(x == x[0, 0], F(np.inf), x), g, b, engine=FAST)[0]
    ).all()
