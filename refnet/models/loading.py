"""From a name or a file to a graph with its weights: the one function that knows all kinds of models.

    load ── _catalog ── catalog.build ──┐
      ├──── _symbol ─── formats/mxnet ──┼── _with ── seed:N | .params | .tar | .pth | .safetensors
      ├──── _archive ── formats/mxnet   │
      ├──── _onnx ───── formats/onnx    │
      ├──── _ir ─────── formats/openvino│
      └──── _state ──── catalog.build ──┘      (weights_file.py reads the files)

`structure` is the same without weights, for what needs only shapes. A symbol file or an archive of a network
of the catalog must have the builder's weights, by name and shape.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from refnet.core.errors import FormatError, GraphError, InputError, WeightsError
from refnet.core.graph import Graph
from refnet.core.op import F32, Interval, Op, TensorType
from refnet.formats.manifest import NETWORK
from refnet.models.catalog import Entry, build, entries, entry, named_by
from refnet.models.labels import labels
from refnet.models.seed import seed_of
from refnet.models.select import with_only
from refnet.models.weights_file import (
    STATES,
    WeightsSource,
    holds_weights_only,
    read_weights,
    source_of,
    with_weights,
)
from refnet.ops import Conv

MOST_PIXELS = 1 << 24

Size = tuple[int, int]
Shapes = Mapping[str, tuple[int, ...]]
Model = str | os.PathLike[str]


def load(
    model: Model,
    *,
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
) -> Graph:
    """The graph of a model with its weights.

    model: a name of the catalog, or the path of a `*-symbol.json`, of an official `.tar`, of an `.onnx`, of
        an `.xml` of OpenVINO's IR with its `.bin` beside it, of the folder of a torch module's capture, or of
        torch's weights (`.pth`, `.pt`, `.ckpt`,
        `.bin`, `.safetensors`, `.safetensors.index.json`) or `.params`, the latter two together with
        `network` unless they have an official file's name. Behind any of them may stand which values are
        wanted in the place of its outputs, as in `net.onnx?output=conv1&output=fc`; only what they need is
        then in the graph. Behind an `.onnx` also the shapes of inputs whose sizes it leaves open:
        `net.onnx?shape=x:1,3,224,224`. Names are percent-encoded.
    weights: the path of torch's weights, a `.params` or `.tar`, or "seed:N" for synthetic weights. After the
        path of a checkpoint with several may stand which: `net.pth?key=state_dict_ema`; after that of a
        `.params` with structural names their structure file: `net.params?structure=net-structure.json`.
        What is taken, if it is not all of a file, is said to the logger "refnet". Default: for a name the
        weights that ship with refnet, else the fetched official file; for X-symbol.json the file
        X-0000.params beside it, else the only .params in its folder; an `.onnx` and an `.xml` hold their own.
    network: the catalog name whose architecture a file belongs to.
    image: (h, w) of the input, default the catalog's, or 224, 224 for a symbol file that is not in it, or
        what an `.onnx` or `.xml` says. The weights of a seed do not depend on it.

    Raises InputError (an argument of the wrong kind, no such name, no weights found, ambiguous, a bad
    seed), WeightsError (weights do not fit, or a file is of another network), and the readers'
    FormatError, UnsupportedError and GraphError.

    >>> graph = load("resnest-digits", weights="seed:0")
    >>> graph.inputs, len(graph.weights)
    ({'data': float32[1, 1, 32, 32]}, 124)
    >>> load("resnest-digits", weights="seed:z")
    Traceback (most recent call last):
    refnet.core.errors.InputError: weights must be a file or seed:N with N from 0 to 2**64 - 1, got 'seed:z'
    """
    name, image = _check(model, weights, network, image)
    of = source_of(name)
    graph = _loaded(_plain(of), weights, network, image, dict(of.shapes))
    return with_only(graph, of.outputs) if of.outputs else graph


def _plain(of: WeightsSource) -> str:
    """The model's text without what is said of inputs and outputs. Raises InputError where none can be."""
    if of.shapes and not of.file.endswith(".onnx"):
        raise InputError(f"shapes are for .onnx files, not for {of.file}: image (--image H,W) gives a size")
    return replace(of, shapes=(), outputs=()).text


