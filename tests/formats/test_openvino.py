"""IR files: what is read of them, and what hostile ones are told."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.core.errors import FormatError, GraphError, RefnetError, UnsupportedError
from refnet.formats.openvino import file as ir_file
from refnet.formats.openvino.reader import read_ir
from refnet.models.converted import usual_pipeline
from refnet.ops import Softmax
from tests.helpers.ir_build import Ir
from tests.helpers.ir_models import CASES, data_of, write
from tests.helpers.ir_write import write_ir


def small(half: bool = False) -> Ir:
    """x -> Convolution -> Add -> ReLU."""
    net = Ir(half=half)
    x = net.parameter(("?", 2, 4, 4))
    made = net.layer("Convolution", [x, net.weight(np.full((3, 2, 1, 1), 1 / 3))], names=["conv"],
                     strides=(1, 1), dilations=(1, 1), pads_begin=(0, 0), pads_end=(0, 0))  # fmt: skip
    made = net.layer("Add", [made, net.weight(np.ones((1, 3, 1, 1)))], name="sum")
    net.result(net.layer("ReLU", [made], names=["relu,a\\,b"]))
    return net


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["octave-se-resnet-digits", "resnest-digits"])
def test_version_10_with_the_oldest_opsets(name: str, half: bool, tmp_path: Path) -> None:
    """The same numbers as the network's own graph; float16 weights are those numbers, rounded."""
    graph = refnet.load(name)
    own = graph.with_weights({n: a.astype(np.float16).astype(np.float32) for n, a in graph.weights.items()})
    data = {"data": np.random.default_rng(1).normal(size=(2, 1, 32, 32)).astype(np.float32)}
    found = refnet.run(refnet.load(write_ir(graph, tmp_path, half=half)), data)
    wanted = refnet.run(own if half else graph, data)
    assert np.abs(found["prob"] - wanted["prob"]).max() < 1e-5
    assert (found["prob"].argmax(1) == wanted["prob"].argmax(1)).all()


def test_names_batches_and_weights(tmp_path: Path) -> None:
    graph = read_ir(small().save(tmp_path))
    assert [node.name for node in graph.nodes] == ["conv", "sum", "relu"]
    data = {"x": np.ones((3, 2, 4, 4), np.float32)}
    assert refnet.run(graph, data)["relu"].shape == (3, 3, 4, 4)
    halves = read_ir(small(half=True).save(tmp_path))
    (weight,) = [a for a in halves.weights.values() if a.size == 6]
    assert weight.dtype == np.float32
    assert (weight == np.float32(np.float16(1 / 3))).all()


def test_every_form_is_read(tmp_path: Path) -> None:
    for case in CASES:
        for opset in case.opsets[-1:]:
            graph = read_ir(write(case, opset, tmp_path))
            assert set(graph.types()) >= set(data_of(case)), case


def partly_unknown(batch: object = 1, side: object = 4) -> Ir:
    """x -> Tan -> Abs of another version -> MaxPool, whose places go through Convert -> Multiply of both."""
    net = Ir()
    n, h = (-1 if size == "?" else int(str(size)) for size in (batch, side))
    dims = (n, 2, h, h)
    x = net.layer("Tan", [net.parameter((batch, 2, side, side))], name="one", names=["one"], dims=[dims])
    x = net.layer("Relu6", [x], name="two", opset=9, names=["two"], dims=[dims])
    x = net.layer(
        "MaxPool", [x], name="pool", opset=8, names=["pool", "places"], dims=[dims, dims], kernel=(1, 1),
        strides=(1, 1), pads_begin=(0, 0), pads_end=(0, 0), rounding_type="floor",
    )  # fmt: skip
    places = net.layer(
        "Convert", [(x[0], x[1] + 1)], name="float", names=["float"], dims=[dims], destination_type="f32"
    )
    made = net.layer("Multiply", [x, places], names=["product"], dims=[dims], auto_broadcast="numpy")
    cubic = net.layer(
        "Interpolate", [made, net.whole(h, h), net.whole(2, 3)], name="cubic", opset=11, names=["cubic"],
        dims=[dims], mode="cubic", shape_calculation_mode="sizes",
    )  # fmt: skip
    net.result(net.layer("ReLU", [cubic], names=["y"]))
    return net


