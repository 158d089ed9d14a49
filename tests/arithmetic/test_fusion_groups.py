"""Nodes that an executor joins: the graph it makes, folded weights, books that say so, replay, verify."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.arithmetic.fusion_groups import fused_graph, hidden
from refnet.arithmetic.plain import Plain
from refnet.arithmetic.replay import Replay
from refnet.core.errors import FormatError, InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import TensorType
from refnet.core.orders import (
    FOLDS,
    Book,
    Chain,
    Choice,
    Joined,
    Leaf,
    Order,
    Part,
    Recipe,
    Reference,
    Sum,
    signature,
)
from refnet.formats.book import dumps, loads
from refnet.verification.verify import Values, verify_values
from tests.helpers.bits import floats, same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import FAST
from tests.helpers.recipes import blocked, everywhere, kind, recipe, split

F = np.float32
X = TensorType((1, 16, 6, 5))
GROUPS = (("c1", "n1", "r1"), ("c2", "sum"), ("fc", "act"))
JOINED = Joined(GROUPS, "double")
REFERENCE = Reference("mxnet", "1.9.1", "cpu", "avx2", 1, 1, "monitor, subgraph backend default")


def network(first: str = "conv") -> Graph:
    """Convolution, batch norm and relu; a convolution and an addition; a dense layer and a sigmoid."""
    summands = ("c2", "r1") if first == "conv" else ("r1", "c2")
    norm = ("gamma", "beta", "mean", "var")
    nodes = (
        Node("c1", ops.Conv(12, (3, 3), pad=(1, 1)), ("x", "w1")),
        Node("n1", ops.BatchNorm(1e-4), ("c1", *norm)),
        Node("r1", ops.Relu(), ("n1",)),
        Node("c2", ops.Conv(12, (3, 3), pad=(1, 1)), ("r1", "w2")),
        Node("sum", ops.Add(2), summands),
        Node("pool", ops.GlobalAvgPool(), ("sum",)),
        Node("fc", ops.Dense(7), ("pool", "w3", "b3")),
        Node("act", ops.Sigmoid(), ("fc",)),
    )
    graph = Graph("g", {"x": X}, nodes, {"out": "act"})
    made = {name: floats(t.shape, name) for name, t in graph.weight_types.items()}
    made["var"] = np.abs(made["var"]) + F(0.1)
    return graph.with_weights(made)


GRAPH = network()
DATA = {"x": floats(X.shape, "x")}


def book(by: Joined | None = JOINED, graph: Graph = GRAPH, **other: Recipe) -> Book:
    """A recipe for each node of the executed graph; `other` for some of them."""
    executed = graph if by is None else fused_graph(graph, by, FAST)
    types = executed.types()
    recipes = {}
    for node in executed.nodes:
        kinds = [types[name] for name in node.inputs]
        made = other.get(node.name)
        if made is None and isinstance(node.op, ops.ConvAdd):
            made = recipe(blocked(kinds[0].shape[1], 9, seed=Leaf.ADDEND))
        elif made is None and isinstance(node.op, ops.Conv):
            terms = TensorType(kinds[1].shape[1:]).size
            made = recipe(split(terms, 40, Leaf.BIAS) if node.op.bias else split(terms, 40))
        elif made is None and isinstance(node.op, ops.GlobalAvgPool):
            made = recipe(Chain(Leaf.ZERO, Order.of(range(29, -1, -1)), fused=False), finish="divide")
        elif made is None and isinstance(node.op, ops.Dense):
            made = recipe(Sum((Leaf.BIAS, Chain(Leaf.ZERO, Order.of(range(12))))))
        elif made is None:
            formulas = {"Relu": "drops", "Sigmoid": "onednn-avx512", "BatchNorm": "centred", "Add": "left"}
            name = formulas[type(node.op).__name__]
            made = Recipe((Part(Choice(name if name in node.op.formulas else list(node.op.formulas)[-1])),))
        recipes[signature(node.op, kinds)] = made
    return Book(REFERENCE, recipes, joined=by)


def test_the_graph_that_is_executed():
    executed = fused_graph(GRAPH, JOINED, FAST)
    assert [(node.name, type(node.op).__name__, node.data) for node in executed.nodes] == [
        ("n1", "Conv", ("x",)),
        ("r1", "Relu", ("n1",)),
        ("sum", "ConvAdd", ("r1", "r1")),
        ("pool", "GlobalAvgPool", ("sum",)),
        ("fc", "Dense", ("pool",)),
        ("act", "Sigmoid", ("fc",)),
    ]
    assert executed.by_name["n1"].op == replace(GRAPH.by_name["c1"].op, bias=True)
    assert executed.outputs == GRAPH.outputs
    assert executed.weights["w2"] is GRAPH.weights["w2"]  # no copy
    assert not any(array.flags.writeable for array in executed.weights.values())
    assert set(executed.weights) == set(executed.weight_types)
    assert hidden(JOINED) == {"c1", "n1", "c2", "fc"}


def test_the_order_of_the_summands_does_not_matter():
    other = network(first="other")
    assert str(fused_graph(other, JOINED, FAST)) == str(fused_graph(GRAPH, JOINED, FAST))


def test_a_graph_without_weights_is_joined_too():
    bare = replace(GRAPH, weights={})
    assert str(fused_graph(bare, JOINED, FAST)) == str(fused_graph(GRAPH, JOINED, FAST))
    assert not fused_graph(bare, JOINED, FAST).weights


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ((("c1", "gone"),), "has no value 'gone'"),
        ((("r1", "c2"),), "does not know nodes that are joined like this: r1 = Relu, c2 = Conv"),
        ((("c1", "r1"),), "does not know nodes that are joined"),
        ((("c1", "n1", "r1", "c2", "sum", "pool"),), "does not know nodes that are joined"),
        ((("c1", "n1"), ("n1", "r1")), "does not know nodes that are joined"),
    ],
)
def test_groups_that_are_not_of_this_graph(groups, said):
    with pytest.raises(InputError, match=said):
        fused_graph(GRAPH, Joined(groups, "double"), FAST)


def test_a_value_that_others_read_cannot_be_joined_away():
    nodes = (*GRAPH.nodes, Node("more", ops.Relu(), ("c1",)))
    graph = Graph("g", GRAPH.inputs, nodes, {"out": "act", "more": "more"})
    with pytest.raises(InputError, match=r"not those of this graph.*'c1', made by nothing before it"):
        fused_graph(graph, JOINED, FAST)


def test_an_output_inside_of_joined_nodes_is_refused():
    """MXNet 1.9.1 joins it all the same, and returns the last one's value for it."""
    graph = replace(GRAPH, outputs={"out": "act", "inner": "n1"})
    with pytest.raises(InputError, match="output 'inner' is n1, which is joined with what follows it"):
        fused_graph(graph, JOINED, FAST)


