"""Order-free runs: the inputs are exact in any order, plain and golden agree, and what is wrong is named."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from refnet.cli import main
from refnet.core.errors import GraphError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.core.rounding import EXACT_INTEGER
from refnet.formats.manifest import file_name
from refnet.formats.mxnet.export import graph_to_symbol
from refnet.formats.onnx.alone import NodesAlone
from refnet.frameworks.capture import orderfree
from refnet.frameworks.capture.orderfree import driven, reductions
from refnet.frameworks.capture.request import Request
from refnet.frameworks.torch_ops import torch_function
from refnet.models.loading import structure
from refnet.ops import AvgPool, Conv, Dense, GlobalAvgPool, Relu
from refnet.verification.capture import open_capture
from refnet.verification.order_free import arrays
from tests.helpers import engines
from tests.helpers.bits import floats

PINNED = "c602d2ab6251c93cf880f0e1ef54a9ca5c2da572b7b94e18ed820f8e0bfedb3f"
"""sha256 of one node's arrays, as they were when the scheme was made."""
NETWORKS = ("resnest-50-pytorch", "octave-se-resnet-50-0.125", "resnet-50-baseline")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_largest_possible_partial_sum_is_exact(name):
    """For every reduction, from the arrays themselves: the sum of all magnitudes is below 2^24."""
    nodes = reductions(structure(name))
    assert {type(node.op) for node, _ in nodes.values()} >= {Conv, GlobalAvgPool}
    for node_name, (node, types) in nodes.items():
        x, *rest = arrays(node.op, types, node_name)
        assert (x == np.rint(x)).all()
        assert (x != 0).all()
        if rest:
            weight, bias = rest[0], rest[1] if len(rest) > 1 else np.zeros(1, np.float32)
            terms = math.prod(weight.shape[1:])
            assert all((array == np.rint(array)).all() and (array != 0).all() for array in rest)
            largest = terms * int(abs(x).max()) * int(abs(weight).max()) + int(abs(bias).max())
        else:
            sides = node.op.kernel if isinstance(node.op, AvgPool) else x.shape[2:]
            largest = math.prod(sides) * int(abs(x).max())
            divisors = {a * b for a in range(1, sides[0] + 1) for b in range(1, sides[1] + 1)}
            for divisor in divisors if isinstance(node.op, AvgPool) else {math.prod(sides)}:
                assert (np.fmod(x, np.float32(divisor)) == 0).all()
        assert largest < EXACT_INTEGER, node_name


def test_every_order_gives_the_exact_sum():
    op, types = Dense(3, True), (TensorType((2, 4608)), TensorType((3, 4608)), TensorType((3,)))
    x, w, b = arrays(op, types, "fc")
    whole = [[[int(v) for v in row] for row in array] for array in (x, w, b[None])]
    exact = [
        [
            sum(p * q for p, q in zip(row, unit, strict=True)) + c
            for unit, c in zip(whole[1], *whole[2], strict=True)
        ]
        for row in whole[0]
    ]
    generator = np.random.default_rng(0)
    for _ in range(20):
        order = generator.permutation(4608)
        products = (x[:, None, order] * w[None, :, order]).astype(np.float32)
        chain = np.cumsum(products, -1, dtype=np.float32)[..., -1] + b
        blocks = b + products.reshape(2, 3, 36, 128).sum(-1, dtype=np.float32).sum(-1, dtype=np.float32)
        for found in (chain, blocks):
            assert [[int(v) for v in row] for row in found] == exact
    assert [[int(v) for v in row] for row in op.golden(x, w, b, exact=engines.EXACT)] == exact


def test_the_numbers_are_the_same_on_every_machine():
    types = (TensorType((1, 4, 5, 5)), TensorType((2, 4, 3, 3)), TensorType((2,)))
    made = arrays(Conv(2, (3, 3), bias=True), types, "conv1")
    raw = b"".join(array.astype("<f4").tobytes() for array in made)
    assert hashlib.sha256(raw).hexdigest() == PINNED
    assert not np.array_equal(arrays(Conv(2, (3, 3), bias=True), types, "conv2")[0], made[0])


def test_what_has_no_exact_inputs_is_refused():
    with pytest.raises(UnsupportedError, match="is no reduction"):
        arrays(Relu(), (TensorType((1, 2)),), "r")
    with pytest.raises(UnsupportedError, match="terms are too many"):
        arrays(Dense(1, False), (TensorType((1, EXACT_INTEGER)), TensorType((1, EXACT_INTEGER))), "fc")
    with pytest.raises(UnsupportedError, match="4096 terms are too many"):
        arrays(GlobalAvgPool(), (TensorType((1, 1, 64, 64)),), "pool")


