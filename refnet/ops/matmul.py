"""Matrix products of two values, or of a value and a weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np

from refnet.core.element import Derivation, Index, Step, Terms, Windows, given
from refnet.core.engine import Array, Engine, Places
from refnet.core.errors import InputError
from refnet.core.exact import Exact
from refnet.core.op import F32, F64, Cost, FoldableSum, Interval, Reduction, TensorType
from refnet.core.orders import Chain, Expr, Leaf, Program, Sum
from refnet.core.rounding import ETA, U64, error_factor, gamma, outward, product_integers


@dataclass(frozen=True, repr=False)
class MatMul(Reduction):
    """y = alpha * A B + beta * c, where A is a, or a transposed, and B is b, or b transposed

    Shapes: A (..., m, k), B (..., k, n), c any that broadcasts to y's, y (..., m, n); the dimensions before
    the last two broadcast to a common shape, as in NumPy. A one-dimensional a is one row and a
    one-dimensional b one column, which y does not have then. Only matrices can be transposed.

    addend: whether there is a c. constants: the shapes of those trailing inputs that are weights.

    Plain: acc = +0; acc = fma(b, a, acc) for k in turn; then alpha * acc and beta * c, unless alpha or beta
    is 1, and their sum, each rounded.

    A recipe orders the k products, numbered along k, and c, which it calls the bias; not where alpha or beta
    is another number than 1: there it would have to say when these are multiplied.

    Bound, any order, with or without FMA, alpha multiplied to a, to b or to the sum: a term passes its
    multiplication, k - 1 additions, alpha's and that of c; c passes beta's multiplication and at most k
    additions. So |error| <= gamma(k + addend + (alpha or beta is not 1)) * T, T = |alpha| sum |a||b| +
    |beta c|. Underflow: ETA/2 for each product, for alpha * a before it is multiplied by b, the other way
    round, for the product of alpha and the sum and that of beta and c:
    ETA/2 * (k (1 + |alpha|) + sum |a| + sum |b| + 2), where alpha is 1 ETA/2 * (k + 1).

    Golden: the formula, exactly, rounded once. In float64 a term passes k additions, alpha's multiplication
    and c's addition: off by (k + 4) U64 * T. What remains open is decided in rational arithmetic. An exact 0
    is +0; a NaN, an infinity times 0 or infinities of both signs make NaN.

    Source: ONNX MatMul and Gemm, numpy.matmul, torch.matmul, torch.addmm.
    """

    alpha: float = 1.0
    beta: float = 1.0
    transpose_a: bool = False
    transpose_b: bool = False
    addend: bool = False
    constants: tuple[tuple[int, ...], ...] = ()

    roles: ClassVar[tuple[str, ...]] = ("data", "weight", "bias")
    pads: ClassVar[bool] = False

    def weight_roles(self) -> tuple[str, ...]:
        inputs = self.roles[: 2 + self.addend]
        return inputs[len(inputs) - len(self.constants) :]

    def weight_types(self, *data: TensorType) -> tuple[TensorType, ...]:
        self._expect(len(self.constants) < 2 + self.addend, "a is no weight")
        return tuple(map(TensorType, self.constants))

    def nan_propagates(self, *weights: F32) -> bool:
        return bool(weights) and all(bool(np.isfinite(w).all()) for w in weights)

    def type(self, *inputs: TensorType) -> TensorType:
        self._count(inputs, 2 + self.addend)
        count = len(inputs) - len(self.constants)
        self._expect(inputs[count:] == self.weight_types(), f"weights are {list(inputs[count:])}")
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            self._expect(
                abs(value) < np.inf and float(np.float32(value)) == value, f"{name} must be a float32"
            )
        a, b = inputs[:2]
        self._expect(min(len(a.shape), len(b.shape)) >= 1, f"takes no single numbers: {a!r} and {b!r}")
        self._expect(not self.transpose_a or len(a.shape) == 2, f"transposes matrices only, got {a!r}")
        self._expect(not self.transpose_b or len(b.shape) == 2, f"transposes matrices only, got {b!r}")
        left, right = self._left(a.shape), self._right(b.shape)
        self._expect(left[-1] == right[-2], f"{a!r} and {b!r} have no common dimension")
        try:
            lead = np.broadcast_shapes(left[:-2], right[:-2])
            rows = (left[-2],) if len(a.shape) > 1 else ()
            shape = (*lead, *rows, *((right[-1],) if len(b.shape) > 1 else ()))
            fits = not self.addend or np.broadcast_shapes(shape, inputs[2].shape) == shape
        except ValueError:
            fits, shape = False, ()
        self._expect(fits, f"shapes do not broadcast: {list(inputs)}")
        return TensorType(shape)

    def _left(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[::-1] if self.transpose_a else ((1, *shape) if len(shape) == 1 else shape)

    def _right(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[::-1] if self.transpose_b else ((*shape, 1) if len(shape) == 1 else shape)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        with np.errstate(all="ignore"):
            y = self._product(inputs[0], inputs[1], engine)
            if self.alpha != 1:
                y *= np.float32(self.alpha)
            if self.addend:
                y += inputs[2] if self.beta == 1 else np.float32(self.beta) * inputs[2]
        return y

    @property
    def ordered(self) -> bool:
        return self.alpha == 1 and self.beta == 1

    def terms(self, *inputs: TensorType) -> int:
        return self._left(inputs[0].shape)[-1]

    def biased(self) -> bool:
        return self.addend

    def with_bias(self) -> MatMul | None:
        """With a c of a number per column, where b is a weight and the op has no c yet."""
        if self.addend or len(self.constants) != 1 or len(self.constants[0]) != 2:
            return None
        ((rows, columns),) = self.constants
        columns = rows if self.transpose_b else columns
        return replace(self, addend=True, constants=(*self.constants, (columns,)))

    def windows(self, *inputs: TensorType) -> Windows:
        return Windows((1, 1))

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int] | None:
        return product_integers(self.terms(*inputs), largest, len(inputs)) if self.ordered else None

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        if not self.ordered:
            raise InputError(f"{self!r}: a recipe does not say when alpha and beta are multiplied")
        shape = self.type(*(TensorType(x.shape) for x in inputs)).shape
        left, right, lead = self.matrices(*inputs[:2])
        added = np.broadcast_to(inputs[2], shape).reshape(*lead, left.shape[-2], -1) if self.addend else None
        order = _adding(program.expr)
        y = np.empty((*lead, left.shape[-2], right.shape[-1]), np.float32)
        for at in np.ndindex(lead):
            c = None if added is None else np.ascontiguousarray(added[at])
            rows, columns = np.ascontiguousarray(left[at]), np.ascontiguousarray(right[at].T)
            y[at] = engine.dense_in_order(rows, columns, None, order, addend=c)
        return y.reshape(shape) if places is None else y.reshape(-1)[places]

    def matrices(self, a: Array, b: Array) -> tuple[Array, Array, tuple[int, ...]]:
        """A (lead..., m, k) and B (lead..., k, n), without copies, and lead."""
        left = (a.T if self.transpose_a else a).reshape(self._left(a.shape))
        right = (b.T if self.transpose_b else b).reshape(self._right(b.shape))
        lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        left = np.broadcast_to(left, (*lead, *left.shape[-2:]))
        return left, np.broadcast_to(right, (*lead, *right.shape[-2:])), lead

    def _product(self, a: Array, b: Array, engine: Engine) -> Array:
        """A B as y is shaped: one chain of FMA per element."""

        def columns() -> Array:
            made = np.array(b if self.transpose_b else b.T, order="C")
            made.flags.writeable = False  # the engine may keep what it makes of them
            return made

        left = (a.T if self.transpose_a else a).reshape(self._left(a.shape))
        right = self._right(b.shape)
        lead = np.broadcast_shapes(left.shape[:-2], right[:-2])
        if b.ndim == 2:
            rows = np.ascontiguousarray(left).reshape(-1, left.shape[-1])
            y = engine.dense(
                rows, engine.cached((b,), ("columns of MatMul", self.transpose_b), columns), None
            )
        else:
            y = np.empty((*lead, left.shape[-2], right[-1]), a.dtype)
            matrices = np.broadcast_to(b.reshape(right), (*lead, *right[-2:]))
            rows = np.broadcast_to(left, (*lead, *left.shape[-2:]))
            for at in np.ndindex(lead):
                row, column = np.ascontiguousarray(rows[at]), np.ascontiguousarray(matrices[at].T)
                y[at] = engine.dense(row, column, None)
        rows_, columns_ = left.shape[-2:-1] * (a.ndim > 1), right[-1:] * (b.ndim > 1)
        return y.reshape((*lead, *rows_, *columns_))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        wide = [x.astype(np.float64) for x in inputs]
        with np.errstate(all="ignore"):
            center, total = self._sizes(wide, exact.engine)
        k = self._left(inputs[0].shape)[-1]

        def refine(at: Places, y: F32) -> None:
            element = self._elements(inputs, center.shape)
            for i in at:
                y.reshape(-1)[i] = exact.rounded(element(int(i)))

        return exact.round_or_refine(type(self).__name__, center, error_factor(k + 2) * total, refine)

    def _sizes(self, wide: list[F64], engine: Engine) -> tuple[F64, F64]:
        """In float64: the formula, and T."""
        center = self.alpha * self._product(wide[0], wide[1], engine)
        total = abs(self.alpha) * self._product(np.abs(wide[0]), np.abs(wide[1]), engine)
        if self.addend:
            center, total = center + self.beta * wide[2], total + np.abs(self.beta * wide[2])
        return center, total

    def _elements(self, inputs: tuple[F32, ...], shape: tuple[int, ...]) -> Callable[[int], Fraction]:
        """The exact value of y at a flat index."""
        factors = self.factors(*inputs[:2])
        c = np.broadcast_to(inputs[2], shape).reshape(-1) if self.addend else None

        def element(i: int) -> Fraction:
            row, column = (x.tolist() for x in factors(i))
            true = sum((Fraction(u) * Fraction(v) for u, v in zip(row, column, strict=True)), Fraction(0))
            true *= Fraction(self.alpha)
            return true if c is None else true + Fraction(self.beta) * Fraction(float(c[i]))

        return element

    def factors(self, a: Array, b: Array) -> Callable[[int], tuple[Array, Array]]:
        """The row of A and the column of B, (k,) each, that make y at a flat index."""
        left, right, lead = self.matrices(a, b)

        def pair(i: int) -> tuple[Array, Array]:
            *at, m, n = map(int, np.unravel_index(i, (*lead, left.shape[-2], right.shape[-1])))
            return left[tuple(at)][m], right[tuple(at)][:, n]

        return pair

    def explain(self, *inputs: F32, at: Index, exact: Exact) -> Terms | Derivation:
        shape = self.type(*(TensorType(x.shape) for x in inputs)).shape
        i = int(np.ravel_multi_index(at, shape)) if at else 0
        if (self.alpha, self.addend) != (1.0, False):
            c = np.broadcast_to(inputs[2], shape)[at] if self.addend else None
            return self._derived(inputs, i, c, exact)
        a, b = inputs
        left, right = self.factors(*(np.arange(x.size).reshape(x.shape) for x in inputs))(i)
        data, weight = (np.stack(np.unravel_index(k, x.shape), 1) for k, x in ((left, a), (right, b)))
        return Terms("fma", "data", a[tuple(data.T)], data, "weight", b[tuple(weight.T)], weight)

    def _derived(self, inputs: tuple[F32, ...], i: int, c: np.float32 | None, exact: Exact) -> Derivation:
        """Of a product that is scaled, or has c added."""
        row, column = self.factors(*inputs[:2])(i)
        added = [] if c is None else [np.full((1, 1), c)]
        operands = [row[None], column[:, None], *added]
        small = MatMul(self.alpha, self.beta, addend=self.addend)
        golden = small.golden(*operands, exact=exact)[0, 0]
        if not all(np.isfinite(x).all() for x in operands):
            return Derivation((), golden)
        pairs = zip(row.tolist(), column.tolist(), strict=True)
        total = sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))
        product = MatMul().run(row[None], column[:, None], engine=exact.engine)[0, 0]
        steps = [Step("s", f"the sum of {row.size} products", total, product)]
        true, what = Fraction(self.alpha) * total, f"{self.alpha!r} * s"
        if c is not None:
            steps.append(given("c", "what is added", c))
            true += Fraction(self.beta) * Fraction(float(c))
            what += f" + {self.beta!r} * c"
        steps.append(Step("y", what, true, small.run(*operands, engine=exact.engine)[0, 0]))
        return Derivation(tuple(steps), golden)

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        def product(x: F64, w: F64) -> F64:
            return self._product(x, w, engine)

        a, b = inputs[:2]
        k = self._left(a.center.shape)[-1]
        scale, scaled = abs(self.alpha), self.alpha != 1
        with np.errstate(all="ignore"):
            center = self.alpha * product(a.center, b.center)
            plain = product(a.magnitude, b.magnitude)
            total = scale * plain
            spread = scale * (product(a.radius, b.magnitude) + product(np.abs(a.center), b.radius))
            small: F64 = np.full(center.shape, k + 1.0)
            largest = np.maximum(plain, total)
            if scaled:
                sums = product(a.magnitude, np.ones_like(b.center)) + product(
                    np.ones_like(a.center), b.magnitude
                )
                small = sums + (k * (1 + scale) + 2)
                largest = largest + scale * np.maximum(a.magnitude.max(), b.magnitude.max())
            if self.addend:
                c = inputs[2]
                center = center + self.beta * c.center
                total = total + abs(self.beta) * c.magnitude
                spread = spread + abs(self.beta) * c.radius
                largest = largest + abs(self.beta) * c.magnitude
            roundings = k + self.addend + (scaled or self.beta != 1)
            g = gamma(roundings)
            radius = spread + (g + (k + 4) * U64) * total + small * (ETA / 2) * (1 + g)
            plainly = not scaled and self.beta == 1
            input_abs_sum = (
                float(product(a.magnitude, np.ones_like(b.center)).max(initial=0.0)) if plainly else 0.0
            )
        as_sum = FoldableSum(total, roundings, k + self.addend, input_abs_sum) if plainly else None
        return outward(center, radius, largest, roundings, as_sum)

    def flops(self, *inputs: TensorType) -> Cost:
        size = self.type(*inputs).size
        macs = size * self._left(inputs[0].shape)[-1]
        extra = (self.alpha != 1) + self.addend * (1 + (self.beta != 1))
        return Cost(macs, 2 * macs + size * extra)


def _adding(expr: Expr) -> Expr:
    """The expression with c as an addend, which has a number per element, in the place of the bias."""
    if isinstance(expr, Leaf):
        return Leaf.ADDEND if expr is Leaf.BIAS else expr
    if isinstance(expr, Chain):
        return Chain(_adding(expr.seed), expr.terms, expr.fused)
    return Sum(tuple(map(_adding, expr.parts)))
