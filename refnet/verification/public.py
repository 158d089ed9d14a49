"""The public functions of verification, which find networks, inputs and captures by their names.

    refnet.verify ─────── network_and_inputs (sources.py) ── verify_values (verify.py)
    refnet.explain ────── network_and_inputs, or prepare ─── explain_element (explain.py)
    refnet.write_golden ─ prepare (models/inputs.py) ─────── golden.record
    refnet.check_golden ─ located, prepare ───────────────── golden.compare

`refnet.diff` stands in diff.py.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from refnet.arithmetic.engines import check_compiler, check_threads, thread_count
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.replay import Replay
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from refnet.core.orders import Book
from refnet.formats import book as book_file
from refnet.formats import golden_file
from refnet.formats.arguments import COUNT, MODEL, OPTIONAL, OPTIONAL_CAPTURE, PATH, check_arguments
from refnet.formats.golden_file import File, Sources
from refnet.models.inputs import located, prepare, with_pipeline
from refnet.models.loading import Model, Size, is_capture, module_network
from refnet.models.select import with_only
from refnet.models.weights_file import source_of
from refnet.verification import golden
from refnet.verification.capture import CapturedValues, opened
from refnet.verification.counterparts import Counterparts, counterparts, own_graph
from refnet.verification.explain import Explanation, explain_element, own_inputs
from refnet.verification.modules import named_node
from refnet.verification.names import Names, check_names, read_names, renamed
from refnet.verification.progress import Progress, advancing
from refnet.verification.sources import Inputs, network_and_inputs, stated_inputs
from refnet.verification.verifier import gather
from refnet.verification.verify import Verification, verify_values

Captured = str | os.PathLike[str] | Mapping[str, F32] | CapturedValues
"""A capture: its folder, an open one, or values by name."""


def verify(
    capture: Captured,
    model: Model | Graph | None = None,
    *,
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    inputs: Inputs | None = None,
    pipeline: str | None = None,
    book: str | os.PathLike[str] | Book | None = None,
    only: Collection[str] = (),
    outputs: Collection[str] = (),
    threads: int | None = None,
    other_sources: bool = False,
    names: Names | None = None,
    allow: Collection[str] = (),
    progress: Progress | None = None,
) -> Verification:
    """Judge every value of a capture: equal, replayed, rounding, defect or unjudged (docs/verify.md).

    capture: its folder, an open capture, or values by name. model, weights, network, image: as for
    `refnet.load`, or a Graph with its weights; default: what the capture's manifest names. inputs: the
    network's inputs, if the capture has none: arrays by name, or seed:N, sample:NAME, a .npy file or an
    image, which the pipeline makes a tensor. book: recipes of the framework, whose bits are `replayed`. only:
    judge these nodes only, without a whole run. outputs: values in the place of the network's outputs, which
    refnet's own run ends with: only what they need is judged. threads: None takes all processors.
    other_sources: judge although the capture was made of another graph or other weights. names: captured
    name -> name of a value, or the JSON file of such an object. allow: names and patterns (* and ?) of values
    that may match nothing, or be unjudged. progress: called after each node with (nodes done, of how many).

    Raises InputError if there is nothing to judge with: no network, other weights, inputs that do not fit;
    FormatError for a file that is not what the manifest says.

    >>> import numpy as np
    >>> import refnet
    >>> graph = refnet.load("resnest-digits")
    >>> x = {"data": np.zeros((1, 1, 32, 32), np.float32)}
    >>> values = {node.name: value for node, value in refnet.steps(graph, x)}
    >>> verification = refnet.verify(values, graph, inputs=x)
    >>> verification.judged, verification.first_defect, verification.exit_code
    (97, None, 0)
    """
    check_arguments(locals())
    check_compiler()
    check_threads(threads)
    chosen = {} if names is None else read_names(names)
    source = renamed(opened(capture), chosen)
    if book is not None and not isinstance(book, Book):
        book = book_file.read(book)
    graph, given = network_and_inputs(
        source, model, weights=weights, network=network, image=image, inputs=inputs, pipeline=pipeline
    )
    check_names(graph, chosen)
    other = None if chosen or other_sources else _other_file(source, graph, given, threads)
    if other is not None:
        graph, source, given = other.graph, other.capture, {}
    stated = {} if given or other is not None else stated_inputs(graph, source)
    whole, graph = graph, with_only(graph, [*outputs]) if outputs else graph
    found = verify_values(
        graph,
        source,
        whole=whole,
        inputs={name: array for name, array in given.items() if name in graph.inputs},
        stated={name: array for name, array in stated.items() if name in graph.inputs},
        replay=None if book is None else Replay(book, threads),
        book=None if book is None else vars(book.reference) | {"recipes": len(book.recipes)},
        only=only,
        threads=threads,
        other_sources=other_sources,
        allow=allow,
        advance=advancing(progress, len(graph.nodes)),
    )
    return found if other is None else other.added(found)


def explain(
    model: Model | Graph | None,
    node: str,
    at: Sequence[int],
    *,
    capture: Captured | None = None,
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    inputs: Inputs | None = None,
    pipeline: str | None = None,
    names: Names | None = None,
    threads: int | None = None,
) -> Explanation:
    """One element of a node's value as arithmetic: its terms, exact sum, plain steps, golden bits and bound.

    model, weights, network, image, inputs, pipeline, names: as for `refnet.verify`. at: the element's
    indices. capture: the node's inputs, and the value beside refnet's own, are taken from it (a model that is
    the folder of a torch module's capture is one); without one, refnet's own run makes them from `inputs`.

    Raises InputError if there is no such node or element, or too little is given to compute its inputs.

    >>> import refnet
    >>> one = refnet.explain("resnest-digits", "fc", (0, 5), inputs="seed:0")
    >>> one.element.terms.values.size, one.golden == one.plain
    (128, np.True_)
    """
    check_arguments(locals(), {"capture": OPTIONAL_CAPTURE})
    check_compiler()
    check_threads(threads)
    count = thread_count(threads)
    listed = {} if names is None else read_names(names)
    if capture is None and inputs is None and _is_module(model):
        capture = source_of(model).file
    if capture is None and listed:
        raise InputError("names are for the values of a capture: name it with --capture DIR")
    if capture is not None:
        source = renamed(opened(capture), listed)
        graph, given = network_and_inputs(
            source, model, weights=weights, network=network, image=image, inputs=inputs, pipeline=pipeline
        )
        check_names(graph, listed)
        if not listed and (other := _other_file(source, graph, given, threads)) is not None:
            graph, source, given, stated = other.graph, other.capture, {}, {}
        else:
            stated = {} if given else stated_inputs(graph, source)
        chosen = _of_floats(graph, node)
        told = gather(graph, source, chosen, given, count, stated)
        return explain_element(chosen, told.inputs, tuple(at), told.found, count, told.note)
    graph, given = network_and_inputs(
        opened({}), model, weights=weights, network=network, image=image, inputs=inputs, pipeline=pipeline
    )
    chosen = _of_floats(graph, node)
    if inputs is None:
        raise InputError("what goes into the network? --input X, or --capture DIR")
    return explain_element(chosen, own_inputs(graph, given, chosen, threads), tuple(at), None, count)


def write_golden(
    path: str | os.PathLike[str],
    model: Model,
    inputs: str | os.PathLike[str],
    *,
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    pipeline: str | None = None,
    batch: int = 1,
    threads: int | None = None,
    progress: Progress | None = None,
) -> File:
    """Write a golden file: the sha256 of every golden value of a network, and of what they are made of.

    model, weights, network, image: as for `refnet.load`. inputs: seed:N, sample:NAME, a .npy file or an
    image, which the pipeline (default: the network's) makes a tensor. batch: images at a time; threads, batch
    change no hash. progress: called after each node with (nodes done, of how many). Raises as `refnet.load`
    and the readers of inputs; InputError for a batch below 1.

    >>> import tempfile
    >>> import refnet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = refnet.write_golden(folder + "/golden.json", "resnest-digits", "seed:0")
    ...     len(file.values), refnet.check_golden(folder + "/golden.json")
    (97, ())
    """
    check_arguments(locals(), {"model": MODEL, "inputs": PATH, "batch": COUNT})
    said = Sources(
        module_network(os.fspath(model)), _text(weights), os.fspath(inputs), pipeline, network, image
    )
    sources = with_pipeline(said)
    graph, data = prepare(sources)
    advance = advancing(progress, golden.count(graph, data, batch))
    file = golden.record(graph, data, sources, Golden(threads), batch, advance)
    golden_file.write(path, file)
    return file


def check_golden(
    path: str | os.PathLike[str],
    model: Model | None = None,
    *,
    inputs: str | os.PathLike[str] | None = None,
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    pipeline: str | None = None,
    batch: int = 1,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[golden.Difference, ...]:
    """Compute every golden value of a golden file again; what differs, in order of execution, () if nothing.

    Arguments: as for `refnet.write_golden`; what is not given is what the file names, files being looked for
    beside it only. Raises InputError for what is not there.

    >>> import refnet
    >>> from refnet.models.weights import shipped_folder
    >>> refnet.check_golden(shipped_folder() / "golden" / "resnest-digits.json")
    ()
    """
    check_arguments(locals(), {"model": OPTIONAL, "inputs": OPTIONAL, "batch": COUNT})
    file = golden_file.read(path)
    where = Path(path).parent
    source = _text(inputs)
    own = None if model is None else module_network(os.fspath(model))
    said = located(file.sources, where, own, _text(weights), source, pipeline, network, image)
    graph, data = prepare(with_pipeline(said))
    advance = advancing(progress, golden.count(graph, data, batch))
    values = golden.hashes(graph, data, Golden(threads), batch, advance)
    return golden.compare(file, graph, data, values)


def _other_file(
    source: CapturedValues, graph: Graph, inputs: Mapping[str, F32], threads: int | None
) -> Counterparts | None:
    """What was matched, where the graph is of another file than the module that was captured."""
    own = own_graph(source, graph)
    return None if own is None else counterparts(source, own, graph, inputs, threads)


def _is_module(model: Model | Graph | None) -> TypeGuard[Model]:
    """Whether it is the folder of a torch module's capture, which has values, too."""
    if model is None or isinstance(model, Graph):
        return False
    return is_capture(os.fspath(model))


def _of_floats(graph: Graph, name: str) -> Node:
    """The node of a value. Raises InputError if it holds integers, of which there is nothing to explain."""
    node = named_node(graph, name)
    kind = graph.types()[name].dtype
    if kind != "float32":
        raise InputError(f"{name} is {kind}, computed without rounding: what is explained are float32 values")
    return node


def _text(path: Model | None) -> str | None:
    return None if path is None else os.fspath(path)
