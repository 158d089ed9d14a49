"""Ops that give or take integers and booleans: types, values, bounds, against NumPy and plain Python."""

from __future__ import annotations

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.core.errors import GraphError, InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import Interval, Op, TensorType
from refnet.exact.engine import DecideOrRefine
from refnet.kernels.engine import Fast
from refnet.ops.integers import COMPARISONS
from tests.helpers.bits import awkward, floats
from tests.helpers.engines import FAST

A, B = floats((3, 4), "a"), floats((3, 4), "b")
A[0] = B[0]
WHOLE = np.array([[-7, 0, 3, 2**40], [1, 1, -1, 5]], np.int64)
MASK = np.array([True, False, False, True])
IDS = np.array([[1, -2], [0, 1]])
PLACES = np.array([[1, 1], [-2, 0], [0, 3]]) % 3
PAIRS = np.array([[0, 3], [-1, 1], [2, -4]])
SMALL = np.uint8([[1, 2, 250], [3, 255, 7]])
EXACT_OF = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum,
    "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor,
}  # fmt: skip
EXAMPLES: list[tuple[Op, tuple[np.ndarray, ...], object]] = [
    *[(ops.Compare(name), (A, B), compare(A, B)) for name, compare in COMPARISONS.items()],
    (ops.Compare("Less", ((4,),), swapped=True), (A, B[0]), B[0] < A),
    (ops.Compare("Equal", dtype="int64"), (WHOLE, WHOLE[::-1]), WHOLE[::-1] == WHOLE),
    (ops.Logical("And"), (A > 0, MASK), (A > 0) & MASK),
    (ops.Logical("Or", ((4,),)), (A > 0, MASK), (A > 0) | MASK),
    (ops.Logical("Xor"), (A > 0, MASK), (A > 0) ^ MASK),
    (ops.Logical("Not"), (MASK,), ~MASK),
    (ops.Where(), (A > 0, A, B[0]), np.where(A > 0, A, B[0])),
    (ops.Where(((4,),), (1, 2, 0)), (A, B, MASK), np.where(MASK, A, B)),
    (ops.Where(dtype="int64"), (MASK, WHOLE, WHOLE[::-1]), np.where(MASK, WHOLE, WHOLE[::-1])),
    (ops.Cast("int32"), (A * 100,), np.trunc(A * 100).astype(np.int32)),
    (ops.Cast("bool"), (A,), A != 0),
    (ops.Cast("float32", "int64"), (WHOLE,), WHOLE.astype(np.float32)),
    (ops.Cast("float32", "bool"), (MASK,), np.float32([1, 0, 0, 1])),
    (ops.Cast("uint8", "int64"), (WHOLE,), WHOLE.astype(np.uint8)),
    (ops.ArgExtreme(1), (A,), A.argmax(1)[:, None]),
    (ops.ArgExtreme(0, least=True, keepdims=False), (A,), A.argmin(0)),
    (
        ops.ArgExtreme(1, keepdims=False, last=True),
        (np.float32([[2, 5, 5, 1], [9, 1, 1, 1]]),),
        np.array([2, 0]),
    ),
    (ops.ArgExtreme(1, keepdims=False, dtype="int64"), (WHOLE,), WHOLE.argmax(1)),
    (ops.Take(0, table=(3, 4)), (IDS, A), A[IDS]),
    (ops.Take(1), (A, IDS), A[:, IDS]),
    (ops.Take(0, dtype="int64"), (WHOLE, np.array(-1)), WHOLE[1]),
    (ops.Take(1, (2, 4), "int64", "int32"), (IDS.astype(np.int32), WHOLE), WHOLE[:, IDS]),
    (ops.TakeAlong(1), (A, PLACES), np.take_along_axis(A, PLACES, 1)),
    (ops.TakeAlong(0, (3, 4)), (PLACES[:1], A), np.take_along_axis(A[:, :2], PLACES[:1], 0)),
    (ops.TakeAt(), (A, PAIRS), A[PAIRS[:, 0], PAIRS[:, 1]]),
    (ops.TakeAt((3, 4)), (PAIRS[:, :1], A), A[PAIRS[:, 0]]),
    *[(ops.Whole(kind), (WHOLE, WHOLE[::-1]), value(WHOLE, WHOLE[::-1])) for kind, value in EXACT_OF.items()],
    (ops.Whole("Add"), (WHOLE, WHOLE, WHOLE[:1]), WHOLE + WHOLE + WHOLE[:1]),
    (ops.Whole("Sub", ((4,),), swapped=True), (WHOLE, WHOLE[1]), WHOLE[1] - WHOLE),
    (ops.Whole("Div", ((1,),)), (WHOLE, np.array([2])), np.trunc(WHOLE / 2).astype(np.int64)),
    (ops.Whole("Mod", ((1,),)), (WHOLE, np.array([-3])), np.mod(WHOLE, -3)),
    (ops.Whole("Fmod", ((1,),)), (WHOLE, np.array([-3])), np.fmod(WHOLE, -3)),
    (ops.Whole("Add", ((1,),), dtype="uint8"), (SMALL, np.uint8([200])), (SMALL + np.uint8([200]))),
    (ops.Whole("Neg"), (WHOLE,), -WHOLE),
    (ops.Whole("Abs"), (WHOLE,), abs(WHOLE)),
    (ops.Whole("Sign"), (WHOLE,), np.sign(WHOLE)),
    (ops.Whole("BitwiseNot"), (WHOLE,), ~WHOLE),
    (ops.WholeReduce("ReduceSum", (1,)), (WHOLE,), WHOLE.sum(1, keepdims=True)),
    (ops.WholeReduce("ReduceSum", (0,), False, "uint8"), (SMALL,), SMALL.sum(0, np.uint8)),
    (ops.WholeReduce("ReduceProd", (0, 1), False, "uint8"), (SMALL % 4,), (SMALL % 4).prod(dtype=np.uint8)),
    (ops.WholeReduce("ReduceMax", (0,), False), (WHOLE,), WHOLE.max(0)),
    (ops.WholeReduce("ReduceMin", (1,), False), (WHOLE,), WHOLE.min(1)),
    (ops.WholeCumSum(1), (WHOLE,), WHOLE.cumsum(1)),
    (ops.WholeCumSum(0, True, True), (WHOLE,), np.stack([WHOLE[1], 0 * WHOLE[1]])),
]
EVERY = pytest.mark.parametrize(
    ("op", "inputs", "expected"), EXAMPLES, ids=[f"{i}-{op!r}" for i, (op, *_) in enumerate(EXAMPLES)]
)


