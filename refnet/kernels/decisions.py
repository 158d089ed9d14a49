"""Roundings decided by a float64 estimate with a proven error: which answers are sure, and which are open.

    an estimate (a sum, an average, a product, a norm) and a bound of its error
        ── one float32 remains: it is the answer
        └─ two remain: the element is open, and is computed exactly (accumulator.py, or the op's decimals)

What is open is marked in an array of flags, one for each element, which the kernels of accumulator.py read.

No loop defines these values: the exact result does. tests/exact compares them with rational arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.engine import PoolGeometry
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.exact_block import twofold_row
from refnet.kernels.memory import empty
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.jit import njit

Array = npt.NDArray[Any]

GRAIN = 8192
"""Elements per work item of `decide`."""
LANES = 8
"""Sums beside each other that become one: a vector or more."""
WIDTH = 28
"""Maps of so many columns are as quick row by row as in one piece (measured)."""
COST = 4
"""Operations per decision, beside those of the estimate."""
LINE = 512
"""Float64 sums that a kernel keeps beside each other in the first-level cache."""


def decide(center: Array, error: Array, threads: int) -> tuple[Array, Array]:
    """(y, open): the float32 of each float64 center, and whether its error leaves it open, for each element.

    center, error: float64, one shape, |exact - center| <= error. An element is decided if every number
    within the error has the same nearest float32, its sign included; an error of 0 means that the center
    is the exact value. A center that is not finite is final: the exact value is not defined
    (NaN) or infinite. An exact 0 is +0; another value that rounds to 0 keeps its sign.
    """
    y = empty(center.shape, np.float32)
    unsure = empty((center.size,), np.bool_)
    c, e = np.ascontiguousarray(center).reshape(-1), np.ascontiguousarray(error).reshape(-1)
    threads = threads_for(threads, COST * center.size)
    parallel_for(_decide, -(-center.size // GRAIN), threads, c, e, y.reshape(-1), unsure)
    return y, unsure


def decide_products(
    center: Array, norms: Array, weights: Array, bias: Array, factor: float, threads: int
) -> tuple[Array, Array]:
    """As decide, with the error factor * (norms * weights + |bias|) of a sum of products.

    center (n, o, positions), norms of the windows (n, g, positions), of the outputs' weights (o,), bias (o,).
    """
    y = empty(center.shape, np.float32)
    unsure = empty((center.size,), np.bool_)
    n, o, size = center.shape
    flat = unsure.reshape(n * o, size)
    threads = threads_for(threads, COST * center.size)
    parallel_for(_decide_products, n * o, threads, center, norms, weights, bias, factor, y, flat)
    return y, unsure


def decide_affine(
    x: Array, mean: Array, scale: Array, shift: Array, factor: float, threads: int
) -> tuple[Array, Array]:
    """As decide, for (x - mean) scale + shift in float64 with the error factor * (|result| + 2 |shift|).

    x (n, c, positions) float32; mean, scale, shift (c,) float64.
    """
    y = empty(x.shape, np.float32)
    unsure = empty((x.size,), np.bool_)
    n, c, size = x.shape
    rows, flat = np.ascontiguousarray(x).reshape(n * c, size), unsure.reshape(n * c, size)
    threads = threads_for(threads, COST * x.size)
    parallel_for(
        _decide_affine, n * c, threads, rows, mean, scale, shift, factor, y.reshape(n * c, size), flat
    )
    return y, unsure


def decide_average(
    x: Array, geometry: PoolGeometry, include_pad: bool, factor: float, threads: int
) -> tuple[Array, Array]:
    """As decide, for the average of each window in float64 with the error factor * (average of |x|).

    A window whose sum s is exact is decided at once: only the division by its size d remains. For a midpoint
    m between two float32, s and d m are multiples of ulp(s), if d < 2**27. So if s / d is not m, it differs
    from m by at least ulp(s) / d > ulp(s / d) / 2, and does not round to m in float64 either.

    x (n, c, h, w) float32.
    """
    (n, c), output = x.shape[:2], geometry.output
    y = empty((n, c, *output), np.float32)
    unsure = empty((y.size,), np.bool_)
    planes = np.ascontiguousarray(x).reshape(n * c, *x.shape[2:])
    threads = threads_for(threads, COST * y.size + x.size)
    whole = geometry.kernel == x.shape[2:] and geometry.pad == (0, 0) and output == (1, 1)
    if whole and x.shape[3] < WIDTH:
        parallel_for(_decide_whole, n * c, threads, planes.reshape(n * c, -1), factor, y.reshape(-1), unsure)
        return y, unsure
    if geometry[:3] == ((2, 2), (2, 2), (0, 0)) and x.shape[2:] == (2 * output[0], 2 * output[1]):
        quads = y.reshape(n * c, -1), unsure.reshape(n * c, -1)
        parallel_for(_decide_quads, n * c, threads, planes, factor, *quads)
        return y, unsure
    rows, flat = y.reshape(n * c, *output), unsure.reshape(n * c, *output)
    parallel_for(_decide_average, n * c, threads, planes, geometry, include_pad, factor, rows, flat)
    return y, unsure


def decide_sums(terms: Array, factor: float, threads: int) -> tuple[Array, Array]:
    """As decide, for the sums over the first axis in float64 with the error factor * (sum of |terms|).

    terms (count, size) float32; y (size,).
    """
    y = empty((terms.shape[1],), np.float32)
    unsure = empty((terms.shape[1],), np.bool_)
    threads = threads_for(threads, COST * y.size + terms.size)
    parallel_for(_decide_sums, -(-y.size // GRAIN), threads, terms, factor, y, unsure)
    return y, unsure


def decide_weighted(a: Array, x: Array, factor: float, threads: int) -> tuple[Array, Array]:
    """As decide, for the sums over r of a[n, r, c] * x[n, r, c, position]; error factor * (sum of |a x|).

    a (n, radix, c), x (n, radix, c, positions) float32; y (n, c, positions).
    """
    n, _, c, size = x.shape
    y = empty((n, c, size), np.float32)
    unsure = empty((y.size,), np.bool_)
    threads = threads_for(threads, COST * y.size + x.size)
    parallel_for(_decide_weighted, n * c, threads, a, x, factor, y, unsure.reshape(y.shape))
    return y, unsure


def widened(x: Array, threads: int) -> Array:
    """x in float64."""
    y = empty(x.shape, np.float64)
    threads = threads_for(threads, x.size)
    parallel_for(_widen, -(-x.size // GRAIN), threads, np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y


def squares(x: Array, groups: int, threads: int) -> Array:
    """Sums of squares over each group's channels: x (n, groups * c, h, w) -> (n, groups, h, w) float64."""
    n, channels, h, w = x.shape
    y = empty((n, groups, h, w), np.float64)
    planes = x.reshape(n * groups, channels // groups, h * w)
    rows = y.reshape(n * groups, h * w)
    parts = -(-h * w // 256)
    threads = threads_for(threads, x.size)
    parallel_for(_squares, n * groups * parts, threads, planes, rows, parts)
    return y


@njit
def _widen(work: Any, x: Any, y: Any) -> None:
    """y (size,) = x in float64. Items: GRAIN elements."""
    begin, end = chunk(work)
    while begin < end:
        source, target = x[begin * GRAIN : end * GRAIN], y[begin * GRAIN : end * GRAIN]
        for i in range(source.size):
            target[i] = source[i]
        begin, end = next_chunk(work)


@njit
def _squares(work: Any, x: Any, y: Any, parts: int) -> None:
    """y (n, size) = sums of the squares of x (n, terms, size). Items: (row, 256 elements), `parts` a row."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            row, at = item // parts, item % parts * 256
            sums = y[row, at : at + 256]
            sums[:] = 0
            for c in range(x.shape[1]):
                values = x[row, c, at : at + 256]
                for i in range(sums.size):
                    value = np.float64(values[i])  # a square in float32 may be 0 or infinite
                    sums[i] += value * value
        begin, end = next_chunk(work)


@njit
def _decide_whole(work: Any, x: Any, factor: float, y: Any, unsure: Any) -> None:
    """As _decide_average, for the average of each row of x (planes, size); a row that is open is added once
    more, to see whether its sum loses nothing.
    """
    count, lanes = x.shape[1], 2 * LANES
    sums, sizes = np.empty(lanes), np.empty(lanes)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            values = x[item]
            sums[:] = 0
            sizes[:] = 0
            whole = count // lanes * lanes
            for first in range(0, whole, lanes):
                some = values[first : first + lanes]
                for i in range(lanes):
                    sums[i] += np.float64(some[i])
                    sizes[i] += np.abs(np.float64(some[i]))
            for i in range(count - whole):
                sums[i] += np.float64(values[whole + i])
                sizes[i] += np.abs(np.float64(values[whole + i]))
            total, size = 0.0, 0.0
            for i in range(lanes):
                total += sums[i]
                size += sizes[i]
            c = total / count
            opened = is_open(c, factor * size / count)
            if opened and count < 2**27:
                total, loss = 0.0, 0.0
                for i in range(count):
                    loss += np.abs(lost_by(total, np.float64(values[i])))
                    total += np.float64(values[i])
                if loss == 0:
                    c, opened = total / count, False
            y[item] = np.float32(c) if c != 0 else np.float32(0)
            unsure[item] = opened
        begin, end = next_chunk(work)


@njit
def _decide_quads(work: Any, x: Any, factor: float, y: Any, unsure: Any) -> None:
    """As _decide_average, for the averages of 2 x 2 elements each of x (planes, h, w), h and w even; y and
    unsure (planes, h * w / 4). Pairs of rows are added first: what is left are neighbours, in one row.
    """
    height, width = x.shape[1:]
    half = height // 2 * width
    down, sizes, losses = np.empty(half), np.empty(half), np.empty(half)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            for i in range(height // 2):
                upper, lower, at = x[item, 2 * i], x[item, 2 * i + 1], i * width
                total, size, loss = down[at : at + width], sizes[at : at + width], losses[at : at + width]
                for k in range(width):
                    a, b = np.float64(upper[k]), np.float64(lower[k])
                    total[k] = a + b
                    size[k] = np.abs(a) + np.abs(b)
                    loss[k] = np.abs(lost_by(a, b))
            r, u = y[item], unsure[item]
            for j in range(r.size):
                a, b = down[2 * j], down[2 * j + 1]
                c = (a + b) * 0.25
                r[j] = np.float32(c) if c != 0 else np.float32(0)
                inexact = losses[2 * j] + losses[2 * j + 1] + np.abs(lost_by(a, b)) != 0
                u[j] = inexact & is_open(c, factor * (sizes[2 * j] + sizes[2 * j + 1]) * 0.25)
        begin, end = next_chunk(work)


@njit
def _decide_average(
    work: Any, x: Any, geometry: Any, include_pad: bool, factor: float, y: Any, unsure: Any
) -> None:
    """y (planes, oh, ow) = averages of x (planes, h, w), off by factor * the average of |x|; none is unsure
    whose sum lost nothing. geometry: a PoolGeometry. Items: planes.
    """
    (kh, kw), (sh, sw), (ph, pw) = geometry.kernel, geometry.stride, geometry.pad
    height, width = x.shape[1:]
    down, down_size, down_lost = np.empty(width), np.empty(width), np.empty(width)  # of each column
    sums, sizes, losses = np.empty(y.shape[2]), np.empty(y.shape[2]), np.empty(y.shape[2])  # of each window
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            plane = x[item]
            for i in range(y.shape[1]):
                top = i * sh - ph
                bottom = min(top + kh, height + ph)
                tall = bottom - top
                top, bottom = max(top, 0), min(bottom, height)
                if not include_pad:
                    tall = bottom - top
                down[:] = 0
                down_size[:] = 0
                down_lost[:] = 0
                for row in range(top, bottom):
                    twofold_row(plane, row * width, down, down_size, down_lost, width)
                sums[:] = 0
                sizes[:] = 0
                losses[:] = 0
                if sums.size == 1:
                    for column in range(0, min(kw - pw, width)):
                        losses[0] += np.abs(lost_by(sums[0], down[column])) + down_lost[column]
                        sums[0] += down[column]
                        sizes[0] += down_size[column]
                for q in range(kw if sums.size > 1 else 0):
                    first = q - pw
                    low = max(0, -(first // sw))
                    high = max(low, min(sums.size, (width - first + sw - 1) // sw))
                    at, n = first + low * sw, high - low
                    values, value_sizes, value_losses = down[at:], down_size[at:], down_lost[at:]
                    total, size, lost = sums[low:high], sizes[low:high], losses[low:high]
                    if sw == 2:  # a constant stride is read by vectors
                        for j in range(n):
                            lost[j] += np.abs(lost_by(total[j], values[2 * j])) + value_losses[2 * j]
                            total[j] += values[2 * j]
                            size[j] += value_sizes[2 * j]
                    else:
                        for j in range(n):
                            lost[j] += np.abs(lost_by(total[j], values[sw * j])) + value_losses[sw * j]
                            total[j] += values[sw * j]
                            size[j] += value_sizes[sw * j]
                r, u = y[item, i], unsure[item, i]
                for j in range(sums.size):
                    left = j * sw - pw
                    right = min(left + kw, width + pw)
                    wide = right - left if include_pad else min(right, width) - max(left, 0)
                    count = tall * wide
                    c = sums[j] / count
                    r[j] = np.float32(c) if c != 0 else np.float32(0)
                    inexact = (losses[j] != 0) | (count >= 2**27)
                    u[j] = inexact & is_open(c, factor * sizes[j] / count)
        begin, end = next_chunk(work)


@njit
def _decide_sums(work: Any, terms: Any, factor: float, y: Any, unsure: Any) -> None:
    """y (size,) = sums over the first axis of terms (count, size), each off by factor * the sum of |terms|.

    Items: GRAIN elements.
    """
    begin, end = chunk(work)
    while begin < end:
        for i in range(begin * GRAIN, min(end * GRAIN, y.size)):
            total, size = 0.0, 0.0
            for k in range(terms.shape[0]):
                value = np.float64(terms[k, i])
                total += value
                size += np.abs(value)
            y[i] = np.float32(total) if total != 0 else np.float32(0)
            unsure[i] = is_open(total, factor * size)
        begin, end = next_chunk(work)


@njit
def _decide_weighted(work: Any, a: Any, x: Any, factor: float, y: Any, unsure: Any) -> None:
    """y (n, channels, size) = sums over k of a (n, k, channels) * x (n, k, channels, size), in the same way.

    Items: (image, channel).
    """
    channels = x.shape[2]
    sums, sizes = np.empty(LINE), np.empty(LINE)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            n, c = item // channels, item % channels
            for first in range(0, y.shape[2], sums.size):
                r, u = y[n, c, first : first + sums.size], unsure[n, c, first : first + sums.size]
                sums[:] = 0
                sizes[:] = 0
                for k in range(x.shape[1]):
                    scale, values = np.float64(a[n, k, c]), x[n, k, c, first : first + sums.size]
                    for i in range(values.size):
                        product = scale * np.float64(values[i])
                        sums[i] += product
                        sizes[i] += np.abs(product)
                for i in range(r.size):
                    r[i] = np.float32(sums[i]) if sums[i] != 0 else np.float32(0)
                    u[i] = is_open(sums[i], factor * sizes[i])
        begin, end = next_chunk(work)


@njit
def _decide(work: Any, center: Any, error: Any, y: Any, unsure: Any) -> None:
    """y (size,) = center, off by the error. Items: GRAIN elements."""
    begin, end = chunk(work)
    while begin < end:
        a, b = begin * GRAIN, min(end * GRAIN, center.size)
        c, e, r, u = center[a:b], error[a:b], y[a:b], unsure[a:b]
        for i in range(c.size):
            r[i] = np.float32(c[i]) if c[i] != 0 else np.float32(0)
            u[i] = is_open(c[i], e[i])
        begin, end = next_chunk(work)


@njit
def _decide_products(
    work: Any, center: Any, norms: Any, weights: Any, bias: Any, factor: float, y: Any, unsure: Any
) -> None:
    """y (n, outputs, size) = center, off by factor * (norm of the window * norm of the weights + |bias|).

    norms (n, groups, size); weights, bias (outputs,). Items: (image, output), also the rows of unsure.
    """
    outputs, groups = center.shape[1], norms.shape[1]
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            image, o = item // outputs, item % outputs
            c, r, u = center[image, o], y[image, o], unsure[item]
            e, weight, plus = norms[image, o // (outputs // groups)], weights[o], np.abs(bias[o])
            for i in range(c.size):
                r[i] = np.float32(c[i]) if c[i] != 0 else np.float32(0)
                u[i] = is_open(c[i], factor * (e[i] * weight + plus))
        begin, end = next_chunk(work)


@njit
def _decide_affine(
    work: Any, x: Any, mean: Any, scale: Any, shift: Any, factor: float, y: Any, unsure: Any
) -> None:
    """y = c = (x - mean) * scale + shift, off by factor * (|c| + 2 |shift|). Items: rows of x, one channel
    each; mean, scale, shift (channels,).
    """
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            m, s, t = mean[item % mean.size], scale[item % mean.size], shift[item % mean.size]
            v, r, u = x[item], y[item], unsure[item]
            for i in range(v.size):
                c = (np.float64(v[i]) - m) * s + t
                r[i] = np.float32(c) if c != 0 else np.float32(0)
                u[i] = is_open(c, factor * (np.abs(c) + 2 * np.abs(t)))
        begin, end = next_chunk(work)


@njit
def lost_by(a: float, b: float) -> float:
    """The exact rounding error of the float64 a + b (Knuth's TwoSum); NaN if the sum is not finite."""
    s = a + b
    part = s - a
    return (a - (s - part)) + (b - part)


@njit
def is_open(c: float, e: float) -> bool:
    """Whether the error e leaves more than one float32 for a float64 c; never for a c that is not finite."""
    wide = e + np.abs(c) * 2.0**-52 if e != 0 else 0.0  # c - e and c + e are rounded too
    below, above = c - wide, c + wide
    same = (np.float32(below) == np.float32(above)) & ((below > 0) == (above > 0))
    return bool((np.abs(c) < np.inf) & (not same))


@njit
def twofold(total: float, rest: float, size: float, term: float) -> tuple[float, float, float]:
    """A term added: total + rest + term, where rest takes what the additions to total lose, exactly, and size
    how large these losses are (the compensated sum of T. Ogita, S. Rump and S. Oishi, SIAM Journal on
    Scientific Computing 26, 2005).
    """
    lost = lost_by(total, term)
    return total + term, rest + lost, size + np.abs(lost)


@njit
def round_twofold(total: float, rest: float, size: float, terms: int) -> tuple[Any, bool]:
    """The float32 nearest to the sum of `terms` terms that `twofold` added, and whether that is sure.

    rest is a float64 sum of losses, each exact, so it is off by at most (terms + 2) 2**-53 size. Where
    nothing was lost the sum is exact, a tie too.
    """
    return round_pair(total, rest, (terms + 2) * 2.0**-53 * (1 + 2.0**-20) * size)


@njit
def round_pair(total: float, rest: float, error: float) -> tuple[Any, bool]:
    """The float32 nearest to a number that is off total + rest by at most `error`; whether that is sure."""
    center = total + rest
    low = lost_by(total, rest)  # total + rest = center + low, exactly
    if error != 0:
        error += np.abs(low) * 2.0**-52  # low - error and low + error are rounded too
    below, above = np.float32(_to_odd(center, low - error)), np.float32(_to_odd(center, low + error))
    return above, below == above and np.signbit(below) == np.signbit(above)


@njit
def _to_odd(a: float, b: float) -> float:
    """a + b rounded to the neighbour whose last bit is 1 unless it is exact: rounding that to float32 is
    right.
    """
    total, lost = a + b, lost_by(a, b)
    if lost == 0:
        return total
    fraction, _ = math.frexp(total)
    if np.int64(fraction * 9007199254740992.0) % 2 == 0:
        return float(np.nextafter(total, np.inf if lost > 0 else -np.inf))
    return total
