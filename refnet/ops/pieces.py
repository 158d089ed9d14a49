"""Sums that are computed as several plain convolutions: of other ranks than two, and transposed ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from refnet.core.engine import Engine
from refnet.core.exact import Exact
from refnet.core.op import F32, Cost, Interval, Op, TensorType

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


class InPieces(Op):
    """Base of the convolutions that are computed by others: each output by one of its `pieces`.

    Outputs that no piece has are sums without terms: the bias, or +0.
    """

    bias: bool
    roles: ClassVar[tuple[str, ...]] = ("data", "weight", "bias")

    def pieces(self, shape: Sizes) -> list[Piece]:
        """The pieces, for data of this shape."""
        raise NotImplementedError

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
