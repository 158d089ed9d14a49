"""The frameworks' formulas over whole arrays, with the bits of loops/formulas.py.

`max_pool` has those of `max_pool_by` in loops/pool.py, `parts_sum` those of loops/attention.py.

Which formula belongs to which framework stands with the ops; the functions of one number are in loops/libm/.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.engine import PoolGeometry
from refnet.kernels import pool
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.memory import empty
from refnet.kernels.resources import readonly
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.bits32 import largest, multiply_add
from refnet.loops.fma import fma
from refnet.loops.jit import njit
from refnet.loops.libm import glibc, mlas, onednn, sleef

F32 = npt.NDArray[np.float32]

GRAIN = 16384
"""Elements per work item of the flat loops."""
COST = 20
"""Operations that one exponential counts for."""

SLEEF, GLIBC, GLIBC_UNFUSED, ONEDNN, ONEDNN_UNFUSED, MLAS_512, MLAS = range(7)
"""Whose exponential, or logistic, it is."""
KEEPS, DROPS, SCALES = range(3)
"""What a relu does with -0 and NaN: loops/formulas.py `relu_by`, "keeps", "drops" and "scales"."""
RUNNING, COLUMNS = range(2)
"""What a max pool does with equals and NaN: loops/pool.py `max_pool_by`, "running" and "columns"."""
SSE, AVX2, AVX512 = 4, 8, 16
"""float32 in a vector."""
LOWEST = np.float32(np.finfo(np.float32).min)


def sigmoid(x: F32, whose: int, threads: int) -> F32:
    """SLEEF and GLIBC: 1 / (1 + e) with their e = exp(-x); ONEDNN and MLAS: their logistic. Any shape."""
    y = empty(x.shape, np.float32)
    flat = np.ascontiguousarray(x).reshape(-1)
    parallel_for(
        _sigmoid, -(-x.size // GRAIN), threads_for(threads, COST * x.size), flat, y.reshape(-1), whose
    )
    return y


def exponential(x: F32, whose: int, threads: int) -> F32:
    """exp(x), any shape."""
    y = np.empty(x.shape, np.float32)
    y[...] = x
    flat = y.reshape(-1)
    parallel_for(_exponential, -(-x.size // GRAIN), threads_for(threads, COST * x.size), flat, whose)
    return y


def exponentials(x: F32, whose: int, lanes: int, threads: int) -> F32:
    """exp(x - m) along the last axis, m the row's largest element as `whose` code finds it.

    lanes: oneDNN only, as many elements it compares at a time: SSE, AVX2 or AVX512.
    """
    y = np.empty(x.shape, np.float32)
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    count = threads_for(threads, COST * x.size)
    parallel_for(_shifted, rows.shape[0], count, rows, y.reshape(rows.shape), whose, lanes)
    parallel_for(_exponential, -(-y.size // GRAIN), count, y.reshape(-1), whose)
    return y


def quotients(e: F32, total: F32 | None, divide: bool, threads: int) -> F32:
    """e / s, or e * (1 / s), by rows. total: s, (rows,); none: the row's e, left to right."""
    y = np.empty(e.shape, np.float32)
    rows = np.ascontiguousarray(e).reshape(-1, e.shape[-1])
    sums = np.empty(0, np.float32) if total is None else total
    parallel_for(
        _quotients, rows.shape[0], threads_for(threads, 4 * e.size), rows, sums, divide, y.reshape(rows.shape)
    )
    return y


