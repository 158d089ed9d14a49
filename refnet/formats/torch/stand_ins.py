"""What stands for the objects of a pickle that are not plain data: names and descriptions, all inert."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Global:
    """A class or function, by name only."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """A storage's description, from a persistent id.

    kind: the class's name. key: what it is stored under. count: elements stored. begin, elements: the
    part of them that this storage is (all, except for views in legacy files).
    """

    kind: str
    key: str
    count: int
    begin: int
    elements: int


@dataclass(frozen=True)
class Tensor:
    """A tensor's description: offset, size and stride in elements of the storage.

    at: the byte of the file where it is described, for messages.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    at: int


@dataclass
class Ordered:
    """Stand-in of collections.OrderedDict: its items. What BUILD attaches (`_metadata`) is dropped."""

    items: dict[Any, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Opaque:
    """What an unknown global would make, or a tensor that refnet cannot read. Inert.

    what: the global, or of what the tensor is. state: what BUILD attaches. at: the byte of the file.
    """

    what: Global | str
    at: int
    state: Any = None

    def __str__(self) -> str:
        return str(self.what)[:100]


@dataclass(frozen=True)
class Pickled:
    """A pickle's object, how many bytes it takes, and every storage it describes, by key."""

    value: Any
    used: int
    storages: dict[str, Storage | Opaque]


STORAGES = (
    "FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "IntStorage",
    "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage",
)  # fmt: skip
"""Storage classes of torch that are known. As globals they are names; they cannot be called."""