def _loaded(
    name: str, weights: Model | None, network: str | None, image: Size | None, shapes: Shapes
) -> Graph:
    if image is not None and weights is not None and _seed(weights) is not None and not shapes:
        return _seeded(name, weights, network, image)
    if name in entries():
        return _catalog(_chosen(entry(name), network), weights, image)
    if holds_weights_only(name):
        return _state(name, weights, network, image)
    if name.endswith(".json"):
        return _symbol(Path(name), weights, network_of(name, network), image)
    if name.endswith(".tar"):
        graph = _archive(Path(name), network_of(name, network), image)
        return graph if weights is None else _with(graph, weights)
    if name.endswith(".onnx"):
        graph = _onnx(Path(name), network_of(name, network), image, shapes)
        return graph if weights is None else _with(graph, weights)
    if name.endswith(".xml"):
        graph = _ir(Path(name), network_of(name, network), image)
        return graph if weights is None else _with(graph, weights)
    raise _unknown(name)


def structure(model: Model, *, network: str | None = None, image: Size | None = None) -> Graph:
    """The graph of a model without weights; model, network, image and errors as for `load`.

    >>> len(structure("octave-se-resnet-50-0.125").nodes)
    806
    """
    name, image = _check(model, None, network, image)
    of = source_of(name)
    graph = _structure(_plain(of), network, image, dict(of.shapes))
    return with_only(graph, of.outputs) if of.outputs else graph


def _structure(name: str, network: str | None, image: Size | None, shapes: Shapes) -> Graph:
    if name in entries():
        chosen = _chosen(entry(name), network)
        return build(chosen, image)
    if holds_weights_only(name):  # the graph is the network's, but the file must be its weights
        return replace(_state(name, None, network, image), weights={})
    if name.endswith(".json"):
        return _read_symbol(Path(name), None, network_of(name, network), image)
    if name.endswith(".tar"):
        return replace(_archive(Path(name), network_of(name, network), image), weights={})
    if name.endswith(".onnx"):
        return replace(_onnx(Path(name), network_of(name, network), image, shapes), weights={})
    if name.endswith(".xml"):
        return replace(_ir(Path(name), network_of(name, network), image), weights={})
    raise _unknown(name)


def network_of(model: Model, network: str | None = None) -> Entry | None:
    """The catalog's entry of a model: the one named, or the one whose name a model or its file has.

    `catalog.named_by` says which names of files are known. Raises InputError if `network` is in no catalog.

    >>> network_of("nets/resnest-digits-symbol.json").dataset, network_of("net-symbol.json")
    ('digits', None)
    """
    name = source_of(model).file
    if network is not None and network not in entries() and os.path.isfile(network):
        raise InputError(
            f"{network!r} is a file: give it as the MODEL; --model (network= in Python) is for a name of "
            "the catalog"
        )
    if network is not None or name in entries():
        return entry(network or name)
    return named_by(name)


def _check(
    model: Model, weights: Model | None, network: str | None, image: Size | None
) -> tuple[str, Size | None]:
    """The model as text and the image as whole numbers, all arguments checked."""
    name = module_network(_path("model", "a name or a path", model))
    if weights is not None:
        _path("weights", "a path or seed:N", weights)
    if network is not None and not isinstance(network, str):
        raise InputError(f"network must be a name of the catalog, got {network!r}")
    return name, None if image is None else _size(image)


def module_network(model: str) -> str:
    """The model; of the folder of a torch module's capture, alone or with ?output=NAME, the graph in it.

    >>> module_network("resnest-digits")
    'resnest-digits'
    """
    of = source_of(model)
    file = os.path.join(of.file, NETWORK)
    return replace(of, file=file).text if os.path.isdir(of.file) and os.path.isfile(file) else model


def is_capture(model: str) -> bool:
    """Whether it is the folder of a torch module's capture, alone or with ?output=NAME."""
    return module_network(model) != model


def _path(argument: str, what: str, value: object) -> str:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise InputError(f"{argument} must be {what}, got {value!r}")
    return path


def _size(image: object) -> Size:
    """Two whole numbers (NumPy's, too) that make an image."""
    pair = image if isinstance(image, tuple | list) and len(image) == 2 else (None, None)
    try:
        height, width = map(operator.index, pair)
    except TypeError:
        height = width = 0
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise InputError(
            f"image must be (h, w), both at least 1, at most {MOST_PIXELS} pixels, got {image!r}"
        )
    return height, width


def _unknown(name: str) -> InputError:
    """What to say of a model that is neither a name nor a kind of file that can be read."""
    if os.path.isfile(name):
        kinds = f"*-symbol.json, .tar, .onnx, .xml, {', '.join(STATES)} or .params"
        return InputError(f"{name} is no {kinds}, nor the name of a network")
    try:
        entry(name)
    except InputError as error:
        file = "it is no file" if os.path.lexists(name) else "there is no such file"
        return InputError(f"{error} (and {file})")
    raise AssertionError(name)


