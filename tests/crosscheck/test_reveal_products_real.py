"""Orders of products, convolutions in pieces and sums over axes, and norms: PyTorch and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from refnet.arithmetic.replay import Replay
from refnet.core.bits import equal_bits
from refnet.core.graph import Node
from refnet.core.op import Op, TensorType
from refnet.core.orders import Book, Choice, Part, Program, Recipe, Reference, signature
from refnet.frameworks import launch
from refnet.frameworks.caller import caller
from refnet.frameworks.process import Worker
from refnet.frameworks.reveal.formulas import reveal_formula, usual_inputs
from refnet.frameworks.reveal.products import asked_sum
from refnet.frameworks.reveal.sums import reveal_sum
from refnet.ops import (
    ConvNd,
    ConvTranspose,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MatMul,
    ReduceMean,
    ReduceSum,
)
from tests.crosscheck import foreign_replay
from tests.crosscheck.conftest import interpreter

pytestmark = pytest.mark.crosscheck

FRAMEWORKS = ("torch", "onnxruntime")
SUMS: dict[str, tuple[Op, tuple[int, ...], tuple[int, ...] | None]] = {
    "attention": (MatMul(), (1, 4, 16, 24), (1, 4, 24, 40)),
    "weights": (MatMul(constants=((300, 24),)), (1, 10, 300), None),
    "up 2x2": (ConvTranspose(8, (2, 2), (2, 2), bias=True), (1, 24, 6, 5), None),
    "up 4x4": (ConvTranspose(8, (4, 4), (2, 2), (1, 1), groups=2), (1, 8, 5, 5), None),
    "line": (ConvNd(8, (5,), pad=(2,), bias=True), (1, 6, 20), None),
    "rows": (ReduceMean((2,)), (1, 7, 50), None),
    "columns": (ReduceSum((1,), False, 50), (1, 50, 7), None),
}
NORMS = {
    "torch": {
        GroupNorm(1e-5, 2, constants=((8,), (8,))): "merged-scale",
        InstanceNorm(1e-5, ((8,), (8,))): "float64-sums",
    },
    "onnxruntime": {InstanceNorm(1e-5, ((8,), (8,))): "eigen-sse"},
}


@pytest.fixture(scope="module", params=FRAMEWORKS)
def running(request: pytest.FixtureRequest) -> Iterator[tuple[str, Worker]]:
    """A framework on one thread."""
    name = request.param
    python = interpreter("onnx" if name == "onnxruntime" else name)
    with launch.start(name, str(python)) as worker:
        yield name, worker


def holds(op: Op, types: tuple[TensorType, ...], recipe: Recipe, theirs) -> bool:
    """Whether the recipe gives the framework's bits on inputs that chose nothing."""
    replay = Replay(Book(Reference("", "", "", "", 1, 1, ""), {signature(op, types): recipe}))
    for seed in (101, 102, 103):
        inputs = usual_inputs(op, types, seed)
        found = replay.evaluate(Node("y", op, ()), *inputs)
        if not equal_bits(found, theirs.whole(inputs).reshape(found.shape)).all():
            return False
    return True


@pytest.mark.parametrize("name", SUMS)
def test_an_order_is_found_and_gives_the_framework_s_bits(name, running, report):
    framework, worker = running
    op, shape, other = SUMS[name]
    data = [TensorType(one) for one in (shape, other) if one is not None]
    types = (*data, *op.weight_types(*data))
    theirs = caller(framework, worker, op, types, 1)
    recipe = reveal_sum(asked_sum(op, types, theirs))
    assert holds(op, types, recipe, theirs)
    report.append(f"{framework} {name}: {len(recipe.parts)} parts, last {recipe.parts[-1].do}")


@pytest.mark.parametrize("n", [5, 8, 9, 12, 37, 192])
def test_the_layer_norm_s_formula_is_found(n, running):
    framework, worker = running
    op = LayerNorm(1e-5, 2, True, ((n,), (n,)))
    types = tuple(map(TensorType, ((1, 40, n), (n,), (n,))))
    theirs = caller(framework, worker, op, types, 1)
    recipe = reveal_formula(op, types, theirs)
    wanted = "merged-fused" if framework == "torch" else "mlas-avx2"
    assert [part.do for part in recipe.parts] == [Choice(wanted)]
    assert holds(op, types, recipe, theirs)


@pytest.mark.parametrize("shape", [(2, 8, 4, 4), (1, 8, 5, 7), (3, 8, 9)])
def test_the_formulas_of_group_and_instance_norm_are_found(shape, running):
    framework, worker = running
    for op, wanted in NORMS[framework].items():
        types = tuple(map(TensorType, (shape, (8,), (8,))))
        theirs = caller(framework, worker, op, types, 1)
        recipe = reveal_formula(op, types, theirs)
        assert [part.do for part in recipe.parts] == [Choice(wanted)]
        assert holds(op, types, recipe, theirs)


def test_another_order_has_other_bits(running):
    """The check can fail: the terms of one block, backwards."""
    framework, worker = running
    op, shape, _ = SUMS["weights"]
    types = (TensorType(shape), *op.weight_types(TensorType(shape)))
    theirs = caller(framework, worker, op, types, 1)
    recipe = reveal_sum(asked_sum(op, types, theirs))
    do = recipe.parts[-1].do
    assert isinstance(do, Program)
    assert not holds(op, types, Recipe((Part(replace(do, expr=backwards(do.expr))),)), theirs)


def backwards(expr):
    """The first chain of an expression with its terms the other way round."""
    from refnet.core.orders import Chain, Order, Sum

    if isinstance(expr, Sum):
        return Sum((backwards(expr.parts[0]), *expr.parts[1:]))
    assert isinstance(expr, Chain)
    return Chain(expr.seed, Order.of(expr.terms.indices()[::-1]), expr.fused)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_network_with_transposed_convolutions_is_replayed(framework, tmp_path, report):
    """U-Net, 16 x 16, two inputs: every value, and every node has a recipe."""
    setting = foreign_replay.Setting("unet", framework, 16)
    for one in foreign_replay.replayed(setting, tmp_path / "books", ("normal 2", "NaN")):
        assert (one["differ"], one["without"], one["lost"]) == ({}, {}, [])
        assert one["values"] == one["nodes"] - one["hidden"] > 15
        report.append(f"{framework}: {one['values']} values, {one['elements']} elements")
