"""An .onnx file -> its nodes and constants, checked; nothing outside of its folder is read.

    open_model ── Model: inputs, outputs, nodes (attributes by ONNX's schemas), constants (decoded when read)

The package onnx parses the protobuf and knows the operators' schemas; what it leaves open is checked here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, InputError, UnsupportedError
from refnet.formats.assembly import LARGEST_NUMBER, LARGEST_VALUE
from refnet.formats.bounded import Bounded, check_name, open_file
from refnet.formats.json_file import parse
from refnet.formats.onnx.local_functions import inlined

Array = npt.NDArray[Any]

OLDEST = 6
"""The opset from which on no operator writes over its inputs; older.py reads its forms."""
RETURNED = "refnet outputs"
"""The key of the metadata in which a capture notes what a module calls its outputs."""
LARGEST_FILE = (1 << 31) - 1
"""Bytes: what a protobuf message can have; larger models keep their weights in files beside it."""
DTYPES = (
    "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "BOOL",
    "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
)  # fmt: skip
"""The element types of constants that are read."""
INPUTS = {
    "FLOAT": "float32",
    **{name: name.lower() for name in DTYPES if "FLOAT" not in name and name != "DOUBLE"},
}
"""Those of inputs -> the dtype."""
STORED = {"FLOAT16": "int32", "BFLOAT16": "int32", "BOOL": "int32", "DOUBLE": "double", "FLOAT": "float",
          "INT64": "int64", "UINT64": "uint64", "UINT32": "uint64"}  # fmt: skip
"""Element type -> the typed field that holds it (the rest: int32)."""
WIDTHS = {"DOUBLE": 8, "INT64": 8, "UINT64": 8, "FLOAT16": 2, "BFLOAT16": 2, "INT16": 2, "UINT16": 2,
          "BOOL": 1, "INT8": 1, "UINT8": 1}  # fmt: skip
"""Element type -> bytes of an element (the rest: 4)."""


@dataclass(frozen=True)
class OnnxNode:
    """One node: its attributes have ONNX's defaults where absent, or None where there is none.

    since: the first opset of the operator's version that the file's opset means.
    """

    file: str
    index: int
    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    since: int
    proto: Any = field(repr=False, compare=False)

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.op} {self.name or self.outputs[0]!r} (node {self.index}, opset {self.opset})"

    def wrong(self, found: str, expected: str = "") -> FormatError:
        """A FormatError that names the node."""
        return FormatError(self.file, None, f"{found} in {self.title}", expected)

    def unsupported(self, what: str) -> UnsupportedError:
        """An UnsupportedError that names the node."""
        return UnsupportedError(f"{self.file}: {self.title}: {what}")


@dataclass(frozen=True)
class Model:
    """What stands in a file. inputs, without constants: name -> dimensions (numbers, names, None).

    kinds: of the inputs, their dtypes. returned: what the module that was exported calls its outputs.
    """

    file: str
    opset: int
    inputs: Mapping[str, tuple[int | str | None, ...]]
    kinds: Mapping[str, str]
    outputs: tuple[str, ...]
    returned: Mapping[str, str]
    nodes: tuple[OnnxNode, ...]
    constants: Constants
    size: int


def open_model(path: str | os.PathLike[str]) -> Model:
    """Read and check a file. Raises InputError without the package onnx, FormatError and UnsupportedError."""
    file = os.fspath(path)
    onnx = package("reading")
    stream, size = open_file(path)
    with stream:
        if size > LARGEST_FILE:
            raise FormatError(file, LARGEST_FILE, "more bytes", f"at most {LARGEST_FILE} in an .onnx")
        data = stream.read(size)
    try:
        return parse_model(data, file, onnx)
    except UnicodeDecodeError as error:
        raise FormatError(file, None, f"{error.object[:60]!r} as a name", "UTF-8 text") from None


def package(what: str) -> Any:
    """The package onnx, or an InputError that says how to get it."""
    try:
        import onnx
        import onnx.defs
        import onnx.numpy_helper
    except ImportError:
        raise InputError(f'{what} .onnx needs the package onnx: pip install "refnet[onnx]"') from None
    return onnx


def parse_model(data: bytes, file: str, onnx: Any) -> Model:
    """The model in a file's bytes."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError; its class depends on the implementation
        raise FormatError(file, None, f"no protobuf message ({str(error)[:200]})", "an ONNX model") from None
    _check_text(proto, file)
    proto = inlined(proto, file)
    graph = proto.graph
    if not graph.node:
        raise FormatError(file, None, "no nodes", "an ONNX model")
    opset = _opset(proto, file, onnx)
    if graph.sparse_initializer:
        raise UnsupportedError(f"{file}: sparse initializers")
    constants = Constants(file, onnx)
    for tensor in graph.initializer:
        constants.store(tensor.name, tensor)
    inputs, kinds = {}, {}
    for value in graph.input:
        check_name(value.name, file, None, "an input's name")
        if value.name in inputs:
            raise FormatError(file, None, f"two inputs {value.name[:100]!r}", "one of a name")
        if value.name not in constants:
            inputs[value.name] = _shape(value, file, onnx)
            kinds[value.name] = _kind(value, file, onnx)
    nodes = checked_nodes(graph.node, {*inputs, *constants.tensors}, file, opset, onnx)
    made = {name for node in nodes for name in node.outputs} | {*inputs, *constants.tensors}
    outputs = tuple(value.name for value in graph.output)
    if not outputs or len(set(outputs)) < len(outputs):
        raise FormatError(
            file, None, f"outputs {[name[:60] for name in outputs[:8]]}", "at least one, each once"
        )
    if missing := [name for name in outputs if name not in made]:
        raise FormatError(file, None, f"output {missing[0][:100]!r}", "a value that some node makes")
    returned = _returned(proto, outputs, file)
    return Model(file, opset, inputs, kinds, outputs, returned, nodes, constants, len(data))


