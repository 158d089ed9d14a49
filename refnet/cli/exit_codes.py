"""The exit code of several verifications."""

from __future__ import annotations

from collections.abc import Iterable

from refnet.cli.common import DIFFERENT, DONE


def worst(codes: Iterable[int]) -> int:
    """A defect in one is a defect (1), whatever could not be judged in the others (2).

    >>> worst([0, 2, 1]), worst([0, 2]), worst([0, 0])
    (1, 2, 0)
    """
    found = set(codes)
    return DIFFERENT if DIFFERENT in found else max(found, default=DONE)
