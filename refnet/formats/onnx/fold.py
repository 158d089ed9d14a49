"""Values of constants alone, computed when a file is read: shapes that exporters compute, and weights.

    fold ── Constant, ConstantOfShape ─────────────────── here
       ├─── moves, integers, float operations of which
       │    each result has one right value (one sum ...) ── evaluator.py: onnx.reference, in its own process
       └─── other float32 arithmetic ──────────────────── computed.py: refnet's own ops, golden

The size of a result is known before it is computed, and counts against a limit of bytes (evaluator.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.formats.onnx.evaluator import Evaluator
from refnet.formats.onnx.file import Model, OnnxNode
from refnet.formats.onnx.integers import NUMBERS
from refnet.ops import TensorType
from refnet.ops.integers import Cast

Array = npt.NDArray[Any]

ELEMENTWISE = {
    "Abs", "Add", "And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast",
    "Ceil", "Clip", "DequantizeLinear", "Div", "Dropout", "Equal", "Floor", "Greater",
    "GreaterOrEqual", "Identity", "IsInf", "IsNaN", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg",
    "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Sign", "Sqrt", "Sub", "Sum", "Where", "Xor",
}  # fmt: skip
"""The result has the broadcast shape of the inputs."""
MOVES = {
    "ArgMax", "ArgMin", "Compress", "CumSum", "DepthToSpace",
    "Concat", "Flatten", "Gather", "GatherElements", "GatherND", "NonZero", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "ScatterElements", "ScatterND",
    "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Trilu", "Unsqueeze",
}  # fmt: skip
"""The result is not larger than all inputs together, or than the product of two of them (Gather), but for
GatherND."""
GROWING = {"ConstantOfShape", "Expand", "Range", "Tile", "Pad"}
FOLDED = {"Constant", *ELEMENTWISE, *MOVES, *GROWING}
SEVERAL = {"CumSum", "Mod", "Pow", "ReduceMean", "ReduceProd", "ReduceSum"}
"""Those whose float results are rounded more than once, or by a library of functions: for integers only."""
ROUNDED = {"Div", "Reciprocal", "Sqrt"}
"""Those whose float results of constants are seldom numbers without a rounding."""
EXACT_INTEGER = 1 << 24
"""Integers up to it are float32; DequantizeLinear multiplies them, and rounds once."""


def rounds_once(node: OnnxNode, inputs: Sequence[Array | None]) -> bool:
    """Whether `fold` computes the node: its result has one right value, whoever computes it."""
    several = node.op in SEVERAL or (node.op == "Sum" and len(inputs) > 2)
    floats = any(x is not None and x.dtype.kind not in "iub" for x in inputs)
    return node.op in FOLDED and not (several and floats)


def fold(node: OnnxNode, inputs: Sequence[Array | None], model: Model, evaluator: Evaluator) -> list[Array]:
    """The outputs of a node that `rounds_once`, whose inputs are all constant.

    Raises UnsupportedError for what onnx lacks or needs too long for, FormatError for operands that do not
    fit or too many bytes; both name the node.
    """
    if node.op == "Constant":
        return [_constant(node, model)]
    try:
        count = _count(node, inputs)
    except Exception:  # hostile operands: sizes that are no numbers
        raise node.wrong("operands that do not fit") from None
    if node.op == "ConstantOfShape":
        return [_filled(node, inputs, model, evaluator)]
    if node.op == "Identity" and inputs[0] is not None:
        return [inputs[0]]
    width = max([8, *(x.dtype.itemsize for x in inputs if x is not None)])
    evaluator.take(node, count, width)
    _check_operands(node, inputs)
    found = evaluator.run(node, inputs, count * width)
    evaluator.held(count * width, found)
    return found


def _filled(node: OnnxNode, inputs: Sequence[Array | None], model: Model, evaluator: Evaluator) -> Array:
    """A value of one number, which needs no process."""
    sizes = [] if inputs[0] is None else [int(n) for n in inputs[0].reshape(-1)[:64]]
    value = np.zeros(1, np.float32)
    if node.attributes["value"] is not None:
        value = model.constants.decode(node.attributes["value"], node.title).reshape(-1)
    if value.size != 1 or len(sizes) > 32 or min(sizes, default=0) < 0:
        raise node.wrong(f"{value.size} numbers for sizes {sizes[:8]}", "one number, sizes from 0 on")
    evaluator.take(node, math.prod(sizes), value.dtype.itemsize)
    filled = np.full(sizes, value[0], value.dtype)
    evaluator.held(filled.nbytes, [filled])
    return filled


def _check_operands(node: OnnxNode, inputs: Sequence[Array | None]) -> None:
    """Refuse what NumPy would answer with anything, and what is not rounded once."""
    divisor = inputs[1] if node.op in ("Div", "Mod") and len(inputs) > 1 else None
    if divisor is not None and divisor.dtype.kind in "iu" and not divisor.all():
        raise node.wrong("whole numbers divided by 0")
    to = NUMBERS.get(node.attributes["to"]) if node.op == "Cast" else None
    if to and inputs[0] is not None and inputs[0].dtype.kind == "f" and Cast(to).unspecified(inputs[0]).any():
        raise node.unsupported(f"of constants that {to} does not have")
    if node.op == "DequantizeLinear":
        x, scale = inputs[0], inputs[1]
        zero = inputs[2] if len(inputs) > 2 else None
        whole = [one.astype(np.int64) for one in (x, zero) if one is not None and one.dtype.kind in "iu"]
        largest = sum(int(np.abs(one).max(initial=0)) for one in whole)
        if x is None or scale is None or x.dtype.kind not in "iu" or scale.dtype != np.float32:
            raise node.unsupported("of constants that are not integers with a float32 scale")
        if largest > EXACT_INTEGER:
            raise node.unsupported(f"of constants up to {largest}, whose product is rounded twice")


def as_cast(node: OnnxNode, dtype: str) -> OnnxNode:
    """A CastLike of a constant as the Cast to this dtype."""
    import onnx.helper  # no other file than .onnx needs it

    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = onnx.helper.make_node("Cast", node.inputs[:1], node.outputs, node.name, to=number)
    return replace(node, op="Cast", inputs=node.inputs[:1], attributes={"to": number}, proto=proto)


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
    if node.op == "Gather":
        return TensorType(shapes[0]).size * max(TensorType(shapes[1]).size, 1)
    if node.op == "GatherND":  # an index has as many numbers as axes that it goes into
        apart = node.attributes.get("batch_dims") or 0
        return math.prod(shapes[1][:-1]) * math.prod(shapes[0][apart + shapes[1][-1] :])
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
