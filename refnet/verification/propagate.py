"""What is known of a value that a capture does not have: where it lies, given the values that it has.

    captured values ── known ──┐
                               ├── through(node) ── through(node) ── ...  the next captured value is judged
    weights ───────────────────┘

Accelerators fuse layers and show only some values. A node in between is passed in intervals: `Op.bound`
says where any float32 evaluation lies if its inputs lie anywhere in theirs, so by induction every value on
the way, however each was rounded, is inside its interval. The proof needs that the nodes were computed one
by one, or folded in the ways of `FoldableSum`: a batch norm into the convolution before it, an addition
into the sum before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refnet.core.graph import Node
from refnet.core.op import F32, Interval
from refnet.kernels.engine import Fast


@dataclass(frozen=True)
class AbstractValue:
    """An input of a node, as far as the capture tells.

    value: its bits, or, for a value in between, what plain makes of the captured ones. interval: where it
    lies; None if its bits are known. over: nodes between it and the captured values, in order. loose: it
    went through an op in whose zeros' signs frameworks vary.
    """

    value: F32
    interval: Interval | None = None
    over: tuple[str, ...] = ()
    zero_sign_unknown: bool = False

    @property
    def bound(self) -> Interval:
        """Where it lies."""
        return Interval.exactly(self.value) if self.interval is None else self.interval


def known(value: F32) -> AbstractValue:
    """An operand whose bits are known: a captured value, an input, a weight.

    >>> known(np.float32([1.5])).bound.radius
    array([0.])
    """
    return AbstractValue(np.ascontiguousarray(value).reshape(value.shape))


def nodes_over(operands: Sequence[AbstractValue]) -> tuple[str, ...]:
    """The nodes between these operands and captured values, each once."""
    return tuple(dict.fromkeys(name for one in operands for name in one.over))


def propagate(
    node: Node, operands: Sequence[AbstractValue], threads: int = 1, plain: F32 | None = None
) -> AbstractValue:
    """What is known of a node's value when only its inputs are: operands, data first, then weights.

    plain: the node's plain value on the operands' values, if it is known already.

    An op that rounds nothing (its bound has the radius 0: relu, max, concat) on inputs whose bits are known
    has a known value, but for what frameworks make of NaN where they vary. One rounding is not known to have
    happened: a hidden product and the sum after it may be one fused multiply-add, two hidden sums one sum
    in another order.

    >>> from refnet.ops import Relu
    >>> one = propagate(Node("r", Relu(), ("x",)), [known(np.float32([[-1, 2]]))])
    >>> one.value, one.interval, one.over
    (array([[0., 2.]], dtype=float32), None, ('r',))
    """
    op = node.op
    over = (*nodes_over(operands), node.name)
    zero_sign_unknown = op.zero_sign_unspecified or any(one.zero_sign_unknown for one in operands)
    value = op.run(*(one.value for one in operands), engine=Fast(threads)) if plain is None else plain
    with np.errstate(all="ignore"):
        interval = op.bound(*(one.bound for one in operands), engine=Fast())
    bits_known = all(one.interval is None for one in operands)
    if op.exactly_specified and bits_known and not interval.radius.any():
        return AbstractValue(value, None, over, zero_sign_unknown)
    return AbstractValue(value, interval, over, zero_sign_unknown)
