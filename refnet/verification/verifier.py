"""A graph walked beside a capture: for each node its captured value is judged, or carried over if missing.

    Verifier.step ── captured ── read ── judge (judge.py), on the capture's own inputs
        ├─────── missing, or a defect ── LaterNames (later.py): an array under an earlier node's name
        └─────── missing ─── propagate (propagate.py): where it lies; its readers are judged over both
                             HiddenReplay (hidden.py): its bits, if a book has recipes

A value is read when its node's turn comes, and released after its last use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from refnet.arithmetic.types import types_of
from refnet.core.errors import InputError, UnsupportedError
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import F32, Interval
from refnet.verification import compute
from refnet.verification.axes import regrouped
from refnet.verification.capture import CapturedValues, float32
from refnet.verification.difference import differs, ulps
from refnet.verification.hidden import HiddenReplay
from refnet.verification.judge import arranged, judge
from refnet.verification.judgement import DEFECT, MISSING, UNJUDGED, Inherited, Judgement
from refnet.verification.later import LaterNames, Taken
from refnet.verification.operands import captured, inputs_of, needed_by, present
from refnet.verification.propagate import AbstractValue, known, propagate

if TYPE_CHECKING:
    from refnet.arithmetic.replay import Replay


class Verifier:
    """Walks the nodes in order and keeps what is known of each value, the capture's and refnet's own."""

    def __init__(
        self,
        graph: Graph,
        capture: CapturedValues,
        data: Mapping[str, F32 | None],
        replay: Replay | None,
        only: frozenset[str],
        threads: int,
    ) -> None:
        self.graph, self.capture, self.replay, self.threads = graph, capture, replay, threads
        self.wanted = only
        full = types_of({name: v for name, v in data.items() if v is not None})
        self.types = graph.types(full) if len(full) == len(data) else graph.types()
        self.last = {name: node.name for node in graph.nodes for name in node.data}
        self.last |= dict.fromkeys(graph.outputs.values(), "")  # kept to the end
        self.theirs: dict[str, AbstractValue | None] = {
            n: None if v is None else known(v) for n, v in data.items()
        }
        self.own: dict[str, F32 | None] = {name: None if only else value for name, value in data.items()}
        self.needed = needed_by(graph, capture, only, self.types)
        self.later = LaterNames(graph, replay, threads)
        self.judged_on: dict[str, list[AbstractValue | None]] = {}  # of the nodes in `only`
        self.unknown: dict[str, str] = {}  # value that is not captured -> the weight in it without a bound
        self.behind = None if replay is None else HiddenReplay(graph, replay, data)

    def step(self, node: Node) -> Judgement | None:
        """Judge one node; None if nobody asked for it. A later step may revise it (`later.revised`)."""
        judged = not self.wanted or node.name in self.wanted
        if node.name not in self.needed and self.wanted:
            return None
        if node.op.opaque:
            judgement = self._passed_on(node)
            self._kept(node, True, None)
            return judgement if judged else None
        operands = self.operands(node)
        weights = [known(self.graph.weights[name]) for name in node.weights]
        hidden = next((name for name, one in zip(node.data, operands, strict=True) if one is None), None)
        lacks = "" if hidden is None else f"its input {hidden} is not known"
        inputs = None if lacks else [one for one in operands if one is not None] + weights
        there = present(self.capture, node.name)
        wide = None if inputs is None else inputs[: len(operands)] + [self._weight(n) for n in node.weights]
        plain = None
        if inputs is not None and ((judged and there) or node.name in self.needed):
            try:
                plain = compute.plain(node.op, [one.value for one in inputs], self.threads)
            except InputError as error:  # a captured index is outside: nobody knows what was made of it
                lacks, inputs, wide, operands = str(error), None, None, [None] * len(operands)
        replayed = self._replayed(node, inputs, there)
        value = None
        if there:
            judgement, value = self._captured(node, inputs, lacks, plain, replayed)
        else:
            judgement = self._unjudged(node, MISSING, self._why_missing(node))
        if self.types[node.name].dtype != "float32":  # integers stand under no other name
            if not there and wide is not None and node.name in self.needed:
                self.theirs[node.name] = propagate(node, wide, self.threads, plain)
            elif not there:
                self.theirs[node.name] = None
            taken = None
        elif (taken := self._later(node, value, operands, weights, judgement)) is not None:
            judgement, plain, operands = taken.judgement, taken.plain, list(taken.inputs[: len(node.data)])
            self.theirs[node.name] = known(taken.array)
            there = True
        elif not there:
            passed = node.name in self.needed
            self.theirs[node.name] = (
                propagate(node, wide, self.threads, plain) if wide is not None and passed else None
            )
            self.later.carry(node, operands, weights)
        elif value is not None:
            judgement = self.later.checked(node, value, operands, weights, judgement)
        judgement = self._unless_rounded(node, value, wide, judgement)
        judgement = self._beside(node, judgement, plain, operands)
        float32_ = self.types[node.name].dtype == "float32"
        if value is not None and inputs is not None and taken is None and float32_:
            self.later.suspect(node, value, inputs, judgement)
        if node.name in self.wanted:
            self.judged_on[node.name] = [*operands, *weights]
        self._kept(node, there, replayed)
        return judgement if judged else None

    def _weight(self, name: str) -> AbstractValue:
        """What is known of a framework's weight: its bits, or how far it may be from refnet's."""
        value, off = self.graph.weights[name], self.graph.rounded.get(name)
        if off is None:
            return known(value)
        return AbstractValue(value, Interval(value.astype(np.float64), off.astype(np.float64)))

    def _unless_rounded(
        self, node: Node, value: F32 | None, wide: list[AbstractValue] | None, judgement: Judgement
    ) -> Judgement:
        """The judgement, but a defect only where it is one for any bits that others' weights may have.

        wide: the node's inputs, weights with how far others' may lie from refnet's, where that is known.
        """
        mine = next((name for name in node.weights if self.graph.rounded.get(name, 0) is None), None)
        inside = mine or next((self.unknown[name] for name in node.data if name in self.unknown), None)
        if inside is not None and judgement.verdict == MISSING:
            self.unknown[node.name] = inside
        if judgement.verdict != DEFECT:
            return judgement
        inside = inside or next((name for name in node.weights if name in self.graph.rounded), None)
        if inside is None:
            return judgement
        said = f"its weight {inside[:100]!r} was computed of constants, with roundings; the framework's may "
        if self.graph.rounded.get(inside) is None or value is None or wide is None or judgement.found_as:
            return self._unjudged(node, UNJUDGED, f"{said}have other bits, and no bound covers that")
        again = judge(node, value, wide, threads=self.threads)
        reason = "; ".join(filter(None, [f"{said}have other bits, within a bound", again.reason]))
        return replace(again, wrong=None, reason=reason)

    def _passed_on(self, node: Node) -> Judgement:
        """An opaque node: its captured value is what later nodes read; nothing is said of it."""
        self.theirs[node.name] = self.own[node.name] = None
        if not present(self.capture, node.name):
            return self._unjudged(node, MISSING, f"the capture lacks it, and {node.op.opaque}")
        try:
            value = self._read(node, None, None, None)
        except InputError as error:
            if self.capture.manifest is not None:
                raise
            return self._unjudged(node, UNJUDGED, f"{node.op.opaque}; {error}")
        kind = self.types[node.name]
        reason = f"{node.op.opaque}; its captured value is passed on"
        if value is None:
            reason = f"{node.op.opaque}; the capture has only its hash"
        elif regrouped(value.shape, kind.shape):
            self.theirs[node.name] = known(value.reshape(kind.shape))
        else:
            reason = f"{node.op.opaque}; its shape is {list(value.shape)}, not {list(kind.shape)}"
        return self._unjudged(node, UNJUDGED, reason)

    def operands(self, node: Node) -> list[AbstractValue | None]:
        """What is known of a node's data when its turn comes; None of that of which nothing is."""
        return [self.theirs.get(name) for name in node.data]

    def _kept(self, node: Node, there: bool, replayed: F32 | None) -> None:
        """Note the value's bits for a book, and release what no later node reads."""
        if self.behind is not None:
            theirs = self.theirs.get(node.name)
            shown = None if theirs is None else theirs.value
            self.behind.known(node.name, shown if there else replayed)
        for name in {*node.data, node.name}:
            if self.last.get(name, node.name) == node.name:
                self.theirs.pop(name, None)
                self.own.pop(name, None)
                self.later.forget(name)

    def _later(
        self,
        node: Node,
        value: F32 | None,
        operands: Sequence[AbstractValue | None],
        weights: Sequence[AbstractValue],
        judgement: Judgement,
    ) -> Taken | None:
        """The node's value, if it stands under an earlier node's name."""
        replayed = None
        if self.behind is not None and not any(name in self.behind.graph.by_name for name in node.data):
            replayed = self.behind.value(node.name)  # by a book that joins the nodes
        return self.later.take(node, value, operands, weights, judgement, replayed)

    def _replayed(self, node: Node, inputs: list[AbstractValue] | None, captured: bool) -> F32 | None:
        """The node's value by the book, from captured values; None where the judge asks the book itself."""
        if self.behind is None or node.name not in self.needed:
            return None
        alone = inputs is not None and all(one.interval is None and not one.over for one in inputs)
        return None if alone and captured else self.behind.value(node.name)

    def _captured(
        self,
        node: Node,
        inputs: list[AbstractValue] | None,
        lacks: str,
        plain: F32 | None,
        replayed: F32 | None,
    ) -> tuple[Judgement, F32 | None]:
        """The judgement on a captured value, and its array as it was captured, None if there is none.

        lacks: why it cannot be computed from what the capture has.
        """
        self.theirs[node.name] = None
        try:
            value = self._read(node, inputs, plain, replayed)
        except InputError as error:
            if self.capture.manifest is not None:
                raise
            return self._unjudged(node, UNJUDGED, str(error)), None
        if value is None:
            reason = "the capture has only its hash"
            reason += "" if plain is None else ", which is none of refnet's on the same inputs"
            return self._unjudged(node, UNJUDGED, reason), None
        if inputs is None or plain is None:
            shape = (*value.shape[:1], *self.types[node.name].shape[1:])
            reason = lacks
            if value.dtype == self.types[node.name].dtype and regrouped(value.shape, shape):
                self.theirs[node.name] = known(value.reshape(shape))
            elif value.shape != shape:
                reason += f", and its shape is {list(value.shape)}, not {list(shape)}"
            return self._unjudged(node, UNJUDGED, reason), value
        made = {"plain": plain, "replayed": replayed}
        judgement = judge(node, value, inputs, self.replay, **made, threads=self.threads)
        array = arranged(value, judgement)
        self.theirs[node.name] = None if array is None else known(array)
        return replace(judgement, wrong=None), value  # `wrong` is as large as the value

    def _read(
        self, node: Node, inputs: list[AbstractValue] | None, plain: F32 | None, replayed: F32 | None
    ) -> F32 | None:
        size = TensorType(self.types[node.name].shape).size
        kind = self.types[node.name].dtype
        return captured(self.capture, node, size, inputs, plain, self.replay, self.threads, replayed, kind)

    def _unjudged(self, node: Node, verdict: str, reason: str) -> Judgement:
        """A judgement without a comparison."""
        kind = node.op.label() if node.op.opaque else type(node.op).__name__
        shape = self.types[node.name].shape
        return Judgement(node.name, repr(node.op), kind, node.inputs, shape, verdict, reason)

    def _why_missing(self, node: Node) -> str:
        if node.name in self.needed:
            return "the capture lacks it: the next captured values are judged over it"
        return "the capture lacks it, and no captured value was made of it"

    def _beside(
        self, node: Node, judgement: Judgement, plain: F32 | None, operands: list[AbstractValue | None]
    ) -> Judgement:
        """Advance refnet's own run by one node; the judgement with the difference that it inherited."""
        own = [self.own.get(name) for name in node.data]
        arrays = [one for one in own if one is not None]
        if len(arrays) < len(own):
            self.own[node.name] = None
            return judgement
        same = all(
            theirs is not None and (mine is theirs.value or not any(apart(mine, theirs.value)))
            for mine, theirs in zip(arrays, operands, strict=True)
        )
        if same and plain is not None:
            value = plain
        else:
            weights = [self.graph.weights[name] for name in node.weights]
            value = compute.plain(node.op, [*arrays, *weights], self.threads)
        self.own[node.name] = value
        if judgement.verdict == MISSING or plain is None:
            return judgement
        return replace(judgement, inherited=Inherited(*apart(plain, value)))

    def output(self, value: str) -> tuple[int, int, float] | None:
        """How far refnet's whole run and the capture are apart at a value; None where one lacks it."""
        theirs, own = self.theirs.get(value), self.own.get(value)
        if theirs is None or own is None:
            return None
        if not present(self.capture, value) and value not in self.later.sources:
            return None
        return apart(theirs.value, own)


