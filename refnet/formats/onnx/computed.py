"""Float32 arithmetic of constants: refnet's own ops, each value the exact result, rounded once.

computed ── the value        ranged ── how far another's value may lie from it, by the ops' bounds
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import RefnetError
from refnet.core.op import F32, Interval
from refnet.formats.assembly import Building, Made, typed
from refnet.formats.onnx.constants import RULES
from refnet.formats.onnx.evaluator import Evaluator
from refnet.formats.onnx.file import OnnxNode
from refnet.formats.onnx.use import Use, others_differ
from refnet.ops import Op, TensorType

Array = npt.NDArray[Any]
Golden = Callable[[Op, Sequence[F32]], F32]
"""golden(op, inputs): the correctly rounded value. Readers know no arithmetic: who calls one gives it."""
Bound = Callable[[Op, Sequence[Interval]], Interval]
"""bound(op, inputs): where any float32 evaluation lies."""


def computed(
    node: OnnxNode,
    constants: Mapping[str, Array],
    golden: Golden | None,
    evaluator: Evaluator,
    wanted: Collection[str],
) -> list[Array | None]:
    """The outputs of a node whose inputs are all constant, by the rule of its operator; those that are not
    wanted may be None.

    Raises UnsupportedError without a rule, for other types than float32, and without `golden`.
    """
    given = {name: constants[name] for name in node.inputs if name}
    if node.op not in RULES or not node.inputs or not node.inputs[0]:
        raise node.unsupported("of constants only, which refnet does not compute")
    if other := [str(x.dtype) for x in given.values() if x.dtype.kind == "f" and x.dtype != np.float32]:
        raise node.unsupported(f"of constants only, of {other[0]}; refnet rounds float32")
    if golden is None:
        raise node.unsupported("of constants only, and the reader was not given what rounds it")
    values = dict(given)
    for made, kind in _made(node, given):
        evaluator.take(node, kind.size, 4)
        arrays = [np.ascontiguousarray(values[name], np.float32) for name in (*made.data, *made.weights)]
        values[made.name] = golden(made.op, arrays)
        evaluator.held(4 * kind.size, [values[made.name]])
    if missing := [name for name in node.outputs if name in wanted and name not in values]:
        raise node.unsupported(f"of constants only; refnet does not make its output {missing[0][:60]!r}")
    return [values.get(name) for name in node.outputs]


def _made(
    node: OnnxNode, given: Mapping[str, Array], rounded: frozenset[str] = frozenset()
) -> Iterator[tuple[Made, TensorType]]:
    """The nodes of refnet that a node of constants is, with their types; its first input as a value.

    Raises UnsupportedError for a constant in `rounded` that would be an attribute.
    """
    first = node.inputs[0]
    rest = {name: given[name] for name in given if name != first}
    building = Building({first: TensorType(given[first].shape)}, rest, {})
    use = Use(node, building.types, building.constants, frozenset(node.outputs), rounded=rounded)
    ready = RULES[node.op](use)
    if (name := use.attributed(ready)) is not None:
        raise node.unsupported(f"of {name[:100]!r}, which others may have other bits of")
    for made in ready:
        kind = typed(node, made, building)
        yield made, kind
        building.types[made.name] = kind


def ranged(
    node: OnnxNode,
    constants: Mapping[str, Array],
    outputs: Sequence[Array | None],
    off: Mapping[str, F32 | None],
    bound: Bound | None,
) -> list[F32 | None]:
    """How far another's outputs of a node of constants may lie from these, element by element.

    off: the same of its inputs; those that are missing are the same for all. None where nothing says: there
    is no rule, it asks for more than float32, or an input that may differ would be an attribute.
    """
    nothing: list[F32 | None] = [None] * len(outputs)
    given = {name: constants[name] for name in node.inputs if name}
    known = node.op in RULES and bool(node.inputs) and bool(node.inputs[0])
    if bound is None or not known or any(name in off and off[name] is None for name in given):
        return nothing
    ranges = {}
    for name, array in given.items():
        if array.dtype == np.float32:
            own = off.get(name)
            spread = np.zeros(array.shape) if own is None else own.astype(np.float64)
            ranges[name] = Interval(array.astype(np.float64), spread)
    try:
        for made, _ in _made(node, given, others_differ(off)):
            ranges[made.name] = bound(made.op, [ranges[name] for name in (*made.data, *made.weights)])
    except (RefnetError, KeyError):
        return nothing
    found = zip(node.outputs, outputs, strict=False)
    return [
        None if value is None or name not in ranges else _distance(ranges[name], value)
        for name, value in found
    ]


def _distance(where: Interval, value: Array) -> F32:
    """How far an interval reaches from a value, rounded up; infinite where it has no end."""
    with np.errstate(all="ignore"):
        most = np.abs(where.center - value) + where.radius
        reach = np.nextafter(most.astype(np.float32), np.float32(np.inf))
    return np.where(np.isnan(most), np.float32(np.inf), np.where(most == 0, np.float32(0), reach))
