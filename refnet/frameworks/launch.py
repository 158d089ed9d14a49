"""One model and one set of weights, in the files that refnet and each framework read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import refnet
from refnet.arithmetic.named import absolute, of_network
from refnet.arithmetic.named import arithmetic as named
from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.core.op import F32
from refnet.core.words import did_you_mean
from refnet.frameworks.capture.names import PLACES, variable
from refnet.frameworks.process import Answer, Worker
from refnet.models.catalog import Entry, entries
from refnet.models.loading import Model, Size, load, structure
from refnet.models.synthetic import normal
from refnet.models.weights_file import absolute_source, holds_weights_only, source_of

FRAMEWORKS = PLACES
"""What refnet can be compared with, each in an environment of its own."""
MODULES = {name: "onnx" if name == "onnx-reference" else name for name in FRAMEWORKS}
"""The same -> the module that makes a Python one that has it."""
MODELS = ("resnest-50-pytorch", "octave-se-resnet-50-0.125")
"""The networks that are compared when none is named."""
SLOW_ONES = ("onnx-reference",)
"""Those that take many seconds for a run."""
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
class Module:
    """What PyTorch runs in the place of a network of the catalog. name: "package.module:callable";
    arguments: of the callable; paths: folders to import it from.
    """

    name: str
    arguments: Sequence[Any] = ()
    paths: Sequence[str] = ()


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
    module: Module | None = None,
) -> Prepared:
    """Load a model, write its weights into the folder for every framework, and say how each is to be run.

    against: names of FRAMEWORKS. weights, network, image: as for `refnet.load`; weights are "seed:0" where
    they are not given and the model has none: neither a weights file nor an .onnx file. pythons: framework ->
    interpreter, see `python`. arithmetic: refnet's, "plain", "golden" or "replay:BOOK", where
    BOOK may be a folder that has it as NETWORK.json. module: what torch
    runs, where the model is an .onnx file that it was exported to. ONNX Runtime executes an .onnx file as it
    is, unless other weights are given.
    Raises InputError for a framework that is unknown, not installed or cannot run the model, or an arithmetic
    that there is not.
    """
    arithmetic = check_model(model, network, image, arithmetic)
    for name in against:
        if name not in FRAMEWORKS:
            hint = did_you_mean(name, FRAMEWORKS)
            raise InputError(f"against must be among {', '.join(FRAMEWORKS)}, got {name!r}{hint}")
    entry = known_entry(model, network)
    for name in against:
        if not (name == "torch" and module) and (reason := unfit(name, entry)):
            raise InputError(f"{name} cannot run {os.fspath(model)}: {reason}")
    found = {name: python(name, (pythons or {}).get(name)) for name in against}
    file = source_of(model).file
    own = os.path.abspath(file) if weights is None and file.endswith(".onnx") else None
    if weights is None and not (holds_weights_only(os.fspath(model)) or file.endswith((".tar", ".onnx"))):
        weights = "seed:0"
    graph = load(model, weights=weights, network=network, image=image)
    racers = {"refnet": _own(graph, model, weights, network, image, folder, arithmetic)}
    for name in against:
        if name == "torch" and module is not None:
            racers[name] = _module(module, found[name])
        else:
            racers[name] = _framework(name, found[name], graph, entry, folder, own)
    return Prepared(graph, racers)


def check_model(model: Model, network: str | None, image: Size | None, arithmetic: str) -> str:
    """The arithmetic of this model (`of_network`). Raises InputError for names that mean nothing, at once."""
    arithmetic = of_network(arithmetic, os.fspath(model) if network is None else network)
    named(arithmetic)
    if os.fspath(model) not in entries() and not os.path.isfile(source_of(model).file):
        structure(model, network=network, image=image)  # raises what is wrong with its name
    return arithmetic


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


def python(framework: str, given: str | None = None) -> str:
    """The interpreter that runs a framework: the one given, or else the first of these that there is.

    1. What the variable of the framework names, such as REFNET_PYTHON_TORCH or REFNET_PYTHON_ONNX_REFERENCE.
    2. The Python that runs refnet, if it has the framework.
    3. The first python3, or python, of the PATH, if it has the framework.

    Nothing of the current folder runs unless it is named. Raises InputError, which says what to type.

    >>> python("torch", "/no/such/python")
    Traceback (most recent call last):
    refnet.core.errors.InputError: --python torch=/no/such/python: no such file
    """
    named_by = variable(framework)
    for said, path in ((f"--python {framework}", given), (named_by, os.environ.get(named_by))):
        if path:
            if not os.path.isfile(path):
                raise InputError(f"{said}={path}: no such file")
            return path
    own = [sys.executable] if sys.executable else []
    # A PATH may have "." or an empty entry, which mean the current folder.
    folders = os.pathsep.join(filter(os.path.isabs, os.environ.get("PATH", os.defpath).split(os.pathsep)))
    found = (shutil.which(name, path=folders) for name in ("python3", "python"))
    for path in dict.fromkeys([*own, *(one for one in found if one)]):
        if _has(path, MODULES[framework]):
            return path
    raise InputError(
        f"no Python has {framework}: neither the one that runs refnet nor that of the PATH. Name one with "
        f"--python PATH, or in {named_by}; in refnet's repository `bash .ci/environments.sh "
        f"{FRAMEWORKS[framework]}` makes one, .venv-{FRAMEWORKS[framework]}/bin/python"
    )


def _has(interpreter: str, module: str) -> bool:
    """Whether an interpreter finds a module, which is not imported."""
    code = f"import sys, importlib.util as u; sys.exit(u.find_spec({module!r}) is None)"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            [interpreter, "-c", code],
            env=environment,
            cwd=os.path.abspath(os.sep),  # no folder of the user's is searched
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


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
    return str(WORKERS / f"{place}_worker.py") if place in ("onnx", "openvino") else place


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


def _module(module: Module, python: str) -> Racer:
    """PyTorch with a module of the user's, which has the weights that it is made with."""
    with start("torch", python) as worker:
        version = worker.ask("info").field("version", str)
    request = {"model": module.name, "arguments": list(module.arguments)}
    paths = [os.path.abspath(path) for path in module.paths]
    return Racer("torch", version, worker_file("torch"), python, {**request, "paths": paths})


