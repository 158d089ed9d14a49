"""ONNX files with integer inputs, and operators on integers, against onnx's reference; run, judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

import refnet
from refnet import ops
from refnet.cli import main
from refnet.core.errors import FormatError, GraphError, InputError, UnsupportedError
from refnet.core.op import Interval, TensorType
from refnet.formats.golden_file import digest
from refnet.formats.onnx.whole import NEW, RULES
from refnet.models.input_kinds import kinds_of
from refnet.verification.golden import hashes
from tests.helpers.bits import floats, same_bits
from tests.helpers.onnx_build import model, node, read, tensor, value
from tests.helpers.verifying import save

IDS = np.array([[1, 4, 0], [2, 2, 3]])
MORE = np.array([[2, 5, 3]])
TABLE = floats((5, 4), "table")
Case = tuple[list[Any], dict[str, np.ndarray]]
TWO = ("Add", "Sub", "Mul", "Div", "Max", "Min", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
CASES: dict[str, Case] = {
    **{name: ([node(name, "x c")], {"c": MORE}) for name in TWO},
    "Sub swapped": ([node("Sub", "c x")], {"c": MORE}),
    "Mul of values": ([node("Mul", "x x")], {}),
    "Sum": ([node("Sum", "x c x")], {"c": MORE}),
    "Mod": ([node("Mod", "x c")], {"c": -MORE}),
    "Mod of C": ([node("Sub", "x c", "d"), node("Mod", "d c", fmod=1)], {"c": MORE}),
    "Neg": ([node("Neg", "x")], {}),
    "Abs": ([node("Neg", "x", "n"), node("Abs", "n")], {}),
    "Sign": ([node("Neg", "x", "n"), node("Sign", "n")], {}),
    "BitwiseNot": ([node("BitwiseNot", "x")], {}),
    "Clip": ([node("Clip", "x low high")], {"low": np.array(1), "high": np.array(3)}),
    "Clip below": ([node("Clip", "x low")], {"low": np.array(1)}),
    "ReduceSum": ([node("ReduceSum", "x axes", keepdims=0)], {"axes": np.array([1])}),
    "ReduceMax": ([node("ReduceMax", "x axes")], {"axes": np.array([-1])}),
    "ReduceMin": ([node("ReduceMin", "x axes")], {"axes": np.array([1])}),
    "ReduceProd": ([node("ReduceProd", "x axes")], {"axes": np.array([1])}),
    "CumSum": ([node("CumSum", "x axis", exclusive=1, reverse=1)], {"axis": np.array(1)}),
    "CastLike": ([node("CastLike", "x f")], {"f": np.float32([1])}),
    "CastLike of booleans": ([node("Less", "x c", "l"), node("CastLike", "l f")],
                             {"c": MORE, "f": np.float32([1])}),
    "CastLike of floats": ([node("Gather", "table x", "e"), node("CastLike", "e x")], {"table": 9 * TABLE}),
    "CastLike of floats and a constant": ([node("Gather", "table x", "e"), node("CastLike", "e c")],
                                          {"table": 9 * TABLE, "c": np.int32(0)}),
    "CastLike of a constant": ([node("CastLike", "c x", "d"), node("Add", "x d")],
                               {"c": np.float32([1.7, -2.5, 3e9])}),
    "Pad": ([node("Pad", "x pads fill")], {"pads": np.array([0, 1, 0, 0]), "fill": np.int64(2**53 + 1)}),
    "Pad with the largest": ([node("Pad", "x pads fill")],
                             {"pads": np.array([0, 0, 0, 2]), "fill": np.int64(2**63 - 1)}),
    "Gather": ([node("Gather", "table x")], {"table": TABLE}),
    "Gather columns": ([node("Gather", "table x", axis=1)], {"table": floats((3, 5), "columns")}),
    "Gather of values": ([node("Gather", "table x", "e"), node("Gather", "e r", axis=1)],
                         {"table": TABLE, "r": np.array([2, 0])}),
    "Gather by places": ([node("Gather", "table x", "e"), node("ArgMax", "x", "i", axis=1, keepdims=0),
                          node("Gather", "e i", axis=1)], {"table": TABLE}),
    "GatherElements": ([node("Gather", "table x", "e"), node("ArgMax", "e", "i", axis=1),
                        node("GatherElements", "e i", axis=1)], {"table": TABLE}),
    "GatherND": ([node("Unsqueeze", "x axes", "i"), node("GatherND", "table i")],
                 {"table": TABLE, "axes": np.array([2])}),
    "IsNaN": ([node("Gather", "table x", "e"), node("IsNaN", "e")],
              {"table": np.where(TABLE > 0, TABLE, np.float32("nan"))}),
    "moves": ([node("Unsqueeze", "x axes", "u"), node("Transpose", "u", "t", perm=[0, 2, 1]),
               node("Concat", "t t", "c", axis=1), node("Slice", "c b e a", "s"),
               node("Expand", "s shape", "w"), node("Reshape", "w flat", "f"), node("Tile", "f twice", "o"),
               node("Pad", "o pads")],
              {"axes": np.array([2]), "b": np.array([1]), "e": np.array([3]), "a": np.array([2]),
               "shape": np.array([1, 2, 2]), "flat": np.array([0, 4]), "twice": np.array([1, 2]),
               "pads": np.array([0, 1, 0, 0])}),
    "a mask": ([node("Less", "x c", "l"), node("Not", "l", "n"), node("Cast", "n", "f", to=1),
                node("Mul", "f low")], {"c": np.array([2]), "low": np.float32([-10000])}),
    "a constant of integers": ([node("Add", "c c", "d"), node("Concat", "x d", axis=0)], {"c": MORE}),
}  # fmt: skip


def of_ids(nodes: list[Any], constants: dict[str, np.ndarray], **more: Any) -> Any:
    more = {"inputs": [value("x", ["n", 3], TensorProto.INT64)], "opset": 18, **more}
    return model(nodes, [tensor(name, array) for name, array in constants.items()], **more)


LARGEST = node("ReduceMax", "x", "m", keepdims=0)
NUMBERS: dict[str, Case] = {
    "Equal": ([LARGEST, node("Equal", "m c")], {"c": np.array(4)}),
    "Not": ([LARGEST, node("Less", "m c", "l"), node("Not", "l")], {"c": np.array(4)}),
    "Or": ([LARGEST, node("Less", "m c", "l"), node("Or", "l l")], {"c": np.array(4)}),
    "Cast": ([LARGEST, node("Cast", "m", to=TensorProto.BOOL)], {}),
    "Gather": ([LARGEST, node("Gather", "table m")], {"table": np.arange(7)}),
    "GatherND": ([LARGEST, node("Unsqueeze", "m axes", "i"), node("GatherND", "table i")],
                 {"table": np.arange(7), "axes": np.array([0])}),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_a_single_number_is_run_and_judged(name: str, tmp_path: Path) -> None:
    nodes, constants = NUMBERS[name]
    graph = read(of_ids(nodes, constants), tmp_path)
    (expected,) = ReferenceEvaluator(str(tmp_path / "net.onnx")).run(None, {"x": IDS})
    y = refnet.run(graph, {"x": IDS})["y"]
    assert isinstance(y, np.ndarray)
    assert (y, y.dtype) == (expected, expected.dtype)
    op = graph.by_name["y"].op
    read_by = [refnet.run(graph, {"x": IDS}, values=[*graph.by_name])[one] for one in graph.by_name["y"].data]
    known = [*read_by, *(graph.weights[one] for one in graph.by_name["y"].weights)]
    given = [Interval(one.astype(np.float64), np.zeros(one.shape)) for one in known]
    found = op.bound(*given, engine=None)
    assert (found.center.shape, found.center, found.radius) == ((), expected, 0)


def test_every_rule_has_a_case() -> None:
    tested = {name.split()[0] for name in CASES}
    assert {*RULES, *NEW} - tested == set()


@pytest.mark.parametrize("name", sorted(CASES))
def test_it_means_what_onnx_means(name: str, tmp_path: Path) -> None:
    nodes, constants = CASES[name]
    shape = {"inputs": [value("x", [2, 3], TensorProto.INT64)]} if name == "a constant of integers" else {}
    graph = read(of_ids(nodes, constants, **shape), tmp_path)
    assert not any(one.op.opaque for one in graph.nodes)
    assert repr(graph.inputs["x"]).startswith("int64[")
    (expected,) = ReferenceEvaluator(str(tmp_path / "net.onnx")).run(None, {"x": IDS})
    for arithmetic in (refnet.Plain(), refnet.Golden()):
        found = refnet.run(graph, {"x": IDS}, arithmetic, values=["y"])["y"]
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


@pytest.mark.parametrize(("kind", "dtype"), [(2, "uint8"), (3, "int8"), (6, "int32"), (9, "bool")])
def test_inputs_of_other_types(kind: int, dtype: str, tmp_path: Path) -> None:
    """An image of bytes, a mask."""
    nodes = [node("Cast", "x", "f", to=1), node("Mul", "f s", "m"), node("Relu", "m")]
    inputs = [value("x", ["n", 2, 4, 4], kind)]
    graph = read(model(nodes, [tensor("s", np.float32(1 / 255))], inputs=inputs), tmp_path)
    assert repr(graph.inputs["x"]) == f"{dtype}[1, 2, 4, 4]"
    x = (np.arange(64).reshape(2, 2, 4, 4) * 5).astype(dtype)
    found = refnet.run(graph, {"x": x})["y"]
    assert same_bits(found, np.maximum(x.astype(np.float32) * np.float32(1 / 255), 0))
    with pytest.raises(InputError, match=f"input 'x' must be {dtype}, got float32"):
        refnet.run(graph, {"x": x.astype(np.float32)})


@pytest.mark.parametrize(("kind", "word"), [(10, "FLOAT16"), (11, "DOUBLE"), (8, "STRING")])
def test_inputs_that_no_value_can_be(kind: int, word: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"input 'x' is {word}, refnet's values are float32, integers"):
        read(model([node("Relu", "x")], inputs=[value("x", ["n", 2], kind)]), tmp_path)


TOKENS = [
    node("Gather", "table x", "rows"),
    node("Less", "x two", "low"),
    node("Unsqueeze", "low axes", "wide"),
    node("Where", "wide rows none", "masked"),
    node("ArgMax", "masked", "best", axis=2, keepdims=0),
    node("Gather", "table best"),
]
WITH = {
    "table": TABLE,
    "two": np.array(2),
    "axes": np.array([2]),
    "none": np.float32([-1]),
}


@pytest.fixture
def graph(tmp_path: Path) -> refnet.Graph:
    return read(of_ids(TOKENS, WITH, outputs=["y", "best"]), tmp_path)


@pytest.fixture
def values(graph: refnet.Graph) -> dict[str, np.ndarray]:
    return {"x": IDS} | {one.name: array.copy() for one, array in refnet.steps(graph, {"x": IDS})}


def judged(graph: refnet.Graph, values: dict[str, np.ndarray], folder: Path) -> dict[str, str]:
    kept = {name: values[name] for name in values if name != "x"}
    found = refnet.verify(save(folder, kept, graph, {"x": values["x"]}), graph)
    return {one.name: one.verdict for one in found.nodes}


def test_a_shift_by_one_is_found_where_it_is(graph, values, tmp_path) -> None:
    assert set(judged(graph, values, tmp_path / "a").values()) == {"equal"}
    other = {"x": (IDS + 1) % 5} | {
        one.name: array.copy() for one, array in refnet.steps(graph, {"x": (IDS + 1) % 5})
    }
    shifted = judged(graph, {**values, "rows": other["rows"]}, tmp_path / "b")
    assert [name for name, verdict in shifted.items() if verdict == "defect"] == ["rows", "masked"]
    mask = judged(graph, {**values, "low": IDS < 3, "wide": (IDS < 3)[..., None]}, tmp_path / "c")
    assert [name for name, verdict in mask.items() if verdict == "defect"] == ["low", "masked"]
    hidden = dict(values)
    for name in ("rows", "low", "wide", "best"):
        del hidden[name]
    assert judged(graph, hidden, tmp_path / "d") == {
        "rows": "missing", "low": "missing", "wide": "missing", "masked": "equal", "best": "missing",
        "y": "equal",
    }  # fmt: skip


def test_folders_of_integers_are_compared(graph, values, tmp_path) -> None:
    for name, off in (("a", 0), ("b", 1)):
        save(tmp_path / name, {**values, "best": values["best"] + off})
        (tmp_path / name / "manifest.json").unlink()
    assert {one.result for one in refnet.diff(tmp_path / "a", tmp_path / "a").pairs} == {"equal"}
    other = {one.name: one for one in refnet.diff(tmp_path / "a", tmp_path / "b").pairs}
    assert (other["best"].result, other["best"].largest) == ("different", 1)
    assert {one.result for name, one in other.items() if name != "best"} == {"equal"}


def test_an_index_outside_is_found_where_it_is(graph, values, tmp_path) -> None:
    """Nobody knows what the framework took for it; what it took is passed on."""
    best = values["best"].copy()
    best[0, 0] = 999
    found = judged(graph, {**values, "best": best}, tmp_path)
    assert found.pop("best") == "defect"
    assert found.pop("y") == "unjudged"
    assert set(found.values()) == {"equal"}


def test_the_hash_of_integers_that_a_seed_makes_is_enough(graph, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["capture", "refnet", "net.onnx", "--input", "seed:1", "--hash-only", "-o", "caps"]) == 0
    manifest = json.loads(Path("caps/manifest.json").read_text())
    manifest["inputs"]["x"]["file"] = None
    Path("caps/manifest.json").write_text(json.dumps(manifest))
    Path("caps/x.npy").unlink()
    assert {one.verdict for one in refnet.verify("caps").nodes} == {"equal"}
    with pytest.raises(InputError, match="keeps only the hash of 'x'"):
        refnet.open_capture("caps").input("x")


def test_a_folder_of_anybodys_files(graph, values, tmp_path) -> None:
    (tmp_path / "dump").mkdir()
    for name, array in values.items():
        np.save(tmp_path / "dump" / f"{name}.npy", array)
    found = refnet.verify(tmp_path / "dump", graph)
    assert (found.counts["equal"], found.exit_code) == (6, 0)
    words = ["capture", "folder", str(tmp_path / "dump"), "--model", str(tmp_path / "net.onnx")]
    assert main([*words, "-o", str(tmp_path / "caps")]) == 0
    assert refnet.verify(tmp_path / "caps").counts["equal"] == 6


def test_the_commands(graph, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", IDS)
    np.save("wrong.npy", IDS.astype(np.int32))
    np.save("far.npy", IDS + 4)
    assert main(["run", "net.onnx", "--input", "x.npy", "--value", "best", "--output", "o.npy"]) == 0
    assert np.load("o.npy").dtype == "int64"
    assert main(["run", "net.onnx", "--input", "x.npy"]) == 2
    assert "not classes: --value y --output FILE.npy saves it" in capsys.readouterr().err
    assert main(["run", "net.onnx", "--input", "wrong.npy", "--output", "o.npy"]) == 2
    assert "must be int64 ('<i8'), found '<i4'" in capsys.readouterr().err
    assert main(["run", "net.onnx", "--input", "far.npy", "--output", "o.npy"]) == 2
    assert "the index 5 at [0, 0] is outside of -5 to 4" in capsys.readouterr().err
    assert main(["run", "net.onnx", "--input", "cat.png", "--output", "o.npy"]) == 2
    assert main(["golden", "net.onnx", "--input", "x.npy", "-o", "g.json"]) == 0
    assert main(["golden", "--check", "g.json"]) == 0
    assert main(["capture", "refnet", "net.onnx", "--input", "seed:3", "--hash-only", "-o", "cap"]) == 0
    assert main(["verify", "cap"]) == 0
    assert main(["explain", "net.onnx", "rows", "--at", "1,1,2", "--input", "x.npy"]) == 0
    capsys.readouterr()
    assert main(["explain", "net.onnx", "low", "--at", "1,1", "--input", "x.npy"]) == 2
    assert "low is bool, computed without rounding" in capsys.readouterr().err
    assert main(["summary", "net.onnx"]) == 0
    assert main(["diff", "cap", "cap"]) in (0, 2)
    capsys.readouterr()


def test_golden_hashes_of_rows_that_each_image_has_of_a_table(tmp_path: Path) -> None:
    """Image k takes from row k of the table, however many are computed at once."""
    nodes = [node("GatherElements", "table x", axis=1)]
    graph = read(of_ids(nodes, {"table": floats((4, 5), "rows")}), tmp_path)
    one, two = (hashes(graph, {"x": IDS}, batch=batch)["y"] for batch in (1, 2))
    assert one == two == digest(refnet.run(graph, {"x": IDS}, refnet.Golden(), values=["y"])["y"])


REFUSED: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any], str]] = {
    "a fill of another type": ([node("Pad", "x pads fill")],
                               {"pads": np.array([0, 1, 0, 0]), "fill": np.float32(3e38)}, {},
                               "found float32 as constant_value in Pad .*, expected int64"),
    "limits of floats": ([node("Clip", "x", min=2.0, max=3.0)], {}, {"opset": 10},
                         "Clip: of integers, which it takes from opset 12 on"),
    "Cast of NaN": ([node("Cast", "c", "d", to=7), node("Add", "x d")], {"c": np.float32(["nan"])}, {},
                    "of constants that int64 does not have"),
    "CastLike of 300": ([node("CastLike", "c b", "d"), node("CastLike", "d x", "e"), node("Add", "x e")],
                        {"c": np.float32([300]), "b": np.int8(0)}, {},
                        "of constants that int8 does not have"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_one_result_is_refused(name: str, tmp_path: Path) -> None:
    nodes, constants, more, said = REFUSED[name]
    with pytest.raises((FormatError, UnsupportedError), match=said):
        read(of_ids(nodes, constants, **more), tmp_path)


def test_casts_of_constants_count_against_the_limit(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("REFNET_FOLD_BYTES", "100000")
    nodes = [node("CastLike", "c f", "d"), node("CastLike", "c f", "e"), node("CastLike", "x f", "a")]
    constants = {"c": np.arange(9000).reshape(3000, 1, 3), "f": np.float32(0)}
    with pytest.raises(FormatError, match="a constant of 9000 elements, 72000 bytes"):
        read(of_ids([*nodes, node("Add", "a d", "b"), node("Add", "b e")], constants), tmp_path)


def test_what_others_round_otherwise_may_be_another_integer(tmp_path: Path) -> None:
    """The logarithm of an exponential that is 3 here is a little less there, and is cast to 2."""
    nodes = [node("Exp", "c", "e"), node("Log", "e", "l"), node("CastLike", "l x", "d"), node("Add", "x d")]
    file = tmp_path / "net.onnx"
    file.write_bytes(of_ids(nodes, {"c": np.float32([3, 5, 7])}).SerializeToString())
    graph = refnet.load(file)
    y = refnet.run(graph, {"x": MORE}, values=["y"])["y"]
    y[0, 0] -= 1
    assert judged(graph, {"x": MORE, "y": y}, tmp_path / "caps")["y"] == "unjudged"


def test_the_pad_of_what_is_not_known_has_the_bound_of_its_number(tmp_path: Path) -> None:
    for fill, radius in ((2**24 + 1, 0), (2**53 + 1, np.inf)):
        op = ops.Pad((1,), (0,), value=fill)
        found = op.bound(Interval(np.array([3.0]), np.array([0.0])), engine=None)
        assert found.center[0] == float(fill)
        assert found.radius.tolist() == [radius, 0]
    for fill, kind in ((300, "uint8"), (-1, "uint8"), (0.5, "int64"), (2, "bool"), (float("nan"), "int32")):
        with pytest.raises(GraphError, match=f"{kind} has no {fill}"):
            ops.Pad((1,), (0,), value=fill).type(TensorType((3,), kind))


def test_an_output_without_elements_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = [node("Split", "x sizes", "y z", axis=1)]
    graph = read(of_ids(nodes, {"sizes": np.array([3, 0])}, outputs=["y", "z"]), tmp_path)
    assert [*graph.outputs] == ["y"]
    assert "no float32 values: 'z' (int64[1, 0])" in caplog.text


def test_a_fill_of_nan_takes_any_batch(tmp_path: Path) -> None:
    nodes = [node("Gather", "table x", "e"), node("Pad", "e pads nan")]
    constants = {"table": TABLE, "pads": np.array([0, 0, 1, 0, 0, 0]), "nan": np.float32("nan")}
    y = refnet.run(read(of_ids(nodes, constants), tmp_path), {"x": IDS}, values=["y"])["y"]
    assert np.isnan(y).sum() == 6


def test_a_seed_makes_indices_of_the_table(graph) -> None:
    (kind,) = kinds_of(graph).values()
    assert (kind.shape, kind.dtype, kind.below) == ((1, 3), "int64", 5)


def test_a_floats_operator_on_integers_costs_its_own_value(tmp_path: Path) -> None:
    nodes = [node("Pow", "x two", "p"), node("Cast", "p", "f", to=1), node("Mod", "f f")]
    graph = read(of_ids(nodes, {"two": np.array([2])}), tmp_path)
    assert [one.op.opaque.partition(":")[0] for one in graph.nodes if one.op.opaque] == ["Cast", "Mod"]


def outputs_said(pairs: str) -> Any:
    proto = model([node("Relu", "x", "a"), node("Neg", "x", "b")], outputs=["a", "b"])
    proto.metadata_props.add(key="refnet outputs", value=pairs)
    return proto


def test_outputs_have_the_names_that_a_module_gives_them(tmp_path: Path) -> None:
    graph = read(outputs_said('[["second", "b"], ["first", "a"], ["again", "b"]]'), tmp_path)
    assert dict(graph.outputs) == {"second": "b", "first": "a", "again": "b"}
    assert [*graph.outputs] == ["second", "first", "again"]
    for bad in (
        "{}",
        "[1]",
        '[["a", "c"]]',
        '[["a", "a"], ["a", "b"]]',
        '[["", 1]]',
        '[["x\\u0000", "a"]]',
        "[",
    ):
        with pytest.raises(FormatError):
            read(outputs_said(bad), tmp_path)


def test_an_output_that_is_an_input_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = [node("Relu", "x", "y"), node("Abs", "x", "z")]
    graph = read(model(nodes, outputs=["x", "z", "y"]), tmp_path)
    assert [*graph.outputs] == ["z", "y"]
    assert "the output 'x' is an input, refnet's outputs are values; it is left out" in caplog.text
