"""The reference engine equals the kernels to the last bit, and in plain Python it equals itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import pytest

from refnet.arithmetic.replay import registers, segments
from refnet.core.engine import ADD, BIAS, NOTHING, RELU, SCALE_SHIFT, ConvGeometry, Epilogue
from refnet.core.orders import Chain, Expr, Leaf, Order, Sum, stack_program
from refnet.kernels import attention, formulas, layout, panel, pointwise, pool, program, resample
from refnet.kernels import epilogue as steps
from refnet.kernels import segments as chains
from refnet.loops.engine import REFERENCE
from refnet.loops.fma import exact_fma, fma
from tests.helpers.bits import AWKWARD, awkward, floats, same_bits
from tests.helpers.engine_cases import CASES, METHODS

KINDS = {
    BIAS: steps.BIAS,
    SCALE_SHIFT: steps.SCALE_SHIFT,
    ADD: steps.ADD,
    RELU: steps.RELU,
}
LIBRARIES = {
    "sleef": formulas.SLEEF,
    "glibc": formulas.GLIBC,
    "glibc-unfused": formulas.GLIBC_UNFUSED,
    "onednn": formulas.ONEDNN,
    "onednn-unfused": formulas.ONEDNN_UNFUSED,
    "mlas-avx512": formulas.MLAS_512,
    "mlas-avx2": formulas.MLAS,
}
RULES = {
    "keeps": formulas.KEEPS,
    "drops": formulas.DROPS,
    "scales": formulas.SCALES,
    "running": formulas.RUNNING,
    "columns": formulas.COLUMNS,
}


def chain(epilogue: Epilogue) -> steps.Chain:
    kinds = tuple(KINDS[kind] for kind in epilogue.kinds)
    return steps.Chain(kinds, epilogue.scales, epilogue.shifts, epilogue.others)


@dataclass(frozen=True)
class Kernels:
    """The kernels' functions as methods of an engine."""

    threads: int

    def conv(self, x, w, geometry, epilogue):
        return panel.convolve(x, w, *geometry, self.threads, chain(epilogue))

    def dense(self, x, w, bias):
        return panel.dense(x, w, bias, self.threads)

    def max_pool(self, x, geometry):
        return pool.max_pool(x, *geometry, self.threads)

    def avg_pool(self, x, geometry, include_pad):
        return pool.avg_pool(x, *geometry, include_pad, self.threads)

    def radix_sum(self, x, radix):
        return attention.radix_sum(x, radix, self.threads)

    def weighted_sum(self, a, x, radix):
        return attention.weighted_sum(a, x, radix, self.threads)

    def apply(self, x, epilogue, factors):
        return steps.apply(x, chain(epilogue), self.threads, factors)

    def relu(self, x):
        return pointwise.relu(x, self.threads)

    def sigmoid(self, x):
        return pointwise.sigmoid(x, self.threads)

    def exp(self, x):
        return pointwise.exponential(x, self.threads)

    def scale_shift(self, x, scale, shift):
        return pointwise.scale_shift(x, scale, shift, self.threads)

    def softmax_parts(self, x):
        return pointwise.softmax_parts(x, self.threads)

    def upsample(self, x, scale):
        return resample.upsample(x, scale, self.threads)

    def concatenate(self, arrays, axis):
        return layout.concatenate(arrays, axis, self.threads)

    def conv_in_order(
        self, x, w, bias, geometry, kernel, output, order, zero, epilogue=NOTHING, addend=None, places=None
    ):
        """By the stack program, and where the order is a sum of chains by the tiles too."""
        place = (geometry.stride, geometry.pad, geometry.dilation, geometry.groups)
        window = program.Window(kernel, *place, output)
        n, outputs = x.shape[0], x.shape[1] if w is None else w.shape[0]
        shape, code = (n, outputs, *output), registers(order)
        at = np.arange(np.prod(shape)) if places is None else places
        y = program.elements_in_order(at, x, w, bias, window, zero, code, self.threads, addend)
        if places is not None:
            return y
        y = steps.apply(y.reshape(shape), chain(epilogue), self.threads)
        weights = np.ones((outputs, 1, *kernel), np.float32) if w is None else w
        if (parts := segments(order)) is not None and (
            panel.layout(x.shape, weights.shape, *place).output == shape
        ):
            args = (x, weights, bias, window, zero, parts, self.threads, chain(epilogue), addend)
            assert same_bits(chains.convolve_in_order(*args), y)
        return y

    def dense_in_order(self, x, w, bias, order, addend, places):
        y = program.dense_in_order(x, w, bias, registers(order), self.threads, addend)
        return y if places is None else y.reshape(-1)[places]

    def row_sums(self, x, order):
        return program.row_sums(x, registers(order), self.threads)

    def sigmoid_by(self, x, library):
        return formulas.sigmoid(x, LIBRARIES[library], self.threads)

    def exponential_by(self, x, library):
        return formulas.exponential(x, LIBRARIES[library], self.threads)

    def exponentials(self, x, library, lanes):
        return formulas.exponentials(x, LIBRARIES[library], lanes, self.threads)

    def quotients(self, e, total, divide):
        return formulas.quotients(e, total, divide, self.threads)

    def relu_by(self, x, rule):
        return formulas.relu(x, RULES[rule], self.threads)

    def normalised(self, *args):
        return formulas.normalised(*args, self.threads)

    def fused_multiply_add(self, a, b, c):
        return formulas.fused_multiply_add(a, b, c)

    def parts_sum(self, parts, weights, from_zero):
        return formulas.parts_sum(parts, weights, from_zero, self.threads)

    def max_pool_by(self, x, geometry, rule):
        return formulas.max_pool(x, *geometry, RULES[rule], self.threads)


