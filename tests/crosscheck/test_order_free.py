"""Inputs on which no order of summation can differ: whole ops equal both frameworks to the last bit.

All factors are integers times one power of two per array, nonzero, and small enough that every partial
sum of products, in any order and with or without FMA, is an integer of less than 2^24 grid units: it is
exact in float32, and so is the result. (Nonzero, because a sum of nothing but products with zeros has a
sign that does depend on the order.) What is left to differ is the meaning: padding, stride, dilation,
groups, rounding of sizes, divisors, broadcasting. The examples are the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from refnet.core.errors import GraphError
from refnet.core.op import F32, Interval
from refnet.frameworks.process import Worker
from refnet.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    ExpandDims,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Mul,
    Op,
    Relu,
    Sigmoid,
    Slice,
    Softmax,
    TensorType,
    UpsampleNearest,
)
from tests.crosscheck.judge import same_bits, within_bound
from tests.helpers.engines import FAST

pytestmark = pytest.mark.crosscheck

EXACT = 2**24
"""Integers up to here are exact in float32."""

SWEEP = settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FEW = settings(SWEEP, max_examples=100)

Pair = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Arrays of nonzero integers times a power of two, made from a seed."""

    seed: int
    exponents: Pair

    def pair(self, first: tuple[int, ...], second: tuple[int, ...], terms: int) -> tuple[F32, F32]:
        """Two arrays, sums of `terms` products of whose elements stay below 2^23 units."""
        most = min(255, math.isqrt((EXACT // 2 - 1) // terms))
        assert most >= 1
        assert terms * most * most < EXACT // 2
        return self.array(first, most, 0), self.array(second, most, 1)

    def bias(self, count: int) -> F32:
        """Addends on the grid of the products, below the other 2^23 units."""
        values = self._integers((count,), EXACT // 2 - 1, 2)
        return np.ldexp(values.astype(np.float32), sum(self.exponents))

    def summands(self, shape: tuple[int, ...], terms: int, factor: int = 1) -> F32:
        """An array any `terms` elements of which can be added; all are multiples of `factor`."""
        most = min(2**16, (EXACT - 1) // terms // factor)
        assert most >= 1
        return self.array(shape, most, 0) * np.float32(factor)

    def array(self, shape: tuple[int, ...], most: int, which: int) -> F32:
        """Nonzero integers of at most `most`, times 2^exponents[which]."""
        values = self._integers(shape, most, which).astype(np.float32)
        return np.ldexp(values, self.exponents[which])

    def _integers(self, shape: tuple[int, ...], most: int, which: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, which])
        return generator.integers(1, most, shape, endpoint=True) * generator.choice([-1, 1], shape)


grids = st.builds(Grid, st.integers(0, 2**32 - 1), st.tuples(st.integers(-12, 4), st.integers(-12, 4)))
sizes = st.tuples(st.integers(1, 13), st.integers(1, 13))
"""Image heights and widths: 1x1, odd, not square."""


def pairs(least: int, most: int) -> st.SearchStrategy[Pair]:
    """Attributes of height and width, which may differ."""
    return st.tuples(st.integers(least, most), st.integers(least, most))


def shape_of(op: Op, *arrays: F32) -> tuple[int, ...]:
    """The shape that refnet's rule gives. Raises GraphError if it refuses."""
    return op.type(*(TensorType(tuple(a.shape)) for a in arrays)).shape


def asked(worker: Worker, function: str, arguments: dict[str, Any], **arrays: F32 | None) -> F32:
    """The framework's result."""
    given_ = {name: array for name, array in arrays.items() if array is not None}
    return worker.ask("op", {"function": function, "arguments": arguments}, given_).arrays["y"]


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Conv, F32, F32, F32 | None]:
    """Few channels, and multiples of 8 and 16, for which libraries have other kernels."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 4, 8]))
    c, o = (draw(st.sampled_from([1, 2, 3, 4, 5, 8, 16])) for _ in range(2))
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(1, 3))
    pad = draw(pairs(0, 4))
    height, width = draw(sizes)
    op = Conv(groups * o, kernel, stride, pad, dilation, groups, draw(st.booleans()))
    for size, k, p, d in zip((height, width), kernel, pad, dilation, strict=True):
        assume(size + 2 * p >= d * (k - 1) + 1)
    grid = draw(grids)
    image = (draw(st.integers(1, 3)), groups * c, height, width)
    x, w = grid.pair(image, (groups * o, c, *kernel), c * kernel[0] * kernel[1])
    return op, x, w, grid.bias(groups * o) if op.bias else None


@SWEEP
@given(case=convolutions())
def test_convolution_mxnet(mxnet: Worker, case: tuple[Conv, F32, F32, F32 | None]) -> None:
    op, x, w, b = case
    arguments = {
        "kernel": op.kernel,
        "stride": op.stride,
        "pad": op.pad,
        "dilate": op.dilation,
        "num_filter": op.channels,
        "num_group": op.groups,
        "no_bias": not op.bias,
    }
    found = asked(mxnet, "Convolution", arguments, x=x, weight=w, bias=b)
    same_bits(found, op.run(*(a for a in (x, w, b) if a is not None), engine=FAST))


@SWEEP
@given(case=convolutions())
def test_convolution_torch(torch: Worker, case: tuple[Conv, F32, F32, F32 | None]) -> None:
    op, x, w, b = case
    arguments = {"stride": op.stride, "padding": op.pad, "dilation": op.dilation, "groups": op.groups}
    found = asked(torch, "conv2d", arguments, x=x, weight=w, bias=b)
    same_bits(found, op.run(*(a for a in (x, w, b) if a is not None), engine=FAST))


@st.composite
def dense(draw: st.DrawFn) -> tuple[Dense, F32, F32, F32 | None]:
    batch, terms, units = draw(st.integers(1, 9)), draw(st.integers(1, 700)), draw(st.integers(1, 40))
    op, grid = Dense(units, draw(st.booleans())), draw(grids)
    x, w = grid.pair((batch, terms), (units, terms), terms)
    return op, x, w, grid.bias(units) if op.bias else None


@SWEEP
@given(case=dense(), spatial=st.booleans())
def test_dense_mxnet(mxnet: Worker, case: tuple[Dense, F32, F32, F32 | None], spatial: bool) -> None:
    op, x, w, b = case
    if spatial and x.shape[1] % 4 == 0:
        x = x.reshape(len(x), -1, 2, 2)
    arguments = {"num_hidden": op.units, "no_bias": not op.bias}
    found = asked(mxnet, "FullyConnected", arguments, x=x, weight=w, bias=b)
    same_bits(found, op.run(*(a for a in (x, w, b) if a is not None), engine=FAST))


@SWEEP
@given(case=dense())
def test_dense_torch(torch: Worker, case: tuple[Dense, F32, F32, F32 | None]) -> None:
    op, x, w, b = case
    found = asked(torch, "linear", {}, x=x, weight=w, bias=b)
    same_bits(found, op.run(*(a for a in (x, w, b) if a is not None), engine=FAST))


@st.composite
def windows(
    draw: st.DrawFn, conventions: tuple[str, ...], half: bool, factor: int = 1
) -> tuple[dict[str, Any], F32]:
    """Attributes of a pool, and an image that it fits into.

    half: pad at most kernel / 2 (PyTorch's rule). factor: of all elements.
    """
    kernel, stride = draw(pairs(1, 5)), draw(pairs(1, 4))
    pad = tuple(draw(st.integers(0, k // 2 if half else k - 1)) for k in kernel)
    height, width = draw(sizes)
    attributes = {
        "kernel": kernel,
        "stride": stride,
        "pad": pad,
        "convention": draw(st.sampled_from(conventions)),
    }
    for size, k, p in zip((height, width), kernel, pad, strict=True):
        assume(size + 2 * p >= k)
    image = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 8, 16, 17])), height, width)
    return attributes, draw(grids).summands(image, kernel[0] * kernel[1], factor)


MXNET_WINDOWS = windows(("valid", "full"), half=False)
TORCH_WINDOWS = windows(("valid", "ceil"), half=True)


def mxnet_pool(worker: Worker, kind: str, attributes: dict[str, Any], x: F32, **more: Any) -> F32:
    arguments = {
        "pool_type": kind,
        "kernel": attributes["kernel"],
        "stride": attributes["stride"],
        "pad": attributes["pad"],
        "pooling_convention": attributes["convention"],
        **more,
    }
    return asked(worker, "Pooling", arguments, x=x)


def torch_pool(worker: Worker, kind: str, attributes: dict[str, Any], x: F32, **more: Any) -> F32:
    arguments = {
        "kernel_size": attributes["kernel"],
        "stride": attributes["stride"],
        "padding": attributes["pad"],
        "ceil_mode": attributes["convention"] == "ceil",
        **more,
    }
    return asked(worker, f"{kind}_pool2d", arguments, x=x)


def allowed(op: Op, x: F32) -> None:
    """Skip what refnet refuses: MXNet's `full` may add a window that holds no element of the image."""
    try:
        shape_of(op, x)
    except GraphError as error:
        if "lies outside" not in str(error) or "convention='full'" not in str(error):
            raise
        assume(False)


@SWEEP
@given(case=MXNET_WINDOWS)
def test_max_pool_mxnet(mxnet: Worker, case: tuple[dict[str, Any], F32]) -> None:
    attributes, x = case
    op = MaxPool(**attributes)
    allowed(op, x)
    same_bits(mxnet_pool(mxnet, "max", attributes, x), op.run(x, engine=FAST))


@SWEEP
@given(case=TORCH_WINDOWS)
def test_max_pool_torch(torch: Worker, case: tuple[dict[str, Any], F32]) -> None:
    attributes, x = case
    op = MaxPool(**attributes)
    allowed(op, x)
    same_bits(torch_pool(torch, "max", attributes, x), op.run(x, engine=FAST))


@SWEEP
@given(case=windows(("valid", "full"), half=False, factor=math.lcm(*range(1, 6)) ** 2), include=st.booleans())
def test_average_pool_mxnet(mxnet: Worker, case: tuple[dict[str, Any], F32], include: bool) -> None:
    """MXNet divides the sum, or (where `full` adds a window) each element before the sum.

    Here every element is a multiple of every possible divisor, a product of two numbers up to 5, so that
    no quotient is rounded either way.
    """
    attributes, x = case
    op = AvgPool(**attributes, count_include_pad=include)
    allowed(op, x)
    same_bits(mxnet_pool(mxnet, "avg", attributes, x, count_include_pad=include), op.run(x, engine=FAST))


@SWEEP
@given(case=MXNET_WINDOWS, include=st.booleans())
def test_average_pool_mxnet_lies_within_its_bound(
    mxnet: Worker, case: tuple[dict[str, Any], F32], include: bool
) -> None:
    """Other elements, whose quotients are rounded: once, or once per element."""
    attributes, x = case
    op = AvgPool(**attributes, count_include_pad=include)
    allowed(op, x)
    for tiny in (x, np.ldexp(np.sign(x) * 12, -149).astype(np.float32)):  # quotients that underflow, too
        found = mxnet_pool(mxnet, "avg", attributes, tiny, count_include_pad=include)
        within_bound(found, op.bound(Interval.exactly(tiny), engine=FAST))


@SWEEP
@given(case=TORCH_WINDOWS, include=st.booleans())
def test_average_pool_torch(torch: Worker, case: tuple[dict[str, Any], F32], include: bool) -> None:
    """PyTorch divides the sum, which is exact, once: one right result for any divisor."""
    attributes, x = case
    op = AvgPool(**attributes, count_include_pad=include)
    allowed(op, x)
    same_bits(torch_pool(torch, "avg", attributes, x, count_include_pad=include), op.run(x, engine=FAST))


images = st.tuples(
    st.integers(1, 3), st.sampled_from([1, 2, 3, 8, 16, 17]), st.integers(1, 13), st.integers(1, 13)
)


@SWEEP
@given(grid=grids, image=images)
def test_global_average_pool(mxnet: Worker, torch: Worker, grid: Grid, image: tuple[int, ...]) -> None:
    """One division of an exact sum; but MXNet's adaptive pool divides twice, by width and then by height.

    So that one is judged by its bits where both divisors are powers of two, else by the bound.
    """
    x = grid.summands(image, image[2] * image[3])
    op = GlobalAvgPool()
    expected = op.run(x, engine=FAST)
    arguments = {"pool_type": "avg", "global_pool": True, "kernel": (1, 1)}
    same_bits(asked(mxnet, "Pooling", arguments, x=x), expected)
    same_bits(asked(torch, "adaptive_avg_pool2d", {"output_size": 1}, x=x), expected)
    adaptive = asked(mxnet, "_contrib_AdaptiveAvgPooling2D", {"output_size": 1}, x=x)
    if all(n & (n - 1) == 0 for n in image[2:]):
        same_bits(adaptive, expected)
    else:
        within_bound(adaptive, op.bound(Interval.exactly(x), engine=FAST))


@SWEEP
@given(grid=grids, image=images, power=st.integers(-3, 3), fix=st.booleans())
def test_batch_norm(
    mxnet: Worker, torch: Worker, grid: Grid, image: tuple[int, ...], power: int, fix: bool
) -> None:
    """var + eps is a power of 4, exactly: root, inverse and every product of any formula are exact."""
    eps = 2.0**-10
    c = image[1]
    var = np.full(c, 4.0**power - eps, np.float32)
    assert (var.astype(np.float64) + eps == 4.0**power).all()
    assert (var + np.float32(eps) == np.float32(4.0**power)).all()
    x, mean = (Grid(grid.seed + i, (0, 0)).array(s, 100, 0) for i, s in enumerate((image, (c,))))
    gamma, beta = (Grid(grid.seed + i, (-3, 0)).array((c,), 100, 0) for i in (2, 3))
    expected = BatchNorm(eps, fix_gamma=fix).run(x, gamma, beta, mean, var, engine=FAST)
    arguments = {"eps": eps, "fix_gamma": fix, "use_global_stats": True}
    same_bits(asked(mxnet, "BatchNorm", arguments, x=x, gamma=gamma, beta=beta, mean=mean, var=var), expected)
    if fix:
        gamma = np.ones_like(gamma)
    same_bits(
        asked(torch, "batch_norm", {"eps": eps}, x=x, gamma=gamma, beta=beta, mean=mean, var=var), expected
    )


SPECIAL = np.float32(
    [0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**-126, -(2.0**-126), 3e38, -3e38, 0.1, -0.1]
)


def anything(seed: int, shape: tuple[int, ...]) -> F32:
    """Finite float32, some of them extreme: for ops that only move elements or round once."""
    generator = np.random.default_rng(seed)
    x = np.ldexp(generator.standard_normal(shape), generator.integers(-20, 20, shape)).astype(np.float32)
    return np.where(generator.random(shape) < 0.2, generator.choice(SPECIAL, shape), x).astype(np.float32)


seeds = st.integers(0, 2**32 - 1)


@FEW
@given(seed=seeds, image=images)
def test_relu(mxnet: Worker, torch: Worker, seed: int, image: tuple[int, ...]) -> None:
    x = anything(seed, image)
    expected = Relu().run(x, engine=FAST)
    same_bits(asked(mxnet, "Activation", {"act_type": "relu"}, x=x), expected, Relu())
    same_bits(asked(mxnet, "relu", {}, x=x), expected, Relu())
    same_bits(asked(torch, "relu", {}, x=x), expected, Relu())


def test_where_frameworks_vary(mxnet: Worker, torch: Worker) -> None:
    """Why relu and max pooling leave the sign of a zero and NaN open: what each framework really does."""
    x = np.float32([[[[-0.0, np.nan, 1.0, -1.0]]]])
    found = {
        "torch": asked(torch, "relu", {}, x=x),
        "mxnet Activation": asked(mxnet, "Activation", {"act_type": "relu"}, x=x),
        "mxnet relu": asked(mxnet, "relu", {}, x=x),
    }
    own = Relu().run(x, engine=FAST)
    assert not np.signbit(own[0, 0, 0, 0])
    assert np.isnan(own[0, 0, 0, 1])
    for value in found.values():
        assert Relu().agrees(value, own).all()
        assert not Relu().agrees(value + 1, own).all()
    assert np.signbit(found["torch"][0, 0, 0, 0])
    assert np.isnan(found["torch"][0, 0, 0, 1])
    assert found["mxnet Activation"][0, 0, 0, 1] == 0
    assert np.isnan(found["mxnet relu"][0, 0, 0, 1])


@FEW
@given(seed=seeds, image=images, scale=st.integers(1, 4))
def test_upsampling(mxnet: Worker, torch: Worker, seed: int, image: tuple[int, ...], scale: int) -> None:
    x = anything(seed, image)
    expected = UpsampleNearest(scale).run(x, engine=FAST)
    same_bits(asked(mxnet, "UpSampling", {"scale": scale, "sample_type": "nearest"}, x=x), expected)
    same_bits(asked(torch, "upsample_nearest", {"scale_factor": scale}, x=x), expected)


@FEW
@given(seed=seeds, image=images, more=st.lists(st.integers(1, 9), max_size=3), axis=st.integers(0, 3))
def test_concat(
    mxnet: Worker, torch: Worker, seed: int, image: tuple[int, ...], more: list[int], axis: int
) -> None:
    shapes = [image, *((*image[:axis], n, *image[axis + 1 :]) for n in more)]
    arrays = {f"x{i}": anything(seed + i, s) for i, s in enumerate(shapes)}
    expected = Concat(axis).run(*arrays.values(), engine=FAST)
    same_bits(asked(mxnet, "Concat", {"dim": axis}, **arrays), expected)
    same_bits(asked(torch, "cat", {"dim": axis}, **arrays), expected)


@FEW
@given(seed=seeds, image=images, data=st.data())
def test_moves(mxnet: Worker, torch: Worker, seed: int, image: tuple[int, ...], data: st.DataObject) -> None:
    x = anything(seed, image)
    same_bits(asked(mxnet, "Flatten", {}, x=x), Flatten().run(x, engine=FAST))
    same_bits(asked(torch, "flatten", {}, x=x), Flatten().run(x, engine=FAST))
    axis = data.draw(st.integers(0, 3))
    same_bits(asked(mxnet, "expand_dims", {"axis": axis}, x=x), ExpandDims(axis).run(x, engine=FAST))
    begin = data.draw(st.integers(0, image[axis] - 1))
    end = data.draw(st.integers(begin + 1, image[axis]))
    found = asked(mxnet, "slice_axis", {"axis": axis, "begin": begin, "end": end}, x=x)
    same_bits(found, Slice(begin, end, axis).run(x, engine=FAST))


def finite(op: Op, *arrays: F32) -> F32:
    """The op's value, where nothing overflows (the judge takes no infinities)."""
    value = op.run(*arrays, engine=FAST)
    assume(np.isfinite(value).all())
    return value


@FEW
@given(seed=seeds, image=images)
def test_one_addition_and_one_multiplication(
    mxnet: Worker, torch: Worker, seed: int, image: tuple[int, ...]
) -> None:
    a, b = (np.clip(anything(seed + i, image), -1e18, 1e18) for i in (0, 1))
    total = finite(Add(), a, b)
    same_bits(asked(mxnet, "add_n", {}, x0=a, x1=b), total)
    same_bits(asked(mxnet, "elemwise_add", {}, x0=a, x1=b), total)
    same_bits(asked(torch, "add", {}, x0=a, x1=b), total)
    column = np.ascontiguousarray(b[:, :, :1, :1])
    product = finite(Mul(), a, column)
    same_bits(asked(mxnet, "broadcast_mul", {}, x0=a, x1=column), product)
    same_bits(asked(torch, "mul", {}, x0=a, x1=column), product)


@FEW
@given(grid=grids, image=images, count=st.integers(1, 6))
def test_add_of_any_number(mxnet: Worker, grid: Grid, image: tuple[int, ...], count: int) -> None:
    arrays = {f"x{i}": Grid(grid.seed + i, grid.exponents).summands(image, count) for i in range(count)}
    same_bits(asked(mxnet, "add_n", {}, **arrays), Add(count).run(*arrays.values(), engine=FAST))


@FEW
@given(seed=seeds, image=images, scale=st.sampled_from([0.01, 1.0, 10.0, 60.0]))
def test_softmax_and_sigmoid_lie_within_their_bounds(
    mxnet: Worker, torch: Worker, seed: int, image: tuple[int, ...], scale: float
) -> None:
    """No input makes an exp order-free; the axis and the formula still show."""
    x = (np.random.default_rng(seed).standard_normal(image) * scale).astype(np.float32)
    functions: list[Callable[[], tuple[F32, Op]]] = [
        lambda: (asked(mxnet, "Activation", {"act_type": "sigmoid"}, x=x), Sigmoid()),
        lambda: (asked(mxnet, "sigmoid", {}, x=x), Sigmoid()),
        lambda: (asked(torch, "sigmoid", {}, x=x), Sigmoid()),
    ]
    for axis in range(4):
        functions.append(lambda axis=axis: (asked(mxnet, "softmax", {"axis": axis}, x=x), Softmax(axis)))
        functions.append(lambda axis=axis: (asked(torch, "softmax", {"dim": axis}, x=x), Softmax(axis)))
    for function in functions:
        found, op = function()
        interval = op.bound(Interval.exactly(x), engine=FAST)
        within_bound(found, interval)
        within_bound(op.run(x, engine=FAST), interval)
