"""Two captures of whatever origin, value by value: which are equal, and how far the others are apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.errors import InputError
from refnet.core.op import F32
from refnet.verification.difference import differs, ulps
from refnet.verification.record import finite
from refnet.verification.verifier import Capture

EQUAL, DIFFERENT, SHAPE, HASH = "equal", "different", "shape", "hash"


@dataclass(frozen=True)
class Pair:
    """One value that both captures have.

    result: "equal"; "different"; "shape": not even as many elements; "hash": one of the two has only a hash,
    and it is another one. differ: elements; ulps: the most float32 between, -1 if only NaN differ; largest:
    absolute difference of finite elements; the last three are None where they cannot be known.
    """

    name: str
    result: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    elements: int
    differ: int | None = 0
    ulps: int | None = 0
    largest: float | None = 0.0


@dataclass(frozen=True)
class Diff:
    """Two captures side by side. only_a, only_b: values that only one of them has."""

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def different(self) -> tuple[Pair, ...]:
        """The values that are not equal, in order."""
        return tuple(pair for pair in self.pairs if pair.result != EQUAL)

    @property
    def exit_code(self) -> int:
        """0 equal, 1 different: in a value, or in what there is."""
        return 1 if self.different or self.only_a or self.only_b else 0

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "equal": not self.exit_code,
            "values": len(self.pairs),
            "different": len(self.different),
            "first": next((pair.name for pair in self.different), None),
            "pairs": [
                {
                    **vars(pair),
                    "shapes": [list(shape) for shape in pair.shapes],
                    "largest": None if pair.largest is None else finite(pair.largest),
                }
                for pair in self.pairs
            ],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }


def diff(a: Capture, b: Capture, advance: Callable[[int], object] | None = None) -> Diff:
    """Compare two captures. Bits are compared as bits, every NaN counting as the same; shapes that hold as
    many elements are read in row order.

    advance: called with 1 after each value. Raises InputError if they have no value in common.

    >>> from refnet.verification.verify import Values
    >>> one = Values({"y": np.float32([1, 2])})
    >>> diff(one, Values({"y": np.float32([1, 2.0000002])})).pairs[0].ulps
    1
    """
    theirs = set(b.names)
    common = [name for name in a.names if name in theirs]
    if not common:
        raise InputError("the two captures have no value in common")
    pairs = []
    for name in common:
        pairs.append(_pair(name, a, b))
        if advance is not None:
            advance(1)
    both = set(common)
    return Diff(
        tuple(pairs),
        tuple(name for name in a.names if name not in both),
        tuple(name for name in b.names if name not in both),
    )


def _pair(name: str, a: Capture, b: Capture) -> Pair:
    hashes = [_hash_only(name, one) for one in (a, b)]
    if any(hashes):
        stored = [_digest(name, one) for one in (a, b)]
        shapes = (stored[0][1], stored[1][1])
        elements = int(np.prod(shapes[0]))
        if stored[0] == stored[1]:
            return Pair(name, EQUAL, shapes, elements)
        return Pair(name, HASH if shapes[0] == shapes[1] else SHAPE, shapes, elements, None, None, None)
    x, y = a.value(name), b.value(name)
    shapes = (x.shape, y.shape)
    if x.size != y.size:
        return Pair(name, SHAPE, shapes, x.size, None, None, None)
    y = y.reshape(x.shape)
    other = differs(x, y)
    if not other.any():
        return Pair(name, EQUAL, shapes, x.size)
    return Pair(name, DIFFERENT, shapes, x.size, int(other.sum()), *_far(x[other], y[other]))


def _far(x: F32, y: F32) -> tuple[int, float]:
    """The most ulps, and the largest absolute difference of finite elements."""
    with np.errstate(all="ignore"):
        distance = np.abs(x.astype(np.float64) - y)
    return int(ulps(x, y).max()), float(distance[np.isfinite(distance)].max(initial=0.0))


def _hash_only(name: str, capture: Capture) -> bool:
    manifest = capture.manifest
    return manifest is not None and manifest.values[name].file is None


def _digest(name: str, capture: Capture) -> tuple[str, tuple[int, ...]]:
    from refnet.formats.golden_file import digest

    if capture.manifest is not None:
        stored = capture.manifest.values[name].digest
        return stored.sha256, stored.shape
    found = digest(capture.value(name))
    return found.sha256, found.shape