def _returned(proto: Any, outputs: tuple[str, ...], file: str) -> dict[str, str]:
    """Names of outputs -> values, as the file's metadata say, in which a capture of a module notes them.

    Raises FormatError for anything but a list of pairs [name, output], each name once.
    """
    text = next((one.value for one in proto.metadata_props if one.key == RETURNED), "[]")
    pairs = parse(text.encode(), file)
    sound = isinstance(pairs, list) and all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and one[1] in outputs
        for one in pairs
    )
    names = [name for name, _ in pairs] if sound else [""]
    if not sound or len({*names}) < len(names):
        raise FormatError(file, None, f"{text[:100]!r} as {RETURNED!r}", "pairs of a name and an output")
    for name in names:
        check_name(name, file, None, "an output's name")
    return dict(pairs)


def _check_text(message: Any, file: str) -> None:
    """Refuse text that is no UTF-8, wherever it stands: protobuf hands it out as bytes."""
    for kind, value in message.ListFields():
        if kind.type == kind.TYPE_MESSAGE:
            for part in value if not hasattr(value, "ListFields") else (value,):
                _check_text(part, file)
        elif kind.type == kind.TYPE_STRING:
            for text in (value,) if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise FormatError(file, None, f"{text[:60]!r} as {kind.name}", "UTF-8 text")


