"""What a capture has, before anything is judged: arrays, or only their hashes, and the network's inputs.

captured ── an array, or refnet's value with the hash that the capture kept
inputs_of ── the graph's inputs; of another shape, read in the order of axes that their source shows
needed_by ── the nodes whose values a judgement uses
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import F32
from refnet.formats.golden_file import digest
from refnet.formats.npy import open_npy
from refnet.verification import compute
from refnet.verification.axes import readings, regrouped
from refnet.verification.capture import Capture, CapturedValues
from refnet.verification.later import LONGEST, following
from refnet.verification.propagate import AbstractValue

if TYPE_CHECKING:
    from refnet.arithmetic.replay import Replay

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
    kind: str = "float32",
) -> F32 | None:
    """A node's captured value. If the capture has only its hash: refnet's value with that hash, or None.

    size: how many elements one image of it has. replayed: the node's value by the book, from captured
    values. kind: the value's dtype. Raises InputError for a value that is far larger, and as Capture.value.
    """
    manifest = capture.manifest
    stored = None if manifest is None else manifest.values.get(node.name)
    if stored is None or stored.file is not None:
        if isinstance(capture, Capture) and (found := capture.size(node.name)) > 256 * size + SURPLUS:
            raise InputError(f"{node.name}: the captured value has {found} elements, the node's {size}")
        return capture.value(node.name, kind)
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


def inputs_of(
    graph: Graph,
    capture: CapturedValues,
    given: Mapping[str, F32],
    stated: Mapping[str, F32] | None = None,
    notes: list[str] | None = None,
) -> dict[str, F32 | None]:
    """The graph's inputs: the capture's, else those given; None where there is neither.

    stated: what the sources make that the capture names. An array of the capture's that has another shape is
    read in the order of axes in which it is the one given, or stated; notes: takes what is said of that.
    Raises InputError for other inputs than those given, and what does not fit the graph.
    """
    found: dict[str, F32 | None] = {}
    for name in given:
        if name not in graph.inputs:
            raise InputError(f"{graph.name} has no input {name!r}; its inputs are {', '.join(graph.inputs)}")
    said = {} if capture.manifest is None else capture.manifest.inputs
    for name in graph.inputs:
        stored = said.get(name)
        try:
            kind = graph.inputs[name].dtype
            own = capture.value(name, kind) if capture.has(name) else capture.input(name)
        except InputError:
            if stored is not None and stored.file is not None:
                raise
            own = None
        expected = stored.digest if stored is not None else None if own is None else digest(own)
        if own is not None:
            own, note = _input_read(graph, name, own, given.get(name, (stated or {}).get(name)))
            if note is not None:
                expected = digest(own)
            if note is not None and notes is not None:
                notes.append(note)
        if name in given and expected not in (None, digest(given[name])):
            raise InputError(f"the capture was made of another input {name!r} than the one given")
        found[name] = given.get(name) if own is None else own
    if all(value is not None for value in found.values()):
        graph.check_inputs({name: value for name, value in found.items() if value is not None})
    return found


def _input_read(graph: Graph, name: str, own: F32, source: F32 | None) -> tuple[F32, str | None]:
    """An input of the capture's in its own shape, and what is to be said of that.

    Nothing computes an input: in which order its axes stand only its source can tell.
    """
    image = graph.inputs[name].shape[1:]
    if own.ndim == len(image) + 1 and own.shape[1:] == image:
        return own, None
    wanted = source.shape if source is not None else (own.size // max(math.prod(image), 1), *image)
    if own.size != math.prod(wanted) or not own.size:
        return own, None
    shapes = f"the capture's input {name} is {list(own.shape)}, not {list(wanted)}"
    if regrouped(own.shape, wanted):
        return own.reshape(wanted), f"{shapes}; only axes of size 1 differ"
    if source is None:
        raise InputError(f"{shapes}: only its source can tell in which order its axes stand; none is given")
    for reading in readings(own.shape, wanted):
        array = reading.of(own)
        if digest(array) == digest(source):
            return array, f"{shapes}; read {reading}, it is what its source makes, to the last bit"
    raise InputError(f"{shapes}, and in no order of its axes it is what its source makes")


def present(capture: CapturedValues, name: str) -> bool:
    """Whether a capture has a value, or at least its hash."""
    return capture.has(name) or (capture.manifest is not None and name in capture.manifest.values)


def needed_by(
    graph: Graph, capture: CapturedValues, only: Collection[str], types: Mapping[str, TensorType]
) -> frozenset[str]:
    """The nodes whose values a judgement uses: those to be judged, and those they are computed from.

    types: of the graph's values. A captured value ends the search, unless only a judgement on it tells what
    its array is: one of another shape, or one that may be a later node's.
    """
    if only:
        wanted = {*only, *(later for name in only for later in _chain(graph, graph.by_name[name]))}
    else:  # every captured value is judged
        wanted = {node.name for node in graph.nodes if present(capture, node.name)}
    needed = set(wanted)
    for node in reversed(graph.nodes):
        if node.name in needed and (
            node.name in wanted or not capture.has(node.name) or _unsure(graph, capture, node, types)
        ):
            needed.update(node.data)
    return frozenset(needed)


def _unsure(graph: Graph, capture: CapturedValues, node: Node, types: Mapping[str, TensorType]) -> bool:
    """Whether only a judgement tells what the array under this node's name is."""
    try:
        shape, own = _shape_of(capture, node.name), types[node.name].shape
    except InputError:  # it is no array, as whoever reads it will say
        return False
    if shape[1:] != own[1:] and not regrouped(shape[1:], own[1:]):
        return True
    later = _chain(graph, node)
    return bool(later) and not capture.has(later[0])


def _chain(graph: Graph, node: Node) -> tuple[str, ...]:
    """The nodes whose values may stand under this one's name."""
    found: list[str] = []
    while len(found) < LONGEST and (later := following(graph, node)) is not None:
        found.append(later.name)
        node = later
    return tuple(found)


def _shape_of(capture: CapturedValues, name: str) -> tuple[int, ...]:
    """The shape of a value that is there."""
    if capture.manifest is not None:
        return capture.manifest.values[name].digest.shape
    return (
        open_npy(capture.files[name], None).shape
        if isinstance(capture, Capture)
        else capture.value(name).shape
    )
