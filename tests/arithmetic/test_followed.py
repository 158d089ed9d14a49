"""Replay's passes and captured runs: the bits of the nodes one by one."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

import refnet
from refnet.arithmetic.captured_run import CapturedRun, CapturedRuns
from refnet.arithmetic.followed import Followed
from refnet.arithmetic.fused import Fused
from refnet.arithmetic.replay import Replay
from refnet.core.by_recipe import CLIP_DROPS, CLIP_KEEPS, RELU_DROPS, RELU_KEEPS
from refnet.core.engine import ADD, BIAS, CLIP, NOTHING
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.core.orders import Book, Chain, Choice, Leaf, Part, Program, Recipe, Reference, Sum, signature
from refnet.kernels.engine import Fast
from refnet.kernels.thread_pool import LaunchList
from refnet.loops.engine import REFERENCE as LOOPS
from refnet.models.weights import shipped_captures
from refnet.ops import Add, BatchNorm, Clip, Conv, MaxPool, Relu, Sigmoid
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.recipes import blocked, split

REFERENCE = Reference("torch", "2.13.0", "cpu", "avx2", 1, 1, "eager")
SHAPE = (1, 6, 5, 7)


def kept(replay: Replay, graph: Graph) -> list[CapturedRun]:
    seen = replay._captured.of(graph, CapturedRuns)._seen
    return [known for known in seen.values() if isinstance(known, CapturedRun)]


def spoil(replay: Replay, graph: Graph) -> None:
    for known in kept(replay, graph):
        for piece in known._arena.pieces:
            piece[:] = 255


def one_by_one(replay: Replay, graph: Graph, inputs):
    return {node.name: value.copy() for node, value in refnet.steps(graph, inputs, replay)}


def ops_of(known: CapturedRun) -> int:
    """How many steps are no list of kernels."""
    return sum(not isinstance(step, LaunchList) for step in known._steps)


def network(norm: str, activation, formula: str, expr, bias: bool = False):
    """convolution, batch norm, addition, activation, each by its recipe; a graph and its book."""
    conv, bn = Conv(8, (3, 3), pad=(1, 1), bias=bias), BatchNorm(eps=1e-5)
    types = {"x": TensorType(SHAPE), "z": TensorType((1, 8, *SHAPE[2:]))}
    nodes = (
        Node("conv", conv, ("x", "w", "b") if bias else ("x", "w")),
        Node("bn", bn, ("conv", "gamma", "beta", "mean", "var")),
        Node("sum", Add(2), ("bn", "z")),
        Node("act", activation, ("sum",)),
    )
    graph = Graph("g", types, nodes, {"out": "act"})
    weights = {name: floats(kind.shape, name) for name, kind in graph.weight_types.items()}
    weights["var"] = np.abs(weights["var"])
    graph = graph.with_weights(weights)
    all_types = graph.types(types)
    made = (Program(expr), Choice(norm), Choice("left"), Choice(formula))
    recipes = {
        signature(node.op, [all_types[name] for name in node.inputs]): Recipe((Part(do),))
        for node, do in zip(nodes, made, strict=True)
    }
    return graph, Book(REFERENCE, recipes)


ACTIVATIONS = [(Relu(), one) for one in ("plain", "keeps", "drops")]
ACTIVATIONS += [(Clip(0.0, 1.0), one) for one in ("plain", "keeps", "drops")]
ACTIVATIONS += [(Relu(), "scales"), (Clip(0.0, 0.0), "keeps"), (Sigmoid(), "onednn")]
EXPRS = [blocked(6, 9, 4), split(54, 20), Sum((blocked(6, 9, 3), Leaf.BIAS))]


CASES = [
    (norm, *ACTIVATIONS[(i + shift) % len(ACTIVATIONS)], EXPRS[i % 3])
    for shift in (0, 4)
    for i, norm in enumerate((*BatchNorm.formulas, "centred"))
]


@pytest.mark.parametrize(("norm", "activation", "formula", "expr"), CASES)
def test_joined_nodes_have_the_bits_of_the_nodes_alone(norm, activation, formula, expr):
    graph, book = network(norm, activation, formula, expr, bias=expr is EXPRS[-1])
    loops = Replay(book, kernels="reference")
    for threads in (1, 2):
        replay = Replay(book, threads)
        for again in range(3):
            inputs = {n: awkward(k.shape, (n, again), 0.2) for n, k in graph.inputs.items()}
            spoil(replay, graph)
            found = refnet.run(graph, inputs, replay)["out"]
            assert same_bits(found, one_by_one(replay, graph, inputs)["act"])
            assert same_bits(found, one_by_one(loops, graph, inputs)["act"])
        (known,) = kept(replay, graph)
        joined = formula != "scales" and activation not in (Sigmoid(), Clip(0.0, 0.0))
        assert ops_of(known) == (activation == Clip(0.0, 0.0)), "kernels do all the rest"
        calls = [call for step in known._steps if isinstance(step, LaunchList) for call in step.steps]
        assert len(calls) <= (3 if joined else 4)  # the padded copy may be one


def test_what_run_does_anyway_stays_the_node():
    from refnet.arithmetic.followed import followed

    graph, book = network("scaled-fused", Relu(), "plain", EXPRS[0])
    types = graph.types(graph.inputs)
    made = {node.name: followed(book, node, types) for node in graph.nodes}
    assert {name for name, node in made.items() if isinstance(node.op, Followed)} == {"conv", "bn"}
    with pytest.raises(InputError, match="has no recipe for act"):
        followed(Book(REFERENCE, {}), Node("act", MaxPool((2, 2)), ("x",)), types)


def test_a_region_is_followed_alone():
    """An op with exceptions is neither joined nor recorded, and stays right."""
    graph, book = network("centred", Relu(), "keeps", EXPRS[0])
    conv = next(iter(book.recipes))
    from refnet.core.orders import Box

    edge = Part(Program(EXPRS[1]), (Box((("x", (5, 7, 1)),)),))
    recipes = {**book.recipes, conv: Recipe((edge, *book.recipes[conv].parts))}
    replay = Replay(Book(REFERENCE, recipes), 1)
    for again in range(4):
        inputs = {n: floats(k.shape, (n, again)) for n, k in graph.inputs.items()}
        spoil(replay, graph)
        found = refnet.run(graph, inputs, replay)["out"]
        assert same_bits(found, one_by_one(replay, graph, inputs)["act"])
    (known,) = kept(replay, graph)
    assert ops_of(known) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_shipped_books_replay_their_captures_again_and_again(threads):
    for path, book in shipped_captures():
        if "digits" not in path.name:
            continue
        capture, graph = refnet.open_capture(path), refnet.load(path.name)
        replay = Replay(refnet.read_book(book), threads)
        outputs = list(graph.outputs.values())
        wanted = [graph.nodes[len(graph.nodes) // 2].name, *outputs]
        for again in range(5):
            x = capture.input("data") if again in (0, 3) else floats(capture.input("data").shape, again)
            spoil(replay, graph)
            found = refnet.run(graph, {"data": x}, replay, wanted)
            expected = one_by_one(replay, graph, {"data": x})
            assert all(same_bits(found[name], expected[name]) for name in wanted)
        assert len(kept(replay, graph)) == 1
        assert pickle.loads(pickle.dumps(replay)).book.reference == replay.book.reference


KINDS = {
    "keeps": ((RELU_KEEPS, None, None), (CLIP_KEEPS, 0.0, 1.5)),
    "drops": ((RELU_DROPS, None, None), (CLIP_DROPS, 0.0, 1.5)),
}


@pytest.mark.parametrize("rule", list(KINDS))
def test_steps_by_frameworks_rules(rule):
    """relu and clip as steps, behind and before others: the loops', and those of the formulas alone."""
    x = awkward((2, 5, 67), "x", 0.5)
    relu, clip = KINDS[rule]
    fast = Fast(1)
    assert same_bits(fast.apply(x, NOTHING.then(*relu)), fast.relu_by(x, rule))
    assert same_bits(fast.apply(x, NOTHING.then(*relu)), LOOPS.relu_by(x, rule))
    low, high = (np.array([one], np.float32) for one in clip[1:])
    expected = LOOPS.apply(x, NOTHING.then(clip[0], low, high))
    assert same_bits(fast.apply(x, NOTHING.then(clip[0], low, high)), expected)
    zero = np.float32(0)
    if rule == "keeps":
        assert same_bits(expected, np.where(x > high, high, np.where(x < zero, zero, x)))
    else:
        assert same_bits(expected, np.where(x > 0, np.minimum(x, high), zero))
    column = [floats((5,), name) for name in ("scale", "shift")]
    for first, second in itertools.product((relu, (clip[0], low, high)), repeat=2):
        steps = NOTHING.scale_shift(*column).then(*first).bias(column[1]).add(x).then(*second)
        steps = steps.then(CLIP, low, high)
        assert same_bits(fast.apply(x, steps), LOOPS.apply(x, steps)), steps.kinds
    assert {BIAS, ADD} & set(steps.kinds)