@dataclass(frozen=True)
class Gathered:
    """What a capture tells of a node. inputs: data, then weights. found: its value, in its shape; None if the
    capture has none. note: what must be said of the array under its name, or that its value is under another.
    """

    inputs: list[AbstractValue]
    found: F32 | None
    note: str | None


def gather(
    graph: Graph,
    capture: CapturedValues,
    node: Node,
    inputs: Mapping[str, F32] | None = None,
    threads: int = 1,
    stated: Mapping[str, F32] | None = None,
) -> Gathered:
    """What the capture tells of a node, read as a verification reads it.

    inputs, stated: as for `verify_values`. Raises InputError if the capture does not tell what goes in, and
    UnsupportedError for an opaque node.
    """
    walk, said = _walked(graph, capture, node, inputs_of(graph, capture, inputs or {}, stated), threads)
    operands = walk.judged_on[node.name]
    if absent := [name for name, one in zip(node.inputs, operands, strict=True) if one is None]:
        for name in absent:
            if capture.has(name):
                float32(name, capture.value(name))
        raise InputError(f"the capture does not tell what {node.name} reads: {', '.join(absent)}")
    note = said.reason if said.reading is not None or said.found_as is not None else None
    source, found = walk.later.sources.get(node.name, node.name), None
    if node.name in walk.later.revised and said.verdict == MISSING:
        note = said.reason
    elif capture.has(source):
        value = float32(source, capture.value(source))
        found = arranged(value, said)
        if found is None:
            raise InputError(f"{node.name}: {said.reason}")
    return Gathered([one for one in operands if one is not None], found, note)


