"""An .xml of OpenVINO's IR -> its layers and edges, checked; expat parses, and no DTD is taken.

    open_model ── Model: layers in an order in which each reads earlier ones, which port reads which

A file is read once, from the front; what it can make grow (layers, ports, depth, text) has limits.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.parsers import expat

from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.bounded import check_name, open_file

VERSIONS = (10, 11)
LARGEST_FILE = 1 << 28
"""Bytes of an .xml; a layer has some five hundred."""
MOST_LAYERS = 100_000
MOST_PORTS = 4096
"""Of a layer."""
MOST_ELEMENTS = 10_000_000
DEEPEST = 64
OUTPUTS = {"Parameter": 1, "Const": 1, "Result": 0}
"""Of these types, how many outputs a layer has."""
LONGEST = 1 << 20
"""Bytes without a new element: until an element is whole, expat before 2.6 reads it again for every block."""
BLOCK = 1 << 16
WHOLE = re.compile(r"-?[0-9]{1,18}")

Place = tuple[int, int]
"""A layer's place in the file's list, and the place of one of its output ports."""


@dataclass(frozen=True)
class Port:
    """One input or output of a layer. dims: -1 is open. names: of its value, in the file's order."""

    id: int
    precision: str
    dims: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """One layer. opset: 1 for "opset1". marks: its rt_info's names. offset, line: where it begins."""

    file: str
    id: int
    name: str
    type: str
    opset: int
    attributes: Mapping[str, str]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    marks: frozenset[str]
    offset: int
    line: int

    @property
    def kind(self) -> str:
        """Type and version, for lists."""
        return f"{self.type} (opset{self.opset})" if self.opset else self.type

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.type} {self.name!r:.100} (layer {self.id}, line {self.line}, opset{self.opset})"

    def wrong(self, found: str, expected: str = "") -> FormatError:
        """A FormatError that names the layer."""
        return FormatError(self.file, self.offset, f"{found} in {self.title}", expected)

    def unsupported(self, what: str) -> UnsupportedError:
        """An UnsupportedError that names the layer."""
        return UnsupportedError(f"{self.file}: {self.title}: {what}")


@dataclass(frozen=True)
class Model:
    """What stands in an .xml. sources: (layer id, place of an input port) -> what it reads.

    layers: each after those that it reads; among the layers that could come next, the file's first.
    """

    file: str
    version: int
    layers: tuple[Layer, ...]
    sources: Mapping[int, tuple[Place, ...]]
    size: int
    by_id: Mapping[int, Layer] = field(repr=False, compare=False)

    def of_type(self, kind: str) -> list[Layer]:
        """All layers of a type."""
        return [layer for layer in self.layers if layer.type == kind]


def open_model(path: str | os.PathLike[str]) -> Model:
    """Read and check an .xml. Raises FormatError, and UnsupportedError for another version of the format."""
    file = os.fspath(path)
    stream, size = open_file(path)
    with stream:
        if size > LARGEST_FILE:
            raise FormatError(file, LARGEST_FILE, "more bytes", f"at most {LARGEST_FILE} in an .xml")
        reader = _Reader(file)
        left = size
        while left > 0 and (block := stream.read(min(BLOCK, left))):
            reader.feed(block)
            left -= len(block)
            reader.check_progress(size - left)
        reader.feed(b"", last=True)
    version, layers, edges = reader.version, reader.layers, reader.edges
    if not layers:
        raise FormatError(file, None, "no layers", "an IR with layers and edges")
    sources = _sources(file, layers, edges)
    return Model(file, version, _ordered(layers, sources), sources, size, layers)


@dataclass
class _Open:
    """A layer whose end has not been read."""

    attributes: dict[str, str]
    offset: int
    line: int
    data: dict[str, str] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Edge:
    ends: tuple[int, int, int, int]
    offset: int