def _opset(proto: Any, file: str, onnx: Any) -> int:
    versions = [e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")]
    if len(set(versions)) != 1:
        raise FormatError(file, None, f"opsets {versions[:8]} of ONNX's own domain", "one")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= versions[0] <= newest:
        raise UnsupportedError(
            f"{file}: opset {versions[0]}; refnet with onnx {onnx.__version__} reads {OLDEST} to {newest}"
        )
    return int(versions[0])


def _shape(value: Any, file: str, onnx: Any) -> tuple[int | str | None, ...]:
    """The dimensions of an input: each a number, a name or None (unknown)."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        raise FormatError(
            file, None, f"input {value.name[:100]!r} without a shape", "a tensor with its dimensions"
        )
    shape: list[int | str | None] = []
    for d in kind.shape.dim:
        which = d.WhichOneof("value")
        free = which is None or (which == "dim_value" and d.dim_value == -1)  # -1: Paddle's exporter
        shape.append(None if free else getattr(d, which) or None)
        if which == "dim_value" and not free and not 1 <= d.dim_value <= LARGEST_NUMBER:
            raise FormatError(
                file, None, f"dimension {d.dim_value} of input {value.name[:100]!r}", "1 or more"
            )
    return tuple(shape)


def _kind(value: Any, file: str, onnx: Any) -> str:
    """The dtype of an input."""
    number = value.type.tensor_type.elem_type
    shown = _types(onnx).get(number, str(number))
    if shown not in INPUTS:
        raise UnsupportedError(
            f"{file}: input {value.name[:100]!r} is {shown}, refnet's values are float32, integers, booleans"
        )
    return INPUTS[shown]


def _types(onnx: Any) -> dict[int, str]:
    """Number of an element type -> its name."""
    return {number: name for name, number in onnx.TensorProto.DataType.items()}


def checked_nodes(protos: Any, known: set[str], file: str, opset: int, onnx: Any) -> tuple[OnnxNode, ...]:
    """The nodes in order; each reads only inputs, initializers and earlier nodes, and makes new names."""
    known = {*known, ""}
    found: list[OnnxNode] = []
    for index, proto in enumerate(protos):
        where = f"node {index} {proto.name[:60]!r}"
        inputs, outputs = tuple(proto.input), tuple(proto.output)
        if not any(outputs):
            raise FormatError(file, None, f"no outputs of {where}", "at least one")
        for name in (*inputs, *outputs):
            check_name(name, file, None, f"a name in {where}")
        if missing := [name for name in inputs if name not in known]:
            raise FormatError(
                file, None, f"{missing[0][:100]!r} as input of {where}", "a value made before it"
            )
        if twice := [n for i, n in enumerate(outputs) if n and (n in known or n in outputs[:i])]:
            raise FormatError(file, None, f"a second value {twice[0][:100]!r}, of {where}", "one of a name")
        known.update(outputs)
        try:
            if proto.domain not in ("", "ai.onnx"):
                raise KeyError
            schema = onnx.defs.get_schema(proto.op_type, opset, "")
        except Exception:  # SchemaError of onnx's C++ part
            domain = f"{proto.domain[:60]}::" if proto.domain else ""
            op = f"{domain}{proto.op_type[:60]}"
            if not domain and onnx.defs.has(proto.op_type):  # which opset this is not: no rule is for it
                op += f" in opset {opset}"
            found.append(OnnxNode(file, index, op, proto.name, inputs, outputs, {}, opset, 0, proto))
            continue
        attributes = _attributes(proto, schema, file, where, onnx)
        if not schema.min_input <= len(inputs) <= schema.max_input or len(outputs) > schema.max_output:
            found_ = f"{len(inputs)} inputs and {len(outputs)} outputs of {where}"
            expected = f"{schema.min_input} to {schema.max_input}, and at most {schema.max_output}"
            raise FormatError(file, None, found_, f"{expected} of {proto.op_type} in opset {opset}")
        found.append(
            OnnxNode(file, index, proto.op_type, proto.name, inputs, outputs, attributes, opset,
                     schema.since_version, proto)
        )  # fmt: skip
    return tuple(found)


def _attributes(proto: Any, schema: Any, file: str, where: str, onnx: Any) -> dict[str, Any]:
    """The attributes by name, as the operator's schema has them."""
    found: dict[str, Any] = dict.fromkeys(schema.attributes)
    for name, rule in schema.attributes.items():
        if rule.default_value.name:
            found[name] = onnx.helper.get_attribute_value(rule.default_value)
    given = set()
    for attribute in proto.attribute:
        rule = schema.attributes.get(attribute.name)
        if rule is None or attribute.name in given or attribute.ref_attr_name:
            what = "an unknown attribute" if rule is None else "a second or indirect"
            raise FormatError(file, None, f"{what} {attribute.name[:60]!r} of {where}", proto.op_type)
        given.add(attribute.name)
        if attribute.type != int(rule.type.value):
            raise FormatError(file, None, f"attribute {attribute.name!r} of {where}", f"{rule.type}")
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise UnsupportedError(f"{file}: {proto.op_type}, {where}: subgraphs")
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == onnx.AttributeProto.INTS and len(value) > 64 and one_per_axis(proto.op_type):
            raise FormatError(
                file, None, f"{len(value)} numbers as {attribute.name!r} of {where}", "at most 64"
            )
        found[attribute.name] = value
    if lacking := [n for n, rule in schema.attributes.items() if rule.required and n not in given]:
        raise FormatError(file, None, f"no attribute {lacking[0]!r} of {where}", f"one of {proto.op_type}")
    return {name: _plain(value, file, where, name) for name, value in found.items()}


def one_per_axis(op: str) -> bool:
    """Whether an operator's lists of integers are one number per axis or so."""
    return op not in ("Constant", "Split")


def _plain(value: Any, file: str, where: str, name: str) -> Any:
    """Text as str; the rest as it is."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(file, None, f"{value[:60]!r} as {name!r} of {where}", "UTF-8 text") from None
    return value


class Constants:
    """The constant values by name: initializers, decoded when they are asked for, and what was folded."""

    def __init__(self, file: str, onnx: Any) -> None:
        self.file, self.onnx = file, onnx
        self.tensors: dict[str, Any] = {}
        self.arrays: dict[str, Array] = {}
        self._shared: dict[tuple[Path, int, int, int, tuple[int, ...]], Array] = {}
        self._read: dict[Path, dict[tuple[int, int], None]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.tensors or name in self.arrays

    def store(self, name: str, tensor: Any) -> None:
        """Keep an initializer."""
        check_name(name, self.file, None, "an initializer's name")
        if name in self or not name:
            raise FormatError(self.file, None, f"two initializers {name[:100]!r}", "one of a name")
        self.tensors[name] = tensor

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            self.arrays[name] = self.decode(self.tensors[name], f"initializer {name[:100]!r}")
        return self.arrays[name]

    def decode(self, tensor: Any, what: str) -> Array:
        """A tensor's array; every length is compared with what is there first."""
        kind = _types(self.onnx).get(tensor.data_type, str(tensor.data_type))
        if kind not in DTYPES:
            raise UnsupportedError(f"{self.file}: {what} is {kind}, refnet reads {', '.join(DTYPES)}")
        shape = tuple(tensor.dims)
        if len(shape) > 32 or any(not 0 <= n <= LARGEST_NUMBER for n in shape):
            raise FormatError(self.file, None, f"dimensions {shape[:8]} of {what}", "whole numbers from 0 on")
        count = math.prod(shape)
        width = WIDTHS.get(kind, 4)
        if tensor.HasField("segment"):
            raise UnsupportedError(f"{self.file}: {what} is in segments")
        if count > LARGEST_VALUE:
            raise FormatError(self.file, None, f"{what} of {count} elements", f"at most {LARGEST_VALUE}")
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            return self._external(tensor, what, count * width, shape)
        return self._array(tensor, what, kind, shape)

    def _array(self, tensor: Any, what: str, kind: str, shape: tuple[int, ...]) -> Array:
        count, width = math.prod(shape), WIDTHS.get(kind, 4)
        if tensor.HasField("raw_data"):
            length, needed = len(tensor.raw_data), count * width
        else:
            stored = getattr(tensor, f"{STORED.get(kind, 'int32')}_data")
            length, needed = len(stored), count
        if length != needed:
            raise FormatError(
                self.file, None, f"{length} bytes or numbers in {what}", f"{needed} for {kind} {shape[:8]}"
            )
        try:
            with np.errstate(all="ignore"):
                array: Array = np.asarray(self.onnx.numpy_helper.to_array(tensor))
        except Exception as error:  # numbers that do not fit their type
            raise FormatError(self.file, None, f"{what} that onnx refuses ({str(error)[:200]})") from None
        return array

    def _external(self, tensor: Any, what: str, needed: int, shape: tuple[int, ...]) -> Array:
        """Data in a file beside the model: only in its folder or below, links followed.

        Tensors with the same bytes share one array, and other parts of a file may not overlap: so no more is
        read than the file holds, however many tensors name it.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        check_name(location, self.file, None, f"the location of {what}")
        folder = Path(self.file).parent.resolve()
        path = Path(os.path.realpath(folder / location))
        if (
            not location
            or Path(location).is_absolute()
            or ".." in Path(location).parts
            or folder not in path.parents
        ):
            raise FormatError(
                self.file, None, f"{location[:100]!r} as location of {what}", "a file in the model's folder"
            )
        numbers = [entries.get("offset", "0"), entries.get("length", str(needed))]
        if any(not (n.isdecimal() and n.isascii() and len(n) < 19) for n in numbers):
            raise FormatError(
                self.file, None, f"offset and length {[n[:30] for n in numbers]} of {what}", "whole numbers"
            )
        offset, length = map(int, numbers)
        if length != needed:
            raise FormatError(self.file, None, f"{length} bytes of {what}", f"{needed}")
        key = (path, offset, length, tensor.data_type, shape)
        if key in self._shared:
            return self._shared[key]
        stream, size = open_file(path)
        with stream:
            data = Bounded(stream, str(path), size)
            data.skip(offset, what)
            data.skip(length, what)
            parts = self._read.setdefault(path, {})
            parts[offset, length] = None
            if (total := sum(n for _, n in parts)) > size:
                raise FormatError(
                    str(path),
                    offset,
                    f"tensors of {total} bytes, the last {what}",
                    f"at most the file's {size}",
                )
            data.place = offset
            raw = data.bytes(length, what)
        kind = _types(self.onnx)[tensor.data_type]
        tensor = self.onnx.TensorProto(dims=shape, data_type=tensor.data_type, raw_data=raw)
        self._shared[key] = self._array(tensor, what, kind, shape)
        return self._shared[key]
