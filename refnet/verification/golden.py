"""The golden values of a network as hashes: recording them in a golden file, and checking one.

    record ── hashes ── File (formats/golden_file.py)
    check ─── located, prepare (models/inputs.py) ── hashes ── compare

Every value has one right answer, with the same bits on every machine, so its hash says as much as the value.
Kernels are loaded when a network is run, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from refnet.core.errors import GraphError, InputError
from refnet.formats.golden_file import Digest, File, Sources, begun, canonical_parts, digest
from refnet.models.inputs import portable
from refnet.verification.progress import Advance

if TYPE_CHECKING:
    from refnet.core.graph import Graph
    from refnet.core.interpreter import Arithmetic
    from refnet.core.op import F32


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the golden file has it. expected, found: None where there is none.

    what: "graph", "weights", "input" or "value".

    >>> Difference("value", "relu1", None, Digest("0" * 64, (1, 2))).what
    'value'
    """

    what: str
    name: str
    expected: Digest | str | None
    found: Digest | str | None


def hashes(
    graph: Graph,
    inputs: Mapping[str, F32],
    arithmetic: Arithmetic | None = None,
    batch: int = 1,
    advance: Advance | None = None,
) -> dict[str, Digest]:
    """The Digest of every node's value, in execution order.

    inputs: name -> (n, ...), any n: `batch` images are run at a time, and each value's bytes are hashed as
    they come, so memory does not grow with n. A graph that does not keep images apart (a softmax along the
    batch, a constant among its values) is run on all at once, whatever `batch` says: so batch and threads
    change no hash. arithmetic: default Golden(). Raises as `refnet.steps`.

    >>> import numpy as np
    >>> import refnet
    >>> x = np.zeros((1, 1, 32, 32), np.float32)
    >>> print(hashes(refnet.load("resnest-digits"), {"data": x})["prob"].shape)
    (1, 10)
    """
    from refnet.arithmetic.golden import Golden
    from refnet.core.interpreter import steps

    graph.check_inputs(inputs)
    counts = {array.shape[0] for array in inputs.values()}
    if len(counts) != 1:
        raise InputError(f"{graph.name}: inputs must have one batch size, got {sorted(counts)}")
    (count,) = counts
    batch = batch if keeps_apart(graph) else count
    kinds = {name: kind.dtype for name, kind in graph.types().items()}
    running = {node.name: begun(kinds[node.name]) for node in graph.nodes}
    shapes: dict[str, tuple[int, ...]] = {}
    for begin in range(0, count, batch):
        part = {name: array[begin : begin + batch] for name, array in inputs.items()}
        for node, value in steps(graph, part, arithmetic or Golden()):
            for chunk in canonical_parts(value):
                running[node.name].update(chunk)
            shapes[node.name] = value.shape if batch >= count else (count, *value.shape[1:])
            if advance is not None:
                advance(1)
    return {name: Digest(one.hexdigest(), shapes[name], kinds[name]) for name, one in running.items()}


def keeps_apart(graph: Graph) -> bool:
    """Whether each image of a batch is computed independently of the others.

    True if, for every batch size, the first dimension of every value and no other is the batch, and no
    softmax runs along it. Whatever else mixes images (sums along the batch, transposition, constants) shows
    in the shapes.

    >>> import refnet
    >>> keeps_apart(refnet.load("resnest-digits"))
    True
    """
    try:
        one, two, three = (
            graph.types(
                {name: replace(kind, shape=(n, *kind.shape[1:])) for name, kind in graph.inputs.items()}
            )
            for n in (1, 2, 3)
        )
    except GraphError:  # it has a fixed batch
        return False
    for node in graph.nodes:
        shapes = [kinds[node.name].shape for kinds in (one, two, three)]
        if any(shape != (n, *shapes[0][1:]) for n, shape in enumerate(shapes, 1)):
            return False
        if node.op.mixes_images:
            return False
    return True


def count(graph: Graph, inputs: Mapping[str, F32], batch: int = 1) -> int:
    """How many nodes `hashes` goes through, for progress."""
    images = max((array.shape[0] for array in inputs.values()), default=0)
    return len(graph.nodes) * (-(-images // batch) if keeps_apart(graph) else 1)


def record(
    graph: Graph,
    inputs: Mapping[str, F32],
    sources: Sources | None = None,
    arithmetic: Arithmetic | None = None,
    batch: int = 1,
    advance: Advance | None = None,
) -> File:
    """The golden file of a network with its weights, for these inputs; `write` writes it.

    sources: where they come from, so that the file can be checked without being told.

    >>> from refnet.models.inputs import prepare
    >>> sources = Sources("resnest-digits")
    >>> file = record(*prepare(sources), sources)
    >>> len(file.values), file.sources.input
    (97, 'seed:0')
    """
    return File(
        hashes(graph, inputs, arithmetic, batch, advance),
        None if sources is None else portable(sources),
        graph.structure_hash(),
        graph.weights_hash(),
        {name: digest(array) for name, array in inputs.items()},
    )


def foundations(file: File, graph: Graph, inputs: Mapping[str, F32]) -> tuple[Difference, ...]:
    """Where graph, weights or inputs are not the file's; what the file does not say is not compared."""
    found = []
    for what, expected, own in (
        ("graph", file.graph, graph.structure_hash()),
        ("weights", file.weights, graph.weights_hash()),
    ):
        if expected not in (None, own):
            found.append(Difference(what, graph.name, expected, own))
    own_inputs = {name: digest(array) for name, array in inputs.items()} if file.inputs else {}
    return (*found, *_differences("input", file.inputs, own_inputs))


def compare(
    file: File, graph: Graph, inputs: Mapping[str, F32], values: Mapping[str, Digest]
) -> tuple[Difference, ...]:
    """All differences: graph, weights, inputs, then values in the graph's order, then those it lacks."""
    return (*foundations(file, graph, inputs), *_differences("value", file.values, values))


def _differences(what: str, expected: Mapping[str, Digest], found: Mapping[str, Digest]) -> list[Difference]:
    names = [*found, *(name for name in expected if name not in found)]
    return [
        Difference(what, name, expected.get(name), found.get(name))
        for name in names
        if expected.get(name) != found.get(name)
    ]
