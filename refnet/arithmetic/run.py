"""The public `refnet.run` and `refnet.steps`: the interpreter's, with plain arithmetic as the default."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from refnet.arithmetic.plain import Plain
from refnet.core import interpreter
from refnet.formats.arguments import ARRAYS, check_arguments

if TYPE_CHECKING:
    from refnet.core.graph import Graph, Node
    from refnet.core.interpreter import Arithmetic
    from refnet.core.op import F32


def steps(
    graph: Graph,
    inputs: Mapping[str, F32],
    arithmetic: Arithmetic | None = None,
    until: Collection[str] | None = None,
) -> Iterator[tuple[Node, F32]]:
    """Yield (node, value) for every node in execution order; each value is freed after its last use.

    Values are read-only while later nodes may need them. Copy a value to change it.

    inputs: name -> float32 array (batch, ...). arithmetic: default `Plain()`.
    until: only the nodes that these values need (default: all nodes).
    Raises InputError or WeightsError before the first node if something does not fit.

    >>> import numpy as np
    >>> import refnet
    >>> graph = refnet.load("octave-se-resnet-digits")
    >>> x = np.zeros((1, *graph.inputs["data"].shape[1:]), np.float32)
    >>> next(iter(refnet.steps(graph, {"data": x})))[0].name
    'conv1_conv'
    """
    check_arguments(locals(), {"inputs": ARRAYS})
    return interpreter.steps(graph, inputs, _plain() if arithmetic is None else arithmetic, until)


def run(
    graph: Graph,
    inputs: Mapping[str, F32],
    arithmetic: Arithmetic | None = None,
    values: Collection[str] | None = None,
) -> dict[str, F32]:
    """Run a graph: {output name: array}, or {value name: array} for the values asked for.

    inputs: name -> float32 array (batch, ...). values: value names to return instead of the outputs.
    arithmetic: by default one shared `Plain()`. It caches what makes the next run of a graph faster (a plan,
    and the captured run) as long as the graph lives. An arithmetic of your own has its own cache: make it
    once, not for each run.

    >>> import numpy as np
    >>> import refnet
    >>> graph = refnet.load("octave-se-resnet-digits")
    >>> x = np.zeros((2, *graph.inputs["data"].shape[1:]), np.float32)
    >>> refnet.run(graph, {"data": x})["prob"].shape
    (2, 10)
    """
    check_arguments(locals(), {"inputs": ARRAYS})
    return interpreter.run(graph, inputs, _plain() if arithmetic is None else arithmetic, values)


@lru_cache(maxsize=1)
def _plain() -> Plain:
    """The default arithmetic."""
    return Plain()
