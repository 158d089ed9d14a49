"""From a Request to a CapturePlan: what each framework is asked, and what it says of itself.

planned ── _torch ────────┐
    ├───── _mxnet ────────┼── Worker.stream ── (name, array), ...
    ├───── _onnxruntime ──┤
    ├───── _openvino ─────┘
    ├───── _own ───────────── refnet.steps
    └───── folder_plan ────── .npy files of anybody's (folder.py)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import refnet
from refnet.core.errors import FrameworkError, InputError, UnsupportedError
from refnet.core.graph import Graph
from refnet.core.op import F32
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import Origin
from refnet.formats.npy import open_npy
from refnet.formats.write import whole_file
from refnet.frameworks.capture.beyond import beyond_a_callable
from refnet.frameworks.capture.folder import folder_plan
from refnet.frameworks.capture.names import PRECISIONS
from refnet.frameworks.capture.parameters import compared, parameters_hash
from refnet.frameworks.capture.request import (
    Request,
    inputs,
    libc,
    network,
    processor,
    said_sources,
    vendor,
)
from refnet.frameworks.capture.stream import Stream, dtypes, plan_of
from refnet.frameworks.capture.torch_module import (
    Asked,
    ExportedModule,
    as_it_is,
    module_plan,
    the_module,
)
from refnet.frameworks.capture.writer import Array, CapturePlan
from refnet.frameworks.launch import FRAMEWORKS, python, start, torch_callable, unfit
from refnet.frameworks.process import Serves, Worker
from refnet.models.input_kinds import InputKind, kinds_of
from refnet.models.inputs import Inputs
from refnet.models.loading import load, network_of
from refnet.models.seed import SEED, seed_of
from refnet.models.weights_file import source_of

SHAPE = (1, 3, 224, 224)
"""What `seed:N` makes for a callable that refnet has no graph of."""


@contextmanager
def planned(request: Request) -> Iterator[CapturePlan]:
    """The CapturePlan of a capture, while its framework's process runs.

    Raises InputError for what cannot be asked, FrameworkError if the framework does not come up, and as
    `refnet.load` and the readers of inputs.

    >>> with planned(Request("refnet", "resnest-digits")) as plan:
    ...     print(plan.reference, plan.total)
    refnet 0.1.0, plain, 1 thread, batch 1 97
    """
    graph, sources = network(request)
    with ExitStack() as stack:
        make = {"torch": _torch, "mxnet": _mxnet, "onnxruntime": _onnxruntime, "openvino": _openvino}
        make["refnet"] = _own
        plan = make.get(request.framework, folder_plan)(request, graph, sources, stack)
        yield plan if graph is None else replace(plan, kinds=dtypes(graph))


def reference(
    framework: str,
    worker: Serves,
    *,
    threads: int,
    batch: int,
    mode: str,
    flags: Mapping[str, str],
) -> Origin:
    """What the framework behind a worker says of itself.

    Raises FrameworkError if it lacks the framework, or runs with other threads than it was told.
    """
    said = worker.ask("info", {"threads": threads})
    if said.fields.get("threads", threads) != threads:
        raise FrameworkError(f"{framework} runs {said.fields['threads']} threads, not {threads}")
    version = said.field("onnxruntime" if framework == "onnxruntime" else "version", str)
    build, isa = said.field("build", str), said.field("isa", str)
    machine = (processor(), libc(), vendor())
    return Origin(framework, str(version), build, isa, threads, batch, mode, dict(flags), *machine)


def worker_of(request: Request) -> Worker:
    """The framework's running process. The interpreter: the request's, or what `launch.python` finds."""
    place = FRAMEWORKS[request.framework]
    found = python(request.framework, request.python)
    environment = {**backend(request), **request.environment}
    return start(place, found, threads=request.threads, environment=environment, timeout=request.timeout)


def backend(request: Request) -> dict[str, str]:
    """The variable that keeps MXNet from joining nodes; nothing for other frameworks, or if it may."""
    alone = (request.framework, request.subgraph) == ("mxnet", "NONE")
    return {"MXNET_SUBGRAPH_BACKEND": "NONE"} if alone else {}


def stated(request: Request) -> dict[str, str]:
    """The flags of a reference: what was set for the framework."""
    flags = {**backend(request), **request.environment}
    if request.framework == "openvino":
        flags["INFERENCE_PRECISION_HINT"] = request.precision or PRECISIONS[0]
    return flags


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refnet-capture-")))


# Frameworks.


def _torch(request: Request, graph: Graph | None, sources: Sources | None, stack: ExitStack) -> CapturePlan:
    """A callable with its state, or a network of the package resnest with refnet's weights."""
    worker, who, given = _built(request, graph, stack)
    keywords = request.is_callable and len(given.arrays) > 1
    if request.is_callable and graph is None:
        asked = Asked(worker, given, keywords, who, request.model, request.mode)
        own = partial(_inputs_of_module, request, batch=given.batch)
        return module_plan(asked, _temporary(stack), own)
    plan = plan_of(graph, sources, given, who, as_it_is(worker, given, keywords, request.threads))
    if graph is None or not request.is_callable:
        return plan
    return replace(plan, beyond=partial(beyond_a_callable, graph, plan.inputs), any_kind=False)


