"""What refnet itself makes of a node's inputs: every evaluation that a verdict rests on.

    plain, golden ── a float32 value         bound ── where any float32 evaluation lies

Inputs are data first, then weights, as `Node.inputs` names them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refnet.core.op import F32, Interval, Op
from refnet.exact.engine import DecideOrRefine
from refnet.kernels.engine import Fast


def plain(op: Op, inputs: Sequence[F32], threads: int = 1) -> F32:
    """The op's value in plain arithmetic.

    >>> from refnet.ops import Relu
    >>> plain(Relu(), [np.float32([-1, 2])])
    array([0., 2.], dtype=float32)
    """
    return op.run(*inputs, engine=Fast(threads))


def golden(op: Op, inputs: Sequence[F32], threads: int = 1) -> F32:
    """The correctly rounded exact value of the op's formula."""
    return op.golden(*inputs, exact=DecideOrRefine(Fast(threads)))


def bound(op: Op, inputs: Sequence[Interval]) -> Interval:
    """Where any float32 evaluation of the op lies, for inputs anywhere in their intervals."""
    with np.errstate(all="ignore"):
        return op.bound(*inputs, engine=Fast())
