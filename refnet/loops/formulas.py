"""The frameworks' formulas by name; the functions of one number are in libm/."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from refnet.core.engine import F32
from refnet.loops.arrays import readonly
from refnet.loops.bits32 import largest, multiply_add
from refnet.loops.jit import njit
from refnet.loops.libm import glibc, mlas, onednn, sleef

LIBRARIES = ("sleef", "glibc", "glibc-unfused", "onednn", "onednn-unfused", "mlas-avx512", "mlas-avx2")
SLEEF, GLIBC, GLIBC_UNFUSED, ONEDNN, ONEDNN_UNFUSED, MLAS_AVX512, MLAS_AVX2 = range(7)
RULES = ("keeps", "drops", "scales")
KEEPS, DROPS, SCALES = range(3)
SSE, AVX2 = 4, 8
"""Lanes of float32 in a vector."""
LOWEST = np.float32(np.finfo(np.float32).min)


def sigmoid_by(x: F32, library: str) -> F32:
    """A library's sigmoid of each element: 1 / (1 + e) with its exp, or its logistic function."""
    y = np.empty(x.shape, np.float32)
    _sigmoid_by(readonly(x).reshape(-1), LIBRARIES.index(library), y.reshape(-1))
    return y


@njit
def _sigmoid_by(x: Any, library: int, y: Any) -> None:
    one = np.float32(1)
    for i in range(x.size):
        if library in (SLEEF, GLIBC, GLIBC_UNFUSED):
            y[i] = one / (one + _exp(-x[i], library))
        elif library in (ONEDNN, ONEDNN_UNFUSED):
            y[i] = onednn.logistic(x[i], library == ONEDNN)
        else:
            y[i] = mlas.logistic(x[i])


@njit
def _exp(x: Any, library: int) -> Any:
    """exp(x) of a library, for one float32."""
    if library == SLEEF:
        return sleef.expf(x)
    if library in (GLIBC, GLIBC_UNFUSED):
        return glibc.expf(x, library == GLIBC)
    if library in (ONEDNN, ONEDNN_UNFUSED):
        return onednn.expf(x, library == ONEDNN)
    return mlas.expf(x, library == MLAS_AVX512)


def exponential_by(x: F32, library: str) -> F32:
    """A library's exp of each element."""
    y = np.empty(x.shape, np.float32)
    _exponential_by(readonly(x).reshape(-1), LIBRARIES.index(library), y.reshape(-1))
    return y


@njit
def _exponential_by(x: Any, library: int, y: Any) -> None:
    for i in range(x.size):
        y[i] = _exp(x[i], library)


def exponentials(x: F32, library: str, lanes: int) -> F32:
    """exp(x - m) along the last axis, m the row's largest element as that library finds it."""
    y = np.empty(x.shape, np.float32)
    rows = readonly(x).reshape(-1, x.shape[-1])
    _exponentials(rows, LIBRARIES.index(library), lanes, y.reshape(rows.shape))
    return y


@njit
def _exponentials(x: Any, library: int, lanes: int, y: Any) -> None:
    for row in range(x.shape[0]):
        if library in (ONEDNN, ONEDNN_UNFUSED):
            _less_lane_tops(x[row], lanes, y[row])
        else:
            top = _top(x[row], x[row, 0] if library in (SLEEF, GLIBC, GLIBC_UNFUSED) else LOWEST)
            for i in range(x.shape[1]):
                y[row, i] = x[row, i] - top
        for i in range(x.shape[1]):
            y[row, i] = _exp(y[row, i], library)


@njit
def _top(x: Any, start: Any) -> Any:
    """The largest of `start` and the row x; NaN if there is one."""
    top = start
    for i in range(x.size):
        if x[i] > top or x[i] != x[i]:
            top = x[i]
    return top


@njit
def _less_lane_tops(x: Any, lanes: int, y: Any) -> None:
    """y = x - its largest element, for a row x, as oneDNN's vectors compute it."""
    tops = _lane_tops(x, lanes)
    whole = x.size - x.size % lanes
    for i in range(x.size):
        alone = lanes == SSE and i >= whole  # what fills no vector of SSE4.1 goes through lane 0, one by one
        y[i] = x[i] - tops[0 if alone else i % lanes]


