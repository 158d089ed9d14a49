"""The inputs of a network, from what names them: seed:N, sample:NAME, a .npy file or an image.

located (a golden file's sources, found on this machine) ── prepare ── graph, inputs
portable (the same without folders, as files have them)

Importing this imports no network and no kernel: a test that compares hashes needs neither.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refnet.core.errors import InputError
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import NAME as MANIFEST
from refnet.formats.manifest import NETWORK, file_name
from refnet.models.input_kinds import Kinds, kinds_of
from refnet.models.seed import SEED, seed_of
from refnet.models.weights_file import holds_weights_only, source_of

if TYPE_CHECKING:
    from refnet.core.graph import Graph
    from refnet.core.op import F32

SAMPLE = "sample:"
"""Before the name of an image that ships with refnet."""
NAMED = re.compile(r"[^/=:]+=.")
"""How NAME=FILE.npy begins."""


def prepare(sources: Sources) -> tuple[Graph, dict[str, F32]]:
    """The graph with its weights, and its inputs by name. Errors: as `refnet.load` and the readers of inputs.

    >>> graph, inputs = prepare(Sources("resnest-digits", input="sample:1700-label-5.png", pipeline="digits"))
    >>> inputs["data"].shape
    (1, 1, 32, 32)
    """
    from refnet.models.loading import load

    graph = load(sources.model, weights=sources.weights, network=sources.network, image=sources.image)
    return graph, inputs_from(graph, sources.input, sources.pipeline)


def inputs_from(
    graph: Graph, given: str | Sequence[str], pipeline: str | None, usual: str | None = None
) -> dict[str, F32]:
    """The inputs by name, of what is given for --input. pipeline, usual: as for `read_inputs`."""
    inputs = dict(read_inputs(given, kinds_of(graph), pipeline=pipeline, usual=usual).arrays)
    graph.check_inputs(inputs)
    return inputs


@dataclass(frozen=True)
class Inputs:
    """Arrays by name. source: where they come from. remade: the sources make them anew, bit for bit."""

    arrays: Mapping[str, F32]
    source: str
    remade: bool
    pipeline: str | None

    @property
    def batch(self) -> int:
        """Images."""
        return len(next(iter(self.arrays.values())))


def read_inputs(
    given: str | Sequence[str],
    kinds: Kinds,
    *,
    pipeline: str | None = None,
    usual: str | None = None,
    batch: int | None = None,
) -> Inputs:
    """What --input means in every command: seed:N, sample:NAME, a .npy file, images (a batch), NAME=FILE.npy.

    A folder has a .npy file for each input, named after it. kinds: what each must be. pipeline: what was
    named to make a tensor of an image; usual: the network's own. batch: how many images of a seed; of
    anything else, how many there must be. Raises InputError for what does not fit kinds, or one another, and
    for a pipeline without an image.
    """
    listed = [given] if isinstance(given, str) else list(given)
    named = [text.partition("=") for text in listed if NAMED.match(text)]
    tensors = [text for text in listed if is_tensor(text)]
    if tensors and pipeline is not None:
        raise InputError(f"pipeline {pipeline} makes a tensor of an image: {tensors[0]} is a tensor already")
    if named and len(named) == len(listed):
        return named_inputs({name: path for name, _, path in named}, kinds, batch)
    if len(listed) == 1 and os.path.isdir(listed[0]):
        return named_inputs({name: os.path.join(listed[0], file_name(name)) for name in kinds}, kinds, batch)
    if len(listed) == 1 and listed[0].startswith(SEED):
        return _seeded(listed[0], kinds, batch)
    if len(kinds) != 1:
        raise InputError(f"the network's inputs are {', '.join(kinds)}: give each as NAME=FILE.npy")
    ((name, kind),) = kinds.items()
    if len(listed) == 1 and tensors:
        return named_inputs({name: listed[0]}, kinds, batch)
    if tensors:
        raise InputError("several inputs must be images: a batch of tensors is one .npy file")
    chosen = pipeline or usual
    if kind.dtype != "float32":
        raise InputError(f"{listed[0]} is an image, and the input {name} is {kind.dtype}: give a .npy file")
    array = np.concatenate([_image(name, kind.shape, text, chosen) for text in listed])
    _check_batch(batch, len(array))
    one = len(listed) == 1
    source = portable(Sources("", None, listed[0])).input if one else file_name(name)
    return Inputs({name: array}, source, one and source.startswith(SAMPLE), chosen if one else None)


def named_inputs(files: Mapping[str, str], kinds: Kinds, batch: int | None = None) -> Inputs:
    """The inputs of .npy files, one for each name of kinds. Raises as `read_inputs`."""
    from refnet.core.op import TensorType
    from refnet.models.predict import input_tensor

    if set(files) != set(kinds):
        raise InputError(f"inputs are given for {', '.join(files)}, the network has {', '.join(kinds)}")
    types = {name: TensorType(kind.shape, kind.dtype) for name, kind in kinds.items()}
    arrays = {name: input_tensor(Path(files[name]), types[name]).read() for name in kinds}
    counts = {len(array) for array in arrays.values()}
    if len(counts) > 1:
        raise InputError(f"the inputs' first dimensions must be one batch size, got {sorted(counts)}")
    _check_batch(batch, *counts)
    return Inputs(arrays, file_name(next(iter(kinds))), False, None)


def _seeded(source: str, kinds: Kinds, batch: int | None) -> Inputs:
    """Synthetic images. A seed alone makes what a network's own shape says: other batches keep their file.

    So do integers, whose limits the network decides.
    """
    from refnet.models.synthetic import of_kind

    seed = seed_of(source, "input")
    assert seed is not None
    arrays = {
        name: of_kind(seed, name, (batch or kind.shape[0], *kind.shape[1:]), kind)
        for name, kind in kinds.items()
    }
    own = all(kind.dtype == "float32" and arrays[name].shape == kind.shape for name, kind in kinds.items())
    return Inputs(arrays, source, own, None)


def _image(name: str, shape: tuple[int, ...], text: str, pipeline: str | None) -> F32:
    from refnet.models.preprocess import pipeline as by_name

    if pipeline is None:
        raise InputError(f"{text} is an image: say how it becomes a tensor, with a pipeline")
    array = by_name(pipeline).apply(sample_or_path(text))
    if array.shape != shape:
        raise InputError(f"{text}: the pipeline gives {list(array.shape)}, {name} is {list(shape)}")
    return array


def _check_batch(said: int | None, found: int) -> None:
    if said not in (None, found):
        raise InputError(f"batch is {said}, but the input has {found}: a batch is counted by the input")


def sample(source: str) -> Path:
    """The file of "sample:NAME"."""
    from refnet.models.weights import shipped_folder

    folder = shipped_folder() / "digits"
    known = sorted(path.name for path in folder.glob("*.png"))
    if source[len(SAMPLE) :] not in known:
        raise InputError(f"{source!r} is not a sample image; there are {', '.join(known)}")
    return folder / source[len(SAMPLE) :]


def sample_or_path(source: str) -> Path:
    """The file of an image: of "sample:NAME", or the one that is named."""
    return sample(source) if source.startswith(SAMPLE) else Path(source)


def portable(sources: Sources) -> Sources:
    """The sources as a golden file has them: without folders, a sample image by its name.

    A capture's graph keeps its folder's name: so the folder is found beside the golden file.

    >>> portable(Sources("a/net-symbol.json", "b/net-0000.params", "/c/x.npy")).input
    'x.npy'
    """
    from refnet.models.weights import shipped_folder

    source = sources.input
    if NAMED.match(source):
        source = source.partition("=")[2]
    if not source.startswith((SEED, SAMPLE)):
        samples = (shipped_folder() / "digits").resolve()
        where = Path(source).resolve()
        source = SAMPLE + where.name if where.parent == samples else where.name
    weights = sources.weights
    if weights is not None and not weights.startswith(SEED):
        of = source_of(weights)
        structure = None if of.structure is None else Path(of.structure).name
        weights = replace(of, file=Path(of.file).name, structure=structure).text
    model = Path(sources.model)
    folder = model.resolve().parent
    inside = source_of(model.name).file == NETWORK and (folder / MANIFEST).is_file() and folder.name
    return replace(
        sources, model=f"{folder.name}/{model.name}" if inside else model.name, weights=weights, input=source
    )


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
    said = sources or Sources("", None, "")
    capture = _captured_in(said.model)
    captured = model is None and capture
    for what, text, own in (("model", said.model, model), ("weights", said.weights, weights)):
        if (
            own is None
            and text is not None
            and Path(text).name != text
            and not (captured and what == "model")
        ):
            raise InputError(f"the golden file's {what}, {text!r}, is not beside it: say where it is")
    try:
        chosen = located_model(sources, (folder,), model, weights, network, image, "the golden file")
    except InputError as error:
        if not captured:
            raise
        raise InputError(
            f"the golden file was made of the capture in the folder {captured!r}, which is not beside it: "
            "name the folder as the MODEL"
        ) from error
    graph = Path(source_of(chosen.model).file)
    places = [folder, graph.parent] if graph.name == NETWORK else [folder]  # a capture's inputs lie in it
    if source is not None:
        tensor = source
    elif capture and said.input == capture and graph.name == NETWORK:
        tensor = str(graph.parent)
    else:
        tensor = located_input(said, places, "the golden file")
    if not chosen.model or not tensor:
        raise InputError(
            f"the golden file does not say its {'input' if chosen.model else 'model'}: say which"
        )
    return replace(chosen, input=tensor, pipeline=pipeline or (None if is_tensor(tensor) else said.pipeline))


def located_model(
    sources: Sources | None,
    places: Sequence[Path],
    model: str | None,
    weights: str | None,
    network: str | None,
    image: tuple[int, int] | None,
    who: str,
) -> Sources:
    """The model and weights that a file names, where they lie on this machine; what is given here counts.

    A file is looked for under the path recorded, as seen from each place, and by its bare name there. places:
    Path() is the current folder. who: what names it, for messages. Raises InputError for a file that is
    nowhere.
    """
    from refnet.models.catalog import entries

    said = sources or Sources("", None, "")
    chosen = model
    if chosen is None:
        known = source_of(said.model).file in {"", *entries()}
        chosen = said.model if known else _found_source("model", said.model, places, who)
    values = weights
    holds_weights = model is not None and (holds_weights_only(model) or model.endswith(".tar"))
    if values is None and said.weights is not None and not holds_weights:
        seeded = said.weights.startswith(SEED)
        values = said.weights if seeded else _found_source("weights", said.weights, places, who)
    chosen_network = network if model is not None else network or said.network
    return replace(said, model=chosen, weights=values, network=chosen_network, image=image or said.image)


def _found_source(what: str, text: str, places: Sequence[Path], who: str) -> str:
    """A file of weights or a graph that is named, with its key, and its structure file found too."""
    of = source_of(text)
    structure = None if of.structure is None else _found(what, of.structure, places, who)
    return replace(of, file=_found(what, of.file, places, who), structure=structure).text


def _captured_in(model: str) -> str:
    """The name of a capture's folder, if a golden file names a graph in one as `portable` does; else ""."""
    folder, _, file = model.partition("/")
    sound = source_of(file).file == NETWORK and folder not in ("", ".", "..") and "\\" not in folder
    return folder if sound else ""