def relu(x: F32, rule: int, threads: int) -> F32:
    """x where x > 0, and elsewhere by the rule.

    KEEPS: x where x >= 0 (so -0 stays) or NaN, else +0. DROPS: +0, for NaN too. SCALES: x * 0, so -0 below
    zero, and NaN for -inf.
    """
    y = empty(x.shape, np.float32)
    flat = np.ascontiguousarray(x).reshape(-1)
    parallel_for(_relu, -(-x.size // GRAIN), threads_for(threads, x.size), flat, y.reshape(-1), rule)
    return y


def normalised(x: F32, mean: F32, inverse: F32, scale: F32, shift: F32, fused: bool, threads: int) -> F32:
    """((x - mean) * inverse) * scale + shift, one of each per channel, the last two steps as one if fused.

    x (n, c, ...).
    """
    y = empty(x.shape, np.float32)
    n, c = x.shape[:2]
    size = prod(x.shape[2:])
    rows = np.ascontiguousarray(x).reshape(n * c, size)
    work = n * c, threads_for(threads, x.size)
    tables = (readonly(one) for one in (mean, inverse, scale, shift))
    parallel_for(_normalised, *work, rows, *tables, fused, y.reshape(n * c, size))
    return y


def fused_multiply_add(a: F32, b: F32, c: F32) -> F32:
    """a * b + c with one rounding, element by element; all three (n,)."""
    y = np.empty_like(a)
    _fused(a, b, c, y)
    return y


def parts_sum(parts: F32, weights: F32 | None, from_zero: bool, threads: int) -> F32:
    """parts (n, radix, c, size), weights (n, radix, c) or none -> (n, c, size): the sum over radix.

    Each product is rounded and then added, left to right, from +0 or from the first.
    """
    n, _, c, size = parts.shape
    y = empty((n, c, size), np.float32)
    factors = np.zeros((n, 0, c), np.float32) if weights is None else weights
    parallel_for(_parts, n * c, threads_for(threads, parts.size), parts, factors, from_zero, y)
    return y


def max_pool(x: F32, geometry: PoolGeometry, rule: int, threads: int) -> F32:
    """The largest of each window of x (n, c, h, w), as loops/pool.py `max_pool_by` defines it for the rules
    "running" and "columns".
    """
    n, c, h, w = x.shape
    output = geometry.output
    planes = np.ascontiguousarray(x).reshape(n * c, h, w)
    if rule == RUNNING:  # plain's, but for NaN and windows without a number above -infinity
        y = pool.max_pool(x, geometry, threads)
        arrays = planes, y.reshape(n * c, *output)
        parallel_for(_run_again, n * c, threads_for(threads, y.size), *arrays, tuple(geometry))
        return y
    y = empty((n, c, *output), np.float32)
    threads = threads_for(threads, y.size * prod(geometry.kernel))
    parallel_for(_columns, n * c, threads, planes, y.reshape(n * c, *output), tuple(geometry))
    return y


@njit
def _sigmoid(work: Any, x: Any, y: Any, whose: int) -> None:
    one, zero = np.float32(1), np.float32(0)
    begin, end = chunk(work)
    while begin < end:
        v, z = x[begin * GRAIN : end * GRAIN], y[begin * GRAIN : end * GRAIN]
        if whose == SLEEF:
            for i in range(v.size):
                z[i] = one / (one + sleef.expf(zero - v[i]))
        elif whose == GLIBC:
            for i in range(v.size):
                z[i] = one / (one + glibc.expf(-v[i], True))
        elif whose == GLIBC_UNFUSED:
            for i in range(v.size):
                z[i] = one / (one + glibc.expf(-v[i], False))
        elif whose == ONEDNN:
            for i in range(v.size):
                z[i] = onednn.logistic(v[i], True)
        elif whose == ONEDNN_UNFUSED:
            for i in range(v.size):
                z[i] = onednn.logistic(v[i], False)
        else:
            for i in range(v.size):
                z[i] = mlas.logistic(v[i])
        begin, end = next_chunk(work)


@njit
def _shifted(work: Any, x: Any, y: Any, whose: int, lanes: int) -> None:
    tops = np.empty(AVX512, np.float32)
    begin, end = chunk(work)
    while begin < end:
        for row in range(begin, end):
            v, e = x[row], y[row]
            top = _top(v, whose)
            if whose in (ONEDNN, ONEDNN_UNFUSED) and top != top:  # noqa: PLR0124
                _lane_tops(v, lanes, tops)
                whole = v.size // lanes * lanes if lanes == SSE else v.size
                for i in range(v.size):
                    e[i] = v[i] - tops[i % lanes if i < whole else 0]
            else:
                for i in range(v.size):
                    e[i] = v[i] - top
        begin, end = next_chunk(work)


@njit
def _quotients(work: Any, e: Any, sums: Any, divide: bool, y: Any) -> None:
    begin, end = chunk(work)
    while begin < end:
        for row in range(begin, end):
            v, z = e[row], y[row]
            if sums.size:
                s = sums[row]
            else:
                s = v[0]
                for i in range(1, v.size):
                    s += v[i]
            if divide:
                for i in range(v.size):
                    z[i] = v[i] / s
            else:
                inverse = np.float32(1) / s
                for i in range(v.size):
                    z[i] = v[i] * inverse
        begin, end = next_chunk(work)


@njit
def _exponential(work: Any, y: Any, whose: int) -> None:
    begin, end = chunk(work)
    while begin < end:
        _powers(y[begin * GRAIN : end * GRAIN], whose)
        begin, end = next_chunk(work)


@njit
def _powers(e: Any, whose: int) -> None:
    """e[i] = exp(e[i])"""
    if whose == SLEEF:
        for i in range(e.size):
            e[i] = sleef.expf(e[i])
    elif whose == GLIBC:
        for i in range(e.size):
            e[i] = glibc.expf(e[i], True)
    elif whose == GLIBC_UNFUSED:
        for i in range(e.size):
            e[i] = glibc.expf(e[i], False)
    elif whose == ONEDNN:
        for i in range(e.size):
            e[i] = onednn.expf(e[i], True)
    elif whose == ONEDNN_UNFUSED:
        for i in range(e.size):
            e[i] = onednn.expf(e[i], False)
    elif whose == MLAS_512:
        for i in range(e.size):
            e[i] = mlas.expf(e[i], True)
    else:
        for i in range(e.size):
            e[i] = mlas.expf(e[i], False)


@njit
def _top(v: Any, whose: int) -> Any:
    """The largest element, NaN if there is one. oneDNN and MLAS begin with the lowest finite number."""
    top = v[0] if whose in (SLEEF, GLIBC, GLIBC_UNFUSED) else LOWEST
    for i in range(v.size):
        if v[i] > top or v[i] != v[i]:
            top = v[i]
            if v[i] != v[i]:
                break
    return top


@njit
def _lane_tops(v: Any, lanes: int, tops: Any) -> None:
    """oneDNN's largest element of a row with NaN, which differs from lane to lane."""
    tops[:lanes] = LOWEST
    whole = v.size // lanes * lanes
    for i in range(whole):
        tops[i % lanes] = largest(tops[i % lanes], v[i])
    # The rest: AVX-512 leaves the other lanes out, AVX2 compares them with the lowest number, and SSE4.1 has
    # the rest go through lane 0 one by one.
    for i in range(whole, v.size):
        lane = 0 if lanes == SSE else i - whole
        tops[lane] = largest(tops[lane], v[i])
        if lanes == SSE:
            for k in range(1, SSE):
                tops[k] = largest(tops[k], LOWEST)
    if lanes == AVX2 and whole < v.size:
        for k in range(v.size - whole, AVX2):
            tops[k] = largest(tops[k], LOWEST)
    step = lanes // 2
    other = np.empty(AVX512, np.float32)
    while step:
        for k in range(lanes):
            other[k] = tops[k]
        for k in range(lanes):
            tops[k] = largest(other[k], other[k ^ step])
        step //= 2


@njit
def _relu(work: Any, x: Any, y: Any, rule: int) -> None:
    zero = np.float32(0)
    begin, end = chunk(work)
    while begin < end:
        v, z = x[begin * GRAIN : end * GRAIN], y[begin * GRAIN : end * GRAIN]
        if rule == KEEPS:
            for i in range(v.size):
                z[i] = zero if v[i] < zero else v[i]
        elif rule == SCALES:
            for i in range(v.size):
                z[i] = v[i] if v[i] > zero else v[i] * zero
        else:
            for i in range(v.size):
                z[i] = v[i] if v[i] > zero else zero
        begin, end = next_chunk(work)


@njit
def _normalised(
    work: Any, x: Any, mean: Any, inverse: Any, scale: Any, shift: Any, fused: bool, y: Any
) -> None:
    begin, end = chunk(work)
    while begin < end:
        for row in range(begin, end):
            c = row % scale.size
            m, r, s, t = mean[c], inverse[c], scale[c], shift[c]
            v, z = x[row], y[row]
            if fused:
                for i in range(v.size):
                    z[i] = multiply_add((v[i] - m) * r, s, t, True)
            else:
                for i in range(v.size):
                    z[i] = multiply_add((v[i] - m) * r, s, t, False)
        begin, end = next_chunk(work)


@njit
def _fused(a: Any, b: Any, c: Any, y: Any) -> None:
    for i in range(y.size):
        y[i] = fma(a[i], b[i], c[i])


@njit
def _parts(work: Any, parts: Any, weights: Any, from_zero: bool, y: Any) -> None:
    radix, channels, size = parts.shape[1:]
    zero, one = np.float32(0), np.float32(1)
    weighted = weights.shape[1] > 0
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            n, c = item // channels, item % channels
            sums = y[n, c]
            for r in range(radix):
                w = weights[n, r, c] if weighted else one
                part = parts[n, r, c]
                if r == 0:
                    start = zero if from_zero else -zero  # -0 + x is x, the sign of a zero too
                    for i in range(size):
                        sums[i] = start + w * part[i]
                else:
                    for i in range(size):
                        sums[i] += w * part[i]
        begin, end = next_chunk(work)


@njit
def _run_again(work: Any, x: Any, y: Any, geometry: Any) -> None:
    """By the rule RUNNING, the elements of y that are NaN or -infinity."""
    (kh, kw), (sh, sw), (ph, pw) = geometry[:3]  # a PoolGeometry
    h, w = x.shape[1:]
    begin, end = chunk(work)
    while begin < end:
        for plane in range(begin, end):
            for i in range(y.shape[1]):
                row = y[plane, i]
                open_ = 0
                for j in range(row.size):
                    open_ += not row[j] >= LOWEST
                if open_ == 0:
                    continue
                for j in range(row.size):
                    if row[j] >= LOWEST:
                        continue
                    top, left = i * sh - ph, j * sw - pw
                    most = LOWEST
                    for p in range(max(top, 0), min(top + kh, h)):
                        for q in range(max(left, 0), min(left + kw, w)):
                            most = largest(x[plane, p, q], most)
                    row[j] = most
        begin, end = next_chunk(work)


@njit
def _columns(work: Any, x: Any, y: Any, geometry: Any) -> None:
    """The largest by the rule COLUMNS. Items: planes."""
    (kh, kw), (sh, sw), (ph, pw) = geometry[:3]  # a PoolGeometry
    h = x.shape[1]
    begin, end = chunk(work)
    while begin < end:
        for plane in range(begin, end):
            for i in range(y.shape[1]):
                top, bottom = max(i * sh - ph, 0), min(i * sh - ph + kh, h)
                for j in range(y.shape[2]):
                    left = j * sw - pw
                    most = _column(x[plane], top, bottom, left)
                    for q in range(left + 1, left + kw):
                        most = largest(most, _column(x[plane], top, bottom, q))
                    y[plane, i, j] = most
        begin, end = next_chunk(work)


@njit
def _column(x: Any, top: int, bottom: int, q: int) -> Any:
    """The largest of one column of a window, by the rule COLUMNS."""
    w = x.shape[1]
    if q < 0 or q >= w:
        return LOWEST
    most = x[top, q]
    for p in range(top + 1, bottom):
        most = largest(x[p, q], most) if q >= w - w % 4 else largest(most, x[p, q])
    return most
