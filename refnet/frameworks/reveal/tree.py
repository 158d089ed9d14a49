"""The tree of a sum, from how many summands lie under pairs of them.

    summation_tree ── ask(pairs) -> sizes      one batch of questions per level
           └── Path                            ((leaf + subtree) + subtree) + ...

The method is FPRev's (P. Xie et al., FPRev: Revealing the Order of Floating-Point Summations, USENIX ATC
2025). With summand i huge (M), j its negative and all others 1, whatever is added to the partial sum that
holds only one of the two is absorbed; both cancel where they meet, and what is added later survives. So the
result counts the summands outside of the smallest subtree that holds i and j, and its size is known.

All sizes of one leaf give its path to the root: leaves of one size form one subtree beside it, and sizes
grow along the path. Each such subtree is asked about in the same way, all of a level at once. A sequential
sum of n leaves takes n questions, balanced trees take n log n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refnet.core.errors import RefnetError

Pairs = npt.NDArray[np.int64]
Sizes = npt.NDArray[np.int64]


class Unexplained(RefnetError):  # noqa: N818
    """Answers that no sequence of float32 additions gives."""


@dataclass(frozen=True)
class Path:
    """((leaf + others[0]) + others[1]) + ..., each of the others such a sum itself."""

    leaf: int
    others: tuple[Path, ...] = ()


MOST_LEVELS = 64
"""Trees within trees; what frameworks do takes below ten."""


def summation_tree(leaves: Sequence[int], ask: Callable[[Pairs], Sizes]) -> Path:
    """The tree of the sum of these leaves.

    ask: pairs (k, 2) of leaves -> (k,) how many leaves the smallest subtree with both has.
    Raises Unexplained if the answers fit no tree of additions of two.

    >>> def ask(pairs):  # (0 + 1) + (2 + 3)
    ...     return np.array([2 if i // 2 == j // 2 else 4 for i, j in pairs])
    >>> summation_tree([0, 1, 2, 3], ask)
    Path(leaf=0, others=(Path(leaf=1, others=()), Path(leaf=3, others=(Path(leaf=2, others=()),))))
    """
    groups = [np.array(leaves, np.int64)]
    levels: list[list[tuple[int, list[int]]]] = []  # per group: its leaf, and which groups of the next level
    while groups:
        if len(levels) == MOST_LEVELS:
            raise Unexplained(f"sums within one another, more than {MOST_LEVELS} deep")
        # The first leaf of a group often starts a chain; where it ends one, the middle halves what is left.
        pivots = [group[0] if len(levels) % 2 == 0 else group[len(group) // 2] for group in groups]
        pairs = [
            np.stack([np.full(len(group) - 1, pivot), group[group != pivot]], 1)
            for group, pivot in zip(groups, pivots, strict=True)
        ]
        sizes = ask(np.concatenate(pairs)) if sum(map(len, pairs)) else np.zeros(0, np.int64)
        level: list[tuple[int, list[int]]] = []
        following: list[Pairs] = []
        at = 0
        for group, pivot, asked in zip(groups, pivots, pairs, strict=True):
            parts = _parts(len(group), asked[:, 1], sizes[at : at + len(asked)])
            level.append((int(pivot), list(range(len(following), len(following) + len(parts)))))
            following += parts
            at += len(asked)
        levels.append(level)
        groups = following
    made: list[Path] = []
    for level in reversed(levels):
        made = [Path(leaf, tuple(made[k] for k in inner)) for leaf, inner in level]
    return made[0]


def _parts(size: int, others: Pairs, sizes: Sizes) -> list[Pairs]:
    """The subtrees that a leaf's path meets, nearest first, from the sizes at which each other leaf joins."""
    found = []
    count = 1
    for joined in np.unique(sizes):
        part = others[sizes == joined]
        count += len(part)
        if count != joined:
            raise Unexplained(f"{len(part)} summands join at a sum of {joined}, must be one of {count}")
        found.append(part)
    if count != size:
        raise Unexplained(f"a sum of {count} summands, must be of {size}")
    return found


def leaves_of(path: Path) -> list[int]:
    """All leaves of the tree, in the order in which the notation names them."""
    found: list[int] = []
    todo = [path]
    while todo:
        one = todo.pop()
        found.append(one.leaf)
        todo += reversed(one.others)
    return found
