"""Values that stand under the name of an earlier node: folded or fused into it, and named after the first.

    a captured value is a defect ── suspect ──┐
    the node that alone reads it ── take ─────┴── clean as its value: the earlier node counts as hidden
    a node behind it is a defect ── revoke ────── clean if the earlier name was right: nothing was folded

Exporters fold a batch norm into the convolution before it and keep the convolution's name; executors write a
relu's result in place. The array is then no value of the node that names it, and may be that of the next.

What is proved stays true: the later node's value is judged over the hidden ones, by the bound that holds for
all of them (propagate.py). A wrong value of the earlier node passes only where no array tells it from a right
value of the later one. So an array is never taken as the later node's

- if anything else reads the earlier node, or it is an output: then it exists by itself;
- if the later node has an array of its own with other bits;
- if it has one with the same bits which is right for it *as computed from the earlier array* (a relu of a
  relu): then both arrays together say that the earlier node is wrong;
- if the nodes behind it are right only for the array under its own name (a batch norm applied twice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from refnet.core.bits import equal_bits
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Op, Reduction
from refnet.verification import compute
from refnet.verification.judge import arranged, judge
from refnet.verification.judgement import CLEAN, DEFECT, MISSING, UNJUDGED, Judgement
from refnet.verification.propagate import AbstractValue, propagate

if TYPE_CHECKING:
    from refnet.arithmetic.replay import Replay

LONGEST = 4
"""Nodes that one name may stand before: convolution, batch norm, addition, relu are one chain of three."""

Operands = Sequence[AbstractValue | None]


@dataclass(frozen=True)
class _Hidden:
    """What is known of a node's value if it is hidden, computed when it is asked for.

    inputs: data, then weights; of hidden ones, what would be known of them.
    """

    node: Node
    inputs: tuple[AbstractValue | _Hidden, ...]
    threads: int

    def __call__(self) -> AbstractValue:
        given = [one() if isinstance(one, _Hidden) else one for one in self.inputs]
        return propagate(self.node, given, self.threads)


@dataclass(frozen=True)
class Suspect:
    """A captured array that is not what its name says.

    judgements: on the nodes whose values would be hidden; the first one's name is the array's. hidden: what
    would be known of the last one's value. refuted: the last one has the same array under its own name, and
    it is not what its op makes of the array before it.
    """

    array: F32
    judgements: tuple[Judgement, ...]
    hidden: _Hidden
    refuted: bool = False

    @property
    def name(self) -> str:
        """The name under which the array stands."""
        return self.judgements[0].name


@dataclass(frozen=True)
class Taken:
    """A node's value that stood under an earlier name. array: in the node's shape. inputs, plain: of it."""

    judgement: Judgement
    array: F32
    inputs: tuple[AbstractValue, ...]
    plain: F32


@dataclass(frozen=True)
class Alternative:
    """What a value would be if these nodes had not been taken: if each array were rightly named."""

    nodes: frozenset[str]
    value: _Hidden


class LaterNames:
    """Finds values that stand under earlier names, while a Verifier walks the graph.

    revised: judgements that replace those that were given before. sources: node -> the name under which its
    array was found.
    """

    def __init__(self, graph: Graph, replay: Replay | None, threads: int) -> None:
        self.graph, self.replay, self.threads = graph, replay, threads
        self.suspects: dict[str, Suspect] = {}
        self.revised: dict[str, Judgement] = {}
        self.sources: dict[str, str] = {}
        self._before: dict[str, tuple[Judgement, ...]] = {}
        self._otherwise: dict[str, Alternative] = {}

    def suspect(self, node: Node, value: F32, inputs: Sequence[AbstractValue], judgement: Judgement) -> None:
        """A value that is wrong under its name: perhaps it is that of the node which alone reads it."""
        unread = judgement.verdict == UNJUDGED and arranged(value, judgement) is None
        if (judgement.verdict != DEFECT and not unread) or not following(self.graph, node):
            return
        if node.name in self.suspects:  # the same array stands under an earlier name, too
            return
        hidden = _Hidden(node, tuple(inputs), self.threads)
        self.suspects[node.name] = Suspect(value, (judgement,), hidden)

    def take(
        self,
        node: Node,
        value: F32 | None,
        operands: Operands,
        weights: Sequence[AbstractValue],
        judgement: Judgement,
        replayed: F32 | None,
    ) -> Taken | None:
        """The node's value, if it stands under an earlier name; None if it does not.

        value: what stands under its own name. judgement: on that. replayed: the value by a book that joins
        the nodes.
        """
        name = next((one for one in node.data if one in self.suspects), None)
        if name is None:
            return None
        suspect = self.suspects.pop(name)
        if value is not None and not _same(value, suspect.array):
            return None
        named = zip(node.data, operands, strict=True)
        before = [suspect.hidden() if one == name else known for one, known in named]
        data = [one for one in before if one is not None]
        if len(data) < len(before):
            return None
        inputs = (*data, *weights)
        plain = compute.plain(node.op, [one.value for one in inputs], self.threads)
        made = {"plain": plain, "replayed": replayed}
        found = judge(node, suspect.array, inputs, self.replay, **made, threads=self.threads)
        itself = value is not None and judgement.verdict in CLEAN and not suspect.refuted
        if found.verdict in CLEAN and itself:
            self._mention(node, suspect)
        elif found.verdict in CLEAN:
            self._settle(node, value, operands, weights, judgement, suspect)
            found = replace(found, wrong=None, found_as=suspect.name, reason=_because(found, suspect, value))
            array = arranged(suspect.array, found)
            assert array is not None
            return Taken(found, array, inputs, plain)
        elif following(self.graph, node) and len(suspect.judgements) < LONGEST and not itself:
            refuted = suspect.refuted or value is not None
            hidden = _Hidden(node, inputs, self.threads)
            self.suspects[node.name] = Suspect(
                suspect.array, (*suspect.judgements, judgement), hidden, refuted
            )
        return None

    def _settle(
        self,
        node: Node,
        value: F32 | None,
        operands: Operands,
        weights: Sequence[AbstractValue],
        judgement: Judgement,
        suspect: Suspect,
    ) -> None:
        """Count the earlier nodes as hidden; keep what else it could be."""
        for one in suspect.judgements:
            whose = "its" if one.name == suspect.name else f"{suspect.name}'s"
            why = f"the array under {whose} name is the value of {node.name}: folded or fused into one"
            self.revised[one.name] = replace(_without(one), reason=why)
        self.sources[node.name] = suspect.name
        data = [one for one in operands if one is not None]
        if value is None and len(data) == len(operands):
            self._before[node.name] = (*suspect.judgements, judgement)
            alone = _Hidden(node, (*data, *weights), self.threads)
            self._otherwise[node.name] = Alternative(frozenset([node.name]), alone)

    def _mention(self, node: Node, suspect: Suspect) -> None:
        """Both names have one array, and it is right for the later node either way."""
        first = suspect.judgements[0]
        said = f"{first.reason}; the same array is {node.name}, and right for it: was it written in place?"
        self.revised[first.name] = replace(first, reason=said)

    def carry(self, node: Node, operands: Operands, weights: Sequence[AbstractValue]) -> None:
        """A hidden node: what it would be if the arrays before it were rightly named."""
        nodes, inputs = self._alternatives(node, operands, None)
        if nodes:
            self._otherwise[node.name] = Alternative(nodes, _Hidden(node, (*inputs, *weights), self.threads))

    def checked(
        self,
        node: Node,
        value: F32,
        operands: Operands,
        weights: Sequence[AbstractValue],
        judgement: Judgement,
    ) -> Judgement:
        """A judgement on a value behind some that were taken: it confirms that, or revokes it.

        It is revoked if the value is wrong, but right for the arrays under their own names: then what is
        judged is that, and the earlier node is to blame.
        """
        nodes, _ = self._alternatives(node, operands, None)
        if judgement.verdict in CLEAN:
            for name in nodes:
                self._before.pop(name, None)
        if judgement.verdict != DEFECT or not nodes:
            return judgement
        for chosen in [*(frozenset([one]) for one in sorted(nodes)), nodes]:
            found, inputs = self._alternatives(node, operands, chosen)
            if not found:
                continue
            given = [one() if isinstance(one, _Hidden) else one for one in inputs]
            other = judge(node, value, [*given, *weights], self.replay, threads=self.threads)
            if other.verdict in CLEAN:
                for name in found:
                    self.revised |= {one.name: one for one in self._before.pop(name)}
                    del self.sources[name]
                return replace(other, wrong=None)
        return judgement

    def _alternatives(
        self, node: Node, operands: Operands, chosen: frozenset[str] | None
    ) -> tuple[frozenset[str], list[AbstractValue | _Hidden]]:
        """The operands as they would be without chosen nodes (None: any) taken, and which nodes those are."""
        nodes: set[str] = set()
        inputs: list[AbstractValue | _Hidden] = []
        for name, known in zip(node.data, operands, strict=True):
            other = self._otherwise.get(name)
            open_ = other is not None and all(one in self._before for one in other.nodes)
            if other is not None and open_ and (chosen is None or other.nodes <= chosen):
                nodes |= other.nodes
                inputs.append(other.value)
            elif known is not None:
                inputs.append(known)
            else:
                return frozenset(), []
        return frozenset(nodes), inputs

    def forget(self, name: str) -> None:
        """No later node reads this value."""
        self.suspects.pop(name, None)
        self._otherwise.pop(name, None)


def following(graph: Graph, node: Node) -> Node | None:
    """The node that executors could fold or fuse into this one, keeping this one's name; None if none.

    It alone reads the value, once, makes each element of one element of it, and the value is no output.

    >>> import refnet
    >>> graph = refnet.load("resnest-digits")
    >>> node = following(graph, graph.by_name["conv1.0"])
    >>> node.name if node else None
    'conv1.1'
    """
    readers = [one for one in graph.nodes if node.name in one.data]
    if len(readers) != 1 or node.name in graph.outputs.values():
        return None
    (reader,) = readers
    fits = _is_begun(node.op) and _is_fused(reader.op)
    return reader if fits and reader.data.count(node.name) == 1 else None


def _is_fused(op: Op) -> bool:
    """Whether executors fold or fuse the op into the one before: its elements are made of one each."""
    return op.activation or op.folds or op.combines


def _is_begun(op: Op) -> bool:
    """Whether its node may give its name to what is folded or fused into it."""
    return _is_fused(op) or (isinstance(op, Reduction) and not op.averages)


def _because(found: Judgement, suspect: Suspect, value: F32 | None) -> str:
    """Why a value was found under an earlier name, before what the judgement says already."""
    which = "its array" if value is None else "the same array"
    said = f"{which} stands under the name {suspect.name}: folded or fused into one"
    return "; ".join([said, *([found.reason] if found.reason else [])])


def _without(one: Judgement) -> Judgement:
    """The judgement's head: on nothing."""
    return Judgement(one.name, one.op, one.kind, one.inputs, one.shape, MISSING)


def _same(a: F32, b: F32) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(equal_bits(a, b).all())
