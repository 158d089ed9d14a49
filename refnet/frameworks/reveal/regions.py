"""Sets of output elements as few boxes: channels of a tile's edge, rows of a batch, last columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refnet.core.bits import Mask
from refnet.core.orders import Box, Region

Runs = list[tuple[int, int, int]]

MOST_BOXES = 64


def region(wanted: Mask, allowed: Mask) -> Region | None:
    """Boxes that hold all wanted elements and only allowed ones; None if that takes too many.

    wanted, allowed: (n, c, h, w).

    >>> wanted = np.zeros((1, 4, 2, 2), bool)
    >>> wanted[0, 2:] = True
    >>> region(wanted, wanted)
    (Box(ranges=(('c', (2, 4, 1)),)),)
    """
    n, c, h, w = wanted.shape
    views = [
        (("n", "c", "y", "x"), (n, c, h, w)),
        (("n", "c", "p"), (n, c, h * w)),
        (("c", "m"), None),
        (("e",), (wanted.size,)),
    ]
    for axes, shape in views:
        if shape is None:
            want, may = (a.reshape(n, c, -1).swapaxes(0, 1).reshape(c, -1) for a in (wanted, allowed))
        else:
            want, may = wanted.reshape(shape), allowed.reshape(shape)
        if found := _product(want, may, axes):
            return found
    return _slices(wanted, allowed)


def _product(wanted: Mask, allowed: Mask, axes: tuple[str, ...]) -> Region | None:
    """The wanted elements as a product of sets, one per axis, each in runs."""
    sides = []
    for axis in range(wanted.ndim):
        others = tuple(k for k in range(wanted.ndim) if k != axis)
        sides.append(wanted.any(others))
    grown = np.ix_(*(np.flatnonzero(side) for side in sides))
    if not allowed[grown].all():
        return None
    boxes: list[tuple[tuple[str, tuple[int, int, int]], ...]] = [()]
    for name, side in zip(axes, sides, strict=True):
        if side.all():
            continue
        boxes = [(*box, (name, run)) for box in boxes for run in runs(np.flatnonzero(side))]
        if len(boxes) > MOST_BOXES:
            return None
    return tuple(Box(box) for box in boxes)


def _slices(wanted: Mask, allowed: Mask) -> Region | None:
    """A product for each channel, or each image, or each row, where one for all is too coarse."""
    for axis, name in ((0, "n"), (2, "y"), (3, "x"), (1, "c")):
        boxes: list[Box] = []
        for k in np.flatnonzero(wanted.any(tuple(a for a in range(4) if a != axis))):
            want, may = (np.zeros_like(wanted) for _ in range(2))
            at = (*(slice(None),) * axis, slice(k, k + 1))
            want[at], may[at] = wanted[at], allowed[at]
            found = _product(want, may, ("n", "c", "y", "x"))
            if found is None or len(boxes) + len(found) > MOST_BOXES:
                break
            held = (name, (int(k), int(k) + 1, 1))
            boxes += [Box((*(r for r in box.ranges if r[0] != name), held)) for box in found]
        else:
            return tuple(boxes)
    return None


def runs(indices: npt.NDArray[np.int64]) -> Runs:
    """Ascending indices as (start, stop, step).

    >>> runs(np.array([0, 1, 2, 8, 12, 16, 40]))
    [(0, 3, 1), (8, 17, 4), (40, 41, 1)]
    """
    found = []
    at = 0
    while at < len(indices):
        stop = at + 1
        if stop < len(indices):
            step = int(indices[stop] - indices[at])
            while stop < len(indices) and indices[stop] - indices[stop - 1] == step:
                stop += 1
            if stop - at > 2 or step == 1:
                found.append((int(indices[at]), int(indices[stop - 1]) + 1, step))
                at = stop
                continue
        found.append((int(indices[at]), int(indices[at]) + 1, 1))
        at += 1
    return found
