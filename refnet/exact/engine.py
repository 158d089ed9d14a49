"""Correct rounding for the ops' golden values, with the fast kernels; core/exact.py is the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.engine import F32, F64, NOTHING, ConvGeometry, Engine, Places, PoolGeometry
from refnet.core.exact import Refine
from refnet.core.rounding import error_factor, sum_error
from refnet.exact.correct_rounding import RefineCount, by_decimals, nearest, refined, rounded
from refnet.kernels import accumulator, decisions
from refnet.kernels.accumulator import pieces
from refnet.kernels.exact_conv import additions, decided, suits
from refnet.kernels.exact_steps import Step, Tables, follow_exactly, follow_rows, tables
from refnet.kernels.memory import doubt
from refnet.kernels.panel import convolve
from refnet.kernels.resources import readonly
from refnet.kernels.segments import convolve_in_segments, depth
from refnet.kernels.thread_pool import by_python, noting, parallel_for
from refnet.kernels.winograd import ROUNDINGS, decided_by_tiles, suits_tiles

FEW = 8
"""Most rows of a dense layer that are a convolution over maps of one position; more are a matrix product."""
Again = Callable[[Places, Places, F32], F32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DecideOrRefine:
    """The exact results, computed by the fast engine's kernels with its number of threads.

    refine_count: counts, per kind of op, the elements and how many of them float64 left open.
    """

    engine: Engine
    refine_count: RefineCount | None = None

    def conv(
        self, op: str, x: F32, w: F32, bias: F32 | None, addend: F32 | None, geometry: ConvGeometry
    ) -> F32:
        """See Exact.conv.

        In float64 the products are exact; they are added in chains, which are added in turn. The error is
        that of Conv's docstring, from the norms of the windows and of the weights; of tiles, winograd.py's.
        """
        weight_norms, place = self._weight_norms(w), tuple(geometry)
        more = (bias is not None) + (addend is not None)
        b = np.zeros(0) if bias is None else bias.astype(np.float64)
        others = np.zeros(0, np.float32) if addend is None else self._contiguous(addend).reshape(-1)
        if suits(x.shape, w.shape, *place) and np.isfinite(weight_norms).all():
            x, w = self._contiguous(x), np.ascontiguousarray(w)
            y, unsure = self._across_channels(x, w, b, others, geometry, weight_norms, more)
        else:
            y, unsure = self._across_positions(x, w, bias, addend, geometry, weight_norms)

        return self._refined(op, accumulator.conv_exactly, unsure, x, w, b, others, geometry, y)

    def conv_and_steps(
        self, x: F32, w: F32, bias: F32 | None, geometry: ConvGeometry, steps: Sequence[Step], again: Again
    ) -> F32 | None:
        """`steps` of the exact sums; None where lanes across channels do not suit, or weights are not finite.

        Its refinements are not counted.
        """
        weight_norms, place, threads = self._weight_norms(w), tuple(geometry), self.engine.threads
        if not suits(x.shape, w.shape, *place) or not np.isfinite(weight_norms).all():
            return None
        x, w = self._contiguous(x), np.ascontiguousarray(w)
        shape = (x.shape[0], w.shape[0], *geometry.output(x.shape[2:], w.shape[2:]))
        b = np.zeros(0) if bias is None else bias.astype(np.float64)
        none, follow = np.zeros(0, np.float32), tables(steps, shape)
        y, unsure = self._across_channels(x, w, b, none, geometry, weight_norms, b.size > 0, follow)
        parallel_for(accumulator.conv_exactly, pieces(unsure), threads, unsure, x, w, b, none, geometry, y)
        self._follow_exactly(unsure, y, y, follow, again)
        return y

    def steps(self, x: F32, steps: Sequence[Step], again: Again) -> F32:
        """x (n, c, ...) after the steps, each rounded once: batch norms, as `affine` has them, an addition of
        an array of this shape, relus.

        again(places, channels, values): what the steps make of these values of x, where pairs of float64 do
        not decide. Refinements are not counted.
        """
        follow = tables(steps, x.shape)
        y, unsure = follow_rows(x, follow, self.engine.threads)
        self._follow_exactly(unsure, self._contiguous(x), y, follow, again)
        return y

    def _follow_exactly(self, unsure: Flags, x: F32, y: F32, follow: Tables, again: Again) -> None:
        """y (n, c, ...): what the steps make of the exact values x where they are open."""
        size, channels, flat, left = prod(y.shape[2:]), y.shape[1], y.reshape(-1), doubt()
        given = unsure, x.reshape(-1), flat, size, follow, channels, left
        parallel_for(follow_exactly, pieces(unsure), self.engine.threads, *given)
        if left[0]:
            at = np.flatnonzero(unsure)
            with noting([]):  # this is not repeated
                flat[at] = again(at, at // size % channels, flat[at])

    def _refined(self, op: str, kernel: Callable[..., None], unsure: Flags, *given: Any) -> F32:
        """y, the last of what the kernel is given, once it has computed what is open. Counts that."""
        y: F32 = given[-1]
        if self.refine_count is not None:
            self.refine_count.count(op, y.size, int(np.count_nonzero(unsure)))
        parallel_for(kernel, pieces(unsure), self.engine.threads, unsure, *given)
        return y

    def _contiguous(self, x: F32) -> F32:
        """x with its elements in order in memory."""
        if not x.flags.c_contiguous:
            by_python()
        return np.ascontiguousarray(x)

    def _weight_norms(self, w: F32) -> F64:
        return self.engine.cached((w,), "norm", lambda: norms_of(w))

    def _across_channels(
        self,
        x: F32,
        w: F32,
        b: F64,
        addend: F32,
        geometry: ConvGeometry,
        weight_norms: F64,
        more: int,
        steps: Tables = (),
    ) -> tuple[F32, Flags]:
        """`conv` before it refines, with lanes across channels. more: additions of bias and addend; steps:
        what follows.
        """
        threads, place = self.engine.threads, geometry[:3]
        if suits_tiles(x.shape, w.shape, *place, geometry.groups):
            factor = error_factor(additions((w.shape[0], w.shape[1], 1, 1)) + ROUNDINGS + more + 2)
            found = decided_by_tiles(x, w, geometry.pad, geometry.groups, b, addend, factor, threads, steps)
            if found is not None:
                return found
            by_python()
        factor = error_factor(additions(w.shape) + more + 2)  # 2 more: exact_block.decide_pass
        return decided(x, w, *place, geometry.groups, weight_norms, b, addend, factor, threads, steps)

    def _across_positions(
        self, x: F32, w: F32, bias: F32 | None, addend: F32 | None, geometry: ConvGeometry, weight_norms: F64
    ) -> tuple[F32, Flags]:
        """`conv` before it refines, with lanes across positions; also for weights that are not finite."""
        by_python()
        engine, threads, groups = self.engine, self.engine.threads, geometry.groups
        wide = decisions.widened(x, threads)
        weights = engine.cached((w,), "float64", lambda: widened(w))
        b = np.zeros(0) if bias is None else bias.astype(np.float64)
        place = (geometry.stride, geometry.pad, geometry.dilation)
        with np.errstate(all="ignore"):
            epilogue = NOTHING if bias is None else NOTHING.bias(b)
            if addend is not None:
                more = addend.astype(np.float64)
                epilogue = epilogue.add(more)
            center = convolve_in_segments(wide, weights, *place, groups, threads, epilogue)
            squares = decisions.squares(wide, groups, threads)
            ones = engine.cached((w,), ("ones", groups), lambda: ones_like_kernel(w, groups))
            norms = np.sqrt(convolve(squares, ones, *place, groups, threads))
        n, outputs, size = x.shape[0], w.shape[0], center.shape[2] * center.shape[3]
        plus = np.zeros(outputs) if bias is None else b
        factor = error_factor(depth(weights, groups) + (bias is not None) + (addend is not None))
        if addend is None:
            windows = norms.reshape(n, -1, size)
            flat = center.reshape(n, -1, size)
            y, unsure = decisions.decide_products(flat, windows, weight_norms, plus, factor, threads)
        else:
            with np.errstate(all="ignore"):
                sizes = np.repeat(norms, outputs // groups, 1)  # (n, outputs, oh, ow)
                sizes *= weight_norms[:, None, None]
                sizes += np.abs(plus)[:, None, None] + np.abs(more)
            y, unsure = decisions.decide(center, factor * sizes, threads)
        return y.reshape(center.shape), unsure

    def dense(self, op: str, x: F32, w: F32, bias: F32 | None) -> F32:
        """See Exact.dense. A few rows are a convolution over maps of one position."""
        engine, threads = self.engine, self.engine.threads
        if 0 < x.shape[0] <= FEW:
            kernel = engine.cached((w,), "kernel", lambda: readonly(w.reshape(*w.shape, 1, 1).copy()))
            maps = self._contiguous(x).reshape(*x.shape, 1, 1)
            if suits(maps.shape, kernel.shape, *ConvGeometry()):
                return self.conv(op, maps, kernel, bias, None, ConvGeometry()).reshape(x.shape[0], w.shape[0])
        by_python()
        wide, weights = x.astype(np.float64), engine.cached((w,), "float64", lambda: widened(w))
        b = None if bias is None else bias.astype(np.float64)
        with np.errstate(all="ignore"):
            center = engine.dense(wide, weights, b)
            norms = np.sqrt(np.square(wide).sum(1, keepdims=True)) * self._weight_norms(w)
            total = norms if b is None else norms + np.abs(b)
            error = sum_error(w.shape[1] + (b is not None), total)

        y, unsure = decisions.decide(center, error, threads)
        seeds = np.zeros(0) if b is None else b, np.zeros(0, np.float32)
        points, sums = (x[:, :, None, None], w[:, :, None, None]), y[:, :, None, None]
        self._refined(op, accumulator.conv_exactly, unsure, *points, *seeds, ConvGeometry(), sums)
        return y

    def sum(self, op: str, terms: F32) -> F32:
        """See Exact.sum."""
        count, threads = terms.shape[0], self.engine.threads
        flat = self._contiguous(terms).reshape(count, -1)
        y, unsure = decisions.decide_sums(flat, error_factor(count), threads)
        self._refined(op, accumulator.sums_exactly, unsure, flat, y)
        return y.reshape(terms.shape[1:])

    def weighted_sum(self, op: str, attention: F32, x: F32) -> F32:
        """See Exact.weighted_sum."""
        a, x = self._contiguous(attention), self._contiguous(x)
        y, unsure = decisions.decide_weighted(a, x, error_factor(x.shape[1]), self.engine.threads)
        return self._refined(op, accumulator.weighted_exactly, unsure, a, x, y)

    def average(self, op: str, x: F32, geometry: PoolGeometry, include_pad: bool) -> F32:
        """See Exact.average. In float64 n terms and the division are off by (n + 2) U64 * average of |x|."""
        kernel, x = geometry.kernel, self._contiguous(x)
        factor = error_factor(kernel[0] * kernel[1] + 1)
        y, unsure = decisions.decide_average(x, geometry, include_pad, factor, self.engine.threads)
        return self._refined(op, accumulator.average_exactly, unsure, x, geometry, include_pad, y)

    def affine(
        self, op: str, x: F32, mean: F64, scale: F64, shift: F64, factor: float, refine: Refine
    ) -> F32:
        """See Exact.affine."""
        by_python()
        rows = x.reshape(*x.shape[:2], prod(x.shape[2:]))
        y, unsure = decisions.decide_affine(rows, mean, scale, shift, factor, self.engine.threads)
        return refined(op, y.reshape(x.shape), unsure, refine, self.refine_count)

    def round_or_refine(self, op: str, center: F64, error: F64, refine: Refine) -> F32:
        """See Exact.round_or_refine."""
        by_python()
        y, unsure = decisions.decide(center, error, self.engine.threads)
        return refined(op, y, unsure, refine, self.refine_count)

    def nearest(self, compare: Callable[[Fraction], int], guess: float) -> np.float32:
        """See Exact.nearest."""
        return nearest(compare, guess)

    def rounded(self, true: Fraction) -> np.float32:
        """See Exact.rounded."""
        return rounded(true)

    def by_decimals(self, evaluate: Callable[[], tuple[Decimal, Decimal]], guess: float) -> np.float32:
        """See Exact.by_decimals."""
        return by_decimals(evaluate, guess)


def ones_like_kernel(w: F32, groups: int) -> F64:
    """Weights of 1, (groups, 1, kh, kw), for sums over windows. Read-only: their packing is kept."""
    ones = np.ones((groups, 1, *w.shape[2:]))
    ones.flags.writeable = False
    return ones


def widened(w: F32) -> F64:
    """w in float64, which is exact; read-only, so that kernels may cache what they derive from it."""
    wide = w.astype(np.float64)
    wide.flags.writeable = False
    return wide


def norms_of(w: F32) -> npt.NDArray[np.float64]:
    """The Euclidean norm of each output's weights, (o,)."""
    squares = np.square(w.astype(np.float64)).reshape(w.shape[0], -1)
    return np.asarray(np.sqrt(squares.sum(1)))
