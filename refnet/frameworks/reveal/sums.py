"""From a reduction in a framework to its recipe: probe, check on random data, probe where it does not hold.

reveal_sum ── _place ── where most of what is open can be asked at once
    ├── summation_tree, fused, expression     the order there
    ├── matching                              where its bits are the framework's, on random data
    └── arrange                               orders and the regions where they hold -> Recipe
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from refnet.arithmetic.recipes import NodeRecipe, box_shape, follow
from refnet.core.bits import Mask, equal_bits
from refnet.core.errors import InputError
from refnet.core.op import F32, Op
from refnet.core.orders import PADDINGS, Choice, Expr, Part, Program, Recipe, check
from refnet.frameworks.reveal.compress import expression, joints
from refnet.frameworks.reveal.probe import AskedReduction, Place, odd_inputs, random_inputs
from refnet.frameworks.reveal.regions import region
from refnet.frameworks.reveal.tree import Path, Unexplained, summation_tree
from refnet.kernels.engine import Fast

SAMPLES = 6
"""Random inputs, at least, on which an order must give the framework's bits."""
MANY, ELEMENTS = 64, 1 << 15
"""Of small outputs up to so many, to compare so many elements: similar orders often agree on one."""
CLASS = 16
"""Probes that tell carriers with different orders apart."""
MOST_ORDERS = 24
"""Different orders in one op's output."""

Do = Program | Choice


@dataclass(frozen=True)
class Samples:
    """Inputs, and the framework's outputs for them."""

    inputs: Sequence[list[F32]]
    outputs: Sequence[F32]


def reveal_sum(reduction: AskedReduction, threads: int = 1) -> Recipe:
    """The recipe of a reduction. Raises Unexplained, saying what could not be."""
    usual, odd = samples(reduction)
    open_: Mask = np.ones(reduction.shape, np.bool_)
    programs: list[tuple[Do, Mask]] = []
    asked: set[tuple[int, int, int, int]] = set()
    while open_.any():
        if len(programs) == MOST_ORDERS:
            raise Unexplained(f"{open_.sum()} of {open_.size} elements are in none of {MOST_ORDERS} orders")
        place = _place(reduction, open_, asked)
        asked.add((place.image if reduction.weighted else 0, place.y, place.x, int(place.carriers[0])))
        path, fused = _order(reduction, place)
        program, held = _program(reduction, path, fused, place, (usual, odd), threads)
        if not (held & open_).any():
            raise Unexplained(f"the order found at {_words(place)} does not give the framework's bits")
        programs.append((program, held))
        open_ &= ~held
    boxes = box_shape(reduction.output)
    return arrange([(do, held.reshape(boxes)) for do, held in programs], boxes)


