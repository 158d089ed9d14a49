"""Arithmetic of integers: each op has one right result; a bound holds it where all that goes in is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.engine import Engine
from refnet.core.op import Interval, TensorType
from refnet.ops.integers import EXACT, KINDS, Mask, Typed, WithConstants, in_float64, surely

Array = npt.NDArray[Any]
WHOLE = tuple(name for name in KINDS if name not in ("float32", "bool"))
"""The dtypes of integers."""


def _quotient(a: Array, b: Array) -> Array:
    """a / b without the part behind the point; 0 where b is 0."""
    divisor = np.where(b == 0, b.dtype.type(1), b)
    found = a // divisor
    found = found + ((found < 0) & (found * divisor != a)).astype(found.dtype)
    return np.asarray(np.where(b == 0, found.dtype.type(0), found))


def _remainder(a: Array, b: Array) -> Array:
    return np.where(b == 0, a.dtype.type(0), np.mod(a, np.where(b == 0, b.dtype.type(1), b)))


def _truncated(a: Array, b: Array) -> Array:
    return np.where(b == 0, a.dtype.type(0), np.fmod(a, np.where(b == 0, b.dtype.type(1), b)))


OF_TWO: dict[str, Any] = {
    "Add": np.add, "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor,
    "Div": _quotient, "Fmod": _truncated, "Max": np.maximum, "Min": np.minimum, "Mod": _remainder,
    "Mul": np.multiply, "Sub": np.subtract,
}  # fmt: skip
OF_ONE: dict[str, Any] = {"Abs": np.abs, "BitwiseNot": np.invert, "Neg": np.negative, "Sign": np.sign}
ORDERED = ("Div", "Fmod", "Mod", "Sub")
"""Those of which the order of the inputs decides."""


def _known(dtype: str, value: Array, *inputs: Interval) -> Interval:
    """The value where all inputs are known and float64 has every number."""
    points = np.all(np.broadcast_arrays(*(one.radius == 0 for one in inputs)), axis=0)
    return surely(points & in_float64(dtype, *inputs) & (np.abs(value.astype(np.float64)) <= EXACT), value)


def _whole(dtype: str, x: Interval) -> Array:
    """The numbers in the middle of an interval, as integers."""
    inside = np.abs(x.center) <= EXACT
    return np.where(inside, x.center, 0).astype(np.int64).astype(dtype)


@dataclass(frozen=True, repr=False)
class Whole(WithConstants):
    """y = a k b of integers; the inputs are stretched over each other

    kind: Add, Mul, Max, Min, BitwiseAnd, BitwiseOr, BitwiseXor of two or more; Sub, Div, Mod, Fmod of two;
    Neg, Abs, Sign, BitwiseNot of one. Div drops what is behind the point; Mod has the sign of b, Fmod of a.
    Of a number that the type does not have the highest bits are lost. A division by 0 has no right result,
    and gives 0 here. dtype: of all. constants: the shapes of inputs that are weights, behind the data.
    swapped: the weight is `a`.

    Bound: the value, where all that goes in is known.

    Source: ONNX's operators of these names on integers.

    >>> from refnet.loops.engine import REFERENCE
    >>> Whole("Div").run(np.array([-7, 7]), np.array([2, 2]), engine=REFERENCE)
    array([-3,  3])
    """

    kind: str
    constants: tuple[tuple[int, ...], ...] = ()
    swapped: bool = False
    dtype: str = "int64"

    roles: ClassVar[tuple[str, ...]] = ("a", "b")

    def type(self, *inputs: TensorType) -> TensorType:
        self._expect(self.kind in (*OF_ONE, *OF_TWO), f"kind must be one of {', '.join((*OF_ONE, *OF_TWO))}")
        self._expect(self.dtype in WHOLE, f"dtype must be one of {', '.join(WHOLE)}")
        most = 1 if self.kind in OF_ONE else 2 if self.kind in ORDERED else len(inputs)
        self._count(inputs, 1 if self.kind in OF_ONE else 2, most)
        self._same_kind(inputs, (self.dtype,))
        return TensorType(self._stretched(*inputs), self.dtype)

    def run(self, *inputs: Any, engine: Engine) -> Any:
        given = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            if self.kind in OF_ONE:
                return np.asarray(OF_ONE[self.kind](*given), self.dtype)
            return np.asarray(reduce(OF_TWO[self.kind], given), self.dtype)

    def unspecified(self, *inputs: Any) -> Mask:
        if self.kind not in ("Div", "Mod", "Fmod"):
            return np.zeros((), np.bool_)
        found: Mask = inputs[0 if self.swapped else 1] == 0
        return found

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        given = [_whole(self.dtype, x) for x in inputs]
        found = _known(self.dtype, self.run(*given, engine=engine), *inputs)
        return Interval(found.center, np.where(self.unspecified(*given), np.inf, found.radius))


REDUCED: dict[str, Any] = {
    "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod, "ReduceSum": np.sum,
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class WholeReduce(Typed):
    """y = the sum, product, largest or smallest of integers along `axes`

    kind: ReduceSum, ReduceProd, ReduceMax, ReduceMin. Of a number that the type does not have the highest
    bits are lost. keepdims: the axes stay, with one element.

    Bound: the value, where all that goes in is known.

    Source: ONNX's operators of these names on integers.

    >>> from refnet.loops.engine import REFERENCE
    >>> WholeReduce("ReduceSum", (1,), False).run(np.array([[1, 2], [3, 4]]), engine=REFERENCE)
    array([3, 7])
    """

    kind: str
    axes: tuple[int, ...]
    keepdims: bool = True
    dtype: str = "int64"

    @property
    def mixes_images(self) -> bool:
        return 0 in self.axes

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(self.kind in REDUCED, f"kind must be one of {', '.join(REDUCED)}")
        self._expect(self.dtype in WHOLE, f"dtype must be one of {', '.join(WHOLE)}")
        self._same_kind(inputs, (self.dtype,))
        shape = inputs[0].shape
        self._expect(len({*self.axes}) == len(self.axes), "each axis once")
        self._expect(all(0 <= axis < len(shape) for axis in self.axes), f"axes outside of {inputs[0]!r}")
        sizes = [1 if k in self.axes else n for k, n in enumerate(shape)]
        kept = [n for k, n in enumerate(sizes) if self.keepdims or k not in self.axes]
        return TensorType(tuple(kept), self.dtype)

    def run(self, *inputs: Any, engine: Engine) -> Any:
        reduced = REDUCED[self.kind]
        typed = {"dtype": np.dtype(self.dtype)} if self.kind in ("ReduceSum", "ReduceProd") else {}
        return np.asarray(reduced(inputs[0], axis=self.axes, keepdims=self.keepdims, **typed), self.dtype)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        value = self.run(_whole(self.dtype, x), engine=engine)
        largest = np.max(np.abs(x.center) + np.where(x.radius == 0, 0, np.inf), axis=self.axes)
        count = np.prod([x.center.shape[k] for k in self.axes], dtype=np.float64)
        if self.kind == "ReduceProd":
            with np.errstate(all="ignore"):
                most = np.maximum(largest, 1) ** count
        else:
            most = largest * (count if self.kind == "ReduceSum" else 1)
        return surely((most <= EXACT).reshape(value.shape), value)


@dataclass(frozen=True, repr=False)
class WholeCumSum(Typed):
    """y[k] = x[0] + ... + x[k] of integers along `axis`

    exclusive: without x[k]. reverse: from the end. Of a number that the type does not have the highest bits
    are lost.

    Bound: the value, where all that goes in is known.

    Source: ONNX CumSum, torch.cumsum.

    >>> from refnet.loops.engine import REFERENCE
    >>> WholeCumSum(1).run(np.array([[1, 1, 0, 1]]), engine=REFERENCE)
    array([[1, 2, 2, 3]])
    """

    axis: int
    exclusive: bool = False
    reverse: bool = False
    dtype: str = "int64"

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(self.dtype in WHOLE, f"dtype must be one of {', '.join(WHOLE)}")
        self._same_kind(inputs, (self.dtype,))
        self._expect(0 <= self.axis < len(inputs[0].shape), f"{inputs[0]!r} has no axis {self.axis}")
        return inputs[0]

    def run(self, *inputs: Any, engine: Engine) -> Any:
        (x,) = inputs
        x = np.flip(x, self.axis) if self.reverse else x
        found = np.cumsum(x, self.axis, np.dtype(self.dtype))
        if self.exclusive:
            found = found - x
        return np.array(np.flip(found, self.axis) if self.reverse else found, self.dtype, order="C")

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        value = self.run(_whole(self.dtype, x), engine=engine)
        largest = np.max(np.abs(x.center) + np.where(x.radius == 0, 0, np.inf), self.axis, keepdims=True)
        return surely(np.broadcast_to(largest * x.center.shape[self.axis] <= EXACT, value.shape), value)
