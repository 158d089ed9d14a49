"""The layers of an IR that only move values."""

from __future__ import annotations

from refnet.formats.assembly import LARGEST_NUMBER, Made
from refnet.formats.openvino.use import Use
from refnet.ops import Concat, ExpandDims, Identity, Op, Pad, Reshape, Slice, Transpose


def reshape(u: Use) -> list[Made]:
    """Reshape: -1 takes what is left, 0 copies a dimension if special_zero says so."""
    target = u.whole_numbers(1, "shape")
    if 0 in target and not u.flag("special_zero", False):
        raise u.layer.unsupported("a dimension of 0 without special_zero: an empty value")
    if not target or len(target) > 32 or any(not -1 <= n <= LARGEST_NUMBER for n in target):
        raise u.layer.wrong(f"shape {target[:8]}", "1 to 32 numbers from -1 on")
    return u.one(Reshape(tuple(target)))


def squeeze(u: Use) -> list[Made]:
    """Squeeze: the axes given, or all of 1."""
    shape = u.type().shape
    given = u.whole_numbers(1, "axes") if u.has(1) else []
    axes = u.axes(given, len(shape)) if given else tuple(i for i, n in enumerate(shape) if n == 1)
    if any(shape[i] != 1 for i in axes):
        raise u.layer.wrong(f"axes {list(axes)} of {list(shape)}", "dimensions of 1")
    return u.one(Reshape(_led([n for i, n in enumerate(shape) if i not in axes], 0 not in axes)))


def _led(sizes: list[int], kept: bool) -> tuple[int, ...]:
    """The sizes, the first as a 0 (whatever it is) if the first dimension stays where it is."""
    return (0, *sizes[1:]) if kept and sizes else tuple(sizes)


def unsqueeze(u: Use) -> list[Made]:
    """Unsqueeze: one axis or more."""
    shape = u.type().shape
    given = u.whole_numbers(1, "axes")
    if not 0 < len(given) <= 32:
        raise u.layer.wrong(f"{len(given)} axes", "1 to 32")
    axes = u.axes(given, len(shape) + len(given))
    if len(axes) == 1:
        return u.one(ExpandDims(axes[0]))
    left = iter(shape)
    sizes = [1 if i in axes else next(left) for i in range(len(shape) + len(axes))]
    return u.one(Reshape(_led(sizes, 0 not in axes)))


def transpose(u: Use) -> list[Made]:
    """Transpose: reversed where the order is empty."""
    rank = u.rank()
    order = u.whole_numbers(1, "order")
    if order and len(order) != rank:
        raise u.layer.wrong(f"order {order[:8]}", f"{rank} axes")
    return u.one(Transpose(u.axes(order, rank) if order else tuple(range(rank))[::-1]))


def concat(u: Use) -> list[Made]:
    """Concat."""
    return u.one(Concat(u.axis(u.whole("axis", None), u.rank())), data=u.inputs)


