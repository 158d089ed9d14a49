"""Two captures, value by value: which values have equal bits, and how far the others are apart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.errors import InputError
from refnet.core.op import F32
from refnet.formats.arguments import check_arguments
from refnet.formats.golden_file import digest
from refnet.formats.npy import CODES
from refnet.verification.axes import readings, regrouped
from refnet.verification.capture import CapturedValues, float32, opened
from refnet.verification.difference import differs, ulps
from refnet.verification.progress import Progress
from refnet.verification.record import finite

Source = str | os.PathLike[str] | Mapping[str, F32] | CapturedValues

EQUAL, DIFFERENT, SHAPE, HASH = "equal", "different", "shape", "hash"


@dataclass(frozen=True)
class ValueDiff:
    """One value that both captures have.

    result: "equal"; "different"; "shape": another number of elements, or another shape that has the other's
    bits in no order of its axes; "hash": one of the two has only a hash, and it is another one. reading: of
    b's array, if it is equal in another order of its axes. differ: elements; ulps: the most float32 between,
    -1 if only NaN differ; largest: absolute difference of finite elements; the last three are None where
    they cannot be known.

    >>> ValueDiff("y", "equal", ((1, 2), (1, 2)), 2).differ
    0
    """

    name: str
    result: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    elements: int
    differ: int | None = 0
    ulps: int | None = 0
    largest: float | None = 0.0
    reading: str | None = None


@dataclass(frozen=True)
class Diff:
    """Two captures side by side. only_a, only_b: values that only one of them has.

    >>> x = np.zeros((1, 2), np.float32)
    >>> found = diff({"a": x, "b": x}, {"a": x})
    >>> found.different, found.only_a, found.exit_code
    ((), ('b',), 1)
    """

    pairs: tuple[ValueDiff, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def different(self) -> tuple[ValueDiff, ...]:
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


def diff(a: Source, b: Source, progress: Progress | None = None) -> Diff:
    """Compare two captures, each a folder, an open capture, or arrays by name.

    Bits are compared as bits, every NaN counting as the same NaN. A value of another shape with as many
    elements is read in the order of axes in which it is equal, if there is one (`ValueDiff.reading`).
    progress: called after each value with (values done, of how many).
    Raises InputError if they have no value in common, or one that is not float32.

    >>> import refnet
    >>> one = {"y": np.float32([1, 2])}
    >>> refnet.diff(one, {"y": np.float32([1, 2.0000002])}).pairs[0].ulps
    1
    """
    check_arguments(locals())
    a, b = opened(a), opened(b)
    theirs = set(b.names)
    common = [name for name in a.names if name in theirs]
    if not common:
        raise InputError("the two captures have no value in common")
    pairs: list[ValueDiff] = []
    if progress is not None:
        progress(0, len(common))
    for name in common:
        pairs.append(_pair(name, a, b))
        if progress is not None:
            progress(len(pairs), len(common))
    both = set(common)
    return Diff(
        tuple(pairs),
        tuple(name for name in a.names if name not in both),
        tuple(name for name in b.names if name not in both),
    )


def _pair(name: str, a: CapturedValues, b: CapturedValues) -> ValueDiff:
    hashes = [_hash_only(name, one) for one in (a, b)]
    if any(hashes):
        stored = [_digest(name, one) for one in (a, b)]
        shapes = (stored[0][1], stored[1][1])
        elements = int(np.prod(shapes[0]))
        if stored[0] == stored[1]:
            return ValueDiff(name, EQUAL, shapes, elements)
        return ValueDiff(name, HASH if shapes[0] == shapes[1] else SHAPE, shapes, elements, None, None, None)
    x, y = a.value(name, None), b.value(name, None)
    shapes = (x.shape, y.shape)
    if x.dtype != np.float32 and x.dtype == y.dtype and x.dtype.name in CODES:
        if x.shape != y.shape:
            return ValueDiff(name, SHAPE, shapes, x.size, None, None, None)
        count = int((x != y).sum())
        far = float(np.abs(x.astype(np.float64) - y).max())
        return ValueDiff(name, DIFFERENT if count else EQUAL, shapes, x.size, count, 0, far)
    x, y = float32(name, x), float32(name, y)
    if x.size != y.size:
        return ValueDiff(name, SHAPE, shapes, x.size, None, None, None)
    if y.shape != x.shape and not regrouped(y.shape, x.shape):
        fitting = (one for one in readings(y.shape, x.shape) if not differs(x, one.of(y)).any())
        if (reading := next(fitting, None)) is None:
            return ValueDiff(name, SHAPE, shapes, x.size, None, None, None)
        return ValueDiff(name, EQUAL, shapes, x.size, reading=str(reading))
    y = y.reshape(x.shape)
    other = differs(x, y)
    if not other.any():
        return ValueDiff(name, EQUAL, shapes, x.size)
    return ValueDiff(name, DIFFERENT, shapes, x.size, int(other.sum()), *_far(x[other], y[other]))


def _far(x: F32, y: F32) -> tuple[int, float]:
    """The most ulps, and the largest absolute difference of finite elements."""
    with np.errstate(all="ignore"):
        distance = np.abs(x.astype(np.float64) - y)
    return int(ulps(x, y).max()), float(distance[np.isfinite(distance)].max(initial=0.0))


def _hash_only(name: str, capture: CapturedValues) -> bool:
    manifest = capture.manifest
    return manifest is not None and manifest.values[name].file is None


def _digest(name: str, capture: CapturedValues) -> tuple[str, tuple[int, ...]]:
    if capture.manifest is not None:
        stored = capture.manifest.values[name].digest
        return stored.sha256, stored.shape
    found = digest(capture.value(name, None))
    return found.sha256, found.shape
