"""A convolution with another value added into its sum: one node, for executors that join the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refnet.core.engine import Engine, Places
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Reduction, TensorType
from refnet.core.orders import Program
from refnet.ops.conv import Conv
from refnet.ops.pointwise import sum_bound


@dataclass(frozen=True, repr=False)
class ConvAdd(Reduction):
    """y = conv(data) + addend, one sum of the convolution's terms, its bias and the addend's element

    conv: a Conv with the same padding before and behind the image. No framework's file has this op: an
    executor makes it from a convolution and the addition after it (arithmetic/fusion_groups.py). The value
    between the two is then never computed.

    Shapes: data and the weights as Conv's, addend as its result.

    Plain: the convolution's order, then one addition of the addend.

    Bound, any order: that of the addition, the convolution's sum joined with the addend (`rounding.joined`):
    a term passes one addition more than in Conv, the addend as many as there are terms.

    Golden: the exact sum of all, rounded once, as for Conv. The error bound of the float64 sum grows by the
    addend's absolute value and one addition.

    Source: oneDNN's post-op `sum` (MXNet 1.9.1's _sg_mkldnn_conv, with_sum).
    """

    conv: Conv

    roles: ClassVar[tuple[str, ...]] = ("data", "addend", "weight", "bias")
    adds: ClassVar[bool] = True

    def weight_roles(self) -> tuple[str, ...]:
        return self.conv.weight_roles()

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        self._count(data, 2)
        return self.conv.weight_types(data[0])

    def nan_propagates(self, *weights: F32) -> bool:
        return self.conv.nan_propagates(*weights)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2 + len(self.weight_roles()))
        self._expect(self.conv.symmetric, "the padding must be the same before and behind the image")
        made = self.conv.type(inputs[0], *inputs[2:])
        self._expect(inputs[1] == made, f"the addend is {inputs[1]!r}, the convolution makes {made!r}")
        return made

    def run(self, *inputs: F32, engine: Engine) -> F32:
        total = self.conv.run(inputs[0], *inputs[2:], engine=engine)
        with np.errstate(all="ignore"):
            total += inputs[1]
        return total

    def terms(self, *inputs: TensorType) -> int:
        return self.conv.terms(inputs[0], *inputs[2:])

    def biased(self) -> bool:
        return self.conv.bias

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        x, addend, *weights = inputs
        return self.conv.sum_in_order(program, addend, x, *weights, engine=engine, places=places)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        x, addend, w = inputs[:3]
        bias = inputs[3] if self.conv.bias else None
        return exact.conv(type(self).__name__, x, w, bias, addend, self.conv.geometry)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        return sum_bound((self.conv.bound(inputs[0], *inputs[2:], engine=engine), inputs[1]))

    def flops(self, *inputs: TensorType) -> Cost:
        cost = self.conv.flops(inputs[0], *inputs[2:])
        return Cost(cost.macs, cost.flops + inputs[1].size)
