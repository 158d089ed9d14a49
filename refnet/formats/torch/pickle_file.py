"""An inert unpickler: a pickle's opcodes -> plain data. No global is imported and nothing is called.

Pickle is a small stack language. This interpreter knows the opcodes that torch's files use, and
represents what torch would build by stand-ins of its own (stand_ins.py): a Global is a name, a Storage and a
Tensor are descriptions. What some globals would make is known (pickle_calls.py). Whatever any other would
make or be is an Opaque: its name, and the state that the file attaches to it. Nobody calls it, and it is
refused where a tensor is needed.

Memory and time are bounded by the file: every string and integer is a slice of it, every opcode
pushes at most one object, and memo entries are references (a tower of doubling lists costs what its
opcodes cost; what walks the result must not unfold it: see checkpoint.py).
Source of the opcodes: Python's pickletools module.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from refnet.core.errors import FormatError
from refnet.formats.torch.pickle_calls import CALLS
from refnet.formats.torch.stand_ins import STORAGES, Global, Opaque, Ordered, Pickled, Storage

LONGEST_INTEGER = 64
"""Bytes of an integer: torch's longest, the legacy magic, takes 10."""
LONGEST_NAME = 1024
"""Bytes of a module's or global's name."""
MOST_OPCODES = 2_000_000
"""ResNeSt-269's state dict takes about 100,000."""


def load(data: bytes, file: str, start: int = 0, persistent: bool = True) -> Pickled:
    """The pickle that `data` begins with.

    file, start: for messages, the file and where data stands in it. persistent: whether persistent ids
    (storages) may occur. Raises FormatError with the opcode's offset.

    >>> load(bytes([0x80, 2]) + b"]Na.", "a.pth")
    Pickled(value=[None], used=6, storages={})
    >>> print(load(b"cos\\nsystem\\n(X\\2\\0\\0\\0lstR.", "a.pth").value)  # named, never called
    os.system
    """
    return Machine(data, file, start, persistent).run()


