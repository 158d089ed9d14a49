"""Order-free runs: inputs on which no order of summation can differ, so that all must agree bit for bit.

    order_free(request) ── Plan ── for each reduction: arrays(op, types) ── the framework ── its value
                                                                └────────── compare: golden

Why node by node, and not one run of a network with chosen weights: a value's digits grow by the logarithm
of the terms in every reduction, and nothing in a network takes them away again but a rounding; after a few
layers float32 has no place for them, and sigmoid, softmax and means over 49 pixels leave the grid at once.
On inputs of its own every reduction is exact, with every term nonzero, at the network's own sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import refnet
from refnet.core.errors import InputError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Op, Reduction, TensorType
from refnet.exact.engine import DecideOrRefine
from refnet.formats.golden_file import digest
from refnet.formats.manifest import Manifest, Origin
from refnet.frameworks.caller import caller
from refnet.frameworks.capture.request import Request, processor
from refnet.frameworks.capture.sources import backend, reference, worker_of
from refnet.frameworks.capture.writer import Array, Plan
from refnet.kernels.engine import Fast
from refnet.models.loading import structure
from refnet.verification.order_free import arrays

if TYPE_CHECKING:
    from refnet.frameworks.process import Worker


class Ask(Protocol):
    """Computes a reduction. w and bias: the op's weights."""

    def __call__(self, op: Op, x: F32, w: F32 | None = None, bias: F32 | None = None) -> F32:
        """The value. Raises UnsupportedError if there is no such op, FrameworkError if it fails."""
        ...


def reductions(graph: Graph, batch: int = 1) -> dict[str, tuple[Node, tuple[TensorType, ...]]]:
    """The reductions of a graph, by name, with the types of their data and weights at this batch."""
    types = graph.types({name: TensorType((batch, *k.shape[1:])) for name, k in graph.inputs.items()})
    return {
        node.name: (node, tuple(types[name] for name in node.inputs))
        for node in graph.nodes
        if isinstance(node.op, Reduction)
    }


@contextmanager
def order_free(request: Request) -> Iterator[Plan]:
    """The Plan of an order-free run: one value per reduction, each on its own `arrays`.

    Raises InputError for a folder, or a model that refnet has no graph of, and as `planned`.
    """
    graph = _graph(request)
    batch = request.batch or 1
    nodes = reductions(graph, batch)
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        if request.framework == "refnet":
            who = Origin("refnet", refnet.__version__, threads=request.threads, batch=batch)
            who = replace(who, mode=request.executed, processor=processor())
            ask = _own(request.executed, request.threads)
        else:
            worker = stack.enter_context(worker_of(request))
            flags = {**backend(request), **request.environment}
            who = reference(
                request.framework,
                worker,
                threads=request.threads,
                batch=batch,
                mode="single ops",
                flags=flags,
            )
            ask = _framework(worker, request)
        who = replace(who, flags={**who.flags, "order-free": "0"})

        def values() -> Iterator[tuple[str, Array]]:
            for name, (node, types) in nodes.items():
                try:
                    yield name, ask(node.op, *arrays(node.op, types, name))
                except UnsupportedError as error:
                    left_out[name] = str(error)

        yield Plan(
            who,
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


def _graph(request: Request) -> Graph:
    if request.framework == "folder" or (request.is_callable and request.network is None):
        raise InputError(
            "an order-free run needs a framework that can be asked, and a network that refnet knows: "
            "a MODEL that is no callable, or --model NAME"
        )
    if request.is_callable:
        return structure(request.network or "", image=request.image)
    return structure(request.model, network=request.network, image=request.image)


def _framework(worker: Worker, request: Request) -> Ask:
    def ask(op: Op, x: F32, w: F32 | None = None, bias: F32 | None = None) -> F32:
        given = [array for array in (x, w, bias) if array is not None]
        types = [TensorType(array.shape) for array in given]
        return caller(request.framework, worker, op, types, request.threads).whole(given)

    return ask


def _own(mode: str, threads: int) -> Ask:
    engine = Fast(threads)

    def ask(op: Op, x: F32, w: F32 | None = None, bias: F32 | None = None) -> F32:
        given = [array for array in (x, w, bias) if array is not None]
        if mode == "golden":
            return op.golden(*given, exact=DecideOrRefine(engine))
        return op.run(*given, engine=engine)

    return ask


def compare(request: Request, manifest: Manifest) -> tuple[str, ...]:
    """Names of the values of an order-free run that are not golden: there is no rounding to blame.

    >>> import tempfile
    >>> from refnet.frameworks.capture.writer import write
    >>> request = Request("refnet", "resnest-digits")
    >>> with tempfile.TemporaryDirectory() as folder, order_free(request) as plan:
    ...     manifest = write(folder, plan).manifest
    >>> len(manifest.values), compare(request, manifest)
    (37, ())
    """
    nodes = reductions(_graph(request), request.batch or 1)
    wrong = []
    exact = DecideOrRefine(Fast(request.threads))
    for name, stored in manifest.values.items():
        node, types = nodes[name]
        golden = node.op.golden(*arrays(node.op, types, name), exact=exact)
        if digest(golden) != stored.digest:
            wrong.append(name)
    return tuple(wrong)
