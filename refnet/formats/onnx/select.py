"""The ONNX operators that choose, repeat and rearrange elements: Gather, Scatter, Expand, Tile and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.formats.assembly import LARGEST_NUMBER, Made
from refnet.formats.onnx import whole
from refnet.formats.onnx.use import Use
from refnet.ops import DepthToSpace, Expand, Gather, Identity, Reshape, SpaceToDepth, StridedSlice, Tile

MOST_INDICES = 1 << 16
"""Of a Gather: they stand in the graph as the op's attribute, and print with it."""


def gather(u: Use) -> list[Made]:
    """Gather, with constant indices of any shape or with computed ones."""
    if not u.is_constant(1):
        return whole.gather(u)
    shape = u.type().shape
    axis = u.axis(u["axis"], len(shape))
    return _gathered(u, axis, u.constant(1, "indices"))


def _gathered(u: Use, axis: int, indices: npt.NDArray[Any]) -> list[Made]:
    shape = u.type().shape
    if indices.dtype.kind not in "iu":
        raise u.node.wrong(f"{indices.dtype} as indices", "whole numbers")
    if not 1 <= indices.size <= MOST_INDICES:
        raise u.node.unsupported(f"{indices.size} indices; refnet takes 1 to {MOST_INDICES}")
    flat = [int(i) for i in indices.reshape(-1)]
    n = shape[axis]
    if not all(-n <= i < n for i in flat):
        wrong = next(i for i in flat if not -n <= i < n)
        raise u.node.wrong(f"index {wrong}", f"{-n} to {n - 1}")
    where = tuple(int(i) for i in indices.shape)
    return u.one(Gather(axis, tuple(i % n for i in flat), None if len(where) == 1 else where))


def gather_elements(u: Use) -> list[Made]:
    """GatherElements with computed indices, or with constant ones: a Gather of the elements in a row; of each
    image, where it is the same for all."""
    if not u.is_constant(1):
        return whole.gather_elements(u)
    indices, shape = u.constant(1, "indices"), u.type().shape
    if indices.dtype.kind not in "iu" or indices.ndim != len(shape):
        raise u.node.wrong(f"{indices.dtype} {list(indices.shape)} as indices", f"{len(shape)} dimensions")
    axis = u.axis(u["axis"], len(shape))
    if any(n > m for i, (n, m) in enumerate(zip(indices.shape, shape, strict=True)) if i != axis):
        raise u.node.wrong(f"indices {list(indices.shape)} of {list(shape)}", "not larger beside the axis")
    if not 1 <= indices.size <= MOST_INDICES * shape[0]:
        raise u.node.unsupported(f"{indices.size} indices; refnet takes 1 to {MOST_INDICES}")
    n = shape[axis]
    if not ((-n <= indices) & (indices < n)).all():
        raise u.node.wrong("an index outside", f"{-n} to {n - 1}")
    images = axis > 0 and indices.shape[0] == shape[0] and bool((indices == indices[:1]).all())
    first = int(images)
    own = indices[0] if images else indices
    places = list(np.indices(own.shape))
    places[axis - first] = own.astype(np.int64) % n
    flat = np.ravel_multi_index(places, shape[first:]).reshape(-1)
    if flat.size > MOST_INDICES:
        raise u.node.unsupported(f"{flat.size} indices; refnet takes 1 to {MOST_INDICES}")
    name, row = u.node.outputs[0], f"{u.node.outputs[0]}/elements"
    gathered = Gather(first, tuple(map(int, flat)), None if own.ndim == 1 else tuple(map(int, own.shape)))
    return [
        Made(row, Reshape((0, -1) if images else (-1,)), u.node.inputs[:1]),
        Made(name, gathered, (row,)),
    ]


def gather_nd(u: Use) -> list[Made]:
    """GatherND with constant indices into the first axis, a Gather of it, or with computed ones."""
    if not u.is_constant(1):
        return whole.gather_nd(u)
    indices = u.constant(1, "indices")
    if indices.dtype.kind not in "iu" or not indices.ndim:
        raise u.node.wrong(f"{indices.dtype} {list(indices.shape)} as indices", "whole numbers")
    if u["batch_dims"] or indices.shape[-1] != 1:
        raise u.node.unsupported("indices into several axes, or in a batch; refnet takes one axis")
    return _gathered(u, 0, indices[..., 0])


