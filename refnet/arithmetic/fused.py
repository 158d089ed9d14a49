"""Runs of nodes computed in one pass over memory: no bit changes, only stores and loads are saved.

A convolution and the batch norms, additions and relus that follow it are computed tile by tile while the
tile is in the cache. So are pointwise runs without a convolution, which may start with a product. Values
that nobody asked for, and that only the next node of the run reads, are never stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from refnet.core.engine import ADD, NOTHING, Engine, Epilogue
from refnet.core.graph import Node
from refnet.core.op import F32, Fusable, Op


@dataclass(frozen=True, repr=False)
class Fused(Op):
    """y = the last of `ops`, each applied to the result of the one before

    Inputs: the data that the ops read besides the previous result, in order, then the weights of all ops,
    in order. The bits are those of the ops run one by one; a NaN may carry another payload.
    """

    ops: tuple[Fusable, ...]

    def weight_roles(self) -> tuple[str, ...]:
        return tuple(role for op in self.ops for role in op.weight_roles())

    @property
    def exactly_specified(self) -> bool:
        return all(op.exactly_specified for op in self.ops)

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        adds = sum(op.step == ADD for op in self.ops)
        return adds < 2 and self.ops[0].capturable_first(*inputs)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        count = len(inputs) - len(self.weight_roles())
        data, weights = inputs[:count], inputs[count:]
        first = self.ops[0]
        added = sum(op.step == ADD for op in self.ops)
        own, others = data[: count - added], data[count - added :]
        steps = self._steps(weights, engine).over(others)
        return first.run_first(steps, *own, *weights[: len(first.weight_roles())], engine=engine)

    def _steps(self, inputs: Sequence[F32], engine: Engine) -> Epilogue:
        """What the ops do to each value of the first one, without the arrays to add."""
        made, weights = NOTHING, iter(inputs)
        for op in self.ops:
            own = [next(weights) for _ in op.weight_roles()]
            made = op.add_step(made, *own, engine=engine)
        return made


def fuse(
    nodes: Sequence[Node],
    keep: Collection[str],
    usable: Callable[[Op], Fusable | None] | None = None,
    follows: Callable[[Sequence[Fusable], Fusable], bool] = lambda before, op: True,
    together: Callable[[tuple[Fusable, ...]], Op] = Fused,
) -> tuple[Node, ...]:
    """The nodes, where each run that one pass can compute is replaced by one node, named after its last.

    keep: values that must exist. A run starts at an op that `starts` a pass, and continues while its value
    is read only once, by an op that is a `step`. It has at most one addition. An op that no kernel computes
    whole when it is alone (a sum or product of two) is a run, too, since a pass does.

    usable: the op, if a run may have it (default: those that a pass of plain can have); follows: whether it
    may continue a run of those before; together: the op that computes a run.
    """
    reads = Counter(name for node in nodes for name in node.data)
    reader = {name: node for node in nodes for name in node.data}
    taken: set[str] = set()
    place: dict[str, Node] = {}  # name of a run's last node -> the run
    usable = usable or _fusable
    for node in nodes:
        first = usable(node.op)
        if node.name in taken or first is None or not first.starts:
            continue
        run, ops = [node], [first]
        while run[-1].name not in keep and reads[run[-1].name] == 1:
            following = reader[run[-1].name]
            op = usable(following.op)
            if op is None or not op.step or following.name in taken or not follows(ops, op):
                break
            if op.step == ADD and any(before.step == ADD for before in ops):
                break
            run.append(following)
            ops.append(op)
        if len(run) > 1 or not first.capturable():
            taken.update(member.name for member in run)
            place[run[-1].name] = _join(run, together(tuple(ops)))
    return tuple(place.get(n.name, n) for n in nodes if n.name in place or n.name not in taken)


def _fusable(op: Op) -> Fusable | None:
    """The op, if a pass can have it: what overrides `run` alone may do anything."""
    return op if isinstance(op, Fusable) and defined_with_run(op, "add_step") else None


def _join(run: Sequence[Node], op: Op) -> Node:
    data = list(run[0].data)
    for before, node in pairwise(run):
        data += [name for name in node.data if name != before.name]
    weights = [name for node in run for name in node.weights]
    return Node(run[-1].name, op, (*data, *weights))


def defined_with_run(op: Op, what: str) -> bool:
    """Whether the class that defines `run`, or a subclass, defines it too: another `run` may do anything."""
    return defined_with(op, "run", what)


def defined_with(op: Op, how: str, what: str) -> bool:
    """As defined_with_run, for the method `how`."""
    return next(what in vars(kind) for kind in type(op).__mro__ if what in vars(kind) or how in vars(kind))
