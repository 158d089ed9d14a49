"""Layers on constants alone, folded away: decompressed weights, computed shapes, moved axes.

NumPy computes them, one layer at a time, for types of a list, after the size of the result is known to be in
proportion to the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import RefnetError
from refnet.formats.openvino.constants import DTYPES
from refnet.formats.openvino.use import Use

Array = npt.NDArray[Any]

LEAST = 1 << 22
"""Elements that the folded values of any file may have together; more only in proportion to its bytes."""


def fold(u: Use, left: int) -> list[Array]:
    """The outputs of a layer whose inputs are all constant; left: how many elements it may make.

    Raises UnsupportedError and FormatError, which name the layer.
    """
    rule = FOLDED.get(u.layer.type)
    if rule is None:
        raise u.layer.unsupported("of constants only, which refnet does not compute")
    try:
        with np.errstate(all="ignore"):
            made = rule(u, left)
    except RefnetError:
        raise
    except Exception as error:  # whatever NumPy says of operands that do not fit
        raise u.layer.wrong(f"constants that do not fit ({str(error)[:200]})") from None
    _room(u, sum(x.size for x in made), left)
    return made


def _room(u: Use, count: int, left: int) -> None:
    """Refuse constants that grow beyond what the files can mean."""
    if not 0 <= count <= left:
        raise u.layer.wrong(f"a constant of {count} elements", f"at most {left} more")


def _array(u: Use, i: int = 0) -> Array:
    return u.constant(i, "an input")


def _convert(u: Use, left: int) -> list[Array]:
    """To another type; a float16 becomes the float32 of the same number."""
    to = u.text("destination_type", None)
    if to not in DTYPES or to == "bf16":
        raise u.layer.unsupported(f"destination_type {to[:60]!r} of a constant")
    array = _array(u)
    _room(u, array.size, left)
    wanted = np.dtype(DTYPES[to])
    if array.dtype.kind == "f" and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        sound = np.isfinite(array) & (array >= limits.min) & (array <= limits.max)
        if not sound.all():
            raise u.layer.unsupported(f"a constant that is no {to} becomes one")
    return [array.astype(wanted)]


def _two(function: Callable[[Array, Array], Array]) -> Callable[[Use, int], list[Array]]:
    def rule(u: Use, left: int) -> list[Array]:
        a, b = _array(u, 0), _array(u, 1)
        _room(u, math.prod(np.broadcast_shapes(a.shape, b.shape)), left)
        if a.dtype != b.dtype or a.dtype == np.bool_:
            raise u.layer.wrong(f"{a.dtype} and {b.dtype}", "numbers of one type")
        if function is np.divide and a.dtype.kind in "iu":
            raise u.layer.unsupported("whole numbers divided")
        return [np.asarray(function(a, b))]

    return rule


def _reshape(u: Use, left: int) -> list[Array]:
    array, target = _array(u), u.whole_numbers(1, "shape")
    if u.flag("special_zero", False):
        target = [array.shape[i] if n == 0 else n for i, n in enumerate(target)]
    return [array.reshape(target)]


def _squeeze(u: Use, left: int) -> list[Array]:
    array = _array(u)
    axes = u.axes(u.whole_numbers(1, "axes"), array.ndim) if u.has(1) else ()
    return [np.squeeze(array, axes or None)]


def _unsqueeze(u: Use, left: int) -> list[Array]:
    array, given = _array(u), u.whole_numbers(1, "axes")
    return [np.expand_dims(array, u.axes(given, array.ndim + len(given)))]


def _transpose(u: Use, left: int) -> list[Array]:
    order = u.whole_numbers(1, "order")
    return [np.transpose(_array(u), order or None)]


def _concat(u: Use, left: int) -> list[Array]:
    parts = [_array(u, i) for i in range(len(u.inputs))]
    _room(u, sum(x.size for x in parts), left)
    if len({x.dtype for x in parts}) != 1:
        raise u.layer.wrong("constants of several types", "one type")
    return [np.concatenate(parts, u.axis(u.whole("axis", None), parts[0].ndim))]


def _gather(u: Use, left: int) -> list[Array]:
    if u.layer.attributes.get("batch_dims", "0").strip() != "0":
        raise u.layer.unsupported("batch_dims")
    array, places = _array(u), _array(u, 1)
    axis = u.axis(u.whole_numbers(2, "axis")[0], array.ndim)
    if places.dtype.kind not in "iu":
        raise u.layer.wrong(f"{places.dtype} as indices", "whole numbers")
    _room(u, array.size // max(array.shape[axis], 1) * places.size, left)
    return [np.take(array, places, axis)]


def _strided_slice(u: Use, left: int) -> list[Array]:
    """One axis, as shapes have: with its new and lost axes."""
    array = _array(u)
    begin, end = u.whole_numbers(1, "begin"), u.whole_numbers(2, "end")
    step = u.whole_numbers(3, "strides") if u.has(3) else [1]
    if array.ndim != 1 or not len(begin) == len(end) == len(step) == 1:
        raise u.layer.unsupported("of a constant that is no list")
    masks = {
        name: "1" in u.layer.attributes.get(f"{name}_mask", "")
        for name in ("begin", "end", "new_axis", "shrink_axis", "ellipsis")
    }
    if masks["new_axis"] or masks["ellipsis"] or step[0] == 0:
        raise u.layer.unsupported("of a constant, with a new axis, an ellipsis or a stride of 0")
    if masks["shrink_axis"]:
        return [array[begin[0]].reshape(())]
    return [array[slice(None if masks["begin"] else begin[0], None if masks["end"] else end[0], step[0])]]


def _reduce_prod(u: Use, left: int) -> list[Array]:
    array = _array(u)
    axes = u.axes(u.whole_numbers(1, "axes"), array.ndim)
    return [np.prod(array, axes, array.dtype, keepdims=u.flag("keep_dims", False))]


def shape_of(u: Use) -> list[Array]:
    """The output of a ShapeOf layer."""
    kind = u.text("output_type", "i64", ("i64", "i32"))
    return [np.array(u.type().shape, DTYPES[kind])]


FOLDED: dict[str, Callable[[Use, int], list[Array]]] = {
    "Add": _two(np.add),
    "Concat": _concat,
    "Convert": _convert,
    "Divide": _two(np.divide),
    "Gather": _gather,
    "Multiply": _two(np.multiply),
    "ReduceProd": _reduce_prod,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Subtract": _two(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Layer type -> what computes it of constants."""
