"""MXNet's ops that only move values: slices, reshapes and orders of axes, with MXNet's own codes."""

from __future__ import annotations

from math import prod

from refnet.core.errors import UnsupportedError
from refnet.formats.mxnet.node import LARGEST, SymbolNode
from refnet.ops import ExpandDims, Identity, Op, Pad, Reshape, Slice, TensorType, Transpose


def axes(node: SymbolNode, rank: int) -> tuple[int, ...]:
    """The attribute `axis`: one or several, sorted, each once; () where absent."""
    given = node.numbers("axis")
    if any(n is None or not -rank <= n < rank for n in given):
        raise node.wrong("axis", f"axes from {-rank} to {rank - 1}")
    found = sorted({n % rank for n in given if n is not None})
    if len(found) < len(given):
        raise node.wrong("axis", "each axis once")
    return tuple(found)


def expand_dims(node: SymbolNode, data: list[TensorType]) -> Op:
    """One new dimension of size 1."""
    return ExpandDims(node.axis("axis", len(data[0].shape) + 1))


def slice_axis(node: SymbolNode, data: list[TensorType]) -> Op:
    """A range along one axis."""
    axis = node.axis("axis", len(data[0].shape))
    size = data[0].shape[axis]
    begin, end = node.optional_integer("begin"), node.optional_integer("end")
    begin = 0 if begin is None else begin + size if begin < 0 else begin
    end = size if end is None else end + size if end < 0 else end
    if not 0 <= begin < end <= size:
        raise node.wrong("begin", f"a range inside of 0 to {size}, got {begin} to {end}")
    return Slice(begin, end, axis)


def slice_(node: SymbolNode, data: list[TensorType]) -> Op:
    """Ranges along the first axes, with steps of 1; an end beyond the axis is cut, as in MXNet."""
    shape = data[0].shape
    begins, ends = node.numbers("begin"), node.numbers("end")
    if any(step not in (None, 1) for step in node.numbers("step")):
        raise node.refused("step", "steps of 1")
    if len(begins) != len(ends) or len(begins) > len(shape):
        raise node.wrong("end", f"as many numbers as begin has, at most {len(shape)}")
    ranges = [range(n)[slice(b, e)] for n, b, e in zip(shape, begins, ends, strict=False)]
    if any(not r for r in ranges):
        raise node.wrong("begin", f"ranges that leave something of {data[0]!r}")
    cut = [(axis, r) for axis, r in enumerate(ranges) if len(r) < shape[axis]]
    if not cut:
        return Identity()
    if len(cut) == 1:
        ((axis, r),) = cut
        return Slice(r.start, r.stop, axis)
    before, behind = [0] * len(shape), [0] * len(shape)
    for axis, r in cut:
        before[axis], behind[axis] = -r.start, r.stop - shape[axis]
    return Pad(tuple(before), tuple(behind))


def squeeze(node: SymbolNode, data: list[TensorType]) -> Op:
    """Without the dimensions of size 1 that are named, or all of them; at least one dimension stays."""
    shape = data[0].shape
    named = axes(node, len(shape))
    gone = set(named or (i for i, n in enumerate(shape) if n == 1))
    if any(shape[i] != 1 for i in gone):
        raise node.wrong("axis", f"dimensions of size 1 of {data[0]!r}")
    if 0 in gone:  # the batch is 1 only by chance
        raise node.refused("axis", "other axes than the batch's")
    sizes = [n for i, n in enumerate(shape) if i not in gone]
    return Reshape((0, *sizes[1:]))


def transpose(node: SymbolNode, data: list[TensorType]) -> Op:
    """The axes in another order; reversed where none is given."""
    rank = len(data[0].shape)
    order = node.numbers("axes") or tuple(range(rank))[::-1]
    if any(n is None for n in order) or sorted(int(n or 0) % rank for n in order) != list(range(rank)):
        raise node.wrong("axes", f"each axis of {data[0]!r} once")
    return Transpose(tuple(int(n or 0) % rank for n in order))


def swap(node: SymbolNode, data: list[TensorType]) -> Op:
    """Two axes exchanged."""
    rank = len(data[0].shape)
    first, second = node.axis("dim1", rank, 0), node.axis("dim2", rank, 0)
    order = list(range(rank))
    order[first], order[second] = second, first
    return Transpose(tuple(order))


