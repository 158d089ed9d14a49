"""Nearest-neighbour upsampling, the octave convolution's way from the low to the high frequency."""

from __future__ import annotations

from dataclasses import dataclass

from refnet.ops.base import F32, F64, Cost, Interval, Op, TensorType


@dataclass(frozen=True, repr=False)
class UpsampleNearest(Op):
    """y[n,c,i,j] = x[n, c, i // scale, j // scale]. One right result: only copies.

    The way down, a 2x2 average pool of stride 2, is AvgPool(kernel=(2, 2), stride=(2, 2)).

    Source: MXNet UpSampling sample_type=nearest with one input.
    """

    scale: int = 2

    @property
    def one_result(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        self._expect(self.scale >= 1, "scale >= 1")
        n, c, h, w = x.shape
        return TensorType((n, c, h * self.scale, w * self.scale))

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        from refnet.kernels.resample import upsample

        return upsample(inputs[0], self.scale, threads)

    def bound(self, *inputs: Interval) -> Interval:
        def stretch(a: F64) -> F64:
            return a.repeat(self.scale, 2).repeat(self.scale, 3)

        (x,) = inputs
        return Interval(stretch(x.center), stretch(x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()
