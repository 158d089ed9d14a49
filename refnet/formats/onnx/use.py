"""What a rule for an ONNX operator sees of a node and its inputs, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.op import F32
from refnet.formats.assembly import LARGEST_NUMBER, Made, type_of
from refnet.formats.onnx.file import OnnxNode
from refnet.ops import Op, TensorType

Array = npt.NDArray[Any]


def decimal(value: float) -> float:
    """The float64 that the shortest decimal of a float32 names: 1e-05, of which the file has the float32."""
    return float(str(np.float32(value)))


@dataclass(frozen=True)
class Use:
    """A node and its inputs: the types of values, the arrays of constants.

    wanted: outputs that are read. given: the graph's inputs. rounded: constants that may have other bits in a
    framework; they must stay inputs of an op, so that its bound covers them (`attributed`).
    """

    node: OnnxNode
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]
    wanted: Collection[str]
    given: frozenset[str] = frozenset()
    rounded: frozenset[str] = frozenset()

    def attributed(self, made: Iterable[Made]) -> str | None:
        """A rounded constant that the node reads and its ops have only as attributes, if there is one."""
        kept = {name for one in made for name in (*one.data, *one.weights)}
        return next((name for name in self.node.inputs if name in self.rounded - kept), None)

    def __getitem__(self, attribute: str) -> Any:
        return self.node.attributes.get(attribute)

    @property
    def opset(self) -> int:
        """The file's opset."""
        return self.node.opset

    def has(self, i: int) -> bool:
        """Whether there is an input i."""
        return i < len(self.node.inputs) and bool(self.node.inputs[i])

    def is_constant(self, i: int) -> bool:
        """Whether input i is a constant."""
        return self.node.inputs[i] in self.constants

    def type(self, i: int = 0) -> TensorType:
        """The type of input i."""
        name = self.node.inputs[i]
        return type_of(self.constants[name]) if name in self.constants else self.types[name]

    def rank(self, i: int = 0) -> int:
        """How many dimensions input i has."""
        return len(self.type(i).shape)

    def constant(self, i: int, what: str) -> Array:
        """Input i, which must be constant."""
        if not self.is_constant(i):
            name = self.node.inputs[i]
            why = "is computed from the input"
            if name in self.given:
                why = (
                    "is an input of the graph, not a constant: make it an initializer, which holds its values"
                )
            raise self.node.unsupported(f"its {what} {name[:100]!r} {why}")
        return self.constants[self.node.inputs[i]]

    def weight(self, i: int, what: str) -> tuple[str, TensorType]:
        """The name and type of a constant input i."""
        self.constant(i, what)
        return self.node.inputs[i], self.type(i)

    def numbers(self, attribute: str, i: int, what: str) -> list[int] | None:
        """Whole numbers that are an attribute in older opsets and input i in newer ones; None if absent."""
        found = self[attribute]
        if attribute not in self.node.attributes and self.has(i):
            array = self.constant(i, what)
            if array.dtype.kind not in "iu" or array.size > LARGEST_NUMBER:
                raise self.node.wrong(f"{array.dtype} {list(array.shape)} as {what}", "whole numbers")
            found = array.reshape(-1).tolist()
        return None if found is None else [int(n) for n in found]

    def store(self, name: str, array: Array) -> str:
        """A constant of the rule's own, by the name that it gets; so is an output without elements."""
        assert isinstance(self.constants, dict)
        while name in self.constants or name in self.types:
            name += "_"
        self.constants[name] = array
        return name

    def is_empty(self, name: str) -> bool:
        """Whether an input is known to have no elements."""
        return name in self.constants and not self.constants[name].size

    def axis(self, value: int, rank: int, what: str = "axis") -> int:
        """An axis from 0 on."""
        if not -rank <= value < rank:
            raise self.node.wrong(f"{what} {value}", f"{-rank} to {rank - 1}")
        return value % rank

    def axes(self, values: list[int], rank: int) -> tuple[int, ...]:
        """Axes from 0 on, each once."""
        if len(values) > rank:
            raise self.node.wrong(f"{len(values)} axes", f"at most {rank}")
        found = tuple(self.axis(value, rank) for value in values)
        if len(set(found)) < len(found):
            raise self.node.wrong(f"axes {values}", "each once")
        return found

    def one(self, op: Op, *weights: str, data: tuple[str, ...] | None = None) -> list[Made]:
        """The one output, of the first input unless `data` says another."""
        return [Made(self.node.outputs[0], op, self.node.inputs[:1] if data is None else data, weights)]


def others_differ(rounded: Mapping[str, F32 | None]) -> frozenset[str]:
    """Of constants with how far others' may lie from them (None: not known), those that may differ at all."""
    return frozenset(name for name, off in rounded.items() if off is None or off.any())


Rule = Callable[[Use], list[Made]]
"""The nodes of a node's outputs."""