Sizes = list[tuple[int, tuple[int, ...]]]
"""Per dimension its size, -1 for the one to infer, and the dimensions of the data that it is made of."""


def reshape(node: SymbolNode, data: list[TensorType]) -> Op:
    """MXNet's codes: 0 copies, -1 infers, -2 copies the rest, -3 joins two, -4 splits one in two.

    The batch may have any size: it is copied in its place, or it is what is inferred.
    """
    for key in ("target_shape", "keep_highest"):
        if node.text(key, "()") not in ("()", "[]", "None", "0", "False", "false"):
            raise node.refused(key, "the attribute shape")
    reverse, shape = node.boolean("reverse", False), data[0].shape
    codes = node.numbers("shape")
    if not codes or any(n is None or not -4 <= n <= LARGEST for n in codes):
        raise node.wrong("shape", "at least one number from -4 on")
    given = [int(n or 0) for n in codes]
    if reverse and -4 in given:
        raise node.refused("shape", "the code -4 only without reverse")
    sizes = _decoded(node, given[::-1] if reverse else given, shape[::-1] if reverse else shape)
    if reverse:
        rank = len(shape)
        sizes = [(size, tuple(rank - 1 - i for i in sources)) for size, sources in sizes[::-1]]
    known = prod(size for size, _ in sizes if size != -1)
    inferred = sum(size == -1 for size, _ in sizes)
    if inferred > 1:
        raise node.wrong("shape", "at most one -1")
    if prod(shape) % known if inferred else prod(shape) != known:
        raise node.wrong("shape", f"a shape of {prod(shape)} elements")
    return Reshape(_any_batch(node, sizes, prod(shape) // known))


def _decoded(node: SymbolNode, codes: list[int], shape: tuple[int, ...]) -> Sizes:
    found: Sizes = []
    at = 0  # the dimension of the data that comes next
    left = iter(enumerate(codes))

    def taken(count: int) -> tuple[int, ...]:
        nonlocal at
        if at + count > len(shape):
            raise node.wrong("shape", f"codes that fit the {len(shape)} dimensions of the data")
        at += count
        return tuple(range(at - count, at))

    for place, code in left:
        if code == -2:
            found += [(shape[i], (i,)) for i in taken(len(shape) - at)]
        elif code == -4:
            (source,) = taken(1)
            parts = [next(left, (0, 0))[1], next(left, (0, 0))[1]]
            known = max(parts)  # a -1 stands for what is left of the dimension, and so for any batch
            made_of = [() if n != -1 else (source,) if known == 1 else (source, source) for n in parts]
            parts = [shape[source] // max(known, 1) if n == -1 else n for n in parts]
            if min(parts) < 1 or prod(parts) != shape[source]:
                raise node.wrong("shape", f"two factors of {shape[source]} after -4")
            found += zip(parts, made_of, strict=True)
        elif code in (0, -3):
            sources = taken(1 if code == 0 else 2)
            found.append((prod(shape[i] for i in sources), sources))
        elif code == -1 and len(found) != place:
            raise node.refused(
                "shape", "-1 in front of -2 and -4, behind which MXNet infers another dimension"
            )
        else:
            at = min(at + 1, len(shape))  # a number stands for a dimension of the data, too
            found.append((code, ()))
    return found


def _any_batch(node: SymbolNode, sizes: Sizes, inferred: int) -> tuple[int, ...]:
    """The sizes as Reshape's: a dimension in its place is 0; one that holds the batch is inferred.

    inferred: the size that a -1 has for a batch of one.
    """
    target = [
        0 if sources == (place,) else -1 if 0 in sources else size
        for place, (size, sources) in enumerate(sizes)
    ]
    if target.count(-1) > 1:  # the batch stands elsewhere, so what -1 infers does not depend on it
        target = [inferred if size == -1 else n for n, (size, _) in zip(target, sizes, strict=True)]
    if target.count(-1) > 1:
        raise UnsupportedError(f"{node.file}: {node.title}: its shape needs to know the batch's size")
    return tuple(target)
