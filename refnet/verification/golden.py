"""The golden values of a network as hashes: recording them in a golden file, and checking one.

    record ── prepare ── hashes ── File (readers/golden_file.py)
    check ─── located ── prepare ── hashes ── compare

There is one right answer for every value, the same bits on every machine, so a hash says as much as the
value. Kernels are loaded when a network is run, not before.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from refnet.core.errors import GraphError, InputError
from refnet.core.op import TensorType
from refnet.formats.golden_file import Digest, File, Sources, canonical, digest
from refnet.ops.softmax import Softmax

if TYPE_CHECKING:
    from refnet.core.graph import Graph
    from refnet.core.interpreter import Arithmetic
    from refnet.core.op import F32

SEED, SAMPLE = "seed:", "sample:"

Advance = Callable[[int], object]
"""Called with how many more nodes are done."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the golden file has it. expected, found: None where there is none.

    what: "graph", "weights", "input" or "value".
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
    running = {node.name: hashlib.sha256() for node in graph.nodes}
    shapes: dict[str, tuple[int, ...]] = {}
    for begin in range(0, count, batch):
        part = {name: array[begin : begin + batch] for name, array in inputs.items()}
        for node, value in steps(graph, part, arithmetic or Golden()):
            running[node.name].update(canonical(value))
            shapes[node.name] = value.shape if batch >= count else (count, *value.shape[1:])
            if advance is not None:
                advance(1)
    return {name: Digest(one.hexdigest(), shapes[name]) for name, one in running.items()}


def keeps_apart(graph: Graph) -> bool:
    """Whether every value has one part per image, which the other images have no share in.

    So it is if every value's first dimension, and no other, is the batch, for any batch, and no softmax runs
    along it: what else mixes images (sums along the batch, transposition, constants) shows in the shapes.

    >>> import refnet
    >>> keeps_apart(refnet.load("resnest-digits"))
    True
    """
    try:
        one, two, three = (
            graph.types({name: TensorType((n, *kind.shape[1:])) for name, kind in graph.inputs.items()})
            for n in (1, 2, 3)
        )
    except GraphError:  # it has a fixed batch
        return False
    for node in graph.nodes:
        shapes = [kinds[node.name].shape for kinds in (one, two, three)]
        if any(shape != (n, *shapes[0][1:]) for n, shape in enumerate(shapes, 1)):
            return False
        if isinstance(node.op, Softmax) and node.op.axis == 0:
            return False
    return True


# Sources.


def prepare(sources: Sources) -> tuple[Graph, dict[str, F32]]:
    """The graph with its weights, and its inputs by name. Errors: as `refnet.load` and the readers of inputs.

    >>> graph, inputs = prepare(Sources("resnest-digits", input="sample:1700-label-5.png", pipeline="digits"))
    >>> inputs["data"].shape
    (1, 1, 32, 32)
    """
    from refnet.models.loading import load

    graph = load(sources.model, weights=sources.weights, network=sources.network, image=sources.image)
    return graph, inputs_from(graph, sources.input, sources.pipeline)


def inputs_from(graph: Graph, source: str, pipeline: str | None) -> dict[str, F32]:
    """The inputs by name, of a .npy file, an image (with a pipeline), "sample:NAME" or "seed:N"."""
    from refnet.models.synthetic import normal

    if source.startswith(SEED):
        if not re.fullmatch("seed:[0-9]{1,20}", source) or int(source[5:]) >= 1 << 64:
            raise InputError(f"input must be a file or seed:N with N from 0 to 2**64 - 1, got {source!r}")
        return {name: normal(int(source[5:]), name, kind.shape) for name, kind in graph.inputs.items()}
    if len(graph.inputs) != 1:
        raise InputError(f"{graph.name} has {len(graph.inputs)} inputs ({', '.join(graph.inputs)}), not one")
    ((name, kind),) = graph.inputs.items()
    if source.endswith(".npy"):
        from refnet.models.predict import input_tensor

        return {name: input_tensor(Path(source), kind).read()}
    from refnet.models.preprocess import pipeline as by_name

    if pipeline is None:
        raise InputError(f"{source} is an image: say how it becomes a tensor, with a pipeline")
    inputs = {name: by_name(pipeline).apply(sample(source) if source.startswith(SAMPLE) else Path(source))}
    graph.check_inputs(inputs)
    return inputs


def sample(source: str) -> Path:
    """The file of "sample:NAME"."""
    from refnet.models.weights import shipped_folder

    folder = shipped_folder() / "digits"
    known = sorted(path.name for path in folder.glob("*.png"))
    if source[len(SAMPLE) :] not in known:
        raise InputError(f"{source!r} is no sample image; there are {', '.join(known)}")
    return folder / source[len(SAMPLE) :]


def stated(sources: Sources) -> Sources:
    """The sources as a golden file has them: without folders, a sample image by its name.

    >>> stated(Sources("a/net-symbol.json", "b/net-0000.params", "/c/x.npy")).input
    'x.npy'
    """
    from refnet.models.weights import shipped_folder

    source = sources.input
    if not source.startswith((SEED, SAMPLE)):
        samples = (shipped_folder() / "digits").resolve()
        where = Path(source).resolve()
        source = SAMPLE + where.name if where.parent == samples else where.name
    weights = sources.weights
    if weights is not None and not weights.startswith(SEED):
        weights = Path(weights).name
    return replace(sources, model=Path(sources.model).name, weights=weights, input=source)


def located(
    sources: Sources | None,
    folder: Path,
    model: str | None = None,
    weights: str | None = None,
    source: str | None = None,
    pipeline: str | None = None,
    network: str | None = None,
    image: tuple[int, int] | None = None,
) -> Sources:
    """A golden file's sources: what is given here counts; files are else looked for in its folder only.

    source: the input. Raises InputError for what is not there, or is neither in the file nor given.
    """
    from refnet.models.catalog import entries
    from refnet.models.loading import STATES

    def find(what: str, given: str | None, said: str | None, known: bool) -> str | None:
        if given is not None or said is None or known:
            return said if given is None else given
        path = folder / said
        if Path(said).name != said or not os.path.isfile(path):
            raise InputError(f"the golden file's {what}, {said!r}, is not beside it: say where it is")
        return str(path)

    said = sources or Sources("", None, "")
    chosen = find("model", model, said.model, said.model in {"", *entries()})
    holds_weights = model is not None and model.endswith((*STATES, ".params", ".tar"))
    old = None if holds_weights else said.weights
    values = find("weights", weights, old, (old or "").startswith(SEED))
    tensor = find("input", source, said.input, said.input == "" or said.input.startswith((SEED, SAMPLE)))
    if not chosen or not tensor:
        raise InputError(f"the golden file does not say its {'input' if chosen else 'model'}: say which")
    other = model is not None
    return Sources(
        chosen,
        values,
        tensor,
        pipeline or said.pipeline,
        network if other else network or said.network,
        image or said.image,
    )


# Recording and checking.


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

    >>> sources = Sources("resnest-digits")
    >>> file = record(*prepare(sources), sources)
    >>> len(file.values), file.sources.input
    (97, 'seed:0')
    """
    return File(
        hashes(graph, inputs, arithmetic, batch, advance),
        None if sources is None else stated(sources),
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
