"""The comparator broken on purpose: each break turns a verdict that is right without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from refnet import ops
from refnet.core import rounding
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import Interval, Op
from refnet.formats.golden_file import digest
from refnet.formats.manifest import Manifest, Origin, Stored
from refnet.ops import average, norm, pointwise
from refnet.verification import judge, operands, verify
from refnet.verification import propagate as compose
from refnet.verification import verifier as walk
from refnet.verification.propagate import known, propagate
from refnet.verification.verify import Values
from tests.helpers.bits import floats
from tests.helpers.engines import EXACT, FAST
from tests.helpers.verifying import evaluated
from tests.verification.test_propagate import folding

F = np.float32

GROWING = np.array([*[2.0**-24] * 63, 1], F)

# Cases: each returns what is said of something, as text, and `right` has what must be said.


def verdict(op: Op, found: np.ndarray, *inputs: np.ndarray, **more: object) -> str:
    return judge.judge(
        Node("y", op, tuple(f"i{k}" for k in range(len(inputs)))), found, inputs, **more
    ).verdict


def absorbed() -> str:
    """The worst order: 2**-24 added 63 times to 1, and lost each time. Plain adds the 1 last."""
    return verdict(ops.Dense(1, bias=False), F([[1]]), GROWING[None], np.ones((1, 64), F))


def just_outside() -> str:
    """1.5 times as far off as the worst order can be."""
    found = F([[1 - 35 * 2.0**-24]])
    return verdict(ops.Dense(1, bias=False), found, GROWING[None], np.ones((1, 64), F))


def small_bug() -> str:
    """A weight rounded to bfloat16."""
    x, w = np.abs(floats((1, 50), "x")), np.abs(floats((1, 50), "w"))
    cut = w.copy()
    cut.view(np.uint32)[0, 0] &= 0xFFFF0000
    return verdict(ops.Dense(1, bias=False), ops.Dense(1, bias=False).run(x, cut, engine=FAST), x, w)


def one_ulp_of_a_maximum() -> str:
    x = np.abs(floats((1, 2, 4, 4), "x"))
    found = ops.MaxPool((2, 2)).run(x, engine=FAST)
    found.view(np.uint32)[0, 0, 0, 0] += 1
    return verdict(ops.MaxPool((2, 2)), found, x)


def minus_zero_of_a_relu() -> str:
    return verdict(ops.Relu(), F([[-0.0, 1]]), F([[-0.0, 1]]))


def minus_zero_of_a_copy() -> str:
    return verdict(ops.Flatten(), F([[0.0, 1]]), F([[-0.0, 1]]))


def nan_found() -> str:
    x, w = floats((1, 9), "x"), floats((1, 9), "w")
    return verdict(ops.Dense(1, bias=False), F([[np.nan]]), x, w)


def nan_kept() -> str:
    return verdict(ops.Dense(1, bias=False), F([[np.nan]]), F([[np.nan, 1]]), np.ones((1, 2), F))


def nan_lost() -> str:
    return verdict(ops.Dense(1, bias=False), F([[1]]), F([[np.nan, 1]]), np.ones((1, 2), F))


def infinity_of_the_other_sign() -> str:
    return verdict(ops.Dense(1, bias=False), F([[-np.inf]]), F([[np.inf, 1]]), np.ones((1, 2), F))


def overflow_in_another_order() -> str:
    big = F([[3e38, 3e38, -3e38]])
    return verdict(ops.Dense(1, bias=False), F([[3e38]]), big, np.ones((1, 3), F))


def hidden_rounding() -> str:
    """A convolution that is not shown adds in the worst order; the batch norm after it is shown."""
    one, zero = np.ones(1, F), np.zeros(1, F)
    nodes = (
        Node("c", ops.Conv(1, (1, 1)), ("x", "w")),
        Node("b", ops.BatchNorm(0.0), ("c", "g", "h", "m", "v")),
    )
    graph = Graph("two", {"x": TensorType((1, 64, 1, 1))}, nodes, {"out": "b"})
    graph = graph.with_weights({"w": np.ones((1, 64, 1, 1), F), "g": one, "h": one, "m": one, "v": one})
    capture = Values({"b": np.ones((1, 1, 1, 1), F) + zero}, {"x": GROWING.reshape(1, 64, 1, 1)})
    return verify.verify_values(graph, capture).nodes[1].verdict


def hidden_bug() -> str:
    """A convolution that is not shown loses a term."""
    x, w = np.abs(floats((1, 8, 3, 3), "x")), np.abs(floats((4, 8, 1, 1), "w"))
    op = ops.Conv(4, (1, 1))
    cut = w.copy()
    cut[:, 0] = 0
    hidden = propagate(Node("c", op, ("x", "w")), [known(x), known(w)])
    return judge.judge(Node("r", ops.Relu(), ("c",)), op.run(x, cut, engine=FAST), [hidden]).verdict


def folded_addition() -> str:
    operands, lost, _ = folding()
    one = known(np.ones((1, 1, 1, 1), F))
    return judge.judge(Node("a", ops.Add(2), ("c", "r")), lost, [*operands, one]).verdict


def folded_batch_norm() -> str:
    operands, lost, _ = folding()
    one, zero = np.ones(1, F), np.zeros(1, F)
    weights = [known(v) for v in (one, one, zero, one)]
    node = Node("b", ops.BatchNorm(0.0), ("c", "g", "h", "m", "v"))
    return judge.judge(node, lost, [*operands, *weights]).verdict


def batch_norm_forms() -> str:
    """Each formula of a batch norm with a mean far from 0, in float32."""
    op = ops.BatchNorm(1e-5)
    x = floats((1, 400, 3, 3), "x") + F(8)
    g, h, m, v = (floats((400,), name) for name in "ghmv")
    v = np.abs(v) + F(0.1)
    inputs = [x, g, h, m + F(8), v]
    said = {verdict(op, evaluated(op, inputs, np.random.default_rng(k)), *inputs) for k in range(8)}
    return " ".join(sorted(said))


def averages() -> str:
    """Many averages, summed in any order, divided before or after."""
    x = floats((4, 8, 6, 6), "x")
    op = ops.AvgPool((2, 2), (2, 2))
    said = {verdict(op, evaluated(op, [x], np.random.default_rng(k)), x) for k in range(4)}
    return " ".join(sorted(said))


def replays() -> str:
    class Wrong:
        def evaluate_or_none(self, node: Node, *inputs: np.ndarray) -> np.ndarray:
            return np.nextafter(node.op.run(*inputs, engine=FAST), F(9))

    x, w = floats((1, 50), "x"), floats((1, 50), "w")
    op = ops.Dense(1, bias=False)
    return verdict(op, np.nextafter(op.run(x, w, engine=FAST), F(-9)), x, w, replay=Wrong())


def rows() -> str:
    """Twice as many elements."""
    x = floats((1, 4), "x")
    return verdict(ops.Flatten(), np.concatenate([x, x]), x)


def chain() -> tuple[Graph, dict, dict]:
    """Two dense layers that are wrong, and between them nodes that go on rightly with the first."""
    nodes = (
        Node("d", ops.Dense(4, bias=False), ("x", "w")),
        Node("r", ops.Relu(), ("d",)),
        Node("c", ops.Concat(1), ("r", "r")),
        Node("e", ops.Dense(2, bias=False), ("c", "u")),
    )
    graph = Graph("chain", {"x": TensorType((1, 6))}, nodes, {"out": "e"})
    weights = {n: np.abs(floats(k.shape, n)) for n, k in graph.weight_types.items()}
    graph = graph.with_weights(weights)
    x = {"x": np.abs(floats((1, 6), "x"))}
    d = nodes[0].op.run(x["x"], weights["w"], engine=FAST) * F(1.5)
    c = np.concatenate([d, d], 1)
    return graph, x, {"d": d, "r": d, "c": c, "e": nodes[3].op.run(c, weights["u"], engine=FAST) * F(1.5)}


def blamed() -> str:
    graph, x, values = chain()
    found = verify.verify_values(graph, Values(values, x))
    said = [node.name for node in found.nodes if node.verdict == "defect"]
    return f"{said} {found.first_defect} {found.first_difference} exit {found.exit_code}"


def inherited() -> str:
    graph, x, values = chain()
    found = verify.verify_values(graph, Values(values, x))
    return " ".join(f"{node.name}:{node.inherited.differ}" for node in found.nodes)


def outputs() -> str:
    graph, x, values = chain()
    out = verify.verify_values(graph, Values(values, x)).outputs[0]
    return f"{out.differ} {out.largest > 0.1}"


def nothing_there() -> str:
    graph, x, _ = chain()
    return f"exit {verify.verify_values(graph, Values({'q': x['x']}, x)).exit_code}"


def missing_then_wrong() -> str:
    graph, x, values = chain()
    found = verify.verify_values(graph, Values({"c": values["c"]}, x))
    return " ".join(f"{node.name}:{node.verdict}" for node in found.nodes)


def manifest(values: dict, x: dict, weights: str | None) -> Manifest:
    stored = {n: Stored(digest(v), None) for n, v in values.items()}
    return Manifest(Origin("f"), stored, {}, {}, None, None, weights)


def hash_only() -> str:
    graph, x, values = chain()
    values = {"d": values["d"], "r": values["r"]}
    capture = Values({}, x, manifest(values, x, None))
    return " ".join(f"{node.name}:{node.verdict}" for node in verify.verify_values(graph, capture).nodes[:2])


def other_weights() -> str:
    graph, x, values = chain()
    capture = Values(values, x, manifest(values, x, "0" * 64))
    try:
        return f"exit {verify.verify_values(graph, capture).exit_code}"
    except InputError:
        return "refused"


def worst_element() -> str:
    x, w = floats((1, 9), "x"), floats((4, 9), "w")
    op = ops.Dense(4, bias=False)
    found = op.run(x, w, engine=FAST)
    found[0, 1] *= F(2)
    found[0, 2] *= F(99)
    one = judge.judge(Node("y", op, ("x", "w")), found, [x, w])
    counted = f"{one.differ} {one.outside} {one.share.histogram[-1]}"
    golden = op.golden(x, w, exact=EXACT)[0, 2]
    return f"{one.worst.at} {counted} {one.ulps == one.worst.ulps} {one.worst.golden == golden}"


def whole_bound() -> str:
    """Behind a bound wider than the value."""
    wide = compose.AbstractValue(
        np.zeros((1, 3), F), Interval(np.zeros((1, 3)), np.full((1, 3), 9.0)), ("h",)
    )
    return judge.judge(Node("y", ops.Flatten(), ("h",)), F([[1, 2, 3]]), [wide]).verdict


RIGHT = {
    absorbed: "rounding",
    just_outside: "defect",
    small_bug: "defect",
    one_ulp_of_a_maximum: "defect",
    minus_zero_of_a_relu: "equal",
    minus_zero_of_a_copy: "defect",
    nan_found: "defect",
    nan_kept: "replayed",
    nan_lost: "defect",
    infinity_of_the_other_sign: "defect",
    overflow_in_another_order: "unjudged",
    hidden_rounding: "rounding",
    hidden_bug: "defect",
    folded_addition: "rounding",
    folded_batch_norm: "rounding",
    batch_norm_forms: "rounding",
    averages: "rounding",
    replays: "rounding",
    rows: "defect",
    blamed: "['d', 'e'] d d exit 1",
    inherited: "d:0 r:4 c:8 e:2",
    outputs: "2 True",
    nothing_there: "exit 2",
    missing_then_wrong: "d:missing r:missing c:defect e:missing",
    hash_only: "d:unjudged r:unjudged",
    other_weights: "refused",
    worst_element: "(0, 2) 2 2 2 True True",
    whole_bound: "unjudged",
}


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.__name__)
def test_unbroken_it_says_what_is_right(case):
    assert case() == RIGHT[case]


# Breaks: what is put in the place of which function, and the cases that notice.

SHARES, DIFFERS, THROUGH, OUTWARD, JOINED = (
    judge.shares,
    judge.differs,
    walk.propagate,
    rounding.outward,
    rounding.one_sum,
)
GAMMA, AGREES, PROPAGATED, BOUNDED = rounding.gamma, Op.agrees, judge._propagated, judge._bounded


def never_differs(found, plain):
    """Bits are not looked at."""
    return np.zeros(found.shape, bool)


def as_numbers(found, plain):
    """Compared as numbers: zeros of both signs are equal, and no NaN is itself."""
    return found != plain


def nearly(found, plain):
    """Compared with a tolerance."""
    return ~np.isclose(found, plain, rtol=1e-5, equal_nan=True)


def always_agrees(self, found, expected, zeros_unknown=False):
    """Ops with one right result may have any."""
    return np.ones(found.shape, bool)


def agrees_as_bits(self, found, expected, zeros_unknown=False):
    """What frameworks choose differently is held against them."""
    return ~DIFFERS(found, expected)


def no_shares(found, bound):
    """Everything lies in the middle of its bound."""
    return np.zeros(found.shape)


def double_shares(found, bound):
    """The bound is taken for half as wide."""
    return SHARES(found, bound) * 2


def half_shares(found, bound):
    """The bound is taken for twice as wide."""
    return SHARES(found, bound) / 2


def nan_inside(found, bound):
    """What is no number is nowhere, so not outside."""
    return np.nan_to_num(SHARES(found, bound), nan=0.0)


def gamma_per_term(k):
    """One rounding, however many there are."""
    return GAMMA(1)


def gamma_wide(k):
    """A tolerance for good measure."""
    return 1000 * GAMMA(k)


def no_overflow(center, radius, largest, roundings=8, as_sum=None):
    """Promises a bound where an order may overflow."""
    return Interval(center, radius, as_sum)


def nothing_propagates(node, found, bound, operands):
    """What NaN and infinities must make is not looked at."""
    nothing = np.zeros(found.shape, bool)
    return nothing, nothing


def any_infinity(node, found, bound, operands):
    """An infinity may have any sign."""
    must, may = PROPAGATED(node, found, bound, operands)
    return must & ~np.isinf(found), may | np.isinf(found)


def bits_taken_for_known(node, operands, threads=1, plain=None):
    """A hidden value is taken to be plain's."""
    one = THROUGH(node, operands, threads, plain)
    return replace(one, interval=None)


