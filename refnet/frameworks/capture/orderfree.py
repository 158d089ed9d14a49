"""Order-free runs: inputs on which no order of summation can differ, so that all must agree bit for bit.

    order_free(request) ── OrderFree ── for each reduction: arrays(op, types) ── the framework ── its value
                                                                └────────── compare: golden
    driven, undriven ── what exactly was run, and which values that leaves

What is run is a node of the user's own .onnx file, at its own operator versions; a call of the user's own
torch module, as torch.export sees it; or, of a network that refnet has a graph of, the framework's operator
of the same meaning. `orderfree_model.py` writes the same nodes to disk, to be run by anything.

Why node by node, and not one run of a network with chosen weights: a value's digits grow by the logarithm
of the terms in every reduction, and nothing in a network takes them away again but a rounding; after a few
layers float32 has no place for them, and sigmoid, softmax and means over 49 pixels leave the grid at once.
On inputs of its own every reduction is exact, with every term nonzero, at the network's own sizes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import refnet
from refnet.core.errors import InputError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Op, Reduction, TensorType
from refnet.exact.engine import DecideOrRefine
from refnet.formats.golden_file import digest
from refnet.formats.manifest import Manifest, Origin
from refnet.formats.onnx.alone import NodesAlone
from refnet.frameworks.caller import caller
from refnet.frameworks.capture.names import PRECISIONS
from refnet.frameworks.capture.request import Request, processor
from refnet.frameworks.capture.sources import exported_module, reference, stated, worker_of
from refnet.frameworks.capture.torch_module import ExportedModule
from refnet.frameworks.capture.writer import Array, CapturePlan
from refnet.frameworks.process import Worker
from refnet.kernels.engine import Fast
from refnet.models.loading import structure
from refnet.verification.order_free import arrays


def reductions(graph: Graph, batch: int = 1) -> dict[str, tuple[Node, tuple[TensorType, ...]]]:
    """The reductions of a graph, by name, with the types of their data and weights at this batch."""
    types = graph.types({name: replace(k, shape=(batch, *k.shape[1:])) for name, k in graph.inputs.items()})
    return {
        node.name: (node, tuple(types[name] for name in node.inputs))
        for node in graph.nodes
        if isinstance(node.op, Reduction) and node.op.ordered and len(node.data) == 1
    }


Run = Callable[[str, Op, tuple[F32, ...]], F32]
"""Computes the node of a name, of this op, on data and weights."""


@dataclass(frozen=True)
class OrderFree:
    """An order-free run: its plan, and the graph whose reductions it runs."""

    plan: CapturePlan
    graph: Graph


@contextmanager
def order_free(request: Request) -> Iterator[OrderFree]:
    """The order-free run of a network: one value per reduction, each on its own `arrays`.

    Raises InputError for a folder, a module that torch cannot export, and arguments that it would not use;
    and as `planned`.
    """
    _unused(request)
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        if request.is_callable:
            module = stack.enter_context(exported_module(request))
            graph, batch = module.graph, module.who.batch
            who, run = replace(module.who, mode="single calls of the module"), _calls_of(module)
        else:
            graph, batch = _graph(request), request.batch or 1
            who, run = _runner(request, batch, stack)
        nodes = reductions(graph, batch)

        def values() -> Iterator[tuple[str, Array]]:
            for name, (node, types) in nodes.items():
                try:
                    yield name, run(name, node.op, arrays(node.op, types, name))
                except UnsupportedError as error:
                    left_out[name] = str(error)

        plan = CapturePlan(
            replace(who, flags={**who.flags, "order-free": "0"}),
            {},
            values,
            lambda: {},
            None,
            graph.structure_hash(),
            None,
            False,
            len(nodes),
            lambda: left_out,
        )
        yield OrderFree(plan, graph)


def _runner(request: Request, batch: int, stack: ExitStack) -> tuple[Origin, Run]:
    """Who runs the nodes, and how one is run."""
    if request.framework == "refnet":
        who = Origin("refnet", refnet.__version__, threads=request.threads, batch=batch)
        who = replace(who, mode=request.executed, processor=processor())
        return who, _own(request.executed, request.threads)
    worker = stack.enter_context(worker_of(request))
    flags, mode = stated(request), "single ops"
    if _is_file(request):
        file = NodesAlone(request.file)
        flags["model"] = "sha256 " + hashlib.sha256(Path(request.file).read_bytes()).hexdigest()
        asked: dict[str, Any] = {"threads": request.threads}
        mode = f"single nodes of the file, opset {file.opset}"
        if request.framework == "onnxruntime":
            asked["level"] = "all" if request.executed == "outputs" else request.executed
            mode += f", {asked['level']}"
        else:
            asked["precision"] = request.precision or PRECISIONS[0]
        run = _nodes_of(file, worker, asked)
    else:
        run = _operators_of(worker, request)
    said = {"threads": request.threads, "batch": batch}
    who = reference(request.framework, worker, **said, mode=mode, flags=flags)
    return who, run


def _operators_of(worker: Worker, request: Request) -> Run:
    """The framework's own operators, one at a time."""

    def run(_: str, op: Op, given: tuple[F32, ...]) -> F32:
        types = [TensorType(array.shape, array.dtype.name) for array in given]
        made = caller(request.framework, worker, op, types, request.threads, precision=request.precision)
        return made.whole(given)

    return run


