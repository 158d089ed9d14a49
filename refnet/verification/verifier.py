"""A graph walked beside a capture: for each node its captured value is judged, or carried over if missing.

    Verifier.step ── captured ── read ── judge (judge.py), on the capture's own inputs
        └─────── missing ─── propagate (propagate.py): where it lies; its readers are judged over both
                             HiddenReplay (hidden.py): its bits, if a book has recipes

A value is read when its node's turn comes, and released after its last use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import F32
from refnet.formats.golden_file import digest
from refnet.verification import compute
from refnet.verification.capture import Capture, CapturedValues, float32
from refnet.verification.difference import differs, ulps
from refnet.verification.hidden import HiddenReplay
from refnet.verification.judge import MISSING, UNJUDGED, Inherited, Judgement, judge
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
        full = {name: TensorType(v.shape) for name, v in data.items() if v is not None}
        self.types = graph.types(full) if len(full) == len(data) else graph.types()
        self.last = {name: node.name for node in graph.nodes for name in node.data}
        self.last |= dict.fromkeys(graph.outputs.values(), "")  # kept to the end
        self.theirs: dict[str, AbstractValue | None] = {
            n: None if v is None else known(v) for n, v in data.items()
        }
        self.own: dict[str, F32 | None] = {name: None if only else value for name, value in data.items()}
        self.needed = needed_by(graph, capture, only)
        self.behind = None if replay is None else HiddenReplay(graph, replay, data)

    def step(self, node: Node) -> Judgement | None:
        """Judge one node; None if nobody asked for it."""
        judged = not self.wanted or node.name in self.wanted
        if node.name not in self.needed and self.wanted:
            return None
        operands = [self.theirs.get(name) for name in node.data]
        weights = [known(self.graph.weights[name]) for name in node.weights]
        hidden = next((name for name, one in zip(node.data, operands, strict=True) if one is None), None)
        inputs = None if hidden is not None else [one for one in operands if one is not None] + weights
        plain = None
        captured = present(self.capture, node.name)
        if inputs is not None and ((judged and captured) or node.name in self.needed):
            plain = compute.plain(node.op, [one.value for one in inputs], self.threads)
        replayed = self._replayed(node, inputs, captured)
        if captured:
            judgement = self._captured(node, inputs, hidden, plain, replayed, judged)
        else:
            passed = inputs is not None and node.name in self.needed
            self.theirs[node.name] = propagate(node, inputs or [], self.threads, plain) if passed else None
            judgement = self._unjudged(node, MISSING, self._why_missing(node))
        judgement = self._beside(node, judgement, plain, operands)
        if self.behind is not None:
            theirs = self.theirs.get(node.name)
            shown = None if theirs is None else theirs.value
            self.behind.known(node.name, shown if captured else replayed)
        for name in {*node.data, node.name}:
            if self.last.get(name, node.name) == node.name:
                self.theirs.pop(name, None)
                self.own.pop(name, None)
        return judgement if judged else None

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
        hidden: str | None,
        plain: F32 | None,
        replayed: F32 | None,
        judged: bool,
    ) -> Judgement:
        try:
            value = self._read(node, inputs, plain, replayed)
        except InputError as error:
            if self.capture.manifest is not None:
                raise
            self.theirs[node.name] = None
            return self._unjudged(node, UNJUDGED, str(error))
        if value is None:
            self.theirs[node.name] = None
            reason = "the capture has only its hash"
            reason += "" if plain is None else ", which is none of refnet's on the same inputs"
            return self._unjudged(node, UNJUDGED, reason)
        shape = self._shape(node, value, plain)
        usable = value.dtype == np.float32 and value.size == TensorType(shape).size
        self.theirs[node.name] = known(value.reshape(shape)) if usable else None
        if inputs is None or plain is None or not judged:
            return self._unjudged(node, UNJUDGED, f"its input {hidden} is not known")
        made = {"plain": plain, "replayed": replayed}
        judgement = judge(node, value, inputs, self.replay, **made, threads=self.threads)
        return replace(judgement, wrong=None)  # as large as the value

    def _shape(self, node: Node, value: F32, plain: F32 | None) -> tuple[int, ...]:
        """The shape of the node's value, at the capture's batch size."""
        if plain is not None:
            return plain.shape
        shape = self.types[node.name].shape
        return (*value.shape[:1], *shape[1:])

    def _read(
        self, node: Node, inputs: list[AbstractValue] | None, plain: F32 | None, replayed: F32 | None
    ) -> F32 | None:
        size = TensorType(self.types[node.name].shape).size
        return captured(self.capture, node, size, inputs, plain, self.replay, self.threads, replayed)

    def _unjudged(self, node: Node, verdict: str, reason: str) -> Judgement:
        """A judgement without a comparison."""
        kind, shape = type(node.op).__name__, self.types[node.name].shape
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
            theirs is not None and (mine is theirs.value or not differs(mine, theirs.value).any())
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
        if theirs is None or own is None or not present(self.capture, value):
            return None
        return apart(theirs.value, own)


SURPLUS = 1 << 26
"""How many surplus elements a captured value may have before it is refused unread."""


def captured(
    capture: CapturedValues,
    node: Node,
    size: int,
    inputs: Sequence[AbstractValue] | None,
    plain: F32 | None,
    replay: Replay | None,
    threads: int,
    replayed: F32 | None = None,
) -> F32 | None:
    """A node's captured value. If the capture has only its hash: refnet's value with that hash, or None.

    size: how many elements one image of it has. replayed: the node's value by the book, from captured
    values. Raises InputError for a value that is far larger, and as Capture.value.
    """
    manifest = capture.manifest
    stored = None if manifest is None else manifest.values.get(node.name)
    if stored is None or stored.file is not None:
        if isinstance(capture, Capture) and (found := capture.size(node.name)) > 256 * size + SURPLUS:
            raise InputError(f"{node.name}: the captured value has {found} elements, the node's {size}")
        return capture.value(node.name)
    if plain is None or inputs is None:
        return None
    arrays = [one.value for one in inputs]
    makes: tuple[Callable[[], F32 | None], ...] = (
        lambda: plain,
        lambda: replayed,
        lambda: None if replay is None else replay.evaluate_or_none(node, *arrays),
        lambda: compute.golden(node.op, arrays, threads),
    )
    for make in makes:
        value = make()
        if value is not None and digest(value) == stored.digest:
            return value
    return None


def gather(
    graph: Graph,
    capture: CapturedValues,
    node: Node,
    inputs: Mapping[str, F32] | None = None,
    threads: int = 1,
) -> list[AbstractValue]:
    """What the capture tells of a node's inputs, weights last. Raises InputError if it tells too little."""
    data = inputs_of(graph, capture, inputs or {})
    table: dict[str, AbstractValue] = {
        name: known(value) for name, value in data.items() if value is not None
    }
    full = {name: TensorType(v.shape) for name, v in data.items() if v is not None}
    types = graph.types(full) if len(full) == len(data) else graph.types()
    needed = needed_by(graph, capture, {node.name})
    for one in graph.nodes:
        if one.name == node.name:
            break
        if one.name not in needed:
            continue
        operands = None
        if all(name in table for name in one.data):
            weights = [known(graph.weights[name]) for name in one.weights]
            operands = [*(table[name] for name in one.data), *weights]
        if present(capture, one.name):
            shape = types[one.name].shape
            plain = None
            if operands is not None and not capture.has(one.name):  # only its hash
                plain = compute.plain(one.op, [operand.value for operand in operands], threads)
            value = captured(capture, one, TensorType(shape).size, operands, plain, None, threads)
            if value is not None and value.size % TensorType(shape[1:]).size == 0:
                table[one.name] = known(float32(one.name, value).reshape(-1, *shape[1:]))
        elif operands is not None:
            table[one.name] = propagate(one, operands, threads)
    if absent := [name for name in node.data if name not in table]:
        raise InputError(f"the capture does not tell what {node.name} reads: {', '.join(absent)}")
    return [*(table[name] for name in node.data), *(known(graph.weights[name]) for name in node.weights)]


