"""Recipes and books, as data: in which order a framework adds, and which formula it evaluates.

    Book ── signature -> Recipe ── Part (where) ── Program (an Expr over the terms)   reductions
                                               └── Choice (a formula of the op's menu)  pointwise ops

A **reduction** (Conv, Dense, AvgPool, GlobalAvgPool) sums terms 0 .. T-1, and a bias if there is one, for
each output element. Term k is weight * x. The terms are numbered in plain order: for Conv channel in the
group, kernel row, kernel column, the last fastest; for Dense the input feature; for pools row, column, with
weight 1.

An **Expr** says how they are added in float32:

    Leaf.ZERO           +0
    Leaf.FIRST          start from -0, so the first product is kept unchanged, its sign included
    Leaf.BIAS           the bias of the output's channel
    Leaf.ADDEND         the addend's element at the output's place (ConvAdd)
    Chain(seed, order)  acc = seed; for each term in order: acc = fma(w, x, acc) where fused, else
                        acc = acc + round(w * x)
    Sum((a, b, c))      (a + b) + c: left to right

The two seeds differ only in the sign of a zero: with ZERO a product of -0 becomes +0, with FIRST it stays -0.
Lanes along the sum are chains of strided orders, joined by sums.

This file needs only the standard library; formats/book.py writes and reads books.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from refnet import __version__
from refnet.core.errors import InputError

if TYPE_CHECKING:
    from refnet.core.op import Op, TensorType

MOST_TERMS = 1 << 20
"""Most terms of a program; the networks here have at most 4608."""
DEEPEST = 64
"""Deepest nesting of chains and sums; a sum takes any number of parts, so trees of lanes are shallow."""
AXES = ("n", "c", "y", "x", "p", "m", "e")
"""See Box."""
PADDINGS = ("skip", "zero")
"""See Program."""
FINISHES = ("none", "divide", "reciprocal", "divide_w_h", "divide_terms")
"""See Program."""


class Leaf(Enum):
    """What a sum may start from; see the file's docstring."""

    ZERO = "zero"
    FIRST = "first"
    BIAS = "bias"
    ADDEND = "addend"


@dataclass(frozen=True)
class Order:
    """Terms in the order in which they are added: nested loops, one piece after another.

    A piece (start, count, step, count, step, ...) gives start + i * step + j * step + ..., the last loop
    fastest; (start,) is the one term.

    >>> Order(((0, 2, 8, 4, 1, 2, 4),)).indices()  # blocks of 2 channels, in them the 4 of a 2 x 2 kernel
    [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    >>> Order(((3, 4, 8),)).indices()  # every 8th from 3
    [3, 11, 19, 27]
    """

    pieces: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """How many terms; counted without listing them."""
        total = 0
        for piece in self.pieces:
            count = 1
            for n in piece[1::2]:
                count *= n
            total += count
        return total

    def indices(self) -> list[int]:
        """The terms, one by one. Raises InputError for more than MOST_TERMS."""
        if self.size > MOST_TERMS:
            raise InputError(f"an order has {self.size} terms, more than {MOST_TERMS}")
        found: list[int] = []
        for start, *loops in self.pieces:
            part = [start]
            for count, step in zip(loops[::2], loops[1::2], strict=True):
                part = [at + i * step for at in part for i in range(count)]
            found += part
        return found

    @staticmethod
    def of(terms: Sequence[int]) -> Order:
        """The order of these terms, as short as its regularity allows; the same terms give the same order.

        >>> Order.of([0, 9, 1, 10, 2, 11, 18, 27, 19, 28, 20, 29])
        Order(pieces=((0, 2, 18, 3, 1, 2, 9),))
        >>> Order.of(range(128, 256))
        Order(pieces=((128, 128, 1),))
        """
        pieces, at = [], 0
        while at < len(terms):
            size, loops = 1, []
            while at + size < len(terms):
                step = terms[at + size] - terms[at]
                count = _repeats(terms, at, size, step)
                if count < 2:
                    break
                loops.append((count, step))
                size *= count
            piece = [terms[at]]
            for loop in reversed(loops):
                piece += loop
            pieces.append(tuple(piece))
            at += size
        return Order(tuple(pieces))


def _repeats(terms: Sequence[int], at: int, size: int, step: int) -> int:
    """How often the `size` terms from `at` are repeated, each time `step` higher."""
    count = 1
    while at + (count + 1) * size <= len(terms) and all(
        terms[at + count * size + i] == terms[at + i] + count * step for i in range(size)
    ):
        count += 1
    return count


@dataclass(frozen=True)
class Chain:
    """acc = seed, then each term in order: fma(w, x, acc) if fused, else acc + round(w * x)."""

    seed: Expr
    terms: Order
    fused: bool = True

    @cached_property
    def _hash(self) -> int:
        return hash((self.seed, self.terms, self.fused))

    def __hash__(self) -> int:  # of a tree with hundreds of chains, asked for at each evaluation
        return self._hash


@dataclass(frozen=True)
class Sum:
    """The parts added from left to right; at least two."""

    parts: tuple[Expr, ...]

    @cached_property
    def _hash(self) -> int:
        return hash(self.parts)

    def __hash__(self) -> int:
        return self._hash


