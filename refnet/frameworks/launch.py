"""One model and one set of weights, in the files that refnet and each framework read."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import refnet
from refnet.arithmetic.named import absolute
from refnet.arithmetic.named import arithmetic as named
from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.core.op import F32
from refnet.frameworks.process import Worker
from refnet.models.catalog import Entry, entries
from refnet.models.loading import Model, Size, load
from refnet.models.synthetic import normal
from refnet.models.weights_file import absolute_source, source_of

FRAMEWORKS = {"torch": "torch", "mxnet": "mxnet", "onnxruntime": "onnx", "onnx-reference": "onnx"}
"""What refnet can be compared with -> the environment that has it (.venv-NAME)."""
MODELS = ("resnest-50-pytorch", "octave-se-resnet-50-0.125")
"""The networks that are compared when none is named."""
WORKERS = Path(refnet.__file__).parent / "frameworks"
PACKAGE = str(Path(refnet.__file__).parents[1])
"""The folder that refnet's own worker imports it from."""


@dataclass(frozen=True)
class Racer:
    """What a worker needs in order to be timed. file: its name or path."""

    name: str
    version: str
    file: str
    python: str
    request: Mapping[str, Any]
    slow: bool = False


@dataclass(frozen=True)
class Prepared:
    """A model whose weights lie as files that every racer can read."""

    graph: Graph
    racers: Mapping[str, Racer]

    def data(self, batch: int) -> dict[str, F32]:
        """A batch of synthetic images."""
        return {name: normal(1, name, (batch, *kind.shape[1:])) for name, kind in self.graph.inputs.items()}

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return multiply_adds(self.graph)


def prepare(
    model: Model,
    folder: Path,
    *,
    against: Sequence[str] = (),
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    pythons: Mapping[str, str] | None = None,
    arithmetic: str = "plain",
) -> Prepared:
    """Load a model, write its weights into the folder for every framework, and say how each is to be run.

    against: names of FRAMEWORKS. weights, network, image: as for `refnet.load`; weights are "seed:0" where
    they are not given and the model is not a weights file. pythons: environment -> interpreter, see `python`.
    arithmetic: refnet's, "plain", "golden" or "replay:BOOK".
    Raises InputError for a framework that is unknown, not installed or cannot run the model, or an arithmetic
    that there is not.
    """
    named(arithmetic)
    for name in against:
        if name not in FRAMEWORKS:
            raise InputError(f"against must be among {', '.join(FRAMEWORKS)}, got {name!r}")
    entry = known_entry(model, network)
    for name in against:
        if reason := unfit(name, entry):
            raise InputError(f"{name} cannot run {os.fspath(model)}: {reason}")
    found = {name: python(FRAMEWORKS[name], pythons or {}) for name in against}
    if weights is None and not os.fspath(model).endswith((".pth", ".pt", ".safetensors", ".params", ".tar")):
        weights = "seed:0"
    graph = load(model, weights=weights, network=network, image=image)
    racers = {"refnet": _own(graph, model, weights, network, image, folder, arithmetic)}
    for name in against:
        racers[name] = _framework(name, found[name], graph, entry, folder)
    return Prepared(graph, racers)


def unfit(framework: str, entry: Entry | None) -> str | None:
    """Why a framework has no such network; None if it has.

    >>> unfit("torch", entries()["octave-se-resnet-50-0.125"])
    'the package resnest has the ResNeSt networks of ImageNet only'
    """
    if framework == "torch" and (
        entry is None or entry.framework != "pytorch" or entry.dataset != "imagenet"
    ):
        return "the package resnest has the ResNeSt networks of ImageNet only"
    if framework == "mxnet" and entry is not None and entry.framework != "mxnet":
        return "it is not defined in MXNet"
    return None


def known_entry(model: Model, network: str | None) -> Entry | None:
    """The catalog's entry, if the model has one."""
    return entries().get(os.fspath(model) if network is None else network)


def default_against(model: Model, network: str | None) -> tuple[str, ...]:
    """The framework that a network comes from.

    >>> default_against("resnest-50-pytorch", None)
    ('torch',)
    """
    entry = known_entry(model, network)
    return tuple(name for name in ("torch", "mxnet") if not unfit(name, entry))[:1]


