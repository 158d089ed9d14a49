"""Whether a file's weights are a convolution's and a batch norm's, folded into one by its writer.

    foldable(node, after) ── fold_faults(the file's weights, the module's) ── what no rounding explains

With s = gamma / sqrt(var + eps), folding makes w' = w s and b' = (b - mean) s + beta. In float32, in any
order, a term of w' passes at most 5 roundings: eps's and the sum's, which the root halves (1), the root's,
the division's (or a reciprocal's and a product's, 2), the product's with w. Those of b' pass 7 at most:
b - mean or the sum of two products (1 more), and the sum with beta. So |w' - w s| <= gamma(5) |w s|, and
|b' - ((b - mean) s + beta)| <= gamma(7) ((|b| + |mean|) |s| + |beta|); what underflows loses ETA more, before
it is multiplied by w. This holds where var >= 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refnet.core.graph import Node
from refnet.core.op import F32, F64
from refnet.core.rounding import ETA, gamma
from refnet.ops import BatchNorm, Conv, ConvNd, Dense


def foldable(node: Node, after: Node) -> bool:
    """Whether `after`, which alone reads `node`, can be folded into its weights, channel by channel."""
    return isinstance(node.op, Conv | ConvNd | Dense) and isinstance(after.op, BatchNorm)


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
        s[var < 0] = np.nan
        across = s.reshape(-1, *[1] * (weight.ndim - 1))
        exact, shift = weight * across, (bias - mean) * s + beta
        size = (np.abs(bias) + np.abs(mean)) * np.abs(s) + np.abs(beta)
        wrong = _outside(found - exact, gamma(5) * np.abs(exact) + ETA * (1 + np.abs(weight)))
        wrong_bias = _outside(found_bias - shift, gamma(7) * size + ETA * (1 + np.abs(bias - mean)))
    for what, count, total in (("weight", wrong, weight.size), ("bias", wrong_bias, bias.size)):
        if count:
            return (
                f"{count} of {total} elements of its {what} are not what folding {norm.name} into "
                f"{conv.name} can give"
            )
    return None


def _outside(error: F64, radius: F64) -> int:
    """How many errors are outside; the float64 in which they were computed widens the radius."""
    return int((np.abs(error) > radius * (1 + 2.0**-20)).sum())


def _pair(node: Node, weights: Mapping[str, F32]) -> tuple[F64, F64]:
    """Weight and bias; zeros where there is none."""
    weight, *bias = (weights[name].astype(np.float64) for name in node.weights)
    return weight, bias[0] if bias else np.zeros(len(weight))
