"""Sums that are computed as several plain convolutions: of other ranks than two, and transposed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.element import Windows
from refnet.core.engine import Engine, Places
from refnet.core.errors import InputError
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, Reduction, TensorType
from refnet.core.orders import Chain, Expr, Leaf, Order, Program, Sum
from refnet.core.rounding import product_integers

Array = npt.NDArray[Any]
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Some of the outputs, as a convolution of some of the data with some of the weights.

    op: a Conv or ConvNd, with the bias of the whole. x, w: the part of the data and of the weights, for
    arrays of any dtype. put(y, values): write the convolution's result into y (n, channels, ...).
    """

    op: Op
    x: Callable[[Array], Array]
    w: Callable[[Array], Array]
    put: Callable[[Array, Array], None]


class InPieces(Reduction):
    """Base of the convolutions that are computed by others: each output by one of its `pieces`.

    Outputs that no piece has are sums without terms: the bias, or +0.

    The terms that a recipe orders are numbered by channel of the group, then place of the kernel, axis by
    axis (`by_output`). An element has some of them: those of its piece which lie in the image.
    """

    bias: bool
    kernel: Sizes
    roles: ClassVar[tuple[str, ...]] = ("data", "weight", "bias")

    def pieces(self, shape: Sizes) -> list[Piece]:
        """The pieces, for data of this shape."""
        raise NotImplementedError

    def by_output(self, w: Array) -> Array:
        """(channels, terms): the weights of each output channel."""
        return w.reshape(w.shape[0], -1)

    def _numbers(self, w: Sizes) -> Array:
        """The number of each weight's term, for weights of this shape."""
        numbers = np.empty(prod(w), np.int64)
        places = self.by_output(np.arange(numbers.size).reshape(w))
        numbers[places] = np.arange(places.shape[1])
        return numbers.reshape(w)

    def terms(self, *inputs: TensorType) -> int:
        places = self.by_output(np.broadcast_to(np.int8(0), inputs[1].shape))
        return int(places.shape[1])

    def biased(self) -> bool:
        return self.bias

    def windows(self, *inputs: TensorType) -> Windows:
        raise InputError(f"{self!r}: its windows are those of its pieces")

    def exact_integers(self, largest: int, *inputs: TensorType) -> tuple[tuple[int, ...], int]:
        return product_integers(self.terms(*inputs), largest, len(inputs))

    def in_order(self, program: Program, *inputs: F32, engine: Engine, places: Places | None = None) -> F32:
        x, w, *bias = inputs
        numbers = self._numbers(w.shape)
        y = self._without_terms(x.shape, w.shape, bias[0] if bias else None)
        for k, piece in enumerate(self.pieces(x.shape)):
            part = engine.cached((w,), (self, k), lambda piece=piece: _kept(piece.w(w)))  # type: ignore[misc]
            order = _restricted(program.expr, tuple(piece.w(numbers)[0].ravel().tolist()))
            value = in_order_of(piece.op, replace(program, expr=order), engine)
            piece.put(y, value(np.ascontiguousarray(piece.x(x)), part, *bias))
        return y if places is None else y.reshape(-1)[places]

    def weight_roles(self) -> tuple[str, ...]:
        return ("weight", "bias") if self.bias else ("weight",)

    def nan_propagates(self, *weights: F32) -> bool:
        return all(bool(np.isfinite(w).all()) for w in weights)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return self._joined(inputs, engine, lambda op, *arrays: op.run(*arrays, engine=engine))

    def golden(self, *inputs: F32, exact: Exact) -> F32:
        return self._joined(inputs, exact.engine, lambda op, *arrays: op.golden(*arrays, exact=exact))

    def _joined(self, inputs: tuple[F32, ...], engine: Engine, compute: Callable[..., F32]) -> F32:
        x, w, *bias = inputs
        y = self._without_terms(x.shape, w.shape, bias[0] if bias else None)
        for k, piece in enumerate(self.pieces(x.shape)):
            part = engine.cached((w,), (self, k), lambda piece=piece: _kept(piece.w(w)))  # type: ignore[misc]
            piece.put(y, compute(piece.op, np.ascontiguousarray(piece.x(x)), part, *bias))
        return y

    def bound(self, *inputs: Interval, engine: Engine) -> Interval:
        x, w, *bias = inputs
        shapes = x.center.shape, w.center.shape
        center = self._without_terms(*shapes, bias[0].center if bias else None, np.float64)
        radius = self._without_terms(*shapes, bias[0].radius if bias else None, np.float64)
        for piece in self.pieces(x.center.shape):
            parts = (
                Interval(np.ascontiguousarray(take(whole.center)), np.ascontiguousarray(take(whole.radius)))
                for take, whole in ((piece.x, x), (piece.w, w))
            )
            found = piece.op.bound(*parts, *bias, engine=engine)
            piece.put(center, found.center)
            piece.put(radius, found.radius)
        return Interval(center, radius)

    def _without_terms(
        self, x: Sizes, w: Sizes, bias: Array | None = None, dtype: type[Any] = np.float32
    ) -> Array:
        kinds = [TensorType(x), TensorType(w), *([] if bias is None else [TensorType(bias.shape)])]
        shape = self.type(*kinds).shape
        y = np.zeros(shape, dtype)
        if bias is not None:
            y += bias.reshape(-1, *(1,) * (len(shape) - 2))
        return y

    def _cost(self, macs: int, size: int) -> Cost:
        return Cost(macs, 2 * macs + size * self.bias)


def _kept(w: Array) -> Array:
    """Contiguous and read-only, so that an engine may cache what it makes of it."""
    w = np.array(w, order="C")
    w.flags.writeable = False
    return w


def in_order_of(op: Op, program: Program, engine: Engine) -> Callable[..., F32]:
    """What computes an op that is a reduction in this order."""
    assert isinstance(op, Reduction)
    return lambda *arrays: op.in_order(program, *arrays, engine=engine)


@lru_cache(maxsize=1024)
def _restricted(expr: Expr, kept: tuple[int, ...]) -> Expr:
    """The order of those terms alone, which get the numbers 0, 1, ...

    >>> _restricted(Sum((Chain(Leaf.ZERO, Order.of((0, 1))), Chain(Leaf.ZERO, Order.of((2, 3))))), (3, 2))
    Chain(seed=<Leaf.ZERO: 'zero'>, terms=Order(pieces=((1, 2, -1),)), fused=True)
    """
    found = _without(expr, {term: number for number, term in enumerate(kept)})
    return Leaf.ZERO if found is None else found


def _without(expr: Expr, numbers: Mapping[int, int]) -> Expr | None:
    """The expression without the terms that have no number; None if nothing is left of it."""
    if isinstance(expr, Leaf):
        return expr if expr in (Leaf.BIAS, Leaf.ADDEND) else None
    if isinstance(expr, Chain):
        terms = [numbers[term] for term in expr.terms.indices() if term in numbers]
        seed = _without(expr.seed, numbers)
        if not terms:
            return seed
        start = expr.seed if isinstance(expr.seed, Leaf) else Leaf.ZERO
        return Chain(start if seed is None else seed, Order.of(terms), expr.fused)
    parts = [part for part in (_without(one, numbers) for one in expr.parts) if part is not None]
    return (Sum(tuple(parts)) if len(parts) > 1 else parts[0]) if parts else None
