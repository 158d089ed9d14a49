"""Ops that only move values: concat, slice, reshapes, transpose, constant. All exactly specified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, Step, Terms
from refnet.core.engine import Array, Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, FoldableSum, Interval, Op, TensorType


class Move(Op):
    """An op that only copies elements: `_move` does it, for arrays of any dtype."""

    any_dtype: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    def _move(self, *arrays: Array) -> Array:
        raise NotImplementedError

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return np.array(self._move(*inputs), order="C")  # a copy: values share no memory

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        moved = (self._move(*(x.center for x in inputs)), self._move(*(x.radius for x in inputs)))
        return Interval(*moved, self._sum(*(x.sum for x in inputs)))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        return copied(self, inputs, at, exact.engine)

    def _sum(self, *sums: FoldableSum | None) -> FoldableSum | None:
        """The moved sum, if all inputs are sums of one kind; None otherwise."""
        known = [one for one in sums if one is not None]
        if not known or len(known) < len(sums) or len({one.roundings for one in known}) > 1:
            return None
        size = self._move(*(one.size for one in known))
        most = max(one.terms for one in known), max(one.input_abs_sum for one in known)
        return FoldableSum(size, known[0].roundings, *most)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()


@dataclass(frozen=True, repr=False)
class Concat(Move):
    """y = the inputs one after another along `axis`. Source: MXNet Concat, torch.cat."""

    roles: ClassVar[tuple[str, ...]] = ("data",)
    axis: int = 1

    def type(self, *inputs: TensorType) -> TensorType:
        self._expect(len(inputs) >= 1, "takes at least one input")
        first = inputs[0].shape
        self._expect(0 <= self.axis < len(first), f"axis must be in 0 to {len(first) - 1}")
        around = {(*x.shape[: self.axis], -1, *x.shape[self.axis + 1 :]) for x in inputs}
        self._expect(len(around) == 1, f"shapes differ outside of axis {self.axis}: {list(inputs)}")
        length = sum(x.shape[self.axis] for x in inputs)
        kinds = {x.dtype for x in inputs}
        self._expect(len(kinds) == 1, f"its inputs must be of one dtype, got {sorted(kinds)}")
        return TensorType((*first[: self.axis], length, *first[self.axis + 1 :]), *kinds)

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        if inputs[0].dtype != np.float32:
            return np.concatenate(inputs, self.axis)
        return engine.concatenate(inputs, self.axis)

    def _move(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, self.axis)


@dataclass(frozen=True, repr=False)
class Slice(Move):
    """y = x[begin:end] along `axis`. Source: MXNet slice_axis, one part of torch.split."""

    begin: int
    end: int
    axis: int = 1

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = inputs[0].shape
        self._expect(0 <= self.axis < len(shape), f"axis must be in 0 to {len(shape) - 1}")
        self._expect(0 <= self.begin < self.end <= shape[self.axis], f"range outside of {inputs[0]!r}")
        shape = (*shape[: self.axis], self.end - self.begin, *shape[self.axis + 1 :])
        return TensorType(shape, inputs[0].dtype)

    def _move(self, *arrays: Array) -> Array:
        return arrays[0][(slice(None),) * self.axis + (slice(self.begin, self.end),)]


@dataclass(frozen=True, repr=False)
class Flatten(Move):
    """y = x as (n, the rest in row order). Source: MXNet Flatten, torch.flatten(x, 1)."""

    reshapes: ClassVar[bool] = True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._expect(len(x.shape) >= 2, f"data must have a batch and more, got {x!r}")
        return TensorType((x.shape[0], TensorType(x.shape[1:]).size), x.dtype)

    def _move(self, *arrays: Array) -> Array:
        return arrays[0].reshape(arrays[0].shape[0], -1)


@dataclass(frozen=True, repr=False)
class ExpandDims(Move):
    """y = x with a new dimension of size 1 before `axis`. Source: MXNet expand_dims, torch.unsqueeze."""

    axis: int

    reshapes: ClassVar[bool] = True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = inputs[0].shape
        self._expect(0 <= self.axis <= len(shape), f"axis must be in 0 to {len(shape)}")
        return TensorType((*shape[: self.axis], 1, *shape[self.axis :]), inputs[0].dtype)

    def _move(self, *arrays: Array) -> Array:
        return np.expand_dims(arrays[0], self.axis)


@dataclass(frozen=True, repr=False)
class Identity(Move):
    """y = x. Source: what dropout is at inference; MXNet Dropout and identity, torch.nn.Dropout.eval()."""

    reshapes: ClassVar[bool] = True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def _move(self, *arrays: Array) -> Array:
        return arrays[0]


@dataclass(frozen=True, repr=False)
class Reshape(Move):
    """y = x with the dimensions `shape`, its elements in row order

    A 0 copies the dimension of x at its position, so that any batch size fits; one -1 takes the rest.

    Source: MXNet Reshape, torch.reshape, ONNX Reshape, Flatten and Squeeze.
    """

    shape: tuple[int, ...]

    reshapes: ClassVar[bool] = True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._expect(min(self.shape, default=0) >= -1 and self.shape.count(-1) <= 1, "at most one -1")
        self._expect(0 not in self.shape[len(x.shape) :], f"a 0 copies a dimension, {x!r} has none there")
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(self.shape)]
        if -1 in sizes:
            at = sizes.index(-1)
            sizes[at] = 1
            sizes[at] = x.size // max(TensorType(tuple(sizes)).size, 1)
        self._expect(TensorType(tuple(sizes)).size == x.size, f"{x!r} has another number of elements")
        return TensorType(tuple(sizes), x.dtype)

    def _move(self, *arrays: Array) -> Array:
        return arrays[0].reshape(self.type(TensorType(arrays[0].shape)).shape)


@dataclass(frozen=True, repr=False)
class Transpose(Move):
    """y = x with its axes in another order: axis i of y is axis order[i] of x

    Source: MXNet transpose, torch.permute, ONNX Transpose.
    """

    order: tuple[int, ...]

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = inputs[0].shape
        self._expect(sorted(self.order) == list(range(len(shape))), f"order must hold each axis of {shape}")
        return TensorType(tuple(shape[i] for i in self.order), inputs[0].dtype)

    def _move(self, *arrays: Array) -> Array:
        return arrays[0].transpose(self.order)


@dataclass(frozen=True, repr=False)
class Constant(Move):
    """y = the weight, of dimensions `shape` and of that dtype: a constant used where an op takes a value

    Source: ONNX Constant and initializers.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    roles: ClassVar[tuple[str, ...]] = ("constant",)

    def weight_roles(self) -> tuple[str, ...]:
        return ("constant",)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.shape, self.dtype),)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(inputs == self.weight_types(), f"the weight is {inputs[0]!r}")
        return inputs[0]

    def _move(self, *arrays: Array) -> Array:
        return arrays[0]


