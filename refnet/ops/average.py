"""Averages over windows and over the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Index, Terms, Windows
from refnet.core.engine import ConvGeometry, Engine, Places, PoolGeometry
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Reduction, TensorType
from refnet.core.orders import Chain, Expr, Leaf, Order, Program
from refnet.core.rounding import ETA, EXACT_INTEGER, U64, error_factor, gamma, outward
from refnet.ops.pool import WindowedPool, members

Array = npt.NDArray[Any]


def exact_average(
    op: str,
    total: Callable[[Array], Array],
    windows: Callable[[], Iterable[F32]],
    x: F32,
    counts: npt.NDArray[np.int64],
    exact: Exact,
) -> F32:
    """The sums of all windows of x, divided by their counts, each rounded once.

    total(x): the sums, of float64 too. windows(): per place of the kernel, what every window has there.
    """
    wide, terms = x.astype(np.float64), sum(1 for _ in windows())
    with np.errstate(all="ignore"):
        center = total(wide) / counts
        error = error_factor(terms + 1) * total(np.abs(wide)) / counts

    def refine(at: Places, y: F32) -> None:
        values = np.stack([v.reshape(-1)[at] for v in windows()], 1)  # (open, terms)
        divisors = np.broadcast_to(counts, y.shape).reshape(-1)[at]
        for k, row, divisor in zip(at, values, divisors, strict=True):
            y.reshape(-1)[k] = exact.rounded(sum(map(Fraction, row.tolist()), Fraction(0)) / int(divisor))

    return exact.round_or_refine(op, center, error, refine)


@dataclass(frozen=True, repr=False)
class AvgPool(WindowedPool, Reduction):
    """y[n,c,i,j] = (sum of x in window (i, j)) / d; elements outside the image are left out of the sum

    d, with count_include_pad: the number of the window's elements in the image and its padding (a window
    that reaches beyond the padding, in conventions full and ceil, is cut there first); without: the number
    of its elements in the image.

    Plain: acc = +0; acc = acc + x for kernel row, then kernel column; then one division by d.

    Bound, any order: n - 1 additions, then a division or a multiplication by a rounded 1/d (two
    roundings), or each element divided before the sum (MXNet's own kernel, which runs where `full` adds
    a window): gamma(n + 1) * sum |x| / d + (n + 1) * ETA/2 for results and quotients that underflow.

    Golden: the exact sum, divided by d, rounded once; the sum cannot overflow. An exact 0 is +0. A NaN or
    infinities of both signs make NaN.

    Source: MXNet Pooling pool_type=avg (whose count_include_pad is True when absent),
    torch.nn.AvgPool2d, ONNX AveragePool.
    """

    count_include_pad: bool = True

    averages: ClassVar[bool] = True

    def counts(self, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The rows (oh,) and the columns (ow,) of each window that count; d is their product."""
        counted = self.count_include_pad
        sizes = zip(shape[2:], self.ends, self.type(TensorType(shape)).shape[2:], strict=True)
        windows = zip(self.kernel, self.stride, self.pad, self.dilation, strict=True)
        rows, columns = (
            members(k, s, p, d, count, length + end if counted else length, counted)
            for (length, end, count), (k, s, p, d) in zip(sizes, windows, strict=True)
        )
        return rows, columns

    def _divisors(self, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """d of every window, (oh, ow)."""
        rows, columns = self.counts(shape)
        return rows[:, None] * columns

    def nan_propagates(self, *weights: F32) -> bool:
        return True

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return self.symmetric

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        if not self.symmetric:
            with np.errstate(all="ignore"):
                y: F32 = np.divide(self._total(x), self._divisors(x.shape).astype(np.float32))
                return y
        return engine.avg_pool(x, self._geometry(x), self.count_include_pad)

    def terms(self, *inputs: TensorType) -> int:
        return self.kernel[0] * self.kernel[1]

    def runs_order(self, program: Program, *inputs: TensorType) -> bool:
        return plain_order(program, self.terms())

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        (x,) = inputs
        if plain_order(program, self.terms()):
            value = self.run(x, engine=engine)
        else:
            value = averaged(program, x, *self.counts(x.shape), partial(self._sums, program, engine))
        return value if places is None else value.reshape(-1)[places]

    def _sums(self, program: Program, engine: Engine, x: F32) -> F32:
        """The sums of the windows (n, c, oh, ow), not yet divided."""
        geometry = ConvGeometry(self.stride, self.pad, self.dilation, x.shape[1])
        zero = program.padding == "zero"
        return engine.conv_in_order(x, None, None, geometry, self.kernel, self._output(x), program.expr, zero)

    def _total(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The sum of every window, in its order."""
        total = np.zeros((*x.shape[:2], *self._output(x)), x.dtype)
        for values in self._by_kernel(x, 0.0):
            total += values
        return total

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        return self.symmetric

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        (x,) = inputs
        if not self.symmetric:
            return self._exactly(x, exact)
        return exact.average(type(self).__name__, x, self._geometry(x), self.count_include_pad)

    def _exactly(self, x: F32, exact: Exact) -> F32:
        windows = partial(self._by_kernel, x, 0.0)
        return exact_average(type(self).__name__, self._total, windows, x, self._divisors(x.shape), exact)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        values, places, absent = self._window_terms(inputs[0], at)
        divisor = len(places)
        if self.count_include_pad:
            rows, columns = self.counts(inputs[0].shape)
            divisor = int(rows[at[2]] * columns[at[3]])
        return Terms("add", "data", values, places, absent=absent, divisor=divisor)

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int]:
        """Each element is a multiple of every divisor that can occur, so that quotients are integers too."""
        factor = math.prod(math.lcm(*range(1, side + 1)) for side in self.kernel)
        return (min(largest, (EXACT_INTEGER - 1) // (self.terms(*inputs) * factor)),), factor

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        terms = self.kernel[0] * self.kernel[1]
        if not self.symmetric:
            with np.errstate(all="ignore"):
                counts = self._divisors(x.center.shape)
                center, spread, total = (self._total(a) / counts for a in (x.center, x.radius, x.magnitude))
            return average_bound(center, spread, total, terms, terms)
        geometry = self._geometry(x.center)
        center, spread, total = (
            engine.avg_pool(a, geometry, self.count_include_pad) for a in (x.center, x.radius, x.magnitude)
        )
        in_image = x.center.shape[2] * x.center.shape[3]
        return average_bound(center, spread, total, min(terms, in_image), terms)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size * self.kernel[0] * self.kernel[1])


@dataclass(frozen=True, repr=False)
class GlobalAvgPool(Reduction):
    """y[n,c,0,0] = (sum of x[n,c,:,:]) / (h * w)

    Plain: acc = +0; acc = acc + x for row, then column; then one division by h*w.

    Bound, any order: gamma(h*w + 1) * sum |x| / (h*w) + (h*w + 1) * ETA/2, as for AvgPool; it covers the
    two divisions, by w and then by h, of _contrib_AdaptiveAvgPooling2D.

    Golden: the exact sum, divided by h*w, rounded once; zeros, NaN and infinities as for AvgPool.

    Source: MXNet Pooling global_pool=True pool_type=avg and _contrib_AdaptiveAvgPooling2D
    output_size=1, torch adaptive_avg_pool2d(x, 1).
    """

    averages: ClassVar[bool] = True
    pads: ClassVar[bool] = False

    def nan_propagates(self, *weights: F32) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        return TensorType((*x.shape[:2], 1, 1))

    def counts(self, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The rows (1,) and the columns (1,) that count; d is their product."""
        return np.array([shape[2]]), np.array([shape[3]])

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        return engine.avg_pool(x, _whole(x.shape), True)

    def terms(self, *inputs: TensorType) -> int:
        return inputs[0].shape[2] * inputs[0].shape[3]

    def runs_order(self, program: Program, *inputs: TensorType) -> bool:
        return plain_order(program, self.terms(*inputs))

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        (x,) = inputs
        if plain_order(program, self.terms(TensorType(x.shape))):
            value = self.run(x, engine=engine)
        else:
            value = averaged(program, x, *self.counts(x.shape), partial(self._sums, program, engine))
        return value if places is None else value.reshape(-1)[places]

    def _sums(self, program: Program, engine: Engine, x: F32) -> F32:
        """The sums of the images (n, c, 1, 1), not yet divided."""
        n, c, h, w = x.shape
        rows = np.ascontiguousarray(x).reshape(n * c, h * w)
        return engine.row_sums(rows, program.expr).reshape(n, c, 1, 1)

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        (x,) = inputs
        return exact.average(type(self).__name__, x, _whole(x.shape), True)

    def windows(self, *inputs: TensorType) -> Windows:
        _, _, h, w = inputs[0].shape
        return Windows((h, w), (h, w))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        _, _, h, w = inputs[0].shape
        return AvgPool((h, w)).explain(*inputs, at=at, exact=exact)

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int]:
        """Each element is a multiple of every divisor that can occur, so that quotients are integers too."""
        factor = self.terms(*inputs)
        return (min(largest, (EXACT_INTEGER - 1) // (self.terms(*inputs) * factor)),), factor

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        h, w = x.center.shape[2:]
        geometry = _whole(x.center.shape)
        center, spread, total = (
            engine.avg_pool(a, geometry, True) for a in (x.center, x.radius, x.magnitude)
        )
        return average_bound(center, spread, total, h * w, h * w)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


@lru_cache(maxsize=64)
def _plain_sums(terms: int) -> tuple[Expr, ...]:
    return tuple(Chain(Leaf.ZERO, Order.of(range(terms)), fused) for fused in (True, False))


def plain_order(program: Program, terms: int) -> bool:
    """Whether a program is a pool's plain order, with or without FMA: with weights of 1 that is the same."""
    return program.finish == "divide" and program.expr in _plain_sums(terms)


def averaged(
    program: Program,
    x: F32,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    sums: Callable[[F32], F32],
) -> F32:
    """The averages, divided as the program says.

    rows (oh,), columns (ow,): how many of each window count. sums(x): the windows' sums, (n, c, oh, ow).
    """
    divisor = np.multiply.outer(rows, columns).astype(np.float32)
    if program.finish == "divide_terms":
        value = np.empty((*x.shape[:2], *divisor.shape), np.float32)
        for d in np.unique(divisor):
            held = divisor == d
            value[..., held] = sums(x / d)[..., held]
        return value
    value = sums(x)
    if program.finish == "divide":
        value /= divisor
    elif program.finish == "reciprocal":
        value *= np.float32(1) / divisor
    else:
        value /= columns.astype(np.float32)
        value /= rows.astype(np.float32)[:, None]
    return value


def _whole(shape: tuple[int, ...]) -> PoolGeometry:
    """The pool geometry of one window that is the whole image."""
    return PoolGeometry((shape[2], shape[3]), (1, 1), (0, 0), (1, 1))


def average_bound(center: F64, spread: F64, total: F64, terms: int, divisor: int) -> Interval:
    """Bound of an average of at most `terms` elements, from the averages of x, its radius and |x|.

    divisor: an upper bound of the divisors, padding included, by which the sums exceed the averages.
    Each element may be divided before the sum: each quotient may underflow, by ETA / 2.
    """
    radius = spread + (gamma(terms + 1) + (terms + 2) * U64) * total + (terms + 1) * ETA / 2
    return outward(center, radius, (total + spread) * np.float64(divisor), terms + 1)
