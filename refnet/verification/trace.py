"""One output element of a node as exact arithmetic: which inputs it is made of, and its exact value.

    element ── Op.explain ── Terms: sums of products ── exact sum (integers) ── nearest float32
                       ├──── Terms: maxima and copies ── one of the inputs
                       └──── Derivation: roots, exponentials ── named steps, 40 digits

Sums share no arithmetic with the kernels. `refnet explain` shows an element, and `refnet verify` takes the
golden value of the worst one from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from refnet.core.element import Derivation, Index, Number, Step, Terms
from refnet.core.errors import InputError
from refnet.core.graph import Node
from refnet.core.op import F32, Op, TensorType
from refnet.exact.correct_rounding import rounded
from refnet.exact.engine import DecideOrRefine
from refnet.kernels.engine import Fast

EXACT = DecideOrRefine(Fast())


@dataclass(frozen=True)
class Element:
    """One output element. exact is None where inputs are NaN or infinite, or the op has no breakdown."""

    at: Index
    terms: Terms | None
    steps: tuple[Step, ...]
    exact: Number | None
    golden: np.float32


def element(node: Node, inputs: Sequence[F32], at: Index) -> Element:
    """The element `at` of a node's value, from its inputs: data first, then weights.

    Raises InputError if `at` is no place of the value.

    >>> from refnet import ops
    >>> x, w = np.float32([[1, 2]]), np.float32([[3, 4]])
    >>> one = element(Node("y", ops.Dense(1, bias=False), ("x", "w")), [x, w], (0, 0))
    >>> one.exact, one.golden
    (Fraction(11, 1), np.float32(11.0))
    """
    shape = node.op.type(*(TensorType(a.shape, a.dtype.name) for a in inputs)).shape
    if len(at) != len(shape) or not all(0 <= i < n for i, n in zip(at, shape, strict=True)):
        raise InputError(f"{node.name} is {list(shape)}: there is no element {list(at)}")
    return _element(node.op, inputs, at)


def exactly_at(node: Node, inputs: Sequence[F32], at: Index) -> np.float32:
    """The correctly rounded value of one element, from rational or decimal arithmetic."""
    return element(node, inputs, at).golden


def _element(op: Op, inputs: Sequence[F32], at: Index) -> Element:
    found = op.explain(*inputs, at=at, exact=EXACT)
    if isinstance(found, Derivation):
        steps = found.steps
        return Element(at, None, steps, steps[-1].exact if steps else None, found.golden)
    if found is None:
        return Element(at, None, (), None, _one(op, inputs, at))
    exact = _exact(found)
    if exact is None or op.exactly_specified:  # signed zeros, NaN and infinities are as IEEE makes them
        return Element(at, found, (), exact, _one(op, inputs, at))
    return Element(at, found, (), exact, rounded(exact))


def _one(op: Op, inputs: Sequence[F32], at: Index) -> np.float32:
    value: np.float32 = op.golden(*inputs, exact=EXACT)[at]
    return value


def _exact(found: Terms) -> Fraction | None:
    """The exact value of the terms; None if one is no number."""
    products = found.products
    bias = np.float64(0 if found.bias is None else found.bias)
    if not (np.isfinite(products).all() and np.isfinite(bias)):
        return None
    if found.how in ("max", "copy"):
        return Fraction(float(products.max())) if products.size else None
    return exact_sum(np.append(products, bias)) / found.divisor


def exact_sum(values: npt.NDArray[np.float64]) -> Fraction:
    """The sum of float64 that are products of two float32, exactly: as integers times 2**-400.

    >>> exact_sum(np.float64([1e30, 2.0**-149, -1e30])) == Fraction(1, 2**149)
    True
    """
    mantissa, exponent = np.frexp(values)
    whole = (mantissa * 2.0**53).astype(np.int64)
    shift = exponent.astype(np.int64) - 53 + 400  # a product is 2**-298 at least: its shift is above 0
    total = sum(int(m) << int(s) for m, s in zip(whole, shift, strict=True) if m)
    return Fraction(total, 1 << 400)