Expr = Leaf | Chain | Sum


@dataclass(frozen=True)
class Program:
    """How a reduction's elements are computed.

    padding: what happens to terms outside the image. `skip` leaves them out, as in direct convolution; `zero`
    adds weight * (+0), as after im2col (they differ for NaN or infinite weights, and for a sum of -0).
    finish: how a pool divides the sum, d being the divisor of the op's docstring:
    `divide` sum / d; `reciprocal` sum * float32(1 / d); `divide_w_h` (sum / w) / h with the window's
    columns and rows; `divide_terms` each term is x / d; `none` for Conv and Dense.
    """

    expr: Expr
    padding: str = "skip"
    finish: str = "none"


@dataclass(frozen=True)
class Choice:
    """One of the op's formulas (`op.formulas`) and, if it sums along an axis, the order of that sum."""

    formula: str
    total: Expr | None = None


@dataclass(frozen=True)
class Box:
    """Output elements whose coordinates lie in ranges: axis -> (start, stop, step), other axes free.

    Axes: n image, c channel, y row, x column, p = y * width + x, m = n * positions + p (a row of a matrix
    product that takes the whole batch), e = the element's index in row order. In rank 2, y = x = 0.
    """

    ranges: tuple[tuple[str, tuple[int, int, int]], ...]


Region = tuple[Box, ...]
"""The elements that lie in any of the boxes."""


@dataclass(frozen=True)
class Part:
    """What is done for the elements of a region (where); None: for all elements."""

    do: Program | Choice
    where: Region | None = None


