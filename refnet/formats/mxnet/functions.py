"""MXNet's functions of one value: how they are read, and how refnet's are written."""

from __future__ import annotations

from refnet.formats.mxnet.node import Rule, SymbolNode, float32
from refnet.ops import (
    Abs,
    Cos,
    Elu,
    Erf,
    Exp,
    Gelu,
    HardSigmoid,
    Identity,
    Log,
    Op,
    Power,
    Sin,
    Softplus,
    Softsign,
    Sqrt,
    Tanh,
    TensorType,
    WithScalar,
)

ACTIVATIONS: dict[str, Op] = {"tanh": Tanh(), "softrelu": Softplus(), "softsign": Softsign()}
"""act_type of Activation -> op."""
SELU = Elu(float32(1.6732632423543772848170429916717), float32(1.0507009873554804934193349852946))


def leaky(node: SymbolNode, kind: str, slope: float) -> Op | None:
    """LeakyReLU's act_type elu, selu and gelu; None for others."""
    if kind == "elu" and slope < 0:
        raise node.refused("slope", "slopes of ELU from 0 on")
    return {"elu": Elu(slope), "selu": SELU, "gelu": Gelu()}.get(kind)


def _hard_sigmoid(node: SymbolNode, data: list[TensorType]) -> Op:
    return HardSigmoid(node.float32("alpha", float32(0.2)), node.float32("beta", 0.5))


def _power(node: SymbolNode, data: list[TensorType]) -> Op:
    node.boolean("is_int", True)
    exponent = node.float32("scalar", 1.0)
    if exponent == 0:
        raise node.refused("scalar", "exponents that are not 0")
    return Identity() if exponent == 1 else Power(exponent)


def _always(op: Op) -> Rule:
    return Rule(lambda node, data: op)


_POWER = Rule(_power, known=("scalar", "is_int"))

RULES: dict[str, Rule] = {
    "abs": _always(Abs()),
    "cos": _always(Cos()),
    "erf": _always(Erf()),
    "exp": _always(Exp()),
    "hard_sigmoid": Rule(_hard_sigmoid, known=("alpha", "beta")),
    "log": _always(Log()),
    "reciprocal": _always(WithScalar("rdiv", 1.0)),
    "rsqrt": _always(Power(-0.5)),
    "sin": _always(Sin()),
    "softsign": _always(Softsign()),
    "sqrt": _always(Sqrt()),
    "square": _always(Power(2.0)),
    "tanh": _always(Tanh()),
    **dict.fromkeys(("_power_scalar", "_PowerScalar"), _POWER),
}
"""MXNet's op name -> how it is read."""

NAMES: dict[type[Op], str] = {
    Abs: "abs",
    Cos: "cos",
    Erf: "erf",
    Exp: "exp",
    Log: "log",
    Sin: "sin",
    Sqrt: "sqrt",
}


def written(op: Op) -> tuple[str, dict[str, object]] | None:
    """MXNet's op and attributes; None if it has none."""
    if type(op) in NAMES:
        return NAMES[type(op)], {}
    for kind, activation in ACTIVATIONS.items():
        if op == activation:
            return "Activation", {"act_type": kind}
    match op:
        case Elu(scale=1.0, width=1.0, alpha=alpha):
            return "LeakyReLU", {"act_type": "elu", "slope": repr(alpha)}
        case Elu() if op == SELU:
            return "LeakyReLU", {"act_type": "selu"}
        case Gelu(tanh=False):
            return "LeakyReLU", {"act_type": "gelu"}
        case HardSigmoid(alpha=alpha, beta=beta):
            return "hard_sigmoid", {"alpha": repr(alpha), "beta": repr(beta)}
        case Power(exponent=exponent):
            return "_power_scalar", {"scalar": repr(exponent)}
    return None