def test_unknown_layers_are_opaque_and_refused_all_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = read_ir(partly_unknown().save(tmp_path))
    whys = {node.name: node.op.opaque for node in graph.nodes if node.op.opaque}
    assert whys == {
        "one": "Tan (opset1): refnet has no such operator",
        "two": "Relu6 (opset9): refnet has no such operator",
        "float": "Convert (opset1): it reads 'places', which is left out",
        "cubic": "Interpolate (opset11): mode 'cubic'; refnet has nearest",
    }
    assert "left out what is no float32 value of a known shape: 'places' (MaxPool" in caplog.text
    assert graph.by_name["float"].data == ("two",)  # what the places were computed from
    data = {"x": np.ones((1, 2, 4, 4), np.float32)}
    with pytest.raises(
        UnsupportedError, match=r"(?s)Tan .*: one .*\n.*Relu6 .*: two .*\n.*: float .*\n.*: cubic .*"
    ):
        refnet.run(graph, data)


@pytest.mark.parametrize(("pad", "why"), [((0, 2), "lies outside"), ((2, 0), "smaller than the kernel")])
def test_a_window_of_padding_alone_is_opaque(pad: tuple[int, int], why: str, tmp_path: Path) -> None:
    """OpenVINO computes it; a kernel that does not fit is refused by both."""

    def pooled(side: int, kernel: int) -> Path:
        net = Ir()
        made = net.layer(
            "MaxPool", [net.parameter((1, 2, side, side))], names=["y"], dims=[(1, 2, 4, 4)],
            kernel=(kernel, 1), strides=(2, 1), pads_begin=(pad[0], 0), pads_end=(pad[1], 0),
            rounding_type="floor",
        )  # fmt: skip
        net.result(made)
        return net.save(tmp_path)

    (node,) = read_ir(pooled(4, 2)).nodes
    assert why in str(node.op.opaque)
    with pytest.raises(GraphError, match="does not fit"):
        read_ir(pooled(2, 6))


@pytest.mark.parametrize("opset", [1, 8])
def test_softmax_without_an_axis(opset: int, tmp_path: Path) -> None:
    """OpenVINO and its specification agree on the default in opset 8 only."""
    net = Ir()
    net.result(net.layer("SoftMax", [net.parameter((1, 2, 3))], opset=opset, names=["y"], dims=[(1, 2, 3)]))
    (node,) = read_ir(net.save(tmp_path)).nodes
    assert ("no axis" in str(node.op.opaque)) is (opset == 1)
    assert opset == 1 or node.op == Softmax(1)


def test_verify_passes_opaque_values_on(tmp_path: Path) -> None:
    """A defect behind them is found, and nothing else is said to be one."""
    graph = read_ir(partly_unknown().save(tmp_path))
    x = np.random.default_rng(3).normal(size=(1, 2, 4, 4)).astype(np.float32)
    product = x * np.float32(2)
    values = {"x": x, "one": x, "two": x, "pool": x, "float": np.full_like(x, 2), "product": product}
    values |= {"cubic": product, "y": np.maximum(product, 0)}
    counts = refnet.verify(values, graph).counts
    assert (counts["equal"], counts["unjudged"], counts["defect"]) == (3, 4, 0)
    values["product"] = product + 1
    assert refnet.verify(values, graph).first_defect == "product"


@pytest.mark.parametrize("image", [None, (4, 4), (5, 5)])
def test_an_opaque_shape_is_the_files(image: tuple[int, int] | None, tmp_path: Path) -> None:
    """Of every batch where that is open; of no other size of the image than the file's."""
    path = partly_unknown("?").save(tmp_path)
    if image == (5, 5):
        with pytest.raises(UnsupportedError, match=r"needs what refnet cannot have: 'one' \(Tan .*not known"):
            read_ir(path, image)
        return
    graph = read_ir(path, image)
    assert graph.types({"x": refnet.TensorType((7, 2, 4, 4))})["cubic"].shape == (7, 2, 4, 4)


