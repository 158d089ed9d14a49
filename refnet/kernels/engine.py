"""The fast engine: what ops compute with (core/engine.py), by the compiled kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from refnet.core.engine import F32, F64, NOTHING, Array, ConvGeometry, Epilogue, Pair, Places, PoolGeometry
from refnet.core.orders import Expr
from refnet.kernels import elementary, formulas, layout, panel, pointwise, pool, real, resample, resources
from refnet.kernels.attention import radix_sum, weighted_sum
from refnet.kernels.epilogue import apply
from refnet.kernels.orders import plain_order, program_arrays, segments
from refnet.kernels.program import Window, dense_in_order, elements_in_order, row_sums
from refnet.kernels.segments import convolve_in_order

T = TypeVar("T")

FEW = 8
"""Elements at given places are computed one by one if they are less than this share of the output."""

LIBRARIES = {
    "sleef": formulas.SLEEF,
    "glibc": formulas.GLIBC,
    "glibc-unfused": formulas.GLIBC_UNFUSED,
    "onednn": formulas.ONEDNN,
    "onednn-unfused": formulas.ONEDNN_UNFUSED,
    "mlas-avx512": formulas.MLAS_512,
    "mlas-avx2": formulas.MLAS,
}
RELUS = {"keeps": formulas.KEEPS, "drops": formulas.DROPS, "scales": formulas.SCALES}
POOLS = {"running": formulas.RUNNING, "columns": formulas.COLUMNS}


@dataclass(frozen=True)
class Fast:
    """The fast engine. See core/engine.py Engine for what each method computes.

    limit: the most threads to use; None: one per processor that this process may use at the time.
    """

    limit: int | None = None
    name = "fast"

    @property
    def threads(self) -> int:
        """How many threads share the outputs of one call."""
        return resources.processors() if self.limit is None else self.limit

    def cached(self, arrays: Sequence[Array], key: object, make: Callable[[], T]) -> T:
        """make(), cached as long as the arrays live, if all of them are read-only."""
        return resources.cached(arrays, key, make)

    # Sums in plain order.

    def conv(self, x: Array, w: Array, geometry: ConvGeometry, epilogue: Epilogue = NOTHING) -> Array:
        """See Engine.conv."""
        return panel.convolve(x, w, *geometry, self.threads, epilogue)

    def dense(self, x: Array, w: Array, bias: Array | None) -> Array:
        """See Engine.dense."""
        return panel.dense(x, w, bias, self.threads)

    def max_pool(self, x: Array, geometry: PoolGeometry) -> Array:
        """See Engine.max_pool."""
        return pool.max_pool(x, geometry, self.threads)

    def avg_pool(self, x: Array, geometry: PoolGeometry, include_pad: bool) -> Array:
        """See Engine.avg_pool."""
        return pool.avg_pool(x, geometry, include_pad, self.threads)

    def radix_sum(self, x: Array, radix: int) -> Array:
        """See Engine.radix_sum."""
        return radix_sum(x, radix, self.threads)

    def weighted_sum(self, attention: Array, x: Array, radix: int) -> Array:
        """See Engine.weighted_sum."""
        return weighted_sum(attention, x, radix, self.threads)

    # Pointwise, in plain arithmetic.

    def apply(self, x: Array, epilogue: Epilogue, factors: Array | None = None) -> Array:
        """See Engine.apply."""
        return apply(x, epilogue, self.threads, factors)

    def relu(self, x: F32) -> F32:
        """See Engine.relu."""
        return pointwise.relu(x, self.threads)

    def sigmoid(self, x: F32) -> F32:
        """See Engine.sigmoid."""
        return pointwise.sigmoid(x, self.threads)

    def exp(self, x: F64) -> F64:
        """See Engine.exp."""
        return pointwise.exponential(x, self.threads)

    def real(self, name: str, x: Array, *parameters: float) -> Array:
        """See Engine.real."""
        return real.real(name, x, self.threads, *parameters)

    def scale_shift(self, x: F32, scale: F32, shift: F32) -> F32:
        """See Engine.scale_shift."""
        return pointwise.scale_shift(x, scale, shift, self.threads)

    def softmax_parts(self, x: F32) -> F32:
        """See Engine.softmax_parts."""
        return pointwise.softmax_parts(x, self.threads)

    # Moving.

    def upsample(self, x: Array, scale: int) -> Array:
        """See Engine.upsample."""
        return resample.upsample(x, scale, self.threads)

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """See Engine.concatenate."""
        return layout.concatenate(arrays, axis, self.threads)

    # Sums in any order.

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
        """See Engine.conv_in_order.

        Plain order is `conv`. Other chains from left to right go through segments.py, tile by tile or across
        channels; so does a pool, as a convolution with weights of 1, unless a window overhangs. A convolution
        that is a matrix product goes through dense loops, and everything else element by element.
        """
        window = Window(kernel, *geometry[:3], geometry.groups, output)
        chains, threads = segments(order), self.threads
        outputs = x.shape[1] if w is None else w.shape[0]
        shape = (x.shape[0], outputs, *output)
        if w is not None and places is None and (geometry.pad == (0, 0) or not zero_padding):
            plain, biased = plain_order(order, w[0].size)
            if plain:
                return self.conv(x, w, geometry, _behind(bias, epilogue) if biased else epilogue)
        if w is not None and _is_product(x, kernel, geometry):
            rows = x.reshape(x.shape[0], prod(x.shape[1:]))
            value = self.dense_in_order(rows, w, bias, order, addend, places)
            return value if places is not None else self._finished(value.reshape(shape), epilogue)
        if w is None and chains is not None and geometry.output(x.shape[2:], kernel) == output:
            w = np.ones((outputs, 1, *kernel), np.float32)
        seldom = places is not None and places.size * FEW < prod(shape)
        if chains is None or w is None or seldom:
            at = np.arange(prod(shape)) if places is None else places
            value = elements_in_order(
                at, x, w, bias, window, zero_padding, program_arrays(order), threads, addend
            )
            return value if places is not None else self._finished(value.reshape(shape), epilogue)
        value = convolve_in_order(x, w, bias, window, zero_padding, chains, threads, epilogue, addend)
        return value if places is None else value.reshape(-1)[places]

    def _finished(self, value: F32, epilogue: Epilogue) -> F32:
        """The value after the epilogue's steps."""
        return apply(value, epilogue, self.threads) if epilogue.kinds else value

    def dense_in_order(
        self,
        x: F32,
        w: F32,
        bias: F32 | None,
        order: Expr,
        addend: F32 | None = None,
        places: Places | None = None,
    ) -> F32:
        """See Engine.dense_in_order."""
        code, threads, size = program_arrays(order), self.threads, x.shape[0] * w.shape[0]
        if places is not None and places.size * FEW < size:
            window = Window((1, 1), (1, 1), (0, 0), (1, 1), 1, (1, 1))
            points = np.ascontiguousarray(x)[:, :, None, None]
            return elements_in_order(places, points, w, bias, window, False, code, threads, addend)
        value = dense_in_order(x, w, bias, code, threads, addend)
        return value if places is None else value.reshape(-1)[places]

    def row_sums(self, x: F32, order: Expr) -> F32:
        """See Engine.row_sums."""
        return row_sums(x, program_arrays(order), self.threads)

    # Formulas of frameworks.

    def sigmoid_by(self, x: F32, library: str) -> F32:
        """See Engine.sigmoid_by."""
        return formulas.sigmoid(x, LIBRARIES[library], self.threads)

    def exponential_by(self, x: F32, library: str) -> F32:
        """See Engine.exponential_by."""
        return formulas.exponential(x, LIBRARIES[library], self.threads)

    def function_by(self, x: F32, name: str, *parameters: float) -> F32:
        """See Engine.function_by."""
        return elementary.function_by(x, name, self.threads, *parameters)

    def exponentials(self, x: F32, library: str, lanes: int) -> F32:
        """See Engine.exponentials."""
        return formulas.exponentials(x, LIBRARIES[library], lanes, self.threads)

    def quotients(self, e: F32, total: F32 | None, divide: bool) -> F32:
        """See Engine.quotients."""
        return formulas.quotients(e, total, divide, self.threads)

    def relu_by(self, x: F32, rule: str) -> F32:
        """See Engine.relu_by."""
        return formulas.relu(x, RELUS[rule], self.threads)

    def normalised(self, x: F32, mean: F32, inverse: F32, scale: F32, shift: F32, fused: bool) -> F32:
        """See Engine.normalised."""
        return formulas.normalised(x, mean, inverse, scale, shift, fused, self.threads)

    def fused_multiply_add(self, a: F32, b: F32, c: F32) -> F32:
        """See Engine.fused_multiply_add."""
        return formulas.fused_multiply_add(a, b, c)

    def parts_sum(self, parts: F32, weights: F32 | None, from_zero: bool) -> F32:
        """See Engine.parts_sum."""
        return formulas.parts_sum(parts, weights, from_zero, self.threads)

    def max_pool_by(self, x: F32, geometry: PoolGeometry, rule: str) -> F32:
        """See Engine.max_pool_by."""
        return formulas.max_pool(x, geometry, POOLS[rule], self.threads)


def _behind(bias: F32 | None, steps: Epilogue) -> Epilogue:
    """The steps behind the addition of a bias."""
    first = NOTHING if bias is None else NOTHING.bias(bias)
    scales, shifts = first.scales + steps.scales, first.shifts + steps.shifts
    return Epilogue(first.kinds + steps.kinds, scales, shifts, steps.others)


def _is_product(x: F32, kernel: Pair, geometry: ConvGeometry) -> bool:
    """Whether the convolution is a matrix product: maps of one position, one group, no padding."""
    return geometry.groups == 1 and x.shape[2:] == kernel == (1, 1) and geometry.pad == (0, 0)
