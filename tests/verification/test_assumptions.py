"""Verdicts that rest on an assumption say so: the accuracy of a framework's exp."""

from __future__ import annotations

import json

import numpy as np

import refnet
from refnet import ops
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.rounding import EXP_ASSUMED
from refnet.verification.capture import Values
from refnet.verification.judge import judge
from refnet.verification.verify import verify_values
from tests.helpers.bits import floats
from tests.helpers.engines import FAST


def test_a_verdict_by_a_bound_says_what_the_bound_assumes():
    """No order can be proved of an exp: where the bound decides, its accuracy is taken for granted."""
    x = floats((2, 5), "exp")
    for op in (ops.Sigmoid(), ops.Softmax(axis=1)):
        node = Node("y", op, ("x",))
        right = op.run(x, engine=FAST)
        assert EXP_ASSUMED not in (judge(node, right, [x]).reason or "")  # plain's bits: nothing is assumed
        other = judge(node, np.nextafter(right, np.float32(1)), [x])
        assert (other.verdict, other.reason) == ("rounding", EXP_ASSUMED)
        wrong = judge(node, right * np.float32(1.01), [x])
        assert wrong.verdict == "defect"
        assert wrong.reason == f"10 of 10 elements lie outside the bound; {EXP_ASSUMED}"
    relu = judge(Node("y", ops.Relu(), ("x",)), x + np.float32(1), [x])
    assert EXP_ASSUMED not in (relu.reason or "")


def test_a_bound_over_a_hidden_exp_says_so_too():
    nodes = (Node("s", ops.Sigmoid(), ("x",)), Node("y", ops.Relu(), ("s",)))
    graph = Graph("g", {"x": TensorType((1, 4))}, nodes, {"y": "y"})
    x = floats((1, 4), "hidden")
    y = np.nextafter(refnet.run(graph, {"x": x})["y"], np.float32(1))
    (found,) = (one for one in verify_values(graph, Values({"y": y}, {"x": x})).nodes if one.name == "y")
    assert found.over == ("s", "y")
    assert (found.verdict, found.reason) == ("rounding", EXP_ASSUMED)
    assert found.reason in json.dumps(verify_values(graph, Values({"y": y}, {"x": x})).record())
