"""Order-free runs: inputs on which no order of summation can differ, so that all must agree bit for bit.

    order_free(request) ── Plan ── for each reduction: arrays(op, types) ── the framework ── its value
                                                                └────────── compare: golden

Why node by node, and not one run of a network with chosen weights: a value's digits grow by the logarithm
of the terms in every reduction, and nothing in a network takes them away again but a rounding; after a few
layers float32 has no place for them, and sigmoid, softmax and means over 49 pixels leave the grid at once.
On inputs of its own every reduction is exact, with every term nonzero, at the network's own sizes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np

import refnet
from refnet.core.errors import GraphError, InputError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, TensorType
from refnet.exact.engine import DecideOrRefine
from refnet.formats.golden_file import digest
from refnet.formats.manifest import Manifest, Reference
from refnet.frameworks.ask import Ask, asker
from refnet.frameworks.capture.request import Request, processor
from refnet.frameworks.capture.sources import reference, worker_of
from refnet.frameworks.capture.writer import Array, Plan
from refnet.kernels.engine import Fast
from refnet.models.loading import structure
from refnet.ops import AvgPool, Conv, Dense, GlobalAvgPool, Op

REDUCTIONS = (Conv, Dense, AvgPool, GlobalAvgPool)
EXACT = 1 << 24
"""Integers up to here are exact in float32."""
LARGEST = 255
"""No factor is larger, so that one fits the eight bits that any reduced-precision unit should keep."""


def arrays(op: Op, types: tuple[TensorType, ...], name: str, seed: int = 0) -> tuple[F32, ...]:
    """Inputs for a reduction, on which every partial sum in any order is exact, with or without FMA.

    types: of data and weights. name, seed: choose the numbers, the same on every machine.

    A sum of products: with n terms, factors are nonzero integers of at most m = isqrt((2^23 - 1) / n), so any
    partial sum of products is an integer below 2^23; a bias is one below 2^23; together they stay below 2^24.
    An average over at most a by b elements: each element is a multiple of every divisor that can occur,
    f = lcm(1..a) lcm(1..b) (of a global average: a b), and a b elements of at most m f stay below
    2^24, so that sums, quotients, and sums of quotients are integers below 2^24 too. Data is nonzero,
    because the sign of a sum of nothing but zeros does depend on the order.

    Raises UnsupportedError for an op that is no reduction, or has too many terms (m < 1).

    >>> x, w = arrays(Conv(2, (3, 3)), (TensorType((1, 4, 5, 5)), TensorType((2, 4, 3, 3))), "conv1")
    >>> int(abs(x).max()) * int(abs(w).max()) * 36 < 2**23, bool((x == 0).any())
    (True, False)
    """
    if isinstance(op, Conv | Dense):
        terms = math.prod(types[1].shape[1:])
        most = min(LARGEST, math.isqrt((EXACT // 2 - 1) // terms))
        limits = (most, most, EXACT // 2 - 1)[: len(types)]
        factor = 1
    elif isinstance(op, AvgPool | GlobalAvgPool):
        sides = op.kernel if isinstance(op, AvgPool) else types[0].shape[2:]
        terms = math.prod(sides)
        factor = terms
        if isinstance(op, AvgPool):
            factor = math.prod(math.lcm(*range(1, side + 1)) for side in sides)
        limits = (min(LARGEST, (EXACT - 1) // (terms * factor)),)
    else:
        raise UnsupportedError(f"{op!r} is no reduction: it has no order")
    if min(limits) < 1:
        raise UnsupportedError(f"{name}: {terms} terms are too many for sums that are exact in float32")
    return tuple(
        _integers(f"{seed}\0{name}\0{i}", kind.shape, most) * np.float32(factor)
        for i, (kind, most) in enumerate(zip(types, limits, strict=True))
    )


def _integers(key: str, shape: tuple[int, ...], most: int) -> F32:
    """Nonzero integers from -most to most. Philox's raw words are fixed by NumPy's promise (NEP 19)."""
    number = int.from_bytes(hashlib.sha256(f"refnet order-free 1\0{key}".encode()).digest()[:16], "little")
    words = np.random.Philox(key=number).random_raw(math.prod(shape))
    size = (words >> np.uint64(1)) % np.uint64(most) + np.uint64(1)
    sign = 1 - 2 * (words & np.uint64(1)).astype(np.int64)
    return (size.astype(np.int64) * sign).astype(np.float32).reshape(shape)


def reductions(graph: Graph, batch: int = 1) -> dict[str, tuple[Node, tuple[TensorType, ...]]]:
    """The reductions of a graph, by name, with the types of their data and weights at this batch."""
    types = graph.types({name: TensorType((batch, *k.shape[1:])) for name, k in graph.inputs.items()})
    return {
        node.name: (node, tuple(types[name] for name in node.inputs))
        for node in graph.nodes
        if isinstance(node.op, REDUCTIONS)
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
            who = Reference("refnet", refnet.__version__, threads=request.threads, batch=batch)
            who = replace(who, mode=request.executed, processor=processor())
            ask = _own(request.executed, request.threads)
        else:
            worker = worker_of(request, {}, stack)
            flags = dict(request.environment)
            who = reference(
                request.framework,
                worker,
                threads=request.threads,
                batch=batch,
                mode="single ops",
                flags=flags,
            )
            ask = asker(worker, request.framework, request.threads)
        who = replace(who, flags={**who.flags, "order-free": "0"})

        def values() -> Iterator[tuple[str, Array]]:
            for name, (node, types) in nodes.items():
                try:
                    op = spoken(node.op, types, request.framework)
                    x, *weights = arrays(op, types, name)
                    flat = x.reshape(len(x), -1) if isinstance(op, Dense) else x  # as it means
                    yield name, ask(op, flat, *weights)
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


def _own(mode: str, threads: int) -> Ask:
    engine = Fast(threads)

    def ask(op: Op, x: F32, w: F32 | None = None, bias: F32 | None = None) -> F32:
        given = [array for array in (x, w, bias) if array is not None]
        if mode == "golden":
            return op.golden(*given, exact=DecideOrRefine(engine))
        return op.run(*given, engine=engine)

    return ask


def spoken(op: Op, types: tuple[TensorType, ...], framework: str) -> Op:
    """The op in the framework's words: a way of rounding a pool's size that it has, with the same size here.

    There is one: full and ceil differ only in a last window that lies wholly in the padding. full with such a
    window is refused by the op; ceil leaves it out, and has then the size of valid.

    >>> spoken(AvgPool((2, 2), (2, 2), convention="ceil"), (TensorType((1, 1, 8, 8)),), "mxnet").convention
    'valid'
    """
    known = {"mxnet": ("valid", "full"), "torch": ("valid", "ceil"), "onnxruntime": ("valid", "ceil")}
    if not isinstance(op, AvgPool) or op.convention in known.get(framework, (op.convention,)):
        return op
    others = (replace(op, convention=convention) for convention in known[framework])
    return next(other for other in others if _size(other, types) == _size(op, types))


def _size(op: Op, types: tuple[TensorType, ...]) -> TensorType | None:
    try:
        return op.type(*types)
    except GraphError:  # a window without an element
        return None


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
