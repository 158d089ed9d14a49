"""A graph with its weights -> files of a framework."""

from __future__ import annotations

import os
from pathlib import Path

from refnet.core.errors import InputError, WeightsError
from refnet.core.graph import Graph
from refnet.core.words import did_you_mean

FORMATS = ("mxnet", "onnx")


def export(graph: Graph, prefix: str | os.PathLike[str], to: str = "mxnet") -> tuple[Path, ...]:
    """Write a graph for another framework; the paths of what was written.

    to: "mxnet" writes PREFIX-symbol.json and PREFIX-0000.params, which MXNet's load_checkpoint(PREFIX, 0)
    reads; "onnx" writes PREFIX.onnx (opset 17) and needs the package onnx. Values and weights keep their
    names. Each file is written under a temporary name first, the parameters before the symbol: where the
    symbol is, everything is.
    Raises InputError for an unknown format, a prefix without a file name, a folder that cannot be written,
    or onnx missing; WeightsError for a graph without weights; UnsupportedError for a node that the format
    has no equal of.

    >>> import refnet, tempfile
    >>> graph = refnet.load("octave-se-resnet-digits", weights="seed:0")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in export(graph, Path(folder) / "net")]
    ['net-symbol.json', 'net-0000.params']
    """
    if to not in FORMATS:
        raise InputError(f"to must be one of {', '.join(FORMATS)}, got {to!r}{did_you_mean(to, FORMATS)}")
    if os.path.basename(os.fspath(prefix)) in ("", ".", ".."):
        raise InputError(f"prefix must end in a file name, got {os.fspath(prefix)!r}")
    if missing := [name for name in graph.weight_types if name not in graph.weights]:
        raise WeightsError(
            f"{graph.name} has no weights to write: {len(missing)} missing, first {missing[0]}"
        )
    if to == "onnx":
        from refnet.formats.onnx.export import write_onnx

        model = Path(f"{os.fspath(prefix)}.onnx")
        write_onnx(model, graph)
        return (model,)
    from refnet.formats.mxnet.reader import graph_to_symbol, write_params, write_symbol

    graph_to_symbol(graph)  # what MXNet cannot say is refused before anything is written
    symbol, params = Path(f"{os.fspath(prefix)}-symbol.json"), Path(f"{os.fspath(prefix)}-0000.params")
    write_params(params, graph.weights, graph.statistics())
    write_symbol(symbol, graph)
    return symbol, params
