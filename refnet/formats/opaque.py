"""What a graph file has that refnet cannot compute, for every reader: opaque nodes, and what is left out.

    Opaques.made ── rule, assembly.typed ── the nodes of an operation of the file, with their types
         └───────── what the file says ──── those of its outputs that refnet cannot make: an Opaque node each

A value that is left out is no float32, or of a shape that the file does not say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from refnet.core.errors import UnsupportedError
from refnet.formats.assembly import LARGEST_VALUE, Building, FileNode, Made, typed
from refnet.ops import TensorType
from refnet.ops.opaque import Opaque

UNKNOWN = "refnet has no such operator"


@dataclass(frozen=True)
class Said:
    """What a file says of an output of a node. shape: None if it is not known. empty: it has no elements."""

    shape: tuple[int, ...] | None
    float32: bool
    empty: bool = False


@dataclass(frozen=True)
class Operation:
    """A node of a file with the names of what it reads and makes. kind: its operator, for messages."""

    node: FileNode
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Opaques:
    """What is known of the values that refnet cannot make, while a graph is built.

    left_out: value -> why it is no node. borders: a value that is left out -> the values of the graph that it
    was computed from.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    borders: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def lost(self, inputs: Sequence[str]) -> str:
        """The first of these inputs that was left out; "" if none was."""
        return next((name for name in inputs if name in self.left_out), "")

    def made(
        self,
        of: Operation,
        rule: Callable[[], list[Made]] | None,
        building: Building,
        wanted: Collection[str],
        said: Callable[[], Mapping[str, Said]],
    ) -> list[tuple[Made, TensorType]]:
        """The nodes of an operation's outputs with their types; opaque ones if refnet cannot compute them.

        rule: what makes them; None if there is none. wanted: the values that are read. said: gives what is
        known of each output.
        """
        why = UNKNOWN
        if lost := self.lost(of.inputs):
            why = f"it reads {lost[:100]!r}, which is left out"
        elif rule is not None:
            try:
                ready = _typed(of.node, rule(), building)
            except UnsupportedError as error:
                why = reason(of.node, error)
            else:
                asked = {*of.outputs}.intersection(wanted) - {made.name for made, _ in ready}
                others = sorted(name for name in asked if name not in building.constants)
                why = "refnet does not make this output"
                return ready + (self._taken(of, why, others, said(), building) if others else [])
        return self.refused(of, why, building, said)

    def refused(
        self, of: Operation, why: str, building: Building, said: Callable[[], Mapping[str, Said]]
    ) -> list[tuple[Made, TensorType]]:
        """The outputs of an operation that refnet cannot compute as opaque nodes, with their types."""
        return self._taken(of, why, [name for name in of.outputs if name], said(), building)

    def _taken(
        self, of: Operation, why: str, names: Sequence[str], said: Mapping[str, Said], building: Building
    ) -> list[tuple[Made, TensorType]]:
        """These outputs as opaque nodes; what cannot be one is noted as left out."""
        read = [(one,) if one in building.types else self.borders.get(one, ()) for one in of.inputs]
        data = tuple(dict.fromkeys(one for values in read for one in values))
        found = []
        for name in names:
            known = said.get(name, Said(None, False))
            if known.shape is None or not known.float32:
                what = "its shape is not known" if known.shape is None else "it is not float32"
                what = "it is empty" if known.empty else what
                self.left_out[name] = f"{of.kind}: {what}" if why == UNKNOWN else f"{of.kind}: {why}; {what}"
                self.borders[name] = data
            else:
                made = Made(name, Opaque(of.kind, why, known.shape), data)
                found.append((made, typed(of.node, made, building)))
        return found

    def heads(self, file: str, outputs: Sequence[str], inputs: Collection[str]) -> list[str]:
        """The outputs that are values, and in the place of those left out the values that they are made of.

        Says what was left out. Raises UnsupportedError if nothing remains.
        """
        found = []
        for name in outputs:
            found += [one for one in self.borders.get(name, (name,)) if one == name or one not in inputs]
        shown = [f"{name[:60]!r} ({why})" for name, why in list(self.left_out.items())[:40]]
        if self.left_out:
            more = f" and {len(self.left_out) - 8} more" if len(self.left_out) > 8 else ""
            text = "%s: left out what is no float32 value of a known shape: %s%s"
            logging.getLogger("refnet").warning(text, file, ", ".join(shown[:8]), more)
        if not found:
            raise UnsupportedError(f"{file}: every output needs what refnet cannot have: {', '.join(shown)}")
        return list(dict.fromkeys(found))


def _typed(node: FileNode, made: Sequence[Made], building: Building) -> list[tuple[Made, TensorType]]:
    """The nodes with their types, of which a later one may read an earlier one."""
    before, ready = set(building.types), []
    try:
        for one in made:
            kind = building.types[one.name] = typed(node, one, building)
            ready.append((one, kind))
    except UnsupportedError:
        for name in set(building.types) - before:
            del building.types[name]
        raise
    return ready


def reason(node: FileNode, error: UnsupportedError) -> str:
    """What an error says, without the node that it names."""
    return str(error).removeprefix(str(node.unsupported("")))


def fitting(shape: Sequence[int]) -> tuple[int, ...] | None:
    """A shape that a value of refnet's can have; None for another."""
    fits = 1 <= len(shape) <= 32 and all(n >= 1 for n in shape)
    return tuple(shape) if fits and TensorType(tuple(shape)).size <= LARGEST_VALUE else None