def _built(request: Request, graph: Graph | None, stack: ExitStack) -> tuple[Worker, Origin, Inputs]:
    """A process that has made the module with its weights, who it is, and what the module is called with.

    Raises InputError where its parameters are not those of the graph.
    """
    flags = dict(request.environment)
    asked: dict[str, Any] = {"threads": request.threads}
    if request.is_callable:
        given = _callable_inputs(request, graph)
        asked |= {"model": request.model, "arguments": list(request.arguments)}
        asked |= {"options": dict(request.options), "paths": [os.path.abspath(p) for p in request.paths]}
        flags |= _callable_flags(request)
    else:
        assert graph is not None
        entry = network_of(request.model, request.network)
        if entry is None or (reason := unfit("torch", entry)):
            why = (
                reason if entry else "it is no network of the package resnest: name a package.module:callable"
            )
            raise InputError(f"torch cannot run {request.model}: {why}")
        given = inputs(request, kinds_of(graph))
        asked["model"] = torch_callable(entry.name)
    worker = stack.enter_context(worker_of(request))
    who = reference("torch", worker, threads=request.threads, batch=given.batch, mode="eager", flags=flags)
    state = _state(request, graph)
    if isinstance(state, str):
        asked["weights"] = state
    elif state is not None:
        asked["weights"] = str(_temporary(stack) / "net.pth")
        worker.ask("save", {"path": asked["weights"]}, state)
    ran = worker.ask("build", asked).arrays
    if graph is not None:
        compared(graph.weights, ran, _said_weights(request), request.model)
    if request.is_callable:
        who = replace(who, flags={**who.flags, "parameters": f"sha256 {parameters_hash(ran)}"})
    return worker, who, given


@contextmanager
def exported_module(request: Request) -> Iterator[ExportedModule]:
    """A torch callable without --model, exported in a running process.

    Raises InputError if torch or refnet cannot, and as `planned`.
    """
    with ExitStack() as stack:
        worker, who, given = _built(request, None, stack)
        asked = Asked(worker, given, len(given.arrays) > 1, who, request.model, "exported")
        yield the_module(asked, _temporary(stack))


def inputs_of_module(request: Request, module: ExportedModule, given: str) -> Inputs:
    """A seed's inputs of the module, at the batch with which it was exported."""
    return _inputs_of_module(replace(request, input=(given,)), module, batch=module.who.batch)


def _inputs_of_module(request: Request, module: ExportedModule, batch: int) -> Inputs:
    """What is given for --input, under the module's own names: of one input any name will do."""
    if len(module.order) == 1:
        request = replace(request, input=tuple(text.split("=", 1)[-1] for text in request.input))
    return inputs(request, kinds_of(module.graph), batch)


def _callable_flags(request: Request) -> dict[str, str]:
    """What a manifest says of a callable, and of the state that is loaded into it."""
    flags = {
        "model": request.model,
        "arguments": repr(request.arguments),
        "options": repr(request.options),
    }
    if request.state is not None and seed_of(request.state, "--state") is None:
        if not os.path.isfile(request.state):
            raise InputError(f"--state {request.state}: no such file")
        with open(request.state, "rb") as file:
            flags["state"] = "sha256 " + hashlib.file_digest(file, "sha256").hexdigest()
    elif request.state is not None:
        flags["state"] = request.state
    return flags


