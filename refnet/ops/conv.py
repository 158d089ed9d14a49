"""Convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.exact.correct_rounding import RefineCount, error_factor, finish
from refnet.exact.rounding import sum_of_products

Pair = tuple[int, int]


@dataclass(frozen=True, repr=False)
class Conv(Op):
    """y[n,o,i,j] = bias[o] + sum over c, p, q of
                  weight[o,c,p,q] * x[n, g*C + c, i*sh - ph + p*dh, j*sw - pw + q*dw]

    with g = o // (channels / groups) and C input channels per group. Terms outside the image are
    left out: padding is not a multiplication by zero, so a NaN or infinite weight there has no effect.

    Shapes: x (n, groups*C, h, w), weight (channels, C, kh, kw), bias (channels,), y (n, channels, oh, ow)
    with oh = (h + ph + eh - dh*(kh - 1) - 1) // sh + 1, where pad_end = (eh, ew) is the padding behind the
    image; None: the same as before it.

    Where they differ, the op with the padding p' = p + m*s on both sides, m the least with p' >= e, has the
    same windows m places later: it is computed, and the outputs m to m + oh of it are taken.

    Plain: acc = +0; acc = fma(weight, x, acc) for c, then p, then q; then one addition of the bias.

    Bound, any order, with or without FMA: a term passes its multiplication and at most K additions
    (K = C*kh*kw terms and the bias), so |error| <= gamma(K + 1) * (sum |weight||x| + |bias|), without a
    bias gamma(K), plus K * ETA/2 for products that underflow. It does not hold for Winograd and FFT,
    which compute other products.

    Golden: the sum of all terms inside the image and the bias, exactly, rounded once; an exact 0 is +0. A
    NaN, an infinity times 0 or infinities of both signs make NaN. In float64 the products are exact; they
    are added in chains of 256 terms, which are added in turn. So each passes at most d = 256 + K/256
    additions, not K, and the sum is off by at most (d + 2) U64 * (|x| |w| + |bias|), with Euclidean norms
    (Cauchy-Schwarz) of the window and of the weights; where that leaves two float32 possible, the
    fixed-point sum decides.

    Source: MXNet Convolution, torch.nn.Conv2d (the cross-correlation of both).
    """

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    pad_end: Pair | None = None

    roles: ClassVar[tuple[str, ...]] = ("data", "weight", "bias")

    def weight_roles(self) -> tuple[str, ...]:
        return ("weight", "bias") if self.bias else ("weight",)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        self._count(data, 1)
        (x,) = data
        self._rank(x, 4)
        self._expect(self.channels >= 1, "channels >= 1")
        self._expect(
            self.groups > 0 and x.shape[1] % self.groups == 0 and self.channels % self.groups == 0,
            f"groups must divide {x.shape[1]} input and {self.channels} output channels",
        )
        weight = TensorType((self.channels, x.shape[1] // self.groups, *self.kernel))
        return (weight, TensorType((self.channels,))) if self.bias else (weight,)

    def nan_propagates(self, *weights: F32) -> bool:
        return all(bool(np.isfinite(w).all()) for w in weights)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 3 if self.bias else 2)
        x = inputs[0]
        self._expect(min(*self.kernel, *self.stride, *self.dilation) >= 1, "kernel, stride, dilation >= 1")
        self._expect(min(*self.pad, *self.ends) >= 0, "pad and pad_end >= 0")
        self._expect(inputs[1:] == self.weight_types(x), f"weights are {list(inputs[1:])} for {x!r}")
        sizes = []
        pads = zip(self.pad, self.ends, strict=True)
        window = zip(x.shape[2:], self.kernel, self.stride, pads, self.dilation, strict=True)
        for size, k, s, (before, behind), d in window:
            room = size + before + behind - d * (k - 1) - 1
            self._expect(room >= 0, f"kernel does not fit into {x!r}")
            sizes.append(room // s + 1)
        return TensorType((x.shape[0], self.channels, *sizes))

    @property
    def ends(self) -> Pair:
        """The padding behind the image."""
        return self.pad if self.pad_end is None else self.pad_end

    @property
    def symmetric(self) -> bool:
        """Whether the padding is the same before and behind the image."""
        return self.pad_end in (None, self.pad)

    def _wide(self, shape: tuple[int, ...], *weights: tuple[int, ...]) -> tuple[Conv, Callable[[Any], Any]]:
        """The op with symmetric padding that has all of this one's windows, and what takes them out of it."""
        kinds = (TensorType(tuple(s)) for s in (shape, *weights))
        oh, ow = self.type(*kinds).shape[2:]
        pads = zip(self.pad, self.ends, self.stride, strict=True)
        m, n = (max(-(-(behind - before) // s), 0) for before, behind, s in pads)
        pad = (self.pad[0] + m * self.stride[0], self.pad[1] + n * self.stride[1])
        return replace(self, pad=pad, pad_end=None), lambda y: y[:, :, m : m + oh, n : n + ow].copy()

    def recordable(self, *inputs: tuple[int, ...]) -> bool:
        return self.symmetric

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        if not self.symmetric:
            wide, take = self._wide(*(x.shape for x in inputs))
            cut: F32 = take(wide.run(*inputs, threads=threads))
            return cut
        from refnet.kernels.epilogue import Chain
        from refnet.kernels.panel import convolve

        chain = Chain().bias(inputs[2]) if self.bias else Chain()
        place = (self.stride, self.pad, self.dilation, self.groups)
        return convolve(inputs[0], inputs[1], *place, threads, chain)

    def golden(self, *inputs: F32, threads: int = 1, refine_count: RefineCount | None = None) -> F32:
        if not self.symmetric:
            wide, take = self._wide(*(x.shape for x in inputs))
            cut: F32 = take(wide.golden(*inputs, threads=threads, refine_count=refine_count))
            return cut
        return self.exactly(type(self).__name__, None, *inputs, threads=threads, refine_count=refine_count)

    def exactly(
        self,
        name: str,
        addend: F32 | None,
        *inputs: F32,
        threads: int = 1,
        refine_count: RefineCount | None = None,
    ) -> F32:
        """The exact sum of the convolution, and of the addend (n, channels, oh, ow) if there is one, rounded
        once. name: of the op in the count. For symmetric padding.
        """
        from refnet.kernels import accumulator as exact
        from refnet.kernels.epilogue import Chain
        from refnet.kernels.panel import convolve
        from refnet.kernels.resources import prepared
        from refnet.kernels.segments import convolve_in_segments, depth
        from refnet.kernels.team import parallel_for

        x = exact.widened(inputs[0], threads)
        w = prepared((inputs[1],), "float64", lambda: widened(inputs[1]))
        b = inputs[2].astype(np.float64) if self.bias else np.zeros(0)
        place = (self.stride, self.pad, self.dilation)
        with np.errstate(all="ignore"):
            chain = Chain().bias(b) if self.bias else Chain()
            if addend is not None:
                more = addend.astype(np.float64)
                chain = chain.add(more)
            center = convolve_in_segments(x, w, *place, self.groups, threads, chain)
            squares = exact.squares(x, self.groups, threads)
            ones = np.ones((self.groups, 1, *self.kernel))
            norms = np.sqrt(convolve(squares, ones, *place, self.groups, threads))
        weights = prepared((inputs[1],), "norm", lambda: norms_of(inputs[1]))
        plus = b if self.bias else np.zeros(self.channels)
        size = center.shape[2] * center.shape[3]
        n = x.shape[0]
        factor = error_factor(depth(w, self.groups) + self.bias + (addend is not None))
        if addend is None:
            windows = norms.reshape(n, -1, size)
            y, at = exact.decide_products(
                center.reshape(n, -1, size), windows, weights, plus, factor, threads
            )
        else:
            with np.errstate(all="ignore"):
                sizes = np.repeat(norms, self.channels // self.groups, 1)  # (n, channels, oh, ow)
                sizes *= weights[:, None, None]
                sizes += np.abs(plus)[:, None, None] + np.abs(more)
            y, at = exact.decide(center, factor * sizes, threads)
        others = np.zeros(0, np.float32) if addend is None else np.ascontiguousarray(addend).reshape(-1)

        def refine(at: npt.NDArray[np.int64], y: F32) -> None:
            where = np.array([*self.stride, *self.pad, *self.dilation])
            arrays = (at, inputs[0], inputs[1], b, others)
            parallel_for(exact.conv_exactly, at.size, threads, *arrays, where, self.groups, y)

        return finish(name, y.reshape(center.shape), at, refine, refine_count)

    def bound(self, *inputs: Interval) -> Interval:
        if not self.symmetric:
            wide, take = self._wide(*(x.center.shape for x in inputs))
            found = wide.bound(*inputs)
            return Interval(take(found.center), take(found.radius))
        from refnet.kernels.epilogue import Chain
        from refnet.kernels.panel import convolve
        from refnet.kernels.resources import processors

        def conv(x: F64, w: F64, b: F64 | None) -> F64:
            chain = Chain() if b is None else Chain().bias(b)
            return convolve(x, w, self.stride, self.pad, self.dilation, self.groups, processors(), chain)

        x, w = inputs[:2]
        b = inputs[2] if self.bias else None
        center = conv(x.center, w.center, b.center if b else None)
        total = conv(np.abs(x.center), np.abs(w.center), np.abs(b.center) if b else None)
        spread = np.zeros_like(center)
        if x.radius.any() or w.radius.any() or (b and b.radius.any()):
            spread = conv(x.radius, w.magnitude, b.radius if b else None)
            spread += conv(np.abs(x.center), w.radius, None)
            total = conv(x.magnitude, w.magnitude, b.magnitude if b else None)
        terms = int(np.prod(w.center.shape[1:]))
        input_abs_sum = terms * float(x.magnitude.max(initial=0.0))
        return sum_of_products(
            center, spread, total, terms + self.bias, terms, terms + self.bias, input_abs_sum
        )

    def flops(self, *inputs: TensorType) -> Cost:
        size = self.type(*inputs).size
        macs = size * TensorType(inputs[1].shape[1:]).size
        return Cost(macs, 2 * macs + size * self.bias)


def widened(w: F32) -> F64:
    """w in float64, read-only: exact, and kept with what the kernels derive from it."""
    wide = w.astype(np.float64)
    wide.flags.writeable = False
    return wide


def norms_of(w: F32) -> F64:
    """The Euclidean norm of each output's weights, (o,)."""
    squares = np.square(w.astype(np.float64)).reshape(w.shape[0], -1)
    return np.asarray(np.sqrt(squares.sum(1)))