def test_folded_weights_take_no_name_that_there_is():
    nodes = tuple(
        replace(node, inputs=("r1", "n1_folded_weight")) if node.name == "c2" else node
        for node in GRAPH.nodes
    )
    made = {"n1_folded_weight" if k == "w2" else k: v for k, v in GRAPH.weights.items()}
    executed = fused_graph(Graph("g", GRAPH.inputs, nodes, GRAPH.outputs).with_weights(made), JOINED, FAST)
    assert executed.by_name["n1"].weights == ("n1_folded_weight_", "n1_folded_bias")
    first, second = (executed.weights[name] for name in ("n1_folded_weight", "n1_folded_weight_"))
    assert same_bits(first, GRAPH.weights["w2"])
    assert same_bits(second, fused_graph(GRAPH, JOINED, FAST).weights["n1_folded_weight"])


def test_a_sum_of_a_convolution_with_itself_is_not_joined():
    nodes = (Node("c", ops.Conv(16, (1, 1)), ("x", "w")), Node("s", ops.Add(2), ("c", "c")))
    with pytest.raises(InputError, match="joined like this"):
        fused_graph(Graph("g", {"x": X}, nodes, {"out": "s"}), Joined((("c", "s"),)), FAST)


# Folded weights.


def f32(value: Fraction) -> Fraction:
    return Fraction(float(round_float32(value)))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("fix_gamma", [False, True])
