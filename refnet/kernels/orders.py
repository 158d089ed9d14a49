"""From the tree of chains and sums (core/orders.py) to what the kernels take."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from refnet.core.orders import Chain, Expr, Leaf, Order, Sum, stack_program
from refnet.kernels import seeds, tiles
from refnet.kernels.program import ProgramArrays
from refnet.kernels.segments import Segments

SEED: dict[Leaf | None, int] = {
    Leaf.ZERO: seeds.ZERO,
    Leaf.FIRST: seeds.NEGATIVE_ZERO,
    Leaf.BIAS: seeds.BIAS,
    Leaf.ADDEND: seeds.ADDEND,
    None: tiles.ON,
}
"""What a step of a tile starts from; None: the sum so far."""


@lru_cache(maxsize=4096)
def program_arrays(expr: Expr) -> ProgramArrays:
    """The expression's stack program (core/orders.py) as arrays, for kernels/program.py."""
    program = stack_program(expr)
    return ProgramArrays(np.array(program.code, np.int64), np.array(program.order, np.int64), program.depth)


@lru_cache(maxsize=4096)
def segments(expr: Expr) -> Segments | None:
    """The expression as steps for kernels/segments.py; None if it is no sum of chains from left to right."""
    found = _steps(expr)
    if found is None:
        return None
    order: list[int] = []
    steps = []
    for seed, terms, fused, adds in found:
        steps.append((SEED[seed], len(order), terms.size, fused, adds))
        order += terms.indices()
    return Segments(np.array(order, np.int64), np.array(steps, np.int64))


@lru_cache(maxsize=4096)
def plain_order(expr: Expr, terms: int) -> tuple[bool, bool]:
    """Whether the expression is plain's one chain of FMAs, and whether the bias is added to it.

    >>> plain_order(Sum((Chain(Leaf.ZERO, Order.of(range(9))), Leaf.BIAS)), 9)
    (True, True)
    >>> plain_order(Chain(Leaf.BIAS, Order.of(range(9))), 9)
    (False, False)
    """
    chain = Chain(Leaf.ZERO, Order.of(range(terms)))
    biased = expr == Sum((chain, Leaf.BIAS))
    return biased or expr == chain, biased


def _steps(expr: Expr) -> list[tuple[Leaf | None, Order, bool, bool]] | None:
    """(seed or None for the sum so far, terms, fused, added to the sum so far), or None."""
    if isinstance(expr, Leaf):
        return [(expr, Order(()), True, False)]
    if isinstance(expr, Chain):
        if isinstance(expr.seed, Leaf):
            return [(expr.seed, expr.terms, expr.fused, False)]
        before = _steps(expr.seed)
        if before is not None:
            before.append((None, expr.terms, expr.fused, False))
        return before
    found = _steps(expr.parts[0])
    for part in expr.parts[1:]:
        more = _steps(part)
        if found is None or more is None or len(more) != 1:
            return None
        seed, terms, fused, _ = more[0]
        found.append((seed, terms, fused, True))
    return found
