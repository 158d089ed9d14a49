"""Where the windows of a pool lie, and the maximum pool; the averages are in average.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Index, Terms, Windows
from refnet.core.engine import Engine, Pair, Places, PoolGeometry
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType
from refnet.core.orders import Choice, Expr, Program

CONVENTIONS = ("valid", "full", "ceil")


@dataclass(frozen=True, repr=False)
class WindowedPool(Op):
    """Base of the two windowed pools: where windows lie.

    Window i has the rows i*stride - pad + p*dilation for p below kernel. How many windows there are, with
    span = dilation * (kernel - 1) + 1 and e = pad_end, the padding behind the image (None: the same as pad):

    - valid: floor((h + pad + e - span) / stride) + 1, MXNet's `valid`, PyTorch's ceil_mode=False;
    - full:  ceil((h + pad + e - span) / stride) + 1, MXNet's `full`;
    - ceil:  as full, but the last window is dropped if it starts in the padding behind the image,
      ceil_mode of PyTorch and ONNX.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    convention: str = "valid"
    pad_end: Pair | None = field(default=None, kw_only=True)
    dilation: Pair = field(default=(1, 1), kw_only=True)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        self._expect(self.convention in CONVENTIONS, f"convention must be one of {CONVENTIONS}")
        self._expect(min(*self.kernel, *self.stride, *self.dilation) >= 1, "kernel, stride, dilation >= 1")
        self._expect(min(*self.pad, *self.ends) >= 0, "pad and pad_end >= 0")
        self._expect(self.kernel[0] * self.kernel[1] < 2**46, "fewer than 2**46 elements in a window")
        axes = zip(x.shape[2:], self.kernel, self.stride, self.pad, self.ends, self.dilation, strict=True)
        return TensorType((*x.shape[:2], *(windows_along(self, self.convention, x, axis) for axis in axes)))

    @property
    def ends(self) -> Pair:
        """The padding behind the image."""
        return self.pad if self.pad_end is None else self.pad_end

    @property
    def symmetric(self) -> bool:
        """Whether the padding is the same before and behind the image, and nothing dilated."""
        return self.pad_end in (None, self.pad) and self.dilation == (1, 1)

    def windows(self, *inputs: TensorType) -> Windows:
        """Where they lie in data of this type."""
        _, _, h, w = inputs[0].shape
        return Windows((h, w), self.kernel, self.stride, self.pad, self.dilation)

    def _window_terms(self, x: F32, at: Index) -> tuple[F32, Places, tuple[Index, ...]]:
        """The elements of one window, in its order; where they stand; places outside the image."""
        places, absent = self.windows(TensorType(x.shape)).places(*at[2:])
        image = np.full((len(places), 2), at[:2])
        data = np.concatenate([image, places[:, :2]], 1)
        return x[tuple(data.T)], data, absent

    def _by_kernel(self, x: npt.NDArray[Any], fill: float) -> Iterator[npt.NDArray[Any]]:
        """For kernel row, then kernel column: that element of every window, (n, c, oh, ow)."""
        (oh, ow), (h, w) = self._output(x), x.shape[2:]
        (ph, pw), (sh, sw), (dh, dw) = self.pad, self.stride, self.dilation
        tall = max((oh - 1) * sh + dh * (self.kernel[0] - 1) + 1, ph + h)
        wide = max((ow - 1) * sw + dw * (self.kernel[1] - 1) + 1, pw + w)
        padded = np.full((*x.shape[:2], tall, wide), fill, x.dtype)
        padded[:, :, ph : ph + h, pw : pw + w] = x
        for p in range(0, self.kernel[0] * dh, dh):
            for q in range(0, self.kernel[1] * dw, dw):
                yield padded[:, :, p : p + (oh - 1) * sh + 1 : sh, q : q + (ow - 1) * sw + 1 : sw]

    def _output(self, array: F32 | F64) -> Pair:
        return _output(self, array.shape)

    def _geometry(self, array: F32 | F64) -> PoolGeometry:
        """Where the windows lie in data of this shape, for symmetric padding and no dilation."""
        return PoolGeometry(self.kernel, self.stride, self.pad, self._output(array))


@lru_cache(maxsize=1024)
def _output(op: WindowedPool, shape: tuple[int, ...]) -> Pair:
    """(rows, columns) of the op's output for data of this shape."""
    made = op.type(TensorType(shape)).shape
    return (made[2], made[3])


