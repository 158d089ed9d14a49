"""Verdicts: what is said of a capture's values, where it is said, and with which exit code."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.cli import main
from refnet.core.errors import FormatError, InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import file_name
from refnet.models.inputs import prepare
from refnet.verification.capture import open_capture
from refnet.verification.judge import judge
from refnet.verification.names import Likely, Unmatched
from refnet.verification.verify import Values, Verification, verify_values
from tests.helpers.bits import floats
from tests.helpers.engines import FAST
from tests.helpers.verifying import framework, save

F = np.float32


@pytest.fixture(scope="module")
def graph() -> Graph:
    return refnet.load("octave-se-resnet-digits")


@pytest.fixture(scope="module")
def data(graph: Graph) -> dict[str, np.ndarray]:
    return {"data": floats((1, *graph.inputs["data"].shape[1:]), "digit")}


@pytest.fixture(scope="module")
def plain(graph: Graph, data: dict) -> dict[str, np.ndarray]:
    return {node.name: value for node, value in refnet.steps(graph, data)}


@pytest.fixture(scope="module")
def golden(graph: Graph, data: dict) -> dict[str, np.ndarray]:
    return {node.name: value for node, value in refnet.steps(graph, data, Golden())}


def one(found: Verification, name: str):
    return next(node for node in found.nodes if node.name == name)


def kinds(graph: Graph, kind: type) -> list[Node]:
    return [node for node in graph.nodes if isinstance(node.op, kind)]


def changed(values: dict, name: str, change) -> dict:
    """The values, one of them changed by a function; those after it as they were."""
    return {**values, name: change(values[name].copy())}


def flip(value: np.ndarray, bit: int) -> np.ndarray:
    """One bit of the largest element flipped."""
    flat = value.reshape(-1)
    at = int(np.argmax(np.abs(flat)))
    flat[at : at + 1].view(np.uint32)[:] ^= np.uint32(1 << bit)
    return value


# Verdicts.


def test_refnets_own_values_are_equal_or_replayed(graph, data, plain):
    found = verify_values(graph, Values(plain, data))
    assert found.exit_code == 0
    assert found.counts["equal"] + found.counts["replayed"] == len(graph.nodes)
    assert found.first_difference is None
    assert found.suggestion is None
    for node in found.nodes:
        assert (node.verdict == "equal") == graph.by_name[node.name].op.exactly_specified
        assert (node.differ, node.outside, node.worst, node.map) == (0, 0, None, None)
        assert (node.inherited.differ, node.inherited.ulps, node.inherited.largest) == (0, 0, 0.0)
    assert found.outputs[0].differ == 0


def test_golden_values_are_rounding_and_the_report_suggests_the_order_free_run(graph, data, golden):
    found = verify_values(graph, Values(golden, data))
    assert found.exit_code == 0
    assert found.counts["rounding"] > 100
    assert "order-free" in found.suggestion
    assert found.first_difference == "conv1_conv"
    for node in found.nodes:
        if node.verdict == "rounding":
            assert 0 < node.share.largest <= 1
            assert sum(node.share.histogram) == node.elements
            assert node.share.histogram[-1] == 0
            at = node.worst.at
            assert node.worst.golden == golden[node.name][at] == node.worst.found
            assert node.differ > 0
            assert node.ulps > 0
    assert "of the bound" in found.line


def test_a_framework_that_rounds_differently_has_no_defect():
    """Each kind of op in some order and form of its own, on a small image."""
    graph = refnet.load("resnest-digits", weights="seed:1")
    small = replace(graph, nodes=graph.nodes[:24], outputs={"out": graph.nodes[23].name}, weights={})
    small = small.with_weights({n: graph.weights[n] for n in small.weight_types})
    small = replace(small, inputs={"data": TensorType((1, 1, 8, 8))})
    x = {"data": floats((1, 1, 8, 8), "small")}
    found = verify_values(small, Values(framework(small, x, 3), x))
    assert (found.counts["defect"], found.counts["unjudged"]) == (0, 0)
    assert found.counts["rounding"] > 8


@pytest.mark.parametrize(
    "kind", [ops.Relu, ops.MaxPool, ops.ExpandDims, ops.Mul, ops.UpsampleNearest, ops.Flatten]
)
def test_one_ulp_is_a_defect_where_there_is_one_right_result(graph, data, plain, kind):
    name = kinds(graph, kind)[0].name
    found = verify_values(graph, Values(changed(plain, name, lambda v: flip(v, 0)), data))
    judged = one(found, name)
    assert (judged.verdict, judged.outside, judged.ulps) == ("defect", 1, 1)
    assert judged.share is None
    assert judged.worst.golden == judged.worst.plain == plain[name][judged.worst.at]
    assert found.first_defect == found.first_difference == name
    assert found.exit_code == 1


@pytest.mark.parametrize(
    "kind", [ops.Conv, ops.Dense, ops.BatchNorm, ops.AvgPool, ops.GlobalAvgPool, ops.Sigmoid, ops.Softmax]
)
def test_a_high_bit_is_a_defect_and_the_lowest_is_rounding(graph, data, plain, kind):
    name = kinds(graph, kind)[0].name
    found = verify_values(graph, Values(changed(plain, name, lambda v: flip(v, 20)), data))
    judged = one(found, name)
    assert (judged.verdict, judged.outside, judged.differ) == ("defect", 1, 1)
    assert judged.worst.share > 1
    assert judged.share.histogram[-1] == 1
    assert found.first_defect == name
    low = one(verify_values(graph, Values(changed(plain, name, lambda v: flip(v, 0)), data)), name)
    assert (low.verdict, low.outside, low.differ, low.ulps) == ("rounding", 0, 1, 1)


def test_what_is_introduced_is_told_from_what_is_inherited(graph, data, plain):
    """A framework with one wrong node goes on rightly with it: only that node is blamed."""
    name = kinds(graph, ops.BatchNorm)[3].name
    table = dict(data)
    for node in graph.nodes:
        arguments = [table[n] for n in node.data] + [graph.weights[n] for n in node.weights]
        table[node.name] = node.op.run(*arguments, engine=FAST)
        if node.name == name:
            table[node.name] = table[node.name] * F(1.01)
    values = {node.name: table[node.name] for node in graph.nodes}
    found = verify_values(graph, Values(values, data))
    assert [node.name for node in found.nodes if node.verdict == "defect"] == [name]
    assert one(found, name).inherited.differ == 0
    later = [node for node in found.nodes if node.inherited.differ]
    assert later
    assert all(node.verdict in ("equal", "replayed") for node in later)
    assert later[0].inherited.largest > 0
    assert found.outputs[0].differ > 0
    assert found.outputs[0].largest > 0


def test_shapes_and_dtypes(graph, data, plain):
    name = kinds(graph, ops.Flatten)[0].name
    unflat = verify_values(graph, Values(changed(plain, name, lambda v: v.reshape(1, -1, 1, 1)), data))
    assert unflat.exit_code == 0
    assert one(unflat, name).reason == "shape [1, 128, 1, 1], read as [1, 128]"
    conv = kinds(graph, ops.Conv)[2].name
    cut = verify_values(graph, Values(changed(plain, conv, lambda v: v[:, :-1]), data))
    assert one(cut, conv).verdict == "defect"
    assert "shape" in one(cut, conv).reason
    readers = [node.name for node in graph.nodes if conv in node.data]
    assert {one(cut, reader).verdict for reader in readers} == {"unjudged"}
    assert cut.counts["defect"] == 1
    swapped = verify_values(graph, Values(changed(plain, conv, lambda v: v.transpose(0, 2, 3, 1)), data))
    judged = one(swapped, conv)
    assert (judged.verdict, str(judged.reading)) == ("replayed", "transposed by (0, 3, 1, 2)")
    assert swapped.exit_code == 0
    assert {one(swapped, reader).verdict for reader in readers} <= {"equal", "replayed"}
    assert any("transposed by (0, 3, 1, 2)" in note and conv in note for note in swapped.notes)
    wide = verify_values(graph, Values(changed(plain, conv, lambda v: v.astype(np.float64)), data))
    assert (one(wide, conv).verdict, one(wide, conv).reason) == (
        "defect",
        "its dtype is float64, not float32",
    )


def test_names_are_matched_exactly_and_surplus_values_are_listed(graph, data, plain):
    values = {**plain, "CONV1_CONV": plain["conv1_conv"], "other": np.zeros(3, F)}
    del values["conv1_conv"]
    found = verify_values(graph, Values(values, data))
    assert found.surplus == ("CONV1_CONV", "other")
    assert one(found, "conv1_conv").verdict == "missing"
    assert found.unmatched == (
        Unmatched("CONV1_CONV", Likely("conv1_conv", "by its name")),
        Unmatched("other"),
    )
    assert "2 unmatched" in found.line
    assert found.exit_code == 2


def test_missing_values_are_judged_over(graph, data, plain):
    conv, norm, relu = graph.nodes[:3]
    found = verify_values(
        graph, Values({n: v for n, v in plain.items() if n not in (conv.name, norm.name)}, data)
    )
    assert one(found, conv.name).verdict == one(found, norm.name).verdict == "missing"
    assert one(found, relu.name).over == (conv.name, norm.name, relu.name)
    assert found.exit_code == 0
    last = graph.outputs["prob"]
    tail = verify_values(graph, Values({n: v for n, v in plain.items() if n != last}, data))
    assert "no captured value" in one(tail, last).reason
    assert tail.outputs[0].differ is None


def test_a_bound_that_is_wider_than_the_value_judges_nothing(graph, data, plain):
    """Over the whole network, zeros would do as well: that is said, and the exit code is 2."""
    last = graph.outputs["prob"]
    found = verify_values(graph, Values({last: np.nextafter(plain[last], F(2))}, data))
    assert one(found, last).verdict == "unjudged"
    assert found.exit_code == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing_and_are_not_exceeded(graph, data, golden, threads, monkeypatch):
    from refnet.kernels import resources as jit

    asked = []
    real = jit.processors
    monkeypatch.setattr(jit, "processors", lambda: asked.append(real()) or asked[-1])
    found = verify_values(graph, Values(golden, data), threads=threads)
    assert asked
    assert max(asked) <= threads
    assert found.nodes == verify_values(graph, Values(golden, data)).nodes


# Numbers that are none.


def dense(x: list[float], w: list[float], found: float, bias: float | None = None):
    node = Node("y", ops.Dense(1, bias is not None), ("x", "w", "b")[: 2 + (bias is not None)])
    arrays = [np.array([x], F), np.array([w], F)] + ([] if bias is None else [np.array([bias], F)])
    return judge(node, np.array([[found]], F), arrays)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("x", "w", "found", "verdict"),
    [
        ([NAN, 1], [1, 1], NAN, "replayed"),
        ([NAN, 1], [1, 1], 1.0, "defect"),
        ([INF, 1], [1, 1], INF, "replayed"),
        ([INF, 1], [1, 1], -INF, "defect"),
        ([INF, 1], [1, 1], 3e38, "defect"),
        ([INF, -INF], [1, 1], NAN, "replayed"),
        ([INF, -INF], [1, 1], INF, "defect"),
        ([INF, 1], [0, 1], 1.0, "defect"),
        ([INF, -3e38, -3e38], [1, 1, 1], NAN, "unjudged"),  # -inf on the way in another order
        ([3e38, 3e38, -3e38], [1, 1, 1], 3e38, "unjudged"),  # inf in plain's order, finite in another
        ([3e38, 3e38, -3e38], [1, 1, 1], INF, "replayed"),
        ([1, 1], [1, 1], NAN, "defect"),
        ([1, 1], [1, 1], INF, "defect"),
        ([1, 1], [INF, 1], 5.0, "unjudged"),  # weights that are no numbers: frameworks fold and pad
    ],
)
def test_nan_and_infinity(x, w, found, verdict):
    judged = dense(x, w, found)
    assert judged.verdict == verdict
    assert judged.unpromised == (verdict == "unjudged")
    json.dumps(judged.share and judged.share.histogram)


def test_no_number_where_a_number_is_promised_is_the_worst_of_all():
    node = Node("y", ops.Dense(3, bias=False), ("x", "w"))
    x, w = floats((1, 9), "x"), floats((3, 9), "w")
    found = node.op.run(x, w, engine=FAST)
    found[0, 0] += F(100)
    found[0, 1] = np.nan
    judged = judge(node, found, [x, w])
    assert judged.worst.at == (0, 1)
    assert (judged.worst.ulps, judged.worst.share) == (-1, np.inf)
    assert judged.outside == 2
    assert judged.share.largest == np.inf


def test_the_sign_of_a_zero_counts_only_where_it_is_settled():
    x = np.array([[-0.0, -1, 2]], F)
    relu = Node("r", ops.Relu(), ("x",))
    kept = judge(relu, np.array([[-0.0, 0, 2]], F), [x])
    assert (kept.verdict, kept.differ, kept.outside) == ("equal", 1, 0)
    assert "sign" in kept.reason
    flat = Node("f", ops.Flatten(), ("x",))
    assert judge(flat, np.array([[0.0, -1, 2]], F), [x]).verdict == "defect"


@pytest.mark.parametrize("op", [ops.Sigmoid(), ops.RadixSoftmax(1)], ids=repr)
def test_a_less_accurate_formula_of_a_framework_is_rounding(op):
    """ONNX Runtime's sigmoid is right to 1e-7 absolutely; the bound covers it, as every formula"""
    x = np.linspace(-18, 18, 400, dtype=np.float32).reshape(1, 400, 1, 1)
    node = Node("y", op, ("x",))
    found = op.replay("mlas", x, engine=FAST)
    judged = judge(node, found, [x])
    assert (judged.verdict, judged.outside, judged.unpromised) == ("rounding", 0, 0)
    assert judged.differ > 0
    found.reshape(-1)[7] += F(2.0**-20)
    assert judge(node, found, [x]).verdict == "defect"


