"""Outputs of narrow.py that show that the padding's zeros were multiplied: found, and computed again.

A product with the padding's zero changes a sum in two cases. The weight is not finite: the product is NaN. Or
the sum is -0 at that moment: -0 + +0 is +0. A chain that begins at +0 becomes -0 only if an FMA underflows,
which numbers of ordinary size exclude (`least_exact`). So a glance at the numbers that were read spares most
outputs that are zero, as every sum of a relu's zeros is, a closer look. What is
computed again is the sum of loops/conv.py, and of loops/orders.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.kernels.scans import any_nearer, any_zero
from refnet.kernels.seeds import ADDEND, BIAS, NEGATIVE_ZERO
from refnet.kernels.tiles import ADDED, BEGIN, COUNT, FUSED, ON, SEED
from refnet.loops.fma import fma
from refnet.loops.jit import njit

Array = npt.NDArray[Any]


def least_exact(w: Array) -> Array:
    """For each output of w (outputs, terms), finite, the least |x| with which no FMA underflows, (outputs,).

    A number is a multiple of 2^(e - m), with e its exponent and m the bits of a mantissa, so a product is a
    multiple of 2^(e + f - 2m). Every number is a multiple of the smallest one above 0. Where products are,
    too, so are exact sums: they are 0 or do not round to 0. The answer is 0 where all weights are 0: then
    every product is 0.

    >>> least_exact(np.float32([[1, -2], [0, 0], [3e-30, 1]])).tolist()
    [9.860761315262648e-32, 0.0, 0.0625]
    """
    info = np.finfo(w.dtype)
    sizes = np.abs(w)
    smallest = np.where(sizes > 0, sizes, np.inf).min(1, initial=np.inf)
    known = np.isfinite(smallest)
    exponents = np.frexp(np.where(known, smallest, 1))[1] - 1
    least = np.ldexp(np.ones(len(w), w.dtype), info.minexp + info.nmant - exponents)
    return np.where(known, least, 0).astype(w.dtype)


@njit
def _none_below(x: Any, least: Any) -> bool:
    """Whether no number of x is nearer to 0 than the largest of `least`, but for 0 itself."""
    bound = x.dtype.type(0)
    for o in range(least.size):
        bound = max(bound, least[o])
    return not any_nearer(x, 0, 1, x.size, 0, bound)


@njit
def again(
    x: Any,
    w: Any,
    terms: Any,
    least: Any,
    planes: Any,
    summation: Any,
    sums: Any,
    place: Any,
    geometry: Any,
    plan: Any,
    padding: Any,
) -> None:
    """Compute anew, one by one, the outputs that may show a product with the padding's zero.

    sums (groups, outputs, pitch). Those are outputs that see the padding, and are zero or have a weight that
    is not finite. No output of a group does if all weights are finite, the chains begin at +0, and no number
    that the group reads is below least (outputs,): see `least_exact`. planes (groups, channels,
    plan.channel): what it reads.
    """
    g = geometry
    if g.pad_h == 0 and g.pad_w == 0:
        return
    low = min(g.output_w, (g.pad_w + g.stride_w - 1) // g.stride_w)  # columns low to high see no padding
    inside = g.width + g.pad_w - (g.kernel_w - 1) * g.dilation_w
    high = max(low, min(g.output_w, (inside + g.stride_w - 1) // g.stride_w)) if inside > 0 else low
    positions = (place.rows - 1) * plan.pitch + g.output_w
    exact = False
    for o in range(place.groups * plan.per):
        output, at = place.group * plan.per + o, o // plan.per
        if o % plan.per == 0:
            read = planes[at * plan.depth * plan.channel : (at + 1) * plan.depth * plan.channel]
            exact = _none_below(read, least[output : output + plan.per])
        if exact and padding.finite and padding.from_zero:
            continue
        at = o // plan.per * place.held + o % plan.per * place.pitch
        if padding.finite and not any_zero(sums, at, 1, positions, 0, sums.dtype.type(0)):
            continue
        channel, weights = output // plan.per * plan.depth, w[output]
        for i in range(place.rows):
            top = (place.row + i) * g.stride_h - g.pad_h
            whole = top < 0 or top + (g.kernel_h - 1) * g.dilation_h >= g.height
            number = ((place.image * place.outputs + output) * g.output_h + place.row + i) * g.output_w
            for j in range(g.output_w):
                if (not whole and low <= j < high) or (padding.finite and sums[at + i * plan.pitch + j] != 0):
                    continue
                left = j * g.stride_w - g.pad_w
                sums[at + i * plan.pitch + j] = _alone(
                    x[place.image], weights, terms, summation, channel, output, number + j, top, left,
                    g.dilation_h, g.dilation_w,
                )  # fmt: skip


@njit
def _alone(
    x: Any,
    w: Any,
    terms: Any,
    summation: Any,
    channel: int,
    output: int,
    element: int,
    top: int,
    left: int,
    dilation_h: int,
    dilation_w: int,
) -> Any:
    """One output by the definition, its window in x (c, h, w) beginning at (top, left).

    w (terms,), in order. channel: the group's first. element: the output's number in the addend.
    """
    steps = summation.steps
    total = x.dtype.type(0)
    for s in range(steps.shape[0]):
        seed, fused = steps[s, SEED], steps[s, FUSED] != 0
        value = x.dtype.type(0)
        if seed == BIAS:
            value = summation.bias[output]
        elif seed == ADDEND:
            value = summation.addend[element]
        elif seed == NEGATIVE_ZERO:
            value = -value
        elif seed == ON:
            value = total
        for k in range(steps[s, BEGIN], steps[s, BEGIN] + steps[s, COUNT]):
            i, j = top + terms[k, 1] * dilation_h, left + terms[k, 2] * dilation_w
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                number = x[channel + terms[k, 0], i, j]
                if fused:
                    value = fma(w[k], number, value)
                else:
                    value += w[k] * number
        total = total + value if steps[s, ADDED] else value
    return total
