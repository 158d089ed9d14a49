"""Ops that give or take integers and booleans: each has one right result, in every arithmetic.

A bound of one holds the value where the inputs leave only one; elsewhere there is none. Integers beyond
2**53 have none either, because an Interval holds float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.engine import Engine
from refnet.core.op import F32, F64, Cost, Interval, Op, TensorType

Mask = npt.NDArray[np.bool_]

KINDS = ("float32", "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
"""The dtypes of values."""
EXACT = 2.0**53
"""Integers up to it are float64."""


class Typed(Op):
    """The base: one right result, no rounding, several dtypes."""

    any_dtype: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    def _same_kind(self, inputs: tuple[TensorType, ...], known: tuple[str, ...] = KINDS) -> None:
        kinds = {one.dtype for one in inputs}
        self._expect(len(kinds) == 1, f"its inputs must be of one dtype, got {sorted(kinds)}")
        self._expect(kinds <= set(known), f"takes {', '.join(known)}, got {inputs[0]!r}")

    def _stretched(self, *inputs: TensorType) -> tuple[int, ...]:
        try:
            return np.broadcast_shapes(*(one.shape for one in inputs))
        except ValueError:
            self._expect(False, f"cannot broadcast {' and '.join(map(repr, inputs))}")
            raise AssertionError from None

    def flops(self, *inputs: TensorType) -> Cost:
        """One operation per element of the largest input."""
        return Cost(0, max(one.size for one in inputs))


class WithConstants(Typed):
    """Some of the inputs may be weights: `constants` has their shapes. dtype: theirs."""

    constants: tuple[tuple[int, ...], ...]
    dtype: str

    def weight_roles(self) -> tuple[str, ...]:
        return ("constant",) * len(self.constants)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return tuple(TensorType(shape, self.dtype) for shape in self.constants)


def surely(exact: Mask, center: npt.NDArray[Any]) -> Interval:
    """The value where it is known, and no bound elsewhere."""
    known: F64 = np.asarray(center, np.float64)
    return Interval(known, np.where(np.broadcast_to(exact, known.shape), 0.0, np.inf))


def in_float64(dtype: str, *inputs: Interval) -> Mask:
    """Per element: whether float64 has the numbers at the inputs; of integers, those up to 2**53."""
    found = np.ones((), np.bool_)
    for one in inputs if dtype != "float32" else ():
        found = found & (np.abs(one.center) <= EXACT)
    return found


COMPARISONS = {
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
}


@dataclass(frozen=True, repr=False)
class Compare(WithConstants):
    """y = a R b, a boolean per element; the inputs are stretched over each other

    relation: of COMPARISONS. Inputs of one dtype. A comparison with NaN is false; -0 equals +0.
    constants: the shapes of inputs that are weights, behind the data. swapped: the weight is `a`. dtype: of
    the inputs.

    Bound: the value where every pair of numbers in the two intervals gives the same.

    Source: ONNX Equal, Less, LessOrEqual, Greater, GreaterOrEqual.

    >>> from refnet.loops.engine import REFERENCE
    >>> Compare("Less").run(np.float32([1, 2]), np.float32([2, 2]), engine=REFERENCE)
    array([ True, False])
    """

    relation: str
    constants: tuple[tuple[int, ...], ...] = ()
    swapped: bool = False
    dtype: str = "float32"

    roles: ClassVar[tuple[str, ...]] = ("a", "b")

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2)
        self._expect(self.relation in COMPARISONS, f"relation must be one of {', '.join(COMPARISONS)}")
        self._same_kind(inputs, (self.dtype,))
        return TensorType(self._stretched(*inputs), "bool")

    def run(self, *inputs: Any, engine: Engine) -> Any:
        a, b = inputs[::-1] if self.swapped else inputs
        return np.asarray(COMPARISONS[self.relation](a, b))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        a, b = inputs[::-1] if self.swapped else inputs
        compare = COMPARISONS[self.relation]
        with np.errstate(all="ignore"):
            ends = [
                compare(a.center + s * a.radius, b.center + t * b.radius) for s in (-1, 1) for t in (-1, 1)
            ]
            apart = np.abs(a.center - b.center) > a.radius + b.radius
        points = (a.radius == 0) & (b.radius == 0)
        same = np.all([one == ends[0] for one in ends], axis=0)
        sure = points | (same & apart if self.relation == "Equal" else same)
        return surely(sure & in_float64(self.dtype, a, b), compare(a.center, b.center))


@dataclass(frozen=True, repr=False)
class Logical(WithConstants):
    """y = a and b, a or b, a xor b, not a, of booleans; the inputs are stretched over each other

    kind: And, Or, Xor, Not. constants: the shapes of inputs that are weights, behind the data.

    Bound: the value of what is known; nothing is said of the rest.

    Source: ONNX And, Or, Xor, Not.

    >>> from refnet.loops.engine import REFERENCE
    >>> Logical("Xor").run(np.array([True, True]), np.array([True, False]), engine=REFERENCE)
    array([False,  True])
    """

    kind: str
    constants: tuple[tuple[int, ...], ...] = ()

    roles: ClassVar[tuple[str, ...]] = ("a", "b")

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return tuple(TensorType(shape, "bool") for shape in self.constants)

    def type(self, *inputs: TensorType) -> TensorType:
        self._expect(self.kind in ("And", "Or", "Xor", "Not"), "kind must be And, Or, Xor or Not")
        self._count(inputs, 1 if self.kind == "Not" else 2)
        self._same_kind(inputs, ("bool",))
        return TensorType(self._stretched(*inputs), "bool")

    def run(self, *inputs: Any, engine: Engine) -> Any:
        if self.kind == "Not":
            return np.asarray(np.logical_not(*inputs))
        combine = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}[self.kind]
        return np.asarray(combine(*inputs))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        known = np.all(np.broadcast_arrays(*(one.radius == 0 for one in inputs)), axis=0)
        return surely(known, self.run(*(one.center != 0 for one in inputs), engine=engine))


@dataclass(frozen=True, repr=False)
class Where(WithConstants):
    """y = a where the condition holds, b elsewhere; the three are stretched over each other

    condition: booleans; a, b: of one dtype, which is the value's. order: which of condition, a, b each input
    is: the data first, then the weights, whose shapes are `constants`.

    Bound: that of the chosen one; where the condition is not known, there is none.

    Source: ONNX Where.

    >>> from refnet.loops.engine import REFERENCE
    >>> Where().run(np.array([True, False]), np.float32([1, 2]), np.float32([3, 4]), engine=REFERENCE)
    array([1., 4.], dtype=float32)
    """

    constants: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, int, int] = (0, 1, 2)
    dtype: str = "float32"

    roles: ClassVar[tuple[str, ...]] = ("condition", "a", "b")

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        which = self.order[3 - len(self.constants) :]
        return tuple(
            TensorType(shape, self.dtype if place else "bool")
            for shape, place in zip(self.constants, which, strict=True)
        )

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 3)
        self._expect(sorted(self.order) == [0, 1, 2], "order must be that of 0, 1 and 2")
        condition, a, b = self._sorted(inputs)
        self._same_kind((condition,), ("bool",))
        self._same_kind((a, b), (self.dtype,))
        return TensorType(self._stretched(condition, a, b), self.dtype)

    def run(self, *inputs: Any, engine: Engine) -> Any:
        return np.where(*self._sorted(inputs))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        condition, a, b = self._sorted(inputs)
        chosen = condition.center != 0
        radius = np.where(chosen, a.radius, b.radius)
        large = self.dtype != "float32"
        center: F64 = np.where(chosen, a.center, b.center)
        sure = (condition.radius == 0) & ~(large & (np.abs(center) > EXACT))
        return Interval(center, np.where(sure, radius, np.inf))

    def _sorted(self, inputs: tuple[Any, ...]) -> list[Any]:
        return [inputs[self.order.index(place)] for place in range(3)]


@dataclass(frozen=True, repr=False)
class Cast(Typed):
    """y = x as another dtype

    From float32 to an integer: the part before the point; a number that the integer type does not have, and
    NaN, has no right result, and this op gives the type's lowest. To bool: whether it is not 0 (NaN is not).
    From an integer to float32: the nearest, ties to even. From integers to narrower ones: the lowest bits.

    Bound: the value, where the input is known.

    Source: ONNX Cast; what is left open there (out of range) frameworks answer differently.

    >>> from refnet.loops.engine import REFERENCE
    >>> Cast("int64").run(np.float32([-1.9, 2.5]), engine=REFERENCE)
    array([-1,  2])
    """

    to: str
    given: str = "float32"

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._expect(self.to in KINDS, f"to must be one of {', '.join(KINDS)}")
        self._same_kind(inputs, (self.given,))
        return TensorType(inputs[0].shape, self.to)

    def run(self, *inputs: Any, engine: Engine) -> Any:
        (x,) = inputs
        if self.to == "bool":
            return np.asarray(x != 0)
        kind = np.dtype(self.to)
        if x.dtype != np.float32 or kind == np.float32:
            return x.astype(kind)
        fits = self._fits(x)
        whole = np.where(fits, x, np.float32(0)).astype(kind)
        return np.where(fits, whole, kind.type(np.iinfo(kind).min))

    def _fits(self, x: F32) -> Mask:
        """Whether the integer type has the part before the point."""
        limits = np.iinfo(self.to)
        whole = np.trunc(x.astype(np.float64))
        inside: Mask = (whole >= float(limits.min)) & (whole < 2.0 ** (limits.bits - (limits.min < 0)))
        return inside

    def unspecified(self, *inputs: Any) -> Mask:
        (x,) = inputs
        if self.given != "float32" or self.to in ("bool", "float32"):
            return np.zeros((), np.bool_)
        return ~self._fits(x)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        with np.errstate(all="ignore"):
            ends = [(x.center + sign * x.radius).astype(self.given) for sign in (-1, 1)]
            low, high = (self.run(one, engine=engine) for one in ends)
            fits = ~(self.unspecified(ends[0]) | self.unspecified(ends[1]))
            value = self.run(x.center.astype(self.given), engine=engine)
        same = (low == high) & fits
        if self.to == "bool":
            same &= (np.abs(x.center) > x.radius) | (x.radius == 0)
        if self.to == "float32":
            same &= x.radius == 0
        return surely(same & in_float64(self.given, x), value)


@dataclass(frozen=True, repr=False)
class ArgExtreme(Typed):
    """y = the place of the largest (or smallest) element along an axis, int64

    least: the smallest. last: of equal ones the last, else the first. dtype: of the input. -0 equals +0. With
    a NaN there is no right result, and this op gives NumPy's: the first NaN's place.

    Bound: the place, where one element's interval lies beyond all others'.

    Source: ONNX ArgMax, ArgMin.

    >>> from refnet.loops.engine import REFERENCE
    >>> ArgExtreme(1, keepdims=False).run(np.float32([[1, 3, 3]]), engine=REFERENCE)
    array([1])
    """

    axis: int
    least: bool = False
    keepdims: bool = True
    last: bool = False
    dtype: str = "float32"

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        self._same_kind(inputs, (self.dtype,))
        shape = inputs[0].shape
        self._expect(0 <= self.axis < len(shape), f"{inputs[0]!r} has no axis {self.axis}")
        kept = (1,) if self.keepdims else ()
        return TensorType((*shape[: self.axis], *kept, *shape[self.axis + 1 :]), "int64")

    @property
    def mixes_images(self) -> bool:
        return self.axis == 0

    def run(self, *inputs: Any, engine: Engine) -> Any:
        return self._place(inputs[0])

    def _place(self, x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        find = np.argmin if self.least else np.argmax
        if not self.last:
            return np.asarray(find(x, self.axis, keepdims=self.keepdims), np.int64)
        behind = find(np.flip(x, self.axis), self.axis, keepdims=self.keepdims)
        return np.asarray(x.shape[self.axis] - 1 - behind, np.int64)

    def unspecified(self, *inputs: Any) -> Mask:
        found: Mask = np.isnan(inputs[0]).any(self.axis, keepdims=self.keepdims)
        return found

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        sign = -1.0 if self.least else 1.0
        center = np.nan_to_num(sign * x.center, nan=-np.inf)
        place = np.argmax(center, self.axis, keepdims=True)
        low = np.take_along_axis(center - x.radius, place, self.axis)
        others = center + x.radius
        np.put_along_axis(others, place, -np.inf, self.axis)
        alone = (low > others.max(self.axis, keepdims=True)) | (x.radius == 0).all(self.axis, keepdims=True)
        alone &= ~np.isnan(x.center).any(self.axis, keepdims=True)
        alone &= np.all(
            in_float64(self.dtype, x) | np.zeros(x.center.shape, np.bool_), self.axis, keepdims=True
        )
        found = self._place(x.center)
        return surely(alone.reshape(found.shape), found)
