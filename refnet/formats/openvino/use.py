"""What a rule for a layer of an IR sees of it and its inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.formats.assembly import LARGEST_NUMBER, Made
from refnet.formats.openvino.file import Layer
from refnet.ops import Op, TensorType

Array = npt.NDArray[Any]
SWITCHES = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True)
class Use:
    """A layer and its inputs: the types of values, the arrays of constants.

    inputs, outputs: names of values. wanted: outputs that are read.
    """

    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]
    wanted: frozenset[str]

    # Attributes.

    def text(self, name: str, default: str | None, among: tuple[str, ...] = ()) -> str:
        """An attribute, in lower case; FormatError if it is not one of those."""
        found = self.layer.attributes.get(name, default)
        if found is None:
            raise self.layer.wrong(f"no attribute {name!r}")
        found = found.strip().lower()
        if among and found not in among:
            raise self.layer.wrong(f"{name}={found[:60]!r}", f"one of {', '.join(among)}")
        return found

    def flag(self, name: str, default: bool | None) -> bool:
        """A switch; it must be there if there is no default."""
        return SWITCHES[self.text(name, None if default is None else str(default), tuple(SWITCHES))]

    def whole(self, name: str, default: int | None) -> int:
        """A whole number."""
        found = self.numbers(name, 1, None if default is None else (default,))
        return found[0]

    def numbers(self, name: str, count: int, default: tuple[int, ...] | None) -> tuple[int, ...]:
        """So many whole numbers, parted by commas."""
        text = self.layer.attributes.get(name)
        if text is None or not text.strip():
            if default is None:
                raise self.layer.wrong(f"no attribute {name!r}", f"{count} whole numbers")
            return default
        parts = [part.strip() for part in text.split(",", count + 1)]
        if len(parts) != count or not all(re.fullmatch("-?[0-9]{1,10}", part) for part in parts):
            raise self.layer.wrong(f"{name}={text[:60]!r}", f"{count} whole numbers")
        found = tuple(map(int, parts))
        if any(abs(n) > LARGEST_NUMBER for n in found):
            raise self.layer.wrong(f"{name}={text[:60]!r}", f"numbers up to {LARGEST_NUMBER}")
        return found

    def real(self, name: str) -> float:
        """A number as a float64."""
        text = self.text(name, None)
        try:
            return float(text)
        except ValueError:
            raise self.layer.wrong(f"{name}={text[:60]!r}", "a number") from None

    # Inputs.

    def has(self, i: int) -> bool:
        """Whether there is an input i."""
        return i < len(self.inputs)

    def is_constant(self, i: int) -> bool:
        """Whether input i is a constant."""
        self.name(i, "an input")
        return self.inputs[i] in self.constants

    def name(self, i: int, what: str) -> str:
        """The name of input i, which must be there."""
        if not self.has(i):
            raise self.layer.wrong(f"{len(self.inputs)} inputs", f"one more: {what}")
        return self.inputs[i]

    def type(self, i: int = 0) -> TensorType:
        """The type of input i."""
        name = self.name(i, "an input")
        return TensorType(self.constants[name].shape) if name in self.constants else self.types[name]

    def rank(self, i: int = 0) -> int:
        """How many dimensions input i has."""
        return len(self.type(i).shape)

    def constant(self, i: int, what: str) -> Array:
        """Input i, which must be constant."""
        name = self.name(i, what)
        if name not in self.constants:
            raise self.layer.unsupported(f"its {what} {name[:100]!r} is computed from the input")
        return self.constants[name]

    def whole_numbers(self, i: int, what: str) -> list[int]:
        """Input i as whole numbers, in one dimension."""
        array = self.constant(i, what)
        if array.dtype.kind not in "iu" or array.size > 4096:
            raise self.layer.wrong(f"{array.dtype} {list(array.shape)} as {what}", "whole numbers")
        return [int(n) for n in array.reshape(-1)]

    def one_number(self, i: int, what: str) -> float:
        """Input i as one number."""
        array = self.constant(i, what)
        if array.size != 1 or array.dtype.kind not in "fiu":
            raise self.layer.wrong(f"{array.dtype} {list(array.shape)} as {what}", "one number")
        return float(array.reshape(-1)[0])

    def axis(self, value: int, rank: int, what: str = "axis") -> int:
        """An axis from 0 on."""
        if not -rank <= value < rank:
            raise self.layer.wrong(f"{what} {value}", f"{-rank} to {rank - 1}")
        return value % rank

    def axes(self, values: list[int], rank: int) -> tuple[int, ...]:
        """Axes from 0 on, each once."""
        if len(values) > rank:
            raise self.layer.wrong(f"{len(values)} axes", f"at most {rank}")
        found = tuple(self.axis(value, rank) for value in values)
        if len(set(found)) < len(found):
            raise self.layer.wrong(f"axes {values}", "each once")
        return found

    def weight(self, i: int, what: str) -> str:
        """The name of input i, which must be a constant of numbers."""
        self.constant(i, what)
        return self.inputs[i]

    # What it makes.

    def one(self, op: Op, *weights: str, data: tuple[str, ...] | None = None) -> list[Made]:
        """The first output, of the first input unless `data` says another."""
        if data is None:
            data = (self.name(0, "data"),)
        return [Made(self.outputs[0], op, data, weights)]


def as_float32(array: Array) -> Array:
    """float16 widened, exactly; anything else as it is."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


Rule = Callable[[Use], list[Made]]
"""The nodes of a layer's outputs."""
