"""The stack program: sums in any order at all, with the bits of loops/orders.py, over vectors of outputs.

A program is a list of instructions on a stack of vectors, one lane per output element:

    ZERO           push +0
    NEGATIVE_ZERO  push -0, so the first product is kept unchanged, its sign included
    BIAS           push the bias
    ADDEND         push another value's element at the output's place
    CHAIN          top = fma(w, x, top) for `count` terms of the order from `at`
    ROUNDED        top = top + round(w * x) for these
    ADD            b = pop, a = pop, push a + b

It is the tree of chains and sums that it was made from, in reverse Polish order. Lanes run across outputs,
so the bits depend on the program only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.orders import Code
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.memory import empty
from refnet.kernels.resources import cached, readonly
from refnet.kernels.seeds import ADDEND, BIAS, NEGATIVE_ZERO
from refnet.kernels.simd import copy
from refnet.kernels.thread_pool import parallel_for, threads_for
from refnet.loops.fma import fma
from refnet.loops.jit import njit

Array = npt.NDArray[Any]
Pair = tuple[int, int]

CHAIN, ROUNDED, ADD = Code.CHAIN.value, Code.ROUNDED.value, Code.ADD.value

LANES = 32
"""Outputs side by side. A constant, so that the loops over them are straight vector code."""


@dataclass(frozen=True, eq=False)
class ProgramArrays:
    """code (instructions, 3): kind, first place in the order, count; order (terms,); depth of the stack."""

    code: Array
    order: Array
    depth: int

    @property
    def terms(self) -> int:
        """How many terms are added."""
        return int(self.order.size)


@dataclass(frozen=True)
class Window:
    """Where a reduction's terms lie: output (i, j) reads x from (i * stride - pad) on.

    kernel, stride, pad, dilation: (rows, columns). groups: of channels; pools have one per channel.
    size: (rows, columns) of the output.
    """

    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair
    groups: int
    size: Pair


def row_sums(x: Array, program: ProgramArrays, threads: int = 1) -> Array:
    """(rows,): the sum of each row of x (rows, terms) in the program's order; weights 1, no bias.

    With a weight of 1 a product is the term itself, so CHAIN and ROUNDED do the same.
    """
    rows, terms = x.shape
    _check(terms, program)
    y = empty((rows,), x.dtype)
    tiles = -(-rows // LANES)
    arrays = (readonly(np.ascontiguousarray(x)), program.order, program.code, program.depth, y)
    parallel_for(_rows, tiles, threads_for(threads, x.size), *arrays)
    return y


def dense_in_order(
    x: Array,
    w: Array,
    bias: Array | None,
    program: ProgramArrays,
    threads: int,
    addend: Array | None = None,
) -> Array:
    """(n, o): weights (o, terms), or (o, terms, 1, 1), times x (n, terms), each in the program's order.

    addend (n, o): where the program says.
    """
    _check(w[0].size, program)
    _check(x.shape[1], program)
    _check_addend(addend, program, x.shape[0] * w.shape[0])
    columns = cached((w,), ("columns", program), lambda: _tiles(w, program.order))
    y = empty((x.shape[0], w.shape[0]), x.dtype)
    data = (readonly(np.ascontiguousarray(x)), program.order)
    shift = np.zeros(w.shape[0], x.dtype) if bias is None else np.ascontiguousarray(bias)
    more = np.zeros((0, 0), x.dtype) if addend is None else np.ascontiguousarray(addend).reshape(y.shape)
    threads = threads_for(threads, x.shape[0] * w.size // 4)
    seeds = (readonly(shift), readonly(more))
    parallel_for(_columns, columns.shape[0], threads, data, columns, seeds, program.code, program.depth, y)
    return y


def elements_in_order(
    at: Array,
    x: Array,
    w: Array | None,
    bias: Array | None,
    window: Window,
    zero: bool,
    program: ProgramArrays,
    threads: int,
    addend: Array | None = None,
) -> Array:
    """The elements at the flat places `at` (count,) of the output (n, o, *window.size), each in order.

    x (n, c, h, w); w (o, c / groups, kh, kw), or (o, c), or None for a pool, whose weights are 1.
    zero: terms outside the image add w * (+0); otherwise they are left out. addend (n, o, *window.size):
    where the program says.
    """
    kh, kw = window.kernel
    channels = x.shape[1] // window.groups
    _check(channels * kh * kw, program)
    outputs = x.shape[1] if w is None else w.shape[0]
    _check_addend(addend, program, x.shape[0] * outputs * window.size[0] * window.size[1])
    if w is None:
        weights = np.ones((1, program.terms), x.dtype)
    else:
        weights = cached((w,), ("ordered", program), lambda: _ordered(w, program.order))
    c, place = np.divmod(program.order, kh * kw)
    p, q = np.divmod(place, kw)
    terms = np.stack([c, p * window.dilation[0], q * window.dilation[1]], 1).astype(np.int64)
    last = terms[:, 1:].max(0, initial=0)
    numbers = (*window.stride, *window.pad, window.groups, outputs, *window.size, zero, *last)
    where = np.array(numbers, np.int64)
    y = empty((at.size,), x.dtype)
    shift = np.zeros(outputs, x.dtype) if bias is None else np.ascontiguousarray(bias)
    more = np.zeros(0, x.dtype) if addend is None else np.ascontiguousarray(addend).reshape(-1)
    seeds = (readonly(shift), readonly(more))
    arrays = (readonly(np.ascontiguousarray(x)), weights, seeds, terms, where)
    items = -(-at.size // LANES)
    threads = threads_for(threads, at.size * program.terms)
    parallel_for(_elements, items, threads, at.astype(np.int64), *arrays, program.code, program.depth, y)
    return y


def _check(terms: int, program: ProgramArrays) -> None:
    """Check what the kernels do not check."""
    if terms != program.terms:
        raise ValueError(f"an order of {program.terms} terms does not fit {terms}")


def _check_addend(addend: Array | None, program: ProgramArrays, size: int) -> None:
    """Raise ValueError unless there is an addend of this size exactly if the program adds one."""
    if (program.code[:, 0] == ADDEND).any() != (addend is not None) or (
        addend is not None and addend.size != size
    ):
        found = "no addend" if addend is None else f"an addend of {addend.size} elements"
        raise ValueError(f"{found} does not fit the program and {size} outputs")


def _tiles(w: Array, order: Array) -> Array:
    """w (outputs, terms) as (tiles, terms in order, LANES): outputs side by side, zeros behind the last."""
    outputs, terms = w.shape[0], order.size
    tiles = -(-outputs // LANES)
    columns = np.zeros((tiles * LANES, terms), w.dtype)
    columns[:outputs] = _ordered(w, order)
    return np.ascontiguousarray(columns.reshape(tiles, LANES, terms).swapaxes(1, 2))


def _ordered(w: Array, order: Array) -> Array:
    """w (o, ...) as (o, terms), the terms in order."""
    return np.ascontiguousarray(w.reshape(w.shape[0], -1)[:, order])


@njit
def _leaf(kind: int, top: Any, bias: Any, addend: Any) -> None:
    """The vector that a leaf pushes."""
    if kind == ADDEND:
        bias = addend
    zero = top.dtype.type(0)
    for t in range(top.size):
        top[t] = bias[t] if kind >= BIAS else (-zero if kind == NEGATIVE_ZERO else zero)


@njit
def _columns(work: Any, data: Any, columns: Any, seeds: Any, code: Any, depth: int, y: Any) -> None:
    """Lanes across outputs; columns (tiles, terms, LANES) in order. Items: tiles.

    data: x (n, terms) and the order (terms,). seeds: bias (o,) and addend (n, o), or nothing.
    """
    x, order = data
    bias, addend = seeds
    ordered = np.empty(order.size, x.dtype)
    stack = np.empty((depth, LANES), x.dtype)
    shift, more = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            first = item * LANES
            some = min(LANES, y.shape[1] - first)
            copy(shift, 0, bias, first, some)
            for n in range(y.shape[0]):
                if addend.size:
                    copy(more, 0, addend[n], first, some)
                row = x[n]
                for k in range(order.size):
                    ordered[k] = row[order[k]]
                _run_columns(code, stack, ordered, columns[item], shift, more)
                copy(y[n], first, stack[0], 0, some)
        begin, end = next_chunk(work)


@njit
def _rows(work: Any, x: Any, order: Any, code: Any, depth: int, y: Any) -> None:
    """Lanes across rows of x (rows, terms). Items: LANES rows."""
    terms = order.size
    stack = np.empty((depth, LANES), x.dtype)
    columns = np.zeros((terms, LANES), x.dtype)
    ones, none, flat = np.ones(terms, x.dtype), np.zeros(LANES, x.dtype), x.reshape(-1)
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            first = item * LANES
            some = min(LANES, y.size - first)
            for k in range(terms):
                column, at = columns[k], first * terms + order[k]
                for t in range(some):
                    column[t] = flat[at + t * terms]
            _run_columns(code, stack, ones, columns, none, none)
            copy(y, first, stack[0], 0, some)
        begin, end = next_chunk(work)


@njit
def _run_columns(code: Any, stack: Any, x: Any, columns: Any, shift: Any, more: Any) -> None:
    """The program for one row x (terms,) and the outputs of columns (terms, lanes), both in order."""
    top = -1
    for i in range(code.shape[0]):
        kind, at, count = code[i, 0], code[i, 1], code[i, 2]
        if kind < CHAIN:
            top += 1
            _leaf(kind, stack[top], shift, more)
        elif kind == ADD:
            top -= 1
            _join(stack[top], stack[top + 1])
        else:
            sums = stack[top]
            for k in range(at, at + count):
                weights, value = columns[k], x[k]
                if kind == CHAIN:
                    for t in range(LANES):
                        sums[t] = fma(weights[t], value, sums[t])
                else:
                    for t in range(LANES):
                        sums[t] += weights[t] * value


@njit
def _join(below: Any, above: Any) -> None:
    """below += above: the two uppermost entries of the stack become one."""
    for t in range(below.size):
        below[t] += above[t]


@njit
def _elements(
    work: Any,
    places: Any,
    x: Any,
    w: Any,
    seeds: Any,
    terms: Any,
    where: Any,
    code: Any,
    depth: int,
    y: Any,
) -> None:
    """Lanes across any outputs; w (o or 1, terms) in order. Items: LANES of `places`."""
    low, wide = where[9], where[10]
    bias, addend = seeds
    stack = np.empty((depth, LANES), x.dtype)
    shift, more = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    lanes = np.zeros((4, LANES), np.int64)  # first row, first column, begin of the planes, row of weights
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            first = item * LANES
            some = min(LANES, y.size - first)
            for t in range(some):
                shift[t] = bias[_locate(places[first + t], t, lanes, x, w, where)]
                if addend.size:
                    more[t] = addend[places[first + t]]
            touches = False
            for t in range(some):
                top, left = lanes[0, t], lanes[1, t]
                outside = top < 0 or left < 0 or top + low >= x.shape[2] or left + wide >= x.shape[3]
                touches = touches or outside
            _run_elements(code, stack, x, w, terms, lanes, shift, more, some, touches, where[8])
            copy(y, first, stack[0], 0, some)
        begin, end = next_chunk(work)


@njit
def _locate(at: int, t: int, lanes: Any, x: Any, w: Any, where: Any) -> int:
    """Note where lane t, the output at the flat place `at`, finds its terms; its channel."""
    groups, outputs, width = where[4], where[5], where[7]
    size = where[6] * width
    image, output = at // size // outputs, at // size % outputs
    plane = image * x.shape[1] + output // (outputs // groups) * (x.shape[1] // groups)
    lanes[0, t] = at % size // width * where[0] - where[2]
    lanes[1, t] = at % width * where[1] - where[3]
    lanes[2, t] = plane * x.shape[2] * x.shape[3]
    lanes[3, t] = output if w.shape[0] > 1 else 0
    return int(output)


@njit
def _run_elements(
    code: Any,
    stack: Any,
    x: Any,
    w: Any,
    terms: Any,
    lanes: Any,
    shift: Any,
    more: Any,
    some: int,
    touches: bool,
    zero: int,
) -> None:
    """The program for up to LANES outputs; `touches` if any of their terms may lie outside the image."""
    rows, columns = x.shape[2:]
    flat = x.reshape(-1)
    top, left, base, row = lanes[0], lanes[1], lanes[2], lanes[3]
    weights, values = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    counts = np.ones(LANES, np.bool_)
    height = -1
    for i in range(code.shape[0]):
        kind, begin, count = code[i, 0], code[i, 1], code[i, 2]
        if kind < CHAIN:
            height += 1
            _leaf(kind, stack[height], shift, more)
            continue
        if kind == ADD:
            height -= 1
            _join(stack[height], stack[height + 1])
            continue
        sums = stack[height]
        for k in range(begin, begin + count):
            plane, p, q = terms[k, 0] * rows, terms[k, 1], terms[k, 2]
            for t in range(some):
                i0, j0 = top[t] + p, left[t] + q
                inside = not touches or (0 <= i0 < rows and 0 <= j0 < columns)
                values[t] = flat[base[t] + (plane + i0) * columns + j0] if inside else 0
                counts[t] = inside or zero
                weights[t] = w[row[t], k]
            for t in range(LANES):
                if kind == CHAIN:
                    added = fma(weights[t], values[t], sums[t])
                else:
                    added = sums[t] + weights[t] * values[t]
                sums[t] = added if counts[t] else sums[t]
