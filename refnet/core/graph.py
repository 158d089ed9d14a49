"""A network as plain data: inputs, weights, nodes in execution order, outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from refnet.core.errors import GraphError, InputError, WeightsError
from refnet.core.notebook import shown
from refnet.core.op import F32, Op, TensorType
from refnet.core.words import unencodable

__all__ = ["Graph", "Node", "TensorType"]


@dataclass(frozen=True)
class Node:
    """One operation that makes one value; the value has the node's name.

    >>> from refnet.ops import Relu
    >>> print(Node("relu1", Relu(), ("conv1",)))
    relu1 = Relu()(conv1)
    """

    name: str
    op: Op
    inputs: tuple[str, ...]

    @cached_property
    def data(self) -> tuple[str, ...]:
        """The inputs that are values."""
        return self.inputs[: len(self.inputs) - len(self.op.weight_roles())]

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """The inputs that are weights, in the order of `op.weight_roles()`."""
        return self.inputs[len(self.inputs) - len(self.op.weight_roles()) :]

    def __str__(self) -> str:
        return f"{self.name} = {self.op!r}({', '.join(self.inputs)})"


@dataclass(frozen=True, eq=False)
class Graph:
    """Inputs, nodes in execution order, outputs, and (once loaded) the weights. Nothing but data.

    Two graphs are equal if they are the same object; `structure_hash` and `weights_hash` compare contents.

    inputs: name -> TensorType, whose first dimension is the batch and may be fed at any size.
    nodes: each reads only inputs, weights and earlier nodes.
    outputs: output name -> value name, for example {"prob": "softmax"}.
    weights: name -> array; empty until `with_weights`.

    >>> from refnet.ops import Relu
    >>> g = Graph("tiny", {"data": TensorType((1, 2))}, (Node("r", Relu(), ("data",)),), {"out": "r"})
    >>> print(g)
    tiny(data: float32[1, 2]):
        r = Relu()(data)
        return out=r
    >>> g
    <Graph 'tiny': data float32[1, 2]; 1 node, 0 parameters; outputs out>
    """

    name: str
    inputs: Mapping[str, TensorType]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    weights: Mapping[str, F32] = field(default_factory=dict, repr=False)
    rounded: Mapping[str, F32 | None] = field(default_factory=dict, repr=False)
    """Weights computed of constants, with roundings -> how far others' may lie from them; None: not known."""

    def __post_init__(self) -> None:
        known = set(self.inputs)
        weights: set[str] = set()
        for node in self.nodes:
            if node.name in known or node.name in weights:
                raise GraphError(f"{self.name}: two values are named {node.name!r}")
            for name in node.data:
                if name not in known:
                    raise GraphError(f"{self.name}: {node.name} reads {name!r}, made by nothing before it")
            for name in node.weights:
                if name in known:
                    raise GraphError(f"{self.name}: {node.name} takes the value {name!r} for a weight")
                weights.add(name)
            known.add(node.name)
        for output, name in self.outputs.items():
            if name not in known:
                raise GraphError(f"{self.name}: output {output!r} names {name!r}, which nothing makes")
        if (no_text := unencodable((self.name, *known, *weights, *self.outputs))) is not None:
            raise GraphError(f"the name {no_text!a} has half of a surrogate pair, which is no text")

    def __repr__(self) -> str:
        """One line of bounded length, for interactive use; `print` shows the whole program."""
        inputs = _few(f"{name} {kind!r}" for name, kind in self.inputs.items())
        nodes = f"{len(self.nodes)} node{'s' * (len(self.nodes) != 1)}"
        learned = {name for node in self.nodes for name in node.weights} - self.statistics()
        size = sum(self.weights[name].size for name in learned if name in self.weights)
        loaded = not learned or self.weights
        parameters = f"{size:,} parameters" if loaded else f"{len(learned)} weights, not loaded"
        return f"<Graph {self.name[:60]!r}: {inputs}; {nodes}, {parameters}; outputs {_few(self.outputs)}>"

    _repr_html_ = shown

    def __str__(self) -> str:
        head = ", ".join(f"{n}: {t!r}" for n, t in self.inputs.items())
        body = "".join(f"    {node}\n" for node in self.nodes)
        tail = ", ".join(f"{o}={n}" for o, n in self.outputs.items())
        return f"{self.name}({head}):\n{body}    return {tail}"

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Node name -> node."""
        return {node.name: node for node in self.nodes}

    def types(self, inputs: Mapping[str, TensorType] | None = None) -> dict[str, TensorType]:
        """The type of every input, weight and value, inferred in execution order.

        inputs: other types for the graph's inputs (another batch or image size).
        Raises GraphError, naming the node, where shapes do not fit.
        """
        found: dict[str, TensorType] = dict(self.inputs if inputs is None else inputs)
        for node in self.nodes:
            try:
                data = [found[name] for name in node.data]
                for name, kind in zip(node.weights, node.op.weight_types(*data), strict=True):
                    if found.setdefault(name, kind) != kind:
                        raise GraphError(f"weight {name} is {found[name]!r} elsewhere and {kind!r} here")
                found[node.name] = node.op.type(*(found[name] for name in node.inputs))
            except GraphError as error:
                raise GraphError(f"{self.name}: {node.name}: {error}") from None
        return found

    @cached_property
    def weight_types(self) -> dict[str, TensorType]:
        """The type of every weight, in order of first use."""
        types = self.types()
        return {name: types[name] for node in self.nodes for name in node.weights}

    def statistics(self) -> set[str]:
        """Names of the weights that are running statistics (batch norm's mean and variance)."""
        return {
            name
            for node in self.nodes
            for name, role in zip(node.weights, node.op.weight_roles(), strict=True)
            if role in node.op.statistics
        }

    def with_weights(
        self, weights: Mapping[str, F32], surplus: Iterable[str] = (), *, own: bool = False
    ) -> Graph:
        """This graph with its weights, after checking every name, shape and dtype.

        The graph's arrays are read-only copies, so that kernels may keep what they derive from them.
        Whoever makes one writable again and changes it gets results of the old weights.

        surplus: unused names that are allowed (`num_batches_tracked` and the like).
        own: nobody else holds the arrays (a reader just made them). They are not copied but made read-only;
        nothing may write to the memory that they are views of.
        Raises WeightsError, which lists what is missing, surplus or of another shape.
        """
        wanted = self.weight_types
        allowed = set(surplus)
        faults = [f"missing: {name} {kind!r}" for name, kind in wanted.items() if name not in weights]
        faults += [f"surplus: {name}" for name in weights if name not in wanted and name not in allowed]
        for name, kind in wanted.items():
            array = weights.get(name)
            if array is not None and (array.shape != kind.shape or array.dtype != kind.dtype):
                found = TensorType(tuple(array.shape), str(array.dtype))
                faults.append(f"wrong: {name} is {found!r}, the graph needs {kind!r}")
        if faults:
            shown = "\n  ".join(faults[:20])
            more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
            raise WeightsError(f"{self.name}: weights do not fit the graph:\n  {shown}{more}")
        once = {id(weights[name]): weights[name] for name in wanted}  # one array may have many names
        made = {key: _frozen(array, own) for key, array in once.items()}
        frozen = {name: made[id(weights[name])] for name in wanted}
        held = self.weights
        kept = (n for n in self.rounded if n not in held or held[n].tobytes() == frozen[n].tobytes())
        rounded = {name: self.rounded[name] for name in kept}
        return replace(self, weights=MappingProxyType(frozen), rounded=rounded)

    def check_inputs(self, inputs: Mapping[str, F32]) -> dict[str, TensorType]:
        """The types of the given inputs; raises InputError if they do not fit the graph."""
        if not isinstance(inputs, Mapping):
            raise InputError(f"{self.name}: inputs must map names to arrays, got {type(inputs).__name__}")
        for name in inputs:
            if name not in self.inputs:
                raise InputError(f"{self.name} has no input {name!r}; it has {', '.join(self.inputs)}")
        types = {}
        for name, kind in self.inputs.items():
            if name not in inputs:
                raise InputError(f"{self.name}: input {name!r} {kind!r} is missing")
            array = inputs[name]
            if not isinstance(array, np.ndarray):
                raise InputError(f"{self.name}: input {name!r} must be an array, got {type(array).__name__}")
            if array.dtype != kind.dtype:
                raise InputError(f"{self.name}: input {name!r} must be {kind.dtype}, got {array.dtype}")
            if not 0 < array.ndim == len(kind.shape) or array.shape != (max(1, len(array)), *kind.shape[1:]):
                want = ", ".join(["batch", *map(str, kind.shape[1:])])
                raise InputError(f"{self.name}: input {name!r} must be [{want}], got {list(array.shape)}")
            types[name] = TensorType(tuple(array.shape), kind.dtype)
        return types

    def structure_hash(self) -> str:
        """sha256 over the printed graph: equal graphs, equal hash; weights are not in it."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    def weights_hash(self) -> str:
        """sha256 over every weight's name, shape and bytes, in order of first use."""
        digest = hashlib.sha256()
        for name, array in self.weights.items():
            kind = "" if array.dtype == np.float32 else array.dtype
            digest.update(f"{name}{kind}{list(array.shape)}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _few(items: Iterable[str]) -> str:
    """The first four names, each cut at 60 characters, unprintable characters escaped."""
    listed = [repr(item[:60])[1:-1] for item in items]
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")


def _frozen(array: F32, own: bool) -> F32:
    """The array, read-only and in row order; a copy, so that nobody can write to it, unless it is our own."""
    array = np.require(array, requirements=("C", "A")) if own else array.copy(order="C")
    array.flags.writeable = False
    return array
