"""What a stream of values tells of each node: shown, computed once for twins, or not at all."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from refnet.core.errors import UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, TensorType
from refnet.frameworks.caller import Caller
from refnet.frameworks.reveal.values import framework_values, twins
from refnet.ops import Add, AvgPool, Relu
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import FAST

POOL = AvgPool((2, 2), (2, 2))
NODES = (
    Node("pool_a", POOL, ("x",)),
    Node("pool_b", POOL, ("x",)),
    Node("other", AvgPool((2, 2), (2, 2), count_include_pad=False), ("x",)),
    Node("relu_a", Relu(), ("pool_a",)),
    Node("relu_b", Relu(), ("pool_b",)),
    Node("relu_c", Relu(), ("other",)),
    Node("sum", Add(2), ("relu_a", "relu_b")),
    Node("last", Add(2), ("sum", "relu_c")),
)
GRAPH = Graph("twins", {"x": TensorType((1, 2, 4, 4))}, NODES, {"last": "last"})
X = floats((1, 2, 4, 4), "twins")


def refuse(key: str) -> Caller:
    raise UnsupportedError(key)


def truth() -> dict[str, F32]:
    found: dict[str, F32] = {"x": X}
    for node in NODES:
        found[node.name] = node.op.run(*(found[name] for name in node.data), engine=FAST)
    return found


def seen(shown: Iterable[str], values: dict[str, F32] | None = None) -> list[str]:
    """The nodes that are told of, in order; their inputs and values are right."""
    values, names = values or truth(), []
    stream = ((name, values[name].copy()) for name in shown)
    for node, inputs, value in framework_values(GRAPH, {"x": X}, stream, {}, refuse):
        names.append(node.name)
        assert same_bits(value, values[node.name])
        assert all(same_bits(a, values[name]) for a, name in zip(inputs, node.data, strict=True))
    return names


def test_twins_have_the_same_op_and_twins_as_inputs():
    assert twins(GRAPH) == {
        "pool_a": ("pool_b",),
        "pool_b": ("pool_a",),
        "relu_a": ("relu_b",),
        "relu_b": ("relu_a",),
    }


def test_all_shown_are_told_of_once_each():
    names = [node.name for node in NODES]
    assert seen(names) == names


@pytest.mark.parametrize("kept", ["a", "b"])
def test_an_eliminated_twin_hides_nothing_behind_it(kept: str):
    shown = [f"pool_{kept}", "other", f"relu_{kept}", "relu_c", "sum", "last"]
    found = seen(shown)
    assert found[:6] == shown
    assert sorted(found) == sorted(node.name for node in NODES)


def test_a_twin_that_is_shown_later_has_its_own_value():
    values = truth()
    values["pool_b"] = values["pool_b"] + np.float32(1)
    values["relu_b"] = np.maximum(values["pool_b"], 0)
    values["sum"] = values["relu_a"] + values["relu_b"]
    values["last"] = values["sum"] + values["relu_c"]
    names = ["pool_a", "other", "pool_b", "relu_a", "relu_b", "relu_c", "sum", "last"]
    assert seen(names, values) == names


def test_what_is_no_twin_stays_hidden_and_hides_what_reads_it_alone():
    """Nothing can be said of relu_c, whose input is hidden; what reads relu_c has its value all the same."""
    assert seen(["pool_a", "relu_a", "relu_c", "sum", "last"]) == [
        "pool_a",
        "relu_a",
        "sum",
        "last",
        "pool_b",
        "relu_b",
    ]
