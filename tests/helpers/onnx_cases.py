"""onnx's own tests of single nodes and of their expanded functions, as copies.

onnx keeps one list of them per process. A test that changed a model or an array there would change what every
later test of the same process reads, so nothing else in the tests may touch that list
(tests/test_project.py).
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any, NamedTuple

import onnx


class NodeCase(NamedTuple):
    """A model and the stored inputs and outputs in its order, all of the case's own: they may be changed."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def op(self) -> str:
        """The operator of a model with one node; "" of others."""
        nodes = self.model.graph.node
        return nodes[0].op_type if len(nodes) == 1 else ""


def node_cases() -> list[NodeCase]:
    """By name: the package's order is that of imports. A case with several sets of data comes as often."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    made = []
    for case in sorted(cases, key=lambda case: case.name):
        for inputs, outputs in case.data_sets or ():
            model = onnx.ModelProto()
            model.CopyFrom(case.model)
            made.append(NodeCase(case.name, model, tuple(deepcopy(inputs)), tuple(deepcopy(outputs))))
    return made
