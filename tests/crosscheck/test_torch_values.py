"""Every value of the official ResNeSt in real PyTorch, node by node, on PyTorch's own inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.core.graph import Graph
from refnet.formats.torch.reader import read_state_dict
from refnet.frameworks.process import Worker
from refnet.models import synthetic
from refnet.models.loading import structure
from tests.crosscheck.judge import walk
from tests.crosscheck.test_mxnet_values import distance
from tests.helpers.bits import same_bits as equal

pytestmark = pytest.mark.crosscheck

NETWORKS = {
    "resnest-50-pytorch": "resnest50",
    "resnest-101-pytorch": "resnest101",
    **{
        f"resnest-50-fast-{variant}-pytorch": f"resnest50_fast_{variant}"
        for variant in ("1s1x64d", "2s1x64d", "4s1x64d", "1s2x40d", "2s2x40d", "4s2x40d", "1s4x24d")
    },
}
"""Catalog name -> callable in the package resnest."""

SURPLUS = {
    r"layer\d\.\d+\.conv2\.(add|mul)(_\d+)?": "a partial result of a radix sum or a weighted sum",
    r"layer\d\.\d+\.conv2\.rsoftmax\.(softmax|sigmoid)": "the radix softmax before its reshape",
    r"conv1|layer\d(\.\d+(\.conv2|\.downsample)?)?": "a module that returns the last value inside it",
    "flatten": "avgpool's output, which is flat already",
}
ABSENT = {"prob": "the module returns logits; the softmax on top is a node of refnet only"}


def written(torch: Worker, graph: Graph, folder: Path) -> tuple[Graph, Path]:
    """seed:0 weights written by torch in both formats and read back by refnet, bit for bit."""
    made = synthetic.weights(graph, 0)
    means = [name for name in made if name.endswith(".running_mean")]
    counters = [name.replace("running_mean", "num_batches_tracked") for name in means]
    for file, zipped in (("zip.pth", True), ("legacy.pth", False)):
        path = folder / file
        torch.ask("save", {"path": str(path), "zip": zipped, "counters": counters}, made)
        assert path.read_bytes().startswith(b"PK\x03\x04") == zipped
        read = read_state_dict(path)
        assert sorted(read) == sorted([*made, *counters])
        for name, array in made.items():
            assert equal(read[name], array), f"{file}: {name}"
    return graph.with_weights({name: read[name] for name in made}), folder / "zip.pth"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_value_of_the_official_networks(
    torch: Worker, name: str, tmp_path: Path, report: list[str]
) -> None:
    """Each at its own size (on small images a radix softmax of ResNeSt-101 gets inputs of which no bound is
    finite); every value in the order of the graph."""
    graph, path = written(torch, structure(name), tmp_path)
    data = {"data": synthetic.normal(1, "data", graph.inputs["data"].shape)}
    request = {"model": f"resnest.torch:{NETWORKS[name]}", "weights": str(path), "threads": 1}
    shown = list(torch.stream("run", request, data))
    assert [key for key, _ in shown if key in graph.by_name] == [
        node.name for node in graph.nodes if node.name not in ABSENT
    ]
    tally = walk(
        graph,
        data,
        shown,
        surplus=SURPLUS,
        absent=ABSENT,
        reshaped=("RadixSoftmax",),
    )
    report.extend(tally.lines())
    theirs = torch.ask("run", {**request, "weights": str(tmp_path / "legacy.pth")}, data).arrays["output"]
    own = refnet.run(graph, data)["logits"]
    assert np.isfinite(own).all()
    report.append(distance(theirs, own))
