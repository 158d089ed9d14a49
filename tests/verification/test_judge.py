"""The judge of the crosschecks notices what it must: each way of being wrong, one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import Interval
from refnet.ops import AvgPool, Conv, Relu
from tests.crosscheck.judge import Disagreement, same_bits, walk, within_bound
from tests.helpers.bits import floats
from tests.helpers.engines import FAST

X = floats((1, 3, 6, 6), "judge")
GRAPH = Graph(
    "judged",
    {"data": TensorType(X.shape)},
    (
        Node("conv", Conv(4, (3, 3), pad=(1, 1)), ("data", "w")),
        Node("relu", Relu(), ("conv",)),
        Node("pool", AvgPool((2, 2), (2, 2)), ("relu",)),
    ),
    {"out": "pool"},
    {"w": floats((4, 3, 3, 3), "judge-w")},
)


def run() -> dict[str, np.ndarray]:
    values = {"data": X}
    for node in GRAPH.nodes:
        arguments = [values[n] for n in node.data] + [GRAPH.weights[n] for n in node.weights]
        values[node.name] = node.op.run(*arguments, engine=FAST)
    return {name: values[name] for name in GRAPH.by_name}


def judge(values, surplus=None, absent=None):
    return walk(GRAPH, {"data": X}, list(values), surplus=surplus or {}, absent=absent or {})


def test_bits_differ_by_one_ulp_or_by_a_sign_of_zero():
    a = floats((2, 3), "a")
    same_bits(a.copy(), a)
    b = a.copy()
    b[1, 2] = np.nextafter(b[1, 2], np.float32(2))
    with pytest.raises(Disagreement, match=r"1 of 6 elements differ, first at \(1, 2\)"):
        same_bits(b, a)
    with pytest.raises(Disagreement, match="0x80000000"):
        same_bits(np.float32([-0.0]), np.float32([0.0]))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (np.float32([1, np.nan]), "1 of 2 elements not finite"),
        (np.float32([1, np.inf]), "1 of 2 elements not finite"),
        (np.float64([1, 2]), "found float64"),
        (np.float32([1]), r"found shape \(1,\)"),
        (np.float32([[1, 2]]), r"found shape \(1, 2\)"),
    ],
)
def test_what_cannot_be_compared_disagrees(found, why):
    expected = np.float32([1, 2])
    with pytest.raises(Disagreement, match=why):
        same_bits(found, expected)
    with pytest.raises(Disagreement, match=why):
        within_bound(found, Interval(expected.astype(np.float64), np.full(2, 1e30)))


def test_nan_does_not_equal_nan_and_nothing_is_not_compared():
    nan, nothing = np.float32([np.nan]), np.zeros((0, 3), np.float32)
    with pytest.raises(Disagreement, match="not finite"):
        same_bits(nan, nan)
    with pytest.raises(Disagreement, match="nothing to compare"):
        same_bits(nothing, nothing)


def test_bounds_end_where_they_say():
    interval = Interval(np.float64([1.0, 0.0]), np.float64([0.5, 0.0]))
    assert within_bound(np.float32([1.25, 0.0]), interval) == 0.5
    assert within_bound(np.float32([1.5, 0.0]), interval) == 1.0
    with pytest.raises(Disagreement, match=r"worst at \(0,\).*bound .*1\.0.* \+- .*0\.5"):
        within_bound(np.nextafter(np.float32([1.5, 0.0]), np.float32(2)), interval)
    with pytest.raises(Disagreement, match=r"worst at \(1,\)"):
        within_bound(np.float32([1.0, 1e-45]), interval)


@pytest.mark.parametrize("radius", [np.inf, np.nan])
def test_a_bound_that_promises_nothing_proves_nothing(radius):
    with pytest.raises(Disagreement, match="no finite bound"):
        within_bound(np.float32([1.0]), Interval(np.float64([1.0]), np.float64([radius])))


def test_a_bound_without_a_center_disagrees():
    with pytest.raises(Disagreement, match="outside"):
        within_bound(np.float32([1.0]), Interval(np.float64([np.nan]), np.float64([1.0])))


def test_a_right_run_passes_and_is_counted():
    tally = judge(run().items())
    assert tally.compared == 3
    assert dict(tally.bits) == {"Relu": 1}
    assert dict(tally.bounds) == {"Conv": 1, "AvgPool": 1}
    assert 0 < tally.shares["Conv"] <= 1
    assert tally.lines()[0] == "3 values compared"


@pytest.mark.parametrize("name", ["conv", "relu", "pool"])
def test_one_wrong_element_anywhere_is_found(name):
    values = run()
    at = (0, 3, 1, 2)
    values[name][at] += np.float32(1e-3)
    with pytest.raises(Disagreement, match=rf"^{name} = .*\(0, 3, 1, 2\)"):
        judge(values.items())


def test_values_are_judged_on_the_frameworks_own_inputs():
    values = run()
    values["conv"][0, 0, 0, 0] = np.nextafter(values["conv"][0, 0, 0, 0], np.float32(9))
    values["relu"] = np.maximum(values["conv"], 0)
    values["pool"] = GRAPH.nodes[2].op.run(values["relu"], engine=FAST)
    assert judge(values.items()).compared == 3


def test_missing_doubled_surplus_and_misplaced_values_are_found():
    values = list(run().items())
    with pytest.raises(Disagreement, match="1 values never came, first \\['pool'\\]"):
        judge(values[:2])
    with pytest.raises(Disagreement, match="'relu' came twice"):
        judge([*values, values[1]])
    with pytest.raises(Disagreement, match="'relu' came before its inputs \\['conv'\\]"):
        judge([values[1], values[0], values[2]])
    with pytest.raises(Disagreement, match="'extra' is no node"):
        judge([*values, ("extra", X)])
    assert judge([*values, ("extra", X)], surplus={"ext.*": "why"}).surplus == {"why": 1}
    with pytest.raises(Disagreement, match="'extra' is no node"):
        judge([*values, ("extra", X)], surplus={"ext": "matches a part of the name only"})


def test_absent_values_are_named_and_really_absent():
    values = list(run().items())
    assert judge(values[:2], absent={"pool": "why"}).compared == 2
    with pytest.raises(Disagreement, match="said to be absent"):
        judge(values, absent={"pool": "why"})
    with pytest.raises(Disagreement, match="said to be absent"):
        judge(values, absent={"nowhere": "why"})


def test_a_bound_op_by_its_bits_alone_would_fail_but_lies_within():
    values = run()
    moved = np.nextafter(values["pool"], np.float32(9))
    with pytest.raises(Disagreement):
        same_bits(moved, values["pool"])
    values["pool"] = moved
    assert judge(values.items()).shares["AvgPool"] > 0
