"""What a reader of graph files makes of each node, joined into one Graph for every batch.

A reader builds its nodes for the batches 1, 2 and 3 (`Building`, `typed`), since shapes in a file may depend
on the batch; `assembled` makes one graph of the three, in which a reshape copies or infers dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy.typing as npt

from refnet.core.errors import FormatError, GraphError, RefnetError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from refnet.formats.heads import with_outputs
from refnet.ops import Add, Constant, Op, Opaque, Reshape, TensorType
from refnet.ops.integers import KINDS

Array = npt.NDArray[Any]

BATCHES = (1, 2, 3)
LARGEST_VALUE = 2**31 - 1
"""Elements of a value or weight."""
LARGEST_NUMBER = 1 << 31
"""Of a dimension, stride, pad and the like."""


@dataclass(frozen=True)
class Made:
    """A node of refnet before its constants are told from its values. data may name constants."""

    name: str
    op: Op
    data: tuple[str, ...]
    weights: tuple[str, ...] = ()


class FileNode(Protocol):
    """A node of a file, for messages."""

    @property
    def title(self) -> str:
        """What names it."""

    def wrong(self, found: str, expected: str = "") -> FormatError:
        """A FormatError that names it."""

    def unsupported(self, what: str) -> UnsupportedError:
        """An UnsupportedError that names it."""


@dataclass
class Building:
    """The nodes for one batch. types: of values. constants: arrays by name. inputs: the graph's."""

    types: dict[str, TensorType]
    constants: Mapping[str, Array]
    inputs: dict[str, TensorType]
    made: list[Made] = field(default_factory=list)

    def type(self, name: str) -> TensorType:
        """The type of a value or constant."""
        return self.types[name] if name in self.types else type_of(self.constants[name])


def type_of(array: Array) -> TensorType:
    """The type of a constant."""
    return TensorType(array.shape, array.dtype.name)


def typed(node: FileNode, made: Made, building: Building) -> TensorType:
    """A node's type, after its constants and its shape have been checked."""
    for name in (*made.weights, *(n for n in made.data if n not in building.types)):
        if not name:
            raise node.wrong("an empty input")
        dtype = building.constants[name].dtype.name
        if dtype not in (KINDS if made.op.any_dtype else KINDS[:1]):
            raise node.unsupported(f"{name[:100]!r} is {dtype}, refnet's values are float32")
        if not building.constants[name].size:
            raise node.unsupported(f"{name[:100]!r} is empty")
    data = [building.type(name) for name in made.data]
    for name, one in zip(made.data, data, strict=True):
        if one.dtype != "float32" and not made.op.any_dtype:
            raise node.unsupported(f"{name[:100]!r} is {one.dtype}, this needs float32")
    weights = tuple(building.type(name) for name in made.weights)
    try:
        wanted = made.op.weight_types(*data)
        if wanted != weights:
            raise GraphError(f"weights are {list(weights)}, needed are {list(wanted)}")
        kind = made.op.type(*data, *weights)
    except GraphError as error:
        raise GraphError(f"{node.title}: {error}") from None
    if not 1 <= kind.size <= LARGEST_VALUE or len(kind.shape) > 32:
        raise node.wrong(f"{kind!r}", f"at most 32 dimensions, 1 to {LARGEST_VALUE} elements")
    return kind