def kinds(inputs: tuple[np.ndarray, ...]) -> list[TensorType]:
    return [TensorType(x.shape, x.dtype.name) for x in inputs]


def test_every_typed_op_has_examples():
    assert {type(op) for op, *_ in EXAMPLES} == set(ops.TYPED)


@EVERY
def test_values_types_and_golden(op, inputs, expected):
    expected = np.asarray(expected)
    kind = op.type(*kinds(inputs))
    found = op.run(*inputs, engine=FAST)
    assert (
        (kind.shape, kind.dtype) == (found.shape, found.dtype.name) == (expected.shape, expected.dtype.name)
    )
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()
    assert op.golden(*inputs, exact=DecideOrRefine(Fast(1))).tobytes() == found.tobytes()
    data = len(inputs) - len(op.weight_roles())
    assert op.weight_types(*kinds(inputs)[:data]) == tuple(kinds(inputs)[data:])
    assert op.flops(*kinds(inputs)).flops >= 0
    assert eval(repr(op), vars(ops)) == op
    assert not op.needs_recipe
    with pytest.raises(GraphError):
        op.type(*(TensorType(one.shape, "uint16") for one in kinds(inputs)))
    assert op.run(*inputs, engine=FAST).flags.owndata  # values share no memory


@EVERY
def test_a_bound_of_known_inputs_is_the_value(op, inputs, expected):
    interval = op.bound(*map(Interval.exactly, inputs), engine=FAST)
    assert not interval.radius.any()
    assert np.array_equal(interval.center, np.asarray(expected, np.float64))


