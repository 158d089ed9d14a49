"""Runs of nodes that are computed in one pass over memory: no bit changes, only stores and loads go.

A convolution, and the batch norms, additions and relus that follow it, are computed tile by tile while
the tile is in the cache; so are pointwise runs without a convolution, which may start with a product.
Only values that nobody asked for, and that only the next node of the run reads, are never stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import is_
from typing import TYPE_CHECKING

import numpy as np

from refnet.ops.base import F32, Op
from refnet.ops.conv import Conv
from refnet.ops.norm import BatchNorm
from refnet.ops.pointwise import Add, Mul, Relu

Call = Callable[[Sequence[F32]], F32]
"""What a run of nodes does with its data."""

if TYPE_CHECKING:
    from refnet.graph import Node
    from refnet.kernels.epilogue import Chain


@dataclass(frozen=True, repr=False, eq=False)  # what is kept for it is its own
class Fused(Op):
    """y = the last of `ops`, each applied to the result of the one before

    Inputs: the data that the ops read besides the result before them, in order, then the weights of
    all ops, in order. Bits: those of the ops one by one; a NaN may carry another payload.
    """

    ops: tuple[Op, ...]

    def weight_roles(self) -> tuple[str, ...]:
        return tuple(role for op in self.ops for role in op.weight_roles())

    @cached_property
    def _weights(self) -> int:
        return len(self.weight_roles())

    def run(self, *inputs: F32, threads: int = 1) -> F32:
        count = len(inputs) - self._weights
        data, weights = [np.ascontiguousarray(x) for x in inputs[:count]], inputs[count:]
        key = (threads, *[x.shape for x in data])
        if any(w.flags.writeable for w in weights):
            return self._bind(data, weights, threads)(data)
        known = self._bound.get(key)
        if known is None or not all(map(is_, known[0], weights)):
            known = self._bound[key] = weights, self._bind(data, weights, threads)
        return known[1](data)

    @cached_property
    def _bound(self) -> dict[tuple[object, ...], tuple[Sequence[F32], Call]]:
        """By the threads and the data's shapes: the weights, and what is done with them."""
        return {}

    def _bind(self, data: Sequence[F32], weights: Sequence[F32], threads: int) -> Call:
        """What is done with data of these shapes: all that does not depend on what is in it is made here."""
        from refnet.kernels.epilogue import apply, bind_rows
        from refnet.kernels.panel import bind

        chain = self._chain(weights)
        first, x = self.ops[0], data[0]
        if isinstance(first, Conv):
            place = (first.stride, first.pad, first.dilation, first.groups)
            convolve = bind(x.shape, weights[0], *place, threads, chain)
            return lambda data: convolve(data[0], data[1:])
        rows = bind_rows(x.shape, x.dtype, chain, threads)
        if not isinstance(first, Mul):
            return lambda data: rows(data[0], data[1:], None)
        if x.ndim == 4 and data[1].shape == (*x.shape[:2], 1, 1):  # takes no pass of its own
            return lambda data: rows(data[0], data[2:], data[1])
        return lambda data: apply(Mul().run(*data[:2], threads=threads), chain.over(data[2:]), threads)

    def _chain(self, inputs: Sequence[F32]) -> Chain:
        """The steps after the convolution, or all, without the arrays to add."""
        from refnet.kernels.epilogue import Chain

        chain, weights = Chain(), iter(inputs)
        for op in self.ops:
            if isinstance(op, Conv):
                next(weights)
                chain = chain.bias(next(weights)) if op.bias else chain
            elif isinstance(op, BatchNorm):
                chain = chain.scale_shift(*op.folded(*(next(weights) for _ in op.weight_roles())))
            elif not isinstance(op, Mul):
                chain = chain.adding() if isinstance(op, Add) else chain.relu()
        return chain


def fuse(nodes: Sequence[Node], keep: Collection[str]) -> tuple[Node, ...]:
    """The nodes, with runs that may be computed in one pass replaced by one node named after the last.

    keep: values that must exist. A run starts at a convolution, product, batch norm, addition of two or
    relu, and goes on while its value is read once, by a batch norm, an addition of two or a relu.
    """
    from refnet.graph import Node

    reads = Counter(name for node in nodes for name in node.data)
    reader = {name: node for node in nodes for name in node.data}
    taken: set[str] = set()
    place: dict[str, Node] = {}  # name of a run's last node -> the run
    for node in nodes:
        if node.name in taken or not _begins(node.op):
            continue
        run = [node]
        while run[-1].name not in keep and reads[run[-1].name] == 1:
            following = reader[run[-1].name]
            joins = isinstance(following.op, BatchNorm | Relu) or following.op == Add(2)
            if not joins or following.name in taken:
                break
            run.append(following)
        if len(run) > 1 or isinstance(node.op, Conv):  # a convolution alone keeps what is made once, too
            taken.update(member.name for member in run)
            place[run[-1].name] = _join(run, Node)
    return tuple(place.get(n.name, n) for n in nodes if n.name in place or n.name not in taken)


def _begins(op: Op) -> bool:
    """Whether a run may start with this op."""
    if isinstance(op, Conv):
        return op.symmetric
    return isinstance(op, BatchNorm | Relu) or op in (Add(2), Mul())


def _join(run: Sequence[Node], make: type[Node]) -> Node:
    data = list(run[0].data)
    for before, node in pairwise(run):
        data += [name for name in node.data if name != before.name]
    weights = [name for node in run for name in node.weights]
    return make(run[-1].name, Fused(tuple(node.op for node in run)), (*data, *weights))
