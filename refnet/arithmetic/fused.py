"""Runs of nodes computed in one pass over memory: no bit changes, only stores and loads are saved.

A convolution and the batch norms, additions and relus that follow it are computed tile by tile while the
tile is in the cache. So are pointwise runs without a convolution, which may start with a product. Values
that nobody asked for, and that only the next node of the run reads, are never stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from refnet.core.engine import NOTHING, Engine, Epilogue
from refnet.core.graph import Node
from refnet.core.op import F32, Op
from refnet.ops.conv import Conv
from refnet.ops.norm import BatchNorm
from refnet.ops.pointwise import Add, Mul, Relu


@dataclass(frozen=True, repr=False)
class Fused(Op):
    """y = the last of `ops`, each applied to the result of the one before

    Inputs: the data that the ops read besides the previous result, in order, then the weights of all ops,
    in order. The bits are those of the ops run one by one; a NaN may carry another payload.
    """

    ops: tuple[Op, ...]

    def weight_roles(self) -> tuple[str, ...]:
        return tuple(role for op in self.ops for role in op.weight_roles())

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        adds = sum(isinstance(op, Add) for op in self.ops)
        factor = not isinstance(self.ops[0], Mul) or _image(*inputs[:2]) is not None
        return adds < 2 and factor

    def run(self, *inputs: F32, engine: Engine) -> F32:
        count = len(inputs) - len(self.weight_roles())
        data, weights = inputs[:count], inputs[count:]
        epilogue = self._epilogue(weights, engine)
        first, x = self.ops[0], data[0]
        if isinstance(first, Conv):
            return engine.conv(x, weights[0], first.geometry, epilogue.over(data[1:]))
        if not isinstance(first, Mul):
            return engine.apply(x, epilogue.over(data[1:]))
        order = _image(x.shape, data[1].shape)
        if order is not None:  # the product takes no pass of its own
            x, factor = data[order], data[1 - order]
            return engine.apply(x, epilogue.over(data[2:]), factor)
        return engine.apply(Mul().run(*data[:2], engine=engine), epilogue.over(data[2:]))

    def _epilogue(self, inputs: Sequence[F32], engine: Engine) -> Epilogue:
        """The steps after the convolution, or all steps, without the arrays to add."""
        made, weights = NOTHING, iter(inputs)
        for op in self.ops:
            if isinstance(op, Conv):
                next(weights)
                made = made.bias(next(weights)) if op.bias else made
            elif isinstance(op, BatchNorm):
                own = (next(weights) for _ in op.weight_roles())
                made = made.scale_shift(*op.folded(engine, *own))
            elif not isinstance(op, Mul):
                made = made.adding() if isinstance(op, Add) else made.relu()
        return made


def _image(a: tuple[int, ...], b: tuple[int, ...]) -> int | None:
    """The one of a and b that is (n, c, h, w) while the other is (n, c, 1, 1); None if neither is."""
    for at, (image, factor) in enumerate(((a, b), (b, a))):
        if len(image) == 4 and factor == (*image[:2], 1, 1):
            return at
    return None


def fuse(nodes: Sequence[Node], keep: Collection[str]) -> tuple[Node, ...]:
    """The nodes, where each run that one pass can compute is replaced by one node, named after its last.

    keep: values that must exist. A run starts at a convolution, product, batch norm, addition of two or
    relu, and continues while its value is read only once, by a batch norm, an addition of two or a relu. It
    has at most one addition. A product or an addition alone is a run, too, since a kernel computes it.
    """
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
            adds = following.op == Add(2) and all(before.op != Add(2) for before in run)
            joins = type(following.op) in (BatchNorm, Relu) or adds
            if not joins or following.name in taken:
                break
            run.append(following)
        if len(run) > 1 or node.op in (Add(2), Mul()):
            taken.update(member.name for member in run)
            place[run[-1].name] = _join(run)
    return tuple(place.get(n.name, n) for n in nodes if n.name in place or n.name not in taken)


def _begins(op: Op) -> bool:
    """Whether a run may start with this op."""
    if type(op) is Conv:  # what is derived from it may do anything
        return op.symmetric
    return type(op) in (BatchNorm, Relu) or op in (Add(2), Mul())


def _join(run: Sequence[Node]) -> Node:
    data = list(run[0].data)
    for before, node in pairwise(run):
        data += [name for name in node.data if name != before.name]
    weights = [name for node in run for name in node.weights]
    return Node(run[-1].name, Fused(tuple(node.op for node in run)), (*data, *weights))