# A book's recipes.


class Book:
    """Replays one node in the reverse order."""

    def __init__(self, name: str, off: int = 0) -> None:
        self.name, self.off = name, off

    def evaluate_or_none(self, node: Node, *inputs: np.ndarray) -> np.ndarray | None:
        if node.name != self.name:
            return None
        x, w = inputs
        value = node.op.run(np.ascontiguousarray(x[:, ::-1]), np.ascontiguousarray(w[:, ::-1]), engine=FAST)
        value.view(np.uint32)[0, 0] += self.off
        return value


def test_replayed_only_with_all_the_bits_of_the_recipe():
    node = Node("y", ops.Dense(4, bias=False), ("x", "w"))
    x, w = floats((2, 300), "x"), floats((4, 300), "w")
    found = Book("y").evaluate_or_none(node, x, w)
    assert judge(node, found, [x, w]).verdict == "rounding"
    judged = judge(node, found, [x, w], Book("y"))
    assert (judged.verdict, judged.differ > 0) == ("replayed", True)
    near = judge(node, found, [x, w], Book("y", off=1))
    assert (near.verdict, near.reason) == (
        "rounding",
        "the book's recipe gives other bits in 1 of 8 elements",
    )
    without = judge(node, found, [x, w], Book("other"))
    assert (without.verdict, without.reason) == ("rounding", "the book has no recipe for it")
    wrong = found + F(1)
    assert judge(node, wrong, [x, w], Book("y")).verdict == "defect"