@njit
def _lane_tops(x: Any, lanes: int) -> Any:
    """(lanes,): the row's largest element as oneDNN finds it, by MAXPS in each lane and then across lanes.

    In a row with NaN the lanes may differ, since MAXPS returns its second operand if either is NaN.
    """
    tops = np.full(lanes, LOWEST)
    whole = x.size - x.size % lanes
    for i in range(whole):
        tops[i % lanes] = largest(tops[i % lanes], x[i])
    for i in range(whole, x.size):
        lane = 0 if lanes == SSE else i - whole
        tops[lane] = largest(tops[lane], x[i])
    # What fills no vector: AVX-512 leaves the other lanes out; AVX2 and SSE4.1 load the lowest number there.
    if whole < x.size and lanes in (SSE, AVX2):
        for lane in range(1 if lanes == SSE else x.size - whole, lanes):
            tops[lane] = largest(tops[lane], LOWEST)
    distance = lanes // 2
    while distance:
        before = tops.copy()
        for lane in range(lanes):
            tops[lane] = largest(before[lane], before[lane ^ distance])
        distance //= 2
    return tops


def quotients(e: F32, total: F32 | None, divide: bool) -> F32:
    """e / s, or e * (1 / s), by rows (last axis). total (rows,): s; None: the row's e, left to right."""
    y = np.empty(e.shape, np.float32)
    rows = readonly(e).reshape(-1, e.shape[-1])
    if total is None:
        total = np.empty(rows.shape[0], np.float32)
        _sums(rows, total)
    _quotients(rows, readonly(total).reshape(-1), divide, y.reshape(rows.shape))
    return y


@njit
def _sums(e: Any, total: Any) -> None:
    for row in range(e.shape[0]):
        total[row] = e[row, 0]
        for i in range(1, e.shape[1]):
            total[row] += e[row, i]


@njit
def _quotients(e: Any, total: Any, divide: bool, y: Any) -> None:
    for row, i in np.ndindex(e.shape):
        if divide:
            y[row, i] = e[row, i] / total[row]
        else:
            y[row, i] = e[row, i] * (np.float32(1) / total[row])


def relu_by(x: F32, rule: str) -> F32:
    """x where x > 0, and elsewhere by the rule.

    keeps: x where x >= 0 (so -0 stays) or NaN, else +0. drops: +0, for NaN too. scales: x * 0, so -0 below
    zero, and NaN for -inf.
    """
    y = np.empty(x.shape, np.float32)
    _relu_by(readonly(x).reshape(-1), RULES.index(rule), y.reshape(-1))
    return y


@njit
def _relu_by(x: Any, rule: int, y: Any) -> None:
    zero = np.float32(0)
    for i in range(x.size):
        if rule == KEEPS:
            y[i] = zero if x[i] < zero else x[i]
        elif rule == DROPS:
            y[i] = x[i] if x[i] > zero else zero
        else:
            y[i] = x[i] if x[i] > zero else x[i] * zero


def normalised(x: F32, mean: F32, inverse: F32, scale: F32, shift: F32, fused: bool) -> F32:
    """((x - mean) * inverse) * scale + shift, one of each per channel; fused: the last two are an FMA.

    x (n, c, ...). This is batch norm as frameworks compute it; ops/norm.py derives the four from its weights.
    """
    y = np.empty(x.shape, np.float32)
    rows = readonly(x).reshape(*x.shape[:2], prod(x.shape[2:]))
    m, r, s, t = (readonly(values) for values in (mean, inverse, scale, shift))
    _normalised(rows, m, r, s, t, fused, y.reshape(rows.shape))
    return y


@njit
def _normalised(x: Any, mean: Any, inverse: Any, scale: Any, shift: Any, fused: bool, y: Any) -> None:
    for n, c, i in np.ndindex(y.shape):
        centred = (x[n, c, i] - mean[c]) * inverse[c]
        y[n, c, i] = multiply_add(centred, scale[c], shift[c], fused)


def fused_multiply_add(a: F32, b: F32, c: F32) -> F32:
    """a * b + c with one rounding, element by element, all (n,)."""
    y = np.empty(a.shape, np.float32)
    _fused_multiply_add(readonly(a), readonly(b), readonly(c), y)
    return y


@njit
def _fused_multiply_add(a: Any, b: Any, c: Any, y: Any) -> None:
    for i in range(y.size):
        y[i] = multiply_add(a[i], b[i], c[i], True)
