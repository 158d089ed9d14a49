"""ONNX files that are damaged, hostile or ask for what refnet does not have: errors that name them."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import refnet
from refnet.core.errors import FormatError, GraphError, RefnetError, UnsupportedError
from refnet.formats.onnx import file as onnx_file
from tests.helpers.bits import same_bits
from tests.helpers.onnx_build import model, node, one_process, read, tensor, value
from tests.helpers.onnx_models import NEWEST, whole

W = tensor("w", np.ones((2, 2, 1, 1), np.float32))
RELU = node("Relu", "x")


def changed(proto: Any, change: Callable[[Any], Any]) -> Any:
    change(proto)
    return proto


def external(**entries: str) -> Any:
    made = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 2, 1, 1])
    made.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        made.external_data.add(key=key, value=text)
    return model([node("Conv", "x w")], [made])


def raw(dims: list[int], data: bytes, kind: int = TensorProto.FLOAT) -> Any:
    made = onnx.TensorProto(name="w", data_type=kind, dims=dims, raw_data=data)
    return model([node("Conv", "x w")], [made])


V = tensor("v", np.ones(2, np.float32))
BRANCH = helper.make_graph([node("Relu", "x", "z")], "branch", [], [value("z", None)])
BAD: dict[str, tuple[Any, type[RefnetError], str]] = {
    "empty": (b"", FormatError, "no nodes"),
    "no protobuf": (b"\xff" * 40, FormatError, "no protobuf message"),
    "no opset": (changed(model([RELU]), lambda m: m.ClearField("opset_import")), FormatError, "opsets"),
    "old opset": (model([RELU], opset=5), UnsupportedError, "opset 5; refnet with onnx .* reads 6 to"),
    "new opset": (model([RELU], opset=NEWEST + 1), UnsupportedError, f"opset {NEWEST + 1}"),
    "unknown operators": (
        model([node("Nonsense", "x", "a"), node("LSTM", "a w w", "b"), node("Gelu", "b")], [W], opset=20),
        UnsupportedError,
        r"every output needs what refnet cannot have: 'a' \(Nonsense: its shape is not known\), 'b' \(LSTM",
    ),
    "operators without a rule": (
        model([node("Bernoulli", "x", "a"), node("Mod", "a a", "b", fmod=1), node("Bernoulli", "b")]),
        UnsupportedError,
        "Bernoulli: refnet has no such operator: a, y.*Mod: of float32: refnet has it for integers only: b",
    ),
    "another domain": (
        model([helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft")]),
        UnsupportedError,
        "'y' .com.microsoft::Relu: its shape is not known",
    ),
    "a branch": (
        model(
            [helper.make_node("If", ["c"], ["y"], then_branch=BRANCH, else_branch=BRANCH)],
            [tensor("c", True)],
        ),
        UnsupportedError,
        "If, .*subgraphs",
    ),
    "a cycle": (model([node("Relu", "z", "y"), node("Relu", "y", "z")]), FormatError, "'z' as input"),
    "a value twice": (model([RELU, node("Sigmoid", "x")]), FormatError, "a second value 'y'"),
    "an initializer twice": (model([node("Conv", "x w")], [W, W]), FormatError, "two initializers 'w'"),
    "a value over an input": (
        model([node("Relu", "x", "x")], outputs=["x"]),
        FormatError,
        "a second value 'x'",
    ),
    "a missing initializer": (model([node("Conv", "x w")]), FormatError, "'w' as input of"),
    "a missing output": (model([RELU], outputs=["z"]), FormatError, "output 'z'"),
    "no outputs": (model([RELU], outputs=[]), FormatError, "outputs"),
    "an output that is an input": (
        model([RELU], outputs=["x"]),
        UnsupportedError,
        "the output 'x' is an input",
    ),
    "constant outputs": (
        model([node("Identity", "w"), node("Relu", "x", "z")], [W]),
        UnsupportedError,
        "outputs are constant",
    ),
    "an unknown attribute": (
        model([node("Relu", "x", slope=1)]),
        FormatError,
        "an unknown attribute 'slope'",
    ),
    "an attribute of another type": (
        model([node("Conv", "x w", strides=1)], [W]),
        FormatError,
        "attribute 'strides'",
    ),
    "a lacking attribute": (model([node("MaxPool", "x")]), FormatError, "no attribute 'kernel_shape'"),
    "too many inputs": (model([node("Relu", "x x")]), FormatError, "2 inputs and 1 outputs"),
    "an empty input": (model([helper.make_node("Add", ["x", ""], ["y"])]), FormatError, "an empty input"),
    "three strides": (model([node("Conv", "x w", strides=[1, 1, 1])], [W]), FormatError, "strides"),
    "a stride of 0": (model([node("Conv", "x w", strides=[0, 1])], [W]), FormatError, "strides"),
    "negative pads": (model([node("Conv", "x w", pads=[0, -1, 0, 0])], [W]), FormatError, "pads"),
    "pads and auto_pad": (
        model([node("Conv", "x w", pads=[1, 1, 1, 1], auto_pad="SAME_UPPER")], [W]),
        FormatError,
        "next to",
    ),
    "another auto_pad": (model([node("Conv", "x w", auto_pad="SAME")], [W]), FormatError, "auto_pad 'SAME'"),
    "another kernel": (model([node("Conv", "x w", kernel_shape=[3, 3])], [W]), FormatError, "kernel_shape"),
    "absurd pads": (
        model([node("Conv", "x w", pads=[1 << 30, 1 << 30, 1 << 30, 1 << 30])], [W]),
        FormatError,
        "elements",
    ),
    "a huge dilated pool": (
        model([node("MaxPool", "x", kernel_shape=[1 << 30, 1], dilations=[1 << 20, 1])]),
        GraphError,
        "fit",
    ),
    "channels that differ": (
        model([node("Conv", "x w")], [tensor("w", np.ones((2, 3, 1, 1), np.float32))]),
        GraphError,
        "weights are",
    ),
    "a weight that is an input": (model([node("Conv", "x x")]), UnsupportedError, "'x' is an input of"),
    "a kernel of another rank": (
        model([node("Conv", "x w")], [tensor("w", np.ones((2, 2, 1, 1), np.float32))], shape=["n", 2, 5]),
        FormatError,
        "as weight",
    ),
    "rows without length": (
        model([node("Conv", "x w")], [tensor("w", np.ones((2, 2), np.float32))], shape=["n", 2]),
        FormatError,
        "3 dimensions or more",
    ),
    "a transposed convolution of absurd strides": (
        model(
            [node("ConvTranspose", "x w", strides=[1 << 31, 1 << 31])],
            [tensor("w", np.ones((2, 2, 1, 1), np.float32))],
        ),
        FormatError,
        "elements",
    ),
    "an absurd output shape": (
        model(
            [node("ConvTranspose", "x w", output_shape=[1 << 31, 1 << 31])],
            [tensor("w", np.ones((2, 2, 1, 1), np.float32))],
        ),
        FormatError,
        "elements",
    ),
    "absurd sizes": (
        model(
            [helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="cubic")],
            [tensor("s", np.array([1, 2, 1 << 30, 1 << 30]))],
        ),
        FormatError,
        "elements",
    ),
    "windows with absurd steps": (
        model(
            [node("MaxPool", "x", kernel_shape=[2], dilations=[1 << 30], pads=[1 << 30, 1 << 30])],
            shape=["n", 2, 5],
        ),
        GraphError,
        "windows with such a dilation",
    ),
    "a negative dimension": (raw([-1], b""), FormatError, "dimensions"),
    "a short initializer": (raw([2, 2, 1, 1], b"1234"), FormatError, "4 bytes or numbers .* expected 16"),
    "a long initializer": (raw([2, 2, 1, 1], b"1" * 20), FormatError, "expected 16"),
    "an absurd initializer": (raw([1 << 31, 1 << 31], b""), FormatError, "elements"),
    "an empty initializer": (
        raw([0, 2, 1, 1], b""),
        UnsupportedError,
        "'y' .Conv: 'w' is empty; it is empty",
    ),
    "strings": (raw([1], b"a", TensorProto.STRING), UnsupportedError, "is STRING"),
    "complex numbers": (raw([1], b"12345678", TensorProto.COMPLEX64), UnsupportedError, "is COMPLEX64"),
    "double weights": (
        model([node("Conv", "x w")], [tensor("w", np.ones((2, 2, 1, 1)))]),
        UnsupportedError,
        "'y' .Conv: 'w' is float64, .*; its shape is not known",
    ),
    "a double input": (
        model([RELU], inputs=[value("x", [1, 2], TensorProto.DOUBLE)]),
        UnsupportedError,
        "is DOUBLE",
    ),
    "an input without a shape": (model([RELU], inputs=[value("x", None)]), FormatError, "without a shape"),
    "a dimension of 0": (model([RELU], shape=[1, 0]), FormatError, "dimension 0"),
    "a single number": (model([RELU], shape=[]), UnsupportedError, "without a batch"),
    "an absurd input": (model([RELU], shape=[1, 1 << 20, 1 << 20]), FormatError, "at most"),
    "training": (
        model([node("BatchNormalization", "x v v v v", "y m s", training_mode=1)], [V]),
        UnsupportedError,
        "training_mode",
    ),
    "drops at random": (
        model([helper.make_node("Dropout", ["x", "", "t"], ["y"])], [tensor("t", np.array(True))]),
        UnsupportedError,
        "at random",
    ),
    "a number of another type": (
        model(
            [
                node("MaxPool", "x", "a i", kernel_shape=[2, 2]),
                node("Cast", "i", "f", to=1),
                node("Bernoulli", "f"),
            ]
        ),
        UnsupportedError,
        "Cast: it reads 'i', which is left out: f.*Bernoulli: refnet has no such operator: y",
    ),
    "steps": (
        model(
            [node("Slice", "x s e a t")],
            [tensor(n, np.array([v])) for n, v in zip("seat", (3, 3, 2, 2), strict=True)],
        ),
        UnsupportedError,
        "it is empty",
    ),
    "steps of 0": (
        model(
            [node("Slice", "x s e a t")],
            [tensor(n, np.array([v])) for n, v in zip("seat", (0, 4, 2, 0), strict=True)],
        ),
        FormatError,
        "steps",
    ),
    "an index outside": (
        model([node("Gather", "x i", axis=2)], [tensor("i", np.array([99]))]),
        FormatError,
        "index 99",
    ),
    "growing tiles": (
        model([node("Tile", "x r")], [tensor("r", np.array([1, 1, 1 << 20, 1 << 20]))]),
        FormatError,
        "at most|elements",
    ),
    "growing copies": (
        model([node("Expand", "x s")], [tensor("s", np.array([1 << 30, 1 << 30, 1, 1, 1, 1]))]),
        FormatError,
        "elements",
    ),
    "a block of 0": (model([node("DepthToSpace", "x", blocksize=0)]), FormatError, "blocksize"),
    "antialiasing over everything": (
        model(
            [helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1)],
            [tensor("s", np.array([1, 1, 1, 2.0**-17], np.float32))],
            shape=[1, 1, 1, 1 << 18],
        ),
        UnsupportedError,
        "antialiasing to 2 elements",
    ),
    "scales below 0": (
        model([helper.make_node("Resize", ["x", "", "s"], ["y"])], [tensor("s", -np.ones(4, np.float32))]),
        FormatError,
        "scales",
    ),
    "a gigantic constant": (
        model([node("ConstantOfShape", "s", "c"), node("Add", "x c")], [tensor("s", np.array([1 << 30]))]),
        FormatError,
        "a constant of 1073741824 elements",
    ),
    "a gigantic range": (
        model(
            [node("Range", "a b c", "r"), node("Cast", "r", "f", to=1), node("Add", "x f")],
            [tensor(n, np.array(v)) for n, v in zip("abc", (0, 1 << 40, 1), strict=True)],
        ),
        FormatError,
        "a constant of",
    ),
    "an endless range": (
        model(
            [node("Range", "a b c", "r"), node("Cast", "r", "f", to=1), node("Add", "x f")],
            [tensor(n, np.array(v)) for n, v in zip("abc", (0, 1, 0), strict=True)],
        ),
        FormatError,
        "operands that do not fit",
    ),
    "doubling": (
        model(
            [node("Concat", " ".join([f"c{i}"] * 64), f"c{i + 1}", axis=0) for i in range(9)]
            + [node("Add", "x c9")],
            [tensor("c0", np.ones(4, np.float32))],
        ),
        FormatError,
        "a constant of",
    ),
    "growing shapes": (
        model([node("Reshape", "x s")], [tensor("s", np.array([1 << 40, -1]))]),
        FormatError,
        "shape",
    ),
    "a bad reshape": (
        model([node("Reshape", "x s")], [tensor("s", np.array([-1, 7]))]),
        GraphError,
        "elements",
    ),
    "a shape divided by 0": (
        model(
            [node("Shape", "x", "s"), node("Div", "s zero", "t"), node("Reshape", "x t")],
            [tensor("zero", np.array([0]))],
        ),
        FormatError,
        "divided by 0",
    ),
    "an axis outside": (model([node("Softmax", "x", axis=4)]), FormatError, "axis 4"),
    "no folder": (external(location="/etc/passwd"), FormatError, "as location"),
    "the folder above": (external(location="../w.bin"), FormatError, "as location"),
    "no location": (external(offset="0"), FormatError, "as location"),
    "no file": (external(location="none.bin"), FormatError, "no such file"),
    "the folder itself": (external(location="."), FormatError, "as location"),
    "a link out of the folder": (external(location="link/data.bin"), FormatError, "as location"),
    "an offset behind the end": (external(location="data.bin", offset="64"), FormatError, "bytes left"),
    "a negative offset": (external(location="data.bin", offset="-4"), FormatError, "offset and length"),
    "another length": (external(location="data.bin", length="1000000000000"), FormatError, "bytes of"),
}
BAD["indices that crash onnx"] = (
    model([node("GatherND", "x i", batch_dims=-7)], [tensor("i", np.array([[0], [1]]))]),
    UnsupportedError,
    "onnx's shape inference of it ends its process",
)
BAD["an exponent that does not fit"] = (
    model([node("Pow", "x e")], [tensor("e", np.ones((2, 3), np.float32))]),
    GraphError,
    "3",
)
BAD["an operator of later opsets"] = (
    model([node("LayerNormalization", "x v")], [V], opset=13),
    UnsupportedError,
    "LayerNormalization in opset 13: its shape is not known",
)
BAD["a name with a line end"] = (model([node("Relu", "x", "y")]), FormatError, "no control character")
BAD["a name with a line end"][0].graph.node[0].output[0] = "y\n"


OPAQUE = (
    "operators without a rule",
    "training",
    "drops at random",
    "antialiasing over everything",
    "a number of another type",
)
"""What is read, as nodes that refnet cannot compute: a run stops before its first node and says why."""


@pytest.mark.parametrize("what", OPAQUE)
def test_what_cannot_be_computed_is_opaque(what: str, tmp_path: Path) -> None:
    proto, kind, message = BAD[what]
    graph = read(proto, tmp_path)
    shape = graph.inputs["x"].shape
    with pytest.raises(kind, match=f"(?s)net: what is asked for needs values that refnet .*{message}"):
        refnet.run(graph, {"x": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("what", [one for one in BAD if one not in OPAQUE])
def test_what_cannot_be_read_is_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFNET_FOLD_BYTES", "1000000")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "data.bin").write_bytes(bytes(64))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "data.bin").write_bytes(bytes(40))
    (folder / "link").symlink_to(outside)
    proto, kind, message = BAD[what]
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=message) as caught:
            read(proto, folder)
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
    finally:
        tracemalloc.stop()
    assert (
        "net.onnx" in str(caught.value) or "none.bin" in str(caught.value) or "data.bin" in str(caught.value)
    )
    assert len(str(caught.value)) < 2000


def test_external_data_in_the_folder_is_read(tmp_path: Path) -> None:
    w = whole((2, 2, 1, 1), "w")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.bin").write_bytes(b"1234" + w.tobytes() + b"56")
    proto = external(location="sub/data.bin", offset="4", length="16", checksum="none")
    assert same_bits(read(proto, tmp_path).weights["w"], w)


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("raw_data", [True, False])
def test_every_float_is_read_from_either_field(kind: str, raw_data: bool, tmp_path: Path) -> None:
    number = TensorProto.DataType.Value(kind)
    numbers = [0.5, -2.0, 3.0, 1.5]
    array = np.array(numbers).astype(helper.tensor_dtype_to_np_dtype(number))
    made = helper.make_tensor(
        "w", number, [2, 2, 1, 1], array.tobytes() if raw_data else numbers, raw=raw_data
    )
    graph = read(model([node("Cast", "w", "f", to=1), node("Conv", "x f")], [made]), tmp_path)
    assert same_bits(graph.weights["f"].ravel(), np.float32(numbers))


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", 100)
    with pytest.raises(FormatError, match=r"at most 100 in an \.onnx"):
        read(bytes(101), tmp_path)


def sample() -> bytes:
    """A model with most of what a file can have."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1], kernel_shape=[1, 1]),
        node("BatchNormalization", "c b b b v", "n", epsilon=1e-3),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "m", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Shape", "m", "s"),
        node("Gather", "s zero", "batch", axis=0),
        node("Concat", "batch minus", "target", axis=0),
        node("Reshape", "m target", "f"),
        node("Gemm", "f k", "g", transB=1),
        node("Softmax", "g", axis=-1),
    ]
    constants = [
        W,
        tensor("b", whole((2,), "b")),
        tensor("v", np.ones(2, np.float32)),
        tensor("zero", np.array([0])),
        tensor("minus", np.array([-1])),
        tensor("k", whole((3, 18), "k")),
    ]
    proto = model(nodes, constants)
    return bytes(proto.SerializeToString())


def test_truncated_and_damaged_files_end_in_an_error_or_a_sound_graph(tmp_path: Path) -> None:
    data = sample()
    sound = read(data, tmp_path)
    assert [type(n.op).__name__ for n in sound.nodes] == [
        "Conv", "BatchNorm", "Relu", "MaxPool", "Reshape", "Dense", "Softmax"
    ]  # fmt: skip
    chance = random.Random(5)
    damaged = [data[:cut] for cut in range(0, len(data), 7)]
    for _ in range(1200):
        copy = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(copy))
    refused = 0
    with one_process():
        for each in damaged:
            message = ""
            try:
                graph = read(each, tmp_path)
            except RefnetError as error:
                message = str(error)
            assert len(message) < 5000
            if message:
                refused += 1
                continue
            assert graph.types()
            assert sum(array.nbytes for array in graph.weights.values()) <= 4 * len(data)
    assert refused > 800
