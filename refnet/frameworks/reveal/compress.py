"""From a summation tree to an expression of a recipe: chains where one term after the other is added.

    joints ── which leaves join a sum directly: these can be fused with it
    expression ── Path, fused leaves -> Expr

A leaf that joins a sum continues its chain, by a fused multiply-add or by adding the rounded product.
Subtrees that meet make a Sum. Addition commutes, so what stands left is a matter of notation: the sum that
goes on, and of two equals the one with the smallest leaf.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from refnet.core.orders import Chain, Expr, Leaf, Order, Sum
from refnet.frameworks.reveal.tree import Path, leaves_of


@dataclass(frozen=True)
class Joint:
    """A leaf joins a sum: `leaf` is added to what holds `partner`; both may be single leaves."""

    leaf: int
    partner: int
    pair: bool = False


def joints(path: Path) -> list[Joint]:
    """Every place where a single leaf joins a sum, or another leaf (`pair`).

    >>> joints(Path(0, (Path(1), Path(2, (Path(3),)))))
    [Joint(leaf=1, partner=0, pair=True), Joint(leaf=3, partner=2, pair=True)]
    """
    found = []
    todo = [path]
    while todo:
        one = todo.pop()
        for i, other in enumerate(one.others):
            if other.others:
                todo.append(other)
            if not i and other.others:  # the path's own leaf joins a larger sum
                found.append(Joint(one.leaf, other.leaf))
            elif not other.others:
                found.append(Joint(other.leaf, one.leaf, pair=not i))
    return found


@dataclass
class _Run:
    """A chain being made: what it starts from, then (leaf, fused) one after another."""

    seed: Expr
    terms: list[tuple[int, bool]] = field(default_factory=list)


Alone = Mapping[int, Leaf]
"""The leaves that are no products: the bias, the addend."""
NONE: Alone = MappingProxyType({})


def expression(path: Path, fused: Collection[int], alone: Alone = NONE, zero: bool = True) -> Expr:
    """The tree as an Expr.

    fused: leaves whose product is not rounded before it is added. alone: the leaves that are no products.
    zero: chains start from +0 (else from their first term: a difference in the sign of a zero only).

    >>> chain = Path(0, (Path(1), Path(2), Path(3)))
    >>> expression(chain, {1, 2, 3})
    Chain(seed=<Leaf.ZERO: 'zero'>, terms=Order(pieces=((0, 4, 1),)), fused=True)
    >>> expression(chain, {1, 2}, {3: Leaf.BIAS}).parts[-1]
    <Leaf.BIAS: 'bias'>
    """
    start = Leaf.ZERO if zero else Leaf.FIRST
    return _expression(path, frozenset(fused), alone, start)


def _expression(path: Path, fused: frozenset[int], alone: Alone, start: Leaf) -> Expr:
    if not path.others:
        return _single(path.leaf, alone, start)
    first, rest = path.others[0], path.others[1:]
    if first.others:  # the leaf is added to a sum that is there before it
        run = _Run(_expression(first, fused, alone, start))
        _add(run, path.leaf, fused, alone)
    else:
        run = _pair(path.leaf, first.leaf, fused, alone, start)
    for other in rest:
        if not other.others:
            _add(run, other.leaf, fused, alone)
        else:
            run = _Run(_join(_end(run), _expression(other, fused, alone, start), path, other))
    return _end(run)


def _single(leaf: int, alone: Alone, start: Leaf) -> Expr:
    return alone[leaf] if leaf in alone else Chain(start, Order.of([leaf]), fused=True)


def _pair(a: int, b: int, fused: frozenset[int], alone: Alone, start: Leaf) -> _Run:
    """Two leaves: the one that is not fused comes first."""
    if a in alone or b in alone:
        first, second = (a, b) if a in alone else (b, a)
        if second in fused:
            return _Run(alone[first], [(second, True)])
        return _Run(Sum((alone[first], _single(second, alone, start))))
    first, second = (b, a) if a in fused or (b not in fused and b < a) else (a, b)
    return _Run(start, [(first, second in fused), (second, second in fused)])


def _add(run: _Run, leaf: int, fused: frozenset[int], alone: Alone) -> None:
    if leaf in alone:
        run.seed, run.terms = _flat(_end(run), alone[leaf]), []
    else:
        run.terms.append((leaf, leaf in fused))


def _join(a: Expr, b: Expr, path: Path, other: Path) -> Expr:
    """Two sums that meet, the one that goes on from the left first."""
    if isinstance(b, Sum) and not isinstance(a, Sum):
        return _flat(b, a)
    if isinstance(a, Sum) == isinstance(b, Sum) and min(leaves_of(other)) < path.leaf:
        return _flat(b, a)
    return _flat(a, b)


def _flat(a: Expr, b: Expr) -> Sum:
    return Sum((*a.parts, b)) if isinstance(a, Sum) else Sum((a, b))


def _end(run: _Run) -> Expr:
    """The run as chains, each of terms that are fused or not."""
    expr = run.seed
    at = 0
    while at < len(run.terms):
        fused = run.terms[at][1]
        stop = at
        while stop < len(run.terms) and run.terms[stop][1] == fused:
            stop += 1
        terms = [leaf for leaf, _ in run.terms[at:stop]]
        if isinstance(expr, Chain) and expr.fused == fused:
            expr = Chain(expr.seed, Order.of([*expr.terms.indices(), *terms]), fused)
        else:
            expr = Chain(expr, Order.of(terms), fused)
        at = stop
    return expr
