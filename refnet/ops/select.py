"""Ops that choose, repeat and rearrange elements: strided slices, gather, expand, tile, depth and space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from refnet.core.engine import Array
from refnet.core.op import TensorType
from refnet.ops.layout import Move


@dataclass(frozen=True, repr=False)
class StridedSlice(Move):
    """y = x[begin + k*step for k in 0 .. count - 1] along each axis of `axes`

    One begin, step and count per axis. A step may be negative, never 0; begin counts from 0.

    Source: ONNX Slice with steps, torch's x[::2] and flip.
    """

    axes: tuple[int, ...]
    begins: tuple[int, ...]
    steps: tuple[int, ...]
    counts: tuple[int, ...]

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = list(inputs[0].shape)
        lengths = {len(self.axes), len(self.begins), len(self.steps), len(self.counts)}
        self._expect(len(lengths) == 1, "a begin, a step and a count for each axis")
        self._expect(len(set(self.axes)) == len(self.axes), "each axis once")
        for axis, begin, step, count in zip(self.axes, self.begins, self.steps, self.counts, strict=True):
            self._expect(0 <= axis < len(shape), f"axes outside of {inputs[0]!r}")
            self._expect(step != 0 and count >= 1, "steps other than 0, counts from 1 on")
            last = begin + step * (count - 1)
            self._expect(
                0 <= begin < shape[axis] and 0 <= last < shape[axis], f"range outside of {inputs[0]!r}"
            )
            shape[axis] = count
        return TensorType(tuple(shape), inputs[0].dtype)

    def _move(self, *arrays: Array) -> Array:
        found = [slice(None)] * arrays[0].ndim
        for axis, begin, step, count in zip(self.axes, self.begins, self.steps, self.counts, strict=True):
            end = begin + step * count
            found[axis] = slice(begin, None if end < 0 else end, step)
        return arrays[0][tuple(found)]


@dataclass(frozen=True, repr=False)
class Gather(Move):
    """y[..., k, ...] = x[..., indices[k], ...] along `axis`; the indices are constants of the network

    shape: the dimensions that the indices have, row by row, in y in the axis's place; None: one, their
    number; (): a single index, which leaves no dimension. Indices count from 0.

    Source: ONNX Gather with a constant index, torch.index_select, x[:, 0].
    """

    axis: int
    indices: tuple[int, ...]
    shape: tuple[int, ...] | None = None

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        found = inputs[0].shape
        self._expect(0 <= self.axis < len(found), f"axis must be in 0 to {len(found) - 1}")
        self._expect(len(self.indices) >= 1, "at least one index")
        self._expect(
            min(self.indices) >= 0 and max(self.indices) < found[self.axis],
            f"indices outside of {inputs[0]!r}",
        )
        self._expect(
            math.prod(self._shape) == len(self.indices) and min(self._shape, default=1) >= 1,
            f"{len(self.indices)} indices do not fit the shape",
        )
        shape = (*found[: self.axis], *self._shape, *found[self.axis + 1 :])
        return TensorType(shape, inputs[0].dtype)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (len(self.indices),) if self.shape is None else self.shape

    def _move(self, *arrays: Array) -> Array:
        (x,) = arrays
        places = np.array(self.indices, np.int64).reshape(self._shape)
        return np.take(x, places, self.axis)


@dataclass(frozen=True, repr=False)
class Expand(Move):
    """y = x, repeated along axes of size 1 until it has the dimensions `shape`; a 1 keeps x's dimension

    The last dimensions are paired; shape may have more than x. Because a 1 keeps, any batch size fits.

    Source: ONNX Expand, torch.Tensor.expand, numpy.broadcast_to.
    """

    shape: tuple[int, ...]

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._expect(min(self.shape, default=1) >= 1, "sizes from 1 on")
        rank = max(len(x.shape), len(self.shape))
        have = (*(1,) * (rank - len(x.shape)), *x.shape)
        want = (*(1,) * (rank - len(self.shape)), *self.shape)
        fits = all(1 in (n, m) or n == m for n, m in zip(have, want, strict=True))
        self._expect(fits, f"{x!r} cannot be repeated to it")
        return TensorType(tuple(max(n, m) for n, m in zip(have, want, strict=True)), x.dtype)

    def _move(self, *arrays: Array) -> Array:
        return np.broadcast_to(arrays[0], self.type(TensorType(arrays[0].shape)).shape)


@dataclass(frozen=True, repr=False)
class Tile(Move):
    """y = x, laid out repeats[i] times one after another along axis i

    Source: ONNX Tile, torch.Tensor.repeat, numpy.tile.
    """

    repeats: tuple[int, ...]

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        shape = inputs[0].shape
        self._expect(len(self.repeats) == len(shape), f"needs one number per axis of {shape}")
        self._expect(min(self.repeats, default=1) >= 1, "repeats from 1 on")
        return TensorType(tuple(n * r for n, r in zip(shape, self.repeats, strict=True)), inputs[0].dtype)

    def _move(self, *arrays: Array) -> Array:
        return np.tile(arrays[0], self.repeats)


@dataclass(frozen=True, repr=False)
class DepthToSpace(Move):
    """y[n, c, i*b + p, j*b + q] = x[n, channel(c, p, q), i, j], with b = block

    The channels of x, C*b*b in all, are numbered channel(c, p, q) = (c*b + p)*b + q with depth_first False,
    ONNX's mode CRD and PyTorch's pixel shuffle; (p*b + q)*C + c with depth_first True, ONNX's mode DCR (its
    default) and TensorFlow's.

    Shapes: x (n, C*b*b, h, w), y (n, C, h*b, w*b).

    Source: ONNX DepthToSpace, torch.nn.PixelShuffle, MXNet depth_to_space (DCR).
    """

    block: int
    depth_first: bool = False

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        self._expect(self.block >= 1, "block >= 1")
        n, c, h, w = x.shape
        b = self.block
        self._expect(c % (b * b) == 0, f"block * block must divide the channels of {x!r}")
        return TensorType((n, c // (b * b), h * b, w * b), x.dtype)

    def _move(self, *arrays: Array) -> Array:
        (x,) = arrays
        n, c, h, w = x.shape
        b, shape = self.block, self.type(TensorType(x.shape)).shape
        if self.depth_first:
            return x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2).reshape(shape)
        return x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(shape)


@dataclass(frozen=True, repr=False)
class SpaceToDepth(Move):
    """y[n, channel(c, p, q), i, j] = x[n, c, i*b + p, j*b + q], with b = block: DepthToSpace's inverse

    Channels are numbered as there, by depth_first too.

    Shapes: x (n, C, h*b, w*b), y (n, C*b*b, h, w).

    Source: ONNX SpaceToDepth (depth_first before opset 28), torch.nn.PixelUnshuffle (not depth_first),
    MXNet space_to_depth (depth_first).
    """

    block: int
    depth_first: bool = False

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        (x,) = inputs
        self._rank(x, 4)
        self._expect(self.block >= 1, "block >= 1")
        n, c, h, w = x.shape
        b = self.block
        self._expect(h % b == 0 and w % b == 0, f"block must divide rows and columns of {x!r}")
        return TensorType((n, c * b * b, h // b, w // b), x.dtype)

    def _move(self, *arrays: Array) -> Array:
        (x,) = arrays
        n, c, h, w = x.shape
        b, shape = self.block, self.type(TensorType(x.shape)).shape
        parts = x.reshape(n, c, h // b, b, w // b, b)
        order = (0, 3, 5, 1, 2, 4) if self.depth_first else (0, 1, 3, 5, 2, 4)
        return parts.transpose(order).reshape(shape)
