"""What is known of a value that a capture lacks: the interval in which it must lie, given those it has.

    captured values ── known ──┐
                               ├── propagate(node) ── propagate(node) ── ... the next captured value is judged
    weights ───────────────────┘

Accelerators fuse layers and show only some values. A hidden node is passed as intervals: `Op.bound` says
where any float32 evaluation lies if each input lies anywhere in its interval. By induction every hidden
value, however it was rounded, lies inside its interval. The proof assumes that the nodes were computed one
by one, or folded as `FoldableSum` describes: a batch norm into the convolution before it, an addition into
the sum before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refnet.core.graph import Node
from refnet.core.op import F32, Interval
from refnet.verification import compute


@dataclass(frozen=True)
class AbstractValue:
    """What the capture tells of an input of a node.

    value: its bits; of a hidden value, plain's bits computed from the captured ones. interval: where it
    lies; None if its bits are known. over: the nodes between it and the captured values, in order.
    zero_sign_unknown: it passed an op in which frameworks vary in the sign of a zero.
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
    """A value whose bits are known: a captured value, an input, a weight.

    >>> known(np.float32([1.5])).bound.radius
    array([0.])
    """
    return AbstractValue(np.ascontiguousarray(value).reshape(value.shape))


def nodes_over(operands: Sequence[AbstractValue]) -> tuple[str, ...]:
    """The nodes between these operands and captured values, each once."""
    return tuple(dict.fromkeys(name for one in operands for name in one.over))


def propagate(
    node: Node, operands: Sequence[AbstractValue], threads: int | None = None, plain: F32 | None = None
) -> AbstractValue:
    """What is known of a hidden node's value, given its operands: data first, then weights.

    threads: None takes all processors. plain: the node's plain value on the operands' values, if it is known.

    If the inputs' bits are known and the op rounds nothing (a bound of radius 0: relu, max, concat), the
    value's bits are known, except where frameworks vary. An op that rounds, even once, is not known to have
    rounded: a hidden product and the sum after it may be one fused multiply-add, two hidden sums may be one
    sum in another order.

    >>> from refnet.ops import Relu
    >>> one = propagate(Node("r", Relu(), ("x",)), [known(np.float32([[-1, 2]]))])
    >>> one.value, one.interval, one.over
    (array([[0., 2.]], dtype=float32), None, ('r',))
    """
    op = node.op
    over = (*nodes_over(operands), node.name)
    zero_sign_unknown = op.zero_sign_unspecified or any(one.zero_sign_unknown for one in operands)
    value = compute.plain(op, [one.value for one in operands], threads) if plain is None else plain
    interval = compute.bound(op, [one.bound for one in operands], threads)
    bits_known = all(one.interval is None for one in operands)
    if op.exactly_specified and bits_known and not interval.radius.any():
        return AbstractValue(value, None, over, zero_sign_unknown)
    return AbstractValue(value, interval, over, zero_sign_unknown)
