"""The ONNX operators that only move values, in every form of their attributes from opset 7 on."""

from __future__ import annotations

import math

import numpy as np

from refnet.formats.assembly import LARGEST_NUMBER, Made
from refnet.formats.onnx.select import strided
from refnet.formats.onnx.use import Use
from refnet.ops import ExpandDims, Flatten, Identity, Pad, Reshape, Slice, Transpose


def split(u: Use) -> list[Made]:
    """Split: by sizes, or in equal parts of which the last may be smaller; each output a slice."""
    shape, outputs = u.type().shape, u.node.outputs
    axis = u.axis(u["axis"], len(shape))
    sizes = u.numbers("split", 1, "split")
    if sizes is None:
        count = u["num_outputs"] or len(outputs)
        if count != len(outputs) or (u.opset < 18 and shape[axis] % count):
            raise u.node.wrong(f"{shape[axis]} in {count} parts with {len(outputs)} outputs", "equal parts")
        size = -(-shape[axis] // count)
        sizes = [min(size, shape[axis] - k * size) for k in range(count)]
    if len(sizes) != len(outputs) or sum(sizes) != shape[axis] or min(sizes) < 0:
        raise u.node.wrong(f"parts {sizes[:8]} of {shape[axis]}", f"{len(outputs)} that make the whole")
    made, begin = [], 0
    for name, size in zip(outputs, sizes, strict=True):
        if name in u.wanted and not size:
            u.store(name, np.zeros((*shape[:axis], 0, *shape[axis + 1 :]), u.type().dtype))
        elif name in u.wanted:
            made.append(Made(name, Slice(begin, begin + size, axis), u.node.inputs[:1]))
        begin += size
    return made


def reshape(u: Use) -> list[Made]:
    """Reshape: 0 copies a dimension, -1 takes what is left."""
    target = u.numbers("shape", 1, "shape") or []
    if u["allowzero"] and 0 in target:
        raise u.node.unsupported("allowzero=1 with a dimension of 0: an empty value")
    if not target or len(target) > 32 or any(not -1 <= n <= LARGEST_NUMBER for n in target):
        raise u.node.wrong(f"shape {target[:8]}", "1 to 32 numbers from -1 on")
    return u.one(Reshape(tuple(target)))


def flatten(u: Use) -> list[Made]:
    """Flatten at any axis."""
    shape = u.type().shape
    axis = u["axis"]
    if axis != len(shape):
        axis = u.axis(axis, len(shape))
    if axis == 1 and len(shape) > 1:
        return u.one(Flatten())
    return u.one(Reshape((1, -1) if axis == 0 else (-1, math.prod(shape[axis:]))))


def squeeze(u: Use) -> list[Made]:
    """Squeeze: the axes given, or all of 1."""
    shape = u.type().shape
    given = u.numbers("axes", 1, "axes")
    axes = u.axes(given, len(shape)) if given else tuple(i for i, n in enumerate(shape) if n == 1)
    if any(shape[i] != 1 for i in axes):
        raise u.node.wrong(f"axes {list(axes)} of {list(shape)}", "dimensions of 1")
    return u.one(Reshape(led([n for i, n in enumerate(shape) if i not in axes], 0 not in axes)))


def led(sizes: list[int], kept: bool) -> tuple[int, ...]:
    """The sizes, the first as a 0 (whatever it is) if the first dimension stays where it is."""
    return (0, *sizes[1:]) if kept and sizes else tuple(sizes)


def unsqueeze(u: Use) -> list[Made]:
    """Unsqueeze: one axis or more."""
    given = u.numbers("axes", 1, "axes")
    if not given:
        raise u.node.wrong("no axes")
    shape = u.type().shape
    axes = u.axes(given, len(shape) + len(given))
    if len(axes) == 1:
        return u.one(ExpandDims(axes[0]))
    left = iter(shape)
    sizes = [1 if i in axes else next(left) for i in range(len(shape) + len(axes))]
    return u.one(Reshape(led(sizes, 0 not in axes)))


def transpose(u: Use) -> list[Made]:
    """Transpose: reversed where no order is given."""
    rank = u.rank()
    order = tuple(range(rank))[::-1] if u["perm"] is None else u.axes(u["perm"], rank)
    return u.one(Transpose(order))


def pad(u: Use) -> list[Made]:
    """Pad: before and behind, all axes or some."""
    rank = u.rank()
    pads = u.numbers("pads", 1, "pads") or []
    value = u["value"] or 0.0
    if u.has(2):
        fill = u.constant(2, "constant_value")
        if fill.size != 1:
            raise u.node.wrong(f"{list(fill.shape)} as constant_value", "one number")
        if u.type().dtype not in ("float32", fill.dtype.name):
            raise u.node.wrong(f"{fill.dtype} as constant_value", u.type().dtype)
        value = fill.reshape(-1)[0].item()
        value = math.nan if np.isnan(value) else value  # one object: equal to itself, for every batch
    given = u.numbers("axes", 3, "axes") if u.has(3) else list(range(rank))
    axes = u.axes(given or [], rank)
    if len(pads) != 2 * len(axes) or any(abs(n) > LARGEST_NUMBER for n in pads):
        raise u.node.wrong(f"pads {pads[:8]}", f"{2 * len(axes)} numbers")
    before, behind = [0] * rank, [0] * rank
    for k, axis in enumerate(axes):
        before[axis], behind[axis] = pads[k], pads[len(axes) + k]
    return u.one(Pad(tuple(before), tuple(behind), u["mode"], value))


def slice_(u: Use) -> list[Made]:
    """Slice: with steps of 1 of one axis a slice, of several a cut; else a strided one."""
    shape = u.type().shape
    starts, ends = u.numbers("starts", 1, "starts") or [], u.numbers("ends", 2, "ends") or []
    given = u.numbers("axes", 3, "axes")
    axes = u.axes(list(range(len(starts))) if given is None else given, len(shape))
    steps = u.numbers("steps", 4, "steps") or [1] * len(axes)
    if {len(starts), len(ends), len(steps)} != {len(axes)}:
        raise u.node.wrong(
            f"starts {starts[:8]}, ends {ends[:8]}, steps {steps[:8]}", f"{len(axes)} numbers each"
        )
    if 0 in steps:
        raise u.node.wrong(f"steps {steps[:8]}", "numbers other than 0")
    bounds = zip((shape[i] for i in axes), starts, ends, steps, strict=True)
    ranges = [range(n)[slice(b, e, s)] for n, b, e, s in bounds]
    cut = [(i, r) for i, r in zip(axes, ranges, strict=True) if r != range(shape[i])]
    if not all(len(r) for _, r in cut):
        raise u.node.unsupported("an empty value")
    if not cut:
        return u.one(Identity())
    if any(r.step != 1 for _, r in cut):
        return strided(u, tuple(i for i, _ in cut), [r for _, r in cut])
    if len(cut) == 1:
        ((axis, r),) = cut
        return u.one(Slice(r.start, r.stop, axis))
    before, behind = [0] * len(shape), [0] * len(shape)
    for axis, r in cut:
        before[axis], behind[axis] = -r.start, r.stop - shape[axis]
    return u.one(Pad(tuple(before), tuple(behind)))