# Captures on disk.


def test_a_capture_on_disk(graph, data, plain, golden, tmp_path):
    folder = save(tmp_path / "c", golden, graph, data)
    found = verify_values(graph, open_capture(folder))
    assert found.exit_code == 0
    assert found.reference["framework"] == "made-up"
    other = verify_values(graph, Values(golden, data))
    assert found.nodes == other.nodes
    assert found.record()["nodes"] == other.record()["nodes"]
    np.save(folder / file_name("conv1_conv"), plain["conv1_conv"] + F(1))
    with pytest.raises(FormatError, match="conv1_conv"):
        verify_values(graph, open_capture(folder))


def test_other_weights_or_another_graph_are_refused(graph, data, plain, tmp_path):
    folder = save(tmp_path / "c", plain, graph, data)
    other = graph.with_weights({n: w + F(1) for n, w in graph.weights.items()})
    with pytest.raises(InputError, match="made of other weights"):
        verify_values(other, open_capture(folder))
    found = verify_values(other, open_capture(folder), other_sources=True)
    assert found.counts["defect"] > 10
    assert "made of other weights" in found.notes[0]
    with pytest.raises(InputError, match="another graph"):
        verify_values(replace(graph, outputs={"p": "softmax"}), open_capture(folder))


def test_hash_only_captures_are_judged_by_hash(graph, data, plain, golden, tmp_path):
    for i, values in enumerate((plain, golden)):
        folder = save(tmp_path / str(i), values, graph, data, hash_only=True)
        found = verify_values(graph, open_capture(folder))
        assert found.exit_code == 0
        assert found.judged == len(graph.nodes)
    name = kinds(graph, ops.Conv)[4].name
    wrong = changed(plain, name, lambda v: flip(v, 0))
    found = verify_values(graph, open_capture(save(tmp_path / "w", wrong, graph, data, hash_only=True)))
    assert one(found, name).verdict == "unjudged"
    assert "hash" in one(found, name).reason
    assert found.exit_code == 2
    assert found.counts["defect"] == 0
    before = list(graph.by_name)[: list(graph.by_name).index(name)]
    assert all(one(found, n).verdict in ("equal", "replayed") for n in before)


