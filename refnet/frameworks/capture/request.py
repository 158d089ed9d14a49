"""What is to be captured: the model, its inputs, and who is to compute it, as `refnet capture` is told.

Request ── network     the refnet graph, if there is one
   └────── inputs      name -> array, of a seed, .npy files or images
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from refnet.core.errors import InputError, UnsupportedError
from refnet.core.graph import Graph
from refnet.core.op import F32, TensorType
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import file_name
from refnet.frameworks.capture.names import FRAMEWORKS, MODES
from refnet.models.inputs import SAMPLE, portable, sample
from refnet.models.loading import load, network_of
from refnet.models.seed import SEED, seed_of

Size = tuple[int, int]


@dataclass(frozen=True)
class Request:
    """What `refnet capture` is told.

    framework: one of FRAMEWORKS. model: a refnet name or file; torch: "package.module:callable" too;
    onnxruntime: any .onnx file; folder: the folder of .npy files. input: .npy files, images, sample:NAME or
    seed:N; NAME=FILE.npy for networks of several inputs. weights, network, image, pipeline: as for
    `refnet.load`. batch: how many images of a seed. mode: one of MODES. python: the framework's interpreter.
    environment: variables set for it. subgraph: MXNet's subgraph backend, "NONE" or "default".
    state, arguments, options, paths: of torch's callable. said: of a folder, who computed it (Origin's
    fields as texts).
    """

    framework: str
    model: str
    input: tuple[str, ...] = ("seed:0",)
    weights: str | None = None
    network: str | None = None
    image: Size | None = None
    pipeline: str | None = None
    threads: int = 1
    batch: int | None = None
    mode: str | None = None
    python: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 600.0
    subgraph: str = "NONE"
    state: str | None = None
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    said: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError for an unknown framework or mode, no images, or what is not the framework's."""
        if self.framework not in FRAMEWORKS:
            raise InputError(f"framework must be one of {', '.join(FRAMEWORKS)}, got {self.framework!r}")
        modes = MODES[self.framework]
        if self.mode is not None and self.mode not in modes:
            raise InputError(f"{self.framework}: mode must be {' or '.join(modes)}, got {self.mode!r}")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch must be 1 or more, got {self.batch}")
        if self.subgraph != "NONE" and self.framework != "mxnet":
            raise InputError(f"a subgraph backend ({self.subgraph!r}) is a thing of mxnet's")
        if self.subgraph != "NONE" and self.mode == "internals":
            raise InputError("MXNet 1.9.1 cannot fuse nodes (--subgraph default) whose values it must expose")
        callable_only = {"state": self.state, "argument": self.arguments, "option": self.options}
        callable_only["path"] = self.paths
        given = [name for name, value in callable_only.items() if value]
        if given and not self.is_callable:
            raise InputError(f"--{given[0]} belongs to a torch model package.module:callable")
        if self.said and self.framework != "folder":
            raise InputError(f"{self.framework} says itself what it is: leave the reference out")

    @property
    def is_callable(self) -> bool:
        """Whether the model is a callable of Python's."""
        return self.framework == "torch" and re.fullmatch(r"[\w.]+:[\w.]+", self.model) is not None

    @property
    def executed(self) -> str:
        """The mode."""
        return self.mode or MODES[self.framework][0]


@dataclass(frozen=True)
class Inputs:
    """Arrays by name. sources: where they come from. remade: the sources make them anew, bit for bit."""

    arrays: Mapping[str, F32]
    source: str
    remade: bool
    pipeline: str | None

    @property
    def batch(self) -> int:
        """Images."""
        return len(next(iter(self.arrays.values())))


def network(request: Request) -> tuple[Graph | None, Sources | None]:
    """The refnet graph of what is captured, with its weights, and where they come from.

    None, None where refnet is not told of a graph (a callable, a folder) or cannot read the file (.onnx).
    """
    model, weights, name = request.model, request.weights, request.network
    if request.framework == "folder" or request.is_callable:
        if name is None:
            return None, None
        model, name = name, None
        weights = weights or request.state
        if os.path.isfile(model) is False and weights is None and request.is_callable:
            raise InputError(f"{request.model}: --model {model} needs --state FILE, its weights")
    sources = Sources(model, weights, "", None, name, request.image)
    try:
        graph = load(model, weights=weights, network=name, image=request.image)
        if weights is not None and weights == request.state and _same_as_its_own(graph, model, request.image):
            sources = replace(sources, weights=None)  # so that nobody has to look for the state file
        return graph, sources
    except (InputError, UnsupportedError):
        if model.endswith(".onnx") and os.path.isfile(model):
            return None, None
        raise


