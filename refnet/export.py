"""A graph with its weights -> files of a framework."""

from __future__ import annotations

import os
from pathlib import Path

from refnet.errors import InputError, WeightsError
from refnet.graph import Graph

FORMATS = ("mxnet",)


def export(graph: Graph, prefix: str | os.PathLike[str], to: str = "mxnet") -> tuple[Path, Path]:
    """Write PREFIX-symbol.json and PREFIX-0000.params, which MXNet's load_checkpoint(PREFIX, 0) reads.

    Both are written under a temporary name first, the parameters before the symbol: where the symbol
    is, everything is. Returns both paths, the symbol's first.
    Raises InputError for an unknown format or a folder that cannot be written, WeightsError for a graph
    without weights, UnsupportedError for a node that MXNet has no equal of.

    >>> import refnet, tempfile
    >>> graph = refnet.load("octave-se-resnet-digits", weights="seed:0")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in export(graph, Path(folder) / "net")]
    ['net-symbol.json', 'net-0000.params']
    """
    if to not in FORMATS:
        raise InputError(f"to must be one of {', '.join(FORMATS)}, got {to!r}")
    if missing := [name for name in graph.weight_types if name not in graph.weights]:
        raise WeightsError(
            f"{graph.name} has no weights to write: {len(missing)} missing, first {missing[0]}"
        )
    from refnet.readers.mxnet import graph_to_symbol, write_params, write_symbol

    graph_to_symbol(graph)  # what MXNet cannot say is refused before anything is written
    symbol, params = Path(f"{os.fspath(prefix)}-symbol.json"), Path(f"{os.fspath(prefix)}-0000.params")
    write_params(params, graph.weights, graph.statistics())
    write_symbol(symbol, graph)
    return symbol, params
