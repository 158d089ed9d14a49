"""The one judge: what can be proved of a value that somebody computed, given the inputs of its node.

judge ── readings (axes.py)                 of another shape: the one order of axes in which it is clean
   ├──── compute.plain                      are its bits plain's?
   ├──── op.agrees                          an op with one right result: equal, or a defect, unless
   │                                        one formula of its menu gives the whole value: replayed
   ├──── replay.evaluate_or_none            the book's recipe gives these bits: replayed (hidden.py, where
   │                                        inputs are not captured)
   ├──── compute.bound ── shares            inside: rounding; outside: a defect; no bound: unjudged
   └──── exact_sums (order_free.py)         where no order rounds: plain's bits, or a defect

`refnet verify`, the pytest plugin and the cross-checks all decide by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from refnet.core.errors import InputError
from refnet.core.graph import Node, TensorType
from refnet.core.op import F32, F64, Interval, Op
from refnet.kernels.engine import Fast
from refnet.verification import compute
from refnet.verification.axes import MOST_AXES, Reading, readings, regrouped
from refnet.verification.difference import Mask, differs, shares, ulps
from refnet.verification.judgement import (
    CLEAN,
    DEFECT,
    EQUAL,
    REPLAYED,
    ROUNDING,
    UNJUDGED,
    Judgement,
    Shares,
    Worst,
)
from refnet.verification.order_free import exact_sums
from refnet.verification.propagate import AbstractValue, known, nodes_over
from refnet.verification.trace import exactly_at

if TYPE_CHECKING:
    from refnet.arithmetic.replay import Replay

BINS = 20
"""Of a histogram of shares from 0 to 1; one more counts what lies above."""
WRONG_TYPE = "its dtype is"
"""How the reason of an array of another type begins."""


@dataclass(frozen=True)
class _Case:
    """What a value of a node is judged by; each part is computed once, whatever number of arrays is tried.

    recipe: what the book gives; None without a book.
    """

    node: Node
    operands: Sequence[AbstractValue]
    plain: F32
    threads: int | None
    recipe: Callable[[], F32 | None] | None

    @property
    def hidden(self) -> bool:
        """Whether the bits of an input are not known."""
        return any(one.interval is not None for one in self.operands)

    @cached_property
    def bound(self) -> Interval:
        return compute.bound(self.node.op, [one.bound for one in self.operands], self.threads)

    @cached_property
    def exact(self) -> Mask | None:
        """Where no order of additions rounds."""
        arrays = [one.value for one in self.operands]
        return None if self.hidden else exact_sums(self.node.op, arrays, self.threads)

    @cached_property
    def replayed(self) -> F32 | None:
        return None if self.recipe is None else self.recipe()


def judge(
    node: Node,
    result: F32,
    inputs: Sequence[F32 | AbstractValue],
    replay: Replay | None = None,
    *,
    plain: F32 | None = None,
    replayed: F32 | None = None,
    threads: int | None = None,
) -> Judgement:
    """Judge a value that a framework computed, given the inputs of its node: data, then weights.

    result: the value, of the node's shape. Of another shape with as many elements, it is read by the one
    order of axes in which it is clean (`Judgement.reading`); if there is none, or several, it is unjudged.
    inputs: the arrays that the framework had, or what is known of hidden ones (propagate.py). replay: a
    book's recipes. plain: the node's plain value on these inputs, if it is known already. replayed: where
    inputs are hidden, what the book makes of the captured values that they are made of. threads: None takes
    all processors; they change no bit.

    >>> from refnet.ops import Add
    >>> one, tiny = np.float32([[1, 2]]), np.float32([[2.0**-24, 0]])
    >>> judge(Node("sum", Add(2), ("a", "b")), np.float32([[1, 2.0000002]]), [one, tiny]).verdict
    'defect'
    """
    operands = [one if isinstance(one, AbstractValue) else known(one) for one in inputs]
    kinds = [TensorType(one.value.shape, one.value.dtype.name) for one in operands]
    kind = node.op.type(*kinds)
    shape = kind.shape
    head = Judgement(node.name, repr(node.op), type(node.op).__name__, node.inputs, shape, DEFECT)
    over = nodes_over(operands)
    head = replace(head, over=(*over, node.name) if over else (), elements=TensorType(shape).size)
    if result.dtype != kind.dtype:
        return replace(head, reason=f"{WRONG_TYPE} {result.dtype}, not {kind.dtype}")
    if result.size != head.elements:
        return replace(head, reason=f"its shape is {list(result.shape)}, not {list(shape)}")
    if plain is None:
        plain = compute.plain(node.op, [one.value for one in operands], threads)
    if kind.dtype != "float32":
        return _of_integers(head, node, operands, plain, result)
    recipe = None if replay is None else lambda: _recipes(replay, replayed, node, operands)
    case = _Case(node, operands, plain, threads, recipe)
    if result.shape == shape:
        return _judged(head, case, result)
    if regrouped(result.shape, shape):
        (reading,) = readings(result.shape, shape)
        said = f"shape {list(result.shape)}, read as {list(shape)}"
        return _said(replace(_judged(head, case, reading.of(result)), reading=reading), said)
    return _of_another_shape(head, case, result)


def _of_integers(
    head: Judgement, node: Node, operands: Sequence[AbstractValue], plain: Any, result: Any
) -> Judgement:
    """The verdict on integers or booleans: they are the only right result, or they are not."""
    if result.shape != head.shape:
        if not regrouped(result.shape, head.shape):
            said = f"its shape is {list(result.shape)}, not {list(head.shape)}"
            return replace(head, verdict=UNJUDGED, reason=f"{said}; axes of {result.dtype} are not sought")
        result = result.reshape(head.shape)
    bound = compute.bound(node.op, [one.bound for one in operands])
    hidden = any(one.interval is not None for one in operands)
    other = np.asarray(result != plain)
    open_ = np.broadcast_to(np.isinf(bound.radius), other.shape) & hidden
    unspecified = node.op.unspecified(*(one.value for one in operands))
    none = np.broadcast_to(unspecified, other.shape)
    wrong = other & ~open_ & ~none
    head = replace(head, differ=int(other.sum()), outside=int(wrong.sum()))
    if not other.any():
        return replace(head, verdict=EQUAL)
    if wrong.any():
        at = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), wrong.shape)))
        said = f"{int(wrong.sum())} of {wrong.size} elements are not the only right result"
        return replace(head, reason=f"{said}, the first at {list(at)}: {result[at]}, not {plain[at]}")
    why = (
        "an input is hidden, and more than one result is possible"
        if open_.any()
        else ("what goes in has no right result (NaN, or a number that the type does not have)")
    )
    return replace(head, verdict=UNJUDGED, reason=why, unpromised=int(other.sum()))


def _judged(head: Judgement, case: _Case, result: F32) -> Judgement:
    """The verdict on an array of the node's shape."""
    if case.node.op.exactly_specified and not case.hidden:
        return _exactly_specified(head, case, result)
    return _bounded(head, case, result)