@pytest.mark.parametrize("low", [0.0, -0.0])
@pytest.mark.parametrize("high", [1.0, 0.0, -0.0, -1.0, np.inf, -np.inf])
def test_a_clip_s_formulas_with_odd_limits(low, high):
    """A step of a pass cuts at high last, and drops a NaN to its low: only where that is the formula."""
    x = awkward((2, 5, 67), "x", 0.5)
    first, last = np.float32(low), np.float32(high)
    keeps = np.where(x > last, last, np.where(x < first, first, x))
    drops = np.where(x > 0, np.minimum(x, last), np.float32(0))
    for engine in (Fast(1), LOOPS):
        assert same_bits(Clip(low, high).replay("keeps", x, engine=engine), keeps)
        assert same_bits(Clip(low, high).replay("drops", x, engine=engine), drops)


def test_every_norm_s_steps_are_its_formula():
    x = awkward((2, 6, 40), "x", 0.4)
    op = BatchNorm(eps=1e-5)
    for odd in (0.0, 0.5):
        weights = [awkward((6,), name, odd) for name in ("gamma", "beta", "mean", "var")]
        for formula in op.formulas:
            for engine in (Fast(1), LOOPS):
                steps = op.add_step_by(formula, NOTHING, *weights, engine=engine)
                alone = op.replay(formula, x, *weights, engine=engine)
                assert same_bits(engine.apply(x, steps), alone), formula


def test_a_pass_begins_with_the_sum_in_order():
    graph, book = network("centred-fused", Relu(), "drops", EXPRS[0])
    replay = Replay(book, 1)
    from refnet.arithmetic.followed import followed_plan

    wanted = frozenset(graph.outputs.values())
    (made,) = followed_plan(book, replay.plan(graph, wanted), graph.types(graph.inputs)).schedule
    assert isinstance(made[0].op, Fused)
    assert [type(op).__name__ for op in made[0].op.ops] == ["Followed", "Followed", "Add", "Followed"]
    assert isinstance(made[0].op.ops[0].recipe.everywhere.expr, Chain)
