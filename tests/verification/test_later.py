"""Values that stand under an earlier node's name, and wrong values that look like them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.core.graph import Graph, Node, TensorType
from refnet.verification.capture import Values
from refnet.verification.verify import Verification, verify_values
from tests.helpers.bits import floats
from tests.helpers.engines import FAST

F = np.float32
Arrays = dict[str, np.ndarray]


def network(relu_reads: str = "bn", outputs: tuple[str, ...] = ("fc",)) -> Graph:
    """conv, bn, relu; conv2, bn2 and an addition of the relu; relu2; a dense layer."""
    channels = 4
    weights = {"w": floats((channels, 3, 3, 3), "w"), "w2": floats((channels, channels, 1, 1), "w2")}
    for norm in ("bn", "bn2"):
        for role in ("gamma", "beta", "mean", "var"):
            weights[f"{norm}.{role}"] = floats((channels,), f"{norm}.{role}")
        weights[f"{norm}.var"] = np.abs(weights[f"{norm}.var"]) + F(0.5)
    weights |= {"fc.w": floats((3, channels), "fc.w"), "fc.b": floats((3,), "fc.b")}
    norms = {
        norm: tuple(f"{norm}.{role}" for role in ("gamma", "beta", "mean", "var")) for norm in ("bn", "bn2")
    }
    nodes = (
        Node("conv", ops.Conv(channels, (3, 3), pad=(1, 1)), ("x", "w")),
        Node("bn", ops.BatchNorm(1e-5), ("conv", *norms["bn"])),
        Node("relu", ops.Relu(), (relu_reads,)),
        Node("conv2", ops.Conv(channels, (1, 1)), ("relu", "w2")),
        Node("bn2", ops.BatchNorm(1e-5), ("conv2", *norms["bn2"])),
        Node("add", ops.Add(2), ("bn2", "relu")),
        Node("relu2", ops.Relu(), ("add",)),
        Node("gap", ops.GlobalAvgPool(), ("relu2",)),
        Node("flat", ops.Flatten(), ("gap",)),
        Node("fc", ops.Dense(3), ("flat", "fc.w", "fc.b")),
    )
    made = {f"out{k}": name for k, name in enumerate(outputs)}
    return Graph("net", {"x": TensorType((1, 3, 6, 6))}, nodes, made, weights)


GRAPH = network()
X = {"x": floats((1, 3, 6, 6), "x")}


def run(changes: dict[str, object] | None = None, graph: Graph = GRAPH) -> Arrays:
    """Every value of a framework that computes some nodes in its own way: name -> function of the inputs."""
    table: Arrays = {**X}
    for node in graph.nodes:
        inputs = [*(table[name] for name in node.data), *(graph.weights[name] for name in node.weights)]
        change = (changes or {}).get(node.name)
        table[node.name] = node.op.run(*inputs, engine=FAST) if change is None else change(*inputs)
    return {name: array for name, array in table.items() if name not in X}


def fold(conv: str, norm: str, x: np.ndarray) -> np.ndarray:
    """The convolution with the batch norm in its weights, as exporters fold it."""
    first, second = GRAPH.by_name[conv], GRAPH.by_name[norm]
    own = [GRAPH.weights[name] for name in (*first.weights, *second.weights)]
    return replace(first.op, bias=True).run(x, *second.op.fold("single", own, FAST), engine=FAST)


def exported() -> Arrays:
    """Both batch norms folded; each convolution's name holds its batch norm's value, whose own is gone."""
    found = run({"bn": lambda y, *_: fold("conv", "bn", X["x"])})
    later = run(
        {
            "bn": lambda y, *_: found["bn"],
            "bn2": lambda y, *_: fold("conv2", "bn2", np.maximum(found["bn"], 0)),
        }
    )
    later |= {"conv": later.pop("bn"), "conv2": later.pop("bn2")}
    return later


def verified(values: Arrays, graph: Graph = GRAPH, **options: object) -> Verification:
    return verify_values(graph, Values(values), inputs=X, **options)


def verdicts(found: Verification) -> dict[str, str]:
    return {one.name: one.verdict for one in found.nodes}


def reason(found: Verification, name: str) -> str:
    return next(one.reason or "" for one in found.nodes if one.name == name)


CLEAN = ("equal", "replayed", "rounding")


def test_folded_batch_norms_under_the_convolutions_names() -> None:
    found = verified(exported())
    said = verdicts(found)
    assert (said.pop("conv"), said.pop("conv2")) == ("missing", "missing")
    assert (said["bn"], said["bn2"]) == ("rounding", "rounding")
    assert set(said.values()) <= set(CLEAN)
    assert found.exit_code == 0
    assert reason(found, "conv") == "the array under its name is the value of bn: folded or fused into one"
    assert "its array stands under the name conv: folded or fused into one" in reason(found, "bn")
    assert (
        "names that hold a later node's value, folded or fused into one: conv holds bn, conv2 holds bn2"
        in (found.notes)
    )
    record = {one["name"]: one for one in found.record()["nodes"]}
    assert (record["bn"]["found_as"], record["bn"]["over"]) == ("conv", ["conv", "bn"])
    assert found.record()["summary"]["values"] == len(GRAPH.nodes) - 2


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("conv", "relu"),
        ("bn", "relu"),
        ("conv2", "add"),
        ("bn2", "add"),
        ("bn2", "relu2"),
        ("add", "relu2"),
        ("conv2", "relu2"),
    ],
)
def test_chains_as_executors_fuse_them(first: str, last: str) -> None:
    """The first name of a chain holds the last one's value, the others are not shown."""
    values = run()
    names = [node.name for node in GRAPH.nodes]
    begin, end = names.index(first), names.index(last)
    values[first] = values[last]
    for name in names[begin + 1 : end + 1]:
        del values[name]
    found = verified(values)
    said = verdicts(found)
    assert said.pop(last) in CLEAN
    assert {said.pop(name) for name in names[begin:end]} == {"missing"}
    assert set(said.values()) <= set(CLEAN), said
    assert found.exit_code == 0


