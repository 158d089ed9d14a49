"""onnx's own node tests of the operators that select, convolve, pool, resize and rearrange.

Each stored output is judged: refnet's node on the stored inputs, the stored value inside its bound or of its
bits. What is not judged is listed by name with its reason, so a test that stops being judged is noticed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from refnet.core.errors import RefnetError
from refnet.formats.onnx.reader import read_onnx
from tests.crosscheck.onnx_node_tests import OTHER_PLACES
from tests.helpers.onnx_cases import NodeCase, node_cases
from tests.helpers.onnx_models import judge

pytestmark = pytest.mark.crosscheck

OPERATORS = {
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LpPool"),
    *("Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "Slice", "Gather", "GatherND", "Expand", "Tile"),
    *("Pad", "Split", "Transpose", "Squeeze", "Unsqueeze", "Reshape"),
}
OTHER_VALUES = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad": "the stored output is rounded to four decimals",
    **OTHER_PLACES,
}
"""Tests whose stored values are not what ONNX's text says: refnet calls them defects."""
OPAQUE = {"several axes, or in a batch": 1}
"""Why others are not computed, and how many: GatherND."""
EMPTY = {
    "test_reshape_allowzero_reordered",
    "test_slice_start_out_of_bounds",
    "test_split_zero_size_splits_opset13",
    "test_split_zero_size_splits_opset18",
}
"""Tests with values that have no elements, which refused files have."""


def cases() -> list[NodeCase]:
    """Those of one of these operators, with float32 data and outputs."""
    return [
        case
        for case in node_cases()
        if case.op in OPERATORS
        and {np.asarray(case.inputs[0]).dtype, np.asarray(case.outputs[0]).dtype} == {np.dtype(np.float32)}
    ]


def test_a_changed_case_changes_no_other() -> None:
    """Models and arrays that one test changes are others' as they were, and so are those of other cases."""
    before = {case.name: (case.model, *map(repr, (case.inputs, case.outputs))) for case in node_cases()}
    for case in node_cases():
        case.model.graph.ClearField("node")
        for array in (*case.inputs, *case.outputs):
            if isinstance(array, np.ndarray) and array.dtype == np.float32:
                array[...] = 7
    for case in node_cases():
        assert (case.model, *map(repr, (case.inputs, case.outputs))) == before[case.name], case.name


def test_node_tests_of_onnx(tmp_path: Path, report: list[str]) -> None:
    judged, unknown, refused = Counter(), Counter(), set()
    for name, model, stored_inputs, stored_outputs in cases():
        inputs, outputs = [*map(np.asarray, stored_inputs)], [*map(np.asarray, stored_outputs)]
        names = [one.name for one in model.graph.input]
        data = {names[0]: inputs[0]}
        for one, array in zip(names[1:], inputs[1:], strict=True):  # shapes, weights, indices: constants
            model.graph.initializer.append(numpy_helper.from_array(array, one))
        del model.graph.input[1:]
        path = tmp_path / "one.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            graph = read_onnx(path)
        except RefnetError:
            refused.add(name)
            continue
        if why := [node.op.opaque for node in graph.nodes if node.op.opaque]:
            unknown[next(reason for reason in OPAQUE if reason in why[0])] += 1
            continue
        made = zip((one.name for one in model.graph.output), outputs, strict=True)
        found = {one: value for one, value in made if one in graph.by_name}
        if name in OTHER_VALUES:
            with pytest.raises(AssertionError, match="defect"):
                judge(graph, data, found)
            continue
        assert judge(graph, data, found).compared == len(found) >= 1, name
        judged[model.graph.node[0].op_type] += 1
    assert refused == EMPTY
    assert unknown == OPAQUE
    assert judged["ConvTranspose"] >= 11
    assert judged["Resize"] >= 37
    report.append(f"{judged.total()} node tests of onnx {onnx.__version__}: {dict(sorted(judged.items()))}")