def data_of(graph: Graph, capture: CapturedValues, node: Node, inputs: Mapping[str, F32]) -> dict[str, F32]:
    """The values that a node reads, those whose bits the capture tells, as a verification reads them.

    inputs: the network's. Raises InputError for inputs that are not the capture's.
    """
    walk, _ = _walked(graph, capture, node, inputs_of(graph, capture, inputs), 1)
    told = zip(node.inputs, walk.judged_on[node.name], strict=True)
    known = {name: one.value for name, one in told if one is not None and one.interval is None}
    return {name: known[name] for name in node.data if name in known}


def _walked(
    graph: Graph, capture: CapturedValues, node: Node, data: Mapping[str, F32 | None], threads: int
) -> tuple[Verifier, Judgement]:
    """A walk for one node, and the judgement on it."""
    if node.op.opaque:
        raise UnsupportedError(f"{node.name}: refnet cannot compute {node.op.opaque}")
    walk = Verifier(graph, capture, data, None, frozenset([node.name]), threads)
    said = None
    for one in graph.nodes:
        judgement = walk.step(one)
        said = said if judgement is None else judgement
    assert said is not None
    return walk, walk.later.revised.get(node.name, said)


def apart(a: F32, b: F32) -> tuple[int, int, float]:
    """How many elements differ, by how many ulps at most, and the largest finite distance."""
    if a is b or not (other := differs(a, b) if a.dtype == np.float32 else np.asarray(a != b)).any():
        return 0, 0, 0.0
    if a.dtype != np.float32:
        return int(other.sum()), 0, float(np.abs(a[other].astype(np.float64) - b[other]).max())
    with np.errstate(all="ignore"):
        distance = np.abs(a[other].astype(np.float64) - b[other])
    finite = distance[np.isfinite(distance)]
    return int(other.sum()), int(ulps(a[other], b[other]).max()), float(finite.max(initial=0.0))
