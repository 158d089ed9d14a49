"""The ONNX operators that give or take integers and booleans."""

from __future__ import annotations

from refnet.formats.assembly import Made
from refnet.formats.onnx.use import Rule, Use
from refnet.ops import Identity
from refnet.ops.integers import COMPARISONS, KINDS, ArgExtreme, Cast, Compare, Logical, Where

NUMBERS = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    12: "uint32", 13: "uint64",
}  # fmt: skip
"""ONNX's number of an element type -> the dtype of values."""


def cast(u: Use) -> list[Made]:
    """Cast between float32, integers and booleans."""
    if u["to"] not in NUMBERS:
        raise u.node.unsupported(f"to type {u['to']}; refnet's values are {', '.join(KINDS)}")
    return _as(u, NUMBERS[u["to"]])


def _cast_like(u: Use) -> list[Made]:
    to = u.type(1).dtype
    if to not in KINDS:
        raise u.node.unsupported(f"to {to}; refnet's values are {', '.join(KINDS)}")
    return _as(u, to)


def _as(u: Use, to: str) -> list[Made]:
    given, data = u.type().dtype, u.node.inputs[:1]
    return u.one(Identity() if to == given == "float32" else Cast(to, given), data=data)


def _extreme(least: bool) -> Rule:
    def rule(u: Use) -> list[Made]:
        axis = u.axis(u["axis"], u.rank())
        kept, last = bool(u["keepdims"]), bool(u["select_last_index"])
        return u.one(ArgExtreme(axis, least, kept, last, u.type().dtype))

    return rule


def _sides(u: Use) -> tuple[tuple[str, ...], tuple[str, ...], list[int]]:
    """The inputs that are values, those that are constants, and the places of both in that order."""
    places = sorted(range(len(u.node.inputs)), key=lambda i: (u.is_constant(i), i))
    names = [u.node.inputs[i] for i in places]
    count = sum(not u.is_constant(i) for i in places)
    return tuple(names[:count]), tuple(names[count:]), places


def _compare(u: Use) -> list[Made]:
    data, weights, places = _sides(u)
    constants = tuple(tuple(u.constants[name].shape) for name in weights)
    op = Compare(u.node.op, constants, places[0] == 1, u.type().dtype)
    return u.one(op, *weights, data=data)


def _logical(u: Use) -> list[Made]:
    data, weights, _ = _sides(u)
    constants = tuple(tuple(u.constants[name].shape) for name in weights)
    return u.one(Logical(u.node.op, constants), *weights, data=data)


def _where(u: Use) -> list[Made]:
    data, weights, places = _sides(u)
    constants = tuple(tuple(u.constants[name].shape) for name in weights)
    order = (places[0], places[1], places[2])
    return u.one(Where(constants, order, u.type(1).dtype), *weights, data=data)


RULES: dict[str, Rule] = {
    "ArgMax": _extreme(False),
    "ArgMin": _extreme(True),
    "Cast": cast,
    "CastLike": _cast_like,
    **dict.fromkeys(COMPARISONS, _compare),
    **dict.fromkeys(("And", "Or", "Xor", "Not"), _logical),
    "Where": _where,
}
"""Operator -> its rule."""