def samples(reduction: AskedReduction) -> tuple[Samples, Samples]:
    """Usual and odd inputs, with the framework's outputs."""
    types, terms = reduction.types, reduction.terms
    count = min(MANY, max(SAMPLES, ELEMENTS // int(np.prod(reduction.shape))))
    usual = [random_inputs(types, seed) for seed in range(count)]
    odd = [odd_inputs(types, seed, terms) for seed in range(count)]
    first, second = (reduction.caller.wholes(made) for made in (usual, odd))
    return Samples(usual, first), Samples(odd, second)


def _words(place: Place) -> str:
    return f"row {place.y}, column {place.x}, {len(place.carriers)} carriers from {place.carriers[0]}"


def _place(reduction: AskedReduction, open_: Mask, asked: set[tuple[int, int, int, int]]) -> Place:
    """Where most summands are in the image and most open elements can carry probes, not asked before."""
    h, w = reduction.shape[2:]
    present = reduction.present()
    # (image or 1, h, w): how many carriers
    counts = open_.sum(1) if reduction.weighted else open_.sum((0, 1))[None]
    worth = present[None] * np.int64(1 << 32) + counts
    worth[counts == 0] = -1
    middle = np.add.outer(np.abs(np.arange(h) - h // 2), np.abs(np.arange(w) - w // 2))
    worth = worth * (h + w) - middle  # of equals the middlemost
    for flat in np.argsort(-worth, axis=None, kind="stable")[: len(asked) + 1]:
        image, y, x = map(int, np.unravel_index(flat, worth.shape))
        if counts[image, y, x] == 0:
            break
        held = open_[image, :, y, x] if reduction.weighted else open_[:, :, y, x].ravel()
        place = _class(reduction, Place(image, y, x, np.flatnonzero(held)))
        if (image, y, x, int(place.carriers[0])) not in asked:
            return place
    raise Unexplained(f"{open_.sum()} of {open_.size} elements are in no order that was found")


def _class(reduction: AskedReduction, place: Place) -> Place:
    """The place with the largest class of carriers that answer alike."""
    leaves = reduction.leaves(place)
    if len(leaves) < 3 or len(place.carriers) < 2:
        return place
    rng = np.random.default_rng(len(leaves))
    pairs = np.array([rng.choice(leaves, 2, replace=False) for _ in range(CLASS)])
    answers = reduction.alike(place, leaves, pairs)
    _, which, sizes = np.unique(answers, axis=0, return_inverse=True, return_counts=True)
    return replace(place, carriers=place.carriers[which.ravel() == np.argmax(sizes)])


def _order(reduction: AskedReduction, place: Place) -> tuple[Path, set[int]]:
    leaves = reduction.leaves(place)
    path = summation_tree(leaves, lambda pairs: reduction.sizes(place, leaves, pairs))
    return path, reduction.fused(place, leaves, joints(path))


def _program(
    reduction: AskedReduction,
    path: Path,
    fused: set[int],
    place: Place,
    samples: tuple[Samples, Samples],
    threads: int,
) -> tuple[Program, Mask]:
    """The program of this order that agrees with most of the samples, and where it does on the usual ones.

    What the tree does not show is settled by bits: how a pool divides, whether chains start from +0, and
    whether padding is added as a product with 0.
    """
    usual, odd = samples
    absent = sorted(set(range(reduction.terms)) - set(reduction.leaves(place)))
    whole = completed(path, absent, reduction.alone)
    if 2 * len(fused) + 1 >= len(reduction.leaves(place)) - len(reduction.alone):
        fused = {*fused, *absent}  # no probe says it of terms that are absent: as most others

    def ordered(zero: bool) -> Expr:
        made = expression(whole, fused, reduction.alone, zero)
        try:
            check(made)
        except InputError as error:  # such as fused and rounded terms in turn
            raise Unexplained(f"no recipe for the order found at {_words(place)}: {error}") from None
        return made

    found: tuple[int, Program, Mask] | None = None
    for finish in reduction.finishes:
        program = Program(ordered(True), "skip", finish)
        held = matching(reduction.op, program, usual, reduction.shape, threads)
        if found is None or held.sum() > found[0]:
            found = (int(held.sum()), program, held)
    assert found is not None
    _, best, held = found
    choices = [
        replace(best, expr=ordered(start), padding=padding)
        for start in (True, False)
        for padding in (PADDINGS if reduction.padded else ("skip",))
    ]
    agreeing = [(matching(reduction.op, one, odd, reduction.shape, threads) & held).sum() for one in choices]
    return choices[int(np.argmax(agreeing))], held


def completed(path: Path, absent: Sequence[int], alone: Collection[int] = ()) -> Path:
    """The tree with the terms that lie in the padding where it was asked: no probe says where they belong.

    In one chain each goes behind the largest smaller term, so that a small image, in which every place has
    other terms in the padding, has one order; in any other tree they come last.

    >>> completed(Path(1, (Path(2), Path(4), Path(5))), [0, 3, 6])
    Path(leaf=0, others=(Path(leaf=1, others=()), Path(leaf=2, others=()), Path(leaf=3, others=()), \
Path(leaf=4, others=()), Path(leaf=5, others=()), Path(leaf=6, others=())))
    """
    if any(other.others for other in path.others):
        return replace(path, others=(*path.others, *(Path(k) for k in absent)))
    chain = [path.leaf, *(other.leaf for other in path.others)]
    if absent and chain[1:2] and chain[1] in alone:  # the bias seeds the chain, of absent terms too
        chain[:2] = chain[1::-1]
    for k in absent:
        smaller = [leaf for leaf in chain if leaf < k and leaf not in alone]
        larger = [leaf for leaf in chain if leaf > k and leaf not in alone]
        chain.insert(chain.index(max(smaller)) + 1 if smaller else chain.index(min(larger)), k)
    return Path(chain[0], tuple(Path(k) for k in chain[1:]))


def matching(op: Op, do: Do, samples: Samples, shape: tuple[int, ...], threads: int) -> Mask:
    """Per output element: whether this gives the framework's bits on all samples (NaN as NaN)."""
    held: Mask = np.ones(shape, np.bool_)
    engine = Fast(threads)
    for inputs, theirs in zip(samples.inputs, samples.outputs, strict=True):
        own = follow(NodeRecipe(do, ()), op, inputs, engine)
        held &= equal_bits(own, theirs.reshape(own.shape)).reshape(shape)
    return held


def _by_position(programs: Sequence[tuple[Do, Mask]]) -> list[tuple[Do, Mask]]:
    """The programs without what they hold by chance.

    Where one holds for all channels of a position, others that hold for some of them only agreed on all
    samples of these by chance: sums in similar orders often have the same bits.
    """
    whole = [held.all(1, keepdims=True) for _, held in programs]
    settled = np.logical_or.reduce(whole)
    return [(program, held & (own | ~settled)) for (program, held), own in zip(programs, whole, strict=True)]


def arrange(programs: Sequence[tuple[Do, Mask]], shape: tuple[int, ...]) -> Recipe:
    """Programs and the elements that they hold -> a recipe: the one that holds most holds what is left.

    Raises Unexplained if the places of an order cannot be said in boxes.
    """
    order = sorted(_by_position(programs), key=lambda one: -int(one[1].sum()))
    (last, held), rest = order[0], order[1:]
    parts = []
    left = ~held
    for program, own in rest:
        wanted = left & own
        if not wanted.any():
            continue
        where = region(wanted, own)
        if where is None:
            raise Unexplained(f"{wanted.sum()} elements of an order lie in no boxes")
        parts.append(Part(program, where))
        left &= ~own
    return Recipe((*parts, Part(last)))
