"""Replay arithmetic: float32 in the very order in which a named framework build adds and multiplies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from refnet.arithmetic.plain import check_threads
from refnet.core.errors import InputError
from refnet.core.op import F32, TensorType
from refnet.core.orders import (
    Book,
    Chain,
    Choice,
    Expr,
    Leaf,
    Order,
    Part,
    Program,
    Recipe,
    Region,
    check,
    signature,
)
from refnet.ops.attention import RadixSoftmax
from refnet.ops.conv import Conv
from refnet.ops.conv_add import ConvAdd
from refnet.ops.dense import Dense
from refnet.ops.pool import AvgPool, GlobalAvgPool
from refnet.ops.softmax import Softmax

if TYPE_CHECKING:
    from refnet.core.graph import Graph, Node
    from refnet.core.op import Op
    from refnet.kernels.epilogue import Chain as Steps
    from refnet.kernels.program import Registers, Window
    from refnet.kernels.segments import Segments

Shapes = tuple[tuple[int, ...], ...]
Places = npt.NDArray[np.int64]

FEW = 8
"""Elements of a region are computed one by one if they are less than this part of the output."""


@dataclass(frozen=True)
class Replay:
    """Every value by its recipe in a book. The book's bits, on any machine, without the framework.

    book: of one reference; `book.reference.threads` is the framework's number, `threads` here only says how
    many threads compute (None: all processors) and changes no bit. Ops with one right result need no
    recipe. Whatever else the book does not know, another batch or shape for example, is an InputError:
    nothing falls back to another arithmetic.
    """

    book: Book
    threads: int | None = None
    name = "replay"
    _plans: dict[int, tuple[Node, Shapes, Plan | None]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _graphs: dict[int, tuple[Graph, Graph]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_threads(self.threads)

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value. Raises InputError if the book has no recipe for it, saying why."""
        value = self.evaluate_or_none(node, *inputs)
        if value is None:
            raise InputError(missing(self.book, node, _types(inputs)))
        return value

    def evaluate_or_none(self, node: Node, *inputs: F32) -> F32 | None:
        """The node's value, or None if it needs a recipe and the book has none."""
        from refnet.kernels.resources import processors

        threads = self.threads or processors()
        shapes = tuple(x.shape for x in inputs)
        last = self._plans.get(id(node))
        if last is None or last[0] is not node or last[1] != shapes:
            last = self._plans[id(node)] = (node, shapes, plan(self.book, node, _types(inputs)))
        known = last[2]
        if known is not None:
            return follow(known, node.op, inputs, threads)
        return None if node.op.needs_recipe else node.op.run(*inputs, threads=threads)

    def executed(self, graph: Graph) -> Graph:
        """The graph as the book's executor computes it: where that joins nodes, it has fewer of them.

        Raises InputError if the book joins nodes that this graph does not have.
        """
        if self.book.joined is None:
            return graph
        from refnet.arithmetic.fusion_groups import joined

        known = self._graphs.get(id(graph))
        if known is None or known[0] is not graph:
            known = self._graphs[id(graph)] = (graph, joined(graph, self.book.joined))
        return known[1]

    def fuse(self, nodes: Sequence[Node], keep: Collection[str]) -> tuple[Node, ...]:
        """The nodes as they are."""
        return tuple(nodes)


def _types(inputs: Sequence[F32]) -> tuple[TensorType, ...]:
    return tuple(TensorType(x.shape) for x in inputs)


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
class Plan:
    """What to do everywhere, then what to do at some places of the output (flat indices)."""

    everywhere: Program | Choice
    exceptions: tuple[tuple[Program | Choice, Places], ...]


def plan(book: Book, node: Node, types: tuple[TensorType, ...]) -> Plan | None:
    """The plan of a node with inputs of these types, checked against the op; None if there is no recipe.

    Raises InputError if the recipe does not fit the op: a book that was made up, or of another refnet.
    """
    key = book.key(node.name, signature(node.op, types))
    if key is None:
        return None
    recipe = book.recipes[key]
    try:
        for part in recipe.parts:
            _check_part(part, node.op, types)
        return Plan(recipe.parts[-1].do, _exceptions(recipe, node.op.type(*types).shape))
    except InputError as error:
        raise InputError(f"the recipe of {node.name} = {key} does not fit: {error}") from None