@pytest.mark.parametrize("fold", FOLDS)
def test_folds_step_by_step(fold, fix_gamma, with_bias):
    """Against rationals, each step rounded once; only the root is IEEE's."""
    op = ops.BatchNorm(1e-4, fix_gamma)
    w, b, gamma, beta, mean = (floats(s, i) for i, s in enumerate([(40, 3, 2, 1), *[(40,)] * 4]))
    var = np.abs(floats((40,), "var"))
    weights = [w, *([b] if with_bias else []), gamma, beta, mean, var]
    weight, shift = op.fold(fold, weights, FAST)
    exact = lambda v: Fraction(float(v))  # noqa: E731
    for c in range(40):
        g = Fraction(1) if fix_gamma else exact(gamma[c])
        if fold.startswith("double"):
            under = float(np.sqrt(np.float64(var[c]) + 1e-4))
            a = exact(F(float(g) / under))
        else:
            root = exact(np.sqrt(F(f32(exact(var[c]) + exact(F(1e-4))))))
            a = f32(g / root) if fold == "single" else f32(g * f32(1 / root))
        assert [exact(v) for v in weight[c].flat] == [f32(exact(v) * a) for v in w[c].flat]
        apart = f32(exact(b[c]) - exact(mean[c])) if with_bias else -exact(mean[c])
        fused = fold == "double-fused"
        assert exact(shift[c]) == f32(exact(beta[c]) + (a * apart if fused else f32(a * apart)))


def test_folds_differ():
    own = [floats((200, 9), "w"), *(floats((200,), i) for i in range(3)), np.abs(floats((200,), "var"))]
    op = ops.BatchNorm(1e-4)
    made = {fold: b"".join(a.tobytes() for a in op.fold(fold, own, FAST)) for fold in FOLDS}
    assert len(set(made.values())) == len(FOLDS)
    with pytest.raises(InputError, match="not by 'else'"):
        ops.BatchNorm(1e-4).fold("else", own, FAST)


# Replay.


def literally(known: Book) -> dict[str, np.ndarray]:
    """Each value of the executed graph by what its recipe says, sums one element at a time."""
    executed = fused_graph(GRAPH, JOINED, FAST)
    found = dict(DATA)
    for node in executed.nodes:
        inputs = [found[n] for n in node.data] + [executed.weights[n] for n in node.weights]
        made = known.recipes[signature(node.op, list(map(kind, inputs)))]
        if isinstance(made.parts[0].do, Choice):
            found[node.name] = node.op.replay(made.parts[0].do.formula, *inputs, engine=FAST)
            continue
        found[node.name] = everywhere(made, node.op, inputs)
    return found


def test_a_run_is_that_of_the_joined_nodes():
    known = book()
    expected = literally(known)
    for threads in (1, 2):
        replay = Replay(known, threads)
        found = {node.name: value for node, value in refnet.steps(GRAPH, DATA, replay)}
        assert list(found) == ["n1", "r1", "sum", "pool", "fc", "act"]
        assert all(same_bits(found[name], expected[name]) for name in found)
        assert same_bits(refnet.run(GRAPH, DATA, replay)["out"], expected["act"])
        assert same_bits(refnet.run(GRAPH, DATA, replay, values=["sum"])["sum"], expected["sum"])
    plain = refnet.run(GRAPH, DATA, Plain(1), values=["c1", "sum"])
    assert not same_bits(plain["sum"], expected["sum"])


def test_what_is_joined_away_has_no_value():
    with pytest.raises(InputError, match="g: c1 has no value here: the book's executor joins"):
        refnet.run(GRAPH, DATA, Replay(book()), values=["c1"])


def test_the_seed_and_the_fold_show():
    """Each of these neighbours gives other bits."""
    right = refnet.run(GRAPH, DATA, Replay(book()), values=["r1", "sum"])
    last = book(sum=recipe(Sum((blocked(12, 9), Leaf.ADDEND))))
    assert not same_bits(refnet.run(GRAPH, DATA, Replay(last), values=["sum"])["sum"], right["sum"])
    single = replace(book(), joined=Joined(GROUPS, "single"))
    assert not same_bits(refnet.run(GRAPH, DATA, Replay(single), values=["r1"])["r1"], right["r1"])


