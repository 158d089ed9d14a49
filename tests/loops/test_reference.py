"""The reference engine equals the kernels to the last bit, and in plain Python it equals itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from refnet.core.engine import ConvGeometry, Epilogue
from refnet.core.orders import Chain, Code, Expr, Leaf, Order, StackProgram, Sum, stack_program
from refnet.kernels.engine import Fast
from refnet.kernels.orders import program_arrays
from refnet.kernels.program import Window, elements_in_order
from refnet.loops.engine import REFERENCE
from refnet.loops.fma import exact_fma, fma
from tests.helpers.bits import AWKWARD, awkward, floats, same_bits
from tests.helpers.engine_cases import CASES, METHODS
from tests.helpers.ragged_cases import ragged_pools


def without_images(argument):
    """The argument of a batch of none: arrays without rows, in lists and as the epilogue's addends, too."""
    if isinstance(argument, np.ndarray):
        return argument[:0] if argument.ndim else argument.reshape(1)[:0]
    if isinstance(argument, list):
        return [without_images(one) for one in argument]
    if isinstance(argument, Epilogue):
        return argument.over(tuple(one[:0] for one in argument.others))
    return argument


PER_IMAGE = {"weighted_sum": (0, 1), "apply": (0, 1, 2), "fused_multiply_add": (0, 1, 2)}
PER_IMAGE |= {"real": (1,), "conv": (0, 3), "conv_in_order": (0, 8, 9, 10), "dense_in_order": (0, 4, 5)}
"""Which arguments have a row per image; of the other methods only the first."""


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_batch_has_empty_results(method):
    """Of the same shape in both engines, whatever the order, the addend and the places that are asked for."""
    different, compared, of = [], 0, PER_IMAGE.get(method, (0,))
    for case in CASES:
        if case.method == method and not (method == "apply" and case.arguments()[0].ndim == 1):
            none = [without_images(one) if i in of else one for i, one in enumerate(case.arguments())]
            expected = getattr(REFERENCE, method)(*none)
            found = getattr(Fast(2), method)(*none)
            compared += 1
            if expected.size or (found.shape, found.dtype) != (expected.shape, expected.dtype):
                different.append((case.name, expected.shape, found.shape))
    assert different == []
    assert compared


def test_the_stack_program_gives_the_same_bits():
    """Orders that the tiles compute, too: element by element."""
    compared = 0
    for case in CASES:
        if case.method != "conv_in_order":
            continue
        x, w, bias, geometry, kernel, output, order, zero, epilogue, addend, places = (
            *case.arguments(),
            *[None] * (11 - len(case.arguments())),
        )
        if places is not None or (epilogue is not None and epilogue.kinds):
            continue
        outputs = x.shape[1] if w is None else w.shape[0]
        shape = (x.shape[0], outputs, *output)
        window = Window(kernel, *geometry, output)
        at = np.arange(np.prod(shape))
        with np.errstate(all="ignore"):
            found = elements_in_order(at, x, w, bias, window, zero, program_arrays(order), 1, addend)
            assert same_bits(found.reshape(shape), REFERENCE.conv_in_order(*case.arguments())), case.name
        compared += 1
    assert compared > 10


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


def pooled(x, windows, include_pad):
    """The maximum and the average by NumPy, all windows at once: one place of the window after the other."""
    (kernel, stride, pad, output), size = windows, x.shape[2:]
    ends = [(o - 1) * s + k - p for o, s, k, p in zip(output, stride, kernel, pad, strict=True)]
    around = [(p, max(end - h, 0)) for p, end, h in zip(pad, ends, size, strict=True)]
    best = np.full((*x.shape[:2], *output), -np.inf, x.dtype)
    total = np.zeros_like(best)
    largest, summed = (np.pad(x, [(0, 0), (0, 0), *around], constant_values=v) for v in (-np.inf, 0))
    for place in np.ndindex(kernel):
        where = [slice(p, p + (o - 1) * s + 1, s) for p, o, s in zip(place, output, stride, strict=True)]
        value = largest[:, :, *where]
        best = np.where((value > best) | np.isnan(value), value, best)
        total = total + summed[:, :, *where]
    counts = []
    for o, s, k, p, h in zip(output, stride, kernel, pad, size, strict=True):
        first = np.arange(o) * s - p
        inside = np.minimum(first + k, h) - np.maximum(first, 0)
        counts.append(np.minimum(first + k, h + p) - first if include_pad else inside)
    return best, (total / np.multiply.outer(*counts)).astype(x.dtype)


def test_pools_equal_numpy():
    """The loops that the kernels are compared with, against something else than loops."""
    with np.errstate(all="ignore"):
        for case in ragged_pools():
            x, windows, *include = case.arguments()
            best, mean = pooled(x, windows, *include or (False,))
            found = getattr(REFERENCE, case.method)(*case.arguments())
            assert same_bits(found, mean if include else best), case.name


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


def written(expr: Expr) -> str:
    """The expression in words: sums in parentheses, then the terms that a chain adds."""
    if isinstance(expr, Leaf):
        return expr.name
    if isinstance(expr, Sum):
        first, *others = map(written, expr.parts)
        for other in others:
            first = f"({first} + {other})"
        return first
    return f"{written(expr.seed)} {'fma' if expr.fused else 'mul'} {expr.terms.indices()}"


def executed(program: StackProgram) -> str:
    """The same words from the stack program, by what `Code` says of each instruction."""
    stack: list[str] = []
    for what, at, count in program.code:
        if what == Code.ADD:
            second, first = stack.pop(), stack.pop()
            stack.append(f"({first} + {second})")
        elif what in (Code.CHAIN, Code.ROUNDED):
            word, terms = ("fma", "mul")[what == Code.ROUNDED], program.order[at : at + count]
            stack.append(f"{stack.pop()} {word} {list(terms)}")
        else:
            stack.append(Code(what).name)
        assert len(stack) <= program.depth
    (found,) = stack
    return found


def test_a_program_says_what_the_expression_says():
    one, two = (
        Chain(seed, Order.of(range(i, 9, 2)), i == 0) for i, seed in enumerate((Leaf.BIAS, Leaf.ZERO))
    )
    deep: Expr = Sum((one, Sum((Leaf.ADDEND, Chain(Sum((Leaf.FIRST, two)), Order.of((9, 11, 10)))))))
    for expr in (Leaf.ZERO, one, Sum((one, two, Leaf.ADDEND)), deep):
        assert executed(stack_program(expr)) == written(expr)


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
