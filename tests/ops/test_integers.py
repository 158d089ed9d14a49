"""Ops that give or take integers and booleans: types, values, bounds, against NumPy and plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import GraphError
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
    assert op.flops(*kinds(inputs)).flops > 0
    assert eval(repr(op), vars(ops)) == op
    assert not op.needs_recipe
    with pytest.raises(GraphError):
        op.type(*(TensorType(one.shape, "uint16") for one in kinds(inputs)))


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
