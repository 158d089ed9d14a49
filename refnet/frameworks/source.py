"""A framework with a model loaded, ready to be run: what captures, verification and reveal are made of.

    open_source(framework, graph, ...) -> Source ── .values(inputs)    (name, array), one at a time
                                                └── .reference         which build, threads, batch, mode

The model's files are written by refnet's export, or by the framework itself, into a temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refnet.arithmetic.recipe import Reference
from refnet.errors import InputError
from refnet.frameworks.process import Array, Worker
from refnet.graph import Graph
from refnet.ops.base import F32

MODES = {
    "torch": ("eager",),
    "mxnet": ("monitor", "internals", "outputs"),
    "onnxruntime": ("disabled", "basic", "extended", "all"),
}
"""Framework -> how it can execute a model; the first is what is used when none is named."""
BACKENDS = ("NONE", "default")
"""MXNet's subgraph backend: NONE executes every node as written, default fuses some."""


@dataclass(frozen=True)
class Source:
    """A framework's process with a model. reference: what its values are true of."""

    framework: str
    worker: Worker
    request: Mapping[str, Any]
    reference: Reference

    def values(self, inputs: Mapping[str, F32]) -> Iterator[tuple[str, Array]]:
        """Run the model once and yield each value under the framework's name, in the order of execution.

        Only one is in memory at a time. Raises FrameworkError.
        """
        command = "capture" if self.framework == "onnxruntime" else "run"
        yield from self.worker.stream(command, self.request, inputs)


def worker_file(framework: str) -> str:
    """What `Worker` starts for a framework. Raises InputError for an unknown one.

    >>> worker_file("torch")
    'torch'
    """
    if framework not in MODES:
        raise InputError(f"framework must be among {', '.join(MODES)}, got {framework!r}")
    return str(Path(__file__).parent / "onnx_worker.py") if framework == "onnxruntime" else framework


@contextmanager
def open_source(
    framework: str,
    graph: Graph,
    python: str,
    *,
    threads: int = 1,
    batch: int = 1,
    mode: str | None = None,
    backend: str = "NONE",
    module: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600.0,
) -> Iterator[Source]:
    """Start a framework and load a graph with its weights into it.

    python: the interpreter that has the framework. mode: one of MODES. backend: MXNet's subgraph backend.
    module: PyTorch's "package.module:callable" of the network. environment: further variables; they are
    recorded in the reference. Raises InputError for a framework, mode or module that cannot be,
    FrameworkError if the framework fails.
    """
    file = worker_file(framework)
    mode = mode or MODES[framework][0]
    if mode not in MODES[framework]:
        raise InputError(f"mode of {framework} must be among {', '.join(MODES[framework])}, got {mode!r}")
    flags = dict(environment or {})
    if framework == "mxnet":
        if backend not in BACKENDS:
            raise InputError(f"backend must be among {', '.join(BACKENDS)}, got {backend!r}")
        if backend == "NONE":
            flags["MXNET_SUBGRAPH_BACKEND"] = "NONE"
    with (
        tempfile.TemporaryDirectory(prefix="refnet-model-") as folder,
        Worker(file, python, threads=threads, environment=flags, timeout=timeout) as worker,
    ):
        fields = worker.ask("info", {"threads": threads}).fields
        request = _request(framework, graph, Path(folder), worker, mode, module, threads)
        said = mode if framework != "mxnet" else f"{mode}, subgraph backend {backend}"
        reference = Reference(
            framework,
            str(fields.get("onnxruntime" if framework == "onnxruntime" else "version", "")),
            str(fields.get("build", "")),
            str(fields.get("isa", "")),
            threads,
            batch,
            said,
            flags,
        )
        yield Source(framework, worker, request, reference)


def _request(
    framework: str, graph: Graph, folder: Path, worker: Worker, mode: str, module: str | None, threads: int
) -> dict[str, Any]:
    from refnet.export import export

    if framework == "torch":
        if module is None:
            raise InputError("torch needs the module that defines the network: package.module:callable")
        path = folder / "net.pth"
        worker.ask("save", {"path": str(path)}, graph.weights)
        return {"model": module, "weights": str(path), "threads": threads}
    if framework == "mxnet":
        symbol, params = export(graph, folder / "net", "mxnet")
        return {"symbol": str(symbol), "params": str(params), "mode": mode}
    (path,) = export(graph, folder / "net", "onnx")
    return {"path": str(path), "threads": threads, "level": mode, "exposed": True}
