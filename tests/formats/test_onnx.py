"""ONNX files read: every form of every operator, names, folding, any batch; hostile files end in errors."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, checker
from onnx.reference import ReferenceEvaluator

import refnet
from refnet import ops
from refnet.cli import main
from refnet.core.errors import InputError, UnsupportedError, WeightsError
from refnet.formats.npy import open_npy
from refnet.formats.onnx.bodies import DEFINED
from refnet.formats.onnx.export import graph_to_onnx, write_onnx
from refnet.formats.onnx.integers import RULES as TYPED
from refnet.formats.onnx.ops import RULES
from refnet.formats.onnx.reader import read_onnx
from refnet.kernels.engine import Fast
from refnet.models.loading import structure
from refnet.models.weights import shipped_folder
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import FAST
from tests.helpers.onnx_build import model, node, read, tensor, value
from tests.helpers.onnx_models import CASES, data_of, judge, versions, whole, write

DIGITS = ("octave-se-resnet-digits", "resnest-digits")


def test_every_rule_has_a_case() -> None:
    beyond = {*TYPED, "IsNaN", "SequenceAt"}  # those: test_onnx_integers.py, _whole.py, _sequences.py
    assert {case.op for case in CASES} == set(RULES) - beyond | {"Cast", "CastLike"} | DEFINED
    assert all(case.engines for case in CASES)


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_every_form_means_what_onnx_means(op: str, tmp_path: Path) -> None:
    """In onnx's reference evaluator, for every version of the operator."""
    compared = 0
    for case in CASES:
        if case.op != op or "reference" not in case.engines:
            continue
        for opset in versions(case):
            path, data = write(case, opset, tmp_path), data_of(case)
            graph = read_onnx(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = ReferenceEvaluator(str(path)).run(None, data)
            refine_count = judge(graph, data, {f"y{k}": value for k, value in enumerate(found)})
            assert refine_count.compared == case.outputs, case
            compared += 1
    assert compared or op in ("Upsample", "GlobalLpPool")  # which the reference lacks: ONNX Runtime does


@pytest.mark.parametrize("name", DIGITS)
def test_refnets_own_export_reads_back(name: str, tmp_path: Path) -> None:
    """Every node of the original, on what the read graph computed: the same bits.

    A weighted sum is one FMA chain in refnet and products and a sum in ONNX: there the bound decides.
    """
    graph = refnet.load(name)
    write_onnx(tmp_path / "net.onnx", graph)
    back = read_onnx(tmp_path / "net.onnx")
    assert list(back.outputs) == list(graph.outputs)
    assert all(same_bits(array, graph.weights[n]) for n, array in back.weights.items() if n in graph.weights)
    compare(graph, back, {"data": floats((2, *graph.inputs["data"].shape[1:]), name)})


def compare(graph: refnet.Graph, back: refnet.Graph, data: dict[str, np.ndarray]) -> None:
    values = data | {made.name: array for made, array in refnet.steps(back, data)}
    for own in graph.nodes:
        arguments = [values[n] for n in own.data] + [graph.weights[n] for n in own.weights]
        if isinstance(own.op, ops.WeightedSum):
            interval = own.op.bound(*map(ops.Interval.exactly, arguments), engine=FAST)
            assert (np.abs(values[own.name] - interval.center) <= interval.radius).all(), own
        else:
            assert same_bits(values[own.name], own.op.run(*arguments, engine=Fast(2))), own


def test_shapes_that_are_computed_are_folded_for_any_batch(tmp_path: Path) -> None:
    """x.view(n, 2, -1, 4).transpose(1, 2).reshape(n, -1), as exporters write it."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Constant", "", "zero", value_int=0),
        node("Gather", "shape zero", "batch", axis=0),
        node("Unsqueeze", "batch axes", "batch1"),
        node("Concat", "batch1 rest", "target", axis=0),
        node("Reshape", "x target", "view"),
        node("Transpose", "view", "turned", perm=[0, 2, 1, 3]),
        node("Cast", "batch1", "float", to=TensorProto.FLOAT),
        node("Mul", "float one", "float1"),
        node("Cast", "float1", "back", to=TensorProto.INT64),
        node("Concat", "back minus", "flat", axis=0),
        node("Reshape", "turned flat"),
    ]
    constants = [
        tensor("axes", np.array([0])),
        tensor("rest", np.array([2, -1, 4])),
        tensor("minus", np.array([-1])),
        tensor("one", np.float32([1])),
    ]
    graph = read(model(nodes, constants), tmp_path)
    assert [n.op for n in graph.nodes[:3]] == [
        ops.Reshape((0, 2, 4, 4)),
        ops.Transpose((0, 2, 1, 3)),
        ops.Reshape((0, 32)),
    ]
    for batch in (1, 3, 5):
        x = whole((batch, 2, 4, 4), batch)
        found = refnet.run(graph, {"x": x}, values=["y"])["y"]
        assert same_bits(found, x.reshape(batch, 2, 4, 4).swapaxes(1, 2).reshape(batch, -1).copy())


def test_what_depends_on_the_batch_otherwise_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "n", end=1),
        node("Slice", "x zero n axis"),
    ]
    constants = [tensor("zero", np.array([0])), tensor("axis", np.array([1]))]
    with pytest.raises(UnsupportedError, match="'y' depends on the batch"):
        read(model(nodes, constants), tmp_path)
    nodes = [node("Reshape", "x shape", "r"), node("Gemm", "r w")]
    constants = [tensor("shape", np.array([1, -1])), tensor("w", np.ones((32, 3), np.float32))]
    with pytest.raises(UnsupportedError, match="with a batch of 2: give the input a fixed batch of 1"):
        read(model(nodes, constants), tmp_path)
    assert read(model(nodes, constants, shape=[1, 2, 4, 4]), tmp_path).inputs["x"].shape[0] == 1


def test_weights_may_be_computed_of_constants(tmp_path: Path) -> None:
    nodes = [
        node("Constant", "", "half", value=tensor("", np.float32(0.5))),
        node("Mul", "w half", "scaled"),
        node("Transpose", "scaled", "turned", perm=[1, 0, 2, 3]),
        node("Cast", "b16", "b", to=TensorProto.FLOAT),
        node("Conv", "x turned b"),
    ]
    w, b = whole((2, 3, 1, 1), "w"), whole((3,), "b").astype(np.float16)
    graph = read(model(nodes, [tensor("w", w), tensor("b16", b)]), tmp_path)
    assert set(graph.weights) == {"turned", "b"}
    assert same_bits(graph.weights["turned"], w.swapaxes(0, 1).copy() / 2)
    assert same_bits(graph.weights["b"], b.astype(np.float32))


def test_names_are_kept_and_constants_are_weights(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w b", "/a/conv"),
        node("Add", "/a/conv b4", "sum"),
        node("Split", "sum", "p q", axis=1, num_outputs=2),
        node("Concat", "q b4", "joined", axis=1),
        node("Sub", "one joined"),
    ]
    constants = [
        tensor("w", whole((2, 2, 1, 1), "w")),
        tensor("b", whole((2,), "b")),
        tensor("b4", whole((1, 2, 4, 4), "b4")),
        tensor("one", np.float32(1)),
        tensor("unused", np.float32([1, 2])),
    ]
    graph = read(model(nodes, constants, shape=[1, 2, 4, 4]), tmp_path)
    assert [n.name for n in graph.nodes] == ["b4", "/a/conv", "sum", "q", "joined", "y"]  # p is never read
    assert set(graph.weights) == {"w", "b", "b4/value", "one"}
    assert graph.by_name["sum"].inputs == ("/a/conv", "b4/value")
    assert graph.by_name["joined"].inputs == ("q", "b4")
    assert graph.by_name["y"].op == ops.Sub(((),), True)


def test_the_output_is_named_as_in_other_files(tmp_path: Path) -> None:
    flat = node("Flatten", "x", "f")
    graph = read(model([flat], outputs=["f"]), tmp_path)
    assert (graph.outputs, graph.nodes[-1].op) == ({"prob": "prob", "logits": "f"}, ops.Softmax(1))
    assert read(model([flat, node("Softmax", "f")]), tmp_path).outputs == {"prob": "y"}
    assert read(model([flat, node("Softmax", "f")], outputs=["f", "y"]), tmp_path).outputs == {
        "prob": "y",
        "logits": "f",
    }
    assert read(model([node("Relu", "x")]), tmp_path).outputs == {"y": "y"}


def test_epsilon_is_the_decimal_that_was_meant(tmp_path: Path) -> None:
    constants = [tensor(name, np.ones(2, np.float32)) for name in "gbmv"]
    graph = read(model([node("BatchNormalization", "x g b m v", epsilon=1e-4)], constants), tmp_path)
    assert graph.by_name["y"].op == ops.BatchNorm(1e-4)


def test_sizes_that_the_file_leaves_open(tmp_path: Path) -> None:
    proto = model([node("Relu", "x")], shape=["n", 2, "h", None])
    with pytest.raises(InputError, match=r"input 'x' is \[n, 2, h, None\]: of what size\?"):
        read(proto, tmp_path)
    assert read(proto, tmp_path, image=(5, 6)).inputs["x"].shape == (1, 2, 5, 6)
    with pytest.raises(InputError, match=r"of what size\? shapes \(--shape x=1,C\) gives it"):
        read(model([node("Relu", "x")], shape=["n", "c"]), tmp_path)
    two = [value("x", [1, 2, 4, 4]), value("z", [1, 2, 4, 4])]
    with pytest.raises(InputError, match="the file has 2"):
        read(model([node("Add", "x z")], inputs=two), tmp_path, image=(5, 6))


def test_loading_and_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = refnet.load("resnest-digits")
    path = tmp_path / "resnest-digits.onnx"
    write_onnx(path, graph)
    assert len(refnet.load(path).weights) >= len(graph.weights)
    assert structure(path).weights == {}
    assert refnet.load(path, weights="seed:1").weights["conv1.0.weight"].std() > 0
    image = str(shipped_folder() / "digits" / "1770-label-3.png")
    assert main(["run", str(path), image, "--json"]) == 0
    assert '"3"' in capsys.readouterr().out
    assert main(["summary", str(path), "--totals"]) == 0
    np.save(tmp_path / "x.npy", floats((1, 1, 32, 32), "x"))
    assert (
        main(["golden", str(path), "--input", str(tmp_path / "x.npy"), "-o", str(tmp_path / "g.json")]) == 0
    )
    assert main(["golden", str(path), "--check", str(tmp_path / "g.json")]) in (0, 2)
    capsys.readouterr()
    other = tmp_path / "octave-se-resnet-50-0.125.onnx"
    other.write_bytes(path.read_bytes())
    with pytest.raises(WeightsError, match=r"is not octave-se-resnet-50-0\.125: its output prob is"):
        refnet.load(other)


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    code = "import sys; sys.modules['onnx'] = None; from refnet.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "summary", str(tmp_path / "a.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'reading .onnx needs the package onnx: pip install "refnet[onnx]"' in done.stderr


def test_a_value_may_be_a_single_number(tmp_path: Path) -> None:
    """Read, run, exported with its shape of no dimension, captured and judged."""
    nodes = [
        node("Mul", "x x", "square"),
        node("ReduceMean", "square", "mean", keepdims=0),
        node("Sub", "x mean", "less"),
        node("ReduceMax", "less", "top", keepdims=0),
    ]
    graph = read(model(nodes, opset=17, shape=[2, 3, 4], outputs=["less", "top"]), tmp_path)
    x = floats((2, 3, 4), "numbers")
    values = refnet.run(graph, {"x": x}, values=["square", "mean", "less", "top"])
    assert values["top"].shape == ()
    assert same_bits(values["top"], (x - values["mean"]).max())
    exported = graph_to_onnx(graph)
    checker.check_model(exported, full_check=True)
    np.save(tmp_path / "top.npy", values["top"])
    assert same_bits(open_npy(tmp_path / "top.npy").read(), values["top"])
    found = refnet.verify(values, graph, inputs={"x": x})
    assert (found.counts["equal"], found.counts["replayed"], found.unmatched) == (3, 1, ())


def test_further_outputs_of_a_layer_norm_are_named(tmp_path: Path) -> None:
    constants = [tensor("g", whole((4,), "g")), tensor("b", whole((4,), "b"))]
    proto = model(
        [node("LayerNormalization", "x g b", "y m s")], constants, opset=17, outputs=["y", "m", "s"]
    )
    graph = read(proto, tmp_path)
    assert graph.by_name["y"].op == ops.LayerNorm(1e-5, 3, True, ((4,), (4,)))
    assert graph.by_name["m"].op == ops.ReduceMean((3,))
    assert graph.by_name["s"].op.opaque == "LayerNormalization: refnet does not make this output"


def test_statistics_of_another_type_and_other_responses_cost_their_own_verdict(tmp_path: Path) -> None:
    constants = [tensor("g", whole((4,), "g"))]
    for one, why in (
        (node("LayerNormalization", "x g", stash_type=10), "stash_type 10"),
        (node("LRN", "x", size=3, bias=-1.0), "bias -1.0"),
        (node("LRN", "x", size=3, beta=100.0), "beta 100.0"),
    ):
        graph = read(model([one], constants, opset=17), tmp_path)
        assert why in graph.by_name["y"].op.opaque
