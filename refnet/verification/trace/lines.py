"""The named steps of one element of an op with a root or an exponential: 40 digits, and plain's float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

from refnet import ops
from refnet.core.op import F32, F64, Interval, Op
from refnet.exact.engine import DecideOrRefine
from refnet.kernels.engine import Fast
from refnet.verification.trace.terms import Index

FAST = Fast()
EXACT = DecideOrRefine(FAST)

DIGITS = 40
HUGE = 10**6
"""Beyond it e to that power is written down nowhere."""
F = np.float32

Number = Fraction | Decimal


@dataclass(frozen=True)
class Step:
    """A named step: its formula in words, its exact value, and what plain makes of it in float32."""

    symbol: str
    formula: str
    exact: Number
    plain: np.float32 | None = None


Lines = tuple[tuple[Step, ...], np.float32]
"""The steps, and the correctly rounded value. No steps where an input is no number."""


def _decimal(value: object) -> Decimal:
    if isinstance(value, Fraction):
        return Decimal(value.numerator) / Decimal(value.denominator)
    return Decimal(float(value))  # type: ignore[arg-type]


def batch_norm(op: ops.BatchNorm, inputs: Sequence[F32], at: Index) -> Lines:
    """gamma (x - mean) / sqrt(var + eps) + beta."""
    c = at[1]
    x = inputs[0][at]
    weights = [w[c : c + 1] for w in inputs[1:]]
    golden = op.golden(np.full((1, 1), x, F), *weights, exact=EXACT)[0, 0]
    g, beta, mean, var = (float(w[0]) for w in weights)
    g = 1.0 if op.fix_gamma else g
    if not np.isfinite([float(x), g, beta, mean, var]).all() or Fraction(var) + Fraction(op.eps) <= 0:
        return (), golden
    s, t = (F(v[0]) for v in op.folded(FAST, *weights))
    plain = op.run(np.full((1, 1), x, F), *weights, engine=FAST)[0, 0]
    with localcontext() as context:
        context.prec = DIGITS
        under = Fraction(var) + Fraction(op.eps)
        root = _decimal(under).sqrt()
        scale = _decimal(g) / root
        apart = Fraction(float(x)) - Fraction(mean)
        product = scale * _decimal(apart)
        return (
            Step("x", "the input element", Fraction(float(x)), x),
            Step("v", f"var + eps = {var!r} + {op.eps!r}", under),
            Step("r", "sqrt(v)", root),
            Step("s", f"gamma / r, gamma = {g!r}" + (" (fix_gamma)" if op.fix_gamma else ""), scale, s),
            Step("t", f"beta - mean * s, beta = {beta!r}", _decimal(beta) - _decimal(mean) * scale, t),
            Step("d", f"x - mean, mean = {mean!r}", apart),
            Step("p", "s * d", product),
            Step("y", "p + beta; plain: fma(x, s, t)", product + _decimal(beta), plain),
        ), golden


def sigmoid(op: Op, inputs: Sequence[F32], at: Index) -> Lines:
    """1 / (1 + exp(-x))."""
    return _sigmoid(inputs[0][at])


def _sigmoid(x: np.float32) -> Lines:
    one = np.full((1,), x, F)
    golden = ops.Sigmoid().golden(one, exact=EXACT)[0]
    if not -HUGE < x < HUGE:
        return (), golden
    e = _exp32(-float(x))
    with np.errstate(over="ignore"):
        plain_sum = F(1) + e
    with localcontext() as context:
        context.prec = DIGITS
        exact = (-_decimal(x)).exp()
        return (
            Step("x", "the input element", Fraction(float(x)), x),
            Step("e", "exp(-x)", exact, e),
            Step("s", "1 + e", 1 + exact, plain_sum),
            Step("y", "1 / s", 1 / (1 + exact), ops.Sigmoid().run(one, engine=FAST)[0]),
        ), golden


def softmax(op: ops.Softmax, inputs: Sequence[F32], at: Index) -> Lines:
    """exp(x[i]) / sum of exp(x[j])."""
    if op.trailing:
        x = inputs[0]
        place = np.ravel_multi_index(at[op.axis :], x.shape[op.axis :])
        return _softmax(np.ascontiguousarray(x[at[: op.axis]]).reshape(-1), int(place))
    row = np.moveaxis(inputs[0], op.axis, -1)[(*at[: op.axis], *at[op.axis + 1 :])]
    return _softmax(np.ascontiguousarray(row), at[op.axis])


def radix_softmax(op: ops.RadixSoftmax, inputs: Sequence[F32], at: Index) -> Lines:
    """A softmax over the radix parts of one channel; radix 1: a sigmoid."""
    x = inputs[0]
    m = x.shape[1] // (op.radix * op.cardinality)
    r, k, i = at[1] // (op.cardinality * m), at[1] // m % op.cardinality, at[1] % m
    row = np.array([x[at[0], (k * op.radix + s) * m + i, 0, 0] for s in range(op.radix)], F)
    return _sigmoid(row[0]) if op.radix == 1 else _softmax(row, r)


def _softmax(row: F32, i: int) -> Lines:
    golden = ops.Softmax(1).golden(row[None], exact=EXACT)[0, i]
    if not np.isfinite(row).all():
        return (), golden
    largest = row.max()
    shifted = row - largest
    powers = [_exp32(float(v)) for v in shifted]
    total = F(0)
    for power in powers:
        total = F(total + power)
    with localcontext() as context:
        context.prec = DIGITS
        m = _decimal(largest)
        exact = [(_decimal(v) - m).exp() for v in row]
        each = [
            Step(f"e[{j}]", f"exp(x[{j}] - m), x[{j}] = {v!s}", e, p)
            for j, (v, e, p) in enumerate(zip(row, exact, powers, strict=True))
        ]
        return (
            Step("m", f"the largest of {row.size} x", Fraction(float(largest)), largest),
            *each,
            Step("s", "the sum of all e", sum(exact, Decimal(0)), total),
            Step("y", f"e[{i}] / s", exact[i] / sum(exact), ops.Softmax(1).run(row[None], engine=FAST)[0, i]),
        ), golden


def _exp32(x: float) -> np.float32:
    """exp as plain computes it."""
    with np.errstate(all="ignore"):
        return F(FAST.exp(np.array([x]))[0])


def clip(op: ops.Clip, inputs: Sequence[F32], at: Index) -> Lines:
    """min(max(x, low), high)."""
    x = inputs[0][at]
    y = op.run(np.full((1,), x, F), engine=FAST)[0]
    if not np.isfinite([x, y]).all():
        return (), y
    return (
        Step("x", "the input element", Fraction(float(x)), x),
        Step("y", f"min(max(x, {op.low!r}), {op.high!r})", Fraction(float(y)), y),
    ), y


def divide(op: ops.Div, inputs: Sequence[F32], at: Index) -> Lines:
    """a / b."""
    shape = np.broadcast_shapes(*(x.shape for x in inputs))
    a, b = (np.broadcast_to(x, shape)[at] for x in (inputs[::-1] if op.swapped else inputs))
    with np.errstate(all="ignore"):
        y = F(np.divide(a, b))
    if not np.isfinite([a, b]).all() or b == 0:
        return (), y
    exact = Fraction(float(a)) / Fraction(float(b))
    return (
        Step("a", "the dividend", Fraction(float(a)), a),
        Step("b", "the divisor", Fraction(float(b)), b),
        Step("y", "a / b", exact, y),
    ), y


def moved(op: ops.Pad | ops.ResizeNearest, inputs: Sequence[F32], at: Index) -> Lines:
    """A copy of an input element, or what stands where there is none."""
    (x,) = inputs
    y = op.run(x, engine=FAST)[at]
    numbers = np.arange(1, x.size + 1, dtype=np.float64).reshape(x.shape)  # 0 is what stands outside
    number = int(_copied(op, numbers)[at])
    if not np.isfinite(y):
        return (), y
    if not number:
        return (Step("y", "what stands outside of the input", Fraction(float(y)), y),), y
    place = [int(i) for i in np.unravel_index(number - 1, x.shape)]
    return (Step("y", f"the input element at {place}", Fraction(float(y)), y),), y


def _copied(op: ops.Pad | ops.ResizeNearest, numbers: F64) -> F64:
    """What the op makes of an array of float64; 0 is what stands outside."""
    if isinstance(op, ops.ResizeNearest):
        return op.take(numbers, 0.0)
    return op.bound(Interval(np.zeros(numbers.shape), numbers), engine=FAST).radius


def matmul(op: ops.MatMul, inputs: Sequence[F32], at: Index) -> Lines | None:
    """alpha * the sum of products + beta * c; a product alone has terms."""
    if (op.alpha, op.addend) == (1.0, False):
        return None
    shape = op.type(*(ops.TensorType(x.shape) for x in inputs)).shape
    row, column = op.factors(*inputs[:2])(int(np.ravel_multi_index(at, shape)))
    c = np.broadcast_to(inputs[2], shape)[at] if op.addend else F(0)
    given = [row[None], column[:, None], *([np.full((1, 1), c, F)] if op.addend else [])]
    small = ops.MatMul(op.alpha, op.beta, addend=op.addend)
    golden = small.golden(*given, exact=EXACT)[0, 0]
    plain = small.run(*given, engine=FAST)[0, 0]
    if not np.isfinite(np.concatenate([row, column, [c]])).all():
        return (), golden
    total = sum(
        (Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, column, strict=True)), Fraction(0)
    )
    exact = Fraction(op.alpha) * total + Fraction(op.beta) * Fraction(float(c))
    product = ops.MatMul().run(row[None], column[:, None], engine=FAST)[0, 0]
    found = [
        Step("s", f"the sum of {row.size} products", total, product),
        Step("y", f"{op.alpha!r} * s" + (f" + {op.beta!r} * c" if op.addend else ""), exact, plain),
    ]
    if op.addend:
        found.insert(1, Step("c", "what is added", Fraction(float(c)), c))
    return tuple(found), golden


LINES: dict[type[Op], Callable[..., Lines | None]] = {
    ops.Clip: clip,
    ops.Div: divide,
    ops.Pad: moved,
    ops.ResizeNearest: moved,
    ops.MatMul: matmul,
    ops.BatchNorm: batch_norm,
    ops.Sigmoid: sigmoid,
    ops.Softmax: softmax,
    ops.RadixSoftmax: radix_softmax,
}
