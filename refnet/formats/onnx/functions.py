"""ONNX's functions of one value: how they are read, and how refnet's are written in opset 17.

Written as several nodes, which opset 17 has no single one for:

    Silu    Sigmoid, Mul
    Mish    Softplus, Tanh, Mul
    Gelu    Mul, Erf, Add, Mul, Mul; with tanh: Mul, Mul, Add, Mul, Mul, Tanh, Add, Mul, Mul
    Power   Pow with a constant
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from refnet.core.errors import UnsupportedError
from refnet.core.graph import Node
from refnet.formats.assembly import Made
from refnet.formats.onnx.use import Rule, Use
from refnet.ops import (
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Cos,
    Cosh,
    Elu,
    Erf,
    Exp,
    Gelu,
    HardSigmoid,
    HardSwish,
    Identity,
    Log,
    Mish,
    Mul,
    Op,
    Pow,
    Power,
    Sigmoid,
    Silu,
    Sin,
    Sinh,
    Softplus,
    Softsign,
    Sqrt,
    StepFunction,
    Tan,
    Tanh,
    WithScalar,
)


def _float32(u: Use, attribute: str) -> float:
    return float(np.float32(u[attribute]))


def _elu(make: Callable[[Use], Elu]) -> Rule:
    def rule(u: Use) -> list[Made]:
        op = make(u)
        if min(op.alpha, op.scale) < 0 or op.width <= 0:
            raise u.node.unsupported("a negative alpha or gamma")
        return u.one(op)

    return rule


def _celu(u: Use) -> Elu:
    alpha = _float32(u, "alpha")
    return Elu(alpha, 1.0, alpha)


def _gelu(u: Use) -> list[Made]:
    how = u["approximate"]
    how = how.decode("utf-8", "replace") if isinstance(how, bytes) else how
    if how not in ("none", "tanh"):
        raise u.node.wrong(f"approximate {how!r:.40}", "none or tanh")
    return u.one(Gelu(how == "tanh"))


def _swish(u: Use) -> list[Made]:
    alpha, (x, *_), name = _float32(u, "alpha"), u.node.inputs, u.node.outputs[0]
    if alpha == 1:
        return u.one(Silu())
    scaled, part = f"{name}/scaled", f"{name}/sigmoid"
    return [
        Made(scaled, WithScalar("mul", alpha), (x,)),
        Made(part, Sigmoid(), (scaled,)),
        Made(name, Mul(), (x, part)),
    ]


def _pow(u: Use) -> list[Made]:
    """Power where one constant exponent, which does not stretch the data, is all that there is."""
    if u.is_constant(1) and not u.is_constant(0) and u.node.inputs[1] not in u.rounded:
        array, shape = u.constants[u.node.inputs[1]], u.type().shape
        exponents = np.unique(array.reshape(-1))
        same = exponents.size == 1 and float(np.float32(exponents[0])) == float(exponents[0])
        fits = len(array.shape) <= len(shape) and all(
            n in (1, own) for n, own in zip(array.shape[::-1], shape[::-1], strict=False)
        )
        if same and fits and exponents[0] != 0 and math.isfinite(exponents[0]):
            return u.one(Identity() if exponents[0] == 1 else Power(float(exponents[0])))
    inputs = u.node.inputs[:2]
    constant = [u.is_constant(i) for i in (0, 1)]
    weights = tuple(name for name, one in zip(inputs, constant, strict=True) if one)
    data = tuple(name for name, one in zip(inputs, constant, strict=True) if not one)
    constants = tuple(tuple(u.constants[name].shape) for name in weights)
    return u.one(Pow(constants, constant[0]), *weights, data=data)


def _always(op: Op) -> Rule:
    return lambda u: u.one(op)


RULES: dict[str, Rule] = {
    "Abs": _always(Abs()),
    "Ceil": _always(StepFunction("ceil")),
    "Celu": _elu(_celu),
    "Cos": _always(Cos()),
    "Elu": _elu(lambda u: Elu(_float32(u, "alpha"))),
    "Erf": _always(Erf()),
    "Exp": _always(Exp()),
    "Floor": _always(StepFunction("floor")),
    "Gelu": _gelu,
    "HardSigmoid": lambda u: u.one(HardSigmoid(_float32(u, "alpha"), _float32(u, "beta"))),
    "HardSwish": _always(HardSwish()),
    "Log": _always(Log()),
    "Mish": _always(Mish()),
    "Neg": _always(WithScalar("mul", -1.0)),
    "Pow": _pow,
    "Reciprocal": _always(WithScalar("rdiv", 1.0)),
    "Round": _always(StepFunction("round")),
    "Selu": _elu(lambda u: Elu(_float32(u, "alpha"), _float32(u, "gamma"))),
    "Sign": _always(StepFunction("sign")),
    "Sin": _always(Sin()),
    "Softplus": _always(Softplus()),
    "Softsign": _always(Softsign()),
    "Sqrt": _always(Sqrt()),
    "Swish": _swish,
    "Tanh": _always(Tanh()),
    **{kind.__name__: _always(kind()) for kind in (Acos, Acosh, Asin, Asinh, Atan, Atanh, Cosh, Sinh, Tan)},
}
"""Operator -> its rule."""

SAME: dict[type[Op], str] = {
    kind: kind.__name__
    for kind in (
        *(Abs, Acos, Acosh, Asin, Asinh, Atan, Atanh, Cos, Cosh, Erf, Exp, HardSwish, Log, Sin, Sinh),
        *(Softplus, Softsign, Sqrt, Tan, Tanh),
    )
}
"""Ops that ONNX has under the same name, without attributes."""


class Writer(Protocol):
    """What export.py's writer offers."""

    def node(self, op: str, name: str, inputs: Any, **attributes: Any) -> str:
        """An op's node whose only output has this name, which is returned."""

    def step(self, op: str, name: str, inputs: Any, **attributes: Any) -> str:
        """The same for a helper."""

    def constant(self, name: str, values: Any) -> str:
        """An initializer."""


