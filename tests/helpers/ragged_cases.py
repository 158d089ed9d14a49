"""Calls of an engine's methods of random, ragged shapes, as data: made from a seed, so always the same.

What engine_cases.py has by hand, hundreds of times: kernels, strides, paddings, dilations, groups, batches
and sizes that no vector divides, and epilogues of any steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refnet.core.engine import ConvGeometry, PoolGeometry
from refnet.kernels.channels import STRETCH
from refnet.kernels.geometry import TERMS
from refnet.kernels.lanes import GROUP, HALF
from refnet.kernels.writer import VECTOR
from tests.helpers.bits import floats
from tests.helpers.engine_cases import IN_ORDER, Case, Shapes, data, epilogue, output, seeds

TINY = (-1.0, -1.0)
"""Negative data and positive weights whose products round to -0: a term w * (+0) would show."""
SHARES = ((0.0, 0.0), (0.0, 0.2), (0.1, 0.0), (0.1, 0.2), (0.9, 0.0), TINY)
"""Shares of awkward numbers, in the data and in the weights; or TINY."""
LETTERS = "bsacr"

STRETCHES: dict[str, Shapes] = {
    "one row of two stretches": ((1, 3, 1, STRETCH + 1), (32, 3, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "the same by steps of two": ((1, 3, 1, 2 * STRETCH + 7), (32, 3, 1, 3), (1, 2), (0, 1), (1, 1), 1),
    "planes of two stretches, no rows": ((2, 2, 29, 31), (32, 2, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "stretches of whole rows": ((2, 2, 61, GROUP), (48, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "padding above and below": ((1, 2, 40, 2 * GROUP), (16, 2, 3, 1), (1, 1), (1, 0), (1, 1), 1),
    "the input itself": ((1, 2, 9, 2 * GROUP + 1), (32, 2, 3, 3), (1, 1), (0, 0), (1, 1), 1),
    "parts of two images": ((5, 2, 29, 31), (32, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "many images": ((40, 2, 5, 5), (30, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "stretches for every thread": ((1, 160, 7, 7), (32, 160, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "tiles that begin in a row": ((2, 5, 20, 29), (8, 5, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "columns of the data": ((2, 2 * (TERMS + 14), 17, 19), (22, TERMS + 14, 1, 1), (1, 1), (0, 0), (1, 1), 2),
    "the last maps": ((3, 9, 2, 2), (70, 9, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "a dense layer is left": ((2, 5, 1, 1), (40, 5, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "a column is left": ((2, 5, 2, 1), (40, 5, 5, 5), (1, 1), (2, 2), (1, 1), 1),
    "all but one term in the padding": ((2, 5, 2, 2), (40, 5, 3, 3), (1, 1), (2, 2), (2, 2), 1),
    "nothing is seen": ((2, 5, 1, 1), (40, 5, 1, 1), (3, 3), (1, 1), (1, 1), 1),
    "every second is seen": ((2, 5, 2, 2), (40, 5, 4, 4), (2, 2), (1, 1), (1, 1), 1),
    "gaps": ((2, 5, 2, 2), (40, 5, 2, 2), (2, 2), (1, 1), (2, 2), 1),
}
"""Convolutions at the edges of the layout with lanes across channels: its stretches, its cropped kernels."""


def operands(case: Shapes, shares: tuple[float, float], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """The data and the weights of a convolution."""
    if shares == TINY:
        tiny = np.sqrt(np.finfo(dtype).smallest_subnormal) / 2
        x, w = (np.abs(floats(shape, i)).astype(dtype) * dtype(tiny) for i, shape in enumerate(case[:2]))
        return -x, w
    return data(case[0], "x", shares[0], dtype), data(case[1], "w", shares[1], dtype)


def positions() -> dict[str, Shapes]:
    """Every number of positions up to four groups: in one image, in many, by strides."""
    found: dict[str, Shapes] = {}
    for outputs in (16, 48):
        for n in range(1, 4 * GROUP + 2):
            found[f"{n} positions of {outputs}"] = (
                (1, 3, 1, n + 1),
                (outputs, 3, 1, 2),
                (1, 1),
                (0, 0),
                (1, 1),
                1,
            )
            found[f"{n} images of {outputs}"] = ((n, 3, 1, 2), (outputs, 3, 1, 2), (2, 1), (0, 1), (1, 1), 1)
    return found


def random_convolution(rng: np.random.Generator) -> Shapes:
    """Small maps, of which many have lanes across channels, and others."""
    kernel, dilation = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    stride, pad = rng.choice([1, 1, 1, 2, 3, 5], 2), rng.integers(0, 6, 2)
    places = [
        int(rng.integers(1, 7)),
        int(rng.choice([rng.integers(1, 7), rng.integers(HALF, 3 * GROUP + 1)])),
    ]
    least = (np.array(places) - 1) * stride + dilation * (kernel - 1) + 1 - 2 * pad
    size = np.maximum(1, least + rng.integers(0, stride))
    size = np.maximum(size, dilation * (kernel - 1) + 1 - 2 * pad)  # at least one output
    groups = int(rng.choice([1, 1, 2, 3, 5]))
    channels = int(rng.integers(40, 120) if rng.random() < 0.05 else rng.integers(1, 8))
    outputs = int(rng.choice([rng.integers(1, 15), rng.integers(3, 70)]))
    x = (int(rng.integers(1, 4)), groups * channels, *map(int, size))
    w = (groups * outputs, channels, *map(int, kernel))
    pairs = [(int(pair[0]), int(pair[1])) for pair in (stride, pad, dilation)]
    return (x, w, *pairs, groups)


def ragged_convolutions(count: int = 400, seed: int = 0) -> Iterator[Case]:
    """Convolutions in plain order with any epilogue, either dtype, and in any order of core/orders.py."""
    rng = np.random.default_rng(seed)
    made = {**STRETCHES, **positions(), **{f"random {i}": random_convolution(rng) for i in range(count)}}
    names = list(IN_ORDER)
    for i, (name, case) in enumerate(made.items()):
        shares, dtype = SHARES[i % len(SHARES)], (np.float32, np.float32, np.float64)[i % 3]
        kinds = "".join(rng.choice(list(LETTERS), int(rng.integers(0, 5)))) if i % 2 else ""

        def arguments(case=case, shares=shares, dtype=dtype, kinds=kinds):
            x, w = operands(case, shares, dtype)
            return x, w, ConvGeometry(*case[2:]), epilogue(kinds, output(case), dtype)

        text = f"{name} {case}, {np.dtype(dtype).name}, {shares}, {kinds or 'nothing'}"
        yield Case(f"conv {text}", "conv", arguments, small=False)

        order = names[i % len(names)]

        def ordered(case=case, shares=shares, order=order, kinds=kinds, zero=i % 4 == 0):
            shape, kernel = output(case), case[1][2:]
            expr = IN_ORDER[order](int(np.prod(case[1][1:])), int(np.prod(kernel)))
            bias, addend = seeds(order, shape)
            x, w = operands(case, shares, np.float32)
            last = (expr, zero, epilogue(kinds, shape), addend)
            return x, w, bias, ConvGeometry(*case[2:]), kernel, shape[2:], *last

        yield Case(f"conv_in_order {text}, {order}", "conv_in_order", ordered, small=False)


def dense_shapes(count: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """(rows, terms, outputs): random ones of few rows; every number of rows up to four blocks and one, of
    outputs that fill a vector, half a tile, a tile, or parts of them; tables as attention multiplies them;
    no term.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield int(rng.integers(1, 6)), int(rng.integers(1, 1101)), int(rng.integers(1, 141))
    for rows in range(1, 4 * GROUP + 2):
        for outputs in (5, VECTOR // 2, VECTOR // 2 + 1, VECTOR, 3 * VECTOR // 2 + 3):  # 5: no common period
            yield rows, int(rng.integers(1, 30)), outputs
    yield from ((197, 64, 197), (196, 33, 300), (784, 3, 96), (5, 0, 70))


def ragged_dense(count: int = 60, seed: int = 1) -> Iterator[Case]:
    """Dense layers, with and without a bias, of either dtype."""
    for i, (n, k, o) in enumerate(dense_shapes(count, seed)):
        share, dtype = (0.0, 0.1)[i % 2], (np.float32, np.float64)[i % 3 == 2]

        def arguments(n=n, k=k, o=o, share=share, dtype=dtype, biased=i % 4 < 2):
            bias = data((o,), "bias", share, dtype) if biased else None
            return data((n, k), "x", share, dtype), data((o, k), "w", share, dtype), bias

        yield Case(
            f"dense {i}: {n} x {k} x {o}, {np.dtype(dtype).name}, {share}", "dense", arguments, small=False
        )


def ragged_pools(count: int = 200, seed: int = 2) -> Iterator[Case]:
    """Rows of less than a vector, of some vectors and a rest; windows that overhang; strides above 2."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        sides = []
        for _ in range(2):
            k, s = int(rng.integers(1, 7)), int(rng.integers(1, 5))
            p = int(rng.integers(0, 6)) % k
            h = max(int(rng.integers(0, 81)), 1, k - 2 * p)
            room = h + 2 * p - k
            o = -(-room // s) + 1 if i % 2 else room // s + 1
            sides.append((k, s, p, h, o - ((o - 1) * s - p >= h)))  # the last window sees the image
        kernel, stride, pad, size, made = zip(*sides, strict=True)
        windows, share = PoolGeometry(kernel, stride, pad, made), (0.0, 0.01, 0.3, 1.0)[i % 4]
        shape, dtype = (int(rng.integers(1, 3)), 3, *size), (np.float32, np.float64)[i % 3 == 2]

        def arguments(shape=shape, windows=windows, share=share, dtype=dtype, i=i):
            return data(shape, ("pool", i % 8), share, dtype), windows

        text = f"{i}: {shape}, {windows}, {np.dtype(dtype).name}, {share}"
        yield Case(f"max_pool {text}", "max_pool", arguments, small=False)
        for include in (False, True):

            def included(arguments=arguments, include=include):
                return (*arguments(), include)

            yield Case(f"avg_pool {text}, {include}", "avg_pool", included, small=False)


def ragged_steps(count: int = 120, seed: int = 3) -> Iterator[Case]:
    """Epilogues of up to six steps on maps of any size."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        shape = tuple(
            map(int, (rng.integers(1, 4), rng.integers(1, 9), rng.integers(1, 40), rng.integers(1, 40)))
        )
        kinds = "".join(rng.choice(list(LETTERS), int(rng.integers(1, 7))))
        dtype, share = (np.float32, np.float64)[i % 3 == 2], (0.0, 0.1)[i % 2]

        def arguments(shape=shape, kinds=kinds, dtype=dtype, share=share):
            return data(shape, "x", share, dtype), epilogue(kinds, shape, dtype), None

        yield Case(
            f"apply {i}: {shape}, {kinds}, {np.dtype(dtype).name}, {share}", "apply", arguments, small=False
        )


RAGGED = [*ragged_convolutions(), *ragged_dense(), *ragged_pools(), *ragged_steps()]