@EVERY
def test_a_bound_holds_every_value_that_inputs_inside_can_give(op, inputs, expected):
    """Floats moved inside radii; where one result remains possible, it is found."""
    if inputs[0].dtype != np.float32:
        return
    radii = [
        np.abs(floats(x.shape, (i, "radius"))) / 4 * (x.dtype == np.float32) for i, x in enumerate(inputs)
    ]
    wide = [Interval(x.astype(np.float64), r.astype(np.float64)) for x, r in zip(inputs, radii, strict=True)]
    interval = op.bound(*wide, engine=FAST)
    assert np.isfinite(interval.radius).any()
    for k in range(40):
        share = [floats(x.shape, (i, k)) for i, x in enumerate(inputs)]
        if k % 2:
            share = [np.sign(s) for s in share]
        moved = [
            (x + r * s * (1 - 2.0**-20)).astype(np.float32) if x.dtype == np.float32 else x
            for x, r, s in zip(inputs, radii, share, strict=True)
        ]
        found = op.run(*moved, engine=FAST).astype(np.float64)
        assert (np.abs(found - interval.center) <= interval.radius).all()


def test_awkward_numbers():
    x = awkward((4, 60), "x", 0.5)
    y = awkward((4, 60), "y", 0.5)
    with np.errstate(all="ignore"):
        for name, compare in COMPARISONS.items():
            op = ops.Compare(name)
            interval = op.bound(Interval.exactly(x), Interval.exactly(y), engine=FAST)
            assert np.array_equal(op.run(x, y, engine=FAST), compare(x, y))
            assert (interval.radius == 0).all()
            assert np.array_equal(interval.center, compare(x, y))
    assert not ops.Compare("Equal").run(np.float32([np.nan]), np.float32([np.nan]), engine=FAST).any()
    assert ops.Compare("Equal").run(np.float32([0.0]), np.float32([-0.0]), engine=FAST).all()


@pytest.mark.parametrize("to", ["int8", "uint8", "int32", "int64", "uint64"])
def test_a_cast_out_of_range_has_no_right_result(to):
    limits = np.iinfo(to)
    x = np.float32(
        [np.nan, np.inf, -np.inf, 1e30, -1e30, float(limits.max) * 1.01 + 1, limits.min, 5.9, -0.9]
    )
    op = ops.Cast(to)
    assert op.unspecified(x).tolist() == [True] * 6 + [False] * 3
    found = op.run(x, engine=FAST)
    assert found.dtype == to
    assert found[6:].tolist() == [limits.min, 5, 0]
    assert np.isinf(op.bound(Interval.exactly(x), engine=FAST).radius[:6]).all()
    edge = np.nextafter(np.float32(2.0 ** (limits.bits - (limits.min < 0))), np.float32(0))
    assert op.unspecified(edge) == False  # noqa: E712
    assert op.run(edge[None], engine=FAST)[0] == int(edge)


def test_integers_that_float64_does_not_have_are_not_promised():
    op = ops.Compare("Equal", dtype="int64")
    big = np.array([2**53 + 1, 2**53 - 1], np.int64)
    assert op.run(big, big, engine=FAST).all()
    radius = op.bound(Interval.exactly(big + 1), Interval.exactly(big), engine=FAST).radius
    assert radius[0] == np.inf


def test_a_place_with_nan_has_no_right_result():
    x = np.float32([[1, np.nan, 3], [1, 2, 3]])
    op = ops.ArgExtreme(1)
    assert op.unspecified(x).tolist() == [[True], [False]]
    assert op.bound(Interval.exactly(x), engine=FAST).radius.tolist() == [[np.inf], [0.0]]


@pytest.mark.parametrize("kind", ["Div", "Mod", "Fmod"])
def test_a_division_by_zero_has_no_right_result(kind):
    op = ops.Whole(kind)
    a, b = np.array([7, -7, 0]), np.array([0, 2, 0])
    assert op.unspecified(a, b).tolist() == [True, False, True]
    assert op.run(a, b, engine=FAST)[[0, 2]].tolist() == [0, 0]
    assert op.bound(Interval.exactly(a), Interval.exactly(b), engine=FAST).radius.tolist() == [
        np.inf,
        0,
        np.inf,
    ]


