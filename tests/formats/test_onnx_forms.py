"""ONNX files of other forms: opset 6, functions of the file's own, sizes that are left open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import refnet
from refnet import ops
from refnet.cli import main
from refnet.core.errors import FormatError, InputError, RefnetError, UnsupportedError
from refnet.formats.onnx.local_functions import MOST_DEPTH, MOST_NODES
from refnet.models.loading import structure
from tests.helpers.bits import floats, same_bits
from tests.helpers.onnx_build import model, node, read, tensor, value
from tests.helpers.onnx_models import whole

# Opset 6. onnx's version converter takes `axis` otherwise than its text says, so NumPy says what is expected.
# Files of opset 6 with stored results: tests/crosscheck/test_onnx_packaged.py.

C2, C4, C24, W3 = (whole(shape, f"c{shape}") for shape in ((2,), (4,), (2, 4), (3, 32)))
B3 = whole((3,), "b3")
Old = tuple[list[Any], dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]
OLD: dict[str, Old] = {
    "channels": ([node("Add", "x c", broadcast=1, axis=1)], {"c": C2}, lambda x: x + C2[:, None, None]),
    "from behind": ([node("Add", "x c", broadcast=1, axis=-3)], {"c": C2}, lambda x: x + C2[:, None, None]),
    "last axis": ([node("Mul", "x c", broadcast=1)], {"c": C4}, lambda x: x * C4),
    "one number": ([node("Div", "x c", broadcast=1)], {"c": np.float32(2)}, lambda x: x / 2),
    "two axes": ([node("Sub", "x c", broadcast=1, axis=1)], {"c": C24}, lambda x: x - C24[:, :, None]),
    "equal shapes": ([node("Add", "x x")], {}, lambda x: x + x),
    "dropout": ([node("Dropout", "x", is_test=1)], {}, lambda x: x),
    "gemm": (
        [node("Flatten", "x", "f"), node("Gemm", "f w c", broadcast=1, transB=1)],
        {"w": W3, "c": B3},
        lambda x: x.reshape(1, 32) @ W3.T + B3,
    ),
    "clip": ([node("Clip", "x", min=-1.0, max=2.0)], {}, lambda x: np.clip(x, -1, 2)),
    "pad": (
        [node("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=3.0)],
        {},
        lambda x: np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)), constant_values=3),
    ),
    "reshape": ([node("Reshape", "x s")], {"s": np.array([0, -1])}, lambda x: x.reshape(1, 32)),
    "upsample": (
        [node("Upsample", "x", height_scale=2.0, width_scale=3.0)],
        {},
        lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    "slope": (
        [node("PRelu", "x c")],
        {"c": C2},
        lambda x: np.where(x < 0, C2[:, None, None] * x, x),
    ),
    "of values": (
        [
            node("GlobalAveragePool", "x", "p"),
            node("Reshape", "p s", "q"),
            node("Mul", "x q", broadcast=1, axis=0),
        ],
        {"s": np.array([0, 2])},
        lambda x: x * (x.sum((2, 3), keepdims=True) / 16),
    ),
}


@pytest.mark.parametrize("name", sorted(OLD))
def test_opset_6_means_what_its_text_says(name: str, tmp_path: Path) -> None:
    nodes, constants, expected = OLD[name]
    proto = model(nodes, [tensor(n, a) for n, a in constants.items()], opset=6, shape=["n", 2, 4, 4])
    graph = read(proto, tmp_path)
    x = whole((1, 2, 4, 4), name)
    assert same_bits(refnet.run(graph, {"x": x}, values=["y"])["y"], expected(x).astype(np.float32))


def test_a_norm_of_opset_6_is_that_of_a_test(tmp_path: Path) -> None:
    proto = model([node("BatchNormalization", "x c c c c", is_test=1, epsilon=1e-3)], [tensor("c", C2)], 6)
    assert read(proto, tmp_path).by_name["y"].op == ops.BatchNorm(1e-3)


@pytest.mark.parametrize(
    ("nodes", "constants", "error", "said"),
    [
        ([node("Add", "x c")], {"c": C4}, FormatError, "without broadcast=1"),
        ([node("Add", "x c", broadcast=1)], {"c": C2}, FormatError, "a part of its shape"),
        ([node("Add", "x c", broadcast=1, axis=9)], {"c": C2}, FormatError, "at axis 9"),
        ([node("Dropout", "x")], {}, UnsupportedError, "drops at random"),
        ([node("BatchNormalization", "x c c c c")], {"c": C2}, UnsupportedError, "training_mode"),
    ],
)
def test_what_opset_6_does_not_say(
    nodes: list[Any], constants: dict[str, Any], error: type[RefnetError], said: str, tmp_path: Path
) -> None:
    proto = model(nodes, [tensor(n, a) for n, a in constants.items()], opset=6, shape=[1, 2, 4, 4])
    if error is FormatError:
        with pytest.raises(error, match=said):
            read(proto, tmp_path)
        return
    graph = read(proto, tmp_path)
    with pytest.raises(error, match=said):
        refnet.run(graph, {"x": whole((1, 2, 4, 4), "x")})


# Functions.


def function(name: str, inputs: list[str], outputs: list[str], nodes: list[Any], **more: Any) -> Any:
    opset = more.pop("opset", 18)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, inputs, outputs, nodes, imports, **more)


def call(name: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(name, inputs.split(), output.split(), domain="own", **attributes)


def with_functions(nodes: list[Any], functions: list[Any], **more: Any) -> Any:
    made = model(nodes, more.pop("constants", []), **more)
    made.opset_import.append(helper.make_opsetid("own", 1))
    made.functions.extend(functions)
    return made


def test_functions_are_put_in_the_place_of_their_calls(tmp_path: Path) -> None:
    """Twice, one inside the other, with an attribute; what a call makes keeps its name."""
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    inner = function("Leaky", ["a"], ["b"], [leaky], attributes=["slope"])
    outer = function("Twice", ["a"], ["c"], [call("Leaky", "a", "t", slope=0.5), node("Add", "t a", "c")])
    nodes = [call("Twice", "x", "half"), call("Leaky", "half", slope=0.25)]
    graph = read(with_functions(nodes, [inner, outer]), tmp_path)
    assert [type(one.op).__name__ for one in graph.nodes] == ["LeakyRelu", "Add", "LeakyRelu"]
    assert [one.name for one in graph.nodes][1:] == ["half", "y"]
    x = floats((1, 2, 4, 4), "x")
    half = np.where(x < 0, np.float32(0.5) * x, x) + x
    found = refnet.run(graph, {"x": x}, values=["half", "y"])
    assert same_bits(found["half"], half)
    assert same_bits(found["y"], np.where(half < 0, np.float32(0.25) * half, half))


def chain(count: int, calls: int) -> list[Any]:
    """Functions F0 to F(count-1), each but the first of calls of the one before."""
    made = [function("F0", ["a"], ["b"], [node("Relu", "a", "b")])]
    for i in range(1, count):
        names = ["a", *(f"v{k}" for k in range(calls - 1)), "b"]
        body = [call(f"F{i - 1}", names[k], names[k + 1]) for k in range(calls)]
        made.append(function(f"F{i}", ["a"], ["b"], body))
    return made


@pytest.mark.parametrize(
    ("functions", "first", "error", "said"),
    [
        ([function("F", ["a"], ["b"], [call("F", "a", "b")])], "F", UnsupportedError, "F -> own::F"),
        (
            [
                function("F", ["a"], ["b"], [call("G", "a", "b")]),
                function("G", ["a"], ["b"], [call("F", "a", "b")]),
            ],
            "F",
            UnsupportedError,
            "functions that call themselves: own::F -> own::G -> own::F",
        ),
        (chain(40, 10), "F39", FormatError, f"at most {MOST_NODES}"),
        (chain(MOST_DEPTH + 1, 1), f"F{MOST_DEPTH}", FormatError, "deep in each other"),
        (2 * chain(1, 1), "F0", FormatError, "two functions own::F0"),
        (
            [function("F", ["a"], ["b"], [node("Relu", "a", "b")], opset=17)],
            "F",
            UnsupportedError,
            "is of opset 17 of ai.onnx, the model of 18",
        ),
    ],
    ids=["itself", "each other", "a billion", "deep", "twice", "another opset"],
)
def test_functions_that_are_refused(
    functions: list[Any], first: str, error: type[RefnetError], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        read(with_functions([call(first, "x")], functions), tmp_path)


# Sizes and outputs.

OPEN = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Add", "r z"), node("Tan", "y", "t")]
W = tensor("w", whole((2, 2, 1, 1), "w"))


@pytest.fixture
def open_file(tmp_path: Path) -> Path:
    inputs = [value("x", [-1, 2, -1, "w"]), value("z", ["n", 2, -1, None])]
    read_path = tmp_path / "open.onnx"
    onnx.save(model(OPEN, [W], inputs=inputs, outputs=["y", "t"]), read_path)
    return read_path


def test_every_free_size_is_named_and_can_be_given(open_file: Path) -> None:
    said = r"input 'x' is \[None, 2, None, w\], input 'z' is \[n, 2, None, None\]: of what size\?"
    with pytest.raises(InputError, match=said + r" shapes \(--shape x=1,2,N,W --shape z=1,2,N,N\)"):
        refnet.load(open_file)
    graph = refnet.load(f"{open_file}?shape=x:3,2,5,6&shape=z:3,2,5,6")
    assert {name: kind.shape for name, kind in graph.inputs.items()} == dict.fromkeys("xz", (3, 2, 5, 6))
    for wrong, said in (
        ("x:1,3,5,6", r"input 'x' is \[None, 2, None, w\], which \[1, 3, 5, 6\] does not fit"),
        ("x:1,2,5", "does not fit"),
        ("v:1,2,5,6", "has no input 'v'; its inputs are x, z"),
        ("x:1,2,0,6", "is not NAME and its dimensions"),
        ("x:1,2,-1,6", "is not NAME and its dimensions"),
    ):
        with pytest.raises(InputError, match=said):
            refnet.load(f"{open_file}?shape={wrong}")
    with pytest.raises(InputError, match=r"shapes are for \.onnx files, not for resnest-digits"):
        structure("resnest-digits?shape=data:1,1,8,8")


def test_only_what_the_named_values_need(open_file: Path) -> None:
    text = f"{open_file}?shape=x:1,2,5,6&shape=z:1,2,5,6"
    whole_graph = refnet.load(text)
    graph = refnet.load(text + "&output=r")
    assert [one.name for one in graph.nodes] == ["c", "r"]
    assert (graph.outputs, [*graph.inputs], [*graph.weights]) == ({"r": "r"}, ["x"], ["w"])
    x = floats((1, 2, 5, 6), "x")
    assert same_bits(
        refnet.run(graph, {"x": x})["r"], refnet.run(whole_graph, {"x": x, "z": x}, values=["r"])["r"]
    )
    with pytest.raises(InputError, match=r"no values of these names: 'rr'.*; 'x' is an input"):
        refnet.load(text + "&output=rr&output=x")
    digits = structure("resnest-digits?output=prob&output=conv1.2")
    assert digits.outputs == {"prob": "prob", "conv1.2": "conv1.2"}


def test_the_commands_take_shapes_and_outputs(
    open_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a golden file or a capture says of its model has them, so that it is found again."""
    monkeypatch.chdir(tmp_path)
    sizes = ["--shape", "x=1,2,5,6", "--shape", "z=1,2,5,6"]
    assert main(["summary", "open.onnx", *sizes, "--totals"]) == 0
    assert "published" not in capsys.readouterr().out
    chosen = [*sizes, "--outputs", "c,r"]
    assert main(["golden", "open.onnx", *chosen, "--input", "seed:1", "-o", "g.json"]) == 0
    assert main(["golden", "--check", "g.json"]) == 0
    assert main(["capture", "refnet", "open.onnx", *chosen, "--input", "seed:1", "-o", "cap"]) == 0
    assert main(["verify", "cap"]) == 0
    assert sorted(path.name for path in (tmp_path / "cap").glob("*.npy")) == ["c.npy", "r.npy", "x.npy"]
    assert main(["export", "open.onnx", *chosen, "--to", "onnx", "-o", "part"]) == 0
    assert [*refnet.load("part.onnx").outputs] == ["c", "r"]
    capsys.readouterr()
    assert main(["summary", "open.onnx", *sizes, "--outputs", "cc"]) == 2
    assert "has no values of these names: 'cc'" in capsys.readouterr().err
    assert main(["summary", "open.onnx", "--shape", "x"]) == 2
    assert "--shape 'x': is not NAME and its dimensions" in capsys.readouterr().err
    assert main(["capture", "mxnet", "resnest-digits", "--outputs", "fc", "-o", "cap2"]) == 2
    assert "mxnet runs all of it" in capsys.readouterr().err
