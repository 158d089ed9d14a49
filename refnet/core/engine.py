"""Engines: what ops compute with. An arithmetic holds an engine and passes it to each op.

    Plain, Replay, Golden ── op.run(x, w, engine=engine) ── engine.conv(x, w, geometry, epilogue)
                                                                 │
                              loops/engine.py: the definition, scalar loops
                              kernels/engine.py: the fast one, with the same bits

Both engines give the same bits for every call; they differ only in speed and in what they cache. An engine
knows arrays only: no op, no graph.

Arrays are C-contiguous or are made so. Where a method says "either dtype", it takes float32 or float64,
because bounds are evaluated in float64 by the same loops. All images are (n, c, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from refnet.core.orders import Expr

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Pair = tuple[int, int]
Places = npt.NDArray[np.int64]
T = TypeVar("T")


class ConvGeometry(NamedTuple):
    """Where the windows of a convolution lie; pairs are (rows, columns).

    Output (i, j) reads x from i * stride - pad on, every dilation-th element; the padding is the same before
    and behind the image.
    """

    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def output(self, image: tuple[int, ...], kernel: tuple[int, ...]) -> Pair:
        """How many windows fit into an image (rows, columns) with its padding, along each axis.

        >>> ConvGeometry(pad=(1, 1)).output((5, 6), (3, 3))
        (5, 6)
        """
        axes = zip(image, kernel, self.stride, self.pad, self.dilation, strict=True)
        rows, columns = (window_count(size, k, s, 2 * p, d) for size, k, s, p, d in axes)
        return rows, columns


def window_count(length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many windows fit along one axis of an image; below 1 if not even one does.

    padding: before and behind the image together.

    >>> window_count(224, kernel=7, stride=2, padding=3 + 3, dilation=1)
    112
    """
    return (length + padding - dilation * (kernel - 1) - 1) // stride + 1


class PoolGeometry(NamedTuple):
    """Where the windows of a pool lie. output: how many there are, (rows, columns)."""

    kernel: Pair
    stride: Pair
    pad: Pair
    output: Pair


BIAS, SCALE_SHIFT, ADD, RELU, CLIP = "bias", "scale_shift", "add", "relu", "clip"


@dataclass(frozen=True, eq=False)
class Epilogue:
    """Pointwise steps after a sum, in order; each rounds as its own node would.

    kinds: BIAS adds shift[channel]; SCALE_SHIFT is fma(v, scale[channel], shift[channel]); ADD adds the next
    of `others`, an array of the output's shape; RELU is v if v > 0, else +0, NaN for NaN; CLIP cuts v.
    scales, shifts: one entry per step, (channels,) or None; the limits of CLIP, low and high, (1,).
    """

    kinds: tuple[str, ...] = ()
    scales: tuple[Array | None, ...] = ()
    shifts: tuple[Array | None, ...] = ()
    others: tuple[Array, ...] = ()

    def bias(self, shift: Array) -> Epilogue:
        """With one more step: an addition per channel."""
        return self.then(BIAS, None, shift)

    def scale_shift(self, scale: Array, shift: Array) -> Epilogue:
        """With one more step: an FMA with a scale and a shift per channel."""
        return self.then(SCALE_SHIFT, scale, shift)

    def add(self, other: Array) -> Epilogue:
        """With one more step: the addition of an array of the output's shape."""
        return self.adding().over((*self.others, other))

    def relu(self) -> Epilogue:
        """With one more step: relu."""
        return self.then(RELU, None, None)

    def adding(self) -> Epilogue:
        """With one more step: the addition of an array that `over` supplies later."""
        return self.then(ADD, None, None)

    def over(self, others: Sequence[Array]) -> Epilogue:
        """With these arrays to add, one per addition."""
        return Epilogue(self.kinds, self.scales, self.shifts, tuple(others)) if others else self

    def then(self, kind: str, scale: Array | None, shift: Array | None) -> Epilogue:
        """With one more step of this kind."""
        return Epilogue((*self.kinds, kind), (*self.scales, scale), (*self.shifts, shift), self.others)


NOTHING = Epilogue()