@dataclass(frozen=True)
class Recipe:
    """Each output element is computed by the first part that holds it. Only the last part holds all."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Reference:
    """What a book is valid for. Without it, "identical to PyTorch" means nothing.

    build: distinguishes builds of one version (a wheel's tag, the libraries in it). isa: the instruction
    set that ran. mode: how the framework executed (eager; executor with internals exposed; ...).
    flags: environment variables and switches that were set. libc, vendor: the C library and the processor's
    vendor, on which exp and the choices of MKL and oneDNN depend; "" where it is not said.
    """

    framework: str
    version: str
    build: str
    isa: str
    threads: int
    batch: int
    mode: str
    flags: Mapping[str, str] = field(default_factory=dict)
    libc: str = ""
    vendor: str = ""


@dataclass(frozen=True)
class Evidence:
    """What confirmed a recipe: the number of captures and of elements, all of which had equal bits."""

    captures: int
    elements: int


@dataclass(frozen=True)
class Unconfirmed:
    """A signature without a recipe, its nodes, and what was tried."""

    signature: str
    nodes: tuple[str, ...]
    reason: str


FOLDS: Mapping[str, str] = {
    "double": "a = float32(gamma / sqrt(double(var) + eps)); weight * a; beta + a * (bias - mean) (MXNet)",
    "double-fused": "as double, with beta + a * (bias - mean) as one FMA",
    "single": "a = gamma / sqrt(var + float32(eps)), each step in float32; then as double",
    "reciprocal": "a = gamma * (1 / sqrt(var + float32(eps))), each step in float32; then as double",
}
"""The ways to fold a batch norm into the weights before it, in float32 unless stated otherwise."""


@dataclass(frozen=True)
class Joined:
    """Nodes that an executor computes as one, as MXNet's default does; only the last one's value is visible.

    groups: per group the names of a convolution or dense layer and of the nodes after it, in order. fold: how
    a batch norm in a group is folded into the weights (one of FOLDS); "" if there is none.
    """

    groups: tuple[tuple[str, ...], ...]
    fold: str = ""


@dataclass(frozen=True)
class Book:
    """The recipes of one reference.

    recipes: key -> Recipe. A key is a signature. If nodes of one signature differ (by the memory layout in
    MXNet's graph), a blank, "#" and a word follow; `nodes` lists the nodes of such keys.
    joined: the nodes that the executor joins; the recipes are for the graph after joining.
    evidence: key -> Evidence.

    >>> Book(Reference("torch", "2.13.0", "", "AVX2", 1, 1, "eager"), {}).reference.framework
    'torch'
    """

    reference: Reference
    recipes: Mapping[str, Recipe]
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    unconfirmed: tuple[Unconfirmed, ...] = ()
    nodes: Mapping[str, str] = field(default_factory=dict)
    joined: Joined | None = None
    written_by: str = f"refnet {__version__}"

    def key(self, node: str, signature: str) -> str | None:
        """The key of a node's recipe; None if the book has none for it."""
        key = self.nodes.get(node, signature)
        fits = key == signature or key.startswith(f"{signature} #")
        return key if fits and key in self.recipes else None


def signature(op: Op, inputs: Sequence[TensorType]) -> str:
    """The key of a recipe: the op with its attributes, and the types of its inputs and weights.

    >>> from refnet.ops import Conv
    >>> from refnet.core.op import TensorType
    >>> op = Conv(channels=8, kernel=(1, 1))
    >>> signature(op, [TensorType((1, 4, 7, 7)), TensorType((8, 4, 1, 1))])
    'Conv(channels=8, kernel=(1, 1))(float32[1, 4, 7, 7], float32[8, 4, 1, 1])'
    """
    return f"{op!r}({', '.join(map(repr, inputs))})"


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all in it, outermost first."""
    yield expr
    if isinstance(expr, Chain):
        yield from walk(expr.seed)
    elif isinstance(expr, Sum):
        for part in expr.parts:
            yield from walk(part)


def check(expr: Expr, terms: int | None = None, bias: bool | None = None, addend: bool | None = None) -> int:
    """The number of terms, after checking that each is added exactly once.

    terms: the required number. bias, addend: whether there must be one (None: either).
    Raises InputError, which says what is wrong.

    >>> check(Sum((Chain(Leaf.ZERO, Order.of(range(4))), Leaf.BIAS)), 4, bias=True)
    4
    """
    if (deep := _depth(expr)) > DEEPEST:
        raise InputError(f"chains and sums within one another: {deep} deep, more than {DEEPEST}")
    orders = [e.terms for e in walk(expr) if isinstance(e, Chain)]
    total = sum(order.size for order in orders)
    if terms is not None and total != terms:
        raise InputError(f"{total} terms are added, there are {terms}")
    if not 1 <= total <= MOST_TERMS:
        raise InputError(f"{total} terms are added; 1 to {MOST_TERMS} can be")
    if any(isinstance(e, Sum) and len(e.parts) < 2 for e in walk(expr)):
        raise InputError("a sum of less than two parts")
    seen = bytearray(total)
    for order in orders:
        for k in order.indices():
            if not 0 <= k < total or seen[k]:
                what = "twice" if 0 <= k < total else f"though there are {total}"
                raise InputError(f"term {k} is added {what}")
            seen[k] = 1
    for leaf, wanted in ((Leaf.BIAS, bias), (Leaf.ADDEND, addend)):
        count = sum(e is leaf for e in walk(expr))
        if count > 1 or (wanted is not None and count != wanted):
            raise InputError(
                f"the {leaf.value} is added {count} times, must be {'once' if wanted else 'never'}"
            )
    return total


def _depth(expr: Expr) -> int:
    """How deeply chains and sums are nested; computed without recursion, which could exhaust the stack."""
    deepest, todo = 0, [(expr, 1)]
    while todo:
        one, depth = todo.pop()
        deepest = max(deepest, depth)
        if isinstance(one, Chain):
            todo.append((one.seed, depth + 1))
        elif isinstance(one, Sum):
            todo += [(part, depth + 1) for part in one.parts]
    return deepest


# The same as a list of instructions, which is what loops can follow.


class Code(IntEnum):
    """What an instruction of a StackProgram does; (code, at, count) are its three numbers."""

    ZERO = 0
    """Push +0."""
    FIRST = 1
    """Push -0, so the first term is kept unchanged, its sign included: -0 + a is a for every a."""
    BIAS = 2
    """Push the bias of the output's channel."""
    ADDEND = 3
    """Push the addend's element at the output's place."""
    CHAIN = 4
    """top = fma(w, x, top) for the `count` terms of the order from `at` on."""
    ROUNDED = 5
    """top = top + round(w * x) for these."""
    ADD = 6
    """b = pop, a = pop, push a + b."""


@dataclass(frozen=True)
class StackProgram:
    """An expression in reverse Polish order: instructions for a stack of sums; one sum is left at the end.

    code: (Code, at, count) per instruction. order: the terms that CHAIN and ROUNDED refer to. depth: the most
    sums on the stack.
    """

    code: tuple[tuple[int, int, int], ...]
    order: tuple[int, ...]
    depth: int


@lru_cache(maxsize=4096)
def stack_program(expr: Expr) -> StackProgram:
    """The expression as a program. Raises InputError if it lists more than MOST_TERMS.

    >>> program = stack_program(Sum((Chain(Leaf.ZERO, Order.of((2, 0, 1))), Leaf.BIAS)))
    >>> [(Code(code).name, at, count) for code, at, count in program.code]
    [('ZERO', 0, 0), ('CHAIN', 0, 3), ('BIAS', 0, 0), ('ADD', 0, 0)]
    >>> program.order, program.depth
    ((2, 0, 1), 2)
    """
    code: list[tuple[int, int, int]] = []
    order: list[int] = []

    def push(expr: Expr) -> int:
        """Append the code that pushes one expression; how many sums it needs room for."""
        if isinstance(expr, Leaf):
            code.append((Code[expr.name].value, 0, 0))
            return 1
        if isinstance(expr, Chain):
            depth = push(expr.seed)
            terms = expr.terms.indices()
            code.append(((Code.CHAIN if expr.fused else Code.ROUNDED).value, len(order), len(terms)))
            order.extend(terms)
            return depth
        depth = push(expr.parts[0])
        for part in expr.parts[1:]:
            depth = max(depth, 1 + push(part))
            code.append((Code.ADD.value, 0, 0))
        return depth

    depth = push(expr)
    return StackProgram(tuple(code), tuple(order), depth)
