"""Ops that work element by element: relu, addition, subtraction, multiplication, division.

Sums and products of two broadcast as in NumPy. Their trailing inputs may be weights; `constants` has their
shapes. Sigmoid is in sigmoid.py, clip in clip.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.by_recipe import RELU_DROPS, RELU_KEEPS
from refnet.core.element import Derivation, Index, Step, Terms, given
from refnet.core.engine import ADD, RELU, Engine, Epilogue
from refnet.core.errors import GraphError
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, FoldableSum, Fusable, Interval, Op, TensorType
from refnet.core.orders import Choice, Expr, Program
from refnet.core.rounding import ETA, MAX, U64, gamma, one_sum, outward

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, repr=False)
class Relu(Fusable):
    """y = x if x > 0, +0 if x <= 0, NaN if x is NaN

    Only one right result, except where frameworks differ: the sign of a zero (PyTorch and ONNX Runtime keep
    a -0) and NaN (MXNet's Activation turns it into +0, its nd.relu keeps it).

    Bound: the radius stays, since |relu(a) - relu(b)| <= |a - b|; nothing is promised for NaN.

    Formulas: see `formulas`; they differ in -0 and NaN only, but for -infinity in "scales".

    Source: MXNet Activation act_type=relu and relu, torch.nn.ReLU.
    """

    zero_sign_unspecified: ClassVar[bool] = True
    formulas: ClassVar[Mapping[str, str]] = {
        "plain": "x if x > 0, +0 if x <= 0, NaN if NaN (MXNet's nd.relu)",
        "keeps": "x if x >= 0, so -0 stays, +0 if x < 0, NaN if NaN (PyTorch, ONNX Runtime)",
        "drops": "x if x > 0, else +0, for NaN too (MXNet's Activation: oneDNN's relu)",
        "scales": "x if x > 0, else x * 0: -0 below zero, NaN for NaN and -inf (oneDNN's relu joined with a "
        "convolution that is a matrix product)",
    }
    joined_only: ClassVar[frozenset[str]] = frozenset({"scales"})
    activation: ClassVar[bool] = True

    @property
    def exactly_specified(self) -> bool:
        return True

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 1)
        return inputs[0]

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return True

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return engine.relu(inputs[0])

    @property
    def step(self) -> str:
        return RELU

    def add_step(self, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        return before.relu()

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        return True

    def runs_formula(self, formula: str) -> bool:
        return formula == "plain"

    def steps_by(self, formula: str) -> bool:
        return formula in ("keeps", "drops")

    def add_step_by(self, formula: str, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        return before.then(RELU_KEEPS if formula == "keeps" else RELU_DROPS, None, None)

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        return engine.relu(inputs[0]) if formula == "plain" else engine.relu_by(inputs[0], formula)

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        values = np.array([0, inputs[0][at]], np.float32)
        return Terms("max", "data (and 0)", values, np.array([at, at], np.int64))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        (x,) = inputs
        return Interval(np.maximum(x.center, 0.0), np.where(np.isnan(x.center), np.inf, x.radius))

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, inputs[0].size)


@dataclass(frozen=True, repr=False)
class Add(Fusable):
    """y = x0 + x1 + ... + x(n-1), all of one shape; with `broadcast` they broadcast to a common one

    Plain: left to right. With two inputs there is only one right result.

    Bound, any order: gamma(n - 1) * sum |xi|; additions do not underflow. Inputs that are sums may be joined
    into one (`rounding.one_sum`): an accelerator adds into the convolution's accumulator.

    Golden: of two, IEEE's addition. Of more, the exact sum, rounded once: an exact 0 is +0, a NaN or
    infinities of both signs make NaN. The float64 sum is off by at most (n + 2) U64 * (sum |x|): sum_error.

    Formulas: see `formulas`; for two inputs they are the same.

    Source: MXNet add_n and elemwise_add, torch.add, ONNX Add and Sum.
    """

    roles: ClassVar[tuple[str, ...]] = ("data",)
    formulas: ClassVar[Mapping[str, str]] = {
        "left": "((x0 + x1) + x2) + ... (ONNX Runtime's Sum; MXNet's add_n of five and more, or by oneDNN)",
        "right": "x0 + (x1 + (x2 + ...)) (MXNet's add_n of three and four)",
    }
    combines: ClassVar[bool] = True

    count: int = 2
    broadcast: bool = False
    constants: Shapes = ()

    @property
    def exactly_specified(self) -> bool:
        return self.count <= 2

    def weight_roles(self) -> tuple[str, ...]:
        return ("constant",) * len(self.constants)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return tuple(map(TensorType, self.constants))

    def nan_propagates(self, *weights: F32) -> bool:
        return all(bool(np.isfinite(w).all()) for w in weights)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, self.count)
        self._expect(self.count >= 1, "count >= 1")
        self._expect(inputs[self.count - len(self.constants) :] == self.weight_types(), f"{list(inputs)}")
        if self.broadcast:
            return stretched(self, *inputs)
        self._expect(len({x.shape for x in inputs}) == 1, f"shapes differ: {list(inputs)}")
        return inputs[0]

    def run(self, *inputs: F32, engine: Engine) -> F32:
        terms: Sequence[F32] = np.broadcast_arrays(*inputs) if self.broadcast else inputs
        with np.errstate(all="ignore"):  # inf - inf is NaN here as in the frameworks
            total = np.asarray(terms[0] + terms[1]) if self.count > 1 else terms[0].copy()
            for x in terms[2:]:
                total += x
        return total

    @property
    def step(self) -> str:
        return ADD if self == Add(2) else ""

    def add_step(self, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        return before.adding()

    def runs_formula(self, formula: str) -> bool:
        return formula == "left" or self.count <= 2

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        return self.run(*(inputs if formula == "left" else inputs[::-1]), engine=engine)

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        if self.exactly_specified:
            return self.run(*inputs, engine=exact.engine)
        return exact.sum(type(self).__name__, np.stack(np.broadcast_arrays(*inputs)))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        places = [place_in(x.shape, at) for x in inputs]
        values = np.array([x[place] for x, place in zip(inputs, places, strict=True)], np.float32)
        full = [(0,) * (len(at) - len(place)) + place for place in places]
        return Terms("add", "data, one of each input", values, np.array(full, np.int64))

    def term_grid(self, units: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
        return min(units), max(sizes)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        return sum_bound(inputs)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, (self.count - 1) * self.type(*inputs).size)


@dataclass(frozen=True, repr=False)
class _Two(Op):
    """Base of the ops with two broadcast operands: y = a op b, one IEEE operation, only one right result.

    constants: the shape of b, if it is a weight. swapped: the first input is b; the second, which is the
    weight if there is one, is a.
    """

    roles: ClassVar[tuple[str, ...]] = ("data", "data")
    combines: ClassVar[bool] = True
    constants: Shapes = ()

    @property
    def exactly_specified(self) -> bool:
        return True

    def weight_roles(self) -> tuple[str, ...]:
        return ("constant",) * len(self.constants)

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        return tuple(map(TensorType, self.constants))

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2)
        self._expect(inputs[2 - len(self.constants) :] == self.weight_types(), f"weights are {inputs[1]!r}")
        return stretched(self, *inputs)

    def flops(self, *inputs: TensorType) -> Cost:
        return Cost(0, self.type(*inputs).size)


@dataclass(frozen=True, repr=False)
class Mul(_Two, Fusable):
    """y = a * b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    One multiplication: only one right result.

    Bound: |a| rb + ra |b| + ra rb + U |a b| + ETA/2 for radii ra and rb.

    Source: MXNet broadcast_mul and elemwise_mul, torch.mul, ONNX Mul.
    """

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            y = np.asarray(np.multiply(*inputs))  # NumPy makes a scalar of rank 0
        return y

    @property
    def starts(self) -> bool:
        return self == Mul()

    def add_step(self, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        return before

    def run_first(self, steps: Epilogue, *inputs: F32, engine: Engine) -> F32:
        order = _image(*(x.shape for x in inputs))
        if order is None:
            return engine.apply(self.run(*inputs, engine=engine), steps)
        return engine.apply(inputs[order], steps, inputs[1 - order])  # the product takes no pass of its own

    def capturable_first(self, *inputs: tuple[int, ...]) -> bool:
        return _image(*inputs[:2]) is not None

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        places = [place_in(x.shape, at) for x in inputs]
        a, b = (x[place].reshape(1) for x, place in zip(inputs, places, strict=True))
        return Terms("multiply", "data 0", a, np.array(places[:1]), "data 1", b, np.array(places[1:]))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        a, b = inputs
        center = a.center * b.center
        spread = np.abs(a.center) * b.radius + a.radius * b.magnitude
        total = a.magnitude * b.magnitude
        radius = spread + (gamma(1) + 2 * U64) * total + ETA / 2
        return outward(center, radius, total)


@dataclass(frozen=True, repr=False)
class Sub(_Two):
    """y = a - b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    swapped: b is the first input and a the second. One subtraction: only one right result.

    Bound: ra + rb + U (|a| + |b|) for radii ra and rb; differences do not underflow.

    Source: torch.sub, ONNX Sub.
    """

    swapped: bool = False

    def run(self, *inputs: F32, engine: Engine) -> F32:
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            y = np.asarray(np.subtract(a, b))
        return y

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms:
        a, b = (x[place_in(x.shape, at)] for x in (inputs[::-1] if self.swapped else inputs))
        what = "data, the second negated"
        return Terms("add", what, np.array([a, -b], np.float32), np.array([at, at], np.int64))

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        a, b = inputs[::-1] if self.swapped else inputs
        return sum_bound((a, Interval(-b.center, b.radius, b.sum)))


@dataclass(frozen=True, repr=False)
class Div(_Two):
    """y = a / b, where a dimension of size 1 stretches to the other's (NumPy broadcasting)

    swapped: b is the first input and a the second. One division: only one right result, but for frameworks
    that multiply by a reciprocal.

    Bound: with |b| > rb, inputs in the radii ra and rb give quotients within
    (ra + |a / b| rb) / (|b| - rb) of a / b; then U of the largest and ETA/2. The reciprocal takes U more, and
    |a| ETA/2 where it is subnormal; where it overflows, and where b may be 0, there is no bound.

    Formulas: see `formulas`.

    Source: torch.div, ONNX Div.
    """

    formulas: ClassVar[Mapping[str, str]] = {
        "plain": "a / b, rounded once",
        "reciprocal": "a * (1 / b), each step rounded (OpenVINO)",
    }

    swapped: bool = False

    def agrees(self, found: F32, expected: F32, zeros_unknown: bool = False) -> npt.NDArray[np.bool_]:
        same = super().agrees(found, expected, zeros_unknown)
        return same | (np.isinf(found) & np.isinf(expected)) if zeros_unknown else same  # 1 / -0

    def run(self, *inputs: F32, engine: Engine) -> F32:
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            y = np.asarray(np.divide(a, b))
        return y

    def replay(self, formula: str, *inputs: F32, engine: Engine, total: Expr | None = None) -> F32:
        self._expect_formula(formula)
        if formula == "plain":
            return self.run(*inputs, engine=engine)
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            return np.asarray(a * (np.float32(1) / b))

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Derivation:
        a, b = (x[place_in(x.shape, at)] for x in (inputs[::-1] if self.swapped else inputs))
        with np.errstate(all="ignore"):
            y = np.float32(np.divide(a, b))
        if not np.isfinite([a, b]).all() or b == 0:
            return Derivation((), y)
        quotient = Step("y", "a / b", Fraction(float(a)) / Fraction(float(b)), y)
        return Derivation((given("a", "the dividend", a), given("b", "the divisor", b), quotient), y)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        a, b = inputs[::-1] if self.swapped else inputs
        with np.errstate(all="ignore"):
            center = a.center / b.center
            least = np.abs(b.center) - b.radius
            spread = np.where(least > 0, (a.radius + np.abs(center) * b.radius) / least, np.nan)
            total = np.abs(center) + spread
            radius = spread + (gamma(2) + 4 * U64) * total + (a.magnitude + 2) * (ETA / 2)
            largest = np.maximum(total, 1 / least)  # NaN where a bound of the quotient is
        return outward(center, radius, largest)


def _image(a: tuple[int, ...], b: tuple[int, ...]) -> int | None:
    """The one of a and b that is (n, c, h, w) while the other is (n, c, 1, 1); None if neither is."""
    for at, (image, factor) in enumerate(((a, b), (b, a))):
        if len(image) == 4 and factor == (*image[:2], 1, 1):
            return at
    return None


def stretched(op: Op, *inputs: TensorType) -> TensorType:
    """The type that NumPy's broadcasting gives inputs of these types; GraphError where they do not fit."""
    try:
        return TensorType(tuple(np.broadcast_shapes(*(x.shape for x in inputs))))
    except ValueError:
        raise GraphError(f"{op!r}: shapes do not broadcast: {list(inputs)}") from None


def place_in(shape: tuple[int, ...], at: Index) -> Index:
    """Where an input of this shape, broadcast, has the element `at`."""
    return tuple(0 if n == 1 else i for i, n in zip(at[len(at) - len(shape) :], shape, strict=True))


def sum_bound(inputs: tuple[Interval, ...]) -> Interval:
    """Bound of a float32 sum of the inputs in any order; inputs that are sums may be joined into one."""
    center, total, spread = inputs[0].center + 0.0, inputs[0].magnitude, inputs[0].radius
    for x in inputs[1:]:
        center = center + x.center
        total = total + x.magnitude
        spread = spread + x.radius
    n = len(inputs)
    radius = spread + gamma(n - 1) * total
    if all(x.sum is None for x in inputs):
        as_sum = FoldableSum(total, n - 1, n, float(total.max(initial=0.0)))
        return _masked(inputs, outward(center, radius + n * U64 * total, total, n, as_sum))
    radius_joined, as_sum = one_sum(inputs)
    radius = np.maximum(radius, radius_joined) + n * U64 * total
    return _masked(inputs, outward(center, radius, np.maximum(total, as_sum.size), as_sum.roundings, as_sum))


def _masked(inputs: tuple[Interval, ...], found: Interval) -> Interval:
    """The sum; radius 0 where one part is an infinity (a mask's) and the others are far from overflow."""
    infinite = [np.isinf(x.center) & (x.radius == 0) for x in inputs]
    others = sum(np.where(at, 0.0, x.magnitude) for at, x in zip(infinite, inputs, strict=True))
    known = (sum(at.astype(int) for at in infinite) == 1) & (others < MAX / 2)
    return Interval(found.center, np.where(known, 0.0, found.radius), found.sum)
