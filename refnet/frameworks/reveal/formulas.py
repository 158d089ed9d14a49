"""Which formula of an op's menu a framework evaluates: the one that gives its bits, on chosen inputs.

reveal_formula ── candidates          the menu; for a softmax with the order of its sum (positive.py)
    └── matching, arrange             on random data, then zeros of both signs, NaN and infinities
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refnet.arithmetic.recipes import box_shape
from refnet.core.bits import Mask
from refnet.core.op import F32, Op, TensorType
from refnet.core.orders import Choice, Expr, Recipe
from refnet.frameworks.caller import Caller
from refnet.frameworks.reveal.compress import expression
from refnet.frameworks.reveal.positive import Positive, positive_tree
from refnet.frameworks.reveal.probe import odd_inputs, random_inputs
from refnet.frameworks.reveal.sums import SAMPLES, Do, Samples, arrange, matching
from refnet.frameworks.reveal.tree import Unexplained
from refnet.loops.engine import REFERENCE

ABSENT = -100.0
"""A logit whose exponential, 4e-44, is added to nothing that is looked at without vanishing."""


def usual_inputs(op: Op, types: Sequence[TensorType], seed: int) -> list[F32]:
    """Random inputs as the op meets them: variances are positive."""
    found = random_inputs(types, seed)
    weights = op.weight_roles()
    for k, role in enumerate(weights, len(types) - len(weights)):
        if role in op.positive:
            found[k] = np.abs(found[k]) + np.float32(0.01)
    return found


def special_inputs(op: Op, types: Sequence[TensorType], seed: int) -> list[F32]:
    """Zeros of both signs, subnormals, infinities and NaN, in the data only."""
    weights = len(op.weight_roles())
    found = usual_inputs(op, types, seed)
    odd = odd_inputs(types, seed)
    count = len(types) - weights
    found[:count] = odd[:count]
    return found


def reveal_formula(op: Op, types: Sequence[TensorType], caller: Caller, threads: int = 1) -> Recipe:
    """The recipe of an op with a menu. Raises Unexplained if nothing in it gives the framework's bits."""
    shape = box_shape(op.type(*types).shape)
    usual, odd = (
        Samples(made, caller.wholes(made))
        for made in (
            [usual_inputs(op, types, seed) for seed in range(SAMPLES)],
            [special_inputs(op, types, seed) for seed in range(SAMPLES)],
        )
    )
    choices = candidates(op, _total(op, types, caller))
    held = [matching(op, one, usual, shape, threads) for one in choices]
    rest = [matching(op, one, odd, shape, threads) for one in choices]
    open_: Mask = np.ones(shape, np.bool_)
    found: list[tuple[Do, Mask]] = []
    while open_.any():
        worth = [((h & open_).sum(), (r & h & open_).sum()) for h, r in zip(held, rest, strict=True)]
        best = max(range(len(choices)), key=lambda k: worth[k]) if choices else -1
        if best < 0 or not worth[best][0]:
            menu = ", ".join(choice.formula for choice in choices)
            if not menu:
                raise Unexplained("no framework's formula is known for this op")
            raise Unexplained(f"{open_.sum()} of {open_.size} elements are by none of: {menu}")
        found.append((choices[best], held[best]))
        open_ &= ~held[best]
    return arrange(found, shape)


def candidates(op: Op, total: Expr | None = None) -> list[Choice]:
    """Every formula of the op's menu that applies to it."""
    return [Choice(name, total) for name in op.menu]


def _total(op: Op, types: Sequence[TensorType], caller: Caller) -> Expr | None:
    """The order in which a softmax adds; None where there is only one."""
    row = op.total_places(*types)
    if row is None or len(row[0]) < 3:
        return None
    places, sums = row
    alone = np.full(TensorType(types[0].shape).size, ABSENT, np.float32)
    alone[places[0]] = 0
    whole = op.run(alone.reshape(types[0].shape), engine=REFERENCE).reshape(-1)[sums[0]]  # of a sum of 1

    def shows(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        with np.errstate(divide="ignore"):
            logits = np.maximum(np.log(rows), ABSENT).astype(np.float32)
        data = np.zeros((len(rows), TensorType(types[0].shape).size), np.float32)
        data[:, places] = logits
        y = caller({}, {"x": data.reshape(len(rows), *types[0].shape)}).reshape(len(rows), -1)
        found: npt.NDArray[np.bool_] = y[:, sums][np.arange(len(rows)), rows.argmax(1)] != whole
        return found

    path = positive_tree(Positive(len(places), shows))
    return expression(path, ())
