"""The ONNX operators on integers, and those that take elements by computed integers."""

from __future__ import annotations

from typing import Any

from refnet.formats.assembly import Made
from refnet.formats.onnx.reductions import reduced, summed_along
from refnet.formats.onnx.use import Rule, Use
from refnet.ops import Identity
from refnet.ops.integers import Compare, Logical
from refnet.ops.take import Take, TakeAlong, TakeAt
from refnet.ops.whole_numbers import OF_ONE, OF_TWO, REDUCED, WHOLE, Whole, WholeCumSum, WholeReduce


def _sides(u: Use) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """The inputs that are values, those that are constants, and whether the first is one."""
    if not all(u.node.inputs):
        raise u.node.wrong("an empty input")
    constant = [u.is_constant(i) for i in range(len(u.node.inputs))]
    pairs = [*zip(u.node.inputs, constant, strict=True)]
    return tuple(n for n, c in pairs if not c), tuple(n for n, c in pairs if c), constant[0]


def _arithmetic(kind: str) -> Rule:
    def rule(u: Use) -> list[Made]:
        if len(u.node.inputs) == 1 and kind not in OF_ONE:
            return u.one(Identity())
        data, weights, swapped = _sides(u)
        constants = tuple(tuple(u.constants[name].shape) for name in weights)
        op = Whole(kind, constants, swapped and len(u.node.inputs) == 2, u.type().dtype)
        return u.one(op, *weights, data=data)

    return rule


def _mod(u: Use) -> list[Made]:
    return _arithmetic("Fmod" if u["fmod"] else "Mod")(u)


def _clip(u: Use) -> list[Made]:
    """Max, then Min; either may be missing."""
    if "min" in u.node.attributes:
        raise u.node.unsupported("of integers, which it takes from opset 12 on")
    (name,), source, made = u.node.outputs, u.node.inputs[0], []
    wanted = [(kind, u.node.inputs[i]) for i, kind in ((1, "Max"), (2, "Min")) if u.has(i)]
    for k, (kind, limit) in enumerate(wanted):
        u.constant(1 if kind == "Max" else 2, kind.lower())
        own = name if k == len(wanted) - 1 else f"{name}/low"
        op = Whole(kind, (tuple(u.constants[limit].shape),), False, u.type().dtype)
        made.append(Made(own, op, (source,), (limit,)))
        source = own
    return made or u.one(Identity())


def _reduce(kind: str) -> Rule:
    def rule(u: Use) -> list[Made]:
        axes = reduced(u)
        if axes is None:
            return u.one(Identity())
        return u.one(WholeReduce(kind, axes, bool(u["keepdims"]), u.type().dtype))

    return rule


def _cum_sum(u: Use) -> list[Made]:
    return u.one(WholeCumSum(summed_along(u), bool(u["exclusive"]), bool(u["reverse"]), u.type().dtype))


def taken(u: Use, make: Any, *first: int) -> list[Made]:
    """Take, TakeAlong or TakeAt: elements of a value or a constant, at places that are computed."""
    source, places = u.node.inputs
    table = tuple(u.type().shape) if u.is_constant(0) else None
    op = make(*first, table, u.type().dtype, u.type(1).dtype)
    if table is None:
        return u.one(op, data=(source, places))
    return u.one(op, source, data=(places,))


def gather_elements(u: Use) -> list[Made]:
    """GatherElements with indices that are computed."""
    return taken(u, TakeAlong, u.axis(u["axis"], u.rank()))


def gather_nd(u: Use) -> list[Made]:
    """GatherND with indices that are computed."""
    if u["batch_dims"]:
        raise u.node.unsupported("batch_dims: indices in a batch")
    return taken(u, TakeAt)


def gather(u: Use) -> list[Made]:
    """Gather with indices that are computed."""
    return taken(u, Take, u.axis(u["axis"], u.rank()))


def is_nan(u: Use) -> list[Made]:
    """IsNaN: what does not equal itself."""
    (name,), (x,) = u.node.outputs, u.node.inputs
    same = f"{name}/equal"
    return [Made(same, Compare("Equal"), (x, x)), Made(name, Logical("Not"), (same,))]


__all__ = ["NEW", "RULES", "WHOLE"]
RULES: dict[str, Rule] = {
    **{kind: _arithmetic(kind) for kind in (*OF_TWO, *OF_ONE) if kind not in ("Fmod", "Mod")},
    **{kind: _reduce(kind) for kind in REDUCED},
    "Clip": _clip,
    "CumSum": _cum_sum,
    "Mod": _mod,
    "Sum": _arithmetic("Add"),
}
"""Operator -> its rule where the first input holds integers."""
NEW: dict[str, Rule] = {"IsNaN": is_nan}
"""Operators that are read whatever their inputs hold."""
