"""onnx's own tests: none is wrong, none ends in a traceback, and not fewer are right than before."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refnet.models.loading import load
from tests.crosscheck.onnx_node_tests import (
    CONSTANTS,
    LEFT_OUT,
    RIGHT,
    TRACEBACK,
    UNDECIDED,
    WRONG,
    Outcome,
    light_tests,
    node_tests,
    outcome,
    outcomes,
    page,
    table,
)
from tests.helpers.onnx_build import one_process

PAGE = Path(__file__).parents[2] / "docs" / "onnx-tests.md"
pytestmark = pytest.mark.crosscheck

LEAST = {"node": 973, "packaged": 118}
"""Right, some with constants, when this was written: a floor, not a count."""
WHOLE = {
    *("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization", "LRN"),
    *("Gelu", "Erf", "Tanh", "Exp", "Log", "Sqrt", "Sin", "Cos", "Reciprocal", "Pow", "HardSigmoid"),
    *("HardSwish", "Swish", "Mish", "Softplus", "LeakyRelu", "PRelu", "Elu", "LogSoftmax", "Softmax"),
    *("Max", "Min", "Abs", "Neg", "ReduceMax", "ReduceL2", "Conv", "ConvTranspose", "MaxPool"),
    *("AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LpPool", "Resize", "DepthToSpace"),
    *("SpaceToDepth", "Slice", "Gather", "Expand", "Tile", "Pad", "Where", "Equal", "Less", "Greater"),
    *("LessOrEqual", "GreaterOrEqual", "Cast", "MatMul", "Gemm", "CumSum", "Einsum", "Mean", "Hardmax"),
    *("Tan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Atan", "Asin", "Acos", "Floor", "Ceil", "Round"),
    *("Sign", "ThresholdedRelu", "Shrink", "MeanVarianceNormalization", "RotaryEmbedding", "AffineGrid"),
    *("CenterCropPad", "SwiGLU", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
}
"""Operators of which every test with float32 outputs is right, but for those named in REFUSED."""
REFUSED = {
    **{f"test_pow_types_float32_{kind}": "integers as exponents" for kind in ("int32", "int64")},
    **{f"test_pow_types_float32_{kind}": "integers as exponents" for kind in ("uint32", "uint64")},
    "test_reduce_l2_empty_set": "a value without elements",
    "test_reduce_max_empty_set": "a value without elements",
    "test_slice_start_out_of_bounds": "a value without elements",
}
"""Test -> what it needs that refnet does not have."""


@pytest.mark.parametrize("kind", sorted(LEAST))
def test_none_is_wrong(kind: str, report: list[str]) -> None:
    found = [*outcomes(kind)]
    report.extend(table(found, reasons=False).splitlines())
    bad = [one for one in found if one.outcome in (WRONG, TRACEBACK)]
    assert bad == []
    counts = Counter(one.outcome for one in found)
    if kind == "node":
        assert page(found) + "\n" == PAGE.read_text(encoding="utf-8")
    assert counts[RIGHT] + counts[CONSTANTS] >= LEAST[kind]
    if kind == "node":
        good = (RIGHT, CONSTANTS, LEFT_OUT)
        assert {one.test for one in found if one.op in WHOLE and one.outcome not in good} == set(REFUSED)
        assert counts[UNDECIDED] == 0


def test_the_light_networks_load(tmp_path: Path, report: list[str]) -> None:
    """Their weights are ConstantOfShape: up to 575 MB of a file of 9 kB. What refnet lacks is named."""
    for test in light_tests():
        path = tmp_path / "light.onnx"
        path.write_bytes(test.model.SerializeToString())
        graph = load(path)
        lacking = {node.op.opaque for node in graph.nodes if node.op.opaque}
        report.append(f"{test.name}: {len(graph.nodes)} nodes, lacking {', '.join(lacking) or 'nothing'}")
        assert all(reason.startswith("LRN: ") for reason in lacking)


def test_a_wrong_output_is_seen() -> None:
    """The harness on tests whose stored outputs were changed."""
    wanted = {"test_relu", "test_softmax_axis_1", "test_add"}
    seen: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder, one_process():
        for test in node_tests():
            if test.name in wanted:
                outputs = tuple((array * 1.001).astype(np.float32) for array in test.outputs)
                seen.append(outcome(replace(test, outputs=outputs), Path(folder)))
    assert [one.outcome for one in seen] == [WRONG] * len(wanted)
