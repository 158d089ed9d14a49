"""Another file of a captured module: its values are found, and what is wrong in it is found at its node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.formats.golden_file import Sources
from refnet.formats.manifest import Origin
from refnet.frameworks.capture.writer import CapturePlan, write
from refnet.loops.engine import REFERENCE
from refnet.models.export import export
from refnet.ops import Add, BatchNorm, Conv, Dense, GlobalAvgPool, Relu, Reshape
from refnet.verification.folded import fold_faults
from tests.helpers.bits import floats

F = np.float32
INPUT = {"x": floats((2, 3, 6, 6), "x")}


def weights_of(nodes: list[Node]) -> dict[str, np.ndarray]:
    shapes = {"w1": (4, 3, 3, 3), "w2": (4, 4, 1, 1), "b2": (4,), "fc": (5, 4), "fcb": (5,)}
    made = {name: floats(shape, name) for name, shape in shapes.items()}
    for k in "12":
        made |= {f"{role}{k}": np.abs(floats((4,), role + k)) + F(0.5) for role in ("g", "v")}
        made |= {f"{role}{k}": floats((4,), role + k) for role in ("be", "m")}
    return {name: made[name] for node in nodes for name in node.weights}


@pytest.fixture(scope="module")
def module() -> Graph:
    """Two convolutions with batch norms, one of them without a bias; relu, a skip, a mean, a dense layer."""
    one = Conv(4, (3, 3), pad=(1, 1))
    nodes = [
        Node("conv2d", one, ("x", "w1")),
        Node("getitem", BatchNorm(1e-5), ("conv2d", "g1", "be1", "m1", "v1")),
        Node("relu", Relu(), ("getitem",)),
        Node("conv2d_1", Conv(4, (1, 1), bias=True), ("relu", "w2", "b2")),
        Node("getitem_3", BatchNorm(1e-5), ("conv2d_1", "g2", "be2", "m2", "v2")),
        Node("add", Add(), ("getitem_3", "relu")),
        Node("mean", GlobalAvgPool(), ("add",)),
        Node("linear", Dense(5, bias=True), ("mean", "fc", "fcb")),
    ]
    kinds = {"x": TensorType((1, 3, 6, 6))}
    return Graph("network", kinds, tuple(nodes), {"linear": "linear"}, weights_of(nodes))


@pytest.fixture(scope="module")
def caps(module, tmp_path_factory) -> Path:
    return captured(module, tmp_path_factory.mktemp("counterparts"))


def captured(module: Graph, folder: Path, inputs: dict[str, np.ndarray] = INPUT) -> Path:
    """A capture of the module, with golden values, as `refnet capture torch` lays it out."""
    export(module, folder / "network", "onnx")
    graph = refnet.load(folder / "network.onnx")
    steps = refnet.steps(graph, inputs, refnet.Golden(1))
    values = [(node.name, value) for node, value in steps if node.name in module.by_name]
    plan = CapturePlan(
        Origin("torch", batch=2, mode="exported"),
        inputs,
        lambda: iter(values),
        lambda: dict(module.outputs),
        Sources("network.onnx", input="x.npy"),
        graph.structure_hash(),
        graph.weights_hash(),
        files={"network.onnx": folder / "network.onnx"},
    )
    write(folder / "caps", plan)
    return folder / "caps"


def folded(module: Graph, how: str = "single", eps: float = 1e-5) -> Graph:
    """As an exporter writes it: other names, and the batch norms inside the convolutions."""
    weights = dict(module.weights)
    for k, held in (("1", ["w1"]), ("2", ["w2", "b2"])):
        own = [weights[name] for name in (*held, f"g{k}", f"be{k}", f"m{k}", f"v{k}")]
        weights[f"W{k}"], weights[f"B{k}"] = BatchNorm(eps).fold(how, own, REFERENCE)
    nodes = [
        Node("/c1/Conv_output_0", Conv(4, (3, 3), pad=(1, 1), bias=True), ("input.1", "W1", "B1")),
        Node("/Relu_output_0", Relu(), ("/c1/Conv_output_0",)),
        Node("/c2/Conv_output_0", Conv(4, (1, 1), bias=True), ("/Relu_output_0", "W2", "B2")),
        Node("/Add_output_0", Add(), ("/c2/Conv_output_0", "/Relu_output_0")),
        Node("/ReduceMean_output_0", GlobalAvgPool(), ("/Add_output_0",)),
        Node("28", Dense(5, bias=True), ("/ReduceMean_output_0", "fc", "fcb")),
    ]
    used = {name: weights[name] for node in nodes for name in node.weights}
    return Graph("net", {"input.1": TensorType((1, 3, 6, 6))}, tuple(nodes), {"out": "28"}, used)


def renamed(module: Graph) -> Graph:
    """As another exporter writes it: other names, the batch norms by themselves."""
    to = {node.name: f"/{node.name}/out" for node in module.nodes} | {"x": "input.1"}
    nodes = (Node(to[n.name], n.op, tuple(to.get(name, name) for name in n.inputs)) for n in module.nodes)
    return replace(
        module,
        name="net",
        inputs={"input.1": module.inputs["x"]},
        nodes=tuple(nodes),
        outputs={"o": to["linear"]},
    )


def defects(found: refnet.Verification) -> list[str]:
    return [one.name for one in found.nodes if one.verdict == "defect"]


def changed(graph: Graph, name: str, to: np.ndarray) -> Graph:
    return replace(graph, weights={**graph.weights, name: to})


@pytest.mark.parametrize("how", ["single", "reciprocal", "double", "double-fused"])
def test_a_file_with_folded_batch_norms(module, caps, how):
    found = refnet.verify(caps, folded(module, how))
    assert (found.counts["defect"], found.counts["unjudged"], found.unmatched) == (0, 0, ())
    assert (found.judged, found.beyond, found.exit_code) == (8, (), 0)
    kinds = {one.name: one.kind for one in found.nodes}
    assert kinds["conv2d"] == "Conv"
    assert kinds["/c1/Conv_output_0"] == kinds["/c2/Conv_output_0"] == "BatchNorm"
    assert "6 of its 6 values are the module's (2 folded, 4 by inputs and bits)" in found.notes[0]
    assert "/c1/Conv_output_0 (conv2d), /c2/Conv_output_0 (conv2d_1)" in found.notes[1]


def test_a_file_without_folded_batch_norms(module, caps):
    found = refnet.verify(caps, renamed(module))
    assert (found.counts["defect"], found.counts["missing"], found.judged) == (0, 0, 8)
    assert found.notes[0].endswith("8 of its 8 values are the module's (8 by inputs and bits)")
    assert not [one for one in found.notes if "folded" in one]


def test_a_wrong_weight_is_found_at_its_node(module, caps):
    wrong = module.weights["fc"].copy()
    wrong[2, 1] *= F(1.01)
    found = refnet.verify(caps, changed(folded(module), "fc", wrong))
    assert defects(found) == ["28"]
    assert "1 by inputs)" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "what"), [("W1", "1 of 108 elements of its weight"), ("B2", "1 of 4 elements of its bias")]
)
def test_wrong_folded_weights_are_found(module, caps, name, what):
    """Sixteen units in the last place: few for a bound over the sum, too many for any way of folding."""
    graph = folded(module)
    wrong = graph.weights[name].copy()
    flat = wrong.reshape(-1)
    at = int(np.abs(flat).argmax())
    flat[at] += 16 * np.spacing(np.abs(flat[at]))
    found = refnet.verify(caps, changed(graph, name, wrong))
    node = "/c1/Conv_output_0" if name == "W1" else "/c2/Conv_output_0"
    (defect,) = [one for one in found.nodes if one.verdict == "defect"]
    assert (defect.name, found.first_defect, found.exit_code) == (node, node, 1)
    assert defect.reason is not None
    assert what in defect.reason


def test_another_epsilon_is_found(module, caps):
    found = refnet.verify(caps, folded(module, eps=1e-3))
    assert {one.name for one in found.nodes if one.verdict == "defect"} == {
        "/c1/Conv_output_0",
        "/c2/Conv_output_0",
    }


def test_an_op_that_is_left_out_is_found(module, caps):
    """Without its relu, the file feeds the second convolution and the addition with something else."""
    graph = folded(module)
    nodes = [
        replace(n, inputs=tuple(graph.nodes[0].name if i == "/Relu_output_0" else i for i in n.inputs))
        for n in graph.nodes
    ]
    found = refnet.verify(caps, replace(graph, nodes=tuple(n for n in nodes if n.name != "/Relu_output_0")))
    assert found.exit_code == 1
    assert {"/Add_output_0"} <= {one.name for one in found.nodes if one.verdict == "defect"}


def test_a_file_of_something_else_is_an_error(module, caps, tmp_path, capsys):
    nodes = (Node("other", Conv(7, (3, 3)), ("x", "w")),)
    other = Graph("other", module.inputs, nodes, {"other": "other"}, {"w": floats((7, 3, 3, 3), "w")})
    with pytest.raises(refnet.InputError, match="no value of other is one of the capture's"):
        refnet.verify(caps, other)
    export(other, tmp_path / "other", "onnx")
    assert main(["verify", str(caps), str(tmp_path / "other.onnx")]) == 2
    assert "it is a file of something else" in capsys.readouterr().err
    wide = replace(other, inputs={"x": TensorType((1, 3, 8, 8))})
    with pytest.raises(refnet.InputError, match=r"takes \{'x': float32\[1, 3, 8, 8\]\}, the captured module"):
        refnet.verify(caps, wide)


def test_an_element_is_explained_under_the_files_names(module, caps):
    """The command that verify prints beside a defect, and a value behind a folded batch norm."""
    wrong = module.weights["fc"].copy()
    wrong[2, 1] *= F(1.01)
    graph = changed(folded(module), "fc", wrong)
    one = refnet.explain(graph, "28", (0, 2), capture=caps)
    assert one.found is not None
    assert one.share(one.found) > 1
    fine = refnet.explain(graph, "/c1/Conv_output_0", (0, 1, 2, 3), capture=caps)
    assert fine.found is not None
    assert fine.share(fine.found) <= 1


def test_a_file_for_another_batch_is_an_error_that_says_so(module, caps):
    nodes = (
        *module.nodes[:-2],
        Node("mean", GlobalAvgPool(), ("add",)),
        Node("flat", Reshape((1, 4)), ("mean",)),
    )
    one = Graph("one", module.inputs, nodes, {"flat": "flat"}, weights_of([*module.nodes[:-2]]))
    with pytest.raises(
        refnet.InputError, match=r"^one: flat: Reshape.* a batch of 2, and this file may be for 1 only"
    ):
        refnet.verify(caps, one)


def test_the_captures_own_graph_is_matched_with_nothing(caps):
    found = refnet.verify(caps, refnet.load(caps))
    assert not [note for note in found.notes if "another file" in note]
    assert found.judged == 8


def test_a_wrong_value_is_found_under_the_files_names(module, caps):
    """A capture with a bug: the matching does not hide it, and does not spread it."""
    made = refnet.open_capture(caps)
    value = made.value("getitem_3").copy()
    value[0, 1] += F(0.25)
    np.save(caps / "wrong.npy", value)
    try:
        files = {**made.files, "getitem_3": caps / "wrong.npy"}
        assert made.manifest is not None
        stored = made.manifest.values["getitem_3"]
        from refnet.formats.golden_file import digest

        values = {
            **made.manifest.values,
            "getitem_3": replace(stored, digest=digest(value), file="wrong.npy"),
        }
        wrong = replace(made, files=files, manifest=replace(made.manifest, values=values))
        found = refnet.verify(wrong, folded(module))
        assert [one.name for one in found.nodes if one.verdict == "defect"] == [
            "/c2/Conv_output_0",
            "/Add_output_0",
        ]
    finally:
        (caps / "wrong.npy").unlink()


def with_conv(graph: Graph, op: Conv) -> Graph:
    return replace(graph, nodes=(replace(graph.nodes[0], op=op), *graph.nodes[1:]))


def test_a_folded_convolution_of_other_padding_is_found(module, caps):
    """The same weights and the same shape, but dilated: a comparison of weights alone would not see it."""
    graph = with_conv(folded(module), Conv(4, (3, 3), pad=(2, 2), dilation=(2, 2), bias=True))
    found = refnet.verify(caps, graph)
    assert (defects(found), found.exit_code) == (["conv2d"], 1)


@pytest.mark.parametrize("name", ["W1", "B2"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_folded_weights_that_are_no_numbers_are_found(module, caps, name, number):
    graph = folded(module)
    wrong = graph.weights[name].copy()
    wrong[1] = number
    found = refnet.verify(caps, changed(graph, name, wrong))
    assert defects(found) == ["/c1/Conv_output_0" if name == "W1" else "/c2/Conv_output_0"]


def test_negative_variances_fold_within_wider_bounds():
    conv, norm = Node("c", Conv(2, (1, 1)), ("x", "w")), Node("n", BatchNorm(1e-3), ("c", *"gemv"))
    own = {"w": floats((2, 3, 1, 1), "w")} | {key: floats((2,), key) for key in "gem"}
    own["v"] = F([-9.99e-4, -1e-5])
    weight, bias = BatchNorm(1e-3).fold("single", list(own.values()), REFERENCE)
    file = replace(conv, op=Conv(2, (1, 1), bias=True), inputs=("x", "W", "B"))
    assert fold_faults((file, {"W": weight, "B": bias}), (conv, norm, own)) is None
    wrong = weight * F(1 + 2.0**-9)
    assert "6 of 6 elements of its weight" in fold_faults((file, {"W": wrong, "B": bias}), (conv, norm, own))
    own["v"] = F([-2e-3, -1])
    assert "6 of 6 elements of its weight" in fold_faults((file, {"W": weight, "B": bias}), (conv, norm, own))


def two_outputs(first: str, second: str, names: tuple[str, str]) -> Graph:
    """Two convolutions of one input; names: of their values."""
    w = {name: floats((4, 3, 1, 1), name) for name in (first, second)}
    nodes = tuple(Node(n, Conv(4, (1, 1)), ("x", own)) for n, own in zip(names, w, strict=True))
    return Graph("net", {"x": TensorType((1, 3, 6, 6))}, nodes, {name: name for name in names}, w)


def test_outputs_that_are_exchanged_are_found(tmp_path):
    """Every value is the module's, but each is returned in the other's place, or under the other's name."""
    caps = captured(two_outputs("w1", "w2", ("a", "b")), tmp_path)
    assert refnet.verify(caps, two_outputs("w1", "w2", ("p", "q"))).exit_code == 0
    for names in (("p", "q"), ("a", "b")):
        found = refnet.verify(caps, two_outputs("w2", "w1", names))
        assert (defects(found), found.exit_code) == ([*names], 1)
        assert found.nodes[0].reason == "it is the module's output b, where the module returns a"
    swapped = two_outputs("w1", "w2", ("a", "b"))
    assert refnet.verify(caps, replace(swapped, outputs={"b": "b", "a": "a"})).exit_code == 0