def test_a_folder_of_arrays(graph, data, plain, tmp_path):
    for name, array in {**plain, **data}.items():
        np.save(tmp_path / file_name(name), array)
    assert verify_values(graph, open_capture(tmp_path)).exit_code == 0
    (tmp_path / "data.npy").unlink()
    found = verify_values(graph, open_capture(tmp_path))
    assert one(found, "conv1_conv").verdict == "unjudged"
    assert "data" in one(found, "conv1_conv").reason
    assert "no input data" in found.notes[0]
    assert found.exit_code == 2
    assert verify_values(graph, open_capture(tmp_path), inputs=data).exit_code == 0
    np.save(tmp_path / file_name("conv1_conv"), plain["conv1_conv"].astype(np.float16))
    found = verify_values(graph, open_capture(tmp_path), inputs=data)
    assert one(found, "conv1_conv").verdict == "unjudged"
    assert "float32" in one(found, "conv1_conv").reason


def test_the_input_must_be_the_captures(graph, data, plain):
    with pytest.raises(InputError, match="another input"):
        verify_values(graph, Values(plain, data), inputs={"data": data["data"] + F(1)})
    with pytest.raises(InputError, match="no input 'datum'"):
        verify_values(graph, Values(plain), inputs={"datum": data["data"]})
    with pytest.raises(InputError, match="must be"):
        verify_values(graph, Values(plain), inputs={"data": data["data"][:, :, 1:]})