def _calls_of(module: ExportedModule) -> Run:
    """The module's own calls, one at a time, with everything but their tensors as the module has it."""

    def run(name: str, op: Op, given: tuple[F32, ...]) -> F32:
        types = [TensorType(array.shape, array.dtype.name) for array in given]
        found, why = module.alone([name], types)
        if found is None:
            raise UnsupportedError(why)
        return module.caller(op, types, [name]).whole(given)

    return run


def _nodes_of(file: NodesAlone, worker: Worker, how: Mapping[str, Any]) -> Run:
    """ONNX Runtime or OpenVINO on one node of the user's file at a time. how: threads and other options."""

    def run(name: str, _: Op, given: tuple[F32, ...]) -> F32:
        model = np.frombuffer(file.model(name, given), np.uint8)
        asked = {**how, "each": ["x"], "take": []}
        found = worker.ask("probe", asked, {"model": model, "x": given[0][None]}).array("y")
        return np.ascontiguousarray(found[0])

    return run


def _is_file(request: Request) -> bool:
    """Whether nodes of the user's own file are run."""
    return request.framework in ("onnxruntime", "openvino") and request.file.endswith(".onnx")


INSTEAD = (
    "What can be driven: `refnet capture onnxruntime MODEL.onnx --order-free` (or openvino) runs each node "
    "of your file; `refnet export MODEL --to onnx --order-free -o DIR` writes a model, its inputs and the "
    "exact results, to be run by anything"
)


def _graph(request: Request) -> Graph:
    if request.framework == "folder":
        raise InputError(f"a folder cannot be run; judge its values with `refnet verify`. {INSTEAD}")
    return structure(request.model, network=request.network, image=request.image)


def _unused(request: Request) -> None:
    """Refuse what the user names and the run would not look at."""
    if request.weights is not None:
        raise InputError(f"--weights {request.weights}: an order-free run makes its own weights")
    if request.is_callable and request.network is not None:
        raise InputError(f"--model {request.network}: an order-free run takes a module's own graph")
    if request.input and not request.is_callable:
        raise InputError(f"--input {request.input[0]}: an order-free run makes its own inputs")
    if request.pipeline is not None:
        raise InputError(f"--pipeline {request.pipeline}: an order-free run reads no image")
    if request.mode not in (None, "exported") and request.framework in ("torch", "mxnet", "openvino"):
        raise InputError(
            f"--mode {request.mode}: an order-free run asks {request.framework} for single operators"
        )
    if request.subgraph != "NONE":
        raise InputError(f"--subgraph {request.subgraph}: an order-free run asks mxnet for single operators")


def driven(request: Request) -> str:
    """What exactly was run, in words.

    >>> driven(Request("torch", "resnest-digits"))
    'operators of torch, one for each node, at the sizes of resnest-digits: no module or weights of yours'
    """
    if request.is_callable:
        return "calls of your module, as torch.export sees it, each alone, with refnet's arrays"
    if _is_file(request):
        name = Path(request.file).name
        return f"nodes of {name}, each alone, at the file's operator versions, with refnet's arrays"
    if request.framework == "refnet":
        return f"nodes of {request.model} in refnet's {request.executed} arithmetic, each alone"
    sizes = f"at the sizes of {Path(request.file).name}"
    return f"operators of {request.framework}, one for each node, {sizes}: no module or weights of yours"


def undriven(graph: Graph) -> Mapping[str, int]:
    """Kinds of ops that may round and have no order-free inputs, with how many values each makes.

    >>> undriven(structure("resnest-digits"))["BatchNorm"]
    22
    """
    ops = [node.op for node in graph.nodes]
    return Counter(
        type(op).__name__
        for op in ops
        if not (isinstance(op, Reduction) and op.ordered) and not op.exactly_specified
    )


def _own(mode: str, threads: int) -> Run:
    engine = Fast(threads)

    def run(_: str, op: Op, given: tuple[F32, ...]) -> F32:
        if mode == "golden":
            return op.golden(*given, exact=DecideOrRefine(engine))
        return op.run(*given, engine=engine)

    return run


def compare(graph: Graph, manifest: Manifest, threads: int = 1) -> tuple[str, ...]:
    """Names of the values of an order-free run that are not golden: there is no rounding to blame.

    >>> import tempfile
    >>> from refnet.frameworks.capture.writer import write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with order_free(Request("refnet", "resnest-digits")) as run:
    ...         manifest = write(folder, run.plan).manifest
    >>> len(manifest.values), compare(run.graph, manifest)
    (37, ())
    """
    nodes = reductions(graph, manifest.reference.batch or 1)
    wrong = []
    exact = DecideOrRefine(Fast(threads))
    for name, stored in manifest.values.items():
        node, types = nodes[name]
        golden = node.op.golden(*arrays(node.op, types, name), exact=exact)
        if digest(golden) != stored.digest:
            wrong.append(name)
    return tuple(wrong)
