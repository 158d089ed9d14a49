"""A module's capture and another file of the same module: which value of the one is which of the other.

    counterparts(capture, module, file) ── Counterparts ── the capture under the file's names

A torch module has a graph of its own in its capture; each exporter writes another one, with other names, and
some with every batch norm folded into the convolution before it. Node by node, in the file's order, a value
is matched with the first of these that there is:

    by inputs and bits            the same op, of values that are matched, makes the same bits (in plain)
    by bits                       another op makes the same bits of matched values
    folded                        a convolution stands for one of the module's and the batch norm behind it
    by inputs                     the same op, of values that are matched, makes other bits
    by name                       the names are the same but for separators and running numbers
    as an output                  what is left of the outputs, in order

Both sides are computed on the capture's own values, so a difference does not spread. Where a batch norm is
folded, the file's node is judged as what the module has in its place, two nodes, with the file's stride,
padding and dilation; and its weights are compared with those that folding gives (folded.py). Outputs that the
file exchanges are defects.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from refnet.arithmetic.types import types_of
from refnet.core.errors import GraphError, InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from refnet.formats.golden_file import digest
from refnet.formats.manifest import NETWORK
from refnet.models.loading import load
from refnet.verification import compute
from refnet.verification.capture import Capture, CapturedValues
from refnet.verification.folded import fold_faults, foldable, unbiased
from refnet.verification.judgement import DEFECT
from refnet.verification.names import bare_name, renamed
from refnet.verification.verify import Verification

FOLDED = "folded"
ABSENT = "the file computes the module's outputs without it"
"""Why a captured value that matches nothing is no mistake, where all outputs of the module are matched."""


@dataclass(frozen=True)
class Counterparts:
    """What was matched. graph: the file's; each folded node is two again, with the module's weights.

    capture: under the graph's names. how: value of the file -> (value of the module, by what). faults: folded
    node -> what is wrong with its weights.
    """

    graph: Graph
    capture: CapturedValues
    how: Mapping[str, tuple[str, str]]
    faults: Mapping[str, str]
    nodes: int

    def added(self, found: Verification) -> Verification:
        """The verification, with what the matching found."""
        nodes = tuple(
            replace(one, verdict=DEFECT, reason=self.faults[one.name]) if one.name in self.faults else one
            for one in found.nodes
        )
        return replace(found, nodes=nodes, notes=(*self.notes(), *found.notes))

    def notes(self) -> list[str]:
        """What a reader must know of it."""
        by = Counter(why for _, why in self.how.values())
        words = ", ".join(f"{count} {why}" for why, count in by.items())
        text = f"{self.graph.name} is another file than the capture's own graph: {len(self.how)} of its "
        notes = [f"{text}{self.nodes} values are the module's ({words})"]
        folds = [name for name, (_, why) in self.how.items() if why == FOLDED]
        folded = [f"{name} ({self.graph.by_name[name].data[0]})" for name in folds]
        if folded:
            notes.append(
                "batch norms that the file has folded are judged apart, and the folded weights compared with "
                f"the module's: {', '.join(folded[:8])}{', ...' if len(folded) > 8 else ''}"
            )
        return notes


def counterparts(
    capture: CapturedValues, module: Graph, file: Graph, inputs: Mapping[str, F32], threads: int | None = None
) -> Counterparts:
    """Match a capture of a module with another file of it.

    module: the capture's own graph. inputs: what the capture lacks of its inputs. Raises InputError if the
    inputs are not the same, or nothing but inputs can be matched.
    """
    sides = _Sides(capture, module, file, inputs, threads)
    for node in file.nodes:
        sides.match(node)
    sides.match_outputs()
    if not sides.how:
        raise InputError(f"no value of {file.name} is one of the capture's: it is a file of something else")
    return sides.made()


class _Sides:
    """Both graphs, computed on the capture's values, node by node.

    theirs: value of the module -> its array, the captured one where there is one. made: the digest of what
    its node makes of such arrays. place: value of the file -> of the module. ours: file -> its array. types:
    of the file's values, at the capture's batch.
    """

    def __init__(
        self,
        capture: CapturedValues,
        module: Graph,
        file: Graph,
        inputs: Mapping[str, F32],
        threads: int | None,
    ) -> None:
        self.capture, self.module, self.file, self.threads = capture, module, file, threads
        self.theirs: dict[str, F32] = {}
        self.made_of: dict[str, str] = {}
        self.place = _inputs(module, file)
        self.how: dict[str, tuple[str, str]] = {}
        self.folds: dict[str, Node] = {}
        types = module.types()
        for name in module.inputs:
            self.theirs[name] = inputs[name] if name in inputs else capture.input(name)
        self.ours = {name: self.theirs[own] for name, own in self.place.items()}
        try:
            self.types = file.types(types_of(self.ours))
        except GraphError as error:
            raise InputError(f"{error}{self._batches(file)}") from None
        for node in module.nodes:
            value = self._plain(module, node, self.theirs)
            if capture.has(node.name):
                self.theirs[node.name] = capture.value(node.name, types[node.name].dtype)
            elif value is not None:
                self.theirs[node.name] = value
            if value is None:  # of what refnet cannot compute the captured bits tell what they can
                value = self.theirs.get(node.name)
            if value is not None:
                self.made_of[node.name] = digest(value).sha256
        self.sizes = {name: array.size for name, array in self.theirs.items()}
        self.readers = _readers(file)
        self.own_readers = _readers(module)

    def _plain(self, graph: Graph, node: Node, values: Mapping[str, F32]) -> F32 | None:
        if node.op.opaque or any(name not in values for name in node.data):
            return None
        data = [values[name] for name in node.data]
        try:
            return compute.plain(
                node.op, [*data, *(graph.weights[name] for name in node.weights)], self.threads
            )
        except GraphError as error:
            raise InputError(f"{graph.name}: {node.name}: {error}{self._batches(graph)}") from None

    def _batches(self, graph: Graph) -> str:
        """What may be why a node does not take the capture's values: a file that is for another batch."""
        for name, kind in graph.inputs.items():
            count = len(self.theirs[self.place.get(name, name)])
            if count != kind.shape[0]:
                return f"; the capture has a batch of {count}, and this file may be for {kind.shape[0]} only"
        return ""

    def match(self, node: Node) -> None:
        """Find the module's value that this node of the file is."""
        value = self._plain(self.file, node, self.ours)
        found = self._found(node, value)
        if found is not None:
            self.how[node.name] = found
            self.place[node.name] = found[0]
            theirs = self.theirs.get(found[0])
            shape = self.types[node.name].shape if value is None else value.shape
            if theirs is not None and theirs.size == math.prod(shape):
                self.ours[node.name] = theirs.reshape(shape)
        elif value is not None:
            self.ours[node.name] = value
            if node.op.reshapes and node.data[0] in self.place:
                self.place[node.name] = self.place[node.data[0]]

    def _elements(self, name: str | None) -> str | None:
        """The value of the module that has the same elements, in the same order, before any reshaping."""
        node = self.module.by_name.get(name or "")
        return self._elements(node.data[0]) if node is not None and node.op.reshapes else name

    def match_outputs(self) -> None:
        """What is left of the outputs is matched in order, where each side has one of its size."""
        taken = {name for name, _ in self.how.values()}
        ours = [name for name in dict.fromkeys(self.file.outputs.values()) if name not in self.how]
        theirs = [name for name in dict.fromkeys(self.module.outputs.values()) if name not in taken]
        for name, own in zip(ours, theirs, strict=False):
            if name in self.ours and self.ours[name].size == self.sizes.get(own):
                self.how[name] = own, "as an output"

    def _found(self, node: Node, value: F32 | None) -> tuple[str, str] | None:
        taken = {name for name, _ in self.how.values()}
        free = [one for one in self.module.nodes if one.name not in taken]
        data = [self._elements(self.place.get(name)) for name in node.data]
        kin = [
            one
            for one in free
            if type(one.op) is type(node.op)
            and [self._elements(name) for name in one.data] == data
            and (value is None or self.sizes.get(one.name) == value.size)
        ]
        if value is not None:
            made = digest(value).sha256
            same = [one for one in free if self.made_of.get(one.name) == made]
            if both := [one for one in same if one in kin]:
                return both[0].name, "by inputs and bits"
            if same:
                return same[0].name, "by bits"
        for one in kin:
            norm = self._folded(node, one)
            if norm is not None and norm.name not in taken:
                self.folds[node.name] = one
                return norm.name, FOLDED
        if kin:
            return min(kin, key=lambda one: bare_name(one.name) != bare_name(node.name)).name, "by inputs"
        size = None if value is None else value.size
        named = [one for one in free if bare_name(one.name) == bare_name(node.name)]
        if len(named) == 1 and size in (None, self.sizes.get(named[0].name)):
            return named[0].name, "by name"
        return None

    def _folded(self, node: Node, conv: Node) -> Node | None:
        """The batch norm that the module has behind this convolution, where the file's node has none."""
        behind = self.own_readers.get(conv.name, ())
        if len(behind) != 1 or conv.name in self.module.outputs.values() or not foldable(conv, behind[0]):
            return None
        if any(foldable(node, one) for one in self.readers.get(node.name, ())):
            return None
        return behind[0]

    def made(self) -> Counterparts:
        """What was matched."""
        names = {self.place[name]: name for name in self.file.inputs}
        names |= {own: name for name, (own, _) in self.how.items()}
        nodes: list[Node] = []
        weights = dict(self.file.weights)
        faults = self._exchanged()
        used = {*self.file.by_name, *self.file.inputs, *weights}

        def fresh(name: str) -> str:
            while name in used:
                name += " (module)"
            used.add(name)
            return name

        for node in self.file.nodes:
            conv = self.folds.get(node.name)
            if conv is None:
                nodes.append(node)
                continue
            norm = self.module.by_name[self.how[node.name][0]]
            fault = fold_faults((node, self.file.weights), (conv, norm, self.module.weights))
            op = conv.op
            if fault is not None:
                faults[node.name] = fault
            else:  # stride, padding and dilation are the file's: they are judged, too
                op = unbiased(node.op, conv.op)
            own = {name: fresh(name) for name in (*conv.weights, *norm.weights)}
            weights |= {new: self.module.weights[name] for name, new in own.items()}
            names[conv.name] = fresh(conv.name)
            nodes.append(Node(names[conv.name], op, (*node.data, *(own[name] for name in conv.weights))))
            nodes.append(Node(node.name, norm.op, (names[conv.name], *(own[name] for name in norm.weights))))
        graph = replace(self.file, nodes=tuple(nodes), weights=_needed(nodes, weights))
        left = [name for name in self.capture.names if name not in names]
        names |= {name: fresh(name) for name in left if name in used}
        beyond = {names.get(name, name): ABSENT for name in left} if self._covers_outputs(names) else {}
        capture = _under(self.capture, names, beyond)
        return Counterparts(graph, capture, self.how, faults, len(self.file.nodes))

    def _exchanged(self) -> dict[str, str]:
        """Outputs of the file that are others of the module: by name if both have the same names, else by
        place."""
        ours, theirs = dict(self.file.outputs), dict(self.module.outputs)
        if len(ours) != len(theirs):
            return {}
        named = (
            {name: name for name in ours}
            if set(ours) == set(theirs)
            else dict(zip(ours, theirs, strict=True))
        )
        faults = {}
        for name, value in ours.items():
            own, (found, _) = theirs[named[name]], self.how.get(value, ("", ""))
            bits = [digest(self.theirs[one]) for one in (own, found) if one in self.theirs]
            if found in theirs.values() and len({*bits}) == 2:
                faults[value] = f"it is the module's output {found}, where the module returns {own}"
        return faults

    def _covers_outputs(self, names: Mapping[str, str]) -> bool:
        """Whether what the capture has of the module's outputs is in the file."""
        outputs = self.capture.manifest.outputs.values() if self.capture.manifest is not None else ()
        return bool(outputs) and all(name in names for name in outputs)


