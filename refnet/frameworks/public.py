"""The public functions that run a framework: refnet.capture and refnet.reveal.

    refnet.capture ── Request ── planned (capture/sources.py) ── write (capture/writer.py)
             └─────────────────── order_free (capture/orderfree.py) ────┘
    refnet.reveal ─── Request ── reveal (reveal/network.py)

Each starts the framework as a process of its own (launch.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from refnet.formats.arguments import COUNT, MODEL, PATH, SOURCES, check_arguments
from refnet.formats.manifest import Manifest
from refnet.frameworks.capture import orderfree
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import planned
from refnet.frameworks.capture.writer import write
from refnet.frameworks.reveal import network as revealing
from refnet.frameworks.reveal.network import Revealed
from refnet.models.loading import Model, Size
from refnet.verification.progress import Progress, advancing


@dataclass(frozen=True)
class CaptureResult:
    """What `refnet.capture` wrote into `folder`; `refnet.open_capture(folder)` reads the values.

    resumed: how many of the values an earlier, interrupted capture had written. left_out: value -> why a
    capture cannot hold it. different: of an order-free capture, the values that are not the exact result;
    driven: what it ran; undriven: kind of op -> how many values of the network may round and were not run.

    >>> import tempfile
    >>> import refnet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     refnet.capture("refnet", "resnest-digits", folder, order_free=True).different
    ()
    """

    folder: Path
    manifest: Manifest
    resumed: int
    left_out: Mapping[str, str]
    different: tuple[str, ...] = ()
    driven: str | None = None
    undriven: Mapping[str, int] = field(default_factory=dict)


def capture(
    framework: str,
    model: Model,
    folder: str | os.PathLike[str],
    *,
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    pipeline: str | None = None,
    threads: int = 1,
    batch: int | None = None,
    mode: str | None = None,
    subgraph: str = "NONE",
    precision: str | None = None,
    hash_only: bool = False,
    order_free: bool = False,
    python: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600.0,
    state: str | None = None,
    arguments: Sequence[Any] = (),
    options: Mapping[str, Any] | None = None,
    paths: Sequence[str] = (),
    reference: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    allow: Sequence[str] = (),
    progress: Progress | None = None,
) -> CaptureResult:
    """Run a network in a framework and write every value into a folder, whole or recognisably unfinished.

    framework: "torch", "mxnet", "onnxruntime", "openvino", "refnet", or "folder" for .npy files of anybody's.
    model: a name or file as for `refnet.load`; torch: "package.module:callable" too; openvino: a .xml too;
    folder: where the files are.
    inputs: seed:N, sample:NAME, .npy files or images; "NAME=FILE.npy" for networks of several inputs; () is
    "seed:0", and for a folder what its own files say: what is named is compared with them.
    weights, network, image: as for `refnet.load`; pipeline: how an image becomes a tensor. Weights of a
    callable, and of a file that ONNX Runtime or OpenVINO runs as it is, are compared with these.
    threads: the framework's. batch: images of a seed. mode: how the framework executes (`refnet capture
    --help` lists them); refnet itself: "plain" or "golden". subgraph: MXNet's backend, "NONE" or "default".
    precision: OpenVINO's INFERENCE_PRECISION_HINT, "f32" if nothing is said.
    hash_only: keep the sha256 of each value only. order_free: no network, but each reduction alone on inputs
    whose sums are exact; of a .onnx file in onnxruntime or openvino its own nodes, of a torch callable its
    own calls, else the framework's operators. python: the interpreter that has the framework; environment:
    variables for its process. timeout: seconds for any one value. state, arguments, options, paths: of
    torch's callable. reference: of a folder, who computed it. names: of a folder, name of a file -> name of a
    value; allow: names and patterns of values that the network may lack. progress: called after each value
    with (done, of how many).

    The same call goes on after an interruption. Raises InputError for what cannot be asked or a folder that
    holds something else, FrameworkError if the framework fails.

    >>> import tempfile
    >>> import refnet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = refnet.capture("refnet", "resnest-digits", folder, mode="golden")
    ...     print(result.manifest.reference, refnet.verify(folder).counts["defect"])
    refnet 0.1.0, golden, 1 thread, batch 1 0
    """
    check_arguments(locals(), {"model": MODEL, "inputs": SOURCES, "threads": COUNT})
    listed = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    request = Request(
        framework,
        os.fspath(model),
        tuple(os.fspath(one) for one in listed),
        _text(weights),
        network,
        image,
        pipeline,
        threads,
        batch,
        mode,
        python,
        environment or {},
        timeout,
        subgraph,
        precision,
        state,
        tuple(arguments),
        options or {},
        tuple(paths),
        reference or {},
        names or {},
        tuple(allow),
    )
    with ExitStack() as stack:
        run = stack.enter_context(orderfree.order_free(request)) if order_free else None
        plan = stack.enter_context(planned(request)) if run is None else run.plan
        advance = advancing(progress, plan.total)
        done = write(folder, plan, hash_only=hash_only, advance=advance)
    result = CaptureResult(Path(folder), done.manifest, done.found, done.left_out)
    if run is None:
        return result
    different = orderfree.compare(run.graph, done.manifest, threads)
    undriven = orderfree.undriven(run.graph)
    return replace(result, different=different, driven=orderfree.driven(request), undriven=undriven)


def reveal(
    framework: str,
    model: Model,
    book: str | os.PathLike[str],
    *,
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    threads: int = 1,
    batch: int | None = None,
    mode: str | None = None,
    subgraph: str = "NONE",
    precision: str | None = None,
    python: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600.0,
    state: str | None = None,
    arguments: Sequence[Any] = (),
    options: Mapping[str, Any] | None = None,
    paths: Sequence[str] = (),
    progress: Progress | None = None,
) -> Revealed:
    """Ask a framework in which order it adds in every layer of a network, and write the book of it.

    framework: "torch", "mxnet", "onnxruntime" or "openvino". book: the file to write; BOOK.partial beside it
    holds what was asked so far, and the same call goes on there after an interruption. inputs: of a torch
    callable whose graph is its own, for their shapes alone. Other arguments: as for `refnet.capture`.
    progress: called after each question and each capture with (done, of how many).

    Raises InputError for what cannot be asked, FrameworkError if the framework fails.

    >>> import refnet
    >>> found = refnet.reveal("onnxruntime", "resnest-digits", "digits.book.json")  # doctest: +SKIP
    >>> found.nodes, found.book.unconfirmed  # doctest: +SKIP
    (97, ())
    """
    check_arguments(locals(), {"model": MODEL, "book": PATH, "inputs": SOURCES, "threads": COUNT})
    listed = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    request = Request(
        framework,
        os.fspath(model),
        tuple(os.fspath(one) for one in listed),
        _text(weights),
        network=network,
        image=image,
        threads=threads,
        batch=batch,
        mode=mode,
        python=python,
        environment=environment or {},
        timeout=timeout,
        subgraph=subgraph,
        precision=precision,
        state=state,
        arguments=tuple(arguments),
        options=options or {},
        paths=tuple(paths),
    )
    advance = None if progress is None else advancing(progress, revealing.steps_of(request))
    return revealing.reveal(request, Path(book), advance)


def _text(path: Model | None) -> str | None:
    return None if path is None else os.fspath(path)
