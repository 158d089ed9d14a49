"""What every op has: a formula (its docstring), a shape rule, a plain run, a bound and a cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.bits import equal_bits
from refnet.core.by_recipe import ByRecipe
from refnet.core.errors import GraphError, InputError
from refnet.core.of_integers import OfIntegers

if TYPE_CHECKING:
    from refnet.core.element import Derivation, Index, Terms, Windows
    from refnet.core.engine import Engine, Epilogue, Places
    from refnet.core.exact import Exact
    from refnet.core.orders import Expr, Program

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype of a value: float32, or an integer or boolean.

    >>> TensorType((1, 3, 224, 224))
    float32[1, 3, 224, 224]
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for n in self.shape:
            count *= n
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of the array's data."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Cost:
    """What one execution of a node costs.

    macs: multiply-adds of convolution and dense (the figure that papers call FLOPs).
    flops: every float operation, a multiply-add as two: pointwise ops, pooling, normalisation too.
    """

    macs: int = 0
    flops: int = 0


@dataclass(frozen=True)
class FoldableSum:
    """What is known about a value that is a sum, besides its interval: the next node may be folded into it.

    A batch norm after a convolution may be folded into the weights, and an addition may join the sum. Then
    the value in between is never computed. size: per element, the sum of the terms' absolute values.
    roundings: the most that any term passes; gamma(roundings) * size is part of the radius (gamma: see
    core/rounding.py). terms: their number. input_abs_sum: an upper bound of the sum of |x| over the inputs of
    an element.
    """

    size: F64
    roundings: int
    terms: int
    input_abs_sum: float


@dataclass(frozen=True)
class Interval:
    """Per element: the set of reals [center - radius, center + radius]. Both float64, one shape.

    As input of `Op.bound`: where an input value may lie. As its result: where *any* float32
    evaluation of the op (any order of additions, with or without FMA, any of the formula variants
    that the op's docstring lists) must lie. A radius of inf means that there is no bound (some orders may
    overflow and others not).

    sum: given if the value is a sum that later nodes may be folded into; their bounds then also cover the
    folded forms. A captured value was computed as its own node, so it has none.
    """

    center: F64
    radius: F64
    sum: FoldableSum | None = None

    @staticmethod
    def exactly(array: npt.NDArray[Any]) -> Interval:
        """The interval of a known array: radius 0.

        >>> Interval.exactly(np.float32([1.5])).radius
        array([0.])
        """
        center = np.asarray(array, np.float64, order="C")
        return Interval(center, np.zeros_like(center))

    @property
    def magnitude(self) -> F64:
        """The largest absolute value in the interval."""
        return np.abs(self.center) + self.radius


class Op(ByRecipe, OfIntegers):
    """One kind of operation with its attributes. Subclasses are frozen dataclasses.

    The fields are the attributes, and the repr is how a graph prints: `Conv(channels=64, ...)`.
    What every subclass provides (tests/ops/test_ops_rules.py checks all of them):

    - `type(*inputs)`: the output's TensorType; raises GraphError when inputs do not fit.
    - `run(*inputs, engine)`: the value in plain arithmetic, float32, in the order that the docstring states.
    - `golden(*inputs, exact)`: the correctly rounded value; inherited if exactly specified.
    - `replay(formula, *inputs, engine, total)`: the value by a formula of the op's menu `formulas`.
    - `explain(*inputs, at, exact)`: what one element is made of; inherited if nothing is said.
    - `bound(*inputs, engine)`: an Interval that holds every float32 evaluation (derivation in the docstring).
    - `capturable(*shapes)`: whether repeating the kernel calls of `run` repeats the run.
    - `flops(*inputs)`: the Cost, from the types of the inputs.

    engine: what computes (core/engine.py). exact: what rounds correctly (core/exact.py).
    """

    roles: ClassVar[tuple[str, ...]] = ("data",)
    """Names of the inputs in order; the last repeats if the op takes any number."""

    statistics: ClassVar[tuple[str, ...]] = ()
    """Roles whose weights are running statistics: stored with the model but not learned."""

    positive: ClassVar[tuple[str, ...]] = ()
    """Roles whose weights are positive: variances."""

    zero_sign_unspecified: ClassVar[bool] = False
    """True if frameworks legitimately differ in the sign of a zero result and in what NaN becomes."""

    assumption: ClassVar[str] = ""
    """What the bound takes for granted and nobody can prove, for the verdicts that rest on it."""

    formulas: ClassVar[Mapping[str, str]] = {}
    """The ways in which frameworks evaluate this op: name -> formula with its source. A book chooses one."""

    joined_only: ClassVar[frozenset[str]] = frozenset()
    """Those `formulas` that frameworks use only where the op is joined with the one before, so that no
    captured input is theirs."""

    activation: ClassVar[bool] = False
    """True if executors compute the op with the sum before it, and its bits stay those of the op alone."""

    folds: ClassVar[bool] = False
    """True if executors multiply the op into the weights of the convolution before it (`fold`)."""

    combines: ClassVar[bool] = False
    """True if each element is computed from one element of each of the values that it takes."""

    reshapes: ClassVar[bool] = False
    """True if the value has the elements of its one input, in the same order, in another shape."""

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        """Whether kernels do everything that `run` does with data of these shapes (captured_run.py).

        What Python does may then depend on shapes and weights, never on the values of the data.
        """
        return False

    def golden_capturable(self, *inputs: tuple[int, ...]) -> bool:
        """Whether `golden` only calls a method of Exact, with the inputs as they are or reshaped."""
        return self.exactly_specified and self.capturable(*inputs)

    @property
    def opaque(self) -> str:
        """Why refnet cannot compute the value; "" if it can."""
        return ""

    @property
    def exactly_specified(self) -> bool:
        """True if float32 has only one right result (relu, max, concat, one add): bits must agree."""
        return False

    @property
    def menu(self) -> tuple[str, ...]:
        """The names of those `formulas` that apply with these attributes."""
        return tuple(self.formulas)

    @property
    def mixes_images(self) -> bool:
        """Whether the value of an image depends on the other images of its batch."""
        return False

    @property
    def needs_recipe(self) -> bool:
        """Whether frameworks may give other bits: there are several right results, or several formulas."""
        return bool(self.formulas) or not self.exactly_specified

    def agrees(self, found: F32, expected: F32, zeros_unknown: bool = False) -> npt.NDArray[np.bool_]:
        """Per element: whether a framework's value is the only right result, `expected`.

        Bits are compared as bits; all NaN count as equal. With `zero_sign_unspecified`, zeros of either sign
        agree, and anything agrees with a NaN. zeros_unknown: the signs of zeros among the inputs are unknown.
        """
        same = equal_bits(found, expected)
        if self.zero_sign_unspecified or zeros_unknown:
            same |= (found == 0) & (expected == 0)
        if self.zero_sign_unspecified:
            same |= np.isnan(expected)
        return same

    def nan_propagates(self, *weights: F32) -> bool:
        """Whether every framework gives NaN for a NaN and for infinities that cancel, and for one infinity
        an infinity of the formula's sign (or NaN, if finite terms overflow on the way).

        False: frameworks differ, or it is not known.
        """
        return False

    @property
    def unused_roles(self) -> tuple[str, ...]:
        """Roles whose weights change nothing."""
        return ()

    def label(self, *inputs: TensorType) -> str:
        """How a table of times calls the op: its name, and what decides which way kernels take."""
        return type(self).__name__

    def weight_roles(self) -> tuple[str, ...]:
        """Roles of the inputs that are weights, in order; they depend on the op's attributes."""
        return ()

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        """The types that the weights must have, one per weight role, given the data inputs."""
        return ()

    def type(self, *inputs: TensorType) -> TensorType:
        """The output's type."""
        raise NotImplementedError

    def run(self, *inputs: F32, engine: Engine) -> F32:
        """The value in plain arithmetic."""
        raise NotImplementedError

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        """The exact real result of the formula, rounded once to float32, nearest even."""
        if self.exactly_specified:
            return self.run(*inputs, engine=exact.engine)
        raise NotImplementedError

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        """The value by that formula of the menu, else InputError; total: the order of its sum, if any."""
        raise NotImplementedError

    def fold(self, how: str, weights: Sequence[F32], engine: Engine) -> tuple[F32, F32]:
        """Weight and bias of the convolution before the op and the op as one, for an op that `folds`.

        how: one of core.orders.FOLDS, else InputError. weights: weight (o, ...), perhaps bias (o,), then the
        op's own, (o,) each.
        """
        raise NotImplementedError

    def total_terms(self, *inputs: TensorType) -> int | None:
        """The number of terms of a formula's sum, such as a softmax's; None: no formula has a sum."""
        return None

    def total_places(self, *inputs: TensorType) -> tuple[Places, Places] | None:
        """Of the first such sum of the value: the flat places of its terms, in the data and in the value."""
        return None

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms | Derivation | None:
        """What the element `at` of the value is made of; None: the op has no such breakdown."""
        return None

    def term_grid(self, units: Sequence[float], sizes: Sequence[float]) -> tuple[float, float] | None:
        """(unit, size): the terms of its sums are multiples of unit, and no product among them exceeds size.

        units, sizes: the same of each input. None: its values are no sums.
        """
        return None

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        """Where any float32 evaluation must lie."""
        raise NotImplementedError

    def flops(self, *inputs: TensorType) -> Cost:
        """The cost of one execution."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) != f.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    # Helpers for the rules of subclasses.

    def _expect(self, condition: bool, message: str) -> None:
        if not condition:
            raise GraphError(f"{self!r}: {message}")

    def _count(self, inputs: Sequence[object], least: int, most: int | None = None) -> None:
        most = least if most is None else most
        self._expect(
            least <= len(inputs) <= most,
            f"takes {least if least == most else f'{least} to {most}'} inputs, got {len(inputs)}",
        )

    def _expect_formula(self, formula: str) -> None:
        """InputError unless the formula applies."""
        if formula not in self.menu:
            known = ", ".join(self.menu) or "none"
            raise InputError(f"{self!r}: formula must be one of {known}, got {formula!r}")

    def _rank(self, value: TensorType, rank: int, role: str = "data") -> None:
        self._expect(len(value.shape) == rank, f"{role} must have {rank} dimensions, got {value!r}")


class Fusable(Op):
    """An op that kernels can compute with others in one pass over memory; no bit depends on it.

    A pass is a first op and the steps after it (core/engine.py `Epilogue`). arithmetic/fused.py chooses them.
    """

    @property
    def step(self) -> str:
        """The kind of step that the op is after others: SCALE_SHIFT, ADD, RELU or CLIP; "" if none."""
        return ""

    @property
    def starts(self) -> bool:
        """Whether a pass can start with the op."""
        return bool(self.step)

    def add_step(self, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        """`before`, and what the op does to each value; what is added is supplied by `Epilogue.over`."""
        raise NotImplementedError

    def run_first(self, steps: Epilogue, *inputs: F32, engine: Engine) -> F32:
        """The pass that starts with this op, whose own step is the first of `steps`.

        inputs: data and weights; an op that is a step has its first data only.
        """
        return engine.apply(inputs[0], steps)

    def capturable_first(self, *inputs: tuple[int, ...]) -> bool:
        """As `capturable`, of `run_first`."""
        return True


class Reduction(Op):
    """An op whose output elements are sums. A recipe may order their terms, which plain order numbers."""

    adds: ClassVar[bool] = False
    """Whether another value's element, the addend, enters each sum."""

    averages: ClassVar[bool] = False
    """Whether each sum is divided: an average pool."""

    pads: ClassVar[bool] = True
    """Whether terms may lie in a padding."""

    @property
    def ordered(self) -> bool:
        """Whether an order of its terms is all that there is to say of a sum: nothing else is multiplied."""
        return True

    def terms(self, *inputs: TensorType) -> int:
        """The number of terms of an element, without bias and addend."""
        raise NotImplementedError

    def biased(self) -> bool:
        """Whether there is a bias to add."""
        return False

    def windows(self, *inputs: TensorType) -> Windows:
        """Where the data of each sum lies in its image; a dense layer sees an image of one pixel."""
        raise NotImplementedError

    def counts(self, shape: tuple[int, ...]) -> tuple[Places, Places]:
        """Of an average over data of this shape: the rows (oh,) and the columns (ow,) that count, per window;
        the divisor is their product.
        """
        raise NotImplementedError

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int] | None:
        """Inputs of which no partial sum rounds, in any order, with or without FMA: (limits, factor).

        Input i holds integers of at most limits[i], times the factor; no number that is multiplied exceeds
        largest. A limit of 0: there are too many terms. None: not known.
        """
        return None

    def with_bias(self) -> Reduction | None:
        """With a bias, for what executors fold into the weights; None: they fold nothing into it."""
        return None

    def with_addend(self) -> Reduction | None:
        """With an addend, for an addition that executors join with the sum; None: they join none."""
        return None

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        """The value with each sum in the program's order; with places only the elements there, (count,)."""
        raise NotImplementedError
