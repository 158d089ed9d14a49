"""A folder of .npy files as a capture: what it has, what the user states of it, and what matches nothing.

folder_plan ── renamed (verification/names.py) ── inputs: the folder's; what is named is compared with them
     └──────── files that match no value ──────── refused, with the likely matches, unless they are allowed
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from refnet.core.bits import equal_bits
from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import Origin
from refnet.frameworks.capture.request import Request, inputs, said_sources
from refnet.frameworks.capture.writer import CapturePlan
from refnet.models.input_kinds import kinds_of
from refnet.models.inputs import Inputs, named_inputs
from refnet.verification.capture import Capture, open_capture
from refnet.verification.names import (
    Unmatched,
    check_names,
    covered,
    listed,
    propose,
    read_names,
    renamed,
    sizes_of,
    stray_names,
)


def folder_plan(
    request: Request, graph: Graph | None, sources: Sources | None, stack: ExitStack
) -> CapturePlan:
    """Arrays of anybody's: a folder of .npy files that have the values' names.

    A graph's inputs are taken from the folder too, if their files are there; an input that is named must have
    their bits. What refnet cannot know (who computed the values, of which weights) is what the user states.
    """
    who = _said(request.said)
    dump = open_capture(request.model)
    if dump.manifest is not None:
        raise InputError(f"{request.model} is a capture already")
    if graph is None:
        who = replace(who, flags={"stated, not checked": "reference"})
        return CapturePlan(
            who, {}, lambda: ((name, dump.value(name)) for name in dump.names), dict, total=len(dump.names)
        )
    names = read_names(request.names)
    check_names(graph, names)
    named = renamed(dump, names)
    assert isinstance(named, Capture)
    given = _folder_inputs(request, graph, named)
    if given is not None:
        if "batch" in request.said and who.batch != given.batch:
            raise InputError(f"--reference batch={who.batch}, but the input has {given.batch}")
        who = replace(who, batch=given.batch)
    who = replace(who, flags={"stated, not checked": "reference, model, weights"})
    allowed = _allowed(request, graph, named, who.batch)
    order, types = {node.name: i for i, node in enumerate(graph.nodes)}, graph.types()
    inner = [name for name in named.names if name not in graph.inputs]
    inner.sort(key=lambda name: order.get(name, len(order)))
    assert sources is not None
    return CapturePlan(
        who,
        {} if given is None else given.arrays,
        lambda: (
            (name, named.value(name, types[name].dtype if name in types else "float32")) for name in inner
        ),
        lambda: graph.outputs,
        said_sources(sources, given),
        graph.structure_hash(),
        graph.weights_hash(),
        given is not None and given.remade,
        len(inner),
        beyond=lambda values: {name: why for name, why in allowed.items() if name in values},
    )


def _folder_inputs(request: Request, graph: Graph, dump: Capture) -> Inputs | None:
    """The inputs that the folder has, or those named, which must have the same bits; None: neither."""
    kinds = kinds_of(graph)
    own = {name: str(dump.files[name]) for name in graph.inputs if name in dump.files}
    there = named_inputs(own, {name: kinds[name] for name in own}) if own else None
    if not request.input:
        return there
    given = inputs(request, kinds, None if there is None else there.batch)
    for name, array in ({} if there is None else there.arrays).items():
        if differ := int((~equal_bits(array, given.arrays[name])).sum()):
            raise InputError(
                f"--input {' '.join(request.input)} is not the input in {own[name]}: {differ} of "
                f"{array.size} elements have other bits; without --input the folder's is taken"
            )
    return given


def _allowed(request: Request, graph: Graph, dump: Capture, batch: int) -> dict[str, str]:
    """The files that match no value and were allowed to. Raises InputError for the others."""
    strays = stray_names(graph, dump)
    open_ = [name for name in strays if not covered(name, request.allow)]
    if open_:
        types = graph.types(
            {name: replace(k, shape=(batch, *k.shape[1:])) for name, k in graph.inputs.items()}
        )
        absent = [*graph.inputs, *graph.by_name]
        lacking = {name: types[name].size for name in absent if name not in dump.files}
        likely = propose(sizes_of(dump, open_), lacking)
        lines = listed([Unmatched(name, likely.get(name)) for name in open_])
        raise InputError(
            f"{len(open_)} of {len(dump.names)} files in {request.model} match no value of {graph.name}; "
            "name them with --names MAP.json (`refnet verify DIR MODEL --propose MAP.json` writes the likely "
            "matches), or allow them with --allow NAME:\n" + "\n".join(lines)
        )
    return dict.fromkeys(strays, "allowed by name")


def _said(said: Mapping[str, str]) -> Origin:
    """The reference that the user states."""
    known = ("version", "build", "isa", "mode", "processor", "libc", "vendor")
    texts = {key: said.get(key, "") for key in known}
    for key in said:
        if key not in (*texts, "framework", "threads", "batch"):
            raise InputError(
                f"a reference has no {key!r}; it has framework, threads, batch, {', '.join(texts)}"
            )
    counts = {}
    for key in ("threads", "batch"):
        text = said.get(key, "1")
        counts[key] = int(text) if text.isdecimal() and len(text) < 7 else 0
        if not counts[key]:
            raise InputError(f"reference: {key} must be a whole number from 1 on, got {text!r}")
    return Origin(
        said.get("framework", "unknown"),
        texts["version"],
        texts["build"],
        texts["isa"],
        counts["threads"],
        counts["batch"],
        texts["mode"],
        processor=texts["processor"],
        libc=texts["libc"],
        vendor=texts["vendor"],
    )
