"""MXNet's sum and mean over all axes: shape (1,), where other frameworks have (); and the bound holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refnet.core.graph import Graph
from refnet.formats.mxnet import reader
from refnet.frameworks.process import Worker
from refnet.models import synthetic
from tests.crosscheck.judge import walk

pytestmark = pytest.mark.crosscheck

WHOLE = {
    "sum": ("sum", {}),
    "sum_axes": ("sum", {"axis": "(3, 1, -2, 0)"}),
    "mean": ("mean", {}),
    "mean_axes": ("mean", {"axis": "(0, 1, 2, 3)", "keepdims": "False"}),
}
"""Node -> op and attributes of what sums all of (1, 3, 5, 7)."""


def symbol(folder: Path) -> Path:
    """conv, and of it each of WHOLE; of the first one the mean once more, over its only axis."""
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "null", "name": "weight", "inputs": []},
        {
            "op": "Convolution",
            "name": "conv",
            "attrs": {"kernel": "(1, 1)", "num_filter": "3", "no_bias": "True"},
            "inputs": [[0, 0, 0], [1, 0, 0]],
        },
    ]
    for name, (op, attributes) in WHOLE.items():
        nodes.append({"op": op, "name": name, "attrs": attributes, "inputs": [[2, 0, 0]]})
    nodes.append({"op": "mean", "name": "again", "inputs": [[3, 0, 0]]})
    heads = [[i, 0, 0] for i in range(3, len(nodes))]
    path = folder / "whole-symbol.json"
    path.write_text(json.dumps({"nodes": nodes, "arg_nodes": [0, 1], "heads": heads}))
    return path


@pytest.mark.parametrize("mode", ["monitor", "internals"])
def test_sums_of_everything_have_one_axis(
    mxnet: Worker, tmp_path: Path, report: list[str], mode: str
) -> None:
    path = symbol(tmp_path)
    graph: Graph = reader.read_symbol(path, (3, 5, 7))
    graph = graph.with_weights(synthetic.weights(graph, 0))
    params = tmp_path / "whole-0000.params"
    mxnet.ask("save", {"path": str(params)}, {f"arg:{n}": w for n, w in graph.weights.items()})
    data = {"data": synthetic.normal(1, "data", (1, 3, 5, 7))}
    request = {"symbol": str(path), "params": str(params), "mode": mode}
    found = dict(mxnet.stream("run", request, data))
    types = graph.types()
    for name in (*WHOLE, "again"):
        assert types[name].shape == found[name].shape == (1,), name
    tally = walk(graph, data, found.items(), surplus={}, absent={})
    report.extend(tally.lines())