def located_input(said: Sources, folders: Sequence[Path], who: str = "the capture") -> str:
    """The input that a file names: a seed, a sample, "" if it names none, or a file in one of the folders."""
    if said.input == "" or said.input.startswith((SEED, SAMPLE)):
        return said.input
    if said.input == ".." or Path(said.input).name != said.input:
        raise InputError(f"{who}'s input, {said.input!r}, is not beside it: say where it is")
    return _found("input", said.input, folders[::-1], who)


def _found(what: str, text: str, places: Sequence[Path], who: str) -> str:
    """A file that is named: under its path, or by its bare name, as seen from each place.

    A bare name is looked for in the last place first: what lies beside a capture belongs to it.
    """
    bare = [place / Path(text).name for place in reversed(places)]
    tries = bare if Path(text).name == text else [place / text for place in places] + bare
    for path in tries:
        if os.path.isfile(path) or (what == "input" and os.path.isdir(path)):
            return str(path)
    looked = (
        "not beside it"
        if what == "input" or len(places) == 1
        else "neither at that path, nor beside it, nor here"
    )
    raise InputError(f"{who}'s {what}, {text!r}, is {looked}: say where it is")


def is_tensor(source: str) -> bool:
    """Whether an input is no image: a seed, a .npy file, a folder of them."""
    return source.startswith(SEED) or source.endswith(".npy") or os.path.isdir(source)


def with_pipeline(sources: Sources) -> Sources:
    """The sources with the network's own pipeline, if the input is an image and no other is named.

    Raises InputError for a pipeline that there is not, even where none is needed.

    >>> with_pipeline(Sources("resnest-digits", input="sample:1700-label-5.png")).pipeline
    'digits'
    """
    from refnet.models.converted import usual_pipeline
    from refnet.models.loading import network_of
    from refnet.models.preprocess import pipeline as by_name

    if sources.pipeline is not None:
        by_name(sources.pipeline)
    if is_tensor(sources.input):
        return sources  # where a pipeline is refused
    entry = network_of(sources.model, sources.network)
    return replace(sources, pipeline=sources.pipeline or usual_pipeline(sources.model, entry))