def test_only_some_nodes(graph, data, golden):
    norm = kinds(graph, ops.BatchNorm)[2].name
    found = verify_values(graph, Values(golden, data), only=[norm])
    assert [node.name for node in found.nodes] == [norm]
    assert found.nodes[0] == replace(one(verify_values(graph, Values(golden, data)), norm), inherited=None)
    assert (found.outputs, found.exit_code) == ((), 0)
    with pytest.raises(InputError, match="no value 'x'"):
        verify_values(graph, Values(golden, data), only=["x"])
    few = {n: v for i, (n, v) in enumerate(golden.items()) if i % 3 == 0}
    name = list(few)[9]
    alone = verify_values(graph, Values(few, data), only=[name]).nodes[0]
    assert alone == replace(one(verify_values(graph, Values(few, data)), name), inherited=None)


def test_only_what_some_values_need(graph, data, golden, tmp_path):
    """The whole graph's other captured values match nothing in the part, and are no strays."""
    norm = kinds(graph, ops.BatchNorm)[2].name
    found = refnet.verify(golden, graph, inputs=data, outputs=[norm])
    assert 3 < len(found.nodes) < len(graph.nodes) / 2
    assert found.nodes[-1].name == norm
    assert (found.counts["missing"], found.unmatched, found.surplus, found.exit_code) == (0, (), (), 0)
    assert [(one.name, one.value) for one in found.outputs] == [(norm, norm)]
    wrong = {**golden, graph.nodes[-1].name: golden[graph.nodes[-1].name] + F(1)}
    assert refnet.verify(wrong, graph, inputs=data, outputs=[norm]).exit_code == 0
    assert refnet.verify(wrong, graph, inputs=data).exit_code == 1
    stray = refnet.verify({**golden, "stray": golden[norm]}, graph, inputs=data, outputs=[norm])
    assert [one.name for one in stray.unmatched] == ["stray"]
    with pytest.raises(InputError, match="no values of these names: 'x'"):
        refnet.verify(golden, graph, inputs=data, outputs=["x"])


def test_nothing_judged_is_not_success(graph, data):
    found = verify_values(graph, Values({"other": np.zeros(3, F)}, data))
    assert (found.judged, found.exit_code) == (0, 2)


