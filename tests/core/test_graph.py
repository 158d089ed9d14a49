"""What a graph says of itself: the whole program when printed, one bounded line in a notebook."""

from __future__ import annotations

import pytest

import refnet
from refnet.core.errors import GraphError
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.models.cost import summary
from refnet.ops import Dense, Relu


@pytest.mark.parametrize("name", ["resnest-digits", "octave-se-resnet-digits"])
def test_a_loaded_graph_says_what_it_is_in_one_line(name):
    graph = refnet.load(name)
    count = sum(graph.weights[each].size for each in graph.weights if each not in graph.statistics())
    outputs = ", ".join(graph.outputs)
    assert repr(graph) == (
        f"<Graph {name!r}: data float32[1, 1, 32, 32]; {len(graph.nodes)} nodes, {count:,} parameters; "
        f"outputs {outputs}>"
    )
    assert len(str(graph).splitlines()) == len(graph.nodes) + 2
    assert count == summary(graph).parameters


def test_without_weights_it_says_so():
    graph = refnet.load("resnest-digits")
    bare = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs)
    assert "weights, not loaded; outputs" in repr(bare)


def test_the_line_is_bounded_and_harmless_whatever_the_graph_holds():
    names = [f"\x1b[31m{'x' * 1000}{i}" for i in range(100)]
    inputs = {name: TensorType((1, 2)) for name in names}
    nodes = tuple(Node(f"r{i}", Relu(), (name,)) for i, name in enumerate(names))
    graph = Graph(
        "g" * 5000, inputs, nodes, {f"o{name}": node.name for name, node in zip(names, nodes, strict=True)}
    )
    assert len(repr(graph)) < 1000
    assert repr(graph).isprintable()
    assert "and 96 more; 100 nodes, 0 parameters; outputs" in repr(graph)


HALF = "conv\ud800"


@pytest.mark.parametrize(
    "parts",
    [
        {"name": HALF},
        {"inputs": {HALF: TensorType((1, 2))}, "nodes": (Node("r", Relu(), (HALF,)),)},
        {"nodes": (Node(HALF, Relu(), ("data",)), Node("r", Relu(), (HALF,)))},
        {"nodes": (Node("r", Dense(3, False), ("data", HALF)),)},
        {"outputs": {HALF: "r"}},
    ],
    ids=["graph", "input", "node", "weight", "output"],
)
def test_a_name_with_half_of_a_surrogate_pair_is_refused(parts):
    """It could be neither printed nor hashed."""
    sound = {"name": "g", "inputs": {"data": TensorType((1, 2))}, "outputs": {"out": "r"}}
    sound["nodes"] = (Node("r", Relu(), ("data",)),)
    assert len(Graph(**sound).structure_hash()) == 64
    with pytest.raises(GraphError, match=r"the name 'conv.ud800' has half of a surrogate pair"):
        Graph(**(sound | parts))
