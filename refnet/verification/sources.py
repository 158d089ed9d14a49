"""The network and the inputs of a capture: what its manifest names, unless something else is given."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.core.interpreter import check_weights
from refnet.core.op import F32
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import file_name
from refnet.models.converted import usual_pipeline
from refnet.models.input_kinds import kinds_of
from refnet.models.inputs import (
    SAMPLE,
    inputs_from,
    is_tensor,
    located_input,
    located_model,
)
from refnet.models.loading import Model, Size, load, network_of
from refnet.models.seed import seed_of
from refnet.models.synthetic import of_kind
from refnet.verification.capture import Capture, CapturedValues, Values

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, F32]
"""seed:N, sample:NAME, a .npy file, NAME=FILE.npy or images, one or several; or arrays by name."""


REFUSED = "refused by "
"""How a flag begins that says why torch could not export a module."""


def network_and_inputs(
    capture: CapturedValues,
    model: Model | Graph | None,
    *,
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    inputs: Inputs | None = None,
    pipeline: str | None = None,
) -> tuple[Graph, dict[str, F32]]:
    """The graph with its weights, and the inputs that are given, or that the capture itself lacks.

    What is not given is taken from the capture's manifest. Raises InputError where neither says it, for what
    would decide nothing (weights beside a Graph, a pipeline without an image), and WeightsError for a Graph
    without weights.
    """
    said = None if capture.manifest is None else capture.manifest.sources
    _nothing_is_ignored(model, weights, network, image, inputs, pipeline)
    graph, usual = _network(capture, said, model, weights, network, image)
    _no_network_ran(capture, graph)
    if isinstance(inputs, Mapping):
        given = Values({}, inputs)
        return graph, {name: given.input(name) for name in inputs}
    if inputs is not None:
        listed = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
        return graph, inputs_from(graph, [os.fspath(one) for one in listed], pipeline, usual)
    manifest = capture.manifest
    if manifest is None or said is None or all(one.file is not None for one in manifest.inputs.values()):
        return graph, {}
    found = located_input(said, [_folder(capture)])
    return graph, inputs_from(graph, found, None if is_tensor(found) else said.pipeline, usual)


def _no_network_ran(capture: CapturedValues, graph: Graph) -> None:
    """Raises InputError for an order-free run, unless the graph is the order-free model itself.

    Its values are those of single nodes, each on an input of its own: the network's inputs to the nodes would
    make all of them defects.
    """
    manifest = capture.manifest
    if manifest is None or "order-free" not in manifest.reference.flags:
        return
    if manifest.graph is None and all(name in graph.inputs for node in graph.nodes for name in node.data):
        return
    where = capture.folder if isinstance(capture, Capture) else "the capture"
    raise InputError(
        f"{where} is an order-free run: each node ran alone, on an input of its own, and `refnet capture` "
        "said which have the exact result's bits; `refnet diff` compares two such runs"
    )


def _nothing_is_ignored(
    model: Model | Graph | None,
    weights: Model | None,
    network: str | None,
    image: Size | None,
    inputs: Inputs | None,
    pipeline: str | None,
) -> None:
    """Raises InputError for what was given and would decide nothing."""
    if isinstance(model, Graph):
        for name, value in (("weights", weights), ("network", network), ("image", image)):
            if value is not None:
                raise InputError(f"{name} {value}: the model is a Graph, which has its own")
    if pipeline is not None and (inputs is None or isinstance(inputs, Mapping)):
        raise InputError(f"pipeline {pipeline} makes a tensor of an image: name the image as the input")


def _network(
    capture: CapturedValues,
    said: Sources | None,
    model: Model | Graph | None,
    weights: Model | None,
    network: str | None,
    image: Size | None,
) -> tuple[Graph, str | None]:
    """The graph, and the pipeline of its images if the catalog knows it."""
    if isinstance(model, Graph):
        check_weights(model)
        return model, None
    if model is None and (said is None or not said.model):
        where = capture.folder if isinstance(capture, Capture) else "the capture"
        raise InputError(f"{where} {_without_network(capture)}: name the MODEL")
    name = None if model is None else os.fspath(model)
    given = None if weights is None else os.fspath(weights)
    places = (Path(), _folder(capture))
    chosen = located_model(said, places, name, given, network, image, "the capture")
    graph = load(chosen.model, weights=chosen.weights, network=chosen.network, image=chosen.image)
    entry = network_of(chosen.model, chosen.network)
    return graph, usual_pipeline(chosen.model, entry)


def _without_network(capture: CapturedValues) -> str:
    """Why a capture has no network of its own, and what can be done with it."""
    flags = {} if capture.manifest is None else capture.manifest.reference.flags
    refused = [f"{key.removeprefix(REFUSED)}: {why}" for key, why in flags.items() if key.startswith(REFUSED)]
    if not refused:
        return "does not say of which network its values are"
    return (
        f"is of a module that torch cannot export ({'; '.join(refused)[:300]}), so no graph can judge "
        "it by; `refnet diff` compares it with another capture of the module, and to judge it"
    )


def _folder(capture: CapturedValues) -> Path:
    return capture.folder if isinstance(capture, Capture) else Path()


def _batched(graph: Graph, name: str, array: F32) -> tuple[int, ...]:
    """The input's shape, of as many images as the array can hold, whatever the order of its axes."""
    image = graph.inputs[name].shape[1:]
    return (max(array.size // max(math.prod(image), 1), 1), *image)


def stated_inputs(graph: Graph, capture: CapturedValues) -> dict[str, F32]:
    """What the source that a manifest names makes: a seed or a sample, or an image beside the capture.

    Nothing where it names none, or a file that is not there: the capture's own array is then all there is.
    """
    manifest = capture.manifest
    said = None if manifest is None else manifest.sources
    if manifest is None or said is None or set(manifest.inputs) != set(graph.inputs):
        return {}
    source = said.input
    seed = seed_of(source, "input")
    if seed is not None:  # of any batch
        return {
            name: of_kind(seed, name, _batched(graph, name, capture.input(name)), kind)
            for name, kind in kinds_of(graph).items()
        }
    if source in {file_name(name) for name in graph.inputs} or not source or said.pipeline is None:
        return {}
    if not source.startswith(SAMPLE):
        path = _folder(capture) / source
        if Path(source).name != source or not path.is_file():
            return {}
        source = str(path)
    return inputs_from(graph, source, said.pipeline)
