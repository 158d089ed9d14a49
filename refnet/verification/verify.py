"""A capture against the graph it was made of: what can be proved of every value, in order.

verify_values ── Verifier (verifier.py) ── judge (judge.py): one Judgement per node
      └───────── Verification: the judgements, the first difference, the first defect, the outputs

The public function is `refnet.verify` (public.py), which finds graph, inputs and book by their names.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from refnet.arithmetic.engines import thread_count
from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.core.interpreter import cost_of
from refnet.core.notebook import shown
from refnet.core.op import F32
from refnet.core.words import did_you_mean
from refnet.verification.capture import CapturedValues, Values
from refnet.verification.judge import judge_input, resting_on
from refnet.verification.judgement import (
    CLEAN,
    DEFECT,
    EQUAL,
    REPLAYED,
    ROUNDING,
    UNJUDGED,
    VERDICTS,
    Judgement,
)
from refnet.verification.names import Strays, Unmatched, covered
from refnet.verification.operands import inputs_of
from refnet.verification.progress import Advance
from refnet.verification.record import line, record, suggestion
from refnet.verification.verifier import Verifier

if TYPE_CHECKING:
    from refnet.arithmetic.replay import Replay

__all__ = ["Output", "Values", "Verification", "verify_values"]


@dataclass(frozen=True)
class Output:
    """How refnet's own whole run and the capture differ at an output; None where the capture lacks it.

    differ: elements. ulps: the most float32 between; -1 if only NaN differ. largest: absolute difference.

    >>> Output("prob", "softmax", 0, 0, 0.0).value
    'softmax'
    """

    name: str
    value: str
    differ: int | None
    ulps: int | None
    largest: float | None


@dataclass(frozen=True)
class Verification:
    """The result: one Judgement per node in execution order, and the whole run's outputs.

    reference: what the capture says of the framework. surplus: captured values that belong to no node: the
    unmatched, each with its likely match; those beyond the graph, which refnet's own capture marks; and those
    that are allowed. notes: what else a reader must know. seconds: the time it took. counts: verdict -> how
    many nodes. allow: names and patterns of values that may be unmatched or unjudged.

    >>> import refnet
    >>> from refnet.models.weights import shipped_captures
    >>> found = refnet.verify(shipped_captures()[0][0])
    >>> found.counts["defect"], found.first_defect, found.exit_code
    (0, None, 0)
    """

    graph: str
    graph_hash: str
    reference: Mapping[str, Any] | None
    book: Mapping[str, Any] | None
    nodes: tuple[Judgement, ...]
    outputs: tuple[Output, ...]
    surplus: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    counts: Mapping[str, int] = field(init=False)
    unmatched: tuple[Unmatched, ...] = ()
    beyond: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        found = [one.verdict for one in self.nodes]
        object.__setattr__(self, "counts", {verdict: found.count(verdict) for verdict in VERDICTS})

    _repr_html_ = shown

    @property
    def first_defect(self) -> str | None:
        """The first node whose value is proved to be wrong."""
        return next((one.name for one in self.nodes if one.verdict == DEFECT), None)

    @property
    def first_difference(self) -> str | None:
        """The first node that introduces a difference: other bits than plain's on the capture's inputs."""
        said = (ROUNDING, DEFECT)
        found = (one for one in self.nodes if one.verdict in said or one.differ)
        return next((one.name for one in found), None)

    @property
    def judged(self) -> int:
        """How many values were judged."""
        return sum(self.counts[verdict] for verdict in (EQUAL, REPLAYED, ROUNDING, DEFECT))

    @property
    def exit_code(self) -> int:
        """0 no defect; 1 a defect; 2 no defect, but something is unmatched or unjudged and not allowed."""
        if self.counts[DEFECT]:
            return 1
        unjudged = (one.name for one in self.nodes if one.verdict == UNJUDGED)
        open_ = self.unmatched or any(not covered(name, self.allow) for name in unjudged)
        return 2 if open_ or not self.judged else 0

    @property
    def allowed(self) -> tuple[str, ...]:
        """Captured values that belong to no node, and are allowed to."""
        others = {*self.beyond, *(one.name for one in self.unmatched)}
        return tuple(name for name in self.surplus if name not in others)

    @property
    def line(self) -> str:
        """The summary in one line."""
        return line(self)

    @property
    def suggestion(self) -> str | None:
        """What to run next, if the differences leave something open."""
        return suggestion(self)

    def record(self) -> dict[str, Any]:
        """The JSON record that docs/verify.md describes."""
        return record(self)


def verify_values(
    graph: Graph,
    capture: CapturedValues,
    *,
    whole: Graph | None = None,
    inputs: Mapping[str, F32] | None = None,
    stated: Mapping[str, F32] | None = None,
    replay: Replay | None = None,
    book: Mapping[str, Any] | None = None,
    only: Collection[str] = (),
    threads: int | None = None,
    other_sources: bool = False,
    allow: Collection[str] = (),
    advance: Advance | None = None,
) -> Verification:
    """Judge every value of a capture.

    graph: with its weights. whole: the graph that the capture was made of, where only a part of it is
    judged (`with_only`). inputs: the network's inputs, if the capture has none. stated: what the source
    that the capture names makes: an input of the capture that has other bits is the first defect, of an op
    Input. replay, book: a book's recipes, and what the report says of it. only: judge these nodes only,
    without a whole run or a look at values that match nothing. threads: None takes all processors.
    other_sources: go on although the capture's manifest names another graph or other weights. allow: names
    and patterns of values that may match nothing, or be unjudged. advance: called with 1 after each node.

    Raises InputError if there is nothing to judge with: other weights, no such node, inputs that do not
    fit; FormatError for a file that is not what the manifest says.

    >>> import numpy as np
    >>> import refnet
    >>> graph = refnet.load("resnest-digits")
    >>> x = np.zeros((1, 1, 32, 32), np.float32)
    >>> values = {node.name: value for node, value in refnet.steps(graph, {"data": x})}
    >>> verify_values(graph, Values(values, {"data": x})).exit_code
    0
    """
    from refnet.kernels.resources import at_most

    begin = time.perf_counter()
    if unknown := [name for name in only if name not in graph.by_name]:
        raise InputError(f"{graph.name} has no value {unknown[0]!r}{did_you_mean(unknown[0], graph.by_name)}")
    whole = graph if whole is None else whole
    notes = _foundations(whole, capture, other_sources)
    data = inputs_of(graph, capture, inputs or {}, stated, notes)
    walk = Verifier(graph, capture, data, replay, frozenset(only), thread_count(threads))
    cost_of(graph, walk.types, only).check()
    judgements = []
    for name, expected in (stated or {}).items():
        own = data.get(name)
        judgement = None if own is None else judge_input(name, own, expected)
        if judgement is not None and judgement.verdict == DEFECT:
            judgements.append(judgement)
        elif judgement is not None:
            notes.append(f"the input {name} is what its source makes, to the last bit")
    strays = Strays(graph, capture, ["*"] if only else allow, walk.types, data, whole)
    with at_most(threads):
        for node in graph.nodes:
            judgement = walk.step(node)
            if judgement is not None:
                judgements.append(_assuming(judgement, graph))
            strays.seen(node.name, walk.own.get(node.name))
            if advance is not None:
                advance(1)
    judgements = [walk.later.revised.get(one.name, one) for one in judgements]
    notes += _read_otherwise(judgements, walk.later.sources)
    if absent := [name for name, value in data.items() if value is None]:
        notes.append(f"the capture has no input {', '.join(absent)}: its readers cannot be judged")
    inner = {*whole.by_name, *whole.inputs}
    manifest = capture.manifest
    if manifest is not None:
        notes += narrower(manifest.reference.flags)
    if book is not None and manifest is not None:
        notes += other_reference(book, vars(manifest.reference))
    return Verification(
        graph.name,
        graph.structure_hash(),
        None if manifest is None else {**vars(manifest.reference), "flags": dict(manifest.reference.flags)},
        book,
        tuple(judgements),
        () if only else tuple(_output(walk, name, value) for name, value in graph.outputs.items()),
        () if only else tuple(name for name in capture.names if name not in inner),
        tuple(notes),
        time.perf_counter() - begin,
        unmatched=strays.unmatched(),
        beyond=()
        if only or manifest is None
        else tuple(name for name in manifest.beyond if name not in inner),
        allow=tuple(allow),
    )


def _read_otherwise(judgements: Sequence[Judgement], sources: Mapping[str, str]) -> list[str]:
    """Notes on arrays that are not what their names or shapes say, and were judged as what they are."""
    notes = []
    folded = [f"{source} holds {name}" for name, source in sources.items()]
    if folded:
        notes.append(f"names that hold a later node's value, folded or fused into one: {_some(folded)}")
    orders: dict[str, list[str]] = {}
    for one in judgements:
        if one.reading is not None and one.verdict in CLEAN and one.reading.moves:
            orders.setdefault(one.reading.order, []).append(one.name)
    for order, names in orders.items():
        notes.append(f"arrays of another shape, {order}, the order in which each is clean: {_some(names)}")
    return notes


def _some(names: Sequence[str], most: int = 8) -> str:
    """The first ones, and how many there are."""
    count = f"{len(names)} values, " if len(names) > most else ""
    return count + ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _assuming(judgement: Judgement, graph: Graph) -> Judgement:
    """The judgement; where its bound is one over hidden nodes, with what their bounds assume."""
    if not judgement.over or judgement.verdict not in (ROUNDING, DEFECT) or judgement.share is None:
        return judgement
    ops = [graph.by_name[name].op for name in judgement.over]
    return replace(judgement, reason=resting_on(judgement.reason, ops))


def narrower(flags: Mapping[str, str]) -> list[str]:
    """What the flags of a capture say of numbers of fewer bits than float32, for which no bound holds.

    >>> narrower({"INFERENCE_PRECISION_HINT": "f32"}), len(narrower({"INFERENCE_PRECISION_HINT": "bf16"}))
    ([], 1)
    """
    precision = flags.get("INFERENCE_PRECISION_HINT", "f32")
    if precision == "f32":
        return []
    return [f"computed with INFERENCE_PRECISION_HINT={precision}: bounds are of float32, so rounding to "
            f"{precision} is outside of them too"]  # fmt: skip


def other_reference(book: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """What a book is true of, where the capture says otherwise of itself: its recipes may not hold.

    >>> other_reference({"framework": "torch", "threads": 1}, {"framework": "torch", "threads": 2})
    ['the book is of threads 1, the capture of threads 2: its recipes may be others']
    """
    keys = ("framework", "version", "isa", "threads", "batch", "mode", "libc", "vendor")
    return [
        f"the book is of {key} {book[key]}, the capture of {key} {reference[key]}: its recipes may be others"
        for key in keys
        if book.get(key) and reference.get(key) and book[key] != reference[key]
    ]


def _output(walk: Verifier, name: str, value: str) -> Output:
    found = walk.output(value)
    return Output(name, value, None, None, None) if found is None else Output(name, value, *found)


def _foundations(graph: Graph, capture: CapturedValues, other_sources: bool) -> list[str]:
    """Notes where the capture was made of another graph or other weights: errors, unless accepted."""
    notes: list[str] = []
    manifest = capture.manifest
    if manifest is None:
        return notes
    for other, said, own in (
        ("another graph", manifest.graph, graph.structure_hash),
        ("other weights", manifest.weights, graph.weights_hash),
    ):
        if said is None:
            continue
        here = own()
        if said != here:
            text = f"the capture was made of {other} ({said[:12]}...) than {graph.name} ({here[:12]}...)"
            if not other_sources:
                raise InputError(f"{text}: nothing can be said of its values")
            notes.append(text)
    return notes