def assembled(
    file: str,
    name: str,
    heads: Sequence[str],
    builds: Sequence[Building],
    rounded: Mapping[str, F32 | None] | None = None,
    returned: Mapping[str, str] | None = None,
) -> Graph:
    """One graph of what was built for each batch. file: for messages. heads: the outputs' values. rounded:
    constants that were computed, and rounded more than once, with how far others' may lie from them.
    returned: what the file's module calls its outputs, name -> value; those of them that are heads.

    A constant that stands where an op takes a value becomes a `Constant` node of its name, whose weight is
    called NAME/value. Raises UnsupportedError where the builds cannot be one graph.
    """
    first = builds[0]
    made = [_joined(file, builds, i) for i in range(len(first.made))]
    constants = first.constants
    weights = dict.fromkeys(name for m in made for name in m.weights)
    values = {*first.types}
    single = dict.fromkeys(name for m in made for name in m.data if name not in values)
    single.update(dict.fromkeys(name for name in heads if name not in values))
    taken = {*values, *weights, *single}
    names = {name: name for name in weights}
    nodes = []
    for value in single:
        own = f"{value}/value"
        while own in taken:
            own += "_"
        taken.add(own)
        names[value] = own
        kind = type_of(constants[value])
        nodes.append(Node(value, Constant(kind.shape, kind.dtype), (own,)))
    nodes += [Node(m.name, m.op, (*m.data, *(names[name] for name in m.weights))) for m in made]
    for build in builds[1:]:
        if changed := [
            name for name in names if constants[name].tobytes() != build.constants[name].tobytes()
        ]:
            raise UnsupportedError(f"{file}: the weight {changed[0][:100]!r} depends on the batch")
    kinds = {**first.types, **{name: type_of(constants[name]) for name in single}}
    if given := [name for name in heads if name in first.inputs]:
        heads = [name for name in heads if name not in given]
        what = f"{file}: the output {given[0][:100]!r} is an input, refnet's outputs are values"
        if not heads:
            raise UnsupportedError(what)
        logging.getLogger("refnet").warning("%s; it is left out", what)
    finished, outputs = with_outputs(nodes, heads, kinds, taken, returned or {})
    marked = {own: rounded[constant] for constant, own in names.items() if rounded and constant in rounded}
    graph = Graph(name, first.inputs, tuple(finished), outputs, rounded=marked)
    return graph.with_weights({own: constants[name] for name, own in names.items()})


def _joined(file: str, builds: Sequence[Building], i: int) -> Made:
    """Node i, as it is for every batch."""
    made = [build.made[i] for build in builds if i < len(build.made)]
    first = made[0]
    same = all((m.name, m.data, m.weights) == (first.name, first.data, first.weights) for m in made)
    if same and len(made) == len(builds):
        shapes = [b.type(m.data[0]).shape if m.data else () for m, b in zip(made, builds, strict=True)]
        op = merged([m.op for m in made], shapes, [b.types[first.name].shape for b in builds])
        if op is not None:
            return Made(first.name, op, first.data, first.weights)
    what = f"{first.name[:100]!r} depends on the batch in a way that refnet cannot say: {first.op!r}"
    raise UnsupportedError(f"{file}: {what}")


def merged(ops: list[Op], shapes: list[tuple[int, ...]], targets: list[tuple[int, ...]]) -> Op | None:
    """One op for several batches: the same, or a reshape or addition that fits all; None if there is none.

    shapes, targets: of the op's first input and of its value, per batch.
    """
    if all(op == ops[0] for op in ops):
        return ops[0]
    if all(isinstance(op, Add) for op in ops):
        wide = [Add(op.count, True, op.constants) for op in ops if isinstance(op, Add)]
        return wide[0] if all(op == wide[0] for op in wide) else None
    kind = type(ops[0])
    if kind not in (Reshape, Opaque) or any(type(op) is not kind for op in ops):
        return None
    if len({len(t) for t in targets}) > 1:
        return None
    spec = []
    for i, sizes in enumerate(zip(*targets, strict=True)):
        if len(set(sizes)) == 1:
            spec.append(sizes[0])
        elif all(i < len(shape) and shape[i] == n for shape, n in zip(shapes, sizes, strict=True)):
            spec.append(0)
        else:
            spec.append(-1)
    op: Op = Reshape(tuple(spec))
    if isinstance(ops[0], Opaque):
        if -1 in spec:
            return None
        op = replace(ops[0], shape=tuple(spec))
    try:
        fits = all(op.type(TensorType(s)).shape == t for s, t in zip(shapes, targets, strict=True))
    except RefnetError:
        return None
    return op if fits else None
