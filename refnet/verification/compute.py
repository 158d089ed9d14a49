"""What refnet itself makes of a node's inputs: every evaluation that a verdict rests on.

    plain, golden ── a float32 value         bound ── where any float32 evaluation lies

Inputs are data first, then weights, as `Node.inputs` names them. threads: None takes all processors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from refnet.core.errors import GraphError
from refnet.core.interrupt import LONG, interruptible
from refnet.core.op import F32, F64, Interval, Op, TensorType
from refnet.exact.engine import DecideOrRefine
from refnet.kernels.engine import Fast

T = TypeVar("T")


def plain(op: Op, inputs: Sequence[F32], threads: int | None = None) -> F32:
    """The op's value in plain arithmetic.

    >>> from refnet.ops import Relu
    >>> plain(Relu(), [np.float32([-1, 2])])
    array([0., 2.], dtype=float32)
    """
    return _interruptible(op, inputs, lambda: op.run(*inputs, engine=Fast(threads)))


def golden(op: Op, inputs: Sequence[F32], threads: int | None = None) -> F32:
    """The correctly rounded exact value of the op's formula."""
    return _interruptible(op, inputs, lambda: op.golden(*inputs, exact=DecideOrRefine(Fast(threads))))


def bound(op: Op, inputs: Sequence[Interval], threads: int | None = None) -> Interval:
    """Where any float32 evaluation of the op lies, for inputs anywhere in their intervals."""
    with np.errstate(all="ignore"):
        centers = [one.center for one in inputs]
        return _interruptible(op, centers, lambda: op.bound(*inputs, engine=Fast(threads)))


def _interruptible(op: Op, inputs: Sequence[F32 | F64], compute: Callable[[], T]) -> T:
    """compute(), where Ctrl-C is looked for if the op has many operations."""
    try:
        short = op.flops(*(TensorType(one.shape, one.dtype.name) for one in inputs)).flops < LONG
    except GraphError:  # shapes that do not fit: the op says so itself
        short = True
    return compute() if short else interruptible(compute)