def scatter_nd(u: Use) -> list[Made]:
    """ScatterND that replaces every row: the updates, in the order of the constant indices.

    PyTorch's exporter writes `x[:] = y`, and `x[:, :n] += y` where n is all of them, so.
    """
    indices, shape = u.constant(1, "indices"), u.type().shape
    if (u["reduction"] or "none") != "none":
        raise u.node.unsupported("a reduction")
    rows = [int(i) % shape[0] for i in indices.reshape(-1)] if indices.shape == (shape[0], 1) else []
    if indices.dtype.kind not in "iu" or any(not -shape[0] <= i < shape[0] for i in indices.reshape(-1)):
        raise u.node.wrong(f"{indices.dtype} indices", f"whole numbers, {-shape[0]} to {shape[0] - 1}")
    if u.type(2).shape != shape or sorted(rows) != list(range(shape[0])):
        raise u.node.unsupported("it replaces some of the elements; refnet takes it where it replaces all")
    updates = (u.node.inputs[2],)
    if rows == sorted(rows):
        return u.one(Identity(), data=updates)
    return u.one(Gather(0, tuple(rows.index(i) for i in range(shape[0]))), data=updates)


def expand(u: Use) -> list[Made]:
    """Expand: what x has already is kept as a 1, so that it does not depend on the batch."""
    shape, want = u.type().shape, u.numbers("shape", 1, "shape") or []
    if len(want) > 32 or any(not 1 <= n <= LARGEST_NUMBER for n in want):
        raise u.node.unsupported(f"shape {want[:8]}: refnet has 32 dimensions of at least 1")
    have = (*(1,) * (len(want) - len(shape)), *shape)[-len(want) :] if want else ()
    spec = tuple(1 if n == m else n for n, m in zip(want, have, strict=True))
    if all(n == 1 for n in spec) and len(want) <= len(shape):
        return u.one(Identity())
    return u.one(Expand(spec))


def tile(u: Use) -> list[Made]:
    """Tile: one number per axis."""
    repeats = u.numbers("repeats", 1, "repeats") or []
    if len(repeats) != u.rank() or any(n > LARGEST_NUMBER for n in repeats):
        raise u.node.wrong(f"repeats {repeats[:8]}", f"{u.rank()} numbers")
    if min(repeats) < 1:
        raise u.node.unsupported(f"repeats {repeats[:8]}: an empty value")
    return u.one(Identity() if set(repeats) == {1} else Tile(tuple(repeats)))


def depth_to_space(u: Use) -> list[Made]:
    """DepthToSpace: both modes, DCR where the attribute is absent."""
    return u.one(DepthToSpace(_block(u), _depth_first(u)))


def space_to_depth(u: Use) -> list[Made]:
    """SpaceToDepth: both modes, DCR where there is no attribute (before opset 28)."""
    return u.one(SpaceToDepth(_block(u), _depth_first(u)))


def _block(u: Use) -> int:
    block = u["blocksize"]
    if block is None or not 1 <= block <= LARGEST_NUMBER:
        raise u.node.wrong(f"blocksize {block}", "a number from 1 on")
    if u.rank() != 4:
        raise u.node.wrong(f"{u.type()!r}", "4 dimensions")
    return int(block)


def _depth_first(u: Use) -> bool:
    mode = u["mode"] or "DCR"
    if mode not in ("DCR", "CRD"):
        raise u.node.wrong(f"mode {mode[:60]!r}", "DCR or CRD")
    return bool(mode == "DCR")


def strided(u: Use, axes: tuple[int, ...], ranges: list[range]) -> list[Made]:
    """The op of a Slice with steps, from the places along each of its axes."""
    return u.one(
        StridedSlice(
            axes,
            tuple(r.start for r in ranges),
            tuple(r.step for r in ranges),
            tuple(len(r) for r in ranges),
        )
    )