@dataclass
class Machine:
    """The stack, the marks (stack heights) and the memo of one pickle."""

    data: bytes
    file: str
    start: int
    persistent: bool
    place: int = 0
    at: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage | Opaque] = field(default_factory=dict)
    pairs: int = 0

    def run(self) -> Pickled:
        for _ in range(MOST_OPCODES):
            self.at = self.place
            code = self.take(1)
            if code == b".":
                return Pickled(self.pop(), self.place, self.storages)
            step = _STEPS.get(code)
            if step is None:
                name = _NAMES.get(code, "an opcode")
                raise self.wrong(f"{name} ({code[0]:#04x})", "an opcode of torch's state dicts")
            step(self)
        raise self.wrong(f"more than {MOST_OPCODES} opcodes", "a state dict")

    # Reading: every length is checked against what is left.

    def wrong(self, found: str, expected: str) -> FormatError:
        return FormatError(self.file, self.start + self.at, found, expected)

    def take(self, count: int) -> bytes:
        left = len(self.data) - self.place
        if count > left:
            raise self.wrong(f"{left} bytes left in the pickle", f"{count} more")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, code: str) -> int:
        (value,) = struct.unpack(code, self.take(struct.calcsize(code)))
        return int(value)

    def line(self) -> str:
        end = self.data.find(b"\n", self.place, self.place + LONGEST_NAME)
        if end < 0:
            raise self.wrong("a name without end", f"a line of at most {LONGEST_NAME} bytes")
        return self.decoded(self.take(end + 1 - self.place)[:-1])

    def decoded(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong(f"the string {raw[:40]!r}", "UTF-8") from None

    # The stack.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.wrong("an empty stack", "a value")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise self.wrong("no mark", "one on the stack")
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def top(self) -> Any:
        value = self.pop()
        self.push(value)
        return value

    # The opcodes that are more than a line.

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.wrong(f"memo {index}", "one that was stored before")
        self.push(self.memo[index])

    def integer(self, size: int) -> None:
        if not 0 <= size <= LONGEST_INTEGER:
            raise self.wrong(f"an integer of {size} bytes", f"at most {LONGEST_INTEGER}")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if type(target) is Opaque:
            return
        if type(target) is not list:
            raise self.wrong(f"an append to {_kind(target)}", "a list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        if len(values) % 2:
            raise self.wrong("a key without a value", "pairs")
        if type(target) is Opaque:
            return
        items = target.items if type(target) is Ordered else target
        if type(items) is not dict:
            raise self.wrong(f"an item set in {_kind(target)}", "a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            self.set_item(items, key, value)

    def set_item(self, items: dict[Any, Any], key: Any, value: Any) -> None:
        if type(key) not in (str, int):  # hashing nested tuples could take forever
            key = self.opaque(f"{type(key).__name__} as a key")
        items[key] = value

    def opaque(self, what: Global | str) -> Opaque:
        return Opaque(what, self.start + self.at)

    def name_global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise self.wrong("a global named by other things than strings", "module and name")
        if len(module) > LONGEST_NAME or len(name) > LONGEST_NAME:
            raise self.wrong("a longer name", f"at most {LONGEST_NAME} characters")
        self.push(Global(module, name))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(arguments) is not tuple:
            raise self.wrong(f"a call with {_kind(arguments)}", "a tuple of arguments")
        call = CALLS.get(function) if type(function) is Global else None
        self.push(self.made(function) if call is None else call(self, arguments))

    def made(self, function: Any) -> Opaque:
        """What a call of an unknown global, or of what one made, would give."""
        if type(function) is Opaque:
            return self.opaque(function.what)
        if type(function) is not Global:
            raise self.wrong(f"a call of {_kind(function)}", "a global")
        return self.opaque(function)

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if type(target) is Opaque:
            target.state = state
            return
        if type(target) is not Ordered or type(state) is not dict:
            raise self.wrong(f"a state set in {_kind(target)}", "an OrderedDict, with a dict")

    def persistent_id(self) -> None:
        match self.pop():
            case ("storage", Global() as kind, str(key), str(), int(count), *view) if (
                self.persistent and type(count) is int and count >= 0 and len(view) <= 1
            ):
                found: Storage | Opaque = self.opaque(kind)
                if kind.module == "torch" and kind.name in STORAGES:
                    begin, elements = self.part(view[0] if view else None, count)
                    found = Storage(kind.name, key, count, begin, elements)
                self.storages.setdefault(key, found)
                self.push(found)
            case ("module", Global() as kind, *_) if (
                self.persistent
            ):  # a class with its source, in legacy files
                self.push(kind)
            case _:
                raise self.wrong("another persistent id", "('storage', class, key, location, count)")

    def part(self, view: Any, count: int) -> tuple[int, int]:
        """(begin, elements) of a storage that is a part of the stored one (legacy files)."""
        match view:
            case None:
                return 0, count
            case (str(), int(begin), int(elements)) if begin >= 0 and 0 <= elements <= count - begin:
                return begin, elements
        raise self.wrong("a storage view that does not fit", "(key, offset, elements)")


def _kind(value: Any) -> str:
    """A value's kind, for messages: never its contents, which may be endless."""
    return str(value) if type(value) in (Global, Opaque) else type(value).__name__


def _proto(m: Machine) -> None:
    version = m.number("B")
    if not 2 <= version <= 5:
        raise m.wrong(f"pickle protocol {version}", "2 to 5")


def _frame(m: Machine) -> None:
    length = m.number("<Q")
    if length > len(m.data) - m.place:
        raise m.wrong(f"a frame of {length} bytes", f"at most {len(m.data) - m.place}")


def _stack_global(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    m.name_global(module, name)


def _set_item(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    m.set_items([key, value])


def _tuple(m: Machine, count: int) -> None:
    values = [m.pop() for _ in range(count)]
    m.push(tuple(reversed(values)))


def _drop(m: Machine) -> None:
    m.pop()


def _drop_to_mark(m: Machine) -> None:
    m.pop_mark()


def _new_object(m: Machine, parts: int) -> None:
    """NEWOBJ and NEWOBJ_EX: class and arguments, which are dropped."""
    for _ in range(parts - 1):
        m.pop()
    m.push(m.made(m.pop()))


def _instance(m: Machine) -> None:
    """INST: class by name, its arguments from the mark on."""
    named = Global(m.line(), m.line())
    m.pop_mark()
    m.push(m.made(named))


def _object(m: Machine) -> None:
    """OBJ: class and its arguments from the mark on."""
    values = m.pop_mark()
    m.push(m.made(values[0] if values else None))


def _float(m: Machine) -> None:
    m.push(struct.unpack(">d", m.take(8))[0])


_STEPS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.integer(m.number("B")),
    b"\x8b": lambda m: m.integer(m.number("<i")),
    b"G": _float,
    b"X": lambda m: m.push(m.decoded(m.take(m.number("<I")))),
    b"\x8c": lambda m: m.push(m.decoded(m.take(m.number("B")))),
    b"\x8d": lambda m: m.push(m.decoded(m.take(m.number("<Q")))),
    b"U": lambda m: m.push(m.decoded(m.take(m.number("B")))),
    b"T": lambda m: m.push(m.decoded(m.take(m.number("<I")))),
    b"C": lambda m: m.push(m.take(m.number("B"))),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"\x8f": lambda m: m.push([]),
    b"\x90": lambda m: m.extend(m.pop_mark()),
    b"\x91": lambda m: m.push(m.pop_mark()),
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),
    b")": lambda m: m.push(()),
    b"\x85": lambda m: _tuple(m, 1),
    b"\x86": lambda m: _tuple(m, 2),
    b"\x87": lambda m: _tuple(m, 3),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.pop_mark()),
    b"s": _set_item,
    b"u": lambda m: m.set_items(m.pop_mark()),
    b"q": lambda m: m.put(m.number("B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"h": lambda m: m.get(m.number("B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"c": lambda m: m.name_global(m.line(), m.line()),
    b"\x93": _stack_global,
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
    b"\x81": lambda m: _new_object(m, 2),
    b"\x92": lambda m: _new_object(m, 3),
    b"i": _instance,
    b"o": _object,
    b"0": _drop,
    b"1": _drop_to_mark,
    b"2": lambda m: m.push(m.top()),
    b"Q": lambda m: m.persistent_id(),
}

_NAMES = {
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"P": "PERSID",
    b"\x97": "NEXT_BUFFER",
}
"""Opcodes that are refused by name: they stand for what is not in the file, or torch does not write them."""