class _Reader:
    """Expat's handlers: they keep the path of open elements and what the layer at hand has so far."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.version = 0
        self.layers: dict[int, Layer] = {}
        self.edges: list[_Edge] = []
        self._path: list[str] = []
        self._layer: _Open | None = None
        self._port: dict[str, str] | None = None
        self._dims: list[int] = []
        self._text: list[str] = []
        self._elements = 0
        self._seen = self._seen_at = 0
        self._parser = expat.ParserCreate("UTF-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.EntityDeclHandler = self._doctype

    def feed(self, block: bytes, last: bool = False) -> None:
        """The next bytes."""
        try:
            self._parser.Parse(block, last)
        except expat.ExpatError as error:
            where = f"line {error.lineno}: {expat.errors.messages.get(error.code, 'code ' + str(error.code))}"
            at = max(self._parser.ErrorByteIndex, 0)  # -1 before the first byte
            raise FormatError(self.file, at, f"no XML ({where})", "an IR") from None

    def check_progress(self, fed: int) -> None:
        """Refuse what holds no element for too long. fed: bytes so far."""
        if self._elements != self._seen:
            self._seen, self._seen_at = self._elements, fed
        elif fed - self._seen_at > LONGEST:
            found = f"{fed - self._seen_at} bytes without a new element"
            raise FormatError(self.file, self._seen_at, found, f"at most {LONGEST}")

    def _wrong(self, found: str, expected: str = "") -> FormatError:
        where = f" at line {self._parser.CurrentLineNumber}"
        return FormatError(self.file, self._parser.CurrentByteIndex, f"{found}{where}", expected)

    def _doctype(self, *_: object) -> None:
        raise self._wrong("a document type with entities", "none: an IR has no DTD")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if len(self._path) >= DEEPEST or self._elements > MOST_ELEMENTS:
            raise self._wrong(
                f"element {name[:60]!r}", f"at most {DEEPEST} inside one another and {MOST_ELEMENTS} in all"
            )
        self._path.append(name)
        path = "/".join(self._path) if len(self._path) < 7 else ""
        if len(self._path) == 1:
            self._net(name, attributes)
        elif path == "net/layers/layer":
            if len(self.layers) >= MOST_LAYERS:
                raise self._wrong("one more layer", f"at most {MOST_LAYERS}")
            parser = self._parser
            self._layer = _Open(attributes, parser.CurrentByteIndex, parser.CurrentLineNumber)
        elif path == "net/edges/edge":
            keys = ("from-layer", "from-port", "to-layer", "to-port")
            a, b, c, d = (self._number(attributes, key, "an edge") for key in keys)
            self.edges.append(_Edge((a, b, c, d), self._parser.CurrentByteIndex))
        elif self._layer is not None:
            self._inside(path, attributes, self._layer)

    def _net(self, name: str, attributes: dict[str, str]) -> None:
        if name != "net":
            hint = "the element net of an IR (a server's answer saved under this name?)"
            raise self._wrong(f"the element {name[:60]!r}", hint)
        self.version = self._number(attributes, "version", "net")
        if self.version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise UnsupportedError(
                f"{self.file}: version {self.version} of the IR; refnet reads {known}: convert the model anew"
            )

    def _inside(self, path: str, attributes: dict[str, str], layer: _Open) -> None:
        """An element of the layer at hand."""
        match path:
            case "net/layers/layer/data":
                layer.data.update(attributes)
            case "net/layers/layer/rt_info/attribute":
                layer.marks.add(attributes.get("name", "")[:100])
            case "net/layers/layer/input/port" | "net/layers/layer/output/port":
                if len(layer.inputs) + len(layer.outputs) >= MOST_PORTS:
                    raise self._wrong("one more port of a layer", f"at most {MOST_PORTS}")
                self._port, self._dims = attributes, []
            case "net/layers/layer/input/port/dim" | "net/layers/layer/output/port/dim":
                self._text = [""]

    def _characters(self, text: str) -> None:
        if self._path[-1] == "dim" and self._text:
            self._text.append(text[:64])
            if len(self._text) > 4:
                raise self._wrong("long text of a dimension")

    def _end(self, name: str) -> None:
        path = "/".join(self._path) if len(self._path) < 7 else ""
        self._path.pop()
        layer = self._layer
        if layer is None:
            return
        match path:
            case "net/layers/layer/input/port/dim" | "net/layers/layer/output/port/dim":
                text = "".join(self._text).strip()
                self._text = []
                if not WHOLE.fullmatch(text) or int(text) < -1 or len(self._dims) >= 32:
                    raise self._wrong(f"dimension {text[:30]!r}", "at most 32, whole numbers or -1")
                self._dims.append(int(text))
            case "net/layers/layer/input/port" | "net/layers/layer/output/port":
                assert self._port is not None
                (layer.inputs if "/input/" in path else layer.outputs).append(self._finished_port(self._port))
                self._port = None
            case "net/layers/layer":
                self._finish(layer)
                self._layer = None

    def _finished_port(self, attributes: dict[str, str]) -> Port:
        names = tuple(_names(attributes["names"])) if "names" in attributes else ()
        for name in names:
            check_name(name, self.file, self._parser.CurrentByteIndex, "a value's name")
        number = self._number(attributes, "id", "a port")
        return Port(number, attributes.get("precision", ""), tuple(self._dims), names)

    def _finish(self, layer: _Open) -> None:
        number = self._number(layer.attributes, "id", "a layer")
        name, kind = layer.attributes.get("name", ""), layer.attributes.get("type", "")
        version = layer.attributes.get("version", "")
        if number in self.layers:
            raise self._wrong(f"a second layer with the id {number}", "one of an id")
        if not name or not kind:
            raise self._wrong(f"layer {number} without a name or a type")
        for text in (name, kind):
            check_name(text, self.file, layer.offset, f"a name of layer {number}")
        opset = re.fullmatch("opset([0-9]{1,3})", version)
        if opset is None:  # a layer of an extension: refused by its type
            kind = f"{version[:60]}::{kind}"
        for ports in (layer.inputs, layer.outputs):
            if len({port.id for port in ports}) < len(ports):
                raise self._wrong(f"two ports with one id in layer {number}", "each id once")
        self.layers[number] = Layer(
            self.file, number, name, kind, int(opset[1]) if opset else 0, layer.data,
            tuple(layer.inputs), tuple(layer.outputs), frozenset(layer.marks), layer.offset, layer.line,
        )  # fmt: skip

    def _number(self, attributes: Mapping[str, str], key: str, what: str) -> int:
        text = attributes.get(key)
        if text is None or not WHOLE.fullmatch(text) or int(text) < 0:
            raise self._wrong(f"{key}={'nothing' if text is None else repr(text[:30])} of {what}",
                              "a whole number from 0 on")  # fmt: skip
        return int(text)


def _names(text: str) -> list[str]:
    r"""The names in a port's attribute `names`: a comma parts them, and one that belongs to a name is \,.

    >>> _names(r"a,b\,c")
    ['a', 'b,c']
    """
    parts = re.split(r"(?<!\\),", text)
    return [part.replace("\\,", ",") for part in parts if part]


def _sources(file: str, layers: Mapping[int, Layer], edges: Sequence[_Edge]) -> dict[int, tuple[Place, ...]]:
    """What each input port reads; every input port has one edge, and every edge two ends."""
    outs = {n: {port.id: k for k, port in enumerate(layer.outputs)} for n, layer in layers.items()}
    ins = {n: {port.id: k for k, port in enumerate(layer.inputs)} for n, layer in layers.items()}
    read: dict[int, dict[int, Place]] = {n: {} for n in layers}
    for edge in edges:
        a, b, c, d = edge.ends
        shown = f"an edge from port {b} of layer {a} to port {d} of layer {c}"
        if b not in outs.get(a, ()) or d not in ins.get(c, ()):
            raise FormatError(file, edge.offset, shown, "ports that there are")
        if outs[a][b] >= OUTPUTS.get(layers[a].type, MOST_PORTS) or layers[c].type in ("Parameter", "Const"):
            expected = "Parameter and Const with one output and no input, Result with no output"
            found = f"{shown}, {layers[a].type} to {layers[c].type}"
            raise FormatError(file, edge.offset, found, expected)
        if ins[c][d] in read[c]:
            raise FormatError(file, edge.offset, f"{shown}, which has one already", "one edge to a port")
        read[c][ins[c][d]] = (a, outs[a][b])
    for n, layer in layers.items():
        if lacking := [port.id for k, port in enumerate(layer.inputs) if k not in read[n]]:
            raise layer.wrong(f"no edge to port {lacking[0]}")
    return {n: tuple(found[k] for k in sorted(found)) for n, found in read.items()}


def _ordered(layers: Mapping[int, Layer], sources: Mapping[int, tuple[Place, ...]]) -> tuple[Layer, ...]:
    """The layers, each after those that it reads; of several that are ready, the file's first."""
    at = {n: k for k, n in enumerate(layers)}
    listed = list(layers.values())
    waiting = {n: len({a for a, _ in read}) for n, read in sources.items()}
    readers: dict[int, list[int]] = {n: [] for n in layers}
    for n, read in sources.items():
        for a in {a for a, _ in read}:
            readers[a].append(n)
    ready = [at[n] for n, count in waiting.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        layer = listed[heapq.heappop(ready)]
        order.append(layer)
        for n in readers[layer.id]:
            waiting[n] -= 1
            if not waiting[n]:
                heapq.heappush(ready, at[n])
    if len(order) < len(layers):
        done = {layer.id for layer in order}
        first = next(layer for layer in listed if layer.id not in done)
        raise first.wrong("a circle of edges", "layers that each read earlier ones")
    return tuple(order)
