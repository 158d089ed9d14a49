"""The builders against the official symbol files; the catalog against its rules and weights/README.md."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from refnet.errors import GraphError, InputError
from refnet.graph import Graph, Node
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    ExpandDims,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Mul,
    Op,
    Relu,
    Sigmoid,
    Softmax,
    UpsampleNearest,
)
from refnet.zoo.octresnet import octave_resnet

SYMBOLS = Path(__file__).parents[1].parent / "shared" / "symbols"

OFFICIAL = {
    "se-resnet-50_alpha-0.125": {
        "options": {"depth": 50, "ratio": 0.125, "se": True},
        "numbers": {"pooling": 504, "upsampling": 384, "elementwisesum": 20, "broadcast_mul": 0},
    },
    "resnet-26_alpha-0.25": {
        "options": {"depth": 26, "ratio": 0.25},
        "numbers": {"pooling": 203, "upsampling": 188, "elementwisesum": 2},
    },
    "resnet-50_alpha-baseline": {"options": {"depth": 50, "ratio": 0.0}, "numbers": {}},
    "resnext-50_32x4d_alpha-0.25": {
        "options": {"depth": 50, "ratio": 0.25, "groups": 32, "width": 2},
        "numbers": {"pooling": 712, "upsampling": 532, "elementwisesum": 32},
    },
}


def expected_op(op: str, attrs: dict[str, str]) -> Op:
    """The op that a node of the official files stands for; every attribute must be known."""
    a = {key: ast.literal_eval(v) if v[0] in "(0123456789TF" else v for key, v in attrs.items()}
    match op:
        case "Convolution":
            assert a.pop("no_bias") is True
            return Conv(a.pop("num_filter"), a["kernel"], a["stride"], a["pad"], groups=a["num_group"])
        case "BatchNorm":
            assert a["momentum"] == 0.92
            return BatchNorm(a["eps"], a["fix_gamma"])
        case "Activation":
            return {"relu": Relu(), "sigmoid": Sigmoid()}[a["act_type"]]
        case "Pooling" if a.get("global_pool"):
            assert a["pool_type"] == "avg"
            return GlobalAvgPool()
        case "Pooling":
            kind = {"max": MaxPool, "avg": AvgPool}[a["pool_type"]]
            return kind(a["kernel"], a["stride"], a["pad"])
        case "UpSampling":
            assert a["sample_type"] == "nearest" and a["num_args"] == 1
            return UpsampleNearest(a["scale"])
        case "add_n":
            return Add(a["num_args"])
        case "broadcast_mul":
            return Mul()
        case "expand_dims":
            return ExpandDims(a["axis"])
        case "FullyConnected":
            return Dense(a["num_hidden"], bias=not a.get("no_bias", False))
        case "Flatten":
            return Flatten()
        case "SoftmaxOutput":
            return Softmax()
    raise AssertionError(op)


def official_nodes(path: Path) -> tuple[list[Node], list[str]]:
    """Nodes as refnet writes them, and all names in the file's order without data and label."""
    symbol = json.loads(path.read_text())
    nodes, names = symbol["nodes"], [node["name"] for node in symbol["nodes"]]
    assert all(output == 0 for node in nodes for _, output, *_ in node["inputs"])
    made = [
        Node(
            node["name"],
            expected_op(node["op"], node.get("attrs", {})),
            tuple(names[i] for i, *_ in node["inputs"] if not names[i].endswith("_label")),
        )
        for node in nodes
        if node["op"] != "null"
    ]
    assert [names[i] for i, *_ in symbol["heads"]] == [made[-1].name]
    return made, [name for name in names if name not in ("data", "softmax_label")]


@pytest.fixture(params=OFFICIAL)
def official(request: pytest.FixtureRequest) -> tuple[Graph, Path]:
    path = SYMBOLS / f"{request.param}-symbol.json"
    if not path.exists():
        pytest.skip("the official symbol files (../shared/symbols) are not on this machine")
    case = OFFICIAL[request.param]
    return octave_resnet(**case["options"], numbers=case["numbers"]), path


def test_nodes_equal_the_official_files(official: tuple[Graph, Path]) -> None:
    """Names, ops, attributes, inputs and order, node by node."""
    graph, path = official
    nodes, names = official_nodes(path)
    for ours, theirs in zip(graph.nodes, nodes, strict=True):
        assert ours == theirs
    ours_with_weights = [name for node in graph.nodes for name in (*node.weights, node.name)]
    assert ours_with_weights == names