def _framework(
    name: str, python: str, graph: Graph, entry: Entry | None, folder: Path, own: str | None
) -> Racer:
    """The graph in the framework's files. What the framework must write itself is written by a worker of
    its own, so that its memory does not count. own: the .onnx file that ONNX Runtime executes as it is.
    """
    file = worker_file(name)
    with start(name, python) as worker:
        about = worker.ask("info")
        if name == "torch" and entry is not None:
            path = folder / "net.pth"
            worker.ask("save", {"path": str(path)}, graph.weights)
            request: dict[str, Any] = {"model": torch_callable(entry.name), "weights": str(path)}
            return Racer(name, about.field("version", str), file, python, request)
    from refnet.models.export import export

    if name == "mxnet":
        symbol, params = export(graph, folder / "net", "mxnet")
        made = {"symbol": str(symbol), "params": str(params)}
        return Racer(name, about.field("version", str), file, python, made)
    path = folder / "net.onnx" if own is None else Path(own)
    if not path.exists():
        export(graph, folder / "net", "onnx")
    if name == "openvino":
        return Racer(name, about.field("version", str), file, python, {"path": str(path)})
    request = {"path": str(path), "engine": "onnxruntime" if name == "onnxruntime" else "reference"}
    return Racer(name, _version(name, about), file, python, request, slow=name in SLOW_ONES)


def framework_version(name: str, python: str) -> str:
    """The version of a framework that an interpreter has. Raises FrameworkError if it cannot be started."""
    with start(name, python) as worker:
        return _version(name, worker.ask("info"))


def _version(name: str, about: Answer) -> str:
    """What a worker says of its framework's version: that of onnx has two."""
    return about.field("onnxruntime" if name == "onnxruntime" else "version", str)


def multiply_adds(graph: Graph) -> int:
    """Those of convolution and dense, at the graph's own input size."""
    types = graph.types()
    return sum(node.op.flops(*(types[name] for name in node.inputs)).macs for node in graph.nodes)