def _state(request: Request, graph: Graph | None) -> str | Mapping[str, F32] | None:
    """What is loaded into the module: a file, arrays by name, or nothing."""
    if not request.is_callable:
        return None if graph is None else graph.weights
    if request.state is None or not request.state.startswith(SEED):
        return None if request.state is None else os.path.abspath(request.state)
    if request.weights is None and graph is not None:
        return graph.weights
    return load(request.network or "", weights=request.state, image=request.image).weights


def _said_weights(request: Request) -> str:
    """What names the weights, in words of the command line."""
    if request.weights is not None:
        return f"--weights {request.weights}"
    return f"--state {request.state}" if request.state is not None else f"the weights of {request.model}"


def _callable_inputs(request: Request, graph: Graph | None) -> Inputs:
    """A graph says its inputs; without, they are whatever the files hold, a seed's are SHAPE."""
    if graph is not None:
        return inputs(request, kinds_of(graph))
    files = dict(text.split("=", 1) for text in request.input if "=" in text and text.endswith(".npy"))
    if len(request.input) == 1 and not files and request.input[0].endswith(".npy"):
        files = {"data": request.input[0]}
    found = {name: open_npy(path, None) for name, path in files.items()}
    for name, one in found.items():
        if request.image is not None and one.shape[-2:] != request.image:
            shape = (1, *one.shape[1:])
            raise InputError(
                f"--image is {request.image[0]},{request.image[1]}, but {files[name]} is {shape}"
            )
    kinds = {name: InputKind((1, *one.shape[1:]), one.dtype) for name, one in found.items()}
    return inputs(request, kinds or {"data": InputKind((*SHAPE[:2], *(request.image or SHAPE[2:])))})


def _mxnet(request: Request, graph: Graph | None, sources: Sources | None, stack: ExitStack) -> CapturePlan:
    """A symbol file with its parameters as they are; any other model as refnet exports it.

    Nodes that share a name get the names of the graph first: MXNet shows their values under one name.
    """
    from refnet.formats.mxnet.reader import distinct_symbol, write_symbol

    assert graph is not None
    if reason := unfit("mxnet", network_of(request.model, request.network)):
        raise InputError(f"mxnet cannot run {request.model}: {reason}")
    given = inputs(request, kinds_of(graph))
    worker = stack.enter_context(worker_of(request))
    mode = f"{request.executed}, subgraph backend {request.subgraph}"
    flags = stated(request)
    who = reference("mxnet", worker, threads=request.threads, batch=given.batch, mode=mode, flags=flags)
    folder = _temporary(stack)
    symbol, params = Path(request.model), folder / "net-0000.params"
    if not request.model.endswith(".json"):
        symbol = folder / "net-symbol.json"
        write_symbol(symbol, graph)
    elif (unique := distinct_symbol(text := symbol.read_bytes(), request.model)) is not text:
        symbol = folder / "net-symbol.json"
        with whole_file(symbol) as stream:
            stream.write(unique)
        who = replace(who, flags={**who.flags, "names": "made unique"})
    statistics = graph.statistics()
    prefixed = {("aux:" if n in statistics else "arg:") + n: array for n, array in graph.weights.items()}
    worker.ask("save", {"path": str(params)}, prefixed)
    asked = {"symbol": str(symbol.resolve()), "params": str(params), "mode": request.executed}
    plan = plan_of(graph, sources, given, who, Stream(worker, "run", asked, given.arrays))

    def joined() -> tuple[tuple[str, ...], ...]:
        groups = worker.ask("joined", asked, given.arrays).field("groups", list)
        return tuple(tuple(map(str, names)) for names in groups)

    return plan if request.subgraph == "NONE" else replace(plan, joined=joined)


