"""Pooling: maximum, average, global average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from refnet.ops.base import F32, F64, Cost, Interval, Op, TensorType
from refnet.ops.exactly import Tally, error_factor, finish
from refnet.ops.rounding import ETA, U64, gamma, outward

Pair = tuple[int, int]

CONVENTIONS = ("valid", "full", "ceil")


@dataclass(frozen=True, repr=False)
class _Window(Op):
    """What the two windowed pools share: where windows lie.

    Window i covers rows i*stride - pad to i*stride - pad + kernel. How many windows there are:

    - valid: floor((h + 2*pad - kernel) / stride) + 1, MXNet's `valid`, PyTorch's ceil_mode=False;
    - full:  ceil((h + 2*pad - kernel) / stride) + 1, MXNet's `full`;
    - ceil:  as full, but the last window is dropped if it starts in the padding behind the image,
      PyTorch's ceil_mode=True.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    convention: str = "valid"

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        self._expect(self.convention in CONVENTIONS, f"convention must be one of {CONVENTIONS}")
        self._expect(min(*self.kernel, *self.stride) >= 1, "kernel and stride >= 1")
        self._expect(min(self.pad) >= 0, "pad >= 0")
        sizes = []
        for h, k, s, p in zip(x.shape[2:], self.kernel, self.stride, self.pad, strict=True):
            self._expect(p < k, f"pad must be smaller than the kernel, got {p} and {k}")
            room = h + 2 * p - k
            self._expect(room >= 0, f"the kernel does not fit into {x!r}")
            count = room // s + 1 if self.convention == "valid" else -(-room // s) + 1
            if self.convention == "ceil" and (count - 1) * s >= h + p:
                count -= 1
            self._expect((count - 1) * s - p < h, f"the last window lies outside of {x!r}")
            sizes.append(count)
        return TensorType((*x.shape[:2], *sizes))

    def _output(self, array: F32 | F64) -> Pair:
        shape = self.type(TensorType(tuple(array.shape))).shape
        return (shape[2], shape[3])


@dataclass(frozen=True, repr=False)
class MaxPool(_Window):
    """y[n,c,i,j] = the largest x in window (i, j); elements outside the image are left out

    Of equal elements (+0 and -0) the first in row order is taken; one NaN in the window makes NaN.
    One right result, the maximum is one of its inputs, up to what frameworks choose differently: the
    sign of a zero, and NaN (PyTorch keeps it, MXNet's oneDNN drops it; measured in 2.13 and 1.9.1).

    Bound: |max a - max b| <= max |a - b|, so the radius is the largest radius in the window; nothing is
    promised where the window holds a NaN.

    Source: MXNet Pooling pool_type=max, torch.nn.MaxPool2d.
    """

    frameworks_vary: ClassVar[bool] = True

    @property
    def one_result(self) -> bool:
        return True

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.pool import max_pool

        (x,) = inputs
        return max_pool(x, self.kernel, self.stride, self.pad, self._output(x), threads)

    def bound(self, *inputs: Interval) -> Interval:
        from refnet.kernels.pool import max_pool

        (x,) = inputs
        place = (self.kernel, self.stride, self.pad, self._output(x.center), 1)
        center, radius = max_pool(x.center, *place), max_pool(x.radius, *place)
        return Interval(center, np.where(np.isnan(center), np.inf, radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size * (self.kernel[0] * self.kernel[1] - 1))


@dataclass(frozen=True, repr=False)
class AvgPool(_Window):
    """y[n,c,i,j] = (sum of x in window (i, j)) / d; elements outside the image are left out of the sum

    d with count_include_pad: the window's elements in the image and its padding (a window that
    reaches beyond the padding, in conventions full and ceil, is cut there first); without: the
    window's elements in the image.

    Plain: acc = +0; acc = acc + x for kernel row, then kernel column; then one division by d.

    Bound, any order: n - 1 additions, then a division or a multiplication by a rounded 1/d (two
    roundings), or each element divided before the sum (MXNet's own kernel, which runs where `full` adds
    a window): gamma(n + 1) * sum |x| / d + (n + 1) * ETA/2 for results and quotients that underflow.

    Golden: the exact sum, divided by d, rounded once.

    Source: MXNet Pooling pool_type=avg (whose count_include_pad is True when absent),
    torch.nn.AvgPool2d.
    """

    count_include_pad: bool = True

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.pool import avg_pool

        (x,) = inputs
        output = self._output(x)
        return avg_pool(x, self.kernel, self.stride, self.pad, output, self.count_include_pad, threads)

    def golden(self, *inputs: F32, threads: int = 1, tally: Tally | None = None) -> F32:
        (x,) = inputs
        place = (self.kernel, self.stride, self.pad, self._output(x), self.count_include_pad)
        return exact_average(type(self).__name__, x, place, threads, tally)

    def bound(self, *inputs: Interval) -> Interval:
        from refnet.kernels.pool import avg_pool

        (x,) = inputs
        place = (self.kernel, self.stride, self.pad, self._output(x.center), self.count_include_pad, 1)
        return average_bound(
            avg_pool(x.center, *place),
            avg_pool(x.radius, *place),
            avg_pool(x.magnitude, *place),
            min(self.kernel[0] * self.kernel[1], x.center.shape[2] * x.center.shape[3]),
        )

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size * self.kernel[0] * self.kernel[1])