class Engine(Protocol):
    """The computations that ops are written in."""

    @property
    def name(self) -> str:
        """ "fast" or "reference"."""

    @property
    def threads(self) -> int:
        """How many threads share the outputs of one call. No bit depends on it."""

    def cached(self, arrays: Sequence[Array], key: object, make: Callable[[], T]) -> T:
        """make(), which the engine may cache as long as the arrays live, if all are read-only."""

    # Sums in plain order.

    def conv(self, x: Array, w: Array, geometry: ConvGeometry, epilogue: Epilogue = NOTHING) -> Array:
        """x (n, c, h, w), w (o, c / groups, kh, kw), either dtype -> (n, o, oh, ow).

        acc = +0; acc = fma(w, x, acc) over channel, kernel row, kernel column, without the terms outside the
        image; then the epilogue.
        """

    def dense(self, x: Array, w: Array, bias: Array | None) -> Array:
        """x (n, k), w (o, k), either dtype -> (n, o): acc = +0; acc = fma(w, x, acc) over k; then + bias."""

    def max_pool(self, x: Array, geometry: PoolGeometry) -> Array:
        """The largest element of each window, the first of equals; NaN wins. Either dtype."""

    def avg_pool(self, x: Array, geometry: PoolGeometry, include_pad: bool) -> Array:
        """+0 and each element over kernel row and column, then one division by their number. Either dtype.

        include_pad: elements in the padding count, up to `pad` behind the image.
        """

    def radix_sum(self, x: Array, radix: int) -> Array:
        """x (n, radix * c, h, w) -> (n, c, h, w): +0 + part 0 + part 1 + ... Either dtype."""

    def weighted_sum(self, attention: Array, x: Array, radix: int) -> Array:
        """attention (n, radix * c), x (n, radix * c, h, w) -> (n, c, h, w): a chain of FMAs from +0."""

    # Pointwise, in plain arithmetic.

    def apply(self, x: Array, epilogue: Epilogue, factors: Array | None = None) -> Array:
        """The epilogue's steps applied to x (n, c, ...); factors (n, c): x is multiplied by these first."""

    def relu(self, x: F32) -> F32:
        """x if x > 0, +0 if x <= 0, NaN if NaN."""

    def sigmoid(self, x: F32) -> F32:
        """1 / (1 + e), e = exp(-x), each of the three results rounded to float32."""

    def exp(self, x: F64) -> F64:
        """loops/functions.py `exp` of each element: relative error below 2**-50; 0 and inf beyond +-128."""

    def real(self, name: str, x: F64, *parameters: float) -> F64:
        """A function of loops/real.py of each element."""

    def scale_shift(self, x: F32, scale: F32, shift: F32) -> F32:
        """fma(x, scale, shift), one scale and shift per channel; x (n, c, ...)."""

    def softmax_parts(self, x: F32) -> F32:
        """Softmax over the third axis, x (n, groups, parts, m) -> (n, parts, groups, m).

        m = max, e = exp(x - m), s = +0 + e + e + ..., e / s, each rounded to float32.
        """

    # Moving.

    def upsample(self, x: Array, scale: int) -> Array:
        """x (n, c, h, w) -> (n, c, h * scale, w * scale): every element scale x scale times. Either dtype."""

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """The arrays one after another along the axis."""

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
        """x (n, c, h, w), w (o, c / groups, kh, kw) -> (n, o, *output), each element by the expression.

        w None: a pool, with every weight 1 and one group per channel; its windows may overhang. zero_padding:
        a term outside the image adds w * (+0); otherwise it is left out. bias (o,), addend (n, o, *output):
        used where the expression names them. places: the flat indices of the outputs to compute, (count,) ->
        (count,); then there is no epilogue.
        """

    def dense_in_order(
        self,
        x: F32,
        w: F32,
        bias: F32 | None,
        order: Expr,
        addend: F32 | None = None,
        places: Places | None = None,
    ) -> F32:
        """x (n, k), w (o, k) -> (n, o), or only the elements at these flat places."""

    def row_sums(self, x: F32, order: Expr) -> F32:
        """x (rows, terms) -> (rows,): each row's sum in that order, every weight 1, no bias."""

    # Formulas of frameworks (the menus `Op.formulas`).

    def sigmoid_by(self, x: F32, library: str) -> F32:
        """1 / (1 + e), e = exp(-x), for "sleef", "glibc", "glibc-unfused" (no FMA); the logistic functions of
        "onednn", "onednn-unfused", "mlas-avx512"."""

    def exponential_by(self, x: F32, library: str) -> F32:
        """exp(x) of a library: those of `sigmoid_by`, and "mlas-avx2"."""

    def function_by(self, x: F32, name: str, *parameters: float) -> F32:
        """A library's function of each element: one of loops/elementary.py NAMES."""

    def exponentials(self, x: F32, library: str, lanes: int) -> F32:
        """exp(x - m) along the last axis, m the row's largest element as that library finds it.

        library: as for `exponential_by`. lanes: how many elements oneDNN compares at a time, 4, 8 or 16.
        """

    def quotients(self, e: F32, total: F32 | None, divide: bool) -> F32:
        """e / s, or e * (1 / s), by rows (last axis). total (rows,): s; None: the row's e, left to right."""

    def relu_by(self, x: F32, rule: str) -> F32:
        """rule: "keeps", "drops" or "scales", as in Relu.formulas."""

    def normalised(self, x: F32, mean: F32, inverse: F32, scale: F32, shift: F32, fused: bool) -> F32:
        """((x - mean) * inverse) * scale + shift, one of each per channel; fused: the last two are an FMA."""

    def fused_multiply_add(self, a: F32, b: F32, c: F32) -> F32:
        """a * b + c with one rounding, element by element, all (n,)."""

    def parts_sum(self, parts: F32, weights: F32 | None, from_zero: bool) -> F32:
        """parts (n, radix, c, size), weights (n, radix, c) or None -> (n, c, size): rounded products, added.
        from_zero: to +0; otherwise the first product starts the sum."""

    def max_pool_by(self, x: F32, geometry: PoolGeometry, rule: str) -> F32:
        """rule: "running" or "columns", as in MaxPool.formulas."""
