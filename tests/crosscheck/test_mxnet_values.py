"""Every internal value of real MXNet, node by node, on MXNet's own inputs: bits, or the proven bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.core.graph import Graph
from refnet.formats.mxnet.reader import read_params, read_symbol, write_symbol
from refnet.frameworks.process import Worker
from refnet.models import synthetic
from refnet.models.export import export
from refnet.models.loading import structure
from tests.crosscheck.judge import Tally, walk
from tests.helpers.bits import same_bits as equal
from tests.helpers.official import SYMBOLS

pytestmark = pytest.mark.crosscheck

NETWORKS = {
    "densenet-121_alpha-0.125": "octave-densenet-121-0.125",
    "mobilenet_v1_075_alpha-0.375": "octave-mobilenet-v1-0.75-0.375",
    "mobilenet_v2_1125_alpha-0.5": "octave-mobilenet-v2-1.125-0.5",
    "resnet-26_alpha-0.25": "octave-resnet-26-0.25",
    "resnet-50_alpha-baseline": "resnet-50-baseline",
    "resnext-50_32x4d_alpha-0.25": "octave-resnext-50-0.25",
    "se-resnet-50_alpha-0.125": "octave-se-resnet-50-0.125",
    "se-resnet152_v1e_alpha-0.125": "octave-se-resnet-152-v1e-0.125",
}
"""Name of the official symbol file -> the catalog's."""
OWN = {"prob": "the softmax on top of logits is a node of refnet only"}


def written(mxnet: Worker, graph: Graph, folder: Path) -> tuple[Graph, Path]:
    """seed:0 weights written by MXNet itself and read back by refnet, bit for bit."""
    made = synthetic.weights(graph, 0)
    path = folder / "net-0000.params"
    statistics = graph.statistics()
    arrays = {("aux:" if name in statistics else "arg:") + name: array for name, array in made.items()}
    mxnet.ask("save", {"path": str(path)}, arrays)
    read = read_params(path)
    assert sorted(read) == sorted(made)
    for name, array in made.items():
        assert equal(read[name], array), name
    return graph.with_weights(read), path


def judged(mxnet: Worker, graph: Graph, symbol: Path, params: Path, mode: str) -> Tally:
    """Walk over MXNet's values of one image; nothing that MXNet computes is left out."""
    data = {"data": synthetic.normal(1, "data", graph.inputs["data"].shape)}
    request = {"symbol": str(symbol), "params": str(params), "mode": mode}
    absent = OWN if "prob" in graph.by_name and '"prob"' not in symbol.read_text() else {}
    return walk(graph, data, mxnet.stream("run", request, data), surplus={}, absent=absent)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_value_of_the_official_networks(
    mxnet: Worker, name: str, tmp_path: Path, report: list[str]
) -> None:
    """One at its own size, the others on small images; without the official files, refnet's own are run: the
    same nodes and names."""
    side = 224 if NETWORKS[name] == "octave-se-resnet-50-0.125" else 96
    symbol = SYMBOLS / f"{name}-symbol.json"
    if not symbol.is_file():
        symbol = tmp_path / symbol.name
        write_symbol(symbol, structure(NETWORKS[name]))
    graph, params = written(mxnet, read_symbol(symbol, (3, side, side)), tmp_path)
    report.extend(judged(mxnet, graph, symbol, params, "monitor").lines())


def test_every_value_of_an_exported_network_exposed_or_monitored(
    mxnet: Worker, tmp_path: Path, report: list[str]
) -> None:
    """refnet's own files run in MXNet; and the two ways to look inside both show what was computed.

    Exposed values could be overwritten by later in-place operations, and monitoring could change the
    run: the first would differ from what was judged, the second would change the bits of the output.
    """
    graph = refnet.load("octave-se-resnet-50-0.125", weights="seed:0")
    symbol, params = export(graph, tmp_path / "net")
    assert sorted(name.split(":")[1] for name in mxnet.ask("load", {"path": str(params)}).arrays) == sorted(
        graph.weights
    )
    data = {"data": synthetic.normal(1, "data", graph.inputs["data"].shape)}
    request = {"symbol": str(symbol), "params": str(params)}
    shown, exposed = (
        list(mxnet.stream("run", {**request, "mode": mode}, data)) for mode in ("monitor", "internals")
    )
    tally = walk(graph, data, shown, surplus={}, absent={})
    assert tally.compared == len(graph.nodes) == len(exposed)
    report.extend(tally.lines())
    same = dict(shown)
    assert {name for name, _ in exposed} == same.keys()
    assert [name for name, value in exposed if not equal(value, same[name])] == []
    plain = mxnet.ask("run", {**request, "mode": "outputs"}, data).arrays["output0"]
    monitored = mxnet.ask("run", {**request, "mode": "monitor"}, data).arrays["output0"]
    assert equal(plain, monitored)
    own = refnet.run(graph, data)["prob"]
    assert np.isfinite(own).all()
    report.append(distance(plain, own))


def distance(theirs: np.ndarray, own: np.ndarray) -> str:
    """Whole runs side by side: shown, not judged (each node is)."""
    places = int((theirs.argmax(1) == own.argmax(1)).sum())
    return (
        f"whole run: same argmax {places} of {len(own)}, largest difference {np.abs(theirs - own).max():.3g}"
    )