def _chosen(found: Entry, network: str | None) -> Entry:
    if network not in (None, found.name):
        raise InputError(f"network is {network!r}, but the model is {found.name!r} already: leave it out")
    return found


def _needed(file: str, network: str | None) -> Entry:
    """The network that a file of weights belongs to: the one named, or the one that published the file."""
    found = network_of(source_of(file).file, network)
    if found is None:
        raise InputError(f"{file} holds weights without a graph: name the network that they belong to")
    return found


# Catalog names.


def _catalog(chosen: Entry, weights: Model | None, image: Size | None) -> Graph:
    if weights is None:
        if chosen.shipped is None:
            return _fetched(chosen, image)
        from refnet.models.weights import shipped_folder

        weights = shipped_folder() / chosen.shipped
    if os.fspath(weights).endswith(".tar") and not holds_weights_only(os.fspath(weights)):
        return _archive(Path(weights), chosen, image)
    return _with(build(chosen, image), weights)


def _fetched(chosen: Entry, image: Size | None) -> Graph:
    """The entry with its official file, or InputError that says how to get one."""
    from refnet.models.weights import located

    path = located(chosen)
    if path is None:
        get = _how_to_get(chosen)
        raise InputError(
            f"{chosen.name} has no weights on this machine: {get}; "
            'weights takes a file, or weights="seed:0" for synthetic ones'
        )
    if path.suffix == ".tar":
        return _archive(path, chosen, image)
    return _with(build(chosen, image), path)


def _how_to_get(chosen: Entry) -> str:
    """Where an entry's official file comes from."""
    if not chosen.files:
        return "no official file is published"
    if all(file.fetchable for file in chosen.files):
        return f"`refnet fetch {chosen.name}` gets the official file"
    addresses = ", ".join(file.url or file.name for file in chosen.files)
    return f"download {addresses}, whose checksum is not published"


# Files.


def _archive(path: Path, chosen: Entry | None, image: Size | None) -> Graph:
    """An official archive: its own graph, whose running numbers are those of its framework's values."""
    from refnet.formats.mxnet.reader import read_tar

    graph = read_tar(path, _shape(chosen, image))
    if chosen is None:
        return graph
    _check_network(path, "archive", graph, chosen, image)
    return replace(graph, name=chosen.name)


def _onnx(path: Path, chosen: Entry | None, image: Size | None, shapes: Shapes) -> Graph:
    """An ONNX file's graph. Weights that an exporter folded or renamed tell nothing: the output must fit."""
    from refnet.formats.onnx.reader import read_onnx

    graph = read_onnx(path, image, shapes, _golden, _bound)
    _check_classes(path, graph, chosen)
    return graph


def _golden(op: Op, inputs: Sequence[F32]) -> F32:
    """The correctly rounded value of an op on a file's constants."""
    from refnet.arithmetic.golden import Golden

    return op.golden(*inputs, exact=Golden(1).exact)


def _bound(op: Op, inputs: Sequence[Interval]) -> Interval:
    """Where others' values of an op on a file's constants lie."""
    import numpy as np

    from refnet.kernels.engine import Fast

    with np.errstate(all="ignore"):
        return op.bound(*inputs, engine=Fast(1))


def _ir(path: Path, chosen: Entry | None, image: Size | None) -> Graph:
    """A converted model's graph: its weights are folded as those of an ONNX file can be."""
    from refnet.formats.openvino.reader import read_ir

    graph = read_ir(path, image)
    _check_classes(path, graph, chosen)
    return graph


def _check_classes(path: Path, graph: Graph, chosen: Entry | None) -> None:
    """Refuse a file whose output is not the network's that it is said to be, or is called like."""
    if chosen is not None:
        wanted = TensorType((1, len(labels(chosen.dataset))))
        prob = graph.types().get(graph.outputs.get("prob", ""))
        if prob != wanted:
            raise WeightsError(f"{path} is not {chosen.name}: its output prob is {prob!r}, not {wanted!r}")