def _said(judged: Judgement, *before: str) -> Judgement:
    """The judgement with something said before its reason."""
    return replace(judged, reason="; ".join([*before, *([judged.reason] if judged.reason else [])]))


def _of_another_shape(head: Judgement, case: _Case, result: F32) -> Judgement:
    """Read it by the one order of axes in which it is clean. Orders that give the same bits are one."""
    fitting = readings(result.shape, head.shape)
    shapes = f"its shape is {list(result.shape)}, not {list(head.shape)}"
    if not fitting:
        why = "no order of its axes gives that"
        if sum(size != 1 for size in max(result.shape, head.shape, key=len)) > MOST_AXES:
            why = f"orders of more than {MOST_AXES} axes are not tried"
        return replace(head, verdict=UNJUDGED, reason=f"{shapes}: {why}")
    tried: dict[bytes, tuple[Reading, Judgement]] = {}
    for reading in fitting:
        array = reading.of(result)
        key = hashlib.sha256(array.data).digest()
        if key not in tried:
            tried[key] = reading, replace(_judged(head, case, array), reading=reading)
    clean = [(reading, judged) for reading, judged in tried.values() if judged.verdict in CLEAN]
    if len(clean) == 1:
        ((reading, judged),) = clean
        alone = "the only order of its axes" if len(tried) > 1 else "the order of its axes"
        return _said(judged, f"{shapes}; read {reading}, {alone} that is clean")
    if clean:
        shown = ", ".join(str(reading) for reading, _ in clean)
        why = f"{len(clean)} orders of its axes are clean ({shown}), so which one it has is not known"
    else:
        reading, judged = min(tried.values(), key=lambda one: one[1].outside)
        count = "the one order of its axes that fits is" if len(tried) == 1 else "no order of its axes is"
        why = f"{count}{' not' if len(tried) == 1 else ''} clean"
        why += f" (read {reading}, {judged.outside} of {head.elements} elements would be defects)"
    return replace(head, verdict=UNJUDGED, reason=f"{shapes}: {why}")


