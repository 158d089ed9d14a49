"""Ops that choose elements by computed integers: an embedding's rows, the elements at places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Index, Terms
from refnet.core.engine import Engine
from refnet.core.errors import InputError
from refnet.core.exact import Exact
from refnet.core.op import F64, Cost, Interval, TensorType
from refnet.ops.integers import Mask, Typed

Places = npt.NDArray[np.int64]


class _Taking(Typed):
    """The base. inputs: what is taken from, and the indices; a weight, what is taken from, stands last."""

    table: tuple[int, ...] | None
    dtype: str
    index: str

    roles: ClassVar[tuple[str, ...]] = ("data", "indices")

    def weight_roles(self) -> tuple[str, ...]:
        return () if self.table is None else ("table",)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return () if self.table is None else (TensorType(self.table, self.dtype),)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost()

    def _sides(self, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """What is taken from, and the indices."""
        x, i = inputs if self.table is None else inputs[::-1]
        return x, i

    def _kinds(self, inputs: Sequence[TensorType]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The two shapes, after a look at the dtypes."""
        self._count(inputs, 2)
        x, i = self._sides(inputs)
        self._same_kind((x,), (self.dtype,))
        self._expect(self.index in ("int32", "int64"), "indices are int32 or int64")
        self._same_kind((i,), (self.index,))
        return x.shape, i.shape

    def _limits(self, x: tuple[int, ...], i: tuple[int, ...]) -> Places:
        """How many there are to choose from, by the two shapes: a number, or one per part of an index."""
        raise NotImplementedError

    def _taken(self, x: npt.NDArray[Any], i: Places) -> npt.NDArray[Any]:
        """The elements; every index is from 0 on and inside."""
        raise NotImplementedError

    def index_limit(self, place: int, *inputs: TensorType) -> int | None:
        x, i = self._sides(inputs)
        return int(self._limits(x.shape, i.shape).min()) if place == (self.table is None) else None

    def run(self, *inputs: Any, engine: Engine) -> Any:
        x, i = self._sides(inputs)
        limits = self._limits(x.shape, i.shape)
        outside = (i < -limits) | (i >= limits)
        if outside.any():
            at = tuple(map(int, np.unravel_index(int(np.argmax(outside)), i.shape)))
            most = int(np.broadcast_to(limits, i.shape)[at])
            raise InputError(f"{self!r}: the index {i[at]} at {list(at)} is outside of {-most} to {most - 1}")
        places = np.asarray(i, np.int64)
        return np.array(self._taken(x, np.where(places < 0, places + limits, places)), order="C")

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        x, i = self._sides(inputs)
        limits = self._limits(x.center.shape, i.center.shape)
        known = np.broadcast_to(i.radius == 0, i.center.shape) & (i.center >= -limits) & (i.center < limits)
        places = np.where(known, i.center, 0).astype(np.int64)
        places = np.where(places < 0, places + limits, places)
        radius: F64 = self._taken(np.broadcast_to(x.radius, x.center.shape), places)
        sure = self._of(known, x.center.ndim)
        return Interval(self._taken(x.center, places), np.where(sure, radius, np.inf))

    def _of(self, known: Mask, rank: int) -> Mask:
        """Per element of the value, or stretched over it: whether its index is known. rank: of the data."""
        raise NotImplementedError

    def explain(self, *inputs: Any, at: Index, exact: Exact) -> Terms:
        x, i = self._sides(inputs)
        numbers = np.arange(x.size, dtype=np.int64).reshape(x.shape)
        limits, places = self._limits(x.shape, i.shape), np.asarray(i, np.int64)
        number = int(self._taken(numbers, np.where(places < 0, places + limits, places))[at])
        place = np.array([np.unravel_index(number, x.shape)], np.int64)
        return Terms("copy", self.roles[0], x.reshape(-1)[number : number + 1], place)