def hidden_anything(node, operands, threads=1, plain=None):
    """A hidden value may be anything."""
    one = THROUGH(node, operands, threads, plain)
    shape = one.value.shape
    return replace(one, interval=Interval(np.zeros(shape), np.full(shape, np.inf)))


def parts_apart(parts):
    """Sums are never joined."""
    return np.zeros_like(parts[0].radius), JOINED(parts)[1]


def not_folded(self, x, terms, s, mean, beta, cancelled):
    """A batch norm is never folded into weights."""
    return np.zeros_like(x.radius)


def any_book(value, found):
    """A book that has a recipe is believed."""
    return 0


class Same:
    """Equal to anything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


def any_hash(array):
    """All hashes are the same."""
    return Same()


def no_foundations(graph, capture, other_sources):
    """Of which weights the capture was made is not looked at."""
    return []


def own_inputs(self, node, found, plain):
    """The capture's values are replaced by refnet's own, so differences come down."""
    return plain.shape


def all_needed(graph, capture, only, types):
    """Nothing is judged over what is missing."""
    return frozenset(node.name for node in graph.nodes if capture.has(node.name))


def not_apart(a, b):
    """refnet's own run is never different."""
    return 0, 0, 0.0


def no_golden(node, inputs, at):
    """The worst element's golden value is 0."""
    return F(0)


