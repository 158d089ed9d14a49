"""Calls of an engine's methods, as data: what two engines must answer with the same bits.

A case is a method of core/engine.py and its arguments. Small ones are cheap enough for loops in plain
Python. To compare another shape or order, add a row to a table below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.engine import CLIP, ConvGeometry, Epilogue, PoolGeometry
from refnet.core.orders import Chain, Expr, Leaf, Order, Sum
from refnet.kernels.geometry import TERMS
from refnet.kernels.layout import GRAIN as JOINED_GRAIN
from refnet.loops.elementary import NAMES as ELEMENTARY
from refnet.loops.real import NAMES
from tests.helpers.bits import AWKWARD, awkward, floats
from tests.helpers.recipes import blocked, lanes, split

FLOATS = np.float32, np.float64


@dataclass(frozen=True)
class Case:
    """engine.method(*arguments()); the arguments are made anew each time."""

    name: str
    method: str
    arguments: Callable[[], tuple[Any, ...]]
    small: bool = True


def data(shape: tuple[int, ...], key: object, share: float, dtype: Any = np.float32) -> np.ndarray:
    """Numbers between -1 and 1, a share of them awkward."""
    return awkward(shape, key, share).astype(dtype)


Shapes = tuple[Any, ...]
"""A convolution: x, w, stride, pad, dilation, groups."""

SMALL: dict[str, Shapes] = {
    "1x1": ((2, 5, 3, 4), (7, 5, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "3x3": ((1, 4, 5, 6), (6, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "ragged": ((2, 3, 7, 9), (5, 3, 3, 2), (2, 1), (1, 2), (1, 2), 1),
    "one output": ((1, 3, 5, 5), (1, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "groups": ((1, 6, 5, 5), (9, 2, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    "depthwise": ((2, 6, 6, 5), (6, 1, 3, 3), (2, 2), (1, 1), (1, 1), 6),
    "strides": ((1, 3, 11, 13), (4, 3, 2, 3), (3, 5), (0, 1), (1, 1), 1),
    "dilated": ((1, 2, 9, 9), (3, 2, 3, 3), (1, 1), (3, 2), (3, 2), 1),
    "wide padding": ((1, 2, 2, 3), (4, 2, 2, 2), (1, 1), (4, 5), (1, 1), 1),
    "one position": ((3, 20, 1, 1), (10, 20, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "whole map": ((2, 3, 4, 5), (6, 3, 4, 5), (1, 1), (0, 0), (1, 1), 1),
}
LARGE: dict[str, Shapes] = {
    "stem": ((1, 3, 64, 64), (32, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    "middle": ((2, 48, 28, 28), (64, 48, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "many terms": ((1, 160, 7, 7), (160, 160, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "cardinal": ((1, 64, 20, 20), (128, 32, 3, 3), (2, 2), (1, 1), (1, 1), 2),
    "pointwise": ((2, 270, 17, 19), (96, 270, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "depthwise": ((1, 56, 28, 28), (56, 1, 3, 3), (1, 1), (1, 1), (1, 1), 56),
}
ODD = {"plain numbers": (0.0, 0.0), "special data": (0.1, 0.0), "special weights": (0.05, 0.1)}


def output(case: Shapes) -> tuple[int, int, int, int]:
    """The shape of a convolution's output."""
    x, w, stride, pad, dilation, _ = case
    rows, columns = (
        (x[2 + i] + 2 * pad[i] - dilation[i] * (w[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    )
    return (x[0], w[0], rows, columns)


def epilogue(kinds: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Epilogue:
    """Steps by their letters: b(ias), s(cale and shift), a(ddition), c(lip), r(elu)."""
    steps = Epilogue()
    for i, kind in enumerate(kinds):
        key = (kinds, i)
        if kind == "b":
            steps = steps.bias(data(shape[1:2], key, 0.1, dtype))
        elif kind == "s":
            steps = steps.scale_shift(data(shape[1:2], key, 0.0, dtype), data(shape[1:2], key, 0.1, dtype))
        elif kind == "a":
            steps = steps.add(data(shape, key, 0.1, dtype))
        elif kind == "c":
            low, high = ((0, 6), (-0.5, np.inf), (-0.0, 0.0), (1, -1))[(i + shape[1]) % 4]
            steps = steps.then(CLIP, np.array([low], np.float32), np.array([high], np.float32))
        else:
            steps = steps.relu()
    return steps


def convolutions() -> Iterator[Case]:
    for table, small in ((SMALL, True), (LARGE, False)):
        for name, case in table.items():
            for odd, (share, weights) in ODD.items():
                for dtype in FLOATS if small else FLOATS[:1]:
                    for kinds in ("", "sar") if small else ("br",):
                        text = f"{name}, {odd}, {np.dtype(dtype).name}, {kinds or 'nothing'}"

                        def arguments(case=case, share=share, weights=weights, dtype=dtype, kinds=kinds):
                            x, w = data(case[0], "x", share, dtype), data(case[1], "w", weights, dtype)
                            geometry = ConvGeometry(*case[2:])
                            return x, w, geometry, epilogue(kinds, output(case), dtype)

                        yield Case(f"conv {text}", "conv", arguments, small)


DENSE = (1, 1, 1), (3, 40, 9), (2, 300, 70), (5, 7, 33)


def dense_layers() -> Iterator[Case]:
    for n, k, o in DENSE:
        for dtype in FLOATS:
            for share in (0.0, 0.05):
                for biased in (False, True):
                    text = f"{n} x {k} x {o}, {np.dtype(dtype).name}, {share}, {biased}"

                    def arguments(n=n, k=k, o=o, dtype=dtype, share=share, biased=biased):
                        bias = data((o,), "bias", share, dtype) if biased else None
                        return data((n, k), "x", share, dtype), data((o, k), "w", share, dtype), bias

                    yield Case(f"dense {text}", "dense", arguments, n * k * o < 10000)


# Pools: x, kernel, stride, pad, output.

POOLS = {
    "2x2": ((2, 3, 6, 8), (2, 2), (2, 2), (0, 0), (3, 4)),
    "3x3": ((1, 4, 7, 9), (3, 3), (2, 2), (1, 1), (4, 5)),
    "ragged": ((2, 3, 7, 10), (3, 2), (2, 3), (1, 1), (4, 4)),
    "overhanging": ((1, 5, 6, 7), (3, 3), (2, 2), (0, 0), (3, 4)),
    "overhanging, padded": ((1, 2, 8, 8), (3, 3), (2, 2), (1, 1), (5, 5)),
    "global": ((3, 5, 7, 7), (7, 7), (1, 1), (0, 0), (1, 1)),
    "identity": ((1, 3, 4, 4), (1, 1), (1, 1), (0, 0), (4, 4)),
    "wide strides": ((1, 2, 13, 17), (2, 3), (5, 4), (0, 1), (3, 5)),
    "huge": ((1, 2, 3, 4), (5001, 4999), (1, 1), (5000, 4998), (3, 4)),  # a size that is no float32
    "rows": ((1, 3, 20, 70), (3, 3), (1, 1), (1, 1), (20, 70)),
}
ZEROS = np.array([0.0, -0.0, -1.0, np.nan, -np.inf, np.finfo(np.float32).min], np.float32)


def pools() -> Iterator[Case]:
    for name, (shape, *geometry) in POOLS.items():
        windows = PoolGeometry(*geometry)
        for share in (0.0, 0.2):
            for dtype in FLOATS:
                text = f"{name}, {np.dtype(dtype).name}, {share}"

                def arguments(shape=shape, windows=windows, dtype=dtype, share=share):
                    return data(shape, "pool", share, dtype), windows

                yield Case(f"max_pool {text}", "max_pool", arguments)
                for include in (False, True):

                    def included(arguments=arguments, include=include):
                        return (*arguments(), include)

                    yield Case(f"avg_pool {text}, {include}", "avg_pool", included)

        def zeros(shape=shape, windows=windows):
            return ZEROS[(np.abs(floats(shape, "zeros")) * 5.999).astype(int)], windows

        yield Case(f"max_pool {name}, zeros", "max_pool", zeros)
        if name != "huge":
            for rule in ("running", "columns"):
                yield Case(
                    f"max_pool_by {name}, {rule}", "max_pool_by", lambda z=zeros, rule=rule: (*z(), rule)
                )


def attention() -> Iterator[Case]:
    for radix, c, h, w in (1, 3, 2, 2), (2, 4, 3, 5), (3, 2, 7, 1), (4, 8, 9, 9):
        for share in (0.0, 0.2):
            for dtype in FLOATS:
                text = f"{radix}, {share}, {np.dtype(dtype).name}"

                def parts(radix=radix, c=c, h=h, w=w, share=share, dtype=dtype):
                    x = data((2, radix * c, h, w), "x", share, dtype)
                    x[:, :, 0] = -0.0
                    return data((2, radix * c), "attention", share, dtype), x, radix

                yield Case(f"radix_sum {text}", "radix_sum", lambda parts=parts: parts()[1:])
                yield Case(f"weighted_sum {text}", "weighted_sum", parts)
            for from_zero in (False, True):
                for weighted in (False, True):
                    text = f"{radix}, {share}, {from_zero}, {weighted}"

                    def rounded(radix=radix, c=c, h=h, w=w, share=share, start=from_zero, weighted=weighted):
                        x = data((2, radix, c, h * w), "x", share)
                        x[..., 0] = -0.0
                        return x, data((2, radix, c), "w", share) if weighted else None, start

                    yield Case(f"parts_sum {text}", "parts_sum", rounded)


def wide(count: int, key: object) -> np.ndarray:
    """float32 of the sizes at which an exponential matters, and special ones."""
    return np.concatenate([floats((count,), key) * np.float32(110), floats((count,), (key, 1)), AWKWARD])


LIBRARIES = ("sleef", "glibc", "glibc-unfused", "onednn", "onednn-unfused", "mlas-avx512", "mlas-avx2")


def functions() -> Iterator[Case]:
    for count, small in ((100, True), (40000, False)):
        yield Case(f"relu {count}", "relu", lambda n=count: (wide(n, "relu"),), small)
        yield Case(f"sigmoid {count}", "sigmoid", lambda n=count: (wide(n, "sigmoid"),), small)
        yield Case(f"exp {count}", "exp", lambda n=count: (1.2 * wide(n, "exp").astype(np.float64),), small)
        for name in NAMES:

            def of_real(n=count, name=name):
                return name, 1.2 * wide(n, name).astype(np.float64), 0.75, 1.0, 2.0

            yield Case(f"real {name} {count}", "real", of_real, small)
        for library in LIBRARIES:

            def arguments(n=count, library=library):
                return wide(n, library).reshape(4, -1), library

            yield Case(f"exponential_by {library} {count}", "exponential_by", arguments, small)
            if library != "mlas-avx2":
                yield Case(f"sigmoid_by {library} {count}", "sigmoid_by", arguments, small)
        for name in ELEMENTARY:
            more = (0.75, -1.0) if name == "glibc-pow" else ()

            def of_a_library(n=count, name=name, more=more):
                return wide(n, name).reshape(4, -1), name, *more

            yield Case(f"function_by {name} {count}", "function_by", of_a_library, small)
        for rule in ("keeps", "drops", "scales"):
            yield Case(f"relu_by {rule} {count}", "relu_by", lambda n=count, r=rule: (wide(n, r), r), small)
    yield Case("relu of a number", "relu", lambda: (np.array(-1, np.float32),))
    yield Case("sigmoid of no number", "sigmoid", lambda: (np.empty((0, 3), np.float32),))


def scaled(shape: tuple[int, ...], key: object, share: float, factor: float) -> np.ndarray:
    """As data, larger."""
    with np.errstate(over="ignore"):
        return data(shape, key, share) * np.float32(factor)


SOFTMAXES = (2, 1, 10, 1), (3, 2, 4, 5), (1, 1, 3, 7), (2, 3, 1, 2), (40, 1, 39, 1), (3, 1, 48, 1)
ROWS = (1, 1), (3, 4), (5, 7), (4, 8), (6, 19), (3, 33)


def softmaxes() -> Iterator[Case]:
    for shape in SOFTMAXES:
        for share in (0.0, 0.1):

            def parts(shape=shape, share=share):
                return (scaled(shape, "softmax", share, 9),)

            yield Case(f"softmax_parts {shape}, {share}", "softmax_parts", parts)
    for shape in ROWS:
        for share in (0.0, 0.15):

            def rows(shape=shape, share=share):
                return scaled(shape, "rows", share, 30)

            for library in LIBRARIES:
                for some in (4, 8, 16) if library.startswith("onednn") else (0,):
                    yield Case(
                        f"exponentials {shape}, {share}, {library}, {some}",
                        "exponentials",
                        lambda rows=rows, library=library, some=some: (rows(), library, some),
                    )
            for divide in (False, True):
                yield Case(
                    f"quotients {shape}, {share}, {divide}",
                    "quotients",
                    lambda rows=rows, divide=divide: (np.abs(rows()), None, divide),
                )
                yield Case(
                    f"quotients {shape}, {share}, {divide}, totals",
                    "quotients",
                    lambda rows=rows, divide=divide: (rows(), rows()[:, 0].copy(), divide),
                )


STEPS = "", "b", "s", "a", "r", "sar", "rbs", "aar", "bsr", "rrab"
SHAPES = (2, 3, 4, 5), (1, 7, 1, 1), (3, 5), (6,), (2, 1, 33)


def steps() -> Iterator[Case]:
    for shape in SHAPES:
        for kinds in STEPS:
            for dtype in FLOATS:
                for weighted in (False, True) if len(shape) > 1 else (False,):
                    text = f"{shape}, {kinds or 'nothing'}, {np.dtype(dtype).name}, {weighted}"

                    def arguments(shape=shape, kinds=kinds, dtype=dtype, weighted=weighted):
                        x = data(shape, kinds, 0.1, dtype)
                        one = epilogue(kinds, shape if len(shape) > 1 else (1, *shape), dtype)
                        factors = data(shape[:2], "factors", 0.1, dtype) if weighted else None
                        return x, one, factors

                    yield Case(f"apply {text}", "apply", arguments)
        if len(shape) > 1:

            def channels(count, shape=shape):
                return data(shape, "x", 0.1), *(data(shape[1:2], i, 0.05) for i in range(count))

            yield Case(f"scale_shift {shape}", "scale_shift", lambda made=channels: made(2))
            for fused in (False, True):
                yield Case(
                    f"normalised {shape}, {fused}",
                    "normalised",
                    lambda made=channels, fused=fused: (*made(4), fused),
                )
    yield Case(
        "fused_multiply_add",
        "fused_multiply_add",
        lambda: tuple(data((2000,), key, 0.2) for key in "abc"),
    )


JOINED = {
    (2, 3, 4): (3, 1, 4),
    (3, 7, JOINED_GRAIN + 5): (1, 2, 1),  # rows in pieces
    (1, 2, 5): (2 * JOINED_GRAIN, 1, 3 * JOINED_GRAIN + 1),
    (0, 3, 2): (3, 0, 1),  # no rows
    (2, 0, 3): (1, 2),
}
"""Shapes of arrays that are joined, and their lengths along the axis."""


def moves() -> Iterator[Case]:
    for scale in 1, 2, 3:
        for dtype in FLOATS:

            def arguments(scale=scale, dtype=dtype):
                return data((2, 3, 4, 5), "x", 0.1, dtype), scale

            yield Case(f"upsample {scale}, {np.dtype(dtype).name}", "upsample", arguments)
    for shape, lengths in JOINED.items():
        for axis in range(3):

            def arrays(shape=shape, lengths=lengths, axis=axis):
                shapes = [(*shape[:axis], length, *shape[axis + 1 :]) for length in lengths]
                return [data(one, i, 0.1) for i, one in enumerate(shapes)], axis

            yield Case(f"concatenate {shape}, {axis}", "concatenate", arrays)


# Orders by their names, for so many terms, of convolutions with a kernel of so many elements.

Made = Callable[[int, int], Expr]


def plain(terms: int, seed: Expr = Leaf.ZERO, fused: bool = True) -> Expr:
    return Chain(seed, Order.of(range(terms)), fused)


def strided(terms: int, seed: Expr = Leaf.ZERO, fused: bool = True) -> Expr:
    """A tree of lanes: (lane 0 + lane 2) + (lane 1 + lane 3)."""
    four = [Chain(seed if i == 0 else Leaf.ZERO, Order.of(range(i, terms, 4)), fused) for i in range(4)]
    return Sum((Sum((four[0], four[2])), Sum((four[1], four[3]))))


ORDERS: dict[str, Made] = {
    "plain": lambda terms, _: plain(terms),
    "from -0": lambda terms, _: plain(terms, Leaf.FIRST),
    "rounded": lambda terms, _: plain(terms, Leaf.ZERO, False),
    "rounded from -0": lambda terms, _: plain(terms, Leaf.FIRST, False),
    "backwards": lambda terms, _: Chain(Leaf.ZERO, Order.of(range(terms)[::-1])),
    "blocks": lambda terms, kernel: blocked(terms // kernel, kernel, 2),
    "pieces": lambda terms, _: split(terms, 5),
    "pieces of golden": lambda terms, _: split(terms, TERMS),
    "pieces, rounded": lambda terms, _: split(terms, 7, Leaf.FIRST, False),
    "a tree": lambda terms, _: strided(terms),
    "a tree, rounded": lambda terms, _: strided(terms, Leaf.ZERO, False),
}
BIASED: dict[str, Made] = {
    "bias last": lambda terms, _: Sum((plain(terms), Leaf.BIAS)),
    "bias first": lambda terms, _: Sum((Leaf.BIAS, plain(terms))),
    "from the bias": lambda terms, _: plain(terms, Leaf.BIAS),
    "blocks from the bias": lambda terms, kernel: blocked(terms // kernel, kernel, 4, Leaf.BIAS),
    "lanes": lambda terms, _: lanes(terms),
}
ADDED: dict[str, Made] = {
    "addend last": lambda terms, _: Sum((plain(terms), Leaf.ADDEND)),
    "from the addend": lambda terms, _: plain(terms, Leaf.ADDEND),
    "pieces from the addend": lambda terms, _: split(terms, 6, Leaf.ADDEND),
    "a tree from the addend": lambda terms, _: strided(terms, Leaf.ADDEND),
}
IN_ORDER = {**ORDERS, **BIASED, **ADDED}
ORDERED = ("1x1", "ragged", "groups", "depthwise", "dilated", "one position")


def seeds(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(bias, addend) of an order, for outputs of this shape."""
    bias = data(shape[1:2], "bias", 0.1) if name in BIASED else None
    return bias, data(shape, "addend", 0.1) if name in ADDED else None


def convolutions_in_order() -> Iterator[Case]:
    for name in ORDERED:
        case = SMALL[name]
        for order, make in IN_ORDER.items():
            for zero in (False, True):
                for share in (0.0, 0.15):
                    for kinds, some in (("", False), ("sr", False), ("", True)):
                        text = f"{name}, {order}, {zero}, {share}, {kinds or 'nothing'}, {some}"

                        def arguments(
                            case=case, order=order, make=make, zero=zero, share=share, kinds=kinds, some=some
                        ):
                            shape, kernel = output(case), case[1][2:]
                            expr = make(int(np.prod(case[1][1:])), int(np.prod(kernel)))
                            bias, addend = seeds(order, shape)
                            x, w = data(case[0], "x", share), data(case[1], "w", share / 3)
                            geometry, steps = ConvGeometry(*case[2:]), epilogue(kinds, shape)
                            places = np.arange(0, int(np.prod(shape)), 3)[::-1] if some else None
                            last = (expr, zero, steps, addend, places)
                            return x, w, bias, geometry, kernel, shape[2:], *last

                        yield Case(
                            f"conv_in_order {text}", "conv_in_order", arguments, share > 0 and kinds == "sr"
                        )


def pools_in_order() -> Iterator[Case]:
    for name in ("3x3", "ragged", "overhanging", "wide strides"):
        shape, kernel, stride, pad, made = POOLS[name]
        for order, make in ORDERS.items():
            for zero in (False, True):

                def arguments(
                    shape=shape, kernel=kernel, stride=stride, pad=pad, made=made, make=make, zero=zero
                ):
                    expr = make(kernel[0] * kernel[1], kernel[0] * kernel[1])
                    geometry = ConvGeometry(stride, pad, (1, 1), shape[1])
                    return data(shape, "pool", 0.1), None, None, geometry, kernel, made, expr, zero

                yield Case(f"conv_in_order pool {name}, {order}, {zero}", "conv_in_order", arguments)


def sums_in_order() -> Iterator[Case]:
    for n, k, o in (1, 8, 3), (2, 37, 40), (3, 130, 9):
        for order, make in IN_ORDER.items():
            for share in (0.0, 0.1):
                for some in (False, True):

                    def arguments(n=n, k=k, o=o, order=order, make=make, share=share, some=some):
                        bias, addend = seeds(order, (n, o))
                        places = np.arange(0, n * o, 2) if some else None
                        x, w = data((n, k), "x", share), data((o, k), "w", share)
                        return x, w, bias, make(k, 1), addend, places

                    text = f"{n} x {k} x {o}, {order}, {share}, {some}"
                    yield Case(f"dense_in_order {text}", "dense_in_order", arguments, n * k * o < 3000)
    for rows, terms in (1, 1), (5, 10), (40, 49):
        for order, make in ORDERS.items():
            if terms >= 8 or order in ("plain", "from -0"):
                yield Case(
                    f"row_sums {rows} x {terms}, {order}",
                    "row_sums",
                    lambda r=rows, t=terms, make=make: (data((r, t), "rows", 0.05), make(t, 1)),
                )


CASES = [
    *convolutions(),
    *dense_layers(),
    *pools(),
    *attention(),
    *functions(),
    *softmaxes(),
    *steps(),
    *moves(),
    *convolutions_in_order(),
    *pools_in_order(),
    *sums_in_order(),
]
METHODS = sorted({case.method for case in CASES})
assert len({case.name for case in CASES}) == len(CASES)