@dataclass(frozen=True, repr=False)
class Take(_Taking):
    """y[..., k, ...] = x[..., i[k], ...] along `axis`: the dimensions of i stand in y in the axis's place

    An index below 0 counts from the end; one that is outside is an error. table: the shape of x, if x is a
    weight, such as an embedding's; None: it is a value. dtype: of x and y. index: of i.

    Bound: that of the element that is taken; where its index is not known, there is none.

    Source: ONNX Gather, torch.nn.Embedding, torch.index_select, x[i].

    >>> from refnet.loops.engine import REFERENCE
    >>> Take(0, table=(2, 2)).run(np.array([[1, 0]]), np.float32([[1, 2], [3, 4]]), engine=REFERENCE)
    array([[[3., 4.],
            [1., 2.]]], dtype=float32)
    """

    axis: int
    table: tuple[int, ...] | None = None
    dtype: str = "float32"
    index: str = "int64"

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0 and self.table is None

    def type(self, *inputs: TensorType) -> TensorType:
        x, i = self._kinds(inputs)
        self._expect(0 <= self.axis < len(x), f"axis must be in 0 to {len(x) - 1}")
        return TensorType((*x[: self.axis], *i, *x[self.axis + 1 :]), self.dtype)

    def _limits(self, x: tuple[int, ...], i: tuple[int, ...]) -> Places:
        return np.array(x[self.axis], np.int64)

    def _taken(self, x: npt.NDArray[Any], i: Places) -> npt.NDArray[Any]:
        return np.take(x, i, self.axis)

    def _of(self, known: Mask, rank: int) -> Mask:
        return known.reshape((*known.shape, *(1,) * (rank - self.axis - 1)))


@dataclass(frozen=True, repr=False)
class TakeAlong(_Taking):
    """y[a, k, b] = x[a, i[a, k, b], b] along `axis`: an index for each element of y

    x and i have the same number of dimensions; beside the axis i has at most as many of each as x. Otherwise
    as Take.

    Source: ONNX GatherElements, torch.gather, numpy.take_along_axis.
    """

    axis: int
    table: tuple[int, ...] | None = None
    dtype: str = "float32"
    index: str = "int64"

    @property
    def mixes_images(self) -> bool:
        """Of all images along the first axis; of a table along another: it has a row for each image."""
        return (self.axis == 0) == (self.table is None)

    def type(self, *inputs: TensorType) -> TensorType:
        x, i = self._kinds(inputs)
        self._expect(len(x) == len(i), f"data {list(x)} and indices {list(i)} must have as many dimensions")
        self._expect(0 <= self.axis < len(x), f"axis must be in 0 to {len(x) - 1}")
        fits = all(m <= n for k, (n, m) in enumerate(zip(x, i, strict=True)) if k != self.axis)
        self._expect(fits, f"indices {list(i)} reach beyond data {list(x)}")
        return TensorType(i, self.dtype)

    def _limits(self, x: tuple[int, ...], i: tuple[int, ...]) -> Places:
        return np.array(x[self.axis], np.int64)

    def _taken(self, x: npt.NDArray[Any], i: Places) -> npt.NDArray[Any]:
        kept = tuple(slice(None) if k == self.axis else slice(n) for k, n in enumerate(i.shape))
        return np.take_along_axis(x[kept], i, self.axis)

    def _of(self, known: Mask, rank: int) -> Mask:
        return known


@dataclass(frozen=True, repr=False)
class TakeAt(_Taking):
    """y[k] = x[i[k, 0], i[k, 1], ...]: the last dimension of i is an index into the first axes of x

    k: the other dimensions of i, which stand in y before the axes that are left. Otherwise as Take.

    Source: ONNX GatherND with batch_dims=0, x[rows, columns] of torch and NumPy.
    """

    table: tuple[int, ...] | None = None
    dtype: str = "float32"
    index: str = "int64"

    @property
    def mixes_images(self) -> bool:
        return self.table is None

    def type(self, *inputs: TensorType) -> TensorType:
        x, i = self._kinds(inputs)
        self._expect(bool(i) and 1 <= i[-1] <= len(x), f"indices {list(i)} into data {list(x)}")
        return TensorType((*i[:-1], *x[i[-1] :]), self.dtype)

    def _limits(self, x: tuple[int, ...], i: tuple[int, ...]) -> Places:
        return np.array(x[: i[-1]], np.int64)

    def _taken(self, x: npt.NDArray[Any], i: Places) -> npt.NDArray[Any]:
        return np.asarray(x[tuple(np.moveaxis(i, -1, 0))])

    def _of(self, known: Mask, rank: int) -> Mask:
        found: Mask = np.asarray(known.all(-1))
        return found.reshape((*found.shape, *(1,) * (rank - known.shape[-1])))
