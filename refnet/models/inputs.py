"""The inputs of a network, from what names them: seed:N, sample:NAME, a .npy file or an image.

located (a golden file's sources, found on this machine) ── prepare ── graph, inputs
portable (the same without folders, as files have them)

Importing this imports no network and no kernel: a test that compares hashes needs neither.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from refnet.core.errors import InputError
from refnet.formats.golden_file import Sources
from refnet.models.seed import SEED, seed_of
from refnet.models.weights_file import holds_weights_only, source_of

if TYPE_CHECKING:
    from refnet.core.graph import Graph
    from refnet.core.op import F32

SAMPLE = "sample:"
"""Before the name of an image that ships with refnet."""


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

    seed = seed_of(source, "input")
    if seed is not None:
        return {name: normal(seed, name, kind.shape) for name, kind in graph.inputs.items()}
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


def portable(sources: Sources) -> Sources:
    """The sources as a golden file has them: without folders, a sample image by its name.

    >>> portable(Sources("a/net-symbol.json", "b/net-0000.params", "/c/x.npy")).input
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
        of = source_of(weights)
        structure = None if of.structure is None else Path(of.structure).name
        weights = replace(of, file=Path(of.file).name, structure=structure).text
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

    def find(what: str, given: str | None, said: str | None, known: bool) -> str | None:
        if given is not None or said is None or known:
            return said if given is None else given
        of = source_of(said)
        parts = [of.file, *([] if of.structure is None else [of.structure])]
        if any(Path(part).name != part or not os.path.isfile(folder / part) for part in parts):
            raise InputError(f"the golden file's {what}, {said!r}, is not beside it: say where it is")
        structure = None if of.structure is None else str(folder / of.structure)
        return replace(of, file=str(folder / of.file), structure=structure).text

    said = sources or Sources("", None, "")
    chosen = find("model", model, said.model, said.model in {"", *entries()})
    holds_weights = model is not None and (holds_weights_only(model) or model.endswith(".tar"))
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


def with_pipeline(sources: Sources) -> Sources:
    """The sources with the network's own pipeline, if the input is an image and no other is named.

    Raises InputError for a pipeline that there is not, even where none is needed.

    >>> with_pipeline(Sources("resnest-digits", input="sample:1700-label-5.png")).pipeline
    'digits'
    """
    from refnet.models.loading import network_of
    from refnet.models.preprocess import pipeline as by_name

    if sources.pipeline is not None:
        by_name(sources.pipeline)
    if sources.input.startswith(SEED) or sources.input.endswith(".npy"):
        return replace(sources, pipeline=None)
    entry = network_of(sources.model, sources.network)
    return replace(sources, pipeline=sources.pipeline or (entry.pipeline if entry else None))
