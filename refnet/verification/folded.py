"""Whether a file's weights are a convolution's and a batch norm's, folded into one by its writer.

    foldable(node, after) ── fold_faults(the file's weights, the module's) ── what no rounding explains

With s = gamma / sqrt(var + eps), folding makes w' = w s and b' = (b - mean) s + beta. In float32, in any
order, a term of w' passes at most 5 roundings: eps's and the sum's, which the root halves (1), the root's,
the division's (or a reciprocal's and a product's, 2), the product's with w. Those of b' pass 7 at most:
b - mean or the sum of two products (1 more), and the sum with beta. So |w' - w s| <= gamma(5) |w s|, and
|b' - ((b - mean) s + beta)| <= gamma(7) ((|b| + |mean|) |s| + |beta|); what underflows loses ETA more, before
it is multiplied by w. Where var < 0 the sum cancels: its relative error, and so both bounds, are up to
(eps + |var|) / |var + eps| times as large, and without end where that reaches 2**22.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from refnet.core.graph import Node
from refnet.core.op import F32, F64, Op
from refnet.core.rounding import ETA, gamma
from refnet.ops import BatchNorm, Conv, ConvNd, Dense

CANCELLED = 2.0**22
"""Where var + eps cancels by this much, two roundings may be a quarter of it."""


def foldable(node: Node, after: Node) -> bool:
    """Whether `after`, which alone reads `node`, can be folded into its weights, channel by channel."""
    return isinstance(node.op, Conv | ConvNd | Dense) and isinstance(after.op, BatchNorm)


def unbiased(op: Op, like: Op) -> Op:
    """The op of a convolution, with a bias only if the other one has one."""
    assert isinstance(op, Conv | ConvNd | Dense)
    assert isinstance(like, Conv | ConvNd | Dense)
    return replace(op, bias=like.bias)


def fold_faults(
    file: tuple[Node, Mapping[str, F32]], module: tuple[Node, Node, Mapping[str, F32]]
) -> str | None:
    """What is wrong with folded weights; None if roundings explain all of it.

    file: the node with folded weights, and the weights of its graph. module: the convolution and the batch
    norm, and the weights of theirs.
    """
    node, held = file
    conv, norm, own = module
    assert isinstance(norm.op, BatchNorm)
    weight, bias = _pair(conv, own)
    found, found_bias = _pair(node, held)
    if found.shape != weight.shape:
        return f"its weight is {list(found.shape)}, that of {conv.name} {list(weight.shape)}"
    scale, beta, mean, var = (own[name].astype(np.float64) for name in norm.weights)
    with np.errstate(all="ignore"):
        s = (np.ones_like(scale) if norm.op.fix_gamma else scale) / np.sqrt(var + norm.op.eps)
        grown = np.maximum(1.0, (np.abs(var) + norm.op.eps) / np.abs(var + norm.op.eps))
        grown = np.where(grown < CANCELLED, grown, np.inf)
        by_channel = (-1, *[1] * (weight.ndim - 1))
        exact, shift = weight * s.reshape(by_channel), (bias - mean) * s + beta
        size = (np.abs(bias) + np.abs(mean)) * np.abs(s) + np.abs(beta)
        radius = gamma(5) * np.abs(exact) + ETA * (1 + np.abs(weight))
        radius_bias = gamma(7) * size + ETA * (1 + np.abs(bias - mean))
        wrong = _outside(found, exact, radius * grown.reshape(by_channel))
        wrong_bias = _outside(found_bias, shift, radius_bias * grown)
    for what, count, total in (("weight", wrong, weight.size), ("bias", wrong_bias, bias.size)):
        if count:
            return (
                f"{count} of {total} elements of its {what} are not what folding {norm.name} into "
                f"{conv.name} can give"
            )
    return None


def _outside(found: F64, exact: F64, radius: F64) -> int:
    """How many are outside; the float64 in which they were computed widens the radius. NaN is, beside a
    number, and so is a number beside NaN."""
    same = (found == exact) | (np.isnan(found) & np.isnan(exact))
    return int((~same & ~(np.abs(found - exact) <= radius * (1 + 2.0**-20))).sum())


def _pair(node: Node, weights: Mapping[str, F32]) -> tuple[F64, F64]:
    """Weight and bias; zeros where there is none."""
    weight, *bias = (weights[name].astype(np.float64) for name in node.weights)
    return weight, bias[0] if bias else np.zeros(len(weight))