def _needed(nodes: Sequence[Node], weights: Mapping[str, F32]) -> dict[str, F32]:
    return {name: weights[name] for node in nodes for name in node.weights if name in weights}


def _under(capture: CapturedValues, names: Mapping[str, str], beyond: Mapping[str, str]) -> CapturedValues:
    """The capture under other names; its manifest no longer says of which graph it is. beyond: new names."""
    inputs = () if capture.manifest is None else tuple(capture.manifest.inputs)
    there = {*capture.names, *inputs}
    made = renamed(capture, {old: new for old, new in names.items() if old in there and old != new})
    assert isinstance(made, Capture)
    assert made.manifest is not None
    manifest = replace(made.manifest, graph=None, weights=None, beyond={**made.manifest.beyond, **beyond})
    return replace(made, manifest=manifest)


def _inputs(module: Graph, file: Graph) -> dict[str, str]:
    """Input of the file -> of the module: by name, else by shape, in order.

    Raises InputError where they do not fit.
    """
    own, other = (
        {name: (kind.dtype, kind.shape[1:]) for name, kind in graph.inputs.items()}
        for graph in (module, file)
    )
    same = set(own) == set(other)
    if sorted(own.values()) != sorted(other.values()) or (same and own != other):
        raise InputError(f"{file.name} takes {dict(file.inputs)}, the captured module {dict(module.inputs)}")
    if same:
        return {name: name for name in other}
    found: dict[str, str] = {}
    for name, kind in other.items():
        found[name] = next(one for one in own if own[one] == kind and one not in found.values())
    return found


def _readers(graph: Graph) -> dict[str, tuple[Node, ...]]:
    """Value -> the nodes that read it."""
    found: dict[str, tuple[Node, ...]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys(node.data):
            found[name] = (*found.get(name, ()), node)
    return found


def own_graph(capture: CapturedValues, graph: Graph) -> Graph | None:
    """The module's own graph in its capture, if the graph that is to judge it is another one.

    Raises InputError if the file in the capture is not the one that was captured, or only hashes were kept.
    """
    manifest = capture.manifest
    said = None if manifest is None else manifest.sources
    if not isinstance(capture, Capture) or manifest is None or said is None or said.model != NETWORK:
        return None
    same = (manifest.graph, manifest.weights) == (graph.structure_hash(), graph.weights_hash())
    if same or not (capture.folder / NETWORK).is_file():
        return None
    own = load(capture.folder / NETWORK)
    if (manifest.graph, manifest.weights) != (own.structure_hash(), own.weights_hash()):
        raise InputError(f"{capture.folder / NETWORK} is not the graph that was captured")
    if capture.hash_only:
        raise InputError(
            f"{capture.folder} has hashes only: values of another file cannot be matched with it"
        )
    return own
