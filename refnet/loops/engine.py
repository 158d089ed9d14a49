"""The reference engine: the definition of everything that ops compute with, in scalar loops.

It is slow, and short enough to read: each method is the loop of its formula, in the file of its family. The
fast engine (kernels/engine.py) gives the same bits for every call; tests compare the two.

With NUMBA_DISABLE_JIT=1 the loops are plain Python, which a debugger can step through, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from refnet.core.engine import (
    F32,
    F64,
    NOTHING,
    Array,
    ConvGeometry,
    Engine,
    Epilogue,
    Pair,
    Places,
    PoolGeometry,
)
from refnet.core.orders import Expr
from refnet.loops import attention as attention_loops
from refnet.loops import conv, elementary, formulas, orders, pointwise, pool, real, resample, softmax

T = TypeVar("T")


@dataclass(frozen=True)
class Loops:
    """The definition of core/engine.py's `Engine`; it has one thread and caches nothing."""

    name = "reference"
    threads = 1

    def cached(self, arrays: Sequence[Array], key: object, make: Callable[[], T]) -> T:
        """make(), each time."""
        return make()

    # Sums in plain order.

    def conv(self, x: Array, w: Array, geometry: ConvGeometry, epilogue: Epilogue = NOTHING) -> Array:
        """x (n, c, h, w), w (o, c / groups, kh, kw), either dtype -> (n, o, oh, ow), then the epilogue.

        >>> x = np.float32([[[[1, 2, 3]]]])
        >>> w = np.float32([[[[10, 1]]]])
        >>> REFERENCE.conv(x, w, ConvGeometry(pad=(0, 1)), Epilogue().bias(np.float32([0.5])))
        array([[[[ 1.5, 12.5, 23.5, 30.5]]]], dtype=float32)
        """
        y = conv.conv(x, w, geometry)
        return pointwise.apply(y, epilogue) if epilogue.kinds else y

    def dense(self, x: Array, w: Array, bias: Array | None) -> Array:
        """x (n, k), w (o, k), either dtype -> (n, o): acc = +0; acc = fma(w, x, acc) over k; then + bias.

        >>> REFERENCE.dense(np.float32([[1, 2]]), np.float32([[3, 4], [5, 6]]), np.float32([0, 100]))
        array([[ 11., 117.]], dtype=float32)
        """
        return conv.dense(x, w, bias)

    def max_pool(self, x: Array, geometry: PoolGeometry) -> Array:
        """The largest element of each window, the first of equals; NaN wins. Either dtype.

        >>> x = np.float32([[[[-0.0, 0.0, 3, np.nan]]]])
        >>> REFERENCE.max_pool(x, PoolGeometry((1, 2), (1, 1), (0, 0), (1, 3)))
        array([[[[-0.,  3., nan]]]], dtype=float32)
        """
        return pool.max_pool(x, geometry)

    def avg_pool(self, x: Array, geometry: PoolGeometry, include_pad: bool) -> Array:
        """The sum of each window from +0, by row and column, then one division. Either dtype.

        >>> geometry = PoolGeometry((1, 2), (1, 2), (0, 1), (1, 2))
        >>> x = np.float32([[[[6, 2, 4]]]])
        >>> REFERENCE.avg_pool(x, geometry, True), REFERENCE.avg_pool(x, geometry, False)
        (array([[[[3., 3.]]]], dtype=float32), array([[[[6., 3.]]]], dtype=float32))
        """
        return pool.avg_pool(x, geometry, include_pad)

    def radix_sum(self, x: Array, radix: int) -> Array:
        """x (n, radix * c, h, w) -> (n, c, h, w): +0 + part 0 + part 1 + ... Either dtype."""
        return attention_loops.radix_sum(x, radix)

    def weighted_sum(self, attention: Array, x: Array, radix: int) -> Array:
        """attention (n, radix * c), x (n, radix * c, h, w) -> (n, c, h, w): a chain of FMAs from +0.

        >>> REFERENCE.weighted_sum(np.float32([[1, 10]]), np.float32([[[[2]], [[3]]]]), 2)
        array([[[[32.]]]], dtype=float32)
        """
        return attention_loops.weighted_sum(attention, x, radix)

    # Pointwise, in plain arithmetic.

    def apply(self, x: Array, epilogue: Epilogue, factors: Array | None = None) -> Array:
        """The epilogue's steps applied to x (n, c, ...); factors (n, c): x is multiplied by these first.

        >>> x = np.float32([[[1, -2], [3, -4]]])
        >>> REFERENCE.apply(x, Epilogue().add(x).relu(), np.float32([[10, 100]]))
        array([[[ 11.,   0.],
                [303.,   0.]]], dtype=float32)
        """
        return pointwise.apply(x, epilogue, factors)

    def relu(self, x: F32) -> F32:
        """x if x > 0, +0 if x <= 0, NaN if NaN.

        >>> REFERENCE.relu(np.float32([-0.0, -1, 2, np.nan]))
        array([ 0.,  0.,  2., nan], dtype=float32)
        """
        return pointwise.relu(x)

    def sigmoid(self, x: F32) -> F32:
        """1 / (1 + e), e = exp(-x), each of the three results rounded to float32.

        >>> REFERENCE.sigmoid(np.float32([0, 1, -np.inf]))
        array([0.5      , 0.7310586, 0.       ], dtype=float32)
        """
        return pointwise.sigmoid(x)

    def exp(self, x: F64) -> F64:
        """exp of loops/functions.py of each element: relative error below 2**-50; 0 and inf beyond +-128."""
        return pointwise.exponential(x)

    def real(self, name: str, x: Array, *parameters: float) -> Array:
        """A function of loops/real.py of each element; its float64 is rounded once if x is float32."""
        return real.real(name, x, *parameters)

    def scale_shift(self, x: F32, scale: F32, shift: F32) -> F32:
        """fma(x, scale, shift), one scale and shift per channel; x (n, c, ...)."""
        return pointwise.scale_shift(x, scale, shift)

    def softmax_parts(self, x: F32) -> F32:
        """Softmax over the third axis, x (n, groups, parts, m) -> (n, parts, groups, m).

        >>> REFERENCE.softmax_parts(np.float32([1, 3]).reshape(1, 1, 2, 1)).reshape(-1)
        array([0.11920292, 0.880797  ], dtype=float32)
        """
        return softmax.softmax_parts(x)

    # Moving.

    def upsample(self, x: Array, scale: int) -> Array:
        """x (n, c, h, w) -> (n, c, h * scale, w * scale): every element scale x scale times. Either dtype.

        >>> REFERENCE.upsample(np.float32([[[[1, 2]]]]), 2)
        array([[[[1., 1., 2., 2.],
                 [1., 1., 2., 2.]]]], dtype=float32)
        """
        return resample.upsample(x, scale)

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """The arrays one after another along the axis."""
        return np.concatenate(arrays, axis)

    # Sums in any order (core/orders.py).

    def conv_in_order(
        self,
        x: F32,
        w: F32 | None,
        bias: F32 | None,
        geometry: ConvGeometry,
        kernel: Pair,
        output: Pair,
        order: Expr,
        zero_padding: bool,
        epilogue: Epilogue = NOTHING,
        addend: F32 | None = None,
        places: Places | None = None,
    ) -> F32:
        """x (n, c, h, w), w (o, c / groups, kh, kw) or None -> (n, o, *output), each by the expression.

        >>> from refnet.core.orders import Chain, Leaf, Order
        >>> x, w = np.float32([1e8, 1, -1e8]).reshape(1, 3, 1, 1), np.ones((1, 3, 1, 1), np.float32)
        >>> for terms in (0, 1, 2), (0, 2, 1):
        ...     order = Chain(Leaf.ZERO, Order.of(terms))
        ...     print(REFERENCE.conv_in_order(x, w, None, ConvGeometry(), (1, 1), (1, 1), order, False))
        [[[[0.]]]]
        [[[[1.]]]]
        """
        y = orders.conv_in_order(x, w, bias, geometry, kernel, output, order, zero_padding, addend, places)
        return pointwise.apply(y, epilogue) if epilogue.kinds else y

    def dense_in_order(
        self,
        x: F32,
        w: F32,
        bias: F32 | None,
        order: Expr,
        addend: F32 | None = None,
        places: Places | None = None,
    ) -> F32:
        """x (n, k), w (o, k) -> (n, o), or the elements at the flat places of it."""
        return orders.dense_in_order(x, w, bias, order, addend, places)

    def row_sums(self, x: F32, order: Expr) -> F32:
        """x (rows, terms) -> (rows,): each row's sum in that order, every weight 1, no bias."""
        return orders.row_sums(x, order)

    # Formulas of frameworks (the menus `Op.formulas`).

    def sigmoid_by(self, x: F32, library: str) -> F32:
        """A library's sigmoid.

        >>> [float(REFERENCE.sigmoid_by(np.float32([-3]), name)[0]) for name in ("sleef", "mlas-avx512")]
        [0.04742587357759476, 0.04742586612701416]
        """
        return formulas.sigmoid_by(x, library)

    def exponential_by(self, x: F32, library: str) -> F32:
        """exp(x) of a library."""
        return formulas.exponential_by(x, library)

    def function_by(self, x: F32, name: str, *parameters: float) -> F32:
        """A library's function of each element: one of loops/elementary.py NAMES."""
        return elementary.function_by(x, name, *parameters)

    def exponentials(self, x: F32, library: str, lanes: int) -> F32:
        """exp(x - m) along the last axis, m the row's largest element as that library finds it."""
        return formulas.exponentials(x, library, lanes)

    def quotients(self, e: F32, total: F32 | None, divide: bool) -> F32:
        """e / s, or e * (1 / s), by rows (last axis). total (rows,): s; None: the row's e, left to right."""
        return formulas.quotients(e, total, divide)

    def relu_by(self, x: F32, rule: str) -> F32:
        """rule: "keeps", "drops" or "scales", as in Relu.formulas."""
        return formulas.relu_by(x, rule)

    def normalised(self, x: F32, mean: F32, inverse: F32, scale: F32, shift: F32, fused: bool) -> F32:
        """((x - mean) * inverse) * scale + shift, one of each per channel; fused: the last two are an FMA."""
        return formulas.normalised(x, mean, inverse, scale, shift, fused)

    def fused_multiply_add(self, a: F32, b: F32, c: F32) -> F32:
        """a * b + c with one rounding, element by element, all (n,)."""
        return formulas.fused_multiply_add(a, b, c)

    def parts_sum(self, parts: F32, weights: F32 | None, from_zero: bool) -> F32:
        """parts (n, radix, c, size), weights (n, radix, c) or None -> (n, c, size).

        Rounded products, added from +0 or from the first of them.
        """
        return attention_loops.parts_sum(parts, weights, from_zero)

    def max_pool_by(self, x: F32, geometry: PoolGeometry, rule: str) -> F32:
        """rule: "running" or "columns", as in MaxPool.formulas."""
        return pool.max_pool_by(x, geometry, rule)


REFERENCE: Engine = Loops()
"""The one reference engine; it has no state."""