def test_batches(graph, golden):
    x = {"data": floats((3, *graph.inputs["data"].shape[1:]), "three")}
    values = {node.name: value for node, value in refnet.steps(graph, x, Golden(1))}
    found = verify_values(graph, Values(values, x))
    assert found.exit_code == 0
    assert found.nodes[0].shape[0] == 3
    assert found.nodes[0].map.shape == values["conv1_conv"].shape[2:]
    assert np.isclose(found.nodes[0].map.max(), found.nodes[0].share.largest)
    assert found.nodes[0].picture.shape == values["conv1_conv"].shape[2:]


def test_the_record_is_strict_json_with_every_field(graph, data, golden):
    values = changed(golden, graph.nodes[0].name, lambda v: flip(v, 30))
    values[graph.nodes[3].name] = np.full_like(values[graph.nodes[3].name], np.nan)
    found = verify_values(graph, Values({**values, "extra": np.zeros(1, F)}, data))
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert (record["format"], record["version"]) == ("refnet verification", 1)
    assert record["graph"] == {"name": graph.name, "hash": graph.structure_hash()}
    assert record["summary"]["defect"] == found.counts["defect"] >= 2
    assert record["summary"]["values"] == len(graph.nodes)
    assert record["summary"]["line"] == found.line
    assert record["first_defect"] == "conv1_conv"
    assert record["surplus"] == ["extra"]
    first = record["nodes"][0]
    assert set(first) == {
        *("name", "op", "kind", "inputs", "shape", "verdict", "reason", "over", "elements", "differ"),
        *("outside", "unpromised", "share", "ulps", "worst", "inherited", "found_as", "reading"),
    }
    assert len(first["share"]["histogram"]) == 21
    assert set(first["worst"]) == {"at", "found", "plain", "golden", "bound", "ulps", "share"}
    assert first["worst"]["found"]["hex"].startswith("0x")


# The command line.


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def test_the_command(graph, tmp_path, capsys):
    sources = Sources(graph.name, None, "seed:0")
    _, data = prepare(sources)
    golden = {node.name: value for node, value in refnet.steps(graph, data, Golden())}
    folder = save(tmp_path / "c", golden, graph, data, sources)
    assert run("verify", folder) == 0
    text = capsys.readouterr().out
    assert "made-up 1.0" in text
    assert "no defects" in text
    assert "--order-free" in text
    name = kinds(graph, ops.Conv)[1].name
    bad = save(tmp_path / "bad", changed(golden, name, lambda v: flip(v, 22)), graph, data, sources)
    assert run("verify", bad) == 1
    text = capsys.readouterr().out
    assert f"first defect: {name}" in text
    assert "refnet explain" in text
    assert run("verify", bad, "--json") == 1
    assert json.loads(capsys.readouterr().out)["first_defect"] == name
    assert run("verify", bad, "--only", graph.nodes[0].name) == 0
    assert run("verify", tmp_path / "nowhere") == 2
    assert run("verify", bad, "--weights", "seed:3") == 2
    assert "made of other weights" in capsys.readouterr().err
    assert run("verify", bad, "--all") == 1
    assert capsys.readouterr().out.count("rounding") > 100


def test_the_command_on_a_plain_folder(graph, data, plain, tmp_path, capsys):
    for name, array in plain.items():
        np.save(tmp_path / file_name(name), array)
    assert run("verify", tmp_path) == 2
    assert "MODEL" in capsys.readouterr().err
    assert run("verify", tmp_path, graph.name) == 2  # no input: its first node cannot be judged
    assert "no input data" in capsys.readouterr().out
    file = tmp_path.parent / "x.npy"
    np.save(file, data["data"])
    assert run("verify", tmp_path, graph.name, "--input", file) == 0


def test_a_hash_only_capture_takes_its_input_from_its_sources(graph, tmp_path):
    from refnet.formats.manifest import read, write

    sources = Sources(graph.name, None, "seed:7")
    _, inputs = prepare(sources)
    values = {node.name: value for node, value in refnet.steps(graph, inputs)}
    folder = save(tmp_path / "c", values, graph, inputs, sources, hash_only=True)
    manifest = read(folder / "manifest.json")
    (folder / "data.npy").unlink()
    stored = {n: replace(one, file=None) for n, one in manifest.inputs.items()}
    write(folder / "manifest.json", replace(manifest, inputs=stored))
    assert run("verify", folder) == 0
    assert run("verify", folder, "--input", "seed:8") == 2