def test_the_output_is_compared_where_it_was_found() -> None:
    graph = network(outputs=("relu2",))
    values = run(graph=graph)
    values["add"] = values.pop("relu2")
    found = verified(values, graph)
    assert (found.outputs[0].value, found.outputs[0].differ) == ("relu2", 0)


def test_only_and_explain_read_as_verify_does() -> None:
    values = exported()
    for name, verdict in (("conv", "missing"), ("bn", "rounding"), ("relu", "equal"), ("add", None)):
        found = verified(values, only=[name])
        assert [one.name for one in found.nodes] == [name]
        assert found.nodes[0].verdict in ((verdict,) if verdict else CLEAN), name
    at = (0, 1, 2, 3)
    one = refnet.explain(GRAPH, "bn", at, capture=values, inputs=X)
    assert one.found == values["conv"][at]
    assert "stands under the name conv" in one.note
    relu = refnet.explain(GRAPH, "relu", at, capture=values, inputs=X)
    assert (relu.found, relu.golden) == (values["relu"][at],) * 2
    conv = refnet.explain(GRAPH, "conv", at, capture=values, inputs=X)
    assert conv.found is None
    assert "the value of bn" in conv.note


# What is wrong stays a defect, at its own node.


def test_a_wrong_convolution() -> None:
    for shown in (run().keys(), run().keys() - {"bn"}, run().keys() - {"bn", "relu"}):
        made = run({"conv": lambda x, w: GRAPH.by_name["conv"].op.run(x, w * F(1.01), engine=FAST)})
        found = verified({name: made[name] for name in made if name in shown})
        assert found.first_defect == "conv"
        assert found.counts["defect"] == 1


def test_a_missing_relu() -> None:
    found = verified(run({"relu": lambda y: y}))
    assert [one.name for one in found.nodes if one.verdict == "defect"] == ["relu"]