def _onnxruntime(
    request: Request, graph: Graph | None, sources: Sources | None, stack: ExitStack
) -> CapturePlan:
    """A .onnx file as it is; any other model as refnet exports it."""
    worker = stack.enter_context(worker_of(request))
    path, values, given = _of_file(request, graph, worker, stack)
    exposed = request.executed != "outputs"
    level = request.executed if exposed else "all"
    flags = dict(request.environment)
    if graph is None:
        flags["model"] = "sha256 " + hashlib.sha256(path.read_bytes()).hexdigest()
    said: dict[str, Any] = {"threads": request.threads, "batch": given.batch, "mode": request.executed}
    who = reference("onnxruntime", worker, **said, flags=flags)
    asked: dict[str, Any] = {"path": str(path), "threads": request.threads}
    asked |= {"level": level, "exposed": exposed}
    if graph is not None and source_of(request.model).outputs:
        kept = graph.by_name if exposed else graph.outputs.values()
        asked |= {"only": [*kept]}
        values = len(asked["only"])
    plan = plan_of(graph, sources, given, who, Stream(worker, "capture", asked, given.arrays))
    return replace(plan, total=values)


OPENVINO = {
    "internals": "all values as outputs",
    "compiled": "as compiled, what it has as outputs",
    "outputs": "as compiled",
}
"""OpenVINO's mode -> what a capture says of it."""


def _openvino(
    request: Request, graph: Graph | None, sources: Sources | None, stack: ExitStack
) -> CapturePlan:
    """A .onnx or .xml file as it is; any other model as refnet exports it to ONNX."""
    worker = stack.enter_context(worker_of(request))
    path, values, given = _of_file(request, graph, worker, stack)
    precision = request.precision or PRECISIONS[0]
    flags = stated(request)
    if graph is None:
        flags["model"] = "sha256 " + hashlib.sha256(path.read_bytes()).hexdigest()
    mode = OPENVINO[request.executed]
    said: dict[str, Any] = {"threads": request.threads, "batch": given.batch, "mode": mode}
    who = reference("openvino", worker, **said, flags=flags)
    asked = {"path": str(path), "threads": request.threads, "precision": precision}
    asked["mode"] = request.executed
    asked["known"] = [] if graph is None else [node.name for node in graph.nodes]
    plan = plan_of(graph, sources, given, who, Stream(worker, "capture", asked, given.arrays))
    return replace(plan, total=values if request.executed == "internals" else None)


def _of_file(
    request: Request, graph: Graph | None, worker: Worker, stack: ExitStack
) -> tuple[Path, int, Inputs]:
    """The file that the framework runs, the user's or refnet's export; how many values it has; its inputs."""
    from refnet.models.export import export

    path = Path(request.file).resolve()
    if not request.is_its_own_file:
        assert graph is not None
        (path,) = export(graph, _temporary(stack) / "net", "onnx")
    about = worker.ask("signature", {"path": str(path)})
    stated: dict[str, tuple[int | None, ...]] = dict(source_of(request.model).shapes)
    dtypes = about.field("dtypes", dict) if "dtypes" in about.fields else {}
    kinds: dict[str, InputKind] = {}
    for name, own in about.field("inputs", dict).items():
        shape = stated.get(name, tuple(own))
        if graph is None and (None in shape[1:] or not shape):
            raise UnsupportedError(f"{path.name}: input {name!r} is {shape}: only its first size may be free")
        if graph is None:
            kinds[name] = InputKind((shape[0] or 1, *shape[1:]), str(dtypes.get(name, "float32")))
    given = inputs(request, kinds_of(graph) if graph is not None else kinds)
    return path, about.field("values", int), given


def _own(request: Request, graph: Graph | None, sources: Sources | None, stack: ExitStack) -> CapturePlan:
    """refnet itself, plain or golden."""
    from refnet.arithmetic.golden import Golden
    from refnet.arithmetic.plain import Plain
    from refnet.core.interpreter import steps

    assert graph is not None
    given = inputs(request, kinds_of(graph))
    arithmetic = (Golden if request.executed == "golden" else Plain)(request.threads)
    who = Origin("refnet", refnet.__version__, threads=request.threads, batch=given.batch)
    who = replace(who, mode=request.executed, processor=processor())

    def values() -> Iterator[tuple[str, Array]]:
        for node, value in steps(graph, given.arrays, arithmetic):
            yield node.name, value
            del value  # steps frees it after its last use

    return CapturePlan(
        who,
        given.arrays,
        values,
        lambda: graph.outputs,
        said_sources(sources, given),
        graph.structure_hash(),
        graph.weights_hash(),
        given.remade,
        len(graph.nodes),
    )
