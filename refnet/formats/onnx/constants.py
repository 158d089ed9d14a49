"""The rules of nodes whose inputs are all constant: those of ops.py, and what only constants have one for."""

from __future__ import annotations

from refnet.formats.assembly import Made
from refnet.formats.onnx import ops
from refnet.formats.onnx.use import Rule, Use, decimal
from refnet.ops import InstanceNorm, Reshape, Transpose


def _batch_norm(u: Use) -> list[Made]:
    """With training_mode=1 mean and variance are the data's own (weight standardisation): of each channel
    over all images, which one image that holds them all has."""
    if not u["training_mode"]:
        return ops.RULES["BatchNormalization"](u)
    shape, (name, *_) = u.type().shape, u.node.outputs
    if len(shape) < 2:
        raise u.node.wrong(f"data {list(shape)}", "images and channels")
    order = (1, 0, *range(2, len(shape)))
    channels = tuple(u.weight(i, role)[0] for i, role in ((1, "scale"), (2, "bias")))
    rows, one, back = f"{name}/channels", f"{name}/image", f"{name}/normalised"
    op = InstanceNorm(decimal(u["epsilon"]), (u.type(1).shape, u.type(2).shape))
    return [
        Made(rows, Transpose(order), u.node.inputs[:1]),
        Made(one, Reshape((1, shape[1], -1)), (rows,)),
        Made(back, op, (one,), channels),
        Made(f"{name}/shaped", Reshape((shape[1], shape[0], *shape[2:])), (back,)),
        Made(name, Transpose(order), (f"{name}/shaped",)),
    ]


RULES: dict[str, Rule] = {**ops.RULES, "BatchNormalization": _batch_norm}
"""Operator -> its rule."""
