"""A node of a symbol.json: its attributes read as dmlc's parameter parser reads them, and what a rule is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from struct import pack, unpack

from refnet.core.errors import FormatError, UnsupportedError
from refnet.ops import Op, TensorType

Pair = tuple[int, int]
LARGEST = 2**31 - 1
"""Attributes are 32-bit integers in MXNet."""
LARGEST_FLOAT32 = float.fromhex("0x1.fffffep127")

ANNOTATION = re.compile(
    r"__.*__|(.*_)?(lr_mult|wd_mult|ctx_group|force_mirroring|mirror_stage)|"
    r"num_args|workspace|cudnn_(tune|off)|momentum|name"
)
"""Attributes that say nothing about an inference run on the CPU."""


def float32(number: float) -> float:
    """The float32 nearest to a number within float32's range.

    >>> float32(0.1)
    0.10000000149011612
    """
    nearest: float = unpack("<f", pack("<f", number))[0]
    return nearest


@dataclass(frozen=True)
class SymbolNode:
    """One node of a symbol.json: index, op ('null' is a variable), name, attributes, inputs.

    inputs: (node index, output index) pairs. hints: per input, the shape that the file states for it
    (`__shape__`), where it is a variable. file and offset serve the error messages.
    """

    file: str
    offset: int | None
    index: int
    op: str
    name: str
    attributes: dict[str, str]
    inputs: tuple[tuple[int, int], ...]
    hints: tuple[tuple[int, ...] | None, ...] = ()

    @property
    def title(self) -> str:
        """How messages name this node."""
        return f"node {self.index} {self.name!r} ({self.op})"

    def wrong(self, key: str, expected: str) -> FormatError:
        """The error of an attribute that cannot be read."""
        found = "no" if key not in self.attributes else f"{self.attributes[key][:60]!r} as"
        return FormatError(self.file, self.offset, f"{found} {key!r} of {self.title}", expected)

    def refused(self, key: str, can: str) -> UnsupportedError:
        """The error of an attribute whose value refnet does not implement."""
        value = self.attributes.get(key, "absent")
        return UnsupportedError(f"{self.file}: {self.title} has {key}={value[:60]!r}, refnet has {can}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string attribute; required where there is no default."""
        value = self.attributes.get(key, default)
        if value is None:
            raise self.wrong(key, "a value (required)")
        return value

    def integer(self, key: str, default: int | None = None, least: int = 0) -> int:
        """A whole number from least to 2**31 - 1."""
        value = self.text(key, None if default is None else str(default)).strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,10}", value, re.ASCII) or not least <= int(value) <= LARGEST:
            raise self.wrong(key, f"a whole number from {least} to {LARGEST}")
        return int(value)

    def optional_integer(self, key: str) -> int | None:
        """A whole number, or None where the attribute is absent or says None."""
        return None if self.text(key, "None") == "None" else self.integer(key, least=-LARGEST)

    def number(self, key: str, default: float | None) -> float:
        """A finite decimal number; required where there is no default."""
        value = self.text(key, None if default is None else repr(default)).strip()
        pattern = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?f?"
        if len(value) > 400 or not re.fullmatch(pattern, value, re.ASCII):
            raise self.wrong(key, "a decimal number")
        number = float(value.rstrip("f"))
        if number in (float("inf"), float("-inf")):
            raise self.wrong(key, "a finite number")
        return number

    def float32(self, key: str, default: float | None) -> float:
        """A number, rounded to float32."""
        number = self.number(key, default)
        if abs(number) > LARGEST_FLOAT32:
            raise self.wrong(key, "a float32")
        return float32(number)

    def boolean(self, key: str, default: bool) -> bool:
        """True, true or 1; False, false or 0."""
        value = self.text(key, str(default)).strip().lower()
        if value not in ("true", "1", "false", "0"):
            raise self.wrong(key, "True, False, 1 or 0")
        return value in ("true", "1")

    def shape(self, key: str) -> tuple[int, ...]:
        """A tuple of whole numbers, () where absent: (3, 3), [3,3] or 3."""
        value = self.text(key, "()").strip()
        inside = value[1:-1] if (value[:1], value[-1:]) in (("(", ")"), ("[", "]")) else value
        parts = inside.split(",") if inside.strip() else []
        if len(parts) > 1 and not parts[-1].strip():
            parts.pop()
        numbers = []
        for part in parts[:9]:
            if not re.fullmatch(r"[0-9]{1,10}L?", part.strip(), re.ASCII):
                raise self.wrong(key, "a tuple of whole numbers")
            numbers.append(int(part.strip().rstrip("L")))
        if len(parts) > 8 or any(n > LARGEST for n in numbers):
            raise self.wrong(key, f"at most 8 numbers up to {LARGEST}")
        return tuple(numbers)

    def numbers(self, key: str) -> tuple[int | None, ...]:
        """A tuple of whole numbers of either sign and None, () where absent or None: (0, None, -1)."""
        value = self.text(key, "()").strip()
        if value == "None":
            return ()
        inside = value[1:-1] if (value[:1], value[-1:]) in (("(", ")"), ("[", "]")) else value
        parts = [part.strip() for part in inside.split(",")] if inside.strip() else []
        if len(parts) > 1 and not parts[-1]:
            parts.pop()
        if len(parts) > 32 or not all(re.fullmatch(r"None|-?[0-9]{1,10}L?", p, re.ASCII) for p in parts):
            raise self.wrong(key, "a tuple of at most 32 whole numbers")
        found = tuple(None if p == "None" else int(p.rstrip("L")) for p in parts)
        if any(n is not None and abs(n) > LARGEST for n in found):
            raise self.wrong(key, f"numbers up to {LARGEST}")
        return found

    def pair(self, key: str, default: Pair | None, least: int) -> Pair:
        """(height, width); the default where absent or empty."""
        shape = self.shape(key)
        if not shape and default is not None:
            return default
        if len(shape) in (1, 3):
            raise self.refused(key, "two-dimensional images only")
        if len(shape) != 2 or min(shape) < least:
            raise self.wrong(key, f"two numbers >= {least}")
        return (shape[0], shape[1])

    def axis(self, key: str, rank: int, default: int | None = None) -> int:
        """An axis of a value of this rank; negative ones count from the end."""
        axis = self.integer(key, default, -LARGEST)
        if not -rank <= axis < rank:
            raise self.wrong(key, f"an axis from {-rank} to {rank - 1}")
        return axis % rank


Maker = Callable[[SymbolNode, list[TensorType]], Op]


@dataclass(frozen=True)
class Rule:
    """How one MXNet op is read.

    arguments: names of the inputs in order, data first; () for any number of data inputs.
    data: how many of them are data (values); the rest are weights.
    known: attributes that `make` looks at.
    """

    make: Maker
    arguments: tuple[str, ...] = ("data",)
    data: int = 1
    known: tuple[str, ...] = ()