def test_every_pool_can_be_said_in_every_framework():
    for size, kernel, stride, pad in itertools.product(range(2, 9), (1, 2, 3), (1, 2, 3), (0, 1)):
        types = (TensorType((1, 1, size, size)),)
        for convention in ("valid", "full", "ceil"):
            op = AvgPool((kernel,) * 2, (stride,) * 2, (min(pad, kernel // 2),) * 2, convention)
            try:
                own = op.type(*types)
            except GraphError:
                continue
            function, arguments = torch_function(op, *types)
            assert function == "avg_pool2d"
            said = replace(op, convention="ceil" if arguments["ceil_mode"] else "valid")
            assert said.type(*types) == own
            graph = Graph("pool", {"x": types[0]}, (Node("y", op, ("x",)),), {"y": "y"})
            mxnet = json.loads(graph_to_symbol(graph))["nodes"][1]["attrs"]["pooling_convention"]
            assert mxnet in ("valid", "full")
            assert replace(op, convention=mxnet).type(*types) == own


@pytest.mark.parametrize("arithmetic", ["plain", "golden"])
def test_plain_and_golden_have_the_exact_bits(tmp_path, capsys, arithmetic):
    command = ["capture", "refnet", "resnest-digits", "--order-free", "--arithmetic", arithmetic]
    assert main([*command, "--batch", "2", "--json", "-o", str(tmp_path / "c")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["different"] == []
    assert record["left_out"] == {}
    capture = open_capture(tmp_path / "c")
    assert list(capture.names) == list(reductions(structure("resnest-digits")))
    assert capture.manifest.reference.flags == {"order-free": "0"}
    assert capture.value("fc").shape == (2, 10)


BUGS = {
    "bias dropped": lambda op, x, w, b: (op, x, w, None if b is None else np.zeros_like(b)),
    "padding": lambda op, x, w, b: (op, np.roll(x, 1, -1), w, b),
    "one channel permuted": lambda op, x, w, b: (op, x, None if w is None else w[::-1].copy(), b),
    "a scale": lambda op, x, w, b: (op, x * np.float32(1 + 2**-20), w, b),
    "a divisor": lambda op, x, w, b: (
        replace(op, count_include_pad=not op.count_include_pad) if isinstance(op, AvgPool) else op, x, w, b),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_what_means_another_thing_is_named(tmp_path, capsys, monkeypatch, bug):
    real = orderfree._own

    def own(mode, threads):
        run = real(mode, threads)

        def broken(name, op, given):
            op, *arrays = BUGS[bug](op, *(*given, None, None)[:3])
            return run(name, op, tuple(array for array in arrays if array is not None))

        return broken

    monkeypatch.setattr(orderfree, "_own", own)
    command = ["capture", "refnet", "resnest-digits", "--order-free", "-o", str(tmp_path / "c")]
    assert main(command) == 1
    nodes = reductions(structure("resnest-digits"))
    named = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "no sum in it" in line]
    assert named
    if bug == "bias dropped":
        assert named == [name for name, (node, _) in nodes.items() if len(node.weights) == 2]
    if bug == "a divisor":
        padded = [
            name for name, (node, _) in nodes.items() if isinstance(node.op, AvgPool) and any(node.op.pad)
        ]
        assert named == padded
    if bug == "one channel permuted":
        assert named == [name for name, (node, _) in nodes.items() if node.weights]


def test_it_needs_a_network_that_refnet_knows(tmp_path, capsys):
    assert main(["capture", "folder", ".", "--order-free", "-o", str(tmp_path / "c")]) == 2
    assert "a folder cannot be run" in capsys.readouterr().err


MODULE = ["torch", "nosuchmodule:nothing", "--model", "resnest-50-pytorch", "--state", "w0.pth"]
OWN = "--model resnest-50-pytorch: an order-free run takes a module's own graph"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (MODULE, OWN),
        (["torch", "a.b:c", "--mode", "eager"], "asks torch for single operators"),
        (["mxnet", "resnest-digits", "--weights", "seed:0"], "an order-free run makes its own weights"),
        (["refnet", "resnest-digits", "--input", "seed:1"], "an order-free run makes its own inputs"),
        (["torch", "resnest-digits", "--mode", "eager"], "asks torch for single operators"),
        (["mxnet", "resnest-digits", "--subgraph", "default"], "--subgraph default"),
        (
            ["refnet", "resnest-digits", "--pipeline", "digits"],
            "an order-free run reads no image",
        ),
    ],
)
def test_what_would_not_be_driven_or_looked_at_is_refused_by_name(tmp_path, capsys, arguments, said):
    assert main(["capture", *arguments, "--order-free", "-o", str(tmp_path / "c")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_it_says_what_was_run_and_what_that_leaves(tmp_path, capsys):
    assert main(["capture", "refnet", "resnest-digits", "--order-free", "-o", str(tmp_path / "c")]) == 0
    out = capsys.readouterr().out
    assert "what was run: 37 nodes of resnest-digits in refnet's plain arithmetic, each alone" in out
    assert "each of these has the exact result's bits" in out
    assert "not run, as no inputs make it order-free: BatchNorm (22), " in out
    for framework in ("torch", "mxnet", "onnxruntime"):
        said = driven(Request(framework, "resnest-digits"))
        assert said.startswith(
            f"operators of {framework}, one for each node, at the sizes of resnest-digits:"
        )
        assert said.endswith("no module or weights of yours")


def test_it_is_not_judged_as_a_run_of_the_network(tmp_path, capsys):
    """Each node had an input of its own: by the network's, all that is right would be defects."""
    run = str(tmp_path / "c")
    assert main(["capture", "refnet", "resnest-digits", "--order-free", "-o", run]) == 0
    assert main(["verify", run, "resnest-digits"]) == 2
    assert f"{run} is an order-free run: each node ran alone" in capsys.readouterr().err
    assert main(["explain", "resnest-digits", "fc", "--at", "0,1", "--capture", run]) == 2
    assert "is an order-free run" in capsys.readouterr().err
    model = tmp_path / "m"
    assert main(["export", "resnest-digits", "--to", "onnx", "--order-free", "-o", str(model)]) == 0
    judged = ["verify", str(model / "expected"), str(model / "model.onnx"), "--input", str(model / "inputs")]
    assert main(judged) == 0
    assert main(["verify", str(model / "expected"), "resnest-digits", "--input", "seed:0"]) == 2
    assert "is an order-free run" in capsys.readouterr().err


def old_model(path, opset=11):
    """A user's file of an old opset and file format: a padded pool, a convolution, a dense layer, a norm."""
    tensors = {"w": floats((4, 3, 3, 3), "w"), "b": floats((4,), "b"), "g": floats((2, 64), "g")}
    tensors |= {name: np.ones(4, np.float32) for name in ("scale", "shift", "mean", "var")}
    nodes = [
        helper.make_node("AveragePool", ["x"], ["pool"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["pool", "w", "b"], ["conv"], name="a", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["conv", "scale", "shift", "mean", "var"], ["bn"]),
        helper.make_node("Flatten", ["bn"], ["flat"]),
        helper.make_node("Gemm", ["flat", "g"], ["fc"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("fc", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    onnx.save(made, path)


def test_a_node_of_a_users_file_keeps_its_attributes_and_operator_versions(tmp_path):
    path = tmp_path / "old.onnx"
    old_model(path)
    file = NodesAlone(path)
    assert file.opset == 11
    nodes = reductions(structure(path))
    assert list(nodes) == ["pool", "conv", "fc"]
    for name, (node, types) in nodes.items():
        given = arrays(node.op, types, name)
        model = onnx.load_from_string(file.model(name, given))
        assert [one.version for one in model.opset_import] == [11]
        (made,) = model.graph.node
        (own,) = [one for one in onnx.load(path).graph.node if one.output[0] == name]
        assert made.op_type == own.op_type
        assert list(made.attribute) == list(own.attribute)
        y = ReferenceEvaluator(model).run(None, {"x": given[0]})[0]
        assert y.tobytes() == node.op.golden(*given, exact=engines.EXACT).tobytes(), name
    with pytest.raises(UnsupportedError, match="conv: Conv of 3 arrays, refnet reads it as of 2"):
        file.model("conv", [given[0], given[0]])
    with pytest.raises(UnsupportedError, match="no node of the file makes this value alone"):
        file.model("nothing", [given[0]])


# The model on disk.


def test_the_model_on_disk_is_exact_and_judged_as_a_capture(tmp_path, capsys):
    place = tmp_path / "free"
    command = ["export", "resnest-digits", "--to", "onnx", "--order-free", "-o", str(place)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "37 nodes of resnest-digits, each with an input of its own" in said
    assert "not in it, as no inputs make it order-free: BatchNorm (22), " in said
    assert main(command) == 2
    assert "a new or an empty folder" in capsys.readouterr().err
    evaluator = ReferenceEvaluator(str(place / "model.onnx"))
    given = {name: np.load(place / "inputs" / file_name(name)) for name in evaluator.input_names}
    out = tmp_path / "out"
    out.mkdir()
    for name, value in zip(evaluator.output_names, evaluator.run(None, given), strict=True):
        np.save(out / file_name(name), value.astype(np.float32))
    judged = ["verify", str(out), str(place / "model.onnx"), "--input", str(place / "inputs")]
    assert main(judged) == 0
    assert main(["diff", str(out), str(place / "expected")]) == 0
    path = out / file_name("layer1.0.conv1")
    value = np.load(path)
    value[0, 1, 2, 3] = np.nextafter(value[0, 1, 2, 3], np.float32(np.inf))  # any bit is a defect
    np.save(path, value)
    capsys.readouterr()
    assert main(judged) == 1
    assert "first layer1.0.conv1" in capsys.readouterr().out
    assert main(["diff", str(out), str(place / "expected")]) == 1


def test_the_model_is_written_as_onnx_with_weights_of_its_own(tmp_path, capsys):
    command = ["export", "resnest-digits", "--order-free", "-o", str(tmp_path / "free")]
    assert main([*command, "--to", "onnx", "--weights", "seed:0"]) == 2
    assert "--weights seed:0: an order-free model has weights of its own" in capsys.readouterr().err
    assert main([*command, "--to", "mxnet"]) == 2
    assert "--to mxnet: an order-free model is written as .onnx" in capsys.readouterr().err
    assert not (tmp_path / "free").exists()