def write(writer: Writer, node: Node) -> None:
    """Write a function's node under its name. Raises UnsupportedError for an ELU that ONNX has no form of."""
    name, x = node.name, node.inputs[0]

    def number(what: str, value: float) -> str:
        return writer.constant(f"{name}/{what}", np.array(value, np.float32))

    def step(op: str, what: str, *inputs: str) -> str:
        return writer.step(op, f"{name}/{what}", inputs)

    match node.op:
        case Elu(alpha=alpha, scale=1.0, width=1.0):
            writer.node("Elu", name, (x,), alpha=alpha)
        case Elu(alpha=alpha, scale=scale, width=1.0):
            writer.node("Selu", name, (x,), alpha=alpha, gamma=scale)
        case Elu(alpha=alpha, scale=1.0, width=width) if width == alpha:
            writer.node("Celu", name, (x,), alpha=alpha)
        case HardSigmoid(alpha=alpha, beta=beta):
            writer.node("HardSigmoid", name, (x,), alpha=alpha, beta=beta)
        case StepFunction(kind=kind):
            writer.node(kind.capitalize(), name, (x,))
        case Power(exponent=exponent):
            writer.node("Pow", name, (x, number("exponent", exponent)))
        case Silu():
            writer.node("Mul", name, (x, step("Sigmoid", "sigmoid", x)))
        case Mish():
            writer.node("Mul", name, (x, step("Tanh", "tanh", step("Softplus", "softplus", x))))
        case Gelu(tanh=tanh):
            if tanh:
                square = step("Mul", "square", x, x)
                cube = step("Mul", "cube", step("Mul", "scaled", square, number("inner", 0.044715)), x)
                inner = step("Mul", "argument", step("Add", "sum", x, cube), number("root", 0.7978845608))
            else:
                inner = step("Mul", "argument", x, number("root", math.sqrt(0.5)))
            part = step("Tanh" if tanh else "Erf", "part", inner)
            factor = step("Add", "factor", part, number("one", 1.0))
            writer.node("Mul", name, (step("Mul", "half", x, number("by", 0.5)), factor))
        case _:
            if type(node.op) not in SAME:
                raise UnsupportedError(f"{name}: {node.op!r} has no counterpart in ONNX")
            writer.node(SAME[type(node.op)], name, (x,))


LATER: dict[type[Op], tuple[str, int]] = {Gelu: ("Gelu", 20), Mish: ("Mish", 18), Silu: ("Swish", 24)}
"""Operators that ONNX has from an opset on newer than the exporter's, which writes several nodes."""


def as_one_node(model: Any, op: Op, opset: int) -> None:
    """Where a file of this opset has an operator for the op, the model gets it, at that opset."""
    name, first = LATER.get(type(op), ("", opset + 1))
    if opset >= first:
        made = model.graph.node.add(op_type=name, name="y", input=["x"], output=["y"])
        if isinstance(op, Gelu):
            made.attribute.add(name="approximate", type=3, s=b"tanh" if op.tanh else b"none")  # 3: a string
        del model.graph.node[:-1], model.graph.initializer[:]
        model.opset_import[0].version = opset
