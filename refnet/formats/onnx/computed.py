"""Float32 arithmetic of constants: refnet's own ops, each value the exact result, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.op import F32
from refnet.formats.assembly import Building, typed
from refnet.formats.onnx.evaluator import Evaluator
from refnet.formats.onnx.file import OnnxNode
from refnet.formats.onnx.ops import RULES
from refnet.formats.onnx.use import Use
from refnet.ops import Op, TensorType

Array = npt.NDArray[Any]
Golden = Callable[[Op, Sequence[F32]], F32]
"""golden(op, inputs): the correctly rounded value. Readers know no arithmetic: who calls one gives it."""


def computed(
    node: OnnxNode, constants: Mapping[str, Array], golden: Golden | None, evaluator: Evaluator
) -> list[Array]:
    """The outputs of a node whose inputs are all constant, by the rule of its operator.

    Raises UnsupportedError without a rule, for other types than float32, and without `golden`.
    """
    given = {name: constants[name] for name in node.inputs if name}
    if node.op not in RULES or not node.inputs or not node.inputs[0]:
        raise node.unsupported("of constants only, which refnet does not compute")
    if other := [str(x.dtype) for x in given.values() if x.dtype.kind == "f" and x.dtype != np.float32]:
        raise node.unsupported(f"of constants only, of {other[0]}; refnet rounds float32")
    if golden is None:
        raise node.unsupported("of constants only, and the reader was not given what rounds it")
    first = node.inputs[0]
    values = {first: given.pop(first)}
    building = Building({first: TensorType(values[first].shape)}, given, {})
    use = Use(node, building.types, given, frozenset(node.outputs))
    for made in RULES[node.op](use):
        kind = typed(node, made, building)
        evaluator.take(node, kind.size, 4)
        known = {**given, **values}
        arrays = [np.ascontiguousarray(known[name], np.float32) for name in (*made.data, *made.weights)]
        values[made.name] = golden(made.op, arrays)
        building.types[made.name] = kind
    if missing := [name for name in node.outputs if name and name not in values]:
        raise node.unsupported(f"of constants only; refnet does not make its output {missing[0][:60]!r}")
    return [values[name] if name else np.zeros(0) for name in node.outputs]
