"""ONNX models: valid, complete, refnet's names; onnx's own reference evaluator gets the same from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import refnet
from refnet.cli import main
from refnet.core.errors import InputError, UnsupportedError, WeightsError
from refnet.core.graph import Graph, Node, TensorType
from refnet.formats.onnx import export as onnx_export
from refnet.formats.onnx.export import graph_to_onnx, write_onnx
from refnet.models.export import export
from refnet.models.loading import structure
from refnet.ops import (
    ALL,
    LRN,
    Acosh,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv,
    ConvAdd,
    CumSum,
    Dense,
    Div,
    ExpandDims,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    Identity,
    InstanceNorm,
    LayerNorm,
    LeakyRelu,
    Log,
    LogSoftmax,
    LpNorm,
    MatMul,
    Max,
    MaxPool,
    Min,
    Mul,
    Op,
    Pad,
    Pow,
    Power,
    PRelu,
    RadixSoftmax,
    RadixSum,
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    ReduceSumSquare,
    Relu,
    Reshape,
    ResizeNearest,
    RMSNorm,
    Sigmoid,
    Slice,
    Softmax,
    Sqrt,
    StepFunction,
    Sub,
    Transpose,
    UpsampleNearest,
    WeightedSum,
    WithScalar,
)
from refnet.ops.scalar import KINDS
from tests.crosscheck.judge import Tally, check
from tests.helpers.bits import floats
from tests.helpers.exact_functions import FUNCTIONS
from tests.helpers.spatial_examples import EXPORTED

DIGITS = ("octave-se-resnet-digits", "resnest-digits")


def judged(graph: Graph, data: dict[str, np.ndarray]) -> Tally:
    """Every value of the exported model, by the reference evaluator, on its own inputs: bits or bound."""
    model = graph_to_onnx(graph, [node.name for node in graph.nodes])
    onnx.checker.check_model(model, full_check=True)
    found = dict(zip(graph.by_name, ReferenceEvaluator(model).run(None, data), strict=True))
    tally = Tally()
    for node in graph.nodes:
        inputs = [(data | found)[name] for name in node.data] + [graph.weights[name] for name in node.weights]
        check(node, found[node.name], inputs, tally)
    return tally


def single(op: Op, *shapes: tuple[int, ...], batch: int = 2) -> Tally:
    """The same for one op on data of these shapes (of one image)."""
    types = tuple(TensorType((1, *shape)) for shape in shapes)
    data = {f"x{i}": floats((batch, *shape), (repr(op), i)) for i, shape in enumerate(shapes)}
    if isinstance(op, Log | Sqrt | Pow):
        data = {name: np.abs(x) for name, x in data.items()}
    if isinstance(op, Acosh):
        data = {name: np.abs(x) + np.float32(1) for name, x in data.items()}
    kinds = op.weight_types(*types) if op.weight_roles() else ()
    weights = {
        f"{role}{i}": np.asarray(np.abs(floats(kind.shape, role)) + np.float32(0.5))
        for i, (role, kind) in enumerate(zip(op.weight_roles(), kinds, strict=True))
    }
    node = Node("y", op, (*data, *weights))
    return judged(Graph("one", dict(zip(data, types, strict=True)), (node,), {}).with_weights(weights), data)


MAPS, RAGGED = (6, 5, 4), (2, 7, 8)
CASES: list[tuple[Op, *tuple[tuple[int, ...], ...]]] = [
    (Conv(4, (3, 2), (2, 1), (1, 0), (1, 2), 2), MAPS),
    (Conv(6, (1, 1), groups=6, bias=True), MAPS),
    (ConvAdd(Conv(4, (3, 2), (2, 1), (1, 0), (1, 2), 2, True)), MAPS, (4, 3, 2)),
    (Dense(3), (5,)),
    (Dense(3, bias=False), MAPS),
    (GlobalAvgPool(), MAPS),
    (BatchNorm(1e-3), MAPS),
    (BatchNorm(1e-3, fix_gamma=True), MAPS),
    (BatchNorm(1e-3), (5,)),
    (Relu(), MAPS),
    (Sigmoid(), MAPS),
    (Conv(4, (3, 2), (3, 2), (1, 0), pad_end=(0, 3)), MAPS),
    (MaxPool((2, 2), (2, 1), (1, 0), "ceil", dilation=(2, 1), pad_end=(0, 1)), MAPS),
    *(
        (AvgPool((3, 2), (2, 2), (1, 0), convention, counted, pad_end=(2, 1)), RAGGED)
        for convention in ("valid", "ceil")
        for counted in (True, False)
    ),
    (Clip(0.0, 0.25), MAPS),
    (Clip(high=0.25), MAPS),
    (Clip(), MAPS),
    (LeakyRelu(0.125), MAPS),
    *((one.op, MAPS) for one in FUNCTIONS if not one.positive),
    *((op, MAPS) for op in (Power(3.0), Sqrt(), Log(), Acosh())),
    *((StepFunction(kind), MAPS) for kind in ("floor", "ceil", "round", "sign")),
    (PRelu((6,)), MAPS),
    (PRelu((1,)), MAPS),
    (PRelu((5,)), (5,)),
    (PRelu((5, 1), channels=False), MAPS),
    *((WithScalar(kind, 3.0), MAPS) for kind in KINDS),
    (Add(2, True), MAPS, (6, 1, 1)),
    (Add(3, True, ((6, 1, 1), ())), MAPS),
    (Mul(((6, 1, 1),)), MAPS),
    (Sub(), MAPS, (6, 1, 1)),
    (Sub(((4,),), True), MAPS),
    (Div(((4,),)), MAPS),
    (Pow(((4,),)), MAPS),
    (Div(swapped=True), MAPS, MAPS),
    (MatMul(constants=((5, 3),)), (5,)),
    (MatMul(), MAPS, (6, 4, 2)),
    (MatMul(0.5, 2.0, False, True, True, ((3, 5), (3,))), (5,)),
    (ReduceSum((1,), False, 6), MAPS),
    (ReduceSum((2, 3)), MAPS),
    (ReduceMean((1, 3), False), MAPS),
    (ReduceMean((0, 1, 2, 3), False, vector=True), MAPS),
    (ReduceSum((0, 1, 2, 3), False, vector=True), MAPS),
    (LayerNorm(1e-3, 1, True, ((6, 5, 4), (4,))), MAPS),
    (LayerNorm(1e-3, 3, False), MAPS, (1, 1, 4)),
    (RMSNorm(1e-3, 2, ((5, 4),)), MAPS),
    (GroupNorm(1e-3, 3, False, ((6,), (6,))), MAPS),
    (GroupNorm(1e-3, 2, True, ((2,), (2,))), (6, 4)),
    (InstanceNorm(1e-3, ((6,), (6,))), MAPS),
    (LRN(4, 0.5, 0.75, 2.0), (2, 5, 4)),  # the reference goes over as many channels as images
    (LpNorm(3), MAPS),
    (CumSum(2), MAPS),
    (CumSum(1, True, True), MAPS),
    (LogSoftmax(2), MAPS),
    (LogSoftmax(1, trailing=True), MAPS),
    (Max(3, ((6, 1, 1),)), MAPS, (1, 5, 4)),
    (Min(), MAPS, MAPS),
    *((kind((1, 3), False), MAPS) for kind in (ReduceMax, ReduceMin, ReduceL1, ReduceL2, ReduceSumSquare)),
    *((kind((2,)), MAPS) for kind in (ReduceProd, ReduceLogSumExp)),
    (ReduceLogSum((1,)), (9, 2)),
    (Softmax(1, trailing=True), MAPS),
    (Softmax(2, trailing=True), MAPS),
    (ResizeNearest((2, 3), (8, 3), (1.6, 0.75)), MAPS),
    (ResizeNearest((), (), ()), MAPS),
    (Reshape((0, -1, 4)), MAPS),
    (Transpose((0, 2, 3, 1)), MAPS),
    (Pad((0, 0, 1, 0), (0, 1, 0, 2), value=0.5), MAPS),
    (Pad((0, 0, 1, 0), (0, 0, 1, 2), "reflect"), MAPS),
    (Constant((2, 3)),),
    (Add(1), MAPS),
    (Add(2), MAPS, MAPS),
    (Add(3), MAPS, MAPS, MAPS),
    (Mul(), MAPS, (6, 1, 1)),
    (UpsampleNearest(2), MAPS),
    (UpsampleNearest(3), RAGGED),
    (Concat(1), MAPS, (2, 5, 4)),
    (Concat(3), MAPS, (6, 5, 1)),
    (Slice(1, 3), MAPS),
    (Slice(0, 1, 2), MAPS),
    (Flatten(), MAPS),
    (ExpandDims(1), MAPS),
    (ExpandDims(4), MAPS),
    (Identity(), MAPS),
    (Softmax(), (7,)),
    (Softmax(2), MAPS),
    (RadixSum(1), MAPS),
    (RadixSum(2), MAPS),
    (RadixSum(3), MAPS),
    (RadixSoftmax(1, 2), (12, 1, 1)),
    (RadixSoftmax(2), (12, 1, 1)),
    (RadixSoftmax(3, 2), (12, 1, 1)),
    (WeightedSum(1), (6,), MAPS),
    (WeightedSum(2), (6,), MAPS),
    (WeightedSum(3), (6,), MAPS),
    *(
        (MaxPool(kernel, stride, pad), RAGGED)
        for kernel, stride, pad in [((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 3), (1, 1))]
    ),
    *(
        (AvgPool((3, 3), (2, 2), pad, convention, counted), RAGGED)
        for pad in [(0, 0), (1, 1)]
        for convention in ("valid", "full", "ceil")
        for counted in (True, False)
    ),
    *((MaxPool((3, 3), (2, 2), (1, 1), convention), RAGGED) for convention in ("full", "ceil")),
    *EXPORTED,
]


def test_no_op_is_forgotten() -> None:
    assert {type(op) for op, *_ in CASES} == set(ALL)


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case[0]))
def test_every_op_means_the_same_in_onnx(case: tuple[Op, *tuple[tuple[int, ...], ...]]) -> None:
    op, *shapes = case
    assert single(op, *shapes).compared == 1


@pytest.mark.parametrize("name", DIGITS)
def test_every_value_of_the_digits_networks(name: str) -> None:
    graph = refnet.load(name)
    assert judged(graph, {"data": floats((1, 1, 32, 32), name)}).compared == len(graph.nodes)


def test_names_shapes_and_weights_are_refnets() -> None:
    graph = refnet.load("octave-se-resnet-digits")
    model = graph_to_onnx(graph).graph
    assert [value.name for value in model.input] == ["data"]
    assert [value.name for value in model.output] == [*graph.outputs.values()]
    shape = model.output[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("batch", 10)
    made = [name for node in model.node for name in node.output]
    assert [name for name in made if name in graph.by_name] == [node.name for node in graph.nodes]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.initializer}
    for name, array in graph.weights.items():
        assert stored[name].tobytes() == array.tobytes()
    known = {
        kind.name: [d.dim_value for d in kind.type.tensor_type.shape.dim][1:] for kind in model.value_info
    }
    assert all(known[n] == list(t.shape[1:]) for n, t in graph.types().items() if n in known)


def test_helpers_give_way_to_values_of_the_same_name() -> None:
    nodes = (
        Node("x/part0", Relu(), ("x",)),
        Node("sum", RadixSum(2), ("x",)),
        Node("again", RadixSum(2), ("x",)),
        Node("y", Add(2), ("sum", "again")),
    )
    graph = Graph("g", {"x": TensorType((1, 4, 2, 2))}, nodes, {"y": "y", "relu": "x/part0"})
    data = {"x": floats((1, 4, 2, 2), "x")}
    assert judged(graph, data).compared == 4
    made = [node.op_type for node in graph_to_onnx(graph).graph.node]
    assert made == ["Relu", "Split", "Add", "Add", "Add"]  # split once for both sums


def test_what_cannot_be_written_is_refused_before_anything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = refnet.load("resnest-digits")
    with pytest.raises(InputError, match="has no value 'nothing'"):
        graph_to_onnx(graph, ["nothing"])
    with pytest.raises(WeightsError, match="has no weights"):
        write_onnx(tmp_path / "a.onnx", structure("resnest-digits"))
    monkeypatch.setattr(onnx_export, "LARGEST", 1000)
    with pytest.raises(UnsupportedError, match="bytes of weights"):
        export(graph, tmp_path / "a", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; from refnet.cli import main\n"
        f"sys.exit(main(['export', 'resnest-digits', '--to', 'onnx', '-o', {str(tmp_path / 'net')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'pip install "refnet[onnx]"' in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_a_model_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "resnest-digits", "--to", "onnx", "-o", str(tmp_path / "net")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