def test_an_opaque_shape_that_the_file_leaves_open(tmp_path: Path) -> None:
    path = partly_unknown(1, "?").save(tmp_path)
    with pytest.raises(UnsupportedError, match="its shape is not known"):
        read_ir(path, (4, 4))


@pytest.mark.parametrize(
    ("means", "pipeline"),
    [
        ((104, 117, 124), "octave-raw-bgr"),
        ((124, 117, 104), "octave-raw-rgb"),
        ((103.53, 116.28, 123.675), "resnest-raw-bgr"),
        ((1, 2, 3), None),
    ],
)
@pytest.mark.parametrize("half", [False, True])
def test_the_pipeline_is_told_from_the_means(
    means: tuple[float, ...], pipeline: str | None, half: bool, tmp_path: Path
) -> None:
    net = Ir(half=half)
    constant = net.weight(np.array(means).reshape(1, 3, 1, 1))
    x = net.layer("Subtract", [net.parameter((1, 3, 8, 8)), constant], marks=["preprocessing"])
    net.result(net.layer("ReLU", [x]))
    assert usual_pipeline(net.save(tmp_path), None) == pipeline


def edited(old: str, new: str) -> str:
    text = small().xml
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize("softmax", [False, True])
def test_an_output_called_prob_that_holds_logits(
    softmax: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the converted ResNeSt has it: said to the user, and the softmax is put on top."""
    net = Ir()
    weight = net.const(np.eye(3, 4, dtype=np.float32))
    made = net.layer("MatMul", [net.parameter((1, 4)), weight], names=[None if softmax else "prob"],
                     transpose_a=False, transpose_b=True)  # fmt: skip
    net.result(net.layer("SoftMax", [made], names=["prob"], axis=1) if softmax else made)
    graph = read_ir(net.save(tmp_path))
    said = "net.xml: its output 'prob' holds logits (no SoftMax before the Result)"
    assert (said in caplog.text) is not softmax
    assert graph.outputs == (
        {"prob": "prob"} if softmax else {"logits": "prob", "prob": graph.nodes[-1].name}
    )
    found = refnet.run(graph, {"x": np.float32([[3, 1, 2, 0]])})["prob"]
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert found.argmax() == 0


FIRST_EDGE = '<edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>'
CONST_PORT = "<dim>3</dim><dim>2</dim><dim>1</dim><dim>1</dim></port></output>"
DEEP = "<net version='11'>" + "<a>" * 100
BAD: dict[str, tuple[str, str]] = {
    "a DTD": ("<!DOCTYPE net [<!ENTITY a 'b'>]>" + small().xml.partition("\n")[2], "a document type"),
    "an external DTD": ("<!DOCTYPE net SYSTEM 'file:///etc/passwd'><net/>", "a document type"),
    "empty": ("", r"net.xml: at byte 0: found no XML \(line 1: no element found\)"),
    "no XML": ("\x00\x01", "no XML"),
    "cut": (small().xml[:700], "no XML"),
    "another document": ("<?xml version='1.0'?><Error/>", "the element 'Error'"),
    "nested": (DEEP, "element 'a'"),
    "beyond the .bin": (edited('offset="0"', 'offset="4096"'), "bytes left, expected 4096"),
    "negative offset": (edited('offset="0"', 'offset="-4"'), "offset and size"),
    "another size": (edited('size="24"', 'size="20"'), "size '?20"),
    "huge shape": (edited('shape="3, 2, 1, 1"', 'shape="65536, 65536, 1, 1"'), "4294967296 elements"),
    "two of an id": (edited('layer id="2"', 'layer id="1"'), "a second layer with the id 1"),
    "dangling": (edited('from-layer="0"', 'from-layer="99"'), "an edge from port 0 of layer 99"),
    "no edge": (edited(FIRST_EDGE, ""), "no edge to port 0"),
    "a cycle": (edited('from-layer="0" from-port="0"', 'from-layer="5" from-port="1"'), "a circle of edges"),
    "a constant's second output": (
        edited(CONST_PORT, CONST_PORT.replace("</output>", '<port id="7"/></output>')).replace(
            'from-layer="1" from-port="0"', 'from-layer="1" from-port="7"'
        ),
        "from port 7 of layer 1 .*Const to Convolution, expected Parameter and Const with one output",
    ),
    "a Result that is read": (
        edited('type="ReLU"', 'type="Result"'),
        "from port 1 of layer 5 .*Result to Result, expected .* Result with no output",
    ),
    "one long element": ("<net version='11' a='" + "b" * (2 << 20), "bytes without a new element"),
    "a name twice": (edited('names="conv"', 'names="x"'), "the value's name 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_hostile_files_are_refused_by_name(what: str, tmp_path: Path) -> None:
    text, expected = BAD[what]
    path = small().save(tmp_path)
    path.write_text(text)
    with pytest.raises(FormatError, match=expected) as found:
        read_ir(path)
    assert "net." in str(found.value)
    assert found.value.offset is not None


def test_a_folded_layer_with_two_outputs(tmp_path: Path) -> None:
    net = Ir()
    x, one = net.parameter((1, 2)), net.const(np.ones((1, 2), np.float32))
    two = net.layer("Add", [one, one], names=[None, None], auto_broadcast="numpy")
    net.result(net.layer("Add", [x, two], auto_broadcast="numpy"))
    with pytest.raises(FormatError, match=r"2 outputs in Add 'layer2' .*, expected 1"):
        read_ir(net.save(tmp_path))


def test_unknown_element_type_and_version(tmp_path: Path) -> None:
    path = small().save(tmp_path)
    path.write_text(edited('element_type="f32" shape="3', 'element_type="u4" shape="3'))
    with pytest.raises(UnsupportedError, match=r"Const 'layer1' \(layer 1, line .*element_type 'u4'"):
        read_ir(path)
    path.write_text(edited('version="11"', 'version="7"'))
    with pytest.raises(UnsupportedError, match="version 7 of the IR"):
        read_ir(path)


def test_a_missing_and_a_cut_bin(tmp_path: Path) -> None:
    path = small().save(tmp_path)
    path.with_suffix(".bin").write_bytes(b"\0" * 20)
    with pytest.raises(FormatError, match=r"net\.bin: at byte 0: found 20 bytes left, expected 24 for Const"):
        read_ir(path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(
        FormatError, match=r"net\.bin: found no such file, expected the constants of net\.xml"
    ):
        read_ir(path)


def test_a_million_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at the first layer too many, before the rest is read."""
    monkeypatch.setattr(ir_file, "MOST_LAYERS", 1000)
    layers = "".join(f'<layer id="{n}" name="n" type="ReLU" version="opset1"/>' for n in range(20000))
    path = tmp_path / "net.xml"
    path.write_text(f'<net version="11"><layers>{layers}</layers></net>')
    with pytest.raises(FormatError, match="one more layer at line 1, expected at most 1000"):
        read_ir(path)


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Read damaged files; each must be read, or refused with a RefnetError."""
    rng, came = random.Random(seed), Counter[str]()
    net = small(half=True)
    path, sound = net.save(folder), net.xml
    numbers = ["-1", "0", "1", "4294967296", "99999999999999999999", "nan", "?", ""]
    for _ in range(count):
        text = sound
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(len(text))
            end = min(len(text), at + rng.choice((1, 8, 100)))
            made = rng.choice((text[at:end] * 2, "", rng.choice(numbers), rng.choice("<>\"'&/=,"), text[:40]))
            text = text[:at] + made + text[end:]
        path.write_text(text)
        path.with_suffix(".bin").write_bytes(bytes(net.blob)[: rng.choice((len(net.blob),) * 4 + (7,))])
        try:
            read_ir(path)
            came["read"] += 1
        except RefnetError:
            came["refused"] += 1
    return came


def test_a_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    came = attack(400, 5, tmp_path)
    assert sum(came.values()) == 400
    assert came["read"] > 5
    assert came["refused"] > 200