def _same_as_its_own(graph: Graph, model: str, image: tuple[int, int] | None) -> bool:
    """Whether these are the weights that the model has without being told of any: shipped or fetched ones."""
    try:
        return load(model, image=image).weights_hash() == graph.weights_hash()
    except InputError:
        return False


def inputs(request: Request, kinds: Mapping[str, tuple[int, ...]]) -> Inputs:
    """The inputs. kinds: name -> shape of one image, with its leading 1.

    Raises InputError for what does not fit kinds, or one another.
    """
    given = request.input
    named = [text.partition("=") for text in given if re.match(r"[^/=:]+=.", text)]
    if named and len(named) == len(given):
        return _named({name: path for name, _, path in named}, kinds, request.batch)
    if len(given) == 1 and given[0].startswith(SEED):
        return _seeded(given[0], kinds, request.batch)
    if len(kinds) != 1:
        raise InputError(f"the network's inputs are {', '.join(kinds)}: give each as NAME=FILE.npy")
    ((name, shape),) = kinds.items()
    if len(given) == 1 and given[0].endswith(".npy"):
        return _named({name: given[0]}, kinds, request.batch)
    if any(text.endswith(".npy") or text.startswith(SEED) for text in given):
        raise InputError("several inputs must be images: a batch of tensors is one .npy file")
    entry = None
    if not request.is_callable and request.framework != "folder":
        entry = network_of(request.model, request.network)
    elif request.network is not None:
        entry = network_of(request.network)
    pipeline = request.pipeline or (entry.pipeline if entry else None)
    array = np.concatenate([_image(name, shape, text, pipeline) for text in given])
    _check_batch(request.batch, len(array))
    one = len(given) == 1
    source = portable(Sources("", None, given[0])).input if one else file_name(name)
    return Inputs({name: array}, source, one and source.startswith(SAMPLE), pipeline if one else None)


def _named(files: Mapping[str, str], kinds: Mapping[str, tuple[int, ...]], batch: int | None) -> Inputs:
    from refnet.models.predict import input_tensor

    if set(files) != set(kinds):
        raise InputError(f"inputs are given for {', '.join(files)}, the network has {', '.join(kinds)}")
    arrays = {name: input_tensor(Path(files[name]), TensorType(kinds[name])).read() for name in kinds}
    counts = {len(array) for array in arrays.values()}
    if len(counts) > 1:
        raise InputError(f"the inputs' first dimensions must be one batch size, got {sorted(counts)}")
    _check_batch(batch, *counts)
    return Inputs(arrays, file_name(next(iter(kinds))), False, None)


def _seeded(source: str, kinds: Mapping[str, tuple[int, ...]], batch: int | None) -> Inputs:
    """Synthetic images. A seed alone makes what a network's own shape says: other batches keep their file."""
    from refnet.models.synthetic import normal

    seed = seed_of(source, "input")
    assert seed is not None
    shapes = {name: (batch or shape[0], *shape[1:]) for name, shape in kinds.items()}
    arrays = {name: normal(seed, name, shape) for name, shape in shapes.items()}
    return Inputs(arrays, source, shapes == dict(kinds), None)


def _image(name: str, shape: tuple[int, ...], text: str, pipeline: str | None) -> F32:
    from refnet.models.preprocess import pipeline as by_name

    if pipeline is None:
        raise InputError(f"{text} is an image: say how it becomes a tensor, with --pipeline NAME")
    array = by_name(pipeline).apply(sample(text) if text.startswith(SAMPLE) else Path(text))
    if array.shape != shape:
        raise InputError(f"{text}: the pipeline gives {list(array.shape)}, {name} is {list(shape)}")
    return array


def _check_batch(said: int | None, found: int) -> None:
    if said not in (None, found):
        raise InputError(f"batch is {said}, but the input has {found}: a batch is counted by the input")


def said_sources(sources: Sources | None, given: Inputs) -> Sources | None:
    """The sources as a manifest has them: no folder, the inputs' own names."""
    if sources is None:
        return None
    return replace(portable(replace(sources, input="seed:0")), input=given.source, pipeline=given.pipeline)


def processor() -> str:
    """This machine's processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def vendor() -> str:
    """Who made this machine's processor: GenuineIntel, AuthenticAMD, an Arm implementer's number; or ""."""
    return _cpuinfo("vendor_id") or _cpuinfo("CPU implementer")


def libc() -> str:
    """This machine's C library, such as glibc 2.36; "" where it is not known."""
    return " ".join(platform.libc_ver()).strip()


def _cpuinfo(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = re.search(rf"^{key}\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else ""