def no_sum(share):
    """The shares are not summed up."""
    return judge.Shares(0.0, 0.0, (share.size, *[0] * 20))


def last_wins(self):
    """The last defect is called the first."""
    return next((one.name for one in reversed(self.nodes) if one.verdict == "defect"), None)


def always_fine(self):
    """Success, whatever was found."""
    return 0


def never_hidden(case):
    """All inputs count as captured."""
    return False


BREAKS = [
    (never_differs, judge, "differs", (small_bug, nan_found, just_outside)),
    (as_numbers, judge, "differs", (nan_kept,)),
    (nearly, judge, "differs", (absorbed,)),
    (always_agrees, Op, "agrees", (one_ulp_of_a_maximum, minus_zero_of_a_copy)),
    (agrees_as_bits, Op, "agrees", (minus_zero_of_a_relu,)),
    (no_shares, judge, "shares", (small_bug, just_outside, hidden_bug)),
    (double_shares, judge, "shares", (absorbed,)),
    (half_shares, judge, "shares", (just_outside,)),
    (nan_inside, judge, "shares", (nan_found,)),
    (gamma_per_term, rounding, "gamma", (absorbed,)),
    (gamma_wide, rounding, "gamma", (small_bug, just_outside)),
    (gamma_per_term, norm, "gamma", (batch_norm_forms,)),
    (gamma_per_term, average, "gamma", (averages,)),
    (no_overflow, rounding, "outward", (overflow_in_another_order,)),
    (nothing_propagates, judge, "_propagated", (nan_lost, infinity_of_the_other_sign)),
    (any_infinity, judge, "_propagated", (infinity_of_the_other_sign,)),
    (bits_taken_for_known, walk, "propagate", (hidden_rounding,)),
    (hidden_anything, walk, "propagate", (missing_then_wrong,)),
    (parts_apart, pointwise, "one_sum", (folded_addition,)),
    (not_folded, norm.BatchNorm, "_folded", (folded_batch_norm,)),
    (any_book, judge, "_unreplayed", (replays,)),
    (any_hash, operands, "digest", (hash_only,)),
    (no_foundations, verify, "_foundations", (other_weights,)),
    (all_needed, walk, "needed_by", (missing_then_wrong,)),
    (not_apart, walk, "apart", (inherited, outputs)),
    (no_golden, judge, "exactly_at", (worst_element,)),
    (no_sum, judge, "_summary", (worst_element,)),
    (property(last_wins), verify.Verification, "first_defect", (blamed,)),
    (property(always_fine), verify.Verification, "exit_code", (blamed, nothing_there)),
    (property(never_hidden), judge._Case, "hidden", (whole_bound,)),
]
IDS = [f"{name} = {getattr(getattr(c, 'fget', c), '__name__', name)}" for c, _, name, _ in BREAKS]


@pytest.mark.parametrize(("change", "module", "name", "seen_by"), BREAKS, ids=IDS)
def test_a_break_is_seen(change, module, name, seen_by, monkeypatch):
    monkeypatch.setattr(module, name, change)
    for case in seen_by:
        assert case() != RIGHT[case], case.__name__
