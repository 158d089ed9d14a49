"""The tree of a sum of positive summands, as a softmax's: nothing cancels, but what is little is absorbed.

    positive_tree ── alone(i, js)       which summands are added to the partial sum of i one by one
        └─────────── before(i, js, ks)  whether j and k are added to each other before either meets i

With summand i = 1 and others less than half a unit in its last place, each vanishes where it is added to the
partial sum that holds i. Two that were added to each other before are larger than that half, and show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refnet.frameworks.reveal.tree import MOST_LEVELS, Path, Unexplained

Indices = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HALF = 2.0**-24
"""Half a unit in the last place of 1: less vanishes when it is added to 1, more does not."""
BELOW = 0.75 * HALF
"""Vanishes alone; two of these do not."""
ALMOST = (1 - 2.0**-12) * HALF
"""Vanishes alone; with one DUST it does not."""
DUST = 2.0**-11.5 * HALF
"""Vanishes, and so do 1400 of these."""
MOST = 1400


@dataclass(frozen=True)
class Positive:
    """A sum of positive summands. shows: rows of them (p, n), one in each 1 -> whether the sum is not 1."""

    count: int
    shows: Callable[[npt.NDArray[np.float64]], Bools]

    def before(self, i: Indices, j: Indices, k: Indices) -> Bools:
        """Whether j and k meet before either meets i."""
        rows = np.zeros((len(i), self.count))
        at = np.arange(len(i))
        rows[at, i], rows[at, j], rows[at, k] = 1, BELOW, BELOW
        return self.shows(rows)

    def alone(self, i: int, others: Indices) -> Bools:
        """Of each of the others, which are in one subtree with i: whether it joins i's partial sum alone."""
        rows = np.zeros((len(others), self.count))
        rows[:, others] = DUST
        rows[np.arange(len(others)), others] = ALMOST
        rows[:, i] = 1
        return ~self.shows(rows)


def positive_tree(asked: Positive) -> Path:
    """The tree of the sum. Raises Unexplained if it is longer than MOST or the answers fit no tree.

    >>> def shows(rows):  # (0 + 2) + (1 + 3)
    ...     rows = rows.astype(np.float32)
    ...     return (rows[:, 0] + rows[:, 2]) + (rows[:, 1] + rows[:, 3]) != 1
    >>> positive_tree(Positive(4, shows))
    Path(leaf=0, others=(Path(leaf=2, others=()), Path(leaf=1, others=(Path(leaf=3, others=()),))))
    """
    if asked.count > MOST:
        raise Unexplained(f"a sum of {asked.count} positive summands; at most {MOST} can be told apart")
    return _tree(asked, np.arange(asked.count), 0)


def _tree(asked: Positive, group: Indices, depth: int) -> Path:
    if depth == MOST_LEVELS:
        raise Unexplained(f"sums within one another, more than {MOST_LEVELS} deep")
    pivot, others = int(group[0]), group[1:]
    parts: list[Indices] = []
    if len(others):
        alone = asked.alone(pivot, others)
        parts = [others[at : at + 1] for at in np.flatnonzero(alone)]
        left = others[~alone]
        while len(left):
            first, rest = left[:1], left[1:]
            one = np.full(len(rest), first[0])
            joined = asked.before(np.full(len(rest), pivot), one, rest) if len(rest) else np.zeros(0, bool)
            parts.append(np.concatenate([first, rest[joined]]))
            left = rest[~joined]
    return Path(pivot, tuple(_tree(asked, part, depth + 1) for part in _sorted(asked, pivot, parts)))


def _sorted(asked: Positive, pivot: int, parts: Sequence[Indices]) -> list[Indices]:
    """The parts, that which meets the pivot first in front: quicksort, all comparisons of a round at once."""
    segments = [list(parts)]
    while any(len(segment) > 1 for segment in segments):
        pairs = [(s[len(s) // 2][0], one[0]) for s in segments if len(s) > 1 for one in s]
        middle, one = np.array(pairs).T
        nearer = iter(asked.before(middle, np.full(len(pairs), pivot), one))
        following: list[list[Indices]] = []
        for segment in segments:
            if len(segment) < 2:
                following.append(segment)
                continue
            answers = [bool(next(nearer)) for _ in segment]
            at = len(segment) // 2
            low = [p for k, p in enumerate(segment) if answers[k] and k != at]
            high = [p for k, p in enumerate(segment) if not answers[k] and k != at]
            following += [s for s in (low, [segment[at]], high) if s]
        segments = following
    return [one for segment in segments for one in segment]