def arranged(result: F32, judged: Judgement) -> F32 | None:
    """An array as it was judged, in its node's shape; None where it could not be read."""
    if result.dtype != np.float32 and (judged.reason or "").startswith(WRONG_TYPE):
        return None
    if result.shape == judged.shape:
        return result
    return None if judged.reading is None else judged.reading.of(result)


def judge_input(name: str, result: F32, expected: F32) -> Judgement:
    """Judge an input of the network by what its stated source makes: that is exact to the last bit.

    >>> judge_input("data", np.float32([[1]]), np.float32([[2]])).verdict
    'defect'
    """
    head = Judgement(name, "Input()", "Input", (), expected.shape, EQUAL, elements=expected.size)
    if result.shape != expected.shape:
        said = f"its shape is {list(result.shape)}, its source makes {list(expected.shape)}"
        return replace(head, verdict=DEFECT, reason=said)
    if result.dtype != expected.dtype:
        return replace(head, verdict=DEFECT, reason=f"{WRONG_TYPE} {result.dtype}, not {expected.dtype}")
    wrong = differs(result, expected) if result.dtype == np.float32 else np.asarray(result != expected)
    if not wrong.any():
        return head
    if result.dtype != np.float32:
        at = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), result.shape)))
        count = int(wrong.sum())
        reason = f"{count} of {result.size} elements are not what its source makes, the first at {list(at)}: "
        reason += f"{result[at]}, not {expected[at]}"
        return replace(head, verdict=DEFECT, reason=reason, differ=count, outside=count)
    apart = ulps(result, expected)
    with np.errstate(all="ignore"):
        distance = np.where(wrong, np.abs(result.astype(np.float64) - expected), -1.0)
    distance = np.where(np.isnan(distance), np.inf, distance)
    at = tuple(map(int, np.unravel_index(int(np.argmax(distance)), result.shape)))
    worst = Worst(at, result[at], expected[at], expected[at], None, int(apart[at]), None)
    count = int(wrong.sum())
    reason = f"{count} of {result.size} elements are not what its source makes"
    most = int(apart[wrong].max())
    return replace(head, verdict=DEFECT, reason=reason, differ=count, outside=count, ulps=most, worst=worst)


def _exactly_specified(head: Judgement, case: _Case, result: F32) -> Judgement:
    """The bits must be plain's, up to the zeros and NaN in which frameworks vary, or one formula's."""
    node, plain, operands = case.node, case.plain, case.operands
    other = differs(result, plain)
    wrong = ~node.op.agrees(result, plain, any(one.zero_sign_unknown for one in operands))
    reason = None
    count, free = int(wrong.sum()), int((other & ~wrong).sum())
    formula = _formula(case, result) if count else None
    if formula is not None:
        reason = f"the formula {formula!r} gives these bits: {node.op.formulas[formula]}"
        head = replace(head, verdict=REPLAYED, reason=reason, differ=int(other.sum()))
        return _shown(head, case, result, wrong, np.zeros(wrong.shape), None)
    if count:
        others = f"{count} of {head.elements} elements have other bits"
        reason = f"{head.kind} has only one right result, and {others}"
    elif free:
        reason = f"{free} zeros have the other sign, or NaN became something else, in which frameworks vary"
    verdict = DEFECT if count else EQUAL
    head = replace(head, verdict=verdict, reason=reason, differ=int(other.sum()), outside=count)
    if not count:
        return head
    weight = np.where(wrong, np.inf, 0.0)
    return replace(_shown(head, case, result, wrong, weight, None), wrong=wrong)