def test_a_dense_layer_that_the_file_has_as_a_convolution(tmp_path):
    """The same bits in another shape go on in the file's."""
    k, x = floats((3, 4, 1, 1), "k"), {"x": floats((2, 4, 3, 3), "x")}
    head = Node("p", GlobalAvgPool(), ("x",))
    dense = [
        Node("f", Reshape((0, 4)), ("p",)),
        Node("r", Relu(), ("f",)),
        Node("l", Dense(3, False), ("r", "k")),
    ]
    kinds = {"x": TensorType((1, 4, 3, 3))}
    own = Graph("network", kinds, (head, *dense), {"l": "l"}, {"k": k.reshape(3, 4)})
    caps = captured(own, tmp_path, x)
    nodes = (head, Node("R", Relu(), ("p",)), Node("L", Conv(3, (1, 1)), ("R", "k")))
    file = Graph("net", kinds, nodes, {"o": "L"}, {"k": k})
    assert refnet.verify(caps, file).exit_code == 0
    assert defects(refnet.verify(caps, changed(file, "k", k * F(1.01)))) == ["L"]


def test_inputs_are_matched_by_their_shapes_where_their_names_differ(tmp_path):
    nodes = (
        Node("p", GlobalAvgPool(), ("a",)),
        Node("q", GlobalAvgPool(), ("b",)),
        Node("s", Add(), ("p", "q")),
    )
    own = Graph("network", {"a": TensorType((1, 3, 6, 6)), "b": TensorType((1, 3, 4, 4))}, nodes, {"s": "s"})
    caps = captured(own, tmp_path, {"a": INPUT["x"], "b": floats((2, 3, 4, 4), "b")})
    to = {"a": "second", "b": "first"}
    file = replace(
        own,
        name="net",
        inputs={to[name]: own.inputs[name] for name in "ba"},
        nodes=tuple(replace(n, inputs=tuple(to.get(i, i) for i in n.inputs)) for n in nodes),
    )
    assert refnet.verify(caps, file).exit_code == 0
    exchanged = replace(own, inputs={"a": own.inputs["b"], "b": own.inputs["a"]})
    with pytest.raises(refnet.InputError, match="the captured module"):
        refnet.verify(caps, exchanged)


