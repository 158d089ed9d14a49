"""Arrays of another shape than their value's: read by the one order of axes in which they are clean."""

from __future__ import annotations

import json
import math
from itertools import permutations

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.report.verify import show_diff
from refnet.verification.axes import MOST_AXES, readings, regrouped
from refnet.verification.capture import Values
from refnet.verification.judge import judge
from refnet.verification.verify import verify_values
from tests.helpers.bits import floats

F = np.float32
NHWC = (0, 2, 3, 1)


def network() -> Graph:
    """Two convolutions with a relu between, a pool and a flatten, on square maps."""
    weights = {"w1": floats((8, 3, 3, 3), "w1"), "w2": floats((8, 8, 3, 3), "w2")}
    nodes = (
        Node("conv1", ops.Conv(8, (3, 3), pad=(1, 1)), ("x", "w1")),
        Node("relu1", ops.Relu(), ("conv1",)),
        Node("conv2", ops.Conv(8, (3, 3), pad=(1, 1)), ("relu1", "w2")),
        Node("gap", ops.GlobalAvgPool(), ("conv2",)),
        Node("flat", ops.Flatten(), ("gap",)),
    )
    return Graph("net", {"x": TensorType((1, 3, 6, 6))}, nodes, {"out": "flat"}, weights)


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    graph = network()
    x = floats((1, 3, 6, 6), "x")
    return {"x": x} | {node.name: value for node, value in refnet.steps(graph, {"x": x})}


def verified(values: dict[str, np.ndarray], **arrays: np.ndarray) -> refnet.Verification:
    made = {**values, **arrays}
    return verify_values(network(), Values(made), inputs={"x": values["x"]})


def verdicts(found: refnet.Verification) -> list[str]:
    return [one.verdict for one in found.nodes]