def _formula(case: _Case, result: F32) -> str | None:
    """The formula of the op's menu that gives the whole value, if one does, for an op that runs alone."""
    op, inputs = case.node.op, [one.value for one in case.operands]
    for formula in op.menu:
        if formula in op.joined_only:
            continue
        try:
            value = op.replay(formula, *inputs, engine=Fast(case.threads))
        except InputError:  # it is another case's
            continue
        if not differs(result, value).any():
            return formula
    return None


def _bounded(head: Judgement, case: _Case, result: F32) -> Judgement:
    """The bits of a known recipe, or within the bound that holds for any."""
    bound = case.bound
    other = differs(result, case.plain)
    share = shares(result, bound)  # NaN where nothing is promised
    promised = np.isfinite(bound.radius)
    share = np.where(promised & np.isnan(share), np.inf, share)  # NaN is farther than any number
    outside = other & promised & ~(share <= 1)
    exact = case.exact if other.any() else None
    if exact is not None:  # where no order rounds, all give plain's bits, but for the sign of a zero
        wrong = other & exact & ~((result == 0) & (case.plain == 0))
        outside |= wrong
        share = np.where(wrong, np.inf, share)
    unknown = other & ~promised
    if unknown.any():
        must, may = _propagated(case.node, result, bound, case.operands)
        outside |= unknown & must
        unknown &= ~(must | may)
    differ, count, open_ = int(other.sum()), int(outside.sum()), int(unknown.sum())
    verdict, reason = ROUNDING, None
    other_bits = None if case.recipe is None or not differ else _unreplayed(case.replayed, result)
    if count:
        verdict, reason = DEFECT, f"{count} of {head.elements} elements lie outside the bound"
        if exact is not None:
            reason += f" (which is 0 for {int(exact.sum())} sums that no order rounds)"
    elif not differ:
        verdict, reason = REPLAYED, "refnet's own plain order gives these bits"
    elif other_bits == 0:
        verdict, reason = REPLAYED, "the book's recipe gives these bits"
    elif open_:
        verdict = UNJUDGED
        why = f"over {len(head.over)} nodes it grew without limit" if head.over else "NaN, infinity, overflow"
        reason = f"{open_} of {head.elements} elements have no bound: {why}"
    elif case.hidden and (np.abs(bound.center) <= bound.radius).all():
        verdict, over = UNJUDGED, f" over {len(head.over)} nodes" if head.over else ""
        reason = f"the bound{over} is wider than the value: zeros would lie in it too"
    elif case.recipe is not None:
        reason = "the book has no recipe for it"
        if other_bits is not None:
            reason = f"the book's recipe gives other bits in {other_bits} of {head.elements} elements"
    if verdict in (ROUNDING, DEFECT):
        reason = resting_on(reason, (case.node.op,))
    head = replace(head, verdict=verdict, reason=reason, differ=differ, outside=count, unpromised=open_)
    head = replace(head, share=_summary(share[promised]))
    if not differ:
        return head
    chosen = outside if count else other & promised if (other & promised).any() else other
    weight = np.where(other & promised, share, np.where(outside, np.inf, 0.0))
    shown = _shown(head, case, result, chosen, weight, bound)
    return replace(shown, wrong=outside if count else None)


