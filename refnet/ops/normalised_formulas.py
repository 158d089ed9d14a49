"""How frameworks compute layer, group and instance norms: their menus, found by bits.

by(formula, rows, ...) ── mlas_moments     ONNX Runtime's layer norm
              ├────────── eigen_sums       ONNX Runtime's instance norm
              ├────────── float64 chains   PyTorch's instance norm
              └────────── merged_moments   PyTorch's layer and group norm (merged_moments.py)

Each takes x (rows, n), and scale and shift, (rows, n) or (rows, 1).
"""

from __future__ import annotations

import numpy as np

from refnet.core.engine import Engine, Places
from refnet.core.op import F32, F64
from refnet.core.orders import Chain, Expr, Leaf, Order, Sum
from refnet.ops.merged_moments import fused, merged_moments, welford

LAYER_FORMULAS = {
    "merged-fused": "m and v by chunks of 16 vectors of 8, merged (ops/merged_moments.py), "
    "y = fma((x - m) * (1/sqrt(v + eps)), gamma, beta) (PyTorch with AVX2 or AVX-512)",
    "mlas-avx2": "m in float64 by 4 lanes, v by 8 lanes of FMA, y = fma((x - m) * (1/sqrt(v + eps)), gamma, "
    "beta); of less than 8 elements Welford's m and v, (x - m) / sqrt(v + eps) * gamma + beta (ONNX Runtime)",
}
GROUP_FORMULAS = {
    "merged-scale": "m and v as merged-fused, r = 1/sqrt(v + eps) in float64, a = r * gamma, "
    "y = fma(x, a, fma(-m, a, beta)) (PyTorch with AVX2 or AVX-512)",
}
INSTANCE_FORMULAS = {
    "eigen-sse": "m and v by Eigen's sums of 8 lanes, a = 1/sqrt(v + eps) * gamma, "
    "y = x * a + (beta - m * a) (ONNX Runtime)",
    "float64-sums": "m and the sum of (x - m)^2 in float64, r = 1/sqrt(v + eps) too, a = r * gamma, "
    "y = fma(x, a, fma(-m, a, beta)) (PyTorch)",
}
FUSABLE = 8
"""Elements from which on ONNX Runtime 1.31 computes a layer norm in vectors."""


def layer_by(formula: str, x: F32, scale: F32, shift: F32 | None, eps: float, engine: Engine) -> F32:
    """A layer norm by one of LAYER_FORMULAS; shift None: there is no beta."""
    small = formula == "mlas-avx2" and x.shape[1] < FUSABLE
    mean, variance = (mlas_moments if formula == "mlas-avx2" else merged_moments)(x, engine)
    root = np.sqrt(variance + np.float32(eps))
    y: F32
    if small:
        y = (x - mean) / root * scale
        if shift is not None:
            y += shift
        return y
    one = (x - mean) * (np.float32(1) / root)
    if shift is None and formula == "mlas-avx2":
        y = one * scale
        return y
    return fused(one, scale, np.float32(0) if shift is None else shift, engine)


def scaled_by(formula: str, x: F32, scale: F32, shift: F32, eps: float, engine: Engine) -> F32:
    """A group or instance norm by one of GROUP_FORMULAS or INSTANCE_FORMULAS."""
    n = np.float32(x.shape[1])
    if formula == "eigen-sse":
        mean = eigen_sums(x, aligned_heads(*x.shape), engine) / n
        apart = x - mean
        squares = eigen_sums(apart * apart, np.zeros(len(x), np.int64), engine)
        factor = np.float32(1) / np.sqrt(squares / n + np.float32(eps)) * scale
        y: F32 = x * factor + (shift - mean * factor)
        return y
    if formula == "float64-sums":
        mean = (_chain(x) / x.shape[1]).astype(np.float32)
        apart = x - mean
        variance = _chain(apart * apart).astype(np.float32) / n
    else:
        mean, variance = merged_moments(x, engine)
    factor = (1 / np.sqrt(variance.astype(np.float64) + eps)).astype(np.float32) * scale
    return fused(x, factor, fused(-mean, factor, shift, engine), engine)


