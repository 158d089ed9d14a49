"""Examples of the ops that select, rearrange, transpose-convolve and interpolate, for rules and exporters."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from refnet import ops
from refnet.core.op import Op

Shape = tuple[int, ...]


def copy(places: Callable[[Any, tuple[int, ...]], tuple[int, ...]]) -> Callable[..., Fraction]:
    """y[at] = x[places(op, at)]."""
    return lambda op, at, x: Fraction(float(x[places(op, at)]))


def shuffled(op: ops.DepthToSpace, at: tuple[int, ...]) -> tuple[int, ...]:
    n, c, i, j = at
    b = op.block
    channels = 2
    p, q = i % b, j % b
    return (n, (p * b + q) * channels + c if op.depth_first else (c * b + p) * b + q, i // b, j // b)


def unshuffled(op: ops.SpaceToDepth, at: tuple[int, ...]) -> tuple[int, ...]:
    n, k, i, j = at
    b = op.block
    (p, q), c = (k // 2 // b, k // 2 % b) if op.depth_first else (k // b % b, k % b), 0
    c = k % 2 if op.depth_first else k // (b * b)
    return (n, c, i * b + p, j * b + q)


SPATIAL: list[tuple[Op, tuple[Shape, ...], Callable[..., Fraction]]] = [
    (
        ops.StridedSlice((2, 0), (4, 0), (-2, 1), (3, 1)),
        ((2, 3, 5),),
        copy(lambda op, at: (at[0], at[1], 4 - 2 * at[2])),
    ),
    (ops.StridedSlice((1,), (1,), (3,), (2,)), ((2, 5),), copy(lambda op, at: (at[0], 1 + 3 * at[1]))),
    (ops.Gather(1, (2, 0, 2)), ((2, 3, 2),), copy(lambda op, at: (at[0], (2, 0, 2)[at[1]], at[2]))),
    (ops.Gather(0, (1,), ()), ((2, 3),), copy(lambda op, at: (1, at[0]))),
    (ops.Gather(1, (0, 1, 1, 0), (2, 2)), ((2, 2),), copy(lambda op, at: (at[0], (at[1] + at[2]) % 2))),
    (ops.Expand((4, 1)), ((2, 1, 3),), copy(lambda op, at: (at[0], 0, at[2]))),
    (ops.Expand((2, 3, 1)), ((3, 4),), copy(lambda op, at: at[1:])),
    (ops.Tile((1, 3)), ((2, 2),), copy(lambda op, at: (at[0], at[1] % 2))),
    (ops.DepthToSpace(2), ((1, 8, 2, 3),), copy(shuffled)),
    (ops.DepthToSpace(3, True), ((2, 18, 1, 2),), copy(shuffled)),
    (ops.SpaceToDepth(2), ((1, 2, 4, 6),), copy(unshuffled)),
    (ops.SpaceToDepth(3, True), ((2, 2, 3, 6),), copy(unshuffled)),
]
"""(op, shapes of the data, the exact value at one element)."""

MAPS = (6, 5, 4)
EXPORTED: list[Any] = [
    (ops.StridedSlice((2, 3), (4, 0), (-2, 3), (3, 2)), MAPS),
    (ops.Gather(2, (4, 0, 0)), MAPS),
    (ops.Gather(1, (5,), ()), MAPS),
    (ops.Gather(3, (3, 0, 1, 1), (2, 2)), MAPS),
    (ops.Expand((5, 1)), (6, 1, 4)),
    (ops.Tile((1, 2, 1, 3)), MAPS),
    (ops.DepthToSpace(2), (8, 3, 2)),
    (ops.DepthToSpace(2, True), (8, 3, 2)),
    (ops.SpaceToDepth(2), (3, 4, 6)),
    (ops.SpaceToDepth(2, True), (3, 4, 6)),
]
"""(op, shapes of the data of one image) for the ONNX export."""

UNKNOWN_TO_MXNET: list[tuple[Op, Shape]] = [
    (ops.StridedSlice((1,), (2,), (-1,), (3,)), (1, 4)),
    (ops.Gather(1, (0,)), (1, 4)),
    (ops.Expand((3,)), (1, 1)),
    (ops.Tile((1, 2)), (1, 4)),
    (ops.DepthToSpace(2), (1, 4, 1, 1)),
    (ops.SpaceToDepth(2), (1, 1, 2, 2)),
]
"""Ops that the export to MXNet refuses."""