def test_folding_is_bounded_by_its_roundings():
    """Every way of folding lies inside, at sizes from subnormal to large."""
    conv, norm = (
        Node("c", Conv(4, (1, 1), bias=True), ("x", "w", "b")),
        Node("n", BatchNorm(1e-5), ("c", *"gemv")),
    )
    for seed in range(20):
        scale = F(10.0 ** (seed % 5 * 9 - 36))
        own = {"w": floats((4, 8, 1, 1), f"w{seed}") * scale, "b": floats((4,), f"b{seed}") * scale}
        own |= {
            "g": floats((4,), f"g{seed}"),
            "e": floats((4,), f"e{seed}"),
            "m": floats((4,), f"m{seed}") * scale,
        }
        own |= {"v": np.abs(floats((4,), f"v{seed}"))}
        for how in ("single", "reciprocal", "double", "double-fused"):
            weight, bias = BatchNorm(1e-5).fold(how, list(own.values()), REFERENCE)
            file = {"W": weight, "B": bias}
            assert fold_faults((replace(conv, inputs=("x", "W", "B")), file), (conv, norm, own)) is None


def test_the_folder_of_a_capture_is_a_model_with_other_outputs_too(caps, capsys):
    """The options become part of the model's text; the folder is still one."""
    assert list(refnet.load(f"{caps}?output=conv2d").by_name) == ["conv2d"]
    assert main(["explain", str(caps), "conv2d", "--at", "0,1,2,3", "--outputs", "getitem"]) == 0
    assert "in the capture" in capsys.readouterr().out
    assert main(["explain", str(caps), "linear", "--at", "0,1", "--outputs", "getitem"]) == 2
    assert "has no value 'linear'" in capsys.readouterr().err