def _check_part(part: Part, op: Op, types: tuple[TensorType, ...]) -> None:
    if isinstance(part.do, Program):
        terms = terms_of(op, types)
        if terms is None:
            raise InputError(f"{type(op).__name__} is no reduction")
        product = op.conv if isinstance(op, ConvAdd) else op
        biased = bool(getattr(product, "bias", False))
        check(part.do.expr, terms, bias=biased, addend=isinstance(op, ConvAdd))
        pool = isinstance(op, AvgPool | GlobalAvgPool)
        if pool != (part.do.finish != "none"):
            raise InputError(f"{type(op).__name__} cannot finish with {part.do.finish!r}")
        if part.do.padding == "zero" and isinstance(op, GlobalAvgPool):
            raise InputError("GlobalAvgPool has no padding")
        return
    if part.do.formula not in op.formulas:
        known = ", ".join(op.formulas) or "none"
        raise InputError(f"{type(op).__name__} has no formula {part.do.formula!r}; it has {known}")
    if part.do.total is not None:
        if (terms := _row(op, types)) is None:
            raise InputError(f"{type(op).__name__} has no sum of its own")
        check(part.do.total, terms, bias=False, addend=False)


def _row(op: Op, types: Sequence[TensorType]) -> int | None:
    """How many exponentials a softmax adds; None for any other op."""
    if isinstance(op, Softmax):
        shape = types[0].shape
        return TensorType(shape[op.axis :]).size if op.trailing else shape[op.axis]
    return op.radix if isinstance(op, RadixSoftmax) and op.radix > 1 else None


def terms_of(op: Op, types: Sequence[TensorType]) -> int | None:
    """How many terms an element of this reduction has; None if the op is no reduction.

    >>> terms_of(AvgPool(kernel=(3, 3)), [TensorType((1, 8, 7, 7))])
    9
    """
    if isinstance(op, Conv | ConvAdd | Dense):
        return TensorType(types[1 + isinstance(op, ConvAdd)].shape[1:]).size
    if isinstance(op, AvgPool):
        return op.kernel[0] * op.kernel[1]
    return types[0].shape[2] * types[0].shape[3] if isinstance(op, GlobalAvgPool) else None


def _exceptions(recipe: Recipe, shape: tuple[int, ...]) -> tuple[tuple[Program | Choice, Places], ...]:
    """The parts with a region and the places that no part before them took."""
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