def _check_network(path: Path, what: str, graph: Graph, chosen: Entry, image: Size | None) -> None:
    """Refuse a file of another network than the one it is said to be, or is called like."""
    found = graph.weight_types
    built = build(chosen, image).weight_types
    faults = [f"missing: {name} {kind!r}" for name, kind in built.items() if name not in found]
    faults += [f"surplus: {name}" for name in found if name not in built]
    both = [name for name in built if name in found and found[name] != built[name]]
    faults += [f"wrong: {name} is {found[name]!r}, not {built[name]!r}" for name in both]
    if faults:
        lines = [*faults[:20], *([f"and {len(faults) - 20} more"] if len(faults) > 20 else [])]
        shown = "".join(f"\n  {line}" for line in lines)
        raise WeightsError(f"{path} is not the {what} of {chosen.name}:{shown}")


def _symbol(path: Path, weights: Model | None, chosen: Entry | None, image: Size | None) -> Graph:
    if weights is None:
        weights = _beside(path)
    if _seed(weights) is not None:
        return _with(_read_symbol(path, None, chosen, image), weights)
    read = read_weights(source_of(weights))
    graph = _read_symbol(path, read.arrays, chosen, image)
    stem = path.name.removesuffix(".json").removesuffix("-symbol")
    return with_weights(graph, read, path.with_name(f"{stem}-structure.json"))


def _read_symbol(
    path: Path, arrays: Mapping[str, F32] | None, chosen: Entry | None, image: Size | None
) -> Graph:
    """A symbol file's graph. The input's channels stand in no symbol file: the catalog or a weight tells."""
    from refnet.formats.mxnet.reader import read_symbol

    channels, height, width = _shape(chosen, image)
    graph = read_symbol(path, (channels, height, width))
    if chosen is not None:
        _check_network(path, "symbol file", graph, chosen, image)
        return graph
    first = next((node for node in graph.nodes if isinstance(node.op, Conv)), None)
    if arrays is None or first is None or not isinstance(first.op, Conv):
        return graph
    weight = arrays.get(first.weights[0])
    if weight is None or weight.ndim != 4 or weight.shape[1] * first.op.groups == channels:
        return graph
    return read_symbol(path, (weight.shape[1] * first.op.groups, height, width))


def _shape(chosen: Entry | None, image: Size | None) -> tuple[int, int, int]:
    channels, *size = (3, 224, 224) if chosen is None else chosen.input_shape
    height, width = image or size
    return channels, height, width


def _beside(symbol: Path) -> Path:
    """The .params of a symbol file: X-0000.params for X-symbol.json, else the only one in the folder."""
    own = symbol.with_name(symbol.name.removesuffix(".json").removesuffix("-symbol") + "-0000.params")
    if os.path.isfile(own):
        return own
    if not os.path.isfile(symbol):
        raise FormatError(symbol, None, "no such file")
    found = sorted(path for path in symbol.parent.glob("*.params") if os.path.isfile(path))
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(
            f'{symbol} has no {own.name} beside it: weights takes its file, or "seed:0" for synthetic ones'
        )
    shown = ", ".join(path.name for path in found[:8]) + (", ..." if len(found) > 8 else "")
    raise InputError(f"{symbol} has several .params files beside it ({shown}): weights must name one")


def _state(file: str, weights: Model | None, network: str | None, image: Size | None) -> Graph:
    if weights is not None:
        raise InputError(f"{file} is a weights file itself: weights must not name another, got {weights!r}")
    return _with(build(_needed(file, network), image), file)


# Weights.


def _seed(weights: Model) -> int | None:
    """N of "seed:N"; None if it is a path. Raises InputError for a bad N."""
    return seed_of(weights, "weights") if isinstance(weights, str) else None


def _seeded(name: str, weights: Model, network: str | None, image: Size) -> Graph:
    """The graph at this image size with a seed's weights: those that the model has at its own size.

    A seed's running statistics come from an image (models/synthetic.py), so that image has the model's own
    size whatever size is asked for. Only where the weights' shapes depend on the image (a dense layer over
    a whole map), or the model does not fit the catalog's size, the size given is the model's own.
    """
    graph = structure(name, network=network, image=image)
    try:
        own = load(name, weights=weights, network=network)
    except GraphError:
        return _with(graph, weights)
    if own.weight_types != graph.weight_types:
        return _with(graph, weights)
    return graph.with_weights(own.weights, own=True)


def _with(graph: Graph, weights: Model) -> Graph:
    """The graph with the weights of a seed or a file."""
    seed = _seed(weights)
    if seed is not None:
        from refnet.models.synthetic import weights as synthetic

        return graph.with_weights(synthetic(graph, seed))
    return with_weights(graph, read_weights(source_of(weights)))