SHAPES = [(1, 8, 16, 16), (2, 3, 4), (5,), (1, 1), (2, 2, 2), (1, 6, 1, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_transposed_array_is_among_its_readings(shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape), dtype=F).reshape(shape)
    for order in permutations(range(len(shape))):
        moved = np.ascontiguousarray(array.transpose(order))
        for given in (moved, moved.reshape(-1), moved.reshape(1, *moved.shape, 1)):
            found = readings(given.shape, shape)
            if regrouped(given.shape, shape):  # nothing shows another order: it is taken as it is
                assert [one.moves for one in found] == [False]
                continue
            assert any(np.array_equal(one.of(given), array) for one in found), (order, given.shape)
            assert all(one.of(given).shape == shape for one in found)


def test_readings_that_do_not_fit() -> None:
    assert readings((4, 9), (6, 6)) == ()
    assert readings((2, 3), (2, 4)) == ()
    assert readings((2,) * (MOST_AXES + 1), (2 ** (MOST_AXES + 1),)) == ()
    assert regrouped((1, 8, 1, 1), (8,))
    assert not regrouped((1, 8, 4), (1, 4, 8))


def test_a_capture_with_channels_last_has_no_defect(values: dict[str, np.ndarray]) -> None:
    moved = {name: values[name].transpose(NHWC) for name in ("conv1", "relu1", "conv2", "gap")}
    found = verified(values, **moved)
    assert verdicts(found) == ["replayed", "equal", "replayed", "replayed", "equal"]
    for one in found.nodes[:3]:
        assert str(one.reading) == "transposed by (0, 3, 1, 2)"
        assert "the only order of its axes that is clean" in one.reason
    assert found.nodes[3].reason == (
        "shape [1, 1, 1, 8], read as [1, 8, 1, 1]; refnet's own plain order gives these bits"
    )
    (note,) = found.notes
    assert "transposed by (0, 3, 1, 2)" in note
    assert "conv1, relu1, conv2" in note
    assert found.exit_code == 0


def test_flat_arrays_in_either_order(values: dict[str, np.ndarray]) -> None:
    found = verified(
        values, conv1=values["conv1"].reshape(-1), conv2=values["conv2"].transpose(NHWC).reshape(-1)
    )
    assert verdicts(found) == ["replayed", "equal", "replayed", "replayed", "equal"]
    assert str(found.nodes[0].reading) == "in row order as [1, 8, 6, 6]"
    assert str(found.nodes[2].reading) == "as [6, 6, 8] transposed by (2, 0, 1)"


def test_a_scrambled_relu_is_not_equal(values: dict[str, np.ndarray]) -> None:
    """Read in row order it was, after a convolution that was read in row order."""
    scrambled = {name: values[name].transpose(NHWC) for name in ("conv1", "relu1")}
    scrambled["conv1"] = scrambled["conv1"] + F(1)
    found = verified(values, **scrambled)
    first, relu = found.nodes[:2]
    assert first.verdict == "unjudged"
    assert "no order of its axes is clean (read transposed by" in first.reason
    assert (relu.verdict, relu.reason) == (
        "unjudged",
        "its input conv1 is not known, and its shape is [1, 6, 6, 8], not [1, 8, 6, 6]",
    )
    assert found.exit_code == 2


def test_an_order_that_fits_alone_must_be_clean(values: dict[str, np.ndarray]) -> None:
    node = Node("r", ops.Relu(), ("x",))
    x = floats((1, 2, 3, 4), "x")
    one = judge(node, np.maximum(x, 0).transpose(NHWC), [x])
    assert (one.verdict, str(one.reading)) == ("equal", "transposed by (0, 3, 1, 2)")
    bad = judge(node, np.maximum(x, 0).transpose(NHWC) + F(1), [x])
    assert (bad.verdict, bad.reading) == ("unjudged", None)
    assert "the one order of its axes that fits is not clean" in bad.reason


def test_several_clean_orders() -> None:
    """Equal bits are one order; two that only lie within the bound are not told apart."""
    node = Node("y", ops.Sigmoid(), ("x",))
    x = np.zeros((1, 2, 3, 3), F)
    even = judge(node, np.full((1, 3, 3, 2), 0.5, F), [x])
    assert even.verdict in ("replayed", "rounding")
    found = np.full((1, 3, 3, 2), 0.5, F)
    found[0, 0, 1, 0] = np.nextafter(F(0.5), F(1))
    one = judge(node, found, [x])
    assert (one.verdict, one.reading) == ("unjudged", None)
    assert "2 orders of its axes are clean" in one.reason


def test_shapes_that_no_order_gives() -> None:
    node = Node("r", ops.Relu(), ("x",))
    one = judge(node, np.zeros((6, 6), F), [np.zeros((4, 9), F)])
    assert (one.verdict, one.reason) == (
        "unjudged",
        "its shape is [6, 6], not [4, 9]: no order of its axes gives that",
    )
    many = judge(node, np.zeros((4, *[2] * 5), F), [np.zeros((*[2] * 5, 4), F)])
    assert "orders of more than 5 axes are not tried" in many.reason


def test_only_and_explain_read_as_verify_does(values: dict[str, np.ndarray]) -> None:
    moved = {**values, **{name: values[name].transpose(NHWC) for name in ("conv1", "relu1", "conv2")}}
    given = {"x": values["x"]}
    for node in network().nodes:
        found = refnet.verify(moved, network(), inputs=given, only=[node.name])
        assert [one.verdict for one in found.nodes] in (["equal"], ["replayed"]), node.name
    at = (0, 5, 1, 2)
    one = refnet.explain(network(), "conv2", at, capture=moved, inputs=given)
    own = refnet.explain(network(), "conv2", at, capture=values, inputs=given)
    assert one.found == values["conv2"][at]
    assert (one.plain, one.golden, one.bound) == (own.plain, own.golden, own.bound)
    assert "transposed by (0, 3, 1, 2)" in one.note
    assert json.loads(json.dumps(one.record()))["note"] == one.note
    moved["conv2"] = moved["conv2"] + F(1)
    with pytest.raises(InputError, match=r"conv2: its shape is .* no order of its axes is clean"):
        refnet.explain(network(), "conv2", at, capture=moved, inputs=given)


def test_an_input_is_read_as_its_source_tells(values: dict[str, np.ndarray]) -> None:
    x = values["x"]
    own = {**values, "x": x.transpose(NHWC)}
    found = verify_values(network(), Values(own), inputs={"x": x})
    assert found.exit_code == 0
    assert "read transposed by (0, 3, 1, 2), it is what its source makes" in found.notes[0]
    assert verify_values(network(), Values(own), stated={"x": x}).exit_code == 0
    with pytest.raises(InputError, match=r"input x is \[1, 6, 6, 3\], not \[1, 3, 6, 6\]: only its source"):
        verify_values(network(), Values(own))
    with pytest.raises(InputError, match="in no order of its axes it is what its source makes"):
        verify_values(network(), Values({**own, "x": own["x"] + F(1)}), inputs={"x": x})


def test_diff_reads_by_equal_bits(values: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    conv = values["conv1"]
    same = refnet.diff({"a": conv}, {"a": conv.transpose(NHWC)})
    assert (same.pairs[0].result, same.pairs[0].reading) == ("equal", "transposed by (0, 3, 1, 2)")
    assert same.record()["pairs"][0]["reading"] == "transposed by (0, 3, 1, 2)"
    show_diff(same, "one", "two")
    assert "1 of two read transposed by (0, 3, 1, 2), in which they are equal: a" in capsys.readouterr().out
    row = refnet.diff({"a": conv}, {"a": conv.reshape(1, 6, 6, 8)})
    assert (row.pairs[0].result, row.exit_code) == ("shape", 1)
    grown = refnet.diff({"a": conv}, {"a": conv[..., None]})
    assert (grown.pairs[0].result, grown.pairs[0].reading) == ("equal", None)