@pytest.mark.parametrize("method", METHODS)
def test_loops_and_kernels_give_the_same_bits(method):
    """Every case of a method; the names of those that differ."""
    different = []
    with np.errstate(all="ignore"):
        for case in CASES:
            if case.method == method:
                expected = getattr(REFERENCE, method)(*case.arguments())
                for threads in (1, 3):
                    found = getattr(Kernels(threads), method)(*case.arguments())
                    if not same_bits(expected, found):
                        different.append((case.name, threads))
    assert different == []


def test_every_method_of_the_engine_has_cases():
    own = {name for name in vars(type(REFERENCE)) if not name.startswith("_")}
    assert own - {"name", "threads", "cached"} == set(METHODS)


IN_PYTHON = """
import sys
import numpy as np
from refnet.loops.engine import REFERENCE
from refnet.loops.fma import exact_fma, fma
from tests.helpers.engine_cases import CASES
assert fma is exact_fma  # nothing is compiled
small = [case for case in CASES if case.small]
np.savez(sys.argv[1], *(getattr(REFERENCE, case.method)(*case.arguments()) for case in small))
"""


def test_plain_python_gives_the_same_bits(tmp_path):
    """With NUMBA_DISABLE_JIT each loop is Python: the same bits, and not one warning."""
    path, root = tmp_path / "values.npz", Path(__file__).parents[2]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-W", "error", "-c", IN_PYTHON, str(path)]
    subprocess.run(command, check=True, env=environment, cwd=root)
    small = [case for case in CASES if case.small]
    assert {case.method for case in small} == set(METHODS)
    with np.load(path) as values:
        assert len(values.files) == len(small)
        different = [
            case.name
            for case, name in zip(small, values.files, strict=True)
            if not same_bits(values[name], np.asarray(getattr(REFERENCE, case.method)(*case.arguments())))
        ]
    assert different == []


# Contracts that no comparison of two engines shows.


def test_what_does_not_fit_is_refused():
    x, w = floats((1, 4, 5, 5), "x"), floats((3, 4, 3, 3), "w")
    plain = Chain(Leaf.ZERO, Order.of(range(36)))
    place = (ConvGeometry(), (3, 3), (3, 3))
    for geometry in (ConvGeometry(groups=2), ConvGeometry(groups=3)):
        with pytest.raises(ValueError, match="do not fit data"):
            REFERENCE.conv(x, w, geometry)
    with pytest.raises(ValueError, match="do not fit data"):
        REFERENCE.dense(floats((2, 3), "x"), floats((5, 4), "w"), None)
    with pytest.raises(ValueError, match="an order of 35 terms"):
        REFERENCE.conv_in_order(x, w, None, *place, Chain(Leaf.ZERO, Order.of(range(35))), False)
    for order, addend in ((plain, floats((1, 3, 3, 3), "a")), (Sum((plain, Leaf.ADDEND)), None)):
        with pytest.raises(ValueError, match="the addend does not fit"):
            REFERENCE.conv_in_order(x, w, None, *place, order, False, addend=addend)
    with pytest.raises(ValueError, match="reshape"):
        REFERENCE.apply(x, Epilogue().add(x[:, :2]))