def copied(op: Op, inputs: tuple[F32, ...], at: Index, engine: Engine) -> Terms:
    """The one element that an op copies to `at`: found by moving element numbers instead of values."""
    numbers = [
        Interval(np.arange(a.size, dtype=np.float64).reshape(a.shape), np.full(a.shape, float(i)))
        for i, a in enumerate(inputs)
    ]
    moved = op.bound(*numbers, engine=engine)
    which, number = int(moved.radius[at]), int(moved.center[at])
    place = np.array([np.unravel_index(number, inputs[which].shape)], np.int64)
    role = op.roles[min(which, len(op.roles) - 1)] + (f" {which}" if len(inputs) > 1 else "")
    return Terms("copy", role, inputs[which].reshape(-1)[number : number + 1], place)


def copied_or_added(y: F32, x: F32, copy: Callable[[F64], F64], at: Index) -> Derivation:
    """The element of x that stands at `at` in y, or what stands there without one: found as in `copied`.

    copy: what the op makes of an array of x's shape, with 0 where nothing of it stands.
    """
    number = int(copy(np.arange(1, x.size + 1, dtype=np.float64).reshape(x.shape))[at])
    if not np.isfinite(y[at]):
        return Derivation((), y[at])
    what = "what stands outside of the input"
    if number:
        what = f"the input element at {[int(i) for i in np.unravel_index(number - 1, x.shape)]}"
    return Derivation((Step("y", what, Fraction(float(y[at])), y[at]),), y[at])