def holds(region: Region, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Per element of an output of this shape, in row order: whether the region holds it.

    >>> from refnet.core.orders import Box
    >>> holds((Box((("c", (1, 3, 1)), ("p", (0, 2, 1)))),), (1, 3, 2, 2)).astype(int)
    array([0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0])
    """
    size = TensorType(shape).size
    c, h, w = (*shape[1:], *([1] * (4 - len(shape))))[:3]
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


# From the tree of chains and sums to what the kernels take.


@lru_cache(maxsize=4096)
def registers(expr: Expr) -> Registers:
    """The expression in reverse Polish order, for kernels/program.py."""
    from refnet.kernels import program as kernel

    code: list[tuple[int, int, int]] = []
    order: list[int] = []

    def emit(expr: Expr) -> int:
        """Append the code of one expression; how deep the stack gets."""
        if isinstance(expr, Leaf):
            code.append((_seed(expr), 0, 0))
            return 1
        if isinstance(expr, Chain):
            depth = emit(expr.seed)
            terms = expr.terms.indices()
            code.append((kernel.CHAIN if expr.fused else kernel.ROUNDED, len(order), len(terms)))
            order.extend(terms)
            return depth
        depth = emit(expr.parts[0])
        for part in expr.parts[1:]:
            depth = max(depth, 1 + emit(part))
            code.append((kernel.ADD, 0, 0))
        return depth

    depth = emit(expr)
    return kernel.Registers(np.array(code, np.int64), np.array(order, np.int64), depth)


@lru_cache(maxsize=4096)
def segments(expr: Expr) -> Segments | None:
    """The expression as steps for kernels/segments.py; None if it is no sum of chains from left to right."""
    from refnet.kernels import tiles as kernel
    from refnet.kernels.segments import Segments

    found = _steps(expr)
    if found is None:
        return None
    order: list[int] = []
    steps = []
    for seed, terms, fused, adds in found:
        start = kernel.ON if seed is None else _seed(seed)
        steps.append((start, len(order), terms.size, fused, adds))
        order += terms.indices()
    return Segments(np.array(order, np.int64), np.array(steps, np.int64))


def _seed(leaf: Leaf) -> int:
    """The leaf as kernels number it."""
    from refnet.kernels import seeds

    names = {Leaf.ZERO: seeds.ZERO, Leaf.FIRST: seeds.NEGATIVE_ZERO, Leaf.BIAS: seeds.BIAS}
    return names.get(leaf, seeds.ADDEND)


def _steps(expr: Expr) -> list[tuple[Leaf | None, Order, bool, bool]] | None:
    """(seed or None for the sum so far, terms, fused, added to the sum so far), or None."""
    if isinstance(expr, Leaf):
        return [(expr, Order(()), True, False)]
    if isinstance(expr, Chain):
        if isinstance(expr.seed, Leaf):
            return [(expr.seed, expr.terms, expr.fused, False)]
        before = _steps(expr.seed)
        if before is not None:
            before.append((None, expr.terms, expr.fused, False))
        return before
    found = _steps(expr.parts[0])
    for part in expr.parts[1:]:
        more = _steps(part)
        if found is None or more is None or len(more) != 1:
            return None
        seed, terms, fused, _ = more[0]
        found.append((seed, terms, fused, True))
    return found


# Doing it.


def follow(known: Plan, op: Op, inputs: Sequence[F32], threads: int) -> F32:
    """The value of a node by its plan."""
    with np.errstate(all="ignore"):  # infinities and NaN are computed with, as in the frameworks
        value = _do(known.everywhere, op, inputs, None, threads)
        for do, places in known.exceptions:
            value.reshape(-1)[places] = _do(do, op, inputs, places, threads)
    return value


def _do(do: Program | Choice, op: Op, inputs: Sequence[F32], places: Places | None, threads: int) -> F32:
    """The whole value, or what stands at these places of it."""
    if isinstance(do, Choice):
        total = None if do.total is None else registers(do.total)
        value = op.replay(do.formula, *inputs, threads=threads, total=total)
    elif isinstance(op, Conv | ConvAdd | Dense):
        return _product(do, op, inputs, places, threads)
    elif isinstance(op, AvgPool | GlobalAvgPool):
        value = _average(do, op, inputs[0], threads)
    else:
        raise InputError(f"{type(op).__name__} is no reduction")
    return value if places is None else value.reshape(-1)[places]


def _product(
    program: Program,
    op: Conv | ConvAdd | Dense,
    inputs: Sequence[F32],
    places: Places | None,
    threads: int,
    steps: Steps | None = None,
) -> F32:
    """Convolution and dense. steps: pointwise steps that follow; only for the whole value."""
    from refnet.kernels.epilogue import Chain as Steps
    from refnet.kernels.epilogue import apply
    from refnet.kernels.program import dense_in_order, elements_in_order
    from refnet.kernels.segments import convolve_in_order

    shape, addend = op.type(*_types(inputs)).shape, None
    if isinstance(op, ConvAdd):
        op, addend, inputs = op.conv, inputs[1], (inputs[0], *inputs[2:])
    x, w, bias = inputs[0], inputs[1], inputs[2] if op.bias else None
    if isinstance(op, Dense):
        x = np.ascontiguousarray(x).reshape(x.shape[0], -1, 1, 1)
    window = _window(op, (*shape, 1, 1)[2:4])
    zero = program.padding == "zero"
    code, chains = registers(program.expr), segments(program.expr)
    point = window.groups == 1 and x.shape[2:] == window.kernel == (1, 1) and window.pad == (0, 0)
    size = TensorType(shape).size
    if places is not None and (places.size * FEW < size or not (point or chains)):
        return elements_in_order(places, x, w, bias, window, zero, code, threads, addend)
    steps = Steps() if steps is None else steps
    if chains is not None and not point:
        value = convolve_in_order(x, w, bias, window, zero, chains, threads, steps, addend)
    else:
        if point:
            value = dense_in_order(x.reshape(x.shape[0], -1), w, bias, code, threads, addend)
        else:
            value = elements_in_order(np.arange(size), x, w, bias, window, zero, code, threads, addend)
        value = value.reshape(shape)
        value = apply(value, steps, threads) if steps.kinds else value
    return value if places is None else value.reshape(-1)[places]


def _window(op: Conv | Dense, size: Sequence[int]) -> Window:
    from refnet.kernels.program import Window

    place = (size[0], size[1])
    if isinstance(op, Dense):
        return Window((1, 1), (1, 1), (0, 0), (1, 1), 1, place)
    return Window(op.kernel, op.stride, op.pad, op.dilation, op.groups, place)


def _average(program: Program, op: AvgPool | GlobalAvgPool, x: F32, threads: int) -> F32:
    """Average pools: the sum in the program's order, and its division."""
    terms = terms_of(op, [TensorType(x.shape)]) or 0
    if program.finish == "divide" and program.expr in _plain_sums(terms):
        return op.run(x, threads=threads)  # what was asked for is the plain order
    rows, columns = op.counts(x.shape)
    divisor = np.multiply.outer(rows, columns).astype(np.float32)
    if program.finish == "divide_terms":
        value = np.empty((*x.shape[:2], *divisor.shape), np.float32)
        for d in np.unique(divisor):
            held = divisor == d
            value[..., held] = _sums(program, op, x / d, threads)[..., held]
        return value
    value = _sums(program, op, x, threads)
    if program.finish == "divide":
        value /= divisor
    elif program.finish == "reciprocal":
        value *= np.float32(1) / divisor
    else:
        value /= columns.astype(np.float32)
        value /= rows.astype(np.float32)[:, None]
    return value


@lru_cache(maxsize=64)
def _plain_sums(terms: int) -> tuple[Expr, ...]:
    """The plain order of a pool, as written with and without FMA: with a weight of 1 it is the same."""
    return tuple(Chain(Leaf.ZERO, Order.of(range(terms)), fused) for fused in (True, False))


def _sums(program: Program, op: AvgPool | GlobalAvgPool, x: F32, threads: int) -> F32:
    """The sums of the windows (n, c, oh, ow), not yet divided."""
    from refnet.kernels.geometry import layout
    from refnet.kernels.program import Window, elements_in_order, row_sums
    from refnet.kernels.segments import convolve_in_order

    n, c, h, w = x.shape
    code, chains = registers(program.expr), segments(program.expr)
    if isinstance(op, GlobalAvgPool):
        return row_sums(np.ascontiguousarray(x).reshape(n * c, h * w), code, threads).reshape(n, c, 1, 1)
    shape, zero = op.type(TensorType(x.shape)).shape, program.padding == "zero"
    window = Window(op.kernel, op.stride, op.pad, op.dilation, c, (shape[2], shape[3]))
    place = ((c, 1, *op.kernel), op.stride, op.pad, op.dilation, c)
    if chains is not None and layout(x.shape, *place).output[2:] == window.size:  # else one overhangs
        ones = np.ones((c, 1, *op.kernel), np.float32)
        return convolve_in_order(x, ones, None, window, zero, chains, threads)
    places = np.arange(TensorType(shape).size)
    return elements_in_order(places, x, None, None, window, zero, code, threads).reshape(shape)