def python(environment: str, given: Mapping[str, str]) -> str:
    """The interpreter of an environment: the one given, or .venv-NAME here or where refnet lies.

    Raises InputError, which says how to make it, if there is none.

    >>> python("torch", {"torch": "/no/such/python"})
    Traceback (most recent call last):
    refnet.core.errors.InputError: --python torch=/no/such/python: no such file
    """
    if environment in given:
        if not os.path.isfile(given[environment]):
            raise InputError(f"--python {environment}={given[environment]}: no such file")
        return given[environment]
    places = [Path(root) / f".venv-{environment}/bin/python" for root in (".", PACKAGE)]
    for place in places:
        if place.exists():
            return str(place)
    raise InputError(
        f"no Python with {environment} at {places[0]}: `bash .ci/environments.sh {environment}` in refnet's "
        f"repository makes it, or name one with --python {environment}=PATH"
    )


def start(
    framework: str,
    interpreter: str,
    *,
    threads: int = 1,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600.0,
) -> Worker:
    """The running worker of a framework: a name of FRAMEWORKS, or of the environment that has it.

    interpreter: the Python that has the framework (`python` finds it). environment: variables for its
    process. timeout: seconds for any one answer.
    """
    file = worker_file(framework)
    return Worker(file, interpreter, threads=threads, environment=environment, timeout=timeout)


def worker_file(framework: str) -> str:
    """What `Worker` calls the worker of a framework, or of the environment that has it.

    >>> worker_file("torch"), worker_file("onnxruntime") == worker_file("onnx")
    ('torch', True)
    """
    place = FRAMEWORKS.get(framework, framework)
    return str(WORKERS / "onnx_worker.py") if place == "onnx" else place


def torch_callable(name: str) -> str:
    """Where the package resnest defines a network of the catalog.

    >>> torch_callable("resnest-50-pytorch"), torch_callable("resnest-50-fast-1s1x64d-pytorch")
    ('resnest.torch:resnest50', 'resnest.torch:resnest50_fast_1s1x64d')
    """
    _, depth, *variant = name.removesuffix("-pytorch").split("-")
    return "resnest.torch:" + "_".join([f"resnest{depth}", *variant])


def _own(
    graph: Graph,
    model: Model,
    weights: Model | None,
    network: str | None,
    image: Size | None,
    folder: Path,
    arithmetic: str,
) -> Racer:
    """refnet reads what the user gave; synthetic weights from a .params file, as they are slow to make."""
    name = os.fspath(model)
    if isinstance(weights, str) and weights.startswith("seed:"):
        from refnet.formats.mxnet.reader import write_params

        weights = folder / "synthetic.params"
        write_params(weights, graph.weights, graph.statistics())
        if not os.path.isfile(source_of(name).file):
            name, network, weights = str(weights), network or name, None
    request = {
        "model": absolute_source(name) if os.path.isfile(source_of(name).file) else name,
        "weights": None if weights is None else absolute_source(weights),
        "network": network,
        "image": image,
        "arithmetic": absolute(arithmetic),
        "paths": [PACKAGE],
    }
    return Racer("refnet", refnet.__version__, str(WORKERS / "refnet_worker.py"), sys.executable, request)


def _framework(name: str, python: str, graph: Graph, entry: Entry | None, folder: Path) -> Racer:
    """The graph in the framework's files. What the framework must write itself is written by a worker of
    its own, so that its memory does not count.
    """
    file = worker_file(name)
    with start(name, python) as worker:
        fields = worker.ask("info").fields
        if name == "torch" and entry is not None:
            path = folder / "net.pth"
            worker.ask("save", {"path": str(path)}, graph.weights)
            request: dict[str, Any] = {"model": torch_callable(entry.name), "weights": str(path)}
            return Racer(name, fields["version"], file, python, request)
    from refnet.models.export import export

    if name == "mxnet":
        symbol, params = export(graph, folder / "net", "mxnet")
        return Racer(name, fields["version"], file, python, {"symbol": str(symbol), "params": str(params)})
    path = folder / "net.onnx"
    if not path.exists():
        export(graph, folder / "net", "onnx")
    engine, version = ("onnxruntime", "onnxruntime") if name == "onnxruntime" else ("reference", "version")
    request = {"path": str(path), "engine": engine}
    return Racer(name, fields[version], file, python, request, slow=engine == "reference")


def multiply_adds(graph: Graph) -> int:
    """Those of convolution and dense, at the graph's own input size."""
    types = graph.types()
    return sum(node.op.flops(*(types[name] for name in node.inputs)).macs for node in graph.nodes)
