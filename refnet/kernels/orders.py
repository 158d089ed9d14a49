"""From the tree of chains and sums (core/orders.py) to what the kernels take."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from refnet.core.orders import Chain, Expr, Leaf, Order
from refnet.kernels import program, tiles
from refnet.kernels.program import Registers
from refnet.kernels.segments import Segments

PUSH = {leaf: getattr(program, leaf.name) for leaf in Leaf}
"""The instruction of the register program that pushes a leaf."""
SEED: dict[Leaf | None, int] = {leaf: getattr(tiles, leaf.name) for leaf in Leaf} | {None: tiles.ON}
"""What a step of a tile starts from; None: the sum so far."""


@lru_cache(maxsize=4096)
def registers(expr: Expr) -> Registers:
    """The expression in reverse Polish order, for kernels/program.py."""
    code: list[tuple[int, int, int]] = []
    order: list[int] = []

    def emit(expr: Expr) -> int:
        """Append the code of one expression; how deep the stack gets."""
        if isinstance(expr, Leaf):
            code.append((PUSH[expr], 0, 0))
            return 1
        if isinstance(expr, Chain):
            depth = emit(expr.seed)
            terms = expr.terms.indices()
            code.append((program.CHAIN if expr.fused else program.ROUNDED, len(order), len(terms)))
            order.extend(terms)
            return depth
        depth = emit(expr.parts[0])
        for part in expr.parts[1:]:
            depth = max(depth, 1 + emit(part))
            code.append((program.ADD, 0, 0))
        return depth

    depth = emit(expr)
    return Registers(np.array(code, np.int64), np.array(order, np.int64), depth)


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