@pytest.mark.parametrize("shown", [True, False], ids=["bn shown", "bn not shown"])
def test_a_batch_norm_that_is_left_out(shown: bool) -> None:
    values = run({"bn": lambda y, *_: y})
    if not shown:
        del values["bn"]
    found = verified(values)
    assert [one.name for one in found.nodes if one.verdict == "defect"] == ["bn" if shown else "relu"]


def test_a_batch_norm_applied_twice() -> None:
    """Folded into the weights, and applied again: the array is bn's value, but what follows shows the bug."""
    twice = {"conv": lambda x, w: fold("conv", "bn", x)}
    shown = verified(run(twice))
    assert [one.name for one in shown.nodes if one.verdict == "defect"] == ["conv"]
    values = run(twice)
    del values["bn"]
    found = verified(values)
    assert [one.name for one in found.nodes if one.verdict == "defect"] == ["conv"]
    assert verdicts(found)["bn"] == "missing"
    assert not any("holds" in note for note in found.notes)
    del values["relu"], values["conv2"], values["bn2"], values["add"]
    assert verified(values).first_defect == "conv"


def test_both_names_hold_one_array() -> None:
    """A batch norm that became an identity is proof of folding; a relu of a relu proves nothing."""
    values = exported()
    both = {**values, "bn": values["conv"], "bn2": values["conv2"]}
    found = verified(both)
    assert found.exit_code == 0
    assert (verdicts(found)["conv"], verdicts(found)["bn"]) == ("missing", "rounding")
    assert "the same array stands under the name conv" in reason(found, "bn")
    clamped = run({"bn": lambda y, *w: np.maximum(GRAPH.by_name["bn"].op.run(y, *w, engine=FAST), 0)})
    found = verified(clamped)
    assert [one.name for one in found.nodes if one.verdict == "defect"] == ["bn"]
    assert "the same array is relu, and right for it: was it written in place?" in reason(found, "bn")


def test_three_names_hold_one_array() -> None:
    """conv + bn + relu in one, and identities in place of bn and relu."""
    values = exported()
    last = np.maximum(values["conv"], 0)
    found = verified({**values, "conv": last, "bn": last, "relu": last})
    assert found.counts["defect"] == 0
    assert (verdicts(found)["conv"], verdicts(found)["bn"]) == ("missing", "missing")


def test_another_array_under_the_later_name() -> None:
    """conv's name holds the batch norm's value, but bn has one of its own, with other bits."""
    values = exported()
    own = values["conv"].copy()
    own[0, 0, 0, 0] = np.nextafter(own[0, 0, 0, 0], F(9))
    found = verified({**values, "bn": own})
    assert found.first_defect == "conv"


def test_a_value_that_others_read_or_that_is_an_output_exists_by_itself() -> None:
    skip = network(relu_reads="conv")  # bn and relu read conv: nothing can be folded into it
    values = run(graph=skip)
    values["conv"] = values.pop("bn")
    assert verified(values, skip).first_defect == "conv"
    shown = network(outputs=("fc", "conv"))
    values = run(graph=shown)
    values["conv"] = values.pop("bn")
    assert verified(values, shown).first_defect == "conv"


def test_the_bound_is_that_of_the_hidden_nodes_and_no_wider() -> None:
    values = exported()
    wide = values["conv"]
    found = verified(values)
    norm = next(one for one in found.nodes if one.name == "bn")
    radius = abs(norm.worst.found - norm.worst.bound[0]) / norm.share.largest
    off = wide.copy()
    at = norm.worst.at
    for share, verdict in ((0.9, "missing"), (1.1, "defect")):
        off[at] = F(norm.worst.bound[0] + share * radius)
        moved = verified({**values, "conv": off})
        assert verdicts(moved)["conv"] == verdict, share


def test_a_transposed_array_under_an_earlier_name() -> None:
    values = exported()
    found = verified({**values, "conv": values["conv"].transpose(0, 2, 3, 1)})
    assert found.exit_code == 0
    norm = next(one for one in found.nodes if one.name == "bn")
    assert (norm.verdict, norm.found_as, str(norm.reading)) == (
        "rounding",
        "conv",
        "transposed by (0, 3, 1, 2)",
    )