def test_plain_order_is_one_expression_of_many():
    """conv has the terms outside and the positions inside, conv_in_order the other way round."""
    x, w = awkward((2, 6, 7, 8), "x", 0.2), awkward((4, 3, 3, 2), "w", 0.2)
    geometry, order = ConvGeometry((2, 3), (1, 2), (2, 1), 2), Chain(Leaf.ZERO, Order.of(range(18)))
    y = REFERENCE.conv(x, w, geometry)
    found = REFERENCE.conv_in_order(x, w, None, geometry, (3, 2), (y.shape[2], y.shape[3]), order, False)
    assert same_bits(y, found)


def test_a_program_says_what_the_expression_says():
    """The old compilation, which the kernels still use, gives the same instructions."""
    one, two = (
        Chain(seed, Order.of(range(i, 9, 2)), i == 0) for i, seed in enumerate((Leaf.BIAS, Leaf.ZERO))
    )
    deep: Expr = Sum((one, Sum((Leaf.ADDEND, Chain(Sum((Leaf.FIRST, two)), Order.of((9, 11, 10)))))))
    for expr in (Leaf.ZERO, one, Sum((one, two, Leaf.ADDEND)), deep):
        old, new = registers(expr), stack_program(expr)
        assert np.array_equal(old.code, np.array(new.code))
        assert np.array_equal(old.order, np.array(new.order, np.int64))
        assert old.depth == new.depth


# The FMA in plain Python.


@numba.njit(error_model="numpy")
def _fma_into(a, b, c, result):
    for i in range(a.size):
        result[i] = fma(a[i], b[i], c[i])


def triples(dtype, count):
    """Factors and summands: any bits; special ones; ties and cancellation; ties of subnormal results."""
    rng = np.random.default_rng(13)
    kind = np.dtype(f"u{dtype().itemsize}")
    info = np.finfo(dtype)
    special = np.array(
        [*AWKWARD, info.max, -info.max, info.tiny, -info.tiny, info.smallest_subnormal, 1 + info.eps], dtype
    )

    def few(low, high):  # few digits: sums of products are often ties
        return np.ldexp(rng.integers(-4096, 4096, count).astype(dtype), rng.integers(low, high, count))

    yield tuple(rng.integers(0, info.bits, (3, count), endpoint=True).astype(dtype))
    yield tuple(np.frombuffer(rng.bytes(count * kind.itemsize), kind).view(dtype) for _ in range(3))
    yield tuple(rng.choice(special, count) for _ in range(3))
    a, b = rng.standard_normal((2, count)).astype(dtype)
    yield a, b, np.nextafter(-a * b, rng.choice([-1, 1], count).astype(dtype))
    yield few(-20, 20), few(-20, 20), few(-20, 40)
    half = int(np.log2(info.smallest_subnormal)) // 2
    yield few(half - 16, half), few(half - 16, half), few(2 * half, 2 * half + 20)
    c = rng.standard_normal(count).astype(dtype)
    yield np.spacing(c) / 2, rng.choice(np.array([1, -1, 1 + info.eps, 1 - info.eps], dtype), count), c
    top = np.ldexp(1 + rng.random(count), info.maxexp // 2 - 1).astype(dtype)
    yield top, top * rng.choice(np.array([1, -1], dtype), count), rng.choice(special, count)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fma_of_plain_python_is_llvms(dtype):
    seen = 0
    with np.errstate(all="ignore"):
        for triple in triples(dtype, 6500):
            a, b, c = (np.ascontiguousarray(values, dtype) for values in triple)
            compiled = np.empty_like(a)
            _fma_into(a, b, c, compiled)
            python = np.array([exact_fma(*one) for one in zip(a, b, c, strict=True)], dtype)
            assert same_bits(compiled, python)
            seen += a.size
    assert seen > 50000


def test_an_fma_of_mixed_numbers_is_refused():
    with pytest.raises(TypeError, match="three float32 or three float64"):
        exact_fma(np.float32(1), np.float32(1), 1.0)
    assert type(exact_fma(1.0, np.float64(2), 3.0)) is np.float64
