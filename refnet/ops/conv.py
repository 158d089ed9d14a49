"""Convolution, and convolution with another value added into its sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from refnet.core.element import Index, Terms, Windows
from refnet.core.engine import NOTHING, ConvGeometry, Engine, Epilogue, Places, window_count
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Fusable, Interval, Reduction, TensorType
from refnet.core.orders import Program
from refnet.core.rounding import product_grid, product_integers, sum_of_products
from refnet.ops.pointwise import sum_bound

Pair = tuple[int, int]


@dataclass(frozen=True, repr=False)
class Conv(Fusable, Reduction):
    """y[n,o,i,j] = bias[o] + sum over c, p, q of
                  weight[o,c,p,q] * x[n, g*C + c, i*sh - ph + p*dh, j*sw - pw + q*dw]

    with g = o // (channels / groups) and C input channels per group. Terms outside the image are
    left out: padding is not a multiplication by zero, so a NaN or infinite weight there has no effect.

    Shapes: x (n, groups*C, h, w), weight (channels, C, kh, kw), bias (channels,), y (n, channels, oh, ow)
    with oh = (h + ph + eh - dh*(kh - 1) - 1) // sh + 1, where pad_end = (eh, ew) is the padding behind the
    image; None: the same as before it.

    If the paddings differ, let p' = p + m*s with the least m such that p' >= e. The op with padding p' on
    both sides has the same windows, m places later. It is computed, and its outputs m to m + oh are taken.

    Plain: acc = +0; acc = fma(weight, x, acc) for c, then p, then q; then one addition of the bias.

    Bound, any order, with or without FMA: a term passes its multiplication and at most K additions
    (K = C*kh*kw terms and the bias), so |error| <= gamma(K + 1) * (sum |weight||x| + |bias|), without a
    bias gamma(K), plus K * ETA/2 for products that underflow. It does not hold for Winograd and FFT,
    which compute other products.

    Golden: the sum of all terms inside the image and the bias, exactly, rounded once; an exact 0 is +0. A
    NaN, an infinity times 0 or infinities of both signs make NaN. In float64 the products are exact; they
    are added in chains of L = 128 terms (256 in some layouts), which are added in turn. So each passes at
    most d = L + K/L additions, not K, and the sum is off by at most (d + 2) U64 * (|x| |w| + |bias|), with
    Euclidean norms (Cauchy-Schwarz) of the window and of the weights; where that leaves two float32
    possible, a compensated or the fixed-point sum decides. Many 3x3 kernels are estimated by Winograd's
    tiles, with an error of their own (kernels/winograd.py).

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
        for size, k, s, pad, d in window:
            sizes.append(window_count(size, k, s, sum(pad), d))
            self._expect(sizes[-1] >= 1, f"kernel does not fit into {x!r}")
        return TensorType((x.shape[0], self.channels, *sizes))

    @property
    def ends(self) -> Pair:
        """The padding behind the image."""
        return self.pad if self.pad_end is None else self.pad_end

    @property
    def symmetric(self) -> bool:
        """Whether the padding is the same before and behind the image."""
        return self.pad_end in (None, self.pad)

    @property
    def geometry(self) -> ConvGeometry:
        """Where the windows lie, for symmetric padding."""
        return ConvGeometry(self.stride, self.pad, self.dilation, self.groups)

    def _wide(self, shape: tuple[int, ...], *weights: tuple[int, ...]) -> tuple[Conv, Callable[[Any], Any]]:
        """An op with symmetric padding that has all of this op's windows, and the slices that select them."""
        kinds = (TensorType(tuple(s)) for s in (shape, *weights))
        oh, ow = self.type(*kinds).shape[2:]
        pads = zip(self.pad, self.ends, self.stride, strict=True)
        m, n = (max(-(-(behind - before) // s), 0) for before, behind, s in pads)
        pad = (self.pad[0] + m * self.stride[0], self.pad[1] + n * self.stride[1])
        return replace(self, pad=pad, pad_end=None), lambda y: y[:, :, m : m + oh, n : n + ow].copy()

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return self.symmetric

    def run(self, *inputs: F32, engine: Engine) -> F32:
        if not self.symmetric:
            wide, take = self._wide(*(x.shape for x in inputs))
            cut: F32 = take(wide.run(*inputs, engine=engine))
            return cut
        return self.run_first(self.add_step(NOTHING, *inputs[1:], engine=engine), *inputs, engine=engine)

    @property
    def starts(self) -> bool:
        return self.symmetric

    def add_step(self, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        return before.bias(weights[1]) if self.bias else before

    def run_first(self, steps: Epilogue, *inputs: F32, engine: Engine) -> F32:
        return engine.conv(inputs[0], inputs[1], self.geometry, steps)

    def with_bias(self) -> Conv:
        return replace(self, bias=True)

    def with_addend(self) -> ConvAdd:
        return ConvAdd(self)

    def terms(self, *inputs: TensorType) -> int:
        return TensorType(inputs[1].shape[1:]).size

    def biased(self) -> bool:
        return self.bias

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        return self.sum_in_order(program, None, *inputs, engine=engine, places=places)

    @property
    def fuses_in_order(self) -> bool:
        return self.symmetric

    def in_order_first(self, program: Program, steps: Epilogue, *inputs: F32, engine: Engine) -> F32:
        return self.sum_in_order(program, None, *inputs, engine=engine, places=None, steps=steps)

    def sum_in_order(
        self,
        program: Program,
        addend: F32 | None,
        *inputs: F32,
        engine: Engine,
        places: Places | None,
        steps: Epilogue = NOTHING,
    ) -> F32:
        """As in_order, with an addend (n, channels, oh, ow) where the program names it, and then the steps,
        if the padding is symmetric.
        """
        if not self.symmetric:
            return self._asymmetric(program, addend, *inputs, engine=engine, places=places)
        _, _, *output = self.type(*(TensorType(x.shape) for x in inputs)).shape
        bias, zero = inputs[2] if self.bias else None, program.padding == "zero"
        return engine.conv_in_order(
            inputs[0],
            inputs[1],
            bias,
            self.geometry,
            self.kernel,
            (output[0], output[1]),
            program.expr,
            zero,
            steps,
            addend,
            places,
        )

    def _asymmetric(
        self, program: Program, addend: F32 | None, *inputs: F32, engine: Engine, places: Places | None
    ) -> F32:
        """sum_in_order by the op with symmetric padding, whose other elements are not looked at."""
        shapes = [x.shape for x in inputs]
        wide, take = self._wide(*shapes)
        shape = wide.type(*map(TensorType, shapes)).shape
        if addend is not None:
            spread = np.zeros(shape, np.float32)
            spread.reshape(-1)[take(np.arange(spread.size).reshape(shape))] = addend
            addend = spread
        cut: F32 = take(wide.sum_in_order(program, addend, *inputs, engine=engine, places=None))
        return cut if places is None else cut.reshape(-1)[places]

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        return self.symmetric

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        if not self.symmetric:
            wide, take = self._wide(*(x.shape for x in inputs))
            cut: F32 = take(wide.golden(*inputs, exact=exact))
            return cut
        bias = inputs[2] if self.bias else None
        return exact.conv(type(self).__name__, inputs[0], inputs[1], bias, None, self.geometry)

    def windows(self, *inputs: TensorType) -> Windows:
        _, _, h, w = inputs[0].shape
        return Windows((h, w), self.kernel, self.stride, self.pad, self.dilation)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        x, w = inputs[:2]
        places, absent = self.windows(TensorType(x.shape)).places(*at[2:])
        per = w.shape[1]
        base = at[1] // (self.channels // self.groups) * per
        channel = np.repeat(np.arange(per), len(places))
        i, j, p, q = np.tile(places, (per, 1)).T
        data = np.stack([np.full_like(i, at[0]), base + channel, i, j], 1)
        weight = np.stack([np.full_like(i, at[1]), channel, p, q], 1)
        values, factors = x[tuple(data.T)], w[tuple(weight.T)]
        bias = inputs[2][at[1]] if self.bias else None
        return Terms("fma", "data", values, data, "weight", factors, weight, bias, at[1], absent)

    def term_grid(self, units: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
        return product_grid(units, sizes)

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int]:
        return product_integers(self.terms(*inputs), largest, len(inputs))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        if not self.symmetric:
            wide, take = self._wide(*(x.center.shape for x in inputs))
            found = wide.bound(*inputs, engine=engine)
            return Interval(take(found.center), take(found.radius))

        def conv(x: F64, w: F64, b: F64 | None) -> F64:
            return engine.conv(x, w, self.geometry, NOTHING if b is None else NOTHING.bias(b))

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

    def label(self, *inputs: TensorType) -> str:
        stride = f" /{self.stride[0]}" if self.stride != (1, 1) else ""
        groups = "" if self.groups == 1 else " depthwise" if self.groups == inputs[0].shape[1] else " groups"
        return f"Conv {self.kernel[0]}x{self.kernel[1]}{stride}{groups}"


@dataclass(frozen=True, repr=False)
class ConvAdd(Reduction):
    """y = conv(data) + addend, one sum of the convolution's terms, its bias and the addend's element

    conv: a Conv with the same padding before and behind the image. No framework's file has this op: an
    executor makes it from a convolution and the addition after it (arithmetic/fusion_groups.py). The value
    between the two is then never computed.

    Shapes: data and the weights as Conv's, addend as its result.

    Plain: the convolution's order, then one addition of the addend.

    Bound, any order: that of the addition, the convolution's sum joined with the addend (`rounding.one_sum`):
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

    @property
    def fuses_in_order(self) -> bool:
        return True

    def in_order_first(self, program: Program, steps: Epilogue, *inputs: F32, engine: Engine) -> F32:
        x, addend, *weights = inputs
        return self.conv.sum_in_order(program, addend, x, *weights, engine=engine, places=None, steps=steps)

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        x, addend, w = inputs[:3]
        bias = inputs[3] if self.conv.bias else None
        return exact.conv(type(self).__name__, x, w, bias, addend, self.conv.geometry)

    def windows(self, *inputs: TensorType) -> Windows:
        return self.conv.windows(inputs[0])

    def term_grid(self, units: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
        """The addend is one of the terms, as a bias is."""
        x, addend, *weights = range(len(units))
        order = [x, weights[0], addend, *weights[1:]]
        return product_grid([units[k] for k in order], [sizes[k] for k in order])

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        return sum_bound((self.conv.bound(inputs[0], *inputs[2:], engine=engine), inputs[1]))

    def flops(self, *inputs: TensorType) -> Cost:
        cost = self.conv.flops(inputs[0], *inputs[2:])
        return Cost(cost.macs, cost.flops + inputs[1].size)
