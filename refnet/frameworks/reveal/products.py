"""Questions to the sums that are no Conv, Dense or pool: matrix products, those in pieces, those over axes.

asked_sum ── AskedProduct   a row of the output of a matrix product: its columns carry the probes
    ├─────── AskedPieces    a position of a transposed convolution, or of one over 1, 3 or more axes
    └─────── AskedReduction all others (probe.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from refnet.core.errors import UnsupportedError
from refnet.core.op import F32, Op, Reduction, TensorType
from refnet.frameworks.caller import Caller
from refnet.frameworks.reveal.probe import AskedReduction, Indices, Place
from refnet.kernels.engine import Fast
from refnet.ops.average import GlobalAvgPool
from refnet.ops.matmul import MatMul
from refnet.ops.pieces import InPieces
from refnet.ops.reduce import ReduceMean, SumOverAxes


def asked_sum(op: Reduction, types: Sequence[TensorType], caller: Caller) -> AskedReduction:
    """What asks for the order of this reduction. Raises UnsupportedError where a recipe cannot say it."""
    if not op.ordered:
        raise UnsupportedError(f"{op!r}: a recipe does not say when alpha and beta are multiplied")
    if isinstance(op, MatMul):
        return AskedProduct(op, types, caller)
    if isinstance(op, SumOverAxes):
        return AskedElements(op, types, caller)
    return (AskedPieces if isinstance(op, InPieces) else AskedReduction)(op, types, caller)


def other_forms(framework: str, op: Op) -> tuple[Reduction, ...]:
    """Ops with the same terms that a framework computes in another way, and that files may have for this one.

    ONNX's ReduceMean over rows and columns is refnet's GlobalAvgPool, as GlobalAveragePool is.

    >>> other_forms("onnxruntime", GlobalAvgPool())
    (ReduceMean(axes=(2, 3)),)
    """
    means = framework == "onnxruntime" and isinstance(op, GlobalAvgPool)
    return (ReduceMean((2, 3)),) if means else ()


class AskedProduct(AskedReduction):
    """A matrix product in a framework. To a Place its output is (rows, n, 1, 1), rows those of all matrices.

    A is the same number everywhere; the columns of B are the summands, so that each column of the output
    carries a probe.
    """

    op: MatMul

    def __init__(self, op: MatMul, types: Sequence[TensorType], caller: Caller) -> None:
        super().__init__(op, types, caller)
        numbers = (np.arange(kind.size).reshape(kind.shape) for kind in types[:2])
        left, self.right, lead = op.matrices(*numbers)  # (lead..., k, n): the places in b
        self.rows = (*lead, left.shape[-2])
        self.shape = int(np.prod(self.rows)), self.right.shape[-1], 1, 1

    def _weighted_sums(self, place: Place, summands: F32, x: np.float32) -> F32:
        a, b, *c = self.caller.names
        calls, carriers = len(summands), place.carriers
        *lead, row = map(int, np.unravel_index(place.image, self.rows))
        each = {b: np.zeros((calls, *self.types[1].shape), np.float32)}
        columns = self.right[tuple(lead)][:, carriers]  # (k, carriers)
        each[b].reshape(calls, -1)[:, columns] = summands[..., : self.terms].swapaxes(1, 2)
        if c:
            each[c[0]] = np.zeros((calls, *self.types[2].shape), np.float32)
            each[c[0]].reshape(calls, -1)[:, self._added[place.image, carriers]] = summands[..., self.terms]
        plain = min(len(kind.shape) for kind in self.types[:2]) > 1
        take = [*lead, row, None] if plain else []
        y = self.caller({a: np.full(self.types[0].shape, x, np.float32)}, each, take)
        if not plain:
            y = y.reshape(calls, *self.shape[:2])[:, place.image]
        return y[:, carriers]

    @cached_property
    def _added(self) -> Indices:
        """(rows, n): where in c an element's summand is. Raises UnsupportedError if columns share one."""
        kind = self.types[2]
        places = np.broadcast_to(np.arange(kind.size).reshape(kind.shape), self.output)
        if self.shape[1] > 1 and kind.shape[-1:] != (self.shape[1],):
            raise UnsupportedError(f"{self.op!r}: {kind!r} has no number for each column")
        return places.reshape(self.shape[:2])


class AskedPieces(AskedReduction):
    """A convolution over other axes than two, or a transposed one. Not all terms are at each position."""

    op: InPieces

    @cached_property
    def _there(self) -> npt.NDArray[np.bool_]:
        """(positions, places of the kernel): which terms of a channel an element has."""
        x, w, *bias = self.types
        numbers = self.op.by_output(np.arange(w.size).reshape(w.shape))[:, : int(np.prod(self.op.kernel))]
        rest = [np.zeros(kind.shape, np.float32) for kind in bias]
        found = []
        for places in numbers.T:
            weights = np.zeros(w.size, np.float32)
            weights[places] = 1
            y = self.op.run(np.ones(x.shape, np.float32), weights.reshape(w.shape), *rest, engine=Fast())
            found.append(y[0, 0].ravel() > 0)
        return np.stack(found, 1)

    @property
    def padded(self) -> bool:
        return not self._there.all()

    def leaves(self, place: Place) -> list[int]:
        own = self._there[place.y * self.shape[3] + place.x]
        return [*map(int, np.flatnonzero(np.tile(own, self.terms // own.size))), *self.alone]

    def present(self) -> Indices:
        counts: Indices = self._there.sum(1).reshape(self.shape[2:])
        return counts

    def _weighted_sums(self, place: Place, summands: F32, x: np.float32) -> F32:
        data, weight, *bias = self.caller.names
        calls, kind = len(summands), self.types[1]
        places = self.op.by_output(np.arange(kind.size).reshape(kind.shape))[place.carriers]
        each = {weight: np.zeros((calls, *kind.shape), np.float32)}
        each[weight].reshape(calls, -1)[:, places] = summands[..., : self.terms]
        if bias:
            each[bias[0]] = np.zeros((calls, self.shape[1]), np.float32)
            each[bias[0]][:, place.carriers] = summands[..., self.terms]
        at = np.unravel_index(place.y * self.shape[3] + place.x, self.output[2:])
        fixed = {data: np.full(self.types[0].shape, x, np.float32)}
        return self.caller(fixed, each, [place.image, None, *map(int, at)])[:, place.carriers]


class AskedElements(AskedReduction):
    """A sum or mean over axes. To a Place its output is (sums, 1, 1, 1): each sum carries a probe."""

    op: SumOverAxes

    def __init__(self, op: SumOverAxes, types: Sequence[TensorType], caller: Caller) -> None:
        super().__init__(op, types, caller)
        kind = types[0]
        self.places = op.terms_of(np.arange(kind.size).reshape(kind.shape))  # (terms, sums): in the data
        self.shape = self.places.shape[1], 1, 1, 1
        self.weighted = False

    def _sums(self, place: Place, summands: F32, x: np.float32) -> F32:
        (kind,), calls = self.types, len(summands)
        divisor = self.terms if self.op.averages else 1
        data = np.zeros((calls, kind.size), np.float32)
        data[:, self.places[:, place.carriers]] = summands.swapaxes(1, 2) * np.float32(divisor)
        y = self.caller({}, {self.caller.names[0]: data.reshape(calls, *kind.shape)})
        return y.reshape(calls, -1)[:, place.carriers]