@dataclass(frozen=True, repr=False)
class MaxPool(WindowedPool):
    """y[n,c,i,j] = the largest x in window (i, j); elements outside the image are left out

    Of equal elements (+0 and -0) the first in row order is taken; a NaN in the window gives NaN. Only one
    right result, since the maximum is one of the inputs, except where frameworks differ: the sign of a zero,
    and NaN (PyTorch keeps it, MXNet's oneDNN drops it; measured in 2.13 and 1.9.1).

    Formulas: see `formulas`; they differ in the sign of a zero and in NaN only, and
    "running" gives the lowest finite number where a window holds nothing but -infinity.

    Bound: |max a - max b| <= max |a - b|, so the radius is the largest radius in the window; there is no
    bound where the window holds a NaN.

    Source: MXNet Pooling pool_type=max, torch.nn.MaxPool2d.
    """

    zero_sign_unspecified: ClassVar[bool] = True
    formulas: ClassVar[Mapping[str, str]] = {
        "plain": "row by row the first of equals, NaN if there is one (PyTorch)",
        "running": "row by row from the lowest finite number: v if v > the largest so far; no NaN (MXNet)",
        "columns": "the columns first, the later of equals, NaN if it is last (ONNX Runtime, strides 1, 2)",
    }

    @property
    def exactly_specified(self) -> bool:
        return True

    @property
    def menu(self) -> tuple[str, ...]:
        return tuple(self.formulas) if self.dilation == (1, 1) else ("plain",)

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return self.dilation == (1, 1)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        (x,) = inputs
        if self.dilation != (1, 1):
            return self._largest(x)
        return engine.max_pool(x, self._geometry(x))

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        return self.dilation == (1, 1)

    def runs_formula(self, formula: str) -> bool:
        return formula == "plain"

    def _largest(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        best = np.full((*x.shape[:2], *self._output(x)), -np.inf, x.dtype)
        for values in self._by_kernel(x, -np.inf):
            best = np.where((values > best) | np.isnan(values), values, best)
        return best

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        (x,) = inputs
        if formula == "plain":
            return self.run(x, engine=engine)
        return engine.max_pool_by(x, self._geometry(x), formula)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        values, places, absent = self._window_terms(inputs[0], at)
        return Terms("max", "data", values, places, absent=absent)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        if self.dilation != (1, 1):
            center, radius = self._largest(x.center), self._largest(x.radius)
        else:
            geometry = self._geometry(x.center)
            center, radius = engine.max_pool(x.center, geometry), engine.max_pool(x.radius, geometry)
        return Interval(center, np.where(np.isnan(center), np.inf, radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size * (self.kernel[0] * self.kernel[1] - 1))


MOST_CHECKED = 1 << 20
"""Windows along an axis that is shorter than the dilation."""


def windows_along(op: Op, convention: str, x: TensorType, axis: tuple[int, ...]) -> int:
    """How many windows there are along one axis of x, by the rule of `WindowedPool`; each sees an element.

    axis: its size, and the kernel, stride, pad, pad at the end and dilation along it.
    """
    size, kernel, stride, pad, end, dilation = axis
    span = dilation * (kernel - 1) + 1
    op._expect(pad < span, f"pad must be smaller than the kernel, got {pad} and {span}")
    room = size + pad + end - span
    op._expect(room >= 0, f"the kernel does not fit into {x!r}")
    count = room // stride + 1 if convention == "valid" else -(-room // stride) + 1
    if convention == "ceil" and (count - 1) * stride >= size + pad:
        count -= 1
    op._expect((count - 1) * stride - pad < size, f"the last window lies outside of {x!r}")
    if dilation > size:  # else no step passes over the whole image
        op._expect(count <= MOST_CHECKED, f"at most {MOST_CHECKED} windows with such a dilation")
        inside = members(kernel, stride, pad, dilation, count, size)
        op._expect(int(inside.min()) > 0, f"a window has no element inside of {x!r}")
    return count


def members(
    kernel: int, stride: int, pad: int, dilation: int, count: int, end: int, before: bool = False
) -> npt.NDArray[np.int64]:
    """Per window along one axis: how many positions lie below `end` and, unless `before`, at or above 0."""
    first = np.arange(count, dtype=np.int64) * stride - pad
    behind = np.clip(-(-(end - first) // dilation), 0, kernel)
    ahead = 0 if before else np.clip(-(first // dilation), 0, kernel)
    found: npt.NDArray[np.int64] = np.maximum(behind - ahead, 0)
    return found