@dataclass(frozen=True, repr=False)
class GlobalAvgPool(Op):
    """y[n,c,0,0] = (sum of x[n,c,:,:]) / (h * w)

    Plain: acc = +0; acc = acc + x for row, then column; then one division by h*w.

    Bound, any order: gamma(h*w + 1) * sum |x| / (h*w) + (h*w + 1) * ETA/2, as for AvgPool; it covers the
    two divisions, by w and then by h, of _contrib_AdaptiveAvgPooling2D.

    Golden: the exact sum, divided by h*w, rounded once.

    Source: MXNet Pooling global_pool=True pool_type=avg and _contrib_AdaptiveAvgPooling2D
    output_size=1, torch adaptive_avg_pool2d(x, 1).
    """

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        return TensorType((*x.shape[:2], 1, 1))

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.pool import avg_pool

        (x,) = inputs
        return avg_pool(x, (x.shape[2], x.shape[3]), (1, 1), (0, 0), (1, 1), True, threads)

    def golden(self, *inputs: F32, threads: int = 1, tally: Tally | None = None) -> F32:
        (x,) = inputs
        place = ((x.shape[2], x.shape[3]), (1, 1), (0, 0), (1, 1), True)
        return exact_average(type(self).__name__, x, place, threads, tally)

    def bound(self, *inputs: Interval) -> Interval:
        from refnet.kernels.pool import avg_pool

        (x,) = inputs
        h, w = x.center.shape[2:]
        place = ((h, w), (1, 1), (0, 0), (1, 1), True, 1)
        return average_bound(
            avg_pool(x.center, *place), avg_pool(x.radius, *place), avg_pool(x.magnitude, *place), h * w
        )

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


def average_bound(center: F64, spread: F64, total: F64, terms: int) -> Interval:
    """Bound of an average of at most `terms` elements, from the averages of x, its radius and |x|.

    Each element may be divided before the sum: each quotient may underflow, by ETA / 2.
    """
    radius = spread + (gamma(terms + 1) + (terms + 2) * U64) * total + (terms + 1) * ETA / 2
    return outward(center, radius, (total + spread) * np.float64(terms), terms + 1)


def exact_average(
    op: str, x: F32, place: tuple[Pair, Pair, Pair, Pair, bool], threads: int, tally: Tally | None
) -> F32:
    """The correctly rounded averages; place: kernel, stride, pad, output, count_include_pad.

    In float64 the sum of n elements and the division are off by (n + 2) U64 times the average of |x|.
    """
    from refnet.kernels.exact import average_exactly, decide_average
    from refnet.kernels.jit import split

    kernel, stride, pad, _, include_pad = place
    y, at = decide_average(x, *place, error_factor(kernel[0] * kernel[1] + 1), threads)

    def refine(at: npt.NDArray[np.int64], y: F32) -> None:
        where = np.array([*stride, *pad])
        split(average_exactly, at.size, threads, at, x, np.array(kernel), where, include_pad, y)

    return finish(op, y, at, refine, tally)
