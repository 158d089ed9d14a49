"""ONNX operators of integers and booleans, against onnx's reference; captured, hashed, judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import refnet
from refnet import ops
from refnet.cli import main
from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.golden_file import digest
from refnet.formats.npy import open_npy
from refnet.formats.onnx.integers import RULES
from tests.helpers.bits import floats
from tests.helpers.onnx_build import model, node, read, tensor
from tests.helpers.onnx_models import whole
from tests.helpers.verifying import save

C = whole((1, 2, 4, 4), "c")
Case = tuple[list[Any], dict[str, np.ndarray], int]
CASES: dict[str, Case] = {
    **{
        name: ([node(name, "x c")], {"c": C}, first)
        for name, first in (
            ("Equal", 11),
            ("Less", 9),
            ("Greater", 9),
            ("LessOrEqual", 12),
            ("GreaterOrEqual", 12),
        )
    },
    "Less swapped": ([node("Less", "c x")], {"c": C}, 9),
    "And": (
        [node("Less", "x c", "l"), node("Greater", "x z", "g"), node("And", "l g")],
        {"c": C, "z": C - 3},
        9,
    ),
    "Or": ([node("Less", "x c", "l"), node("Or", "l m")], {"c": C, "m": C > 0}, 9),
    "Xor": ([node("Less", "x c", "l"), node("Xor", "m l")], {"c": C, "m": C > 0}, 9),
    "Not": ([node("Less", "x c", "l"), node("Not", "l")], {"c": C}, 9),
    "Where": ([node("Less", "x c", "l"), node("Where", "l x c")], {"c": C}, 9),
    "Where of constants": ([node("Less", "x c", "l"), node("Where", "l c o")], {"c": C, "o": C + 1}, 9),
    "Where by a constant": ([node("Where", "m c x")], {"c": C, "m": C > 0}, 9),
    "Cast": ([node("Cast", "x", "i", to=7), node("Cast", "i", to=1)], {}, 9),
    "Cast to bool": ([node("Cast", "x", "i", to=9), node("Cast", "i", to=6)], {}, 9),
    "CastLike": ([node("CastLike", "x k", "i"), node("CastLike", "i x")], {"k": np.array(0)}, 15),
    "ArgMax": ([node("ArgMax", "x", axis=1)], {}, 7),
    "ArgMax last": ([node("ArgMax", "x", axis=-1, keepdims=0, select_last_index=1)], {}, 12),
    "ArgMin": ([node("ArgMin", "x", axis=2, keepdims=0)], {}, 7),
}


def test_every_rule_has_a_case() -> None:
    assert {name.split()[0] for name in CASES} == set(RULES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_it_means_what_onnx_means(name: str, tmp_path: Path) -> None:
    nodes, constants, first = CASES[name]
    x = whole((1, 2, 4, 4), "x")
    for opset in (max(first, 9), 13, 19):
        if opset < first:
            continue
        proto = model(nodes, [tensor(n, a) for n, a in constants.items()], opset=opset, shape=[1, 2, 4, 4])
        graph = read(proto, tmp_path)
        assert not any(one.op.opaque for one in graph.nodes)
        (expected,) = ReferenceEvaluator(str(tmp_path / "net.onnx")).run(None, {"x": x})
        for arithmetic in (refnet.Plain(), refnet.Golden()):
            found = refnet.run(graph, {"x": x}, arithmetic, values=["y"])["y"]
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)


NODES = [
    node("Relu", "x", "r"),
    node("ArgMax", "r", "best", axis=1),
    node("Greater", "r half", "above"),
    node("Where", "above x none"),
]
CONSTANTS = [tensor("half", np.float32(0.5)), tensor("none", np.float32(-1))]


@pytest.fixture
def graph(tmp_path: Path) -> refnet.Graph:
    return read(model(NODES, CONSTANTS, outputs=["y", "best"], shape=["n", 2, 4, 4]), tmp_path)


@pytest.fixture
def values(graph: refnet.Graph) -> dict[str, np.ndarray]:
    x = floats((3, 2, 4, 4), "x")
    return {"x": x} | {one.name: array.copy() for one, array in refnet.steps(graph, {"x": x})}


def verdicts(found: refnet.Verification) -> dict[str, str]:
    return {one.name: one.verdict for one in found.nodes}


def checked(graph: refnet.Graph, values: dict[str, np.ndarray], folder: Path) -> refnet.Verification:
    kept = {name: values[name] for name in values if name != "x"}
    return refnet.verify(save(folder, kept, graph, {"x": values["x"]}), graph)


def test_heads_of_integers_are_values(graph, values, tmp_path) -> None:
    assert graph.outputs == {"y": "y", "best": "best"}
    assert repr(graph.types()["best"]) == "int64[1, 1, 4, 4]"
    assert repr(graph.types()["above"]) == "bool[1, 2, 4, 4]"
    found = checked(graph, values, tmp_path / "c")
    assert set(verdicts(found).values()) == {"equal"}
    assert found.exit_code == 0
    assert [(one.name, one.differ) for one in found.outputs] == [("y", 0), ("best", 0)]


def test_a_wrong_integer_is_a_defect_and_says_where(graph, values, tmp_path) -> None:
    values["best"][1, 0, 2, 3] ^= 1
    found = checked(graph, values, tmp_path / "c")
    assert verdicts(found) == {"r": "equal", "best": "defect", "above": "equal", "y": "equal"}
    (said,) = [one.reason for one in found.nodes if one.name == "best"]
    own = 1 - values["best"][1, 0, 2, 3]
    assert said == (
        f"1 of 48 elements are not the only right result, the first at [1, 0, 2, 3]: {1 - own}, not {own}"
    )
    values["above"] = ~values["above"]
    assert verdicts(checked(graph, values, tmp_path / "d"))["above"] == "defect"


def test_another_type_is_a_defect(graph, values, tmp_path) -> None:
    values["best"] = values["best"].astype(np.int32)
    found = checked(graph, values, tmp_path / "c")
    (said,) = [one.reason for one in found.nodes if one.name == "best"]
    assert said == "its dtype is int32, not int64"


def test_a_hidden_mask_is_passed_over(graph, values, tmp_path) -> None:
    del values["above"]
    found = checked(graph, values, tmp_path / "c")
    assert verdicts(found) == {"r": "equal", "best": "equal", "above": "missing", "y": "equal"}


def test_what_nan_has_no_place_is_unjudged(graph, values, tmp_path) -> None:
    x = values["x"].copy()
    x[0, :, 0, 0] = np.nan
    own = {one.name: array.copy() for one, array in refnet.steps(graph, {"x": x})}
    own["best"][0, 0, 0, 0] ^= 1
    found = checked(graph, own | {"x": x}, tmp_path / "c")
    assert verdicts(found)["best"] == "unjudged"


def test_files_hashes_and_commands(graph, values, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["golden", "net.onnx", "--input", "seed:1", "-o", "g.json"]) == 0
    assert main(["golden", "--check", "g.json"]) == 0
    assert main(["capture", "refnet", "net.onnx", "--input", "seed:1", "-o", "cap"]) == 0
    assert main(["verify", "cap"]) == 0
    assert main(["diff", "cap", "cap"]) == 0
    assert open_npy(tmp_path / "cap" / "best.npy", None).dtype == "int64"
    assert np.load(tmp_path / "cap" / "above.npy").dtype == bool
    assert main(["summary", "net.onnx"]) == 0
    capsys.readouterr()
    text = (tmp_path / "g.json").read_text()
    (tmp_path / "g.json").write_text(text.replace('"int64"', '"float16"'))
    with pytest.raises(FormatError, match="one of float32, bool, int8"):
        refnet.check_golden(tmp_path / "g.json")


def test_the_hash_has_the_dtype_in_it() -> None:
    zeros = [np.zeros(8, kind) for kind in ("int8", "uint8", "bool")]
    assert len({digest(array).sha256 for array in zeros}) == 3
    assert str(digest(zeros[0])).startswith("int8[8] ")
    assert digest(np.array([1, 2], ">i4")) == digest(np.array([1, 2], "<i4"))


def test_an_op_of_floats_takes_no_integers(tmp_path, caplog) -> None:
    nodes = [node("ArgMax", "x", "i", axis=1), node("Pow", "i i", "f"), node("Cast", "f", to=1)]
    graph = read(model(nodes, shape=[1, 2, 4, 4]), tmp_path)
    assert [one.name for one in graph.nodes][:2] == ["i", "y"]
    assert isinstance(graph.by_name["y"].op, ops.Opaque)
    nodes = [node("Cast", "x", "i", to=11), node("Cast", "i", to=1)]
    with pytest.raises(UnsupportedError, match="Cast: it reads 'i', which is left out: y"):
        refnet.run(read(model(nodes), tmp_path), {"x": floats((1, 2, 4, 4), "x")})
    assert "'i' (Cast: to type 11; refnet's values are float32, bool" in caplog.text
