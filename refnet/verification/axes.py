"""Reading an array whose shape is not its value's: in which orders its axes may stand.

    readings(found, wanted) -> Reading, ...     the judge (judge.py) tries each
    regrouped(found, wanted)                    only axes of size 1 differ: there is nothing to try

Frameworks and chips keep the same values in other layouts (channels last, one flat row). An array of another
shape is never read in row order unseen: it is read by the one order in which it is right, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, permutations
from operator import mul

import numpy as np

from refnet.core.op import F32

MOST_AXES = 5
"""Arrays with more axes, of size 1 not counted, have more than 120 orders: they are not tried."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """One way to read an array: as `split`, its axes in the order `axes` (as NumPy's transpose), as `shape`.

    >>> nhwc = readings((1, 4, 4, 2), (1, 2, 4, 4))
    >>> [str(one) for one in nhwc]
    ['transposed by (0, 3, 1, 2)', 'transposed by (0, 3, 2, 1)']
    >>> nhwc[0].of(np.zeros((1, 4, 4, 2), np.float32)).shape
    (1, 2, 4, 4)
    """

    split: Shape
    axes: tuple[int, ...]
    shape: Shape
    whole: bool

    def of(self, array: F32) -> F32:
        """The array so read, contiguous."""
        return np.ascontiguousarray(array.reshape(self.split).transpose(self.axes)).reshape(self.shape)

    @property
    def moves(self) -> bool:
        """Whether any element stands at another place than in row order."""
        return not regrouped(self.split, self.shape) or self.axes != tuple(range(len(self.axes)))

    @property
    def order(self) -> str:
        """The order of the axes, in words."""
        if self.axes == tuple(range(len(self.axes))):
            return "in row order"
        return f"transposed by {self.axes}"

    def __str__(self) -> str:
        if self.axes == tuple(range(len(self.axes))):
            return f"in row order as {list(self.shape)}"
        return self.order if self.whole else f"as {list(self.split)} {self.order}"


def regrouped(found: Shape, wanted: Shape) -> bool:
    """Whether the shapes differ in axes of size 1 only, so that the elements stand in one order in both.

    >>> regrouped((1, 8, 1, 1), (1, 8)), regrouped((8, 4), (4, 8))
    (True, False)
    """
    return _longer(found) == _longer(wanted)


def readings(found: Shape, wanted: Shape) -> tuple[Reading, ...]:
    """Every order of the axes that makes an array of shape `found` one of shape `wanted`.

    Axes of size 1 are dropped and added. If one shape has fewer axes than the other, neighbours of the other
    are joined: a flat array may hold its value in any order of axes. () if no order does, or there are more
    axes than MOST_AXES.

    >>> [str(one) for one in readings((6,), (1, 2, 3))]
    ['in row order as [1, 2, 3]', 'as [3, 2] transposed by (1, 0)']
    >>> readings((4, 9), (6, 6))
    ()
    """
    a, b = _longer(found), _longer(wanted)
    if math.prod(a) != math.prod(b) or max(len(a), len(b)) > MOST_AXES:
        return ()
    if a == b:
        return (Reading(found, tuple(range(len(found))), wanted, True),)
    return tuple(dict.fromkeys(_orders(found, wanted, a, b)))


def _orders(found: Shape, wanted: Shape, a: Shape, b: Shape) -> Iterator[Reading]:
    """a, b: found and wanted without axes of size 1."""
    if len(a) >= len(b):
        for order in permutations(range(len(a))):
            if _joins(tuple(a[k] for k in order), b):
                if sorted(found) == sorted(wanted):
                    yield Reading(found, _with_ones(found, wanted, order), wanted, True)
                else:
                    yield Reading(a, order, wanted, False)
        return
    for order in permutations(range(len(b))):
        split = tuple(b[k] for k in order)
        if _joins(split, a):
            back = tuple(int(k) for k in np.argsort(order))
            yield Reading(split, back, wanted, False)


def _joins(fine: Shape, coarse: Shape) -> bool:
    """Whether joining neighbours of `fine` gives `coarse`."""
    return set(accumulate(coarse, mul)) <= set(accumulate(fine, mul))


def _with_ones(found: Shape, wanted: Shape, order: tuple[int, ...]) -> tuple[int, ...]:
    """The order of all axes: those of size 1 keep theirs, the others follow `order`."""
    ones = iter([k for k, size in enumerate(found) if size == 1])
    others = [k for k, size in enumerate(found) if size != 1]
    longer = iter([others[k] for k in order])
    return tuple(next(ones) if size == 1 else next(longer) for size in wanted)


def _longer(shape: Shape) -> Shape:
    """The shape without axes of size 1."""
    return tuple(size for size in shape if size != 1)
