"""ONNX's Einsum of one or two values: diagonals, a sum or a matrix product, and the order of the axes.

    one   diagonals -> ReduceSum -> Transpose
    two   diagonals -> Transpose, Reshape -> MatMul (Mul where nothing is summed) -> Reshape -> Transpose

The sum of products of two values may be added in any order, which MatMul's bound covers. An index that only
one of two values has and that is summed is refused: frameworks sum before or after the product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from refnet.formats.assembly import Made
from refnet.formats.onnx.use import Use
from refnet.ops import Identity, MatMul, Mul, Op, ReduceSum, Reshape, StridedSlice, Transpose

LONGEST = 1 << 10
"""Letters of an equation."""
Labels = tuple[str, ...]


@dataclass
class _Value:
    """A value with a label for each axis. made: the nodes of all values so far."""

    use: Use
    name: str
    labels: Labels
    sizes: dict[str, int]
    made: list[Made]

    def take(self, op: Op, labels: Labels, *others: str) -> None:
        """The value by an op, under a name of its own."""
        name = f"{self.use.node.outputs[0]}/einsum{len(self.made)}"
        while name in self.use.types or name in self.use.constants:
            name += "_"
        self.made.append(Made(name, op, (self.name, *others)))
        self.name, self.labels = name, labels

    def order(self, labels: Labels) -> None:
        """The axes in this order."""
        if labels != self.labels:
            self.take(Transpose(tuple(self.labels.index(one) for one in labels)), labels)

    def shape(self, *sizes: int) -> None:
        """Another shape of the same elements."""
        self.take(Reshape(sizes), self.labels)

    def diagonals(self) -> None:
        """One axis for each label: of two with one label, the elements with the same place in both."""
        while twice := [one for one in self.labels if self.labels.count(one) > 1]:
            label, n = twice[0], self.sizes[twice[0]]
            pair = [i for i, one in enumerate(self.labels) if one == label][:2]
            rest = [i for i in range(len(self.labels)) if i not in pair]
            labels = tuple(self.labels[i] for i in rest)
            self.take(Transpose((*rest, *pair)), (*labels, label, label))
            self.shape(*(self.sizes[one] for one in labels), n * n)
            self.take(StridedSlice((len(rest),), (0,), (n + 1,), (n,)), (*labels, label))

    def total(self, kept: Sequence[str]) -> None:
        """The sum over the labels that are not kept."""
        axes = tuple(i for i, one in enumerate(self.labels) if one not in kept)
        if axes:
            terms = None if 0 in axes else math.prod(self.sizes[self.labels[i]] for i in axes)
            self.take(ReduceSum(axes, False, terms), tuple(one for one in self.labels if one in kept))


def einsum(u: Use) -> list[Made]:
    """Einsum of one or two values."""
    equation = u["equation"].replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(equation) > LONGEST or len(terms) != len(u.node.inputs) or not all(u.node.inputs):
        raise u.node.wrong(f"equation {equation:.60}", f"{len(u.node.inputs)} terms")
    if len(terms) > 2:
        raise u.node.unsupported(f"{len(terms)} values; refnet multiplies two")
    shapes = [u.type(i).shape for i in range(len(terms))]
    labels = [_labels(u, one, len(shape)) for one, shape in zip(terms, shapes, strict=True)]
    sizes: dict[str, int] = {}
    for one, shape in zip(labels, shapes, strict=True):
        for label, n in zip(one, shape, strict=True):
            if sizes.setdefault(label, n) != n:
                raise u.node.unsupported(f"sizes {sizes[label]} and {n} of one index")
    every = [label for one in labels for label in one]
    once = sorted(label for label in {*every} if every.count(label) == 1 and label.isalpha())
    around = tuple(sorted({label for label in every if not label.isalpha()}, key=int))
    wanted = _labels(u, right, None, around) if arrow else (*around, *once)
    if len({*wanted}) < len(wanted) or not {*wanted} <= {*every}:
        raise u.node.wrong(f"equation {equation:.60}", "each index of the result once, from the terms")
    made: list[Made] = []
    values = [_Value(u, name, one, sizes, made) for name, one in zip(u.node.inputs, labels, strict=True)]
    for value in values:
        value.diagonals()
    first = values[0]
    if len(values) == 1:
        first.total(wanted)
    else:
        _product(u, first, values[1], wanted)
    first.order(wanted)
    if not made:
        return u.one(Identity())
    return [*made[:-1], Made(u.node.outputs[0], made[-1].op, made[-1].data)]


def _labels(u: Use, term: str, rank: int | None, around: Labels = ()) -> Labels:
    """The label of each axis; those of an ellipsis are numbers, counted from the last."""
    before, dots, behind = term.partition("...")
    if (not (before + behind).isalpha() and before + behind) or not (before + behind).isascii():
        raise u.node.wrong(f"{term:.60} in the equation", "letters and one ellipsis")
    if dots and rank is not None:
        count = rank - len(before) - len(behind)
        around = tuple(str(-k) for k in range(count, 0, -1))
    found = (*before, *(around if dots else ()), *behind)
    if rank is not None and len(found) != rank:
        raise u.node.wrong(f"{term:.60} in the equation", f"{rank} axes")
    return found


def _product(u: Use, a: _Value, b: _Value, wanted: Labels) -> None:
    """The product of both in the place of the first, summed over what both have and nobody wants."""
    both = [one for one in a.labels if one in b.labels]
    batch = tuple(one for one in both if one in wanted)
    inner = tuple(one for one in both if one not in wanted)
    rows = tuple(one for one in a.labels if one not in both)
    columns = tuple(one for one in b.labels if one not in both)
    if alone := [one for one in (*rows, *columns) if one not in wanted]:
        raise u.node.unsupported(f"index {alone[0]} of one value, summed: before or after the product")
    size = {one: a.sizes[one] for one in (*a.labels, *b.labels)}
    a.order((*batch, *rows, *inner))
    b.order((*batch, *inner, *columns))
    lead = tuple(size[one] for one in batch)
    m, n, k = (math.prod(size[one] for one in part) for part in (rows, columns, inner))
    if not inner:
        b.shape(*lead, *(1,) * len(rows), *(size[one] for one in columns))
        a.shape(*lead, *(size[one] for one in rows), *(1,) * len(columns))
    elif batch or rows or columns:
        a.shape(*lead, m, k)
        b.shape(*lead, k, n)
    else:
        a.shape(k)
        b.shape(k)
    a.take(MatMul() if inner else Mul(), (*batch, *rows, *columns), b.name)
    if inner and (batch or rows or columns):
        a.shape(*(size[one] for one in (*batch, *rows, *columns)))
