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

from refnet.core.errors import InputError, UnsupportedError
from refnet.core.graph import Graph
from refnet.core.words import did_you_mean
from refnet.formats.golden_file import Sources
from refnet.formats.onnx.sizes import OpenSizesError
from refnet.frameworks.capture.names import FRAMEWORKS, MODES, PRECISIONS
from refnet.frameworks.capture.parameters import compared
from refnet.models.converted import usual_pipeline
from refnet.models.input_kinds import Kinds
from refnet.models.inputs import Inputs, read_inputs
from refnet.models.loading import load, network_of
from refnet.models.seed import SEED
from refnet.models.weights_file import source_of

Size = tuple[int, int]

NOTHING_SAID = "seed:0"
"""The input of a network that refnet runs, if none is named. Of a folder nothing is assumed."""
TIMEOUT = 600.0


def _refuse(given: Mapping[str, object], fits: bool, why: str) -> None:
    """Refuse the first of these options that has a value, unless they fit."""
    for name, value in given.items():
        if value and not fits:
            shown = f" {value}" if isinstance(value, str | int) else ""
            raise InputError(f"--{name}{shown} {why}")


@dataclass(frozen=True)
class Request:
    """What `refnet capture` is told.

    framework: one of FRAMEWORKS. model: a refnet name or file; torch: "package.module:callable" too;
    onnxruntime: any .onnx file; openvino: any .onnx or .xml; folder: the folder of .npy files. input: .npy
    files, images, sample:NAME or seed:N; NAME=FILE.npy for networks of several inputs; () is NOTHING_SAID.
    weights, network, image, pipeline: as for `refnet.load`; weights of what has its own (a callable, a file
    that ONNX Runtime or OpenVINO runs as it is) are compared with these. batch: how many images of a seed.
    mode: one of MODES. python: the framework's interpreter. environment: variables set for it. subgraph:
    MXNet's subgraph backend, "NONE" or "default". precision: OpenVINO's, one of PRECISIONS. state, arguments,
    options, paths: of torch's callable; state: a file, or seed:N. said: of a folder, who computed it
    (Origin's fields as texts). names: of a folder, name of a file -> name of a value. allow: of a folder,
    names and patterns of values that the network may lack.
    """

    framework: str
    model: str
    input: tuple[str, ...] = ()
    weights: str | None = None
    network: str | None = None
    image: Size | None = None
    pipeline: str | None = None
    threads: int = 1
    batch: int | None = None
    mode: str | None = None
    python: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = TIMEOUT
    subgraph: str = "NONE"
    precision: str | None = None
    state: str | None = None
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    said: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InputError for an unknown framework or mode, no images, or what is not the framework's."""
        if self.framework not in FRAMEWORKS:
            said = f"{self.framework!r}{did_you_mean(self.framework, FRAMEWORKS)}"
            raise InputError(f"framework must be one of {', '.join(FRAMEWORKS)}, got {said}")
        modes = MODES[self.framework]
        if self.mode is not None and self.mode not in modes:
            hint = did_you_mean(self.mode, modes)
            raise InputError(f"{self.framework}: mode must be {' or '.join(modes)}, got {self.mode!r}{hint}")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch must be 1 or more, got {self.batch}")
        if self.subgraph != "NONE" and self.framework != "mxnet":
            raise InputError(f"a subgraph backend ({self.subgraph!r}) is a thing of mxnet's")
        if self.subgraph != "NONE" and self.mode == "internals":
            raise InputError("MXNet 1.9.1 cannot fuse nodes (--subgraph default) whose values it must expose")
        if self.precision is not None and self.framework != "openvino":
            raise InputError(f"a precision ({self.precision!r}) is a thing of openvino's")
        if self.precision not in (None, *PRECISIONS):
            hint = did_you_mean(self.precision or "", PRECISIONS)
            raise InputError(
                f"openvino: precision must be {' or '.join(PRECISIONS)}, got {self.precision!r}{hint}"
            )
        callable_only = {"state": self.state, "argument": self.arguments, "option": self.options}
        _refuse(
            callable_only | {"path": self.paths},
            self.is_callable,
            "belongs to a torch model package.module:callable",
        )
        if self.said and self.framework != "folder":
            raise InputError(f"{self.framework} says itself what it is: leave the reference out")
        if self.mode == "exported" and (not self.is_callable or self.network is not None):
            raise InputError("--mode exported is for a torch callable without --model: its graph is its own")
        if not self.is_callable and source_of(self.model).outputs:
            whole = self.framework in ("torch", "mxnet", "folder")
            if whole or (self.framework == "openvino" and self.is_its_own_file):
                raise InputError(f"outputs are for refnet and onnxruntime: {self.framework} runs all of it")
        self._nothing_is_ignored()

    def _nothing_is_ignored(self) -> None:
        """Raises InputError for what was given and would decide nothing."""
        threads = None if self.threads == 1 else self.threads
        process: dict[str, object] = {"python": self.python, "environment": self.environment}
        process["timeout"] = None if self.timeout == TIMEOUT else self.timeout
        runs = self.framework not in ("folder", "refnet")
        _refuse(process, runs, f"is for a framework's process; {self.framework} has none")
        folder = self.framework == "folder"
        stated = {"threads": threads, "mode": self.mode, "batch": self.batch}
        _refuse(stated, not folder, "runs nothing of a folder: state it with --reference KEY=VALUE")
        _refuse({"names": self.names, "allow": self.allow}, folder, "is for the files of a folder")
        of_graph: dict[str, object] = {"weights": self.weights}
        if folder:
            of_graph |= {"input": self.input, "image": self.image, "pipeline": self.pipeline}
            of_graph |= {"names": self.names, "allow": self.allow}
        known = self.network is not None or not (folder or self.is_callable)
        _refuse(of_graph, known, "says nothing without a network: name it with --model NAME")
        if self.state is not None and self.state.startswith(SEED) and self.network is None:
            raise InputError(f"--state {self.state} is made for a network: name it with --model NAME")

    @property
    def is_callable(self) -> bool:
        """Whether the model is a callable of Python's."""
        return self.framework == "torch" and re.fullmatch(r"[\w.]+:[\w.]+", self.model) is not None

    @property
    def is_its_own_file(self) -> bool:
        """Whether the framework runs the user's file as it is, and refnet may not be able to read it."""
        kinds = {"onnxruntime": (".onnx",), "openvino": (".onnx", ".xml")}
        return self.file.endswith(kinds.get(self.framework, ()))

    @property
    def file(self) -> str:
        """The model without what is said of its inputs and outputs behind its name."""
        return self.model if self.is_callable else source_of(self.model).file

    @property
    def executed(self) -> str:
        """The mode."""
        return self.mode or MODES[self.framework][0]


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
            raise InputError(
                f"{request.model}: --model {model} needs its weights: --state FILE (or seed:N) loads them "
                "into the module, --weights W compares them with the module's own"
            )
    sources = Sources(model, weights, "", None, name, request.image)
    its_own = request.is_its_own_file
    try:
        graph = load(model, weights=None if its_own else weights, network=name, image=request.image)
    except (InputError, UnsupportedError) as error:
        said = its_own and (weights is None and name is None and request.image is None)
        if said and os.path.isfile(request.file) and not isinstance(error, OpenSizesError):
            return None, None
        raise
    if its_own and weights is not None:
        other = load(model, weights=weights, network=name, image=request.image)
        compared(other.weights, graph.weights, f"--weights {weights}", model)
    if weights is not None and weights == request.state and _same_as_its_own(graph, model, request.image):
        sources = replace(sources, weights=None)  # so that nobody has to look for the state file
    return graph, sources


def _same_as_its_own(graph: Graph, model: str, image: tuple[int, int] | None) -> bool:
    """Whether these are the weights that the model has without being told of any: shipped or fetched ones."""
    try:
        return load(model, image=image).weights_hash() == graph.weights_hash()
    except InputError:
        return False


def inputs(request: Request, kinds: Kinds, batch: int | None = None) -> Inputs:
    """The inputs. kinds: what each must be. batch: instead of the request's.

    Raises as `read_inputs`.
    """
    entry = None
    if not request.is_callable and request.framework != "folder":
        entry = network_of(request.model, request.network)
    elif request.network is not None:
        entry = network_of(request.network)
    usual = usual_pipeline(request.model, entry)
    given = request.input or (NOTHING_SAID,)
    return read_inputs(given, kinds, pipeline=request.pipeline, usual=usual, batch=batch or request.batch)


def said_sources(sources: Sources | None, given: Inputs | None) -> Sources | None:
    """The sources as a manifest has them: files as they were named, the inputs' own names."""
    if sources is None:
        return None
    if given is None:
        return replace(sources, input="")
    return replace(sources, input=given.source, pipeline=given.pipeline)


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
