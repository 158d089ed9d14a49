"""A book's recipes as what to do: made once per node and shape, checked against the op, and followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from refnet.core.engine import Engine, Places
from refnet.core.errors import InputError
from refnet.core.graph import Node
from refnet.core.op import F32, Op, Reduction, TensorType
from refnet.core.orders import Book, Choice, Part, Program, Recipe, Region, check, signature


def missing(book: Book, node: Node, types: Sequence[TensorType]) -> str:
    """Why a book cannot replay this node, in words."""
    reference = book.reference
    text = signature(node.op, types)
    said = f"the book of {reference.framework} {reference.version} has no recipe for {node.name} = {text}"
    reasons = [one.reason for one in book.unconfirmed if one.signature == text]
    if types and types[0].shape[0] != reference.batch:
        said += f"; it is true of batch {reference.batch}, this is batch {types[0].shape[0]}"
    elif reasons:
        said += f"; it is named there as unconfirmed: {reasons[0]}"
    return said


# What is made once per node and shape.


@dataclass(frozen=True, eq=False)
class NodeRecipe:
    """What to do for the whole output, then what to do at some of its places (flat indices)."""

    everywhere: Program | Choice
    exceptions: tuple[tuple[Program | Choice, Places], ...]


def node_recipe(book: Book, node: Node, types: tuple[TensorType, ...]) -> NodeRecipe | None:
    """The recipe of a node with inputs of these types, checked against the op; None if there is none.

    Raises InputError if the recipe does not fit the op: the book was altered, or made by another refnet.
    """
    key = book.key(node.name, signature(node.op, types))
    if key is None:
        return None
    recipe = book.recipes[key]
    try:
        for part in recipe.parts:
            _check_part(part, node.op, types)
        return NodeRecipe(recipe.parts[-1].do, _exceptions(recipe, node.op.type(*types).shape))
    except InputError as error:
        raise InputError(f"the recipe of {node.name} = {key} does not fit: {error}") from None


def _check_part(part: Part, op: Op, types: tuple[TensorType, ...]) -> None:
    if isinstance(part.do, Program):
        if not isinstance(op, Reduction):
            raise InputError(f"{type(op).__name__} is no reduction")
        check(part.do.expr, op.terms(*types), bias=op.biased(), addend=op.adds)
        if op.averages != (part.do.finish != "none"):
            raise InputError(f"{type(op).__name__} cannot finish with {part.do.finish!r}")
        if part.do.padding == "zero" and not op.pads:
            raise InputError(f"{type(op).__name__} has no padding")
        return
    if part.do.formula not in op.formulas:
        known = ", ".join(op.formulas) or "none"
        raise InputError(f"{type(op).__name__} has no formula {part.do.formula!r}; it has {known}")
    if part.do.total is not None:
        if (terms := op.total_terms(*types)) is None:
            raise InputError(f"{type(op).__name__} has no sum of its own")
        check(part.do.total, terms, bias=False, addend=False)


def _exceptions(recipe: Recipe, shape: tuple[int, ...]) -> tuple[tuple[Program | Choice, Places], ...]:
    """The parts that have a region, each with the places that no earlier part took."""
    found = []
    free = np.ones(TensorType(shape).size, np.bool_) if len(recipe.parts) > 1 else None
    for part in recipe.parts[:-1]:
        if part.where is None or free is None:
            raise InputError("only the last part holds all elements")
        held = free & holds(part.where, shape)
        free &= ~held
        if held.any():
            found.append((part.do, np.flatnonzero(held)))
    if recipe.parts[-1].where is not None:
        raise InputError("the last part must hold all elements")
    return tuple(found)


def box_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """(n, c, h, w) as boxes see an output of this shape.

    >>> box_shape((2, 5)), box_shape((2, 3, 4, 5, 6))
    ((2, 5, 1, 1), (2, 3, 20, 6))
    """
    if len(shape) > 4:
        return shape[0], shape[1], prod(shape[2:-1]), shape[-1]
    n, c, h, w = (*shape, *[1] * (4 - len(shape)))
    return n, c, h, w


def holds(region: Region, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Per element of an output of this shape, in row order: whether the region holds it.

    >>> from refnet.core.orders import Box
    >>> holds((Box((("c", (1, 3, 1)), ("p", (0, 2, 1)))),), (1, 3, 2, 2)).astype(int)
    array([0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0])
    """
    size = TensorType(shape).size
    _, c, h, w = box_shape(shape)
    e = np.arange(size)
    axes: dict[str, Callable[[], Places]] = {
        "e": lambda: e,
        "n": lambda: e // (c * h * w),
        "c": lambda: e // (h * w) % c,
        "y": lambda: e // w % h,
        "x": lambda: e % w,
        "p": lambda: e % (h * w),
        "m": lambda: e // (c * h * w) * (h * w) + e % (h * w),
    }
    found = np.zeros(size, np.bool_)
    for box in region:
        inside = np.ones(size, np.bool_)
        for axis, (start, stop, step) in box.ranges:
            at = axes[axis]()
            inside &= (at >= start) & (at < stop) & ((at - start) % step == 0)
        found |= inside
    return found


# Doing it.


def follow(known: NodeRecipe, op: Op, inputs: Sequence[F32], engine: Engine) -> F32:
    """The value of a node by its recipe."""
    with np.errstate(all="ignore"):  # infinities and NaN are computed with, as in the frameworks
        value = _do(known.everywhere, op, inputs, None, engine)
        for do, places in known.exceptions:
            value.reshape(-1)[places] = _do(do, op, inputs, places, engine)
    return value


def _do(do: Program | Choice, op: Op, inputs: Sequence[F32], places: Places | None, engine: Engine) -> F32:
    """The whole value, or its elements at these places."""
    if isinstance(do, Choice):
        value = op.replay(do.formula, *inputs, engine=engine, total=do.total)
        return value if places is None else value.reshape(-1)[places]
    if not isinstance(op, Reduction):
        raise InputError(f"{type(op).__name__} is no reduction")
    return op.in_order(do, *inputs, engine=engine, places=places)
