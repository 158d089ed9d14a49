"""Sums in any order: the expressions of core/orders.py, one output element after another.

For each element the terms are fetched first, in plain order: weights w[k], data x[k], and whether term k
counts. Then the element's program runs; order[i] is the i-th term to add.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.core.engine import F32, ConvGeometry, Pair, Places
from refnet.core.orders import Code, Expr, stack_program
from refnet.loops.arrays import readonly
from refnet.loops.fma import fma
from refnet.loops.jit import njit


def conv_in_order(
    x: F32,
    w: F32 | None,
    bias: F32 | None,
    geometry: ConvGeometry,
    kernel: Pair,
    output: Pair,
    order: Expr,
    zero_padding: bool,
    addend: F32 | None = None,
    places: Places | None = None,
) -> F32:
    """x (n, c, h, w), w (o, c / groups, kh, kw) -> (n, o, *output), or its elements at the flat places.

    See core/engine.py. Raises ValueError if the order, the weights or the addend do not fit.
    """
    program, outputs = stack_program(order), x.shape[1] if w is None else w.shape[0]
    terms = x.shape[1] // geometry.groups * kernel[0] * kernel[1]
    weights = np.ones((outputs, terms), x.dtype) if w is None else w.reshape(outputs, -1)
    shape = (x.shape[0], outputs, *output)
    size = int(np.prod(shape))
    if terms != len(program.order) or terms != weights.shape[1] or outputs % geometry.groups:
        raise ValueError(f"an order of {len(program.order)} terms and weights {weights.shape} for {x.shape}")
    added = any(code == Code.ADDEND for code, _, _ in program.code)
    if added != (addend is not None) or (addend is not None and addend.size != size):
        raise ValueError(f"the addend does not fit the order and {size} outputs")
    if bias is None:
        bias = np.zeros(outputs, x.dtype)
    if addend is None:
        addend = np.zeros(size, x.dtype)
    at = np.arange(size) if places is None else places.astype(np.int64)
    y = np.empty(at.size, x.dtype)
    data = (readonly(x), readonly(weights), readonly(bias), readonly(addend).reshape(shape))
    code, steps = np.array(program.code, np.int64), np.array(program.order, np.int64)
    _elements(readonly(at), *data, geometry, kernel, zero_padding, code, steps, program.depth, y)
    return y if places is not None else y.reshape(shape)


def dense_in_order(
    x: F32,
    w: F32,
    bias: F32 | None,
    order: Expr,
    addend: F32 | None = None,
    places: Places | None = None,
) -> F32:
    """x (n, k), w (o, k) -> (n, o), or its elements at the flat places: a convolution of maps of 1 x 1."""
    window = (ConvGeometry(), (1, 1), (1, 1))
    y = conv_in_order(x[:, :, None, None], w, bias, *window, order, False, addend, places)
    return y if places is not None else y.reshape(x.shape[0], w.shape[0])


def row_sums(x: F32, order: Expr) -> F32:
    """x (rows, terms) -> (rows,): a dense layer of one output with weights 1, which change no term."""
    return dense_in_order(x, np.ones((1, x.shape[1]), x.dtype), None, order).reshape(-1)


@njit
def _elements(
    places: Any,
    x: Any,
    w: Any,
    bias: Any,
    addend: Any,
    geometry: Any,
    kernel: Any,
    zero_padding: bool,
    code: Any,
    order: Any,
    depth: int,
    y: Any,
) -> None:
    """y[i] = the element at places[i] of an output of the addend's shape; w (o, terms)."""
    _, outputs, rows, columns = addend.shape
    channels = x.shape[1] // geometry.groups
    stack = np.empty(depth, x.dtype)
    values, counts = np.empty(w.shape[1], x.dtype), np.empty(w.shape[1], np.bool_)
    for index in range(places.size):
        at = places[index]
        n, o, i, j = (
            at // (outputs * rows * columns),
            at // (rows * columns) % outputs,
            at // columns % rows,
            at % columns,
        )
        first = o // (outputs // geometry.groups) * channels  # of the channels that this group sees
        top, left = i * geometry.stride[0] - geometry.pad[0], j * geometry.stride[1] - geometry.pad[1]
        _fetch(x[n, first : first + channels], top, left, kernel, geometry.dilation, values, counts)
        if zero_padding:
            counts[:] = True  # the terms outside are w * (+0)
        y[index] = _run(code, order, stack, w[o], values, counts, bias[o], addend[n, o, i, j])


@njit
def _fetch(x: Any, top: int, left: int, kernel: Any, dilation: Any, values: Any, counts: Any) -> None:
    """The terms of the window that begins at (top, left) of x (c, h, w); outside it +0, not counted."""
    channels, height, width = x.shape
    k = 0
    for c in range(channels):
        for p in range(kernel[0]):
            for q in range(kernel[1]):
                row, column = top + p * dilation[0], left + q * dilation[1]
                counts[k] = 0 <= row < height and 0 <= column < width
                values[k] = x[c, row, column] if counts[k] else 0
                k += 1


@njit
def _run(code: Any, order: Any, stack: Any, w: Any, x: Any, counts: Any, bias: Any, addend: Any) -> Any:
    """The program's sum of w[k] * x[k] for one element, whose bias and addend are single numbers."""
    top = -1  # the stack's uppermost sum
    for instruction in range(code.shape[0]):
        what, at, count = code[instruction]
        if what == Code.ADD:
            stack[top - 1] = stack[top - 1] + stack[top]
            top -= 1
        elif what == Code.CHAIN:
            for k in order[at : at + count]:
                if counts[k]:
                    stack[top] = fma(w[k], x[k], stack[top])
        elif what == Code.ROUNDED:
            for k in order[at : at + count]:
                if counts[k]:
                    stack[top] = stack[top] + w[k] * x[k]  # two roundings: nothing here contracts them
        else:
            top += 1
            if what == Code.ZERO:
                stack[top] = 0.0
            elif what == Code.FIRST:
                stack[top] = -0.0
            else:
                stack[top] = bias if what == Code.BIAS else addend
    return stack[top]