def _chain(x: F32) -> F64:
    """(rows, n) -> (rows, 1): the sums in float64, element by element."""
    total = np.zeros((len(x), 1))
    for k in range(0, x.shape[1], 256):
        part = np.concatenate([total, x[:, k : k + 256].astype(np.float64)], 1)
        total = np.add.accumulate(part, 1)[:, -1:]
    return total


def mlas_moments(x: F32, engine: Engine) -> tuple[F32, F32]:
    """x (rows, n) -> mean and variance, (rows, 1) each, as ONNX Runtime 1.31's layer norm has them.

    From 8 elements on: the mean in float64, four lanes, (0 + 2) + (1 + 3), then the rest one by one. Then the
    squares of x - mean, eight lanes of FMA, i + 4 added to i, then as before; of the rest four
    products, rounded, and up to three by FMA. Fewer elements: Welford's formula.
    """
    rows, n = x.shape
    if n < FUSABLE:
        few = welford(x)
        return few.mean[:, None], np.divide(few.squares, np.float32(n))[:, None]
    whole = n - n % 4
    wide = x.astype(np.float64)
    lanes = np.zeros((rows, 4))
    for k in range(0, whole, 4):
        lanes += wide[:, k : k + 4]
    total = (lanes[:, 0] + lanes[:, 2]) + (lanes[:, 1] + lanes[:, 3])
    for k in range(whole, n):
        total += wide[:, k]
    mean: F32 = (total / n).astype(np.float32)[:, None]
    d = x - mean
    squares = np.zeros((rows, 8), np.float32)
    for k in range(0, n - n % 8, 8):
        squares = fused(d[:, k : k + 8], d[:, k : k + 8], squares, engine)
    halves = squares[:, :4] + squares[:, 4:]
    q = (halves[:, 0] + halves[:, 2]) + (halves[:, 1] + halves[:, 3])
    for k in range(n - n % 8, n):
        q = q + d[:, k] * d[:, k] if k < whole else fused(d[:, k], d[:, k], q, engine)
    return mean, np.divide(q, np.float32(n))[:, None]


def aligned_heads(rows: int, n: int) -> Places:
    """Of rows one after another in memory: the elements before the first that 16 divides the address of."""
    return -np.arange(rows, dtype=np.int64) * n % 4


def eigen_sums(x: F32, heads: Places, engine: Engine) -> F32:
    """x (rows, n), heads (rows,) -> (rows, 1): each row's sum as Eigen adds it with vectors of four (SSE).

    Source: Eigen 3.4, Core/Redux.h, the linear vectorised traversal, read as facts.
    """
    total = np.empty((len(x), 1), np.float32)
    for head in np.unique(heads):
        own = heads == head
        total[own, 0] = engine.row_sums(np.ascontiguousarray(x[own]), eigen_order(x.shape[1], int(head)))
    return total


def eigen_order(n: int, head: int) -> Expr:
    """The order of such a sum: two vectors in turn, added; one that is left; its lanes; the head; the tail.

    >>> eigen_order(3, 0)
    Chain(seed=<Leaf.FIRST: 'first'>, terms=Order(pieces=((0, 3, 1),)), fused=False)
    >>> eigen_order(9, 1).terms
    Order(pieces=((0,),))
    """
    vectors = (n - head) // 4
    if vectors < 1:
        return Chain(Leaf.FIRST, Order.of(range(n)), False)

    def lane(i: int) -> Expr:
        places = [head + 4 * k + i for k in range(vectors)]
        pairs = vectors // 2 * 2 if vectors > 1 else 1
        first = Chain(Leaf.FIRST, Order.of(places[:pairs:2]), False)
        if vectors == 1:
            return first
        both = Sum((first, Chain(Leaf.FIRST, Order.of(places[1:pairs:2]), False)))
        return Chain(both, Order.of(places[pairs:]), False) if pairs < vectors else both

    lanes: Expr = Sum((Sum((lane(0), lane(2))), Sum((lane(1), lane(3)))))
    rest = [*range(head), *range(head + 4 * vectors, n)]
    return Chain(lanes, Order.of(rest), False) if rest else lanes