def test_what_is_not_known_has_no_bound():
    wide = Interval(np.float64([[1, 2, 3]]), np.float64([[0, 1, 0]]))
    assert ops.Whole("Neg").bound(wide, engine=FAST).radius.tolist() == [[0, np.inf, 0]]
    assert ops.WholeReduce("ReduceMax", (1,)).bound(wide, engine=FAST).radius.tolist() == [[np.inf]]
    assert np.isinf(ops.WholeCumSum(1).bound(wide, engine=FAST).radius).all()
    table = Interval(np.arange(8.0).reshape(4, 2), np.full((4, 2), 0.5))
    found = ops.Take(0).bound(table, wide, engine=FAST)
    assert found.radius.tolist() == [[[0.5, 0.5], [np.inf, np.inf], [0.5, 0.5]]]
    assert found.center[0, [0, 2]].tolist() == [[2, 3], [6, 7]]
    far = Interval(np.float64([[4, -5]]), np.zeros((1, 2)))  # no such element
    assert np.isinf(ops.Take(0).bound(table, far, engine=FAST).radius).all()
    pairs = Interval(np.float64([[1, 0], [1, 1]]), np.float64([[0, 0], [0, 1]]))
    assert ops.TakeAt().bound(table, pairs, engine=FAST).radius.tolist() == [0.5, np.inf]


def test_sums_that_float64_does_not_have_are_not_promised():
    big = Interval.exactly(np.array([[2**52, 2**52, 2**52]]))
    assert np.isinf(ops.WholeReduce("ReduceSum", (1,)).bound(big, engine=FAST).radius).all()
    assert np.isinf(ops.Whole("Add").bound(big, big, engine=FAST).radius).sum() == 0
    half = Interval.exactly(np.array([[2**30 + 1, 2**22]]))
    assert ops.Whole("Mul").bound(half, half, engine=FAST).radius.tolist() == [[np.inf, 0]]


@pytest.mark.parametrize(
    ("op", "inputs", "said"),
    [
        (ops.Take(0), (A, np.array([[0, 3]])), r"the index 3 at \[0, 1\] is outside of -3 to 2"),
        (ops.Take(1, (3, 4)), (np.array([-5]), A), r"the index -5 at \[0\] is outside of -4 to 3"),
        (ops.TakeAt(), (A, np.array([[0, 0], [0, 4]])), r"the index 4 at \[1, 1\] is outside of -4 to 3"),
    ],
)
def test_an_index_outside_is_an_error(op, inputs, said):
    with pytest.raises(InputError, match=said):
        op.run(*inputs, engine=FAST)


def test_what_is_taken_is_explained():
    op = ops.Take(0, table=(3, 4))
    made = op.explain(IDS, A, at=(0, 1, 2), exact=DecideOrRefine(Fast(1)))
    assert (made.values.tolist(), made.places.tolist()) == ([A[1, 2]], [[1, 2]])
    assert (op.index_limit(0, *kinds((IDS, A))), op.index_limit(1, *kinds((IDS, A)))) == (3, None)
    assert ops.TakeAt().index_limit(1, *kinds((A, PAIRS))) == 3


def test_a_second_run_has_the_same_dtypes():
    """Plain repeats a run that it has captured."""
    x = np.float32([[1, 5, 2]])
    nodes = (
        Node("best", ops.ArgExtreme(1), ("x",)),
        Node("both", ops.Concat(1), ("best", "best")),
        Node("above", ops.Compare("Less"), ("x", "x")),
    )
    graph = Graph("g", {"x": TensorType((1, 3))}, nodes, {"a": "both", "b": "above"}).with_weights({})
    plain = refnet.Plain(1)
    for _ in range(4):
        found = refnet.run(graph, {"x": x}, plain)
        assert {name: (one.dtype.name, one.tolist()) for name, one in found.items()} == {
            "a": ("int64", [[1, 1]]),
            "b": ("bool", [[False] * 3]),
        }
