"""Arithmetic on constants, folded away: shapes that exporters compute, and expressions of weights.

onnx's own reference evaluator computes them, one node at a time, for operators of a list, after the size of
the result is known to be in proportion to the file.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.formats.onnx.file import Model, OnnxNode
from refnet.ops import TensorType

Array = npt.NDArray[Any]

ELEMENTWISE = {
    "Abs", "Add", "And", "BitShift", "Cast", "CastLike", "Ceil", "Clip", "Div", "Dropout", "Equal",
    "Exp", "Floor", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "Max",
    "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Sigmoid",
    "Sign", "Sqrt", "Sub", "Sum", "Tanh", "Where", "Xor",
}  # fmt: skip
"""The result has the broadcast shape of the inputs."""
MOVES = {
    "Compress", "Concat", "Flatten", "Gather", "GatherElements", "GatherND", "NonZero", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "ScatterElements", "ScatterND",
    "Shape", "Size", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""The result is not larger than all inputs together, or than the product of two of them (Gather)."""
GROWING = {"ConstantOfShape", "Expand", "Range", "Tile", "Pad"}
FOLDED = {"Constant", *ELEMENTWISE, *MOVES, *GROWING}
LEAST = 1 << 22
"""Elements that the folded values of any file may have together; more only if the file has as many bytes."""


def fold(node: OnnxNode, inputs: Sequence[Array | None], model: Model, used: int) -> list[Array]:
    """The outputs of a node whose inputs are all constant; used: elements folded before.

    Raises UnsupportedError and FormatError, which name the node.
    """
    if node.op == "Constant":
        return [_constant(node, model)]
    if node.op not in FOLDED:
        raise node.unsupported("of constants only, which refnet does not compute")
    limit = max(LEAST, model.size) - used
    try:
        count = _count(node, inputs)
    except Exception:  # hostile operands: sizes that are no numbers
        raise node.wrong("operands that do not fit") from None
    if not 0 <= count <= limit:
        room = f"at most {limit} more in a file of {model.size} bytes"
        raise node.wrong(f"a constant of {count} elements", room)
    from onnx.reference import ReferenceEvaluator

    onnx = model.constants.onnx
    divisor = inputs[1] if node.op in ("Div", "Mod") and len(inputs) > 1 else None
    if divisor is not None and divisor.dtype.kind in "iu" and not divisor.all():
        raise node.wrong("whole numbers divided by 0")
    kinds = [None if x is None else onnx.helper.np_dtype_to_tensor_dtype(x.dtype) for x in inputs]
    named = {f"i{k}": x for k, x in enumerate(inputs) if x is not None}
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    del proto.input[:], proto.output[:]
    proto.input.extend("" if x is None else f"i{k}" for k, x in enumerate(inputs))
    outputs = [f"o{k}" if name else "" for k, name in enumerate(node.outputs)]
    proto.output.extend(outputs)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [value(f"i{k}", kind, None) for k, kind in enumerate(kinds) if kind is not None],
        [onnx.ValueInfoProto(name=name) for name in outputs if name],
    )
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(graph, opsets={"": node.opset})
            made = dict(zip(filter(None, outputs), evaluator.run(None, named), strict=True))
            found = [np.asarray(made[name]) if name else np.zeros(0) for name in outputs]
    except Exception as error:  # whatever NumPy says of operands that do not fit
        raise node.wrong(f"constants that onnx cannot compute ({str(error)[:200]})") from None
    if any(x.dtype == object or x.dtype.kind in "USO" for x in found):
        raise node.unsupported("makes a constant that is no number")
    return found


def _constant(node: OnnxNode, model: Model) -> Array:
    """The value of a Constant node, in whichever attribute it stands."""
    given = {name: value for name, value in node.attributes.items() if value is not None}
    if len(given) != 1:
        raise node.wrong(f"{len(given)} values", "one")
    ((name, value),) = given.items()
    match name:
        case "value":
            return model.constants.decode(value, node.title)
        case "value_float" | "value_floats":
            return np.array(value, np.float32)
        case "value_int" | "value_ints":
            return np.array(value, np.int64)
    raise node.unsupported(f"{name}: refnet has no constants of that kind")


def shape_of(node: OnnxNode, shape: tuple[int, ...]) -> list[Array]:
    """The output of a Shape or Size node on a value of this shape."""
    if node.op == "Size":
        return [np.array(math.prod(shape), np.int64)]
    begin, end = node.attributes.get("start"), node.attributes.get("end")
    return [np.array(shape[slice(begin, end)], np.int64)]


def _count(node: OnnxNode, inputs: Sequence[Array | None]) -> int:
    """An upper bound of the elements that the node makes."""
    given = [x for x in inputs if x is not None]
    shapes = [x.shape for x in given]
    if node.op in ELEMENTWISE:
        return math.prod(np.broadcast_shapes(*shapes))
    if node.op in ("Gather", "GatherND"):
        return TensorType(shapes[0]).size * max(TensorType(shapes[1]).size, 1)
    if node.op in MOVES:
        return max(
            len(shapes[0]), sum(map(math.prod, shapes)) * (len(shapes[0]) if node.op == "NonZero" else 1)
        )
    numbers = [[int(n) for n in x.reshape(-1)[:64]] for x in given if x.dtype.kind in "iu" and x.size <= 64]
    match node.op:
        case "ConstantOfShape":
            return math.prod(numbers[0])
        case "Expand":
            return math.prod(np.broadcast_shapes(shapes[0], tuple(int(n) for n in given[1].reshape(-1)[:64])))
        case "Tile":
            return math.prod(shapes[0]) * math.prod(int(n) for n in given[1].reshape(-1)[:64])
        case "Range":
            start, limit, step = (float(x.reshape(())) for x in given)
            return max(math.ceil((limit - start) / step), 0)
    pads = given[1].reshape(-1)[:128] if len(given) > 1 else node.attributes["pads"]
    return math.prod(n + 2 * max(0, *map(int, pads)) for n in shapes[0])