def inputs_of(graph: Graph, capture: CapturedValues, given: Mapping[str, F32]) -> dict[str, F32 | None]:
    """The graph's inputs: the capture's, else those given; None where there is neither."""
    found: dict[str, F32 | None] = {}
    for name in given:
        if name not in graph.inputs:
            raise InputError(f"{graph.name} has no input {name!r}; its inputs are {', '.join(graph.inputs)}")
    said = {} if capture.manifest is None else capture.manifest.inputs
    for name in graph.inputs:
        stored = said.get(name)
        try:
            own = capture.value(name) if capture.has(name) else capture.input(name)
        except InputError:
            if stored is not None and stored.file is not None:
                raise
            own = None
        expected = stored.digest if stored is not None else None if own is None else digest(own)
        if name in given and expected not in (None, digest(given[name])):
            raise InputError(f"the capture was made of another input {name!r} than the one given")
        found[name] = given.get(name) if own is None else own
    if all(value is not None for value in found.values()):
        graph.check_inputs({name: value for name, value in found.items() if value is not None})
    return found


def present(capture: CapturedValues, name: str) -> bool:
    """Whether a capture has a value, or at least its hash."""
    return capture.has(name) or (capture.manifest is not None and name in capture.manifest.values)


def needed_by(graph: Graph, capture: CapturedValues, only: Collection[str]) -> frozenset[str]:
    """The nodes whose values a judgement uses: those to be judged, and those they are computed from."""
    wanted = set(only) or {node.name for node in graph.nodes if present(capture, node.name)}
    needed = set(wanted)
    for node in reversed(graph.nodes):
        if node.name in wanted or (node.name in needed and not capture.has(node.name)):
            needed.update(node.data)
    return frozenset(needed)


def apart(a: F32, b: F32) -> tuple[int, int, float]:
    """How many elements differ, by how many ulps at most, and the largest finite distance."""
    if a is b or not (other := differs(a, b)).any():
        return 0, 0, 0.0
    with np.errstate(all="ignore"):
        distance = np.abs(a[other].astype(np.float64) - b[other])
    finite = distance[np.isfinite(distance)]
    return int(other.sum()), int(ulps(a[other], b[other]).max()), float(finite.max(initial=0.0))
