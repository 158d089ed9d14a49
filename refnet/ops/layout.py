"""Ops that only move values: concat, slice, flatten, expand dims, identity. One right result each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.ops.base import F32, Cost, Interval, Op, TensorType

Array = npt.NDArray[Any]


class _Move(Op):
    """An op that copies elements: `_move` says where, for arrays of any dtype."""

    @property
    def one_result(self) -> bool:
        return True

    def _move(self, *arrays: Array) -> Array:
        raise NotImplementedError

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        return np.array(self._move(*inputs), order="C")  # a copy: values share no memory

    def bound(self, *inputs: Interval) -> Interval:
        return Interval(self._move(*(x.center for x in inputs)), self._move(*(x.radius for x in inputs)))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()


@dataclass(frozen=True, repr=False)
class Concat(_Move):
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
        return TensorType((*first[: self.axis], length, *first[self.axis + 1 :]))

    def _move(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, self.axis)


@dataclass(frozen=True, repr=False)
class Slice(_Move):
    """y = x[begin:end] along `axis`. Source: MXNet slice_axis, one part of torch.split."""

    begin: int
    end: int
    axis: int = 1

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = inputs[0].shape
        self._expect(0 <= self.axis < len(shape), f"axis must be in 0 to {len(shape) - 1}")
        self._expect(0 <= self.begin < self.end <= shape[self.axis], f"range outside of {inputs[0]!r}")
        return TensorType((*shape[: self.axis], self.end - self.begin, *shape[self.axis + 1 :]))

    def _move(self, *arrays: Array) -> Array:
        return arrays[0][(slice(None),) * self.axis + (slice(self.begin, self.end),)]


@dataclass(frozen=True, repr=False)
class Flatten(_Move):
    """y = x as (n, the rest in row order). Source: MXNet Flatten, torch.flatten(x, 1)."""

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._expect(len(x.shape) >= 2, f"data must have a batch and more, got {x!r}")
        return TensorType((x.shape[0], TensorType(x.shape[1:]).size))

    def _move(self, *arrays: Array) -> Array:
        return arrays[0].reshape(arrays[0].shape[0], -1)


@dataclass(frozen=True, repr=False)
class ExpandDims(_Move):
    """y = x with a new dimension of size 1 before `axis`. Source: MXNet expand_dims, torch.unsqueeze."""

    axis: int

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = inputs[0].shape
        self._expect(0 <= self.axis <= len(shape), f"axis must be in 0 to {len(shape)}")
        return TensorType((*shape[: self.axis], 1, *shape[self.axis :]))

    def _move(self, *arrays: Array) -> Array:
        return np.expand_dims(arrays[0], self.axis)


@dataclass(frozen=True, repr=False)
class Identity(_Move):
    """y = x. Source: what dropout is at inference; MXNet Dropout and identity, torch.nn.Dropout.eval()."""

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def _move(self, *arrays: Array) -> Array:
        return arrays[0]
