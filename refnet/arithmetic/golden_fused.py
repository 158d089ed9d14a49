"""Golden values of nodes in a row, computed in one pass over memory; no bit changes.

    convolution or batch norm ── batch norms, additions of two, relus      Decided
    product of two, addition of two, relu ── additions of two, relus       Fused: one right result anyway

Each node still rounds once. Where a rounding is not decided in the pass, the element is computed again from
its exact first value, by a kernel, in pairs of float64; what these leave open, node by node. Values that
somebody asked for, or that two nodes read, end a row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from refnet.arithmetic.fused import Fused, fuse
from refnet.core.engine import ADD, Engine, Places
from refnet.core.exact import Exact
from refnet.core.graph import Node
from refnet.core.op import F32, Fusable, Op
from refnet.ops.conv import Conv
from refnet.ops.norm import BatchNorm
from refnet.ops.pointwise import Add, Mul, Relu

if TYPE_CHECKING:
    from refnet.exact.engine import DecideOrRefine
    from refnet.kernels.exact_steps import Affine, Step


@dataclass(frozen=True, repr=False)
class Decided(Op):
    """y = the last of `ops`, each applied to the result of the one before, each rounded once

    Inputs: the first op's data, what an addition adds, then the weights of all ops, in order. The first is a
    convolution or a batch norm; the others are batch norms, relus, and at most one addition.
    """

    ops: tuple[Fusable, ...]

    def weight_roles(self) -> tuple[str, ...]:
        return tuple(role for op in self.ops for role in op.weight_roles())

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        fast = cast("DecideOrRefine", exact)
        count = len(inputs) - len(self.weight_roles())
        weights, x, other = iter(inputs[count:]), inputs[0], inputs[count - 1]
        steps = [(op, [next(weights) for _ in op.weight_roles()]) for op in self.ops]
        conv, learned = steps.pop(0) if isinstance(self.ops[0], Conv) else (None, [])

        def again(at: Places, channel: Places, values: F32) -> F32:
            """What these values at flat places become, node by node, as channels of one image."""
            y: F32 = values[None]
            for op, own in steps:
                more = [other.reshape(-1)[at][None]] if op.step == ADD else []
                y = op.golden(y, *more, *(w[channel] for w in own), exact=exact)
            return y.reshape(-1)

        after = [_step(op, own, other, exact.engine) for op, own in steps]
        if not isinstance(conv, Conv):
            return fast.steps(x, after, again)
        bias = learned[1] if conv.bias else None
        y = fast.conv_and_steps(x, learned[0], bias, conv.geometry, after, again)
        if y is None:
            y = conv.golden(x, *learned, exact=exact)
            for op, own in steps:
                y = op.golden(y, *([other] if op.step == ADD else []), *own, exact=exact)
        return y


def _step(op: Op, weights: Sequence[F32], other: F32, engine: Engine) -> Step:
    """The op as `DecideOrRefine.steps` takes it; other: what an addition adds."""
    if isinstance(op, BatchNorm):
        return engine.cached(weights, (op, "exact steps"), lambda: _affine(op, engine, *weights))
    return other if isinstance(op, Add) else None


def _affine(op: BatchNorm, engine: Engine, *weights: F32) -> Affine:
    """The batch norm as a step, from gamma, beta, mean and variance."""
    from refnet.kernels.exact_steps import Affine, root_quotients

    mean, scale, shift, factor = op.exact_factors(engine, *weights)
    gamma = np.ones_like(scale) if op.fix_gamma else weights[0].astype(np.float64)
    high, low, share = root_quotients(gamma, weights[3].astype(np.float64), op.eps)
    return Affine(mean, high, shift, factor, low, share)


def fuse_golden(nodes: Sequence[Node], keep: Collection[str]) -> tuple[Node, ...]:
    """The nodes, where each row that one pass can decide is replaced by one node, named after its last.

    keep: values that must exist.
    """
    return fuse(nodes, keep, _known, _follows, _together)


def _known(op: Op) -> Fusable | None:
    """The op, if a row may have it: exactly these classes, since what is derived may round in its own way."""
    if type(op) in (Add, BatchNorm, Conv, Mul, Relu):
        return cast(Fusable, op)
    return None


def _follows(before: Sequence[Fusable], op: Fusable) -> bool:
    """Whether the row of these ops may go on with `op`."""
    return op.exactly_specified or not before[0].exactly_specified


def _together(ops: tuple[Fusable, ...]) -> Op:
    return Fused(ops) if ops[0].exactly_specified else Decided(ops)