def test_a_recipe_without_the_addend_does_not_fit():
    with pytest.raises(InputError, match="the addend is added 0 times, must be once"):
        refnet.run(GRAPH, DATA, Replay(book(sum=recipe(blocked(12, 9)))))
    biased = recipe(split(144, 40, Leaf.ADDEND))
    with pytest.raises(InputError, match="the bias is added 0 times, must be once"):
        refnet.run(GRAPH, DATA, Replay(book(n1=biased)))


# Verify.


def shown(known: Book) -> dict[str, np.ndarray]:
    """What a framework shows of it: of joined nodes, the last one's value."""
    away = hidden(JOINED)
    return {n.name: v for n, v in refnet.steps(GRAPH, DATA, Replay(known)) if n.name not in away}


def verdicts(values, replay=None) -> dict[str, str]:
    return {one.name: one.verdict for one in verify_values(GRAPH, Values(values, DATA), replay=replay).nodes}


def test_a_book_replays_over_what_is_joined_away():
    known = book()
    values = shown(known)
    without = verdicts(values)
    assert without["r1"] == without["sum"] == without["act"] == "rounding"
    assert {without[name] for name in hidden(JOINED)} == {"missing"}
    found = verify_values(GRAPH, Values(values, DATA), replay=Replay(known))
    said = {one.name: (one.verdict, one.reason) for one in found.nodes}
    for name in ("r1", "sum", "pool", "act"):
        assert said[name] == ("replayed", "the book's recipe gives these bits"), name
    only = verify_values(GRAPH, Values(values, DATA), replay=Replay(known), only=["sum"])
    assert [(one.name, one.verdict) for one in only.nodes] == [("sum", "replayed")]


def test_a_bit_that_the_book_does_not_give_is_not_replayed():
    known = book()
    for name in ("r1", "sum", "act"):
        values = shown(known)
        values[name] = values[name].copy()
        at = np.flatnonzero(values[name] > F(0.1))[0]
        values[name].reshape(-1).view(np.uint32)[at] += 1
        found = verify_values(GRAPH, Values(values, DATA), replay=Replay(known), only=[name]).nodes[0]
        assert found.verdict == "rounding"
        assumed = f"; {ops.Sigmoid.assumption}" if name == "act" else ""
        said = f"the book's recipe gives other bits in 1 of {found.elements} elements"
        assert found.reason == said + assumed
        values[name].reshape(-1)[at] += F(100)
        assert verdicts(values, Replay(known))[name] == "defect"


def test_a_book_of_another_network_is_refused():
    digits = refnet.load("resnest-digits")
    data = {"data": np.zeros((1, 1, 32, 32), F)}
    with pytest.raises(InputError, match="resnest-digits has no value 'c1'"):
        refnet.run(digits, data, Replay(book()))
    with pytest.raises(InputError, match="resnest-digits has no value 'c1'"):
        verify_values(digits, Values({}, data), replay=Replay(book()))


# The file.


def test_books_say_what_is_joined():
    known = book()
    again = loads(dumps(known).encode(), "book.json")
    assert again == known
    assert again.joined == JOINED
    assert "joined" not in dumps(book(None))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"fold": "double"', '"fold": "triple"', "joined.fold"),
        ('"fold": "double",', "", "joined"),
        ('["fc","act"]', '["fc"]', r"joined.groups\[2\]"),
        ('["fc","act"]', '["fc","c1"]', "a name twice"),
        ('["fc","act"]', '["fc",3]', r"joined.groups\[2\]"),
        ('["fc","act"]', str([f"n{i}" for i in range(17)]).replace("'", '"'), "17 names"),
        ('["fc","act"]', '"fc"', r"joined.groups\[2\]"),
        ('"fold": "double"', '"fold": "double", "more": 1', "more"),
    ],
)
def test_hostile_books(old, new, said):
    text = dumps(book())
    assert old in text
    with pytest.raises(FormatError, match=said):
        loads(text.replace(old, new).encode(), "book.json")