def resting_on(reason: str | None, ops: Iterable[Op]) -> str | None:
    """The reason of a verdict by a bound, with what the bounds of these ops assume.

    >>> from refnet.ops import Relu, Softmax
    >>> resting_on(None, [Relu()])
    >>> resting_on("a defect", [Softmax(axis=1)])
    'a defect; the bound assumes an exp of relative error 2^-22 + 9 * 2^-27 (|x| + 1), absolute 2^-125'
    """
    found = dict.fromkeys(op.assumption for op in ops if op.assumption)
    new = [text for text in found if text not in (reason or "")]
    return "; ".join([*([reason] if reason else []), *new]) or None


def _recipes(
    replay: Replay, replayed: F32 | None, node: Node, operands: Sequence[AbstractValue]
) -> F32 | None:
    """What the book's recipe gives; None if it has none, or an input is not captured."""
    if replayed is not None or any(one.interval is not None for one in operands):
        return replayed
    return replay.evaluate_or_none(node, *(one.value for one in operands))


def _unreplayed(value: F32 | None, result: F32) -> int | None:
    """How many elements are not what the book's recipe gives; None if the book has none."""
    return None if value is None else int(differs(result, value.reshape(result.shape)).sum())


def _propagated(
    node: Node, result: F32, bound: Interval, operands: Sequence[AbstractValue]
) -> tuple[Mask, Mask]:
    """Where NaN and infinities among the inputs decide the result: (it is wrong, it is right).

    A sum with a NaN, or with infinities of both signs, is NaN in every order. A sum with one infinity is that
    infinity, or NaN if finite terms overflow to the other infinity first. If the op says that it
    `nan_propagates`, the bound's center, a float64, is NaN or infinite for these reasons only.
    """
    nothing = np.zeros(result.shape, np.bool_)
    hidden = any(one.interval is not None for one in operands)
    if hidden or not node.op.nan_propagates(*(one.value for one in operands[len(node.data) :])):
        return nothing, nothing
    nan, infinite = np.isnan(bound.center), np.isinf(bound.center)
    right = (nan & np.isnan(result)) | (infinite & (result == bound.center))
    left_open = infinite & np.isnan(result)
    return (nan | infinite) & ~right & ~left_open, right


def _summary(share: F64) -> Shares | None:
    """The figures of a value's shares; None if there are none."""
    if not share.size:
        return None
    counts = np.bincount(np.minimum(np.ceil(np.minimum(share, 2) * BINS) - 1, BINS).clip(0).astype(np.int64))
    histogram = np.zeros(BINS + 1, np.int64)
    histogram[: counts.size] = counts
    return Shares(float(share.max()), float(np.median(share)), tuple(map(int, histogram)))


def _shown(
    head: Judgement, case: _Case, result: F32, chosen: Mask, weight: F64, bound: Interval | None
) -> Judgement:
    """The judgement with its worst element, of those chosen; weight: per element, what makes it worse."""
    plain = case.plain
    among = np.flatnonzero(chosen)
    ties = among[weight.reshape(-1)[among] == weight.reshape(-1)[among].max()]
    apart = ulps(result.reshape(-1)[ties], plain.reshape(-1)[ties])
    worst = int(np.argmax(np.where(apart < 0, np.iinfo(np.int64).max, apart)))
    at = tuple(map(int, np.unravel_index(ties[worst], result.shape)))
    golden = None
    if not case.hidden:
        arrays = [one.value for one in case.operands]
        golden = plain[at] if case.node.op.exactly_specified else exactly_at(case.node, arrays, at)
    center = None if bound is None else (float(bound.center[at]), float(bound.radius[at]))
    share = None if bound is None or not np.isfinite(bound.radius[at]) else float(weight[at])
    other = differs(result, plain)
    most = int(ulps(result[other], plain[other]).max())
    element = Worst(at, result[at], plain[at], golden, center, int(apart[worst]), share)
    shown = replace(head, worst=element, ulps=most)
    if result.ndim != 4:
        return shown
    with np.errstate(all="ignore"):
        drawn = np.minimum(weight, 3e38).max((0, 1)).astype(np.float32)
        picture = result.mean((0, 1), dtype=np.float64).astype(np.float32)
    return replace(shown, map=drawn, picture=picture)