def split(u: Use) -> list[Made]:
    """Split: equal parts."""
    axis = _axis(u)
    count = u.whole("num_splits", None)
    length = u.type().shape[axis]
    if count != len(u.outputs) or count < 1 or length % count:
        raise u.layer.wrong(f"{length} in {count} parts with {len(u.outputs)} outputs", "equal parts")
    return _parts(u, axis, [length // count] * count)


def variadic_split(u: Use) -> list[Made]:
    """VariadicSplit: parts of given lengths, one of which may be -1: what is left."""
    axis = _axis(u)
    lengths = u.whole_numbers(2, "split_lengths")
    length = u.type().shape[axis]
    if lengths.count(-1) == 1:
        left = length - sum(n for n in lengths if n != -1)
        lengths = [left if n == -1 else n for n in lengths]
    if len(lengths) != len(u.outputs) or sum(lengths) != length or min(lengths) < 1:
        raise u.layer.wrong(f"parts {lengths[:8]} of {length}", f"{len(u.outputs)} of at least 1")
    return _parts(u, axis, lengths)


def _axis(u: Use) -> int:
    """The axis of a split, which is its second input."""
    given = u.whole_numbers(1, "axis")
    if len(given) != 1:
        raise u.layer.wrong(f"axis {given[:8]}", "one")
    return u.axis(given[0], u.rank())


def _parts(u: Use, axis: int, lengths: list[int]) -> list[Made]:
    made, begin = [], 0
    for name, length in zip(u.outputs, lengths, strict=True):
        if name in u.wanted:
            made.append(Made(name, Slice(begin, begin + length, axis), u.inputs[:1]))
        begin += length
    return made


def pad(u: Use) -> list[Made]:
    """Pad, in the modes that refnet has."""
    mode = u.text("pad_mode", None, ("constant", "edge", "reflect", "symmetric"))
    if mode == "symmetric":
        raise u.layer.unsupported("pad_mode 'symmetric'; refnet has constant, edge and reflect")
    rank = u.rank()
    before, behind = u.whole_numbers(1, "pads_begin"), u.whole_numbers(2, "pads_end")
    if {len(before), len(behind)} != {rank} or any(abs(n) > LARGEST_NUMBER for n in (*before, *behind)):
        raise u.layer.wrong(f"pads {before[:8]} and {behind[:8]}", f"{rank} numbers each")
    value = u.one_number(3, "pad_value") if u.has(3) and mode == "constant" else 0.0
    return u.one(Pad(tuple(before), tuple(behind), mode, value))  # type: ignore[arg-type]


def cut(u: Use) -> list[Made]:
    """Slice (opset 8) with steps of 1: of one axis a slice, of several a cut."""
    shape = u.type().shape
    starts, stops, steps = (u.whole_numbers(i, what) for i, what in ((1, "start"), (2, "stop"), (3, "step")))
    axes = u.axes(u.whole_numbers(4, "axes"), len(shape)) if u.has(4) else tuple(range(len(starts)))
    if {len(starts), len(stops), len(steps)} != {len(axes)} or len(axes) > len(shape):
        raise u.layer.wrong(f"starts {starts[:8]}, stops {stops[:8]}, steps {steps[:8]}", "as many as axes")
    if any(n != 1 for n in steps):
        raise u.layer.unsupported(f"steps {steps[:8]}; refnet has steps of 1")
    return sliced(u, dict(zip(axes, map(slice, starts, stops), strict=True)))


def strided_slice(u: Use) -> list[Made]:
    """StridedSlice with strides of 1 and without new, lost or left-out axes."""
    shape = u.type().shape
    begin, end = u.whole_numbers(1, "begin"), u.whole_numbers(2, "end")
    strides = u.whole_numbers(3, "strides") if u.has(3) else [1] * len(begin)
    if not len(begin) == len(end) == len(strides) <= len(shape):
        raise u.layer.wrong(f"begin {begin[:8]}, end {end[:8]}, strides {strides[:8]}", "as many of each")
    if any(n != 1 for n in strides):
        raise u.layer.unsupported(f"strides {strides[:8]}; refnet has strides of 1")
    for name in ("new_axis_mask", "shrink_axis_mask", "ellipsis_mask"):
        if "1" in u.layer.attributes.get(name, ""):
            raise u.layer.unsupported(f"{name}={u.layer.attributes[name][:60]!r}")
    open_begin, open_end = _mask(u, "begin_mask"), _mask(u, "end_mask")
    ranges = {}
    for i, (b, e) in enumerate(zip(begin, end, strict=True)):
        ranges[i] = slice(None if i in open_begin else b, None if i in open_end else e)
    return sliced(u, ranges)


def _mask(u: Use, name: str) -> set[int]:
    """The axes that a mask marks."""
    parts = u.layer.attributes.get(name, "").split(",", 33)
    return {i for i, part in enumerate(parts) if part.strip() == "1"}


def sliced(u: Use, ranges: dict[int, slice]) -> list[Made]:
    """A part along some axes."""
    shape = u.type().shape
    kept = {i: range(shape[i])[part] for i, part in ranges.items()}
    changed = [(i, r) for i, r in kept.items() if len(r) < shape[i]]
    if not all(len(r) for _, r in changed):
        raise u.layer.unsupported("an empty value")
    op: Op = Identity()
    if len(changed) == 1:
        ((axis, r),) = changed
        op = Slice(r.start, r.stop, axis)
    elif changed:
        before, behind = [0] * len(shape), [0] * len(shape)
        for axis, r in changed:
            before[axis], behind[axis] = -r.start, r.stop - shape[axis]
        op = Pad(tuple(before), tuple(behind))
    return u.one(op)
